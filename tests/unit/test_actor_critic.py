"""Parts of the off-policy learners of continuous actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.actor_critic import TwinCritics, squash, td_target, twin_errors

BOX = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- the squashed Gaussian ----------------------------------------------------------------------


def test_log_density_equals_a_numerical_change_of_variables(float64):
    """log π(a) = log N(u) - log |da/du|, the slope by central differences."""
    outputs = 0.5 * torch.randn(7, 6, generator=generator())
    noise = torch.rand(7, 3, generator=generator(1)) * 3 - 1.5  # beyond, the differences round off
    actions, log_probs = squash(outputs, noise)
    mean, log_std = outputs.chunk(2, dim=-1)
    u = mean + log_std.exp() * noise
    step = 1e-6
    slope = (torch.tanh(u + step) - torch.tanh(u - step)) / (2 * step)
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected = (normal.log_prob(u) - slope.log()).sum(-1)
    torch.testing.assert_close(actions, torch.tanh(u))
    torch.testing.assert_close(log_probs, expected, rtol=1e-7, atol=1e-7)


def test_the_density_integrates_to_one(float64):
    """In one dimension, over u: ∫ π(tanh u) tanh'(u) du = 1."""
    mean, log_std = 0.7, -0.4
    xi = torch.linspace(-9, 9, 20_001)
    outputs = torch.tensor([mean, log_std]).expand(len(xi), 2)
    actions, log_probs = squash(outputs, xi[:, None])
    total = torch.trapezoid(log_probs.exp(), actions[:, 0])
    assert total.item() == pytest.approx(1.0, abs=1e-6)


def test_log_density_and_gradient_stay_finite_where_tanh_saturates():
    outputs = torch.tensor([[60.0, 2.0], [-60.0, -20.0]], requires_grad=True)
    actions, log_probs = squash(outputs, torch.tensor([[3.0], [-3.0]]))
    assert actions.detach().abs().tolist() == [[1.0], [1.0]]
    assert torch.isfinite(log_probs).all()
    (gradient,) = torch.autograd.grad(log_probs.sum() + actions.sum(), outputs)
    assert torch.isfinite(gradient).all()


def test_zero_noise_gives_the_squashed_mean(float64):
    outputs = torch.randn(5, 4, generator=generator())
    actions, _ = squash(outputs, torch.zeros(5, 2))
    torch.testing.assert_close(actions, torch.tanh(outputs[:, :2]))


# -- twin critics -------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_norm", [False, True])
def test_stacked_critics_equal_two_separate_networks(float64, layer_norm):
    critics = TwinCritics(
        [8, 11, 9, 1], layer_norm=layer_norm, generator=generator(), device=torch.device("cpu")
    )
    observations = torch.randn(7, 5, generator=generator(1))
    actions = torch.randn(7, 3, generator=generator(2))
    if layer_norm:
        for parameters in (critics.gains, critics.shifts):
            for parameter in parameters:
                nn.init.normal_(parameter, generator=generator(3))
    values = critics(observations, actions)
    assert values.shape == (2, 7)
    for index in range(2):
        x = torch.cat([observations, actions], dim=1)
        for layer in range(3):
            x = x @ critics.weights[layer][index] + critics.biases[layer][index]
            if layer < 2:
                if layer_norm:
                    x = torch.layer_norm(x, x.shape[-1:])
                    x = x * critics.gains[layer][index] + critics.shifts[layer][index]
                x = x.relu()
        torch.testing.assert_close(values[index], x[:, 0])
    assert not torch.allclose(values[0], values[1])


def test_initial_weights_have_the_usual_range_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    critics = TwinCritics(
        [100, 50, 1], layer_norm=False, generator=generator(), device=torch.device("cpu")
    )
    for weight in critics.weights:
        bound = weight.shape[1] ** -0.5
        assert 0.9 * bound < weight.abs().max() <= bound
        assert not torch.equal(weight[0], weight[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_target_bootstraps_unless_terminated():
    rewards, discounts = torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.0])
    assert td_target(rewards, discounts, torch.tensor([10.0, 99.0])).tolist() == [10.0, 2.0]


def test_errors_are_summed_over_both_critics():
    q_values = torch.tensor([[1.0, 2.0], [4.0, 0.0]])
    assert twin_errors(q_values, torch.tensor([3.0, 1.0])).tolist() == [4.0 + 1.0, 1.0 + 1.0]


