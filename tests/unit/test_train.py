"""The life of a run inside one process: what it writes, refuses, survives and undoes.

Being killed is in tests/contract/test_resume.py.
"""

import dataclasses
import errno
import json
import logging
import os
import shlex
import shutil

import gymnasium
import numpy as np
import pytest
import torch

from rlfd import algorithms, demos
from rlfd.algorithms.rl.dqn import DQN
from rlfd.demos import make_demonstrator
from rlfd.envs import EnvConfig, check, registry
from rlfd.errors import RlfdError, RunFailed
from rlfd.experiments import checkpoint, preparation, run_dir, runner
from rlfd.experiments import train as training
from rlfd.experiments.config import resolve
from rlfd.experiments.evaluate import evaluate_run
from rlfd.experiments.report import NullReporter
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.tables import display_table, results_table

CARTPOLE = EnvConfig("CartPole")
OPTIONS = {
    "steps": 300, "num_envs": 3, "log_every": 60, "eval_every": 100, "eval_episodes": 2,
    "final_episodes": 3, "checkpoint_every": 80, "compile": "off",
}  # fmt: skip
SETTINGS = {
    "hidden": "5", "batch_size": "7", "learning_starts": "30", "updates_per_env_step": "0.25",
}  # fmt: skip
OFFLINE = {"eval_every": 20, "log_every": 1, "checkpoint_every": 10, "num_envs": 1, "steps": 0}
TIMES = ["wall_seconds", "time/env", "time/act", "time/sample", "time/update"]


class Listener(NullReporter):
    """Remembers what it is told."""

    def __init__(self):
        self.messages, self.warnings, self.tasks = [], [], []

    def start(self, task, total, done, unit):
        self.tasks.append((task, total, done, unit))

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def train(tmp_path, listener):
    """Return a function that trains a tiny run below the test's folder."""

    def run(algo="dqn", env=CARTPOLE, *, settings=(), resume=False, overwrite=False, track=False,
            runs="runs", **options):  # fmt: skip
        if resume:  # the folder knows the rest
            resolved = resolve(algo, env, settings=settings, options=options)
        else:
            cls = algorithms.get(algo)
            usual = OPTIONS if cls.needs.interaction else OPTIONS | OFFLINE
            own = [f"{k}={v}" for k, v in SETTINGS.items() if hasattr(cls.Config(), k)]
            resolved = resolve(algo, env, settings=[*own, *settings], options=usual | options)
        return training.train(
            resolved, runs_dir=tmp_path / runs, data_dir=tmp_path / "data", resume=resume,
            overwrite=overwrite, track=track, reporter=listener,
        )  # fmt: skip

    return run


@pytest.fixture
def collect(tmp_path):
    """Return a function that collects demonstrations of CartPole."""

    def make(name="good", episodes=3, seed=0, env=CARTPOLE):
        policy = make_demonstrator("random", env, seed=seed)
        return demos.collect(
            env, policy, episodes=episodes, seed=seed, name=name, data_dir=tmp_path / "data"
        )

    return make


