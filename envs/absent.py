"""Environments that cannot be made on this machine, known from their demonstrations alone.

Such an environment has spaces, so that a method that does not interact can learn in it, but nobody
can act in it. Its name is ``dataset:`` and the id of the demonstrations; its options hold the
spaces, so that a run's configuration says all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces

from rlfd.errors import RlfdError

__all__ = ["PREFIX", "Absent", "is_playable", "spaces_as_options"]

PREFIX = "dataset:"


def is_playable(name: str) -> bool:
    """Whether an environment of this name can be acted in."""
    return not name.startswith(PREFIX)


def spaces_as_options(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> dict[str, Any]:
    """Return spaces as JSON values.

    Raises:
        RlfdError: If they are of a kind that no method can handle.
    """
    return {"observations": _to_json(observation_space), "actions": _to_json(action_space)}


def _to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        # Strings, since JSON has no infinities.
        bounds = {"low": _texts(space.low), "high": _texts(space.high)}
        return {"kind": "box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "n": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "n": space.n}
    raise RlfdError(
        f"demonstrations have {type(space).__name__} observations or actions, "
        "expected one array or number each"
    )


def _texts(bound: np.ndarray[Any, Any]) -> list[str] | str:
    """Return the bounds, one text where all are the same."""
    texts = [repr(value) for value in bound.ravel().tolist()]
    return texts[0] if len(set(texts)) == 1 else texts


def _from_json(value: Mapping[str, Any]) -> spaces.Space[Any]:
    kind = value["kind"]
    if kind == "box":
        shape = tuple(value["shape"])
        low, high = (
            np.broadcast_to(np.array(value[end], np.float64), int(np.prod(shape))).reshape(shape)
            for end in ("low", "high")
        )
        dtype = np.dtype(value["dtype"])
        return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
    if kind == "discrete":
        return spaces.Discrete(value["n"], start=value["start"])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(value["n"], start=value["start"])
    return spaces.MultiBinary(value["n"])


class Absent(gymnasium.Env[Any, Any]):
    """Has the spaces of an environment that cannot be made here.

    Args:
        name: ``dataset:`` and the id of the demonstrations.
        options: What `spaces_as_options` returned.

    Raises:
        RlfdError: If they are something else.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        try:
            self.observation_space = _from_json(options["observations"])
            self.action_space = _from_json(options["actions"])
        except (KeyError, TypeError, ValueError) as error:
            raise RlfdError(
                f"'{name}' is known from demonstrations alone, and its spaces were not given",
                f"give --demos {name.removeprefix(PREFIX)} and leave --env out",
            ) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> NoReturn:
        """Refuse."""
        raise RlfdError(
            f"nobody can act in '{self.name}': the environment of these demonstrations cannot be "
            "made on this machine",
            "install its simulator, then name it with --env",
        )

    def step(self, action: Any) -> NoReturn:
        """Refuse."""
        self.reset()
