"""What is to be known about an environment of other people before one learns from it.

It is tried for a moment, in an instance that nobody else uses.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from rlfd.envs.absent import is_playable
from rlfd.envs.catalogue import SPECS
from rlfd.envs.guest import has_no_limit
from rlfd.envs.registry import make, spec
from rlfd.envs.specs import EnvConfig, Environment
from rlfd.errors import GuestFailed

__all__ = ["Findings", "probe"]

SEED, STEPS, SECONDS = 20_011, 100, 0.5


@dataclass(frozen=True)
class Findings:
    """What was found.

    Args:
        warnings: In words.
        repeatable: Whether the same seed and actions gave the same, as far as was looked.
    """

    warnings: tuple[str, ...] = ()
    repeatable: bool = True


def probe(config: EnvConfig) -> Findings:
    """Play one episode twice from one seed, for at most a second, and compare.

    Environments of the catalogue are known to be repeatable and are left alone.

    Raises:
        RlfdError: If the environment cannot be made, or does not keep to the interface.
    """
    if config.name in SPECS or not is_playable(config.name):
        return Findings()
    warnings = _made_ready(config)
    with contextlib.closing(make(config)) as env:
        try:
            first, ended = _play(env, STEPS)
            again, _ = _play(env, len(first["rewards"]))
        except GuestFailed:  # it may not do so again, and if it does, it will be said then
            return Findings(tuple(warnings))
        if has_no_limit(env) and not (ended or warnings):  # emulators have one of their own
            warnings.append(
                f"environment '{config.name}' has no time limit: an episode that does not end by "
                "itself goes on for ever; --max-episode-steps N cuts it"
            )
    others = [name for name, values in first.items() if not _same(values, again[name])]
    if others:
        warnings.append(
            f"environment '{config.name}' ignores its seed: two resets with the same one, and the "
            f"same actions, gave other {' and '.join(others)}; runs and evaluations cannot be "
            "repeated, and a run is not continued exactly (--resume --fresh-resets begins its "
            "episodes anew); let it draw from self.np_random after super().reset(seed=seed)"
        )
    return Findings(tuple(warnings), repeatable=not others)


def _made_ready(config: EnvConfig) -> list[str]:
    """Say which short name is the same Atari game in the form that methods are made for."""
    own = gymnasium.registry.get(spec(config.name).gym_id)
    game = None if own is None else own.kwargs.get("game")
    for name, known in SPECS.items():
        registered = gymnasium.registry.get(known.gym_id)
        if game and registered is not None and registered.kwargs.get("game") == game:
            return [
                f"'{config.name}' is taken as it comes; '{name}' is this game made ready for "
                "learning: small grey frames, four of them stacked"
            ]
    return []


def _play(env: Environment, steps: int) -> tuple[dict[str, list[Any]], bool]:
    """Play to the end, for some steps or some time; return what came, and whether it ended."""
    env.action_space.seed(SEED)
    began = time.monotonic()
    seen: dict[str, list[Any]] = {
        "observations": [np.array(env.reset(seed=SEED)[0])],
        "rewards": [],
        "ends": [],
    }
    for step in range(steps):
        observation, reward, ends, cut, _ = env.step(env.action_space.sample())
        seen["observations"].append(np.array(observation))
        seen["rewards"].append(float(reward))
        seen["ends"].append((ends, cut))
        if ends or cut:
            return seen, True
        if steps == STEPS and step and time.monotonic() - began > SECONDS:
            break
    return seen, False


def _same(values: list[Any], others: list[Any]) -> bool:
    """Whether two lists are the same as far as both go."""
    return all(
        np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
        for one, other in zip(values, others, strict=False)
    )
