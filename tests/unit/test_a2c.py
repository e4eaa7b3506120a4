"""A2C: its returns, its loss and its one step per rollout, against a computation by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from rlfd.algorithms.base import ActionSpec, Problem
from rlfd.algorithms.core.a2c_learner import A2CFields, A2CLearner, actor_critic_loss

CPU = torch.device("cpu")
DISCRETE = ActionSpec("discrete", (7,))
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
SPECS = [
    DISCRETE,
    CONTINUOUS,
    ActionSpec("multi_discrete", (2, 5, 3)),
    ActionSpec("multi_binary", (3,)),
]
GAMMA = 0.9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(action=DISCRETE, *, env_steps=999, num_envs=3, seed=0, **settings):
    settings = {"batch_steps": 33, "hidden": (11,), "gamma": GAMMA} | settings
    problem = Problem((5,), action, None, env_steps, num_envs, seed, CPU, "off")
    return A2CLearner(problem, A2CFields(**settings))


def noisy(rollout, seed=0):
    return torch.randn(rollout.rewards.shape, generator=seeded(seed))


def policy_of(learner):
    return {name: value.clone() for name, value in learner.engine.parameters.items()}


def differ(first, second):
    return any(not torch.equal(value, second[name]) for name, value in first.items())


def n_step_returns(learner, rollout, rewards):
    """Σ γ^l r to the episode's or the rollout's end, and γ^k V there unless it terminated."""
    value, actor = learner.networks.value, learner.actor
    returns = torch.zeros_like(rewards)
    with torch.no_grad():
        after = [value(actor.network.standardise(row)) for row in rollout.next_observations]
    steps, envs = rewards.shape
    for i in range(envs):
        for t in range(steps):
            for later in range(t, steps):
                returns[t, i] += GAMMA ** (later - t) * rewards[later, i]
                if rollout.ended[later, i] or later == steps - 1:
                    if not rollout.terminated[later, i]:
                        returns[t, i] += GAMMA ** (later - t + 1) * after[later][i]
                    break
    return returns


@pytest.mark.parametrize("action", SPECS, ids=lambda spec: spec.kind)
def test_one_rollout_is_one_step_of_rmsprop_on_a_plain_loss(float64, noise_world, action):
    """-E[log π (R - V)] - c_e H + c_v ½ E[(R - V)²], by torch's own optimiser."""
    learner = make(
        action, learning_rate=0.01, entropy_weight=0.03, value_weight=0.7, max_grad_norm=0.2
    )
    reference = copy.deepcopy(learner.networks)
    for parameter in reference.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.RMSprop(reference.parameters(), lr=0.01, alpha=0.99, eps=1e-5)
    world, distribution = noise_world(), learner.actor.distribution
    for round_ in range(4):
        rollout = learner.collect(world)
        assert rollout.terminated.any()
        assert (rollout.ended & ~rollout.terminated).any()
        rewards = noisy(rollout, round_)
        returns = n_step_returns(learner, rollout, rewards).flatten()

        outputs, values = reference(
            learner.actor.network.standardise(rollout.observations.flatten(0, 1))
        )
        log_std = reference.policy.log_std
        actions = rollout.actions.flatten(0, 1)
        log_probs = distribution.log_prob(outputs, log_std, actions)
        policy = -(log_probs * (returns - values).detach()).mean()
        entropy = distribution.entropy(outputs, log_std).mean()
        half_square = ((returns - values) ** 2).mean() / 2
        optimiser.zero_grad()
        (policy - 0.03 * entropy + 0.7 * half_square).backward()
        if action.kind != "continuous":  # nothing depends on it
            reference.policy.log_std.grad = torch.zeros_like(log_std)
        norm = clip_grad_norm_(reference.parameters(), 0.2)
        optimiser.step()

        metrics = learner.improve(rollout, rewards)
        assert learner.engine.count == round_ + 1
        for name, value in reference.named_parameters():
            torch.testing.assert_close(
                learner.engine.parameters[name], value.detach(), rtol=1e-9, atol=1e-11
            )
        for name, value in (
            ("loss/policy", policy),
            ("loss/value", half_square),
            ("policy/entropy", entropy),
            ("optim/grad_norm", norm),
        ):
            torch.testing.assert_close(metrics[name], value.detach())
    assert norm > 0.2  # it was clipped


