"""Soft values and Boltzmann policies against closed forms and limits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from rlfd.algorithms.core import soft

TEMPERATURES = [0.01, 0.1, 1.0, 7.0]


@pytest.fixture
def q_values(float64):
    return 3.0 * torch.randn(9, 7, generator=torch.Generator().manual_seed(1))


def test_value_by_hand(float64):
    q_values = torch.tensor([[0.0, 2.0 * math.log(3.0)]])
    torch.testing.assert_close(
        soft.soft_value(q_values, 2.0), torch.tensor([2.0 * math.log(4.0)]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_value_lies_between_maximum_and_maximum_plus_full_entropy(q_values, temperature):
    value, largest = soft.soft_value(q_values, temperature), q_values.max(dim=1).values
    assert (value >= largest).all()
    assert (value <= largest + temperature * math.log(7) + 1e-12).all()
    against_uniform = soft.soft_value(q_values, temperature, kl_to_uniform=True)
    assert (against_uniform >= q_values.mean(dim=1) - 1e-12).all()
    assert (against_uniform <= largest + 1e-12).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_value_is_expected_q_plus_entropy(q_values, temperature):
    probabilities = soft.boltzmann_log_probs(q_values, temperature).exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(9))
    entropy = soft.boltzmann_entropy(q_values, temperature)
    torch.testing.assert_close(
        (probabilities * q_values).sum(dim=1) + temperature * entropy,
        soft.soft_value(q_values, temperature),
        rtol=1e-12,
        atol=1e-12,
    )


def test_value_becomes_the_maximum_as_temperature_falls(q_values):
    gaps = [
        (soft.soft_value(q_values, temperature) - q_values.max(dim=1).values).max()
        for temperature in (1.0, 0.1, 1e-3)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-6


def test_large_values_at_low_temperature_stay_finite_in_single_precision():
    q_values = torch.tensor([[1e4, 1e4, -1e4], [1e4, 0.0, -1e4]], requires_grad=True)
    value = soft.soft_value(q_values, 1e-3)
    torch.testing.assert_close(value.detach(), torch.tensor([1e4, 1e4]))
    # the gradient is the policy: the two best actions share it, or one has all of it
    (gradient,) = torch.autograd.grad(value.sum(), q_values)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    entropy = soft.boltzmann_entropy(q_values.detach(), 1e-3)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2.0), 0.0]))


def test_a_constant_moves_the_value_and_not_the_policy(q_values):
    torch.testing.assert_close(
        soft.boltzmann_log_probs(q_values + 13.0, 0.3), soft.boltzmann_log_probs(q_values, 0.3)
    )
    torch.testing.assert_close(
        soft.soft_value(q_values + 13.0, 0.3), soft.soft_value(q_values, 0.3) + 13.0
    )


@pytest.mark.parametrize("kl", [False, True])
def test_double_value_equals_the_plain_one_when_networks_agree(q_values, kl):
    torch.testing.assert_close(
        soft.double_soft_value(q_values, q_values, 0.7, kl_to_uniform=kl),
        soft.soft_value(q_values, 0.7, kl_to_uniform=kl),
    )


def test_double_value_by_hand(float64):
    # τ = 2: policy (1/4, 3/4) of the online network, values 8 and 4 of the target network
    online = torch.tensor([[0.0, 2.0 * math.log(3.0)]])
    expected = 0.25 * (8 - 2 * math.log(1 / 4)) + 0.75 * (4 - 2 * math.log(3 / 4))
    value = soft.double_soft_value(online, torch.tensor([[8.0, 4.0]]), 2.0)
    torch.testing.assert_close(value, torch.tensor([expected]), rtol=1e-12, atol=0)
    shifted = soft.double_soft_value(online, torch.tensor([[8.0, 4.0]]), 2.0, kl_to_uniform=True)
    torch.testing.assert_close(shifted, value - 2.0 * math.log(2.0))


def test_samples_have_the_policy_s_frequencies():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5])
    draws = soft.sample(logits.expand(20_000, 5), torch.Generator().manual_seed(0))
    expected = 20_000 * torch.softmax(logits.double(), dim=0)
    result = stats.chisquare(torch.bincount(draws, minlength=5).numpy(), expected.numpy())
    assert result.pvalue > 1e-3
