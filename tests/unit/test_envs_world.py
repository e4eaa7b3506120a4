"""The vector of environments: counting, records, saving, and not-a-number."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import envs
from rlfd.envs import EnvConfig, World
from rlfd.errors import RlfdError, RunFailed

FIELDS = envs.Transitions.__slots__


def draw(world, rng):
    space = world.action_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=world.num_envs)
    return rng.uniform(space.low, space.high, (world.num_envs, *space.shape)).astype(np.float32)


def assert_same(first, second):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), field)


class Counter(gymnasium.Env):
    """Observation: the step. Ends after 5 steps, or by action 1; both at once is possible."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Discrete(4)

    def __init__(self, render_mode=None):
        self.step_number = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(1), {}

    def step(self, action):
        self.step_number += 1
        observation = np.full(1, np.nan if action == 2 else self.step_number)
        reward = np.inf if action == 3 else 0.1
        return observation, reward, action == 1, self.step_number == 5, {}


@pytest.fixture
def counter(monkeypatch):
    monkeypatch.setattr(gymnasium, "make", lambda *_, **__: Counter())
    return EnvConfig("CartPole-v1")


def test_transitions_at_the_end_of_an_episode(counter):
    world = World(counter, num_envs=3, seed=0)
    for _ in range(4):
        step = world.step(np.array([0, 0, 0]))
        assert step.next_observations is world.observations
    step = world.step(np.array([0, 1, 0]))
    np.testing.assert_array_equal(step.observations[:, 0], [4, 4, 4])
    np.testing.assert_array_equal(step.next_observations[:, 0], [5, 5, 5])
    np.testing.assert_array_equal(world.observations[:, 0], [0, 0, 0])
    np.testing.assert_array_equal(step.terminated, [False, True, False])
    np.testing.assert_array_equal(step.truncated, [True, False, True])  # terminal wins
    assert step.rewards.dtype == np.float64
    assert world.env_steps == 15

    world.step(np.array([0, 1, 0]))
    records = world.drain_episodes()
    assert [(r.env_index, r.episode_length, r.env_steps) for r in records] == [
        (0, 5, 15), (1, 5, 15), (2, 5, 15), (1, 1, 18),
    ]  # fmt: skip
    assert records[0].episode_return == pytest.approx(0.5)
    assert records[0].seed is not None
    assert records[3].seed is None
    assert records[0].success is None
    assert world.drain_episodes() == []


@pytest.mark.parametrize(("action", "what"), [(2, "observation"), (3, "reward")])
def test_numbers_that_are_not_finite_stop_the_run(counter, action, what):
    world = World(counter, num_envs=5, seed=0)
    world.step(np.zeros(5, int))
    with pytest.raises(RunFailed) as error:
        world.step(np.array([0, 0, 0, action, 0]))
    text = str(error.value)
    assert what in text
    assert "environment 3 of 5" in text
    assert "env step 10" in text
    world = World(counter, num_envs=5, seed=0)
    for _ in range(4):
        world.step(np.zeros(5, int))
    with pytest.raises(RunFailed, match=what):  # also in the last step of an episode
        world.step(np.array([action, 0, 0, 0, 0]))


def test_arrays_are_never_written_again():
    world = World(EnvConfig("CartPole"), num_envs=3, seed=1)
    rng = np.random.default_rng(0)
    kept, copies = [], []
    actions = np.zeros(3, np.int64)
    for _ in range(57):
        actions[:] = draw(world, rng)  # the caller reuses its array
        step = world.step(actions)
        kept.append(step)
        copies.append([getattr(step, field).copy() for field in FIELDS])
    for step, copied in zip(kept, copies, strict=True):
        for field, values in zip(FIELDS, copied, strict=True):
            np.testing.assert_array_equal(getattr(step, field), values)


