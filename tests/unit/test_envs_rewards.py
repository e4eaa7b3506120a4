"""Every reward rule against a plain loop over whole episodes, on made-up and on real simulators."""

import itertools
import math
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import envs
from rlfd.envs import EnvConfig, World, play_episodes
from rlfd.envs.rewards import Balanced, Beyond, Delayed, Goal, Progress, Reached, Upright
from rlfd.errors import RlfdError, RunFailed


class Script(gymnasium.Env):
    """Episodes that were written beforehand: positions, observations, rewards, and how they end."""

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float64)
    action_space = spaces.Discrete(1)

    def __init__(self, *episodes):
        self.data = SimpleNamespace(qpos=np.zeros(3))
        self.episodes = itertools.cycle(episodes)

    def reset(self, *, seed=None, options=None):
        self.episode, self.at = next(self.episodes), 0
        return self._observe(), {}

    def _observe(self):
        self.data.qpos[0] = self.episode["x"][self.at]
        return self.episode["observations"][self.at]

    def step(self, action):
        reward = self.episode["rewards"][self.at]
        self.at += 1
        last = self.at == len(self.episode["rewards"])
        terminated, truncated = (last and self.episode[key] for key in ("terminated", "truncated"))
        return self._observe(), reward, terminated, truncated, {"told": self.at}


def script(*, x=None, observations=None, rewards=None, terminated=False, truncated=True):
    given = [values for values in (x, observations) if values is not None]
    steps = len(given[0]) - 1 if given else len(rewards)
    return {
        "x": np.zeros(steps + 1) if x is None else x,
        "observations": np.zeros((steps + 1, 5)) if observations is None else observations,
        "rewards": np.arange(1.0, steps + 1) if rewards is None else rewards,
        "terminated": terminated,
        "truncated": truncated,
    }


def play(env, action=0):
    """Play one episode; return rewards, dense rewards, the last info, and how it ended."""
    env.reset()
    paid, dense = [], []
    while True:
        _, reward, terminated, truncated, info = env.step(action)
        assert type(reward) is float
        paid.append(reward)
        dense.append(info["dense_reward"])
        if terminated or truncated:
            assert info["dense_return"] == pytest.approx(sum(dense), rel=1e-12)
            return paid, dense, info, (terminated, truncated)
        assert "dense_return" not in info


# What each rule pays, said once more and differently: from a whole episode at once


def increments(xs, unit):
    threshold, paid = xs[0] + unit, []
    for x in xs[1:]:
        paid.append(1.0 if x > threshold else 0.0)
        if x > threshold:
            threshold += unit
    return paid


def beyond(xs, unit):
    return [1.0 if x - xs[0] > unit else 0.0 for x in xs[1:]]


def delayed(rewards, every):
    paid = np.zeros(len(rewards))
    for begin in range(0, len(rewards), every):
        part = rewards[begin : begin + every]
        paid[begin + len(part) - 1] = math.fsum(part)
    return paid


def reached(distances, steps=5):
    """Return the index of the step that ends the episode, or None."""
    for end in range(steps, len(distances) + 1):
        if all(distance <= 0.01 for distance in distances[end - steps : end]):
            return end - 1
    return None


@pytest.mark.parametrize("unit", [0.25, 1.0, 5.0])  # exact in binary, as are the positions
@pytest.mark.parametrize("seed", range(7))
def test_progress_and_beyond(seed, unit):
    rng = np.random.default_rng(seed)
    # steps of every size: none, a part of the unit, several units, backwards
    walks = [
        rng.integers(-3, 8) + np.cumsum(rng.integers(-9, 17, length) * 2.0 ** rng.integers(-6, 1))
        for length in (2, 31, 57)
    ]
    env = Progress(Script(*[script(x=walk) for walk in walks]), unit)
    other = Beyond(Script(*[script(x=walk) for walk in walks]), unit)
    for walk in walks * 2:
        assert play(env)[0] == increments(walk, unit)
        assert play(other)[0] == beyond(walk, unit)


