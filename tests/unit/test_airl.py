"""AIRL: what D and the reward are, what f is at the optimum, and who learns from what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.airl import ShapedReward
from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.absorbing import EpisodeAges
from rlfd.algorithms.core.discriminator import discrimination_loss
from rlfd.algorithms.core.rollout import Rollout, gae

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


def aged(rollout):
    """The same with ages of episodes that all begin with the rollout."""
    ages = EpisodeAges(rollout.ended.shape[1], torch.device("cpu"))(rollout.ended)
    return flat(rollout) | {"ages": rollout.flat(ages)}


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
    rewards, _, metrics = airl.discriminator.pay(rollout)
    network, shaped = airl.learner.actor.network, airl.discriminator.network
    for t, n in ((0, 0), (2, 0), (3, 1), (2, 2)):
        parts = {name: getattr(rollout, name)[t, n][None] for name in NAMES}
        row = airl.discriminator.rows.standardise(airl.discriminator.rows(**parts))
        alive = 1.0 - parts["terminated"].double() * (absorbing == "off")
        f = shaped(row, alive)
        pi = airl.learner.actor.distribution.executed_log_prob(
            network(parts["observations"]), network.log_std, parts["actions"]
        ).exp()
        d = f.exp() / (f.exp() + pi)
        expected = d.log() - (1.0 - d).log()
        if absorbing == "indicator":  # counted from their mean
            expected = expected - metrics["reward/learned"]
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
    airl = make_airl(reward_on="state")  # without a penalty, which wants slopes of 1
    last = airl.learner.actor.network.body[-1]
    last.weight.zero_(), last.bias.zero_()
    for network in (airl.discriminator.network.g, airl.discriminator.network.h):
        network[-1].weight.zero_(), network[-1].bias.zero_()
    airl.discriminator.network.g[-1].bias.fill_(-math.log(7))
    rollout = airl.learner.collect(noise_world())
    rewards, _, _ = airl.discriminator.pay(rollout)
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
    rewards, _, _ = airl.discriminator.pay(rollout)
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


def test_log_pi_is_clipped_and_of_what_is_executed(make_airl, make_demos):
    """f sees 1 where 3 was drawn, so both must have the same log π."""
    actions = torch.tensor([[-1.0, 3.0], [0.5, 0.0]]).repeat(9, 1)[:17]
    airl = make_airl(
        action=CONTINUOUS, demos=make_demos(actions=actions), log_prob_clip=5.0, log_std_start=-5.0
    )
    demos, learned = airl.discriminator._demos, airl.discriminator
    log_probs = learned.log_probs(demos["observations"], demos["actions"])
    assert log_probs.tolist() == [-5.0] * 17  # of a policy that is nearly certain of the middle
    assert learned.log_probs(demos["observations"], 0 * demos["actions"]).max() <= 5.0
    wide = make_airl(action=CONTINUOUS, demos=make_demos(actions=actions), log_std_start=0.5)
    drawn, seen = 3.0 * torch.randn(17, 2), demos["observations"]
    learned = wide.discriminator
    assert (drawn.abs() > 1.0).any()
    torch.testing.assert_close(
        learned.log_probs(seen, drawn), learned.log_probs(seen, drawn.clamp(-1.0, 1.0))
    )


# -- the absorbing state ------------------------------------------------------------------------


def test_terminal_transitions_lead_to_absorbing_states_which_are_shown(make_airl, noise_world):
    airl = make_airl(absorbing="indicator", gamma=0.9, batch_steps=33)
    rollout = airl.learner.collect(noise_world())
    table = airl.discriminator._table(aged(rollout))
    ends, last = rollout.terminated.flatten(), rollout.next_observations.flatten(0, 1)
    assert 0 < ends.sum() < rollout.ended.sum()
    lengths = (3 + torch.arange(3)).repeat(11)  # as the world ends its environments
    counts = torch.tensor([round(0.9 ** int(length) / 0.1) for length in lengths]) * ends
    assert len(table["rows"]) == 33 + counts.sum()
    own, stays = table["rows"][:33], table["rows"][33:]
    assert torch.equal(own[:, -1] > 0, ends)
    assert not own[:, 5].any()
    assert torch.equal(own[:, -6:-1], last)
    staying = last.repeat_interleave(counts, dim=0)
    assert torch.equal(stays[:, :5], staying)
    assert torch.equal(stays[:, 13:18], staying)
    assert not stays[:, 6:13].any()  # no action
    assert (stays[:, [5, 18]] == 1.0).all()
    assert (table["alive"] == 1.0).all()
    assert (table["log_probs"][33:] == 0.0).all()
    rows = airl.discriminator.rows
    rows.observe(table["rows"])
    inputs = rows.standardise(table["rows"])
    torch.testing.assert_close(inputs[:33, :5].mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    assert not inputs[33:, 6:13].any()
    expected = (staying - own[:, :5].mean(0)) / own[:, :5].std(0, correction=0)
    torch.testing.assert_close(inputs[33:, :5], expected)
    torch.testing.assert_close(inputs[33:, 13:18], expected)


def test_slopes_are_compared_between_transitions_of_one_kind(make_airl, noise_world):
    airl = make_airl(absorbing="indicator", batch_steps=33, gamma=0.9)
    rollout = airl.learner.collect(noise_world())
    rows = airl.discriminator._table(aged(rollout))["rows"]
    end = int(rollout.terminated.flatten().nonzero()[0])
    ordinary, into, stay = rows[0], rows[end], rows[-1]
    pairs = [(ordinary, ordinary), (into, into), (stay, stay)]
    pairs += [(ordinary, into), (into, stay), (stay, ordinary)]
    halves = torch.cat([torch.stack([pair[side] for pair in pairs]) for side in (0, 1)])
    batch = airl.discriminator.rows.comparable(halves)
    assert batch["alike"].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    expected = torch.ones(19)
    expected[[5, 18]] = 0.0  # the marks
    assert torch.equal(batch["compared"][0], expected)
    assert torch.equal(batch["compared"][1], expected)
    expected[6:13] = 0.0  # nothing is done there
    assert torch.equal(batch["compared"][2], expected)


@pytest.mark.parametrize("form", ["airl", "f", "g"])
def test_the_end_is_worth_what_staying_there_is_paid(make_airl, noise_world, form):
    airl = make_airl(absorbing="indicator", reward_form=form, gamma=GAMMA, batch_steps=33)
    rollout = airl.learner.collect(noise_world())
    airl.discriminator.learn(rollout)
    rewards, after_end, metrics = airl.discriminator.pay(rollout)
    ended, d = rollout.terminated, airl.discriminator
    last = torch.cat([rollout.next_observations[ended], torch.ones(int(ended.sum()), 1)], dim=1)
    rows = d.rows.standardise(torch.cat([last, torch.zeros(len(last), 7), last], dim=1))
    staying = d.network.reward(rows)
    if form != "g":  # it is followed by itself: g + γ h - h
        staying = staying + (GAMMA - 1.0) * d.network.potential(rows[:, :6])
    assert staying.unique().numel() == len(last) > 1
    torch.testing.assert_close(metrics["reward/absorbing"], staying.mean())
    # with what the learner is given, and values that are as much less, the advantages are equal
    paid, plain = rewards + metrics["reward/learned"], torch.zeros_like(rewards)
    plain[ended] = staying.detach() / (1.0 - GAMMA)
    values, following = torch.randn(2, *paid.shape, generator=torch.Generator().manual_seed(0))
    offset = metrics["reward/learned"] / (1.0 - GAMMA)
    flags, options = (ended, rollout.ended), {"gamma": GAMMA, "gae_lambda": 0.8}
    expected = gae(paid, values, following, *flags, terminal_values=plain, **options)
    lower = values - offset, following - offset
    given = gae(rewards, *lower, *flags, terminal_values=after_end, **options)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_the_kept_reward_has_the_return_of_staying_for_ever(make_airl, noise_world, float64):
    """Σ γ^t r, nothing after the end, is Σ γ^t g with the stays, less one constant a step."""
    airl, length = make_airl(absorbing="indicator", gamma=GAMMA, reward_form="g"), 6
    world = noise_world()
    for _ in range(3):
        airl.iteration(world)
    d, path = airl.discriminator, torch.randn(length + 1, 5)
    actions = torch.arange(length) % 7
    terminated = torch.arange(length) == length - 1
    rewards = airl.reward(path[:-1].numpy(), actions.numpy(), path[1:].numpy(), terminated.numpy())
    paid = sum(GAMMA**t * reward for t, reward in enumerate(rewards))

    def g(rows):
        return d.network.reward(d.rows.standardise(rows)).detach()

    going = g(d.rows(path[:-1], actions, path[1:], terminated))
    staying = g(d.rows.absorbing(path[-1:]))[0]
    demos = d._demos["next_observations"][d._demos["terminated"]]
    constant = g(d.rows.absorbing(demos)).mean()
    endless = torch.cat([going, staying.expand(2_000)]) - constant
    discounts = GAMMA ** torch.arange(len(endless)).double()
    assert paid == pytest.approx((discounts * endless).sum().item(), rel=1e-9)
    assert abs(staying - constant) > 1e-3
    cut = airl.reward(path[:-1].numpy(), actions.numpy(), path[1:].numpy(), np.zeros(length, bool))
    np.testing.assert_allclose(cut[:-1], (going - constant)[:-1].numpy(), rtol=1e-9)


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
    paid, _, _ = airl.discriminator.pay(rollout)
    going_on = ~arrays["terminated"] if absorbing == "indicator" else np.ones(12, bool)
    difference = rewards[going_on] - paid.flatten().numpy()[going_on]  # one constant for all
    np.testing.assert_allclose(difference, difference[0], atol=1e-5)
    assert (difference[0] == 0.0) == (absorbing == "off")
    changed = airl.reward(**arrays | {"actions": (arrays["actions"] + 1) % 7})
    assert np.array_equal(changed, rewards) == (on == "state")
    following = airl.reward(**arrays | {"next_observations": arrays["observations"]})
    assert np.array_equal(following, rewards) == (absorbing == "off")
    np.testing.assert_array_equal(following[going_on], rewards[going_on])
    assert not np.array_equal(other.reward(**arrays), rewards)
    other.load_reward_state(airl.reward_state())
    np.testing.assert_array_equal(other.reward(**arrays), rewards)


def test_the_defaults_tell_demonstrated_actions_from_own_ones(make_algorithm, make_demos):
    """States are alike, actions differ, and a step changes a state by a hundredth of its spread."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(900, 2, generator=generator)
    actions = torch.randint(2, (900,), generator=generator)
    shown = states[:, 0] > 0
    good = (actions == 1) == shown
    following = states + 0.01 * torch.nn.functional.one_hot(actions, 2)
    demos = DemoTensors(
        observations=states[good],
        actions=actions[good],
        episode_ids=torch.zeros(int(good.sum()), dtype=torch.int64),
        next_observations=following[good],
        terminated=torch.zeros(int(good.sum()), dtype=torch.bool),
    )
    airl = make_algorithm("airl", shape=(2,), action=2, demos=demos, env_steps=100_000)
    rows = (value.unflatten(0, (300, 3)) for value in (states, actions, following))
    none = torch.zeros(300, 3, dtype=torch.bool)
    rollout = Rollout(*rows, torch.zeros(300, 3), none, none)
    for _ in range(20):
        metrics = airl.discriminator.learn(rollout)
    # own actions are shown ones as often as not: 2 log 2 - 2 JS is 0.95 at best
    assert metrics["discriminator/loss"] < 1.2 < 2 * math.log(2)  # the penalty included
    rewards, _, _ = airl.discriminator.pay(rollout)
    right, wrong = rewards.flatten()[good][:, None], rewards.flatten()[~good][:, None]
    assert (right > wrong.T).double().mean() > 0.95  # the area under the curve


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
        d_batch_size=64,
        env_steps=6_000,
    )
    world = tabular_world(following, np.zeros((5, 3)))
    while world.env_steps < 6_000:
        airl.iteration(world)
    assert airl.act(np.eye(5, dtype=np.float32), greedy=True).tolist() == shown.tolist()
