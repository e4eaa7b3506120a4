"""Parts of every off-policy learner of continuous actions: actor, twin critics, memory, pace.

Critic and actor have an engine each, so that the actor's step sees the critics of after their step,
as the papers print it, and may be taken less often. Each engine's loss finds the other's parameters
in its batch as one flat vector, under ``actor`` or ``critics``: no gradient reaches them there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rlfd.algorithms.base import (
    AlgorithmConfig,
    Metrics,
    Problem,
    TransitionBatch,
    Wait,
    World,
    hyper,
)
from rlfd.algorithms.core.distributions import Gaussian
from rlfd.algorithms.core.engine import Batch, Parameters, TargetRule, UpdateEngine
from rlfd.algorithms.core.networks import mlp
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.replay import ReplayBuffer
from rlfd.algorithms.core.timing import timed

__all__ = [
    "Actor",
    "ActorCritic",
    "ActorCriticConfig",
    "TwinCritics",
    "squash",
    "td_target",
    "twin_errors",
]

LOG_STD_RANGE = (-20.0, 2.0)


def squash(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the tanh-squashed Gaussian: a = tanh(u), u = μ + σ ξ.

    log π(a|s) = log N(u; μ, σ) - Σ log(1 - tanh² u), the latter as 2 (log 2 - u - softplus(-2u)),
    which is exact where 1 - tanh² rounds to 0.

    Args:
        outputs: Means and logarithms of the standard deviations, side by side. Shape (B, 2k).
        noise: ξ, standard normal. Shape (B, k). Zeros give the most likely u.

    Returns:
        Actions in (-1, 1), shape (B, k), and their log-densities there, shape (B,).
    """
    mean, log_std = outputs.chunk(2, dim=-1)
    log_std = log_std.clamp(*LOG_STD_RANGE)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * (noise.square() + math.log(2.0 * math.pi)) - log_std
    log_slope = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(-1)


