"""Whatever a user can get wrong: one clear message, exit code 2, every file as it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest

from .conftest import (
    DQN,
    RUN,
    TINY,
    assert_refused,
    run_inside,
    run_outside,
    snapshot,
    unfinish,
)

TRAIN = ("train", "dqn", "--env", "CartPole")
SQIL = ("train", "sqil", "--env", "CartPole", *TINY)


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (("train", "sqill", "--env", "CartPole"), ("algorithm 'sqill'", "'sqil'", "list algos")),
        (
            ("train", "dqn", "--env", "CartPol"),
            ("environment 'CartPol'", "'CartPole'", "list envs"),
        ),
        (("collect-demos", "--env", "LunarLandr"), ("'LunarLandr'", "'LunarLander'")),
        ((*TRAIN, "--start", "shifted"), ("start of CartPole", "'shifted'", "standard")),
        (
            ("collect-demos", "--env", "LunarLander", "--env-option", "push_scal=1"),
            ("'push_scal'", "'push_scale'"),
        ),
        (
            ("collect-demos", "--env", "LunarLander", "--env-option", "push_scale=2"),
            ("0 to 1", "2"),
        ),
        (
            ("collect-demos", "--env", "LunarLander", "--env-option", "push_scale=x"),
            ("number", "x"),
        ),
        ((*SQIL, "--demos", "controler"), ("'controler'", "'controller'", "list demos")),
        ((*TRAIN, "--set", "gama=0.5"), ("'gama'", "'gamma'")),
        ((*TRAIN, "--set", "gamma=high"), ("'gamma'", "'high'", "number")),
        ((*TRAIN, "--set", "gamma=2"), ("'gamma'", "2.0", "0")),
        ((*TRAIN, "--set", "gamma=nan"), ("'gamma'", "nan")),
        ((*TRAIN, "--set", "batch_size=1.5"), ("'batch_size'", "1.5", "whole number")),
        ((*TRAIN, "--set", "layer_norm=maybe"), ("'layer_norm'", "maybe", "true or false")),
        ((*TRAIN, "--set", "target_update=never"), ("'target_update'", "never", "polyak")),
        ((*TRAIN, "--set", "gamma"), ("'gamma'", "key=value")),
        ((*TRAIN, "--preset", "defalt"), ("'defalt'", "'default'")),
        ((*TRAIN, "--exp-name", "../x"), ("'../x'", "letters")),
        ((*TRAIN, "--steps", "0"), ("'steps'", "at least 1")),
        ((*TRAIN, "--config", "none.toml"), ("none.toml",)),
        ((*TRAIN, "--device", "gpu"), ("'gpu'", "cuda")),
        ((*TRAIN, "--demos", "controller", "--seed", 9), ("does not learn from demonstrations",)),
        ((*TRAIN, "--resume", "--overwrite"), ("--resume", "--overwrite")),
        ((*TRAIN, "--seed", 9, "--init", "dqn/CartPole/sead0"), ("unknown run", "seed0")),
        ((*TRAIN, "--seed", 9, "--init", f"{RUN}:7"), ("unknown checkpoint '7'", "saved steps")),
        (
            (*TRAIN, "--seed", 9, "--init", RUN, "--set", "hidden=7"),
            ("cannot start from run", "hidden is 5,9 there, 7 here", "--set hidden=5,9"),
        ),
        (
            ("train", "bc", "--env", "CartPole", "--init", RUN),
            ("only the policy here has body", "'dqn' is not built like one of 'bc'"),
        ),
        (
            (*TRAIN, "--seed", 9, "--reward-from", "dqn/CartPole/sead0"),
            ("unknown run", "seed0"),
        ),
        (
            (*TRAIN, "--seed", 9, "--reward-from", RUN),
            ("'dqn' learns none", "airl", "gcl"),
        ),
        (
            ("train", "sqil", "--env", "CartPole", "--reward-from", RUN),
            ("'sqil' reads no reward", "drop --reward-from", "ppo"),
        ),
        (("train", "dqn", "--env", "Pendulum-v1"), ("'dqn' needs discrete", "continuous", "bc")),
        (("evaluate", "dqn/CartPole/seed1"), ("run 'dqn/CartPole/seed1'", "seed0", "list runs")),
        (("evaluate", RUN, "--checkpoint", "latst"), ("checkpoint 'latst'", "'latest'")),
        (("evaluate", RUN, "--checkpoint", "12345"), ("checkpoint '12345'",)),
        (("evaluate", RUN, "--start", "shifted"), ("start of CartPole",)),
        (("evaluate", RUN, "--sampled"), ("sampled", "greedy")),
        (("show", "controler"), ("'controler'", "'controller")),
        (("show", "dqn/CartPole/sead0"), ("'dqn/CartPole/sead0'", "seed0")),
        (("plot", "rns"), ("run 'rns'", "list runs")),
        (("plot", "runs", "--metric", "success"), ("no success test", "return")),
        (("plot", "runs", "--x", "quality"), ("learned from demonstrations",)),
        (("plot", "runs", "--out", "figure.gif"), ("figure.gif", ".png")),
        (("reproduce", "sqil-lunarlandr"), ("'sqil-lunarlandr'", "'sqil-lunarlander'")),
        (("reproduce", "sqil-lunarlander", "--seeds", "a-b"), ("'a-b'", "0-4")),
        (("reproduce", "sqil-lunarlander", "--group", "papr"), ("'papr'", "'paper'")),
        (("reproduce", "mcpo-sparse", "--tasks", "Hopper,Walker"), ("'Walker'", "'Walker2d'")),
        (
            ("collect-demos", "--env", "CartPole", "--policy", "dqn/CartPole/seed7"),
            ("'dqn/CartPole/seed7'", "seed0"),
        ),
        (("collect-demos", "--env", "Acrobot"), ("--policy", "random")),
        (("collect-demos", "--env", "Acrobot", "--policy", "controller"), ("no controller",)),
        (
            ("collect-demos", "--env", "CartPole", "--noop", 0.5),
            ("CartPole has no action that does nothing", "--noise", "LunarLander"),
        ),
        (("collect-demos", "--env", "CartPole", "--name", "a/b"), ("'a/b'", "letters")),
        (("collect-demos", "--env", "CartPole", "--episodes", 1, "--steps", 1), ("not both",)),
        (("collect-demos", "--env", "CartPole", "--checkpoint", "best"), ("--checkpoint", "run")),
        (
            ("collect-demos", "--env", "CartPole", "--min-return", 9, "--max-return", 1),
            ("at least 9", "at most 1"),
        ),
        (
            ("collect-demos", "--env", "CartPole", "--episodes", 1, "--min-return", 501),
            ("501", "500.0"),
        ),
    ],
)
def test_names_and_values(full_folder, command, texts):
    before = snapshot(full_folder)
    assert_refused(run_inside(*command), *texts)
    after = snapshot(full_folder)
    assert {name: after.get(name) for name in before} == before
    new = {name for name in after if not name.endswith(".lock")} - set(before)
    assert new == set()


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.toml", "[run\n", ("a.toml", "toml")),
        ("a.json", "{", ("a.json", "json")),
        ("a.json", "[]", ("a.json", "'run'")),
        ("a.toml", "[algorithms]\n", ("'algorithms'", "'algorithm'")),
        ("a.toml", "[algorithm]\ngama = 1\n", ("'gama'", "'gamma'", "a.toml")),
        ("a.toml", "[run]\nsteps = 'many'\n", ("'steps'", "many")),
        ("a.toml", "[run]\nnum_envs = 0\n", ("'num_envs'", "at least 1")),
    ],
)
def test_config_files(folder, name, text, parts):
    (folder / name).write_text(text)
    assert_refused(run_inside(*TRAIN, "--config", name), *parts)
    assert set(snapshot(folder)) == {name}


# Runs that are there


def test_an_existing_run_is_not_written_over(full_folder):
    before = snapshot(full_folder)
    assert_refused(run_inside(*DQN), RUN, "finished", "--resume", "--overwrite", "--exp-name")
    assert_refused(run_inside(*DQN, "--overwrite"), RUN, "--yes")
    assert snapshot(full_folder) == before


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("--set", "gamma=0.5"), ("gamma", "0.5", "0.99")),
        (("--steps", 999), ("steps=400", "steps=999")),
        (("--num-envs", 4), ("num_envs=3", "num_envs=4")),
    ],
)
def test_resume_with_another_configuration(full_folder, options, texts):
    before = snapshot(full_folder)
    assert_refused(run_inside(*TRAIN, "--resume", *options), RUN, *texts)
    assert snapshot(full_folder) == before


def test_a_folder_without_its_configuration(full_folder):
    (full_folder / RUN / "config.json").unlink()
    before = snapshot(full_folder)
    assert_refused(run_inside(*DQN), RUN, "no config.json", "--overwrite", "--exp-name")
    assert_refused(run_inside(*DQN, "--overwrite"), RUN, "without a config.json", "--yes")
    assert snapshot(full_folder) == before
    assert run_inside(*DQN, "--overwrite", "--yes").code == 0


def test_resume_of_a_finished_run(full_folder):
    before = snapshot(full_folder)
    outcome = run_inside(*TRAIN, "--resume")
    assert (outcome.code, "finished already" in outcome.stderr) == (0, True)
    assert snapshot(full_folder) == before


def test_resume_of_nothing(full_folder):
    before = snapshot(full_folder)
    assert_refused(run_inside(*TRAIN, "--seed", 5, "--resume"), "seed5", "--resume")
    assert snapshot(full_folder) == before


def test_only_algorithms_that_can_are_suggested(folder):
    refused = run_inside("train", "sac", "--env", "CartPole")
    assert_refused(refused, "sac", "continuous", "dqn")
    assert "maxent-irl" not in refused.stderr  # nobody knows the dynamics of CartPole
    assert "maxent-irl" in run_inside("train", "sac", "--env", "GridWorld").stderr


def test_a_damaged_run(full_folder):
    (full_folder / RUN / "config.json").write_text("{")
    assert_refused(run_inside("show", RUN), "config.json", "damaged")
    assert_refused(run_inside("evaluate", RUN), "config.json", "damaged")
    assert_refused(run_inside(*TRAIN, "--resume"), "config.json", "damaged")


def test_damaged_results(full_folder):
    """One other digit is enough; what is whole is still drawn."""
    shutil.copytree(full_folder / RUN, full_folder / "runs/default/dqn/CartPole/seed1")
    config = full_folder / "runs/default/dqn/CartPole/seed1/config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    path = full_folder / RUN / "eval.csv"
    text = path.read_text()
    path.write_text(text.replace(",1", ",2", 1))
    outcome = run_inside("plot", "runs", "--table")
    assert outcome.code == 0, outcome.stderr
    text = f"warning: run {RUN} was damaged since it finished: eval.csv was changed; it is left"
    assert text in outcome.stderr
    runs = run_inside("list", "runs", "--json").json["runs"]
    assert [run["return_mean"] is None for run in runs] == [True, False]
    config.parent.joinpath("eval.csv").write_text("a,b\n1")
    for arguments in ((), ("--table",)):
        assert_refused(run_inside("plot", "runs", *arguments), "no run is left", "2 are damaged")


def test_a_damaged_policy(full_folder):
    for path in (full_folder / RUN / "checkpoints").glob("policy_*"):
        path.write_bytes(path.read_bytes()[:-9])
    assert_refused(run_inside("evaluate", RUN), "policy_", "--checkpoint")


# Checkpoints


def damage(path: Path, how: str) -> None:
    if how == "cut off":
        os.truncate(path / "tensors.safetensors", 100)
    elif how == "changed":
        content = bytearray((path / "tensors.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "tensors.safetensors").write_bytes(content)
    elif how == "without its end mark":
        (path / "complete.json").unlink()
    else:
        (path / "state.json").write_text("{}")


@pytest.mark.parametrize("how", ["cut off", "changed", "without its end mark", "emptied"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(full_folder, how):
    run = full_folder / RUN
    before = snapshot(run)
    unfinish(run)
    first, last = sorted((run / "checkpoints").glob("resume_*"))
    damage(last, how)
    outcome = run_inside(*TRAIN, "--resume")
    assert outcome.code == 0, outcome.stderr
    assert f"{last.name} is damaged" in outcome.stderr
    assert "falling back" in outcome.stderr
    assert f"resuming at {int(first.name.removeprefix('resume_')):,}" in outcome.stderr
    after = snapshot(run)
    for name in ("episodes.csv", "eval.csv"):
        assert after[name] == before[name]
    policies = [name for name in before if "policy_" in name]
    assert policies
    assert all(after[name] == before[name] for name in policies)


# Demonstrations


def dataset(folder: Path) -> Path:
    return folder / "data/demos/CartPole/controller-v0"


def test_demonstrations_of_another_environment(full_folder):
    outcome = run_inside(*SQIL, "--demos", "LunarLander-demo/controller")
    assert_refused(outcome, "environment", "'LunarLander'", "'CartPole'", "collect-demos")


def test_demonstrations_with_other_options(full_folder):
    command = ("collect-demos", "--env", "LunarLander", "--episodes", 1, "--name", "pushed")
    assert run_inside(*command, "--env-option", "push_scale=0.5").code == 0
    before = snapshot(full_folder)
    outcome = run_inside(
        "train", "bc", "--env", "LunarLander", "--start", "demo", "--demos", "pushed"
    )
    assert_refused(outcome, "push_scale", "0.5", "0.0")
    assert snapshot(full_folder) == before


def test_more_demonstrations_than_there_are(full_folder):
    assert_refused(run_inside(*SQIL, "--num-demos", 5), "5 demonstrations", "1 to 4")


def test_no_demonstrations_and_nobody_to_make_them(folder):
    outcome = run_inside("train", "bc", "--env", "Acrobot")
    assert_refused(outcome, "no demonstrations", "Acrobot", "collect-demos")


def test_damaged_demonstrations(full_folder):
    place = dataset(full_folder)
    metadata = place / "data" / "metadata.json"
    content = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    (array_file,) = place.rglob("*.hdf5")

    def edit(changes):
        value = json.loads(content[metadata])
        value |= changes
        metadata.write_text(json.dumps(value))

    cases = {
        "truncated arrays": lambda: array_file.write_bytes(content[array_file][:-500]),
        "no arrays": array_file.unlink,
        "not HDF5": lambda: array_file.write_bytes(b"nonsense"),
        "broken metadata": lambda: metadata.write_text("{"),
        "other count": lambda: edit({"total_episodes": 3}),
        "no episode": lambda: edit({"total_episodes": 0, "total_steps": 0}),
    }
    for case, make_bad in cases.items():
        make_bad()
        for command in ((*SQIL, "--demos", str(place)), ("show", str(place))):
            outcome = run_inside(*command)
            assert_refused(outcome, "controller-v0")
        assert not (full_folder / "runs/default/sqil").exists(), case
        for path, value in content.items():
            path.write_bytes(value)
    assert run_inside("show", "CartPole/controller").code == 0


# Folders and disks


@pytest.mark.parametrize(
    "command",
    [
        (*DQN, "--seed", 1, "--runs-dir", "file"),
        ("collect-demos", "--env", "CartPole", "--data-dir", "file"),
        ("train", "bc", "--env", "CartPole", "--data-dir", "file"),
        ("plot", "runs", "--out", "file/figure.png"),
        ("reproduce", "sqil-lunarlander", "--seeds", "0", "--runs-dir", "file"),
    ],
)
def test_folders_that_cannot_be_written(full_folder, command):
    (full_folder / "file").write_text("not a folder")
    before = snapshot(full_folder)
    assert_refused(run_inside(*command), "file", "choose")
    after = snapshot(full_folder)
    assert {name: after.get(name) for name in before} == before


def test_a_full_disk_stops_the_run_and_keeps_what_is_written(folder, monkeypatch):
    from rlfd.experiments.run_dir import CsvLog

    append, written = CsvLog._append, []

    def append_until_full(self, text):
        written.append(text)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, text)

    monkeypatch.setattr(CsvLog, "_append", append_until_full)
    outcome = run_inside(*DQN, "--steps", 20_000, "--eval-every", 0)
    assert_refused(outcome, "disk is full", RUN, "--resume", code=1)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert len(pd.read_csv(f"{RUN}/episodes.csv")) > 1
    (run,) = run_inside("list", "runs", "--json").json["runs"]
    assert run["state"] == "failed"
    assert list(Path(RUN).glob("checkpoints/resume_*"))


# Numbers that are none


class Broken(gymnasium.Env):
    """Returns NaN at the seventh step of an episode; does not know of render modes."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        value = np.nan if self.steps == 7 else 0.0
        return np.full(3, value, np.float32), 0.0, False, False, {}


