"""Action distributions against enumeration and torch.distributions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.distributions import AT_BOUND, make_distribution

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


def test_gaussian_equals_torch_distributions(float64):
    distribution = make_distribution(CONTINUOUS)
    means, log_std, actions = draw(9, 3), torch.tensor([-1.0, 0.3, 0.0]), draw(9, 3, seed=1)
    reference = Normal(means, log_std.exp())
    torch.testing.assert_close(
        distribution.log_prob(means, log_std, actions), reference.log_prob(actions).sum(dim=1)
    )
    torch.testing.assert_close(distribution.entropy(means, log_std), reference.entropy().sum(dim=1))
    assert torch.equal(distribution.mode(means), means)


def test_gaussian_actions_are_decoded_to_the_bounds_and_clipped_there():
    distribution = make_distribution(CONTINUOUS)
    low, middle, high = torch.tensor([[-1.0] * 3, [0.0] * 3, [1.0] * 3])
    assert torch.equal(distribution.decode(low), torch.tensor(CONTINUOUS.low))
    assert torch.equal(distribution.decode(middle), torch.tensor([0.0, 5.0, -3.0]))
    assert torch.equal(distribution.decode(high), torch.tensor(CONTINUOUS.high))
    assert torch.equal(distribution.decode(high * 9), torch.tensor(CONTINUOUS.high))
    actions = torch.tensor([[0.5, 2.5, -3.5]])
    torch.testing.assert_close(distribution.encode(actions), torch.tensor([[0.5, -0.5, -0.5]]))
    torch.testing.assert_close(distribution.decode(distribution.encode(actions)), actions)


def test_decoded_actions_never_leave_the_bounds_by_rounding():
    bounds = [(-0.1, 0.3), (1e-3, 7.7), (-123.4, 0.7)]
    low, high = (tuple(column) for column in zip(*bounds, strict=True))
    distribution = make_distribution(ActionSpec("continuous", (3,), low, high))
    actions = distribution.decode(draw(9_999, 3))
    assert (actions >= torch.tensor(low)).all()
    assert (actions <= torch.tensor(high)).all()


@pytest.mark.parametrize("spec", ALL_ACTIONS, ids=lambda spec: spec.kind)
def test_other_actions_have_the_same_units_everywhere(spec):
    distribution, actions = make_distribution(spec), ALL_ACTIONS[spec]
    assert distribution.encode(actions) is actions
    assert distribution.decode(actions) is actions


def test_gaussian_samples_have_mean_and_std_and_are_not_clipped():
    distribution = make_distribution(CONTINUOUS)
    means, log_std = torch.tensor([0.2, -0.9, 0.0]), torch.tensor([-2.0, -0.5, 1.0])
    generator = torch.Generator().manual_seed(0)
    draws = distribution.sample(means.expand(40_000, 3), log_std, generator)
    torch.testing.assert_close(draws.mean(dim=0), means, rtol=0, atol=0.03)
    torch.testing.assert_close(draws.std(dim=0), log_std.exp(), rtol=0.02, atol=0)


@pytest.mark.parametrize("spec", ALL_ACTIONS, ids=lambda spec: spec.kind)
def test_kl_equals_enumeration(float64, spec):
    distribution = make_distribution(spec)
    old, new = draw(9, distribution.num_outputs), draw(9, distribution.num_outputs, seed=1)
    divergences = distribution.kl(old, NO_STD, new, NO_STD)
    assert divergences.shape == (9,)
    for i in range(9):
        (_, p), (_, q) = (enumerate_log_probs(spec, row) for row in (old[i], new[i]))
        expected = (p.exp() * (p - q)).sum()
        torch.testing.assert_close(divergences[i], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(distribution.kl(old, NO_STD, old, NO_STD), torch.zeros(9))


def test_kl_of_gaussians_equals_torch_distributions(float64):
    distribution = make_distribution(CONTINUOUS)
    (old, new), stds = (draw(9, 3), draw(9, 3, seed=1)), (draw(3, seed=2), draw(3, seed=3))
    expected = kl_divergence(Normal(old, stds[0].exp()), Normal(new, stds[1].exp())).sum(dim=1)
    torch.testing.assert_close(distribution.kl(old, stds[0], new, stds[1]), expected)


def test_features_are_one_hot_bits_or_clipped_numbers(float64):
    expected = {
        DISCRETE: torch.eye(5),
        MULTI: torch.cat(
            [torch.eye(n)[ALL_ACTIONS[MULTI][:, i]] for i, n in enumerate((2, 5, 3))], 1
        ),
        BINARY: ALL_ACTIONS[BINARY].double(),
    }
    for spec, features in expected.items():
        distribution = make_distribution(spec)
        assert torch.equal(distribution.features(ALL_ACTIONS[spec]), features)
        assert features.shape[1] == distribution.num_features
    distribution = make_distribution(CONTINUOUS)
    actions = torch.tensor([[-7.0, 0.3, 1.1]])
    assert torch.equal(distribution.features(actions), torch.tensor([[-1.0, 0.3, 1.0]]))
    assert distribution.num_features == 3


def test_a_log_std_has_a_gradient_wherever_it_is(float64):
    """Whoever trains it keeps it within bounds; were it clamped here, it could not come back."""
    distribution = make_distribution(CONTINUOUS)
    means, actions = draw(9, 3), draw(9, 3, seed=1)
    log_std = torch.tensor([-7.0, 0.3, 4.0], requires_grad=True)
    squares = (actions - means).square() * (-2.0 * log_std.detach()).exp()
    (slope,) = torch.autograd.grad(distribution.log_prob(means, log_std, actions).sum(), log_std)
    torch.testing.assert_close(slope, (squares - 1.0).sum(0))
    (slope,) = torch.autograd.grad(distribution.entropy(means, log_std).sum(), log_std)
    torch.testing.assert_close(slope, torch.full((3,), 9.0))
    far = log_std + 1.0  # σ² / σ_new² = e⁻²
    (slope,) = torch.autograd.grad(
        distribution.kl(means, log_std.detach(), means, far).sum(), log_std
    )
    torch.testing.assert_close(slope, torch.full((3,), 9.0 * (1.0 - math.exp(-2.0))))


# -- what the environment makes of actions ---------------------------------------------------------

ONE = ActionSpec("continuous", (1,), (-3.0,), (5.0,))


def executed(spec, mean, log_std, actions):
    """Return the executed log-density of actions (M, k) under one mean and one log-std (k,)."""
    distribution = make_distribution(spec)
    return distribution.executed_log_prob(mean.expand(len(actions), -1), log_std, actions)


@pytest.mark.parametrize("mean", [-2.3, -0.97, 0.0, 0.4, 1.6])
@pytest.mark.parametrize("log_std", [-3.0, -0.7, 0.0, 1.5])
def test_what_is_executed_has_a_density_that_sums_to_one(float64, mean, log_std):
    """The integral between the bounds, and the probabilities of being clipped to either."""
    mean, log_std = torch.tensor([mean]), torch.tensor([log_std])
    grid = torch.linspace(-AT_BOUND, AT_BOUND, 200_001)[:, None]
    inside = executed(ONE, mean, log_std, grid[1:-1]).exp()
    edges = Normal(mean, log_std.exp()).log_prob(grid[[0, -1]])[:, 0].exp()
    spacing = float(grid[1] - grid[0])
    total = spacing * (inside.sum() + edges.mean() * 1.0)  # trapezoids
    clipped = executed(ONE, mean, log_std, torch.tensor([[-1.0], [1.0]])).exp()
    torch.testing.assert_close(total + clipped.sum(), torch.tensor(1.0), rtol=0, atol=1e-6)
    reference = Normal(mean, log_std.exp())
    below = reference.cdf(torch.tensor(-AT_BOUND))
    above = 1.0 - reference.cdf(torch.tensor(AT_BOUND))
    torch.testing.assert_close(clipped, torch.cat([below, above]), rtol=1e-6, atol=1e-12)


def test_between_the_bounds_it_is_the_density_of_the_draw(float64):
    means, log_std = draw(9, 3), torch.tensor([-1.0, 0.3, 0.0])
    actions = 1.9 * torch.rand(9, 3, generator=torch.Generator().manual_seed(1)) - 0.95
    distribution = make_distribution(CONTINUOUS)
    torch.testing.assert_close(
        distribution.executed_log_prob(means, log_std, actions),
        distribution.log_prob(means, log_std, actions),
    )


def test_how_far_beyond_a_bound_a_draw_fell_does_not_matter(float64):
    """It has the density of what is executed, of as many actions as there are."""
    distribution = make_distribution(CONTINUOUS)
    means, log_std = draw(9, 3), torch.tensor([-1.0, 0.3, 0.0])
    draws = 3.0 * draw(9, 3, seed=1)
    assert (draws.abs() > 1).any(1).sum() > 5
    torch.testing.assert_close(
        distribution.executed_log_prob(means, log_std, draws),
        distribution.executed_log_prob(
            means, log_std, distribution.encode(distribution.decode(draws))
        ),
    )


def test_the_executed_density_and_its_gradient_stay_finite():
    distribution = make_distribution(CONTINUOUS)
    means = torch.tensor([[-40.0, 40.0, 0.0]]).requires_grad_()
    log_std = torch.tensor([-5.0, 2.0, -5.0]).requires_grad_()
    for actions in (torch.full((1, 3), 900.0), torch.zeros(1, 3), torch.full((1, 3), -1.0)):
        density = distribution.executed_log_prob(means, log_std, actions)
        assert density.isfinite().all()
        for gradient in torch.autograd.grad(density.sum(), (means, log_std)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("spec", ALL_ACTIONS, ids=lambda spec: spec.kind)
def test_other_actions_are_executed_as_they_are(float64, spec):
    distribution, actions = make_distribution(spec), ALL_ACTIONS[spec]
    outputs = draw(len(actions), distribution.num_outputs)
    assert torch.equal(
        distribution.executed_log_prob(outputs, NO_STD, actions),
        distribution.log_prob(outputs, NO_STD, actions),
    )