def test_progress_step_by_step():
    """A threshold must be passed, not met; a jump is paid one by one; backwards costs nothing."""
    env = Progress(Script(script(x=[2.0, 3.0, 3.25, 3.5, 3.25, 7.5, 7.5, 7.5, 7.5, 6.0, 7.5])), 1.0)
    assert play(env)[0] == [0, 1, 0, 0, 1, 1, 1, 1, 0, 0]
    assert play(env)[0] == [0, 1, 0, 0, 1, 1, 1, 1, 0, 0]  # and again after a reset


def test_beyond_step_by_step():
    env = Beyond(Script(script(x=[-2.0, -1.0, -0.75, -1.25, 4.0])), 1.0)
    assert play(env)[0] == [0, 1, 0, 1]


@pytest.mark.parametrize("every", [2, 3, 7, 100])
@pytest.mark.parametrize("ending", [(True, False), (False, True), (True, True)])
def test_delayed(every, ending):
    rng = np.random.default_rng(every)
    terminated, truncated = ending
    episodes = [
        script(rewards=rng.normal(size=n), terminated=terminated, truncated=truncated)
        for n in (1, every - 1, every, every + 1, 5 * every + 1)
    ]
    env = Delayed(Script(*episodes), every)
    for episode in episodes * 2:
        paid, dense, _, ended = play(env)
        np.testing.assert_allclose(paid, delayed(episode["rewards"], every), rtol=1e-12)
        assert sum(paid) == pytest.approx(sum(dense), rel=1e-12)
        assert dense == list(episode["rewards"])
        assert ended == ending


def test_upright():
    cosines = [1.0, 0.95, 0.89, 0.8901, -0.9, np.nextafter(0.89, 1)]
    observations = np.zeros((6, 5))
    observations[:, 3] = cosines
    env = Upright(Script(script(observations=observations, terminated=True)))
    assert play(env)[0] == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("near", "end"),
    [
        ("nnnnn", 5),
        ("nnnnfnnnnnn", 10),
        ("fnnnnf", None),
        ("ffff", None),
        ("nnnnnnnnnn", 5),
        ("fffnnnnn", 8),
    ],
)
def test_reached(near, end):
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 7, len(near) + 1)
    distances = np.array([0.0, *(0.0099 if c == "n" else 0.0101 for c in near)])
    observations = np.zeros((len(near) + 1, 5))
    observations[:, 3], observations[:, 4] = distances * np.cos(angles), distances * np.sin(angles)
    env = Reached(Script(script(observations=observations)))
    for _ in range(2):
        paid, _, info, (terminated, truncated) = play(env)
        assert reached(distances[1:]) == (None if end is None else end - 1)
        assert len(paid) == info["told"] == (len(near) if end is None else end)
        assert sum(paid) == paid[-1] == float(end is not None)
        assert (terminated, truncated) == (end is not None, len(paid) == len(near))


@pytest.mark.parametrize("terminated", [True, False])
def test_goal(terminated):
    env = Goal(Script(script(rewards=-np.ones(6), terminated=terminated, truncated=True)))
    assert play(env)[0] == [0, 0, 0, 0, 0, float(terminated)]


@pytest.mark.parametrize("length", [3, 199, 200, 201, 317])
def test_balanced(length):
    env = Balanced(Script(script(rewards=np.ones(length), terminated=True)))
    for _ in range(2):
        paid, _, info, _ = play(env)
        assert paid == [0.0] * min(length, 200) + [1.0] * (length - 200)
        assert info["dense_return"] == length


def test_a_broken_simulator_does_not_go_unseen():
    env = Goal(Script(script(rewards=[1.0, math.nan, 1.0])))
    env.reset()
    assert env.step(0)[1] == 0.0
    assert math.isnan(env.step(0)[1])


# On the real simulators

TRACKS = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer"]


