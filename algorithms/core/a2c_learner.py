"""Improving a policy by advantage actor-critic (`rl/a2c.py` has the equations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import Metrics, Problem, hyper
from rlfd.algorithms.core.engine import Batch, LossFunction, Parameters, UpdateEngine
from rlfd.algorithms.core.on_policy import (
    OnPolicyConfig,
    OnPolicyLearner,
    PolicyAndValue,
    estimate,
    explained_variance,
    prepare,
)
from rlfd.algorithms.core.optimisers import RMSProp
from rlfd.algorithms.core.rollout import Rollout
from rlfd.seeding import derive

__all__ = ["A2CFields", "A2CLearner", "actor_critic_loss"]


@dataclass(frozen=True, kw_only=True)
class A2CFields(OnPolicyConfig):
    """Hyperparameters of `A2CLearner`."""

    batch_steps: int = hyper(80, "env steps per update, over all environments", low=1)
    gae_lambda: float = hyper(
        1.0, "λ of the advantage estimates; 1 = n-step returns", low=0, high=1
    )
    standardise_advantages: bool = hyper(False, "bring advantages to mean 0 and std 1")
    entropy_weight: float = hyper(0.01, "c_e, weight of the policy's entropy", low=0)
    learning_rate: float = hyper(7e-4, "RMSProp's step size at the start", above=0)
    final_learning_rate: float = hyper(
        1.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    rms_smoothing: float = hyper(0.99, "how much RMSProp keeps of its mean square", low=0, high=1)
    rms_epsilon: float = hyper(1e-5, "added to the root of RMSProp's mean square", above=0)
    value_weight: float = hyper(
        0.5, "c_v, weight of half the value function's squared error", low=0
    )
    max_grad_norm: float = hyper(0.5, "gradient norm is clipped to this; 0 = never", low=0)


def actor_critic_loss(
    log_probs: Tensor,
    advantages: Tensor,
    values: Tensor,
    targets: Tensor,
    entropies: Tensor,
    *,
    value_weight: float,
    entropy_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return -E[log π A] + c_v ½ E[(R - V)²] - c_e E[H], and its three parts.

    Args:
        log_probs: log π(a|s). Shape (B,), as all others.
        advantages: A, constants.
        values: V(s).
        targets: R, constants.
        entropies: H(π(·|s)).
        value_weight: c_v.
        entropy_weight: c_e.
    """
    policy_loss = -(log_probs * advantages).mean()
    value_loss = 0.5 * (targets - values).square().mean()
    entropy = entropies.mean()
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    return loss, {"loss/policy": policy_loss, "loss/value": value_loss, "policy/entropy": entropy}


class A2CLearner(OnPolicyLearner):
    """Advantage actor-critic: one gradient step of policy and value function per short rollout.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
        loss: What is stepped on instead of `loss`, which it may call.
    """

    config: A2CFields
    metric_definitions: ClassVar[dict[str, str]] = {
        "policy/entropy": "mean entropy of the policy before the update, nats",
        "value/explained_variance": "1 - Var(target - V) / Var(target), before the update",
        "loss/policy": "minus the mean of log π(a|s) A",
        "loss/value": "half the mean squared error of V",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    def __init__(
        self, problem: Problem, config: A2CFields, loss: LossFunction | None = None
    ) -> None:
        super().__init__(problem, config)
        generator = torch.Generator(device=problem.device)
        generator.manual_seed(derive(problem.seed, "value"))
        self.networks = PolicyAndValue(self.actor.network, config, generator)
        size = config.rollout_size(problem.num_envs)
        self.engine = UpdateEngine(
            self.networks,
            loss or self.loss,
            RMSProp(
                config.learning_rate,
                final_fraction=config.final_learning_rate,
                planned_updates=max(1, -(-problem.env_steps // size)),
                max_grad_norm=config.max_grad_norm,
                smoothing=config.rms_smoothing,
                epsilon=config.rms_epsilon,
            ),
            compile=problem.compile,
        )

    def loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return A2C's loss and its parts."""
        config, distribution = self.config, self.actor.distribution
        outputs, values = functional_call(self.networks, parameters, (batch["inputs"],))
        log_std = parameters["policy.log_std"]
        return actor_critic_loss(
            distribution.log_prob(outputs, log_std, batch["actions"]),
            batch["advantages"],
            values,
            batch["targets"],
            distribution.entropy(outputs, log_std),
            value_weight=config.value_weight,
            entropy_weight=config.entropy_weight,
        )

    def improve(
        self,
        rollout: Rollout,
        rewards: Tensor,
        *,
        terminal_values: Tensor | None = None,
        beside: Batch | None = None,
    ) -> Metrics:
        """Make one iteration's update; `beside` is what another loss reads besides the rollout."""
        rewards, terminal_values = self.scaler(rewards, rollout.ended, terminal_values)
        estimated = estimate(
            self.networks.values,
            rollout,
            rewards,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            terminal_values=terminal_values,
        )
        advantages = estimated.advantages
        if self.config.standardise_advantages:
            advantages = prepare(advantages, self.config)
        self.engine.step(
            {
                "inputs": self.actor.network.standardise(rollout.observations.flatten(0, 1)),
                "actions": rollout.actions.flatten(0, 1),
                "advantages": advantages.flatten(),
                "targets": estimated.targets.flatten(),
            }
            | (beside or {})
        )
        self.actor.normaliser.update(rollout.observations.flatten(0, 1))
        return {"value/explained_variance": explained_variance(estimated)} | self.engine.drain()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"engine": self.engine.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.engine.load_state_dict(state["engine"])
