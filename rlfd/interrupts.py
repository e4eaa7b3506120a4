"""Stopping politely: requests to stop are counted, and looked at where stopping is safe."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

__all__ = ["PARENT", "StopSignal", "end_with_parent"]

PARENT = "RLFD_PARENT"
"""Environment variable with the id of the process that this one is to end with."""
_LOOK_SECONDS = 0.5


def end_with_parent() -> None:
    """Ask this process to stop once its parent is gone, where `PARENT` names that.

    A launcher that is killed cannot stop what it started.
    """
    parent = os.environ.pop(PARENT, "")

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    if parent:
        threading.Thread(target=watch, daemon=True).start()


class StopSignal:
    """Counts Ctrl-C, SIGTERM and a terminal that goes away, which else break in at any line.

    Python raises KeyboardInterrupt wherever it happens to be: in the middle of a file, or inside a
    callback of a simulator, where it can get lost.

    Args:
        notice: Written to stderr at the first request.
        patience: So many requests are counted; the next one is a KeyboardInterrupt. None = all are.
    """

    def __init__(self, notice: str = "", *, patience: int | None = 1) -> None:
        self.requests = 0
        self._notice = notice
        self._patience = patience
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether somebody asked to stop."""
        return self.requests > 0

    @property
    def insisted(self) -> bool:
        """Whether somebody asked again, and so is not to be kept waiting."""
        return self._patience is not None and self.requests > self._patience

    def check(self) -> None:
        """Stop here if somebody asked to.

        Raises:
            KeyboardInterrupt: If so.
        """
        if self.received:
            raise KeyboardInterrupt

    def __enter__(self) -> StopSignal:
        # only the main thread may listen; elsewhere nobody does
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.requests += 1
        if self._notice and self.requests == 1:
            with contextlib.suppress(OSError):  # not through a stream: one may be in use just now
                os.write(2, f"\n{self._notice}\n".encode())
        if self.insisted:
            raise KeyboardInterrupt