@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize(
    ("reward", "reference"), [("sparse", increments), ("beyond", beyond)], ids=["sparse", "beyond"]
)
def test_the_position_is_that_of_the_torso(name, reward, reference):
    """Gymnasium tells the position of the torso, which no observation here has, in `info`."""
    env = envs.make(EnvConfig(name, options={"unit": 0.03}, reward=reward))
    plain = envs.make(EnvConfig(name))
    rng = np.random.default_rng(3)
    low, high = env.action_space.low, env.action_space.high
    payments = 0
    for episode in range(3):
        _, info = env.reset(seed=episode)
        plain.reset(seed=episode)
        for simulator in (env.unwrapped, plain.unwrapped):
            push = np.array(simulator.data.qvel)
            push[0] += 2.0  # noise alone goes nowhere
            simulator.set_state(np.array(simulator.data.qpos), push)
        xs, paid = [info["x_position"]], []
        for _ in range(50):
            action = rng.uniform(low, high).astype(np.float32)
            observation, reward_now, terminated, _, info = env.step(action)
            expected, dense, *_ = plain.step(action)
            np.testing.assert_array_equal(observation, expected)
            assert info["dense_reward"] == dense
            xs.append(info["x_position"])
            paid.append(reward_now)
            if terminated:
                break
        assert paid == reference(xs, 0.03)
        payments += sum(paid)
    assert payments


def test_the_units():
    for name in TRACKS:
        options = envs.check(EnvConfig(name, reward="sparse")).options
        assert options == {"unit": 5.0 if name == "HalfCheetah" else 1.0}
        assert envs.check(EnvConfig(name)).options == {}


def test_reaching_the_target():
    env = envs.make(EnvConfig("Reacher", reward="sparse"))
    env.reset(seed=0)
    simulator = env.unwrapped
    tip = simulator.get_body_com("fingertip")[:2]
    positions, still = np.array([*simulator.data.qpos[:2], *tip]), np.zeros(4)
    simulator.set_state(positions, still)
    results = [env.step(np.zeros(2, np.float32))[1:4] for _ in range(5)]
    assert [result[0] for result in results] == [0, 0, 0, 0, 1]
    assert [result[1] for result in results] == [False] * 4 + [True]


def test_balancing_two_poles():
    env = envs.make(EnvConfig("InvertedDoublePendulum", reward="sparse"))
    env.reset(seed=1)
    terminated = False
    while not terminated:
        observation, reward, terminated, _, info = env.step(np.full(1, 0.3, np.float32))
        cosine = math.cos(env.unwrapped.data.qpos[1])
        assert observation[3] == pytest.approx(cosine)
        assert reward == float(cosine > 0.89)
    assert info["dense_return"] > 0


def along_the_swing(observations, _):
    return np.where(observations[:, 1] >= 0, 2, 0)


def test_the_top_of_the_hill():
    config = EnvConfig("MountainCar", reward="sparse")
    for episode in play_episodes(config, seeds=range(5), act=along_the_swing):
        assert (episode.episode_return, episode.terminated) == (1.0, True)
        assert episode.dense_return == -episode.length


def keep_the_pole(observations, _):
    return (observations @ [0.1, 0.3, 3.0, 1.0] > 0).astype(int)


def test_a_balanced_pole():
    config = EnvConfig("CartPole", reward="sparse")
    for episode in play_episodes(config, seeds=range(3), act=keep_the_pole, record=True):
        assert (episode.episode_return, episode.dense_return) == (300.0, 500.0)
        assert episode.rewards.sum() == 300.0
    (fallen,) = play_episodes(config, seeds=[0], act=lambda o, _: np.zeros(len(o), int))
    assert (fallen.episode_return, fallen.dense_return) == (0.0, fallen.length)


# In worlds and rollouts


def random_steps(world, steps, seed=0):
    rng = np.random.default_rng(seed)
    low, high = world.action_space.low, world.action_space.high
    size = (world.num_envs, *low.shape)
    return [world.step(rng.uniform(low, high, size).astype(np.float32)) for _ in range(steps)]


@pytest.mark.parametrize("reward", ["sparse", "delay-7"])
def test_a_world_pays_one_and_records_both(reward):
    options = {"unit": 0.02} if reward == "sparse" else {}
    world = World(EnvConfig("Hopper", options=options, reward=reward), num_envs=3, seed=4)
    dense = World(EnvConfig("Hopper"), num_envs=3, seed=4)
    steps, dense_steps = random_steps(world, 151), random_steps(dense, 151)
    for ours, theirs in zip(steps, dense_steps, strict=True):
        np.testing.assert_array_equal(ours.next_observations, theirs.next_observations)
    records, dense_records = world.drain_episodes(), dense.drain_episodes()
    assert len(records) > 5
    for ours, theirs in zip(records, dense_records, strict=True):
        assert ours.dense_return == theirs.dense_return == theirs.episode_return
        assert ours.episode_length == theirs.episode_length
        if reward == "sparse":
            assert ours.episode_return == int(ours.episode_return)
        else:
            assert ours.episode_return == pytest.approx(ours.dense_return)
    assert any(record.episode_return for record in records)


