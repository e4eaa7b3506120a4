"""The leaner steps against Gymnasium's own, bit for bit."""

import gymnasium
import numpy as np
import pytest

from rlfd import envs
from rlfd.envs import EnvConfig

ROBOTS = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid"]


def pair(name):
    """Return ours and Gymnasium's; ours is made first, since it takes MuJoCo's warnings."""
    return envs.make(EnvConfig(name)), gymnasium.make(f"{name}-v5", disable_env_checker=True)


def assert_same_step(ours, theirs):
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[0].dtype == theirs[0].dtype
    assert ours[1] == theirs[1] or (np.isnan(ours[1]) and np.isnan(theirs[1]))
    assert type(ours[1]) is type(theirs[1])
    assert ours[2:4] == theirs[2:4]
    assert ours[4]["x_position"] == theirs[4]["x_position"]


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_episodes(name, dtype):
    ours, theirs = pair(name)
    assert "step" in vars(ours.unwrapped)
    rng = np.random.default_rng(5)
    low, high = ours.action_space.low, ours.action_space.high
    ends = 0
    for episode in range(5):
        np.testing.assert_array_equal(ours.reset(seed=episode)[0], theirs.reset(seed=episode)[0])
        for _ in range(83):
            action = rng.uniform(1.5 * low, 1.5 * high).astype(dtype)  # outside of the bounds, too
            first, second = ours.step(action), theirs.step(action)
            assert_same_step(first, second)
            if first[2]:
                ends += 1
                break
    assert bool(ends) == (name != "HalfCheetah")


@pytest.mark.parametrize("name", ROBOTS)
def test_states_at_the_edges_of_health(name):
    """From heights, angles and speeds of every size, healthy or not."""
    ours, theirs = pair(name)
    rng = np.random.default_rng(7)
    action = np.zeros(ours.action_space.shape, np.float32)
    ends = set()
    for episode in range(61):
        ours.reset(seed=episode)
        theirs.reset(seed=episode)
        inner = ours.unwrapped
        positions, speeds = np.array(inner.data.qpos), np.array(inner.data.qvel)
        positions[:3] += rng.normal(size=3) * rng.choice([0.01, 0.3, 3.0])
        speeds += rng.normal(size=speeds.shape) * rng.choice([0.0, 3.0, 80.0])
        for env in (ours, theirs):
            env.unwrapped.set_state(positions, speeds)
        first, second = ours.step(action), theirs.step(action)
        assert_same_step(first, second)
        ends.add(first[2])
    assert ends == ({False} if name == "HalfCheetah" else {False, True})


def test_time_limits_hold():
    ours, _ = pair("HalfCheetah")
    ours.reset(seed=0)
    flags = [ours.step(np.zeros(6, np.float32))[2:4] for _ in range(1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]


def test_an_action_of_another_shape_is_refused():
    ours, _ = pair("Hopper")
    ours.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        ours.step(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("Hopper-v5", options={"exclude_current_positions_from_observation": False}),
        EnvConfig("Ant-v5", options={"terminate_when_unhealthy": False}),
        EnvConfig("Swimmer"),
    ],
)
def test_others_are_left_as_they_are(config):
    assert "step" not in vars(envs.make(config).unwrapped)
