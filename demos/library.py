"""Finding and loading demonstrations for an environment."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from rlfd.demos.dataset import DemoInfo, Demonstrations
from rlfd.demos.foreign import told_apart
from rlfd.demos.report import START_MARGIN, shifted_start_overlap
from rlfd.demos.storage import (
    VERSIONED,
    demos_folder,
    is_dataset,
    read_demonstrations,
    read_info,
    read_spaces,
    scan,
    space_difference,
)
from rlfd.envs import (
    LIMIT,
    EnvConfig,
    Option,
    adapter,
    check,
    evaluated,
    gymnasium_spec,
    is_playable,
    is_recorded,
    names,
    spec,
)
from rlfd.envs.absent import PREFIX, spaces_as_options
from rlfd.envs.recorded import from_specification, wrappers
from rlfd.errors import RlfdError, unknown_name

__all__ = [
    "absent_env",
    "describe",
    "difference",
    "find",
    "list_all",
    "load",
    "read",
    "recorded_env",
    "reference",
]

logger = logging.getLogger("rlfd.demos")

WRAPPER = "the wrapper"


def list_all(data_dir: Path) -> list[DemoInfo]:
    """Return every readable dataset under `data_dir`, newest first; others are warned about."""
    found = []
    for path in scan(demos_folder(data_dir)):
        try:
            found.append(read_info(path))
        except RlfdError as error:
            logger.warning("%s", error)
    return sorted(found, key=_age, reverse=True)


def _age(info: DemoInfo) -> tuple[str, int]:
    match = VERSIONED.fullmatch(info.name)
    return info.created, int(match["version"]) if match else 0


def find(env: EnvConfig, data_dir: Path, *, same_reward: bool = False) -> list[DemoInfo]:
    """Return the datasets that suit a run on `env`, the one to take by default first.

    Those from the environment's demonstration start with its default options come first, whatever
    start the run has, since demonstrations are to come from there; then those with the run's
    reward; among equals the newest one.

    Args:
        env: The run's environment.
        data_dir: Where this tool keeps its data.
        same_reward: Leave out demonstrations of another reward.
    """
    env = check(env)
    found = list_all(data_dir)
    suitable = [info for info in found if difference(info, env, same_reward) is None]
    if env.start == "shifted":
        suitable = [info for info in suitable if not _shows_shifted(info)]
    usual = EnvConfig(env.name, spec(env.name).demo_start)

    def distance(info: DemoInfo) -> tuple[bool, bool, bool]:
        made = info.env
        if made is None:
            return True, True, True
        return (
            made.start != usual.start,
            _options(made, reward=False) != _options(usual, reward=False),
            made.reward != env.reward,
        )

    return sorted(suitable, key=distance)  # sorting is stable: the newest stay first


def load(
    name_or_path: str | Path,
    *,
    env: EnvConfig,
    data_dir: Path,
    allow_overlap: bool = False,
    same_reward: bool = False,
) -> Demonstrations:
    """Load demonstrations for a run on `env`, and check that they belong to it.

    The start may differ: demonstrations from ``demo`` serve a run on ``shifted``. So may the
    reward, unless a method looks at it. Everything else, and the options that both share, must be
    the same.

    Args:
        name_or_path: A name collected for this environment, with or without ``-vN`` (the newest
            version then), a full id, a folder, or an id in the user's own Minari folder.
        env: The run's environment.
        data_dir: Where this tool keeps its data.
        allow_overlap: Take demonstrations that visit the shifted start, too. Without it they are
            refused for a run from there, because the experiment would show nothing.
        same_reward: Refuse demonstrations of another reward than the run's.

    Raises:
        RlfdError: If they are unknown, damaged, or made for something else.
    """
    env = check(env)
    path = _locate(str(name_or_path), Path(data_dir), env, same_reward)
    info = read_info(path)
    _refuse_difference(info, env, same_reward)
    demos = read_demonstrations(path, env)
    limits = _other_limit(info, env)
    if limits:
        demos = replace(demos, remarks=(*demos.remarks, limits))
    # labels are there to cover what demonstrations do not
    if env.start == "shifted" and not (allow_overlap or info.are_labels):
        _refuse_overlap(demos)
        _refuse_shifted(info)
    return demos


def read(name_or_path: str | Path, *, data_dir: Path) -> Demonstrations:
    """Load demonstrations for looking at them, whatever they were made for.

    Raises:
        RlfdError: If they are unknown or damaged.
    """
    return read_demonstrations(_locate(str(name_or_path), Path(data_dir), None))


def describe(name_or_path: str | Path, *, data_dir: Path) -> DemoInfo:
    """Return what a dataset says about itself, without reading its arrays.

    Raises:
        RlfdError: If it is unknown or damaged.
    """
    return read_info(_locate(str(name_or_path), Path(data_dir), None))


def reference(info: DemoInfo, data_dir: Path) -> str:
    """Return how a run names a dataset: by its id, or by its folder if that lies elsewhere."""
    try:
        found = _locate(info.id, Path(data_dir), None)
    except RlfdError:
        return str(info.path.resolve())
    same = found.resolve() in (info.path.resolve(), info.path.resolve().parent)
    return info.id if same else str(info.path.resolve())


def _locate(text: str, data_dir: Path, env: EnvConfig | None, same_reward: bool = False) -> Path:
    """Return the folder that `text` means; a name that suits `env` is meant before others."""
    if is_dataset(Path(text)):
        return Path(text)
    root = demos_folder(data_dir)
    own = list_all(data_dir)
    suitable = find(env, data_dir, same_reward=same_reward) if env is not None else []
    meant = [info for info in [*suitable, *own] if text in _spellings(info.id)]
    if meant:  # a clock that was wrong makes no version older
        same = [info for info in meant if _base(info.id) == _base(meant[0].id)]
        return max(same, key=lambda info: _age(info)[1]).path
    for path in scan(root):  # what is there but cannot be read: the reader will say why
        if text in _spellings(path.relative_to(root).as_posix()):
            return path
    if text and is_dataset(_minari_root() / text):
        return _minari_root() / text
    for place in (Path(text), _minari_root() / text) if text else ():
        other = told_apart(place)
        if other is not None:
            raise other
    if not own:
        name = env.name if env is not None else "ENV"
        raise RlfdError(
            f"no demonstrations '{text}' under {root}",
            f"collect some with 'rlfd collect-demos --env {name}'",
        )
    known = {spelling for info in suitable or own for spelling in _spellings(info.id)}
    raise unknown_name("demonstrations", text, sorted(known), "list them with 'rlfd list demos'")


def _spellings(identity: str) -> list[str]:
    """Return every text that means this dataset, given that newer ones are asked first."""
    texts = [identity, identity.rsplit("/", 1)[-1]]
    return texts + [match["name"] for text in texts if (match := VERSIONED.fullmatch(text))]


def _base(identity: str) -> str:
    """Return an id without its version."""
    return match["name"] if (match := VERSIONED.fullmatch(identity)) else identity


def _minari_root() -> Path:
    """Return the folder where Minari keeps what the user downloaded."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def difference(info: DemoInfo, env: EnvConfig, same_reward: bool) -> tuple[str, Any, Any] | None:
    """Return the first field that differs as (field, demonstrations' value, run's value)."""
    if env.name == PREFIX + info.id:
        return None
    known = spec(env.name)
    if info.gym_id is not None and info.gym_id != known.gym_id:
        return "environment", info.env.name if info.env else info.gym_id, env.name
    if info.env is None:
        return _other_wrappers(info, env) or _other_arguments(info, env)
    try:
        made = check(info.env)
    except RlfdError:
        return "environment", info.env.name, env.name
    both_ours = {made.name, env.name} <= set(names())
    same_kwargs = dict(spec(made.name).kwargs) == dict(known.kwargs)
    if made.name != env.name and (both_ours or not same_kwargs):
        return "environment", made.name, env.name
    if same_reward and made.reward != env.reward:
        return "reward", made.reward, env.reward
    same_start = made.start == env.start
    theirs, ours = (_options(config, reward=same_reward) for config in (made, env))
    for key in sorted({*theirs, *ours}):
        both = key in theirs and key in ours
        if (both or same_start) and theirs.get(key) != ours.get(key):
            return f"option '{key}'", theirs.get(key), ours.get(key)
    return None


