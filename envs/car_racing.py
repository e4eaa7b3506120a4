"""Car Racing seen in small pictures, with chosen starts and sets of actions.

An observation is the picture above the status bar, `size` rows and columns (`car_frames`): gray,
the last four stacked, or in colours, one of them. An episode's first picture stands for those
before it. Gymnasium's camera comes closer during the first second; these 50 steps are played
without an action and belong to no episode, nor do their rewards: the cost of the time, and what
the tiles under the start pay.

    start      where the car is
    standard   Gymnasium's: on the first tile, in the track's direction
    shifted    the same place, turned by a quarter to the left (SQIL paper); with `random_side`
               to the left or to the right
    mixed      one of both, each in half of the episodes

Gymnasium keeps one Box2D world for all episodes of an environment. Here each has a new one, so that
an episode depends on nothing but what its reset draws, and can be replayed exactly.
"""

from __future__ import annotations

import math
from typing import Any

import Box2D  # type: ignore[import-untyped]
import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.box2d.car_dynamics import Car
from gymnasium.envs.box2d.car_racing import FPS

from rlfd.envs.car_frames import Camera
from rlfd.envs.specs import EnvConfig

__all__ = ["AHEAD", "FRAME_STACK", "CarRacing", "ThreeActions"]

Array = npt.NDArray[Any]

FRAME_STACK = 4  # gray pictures of an observation
ZOOM_STEPS = FPS  # Gymnasium's camera comes closer during the first second
AHEAD = 10
"""Points of the track that a driver knows: no farther than the picture shows."""


class CarRacing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The protocol around Gymnasium's Car Racing.

    Args:
        env: Gymnasium's, with any set of actions.
        config: Start and options, checked.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._racing: Any = env.unwrapped
        self._start = config.start
        self._max_steps = int(config.options["max_steps"])
        self._random_side = bool(config.options.get("random_side", 0))
        size, gray = int(config.options["size"]), config.options["colour"] == "gray"
        self._camera = Camera(self._racing, size=size, gray=gray)
        channels = FRAME_STACK if gray else 3
        self.observation_space = gymnasium.spaces.Box(0, 255, (channels, size, size), np.uint8)
        self._stack: Array = np.zeros((channels, size, size), np.uint8)
        self._steps = 0  # of the episode
        self._track: Array = np.zeros((0, 2))  # points of its middle
        self._place = 0  # the one that the car was nearest to

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode when the camera has come close."""
        racing = self._racing
        if racing.road:
            racing._destroy()
            racing.road = None
            racing.world = Box2D.b2World((0, 0))
        _, info = self.env.reset(seed=seed, options=options)
        if self._start == "shifted" or (
            self._start == "mixed" and racing.np_random.uniform() < 0.5
        ):
            self._turn()
        nothing = np.zeros(3) if racing.continuous else 0
        for _ in range(ZOOM_STEPS):  # below the counter of Gymnasium's time limit
            racing.step(nothing)
        self._camera.begin()
        self._track = np.array([point[2:4] for point in racing.track])
        self._steps = self._place = 0
        picture = self._camera.picture()
        self._stack = np.concatenate([picture] * (len(self._stack) // len(picture)))
        return self._stack, info

    def _turn(self) -> None:
        """Build the car again, turned by a quarter; tiles and rewards stay as they were."""
        racing = self._racing
        side = 1.0
        if self._random_side and racing.np_random.uniform() < 0.5:
            side = -1.0
        racing.car.destroy()
        heading, x, y = racing.track[0][1:4]
        turned = heading + side * math.pi / 2
        racing.car = Car(racing.world, turned, x, y)  # type: ignore[no-untyped-call]
        racing.step(None)

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Drive, and look."""
        _, reward, terminated, _, info = self.env.step(action)
        self._steps += 1
        picture = self._camera.picture()
        self._stack = np.concatenate([self._stack[len(picture) :], picture])
        return self._stack, float(reward), terminated, self._steps >= self._max_steps, info

    def driver_state(self) -> Array:
        """Return what a driver knows: the car, and the track ahead as it is seen from the car.

        Returns:
            Speed forwards, speed to the right, turning speed (anticlockwise), angle of the front
            wheels; then the next `AHEAD` points of the middle of the track, (right, forwards) each.
            World units, seconds, radians. Shape (4 + 2 AHEAD,), float64.
        """
        racing = self._racing
        hull, track = racing.car.hull, self._track
        x, y = hull.position
        # near where it was last: other parts of the track may pass close by
        around = (self._place + np.arange(-5, 25)) % len(track)
        distances = np.hypot(track[around, 0] - x, track[around, 1] - y)
        self._place = int(around[np.argmin(distances)])
        cos, sin = math.cos(hull.angle), math.sin(hull.angle)

        def seen(across: Any, along: Any) -> tuple[Any, Any]:
            return cos * across + sin * along, cos * along - sin * across

        ahead = track[(self._place + 1 + np.arange(AHEAD)) % len(track)]
        right, forwards = seen(ahead[:, 0] - x, ahead[:, 1] - y)
        drift, speed = seen(*hull.linearVelocity)
        wheel = racing.car.wheels[0].joint.angle
        car = [speed, drift, hull.angularVelocity, wheel]
        return np.concatenate([car, np.stack([right, forwards], axis=1).ravel()])


class ThreeActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """Left, straight on, right, and gas by itself: the actions of the SQIL paper.

    Args:
        env: The continuous Car Racing.
    """

    STEER, GAS, FAST_ENOUGH = 0.6, 0.1, 40.0

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._racing: Any = env.unwrapped
        self.action_space = gymnasium.spaces.Discrete(3)

    def action(self, action: Any) -> Array:
        """Return steering, gas and brake."""
        speed = math.hypot(*self._racing.car.hull.linearVelocity)
        gas = self.GAS if speed < self.FAST_ENOUGH else 0.0
        return np.array([self.STEER * (int(action) - 1), gas, 0.0])