# -- the learners -------------------------------------------------------------------------------


@pytest.fixture(params=["sac", "td3"])
def build(request, make_algorithm):
    """Return a function that builds a small learner of two-dimensional actions."""

    def build(**options):
        small = {"batch_size": 9, "learning_starts": 9, "updates_per_env_step": 1 / 3}
        return make_algorithm(request.param, **{"action": BOX} | small | options)

    return build


def test_actions_survive_the_way_to_the_environment_and_back(build):
    learner = build().learner
    units = torch.rand(50, 2, generator=generator()) * 2 - 1
    env = learner._to_env(units)
    assert env.dtype == np.float32
    assert (env >= BOX.low).all()
    assert (env <= BOX.high).all()
    back = learner.taken({"actions": torch.from_numpy(env)})
    torch.testing.assert_close(back, units, rtol=0, atol=1e-6)
    ends = learner._to_env(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert ends.tolist() == [[-1.0, 0.0], [1.0, 3.0]]
    assert learner.taken({"actions": torch.tensor([[9.0, -9.0]])}).tolist() == [[1.0, -1.0]]


def test_actions_are_uniform_before_the_first_update_only(build, noise_world):
    algorithm, world = build(learning_starts=300), noise_world()
    for _ in range(100):
        algorithm.iteration(world)
    drawn = np.concatenate(world.actions)
    assert drawn.min(axis=0) == pytest.approx([-1.0, 0.0], abs=0.05)
    assert drawn.max(axis=0) == pytest.approx([1.0, 3.0], abs=0.05)
    assert drawn.mean(axis=0) == pytest.approx([0.0, 1.5], abs=0.15)
    assert algorithm.updates == 0
    algorithm.iteration(world)
    assert algorithm.updates == 1 - 1 % algorithm.config.policy_delay


def test_memory_holds_what_was_done_and_discounts_by_termination_alone(build, noise_world):
    algorithm, world = build(), noise_world()
    for _ in range(11):
        algorithm.iteration(world)
    memory = algorithm.learner.replay._memory
    np.testing.assert_array_equal(memory["actions"][:11], np.stack(world.actions))
    batch = algorithm.learner.replay.sample(1, 500, generator())[0]
    ended = memory["ended"][:11].flatten()
    terminated = memory["terminated"][:11].flatten()
    assert (ended & ~terminated).any()  # cut episodes are in there
    share = (batch["discounts"] == 0).float().mean()
    assert share.item() == pytest.approx(terminated.float().mean().item(), abs=0.1)
    assert batch["discounts"].unique().tolist() == pytest.approx([0.0, 0.99])


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actor_takes_one_step_for_so_many_of_the_critics(build, noise_world, delay):
    algorithm, world = build(policy_delay=delay, updates_per_env_step=1.0), noise_world()
    learner = algorithm.learner
    for _ in range(10):
        metrics = algorithm.iteration(world)
        assert not metrics or set(metrics) == set(algorithm.metric_definitions)
        assert learner.engine.count == algorithm.updates == delay * learner.actor_engine.count
    assert algorithm.updates == (30 - 9) // delay * delay


def test_policy_state_holds_the_actor_alone(build, noise_world):
    algorithm, world = build(), noise_world()
    for _ in range(9):
        algorithm.iteration(world)
    state = algorithm.policy_state()
    assert all(name.startswith("body.") for name in state)
    other = build(seed=4)
    critics = other.learner.engine.flat.clone()
    other.load_policy_state(state)
    seen = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    np.testing.assert_array_equal(algorithm.act(seen, greedy=True), other.act(seen, greedy=True))
    assert torch.equal(other.learner.engine.flat, critics)


def test_actions_stay_within_their_bounds_whatever_the_weights(build):
    algorithm = build()
    algorithm.learner.actor_engine.flat.mul_(1e4)
    seen = np.random.default_rng(0).normal(size=(99, 5)).astype(np.float32)
    for greedy in (True, False):
        actions = algorithm.learner.act(seen, greedy=greedy, generator=generator())
        assert (actions >= BOX.low).all()
        assert (actions <= BOX.high).all()


def some_batch(size=9):
    noise = generator(7)
    return {
        "observations": torch.randn(size, 5, generator=noise),
        "actions": torch.tensor([0.0, 1.5]) + torch.rand(size, 2, generator=noise),
        "rewards": torch.randn(size, generator=noise),
        "next_observations": torch.randn(size, 5, generator=noise),
        "discounts": torch.full((size,), 0.99),
        "noise": torch.randn(size, 2, generator=noise),
    }


def test_the_target_is_a_constant(float64, build):
    """Perturbing target and actor changes y; no gradient of the critics' loss reaches them."""
    learner = build().learner
    batch = some_batch()
    online, target = learner.engine.flat, learner.engine.target_flat.clone().add_(0.1)
    views = learner.engine.views

    def loss(online, target, actor):
        return learner.critic_loss(views(online), views(target), batch | {"actor": actor})[0]

    actor = learner.actor_engine.flat
    gradients = torch.func.grad(loss, argnums=(0, 1, 2))(online, target, actor)
    assert (gradients[0] != 0).any()
    assert (gradients[1] == 0).all()
    assert (gradients[2] == 0).all()
    assert loss(online, target, actor) != loss(online, target + 0.1, actor)
    assert loss(online, target, actor) != loss(online, target, actor + 0.1)


def test_bootstrapping_takes_the_smaller_of_both_targets(float64, build):
    """Raising the larger critic changes nothing, raising the smaller one does."""
    learner = build().learner
    batch = some_batch() | {"actor": learner.actor_engine.flat}
    online = learner.engine.parameters
    last = "biases.1"

    def y(first, second):
        target = {name: value.clone() for name, value in online.items()}
        target[last] = torch.tensor([first, second]).view(2, 1, 1)
        return learner.critic_loss(online, target, batch)[1]["q/target"].item()

    assert y(100.0, 5.0) == pytest.approx(y(300.0, 5.0))
    assert y(5.0, 100.0) == pytest.approx(y(5.0, 300.0))
    assert y(100.0, 6.0) == pytest.approx(y(100.0, 5.0) + 0.99)
    assert y(6.0, 100.0) == pytest.approx(y(5.0, 100.0) + 0.99)


def test_the_actors_step_leaves_the_critics_alone_and_sees_them_after_their_step(
    build, noise_world, monkeypatch
):
    algorithm, world = build(updates_per_env_step=1.0), noise_world()
    learner, seen = algorithm.learner, []
    step = learner.actor_engine.step

    def checked(batch):
        assert batch["critics"] is learner.engine.flat
        before = learner.engine.flat.clone()
        seen.append(before)
        outputs = step(batch)
        assert torch.equal(learner.engine.flat, before)
        return outputs

    monkeypatch.setattr(learner.actor_engine, "step", checked)
    for _ in range(9):
        algorithm.iteration(world)
    assert len(seen) > 5
    assert not torch.equal(seen[0], seen[1])


def test_targets_follow_every_so_many_updates(build, noise_world, monkeypatch):
    """θ̄ ← (1 - τ) θ̄ + τ θ, and the target actor likewise, by hand over ten updates."""
    algorithm, world = build(updates_per_env_step=1.0, polyak_tau=0.3), noise_world()
    learner = algorithm.learner
    every = 2 if algorithm.name == "td3" else 1
    expected = learner.engine.flat.clone()
    expected_actor = learner.actor_engine.flat.clone()
    step, actor_step = learner.engine.step, learner.actor_engine.step

    def checked(batch):
        nonlocal expected
        outputs = step(batch)
        if learner.engine.count % every == 0:
            expected = 0.7 * expected + 0.3 * learner.engine.flat
        torch.testing.assert_close(learner.engine.target_flat, expected)
        return outputs

    def checked_actor(batch):
        nonlocal expected_actor
        outputs = actor_step(batch)
        expected_actor = 0.7 * expected_actor + 0.3 * learner.actor_engine.flat
        if algorithm.name == "td3":
            torch.testing.assert_close(learner.actor_engine.target_flat, expected_actor)
        return outputs

    monkeypatch.setattr(learner.engine, "step", checked)
    monkeypatch.setattr(learner.actor_engine, "step", checked_actor)
    for _ in range(9):
        algorithm.iteration(world)
    assert algorithm.updates >= 10
