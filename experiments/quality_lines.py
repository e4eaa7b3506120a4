"""Final performance against demonstrations: which runs make a point, which points a line.

A point is the mean over seeds of the evaluation at the end, a line what one method with one set of
hyperparameters reaches from all the demonstrations that it was given. Experiment names do not tell
lines apart, since runs on other demonstrations must have other ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlfd import envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import statistics
from rlfd.experiments.results import Metric, RunResult, display_name

__all__ = [
    "DEMO_AXES",
    "DemoAxis",
    "Line",
    "MeasuredRun",
    "Point",
    "group_lines",
    "measure",
    "own_performance",
]

DemoAxis = Literal["quality", "num-demos"]
DEMO_AXES: tuple[DemoAxis, ...] = ("quality", "num-demos")

# Fields of a run's configuration that do not tell one line from another.
_IRRELEVANT = (
    "algo", "env", "seed", "exp_name", "demos", "num_demos", "init", "preset", "log_every",
    "eval_every", "eval_episodes", "final_episodes", "checkpoint_every", "device", "threads",
    "compile",
)  # fmt: skip


@dataclass(frozen=True)
class MeasuredRun:
    """One run as a point's part."""

    result: RunResult
    settings: str
    dataset: str
    number: int
    quality: float
    success: float | None
    paid_alike: bool
    value: float


@dataclass(frozen=True)
class Point:
    """Mean over the seeds that learned from the same demonstrations."""

    x: float
    y: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Line:
    """One method with one set of hyperparameters, in one environment."""

    env: EnvConfig
    algo: str
    label: str
    exp_names: tuple[str, ...]
    policy: str
    points: tuple[Point, ...]

    @property
    def variant(self) -> tuple[str, str]:
        """What a line's colour and dashes are chosen by."""
        return self.label, self.algo


def measure(
    results: Sequence[RunResult], metric: Metric, policy: str | None, notes: list[str]
) -> list[MeasuredRun]:
    """Return the runs that have a place in the figure; say why of the others."""
    measured = []
    left_out: dict[str, int] = {}
    for result in results:
        demos = result.status.get("demos")
        value = None
        if demos:
            value = result.evaluation_mean("final", policy or result.policies[0], metric)
        if demos is None:
            why = "learned without demonstrations"
        elif value is None or not envs.is_playable(result.env.name):
            why = "not evaluated at the end"
        elif demos["return_mean"] is None:
            why = "learned from demonstrations without rewards"
        else:
            config = result.run.config()
            paid = result.env.reward if metric == "return" else "dense"
            settings = dataclasses.asdict(config)
            measured.append(
                MeasuredRun(
                    result=result,
                    settings=json.dumps(
                        {k: v for k, v in settings.items() if k not in _IRRELEVANT}
                        | {"init": config.init is not None, "options": dict(config.env.options)}
                    ),
                    dataset=str(demos["name"]),
                    number=int(demos["episodes"]),
                    quality=float(demos["return_mean"]),
                    success=demos.get("success_rate"),
                    paid_alike=demos.get("reward", "dense") == paid,
                    value=value,
                )
            )
            continue
        left_out[why] = left_out.get(why, 0) + 1
    notes += [f"{n} of {len(results)} runs left out: {why}" for why, n in left_out.items()]
    if not measured:
        raise RlfdError(
            "none of these runs learned from demonstrations and was evaluated at the end",
            "name others, or wait",
        )
    return measured


