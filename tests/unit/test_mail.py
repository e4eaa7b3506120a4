"""MAIL: one gradient of two losses, its limits A2C and cloning, and the weight that falls."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.mail import MAILConfig, imitation_weight
from rlfd.envs import Transitions

DISCRETE = ActionSpec("discrete", (7,))
FACTORED = ActionSpec("multi_discrete", (2, 5, 3))
SWITCHES = ActionSpec("multi_binary", (3,))
SWITCHES_2 = ActionSpec("multi_binary", (2,))
SPECS = [DISCRETE, FACTORED, SWITCHES]
SETTINGS = {"hidden": (11,), "batch_steps": 33, "gamma": 0.9}


def demonstrated(action, make_demos):
    """Demonstrations of 17 random actions."""
    generator = torch.Generator().manual_seed(4)
    if action.kind == "discrete":
        actions = torch.randint(7, (17,), generator=generator)
    else:
        sizes = action.sizes if action.kind == "multi_discrete" else (2, 2, 2)
        actions = torch.stack(
            [torch.randint(size, (17,), generator=generator) for size in sizes], dim=1
        )
    return make_demos(actions=actions)


@pytest.fixture
def make(make_algorithm, make_demos):
    def make(action=FACTORED, **settings):
        demos = demonstrated(action, make_demos)
        return make_algorithm("mail", action=action, demos=demos, **SETTINGS | settings)

    return make


def stepped(algorithm, world, rounds=3):
    for _ in range(rounds):
        metrics = algorithm.iteration(world)
    return {n: v.clone() for n, v in algorithm.learner.engine.parameters.items()}, metrics


@pytest.mark.parametrize("action", SPECS, ids=lambda spec: spec.kind)
def test_without_imitation_it_is_a2c_bit_for_bit(make, make_algorithm, noise_world, action):
    mail = make(action, imitation_weight=0.0, final_learning_rate=1.0)
    a2c = make_algorithm("a2c", action=action, **SETTINGS)
    cloned, _ = stepped(mail, noise_world())
    plain, _ = stepped(a2c, noise_world())
    for name, value in plain.items():
        assert torch.equal(cloned[name], value), name


@pytest.mark.parametrize("action", SPECS, ids=lambda spec: spec.kind)
def test_one_step_is_that_of_both_losses(float64, make, noise_world, action):
    """RMSProp on w L_A2C + λ L_IL, the cloning loss written out over the components."""
    mail = make(action, learning_rate=0.01, live_weight=0.7, imitation_weight=1.3, max_grad_norm=0)
    reference = copy.deepcopy(mail.learner.networks)
    for parameter in reference.parameters():
        parameter.requires_grad_(True)
    seen, step = [], mail.learner.engine.step
    mail.learner.engine.step = lambda batch: seen.append(batch) or step(batch)
    metrics = mail.iteration(noise_world())
    (batch,) = seen
    assert len(batch["demo_actions"]) == len(batch["targets"]) == 33

    live, _ = mail.learner.loss(dict(reference.named_parameters()), {}, batch)
    logits, actions = reference.policy.body(batch["demo_inputs"]), batch["demo_actions"]
    if action.kind == "multi_binary":
        logits = torch.stack([torch.zeros_like(logits), logits], -1).flatten(1)
    parts = logits.split([2] * 3 if action.kind == "multi_binary" else list(action.sizes), dim=1)
    columns = actions.reshape(33, -1).long().unbind(1)
    nll = sum(
        torch.nn.functional.cross_entropy(part, column)
        for part, column in zip(parts, columns, strict=True)
    )
    optimiser = torch.optim.RMSprop(reference.parameters(), lr=0.01, alpha=0.99, eps=1e-5)
    (0.7 * live + 1.3 * nll).backward()
    reference.policy.log_std.grad = None
    optimiser.step()
    for name, value in reference.named_parameters():
        torch.testing.assert_close(mail.learner.engine.parameters[name], value.detach())
    torch.testing.assert_close(metrics["imitation/loss"], nll.detach())
    torch.testing.assert_close(metrics["imitation/loss_per_choice"], nll.detach() / len(columns))


def test_the_gradient_of_the_sum_is_the_sum_of_gradients(float64, make, noise_world):
    """Linear in both weights, and the value function is moved by the live part alone."""
    gradients = {}
    for live, imitation in ((1.0, 0.0), (0.0, 1.0), (0.4, 2.5)):
        mail = make(live_weight=live, imitation_weight=imitation)
        batch = []
        mail.learner.engine.step = lambda rows, batch=batch: batch.append(rows) or {}
        mail.iteration(noise_world())
        parameters = {
            name: value.clone().requires_grad_(True)
            for name, value in mail.learner.engine.parameters.items()
        }
        loss, _ = mail._loss(parameters, {}, batch[0])
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients[live, imitation] = dict(zip(parameters, grads, strict=True))
    for name, both in gradients[0.4, 2.5].items():
        if both is None:  # log-std: there is nothing continuous
            continue
        live, clone = gradients[1.0, 0.0][name], gradients[0.0, 1.0][name]
        torch.testing.assert_close(both, 0.4 * live + 2.5 * clone)
        if name.startswith("value"):
            assert not clone.any()
            assert live.any() or ".0." in name  # it begins as 0: only the last layer moves


def test_without_the_live_part_it_is_cloning(float64, make, noise_world):
    mail = make(live_weight=0.0, learning_rate=0.02, final_learning_rate=1.0)
    value = {n: v.clone() for n, v in mail.learner.networks.value.state_dict().items()}
    world = noise_world(reward=1000.0)
    first = mail.iteration(world)["imitation/loss"]
    for _ in range(150):
        last = mail.iteration(world)
    assert last["imitation/loss"] < 0.3 * first
    assert last["imitation/agreement"] > 0.9
    for name, now in mail.learner.networks.value.state_dict().items():
        assert torch.equal(now, value[name])


def test_the_weight_falls_by_schedule():
    def weights(schedule, **settings):
        config = MAILConfig(
            imitation_weight=2.0,
            final_imitation_weight=0.25,
            imitation_schedule=schedule,
            imitation_share=0.5,
            **settings,
        )
        return [imitation_weight(config, now, 800) for now in (0, 100, 200, 400, 800, 900)]

    assert weights("constant") == [2.0] * 6
    assert weights("linear") == pytest.approx([2.0, 1.625, 1.25, 0.5, 0.5, 0.5])
    cosine = weights("cosine")
    assert cosine[2:] == pytest.approx([1.25, 0.5, 0.5, 0.5])
    assert cosine[1] == pytest.approx(0.5 + 0.75 * (1 + 2**-0.5))


def test_the_first_weight_is_that_of_the_rollout_s_start(make, noise_world):
    mail, world = make(env_steps=99, imitation_weight=3.0, imitation_share=1.0), noise_world()
    seen = [mail.iteration(world)["imitation/weight"].item() for _ in range(4)]
    assert seen == pytest.approx([3.0, 2.1, 1.2, 0.3])


def test_it_reads_no_reward_of_the_demonstrations(make):
    assert not make().needs.demo_fields


class TwoSwitches:
    """Reward for pressing both switches at once, when the light is on; one step an episode."""

    def __init__(self, num_envs, *, single=False):
        self.num_envs, self.single, self.env_steps = num_envs, single, 0
        self.rng = np.random.default_rng(0)
        self.observations = self._lights()
        self.paid = []

    def _lights(self):
        return self.rng.integers(2, size=(self.num_envs, 1)).astype(np.float32)

    def step(self, actions):
        """Actions (N, 2) of 0 and 1, or with `single` (N,): nothing, the first, the second."""
        pressed = np.array([[0, 0], [1, 0], [0, 1]])[actions] if self.single else actions
        both = pressed.astype(bool).all(1)
        rewards = np.where(both, np.where(self.observations[:, 0] > 0, 1.0, -1.0), 0.0)
        ends = np.ones(self.num_envs, bool)
        before, self.observations = self.observations, self._lights()
        self.env_steps += self.num_envs
        self.paid.append(rewards.mean())
        return Transitions(
            before, actions, rewards, rewards, self.observations, ends, np.zeros_like(ends)
        )


def test_two_switches_at_once_need_a_factored_policy(make_algorithm, make_demos):
    """Half of the lights are on. One button per step never sees a reward, whatever it learns."""
    lights = torch.tensor([[0.0], [1.0], [1.0]])
    demos = dataclasses.replace(
        make_demos((1, 1, 1), shape=(1,)), observations=lights, actions=lights.repeat(1, 2).long()
    )
    settings = {"batch_steps": 33, "normalise_observations": False, "learning_rate": 0.01}
    problem = {"shape": (1,), "env_steps": 6_000, "num_envs": 11}
    mail = make_algorithm("mail", action=SWITCHES_2, demos=demos, **problem, **settings)
    single = make_algorithm("a2c", action=ActionSpec("discrete", (3,)), **problem, **settings)
    worlds = TwoSwitches(11), TwoSwitches(11, single=True)
    for algorithm, world in zip((mail, single), worlds, strict=True):
        while world.env_steps < 6_000:
            algorithm.iteration(world)
    assert np.mean(worlds[0].paid[-50:]) > 0.45
    assert not np.any(worlds[1].paid)
