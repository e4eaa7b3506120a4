"""Configurations: layers, who set what, and everything that is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from rlfd import algorithms
from rlfd.algorithms import presets
from rlfd.algorithms.core.on_policy import OnPolicyConfig
from rlfd.algorithms.presets import Preset
from rlfd.algorithms.rl.dqn import DQNConfig
from rlfd.envs import EnvConfig, names, spec
from rlfd.errors import RlfdError
from rlfd.experiments.config import RunConfig, resolve
from rlfd.experiments.run_dir import RunDir

CARTPOLE, LANDER = EnvConfig("CartPole"), EnvConfig("LunarLander")


def refused(*texts, algo="dqn", env=CARTPOLE, **layers):
    """Check that these layers are refused with one message that holds `texts`."""
    with pytest.raises(RlfdError) as caught:
        resolve(algo, env, **layers)
    assert caught.value.exit_code == 2
    for text in texts:
        assert text in str(caught.value)


# Layers


def test_layers_from_weakest_to_strongest(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(
        "[run]\nsteps = 3000\nnum_envs = 5\n[algorithm]\ngamma = 0.9\nlearning_rate = 1e-3\n"
    )
    resolved = resolve(
        "dqn", LANDER, config_file=file, settings=["gamma=0.8"], options={"steps": 77}
    )
    config, provenance = resolved.config, resolved.provenance
    preset = "preset default for LunarLander"
    expected = {
        "algorithm.batch_size": (DQNConfig().batch_size, "default"),
        "algorithm.reward_scale": (0.05, preset),
        "algorithm.learning_rate": (1e-3, f"file {file}"),
        "algorithm.gamma": (0.8, "--set"),
        "seed": (0, "default"),
        "num_envs": (5, f"file {file}"),
        "steps": (77, "command line"),
    }
    for name, (value, layer) in expected.items():
        owner = config.algorithm if "." in name else config
        assert getattr(owner, name.rpartition(".")[2]) == value, name
        assert provenance[name] == layer, name


def test_every_field_has_a_provenance():
    resolved = resolve("dqn", CARTPOLE)
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    own = {f"algorithm.{field.name}" for field in dataclasses.fields(DQNConfig)}
    assert set(resolved.provenance) == fields - {"algo", "env", "algorithm", "preset"} | own


def test_presets_apply_in_order(monkeypatch):
    everywhere = Preset(run={"num_envs": 1, "steps": 10}, algorithm={"gamma": 0.5, "double": False})
    here = Preset(run={"steps": 20}, algorithm={"gamma": 0.6})
    layers = {("dqn", "odd", "CartPole"): here, ("dqn", "odd", None): everywhere}
    monkeypatch.setattr(presets, "PRESETS", presets.PRESETS | layers)
    resolved = resolve("dqn", CARTPOLE, preset="odd")
    config = resolved.config
    assert (config.preset, config.num_envs, config.steps) == ("odd", 1, 20)
    assert (config.algorithm.gamma, config.algorithm.double) == (0.6, False)
    assert resolved.provenance["algorithm.double"] == "preset odd"
    assert resolved.provenance["algorithm.gamma"] == "preset odd for CartPole"
    assert resolve("dqn", LANDER, preset="odd").config.algorithm.gamma == 0.5


def test_what_suits_an_environment_lies_below_the_presets(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, ("dqn", "odd", "Hopper"), Preset(run={"steps": 7}))
    resolved = resolve("dqn", EnvConfig("Hopper"))
    config, provenance = resolved.config, resolved.provenance
    assert (config.steps, config.eval_every, config.eval_episodes) == (1_000_000, 50_000, 10)
    assert provenance["steps"] == provenance["num_envs"] == "environment Hopper"
    assert resolve("dqn", EnvConfig("Hopper"), preset="odd").config.steps == 7
    offline = resolve("bc", EnvConfig("Hopper"))
    assert (offline.config.steps, offline.config.eval_every) == (0, 0)
    assert (offline.provenance["steps"], offline.config.final_episodes) == ("default", 50)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden=64,32", (64, 32)),
        ("hidden=(7,)", (7,)),
        ("hidden=[3, 5]", (3, 5)),
        ("hidden=", ()),
        ("double=no", False),
        ("double=TRUE", True),
        ("buffer_size=1_000", 1000),
        ("buffer_size=2e3", 2000),
        (" gamma = 1 ", 1.0),
        ("target_update=copy", "copy"),
    ],
)
def test_settings_are_read_by_the_type_of_their_field(setting, value):
    config = resolve("dqn", CARTPOLE, settings=[setting]).config.algorithm
    found = getattr(config, setting.partition("=")[0].strip())
    assert found == value
    assert type(found) is type(value)


def test_the_last_of_two_settings_counts():
    assert resolve("dqn", CARTPOLE, settings=["gamma=1", "gamma=0"]).config.algorithm.gamma == 0.0


def test_methods_that_do_not_interact_have_a_budget_of_their_own():
    config = resolve("bc", CARTPOLE).config
    assert (config.steps, config.num_envs, config.log_every, config.eval_every) == (0, 1, 1, 0)
    config = resolve("bc", CARTPOLE, options={"steps": 30, "eval_every": 10}).config
    assert (config.steps, config.eval_every) == (30, 10)


# Refused


@pytest.mark.parametrize(
    ("layers", "texts"),
    [
        ({"algo": "sqill"}, ("unknown algorithm 'sqill'", "'sqil'")),
        ({"env": EnvConfig("CartPol")}, ("unknown environment 'CartPol'", "'CartPole'")),
        ({"env": EnvConfig("LunarLander", "shift")}, ("'shift'", "'shifted'")),
        ({"algo": "sqil", "preset": "papr"}, ("unknown preset 'papr'", "'paper'")),
        ({"settings": ["gama=1"]}, ("unknown setting of dqn 'gama'", "'gamma'", "--set")),
        ({"options": {"stepz": 1}}, ("unknown run setting 'stepz'", "'steps'", "command line")),
        ({"options": {"algorithm": 1}}, ("unknown run setting 'algorithm'",)),
        ({"settings": ["gamma"]}, ("'gamma'", "key=value")),
        ({"settings": ["=1"]}, ("'=1'", "key=value")),
    ],
)
def test_unknown_names(layers, texts):
    refused(*texts, **layers)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("gamma=high", "a number"),
        ("gamma=", "a number"),
        ("gamma=nan", "a finite number"),
        ("learning_rate=1e999", "a finite number"),
        ("batch_size=1.5", "a whole number"),
        ("batch_size=inf", "a whole number"),
        ("hidden=5,x", "a whole number"),
        ("hidden=5.5", "a whole number"),
        ("double=maybe", "true or false"),
        ("target_update=often", "one of polyak, copy"),
        ("gamma=1.5", "at most 1"),
        ("learning_rate=0", "more than 0"),
        ("hidden=64,0", "at least 1"),
        ("n_step=0", "at least 1"),
    ],
)
def test_settings_of_wrong_type_or_range(setting, expected):
    refused(f"setting '{setting.partition('=')[0]}'", expected, settings=[setting])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", "many", "a whole number"),
        ("steps", 1.5, "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", None, "a whole number"),
        ("steps", -1, "at least 0"),
        ("steps", 0, "at least 1"),
        ("num_envs", 0, "at least 1"),
        ("num_demos", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("threads", 0, "at least 1"),
        ("log_every", 0, "at least 1"),
        ("eval_every", -5, "at least 0"),
        ("eval_episodes", 0, "at least 1"),
        ("final_episodes", -1, "at least 0"),
        ("checkpoint_every", 0, "at least 1"),
        ("demos", 3, "text"),
        ("compile", "maybe", "one of auto, on, off"),
        ("device", "tpu", "cpu or cuda"),
        ("exp_name", "a/b", "letters, digits"),
        ("exp_name", "..", "letters, digits"),
        ("exp_name", "", "letters, digits"),
    ],
)
def test_run_settings_of_wrong_type_or_range(name, value, expected):
    refused("'" + (name if name not in ("device", "exp_name") else str(value)), expected,
            options={name: value})  # fmt: skip


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("no CUDA device", "--device cpu", options={"device": "cuda:1"})


@pytest.mark.parametrize("given", [{}, {"device": "auto"}])
def test_images_go_to_a_gpu_where_there_is_one(monkeypatch, given):
    def device(env, **options):
        return resolve("dqn", EnvConfig(env), options=options).config.device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device("Pong", **given) == device("CarRacing3", **given) == "cuda"
    assert device("CartPole", **given) == "cpu"
    assert device("Pong", device="cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("Pong", **given) == "cpu"


@pytest.mark.parametrize(
    ("algo", "setting", "reader"),
    [
        ("pofd", "clip_range=0.1", "learner=ppo"),
        ("pofd", "kernel=std", "matching=mmd"),
        ("gail", "delta=0.02", "learner=trpo"),
        ("sil", "epochs=3", "learner=ppo"),
        ("dqn", "priority_beta=0.5", "prioritised=true"),
        ("rwr-offline", "allow_negative=true", "form=raw"),
        ("dagger", "decay=0.5", "schedule=exponential"),
        ("dqn", "target_every_updates=7", "target_update=copy"),
        ("sqil-t", "mode=full target_update=copy", "mode=target"),
        ("sqil-t", "mode=semi polyak_tau=0.02", "mode=target"),
    ],
)
def test_settings_that_nothing_reads(algo, setting, reader):
    refused("has no effect here", f"add --set {reader}", algo=algo, settings=setting.split())
    resolve(algo, EnvConfig("CartPole"), settings=[setting, reader])


def test_settings_in_a_file_that_nothing_reads(tmp_path):
    place = tmp_path / "my.toml"
    place.write_text("[algorithm]\nclip_range = 0.1\n")
    refused("'clip_range' of pofd has no effect", algo="pofd", config_file=place)
    # a run's own configuration has all of them
    place = tmp_path / "config.json"
    place.write_text(json.dumps(resolve("pofd", EnvConfig("CartPole")).config.to_json()))
    resolve("pofd", EnvConfig("CartPole"), config_file=place)


@pytest.mark.parametrize("name", algorithms.names())
def test_what_all_learners_share_is_never_without_effect(name):
    shared = {field.name for field in dataclasses.fields(OnPolicyConfig)}
    config = algorithms.get(name).Config
    choices = config.all_readers().get("learner", ())
    for learner in choices:
        assert not shared & set(config(learner=learner).unread())


@pytest.mark.parametrize("name", algorithms.names())
def test_what_is_read_by_some_values_is_a_setting(name):
    config = algorithms.get(name).Config
    known = {field.name for field in dataclasses.fields(config)}
    for setting, by_value in config.all_readers().items():
        assert {setting, *(other for others in by_value.values() for other in others)} <= known
        assert getattr(config(), setting) in by_value


def test_settings_that_contradict_each_other():
    refused("interleave=rollouts", "final_learning_rate=1", algo="sqil",
            settings=["interleave=rollouts"])  # fmt: skip
    refused("absorbing=value needs gamma < 1", algo="sqil", settings=["gamma=1"])


# JSON


@pytest.mark.parametrize("name", algorithms.names())
@pytest.mark.parametrize("env", [name for name in names() if not spec(name).frame_stack] + ["Pong"])
def test_json_round_trip(name, env):
    options = {"num_demos": 3, "exp_name": "été-1"}
    applicable = {key[1] for key in presets.PRESETS if key[0] == name and key[2] in (None, env)}
    for preset in applicable | {"default"}:
        config = resolve(name, EnvConfig(env), preset=preset, options=options).config
        text = json.dumps(config.to_json(), allow_nan=False)
        assert RunConfig.from_json(json.loads(text)) == config


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"schema": 2}, ("schema 2", "expected 1", "another version")),
        ({"schema": None}, ("schema None",)),
        ({"algo": "nothing"}, ("unknown algorithm 'nothing'",)),
        ({"algo": 5}, ("'algo' is '5'", "text")),
        ({"env": "CartPole"}, ("'env' is 'CartPole'", "table")),
        ({"env": {"name": "CartPole", "wind": 1}}, ("'wind'",)),
        ({"algorithm": []}, ("'algorithm'", "table")),
        ({"algorithm": {"gamma": "x"}}, ("'gamma'", "a number")),
        ({"algorithm": {"gamma": 7}}, ("'gamma'", "at most 1")),
        ({"algorithm": {"hidden": [1.5]}}, ("'hidden'", "a whole number")),
        ({"algorithm": {"hidden": 3}}, ("'hidden'", "a list of whole numbers")),
        ({"steps": "1"}, ("'steps'", "a whole number")),
        ({"colour": 1}, ("'colour'",)),
    ],
)
def test_json_that_does_not_fit(change, texts):
    value = resolve("dqn", CARTPOLE).config.to_json()
    with pytest.raises(RlfdError) as caught:
        RunConfig.from_json({**value, **change})
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("name", ["algo", "env", "algorithm"])
def test_json_without_what_a_run_needs(name):
    value = resolve("dqn", CARTPOLE).config.to_json()
    del value[name]
    with pytest.raises(RlfdError, match=f"no '{name}'"):
        RunConfig.from_json(value)


# Files


def test_a_json_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"run": {"seed": 3}, "algorithm": {"hidden": [7], "gamma": 1}}))
    config = resolve("dqn", CARTPOLE, config_file=file).config
    assert (config.seed, config.algorithm.hidden, config.algorithm.gamma) == (3, (7,), 1.0)


def test_the_configuration_of_a_run(tmp_path):
    """It repeats the run, in the same place unless something is said."""
    first = resolve("dqn", LANDER, settings=["gamma=0.7"], options={"steps": 99, "seed": 4})
    run = RunDir.of(first.config, tmp_path)
    run.create(first)
    file = run.path / "config.json"
    again = resolve("dqn", LANDER, config_file=file)
    assert again.config == first.config
    assert set(again.provenance.values()) == {f"file {file}"}
    assert resolve("dqn", LANDER, config_file=file, options={"seed": 5}).config.seed == 5
    refused("is for 'dqn', not for 'soft-q'", algo="soft-q", config_file=file)
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 9'))
    refused("schema 9", config_file=file)


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.toml", b"[run\n", ("a.toml", "not valid TOML")),
        ("a.json", b"{", ("a.json", "not valid JSON")),
        ("a", b"[run]\n", ("not valid JSON",)),
        ("a.json", b"\xff\xfe", ("a.json", "not text")),
        ("a.json", b"3", ("holds no table", "'run' and 'algorithm'")),
        ("a.json", b'{"run": 3}', ("'run' is '3'", "table")),
        ("a.json", b'{"algorithm": [1]}', ("'algorithm'", "table")),
        ("a.toml", b"[runs]\n", ("unknown table 'runs'", "'run'")),
        ("a.toml", b"[run]\nstep = 1\n", ("'step'", "'steps'", "a.toml")),
        ("a.toml", b"[run]\nsteps = 'x'\n", ("'steps'", "a whole number")),
        ("a.toml", b"[algorithm]\ndouble = 1\n", ("'double'", "true or false")),
        ("a.toml", b"[algorithm]\ngamma = nan\n", ("'gamma'", "finite")),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, texts):
    (tmp_path / name).write_bytes(content)
    refused(*texts, config_file=tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    refused("cannot read", "nothing.toml", config_file=tmp_path / "nothing.toml")
    refused("cannot read", config_file=tmp_path)


def test_the_folder_follows_from_the_configuration():
    config = resolve("dqn", EnvConfig("LunarLander", "demo"), options={"exp_name": "a=1,b"}).config
    assert RunDir.of(config, Path("runs")).path == Path("runs/a=1,b/dqn/LunarLander-demo/seed0")


@pytest.mark.parametrize(
    ("env", "options", "every"),
    [
        ("CartPole-v1", {"steps": 700}, 35),
        ("CartPole-v1", {"steps": 7}, 1),
        ("CartPole-v1", {"steps": 700, "eval_every": 0}, 0),
        ("CartPole", {"steps": 700}, 10_000),
        ("LunarLander", {"steps": 700}, 10_000),
    ],
)
def test_evaluations_are_a_share_of_the_run_where_nothing_is_known(env, options, every):
    resolved = resolve("dqn", EnvConfig(env), options=options)
    assert resolved.config.eval_every == every
    assert resolve("bc", EnvConfig(env), options=options).config.eval_every == options.get(
        "eval_every", 0
    )
