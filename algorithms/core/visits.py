"""States that somebody visited, with a demonstrator's labels: the aggregate of DAgger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import DemoTensors, LabelledEpisode, TransitionBatch

__all__ = ["Visits"]


class Visits:
    """Every visited state once, in the order of the visits; N of them in each step of a world.

    An episode that goes on from one call of `extend` to the next keeps its number.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Tensor] = {}  # observations, labels, episodes, rewards, terminated
        self._ended = torch.zeros(0, dtype=torch.int64)  # the episodes that are over
        self._last: Tensor | None = None  # what they ended in. Shape (E, *observation_shape)
        self._running: Tensor | None = None  # episode of each environment, -1 = none yet
        self._reached: Tensor | None = None  # where the running ones are
        self._count = 0

    def __len__(self) -> int:
        return len(self._rows["episodes"]) if self._rows else 0

    @property
    def running(self) -> int:
        """Number of episodes that have begun and are not over."""
        return 0 if self._running is None else int((self._running >= 0).sum())

    def extend(self, steps: Sequence[tuple[TransitionBatch, np.ndarray]]) -> None:
        """Append what some steps of the world visited, with the labels of those states."""
        if self._running is None:
            self._running = torch.full((len(steps[0][1]),), -1)
        episodes = []
        for batch, _ in steps:
            begins = self._running < 0
            fresh = int(begins.sum())
            self._running[begins] = torch.arange(self._count, self._count + fresh)
            self._count += fresh
            episodes.append(self._running.clone())
            over = torch.from_numpy(batch.terminated | batch.truncated)
            last = torch.from_numpy(batch.next_observations)
            if over.any():
                self._ended = torch.cat([self._ended, self._running[over]])
                ends = [last[over]] if self._last is None else [self._last, last[over]]
                self._last = torch.cat(ends)
            self._running[over] = -1
            self._reached = last.clone()
        columns = {
            "observations": np.concatenate([batch.observations for batch, _ in steps]),
            "labels": np.concatenate([labels for _, labels in steps]),
            "rewards": np.concatenate([batch.learner_rewards for batch, _ in steps]),
            "terminated": np.concatenate([batch.terminated for batch, _ in steps]),
        }
        rows = {name: torch.from_numpy(values) for name, values in columns.items()}
        rows["episodes"] = torch.cat(episodes)
        if self._rows:
            rows = {name: torch.cat([old, rows[name]]) for name, old in self._rows.items()}
        self._rows = rows

    def pairs(self, given: DemoTensors | None = None) -> DemoTensors:
        """Return all states with their labels as actions, after the demonstrations if there are."""
        rows = self._rows
        whole = not rows["labels"].is_floating_point()
        pairs = DemoTensors(
            observations=rows["observations"].float(),
            actions=rows["labels"].to(torch.int64 if whole else torch.float32),
            episode_ids=rows["episodes"],
        )
        if given is None:
            return pairs
        return DemoTensors(
            observations=torch.cat([given.observations, pairs.observations]),
            actions=torch.cat([given.actions, pairs.actions]),
            episode_ids=torch.cat([given.episode_ids, pairs.episode_ids + given.num_episodes]),
        )

    def episodes(self) -> list[LabelledEpisode]:
        """Return the episodes in the order in which they began."""
        if not self._rows:
            return []
        assert self._running is not None
        assert self._reached is not None
        last = () if self._last is None else self._last
        final = {int(episode): end for episode, end in zip(self._ended, last, strict=True)}
        for episode, reached in zip(self._running, self._reached, strict=True):
            final[int(episode)] = reached
        order = torch.argsort(self._rows["episodes"], stable=True)
        lengths = torch.bincount(self._rows["episodes"]).tolist()
        made = []
        for episode, rows in enumerate(torch.split(order, lengths)):
            part = {name: values[rows].numpy() for name, values in self._rows.items()}
            last = final[episode].numpy()[None]
            made.append(
                LabelledEpisode(
                    observations=np.concatenate([part["observations"], last]),
                    labels=part["labels"],
                    rewards=part["rewards"],
                    terminated=bool(part["terminated"][-1]),
                )
            )
        return made

    def state_dict(self) -> dict[str, object]:
        """Return everything, so as much as was gathered."""
        return {
            "rows": dict(self._rows),
            "ended": self._ended,
            "last": self._last,
            "running": None if self._running is None else self._running.clone(),
            "reached": self._reached,
            "count": self._count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._rows = dict(state["rows"])
        self._ended, self._last = state["ended"], state["last"]
        running = state["running"]
        self._running = running.clone() if isinstance(running, Tensor) else None
        self._reached, self._count = state["reached"], state["count"]
