"""Running statistics: exact, frozen when asked, restored."""

from __future__ import annotations

import copy

import pytest
import torch

from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.normaliser import (
    ReturnScaler,
    RunningMoments,
    RunningNormaliser,
    usable_std,
)

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(shape=(3, 5)):
    return PolicyNetwork(
        shape, 7, hidden=(11,), observation_clip=10.0, generator=seeded(), device=CPU
    )


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_parts_are_those_of_the_whole(offset):
    """Also far from 0, where the difference of squares would lose all digits."""
    samples = offset + 0.01 * torch.randn(99, 5, generator=seeded(), dtype=torch.float64)
    moments = RunningMoments(5, CPU)
    for part in samples.split([1, 31, 3, 64]):
        moments.update(part)
    assert moments.count == 99
    torch.testing.assert_close(moments.mean, samples.mean(dim=0), rtol=1e-14, atol=0)
    expected = samples.var(dim=0, correction=0)
    torch.testing.assert_close(moments.variance, expected, rtol=1e-7, atol=0)


def test_moments_do_not_depend_on_the_samples_precision():
    samples = 300.0 + torch.randn(9_999, 3, generator=seeded())
    moments = RunningMoments(3, CPU)
    moments.update(samples)
    torch.testing.assert_close(moments.mean, samples.double().mean(dim=0), rtol=1e-14, atol=0)


def test_normaliser_keeps_the_network_at_the_statistics_of_all_observations():
    net = network()
    normaliser = RunningNormaliser(net)
    observations = 4.0 + 3.0 * torch.randn(31, 3, 5, generator=seeded())
    observations[:, 1, 2] = 0.25  # a constant keeps its scale
    for part in observations.split([9, 22]):
        normaliser.update(part)
    flat = observations.flatten(1)
    torch.testing.assert_close(net.mean, flat.mean(dim=0))
    expected = flat.std(dim=0, correction=0)
    expected[1 * 5 + 2] = 1.0
    torch.testing.assert_close(net.std, expected)
    inputs = net.standardise(observations)
    torch.testing.assert_close(inputs.mean(dim=0), torch.zeros(15), rtol=0, atol=1e-5)


def test_a_frozen_normaliser_changes_nothing():
    net = network()
    normaliser = RunningNormaliser(net)
    normaliser.update(torch.randn(9, 3, 5, generator=seeded()))
    before = copy.deepcopy(net.state_dict())
    normaliser.frozen = True
    normaliser.update(100.0 * torch.ones(9, 3, 5))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert normaliser.moments.count == 9


def test_restored_statistics_go_on_the_same():
    first, second = RunningNormaliser(network()), RunningNormaliser(network())
    parts = torch.randn(3, 9, 3, 5, generator=seeded())
    first.update(parts[0])
    second.update(parts[1])
    second.load_state_dict(first.state_dict())
    second.network.load_state_dict(first.network.state_dict())
    for normaliser in (first, second):
        normaliser.update(parts[2])
    assert torch.equal(first.network.mean, second.network.mean)
    assert torch.equal(first.network.std, second.network.std)
    first.frozen = True
    second.load_state_dict(first.state_dict())
    assert second.frozen


def test_usable_std_of_what_does_not_vary_is_one():
    std = torch.tensor([0.0, 1e-9, 1e-3, 7.0])
    torch.testing.assert_close(usable_std(std), torch.tensor([1.0, 1.0, 1e-3, 7.0]))


def scaler(enabled=True):
    return ReturnScaler(3, 0.9, enabled=enabled, device=CPU)


def test_rewards_are_divided_by_the_std_of_the_discounted_return(float64):
    rewards = 50.0 + torch.randn(13, 3, generator=seeded())
    ended = torch.rand(13, 3, generator=seeded(1)) < 0.3
    returns, running = [], [0.0] * 3
    for t in range(13):
        for i in range(3):
            running[i] = 0.9 * running[i] + rewards[t, i].item()
            returns.append(running[i])
            if ended[t, i]:
                running[i] = 0.0
    whole, parts = scaler(), scaler()
    scaled, after = whole(rewards, ended, None)
    std = torch.tensor(returns).std(correction=0)
    torch.testing.assert_close(scaled, rewards / std)
    assert after is None
    # and in two parts, with episodes running on between them
    parts(rewards[:5], ended[:5], None)
    scaled, after = parts(rewards[5:], ended[5:], torch.full((8, 3), 7.0))
    torch.testing.assert_close(scaled, rewards[5:] / std)
    torch.testing.assert_close(after, torch.full((8, 3), 7.0) / std)


def test_rewards_that_never_vary_and_disabled_scalers_change_nothing():
    zeros, ended = torch.zeros(5, 3), torch.zeros(5, 3, dtype=torch.bool)
    scaled, _ = scaler()(zeros, ended, None)
    assert torch.equal(scaled, zeros)
    rewards, values = torch.randn(5, 3, generator=seeded()), torch.ones(5, 3)
    same, after = scaler(enabled=False)(rewards, ended, values)
    assert same is rewards
    assert after is values


def test_a_restored_scaler_goes_on_the_same():
    first, second = scaler(), scaler()
    rewards, ended = torch.randn(2, 5, 3, generator=seeded()), torch.zeros(5, 3, dtype=torch.bool)
    first(rewards[0], ended, None)
    second.load_state_dict(first.state_dict())
    results = [each(rewards[1], ended, None)[0] for each in (first, second)]
    assert torch.equal(*results)
