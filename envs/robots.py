"""A vector of MuJoCo robots whose steps are judged together.

What is left of a lean step (`lean.py`) beside the simulator is Python and NumPy for one robot at a
time. Here one array holds the states of all robots after their simulators have moved, and
observations, rewards, falls and time limits are computed for all of them at once: the same numbers
in the same order, bit for bit those of a `Loop`. Robots are reset, saved and restored as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rlfd.envs import lean
from rlfd.envs.loop import Loop
from rlfd.envs.rewards import Beyond, Delayed, OtherReward, Progress
from rlfd.envs.specs import EnvConfig
from rlfd.envs.vector import Replayed, Step

__all__ = ["Robots", "judged_together"]

Array = npt.NDArray[Any]


def judged_together(config: EnvConfig) -> bool:
    """Whether there is a vector of `Robots` for an environment."""
    return config.name in ("HalfCheetah", "Hopper", "Walker2d")


class Robots(Loop):
    """Half cheetahs, hoppers or walkers.

    Args:
        config: The environment.
        num_envs: How many of them.
    """

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        super().__init__(config, num_envs)
        self._robots: list[lean.JudgedTogether] = [env.unwrapped.step for env in self._envs]  # type: ignore[misc]
        self._judge = self._robots[0].judge_all
        # state of each robot: position along the track first; views of the simulators' memory
        self._states = [part for robot in self._robots for part in (robot.qpos, robot.qvel)]
        self._limits = [_layer(env, gymnasium.wrappers.TimeLimit) for env in self._envs]
        self._most_steps = self._limits[0]._max_episode_steps
        self._rules = [_layer(env, OtherReward) for env in self._envs]

        # of each robot's running episode
        self._x = np.zeros(num_envs)  # position now
        self._start = np.zeros(num_envs)  # and where it began
        self._steps = np.zeros(num_envs, np.int64)
        self._dense_returns = np.zeros(num_envs)
        self._passed = np.zeros(num_envs, np.int64)  # thresholds (Progress)
        self._earned = np.zeros(num_envs)  # since the last payment (Delayed)

    def start(self, seeds: Sequence[int]) -> Array:
        """Reset every environment with a seed of its own."""
        observations = super().start(seeds)
        self._look_up(range(len(self._envs)))
        return observations

    def restore(self, states: Sequence[Mapping[str, Any]]) -> Replayed:
        """Play the running episodes again, one by one."""
        replayed = super().restore(states)
        self._look_up(range(len(self._envs)))
        return replayed

    def _look_up(self, indices: Sequence[int] | range) -> None:
        """Take over what single environments have counted: after their resets, or replays."""
        for index in indices:
            rule: Any = self._rules[index]
            self._x[index] = self._robots[index].qpos[0]
            self._start[index] = getattr(rule, "_start", 0.0)
            self._steps[index] = self._limits[index]._elapsed_steps
            self._dense_returns[index] = 0.0 if rule is None else rule._dense_return
            self._passed[index] = getattr(rule, "_passed", 0)
            self._earned[index] = getattr(rule, "_earned", 0.0)

    def step(self, actions: Array) -> Step:
        """Act in every environment."""
        for robot, action in zip(self._robots, actions, strict=True):
            robot.move(action)
        table = np.concatenate(self._states).reshape(len(self._robots), -1)
        x = table[:, 0].copy()
        next_observations = table[:, 1:].copy()
        dense, terminated = self._judge(self._x, x, next_observations, actions)
        self._x = x
        self._steps += 1
        truncated = (self._steps >= self._most_steps) & ~terminated
        ended = terminated | truncated
        rewards = dense if self._rules[0] is None else self._pay(self._rules[0], dense, ended)
        self.history.append(actions)

        observations, infos = next_observations, {}
        if ended.any():
            observations = next_observations.copy()
            for index in map(int, np.flatnonzero(ended)):
                infos[index] = self._info(index)
                observations[index] = self._envs[index].reset()[0]
                self._look_up([index])
            self.history.begin(infos)
        return Step(next_observations, observations, rewards, terminated, truncated, infos)

    def _pay(self, rule: Any, dense: Array, ended: Array) -> Array:
        """Return what the rule of `rewards.py` pays each robot."""
        self._dense_returns += dense
        if isinstance(rule, Progress):
            passes = self._x - self._start > rule._unit * (self._passed + 1)
            self._passed += passes
            paid = passes.astype(np.float64)
        elif isinstance(rule, Beyond):
            paid = (self._x - self._start > rule._unit).astype(np.float64)
        else:
            assert isinstance(rule, Delayed)
            self._earned += dense
            due = (self._steps % rule._every == 0) | ended
            paid = np.where(due, self._earned, 0.0)
            self._earned[due] = 0.0
        return np.where(np.isfinite(dense), paid, dense)  # a broken simulator must not go unseen

    def _info(self, index: int) -> dict[str, float]:
        if self._rules[index] is None:
            return {}
        return {"dense_return": float(self._dense_returns[index])}


def _layer(env: Any, kind: type[Any]) -> Any:
    """Return the wrapper of a kind around an environment; None if there is none."""
    while env is not env.unwrapped:
        if isinstance(env, kind):
            return env
        env = env.env
    return None
