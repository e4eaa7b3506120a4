"""Forks a training process for each request: with everything imported, one costs 0.1 s, not 3.

Run as a program. A request is one line of JSON on stdin, the answer one line on stdout:
    argv        command line of `rlfd`
    folder      where to run it; its stdout and stderr go to files there
    kill_after  seconds after which the process gets a signal, if it still runs
    kill_with   that signal; SIGKILL if left out
    trap        where the process is to send itself a signal instead (see `set_trap`)
    memory      bytes of address space that it may have
    cpu         seconds of processor time that it may take
    python_path a folder that it may import from, too

Nothing may be computed in the server itself: torch's threads do not survive a fork.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "rlfd.cli.main", "rlfd.cli.train", "rlfd.experiments.train", "rlfd.experiments.statistics",
    "gymnasium.envs.classic_control.cartpole", "gymnasium.envs.box2d.lunar_lander", "pandas",
    "gymnasium.envs.mujoco.hopper_v5", "dots",
    "torch._dynamo", "torch._functorch.apis", "torch._inductor.compile_fx",
)  # fmt: skip


def serve() -> None:
    """Answer requests until stdin is closed."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one process to its end."""
    began = time.perf_counter()
    process = os.fork()
    if process == 0:
        be_the_process(request)
    killed = request.get("kill_after")
    while killed is not None:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        if time.perf_counter() - began > killed:
            os.kill(process, request.get("kill_with") or signal.SIGKILL)
            break
        time.sleep(0.002)
    _, status = os.waitpid(process, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.perf_counter() - began,
        "stdout": Path(request["folder"], "stdout").read_text(errors="replace"),
        "stderr": Path(request["folder"], "stderr").read_text(errors="replace"),
    }


def be_the_process(request: dict[str, Any]) -> NoReturn:
    """Do what `rlfd` would do with this command line."""
    code = 70
    try:
        os.chdir(request["folder"])
        for number, name in enumerate(("/dev/null", "stdout", "stderr")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o600), number)
        if request.get("python_path"):
            sys.path.append(request["python_path"])
        if request.get("cpu"):
            used = int(time.process_time()) + request["cpu"]
            resource.setrlimit(resource.RLIMIT_CPU, (used, used))
        if request.get("memory"):
            resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
        if request.get("trap"):
            set_trap(**request["trap"])
        sys.argv = ["rlfd", *request["argv"]]
        importlib.import_module("rlfd.cli.main").main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def set_trap(place: str, call: int, when: str = "before", number: int = signal.SIGKILL) -> None:
    """Let the `call`-th call of a function send this process a signal.

    Args:
        place: `module:name` or `module:class.name`.
        call: Counted from 1.
        when: ``before`` or ``after`` the call, or ``half``: after the first half of its last
            argument, a text, was handed over.
        number: The signal.
    """
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), []

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) != call:
            return function(*args, **kwargs)
        if when == "before":
            os.kill(os.getpid(), number)
        if when == "half":
            args = (*args[:-1], args[-1][: len(args[-1]) // 2])
        result = function(*args, **kwargs)
        if when != "before":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    serve()
