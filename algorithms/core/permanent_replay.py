"""One prioritised memory of demonstrations, which stay, and own transitions, which come and go.

Hester et al., "Deep Q-learning from Demonstrations", arXiv 1704.03732: the priority of a transition
is |δ| + ε, with a larger ε for demonstrated ones, and P(i) ∝ priority^α whatever its kind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlfd.algorithms.base import DemoTensors, TransitionBatch
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.replay import BlockSumPriorities, ReplayBuffer
from rlfd.algorithms.core.timing import timed

__all__ = ["PermanentReplay"]


class PermanentReplay:
    """Slots 0 to M - 1 hold the demonstrations, those from M on the learner's own ring buffer.

    Args:
        demonstrations: M transitions.
        demo_rewards: What the learner is to see as their rewards. Shape (M,).
        own: Memory of own transitions, empty.
        n_step: Length of the longer of the two returns.
        alpha: α.
        epsilon_demo: ε of demonstrated transitions.
        epsilon_own: ε of own ones.
    """

    def __init__(
        self,
        demonstrations: DemoTensors,
        demo_rewards: Tensor,
        own: ReplayBuffer,
        *,
        n_step: int,
        alpha: float,
        epsilon_demo: float,
        epsilon_own: float,
    ) -> None:
        self.own, self.n_step, self.alpha = own, n_step, alpha
        self.epsilon_demo, self.epsilon_own = epsilon_demo, epsilon_own
        self.demos = ReplayBuffer.of_demonstrations(
            demonstrations, demo_rewards, gamma=own.gamma, device=own.device
        )
        self.num_demos = len(self.demos)
        size = self.num_demos + own.rows * own.num_envs
        self._priorities = BlockSumPriorities(size, own.device)
        self._max_error = 1.0
        slots = torch.arange(self.num_demos, device=own.device)
        self._set(slots, torch.ones(self.num_demos, device=own.device))

    def __len__(self) -> int:
        return self.num_demos + len(self.own)

    def _set(self, slots: Tensor, errors: Tensor) -> None:
        epsilon = torch.where(slots < self.num_demos, self.epsilon_demo, self.epsilon_own)
        self._priorities.set(slots, (errors.double().abs() + epsilon).pow(self.alpha))

    def add(self, transitions: TransitionBatch, rewards: Tensor) -> None:
        """Store one step of every environment, as urgent as the most urgent so far."""
        slots = self.num_demos + self.own.next_slots
        self.own.add(transitions, rewards)
        self._set(slots, torch.full(slots.shape, self._max_error, device=slots.device))

    @timed("sample")
    def sample(self, size: int, beta: float, generator: torch.Generator) -> Batch:
        """Draw a minibatch in proportion to priority^α, with importance weights.

        Args:
            size: B.
            beta: β of the weights (N P(i))^-β, divided by the batch's largest.
            generator: Source of the draws.

        Returns:
            As `ReplayBuffer.sample` with n_step=1, besides with n/rewards, n/next_observations and
            n/discounts of the longer return, is_demo (B,) of 0 and 1, weights and slots (B,).
        """
        slots, probabilities = self._priorities.sample(size, generator)
        weights = (len(self) * probabilities).pow(-beta)
        is_demo = slots < self.num_demos
        demo = self._returns(self.demos, slots.clamp(max=self.num_demos - 1))
        own = self._returns(self.own, (slots - self.num_demos).clamp(min=0))
        batch = {
            name: torch.where(is_demo.view(-1, *[1] * (value.ndim - 1)), value, own[name])
            for name, value in demo.items()
        }
        batch["is_demo"] = is_demo.to(batch["rewards"].dtype)
        batch["weights"] = (weights / weights.max()).to(batch["rewards"].dtype)
        batch["slots"] = slots
        return batch

    def _returns(self, memory: ReplayBuffer, slots: Tensor) -> Batch:
        """Return transitions with one-step and n-step returns."""
        batch, longer = memory.gather(slots, 1), memory.gather(slots, self.n_step)
        names = ("rewards", "next_observations", "discounts")
        return batch | {f"n/{name}": longer[name] for name in names}

    def set_priorities(self, slots: Tensor, errors: Tensor) -> None:
        """Set priorities by the newest errors of transitions drawn before. Both of shape (B,)."""
        self._set(slots, errors)
        self._max_error = max(self._max_error, float(errors.abs().max()))

    def state_dict(self) -> dict[str, Any]:
        """Return priorities; the own memory's transitions are its holder's to save."""
        return {"priorities": self._priorities.values.clone(), "max_error": self._max_error}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        values = state["priorities"].to(self.own.device)
        self._priorities.set(torch.arange(len(values), device=values.device), values)
        self._max_error = float(state["max_error"])