def _other_wrappers(info: DemoInfo, env: EnvConfig) -> tuple[str, Any, Any] | None:
    """Compare the wrappers that foreign data say they were recorded through."""
    if info.env_spec is None:
        return None
    theirs = wrappers(info.env_spec)
    ours = [one.name for one in gymnasium_spec(env).additional_wrappers]
    if theirs == ours:
        return None
    return WRAPPER, ", ".join(theirs) or "none", ", ".join(ours) or "none"


def _other_arguments(info: DemoInfo, env: EnvConfig) -> tuple[str, Any, Any] | None:
    """Compare the keyword arguments that foreign data say their environment was made with."""
    if info.env_spec is None:
        return None
    theirs, made = info.env_spec["kwargs"], gymnasium_spec(env)
    others = [key for key, value in theirs.items() if made.kwargs.get(key) != value]
    recorded = is_recorded(env.name)  # nothing is imported for one before it is made
    usual = made.kwargs if recorded or not others else _usual_arguments(made)
    for key in others:
        if key in usual and usual[key] != theirs[key]:
            return f"argument '{key}'", theirs[key], usual[key]
    return None


def _other_limit(info: DemoInfo, env: EnvConfig) -> str:
    """Return a sentence where foreign data were recorded with another time limit; empty if not."""
    if info.env_spec is None or not is_playable(env.name):
        return ""
    theirs, ours = info.env_spec.get("max_episode_steps"), gymnasium_spec(env).max_episode_steps
    if theirs == ours:
        return ""
    told = [f"at most {limit} steps" if limit else "no limit" for limit in (theirs, ours)]
    return f"episodes were recorded with {told[0]}, '{env.name}' has {told[1]}"


