"""What a suite file says: a paper's tables as rows x tasks x demonstrations, and their runs.

A suite is a TOML file in `suites/`. A task is an environment with start and reward; a row is an
algorithm with settings, something that is only evaluated, or a method that is not there yet. A
group is a part of the suite with a table for each of its tasks and sets of demonstrations.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rlfd import algorithms
from rlfd.demos import TOLERANCE
from rlfd.envs import EnvConfig
from rlfd.errors import unknown_name
from rlfd.experiments.config import setting_text
from rlfd.experiments.known import GAPS
from rlfd.experiments.launch import Job

__all__ = [
    "DEMONSTRATIONS",
    "DemoPlan",
    "FigurePlan",
    "Group",
    "Row",
    "Section",
    "Suite",
    "Task",
    "chosen_groups",
    "chosen_tasks",
    "demo_env",
    "demo_id",
    "exp_name",
    "list_suites",
    "load_suite",
    "parse_suite",
    "parts_of",
    "plan",
    "row_env",
    "rows_of",
    "run_folder",
    "sections_of",
    "uses_demos",
]

DEMONSTRATIONS = "demonstrations"
"""The `policy` of a row that shows the demonstrations that the runs of the same seed learn from."""

FIGURE_AXES = ("quality", "num-demos", "labels")
"""The `x` of figures that are no learning curves over env steps."""

RUN_SETTINGS = ("num_envs", "eval_every", "eval_episodes", "final_episodes", "checkpoint_every")
OFFLINE_SETTINGS = ("eval_episodes", "final_episodes")  # those that are no matter of the budget


@dataclass(frozen=True)
class DemoPlan:
    """A set of demonstrations, for each task one dataset.

    Attributes:
        name: Tells the suite's sets apart; then part of the names of datasets and runs.
        policy: Who demonstrates, as for `rlfd collect-demos --policy`.
        mix: Instead of a policy: other sets of the suite by name and their shares of the episodes.
        title: What tables call it.
        start: From where; the task's own start if empty.
        episodes: How many there are.
        num: How many of them a run learns from, chosen by its seed; 0 = all.
        noise: Probability of a random action in place of the demonstrator's.
        noop: Probability of doing nothing in its place.
        seed: Of collecting, or mixing.
    """

    name: str
    policy: str = ""
    mix: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    start: str = ""
    episodes: int = 10
    num: int = 0
    noise: float = 0.0
    noop: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """An environment that rows are trained and tested in.

    Attributes:
        name: What `--tasks` and a row's `paper` call it.
        env: Name of the environment.
        start: Its start-state distribution.
        reward: Its reward.
        options: Its options.
        steps: Env steps of runs, where they differ from the suite's.
        demos: What is different about a set of demonstrations here: fields by the set's name.
    """

    name: str
    env: str
    start: str = "standard"
    reward: str = "dense"
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    demos: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> EnvConfig:
        """The environment."""
        return EnvConfig(self.env, self.start, self.options, self.reward)


@dataclass(frozen=True)
class Row:
    """One row of the paper's table; exactly one of `algo`, `policy` and `unavailable` is set.

    Attributes:
        label: What the table calls it.
        algo: Algorithm to train.
        policy: What to evaluate without training: a controller, ``random``, or
            ``demonstrations``.
        unavailable: Why there is nothing of ours in this row.
        env: Environment of its runs, where it is another form of the task's.
        variant: Tells rows of one algorithm apart; becomes part of the run's exp_name.
        preset: Preset for training.
        settings: Hyperparameters that differ from the preset.
        steps: Env steps of its runs, where they differ from the task's and the suite's.
        num_demos: Number of demonstrations, where it differs from the set's.
        init: Label of the row whose run on the same task, demonstrations and seed it starts from.
        groups: Parts of the suite that show this row; the first one if empty.
        tasks: Tasks that it is made for; all if empty.
        demos: Sets of demonstrations that it is made for; all if empty.
        paper: The paper's number and its spread by task.
        note: What a reader of the row must know.
    """

    label: str
    algo: str = ""
    policy: str = ""
    unavailable: str = ""
    env: str = ""
    variant: str = ""
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    num_demos: int = 0
    init: str = ""
    groups: Sequence[str] = ()
    tasks: Sequence[str] = ()
    demos: Sequence[str] = ()
    paper: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Group:
    """A part of the suite; no tasks or demonstrations stand for all of the suite's."""

    name: str
    title: str
    tasks: Sequence[str] = ()
    demos: Sequence[str] = ()


@dataclass(frozen=True)
class FigurePlan:
    """A figure: which rows it shows, if its group is worked off.

    Attributes:
        name: Of its file.
        group: Whose tasks and demonstrations it shows.
        rows: Labels of its lines.
        x: ``quality`` or ``num-demos``: final performance over all sets of demonstrations;
            ``labels``: learning curves with what was shown beside what was asked; learning curves
            if empty.
        measure: With ``num-demos``: a gap of known finite environments instead of the performance.
    """

    name: str
    group: str
    rows: Sequence[str]
    x: str = ""
    measure: str = ""


