"""Environments by name: what is known about one, what is wrong with a config, and the thing itself.

Besides the short names of the catalogue any Gymnasium id works whose spaces `Adapter` can bring to
the form that learners know.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import math
import re
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.envs import atari, headless, lean, packages
from rlfd.envs.absent import PREFIX, Absent, is_playable
from rlfd.envs.adapter import Adapter, stacked_frames
from rlfd.envs.catalogue import SPECS
from rlfd.envs.guest import Guest
from rlfd.envs.imports import import_package
from rlfd.envs.recorded import PREFIX as RECORDED
from rlfd.envs.recorded import is_recorded, make_recorded, specification
from rlfd.envs.rewards import Beyond, Delayed
from rlfd.envs.specs import LIMIT, EnvConfig, Environment, EnvSpec, Json, Option
from rlfd.envs.tabular import Table
from rlfd.errors import RlfdError, told, unknown_name

__all__ = [
    "adapter",
    "check",
    "elsewhere",
    "frame_stack",
    "gymnasium_spec",
    "learner_rewards",
    "make",
    "names",
    "noop",
    "own_spaces",
    "spec",
    "table",
]

LIST_HINT = "list them with 'rlfd list envs'"


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
    if is_recorded(name):
        gym_id = name.removeprefix(RECORDED)
        return EnvSpec(name=name, gym_id=gym_id, description="as demonstrations describe it")
    package, _, gym_id = name.rpartition(":")
    if package:
        import_package(package, name)
    if gym_id not in gymnasium.registry:
        raise packages.unknown(name, [*SPECS], LIST_HINT)
    return EnvSpec(name=name, gym_id=gym_id, description="Gymnasium environment, as it is")


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
    _check_form(config)
    if config.name not in SPECS:
        return dataclasses.replace(config, options=_plain_json(config))
    options: dict[str, Json] = {
        name: rule.default for name, rule in known.option_rules.items() if rule.belongs_to(config)
    }
    for name, value in config.options.items():
        rule = known.option_rules.get(name)
        if rule is None:
            having = [other for other, entry in SPECS.items() if name in entry.option_rules]
            hints = [] if known.option_rules else [f"{config.name} has no options"]
            hints += [f"environments that have it: {shortened(having)}"] if having else []
            hint = "; ".join(hints)
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
    if not known.delayed:
        raise RlfdError(f"{known.name} has no reward '{reward}', it has the dense one alone")
    if reward == "delay-1":
        raise RlfdError("reward 'delay-1' is the dense one, expected a delay of at least 2 steps")


def _check_form(config: EnvConfig) -> None:
    given = [
        option
        for option, value in (
            ("--action-range", config.action_range),
            ("--frame-stack", config.frame_stack),
        )
        if value
    ]
    if given and config.name in SPECS:
        raise RlfdError(
            f"{' and '.join(given)} are for Gymnasium ids, '{config.name}' is made ready as it is",
            "leave them out, see its options with 'rlfd list envs'",
        )
    if config.frame_stack < 0:
        raise RlfdError(
            f"a stack of {config.frame_stack} frames was asked for, expected at least 1"
        )
    if config.action_range is not None:
        low, high = config.action_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RlfdError(f"no action is from {low:g} to {high:g}, expected LOW below HIGH")


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


def shortened(texts: list[str], most: int = 12) -> str:
    """Return a list for people, without its end where it is long."""
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def _in_range(what: str, value: Json, rule: Option) -> float | str:
    if rule.choices:
        if not isinstance(value, str) or value not in rule.choices:
            raise RlfdError(f"{what} must be one of {', '.join(rule.choices)}, not {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RlfdError(f"{what} must be a number, not {value!r}")
    if not math.isfinite(value) or not rule.low <= value <= rule.high:
        raise RlfdError(f"{what} must be from {rule.low:g} to {rule.high:g}, not {value!r}")
    if not rule.whole:
        return float(value)
    if value != int(value):
        raise RlfdError(f"{what} must be a whole number, not {value!r}")
    return int(value)


def _plain_json(config: EnvConfig) -> dict[str, Json]:
    try:
        options: dict[str, Json] = json.loads(json.dumps(dict(config.options), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RlfdError(f"options of {config.name} must be plain JSON values: {error}") from error
    return options


def table(config: EnvConfig) -> Table | None:
    """Return the table of a finite environment that is known; None for every other one.

    Raises:
        RlfdError: If the config is wrong.
    """
    config = check(config)
    make_table = spec(config.name).table
    return None if make_table is None else make_table(**config.options)


def frame_stack(config: EnvConfig) -> int:
    """Return how many frames an observation is made of; 0 where it is none of frames."""
    if config.name not in SPECS:
        return adapter(config).frame_stack
    in_colours = check(config).options.get("colour") == "rgb"
    return 1 if in_colours else spec(config.name).frame_stack


def adapter(config: EnvConfig) -> Adapter:
    """Return what stands between an environment's spaces and those that `make` shows.

    Datasets hold what the environment itself takes and returns; of stacks that this tool makes
    single frames.

    Raises:
        RlfdError: If the environment cannot be made, or no learner can do with its spaces.
    """
    return _adapter(json.dumps(check(config).to_json()))


def own_spaces(config: EnvConfig) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return an environment's own spaces, whatever learners can do with them.

    Raises:
        RlfdError: If it cannot be made.
    """
    with contextlib.closing(_native(check(config), None)) as env:
        return env.observation_space, env.action_space


