"""Learning curves: the statistic over seeds with a 95 % bootstrap band, nothing smoothed.

Beside every figure lies the CSV it was drawn from, headed by the command that made it. matplotlib
is used through its objects, so that no window system and no global state is involved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from rlfd import envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError, unknown_name
from rlfd.experiments import statistics
from rlfd.experiments.drawing import (
    COLUMN,
    FIGURE_SUFFIXES,
    MARGIN,
    REFERENCE_DASHES,
    Y_LABELS,
    FigureFiles,
    ReferenceLine,
    assign_styles,
    check_suffix,
    maths,
    save,
    short_number,
    style_context,
)
from rlfd.experiments.drawing import references as default_references
from rlfd.experiments.results import (
    Metric,
    RunResult,
    common_metric,
    differences,
    display_name,
    env_title,
    load_results,
)
from rlfd.experiments.run_dir import RunDir

__all__ = ["FIGURE_SUFFIXES", "X_AXES", "FigureFiles", "ReferenceLine", "plot_learning_curves"]

Array = NDArray[np.float64]
XAxis = Literal["env-steps", "frames", "wall-time", "labels"]
X_AXES: tuple[XAxis, ...] = ("env-steps", "frames", "wall-time", "labels")


@dataclass(frozen=True)
class _Curve:
    """One line of one panel; `x` is empty for a method that does not interact."""

    env: EnvConfig
    algo: str
    exp_name: str
    policy: str
    is_second: bool  # the other policy of a pair drawn for the same runs
    seeds: tuple[int, ...]
    x: Array
    y: Array
    low: Array | None
    high: Array | None

    @property
    def variant(self) -> tuple[str, str]:
        return self.exp_name, self.algo


def plot_learning_curves(
    runs: Iterable[RunDir],
    out: Path,
    *,
    x: XAxis = "env-steps",
    metric: Metric | None = None,
    use_iqm: bool = False,
    policy: Literal["sampled", "greedy", "both"] | None = None,
    command: str = "",
    labels: Mapping[tuple[str, str], str] | None = None,
    references: Mapping[str, Sequence[ReferenceLine]] | None = None,
    panels_of: Mapping[str, EnvConfig] | None = None,
) -> FigureFiles:
    """Draw the periodic evaluations of `runs`: one panel per environment and start.

    Args:
        runs: Runs of any number of algorithms, variants, environments and seeds.
        out: The figure; its suffix says the format. The data go beside it as CSV.
        x: Unit of the horizontal axis.
        metric: What is drawn; by default success where every environment has a success test.
        use_iqm: Draw the interquartile mean over seeds instead of the mean.
        policy: Which policy's evaluations; by default the one each algorithm is judged by.
        command: What the user typed, for the CSV.
        labels: Names for the legend by (exp_name, algo); made from the runs where missing.
        references: Horizontal lines by environment label; by default the demonstrations' mean and
            the registry's random policy.
        panels_of: Environments by label of those whose curves go into their panels.

    Raises:
        RlfdError: For a format or axis that is not known, or if nothing has been evaluated yet.
    """
    check_suffix(out)
    if x not in X_AXES:
        raise unknown_name("horizontal axis", x, X_AXES)
    results = load_results(runs)
    metric = common_metric(results, metric)
    shown = panels_of or {}
    results = [replace(result, env=shown.get(result.env.label, result.env)) for result in results]
    notes: list[str] = []
    curves = _curves(results, x, metric, use_iqm, policy, notes)
    panels = list(dict.fromkeys(curve.env.label for curve in curves))
    lines = {
        panel: references.get(panel, ())
        if references is not None
        else default_references([result for result in results if result.env.label == panel], metric)
        for panel in panels
    }
    names = _legend_names(curves, labels or {})
    caption = _caption(curves, use_iqm)
    data = _data(curves, names, lines, x, metric, use_iqm)
    with style_context():
        figure = _draw(curves, panels, lines, names, caption, x, metric)
        header = [f"command: {command}"] if command else []
        data_path = save(figure, out, data, [*header, f"{caption}; no smoothing", *notes])
    return FigureFiles(out, data_path, tuple(notes))


def _curves(
    results: Sequence[RunResult],
    x: XAxis,
    metric: Metric,
    use_iqm: bool,
    policy: str | None,
    notes: list[str],
) -> list[_Curve]:
    groups: dict[tuple[str, str, str], list[RunResult]] = {}
    for result in results:
        groups.setdefault((result.env.label, result.exp_name, result.algo), []).append(result)
    curves = []
    for group in groups.values():
        policies = group[0].policies
        name = f"{group[0].exp_name}/{group[0].algo} on {group[0].env.label}"
        wanted = policies if policy == "both" else (policy or policies[0],)
        if policy not in (None, "both", *policies):
            notes.append(f"{name}: has no {policy} policy, left out")
            continue
        if differing := differences(group):
            notes.append(f"{name}: {differing}")
        for name in wanted:
            curve = _curve(group, x, metric, use_iqm, name, name != wanted[0], notes)
            if curve is not None:
                curves.append(curve)
    if not curves:
        if not any(policy in (None, "both", *result.policies) for result in results):
            raise RlfdError(f"none of these runs has a {policy} policy", "leave --policy out")
        raise RlfdError(
            "none of these runs has been evaluated yet", "wait, or lower --eval-every when training"
        )
    return curves


def _curve(
    group: Sequence[RunResult],
    x: XAxis,
    metric: Metric,
    use_iqm: bool,
    policy: str,
    is_second: bool,
    notes: list[str],
) -> _Curve | None:
    """Return the line of one variant's seeds; None (and a note) if there is nothing to draw."""
    name = f"{group[0].exp_name}/{group[0].algo} on {group[0].env.label} ({policy})"
    tables = {
        result.seed: points
        for result in sorted(group, key=lambda result: result.seed)
        if len(points := result.evaluation_curve(policy, metric))
    }
    missing = sorted(result.seed for result in group if result.seed not in tables)
    if missing:
        notes.append(f"{name}: seed {', '.join(map(str, missing))} not evaluated yet, left out")
    if not tables:
        return None
    if not group[0].interacts:
        grid = np.zeros(0)
        if x == "labels":  # as many as it was shown
            shown = [result.run.status()["demos"]["transitions"] for result in group]
            grid = np.array([float(np.mean(shown))])
        values = np.array([[points.iloc[-1]] for points in tables.values()])
    else:
        by_seed = {result.seed: result for result in group}
        xs = [_x_values(by_seed[seed], points, x) for seed, points in tables.items()]
        ys = [np.asarray(points, dtype=np.float64) for points in tables.values()]
        grid, values = _on_common_grid(xs, ys, name, notes)
    low = high = None
    if len(values) >= statistics.FEWEST_SEEDS:
        rng = np.random.default_rng(statistics.BOOTSTRAP_SEED)
        low, high = statistics.bootstrap_curve(values, rng=rng, use_iqm=use_iqm)
    return _Curve(
        env=group[0].env,
        algo=group[0].algo,
        exp_name=group[0].exp_name,
        policy=policy,
        is_second=is_second,
        seeds=tuple(tables),
        x=grid,
        y=np.array([statistics.iqm(c) if use_iqm else c.mean() for c in values.T]),
        low=low,
        high=high,
    )


