"""MCPO: its step against a numerical solver, its loop, its limits TRPO and GMMIL."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize

from rlfd.algorithms.mcpo import constrained_step

# -- the step (eq 4) ------------------------------------------------------------------------------


class Instance:
    """One problem: maximise g·x subject to b·x + c ≤ 0 and ½ x·Hx ≤ δ."""

    def __init__(self, rng, kind):
        self.size = int(rng.integers(2, 9))
        root = rng.normal(size=(self.size, self.size))
        self.hessian = root @ root.T + 0.1 * np.eye(self.size)
        self.delta = 10.0 ** rng.uniform(-3, 0)
        self.g, self.b = rng.normal(size=(2, self.size))
        if kind.startswith("0"):
            self.b = np.zeros(self.size)
        if kind.startswith("2"):
            self.g = np.zeros(self.size)
        if kind in ("5", "4 opposite"):
            self.g = self.b * rng.uniform(0.1, 3.0) * (1 if kind == "5" else -1)
        self.w = np.linalg.solve(self.hessian, self.b)
        self.u = np.linalg.solve(self.hessian, self.g)
        self.q, self.p, self.s = self.g @ self.u, self.g @ self.w, self.b @ self.w
        reach = math.sqrt(2.0 * self.delta * self.s)  # the most that b·x can be
        low, high = {
            "0a": (-1.0, 0.0),
            "0b": (0.1, 1.0),
            "1": (1.01 * reach, 3.0 * reach),
            "2a": (-2.0 * reach, -0.01 * reach),
            "2b": (0.01 * reach, 0.99 * reach),
            "3": (-3.0 * reach, -1.01 * reach),
            "5": (-0.99 * reach, 0.99 * reach),
            "4 opposite": (-0.99 * reach, 0.99 * reach),
            "any": (-1.5 * reach, 1.5 * reach),
        }[kind]
        self.c = rng.uniform(low, high)

    def step(self, **options):
        return constrained_step(self.q, self.p, self.s, self.c, self.delta, **options)

    def x(self, step):
        return step.on_u * self.u + step.on_w * self.w

    def solve_numerically(self, rng):
        """Return the best objective of SLSQP from three starts, in coordinates where H = 1."""
        root = np.linalg.cholesky(self.hessian)
        g, b = np.linalg.solve(root, self.g), np.linalg.solve(root, self.b)
        best = -math.inf
        for _ in range(3):
            result = minimize(
                lambda y: -g @ y,
                rng.normal(size=self.size) * math.sqrt(self.delta / self.size),
                jac=lambda y: -g,
                method="SLSQP",
                constraints=[
                    {"type": "ineq", "fun": lambda y: -(b @ y + self.c), "jac": lambda y: -b},
                    {"type": "ineq", "fun": lambda y: self.delta - y @ y / 2, "jac": lambda y: -y},
                ],
                options={"maxiter": 300, "ftol": 1e-14},
            )
            y = result.x
            feasible = max(b @ y + self.c, y @ y / 2 - self.delta) <= 1e-7
            if feasible:
                best = max(best, float(g @ y))
        return best


def instances(kind, count, seed=0):
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    return [Instance(rng, kind) for _ in range(count)], rng


ALL_KINDS = ("0a", "0b", "1", "2a", "2b", "3", "5", "4 opposite", "any")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_degenerate_instances_fall_into_their_case(kind):
    cases = Counter(instance.step().case for instance in instances(kind, 40)[0])
    if kind == "any":
        assert {"1", "3", "4", "6"} <= cases.keys()
    else:
        assert cases.keys() == {kind.split()[0]}


@pytest.mark.parametrize("kind", sorted(set(ALL_KINDS) - {"0b", "1"}))
def test_the_step_is_feasible_and_as_good_as_a_numerical_solvers(kind):
    problems, rng = instances(kind, 250 if kind == "any" else 30)
    for problem in problems:
        step = problem.step()
        if step.case == "1":
            continue
        x = problem.x(step)
        assert problem.b @ x + problem.c <= 1e-9
        assert 0.5 * x @ problem.hessian @ x <= problem.delta * (1 + 1e-9)
        reached = problem.solve_numerically(rng)
        assert problem.g @ x == pytest.approx(reached, rel=1e-5, abs=1e-7), step.case


@pytest.mark.parametrize("kind", sorted(set(ALL_KINDS) - {"0b", "1"}))
def test_multipliers_satisfy_the_optimality_conditions(kind):
    for problem in instances(kind, 300)[0]:
        step = problem.step()
        if step.case == "1":
            continue
        x, (lam, nu) = problem.x(step), (step.lam, step.nu)
        assert lam >= 0.0
        assert nu >= -1e-9
        stationarity = problem.g - nu * problem.b - lam * problem.hessian @ x
        if step.case != "2b":  # the gradient of 0 leaves the shortest of many solutions
            np.testing.assert_allclose(stationarity, 0.0, atol=1e-8 * (1 + np.abs(problem.g).max()))
        scale = 1.0 + abs(problem.g @ x)
        assert abs(lam * (0.5 * x @ problem.hessian @ x - problem.delta)) <= 1e-9 * scale
        assert abs(nu * (problem.b @ x + problem.c)) <= 1e-9 * scale
        if lam > 0.0:  # strong duality
            q, p, s = problem.q, problem.p, problem.s
            dual = (q - 2 * nu * p + nu**2 * s) / (2 * lam) - nu * problem.c + lam * problem.delta
            assert dual == pytest.approx(problem.g @ x, rel=1e-8, abs=1e-9)


def test_the_recovery_step_has_its_own_radius_and_lowers_the_constraint_most():
    for problem in instances("1", 30)[0]:
        for options, radius in (({}, problem.delta), ({"recovery_delta": 0.3}, 0.3)):
            x = problem.x(problem.step(**options))
            assert 0.5 * x @ problem.hessian @ x == pytest.approx(radius)
            assert problem.b @ x == pytest.approx(-math.sqrt(2 * radius * problem.s))


def test_the_opposite_reward_turns_round_the_rewards_part_only():
    seen = Counter()
    for problem in instances("any", 300, seed=1)[0]:
        step, mirror = problem.step(), Instance.__new__(Instance)
        mirror.__dict__ |= problem.__dict__ | {
            "g": -problem.g,
            "u": -problem.u,
            "p": -problem.p,
        }
        opposite = mirror.step()
        x, y = problem.x(step), mirror.x(opposite)
        if step.case == opposite.case:
            seen[step.case] += 1
            restoring = {"1": 2 * x, "6": -2 * problem.c / problem.s * problem.w}
            np.testing.assert_allclose(x + y, restoring.get(step.case, 0.0 * x), atol=1e-9)
    assert {"1", "3", "6"} <= seen.keys()


def test_the_shortest_restoring_step_needs_no_reward_gradient():
    step = constrained_step(0.0, 0.0, 4.0, 0.2, 0.01)
    assert (step.case, step.on_u, step.on_w) == ("2b", 0.0, -0.05)


def test_boundaries_and_infinities_divide_by_nothing():
    for q in (0.0, 2.0):
        for s in (0.0, 2.0):
            for c in (-math.inf, -0.2, 0.0, 0.2, math.inf):
                step = constrained_step(q, 0.0, s, c, 0.01)  # 0.2² / 2 = 2δ
                numbers = (step.on_u, step.on_w, step.lam, step.nu)
                assert all(map(math.isfinite, numbers)), (q, s, c)
                if c == -math.inf and q > 0.0:
                    assert numbers == (0.1, 0.0, 10.0, 0.0)  # TRPO's step
