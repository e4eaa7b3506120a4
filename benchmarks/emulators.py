"""How fast Atari games are played: ALE's vector alone, and through `World`.

    python benchmarks/emulators.py [GAME]

Random actions of the minimal set. Measurements alternate, so that other work on the machine meets
both alike; beside the steps per second of the clock stand those per second of processor time.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv

from rlfd.envs import EnvConfig, World
from rlfd.envs.atari import games

ROUNDS, STEPS, SIZES = 5, 2_000, (1, 8, 16)


def processor_seconds() -> float:
    """Return what this process and its threads have used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rates(step: Callable[[Any], Any], actions: np.ndarray) -> tuple[float, float]:
    """Return env steps per second of the clock and of the processor."""
    clock, processor = time.perf_counter(), processor_seconds()
    for row in actions:
        step(row)
    return (
        actions.size / (time.perf_counter() - clock),
        actions.size / (processor_seconds() - processor),
    )


def main() -> None:
    """Measure and print."""
    game = sys.argv[1] if len(sys.argv) > 1 else "Pong"
    players: dict[tuple[str, int], Callable[[Any], Any]] = {}
    for size in SIZES:
        vector = AtariVectorEnv(
            games()[game],
            size,
            repeat_action_probability=0.25,
            use_fire_reset=False,
            reward_clipping=False,
        )
        vector.reset(seed=np.arange(size))
        players["AtariVectorEnv", size] = vector.step
        players["World", size] = World(EnvConfig(game), num_envs=size, seed=0).step
    count = int(vector.single_action_space.n)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in players}
    for round_ in range(ROUNDS):
        rng = np.random.default_rng(round_)
        for (name, size), step in players.items():
            found[name, size].append(rates(step, rng.integers(count, size=(STEPS // size, size))))
    for (name, size), measured in found.items():
        clock, processor = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{game} {name:>14} x {size:<3} {clock:8,.0f} steps/s, {processor:8,.0f} per CPU s")


if __name__ == "__main__":
    main()
