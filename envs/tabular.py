"""Finite decision processes that are known: a grid, a chain, and their tables.

Time is part of the state: an episode ends, as its task, after a fixed number of steps, and an
observation is the state's one-hot vector followed by the share of the horizon that has passed.
Policies of a finite horizon can then act exactly, and every other method can act here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.errors import RlfdError

__all__ = [
    "Chain",
    "GridWorld",
    "Table",
    "TabularEnv",
    "chain",
    "decode",
    "grid_world",
    "soft_policy",
]

Array = npt.NDArray[np.float64]

GOAL, PIT = 3.0, -3.0  # paid for each step that begins there
CHAIN_END, CHAIN_BACK = 3.0, 1.0


@dataclass(frozen=True, eq=False)
class Table:
    """A finite decision process. Floats are float64, and nobody writes to them.

    Attributes:
        transitions: P(s'|s, a). Shape (S, A, S).
        start: p_0(s). Shape (S,).
        features: f(s, a), what a linear reward weighs. Shape (S, A, F).
        rewards: r(s, a), the true ones. Shape (S, A).
        horizon: T, steps of an episode.
        cells: Rows and columns that the states are drawn in, row by row.
        moves: Where actions lead in a drawing, columns to the right and rows down. Shape (A, 2).
    """

    transitions: Array
    start: Array
    features: Array
    rewards: Array
    horizon: int
    cells: tuple[int, int]
    moves: Array


def decode(observations: npt.NDArray[Any], horizon: int) -> tuple[Any, Any]:
    """Return states and steps passed, both (B,), of observations (B, S + 1)."""
    steps = np.rint(observations[:, -1].astype(np.float64) * horizon).astype(np.int64)
    return observations[:, :-1].argmax(axis=1), steps


@lru_cache(maxsize=8)
def grid_world(
    *,
    size: float = 8,
    slip: float = 0.0,
    goals: float = 1,
    pits: float = 4,
    layout: float = 0,
    horizon: float = 30,
) -> Table:
    """Return a square grid: right, down, left, up; against a wall one stays.

    A step that begins in a goal pays 3, one that begins in a pit -3, others nothing. Episodes
    begin in any of the other cells alike.

    Args:
        size: Cells along each side.
        slip: Probability that the direction is drawn uniformly from all four instead.
        goals: How many cells pay.
        pits: How many cells cost.
        layout: 0 puts the goals into the corners, the lower right one first; another number is the
            seed of places drawn for them. Pits are drawn in any case.
        horizon: T.

    Raises:
        RlfdError: If there are not more cells than goals and pits, or more than four goals for the
            corners.
    """
    n, cells = int(size), int(size) ** 2
    if goals + pits >= cells:
        raise RlfdError(
            f"a grid of {n} x {n} cells has no room for {int(goals)} goals and {int(pits)} pits "
            "and a cell to start from",
            "raise 'size', or lower 'goals' or 'pits'",
        )
    if layout == 0 and goals > 4:
        raise RlfdError(
            f"a grid has 4 corners, not {int(goals)}", "give 'layout' a number to draw the places"
        )
    corners = [cells - 1, n - 1, cells - n, 0][: int(goals)] if layout == 0 else []
    drawn = np.random.default_rng(int(layout)).permutation(cells)
    places = [*corners, *(cell for cell in drawn if cell not in corners)]
    paying, costing = places[: int(goals)], places[int(goals) : int(goals + pits)]

    moves = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    rows, columns = np.divmod(np.arange(cells), n)
    reached = np.stack(
        [np.clip(rows + y, 0, n - 1) * n + np.clip(columns + x, 0, n - 1) for x, y in moves], 1
    )  # (S, A)
    intended = np.eye(cells)[reached]  # (S, A, S)
    transitions = (1.0 - slip) * intended + slip * intended.mean(axis=1, keepdims=True)
    rewards = np.zeros(cells)
    rewards[paying], rewards[costing] = GOAL, PIT
    start = (rewards == 0.0).astype(np.float64)
    return Table(
        transitions=transitions,
        start=start / start.sum(),
        features=np.broadcast_to(np.eye(cells)[:, None], (cells, 4, cells)),
        rewards=np.repeat(rewards[:, None], 4, axis=1),
        horizon=int(horizon),
        cells=(n, n),
        moves=moves.astype(np.float64),
    )


@lru_cache(maxsize=8)
def chain(*, length: float = 7, slip: float = 0.2, horizon: float = 20) -> Table:
    """Return a chain of states: go ahead, or return to the first one.

    Going ahead from the last state pays 3 and stays there, returning pays 1 everywhere: what pays
    at once leads away from what pays more. Features are one-hots of (s, a).

    Args:
        length: S.
        slip: Probability that the other action happens. What pays is what was chosen.
        horizon: T.
    """
    states = int(length)
    ahead = np.eye(states)[np.minimum(np.arange(states) + 1, states - 1)]
    back = np.eye(states)[np.zeros(states, np.int64)]
    rewards = np.zeros((states, 2))
    rewards[-1, 0], rewards[:, 1] = CHAIN_END, CHAIN_BACK
    return Table(
        transitions=np.stack(
            [(1.0 - slip) * ahead + slip * back, (1.0 - slip) * back + slip * ahead], axis=1
        ),
        start=np.eye(states)[0],
        features=np.eye(2 * states).reshape(states, 2, 2 * states),
        rewards=rewards,
        horizon=int(horizon),
        cells=(1, states),
        moves=np.array([[1.0, 0.0], [-1.0, 0.0]]),
    )


def soft_policy(table: Table) -> Array:
    """Return the policy of greatest return and causal entropy together, π_t(a|s) (T, S, A)."""
    values = np.zeros(len(table.start))
    policy = np.empty((table.horizon, *table.rewards.shape))
    for step in reversed(range(table.horizon)):
        q = table.rewards + table.transitions @ values
        values = np.logaddexp.reduce(q, axis=1)
        policy[step] = np.exp(q - values[:, None])
    return policy


class TabularEnv(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """Acts out a table.

    Args:
        table: The process.
        render_mode: ``rgb_array``, or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, table: Table, render_mode: str | None = None) -> None:
        self.table, self.render_mode = table, render_mode
        states, actions = table.rewards.shape
        self.observation_space = spaces.Box(0.0, 1.0, (states + 1,), np.float32)
        self.action_space = spaces.Discrete(actions)
        self._state, self._steps = 0, 0

    def _draw(self, probabilities: Array) -> int:
        possible = np.flatnonzero(probabilities)
        bounds = np.cumsum(probabilities[possible])
        place = int(np.searchsorted(bounds, self.np_random.random(), side="right"))
        return int(possible[min(place, len(possible) - 1)])

    def _observe(self) -> npt.NDArray[np.float32]:
        observation = np.zeros(self.observation_space.shape or (), np.float32)
        observation[self._state] = 1.0
        observation[-1] = self._steps / self.table.horizon
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Draw a start state."""
        super().reset(seed=seed)
        self._state, self._steps = self._draw(self.table.start), 0
        return self._observe(), {}

    def step(
        self, action: Any
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Pay for state and action, and draw what follows."""
        reward = float(self.table.rewards[self._state, int(action)])
        self._state = self._draw(self.table.transitions[self._state, int(action)])
        self._steps += 1
        return self._observe(), reward, self._steps >= self.table.horizon, False, {}

    def render(self) -> Any:
        """Return a picture: what pays is green, what costs is orange, the agent is black."""
        best = self.table.rewards.max(axis=1)
        colours = np.full((len(best), 3), 235, np.uint8)
        colours[best == best.max()], colours[best < 0] = (0, 158, 115), (230, 159, 0)
        colours[self._state] = 0
        return np.kron(colours.reshape(*self.table.cells, 3), np.ones((32, 32, 1), np.uint8))


class GridWorld(TabularEnv):
    """Acts out `grid_world`."""

    def __init__(self, render_mode: str | None = None, **options: float) -> None:
        super().__init__(grid_world(**options), render_mode)


class Chain(TabularEnv):
    """Acts out `chain`."""

    def __init__(self, render_mode: str | None = None, **options: float) -> None:
        super().__init__(chain(**options), render_mode)


gymnasium.register("rlfd/GridWorld-v0", "rlfd.envs.tabular:GridWorld")
gymnasium.register("rlfd/Chain-v0", "rlfd.envs.tabular:Chain")
