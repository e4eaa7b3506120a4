"""Past decisions with the returns that followed them, drawn by priority."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.replay import BlockSumPriorities
from rlfd.algorithms.core.timing import timed

__all__ = ["ReturnMemory"]

FIELDS = ("observations", "actions", "returns")
FLOOR = 1e-6  # priorities are at least this, so that nothing is out of reach for good


class ReturnMemory:
    """First-in-first-out memory of (s, a, G), drawn in proportion to priority^α.

    What has not been drawn yet has the largest priority seen so far. Rows of `keep` stay for good.

    Args:
        capacity: Transitions kept.
        observation_shape: Shape of one observation.
        action_shape: Shape of one action; () for discrete ones.
        action_dtype: How actions are kept.
        alpha: α; 0 = uniform.
        device: Where the memory lives.
    """

    def __init__(
        self,
        capacity: int,
        *,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        action_dtype: torch.dtype,
        alpha: float,
        device: torch.device,
    ) -> None:
        self.capacity, self.alpha, self.device = capacity, alpha, device
        self.kept = 0
        self._memory: Batch = {
            "observations": torch.zeros(capacity, *observation_shape, device=device),
            "actions": torch.zeros(capacity, *action_shape, dtype=action_dtype, device=device),
            "returns": torch.zeros(capacity, device=device),
        }
        self._priorities = BlockSumPriorities(capacity, device)
        self._max_priority = 1.0
        self._added = 0  # rows after those to keep, evicted ones included

    def __len__(self) -> int:
        return min(self.kept + self._added, self.capacity)

    @property
    def added(self) -> int:
        """Rows added so far by `add`, evicted ones included."""
        return self._added

    def keep(self, rows: Batch) -> None:
        """Store rows that are never evicted, before all others; see `add`.

        Raises:
            ValueError: If no room is left, or there are others already.
        """
        count = len(rows["returns"])
        if self._added or self.kept or count >= self.capacity:
            raise ValueError("rows to keep come first, and leave room for others")
        self._write(torch.arange(count, device=self.device), rows)
        self.kept = count

    def add(self, rows: Batch) -> None:
        """Store rows, the oldest ones first, in place of the oldest ones.

        Args:
            rows: observations (M, *observation_shape), actions (M, *action_shape), returns (M,).
        """
        room, count = self.capacity - self.kept, len(rows["returns"])
        if count > room:
            rows = {name: rows[name][-room:] for name in FIELDS}
        first = self._added + count - len(rows["returns"])
        slots = torch.arange(first, self._added + count, device=self.device) % room
        self._write(self.kept + slots, rows)
        self._added += count

    def _write(self, slots: Tensor, rows: Batch) -> None:
        for name in FIELDS:
            self._memory[name][slots] = rows[name].to(self._memory[name].dtype)
        new = torch.full_like(slots, self._max_priority, dtype=torch.float64)
        self._priorities.set(slots, new.pow(self.alpha))

    def set_returns(self, slots: Tensor, returns: Tensor) -> None:
        """Replace G of some rows. Both of shape (M,)."""
        self._memory["returns"][slots] = returns.to(self._memory["returns"].dtype)

    @timed("sample")
    def sample(self, size: int, beta: float, generator: torch.Generator) -> Batch:
        """Draw one minibatch, with replacement.

        Args:
            size: B.
            beta: Exponent of the importance weights (N P(i))^-β, divided by the batch's largest.
            generator: Source of the draws.

        Returns:
            observations, actions, returns, weights (B,), and slots (B,) for `set_priorities`.
        """
        slots, probabilities = self._priorities.sample(size, generator)
        batch = {name: self._memory[name].index_select(0, slots) for name in FIELDS}
        weights = (len(self) * probabilities).pow(-beta)
        batch["weights"] = (weights / weights.max()).to(batch["returns"].dtype)
        batch["slots"] = slots
        return batch

    def set_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Set priorities, at least 0, of rows drawn before. Both of shape (B,)."""
        values = priorities.double().clamp(min=FLOOR)
        self._priorities.set(slots, values.pow(self.alpha))
        self._max_priority = max(self._max_priority, float(values.max()))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is stored."""
        state: dict[str, Any] = {
            name: value[: len(self)].clone() for name, value in self._memory.items()
        }
        return state | {
            "priorities": self._priorities.values[: len(self)].clone(),
            "max_priority": self._max_priority,
            "kept": self.kept,
            "added": self._added,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.kept, self._added = int(state["kept"]), int(state["added"])
        for name in FIELDS:
            self._memory[name][: len(self)] = state[name]
        values = torch.zeros_like(self._priorities.values)
        values[: len(self)] = state["priorities"]
        self._priorities.set(torch.arange(self.capacity, device=self.device), values)
        self._max_priority = float(state["max_priority"])
