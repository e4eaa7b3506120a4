"""Exact planners against enumeration of every trajectory, finite differences and each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rlfd import envs
from rlfd.algorithms.base import DemoTensors, TabularModel
from rlfd.algorithms.core.tabular import (
    Dynamics,
    backward_messages,
    causal_policy,
    choose,
    decode,
    forward_messages,
    greedy_policy,
    marginals,
    occupancy,
    visits_of,
)
from rlfd.envs import EnvConfig
from rlfd.envs.tabular import soft_policy


def make_model(states=3, actions=2, horizon=4, *, seed=0, deterministic=False, features=5):
    """Return a random process; rows of P have zeros, and nothing leads to the last state's twin."""
    rng = np.random.default_rng(seed)
    transitions = rng.random((states, actions, states)) * (rng.random((actions, states)) < 0.8)
    transitions[..., 0] += 0.1
    if deterministic:
        transitions = np.eye(states)[transitions.argmax(axis=2)]
    transitions /= transitions.sum(axis=2, keepdims=True)
    start = rng.random(states)
    return TabularModel(
        transitions=torch.from_numpy(transitions),
        start=torch.from_numpy(start / start.sum()),
        features=torch.from_numpy(rng.normal(size=(states, actions, features))),
        horizon=horizon,
    )


def trajectories(model):
    """Yield (states, actions, their probability under uniform actions) of all trajectories."""
    states, actions, _ = model.transitions.shape
    p, p0 = model.transitions.numpy(), model.start.numpy()
    for path in itertools.product(range(states), repeat=model.horizon):
        for acts in itertools.product(range(actions), repeat=model.horizon):
            chance = p0[path[0]] * actions**-model.horizon
            for t in range(model.horizon - 1):
                chance *= p[path[t], acts[t], path[t + 1]]
            if chance > 0:
                yield path, acts, chance


REWARDS = np.random.default_rng(7).normal(size=(3, 2))


@pytest.mark.parametrize("scale", [1.0, 9.0])
@pytest.mark.parametrize("bend_start", [True, False])
def test_messages_agree_with_the_enumeration_of_all_trajectories(scale, bend_start):
    model, rewards = make_model(), scale * REWARDS
    start = model.start.numpy()
    by_start = np.zeros((3, 4, 3, 2))  # weight of each (t, s, a), apart by first state
    for path, acts, chance in trajectories(model):
        weight = chance * math.exp(sum(rewards[s, a] for s, a in zip(path, acts, strict=True)))
        for t, (s, a) in enumerate(zip(path, acts, strict=True)):
            by_start[path[0], t, s, a] += weight
    z = by_start[:, 0].sum(axis=(1, 2))  # p_0(s) β_1(s)
    if bend_start:
        expected, log_z = by_start.sum(axis=0) / z.sum(), math.log(z.sum())
    else:
        expected = np.tensordot(start / z, by_start, axes=1)
        log_z = start @ np.log(z / start)
    policy, mu, found = marginals(Dynamics(model), rewards, start, bend_start=bend_start)
    np.testing.assert_allclose(mu, expected, rtol=0, atol=1e-12)
    assert found == pytest.approx(log_z, abs=1e-12)
    np.testing.assert_allclose(
        policy, expected / expected.sum(axis=2, keepdims=True), rtol=0, atol=1e-12
    )


def test_forward_messages_are_the_states_given_that_the_past_was_optimal():
    model, expected = make_model(), np.zeros((4, 3))
    for path, acts, chance in trajectories(model):
        for t in range(4):
            past = sum(REWARDS[s, a] for s, a in zip(path[:t], acts[:t], strict=True))
            expected[t, path[t]] += chance * math.exp(past)
    expected /= expected.sum(axis=1, keepdims=True)
    alpha = forward_messages(Dynamics(model), REWARDS, np.log(model.start.numpy()))
    np.testing.assert_allclose(np.exp(alpha), expected, rtol=0, atol=1e-12)


def test_without_the_reward_of_the_step_that_is_left_the_marginals_are_wrong():
    """The recursion as some notes print it: α times the normalised policy."""
    model = make_model()
    dynamics, start = Dynamics(model), model.start.numpy()
    _, right, _ = marginals(dynamics, REWARDS, start)
    pairs, _ = backward_messages(dynamics, REWARDS)
    alpha, wrong = start, []
    for t in range(4):
        joint = alpha[:, None] * np.exp(pairs[t])
        wrong.append(joint / joint.sum())
        prior = np.exp(REWARDS) / np.exp(REWARDS).sum(axis=1, keepdims=True)
        alpha = dynamics.advance(alpha[:, None] * prior)
    assert np.abs(wrong - right).max() > 0.005


def differences(function, weights, width=1e-5):
    """Return the central differences of a scalar function. Shape (F,)."""
    steps = width * np.eye(len(weights))
    return np.array([(function(weights + s) - function(weights - s)) / (2 * width) for s in steps])


