"""Gymnasium's own MuJoCo robots, stepped with less Python around the simulator.

Gymnasium spends a third to two fifths of a step outside of MuJoCo: it judges the robot's health
twice, looks bodies up by name, and copies what it then copies again. The steps here compute the
same observations, rewards and ends, bit for bit, from views of the simulator's memory that are made
once. Their `info` holds nothing but the torso's position. Lunar Lander's is in `lean_lander.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

__all__ = ["JudgedTogether", "quicken"]

Array = npt.NDArray[np.float64]
Step = tuple[Array, Any, bool, bool, dict[str, Any]]


def quicken(env: gymnasium.Env[Any, Any]) -> None:
    """Exchange the step of the simulator inside `env`, if it is known here and as it comes."""
    inner: Any = env.unwrapped
    module = type(inner).__module__
    if module in _ROBOTS:
        inner.step = _ROBOTS[module](inner)
    elif module == "gymnasium.envs.box2d.lunar_lander":
        from rlfd.envs.lean_lander import LeanLander, is_plain  # it needs Box2D

        if is_plain(inner):
            inner.step = LeanLander(inner)


class _Robot(ABC):
    """A step: a callable in place of the environment's method.

    Rewards are computed with NumPy's scalars in Gymnasium's order: a Python float would change how
    they are rounded, since actions, and so their costs, are float32.
    """

    def __init__(self, env: Any) -> None:
        import mujoco

        self._advance, self._find_forces = mujoco.mj_step, mujoco.mj_rnePostConstraint
        self._model, self._data, self._frame_skip = env.model, env.data, env.frame_skip
        self._dt = env.dt
        self._ctrl, self.qpos, self.qvel = env.data.ctrl, env.data.qpos, env.data.qvel
        self._forward_weight, self._ctrl_weight = env._forward_reward_weight, env._ctrl_cost_weight

    def __call__(self, action: Any) -> Step:
        """Step the simulator, and judge what came of it."""
        before = self._position()
        self.move(action)
        velocity = (self._position() - before) / self._dt
        observation, reward, terminated = self._judge(velocity, action)
        return observation, reward, terminated, False, {"x_position": self.qpos[0]}

    def move(self, action: Any) -> None:
        """Let the simulator go on for one step of the environment."""
        if action.shape != self._ctrl.shape:
            raise ValueError(f"an action of shape {self._ctrl.shape} was expected, not {action}")
        self._ctrl[:] = action
        self._advance(self._model, self._data, nstep=self._frame_skip)

    def _position(self) -> Any:
        """Return what the robot's speed is measured by."""
        return self.qpos[0]

    @abstractmethod
    def _judge(self, velocity: Any, action: Any) -> tuple[Array, Any, bool]:
        """Return observation, reward, and whether the task is over."""

    def _ctrl_cost(self, action: Any) -> Any:
        return self._ctrl_weight * np.add.reduce(np.square(action), axis=-1)


