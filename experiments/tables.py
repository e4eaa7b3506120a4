"""Tables over seeds: what a paper prints about finished runs, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlfd.experiments import statistics
from rlfd.experiments.results import (
    METRIC_COLUMNS,
    Metric,
    RunResult,
    common_metric,
    differences,
    load_results,
)
from rlfd.experiments.run_dir import RunDir
from rlfd.files import write_text

__all__ = [
    "BEST_TRAINING",
    "DENSE",
    "ENV_STEPS",
    "MEASURES",
    "SHARE",
    "SUITE_MEASURES",
    "display_table",
    "format_statistics",
    "markdown",
    "measure",
    "reached_after",
    "reached_row",
    "results_table",
    "save_table",
    "statistics_row",
]

_EVALUATIONS = {
    f"{phase}, {policy}": (phase, policy)
    for phase in ("final", "best")
    for policy in ("sampled", "greedy")
}
BEST_TRAINING = "best 100 training"
MEASURES = (*_EVALUATIONS, BEST_TRAINING)
"""Columns of every table: final weights, best checkpoint, best consecutive training episodes."""
SHARE = "share of demonstrations"
DENSE = "dense return"
SUITE_MEASURES = (*MEASURES, SHARE, DENSE)
"""Columns of a suite's tables: also the final return of the policy that the method is judged by, as
share of that of its demonstrations, and with the environment's own dense reward."""


ENV_STEPS = "env steps"
"""The metric of rows that say after how many env steps something was reached."""


def measure(result: RunResult, metric: Metric) -> dict[str, float]:
    """Return one number for each of `MEASURES` that a run has."""
    values: dict[str, float | None] = {
        name: result.evaluation_mean(phase, policy, metric)
        for name, (phase, policy) in _EVALUATIONS.items()
    }
    training = result.training[METRIC_COLUMNS[metric]].dropna()
    values[BEST_TRAINING] = statistics.best_window(training.to_list())
    return {name: value for name, value in values.items() if value is not None}


def statistics_row(values: Sequence[float]) -> dict[str, Any]:
    """Return the statistics of one number per seed as table columns; None where undefined."""
    if not values:
        return dict.fromkeys(("n", "mean", "se", "iqm", "low", "high")) | {"n": 0}
    summary = statistics.summarise(values)
    return {
        "n": summary.n,
        "mean": summary.mean,
        "se": summary.error,
        "iqm": summary.iqm,
        "low": summary.interval.low,
        "high": summary.interval.high,
    }


def reached_after(result: RunResult, policy: str, metric: Metric, value: float) -> float:
    """Return the env steps of a run's first evaluation of at least `value`; infinity without."""
    curve = result.evaluation_curve(policy, metric)
    return float(min(curve.index[curve >= value], default=math.inf))


def reached_row(values: Sequence[float]) -> dict[str, Any]:
    """Return median and interval of `reached_after`, one number per seed, as table columns.

    `reached` counts the seeds that got there; a median or an end that no seed reached is None.
    """
    if not values:
        return {"n": 0}
    rng = np.random.default_rng(statistics.BOOTSTRAP_SEED)
    interval = statistics.median_interval(values, rng=rng)
    row = {"median": float(np.median(values)), "low": interval.low, "high": interval.high}
    finite = {k: v if v is not None and math.isfinite(v) else None for k, v in row.items()}
    return {"n": len(values), "reached": sum(map(math.isfinite, values))} | finite


