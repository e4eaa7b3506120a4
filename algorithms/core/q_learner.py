"""What every learner of a discrete Q function is made of: network, engine, memory, acting, pace.

A part, not a base class: `dqn`, `soft-q`, `sqil` and others each hold one and add their loss and
their loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import AlgorithmConfig, Problem, Readers, TransitionBatch, Wait, hyper
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.engine import LossFunction, Parameters, TargetRule, UpdateEngine
from rlfd.algorithms.core.networks import QNetwork
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.replay import ReplayBuffer
from rlfd.algorithms.core.timing import timed

__all__ = ["QLearner", "QLearnerConfig", "select"]


@dataclass(frozen=True, kw_only=True)
class QLearnerConfig(AlgorithmConfig):
    """Hyperparameters of everything that `QLearner` holds."""

    readers: ClassVar[Readers] = {
        "target_update": {"polyak": ("polyak_tau",), "copy": ("target_every_updates",)},
    }

    learning_rate: float = hyper(5e-4, "Adam's step size at the start", above=0)
    final_learning_rate: float = hyper(
        0.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    adam_epsilon: float = hyper(1e-8, "added to the root of Adam's second moment", above=0)
    max_grad_norm: float = hyper(10.0, "gradient norm is clipped to this; 0 = never", low=0)
    batch_size: int = hyper(
        64, "transitions per update (from each memory, where there are two)", low=1
    )
    buffer_size: int = hyper(200_000, "transitions kept, first in first out", low=1)
    learning_starts: int = hyper(1_000, "env steps before the first update", low=0)
    updates_per_env_step: float = hyper(0.5, "gradient steps per env step", above=0)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    target_update: Literal["polyak", "copy"] = hyper("polyak", "rule of the target network")
    polyak_tau: float = hyper(0.01, "fraction taken over per update (polyak)", above=0, high=1)
    target_every_updates: int = hyper(1_000, "updates between copies (copy)", low=1)
    hidden: tuple[int, ...] = hyper(
        (128, 128), "widths of the hidden layers (images: after the convolutions)", low=1
    )
    layer_norm: bool = hyper(True, "LayerNorm after each hidden linear layer")
    precision: Literal["float32", "bfloat16"] = hyper(
        "float32", "of the network's arithmetic in updates; weights and losses are float32"
    )

    def wait(self) -> Wait | None:
        """Return what is waited for before the first update."""
        after = math.ceil((1.0 - 1e-9) / self.updates_per_env_step)
        return Wait("learning_starts", self.learning_starts, after)


class QLearner:
    """Network, update engine, replay memory and acting of one discrete Q function.

    Args:
        problem: What to learn in.
        config: The method's hyperparameters.
        loss: Pure loss; it may call `values`.
        dueling: See `QNetwork`.
        use_target: Whether the loss reads target parameters.
        replay: Further arguments of `ReplayBuffer` (n_step, prioritised, and so on).
        pretrain_updates: Gradient steps before the first env step.
    """

    def __init__(
        self,
        problem: Problem,
        config: QLearnerConfig,
        loss: LossFunction,
        *,
        dueling: bool = False,
        use_target: bool = True,
        replay: dict[str, Any] | None = None,
        pretrain_updates: int = 0,
    ) -> None:
        self.pretrain_updates = pretrain_updates
        self.config, self.device = config, problem.device
        self._dtype = torch.uint8 if problem.images else torch.float32
        self._low_precision = config.precision == "bfloat16"
        self.generator = torch.Generator(device=problem.device).manual_seed(problem.seed)
        self.num_actions = problem.action.sizes[0]
        self.network = QNetwork(
            problem.observation_shape,
            self.num_actions,
            hidden=config.hidden,
            images=problem.images,
            layer_norm=config.layer_norm,
            dueling=dueling,
            generator=self.generator,
            device=problem.device,
        )
        copy_every = config.target_every_updates if config.target_update == "copy" else 0
        self.planned_updates = max(1, self._due(problem.env_steps))
        self.engine = UpdateEngine(
            self.network,
            loss,
            Adam(
                config.learning_rate,
                final_fraction=config.final_learning_rate,
                planned_updates=self.planned_updates,
                max_grad_norm=config.max_grad_norm,
                epsilon=config.adam_epsilon,
            ),
            target=TargetRule(config.polyak_tau, copy_every) if use_target else None,
            compile=problem.compile,
        )
        capacity = config.buffer_size
        if problem.images:  # there is never more to keep than the budget pays for, in whole rows
            rows = max(1, -(-problem.env_steps // problem.num_envs))
            capacity = min(capacity, rows * problem.num_envs)
        self.replay = ReplayBuffer(
            capacity,
            num_envs=problem.num_envs,
            observation_shape=problem.observation_shape,
            gamma=config.gamma,
            device=problem.device,
            frame_stack=problem.frame_stack,
            memory_bytes=problem.memory_bytes,
            **(replay or {}),
        )

    def values(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """Return Q(s, ·) under the given parameters. Shape (B, A)."""
        if not self._low_precision:
            values: Tensor = functional_call(self.network, parameters, (observations,))
            return values
        with torch.autocast(self.device.type, torch.bfloat16):
            rounded: Tensor = functional_call(self.network, parameters, (observations,))
        return rounded.float()

    def _due(self, env_steps: int) -> int:
        started = max(0, env_steps - self.config.learning_starts)
        return self.pretrain_updates + int(started * self.config.updates_per_env_step + 1e-9)

    def pretraining_left(self, updates: int) -> int:
        """Return how many gradient steps remain before the first env step, at most a hundred.

        More would keep the runner waiting: it can stop and save between iterations only.
        """
        return max(0, min(100, self.pretrain_updates - updates))

    def updates_due(self, env_steps: int, updates: int) -> int:
        """Return how many gradient steps are due after so many env steps and updates."""
        return self._due(env_steps) - updates

    @timed("act")
    @torch.no_grad()
    def boltzmann(
        self, observations: np.ndarray, temperature: float, generator: torch.Generator | None
    ) -> np.ndarray:
        """Sample actions from softmax(Q / τ). Shape (B,)."""
        q_values = self.network(self._tensor(observations))
        actions: np.ndarray = soft.sample(q_values / temperature, generator).cpu().numpy()
        return actions

    @timed("act")
    @torch.no_grad()
    def greedy(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions of largest value. Shape (B,)."""
        actions: np.ndarray = self.network(self._tensor(observations)).argmax(dim=-1).cpu().numpy()
        return actions

    def act(
        self,
        observations: np.ndarray,
        temperature: float,
        *,
        greedy: bool,
        generator: torch.Generator | None,
    ) -> np.ndarray:
        """Return the most likely actions of the Boltzmann policy, or samples. Shape (B,)."""
        if greedy:
            return self.greedy(observations)
        return self.boltzmann(observations, temperature, generator)

    @timed("act")
    def uniform(self, size: int) -> np.ndarray:
        """Draw actions uniformly. Shape (size,)."""
        shape = (size,)
        draws = torch.randint(self.num_actions, shape, generator=self.generator, device=self.device)
        actions: np.ndarray = draws.cpu().numpy()
        return actions

    def with_uniform(self, actions: np.ndarray, epsilon: float) -> np.ndarray:
        """Replace each action by a uniform one with probability ε."""
        if epsilon <= 0.0:
            return actions
        draws = torch.rand(len(actions), generator=self.generator, device=self.device)
        explore = (draws < epsilon).cpu().numpy()
        return np.where(explore, self.uniform(len(actions)), actions)

    @timed("act")
    @torch.no_grad()
    def likelihoods(
        self, observations: np.ndarray, actions: np.ndarray, temperature: float
    ) -> Tensor:
        """Return π(a|s) of the Boltzmann policy. Shape (B,)."""
        log_probs = soft.boltzmann_log_probs(self.network(self._tensor(observations)), temperature)
        return select(log_probs, torch.as_tensor(actions, device=self.device)).exp()

    def store(
        self, transitions: TransitionBatch, *, rewards: Tensor | None = None, **extra: Tensor
    ) -> None:
        """Put transitions into memory with the given rewards (N,), or with those of the world."""
        if rewards is None:
            rewards = torch.from_numpy(transitions.learner_rewards)
        self.replay.add(transitions, rewards, **extra)

    def _tensor(self, observations: np.ndarray) -> Tensor:
        return torch.as_tensor(observations, dtype=self._dtype, device=self.device)

    def policy_state(self) -> dict[str, Tensor]:
        """Return the online parameters."""
        return {name: value.clone() for name, value in self.engine.parameters.items()}

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore the online parameters."""
        self.engine.load_parameters(state)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser, memory and random state."""
        return {
            "engine": self.engine.state_dict(),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"])


def select(q_values: Tensor, actions: Tensor) -> Tensor:
    """Return Q(s, a) of the given actions. Shapes (B, A), (B,) -> (B,)."""
    return q_values.gather(1, actions[:, None])[:, 0]
