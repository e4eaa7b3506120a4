"""Environments of Minari datasets: made as `recover_environment()` makes them, or not at all."""

import contextlib
import json
import sys

import gymnasium
import numpy as np
import odd_worlds
import pytest
from gymnasium import wrappers
from minari_store import new_store

from rlfd import demos, envs
from rlfd.envs import EnvConfig, imports
from rlfd.errors import RlfdError
from rlfd.experiments.problem import env_of_demos
from rlfd.experiments.train import _env_words


def minari_dataset(root, name, env, *, evaluation=None, episodes=2):
    """Record random play as a Minari user would, with nothing of ours in it."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    told = {} if evaluation is None else {"eval_env_spec": evaluation.spec.to_json()}
    store, path = new_store(root, name, env, **told)
    buffers = []
    for seed in range(episodes):
        rows = {"observations": [env.reset(seed=seed)[0]], "actions": [], "rewards": []}
        rows |= {"terminations": [], "truncations": []}
        env.action_space.seed(seed)
        while not (rows["actions"] and (terminated or truncated)):  # noqa: F821
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            values = observation, action, reward, terminated, truncated
            for key, value in zip(rows, values, strict=True):
                rows[key].append(value)
        arrays = {key: np.array(values) for key, values in rows.items()}
        buffers.append(EpisodeBuffer(seed=seed, infos={}, **arrays))
    store.update_episodes(buffers)
    return path


def signs(kind="Signs", **kwargs):
    return gymnasium.make(odd_worlds.name(kind), **kwargs)


def recorded_env(path, **form):
    return demos.recorded_env(demos.describe(path, data_dir=path), form)


def replayed(path, env):
    """Compare what an environment shows with what was recorded, for the same actions."""
    demonstrations = demos.read(path, data_dir=path)
    with contextlib.closing(envs.make(env)) as made:
        for seed, episode in enumerate(demonstrations.episodes):
            seen, ended = [made.reset(seed=seed)[0]], False
            for action in episode.actions:
                assert not ended
                observation, _, terminated, truncated, _ = made.step(action)
                seen.append(observation)
                ended = terminated or truncated
            assert ended
            np.testing.assert_array_equal(seen, episode.observations)


def test_what_the_id_alone_makes_has_its_ordinary_name(tmp_path):
    env = recorded_env(minari_dataset(tmp_path, "signs-v0", signs()))
    assert env == EnvConfig("Odd/Signs-v0")
    path = minari_dataset(tmp_path, "cart-v0", gymnasium.make("CartPole-v1"))
    assert recorded_env(path) == envs.check(EnvConfig("CartPole"))


def test_an_id_that_its_package_registers(tmp_path, monkeypatch):
    (tmp_path / "own_signs.py").write_text(
        "import gymnasium\nfrom odd_worlds import Signs\n"
        "gymnasium.register('Own/Signs-v0', 'own_signs:Signs', max_episode_steps=4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = minari_dataset(tmp_path, "signs-v0", gymnasium.make("own_signs:Own/Signs-v0"))
    monkeypatch.delitem(gymnasium.registry, "Own/Signs-v0")
    monkeypatch.delitem(sys.modules, "own_signs")
    monkeypatch.setattr(imports, "_allowed", set())
    asks = r"'Own/Signs-v0' in .*signs-v0 asks for the package 'own_signs'"
    with pytest.raises(RlfdError, match=asks) as error:
        recorded_env(path)
    assert "--allow-import own_signs" in error.value.hint
    assert "own_signs" not in sys.modules
    envs.allow_import("own_signs")
    assert recorded_env(path) == EnvConfig("own_signs:Own/Signs-v0")
    del gymnasium.registry["Own/Signs-v0"], sys.modules["own_signs"]


MADE = {
    "wrapped": lambda: wrappers.RescaleObservation(signs(), 2.0, 5.0),
    "two": lambda: wrappers.FlattenObservation(
        wrappers.RescaleObservation(signs("ObservationTable"), 2.0, 5.0)
    ),
    "limit": lambda: signs(max_episode_steps=3),
}


@pytest.mark.parametrize("kind", MADE)
def test_wrappers_and_limits_are_made_again(kind, tmp_path):
    path = minari_dataset(tmp_path, f"{kind}-v0", MADE[kind]())
    env = recorded_env(path)
    assert env.name.startswith("recorded:Odd/")
    assert envs.spec(env.name).gym_id == env.name.removeprefix("recorded:")
    assert envs.check(EnvConfig.from_json(json.loads(json.dumps(env.to_json())))) == env
    replayed(path, env)
    assert demos.load(path, env=env, data_dir=tmp_path).num_transitions > 0
    told = envs.told(env)
    assert (
        told
        == {
            "wrapped": "through RescaleObservation, at most 8 steps an episode",
            "two": "through RescaleObservation, FlattenObservation, at most 8 steps an episode",
            "limit": "without a wrapper, at most 3 steps an episode",
        }[kind]
    )


def test_an_unregistered_id_is_made_by_its_entry_point(tmp_path):
    gymnasium.register("Gone/Signs-v3", "odd_worlds:Signs", max_episode_steps=5)
    try:
        path = minari_dataset(tmp_path, "gone-v0", gymnasium.make("Gone/Signs-v3"))
    finally:
        del gymnasium.registry["Gone/Signs-v3"]
    env = recorded_env(path)
    assert env.name == "recorded:Gone/Signs-v3"
    replayed(path, env)


def test_another_entry_point_of_the_same_id_is_another_environment(tmp_path):
    gymnasium.register("Odd/Twice-v0", "odd_worlds:Signs", max_episode_steps=5)
    try:
        path = minari_dataset(tmp_path, "twice-v0", gymnasium.make("Odd/Twice-v0"))
        gymnasium.registry["Odd/Twice-v0"].entry_point = "odd_worlds:ObservationTable"
        env = recorded_env(path)
    finally:
        del gymnasium.registry["Odd/Twice-v0"]
    assert env.name == "recorded:Odd/Twice-v0"
    replayed(path, env)


def test_how_it_was_drawn_and_watched_is_left_out(tmp_path):
    env = wrappers.RecordEpisodeStatistics(signs(render_mode="human"))
    path = minari_dataset(tmp_path, "drawn-v0", env)
    assert recorded_env(path) == EnvConfig("Odd/Signs-v0")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (wrappers.NormalizeObservation, "through NormalizeObservation, whose statistics are not"),
        (wrappers.NormalizeReward, "through NormalizeReward, whose statistics are not stored"),
    ],
)
def test_what_cannot_be_made_again_is_refused_and_said(layer, said, tmp_path):
    path = minari_dataset(tmp_path, "normal-v0", layer(signs()))
    with pytest.raises(RlfdError, match=said) as error:
        recorded_env(path)
    assert "does not interact" in error.value.hint
    with pytest.raises(RlfdError, match=said):  # nor does a method interact somewhere else
        env_of_demos(str(path), "sqil", data_dir=tmp_path)
    env, why = env_of_demos(str(path), "bc", data_dir=tmp_path)
    assert said in why
    assert env.name == "dataset:normal-v0"
    assert demos.load(path, env=env, data_dir=tmp_path).num_transitions == 16


class Unknown(gymnasium.ObservationWrapper):
    """Does not tell its arguments."""

    def observation(self, observation):
        return observation


def test_a_wrapper_that_tells_nothing_of_its_arguments(tmp_path):
    path = minari_dataset(tmp_path, "unknown-v0", Unknown(signs()))
    with pytest.raises(RlfdError, match="recorded through Unknown, and with which arguments"):
        recorded_env(path)


def test_a_package_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "_allowed", {"nowhere_to_be_found"})
    path = minari_dataset(tmp_path, "away-v0", MADE["wrapped"]())
    file = path / "data" / "metadata.json"
    file.write_text(file.read_text().replace("odd_worlds:", "nowhere_to_be_found:"))
    with pytest.raises(RlfdError, match="No module named 'nowhere_to_be_found'"):
        recorded_env(path)


def test_another_environment_for_evaluation(tmp_path):
    evaluation = signs(max_episode_steps=5)
    path = minari_dataset(tmp_path, "judged-v0", signs(), evaluation=evaluation)
    env = recorded_env(path)
    replayed(path, env)
    (played,) = envs.play_episodes(
        envs.evaluated(env), seeds=[1], act=lambda seen, _: np.zeros(len(seen), np.int64)
    )
    assert played.length == 5
    assert envs.evaluated(EnvConfig("CartPole")) == EnvConfig("CartPole")
    assert "evaluated without a wrapper, at most 5 steps an episode" in envs.told(env)
    same = minari_dataset(tmp_path, "same-v0", signs(), evaluation=signs())
    assert recorded_env(same) == EnvConfig("Odd/Signs-v0")
    other = minari_dataset(tmp_path, "other-v0", signs(), evaluation=signs("ObservationTable"))
    with pytest.raises(RlfdError, match=r"observation shape is \(2,\), not \(2, 3\)"):
        recorded_env(other)


def test_policies_are_judged_in_the_environment_for_evaluation(monkeypatch):
    from rlfd.experiments import evaluate

    spec = {"id": "Odd/Signs-v0", "kwargs": {}, "additional_wrappers": []}
    given = EnvConfig("recorded:Odd/Signs-v0", options={"spec": spec, "evaluation": {"x": 1}})
    played = []
    monkeypatch.setattr(evaluate, "play_episodes", lambda env, **_: played.append(env))
    monkeypatch.setattr(evaluate, "_device", lambda algorithm: "cpu")
    evaluate.play_policy(None, given, policy="greedy", episodes=1, seed=0, stream="final")
    assert played == [EnvConfig("recorded:Odd/Signs-v0", options={"spec": {"x": 1}})]


def test_a_named_environment_without_the_wrapper_is_refused(tmp_path):
    path = minari_dataset(tmp_path, "wrapped-v0", MADE["wrapped"]())
    with pytest.raises(RlfdError, match="the wrapper is 'RescaleObservation' there, ex") as error:
        demos.load(path, env=EnvConfig("Odd/Signs-v0"), data_dir=tmp_path)
    assert "leave --env out" in error.value.hint
    plain = minari_dataset(tmp_path, "plain-v0", signs())
    env = recorded_env(path)
    with pytest.raises(RlfdError, match="the wrapper is 'none' there, expected 'RescaleObserv"):
        demos.load(plain, env=env, data_dir=tmp_path)
    limited = minari_dataset(tmp_path, "limited-v0", signs(max_episode_steps=3))
    loaded = demos.load(limited, env=EnvConfig("Odd/Signs-v0"), data_dir=tmp_path)
    assert loaded.remarks == (
        "episodes were recorded with at most 3 steps, 'Odd/Signs-v0' has at most 8 steps",
    )


def test_the_command_to_resume_names_the_demonstrations(tmp_path):
    from rlfd.experiments.config import resolve

    env = recorded_env(minari_dataset(tmp_path, "wrapped-v0", MADE["wrapped"]()))
    options = {"demos": "wrapped-v0", "steps": 7}
    assert _env_words(resolve("bc", env, options=options).config) == ["--demos", "wrapped-v0"]
    with pytest.raises(RlfdError, match="its specification was not given"):
        envs.make(EnvConfig("recorded:Odd/Signs-v0"))


def test_options_of_a_recorded_environment_are_its_arguments(tmp_path):
    path = minari_dataset(tmp_path, "pend-v0", gymnasium.make("Pendulum-v1", max_episode_steps=4))
    env, _ = env_of_demos(str(path), "bc", options={"g": 3.5}, data_dir=tmp_path)
    with contextlib.closing(envs.make(env)) as made:
        assert made.unwrapped.g == 3.5
    with pytest.raises(RlfdError, match=r"option 'spec'|argument 'g' is"):
        demos.load(minari_dataset(tmp_path, "g-v0", gymnasium.make("Pendulum-v1", g=1.0)), env=env,
                   data_dir=tmp_path)  # fmt: skip


def test_data_without_spaces_have_those_of_their_environment(tmp_path):
    path = minari_dataset(tmp_path, "bare-v0", MADE["two"]())
    file = path / "data" / "metadata.json"
    told = json.loads(file.read_text())
    del told["observation_space"], told["action_space"]
    file.write_text(json.dumps(told))
    assert demos.read(path, data_dir=tmp_path).observation_space.shape == (6,)
    replayed(path, recorded_env(path))
    del told["env_spec"]
    file.write_text(json.dumps(told))
    with pytest.raises(RlfdError, match="say neither what their observations and actions are nor"):
        demos.read(path, data_dir=tmp_path)
    gymnasium.register("Six-v0", lambda **kwargs: MADE["two"]())
    try:
        assert demos.load(path, env=EnvConfig("Six-v0"), data_dir=tmp_path).num_transitions == 16
    finally:
        del gymnasium.registry["Six-v0"]
