"""Demonstrations: collecting, storing, finding, checking."""

from __future__ import annotations

from rlfd.demos import catalogue
from rlfd.demos.collecting import Progress, collect
from rlfd.demos.controllers import (
    Answering,
    Demonstrator,
    Idle,
    Noisy,
    Shaky,
    default_demonstrator,
    make_demonstrator,
    policies,
)
from rlfd.demos.dataset import LABELS, DemoInfo, Demonstrations, Episode, content_hash
from rlfd.demos.library import (
    absent_env,
    describe,
    find,
    list_all,
    load,
    read,
    recorded_env,
    reference,
)
from rlfd.demos.mixing import TOLERANCE, mix
from rlfd.demos.report import (
    DemoReport,
    Distribution,
    StartOverlap,
    inspect,
    shifted_start_overlap,
)
from rlfd.demos.shipped import (
    PolicyFile,
    Score,
    find_shipped,
    is_policy_file,
    list_shipped,
    read_policy_file,
    strengths,
)

__all__ = [
    "LABELS",
    "TOLERANCE",
    "Answering",
    "DemoInfo",
    "DemoReport",
    "Demonstrations",
    "Demonstrator",
    "Distribution",
    "Episode",
    "Idle",
    "Noisy",
    "PolicyFile",
    "Progress",
    "Score",
    "Shaky",
    "StartOverlap",
    "absent_env",
    "catalogue",
    "collect",
    "content_hash",
    "default_demonstrator",
    "describe",
    "find",
    "find_shipped",
    "inspect",
    "is_policy_file",
    "list_all",
    "list_shipped",
    "load",
    "make_demonstrator",
    "mix",
    "policies",
    "read",
    "read_policy_file",
    "recorded_env",
    "reference",
    "shifted_start_overlap",
    "strengths",
]
