"""SQIL-T: the exact relation between equations 15, 18 and 19, in double precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rlfd.algorithms.core import soft
from rlfd.algorithms.sqil_t import SQILTConfig, cloning_losses

LENGTHS = (3, 9, 5)
LAMBDA_DEMO, REWARD, LAMBDA_SAMP = 0.7, 1.3, 0.4
UNUSUAL = {
    "alpha": 2 * LAMBDA_DEMO * REWARD,  # eq 18
    "lambda_demo": LAMBDA_DEMO,
    "lambda_samp": LAMBDA_SAMP,
    "temperature": 1.0,
}
ENDLESS = {"gamma": 1.0, "absorbing": "off"}


class Case:
    """SQIL's and SQIL-T's losses over whole data sets: every demonstration, as many own rows.

    SQIL-T has its default settings besides those given; SQIL takes V(s') of own transitions alike,
    and differentiates through that of demonstrated ones.
    The code divides all sums by |D_demo|; this multiplies them again.
    """

    def __init__(self, make_algorithm, demos, **settings):
        eq_15, eq_19 = (
            make_algorithm("sqil-t", demos=demos, value_at_start=start, **settings)
            for start in (True, False)
        )
        self.config = config = eq_15.config
        self.sqil = sqil = make_algorithm(
            "sqil",
            demos=demos,
            mode="demos" if config.mode == "demos" else "full",
            absorbing=config.absorbing,
            reward=config.alpha / (2 * config.lambda_demo),  # eq 18
            gamma=config.gamma,
            temperature=config.temperature,
            layer_norm=config.layer_norm,
        )
        self.parameters = sqil.learner.engine.parameters
        self.count = demos.num_transitions
        first = torch.ones_like(demos.episode_ids, dtype=torch.bool)
        first[1:] = demos.episode_ids[1:] != demos.episode_ids[:-1]
        self.demos, self.first = demos, first
        demo, samp = config.lambda_demo, config.lambda_samp
        self.losses = {
            # SQIL's own weight of demonstrations is 1, so eq 18 is λ_demo times its loss
            "eq 18": lambda p: demo * self.sum(sqil, p, samp / demo),
            "eq 15": lambda p: self.sum(eq_15, p, samp),
            "eq 19": lambda p: self.sum(eq_19, p, samp),
        }
        self.gamma = config.gamma

    def batch(self, weight):
        demos, generator = self.demos, torch.Generator().manual_seed(11)
        terminated = torch.arange(self.count) % 4 == 0

        def noise():
            return torch.randn(self.count, 5, generator=generator)

        return {
            "demo/observations": demos.observations,
            "demo/actions": demos.actions,
            "demo/next_observations": demos.next_observations,
            "demo/terminated": demos.terminated,
            "demo/discounts": self.gamma * (~demos.terminated).double(),
            "demo/starts": demos.observations[self.first],
            "own/observations": noise(),
            "own/actions": torch.arange(self.count) % 7,
            "own/next_observations": noise(),
            "own/discounts": self.gamma * (~terminated).double(),
            "own/weight": torch.tensor(weight),
        }

    def sum(self, algorithm, parameters, weight):
        return self.count * algorithm._loss(parameters, parameters, self.batch(weight))[0]

    def values(self, parameters, observations):
        q_values = self.sqil.learner.values(parameters, observations)
        return soft.soft_value(q_values, self.config.temperature)

    def gradient(self, loss):
        gradients = torch.func.grad(self.losses.get(loss, loss))(self.parameters)
        return torch.cat([value.flatten() for value in gradients.values()])

    def remainder(self):
        """α (1 - γ) Σ_ζ Σ_{t ≥ 1} ∇V(s_t), what eq 15's gradient has besides eq 18's."""
        later, weight = self.demos.observations[~self.first], self.config.alpha * (1 - self.gamma)
        return self.gradient(lambda p: weight * self.values(p, later).sum())


@pytest.fixture
def make_case(float64, make_algorithm, make_demos):
    def make(*, terminated=(True, True, True), **settings):
        demos = make_demos(LENGTHS, terminated=terminated)
        return Case(make_algorithm, demos, **settings)

    return make


def test_the_default_settings_keep_what_the_derivation_stands_on(make_case):
    """Equal gradients but for the remainder need ∇V(s') after demonstrated transitions."""
    case = make_case()
    assert case.config == SQILTConfig(hidden=case.config.hidden, value_at_start=True)
    difference = case.gradient("eq 15") - case.gradient("eq 18")
    assert difference.abs().max() > 1e-3
    torch.testing.assert_close(difference, case.remainder(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_without_discount_both_gradients_are_the_same(make_case, temperature):
    case = make_case(**UNUSUAL | ENDLESS | {"temperature": temperature})
    eq_15, eq_18 = case.gradient("eq 15"), case.gradient("eq 18")
    assert eq_15.abs().max() > 1.0
    torch.testing.assert_close(eq_15, eq_18, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ["full", "demos"])
@pytest.mark.parametrize("gamma", [0.99, 0.9, 0.0])
def test_with_discount_they_differ_by_the_values_on_the_way(make_case, gamma, mode):
    """∇ℓ = ∇eq 18 + α (1 - γ) Σ_ζ Σ_{t ≥ 1} ∇V(s_t)."""
    case = make_case(gamma=gamma, mode=mode, **UNUSUAL)
    difference = case.gradient("eq 15") - case.gradient("eq 18")
    assert difference.abs().max() > 1e-3
    torch.testing.assert_close(difference, case.remainder(), rtol=1e-10, atol=1e-10)


def test_a_cut_demonstration_leaves_the_value_of_its_last_state(make_case):
    """At γ = 1 the telescoped sum of a demonstration without end leaves -α ∇V(s_T)."""
    case = make_case(terminated=[True, False, True], **UNUSUAL | ENDLESS)
    last = case.demos.next_observations[[sum(LENGTHS[:2]) - 1]]
    correction = case.gradient(lambda p: -case.config.alpha * case.values(p, last).sum())
    difference = case.gradient("eq 15") - case.gradient("eq 18")
    assert difference.abs().max() > 1e-3
    torch.testing.assert_close(difference, correction, rtol=1e-10, atol=1e-10)


class Chain:
    """One demonstration along a table of six states; the last one is its end."""

    length = 5

    def __init__(self, make_algorithm, make_demos, **settings):
        demos = make_demos((5,), actions=torch.tensor([6, 1, 0, 4, 1]), shape=(6,))
        self.demos = demos = dataclasses.replace(
            demos, observations=torch.eye(6)[:-1], next_observations=torch.eye(6)[1:]
        )
        self.algorithm = make_algorithm(
            "sqil-t", demos=demos, shape=(6,), hidden=(), lambda_samp=0, **settings
        )
        self.config, self.learner = self.algorithm.config, self.algorithm.learner
        self.parameters = self.learner.engine.parameters
        self.discounts = self.config.gamma * (~demos.terminated).double()
        self.batch = {
            f"{half}/{name}": value
            for half in ("demo", "own")
            for name, value in (
                ("observations", demos.observations),
                ("actions", demos.actions),
                ("next_observations", demos.next_observations),
                ("terminated", demos.terminated),
                ("discounts", self.discounts),
            )
        } | {"own/weight": torch.tensor(0.0), "demo/starts": demos.observations[:1]}

    def loss(self, parameters):
        target = self.learner.engine.target_parameters
        return self.length * self.algorithm._loss(parameters, target, self.batch)[0]

    def values(self, parameters, observations):
        q_values = self.learner.values(parameters, observations)
        return soft.soft_value(q_values, self.config.temperature)

    def errors(self):
        """δ, with V(s') = 0 after the end."""
        q_values = self.learner.values(self.parameters, self.demos.observations)
        following = self.values(self.parameters, self.demos.next_observations)
        return q_values[torch.arange(5), self.demos.actions] - self.discounts * following


@pytest.mark.parametrize("absorbing", ["off", "value"])
@pytest.mark.parametrize("value_at_start", [False, True])
def test_what_a_demonstrated_state_is_worth_comes_through_the_state_before_it(
    float64, make_algorithm, make_demos, value_at_start, absorbing
):
    """Raising Q(s_t, ·) by c changes the loss by c (2 λ_demo (δ_t - γ δ_{t-1}) - α [t = 0]).

    Cloning has no say in it, so values of demonstrated states come from V(s_0) and from the end
    alone: without terminal rule at the minimum of a table δ_t = γ^t α / (2 λ_demo) with V(s_0)
    (eq 15), and 0 without (eq 19).
    """
    chain = Chain(make_algorithm, make_demos, value_at_start=value_at_start, absorbing=absorbing)
    config = chain.config
    gradients = torch.func.grad(chain.loss)(chain.parameters)
    raised = gradients["body.0.weight"].sum(0)[: chain.length]  # over the actions of each state
    errors = chain.errors()
    if absorbing == "value":
        errors[-1] -= config.gamma * config.alpha / (2 * config.lambda_demo) / (1 - config.gamma)
    expected = 2 * config.lambda_demo * errors
    expected[1:] -= 2 * config.lambda_demo * config.gamma * errors[:-1]
    expected[0] -= config.alpha * value_at_start
    assert errors.abs().min() > 1e-3
    torch.testing.assert_close(raised, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("absorbing", "end"), [("off", 0.0), ("value", 20.0)])
def test_demonstrated_states_are_worth_more_the_nearer_the_end(
    float64, make_algorithm, make_demos, absorbing, end
):
    """At the minimum of eq 19 Q(s_t, a_t) = γ V(s_{t+1}) up to V(s_T) = r / (1 - γ), or 0.

    In the directions that cloning is indifferent to, where one step of Newton's method finds it:
    the demonstrated actions' advantages have no minimum.
    """
    chain = Chain(make_algorithm, make_demos, absorbing=absorbing, gamma=0.9, alpha=4.0)

    def shifted(shift):
        weights = chain.parameters["body.0.weight"]
        return chain.loss(
            chain.parameters | {"body.0.weight": weights + torch.cat([shift, torch.zeros(1)])}
        )

    zero = torch.zeros(5)
    gradient, curvature = torch.func.grad(shifted)(zero), torch.func.hessian(shifted)(zero)
    best = -torch.linalg.solve(curvature, gradient)
    q_values = chain.learner.values(chain.parameters, chain.demos.observations)
    advantages = q_values[torch.arange(5), chain.demos.actions] - chain.values(
        chain.parameters, chain.demos.observations
    )
    values = chain.values(chain.parameters, chain.demos.observations) + best
    following = torch.cat([values[1:], torch.tensor([end])])
    torch.testing.assert_close(values + advantages, 0.9 * following, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", [ENDLESS, {"gamma": 0.9}])
def test_equations_15_and_19_differ_by_the_values_at_the_starts(make_case, settings):
    case = make_case(**UNUSUAL | settings)
    eq_15, eq_19 = (case.losses[name](case.parameters) for name in ("eq 15", "eq 19"))
    starts = case.values(case.parameters, case.demos.observations[case.first])
    assert len(starts) == len(LENGTHS)
    torch.testing.assert_close(
        eq_15 - eq_19, -case.config.alpha * starts.sum(), rtol=1e-10, atol=1e-10
    )


def test_loss_is_equation_19_term_by_term(make_case):
    case, gamma = make_case(gamma=0.9, absorbing="off", **UNUSUAL), 0.9
    demos, parameters, batch = case.demos, case.parameters, case.batch(1.0)

    def bellman_errors(half):
        q_values = case.sqil.learner.values(parameters, batch[f"{half}/observations"])
        q = q_values[torch.arange(case.count), batch[f"{half}/actions"]]
        following = case.values(parameters, batch[f"{half}/next_observations"])
        return (q - batch[f"{half}/discounts"] * following).square().sum()

    log_probs = torch.log_softmax(case.sqil.learner.values(parameters, demos.observations), dim=1)
    cloning = -log_probs[torch.arange(case.count), demos.actions].sum()
    expected = (
        case.config.alpha * cloning
        + LAMBDA_DEMO * bellman_errors("demo")
        + LAMBDA_SAMP * bellman_errors("own")
    )
    assert gamma == batch["demo/discounts"].max()
    torch.testing.assert_close(case.losses["eq 19"](parameters), expected)


def test_cloning_loss_is_temperature_times_cross_entropy(float64):
    q_values = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    actions = torch.arange(9) % 7
    expected = torch.nn.functional.cross_entropy(q_values / 0.3, actions, reduction="none")
    torch.testing.assert_close(cloning_losses(q_values, actions, 0.3), 0.3 * expected)


def test_starts_are_drawn_when_equation_15_asks_for_them(
    make_algorithm, make_demos, noise_world, monkeypatch
):
    demos = make_demos(LENGTHS)
    starts = demos.observations[[0, 3, 12]].unique(dim=0)
    for value_at_start in (False, True):
        learner = make_algorithm(
            "sqil-t",
            demos=demos,
            value_at_start=value_at_start,
            learning_starts=0,
            batch_size=9,
        )
        seen, step = [], learner.learner.engine.step
        monkeypatch.setattr(
            learner.learner.engine,
            "step",
            lambda batch, s=step, b=seen: (b.append(batch), s(batch))[1],
        )
        world = noise_world()
        for _ in range(9):
            learner.iteration(world)
        assert learner.updates == len(seen) == 13
        drawn = [batch["demo/starts"] for batch in seen if "demo/starts" in batch]
        if value_at_start:
            assert torch.equal(torch.cat(drawn).unique(dim=0), starts)
        else:
            assert drawn == []
