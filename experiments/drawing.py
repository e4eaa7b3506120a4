"""What all figures share: colours, sizes, reference lines, and how they are written to disk."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rlfd import envs
from rlfd.envs import EnvConfig, Reference
from rlfd.errors import RlfdError
from rlfd.experiments import statistics
from rlfd.experiments.results import Metric, RunResult
from rlfd.files import check_writable, new_temporary, sweep, write_text

__all__ = [
    "COLUMN",
    "FIGURE_SUFFIXES",
    "MARGIN",
    "REFERENCE_DASHES",
    "Y_LABELS",
    "FigureFiles",
    "ReferenceLine",
    "assign_styles",
    "check_place",
    "known_scores",
    "maths",
    "random_line",
    "references",
    "save",
    "seeds_caption",
    "short_number",
    "style_context",
]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, told apart with every kind of colour blindness. One per algorithm, the
# same in every figure, each with its own dashes for print without colour.
_BLUE, _VERMILLION, _ORANGE, _GREEN, _PURPLE, _SKY = (
    "#0072B2",
    "#D55E00",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1)))
_STYLES: dict[str, tuple[str, Any]] = {
    "sqil": (_BLUE, _DASHES[0]),
    "sqil-t": (_VERMILLION, _DASHES[1]),
    "bc": (_ORANGE, _DASHES[2]),
    "gail": (_GREEN, _DASHES[3]),
    "dqn": (_PURPLE, _DASHES[0]),
    "soft-q": (_SKY, _DASHES[1]),
    "sqil-sac": (_BLUE, _DASHES[1]),
    "mcpo": (_VERMILLION, _DASHES[0]),
    "trpo": (_PURPLE, _DASHES[1]),
    "pofd": (_GREEN, _DASHES[1]),
    "gmmil": (_SKY, _DASHES[2]),
    "ppo": (_PURPLE, _DASHES[2]),
    "sac": (_PURPLE, _DASHES[3]),
    "td3": (_SKY, _DASHES[3]),
    "a2c": (_SKY, _DASHES[0]),
    "sil": (_PURPLE, (0, (8, 2))),
    "rwr": (_GREEN, _DASHES[2]),
    "rwr-offline": (_GREEN, _DASHES[0]),
    "awr": (_VERMILLION, _DASHES[2]),
    "awr-offline": (_VERMILLION, _DASHES[3]),
    "marwil": (_BLUE, _DASHES[3]),
    "psq": (_BLUE, _DASHES[2]),
    "bc-soft-q": (_ORANGE, _DASHES[0]),
    "dqfd": (_GREEN, (0, (8, 2))),
    "dqfd-reward-free": (_VERMILLION, (0, (8, 2))),
    "nac": (_ORANGE, _DASHES[1]),
    "gail-dqn": (_GREEN, (0, (8, 2, 1, 2))),
}
# Further variants (--exp-name) of one algorithm in one figure: from Tol's "muted", so that a
# colour above never stands for anything but its algorithm.
_VARIANTS: tuple[tuple[str, Any], ...] = (
    ("#882255", _DASHES[1]),
    ("#44AA99", _DASHES[2]),
    ("#999933", _DASHES[3]),
    ("#332288", (0, (8, 2))),
    ("#CC6677", (0, (3, 1, 1, 1, 1, 1))),
    ("#117733", (0, (1, 1))),
)
REFERENCE_DASHES = (
    (0, (1, 1.6)),
    (0, (4, 2, 1, 2)),
    (0, (6, 3)),
    (0, (1, 4)),
    (0, (4, 2, 1, 2, 1, 2)),
)
_RC: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType: publishers refuse type 3
    "svg.fonttype": "none",
    "svg.hashsalt": "rlfd",
}
Y_LABELS: dict[Metric, str] = {
    "return": "episode return",
    "dense-return": "dense episode return",
    "success": "success rate",
}
COLUMN = 3.3  # inches: one column of a two-column paper
MARGIN = 0.03
_WITHOUT_EFFECT = ("unit", "clip_rewards")  # options that change no dense return


@dataclass(frozen=True)
class ReferenceLine:
    """A horizontal line to compare with."""

    label: str
    value: float


@dataclass(frozen=True)
class FigureFiles:
    """A figure, the numbers it was drawn from, and what a reader of it must know."""

    figure: Path
    data: Path
    notes: tuple[str, ...]


def check_place(out: Path) -> None:
    """Refuse a figure of a format that is not known, or where none can be written.

    Raises:
        RlfdError: Names the formats that are, or what is in the way.
    """
    if out.suffix.lower() not in FIGURE_SUFFIXES:
        raise RlfdError(
            f"cannot write a figure as '{out.name}', known formats are "
            f"{', '.join(FIGURE_SUFFIXES)}",
            "end the file name with one of them",
        )
    for file in (out, out.with_suffix(".csv")):
        if file.is_dir():
            raise RlfdError(f"cannot write {file}: a folder has that name", "choose another --out")
        try:
            check_writable(file)
        except OSError as error:
            raise RlfdError(
                f"cannot write {file}: {error.strerror}", "choose another --out"
            ) from error


def style_context() -> Any:
    """Return the context in which figures are drawn."""
    return matplotlib.rc_context(_RC)


def references(results: Sequence[RunResult], metric: Metric) -> list[ReferenceLine]:
    """Return the means of the demonstrations used, and of the random policy where it is known."""
    key = "success_rate" if metric == "success" else "return_mean"
    found: dict[str, list[float]] = {}
    for result in results:
        demos = result.status.get("demos") or {}
        reward = result.env.reward if metric == "return" else "dense"
        paid_alike = demos.get("reward", "dense") == reward
        if demos.get(key) is not None and (paid_alike or metric == "success"):
            found.setdefault(str(demos["name"]), []).append(float(demos[key]))
    means = {name: float(np.mean(values)) for name, values in found.items()}  # of seeded subsets
    if len(set(means.values())) == 1:
        means = {"": next(iter(means.values()))}
    short = [name.rpartition("/")[2] for name in means]
    labels = short if len(set(short)) == len(short) else list(means)
    return [
        *(
            ReferenceLine(f"demonstrations ({label})" if label else "demonstrations", value)
            for label, value in zip(labels, means.values(), strict=True)
        ),
        *random_line(results[0].env, metric),
    ]


def known_scores(env: EnvConfig, metric: Metric) -> Reference | None:
    """Return the registry's scores where they were measured: dense reward, the usual options."""
    if env.name not in envs.names() or (env.reward != "dense" and metric == "return"):
        return None
    usual = envs.check(EnvConfig(env.name, env.start, reward=env.reward)).options
    for name, value in envs.check(env).options.items():
        if name not in _WITHOUT_EFFECT and value != usual.get(name):
            return None
    return envs.spec(env.name).references.get(env.start)


