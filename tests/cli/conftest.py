"""Running the program, inside this process for speed or as the installed command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from rlfd.cli.main import app


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("RLFD_RUNS_DIR", "RLFD_DATA_DIR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run_inside(*arguments: object, input: str | None = None) -> Outcome:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def run_outside(*arguments: object, **options: Any) -> Outcome:
    """Run a command as a process of its own."""
    options = {"timeout": 60, "capture_output": True, "text": True, **options}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlfd", *map(str, arguments)]
    result = subprocess.run(command, env=environment, **options)
    return Outcome(result.returncode, result.stdout or "", result.stderr or "")


def assert_refused(outcome: Outcome, *texts: str, code: int = 2) -> None:
    """Check that a command ended with one clear message that holds every one of `texts`."""
    assert outcome.code == code, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert "unexpected" not in outcome.stderr
    errors = re.findall(r"^error: .*$", outcome.stderr, re.MULTILINE)
    assert len(errors) == 1, outcome.stderr
    for text in texts:
        assert text in outcome.stderr, outcome.stderr


def snapshot(folder) -> dict[str, bytes]:
    """Return the content of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
