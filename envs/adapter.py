"""Between the spaces that environments and datasets have and those that learners know.

A learner sees one array of numbers, or an image (C, H, W) of bytes, and chooses numbers within
bounds in one row, one of so many, or several of such. Everything else is brought to that form, and
back: an environment is put into Gymnasium's own wrappers; a dataset, which holds what the
environment itself takes and returns, is converted when it is read and when it is written. What
learners know already is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from gymnasium.wrappers import FrameStackObservation, TransformAction, TransformObservation

from rlfd.envs.frames import stack_frames, unstack_frames
from rlfd.errors import RlfdError

__all__ = ["Adapter", "stacked_frames"]

Array: TypeAlias = npt.NDArray[Any]
Space: TypeAlias = spaces.Space[Any]
Environment: TypeAlias = gymnasium.Env[Any, Any]

HUGE = 1e9  # no action is meant to be so large: who declares that has no bounds
SMALLEST = 36  # side of an image, in pixels, that the convolutions can take
PICTURE = 20  # from here on bytes in colours are taken for a picture, not for a table
COLOURS = (1, 3, 4)
WRAPPERS = "gymnasium.wrappers"


class Adapter:
    """Converts between both forms.

    Attributes:
        observation_space: What a learner sees.
        action_space: What a learner chooses from.
        frame_stack: How many frames an observation is made of; 0 if it is no image.
        stored: The spaces of the environment, or of the dataset: of observations, of actions.
        stack: How many stored images an observation is made of; 0 or 1 if it is stored as it is.
        stacked: How many frames a stored image is made of.

    Args:
        name: What people call the environment or the dataset: ``environment 'CartPole-v1'``.
        observations: Its observations.
        actions: Its actions.
        action_range: The range that continuous actions are to be chosen from, within their own.
        frame_stack: Show the last so many images as one; 0 shows each alone.
        stacked: How many frames an image of it is made of already.
        for_learning: Refuse what learners cannot do with, which can be looked at all the same.

    Raises:
        RlfdError: If no learner can do with the spaces; says which wrapper helps.
    """

    def __init__(
        self,
        name: str,
        observations: Space,
        actions: Space,
        *,
        action_range: tuple[float, float] | None = None,
        frame_stack: int = 0,
        stacked: int = 1,
        for_learning: bool = True,
    ) -> None:
        self.stored = observations, actions
        self.stacked = stacked
        self._seen = _observations(name, observations, for_learning)
        self._chosen = _actions(name, actions, action_range, for_learning)
        self.action_space = self._chosen.space
        self.stack = frame_stack
        picture = isinstance(self._seen, _Picture)
        self.frame_stack = stacked * max(frame_stack, 1) if picture else 0
        self.observation_space = self._seen.space
        if frame_stack > 1:
            if not picture or stacked > 1:
                raise RlfdError(
                    f"frames of {name} were to be stacked, but its observations are "
                    f"{observations}, expected single images",
                    "leave --frame-stack out",
                )
            low, high = (
                np.repeat(bound, frame_stack, axis=0)
                for bound in (self._seen.space.low, self._seen.space.high)
            )
            self.observation_space = spaces.Box(low, high, dtype=np.uint8)

    def wrap(self, env: Environment) -> Environment:
        """Put an environment with the stored spaces into the form that learners know."""
        if not self._chosen.same:
            env = TransformAction(env, self._chosen.outwards, self.action_space)
        if not self._seen.same:
            env = TransformObservation(env, self._seen.inwards, self._seen.space)
        if self.stack > 1:
            env = FrameStackObservation(env, self.stack)
            shape = self.observation_space.shape
            env = TransformObservation(
                env, lambda seen: seen.reshape(shape), self.observation_space
            )
        return env

    def read_observations(self, observations: Any) -> Array:
        """Return what a learner sees of an episode's stored observations."""
        seen = observations if self._seen.same else self._seen.inwards_all(observations)
        return stack_frames(seen, self.stack) if self.stack > 1 else seen

    def write_observations(self, seen: Array) -> Any:
        """Return an episode's observations as they are stored: what `read_observations` read."""
        if self.stack > 1:
            frames = unstack_frames(seen, self.stack)
            seen = frames.reshape(len(frames), *self._seen.space.shape)
        return seen if self._seen.same else self._seen.outwards_all(seen)

    def read_actions(self, actions: Array) -> Array:
        """Return actions as a learner would have chosen them. Shape (T, ...)."""
        return actions if self._chosen.same else self._chosen.inwards(actions)

    def write_actions(self, chosen: Array) -> Array:
        """Return chosen actions as the environment takes them. Shape (T, ...)."""
        return chosen if self._chosen.same else self._chosen.outwards(chosen)


