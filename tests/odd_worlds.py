"""Environments with odd spaces, one kind each, for tests: ``odd_worlds:Odd/ActionTable-v0``.

All are one task: a sign shows one of two sides in each of 8 steps, and the action is to point
there, which pays 1; a random policy earns about half. Each takes nothing but what its action space
holds, and keeps what it was given in `taken`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

STEPS = 8
SIZE = (40, 44)
ODD = np.finfo(np.float32).max


class Signs(gymnasium.Env):
    """The plain task: a vector with the sign and a number that means nothing; two actions."""

    observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.taken: list[Any] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn()
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), repr(action)
        self.taken.append(np.array(action))
        reward = max(0.0, 1.0 - abs(self.points(action) - self.side))
        self.turn()
        return self.observe(), reward, False, False, {}

    def turn(self) -> None:
        self.side = int(self.np_random.choice([-1, 1]))
        self.noise = float(self.np_random.uniform(-1, 1))

    def points(self, action: Any) -> float:
        return 2.0 * float(action) - 1.0

    def observe(self) -> Any:
        return np.array([self.side, self.noise], np.float32)


# Actions


class Continuous(Signs):
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def points(self, action: Any) -> float:
        return float(np.clip(np.ravel(action)[0], -1.0, 1.0))


class ActionTable(Continuous):
    action_space = spaces.Box(-1.0, 1.0, (2, 3), np.float32)


class ActionScalar(Continuous):
    action_space = spaces.Box(-1.0, 1.0, (), np.float32)


class ActionWhole(Continuous):
    """Whole numbers from -2 to 2, of which the ends count as 1."""

    action_space = spaces.Box(-2, 2, (1,), np.int16)


class ActionDouble(Continuous):
    action_space = spaces.Box(-1.0, 1.0, (1, 1), np.float64)


class ActionHeld(Continuous):
    """The first and the last action have one value only."""

    action_space = spaces.Box(
        np.array([0.5, -1, -1, 7], np.float32), np.array([0.5, 1, 3, 7], np.float32)
    )

    def points(self, action: Any) -> float:
        assert (action[0], action[3]) == (0.5, 7)
        return super().points(action[1:])


class ActionHuge(Continuous):
    action_space = spaces.Box(-ODD, ODD, (1,), np.float32)


class ActionUnbounded(Continuous):
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class ActionHalfBounded(Continuous):
    action_space = spaces.Box(-0.75, np.inf, (2,), np.float32)


class ActionFixed(Continuous):
    """There is nothing to choose."""

    action_space = spaces.Box(3.0, 3.0, (2,), np.float32)


class ActionFromOne(Signs):
    action_space = spaces.Discrete(2, start=1)

    def points(self, action: Any) -> float:
        return super().points(action - 1)


class ActionChoices(Signs):
    """Choices in a table, which count from 1, 5 and 0."""

    action_space = spaces.MultiDiscrete(np.array([[2, 3, 2]]), start=np.array([[1, 5, 0]]))

    def points(self, action: Any) -> float:
        return super().points(action[0, 0] - 1)


class ActionButtons(Signs):
    action_space = spaces.MultiBinary([2, 3])

    def points(self, action: Any) -> float:
        return super().points(action[0, 0])


class ActionNamed(Signs):
    action_space = spaces.Dict({"side": spaces.Discrete(2)})


# Observations


class ObservationNumber(Signs):
    """One of four places, counted from 2: sides, and whether the noise is positive."""

    observation_space = spaces.Discrete(4, start=2)

    def observe(self) -> Any:
        return np.int64(2 + (self.side > 0) + 2 * (self.noise > 0))


class ObservationTable(Signs):
    observation_space = spaces.Box(-1.0, 1.0, (2, 3), np.float32)

    def observe(self) -> Any:
        return np.full((2, 3), self.side, np.float32)


class ObservationNamed(Signs):
    observation_space = spaces.Dict(
        {
            "sign": spaces.Discrete(2),
            "noise": spaces.Box(-1.0, 1.0, (1, 2), np.float32),
            "more": spaces.Dict({"flags": spaces.MultiBinary(3)}),
        }
    )

    def observe(self) -> Any:
        flags = np.array([1, 0, self.noise > 0], np.int8)
        noise = np.full((1, 2), self.noise, np.float32)
        return {"sign": int(self.side > 0), "noise": noise, "more": {"flags": flags}}


class ObservationPair(Signs):
    observation_space = spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([2, 3])])

    def observe(self) -> Any:
        return int(self.side > 0), np.array([self.noise > 0, 2])


class ObservationWords(Signs):
    observation_space = spaces.Text(5)

    def observe(self) -> Any:
        return "right" if self.side > 0 else "left"


class ObservationMission(Signs):
    observation_space = spaces.Dict(
        {"sign": spaces.Box(-1.0, 1.0, (1,), np.float32), "mission": spaces.Text(5)}
    )

    def observe(self) -> Any:
        return {"sign": np.array([self.side], np.float32), "mission": "point"}


# Images


def drawn(side: int, shape: tuple[int, int], noise: float) -> np.ndarray:
    """Return a picture in colours, channels last: a bar at one of the sides."""
    picture = np.zeros((*shape, 3), np.uint8)
    half = shape[1] // 2
    picture[:, half:] = (255, 90, 0) if side > 0 else 0
    picture[:, :half] = 0 if side > 0 else (255, 90, 0)
    picture[:3, :, 2] = int(100 + 90 * noise)
    return picture


class ImageLast(Signs):
    observation_space = spaces.Box(0, 255, (*SIZE, 3), np.uint8)

    def observe(self) -> Any:
        return drawn(self.side, SIZE, self.noise)


class ImageFirst(ImageLast):
    observation_space = spaces.Box(0, 255, (3, *SIZE), np.uint8)

    def observe(self) -> Any:
        return np.moveaxis(super().observe(), -1, 0)


class ImageGray(ImageLast):
    observation_space = spaces.Box(0, 255, SIZE, np.uint8)

    def observe(self) -> Any:
        return super().observe()[..., 0]


class ImageSmall(Signs):
    observation_space = spaces.Box(0, 255, (24, 28, 3), np.uint8)

    def observe(self) -> Any:
        return drawn(self.side, (24, 28), self.noise)


class ImageFractions(ImageLast):
    observation_space = spaces.Box(0.0, 1.0, (*SIZE, 3), np.float32)

    def observe(self) -> Any:
        return super().observe().astype(np.float32) / 255


class ImageBuried(ImageLast):
    observation_space = spaces.Dict(
        {"image": ImageLast.observation_space, "noise": spaces.Box(-1.0, 1.0, (1,), np.float32)}
    )

    def observe(self) -> Any:
        return {"image": super().observe(), "noise": np.array([self.noise], np.float32)}


def image_stacks(**kwargs: Any) -> gymnasium.Env:
    """Stacks of two pictures in colours, as Gymnasium's wrapper makes them: (2, H, W, 3)."""
    return FrameStackObservation(ImageLast(**kwargs), 2)


KINDS = [
    one.__name__
    for one in list(globals().values())
    if isinstance(one, type) and issubclass(one, Signs)
]
for _kind in KINDS:
    gymnasium.register(f"Odd/{_kind}-v0", f"odd_worlds:{_kind}", max_episode_steps=STEPS)
gymnasium.register("Odd/ImageStacks-v0", "odd_worlds:image_stacks", max_episode_steps=STEPS)


def name(kind: str) -> str:
    """Return what a user types."""
    return f"odd_worlds:Odd/{kind}-v0"