def test_nan_in_observations(folder):
    gymnasium.register("rlfd-tests/Broken-v0", Broken)
    try:
        outcome = run_inside("train", "dqn", "--env", "rlfd-tests/Broken-v0", *TINY)
        assert_refused(outcome, "rlfd-tests/Broken-v0", "step", code=1)
        command = ("collect-demos", "--env", "rlfd-tests/Broken-v0", "--policy", "random")
        assert_refused(run_inside(*command), "rlfd-tests/Broken-v0", "step 7", code=1)
    finally:
        del gymnasium.registry["rlfd-tests/Broken-v0"]


def test_nan_in_losses_keeps_the_last_checkpoint(folder, monkeypatch):
    import torch

    from rlfd import algorithms

    kind = algorithms.get("dqn")
    iteration, calls = kind.iteration, []

    def break_down(self, world):
        metrics = iteration(self, world)
        calls.append(1)
        if len(calls) > 100:
            metrics = {name: torch.tensor(float("nan")) for name in self.metric_definitions}
        return metrics

    monkeypatch.setattr(kind, "iteration", break_down)
    outcome = run_inside(*DQN)
    name = next(iter(kind.metric_definitions))
    assert_refused(outcome, name, "nan", RUN, "learning_rate", code=1)
    assert [p.name[-9:] for p in Path(RUN).glob("checkpoints/resume_*")] == ["000000201"]
    (run,) = run_inside("list", "runs", "--json").json["runs"]
    assert run["state"] == "failed"


