"""Where campaigns happen: a folder with one of each thing, copies of it, and a judge."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path
from typing import Any

from tests.contract import test_resume

__all__ = ["DQN", "Answer", "Failure", "Laboratory"]

Answer = dict[str, Any]

SECONDS, PROCESSOR_SECONDS = 300.0, 30  # a command that takes longer hangs
MEMORY = 8 << 30
SMALL = [
    "--steps", "300", "--num-envs", "3", "--eval-every", "100", "--eval-episodes", "2",
    "--final-episodes", "3", "--checkpoint-every", "100", "--compile", "off", "--no-progress",
]  # fmt: skip
NETWORK = ["--set", "hidden=5,9"]
DQN = ["dqn", "--env", "CartPole", *SMALL, *NETWORK, "--set", "learning_starts=50", "--set",
       "batch_size=7"]  # fmt: skip
AIRL = ["airl", "--env", "CartPole", *SMALL, *NETWORK]
BC = ["bc", "--env", "CartPole", "--final-episodes", "3", *NETWORK, "--set", "max_epochs=3",
      "--no-progress"]  # fmt: skip
MAKING = [
    ["collect-demos", "--env", "CartPole", "--episodes", "4"],
    ["collect-demos", "--env", "CartPole", "--episodes", "3", "--policy", "random"],
    ["collect-demos", "--env", "GridWorld", "--episodes", "2"],
    ["train", *DQN],
    ["train", *DQN, "--seed", "1"],
    ["train", *AIRL],
    ["train", *BC],
    ["train", "maxent-irl", "--env", "GridWorld", "--final-episodes", "2", "--set",
     "max_iterations=5", "--set", "tolerance=0", "--no-progress"],
    ["export", "dqn/CartPole/seed0", "--out", "policy.safetensors", "--episodes", "3"],
    ["train", *DQN, "--seed", "2"],
]  # fmt: skip


class Failure(AssertionError):
    """What must not be, and how to see it again."""


class Laboratory:
    """A fork server, a folder with runs, demonstrations and a policy, and copies of that.

    Args:
        folder: Empty; everything lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.lab = test_resume.Lab(folder)
        self.folder, self.whole = folder, folder / "whole"
        for index, command in enumerate(MAKING):
            request: dict[str, Any] = {}
            if index == len(MAKING) - 1:  # an interrupted run is there as well
                place = "rlfd.experiments.checkpoint:save_resume"
                request["trap"] = {"place": place, "call": 3, "when": "after"}
            answer = self.lab.run(self.whole, command, **request)
            if answer["code"] not in (0, -signal.SIGKILL):
                raise Failure(f"{command}: {answer}")

    def copy(self, name: str) -> Path:
        """Return a new copy of the folder."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.whole, place, symlinks=True)
        return place

    def run(self, place: Path, command: list[str], **request: Any) -> Answer:
        """Run a command in `place`; it may take so long and so much memory."""
        request = {"kill_after": SECONDS, "cpu": PROCESSOR_SECONDS, "memory": MEMORY, **request}
        return self.lab.run(place, command, **request)

    def close(self) -> None:
        """End the server."""
        self.lab.server.stdin.close()
        self.lab.server.wait(timeout=60)


def complaint(answer: Answer, *, may_last: bool = False) -> str:
    """Return what is wrong with how a command ended; nothing if it ended as it should."""
    code, stdout, stderr = answer["code"], answer["stdout"], answer["stderr"]
    for word in ("Traceback", "error: unexpected ", "should not happen", "Exception ignored"):
        if word in stdout + stderr:
            return f"'{word.strip()}' in what it says"
    if "\x1b" in stdout + stderr:
        return "an escape sequence reached the terminal"
    if code == -signal.SIGKILL and may_last:
        return ""
    if code not in (0, 1, 2, 130):
        return f"exit code {code}"
    errors = re.findall(r"^error: ", stderr, re.MULTILINE)
    explained = errors or "stopped, nothing was changed" in stderr or "Usage: " in stdout
    if code in (1, 2) and not explained:
        return f"exit code {code} without an error"
    if code == 0 and errors:
        return "an error, and exit code 0"
    return ""
