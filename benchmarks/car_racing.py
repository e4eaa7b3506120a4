"""How fast Car Racing is played: Gymnasium's own, made small and gray, and ours.

    python benchmarks/car_racing.py [STEPS]

All take the same random actions, each held for some steps. Gymnasium's and ours drive one track and
see the same pictures; the world draws the seed of its track by itself. Measurements alternate, so
that other work on the machine meets all alike. Given are steps per second of processor time, the
median of the measurements.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pygame

from rlfd.envs import EnvConfig, World, make
from rlfd.envs.car_frames import LUMINANCE

ROUNDS, HELD = 9, 12


class Plain:
    """Gymnasium's Car Racing and the least that makes gray pictures of 64 x 64 of it."""

    def __init__(self) -> None:
        self.env = gymnasium.make("CarRacing-v3", continuous=False, disable_env_checker=True)

    def reset(self) -> None:
        """Begin, and wait until the camera came close."""
        self.env.reset(seed=0)
        for _ in range(50):
            self.step(0)

    def step(self, action: int) -> Any:
        """Drive, and look."""
        frame = self.env.step(action)[0]
        kept = pygame.surfarray.make_surface(frame[:84].swapaxes(0, 1))
        small = pygame.surfarray.array3d(pygame.transform.smoothscale(kept, (64, 64)))
        return (small.astype(np.uint16) @ np.array(LUMINANCE, np.uint16) + 128) >> 8


class Ours:
    """The environment by itself."""

    def __init__(self) -> None:
        self.env = make(EnvConfig("CarRacing"))

    def reset(self) -> None:
        """Begin."""
        self.env.reset(seed=0)

    def step(self, action: int) -> Any:
        """Drive, and look."""
        return self.env.step(action)


class Together:
    """One in a world, as a learner meets it."""

    def reset(self) -> None:
        """Begin."""
        self.world = World(EnvConfig("CarRacing"), num_envs=1, seed=0)

    def step(self, action: int) -> Any:
        """Drive, and look."""
        return self.world.step(np.array([action]))


def seconds(work: Callable[[], Any]) -> float:
    """Return the processor time that something takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    players: dict[str, Any] = {"Gymnasium": Plain(), "make": Ours(), "World": Together()}
    rates: dict[str, list[float]] = {name: [] for name in players}
    resets: dict[str, list[float]] = {name: [] for name in players}
    for round_ in range(ROUNDS):
        rng = np.random.default_rng(round_)
        actions = np.repeat(rng.choice([0, 1, 2, 3, 3, 3, 4], size=-(-steps // HELD)), HELD)[:steps]
        for name, player in players.items():
            resets[name].append(seconds(player.reset))

            def drive(step: Callable[[int], Any] = player.step, given: Any = actions) -> None:
                for action in given:
                    step(int(action))

            rates[name].append(steps / seconds(drive))
    for name, measured in rates.items():
        times = statistics.median(
            ours / theirs for ours, theirs in zip(measured, rates["Gymnasium"], strict=True)
        )
        print(
            f"{name:>10} {statistics.median(measured):7,.0f} steps/s, {times:.2f} times Gymnasium, "
            f"reset {1000 * statistics.median(resets[name]):.0f} ms"
        )


if __name__ == "__main__":
    main()
