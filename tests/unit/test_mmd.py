"""Maximum mean discrepancy: known values, its properties as a metric, its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import cdist

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core import mmd as mmd_module
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.mmd import (
    Discrepancy,
    PairFeatures,
    choose_bandwidths,
    kernel_matrix,
    kernel_mean,
)

KINDS = ("std", "median", "gmmil")
CPU = torch.device("cpu")


def points(count, *, width=5, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) + shift


def uniform(count):
    return torch.full((count,), 1.0 / count)


def squared_mmd(own, demo, w, v, bandwidths):
    """By the definition, with whole matrices."""
    xx, xy, yy = (
        kernel_matrix(a, b, bandwidths) for a, b in ((own, own), (own, demo), (demo, demo))
    )
    return (w @ xx @ w - 2.0 * w @ xy @ v + v @ yy @ v).item()


def discrepancy(demo, *, kind="std", seed=3, **options):
    options = {"freeze_after": 5, "subsample": 999} | options
    return Discrepancy(demo, options.pop("weights", None), kind=kind, seed=seed, **options)


def measured(own, demo, weights=None, **options):
    measure = discrepancy(demo, **options)
    measure.begin(own)
    return measure.measure(own, weights)


# -- the kernel -----------------------------------------------------------------------------------


def test_kernel_matrix_by_the_definition(float64, monkeypatch):
    own, demo = points(13), points(7, seed=1)
    squares = torch.from_numpy(cdist(own.numpy(), demo.numpy(), "sqeuclidean"))
    expected = (-squares / 3.0).exp() + (-squares / 0.7).exp()
    torch.testing.assert_close(kernel_matrix(own, demo, (3.0, 0.7)), expected)
    monkeypatch.setattr(mmd_module, "BLOCK", 5)  # the last block is smaller
    for weights in (None, points(7, width=1, seed=2)[:, 0].abs()):
        mean = kernel_mean(own, demo, weights, (3.0, 0.7))
        torch.testing.assert_close(mean, expected @ (uniform(7) if weights is None else weights))


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_matrix_is_positive_semi_definite(float64, kind):
    """Over both sets together, whose spreads differ: with a bandwidth per block it would not be."""
    own, demo = 3.0 * points(31), 0.1 * points(17, seed=1, shift=0.5)
    both = torch.cat([own, demo])
    matrix = kernel_matrix(both, both, choose_bandwidths(kind, own, demo))
    assert torch.linalg.eigvalsh(matrix).min() >= -1e-10


def test_bandwidths_by_hand(float64):
    own, demo = torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [2.0]])
    # variances 4 and 1/4: σ² = σ_X σ_Y = 1
    assert choose_bandwidths("std", own, demo) == pytest.approx((2.0,))
    assert choose_bandwidths("std", own, demo, 3.0) == pytest.approx((18.0,))
    # distances of all pairs: 1, 1, 2, 2, 3, 4, the lower median is 2
    assert choose_bandwidths("median", own, demo) == pytest.approx((8.0,))
    # between the sets 1, 2, 3, 2; among the demonstrations 1
    assert choose_bandwidths("gmmil", own, demo) == pytest.approx((4.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_sets_without_spread_give_finite_numbers(float64, kind):
    same = torch.ones(3, 5)
    assert measured(same, same[:1], kind=kind).mmd <= 1.1e-6
    assert measured(same, same[:1] + 1.0, kind=kind).mmd.isfinite()


# -- the estimate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_equals_its_definition(float64, kind):
    own, demo = points(31), points(17, seed=1, shift=0.3)
    weights = points(31, width=1, seed=2)[:, 0].abs()
    for given, w in ((None, uniform(31)), (weights, weights / weights.sum())):
        measure = discrepancy(demo, kind=kind)
        measure.begin(own)
        result = measure.measure(own, given)
        expected = squared_mmd(own, demo, w, uniform(17), measure.bandwidths)
        assert result.mmd.item() ** 2 == pytest.approx(expected, abs=2e-12)
        # E_X f - E_Y f = MMD²
        at_demo = kernel_mean(demo, own, w, measure.bandwidths)
        at_demo -= kernel_mean(demo, demo, None, measure.bandwidths)
        assert (w @ result.witness - at_demo.mean()).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_zero_for_the_same_set_permuted_or_repeated(float64, kind):
    own = points(31)
    for demo in (own, own.flip(0), own.repeat(3, 1)):
        assert measured(own, demo, kind=kind).mmd.item() <= 1.1e-6  # the root of 1e-12
    doubled = torch.cat([own, own[:5]])
    weights = torch.cat([uniform(31)[:5] / 2, uniform(31)[5:], uniform(31)[:5] / 2])
    assert measured(doubled, own, weights, kind=kind).mmd.item() <= 1.1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_bounded_metric(float64, kind):
    sets = [points(n, seed=n, shift=shift) for n, shift in ((31, 0.0), (17, 0.4), (23, 2.0))]
    bandwidths = choose_bandwidths(kind, sets[0], sets[1])

    def distance(i, j):
        w, v = uniform(len(sets[i])), uniform(len(sets[j]))
        return math.sqrt(max(0.0, squared_mmd(sets[i], sets[j], w, v, bandwidths)))

    assert distance(0, 1) == pytest.approx(distance(1, 0))
    assert distance(0, 2) <= distance(0, 1) + distance(1, 2)
    assert 0.0 < distance(0, 1) < distance(0, 2)
    far = [sets[0], sets[0] + 1e3]
    single = math.sqrt(squared_mmd(far[0][:1], far[1][:1], uniform(1), uniform(1), bandwidths))
    assert single == pytest.approx(math.sqrt(2 * len(bandwidths)))  # the largest it can be
    assert single <= (2.0 if kind == "gmmil" else math.sqrt(2.0)) + 1e-12


def with_absorbing(own, last, counts):
    """Points and weights: pairs, then absorbing states that stand for so many rows each."""
    weights = torch.cat([torch.ones(len(own)), torch.tensor(counts)]).double()
    return torch.cat([own, last]), weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_weighted_absorbing_state_is_as_many_rows(float64, kind):
    own, demo = points(31), points(17, seed=1, shift=0.3)
    last, landed = points(3, seed=2, shift=1.0), points(2, seed=3, shift=-1.0)
    counts, demo_counts = [7.0, 1.0, 12.0], [4.0, 9.0]
    both, weights = with_absorbing(own, last, counts)
    demos, demo_weights = with_absorbing(demo, landed, demo_counts)
    measure = discrepancy(demos, weights=demo_weights, pairs=17, kind=kind)
    measure.begin(both, 31)
    # by the pairs alone: how often absorbing states count is no matter of the kernel's width
    assert measure.bandwidths == pytest.approx(choose_bandwidths(kind, own, demo))

    result = measure.measure(both, weights)
    rows = torch.cat([own, last.repeat_interleave(torch.tensor([7, 1, 12]), dim=0)])
    demo_rows = torch.cat([demo, landed.repeat_interleave(torch.tensor([4, 9]), dim=0)])
    expected = squared_mmd(rows, demo_rows, uniform(51), uniform(30), measure.bandwidths)
    assert result.mmd.item() ** 2 == pytest.approx(expected, abs=2e-12)
    assert measure.initial_mmd(both, weights).item() == pytest.approx(result.mmd.item())
    witness = kernel_mean(both, rows, None, measure.bandwidths)
    witness -= kernel_mean(both, demo_rows, None, measure.bandwidths)
    torch.testing.assert_close(result.witness, witness)
    assert result.share.item() == pytest.approx(31 / 51)
    sizes = [(31 + 49 + 1 + 144) / 51**2, (17 + 16 + 81) / 30**2]
    assert result.floor == pytest.approx(math.sqrt(sum(sizes)))


def test_subsamples_keep_the_weight_of_absorbing_states(float64):
    """All weight on two points, so that the estimate says how much each has."""
    own = torch.zeros(503, 1)
    last = torch.full((41, 1), 9.0)
    counts = torch.arange(41) % 7 + 1.0
    both, weights = with_absorbing(own, last, counts.tolist())
    share = 503 / (503 + counts.sum().item())
    for subsample in (7, 60, 999):
        measure = discrepancy(torch.zeros(5, 1), subsample=subsample)
        measure.begin(both, 503)
        assert measure.measure(both, weights).mmd.item() == pytest.approx(
            math.sqrt(2.0) * (1.0 - share)
        )
        # the same as demonstrations
        measure = discrepancy(both, weights=weights, pairs=503, subsample=subsample)
        measure.begin(torch.zeros(5, 1))
        expected = math.sqrt(2.0) * (1.0 - share)
        assert measure.measure(torch.zeros(5, 1)).mmd.item() == pytest.approx(expected)


def test_float32_is_close_to_float64():
    own, demo = points(999, width=14), points(499, width=14, seed=1, shift=0.02)
    exact = measured(own.double(), demo.double())
    result = measured(own, demo)
    assert result.mmd.item() == pytest.approx(exact.mmd.item(), rel=1e-4)
    torch.testing.assert_close(result.witness, exact.witness, atol=1e-6, rtol=0.0)


def test_subsamples_are_seeded_and_come_close(float64):
    own, demo = points(2_000), points(1_000, seed=1, shift=0.5)
    whole = measured(own, demo, subsample=2_000)
    part, again, other = (measured(own, demo, subsample=500, seed=seed) for seed in (3, 3, 4))
    assert part.mmd == again.mmd != other.mmd
    assert part.witness.shape == (2_000,)  # everywhere, not only where sampled
    assert part.mmd.item() == pytest.approx(whole.mmd.item(), rel=0.15)
    torch.testing.assert_close(part.witness, whole.witness, atol=0.05, rtol=0.0)
    assert part.floor == pytest.approx(math.sqrt(1 / 500 + 1 / 500))


def test_the_effective_number_of_weighted_points_sets_the_floor(float64):
    weights = torch.tensor([1.0] * 4 + [0.0] * 6)
    result = measured(points(10), points(5, seed=1), weights)
    assert result.floor == pytest.approx(math.sqrt(1 / 4 + 1 / 5))


# -- bandwidths over time -------------------------------------------------------------------------


def test_bandwidths_follow_the_first_rollouts_then_stay(float64):
    measure = discrepancy(points(17), freeze_after=2)
    seen = []
    for scale in (1.0, 2.0, 3.0, 4.0):
        measure.begin(scale * points(31, seed=1))
        before = measure.bandwidths
        measure.measure(scale * points(31, seed=1))
        assert measure.bandwidths == before  # one kernel for a whole iteration
        seen.append(before)
    assert seen[0] != seen[1] == seen[2] == seen[3]
    assert measure.initial_bandwidths == seen[0]


def test_the_first_bandwidths_stay_available_for_comparisons(float64):
    demo, own = points(17), 2.0 * points(31, seed=1)
    measure = discrepancy(demo)
    measure.begin(points(31, seed=2))
    first = measure.bandwidths
    measure.begin(own)
    expected = squared_mmd(own, demo, uniform(31), uniform(17), first)
    for _ in range(2):
        assert measure.initial_mmd(own).item() ** 2 == pytest.approx(expected)
        now = squared_mmd(own, demo, uniform(31), uniform(17), measure.bandwidths)
        assert measure.measure(own).mmd.item() ** 2 == pytest.approx(now)


def test_state_round_trip_continues_the_same(float64):
    demo = points(17)
    measure, restored = (discrepancy(demo, subsample=11, freeze_after=2) for _ in range(2))
    measure.begin(points(31, seed=1))
    restored.load_state_dict(measure.state_dict())
    for seed in (2, 3):
        own = (1.0 + seed) * points(31, seed=seed)
        for one in (measure, restored):
            one.begin(own)
        assert torch.equal(measure.measure(own).witness, restored.measure(own).witness)
        assert measure.initial_mmd(own) == restored.initial_mmd(own)


# -- features -------------------------------------------------------------------------------------


def demo_tensors(observations, actions):
    return DemoTensors(observations, actions, torch.zeros(len(actions), dtype=torch.int64))


def test_features_are_standardised_by_the_demonstrations(float64):
    observations = torch.stack([points(17, width=3), torch.full((17, 3), 2.0)], dim=1)  # (17, 2, 3)
    actions = torch.rand(17, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 4.0]
    )
    distribution = make_distribution(ActionSpec("continuous", (2,), (0.0, 0.0), (1.0, 4.0)))
    features = PairFeatures(demo_tensors(observations, actions), distribution, device=CPU)
    z = features(observations, distribution.encode(actions))
    assert z.shape == (17, 8)
    torch.testing.assert_close(z.mean(0), torch.zeros(8))
    std = torch.tensor([1.0] * 3 + [0.0] * 3 + [1.0] * 2)
    torch.testing.assert_close(z.std(0, correction=0), std)
    outside = features(observations + 0.01, distribution.encode(actions) * 1e3)
    torch.testing.assert_close(outside[:, 3:6], torch.full((17, 3), 5.0))  # 0.01 / 1e-3, clipped
    bounds = features(observations, distribution.encode(actions).sign())
    torch.testing.assert_close(outside[:, 6:], bounds[:, 6:])  # actions as clipped to the bounds


def test_discrete_actions_are_one_hot_times_their_scale(float64):
    actions = torch.tensor([0, 2, 1, 1])
    distribution = make_distribution(ActionSpec("discrete", (3,)))
    demos = demo_tensors(points(4), actions)
    features = PairFeatures(demos, distribution, action_scale=0.5, indicator=True, device=CPU)
    z = features(demos.observations, actions)
    torch.testing.assert_close(z[:, 5:8], 0.5 * torch.eye(3)[actions])
    assert z[:, 8].tolist() == [0.0] * 4


def test_an_absorbing_state_is_where_the_episode_ended_and_marked(float64):
    actions = torch.tensor([0, 2, 1, 1])
    distribution = make_distribution(ActionSpec("discrete", (3,)))
    demos = demo_tensors(points(4), actions)
    features = PairFeatures(demos, distribution, indicator=True, device=CPU)
    z = features(demos.observations, actions)
    after = features.absorbing(demos.observations)
    assert torch.equal(after[:, :5], z[:, :5])  # a crash is not a landing
    assert (after[:, 5:8] == 0.0).all()  # nothing is done
    # the mark alone is as far as two demonstrated pairs are from each other
    typical = torch.cdist(z, z).square().mean().sqrt()
    torch.testing.assert_close(after[:, 8], typical.expand(4))


# -- the gradient, on decision processes whose occupancy is known exactly -------------------------

STATES, ACTIONS, GAMMA = 5, 3, 0.9
PAIRS = STATES * ACTIONS


class Tabular:
    """A random decision process with softmax policies θ (S, A) and exact occupancies.

    With `ending`, episodes end with a probability that depends on state and action and nothing is
    discounted: steps count alike, as in a rollout. Otherwise nothing ends and γ discounts.
    """

    def __init__(self, *, ending, seed=0):
        generator = torch.Generator().manual_seed(seed)
        moves = torch.rand(STATES, ACTIONS, STATES, generator=generator)
        self.moves = moves / moves.sum(-1, keepdim=True)
        going_on = torch.full((STATES, ACTIONS), GAMMA)
        if ending:
            going_on = 0.5 + 0.45 * torch.rand(STATES, ACTIONS, generator=generator)
        self.moves = self.moves * going_on[..., None]  # (S, A, S'), rows add up to less than 1
        start = torch.rand(STATES, generator=generator)
        self.start = start / start.sum()
        self.features = torch.randn(PAIRS, 4, generator=generator)
        self.theta = torch.randn(STATES, ACTIONS, generator=generator)
        self.expert = self.occupancy(torch.randn(STATES, ACTIONS, generator=generator))
        self.bandwidths = (5.0,)

    def occupancy(self, theta):
        """ρ(s, a): expected visits, scaled to add up to 1. Shape (S A,)."""
        policy = theta.softmax(-1)
        over_states = torch.einsum("sa,sat->st", policy, self.moves)
        visits = torch.linalg.solve((torch.eye(STATES) - over_states).T, self.start)
        pairs = (visits[:, None] * policy).flatten()
        return pairs / pairs.sum()

    def mmd(self, theta):
        weights = self.occupancy(theta)
        return math.sqrt(
            squared_mmd(self.features, self.features, weights, self.expert, self.bandwidths)
        )

    def witness(self, theta):
        own = kernel_mean(self.features, self.features, self.occupancy(theta), self.bandwidths)
        return own - kernel_mean(self.features, self.features, self.expert, self.bandwidths)

    def policy_gradient(self, theta, cost):
        """E_ρ[∇ log π Q] with Q the undiscounted sum of `cost` (S A,) to the end. (S, A)."""
        policy = theta.softmax(-1)
        pair_moves = torch.einsum("sat,tb->satb", self.moves, policy).reshape(PAIRS, PAIRS)
        q = torch.linalg.solve(torch.eye(PAIRS) - pair_moves, cost).view(STATES, ACTIONS)
        advantage = q - (policy * q).sum(-1, keepdim=True)
        return self.occupancy(theta).view(STATES, ACTIONS) * advantage


def finite_differences(function, theta, step=1e-5):
    gradient = torch.zeros_like(theta)
    for index in range(theta.numel()):
        shift = torch.zeros(theta.numel())
        shift[index] = step
        shift = shift.view_as(theta)
        gradient.view(-1)[index] = (function(theta + shift) - function(theta - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("ending", [False, True])
def test_the_gradient_is_the_policy_gradient_of_the_witness(float64, ending):
    process = Tabular(ending=ending)
    expected = finite_differences(process.mmd, process.theta)
    witness = process.witness(process.theta)
    centred = witness - process.occupancy(process.theta) @ witness
    gradient = process.policy_gradient(process.theta, centred) / process.mmd(process.theta)
    torch.testing.assert_close(gradient, expected, atol=1e-8, rtol=0.0)
    uncentred = process.policy_gradient(process.theta, witness) / process.mmd(process.theta)
    # centring changes nothing where episodes do not end by what is done in them
    assert torch.allclose(uncentred, expected, atol=1e-8, rtol=0.0) == (not ending)


@pytest.mark.parametrize("ending", [False, True])
def test_a_small_recovery_step_lowers_the_exact_mmd(float64, ending):
    """Natural gradient: the Fisher matrix of a softmax table is block-diagonal over states."""
    process = Tabular(ending=ending, seed=1)
    theta, delta = process.theta, 1e-4
    witness = process.witness(theta)
    centred = witness - process.occupancy(theta) @ witness
    b = process.policy_gradient(theta, centred) / process.mmd(theta)
    policy = theta.softmax(-1)
    visits = process.occupancy(theta).view(STATES, ACTIONS).sum(-1)
    fisher = torch.block_diag(
        *(visit * (torch.diag(p) - p.outer(p)) for visit, p in zip(visits, policy, strict=True))
    )
    w = torch.linalg.solve(fisher + 1e-8 * torch.eye(PAIRS), b.flatten())
    step = -math.sqrt(2.0 * delta / (b.flatten() @ w).item()) * w.view_as(theta)
    predicted = (b * step).sum().item()
    actual = process.mmd(theta + step) - process.mmd(theta)
    assert actual < 0.0
    assert actual == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("ending", [False, True])
def test_the_sampled_gradient_is_right_within_monte_carlo_error(float64, ending):
    """Rollouts of whole episodes, uniform step weights, sums of the centred witness to the end."""
    process = Tabular(ending=ending, seed=2)
    theta, generator = process.theta, torch.Generator().manual_seed(0)
    policy, episodes = theta.softmax(-1), 40_000
    expected = finite_differences(process.mmd, theta).flatten()
    states = torch.multinomial(process.start, episodes, replacement=True, generator=generator)
    ids, visited = torch.arange(episodes), []
    ends = torch.cat([process.moves, 1.0 - process.moves.sum(-1, keepdim=True)], dim=-1)
    while len(ids):
        actions = torch.multinomial(policy[states], 1, generator=generator)[:, 0]
        visited.append((ids, states * ACTIONS + actions))
        following = torch.multinomial(ends[states, actions], 1, generator=generator)[:, 0]
        ids, states = ids[following < STATES], following[following < STATES]
    pairs = torch.cat([pair for _, pair in visited])
    counts = torch.bincount(pairs, minlength=PAIRS) / len(pairs)
    own = kernel_mean(process.features, process.features, counts, process.bandwidths)
    witness = own - kernel_mean(
        process.features, process.features, process.expert, process.bandwidths
    )
    costs = witness - counts @ witness
    sums, per_episode = torch.zeros(episodes), torch.zeros(episodes, PAIRS)
    for ids, pair in reversed(visited):
        sums[ids] += costs[pair]
        scores = torch.zeros(len(ids), STATES, ACTIONS)
        scores[torch.arange(len(ids)), pair // ACTIONS] = -policy[pair // ACTIONS]
        scores.view(len(ids), -1)[torch.arange(len(ids)), pair] += 1.0
        per_episode[ids] += scores.view(len(ids), -1) * sums[ids, None]
    scale = episodes / len(pairs) / process.mmd(theta)
    estimate = scale * per_episode.mean(0)
    error = scale * per_episode.std(0) / math.sqrt(episodes)
    assert ((estimate - expected).abs() < 5.0 * error).all()
    assert (error < 0.2 * expected.abs().max()).all()  # so the test can fail
