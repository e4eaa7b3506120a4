"""How much memory there is for a run."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["available_memory"]

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")
USED = Path("/sys/fs/cgroup/memory.current")


def available_memory(device: str) -> int | None:
    """Return how many bytes can be had on a device without swapping; None where nobody says.

    On the CPU that is what the kernel estimates, or what a container's limit leaves if that is
    less.
    """
    if device != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = [
        number
        for number in (_kernel_estimate(), _left_by_limit())
        if number is not None and number >= 0
    ]
    return min(found) if found else None


def _kernel_estimate() -> int | None:
    for line in _read(MEMINFO).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024  # "  123456 kB"
    return None


def _left_by_limit() -> int | None:
    limit, used = _read(LIMIT).strip(), _read(USED).strip()
    if not (limit.isdecimal() and used.isdecimal()):  # there may be none: "max"
        return None
    return int(limit) - int(used)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