def snapshot(folder):
    """Return every file below a folder, locks and logs aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "rlfd.log")
    }


def learned(run):
    """Return what a run has learned and recorded of its learning; evaluation and times aside."""
    newest = max(run.path.glob("checkpoints/resume_*"))
    return {
        "train": run.train().drop(columns=TIMES).to_csv(),
        "episodes": (run.path / "episodes.csv").read_text(),
        "tensors": (newest / "tensors.safetensors").read_bytes(),
        "policy": max(run.path.glob("checkpoints/policy_*")).read_bytes(),
    }


# What a run writes


def test_numbers_of_a_run(train, listener):
    result = train(seed=4, exp_name="a")
    run, status = result.run_dir, result.run_dir.status()
    assert run.path.parts[-5:] == ("runs", "a", "dqn", "CartPole", "seed4")
    assert (result.env_steps, result.updates) == (300, int(270 * 0.25))
    expected = {
        "state": "finished", "algo": "dqn", "env": "CartPole", "start": "standard", "seed": 4,
        "exp_name": "a", "env_steps": 300, "updates": 67, "steps": 300, "error": None,
        "demos": None,
    }  # fmt: skip
    assert {name: status[name] for name in expected} == expected
    assert status["wall_seconds"] == pytest.approx(result.wall_seconds, abs=1.0)
    assert status["versions"]["torch"] == torch.__version__
    assert {"command", "git", "host", "pid", "written", "final"} <= set(status)
    assert result.return_mean == status["final"]["final"]["greedy"]["return_mean"]
    assert result.success_rate is None
    assert listener.tasks[0] == ("dqn CartPole seed 4", 300, 0, "env steps")
    assert listener.warnings == []


def test_files_of_a_run(train):
    run = train().run_dir
    assert {path.name for path in run.path.iterdir()} == {
        ".lock", "config.json", "run.json", "train.csv", "episodes.csv", "eval.csv", "checkpoints",
        "rlfd.log",
    }  # fmt: skip
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "policy_000000102.safetensors", "policy_000000201.safetensors",
        "policy_000000300.safetensors", "resume_000000240", "resume_000000300",
    ]  # fmt: skip
    assert not run.is_locked()


def test_logs_of_a_run(train):
    run = train().run_dir
    rows = run.train()
    metrics = list(DQN.metric_definitions)
    assert list(rows) == [*run_dir.TRAIN_COLUMNS, *metrics]
    assert rows["env_steps"].tolist() == [60, 120, 180, 240, 300]
    assert rows["updates"].tolist() == [7, 22, 37, 52, 67]
    assert rows["wall_seconds"].is_monotonic_increasing
    assert np.isfinite(rows[metrics].to_numpy()).all()
    assert (rows[[name for name in TIMES if "/" in name]].sum(axis=1) <= 1.001).all()

    episodes = run.episodes()
    assert list(episodes) == list(run_dir.EPISODE_COLUMNS)
    assert len(episodes) > 3
    assert episodes["env_steps"].is_monotonic_increasing
    assert (
        episodes["episode_return"] == episodes["episode_length"]
    ).all()  # CartPole pays 1 a step
    # each environment's episodes follow each other without a gap
    for _, own in episodes.groupby("env_index"):
        assert own["env_steps"].tolist() == (3 * own["episode_length"].cumsum()).tolist()
    assert set(episodes["terminated"]) <= {0, 1}
    assert episodes[["success", "landed"]].isna().all().all()

    evaluations = run.evaluations()
    assert list(evaluations) == list(run_dir.EVAL_COLUMNS)
    counts = evaluations.groupby(["phase", "policy", "env_steps"]).size()
    best = run.status()["final"]["best"]["step"]
    assert counts.to_dict() == {
        ("periodic", "greedy", 102): 2, ("periodic", "greedy", 201): 2,
        ("periodic", "greedy", 300): 2, ("final", "greedy", 300): 3, ("best", "greedy", best): 3,
    }  # fmt: skip


def test_only_a_final_evaluation(train):
    run = train(eval_every=0).run_dir
    assert set(run.evaluations()["phase"]) == {"final", "best"}
    assert list(checkpoint.list_policies(run.checkpoints)) == [300]
    final = run.status()["final"]
    assert final["best"].pop("step") == 300
    assert final["best"] == final["final"]


@pytest.mark.parametrize("eval_every", [0, 100])
def test_no_final_evaluation(train, eval_every):
    """The weights are the same as with one, and can be evaluated later."""
    with_one = learned(train(runs="other", eval_every=eval_every).run_dir)
    result = train(eval_every=eval_every, final_episodes=0)
    run = result.run_dir
    assert (result.return_mean, result.success_rate) == (None, None)
    assert (run.status()["state"], run.status()["final"]) == ("finished", None)
    assert set(run.evaluations()["phase"]) == ({"periodic"} if eval_every else set())
    assert learned(run) == with_one
    assert max(checkpoint.list_policies(run.checkpoints)) == 300
    table = results_table([run]).set_index("measure")
    assert table.loc["final, greedy", "n"] == 0
    shown = display_table(results_table([run]))
    assert (shown[["final, greedy", "best, greedy"]] == "–").all().all()
    assert evaluate_run(run, episodes=2).episodes == 2


def test_runs_with_and_without_evaluations_stand_in_one_table(train):
    lander = EnvConfig("LunarLander")
    runs = [train(env=lander, steps=60, final_episodes=n, seed=n).run_dir for n in (0, 1)]
    table = results_table(runs).set_index("measure")
    assert set(table["metric"]) == {"success"}  # of which the one without says nothing
    assert table.loc["final, greedy", "n"] == 1


def test_the_best_checkpoint_is_evaluated_again(train, monkeypatch):
    """Its numbers are those of its weights, not of the last ones."""
    monkeypatch.setattr(runner, "best_step", lambda _: 102)
    run = train(final_episodes=20).run_dir
    final = run.status()["final"]
    assert final["best"]["step"] == 102
    again = evaluate_run(run, episodes=20, checkpoint="102")
    assert again.return_mean == final["best"]["greedy"]["return_mean"]
    assert set(run.evaluations().query("phase == 'best'")["env_steps"]) == {102}


def test_the_budget_of_methods_that_do_not_interact(train, collect):
    collect()
    result = train("bc", settings=["max_epochs=3", "batch_size=11"])
    run = result.run_dir
    assert result.env_steps == 0
    assert result.updates > 0
    assert run.train()["updates"].is_monotonic_increasing
    assert len(run.train()) == 3  # one row for each epoch
    assert run.train()["epochs"].tolist() == [1, 2, 3]
    assert run.status()["epochs"] == 3
    assert len(run.episodes()) == 0
    assert run.evaluations().query("phase == 'final'")["env_steps"].unique() == [result.updates]
    status = run.status()
    assert status["demos"]["name"] == "CartPole/good-v0"
    assert status["demos"]["episodes"] == 3


def test_methods_without_epochs_have_no_such_column(train):
    run = train().run_dir
    assert "epochs" not in run.train()
    assert "epochs" not in run.status()


def test_a_run_is_deterministic_and_seeds_matter(train):
    first = learned(train().run_dir)
    assert learned(train(runs="again").run_dir) == first
    other = learned(train(seed=1).run_dir)
    assert all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("algo", ["dqn", "sqil"])
def test_evaluations_do_not_disturb_learning(train, collect, algo):
    collect()
    first = learned(train(algo).run_dir)
    for number, options in enumerate(
        ({"eval_every": 0}, {"eval_every": 30, "eval_episodes": 5}, {"checkpoint_every": 50})
    ):
        assert learned(train(algo, runs=f"other{number}", **options).run_dir) == first


# Demonstrations


def test_the_newest_demonstrations_are_used_and_named(train, collect, listener):
    collect("old")
    collect("new")
    run = train("sqil").run_dir
    assert run.config().demos == "CartPole/new-v0"
    assert listener.messages == ["using the newest demonstrations, 'CartPole/new-v0'"]


def test_named_demonstrations_and_a_part_of_them(train, collect):
    collect("old", episodes=5)
    collect("new")
    run = train("sqil", demos="old", num_demos=2).run_dir
    assert run.config().demos == "CartPole/old-v0"
    assert run.status()["demos"]["episodes"] == 2
    with pytest.raises(RlfdError, match="9 demonstrations were asked for"):
        train("sqil", demos="old", num_demos=9, seed=1)


def test_missing_demonstrations_are_made(train, listener, monkeypatch, tmp_path):
    few = dataclasses.replace(registry.SPECS["CartPole"], demo_episodes=2)
    monkeypatch.setitem(registry.SPECS, "CartPole", few)
    status = train("sqil").run_dir.status()
    assert status["demos"]["episodes"] == 2
    (message,) = listener.messages
    assert "collecting 2 episodes of its controller from start 'standard'" in message
    assert len(demos.list_all(tmp_path / "data")) == 1


@pytest.mark.parametrize(
    "name", [n for n, known in registry.SPECS.items() if len(known.starts) > 1]
)
def test_missing_demonstrations_come_from_their_own_start(monkeypatch, tmp_path, name):
    """Options that belong to the run's start alone are left out there."""
    made = []
    monkeypatch.setattr(preparation, "make_demonstrator", lambda *args, **kwargs: None)
    monkeypatch.setattr(demos, "collect", lambda env, *args, **kwargs: made.append(env))
    for start in registry.SPECS[name].starts:
        preparation._collect_default(check(EnvConfig(name, start)), tmp_path, NullReporter())
    here = check(EnvConfig(name, registry.SPECS[name].demo_start))
    assert made == [here] * len(made) != []


