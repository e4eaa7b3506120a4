"""Improving a policy by the clipped surrogate (`rl/ppo.py` has the equations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import Metrics, Problem, hyper
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import shuffled
from rlfd.algorithms.core.networks import in_pieces
from rlfd.algorithms.core.on_policy import (
    Estimate,
    OnPolicyConfig,
    OnPolicyLearner,
    PolicyAndValue,
    estimate,
    explained_variance,
    prepare,
)
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.schedules import linear
from rlfd.seeding import derive

__all__ = ["ClipFields", "PPOLearner", "clipped_surrogate"]


@dataclass(frozen=True, kw_only=True)
class ClipFields(OnPolicyConfig):
    """Hyperparameters of `PPOLearner`."""

    learning_rate: float = hyper(3e-4, "Adam's step size at the start", above=0)
    final_learning_rate: float = hyper(
        1.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    clip_range: float = hyper(0.2, "ε, the ratio is clipped to 1 ± this", above=0)
    final_clip_range: float = hyper(
        1.0, "clip range at the end of the budget, as a fraction of the first", low=0, high=1
    )
    epochs: int = hyper(10, "passes over each rollout", low=1)
    minibatch_size: int = hyper(64, "transitions per update", low=1)
    value_weight: float = hyper(0.5, "c_v, weight of the value function's squared error", low=0)
    max_grad_norm: float = hyper(0.5, "gradient norm is clipped to this; 0 = never", low=0)
    target_kl: float = hyper(
        0.0, "no further pass once the mean KL exceeds 1.5 times this; 0 = never", low=0
    )


def clipped_surrogate(ratios: Tensor, advantages: Tensor, clip_range: Tensor) -> Tensor:
    """Return mean min(ρ A, clip(ρ, 1 ± ε) A), to be maximised. Shapes (B,); a scalar."""
    clipped = torch.clamp(ratios, 1.0 - clip_range, 1.0 + clip_range)
    return torch.minimum(ratios * advantages, clipped * advantages).mean()


class PPOLearner(OnPolicyLearner):
    """Proximal policy optimisation of one policy and its value function.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    config: ClipFields
    metric_definitions: ClassVar[dict[str, str]] = {
        "policy/kl": "mean KL(old ‖ new) over the rollout after all updates, nats",
        "policy/entropy": "mean entropy of the policy over the updates, nats",
        "policy/clipped": "share of ratios outside 1 ± ε, over the updates",
        "policy/epochs": "passes over the rollout that were made",
        "value/explained_variance": "1 - Var(target - V) / Var(target), before the updates",
        "loss/policy": "minus the clipped surrogate, over the updates",
        "loss/value": "mean squared error of V, over the updates",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    def __init__(self, problem: Problem, config: ClipFields) -> None:
        super().__init__(problem, config)
        self.problem = problem
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "value"))
        self.networks = PolicyAndValue(self.actor.network, config, self.generator)
        size = config.rollout_size(problem.num_envs)
        self.batch_size = min(config.minibatch_size, size)
        iterations = -(-problem.env_steps // size)
        self.engine = UpdateEngine(
            self.networks,
            self._loss,
            Adam(
                config.learning_rate,
                final_fraction=config.final_learning_rate,
                planned_updates=max(1, iterations * config.epochs * (size // self.batch_size)),
                max_grad_norm=config.max_grad_norm,
                epsilon=1e-5,
            ),
            compile=problem.compile,
        )
        self.env_steps = 0

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, distribution = self.config, self.actor.distribution
        outputs, values = functional_call(self.networks, parameters, (batch["inputs"],))
        log_std = parameters["policy.log_std"]
        log_probs = distribution.log_prob(outputs, log_std, batch["actions"])
        ratios = (log_probs - batch["log_probs"]).exp()
        advantages = prepare(batch["advantages"], config)  # per minibatch
        policy_loss = -clipped_surrogate(ratios, advantages, batch["clip_range"])
        value_loss = (values - batch["targets"]).square().mean()
        entropy = distribution.entropy(outputs, log_std).mean()
        loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
        outside = ((ratios - 1.0).abs() > batch["clip_range"]).to(ratios.dtype)
        return loss, {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/clipped": outside.mean(),
        }

    def improve(
        self, rollout: Rollout, rewards: Tensor, *, terminal_values: Tensor | None = None
    ) -> Metrics:
        """Make one iteration's updates of policy and value function."""
        rewards, terminal_values = self.scaler(rewards, rollout.ended, terminal_values)
        estimated = estimate(
            self.networks.values,
            rollout,
            rewards,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            terminal_values=terminal_values,
        )
        data, old = self._with_old_policy(rollout, estimated)
        clip_range = self._clip_range()
        kl, epochs = torch.tensor(0.0), 0
        while epochs < self.config.epochs and not self._too_far(kl):
            for batch in shuffled(data, self.batch_size, self.generator):
                self.engine.step(batch | {"clip_range": clip_range})
            epochs += 1
            if self.config.target_kl > 0 or epochs == self.config.epochs:
                kl = self._kl(data["inputs"], old)
        self.env_steps += rollout.num_steps
        self.actor.normaliser.update(rollout.observations.flatten(0, 1))
        return {
            "policy/kl": kl,
            "policy/epochs": torch.tensor(float(epochs)),
            "value/explained_variance": explained_variance(estimated),
        } | self.engine.drain()

    @torch.no_grad()
    def _with_old_policy(
        self, rollout: Rollout, estimated: Estimate
    ) -> tuple[Batch, tuple[Tensor, Tensor]]:
        """Return what the loss reads, rows joined, and the old policy's outputs and log-std."""
        network = self.actor.network
        inputs = network.standardise(rollout.observations.flatten(0, 1))
        actions = rollout.actions.flatten(0, 1)
        outputs, log_std = self._outputs(inputs), network.log_std.clone()
        data = {
            "inputs": inputs,
            "actions": actions,
            "log_probs": self.actor.distribution.log_prob(outputs, log_std, actions),
            "advantages": estimated.advantages.flatten(),
            "targets": estimated.targets.flatten(),
        }
        return data, (outputs, log_std)

    @torch.no_grad()
    def _kl(self, inputs: Tensor, old: tuple[Tensor, Tensor]) -> Tensor:
        """Mean KL(old ‖ now). A scalar."""
        now = self._outputs(inputs), self.actor.network.log_std
        return self.actor.distribution.kl(*old, *now).mean()

    def _outputs(self, inputs: Tensor) -> Tensor:
        body = self.actor.network.body
        outputs: Tensor = in_pieces(body, inputs) if self.actor.network.images else body(inputs)
        return outputs

    def _too_far(self, kl: Tensor) -> bool:
        limit = self.config.target_kl
        return limit > 0 and bool(kl > 1.5 * limit)

    def _clip_range(self) -> Tensor:
        config = self.config
        final = config.clip_range * config.final_clip_range
        budget = self.problem.env_steps
        now = linear(self.env_steps, config.clip_range, final, budget)
        return torch.tensor(now, dtype=self.actor.network.mean.dtype, device=self.problem.device)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "engine": self.engine.state_dict(),
            "generator": self.generator.get_state(),
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.engine.load_state_dict(state["engine"])
        self.generator.set_state(state["generator"])
        self.env_steps = int(state["env_steps"])
