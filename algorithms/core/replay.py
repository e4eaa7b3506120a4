"""Experience: the learner's own ring buffer and the demonstrations' store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import DemoTensors, TransitionBatch
from rlfd.algorithms.core.absorbing import episode_steps
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.frames import FrameMemory
from rlfd.algorithms.core.timing import timed
from rlfd.errors import RlfdError

__all__ = ["BlockSumPriorities", "DemoStore", "ReplayBuffer", "replay_bytes"]


class _VectorMemory:
    """Observations and next observations, side by side. Shapes (R, N, *observation_shape)."""

    def __init__(self, observations: Tensor, next_observations: Tensor) -> None:
        self._before, self._after = observations, next_observations
        self._flat = observations.flatten(0, 1), next_observations.flatten(0, 1)

    def write(self, row: int, transitions: TransitionBatch) -> None:
        """Store what one step of every environment began with and what came of it."""
        self._before[row] = torch.from_numpy(transitions.observations)
        self._after[row] = torch.from_numpy(transitions.next_observations)

    def pair(self, slots: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return observations in slots (B,), and what came of the transitions in `last` (B,)."""
        # index_select takes a third of the time of indexing with brackets
        before, after = self._flat
        return before.index_select(0, slots), after.index_select(0, last)

    def after(self, slots: Tensor) -> Tensor:
        """Return what came of the transitions in slots (B,)."""
        return self._flat[1].index_select(0, slots)

    def state_dict(self, filled: int) -> dict[str, Any]:
        """Return the first `filled` rows."""
        return {
            "observations": self._before[:filled].clone(),
            "next_observations": self._after[:filled].clone(),
        }

    def load_state_dict(self, state: dict[str, Any], filled: int) -> None:
        """Restore what `state_dict` returned."""
        self._before[:filled] = state["observations"]
        self._after[:filled] = state["next_observations"]


class _GivenMemory(_VectorMemory):
    """The same of demonstrations, which are there already. Shapes (M, *observation_shape)."""

    def __init__(self, demonstrations: DemoTensors, device: torch.device) -> None:
        before, after = demonstrations.observations.to(device), demonstrations.next_observations
        if after is None:
            # a method of images that share frames would unfold them all
            after = torch.zeros(1, dtype=before.dtype, device=device).expand(before.shape)
        self._flat = before, after.to(device)