@pytest.mark.parametrize("bend_start", [True, False])
def test_the_gradient_of_log_z_is_the_models_feature_expectation(bend_start):
    model = make_model(5, 3, 6, seed=1)
    dynamics, f, start = Dynamics(model), model.features.numpy(), model.start.numpy()

    def plan(psi):
        return marginals(dynamics, f @ psi, start, bend_start=bend_start)

    psi = np.random.default_rng(2).normal(size=5)
    expected = np.einsum("tsa,saf->f", plan(psi)[1], f)
    np.testing.assert_allclose(differences(lambda p: plan(p)[2], psi), expected, atol=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_causal_gradient_is_the_difference_of_feature_expectations(gamma):
    """Of E_D[Σ γ^t log π_t(a_t|s_t)]; exact where the demonstrator's occupancies are."""
    model = make_model(5, 3, 6, seed=1)
    dynamics, f = Dynamics(model), model.features.numpy()
    rng = np.random.default_rng(4)
    expert = rng.random((6, 5, 3))
    shown = occupancy(dynamics, expert / expert.sum(axis=2, keepdims=True))
    discounts = gamma ** np.arange(6)

    def likelihood(psi):
        policy, _ = causal_policy(dynamics, f @ psi, gamma)
        return np.einsum("t,tsa,tsa->", discounts, shown, np.log(policy))

    psi = rng.normal(size=5)
    policy, _ = causal_policy(dynamics, f @ psi, gamma)
    gap = np.einsum("t,tsa,saf->f", discounts, shown - occupancy(dynamics, policy), f)
    np.testing.assert_allclose(differences(likelihood, psi), gap, atol=1e-8)


def test_where_dynamics_are_deterministic_both_models_are_one():
    model = make_model(7, 3, 9, deterministic=True)
    dynamics, start = Dynamics(model), model.start.numpy()
    rewards = np.random.default_rng(3).normal(size=(7, 3))
    causal, _ = causal_policy(dynamics, rewards)
    trajectory, mu, _ = marginals(dynamics, rewards, start, bend_start=False)
    np.testing.assert_allclose(trajectory, causal, atol=1e-12)
    np.testing.assert_allclose(mu, occupancy(dynamics, causal), atol=1e-12)
    chancy = Dynamics(make_model(7, 3, 9))
    other, _, _ = marginals(chancy, rewards, start)
    assert np.abs(other - causal_policy(chancy, rewards)[0]).max() > 0.01


def test_the_trajectory_model_counts_on_luck():
    """A gamble of 1 in 10 for 5, or 1 for sure: only the causal model takes what is sure."""
    transitions = np.zeros((3, 2, 3))
    transitions[0, 0, [1, 2]] = 0.1, 0.9
    transitions[0, 1, 2] = transitions[1, :, 1] = transitions[2, :, 2] = 1.0
    rewards = np.array([[0.0, 1.0], [5.0, 5.0], [0.0, 0.0]])
    start = np.array([1.0, 0.0, 0.0])
    model = TabularModel(
        torch.from_numpy(transitions), torch.from_numpy(start), torch.zeros(3, 2, 1), 2
    )
    causal, _ = causal_policy(Dynamics(model), rewards)
    lucky, _, _ = marginals(Dynamics(model), rewards, start)
    # E V: 0.1 (5 + log 2) + 0.9 log 2 = 0.5 + log 2 against 1 + log 2; log E e^V by hand:
    odds = (0.1 * math.exp(5) + 0.9) / math.e
    assert causal[0, 0, 0] == pytest.approx(1 / (1 + math.exp(0.5)), abs=1e-12)
    assert lucky[0, 0, 0] == pytest.approx(odds / (1 + odds), abs=1e-12)
    assert causal[0, 0, 0] < 0.4 < 0.8 < lucky[0, 0, 0]


def test_every_step_is_a_distribution_and_no_reward_means_no_preference():
    model = make_model(5, 3, 8)
    dynamics, start, rewards = Dynamics(model), model.start.numpy(), np.zeros((5, 3))
    policy, q = causal_policy(dynamics, rewards)
    np.testing.assert_allclose(policy, 1 / 3, atol=1e-15)
    np.testing.assert_allclose(q[0], 7 * math.log(3), atol=1e-12)  # entropy of what follows
    np.testing.assert_allclose(marginals(dynamics, rewards, start)[0], 1 / 3, atol=1e-14)
    rewards = 9 * np.random.default_rng(0).normal(size=(5, 3))
    _, mu, _ = marginals(dynamics, rewards, start)
    for joint in (mu, occupancy(dynamics, causal_policy(dynamics, rewards)[0])):
        np.testing.assert_allclose(joint.sum(axis=(1, 2)), 1, atol=1e-12)


def test_shaping_and_constants_leave_the_policy_as_it_is():
    model = make_model(5, 3, 8)
    dynamics, gamma = Dynamics(model), 0.9
    rng = np.random.default_rng(0)
    rewards, potential = rng.normal(size=(5, 3)), rng.normal(size=5)
    policy, _ = causal_policy(dynamics, rewards, gamma)
    np.testing.assert_allclose(causal_policy(dynamics, rewards + 4.2, gamma)[0], policy, atol=1e-12)
    np.testing.assert_allclose(
        marginals(dynamics, rewards + 4.2, model.start.numpy())[0],
        marginals(dynamics, rewards, model.start.numpy())[0],
        atol=1e-12,
    )
    # The potential of what follows the last step is not paid back where time ends there: with it,
    # F(s, a) = γ E Φ(s') - Φ(s) for all steps but the last, whose Φ(s') is 0.
    v, shaped = np.zeros(5), []
    for t in reversed(range(8)):
        following = potential if t < 7 else np.zeros(5)
        q = rewards + gamma * dynamics.expect(following) - potential[:, None]
        q = q + gamma * dynamics.expect(v)
        v = np.logaddexp.reduce(q, axis=1)
        shaped.insert(0, np.exp(q - v[:, None]))
    np.testing.assert_allclose(shaped, policy, atol=1e-12)


def test_the_soft_q_of_the_causal_model_gives_its_reward_back():
    """What SQIL's regularisation rests on: r = Q - γ E V'."""
    model = make_model(5, 3, 8)
    rewards = np.random.default_rng(0).normal(size=(5, 3))
    _, q = causal_policy(Dynamics(model), rewards, 0.9)
    values = np.logaddexp.reduce(q, axis=2)
    for t in range(7):
        following = model.transitions.numpy() @ values[t + 1]
        np.testing.assert_allclose(q[t] - 0.9 * following, rewards, atol=1e-12)


def test_greedy_plans_are_the_best_of_all():
    model = make_model(3, 2, 3)
    dynamics, p = Dynamics(model), model.transitions.numpy()
    best = np.zeros((4, 3))
    for t in (2, 1, 0):
        best[t] = (REWARDS + 0.9 * p @ best[t + 1]).max(axis=1)
    worth = []
    for flat in itertools.product(range(2), repeat=9):
        joint = occupancy(dynamics, np.eye(2)[np.array(flat).reshape(3, 3)])
        worth.append(np.einsum("t,tsa,sa->", 0.9 ** np.arange(3), joint, REWARDS))
    joint = occupancy(dynamics, np.eye(2)[greedy_policy(dynamics, REWARDS, 0.9)])
    found = np.einsum("t,tsa,sa->", 0.9 ** np.arange(3), joint, REWARDS)
    assert found == pytest.approx(max(worth), abs=1e-12)
    assert found == pytest.approx(model.start.numpy() @ best[0], abs=1e-12)


def test_nothing_underflows_over_a_long_horizon():
    model = make_model(5, 3, 400, deterministic=True)
    dynamics, rewards = Dynamics(model), 90 * np.random.default_rng(0).normal(size=(5, 3))
    causal, _ = causal_policy(dynamics, rewards)
    trajectory, mu, log_z = marginals(dynamics, rewards, model.start.numpy(), bend_start=False)
    assert abs(log_z) > 10_000
    np.testing.assert_allclose(trajectory, causal, atol=1e-8)
    np.testing.assert_allclose(mu.sum(axis=(1, 2)), 1, atol=1e-9)


def test_the_demonstrators_planner_is_the_algorithms():
    table = envs.table(EnvConfig("SlipperyGridWorld", options={"size": 5, "horizon": 9}))
    model = TabularModel(
        *(torch.tensor(x) for x in (table.transitions, table.start, table.features)), table.horizon
    )
    expected, _ = causal_policy(Dynamics(model), table.rewards)
    np.testing.assert_allclose(soft_policy(table), expected, atol=1e-12)


def test_observations_are_read_as_states_and_steps():
    observations = np.zeros((3, 6), np.float32)
    observations[[0, 1, 2], [4, 0, 2]] = 1.0
    observations[:, -1] = np.array([0, 3, 7]) / 7
    states, steps = decode(observations, 7)
    assert states.tolist() == [4, 0, 2]
    assert steps.tolist() == [0, 3, 6]  # after the last step nobody acts
    policy = np.zeros((7, 5, 3))
    policy[0, 4], policy[3, 0], policy[6, 2] = [0.2, 0, 0.8], [0, 1, 0], [0.5, 0.25, 0.25]
    assert choose(policy, observations, greedy=True, generator=None).tolist() == [2, 1, 0]
    many = observations[[0] * 9999]
    drawn = choose(policy, many, greedy=False, generator=torch.Generator().manual_seed(0))
    shares = np.bincount(drawn, minlength=3) / 9999
    np.testing.assert_allclose(shares, [0.2, 0, 0.8], atol=0.015)


def test_visits_of_demonstrations():
    observations = torch.zeros(5, 4)
    observations[torch.arange(5), torch.tensor([2, 0, 2, 1, 1])] = 1.0
    demos = DemoTensors(
        observations=observations,
        actions=torch.tensor([1, 0, 1, 1, 0]),
        episode_ids=torch.tensor([0, 0, 0, 1, 1]),
    )
    visits = visits_of(demos)
    assert visits.steps.tolist() == [0, 1, 2, 0, 1]
    expected = np.array([[0.5 / 2, 0], [0.5 / 2, 1 / 2], [0, (1 + 0.25) / 2]])
    np.testing.assert_allclose(visits.occupancy((3, 2), 0.5), expected)
    np.testing.assert_allclose(visits.start(3), [0, 0.5, 0.5])
