"""Collecting: counts, filters, names, and independence of the number of environments."""

import numpy as np
import pytest

from rlfd import demos
from rlfd.envs import EnvConfig, make
from rlfd.errors import RlfdError

CART_POLE = EnvConfig("CartPole")


def collect(data_dir, env=CART_POLE, policy="random", **kwargs):
    if "steps" not in kwargs:
        kwargs.setdefault("episodes", 5)
    seed = kwargs.setdefault("seed", 0)
    actor = demos.make_demonstrator(policy, env, seed=seed)
    return demos.collect(env, actor, data_dir=data_dir, **kwargs)


def test_episodes_are_what_the_environment_does(tmp_path):
    collected = collect(tmp_path, EnvConfig("LunarLander", "demo"), "controller", episodes=3)
    env = make(EnvConfig("LunarLander", "demo"))
    for episode in collected.episodes:
        observations = [env.reset(seed=episode.seed)[0]]
        rewards = []
        for action in episode.actions:
            observation, reward, terminated, truncated, info = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        np.testing.assert_array_equal(episode.observations, observations)
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert episode.observations.dtype == np.float32
        assert (episode.terminated, episode.truncated) == (terminated, truncated)
        assert episode.success == info["success"]


@pytest.mark.parametrize("kwargs", [{}, {"noise": 0.4}, {"min_return": 15}, {"steps": 77}])
def test_the_same_whatever_the_number_of_environments(tmp_path, kwargs):
    hashes = {collect(tmp_path, num_envs=num, **kwargs).info.content_hash for num in (1, 3, 16)}
    assert len(hashes) == 1
    assert collect(tmp_path, seed=1, **kwargs).info.content_hash not in hashes


def test_seeds_are_drawn_as_they_are_needed():
    from rlfd.demos import collecting

    at_once = np.random.default_rng([collecting.EPISODE_STREAM, 5]).integers(2**31, size=9_001)
    assert list(collecting._seeds(5, 9_001)) == at_once.tolist()
    first = collecting._seeds(5, 10**15)  # of which nobody wants all
    assert [next(first) for _ in range(7)] == at_once[:7].tolist()


def test_doing_nothing_is_recorded_and_comes_last(tmp_path):
    lander = EnvConfig("LunarLander", "demo")
    idle = collect(tmp_path, lander, "controller", episodes=2, noop=1.0, noise=0.3)
    assert idle.info.id == "LunarLander-demo/controller-noise30-noop100-v0"
    assert (idle.info.demonstrator["noop"], idle.info.demonstrator["noise"]) == (1.0, 0.3)
    assert all((episode.actions == 0).all() for episode in idle.episodes)
    hashes = {
        collect(tmp_path, lander, "controller", noop=0.4, num_envs=num).info.content_hash
        for num in (1, 3)
    }
    assert len(hashes) == 1
    assert collect(tmp_path, lander, "controller").info.demonstrator["noop"] == 0.0


def test_steps_are_whole_episodes(tmp_path):
    collected = collect(tmp_path, steps=101)
    assert collected.num_transitions >= 101
    assert collected.num_transitions - collected.episodes[-1].length < 101
    assert all(episode.terminated for episode in collected.episodes)


def test_filters_keep_collecting(tmp_path):
    everything = collect(tmp_path, episodes=60)
    good = collect(tmp_path, episodes=7, min_return=20, max_return=40)
    assert ((good.returns >= 20) & (good.returns <= 40)).all()
    wanted = [e.seed for e in everything.episodes if 20 <= e.episode_return <= 40]
    assert [e.seed for e in good.episodes] == wanted[:7]
    noted = good.info.demonstrator
    assert (noted["min_return"], noted["max_return"]) == (20, 40)
    assert noted["played"] > 7


