"""Trajectories kept whole, end to end in flat tensors, and their returns.

A *piece* is an unbroken part of an episode up to a row whose `ended` is set: there the episode
terminated, was truncated, or is cut off because the rest is not known. Whatever was not terminated
is bootstrapped from the true next observation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlfd.algorithms.base import DemoField, DemoTensors
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.rollout import Rollout, gae

__all__ = [
    "DEMO_FIELDS",
    "FIELDS",
    "EpisodeAssembler",
    "TrajectoryBuffer",
    "demo_pieces",
    "lambda_returns",
    "returns_to_go",
    "side_by_side",
]

DEMO_FIELDS: frozenset[DemoField] = frozenset({"next_observations", "rewards", "terminated"})
"""What `demo_pieces` reads besides pairs."""

FIELDS = ("observations", "actions", "rewards", "next_observations", "terminated", "ended")


def join(parts: list[Batch]) -> Batch:
    """Put pieces one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in FIELDS}


def moved(piece: Batch, device: torch.device) -> Batch:
    """Return a piece on another device, as one that was read from a checkpoint must be."""
    return {name: value.to(device) for name, value in piece.items()}


def demo_pieces(demos: DemoTensors, actions: Tensor) -> Batch:
    """Return demonstrations as pieces.

    Args:
        demos: With next observations, rewards and `terminated`.
        actions: Theirs, in the policy's units. Shape (M,) or (M, k).
    """
    assert demos.next_observations is not None
    assert demos.rewards is not None
    assert demos.terminated is not None
    ids = demos.episode_ids
    ended = torch.cat([ids[1:] != ids[:-1], torch.ones(1, dtype=torch.bool, device=ids.device)])
    float_type = torch.get_default_dtype()
    return {
        "observations": demos.observations.to(float_type),
        "actions": actions,
        "rewards": demos.rewards.to(float_type),
        "next_observations": demos.next_observations.to(float_type),
        "terminated": demos.terminated,
        "ended": ended,
    }


class EpisodeAssembler:
    """Turns rollouts (T, N) into pieces.

    Episodes that are not over are kept as the parts that rollouts brought, and joined at their end.

    Args:
        whole: Wait for an episode's end; otherwise a piece ends with its rollout.
        limit: A piece ends after so many steps of its episode, whose rest is dropped; 0 = never.
    """

    def __init__(self, *, whole: bool, limit: int = 0) -> None:
        self.whole, self.limit = whole, limit
        self._waiting: list[list[Batch]] = []  # per environment, an episode's beginning in parts
        self._clocks: list[int] = []  # per environment, steps of the running episode, with a limit

    def add(self, rollout: Rollout) -> Batch | None:
        """Take a rollout; return what is complete now, environment after environment.

        Returns:
            Tensors whose first dimension is (M,); None if nothing is complete.
        """
        columns = [
            {name: getattr(rollout, name)[:, column] for name in FIELDS}
            for column in range(rollout.rewards.shape[1])
        ]
        if self.limit:
            self._clocks = self._clocks or [0] * len(columns)
            columns = [self._cut(index, column) for index, column in enumerate(columns)]
        if not self.whole:
            pieces = join(columns)
            pieces["ended"].view(len(columns), -1)[:, -1] = True
            return pieces
        self._waiting = self._waiting or [[] for _ in columns]
        complete: list[Batch] = []
        for waiting, column in zip(self._waiting, columns, strict=True):
            ends = column["ended"].nonzero()
            size = int(ends[-1]) + 1 if len(ends) else 0
            if size:
                complete += [*waiting, {name: value[:size] for name, value in column.items()}]
                waiting.clear()
            if size < len(column["ended"]):  # a copy: the rollout is not kept for a part of it
                waiting.append({name: value[size:].clone() for name, value in column.items()})
        return join(complete) if complete else None

    def _cut(self, index: int, column: Batch) -> Batch:
        """Drop what lies beyond the limit in an environment's column, and end pieces there."""
        _, times = _positions(column["ended"])
        first = ~torch.cat([column["ended"].new_zeros(1), column["ended"][:-1]]).cumsum(0).bool()
        times = times + self._clocks[index] * first  # the running episode began before
        self._clocks[index] = 0 if bool(column["ended"][-1]) else int(times[-1]) + 1
        kept = times < self.limit
        column = {name: value[kept] for name, value in column.items()}
        column["ended"] = column["ended"] | (times[kept] == self.limit - 1)
        return column

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes that are not complete."""
        waiting = [join(parts) if parts else {} for parts in self._waiting]
        return {"waiting": waiting} | ({"clocks": list(self._clocks)} if self.limit else {})

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned, on the device where rollouts live."""
        self._waiting = [[moved(part, device)] if part else [] for part in state["waiting"]]
        self._clocks = list(state.get("clocks", []))


