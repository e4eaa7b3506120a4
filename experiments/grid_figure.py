"""Pictures of what was recovered in a known finite environment, and of gaps against demonstrations.

A cell of a grid is a state. In a chain, rows are actions: what pays there depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from rlfd.envs import Table
from rlfd.errors import RlfdError
from rlfd.experiments import statistics
from rlfd.experiments.drawing import (
    COLUMN,
    FigureFiles,
    assign_styles,
    check_place,
    maths,
    save,
    seeds_caption,
    style_context,
)
from rlfd.experiments.known import Recovered, read_recovered
from rlfd.experiments.results import env_title
from rlfd.experiments.run_dir import RunDir

__all__ = ["plot_gaps", "plot_recovered"]

Array = NDArray[np.float64]

ARROW = "#D55E00"  # told apart from blue with every kind of colour blindness
REWARDS, VISITS = "cividis", "Blues"


def plot_recovered(run: RunDir, out: Path, *, command: str = "") -> FigureFiles:
    """Draw true and recovered reward, the demonstrations' and the learned policy's visits.

    Rewards are known up to a constant at most: compare patterns, not numbers. Arrows are the mean
    direction of the learned policy where it goes; a short one is undecided.

    Args:
        run: A run of a method that recovers a reward from known dynamics.
        out: The figure; its suffix says the format. The data go beside it as CSV.
        command: What the user typed, for the CSV.

    Raises:
        RlfdError: For a format that is not known, or a run that has no such result.
    """
    check_place(out)
    found = read_recovered(run)
    if found is None:
        raise RlfdError(
            f"run {run.path} recovers no reward from known dynamics", "plot it with other runs"
        )
    config = run.config()
    with style_context():
        figure = _draw(found, env_title(config.env))
        header = [f"command: {command}"] if command else []
        header.append("visits: expected steps per episode; move: mean direction of the policy")
        data = save(figure, out, _cells(found), header)
    return FigureFiles(out, data, ())


def _moves(found: Recovered) -> Array:
    """Return the learned policy's mean direction in each state, NaN where it never goes. (S, 2)."""
    total = found.visits.sum(axis=1, keepdims=True)
    shares = np.divide(found.visits, total, out=np.full_like(found.visits, np.nan), where=total > 0)
    directions: Array = shares @ found.table.moves
    return directions


def _cells(found: Recovered) -> pd.DataFrame:
    """Return every number in the figure: one row for each state and action."""
    states, actions = found.rewards.shape
    moves = np.repeat(_moves(found), actions, axis=0)
    state = np.repeat(np.arange(states), actions)
    row, column = np.divmod(state, found.table.cells[1])
    return pd.DataFrame(
        {
            "state": state,
            "row": row,
            "column": column,
            "action": np.tile(np.arange(actions), states),
            "true_reward": found.table.rewards.ravel(),
            "recovered_reward": found.rewards.ravel(),
            "demonstrated_visits": found.demonstrated.ravel(),
            "visits": found.visits.ravel(),
            "move_right": moves[:, 0],
            "move_down": moves[:, 1],
        }
    )


