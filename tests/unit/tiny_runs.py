"""Runs that take a moment, for tests of the life of a run, and what is compared of them."""

from rlfd.envs import EnvConfig
from rlfd.experiments.report import NullReporter

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


def snapshot(folder):
    """Return every file below a folder, locks and logs aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "rlfd.log")
    }


def unfinish(run):
    """Let a finished run pass for one that was stopped in its final evaluation."""
    run.write_status(run.status() | {"state": "interrupted", "final": None})
    return run


def acknowledge(run):
    """Let what lies in a finished run's folder now pass for what it finished with."""
    run.write_status(run.status() | {"files": run.digests()})


def learned(run):
    """Return what a run has learned and recorded of its learning; evaluation and times aside."""
    newest = max(run.path.glob("checkpoints/resume_*"))
    return {
        "train": run.train().drop(columns=TIMES).to_csv(),
        "episodes": (run.path / "episodes.csv").read_text(),
        "tensors": (newest / "tensors.safetensors").read_bytes(),
        "policy": max(run.path.glob("checkpoints/policy_*")).read_bytes(),
    }
