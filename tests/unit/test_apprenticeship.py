"""Apprenticeship learning: margins, hulls, the quadratic programme, and the mixture as a policy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from rlfd.algorithms.apprenticeship import (
    Apprenticeship,
    margin_weights,
    nearest_mixture,
    project,
)
from rlfd.algorithms.core.tabular import Dynamics, causal_policy, occupancy
from rlfd.errors import RlfdError

from .test_maxent_irl import build, finish, sample
from .test_tabular_planning import make_model


@pytest.fixture
def shown():
    model = make_model(7, 3, 9, seed=1)
    policy, _ = causal_policy(Dynamics(model), 3 * model.features.numpy()[..., 0])
    return model, sample(model, policy, 50)


def test_projection_by_hand():
    origin, target = np.zeros(2), np.array([2.0, 1.0])
    np.testing.assert_allclose(project(origin, np.array([4.0, 0.0]), target), [2.0, 0.0])
    np.testing.assert_allclose(project(origin, np.array([1.0, 0.0]), target), [1.0, 0.0])  # clipped
    np.testing.assert_allclose(project(origin, np.array([-1.0, 0.0]), target), origin)
    np.testing.assert_allclose(project(origin, origin, target), origin)


def test_the_nearest_mixture_by_hand():
    """A triangle above the origin: the nearest point is on its lower side."""
    corners = np.array([[-1.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    np.testing.assert_allclose(nearest_mixture(corners), [0.75, 0.25, 0.0], atol=1e-12)
    inside = nearest_mixture(np.array([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(inside, [0.25, 0.25, 0.5], atol=1e-9)


def test_margins_by_hand():
    """One policy at distance 5: without slack ψ has margin 5 / 5 = 1, with it α is cut at C."""
    difference = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(margin_weights(difference, 0.0), [0.6, 0.8], atol=1e-9)
    np.testing.assert_allclose(margin_weights(difference, 1.0), [0.6, 0.8], atol=1e-9)
    np.testing.assert_allclose(margin_weights(difference, 0.1), [0.3, 0.4], atol=1e-9)


@pytest.mark.parametrize("slack", [0.0, 0.02, 1.0])
def test_the_dual_solves_the_margin_problem(slack):
    """Against a general solver of the primal."""
    differences = np.random.default_rng(0).normal(size=(5, 3)) + 2.0
    losses = np.linalg.norm(differences, axis=1)

    def primal(x):
        return 0.5 * x[:3] @ x[:3] + slack * x[3:].sum()

    room = 0.0 if slack == 0 else np.inf
    found = optimize.minimize(
        primal,
        np.append(np.ones(3), np.full(5, min(room, 9.0))),
        bounds=[(None, None)] * 3 + [(0, room)] * 5,
        constraints={"type": "ineq", "fun": lambda x: differences @ x[:3] - losses + x[3:]},
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert found.success
    np.testing.assert_allclose(margin_weights(differences, slack), found.x[:3], atol=1e-5)


def test_without_slack_there_may_be_no_solution():
    around = np.array([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]])
    assert np.isfinite(margin_weights(around, 1.0)).all()
    with pytest.raises(RlfdError, match="no solution without slack") as error:
        margin_weights(around, 0.0)
    assert "--set slack=1" in error.value.hint


@pytest.mark.parametrize("solver", ["projection", "qp"])
def test_margins_do_not_grow_and_the_mixture_is_in_the_hull(shown, solver):
    algorithm = build(*shown, cls=Apprenticeship, solver=solver, tolerance=0.0, max_iterations=30)
    margins = [algorithm.margin]
    while not algorithm.finished:
        metrics = {name: float(value) for name, value in algorithm.iteration(None).items()}
        margins.append(metrics["gap/margin"])
        assert metrics["gap/mixture"] <= metrics["gap/margin"] + 1e-9
        assert metrics["gap/mixture"] <= metrics["gap/best"] + 1e-9
        mixed = algorithm.weights @ algorithm.expectations
        gap = algorithm.target - mixed
        assert abs(algorithm.psi @ gap) <= np.linalg.norm(algorithm.psi) * margins[-1] + 1e-9
        if solver == "projection":  # μ̄ lies in the hull of what was found
            distance = nearest_mixture(algorithm.point - algorithm.expectations)
            point = distance @ algorithm.expectations
            np.testing.assert_allclose(point, algorithm.point, atol=1e-6)
    assert (np.diff(margins) <= 1e-9).all()
    assert margins[-1] < 0.25 * margins[0]
    assert algorithm.weights.sum() == pytest.approx(1)
    assert (algorithm.weights >= 0).all()


def test_both_solvers_come_equally_near(shown):
    gaps = [
        finish(build(*shown, cls=Apprenticeship, solver=solver, max_iterations=200))["gap/mixture"]
        for solver in ("projection", "qp")
    ]
    assert abs(gaps[0] - gaps[1]) <= 0.01  # ε


def test_a_demonstrator_among_the_policies_leaves_no_margin(shown):
    algorithm = build(*shown, cls=Apprenticeship)
    algorithm.iteration(None)
    algorithm.target = algorithm.point = algorithm.expectations[1]
    assert float(algorithm._measure()["gap/mixture"]) < 1e-9
    assert algorithm.finished
    algorithm.config = Apprenticeship.Config(solver="qp", slack=0.0, tolerance=0.0)
    with pytest.raises(RlfdError, match="no solution without slack"):
        algorithm.iteration(None)


def test_the_policy_visits_what_the_mixture_visits(shown):
    """Drawing one member for each episode and acting without memory are the same."""
    algorithm = build(*shown, cls=Apprenticeship, max_iterations=9)
    finish(algorithm)
    assert (algorithm.weights > 0).sum() > 2
    eye = np.eye(3)
    expected = sum(
        weight * occupancy(algorithm.dynamics, eye[member])
        for weight, member in zip(algorithm.weights, algorithm.members, strict=True)
    )
    reached = occupancy(algorithm.dynamics, algorithm.policy)
    np.testing.assert_allclose(reached, expected, atol=1e-12)
    np.testing.assert_allclose(algorithm.policy.sum(axis=2), 1, atol=1e-12)
    pairs = np.tensordot(0.95 ** np.arange(9), reached, axes=1)
    np.testing.assert_allclose(
        np.einsum("sa,saf->f", pairs, shown[0].features.numpy()),
        algorithm.weights @ algorithm.expectations,
        atol=1e-10,
    )


def test_where_no_member_goes_members_vote():
    model = make_model(4, 3, 5, seed=2)
    model.transitions[..., 3] = 0.0  # nothing leads there
    model.transitions[:] /= model.transitions.sum(dim=2, keepdim=True)
    model.start[3] = 0.0
    model.start[:] /= model.start.sum()
    policy = np.full((5, 4, 3), 1 / 3)
    algorithm = build(model, sample(model, policy, 20), cls=Apprenticeship, max_iterations=4)
    finish(algorithm)
    votes = sum(
        weight * np.eye(3)[member[:, 3]]
        for weight, member in zip(algorithm.weights, algorithm.members, strict=True)
    )
    np.testing.assert_allclose(algorithm.policy[:, 3], votes, atol=1e-12)


def test_the_newest_policy_is_the_best_for_the_reward(shown):
    model, demos = shown
    algorithm = build(model, demos, cls=Apprenticeship)
    for _ in range(3):
        algorithm.iteration(None)
    seen, actions = demos.observations.numpy()[:9], demos.actions.numpy()[:9]
    paid = algorithm.reward(seen, actions, seen, np.zeros(9, bool))
    states = seen[:, :-1].argmax(axis=1)
    np.testing.assert_allclose(
        paid, model.features.numpy()[states, actions] @ algorithm.psi, atol=1e-12
    )
    worth = algorithm.expectations @ algorithm.psi
    assert worth.argmax() == len(worth) - 1