def test_the_loss_by_numbers():
    log_probs = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64)
    advantages = torch.tensor([2.0, -1.0, 4.0], dtype=torch.float64)
    values = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    targets = torch.tensor([3.0, -1.0, 7.0], dtype=torch.float64)
    entropies = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    loss, parts = actor_critic_loss(
        log_probs, advantages, values, targets, entropies, value_weight=0.5, entropy_weight=0.1
    )
    assert parts["loss/policy"].item() == pytest.approx((2.0 - 2.0 + 2.0) / 3)
    assert parts["loss/value"].item() == pytest.approx((4.0 + 1.0 + 16.0) / 6)
    assert parts["policy/entropy"].item() == pytest.approx(1.0)
    assert loss.item() == pytest.approx(2.0 / 3 + 0.5 * 3.5 - 0.1)


def test_the_value_function_does_not_learn_from_the_policy_loss(float64, noise_world):
    learner = make(value_weight=0.0, entropy_weight=0.0)
    rollout, before = learner.collect(noise_world()), policy_of(learner)
    learner.improve(rollout, noisy(rollout))
    for name, value in learner.engine.parameters.items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("policy.body"), name


def test_a_single_transition_counts(float64, noise_world):
    """Its advantage does not vary; standardised, nothing would be left of it."""
    for standardise in (False, True):
        learner = make(
            num_envs=1,
            batch_steps=1,
            entropy_weight=0.0,
            value_weight=0.0,
            standardise_advantages=standardise,
        )
        rollout, before = learner.collect(noise_world(1)), policy_of(learner)
        assert rollout.num_steps == 1
        learner.improve(rollout, torch.full((1, 1), 2.0))
        assert differ(learner.engine.parameters, before) != standardise


def test_the_step_size_falls_to_nothing_over_the_budget(noise_world):
    """100 env steps are four rollouts of 11 rows of 3 environments."""
    learner, world = make(env_steps=100, final_learning_rate=0.0), noise_world()
    for _ in range(4):
        before = policy_of(learner)
        rollout = learner.collect(world)
        learner.improve(rollout, noisy(rollout))
        assert differ(learner.engine.parameters, before)
    before = policy_of(learner)
    rollout = learner.collect(world)
    learner.improve(rollout, noisy(rollout))
    assert not differ(learner.engine.parameters, before)


def test_statistics_are_those_of_the_past_when_a_rollout_is_learned_from(noise_world):
    learner, world = make(), noise_world()
    rollout = learner.collect(world)
    learner.improve(rollout, noisy(rollout))
    mean = rollout.observations.flatten(0, 1).mean(0)
    torch.testing.assert_close(learner.actor.network.mean, mean)
    frozen = make(normalise_observations=False)
    frozen.improve(rollout, noisy(rollout))
    assert torch.equal(frozen.actor.network.mean, torch.zeros(5))


def test_normalised_rewards_do_not_depend_on_their_scale(float64, noise_world):
    after = []
    for scale in (1.0, 1000.0):
        learner, world = make(normalise_rewards=True), noise_world()
        for round_ in range(3):
            rollout = learner.collect(world)
            learner.improve(rollout, scale * noisy(rollout, round_))
        after.append(policy_of(learner))
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name])


def test_what_follows_a_terminal_state_may_be_given(float64, noise_world):
    learner, other = make(), make()
    rollout = learner.collect(noise_world())
    rewards = noisy(rollout)
    learner.improve(rollout, rewards, terminal_values=torch.full_like(rewards, 5.0))
    other.improve(rollout, rewards + GAMMA * 5.0 * rollout.terminated)
    for name, value in learner.engine.parameters.items():
        torch.testing.assert_close(value, other.engine.parameters[name])


def test_it_finds_the_better_of_two_ways(make_algorithm, tabular_world):
    """From state 0 action 2 pays after one step more than what the others pay at once."""
    following = [[2] * 7 for _ in range(3)]
    following[0][2] = 1
    rewards = [[0.0] * 7 for _ in range(3)]
    rewards[0] = [0.1, 0.0, 0.0, 0.3, 0.0, 0.1, 0.2]
    rewards[1] = [1.0] * 7
    world = tabular_world(following, rewards, terminal=(2,), starts=[0])
    a2c = make_algorithm(
        "a2c", shape=(3,), num_envs=5, batch_steps=25, env_steps=10_000, learning_rate=5e-3
    )
    start = world.eye[[0]]
    for _ in range(400):
        a2c.iteration(world)
    assert a2c.updates == 400
    assert a2c.act(start, greedy=True).tolist() == [2]
    draws = a2c.act(start.repeat(99, axis=0), greedy=False, generator=seeded())
    assert (draws == 2).mean() > 0.9
