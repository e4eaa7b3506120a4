from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlfd.experiments import statistics


def test_standard_error_by_hand():
    # deviations -1, 0, 1: variance 1, so 1 / sqrt(3)
    assert statistics.standard_error([1.0, 2.0, 3.0]) == pytest.approx(1 / np.sqrt(3))
    assert statistics.standard_error([1.0]) is None


def test_standard_error_equals_scipy():
    values = np.random.default_rng(0).normal(size=7)
    assert statistics.standard_error(list(values)) == pytest.approx(stats.sem(values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([0.0, 1.0, 5.0], 2.0),  # floor(3/4) = 0 cut: the mean
        ([-90.0, 1.0, 2.0, 100.0], 1.5),
        ([3.0, 1.0, 2.0, 100.0, -50.0], 2.0),  # the middle three
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 90.0, 90.0], 2.5),
    ],
)
def test_iqm_by_hand(values, expected):
    assert statistics.iqm(values) == pytest.approx(expected)


def test_interval_needs_three_seeds():
    for values in ([0.5], [0.5, 0.6]):
        interval = statistics.bootstrap_interval(values, rng=np.random.default_rng(0))
        assert interval.low is None
        assert interval.high is None
        assert "at least 3" in interval.reason
    assert statistics.bootstrap_interval([0.5, 0.6, 0.7], rng=np.random.default_rng(0)).reason == ""


def test_interval_by_hand():
    # Two of three seeds at 0: a resample's mean is k/3 with k ~ Binomial(3, 1/3), so
    # P(mean = 0) = 8/27 > 2.5 % and P(mean = 1) = 1/27 > 2.5 %: the interval is [0, 1].
    interval = statistics.bootstrap_interval([0.0, 0.0, 1.0], rng=np.random.default_rng(0))
    assert (interval.low, interval.high) == (0.0, 1.0)
    # Five seeds, one at 1: k ~ Binomial(5, 1/5); P(k >= 3) = 5.8 %, P(k >= 4) = 0.67 %: [0, 3/5].
    interval = statistics.bootstrap_interval([0.0] * 4 + [1.0], rng=np.random.default_rng(0))
    assert (interval.low, interval.high) == (0.0, pytest.approx(0.6))


def test_interval_of_equal_seeds_is_a_point():
    interval = statistics.bootstrap_interval([0.7] * 5, rng=np.random.default_rng(0), use_iqm=True)
    assert interval.low == pytest.approx(0.7)
    assert interval.high == pytest.approx(0.7)


def test_interval_equals_scipy_and_is_repeatable():
    values = np.random.default_rng(1).normal(size=6)
    ours = statistics.bootstrap_interval(list(values), rng=np.random.default_rng(3))
    again = statistics.bootstrap_interval(list(values), rng=np.random.default_rng(3))
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert ours == again
    assert ours.low == pytest.approx(theirs.low, abs=0.05)
    assert ours.high == pytest.approx(theirs.high, abs=0.05)


def test_interval_does_not_touch_the_global_generator():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    statistics.bootstrap_interval([0.0, 1.0, 2.0], rng=np.random.default_rng(0))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        interval = statistics.bootstrap_interval(list(rng.normal(size=30)), rng=rng)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0 <= interval.high
    assert 50 <= hits <= 60


def test_curve_equals_the_interval_point_by_point():
    values = np.random.default_rng(2).normal(size=(5, 7))
    low, high = statistics.bootstrap_curve(values, rng=np.random.default_rng(0), use_iqm=True)
    assert low.shape == high.shape == (7,)
    for column in range(7):
        one = statistics.bootstrap_interval(
            list(values[:, column]), rng=np.random.default_rng(0), use_iqm=True
        )
        assert (low[column], high[column]) == (pytest.approx(one.low), pytest.approx(one.high))
    assert np.all(low <= stats.trim_mean(values, 0.25, axis=0))
    assert np.all(high >= stats.trim_mean(values, 0.25, axis=0))


def test_curve_refuses_two_seeds():
    with pytest.raises(ValueError, match="at least 3"):
        statistics.bootstrap_curve(np.zeros((2, 4)), rng=np.random.default_rng(0))


def test_best_window_by_hand():
    assert statistics.best_window([0, 1, 1, 0, 1], window=2) == 1.0
    assert statistics.best_window([0, 1, 1, 0, 1], window=5) == pytest.approx(0.6)
    assert statistics.best_window([-3.0, -1.0, -5.0], window=2) == -2.0
    assert statistics.best_window([0, 1], window=3) is None
    assert statistics.best_window([]) is None


def test_best_window_equals_the_naive_one():
    values = (np.random.default_rng(0).random(357) < 0.4).astype(float)
    naive = max(np.mean(values[i : i + 100]) for i in range(258))
    assert statistics.best_window(list(values)) == pytest.approx(naive)


def test_summarise():
    summary = statistics.summarise([3.0, 1.0, 2.0, 100.0, -50.0])
    assert summary.n == 5
    assert summary.mean == pytest.approx(11.2)
    assert summary.iqm == pytest.approx(2.0)
    assert summary.error == pytest.approx(stats.sem([3.0, 1.0, 2.0, 100.0, -50.0]))
    assert summary.interval.low is not None
    assert summary.interval.low <= summary.iqm
    single = statistics.summarise([0.5])
    assert (single.n, single.error, single.interval.low) == (1, None, None)


def test_interval_of_a_median_with_seeds_that_never_arrive():
    def interval(*values):
        return statistics.median_interval(values, rng=np.random.default_rng(0))

    low, high = interval(*range(1, 8)).low, interval(*range(1, 8)).high
    # P(median of 7 draws <= 1) = P(at least 4 of them the lowest) = 0.0094; <= 2: 0.097
    assert (low, high) == (2, 6)
    assert (interval(3, 3, 3).low, interval(3, 3, 3).high) == (3, 3)
    some = interval(1, 2, 3, np.inf, np.inf)
    assert some.low == 1
    assert some.high == np.inf
    assert interval(1, 2).low is None
