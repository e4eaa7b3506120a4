"""PPO: proximal policy optimisation with the clipped surrogate.

Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization Algorithms", 2017,
arXiv 1707.06347. With ρ = π_θ(a|s) / π_old(a|s) and advantages A of generalised advantage
estimation (arXiv 1506.02438, eq 11 and 12 of the paper):

    L = -E[min(ρ A, clip(ρ, 1 ± ε) A)] + c_v E[(V(s) - R)²] - c_e E[H(π_θ(·|s))],   R = A + V_old(s)

minimised by some passes of minibatches over each rollout.

Departures from the paper:
  * policy and value function share no layers, of images all but the last; both are in one Adam.
  * advantages are standardised per minibatch, observations by running statistics; rewards are
    divided by the running std of the discounted return if wanted.
  * the gradient's norm is clipped; ε and the step size may fall over the budget; a pass is the last
    one when the divergence from the old policy has become too large (`target_kl`), if wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.registry import register

__all__ = ["PPO", "PPOConfig"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ClipFields):
    """Hyperparameters of PPO."""

    batch_steps: int = hyper(2_048, "env steps per iteration, over all environments", low=1)


@register
class PPO(Algorithm):
    """Proximal policy optimisation."""

    name = "ppo"
    title = "Proximal Policy Optimization Algorithms (Schulman et al., 2017)"
    summary = "on-policy: clipped surrogate, several passes over each rollout"
    Config = PPOConfig
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = PPOLearner.metric_definitions

    learner: PPOLearner

    def __init__(self, problem: Problem, config: PPOConfig) -> None:
        self.learner = PPOLearner(problem, config)

    def iteration(self, world: World) -> Metrics:
        """Act for one batch, then update policy and value function on it."""
        rollout = self.learner.collect(world)
        metrics = self.learner.improve(rollout, rollout.rewards)
        self.updates = self.learner.engine.count
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)
