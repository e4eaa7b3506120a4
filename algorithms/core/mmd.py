"""Maximum mean discrepancy (MMD) between the learner's and the demonstrators' state-action pairs.

Gretton et al., "A kernel method for the two-sample problem" (2007). With points X, Y and weights
w, v that add up to 1, and a kernel k (always the biased V-statistic, which is never negative):

    MMD² = wᵀ K_XX w - 2 wᵀ K_XY v + vᵀ K_YY v
    f(z) = Σ_i w_i k(z, x_i) - Σ_j v_j k(z, y_j)            (witness: E_X f - E_Y f = MMD²)
    ∇_θ MMD = (1 / MMD) ∇_θ E_{ρ_πθ}[f], f held fixed       (a policy gradient with cost f / MMD)

One kernel serves all three blocks. Equation 8 of Jing and Ma (MCPO) gives each its own bandwidth,
which need not be positive semi-definite.

Where an episode terminated before its time, absorbing states (`core/absorbing.py`) stand for the
rest of it: one point each, of as many times the weight of a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core.distributions import Distribution

__all__ = [
    "Discrepancy",
    "KernelName",
    "Mismatch",
    "PairFeatures",
    "choose_bandwidths",
    "kernel_matrix",
    "kernel_mean",
]

KernelName = Literal["std", "median", "gmmil"]

BLOCK = 256  # rows of the kernel matrix at a time: what fits into the cache
MEDIAN_POINTS = 1_000  # of each set, where a bandwidth is a median over pairs
STD_FLOOR, CLIP = 1e-3, 5.0  # of standardised features


def kernel_matrix(points: Tensor, anchors: Tensor, bandwidths: tuple[float, ...]) -> Tensor:
    """Return k(z, z') = Σ_h exp(-‖z - z'‖² / h) of all pairs.

    Args:
        points: Shape (n, F).
        anchors: Shape (m, F).
        bandwidths: The h, all > 0. An RBF of width σ has h = 2σ².

    Returns:
        Shape (n, m). Entries lie in [0, number of bandwidths].
    """
    squares = anchors.square().sum(1).expand(len(points), -1)
    distances = torch.addmm(squares, points, anchors.T, alpha=-2.0)  # (n, m)
    distances.add_(points.square().sum(1, keepdim=True)).clamp_(min=0.0)
    others = [(distances / -bandwidth).exp_() for bandwidth in bandwidths[1:]]
    total = distances.div_(-bandwidths[0]).exp_()
    for other in others:
        total += other
    return total


def kernel_mean(
    points: Tensor, anchors: Tensor, weights: Tensor | None, bandwidths: tuple[float, ...]
) -> Tensor:
    """Return Σ_j weight_j k(z, anchor_j) for each point, block by block, added up in float64.

    Args:
        points: Shape (n, F).
        anchors: Shape (m, F).
        weights: Shape (m,), adding up to 1. None = uniform.
        bandwidths: See `kernel_matrix`.

    Returns:
        Shape (n,), float64.
    """
    means = torch.empty(len(points), dtype=torch.float64, device=points.device)
    for start in range(0, len(points), BLOCK):
        block = kernel_matrix(points[start : start + BLOCK], anchors, bandwidths)
        if weights is not None:
            block.mul_(weights.to(block.dtype))
        means[start : start + BLOCK] = block.sum(1, dtype=torch.float64)
    return means if weights is not None else means.div_(len(anchors))


def choose_bandwidths(
    kind: KernelName, own: Tensor, demo: Tensor, scale: float = 1.0
) -> tuple[float, ...]:
    """Choose the kernel's bandwidths h by both sets, so that one kernel serves all blocks.

    std: σ² = σ_X σ_Y, σ the root of a set's summed variances (eq 8 of MCPO with one bandwidth).
    median: σ = median distance between any two points of both sets together.
    gmmil: h_1 = median squared distance between both sets, h_2 = among the demonstrations
    (Kim and Park, 2018), in squared distances that are summed, not averaged, over features.

    Args:
        kind: Which rule.
        own: The learner's points. Shape (n, F), in random order.
        demo: The demonstrators' points. Shape (m, F), in random order.
        scale: Factor of σ.
    """
    if kind == "std":
        variances = [points.double().var(0, correction=0).sum() for points in (own, demo)]
        raw = [2.0 * float(variances[0] * variances[1]) ** 0.5]
    else:
        own, demo = own[:MEDIAN_POINTS], demo[:MEDIAN_POINTS]
        if kind == "median":
            raw = [2.0 * float(torch.pdist(torch.cat([own, demo])).median()) ** 2]
        else:
            among = torch.pdist(demo) if len(demo) > 1 else torch.zeros(1)
            medians = (torch.cdist(own, demo).median(), among.median())
            raw = [float(median) ** 2 for median in medians]
    floor = 1e-6 * own.shape[1]  # where all points are the same
    return tuple(scale**2 * max(value, floor) for value in raw)


class PairFeatures:
    """What a kernel sees of a pair (s, a), scaled by the demonstrations' mean and std.

    Observations and continuous actions (clipped to their bounds) are standardised and clipped to
    ±5; discrete actions are one-hot. `action_scale` multiplies all action features.

    Args:
        demos: The demonstrations.
        distribution: Of the learner's policy.
        action_scale: See above.
        indicator: Whether to add a mark, a feature that is 0 of all pairs and not of absorbing
            states: two points that differ in it alone are as far apart as two demonstrated pairs
            (root mean square). As far as a single standardised feature goes no kernel would see it.
    """

    def __init__(
        self,
        demos: DemoTensors,
        distribution: Distribution,
        *,
        action_scale: float = 1.0,
        indicator: bool = False,
        device: torch.device,
    ) -> None:
        self.device = device
        self._distribution, self._action_scale = distribution, action_scale
        self._indicator = indicator
        observations = demos.observations.to(device).flatten(1)
        observations = observations.to(torch.get_default_dtype())
        self._mean, self._std = _statistics(observations)
        actions = distribution.features(distribution.encode(demos.actions.to(device)))
        self._action_mean = torch.zeros(actions.shape[1], device=device)
        self._action_std = torch.ones(actions.shape[1], device=device)
        if demos.actions.is_floating_point():  # everything else is one-hot
            self._action_mean, self._action_std = _statistics(actions)
        self._num_actions = actions.shape[1]
        if indicator:
            encoded = distribution.encode(demos.actions.to(device))
            spread = 2.0 * self(observations, encoded).var(0, correction=0).sum()
            self._mark = spread.sqrt().clamp(min=1.0)

    def __call__(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return z of observations (B, *S) and actions (B, ...) in policy units. (B, F)."""
        features = self._distribution.features(actions)
        features = (features - self._action_mean) / self._action_std
        parts = [
            self._observed(observations),
            features.clamp(-CLIP, CLIP) * self._action_scale,
        ]
        if self._indicator:
            parts.append(features.new_zeros(len(features), 1))
        return torch.cat(parts, dim=1)

    def absorbing(self, observations: Tensor) -> Tensor:
        """Return z of absorbing states: last observations (B, *S), no action, marked. (B, F)."""
        seen = self._observed(observations)
        done = seen.new_zeros(len(seen), self._num_actions)
        return torch.cat([seen, done, self._mark.to(seen).expand(len(seen), 1)], dim=1)

    def _observed(self, observations: Tensor) -> Tensor:
        return ((observations.flatten(1) - self._mean) / self._std).clamp(-CLIP, CLIP)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0, correction=0).clamp(min=STD_FLOOR)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """How a rollout differs from the demonstrations.

    Attributes:
        mmd: Root of MMD² + 1e-12, so that its gradient exists. Scalar, float64.
        witness: f at every point of the rollout. Shape (n,), float64.
        floor: √(1/n_eff + 1/m_eff), the order of the MMD between finite samples of equals, with
            n_eff = 1 / Σ w².
        share: Of the pairs in the rollout's weight; absorbing states have the rest. ∇MMD is this
            times the mean over pairs of ∇log π times their advantage of f / MMD. Scalar, float64.
    """

    mmd: Tensor
    witness: Tensor
    floor: float
    share: Tensor


