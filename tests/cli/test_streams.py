"""Terminals that go away: output never stops a run."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from .conftest import DQN, RUN, environment, outside


@pytest.mark.parametrize(
    ("plumbing", "code"),
    [
        ("COMMAND <&- >&- 2>&-", 0),
        ("COMMAND >/dev/null 2>/dev/full", 0),
        ("(COMMAND --verbose 2>&1; echo $? >code) | head -1 >/dev/null; (exit $(cat code))", 1),
    ],
)
def test_a_run_goes_on_where_nobody_can_hear_it(folder, plumbing, code):
    command = shlex.join(outside(*DQN))
    done = subprocess.run(
        ["sh", "-c", plumbing.replace("COMMAND", command)], env=environment(), timeout=60
    )
    status = json.loads((folder / RUN / "run.json").read_text())
    assert (status["state"], status["error"]) == ("finished", None)
    assert done.returncode == code  # 1: its results did not get through
    assert (folder / RUN / "config.json").stat().st_size > 0
