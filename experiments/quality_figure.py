"""What a method makes of demonstrations: its final performance against their quality or number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rlfd.envs import EnvConfig
from rlfd.errors import unknown_name
from rlfd.experiments.drawing import (
    COLUMN,
    MARGIN,
    REFERENCE_DASHES,
    Y_LABELS,
    FigureFiles,
    ReferenceLine,
    assign_styles,
    check_place,
    known_scores,
    maths,
    random_line,
    save,
    seeds_caption,
    short_number,
    style_context,
)
from rlfd.experiments.quality_lines import (
    DEMO_AXES,
    DemoAxis,
    Line,
    group_lines,
    measure,
    own_performance,
)
from rlfd.experiments.results import Metric, common_metric, env_title, load_results
from rlfd.experiments.run_dir import RunDir

__all__ = ["DEMO_AXES", "DemoAxis", "plot_demonstrations"]

_X_LABELS: dict[DemoAxis, str] = {
    "quality": "mean return of the demonstrations",
    "num-demos": "number of demonstrations",
}
_DEMONSTRATIONS = "demonstrations"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_demonstrations(
    runs: Iterable[RunDir],
    out: Path,
    *,
    x: DemoAxis,
    metric: Metric | None = None,
    use_iqm: bool = False,
    policy: Literal["sampled", "greedy"] | None = None,
    command: str = "",
    labels: Mapping[tuple[str, str], str] | None = None,
) -> FigureFiles:
    """Draw final performance against the demonstrations' mean return or number.

    Runs of one algorithm with the same hyperparameters make one line, whatever their experiment
    names. Where the other quantity differs too (number or dataset), each value of it has a line.

    Args:
        runs: Runs of any number of algorithms, environments and seeds.
        out: The figure; its suffix says the format. The data go beside it as CSV.
        x: The horizontal axis.
        metric: What is drawn; by default the return, in which the demonstrations are measured too.
        use_iqm: Draw the interquartile mean over seeds instead of the mean.
        policy: Which policy's evaluations; by default the one each algorithm is judged by.
        command: What the user typed, for the CSV.
        labels: Names of lines by (exp_name, algo); they tell lines apart instead of the
            hyperparameters.

    Raises:
        RlfdError: For a format or axis that is not known, or if no run was evaluated.
    """
    check_place(out)
    if x not in DEMO_AXES:
        raise unknown_name("horizontal axis", x, DEMO_AXES)
    results = load_results(runs)
    metric = common_metric(results, metric or "return")
    notes: list[str] = []
    measured = measure(results, metric, policy, notes)
    lines = group_lines(measured, x, use_iqm, policy, labels or {}, notes)
    panels = list(dict.fromkeys(line.env.label for line in lines))
    given = {
        panel: own_performance(
            [run for run in measured if run.result.env.label == panel], x, metric
        )
        for panel in panels
    }
    levels = {
        panel: _levels(next(line.env for line in lines if line.env.label == panel), metric)
        for panel in panels
    }
    counts = {len(point.seeds) for line in lines for point in line.points}
    caption = seeds_caption(counts, "interquartile mean" if use_iqm else "mean")
    header = [f"command: {command}"] if command else []
    with style_context():
        figure = _draw(lines, panels, given, levels, caption, x, metric)
        data = _data(lines, given, levels, x, metric, use_iqm)
        place = save(figure, out, data, [*header, caption, *notes])
    return FigureFiles(out, place, tuple(notes))


# What the lines are compared with, and how they were made


def _levels(env: EnvConfig, metric: Metric) -> list[ReferenceLine]:
    """Return what the registry's demonstrator and its random policy reach."""
    known = known_scores(env, metric)
    levels = []
    if known is not None:
        is_success = metric == "success"
        value = known.demonstrator_success if is_success else known.demonstrator_return
        if value is not None:
            levels.append(ReferenceLine("controller", value))
    return levels + random_line(env, metric)


# On paper


