"""TD3: twin delayed deep deterministic policy gradient.

Fujimoto, van Hoof and Meger, "Addressing Function Approximation Error in Actor-Critic Methods",
ICML 2018, arXiv 1802.09477.

    ã = clip(π̄(s') + clip(ε, -c, c), bounds),  ε ~ N(0, σ̃²)
    y = r + γ (1 - d) min_j Q̄_j(s', ã)
    L_Q = E Σ_j (Q_j(s, a) - y)²
    L_π = -E Q_1(s, π(s))

Every `policy_delay` steps of the critics, the actor takes one and all targets follow. Noise is in
units in which the bounds of the actions are ±1.

Departures from the paper: none in the algorithm. Defaults are those of common practice, which uses
256-256 networks, batch 256 and step size 3e-4 where the paper has 400-300, 100 and 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    td_target,
    twin_errors,
)
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.registry import register

__all__ = ["TD3", "TD3Config", "TwinDelayed", "smoothed"]


@dataclass(frozen=True, kw_only=True)
class TD3Config(ActorCriticConfig):
    """Hyperparameters of TD3."""

    policy_delay: int = hyper(2, "steps of the critics per step of actor and targets", low=1)
    exploration_noise: float = hyper(0.1, "std of the noise on actions while learning", low=0)
    target_noise: float = hyper(0.2, "σ̃, std of the noise on the target's actions", low=0)
    target_noise_clip: float = hyper(0.5, "c, largest noise on the target's actions", low=0)


def smoothed(actions: Tensor, noise: Tensor, std: float, limit: float) -> Tensor:
    """Return clip(π̄(s') + clip(σ̃ ξ, ±c), ±1).

    Args:
        actions: π̄(s'). Shape (B, k), in [-1, 1].
        noise: ξ, standard normal. Shape (B, k).
        std: σ̃.
        limit: c.

    Returns:
        Shape (B, k).
    """
    return (actions + (std * noise).clamp(-limit, limit)).clamp(-1.0, 1.0)


class TwinDelayed(ActorCritic):
    """Networks, memory and the losses above.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    def __init__(self, problem: Problem, config: TD3Config) -> None:
        self.config = config
        super().__init__(
            problem,
            config,
            outputs_per_action=1,
            actor_target=True,
            targets_every=config.policy_delay,
        )

    def critic_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_Q."""
        config, following = self.config, batch["next_observations"]
        with torch.no_grad():
            actor = self.actor_engine.views(batch["actor"])
            actions = smoothed(
                torch.tanh(self.outputs(actor, following)),
                batch["noise"],
                config.target_noise,
                config.target_noise_clip,
            )  # ã
            next_value = self.values(target, following, actions).amin(0)  # min_j
            y = td_target(batch["rewards"], batch["discounts"], next_value)
        q_values = self.values(parameters, batch["observations"], self.taken(batch))  # (2, B)
        loss = twin_errors(q_values, y).mean()  # L_Q
        return loss, {"loss/critic": loss, "q/mean": q_values.mean(), "q/target": y.mean()}

    def actor_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_π."""
        observations = batch["observations"]
        actions = torch.tanh(self.outputs(parameters, observations))
        critics = self.engine.views(batch["critics"])
        loss = -self.first_values(critics, observations, actions).mean()  # L_π
        return loss, {"loss/actor": loss}

    def _actor_parameters(self) -> Batch:
        return {"actor": self.actor_engine.target_flat}

    @timed("act")
    @torch.no_grad()
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None
    ) -> np.ndarray:
        """Return π(s), or with exploration noise."""
        actions = torch.tanh(self.actor(self._tensor(observations)))
        if not greedy:
            noise = torch.empty_like(actions).normal_(generator=generator)
            actions = actions + self.config.exploration_noise * noise
        return self._to_env(actions)


@register
class TD3(Algorithm):
    """Twin delayed deep deterministic policy gradient."""

    name = "td3"
    title = (
        "Addressing Function Approximation Error in Actor-Critic Methods (Fujimoto et al., 2018)"
    )
    summary = "deterministic actor-critic with reward, twin critics, delayed policy"
    Config = TD3Config
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"continuous"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy",)
    metric_definitions: Mapping[str, str] = {
        "loss/critic": "L_Q: squared errors of both critics, summed, mean over the batch",
        "loss/actor": "L_π: minus the mean of Q_1(s, π(s))",
        "q/mean": "mean of Q(s, a) over the batch and both critics",
        "q/target": "mean of the target y over the batch",
        "optim/grad_norm": "norm of the critics' gradient",
        "optim/actor_grad_norm": "norm of the actor's gradient",
    }

    learner: TwinDelayed

    def __init__(self, problem: Problem, config: TD3Config) -> None:
        self.config = config
        self.learner = TwinDelayed(problem, config)

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        self.updates = self.learner.interact_and_learn(world, self.updates)
        return self.learner.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return π(s); there is no other policy."""
        return self.learner.act(observations, greedy=True, generator=generator)
