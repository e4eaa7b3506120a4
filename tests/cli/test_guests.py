"""Environments of other people on the command line."""

from __future__ import annotations

import json
import re
import shutil
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


def test_a_run_says_what_is_wrong_with_its_environment_and_goes_on_when_asked(folder):
    command = ("train", "dqn", *odd("IgnoresSeedInReward"), *TINY, "--eval-every", 0)
    outcome = run_inside(*command, "--checkpoint-every", 30)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("ignores its seed") == 1
    (run,) = folder.glob("runs/default/dqn/*/seed0")
    status = json.loads((run / "run.json").read_text())
    assert "gave other rewards" in status["warnings"][0]
    assert not status["repeatable"]

    (run / "run.json").write_text(json.dumps(status | {"state": "interrupted", "final": None}))
    for newest in sorted(run.glob("checkpoints/resume_*"))[1:]:
        shutil.rmtree(newest)
    assert_refused(run_inside(*command, "--resume"), "its rewards were others", "--fresh-resets")
    outcome = run_inside(*command, "--resume", "--fresh-resets")
    assert outcome.code == 0, outcome.stderr
    warnings = json.loads((run / "run.json").read_text())["warnings"]
    assert "from 30 on it was continued from fresh resets" in warnings[-1]
    rows = (run / "episodes.csv").read_text().splitlines()
    assert len(rows) == 1  # replayed, the episodes would have ended after 13 steps of 3


def test_fresh_resets_are_for_a_run_that_is_continued():
    outcome = run_inside("train", "dqn", *odd("Point"), *TINY, "--fresh-resets")
    assert_refused(outcome, "--fresh-resets is for a run that is continued")


def test_a_run_whose_environment_breaks_off(folder, monkeypatch):
    """It keeps what it learned, and says where it was and how to go on."""
    monkeypatch.setattr(odd_behaviour.Breaks, "steps", -200)  # not while it is tried
    monkeypatch.setattr(odd_behaviour.Breaks, "breaks_at", -120)
    command = ("train", "dqn", *odd("Breaks"), *TINY, "--eval-every", 0)
    outcome = run_inside(*command, "--checkpoint-every", 12)
    assert_refused(
        outcome, "raised ConnectionError in", "odd_behaviour.py, line", "the newest checkpoint",
        "continue with: rlfd train dqn", code=1,
    )  # fmt: skip
    (run,) = folder.glob("runs/default/dqn/*/seed0")
    assert json.loads((run / "run.json").read_text())["state"] == "failed"
    assert list(run.glob("checkpoints/policy_*"))
    outcome = run_inside(*command, "--resume")
    assert outcome.code == 0, outcome.stderr


def test_one_instance_is_enough_for_a_whole_run(folder):
    evaluated = ("--eval-every", 20, "--checkpoint-every", 20, "--overwrite", "--yes")
    rows = []
    for name in ("Point", "Single"):
        outcome = run_inside("train", "dqn", *odd(name), *TINY, *evaluated, "--num-envs", 1)
        assert outcome.code == 0, outcome.stderr
        (run,) = folder.glob(f"runs/default/dqn/*{name}/seed0")
        rows.append([(run / file).read_text() for file in ("eval.csv", "episodes.csv")])
    assert rows[0] == rows[1]
    assert odd_behaviour.Single.there == 0


def test_episodes_without_a_limit_are_cut_where_one_says(folder):
    limit = ("--max-episode-steps", 7)
    outcome = run_inside(
        "collect-demos", *odd("Endless"), "--policy", "random", "--episodes", 3, *limit, "--json"
    )
    assert outcome.json["transitions"] == 21
    outcome = run_inside("train", "bc", *odd("Endless"), *TINY[:2], *TINY[4:10], *limit)
    assert outcome.code == 0, outcome.stderr
    (run,) = folder.glob("runs/default/bc/*/seed0")
    outcome = run_inside("evaluate", run, "--episodes", 2, "--max-episode-steps", 5, "--json")
    assert outcome.json["length_mean"] == 5
    outcome = run_inside("train", "bc", "--env", "CartPole", *limit)
    assert_refused(outcome, "unknown option of CartPole 'max_episode_steps'")


def test_the_first_figure_of_an_own_environment_is_a_curve(folder):
    outcome = run_inside("train", "dqn", *odd("Point"), *TINY)
    assert outcome.code == 0, outcome.stderr
    (run,) = folder.glob("runs/default/dqn/*/seed0")
    rows = [row.split(",") for row in (run / "eval.csv").read_text().splitlines()]
    at = sorted({int(row[0]) for row in rows if row[1] == "periodic"})
    assert at == list(range(0, 61, 3))


def test_what_a_method_without_env_steps_was_evaluated_after(folder):
    collect = ("collect-demos", *odd("Point"), "--policy", "random", "--episodes", 3)
    assert run_inside(*collect).code == 0
    train = ("train", "bc", *odd("Point"), "--steps", 21, *TINY[4:8])
    assert run_inside(*train).code == 0
    (run,) = folder.glob("runs/default/bc/*/seed0")
    assert "after 21 updates" in run_inside("evaluate", run, "--episodes", 2).stdout
    shown = run_inside("show", run).stdout
    assert re.search(r"env steps +0\n", shown)
    assert re.search(r"updates +21 of 21\n", shown)