def stacked_frames(env: Environment) -> int:
    """Return how many frames an environment's own wrapper stacks, 1 without such a wrapper."""
    space, layer = env.observation_space, env
    while isinstance(layer, gymnasium.Wrapper) and layer.observation_space == space:
        if isinstance(layer, FrameStackObservation):
            return layer.stack_size if layer.padding_type == "reset" else 1
        layer = layer.env
    return 1


# Observations


@dataclass(frozen=True)
class _Array:
    """One array, as it is."""

    space: spaces.Box
    same = True

    def inwards(self, observation: Any) -> Array:
        return np.asarray(observation)

    def inwards_all(self, observations: Any) -> Array:
        return np.asarray(observations)

    def outwards_all(self, seen: Array) -> Any:
        return seen


@dataclass(frozen=True)
class _Picture(_Array):
    """An image of bytes; or several, one after the other along a first axis.

    Args:
        space: (C, H, W).
        stored: Its shape outside.
        last: Whether channels are its last axis.
    """

    stored: tuple[int, ...]
    last: bool

    @property
    def same(self) -> bool:  # type: ignore[override]
        return self.stored == self.space.shape

    def inwards(self, observation: Any) -> Array:
        moved = np.moveaxis(observation, -1, -3) if self.last else np.asarray(observation)
        lead = moved.shape[: moved.ndim - len(self.stored)]
        return np.ascontiguousarray(moved).reshape((*lead, *self.space.shape))

    def inwards_all(self, observations: Any) -> Array:
        return self.inwards(observations)

    def outwards_all(self, seen: Array) -> Any:
        if not self.last:
            return seen.reshape(len(seen), *self.stored)
        *frames, height, width, channels = self.stored
        return np.moveaxis(seen.reshape(len(seen), *frames, channels, height, width), -3, -1)


@dataclass(frozen=True)
class _Flattened(_Array):
    """Anything that Gymnasium can lay out in one row of numbers: a state's number as one-hot."""

    inner: Space
    same = False

    def inwards(self, observation: Any) -> Array:
        return np.asarray(spaces.flatten(self.inner, observation), self.space.dtype)

    def inwards_all(self, observations: Any) -> Array:
        leaf = observations
        while not isinstance(leaf, np.ndarray):
            leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
        return np.stack([self.inwards(_row(observations, index)) for index in range(len(leaf))])

    def outwards_all(self, seen: Array) -> Any:
        rows = [spaces.unflatten(self.inner, row) for row in seen]
        empty: Any = create_empty_array(self.inner, len(rows))
        return concatenate(self.inner, rows, empty)


def _row(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: _row(part, index) for key, part in observations.items()}
    if isinstance(observations, tuple | list):
        return tuple(_row(part, index) for part in observations)
    return observations[index]


