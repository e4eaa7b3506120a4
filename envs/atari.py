"""Atari 2600 games on ALE's own vector of emulators.

An action is held for `frame_skip` frames; what is seen is the brighter of the last two, in grey,
scaled down by area, and stacked with what was seen at the three steps before: uint8
(4, size, size), the newest last. An episode's first frame stands for those before it, as in
Gymnasium (the vector itself has zeros there). An episode begins with 0 to `noop_max` - 1
frames without action and ends with the game or after `max_frames`. Nothing presses FIRE, and a lost
life ends nothing; with `life_loss` a learner takes it for the end, while play and stacks go on.

ALE's vector has defaults of its own, some of them traps; all that matters is given here by name,
and pinned by tests:

  * It neither reports the raw reward beside the clipped one, nor plays on after a life where that
    is to end the episode. Rewards are left raw (`learner_rewards` clips), lives are counted here.
  * It resets by itself either in the same step, hiding the last lives and returning last
    observations whose other rows are uninitialised memory, or in the step after the end. Here it
    is told to do the latter, and is reset before it can.

A seeded reset loads the cartridge anew, which takes as long as some 200 steps; one without a seed
is nearly free, but begins from a generator that nobody can read. So an environment is seeded when
an episode ends at least `RESEED_STEPS` steps after its last seed, and a vector is saved as these
seeds and the actions since.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ale_py
import gymnasium
import numpy as np
import numpy.typing as npt
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.utils import seeding

from rlfd.envs.specs import EnvConfig, Option
from rlfd.envs.vector import History, Replayed, Step, generator_state

__all__ = ["FRAME_STACK", "NO_BUTTONS", "AtariGame", "Emulators", "games", "options"]

Array = npt.NDArray[Any]

FRAME_STACK = 4
RESEED_STEPS = 20_000
NO_BUTTONS = (0, 1, 1)
"""Of a joystick: no fire, neither left nor right, neither down nor up."""

SCREEN = (210, 160)
SCORES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "Pong": ((0, 24, 0, 160),),
    "Asterix": ((183, 192, 48, 112),),
    "BeamRider": ((9, 19, 48, 112),),
    "Boxing": ((4, 13, 32, 128),),
    "Breakout": ((4, 16, 32, 88),),
    "DemonAttack": ((6, 17, 48, 112),),
    "Enduro": ((178, 205, 16, 116),),
    "Freeway": ((4, 14, 32, 128),),
    "MontezumaRevenge": ((5, 15, 48, 112),),
    "MsPacman": ((186, 195, 32, 112),),
    "Qbert": ((5, 14, 32, 80),),
    "Seaquest": ((8, 18, 48, 112),),
    "SpaceInvaders": ((9, 21, 0, 160),),
}
"""Where the score is drawn: rows from and to, columns from and to, of ALE's screen."""


@functools.cache
def games() -> dict[str, str]:
    """Return ALE's name of every game that one can play alone, by its short name."""
    registered = gymnasium.registry.items()
    return {
        name.removeprefix("ALE/").removesuffix("-v5"): entry.kwargs["game"]
        for name, entry in registered
        if name.startswith("ALE/")
    }


