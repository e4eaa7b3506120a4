"""A demonstrator that is asked: who can be, what is recorded of it, and what its labels become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import RUN, assert_refused, run_inside, snapshot

SMALL = (
    "--steps", 90, "--num-envs", 3, "--eval-every", 60, "--eval-episodes", 2, "--final-episodes", 2,
    "--checkpoint-every", 40, "--set", "batch_steps=30", "--set", "min_episodes=0",
    "--set", "batch_size=7", "--set", "hidden=5", "--set", "round_epochs=1",
)  # fmt: skip
DAGGER = ("train", "dagger", "--env", "CartPole", *SMALL)


def record(folder: str) -> dict:
    return json.loads((Path(folder) / "run.json").read_text())


def test_questions_are_counted_and_labels_are_kept(folder):
    outcome = run_inside(*DAGGER, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "asking the demonstrator 'controller'" in outcome.stderr
    assert (outcome.json["queries"], outcome.json["env_steps"]) == (90, 90)
    assert outcome.json["labels"] == "CartPole/dagger-seed0-v0"
    status = record(outcome.json["run"])
    assert status["demonstrator"]["policy"] == "controller"
    assert status["demonstrator"]["queries"] == status["labels"]["transitions"] == 90
    assert json.loads((Path(outcome.json["run"]) / "config.json").read_text())["demonstrator"] == (
        "controller"
    )
    shown = run_inside("show", "dagger-seed0").stdout
    assert "would have done" in shown
    assert "labelled by" in shown
    assert "queries 90" in run_inside("show", outcome.json["run"]).stdout
    # nobody gets them unasked, and nobody learns from what never came of them
    tiny = ("--final-episodes", 2, "--set", "max_epochs=2", "--set", "hidden=5")
    learned = run_inside("train", "bc", "--env", "CartPole", "--demos", "dagger-seed0", *tiny)
    assert learned.code == 0, learned.stderr
    assert_refused(
        run_inside("train", "sqil", "--env", "CartPole", "--demos", "dagger-seed0"),
        "never executed",
        "next_observations",
    )
    assert_refused(
        run_inside("demos", "mix", "dagger-seed0:0.5", "dagger-seed0:0.5", "--name", "m"),
        "never executed",
    )


@pytest.mark.parametrize("env", ["GridWorld", "Chain"])
def test_a_planner_can_be_asked(folder, env):
    outcome = run_inside("train", "dagger", "--env", env, *SMALL, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["queries"] == 90


def test_a_run_is_asked_at_its_checkpoint_and_must_stay_the_same(full_folder):
    command = (*DAGGER, "--demonstrator", f"{RUN}:201")
    outcome = run_inside(*command, "--json")
    assert outcome.code == 0, outcome.stderr
    config = json.loads((Path(outcome.json["run"]) / "config.json").read_text())
    assert config["demonstrator"] == f"{RUN.removeprefix('runs/')}:201"
    asked = record(outcome.json["run"])["demonstrator"]
    assert (asked["policy"], asked["algo"], asked["mode"]) == ("run", "dqn", "greedy")
    assert run_inside(*command, "--resume").code == 0  # and nothing is written twice
    assert [path.name for path in Path("data/demos/CartPole").glob("dagger*")] == [
        "dagger-seed0-v0"
    ]
    assert_refused(
        run_inside(*DAGGER, "--demonstrator", "controller", "--resume"), "demonstrator=", "--exp"
    )
    file = Path(outcome.json["run"]) / "run.json"
    changed = record(outcome.json["run"])
    changed["demonstrator"]["digest"] = "other"
    file.write_text(json.dumps(changed))
    assert_refused(run_inside(*command, "--resume"), "is not the one", "--overwrite")


CHEETAH = ("train", "dagger", "--env", "HalfCheetah", *SMALL)


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ((*DAGGER, "--demonstrator", "controller-v0"), ("cannot be asked", "controller, a policy")),
        ((*DAGGER, "--demonstrator", "random"), ("no most likely action", "controller")),
        ((*DAGGER, "--demonstrator", "nobody"), ("unknown run", "controller")),
        ((*DAGGER, "--demonstrator", "shipped"), ("CartPole", "controller")),
        ((*CHEETAH, "--demonstrator", RUN), ("trained on CartPole", "discrete there")),
        (("train", "dagger", "--env", "Acrobot", *SMALL), ("none comes with 'Acrobot'", "train")),
        (("train", "bc", "--env", "CartPole", "--demonstrator", "controller"), ("asks no", "drop")),
    ],
    ids=["dataset", "random", "unknown", "nothing shipped", "other spaces", "nobody", "not asking"],
)
def test_who_cannot_be_asked_is_refused(full_folder, command, texts):
    before = snapshot(full_folder)
    assert_refused(run_inside(*command), *texts)
    assert snapshot(full_folder) == before


def test_given_demonstrations_come_first(full_folder):
    outcome = run_inside(*DAGGER, "--demos", "controller", "--num-demos", 2, "--json")
    assert outcome.code == 0, outcome.stderr
    assert record(outcome.json["run"])["demos"]["transitions"] == 1000
    rows = (Path(outcome.json["run"]) / "train.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(last["dagger/queries"]) == outcome.json["queries"] == 90