def test_demonstrations_that_cannot_be_had(train, tmp_path):
    with pytest.raises(RlfdError, match="'dqn' does not learn from demonstrations"):
        train("dqn", demos="any")
    with pytest.raises(RlfdError, match="no demonstrations for 'Acrobot'") as caught:
        train("sqil", EnvConfig("Acrobot"))
    assert "--policy RUN" in caught.value.hint
    with pytest.raises(RlfdError, match="no demonstrations 'nothing'"):
        train("sqil", demos="nothing")
    assert snapshot(tmp_path) == {}


# Refused before anything is touched


def test_an_existing_run(train):
    run = train().run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=r"already holds a run \(finished, 300 env steps") as caught:
        train()
    for option in ("--resume", "--overwrite", "--exp-name"):
        assert option in caught.value.hint
    assert snapshot(run.path) == before


def test_nothing_to_resume(train, tmp_path):
    with pytest.raises(RlfdError, match="no run to resume"):
        train(resume=True)
    assert snapshot(tmp_path) == {}


def test_resuming_with_other_settings(train, collect):
    collect("good")
    collect("other")
    run = train("sqil", demos="good").run_dir
    before = snapshot(run.path)
    for settings, options, text in (
        (["gamma=0.5"], {}, "algorithm.gamma=0.99, now algorithm.gamma=0.5"),
        (["hidden=5,5"], {}, r"algorithm.hidden=\[5\], now algorithm.hidden=\[5, 5\]"),
        ([], {"steps": 301}, "steps=300, now steps=301"),
        ([], {"num_envs": 4}, "num_envs=3, now num_envs=4"),
        ([], {"num_demos": 1}, "num_demos=None, now num_demos=1"),
        ([], {"demos": "other"}, "demos=CartPole/good-v0, now demos=CartPole/other-v0"),
    ):
        with pytest.raises(RlfdError, match=text):
            train("sqil", settings=settings, resume=True, **options)
    assert snapshot(run.path) == before


