"""Learning methods by name. Importing this package's `__init__` registers all of them."""

from __future__ import annotations

from typing import TypeVar

from rlfd.algorithms.base import Algorithm
from rlfd.errors import unknown_name

__all__ = ["get", "names", "register"]

A = TypeVar("A", bound=type[Algorithm])

_algorithms: dict[str, type[Algorithm]] = {}


def register(algorithm: A) -> A:
    """Class decorator: make an algorithm known under its `name`."""
    if algorithm.name in _algorithms:
        raise ValueError(f"algorithm '{algorithm.name}' is registered twice")
    _algorithms[algorithm.name] = algorithm
    return algorithm


def names() -> list[str]:
    """Return all names, sorted."""
    return sorted(_algorithms)


def get(name: str) -> type[Algorithm]:
    """Return the algorithm of that name.

    Raises:
        RlfdError: If there is none; names the nearest one.
    """
    if name not in _algorithms:
        raise unknown_name("algorithm", name, names(), "list them with 'rlfd list algos'")
    return _algorithms[name]
