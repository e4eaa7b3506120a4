"""Whole episodes from given seeds."""

import numpy as np
import pytest

from rlfd.envs import EnvConfig, make, play_episodes
from rlfd.errors import RlfdError

SEEDS = [5, 3, 11, 3, 8, 20, 1]


def by_index(observations, indices):
    """A policy with a random part that depends on the episode and what is seen, nothing else."""
    rows = zip(observations, indices, strict=True)
    return np.array([int(abs(o[0]) * 1e4 + 3 * i) % 2 for o, i in rows])


def played(config, num_envs, **kwargs):
    return list(play_episodes(config, seeds=SEEDS, act=by_index, num_envs=num_envs, **kwargs))


@pytest.mark.parametrize("config", [EnvConfig("CartPole"), EnvConfig("LunarLander", "shifted")])
def test_episodes_do_not_depend_on_how_many_run_at_a_time(config):
    alone = played(config, 1, record=True)
    assert [episode.index for episode in alone] == list(range(7))
    assert [episode.seed for episode in alone] == SEEDS
    for num_envs in (3, 16):
        for one, other in zip(alone, played(config, num_envs, record=True), strict=True):
            np.testing.assert_array_equal(one.observations, other.observations)
            np.testing.assert_array_equal(one.actions, other.actions)
            np.testing.assert_array_equal(one.rewards, other.rewards)
            assert (one.success, one.landed) == (other.success, other.landed)


def test_an_episode_is_what_the_environment_does():
    (episode,) = play_episodes(EnvConfig("CartPole"), seeds=[4], act=by_index, record=True)
    env = make(EnvConfig("CartPole"))
    observations = [env.reset(seed=4)[0]]
    for action in episode.actions:
        observation, _, terminated, truncated, _ = env.step(action)
        observations.append(observation)
    np.testing.assert_array_equal(episode.observations, observations)
    assert (terminated, truncated) == (episode.terminated, episode.truncated) == (True, False)
    assert episode.length == len(episode.actions) == episode.episode_return
    assert episode.success is None


def test_idle_places_leave_the_batch():
    sizes = []

    def act(observations, indices):
        assert len(set(indices)) == len(indices) == len(observations)
        sizes.append(len(indices))
        return by_index(observations, indices)

    list(play_episodes(EnvConfig("CartPole"), seeds=SEEDS, act=act, num_envs=4))
    assert sizes[0] == 4
    assert sizes[-1] == 1
    assert sorted(sizes, reverse=True) == sizes


def test_frames_of_the_first_episodes_change_nothing():
    config = EnvConfig("LunarLander", "demo")
    plain, filmed = played(config, 3), played(config, 3, frames=2)
    assert [len(e.frames) for e in filmed] == [filmed[0].length + 1, filmed[1].length + 1, *5 * [0]]
    assert filmed[0].frames[0].shape == (400, 600, 3)
    assert [e.episode_return for e in plain] == [e.episode_return for e in filmed]
    assert plain[0].observations is plain[0].actions is plain[0].rewards is None


def test_nothing_to_play():
    assert list(play_episodes(EnvConfig("CartPole"), seeds=[], act=by_index)) == []


def test_a_wrong_number_of_actions_is_refused():
    with pytest.raises(RlfdError, match="2 actions were expected, got 1"):
        list(
            play_episodes(
                EnvConfig("CartPole"), seeds=[0, 1], act=lambda o, i: np.zeros(1, np.int64)
            )
        )
