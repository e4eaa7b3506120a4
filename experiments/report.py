"""What a long job tells whoever watches it; `rlfd.cli` has the implementations that draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["NullReporter", "Reporter"]


class Reporter(Protocol):
    """Listener of a long job. All methods return at once and never raise."""

    def start(self, task: str, total: int, done: int, unit: str) -> None:
        """Begin a task of `total` units (env steps, episodes), `done` of them made before."""

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Report that `done` units are made; `values` are the newest numbers worth showing."""

    def finish(self) -> None:
        """End the current task."""

    def message(self, text: str) -> None:
        """Tell something that is worth a line."""

    def warning(self, text: str) -> None:
        """Tell something that the user should act on or know about."""


class NullReporter:
    """Tells nothing."""

    def start(self, task: str, total: int, done: int, unit: str) -> None:
        """Ignore."""

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

    def message(self, text: str) -> None:
        """Ignore."""

    def warning(self, text: str) -> None:
        """Ignore."""
