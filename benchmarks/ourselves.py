"""What `rlfd` itself takes: shares of a run's time, memory, start-up, and the pieces one by one."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import HERE, ONE_THREAD

__all__ = ["DefaultRun", "default_run", "help_seconds", "pieces", "rates_of"]

KINDS = ("env", "act", "sample", "update")


@dataclass(frozen=True)
class DefaultRun:
    """One run with default settings.

    Attributes:
        algo: Its algorithm.
        steps: Env steps.
        num_envs: Environments stepped together.
        env_steps_per_second: After compilation.
        updates_per_second: After compilation.
        shares: Of the time after compilation, by kind of work; `rest` is all else.
        peak_mb: Largest resident memory of the process.
        peak_tree_mb: Largest sum over it and its children (a C++ compiler, for some seconds).
    """

    algo: str
    steps: int
    num_envs: int
    env_steps_per_second: float
    updates_per_second: float
    shares: dict[str, float]
    peak_mb: float
    peak_tree_mb: float


def default_run(algo: str, steps: int, folder: Path) -> DefaultRun:
    """Train with default settings, and read what the run wrote about itself."""
    command = [
        *(sys.executable, "-m", "rlfd", "train", algo, "--env", "LunarLander"),
        *("--steps", str(steps), "--eval-every", "0", "--final-episodes", "20"),
        *("--compile", "on", "--no-progress", "--overwrite", "--yes"),
        *("--runs-dir", str(folder / "runs"), "--data-dir", str(folder / "data")),
    ]
    with (folder / f"{algo}.log").open("w") as log:
        # its own cache, so that it compiles as on a fresh machine
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"{algo}-compiled")}
        shutil.rmtree(folder / f"{algo}-compiled", ignore_errors=True)
        environment = {**os.environ, **ONE_THREAD, **cache}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        peak, tree = 0.0, 0.0
        while process.poll() is None:
            peak = max(peak, _status_mb(process.pid, "VmHWM"))
            tree = max(tree, sum(_status_mb(pid, "VmRSS") for pid in _family(process.pid)))
            time.sleep(0.05)
    if process.returncode != 0:
        raise RuntimeError(f"training {algo} failed:\n{(folder / f'{algo}.log').read_text()}")
    run = folder / "runs" / "default" / algo / "LunarLander" / "seed0"
    config = json.loads((run / "config.json").read_text())
    rates = rates_of(run)
    return DefaultRun(
        algo=algo,
        steps=steps,
        num_envs=config["num_envs"],
        env_steps_per_second=rates.pop("env_steps"),
        updates_per_second=rates.pop("updates"),
        shares=rates,
        peak_mb=peak,
        peak_tree_mb=tree,
    )


def rates_of(run: Path) -> dict[str, float]:
    """Read train.csv: env steps and updates per second, and shares of the time by kind of work."""
    with (run / "train.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    first, rows = rows[len(rows) // 4], rows[len(rows) // 4 :]  # compilation is behind it
    seconds = rows[-1]["wall_seconds"] - first["wall_seconds"]
    passed = [b["wall_seconds"] - a["wall_seconds"] for a, b in itertools.pairwise(rows)]
    shares = {
        kind: sum(t * row[f"time/{kind}"] for t, row in zip(passed, rows[1:], strict=True))
        / seconds
        for kind in KINDS
    }
    return {
        **{name: (rows[-1][name] - first[name]) / seconds for name in ("env_steps", "updates")},
        **shares,
        "rest": 1.0 - sum(shares.values()),
    }


def _status_mb(pid: int, field: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it just ended, or this system has no /proc
        return 0.0
    lines = [line for line in text.splitlines() if line.startswith(field)]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def help_seconds(times: int) -> float:
    """Return the median time of `rlfd --help`."""
    measured = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rlfd", "--help"], capture_output=True, check=True)
        measured.append(time.perf_counter() - began)
    return statistics.median(measured)


def pieces(cases: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Time updates and actions in a process of their own; see workers/pieces.py."""
    done = subprocess.run(
        [sys.executable, str(HERE / "workers" / "pieces.py"), json.dumps(cases)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **ONE_THREAD},
    )
    results: dict[str, dict[str, float]] = json.loads(done.stdout)
    return results
