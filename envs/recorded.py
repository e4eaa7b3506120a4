"""Environments as a dataset describes its own: a Gymnasium specification, with wrappers and limit.

Minari's `recover_environment()` makes them so. Where that is what `gymnasium.make` makes of the id,
the environment is an ordinary one; else its name is ``recorded:`` and the id, and its options hold
the specification, so that a run's configuration says all of it. How it was drawn is left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from rlfd.envs.imports import import_package, note_file
from rlfd.envs.specs import LIMIT, EnvConfig, Environment, Json
from rlfd.errors import RlfdError
from rlfd.jsons import Form, parse_json

__all__ = [
    "PREFIX",
    "evaluated",
    "from_specification",
    "is_recorded",
    "make_recorded",
    "read_specification",
    "specification",
    "told",
    "with_options",
    "wrappers",
]

PREFIX = "recorded:"
SPEC, EVALUATION = "spec", "evaluation"  # options

SPEC_FORM: Form = {
    "id": str,
    "entry_point": (str, type(None)),
    "max_episode_steps": (int, type(None)),
    "kwargs": ({}, type(None)),
    "additional_wrappers": (
        [{"name": str, "entry_point": str, "kwargs": ({}, type(None))}],
        type(None),
    ),
}

_WATCHING = {"HumanRendering", "RecordEpisodeStatistics", "RecordVideo", "RenderCollection"}
"""Wrappers that change nothing of what is seen, done or paid."""
_WITH_STATISTICS = {"NormalizeObservation", "NormalizeReward"}
_FIELDS = {field.name for field in dataclasses.fields(EnvSpec) if field.init}


def is_recorded(name: str) -> bool:
    """Whether this is the name of an environment that a dataset described."""
    return name.startswith(PREFIX)


def read_specification(text: str) -> dict[str, Json]:
    """Return what a dataset says of its environment, without how that was drawn.

    Fields that Gymnasium does not have any more are left out.

    Raises:
        ValueError: If it is no specification.
    """
    parsed = parse_json(text, SPEC_FORM)
    spec = {key: value for key, value in parsed.items() if key in _FIELDS}
    spec["kwargs"] = dict(spec.get("kwargs") or {})
    spec["kwargs"].pop("render_mode", None)
    spec["additional_wrappers"] = [
        one for one in spec.get("additional_wrappers") or () if one["name"] not in _WATCHING
    ]
    if not isinstance(spec.get("id"), str):
        raise ValueError("the environment has no id")
    return spec


def wrappers(spec: Mapping[str, Json]) -> list[str]:
    """Return the names of the wrappers of a specification, the inner ones first."""
    return [one["name"] for one in spec.get("additional_wrappers") or ()]


def from_specification(
    spec: Mapping[str, Json], evaluation: Mapping[str, Json] | None = None
) -> EnvConfig:
    """Return the environment that a specification describes.

    Args:
        spec: What `read_specification` returned.
        evaluation: Of the environment to be evaluated in, if that is another one.

    Raises:
        RlfdError: If it cannot be made as it was.
    """
    for one in (spec, evaluation or {}):
        _refuse_statistics(one)
    if evaluation in (None, spec):
        name = _registered(spec)
        if name is not None:
            return EnvConfig(name, options=spec["kwargs"])
    options = {SPEC: dict(spec)}
    if evaluation not in (None, spec):
        options[EVALUATION] = dict(evaluation or {})
    return EnvConfig(PREFIX + spec["id"], options=options)


def _registered(spec: Mapping[str, Json]) -> str | None:
    """Return the name by which Gymnasium makes the same; None if there is none."""
    if spec["additional_wrappers"]:
        return None
    name, place = spec["id"], spec.get("entry_point")
    package, _, gym_id = name.rpartition(":")
    package = package or _package(place)
    if gym_id not in gymnasium.registry and package:
        _import(package, name)
        name = f"{package}:{gym_id}"
    known = gymnasium.registry.get(gym_id)
    if known is None:
        return None
    theirs = _package(known.entry_point)
    same = place in (None, known.entry_point) or (
        {package.partition(".")[0], theirs.partition(".")[0]} == {"gymnasium"}  # it has moved
    )
    limit = spec.get(LIMIT, known.max_episode_steps)
    return name if same and known.max_episode_steps == limit else None


def _package(entry_point: Any) -> str:
    return entry_point.partition(":")[0] if isinstance(entry_point, str) else ""


def _refuse_statistics(spec: Mapping[str, Json]) -> None:
    found = [name for name in wrappers(spec) if name in _WITH_STATISTICS]
    if found:
        raise RlfdError(
            f"environment '{spec['id']}' was recorded through {' and '.join(found)}, whose "
            "statistics are not stored: one that is made anew shows other numbers",
            "learn from the data alone, with a method that does not interact",
        )
    unknown = [
        one["name"] for one in spec.get("additional_wrappers") or () if one["kwargs"] is None
    ]
    if unknown:
        raise RlfdError(
            f"environment '{spec['id']}' was recorded through {' and '.join(unknown)}, and with "
            "which arguments is not stored",
            "learn from the data alone, with a method that does not interact",
        )


def evaluated(config: EnvConfig) -> EnvConfig:
    """Return the environment to evaluate in: the same, unless its dataset named another one."""
    if not is_recorded(config.name) or EVALUATION not in config.options:
        return config
    return dataclasses.replace(config, options={SPEC: config.options[EVALUATION]})


def told(config: EnvConfig) -> str:
    """Return what a recorded environment has that its id does not say; empty for others."""
    if not is_recorded(config.name):
        return ""
    parts = []
    for key, where in ((SPEC, ""), (EVALUATION, "evaluated ")):
        if key in config.options:
            spec = config.options[key]
            names, limit = wrappers(spec), spec.get("max_episode_steps")
            through = f"through {', '.join(names)}" if names else "without a wrapper"
            steps = f"at most {limit} steps an episode" if limit else "no limit of steps"
            parts.append(f"{where}{through}, {steps}")
    return "; ".join(parts)


def with_options(config: EnvConfig, options: Mapping[str, Json]) -> EnvConfig:
    """Return an environment with more options: of a recorded one they are keyword arguments."""
    if options and is_recorded(config.name):
        others = {name: value for name, value in options.items() if name != LIMIT}
        limit = {LIMIT: options[LIMIT]} if LIMIT in options else {}
        changed = {
            key: {**spec, "kwargs": {**spec["kwargs"], **others}, **limit}
            for key, spec in config.options.items()
        }
        return dataclasses.replace(config, options=changed)
    return dataclasses.replace(config, options={**config.options, **options})


def specification(config: EnvConfig) -> EnvSpec:
    """Return the Gymnasium specification of a recorded environment.

    Raises:
        RlfdError: If its options hold none.
    """
    try:
        return EnvSpec.from_json(json.dumps(config.options[SPEC]))
    except (KeyError, TypeError, ValueError, AttributeError, gymnasium.error.Error) as error:
        raise RlfdError(
            f"'{config.name}' is known from demonstrations, and its specification was not given",
            "give --demos and leave --env out",
        ) from error


def make_recorded(config: EnvConfig, render_mode: str | None) -> Environment:
    """Make a recorded environment.

    Raises:
        RlfdError: If its package may not be imported. Whatever the environment raises.
    """
    spec = specification(config)
    places = [spec.entry_point, *(one.entry_point for one in spec.additional_wrappers)]
    for package in filter(None, map(_package, places)):
        _import(package, config.name)
    shown: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    return gymnasium.make(spec, disable_env_checker=True, **shown)


def _import(package: str, name: str) -> None:
    """Import what an environment or a wrapper is made by, if files may ask for it.

    Raises:
        RlfdError: If they may not, or it cannot be imported.
    """
    if package.partition(".")[0] != "gymnasium":
        note_file(name)  # a dataset named it, whoever typed the dataset's name
        import_package(package, name)
