"""Importance weights: their effective size, how they are tempered, the partition function."""

from __future__ import annotations

import math

import pytest
import torch

from rlfd.algorithms.core.importance import (
    effective_size,
    log_partition,
    sound_order,
    tempered_weights,
)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(log_weights):
    return tempered_weights(log_weights, torch.ones_like(log_weights[0]))


def test_samples_of_the_target_have_equal_weights(float64):
    log_q = numbers(17, 3)
    weights = exact(log_q + 3.0 - log_q)
    torch.testing.assert_close(weights, torch.full((17, 3), 1 / 17))
    torch.testing.assert_close(effective_size(weights), torch.full((3,), 17.0))


def test_weights_sum_to_one_whatever_is_added_to_all_returns(float64):
    log_weights = 900.0 * numbers(13, 2) - 300.0 * numbers(13, 2, seed=1)
    weights = exact(log_weights)
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(0), torch.ones(2))
    torch.testing.assert_close(exact(log_weights - 512.0), weights)
    assert (effective_size(weights) >= 1.0).all()
    assert (effective_size(weights) < 1.1).all()  # one of them outweighs the rest
    by_hand = exact(torch.tensor([[1.0], [2.0]]) - torch.tensor([[0.5], [1.0]]))
    torch.testing.assert_close(by_hand[1, 0] / by_hand[0, 0], torch.tensor(math.exp(0.5)))


@pytest.mark.parametrize("floor", [0.02, 0.3, 0.8])
def test_tempered_weights_have_the_effective_size_that_is_wanted(float64, floor):
    log_weights = torch.stack([70.0 * numbers(37), 0.05 * numbers(37, seed=1)], dim=1)
    order = sound_order(log_weights, floor)
    sizes = effective_size(tempered_weights(log_weights, order))
    assert order[1] == 1.0  # enough as it is
    if floor > 1.1 / 37:  # one sample alone is a larger share than the smallest one
        assert order[0] < 1.0
        torch.testing.assert_close(sizes[0], torch.tensor(floor * 37.0), rtol=0.01, atol=0)
        assert (
            log_weights[:, 0].argsort() == tempered_weights(log_weights, order)[:, 0].argsort()
        ).all()
    assert (sizes >= floor * 37).all()


def test_samples_that_are_not_there_have_no_weight(float64):
    log_weights = numbers(11, 3)
    log_weights[4:, 1] = log_weights[:, 2] = -torch.inf
    order = sound_order(log_weights, 0.9)
    weights = tempered_weights(log_weights, order)
    assert not weights[4:, 1].any()
    assert not weights[:, 2].any()
    assert effective_size(weights)[1] >= 0.9 * 4
    log_z = log_partition(log_weights, torch.tensor([1.0, 0.5, 1.0]))
    by_hand = 2.0 * ((0.5 * log_weights[:4, 1]).exp().mean().log())
    torch.testing.assert_close(log_z[1:], torch.stack([by_hand, torch.tensor(0.0)]))


def test_the_partition_function_between_mean_and_sum(float64):
    """β = 1 is log 1/M Σ w; towards 0 it is the mean of log w, and it grows in between."""
    log_weights = 3.0 * numbers(19, 1)
    orders = (1e-6, 0.1, 0.5, 1.0)
    values = [float(log_partition(log_weights, torch.tensor([order]))) for order in orders]
    assert values == sorted(values)
    assert values[0] == pytest.approx(float(log_weights.mean()), abs=1e-3)
    assert values[-1] == pytest.approx(float(log_weights.exp().mean().log()), abs=1e-9)
    far = torch.tensor([[0.0], [-900.0]])  # nothing overflows, nothing drowns
    single = log_partition(far.float(), torch.tensor([1e-6]).float())
    torch.testing.assert_close(single, torch.tensor([-450.0]).float(), rtol=1e-3, atol=0)
