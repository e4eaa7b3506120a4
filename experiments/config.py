"""The configuration of a run: defaults < environment < preset < file < command line; who set what.

`RunConfig` is what `config.json` holds; nothing else decides what a run computes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlfd import algorithms
from rlfd.algorithms.base import AlgorithmConfig
from rlfd.algorithms.presets import environment_defaults, preset_layers
from rlfd.envs import EnvConfig, check, frame_stack, is_playable, names, spec
from rlfd.errors import RlfdError, unknown_name
from rlfd.jsons import parse_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "RUN_FIELDS",
    "Resolved",
    "RunConfig",
    "check_budget",
    "check_device",
    "env_words",
    "is_strange",
    "preset_family",
    "resolve",
    "setting_text",
    "unit_of",
]

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes.

    Attributes:
        algo: Name in the registry.
        env: The environment with start and options.
        algorithm: The method's hyperparameters.
        seed: Root of every random stream of the run.
        steps: Budget in env steps; for methods that do not interact, in updates (0 = until they
            stop by themselves).
        num_envs: Environments stepped together.
        demos: Name of the demonstrations; None = none.
        num_demos: Episodes used of them (a seeded subset); None = all.
        init: Another run, ``RUN[:best|latest|STEP]``, whose policy this one starts from; None =
            random weights. Recorded with the step that was found.
        demonstrator: Who is asked, for a method that asks: ``controller``, ``shipped[:weak]``, a
            policy file, or ``RUN[:best|latest|STEP]``; None = the environment's default, or nobody.
            Recorded with the step that was found.
        reward_from: Another run, in the same way, whose learned reward this one is trained on; None
            = the environment's. What is reported stays the environment's.
        log_every: Budget units between rows of train.csv.
        eval_every: Budget units between evaluations; 0 = only at the end. Left out, a twentieth of
            `steps` where nothing is known of the environment.
        eval_episodes: Episodes of each of those evaluations, per policy.
        final_episodes: Episodes of the evaluations at the end, per policy; 0 = none.
        checkpoint_every: Budget units between checkpoints.
        device: Where learning happens: ``cpu`` or ``cuda``. ``auto``, what `resolve` takes when
            nothing is said, is a GPU for images where there is one, else ``cpu``.
        threads: Torch threads.
        compile: Whether updates are compiled.
        preset: Name of the preset the defaults came from.
        exp_name: Tells variants of one algorithm apart; part of the run's folder.
    """

    algo: str
    env: EnvConfig
    algorithm: AlgorithmConfig
    seed: int = 0
    steps: int = 100_000
    num_envs: int = 8
    demos: str | None = None
    num_demos: int | None = None
    init: str | None = None
    demonstrator: str | None = None
    reward_from: str | None = None
    log_every: int = 2_000
    eval_every: int = 10_000
    eval_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int = 50_000
    device: str = "cpu"
    threads: int = 1
    compile: Literal["auto", "on", "off"] = "auto"
    preset: str = "default"
    exp_name: str = "default"

    @property
    def unit(self) -> str:
        """What its steps are: ``env steps``, or ``updates`` of a method that makes none."""
        return unit_of(self.algo)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["env"] = self.env.to_json()
        values["algorithm"] = dataclasses.asdict(self.algorithm)
        plain: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **values}))
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str = "") -> RunConfig:
        """Read what `to_json` returned.

        Args:
            value: What it returned.
            source: The file that holds it, for messages.

        Raises:
            RlfdError: If a field is unknown or has the wrong type.
        """
        values = dict(value)
        _check_schema(values.pop("schema", None))
        for name in ("algo", "env", "algorithm"):
            if name not in values:
                raise RlfdError(f"the configuration has no '{name}'")
        for name in ("env", "algorithm"):
            _check_table(name, values[name])
        algo = algorithms.get(_convert("algo", values["algo"], str))
        env = EnvConfig.from_json(values.pop("env"), source)
        algorithm = algo.Config(**_typed(algo.Config, values.pop("algorithm")))
        config = cls(env=env, algorithm=algorithm, **_typed(cls, values))
        _check_ranges(config)
        return config


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for each field, which layer set it."""

    config: RunConfig
    provenance: dict[str, str]


RUN_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(RunConfig)
    if field.name not in ("algo", "env", "algorithm", "preset")
)
OFFLINE: dict[str, Any] = {  # defaults of the methods that do not interact
    "steps": 0,
    "num_envs": 1,
    "log_every": 1,
    "eval_every": 0,
    "checkpoint_every": 1_000,
}
LARGEST = 2**63
"""Of whole numbers, such as seeds."""
MAXIMUM = {"num_envs": 2**16, "eval_episodes": 10**6, "final_episodes": 10**6, "threads": 2**10}
STRANGE_EVALUATIONS = 20
"""How many evaluations a run has where nobody knows how long learning takes."""
MINIMUM = {
    "seed": 0,
    "steps": 0,
    "num_envs": 1,
    "num_demos": 1,
    "log_every": 1,
    "eval_every": 0,
    "eval_episodes": 1,
    "final_episodes": 0,
    "checkpoint_every": 1,
    "threads": 1,
}


def resolve(
    algo: str,
    env: EnvConfig,
    *,
    preset: str | None = None,
    config_file: Path | None = None,
    settings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Resolved:
    """Build a run's configuration from all layers, weakest first.

    Args:
        algo: Name of the algorithm.
        env: The environment.
        preset: Name of a preset; None = ``default``.
        config_file: JSON or TOML with tables ``run`` and ``algorithm``, or a run's config.json.
        settings: ``key=value`` for the algorithm's hyperparameters.
        options: Fields of `RunConfig` given on the command line.

    Raises:
        RlfdError: If a name is unknown, or a value has the wrong type or is out of range.
    """
    cls = algorithms.get(algo)
    env = check(env)
    run: dict[str, Any] = {}
    hyperparameters: dict[str, Any] = {}
    provenance = {name: "default" for name in RUN_FIELDS}
    provenance |= {f"algorithm.{f.name}": "default" for f in dataclasses.fields(cls.Config)}

    def apply(layer: str, run_part: Mapping[str, Any], algorithm_part: Mapping[str, Any]) -> None:
        _known("run setting", run_part, RUN_FIELDS, layer)
        _known(f"setting of {algo}", algorithm_part, _names(cls.Config), layer)
        run.update(run_part)
        hyperparameters.update(algorithm_part)
        provenance.update({name: layer for name in run_part})
        provenance.update({f"algorithm.{name}": layer for name in algorithm_part})

    family = preset_family(env)
    usual = environment_defaults(env.name, family)
    if not cls.needs.interaction:  # whose budget is another one
        usual = {name: value for name, value in usual.items() if name not in OFFLINE}
    apply(f"environment {env.name}", usual, {})
    for label, layer in preset_layers(algo, preset or "default", env.name, family):
        apply(label, layer.run, layer.algorithm)
    written: set[str] = set()
    if config_file is not None:
        run_part, algorithm_part, is_whole = _read_file(config_file, algo)
        apply(f"file {config_file}", run_part, algorithm_part)
        written = set() if is_whole else set(algorithm_part)
    given = dict(_split(setting) for setting in settings)
    _known(f"setting of {algo}", given, _names(cls.Config), "--set")
    apply("--set", {}, {name: _parse(cls.Config, name, text) for name, text in given.items()})
    apply("command line", options or {}, {})

    algorithm = cls.Config(**_typed(cls.Config, hyperparameters))
    for name, reader in algorithm.unread().items():
        if name in given or name in written:
            raise RlfdError(
                f"setting '{name}' of {algo} has no effect here, {reader} reads it",
                f"leave it out, or add --set {reader}",
            )
    typed = _typed(RunConfig, run)
    if typed.get("device", "auto") == "auto":
        typed["device"] = _usual_device(env)
    if not cls.needs.interaction:
        typed = OFFLINE | typed
    elif provenance["eval_every"] == "default" and is_strange(env):
        typed["eval_every"] = max(1, typed.get("steps", RunConfig.steps) // STRANGE_EVALUATIONS)
        provenance["eval_every"] = "share of steps"
    if not is_playable(env.name):
        _no_evaluation(typed, provenance)
    config = RunConfig(algo=algo, env=env, algorithm=algorithm, preset=preset or "default", **typed)
    _check_run(config, cls.needs.interaction)
    return Resolved(config, provenance)


def unit_of(algo: str) -> str:
    """Return what a method's budget and its checkpoints are counted in."""
    return "env steps" if algorithms.get(algo).needs.interaction else "updates"


