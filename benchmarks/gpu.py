"""What a GPU brings: checks recorded updates against plain ones, then measures whole runs.

    python benchmarks/gpu.py [NAME ...]

Each check trains twice from one seed, with updates as CUDA graphs and one kernel after another, and
compares the final policies. Each measurement is a run of `rlfd train --device cuda` with the
published batch and update rates, whose train.csv is read from its first quarter on. Recording, and
what else happens once, comes before. Prints a table, and writes it to build/bench/gpu.md.

Time is the main thread's: "env" waits for the emulators, during which the GPU has nothing to do;
"act" waits for the GPU, since the next action needs all updates before it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from ourselves import KINDS, rates_of
from run import OUT, Section, console, machine
from safetensors.torch import load_file

from rlfd.experiments.checkpoint import list_policies

FOLDER = OUT / "gpu"
DEMO_STEPS = 5_000  # of a random policy: their number and quality do not matter for speed


@dataclass(frozen=True)
class Case:
    """A run to be measured: its words, those of its check, and the env steps/s it should reach."""

    algo: str
    env: str
    steps: int
    words: str
    check: str
    needed: int | None = None
    demos: bool = False


_Q = "--num-envs 64 --set learning_starts=20000"
_FEW = "--num-envs 8 --set learning_starts=200"
_LOW = "--set precision=bfloat16"
CASES = {
    "soft-q": Case("soft-q", "Pong", 160_000, _Q, _FEW, 10_000),
    "psq": Case("psq", "Pong", 160_000, _Q, _FEW, 10_000, demos=True),
    "soft-q, bfloat16": Case("soft-q", "Pong", 160_000, f"{_Q} {_LOW}", f"{_FEW} {_LOW}"),
    "ppo": Case(
        "ppo",
        "Pong",
        400_000,
        "--num-envs 128 --set batch_steps=16384 --set minibatch_size=2048",
        "--num-envs 8 --set batch_steps=512 --set minibatch_size=128",
        25_000,
    ),
    "sac": Case("sac", "HalfCheetah", 20_000, "", "--set learning_starts=200", 1_500),
}


def rlfd(words: list[str]) -> None:
    """Run a command of ours, its output in a file that is shown if it fails."""
    command = [sys.executable, "-m", "rlfd", *words, "--data-dir", str(FOLDER / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")


def demonstrations(env: str) -> None:
    """Record what a random policy does, once."""
    if not (FOLDER / "data" / env).exists():
        words = ["collect-demos", "--env", env, "--policy", "random"]
        rlfd([*words, "--steps", str(DEMO_STEPS), "--name", "random"])


def train(case: Case, name: str, steps: int, more: str) -> Path:
    """Train, and return the run's folder."""
    words = ["train", case.algo, "--env", case.env, "--device", "cuda", "--steps", str(steps)]
    words += [*more.split(), "--exp-name", name, "--runs-dir", str(FOLDER / "runs")]
    if case.demos:
        demonstrations(case.env)
        words += ["--demos", "random"]
    words += ["--eval-every", "0", "--final-episodes", "0", "--no-progress"]
    rlfd([*words, "--overwrite", "--yes"])
    return FOLDER / "runs" / name / case.algo / case.env / "seed0"


def difference(case: Case) -> float:
    """Return how far the policies of a recorded and of a plain run are apart, relatively."""
    policies = []
    for switch in ("on", "off"):
        run = train(case, f"check-{switch}", 2_000, f"{case.check} --compile {switch}")
        saved = list_policies(run / "checkpoints")
        state = load_file(saved[max(saved)])
        policies.append(torch.cat([state[name].flatten().double() for name in sorted(state)]))
    fast, plain = policies
    return float((fast - plain).norm() / plain.norm())


class Watch(threading.Thread):
    """Reads the GPU's memory in use until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        self.first = self.most = self._now()

    @staticmethod
    def _now() -> float:
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e9

    def run(self) -> None:
        """Look ten times a second."""
        while not self._stopped.wait(0.1):
            self.most = max(self.most, self._now())

    def stop(self) -> float:
        """Return the most that came on top, in GB."""
        self._stopped.set()
        return self.most - self.first


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; none: all")
    names = parser.parse_args().names or list(CASES)
    if not torch.cuda.is_available():
        sys.exit("no CUDA device was found")
    FOLDER.mkdir(parents=True, exist_ok=True)
    columns = ["", "recorded - plain", "env steps/s", "needed", "updates/s", "GB", *KINDS, "rest"]
    section = Section(torch.cuda.get_device_name(), columns)
    for name in names:
        case = CASES[name]
        console.print(name)
        try:
            apart = difference(case)
            watch, began = Watch(), time.perf_counter()
            watch.start()
            run = train(case, "speed", case.steps, case.words)
            gigabytes, seconds = watch.stop(), time.perf_counter() - began
            rates = rates_of(run)
        except RuntimeError as error:
            console.print(str(error))
            section.rows.append([name, "failed", *[""] * (len(columns) - 2)])
            continue
        section.rows.append(
            [
                name,
                f"{apart:.1e}",
                f"{rates.pop('env_steps'):,.0f}",
                "" if case.needed is None else f"{case.needed:,}",
                f"{rates.pop('updates'):,.0f}",
                f"{gigabytes:.1f}",
                *(f"{share:.0%}" for share in rates.values()),
            ]
        )
        section.notes.append(f"{name}: {case.steps:,} env steps in {seconds:.0f} s with the start.")
    host = machine()
    heading = f"{host['cpu']}, {os.cpu_count()} cores, torch {torch.__version__}, {host['date']}"
    report = f"{heading}\n\n{section.markdown()}"
    (OUT / "gpu.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
