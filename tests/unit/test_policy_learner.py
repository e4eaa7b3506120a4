"""On-policy learners: what their steps promise, limits, and what may not be touched when."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, Problem
from rlfd.algorithms.core.on_policy import Actor, Estimate, estimate, explained_variance, prepare
from rlfd.algorithms.core.policy_learner import make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner, clipped_surrogate
from rlfd.algorithms.core.trpo_learner import TRPOLearner, TrustRegionFields, ValueFunction

CPU = torch.device("cpu")
DISCRETE = ActionSpec("discrete", (7,))
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
SMALL = {"batch_steps": 45, "hidden": (11,)}
KINDS = {"trpo": TRPOLearner, "ppo": PPOLearner}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(action=CONTINUOUS, *, seed=0, env_steps=999, num_envs=3, shape=(5,)):
    return Problem(shape, action, None, env_steps, num_envs, seed, CPU, "off")


def trpo(action=CONTINUOUS, *, seed=0, **settings):
    settings = {"fisher_every": 1, "value_batch_size": 9, "value_epochs": 2} | SMALL | settings
    return TRPOLearner(problem(action, seed=seed), TrustRegionFields(**settings))


def ppo(action=CONTINUOUS, *, seed=0, env_steps=999, **settings):
    settings = {"minibatch_size": 9, "epochs": 2} | SMALL | settings
    return PPOLearner(problem(action, seed=seed, env_steps=env_steps), ClipFields(**settings))


BOTH = pytest.mark.parametrize("make", [trpo, ppo])
ACTIONS = pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS], ids=lambda spec: spec.kind)


def noisy_rewards(rollout, seed=0):
    return torch.randn(rollout.rewards.shape, generator=seeded(seed))


def copied(state):
    return {name: value.clone() for name, value in state.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# -- acting ---------------------------------------------------------------------------------------


@ACTIONS
def test_what_is_remembered_is_what_was_done(noise_world, action):
    learner, world = trpo(action, log_std_start=1.0), noise_world()
    rollout = learner.collect(world)
    done = np.stack(world.actions)
    assert rollout.actions.shape == ((15, 3, 2) if action is CONTINUOUS else (15, 3))
    decoded = learner.actor.distribution.decode(rollout.actions)
    np.testing.assert_array_equal(decoded.numpy(), done)
    if action is CONTINUOUS:
        assert rollout.actions.abs().max() > 1.0  # unclipped
        assert done.min() >= -1.0
        assert done[..., 1].min() >= 0.0
        assert done.max() <= 3.0


def test_the_first_policy_hardly_depends_on_the_observation(noise_world):
    actor = Actor(problem(), TrustRegionFields(log_std_start=-0.5))
    outputs = actor.network(torch.randn(99, 5, generator=seeded()))
    assert outputs.abs().max() < 0.1
    assert torch.equal(actor.network.log_std, torch.full((2,), -0.5))


@BOTH
@ACTIONS
def test_greedy_and_sampled_actions(make, action):
    learner = make(action)
    seen = np.random.default_rng(0).normal(size=(99, 5))
    greedy = learner.actor.act(seen, greedy=True)
    assert len(greedy) == 99
    first, again, other = (
        learner.actor.act(seen, greedy=False, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    if action is CONTINUOUS:
        outputs = learner.actor.network(torch.as_tensor(seen, dtype=torch.float32)).detach()
        expected = learner.actor.distribution.decode(outputs)
        # NumPy's and torch's tanh differ in the last digit; test_plain compares in float64
        np.testing.assert_allclose(greedy, expected.numpy(), rtol=0.0, atol=5e-7)


# -- advantages -----------------------------------------------------------------------------------


def test_prepared_advantages_are_standardised_or_as_they_are():
    advantages = 3.0 + 7.0 * torch.randn(13, 3, generator=seeded(), dtype=torch.float64)
    standard = prepare(advantages, TrustRegionFields())
    assert standard.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert standard.std(correction=0).item() == pytest.approx(1.0)
    plain = TrustRegionFields(standardise_advantages=False)
    assert torch.equal(prepare(advantages, plain), advantages)


@pytest.mark.parametrize("standardise", [True, False])
def test_advantages_that_hardly_vary_are_nothing_instead_of_noise(standardise):
    advantages = 2.0 + 1e-8 * torch.randn(13, 3, generator=seeded(), dtype=torch.float64)
    config = TrustRegionFields(standardise_advantages=standardise)
    assert torch.equal(prepare(advantages, config), torch.zeros_like(advantages))


def test_explained_variance_is_one_for_exact_and_zero_for_constant_values():
    targets = torch.randn(13, 3, generator=seeded())
    assert explained_variance(Estimate(torch.zeros(13, 3), targets)) == 1.0
    found = explained_variance(Estimate(targets - targets.mean(), targets))
    assert found.item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(Estimate(torch.zeros(13, 3), torch.ones(13, 3))) == 0.0


def test_targets_are_advantages_plus_values(noise_world):
    learner = trpo(gamma=0.8, gae_lambda=0.6)
    rollout = learner.collect(noise_world())
    rewards, after = noisy_rewards(rollout), torch.full((15, 3), 5.0)
    found = learner.value.estimate(rollout, rewards, terminal_values=after)
    expected = estimate(
        learner.value.values, rollout, rewards, gamma=0.8, gae_lambda=0.6, terminal_values=after
    )
    assert torch.equal(found.advantages, expected.advantages)
    values = learner.value.values(rollout.observations)
    torch.testing.assert_close(found.targets, found.advantages + values)
    other = learner.value.estimate(rollout, rewards, gamma=0.5, gae_lambda=0.0)
    differences = (
        rewards
        - values
        + 0.5 * learner.value.values(rollout.next_observations).masked_fill(rollout.terminated, 0.0)
    )
    torch.testing.assert_close(other.advantages, differences)


# -- value function -------------------------------------------------------------------------------


def test_the_value_function_learns_its_targets(noise_world):
    learner = trpo(value_learning_rate=0.05, value_epochs=30, value_batch_size=45)
    rollout = learner.collect(noise_world())
    targets = 3.0 + 0.5 * rollout.observations[..., 0]
    errors = [learner.value.fit(rollout.observations, targets)["loss/value"] for _ in range(6)]
    assert errors[0] > 1.0
    assert errors[-1] < 0.01
    assert (learner.value.values(rollout.observations) - targets).abs().mean() < 0.1


def test_values_see_observations_as_the_actor_standardises_them():
    learner = trpo()
    observations = torch.randn(4, 3, 5, generator=seeded())
    before = learner.value.values(observations)
    learner.actor.network.mean.fill_(2.0)
    learner.actor.network.std.fill_(0.5)
    torch.testing.assert_close(learner.value.values(2.0 + 0.5 * observations), before)
    learner.actor.network.mean.zero_()
    far = torch.full((1, 1, 5), 1e6)
    torch.testing.assert_close(learner.value.values(far), learner.value.values(far * 9))


def test_a_second_value_function_disturbs_nothing(noise_world):
    """As MCPO needs: with it, or without it, all draws of the others are the same."""
    states = []
    for second in (False, True):
        learner = trpo()
        other = None
        if second:
            other = ValueFunction(problem(), learner.config, learner.actor, "cost value")
            assert not torch.equal(
                other.network.body[0].weight, learner.value.network.body[0].weight
            )
        world = noise_world()
        for _ in range(3):
            rollout = learner.collect(world)
            if other is not None:
                other.fit(rollout.observations, rollout.rewards)
            learner.improve(rollout, noisy_rewards(rollout))
        states.append(learner.policy_state() | learner.value.engine.state_dict()["parameters"])
    assert_same(*states)


# -- both learners --------------------------------------------------------------------------------


@BOTH
@ACTIONS
def test_metrics_are_those_declared_and_finite(make, action, noise_world):
    learner, world = make(action), noise_world()
    for _ in range(3):
        rollout = learner.collect(world)
        metrics = learner.improve(rollout, noisy_rewards(rollout))
        assert set(metrics) == set(learner.metric_definitions)
        for name, value in metrics.items():
            assert value.ndim == 0, name
            assert torch.isfinite(value), name


@BOTH
def test_one_iteration_sees_one_normalisation(make, noise_world, monkeypatch):
    learner, world = make(), noise_world()
    network, rollouts, seen = learner.actor.network, [], []
    standardise = network.standardise

    def spy(observations):
        seen.append(network.mean.clone())
        return standardise(observations)

    monkeypatch.setattr(network, "standardise", spy)
    means = [torch.zeros(5)]
    for _ in range(3):
        seen.clear()
        rollout = learner.collect(world)
        learner.improve(rollout, noisy_rewards(rollout))
        assert all(torch.equal(mean, means[-1]) for mean in seen)
        rollouts.append(rollout.observations.flatten(0, 1))
        means.append(torch.cat(rollouts).mean(dim=0))
        torch.testing.assert_close(network.mean, means[-1])
        means[-1] = network.mean.clone()
    raw = make(normalise_observations=False)
    rollout = raw.collect(world)
    raw.improve(rollout, noisy_rewards(rollout))
    assert torch.equal(raw.actor.network.mean, torch.zeros(5))


@BOTH
def test_statistics_that_came_with_a_policy_stay(make, noise_world):
    learner, other, world = make(), trpo(seed=1), noise_world()
    rollout = other.collect(world)
    other.improve(rollout, noisy_rewards(rollout))
    state = other.policy_state()
    learner.load_policy_state(state)
    assert_same(learner.policy_state(), state)
    rollout = learner.collect(world)
    learner.improve(rollout, noisy_rewards(rollout))
    after = learner.policy_state()
    assert torch.equal(after["mean"], state["mean"])
    assert torch.equal(after["std"], state["std"])
    assert not torch.equal(after["body.0.weight"], state["body.0.weight"])


@pytest.mark.parametrize("name", KINDS)
@ACTIONS
def test_a_cloned_policy_can_be_gone_on_from(name, action, make_algorithm, make_demos):
    """Same sizes: same greedy actions, and the log-std that was asked for."""
    demos = make_demos((9, 15))
    loss = "mse" if action is CONTINUOUS else "nll"
    if action is CONTINUOUS:
        actions = torch.tensor([0.0, 1.5]) + 0.3 * demos.observations[:, :2].tanh()
        demos = dataclasses.replace(demos, actions=actions)
    bc = make_algorithm(
        "bc", action=action, demos=demos, activation="tanh", loss=loss, log_std_start=-1.5
    )
    for _ in range(5):
        bc.iteration(None)
    learner = {"trpo": trpo, "ppo": ppo}[name](action)
    learner.load_policy_state(bc.policy_state())
    # also far away from everything that was demonstrated, where some networks clip
    seen = demos.observations.numpy() * np.array([[1.0], [-40.0]], dtype=np.float32).repeat(12, 0)
    np.testing.assert_allclose(
        learner.actor.act(seen, greedy=True), bc.act(seen, greedy=True), rtol=1e-6
    )
    assert torch.equal(learner.policy_state()["log_std"], bc.policy_state()["log_std"])
    if action is CONTINUOUS:
        assert (learner.policy_state()["log_std"] == -1.5).all()


@BOTH
def test_a_clone_almost_without_noise_may_become_noisier(make, noise_world):
    """Old clones have a log-std beyond the bound that it is projected onto since."""
    learner, world = make(entropy_weight=1.0), noise_world()
    state = learner.policy_state()
    learner.load_policy_state(state | {"log_std": torch.full((2,), -5.2)})
    assert (learner.policy_state()["log_std"] == -5.0).all()
    rollout = learner.collect(world)
    learner.improve(rollout, noisy_rewards(rollout))
    assert (learner.policy_state()["log_std"] > -5.0).all()


@BOTH
def test_normalised_rewards_are_scaled_before_anything_else(make, noise_world):
    """So the unit of the reward does not matter."""
    results = []
    for unit in (1.0, 1000.0):
        learner, world = make(normalise_rewards=True), noise_world()
        for _ in range(2):
            rollout = learner.collect(world)
            values = torch.full((15, 3), 7.0 * unit)
            learner.improve(rollout, unit * noisy_rewards(rollout), terminal_values=values)
        results.append(learner.policy_state())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-3, atol=1e-4)


@BOTH
def test_terminal_values_count_where_the_task_ended(make, noise_world):
    learner = make(gamma=0.5, gae_lambda=0.0)
    rollout = learner.collect(noise_world())
    twin = make(gamma=0.5, gae_lambda=0.0)
    # what follows a terminated step is worth 8: the same as a reward of 0.5 · 8 there
    values = torch.full((15, 3), 8.0)
    rewards = noisy_rewards(rollout)
    twin.actor.load_state_dict(learner.actor.state_dict())
    learner.improve(rollout, rewards, terminal_values=values)
    twin.improve(rollout, rewards + torch.where(rollout.terminated, 4.0, 0.0))
    for name, value in learner.policy_state().items():
        torch.testing.assert_close(value, twin.policy_state()[name], rtol=1e-4, atol=1e-6)


@BOTH
def test_learners_find_the_best_of_seven_actions(make, tabular_world):
    """A bandit: one state, seven actions, the fourth pays best."""
    rewards = [[0.0, 0.2, 0.1, 1.0, 0.3, 0.0, 0.5]]
    world = tabular_world(np.zeros((1, 7), int), rewards, horizon=1)
    options = {"delta": 0.05, "damping": 0.01, "value_batch_size": 50}
    if make is ppo:
        options = {"learning_rate": 0.03, "minibatch_size": 50}
    config = make(batch_steps=100, gamma=0.9, **options).config
    learner = KINDS[make.__name__](problem(DISCRETE, num_envs=5, shape=(1,)), config)
    for _ in range(25):
        rollout = learner.collect(world)
        learner.improve(rollout, rollout.rewards)
    assert learner.actor.act(np.ones((1, 1)), greedy=True).tolist() == [3]
    draws = learner.actor.act(np.ones((999, 1)), greedy=False, generator=seeded())
    assert (draws == 3).mean() > 0.8


def test_learners_come_by_name():
    both = dataclasses.make_dataclass(
        "Both", [], bases=(TrustRegionFields, ClipFields), frozen=True, kw_only=True
    )
    for kind, cls in KINDS.items():
        assert type(make_policy_learner(kind, problem(), both())) is cls


# -- TRPO -----------------------------------------------------------------------------------------


@ACTIONS
@pytest.mark.parametrize("delta", [0.01, 0.1])
def test_accepted_steps_gain_and_stay_in_the_trust_region(action, delta, noise_world):
    learner, world = trpo(action, delta=delta, damping=0.01), noise_world()
    accepted = 0
    for i in range(15):
        rollout = learner.collect(world)
        before = copied(learner.policy_state())
        metrics = learner.improve(rollout, noisy_rewards(rollout, i))
        if metrics["policy/accepted"]:
            accepted += 1
            assert 0.0 < metrics["policy/kl"] <= 1.5 * delta
            assert metrics["policy/surrogate"] > 0.0
            assert 0.0 < metrics["policy/step_fraction"] <= 1.0
        else:
            assert torch.equal(before["body.0.weight"], learner.policy_state()["body.0.weight"])
    assert accepted >= 10


def parameters_of(learner):
    return learner.trust_region.read()


@pytest.mark.parametrize("advantage", [0.0, torch.nan, torch.inf])
def test_without_usable_advantages_there_is_no_step_and_no_nan(advantage, noise_world):
    learner = trpo()
    rollout, before = learner.collect(noise_world()), parameters_of(learner)
    advantages = noisy_rewards(rollout)
    if advantage == 0.0:
        advantages = torch.zeros(15, 3)
    else:
        advantages[3, 1] = advantage
    metrics = learner.improve_policy(rollout, advantages)
    assert metrics["policy/accepted"] == 0.0
    assert metrics["policy/step_fraction"] == 0.0
    assert metrics["policy/indefinite"] == (0.0 if advantage == 0.0 else 1.0)
    assert metrics["policy/kl"].abs() < 1e-6
    assert torch.equal(parameters_of(learner), before)


def test_as_long_as_no_reward_comes_the_policy_stays(noise_world):
    learner, world = trpo(), noise_world()
    before = parameters_of(learner)
    for _ in range(3):
        rollout = learner.collect(world)
        metrics = learner.improve(rollout, torch.zeros(15, 3))
        assert metrics["policy/accepted"] == 0.0
    assert torch.equal(parameters_of(learner), before)


def test_a_step_that_may_not_gain_is_not_taken(noise_world, monkeypatch):
    learner = trpo()
    rollout, before = learner.collect(noise_world()), parameters_of(learner)
    local_model = learner.local_model

    def opposed(rollout):
        local = local_model(rollout)
        gradient = local.gradient
        monkeypatch.setattr(local, "gradient", lambda *inputs: -gradient(*inputs))
        return local

    monkeypatch.setattr(learner, "local_model", opposed)
    metrics = learner.improve_policy(rollout, prepare(noisy_rewards(rollout), learner.config))
    assert metrics["policy/accepted"] == 0.0
    assert torch.equal(parameters_of(learner), before)


def test_small_trust_regions_move_along_the_natural_gradient(float64, noise_world):
    learner = trpo(delta=1e-8, damping=0.1, cg_iterations=99)
    rollout, before = learner.collect(noise_world()), parameters_of(learner)
    advantages = prepare(noisy_rewards(rollout).double(), learner.config)
    local = learner.local_model(rollout)
    gradient = local.gradient(advantages.flatten())
    matrix = torch.stack([local.fisher_product(e) for e in torch.eye(len(gradient))])
    natural = torch.linalg.solve(matrix, gradient)
    learner.improve_policy(rollout, advantages)
    step = parameters_of(learner) - before
    torch.testing.assert_close(step / step.norm(), natural / natural.norm(), rtol=1e-5, atol=1e-7)


def test_entropy_counts_in_gradient_and_line_search(noise_world):
    entropies = []
    for weight in (0.0, 10.0):
        learner, world = trpo(entropy_weight=weight, delta=0.05), noise_world()
        for i in range(5):
            rollout = learner.collect(world)
            metrics = learner.improve(rollout, noisy_rewards(rollout, i))
        entropies.append(metrics["policy/entropy"])
    assert entropies[1] > entropies[0] + 0.5


# -- PPO ------------------------------------------------------------------------------------------


def test_clipped_surrogate_by_hand():
    ratios = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, 2.0, -2.0, 2.0, -2.0, 2.0])
    each = torch.tensor([2.0, 2.4, -3.0, 1.0, -1.6, 2.2])
    torch.testing.assert_close(
        clipped_surrogate(ratios, advantages, torch.tensor(0.2)), each.mean()
    )


def test_clipping_stops_the_gradient_only_where_moving_on_would_help():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1, 0.9], requires_grad=True)
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    total = 6 * clipped_surrogate(ratios, advantages, torch.tensor(0.2))
    (gradient,) = torch.autograd.grad(total, ratios)
    assert gradient.tolist() == [0.0, -2.0, 2.0, 0.0, 2.0, -2.0]


def first_batch(learner, rollout, monkeypatch):
    """Return the first minibatch that an improvement would step on, which is not taken."""
    batches = []

    class Stop(Exception):
        pass

    def step(batch):
        batches.append(batch)
        raise Stop

    monkeypatch.setattr(learner.engine, "step", step)
    with pytest.raises(Stop):
        learner.improve(rollout, noisy_rewards(rollout))
    monkeypatch.undo()
    return batches[0]


@ACTIONS
def test_at_the_first_minibatch_ratios_are_one_and_the_gradient_is_the_policy_gradient(
    float64, action, noise_world, monkeypatch
):
    learner = ppo(action, value_weight=0.0, standardise_advantages=False)
    batch = first_batch(learner, learner.collect(noise_world()), monkeypatch)
    parameters = learner.engine.parameters
    (loss, outputs), gradients = (
        learner._loss(parameters, {}, batch),
        torch.func.grad(lambda p: learner._loss(p, {}, batch)[0])(parameters),
    )
    assert outputs["policy/clipped"] == 0.0
    torch.testing.assert_close(loss, -batch["advantages"].mean())

    def log_likelihood(p):
        outputs, _ = torch.func.functional_call(learner.networks, p, (batch["inputs"],))
        distribution = learner.actor.distribution
        log_probs = distribution.log_prob(outputs, p["policy.log_std"], batch["actions"])
        return (log_probs * batch["advantages"]).mean()

    for name, value in torch.func.grad(log_likelihood)(parameters).items():
        torch.testing.assert_close(gradients[name], -value, rtol=1e-9, atol=1e-14)


def test_ppo_loss_adds_value_error_and_entropy(float64, noise_world, monkeypatch):
    learner = ppo(value_weight=0.7, entropy_weight=0.3)
    batch = first_batch(learner, learner.collect(noise_world()), monkeypatch)
    batch["log_probs"] = batch["log_probs"] + 0.5 * torch.randn(9, generator=seeded(4))
    loss, outputs = learner._loss(learner.engine.parameters, {}, batch)
    network = learner.actor.network
    log_probs = learner.actor.distribution.log_prob(
        network.body(batch["inputs"]), network.log_std, batch["actions"]
    )
    advantages = batch["advantages"] - batch["advantages"].mean()
    advantages = advantages / (advantages.square().mean().sqrt() + 1e-8)
    ratios = (log_probs - batch["log_probs"]).exp()
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages).mean()
    error = (learner.networks.value(batch["inputs"]) - batch["targets"]).square().mean()
    entropy = (network.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
    torch.testing.assert_close(loss, -surrogate + 0.7 * error - 0.3 * entropy)
    share = ((ratios < 0.8) | (ratios > 1.2)).double().mean()
    torch.testing.assert_close(outputs["policy/clipped"], share)


def test_every_step_of_a_rollout_is_used_once_per_pass(noise_world, monkeypatch):
    learner, batches = ppo(epochs=3), []
    rollout = learner.collect(noise_world())
    monkeypatch.setattr(learner.engine, "step", batches.append)
    learner.improve(rollout, noisy_rewards(rollout))
    assert len(batches) == 3 * 5
    expected = rollout.observations.flatten(0, 1).unique(dim=0)
    orders = []
    for part in (batches[:5], batches[5:10], batches[10:]):
        seen = torch.cat([batch["inputs"] for batch in part])
        orders.append(seen)
        assert torch.equal(seen.unique(dim=0), expected)
    assert not torch.equal(orders[0], orders[1])


def test_clip_range_falls_over_the_budget(noise_world, monkeypatch):
    learner, world = ppo(env_steps=180, clip_range=0.4, final_clip_range=0.25), noise_world()
    seen = []
    monkeypatch.setattr(learner.engine, "step", lambda b: seen.append(float(b["clip_range"])))
    for _ in range(5):
        rollout = learner.collect(world)
        learner.improve(rollout, noisy_rewards(rollout))
    expected = [0.4, 0.325, 0.25, 0.175, 0.1]
    assert seen == pytest.approx([value for value in expected for _ in range(10)])


def test_step_size_falls_to_its_end_over_the_budget():
    learner = ppo(env_steps=180, learning_rate=0.02, final_learning_rate=0.1, epochs=3)
    assert learner.engine._optimiser.planned_updates == 4 * 3 * 5
    assert learner.engine._optimiser.final_fraction == 0.1


def test_no_further_pass_is_made_when_the_policy_has_moved_too_far(noise_world):
    still, moving = (ppo(epochs=9, learning_rate=rate, target_kl=0.02) for rate in (1e-6, 0.05))
    epochs = []
    for learner in (still, moving):
        rollout = learner.collect(noise_world())
        metrics = learner.improve(rollout, noisy_rewards(rollout))
        epochs.append(metrics["policy/epochs"])
        assert (metrics["policy/kl"] > 0.03) == (metrics["policy/epochs"] < 9)
    assert epochs[0] == 9
    assert epochs[1] < 9


def test_reported_divergence_is_from_the_policy_that_acted(noise_world):
    learner = ppo(learning_rate=0.02)
    rollout = learner.collect(noise_world())
    network, distribution = learner.actor.network, learner.actor.distribution
    observations = rollout.observations.flatten(0, 1)
    old = network(observations), network.log_std.clone()
    learner.actor.normaliser.frozen = True
    metrics = learner.improve(rollout, noisy_rewards(rollout))
    expected = distribution.kl(*old, network(observations), network.log_std).mean()
    torch.testing.assert_close(metrics["policy/kl"], expected)
    assert expected > 1e-4


@pytest.mark.parametrize(
    ("gain", "kl", "taken"), [(1.0, 0.014, True), (1.0, 0.016, False), (0.0, 0.0, False)]
)
def test_what_trpo_takes(make_algorithm, local_model, gain, kl, taken):
    learner = make_algorithm("trpo", delta=0.01, **SMALL).learner
    assert learner.search(local_model(kl), torch.ones(1), torch.tensor([gain])) is taken


@pytest.mark.parametrize("name", KINDS)
def test_values_come_to_be_returns(make_algorithm, tabular_world, name):
    """On a chain of four states that pays 1 a step, V is what is still to come."""
    following = np.array([[1], [2], [3], [4], [4]])
    world = tabular_world(following, np.ones((5, 1)), terminal=[4], num_envs=5)
    own = {
        "trpo": {"value_learning_rate": 0.05, "value_batch_size": 50, "value_epochs": 5},
        "ppo": {"learning_rate": 0.02, "minibatch_size": 50, "epochs": 5, "value_weight": 1.0},
    }
    algorithm = make_algorithm(
        name, action=1, num_envs=5, batch_steps=100, gamma=0.5, gae_lambda=0.5,
        normalise_observations=False, env_steps=99_999, **own[name],
    )  # fmt: skip
    for _ in range(30):
        algorithm.iteration(world)
    learner = algorithm.learner
    judge = learner.value if name == "trpo" else learner.networks
    values = judge.values(torch.eye(5)[None, :4])[0]
    torch.testing.assert_close(values, torch.tensor([1.875, 1.75, 1.5, 1.0]), atol=0.1, rtol=0)
