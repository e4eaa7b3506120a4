"""Weights of a regression on actions, and what they do to its effective size."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from rlfd.algorithms.base import Metrics

__all__ = [
    "WEIGHT_METRICS",
    "WeightAudit",
    "effective_share",
    "exponential_weights",
    "standardised",
]

logger = logging.getLogger("rlfd.weights")

WEIGHT_METRICS = {
    "weights/ess": "effective sample size (Σ w)² / Σ w², as a share of the pairs",
    "weights/clipped": "share of the weights that are clipped",
    "weights/advantage_std": "spread of what the weights are made of, in units of reward",
}

FEW = 0.02  # effective share below which a regression sees almost nothing
MOST = 0.5  # share of clipped weights above which they hardly tell good from bad


def standardised(values: Tensor) -> Tensor:
    """Return values with mean 0 and std 1; all 0 where they do not vary. Shape (M,)."""
    std = values.std(correction=0)
    return (values - values.mean()) / (std + 1e-5)


def exponential_weights(advantages: Tensor, beta: float, max_weight: float) -> Tensor:
    """Return min(exp(A / β), w_max), clipped in the exponent so that nothing overflows.

    Args:
        advantages: A. Any shape.
        beta: β > 0.
        max_weight: w_max > 0.
    """
    return (advantages / beta).clamp(max=math.log(max_weight)).exp()


def effective_share(weights: Tensor) -> Tensor:
    """Return (Σ w)² / (M Σ w²), 1 if all M weights are the same. A scalar."""
    squares = weights.square().sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return weights.sum().square() / (len(weights) * squares)


class WeightAudit:
    """Reports what weights do, and warns, once, where they leave almost nothing to learn from.

    Args:
        setting: What to change, in words.
    """

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self._silent = False

    def __call__(self, weights: Tensor, advantages: Tensor, max_weight: float) -> Metrics:
        """Look at weights and what they were made of, both (M,). Return `WEIGHT_METRICS`."""
        share, clipped = effective_share(weights), (weights >= 0.999 * max_weight).double().mean()
        problem = ""
        if not bool(weights.abs().max() > 1e-12):
            problem = "all weights vanish"
        elif float(share) < FEW:
            problem = f"{float(share):.1%} of the pairs carry the weight (effective sample size)"
        elif float(clipped) > MOST:
            problem = f"{float(clipped):.0%} of the weights are clipped at {max_weight:g}"
        if problem and not self._silent:
            self._silent = True
            logger.warning("%s; try %s", problem, self.setting)
        return {
            "weights/ess": share,
            "weights/clipped": clipped,
            "weights/advantage_std": advantages.std(correction=0),
        }