def _x_values(result: RunResult, points: pd.Series[float], x: XAxis) -> Array:
    steps = np.asarray(points.index, dtype=np.float64)
    if x in ("env-steps", "labels"):  # who asks, asks at every step
        return steps
    if x == "frames":
        ours = result.env.name in envs.names()  # of others nothing is known, nor looked up
        default = envs.spec(result.env.name).options.get("frame_skip", 1) if ours else 1
        return steps * float(result.env.options.get("frame_skip", default))
    train = result.run.train()
    begin = np.zeros(1)
    known_steps = np.concatenate([begin, np.asarray(train["env_steps"], dtype=np.float64)])
    known_times = np.concatenate([begin, np.asarray(train["wall_seconds"], dtype=np.float64)])
    return np.asarray(np.interp(steps, known_steps, known_times), dtype=np.float64)


def _on_common_grid(
    xs: Sequence[Array], ys: Sequence[Array], name: str, notes: list[str]
) -> tuple[Array, Array]:
    """Put the seeds on one grid within the range that all of them cover.

    Returns:
        The grid, shape (P,), and the values, shape (n, P). Seeds evaluated at the same places are
        taken as they are; otherwise each is interpolated linearly between its own evaluations.
    """
    low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
    if low > high:
        raise RlfdError(
            f"the seeds of {name} have no evaluated range in common", "plot fewer of them"
        )
    if any(x[-1] > high for x in xs):
        notes.append(
            f"{name}: runs of unequal length, drawn only as far as all {len(xs)} seeds reach"
        )
    inside = [(x >= low) & (x <= high) for x in xs]
    grid = np.unique(np.concatenate([x[i] for x, i in zip(xs, inside, strict=True)]))
    if all(np.array_equal(x[i], grid) for x, i in zip(xs, inside, strict=True)):
        return grid, np.stack([y[i] for y, i in zip(ys, inside, strict=True)])
    notes.append(f"{name}: seeds evaluated at different places, interpolated in between")
    return grid, np.stack([np.interp(grid, x, y) for x, y in zip(xs, ys, strict=True)])


