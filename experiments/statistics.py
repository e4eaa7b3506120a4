"""Statistics over seeds: one number per seed goes in, what a paper prints comes out.

The unit is the seed (an independent training run), never the episode: episodes of one run share its
weights, so an interval over episodes would be too narrow. Intervals are percentile bootstrap
intervals of the drawn statistic (SciPy), resampling whole seeds with an explicit generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "CONFIDENCE",
    "FEWEST_SEEDS",
    "Interval",
    "Summary",
    "best_window",
    "bootstrap_curve",
    "bootstrap_interval",
    "iqm",
    "median_interval",
    "standard_error",
    "summarise",
]

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0

Array = NDArray[np.float64]
Values: TypeAlias = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval, or why there is none.

    Attributes:
        low: Lower end; None without an interval.
        high: Upper end; None without an interval.
        reason: Why there is no interval; empty when there is one.
    """

    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """What is said about one number measured once per seed.

    Attributes:
        n: Number of seeds.
        mean: Mean over seeds.
        error: Standard error of that mean; None with one seed.
        iqm: Interquartile mean over seeds.
        interval: Bootstrap interval of the interquartile mean.
    """

    n: int
    mean: float
    error: float | None
    iqm: float
    interval: Interval


def standard_error(values: Values) -> float | None:
    """Return the standard error of the mean (sample deviation, n - 1); None for a single value."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def iqm(values: Values) -> float:
    """Return the interquartile mean: floor(n / 4) values are cut from each end.

    With five seeds that is the mean of the middle three; with three or fewer the plain mean.
    """
    return float(_iqm(np.asarray(values, dtype=np.float64), axis=0))


def _iqm(values: Array, axis: int) -> Array:
    return np.asarray(stats.trim_mean(values, 0.25, axis=axis), dtype=np.float64)


def _mean(values: Array, axis: int) -> Array:
    return np.asarray(np.mean(values, axis=axis), dtype=np.float64)


def bootstrap_interval(
    values: Values, *, rng: np.random.Generator, use_iqm: bool = False
) -> Interval:
    """Return the 95 % percentile bootstrap interval over seeds of the mean (or the IQM).

    Args:
        values: One number per seed.
        rng: Source of the resampling.
        use_iqm: Whether the interval is of the interquartile mean.

    Returns:
        The interval; without ends, and with a reason, for fewer than three seeds.
    """
    if len(values) < FEWEST_SEEDS:
        seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        return Interval(None, None, f"{seeds}; an interval needs at least {FEWEST_SEEDS}")
    low, high = bootstrap_curve(np.asarray(values)[:, None], rng=rng, use_iqm=use_iqm)
    return Interval(float(low[0]), float(high[0]))


def median_interval(values: Values, *, rng: np.random.Generator) -> Interval:
    """Return the 95 % percentile bootstrap interval over seeds of the median.

    Args:
        values: One number per seed; infinity for a seed that did not get there.
        rng: Source of the resampling.
    """
    if len(values) < FEWEST_SEEDS:
        return bootstrap_interval(values, rng=rng)
    rows = rng.choice(np.asarray(values, dtype=np.float64), (RESAMPLES, len(values)))
    levels = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    # an order statistic: no interpolation between a number and infinity
    low, high = np.quantile(np.median(rows, axis=1), levels, method="inverted_cdf")
    return Interval(float(low), float(high))


def bootstrap_curve(
    values: Array, *, rng: np.random.Generator, use_iqm: bool = False
) -> tuple[Array, Array]:
    """Return the pointwise 95 % percentile bootstrap band of curves.

    Args:
        values: One row per seed, one column per point. Shape (n, P), n >= 3.
        rng: Source of the resampling; a whole row is drawn at once.
        use_iqm: Whether the band is of the interquartile mean.

    Returns:
        Lower and upper ends. Shapes (P,) and (P,).

    Raises:
        ValueError: With fewer than three rows.
    """
    if len(values) < FEWEST_SEEDS:
        raise ValueError(f"a bootstrap over seeds needs at least {FEWEST_SEEDS}, got {len(values)}")
    result = stats.bootstrap(
        (np.asarray(values, dtype=np.float64),),
        _iqm if use_iqm else _mean,
        axis=0,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,  # keeps a long curve's resamples out of memory
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=rng,
    )
    interval = result.confidence_interval
    return np.atleast_1d(interval.low), np.atleast_1d(interval.high)


def best_window(values: Values, window: int = 100) -> float | None:
    """Return the best mean over `window` consecutive values; None when there are fewer.

    With training episodes this is the SQIL paper's measure ("best 100 consecutive episodes").
    It looks at the future to choose where to look, so it stands beside the final evaluation and
    never instead of it.
    """
    if len(values) < window:
        return None
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=np.float64)]))
    return float(np.max(sums[window:] - sums[:-window]) / window)


def summarise(values: Values, *, rng: np.random.Generator | None = None) -> Summary:
    """Return mean, standard error, IQM and its bootstrap interval of one number per seed.

    Args:
        values: One number per seed, at least one.
        rng: Source of the resampling; by default a fixed one, so that tables can be repeated.
    """
    return Summary(
        n=len(values),
        mean=float(np.mean(values)),
        error=standard_error(values),
        iqm=iqm(values),
        interval=bootstrap_interval(
            values, rng=rng or np.random.default_rng(BOOTSTRAP_SEED), use_iqm=True
        ),
    )
