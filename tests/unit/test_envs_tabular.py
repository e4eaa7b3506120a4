"""The grid and the chain: their tables by hand, and that playing follows the table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rlfd import demos, envs
from rlfd.envs import EnvConfig, World, play_episodes
from rlfd.envs.tabular import chain, grid_world, soft_policy
from rlfd.errors import RlfdError
from rlfd.experiments.config import resolve
from rlfd.experiments.problem import build_algorithm, check_support

TINY = {"size": 3, "slip": 0.4, "pits": 1, "horizon": 5}
GRID = EnvConfig("GridWorld", options=TINY)


def test_a_grid_by_hand():
    """0 1 2 / 3 4 5 / 6 7 8, the goal in the lower right corner."""
    table = grid_world(**TINY)
    p, right, down = table.transitions, 0, 1
    assert p.shape == (9, 4, 9)
    np.testing.assert_allclose(p[4, right, [5, 7, 3, 1]], [0.7, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(p[0, down, [3, 1, 0]], [0.7, 0.1, 0.2])  # left and up: the wall
    np.testing.assert_allclose(p.sum(axis=2), 1)
    assert np.flatnonzero(table.rewards[:, 0] == 3).tolist() == [8]
    assert (table.rewards[:, 0] == -3).sum() == 1
    assert (table.start[table.rewards[:, 0] != 0] == 0).all()
    np.testing.assert_allclose(table.start.max(), 1 / 7)
    weights = np.arange(9.0)
    np.testing.assert_array_equal(table.features @ weights, np.repeat(weights[:, None], 4, axis=1))
    np.testing.assert_array_equal(table.moves[[right, down]], [[1, 0], [0, 1]])


def test_options_of_the_grid():
    assert np.flatnonzero(grid_world(size=4, goals=4, pits=0).rewards[:, 0]).tolist() == [
        0, 3, 12, 15,
    ]  # fmt: skip
    drawn = [grid_world(size=6, goals=7, pits=2, layout=k).rewards[:, 0] for k in (1, 1, 2)]
    assert [((r > 0).sum(), (r < 0).sum()) for r in drawn] == [(7, 2)] * 3
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    still = grid_world(size=4, slip=0)
    assert set(still.transitions.ravel()) == {0.0, 1.0}
    assert still.transitions[3, 0, 3] == 1  # against the wall


def test_a_chain_by_hand():
    table = chain(length=5, slip=0.2, horizon=7)
    np.testing.assert_allclose(table.transitions[2, 0, [3, 0]], [0.8, 0.2])
    np.testing.assert_allclose(table.transitions[4, 0, [4, 0]], [0.8, 0.2])
    np.testing.assert_allclose(table.transitions[2, 1, [0, 3]], [0.8, 0.2])
    assert table.rewards.tolist() == [[0, 1]] * 4 + [[3, 1]]
    assert table.start.tolist() == [1, 0, 0, 0, 0]
    weights = np.arange(10.0)
    assert (table.features @ weights).tolist() == weights.reshape(5, 2).tolist()


def test_only_finite_environments_have_a_table():
    assert envs.table(EnvConfig("CartPole")) is None
    assert envs.table(EnvConfig("Acrobot-v1")) is None
    assert envs.table(EnvConfig("SlipperyGridWorld")).transitions.shape == (64, 4, 64)
    assert envs.table(GRID).horizon == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 2.5}, "must be a whole number, not 2.5"),
        ({"size": 1}, "must be from 2 to 64"),
        ({"slip": 1.5}, "must be from 0 to 1"),
        ({"goals": 5}, "4 corners, not 5"),
        ({"size": 2, "pits": 3}, "no room for 1 goals and 3 pits"),
        ({"sise": 5}, "did you mean 'size'"),
    ],
)
def test_wrong_options_are_explained(options, words):
    for function in (envs.table, envs.make):
        with pytest.raises(RlfdError) as error:
            function(EnvConfig("GridWorld", options=options))
        assert words in str(error.value)


def test_playing_follows_the_table():
    """Frequencies over 3,000 episodes of uniform actions; rewards and clocks exactly."""
    table = envs.table(GRID)
    rng = np.random.default_rng(0)

    def act(observations, indices):
        return rng.integers(4, size=len(indices))

    counts, starts = np.zeros((9, 4, 9)), np.zeros(9)
    for episode in play_episodes(GRID, seeds=range(3000), act=act, record=True):
        states = episode.observations[:, :-1].argmax(axis=1)
        assert (episode.length, episode.terminated, episode.truncated) == (5, True, False)
        np.testing.assert_array_equal(episode.observations[:, :-1].sum(axis=1), 1)
        np.testing.assert_allclose(episode.observations[:, -1], np.arange(6) / 5, atol=1e-7)
        np.testing.assert_array_equal(episode.rewards, table.rewards[states[:-1], episode.actions])
        np.add.at(counts, (states[:-1], episode.actions, states[1:]), 1)
        starts[states[0]] += 1
    assert (counts[table.transitions == 0] == 0).all()
    shares = counts / counts.sum(axis=2, keepdims=True)
    assert np.abs(shares - table.transitions).max() < 0.09
    assert np.abs(starts / 3000 - table.start).max() < 0.025


def test_a_world_is_restored_exactly():
    rng = np.random.default_rng(0)
    world, other = (World(GRID, num_envs=3, seed=seed) for seed in (5, 6))
    for _ in range(7):
        world.step(rng.integers(4, size=3))
    other.load_state_dict(world.state_dict())
    for _ in range(9):
        actions = rng.integers(4, size=3)
        np.testing.assert_array_equal(
            world.step(actions).next_observations, other.step(actions).next_observations
        )


def test_the_controller_acts_as_planned():
    table, policy = envs.table(GRID), soft_policy(envs.table(GRID))
    actor = demos.make_demonstrator("controller", GRID, seed=1)
    actor.reset(4000)
    observations = np.zeros((4000, 10), np.float32)
    observations[:, 4], observations[:, -1] = 1, 2 / table.horizon
    shares = np.bincount(actor.act(observations, np.arange(4000)), minlength=4) / 4000
    np.testing.assert_allclose(shares, policy[2, 4], atol=0.03)
    actor.reset(4000)
    alone = [int(actor.act(observations[:1], np.array([i]))[0]) for i in (7, 3)]
    actor.reset(4000)
    assert alone == actor.act(observations[:2], np.array([7, 3])).tolist()


def test_asked_the_controller_says_what_is_most_likely():
    """At any state and step, of any number of rows, without an episode."""
    table, policy = envs.table(GRID), soft_policy(envs.table(GRID))
    steps, states = (grid.ravel() for grid in np.indices(policy.shape[:2]))
    observations = np.zeros((len(steps), 10), np.float32)
    observations[np.arange(len(steps)), states] = 1
    observations[:, -1] = steps / table.horizon
    actor = demos.make_demonstrator("controller", GRID, seed=1)
    assert isinstance(actor, demos.Answering)
    assert actor.answer(observations).tolist() == policy[steps, states].argmax(axis=1).tolist()
    assert actor.answer(observations[:0]).shape == (0,)


def test_it_can_be_drawn():
    env = envs.make(EnvConfig("Chain", options={"length": 5}), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (32, 160, 3)


def test_methods_that_plan_want_a_table():
    with pytest.raises(RlfdError, match="nothing is known about those of 'CartPole'") as error:
        check_support("maxent-irl", EnvConfig("CartPole"))
    assert error.value.hint.endswith("GridWorld, SlipperyGridWorld, Chain")


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    actor = demos.make_demonstrator("controller", GRID, seed=0)
    folder = tmp_path_factory.mktemp("data")
    return demos.collect(GRID, actor, episodes=3, name="walks", data_dir=folder)


def spoil(episode, how):
    observations = episode.observations.copy()
    if how == "nowhere":
        observations[2, :-1] = 0
    elif how == "two places":
        observations[2, :2] = 1
    elif how == "between":
        observations[2, :-1] = 1 / 9
    elif how == "clock":
        observations[:, -1] = 0
    else:
        return dataclasses.replace(
            episode,
            observations=observations[:-1],
            actions=episode.actions[:-1],
            rewards=episode.rewards[:-1],
        )
    return dataclasses.replace(episode, observations=observations)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nowhere", "of episode 1, step 2 is in none of its 9 states"),
        ("two places", "of episode 1, step 2 is in none of its 9 states"),
        ("between", "of episode 1, step 2 is in none of its 9 states"),
        ("clock", "of episode 1, it does not last 5 steps"),
        ("short", "of episode 1, it does not last 5 steps"),
    ],
)
@pytest.mark.parametrize("algo", ["maxent-irl", "apprenticeship"])
def test_demonstrations_outside_the_table_are_refused(walked, algo, how, words):
    first, second, third = walked.episodes
    config = resolve(algo, GRID).config
    build_algorithm(config, walked)
    with pytest.raises(RlfdError, match="lie outside the environment's table") as error:
        build_algorithm(
            config, dataclasses.replace(walked, episodes=(first, spoil(second, how), third))
        )
    assert words in str(error.value)