def test_as_a_process(full_folder):
    before = snapshot(full_folder)
    assert_refused(run_outside(*DQN), RUN, "--overwrite")
    assert snapshot(full_folder) == before


def test_images_where_a_method_learns_from_vectors(folder):
    outcome = run_inside("train", "trpo", "--env", "Pong")
    texts = "'trpo' learns from vectors", "images of shape (4, 84, 84)", "dqn", "sqil"
    assert_refused(outcome, *texts)
    assert not list(folder.iterdir())


def test_a_replay_memory_that_does_not_fit(folder, monkeypatch):
    from rlfd.experiments import problem

    monkeypatch.setattr(problem, "available_memory", lambda device: 3_500_000_000)
    outcome = run_inside("train", "soft-q", "--env", "Pong")
    needed = "1,000,000 transitions needs 7.08 GB", "3.50 GB are free"
    assert_refused(outcome, *needed, "--set buffer_size=490000")
    assert not list(folder.iterdir())


HUGE = "9" * 310
NEW = (*TRAIN, "--seed", 9)


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (("collect-demos", "--env", "CartPole", "--max-return", "inf"), ("not a finite",)),
        (("collect-demos", "--env", "CartPole", "--noise", "nan"), ("--noise",)),
        (("collect-demos", "--env", "CartPole", "--episodes", "1e13"), ("at most 1,000,000",)),
        (("collect-demos", "--env", "CartPole", "--episodes", HUGE), ("not a whole number",)),
        (("collect-demos", "--env", "CartPole", "--name", "x" * 250), ("too long",)),
        (("evaluate", RUN, "--episodes", "1e13"), ("at most 1,000,000",)),
        (("evaluate", RUN, "--episodes", "0"), ("at least 1",)),
        (("demos", "mix", f"a:{HUGE}", "b:0.5", "--name", "x"), ("cannot read 'a:9",)),
        ((*TRAIN, "--exp-name", "x" * 300), ("too long", "shorter")),
        ((*TRAIN, "--set", f"gamma={HUGE}"), ("setting 'gamma' is", "finite")),
        ((*TRAIN, "--set", f"batch_size={HUGE}"), ("setting 'batch_size'", "whole number")),
        ((*TRAIN, "--set", "batch_size=1e30"), ("setting 'batch_size' is too large",)),
        ((*TRAIN, "--num-envs", "1000000"), ("'num_envs' is 1000000, expected at most",)),
        (
            (*TRAIN, "--seed", 9, "--set", "hidden=100000,100000"),
            ("hidden=100000,100000 needs 200", "free"),
        ),
        (
            (*TRAIN, "--seed", 9, "--set", "batch_size=1e12"),
            ("batch_size=1000000000000 needs", "free"),
        ),
        (("export", RUN, "--out", f"{'x' * 250}.safetensors"), ("too long", "shorter")),
        (("export", RUN, "--out", f"{RUN}/run.json/x.safetensors"), ("cannot export",)),
        (("plot", RUN, "--out", "runs.png"), ("runs.png: a folder has that name",)),
    ],
)
def test_refused_before_anything_is_played_or_written(full_folder, monkeypatch, command, texts):
    (full_folder / "runs.png").mkdir()
    before = snapshot(full_folder), sorted(full_folder.rglob("*"))
    monkeypatch.setattr("rlfd.envs.play._Player.begin", None)
    assert_refused(run_inside(*command), *texts)
    assert (snapshot(full_folder), sorted(full_folder.rglob("*"))) == before


