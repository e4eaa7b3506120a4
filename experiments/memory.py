"""How much memory there is for a run, and how the allocator keeps it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["available_memory", "keep_freed_memory", "memory_share"]

SHARE = "RLFD_MEMORY_SHARE"  # bytes; set for runs that are made beside others

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")
USED = Path("/sys/fs/cgroup/memory.current")

# Numbers of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_FROM_HEAP = 32 << 20  # bytes; the most that glibc takes
KEPT = 128 << 20  # bytes


def available_memory(device: str) -> int | None:
    """Return how many bytes can be had on a device without swapping; None where nobody says.

    On the CPU that is what the kernel estimates, or what a container's limit leaves, or this run's
    share of it, whichever is least.
    """
    if device != "cpu":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = [
        number
        for number in (_kernel_estimate(), _left_by_limit(), _share())
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


def _share() -> int | None:
    share = os.environ.get(SHARE, "")
    return int(share) if share.isdecimal() else None


def memory_share(runs: int) -> Mapping[str, str]:
    """Return the variable that tells runs, so many beside each other, what each of them may take.

    They fill their replay memories over hours: what is free when one starts is no longer when it
    is needed.
    """
    free = available_memory("cpu")
    return {} if free is None or runs == 1 else {SHARE: str(free // runs)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def keep_freed_memory() -> bool:
    """Have glibc's allocator keep what is freed, up to 128 MB; return whether it does.

    An update frees tensors of megabytes which the next one asks for again. By default they go back
    to the kernel in between, and each of their pages costs a fault.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is None:
        return False
    # setting one of them ends the automatic choice of both
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP) and mallopt(M_TRIM_THRESHOLD, KEPT))
