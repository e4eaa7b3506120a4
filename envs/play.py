"""Whole episodes from given seeds, for evaluation and for collecting demonstrations."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from rlfd.envs.atari import AtariGame
from rlfd.envs.frames import stack_frames, unstack_frames
from rlfd.envs.guest import outcome
from rlfd.envs.registry import check, frame_stack, make, spec
from rlfd.envs.specs import EnvConfig, Environment
from rlfd.errors import RlfdError, RunFailed

__all__ = ["Act", "Lend", "PlayedEpisode", "play_episodes"]

logger = logging.getLogger("rlfd.envs")

Array = npt.NDArray[Any]
Act = Callable[[Array, npt.NDArray[np.int64]], Array]
Lend = Callable[[], contextlib.AbstractContextManager[Environment]]


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """One whole episode.

    Args:
        index: Its place among the seeds.
        seed: Seed of its reset.
        episode_return: Sum of the rewards.
        dense_return: Sum of the environment's own dense rewards; the same unless it has another.
        length: Number of actions, T.
        terminated: Whether the task ended it.
        truncated: Whether it was cut; never true together with `terminated`.
        success: The environment's success test, None where there is none.
        landed: For Lunar Lander: came to rest anywhere. None elsewhere.
        observations: Shape (T + 1, ...); None unless recorded. Of stacked frames a view that keeps
            each of them once.
        actions: Shape (T, ...); None unless recorded.
        rewards: Shape (T,), float64; None unless recorded.
        frames: Pictures before each action and at the end; empty unless asked for.
    """

    index: int
    seed: int
    episode_return: float
    dense_return: float
    length: int
    terminated: bool
    truncated: bool
    success: bool | None
    landed: bool | None
    observations: Array | None = None
    actions: Array | None = None
    rewards: npt.NDArray[np.float64] | None = None
    frames: list[Array] = field(default_factory=list)


@dataclass(slots=True)
class _Running:
    """An episode that is being played."""

    index: int
    seed: int
    env: Environment
    observation: Array
    filmed: bool
    length: int = 0
    rewards: list[float] = field(default_factory=list)
    observations: list[Array] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    frames: list[Array] = field(default_factory=list)


def play_episodes(
    config: EnvConfig,
    *,
    seeds: Iterable[int],
    act: Act,
    states: bool = False,
    num_envs: int = 16,
    record: bool = False,
    frames: int = 0,
    lend: Lend | None = None,
) -> Generator[PlayedEpisode, None, None]:
    """Play one episode for each seed, several at a time, and yield them in the seeds' order.

    An episode depends on its seed and on what `act` answers for it, never on how many run beside
    it. Environments that have nothing left to play leave the batch.

    Args:
        config: The environment.
        seeds: Episode i is reset with ``seeds[i]``.
        act: Called with observations (n, ...) and the indices (n,) of the episodes that they
            belong to; returns the actions (n, ...).
        states: Call it with states of the simulator (`EnvSpec.state`) in place of observations.
        num_envs: How many episodes run at a time.
        record: Keep observations, actions and rewards.
        frames: Film this many episodes, the first ones.
        lend: Lends one that is there, where no other can be made.

    Raises:
        RunFailed: If an action, an observation or a reward is not finite.
        RlfdError: If pictures are asked for and cannot be drawn.
    """
    config = check(config)
    player = _Player(config, record=record, frames=frames, lend=lend)
    state = spec(config.name).state if states else None
    todo = deque(enumerate(seeds))
    waiting: dict[int, PlayedEpisode] = {}
    turn = 0  # index of the episode to be yielded next
    running: list[_Running] = []
    try:
        while todo or running:
            while todo and len(running) < num_envs and player.has_place(todo[0][0]):
                running.append(player.begin(*todo.popleft()))
            seen = [state(one.env) if state else one.observation for one in running]
            indices = np.array([episode.index for episode in running], np.int64)
            actions = act(np.stack(seen), indices)
            if len(actions) != len(running):
                raise RlfdError(f"{len(running)} actions were expected, got {len(actions)}")
            finite = np.isfinite(actions)
            if not finite.all():
                player.refuse(running[int(np.argwhere(~finite)[0, 0])])
            for episode, action in zip(running, actions, strict=True):
                player.announce(episode, action)
            still_running = []
            for episode, action in zip(running, actions, strict=True):
                played = player.advance(episode, action)
                if played is None:
                    still_running.append(episode)
                    continue
                waiting[played.index] = played
                if todo and player.has_place(todo[0][0]):
                    still_running.append(player.begin(*todo.popleft()))
            running = still_running
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1
    finally:
        player.close()


class _Player:
    """Keeps the environments and plays single steps."""

    def __init__(self, config: EnvConfig, *, record: bool, frames: int, lend: Lend | None) -> None:
        self.config = config
        self.record = record
        self.frames = frames
        self.frame_stack = frame_stack(config)
        self.lend = lend
        self.made = contextlib.ExitStack()
        self.count = 0
        self.full = False  # no further environment can be made
        # Free environments, apart by whether they can draw: drawing makes every step slower.
        self.free: dict[bool, list[Environment]] = {False: [], True: []}

    def has_place(self, index: int) -> bool:
        """Whether an environment is free for this episode, or can be made."""
        filmed = index < self.frames
        if not (self.free[filmed] or self.full):
            self._one_more(filmed)
        if self.full and not filmed and not self.free[False]:
            self.free[False], self.free[True] = self.free[True], []  # they need not draw
        return bool(self.free[filmed])

    def _one_more(self, filmed: bool) -> None:
        try:
            env = make(self.config, render_mode="rgb_array" if filmed else None)
        except RlfdError as error:
            self.full = True
            if self.count:
                logger.info("playing %d at a time: %s", self.count, error.message)
                return
            if self.lend is None or filmed:
                raise
            env = self.made.enter_context(self.lend())
        else:
            self.made.callback(env.close)
        self.count += 1
        self.free[filmed].append(env)

    def begin(self, index: int, seed: int) -> _Running:
        """Begin an episode that there is a place for."""
        filmed = index < self.frames
        env = self.free[filmed].pop()
        observation, _ = env.reset(seed=int(seed))
        episode = _Running(index, int(seed), env, np.array(observation), filmed)
        self._keep(episode, 0.0)
        return episode

    def announce(self, episode: _Running, action: Any) -> None:
        """Let an emulator begin on its step, beside those of the other episodes."""
        if isinstance(episode.env, AtariGame):
            episode.env.begin(action)

    def advance(self, episode: _Running, action: Any) -> PlayedEpisode | None:
        """Play one step; return the episode when it is over."""
        observation, reward, terminated, truncated, info = episode.env.step(action)
        episode.observation = np.array(observation)
        episode.length += 1
        episode.rewards.append(float(reward))
        if self.record:
            episode.actions.append(np.array(action))
        self._keep(episode, float(reward))
        if not (terminated or truncated):
            return None
        self.free[episode.filmed].append(episode.env)
        rewards = np.array(episode.rewards, np.float64)
        episode_return = float(rewards.sum())
        return PlayedEpisode(
            index=episode.index,
            seed=episode.seed,
            episode_return=episode_return,
            dense_return=float(info.get("dense_return", episode_return)),
            length=episode.length,
            terminated=bool(terminated),
            truncated=bool(truncated and not terminated),
            success=outcome(info),
            landed=bool(info["landed"]) if "landed" in info else None,
            observations=self._observations(episode) if self.record else None,
            actions=np.array(episode.actions) if self.record else None,
            rewards=rewards if self.record else None,
            frames=episode.frames,
        )

    def refuse(self, episode: _Running) -> NoReturn:
        raise RunFailed(
            f"environment '{self.config.name}' was given an action that is not a finite number, "
            f"at step {episode.length + 1} of the episode with seed {episode.seed}"
        )

    def close(self) -> None:
        self.made.close()

    def _keep(self, episode: _Running, reward: float) -> None:
        if not (np.isfinite(reward) and np.isfinite(episode.observation).all()):
            raise RunFailed(
                f"environment '{self.config.name}' returned a reward or an observation that is "
                f"not a finite number, at step {episode.length} of the episode with seed "
                f"{episode.seed}"
            )
        if self.record:
            seen = episode.observation
            one = unstack_frames(seen, self.frame_stack).copy() if self.frame_stack > 1 else seen
            episode.observations.append(one)
        if episode.filmed:
            episode.frames.append(self._picture(episode.env))

    def _observations(self, episode: _Running) -> Array:
        seen = np.array(episode.observations)
        return stack_frames(seen, self.frame_stack) if self.frame_stack > 1 else seen

    def _picture(self, env: Environment) -> Array:
        try:
            return np.asarray(env.render())
        except Exception as error:  # the drawing libraries raise what they like
            raise RlfdError(
                f"environment '{self.config.name}' cannot be drawn: {error}",
                "without a screen MuJoCo needs EGL (MUJOCO_GL=egl) or OSMesa (MUJOCO_GL=osmesa)",
            ) from error
