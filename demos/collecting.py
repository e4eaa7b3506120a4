"""Collecting demonstrations."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.demos.controllers import Demonstrator, Idle, Noisy, Shaky
from rlfd.demos.dataset import Demonstrations, Episode
from rlfd.demos.storage import prepare, write_demonstrations
from rlfd.envs import EnvConfig, PlayedEpisode, adapter, check, frame_stack, play_episodes, probe
from rlfd.errors import RlfdError
from rlfd.interrupts import StopSignal

__all__ = ["Progress", "collect"]

logger = logging.getLogger("rlfd.demos")

Progress = Callable[[int, int, float], None]

EPISODE_STREAM = 0xDE30  # keeps the episodes' seeds apart from every other use of a seed
SEEDS_AT_ONCE = 2**12  # even: two of them come from one draw
ATTEMPTS, LEAST_ATTEMPTS = 20, 100  # episodes a filter may look at: for each one kept, in all


def collect(
    env: EnvConfig,
    policy: Demonstrator,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    noise: float = 0.0,
    action_noise: float = 0.0,
    noop: float = 0.0,
    min_return: float | None = None,
    max_return: float | None = None,
    seed: int = 0,
    name: str | None = None,
    data_dir: Path,
    num_envs: int | None = None,
    progress: Progress | None = None,
) -> Demonstrations:
    """Let a demonstrator play, and write the episodes as a new dataset.

    The same arguments give the same episodes, whatever `num_envs` is.

    Args:
        env: The environment, with the start to play from.
        policy: Who plays.
        episodes: Number of episodes to keep. Either this or `steps`.
        steps: Keep whole episodes until they have at least so many steps together.
        noise: Probability of a random action in place of the demonstrator's.
        action_noise: Standard deviation of Gaussian noise on continuous actions, in units of half
            their range.
        noop: Probability of doing nothing in place of all that.
        min_return: Keep only episodes with at least this return.
        max_return: Keep only episodes with at most this return.
        seed: Of the episodes and the noise.
        name: Of the dataset; left out, it tells the policy and the noise.
        data_dir: Where this tool keeps its data.
        num_envs: How many episodes run at a time; None for 16, or 4 of one that is seen in
            images, whose long episodes would else be played in vain when there are enough.
        progress: Called after each kept episode with how much is done, of how much, and the mean
            return so far; in episodes or steps, whichever was asked for.

    Raises:
        RlfdError: If an argument is wrong, the folder cannot be written, or too few episodes pass
            the filters.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, at the end of an episode.
    """
    env = check(env)
    for warning in probe(env).warnings:
        logger.warning(warning)
    keep = _Filter(episodes, steps, min_return, max_return, frame_stack(env))
    form = adapter(env)
    action_space = form.action_space
    if action_noise:
        policy = Shaky(policy, action_noise, action_space, seed)
    if noise:
        policy = Noisy(policy, noise, action_space, seed)
    if noop:
        policy = Idle(policy, noop, env, action_space, seed)
    name = name or _default_name(policy.describe())
    prepare(name, env, data_dir)  # before the work, not after it

    policy.reset(keep.limit)
    num_envs = num_envs or (4 if keep.frame_stack else 16)
    stop = StopSignal("stopping; once more stops at once")

    def act(observations: npt.NDArray[Any], indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        stop.check()  # an episode may have no end
        return policy.act(observations, indices)

    rollouts = play_episodes(
        env,
        seeds=_seeds(seed, keep.limit),
        act=act,
        states=policy.sees_states,
        num_envs=num_envs,
        record=True,
    )
    with stop, contextlib.closing(rollouts):
        for played in rollouts:
            stop.check()
            keep.look_at(played, action_space)
            if progress is not None and keep.kept:
                progress(min(keep.done, keep.goal), keep.goal, keep.return_sum / len(keep.kept))
            if keep.done >= keep.goal:
                break
            if keep.gave_up:
                raise keep.failure()
        else:
            raise keep.failure()

    pure = {"noise": 0.0, "action_noise": 0.0, "noop": 0.0}
    demonstrator: dict[str, Any] = {**pure, **policy.describe()}
    demonstrator["seed"] = seed
    demonstrator |= {"min_return": min_return, "max_return": max_return, "played": keep.played}
    return write_demonstrations(
        keep.kept,
        env=env,
        adapter=form,
        demonstrator=demonstrator,
        name=name,
        data_dir=data_dir,
    )


def _seeds(seed: int, limit: int) -> Iterator[int]:
    """Yield the seeds of the episodes; nobody knows before how many are needed."""
    rng = np.random.default_rng([EPISODE_STREAM, seed])
    while limit > 0:
        yield from rng.integers(2**31, size=min(limit, SEEDS_AT_ONCE)).tolist()
        limit -= SEEDS_AT_ONCE


class _Filter:
    """Keeps the episodes that are wanted, and knows when there are enough."""

    def __init__(
        self,
        episodes: int | None,
        steps: int | None,
        min_return: float | None,
        max_return: float | None,
        frame_stack: int,
    ) -> None:
        self.frame_stack = frame_stack
        if (episodes is None) == (steps is None):
            raise RlfdError("either a number of episodes or a number of steps must be given")
        self.goal = int(episodes if episodes is not None else steps or 0)
        if self.goal < 1:
            what = "episodes" if episodes is not None else "steps"
            raise RlfdError(f"the number of {what} must be at least 1, not {self.goal}")
        if min_return is not None and max_return is not None and min_return > max_return:
            raise RlfdError(
                f"no return is at least {min_return:g} and at most {max_return:g}",
                "the smallest return must not exceed the largest one",
            )
        self.by_steps = steps is not None
        self.low = -np.inf if min_return is None else min_return
        self.high = np.inf if max_return is None else max_return
        filtered = min_return is not None or max_return is not None
        self.limit = max(self.goal * ATTEMPTS, LEAST_ATTEMPTS) if filtered else self.goal
        self.kept: list[Episode] = []
        self.return_sum = 0.0
        self.done = 0
        self.played = 0
        self.seen = (np.inf, -np.inf)

    @property
    def gave_up(self) -> bool:
        """Whether too few pass; how many episodes a number of steps takes is not known before."""
        enough = max(LEAST_ATTEMPTS, ATTEMPTS * (len(self.kept) + 1))
        return self.by_steps and self.played >= enough

    def look_at(self, played: PlayedEpisode, action_space: spaces.Space[Any]) -> None:
        """Keep an episode if its return is wanted."""
        self.played += 1
        value = played.episode_return
        self.seen = (min(self.seen[0], value), max(self.seen[1], value))
        if not self.low <= value <= self.high:
            return
        assert played.observations is not None
        assert played.actions is not None
        assert played.rewards is not None
        self.kept.append(
            Episode(
                observations=played.observations,
                actions=played.actions.astype(action_space.dtype, copy=False),
                rewards=played.rewards,
                terminated=played.terminated,
                truncated=played.truncated,
                success=played.success,
                seed=played.seed,
                frame_stack=self.frame_stack,
            )
        )
        self.return_sum += value
        self.done += played.length if self.by_steps else 1

    def failure(self) -> RlfdError:
        """Return the error for filters that too few episodes pass."""
        return RlfdError(
            f"only {len(self.kept)} of {self.played} episodes had a return from {self.low:g} to "
            f"{self.high:g}, expected {self.goal} {'steps' if self.by_steps else 'episodes'}; "
            f"the returns were {self.seen[0]:.1f} to {self.seen[1]:.1f}",
            "choose wider limits, or a demonstrator that reaches them",
        )


def _default_name(description: dict[str, Any]) -> str:
    name = str(description.get("name") or description["policy"])
    for kind in ("action_noise", "noise", "noop"):
        if description.get(kind):
            name += f"-{kind.replace('_', '-')}{100 * description[kind]:g}".replace(".", "_")
    return name
