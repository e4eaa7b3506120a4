"""What an environment is: which one is meant, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt

from rlfd.envs.imports import note_file
from rlfd.envs.rewards import OtherReward, Progress
from rlfd.envs.tabular import Table
from rlfd.envs.vector import Vector
from rlfd.errors import RlfdError, unknown_name

__all__ = ["LIMIT", "EnvConfig", "EnvSpec", "Environment", "Json", "Option", "Reference"]

Json: TypeAlias = Any  # what json.dumps accepts
Environment: TypeAlias = gymnasium.Env[Any, Any]
LIMIT = "max_episode_steps"
"""Option of every Gymnasium id: where episodes are cut, instead of where its registration says."""


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, from which start states, with which options and reward.

    Args:
        name: Short name, or the id of a Gymnasium environment.
        start: Start-state distribution, one of the environment's `starts`.
        options: Values that differ from, or repeat, the environment's defaults. For a Gymnasium
            id these are keyword arguments of `gymnasium.make`.
        reward: ``dense`` (the environment's own), ``sparse``, ``beyond`` or ``delay-K``; see
            `rlfd.envs.rewards`.
        action_range: Of a Gymnasium id: the range that continuous actions are chosen from.
        frame_stack: Of a Gymnasium id: show the last so many images as one; 0 shows each alone.
    """

    name: str
    start: str = "standard"
    options: Mapping[str, Json] = field(default_factory=dict)
    reward: str = "dense"
    action_range: tuple[float, float] | None = None
    frame_stack: int = 0

    @property
    def label(self) -> str:
        """Name of this environment in folder names: ``LunarLander-shifted``, ``Hopper-sparse``."""
        parts = [self.name.replace("/", "-").replace(":", "-")]
        parts += [self.start] if self.start != "standard" else []
        parts += [self.reward] if self.reward != "dense" else []
        return "-".join(parts)

    @property
    def title(self) -> str:
        """Name of this environment for people: ``Hopper, start standard, reward sparse``."""
        title = f"{self.name}, start {self.start}"
        return title if self.reward == "dense" else f"{title}, reward {self.reward}"

    @property
    def form(self) -> list[str]:
        """The words of a command that say how it is to be seen."""
        words = []
        if self.action_range is not None:
            words += ["--action-range", *map(str, self.action_range)]
        if self.frame_stack:
            words += ["--frame-stack", str(self.frame_stack)]
        return words

    def to_json(self) -> dict[str, Json]:
        """Return the config as JSON values."""
        value: dict[str, Json] = {
            "name": self.name,
            "start": self.start,
            "options": dict(self.options),
            "reward": self.reward,
        }
        if self.action_range is not None:
            value["action_range"] = list(self.action_range)
        if self.frame_stack:
            value["frame_stack"] = self.frame_stack
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Json], source: str = "") -> EnvConfig:
        """Return the config that `to_json` wrote, also before there were other rewards.

        Args:
            value: What it wrote.
            source: The file that holds it, for messages.

        Raises:
            RlfdError: If a field is missing, unknown, or of the wrong type.
        """
        known = [one.name for one in fields(cls)]
        unknown = set(value) - set(known)
        if unknown:
            raise unknown_name("environment field", min(unknown), known)
        name, start = value.get("name"), value.get("start", "standard")
        options, reward = value.get("options", {}), value.get("reward", "dense")
        if not (isinstance(name, str) and isinstance(start, str) and isinstance(reward, str)):
            raise RlfdError("an environment's 'name', 'start' and 'reward' must be texts")
        if not isinstance(options, Mapping):
            raise RlfdError("an environment's 'options' must be a table of names and values")
        action_range, frame_stack = value.get("action_range"), value.get("frame_stack", 0)
        if action_range is not None:
            if not isinstance(action_range, list | tuple) or not _two_numbers(action_range):
                raise RlfdError("an environment's 'action_range' must be two numbers")
            action_range = float(action_range[0]), float(action_range[1])
        if isinstance(frame_stack, bool) or not isinstance(frame_stack, int):
            raise RlfdError("an environment's 'frame_stack' must be a whole number")
        note_file(name, source)
        return cls(name, start, dict(options), reward, action_range, frame_stack)


def _two_numbers(values: Sequence[Json]) -> bool:
    return len(values) == 2 and all(type(value) in (int, float) for value in values)


