"""Small environments that behave oddly, each in one way that environments in the wild do.

All are the same task: a point on a line is moved to 0. Called ``odd_behaviour:Odd/NAME``;
another process needs this folder in its PYTHONPATH.
"""

from __future__ import annotations

import os

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

LIMIT = 13


class Point(gymnasium.Env):
    """Left, stay, right; as it should be."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(-2.0, 2.0, (2,), np.float32)
    action_space = Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1, 1))
        return self.observe(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + 0.1 * self.direction(action), -1, 1))
        return self.observe(), self.pay(), False, False, {}

    def direction(self, action):
        return float(action) - 1.0

    def pay(self):
        return 1.0 - abs(self.x)

    def observe(self):
        return np.array([self.x, 0.5], np.float32)

    def render(self):
        return np.full((34, 46, 3), int(abs(self.x) * 255), np.uint8)


class WritesIntoActions(Point):
    action_space = Box(-1.0, 1.0, (3,), np.float32)

    def direction(self, action):
        moved = float(action[0])
        action *= 100.0
        return moved


class FractionsAsBytes(Point):
    observation_space = Box(0, 255, (2,), np.uint8)


class WholeNumbersAsBytes(FractionsAsBytes):
    def observe(self):
        return [int(abs(self.x) * 100), 7]


class WrongShape(Point):
    def observe(self):
        return np.zeros((2, 1), np.float32)


class Ragged(Point):
    def observe(self):
        return [[1.0, 2.0], [3.0]]


class OutsideOfDiscrete(Point):
    observation_space = Discrete(4)

    def observe(self):
        return 4


class RewardInArray(Point):
    def pay(self):
        return np.array([0.25])


class TwoRewards(Point):
    def pay(self):
        return np.array([0.25, 1.0])


class NoReward(Point):
    def pay(self):
        return None


class NoOptions(Point):
    def reset(self, seed=None):
        return super().reset(seed=seed)


class ObservationAlone(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class FourValues(Point):
    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, info


class InfoIsNone(Point):
    def step(self, action):
        return (*super().step(action)[:4], None)


class Breaks(Point):
    """Its connection breaks in its process's step of this number."""

    steps, breaks_at, problem = 0, 6, ConnectionError("the simulator went away")

    def step(self, action):
        type(self).steps += 1
        if type(self).steps == self.breaks_at:
            raise self.problem  # the line that people are told
        return super().step(action)


class BreaksInReset(Point):
    def reset(self, *, seed=None, options=None):
        raise AssertionError


class BreaksWithChoices(Breaks):
    action_space = MultiDiscrete([3, 5])

    def direction(self, action):
        return float(action[0]) - 1.0


class CannotBeMade(Point):
    def __init__(self, render_mode=None):
        raise AssertionError


class CannotBeDrawn(Point):
    def __init__(self):
        pass


class Single(Point):
    """A process can have one of them."""

    there = 0

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        if Single.there:
            raise RuntimeError("port 2000 is in use")
        Single.there += 1

    def close(self):
        Single.there -= 1


class Prints(Point):
    """Prints from Python and past it, as libraries in C do."""

    def step(self, action):
        print("from Python")
        os.write(1, b"from C\n")
        return super().step(action)


class IsSuccess(Point):
    """Ends when it moves right, and says so by the usual name."""

    name = "is_success"

    def step(self, action):
        observation, reward, _, truncated, _ = super().step(action)
        return observation, reward, action == 2, truncated, {self.name: np.bool_(action == 2)}


class Success(IsSuccess):
    name = "success"


class IgnoresSeed(Point):
    """Draws its start from nobody's generator."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(np.random.uniform(-1, 1))  # noqa: NPY002
        return self.observe(), {}


class IgnoresSeedInReward(Point):
    """Nothing but the reward shows it."""

    def reset(self, *, seed=None, options=None):
        self.height = float(np.random.normal())  # noqa: NPY002
        return super().reset(seed=seed)

    def pay(self):
        return self.height


class IgnoresSeedInEnds(Point):
    """Nothing but the end of the episode shows it."""

    lengths = iter(range(3, 1000))

    def reset(self, *, seed=None, options=None):
        self.left = next(type(self).lengths)
        return super().reset(seed=seed)

    def step(self, action):
        self.left -= 1
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.left == 0, truncated, info


class Endless(Point):
    """Registered without a time limit; never ends."""


for _name, _class in list(globals().items()):
    if isinstance(_class, type) and issubclass(_class, Point):
        gymnasium.register(
            f"Odd/{_name}",
            entry_point=f"odd_behaviour:{_name}",
            max_episode_steps=None if _class is Endless else LIMIT,
            order_enforce=False,
        )
