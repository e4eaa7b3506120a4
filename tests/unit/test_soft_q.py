"""Soft Q-learning: targets by hand and by enumeration, its gradient, the tabular limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.core import soft


def set_table(algorithm, table, *, target=None):
    """Make the (bias-free) linear Q function a table over one-hot observations."""
    engine = algorithm.learner.engine
    for parameters, values in (
        (engine.parameters, table),
        (engine.target_parameters, table if target is None else target),
    ):
        parameters["body.0.weight"].copy_(torch.as_tensor(values).T)
        parameters["body.0.bias"].zero_()


def make_batch(states, actions, rewards, following, discounts, *, count=3):
    eye = torch.eye(count)
    return {
        "observations": eye[states],
        "actions": torch.tensor(actions),
        "rewards": torch.tensor(rewards),
        "next_observations": eye[following],
        "discounts": torch.tensor(discounts),
    }


def target_of(algorithm, batch):
    engine = algorithm.learner.engine
    _, metrics = algorithm._loss(engine.parameters, engine.target_parameters, batch)
    return metrics["q/target"].item()


TABLE = [[4.0, 0.0], [3.0, 2.0], [-1.0, 1.0]]
TARGET = [[0.0, 1.0], [6.0, 8.0], [5.0, 2.0]]


@pytest.fixture
def make(float64, make_algorithm):
    def build(**options):
        algorithm = make_algorithm("soft-q", shape=(3,), action=2, hidden=(), **options)
        set_table(algorithm, TABLE, target=TARGET)
        return algorithm

    return build


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_target_by_hand(make, temperature):
    batch = make_batch([0], [1], [1.5], [1], [0.9])
    value = temperature * math.log(math.exp(6 / temperature) + math.exp(8 / temperature))
    assert target_of(make(temperature=temperature), batch) == pytest.approx(1.5 + 0.9 * value)
    against_uniform = make(temperature=temperature, kl_to_uniform=True)
    expected = 1.5 + 0.9 * (value - temperature * math.log(2))
    assert target_of(against_uniform, batch) == pytest.approx(expected)


def test_double_target_takes_the_online_policy_and_the_target_values(make):
    p = 1 / (1 + math.exp(-(3 - 2) / 0.5))
    value = p * (6 - 0.5 * math.log(p)) + (1 - p) * (8 - 0.5 * math.log(1 - p))
    batch = make_batch([0], [1], [1.5], [1], [0.9])
    double = make(temperature=0.5, double=True)
    assert target_of(double, batch) == pytest.approx(1.5 + 0.9 * value)


def test_terminated_means_the_reward_alone(make):
    """Not even the entropy of the terminal state counts."""
    assert target_of(make(), make_batch([0], [1], [1.5], [1], [0.0])) == 1.5


@pytest.mark.parametrize("double", [False, True])
def test_as_temperature_falls_the_target_becomes_that_of_dqn(make, make_algorithm, double):
    dqn = make_algorithm("dqn", shape=(3,), action=2, hidden=(), double=double)
    set_table(dqn, TABLE, target=TARGET)
    batch = make_batch([0, 1, 2], [1, 0, 1], [1.5, 0.0, -1.0], [1, 2, 0], [0.9, 0.9, 0.0])
    soft_q = make(temperature=1e-6, double=double)
    assert target_of(soft_q, batch) == pytest.approx(target_of(dqn, batch), abs=1e-9)
    warm = make(temperature=1.0, double=double)
    assert abs(target_of(warm, batch) - target_of(dqn, batch)) > 0.01


def test_everything_is_finite_at_large_values_and_low_temperature(make_algorithm):
    """In single precision, as in training."""
    algorithm = make_algorithm("soft-q", shape=(3,), action=2, hidden=(), temperature=1e-3)
    set_table(algorithm, 1e4 * torch.tensor(TABLE), target=1e4 * torch.tensor(TARGET))
    batch = make_batch([0, 1, 2], [1, 0, 1], [1.5, 0.0, -1.0], [1, 2, 0], [0.9, 0.9, 0.0])
    algorithm.learner.engine.step(batch)
    assert all(torch.isfinite(value) for value in algorithm.learner.engine.drain().values())
    assert all(value.isfinite().all() for value in algorithm.policy_state().values())


def test_gradient_identity_of_policy_gradient_and_soft_q_learning(float64, make_algorithm):
    """Schulman, Chen and Abbeel: with a ~ π and fixed targets y(a),
    E ∇½(Q - y)² = -τ ∇[Σ π y + τ h] + ∇½(V - V̂)² with V̂ = Σ π y + τ h held constant.
    """
    tau = 0.7
    algorithm = make_algorithm("soft-q", temperature=tau, huber_delta=0.0)
    generator = torch.Generator().manual_seed(5)
    state = torch.randn(1, 5, generator=generator)
    y = torch.randn(7, generator=generator)
    parameters = algorithm.learner.engine.parameters

    def q_values(p):
        return algorithm.learner.values(p, state)  # (1, 7)

    def loss(p, action):
        batch = {
            "observations": state,
            "actions": torch.tensor([action]),
            "rewards": y[[action]],
            "next_observations": state,
            "discounts": torch.zeros(1),
        }
        return algorithm._loss(p, p, batch)[0]

    def objective(p):
        log_probs = soft.boltzmann_log_probs(q_values(p), tau)[0]
        return (log_probs.exp() * y).sum() + tau * -(log_probs.exp() * log_probs).sum()

    policy = soft.boltzmann_log_probs(q_values(parameters), tau)[0].exp()
    reached = objective(parameters)
    gradient = torch.func.grad
    left = [gradient(loss)(parameters, action) for action in range(7)]
    policy_gradient = gradient(objective)(parameters)
    value_gradient = gradient(
        lambda p: 0.5 * (soft.soft_value(q_values(p), tau)[0] - reached).square()
    )(parameters)
    for name in parameters:
        expected = sum(weight * part[name] for weight, part in zip(policy, left, strict=True))
        got = -tau * policy_gradient[name] + value_gradient[name]
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_a_constant_on_q_leaves_the_policy_unchanged(make_algorithm):
    algorithm = make_algorithm("soft-q", temperature=0.3)
    observations = np.random.default_rng(0).normal(size=(99, 5)).astype(np.float32)

    def draws():
        generator = torch.Generator().manual_seed(1)
        return algorithm.act(observations, greedy=False, generator=generator)

    before = draws()
    algorithm.learner.engine.parameters["body.3.bias"].add_(8.0)
    np.testing.assert_array_equal(draws(), before)


@pytest.mark.parametrize("kl", [False, True])
def test_n_step_targets_earn_entropy_at_every_state_passed(make, kl, tabular_world):
    """The way 0 -> 1 -> 2 -> 1 with γ = 1/2; entropy is earned at 1 and 2, the value is V̄(1)."""
    tau = 0.8
    algorithm = make(
        temperature=tau, kl_to_uniform=kl, n_step=3, gamma=0.5, num_envs=1, learning_starts=999
    )
    world = tabular_world(
        [[1, 1], [2, 2], [1, 1]], [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], starts=[0], num_envs=1
    )
    for _ in range(3):
        algorithm.learner.store(world.step(np.array([0])))

    def entropy(values):
        p = np.exp(np.array(values) / tau)
        p /= p.sum()
        return -(p * np.log(p)).sum() - kl * math.log(2)

    value = tau * math.log(sum(math.exp(v / tau) for v in TARGET[1])) - kl * tau * math.log(2)
    bonus = tau * (0.5 * entropy(TARGET[1]) + 0.25 * entropy(TARGET[2]))
    expected = (1 + 0.5 * 2 + 0.25 * 4) + bonus + 0.125 * value
    batch = algorithm.learner.replay.gather(torch.tensor([0]))
    assert target_of(algorithm, batch) == pytest.approx(expected)
    # from the last transition only one step is known: no state is passed
    batch = algorithm.learner.replay.gather(torch.tensor([2]))
    assert target_of(algorithm, batch) == pytest.approx(4 + 0.5 * value)


def test_entropy_metric_is_that_of_the_policy_at_sampled_states(make):
    algorithm = make(temperature=0.5)
    engine = algorithm.learner.engine
    batch = make_batch([0, 1], [1, 0], [0.0, 0.0], [1, 2], [0.9, 0.9])
    _, metrics = algorithm._loss(engine.parameters, engine.target_parameters, batch)
    p = torch.softmax(torch.tensor(TABLE[:2]) / 0.5, dim=1)
    expected = -(p * p.log()).sum(dim=1).mean().item()
    assert metrics["policy/entropy"].item() == pytest.approx(expected)


# Five states, two of them worth visiting, one terminal.
FOLLOWING = [[1, 0, 2], [2, 1, 0], [3, 2, 1], [4, 0, 2], [4, 4, 4]]
REWARDS = [[0.0, 0.1, 0.0], [0.0, 0.0, 0.3], [-0.1, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("options", [{}, {"double": True}, {"kl_to_uniform": True}])
def test_tabular_limit_is_the_fixed_point_of_soft_value_iteration(
    make_algorithm, tabular_world, options
):
    gamma, tau, expected = 0.8, 0.2, np.zeros((5, 3))
    for _ in range(200):
        value = tau * np.log(np.exp(expected / tau).sum(axis=1))
        if "kl_to_uniform" in options:
            value -= tau * np.log(3)
        value[4] = 0.0
        expected = np.array(REWARDS) + gamma * value[FOLLOWING]
    algorithm = make_algorithm(
        "soft-q",
        shape=(5,),
        action=3,
        num_envs=5,
        env_steps=2_050,
        learning_starts=50,
        updates_per_env_step=1.0,
        hidden=(),
        gamma=gamma,
        temperature=tau,
        learning_rate=0.05,
        polyak_tau=0.05,
        batch_size=64,
        epsilon_start=1.0,
        epsilon_final=0.5,
        **options,
    )
    world = tabular_world(FOLLOWING, REWARDS, terminal=[4])
    while world.env_steps < 2_050:
        algorithm.iteration(world)
    values = algorithm.learner.network(torch.eye(5)).numpy()
    np.testing.assert_allclose(values[:4], expected[:4], atol=0.01)