def is_strange(env: EnvConfig) -> bool:
    """Whether nothing is known of an environment, not even how long learning takes there."""
    return env.name not in names() and preset_family(env) is None


def preset_family(env: EnvConfig) -> str | None:
    """Return what presets call the kind of environment that this one is; None for most."""
    gym_id = spec(env.name).gym_id
    if gym_id == "CarRacing-v3" and env.name != gym_id:  # all sets of actions
        return "CarRacing"
    return "Atari" if gym_id.startswith("ALE/") else None


def _no_evaluation(run: dict[str, Any], provenance: dict[str, str]) -> None:
    """Switch evaluations off; refuse those that were asked for."""
    for name in ("eval_every", "final_episodes"):
        given = provenance[name] == "command line" or provenance[name].startswith("file ")
        if given and run[name]:
            raise RlfdError(
                f"'{name}' is {run[name]}, but the environment of the demonstrations cannot be "
                "made here, so nothing can be evaluated",
                "leave it out, or install the simulator",
            )
        run[name], provenance[name] = 0, "environment"


def _check_run(config: RunConfig, interaction: bool) -> None:
    _check_ranges(config)
    if interaction and config.steps == 0:
        raise RlfdError("'steps' is 0, expected at least 1", "give a budget with --steps")
    check_device(config.device)
    bad = [c for c in config.exp_name if not (c.isalnum() or c in "-_.=,+")]
    if bad or config.exp_name in ("", ".", ".."):
        raise RlfdError(
            f"experiment name '{config.exp_name}' is used as a folder, "
            "expected letters, digits and -_.=,+"
        )


