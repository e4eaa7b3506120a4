"""Inverse reinforcement learning in known finite environments, through the real commands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlfd import envs
from rlfd.envs import EnvConfig
from rlfd.envs.tabular import soft_policy
from rlfd.experiments import checkpoint
from rlfd.experiments.known import FEATURE_GAP, VALUE_GAP, measure_gaps
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
    """Against loops over states: the policy as it is saved, and the best one for its reward."""
    monkeypatch.chdir(trained)
    run = RunDir(trained / place("maxent-irl"))
    gaps = measure_gaps(run)
    known = envs.table(EnvConfig("SlipperyGridWorld", options={"size": 4, "horizon": 9, "pits": 2}))
    (path,) = checkpoint.list_policies(run.checkpoints).values()
    state = {name: value.numpy() for name, value in checkpoint.load_policy(path).items()}

    def visits(policy):
        at, total = known.start, 0.0
        for chosen in policy:
            joint = at[:, None] * chosen
            at, total = np.einsum("sa,sat->t", joint, known.transitions), total + joint
        return total

    def value(rewards):
        plan, following = [], np.zeros(16)
        for _ in range(9):
            q = rewards + known.transitions @ following
            plan.insert(0, np.eye(4)[q.argmax(axis=1)])
            following = q.max(axis=1)
        return (visits(plan) * known.rewards).sum()

    wanted, reached = (visits(p).sum(axis=1) for p in (soft_policy(known), state["policy"]))
    expected = np.linalg.norm(reached - wanted) / np.linalg.norm(wanted)
    assert gaps[FEATURE_GAP] == pytest.approx(expected)
    best = value(known.rewards)
    assert gaps[VALUE_GAP] == pytest.approx((best - value(state["rewards"])) / best, abs=1e-12)
    assert -1e-12 < gaps[VALUE_GAP] < 0.05


def test_a_method_that_plans_needs_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_inside("train", "maxent-irl", "--env", "CartPole")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nothing is known about those of 'CartPole'" in outcome.stderr
    assert "GridWorld, SlipperyGridWorld, Chain" in outcome.stderr.replace("\n", " ")
    assert not (tmp_path / "data").exists()  # nothing was collected first


def test_a_margin_problem_without_a_solution_is_explained(trained, monkeypatch):
    """One step from one state: two policies span all there are."""
    monkeypatch.chdir(trained)
    options = ("--env-option", "horizon=1", "--env-option", "length=2")
    words = ("train", "apprenticeship", "--env", "Chain", *options, "--exp-name", "hard", *SHORT)
    settings = ("--set", "solver=qp", "--set", "slack=0", "--set", "tolerance=0")
    outcome = run_inside(*words, *settings)
    assert outcome.code == 2
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
