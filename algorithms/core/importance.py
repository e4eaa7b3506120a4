"""Importance weights of few samples, and the partition function that they estimate.

Columns are separate problems: M samples each, some of which may be missing. Weights that rest on
too few samples are *tempered*, raised to a power β <= 1. The estimate of log Z then is the
variational Rényi bound (Li and Turner, 2016, arXiv 1602.02311, with α = 1 - β), whose gradient has
the tempered weights: never above that of β = 1, and exact where samples are drawn from the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["effective_size", "log_partition", "sound_order", "tempered_weights"]

BISECTIONS = 14
SMALLEST_ORDER = 1e-6  # of β: equal weights, for all that float32 knows


def effective_size(weights: Tensor) -> Tensor:
    """Return 1 / Σ w², between 1 and M, of weights (M, S) that sum to 1. Shape (S,)."""
    return 1.0 / weights.square().sum(0)


def tempered_weights(log_weights: Tensor, order: Tensor) -> Tensor:
    """Return w^β / Σ w^β; for β = 1 the importance weights.

    Args:
        log_weights: log w_j = r(ζ_j) - log q(ζ_j), -inf where there is no sample. Shape (M, S).
        order: β. Shape (S,).

    Returns:
        Shape (M, S); 0 where there is no sample.
    """
    scaled = torch.where(log_weights.isfinite(), log_weights * order, log_weights)
    return torch.softmax(scaled, dim=0).nan_to_num(0.0)


def _below_largest(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log w less the largest of its column, that one, and which samples are there.

    Where there is none, both are 0. Shapes (M, S), (S,), (M, S).
    """
    there = log_weights.isfinite()
    largest = torch.where(there.any(0), log_weights.amax(0), 0.0).detach()
    return torch.where(there, log_weights, largest) - largest, largest, there


@torch.no_grad()
def sound_order(log_weights: Tensor, floor: float) -> Tensor:
    """Return the largest β <= 1 with which the effective sample size is a share of the samples.

    Args:
        log_weights: As for `tempered_weights`. Shape (M, S).
        floor: The share.

    Returns:
        β, found by bisection: 1 where the size suffices as it is, near 0 where nothing else would
        do. Shape (S,).
    """
    below, _, there = _below_largest(log_weights)
    wanted = floor * there.sum(0)

    def sound(order: Tensor) -> Tensor:
        powers = (order * below).exp() * there
        return powers.sum(0).square() >= wanted * powers.square().sum(0)

    low, high = torch.zeros_like(log_weights[0]), torch.ones_like(log_weights[0])
    low = torch.where(sound(high), high, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        enough = sound(middle)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low.clamp(min=SMALLEST_ORDER)


def log_partition(log_weights: Tensor, order: Tensor) -> Tensor:
    """Return log Z = 1/β log 1/M Σ_j w_j^β of each column, 0 where there is no sample.

    With β = 1 the estimate of log ∫ exp r; with less a lower bound, which is tight where q is the
    target; towards 0 it tends to 1/M Σ_j log w_j.

    Args:
        log_weights: As for `tempered_weights`. Shape (M, S).
        order: β. Shape (S,).

    Returns:
        Shape (S,).
    """
    below, largest, there = _below_largest(log_weights)
    # not as a difference of logarithms, in which a small β would drown
    mean = (order * below).expm1().sum(0) / there.sum(0).clamp(min=1)
    return largest + mean.log1p() / order
