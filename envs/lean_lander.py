"""Gymnasium's own Lunar Lander, stepped with less Python around the simulator.

Box2D takes a third of the time of Gymnasium's step; most of the rest goes into checking the action
against its space, and into asking the simulator for the same angle and position again and again.
The step here makes the same calls of Box2D with the same numbers, so what comes of it is the same,
bit for bit. Of the forms of the environment it knows the plain one: four actions, no wind, nothing
drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.box2d.lunar_lander import (
    FPS,
    LEG_DOWN,
    MAIN_ENGINE_POWER,
    MAIN_ENGINE_Y_LOCATION,
    SCALE,
    SIDE_ENGINE_AWAY,
    SIDE_ENGINE_HEIGHT,
    SIDE_ENGINE_POWER,
    VIEWPORT_H,
    VIEWPORT_W,
)

__all__ = ["LeanLander", "is_plain"]

HALF_WIDTH, HALF_HEIGHT = VIEWPORT_W / SCALE / 2, VIEWPORT_H / SCALE / 2
FEET = LEG_DOWN / SCALE
MAIN_ARM = MAIN_ENGINE_Y_LOCATION / SCALE
SECONDS = 1.0 / FPS


def is_plain(lander: Any) -> bool:
    """Return whether `LeanLander` knows this form of Gymnasium's environment."""
    return not (lander.continuous or lander.enable_wind) and lander.render_mode is None


class LeanLander:
    """A step: a callable in place of the environment's method.

    Expressions are in Gymnasium's order, which decides how they are rounded.

    Args:
        lander: Gymnasium's environment, in its plain form. Its memory is used and kept up to date.
    """

    def __init__(self, lander: Any) -> None:
        self._lander = lander

    def __call__(self, action: Any) -> tuple[npt.NDArray[np.float32], Any, bool, bool, Any]:
        """Fire, let the simulator go on, and judge what came of it."""
        env = self._lander
        hull = env.lander
        assert hull is not None, "reset comes before the first step"
        choice = int(action)
        if not (choice == action and 0 <= choice < 4):
            raise ValueError(f"an action from 0 to 3 was expected, not {action!r}")
        angle = hull.angle
        sin, cos = math.sin(angle), math.cos(angle)
        # the noise is drawn whether or not an engine fires
        draw = env.np_random.uniform
        along, across = draw(-1.0, +1.0) / SCALE, draw(-1.0, +1.0) / SCALE
        fuel = 0.0
        if choice == 2:
            fuel = 0.30
            x = sin * (MAIN_ARM + 2 * along) + -cos * across
            y = -cos * (MAIN_ARM + 2 * along) - sin * across
            position = hull.position
            hull.ApplyLinearImpulse(
                (-x * MAIN_ENGINE_POWER, -y * MAIN_ENGINE_POWER),
                (position[0] + x, position[1] + y),
                True,
            )
        elif choice != 0:
            fuel = 0.03
            arm = 3 * across + (choice - 2) * SIDE_ENGINE_AWAY / SCALE
            x = sin * along + -cos * arm
            y = -cos * along - sin * arm
            position = hull.position
            hull.ApplyLinearImpulse(
                (-x * SIDE_ENGINE_POWER, -y * SIDE_ENGINE_POWER),
                (
                    position[0] + x - sin * 17 / SCALE,
                    position[1] + y + cos * SIDE_ENGINE_HEIGHT / SCALE,
                ),
                True,
            )
        env.world.Step(SECONDS, 6 * 30, 2 * 30)
        return self._judge(hull, fuel)

    def _judge(
        self, hull: Any, fuel: float
    ) -> tuple[npt.NDArray[np.float32], Any, bool, bool, Any]:
        env = self._lander
        x, y = hull.position
        across, along = hull.linearVelocity
        left, right = env.legs
        state = (
            (x - HALF_WIDTH) / HALF_WIDTH,
            (y - (env.helipad_y + FEET)) / HALF_HEIGHT,
            across * HALF_WIDTH / FPS,
            along * HALF_HEIGHT / FPS,
            hull.angle,
            20.0 * hull.angularVelocity / FPS,
            1.0 if left.ground_contact else 0.0,
            1.0 if right.ground_contact else 0.0,
        )
        x, y, across, along, angle, _, touches, also = state
        shaping = (
            -100 * math.sqrt(x * x + y * y)
            - 100 * math.sqrt(across * across + along * along)
            - 100 * abs(angle)
            + 10 * touches
            + 10 * also
        )
        before, env.prev_shaping = env.prev_shaping, shaping
        reward = 0.0 if before is None else shaping - before
        reward -= fuel
        terminated = False
        if env.game_over or abs(x) >= 1.0:
            terminated, reward = True, -100
        if not hull.awake:
            terminated, reward = True, +100
        return np.array(state, dtype=np.float32), reward, terminated, False, {}
