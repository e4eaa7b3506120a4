"""AIRL: what D and the reward are, what f is at the optimum, and who learns from what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.airl import ACTION_LIMIT, ShapedReward
from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.discriminator import discrimination_loss

SMALL = {"batch_steps": 12, "value_batch_size": 5, "value_epochs": 2, "minibatch_size": 5}
SMALL |= {"epochs": 2, "d_steps": 4, "d_batch_size": 9, "d_hidden": (7,), "absorbing": "off"}
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
GAMMA = 0.9
NAMES = ("observations", "actions", "next_observations", "terminated")


@pytest.fixture
def make_airl(make_algorithm):
    def make(**options):
        return make_algorithm("airl", **SMALL | options)

    return make


def flat(rollout):
    return {name: rollout.flat(getattr(rollout, name)) for name in NAMES}


def copied(tensors):
    return {name: value.clone() for name, value in tensors.items()}


def differ(first, second):
    return any(not torch.equal(value, second[name]) for name, value in first.items())


def linear(states, g, h):
    """Return f of one-hot states with tables g(s) and h(s)."""
    shaped = ShapedReward(
        states,
        2,
        on_actions=False,
        gamma=GAMMA,
        hidden=(),
        activation="relu",
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        for network, table in ((shaped.g, g), (shaped.h, h)):
            network[0].weight.copy_(table[None])
            network[0].bias.zero_()
    return shaped


# -- f and D ------------------------------------------------------------------------------------


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
@pytest.mark.parametrize("action", [None, CONTINUOUS], ids=["discrete", "continuous"])
def test_the_reward_is_the_log_odds_of_d(
    make_airl, make_demos, noise_world, float64, absorbing, action
):
    """D = e^f / (e^f + π), and log D - log(1 - D) = f - log π."""
    demos = make_demos(actions=torch.rand(17, 2) * 3) if action else make_demos()
    airl = make_airl(absorbing=absorbing, action=action, demos=demos)
    rollout = airl.learner.collect(noise_world())
    airl.discriminator.learn(rollout)
    rewards, metrics = airl.discriminator.pay(rollout)
    network, shaped = airl.learner.actor.network, airl.discriminator.network
    for t, n in ((0, 0), (2, 0), (3, 1), (2, 2)):
        parts = {name: getattr(rollout, name)[t, n][None] for name in NAMES}
        row = airl.discriminator.rows.standardise(airl.discriminator.rows(**parts))
        alive = 1.0 - parts["terminated"].double() * (absorbing == "off")
        f = shaped(row, alive)
        pi = airl.learner.actor.distribution.log_prob(
            network(parts["observations"]), network.log_std, parts["actions"]
        ).exp()
        d = f.exp() / (f.exp() + pi)
        expected = d.log() - (1.0 - d).log() - metrics["reward/absorbing"]
        torch.testing.assert_close(rewards[t, n], expected[0])


def soft_optimum(following, rewards):
    """Return V and log π of the soft-optimal policy, rewards r(s)."""
    v = torch.zeros(len(rewards))
    for _ in range(2_000):
        q = rewards[:, None] + GAMMA * v[following]
        v = torch.logsumexp(q, dim=1)
    return v, q - v[:, None]


def test_with_the_true_reward_and_the_soft_value_f_is_the_soft_advantage(float64):
    following = torch.tensor([[1, 2], [0, 2], [2, 0]])
    rewards = torch.tensor([0.3, -1.0, 2.0])
    v, log_pi = soft_optimum(following, rewards)
    eye = torch.eye(3)
    s, a = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    rows = torch.cat([eye[s], torch.eye(2)[a], eye[following[s, a]]], dim=1)
    f = linear(3, rewards, v)(rows, torch.ones(6))
    torch.testing.assert_close(f, log_pi[s, a])  # so D = 1/2 everywhere for π = π_E
    torch.testing.assert_close(torch.sigmoid(f - log_pi[s, a]), torch.full((6,), 0.5))


@pytest.mark.parametrize("own", [(4, 1, 2, 5, 3, 7), (6, 2, 9, 3, 1, 1)], ids=["same", "other"])
def test_the_best_f_of_a_table_is_log_pi_of_the_demonstrator(float64, own):
    """At ρ_π = ρ_E; anywhere else it is log π + log ρ_E / ρ_π."""
    demo, own = torch.tensor([4, 1, 2, 5, 3, 7]), torch.tensor(own)
    _, log_pi = soft_optimum(torch.tensor([[1, 2], [0, 2], [2, 0]]), torch.tensor([0.3, -1.0, 2.0]))
    log_pi = log_pi.flatten()
    f = torch.zeros(6, requires_grad=True)
    rows = [torch.arange(6).repeat_interleave(counts) for counts in (demo, own)]
    optimiser = torch.optim.LBFGS([f], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimiser.zero_grad()
        loss = discrimination_loss(*(f[part] - log_pi[part] for part in rows))
        loss.backward()
        return loss

    optimiser.step(closure)
    ratio = (demo / demo.sum()).log() - (own / own.sum()).log()
    torch.testing.assert_close(f.detach(), log_pi + ratio, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("terminated", [False, True])
def test_the_shaping_telescopes(float64, terminated):
    """Σ γ^t f = Σ γ^t g + γ^T h(s_T) - h(s_0), without h(s_T) after a terminal step."""
    generator = torch.Generator().manual_seed(0)
    g, h = torch.randn(2, 5, generator=generator)
    path = torch.tensor([3, 0, 4, 4, 1, 2, 0])
    eye, steps = torch.eye(5), len(path) - 1
    rows = torch.cat([eye[path[:-1]], torch.zeros(steps, 2), eye[path[1:]]], dim=1)
    alive = torch.ones(steps)
    alive[-1] = 1.0 - terminated
    discounts = GAMMA ** torch.arange(steps)
    total = (discounts * linear(5, g, h)(rows, alive)).sum()
    last = 0.0 if terminated else GAMMA**steps * h[0]
    torch.testing.assert_close(total, (discounts * g[path[:-1]]).sum() + last - h[3])


def test_a_constant_g_of_the_uniform_policy_leaves_d_undecided(make_airl, noise_world, float64):
    """π = π_E uniform over 7 actions, g = -log 7 and h = 0: D = 1/2, and every reward is 0."""
    airl = make_airl(d_gradient_penalty=0.0)
    last = airl.learner.actor.network.body[-1]
    last.weight.zero_(), last.bias.zero_()
    for network in (airl.discriminator.network.g, airl.discriminator.network.h):
        network[-1].weight.zero_(), network[-1].bias.zero_()
    airl.discriminator.network.g[-1].bias.fill_(-math.log(7))
    rollout = airl.learner.collect(noise_world())
    rewards, _ = airl.discriminator.pay(rollout)
    torch.testing.assert_close(rewards, torch.zeros_like(rewards), rtol=0, atol=1e-12)
    before = copied(airl.discriminator.engine.parameters)
    table = airl.discriminator._table(flat(rollout))
    airl.discriminator.step(table, table)  # the same on both sides: nothing to learn
    torch.testing.assert_close(airl.discriminator.engine.parameters, before, rtol=0, atol=1e-9)
    loss = airl.discriminator.engine.drain()["discriminator/loss"]
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(2)))


# -- who learns what ----------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["trpo", "ppo"])
def test_log_pi_is_a_constant_and_each_of_the_two_leaves_the_other_alone(
    make_airl, noise_world, learner
):
    airl = make_airl(learner=learner)
    rollout = airl.learner.collect(noise_world())
    policy, d = airl.policy_state(), copied(airl.discriminator.engine.parameters)
    airl.discriminator.learn(rollout)
    assert not differ(airl.policy_state(), policy)
    learned = copied(airl.discriminator.engine.parameters)
    assert differ(learned, d)
    rewards, _ = airl.discriminator.pay(rollout)
    assert not rewards.requires_grad
    airl.learner.improve(rollout, rewards)
    assert not differ(airl.discriminator.engine.parameters, learned)
    assert differ(airl.policy_state(), policy)


def test_log_pi_is_that_of_the_current_policy_for_demonstrations_and_remembered_rollouts(
    make_airl, noise_world, monkeypatch
):
    airl, world, tables = make_airl(d_rollouts=3), noise_world(), []
    table = airl.discriminator._table
    monkeypatch.setattr(
        airl.discriminator,
        "_table",
        lambda part: tables.append((part, table(part))) or tables[-1][1],
    )
    for _ in range(4):
        tables.clear()
        network = airl.learner.actor.network
        rollout = airl.learner.collect(world)
        airl.discriminator.learn(rollout)
        for part, made in tables:
            outputs = network(part["observations"])
            expected = -torch.nn.functional.cross_entropy(
                outputs, part["actions"], reduction="none"
            )
            torch.testing.assert_close(made["log_probs"], expected)
        airl.learner.improve(rollout, torch.randn(4, 3))
    assert [len(part["actions"]) for part, _ in tables] == [36, 17]


def test_log_pi_is_clipped_and_demonstrated_actions_are_kept_off_their_bounds(
    make_airl, make_demos
):
    actions = torch.tensor([[-1.0, 3.0], [0.5, 0.0]]).repeat(9, 1)[:17]
    airl = make_airl(
        action=CONTINUOUS, demos=make_demos(actions=actions), log_prob_clip=5.0, log_std_start=-5.0
    )
    demos = airl.discriminator._demos
    limits = torch.tensor([[-ACTION_LIMIT, ACTION_LIMIT], [0.5, -ACTION_LIMIT]])
    torch.testing.assert_close(demos["actions"][:2], limits)
    log_probs = airl.discriminator.log_probs(demos["observations"], demos["actions"])
    assert log_probs.tolist() == [-5.0] * 17  # of a policy that is nearly certain of the middle
    assert airl.discriminator.log_probs(demos["observations"], 0 * demos["actions"]).max() <= 5.0


# -- the absorbing state ------------------------------------------------------------------------


def test_terminal_transitions_lead_to_the_absorbing_state_which_is_shown(make_airl, noise_world):
    airl = make_airl(absorbing="indicator", gamma=0.9, batch_steps=33)
    rollout = airl.learner.collect(noise_world())
    table = airl.discriminator._table(flat(rollout))
    ends = rollout.terminated.flatten()
    assert 0 < ends.sum() < rollout.ended.sum()
    count = round(int(ends.sum()) * max(1.0, 0.9 ** (33 / int(ends.sum())) / 0.1))
    assert len(table["rows"]) == 33 + count
    own, stays = table["rows"][:33], table["rows"][33:]
    assert torch.equal(own[:, -1] > 0, ends)
    assert not own[:, 5].any()
    assert torch.equal(own[ends][:, -6:-1], torch.zeros(int(ends.sum()), 5))
    assert torch.equal(stays[0], torch.eye(19)[5] + torch.eye(19)[18])  # 5 + 1, 7, 5 + 1
    assert (table["alive"] == 1.0).all()
    assert (table["log_probs"][33:] == 0.0).all()
    airl.discriminator.rows.observe(table["rows"])
    inputs = airl.discriminator.rows.standardise(table["rows"])
    torch.testing.assert_close(inputs[33:], stays)
    torch.testing.assert_close(inputs[:33, :5].mean(0), torch.zeros(5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["airl", "f", "g"])
def test_rewards_count_from_that_of_the_absorbing_state(make_airl, noise_world, form):
    airl = make_airl(absorbing="indicator", reward_form=form)
    rollout = airl.learner.collect(noise_world())
    airl.discriminator.learn(rollout)
    rewards, metrics = airl.discriminator.pay(rollout)
    shaped, row = airl.discriminator.network, torch.zeros(1, 19)
    row[0, 5] = row[0, 18] = 1.0
    expected = shaped.reward(row)
    if form != "g":  # it is followed by itself: g + γ h - h
        expected = expected + (0.99 - 1.0) * shaped.potential(row[:, :6])
    torch.testing.assert_close(metrics["reward/absorbing"], expected[0])
    mean = metrics["reward/learned"] - metrics["reward/absorbing"]
    torch.testing.assert_close(rewards.mean(), mean)


# -- the reward that is kept ---------------------------------------------------------------------


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
@pytest.mark.parametrize("on", ["state", "state-action"])
def test_the_reward_is_g_and_moves_with_its_state(make_airl, noise_world, absorbing, on):
    options = {"absorbing": absorbing, "reward_on": on, "reward_form": "g"}
    airl, other = make_airl(**options), make_airl(**options, seed=1)
    world = noise_world()
    for _ in range(3):
        airl.iteration(world)
    rollout = airl.learner.collect(world)
    arrays = {name: value.numpy() for name, value in flat(rollout).items()}
    rewards = airl.reward(**arrays)
    assert rewards.dtype == np.float64
    paid, _ = airl.discriminator.pay(rollout)
    np.testing.assert_allclose(rewards, paid.flatten().numpy(), rtol=1e-6)
    changed = airl.reward(**arrays | {"actions": (arrays["actions"] + 1) % 7})
    assert np.array_equal(changed, rewards) == (on == "state")
    following = airl.reward(**arrays | {"next_observations": arrays["observations"]})
    np.testing.assert_array_equal(following, rewards)
    assert not np.array_equal(other.reward(**arrays), rewards)
    other.load_reward_state(airl.reward_state())
    np.testing.assert_array_equal(other.reward(**arrays), rewards)


@pytest.mark.parametrize("on", ["state", "state-action"])
def test_it_goes_where_the_demonstrator_stays(make_airl, tabular_world, on):
    """States 0 to 4 on a circle; action 0 goes on, 1 goes back, 2 stays. Shown: to 0 and stay."""
    following = np.stack([np.roll(range(5), -1), np.roll(range(5), 1), range(5)], axis=1)
    shown = torch.tensor([2, 1, 1, 0, 0])
    states = torch.tensor([2, 1, 0, 0, 3, 4, 0, 0]).repeat(3)
    demos = DemoTensors(
        observations=torch.eye(5)[states],
        actions=shown[states],
        episode_ids=torch.arange(6).repeat_interleave(4),
        next_observations=torch.eye(5)[torch.from_numpy(following)[states, shown[states]]],
        terminated=torch.zeros(24, dtype=torch.bool),
    )
    airl = make_airl(
        action=3,
        reward_on=on,
        demos=demos,
        num_envs=5,
        batch_steps=200,
        minibatch_size=100,
        learning_rate=0.01,
        epochs=4,
        d_learning_rate=0.01,
        d_steps=20,
        d_gradient_penalty=0.0,
        d_batch_size=64,
        env_steps=6_000,
    )
    world = tabular_world(following, np.zeros((5, 3)))
    while world.env_steps < 6_000:
        airl.iteration(world)
    assert airl.act(np.eye(5, dtype=np.float32), greedy=True).tolist() == shown.tolist()
