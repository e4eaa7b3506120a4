"""Maximum mean discrepancy (MMD) between the learner's and the demonstrators' state-action pairs.

Gretton et al., "A kernel method for the two-sample problem" (2007). With points X, Y and weights
w, v that add up to 1, and a kernel k (always the biased V-statistic, which is never negative):

    MMD² = wᵀ K_XX w - 2 wᵀ K_XY v + vᵀ K_YY v
    f(z) = Σ_i w_i k(z, x_i) - Σ_j v_j k(z, y_j)            (witness: E_X f - E_Y f = MMD²)
    ∇_θ MMD = (1 / MMD) ∇_θ E_{ρ_πθ}[f], f held fixed       (a policy gradient with cost f / MMD)

One kernel serves all three blocks. Equation 8 of Jing and Ma (MCPO) gives each its own bandwidth,
which need not be positive semi-definite.
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
        indicator: Whether to add a feature that is 1 in the absorbing state alone.
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
        self._width = observations.shape[1] + actions.shape[1]

    def __call__(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return z of observations (B, *S) and actions (B, ...) in policy units. (B, F)."""
        features = self._distribution.features(actions)
        features = (features - self._action_mean) / self._action_std
        parts = [
            ((observations.flatten(1) - self._mean) / self._std).clamp(-CLIP, CLIP),
            features.clamp(-CLIP, CLIP) * self._action_scale,
        ]
        if self._indicator:
            parts.append(features.new_zeros(len(features), 1))
        return torch.cat(parts, dim=1)

    def absorbing(self, count: int) -> Tensor:
        """Return `count` rows for the absorbing state: zeros and the indicator. (count, F)."""
        rows = torch.zeros(count, self._width + 1, device=self._mean.device)
        rows[:, -1] = 1.0
        return rows


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0, correction=0).clamp(min=STD_FLOOR)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """How a rollout differs from the demonstrations.

    Attributes:
        mmd: Root of MMD² + 1e-12, so that its gradient exists. Scalar, float64.
        witness: f at every point of the rollout. Shape (n,), float64.
        floor: √(1/n_eff + 1/m_eff), the order of the MMD between finite samples of equals.
    """

    mmd: Tensor
    witness: Tensor
    floor: float


class Discrepancy:
    """MMD between rollouts and one set of demonstrations, with one kernel for a whole iteration.

    At most `subsample` points of each set enter the sums; the witness is evaluated everywhere. The
    demonstrations' sub-sample is drawn once, the rollout's at each `begin`.

    Args:
        demo: Features of demonstrated pairs. Shape (M, F).
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
        *,
        kind: KernelName,
        scale: float = 1.0,
        freeze_after: int,
        subsample: int,
        seed: int,
    ) -> None:
        self._kind: KernelName = kind
        self._scale, self._freeze_after, self._subsample = scale, freeze_after, subsample
        self._generator = torch.Generator().manual_seed(seed)
        self.demo = demo[self._draw(len(demo)).to(demo.device)]
        self.bandwidths: tuple[float, ...] = ()
        self.initial_bandwidths: tuple[float, ...] = ()
        self.rollouts = 0
        self._rows = torch.zeros(0, dtype=torch.int64)
        self._demo_terms: dict[tuple[float, ...], Tensor] = {}

    def _draw(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator)[: self._subsample]

    def begin(self, own: Tensor) -> None:
        """Draw the sub-sample of a new rollout (n, F) and choose the bandwidths, unless frozen."""
        self._rows = self._draw(len(own)).to(own.device)
        if self.rollouts < self._freeze_after:
            points = own[self._rows]
            self.bandwidths = choose_bandwidths(self._kind, points, self.demo, self._scale)
            self.initial_bandwidths = self.initial_bandwidths or self.bandwidths
        self.rollouts += 1

    def measure(self, own: Tensor, weights: Tensor | None = None) -> Mismatch:
        """Compare the rollout of the last `begin` with the demonstrations.

        Args:
            own: Shape (n, F).
            weights: Shape (n,), positive; scaled to add up to 1. None = uniform.
        """
        rows, demo, bandwidths = self._rows, self.demo, self.bandwidths
        points = own[rows]
        if weights is not None:
            weights = weights[rows].double()
            weights = weights / weights.sum()
        to_own = kernel_mean(own, points, weights, bandwidths)
        to_demo = kernel_mean(own, demo, None, bandwidths)
        mmd = self._mmd(to_own[rows], to_demo[rows], weights, bandwidths)
        effective = len(rows) if weights is None else 1.0 / float(weights.square().sum())
        return Mismatch(mmd, to_own - to_demo, math.sqrt(1.0 / effective + 1.0 / len(demo)))

    def initial_mmd(self, own: Tensor) -> Tensor:
        """Return the MMD of the last `begin`'s rollout under the first rollout's bandwidths."""
        points, bandwidths = own[self._rows], self.initial_bandwidths
        to_own = kernel_mean(points, points, None, bandwidths)
        return self._mmd(to_own, kernel_mean(points, self.demo, None, bandwidths), None, bandwidths)

    def _mmd(
        self, to_own: Tensor, to_demo: Tensor, weights: Tensor | None, bandwidths: tuple[float, ...]
    ) -> Tensor:
        if bandwidths not in self._demo_terms:
            term = kernel_mean(self.demo, self.demo, None, bandwidths).mean()
            kept = {
                key: self._demo_terms[key] for key in self._demo_terms if key == self.bandwidths
            }
            self._demo_terms = {**kept, bandwidths: term}
        differences = to_own - 2.0 * to_demo
        inner = differences.mean() if weights is None else weights @ differences
        return (inner + self._demo_terms[bandwidths]).clamp(min=0.0).add(1e-12).sqrt()

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