def _draw(
    lines: Sequence[Line],
    panels: Sequence[str],
    given: Mapping[str, Sequence[tuple[float, float]]],
    levels: Mapping[str, Sequence[ReferenceLine]],
    caption: str,
    x: DemoAxis,
    metric: Metric,
) -> Figure:
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys(line.label for line in lines))
    level_names = list(dict.fromkeys(r.label for panel in panels for r in levels[panel]))
    entries = len(names) + len(level_names) + any(given.values())
    legend_rows = math.ceil(entries / (2 if columns == 1 else 4))
    height = rows * (2.1 if columns == 1 else 1.8) + 0.4 + 0.15 * legend_rows
    figure = Figure(figsize=(COLUMN if columns == 1 else 7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    styles = assign_styles(line.variant for line in lines)
    handles: dict[str, Line2D] = {}
    for index, axis in enumerate(axes.flat):
        if index >= len(panels):
            axis.set_visible(False)
            continue
        panel = panels[index]
        own = [line for line in lines if line.env.label == panel]
        for order, line in enumerate(own):
            marker = _MARKERS[names.index(line.label) % len(_MARKERS)]
            drawn = _draw_line(axis, line, styles[line.variant], marker, 4 - order / len(own))
            handles.setdefault(line.label, drawn)
        _scale_x(axis, own, x)
        if given[panel]:
            handles.setdefault(_DEMONSTRATIONS, _draw_given(axis, given[panel], x, metric))
        for level in levels[panel]:
            dashes = REFERENCE_DASHES[level_names.index(level.label) % len(REFERENCE_DASHES)]
            drawn = axis.axhline(
                level.value, color="0.6", linestyle=dashes, linewidth=0.9, zorder=1
            )
            handles.setdefault(level.label, drawn)
        axis.set_title(env_title(own[0].env))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
        axis.margins(y=0.05)
        if metric == "success":
            axis.set_ylim(-MARGIN, 1 + MARGIN)
        if index + columns >= len(panels):
            axis.set_xlabel(_X_LABELS[x])
        if index % columns == 0:
            axis.set_ylabel(f"final {Y_LABELS[metric]}")
    ordered = [name for name in [*names, _DEMONSTRATIONS, *level_names] if name in handles]
    figure.legend(
        [handles[name] for name in ordered],
        [maths(name) for name in ordered],
        loc="outside lower center",
        ncols=math.ceil(entries / legend_rows),
        title=caption,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0.0,
    )
    return figure


def _draw_line(
    axis: Axes, line: Line, style: tuple[str, Any], marker: str, zorder: float
) -> Line2D:
    colour, dashes = style
    place = [point.x for point in line.points]
    (drawn,) = axis.plot(
        place,
        [point.y for point in line.points],
        color=colour,
        linestyle=dashes,
        linewidth=1.2,
        marker=marker,
        markersize=3.2,
        markeredgewidth=0,
        zorder=zorder,
    )
    bounded = [
        (p.x, p.low, p.high) for p in line.points if p.low is not None and p.high is not None
    ]
    if bounded:
        xs, lows, highs = map(list, zip(*bounded, strict=True))
        axis.vlines(xs, lows, highs, color=colour, linewidth=0.9, alpha=0.8, zorder=zorder)
        if len(bounded) == len(line.points) > 1:
            axis.fill_between(
                xs, lows, highs, color=colour, alpha=0.12, linewidth=0, zorder=zorder - 2
            )
    return drawn


def _draw_given(
    axis: Axes, given: Sequence[tuple[float, float]], x: DemoAxis, metric: Metric
) -> Line2D:
    """Draw the demonstrations' own performance: y = x where both are returns."""
    xs, ys = (list(values) for values in zip(*given, strict=True))
    if x == "quality" and metric != "success":
        xs = ys = list(axis.get_xlim())
    elif len(xs) == 1:
        xs, ys = list(axis.get_xlim()), [ys[0], ys[0]]
    limits = axis.get_xlim()
    (drawn,) = axis.plot(xs, ys, color="0.25", linestyle=(0, (4, 2)), linewidth=1.0, zorder=2)
    axis.set_xlim(limits)
    return drawn


def _scale_x(axis: Axes, lines: Sequence[Line], x: DemoAxis) -> None:
    places = sorted({point.x for line in lines for point in line.points})
    if x == "num-demos" and places[-1] >= 8 * places[0]:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(places))
        axis.xaxis.set_minor_locator(NullLocator())
    elif x == "num-demos":
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int) -> str:
    return short_number(value).replace("-", "−")  # as on the other axis


def _data(
    lines: Sequence[Line],
    given: Mapping[str, Sequence[tuple[float, float]]],
    levels: Mapping[str, Sequence[ReferenceLine]],
    x: DemoAxis,
    metric: Metric,
    use_iqm: bool,
) -> pd.DataFrame:
    """Return every number in the figure: one row per point, one per horizontal line."""
    columns = ["env", "label", "kind", "algo", "exp_names", "policy", "metric", "statistic"]
    columns += ["n", "seeds", "demos", "num_demos", "x_axis", "x", "y", "low", "high"]
    rows: list[dict[str, Any]] = []
    common = {"metric": metric, "x_axis": x}
    for line in lines:
        for point in line.points:
            rows.append(
                common
                | {
                    "env": line.env.label,
                    "label": line.label,
                    "kind": "point",
                    "algo": line.algo,
                    "exp_names": " ".join(line.exp_names),
                    "policy": line.policy,
                    "statistic": "iqm" if use_iqm else "mean",
                    "n": len(point.seeds),
                    "seeds": " ".join(map(str, point.seeds)),
                    "demos": " ".join(point.datasets),
                    "num_demos": point.number,
                    "x": point.x,
                    "y": point.y,
                    "low": point.low,
                    "high": point.high,
                }
            )
    for panel, points in given.items():
        rows += [
            common
            | {"env": panel, "label": _DEMONSTRATIONS, "kind": _DEMONSTRATIONS}
            | {"x": place, "y": value}
            for place, value in points
        ]
    for panel, references in levels.items():
        rows += [
            common | {"env": panel, "label": line.label, "kind": "reference", "y": line.value}
            for line in references
        ]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64", "num_demos": "Int64"})
