"""What on-policy learners share: a policy that acts, and what a value makes of what it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlfd.algorithms.base import AlgorithmConfig, Metrics, Problem, World, hyper
from rlfd.algorithms.core.distributions import Gaussian, make_distribution
from rlfd.algorithms.core.networks import Activation, PolicyNetwork, ValueNetwork, in_pieces
from rlfd.algorithms.core.normaliser import ReturnScaler, RunningNormaliser
from rlfd.algorithms.core.plain import PlainGaussian, plain_network
from rlfd.algorithms.core.rollout import Rollout, collect, gae
from rlfd.algorithms.core.timing import timed

__all__ = [
    "Actor",
    "ActorFields",
    "Estimate",
    "OnPolicyConfig",
    "OnPolicyLearner",
    "PolicyAndValue",
    "estimate",
    "explained_variance",
    "prepare",
]

Choose = Callable[[np.ndarray, torch.Generator | None], tuple[np.ndarray, np.ndarray]]
"""Observations (N, *observation_shape) and a source of noise -> actions in the policy's units, and
in the environment's."""


@dataclass(frozen=True, kw_only=True)
class ActorFields(AlgorithmConfig):
    """Hyperparameters of `Actor`."""

    hidden: tuple[int, ...] = hyper(
        (64, 64), "widths of the hidden layers (images: after the convolutions)", low=1
    )
    activation: Activation = hyper("tanh", "what follows each hidden layer")
    log_std_start: float = hyper(
        0.0, "continuous actions: first log-std, where the bounds are ±1", low=-5, high=2
    )
    normalise_observations: bool = hyper(
        True, "standardise observations, unless images, by running statistics"
    )


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig(ActorFields):
    """Hyperparameters that all on-policy learners share."""

    batch_steps: int = hyper(5_000, "env steps per iteration, over all environments", low=1)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.95, "λ of the advantage estimates", low=0, high=1)
    normalise_rewards: bool = hyper(
        False, "divide rewards by the running std of the discounted return"
    )
    standardise_advantages: bool = hyper(True, "bring advantages to mean 0 and std 1")
    entropy_weight: float = hyper(0.0, "weight of the policy's entropy in the objective", low=0)

    def rollout_size(self, num_envs: int) -> int:
        """Return env steps per iteration: `batch_steps`, rounded up to whole rows."""
        return -(-self.batch_steps // num_envs) * num_envs


class Actor:
    """A stochastic policy that acts: network, action distribution, observation statistics.

    Args:
        problem: What to act in.
        config: Sizes and first noise.
    """

    def __init__(self, problem: Problem, config: ActorFields) -> None:
        self.device = problem.device
        self.generator = torch.Generator(device=problem.device).manual_seed(problem.seed)
        self.distribution = make_distribution(problem.action, problem.device)
        self.network = PolicyNetwork(
            problem.observation_shape,
            self.distribution.num_outputs,
            hidden=config.hidden,
            images=problem.images,
            activation=config.activation,
            last_gain=0.01,  # at first the policy hardly depends on the observation
            log_std_start=config.log_std_start,
            observation_clip=10.0 if config.normalise_observations else None,
            generator=self.generator,
            device=problem.device,
        )
        self._dtype = torch.uint8 if problem.images else self.network.mean.dtype
        self.normaliser = RunningNormaliser(self.network)
        self.normaliser.frozen = not config.normalise_observations

    @torch.no_grad()
    def collect(self, world: World, steps: int) -> Rollout:
        """Act for at least `steps` env steps with the sampled policy."""
        choose = self._chooser(world.num_envs, greedy=False)
        draw = timed("act")(lambda observations: choose(observations, self.generator))
        return collect(world, draw, steps, self.device, images=self.network.images)

    @timed("act")
    @torch.no_grad()
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples, in the environment's units."""
        return self._chooser(len(observations), greedy=greedy)(observations, generator)[1]

    def _chooser(self, rows: int, *, greedy: bool) -> Choose:
        """Return how the present policy chooses, for `rows` observations at a time."""
        network, distribution = self.network, self.distribution
        plain = plain_network(network, rows)
        if plain is not None and isinstance(distribution, Gaussian):
            return PlainGaussian(plain, distribution, None if greedy else network.log_std)

        def choose(
            observations: np.ndarray, generator: torch.Generator | None
        ) -> tuple[np.ndarray, np.ndarray]:
            if plain is not None:
                outputs = torch.from_numpy(plain(observations))
            else:
                outputs = network(self._tensor(observations))
            if greedy:
                actions = distribution.mode(outputs)
            else:
                actions = distribution.sample(outputs, network.log_std, generator)
            return actions.cpu().numpy(), distribution.decode(actions).cpu().numpy()

        return choose

    def _tensor(self, observations: np.ndarray) -> Tensor:
        return torch.as_tensor(observations, dtype=self._dtype, device=self.device)

    def tensors(self, observations: np.ndarray, actions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return observations, and actions in the policy's units instead of the environment's."""
        continuous = isinstance(self.distribution, Gaussian)
        kind = self.network.mean.dtype if continuous else torch.int64
        taken = torch.as_tensor(actions, dtype=kind, device=self.device)
        return self._tensor(observations), self.distribution.encode(taken)

    def policy_state(self) -> dict[str, Tensor]:
        """Return the network's parameters and its observation statistics."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as its weights were learned with."""
        self.network.load_state_dict(state)
        self.normaliser.frozen = True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that acting and the statistics depend on."""
        return {
            "policy": self.policy_state(),
            "normaliser": self.normaliser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["policy"])
        self.normaliser.load_state_dict(state["normaliser"])
        self.generator.set_state(state["generator"])


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a value function makes of a rollout. Both of shape (T, N).

    Attributes:
        advantages: A, as estimated: neither centred nor scaled.
        targets: A + V(s), what the value function is to be fitted to.
    """

    advantages: Tensor
    targets: Tensor


@torch.no_grad()
def estimate(
    values: Callable[[Tensor], Tensor],
    rollout: Rollout,
    rewards: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    terminal_values: Tensor | None = None,
) -> Estimate:
    """Estimate advantages by GAE with V = `values`; see `gae`."""
    now = values(rollout.observations)
    advantages = gae(
        rewards,
        now,
        _following(values, rollout, now),
        rollout.terminated,
        rollout.ended,
        gamma=gamma,
        gae_lambda=gae_lambda,
        terminal_values=terminal_values,
    )
    return Estimate(advantages, advantages + now)


def _following(values: Callable[[Tensor], Tensor], rollout: Rollout, now: Tensor) -> Tensor:
    """Return V(s'). What is an image costs more to value than to look for in the next row."""
    if rollout.observations.dtype != torch.uint8:
        return values(rollout.next_observations)
    last = rollout.ended.clone()
    last[-1] = True
    following = now.roll(-1, 0)
    following[last] = values(rollout.next_observations[last][None])[0]
    return following


def prepare(advantages: Tensor, config: OnPolicyConfig) -> Tensor:
    """Standardise advantages if wanted; where they hardly vary they are 0 either way."""
    std = advantages.std(correction=0)
    if config.standardise_advantages:
        advantages = (advantages - advantages.mean()) / (std + 1e-8)
    return torch.where(std < 1e-6, torch.zeros_like(advantages), advantages)


def explained_variance(estimated: Estimate) -> Tensor:
    """Return 1 - Var(target - V) / Var(target); 0 where targets do not vary."""
    variance = estimated.targets.var(correction=0)
    left = estimated.advantages.var(correction=0) / variance.clamp(min=1e-12)
    return torch.where(variance > 1e-12, 1.0 - left, torch.zeros_like(left))


class PolicyAndValue(nn.Module):
    """An actor's network and a value function, to be optimised together.

    They share nothing but standardised inputs; of images all layers but the last, as is usual:
    twice the convolutions would take twice the time.

    Args:
        policy: The actor's network.
        config: Sizes of the value network.
        generator: Source of its initial weights.
    """

    def __init__(
        self, policy: PolicyNetwork, config: OnPolicyConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value = ValueNetwork(
            policy.num_features if policy.images else policy.mean.numel(),
            hidden=() if policy.images else config.hidden,
            activation=config.activation,
            generator=generator,
            device=policy.mean.device,
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised inputs (B, D) to policy outputs (B, K) and values (B,)."""
        if self.policy.images:
            features = self.policy.features(inputs)
            return self.policy.body[-1](features), self.value(features)
        return self.policy.body(inputs), self.value(inputs)

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """Return V(s). Shape (T, N, *observation_shape) -> (T, N)."""
        seen = observations.flatten(0, 1)
        if self.policy.images:
            values = in_pieces(lambda images: self.value(self.policy.features(images)), seen)
        else:
            values = self.value(self.policy.standardise(seen))
        return values.view(observations.shape[:2])


class OnPolicyLearner(ABC):
    """A policy that is improved by what it did since it was last improved.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    metric_definitions: ClassVar[dict[str, str]]
    config: OnPolicyConfig

    def __init__(self, problem: Problem, config: OnPolicyConfig) -> None:
        self.config = config
        self.actor = Actor(problem, config)
        self.scaler = ReturnScaler(
            problem.num_envs,
            config.gamma,
            enabled=config.normalise_rewards,
            device=problem.device,
        )

    def collect(self, world: World) -> Rollout:
        """Act for one iteration's worth of env steps."""
        return self.actor.collect(world, self.config.batch_steps)

    @abstractmethod
    def improve(
        self, rollout: Rollout, rewards: Tensor, *, terminal_values: Tensor | None = None
    ) -> Metrics:
        """Make one iteration's improvement of the policy and its value function.

        Args:
            rollout: What the current policy did.
            rewards: What it is to be improved by. Shape (T, N).
            terminal_values: See `gae`.
        """

    def policy_state(self) -> dict[str, Tensor]:
        """Return the policy and its observation statistics."""
        return self.actor.policy_state()

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as they are."""
        self.actor.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return {"actor": self.actor.state_dict(), "rewards": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.actor.load_state_dict(state["actor"])
        self.scaler.load_state_dict(state["rewards"])