class Discrepancy:
    """MMD between rollouts and one set of demonstrations, with one kernel for a whole iteration.

    Sets consist of pairs, then of absorbing states. Of either at most `subsample` points enter the
    sums, and keep the weight of all together; the witness is evaluated everywhere. The
    demonstrations' sub-sample is drawn once, the rollout's at each `begin`. Bandwidths are chosen
    by the pairs: absorbing states are few points with most of the weight at first and none later,
    and the width is to resolve what is done.

    Args:
        demo: Features of demonstrated pairs, then of absorbing states. Shape (M, F).
        weights: Shape (M,), positive. None = uniform.
        pairs: How many of them are pairs. None = all.
        kind: Kernel, see `choose_bandwidths`.
        scale: Factor of its width.
        freeze_after: Rollouts that may set the bandwidths; later ones are measured in the same
            units as the last of them. At least 1.
        subsample: Points of each set, at most.
        seed: Of the sub-samples; no other draws depend on them.
    """

    def __init__(
        self,
        demo: Tensor,
        weights: Tensor | None = None,
        *,
        pairs: int | None = None,
        kind: KernelName,
        scale: float = 1.0,
        freeze_after: int,
        subsample: int,
        seed: int,
    ) -> None:
        self._kind: KernelName = kind
        self._scale, self._freeze_after, self._subsample = scale, freeze_after, subsample
        self._generator = torch.Generator().manual_seed(seed)
        drawn = self._draw(demo, pairs)
        self.demo, self.demo_weights = drawn.points(demo), drawn.weights(weights)
        self._demo_pairs = len(drawn.pairs)
        self.bandwidths: tuple[float, ...] = ()
        self.initial_bandwidths: tuple[float, ...] = ()
        self.rollouts = 0
        self._drawn = drawn
        self._demo_terms: dict[tuple[float, ...], Tensor] = {}

    def _draw(self, points: Tensor, pairs: int | None) -> _Drawn:
        total = len(points)
        pairs = total if pairs is None else pairs

        def draw(count: int) -> Tensor:
            rows = torch.randperm(count, generator=self._generator)[: self._subsample]
            return rows.to(points.device)

        of_pairs = draw(pairs)
        return _Drawn(of_pairs, pairs + draw(total - pairs), pairs)

    def begin(self, own: Tensor, pairs: int | None = None) -> None:
        """Draw the sub-sample of a new rollout and choose the bandwidths, unless frozen.

        Args:
            own: Features of pairs, then of absorbing states. Shape (n, F).
            pairs: How many of them are pairs. None = all.
        """
        self._drawn = self._draw(own, pairs)
        if self.rollouts < self._freeze_after:
            points, demo = own[self._drawn.pairs], self.demo[: self._demo_pairs]
            self.bandwidths = choose_bandwidths(self._kind, points, demo, self._scale)
            self.initial_bandwidths = self.initial_bandwidths or self.bandwidths
        self.rollouts += 1

    def measure(self, own: Tensor, weights: Tensor | None = None) -> Mismatch:
        """Compare the rollout of the last `begin` with the demonstrations.

        Args:
            own: Shape (n, F).
            weights: Shape (n,), positive; scaled to add up to 1. None = uniform.
        """
        demo, bandwidths = self.demo, self.bandwidths
        points, w = self._drawn.points(own), self._drawn.weights(weights)
        to_own = kernel_mean(own, points, w, bandwidths)
        to_demo = kernel_mean(own, demo, self.demo_weights, bandwidths)
        rows = self._drawn.rows
        mmd = self._mmd(to_own[rows], to_demo[rows], w, bandwidths)
        floor = math.sqrt(_inverse_size(points, w) + _inverse_size(demo, self.demo_weights))
        every = torch.ones(len(own)) if weights is None else weights
        share = (every[: self._drawn.num_pairs].sum() / every.sum()).double()
        return Mismatch(mmd, to_own - to_demo, floor, share)

    def initial_mmd(self, own: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the MMD of the last `begin`'s rollout under the first rollout's bandwidths."""
        points, w = self._drawn.points(own), self._drawn.weights(weights)
        bandwidths = self.initial_bandwidths
        to_own = kernel_mean(points, points, w, bandwidths)
        to_demo = kernel_mean(points, self.demo, self.demo_weights, bandwidths)
        return self._mmd(to_own, to_demo, w, bandwidths)

    def _mmd(
        self, to_own: Tensor, to_demo: Tensor, w: Tensor | None, bandwidths: tuple[float, ...]
    ) -> Tensor:
        if bandwidths not in self._demo_terms:
            v = self.demo_weights
            term = _weighted_mean(kernel_mean(self.demo, self.demo, v, bandwidths), v)
            kept = {
                key: self._demo_terms[key] for key in self._demo_terms if key == self.bandwidths
            }
            self._demo_terms = {**kept, bandwidths: term}
        squared = _weighted_mean(to_own - 2.0 * to_demo, w) + self._demo_terms[bandwidths]
        return squared.clamp(min=0.0).add(1e-12).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next `begin` depends on."""
        return {
            "bandwidths": torch.tensor(self.bandwidths, dtype=torch.float64),
            "initial_bandwidths": torch.tensor(self.initial_bandwidths, dtype=torch.float64),
            "rollouts": self.rollouts,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.bandwidths = tuple(state["bandwidths"].tolist())
        self.initial_bandwidths = tuple(state["initial_bandwidths"].tolist())
        self.rollouts = int(state["rollouts"])
        self._generator.set_state(state["generator"])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A sub-sample: rows of pairs, rows of absorbing states, and how many pairs there are."""

    pairs: Tensor
    absorbing: Tensor
    num_pairs: int

    @property
    def rows(self) -> Tensor:
        return torch.cat([self.pairs, self.absorbing])

    def points(self, points: Tensor) -> Tensor:
        return points[self.rows]

    def weights(self, weights: Tensor | None) -> Tensor | None:
        """Return the drawn ones, scaled: together to 1, of either kind to what all of it has."""
        if weights is None:
            return None
        parts = []
        every = weights.double()
        for rows, whole in (
            (self.pairs, every[: self.num_pairs]),
            (self.absorbing, every[self.num_pairs :]),
        ):
            drawn = every[rows]
            parts.append(drawn * (whole.sum() / drawn.sum()) if len(rows) else drawn)
        return torch.cat(parts) / every.sum()


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else weights @ values


def _inverse_size(points: Tensor, weights: Tensor | None) -> float:
    return 1.0 / len(points) if weights is None else float(weights.square().sum())
