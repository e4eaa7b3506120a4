"""What a suite's tables and runs are: which rows, in which folders, by which commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlfd import algorithms
from rlfd.envs import EnvConfig
from rlfd.errors import unknown_name
from rlfd.experiments.config import RUN_FIELDS, RunConfig, env_words, resolve, setting_text
from rlfd.experiments.launch import Job
from rlfd.experiments.suite import DemoPlan, Group, Row, Section, Suite, Task

__all__ = [
    "at_task",
    "chosen_groups",
    "chosen_tasks",
    "demo_env",
    "demo_id",
    "exp_name",
    "parts_of",
    "plan",
    "row_env",
    "rows_of",
    "run_folder",
    "sections_of",
    "uses_demos",
]

OFFLINE_SETTINGS = ("eval_episodes", "final_episodes")  # those that are no matter of the budget


def plan(
    suite: Suite,
    *,
    runs_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = (),
    tasks: Sequence[str] = (),
    data_dir: Path,
    device: str | None = None,
) -> list[Job]:
    """Return the runs of a suite in the order in which they are made.

    The seed is the outermost loop, so that a suite worked off in part compares all of its rows. A
    run that others start from comes before them, whether its row was asked for or not.

    Args:
        suite: The suite.
        runs_dir: Where runs go.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them, none for the first.
        tasks: Names of the suite's tasks; none for all of them.
        data_dir: Where the demonstrations are.
        device: Where runs learn; None = what `rlfd train` chooses.

    Raises:
        RlfdError: If a group or task is not known.
    """
    sections = sections_of(suite, groups, tasks)
    jobs: dict[Path, Job] = {}
    for seed in seeds or suite.seeds:
        for row in suite.rows:
            for section in sections:
                if not row.algo or not _shows(section, row):
                    continue
                for maker in [*([suite.row(row.init)] if row.init else []), row]:
                    job = _job(suite, maker, section, seed, steps, runs_dir, data_dir, device)
                    jobs.setdefault(job.run_dir, job)
    return list(jobs.values())


def sections_of(
    suite: Suite, groups: Sequence[str] = (), tasks: Sequence[str] = ()
) -> list[Section]:
    """Return the tables that groups and tasks mean, in the suite's order.

    Raises:
        RlfdError: If a group or task is not known.
    """
    chosen = chosen_tasks(suite, tasks)
    return [
        Section(group, task, None if demos is None else at_task(task, demos))
        for group in chosen_groups(suite, groups)
        for task in chosen
        if task.name in (group.tasks or [task.name])
        for demos in suite.demo_sets
        if demos is None or demos.name in (group.demos or [demos.name])
    ]


def at_task(task: Task, demos: DemoPlan) -> DemoPlan:
    """Return a set of demonstrations as it is for a task."""
    return replace(demos, **task.demos.get(demos.name, {}))


def chosen_groups(suite: Suite, names: Sequence[str]) -> list[Group]:
    """Return the groups that were asked for: the first one if none was, all of them for ``all``."""
    _refuse_unknown("group", suite, names, [*(group.name for group in suite.groups), "all"])
    if not names:
        return list(suite.groups[:1])
    return [group for group in suite.groups if group.name in names or "all" in names]


def chosen_tasks(suite: Suite, names: Sequence[str]) -> list[Task]:
    """Return the tasks that were asked for, all of them if none was."""
    _refuse_unknown("task", suite, names, [task.name for task in suite.tasks])
    return [task for task in suite.tasks if task.name in names or not names]


def _refuse_unknown(kind: str, suite: Suite, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(f"{kind} of {suite.name}", name, known)


def rows_of(suite: Suite, section: Section) -> Iterator[Row]:
    """Yield the rows of a table."""
    return (row for row in suite.rows if _shows(section, row))


def _shows(section: Section, row: Row) -> bool:
    return (
        section.group.name in row.groups
        and section.task.name in (row.tasks or [section.task.name])
        and section.demos_name in (row.demos or [section.demos_name])
    )


def uses_demos(suite: Suite, row: Row) -> bool:
    """Whether a row's runs depend on demonstrations, its own or those of the row it starts from."""
    starts = [suite.row(row.init)] if row.init else []
    return any(_given_demos(one) for one in [row, *starts])


def _given_demos(row: Row) -> bool:
    """Whether a row's algorithm gets its section's demonstrations: if it has a use for them.

    One that asks its demonstrator begins with nothing.
    """
    needs = algorithms.get(row.algo).needs
    return needs.demonstrations or (needs.optional_demonstrations and not needs.demonstrator)


