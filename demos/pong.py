"""A player of Pong that sees no more than an observation shows, so that a clone can do the same.

It finds ball and paddles in the last four frames. While the ball is far, the paddle follows it. In
the last five steps before it arrives, presses are searched for those that meet it with the end of
the paddle that sends it away from the opponent. A press goes on moving the paddle for three more
steps; which presses were made before is inferred from how the paddle moved, since sticky actions
make them uncertain anyway.

Where a far ball will arrive is too sensitive to its speed to be cloned: going there at once won as
often, and clones of it lost nearly every ball. Rows and columns are those of 84 x 84 pictures.
`AIM`, `NEAR`, `STEPS` and `FOLLOW` were chosen in some thirty trials on ten episodes that are not
used for demonstrations.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OPTIONS", "play"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# What the numbers below hold for.
OPTIONS = {"size": 84, "frame_skip": 4, "actions": "minimal"}

STAY, UP, DOWN = 0, 2, 3
BACKGROUND = 87
TOP, BOTTOM = 14, 77  # first row of the field, and the first below it
LEFT, RIGHT = 12, 72  # columns between the paddles
PADDLE, OPPONENT = 74, 9  # columns of the paddles
PADDLE_ROWS = 6.4  # its height
ARRIVAL = 73.7  # the ball's column when it meets the paddle
CEILING, FLOOR = 14.8, 75.7  # rows at which the middle of the ball turns
HOME = 45.5
FIRST, LAST = 17.5, 73.5  # rows that the paddle's middle is sent to
HIGHEST, LOWEST = 12.0, 78.0  # rows that it can reach

# Rows that a press moves the paddle by in the step after it and in the following ones; measured
# with sticky actions, by least squares.
PRESS = np.array([2.06, 5.06, 1.48, 0.36])
SPREAD = 0.8  # standard deviation of a motion that the presses do not explain
STEPS = 5  # as far ahead as presses are searched
AIM = 2.5  # rows between the ball and the paddle's middle when they meet
NEAR = 1.8  # being off by so much is not worth a press
EFFORT, HASTE = 0.15, 0.02  # cost of a press, and of each row to go in each step
FOLLOW = 7.0  # being off the row of a far ball by so much is not worth a press

_FOUR = np.array(list(itertools.product((-1, 0, 1), repeat=len(PRESS))), np.float64)
_MOTION = _FOUR @ np.array([[*np.zeros(k), *PRESS[: len(PRESS) - k]] for k in range(3)]).T
_SEQUENCES = np.array(list(itertools.product((0, -1, 1), repeat=STEPS)), np.float64)


def _response(presses: Floats, steps: int) -> Floats:
    """Return how far (N, steps) the presses (N, K), one a step, have moved the paddle by then."""
    moved = np.zeros((len(presses), steps))
    for press, step in itertools.product(range(presses.shape[1]), range(steps)):
        if 0 <= step - press < len(PRESS):
            moved[:, step] += PRESS[step - press] * presses[:, press]
    return moved.cumsum(1)


_PATHS = _response(_SEQUENCES, STEPS)


def play(observations: Array) -> Array:
    """Return an action of the minimal set for each of the observations, uint8 (n, 4, 84, 84)."""
    return np.array([_action(frames) for frames in observations], np.int64)


def _action(frames: Array) -> int:
    rows = [_paddle(frame) for frame in frames]
    now = rows[-1]
    if now is None:  # behind a wall
        return DOWN if rows[-2] is not None and rows[-2] > HOME else UP
    seen = np.array([now if row is None else row for row in rows])
    coming = _coming(np.diff(seen)[::-1])
    balls = [_ball(frame) for frame in frames]
    row, steps = _arrival(balls)
    if steps >= STEPS:
        return _follow(balls[-1][1] if balls[-1] and steps < np.inf else HOME, now + coming[-1])
    other = _paddle(frames[-1], OPPONENT)  # a ball that meets the paddle's upper end goes up
    row = _reachable(row + (AIM if other is not None and other > HOME else -AIM))

    def miss(positions: Floats) -> Floats:
        return np.maximum(np.abs(positions - row) - NEAR, 0.0)

    paths = np.clip(now + np.insert(_PATHS + coming, 0, 0.0, axis=1), HIGHEST, LOWEST)
    before, part = int(steps), steps % 1
    cost = miss((1 - part) * paths[:, before] + part * paths[:, before + 1])
    cost += EFFORT * np.abs(_SEQUENCES).sum(1) + HASTE * miss(paths[:, 1:]).sum(1)
    return {0: STAY, -1: UP, 1: DOWN}[int(_SEQUENCES[cost.argmin(), 0])]


def _follow(row: float, rest: float) -> int:
    """Return the press that brings the paddle, which comes to rest somewhere, nearer to a row."""
    off = _reachable(row) - rest
    if abs(off) <= FOLLOW:
        return STAY
    return DOWN if off > 0 else UP


def _reachable(row: float) -> float:
    return min(max(row, FIRST), LAST)


def _coming(motion: Floats) -> Floats:
    """Return how far past presses still move the paddle in the next steps, from its last motions.

    Args:
        motion: Rows moved in the last three steps, the last one first.
    """
    squares = ((_MOTION - motion) ** 2).sum(1)
    weights = np.exp((squares.min() - squares) / (2 * SPREAD**2))
    presses = weights @ _FOUR / weights.sum()  # the last one first
    along = _response(presses[None, ::-1], len(PRESS) + STEPS)
    coming: Floats = along[0, len(PRESS) :] - along[0, len(PRESS) - 1]
    return coming


def _arrival(balls: list[tuple[float, float] | None]) -> tuple[float, float]:
    """Return the row where the ball arrives and in how many steps; infinitely many if it flees."""
    if balls[-1] is None or balls[-2] is None:
        return HOME, np.inf
    column, row = balls[-1]
    speeds = [
        ((column - ball[0]) / back, (row - ball[1]) / back)
        for back, ball in enumerate(balls[-2::-1], 1)
        if ball is not None
    ]
    across, down = speeds[0]
    if across <= 0.2:
        return HOME, np.inf
    for speed in speeds[1:]:  # over more frames more precise, unless it bounced
        if max(abs(speed[0] - speeds[0][0]), abs(speed[1] - speeds[0][1])) > 0.6:
            break
        across, down = speed
    steps = max(0.0, (ARRIVAL - column) / across)
    height = FLOOR - CEILING
    below = (row + down * steps - CEILING) % (2 * height)
    return CEILING + min(below, 2 * height - below), steps


def _ball(frame: Array) -> tuple[float, float] | None:
    """Return column and row of the ball's middle, None if it is not between the paddles."""
    light = np.maximum(frame[TOP:BOTTOM, LEFT:RIGHT].astype(np.float64) - BACKGROUND, 0.0)
    total = light.sum()
    if total < 60.0:
        return None
    columns, rows = light.sum(0), light.sum(1)
    return (
        float(columns @ np.arange(LEFT, RIGHT) / total),
        float(rows @ np.arange(TOP, BOTTOM) / total),
    )


def _paddle(frame: Array, column: int = PADDLE) -> float | None:
    """Return the row of a paddle's middle, also where a wall hides a part of it."""
    light = np.clip(frame[TOP + 1 : BOTTOM, column].astype(np.float64) - BACKGROUND, 0, 60) / 60
    size = light.sum()
    if size < 1:
        return None
    middle = float(light @ np.arange(TOP + 1, BOTTOM) / size)
    hidden = PADDLE_ROWS - size if size < 6 else 0.0
    return middle + (hidden if middle > HOME else -hidden) / 2
