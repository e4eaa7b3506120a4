"""What a researcher looks at before trusting demonstrations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from rlfd.demos.dataset import DemoInfo, Demonstrations, Episode

__all__ = ["DemoReport", "Distribution", "StartOverlap", "inspect", "shifted_start_overlap"]

SHIFTED_START = (0.75, 0.90)  # |x| of Lunar Lander's start `shifted`
START_MARGIN = 0.2  # demonstrations that come nearer than this spoil the shifted-start experiment
QUANTILES = (0.01, 0.5, 0.99)
X_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Distribution:
    """How numbers are spread: mean, standard deviation (of the population), and five quantiles."""

    mean: float
    std: float
    minimum: float
    quartile_1: float
    median: float
    quartile_3: float
    maximum: float


@dataclass(frozen=True)
class StartOverlap:
    """How near the demonstrations come to Lunar Lander's shifted start.

    Args:
        quantiles: Quantiles of abs(x) over all states, by level (0.5, 0.9, 0.99, 1).
        max_abs_x: The largest abs(x).
        limit: abs(x) from which on a state counts as near the start.
        episodes: Indices of the episodes with such a state.
    """

    quantiles: dict[float, float]
    max_abs_x: float
    limit: float
    episodes: tuple[int, ...]

    @property
    def overlaps(self) -> bool:
        """Whether any state comes too near; such data are refused for the shifted start."""
        return bool(self.episodes)


@dataclass(frozen=True)
class DemoReport:
    """Summary of demonstrations.

    Args:
        info: Where they come from.
        episodes: Number of episodes.
        transitions: Number of actions in all of them.
        returns: Over episodes.
        lengths: Over episodes.
        success_rate: None where there is no success test.
        ends: Number of episodes by how they ended: ``terminated``, ``truncated``.
        actions: How often each action was taken, for discrete actions. For several discrete
            parts, one tuple for each. None for continuous ones, see `action_quantiles`.
        action_quantiles: For continuous actions, one row (1 %, 50 %, 99 %) for each dimension.
        observation_quantiles: One row (1 %, 50 %, 99 %) for each dimension; for images one row
            over all pixels.
        duplicates: Number of episodes that repeat an earlier one exactly.
        start_overlap: For Lunar Lander only.
        remarks: What is odd about what is stored.
        first_actions: The number of the first action, where `actions` counts any: one for each
            part, as the environment counts.
    """

    info: DemoInfo
    episodes: int
    transitions: int
    returns: Distribution
    lengths: Distribution
    success_rate: float | None
    ends: dict[str, int]
    actions: tuple[tuple[int, ...], ...] | None
    action_quantiles: tuple[tuple[float, ...], ...] | None
    observation_quantiles: tuple[tuple[float, ...], ...]
    duplicates: int
    start_overlap: StartOverlap | None
    remarks: tuple[str, ...] = ()
    first_actions: tuple[int, ...] = ()


def inspect(demos: Demonstrations) -> DemoReport:
    """Summarise `demos`."""
    histogram, action_quantiles = _actions(demos)
    distinct = {_fingerprint(episode) for episode in demos.episodes}
    return DemoReport(
        info=demos.info,
        episodes=len(demos.episodes),
        transitions=demos.num_transitions,
        returns=_distribution(demos.returns),
        lengths=_distribution(demos.lengths.astype(np.float64)),
        success_rate=demos.success_rate,
        ends={
            "terminated": sum(episode.terminated for episode in demos.episodes),
            "truncated": sum(episode.truncated for episode in demos.episodes),
        },
        actions=histogram,
        action_quantiles=action_quantiles,
        observation_quantiles=_observation_quantiles(demos),
        duplicates=len(demos.episodes) - len(distinct),
        start_overlap=shifted_start_overlap(demos),
        remarks=demos.remarks,
        first_actions=_first_actions(demos),
    )


def shifted_start_overlap(demos: Demonstrations) -> StartOverlap | None:
    """Measure how near Lunar Lander demonstrations come to the shifted start; None for others.

    A demonstration that visits the start from which a learner is to find back shows it what to do
    there, and one stray episode is enough for that.
    """
    if demos.info.gym_id != "LunarLander-v3":
        return None
    largest = np.array([np.abs(episode.observations[:, 0]).max() for episode in demos.episodes])
    everywhere = np.abs(
        np.concatenate([episode.observations[:, 0] for episode in demos.episodes])
    ).astype(np.float64)
    limit = SHIFTED_START[0] - START_MARGIN
    # A lander that is farther out than the start has passed it, or has left the screen.
    return StartOverlap(
        quantiles={level: float(np.quantile(everywhere, level)) for level in X_QUANTILES},
        max_abs_x=float(largest.max()),
        limit=limit,
        episodes=tuple(int(index) for index in np.flatnonzero(largest > limit)),
    )


def _distribution(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Distribution:
    five = (float(value) for value in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)))
    return Distribution(float(values.mean()), float(values.std()), *five)


def _quantiles(
    rows: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> tuple[tuple[float, ...], ...]:
    levels = np.quantile(rows.astype(np.float64), QUANTILES, axis=0)  # (3, D)
    return tuple(tuple(float(value) for value in column) for column in levels.T)


def _observation_quantiles(demos: Demonstrations) -> tuple[tuple[float, ...], ...]:
    stored = [episode.stored for episode in demos.episodes]
    if demos.observation_space.dtype == np.uint8:  # counted, since there may be 10^9 of them
        counts = sum(np.bincount(frames.ravel(), minlength=256) for frames in stored)
        places = np.array(QUANTILES) * (int(np.sum(counts)) - 1)
        ranks = np.stack([np.floor(places), np.ceil(places)])
        low, high = np.searchsorted(np.cumsum(counts), ranks, side="right")
        return (tuple(float(value) for value in low + (places - ranks[0]) * (high - low)),)
    rows = np.concatenate(stored)
    dimensions = 1 if rows.ndim > 2 else int(rows[0].size)
    return _quantiles(rows.reshape(-1, dimensions))


def _fingerprint(episode: Episode) -> bytes:
    digest = hashlib.sha256()
    for array in (episode.stored, episode.actions):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _first_actions(demos: Demonstrations) -> tuple[int, ...]:
    """Return from where the environment itself counts its actions."""
    stored = demos.action_space if demos.adapter is None else demos.adapter.stored[1]
    if isinstance(stored, spaces.Box):
        return ()
    parts = int(np.prod(stored.shape or ()))
    first = np.broadcast_to(np.ravel(getattr(stored, "start", 0)), parts)
    return tuple(int(number) for number in first)


def _actions(
    demos: Demonstrations,
) -> tuple[tuple[tuple[int, ...], ...] | None, tuple[tuple[float, ...], ...] | None]:
    actions = np.concatenate([episode.actions for episode in demos.episodes])
    space = demos.action_space
    rows = actions.reshape(len(actions), -1)
    if isinstance(space, spaces.Box):
        return None, _quantiles(rows)
    sizes = (
        [space.n]
        if isinstance(space, spaces.Discrete)
        else space.nvec
        if isinstance(space, spaces.MultiDiscrete)
        else [2] * rows.shape[1]
    )
    rows = rows - np.ravel(getattr(space, "start", 0))
    counts = [
        np.bincount(rows[:, part], minlength=int(sizes[part])) for part in range(rows.shape[1])
    ]
    return tuple(tuple(int(count) for count in part) for part in counts), None
