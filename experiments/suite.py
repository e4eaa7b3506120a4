"""What a suite file says: a paper's tables as rows x starts x seeds, and the runs they need.

A suite is a TOML file in `suites/`. A row is an algorithm with settings, a policy that is only
evaluated, or a method that is not there yet.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rlfd import algorithms
from rlfd.envs import EnvConfig
from rlfd.errors import unknown_name
from rlfd.experiments.launch import Job

__all__ = [
    "FigurePlan",
    "Row",
    "Suite",
    "chosen_groups",
    "exp_name",
    "group_starts",
    "list_suites",
    "load_suite",
    "parse_suite",
    "plan",
    "rows_of",
    "run_folder",
    "starts_of",
]


@dataclass(frozen=True)
class Row:
    """One row of the paper's table; exactly one of `algo`, `policy` and `unavailable` is set.

    Attributes:
        label: What the table calls it.
        algo: Algorithm to train.
        policy: Policy to evaluate without training: a controller or ``random``.
        unavailable: Why there is nothing of ours in this row.
        variant: Tells rows of one algorithm apart; becomes part of the run's exp_name.
        preset: Preset for training.
        settings: Hyperparameters that differ from the preset.
        steps: Env steps of its runs, where they differ from the suite's.
        num_demos: Number of demonstrations, where not all of the suite's are used.
        groups: Parts of the suite that show this row.
        paper: The paper's number and its spread by start.
        note: What a reader of the row must know.
    """

    label: str
    algo: str = ""
    policy: str = ""
    unavailable: str = ""
    variant: str = ""
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    num_demos: int = 0
    groups: Sequence[str] = ("paper",)
    paper: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Group:
    """A part of the suite with a table of its own; no starts stand for the suite's."""

    name: str
    title: str
    starts: Sequence[str] = ()


@dataclass(frozen=True)
class FigurePlan:
    """A learning-curve figure: which rows it shows, if its group is worked off."""

    name: str
    group: str
    rows: Sequence[str]


@dataclass(frozen=True)
class DemoPlan:
    """The one dataset that every row learns from."""

    name: str
    policy: str
    start: str
    episodes: int
    seed: int


@dataclass(frozen=True)
class Suite:
    """What a suite file says."""

    name: str
    title: str
    paper: str
    env: str
    starts: Sequence[str]
    seeds: Sequence[int]
    steps: int
    protocol: Sequence[str]
    demos: DemoPlan
    groups: Sequence[Group]
    figures: Sequence[FigurePlan]
    rows: Sequence[Row]


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
        raise unknown_name("suite", name, list_suites())
    file = resources.files("rlfd.experiments.suites") / f"{name.replace('-', '_')}.toml"
    return parse_suite(name, file.read_text(encoding="utf-8"))


def parse_suite(name: str, text: str) -> Suite:
    """Return the suite that a TOML text describes, checked for names that do not fit together."""
    content = tomllib.loads(text)
    parts: dict[str, Any] = {
        "demos": _build(DemoPlan, content.pop("demos")),
        "groups": [_build(Group, entry) for entry in content.pop("groups")],
        "figures": [_build(FigurePlan, entry) for entry in content.pop("figures")],
        "rows": [_build(Row, entry) for entry in content.pop("rows")],
    }
    suite: Suite = _build(Suite, content | parts | {"name": name})
    groups = [group.name for group in suite.groups]
    labels = [row.label for row in suite.rows]
    for row in suite.rows:
        if sum(map(bool, (row.algo, row.policy, row.unavailable))) != 1:
            raise ValueError(f"row '{row.label}' needs one of algo, policy, unavailable")
        _all_known(f"row '{row.label}'", row.groups, groups)
        _all_known(f"row '{row.label}'", row.paper, suite.starts)
    for figure in suite.figures:
        _all_known(f"figure '{figure.name}'", [figure.group], groups)
        _all_known(f"figure '{figure.name}'", figure.rows, labels)
    runs = [(row.algo, row.variant) for row in suite.rows if row.algo]
    if len(set(runs)) < len(runs) or len(set(labels)) < len(labels):
        raise ValueError(
            f"suite '{name}' has two rows with one label, or one algorithm and variant"
        )
    return suite


def _build(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    _all_known(kind.__name__, entry, [item.name for item in fields(kind)])
    return kind(**entry)


def _all_known(where: str, names: Any, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{where} of the suite names '{name}', expected {near or known}")


def plan(
    suite: Suite,
    *,
    runs_dir: Path,
    data_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = ("paper",),
) -> list[Job]:
    """Return the runs of a suite in the order in which they are made.

    The seed is the outermost loop, so that a suite worked off in part compares all of its rows.

    Args:
        suite: The suite.
        runs_dir: Where runs go.
        data_dir: Where the demonstrations are.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them.

    Raises:
        RlfdError: If a group is not known.
    """
    chosen = chosen_groups(suite, groups)
    return [
        _job(suite, row, start, seed, steps or row.steps or suite.steps, runs_dir, data_dir)
        for seed in seeds or suite.seeds
        for row in rows_of(suite, chosen)
        if row.algo
        for start in starts_of(suite, row, chosen)
    ]


def group_starts(suite: Suite, name: str) -> Sequence[str]:
    """Return the starts of a group."""
    return next(group.starts for group in suite.groups if group.name == name) or suite.starts


def starts_of(suite: Suite, row: Row, groups: Sequence[str]) -> list[str]:
    """Return the starts that the groups want of a row, each once."""
    starts = [start for g in groups if g in row.groups for start in group_starts(suite, g)]
    return list(dict.fromkeys(starts))


def chosen_groups(suite: Suite, groups: Sequence[str]) -> list[str]:
    """Return the groups that were asked for, in the suite's order; ``all`` stands for all."""
    known = [group.name for group in suite.groups]
    for name in groups:
        if name not in [*known, "all"]:
            raise unknown_name(f"group of {suite.name}", name, [*known, "all"])
    return known if "all" in groups else [name for name in known if name in groups]


def _job(
    suite: Suite, row: Row, start: str, seed: int, steps: int, runs_dir: Path, data_dir: Path
) -> Job:
    needs = algorithms.get(row.algo).needs
    argv = [sys.executable, "-m", "rlfd", "train", row.algo, "--env", suite.env, "--start", start]
    if needs.demonstrations:
        argv += ["--demos", suite.demos.name]
    if row.num_demos:
        argv += ["--num-demos", str(row.num_demos)]
    if needs.interaction:  # the others stop by themselves
        argv += ["--steps", str(steps)]
    argv += ["--seed", str(seed), "--exp-name", exp_name(suite, row)]
    if row.preset:
        argv += ["--preset", row.preset]
    for name, value in row.settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        argv += ["--set", f"{name}={text}"]
    argv += ["--runs-dir", str(runs_dir), "--data-dir", str(data_dir), "--resume-if-exists"]
    folder = run_folder(suite, row, start, seed, runs_dir)
    return Job(str(folder.relative_to(runs_dir)), tuple(argv), folder)


def exp_name(suite: Suite, row: Row) -> str:
    """Return the experiment name of a row's runs."""
    return f"{suite.name}-{row.variant}" if row.variant else suite.name


def run_folder(suite: Suite, row: Row, start: str, seed: int, runs_dir: Path) -> Path:
    """Return where a row's run belongs."""
    label = EnvConfig(suite.env, start).label
    return runs_dir / exp_name(suite, row) / row.algo / label / f"seed{seed}"


def rows_of(suite: Suite, groups: Sequence[str]) -> Iterator[Row]:
    """Yield the rows that groups show."""
    for row in suite.rows:
        if set(row.groups) & set(groups):
            yield row