@pytest.mark.parametrize(
    ("config", "num_envs", "before", "after"),
    [
        (EnvConfig("LunarLander", "shifted"), 3, 157, 301),
        (EnvConfig("LunarLander", "demo", {"push_scale": 0.5}), 1, 131, 173),
        (EnvConfig("LunarLander6", "spin"), 2, 83, 127),
        (EnvConfig("CartPole"), 5, 61, 203),
        (EnvConfig("CartPole"), 7, 0, 53),
        (EnvConfig("MountainCar"), 2, 199, 211),
        (EnvConfig("Pendulum-v1"), 3, 207, 407),
        (EnvConfig("LunarLanderContinuous", "shifted"), 3, 157, 301),
        # MuJoCo warm-starts its solver from the step before: replaying must bring that back, too
        (EnvConfig("Hopper"), 5, 61, 203),
        (EnvConfig("Walker2d"), 3, 0, 83),
        (EnvConfig("HalfCheetah"), 2, 1033, 1009),
        (EnvConfig("Humanoid"), 2, 37, 113),
        (EnvConfig("Reacher"), 3, 71, 113),
    ],
)
def test_a_restored_world_goes_on_bit_for_bit(config, num_envs, before, after):
    rng = np.random.default_rng(11)
    world = World(config, num_envs=num_envs, seed=5)
    for _ in range(before):
        world.step(draw(world, rng))
    state = world.state_dict()
    other = World(config, num_envs=num_envs, seed=77)
    other.step(draw(other, rng))
    other.load_state_dict(state)
    np.testing.assert_array_equal(world.observations, other.observations)
    for _ in range(after):
        actions = draw(world, rng)
        assert_same(world.step(actions), other.step(actions))
    records = world.drain_episodes()
    assert records == other.drain_episodes()
    assert len(records) > num_envs or config.name == "LunarLander6"
    # and once more, from the restored one
    third = World(config, num_envs=num_envs, seed=1)
    third.load_state_dict(other.state_dict())
    actions = draw(world, rng)
    assert_same(world.step(actions), third.step(actions))
    assert third.env_steps == world.env_steps


def test_the_saved_state_is_json_and_arrays():
    world = World(EnvConfig("LunarLander"), num_envs=2, seed=0)
    rng = np.random.default_rng(0)
    while len(world._finished) < 2:
        world.step(draw(world, rng))

    def plain(value):
        if isinstance(value, np.ndarray):
            return {"dtype": str(value.dtype), "shape": value.shape, "values": value.tolist()}
        raise TypeError(type(value))

    def arrays(value):
        return np.array(value["values"], value["dtype"]).reshape(value["shape"])

    text = json.dumps(world.state_dict(), default=plain)
    state = json.loads(text, object_hook=lambda v: arrays(v) if "dtype" in v else v)
    other = World(EnvConfig("LunarLander"), num_envs=2, seed=9)
    other.load_state_dict(state)
    actions = draw(world, rng)
    assert_same(world.step(actions), other.step(actions))
    assert world.drain_episodes() == other.drain_episodes()


def test_only_the_running_episodes_are_remembered():
    world = World(EnvConfig("CartPole"), num_envs=3, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        world.step(draw(world, rng))
    lengths = [len(saved["actions"]) for saved in world.state_dict()["envs"]]
    assert len(world._vector.history.table()) == max(lengths) < 100


def test_a_world_of_another_kind_is_refused():
    state = World(EnvConfig("CartPole"), num_envs=2, seed=0).state_dict()
    for config, num_envs in ((EnvConfig("CartPole"), 3), (EnvConfig("CartPole-v1"), 2)):
        with pytest.raises(RlfdError, match="the saved world has 2 of"):
            World(config, num_envs=num_envs, seed=0).load_state_dict(state)


def test_an_environment_that_cannot_be_replayed_is_noticed(counter, monkeypatch):
    noise = np.random.default_rng(0)
    real = Counter.step
    monkeypatch.setattr(Counter, "step", lambda self, a: (noise.random(1), *real(self, a)[1:]))
    world = World(counter, num_envs=1, seed=0)
    world.step(np.array([0]))
    others = r"its observations were others: .*cannot be continued exactly"
    with pytest.raises(RlfdError, match=others):
        World(counter, num_envs=1, seed=0).load_state_dict(world.state_dict())


def test_consecutive_seeds_share_no_environment():
    first = World(EnvConfig("CartPole"), num_envs=5, seed=0)
    second = World(EnvConfig("CartPole"), num_envs=5, seed=1)
    starts = np.concatenate([first.observations, second.observations])
    assert len(np.unique(starts[:, 0])) == 10
    again = World(EnvConfig("CartPole"), num_envs=5, seed=0)
    np.testing.assert_array_equal(first.observations, again.observations)


def test_an_observation_of_another_shape_than_promised_is_refused(counter, monkeypatch):
    monkeypatch.setattr(Counter, "reset", lambda self, **_: (np.zeros(2), {}))
    with pytest.raises(RlfdError, match=r"shape \(2,\) in reset, expected \(1,\), as its"):
        World(counter, num_envs=1, seed=0)


def test_at_least_one_environment():
    with pytest.raises(RlfdError, match="at least 1"):
        World(EnvConfig("CartPole"), num_envs=0, seed=0)