def results_table(runs: Iterable[RunDir], metric: Metric | None = None) -> pd.DataFrame:
    """Return the statistics over seeds of every measure of every variant, for finished runs.

    Args:
        runs: Runs of any number of algorithms, variants, environments and seeds.
        metric: By default success where every environment has a success test, else return.

    Returns:
        One row per (env, exp_name, algo, measure): `metric`, `n`, `mean`, `se`, `iqm`, the IQM's
        95 % bootstrap interval `low` and `high` (empty below three seeds), and a `note`.
    """
    results = load_results(runs)
    metric = common_metric(results, metric)
    groups: dict[tuple[str, str, str], list[RunResult]] = {}
    for result in results:
        groups.setdefault((result.env.label, result.exp_name, result.algo), []).append(result)
    rows = []
    for (env, exp_name, algo), group in groups.items():
        finished = [result for result in group if result.status.get("state") == "finished"]
        missing = len(group) - len(finished)
        unfinished = f"{missing} of {len(group)} runs not finished" if missing else ""
        note = "; ".join(filter(None, (unfinished, differences(finished))))
        measured = [measure(result, metric) for result in finished]
        for name in MEASURES:
            values = [values[name] for values in measured if name in values]
            identity = {"env": env, "exp_name": exp_name, "algo": algo, "measure": name}
            rows.append(identity | {"metric": metric} | statistics_row(values) | {"note": note})
    return pd.DataFrame(rows)


def format_statistics(row: Mapping[str, Any], metric: str, n: int | None = None) -> str:
    """Return ``mean ± SE, IQM [95 % interval]`` with the digits that suit the metric.

    Where not all `n` seeds have the number, ``(n=2)`` says how many do.
    """
    if not row["n"]:
        return "–"
    text = _format_steps(row) if metric == ENV_STEPS else _format_mean(row, metric)
    return text if n in (None, row["n"]) else f"{text} (n={row['n']:.0f})"


def _format_mean(row: Mapping[str, Any], metric: str) -> str:
    mean, se, iqm, low, high = (row[name] for name in ("mean", "se", "iqm", "low", "high"))
    digits = 2 if metric == "success" or abs(mean) < 10 else 1
    digits = 4 if metric == "gap" else digits
    text = f"{mean:.{digits}f}"
    if _is_number(se):
        text += f" ± {se:.{digits}f}"
    if _is_number(low) and _is_number(high):
        text += f", {iqm:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def _format_steps(row: Mapping[str, Any]) -> str:
    """Return ``median [95 % interval]``, with the number of seeds that got there if not all."""
    median, low, high = (
        f"{row[name]:,.0f}" if _is_number(row[name]) else "–" for name in ("median", "low", "high")
    )
    text = median if low == high == "–" else f"{median} [{low}, {high}]"
    return text if row["reached"] == row["n"] else f"{text} ({row['reached']:.0f} of {row['n']})"


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a results table as text: one row per variant, one column per measure."""
    rows = []
    for (env, exp_name, algo), group in table.groupby(["env", "exp_name", "algo"], sort=False):
        n = int(group["n"].max())
        row = {"env": env, "exp name": exp_name, "algo": algo, "n": str(n)}
        for record in group.to_dict("records"):
            row[str(record["measure"])] = format_statistics(
                {str(k): v for k, v in record.items()}, str(record["metric"]), n
            )
        row["note"] = str(group["note"].iloc[0])
        rows.append(row)
    shown = pd.DataFrame(rows)
    return shown if (shown["note"] != "").any() else shown.drop(columns="note")


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as a Markdown table."""
    lines = [[str(column) for column in table.columns], ["---"] * len(table.columns)]
    lines += [[str(value).replace("|", "\\|") for value in row] for row in table.to_numpy()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def save_table(table: pd.DataFrame, out: Path, *, command: str = "") -> tuple[Path, Path]:
    """Write a results table as numbers (CSV) and as text (Markdown) and return both paths.

    Args:
        table: What `results_table` returned.
        out: Path whose suffix is replaced by `.csv` and `.md`.
        command: What the user typed; kept at the top of both files.
    """
    csv, text = out.with_suffix(".csv"), out.with_suffix(".md")
    metric = table["metric"].iloc[0]
    head = (
        f"{'Success rate' if metric == 'success' else 'Return'} over seeds: mean ± standard error, "
        "interquartile mean [its 95 % percentile bootstrap interval over seeds].\n\n"
    )
    command_line = f"\n`{command}`\n" if command else ""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(csv, (f"# command: {command}\n" if command else "") + table.to_csv(index=False))
    write_text(text, head + markdown(display_table(table)) + command_line)
    return csv, text


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
