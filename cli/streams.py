"""The three standard streams, made safe: a terminal that goes away never stops a run."""

from __future__ import annotations

import contextlib
import io
import os
import sys

__all__ = ["make_safe"]


def make_safe() -> None:
    """Open what is closed, and keep what cannot be written to stderr from being an error.

    Results are another matter: whoever asked for them must hear that stdout did not take them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that anybody opens would be in its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):  # ± is a ? where the locale has no such character
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Forgiving(
            sys.stderr.buffer, sys.stderr.encoding, sys.stderr.errors, line_buffering=True
        )


class _Forgiving(io.TextIOWrapper):
    """A stream that loses what it cannot write."""

    def write(self, text: str) -> int:
        """Write `text`, or lose it."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits, or lose it."""
        with contextlib.suppress(OSError):
            super().flush()
