"""A2C: advantage actor-critic, all environments in step with each other.

Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", ICML 2016, arXiv 1602.01783,
without its asynchrony. With n-step returns of a rollout of n steps,

    R_t = Σ_{l<k} γ^l r_{t+l} + γ^k V(s_{t+k}),   k steps to the rollout's or the episode's end,

each rollout serves for one gradient step on

    L = -E[log π_θ(a|s) sg(R - V)] + c_v ½ E[(R - V_θ(s))²] - c_e E[H(π_θ(·|s))]

Departures from the paper:
  * one process acts in all environments, where many learned on their own.
  * policy and value function share no layers, of images all but the last; both are in one RMSProp,
    whose statistics are shared, as in the paper's best variant; the gradient's norm is clipped.
  * λ of generalised advantage estimation may be less than 1, which gives the n-step returns.
  * observations are standardised by running statistics; rewards and advantages, if wanted.
  * an episode that was cut off is bootstrapped from its true last observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World
from rlfd.algorithms.core.a2c_learner import A2CFields, A2CLearner
from rlfd.algorithms.registry import register

__all__ = ["A2C", "A2CConfig"]


@dataclass(frozen=True, kw_only=True)
class A2CConfig(A2CFields):
    """Hyperparameters of A2C."""


@register
class A2C(Algorithm):
    """Advantage actor-critic."""

    name = "a2c"
    title = "Asynchronous Methods for Deep Reinforcement Learning (Mnih et al., 2016)"
    summary = "on-policy: one step of actor and critic per short rollout"
    Config = A2CConfig
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = A2CLearner.metric_definitions

    learner: A2CLearner

    def __init__(self, problem: Problem, config: A2CConfig) -> None:
        self.learner = A2CLearner(problem, config)

    def iteration(self, world: World) -> Metrics:
        """Act for a few steps in every environment, then update policy and value function once."""
        rollout = self.learner.collect(world)
        metrics = self.learner.improve(rollout, rollout.rewards)
        self.updates = self.learner.engine.count
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)
