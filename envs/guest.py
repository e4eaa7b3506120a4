"""Environments of other people, held to Gymnasium's interface.

What an environment returns is looked at in every step, so that learning and playing get the same,
or the same refusal; what it raises is told as its own. It gets copies of actions: some write into
them.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.errors import GuestFailed, RlfdError, told

__all__ = ["Guest", "has_no_limit", "outcome"]

logger = logging.getLogger("rlfd.envs")

Array = npt.NDArray[Any]

EXPECTED_RESET = "reset(self, *, seed=None, options=None)"
SUCCESS_NAMES = ("success", "is_success")
_OF_ACTIONS = (AssertionError, IndexError, KeyError, NotImplementedError, ValueError)
"""What an environment raises that does not take an action."""
_NOT_THEIRS = tuple(
    str(Path(folder).resolve())
    for folder in (os.path.dirname(gymnasium.__file__), sysconfig.get_paths()["stdlib"])
)


def outcome(info: Mapping[str, Any]) -> bool | None:
    """Return what an episode's last `info` says of success, None where it says nothing."""
    for name in SUCCESS_NAMES:
        said = np.asarray(info[name]) if name in info else None
        if said is not None and said.size == 1 and said.dtype.kind in "biuf":
            return bool(said.item())
    return None


def has_no_limit(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether nothing cuts the episodes of an environment, as far as its registration says."""
    return env.spec is not None and env.spec.max_episode_steps is None


class Guest(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Say what an environment does against the interface, and what it raises.

    Args:
        env: The environment.
        name: What people call it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._space = name, env.observation_space
        self._steps = 0
        self._tested = False  # whether it ever said something of success

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset it.

        Raises:
            RlfdError: If it does not know the arguments, or returns something else.
            GuestFailed: If it breaks off.
        """
        self._steps = 0
        try:
            result = self.env.reset(seed=seed, options=options)
        except RlfdError:
            raise
        except (Exception, SystemExit) as error:
            self._check_reset()
            self._break_off(error, "its reset")
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            self._refuse(
                f"returned {_kind(result)} from reset",
                "a pair: the observation and a dictionary",
                "this is the interface that Gym had before 0.26: port it to Gymnasium's",
            )
        observation, info = result
        return self._observation(observation, "reset"), dict(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step with a copy of the action.

        Raises:
            RlfdError: If it returns something else than Gymnasium's interface says.
            GuestFailed: If it breaks off.
        """
        self._steps += 1
        given = action.copy() if isinstance(action, np.ndarray) else action
        try:
            result = self.env.step(given)
        except RlfdError:
            raise
        except (Exception, SystemExit) as error:
            self._check_values(error)
            self._break_off(error, f"step {self._steps} of an episode", action)
        if not isinstance(result, tuple) or len(result) != 5:
            self._refuse_values(len(result) if isinstance(result, tuple) else None)
        observation, reward, terminated, truncated, info = result
        where = f"step {self._steps}"
        observation = self._observation(observation, where)
        if not isinstance(reward, float):  # np.float64 is one
            reward = self._reward(reward, where)
        if not isinstance(info, Mapping):
            self._refuse(f"returned {_kind(info)} as info in {where}", "a dictionary")
        ends, cut = self._flag(terminated, where), self._flag(truncated, where)
        info = dict(info)
        if self._tested or outcome(info) is not None:
            self._tested = True
            info["success"] = bool(outcome(info))
        return observation, reward, ends, cut, info

    def close(self) -> None:
        """Close it; that it cannot be closed harms nobody any more."""
        try:
            super().close()
        except Exception as error:
            logger.warning("environment '%s' raised %s in close", self._name, told(error))

    def _observation(self, observation: Any, where: str) -> Any:
        space = self._space
        if not isinstance(space, spaces.Box):
            if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
                observation = np.asarray(observation)
                if not space.contains(observation):
                    self._refuse(
                        f"returned the observation {_shown(observation)} in {where}",
                        f"one of {space}, its observation space",
                    )
            return observation
        dtype = space.dtype
        if (
            type(observation) is np.ndarray
            and observation.dtype == dtype
            and observation.shape == space.shape
        ):
            return observation
        try:
            found = np.asarray(observation)
        except ValueError:  # lists of different lengths
            self._refuse(f"returned a ragged observation in {where}", f"one array, as in {space}")
        if found.shape != space.shape:
            self._refuse(
                f"returned an observation of shape {found.shape} in {where}",
                f"{space.shape}, as its observation space says",
            )
        if not _fits(found, np.dtype(dtype)):
            self._refuse(
                f"returned an observation of {found.dtype} in {where}, {_shown(found)}",
                f"{dtype}, as its observation space says",
                "a cast would lose what it says: correct the space, or what it returns",
            )
        return found.astype(dtype)

    def _reward(self, reward: Any, where: str) -> Any:
        try:
            found = np.asarray(reward)
        except ValueError:
            found = np.array(None)
        if found.dtype.kind not in "biuf" or found.size != 1:
            several = f" of shape {found.shape}" if found.size != 1 else f", {_shown(found)}"
            self._refuse(
                f"returned a reward{several} in {where}",
                "one number",
                "of several rewards, add up those that count in a wrapper"
                if found.size > 1
                else "",
            )
        return reward if found.ndim == 0 else found.reshape(())[()]

    def _flag(self, flag: Any, where: str) -> bool:
        if flag is True or flag is False:
            return flag
        if np.size(flag) != 1:
            self._refuse(
                f"returned an array of shape {np.shape(flag)} for terminated or truncated in "
                f"{where}",
                "true or false",
            )
        return bool(np.all(flag))

    def _check_reset(self) -> None:
        """Refuse a reset that does not take what Gymnasium hands over."""
        try:
            signature = inspect.signature(type(self.env.unwrapped).reset)
        except (TypeError, ValueError):
            return
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        named = {"seed", "options"} <= set(signature.parameters)
        if not named and inspect.Parameter.VAR_KEYWORD not in kinds:
            self._refuse(f"has reset{signature}", EXPECTED_RESET, "give it these arguments")

    def _check_values(self, error: BaseException) -> None:
        """Refuse a step whose values one of Gymnasium's own wrappers could not unpack."""
        found = re.search(r"values to unpack \(expected 5(?:, got (\d+))?\)", str(error))
        if found and isinstance(error, ValueError) and _is_gymnasiums(error):
            self._refuse_values(int(found[1]) if found[1] else None)

    def _refuse_values(self, count: int | None) -> NoReturn:
        what = "something else than a tuple" if count is None else f"{count} values"
        self._refuse(
            f"returned {what} from step",
            "five: observation, reward, terminated, truncated, info",
            "four are the interface that Gym had before 0.26: port it to Gymnasium's"
            if count == 4
            else "",
        )

    def _refuse(self, what: str, expected: str, hint: str = "") -> NoReturn:
        raise RlfdError(f"environment '{self._name}' {what}, expected {expected}", hint)

    def _break_off(self, error: BaseException, where: str, action: Any = None) -> NoReturn:
        place, hint = _place(error, self.env), "this comes from the environment itself"
        choices = isinstance(self.action_space, spaces.MultiDiscrete | spaces.MultiBinary)
        if action is not None and choices and isinstance(error, _OF_ACTIONS):
            where += f", action {np.asarray(action).tolist()}"
            hint = (
                "a policy of independent choices takes every combination now and then: make those "
                "that exclude each other one choice (rlfd.envs.ExclusiveButtons)"
            )
        raise GuestFailed(
            f"environment '{self._name}' raised {told(error, place=place, where=f'in {where}')}",
            hint,
        ) from error


def _fits(found: Array, dtype: np.dtype[Any]) -> bool:
    """Whether nothing but digits is lost when numbers become others of `dtype`."""
    if found.dtype.kind not in "biuf":
        return False
    if np.can_cast(found.dtype, dtype, "same_kind"):
        return True
    if found.dtype.kind == "f":
        return False
    return np.array_equal(found.astype(dtype), found)


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    shape = np.shape(value) if isinstance(value, np.ndarray) else ()
    return f"{type(value).__name__}{f' of shape {shape}' if shape else ''}"


def _shown(value: Array) -> str:
    text = np.array2string(value, threshold=6, precision=4, separator=", ").replace("\n", "")
    return text if len(text) <= 60 else text[:57] + "..."


def _is_gymnasiums(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and str(Path(frames[-1].filename).resolve()).startswith(_NOT_THEIRS[0])


def _place(error: BaseException, env: gymnasium.Env[Any, Any]) -> str:
    """Return file and line of the environment's own code that an error came from."""
    package = type(env.unwrapped).__module__.partition(".")[0]
    own, foreign = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        text = f"{file}, line {line}"
        if name.partition(".")[0] == package:
            own = text
        elif not name.startswith("rlfd.") and not file.startswith(_NOT_THEIRS):
            foreign = text
    return own or foreign