class ReplayBuffer:
    """First-in-first-out memory of one world's transitions, kept in time order per environment.

    Rows are time, columns are environments, so that n-step returns can be read off on sampling. A
    return never runs past an episode's end: after a termination nothing is bootstrapped, after a
    truncation the true final observation is.

    Args:
        capacity: Transitions kept (rounded down to whole rows of `num_envs`).
        num_envs: N.
        observation_shape: Shape of one observation.
        gamma: γ, for the discount of each sampled transition.
        n_step: Length of the returns. At least 1.
        path: Whether draws come with the states that a longer return passes on its way.
        device: Where the memory lives.
        prioritised: Exponent α of proportional prioritised sampling (Schaul et al.); 0 = uniform.
        priority_epsilon: ε added to each absolute error.
        action_shape: Shape of one action; () for discrete ones.
        action_dtype: How actions are kept.
        extra: Names of further numbers that are kept of each transition.
        ages: Whether to keep how old each transition's episode was, for `ends`.
        frame_stack: Observations are images, stacks of so many frames; 0 = vectors.
        memory_bytes: What it may take; None = whatever it needs.
        demonstrations: Observations that it is to hold; for `of_demonstrations`.

    Raises:
        RlfdError: If it would take more than that.
    """

    def __init__(
        self,
        capacity: int,
        *,
        num_envs: int,
        observation_shape: tuple[int, ...],
        gamma: float,
        n_step: int = 1,
        path: bool = False,
        device: torch.device,
        prioritised: float = 0.0,
        priority_epsilon: float = 1e-6,
        action_shape: tuple[int, ...] = (),
        action_dtype: torch.dtype = torch.int64,
        extra: Sequence[str] = (),
        ages: bool = False,
        frame_stack: int = 0,
        memory_bytes: int | None = None,
        demonstrations: DemoTensors | None = None,
    ) -> None:
        self.rows = max(1, capacity // num_envs)
        self.num_envs, self.gamma, self.device = num_envs, gamma, device
        self.n_step, self.path = n_step, path
        self.prioritised, self.priority_epsilon = prioritised, priority_epsilon
        shape = (self.rows, num_envs)
        if demonstrations is None and memory_bytes is not None:
            _check_fits(self.rows * num_envs, observation_shape, frame_stack, memory_bytes)
        self._seen: _VectorMemory | FrameMemory
        if demonstrations is not None:
            self._seen = _GivenMemory(demonstrations, device)
        elif frame_stack > 0:
            self._seen = FrameMemory(
                self.rows,
                num_envs=num_envs,
                observation_shape=observation_shape,
                stack=frame_stack,
                device=device,
            )
        else:
            observations = torch.zeros(*shape, *observation_shape, device=device)
            self._seen = _VectorMemory(observations, torch.zeros_like(observations))
        self._memory = {
            "actions": torch.zeros(*shape, *action_shape, dtype=action_dtype, device=device),
            "rewards": torch.zeros(shape, device=device),
            "terminated": torch.zeros(shape, dtype=torch.bool, device=device),
            "ended": torch.zeros(shape, dtype=torch.bool, device=device),
        } | {name: torch.zeros(shape, device=device) for name in extra}
        if ages:
            self._memory["ages"] = torch.zeros(shape, dtype=torch.int32, device=device)
        self._drawn = ("actions", "rewards", *extra)
        self._flat = {name: value.flatten(0, 1) for name, value in self._memory.items()}
        self._position = 0  # row written next
        self._filled = 0  # rows that hold data
        self._priorities = (
            BlockSumPriorities(self.rows * num_envs, device) if prioritised > 0 else None
        )
        self._max_priority = 1.0

    @classmethod
    def of_demonstrations(
        cls,
        demonstrations: DemoTensors,
        rewards: Tensor,
        *,
        gamma: float,
        device: torch.device,
    ) -> ReplayBuffer:
        """Return a memory, full from the start, of demonstrations as those of one environment.

        Args:
            demonstrations: Where next_observations or terminated are missing, returns mean nothing.
            rewards: What the learner is to see as reward. Shape (M,).
            gamma: γ.
            device: Where the memory lives.
        """
        count = demonstrations.num_transitions
        buffer = cls(
            count,
            num_envs=1,
            observation_shape=demonstrations.observations.shape[1:],
            gamma=gamma,
            device=device,
            demonstrations=demonstrations,
        )
        ids, flat = demonstrations.episode_ids, buffer._flat
        flat["actions"].copy_(demonstrations.actions)
        flat["rewards"].copy_(rewards)
        if demonstrations.terminated is not None:
            flat["terminated"].copy_(demonstrations.terminated)
        flat["ended"].fill_(True)
        flat["ended"][:-1] = (ids[1:] != ids[:-1]).to(device)
        buffer._filled = count
        return buffer

    def __len__(self) -> int:
        return self._filled * self.num_envs

    @property
    def next_slots(self) -> Tensor:
        """Slots that the next step of every environment will be written to. Shape (N,)."""
        first = self._position * self.num_envs
        return torch.arange(first, first + self.num_envs, device=self.device)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the slots of terminal transitions, and the lengths of their episodes. (E,)."""
        slots = _where(self._flat["terminated"][: len(self)])
        return slots, self._flat["ages"].index_select(0, slots)

    def add(self, transitions: TransitionBatch, rewards: Tensor, **extra: Tensor) -> None:
        """Store one step of every environment.

        Args:
            transitions: N transitions.
            rewards: What the learner is to see as reward. Shape (N,).
            extra: Further numbers by name. Each of shape (N,).
        """
        row = self._position
        memory = self._memory
        if "ages" in memory:  # of an episode that goes on from the row before
            going_on = memory["ages"][row - 1].masked_fill(memory["ended"][row - 1], 0)
            memory["ages"][row] = 1 + (going_on if self._filled > 0 else 0)
        self._seen.write(row, transitions)
        memory["actions"][row] = torch.from_numpy(transitions.actions)
        memory["rewards"][row] = rewards
        memory["terminated"][row] = torch.from_numpy(transitions.terminated)
        ended = transitions.terminated | transitions.truncated
        memory["ended"][row] = torch.from_numpy(ended)
        for name, values in extra.items():
            memory[name][row] = values
        if self._priorities is not None:
            slots = self.next_slots
            self._priorities.set(
                slots, torch.full_like(slots, self._max_priority, dtype=torch.float64)
            )
        self._position = (row + 1) % self.rows
        self._filled = min(self._filled + 1, self.rows)

    @timed("sample")
    def sample(self, batches: int, size: int, generator: torch.Generator) -> list[Batch]:
        """Draw minibatches uniformly, with replacement, all with one gather per field.

        Args:
            batches: How many.
            size: B, transitions in each.
            generator: Source of the draws, on any device.

        Returns:
            Dicts with observations (B, *shape), actions (B, *action_shape), rewards (B,) (n-step
            sums), what is kept besides, next_observations (B, *shape) (after the last summed step)
            and discounts (B,) (γ^n · (1 - terminated)). With `path` and n > 1 also
            path_observations (B, n-1, *shape) and path_discounts (B, n-1): the states passed on
            the way and γ^l, 0 where the sum had stopped before.
        """
        draws = (batches * size,)
        slots = torch.randint(len(self), draws, generator=generator, device=generator.device)
        return _split(self.gather(slots.to(self.device)), batches)

    @timed("sample")
    def sample_prioritised(self, size: int, beta: float, generator: torch.Generator) -> Batch:
        """Draw one minibatch in proportion to priority, with importance weights.

        Args:
            size: B.
            beta: Exponent of the importance weights (N P(i))^-β, divided by the batch's largest.
            generator: Source of the draws.

        Returns:
            As `sample`, with weights (B,) and slots (B,) for `set_priorities`.
        """
        if self._priorities is None:
            raise ValueError("this buffer was not built for prioritised sampling")
        slots, probabilities = self._priorities.sample(size, generator)
        weights = (len(self) * probabilities).pow(-beta)
        batch = self.gather(slots)
        batch["weights"] = (weights / weights.max()).float()
        batch["slots"] = slots
        return batch

    def set_priorities(self, slots: Tensor, errors: Tensor) -> None:
        """Set priorities (|error| + ε)^α of transitions drawn before. Both of shape (B,)."""
        if self._priorities is None:
            raise ValueError("this buffer was not built for prioritised sampling")
        values = (errors.double().abs() + self.priority_epsilon).pow(self.prioritised)
        self._priorities.set(slots, values)
        self._max_priority = max(self._max_priority, float(values.max()))

    def gather(self, slots: Tensor, n_step: int | None = None) -> Batch:
        """Return the transitions in the given slots (B,) as `sample` does.

        Args:
            slots: row · N + environment.
            n_step: Another length of the returns than this memory's own.
        """
        n_step = self.n_step if n_step is None else n_step
        memory = self._flat
        batch = {name: memory[name].index_select(0, slots) for name in self._drawn}
        last = slots
        discount = torch.full(slots.shape, self.gamma, device=self.device)
        if n_step > 1:
            path, path_discounts = [], []
            alive = self._may_continue(last)
            for _ in range(1, n_step):
                following = torch.where(
                    alive, (last + self.num_envs) % (self.rows * self.num_envs), last
                )
                if self.path:
                    path.append(self._seen.after(last))
                    path_discounts.append(torch.where(alive, discount, 0.0))
                batch["rewards"] = batch["rewards"] + torch.where(
                    alive, discount * memory["rewards"][following], 0.0
                )
                discount = torch.where(alive, discount * self.gamma, discount)
                last = following
                alive = alive & self._may_continue(last)
            if self.path:
                batch["path_observations"] = torch.stack(path, dim=1)
                batch["path_discounts"] = torch.stack(path_discounts, dim=1)
        batch["observations"], batch["next_observations"] = self._seen.pair(slots, last)
        batch["discounts"] = discount.masked_fill(memory["terminated"].index_select(0, last), 0.0)
        return batch

    def _may_continue(self, slots: Tensor) -> Tensor:
        """Whether the row after each slot holds the same episode's next transition."""
        newest_row = (self._position - 1) % self.rows
        newest = slots // self.num_envs == newest_row
        return ~self._flat["ended"][slots] & ~newest

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was stored."""
        state: dict[str, Any] = {
            name: value[: self._filled].clone() for name, value in self._memory.items()
        } | self._seen.state_dict(self._filled)
        state["position"], state["filled"] = self._position, self._filled
        if self._priorities is not None:
            state["priorities"] = self._priorities.values.clone()
            state["max_priority"] = self._max_priority
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._position, self._filled = int(state["position"]), int(state["filled"])
        for name in self._memory:
            self._memory[name][: self._filled] = state[name]
        self._seen.load_state_dict(state, self._filled)
        if self._priorities is not None:
            values = state["priorities"].to(self.device)
            self._priorities.set(torch.arange(len(values), device=self.device), values)
            self._max_priority = float(state["max_priority"])


def replay_bytes(transitions: int, observation_shape: tuple[int, ...], frame_stack: int) -> int:
    """Return what a memory of so many transitions takes, priorities left out.

    With images, each episode's last frame comes on top.
    """
    flags = 2 * torch.bool.itemsize
    each = torch.int64.itemsize + torch.float32.itemsize + flags  # action, reward
    if frame_stack > 0:
        each += FrameMemory.bytes_per_transition(observation_shape, frame_stack)
    else:
        each += 2 * math.prod(observation_shape) * torch.float32.itemsize
    return transitions * each


def _check_fits(
    transitions: int, observation_shape: tuple[int, ...], frame_stack: int, memory_bytes: int
) -> None:
    needed = replay_bytes(transitions, observation_shape, frame_stack)
    if needed <= memory_bytes:
        return
    fits = int(memory_bytes // (needed / transitions))
    digits = 10 ** max(0, len(str(fits)) - 2)
    raise RlfdError(
        f"a replay memory of {transitions:,} transitions needs {needed / 1e9:.2f} GB, "
        f"{memory_bytes / 1e9:.2f} GB are free",
        f"lower it with --set buffer_size={fits // digits * digits}, or train fewer runs at a time",
    )


def _split(fields: Batch, batches: int) -> list[Batch]:
    """Cut tensors (batches * B, ...) into batches of B."""
    if batches == 1:
        return [fields]
    cut = [value.view(batches, -1, *value.shape[1:]).unbind() for value in fields.values()]
    return [dict(zip(fields, values, strict=True)) for values in zip(*cut, strict=True)]


def _where(flags: Tensor) -> Tensor:
    # NumPy is several times as fast where hardly any flag of many is set
    return torch.from_numpy(np.flatnonzero(flags.cpu().numpy())).to(flags.device)


class BlockSumPriorities:
    """Numbers to draw indices from in proportion, with sums kept per block of 512.

    Drawing searches first the blocks, then inside one; both are vectorised over the batch, which at
    these sizes beats a binary sum tree's many small levels.

    Args:
        size: How many numbers. They start at 0.
        device: Where they live.
    """

    BLOCK = 512

    def __init__(self, size: int, device: torch.device) -> None:
        blocks = -(-size // self.BLOCK)
        self._table = torch.zeros(blocks, self.BLOCK, dtype=torch.float64, device=device)
        self._sums = torch.zeros(blocks, dtype=torch.float64, device=device)
        self._size = size

    @property
    def values(self) -> Tensor:
        """All numbers. Shape (size,)."""
        return self._table.view(-1)[: self._size]

    def set(self, indices: Tensor, values: Tensor) -> None:
        """Replace numbers. Both of shape (B,); of repeated indices one value wins."""
        self._table.view(-1)[indices] = values
        blocks = torch.unique(indices // self.BLOCK)
        self._sums[blocks] = self._table[blocks].sum(dim=1)

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw indices (size,) in proportion to the numbers; return them with probabilities."""
        ends = self._sums.cumsum(0)
        total = ends[-1]
        draw = torch.rand(size, dtype=torch.float64, generator=generator, device=ends.device)
        draw = draw * total
        blocks = torch.searchsorted(ends, draw, right=True).clamp(max=len(ends) - 1)
        inside = self._table[blocks].cumsum(1)
        rest = (draw - (ends[blocks] - self._sums[blocks])).clamp(min=0.0)
        columns = torch.searchsorted(inside, rest[:, None], right=True)[:, 0]
        # rounding at the block's upper end must not land on an empty slot
        last_used = (inside < inside[:, -1:]).sum(dim=1)
        columns = torch.minimum(columns, last_used)
        indices = blocks * self.BLOCK + columns
        return indices, self._table[blocks, columns] / total


class DemoStore:
    """Demonstrated transitions on the device; never evicted, drawn with replacement.

    Args:
        demonstrations: What is stored of them is what they have: next_observations, rewards;
            terminated, and discounts with it.
        gamma: γ, for the discounts.
        device: Where they live.
    """

    def __init__(self, demonstrations: DemoTensors, *, gamma: float, device: torch.device) -> None:
        self._fields: Batch = {
            "observations": demonstrations.observations.to(device),
            "actions": demonstrations.actions.to(device),
        }
        if demonstrations.next_observations is not None:
            self._fields["next_observations"] = demonstrations.next_observations.to(device)
        if demonstrations.rewards is not None:
            self._fields["rewards"] = demonstrations.rewards.to(device)
        if demonstrations.terminated is not None:
            terminated = demonstrations.terminated.to(device)
            self._fields["terminated"] = terminated
            self._fields["discounts"] = gamma * (~terminated).float()
        self._ages = episode_steps(demonstrations.episode_ids).to(device)
        self._starts = self._fields["observations"][self._ages == 1]

    def __len__(self) -> int:
        return len(self._fields["actions"])

    @property
    def num_episodes(self) -> int:
        """Number of demonstrated episodes."""
        return len(self._starts)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the slots of terminal transitions, and the lengths of their episodes. (E,)."""
        slots = self._fields["terminated"].nonzero()[:, 0]
        return slots, self._ages[slots]

    @timed("sample")
    def sample(self, batches: int, size: int, generator: torch.Generator) -> list[Batch]:
        """Draw minibatches of whatever is stored."""
        device = self._starts.device
        slots = torch.randint(len(self), (batches * size,), generator=generator, device=device)
        return _split(self.gather(slots), batches)

    def gather(self, slots: Tensor) -> Batch:
        """Return the transitions in the given slots (B,), as `sample` does."""
        return {name: value.index_select(0, slots) for name, value in self._fields.items()}

    @timed("sample")
    def sample_starts(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw initial observations of demonstrated episodes. Shape (size, *observation_shape)."""
        device = self._starts.device
        rows = torch.randint(len(self._starts), (size,), generator=generator, device=device)
        return self._starts.index_select(0, rows)