def test_a_filter_that_nothing_passes_gives_up(tmp_path):
    with pytest.raises(RlfdError) as error:
        collect(tmp_path, episodes=2, min_return=1000)
    assert "only 0 of 100 episodes had a return from 1000 to inf, expected 2" in str(error.value)
    assert demos.list_all(tmp_path) == []
    with pytest.raises(RlfdError, match=r"only 0 of 100 episodes .* expected 5000 steps"):
        collect(tmp_path, steps=5000, min_return=1000)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"episodes": 0}, "the number of episodes must be at least 1"),
        ({"steps": -5}, "the number of steps must be at least 1"),
        ({"episodes": 3, "steps": 3}, "either a number of episodes or"),
        ({"min_return": 5, "max_return": 4}, "no return is at least 5 and at most 4"),
        ({"noise": 1.2}, "noise must be a probability"),
        ({"name": "my demos"}, "'my demos' cannot be the name"),
        ({"name": "../up"}, "cannot be the name"),
    ],
)
def test_wrong_arguments_are_explained_and_nothing_is_written(tmp_path, kwargs, words):
    with pytest.raises(RlfdError, match=words) as error:
        collect(tmp_path, **kwargs)
    assert error.value.exit_code == 2
    assert not list(tmp_path.rglob("*.json"))


def test_names_and_versions(tmp_path):
    names = [
        collect(tmp_path, episodes=1, **kwargs).info.id
        for kwargs in ({}, {}, {"noise": 0.25}, {"noise": 0.125}, {"name": "mine"},
                       {"name": "mine-v7"}, {"name": "mine"})
    ]  # fmt: skip
    assert names == [
        "CartPole/random-v0", "CartPole/random-v1", "CartPole/random-noise25-v0",
        "CartPole/random-noise12_5-v0", "CartPole/mine-v0", "CartPole/mine-v7", "CartPole/mine-v8",
    ]  # fmt: skip
    with pytest.raises(RlfdError, match="'CartPole/mine-v7' exist already"):
        collect(tmp_path, episodes=1, name="mine-v7")


def test_progress_is_told(tmp_path):
    told = []
    collect(tmp_path, episodes=3, progress=lambda *values: told.append(values))
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    collected = collect(tmp_path, steps=50, progress=lambda *values: told.append(values))
    assert told[-1] == (50, 50, pytest.approx(collected.returns.mean()))


# Continuous actions


@pytest.mark.parametrize("name", ["HalfCheetah", "Pendulum"])
@pytest.mark.parametrize("kwargs", [{}, {"action_noise": 0.7}])
def test_continuous_episodes_are_kept_exactly(tmp_path, name, kwargs):
    """What is read back has every bit of what was played, and playing it again gives the same."""
    config = EnvConfig(name)
    collected = collect(tmp_path, config, episodes=2, **kwargs)
    loaded = demos.load(collected.info.name, env=config, data_dir=tmp_path)
    env = make(config)
    assert loaded.observation_space.dtype == env.observation_space.dtype
    for episode, before in zip(loaded.episodes, collected.episodes, strict=True):
        for field in ("observations", "actions", "rewards"):
            ours, theirs = getattr(episode, field), getattr(before, field)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert episode.observations.dtype == env.observation_space.dtype
        assert episode.actions.dtype == np.float32
        assert (np.abs(episode.actions) <= env.action_space.high).all()
        observations, rewards = [env.reset(seed=episode.seed)[0]], []
        for action in episode.actions:
            observation, reward, *_ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        np.testing.assert_array_equal(episode.observations, observations)
        np.testing.assert_array_equal(episode.rewards, rewards)
    env.close()


def test_action_noise_is_noted(tmp_path):
    collected = collect(tmp_path, EnvConfig("Pendulum"), episodes=1, noise=0.1, action_noise=0.25)
    noted = collected.info.demonstrator
    assert (noted["noise"], noted["action_noise"]) == (0.1, 0.25)
    assert collected.info.name == "random-action-noise25-noise10-v0"
    assert collect(tmp_path, episodes=1).info.demonstrator["action_noise"] == 0.0
    with pytest.raises(RlfdError, match="for continuous actions with bounds, these are Discrete"):
        collect(tmp_path, episodes=1, action_noise=0.1)


def test_one_imperfect_demonstration_of_a_chosen_quality(tmp_path):
    """Limits on the return look at enough episodes to find one in a narrow band."""
    hopper = EnvConfig("Hopper")
    returns = np.sort(collect(tmp_path, hopper, episodes=60, seed=1).returns)
    low, high = returns[53], returns[56]  # 4 of 60: found within 20 with probability 3/4 only
    one = collect(tmp_path, hopper, episodes=1, seed=2, min_return=low, max_return=high)
    assert len(one.episodes) == 1
    assert low <= one.returns[0] <= high
    assert one.info.demonstrator["played"] <= 100