def _legend_names(
    curves: Sequence[_Curve], labels: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str, str], str]:
    """Return the legend's text by (exp_name, algo, policy), with n where it is not the same."""
    variants: dict[str, set[str]] = {}
    for curve in curves:
        variants.setdefault(curve.algo, set()).add(curve.exp_name)
    counts = _seed_counts(curves)
    names = {}
    for curve in curves:
        name = labels.get(curve.variant)
        if name is None:
            name = display_name(curve.algo)
            if len(variants[curve.algo]) > 1:
                name += f" ({curve.exp_name})"
        if any(other.is_second for other in curves):
            name += f", {curve.policy}"
        key = (curve.exp_name, curve.algo, curve.policy)
        if len(set().union(*counts.values())) > 1:
            own = sorted(counts[key])
            name += f" (n={own[0]})" if len(own) == 1 else f" (n={own[0]}–{own[-1]})"
        names[key] = name
    return names


def _seed_counts(curves: Sequence[_Curve]) -> dict[tuple[str, str, str], set[int]]:
    counts: dict[tuple[str, str, str], set[int]] = {}
    for curve in curves:
        key = (curve.exp_name, curve.algo, curve.policy)
        counts.setdefault(key, set()).add(len(curve.seeds))
    return counts


def _caption(curves: Sequence[_Curve], use_iqm: bool) -> str:
    counts = set().union(*_seed_counts(curves).values())
    seeds = f"{counts.pop()} seeds" if len(counts) == 1 else "n seeds"
    if seeds == "1 seeds":
        return "a single seed, no interval"
    statistic = "interquartile mean" if use_iqm else "mean"
    if all(curve.low is None for curve in curves):
        return f"{statistic} over {seeds}, no interval (it needs {statistics.FEWEST_SEEDS})"
    return f"{statistic} and 95% bootstrap interval over {seeds}"


def _data(
    curves: Sequence[_Curve],
    names: Mapping[tuple[str, str, str], str],
    lines: Mapping[str, Sequence[ReferenceLine]],
    x: XAxis,
    metric: Metric,
    use_iqm: bool,
) -> pd.DataFrame:
    """Return every number in the figure: one row per point, one per horizontal line."""
    columns = ["env", "label", "kind", "algo", "exp_name", "policy", "metric", "statistic"]
    columns += ["n", "seeds", "x_axis", "x", "y", "low", "high"]
    rows: list[dict[str, Any]] = []
    for curve in curves:
        identity = {
            "env": curve.env.label,
            "label": names[curve.exp_name, curve.algo, curve.policy],
            "kind": "curve" if len(curve.x) else "level",
            "algo": curve.algo,
            "exp_name": curve.exp_name,
            "policy": curve.policy,
            "metric": metric,
            "statistic": "iqm" if use_iqm else "mean",
            "n": len(curve.seeds),
            "seeds": " ".join(map(str, curve.seeds)),
            "x_axis": x,
        }
        for i, y in enumerate(curve.y):
            band = {}
            if curve.low is not None and curve.high is not None:
                band = {"low": curve.low[i], "high": curve.high[i]}
            place = {"x": curve.x[i]} if len(curve.x) else {}
            rows.append(identity | place | {"y": y} | band)
    for panel, references in lines.items():
        rows += [
            {"env": panel, "label": line.label, "kind": "reference", "metric": metric}
            | {"y": line.value}
            for line in references
        ]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})