def td_target(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """Return y = r + γ (1 - d) V(s'). All of shape (B,)."""
    return rewards + discounts * next_values


def twin_errors(q_values: Tensor, targets: Tensor) -> Tensor:
    """Return Σ_j (Q_j - y)². Shapes (2, B), (B,) -> (B,)."""
    return (q_values - targets).square().sum(0)


class Actor(nn.Module):
    """The policy's network and, if it is learned, the logarithm of the entropy's weight.

    Args:
        sizes: Widths from observation to outputs.
        log_temperature: Where log α starts; None = no such parameter.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        log_temperature: float | None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.body = mlp(sizes, layer_norm=False, generator=generator, device=device)
        if log_temperature is not None:
            self.log_temperature = nn.Parameter(torch.full((1,), log_temperature, device=device))

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) to outputs (B, K)."""
        outputs: Tensor = self.body(observations.flatten(1))
        return outputs


class TwinCritics(nn.Module):
    """Two independent MLPs (s, a) -> Q, evaluated together with stacked weights.

    Weights and biases are uniform in ±1/sqrt(fan_in), as in `mlp`. Given parameters whose second
    half is cut off, it is one MLP.

    Args:
        sizes: Widths from observation and action to the output 1.
        layer_norm: Normalise after each hidden linear layer, before its ReLU.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        layer_norm: bool,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)
            for into, shape in (
                (self.weights, (2, fan_in, fan_out)),
                (self.biases, (2, 1, fan_out)),
            ):
                values = torch.empty(shape, device=device)
                into.append(nn.Parameter(values.uniform_(-bound, bound, generator=generator)))
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for width in sizes[1:-1] if layer_norm else ():
            self.gains.append(nn.Parameter(torch.ones(2, 1, width, device=device)))
            self.shifts.append(nn.Parameter(torch.zeros(2, 1, width, device=device)))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) and actions (B, k) in [-1, 1] to (2, B)."""
        inputs = torch.cat([observations.flatten(1), actions], dim=1)
        x = inputs.expand(len(self.weights[0]), *inputs.shape)  # (2, B, D)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for layer, (inner_weight, inner_bias) in enumerate(hidden):
            x = torch.baddbmm(inner_bias, x, inner_weight)
            if len(self.gains) > 0:
                x = F.layer_norm(x, x.shape[-1:]) * self.gains[layer] + self.shifts[layer]
            x = F.relu(x)
        # five times as fast as a product of matrices, one of which is a single column
        values: Tensor = (x * weight.mT).sum(-1) + bias[..., 0]
        return values


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(AlgorithmConfig):
    """Hyperparameters of everything that `ActorCritic` holds."""

    learning_rate: float = hyper(3e-4, "Adam's step size at the start, for all networks", above=0)
    final_learning_rate: float = hyper(
        1.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    batch_size: int = hyper(256, "transitions per update (from each memory, if two)", low=1)
    buffer_size: int = hyper(1_000_000, "transitions kept, first in first out", low=1)
    learning_starts: int = hyper(
        10_000, "env steps with uniform actions before the first update", low=0
    )
    updates_per_env_step: float = hyper(1.0, "gradient steps of the critics per env step", above=0)
    policy_delay: int = hyper(1, "steps of the critics per step of the actor", low=1)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    polyak_tau: float = hyper(0.005, "fraction the targets take over", above=0, high=1)
    hidden: tuple[int, ...] = hyper((256, 256), "widths of the hidden layers", low=1)
    layer_norm: bool = hyper(False, "LayerNorm after each hidden linear layer of the critics")

    def wait(self) -> Wait | None:
        """Return what is waited for before the first update."""
        after = math.ceil((self.policy_delay - 1e-9) / self.updates_per_env_step)
        return Wait("learning_starts", self.learning_starts, after)


class ActorCritic(ABC):
    """Networks, engines, memory and pace; a method adds its two losses and how it acts.

    Args:
        problem: What to learn in.
        config: The method's hyperparameters.
        outputs_per_action: Numbers that the actor puts out for each dimension of an action.
        log_temperature: See `Actor`.
        actor_target: Whether the critics' loss reads target parameters of the actor.
        targets_every: Steps of the critics between updates of all targets.
        replay: Further options of the memory.
    """

    def __init__(
        self,
        problem: Problem,
        config: ActorCriticConfig,
        *,
        outputs_per_action: int,
        log_temperature: float | None = None,
        actor_target: bool = False,
        targets_every: int = 1,
        replay: Mapping[str, Any] | None = None,
    ) -> None:
        self.device, self._pace = problem.device, config
        self.generator = torch.Generator(device=problem.device).manual_seed(problem.seed)
        self.units = Gaussian(problem.action, problem.device)
        width, inputs = problem.action.width, math.prod(problem.observation_shape)
        self.width = width
        self.actor = Actor(
            [inputs, *config.hidden, outputs_per_action * width],
            log_temperature=log_temperature,
            generator=self.generator,
            device=problem.device,
        )
        self.critics = TwinCritics(
            [inputs + width, *config.hidden, 1],
            layer_norm=config.layer_norm,
            generator=self.generator,
            device=problem.device,
        )
        planned = max(1, self._due(problem.env_steps))
        self.engine = UpdateEngine(
            self.critics,
            self.critic_loss,
            Adam(config.learning_rate, config.final_learning_rate, planned),
            target=TargetRule(config.polyak_tau, polyak_every=targets_every),
            compile=problem.compile,
        )
        self.actor_engine = UpdateEngine(
            self.actor,
            self.actor_loss,
            Adam(
                config.learning_rate,
                config.final_learning_rate,
                max(1, planned // config.policy_delay),
            ),
            target=TargetRule(config.polyak_tau) if actor_target else None,
            compile=problem.compile,
            norm_name="optim/actor_grad_norm",
        )
        self.replay = ReplayBuffer(
            config.buffer_size,
            num_envs=problem.num_envs,
            observation_shape=problem.observation_shape,
            gamma=config.gamma,
            device=problem.device,
            action_shape=(width,),
            action_dtype=torch.get_default_dtype(),
            memory_bytes=problem.memory_bytes,
            **(replay or {}),
        )

    @abstractmethod
    def critic_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critics' loss; the batch holds transitions, noise (B, k) and ``actor``."""

    @abstractmethod
    def actor_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the actor's loss; the batch holds observations, noise (B, k) and ``critics``."""

    @abstractmethod
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None
    ) -> np.ndarray:
        """Return actions in the environment's units. Shape (B, k)."""

    def outputs(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """Return the actor's outputs under the given parameters. Shape (B, K)."""
        outputs: Tensor = functional_call(self.actor, parameters, (observations,))
        return outputs

    def values(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """Return both Q(s, a) under the given parameters, a in [-1, 1]. Shape (2, B)."""
        values: Tensor = functional_call(self.critics, parameters, (observations, actions))
        return values

    def first_values(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q_1(s, a) alone. Shape (B,)."""
        halves = {name: value[:1] for name, value in parameters.items()}
        return self.values(halves, observations, actions)[0]

    def taken(self, batch: Batch) -> Tensor:
        """Return the batch's actions in [-1, 1]. Shape (B, k)."""
        return self.units.features(self.units.encode(batch["actions"]))

    def _due(self, env_steps: int) -> int:
        started = max(0, env_steps - self._pace.learning_starts)
        return int(started * self._pace.updates_per_env_step + 1e-9)

    def updates_due(self, env_steps: int, updates: int) -> int:
        """Return how many steps of the critics are due after so many env steps and updates.

        They come in multiples of the policy's delay, so that every iteration with updates has
        metrics of both engines.
        """
        due = max(0, self._due(env_steps) - updates)
        return due - due % self._pace.policy_delay

    def interact(self, world: World) -> TransitionBatch:
        """Act once in every environment: uniformly before `learning_starts`, then as learned."""
        if world.env_steps < self._pace.learning_starts:
            return world.step(self.uniform(world.num_envs))
        actions = self.act(world.observations, greedy=False, generator=self.generator)
        return world.step(actions)

    def interact_and_learn(self, world: World, updates: int) -> int:
        """Act once in every environment, then take the updates that are due, `updates` being made.

        Returns:
            How many updates have been made now.
        """
        transitions = self.interact(world)
        self.replay.add(transitions, torch.from_numpy(transitions.learner_rewards))
        due = self.updates_due(world.env_steps, updates)
        if due > 0:
            self.update(self.replay.sample(due, self._pace.batch_size, self.generator))
        return updates + due

    def update(self, batches: Sequence[Batch]) -> None:
        """Take one step of the critics with each batch, and the steps of the actor that are due.

        Args:
            batches: Dicts with observations, actions (in the environment's units), rewards,
                next_observations and discounts; with absorbing states also acting and next_acting
                (B,), 0 where the observation is one and 1 elsewhere.
        """
        size = len(batches[0]["rewards"])
        noise = torch.randn(
            (len(batches), 2, size, self.width), generator=self.generator, device=self.device
        )
        for batch, (critic_noise, actor_noise) in zip(batches, noise, strict=True):
            self.engine.step(batch | {"noise": critic_noise} | self._actor_parameters())
            if self.engine.count % self._pace.policy_delay == 0:
                seen = {name: batch[name] for name in ("observations", "acting") if name in batch}
                self.actor_engine.step(seen | {"noise": actor_noise, "critics": self.engine.flat})

    def _actor_parameters(self) -> Batch:
        """What the critics' loss reads of the actor."""
        return {"actor": self.actor_engine.flat}

    def drain(self) -> Metrics:
        """Return the metrics of both engines since the last call."""
        return self.engine.drain() | self.actor_engine.drain()

    @timed("act")
    def uniform(self, size: int) -> np.ndarray:
        """Draw actions uniformly within their bounds. Shape (size, k)."""
        draws = torch.rand((size, self.width), generator=self.generator, device=self.device)
        return self._to_env(2.0 * draws - 1.0)

    def _tensor(self, observations: np.ndarray) -> Tensor:
        dtype = torch.get_default_dtype()
        return torch.as_tensor(observations, dtype=dtype, device=self.device)

    def _to_env(self, actions: Tensor) -> np.ndarray:
        array: np.ndarray = self.units.decode(actions).cpu().numpy()
        return array

    def policy_state(self) -> dict[str, Tensor]:
        """Return the actor's network."""
        return {
            name: value.clone()
            for name, value in self.actor_engine.parameters.items()
            if name.startswith("body.")
        }

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore the actor's network."""
        others = {
            name: value
            for name, value in self.actor_engine.parameters.items()
            if not name.startswith("body.")
        }
        self.actor_engine.load_parameters(state | others)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimisers, memory and random state."""
        return {
            "engine": self.engine.state_dict(),
            "actor_engine": self.actor_engine.state_dict(),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.actor_engine.load_state_dict(state["actor_engine"])
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"])
