"""POfD: policy optimisation with demonstrations.

Kang, Jie and Feng, "Policy Optimization with Demonstrations", ICML 2018.

    min_θ -η(π_θ) - λ_2 H(π_θ) + λ_1 JS(ρ_πθ, ρ_E)

The divergence is that of a discriminator D (`core/discriminator.py`), so this is reinforcement
learning with the reward

    r'(s, a) = r(s, a) + λ_1 · (-log(1 - D(s, a)))

D being the probability of *demonstrated*; the paper's is that of the learner, and it writes
r - λ_1 log D. Public code mixes instead: r' = κ r_D + (1 - κ) r (`combine=mixture`), the same up to
scale with λ_1 = κ / (1 - κ).

Two baselines of later papers are settings: λ_1 annealed (`annealing`), and the maximum mean
discrepancy in place of the divergence (`matching=mmd`: r_D is that of `gmmil`).

Departures from the paper:
  * the step of the policy may be PPO's (`learner=ppo`) instead of TRPO's.
  * D makes `d_steps` Adam steps on minibatches, its inputs are standardised, and entropy and
    gradient penalty of D, other forms of r_D and what follows a terminal state are settings.
  * advantages of the sum r' are standardised; r and r_D are not scaled to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.absorbing import check_discount
from rlfd.algorithms.core.discriminator import ClassifierFields, DiscriminatorFields
from rlfd.algorithms.core.policy_learner import LEARNERS, PolicyLearner, make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trpo_learner import TRPOLearner
from rlfd.algorithms.gail import AdversarialReward
from rlfd.algorithms.gmmil import MMD_METRICS, Matching, MatchingFields
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["POfD", "POfDConfig", "annealed", "combined_reward"]

Combination = Literal["sum", "mixture"]

WEIGHT_METRIC = {"reward/weight": "λ_1 (κ in a mixture), weight of the learned reward"}


@dataclass(frozen=True, kw_only=True)
class POfDConfig(DiscriminatorFields, MatchingFields, ClipFields):
    """Hyperparameters of POfD."""

    readers: ClassVar[Readers] = {
        "learner": LEARNERS,
        "matching": {
            "discriminator": (
                *ClassifierFields.own_settings(),
                *DiscriminatorFields.own_settings(),
            ),
            "mmd": MatchingFields.own_settings(),
        },
    }

    learner: Literal["trpo", "ppo"] = hyper("trpo", "who improves the policy")
    matching: Literal["discriminator", "mmd"] = hyper(
        "discriminator", "what r_D is made of: log odds, or the witness of the MMD"
    )
    lambda_1: float = hyper(0.1, "λ_1, weight of r_D; κ if combine=mixture", low=0)
    combine: Combination = hyper("sum", "r + λ_1 r_D, or (1 - λ_1) r + λ_1 r_D")
    annealing: float = hyper(
        0.0, "ε, λ_1 is multiplied by 1 - ε after each iteration", low=0, high=1
    )
    d_steps: int = hyper(5, "Adam steps of the discriminator per iteration", low=1)
    d_batch_size: int = hyper(1_000, "pairs per step from each side", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)
        if self.combine == "mixture" and self.lambda_1 > 1.0:
            raise RlfdError(
                f"lambda_1 is {self.lambda_1}, expected at most 1: in a mixture it is a share",
                "set combine=sum",
            )


def combined_reward(
    rewards: Tensor, learned: Tensor, weight: float, combine: Combination
) -> Tensor:
    """Return r + w r_D, or (1 - w) r + w r_D.

    Args:
        rewards: r, the environment's. Any shape.
        learned: r_D. The same shape.
        weight: w.
        combine: ``sum`` or ``mixture``.
    """
    if combine == "mixture":
        rewards = (1.0 - weight) * rewards
    return rewards + weight * learned


def annealed(weight: float, epsilon: float, iterations: int) -> float:
    """Return λ_1 (1 - ε)^k, the weight after k iterations."""
    return weight * (1.0 - epsilon) ** iterations


@register
class POfD(Algorithm):
    """Policy optimisation with demonstrations."""

    name = "pofd"
    title = "Policy Optimization with Demonstrations (Kang et al., 2018)"
    summary = "TRPO or PPO on the environment's reward plus one for being like the demonstrations"
    Config = POfDConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **TRPOLearner.metric_definitions,
        **AdversarialReward.metric_definitions,
        **WEIGHT_METRIC,
    }

    learner: PolicyLearner

    def __init__(self, problem: Problem, config: POfDConfig) -> None:
        self.config = config
        self.learner = make_policy_learner(config.learner, problem, config)
        distribution = self.learner.actor.distribution
        self.source: AdversarialReward | Matching
        if config.matching == "mmd":
            self.source = Matching(problem, config, distribution, config.gamma)
            source_metrics = MMD_METRICS
        else:
            self.source = AdversarialReward(
                problem,
                config,
                distribution,
                gamma=config.gamma,
                steps_per_round=config.batch_steps,
            )
            source_metrics = self.source.metric_definitions
        self.iterations = 0
        self.metric_definitions = self.learner.metric_definitions | source_metrics | WEIGHT_METRIC

    def iteration(self, world: World) -> Metrics:
        """Act for one batch, train D on it, improve the policy by r'."""
        config = self.config
        rollout = self.learner.collect(world)
        learned, after_end, metrics = self._learned_reward(rollout)
        weight = annealed(config.lambda_1, config.annealing, self.iterations)
        rewards = combined_reward(rollout.rewards, learned, weight, config.combine)  # r'
        if after_end is not None:
            after_end = weight * after_end  # the environment pays nothing there
        metrics |= self.learner.improve(rollout, rewards, terminal_values=after_end)
        self.iterations += 1
        self.updates = self.learner.engine.count
        return metrics | {"reward/weight": torch.tensor(weight)}

    def _learned_reward(self, rollout: Rollout) -> tuple[Tensor, Tensor | None, Metrics]:
        """Return r_D (T, N), what follows a terminal state (see `gae`), and metrics."""
        if isinstance(self.source, Matching):
            reward = self.source.begin(rollout)
            return reward.rewards, reward.terminal_values, self.source.metrics(reward.mismatch)
        metrics = self.source.learn(rollout)
        learned, after_end, paid = self.source.pay(rollout)
        return learned, after_end, metrics | paid

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "source": self.source.state_dict(),
            "iterations": self.iterations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.source.load_state_dict(state["source"])
        self.iterations = int(state["iterations"])
