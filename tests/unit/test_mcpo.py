"""MCPO: its step against a numerical solver, its loop, its limits TRPO and GMMIL."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.trust_region import LocalModel
from rlfd.algorithms.mcpo import Step, constrained_step
from rlfd.algorithms.presets import PRESETS

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


# -- the loop (Alg. 1) ----------------------------------------------------------------------------

SMALL = {"batch_steps": 45, "value_batch_size": 15, "value_epochs": 2}
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))


def parameters_after(algorithm, world, iterations):
    """Return the policy after each iteration, and the metrics."""
    metrics, policies = [], []
    for _ in range(iterations):
        metrics.append({key: float(value) for key, value in algorithm.iteration(world).items()})
        policies.append(algorithm.policy_state())
    return policies, metrics


def continuous(make_demos):
    actions = torch.rand(17, 2, generator=torch.Generator().manual_seed(5))
    demos = make_demos(actions=actions * torch.tensor([2.0, 3.0]) - torch.tensor([1.0, 0.0]))
    return {"action": CONTINUOUS, "demos": demos}


def cases(metrics):
    return [next(key for key in row if key.startswith("case/") and row[key]) for row in metrics]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("d0", [2.0, 9.0])
def test_without_a_constraint_it_is_trpo_bit_for_bit(
    make_algorithm, make_demos, noise_world, kind, d0
):
    options = SMALL | {"gamma": 0.9, "gae_lambda": 0.8, "entropy_weight": 0.01}
    problem = continuous(make_demos) if kind == "continuous" else {}
    mcpo = make_algorithm("mcpo", d0=d0, epsilon=0.0, **options, **problem)
    trpo = make_algorithm("trpo", **options, action=problem.get("action"))
    (found, metrics), (expected, trpo_metrics) = (
        parameters_after(algorithm, noise_world(), 5) for algorithm in (mcpo, trpo)
    )
    assert set(cases(metrics)) == {"case/3"}
    for one, two in zip(found, expected, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    for one, two in zip(metrics, trpo_metrics, strict=True):
        assert {key: one[key] for key in two} == two
    assert any(not torch.equal(found[0][key], found[-1][key]) for key in found[0])


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_without_reward_and_tolerance_it_goes_where_gmmil_goes(
    float64, make_algorithm, make_demos, noise_world, kind
):
    options = SMALL | {"gamma": 0.9, "gae_lambda": 0.8}
    options |= {"kernel": "gmmil", "bandwidth_rollouts": 1}
    options |= continuous(make_demos) if kind == "continuous" else {}
    matched = {"d0": 0.0, "recovery_radius": 1.0, "gamma_f": 0.9, "lambda_f": 0.8}
    mcpo = make_algorithm("mcpo", **matched, **options)
    gmmil = make_algorithm("gmmil", **options)
    mcpo.witness_value.load_state_dict(gmmil.learner.value.state_dict())
    start = mcpo.policy_state()
    (found, metrics), (expected, _) = (
        parameters_after(algorithm, noise_world(reward=0.0), 1) for algorithm in (mcpo, gmmil)
    )
    assert cases(metrics) == ["case/1"]
    for key in found[0]:
        torch.testing.assert_close(found[0][key], expected[0][key], rtol=1e-6, atol=1e-8)
    assert not torch.equal(start["body.0.weight"], found[0]["body.0.weight"])


def test_a_batch_without_reward_has_no_advantage(make_algorithm, noise_world):
    mcpo = make_algorithm("mcpo", d0=9.0, **SMALL)
    start = mcpo.policy_state()
    (*_, after), metrics = parameters_after(mcpo, noise_world(reward=0.0), 3)
    for key in ("log_std", "body.0.weight", "body.2.bias"):
        assert torch.equal(after[key], start[key])
    assert set(cases(metrics)) == {"case/2a"}
    assert [row["mcpo/searched"] for row in metrics] == [0.0] * 3


def test_how_well_v_explains_a_batch_without_reward_is_still_told(make_algorithm, noise_world):
    mcpo, world = make_algorithm("mcpo", d0=9.0, **SMALL), noise_world()
    for _ in range(3):
        mcpo.iteration(world)  # V is not 0 any more
    estimate, estimated = mcpo.learner.value.estimate, []

    def noting(*args, **options):
        estimated.append(estimate(*args, **options))
        return estimated[-1]

    mcpo.learner.value.estimate, world.reward = noting, 0.0
    metrics = mcpo.iteration(world)
    (of_reward,) = estimated
    left = of_reward.advantages.var(correction=0) / of_reward.targets.var(correction=0)
    assert metrics["value/explained_variance"].item() == pytest.approx(1.0 - left.item())
    assert metrics["value/explained_variance"] < 0.9
    assert metrics["case/2a"] == 1.0


@pytest.mark.parametrize(("d0", "at_last"), [(0.3, 2.0), (0.0, 0.0)])
def test_a_tolerance_may_grow_without_end(make_algorithm, d0, at_last):
    mcpo = make_algorithm("mcpo", d0=d0, epsilon=1.0, **SMALL)
    mcpo.growths = 5_000  # 2^5000 is no float
    assert mcpo.tolerance == at_last


def test_the_papers_tolerance_grows_by_a_schedule(make_algorithm, noise_world):
    paper = PRESETS["mcpo", "paper", None].algorithm
    mcpo = make_algorithm("mcpo", d0=0.3, epsilon=0.25, d_max=0.5, **SMALL | paper)
    _, metrics = parameters_after(mcpo, noise_world(reward=0.0), 5)
    expected = [0.3, 0.3 * 1.25, 0.3 * 1.25**2, 0.5, 0.5]
    assert [row["mmd/tolerance"] for row in metrics] == pytest.approx(expected)
    violations = [row["mmd/estimate"] - row["mmd/tolerance"] for row in metrics]
    assert [row["mmd/violation"] for row in metrics] == pytest.approx(violations)


class PayingWorld:
    """A world that pays what it is told for each episode, at its end."""

    def __init__(self, world):
        self.world, self.paid = world, 0.0

    def __getattr__(self, name):
        return getattr(self.world, name)

    def step(self, actions):
        step = self.world.step(actions)
        ended = step.terminated | step.truncated
        return dataclasses.replace(step, learner_rewards=np.where(ended, self.paid, 0.0))


@pytest.mark.parametrize("resumed", [False, True])
def test_the_tolerance_grows_only_while_the_return_does(make_algorithm, noise_world, resumed):
    options = {"d0": 0.3, "epsilon": 0.25, "d_max": 9.0, **SMALL}
    mcpo, world = make_algorithm("mcpo", **options), PayingWorld(noise_world())
    grown = []
    for paid in (0, 0, 0, 1, 2, 2, 0, 0, 1, 9):
        world.paid = paid
        before = mcpo.tolerance
        mcpo.iteration(world)
        grown.append(round(mcpo.tolerance / before, 6))
        if resumed:
            state, mcpo = mcpo.state_dict(), make_algorithm("mcpo", **options)
            mcpo.load_state_dict(state)
    # the smoothed return: 0, 0, 0, 0.1, 0.29, 0.461, 0.415, 0.373, 0.436, 1.29
    rises = [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]
    assert grown == [1.25 if rise else 1.0 for rise in rises]


def test_where_nothing_is_paid_the_tolerance_stays(make_algorithm, noise_world):
    mcpo = make_algorithm("mcpo", d0_rel=0.4, epsilon=0.25, **SMALL)
    _, metrics = parameters_after(mcpo, noise_world(reward=0.0), 7)
    assert {row["mmd/tolerance"] for row in metrics} == {metrics[0]["mmd/tolerance"]}


def test_pairs_have_a_share_of_the_gradient(make_algorithm, noise_world, monkeypatch):
    """c is the MMD of the whole horizon; what is done before a fall is only a part of it."""
    mcpo, seen = make_algorithm("mcpo", d0=0.5, **SMALL), []
    estimate, search = mcpo._estimate_witness, mcpo._search

    def estimating(rollout, imitation):
        seen.append((imitation, estimate(rollout, imitation)))
        return seen[-1][1]

    def searching(local, step, x, advantages, mimicry, mmd):
        seen.append(mimicry)
        return search(local, step, x, advantages, mimicry, mmd)

    monkeypatch.setattr(mcpo, "_estimate_witness", estimating)
    monkeypatch.setattr(mcpo, "_search", searching)
    metrics = mcpo.iteration(noise_world())
    (imitation, witness), mimicry = seen
    matching = mcpo.matching
    share = 45 / matching._weights.sum().item()
    assert share < 0.7
    assert imitation.mismatch.share.item() == pytest.approx(share)
    assert metrics["mmd/absorbing"].item() == pytest.approx(1.0 - share)
    torch.testing.assert_close(mimicry, share * witness.advantages.flatten())


def test_the_first_tolerance_is_relative_to_the_first_rollout(make_algorithm, noise_world):
    mcpo = make_algorithm("mcpo", d0_rel=0.4, epsilon=0.0, **SMALL)
    _, metrics = parameters_after(mcpo, noise_world(), 3)
    expected = 0.4 * metrics[0]["mmd/estimate"]
    assert [row["mmd/tolerance"] for row in metrics] == pytest.approx([expected] * 3)
    absolute = make_algorithm("mcpo", d0_rel=0.4, d0=0.0, **SMALL)
    assert parameters_after(absolute, noise_world(), 1)[1][0]["mmd/tolerance"] == 0.0


def test_it_promises_a_change_and_reports_what_came_of_it(make_algorithm, noise_world):
    mcpo = make_algorithm("mcpo", d0=0.0, bandwidth_rollouts=1, **SMALL)
    _, metrics = parameters_after(mcpo, noise_world(), 4)
    assert metrics[0]["mmd/predicted_change"] == metrics[0]["mmd/actual_change"] == 0.0
    for before, after in pairwise(metrics):
        assert after["mmd/predicted_change"] < 0.0  # each recovery step promises to help
        change = after["mmd/estimate"] - before["mmd/estimate"]
        assert after["mmd/actual_change"] == pytest.approx(change)


@pytest.mark.parametrize("options", [{"d0": 0.0}, {"d0": 0.6, "epsilon": 0.1}, {"d0": 9.0}])
def test_no_step_leaves_its_trust_region(make_algorithm, make_demos, noise_world, options):
    mcpo = make_algorithm("mcpo", **SMALL, **options, **continuous(make_demos))
    _, metrics = parameters_after(mcpo, noise_world(), 12)
    for row, case in zip(metrics, cases(metrics), strict=True):
        radius = 0.01 * (4.0 if case == "case/1" else 1.0)
        assert 0.0 <= row["policy/kl"] <= 1.5 * radius
    assert sum(row["policy/accepted"] for row in metrics) >= 10


def test_a_failed_line_search_leaves_the_policy(make_algorithm, noise_world, monkeypatch):
    mcpo = make_algorithm("mcpo", d0=0.0, **SMALL)
    start = mcpo.policy_state()
    monkeypatch.setattr(LocalModel, "kl", lambda self, theta: torch.tensor(math.nan))
    mcpo.iteration(noise_world())
    after = mcpo.policy_state()
    assert all(torch.equal(start[key], after[key]) for key in start if key not in ("mean", "std"))


def test_a_tolerance_that_finite_samples_cannot_meet_is_warned_of_once(
    make_algorithm, noise_world, caplog
):
    mcpo, world = make_algorithm("mcpo", d0=0.1, absorbing="off", **SMALL), noise_world()
    with caplog.at_level("WARNING", logger="rlfd.mcpo"):
        for _ in range(3):
            mcpo.iteration(world)
    (record,) = caplog.records
    floor = math.sqrt(1 / 45 + 1 / 17)
    assert f"d = 0.1 is less than {1.5 * floor:.3g}" in record.getMessage()
    caplog.clear()
    with caplog.at_level("WARNING", logger="rlfd.mcpo"):
        make_algorithm("mcpo", d0=0.6, absorbing="off", **SMALL).iteration(noise_world())
    assert not caplog.records


@pytest.mark.parametrize("absorbing", ["off", "value", "indicator"])
def test_recovery_by_gmmil_makes_several_steps_of_one_rollout(
    make_algorithm, noise_world, monkeypatch, absorbing
):
    mcpo = make_algorithm(
        "mcpo", d0=0.0, recovery="gmmil", recovery_steps=3, absorbing=absorbing, **SMALL
    )
    reward, seen = mcpo.matching.reward, []

    def noting(rollout, ratios=None):
        seen.append(ratios)
        return reward(rollout, ratios)

    monkeypatch.setattr(mcpo.matching, "reward", noting)
    mcpo.iteration(noise_world())
    assert [ratios is None for ratios in seen] == [True, False, False]
    assert mcpo.last_prediction < 0.0


# -- what comes of it -----------------------------------------------------------------------------


def ring(make_algorithm, tabular_world, **options):
    """Five states in a ring. The demonstrator goes on by action 0, the reward is for action 2."""
    demos = DemoTensors(
        observations=torch.eye(5).repeat(40, 1),
        actions=torch.zeros(200, dtype=torch.int64),
        episode_ids=torch.zeros(200, dtype=torch.int64),
        next_observations=torch.eye(5).roll(-1, 0).repeat(40, 1),
        terminated=torch.zeros(200, dtype=torch.bool),
    )
    states = np.arange(5)
    following = np.stack([(states + 1) % 5, states, (states + 3) % 5], axis=1)
    mcpo = make_algorithm(
        "mcpo",
        action=3,
        demos=demos,
        num_envs=5,
        batch_steps=200,
        delta=0.05,
        action_scale=3.0,
        **options,
    )
    return mcpo, tabular_world(following, np.eye(3)[[2] * 5])


def test_the_constraint_keeps_the_reward_from_leading_away(make_algorithm, tabular_world):
    mcpo, world = ring(make_algorithm, tabular_world, d0=0.3, epsilon=0.0)
    _, metrics = parameters_after(mcpo, world, 60)
    late = metrics[30:]
    mmd = np.array([row["mmd/estimate"] for row in late])
    assert mmd.mean() == pytest.approx(0.3, abs=0.05)  # at the border: reward wants to go further
    assert mmd.max() < 0.45
    assert {"case/6"} <= set(cases(late))
    assert np.mean([row["mcpo/nu"] for row in late if row["case/6"]]) > 0.0


def test_a_growing_tolerance_lets_the_reward_have_its_way(make_algorithm, tabular_world):
    mcpo, world = ring(make_algorithm, tabular_world, d0=0.3, epsilon=0.1, growth="always")
    _, metrics = parameters_after(mcpo, world, 60)
    assert metrics[-1]["mmd/estimate"] > 0.7  # 0.3 without growth
    assert mcpo.act(np.eye(5, dtype=np.float32), greedy=True).tolist() == [2] * 5


def test_it_goes_on_from_a_cloned_policy(make_algorithm, make_demos, noise_world):
    problem = continuous(make_demos)
    cloning = make_algorithm("bc", max_epochs=3, activation="tanh", **problem)
    while not cloning.finished:
        cloning.iteration(None)
    cloned = cloning.policy_state()
    mcpo = make_algorithm("mcpo", d0=0.5, **SMALL, **problem)
    mcpo.start_from(cloned)
    observations = torch.randn(99, 5).numpy()
    np.testing.assert_allclose(
        mcpo.act(observations, greedy=True), cloning.act(observations, greedy=True), atol=5e-7
    )
    (*_, after), _ = parameters_after(mcpo, noise_world(), 3)
    for key in ("mean", "std"):
        assert torch.equal(after[key], cloned[key])
    for key in ("log_std", "body.0.weight"):
        assert not torch.equal(after[key], cloned[key])


def test_the_witness_has_its_own_discount_scale_and_targets(
    make_algorithm, noise_world, monkeypatch
):
    options = {"d0": 0.0, "gamma": 0.9, "gae_lambda": 0.8, "gamma_f": 0.6, "lambda_f": 0.3}
    mcpo = make_algorithm("mcpo", **options, **SMALL)
    value, targets, fits = mcpo.witness_value, [], []
    fit, original = value.fit, mcpo._estimate_witness
    monkeypatch.setattr(value, "fit", lambda o, t: fits.append(t) or fit(o, t))

    def noting(rollout, imitation):
        result = original(rollout, imitation)
        after = imitation.terminal_values
        plain = value.estimate(
            rollout, imitation.rewards, gamma=0.6, gae_lambda=0.3, terminal_values=after
        )
        torch.testing.assert_close(result.advantages, plain.advantages - plain.advantages.mean())
        targets.append(plain.targets)
        return result

    monkeypatch.setattr(mcpo, "_estimate_witness", noting)
    world = noise_world()
    for _ in range(2):
        mcpo.iteration(world)
    assert len(targets) == len(fits) == 2
    for one, two in zip(targets, fits, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("case", "mmd", "gain", "change", "kl", "taken"),
    [
        ("6", 0.4, 1.0, 0.2, 0.0, False),  # beyond d + slack
        ("6", 0.4, 1.0, 0.105, 0.0, True),  # within slack
        ("4", 0.4, 1.0, 0.2, 0.0, True),  # the constraint is not active
        ("6", 0.4, -1.0, 0.0, 0.0, False),  # satisfied: the reward must gain
        ("6", 0.6, -1.0, -0.1, 0.0, True),  # violated: it need not
        ("6", 0.6, 1.0, -0.1, 0.016, False),  # KL > 1.5 δ
        ("1", 0.6, -1.0, -0.1, 0.059, True),  # recovery: 1.5 · 4 δ
        ("1", 0.6, 1.0, -0.1, 0.061, False),
        ("1", 0.6, 1.0, 0.005, 0.0, False),  # and the MMD must fall
        ("2b", 0.6, -1.0, -0.1, 0.016, False),
    ],
)
def test_what_the_line_search_takes(
    make_algorithm, local_model, case, mmd, gain, change, kl, taken
):
    mcpo = make_algorithm("mcpo", d0=0.5, epsilon=0.0, **SMALL)
    gains = torch.tensor([gain]), torch.tensor([-change])
    step = Step(case, 1.0, 1.0)
    assert mcpo._search(local_model(kl), step, torch.ones(1), *gains, mmd) is taken
