"""TRPO: trust-region policy optimisation.

Schulman, Levine, Moritz, Jordan and Abbeel, "Trust Region Policy Optimization", ICML 2015,
arXiv 1502.05477. With advantages of generalised advantage estimation (arXiv 1506.02438) each
iteration solves

    maximise_θ E[π_θ(a|s) / π_old(a|s) A(s, a)]  subject to  mean KL(π_old ‖ π_θ) ≤ δ

by the step x = √(2δ / u·Hu) u with H u = g (conjugate gradients), shortened by a line search until
the objective gains and the divergence holds.

Departures from the paper:
  * advantages come from a fitted value function, not from sums of returns of a rollout or a vine.
  * advantages are standardised, observations are standardised by running statistics.
  * the matrix H has `damping` on its diagonal, and is averaged over a fifth of the states,
    which are drawn.
  * the line search tolerates 1.5 δ, as in the authors' later code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World
from rlfd.algorithms.core.trpo_learner import TRPOLearner, TrustRegionFields
from rlfd.algorithms.registry import register

__all__ = ["TRPO", "TRPOConfig"]


@dataclass(frozen=True, kw_only=True)
class TRPOConfig(TrustRegionFields):
    """Hyperparameters of TRPO."""


@register
class TRPO(Algorithm):
    """Trust-region policy optimisation."""

    name = "trpo"
    title = "Trust Region Policy Optimization (Schulman et al., 2015)"
    summary = "on-policy: natural gradient steps inside a KL trust region"
    Config = TRPOConfig
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = TRPOLearner.metric_definitions

    learner: TRPOLearner

    def __init__(self, problem: Problem, config: TRPOConfig) -> None:
        self.learner = TRPOLearner(problem, config)

    def iteration(self, world: World) -> Metrics:
        """Act for one batch, step inside the trust region, fit the value function."""
        rollout = self.learner.collect(world)
        metrics = self.learner.improve(rollout, rollout.rewards)
        self.updates = self.learner.engine.count
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)