def _observations(name: str, space: Space, for_learning: bool) -> _Array:
    if isinstance(space, spaces.Box):
        return _picture(name, space, for_learning) or _Array(space)
    parts = _parts(space)
    strange = [part for part in parts if not isinstance(part, _NUMBERS)]
    if strange:
        _refuse(
            name,
            f"has {type(strange[0]).__name__} observations"
            if strange[0] is space
            else f"has observations with a {type(strange[0]).__name__} among them",
            "arrays and numbers",
            "TransformObservation, so that it returns one array, or with FilterObservation, which "
            "leaves parts of a Dict out",
        )
    pictures = [part for part in parts if isinstance(part, spaces.Box) and _looks_drawn(part)]
    if pictures and for_learning:
        _refuse(
            name,
            f"has observations with an image of shape {pictures[0].shape} among other things",
            "an image alone, or none",
            "TransformObservation, so that it returns the image, or with FilterObservation, which "
            "leaves parts of a Dict out",
        )
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)  # of parts of these kinds it is
    if not np.issubdtype(flat.dtype, np.floating):
        flat = spaces.Box(flat.low, flat.high, dtype=np.float32)
    return _Flattened(flat, space)


_WHOLE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_NUMBERS = (spaces.Box, *_WHOLE)


def _parts(space: Space) -> list[Space]:
    if isinstance(space, spaces.Dict):
        return [part for inner in space.values() for part in _parts(inner)]
    if isinstance(space, spaces.Tuple):
        return [part for inner in space for part in _parts(inner)]
    return [space]


def _picture(name: str, space: spaces.Box, for_learning: bool) -> _Picture | None:
    """Return how an image is brought to (C, H, W); None for what is none."""
    shape = space.shape
    if not _looks_drawn(space):
        return None
    _, height, width, last = _sides(shape)
    if not for_learning and (space.dtype != np.uint8 or min(height, width) < SMALLEST):
        return None
    if space.dtype != np.uint8:
        _refuse(
            name,
            f"has images of {space.dtype} numbers, shape {shape}",
            "bytes from 0 to 255",
            "TransformObservation, so that it returns bytes, or with FlattenObservation if they "
            "are no images",
        )
    if min(height, width) < SMALLEST:
        _refuse(
            name,
            f"has images of {height} x {width} pixels",
            f"at least {SMALLEST} x {SMALLEST}, which the convolutions can take",
            "ResizeObservation(env, (84, 84)), which needs the channels last, or with "
            "FlattenObservation if they are no images",
        )
    channels = int(np.prod(shape)) // (height * width)
    low, high = (np.moveaxis(bound, -1, -3) if last else bound for bound in (space.low, space.high))
    seen = (channels, height, width)
    return _Picture(spaces.Box(low.reshape(seen), high.reshape(seen), dtype=np.uint8), shape, last)