def options(name: str) -> dict[str, Option]:
    """Return the options of a game."""
    known = {
        "sticky": Option(
            0.25, 0.0, 1.0, "probability, in each frame, that the action before is repeated"
        ),
        "frame_skip": Option(4, 1, 60, "frames that an action is held for", whole=True),
        "size": Option(84, 36, 160, "rows and columns of an observation", whole=True),
        "actions": Option(
            "minimal",
            0,
            0,
            "the game's own actions, all 18, or a joystick: fire, horizontal, vertical",
            choices=("minimal", "full", "joystick"),
        ),
        "noop_max": Option(
            30, 1, 1000, "an episode begins with fewer no-op frames", whole=True, in_demos=False
        ),
        "max_frames": Option(
            108_000, 1, 108_000, "frames after which it is cut", whole=True, in_demos=False
        ),
        "life_loss": Option(
            0, 0, 1, "1: for a learner a lost life is the end; it plays on", whole=True,
            in_demos=False,
        ),
        "clip_rewards": Option(
            1, 0, 1, "1: a learner is paid the rewards' signs", whole=True, in_demos=False
        ),
        "mask_score": Option(0, 0, 1, "1: the score is blackened", whole=True),
    }  # fmt: skip
    return {key: rule for key, rule in known.items() if key != "mask_score" or name in SCORES}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Emulators:
    """N emulators of one game, on as many threads as there are cores.

    Args:
        config: The game, checked.
        num_envs: N.
        num_threads: At most so many; what comes of it is the same.
    """

    def __init__(self, config: EnvConfig, num_envs: int, *, num_threads: int | None = None) -> None:
        given: Mapping[str, Any] = config.options
        size, actions = int(given["size"]), given["actions"]
        self._envs = AtariVectorEnv(
            games()[config.name],
            num_envs,
            num_threads=min(num_envs, num_threads or _cores()),
            max_num_frames_per_episode=int(given["max_frames"]),
            repeat_action_probability=float(given["sticky"]),
            full_action_space=actions != "minimal",
            autoreset_mode="NextStep",
            img_height=size,
            img_width=size,
            stack_num=FRAME_STACK,
            frameskip=int(given["frame_skip"]),
            noop_max=int(given["noop_max"]),
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self.observation_space: spaces.Box = spaces.Box(0, 255, (FRAME_STACK, size, size), np.uint8)
        self.action_space: gymnasium.Space[Any]
        self._numbers: Array  # of the emulators' actions, by ours
        if actions == "joystick":
            self.action_space = spaces.MultiDiscrete([2, 3, 3])
            # ALE's own table, (horizontal, vertical, fire) there
            self._numbers = np.moveaxis(self._envs.map_action_idx, 2, 0)
        else:
            count = len(self._envs.ale.get_action_set())
            self.action_space = spaces.Discrete(count)
            self._numbers = np.arange(count, dtype=np.int32)
        self._score = _score(config.name, size) if given.get("mask_score") else ()
        self._ends_with_life = bool(given["life_loss"])
        self.history = History(num_envs)  # since the seeds
        self._generators: list[np.random.Generator] = []
        self._seeds: list[int | None] = [None] * num_envs  # what each began with, or
        self._states: list[dict[str, Any] | None] = [None] * num_envs  # a state of its generator
        self._first = np.ones(num_envs, np.bool_)  # whether the episode is the first of a seed
        self._ended: list[int | None] = [None] * num_envs
        self.lives = np.zeros(num_envs, np.int32)
        self.frames = np.zeros(num_envs, np.int32)  # of the running episodes
        self.emulator_seeds = np.full(num_envs, -1)  # of the last reset; -1 goes on
        self._age = np.zeros(num_envs, np.int64)  # steps of the running episodes

    # -- resets -----------------------------------------------------------------------------------

    def start(self, seeds: Sequence[int]) -> Array:
        """Begin every environment with a seed of its own."""
        self._generators = [seeding.np_random(seed)[0] for seed in seeds]
        self._seeds, self._states = list(seeds), [None] * len(seeds)
        self._first[:] = True
        self.history.begin(range(len(seeds)))
        return self._reset(range(len(seeds)), [self._draw(index) for index in range(len(seeds))])

    def renew(self, indices: Iterable[int], *, reseed: bool = True) -> Array:
        """Begin the next episodes of some environments, and return all observations."""
        indices, drawn = [int(index) for index in indices], []
        for index in indices:
            self._ended[index] = self._seeds[index] if self._first[index] else None
            self._first[index] = False
            if reseed and self.history.lengths[index] >= RESEED_STEPS:
                self._seeds[index] = None
                self._states[index] = generator_state(self._generators[index])
                self.history.begin([index])
                drawn.append(self._draw(index))
            else:
                drawn.append(-1)
        return self._reset(indices, drawn)

    def _draw(self, index: int) -> int:
        return int(self._generators[index].integers(2**31))

    def _reset(self, indices: Sequence[int], emulator_seeds: Sequence[int]) -> Array:
        chosen, indices = np.zeros(len(self._first), np.bool_), list(indices)
        chosen[indices] = True
        self.emulator_seeds[indices] = emulator_seeds
        # the first reset must be one of all
        only = {} if chosen.all() else {"options": {"reset_mask": chosen}}
        observations, info = self._envs.reset(seed=np.array(emulator_seeds), **only)
        self._age[indices] = 0
        self.lives, self.frames = info["lives"], info["episode_frame_number"]
        return self._masked(observations)

    # -- steps ------------------------------------------------------------------------------------

    def send(self, actions: Array) -> None:
        """Let the emulators work on actions (N, ...)."""
        where = tuple(actions.T) if self._numbers.ndim > 1 else actions
        numbers = self._numbers[where]
        self.history.append(numbers.astype(np.uint8))
        self._envs.send(numbers)

    def receive(self) -> tuple[Array, npt.NDArray[np.float64], Array, Array, Array]:
        """Wait for them: observations, rewards, games over, games cut, lives lost."""
        observations, rewards, over, cut, info = self._envs.recv()
        lives = info["lives"]
        lost = (lives < self.lives) & (lives > 0) & ~(over | cut)
        self.lives, self.frames = lives, info["episode_frame_number"]
        self._age += 1
        return self._masked(observations), rewards.astype(np.float64), over, cut, lost

    def step(self, actions: Array) -> Step:
        """Act in every environment."""
        self.send(actions)
        return self._finish()

    def _finish(self, *, reseed: bool = True) -> Step:
        following, rewards, over, cut, lost = self.receive()
        observations, ended = following, np.flatnonzero(over | cut)
        if len(ended):
            observations = self.renew(ended, reseed=reseed)
        if self._ends_with_life:
            over = over | lost
        infos: dict[int, dict[str, Any]] = {int(index): {} for index in ended}
        return Step(following, observations, rewards, over, cut, infos)

    def _masked(self, observations: Array) -> Array:
        self._begin_stacks(observations)
        for rows, columns in self._score:
            observations[:, :, rows, columns] = 0
        return observations

    def _begin_stacks(self, observations: Array) -> None:
        """Put the first frame of an episode in place of those before it."""
        for index in np.flatnonzero(self._age < FRAME_STACK - 1):
            first = FRAME_STACK - 1 - self._age[index]
            observations[index, :first] = observations[index, first]

    # -- saving -----------------------------------------------------------------------------------

    def ended_seed(self, index: int) -> int | None:
        """Return the seed of the episode before the running one; None if it was not the first."""
        return self._ended[index]

    def state(self) -> list[dict[str, Any]]:
        """Return how each environment was seeded last, and the emulator's actions since."""
        return [
            {"seed": seed, "generator": state, "actions": actions}
            for seed, state, actions in zip(
                self._seeds, self._states, self.history.each(), strict=True
            )
        ]

    def restore(self, states: Sequence[Mapping[str, Any]]) -> Replayed:
        """Play again what was played since the seeds, in all environments at once."""
        replayed = [np.asarray(saved["actions"], np.uint8) for saved in states]
        self.history.replace(replayed)
        self._seeds = [saved["seed"] for saved in states]
        self._states = [saved["generator"] for saved in states]
        self._generators = [seeding.np_random(seed or 0)[0] for seed in self._seeds]
        for generator, state in zip(self._generators, self._states, strict=True):
            if state is not None:
                generator.bit_generator.state = state
        emulator_seeds = [self._draw(index) for index in range(len(states))]
        waits = self.history.lengths.max() - self.history.lengths  # so that all end together
        table = self.history.table()
        observations = self._reset(range(len(states)), emulator_seeds)
        self._first[:] = True
        for time in range(len(table) + 1):
            due = [int(index) for index in np.flatnonzero(waits == time)]
            if time and due:
                observations = self._reset(due, [emulator_seeds[index] for index in due])
                self._first[due] = True
            if time < len(table):
                self._envs.send(table[time].astype(np.int32))
                observations = self._finish(reseed=False).observations
        return Replayed(observations)

    def close(self) -> None:
        """Release the emulators, which end with the last reference to them."""
        vars(self).pop("_envs", None)


def _score(name: str, size: int) -> tuple[tuple[slice, slice], ...]:
    """Return the rows and columns of an observation that any of the score is in."""
    (height, width), parts = SCREEN, []
    for top, bottom, left, right in SCORES[name]:
        rows = slice(top * size // height, -(-bottom * size // height))
        parts.append((rows, slice(left * size // width, -(-right * size // width))))
    return tuple(parts)


class AtariGame(gymnasium.Env[Array, Any]):
    """One game, step for step what the same environment of `Emulators` plays.

    Lost lives end nothing here, and `info` says how many are left.

    Args:
        config: The game, checked.
        render_mode: ``rgb_array``, or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._lane = Emulators(config, 1)
        self.observation_space, self.action_space = (
            self._lane.observation_space,
            self._lane.action_space,
        )
        self._screen = None if render_mode is None else _Screen(config)
        self._sent = False
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is None and not self._begun:
            seed = int(self.np_random.integers(2**31))
        observations = self._lane.renew([0]) if seed is None else self._lane.start([seed])
        self._begun = True
        if self._screen is not None:
            self._screen.reset(int(self._lane.emulator_seeds[0]), int(self._lane.frames[0]))
        return observations[0], self._info()

    def begin(self, action: Any) -> None:
        """Let the emulator work on the action that the next `step` is given."""
        self._lane.send(np.asarray(action)[None])
        self._sent = True

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Act."""
        if not self._sent:
            self.begin(action)
        self._sent = False
        if self._screen is not None:
            self._screen.step(int(self._lane.history.last[0]))
        observations, rewards, over, cut, _ = self._lane.receive()
        return observations[0], float(rewards[0]), bool(over[0]), bool(cut[0]), self._info()

    def _info(self) -> dict[str, Any]:
        return {"lives": int(self._lane.lives[0])}

    def render(self) -> Any:
        """Return the screen in its colours."""
        assert self._screen is not None
        return self._screen.draw()

    def close(self) -> None:
        """Release the emulator."""
        self._lane.close()


class _Screen:
    """A second emulator that plays the same, since the vector's cannot be looked at."""

    def __init__(self, config: EnvConfig) -> None:
        given: Mapping[str, Any] = config.options
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", float(given["sticky"]))
        rom = roms.get_rom_path(games()[config.name])
        assert rom is not None  # it is one of ALE's own
        self._rom = rom
        self._skip, self._most = int(given["frame_skip"]), int(given["max_frames"])
        self._full = given["actions"] != "minimal"
        self._actions: list[Any] = []
        self._played = 0

    def reset(self, seed: int, frames: int) -> None:
        """Begin as the other one did, which then let so many frames pass."""
        if seed >= 0:
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._rom)
            full, minimal = self._ale.getLegalActionSet(), self._ale.getMinimalActionSet()
            self._actions = full if self._full else minimal
        self._ale.reset_game()
        while self._ale.getEpisodeFrameNumber() < frames:
            self._ale.act(0)
        self._played = 0

    def step(self, number: int) -> None:
        """Hold an action."""
        for _ in range(self._skip):
            self._ale.act(self._actions[number])
            self._played += 1
            if self._ale.game_over() or self._played >= self._most:
                break

    def draw(self) -> Array:
        """Return the picture. Shape (210, 160, 3), most games."""
        return self._ale.getScreenRGB()
