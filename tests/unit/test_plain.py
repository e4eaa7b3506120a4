"""Acting in NumPy against the network and the distribution that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, Problem
from rlfd.algorithms.core import plain
from rlfd.algorithms.core.distributions import Gaussian
from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.on_policy import Actor, ActorFields
from rlfd.algorithms.core.plain import MOST_PRODUCTS, PlainGaussian, plain_network

CPU = torch.device("cpu")
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
CHOICES = ActionSpec("multi_discrete", (2, 3))


def network(activation="tanh", *, shape=(5,), hidden=(11, 7), log_std=0.3, **options):
    """Return a policy whose statistics and biases are not those it begins with."""
    generator = torch.Generator().manual_seed(3)
    made = PolicyNetwork(
        shape,
        2,
        hidden=hidden,
        activation=activation,
        observation_clip=1.5,
        log_std_start=log_std,
        generator=generator,
        device=CPU,
        **options,
    )
    made.requires_grad_(False)
    if not made.images:
        made.mean.normal_(generator=generator)
        made.std.uniform_(0.5, 2.0, generator=generator)
    return made


def observations(rows=13, shape=(5,)):
    return np.random.default_rng(1).normal(0.0, 2.0, (rows, *shape))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
@pytest.mark.parametrize("hidden", [(11, 7), ()])
def test_outputs_are_the_networks(float64, activation, shape, hidden):
    policy, seen = network(activation, shape=shape, hidden=hidden), observations(shape=shape)
    inputs = policy.standardise(torch.from_numpy(seen))
    assert (inputs.abs() == 1.5).any()  # the clip is met
    before = seen.copy()
    outputs = plain_network(policy, len(seen))(seen)
    np.testing.assert_allclose(outputs, policy(torch.from_numpy(seen)), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(seen, before)


def test_numbers_of_single_precision():
    policy, seen = network(), observations().astype(np.float32)
    outputs = plain_network(policy, len(seen))(seen)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, policy(torch.from_numpy(seen)), atol=2e-6)


@pytest.mark.parametrize("log_std", [0.3, -5.0, 2.0])
def test_draws_are_the_distributions(float64, log_std):
    policy, gaussian, seen = network(log_std=log_std), Gaussian(CONTINUOUS), observations()
    policy.log_std[1] -= 0.4
    choose = PlainGaussian(plain_network(policy, len(seen)), gaussian, policy.log_std)
    drawn, decoded = choose(seen, torch.Generator().manual_seed(4))
    outputs = policy(torch.from_numpy(seen))
    expected = gaussian.sample(outputs, policy.log_std, torch.Generator().manual_seed(4))
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)
    np.testing.assert_allclose(decoded, gaussian.decode(expected), rtol=1e-12, atol=1e-14)


def test_without_noise_it_is_the_mode_and_inside_the_bounds():
    policy, gaussian, seen = network(), Gaussian(CONTINUOUS), observations()
    policy.body[-1].bias += torch.tensor([-7.0, 7.0])
    drawn, decoded = PlainGaussian(plain_network(policy, len(seen)), gaussian, None)(seen, None)
    assert (np.abs(drawn) > 1.0).all()
    np.testing.assert_array_equal(decoded, np.tile(np.float32([-1.0, 3.0]), (len(seen), 1)))


def test_what_is_not_a_number_is_passed_on():
    policy, seen = network(), observations()
    seen[2, 3] = np.nan
    _, decoded = PlainGaussian(plain_network(policy, 13), Gaussian(CONTINUOUS), None)(seen, None)
    assert np.isnan(decoded[2]).all()
    assert np.isfinite(np.delete(decoded, 2, axis=0)).all()


def test_others_are_left_to_torch():
    assert plain_network(network(layer_norm=True), 1) is None
    assert plain_network(network(shape=(3, 36, 36), images=True), 1) is None
    most = MOST_PRODUCTS // (11 * 7)
    assert plain_network(network(), most) is not None
    assert plain_network(network(), most + 1) is None


@pytest.mark.parametrize("action", [CONTINUOUS, CHOICES], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("greedy", [True, False])
def test_an_actor_does_the_same_with_and_without(float64, monkeypatch, action, greedy):
    actor = Actor(Problem((5,), action, None, 99, 3, 0, CPU, "off"), ActorFields(hidden=(11,)))
    with torch.no_grad():
        actor.network.body[0].weight.mul_(3.0)  # in place, as learning does
        actor.network.body[-1].weight.mul_(100.0)
    seen, chosen = observations(), []
    for most in (plain.MOST_PRODUCTS, 0):
        monkeypatch.setattr(plain, "MOST_PRODUCTS", most)
        source = torch.Generator().manual_seed(6)
        chosen.append(actor.act(seen, greedy=greedy, generator=source))
    np.testing.assert_allclose(*chosen, rtol=1e-12, atol=1e-14)
    assert len(np.unique(chosen[0], axis=0)) > 3