def group_lines(
    measured: Sequence[MeasuredRun],
    x: DemoAxis,
    use_iqm: bool,
    policy: str | None,
    labels: Mapping[tuple[str, str], str],
    notes: list[str],
) -> list[Line]:
    """Return the lines that the runs make, points from left to right.

    Args:
        measured: Runs of any number of methods.
        x: The horizontal axis.
        use_iqm: A point is the interquartile mean instead of the mean.
        policy: Whose evaluations were taken; by default those each method is judged by.
        labels: Names of lines by (exp_name, algo), which then tell lines apart.
        notes: What was left out is added here.
    """

    def name(run: MeasuredRun) -> str:
        return labels.get((run.result.exp_name, run.result.algo), "")

    groups = _grouped(
        measured, lambda run: (run.result.env.label, run.result.algo, name(run) or run.settings)
    )
    parts: list[tuple[list[MeasuredRun], str]] = []  # runs of a line, with what it is called
    for group in groups.values():
        called = name(group[0]) or display_name(group[0].result.algo)
        points = _grouped(group, lambda run: _place(run, x)).values()
        if all(len({_other(run, x) for run in runs}) == 1 for runs in points):
            parts.append((group, called))
        else:
            apart = _grouped(group, lambda run: _other(run, x))
            parts += [(runs, f"{called}, {other}") for other, runs in apart.items()]
    lines = []
    for runs, called in parts:
        result = runs[0].result
        alike = [
            own for own, other in parts
            if other == called and own[0].result.env.label == result.env.label
        ]  # fmt: skip
        exp_names = tuple(sorted({run.result.exp_name for run in runs}))
        label = called if len(alike) == 1 else f"{called} ({_common(exp_names)})"
        made = [
            _point(own, x, use_iqm, label, notes)
            for own in _grouped(runs, lambda run: _place(run, x)).values()
        ]
        lines.append(
            Line(
                env=result.env,
                algo=result.algo,
                label=label,
                exp_names=exp_names,
                policy=policy or result.policies[0],
                points=tuple(sorted(made, key=lambda point: point.x)),
            )
        )
    return lines


def _place(run: MeasuredRun, x: DemoAxis) -> str | int:
    """Return what the runs of one point have in common."""
    return run.dataset if x == "quality" else run.number


def _other(run: MeasuredRun, x: DemoAxis) -> str:
    """Return the quantity that is not on the axis, in words."""
    if x == "quality":
        return f"{run.number} demonstrations"
    return run.dataset.rpartition("/")[2]


def _grouped(
    runs: Sequence[MeasuredRun], key: Callable[[MeasuredRun], Any]
) -> dict[Any, list[MeasuredRun]]:
    groups: dict[Any, list[MeasuredRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _common(names: Sequence[str]) -> str:
    """Return what all experiment names begin with, or all of them."""
    pairs = zip(min(names), max(names), strict=False)
    begin = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return begin.rstrip("-_.=,+") or ", ".join(names)


def _point(
    runs: Sequence[MeasuredRun], x: DemoAxis, use_iqm: bool, label: str, notes: list[str]
) -> Point:
    by_seed: dict[int, MeasuredRun] = {}
    for run in sorted(runs, key=lambda run: run.result.exp_name):
        first = by_seed.setdefault(run.result.seed, run)
        if first is not run:
            notes.append(
                f"{label}: seed {run.result.seed} on '{run.dataset}' is there twice, "
                f"'{run.result.run.path}' left out"
            )
    chosen = [by_seed[seed] for seed in sorted(by_seed)]
    values = np.array([run.value for run in chosen])
    interval = statistics.bootstrap_interval(
        values, rng=np.random.default_rng(statistics.BOOTSTRAP_SEED), use_iqm=use_iqm
    )
    xs = [run.quality if x == "quality" else run.number for run in chosen]
    return Point(
        x=float(np.mean(xs)),
        y=statistics.iqm(values) if use_iqm else float(values.mean()),
        low=interval.low,
        high=interval.high,
        seeds=tuple(sorted(by_seed)),
        datasets=tuple(sorted({run.dataset for run in chosen})),
        number=chosen[0].number,
    )


def own_performance(
    measured: Sequence[MeasuredRun], x: DemoAxis, metric: Metric
) -> list[tuple[float, float]]:
    """Return the demonstrations' own performance as (x, y), sorted by x; nothing if unknown."""
    own: dict[str | int, list[tuple[float, float]]] = {}
    for run in measured:
        y = run.success if metric == "success" else run.quality if run.paid_alike else None
        if y is None:
            return []
        place = run.quality if x == "quality" else float(run.number)
        own.setdefault(_place(run, x), []).append((place, y))
    return sorted((float(a), float(b)) for a, b in (np.mean(v, axis=0) for v in own.values()))