@dataclass(frozen=True)
class Option:
    """A number, or one of several words, that changes an environment.

    Args:
        default: Its value when nothing is said.
        low: Smallest value allowed.
        high: Largest value allowed.
        help: One line for people.
        starts: The starts that it belongs to, or empty: all. With another one it is refused.
        rewards: The rewards that it belongs to, likewise.
        whole: Whether it counts something.
        choices: The words, where it is one; there are no bounds then.
        in_demos: Whether demonstrations must have the same value as the run that learns from them.
    """

    default: float | str
    low: float
    high: float
    help: str
    starts: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    whole: bool = False
    choices: tuple[str, ...] = ()
    in_demos: bool = True

    def belongs_to(self, config: EnvConfig) -> bool:
        """Whether it changes anything with this start and reward."""
        return (not self.starts or config.start in self.starts) and (
            not self.rewards or config.reward in self.rewards
        )


@dataclass(frozen=True)
class Reference:
    """Mean return and success rate of the two policies that every figure shows."""

    random_return: float
    random_success: float | None
    demonstrator_return: float | None
    demonstrator_success: float | None


@dataclass(frozen=True)
class EnvSpec:
    """What is known about an environment.

    Args:
        name: Short name, or Gymnasium id.
        gym_id: Id of the Gymnasium environment inside.
        kwargs: Its keyword arguments.
        starts: Start-state distributions, the usual one first.
        demo_start: The start that demonstrations are collected from unless told otherwise.
        demo_episodes: How many are collected unless told otherwise.
        option_rules: The options that can be set.
        sparse: The rule of its sparse reward, if it has one.
        delayed: Whether its reward can be delayed.
        frame_stack: How many frames an observation is made of, 0 where it is none of frames; see
            `rlfd.envs.frame_stack` for what options make of it.
        has_success: Whether episodes end with a success flag.
        noop: The action that does nothing, if there is one: a number, or one for each choice.
        controller: Whether there is one, a policy that somebody wrote.
        references: Measured scores with the dense reward, by start.
        description: One line for people.
        wrap: Puts the protocol around the Gymnasium environment.
        state: Returns what its controller sees, where that is not the observation.
        build: Makes it, in place of Gymnasium, from its config and how it is to be drawn.
        vector: Makes a vector of it, in place of the loop that suits all.
        table: Returns the table of a finite environment with these options, which are the Gymnasium
            environment's keyword arguments then.
    """

    name: str
    gym_id: str
    kwargs: Mapping[str, Json] = field(default_factory=dict)
    starts: tuple[str, ...] = ("standard",)
    demo_start: str = "standard"
    demo_episodes: int = 100
    option_rules: Mapping[str, Option] = field(default_factory=dict)
    sparse: type[OtherReward] | None = None
    delayed: bool = True
    frame_stack: int = 0
    has_success: bool = False
    noop: int | tuple[int, ...] | None = None
    controller: bool = False
    references: Mapping[str, Reference] = field(default_factory=dict)
    description: str = ""
    wrap: Callable[[Environment, EnvConfig], Environment] | None = field(
        default=None, repr=False, compare=False
    )
    state: Callable[[Environment], npt.NDArray[np.float64]] | None = field(
        default=None, repr=False, compare=False
    )
    build: Callable[[EnvConfig, str | None], Environment] | None = field(
        default=None, repr=False, compare=False
    )
    vector: Callable[[EnvConfig, int], Vector] | None = field(
        default=None, repr=False, compare=False
    )
    table: Callable[..., Table] | None = field(default=None, repr=False, compare=False)

    @property
    def options(self) -> dict[str, float | str]:
        """Default value of every option."""
        return {name: rule.default for name, rule in self.option_rules.items()}

    @property
    def rewards(self) -> tuple[str, ...]:
        """The rewards that it can be had with."""
        beyond = self.sparse is not None and issubclass(self.sparse, Progress)
        sparse = () if self.sparse is None else ("sparse", "beyond") if beyond else ("sparse",)
        return ("dense", *sparse, *(("delay-K",) if self.delayed else ()))

    @property
    def random_return(self) -> float | None:
        """Mean return of the random policy from the standard start, if it was measured."""
        reference = self.references.get("standard")
        return reference.random_return if reference else None

    @property
    def demonstrator_return(self) -> float | None:
        """Mean return of the controller from its own start, if it was measured."""
        reference = self.references.get(self.demo_start)
        return reference.demonstrator_return if reference else None
