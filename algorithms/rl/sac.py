"""Soft actor-critic (SAC) with twin critics and learned temperature.

Haarnoja, Zhou, Abbeel and Levine, "Soft Actor-Critic", ICML 2018, arXiv 1801.01290; the version
with learned temperature and without a value network: Haarnoja et al., "Soft Actor-Critic
Algorithms and Applications", arXiv 1812.05905.

    y = r + γ (1 - d) (min_j Q̄_j(s', a') - α log π(a'|s')),  a' ~ π(·|s')
    L_Q = E Σ_j (Q_j(s, a) - y)²
    L_π = E[ α log π(ã|s) - min_j Q_j(s, ã) ],  ã = tanh(μ(s) + σ(s) ξ)
    L_α = -E[ α (log π(ã|s) + H̄) ],  H̄ = -dim A

Departures from the paper: none in the equations. Actor and temperature share one Adam (their
gradients do not meet, so this equals two). Uniform actions until the first update. Defaults are
those of common practice on MuJoCo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    squash,
    td_target,
    twin_errors,
)
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.registry import register

__all__ = ["SAC", "SACConfig", "SoftActorCritic", "temperature_loss"]


@dataclass(frozen=True, kw_only=True)
class SACConfig(ActorCriticConfig):
    """Hyperparameters of SAC."""

    temperature: float = hyper(1.0, "α, weight of the entropy, at the start", above=0)
    learn_temperature: bool = hyper(True, "adapt α so that the entropy comes to H̄")
    target_entropy_per_action: float = hyper(-1.0, "H̄ / dim A, nats, actions in [-1, 1]")
    max_temperature: float = hyper(0.0, "α is kept from growing beyond this; 0 = no cap", low=0)


def temperature_loss(
    log_temperature: Tensor, entropy: Tensor, target_entropy: float, max_temperature: float
) -> Tensor:
    """Return L_α = α (E[-log π] - H̄), without gradient where it would lead beyond the cap.

    Args:
        log_temperature: log α. Shape (1,).
        entropy: E[-log π(ã|s)], taken as a constant. Scalar.
        target_entropy: H̄.
        max_temperature: The cap; 0 = none.

    Returns:
        Scalar.
    """
    surplus = entropy.detach() - target_entropy
    loss = (log_temperature.exp() * surplus).sum()
    if max_temperature > 0.0:
        at_cap = log_temperature.detach().sum() >= math.log(max_temperature)
        # masked, not clamped: a clamp has no gradient beyond it, so α would never come back
        loss = torch.where(at_cap & (surplus < 0.0), torch.zeros_like(loss), loss)
    return loss


class SoftActorCritic(ActorCritic):
    """Networks, memory and the losses above; `sqil-sac` holds one too.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
        replay: Further options of the memory.
    """

    def __init__(
        self, problem: Problem, config: SACConfig, *, replay: Mapping[str, Any] | None = None
    ) -> None:
        self.config = config
        self.target_entropy = config.target_entropy_per_action * problem.action.width
        super().__init__(
            problem,
            config,
            outputs_per_action=2,
            log_temperature=math.log(config.temperature),
            replay=replay,
        )

    def _temperature(self, actor: Parameters) -> Tensor:
        """α, held constant. Shape (1,)."""
        temperature = actor["log_temperature"].detach().exp()
        cap = self.config.max_temperature
        return temperature.clamp(max=cap) if cap > 0.0 else temperature

    def next_values(self, target: Parameters, batch: Batch) -> Tensor:
        """Return min_j Q̄_j(s', a') - α log π(a'|s'), held constant. Shape (B,)."""
        with torch.no_grad():
            actor = self.actor_engine.views(batch["actor"])
            following = batch["next_observations"]
            actions, log_probs = squash(self.outputs(actor, following), batch["noise"])
            if "next_acting" in batch:  # no choice in s_abs, so no entropy either
                actions = actions * batch["next_acting"][:, None]
                log_probs = log_probs * batch["next_acting"]
            next_q = self.values(target, following, actions).amin(0)  # min_j
            return next_q - self._temperature(actor) * log_probs

    def critic_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_Q."""
        y = td_target(batch["rewards"], batch["discounts"], self.next_values(target, batch))
        q_values = self.values(parameters, batch["observations"], self.taken(batch))  # (2, B)
        loss = twin_errors(q_values, y).mean()  # L_Q
        return loss, {"loss/critic": loss, "q/mean": q_values.mean(), "q/target": y.mean()}

    def actor_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_π + L_α."""
        config = self.config
        critics = self.engine.views(batch["critics"])
        observations = batch["observations"]
        actions, log_probs = squash(self.outputs(parameters, observations), batch["noise"])
        q = self.values(critics, observations, actions).amin(0)  # min_j
        temperature = self._temperature(parameters)
        acting = batch.get("acting", torch.ones_like(q))  # 0 in s_abs
        weights = acting / acting.sum().clamp(min=1.0)
        entropy = -(weights * log_probs).sum()
        loss = -(weights * q).sum() - temperature.sum() * entropy  # L_π
        outputs = {
            "loss/actor": loss,
            "policy/entropy": entropy,
            "policy/temperature": temperature.sum(),
        }
        if config.learn_temperature:
            loss = loss + temperature_loss(
                parameters["log_temperature"],
                entropy,
                self.target_entropy,
                config.max_temperature,
            )  # L_α
        return loss, outputs

    @timed("act")
    @torch.no_grad()
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None
    ) -> np.ndarray:
        """Return samples of π, or tanh(μ)."""
        outputs = self.actor(self._tensor(observations))
        noise = torch.zeros(len(outputs), self.width, device=self.device)
        if not greedy:
            noise.normal_(generator=generator)
        return self._to_env(squash(outputs, noise)[0])


@register
class SAC(Algorithm):
    """Soft actor-critic."""

    name = "sac"
    title = "Soft Actor-Critic Algorithms and Applications (Haarnoja et al., 2018)"
    summary = "maximum-entropy actor-critic with reward, twin critics, learned temperature"
    Config = SACConfig
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"continuous"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        "loss/critic": "L_Q: squared errors of both critics, summed, mean over the batch",
        "loss/actor": "L_π: α log π - min Q, mean over the batch",
        "q/mean": "mean of Q(s, a) over the batch and both critics",
        "q/target": "mean of the target y over the batch",
        "policy/entropy": "mean of -log π(ã|s) over the batch, nats, actions in [-1, 1]",
        "policy/temperature": "α",
        "optim/grad_norm": "norm of the critics' gradient",
        "optim/actor_grad_norm": "norm of the actor's and the temperature's gradient",
    }

    learner: SoftActorCritic

    def __init__(self, problem: Problem, config: SACConfig) -> None:
        self.config = config
        self.learner = SoftActorCritic(problem, config)

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        self.updates = self.learner.interact_and_learn(world, self.updates)
        return self.learner.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return samples of π, or the squashed mean."""
        return self.learner.act(observations, greedy=greedy, generator=generator)
