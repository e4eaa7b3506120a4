"""A suite's figures, drawn from its finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlfd.experiments import figures
from rlfd.experiments.grid_figure import plot_gaps
from rlfd.experiments.measuring import Measuring
from rlfd.experiments.quality_figure import plot_demonstrations
from rlfd.experiments.results import env_title
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import FigurePlan, Row, Section, Suite
from rlfd.experiments.suite_plan import exp_name, row_env, rows_of, uses_demos

__all__ = ["draw_suite"]


def draw_suite(
    measuring: Measuring,
    sections: Sequence[Section],
    folder: Path,
    table: pd.DataFrame,
    command: str,
    suffix: str = ".png",
) -> list[figures.FigureFiles]:
    """Draw the suite's figures from the rows with runs, as files that end with `suffix`.

    Learning curves are drawn for each set of demonstrations, the others over all of them.
    """
    suite = measuring.suite
    drawn = []
    for entry in suite.figures:
        rows = [suite.row(label) for label in entry.rows]
        panels = [section for section in sections if section.group.name == entry.group]
        if entry.x not in ("", "labels"):
            drawn += _over_demonstrations(measuring, entry, panels, folder, command, suffix)
            continue
        for name in dict.fromkeys(section.demos_name for section in panels):
            own = [section for section in panels if section.demos_name == name]
            runs = _shown_runs(measuring, own, rows)
            if not runs:
                continue
            stem = f"{entry.name}-{name}" if len(suite.demos) > 1 else entry.name
            drawn.append(
                figures.plot_learning_curves(
                    runs,
                    folder / f"{stem}{suffix}",
                    x="labels" if entry.x == "labels" else "env-steps",
                    metric=measuring.metric,
                    command=command,
                    labels={
                        (exp_name(suite, row, own[0].demos), row.algo): row.label for row in rows
                    },
                    references=_reference_lines(suite, own, table),
                    panels_of={
                        row_env(row, section.task).label: section.task.config
                        for section in own
                        for row in rows
                        if row.env
                    },
                )
            )
    return drawn


def _shown_runs(
    measuring: Measuring, sections: Sequence[Section], rows: Sequence[Row]
) -> list[RunDir]:
    return [
        run
        for section in sections
        for row in rows
        if row in rows_of(measuring.suite, section)
        for run in measuring.finished(section, row)
    ]


def _over_demonstrations(
    measuring: Measuring,
    entry: FigurePlan,
    sections: Sequence[Section],
    folder: Path,
    command: str,
    suffix: str,
) -> list[figures.FigureFiles]:
    """Draw final performance against quality or number of the demonstrations of all sections."""
    suite = measuring.suite
    rows = [row for row in map(suite.row, entry.rows) if row.algo and uses_demos(suite, row)]
    runs = _shown_runs(measuring, sections, rows)
    if not runs:
        return []
    if entry.measure:
        return [_gap_figure(measuring, entry, sections, rows, folder, command, suffix)]
    labels = {
        (exp_name(suite, row, section.demos), row.algo): row.label
        for section in sections
        for row in rows
    }
    alone = [figure.name for figure in suite.figures].count(entry.name) == 1
    stem = entry.name if alone else f"{entry.name}-{entry.group}"
    files = plot_demonstrations(
        runs,
        folder / f"{stem}{suffix}",
        x="quality" if entry.x == "quality" else "num-demos",
        command=command,
        labels=labels,
    )
    return [files]


def _gap_figure(
    measuring: Measuring,
    entry: FigurePlan,
    sections: Sequence[Section],
    rows: Sequence[Row],
    folder: Path,
    command: str,
    suffix: str,
) -> figures.FigureFiles:
    """Draw a gap of known finite environments against the number of demonstrations."""
    values: dict[str, dict[str, dict[int, Sequence[float]]]] = {}
    for section in sections:
        for row in rows:
            measured = measuring.measure(section, row).values.get(entry.measure)
            if measured and section.demos is not None:
                lines = values.setdefault(env_title(section.task.config), {})
                number = row.num_demos or section.demos.num or section.demos.episodes
                lines.setdefault(row.label, {})[number] = measured
    algorithms = {row.label: row.algo for row in rows}
    out = folder / f"{entry.name}{suffix}"
    return plot_gaps(values, algorithms, entry.measure, out, command=command)


def _reference_lines(
    suite: Suite, sections: Sequence[Section], table: pd.DataFrame
) -> dict[str, list[figures.ReferenceLine]]:
    """Return what the rows without training reach, by environment label; random comes last."""
    policies = sorted((row for row in suite.rows if row.policy), key=lambda r: r.policy == "random")
    final = table[table["measure"] == "final, sampled"]
    lines = {}
    for section in sections:
        # other groups of the same demonstrations may have the row that this one lacks
        own = final[(final["task"] == section.task.name) & (final["demos"] == section.demos_name)]
        means = dict(zip(own["row"], own["mean"], strict=True))
        lines[section.task.config.label] = [
            figures.ReferenceLine(row.label, float(means[row.label]))
            for row in policies
            if pd.notna(means.get(row.label))
        ]
    return lines
