"""The runner's settings that suit an environment, whatever is trained there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ENVIRONMENTS", "LOCOMOTION", "environment_defaults"]

# Episodes of up to 1,000 steps: evaluated as often as short ones, they would cost more time than
# training does.
_LOCOMOTION: dict[str, Any] = {
    "steps": 1_000_000,
    "num_envs": 8,
    "log_every": 5_000,
    "eval_every": 50_000,
    "eval_episodes": 10,
    "final_episodes": 50,
    "checkpoint_every": 100_000,
}

# Games last some 1,000 steps, and each of them is a pass through the convolutions.
_ATARI: dict[str, Any] = {
    "steps": 5_000_000,
    "num_envs": 8,
    "log_every": 10_000,
    "eval_every": 250_000,
    "final_episodes": 30,
    "checkpoint_every": 250_000,
}

# Drives last 900 to 1,000 steps.
_CAR_RACING: dict[str, Any] = {
    "steps": 300_000,
    "num_envs": 8,
    "log_every": 5_000,
    "eval_every": 50_000,
    "eval_episodes": 10,
    "final_episodes": 20,
    "checkpoint_every": 50_000,
}

LOCOMOTION = (
    "HalfCheetah",
    "Hopper",
    "Walker2d",
    "Ant",
    "Humanoid",
    "Swimmer",
    "InvertedDoublePendulum",
)

ENVIRONMENTS: dict[str, Mapping[str, Any]] = {
    "Atari": _ATARI,
    "CarRacing": _CAR_RACING,
    **dict.fromkeys(LOCOMOTION, _LOCOMOTION),
}


def environment_defaults(env: str, family: str | None = None) -> Mapping[str, Any]:
    """Return the runner's settings that suit an environment, whatever is trained there."""
    return ENVIRONMENTS.get(env) or ENVIRONMENTS.get(family or "", {})
