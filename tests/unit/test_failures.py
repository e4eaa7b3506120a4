"""What a run survives: full disks, numbers that are none, surprises."""

import errno
import logging
import os
import signal

import gymnasium
import numpy as np
import pytest
import torch

from rlfd.algorithms.rl.dqn import DQN
from rlfd.envs import EnvConfig
from rlfd.errors import Interrupted, RunFailed
from rlfd.experiments import checkpoint, run_dir, runner
from rlfd.experiments import train as training
from rlfd.experiments.config import resolve
from rlfd.experiments.run_dir import RunDir

from .tiny_runs import CARTPOLE, OPTIONS, SETTINGS, learned

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


def test_a_stop_in_a_periodic_evaluation(train, tmp_path, monkeypatch, undisturbed):
    """It is not waited for, and made again when the run goes on."""
    play, streams = runner.play_policy, []

    def stopped(*args, **kwargs):
        streams.append(kwargs["stream"])
        if len(streams) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return play(*args, **kwargs)

    monkeypatch.setattr(runner, "play_policy", stopped)
    with pytest.raises(Interrupted, match="checkpoint written"):
        train()
    monkeypatch.undo()
    assert len(streams) == 3
    run = RunDir(tmp_path / "runs/default/dqn/CartPole/seed0")
    assert run.status()["state"] == "interrupted"
    train(resume=True)
    assert learned(run) | {"eval": (run.path / "eval.csv").read_text()} == undisturbed


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
