"""A suite's sets of demonstrations: read, collected or mixed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfd import demos
from rlfd.demos import Demonstrations
from rlfd.envs import EnvConfig, spec
from rlfd.errors import RlfdError
from rlfd.experiments.config import env_words
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.report import Reporter
from rlfd.experiments.results import env_title
from rlfd.experiments.suite import DemoPlan, Section, Suite, Task
from rlfd.experiments.suite_plan import demo_env, demo_id, parts_of

__all__ = ["datasets_of", "describe"]


def datasets_of(
    suite: Suite,
    sections: Sequence[Section],
    runs_dir: Path,
    data_dir: Path,
    reporter: Reporter,
    *,
    collect: bool,
) -> dict[str, Demonstrations]:
    """Return the demonstrations of the sections by id; collect those that are missing.

    Raises:
        RlfdError: If those that are there are not of this suite, or nobody can make the others.
    """
    if collect:
        _refuse_missing_policies(suite, sections, data_dir)
    found: dict[str, Demonstrations] = {}
    for section in sections:
        if section.demos is None or demo_id(suite, section.task, section.demos) in found:
            continue
        dataset = _dataset(
            suite, section.task, section.demos, runs_dir, data_dir, reporter, collect=collect
        )
        if dataset is not None:
            found[demo_id(suite, section.task, section.demos)] = dataset
    return found


def _dataset(
    suite: Suite,
    task: Task,
    wanted: DemoPlan,
    runs_dir: Path,
    data_dir: Path,
    reporter: Reporter,
    *,
    collect: bool,
) -> Demonstrations | None:
    """Return a task's set of demonstrations: read, collected or mixed; None if it is not there."""
    identity, env = demo_id(suite, task, wanted), demo_env(task, wanted)
    if identity in [info.id for info in demos.find(env, data_dir)]:
        dataset = demos.load(identity, env=env, data_dir=data_dir)
        _refuse_other_size(identity, dataset, wanted)
        _refuse_other_origin(identity, dataset, wanted, env)
        return dataset
    if not collect:
        return None
    name = identity.rpartition("/")[2]
    parts = []
    for part, share in parts_of(suite, task, wanted):
        made = _dataset(suite, task, part, runs_dir, data_dir, reporter, collect=True)
        assert made is not None
        parts.append((made, share))
    if parts:
        reporter.message(f"mixing {_mixture(parts)} as '{identity}'")
    else:
        reporter.message(
            f"collecting {_size(wanted)} of {env_title(env)} by {wanted.policy} as '{identity}'"
        )
    try:
        return _make(wanted, env, parts, name, runs_dir, data_dir)
    except RlfdError:
        if identity not in [info.id for info in demos.find(env, data_dir)]:
            raise
        # another launcher was faster
        return _dataset(suite, task, wanted, runs_dir, data_dir, reporter, collect=False)


def _make(
    wanted: DemoPlan,
    env: EnvConfig,
    parts: Sequence[tuple[Demonstrations, float]],
    name: str,
    runs_dir: Path,
    data_dir: Path,
) -> Demonstrations:
    """Mix a set from its parts, or collect it where there are none."""
    if parts:
        return demos.mix(
            parts, name=name, episodes=wanted.episodes, seed=wanted.seed, data_dir=data_dir
        )
    return demos.collect(
        env,
        make_demonstrator(wanted.policy, env, seed=wanted.seed, runs_dir=runs_dir),
        episodes=None if wanted.steps else wanted.episodes,
        steps=wanted.steps or None,
        noise=wanted.noise,
        noop=wanted.noop,
        seed=wanted.seed,
        name=name,
        data_dir=data_dir,
    )


def _size(wanted: DemoPlan) -> str:
    if wanted.steps:
        return f"{wanted.steps:,} steps of demonstrations"
    return f"{wanted.episodes} demonstrations"


def _refuse_other_size(identity: str, dataset: Demonstrations, wanted: DemoPlan) -> None:
    """Refuse a dataset that has not the wanted episodes, or not as many as the steps take."""
    if wanted.steps:
        before_last = dataset.num_transitions - dataset.episodes[-1].length
        if before_last < wanted.steps <= dataset.num_transitions:
            return
        there, here = f"{dataset.num_transitions:,} steps", f"whole episodes until {wanted.steps:,}"
    elif len(dataset.episodes) == wanted.episodes:
        return
    else:
        there, here = f"{len(dataset.episodes)} episodes", f"{wanted.episodes}"
    raise RlfdError(
        f"demonstrations '{identity}' have {there}, this suite wants {here}",
        "give another --data-dir",
    )


def _refuse_other_origin(
    identity: str, dataset: Demonstrations, wanted: DemoPlan, env: EnvConfig
) -> None:
    """Refuse a dataset that somebody else demonstrated, or that was spoilt or mixed otherwise."""
    made = dataset.info.demonstrator
    there: dict[str, Any] = {"seed": made.get("seed")}
    here: dict[str, Any] = {"seed": wanted.seed}
    if wanted.mix:
        there["mix"] = [part["share"] for part in made.get("parts", ())]
        here["mix"] = list(wanted.mix.values())
    else:
        for name in ("noise", "noop", "action_noise"):
            there[name], here[name] = made.get(name), getattr(wanted, name, 0.0)
        for name in ("min_return", "max_return"):
            there[name], here[name] = made.get(name), None
        kind, _, strength = wanted.policy.partition(":")
        strength = strength or "strong"
        if kind != "shipped":
            there["policy"], here["policy"] = made.get("policy"), kind
        elif strength in demos.strengths(env.name):  # others are recorded by the user
            there["policy"], here["policy"] = made.get("name"), f"{env.name}-{strength}"
    for name, value in here.items():
        if there[name] != value:
            raise RlfdError(
                f"demonstrations '{identity}' were made with {name} {there[name]}, this suite "
                f"wants {value}",
                "give another --data-dir",
            )


def _refuse_missing_policies(suite: Suite, sections: Sequence[Section], data_dir: Path) -> None:
    """Refuse, before anything is collected, what only policies that do not come with rlfd make."""
    missing: dict[str, tuple[EnvConfig, DemoPlan, str]] = {}
    for section in sections:
        if section.demos is not None:
            for wanted in _collected_for(suite, section.task, section.demos, data_dir):
                kind, _, strength = wanted.policy.partition(":")
                env, strength = demo_env(section.task, wanted), strength or "strong"
                if kind == "shipped" and strength not in demos.strengths(env.name):
                    identity = demo_id(suite, section.task, wanted)
                    missing.setdefault(identity, (env, wanted, strength))
    if not missing:
        return
    name, (env, wanted, _) = next(iter(missing.items()))
    lacking = ", ".join(f"{env.name} ({strength})" for env, _, strength in missing.values())
    size = ("--steps", wanted.steps) if wanted.steps else ("--episodes", wanted.episodes)
    command = ["rlfd", "collect-demos", *env_words(env, usual_start=spec(env.name).demo_start)]
    command += ["--policy", "RUN", *map(str, size), "--name", name.rpartition("/")[2]]
    command += ["--data-dir", str(data_dir)]
    raise RlfdError(
        f"'{suite.name}' learns from demonstrations of policies that do not come with rlfd yet: "
        f"{lacking}",
        f"record an agent of your own with '{shlex.join(command)}', or choose others with "
        "--tasks and --group",
    )


def _collected_for(suite: Suite, task: Task, wanted: DemoPlan, data_dir: Path) -> list[DemoPlan]:
    """Return the sets that are to be collected before a set is there."""
    known = [info.id for info in demos.find(demo_env(task, wanted), data_dir)]
    if demo_id(suite, task, wanted) in known:
        return []
    parts = [part for part, _ in parts_of(suite, task, wanted)] or [wanted]
    return [part for part in parts if demo_id(suite, task, part) not in known]


def _mixture(parts: Sequence[tuple[Demonstrations, float]]) -> str:
    return " + ".join(f"{share:g} {dataset.info.name}" for dataset, share in parts)


def describe(name: str, dataset: Demonstrations) -> dict[str, Any]:
    """Return what a report says about a set of demonstrations."""
    return {
        "name": name,
        "hash": dataset.info.content_hash,
        "episodes": len(dataset.episodes),
        "return_mean": float(dataset.returns.mean()),
        "mixture": [
            {"share": part["share"], "name": part["name"]}
            for part in dataset.info.demonstrator.get("parts", ())
        ],
    }
