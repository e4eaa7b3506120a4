"""GAIL: generative adversarial imitation learning.

Ho and Ermon, "Generative Adversarial Imitation Learning", NIPS 2016, arXiv 1606.03476.

    min_π max_D  E_demo[log D(s, a)] + E_π[log(1 - D(s, a))] - λ_H H(π)                 (eq 16)

with D the probability of *demonstrated* (the paper's is that of the learner: D here is 1 - D
there). The learner is paid -log(1 - D), the paper's cost log D turned around (Alg. 1, line 5).
At the best D this minimises the Jensen-Shannon divergence of the occupancies.

Departures from the paper:
  * the step of the policy may be PPO's (`learner=ppo`) instead of TRPO's.
  * D makes `d_steps` Adam steps on minibatches instead of one step on the whole batch.
  * the inputs of D are standardised, by statistics of both sides together.
  * entropy and gradient penalty of D, other forms of the reward, and what follows a terminal state
    are settings; see `core/discriminator.py` and `core/absorbing.py`.
  * demonstrations are not thinned out unless `demo_every` says so.
"""

from __future__ import annotations

from collections import deque
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
from rlfd.algorithms.core.absorbing import (
    AbsorbingMode,
    EpisodeAges,
    HorizonAudit,
    check_discount,
    counted_from,
    stays_after,
)
from rlfd.algorithms.core.discriminator import (
    Discriminator,
    DiscriminatorFields,
    imitation_reward,
)
from rlfd.algorithms.core.distributions import Distribution
from rlfd.algorithms.core.policy_learner import LEARNERS, PolicyLearner, make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trpo_learner import TrustRegionFields
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["GAIL", "AdversarialReward", "GAILConfig"]


