"""Sparse and delayed rewards, in place of an environment's own dense one.

What is in place of it, where x is the torso's position along the track, read from the simulator,
x0 the one at the episode's start, and u the option ``unit``:

    sparse     what the environment's own rule pays: one of the classes below
    beyond     1 in every step that ends with x - x0 > u
    delay-K    the sum of the dense rewards since the last payment, in every K-th step and the last

The dense reward of each step stays in `info` as ``dense_reward``; the last step of an episode has
their sum, too, as ``dense_return``. With these, papers on learning from few demonstrations (POfD,
MCPO) make rewards too rare to explore for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import gymnasium

__all__ = [
    "Balanced",
    "Beyond",
    "Delayed",
    "Goal",
    "OtherReward",
    "Progress",
    "Reached",
    "Upright",
]


class OtherReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Pay by another rule, and keep account of the dense reward."""

    ends_when_paid = False
    """Whether a payment is the end of the task."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._dense_return = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, and begin to count anew."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._dense_return = 0.0
        self._begin()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay by the rule."""
        observation, dense, terminated, truncated, info = self.env.step(action)
        dense = float(dense)
        self._dense_return += dense
        if math.isfinite(dense):
            reward = self._pay(observation, dense, terminated, truncated)
        else:  # a simulator that broke must not go unseen
            reward = dense
        if reward and self.ends_when_paid:
            terminated = True
        info["dense_reward"] = dense
        if terminated or truncated:
            info["dense_return"] = self._dense_return
        return observation, reward, terminated, truncated, info

    def _begin(self) -> None:
        """Get ready for a new episode, just after the reset."""

    @abstractmethod
    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        """Return the reward of the step that gave these."""


class _OnTrack(OtherReward):
    """A rule about how far the torso has come.

    Args:
        env: A MuJoCo environment whose first coordinate is the torso's x.
        unit: Length that is paid for.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], unit: float) -> None:
        super().__init__(env)
        simulator: Any = env.unwrapped
        self._coordinates = simulator.data.qpos  # a view of the simulator's memory
        self._unit = unit

    def _begin(self) -> None:
        self._start = float(self._coordinates[0])

    def _distance(self) -> float:
        """How far ahead of its start the torso is."""
        return float(self._coordinates[0]) - self._start


class Progress(_OnTrack):
    """1 in a step that ends beyond the next threshold, which then moves on by one unit.

    Whoever passes two thresholds in one step is paid for the second one in the next step, if still
    beyond it.
    """

    def _begin(self) -> None:
        super()._begin()
        self._passed = 0

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        passes = self._distance() > self._unit * (self._passed + 1)
        self._passed += passes
        return float(passes)


class Beyond(_OnTrack):
    """1 in every step that ends more than one unit ahead of the start."""

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        return float(self._distance() > self._unit)


class Upright(OtherReward):
    """Inverted Double Pendulum: 1 in every step that ends with the lower pole upright.

    The fourth entry of the observation is the cosine of the first hinge's angle, although the
    papers speak of a height.
    """

    COSINE = 0.89

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        return float(observation[3] > self.COSINE)


class Reached(OtherReward):
    """Reacher: 1, and the end, when the fingertip was at the target for five steps in a row."""

    DISTANCE = 0.01
    STEPS = 5
    ends_when_paid = True

    def _begin(self) -> None:
        self._near = 0

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        # the last two entries are the way from the target to the fingertip
        near = math.hypot(observation[-2], observation[-1]) <= self.DISTANCE
        self._near = self._near + 1 if near else 0
        return float(self._near == self.STEPS)


class Goal(OtherReward):
    """Mountain Car: 1 when the task ends the episode, as only the goal does."""

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        return float(terminated)


class Balanced(OtherReward):
    """Cart Pole: 1 in every step after the first 200."""

    FREE_STEPS = 200

    def _begin(self) -> None:
        self._steps = 0

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        self._steps += 1
        return float(self._steps > self.FREE_STEPS)


class Delayed(OtherReward):
    """Pay what was earned since the last payment in every K-th step, and the rest at the end.

    Args:
        env: The environment with its dense reward.
        every: K.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], every: int) -> None:
        super().__init__(env)
        self._every = every

    def _begin(self) -> None:
        self._steps = 0
        self._earned = 0.0

    def _pay(self, observation: Any, dense: float, terminated: bool, truncated: bool) -> float:
        self._steps += 1
        self._earned += dense
        if self._steps % self._every and not (terminated or truncated):
            return 0.0
        earned, self._earned = self._earned, 0.0
        return earned
