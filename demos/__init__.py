"""Demonstrations: collecting, storing, finding, checking."""

from __future__ import annotations

from rlfd.demos.collecting import Progress, collect
from rlfd.demos.controllers import Demonstrator, Noisy, make_demonstrator, policies
from rlfd.demos.dataset import DemoInfo, Demonstrations, Episode, content_hash
from rlfd.demos.library import find, list_all, load, read
from rlfd.demos.report import (
    DemoReport,
    Distribution,
    StartOverlap,
    inspect,
    shifted_start_overlap,
)

__all__ = [
    "DemoInfo",
    "DemoReport",
    "Demonstrations",
    "Demonstrator",
    "Distribution",
    "Episode",
    "Noisy",
    "Progress",
    "StartOverlap",
    "collect",
    "content_hash",
    "find",
    "inspect",
    "list_all",
    "load",
    "make_demonstrator",
    "policies",
    "read",
    "shifted_start_overlap",
]
