"""Environments in lockstep: what a `World` acts in.

A vector is saved as a point from which each environment can be made to begin again, and the
actions since then; it is restored by replaying them. That is exact for every simulator that is
deterministic given its generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

__all__ = ["History", "Replayed", "Step", "Vector", "generator_state"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of N environments returned. Arrays are (N, ...), and nobody writes to them again.

    Args:
        next_observations: What came of the actions: at the end of an episode its last observation.
        observations: What is to be acted on next: after an end the first one of the next episode.
        rewards: Float64.
        terminated: The task ended, as far as a learner is concerned.
        truncated: The episode was cut; never true together with `terminated`.
        infos: Of the episodes that ended, by environment.
    """

    next_observations: Array
    observations: Array
    rewards: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    infos: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of playing the same actions again.

    Args:
        observations: The last ones. Shape (N, ...).
        returns: Sums of the rewards, where nothing but running episodes was played; NaN of one that
            ended. Shape (N,).
    """

    observations: Array
    returns: npt.NDArray[np.float64] | None = None


class Vector(Protocol):
    """N environments of a kind. An environment whose episode ended is reset in the same step."""

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.Space[Any]
    history: History

    def start(self, seeds: Sequence[int]) -> Array:
        """Begin every environment with a seed of its own, and return the observations."""

    def step(self, actions: Array) -> Step:
        """Act in every environment."""

    def ended_seed(self, index: int) -> int | None:
        """Return the seed of the episode that ended last; None if it had none of its own."""

    def state(self) -> list[dict[str, Any]]:
        """Return what `restore` needs of each: seed or generator, and the actions since."""

    def restore(self, states: Sequence[Mapping[str, Any]]) -> Replayed:
        """Do the same again, and return what came of it."""

    def close(self) -> None:
        """Release the environments."""


class History:
    """The actions of every environment since some step of its own.

    One array for each step; the oldest ones are dropped as soon as no environment needs them.
    """

    def __init__(self, num_envs: int) -> None:
        self._actions: deque[Array] = deque()
        self._first, self._steps = 0, 0  # steps before the oldest one kept, and in all
        self._begins = np.zeros(num_envs, np.int64)

    def append(self, actions: Array) -> None:
        """Add one step of all environments."""
        self._actions.append(actions)
        self._steps += 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Steps since each environment began. Shape (N,)."""
        return self._steps - self._begins

    @property
    def last(self) -> Array:
        """The actions of the last step. Shape (N, ...)."""
        return self._actions[-1]

    def table(self) -> Array:
        """Return what is in memory. Shape (T, N, ...)."""
        return np.array(self._actions)

    def begin(self, indices: Iterable[int]) -> None:
        """Forget what these environments did so far."""
        self._begins[list(indices)] = self._steps
        oldest = int(self._begins.min())
        while self._first < oldest:
            self._actions.popleft()
            self._first += 1

    def each(self) -> list[Array]:
        """Return the actions of each environment. Shapes (T_i, ...)."""
        kept = self.table()
        return [
            kept[begin - self._first :, index].copy() if len(kept) else kept
            for index, begin in enumerate(self._begins)
        ]

    def replace(self, actions: Sequence[Array]) -> None:
        """Take over what `each` returned: laid side by side, all ending now."""
        lengths = [len(own) for own in actions]
        self._steps, self._first = max(lengths), 0
        self._begins = np.array([self._steps - length for length in lengths], np.int64)
        longest = actions[int(np.argmax(lengths))]
        table = np.zeros((self._steps, len(actions), *longest.shape[1:]), longest.dtype)
        for index, own in enumerate(actions):
            if len(own):
                table[self._begins[index] :, index] = own
        self._actions = deque(table)


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator; a copy, since NumPy builds a new dictionary at each read."""
    return dict(generator.bit_generator.state)