def _usual_arguments(made: EnvSpec) -> dict[str, Any]:
    """Return all keyword arguments of a Gymnasium environment, also those that nobody gave."""
    entry = made.entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    declared = inspect.signature(creator).parameters.values() if creator is not None else ()
    defaults = {one.name: one.default for one in declared if one.default is not one.empty}
    return defaults | made.kwargs


def _options(env: EnvConfig, *, reward: bool) -> dict[str, Any]:
    """Return the options that matter to demonstrations; with those of the reward, or without."""
    rules = spec(env.name).option_rules
    options = check(env).options.items()
    return {
        key: value for key, value in options if key != LIMIT and _matters(rules.get(key), reward)
    }


def _matters(rule: Option | None, reward: bool) -> bool:
    return rule is None or (rule.in_demos and (reward or not rule.rewards))


def _refuse_difference(info: DemoInfo, env: EnvConfig, same_reward: bool) -> None:
    found = difference(info, env, same_reward)
    if found is not None:
        field, theirs, ours = found
        hint = f"collect some with 'rlfd collect-demos --env {env.name}' and the start and options "
        hint += "of this run, or name others with --demos"
        if field == WRAPPER:
            hint = "leave --env out, and the environment is made as they describe it"
        raise RlfdError(
            f"demonstrations '{info.id}' do not fit the run: {field} is {theirs!r} there, "
            f"expected {ours!r}",
            hint,
        )


def recorded_env(info: DemoInfo, form: Mapping[str, Any] | None = None) -> EnvConfig:
    """Return the environment that a dataset comes from, as it says itself.

    Foreign data describe a Gymnasium environment; a short name that stands for it is taken, so that
    the reference scores are known.

    Args:
        info: The dataset.
        form: How it is to be seen, where that differs from the dataset's: `action_range` or
            `frame_stack`.

    Raises:
        RlfdError: If it does not say so, the environment cannot be made here as it was, or has
            other spaces.
    """
    form = form or {}
    if info.env is not None:
        candidates = [check(replace(info.env, **form))]
    elif info.env_spec is not None:
        raw = replace(from_specification(info.env_spec, info.eval_env_spec), **form)
        known = [spec(name) for name in names()] if not form else []
        alike = [s for s in known if (s.gym_id, dict(s.kwargs)) == (raw.name, dict(raw.options))]
        candidates = [check(one) for one in (*(EnvConfig(s.name) for s in alike), raw)]
    else:
        raise RlfdError(
            f"demonstrations '{info.id}' do not say which environment they come from",
            "name it with --env",
        )
    for candidate in candidates:
        recorded = read_spaces(info.path, candidate)
        pairs = [adapter(one).stored for one in (candidate, evaluated(candidate))]
        found = next(filter(None, (space_difference(recorded, own) for own in pairs)), None)
        if found is None:
            return candidate
    assert found is not None
    field, theirs, ours = found
    raise RlfdError(
        f"demonstrations '{info.id}' say that they come from {candidates[-1].name}, but their "
        f"{field} is {theirs}, not {ours}",
        "name their environment with --env",
    )


def absent_env(info: DemoInfo, form: Mapping[str, Any] | None = None) -> EnvConfig:
    """Return an environment for learning from a dataset whose own cannot be made here.

    Args:
        info: The dataset.
        form: How it is to be seen, where that differs from the dataset's: `action_range` or
            `frame_stack`.
    """
    recorded = {} if info.env is None else {"action_range": info.env.action_range}
    form = {"frame_stack": info.frame_stack, **recorded, **(form or {})}
    return EnvConfig(PREFIX + info.id, options=spaces_as_options(*read_spaces(info.path)), **form)


def _shows_shifted(info: DemoInfo) -> bool:
    return info.env is not None and info.env.start in ("shifted", "mixed")


def _refuse_shifted(info: DemoInfo) -> None:
    if _shows_shifted(info):
        assert info.env is not None
        usual = spec(info.env.name).demo_start
        raise RlfdError(
            f"demonstrations '{info.id}' begin at the {info.env.start} start: they show what a run "
            "from the shifted one is to find out",
            f"collect some with 'rlfd collect-demos --env {info.env.name} --start {usual}'",
        )


def _refuse_overlap(demos: Demonstrations) -> None:
    overlap = shifted_start_overlap(demos)
    if overlap is None or not overlap.overlaps:
        return
    episodes = np.array(overlap.episodes)
    shown = ", ".join(map(str, episodes[:5])) + (", ..." if len(episodes) > 5 else "")
    raise RlfdError(
        f"demonstrations '{demos.info.id}' visit the shifted start: |x| reaches "
        f"{overlap.max_abs_x:.2f} in {len(episodes)} of {len(demos.episodes)} episodes ({shown}), "
        f"expected less than {overlap.limit:.2f}, which is {START_MARGIN} off the start",
        "collect them from rest with 'rlfd collect-demos --env "
        f"{demos.info.env.name if demos.info.env else 'LunarLander'} --start demo'",
    )
