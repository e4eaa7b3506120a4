"""What every environment with a short name keeps to, from each of its starts."""

import numpy as np
import pytest
from gymnasium import spaces

from rlfd import envs
from rlfd.envs import EnvConfig, World

# Atari games differ in their cartridges alone: a few stand for the others.
GAMES = ("Breakout", "Pong")
NAMES = [name for name in envs.names() if not envs.spec(name).frame_stack or name in GAMES]
CASES = [EnvConfig(name, start) for name in NAMES for start in envs.spec(name).starts]
CASES.append(EnvConfig("Breakout", options={"actions": "joystick", "size": 37, "mask_score": 1}))
CASES += [
    EnvConfig(name, reward=reward.replace("K", "7"))
    for name in NAMES
    for reward in envs.spec(name).rewards
    if reward != "dense"
]
NUM_ENVS = 3


@pytest.fixture(params=CASES, ids=lambda config: config.label)
def config(request):
    return request.param


def stream(config, steps, seed=2):
    world = World(config, num_envs=NUM_ENVS, seed=seed)
    rng = np.random.default_rng(13)
    first = world.observations
    rows = [world.step(draw(world.action_space, rng)) for _ in range(steps)]
    return world, first, rows


def draw(space, rng):
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=NUM_ENVS)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(NUM_ENVS, *space.shape))
    return rng.uniform(space.low, space.high, (NUM_ENVS, *space.shape)).astype(space.dtype)


def test_the_world_plays_what_the_single_environments_play(config):
    """Episodes by hand, reset and step, are the reference for the vector's transitions."""
    world, first, rows = stream(config, 151)
    records = world.drain_episodes()
    for index in range(NUM_ENVS):
        env = envs.make(config)
        mine = [record for record in records if record.env_index == index]
        seed = int(np.random.SeedSequence(2).generate_state(NUM_ENVS)[index])
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, first[index])
        total, length, ended = 0.0, 0, 0
        for row in rows:
            np.testing.assert_array_equal(row.observations[index], observation)
            observation, reward, terminated, truncated, info = env.step(row.actions[index])
            np.testing.assert_array_equal(row.next_observations[index], observation)
            assert row.rewards[index] == reward
            assert row.learner_rewards[index] == envs.learner_rewards(config, np.float64(reward))
            assert row.terminated[index] == terminated
            assert row.truncated[index] == (truncated and not terminated)
            total, length = total + float(reward), length + 1
            if terminated or truncated:
                record = mine[ended]
                assert (record.episode_return, record.episode_length) == (total, length)
                assert record.dense_return == info.get("dense_return", total)
                assert ("dense_return" in info) == (config.reward != "dense")
                assert record.success == info.get("success")
                assert (record.success is None) == (not envs.spec(config.name).has_success)
                total, length, ended = 0.0, 0, ended + 1
                observation, _ = env.reset()
        assert ended == len(mine)


def test_seeds_are_repeatable_and_distinct(config):
    _, first, rows = stream(config, 5)
    _, again, rows_again = stream(config, 5)
    _, other, _ = stream(config, 5, seed=3)
    np.testing.assert_array_equal(first, again)
    for row, row_again in zip(rows, rows_again, strict=True):
        np.testing.assert_array_equal(row.next_observations, row_again.next_observations)
    starts = np.concatenate([first, other])
    if envs.spec(config.name).frame_stack:
        return  # games often begin with the same picture; their seeds have a test of their own
    known = envs.table(config)  # a chain has one state to start from
    single = known is not None and known.start.max() == 1.0
    assert len(np.unique(starts, axis=0)) == (1 if single else 2 * NUM_ENVS)


def test_observations_have_the_promised_type(config):
    world, first, rows = stream(config, 3)
    assert first.dtype == world.observation_space.dtype
    assert rows[-1].next_observations.shape == (NUM_ENVS, *world.observation_space.shape)
    assert rows[-1].next_observations.dtype == world.observation_space.dtype
