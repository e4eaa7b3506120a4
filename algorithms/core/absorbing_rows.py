"""Absorbing states of off-policy imitation (Kostrikov et al., 2019, section 4.2).

Every observation gets one more entry: 0, or 1 in an absorbing state, which is the terminal
observation otherwise. A terminal transition leads there and bootstraps from it; for each, memory
holds self-loops (s_T, 0, s_T), both marked, as many as the rest of the episode counts
(`core/absorbing.py`). Truncations stay as they are. In s_T nobody chooses: its action is 0.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import ActionSpec, Problem, TransitionBatch, World
from rlfd.algorithms.core.absorbing import EndsMemory, draw_stays
from rlfd.algorithms.core.engine import Batch
from rlfd.errors import RlfdError

__all__ = ["AbsorbingRows", "in_absorbing_state"]


def in_absorbing_state(observations: Tensor) -> Tensor:
    """Return which marked observations (B, D + 1) are absorbing. Shape (B,), bool."""
    return observations[:, -1] > 0.5


@dataclass
class _MarkedTransitions:
    """A `TransitionBatch` with marked observations."""

    observations: np.ndarray
    actions: np.ndarray
    learner_rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class AbsorbingRows:
    """Marks observations, and turns sampled rows into those of a memory with absorbing states.

    Memory itself keeps the terminal transitions as they were: all self-loops of an end are the same
    row, so that row is drawn as often as it would be found.

    Args:
        problem: The problem without absorbing states.
        gamma: γ.

    Raises:
        RlfdError: If observations are images, which have no room for a mark.
    """

    def __init__(self, problem: Problem, gamma: float) -> None:
        if problem.images:
            raise RlfdError(
                "absorbing=indicator marks vectors, and observations are images here",
                "use --set absorbing=value",
            )
        self._gamma = gamma
        self._action = _zero_action(problem.action).to(problem.device)

    @staticmethod
    def mark(observations: np.ndarray) -> np.ndarray:
        """Append the entry 0. Shape (B, *observation_shape) -> (B, D + 1)."""
        flat = observations.reshape(len(observations), -1)
        return np.pad(flat, ((0, 0), (0, 1)))

    def problem(self, problem: Problem) -> Problem:
        """Return the problem with marked observations, those of demonstrations included."""
        demos = problem.demonstrations
        if demos is not None:
            assert demos.next_observations is not None
            demos = dataclasses.replace(
                demos,
                observations=_mark(demos.observations),
                next_observations=_mark(demos.next_observations),
            )
        shape = (math.prod(problem.observation_shape) + 1,)
        return dataclasses.replace(problem, observation_shape=shape, demonstrations=demos)

    def world(self, world: World) -> World:
        """Return the world with marked observations."""
        return _MarkedWorld(world)

    def apply(self, batch: Batch, memory: EndsMemory, generator: torch.Generator) -> Batch:
        """Return a batch as if drawn from a memory with absorbing states.

        Args:
            batch: Marked observations and next_observations, actions, discounts, and possibly
                terminated, drawn uniformly.
            memory: What it was drawn from.
            generator: Source of the draws.

        Returns:
            The batch: discounts are γ and nothing is terminated; terminal transitions lead to
            their marked observation, and some rows are self-loops there, as `draw_stays` says.
        """
        size = len(batch["discounts"])
        loops, last = draw_stays(memory, size, gamma=self._gamma, generator=generator)
        following = batch["next_observations"].clone()
        following[loops] = last
        following[loops | (batch["discounts"] == 0.0), -1] = 1.0
        observations, actions = batch["observations"].clone(), batch["actions"].clone()
        observations[loops] = following[loops]
        actions[loops] = self._action.to(actions.dtype)
        changed = {
            "observations": observations,
            "actions": actions,
            "next_observations": following,
            "discounts": torch.full_like(batch["discounts"], self._gamma),
        }
        if "terminated" in batch:
            changed["terminated"] = torch.zeros_like(batch["terminated"])
        return batch | changed


class _MarkedWorld:
    """A `World` whose observations are marked."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def num_envs(self) -> int:
        return self._world.num_envs

    @property
    def env_steps(self) -> int:
        return self._world.env_steps

    @property
    def observations(self) -> np.ndarray:
        return AbsorbingRows.mark(self._world.observations)

    def step(self, actions: np.ndarray) -> TransitionBatch:
        transitions = self._world.step(actions)
        return _MarkedTransitions(
            observations=AbsorbingRows.mark(transitions.observations),
            actions=transitions.actions,
            learner_rewards=transitions.learner_rewards,
            next_observations=AbsorbingRows.mark(transitions.next_observations),
            terminated=transitions.terminated,
            truncated=transitions.truncated,
        )


def _mark(observations: Tensor) -> Tensor:
    return torch.nn.functional.pad(observations.flatten(1), (0, 1))


def _zero_action(spec: ActionSpec) -> Tensor:
    """Return action 0: the first one, or the middle of the bounds."""
    if spec.kind == "discrete":
        return torch.tensor(0)
    return (torch.tensor(spec.low) + torch.tensor(spec.high)) / 2.0
