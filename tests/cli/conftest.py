"""Running the program, inside this process for speed or as a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlfd.cli.main import app

# A run small enough for every test that needs one: two checkpoints, two evaluations.
TINY = (
    "--steps", 400, "--num-envs", 3, "--eval-every", 200, "--eval-episodes", 2,
    "--final-episodes", 3, "--checkpoint-every", 200, "--compile", "off",
    "--set", "learning_starts=50", "--set", "batch_size=7", "--set", "hidden=5,9",
)  # fmt: skip
DQN = ("train", "dqn", "--env", "CartPole", *TINY)
RUN = "runs/default/dqn/CartPole/seed0"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def run_inside(*arguments: object, input: str | None = None) -> Outcome:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def run_outside(*arguments: object, **options: Any) -> Outcome:
    """Run a command as a process of its own."""
    options = {"timeout": 60, "capture_output": True, "text": True, **options}
    result = subprocess.run(outside(*arguments), env=environment(), **options)
    return Outcome(result.returncode, result.stdout or "", result.stderr or "")


def outside(*arguments: object) -> list[str]:
    """Return a command line for `subprocess`."""
    return [sys.executable, "-m", "rlfd", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment variables for `subprocess`."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def assert_refused(outcome: Outcome, *texts: str, code: int = 2) -> None:
    """Check that a command ended with one clear message that holds every one of `texts`."""
    assert outcome.code == code, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert "this should not happen" not in outcome.stderr
    errors = re.findall(r"^error: .*$", outcome.stderr, re.MULTILINE)
    assert len(errors) == 1, outcome.stderr
    for text in texts:
        assert text in outcome.stderr, outcome.stderr


def unfinish(run: Path) -> None:
    """Let a finished run pass for one that was stopped in its final evaluation."""
    status = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(status | {"state": "interrupted", "final": None}))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("RLFD_RUNS_DIR", "RLFD_DATA_DIR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with a finished run and demonstrations, made once."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in (
            DQN,
            ("collect-demos", "--env", "CartPole", "--episodes", 4),
            ("collect-demos", "--env", "LunarLander", "--episodes", 3),
        ):
            outcome = run_inside(*command)
            assert outcome.code == 0, outcome.stderr
    return place


@pytest.fixture
def full_folder(folder, made):
    """The test's own copy of that folder."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder
