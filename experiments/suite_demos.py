"""A suite's sets of demonstrations: read, collected or mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfd import demos
from rlfd.demos import Demonstrations
from rlfd.errors import RlfdError
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
    """Return the demonstrations of the sections by id; collect those that are missing."""
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
        if len(dataset.episodes) != wanted.episodes:
            raise RlfdError(
                f"demonstrations '{identity}' have {len(dataset.episodes)} episodes, "
                f"this suite wants {wanted.episodes}",
                "give another --data-dir",
            )
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
        return demos.mix(
            parts, name=name, episodes=wanted.episodes, seed=wanted.seed, data_dir=data_dir
        )
    reporter.message(
        f"collecting {wanted.episodes} demonstrations of {env_title(env)} by {wanted.policy} "
        f"as '{identity}'"
    )
    return demos.collect(
        env,
        make_demonstrator(wanted.policy, env, seed=wanted.seed, runs_dir=runs_dir),
        episodes=wanted.episodes,
        noise=wanted.noise,
        noop=wanted.noop,
        seed=wanted.seed,
        name=name,
        data_dir=data_dir,
    )


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
