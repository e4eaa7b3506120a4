"""Robots that are judged together against a loop over single ones, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from rlfd.envs import EnvConfig, World
from rlfd.envs.loop import Loop
from rlfd.envs.registry import check
from rlfd.envs.robots import Robots

REWARDS = [("dense", {}), ("sparse", {"unit": 0.01}), ("beyond", {"unit": 0.02}), ("delay-7", {})]
PAID = pytest.mark.parametrize(("reward", "options"), REWARDS, ids=[name for name, _ in REWARDS])
NAMES = pytest.mark.parametrize("name", ["HalfCheetah", "Hopper", "Walker2d"])


def pair(name, reward="dense", options=None, num_envs=3):
    """Return both vectors, begun with the same seeds."""
    config = check(EnvConfig(name, reward=reward, options=options or {}))
    both = Robots(config, num_envs), Loop(config, num_envs)
    seeds = [11, 5, 8, 2, 9][:num_envs]
    first = [vector.start(seeds) for vector in both]
    np.testing.assert_array_equal(*first)
    return both


def actions_of(vector, count, num_envs=3, dtype=np.float32):
    rng = np.random.default_rng(3)
    low, high = vector.action_space.low, vector.action_space.high
    wide = rng.uniform(1.3 * low, 1.3 * high, (count, num_envs, len(low)))
    return wide.astype(dtype)


def push(vector):
    """Give every robot some speed along the track, so that it gets ahead before it falls."""
    for env in vector._envs:
        data = env.unwrapped.data
        speeds = np.array(data.qvel)
        speeds[0] += 2.0
        env.unwrapped.set_state(np.array(data.qpos), speeds)


def assert_same_step(ours, theirs):
    for field in ("next_observations", "observations", "rewards", "terminated", "truncated"):
        found, expected = getattr(ours, field), getattr(theirs, field)
        np.testing.assert_array_equal(found, expected, err_msg=field)
        assert found.dtype == expected.dtype
    assert ours.infos.keys() == theirs.infos.keys()
    for index, info in ours.infos.items():
        assert info.get("dense_return") == theirs.infos[index].get("dense_return")


@NAMES
@PAID
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_steps(name, reward, options, dtype):
    ours, theirs = pair(name, reward, options)
    push(ours)
    push(theirs)
    ends, paid = 0, 0.0
    for actions in actions_of(ours, 160, dtype=dtype):
        first, second = ours.step(actions), theirs.step(actions)
        assert_same_step(first, second)
        ends, paid = ends + len(first.infos), paid + np.abs(first.rewards).sum()
        assert [ours.ended_seed(i) for i in range(3)] == [theirs.ended_seed(i) for i in range(3)]
    assert paid > 0.0
    assert bool(ends) == (name != "HalfCheetah")


@PAID
def test_the_same_at_the_time_limit_and_after_it(reward, options):
    ours, theirs = pair("HalfCheetah", reward, options, num_envs=2)
    cut = 0
    for actions in actions_of(ours, 1010, num_envs=2):
        first = ours.step(actions)
        assert_same_step(first, theirs.step(actions))
        cut += first.truncated.sum()
    assert cut == 2


@NAMES
def test_the_same_judgement_of_states_of_every_size(name):
    ours, theirs = pair(name, num_envs=5)
    rng = np.random.default_rng(7)
    actions = np.zeros((5, *ours.action_space.shape), np.float32)
    fallen = 0
    for _ in range(41):
        for index in range(5):
            inner = ours._envs[index].unwrapped
            positions, speeds = np.array(inner.data.qpos), np.array(inner.data.qvel)
            positions[1:] += rng.normal(size=len(positions) - 1) * rng.choice([0.01, 0.3, 3.0])
            speeds += rng.normal(size=len(speeds)) * rng.choice([0.0, 3.0, 80.0])
            for vector in (ours, theirs):
                vector._envs[index].unwrapped.set_state(positions, speeds)
        first = ours.step(actions)
        assert_same_step(first, theirs.step(actions))
        fallen += first.terminated.sum()
    assert (0 < fallen < 205) == (name != "HalfCheetah")


@NAMES
@PAID
def test_states_are_exchangeable_with_a_loops(name, reward, options):
    ours, theirs = pair(name, reward, options)
    actions = actions_of(ours, 90)
    for row in actions[:47]:
        ours.step(row)
        theirs.step(row)
    after = pair(name, reward, options)
    for vector, state in zip(after, (theirs.state(), ours.state()), strict=True):
        vector.restore(state)
    for row in actions[47:]:
        expected = theirs.step(row)
        for vector in after:
            assert_same_step(vector.step(row), expected)


def test_an_action_of_another_shape_is_refused():
    ours, _ = pair("Hopper")
    with pytest.raises(ValueError, match="shape"):
        ours.step(np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(("name", "kind"), [("Hopper", Robots), ("Ant", Loop), ("Hopper-v5", Loop)])
def test_who_is_judged_together(name, kind):
    assert type(World(EnvConfig(name), num_envs=1, seed=0)._vector) is kind
