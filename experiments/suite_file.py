"""Reads the TOML files in `suites/`, and refuses names in them that do not fit together."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rlfd import algorithms
from rlfd.demos import TOLERANCE
from rlfd.errors import unknown_name
from rlfd.experiments.known import GAPS
from rlfd.experiments.suite import DemoPlan, FigurePlan, Group, Row, Suite, Task
from rlfd.experiments.suite_plan import (
    at_task,
    demo_env,
    parts_of,
    rows_of,
    run_folder,
    sections_of,
    uses_demos,
)

__all__ = ["list_suites", "load_suite", "parse_suite"]

FIGURE_AXES = ("quality", "num-demos", "labels")
"""The `x` of figures that are no learning curves over env steps."""

RUN_SETTINGS = ("num_envs", "eval_every", "eval_episodes", "final_episodes", "checkpoint_every")


def list_suites() -> list[str]:
    """Return the names of all suites."""
    folder = resources.files("rlfd.experiments.suites")
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml").replace("_", "-") for name in names)


def load_suite(name: str) -> Suite:
    """Return the suite called `name`.

    Raises:
        RlfdError: If there is none; names the nearest one.
    """
    if name not in list_suites():
        raise unknown_name("suite", name, list_suites(), "'rlfd list suites' shows what there is")
    file = resources.files("rlfd.experiments.suites") / f"{name.replace('-', '_')}.toml"
    return parse_suite(name, file.read_text(encoding="utf-8"))


def parse_suite(name: str, text: str) -> Suite:
    """Return the suite that a TOML text describes, checked for names that do not fit together."""
    content = tomllib.loads(text)
    kinds = {"tasks": Task, "demos": DemoPlan, "groups": Group, "figures": FigurePlan, "rows": Row}
    for key, kind in kinds.items():
        content[key] = [_build(kind, entry) for entry in content.get(key, [])]
    first = content["groups"][0].name
    content["rows"] = [replace(row, groups=row.groups or [first]) for row in content["rows"]]
    suite: Suite = _build(Suite, content | {"name": name})
    groups, tasks, sets, labels = (
        [entry.name for entry in suite.groups],
        [entry.name for entry in suite.tasks],
        [entry.name for entry in suite.demos],
        [row.label for row in suite.rows],
    )
    _all_known("run", suite.run, RUN_SETTINGS)
    _all_known("scaled", suite.scaled, _countable(suite))
    _all_known("metric", [suite.metric], ["", "return", "success"])
    for task in suite.tasks:
        _all_known(f"task '{task.name}'", task.demos, sets)
        for changes in task.demos.values():
            _all_known(f"task '{task.name}'", changes, [item.name for item in fields(DemoPlan)])
        for entry in suite.demos:
            _check_mixture(suite, task, at_task(task, entry))
    for group in suite.groups:
        _all_known(f"group '{group.name}'", group.tasks, tasks)
        _all_known(f"group '{group.name}'", group.demos, sets)
    for row in suite.rows:
        _check_row(suite, row)
    for figure in suite.figures:
        _all_known(f"figure '{figure.name}'", [figure.group], groups)
        _all_known(f"figure '{figure.name}'", figure.rows, labels)
        _all_known(f"figure '{figure.name}'", [figure.x] if figure.x else [], FIGURE_AXES)
        _all_known(f"figure '{figure.name}'", [figure.measure] if figure.measure else [], GAPS)
    for entries in (groups, tasks, sets, labels):
        if len(set(entries)) < len(entries):
            raise ValueError(f"suite '{name}' has one name twice in {entries}")
    _refuse_shared_folders(suite)
    return suite


def _countable(suite: Suite) -> list[str]:
    """Return the settings of a suite's runs and methods."""
    configs = [algorithms.get(row.algo).Config for row in suite.rows if row.algo]
    return [*RUN_SETTINGS, *{item.name for config in configs for item in fields(config)}]


def _check_row(suite: Suite, row: Row) -> None:
    """Refuse a row that names what is not there, or that cannot be made."""
    where = f"row '{row.label}'"
    if sum(map(bool, (row.algo, row.policy, row.unavailable))) != 1:
        raise ValueError(f"{where} needs one of algo, policy, unavailable")
    _all_known(where, row.groups, [group.name for group in suite.groups])
    _all_known(where, [*row.tasks, *row.paper], [task.name for task in suite.tasks])
    _all_known(where, row.demos, [demos.name for demos in suite.demos])
    _all_known(where, [row.init] if row.init else [], [r.label for r in suite.rows if r.algo])
    if row.env and (not row.algo or uses_demos(suite, row)):
        raise ValueError(f"{where} has its own environment, but the task's demonstrations")
    if row.init and (not row.algo or suite.row(row.init).init):
        raise ValueError(f"{where} cannot start from '{row.init}': one start, of a trained row")


def _build(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    _all_known(kind.__name__, entry, [item.name for item in fields(kind)])
    return kind(**entry)


def _all_known(where: str, names: Any, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{where} of the suite names '{name}', expected {near or known}")


def _check_mixture(suite: Suite, task: Task, demos: DemoPlan) -> None:
    """Refuse a set that is not either collected or mixed from collected ones of the same start."""
    where = f"demonstrations '{demos.name}'"
    if bool(demos.policy) == bool(demos.mix):
        raise ValueError(f"{where} need either a policy or a mix")
    if demos.steps and demos.mix:
        raise ValueError(f"{where} are mixed by episodes, not by steps")
    _all_known(where, demos.mix, [other.name for other in suite.demos])
    for part, _ in parts_of(suite, task, demos):
        if part.mix:
            raise ValueError(f"{where} cannot be mixed from '{part.name}', a mixture itself")
        if demo_env(task, part) != demo_env(task, demos):
            raise ValueError(f"{where} and '{part.name}' have different starts")
    if demos.mix and abs(sum(demos.mix.values()) - 1.0) > TOLERANCE:
        raise ValueError(f"{where}: the shares add up to {sum(demos.mix.values()):g}, expected 1")


def _refuse_shared_folders(suite: Suite) -> None:
    """Refuse two rows or tasks whose runs would go to one folder."""
    makers: dict[Path, tuple[str, ...]] = {}
    for section in sections_of(suite, ["all"]):
        for row in rows_of(suite, section):
            if row.algo:
                folder = run_folder(suite, row, section.task, section.demos, 0, Path())
                demos = section.demos_name if uses_demos(suite, row) else ""
                maker = (row.label, section.task.name, demos)
                if makers.setdefault(folder, maker) != maker:
                    raise ValueError(f"{makers[folder]} and {maker} have one run folder, {folder}")
