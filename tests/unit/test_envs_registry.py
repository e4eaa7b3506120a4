"""Names, starts and options of environments, and what is said about wrong ones."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError


def test_check_fills_in_the_defaults():
    assert envs.check(EnvConfig("LunarLander", "demo")).options == {"push_scale": 0.0}
    assert envs.check(EnvConfig("LunarLander", "shifted")).options == {}
    config = EnvConfig("LunarLander6", "demo", {"push_scale": 1})
    assert envs.check(config).options == {"push_scale": 1.0}


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("CartPole"),
        EnvConfig("LunarLander", "demo", {"push_scale": 0.25}),
        EnvConfig("Hopper", options={"unit": 2.0}, reward="beyond"),
    ],
)
def test_json_round_trip(config):
    assert EnvConfig.from_json(config.to_json()) == config


def test_json_of_a_version_without_other_rewards():
    assert EnvConfig.from_json({"name": "Hopper"}) == EnvConfig("Hopper", reward="dense")


def test_labels():
    assert EnvConfig("LunarLander").label == "LunarLander"
    assert EnvConfig("LunarLander", "shifted").label == "LunarLander-shifted"
    assert EnvConfig("ALE/Pong-v5").label == "ALE-Pong-v5"
    assert EnvConfig("Hopper", reward="sparse").label == "Hopper-sparse"
    assert EnvConfig("LunarLander", "demo", reward="delay-20").label == "LunarLander-demo-delay-20"
    assert EnvConfig("Hopper").title == "Hopper, start standard"
    assert EnvConfig("Hopper", reward="beyond").title == "Hopper, start standard, reward beyond"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EnvConfig("LunarLandr"), "unknown environment 'LunarLandr', did you mean 'LunarLander'?"),
        (EnvConfig("LunarLander-v2"), "did you mean 'LunarLander-v3'?"),
        (EnvConfig("no_such_package:Env-v0"), "cannot be found"),
        (EnvConfig("LunarLander", "shiftet"), "did you mean 'shifted'?"),
        (EnvConfig("CartPole", "demo"), "unknown start of CartPole 'demo'"),
        (EnvConfig("LunarLander", "demo", {"push": 1}), "did you mean 'push_scale'?"),
        (EnvConfig("LunarLander", "demo", {"push_scale": "1"}), "must be a number, not '1'"),
        (EnvConfig("LunarLander", "demo", {"push_scale": True}), "must be a number, not True"),
        (EnvConfig("LunarLander", "demo", {"push_scale": 1.5}), "must be from 0 to 1, not 1.5"),
        (EnvConfig("LunarLander", "shifted", {"push_scale": 0.5}), "does not belong to start"),
        (EnvConfig("CartPole", options={"length": 1}), "CartPole has no options"),
        (EnvConfig("CartPole-v1", options={"length": object()}), "plain JSON"),
        (EnvConfig("SpaceInvader"), "did you mean 'SpaceInvaders'?"),
        (EnvConfig("ms_pacman"), "did you mean 'MsPacman'?"),
        (EnvConfig("ALE/Pung-v5"), "did you mean 'ALE/Pong-v5'?"),
        (EnvConfig("Pong", "shifted"), "unknown start of Pong 'shifted'"),
        (EnvConfig("Pong", reward="delay-3"), "Pong has no reward 'delay-3'"),
        (EnvConfig("Pong", reward="sparse"), "Pong has no reward 'sparse', it has dense"),
        (EnvConfig("Pong", options={"frameskip": 4}), "did you mean 'frame_skip'?"),
        (EnvConfig("Pong", options={"frame_skip": 2.5}), "'frame_skip' of Pong must be a whole"),
        (EnvConfig("Pong", options={"sticky": 1.25}), "must be from 0 to 1, not 1.25"),
        (EnvConfig("Pong", options={"size": 8}), "must be from 36 to 160, not 8"),
        (EnvConfig("Pong", options={"actions": "all"}), "minimal, full, joystick, not 'all'"),
        (EnvConfig("Pong", options={"actions": 18}), "minimal, full, joystick, not 18"),
        (EnvConfig("Tetris", options={"mask_score": 1}), "environments that have it: Asterix"),
    ],
)
def test_wrong_configs_are_explained(config, words):
    with pytest.raises(RlfdError) as error:
        envs.check(config)
    assert words in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "value",
    [
        {"start": "demo"},
        {"name": 3},
        {"name": "CartPole", "opt": {}},
        {"name": "CartPole", "options": []},
        {"name": "CartPole", "reward": 2},
    ],
)
def test_wrong_json_is_explained(value):
    with pytest.raises(RlfdError):
        EnvConfig.from_json(value)


def test_a_gymnasium_id_takes_keyword_arguments():
    env = envs.make(EnvConfig("LunarLander-v3", options={"continuous": True}))
    assert isinstance(env.action_space, spaces.Box)
    env.close()
    with pytest.raises(RlfdError, match="cannot be made") as error:
        envs.make(EnvConfig("CartPole-v1", options={"no_such_argument": 1}))
    assert "no_such_argument" in str(error.value)


def test_the_package_before_a_colon_registers_the_environment(tmp_path, monkeypatch):
    module = "import gymnasium\ngymnasium.register('Aside-v0', {!r})\n"
    entry = "gymnasium.envs.classic_control:PendulumEnv"
    (tmp_path / "rlfd_test_package.py").write_text(module.format(entry))
    monkeypatch.syspath_prepend(tmp_path)
    config = EnvConfig("rlfd_test_package:Aside-v0", options={"g": 3.0})
    try:
        env = envs.make(config)
        assert env.unwrapped.g == 3.0
        env.close()
        assert envs.spec(config.name).gym_id == "Aside-v0"
        with pytest.raises(RlfdError, match="did you mean 'rlfd_test_package:Aside-v0'"):
            envs.spec("rlfd_test_package:Asite-v0")
    finally:
        gymnasium.registry.pop("Aside-v0", None)


class _Odd(gymnasium.Env):
    def __init__(self, observation_space, action_space, render_mode=None):
        self.observation_space, self.action_space = observation_space, action_space


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (spaces.Text(5), spaces.Discrete(2), "Text observations, expected arrays and numbers"),
        (spaces.Box(0, 1, (3,)), spaces.Tuple([spaces.Discrete(2)]), "Tuple actions"),
    ],
)
def test_unsuitable_spaces_are_refused(monkeypatch, observation_space, action_space, words):
    monkeypatch.setattr(gymnasium, "make", lambda *_, **__: _Odd(observation_space, action_space))
    with pytest.raises(RlfdError, match=words):
        envs.make(EnvConfig("CartPole-v1"))


def test_reference_scores_are_those_of_measured_starts():
    for name in envs.names():
        known = envs.spec(name)
        if known.frame_stack and not known.references:
            continue  # not every Atari game was measured
        assert set(known.references) == set(known.starts)
        for reference in known.references.values():
            assert (reference.random_success is not None) == known.has_success
            assert (reference.demonstrator_return is not None) == known.controller
    assert envs.spec("LunarLander").random_return < 0 < envs.spec("LunarLander").demonstrator_return
    assert envs.spec("Pendulum-v1").random_return is None


def test_reading_the_registry_needs_no_simulator():
    spec = envs.spec("LunarLander")
    assert spec.options == {"push_scale": 0.0}
    assert spec.demo_start in spec.starts
    assert np.all([envs.spec(name).description for name in envs.names()])
