"""TD3: target smoothing, the actor's gradient, exploration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.rl.td3 import smoothed

BOX = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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


def test_noise_is_clipped_first_then_the_action():
    actions = torch.tensor([[0.0, 0.0, 0.9, -0.9, 0.3]])
    noise = torch.tensor([[1.0, 9.0, 9.0, -9.0, -1.0]])
    result = smoothed(actions, noise, 0.2, 0.5)
    assert result.tolist()[0] == pytest.approx([0.2, 0.5, 1.0, -1.0, 0.1])


def test_noise_within_its_limit_has_the_given_std(float64):
    noise = torch.randn(100_000, 1, generator=generator())
    result = smoothed(torch.zeros(100_000, 1), noise, 0.2, 0.5)
    assert result.abs().max() == 0.5
    assert result.std().item() == pytest.approx(0.2, rel=0.02)


def test_critic_loss_by_hand(float64, make_algorithm):
    """Target actor and target critics, both apart from the online ones."""
    learner = make_algorithm("td3", action=BOX).learner
    learner.engine.target_flat.mul_(1.7)
    learner.actor_engine.target_flat.mul_(-2.3)
    batch = some_batch()
    batch["discounts"][::2] = 0.0
    actor, target = learner.actor_engine.target_parameters, learner.engine.target_parameters
    following = batch["next_observations"]
    actions = torch.tanh(learner.outputs(actor, following))
    actions = (actions + (0.2 * batch["noise"]).clamp(-0.5, 0.5)).clamp(-1, 1)
    y = batch["rewards"] + batch["discounts"] * learner.values(target, following, actions).amin(0)
    units = 2 * (batch["actions"] - torch.tensor([-1.0, 0.0])) / torch.tensor([2.0, 3.0]) - 1
    q = learner.values(learner.engine.parameters, batch["observations"], units)
    loss, metrics = learner.critic_loss(
        learner.engine.parameters, target, batch | learner._actor_parameters()
    )
    torch.testing.assert_close(loss, ((q - y) ** 2).sum(0).mean())
    torch.testing.assert_close(metrics["q/target"], y.mean())


def test_actor_is_led_by_the_first_critic_alone(float64, make_algorithm):
    learner = make_algorithm("td3", action=BOX).learner
    batch = some_batch()

    def loss(actor, critics):
        views = learner.actor_engine.views(actor)
        return learner.actor_loss(views, {}, batch | {"critics": critics})[0]

    actor, critics = learner.actor_engine.flat, learner.engine.flat
    actions = torch.tanh(learner.outputs(learner.actor_engine.parameters, batch["observations"]))
    q = learner.values(learner.engine.parameters, batch["observations"], actions)
    torch.testing.assert_close(loss(actor, critics), -q[0].mean())
    gradient = learner.engine.views(torch.func.grad(loss, argnums=1)(actor, critics))
    assert any((part[0] != 0).any() for part in gradient.values())
    assert all((part[1] == 0).all() for part in gradient.values())
    assert (torch.func.grad(loss)(actor, critics) != 0).any()


def test_exploration_noise_while_learning_only(make_algorithm, noise_world):
    td3 = make_algorithm("td3", action=BOX, learning_starts=0, updates_per_env_step=1e-9)
    td3.learner.actor_engine.flat.zero_()  # so π(s) is the middle of the bounds
    world = noise_world()
    for _ in range(200):
        td3.iteration(world)
    actions = np.concatenate(world.actions)
    assert actions.mean(axis=0) == pytest.approx([0.0, 1.5], abs=0.03)
    assert actions.std(axis=0) == pytest.approx([0.1, 0.15], rel=0.15)  # half the width times 0.1
    seen = np.zeros((7, 5), np.float32)
    for greedy in (True, False):
        assert td3.act(seen, greedy=greedy) == pytest.approx(np.tile([0.0, 1.5], (7, 1)))