def test_a_restored_world_owes_what_it_owed():
    """The rules' memory is not in the saved state: replaying brings it back."""
    sparse = EnvConfig("HalfCheetah", options={"unit": 0.05}, reward="sparse")
    for config in (sparse, EnvConfig("Hopper", reward="delay-20")):
        world, other = (World(config, num_envs=3, seed=seed) for seed in (0, 1))
        random_steps(world, 113)
        random_steps(other, 5)
        other.load_state_dict(world.state_dict())
        assert world.drain_episodes() == other.drain_episodes()
        steps = zip(random_steps(world, 97, 1), random_steps(other, 97, 1), strict=True)
        paid = 0
        for ours, theirs in steps:
            np.testing.assert_array_equal(ours.rewards, theirs.rewards)
            paid += np.count_nonzero(ours.rewards)
        assert paid
        assert world.drain_episodes() == other.drain_episodes()


def test_a_state_of_a_version_without_other_rewards():
    world = World(EnvConfig("CartPole"), num_envs=2, seed=0)
    while not world._finished:
        world.step(np.array([1, 1]))
    state = world.state_dict()
    del state["env"]["reward"]
    for record in state["finished"]:
        del record["dense_return"]
    other = World(EnvConfig("CartPole"), num_envs=2, seed=9)
    other.load_state_dict(state)
    assert other.drain_episodes() == world.drain_episodes()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EnvConfig("LunarLander", reward="sparse"), "environments that have one: CartPole, Mount"),
        (EnvConfig("Hopper-v5", reward="sparse"), "Hopper-v5 has no reward 'sparse'"),
        (EnvConfig("Reacher", reward="beyond"), "have one: HalfCheetah, Hopper, Walker2d, Ant,"),
        (EnvConfig("Hopper", reward="spars"), "unknown reward 'spars', did you mean 'sparse'?"),
        (EnvConfig("Hopper", reward="delay-K"), "K stands for a number"),
        (EnvConfig("Hopper", reward="delay-0"), "unknown reward"),
        (EnvConfig("Hopper", reward="delay-1"), "at least 2 steps"),
        (EnvConfig("Hopper", options={"unit": 1}), "it can be set with reward sparse or beyond"),
        (EnvConfig("CartPole", options={"unit": 1}, reward="sparse"), "CartPole has no options"),
        (EnvConfig("Hopper", options={"unit": 0}, reward="sparse"), "from 0.01 to 1000, not 0"),
    ],
)
def test_rewards_that_there_are_not(config, words):
    with pytest.raises(RlfdError) as error:
        envs.check(config)
    assert words in str(error.value)


def test_any_environment_can_pay_late():
    world = World(EnvConfig("Pendulum-v1", reward="delay-50"), num_envs=1, seed=0)
    paid = [step.rewards[0] for step in random_steps(world, 200)]
    assert [i for i, reward in enumerate(paid) if reward] == [49, 99, 149, 199]
    (record,) = world.drain_episodes()
    assert record.episode_return == pytest.approx(record.dense_return)


def test_a_policy_that_broke_is_stopped():
    world = World(EnvConfig("Hopper"), num_envs=5, seed=0)
    actions = np.zeros((5, 3), np.float32)
    world.step(actions)
    actions[3, 1] = np.nan
    with pytest.raises(RunFailed, match=r"given an action .* environment 3 of 5 at env step 5"):
        world.step(actions)

    def act(observations, _):
        return np.full((len(observations), 3), np.inf)

    with pytest.raises(RunFailed, match=r"given an action .* at step 1 of the episode with seed 7"):
        list(play_episodes(EnvConfig("Hopper"), seeds=[7], act=act))
