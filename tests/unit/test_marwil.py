"""MARWIL: its weights and its norm, behavioural cloning at zero, and what V is fitted to."""

from __future__ import annotations

import dataclasses

import pytest
import torch

SETTINGS = {"hidden": (11,), "batch_size": 5, "max_epochs": 4}
LENGTHS = (3, 9, 5, 7)


@pytest.fixture
def paid_demos(make_demos):
    def make(lengths=LENGTHS, **options):
        demos = make_demos(lengths, **options)
        generator = torch.Generator().manual_seed(4)
        return dataclasses.replace(demos, rewards=torch.randn(sum(lengths), generator=generator))

    return make


@pytest.fixture
def make_marwil(make_algorithm, paid_demos):
    def make(*, demos=None, **options):
        return make_algorithm("marwil", demos=demos or paid_demos(), **SETTINGS | options)

    return make


def train(algorithm):
    while not algorithm.finished:
        algorithm.iteration(None)
    return algorithm.policy_state()


@pytest.mark.parametrize("mode", ["joint", "awr"])
@pytest.mark.parametrize("crossfit", [False, True])
def test_at_zero_it_is_behavioural_cloning_bit_for_bit(
    make_marwil, make_algorithm, paid_demos, mode, crossfit
):
    demos = paid_demos()
    shared = SETTINGS | {"learning_rate": 3e-3, "l2": 0.0, "entropy_weight": 0.0}
    bc = make_algorithm("bc", demos=demos, **shared)
    marwil = make_marwil(demos=demos, beta=0.0, mode=mode, crossfit=crossfit, **shared)
    if mode == "awr":  # V's passes shuffle too
        while not marwil.value_ready:
            marwil.iteration(None)
        bc.generator.set_state(marwil.learner.generator.get_state())
    expected = train(bc)
    for name, value in train(marwil).items():
        assert torch.equal(value, expected[name]), name


def test_c_follows_the_mean_square_of_the_advantages(float64, make_marwil):
    marwil = make_marwil(norm_rate=0.25)
    first, second = torch.tensor([1.0, -3.0, 2.0]), torch.tensor([4.0, 0.0])
    marwil._follow(first)
    assert marwil.squared_norm.item() == pytest.approx(14.0 / 3.0)
    marwil._follow(second)
    assert marwil.squared_norm.item() == pytest.approx(14.0 / 3.0 + 0.25 * (8.0 - 14.0 / 3.0))


def test_weights_are_positive_and_bounded(float64, make_marwil):
    marwil = make_marwil(beta=2.0, max_weight=7.0)
    marwil._follow(torch.tensor([3.0, -3.0]))
    weights = marwil._weigh(torch.tensor([-1e3, -3.0, 0.0, 1.5, 1e6]))
    expected = torch.tensor([0.0, -2.0, 0.0, 1.0]).exp()
    torch.testing.assert_close(weights[1:4], expected[1:4])
    assert weights.min() >= 0.0
    assert weights.max().item() == pytest.approx(7.0)


def test_no_gradient_of_the_policy_reaches_v(make_marwil):
    """Steps of the policy alone leave V as it is."""
    marwil = make_marwil(mode="awr", max_epochs=2)
    while not marwil.value_ready:
        marwil.iteration(None)
    before = {n: v.clone() for n, v in marwil.critics[0].engine.parameters.items()}
    policy = marwil.policy_state()
    marwil.iteration(None)
    for name, value in marwil.critics[0].engine.parameters.items():
        assert torch.equal(value, before[name])
    assert not torch.equal(policy["body.0.weight"], marwil.policy_state()["body.0.weight"])


def test_v_comes_to_predict_returns(make_algorithm, make_demos):
    """One-hot states that each have their own return."""
    demos = make_demos((1,) * 30, shape=(5,))
    states = torch.arange(30) % 5
    demos = dataclasses.replace(
        demos, observations=torch.eye(5)[states], rewards=10.0 * states.float() - 7.0
    )
    marwil = make_algorithm(
        "marwil", demos=demos, value_learning_rate=0.02, patience=60, max_epochs=60,
        hidden=(11,), batch_size=9,
    )  # fmt: skip
    while not marwil.finished:
        metrics = marwil.iteration(None)
    values = marwil._values(marwil.learner.network.standardise(torch.eye(5)), torch.zeros(5).long())
    torch.testing.assert_close(values, 10.0 * torch.arange(5.0) - 7.0, rtol=0, atol=1.0)
    assert metrics["value/explained_variance"] > 0.98


def test_truncated_returns_are_bootstrapped_by_v(float64, make_marwil, paid_demos):
    demos = paid_demos(terminated=[True, False, True, False])
    marwil = make_marwil(demos=demos, gamma=0.9)
    marwil._values = lambda inputs, judge: torch.full((len(inputs),), 100.0)
    marwil._estimate()
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    rewards = demos.rewards.double()[ends]
    torch.testing.assert_close(marwil.returns[ends], rewards + torch.tensor([0, 90.0, 0, 90.0]))


def test_v_sees_observations_as_a_policy_that_was_taken_over_does(make_marwil):
    """Those inside of an episode, and the one that a truncated episode ends in."""
    marwil = make_marwil()
    policy = marwil.policy_state()
    marwil.start_from(policy | {"mean": policy["mean"] + 2.0, "std": 3.0 * policy["std"]})
    seen = []
    marwil._values = lambda inputs, judge: seen.append(inputs) or torch.zeros(len(inputs))
    marwil._estimate()
    for inputs, name in zip(seen, ("observations", "next_observations"), strict=True):
        rows = slice(None) if name == "observations" else marwil.pieces["ended"]
        raw = marwil.pieces[name][rows]
        torch.testing.assert_close(inputs, (raw - policy["mean"] - 2.0) / (3.0 * policy["std"]))


def test_with_cross_fitting_no_value_judges_what_it_was_fitted_to(make_marwil):
    marwil = make_marwil(crossfit=True)
    seen = [[], []]
    for index, critic in enumerate(marwil.critics):
        step = critic.step

        def noting(inputs, returns, weights, index=index, step=step):
            seen[index].append(inputs[weights > 0])
            return step(inputs, returns, weights)

        critic.step = noting
    marwil.iteration(None)
    for index, rows in enumerate(seen):
        fitted = torch.cat(rows)[:, 0]
        judged = marwil.inputs[marwil.judge == index][:, 0]
        assert len(fitted)
        assert not torch.isin(fitted, judged).any()


def test_good_actions_of_a_mixture_are_kept(make_marwil, make_demos):
    """Two actions, the second one pays: cloning copies the majority, advantages the better."""
    generator = torch.Generator().manual_seed(0)
    actions = (torch.rand(300, generator=generator) < 0.3).long()
    demos = make_demos((1,) * 300, shape=(5,), actions=actions)
    demos = dataclasses.replace(demos, rewards=actions.double().float())
    options = {"max_epochs": 40, "batch_size": 32, "learning_rate": 3e-3}
    marwil = make_marwil(demos=demos, beta=3.0, action=2, **options)
    cloning = make_marwil(demos=demos, beta=0.0, action=2, **options)
    train(marwil)
    train(cloning)
    seen = torch.randn(50, 5, generator=generator).numpy()
    assert marwil.act(seen, greedy=True).mean() > 0.9
    assert cloning.act(seen, greedy=True).mean() < 0.1
