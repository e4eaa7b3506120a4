"""What a suite is: a paper's tables as rows x tasks x demonstrations.

A task is an environment with start and reward; a row is an algorithm with settings, something that
is only evaluated, or a method that is not there yet. A group is a part of the suite with a table
for each of its tasks and sets of demonstrations. `suite_file` reads suites, `suite_plan` makes runs
of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlfd.envs import EnvConfig

__all__ = ["DEMONSTRATIONS", "DemoPlan", "FigurePlan", "Group", "Row", "Section", "Suite", "Task"]

DEMONSTRATIONS = "demonstrations"
"""The `policy` of a row that shows the demonstrations that the runs of the same seed learn from."""


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
        steps: Instead: whole episodes until there are so many env steps; 0 = by episodes.
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
    steps: int = 0
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
        scaled: Settings that count steps or updates, of runs or of methods; with fewer steps than
            the suite's they are smaller in proportion.
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
    scaled: Sequence[str] = ()
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