@functools.lru_cache(maxsize=64)  # emulators take a quarter of a second to make
def _adapter(text: str) -> Adapter:
    config = EnvConfig.from_json(json.loads(text))
    with contextlib.closing(_native(config, None)) as env:
        made = _adapter_of(env, config)
        stack = frame_stack(config) if config.name in SPECS else 0
        if stack <= 1:
            return made
        seen = env.observation_space
        assert isinstance(seen, spaces.Box)
        one = spaces.Box(seen.low[-1], seen.high[-1], dtype=np.uint8)
        return Adapter(_called(config), one, env.action_space, frame_stack=stack)


def _adapter_of(env: Environment, config: EnvConfig) -> Adapter:
    return Adapter(
        _called(config),
        env.observation_space,
        env.action_space,
        action_range=config.action_range,
        frame_stack=config.frame_stack,
        stacked=stacked_frames(env),
    )


def _called(config: EnvConfig) -> str:
    if is_playable(config.name):
        return f"environment '{config.name}'"
    return f"the environment of demonstrations '{config.name.removeprefix(PREFIX)}'"


def noop(config: EnvConfig) -> int | tuple[int, ...] | None:
    """Return the action that does nothing, if there is one."""
    joystick = check(config).options.get("actions") == "joystick"
    return atari.NO_BUTTONS if joystick else spec(config.name).noop


def learner_rewards(config: EnvConfig, rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what a learner is paid for the environment's rewards: their signs where it says so."""
    return np.sign(rewards) if config.options.get("clip_rewards") else rewards


def make(config: EnvConfig, *, render_mode: str | None = None) -> Environment:
    """Make one environment.

    At the last step of an episode of an environment with a success test, `info` holds the flags
    ``success`` and ``landed``.

    Raises:
        RlfdError: If the config is wrong, a package is missing, or the spaces do not suit.
    """
    config = check(config)
    known = spec(config.name)
    if known.build is not None:
        return known.build(config, render_mode)
    env = _native(config, render_mode)
    if config.name not in SPECS:
        env = _adapter_of(env, config).wrap(env)
    return _with_reward(env, config, known)


def _native(config: EnvConfig, render_mode: str | None) -> Environment:
    """Make an environment as it is."""
    if not is_playable(config.name):
        return Absent(config.name, config.options)
    known = spec(config.name)
    if known.build is not None:
        return known.build(config, render_mode)
    env = _made(config, known, render_mode)
    if known.wrap is not None:
        env = known.wrap(env, config)
    return env if config.name in SPECS else Guest(env, config.name)


def _made(config: EnvConfig, known: EnvSpec, render_mode: str | None) -> Environment:
    """Let Gymnasium make an environment."""
    given = gymnasium_spec(config)
    headless.prepare()
    try:
        if "mujoco" in str(given.entry_point):
            with contextlib.suppress(ImportError):  # Gymnasium says what is missing
                headless.prepare_mujoco()
        if is_recorded(config.name):
            return make_recorded(config, render_mode)
        kwargs = _arguments(config, known)
        if render_mode is not None:  # there are environments that do not know the argument
            kwargs["render_mode"] = render_mode
        env = gymnasium.make(known.gym_id, disable_env_checker=True, **kwargs)
    except RlfdError:
        raise
    except gymnasium.error.DependencyNotInstalled as error:
        raise RlfdError(f"environment '{config.name}' needs a package: {error}") from error
    except (Exception, SystemExit) as error:
        raise _cannot_be_made(config, error, render_mode) from error
    if not kwargs.keys() - {"render_mode"}:
        lean.quicken(env)
    return env


def _arguments(config: EnvConfig, known: EnvSpec) -> dict[str, Json]:
    own = config.options if config.name not in SPECS or known.table is not None else {}
    return {**known.kwargs, **own}


def gymnasium_spec(config: EnvConfig) -> gymnasium.envs.registration.EnvSpec:
    """Return how Gymnasium makes the environment inside, with its arguments.

    Raises:
        RlfdError: If there is none.
    """
    if is_recorded(config.name):
        return specification(config)
    known = spec(config.name)
    made = copy.deepcopy(gymnasium.spec(known.gym_id))
    made.kwargs.update(_arguments(config, known))
    made.max_episode_steps = made.kwargs.pop(LIMIT, made.max_episode_steps)
    return made


def _cannot_be_made(config: EnvConfig, error: BaseException, render_mode: str | None) -> RlfdError:
    if render_mode is not None and isinstance(error, TypeError) and "render_mode" in str(error):
        return RlfdError(
            f"environment '{config.name}' cannot be drawn: its class takes no render_mode",
            "give its __init__ a render_mode=None, and let render() return a picture",
        )
    message = f"environment '{config.name.removeprefix(RECORDED)}' cannot be made: {told(error)}"
    if is_recorded(config.name):
        return RlfdError(message, "it was made as its demonstrations describe it")
    given = f"with options {dict(config.options)}" if config.options else "without options"
    drawn = "" if render_mode is None else f", render_mode '{render_mode}'"
    return RlfdError(message, f"it was made {given}{drawn}")


def _with_reward(env: Environment, config: EnvConfig, known: EnvSpec) -> Environment:
    kind, _, steps = config.reward.partition("-")
    if kind == "dense":
        return env
    if kind == "delay":
        return Delayed(env, int(steps))
    rule: Any = Beyond if kind == "beyond" else known.sparse
    made: Environment = rule(env, **config.options)  # the rule's own are the only options
    return made
