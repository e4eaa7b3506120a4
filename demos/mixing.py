"""Mixing datasets by shares of episodes: demonstrations of graded quality."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlfd.demos.dataset import Demonstrations, Episode, content_hash
from rlfd.demos.library import difference, recorded_env
from rlfd.demos.storage import (
    Spaces,
    mean_return,
    prepare,
    space_difference,
    write_demonstrations,
)
from rlfd.envs import EnvConfig, check
from rlfd.errors import RlfdError

__all__ = ["TOLERANCE", "mix"]

logger = logging.getLogger("rlfd.demos")

MIX_STREAM = 0x313C5  # keeps the choice of episodes apart from every other use of a seed
TOLERANCE = 1e-6
"""By how much the sum of the shares may miss 1."""


def mix(
    parts: Sequence[tuple[Demonstrations, float]],
    *,
    name: str,
    episodes: int | None = None,
    seed: int = 0,
    data_dir: Path,
) -> Demonstrations:
    """Write a new dataset of whole episodes from several, by shares of the number of episodes.

    Of each part the beginning of a seeded permutation is taken: a larger share adds episodes to
    those of a smaller one. No episode is taken twice.

    Args:
        parts: Datasets and their shares, which add up to 1. A share of 0 takes nothing.
        name: Of the new dataset.
        episodes: How many in all; None = as many as the shares allow.
        seed: Of the choice and the order.
        data_dir: Where this tool keeps its data.

    Raises:
        RlfdError: If the shares do not add up, the parts do not belong together, one of them has
            too few episodes, or the folder cannot be written.
    """
    for demos, _ in parts:
        if demos.info.are_labels:
            raise RlfdError(
                f"the actions of '{demos.info.id}' are labels that were never executed",
                "mix demonstrations only",
            )
    shares = [share for _, share in parts]
    _check_shares(shares)
    env = _common_env([demos for demos, _ in parts])
    _refuse_repetition([demos for demos, _ in parts])
    counts = _counts([demos for demos, _ in parts], shares, episodes)
    prepare(name, env, data_dir)

    chosen: list[Episode] = []
    notes: list[dict[str, Any]] = []
    for index, ((demos, share), count) in enumerate(zip(parts, counts, strict=True)):
        order = np.random.default_rng([MIX_STREAM, seed, index]).permutation(len(demos.episodes))
        taken = [demos.episodes[i] for i in np.sort(order[:count])]
        chosen += taken
        notes.append(
            {
                "name": demos.info.name,
                "id": demos.info.id,
                "content_hash": demos.info.content_hash,
                "share": share,
                "episodes": count,
                "return_mean": mean_return([one.episode_return for one in taken]),
                "demonstrator": dict(demos.info.demonstrator),
            }
        )
    order = np.random.default_rng([MIX_STREAM, seed]).permutation(len(chosen))
    mixed = [chosen[i] for i in order]
    repeated = len(mixed) - len({content_hash([episode]) for episode in mixed})
    if repeated:
        logger.warning(
            "the parts overlap: %d of the %d episodes repeat another one", repeated, len(mixed)
        )
    form = parts[0][0].adapter
    assert form is not None  # datasets that were read have one
    return write_demonstrations(
        mixed,
        env=env,
        adapter=form,
        demonstrator={"policy": "mixture", "parts": notes, "seed": seed},
        name=name,
        data_dir=data_dir,
    )


def _check_shares(shares: Sequence[float]) -> None:
    if len(shares) < 2:
        raise RlfdError("a mixture needs at least two parts", "give them as NAME:SHARE NAME:SHARE")
    for share in shares:
        if not 0.0 <= share <= 1.0:
            raise RlfdError(f"a share must be from 0 to 1, not {share:g}")
    if abs(sum(shares) - 1.0) > TOLERANCE:
        raise RlfdError(
            f"the shares {' + '.join(f'{share:g}' for share in shares)} add up to "
            f"{sum(shares):.6g}, expected 1",
            "a share may be written as a fraction, such as 1/3",
        )


def _common_env(parts: Sequence[Demonstrations]) -> EnvConfig:
    """Return the environment of all parts.

    Raises:
        RlfdError: If they are of different ones, with what differs.
    """
    first = parts[0]
    env = recorded_env(first.info)
    for other in parts[1:]:
        found = difference(other.info, env, same_reward=True)
        found = found or space_difference(_spaces(other), _spaces(first))
        start = other.info.env.start if other.info.env else "standard"
        if found is None and start != env.start:
            found = "start", start, env.start
        if found is None and other.info.env is not None:  # also what a learner may have otherwise
            for option, value in check(other.info.env).options.items():
                if found is None and value != env.options.get(option):
                    found = f"option '{option}'", value, env.options.get(option)
        if found is None and other.has_rewards != first.has_rewards:
            found = "having rewards", other.has_rewards, first.has_rewards
        if found is not None:
            field, theirs, ours = found
            raise RlfdError(
                f"demonstrations '{first.info.id}' and '{other.info.id}' cannot be mixed: "
                f"{field} is {ours!r} in the first, {theirs!r} in the second",
                "name datasets of one environment by their ids, see 'rlfd list demos'",
            )
    return env


def _spaces(demos: Demonstrations) -> Spaces:
    return demos.observation_space, demos.action_space


def _refuse_repetition(parts: Sequence[Demonstrations]) -> None:
    seen: dict[str, str] = {}
    for demos in parts:
        if demos.info.content_hash in seen:
            raise RlfdError(
                f"demonstrations '{seen[demos.info.content_hash]}' and '{demos.info.id}' are the "
                "same, expected different ones",
                "no episode can be in a mixture twice",
            )
        seen[demos.info.content_hash] = demos.info.id


def _counts(
    parts: Sequence[Demonstrations], shares: Sequence[float], episodes: int | None
) -> list[int]:
    """Return the number of episodes of each part.

    Raises:
        RlfdError: If a part has too few, or gets none for its share.
    """
    available = [len(demos.episodes) for demos in parts]
    total = episodes
    if total is None:
        limits = [has / share for has, share in zip(available, shares, strict=True) if share > 0]
        total = int(min(limits) + TOLERANCE)
        while any(n > has for n, has in zip(_split(total, shares), available, strict=True)):
            total -= 1
    counts = _split(total, shares)
    for demos, share, count in zip(parts, shares, counts, strict=True):
        if count > len(demos.episodes):
            raise RlfdError(
                f"a share of {share:g} of {total} episodes is {count}, demonstrations "
                f"'{demos.info.id}' have {len(demos.episodes)}",
                "give fewer --episodes, or collect more",
            )
        if share > 0 and count == 0:
            raise RlfdError(
                f"a share of {share:g} of {total} episodes is none of '{demos.info.id}'",
                "give more --episodes, or leave that part out",
            )
    return counts


def _split(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers near the shares that add up to `total`: the largest remainders gain."""
    exact = [round(total * share, 6) for share in shares]  # 0.3 x 10 is to be 3
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts
