"""Lunar Lander with chosen start states, a success test, and other sets of actions.

The start states are those of the SQIL paper's shifted-start experiment: demonstrations come from
``demo``, the learner may be put somewhere that they never visit (``shifted``). Positions are in
observation units: x in half screen widths from the pad, y in half screen heights above it.

    start      |x|        y          angle (rad)           motion
    standard   Gymnasium's own: top centre, random push
    demo       as standard, the push scaled by `push_scale` (0: at rest)
    shifted    0.75-0.90  0.9-1.3    0                     at rest
    tilt_out   0.30-0.70  1.0-1.4    1.0-1.5, leaning out  at rest
    ground     0.35-0.60  feet 0.3-0.8 world units above   at rest
                          the terrain, 0
    spin       0.30-0.70  1.0-1.4    0                     angular velocity 0.5-1.0, either way
    out_fast   0.30-0.60  1.0-1.4    0                     outwards at 0.5-0.8

Velocities are in observation units, too. Every draw comes from the environment's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.box2d.lunar_lander import FPS, LEG_DOWN, SCALE, VIEWPORT_H, VIEWPORT_W

__all__ = ["LunarLanderStart", "OneEngine", "SixActions", "TwoChoices"]

HALF_WIDTH = VIEWPORT_W / SCALE / 2
HALF_HEIGHT = VIEWPORT_H / SCALE / 2
LEG_LENGTH = LEG_DOWN / SCALE
FOOT_REACH = 1.0  # world units from the hull's centre to beyond either foot

PAD_HALF_WIDTH = 0.2  # between the flags


class LunarLanderStart(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Put the lander at the chosen start and judge the landing at the end of an episode.

    The last step of an episode carries two flags in `info`: ``landed`` (came to rest on its legs
    inside the screen) and ``success`` (the same, between the flags). An episode that ran out of
    time is neither.

    Args:
        env: A Lunar Lander of Gymnasium, any variant.
        start: One of the starts above.
        options: ``push_scale`` for the start ``demo``.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], start: str, options: Mapping[str, Any]
    ) -> None:
        super().__init__(env)
        lander: Any = env.unwrapped
        self._lander = lander
        self._start = start
        self._push_scale = float(options.get("push_scale", 1.0))
        self._no_op: Any = np.zeros(2, np.float32) if lander.continuous else 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset as Gymnasium does, then move the lander to the start."""
        observation, info = self.env.reset(seed=seed, options=options)
        if self._start == "standard":
            return observation, info
        if self._start == "demo":
            self._scale_push()
        else:
            self._move()
        for body in self._bodies():
            body.awake = True
        # One step without engines, below the time limit's counter: observation and shaping memory
        # then agree, so that the first real step shows no jump in the reward.
        self._lander.game_over = False
        self._lander.prev_shaping = None
        observation = self._lander.step(self._no_op)[0]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and judge the landing if the episode is over."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            distance = abs(float(observation[0]))
            landed = bool(
                terminated
                and not self._lander.game_over
                and distance < 1.0
                and not self._lander.lander.awake
            )
            info["landed"] = landed
            info["success"] = landed and distance <= PAD_HALF_WIDTH
        return observation, reward, terminated, truncated, info

    def _bodies(self) -> list[Any]:
        return [self._lander.lander, *self._lander.legs]

    def _scale_push(self) -> None:
        for body in self._bodies():
            body.linearVelocity = body.linearVelocity * self._push_scale
            body.angularVelocity *= self._push_scale

    def _move(self) -> None:
        draw = self._lander.np_random.uniform
        side = 1.0 if draw() < 0.5 else -1.0
        velocity, spin, angle = (0.0, 0.0), 0.0, 0.0
        if self._start == "shifted":
            x, y = side * draw(0.75, 0.90), draw(0.9, 1.3)
        elif self._start == "tilt_out":
            x, y = side * draw(0.3, 0.7), draw(1.0, 1.4)
            angle = -side * draw(1.0, 1.5)
        elif self._start == "ground":
            x = side * draw(0.35, 0.6)
            clearance = draw(0.3, 0.8)
            y = (self._terrain_height(x) + clearance - self._lander.helipad_y) / HALF_HEIGHT
        elif self._start == "spin":
            x, y = side * draw(0.3, 0.7), draw(1.0, 1.4)
            spin = (1.0 if draw() < 0.5 else -1.0) * draw(0.5, 1.0)
        else:  # out_fast
            x, y = side * draw(0.3, 0.6), draw(1.0, 1.4)
            velocity = (side * draw(0.5, 0.8), 0.0)
        self._place(x, y, angle)
        for body in self._bodies():
            # Observed velocities are scaled: v * half width / FPS, and 20 * omega / FPS.
            body.linearVelocity = (velocity[0] * FPS / HALF_WIDTH, velocity[1] * FPS / HALF_HEIGHT)
            body.angularVelocity = spin * FPS / 20.0
        if spin:
            self._turn_legs_with_hull()

    def _place(self, x: float, y: float, angle: float) -> None:
        """Move hull and legs as one rigid body."""
        hull = self._lander.lander
        old_x, old_y = hull.position
        turn = angle - hull.angle
        new_x = HALF_WIDTH + x * HALF_WIDTH
        new_y = self._lander.helipad_y + LEG_LENGTH + y * HALF_HEIGHT
        cos, sin = math.cos(turn), math.sin(turn)
        for body in self._bodies():
            offset_x, offset_y = body.position[0] - old_x, body.position[1] - old_y
            body.position = (
                new_x + cos * offset_x - sin * offset_y,
                new_y + sin * offset_x + cos * offset_y,
            )
            body.angle += turn

    def _turn_legs_with_hull(self) -> None:
        """Give the legs the velocity that they have when the whole lander turns as one."""
        hull = self._lander.lander
        for leg in self._lander.legs:
            offset = leg.position - hull.position
            leg.linearVelocity = (
                hull.linearVelocity[0] - hull.angularVelocity * offset[1],
                hull.linearVelocity[1] + hull.angularVelocity * offset[0],
            )

    def _terrain_height(self, x: float) -> float:
        """Return the highest ground below the lander, in world units."""
        centre = HALF_WIDTH + x * HALF_WIDTH
        corners = [self._lander.sky_polys[0][0], *(poly[1] for poly in self._lander.sky_polys)]
        xs, heights = zip(*corners, strict=True)
        inside = [h for at, h in corners if abs(at - centre) <= FOOT_REACH]
        edges = np.interp([centre - FOOT_REACH, centre + FOOT_REACH], xs, heights)
        return float(max([*inside, *edges]))


