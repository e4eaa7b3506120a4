"""What made a run: command, versions, source tree, machine."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rlfd import __version__

__all__ = ["provenance"]


def provenance() -> dict[str, Any]:
    """Return command, versions, source state, machine, process and time, for run.json."""
    packages = ("torch", "numpy", "gymnasium", "minari")
    return {
        "command": shlex.join(sys.argv),
        "versions": {
            "rlfd": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "git": _git_state(),
        "host": platform.node(),
        "pid": os.getpid(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


@functools.cache
def _git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the source tree, if this is one; asked once per process."""
    folder = Path(__file__).resolve().parent
    commands = {"commit": ["rev-parse", "HEAD"], "dirty": ["status", "--porcelain", "-uno"]}
    answers = {}
    for name, arguments in commands.items():
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        answers[name] = done.stdout.strip()
    return {"commit": answers["commit"], "dirty": bool(answers["dirty"])}
