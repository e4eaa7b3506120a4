"""A small game in pictures, for tests: `rlfd-tests/Dots-v0`.

A dot is to be moved to the right end of a line. Observations are the last 2 frames of 36 x 41.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

SIDES, ENDS, STACK = (36, 41), (2, 38), 2


class Dots(gymnasium.Env):
    """Three actions: left, stay, right, by two pixels. Terminates at both ends of the line."""

    observation_space = spaces.Box(0, 255, SIDES, np.uint8)
    action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.y = (int(self.np_random.integers(*ends)) for ends in ((12, 28), (2, 33)))
        return self.picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        drift = int(self.np_random.integers(-1, 2))
        self.x = int(np.clip(self.x + 2 * (int(action) - 1) + drift, *ENDS))
        reward = {ENDS[0]: -1.0, ENDS[1]: 1.0}.get(self.x, 0.0)
        return self.picture(), reward, reward != 0.0, False, {}

    def picture(self) -> np.ndarray:
        picture = np.zeros(SIDES, np.uint8)
        picture[self.y - 2 : self.y + 3, self.x - 2 : self.x + 3] = 255
        return picture


def make(**kwargs: Any) -> gymnasium.Env:
    return FrameStackObservation(Dots(**kwargs), STACK, padding_type="reset")


gymnasium.register("rlfd-tests/Dots-v0", "dots:make", max_episode_steps=29)
