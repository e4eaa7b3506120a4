"""What a GPU brings: checks recorded updates against plain ones, then measures whole runs.

    python benchmarks/gpu.py [--no-check] [CASE ...]

Each check trains from one seed with updates compiled and recorded as CUDA graphs, and twice with
updates run kernel by kernel, and compares the final policies: the plain runs are to be equal, the
fast one rounds elsewhere, and actions that tip over make more of it. Each measurement is a run with
the published batch and update rates; its train.csv is read from the first quarter on, since
compiling and recording come before. Prints a table, and writes it to build/bench/gpu.md.

Shares of time are the main thread's: "env" waits for the emulators, while the GPU has nothing to
do; "act" waits for the GPU, as the next action depends on all updates before it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ourselves import KINDS, rates_of
from run import OUT, Section, console, machine
from safetensors.torch import load_file

from rlfd.demos import collect, make_demonstrator
from rlfd.envs import EnvConfig
from rlfd.experiments.checkpoint import list_policies
from rlfd.experiments.config import resolve
from rlfd.experiments.train import train

FOLDER = OUT / "gpu"
CHECKED_STEPS = 2_000


@dataclass(frozen=True)
class Case:
    """A run to be measured.

    Attributes:
        algo: Its algorithm.
        env: Its environment.
        steps: Env steps, some seconds' worth.
        num_envs: Environments; 0 = the default.
        settings: Hyperparameters.
        checked: Those that differ in the check, which is short and has 8 environments.
        needed: Env steps/s that it should reach.
    """

    algo: str
    env: str
    steps: int
    num_envs: int
    settings: dict[str, Any]
    checked: dict[str, Any]
    needed: int | None = None


_Q = {"learning_starts": 20_000}
_LOW = {"precision": "bfloat16"}
_SOON = {"learning_starts": 200}
CASES = {
    "soft-q": Case("soft-q", "Pong", 160_000, 64, _Q, _SOON, 10_000),
    "psq": Case("psq", "Pong", 160_000, 64, _Q, _SOON, 10_000),
    "soft-q, bfloat16": Case("soft-q", "Pong", 160_000, 64, _Q | _LOW, _SOON),
    "ppo": Case(
        "ppo",
        "Pong",
        400_000,
        128,
        {"batch_steps": 16_384, "minibatch_size": 2_048},
        {"batch_steps": 512, "minibatch_size": 128},
        25_000,
    ),
    "sac": Case("sac", "HalfCheetah", 20_000, 0, {}, _SOON, 1_500),
}


def run(case: Case, name: str, steps: int, settings: dict[str, Any], **options: Any) -> Path:
    """Train on the GPU, and return the run's folder."""
    env, data = EnvConfig(case.env), FOLDER / "data"
    if case.algo == "psq":  # speed does not depend on how well is demonstrated
        if not (data / case.env).exists():
            collect(env, make_demonstrator("random", env, seed=0), episodes=5, data_dir=data)
        options["demos"] = f"{case.env}/random-v0"
    resolved = resolve(
        case.algo,
        env,
        settings=[f"{key}={value}" for key, value in settings.items()],
        options={
            "steps": steps,
            "eval_every": 0,
            "final_episodes": 0,
            "checkpoint_every": 10 * steps,
            "log_every": max(1, steps // 20),
            "device": "cuda",
            "compile": "on",
            "exp_name": name,
            **options,
        },
    )
    result = train(resolved, runs_dir=FOLDER / "runs", data_dir=data, overwrite=True)
    return result.run_dir.path


def differences(case: Case) -> tuple[float, ...]:
    """Return how far the policies of a fast and a second plain run are from a plain one's."""
    policies, settings = [], case.settings | case.checked
    for compile in ("on", "off", "off"):
        name = f"check-{len(policies)}"
        path = run(case, name, CHECKED_STEPS, settings, compile=compile, num_envs=8)
        saved = list_policies(path / "checkpoints")
        state = load_file(saved[max(saved)])
        policies.append(torch.cat([state[key].flatten().double() for key in sorted(state)]))
    fast, plain, again = policies
    return tuple(float((other - plain).norm() / plain.norm()) for other in (fast, again))


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--no-check", action="store_true", help="measure only, in half of the time")
    asked = parser.parse_args()
    names = asked.cases or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}', there are: {'; '.join(CASES)}")
    if not torch.cuda.is_available():
        sys.exit("no CUDA device was found")
    columns = ["", *([] if asked.no_check else ["fast - plain", "plain - plain"])]
    columns += ["env steps/s", "needed", "updates/s", "GB", *KINDS, "rest"]
    section = Section(torch.cuda.get_device_name(), columns)
    for name in names:
        case = CASES[name]
        console.print(name)
        apart = () if asked.no_check else differences(case)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        more = {"num_envs": case.num_envs} if case.num_envs else {}
        rates = rates_of(run(case, "speed", case.steps, case.settings, **more))
        gigabytes = torch.cuda.max_memory_reserved() / 1e9
        section.rows.append(
            [
                name,
                *(f"{difference:.1e}" for difference in apart),
                f"{rates.pop('env_steps'):,.0f}",
                "" if case.needed is None else f"{case.needed:,}",
                f"{rates.pop('updates'):,.0f}",
                f"{gigabytes:.1f}",
                *(f"{share:.0%}" for share in rates.values()),
            ]
        )
        console.print(" | ".join(section.rows[-1]))
    host = machine()
    heading = (
        f"{host['cpu']}, {host['cores']} cores, Python {host['python']}, torch {host['torch']}, "
        f"{host['date']}"
    )
    report = f"{heading}\n\n{section.markdown()}"
    (OUT / "gpu.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
