"""Environments of other people on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import odd_behaviour
import pytest

from .conftest import assert_refused, run_inside, run_outside

TINY = (
    "--steps", 60, "--num-envs", 3, "--eval-episodes", 2, "--final-episodes", 2, "--compile", "off",
    "--set", "learning_starts=20", "--set", "batch_size=7", "--set", "hidden=5,9",
)  # fmt: skip


@pytest.fixture(autouse=True)
def found_by_others(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(odd_behaviour.__file__).parent))


def odd(name):
    return ("--env", f"odd_behaviour:Odd/{name}")


def test_what_an_environment_prints_is_no_result():
    outcome = run_outside(
        "collect-demos", *odd("Prints"), "--policy", "random", "--episodes", 3, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["transitions"] == 3 * odd_behaviour.LIMIT
    assert outcome.stderr.count("from Python") == outcome.stderr.count("from C") > 20