def test_resuming_with_the_same_settings_however_spelt(train, collect, tmp_path):
    collect("good")
    run = train("sqil", demos="good").run_dir
    before = learned(run)
    for demos_name in (
        "good",
        "good-v0",
        "CartPole/good",
        str(tmp_path / "data/demos/CartPole/good-v0"),
    ):
        train("sqil", settings=["hidden=(5,)"], resume=True, steps=300, demos=demos_name)
    assert learned(run) == before


def test_resuming_with_other_environment_options(train, collect):
    lander = EnvConfig("LunarLander", "demo", {"push_scale": 0.25})
    few = {"steps": 60, "eval_episodes": 1, "final_episodes": 1, "eval_every": 0}
    run = train("dqn", lander, **few).run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=r"started with env=.*0.25.*now env=.*0.0"):
        train("dqn", EnvConfig("LunarLander", "demo"), resume=True)
    assert snapshot(run.path) == before
    train("dqn", lander, resume=True)


def test_a_run_that_somebody_works_on(train):
    run = train().run_dir
    before = snapshot(run.path)
    with run.lock():
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(RlfdError, match="worked on by another process"):
                train(**how)
    assert snapshot(run.path) == before


def test_folders_that_cannot_be_written(train, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RlfdError, match="cannot write run folder") as caught:
        train()
    assert caught.value.exit_code == 2
    assert "--runs-dir" in caught.value.hint


def test_settings_that_the_algorithm_refuses(train, collect, tmp_path):
    """They show when it is built: no folder is left behind, and no old run was deleted for it."""
    collect()
    with pytest.raises(RlfdError, match="loss=mse is for continuous actions"):
        train("bc", settings=["loss=mse"])
    assert not (tmp_path / "runs").exists()
    run = train("bc", settings=["max_epochs=1"]).run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match="loss=mse is for continuous actions"):
        train("bc", settings=["loss=mse"], overwrite=True)
    assert snapshot(run.path) == before


