"""Parameters that stay within bounds, by projection after each step.

A `clamp` in the loss would keep a parameter's *use* within them, but has no gradient beyond: what
one step had carried there would never come back.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["Bounds", "bounds_of", "project"]

Bounds = dict[str, tuple[float, float]]
"""Lowest and highest value of parameters, by name."""


def bounds_of(module: nn.Module) -> Bounds:
    """Return the bounds of a module's parameters, as its parts state them in `bounds`."""
    return {
        f"{prefix}.{name}".removeprefix("."): limits
        for prefix, part in module.named_modules()
        for name, limits in getattr(part, "bounds", {}).items()
    }


def project(parameters: Mapping[str, Tensor], bounds: Bounds) -> None:
    """Move parameters to the nearest values within their bounds, in place."""
    for name, (low, high) in bounds.items():
        parameters[name].clamp_(low, high)