class JudgedTogether(Protocol):
    """A step of a robot of which several can be judged at once."""

    qpos: Array
    qvel: Array

    def move(self, action: Any) -> None:
        """Let the simulator go on for one step of the environment."""

    def judge_all(
        self, before: Array, after: Array, observations: Array, actions: Array
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return rewards and whether the task is over, of N robots like this one.

        Args:
            before: Positions along the track before the step. Shape (N,).
            after: And after it. Shape (N,).
            observations: The states without that position; speeds are clipped here. Shape (N, D).
            actions: Shape (N, k).
        """


class _HalfCheetah(_Robot):
    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._parts = (self.qpos[1:], self.qvel)

    def _judge(self, velocity: Any, action: Any) -> tuple[Array, Any, bool]:
        reward = self._forward_weight * velocity - self._ctrl_cost(action)
        return np.concatenate(self._parts), reward, False

    def judge_all(
        self, before: Array, after: Array, observations: Array, actions: Array
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Judge several: they never fall."""
        velocities = (after - before) / self._dt
        rewards = self._forward_weight * velocities - self._ctrl_cost(actions)
        return rewards, np.zeros(len(rewards), np.bool_)


class _Upright(_Robot):
    """Walker2d and Hopper; the latter also falls by leaving a range of states."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._parts = (self.qpos[1:], self.qvel)
        self._reward_of_health = env._healthy_reward
        self._heights, self._angles = env._healthy_z_range, env._healthy_angle_range
        self._range = getattr(env, "_healthy_state_range", None)

    def _judge(self, velocity: Any, action: Any) -> tuple[Array, Any, bool]:
        observation = np.concatenate(self._parts)
        speeds = observation[len(self._parts[0]) :]
        np.maximum(speeds, -10, out=speeds)
        np.minimum(speeds, 10, out=speeds)
        healthy = self._healthy()
        reward = self._forward_weight * velocity + healthy * self._reward_of_health
        return observation, reward - self._ctrl_cost(action), not healthy

    def judge_all(
        self, before: Array, after: Array, observations: Array, actions: Array
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Judge several, and clip their speeds."""
        heights, angles, rest = observations[:, 0], observations[:, 1], observations[:, 1:]
        (lowest, highest), (least, most) = self._heights, self._angles
        healthy = (lowest < heights) & (heights < highest) & (least < angles) & (angles < most)
        if self._range is not None:
            low, high = self._range
            healthy &= ((low < rest) & (rest < high)).all(axis=1)
        speeds = observations[:, len(self._parts[0]) :]
        np.maximum(speeds, -10, out=speeds)
        np.minimum(speeds, 10, out=speeds)
        velocities = (after - before) / self._dt
        rewards = self._forward_weight * velocities + healthy * self._reward_of_health
        return rewards - self._ctrl_cost(actions), ~healthy

    def _healthy(self) -> bool:
        _, height, angle, *angles = self.qpos.tolist()
        (lowest, highest), (least, most) = self._heights, self._angles
        if not (lowest < height < highest and least < angle < most):
            return False
        if self._range is None:
            return True
        low, high = self._range
        return all(low < value < high for value in (angle, *angles, *self.qvel.tolist()))


class _Ant(_Robot):
    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._torso = env.data.body(env._main_body).xpos
        self._forces, self._force_range = env.data.cfrc_ext, env._contact_force_range
        self._contact_weight = env._contact_cost_weight
        self._reward_of_health, self._heights = env._healthy_reward, env._healthy_z_range

    def _position(self) -> Any:
        return self._torso[0]

    def _judge(self, velocity: Any, action: Any) -> tuple[Array, Any, bool]:
        self._find_forces(self._model, self._data)
        forces = np.minimum(np.maximum(self._forces, self._force_range[0]), self._force_range[1])
        observation = np.concatenate((self.qpos[2:], self.qvel, forces[1:].ravel()))
        lowest, highest = self._heights
        healthy = bool(
            lowest <= self.qpos[2] <= highest
            and np.isfinite(self.qpos).all()
            and np.isfinite(self.qvel).all()
        )
        cost = self._contact_weight * np.add.reduce(np.square(forces), axis=None)
        reward = velocity * self._forward_weight + healthy * self._reward_of_health
        return observation, reward - (self._ctrl_cost(action) + cost), not healthy


class _Humanoid(_Robot):
    def __init__(self, env: Any) -> None:
        super().__init__(env)
        data = env.data
        self._masses = np.expand_dims(env.model.body_mass, axis=1)
        self._mass = np.sum(self._masses)
        self._centres, self._forces = data.xipos, data.cfrc_ext
        self._contact_weight, self._contact_range = (
            env._contact_cost_weight,
            env._contact_cost_range,
        )
        self._reward_of_health, self._heights = env._healthy_reward, env._healthy_z_range
        bodies = (data.cinert[1:].ravel(), data.cvel[1:].ravel())
        forces = (data.qfrc_actuator[6:], data.cfrc_ext[1:].ravel())
        self._parts = (self.qpos[2:], self.qvel, *bodies, *forces)  # all of them views

    def _position(self) -> Any:
        # summed over both coordinates at once: one column alone would be added in another order
        return (np.add.reduce(self._masses * self._centres, axis=0) / self._mass)[0]

    def _judge(self, velocity: Any, action: Any) -> tuple[Array, Any, bool]:
        self._find_forces(self._model, self._data)
        lowest, highest = self._heights
        healthy = bool(lowest < self.qpos[2] < highest)
        low, high = self._contact_range
        cost = self._contact_weight * np.add.reduce(np.square(self._forces), axis=None)
        costs = self._ctrl_cost(self._ctrl) + np.minimum(np.maximum(cost, low), high)
        reward = self._forward_weight * velocity + healthy * self._reward_of_health
        return np.concatenate(self._parts), reward - costs, not healthy


_ROBOTS: dict[str, type[_Robot]] = {
    f"gymnasium.envs.mujoco.{name}_v5": robot
    for name, robot in (
        ("half_cheetah", _HalfCheetah),
        ("hopper", _Upright),
        ("walker2d", _Upright),
        ("ant", _Ant),
        ("humanoid", _Humanoid),
    )
}
