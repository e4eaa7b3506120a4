"""Images that are stacks of frames, each frame kept once.

An observation is the last C frames (those of one channel each), oldest first; at the start of an
episode its first frame stands for those before. So observations and next observations of a whole
episode are windows of C frames on T + 1 different ones, and a transition of 84 x 84 takes 7 kB
instead of 56. Stacks are made when they are drawn, by arithmetic on indices.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import TransitionBatch
from rlfd.errors import RlfdError

__all__ = ["FrameMemory", "FrameStacks"]

CHUNK_BYTES = 1 << 23  # packed at a time


class FrameStacks(Tensor):
    """Observations (M, C, H, W) of whole episodes, which read like a tensor but share frames.

    Brackets with rows, and slices of rows, share the frames as well. Everything else makes an
    ordinary tensor first; of many rows `index_select` takes those that are wanted only.

    Args:
        frames: All frames, those of an episode one after the other. Shape (F, ...).
        first: Row of the oldest frame of each observation. Shape (M,).
        shape: (C, H, W).
        stack: Rows of `frames` that make up one observation.
    """

    frames: Tensor
    first: Tensor
    stack: int

    @staticmethod
    def __new__(
        cls: type[FrameStacks], frames: Tensor, first: Tensor, shape: Sequence[int], stack: int
    ) -> FrameStacks:
        """Make the outside of such a tensor: it has a shape, and no memory of its own."""
        made: FrameStacks = torch.Tensor._make_wrapper_subclass(
            cls, (len(first), *shape), dtype=frames.dtype, device=frames.device
        )
        return made

    def __init__(self, frames: Tensor, first: Tensor, shape: Sequence[int], stack: int) -> None:
        self.frames, self.first, self.stack = frames, first, stack

    # the usual one would unfold all frames
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"FrameStacks(shape={tuple(self.shape)}, frames={len(self.frames)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Share or gather frames where the operation is known; else be an ordinary tensor."""
        aten, kwargs = torch.ops.aten, kwargs or {}
        it, *rest = args
        if isinstance(it, FrameStacks):
            if func is aten.index_select.default and rest[0] == 0:
                return it._gather(it.first.index_select(0, rest[1]))
            if func is aten.index.Tensor and len(rest[0]) == 1:
                return it._of(it.frames, it.first[rest[0][0]])
            if func is aten.slice.Tensor and (not rest or rest[0] == 0):
                return it._of(it.frames, func(it.first, *rest, **kwargs))
            if func in (aten.detach.default, aten.alias.default):
                return it._of(it.frames, it.first)
            if func is aten._to_copy.default and kwargs.get("dtype") in (None, it.dtype):
                device = kwargs.get("device", it.device)
                return it._of(it.frames.to(device), it.first.to(device))
        return func(*_ordinary(args), **_ordinary(kwargs))

    def _of(self, frames: Tensor, first: Tensor) -> FrameStacks:
        return FrameStacks(frames, first, self.shape[1:], self.stack)

    def _gather(self, first: Tensor) -> Tensor:
        rows = first[:, None] + torch.arange(self.stack, device=first.device)
        stacks = self.frames.index_select(0, rows.flatten())
        return stacks.view(len(first), *self.shape[1:])


def _ordinary(value: Any) -> Any:
    if isinstance(value, FrameStacks):
        return value._gather(value.first)
    if isinstance(value, list | tuple):
        return type(value)(_ordinary(item) for item in value)
    if isinstance(value, dict):
        return {name: _ordinary(item) for name, item in value.items()}
    return value


