"""Times the pieces of a training loop one by one: `pieces.py SETUPS_JSON`, answers on stdout.

Updates per second compiled and eagerly, the time of an action, and the time of nothing but an
update's matrix products, below which no implementation comes.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ours import settings

from rlfd.algorithms.base import Algorithm
from rlfd.algorithms.core.engine import Batch
from rlfd.demos import Demonstrations, collect, make_demonstrator
from rlfd.envs import EnvConfig, World
from rlfd.experiments.config import Resolved, resolve
from rlfd.experiments.problem import build_algorithm

ENV = EnvConfig("LunarLander")
ENDLESS = 100_000_000
NUM_ENVS = 16
OBSERVATION, ACTIONS = 8, 4


def seconds_of(function: Callable[[], object], times: int, repeats: int = 7) -> float:
    """Return the median over `repeats` of the mean time over `times` calls."""
    function()
    measured = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(times):
            function()
        measured.append((time.perf_counter() - began) / times)
    return float(np.median(measured))


def resolved(algo: str, setup: dict[str, Any] | None, compile: str) -> Resolved:
    given = settings(setup) if setup else {"learning_starts": 1_000}
    return resolve(
        algo,
        ENV,
        settings=[f"{name}={value}" for name, value in given.items()],
        options={"steps": ENDLESS, "num_envs": NUM_ENVS, "compile": compile},
    )


def recorded_batches(algorithm: Algorithm) -> list[Batch]:
    """Run the algorithm until it has made some updates; return their batches."""
    engine = algorithm.learner.engine  # type: ignore[attr-defined]
    step, batches = engine.step, []

    def record(batch: Batch) -> dict[str, torch.Tensor]:
        batches.append(batch)
        return step(batch)

    engine.step = record
    world = World(ENV, num_envs=NUM_ENVS, seed=0)
    while len(batches) < 64:
        algorithm.iteration(world)
    engine.step = step
    return batches


def update_rate(algorithm: Algorithm) -> float:
    batches = recorded_batches(algorithm)
    step = algorithm.learner.engine.step  # type: ignore[attr-defined]
    return len(batches) / seconds_of(lambda: [step(batch) for batch in batches], times=4)


def acting_seconds(algorithm: Algorithm, rows: int) -> float:
    observations = np.random.default_rng(0).normal(size=(rows, OBSERVATION)).astype(np.float32)
    return seconds_of(lambda: algorithm.act(observations, greedy=False), times=300)


def product_seconds(hidden: list[int], batch: int) -> float:
    """Time the matrix products of one Q-learning update: two forward passes and one backward."""
    sizes = [OBSERVATION, *hidden, ACTIONS]
    layers = [
        (torch.randn(batch, fan_in), torch.randn(fan_out, fan_in), torch.randn(batch, fan_out))
        for fan_in, fan_out in itertools.pairwise(sizes)
    ]

    def products() -> None:
        for index, (inputs, weight, gradient) in enumerate(layers):
            inputs @ weight.t()  # online
            inputs @ weight.t()  # target
            gradient.t() @ inputs  # gradient of the weight
            if index > 0:
                gradient @ weight  # gradient of the inputs

    return seconds_of(products, times=100)


def measure(algo: str, setup: dict[str, Any] | None, demos: Demonstrations) -> dict[str, float]:
    rates, given = {}, demos if algo == "sqil" else None
    for mode in ("on", "off"):
        algorithm = build_algorithm(resolved(algo, setup, mode).config, given)
        rates["compiled" if mode == "on" else "eager"] = update_rate(algorithm)
    result = {f"updates_per_second_{name}": rate for name, rate in rates.items()}
    for rows in (1, 16):
        result[f"act_{rows}_us"] = 1e6 * acting_seconds(algorithm, rows)
    if setup:
        result["products_us"] = 1e6 * product_seconds(setup["hidden"], setup["batch_size"])
    return result


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        controller = make_demonstrator("controller", ENV, seed=0)
        demos = collect(ENV, controller, episodes=20, data_dir=Path(folder))
        results = {
            name: measure(case["algo"], case["setup"], demos)
            for name, case in json.loads(sys.argv[1]).items()
        }
    answers.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
