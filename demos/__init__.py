"""Demonstrations: collecting, storing, finding, checking."""

from __future__ import annotations

from rlfd.demos.collect import Progress, collect
from rlfd.demos.controllers import Demonstrator, Noisy, make_demonstrator, policies
from rlfd.demos.dataset import DemoInfo, Demonstrations, Episode, content_hash
from rlfd.demos.library import find, list_all, load
from rlfd.demos.report import (
    DemoReport,
    Distribution,
    StartOverlap,
    inspect,
    shifted_start_overlap,
)
from rlfd.demos.storage import read_demonstrations, read_info

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
    "read_demonstrations",
    "read_info",
    "shifted_start_overlap",
]
