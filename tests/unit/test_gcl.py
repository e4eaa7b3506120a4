"""GCL: the estimator against enumeration, what the samples are, and what is paid."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.absorbing import absorbing_steps
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.importance import (
    log_partition,
    tempered_weights,
)
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trajectories import EpisodeAssembler, side_by_side
from rlfd.algorithms.core.trajectory_samples import log_mixture, segments
from rlfd.algorithms.gcl import gan_logits, gan_loss, gcl_objective
from rlfd.envs import Transitions

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


def ones(*shape):
    return torch.ones(*shape)


@pytest.mark.parametrize("order", [0.25, 1.0])
def test_the_gradient_is_the_weighted_formula(float64, order):
    theta = numbers(3).requires_grad_()
    demo, own, log_q = numbers(5, 2, 3, seed=1), numbers(11, 2, 3, seed=2), numbers(11, 2, seed=3)
    orders = torch.tensor([order, 1.0])
    objective = gcl_objective(demo @ theta, ones(5, 2), own @ theta - log_q, orders)
    (gradient,) = torch.autograd.grad(objective, theta)
    weights = tempered_weights(own @ theta.detach() - log_q, orders)
    expected = demo.mean(0).sum(0) - (weights[..., None] * own).sum((0, 1))
    torch.testing.assert_close(gradient, expected)


def test_samples_that_are_the_demonstrations_leave_nothing_to_learn(float64):
    theta = torch.zeros(3, requires_grad=True)
    data, log_q = numbers(7, 1, 3), torch.full((7, 1), -2.0)
    objective = gcl_objective(data @ theta, ones(7, 1), data @ theta - log_q, ones(1))
    (gradient,) = torch.autograd.grad(objective, theta)
    torch.testing.assert_close(gradient, torch.zeros(3))


def test_a_constant_reward_changes_nothing_however_long_trajectories_are(float64):
    """Demonstrations of 4, 4, 1 and 2 steps, others of 2, 5 and 3; each step has its weight."""
    lengths = torch.tensor([4, 4, 1, 2, 2, 5, 3])
    there = (torch.arange(6) < lengths[:, None]).double()
    rewards, log_q = numbers(7, 6), numbers(7, 6, seed=1)

    def objective(constant):
        paid = (rewards + constant) * there
        log_weights = torch.where(there > 0, paid - log_q, -torch.inf)
        return gcl_objective(paid[:4], there[:4], log_weights, torch.full((6,), 0.4))

    torch.testing.assert_close(objective(5.0), objective(0.0))


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
    log_weights = visits[chosen] @ table - log_q[chosen]
    objective = -log_partition(log_weights[:, None], torch.ones(1)).sum()
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
    log_z = log_partition((returns - uniform)[:, None], ones(1))  # each trajectory once
    logits = gan_logits(returns[:, None], log_p[:, None], log_z)
    torch.testing.assert_close(torch.sigmoid(logits), torch.full((64, 1), 0.5))
    there = ones(64, 1)
    there[7:31] = 0.0
    loss = gan_loss(torch.where(there > 0, logits, 33.0), there)
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(2)))


def test_a_mixture_of_samplers(float64):
    densities, shares = torch.tensor([[0.2, 0.5], [0.1, 0.7]]), torch.tensor([0.25, 0.75])
    expected = torch.tensor([0.2 * 0.25 + 0.5 * 0.75, 0.1 * 0.25 + 0.7 * 0.75])
    torch.testing.assert_close(log_mixture(densities.log(), shares).exp(), expected)
    assert log_mixture(torch.tensor([[-900.0, -950.0]]), shares).isfinite().all()


def test_a_bounded_reward_of_clipped_actions_has_a_partition_function(float64):
    """∫ exp r over what is executed: between the bounds, and at each of them.

    Draws that are weighed by where they fell before they were clipped have none: beyond the bounds
    exp(r) / q grows without end.
    """
    policy = make_distribution(ActionSpec("continuous", (1,), (-1.0,), (1.0,)))

    def reward(actions):
        return torch.sin(3.0 * policy.features(actions))[:, 0]

    grid = torch.linspace(-1.0, 1.0, 20_001)[:, None]
    bounds = torch.tensor([[-1.0], [1.0]])
    total = 2.0 * reward(grid).exp().mean() + reward(bounds).exp().sum()
    mean, log_std = torch.tensor([[0.3]]).expand(400_000, 1), torch.tensor([0.2])
    draws = policy.sample(mean, log_std, torch.Generator().manual_seed(0))
    log_q = policy.executed_log_prob(mean, log_std, draws)
    log_z = log_partition((reward(draws) - log_q)[:, None], ones(1))
    torch.testing.assert_close(log_z[0], total.log(), rtol=0, atol=0.005)


# -- samples ------------------------------------------------------------------------------------


def test_segments_of_steps():
    steps = torch.arange(1.0, 8.0)[None] * torch.tensor([[1.0], [10.0]])
    assert segments(steps, 3).tolist() == [[6.0, 15.0, 7.0], [60.0, 150.0, 70.0]]
    assert segments(steps, 7).tolist() == [[28.0], [280.0]]
    assert torch.equal(segments(steps, 1), steps)


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


@pytest.mark.parametrize("length", [0, 1, 3])
def test_densities_are_sums_over_segments_of_every_sampler_and_the_clone(
    make_gcl, noise_world, float64, length
):
    gcl, world = make_gcl(samplers=2, weight_steps=length), noise_world()
    learned = gcl.trajectories
    for _ in range(3):
        gcl.iteration(world)
    assert len(learned.samples.samplers) == len(learned.samples.pool) == 2
    gcl.trajectories.learn(gcl.learner.collect(world))
    newest = learned.samples.pool[-1]
    shares = torch.tensor([0.3, 0.7])
    table = learned.samples.table(newest, shares)
    assert table["log_q"].shape[1] == {0: 1, 1: 4, 3: 2}[length]

    def density(network, row):
        count = int(newest["taken"][row].sum())
        outputs = network(newest["observations"][row, :count])
        log_probs = torch.log_softmax(outputs, dim=1)
        taken = log_probs.gather(1, newest["actions"][row, :count, None])[:, 0]
        parts = torch.split(torch.nn.functional.pad(taken, (0, 4 - count)), length or 4)
        return torch.stack([part.sum() for part in parts]).exp()

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
def test_terminated_trajectories_stay_where_they_ended(make_gcl, make_demos, absorbing):
    """Of 2 and 3 steps, the second one cut, and of 7 steps, which are cut after 6."""
    demos = make_demos((2, 3, 7, 5), terminated=[True, False, True, True])
    gcl = make_gcl(absorbing=absorbing, demos=demos, max_length=6)
    learned = gcl.trajectories
    learned.samples.samplers.append(gcl.learner.actor.network)
    table = learned.samples.table(learned.samples.demos, torch.ones(1))
    taken = torch.arange(6) < torch.tensor([2, 3, 6, 5])[:, None]
    over = torch.tensor([True, False, False, True])[:, None] & (absorbing == "indicator")
    assert torch.equal(table["counts"], (taken | over).float())
    if absorbing == "off":
        return
    marks = table["rows"][..., -1]
    assert torch.equal(marks > 0, over & ~taken)
    stays = absorbing_steps(torch.tensor([2, 5]), gamma=1.0, horizon=6)
    assert torch.equal(marks.sum(1)[[0, 3]].long(), stays)
    last = demos.next_observations[torch.tensor([1, 16])]  # the 2nd of 2, the 5th of 5 after 12
    expected = torch.cat([last, torch.zeros(2, 7), torch.ones(2, 1)], dim=1)
    assert torch.equal(table["rows"][0, 2:], expected[:1].expand(4, -1))
    assert torch.equal(table["rows"][3, 5:], expected[1:])


def test_own_trajectories_stay_at_their_true_last_observation(make_gcl, noise_world):
    gcl = make_gcl(max_length=9)
    rollout = gcl.learner.collect(noise_world())
    gcl.trajectories.learn(rollout)
    (part,) = gcl.trajectories.samples.pool
    ends = rollout.next_observations.transpose(0, 1)[rollout.ended.T]
    assert torch.equal(part["final"], ends)
    assert torch.equal(part["stays"].any(1), rollout.terminated.T[rollout.ended.T])


class EndlessWorld:
    """States wander under the action; every 200 steps an episode is cut."""

    def __init__(self, num_envs):
        self.num_envs, self.env_steps, self.clock = num_envs, 0, 0
        self.rng = np.random.default_rng(0)
        self.observations = self.rng.normal(size=(num_envs, 5)).astype(np.float32)

    def step(self, actions):
        assert (np.abs(actions) <= 2.0).all()
        self.env_steps, self.clock = self.env_steps + self.num_envs, self.clock + 1
        following = 0.9 * self.observations
        following[:, :1] += 0.2 * actions
        following += 0.1 * self.rng.normal(size=following.shape)
        following, zeros = following.astype(np.float32), np.zeros(self.num_envs)
        cut = np.full(self.num_envs, self.clock % 200 == 0)
        step = Transitions(
            self.observations, actions, zeros, zeros, following, np.zeros_like(cut), cut
        )
        first = self.rng.normal(size=following.shape).astype(np.float32)
        self.observations = np.where(cut[:, None], first, following)
        return step


def test_the_weights_of_200_continuous_steps_do_not_collapse(make_gcl):
    """By default, in every iteration, of a policy whose draws are clipped a third of the time."""
    world = EndlessWorld(5)
    generator = torch.Generator().manual_seed(1)
    seen = torch.randn(7 * 200, 5, generator=generator)
    demos = DemoTensors(
        observations=seen,
        actions=(-2.9 * seen[:, :1]).clamp(-2.0, 2.0),  # half of them at a bound
        episode_ids=torch.arange(7).repeat_interleave(200),
        next_observations=seen.roll(-1, 0),
        terminated=torch.zeros(7 * 200, dtype=torch.bool),
    )
    options = {"demos": demos, "num_envs": 5, "batch_steps": 2_000, "max_length": 200}
    options |= {"action": ActionSpec("continuous", (1,), (-2.0,), (2.0,)), "clone_steps": 200}
    gcl = make_gcl(**options, reward_batch_size=16, reward_steps=10, value_batch_size=500)
    for _ in range(4):
        metrics = gcl.iteration(world)
        assert metrics["gcl/ess"] > 0.4  # of 32
        assert metrics["gcl/order"] == 1.0
    own = torch.cat([part["actions"] for part in gcl.trajectories.samples.pool])
    assert (own.abs() > 1.0).float().mean() > 0.2  # what is drawn, and not what is executed


# -- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["gcl", "gan"])
def test_demonstrations_come_to_be_worth_more(make_gcl, noise_world, objective):
    gcl, world = make_gcl(objective=objective, reward_learning_rate=0.01), noise_world()
    for _ in range(12):
        metrics = gcl.iteration(world)
        assert set(metrics) == set(gcl.metric_definitions)
    assert metrics["gcl/demo_return"] > metrics["gcl/own_return"] + 0.2


def test_collapsed_weights_are_tempered_and_reported_once(make_gcl, noise_world, caplog):
    gcl, world = make_gcl(ess_floor=1.0), noise_world()
    with caplog.at_level(logging.WARNING, logger="rlfd"):
        for _ in range(4):
            metrics = gcl.iteration(world)
            assert metrics["gcl/order"] < 0.5
            assert 0.1 <= metrics["gcl/ess"] < 1.0
    (record,) = [r for r in caplog.records if r.name == "rlfd.gcl"]
    message = record.getMessage()
    for text in ("effective sample size is", " of 10,", "weight_steps", "batch_steps", "output_l2"):
        assert text in message


def test_the_loss_of_a_batch(make_gcl, float64):
    """Between equal weights, where the means count, and whole ones."""
    batch = {"inputs": numbers(10, 4, 12), "counts": torch.ones(10, 4)}
    batch |= {"log_q": 50.0 * numbers(10, 1, seed=1), "log_own": numbers(10, 1)}
    options = {"output_l2": 0.0, "absorbing": "off", "weight_steps": 0}
    learned = make_gcl(ess_floor=1.0, **options).trajectories
    loss, outputs = learned._loss(learned.engine.parameters, {}, batch)
    returns = learned.network(batch["inputs"])[..., 0].sum(1)
    expected = (returns - batch["log_q"][:, 0]).mean() - returns[:5].mean()
    torch.testing.assert_close(loss, expected, rtol=0, atol=0.01)
    assert outputs["gcl/order"] < 1e-4
    learned = make_gcl(ess_floor=0.0, **options | {"output_l2": 0.25}).trajectories
    loss, outputs = learned._loss(learned.engine.parameters, {}, batch)
    steps = learned.network(batch["inputs"])[..., 0]
    log_z = torch.logsumexp(steps.sum(1) - batch["log_q"][:, 0], 0) - math.log(10)
    expected = log_z - steps.sum(1)[:5].mean()
    torch.testing.assert_close(loss, expected + 0.25 * steps.square().sum(1).mean())
    assert outputs["gcl/order"] == 1.0


def transitions(rollout):
    """Return what `reward` is asked about, as arrays of T · N rows."""
    names = ("observations", "actions", "next_observations", "terminated")
    return {name: rollout.flat(getattr(rollout, name)).numpy() for name in names}


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_what_is_paid_is_the_reward_that_is_kept(make_gcl, noise_world, absorbing):
    """But for where both count from: a constant c per step, also after the end."""
    gcl, other = make_gcl(absorbing=absorbing), make_gcl(absorbing=absorbing, seed=1)
    world = noise_world()
    for _ in range(3):
        gcl.iteration(world)
    rollout = gcl.learner.collect(world)
    paid, after_end, metrics = gcl.trajectories.pay(rollout)
    arrays = transitions(rollout)
    rewards = torch.from_numpy(gcl.reward(**arrays)).view(paid.shape)
    if absorbing == "off":
        assert after_end is None
        torch.testing.assert_close(rewards, paid.double())
    else:
        gamma = gcl.config.gamma
        constant = metrics["reward/learned"] - gcl.trajectories._origin
        assert constant != 0
        whole = paid + gamma * torch.where(rollout.terminated, after_end, 0.0) + constant
        whole += gamma / (1 - gamma) * torch.where(rollout.terminated, constant, 0.0)
        torch.testing.assert_close(rewards, whole.double(), rtol=1e-4, atol=1e-4)
        assert len(after_end[rollout.terminated].unique()) > 3  # it matters where it ended
    assert (metrics["reward/absorbing"] == 0.0) == (absorbing == "off")
    other.load_reward_state(gcl.reward_state())
    np.testing.assert_array_equal(other.reward(**arrays), rewards.flatten().numpy())


def test_the_last_step_is_paid_what_staying_there_is_worth(make_gcl, noise_world, float64):
    """The return of what `reward` pays, V(s') = 0 after it, is that of a tail without end."""
    gcl, world = make_gcl(max_length=9, gamma=0.9), noise_world()
    for _ in range(3):
        gcl.iteration(world)
    learned, rollout = gcl.trajectories, gcl.learner.collect(world)
    end = int(rollout.terminated[:, 0].nonzero()[0])
    begin = int(rollout.ended[:end, 0].nonzero()[-1]) + 1 if rollout.ended[:end, 0].any() else 0
    arrays = {n: v.reshape(*rollout.rewards.shape, *v.shape[1:])[begin : end + 1, 0]
              for n, v in transitions(rollout).items()}  # fmt: skip
    paid = gcl.reward(**arrays)
    steps = learned.rewards(rollout.observations[begin : end + 1, 0],
                            rollout.actions[begin : end + 1, 0])  # fmt: skip
    row = torch.cat([rollout.next_observations[end, 0], torch.zeros(7), torch.ones(1)])
    stay = learned.network(learned._standardise(row[None]))[0, 0]
    tail = torch.cat([steps, stay.expand(3_000)]) - learned._origin
    expected = sum(0.9**t * float(r) for t, r in enumerate(tail))
    assert sum(0.9**t * r for t, r in enumerate(paid)) == pytest.approx(expected, abs=1e-9)
    assert float(stay) != pytest.approx(float(learned._origin), abs=1e-3)


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
        next_observations=torch.eye(5)[torch.from_numpy(following)[states, shown[states]]],
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