class SixActions(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The action set of the SQIL paper's Lunar Lander, on Gymnasium's continuous one.

    Action i fires the main engine when i >= 3, and i mod 3 = 0, 1, 2 fires left, none, right;
    engines run at throttle 0.75. The pad's position, always 0 in Gymnasium, is the ninth entry
    of the observation (the authors' own environment moved the pad).
    """

    THROTTLE = 0.75

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        inner = env.observation_space
        assert isinstance(inner, gymnasium.spaces.Box)
        self.action_space = gymnasium.spaces.Discrete(6)
        self.observation_space = gymnasium.spaces.Box(
            np.append(inner.low, np.float32(-1.0)), np.append(inner.high, np.float32(1.0))
        )
        throttle = self.THROTTLE
        self._engines = np.array(
            [[main, side] for main in (-throttle, throttle) for side in (-throttle, 0.0, throttle)],
            np.float32,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, and append the pad's position."""
        observation, info = self.env.reset(seed=seed, options=options)
        return np.append(observation, np.float32(0.0)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Translate the action, step, and append the pad's position."""
        observation, reward, terminated, truncated, info = self.env.step(self._engines[action])
        return np.append(observation, np.float32(0.0)), reward, terminated, truncated, info


class TwoChoices(gymnasium.ActionWrapper[Any, Any, Any]):
    """The six actions as two choices at once: main engine off or on; left, no or right engine."""

    def __init__(self, env: SixActions) -> None:
        super().__init__(env)
        self.action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    def action(self, action: Any) -> int:
        """Return the number of the same action among the six."""
        return int(3 * action[0] + action[1])


class OneEngine(gymnasium.ActionWrapper[Any, Any, Any]):
    """Those of the six actions that fire one engine at most, in the order of `LunarLander`."""

    SIX = (1, 0, 4, 2)  # none, left, main, right

    def __init__(self, env: SixActions) -> None:
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(4)

    def action(self, action: Any) -> int:
        """Return the number of the same action among the six."""
        return self.SIX[int(action)]
