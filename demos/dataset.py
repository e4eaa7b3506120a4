"""Demonstrations in memory: whole episodes, and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.envs import Adapter, EnvConfig, unstack_frames
from rlfd.errors import RlfdError

__all__ = ["LABELS", "DemoInfo", "Demonstrations", "Episode", "content_hash"]

Array = npt.NDArray[Any]

LABELS = "labels"
"""What `demonstrator["actions"]` says where actions are not what was done, but what a demonstrator
would have done; observations and rewards are of what was done."""

SUBSET_STREAM = 0x5B5E7  # keeps the choice of episodes apart from every other use of a seed


@dataclass(frozen=True, slots=True)
class Episode:
    """One whole episode.

    Args:
        observations: The first one, and what came of each action. Shape (T + 1, ...). Of stacked
            frames a view that keeps each of them once.
        actions: Shape (T, ...).
        rewards: The environment's own, float64, NaN where there were none. Shape (T,).
        terminated: Whether the task ended it.
        truncated: Whether it was cut; never true together with `terminated`.
        success: The environment's success test; None where there is none.
        seed: Seed of its reset, if known.
        frame_stack: How many frames an observation is a stack of; 0 if it is none of frames.
    """

    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    terminated: bool
    truncated: bool
    success: bool | None = None
    seed: int | None = None
    frame_stack: int = 0

    @property
    def stored(self) -> Array:
        """What is written of the observations: of stacked frames each once. (T + 1, ...)."""
        if self.frame_stack > 1:
            return unstack_frames(self.observations, self.frame_stack)
        return self.observations

    @property
    def episode_return(self) -> float:
        """Sum of the rewards."""
        return float(self.rewards.sum())

    @property
    def length(self) -> int:
        """Number of actions."""
        return len(self.rewards)


@dataclass(frozen=True)
class DemoInfo:
    """What a dataset says about itself.

    Args:
        name: Short name, such as ``controller-v0``.
        id: Its Minari id, such as ``LunarLander-demo/controller-v0``.
        path: Its folder.
        env: The environment with start and options; None for data that this tool did not make.
        gym_id: Id of the Gymnasium environment inside, if known.
        env_spec: What foreign data say of it (`rlfd.envs.recorded`).
        eval_env_spec: Likewise, of the environment that they are to be judged in.
        demonstrator: Who acted and how: policy, noise, filters, seed. Empty for foreign data.
        content_hash: SHA-256 over all arrays and flags; empty for foreign data not yet loaded.
        created: When, ISO 8601 in UTC; empty for foreign data.
        created_with: Version of this tool; empty for foreign data.
        episodes: Number of episodes.
        transitions: Number of actions in all of them.
        return_mean: Mean return, if known without reading the arrays.
        success_rate: Share of successful episodes; None where there is no success test.
        frame_stack: How many stored images an observation was made of; 0 if they are apart.
    """

    name: str
    id: str
    path: Path
    env: EnvConfig | None
    gym_id: str | None
    env_spec: Mapping[str, Any] | None = None
    eval_env_spec: Mapping[str, Any] | None = None
    demonstrator: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = ""
    created: str = ""
    created_with: str = ""
    episodes: int = 0
    transitions: int = 0
    return_mean: float | None = None
    success_rate: float | None = None
    frame_stack: int = 0

    @property
    def are_labels(self) -> bool:
        """Whether its actions were never executed (`LABELS`)."""
        return self.demonstrator.get("actions") == LABELS


@dataclass(frozen=True)
class Demonstrations:
    """Whole episodes of one demonstrator in one environment.

    Args:
        info: Where they come from. After `subset` it still describes the whole dataset.
        episodes: The episodes, in the order in which they were played.
        observation_space: Of a single environment, as learners see it.
        action_space: Of a single environment, as learners choose from it.
        adapter: What brought them to that form, and brings them back.
        remarks: What is odd about what is stored, one sentence each.
    """

    info: DemoInfo
    episodes: tuple[Episode, ...]
    observation_space: spaces.Box
    action_space: spaces.Space[Any]
    adapter: Adapter | None = None
    remarks: tuple[str, ...] = ()

    @property
    def num_transitions(self) -> int:
        """Number of actions in all episodes."""
        return sum(episode.length for episode in self.episodes)

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Return of each episode."""
        return np.array([episode.episode_return for episode in self.episodes], np.float64)

    @property
    def has_rewards(self) -> bool:
        """Whether there are any; a dataset without them has NaN in every place."""
        return any(not np.isnan(episode.rewards).all() for episode in self.episodes)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of actions of each episode."""
        return np.array([episode.length for episode in self.episodes], np.int64)

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes; None where there is no success test."""
        flags = [episode.success for episode in self.episodes if episode.success is not None]
        return float(np.mean(flags)) if flags else None

    def subset(self, num: int, seed: int) -> Demonstrations:
        """Return `num` of the episodes, chosen by `seed`.

        The choice is the beginning of one seeded permutation. For one seed a smaller number is
        therefore always a part of a larger one, so that curves over the number of
        demonstrations add data instead of exchanging it.

        Raises:
            RlfdError: If there are fewer than `num`, or `num` is not positive.
        """
        if not 1 <= num <= len(self.episodes):
            raise RlfdError(
                f"{num} demonstrations were asked for, expected 1 to {len(self.episodes)}, "
                f"the number of episodes in '{self.info.id}'"
            )
        order = np.random.default_rng([SUBSET_STREAM, seed]).permutation(len(self.episodes))
        chosen = np.sort(order[:num])
        return replace(self, episodes=tuple(self.episodes[index] for index in chosen))


def content_hash(episodes: Iterable[Episode], adapter: Adapter | None = None) -> str:
    """Return the SHA-256 over every array and flag of `episodes`, with types and shapes.

    Args:
        episodes: The episodes.
        adapter: Take the arrays as they are stored, whatever form learners see.
    """
    digest = hashlib.sha256()
    for episode in episodes:
        stored = (episode.stored, episode.actions)
        if adapter is not None:
            stored = (
                adapter.write_observations(episode.observations),
                adapter.write_actions(episode.actions),
            )
        for array in _leaves((*stored, episode.rewards)):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(bytes([episode.terminated, episode.truncated]))
    return f"sha256:{digest.hexdigest()}"


def _leaves(values: Any) -> Iterator[Array]:
    if isinstance(values, dict):
        values = tuple(values[key] for key in sorted(values))
    if isinstance(values, tuple):
        for value in values:
            yield from _leaves(value)
    else:
        yield values
