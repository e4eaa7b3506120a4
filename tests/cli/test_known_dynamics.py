"""Inverse reinforcement learning in known finite environments, through the real commands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlfd import envs
from rlfd.algorithms.core.tabular import Dynamics, occupancy
from rlfd.envs import EnvConfig
from rlfd.experiments.known import FEATURE_GAP, VALUE_GAP, measure_gaps
from rlfd.experiments.problem import tabular_model
from rlfd.experiments.run_dir import RunDir

from .conftest import run_inside

OPTIONS = ("--env-option", "size=4", "--env-option", "horizon=9", "--env-option", "pits=2")
SHORT = ("--final-episodes", 3, "--no-progress")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of each method, from demonstrations that the commands made themselves."""
    folder = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for algo in ("maxent-irl", "apprenticeship"):
            outcome = run_inside("train", algo, "--env", "SlipperyGridWorld", *OPTIONS, *SHORT)
            assert outcome.code == 0, outcome.stderr
        outcome = run_inside("train", "maxent-irl", "--env", "Chain", *SHORT)
        assert outcome.code == 0, outcome.stderr
    return folder


def place(algo, env="SlipperyGridWorld"):
    return f"runs/default/{algo}/{env}/seed0"


@pytest.mark.parametrize("algo", ["maxent-irl", "apprenticeship"])
def test_the_picture_shows_what_was_learned(trained, monkeypatch, algo):
    monkeypatch.chdir(trained)
    outcome = run_inside("plot", place(algo), "--out", f"{algo}.svg", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["figure"] == f"{algo}.svg"
    for title in ("true reward", "recovered reward", "demonstrations", "learned policy"):
        assert title in (trained / f"{algo}.svg").read_text()
    data = pd.read_csv(trained / f"{algo}.csv", comment="#")
    table = envs.table(EnvConfig("SlipperyGridWorld", options={"size": 4, "horizon": 9, "pits": 2}))
    assert len(data) == 64
    np.testing.assert_allclose(data["true_reward"], table.rewards.ravel())
    for column in ("visits", "demonstrated_visits"):
        assert data[column].sum() == pytest.approx(9)  # steps of an episode
    cells = data.groupby("state")["visits"].sum()
    own = data[data["state"] == 5]
    expected = own["visits"].to_numpy() @ table.moves / cells[5]
    np.testing.assert_allclose(own[["move_right", "move_down"]].iloc[0], expected)


def test_the_picture_of_a_chain_has_a_row_for_each_action(trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert run_inside("plot", place("maxent-irl", "Chain"), "--out", "chain.svg").code == 0
    assert "ahead" in (trained / "chain.svg").read_text()


def test_several_runs_and_other_axes_are_drawn_as_usual(trained, monkeypatch):
    monkeypatch.chdir(trained)
    outcome = run_inside("plot", place("maxent-irl"), "--metric", "return", "--out", "curve.csv")
    assert outcome.code == 2
    assert "known formats" in outcome.stderr
    outcome = run_inside("plot", "runs", "--x", "num-demos", "--out", "numbers.png")
    assert outcome.code == 0, outcome.stderr
    assert "recovered_reward" not in (trained / "numbers.csv").read_text()


def test_gaps_are_those_of_the_table(trained, monkeypatch):
    monkeypatch.chdir(trained)
    gaps = measure_gaps(RunDir(trained / place("maxent-irl")))
    assert 0 <= gaps[VALUE_GAP] < 0.05
    assert 0 < gaps[FEATURE_GAP] < 0.1
    known = envs.table(EnvConfig("SlipperyGridWorld", options={"size": 4, "horizon": 9, "pits": 2}))
    uniform = np.full((9, 16, 4), 0.25)
    idle = occupancy(Dynamics(tabular_model(known)), uniform).sum(axis=0)
    assert idle.sum() == pytest.approx(9)


def test_a_method_that_plans_needs_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_inside("train", "maxent-irl", "--env", "CartPole")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nothing is known about those of 'CartPole'" in outcome.stderr
    assert "GridWorld, SlipperyGridWorld, Chain" in outcome.stderr.replace("\n", " ")
    assert not (tmp_path / "data").exists()  # nothing was collected first


def test_a_margin_problem_without_a_solution_is_explained(trained, monkeypatch):
    """The only policy of one state and step is the demonstrator's, so no margin is left."""
    monkeypatch.chdir(trained)
    words = ("train", "apprenticeship", "--env", "Chain", "--exp-name", "hard", *SHORT)
    settings = ("--set", "solver=qp", "--set", "slack=0", "--set", "tolerance=0")
    outcome = run_inside(*words, *settings, "--set", "max_iterations=3000")
    assert outcome.code in (1, 2)
    assert "no solution without slack" in outcome.stderr
    assert "--set slack=1" in outcome.stderr


def test_other_methods_learn_in_the_grid_too(trained, monkeypatch):
    monkeypatch.chdir(trained)
    outcome = run_inside(
        "train", "bc", "--env", "SlipperyGridWorld", *OPTIONS, "--set", "max_epochs=2",
        "--set", "hidden=7", *SHORT, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert np.isfinite(outcome.json["return_mean"])
