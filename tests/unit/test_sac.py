"""SAC: its losses against the equations by hand, the temperature, learning on a bandit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.actor_critic import squash
from rlfd.algorithms.rl.sac import temperature_loss
from rlfd.envs import Transitions

BOX = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def learner(float64, make_algorithm):
    return make_algorithm("sac", action=BOX, temperature=0.3).learner


def some_batch(size=9):
    noise = generator(7)
    return {
        "observations": torch.randn(size, 5, generator=noise),
        "actions": torch.tensor([-1.0, 0.0]) + torch.rand(size, 2, generator=noise),
        "rewards": torch.randn(size, generator=noise),
        "next_observations": torch.randn(size, 5, generator=noise),
        "discounts": torch.full((size,), 0.99),
        "noise": torch.randn(size, 2, generator=noise),
    }


def test_critic_loss_by_hand(learner):
    batch = some_batch()
    batch["discounts"][::2] = 0.0
    learner.engine.target_flat.mul_(1.7)
    actor, target = learner.actor_engine.parameters, learner.engine.target_parameters
    actions, log_probs = squash(learner.outputs(actor, batch["next_observations"]), batch["noise"])
    first, second = learner.values(target, batch["next_observations"], actions)
    soft_value = torch.minimum(first, second) - 0.3 * log_probs
    y = batch["rewards"] + batch["discounts"] * soft_value
    units = 2 * (batch["actions"] - torch.tensor([-1.0, 0.0])) / torch.tensor([2.0, 3.0]) - 1
    q = learner.values(learner.engine.parameters, batch["observations"], units)
    expected = ((q[0] - y) ** 2 + (q[1] - y) ** 2).mean()
    loss, metrics = learner.critic_loss(
        learner.engine.parameters, target, batch | {"actor": learner.actor_engine.flat}
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["q/target"], y.mean())


def test_actor_loss_by_hand_and_its_gradient_by_differences(learner):
    batch = some_batch() | {"critics": learner.engine.flat}
    flat = learner.actor_engine.flat.clone()

    def parts(flat):
        """L_π, and L_α in a loss of its own."""
        parameters = learner.actor_engine.views(flat)
        actions, log_probs = squash(
            learner.outputs(parameters, batch["observations"]), batch["noise"]
        )
        critics = learner.engine.parameters
        q = learner.values(critics, batch["observations"], actions).amin(0)
        return (0.3 * log_probs - q).mean(), log_probs

    loss, metrics = learner.actor_loss(learner.actor_engine.views(flat), {}, batch)
    actor_loss, log_probs = parts(flat)
    torch.testing.assert_close(metrics["loss/actor"], actor_loss)
    torch.testing.assert_close(loss - actor_loss, 0.3 * (-log_probs.mean() + 2.0))  # H̄ = -2
    assert metrics["policy/temperature"].item() == pytest.approx(0.3)

    gradient = torch.func.grad(
        lambda f: learner.actor_loss(learner.actor_engine.views(f), {}, batch)[0]
    )(flat)
    assert next(iter(learner.actor_engine.parameters)) == "log_temperature"  # so it is entry 0
    step, checked = 1e-6, 0
    for index in (16 + torch.randperm(len(flat) - 16, generator=generator())[:60]).tolist():
        shift = torch.zeros_like(flat)
        shift[index] = step
        numeric = (parts(flat + shift)[0] - parts(flat - shift)[0]) / (2 * step)
        assert gradient[index].item() == pytest.approx(numeric.item(), abs=1e-6)
        checked += numeric.abs() > 1e-4
    assert checked > 10
    # ∂L_α / ∂log α = α (H - H̄); L_π gives nothing to α
    assert gradient[0].item() == pytest.approx(0.3 * (-log_probs.mean().item() + 2.0))


@pytest.mark.parametrize(("entropy", "direction"), [(-5.0, 1), (-2.0, 0), (1.0, -1)])
def test_temperature_rises_when_the_policy_is_too_sure(float64, entropy, direction):
    log_temperature = torch.tensor([0.4])
    gradient = torch.func.grad(temperature_loss)(log_temperature, torch.tensor(entropy), -2.0, 0.0)
    assert np.sign(-gradient.item()) == direction


@pytest.mark.parametrize(
    ("log_temperature", "entropy", "moves"),
    [(0.1, -5.0, False), (0.1, 1.0, True), (-0.1, -5.0, True), (-0.1, 1.0, True)],
)
def test_temperature_is_held_at_its_cap_but_comes_back(float64, log_temperature, entropy, moves):
    gradient = torch.func.grad(temperature_loss)(
        torch.tensor([log_temperature]), torch.tensor(entropy), -2.0, 1.0
    )
    assert (gradient != 0).item() == moves


def test_no_more_than_the_cap_is_paid_for_entropy(float64, make_algorithm):
    learner = make_algorithm("sac", action=BOX, temperature=5.0, max_temperature=0.5).learner
    batch = some_batch() | {"critics": learner.engine.flat}
    _, metrics = learner.actor_loss(learner.actor_engine.parameters, {}, batch)
    assert metrics["policy/temperature"].item() == pytest.approx(0.5)


def test_a_fixed_temperature_stays(make_algorithm, noise_world):
    sac = make_algorithm(
        "sac", action=BOX, temperature=0.7, learn_temperature=False, learning_starts=9, batch_size=9
    )
    world = noise_world()
    for _ in range(9):
        metrics = sac.iteration(world)
    assert sac.updates > 0
    assert metrics["policy/temperature"].item() == pytest.approx(0.7)


class Bandit:
    """One step per episode; the reward is -(a - b)² with b in another place for each state."""

    num_envs = 3

    def __init__(self):
        self.env_steps = 0
        self.rng = np.random.default_rng(0)
        self.observations = self.draw()

    def draw(self):
        return self.rng.uniform(-1, 1, size=(3, 1)).astype(np.float32)

    def step(self, actions):
        self.env_steps += 3
        rewards = -((actions[:, 0] - 3.0 * self.observations[:, 0]) ** 2)
        before, self.observations = self.observations, self.draw()
        ends = np.ones(3, bool)
        return Transitions(
            before, actions, rewards, rewards, self.observations, ends, np.zeros(3, bool)
        )


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_it_finds_the_best_action_of_each_state(name, make_algorithm):
    """Bounds are ±5, so the best actions, 3 s, are ±0.6 in the policy's units."""
    algorithm = make_algorithm(
        name,
        shape=(1,),
        action=ActionSpec("continuous", (1,), (-5.0,), (5.0,)),
        env_steps=2400,
        hidden=(32,),
        batch_size=64,
        learning_rate=3e-3,
        learning_starts=300,
        updates_per_env_step=0.5,
    )
    world = Bandit()
    while world.env_steps < 2400:
        algorithm.iteration(world)
    states = np.linspace(-0.9, 0.9, 13, dtype=np.float32)[:, None]
    actions = algorithm.act(states, greedy=True)
    assert np.abs(actions - 3.0 * states).max() < 0.6


