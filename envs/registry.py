"""The environments: short names with a protocol, and every suitable Gymnasium id.

A short name stands for a Gymnasium environment together with its preprocessing, its start-state
distributions, its success test and its reference scores. Any other Gymnasium id works as it is,
as long as it has a Box observation and a Discrete, Box, MultiDiscrete or MultiBinary action.

The reference scores were measured with this tool, over 1,000 episodes for each number, with the
dense reward:

    rlfd collect-demos --env ENV --start START --policy random|controller --episodes 1000 --seed 0
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium
from gymnasium import spaces

from rlfd.envs import headless, lean
from rlfd.envs.absent import Absent, is_playable
from rlfd.envs.rewards import (
    Balanced,
    Beyond,
    Delayed,
    Goal,
    OtherReward,
    Progress,
    Reached,
    Upright,
)
from rlfd.errors import RlfdError, unknown_name

__all__ = [
    "EnvConfig",
    "EnvSpec",
    "Json",
    "Option",
    "Reference",
    "check",
    "elsewhere",
    "make",
    "names",
    "spec",
]

Json: TypeAlias = Any  # what json.dumps accepts
Environment: TypeAlias = gymnasium.Env[Any, Any]

LIST_HINT = "list them with 'rlfd list envs'"


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
    """

    name: str
    start: str = "standard"
    options: Mapping[str, Json] = field(default_factory=dict)
    reward: str = "dense"

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

    def to_json(self) -> dict[str, Json]:
        """Return the config as JSON values."""
        return {
            "name": self.name,
            "start": self.start,
            "options": dict(self.options),
            "reward": self.reward,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> EnvConfig:
        """Return the config that `to_json` wrote, also before there were other rewards.

        Raises:
            RlfdError: If a field is missing, unknown, or of the wrong type.
        """
        known = ["name", "start", "options", "reward"]
        unknown = set(value) - set(known)
        if unknown:
            raise unknown_name("environment field", min(unknown), known)
        name, start = value.get("name"), value.get("start", "standard")
        options, reward = value.get("options", {}), value.get("reward", "dense")
        if not (isinstance(name, str) and isinstance(start, str) and isinstance(reward, str)):
            raise RlfdError("an environment's 'name', 'start' and 'reward' must be texts")
        if not isinstance(options, Mapping):
            raise RlfdError("an environment's 'options' must be a table of names and values")
        return cls(name, start, dict(options), reward)


@dataclass(frozen=True)
class Option:
    """A number that changes an environment.

    Args:
        default: Its value when nothing is said.
        low: Smallest value allowed.
        high: Largest value allowed.
        help: One line for people.
        starts: The starts that it belongs to, or empty: all. With another one it is refused.
        rewards: The rewards that it belongs to, likewise.
    """

    default: float
    low: float
    high: float
    help: str
    starts: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()

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
        has_success: Whether episodes end with a success flag.
        noop: The discrete action that does nothing, if there is one.
        default_demonstrator: Policy that `collect-demos` uses when none is named.
        references: Measured scores with the dense reward, by start.
        description: One line for people.
        wrap: Puts the protocol around the Gymnasium environment.
    """

    name: str
    gym_id: str
    kwargs: Mapping[str, Json] = field(default_factory=dict)
    starts: tuple[str, ...] = ("standard",)
    demo_start: str = "standard"
    demo_episodes: int = 100
    option_rules: Mapping[str, Option] = field(default_factory=dict)
    sparse: type[OtherReward] | None = None
    has_success: bool = False
    noop: int | None = None
    default_demonstrator: str | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)
    description: str = ""
    wrap: Callable[[Environment, EnvConfig], Environment] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def options(self) -> dict[str, float]:
        """Default value of every option."""
        return {name: rule.default for name, rule in self.option_rules.items()}

    @property
    def rewards(self) -> tuple[str, ...]:
        """The rewards that it can be had with."""
        beyond = self.sparse is not None and issubclass(self.sparse, Progress)
        sparse = () if self.sparse is None else ("sparse", "beyond") if beyond else ("sparse",)
        return ("dense", *sparse, "delay-K")

    @property
    def random_return(self) -> float | None:
        """Mean return of the random policy from the standard start, if it was measured."""
        reference = self.references.get("standard")
        return reference.random_return if reference else None

    @property
    def demonstrator_return(self) -> float | None:
        """Mean return of the default demonstrator from its own start, if it was measured."""
        reference = self.references.get(self.demo_start)
        return reference.demonstrator_return if reference else None


def names() -> list[str]:
    """Return the short names, in the order of the documentation."""
    return list(SPECS)


def spec(name: str) -> EnvSpec:
    """Return what is known about the environment called `name`.

    Raises:
        RlfdError: If there is no such short name or Gymnasium id.
    """
    if name in SPECS:
        return SPECS[name]
    if not is_playable(name):
        return EnvSpec(name=name, gym_id=name, description="known from demonstrations alone")
    if name not in gymnasium.registry:
        _import_namespace(name)
    if name not in gymnasium.registry:
        raise unknown_name("environment", name, [*SPECS, *gymnasium.registry], LIST_HINT)
    return EnvSpec(name=name, gym_id=name, description="Gymnasium environment, as it is")


def _import_namespace(name: str) -> None:
    """Let ``package:Env-v0`` register itself, as `gymnasium.make` does."""
    if ":" not in name:
        return
    try:
        gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        message = f"environment '{name}' cannot be found: {error}"
        raise RlfdError(message, "install the package before the colon") from error


def check(config: EnvConfig) -> EnvConfig:
    """Return `config` with every default filled in, or say what is wrong with it.

    Raises:
        RlfdError: If name, start, reward or an option is unknown, has the wrong type or is out of
            range, or the environment has no such reward.
    """
    known = spec(config.name)
    if config.start not in known.starts:
        raise unknown_name(f"start of {config.name}", config.start, known.starts)
    _check_reward(config.reward, known)
    if config.name not in SPECS:
        return dataclasses.replace(config, options=_plain_json(config))
    options: dict[str, Json] = {
        name: rule.default for name, rule in known.option_rules.items() if rule.belongs_to(config)
    }
    for name, value in config.options.items():
        rule = known.option_rules.get(name)
        if rule is None:
            hint = "" if known.option_rules else f"{config.name} has no options"
            raise unknown_name(f"option of {config.name}", name, known.option_rules, hint)
        for what, given, allowed in (
            ("start", config.start, rule.starts),
            ("reward", config.reward, rule.rewards),
        ):
            if allowed and given not in allowed:
                raise RlfdError(
                    f"option '{name}' does not belong to {what} '{given}' of {config.name}",
                    f"it can be set with {what} {' or '.join(allowed)}",
                )
        options[name] = _in_range(f"option '{name}' of {config.name}", value, rule)
    return dataclasses.replace(config, options=options)


def _check_reward(reward: str, known: EnvSpec) -> None:
    if reward in known.rewards and reward != "delay-K":
        return
    if reward in ("sparse", "beyond"):
        having = [name for name, other in SPECS.items() if reward in other.rewards]
        raise RlfdError(
            f"{known.name} has no reward '{reward}', it has {', '.join(known.rewards)}",
            f"environments that have one: {', '.join(having)}",
        )
    if re.fullmatch(r"delay-[1-9]\d{0,8}", reward) is None:
        raise unknown_name("reward", reward, known.rewards, "K stands for a number of steps")
    if reward == "delay-1":
        raise RlfdError("reward 'delay-1' is the dense one, expected a delay of at least 2 steps")


def elsewhere(env: EnvConfig, start: str | None, reward: str | None) -> EnvConfig:
    """Return `env` with another start or reward; options that only the old one has are left out."""
    rules = spec(env.name).option_rules
    other = dataclasses.replace(env, start=start or env.start, reward=reward or env.reward)
    options = {
        name: value
        for name, value in env.options.items()
        if name not in rules or rules[name].belongs_to(other)
    }
    return check(dataclasses.replace(other, options=options))


def _in_range(what: str, value: Json, rule: Option) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RlfdError(f"{what} must be a number, not {value!r}")
    if not math.isfinite(value) or not rule.low <= value <= rule.high:
        raise RlfdError(f"{what} must be from {rule.low:g} to {rule.high:g}, not {value!r}")
    return float(value)


def _plain_json(config: EnvConfig) -> dict[str, Json]:
    try:
        options: dict[str, Json] = json.loads(json.dumps(dict(config.options), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RlfdError(f"options of {config.name} must be plain JSON values: {error}") from error
    return options


def make(config: EnvConfig, *, render_mode: str | None = None) -> Environment:
    """Make one environment.

    At the last step of an episode of an environment with a success test, `info` holds the flags
    ``success`` and ``landed``.

    Raises:
        RlfdError: If the config is wrong, a package is missing, or the spaces do not suit.
    """
    config = check(config)
    if not is_playable(config.name):
        return Absent(config.name, config.options)
    known = spec(config.name)
    kwargs = dict(known.kwargs)
    if config.name not in SPECS:
        kwargs |= config.options
    if render_mode is not None:  # there are environments that do not know the argument
        kwargs["render_mode"] = render_mode
    headless.prepare()
    try:
        if "mujoco" in str(gymnasium.registry[known.gym_id].entry_point):
            with contextlib.suppress(ImportError):  # Gymnasium says what is missing
                headless.prepare_mujoco()
        env = gymnasium.make(known.gym_id, disable_env_checker=True, **kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        raise RlfdError(f"environment '{config.name}' needs a package: {error}") from error
    except Exception as error:
        message = f"environment '{config.name}' cannot be made: {error}"
        given = f"with options {dict(config.options)}" if config.options else "without options"
        raise RlfdError(message, f"it was made {given}") from error
    if not kwargs.keys() - {"render_mode"}:
        lean.quicken(env)
    if known.wrap is not None:
        env = known.wrap(env, config)
    _check_spaces(config.name, env)
    return _with_reward(env, config, known)


def _with_reward(env: Environment, config: EnvConfig, known: EnvSpec) -> Environment:
    kind, _, steps = config.reward.partition("-")
    if kind == "dense":
        return env
    if kind == "delay":
        return Delayed(env, int(steps))
    rule: Any = Beyond if kind == "beyond" else known.sparse
    made: Environment = rule(env, **config.options)  # the rule's own are the only options
    return made


def _check_spaces(name: str, env: Environment) -> None:
    kinds = (spaces.Discrete, spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)
    if not isinstance(env.observation_space, spaces.Box):
        raise RlfdError(
            f"environment '{name}' has {type(env.observation_space).__name__} observations, "
            "expected Box",
            "wrap it so that it returns one array, and register that with Gymnasium",
        )
    if not isinstance(env.action_space, kinds):
        raise RlfdError(
            f"environment '{name}' has {type(env.action_space).__name__} actions, "
            "expected Discrete, Box, MultiDiscrete or MultiBinary"
        )


def _lunar_lander(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart

    return LunarLanderStart(env, config.start, config.options)


def _lunar_lander_6(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart, SixActions

    return SixActions(LunarLanderStart(env, config.start, config.options))


_LANDER_STARTS = ("standard", "demo", "shifted", "tilt_out", "ground", "spin", "out_fast")
_LANDER_OPTIONS = {
    "push_scale": Option(
        0.0, 0.0, 1.0, "share of Gymnasium's random push at the start that is kept", ("demo",)
    )
}


def _unit(default: float) -> dict[str, Option]:
    text = "length of the track that is rewarded"
    return {"unit": Option(default, 0.01, 1000.0, text, rewards=("sparse", "beyond"))}


SPECS: dict[str, EnvSpec] = {
    entry.name: entry
    for entry in (
        EnvSpec(
            name="LunarLander",
            gym_id="LunarLander-v3",
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            noop=0,
            default_demonstrator="controller",
            references={
                "standard": Reference(-187.0, 0.0, 243.3, 0.828),
                "demo": Reference(-161.5, 0.0, 236.7, 0.999),
                "shifted": Reference(-205.0, 0.0, 169.4, 0.904),
                "tilt_out": Reference(-240.3, 0.0, 241.7, 0.737),
                "ground": Reference(-133.3, 0.0, 74.1, 0.786),
                "spin": Reference(-473.8, 0.0, 170.2, 0.814),
                "out_fast": Reference(-182.4, 0.0, 212.3, 0.822),
            },
            description="land between the flags; 4 actions, 8 observations",
            wrap=_lunar_lander,
        ),
        EnvSpec(
            name="LunarLander6",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            noop=1,
            default_demonstrator="controller",
            references={
                "standard": Reference(-261.7, 0.0, 269.8, 0.941),
                "demo": Reference(-257.1, 0.0, 231.1, 0.953),
                "shifted": Reference(-222.5, 0.0, 134.4, 0.811),
                "tilt_out": Reference(-286.5, 0.0, 113.5, 0.446),
                "ground": Reference(-275.4, 0.0, 54.7, 0.773),
                "spin": Reference(-538.5, 0.0, 126.6, 0.755),
                "out_fast": Reference(-186.4, 0.0, 179.0, 0.768),
            },
            description="the same with the SQIL paper's 6 actions and 9 observations",
            wrap=_lunar_lander_6,
        ),
        EnvSpec(
            name="LunarLanderContinuous",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            default_demonstrator="controller",
            references={
                "standard": Reference(-211.0, 0.0, 284.1, 1.0),
                "demo": Reference(-177.7, 0.0, 240.4, 1.0),
                "shifted": Reference(-194.9, 0.0, 123.9, 0.709),
                "tilt_out": Reference(-272.2, 0.0, 139.0, 0.451),
                "ground": Reference(-168.9, 0.0, 46.5, 0.723),
                "spin": Reference(-516.4, 0.0, 151.8, 0.787),
                "out_fast": Reference(-169.2, 0.0, 173.3, 0.646),
            },
            description="the same with two engine throttles as actions",
            wrap=_lunar_lander,
        ),
        EnvSpec(
            name="CartPole",
            gym_id="CartPole-v1",
            sparse=Balanced,
            default_demonstrator="controller",
            references={
                "standard": Reference(22.9, None, 500.0, None),
            },
            description="balance a pole on a cart, up to 500 steps",
        ),
        EnvSpec(
            name="Acrobot",
            gym_id="Acrobot-v1",
            noop=1,
            references={
                "standard": Reference(-498.9, None, None, None),
            },
            description="swing a two-link arm above the bar, -1 per step, up to 500 steps",
        ),
        EnvSpec(
            name="MountainCar",
            gym_id="MountainCar-v0",
            sparse=Goal,
            noop=1,
            default_demonstrator="controller",
            references={
                "standard": Reference(-200.0, None, -119.2, None),
            },
            description="rock a weak car up a hill, -1 per step, up to 200 steps",
        ),
        EnvSpec(
            name="MountainCarContinuous",
            gym_id="MountainCarContinuous-v0",
            sparse=Goal,
            references={
                "standard": Reference(-33.2, None, None, None),
            },
            description="the same with a throttle: 100 at the goal, less what it cost; 999 steps",
        ),
        EnvSpec(
            name="Pendulum",
            gym_id="Pendulum-v1",
            references={
                "standard": Reference(-1236.2, None, None, None),
            },
            description="swing a pendulum up and keep it there; costs, 200 steps",
        ),
        EnvSpec(
            name="HalfCheetah",
            gym_id="HalfCheetah-v5",
            demo_episodes=10,
            option_rules=_unit(5.0),
            sparse=Progress,
            references={
                "standard": Reference(-283.4, None, None, None),
            },
            description="run on two legs in a plane; 6 actions, 17 observations; never ends early",
        ),
        EnvSpec(
            name="Hopper",
            gym_id="Hopper-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(17.5, None, None, None),
            },
            description="hop on one leg in a plane; 3 actions, 11 observations; ends with a fall",
        ),
        EnvSpec(
            name="Walker2d",
            gym_id="Walker2d-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(1.8, None, None, None),
            },
            description="walk on two legs in a plane; 6 actions, 17 observations; ends with a fall",
        ),
        EnvSpec(
            name="Ant",
            gym_id="Ant-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(-54.6, None, None, None),
            },
            description="walk on four legs; 8 actions, 105 observations; ends with a fall",
        ),
        EnvSpec(
            name="Humanoid",
            gym_id="Humanoid-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(113.5, None, None, None),
            },
            description="walk upright; 17 actions, 348 observations; ends with a fall",
        ),
        EnvSpec(
            name="Swimmer",
            gym_id="Swimmer-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(0.6, None, None, None),
            },
            description="swim with three links in a plane; 2 actions, 8 observations",
        ),
        EnvSpec(
            name="Reacher",
            gym_id="Reacher-v5",
            sparse=Reached,
            references={
                "standard": Reference(-42.9, None, None, None),
            },
            description="bring an arm's tip to a target; 2 actions, 10 observations, 50 steps",
        ),
        EnvSpec(
            name="InvertedDoublePendulum",
            gym_id="InvertedDoublePendulum-v5",
            sparse=Upright,
            references={
                "standard": Reference(47.3, None, None, None),
            },
            description="balance two poles on a cart; 1 action, 9 observations; ends with a fall",
        ),
    )
}