def _check_ranges(config: RunConfig) -> None:
    for limits, sign, words in ((MINIMUM, 1, "at least"), (MAXIMUM, -1, "at most")):
        for name, limit in limits.items():
            value = getattr(config, name)
            if value is not None and sign * value < sign * limit:
                raise RlfdError(f"'{name}' is {value}, expected {words} {limit}")


def check_budget(config: RunConfig) -> None:
    """Refuse a budget that ends before the first update.

    Raises:
        RlfdError: If so; says what would be enough.
    """
    wait = config.algorithm.wait()
    if wait is None:
        return
    enough = wait.env_steps + wait.after
    env_steps = -(-config.steps // config.num_envs) * config.num_envs
    if env_steps >= enough:
        return
    hint = f"give --steps {enough} or more"
    if (longest := env_steps - wait.after) >= 0:
        hint += f", or --set {wait.setting}={longest} or less"
    raise RlfdError(
        f"a budget of {config.steps:,} env steps ends before the first update of '{config.algo}', "
        f"which comes after {enough:,} ({wait.setting}: {wait.env_steps:,})",
        hint,
    )


def _usual_device(env: EnvConfig) -> str:
    """Return ``cuda`` for images where there is a GPU.

    Others learn in bearable time without one, and so the same on every machine.
    """
    if frame_stack(env) == 0:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Refuse a device that is not known or not there.

    Raises:
        RlfdError: If so.
    """
    if device in ("auto", "cpu"):
        return
    import torch

    if device.split(":")[0] != "cuda":
        raise RlfdError(f"unknown device '{device}', expected auto, cpu or cuda")
    if not torch.cuda.is_available():
        raise RlfdError("no CUDA device was found", "use --device cpu")


def _read_file(path: Path, algo: str) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return the parts for the run and for the algorithm, and whether they are those of a run."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RlfdError(f"cannot read configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise RlfdError(f"configuration {path} is not text: {error}") from error
    kind = "TOML" if path.suffix == ".toml" else "JSON"
    try:
        value = tomllib.loads(text) if kind == "TOML" else parse_json(text)
    except (ValueError, RecursionError) as error:
        raise RlfdError(f"configuration {path} is not valid {kind}: {error}") from error
    if not isinstance(value, dict):
        raise RlfdError(f"configuration {path} holds no table, expected 'run' and 'algorithm'")
    if "schema" in value:  # a run's own config.json
        _check_schema(value["schema"])
        if value.get("algo") != algo:
            raise RlfdError(f"configuration {path} is for '{value.get('algo')}', not for '{algo}'")
        ignored = ("algo", "env", "algorithm", "preset", "schema", "provenance")
        run = {name: item for name, item in value.items() if name not in ignored}
    else:
        extra = set(value) - {"run", "algorithm"}
        if extra:
            raise unknown_name("table", min(extra), ["run", "algorithm"], f"in {path}")
        run = value.get("run", {})
    algorithm = value.get("algorithm", {})
    _check_table("run", run)
    _check_table("algorithm", algorithm)
    return run, algorithm, "schema" in value


def _check_schema(schema: Any) -> None:
    if schema != SCHEMA:
        raise RlfdError(
            f"this configuration has schema {schema}, expected {SCHEMA}",
            "it was written by another version of rlfd",
        )


def _check_table(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise RlfdError(f"'{name}' is '{value}' in the configuration, expected a table")


def _names(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _known(kind: str, given: Mapping[str, Any], known: Sequence[str], layer: str) -> None:
    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known, f"given by {layer}")


def _split(setting: str) -> tuple[str, str]:
    name, separator, text = setting.partition("=")
    if not separator or not name:
        raise RlfdError(f"setting '{setting}' is not of the form key=value")
    return name.strip(), text.strip()


def _parse(cls: type[Any], name: str, text: str) -> Any:
    """Read a value from the command line by the field's type. No code is evaluated."""
    hint = get_type_hints(cls)[name]
    if hint is str or get_origin(hint) is Literal:
        return text
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise _wrong_type(name, "true or false", text)
        return words[text.lower()]
    if get_origin(hint) is tuple:
        parts = [part for part in text.strip("()[]").split(",") if part.strip()]
        return [_number(name, part, int) for part in parts]
    return _number(name, text, hint)


def setting_text(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    if isinstance(value, list | tuple):
        return ",".join(map(setting_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def env_words(env: EnvConfig, *, usual_start: str) -> list[str]:
    """Return the options that name an environment to a command that has a start of its own."""
    words = ["--env", env.name]
    if env.start != usual_start:
        words += ["--start", env.start]
    if env.reward != "dense":
        words += ["--reward", env.reward]
    for name, value in env.options.items():
        words += ["--env-option", f"{name}={setting_text(value)}"]
    return words


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise _wrong_type(name, expected, text) from None
    if kind is int and not value.is_integer():
        raise _wrong_type(name, "a whole number", text)
    return _usable(name, int(value) if kind is int else value)


def _usable(name: str, value: int | float) -> int | float:
    """Refuse numbers that nothing can be counted or computed with."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_type(name, "a finite number", value)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise RlfdError(f"setting '{name}' is too large, expected at most {LARGEST:.0e}")
    return value


def _typed(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check values (from JSON, TOML or Python) against a dataclass's types; ints pass as floats."""
    hints = get_type_hints(cls)
    _known("setting", values, list(hints), "the configuration")
    return {name: _convert(name, value, hints[name]) for name, value in values.items()}


def _convert(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise _wrong_type(name, f"one of {choices}", value)
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong_type(name, "a list of whole numbers", value)
        return tuple(_convert(name, item, int) for item in value)
    if hint is float and type(value) is int:
        return float(_usable(name, value))
    if hint in (int, float, str, bool) and type(value) is not hint:
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise _wrong_type(name, words[hint], value)
    return _usable(name, value) if hint in (int, float) else value


def _wrong_type(name: str, expected: str, value: Any) -> RlfdError:
    return RlfdError(f"setting '{name}' is '{value}', expected {expected}")
