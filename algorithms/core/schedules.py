"""Values that change with the amount of experience."""

from __future__ import annotations

__all__ = ["linear"]


def linear(now: int, start: float, final: float, duration: int) -> float:
    """Return the value that moves linearly from `start` to `final` over `duration`, then stays."""
    if now >= duration:
        return final
    return start + (final - start) * now / duration
