"""GAIL with a soft Q learner, from replay.

The adversary that Reddy, Dragan and Levine compare SQIL with on images ("What Would π* Do?",
section 5.3): the discriminator of Ho and Ermon (arXiv 1606.03476), and in the place of their
on-policy learner the soft Q-learning that SQIL is made of.

    max_D  E_demo[log D(s, a)] + E_replay[log(1 - D(s, a))]
    y = r_D(s, a) + γ (1 - d) τ log Σ_a' exp(Q̄(s', a') / τ),    L = E[ Huber(Q(s, a) - y) ]

with r_D what D, *as it is now*, pays for a pair: memory holds no rewards.

Departures from the paper's description: those of `rlfd.algorithms.gail` (standardised inputs and
gradient penalty of D, the absorbing state) and of `rlfd.algorithms.rl.soft_q`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.absorbing import (
    AbsorbingMode,
    HorizonAudit,
    check_discount,
    counted_from,
    draw_stays,
)
from rlfd.algorithms.core.discriminator import Discriminator, DiscriminatorFields, imitation_reward
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.soft_q import SoftQConfig, SoftQLoop

__all__ = ["GAILDQN", "GAILDQNConfig"]


@dataclass(frozen=True, kw_only=True)
class GAILDQNConfig(DiscriminatorFields, SoftQConfig):
    """Hyperparameters of GAIL with a soft Q learner."""

    reward_scale: float = hyper(1.0, "learner's reward = this times the discriminator's", above=0)
    n_step: int = hyper(1, "only one: the rewards on the way would change with D", low=1, high=1)
    absorbing: AbsorbingMode = hyper(
        "indicator",
        "after a terminal transition: nothing, a neutral reward for ever, or a learned one",
    )
    d_steps: int = hyper(1, "Adam steps of the discriminator at a time", low=1)
    d_every_updates: int = hyper(1, "updates of Q from one such time to the next", low=1)
    d_batch_size: int = hyper(64, "pairs per step from each side", low=1)
    d_gradient_penalty: float = hyper(10.0, "λ, weight of the gradient penalty", low=0)
    d_rollouts: int = hyper(1, "only one: own pairs are drawn from the memory", low=1, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


@register
class GAILDQN(Algorithm):
    """GAIL with a soft Q learner."""

    name = "gail-dqn"
    title = "Generative Adversarial Imitation Learning (Ho and Ermon, 2016), with soft Q-learning"
    summary = "soft Q-learning from replay, paid for passing as the demonstrator"
    Config = GAILDQNConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled", "greedy")
    metric_definitions: Mapping[str, str] = {
        **SoftQLoop.metric_definitions,
        **Discriminator.metric_definitions,
        "reward/relative": "mean learned reward less that of an undecided D, and for terminal "
        "transitions what follows; scaled",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: GAILDQNConfig) -> None:
        self.config = config
        indicator = config.absorbing == "indicator"
        self.learner = QLearner(problem, config, self._loss, replay={"ages": indicator})
        self.loop = SoftQLoop(config, self.learner)
        times = -(-self.learner.planned_updates // config.d_every_updates)
        self.discriminator = Discriminator(
            problem,
            config,
            make_distribution(problem.action, problem.device),
            gamma=config.gamma,
            planned_updates=times * config.d_steps,
        )
        self.audit = HorizonAudit(config.absorbing)
        self._d_metrics: Metrics = {}

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, metrics = self.loop.bellman(parameters, target, batch)
        return loss, metrics | {"reward/relative": batch["rewards"].mean()}

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due, D's among them."""
        self.loop.act_and_store(world, paid=False)
        for batch in self.loop.batches_due(world, self.updates):
            if self.updates % self.config.d_every_updates == 0:
                self.discriminate()
            self.learner.engine.step(batch | {"rewards": self.pay(batch)})
            self.updates += 1
        metrics = self.learner.engine.drain()
        return metrics | self._d_metrics if metrics else {}

    def discriminate(self) -> None:
        """Let D tell fresh pairs of the memory from demonstrated ones."""
        discriminator, config, memory = self.discriminator, self.config, self.learner.replay
        size = config.d_steps * config.d_batch_size
        (own,) = memory.sample(1, size, discriminator.generator)
        rows = discriminator.rows(own["observations"], own["actions"])
        if config.absorbing == "indicator":
            # the memory says how often ends occur: a minibatch with one in it would, on its own,
            # take all episodes for as short as itself
            stays, last = draw_stays(
                memory, size, gamma=config.gamma, generator=discriminator.generator
            )
            rows[stays] = discriminator.absorbing_rows(last)
        discriminator.learn(rows)
        self._d_metrics = discriminator.drain()

    def pay(self, batch: Batch) -> Tensor:
        """Return what D, as it is now, pays for a minibatch. Shape (B,).

        Unless absorbing=off rewards count from what an undecided D pays, and a terminal transition
        is paid for all that follows it, too.
        """
        discriminator, config = self.discriminator, self.config
        logits = discriminator.logits(discriminator.rows(batch["observations"], batch["actions"]))
        rewards = imitation_reward(logits, config.reward_form)
        ended = _terminated(batch)
        self.audit.check(rewards, ended)
        if config.absorbing != "off":
            last = discriminator.absorbing_logits(batch["next_observations"][ended])
            absorbing = torch.zeros_like(rewards)
            absorbing[ended] = imitation_reward(last, config.reward_form)
            undecided = imitation_reward(torch.zeros_like(rewards[0]), config.reward_form)
            rewards, after_end = counted_from(undecided, rewards, absorbing, config.gamma)
            rewards = rewards + config.gamma * torch.where(ended, after_end, 0.0)
        return config.reward_scale * rewards

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return samples of the Boltzmann policy, or its most likely actions."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "discriminator": self.discriminator.state_dict(),
            "d_metrics": dict(self._d_metrics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.discriminator.load_state_dict(state["discriminator"])
        self._d_metrics = dict(state["d_metrics"])


def _terminated(batch: Batch) -> Tensor:
    """Which transitions of a minibatch end in a terminal state. Shape (B,)."""
    return batch["discounts"] == 0.0
