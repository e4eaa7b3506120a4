"""What a preset is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Key", "Preset"]

Key = tuple[str, str, str | None]
"""Algorithm, name of the preset, environment or family of environments; None = all."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Differences from the defaults of the runner and of the method."""

    run: Mapping[str, Any] = field(default_factory=dict)
    algorithm: Mapping[str, Any] = field(default_factory=dict)
