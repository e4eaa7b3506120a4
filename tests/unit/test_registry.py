"""Methods and presets by name."""

from __future__ import annotations

import dataclasses
import re

import gymnasium
import pytest

from rlfd import algorithms, envs
from rlfd.algorithms import presets
from rlfd.algorithms.base import Algorithm, AlgorithmConfig, hyper
from rlfd.algorithms.registry import register
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments.config import RUN_FIELDS, resolve


def test_names_are_sorted_and_belong_to_their_classes():
    names = algorithms.names()
    assert names == sorted(names)
    assert {"bc", "dqn", "soft-q", "sqil", "sqil-t"} <= set(names)
    assert [algorithms.get(name).name for name in names] == names


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RlfdError, match="unknown algorithm 'sqill', did you mean 'sqil'") as caught:
        algorithms.get("sqill")
    assert "rlfd list algos" in caught.value.hint


def test_a_name_cannot_be_taken_twice():
    class Other(Algorithm):
        name = "sqil"

    before = algorithms.get("sqil")
    with pytest.raises(ValueError, match="'sqil' is registered twice"):
        register(Other)
    assert algorithms.get("sqil") is before


@pytest.mark.parametrize("key", presets.PRESETS, ids=lambda key: "/".join(map(str, key)))
def test_presets_name_settings_that_exist_and_are_valid(key):
    algorithm, name, env = key
    preset = presets.PRESETS[key]
    assert set(preset.run) <= set(RUN_FIELDS)
    env = {None: "CartPole", "Atari": "Breakout"}.get(env, env)  # a family: one of its games
    resolved = resolve(algorithm, EnvConfig(env), preset=name)
    for field, value in preset.run.items():
        assert getattr(resolved.config, field) == value
    for field, value in preset.algorithm.items():
        assert getattr(resolved.config.algorithm, field) == value
        assert resolved.provenance[f"algorithm.{field}"].startswith(f"preset {name}")
    assert not preset.algorithm.keys() & resolved.config.algorithm.unread()


def test_presets_of_an_algorithm_begin_with_the_default():
    assert presets.preset_names("sqil") == ["default", "paper"]
    assert presets.preset_names("bc") == ["default", "warm-start"]
    assert presets.preset_names("gmmil") == ["default"]


def test_a_warm_start_leaves_continuous_actions_their_noise():
    vectors = [name for name in envs.names() if not envs.spec(name).frame_stack]
    continuous = [
        name
        for name in vectors
        if isinstance(envs.make(EnvConfig(name)).action_space, gymnasium.spaces.Box)
    ]
    assert len(continuous) > 9
    for name in continuous:
        config = resolve("bc", EnvConfig(name), preset="warm-start").config.algorithm
        assert (config.loss, config.log_std_start) == ("mse", -1.0), name


def test_layers_of_a_preset_go_from_general_to_special(monkeypatch):
    general, special = presets.Preset(run={"steps": 1}), presets.Preset(run={"steps": 2})
    entries = {("sqil", "p", "Here"): special, ("sqil", "p", None): general}
    monkeypatch.setattr(presets, "PRESETS", entries)
    assert presets.preset_layers("sqil", "p", "Here") == [
        ("preset p", general),
        ("preset p for Here", special),
    ]
    assert presets.preset_layers("sqil", "p", "There") == [("preset p", general)]
    entries["sqil", "p", "Kind"] = family = presets.Preset(run={"steps": 3})
    layers = presets.preset_layers("sqil", "p", "Here", "Kind")
    assert [layer for _, layer in layers] == [general, family, special]
    assert layers[1][0] == "preset p for Kind"


def test_games_of_ale_are_a_family():
    resolved = resolve("psq", EnvConfig("MsPacman"))
    assert resolved.config.steps == 5_000_000
    assert resolved.provenance["steps"] == "environment MsPacman"
    assert resolved.config.algorithm.hidden == (512,)
    assert resolved.provenance["algorithm.hidden"] == "preset default for Atari"
    assert resolved.config.algorithm.pretrain_env_steps == 200_000
    assert resolve("psq", EnvConfig("DemonAttack")).config.algorithm.pretrain_env_steps == 500_000
    assert resolve("psq", EnvConfig("CartPole")).config.algorithm.hidden == (128, 128)


@pytest.mark.parametrize(
    ("env", "reward", "lambda_samp", "updates"),
    [("LunarLander", 1, 1e-6, 200), ("CarRacing3", 1, 0.01, 50), ("Pong", 100, 1, 1)],
)
def test_sqil_as_in_its_papers_table(env, reward, lambda_samp, updates):
    """Appendix A.2 has a column for each of its environments."""
    for name in ("sqil", "sqil-t"):
        settings = resolve(name, EnvConfig(env), preset="paper").config.algorithm
        assert (settings.lambda_samp, settings.updates_per_rollout) == (lambda_samp, updates)
        assert (settings.mode, settings.temperature, settings.layer_norm) == ("full", 1.0, False)
        of_sqil = settings.reward if name == "sqil" else settings.alpha / 2
        assert of_sqil == reward


@pytest.mark.parametrize("env", presets.environments.ENVIRONMENTS)
def test_what_suits_an_environment_is_valid(env):
    usual = presets.environment_defaults(env)
    # presets for images have budgets of their own
    algorithm = {"Atari": "soft-q", "CarRacing": "psq"}.get(env, "dqn")
    config = resolve(algorithm, EnvConfig("Breakout" if env == "Atari" else env)).config
    assert {name: getattr(config, name) for name in usual} == usual


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(RlfdError, match="unknown preset 'papre', did you mean 'paper'"):
        presets.preset_layers("sqil", "papre", "LunarLander")


def test_a_preset_that_has_nothing_for_an_environment_is_refused():
    with pytest.raises(RlfdError, match="preset 'short' of psq is for Pong, not for Breakout"):
        resolve("psq", EnvConfig("Breakout"), preset="short")
    assert resolve("psq", EnvConfig("Pong"), preset="short").config.num_envs == 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(AlgorithmConfig):
    rate: float = hyper(0.5, "a rate", above=0, high=1)
    share: float = hyper(0.5, "a share", low=0, high=1)
    count: int = hyper(3, "a count", low=1)
    widths: tuple[int, ...] = hyper((3, 5), "widths", low=1)
    flag: bool = hyper(False, "a flag", low=5)  # bounds are for numbers


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rate": 0.0}, "setting 'rate' is 0.0, expected more than 0 and at most 1"),
        ({"rate": 1.5}, "setting 'rate' is 1.5, expected more than 0 and at most 1"),
        ({"share": -0.1}, "setting 'share' is -0.1, expected at least 0 and at most 1"),
        ({"share": 1.1}, "setting 'share' is 1.1, expected at least 0 and at most 1"),
        ({"rate": float("nan")}, "setting 'rate' is nan, expected a finite number"),
        ({"rate": float("inf")}, "setting 'rate' is inf, expected a finite number"),
        ({"count": 0}, "setting 'count' is 0, expected at least 1"),
        ({"widths": (3, 0)}, "setting 'widths' is 0, expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(RlfdError, match=re.escape(message)):
        Settings(**setting)


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(RlfdError, match="setting 'mode' is 'half', expected one of full, demos, "):
        algorithms.get("sqil").Config(mode="half")


def test_settings_on_their_bounds_are_accepted():
    assert Settings(rate=1.0, count=1, widths=(1,)).flag is False