def _draw(found: Recovered, title: str) -> Figure:
    is_chain = found.table.cells[0] == 1
    shape = (4, 1) if is_chain else (2, 2)
    figure = Figure(figsize=(COLUMN, 4.2 if is_chain else 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(*shape, squeeze=False)
    figure.suptitle(title, fontsize=8)
    most = max(found.visits.sum(axis=1).max(), found.demonstrated.sum(axis=1).max())
    norm = PowerNorm(0.5, 0.0, float(most))  # a goal must not hide the way to it
    panels: tuple[tuple[str, Array, dict[str, Any]], ...] = (
        ("true reward", found.table.rewards, {"cmap": REWARDS}),
        ("recovered reward", found.rewards, {"cmap": REWARDS}),
        ("visits, demonstrations", found.demonstrated, {"cmap": VISITS, "norm": norm}),
        ("visits, learned policy", found.visits, {"cmap": VISITS, "norm": norm}),
    )
    for axis, (name, values, options) in zip(axes.flat, panels, strict=True):
        is_reward = options["cmap"] == REWARDS
        image = axis.imshow(_picture(values, found.table, mean=is_reward), **options)
        bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=6)
        bar.outline.set_linewidth(0.4)
        if not is_reward:
            ticks = [value for value in (0, 1, 3, 10, 30, 100, 300) if value <= most]
            bar.set_ticks(FixedLocator(ticks))
        axis.set_title(name, fontsize=7, pad=3)
        axis.xaxis.set_major_locator(NullLocator())
        axis.yaxis.set_major_locator(NullLocator())
        if is_chain:
            axis.set_yticks([0, 1], ["ahead", "back"], fontsize=6)
    if not is_chain:
        _draw_arrows(axes.flat[3], found)
    return figure


def _picture(values: Array, table: Table, *, mean: bool) -> Array:
    """Return what is shown as an image: actions x states of a chain, else the grid."""
    if table.cells[0] == 1:
        return values.T
    by_state: Array = values.mean(axis=1) if mean else values.sum(axis=1)
    return by_state.reshape(table.cells)


def _draw_arrows(axis: Axes, found: Recovered) -> None:
    moves = _moves(found)
    seldom = found.visits.sum(axis=1) < 1e-3
    moves[seldom | (np.linalg.norm(moves, axis=1) < 0.05)] = np.nan
    rows, columns = np.divmod(np.arange(len(moves)), found.table.cells[1])
    axis.quiver(
        columns, rows, moves[:, 0], moves[:, 1], color=ARROW, angles="xy", scale_units="xy",
        scale=1.25, pivot="mid", width=0.11 / found.table.cells[1], headwidth=3.6, headlength=3.6,
        headaxislength=3.2,
    )  # fmt: skip


def plot_gaps(
    values: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    algorithms: Mapping[str, str],
    measure: str,
    out: Path,
    *,
    command: str = "",
) -> FigureFiles:
    """Draw a gap against the number of demonstrations: one panel for each task.

    Args:
        values: By task, line and number of demonstrations: one number for each seed.
        algorithms: Algorithm of each line.
        measure: What the gap is.
        out: The figure; its suffix says the format. The data go beside it as CSV.
        command: What the user typed, for the CSV.
    """
    check_place(out)
    styles = assign_styles((label, algo) for label, algo in algorithms.items())
    rows: list[dict[str, Any]] = []
    for task, lines in values.items():
        for label, points in lines.items():
            for number, seeds in sorted(points.items()):
                summary = statistics.summarise(list(seeds))
                place = {"task": task, "label": label, "num_demos": number, "measure": measure}
                bounds = {"low": summary.interval.low, "high": summary.interval.high}
                rows.append(place | {"n": summary.n, "mean": summary.mean} | bounds)
    data = pd.DataFrame(rows)
    with style_context():
        figure = Figure(figsize=(COLUMN if len(values) == 1 else 7.0, 2.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(values), squeeze=False)
        for axis, task in zip(axes.flat, values, strict=True):
            for group, part in data[data["task"] == task].groupby("label", sort=False):
                name = str(group)
                colour, dashes = styles[name, algorithms[name]]
                axis.plot(
                    part["num_demos"], 100 * part["mean"], color=colour, linestyle=dashes,
                    marker="o", markersize=2.5, linewidth=1.2, label=maths(name),
                )  # fmt: skip
                low, high = (100 * part[side].astype(float) for side in ("low", "high"))
                axis.fill_between(
                    part["num_demos"], low, high, color=colour, alpha=0.18, linewidth=0
                )
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(FixedLocator(sorted(set(data["num_demos"]))))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axis.set_ylim(bottom=0)
            axis.set_title(task)
            axis.set_xlabel("demonstrations")
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", color="0.9", linewidth=0.5)
        axes.flat[0].set_ylabel(f"{measure} (%)")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        caption = seeds_caption(
            {int(n) for n in data["n"]},
            "mean",
            "95% bootstrap interval of the interquartile mean",
        )
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2 if len(values) == 1 else 4,
            frameon=False, title=caption, handlelength=2.6,
        )  # fmt: skip
        header = [f"command: {command}"] if command else []
        csv = save(figure, out, data, [*header, caption])
    return FigureFiles(out, csv, ())
