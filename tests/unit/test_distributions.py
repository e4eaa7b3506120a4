"""Action distributions against enumeration and torch.distributions."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Categorical, Normal

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.distributions import make_distribution

DISCRETE = ActionSpec("discrete", (5,))
MULTI = ActionSpec("multi_discrete", (2, 5, 3))
BINARY = ActionSpec("multi_binary", (3,))
CONTINUOUS = ActionSpec("continuous", (3,), (-1.0, 0.0, -4.0), (1.0, 10.0, -2.0))
ALL_ACTIONS = {
    DISCRETE: torch.arange(5),
    MULTI: torch.tensor(list(itertools.product(range(2), range(5), range(3)))),
    BINARY: torch.tensor(list(itertools.product(range(2), repeat=3))),
}
NO_STD = torch.zeros(0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def enumerate_log_probs(spec, row):
    """Return all actions and the log-probabilities that one row of outputs gives them."""
    actions = ALL_ACTIONS[spec]
    outputs = row.expand(len(actions), -1)
    return actions, make_distribution(spec).log_prob(outputs, NO_STD, actions)


@pytest.mark.parametrize("spec", ALL_ACTIONS, ids=lambda spec: spec.kind)
def test_probabilities_sum_to_one_and_give_entropy_and_mode(float64, spec):
    distribution = make_distribution(spec)
    for row in draw(9, distribution.num_outputs):
        actions, log_probs = enumerate_log_probs(spec, row)
        assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
        entropy = distribution.entropy(row[None], NO_STD).item()
        assert entropy == pytest.approx(-(log_probs.exp() * log_probs).sum().item(), abs=1e-12)
        mode = distribution.mode(row[None])[0]
        assert torch.equal(mode.long(), actions[log_probs.argmax()])


@pytest.mark.parametrize("spec", ALL_ACTIONS, ids=lambda spec: spec.kind)
def test_samples_have_the_enumerated_frequencies(spec):
    distribution = make_distribution(spec)
    row = draw(distribution.num_outputs)
    actions, log_probs = enumerate_log_probs(spec, row)
    generator = torch.Generator().manual_seed(0)
    draws = distribution.sample(row.expand(20_000, -1), NO_STD, generator)
    same = draws.long()[:, None] == actions
    counts = (same if same.ndim == 2 else same.all(dim=2)).sum(dim=0)
    assert counts.sum() == 20_000
    expected = log_probs.double().exp()
    result = stats.chisquare(counts.numpy(), (20_000 * expected / expected.sum()).numpy())
    assert result.pvalue > 1e-3


def test_log_probabilities_equal_torch_distributions(float64):
    outputs = draw(9, 5)
    actions = torch.arange(9) % 5
    torch.testing.assert_close(
        make_distribution(DISCRETE).log_prob(outputs, NO_STD, actions),
        Categorical(logits=outputs).log_prob(actions),
    )
    outputs, switches = draw(9, 3), (draw(9, 3, seed=1) > 0).long()
    torch.testing.assert_close(
        make_distribution(BINARY).log_prob(outputs, NO_STD, switches),
        Bernoulli(logits=outputs).log_prob(switches.double()).sum(dim=1),
    )


def test_cross_entropy_gradient_is_softmax_minus_one_hot(float64):
    outputs = draw(9, 5).requires_grad_()
    actions = torch.arange(9) % 5
    loss = -make_distribution(DISCRETE).log_prob(outputs, NO_STD, actions).sum()
    (gradient,) = torch.autograd.grad(loss, outputs)
    expected = torch.softmax(outputs, dim=1) - torch.eye(5)[actions]
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-12, atol=1e-12)


def test_gaussian_equals_torch_distributions_in_unit_range(float64):
    distribution = make_distribution(CONTINUOUS)
    means, log_std = draw(9, 3), torch.tensor([-1.0, 0.3, 0.0])
    unit = draw(9, 3, seed=1).clamp(-1, 1)
    reference = Normal(means, log_std.exp())
    torch.testing.assert_close(
        distribution.log_prob(means, log_std, distribution.from_unit(unit)),
        reference.log_prob(unit).sum(dim=1),
    )
    torch.testing.assert_close(distribution.entropy(means, log_std), reference.entropy().sum(dim=1))


def test_gaussian_actions_are_mapped_to_the_bounds_and_clipped_there():
    distribution = make_distribution(CONTINUOUS)
    low, middle, high = torch.tensor([[-1.0] * 3, [0.0] * 3, [1.0] * 3])
    torch.testing.assert_close(distribution.from_unit(low), torch.tensor(CONTINUOUS.low))
    torch.testing.assert_close(distribution.from_unit(middle), torch.tensor([0.0, 5.0, -3.0]))
    torch.testing.assert_close(distribution.from_unit(high), torch.tensor(CONTINUOUS.high))
    torch.testing.assert_close(distribution.mode(high[None] * 9)[0], torch.tensor(CONTINUOUS.high))
    actions = torch.tensor([[0.5, 2.5, -3.5]])
    torch.testing.assert_close(distribution.to_unit(actions), torch.tensor([[0.5, -0.5, -0.5]]))
    torch.testing.assert_close(distribution.from_unit(distribution.to_unit(actions)), actions)


def test_gaussian_samples_have_mean_and_std_and_stay_inside():
    distribution = make_distribution(CONTINUOUS)
    means, log_std = torch.tensor([0.2, -0.1, 0.0]), torch.full((3,), -2.0)
    generator = torch.Generator().manual_seed(0)
    draws = distribution.sample(means.expand(20_000, 3), log_std, generator)
    unit = distribution.to_unit(draws)
    torch.testing.assert_close(unit.mean(dim=0), means, rtol=0, atol=0.005)
    torch.testing.assert_close(unit.std(dim=0), log_std.exp(), rtol=0.03, atol=0)
    wide = distribution.sample(means.expand(999, 3), torch.full((3,), 2.0), generator)
    assert (wide >= torch.tensor(CONTINUOUS.low)).all()
    assert (wide <= torch.tensor(CONTINUOUS.high)).all()


def test_gaussian_std_is_clamped_so_that_exact_data_has_finite_density(float64):
    distribution = make_distribution(CONTINUOUS)
    means, exact = torch.zeros(1, 3), torch.tensor([[0.0, 5.0, -3.0]])
    at_clamp = distribution.log_prob(means, torch.full((3,), -5.0), exact)
    beyond = distribution.log_prob(means, torch.full((3,), -50.0), exact)
    torch.testing.assert_close(beyond, at_clamp, rtol=0, atol=0)
    torch.testing.assert_close(
        distribution.entropy(means, torch.full((3,), 50.0)),
        distribution.entropy(means, torch.full((3,), 2.0)),
    )
