"""GCL: the estimator against enumeration, what the samples are, and what is paid."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core.discriminator import discrimination_loss
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trajectories import EpisodeAssembler, side_by_side
from rlfd.algorithms.core.trajectory_samples import log_mixture
from rlfd.algorithms.gcl import (
    effective_size,
    gan_logits,
    gcl_objective,
    importance_weights,
    log_partition,
)

SMALL = {"batch_steps": 33, "value_batch_size": 5, "value_epochs": 2, "minibatch_size": 5}
SMALL |= {"epochs": 2, "reward_steps": 4, "reward_batch_size": 5, "reward_hidden": (7,)}
SMALL |= {"clone_steps": 30, "max_length": 4}


@pytest.fixture
def make_gcl(make_algorithm):
    def make(**options):
        return make_algorithm("gcl", **SMALL | options)

    return make


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- the estimator ------------------------------------------------------------------------------


def test_samples_of_the_target_have_equal_weights(float64):
    log_q = numbers(17)
    weights = importance_weights(log_q + 3.0, log_q)
    torch.testing.assert_close(weights, torch.full((17,), 1 / 17))
    torch.testing.assert_close(effective_size(weights), torch.tensor(17.0))


def test_weights_sum_to_one_whatever_is_added_to_all_returns(float64):
    returns, log_q = 900.0 * numbers(13), 300.0 * numbers(13, seed=1)
    weights = importance_weights(returns, log_q)
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    torch.testing.assert_close(importance_weights(returns - 512.0, log_q), weights)
    assert 1.0 <= effective_size(weights) < 1.1  # one of them outweighs the rest
    by_hand = importance_weights(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(by_hand[1] / by_hand[0], torch.tensor(math.exp(0.5)))


def test_the_gradient_is_the_weighted_formula(float64):
    theta = numbers(3).requires_grad_()
    demo, own, log_q = numbers(5, 3, seed=1), numbers(11, 3, seed=2), numbers(11, seed=3)
    (gradient,) = torch.autograd.grad(gcl_objective(demo @ theta, own @ theta, log_q), theta)
    weights = importance_weights(own @ theta.detach(), log_q)
    torch.testing.assert_close(gradient, demo.mean(0) - weights @ own)


def test_samples_that_are_the_demonstrations_leave_nothing_to_learn(float64):
    theta = torch.zeros(3, requires_grad=True)
    data = numbers(7, 3)
    objective = gcl_objective(data @ theta, data @ theta, torch.full((7,), -2.0))
    (gradient,) = torch.autograd.grad(objective, theta)
    torch.testing.assert_close(gradient, torch.zeros(3))


def all_trajectories():
    """Return visits (64, S · A) and log q (64,) of all trajectories of 3 states, 2 actions, T = 6.

    Dynamics are deterministic; q is that of a policy that is not uniform.
    """
    following = [[1, 2], [0, 2], [2, 0]]
    log_pi = torch.log_softmax(0.5 * numbers(3, 2, seed=5), dim=1)
    visits, log_q = torch.zeros(64, 6), torch.zeros(64)
    for row, actions in enumerate(itertools.product(range(2), repeat=6)):
        state = 0
        for action in actions:
            visits[row, 2 * state + action] += 1.0
            log_q[row] += log_pi[state, action]
            state = following[state][action]
    return visits, log_q


def sampled_gradient(rewards, visits, log_q, count, generator):
    """Return the gradient of -log Z, estimated from `count` samples of q."""
    chosen = torch.multinomial(log_q.exp(), count, replacement=True, generator=generator)
    table = rewards.clone().requires_grad_()
    objective = -log_partition(visits[chosen] @ table, log_q[chosen])
    return torch.autograd.grad(objective, table)[0]


def test_the_sampled_gradient_tends_to_the_exact_one_as_samples_grow(float64):
    """Error ~ M^-1/2: a quarter of it for 16 times as many samples."""
    visits, log_q = all_trajectories()
    torch.testing.assert_close(log_q.exp().sum(), torch.tensor(1.0))
    rewards = 0.5 * numbers(6, seed=6)
    exact = -torch.softmax(visits @ rewards, dim=0) @ visits  # by enumeration
    generator = torch.Generator().manual_seed(0)

    def error(count):
        squares = [
            (sampled_gradient(rewards, visits, log_q, count, generator) - exact).square().sum()
            for _ in range(200)
        ]
        return torch.stack(squares).mean().sqrt()

    errors = [float(error(count)) for count in (300, 4_800, 76_800)]
    for worse, better in itertools.pairwise(errors):
        assert 3.4 < worse / better < 4.7
    gradient = sampled_gradient(rewards, visits, log_q, 1_000, generator)
    # of what distinguishes trajectories: all have six steps
    parts = [part - part.mean() for part in (gradient, exact)]
    assert torch.cosine_similarity(*parts, dim=0) > 0.95


def test_at_its_optimum_the_discriminator_of_trajectories_is_undecided(float64):
    """q = p_ψ = exp(r) / Z: D = 1/2 on every trajectory, with Z from any other samples."""
    visits, _ = all_trajectories()
    returns = visits @ numbers(6, seed=6)
    log_p = torch.log_softmax(returns, dim=0)
    uniform = torch.full((64,), -math.log(64))
    log_z = log_partition(returns, uniform)  # each trajectory once
    logits = gan_logits(returns, log_p, log_z)
    torch.testing.assert_close(torch.sigmoid(logits), torch.full((64,), 0.5))
    loss = discrimination_loss(logits[:30], logits[30:])
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(2)))


def test_a_mixture_of_samplers(float64):
    densities, shares = torch.tensor([[0.2, 0.5], [0.1, 0.7]]), torch.tensor([0.25, 0.75])
    expected = torch.tensor([0.2 * 0.25 + 0.5 * 0.75, 0.1 * 0.25 + 0.7 * 0.75])
    torch.testing.assert_close(log_mixture(densities.log(), shares).exp(), expected)
    assert log_mixture(torch.tensor([[-900.0, -950.0]]), shares).isfinite().all()


# -- samples ------------------------------------------------------------------------------------


def test_pieces_side_by_side():
    ended = torch.tensor([False, True, True, False, False, True])
    padded = side_by_side(torch.arange(1, 7), ended, 2)
    assert padded.tolist() == [[1, 2], [3, 0], [4, 5]]
    assert side_by_side(torch.arange(1, 7), ended, 4)[2].tolist() == [4, 5, 6, 0]


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_trajectories_are_cut_at_the_limit_however_rollouts_fall(size):
    """Environment 0 ends after 5 and 4 steps, environment 1 after 2, 9 and 1; the limit is 3."""
    lengths, total = ([5, 4, 3], [2, 9, 1]), 12
    ended = torch.zeros(total, 2, dtype=torch.bool)
    for column, ends in enumerate(lengths):
        ended[torch.tensor(ends).cumsum(0) - 1, column] = True
    clock = torch.arange(total)[:, None] + torch.tensor([0, 100])
    assembler, found = EpisodeAssembler(whole=True, limit=3), []
    for start in range(0, total, size):
        part = slice(start, min(start + size, total))
        now, ends = clock[part], ended[part]
        pieces = assembler.add(Rollout(now, now, now, now, ends, ends))
        if pieces is not None:
            order = pieces["ended"].nonzero()[:, 0].tolist()
            begin = 0
            for end in order:
                found.append(pieces["observations"][begin : end + 1].tolist())
                begin = end + 1
            assert begin == len(pieces["ended"])
        restored = EpisodeAssembler(whole=True, limit=3)
        restored.load_state_dict(assembler.state_dict(), torch.device("cpu"))
        assembler = restored
    expected = [[0, 1, 2], [5, 6, 7], [9, 10, 11]]
    expected += [[100, 101], [102, 103, 104], [111]]
    assert sorted(found) == expected


def test_densities_are_sums_over_steps_of_every_sampler_and_the_clone(
    make_gcl, noise_world, float64
):
    gcl, world = make_gcl(samplers=2), noise_world()
    learned = gcl.trajectories
    for _ in range(3):
        gcl.iteration(world)
    assert len(learned.samples.samplers) == len(learned.samples.pool) == 2
    gcl.trajectories.learn(gcl.learner.collect(world))
    newest = learned.samples.pool[-1]
    shares = torch.tensor([0.3, 0.7])
    table = learned.samples.table(newest, shares)

    def density(network, row):
        count = int(newest["taken"][row].sum())
        outputs = network(newest["observations"][row, :count])
        log_probs = torch.log_softmax(outputs, dim=1)
        return log_probs.gather(1, newest["actions"][row, :count, None]).sum().exp()

    for row in (0, 3):
        each = [density(network, row) for network in learned.samples.samplers]
        own = 0.3 * each[0] + 0.7 * each[1]
        torch.testing.assert_close(table["log_own"][row].exp(), own)
        both = 0.5 * own + 0.5 * density(learned.samples.clone, row)
        torch.testing.assert_close(table["log_q"][row].exp(), both)
    assert not torch.equal(*(density(network, 0) for network in learned.samples.samplers))
    now = gcl.learner.actor.network.state_dict()
    assert all(torch.equal(v, now[n]) for n, v in learned.samples.samplers[-1].state_dict().items())


def test_the_clone_knows_what_is_demonstrated(make_gcl, make_demos, noise_world):
    demos = make_demos((4, 4, 4, 4))
    gcl = make_gcl(demos=demos, clone_steps=400, hidden=(31,))
    gcl.trajectories.learn(gcl.learner.collect(noise_world()))
    outputs = gcl.trajectories.samples.clone(demos.observations)
    chosen = torch.log_softmax(outputs, dim=1).gather(1, demos.actions[:, None])
    assert chosen.exp().min() > 0.4  # of seven actions


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_terminated_trajectories_stay_in_the_absorbing_state(make_gcl, make_demos, absorbing):
    """Of 2 and 3 steps, the second one cut, and of 7 steps, which are cut after 4."""
    demos = make_demos((2, 3, 7), terminated=[True, False, True], actions=torch.arange(12) % 7)
    gcl = make_gcl(absorbing=absorbing, demos=demos)
    learned = gcl.trajectories
    learned.samples.samplers.append(gcl.learner.actor.network)
    table = learned.samples.table(learned.samples.demos, torch.ones(1))
    on = float(absorbing == "indicator")
    expected = [[1.0, 1.0, on, on], [1.0, 1.0, 1.0, 0.0], [1.0] * 4]
    assert table["counts"].tolist() == expected
    if absorbing == "indicator":
        marks = table["rows"][..., -1]
        assert marks.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
        assert not table["rows"][0, 2:, :-1].any()


# -- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["gcl", "gan"])
def test_demonstrations_come_to_be_worth_more(make_gcl, noise_world, objective):
    gcl, world = make_gcl(objective=objective, reward_learning_rate=0.01), noise_world()
    for _ in range(12):
        metrics = gcl.iteration(world)
        assert set(metrics) == set(gcl.metric_definitions)
    assert metrics["gcl/demo_return"] > metrics["gcl/own_return"] + 0.2


def test_collapsed_weights_are_replaced_and_reported_once(make_gcl, noise_world, caplog):
    gcl, world = make_gcl(ess_floor=1.0), noise_world()
    with caplog.at_level(logging.WARNING, logger="rlfd"):
        for _ in range(4):
            metrics = gcl.iteration(world)
            assert metrics["gcl/flat"] == 1.0
            assert 0.1 <= metrics["gcl/ess"] < 1.0
    (record,) = [r for r in caplog.records if r.name == "rlfd.gcl"]
    message = record.getMessage()
    for text in (
        "effective sample size is",
        " of 10,",
        "100% of the reward's steps",
        "max_length",
        "batch_steps",
        "airl",
    ):
        assert text in message


def test_with_equal_weights_the_step_is_that_of_the_means(make_gcl, float64):
    gcl = make_gcl(ess_floor=1.0, output_l2=0.0, absorbing="off")
    batch = {"inputs": numbers(10, 4, 12), "counts": torch.ones(10, 4)}
    batch |= {"log_q": 50.0 * numbers(10, seed=1), "log_own": numbers(10)}
    learned = gcl.trajectories
    loss, outputs = learned._loss(learned.engine.parameters, {}, batch)
    returns = learned.network(batch["inputs"])[..., 0].sum(1)
    torch.testing.assert_close(loss, returns.mean() - returns[:5].mean())
    assert outputs["gcl/flat"] == 1.0
    gcl = make_gcl(ess_floor=0.0, output_l2=0.25, absorbing="off")
    learned = gcl.trajectories
    loss, outputs = learned._loss(learned.engine.parameters, {}, batch)
    steps = learned.network(batch["inputs"])[..., 0]
    expected = -gcl_objective(steps.sum(1)[:5], steps.sum(1), batch["log_q"])
    torch.testing.assert_close(loss, expected + 0.25 * steps.square().sum(1).mean())
    assert outputs["gcl/flat"] == 0.0


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_what_is_paid_is_the_reward_that_is_kept(make_gcl, noise_world, absorbing):
    gcl, other = make_gcl(absorbing=absorbing), make_gcl(absorbing=absorbing, seed=1)
    world = noise_world()
    for _ in range(3):
        gcl.iteration(world)
    rollout = gcl.learner.collect(world)
    paid, metrics = gcl.trajectories.pay(rollout)
    names = ("observations", "actions", "next_observations", "terminated")
    arrays = {name: rollout.flat(getattr(rollout, name)).numpy() for name in names}
    rewards = gcl.reward(**arrays)
    np.testing.assert_allclose(rewards, paid.flatten().numpy(), rtol=1e-6)
    assert (metrics["reward/absorbing"] == 0.0) == (absorbing == "off")
    torch.testing.assert_close(metrics["reward/learned"] - metrics["reward/absorbing"], paid.mean())
    other.load_reward_state(gcl.reward_state())
    np.testing.assert_array_equal(other.reward(**arrays), rewards)


def test_nothing_is_learned_before_a_trajectory_is_whole(make_gcl, noise_world):
    gcl, world = make_gcl(batch_steps=3, max_length=3), noise_world()
    policy = gcl.policy_state()
    assert gcl.iteration(world) == gcl.iteration(world) == {}
    assert all(torch.equal(value, policy[name]) for name, value in gcl.policy_state().items())
    assert gcl.iteration(world)["gcl/trajectories"] == 3.0


def test_it_goes_where_the_demonstrator_stays(make_gcl, tabular_world):
    """States 0 to 4 on a circle; action 0 goes on, 1 goes back, 2 stays. Shown: to 0 and stay."""
    following = np.stack([np.roll(range(5), -1), np.roll(range(5), 1), range(5)], axis=1)
    shown = torch.tensor([2, 1, 1, 0, 0])
    states = torch.tensor([[2, 1, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0]]).flatten().repeat(3)
    demos = DemoTensors(
        observations=torch.eye(5)[states],
        actions=shown[states],
        episode_ids=torch.arange(6).repeat_interleave(6),
        terminated=torch.zeros(36, dtype=torch.bool),
    )
    gcl = make_gcl(
        action=3,
        demos=demos,
        num_envs=5,
        batch_steps=300,
        value_batch_size=150,
        delta=0.05,
        max_length=6,
        reward_steps=20,
        reward_batch_size=16,
        reward_learning_rate=0.01,
        env_steps=6_000,
    )
    world = tabular_world(following, np.zeros((5, 3)), starts=(2, 3), horizon=6)
    while world.env_steps < 6_000:
        gcl.iteration(world)
    assert gcl.act(np.eye(5, dtype=np.float32), greedy=True).tolist() == shown.tolist()