def test_actions_that_the_algorithm_was_not_made_for(train, tmp_path):
    with pytest.raises(RlfdError, match="needs discrete actions"):
        train("dqn", EnvConfig("Pendulum-v1"))
    assert snapshot(tmp_path) == {}


def test_a_log_that_was_cut(train):
    run = train().run_dir
    os.truncate(run.path / "episodes.csv", 150)
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=r"episodes.csv has 150 bytes, expected at least"):
        train(resume=True)
    assert snapshot(run.path)["run.json"] == before["run.json"]


# Starting again and going on


def test_overwriting_leaves_nothing_of_the_old_run(train):
    run = train(eval_every=30, checkpoint_every=30).run_dir
    (run.path / "videos").mkdir()
    (run.path / "videos" / "a.mp4").write_text("")
    train(overwrite=True)
    fresh = train(runs="fresh").run_dir
    assert set(snapshot(run.path)) == set(snapshot(fresh.path))
    assert learned(run) == learned(fresh)


def test_a_finished_run_can_be_resumed_and_is_the_same(train, listener):
    run = train().run_dir
    before = snapshot(run.path)
    train(resume=True)
    assert listener.messages == ["resuming at 300"]
    after = snapshot(run.path)
    changing = {"run.json", "checkpoints/resume_000000300/state.json",
                "checkpoints/resume_000000300/complete.json"}  # fmt: skip
    assert {name for name in before if before[name] != after[name]} <= changing
    assert before.keys() == after.keys()


def test_all_code_that_made_a_run_is_named(train, monkeypatch):
    run = train(steps=300).run_dir
    (first,) = run.status()["made_by"]
    assert first["from"] == 0
    train(resume=True)
    assert run.status()["made_by"] == [first]
    now = runner.provenance() | {"git": {"commit": "c", "dirty": False}}
    monkeypatch.setattr(runner, "provenance", lambda: now)
    train(resume=True)
    second = {"from": 300} | {name: now[name] for name in ("git", "versions", "host")}
    assert run.status()["made_by"] == [first, second]


def test_demonstrations_that_changed_since(train, collect, tmp_path):
    """Refused, and refused again: being refused does not make them right."""
    collect("good", seed=0)
    run = train("sqil", demos="good").run_dir
    before = snapshot(run.path)
    shutil.rmtree(tmp_path / "data")
    collect("good", seed=1)
    for _ in range(2):
        with pytest.raises(RlfdError, match="are not those that run"):
            train("sqil", resume=True)
        assert snapshot(run.path) == before
    shutil.rmtree(tmp_path / "data")
    collect("good", seed=0)
    train("sqil", resume=True)


def test_the_resume_command(tmp_path):
    def command(env, runs="runs", data="data", **options):
        config = resolve("dqn", env, options=options).config
        return training._resume_command(config, type(tmp_path)(runs), type(tmp_path)(data))

    assert command(CARTPOLE) == "rlfd train dqn --env CartPole --resume"
    assert command(EnvConfig("LunarLander", "shifted"), seed=3, exp_name="a", runs="my runs") == (
        "rlfd train dqn --env LunarLander --start shifted --seed 3 --exp-name a "
        "--runs-dir 'my runs' --resume"
    )
    assert command(EnvConfig("LunarLander", "demo", {"push_scale": 0.0}), data="d") == (
        "rlfd train dqn --env LunarLander --start demo --data-dir d --resume"
    )
    words = shlex.split(command(EnvConfig("LunarLander", "demo", {"push_scale": 0.5})))
    assert words[words.index("--env-option") + 1] == "push_scale=0.5"
    words = shlex.split(command(EnvConfig("CartPole-v1", options={"sutton_barto_reward": True})))
    assert words[words.index("--env-option") + 1] == "sutton_barto_reward=true"


# A full disk


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_rust(*_, **__):
    raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")


