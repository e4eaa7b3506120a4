"""Drivers for Car Racing, which follow the track by the simulator's own state.

A driver aims at the point of the track's middle that is as far ahead as suits the speed. It turns
the front wheels by an angle in proportion to that of the point, less what the car turns already,
and drives no faster than is good for the bends ahead. It knows no more of the track than the
picture shows, so that a clone can do the same.

States are rows as `rlfd.envs.car_racing.CarRacing.driver_state` returns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["continuous", "five_actions", "three_actions"]

Array = npt.NDArray[Any]

LOCK = 0.4  # the front wheels turn no farther, in radians
TURN = 0.06  # by so much in a step
NEAREST, FARTHEST = 6.0, 18.0  # distance of the point aimed at


@dataclass(frozen=True)
class Style:
    """How to drive. Found by random search on tracks that are not used for demonstrations.

    Attributes:
        near: Distance of the point aimed at, when the car stands.
        per_speed: How much farther away it is for each unit of speed.
        gain: Angle of the wheels for each radian of the point's.
        damping: Angle of the wheels for each radian per second that the car turns.
        top_speed: Never driven faster.
        grip: Acceleration to the side that is allowed in a bend.
        braking: Deceleration that is counted on before a bend.
        patience: Discrete actions only: wheels stay as they are unless turning them
            brings them so much nearer to where they should be.
        slack: Discrete actions only: excess of speed that is braked for.
    """

    near: float
    per_speed: float
    gain: float
    damping: float
    top_speed: float = 0.0
    grip: float = 0.0
    braking: float = 0.0
    patience: float = 0.0
    slack: float = 0.0


CONTINUOUS = Style(6.0, 0.12, 1.2, 0.0, top_speed=80.0, grip=120.0, braking=25.0)
FIVE = Style(
    6.5, 0.24, 1.5, 0.05, top_speed=74.0, grip=225.0, braking=21.0, patience=0.027, slack=6.7
)
THREE = Style(9.4, 0.24, 1.5, 0.07, patience=0.01)
SLOW, SLOWLY = 12.0, 0.2
"""Below this speed five actions have more patience, since who steers gives no gas."""


def _points(states: Array) -> tuple[Array, Array]:
    """Return the track ahead (n, P, 2) and how far away it is (n, P)."""
    points = states[:, 4:].reshape(len(states), -1, 2)
    return points, np.hypot(points[..., 0], points[..., 1])


def _wheels(states: Array, style: Style) -> Array:
    """Return where the front wheels should be: to the right, in radians. Shape (n,)."""
    points, distances = _points(states)
    wanted = np.clip(style.near + style.per_speed * states[:, 0], NEAREST, FARTHEST)
    chosen = np.abs(distances - wanted[:, None]).argmin(axis=1)
    right, forwards = points[np.arange(len(states)), chosen].T
    angle = np.arctan2(right, forwards)
    wheels: Array = np.clip(style.gain * angle + style.damping * states[:, 2], -LOCK, LOCK)
    return wheels


def _speed(states: Array, style: Style) -> Array:
    """Return how fast the bends ahead can be driven. Shape (n,)."""
    points, distances = _points(states)
    pieces = np.diff(points, axis=1)
    headings = np.unwrap(np.arctan2(pieces[..., 0], pieces[..., 1]), axis=1)
    lengths = np.hypot(pieces[..., 0], pieces[..., 1])
    bends = np.abs(headings[:, 2:] - headings[:, :-2]) / (lengths[:, 1:-1] + lengths[:, 2:])
    there = style.grip / np.maximum(bends, 1e-3)
    room = np.maximum(distances[:, : bends.shape[1]] - 2.0, 0.0)
    now = np.sqrt(there + 2.0 * style.braking * room).min(axis=1)
    limit: Array = np.minimum(now, style.top_speed)
    return limit


def _turn(states: Array, style: Style, patience: Any) -> Array:
    """Return which way to steer for a step: -1 left, 0 not at all, 1 right. Shape (n,)."""
    wanted, wheels = _wheels(states, style), -states[:, 3]
    back = np.sign(wheels) * np.maximum(np.abs(wheels) - TURN, 0.0)
    left, right = np.maximum(wheels - TURN, -LOCK), np.minimum(wheels + TURN, LOCK)
    errors = np.abs(np.stack([back, left, right], axis=1) - wanted[:, None])
    errors[:, 1:] += patience
    turns: Array = np.array([0, -1, 1])[errors.argmin(axis=1)]
    return turns


def three_actions(states: Array) -> Array:
    """Return left, straight on or right for states (n, D)."""
    return (_turn(states, THREE, THREE.patience) + 1).astype(np.int64)


def five_actions(states: Array) -> Array:
    """Return nothing, right, left, gas or brake for states (n, D)."""
    patience = np.where(states[:, :1] < SLOW, SLOWLY, FIVE.patience)
    turn, excess = _turn(states, FIVE, patience), states[:, 0] - _speed(states, FIVE)
    pedals = np.where(excess > FIVE.slack, 4, np.where(excess < 0.0, 3, 0))
    steer = np.where(turn > 0, 1, 2)
    return np.where((turn == 0) | (pedals == 4), pedals, steer).astype(np.int64)


def continuous(states: Array) -> Array:
    """Return steering, gas and brake for states (n, D)."""
    missing = _speed(states, CONTINUOUS) - states[:, 0]
    steering = _wheels(states, CONTINUOUS)
    # with much gas in a tight turn the rear slides away
    gas = np.clip(0.1 * missing, 0.0, 1.0 - 2.0 * np.abs(steering))
    brake = np.clip(-0.05 * missing, 0.0, 0.6)
    return np.stack([steering, gas, brake], axis=1).astype(np.float32)