def test_the_learned_temperature_brings_the_entropy_to_its_target(make_algorithm):
    sac = make_algorithm(
        "sac",
        shape=(1,),
        action=ActionSpec("continuous", (1,), (-5.0,), (5.0,)),
        env_steps=3000,
        hidden=(32,),
        batch_size=64,
        learning_rate=3e-3,
        learning_starts=300,
        updates_per_env_step=0.5,
    )
    world, entropies = Bandit(), []
    while world.env_steps < 3000:
        metrics = sac.iteration(world)
        if metrics:
            entropies.append(metrics["policy/entropy"].item())
    assert math.isclose(np.mean(entropies[-300:]), -1.0, abs_tol=0.25)


@pytest.mark.parametrize(("cap", "alpha"), [(0.0, 0.8), (0.5, 0.5)])
def test_the_target_pays_the_learned_temperature(float64, make_algorithm, cap, alpha):
    learner = make_algorithm("sac", action=BOX, temperature=0.3, max_temperature=cap).learner
    learner.actor_engine.parameters["log_temperature"].fill_(math.log(0.8))
    generator = torch.Generator().manual_seed(7)
    following, noise = (torch.randn(9, n, generator=generator) for n in (5, 2))
    actor = learner.actor_engine
    actions, log_probs = squash(learner.outputs(actor.parameters, following), noise)
    target = learner.engine.target_parameters
    q = learner.values(target, following, actions).amin(0)
    batch = {"next_observations": following, "noise": noise, "actor": actor.flat}
    torch.testing.assert_close(learner.next_values(target, batch), q - alpha * log_probs)