def _draw(
    curves: Sequence[_Curve],
    panels: Sequence[str],
    lines: Mapping[str, Sequence[ReferenceLine]],
    names: Mapping[tuple[str, str, str], str],
    caption: str,
    x: XAxis,
    metric: Metric,
) -> Figure:
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = COLUMN if columns == 1 else 7.0
    styles = assign_styles(curve.variant for curve in curves)
    reference_names = list(dict.fromkeys(r.label for panel in panels for r in lines[panel]))
    entries = len(names) + len(reference_names)
    legend_rows = math.ceil(entries / (2 if columns == 1 else 4))
    legend_columns = math.ceil(entries / legend_rows)
    height = rows * (1.95 if columns == 1 else 1.75 if columns == 2 else 1.5)
    height += 0.4 + 0.15 * legend_rows
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    same_scale = metric == "success" or len({curve.env.name for curve in curves}) == 1
    axes = figure.subplots(rows, columns, squeeze=False, sharey=same_scale)
    scale, x_label = _x_scale(curves, x)
    handles: dict[str, Line2D] = {}
    for index, axis in enumerate(axes.flat):
        if index >= len(panels):
            axis.set_visible(False)
            continue
        panel = panels[index]
        own = [curve for curve in curves if curve.env.label == panel]
        _draw_panel(axis, own, styles, names, scale, handles)
        for line in lines[panel]:
            dashes = REFERENCE_DASHES[reference_names.index(line.label) % len(REFERENCE_DASHES)]
            shade = "0.25" if reference_names.index(line.label) == 0 else "0.55"
            drawn = axis.axhline(line.value, color=shade, linestyle=dashes, linewidth=1.0, zorder=1)
            handles.setdefault(line.label, drawn)
        axis.set_title(env_title(own[0].env))
        if index + columns >= len(panels):
            axis.set_xlabel(x_label)
        if index % columns == 0:
            axis.set_ylabel(Y_LABELS[metric])
    for axis in axes.flat:
        axis.margins(y=0.05)
        if metric == "success":
            axis.set_ylim(-MARGIN, 1 + MARGIN)
    ordered = [name for name in [*names.values(), *reference_names] if name in handles]
    figure.legend(
        [handles[name] for name in ordered],
        [maths(name) for name in ordered],
        loc="outside lower center",
        ncols=legend_columns,
        title=caption,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0.0,
    )
    return figure


def _draw_panel(
    axis: Axes,
    curves: Sequence[_Curve],
    styles: Mapping[tuple[str, str], tuple[str, Any]],
    names: Mapping[tuple[str, str, str], str],
    scale: float,
    handles: dict[str, Line2D],
) -> None:
    ends = [curve.x[-1] for curve in curves if len(curve.x)]
    end = max(ends) / scale if ends else 1.0
    for order, curve in enumerate(curves):
        colour, dashes = styles[curve.variant]
        label = names[curve.exp_name, curve.algo, curve.policy]
        place = curve.x / scale
        y, low, high = curve.y, curve.low, curve.high
        if not len(place):  # a method that does not interact: a level over the whole width
            place, y = np.array([0.0, end]), np.repeat(y, 2)
            low = None if low is None else np.repeat(low, 2)
            high = None if high is None else np.repeat(high, 2)
        zorder = 3 - order / len(curves)  # the first named lies on top
        (line,) = axis.plot(
            place,
            y,
            color=colour,
            linestyle=dashes,  # of the second policy, too: algorithms may share a colour
            linewidth=0.7 if curve.is_second else 1.6,
            marker="o" if len(place) == 1 else None,
            markersize=3,
            clip_on=len(place) > 1,  # a single point may lie on the frame
            zorder=zorder,
        )
        handles.setdefault(label, line)
        if low is not None and high is not None:
            axis.fill_between(
                place, low, high, color=colour, alpha=0.18, linewidth=0, zorder=zorder - 1
            )
            if len(place) == 1:
                axis.vlines(place, low, high, color=colour, linewidth=1.0, zorder=zorder)
    axis.set_xlim(0, end)
    if ends:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(short_number))
    else:
        axis.set_xticks([])
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)


def _x_scale(curves: Sequence[_Curve], x: XAxis) -> tuple[float, str]:
    """Return what to divide by, and the axis label."""
    ends = [curve.x[-1] for curve in curves if len(curve.x)]
    if not ends:
        return 1.0, "no interaction with the environment"
    if x == "env-steps":
        return 1.0, "environment steps"
    if x == "labels":
        return 1.0, "labels: states with the demonstrator's action"
    if x == "frames":
        return 1.0, "environment frames"
    for seconds, unit in ((3600.0, "h"), (60.0, "min")):
        if max(ends) >= 3 * seconds:
            return seconds, f"wall-clock time ({unit})"
    return 1.0, "wall-clock time (s)"
