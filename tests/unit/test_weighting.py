"""Weights of regressions, their effective size, and the warnings about it."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from rlfd.algorithms.core.weighting import (
    WEIGHT_METRICS,
    WeightAudit,
    effective_share,
    exponential_weights,
    standardised,
)


def test_weights_are_the_clipped_exponential(float64):
    advantages = torch.tensor([-3.0, 0.0, 0.4, 1.1, 9.0])
    weights = exponential_weights(advantages, 0.5, 7.0)
    expected = [min(math.exp(a / 0.5), 7.0) for a in advantages.tolist()]
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("advantage", [1e6, 1e300])
def test_weights_do_not_overflow(float64, advantage):
    weights = exponential_weights(torch.tensor([advantage, -1e300]), 1e-3, 20.0)
    torch.testing.assert_close(weights, torch.tensor([20.0, 0.0]))


def test_standardised_has_mean_0_and_std_1_unless_nothing_varies(float64):
    values = standardised(torch.tensor([3.0, 9.0, -4.0, 0.5, 7.0]))
    assert values.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert values.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    assert standardised(torch.full((5,), 3.7)).tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("weights", "share"), [([1.0] * 5, 1.0), ([0.0, 0.0, 3.0, 0.0], 0.25), ([2.0, 1.0], 0.9)]
)
def test_effective_share(float64, weights, share):
    assert effective_share(torch.tensor(weights)).item() == pytest.approx(share)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.0] * 99 + [5.0], "1.0% of the pairs carry the weight"),
        ([20.0] * 6 + [1.0] * 4, "60% of the weights are clipped at 20"),
        ([0.0] * 7, "all weights vanish"),
        ([1.0, 2.0, 0.5], None),
    ],
)
def test_weights_that_leave_nothing_to_learn_from_are_warned_about_once(caplog, weights, message):
    audit, weights = WeightAudit("a larger --set beta"), torch.tensor(weights)
    with caplog.at_level(logging.WARNING, logger="rlfd.weights"):
        metrics = [audit(weights, weights * 3.0, 20.0) for _ in range(3)][-1]
    assert set(metrics) == set(WEIGHT_METRICS)
    assert metrics["weights/advantage_std"] == (weights * 3.0).std(correction=0)
    if message is None:
        assert caplog.messages == []
    else:
        (found,) = caplog.messages
        assert found == f"{message}; try a larger --set beta" or message in found