@dataclass(frozen=True)
class Suite:
    """What a suite file says.

    Attributes:
        name: Name of the file; part of the names of datasets and runs.
        title: Heading of the report.
        paper: What it reproduces.
        seeds: Of the runs.
        steps: Env steps of a run.
        protocol: What a reader of the tables must know.
        tasks: The environments.
        groups: Its parts; the first one is made where none is asked for.
        rows: Rows of the tables, in their order.
        demos: Sets of demonstrations.
        figures: Its figures.
        run: Further settings of every run (`RUN_SETTINGS`).
        metric: What its tables and figures show; by default success where every environment has a
            success test.
        reach: A value of that metric; tables also say after how many env steps it was reached.
    """

    name: str
    title: str
    paper: str
    seeds: Sequence[int]
    steps: int
    protocol: Sequence[str]
    tasks: Sequence[Task]
    groups: Sequence[Group]
    rows: Sequence[Row]
    demos: Sequence[DemoPlan] = ()
    figures: Sequence[FigurePlan] = ()
    run: Mapping[str, int] = field(default_factory=dict)
    metric: Literal["", "return", "success"] = ""
    reach: float | None = None

    @property
    def demo_sets(self) -> Sequence[DemoPlan | None]:
        """Its sets of demonstrations, one None for a suite without any."""
        return self.demos or [None]

    def row(self, label: str) -> Row:
        """Return the row of a label."""
        return next(row for row in self.rows if row.label == label)


@dataclass(frozen=True)
class Section:
    """One table: a group's rows on one task, with one set of demonstrations."""

    group: Group
    task: Task
    demos: DemoPlan | None

    @property
    def demos_name(self) -> str:
        """Name of the set of demonstrations; empty without one."""
        return self.demos.name if self.demos is not None else ""


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
    _all_known("metric", [suite.metric], ["", "return", "success"])
    for task in suite.tasks:
        _all_known(f"task '{task.name}'", task.demos, sets)
        for changes in task.demos.values():
            _all_known(f"task '{task.name}'", changes, [item.name for item in fields(DemoPlan)])
        for entry in suite.demos:
            _check_mixture(suite, task, _at(task, entry))
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


def plan(
    suite: Suite,
    *,
    runs_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = (),
    tasks: Sequence[str] = (),
    data_dir: Path,
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
                    job = _job(suite, maker, section, seed, steps, runs_dir, data_dir)
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
        Section(group, task, None if demos is None else _at(task, demos))
        for group in chosen_groups(suite, groups)
        for task in chosen
        if task.name in (group.tasks or [task.name])
        for demos in suite.demo_sets
        if demos is None or demos.name in (group.demos or [demos.name])
    ]


def _at(task: Task, demos: DemoPlan) -> DemoPlan:
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
    return [(_at(task, by_name[name]), share) for name, share in demos.mix.items()]


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


def _job(
    suite: Suite,
    row: Row,
    section: Section,
    seed: int,
    steps: int | None,
    runs_dir: Path,
    data_dir: Path,
) -> Job:
    task, demos = section.task, section.demos
    needs = algorithms.get(row.algo).needs
    words = ["train", row.algo, "--env", row_env(row, task).name]
    if task.start != "standard":
        words += ["--start", task.start]
    if task.reward != "dense":
        words += ["--reward", task.reward]
    for name, value in task.options.items():
        words += ["--env-option", f"{name}={json.dumps(value)}"]
    if _given_demos(row) and demos is not None:
        words += ["--demos", demo_id(suite, task, demos)]
        num = row.num_demos or demos.num
        if num:
            words += ["--num-demos", str(num)]
    waits_for = []
    if row.init:
        source = run_folder(suite, suite.row(row.init), task, demos, seed, runs_dir)
        words += ["--init", str(source)]
        waits_for.append(source)
    if needs.interaction:  # the others stop by themselves
        words += ["--steps", str(steps or row.steps or task.steps or suite.steps)]
    for name, value in suite.run.items():
        if needs.interaction or name in OFFLINE_SETTINGS:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--seed", str(seed), "--exp-name", exp_name(suite, row, demos)]
    if row.preset:
        words += ["--preset", row.preset]
    for name, value in row.settings.items():
        words += ["--set", f"{name}={setting_text(value)}"]
    words += ["--runs-dir", str(runs_dir), "--data-dir", str(data_dir), "--resume-if-exists"]
    folder = run_folder(suite, row, task, demos, seed, runs_dir)
    argv = (sys.executable, "-m", "rlfd", *words)
    return Job(str(folder.relative_to(runs_dir)), argv, folder, tuple(waits_for))
