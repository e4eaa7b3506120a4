"""Results alone on stdout: what else is written there while a command runs goes to stderr.

Simulators print, some of them from C, past `sys.stdout`; so file descriptor 1 itself is stderr
meanwhile, and results go through a copy of what it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["apart", "stream"]

_streams: list[TextIO] = []


def stream() -> TextIO:
    """Return where results go."""
    return _streams[-1] if _streams else sys.stdout


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Keep everything but results away from stdout."""
    stdout = sys.stdout
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(_copy(stdout)) if _is_descriptor_1(stdout) else stdout
        _streams.append(results)
        stack.callback(_streams.pop)
        with contextlib.redirect_stdout(sys.stderr):
            yield
        results.flush()  # a full disk or a closed pipe behind stdout shows here


@contextlib.contextmanager
def _copy(stdout: TextIO) -> Iterator[TextIO]:
    """Open what file descriptor 1 is, which becomes stderr until then."""
    stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    results = open(kept, "w", encoding=stdout.encoding, errors=stdout.errors)  # noqa: SIM115
    try:
        yield results
    finally:
        with contextlib.suppress(OSError, TypeError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # what C has not written yet is no result either
        os.dup2(kept, 1)
        with contextlib.suppress(OSError):  # said already, where it matters
            results.close()


def _is_descriptor_1(stdout: TextIO) -> bool:
    try:
        return stdout.fileno() == 1 and os.fstat(2) is not None
    except (OSError, ValueError, AttributeError):
        return False