def test_configurations_with_numbers_that_no_float_holds(full_folder):
    file = full_folder / RUN / "config.json"
    values = json.loads(file.read_text())
    values["algorithm"]["gamma"] = 10**400
    file.write_text(json.dumps(values))
    assert_refused(run_inside("evaluate", RUN), "setting 'gamma' is too large")
    (full_folder / "c.json").write_text('{"run": {"seed": ' + "9" * 400 + "}}")
    assert_refused(run_inside(*TRAIN, "--config", "c.json"), "setting 'seed' is too large")


def test_names_cannot_steer_the_terminal(full_folder):
    name = "\x1b[31mred\x07"
    shutil.copytree(full_folder / "runs/default", full_folder / "runs" / name)
    for command in (("list", "runs"), ("show", name), ("plot", f"runs/{name}", "--table")):
        outcome = run_inside(*command)
        assert "\x1b" not in outcome.stdout + outcome.stderr
        assert "\x07" not in outcome.stdout + outcome.stderr
    assert "�[31mred" in run_inside("list", "runs").stdout


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_policies_have_the_modes_of_other_files(full_folder, mask, mode):
    before = os.umask(mask)
    try:
        command = ("export", RUN, "--out", "policy.safetensors", "--episodes", 1)
        assert run_inside(*command).code == 0
    finally:
        os.umask(before)
    assert (full_folder / "policy.safetensors").stat().st_mode & 0o777 == mode


def test_a_stranger_in_a_file_is_imported_only_with_the_users_word(full_folder, monkeypatch):
    from rlfd.envs import imports

    monkeypatch.setattr(imports, "_allowed", set())
    monkeypatch.setattr(imports, "_from_files", {})
    monkeypatch.syspath_prepend(full_folder)
    code = (
        "from pathlib import Path\n"
        "import gymnasium\n"
        "Path('imported').touch()\n"
        "gymnasium.register('Strange-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (full_folder / "strangers.py").write_text(code)
    file = full_folder / RUN / "config.json"
    values = json.loads(file.read_text())
    values["env"]["name"] = "strangers:Strange-v0"
    file.write_text(json.dumps(values))
    command = ("evaluate", RUN, "--episodes", 3)
    refused = run_inside(*command)
    assert_refused(refused, "strangers:Strange-v0", "config.json", "--allow-import strangers")
    assert run_inside("list", "runs").code == run_inside("plot", RUN, "--table").code == 0
    assert not (full_folder / "imported").exists()
    try:
        assert run_inside(*command, "--allow-import", "strangers").code == 0
        assert (full_folder / "imported").exists()
    finally:
        del sys.modules["strangers"]
        del gymnasium.registry["Strange-v0"]