def _positions(ended: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each row (M,) which piece it belongs to, and its place in that."""
    piece = torch.cumsum(ended, 0) - ended.long()
    lengths = torch.bincount(piece)
    starts = torch.cumsum(lengths, 0) - lengths
    return piece, torch.arange(len(ended), device=ended.device) - starts[piece]


def side_by_side(flat: Tensor, ended: Tensor, length: int) -> Tensor:
    """Lay pieces side by side, cut after `length` rows or filled up with zeros.

    Shapes (M, ...), (M,) -> (P, length, ...).
    """
    piece, time = _positions(ended)
    kept = time < length
    padded = flat.new_zeros(int(piece[-1]) + 1, length, *flat.shape[1:])
    padded[piece[kept], time[kept]] = flat[kept]
    return padded


class TrajectoryBuffer:
    """First-in-first-out memory of whole pieces.

    Args:
        capacity: Transitions kept, at most; the newest piece always is.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data: Batch = {}

    def __len__(self) -> int:
        return len(self.data["ended"]) if self.data else 0

    def add(self, pieces: Batch) -> None:
        """Append pieces; drop the oldest ones that no longer fit."""
        joined = join([self.data, pieces]) if self.data else pieces
        excess = len(joined["ended"]) - self.capacity
        if excess > 0:
            ends = joined["ended"].nonzero()[:, 0] + 1  # where pieces may be cut off
            beyond = ends[ends >= excess]
            first = int(beyond[0]) if len(beyond) > 1 else int(ends[-2]) if len(ends) > 1 else 0
            joined = {name: value[first:] for name, value in joined.items()}
        self.data = joined

    def clear(self) -> None:
        """Forget everything."""
        self.data = {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is kept."""
        return {"data": {name: value.clone() for name, value in self.data.items()}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned, on the device where pieces live."""
        self.data = moved(state["data"], device)


@torch.no_grad()
def lambda_returns(
    pieces: Batch, values: Tensor, last_values: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """Return the TD(λ) returns of pieces.

        R_t = r_t + γ (1 - d_t) [(1 - λ) V(s_{t+1}) + λ R_{t+1}]

    with R_{t+1} = V(s_{t+1}) after the last row of a piece. All pieces are worked on at once, side
    by side.

    Args:
        pieces: With rewards, terminated and ended, each of shape (M,).
        values: V(s). Shape (M,). Inside a piece the next row's is V(s_{t+1}).
        last_values: V(s_{t+1}) of the rows that end a piece. Shape (P,).
        gamma: γ.
        lam: λ.

    Returns:
        R. Shape (M,).
    """
    ended = pieces["ended"]
    next_values = values.roll(-1)
    next_values[ended] = last_values
    column, row = _positions(ended)
    shape = (int(row.max()) + 1, int(column[-1]) + 1)

    def aligned(flat: Tensor) -> Tensor:
        return flat.new_zeros(shape).index_put((row, column), flat)

    advantages = gae(
        aligned(pieces["rewards"]),
        aligned(values),
        aligned(next_values),
        aligned(pieces["terminated"]),
        aligned(ended),
        gamma=gamma,
        gae_lambda=lam,
    )
    return advantages[row, column] + values


def returns_to_go(pieces: Batch, gamma: float) -> Tensor:
    """Return G_t = Σ γ^l r_{t+l} over the rest of the piece; what follows it counts as 0. (M,)."""
    values = torch.zeros_like(pieces["rewards"])
    return lambda_returns(pieces, values, values[pieces["ended"]], gamma=gamma, lam=1.0)
