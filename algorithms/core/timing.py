"""Where a run's time goes: seconds by kind of work, for the whole process (one run each)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["seconds_by_kind", "timed"]

P = ParamSpec("P")
R = TypeVar("R")

_seconds: dict[str, float] = {"act": 0.0, "sample": 0.0, "update": 0.0}


def timed(kind: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that its time counts as `kind` (act, sample or update)."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                _seconds[kind] += time.perf_counter() - start

        return wrapper

    return decorate


def seconds_by_kind() -> dict[str, float]:
    """Return the seconds spent so far, by kind of work."""
    return dict(_seconds)