@dataclass(frozen=True, kw_only=True)
class GAILConfig(DiscriminatorFields, TrustRegionFields, ClipFields):
    """Hyperparameters of GAIL."""

    readers: ClassVar[Readers] = {"learner": LEARNERS}

    learner: Literal["trpo", "ppo"] = hyper("ppo", "who improves the policy")
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.95, "λ of the advantage estimates", low=0, high=1)
    # the rest: of what was tried on Lunar Lander and CartPole (docs/algorithms/gail.md)
    absorbing: AbsorbingMode = hyper(
        "indicator",
        "after a terminal transition: nothing, a neutral reward for ever, or a learned one",
    )
    d_steps: int = hyper(50, "Adam steps of the discriminator per iteration", low=1)
    d_learning_rate: float = hyper(1e-3, "Adam's step size for the discriminator", above=0)
    d_gradient_penalty: float = hyper(1.0, "λ, weight of the gradient penalty", low=0)
    g_steps: int = hyper(1, "rollouts and policy improvements per iteration", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


class AdversarialReward:
    """Pays rollouts by a discriminator that learns from the last of them.

    Args:
        problem: With demonstrations, what came of their actions and whether they terminated.
        config: Hyperparameters of the discriminator.
        distribution: Of the learner's actions.
        gamma: γ of the learner.
        steps_per_round: Env steps between calls of `learn`.
    """

    metric_definitions: ClassVar[dict[str, str]] = Discriminator.metric_definitions | {
        "reward/learned": "mean learned reward per step",
        "reward/absorbing": "mean learned reward per step of own absorbing states; 0 without any",
    }

    def __init__(
        self,
        problem: Problem,
        config: DiscriminatorFields,
        distribution: Distribution,
        *,
        gamma: float,
        steps_per_round: int,
    ) -> None:
        self.config, self.gamma = config, gamma
        rounds = -(-problem.env_steps // steps_per_round)
        self.discriminator = Discriminator(
            problem,
            config,
            distribution,
            gamma=gamma,
            planned_updates=rounds * config.d_steps,
        )
        self.audit = HorizonAudit(config.absorbing)
        self._ages = EpisodeAges(problem.num_envs, problem.device)
        self._past: deque[Tensor] = deque(maxlen=config.d_rollouts - 1)

    def _rows(self, rollout: Rollout) -> Tensor:
        return self.discriminator.rows(
            rollout.flat(rollout.observations), rollout.flat(rollout.actions)
        )

    def learn(self, rollout: Rollout) -> Metrics:
        """Train the discriminator on this rollout, and the ones before it that are remembered."""
        rows = self._with_ends(rollout)
        self.discriminator.learn(torch.cat([*self._past, rows]))
        self._past.append(rows)
        return self.discriminator.drain()

    def remember(self, rollout: Rollout) -> None:
        """Keep a rollout that the discriminator does not learn from at once."""
        self._past.append(self._with_ends(rollout))  # which may forget it: episodes grow older

    def _with_ends(self, rollout: Rollout) -> Tensor:
        """Return rows, those of absorbing states among them; once for each rollout, in order."""
        rows = self._rows(rollout)
        if self.config.absorbing != "indicator":
            return rows
        ages = self._ages(rollout.ended)
        stays = stays_after(rollout.terminated, ages, gamma=self.gamma)
        return self.discriminator.with_absorbing(
            rows, rollout.flat(rollout.next_observations), rollout.flat(stays)
        )

    def pay(self, rollout: Rollout) -> tuple[Tensor, Tensor | None, Metrics]:
        """Return what the discriminator, as it is now, pays a rollout.

        Returns:
            Rewards (T, N), what follows a terminal state (see `gae`), and metrics. Unless
            absorbing=off the former count from their mean, and so does the latter.
        """
        form, ended = self.config.reward_form, rollout.terminated
        logits = self.discriminator.logits(self._rows(rollout))
        rewards = imitation_reward(logits, form).view(rollout.rewards.shape)
        self.audit.check(rewards, ended)
        metrics = {"reward/learned": rewards.mean(), "reward/absorbing": torch.zeros(())}
        if self.config.absorbing == "off":
            return rewards, None, metrics
        last = self.discriminator.absorbing_logits(rollout.next_observations[ended])
        absorbing = torch.zeros_like(rewards)
        absorbing[ended] = imitation_reward(last, form)
        if len(last) > 0:
            metrics["reward/absorbing"] = absorbing[ended].mean()
        return *counted_from(rewards.mean(), rewards, absorbing, self.gamma), metrics

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next rollout's reward depends on."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "ages": self._ages.state_dict(),
            "past": {str(index): rows.clone() for index, rows in enumerate(self._past)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.discriminator.load_state_dict(state["discriminator"])
        self._ages.load_state_dict(state["ages"])
        past = state["past"]
        self._past.clear()
        device = self.discriminator.device
        self._past.extend(past[str(index)].to(device) for index in range(len(past)))


def mean_metrics(many: list[Metrics]) -> Metrics:
    """Return the mean of each metric."""
    return {name: torch.stack([one[name] for one in many]).mean() for name in many[0]}


@register
class GAIL(Algorithm):
    """Generative adversarial imitation learning."""

    name = "gail"
    title = "Generative Adversarial Imitation Learning (Ho and Ermon, 2016)"
    summary = "TRPO or PPO, paid for passing as the demonstrator before a discriminator"
    Config = GAILConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **PPOLearner.metric_definitions,
        **AdversarialReward.metric_definitions,
    }

    learner: PolicyLearner

    def __init__(self, problem: Problem, config: GAILConfig) -> None:
        self.config = config
        if problem.images and config.learner == "trpo":
            raise RlfdError(
                "the trust-region step is for vectors, these observations are images",
                "set learner=ppo",
            )
        self.learner = make_policy_learner(config.learner, problem, config)
        self.metric_definitions = (
            self.learner.metric_definitions | AdversarialReward.metric_definitions
        )
        self.source = AdversarialReward(
            problem,
            config,
            self.learner.actor.distribution,
            gamma=config.gamma,
            steps_per_round=config.batch_steps * config.g_steps,
        )

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop; the world's reward is not read."""
        rollout = self.learner.collect(world)  # Alg. 1, line 3
        metrics = self.source.learn(rollout)  # Alg. 1, line 4
        improvements = [self._improve(rollout)]  # Alg. 1, line 5
        for _ in range(self.config.g_steps - 1):
            rollout = self.learner.collect(world)
            improvements.append(self._improve(rollout))
            self.source.remember(rollout)
        self.updates = self.learner.engine.count
        return metrics | mean_metrics(improvements)

    def _improve(self, rollout: Rollout) -> Metrics:
        """Improve the policy by what D pays now."""
        rewards, after_end, metrics = self.source.pay(rollout)
        return metrics | self.learner.improve(rollout, rewards, terminal_values=after_end)

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"reward": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.source.load_state_dict(state["reward"])