def after(calls, function, problem):
    """Return `function`, which turns into `problem` once, at its `calls`-th call."""
    count = []

    def counted(*args, **kwargs):
        count.append(None)
        return (problem if len(count) == calls else function)(*args, **kwargs)

    return counted


FULL = {
    "train.csv and others": (run_dir.CsvLog, "_append", 9, full_disk),
    "eval.csv": (run_dir.CsvLog, "write", 12, full_disk),
    "flushing": (os, "fsync", 25, full_disk),
    "tensors of the first checkpoint": (checkpoint, "save_file", 1, full_rust),
    "a policy": (checkpoint, "save_file", 2, full_rust),
    "tensors of a later checkpoint": (checkpoint, "save_file", 5, full_rust),
    "end mark of a checkpoint": (checkpoint, "write_json", 2, full_disk),
    "state of the run": (runner.Runner, "_checkpoint", 4, full_disk),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    resolved = resolve("dqn", CARTPOLE, settings=[f"{k}={v}" for k, v in SETTINGS.items()],
                       options=OPTIONS)  # fmt: skip
    run = training.train(resolved, runs_dir=folder, data_dir=folder).run_dir
    return learned(run) | {"eval": (run.path / "eval.csv").read_text()}


@pytest.mark.parametrize("where", FULL)
def test_a_full_disk(train, tmp_path, monkeypatch, undisturbed, where):
    owner, name, calls, problem = FULL[where]
    monkeypatch.setattr(owner, name, after(calls, getattr(owner, name), problem))
    with pytest.raises(RunFailed, match="the disk is full") as caught:
        train()
    monkeypatch.undo()
    assert caught.value.exit_code == 1
    assert "rlfd train dqn --env CartPole" in caught.value.hint
    run = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0")
    assert run.status()["state"] == "failed"
    assert "No space left" in run.status()["error"]
    for read in (run.train, run.episodes, run.evaluations):
        assert not read().isna().all(axis=1).any()
    assert checkpoint.load_newest(run.checkpoints)[1] == []
    assert not list(run.path.rglob(".*.tmp"))

    train(resume=True)
    assert learned(run) | {"eval": (run.path / "eval.csv").read_text()} == undisturbed


def test_a_full_disk_under_the_state_itself(train, tmp_path, monkeypatch, undisturbed, caplog):
    """Then it cannot be recorded that the run failed, but it is over all the same."""
    monkeypatch.setattr(run_dir, "write_json", after(3, run_dir.write_json, full_disk))
    write = RunDir.write_status
    monkeypatch.setattr(
        RunDir, "write_status",
        lambda self, status: write(self, status) if status["state"] == "running" else full_disk(),
    )  # fmt: skip
    with pytest.raises(RunFailed, match="the disk is full"):
        train()
    monkeypatch.undo()
    run = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0")
    assert run.status()["state"] == "interrupted"
    assert "cannot write the state" in caplog.text
    train(resume=True)
    assert learned(run)["tensors"] == undisturbed["tensors"]


def test_a_log_file_that_cannot_be_written_says_nothing(tmp_path, capsys, monkeypatch):
    resolved = resolve("dqn", CARTPOLE)
    run = RunDir.of(resolved.config, tmp_path)
    run.create(resolved)
    # other tests of this process may have let the command line attach its own
    monkeypatch.setattr(logging.getLogger("rlfd"), "handlers", [])
    with training._log_to(run):
        (handler,) = [h for h in logging.getLogger("rlfd").handlers if hasattr(h, "baseFilename")]
        handler.stream = open("/dev/full", "w")  # noqa: SIM115
        logging.getLogger("rlfd.test").warning("lost")
    assert capsys.readouterr().err == ""
    with training._log_to(run):
        logging.getLogger("rlfd.test").warning("kept")
    assert "WARNING rlfd.test: kept" in run.log_file.read_text()


# Numbers that are none


def test_losses_that_are_not_finite(train, tmp_path, monkeypatch):
    """Found at the next row, named as of where they arose; the last good checkpoint stays."""
    iteration, calls = DQN.iteration, []

    def broken(self, world):
        metrics = iteration(self, world)
        calls.append(None)
        if len(calls) == 64:  # env step 192
            metrics["q/mean"] = torch.tensor(float("nan"))
        return metrics

    monkeypatch.setattr(DQN, "iteration", broken)
    with pytest.raises(
        RunFailed, match=r"q/mean became nan at update 40 \(env step 192\)"
    ) as caught:
        train()
    run = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0")
    assert str(run.path) in caught.value.message
    assert "learning_rate" in caught.value.hint
    assert caught.value.exit_code == 1
    assert run.status()["state"] == "failed"
    assert "q/mean became nan" in run.status()["error"]
    assert checkpoint.load_newest(run.checkpoints)[0]["progress"] == 162
    assert list(checkpoint.list_policies(run.checkpoints)) == [102]


def test_weights_that_are_not_finite_are_neither_saved_nor_evaluated(train, tmp_path):
    settings = ["learning_rate=1e30", "max_grad_norm=0", "huber_delta=0"]
    with pytest.raises(RunFailed, match=r"became (nan|inf) at update \d+ "):
        train(settings=settings, log_every=1000, checkpoint_every=1000)
    run = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0")
    assert list(run.checkpoints.iterdir()) == []
    assert len(run.evaluations()) == 0


class Toy(gymnasium.Env):
    """Episodes of ten steps; `broken` is returned once, at the `at`-th step of environment."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, what="observation", at=25):
        self.what, self.at, self.total = what, at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        self.total += 1
        broken = np.nan if self.total == self.at else 0.0
        observation = np.full(3, broken if self.what == "observation" else 0.0, np.float32)
        reward = float(broken) if self.what == "reward" else 0.0
        return observation, reward, False, self.steps == 10, {}


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_environments_that_return_nan(train, tmp_path, what):
    gymnasium.register("rlfd-tests/Toy-v0", Toy)
    try:
        env = EnvConfig("rlfd-tests/Toy-v0", options={"what": what})
        with pytest.raises(RunFailed, match=f"Toy-v0' returned a {what} that is not a finite"):
            train("dqn", env, eval_every=0, checkpoint_every=30)
        run = RunDir(tmp_path / "runs/default/dqn/rlfd-tests-Toy-v0/seed0")
        assert run.status()["state"] == "failed"
        assert checkpoint.load_newest(run.checkpoints)[0]["progress"] == 60
    finally:
        del gymnasium.registry["rlfd-tests/Toy-v0"]


def test_what_nobody_expected_is_recorded_too(train, tmp_path, monkeypatch):
    monkeypatch.setattr(DQN, "iteration", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()
    status = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0").status()
    assert (status["state"], status["error"]) == ("failed", "ZeroDivisionError: division by zero")


# TensorBoard


def test_tensorboard_files(train):
    pytest.importorskip("tensorboard")
    run = train(track=True).run_dir
    train(track=True, overwrite=True)
    assert len(list(run.tensorboard.glob("events.*"))) == 1


def test_tensorboard_that_is_not_installed(train, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(RlfdError, match="not installed"):
        train(track=True)
    assert snapshot(tmp_path) == {}


def test_the_configuration_is_never_edited(train):
    run = train().run_dir
    before = json.loads((run.path / "config.json").read_text())
    train(resume=True)
    assert json.loads((run.path / "config.json").read_text()) == before


def test_a_budget_of_updates_ends_with_the_best_validated_policy(train, collect, monkeypatch):
    collect()
    losses = iter([0.5, 0.1, 0.9, 0.8])
    monkeypatch.setattr(
        algorithms.bc.BC, "validate", lambda self: (torch.tensor(next(losses)), torch.zeros(()))
    )
    per_epoch = train("bc", settings=["max_epochs=1"]).updates
    losses = iter([0.5, 0.1, 0.9, 0.8])
    at_best = train("bc", settings=["max_epochs=2"], exp_name="best")
    losses = iter([0.5, 0.1, 0.9, 0.8])
    result = train("bc", steps=4 * per_epoch, exp_name="budget")
    assert result.updates == 4 * per_epoch
    assert learned(result.run_dir)["policy"] == learned(at_best.run_dir)["policy"]
