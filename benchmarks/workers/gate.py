"""Lets a training loop that runs in one process be timed piecewise from another one.

The loop calls `tick` as often as it likes. Once it is warm, `tick` answers ``ready`` and holds the
loop until a line with a number of seconds arrives on standard input; after that time it answers
with what was done meanwhile and holds the loop again. So two loops in two processes can take turns
on one processor, and neither works while the other is timed.
"""

from __future__ import annotations

import json
import os
import sys
import time

__all__ = ["Closed", "Gate"]


class Closed(Exception):
    """Nothing more is to be measured."""


class Gate:
    """Holds a loop, except while it is timed.

    Args:
        warm_at: Env steps before which nothing is timed.
    """

    def __init__(self, warm_at: int) -> None:
        self.warm_at = warm_at
        # libraries may print; answers go to the real standard output, everything else to the log
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._seconds: float | None = None

    def tick(self, env_steps: int, updates: int) -> None:
        """Say how far the loop is.

        Raises:
            Closed: When standard input ended.
        """
        if self._seconds is None:
            if env_steps < self.warm_at:
                return
            self._answer({"ready": True})
        else:
            passed = time.perf_counter() - self._began
            if passed < self._seconds:
                return
            self._answer(
                {
                    "seconds": passed,
                    "cpu_seconds": time.process_time() - self._cpu_began,
                    "env_steps": env_steps - self._env_steps,
                    "updates": updates - self._updates,
                }
            )
        line = sys.stdin.readline()
        if not line:
            raise Closed
        self._seconds = float(line)
        self._env_steps, self._updates = env_steps, updates
        self._cpu_began = time.process_time()
        self._began = time.perf_counter()

    def _answer(self, value: dict[str, float | bool]) -> None:
        self._answers.write(json.dumps(value) + "\n")
        self._answers.flush()