def row_env(row: Row, task: Task) -> EnvConfig:
    """Return the environment of a row's runs on a task."""
    return replace(task.config, name=row.env or task.env)


def demo_env(task: Task, demos: DemoPlan) -> EnvConfig:
    """Return where a task's demonstrations are collected."""
    return EnvConfig(task.env, demos.start or task.start, task.options, task.reward)


def parts_of(suite: Suite, task: Task, demos: DemoPlan) -> list[tuple[DemoPlan, float]]:
    """Return what a set is mixed from on a task, with the shares; nothing for a collected one."""
    by_name = {part.name: part for part in suite.demos}
    return [(at_task(task, by_name[name]), share) for name, share in demos.mix.items()]


def demo_id(suite: Suite, task: Task, demos: DemoPlan) -> str:
    """Return the id of a task's dataset; a suite's only set needs no name in it."""
    name = suite.name if len(suite.demos) == 1 else f"{suite.name}-{demos.name}"
    return f"{demo_env(task, demos).label}/{name}-v0"


def exp_name(suite: Suite, row: Row, demos: DemoPlan | None) -> str:
    """Return the experiment name of a row's runs."""
    parts = [suite.name, row.variant]
    if demos is not None and len(suite.demos) > 1 and uses_demos(suite, row):
        parts.append(demos.name)
    return "-".join(part for part in parts if part)


def run_folder(
    suite: Suite, row: Row, task: Task, demos: DemoPlan | None, seed: int, runs_dir: Path
) -> Path:
    """Return where a row's run belongs."""
    folder = runs_dir / exp_name(suite, row, demos) / row.algo
    return folder / row_env(row, task).label / f"seed{seed}"


def _scaled(suite: Suite, row: Row, task: Task, steps: int | None) -> dict[str, Any]:
    """Return what `Suite.scaled` names with a row's values, in proportion to fewer steps."""
    full = row.steps or task.steps or suite.steps
    if steps is None or steps >= full or not algorithms.get(row.algo).needs.interaction:
        return {}
    config = _resolved(row, task, row.settings, suite.run)
    known = {name: getattr(config, name) for name in RUN_FIELDS} | asdict(config.algorithm)
    read = [name for name in suite.scaled if name not in config.algorithm.unread()]
    values = {name: known[name] for name in read if known.get(name)}
    return {name: max(1, round(value * steps / full)) for name, value in values.items()}


def _resolved(
    row: Row, task: Task, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> RunConfig:
    """Return the configuration of a row's runs with these settings and options of `rlfd train`."""
    return resolve(
        row.algo,
        row_env(row, task),
        preset=row.preset or None,
        settings=[f"{name}={setting_text(value)}" for name, value in settings.items()],
        options=options,
    ).config


def _job(
    suite: Suite,
    row: Row,
    section: Section,
    seed: int,
    steps: int | None,
    runs_dir: Path,
    data_dir: Path,
    device: str | None,
) -> Job:
    task, demos = section.task, section.demos
    needs = algorithms.get(row.algo).needs
    options: dict[str, Any] = {}
    if _given_demos(row) and demos is not None:
        options["demos"] = demo_id(suite, task, demos)
        if num := row.num_demos or demos.num:
            options["num_demos"] = num
    waits_for = []
    if row.init:
        source = run_folder(suite, suite.row(row.init), task, demos, seed, runs_dir)
        options["init"] = str(source)
        waits_for.append(source)
    if needs.interaction:  # the others stop by themselves
        options["steps"] = steps or row.steps or task.steps or suite.steps
    scaled = _scaled(suite, row, task, steps)
    run = {**suite.run, **{name: scaled.pop(name) for name in RUN_FIELDS if name in scaled}}
    for name, value in run.items():
        if needs.interaction or name in OFFLINE_SETTINGS:
            options[name] = value
    options |= {"seed": seed, "exp_name": exp_name(suite, row, demos)}
    settings = {**row.settings, **scaled}
    words = ["train", row.algo, *env_words(row_env(row, task), usual_start="standard")]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    if row.preset:
        words += ["--preset", row.preset]
    for name, value in settings.items():
        words += ["--set", f"{name}={setting_text(value)}"]
    if device is not None:
        words += ["--device", device]
    words += ["--runs-dir", str(runs_dir), "--data-dir", str(data_dir), "--resume-if-exists"]
    folder = run_folder(suite, row, task, demos, seed, runs_dir)
    return Job(
        name=str(folder.relative_to(runs_dir)),
        argv=(sys.executable, "-m", "rlfd", *words),
        run_dir=folder,
        needs=tuple(waits_for),
        config=_resolved(row, task, settings, options),
    )