def random_line(env: EnvConfig, metric: Metric) -> list[ReferenceLine]:
    """Return the mean of the registry's random policy, where it is known."""
    known = known_scores(env, metric)
    if known is None:
        return []
    value = known.random_success if metric == "success" else known.random_return
    return [] if value is None else [ReferenceLine("random policy", value)]


def seeds_caption(
    counts: Collection[int], statistic: str, interval: str = "95% bootstrap interval"
) -> str:
    """Return what a figure says about its points and bands, of so many seeds each."""
    if set(counts) == {1}:
        return "a single seed, no interval"
    low, high = min(counts), max(counts)
    seeds = f"{low} seeds" if low == high else f"{low} to {high} seeds"
    if high < statistics.FEWEST_SEEDS:
        return f"{statistic} over {seeds}, no interval (it needs {statistics.FEWEST_SEEDS})"
    return f"{statistic} and {interval} over {seeds}"


def assign_styles(
    variants: Iterable[tuple[str, str]],
) -> dict[tuple[str, str], tuple[str, Any]]:
    """Return colour and dashes by (variant, algorithm).

    An algorithm's first variant has the algorithm's own.
    """
    styles: dict[tuple[str, str], tuple[str, Any]] = {}
    seen: set[str] = set()
    further = 0
    for variant in variants:
        if variant in styles:
            continue
        if variant[1] in seen:
            styles[variant] = _VARIANTS[further % len(_VARIANTS)]
            further += 1
        else:
            styles[variant] = _algorithm_style(variant[1])
            seen.add(variant[1])
    return styles


def _algorithm_style(algo: str) -> tuple[str, Any]:
    """Return an algorithm's own colour and dashes, from its name alone."""
    if algo in _STYLES:
        return _STYLES[algo]
    number = zlib.crc32(algo.encode())
    colours = (_BLUE, _VERMILLION, _ORANGE, _GREEN, _PURPLE, _SKY)
    return colours[number % len(colours)], _DASHES[number // 8 % len(_DASHES)]


def short_number(value: float, _position: int = 0) -> str:
    """Return a number for an axis, such as 150k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def maths(label: str) -> str:
    """Return a label as matplotlib takes it: λ_samp with a real subscript, no accidental maths."""
    escaped = label.replace("$", r"\$")
    return re.sub(r"([α-ω])_(\w+)", r"\1$_{\\mathrm{\2}}$", escaped)


def save(figure: Figure, out: Path, data: pd.DataFrame, header: Sequence[str]) -> Path:
    """Write the numbers beside the figure, then the figure, each in one step.

    The same data give the same bytes.

    Args:
        figure: What was drawn.
        out: Its file.
        data: Every number in it.
        header: Lines about it, for the head of the CSV.

    Returns:
        The CSV.
    """
    place = out.with_suffix(".csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, out.name)
    head = "".join(f"# {line}\n" for line in header)
    write_text(place, head + data.to_csv(index=False))
    kind = out.suffix.lower()[1:]
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }[kind]
    temporary = new_temporary(out)
    try:
        figure.savefig(temporary, format=kind, dpi=300, metadata=metadata)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return place