class FrameMemory:
    """The observations of a ring buffer of transitions, as stacks of frames that are kept once.

    Frames lie in a ring of their own, one row of N for each step. It is longer than that of the
    transitions by what the oldest one looks back and the newest one looks ahead, so a stack
    never reads a frame that was overwritten. The last frame of an episode, which no transition
    begins with, lies in a pool beside, that grows with the number of episode ends in memory.

    Args:
        rows: Steps kept, R.
        num_envs: N.
        observation_shape: (C, H, W).
        stack: Frames in an observation; C is a multiple of it.
        device: Where frames live.
    """

    POOL = 64  # frames at first

    def __init__(
        self,
        rows: int,
        *,
        num_envs: int,
        observation_shape: tuple[int, ...],
        stack: int,
        device: torch.device,
    ) -> None:
        self.rows, self.num_envs, self.stack, self.device = rows, num_envs, stack, device
        self._shape, self._channels = observation_shape, observation_shape[0] // stack
        self._size = int(np.prod(observation_shape)) // stack
        self._ring = rows + stack  # rows of frames
        frames = (self._ring * num_envs, self._size)
        self._frames = torch.zeros(frames, dtype=torch.uint8, device=device)
        # how many of a transition's frames lie before its newest one; the rest repeat the oldest
        self._depth = torch.zeros(rows * num_envs, dtype=torch.uint8, device=device)
        # of the newest row: depth of what follows it, whether it ended, and what came of it
        self._next_depth = np.zeros(num_envs, np.uint8)
        self._ended = np.ones(num_envs, np.bool_)
        self._after: np.ndarray | None = None
        self._last_of = torch.full((rows * num_envs,), -1, dtype=torch.int32, device=device)
        self._count = 0  # steps written so far
        self._empty_pool()
        self._back = torch.arange(stack - 1, -2, -1, device=device)

    def _empty_pool(self) -> None:
        shape = (self.POOL, self._size)
        self._pool = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        self._ends: dict[int, int] = {}  # slots of last transitions -> places in the pool
        self._free = list(range(self.POOL - 1, -1, -1))

    @staticmethod
    def bytes_per_transition(observation_shape: tuple[int, ...], stack: int) -> int:
        """Return what one transition takes, without the last frames of episodes."""
        depth_and_last_of = torch.uint8.itemsize + torch.int32.itemsize
        return int(np.prod(observation_shape)) // stack + depth_and_last_of

    def write(self, row: int, transitions: TransitionBatch) -> None:
        """Store what one step of every environment began with and what came of it.

        Raises:
            RlfdError: If observations are not stacks of frames.
        """
        before, after = transitions.observations, transitions.next_observations
        begins = self._begins(before)
        self._check(before, after, begins)
        first = row * self.num_envs
        slots = range(first, first + self.num_envs)
        for slot in slots:
            if slot in self._ends:  # it is overwritten
                self._free.append(self._ends.pop(slot))
        self._put(self._count, before)
        self._put(self._count + 1, after)
        depth = np.where(begins, 0, self._next_depth).astype(np.uint8)
        self._depth[first : first + self.num_envs] = torch.from_numpy(depth)
        ended = transitions.terminated | transitions.truncated
        places = np.full(self.num_envs, -1, np.int32)
        for env in np.flatnonzero(ended):
            places[env] = self._keep_last(slots[env], after[env])
        self._last_of[first : first + self.num_envs] = torch.from_numpy(places)
        self._next_depth = np.minimum(depth + 1, self.stack - 1).astype(np.uint8)
        self._ended, self._after = ended, after
        self._count += 1

    def _begins(self, before: np.ndarray) -> np.ndarray:
        """Whether stacks begin anew: not where a lost life counts as an end and play goes on."""
        begins = self._ended.copy()
        if self._after is not None:
            for env in np.flatnonzero(begins):
                begins[env] = not np.array_equal(before[env], self._after[env])
        return begins

    def _check(self, before: np.ndarray, after: np.ndarray, begins: np.ndarray) -> None:
        channels, first = self._channels, before[begins]
        env = self._count % self.num_envs  # one in turn: all would take longer than to store them
        shifted = np.array_equal(after[env, :-channels], before[env, channels:])
        if not (shifted and np.array_equal(first[:, :-channels], first[:, channels:])):
            raise RlfdError(
                f"images of shape {self._shape} are to be the last {self.stack} frames, oldest "
                "first, the first one of an episode repeated, and these are not",
                "put gymnasium.wrappers.FrameStackObservation(padding_type='reset') around the "
                "environment",
            )

    def _put(self, time: int, observations: np.ndarray) -> None:
        first = time % self._ring * self.num_envs
        newest = observations[:, -self._channels :].reshape(self.num_envs, self._size)
        self._frames[first : first + self.num_envs] = torch.from_numpy(newest)

    def _keep_last(self, slot: int, observation: np.ndarray) -> int:
        if not self._free:
            size = len(self._pool)
            self._pool = torch.cat([self._pool, torch.zeros_like(self._pool)])
            self._free = list(range(2 * size - 1, size - 1, -1))
        place = self._free.pop()
        frame = observation[-self._channels :].reshape(self._size)
        self._pool[place] = torch.from_numpy(frame)
        self._ends[slot] = place
        return place

    def pair(self, slots: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return observations in slots (B,), and what came of the transitions in `last` (B,)."""
        frames = self._windows(slots)
        ahead = frames if last is slots else self._windows(last)
        return self._stacks(frames[:, :-1]), self._stacks(ahead[:, 1:])

    def after(self, slots: Tensor) -> Tensor:
        """Return what came of the transitions in slots (B,)."""
        return self._stacks(self._windows(slots)[:, 1:])

    def _stacks(self, frames: Tensor) -> Tensor:
        return frames.reshape(len(frames), *self._shape)

    def _windows(self, slots: Tensor) -> Tensor:
        """Return the frames of a transition's observation and the one after. (B, stack + 1, D)."""
        row = slots.div(self.num_envs, rounding_mode="floor")
        env = slots - row * self.num_envs
        newest = self._count - 1
        time = newest - (newest - row) % self.rows
        back = torch.minimum(self._back, self._depth.index_select(0, slots)[:, None])
        rows = (time[:, None] - back) % self._ring * self.num_envs + env[:, None]
        frames = self._frames.index_select(0, rows.flatten()).view(*rows.shape, self._size)
        place = self._last_of.index_select(0, slots)
        kept = self._pool.index_select(0, place.clamp(min=0))
        frames[:, -1] = torch.where(place[:, None] >= 0, kept, frames[:, -1])
        return frames

    def state_dict(self, filled: int) -> dict[str, Any]:
        """Return the newest `filled` rows. Frames are packed: there are gigabytes of them."""
        ends = sorted(self._ends)
        places = torch.tensor([self._ends[slot] for slot in ends], dtype=torch.int64)
        spans = self._spans(filled)
        # One place for all pieces: between one piece and the next, what is packed would come to lie
        # where the first one was, and the process would grow by all of them.
        longest = max((end - begin for begin, end in spans), default=0)
        place = torch.empty(longest * self.num_envs * self._size, dtype=torch.uint8)
        return {
            "count": self._count,
            "depth": self._depth[: filled * self.num_envs].clone(),
            "next_depth": torch.from_numpy(self._next_depth.copy()),
            "newest_ended": torch.from_numpy(self._ended.copy()),
            "frames": [self._pack(*span, place) for span in spans],
            "ends": torch.tensor(ends, dtype=torch.int64),
            "last_frames": _pack(self._pool[places.to(self.device)].cpu()),
        }

    def load_state_dict(self, state: dict[str, Any], filled: int) -> None:
        """Restore what `state_dict` returned."""
        self._count = int(state["count"])
        self._depth[: filled * self.num_envs] = state["depth"].to(self.device)
        self._next_depth = state["next_depth"].cpu().numpy().copy()
        for span, packed in zip(self._spans(filled), state["frames"], strict=True):
            self._unpack(*span, packed)
        self._empty_pool()
        self._last_of.fill_(-1)
        ends = state["ends"].tolist()
        for slot, frame in zip(ends, _unpack(state["last_frames"], self._size), strict=True):
            frame = frame.reshape(self._channels, *self._shape[1:])
            self._last_of[slot] = self._keep_last(slot, frame)
        self._ended = state["newest_ended"].cpu().numpy().copy()
        self._after = None
        if self._count > 0:
            newest = (self._count - 1) % self.rows * self.num_envs
            slots = torch.arange(newest, newest + self.num_envs, device=self.device)
            self._after = self.after(slots).cpu().numpy()

    def _spans(self, filled: int) -> list[tuple[int, int]]:
        """Times whose frames are in use, cut into pieces that do not cross the end of the ring."""
        if filled == 0:
            return []
        step = max(1, CHUNK_BYTES // (self.num_envs * self._size))
        time, spans = max(0, self._count - filled - self.stack + 1), []
        while time <= self._count:
            place = time % self._ring
            end = time + min(step, self._ring - place, self._count + 1 - time)
            spans.append((time, end))
            time = end
        return spans

    def _view(self, begin: int, end: int) -> Tensor:
        place = begin % self._ring
        rows = self._frames.view(self._ring, self.num_envs, self._size)
        return rows[place : place + end - begin]

    def _pack(self, begin: int, end: int, place: Tensor) -> Tensor:
        # environment by environment: a frame resembles the one before, which is close by then
        frames = self._view(begin, end).transpose(0, 1)
        ordered = place[: frames.numel()].view(frames.shape)
        return _pack(ordered.copy_(frames))

    def _unpack(self, begin: int, end: int, packed: Tensor) -> None:
        frames = torch.from_numpy(_unpack(packed, self._size))
        ordered = frames.view(self.num_envs, end - begin, self._size).transpose(0, 1)
        self._view(begin, end).copy_(ordered)


def _pack(frames: Tensor) -> Tensor:
    packed = zlib.compress(frames.numpy().data, level=1)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpack(packed: Tensor, size: int) -> np.ndarray:
    """Return frames (F, size)."""
    content = zlib.decompress(packed.cpu().numpy().data)
    return np.frombuffer(bytearray(content), np.uint8).reshape(-1, size)