def _sides(shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """Return channels, height and width of an image, and whether the channels are last."""
    if len(shape) == 2:
        return 1, shape[0], shape[1], False
    first, second, third = shape[-3:]
    last = third in COLOURS and third < first
    return (third, first, second, True) if last else (first, second, third, False)


def _looks_drawn(space: spaces.Box) -> bool:
    """Whether an array is an image, or frames of one: large, of bytes or of numbers up to 1 or 255.

    Of smaller sides it is one only in colours: a board of 19 x 19 is a table.
    """
    if len(space.shape) not in (2, 3, 4):
        return False
    channels, height, width, _ = _sides(space.shape)
    side, layers = min(height, width), len(space.shape) > 2
    if space.dtype == np.uint8:
        in_colours = layers and channels in COLOURS and np.all(space.high == 255)
        return side >= SMALLEST or (side >= PICTURE and bool(in_colours))
    drawn = np.all(space.low == 0) and (np.all(space.high == 1) or np.all(space.high == 255))
    return side >= SMALLEST and layers and bool(drawn)


# Actions


@dataclass(frozen=True)
class _Whole:
    """One number, or several in any shape, that count from anywhere."""

    space: Space
    stored: Space

    @property
    def same(self) -> bool:
        return bool(self.space == self.stored)

    @property
    def _first(self) -> Any:
        return getattr(self.stored, "start", 0)

    def inwards(self, actions: Any) -> Array:
        counted: Array = np.asarray(actions) - self._first
        lead = counted.shape[: counted.ndim - len(self.stored.shape or ())]
        return counted.reshape((*lead, *(self.space.shape or ()))).astype(self.space.dtype)

    def outwards(self, chosen: Any) -> Any:
        chosen = np.asarray(chosen)
        lead = chosen.shape[: chosen.ndim - len(self.space.shape or ())]
        counted = chosen.reshape((*lead, *(self.stored.shape or ()))) + self._first
        return counted.astype(self.stored.dtype)


@dataclass(frozen=True)
class _Continuous:
    """Numbers within bounds, in any shape, whole or not; those with one value are held there."""

    space: spaces.Box
    stored: spaces.Box
    free: npt.NDArray[np.bool_]

    @property
    def same(self) -> bool:
        return self.space is self.stored

    def inwards(self, actions: Any) -> Array:
        given: Array = np.asarray(actions)
        lead = given.shape[: given.ndim - len(self.stored.shape)]
        return given.reshape((*lead, -1))[..., self.free].astype(self.space.dtype)

    def outwards(self, chosen: Any) -> Array:
        chosen = np.asarray(chosen)
        lead, low = chosen.shape[:-1], self.stored.low.ravel()
        full = np.broadcast_to(low, (*lead, low.size)).astype(np.float64)
        full[..., self.free] = chosen
        if np.issubdtype(self.stored.dtype, np.integer):
            full = np.clip(np.rint(full), low, self.stored.high.ravel())
        return full.reshape((*lead, *self.stored.shape)).astype(self.stored.dtype)


def _actions(
    name: str, space: Space, action_range: tuple[float, float] | None, for_learning: bool
) -> _Whole | _Continuous:
    if isinstance(space, spaces.Box):
        return _continuous(name, space, action_range, for_learning)
    if action_range is not None:
        raise RlfdError(
            f"actions of {name} are {space}, a range is for continuous ones",
            "leave --action-range out",
        )
    inner: Space
    if isinstance(space, spaces.Discrete):
        inner = space if space.start == 0 else spaces.Discrete(int(space.n))
    elif isinstance(space, spaces.MultiDiscrete):
        flat = len(space.shape) == 1 and not np.any(space.start)
        inner = space if flat else spaces.MultiDiscrete(space.nvec.ravel())
    elif isinstance(space, spaces.MultiBinary):
        inner = space if len(space.shape) == 1 else spaces.MultiBinary(int(np.prod(space.shape)))
    else:
        _refuse(
            name,
            f"has {type(space).__name__} actions",
            "Discrete, Box, MultiDiscrete or MultiBinary",
            "TransformAction, so that it takes one of these",
        )
    return _Whole(inner, space)


def _continuous(
    name: str, space: spaces.Box, action_range: tuple[float, float] | None, for_learning: bool
) -> _Continuous:
    low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
    free = low < high
    low, high = low[free], high[free]
    if action_range is not None:
        low, high = np.maximum(low, action_range[0]), np.minimum(high, action_range[1])
    if not (free.any() and np.all(low < high)):
        given = "" if action_range is None else f" from {action_range[0]:g} to {action_range[1]:g}"
        raise RlfdError(
            f"{name} has actions within {space}, of which there is no choice{given}",
            "leave --action-range out, or state another one"
            if given
            else f"wrap it with {WRAPPERS}.TransformAction, and register that with Gymnasium",
        )
    if for_learning and not (np.abs([low, high]) < HUGE).all():
        raise RlfdError(
            f"{name} has actions without bounds, {space}, expected a finite range",
            "state the range to choose from, as in --action-range -1 1, or wrap it with "
            f"{WRAPPERS}.TransformAction, and register that with Gymnasium",
        )
    floating = np.issubdtype(space.dtype, np.floating)
    if floating and len(space.shape) == 1 and free.all() and action_range is None:
        return _Continuous(space, space, free)
    dtype: Any = space.dtype if floating else np.float32
    return _Continuous(spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype), space, free)


def _refuse(name: str, what: str, expected: str, wrapper: str) -> NoReturn:
    raise RlfdError(
        f"{name} {what}, expected {expected}",
        f"wrap it with {WRAPPERS}.{wrapper}; and register that with Gymnasium",
    )
