"""GAIL: who learns what from which rollouts, and what the end of an episode is worth."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core.discriminator import imitation_reward
from rlfd.algorithms.core.rollout import gae
from rlfd.errors import RlfdError

SMALL = {"batch_steps": 12, "value_batch_size": 5, "value_epochs": 2, "minibatch_size": 5}
SMALL |= {"epochs": 2, "d_steps": 4, "d_batch_size": 9, "d_hidden": (7,)}
SMALL |= {"absorbing": "off", "d_gradient_penalty": 0.0, "d_learning_rate": 3e-4}
LEARNERS = ("trpo", "ppo")


@pytest.fixture
def make_gail(make_algorithm):
    def make(**options):
        return make_algorithm("gail", **SMALL | options)

    return make


def copied(parameters):
    return {name: value.clone() for name, value in parameters.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def differ(first, second):
    return any(not torch.equal(value, second[name]) for name, value in first.items())


def spy(monkeypatch, target, method):
    """Return a list of the first argument and the result of each call."""
    calls, original = [], getattr(target, method)

    def noting(first, *args, **kwargs):
        result = original(first, *args, **kwargs)
        calls.append((first, result))
        return result

    monkeypatch.setattr(target, method, noting)
    return calls


@pytest.mark.parametrize("learner", LEARNERS)
def test_it_reports_what_the_learner_and_the_discriminator_declare(make_gail, noise_world, learner):
    gail, world = make_gail(learner=learner, g_steps=2), noise_world()
    for _ in range(3):
        metrics = gail.iteration(world)
        assert set(metrics) == set(gail.metric_definitions)
        assert all(torch.isfinite(value) for value in metrics.values())
    assert ("policy/clipped" in gail.metric_definitions) == (learner == "ppo")


@pytest.mark.parametrize("learner", LEARNERS)
def test_each_of_the_two_leaves_the_other_alone(make_gail, noise_world, learner):
    gail = make_gail(learner=learner)
    rollout = gail.learner.collect(noise_world())
    policy, d = gail.policy_state(), copied(gail.source.discriminator.engine.parameters)
    gail.source.learn(rollout)
    assert_same(gail.policy_state(), policy)
    learned = copied(gail.source.discriminator.engine.parameters)
    assert differ(learned, d)
    gail._improve(rollout)
    assert_same(gail.source.discriminator.engine.parameters, learned)
    assert differ(gail.policy_state(), policy)


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_the_environment_pays_changes_nothing(make_gail, noise_world, learner):
    after = []
    for reward in (1.0, np.nan):
        gail, world = make_gail(learner=learner), noise_world(reward=reward)
        for _ in range(5):
            gail.iteration(world)
        after.append(gail.policy_state())
    assert_same(*after)
    assert all(value.isfinite().all() for value in after[0].values())


def test_the_discriminator_learns_first_and_then_pays_for_the_same_rollout(
    make_gail, noise_world, monkeypatch
):
    """Alg. 1: lines 3, 4, 5."""
    gail = make_gail(reward_form="airl")
    learned = spy(monkeypatch, gail.source, "learn")
    paid = spy(monkeypatch, gail.learner, "improve")
    collected = spy(monkeypatch, gail.learner, "collect")
    order = []
    for part, method in ((gail.source, "learn"), (gail.source, "pay"), (gail.learner, "improve")):
        inner = getattr(part, method)
        monkeypatch.setattr(
            part,
            method,
            lambda *a, _inner=inner, _name=method, **k: order.append(_name) or _inner(*a, **k),
        )
    before = gail.source.discriminator.engine.count
    gail.iteration(noise_world())
    assert order == ["learn", "pay", "improve"]
    assert gail.source.discriminator.engine.count == before + 4
    (_, rollout), (seen, _), (improved, _) = collected[0], learned[0], paid[0]
    assert seen is rollout
    assert improved is rollout


@pytest.mark.parametrize("form", ["gail", "neg", "airl", "bounded"])
def test_pairs_are_paid_by_their_logits(make_gail, noise_world, form):
    gail = make_gail(reward_form=form)
    rollout = gail.learner.collect(noise_world())
    gail.source.learn(rollout)
    rewards, after_end, metrics = gail.source.pay(rollout)
    assert after_end is None
    discriminator = gail.source.discriminator
    for t, n in ((0, 0), (3, 1), (2, 2)):
        row = discriminator.rows(rollout.observations[t, n][None], rollout.actions[t, n][None])
        expected = imitation_reward(discriminator.logits(row), form)
        torch.testing.assert_close(rewards[t, n][None], expected)
    assert metrics["reward/learned"] == rewards.mean()
    assert metrics["reward/absorbing"] == 0


@pytest.mark.parametrize("form", ["gail", "neg", "airl", "bounded"])
@pytest.mark.parametrize("absorbing", ["value", "indicator"])
def test_the_end_is_worth_what_staying_there_is_paid(make_gail, noise_world, form, absorbing):
    """As V(s_T) = r(s_T, marked) / (1 - γ) says for each end, or one constant for all."""
    gail = make_gail(reward_form=form, absorbing=absorbing, batch_steps=33, gamma=0.9)
    rollout = gail.learner.collect(noise_world())
    gail.source.learn(rollout)
    rewards, after_end, metrics = gail.source.pay(rollout)
    d, ended = gail.source.discriminator, rollout.terminated
    rows = d.rows(rollout.flat(rollout.observations), rollout.flat(rollout.actions))
    paid = imitation_reward(d.logits(rows), form).view_as(rewards)
    last = rollout.next_observations[ended]
    staying = imitation_reward(torch.zeros(len(last)), form)
    if absorbing == "indicator":
        ends = torch.cat([last, torch.zeros(len(last), 7), torch.ones(len(last), 1)], dim=1)
        staying = imitation_reward(d.logits(ends), form)
        assert staying.unique().numel() == len(last) > 1
    plain = torch.zeros_like(paid)
    plain[ended] = staying / (1.0 - 0.9)
    torch.testing.assert_close(metrics["reward/learned"], paid.mean())
    torch.testing.assert_close(metrics["reward/absorbing"], staying.mean())
    # with what the learner is given, and values that are as much less, the advantages are equal
    values, following = torch.randn(2, *paid.shape, generator=torch.Generator().manual_seed(0))
    offset = paid.mean() / (1.0 - 0.9)
    options = {"gamma": 0.9, "gae_lambda": 0.8}
    flags = rollout.terminated, rollout.ended
    expected = gae(paid, values, following, *flags, terminal_values=plain, **options)
    lower = values - offset, following - offset
    given = gae(rewards, *lower, *flags, terminal_values=after_end, **options)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("g_steps", [1, 2])
def test_own_ends_are_shown_as_often_as_the_rest_of_their_episodes_counts(
    make_gail, noise_world, monkeypatch, g_steps
):
    """Environment i ends every 3 + i steps, also where rollouts cut that in two or are skipped."""
    gail = make_gail(absorbing="indicator", gamma=0.9, batch_steps=21, g_steps=g_steps)
    world = noise_world()
    seen = spy(monkeypatch, gail.source.discriminator, "learn")
    rollouts = spy(monkeypatch, gail.source, "learn")
    for _ in range(4):
        gail.iteration(world)
    counts = torch.tensor([max(1, round(0.9**length / 0.1)) for length in (3, 4, 5)])
    for (rows, _), (rollout, _) in zip(seen, rollouts, strict=True):
        terminated, ended = rollout.terminated, rollout.ended
        assert 0 < terminated.sum() < ended.sum()  # some were cut
        stays = (terminated * counts).flatten()
        last = rollout.next_observations.flatten(0, 1).repeat_interleave(stays, dim=0)
        assert torch.equal(rows[21:, :5], last)
        assert (rows[21:, 5:12] == 0).all()
        assert rows[:, -1].tolist() == [0.0] * 21 + [1.0] * len(last)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_crash_is_not_worth_what_the_demonstrators_landing_is(make_gail, tabular_world, learner):
    """Shown: 3, 2 and a landing, 5. The learner starts at 0 and goes to 1 or 2, whatever comes.

    For it 2, which looks demonstrated, leads to a crash, 6; 1, which does not, to the landing. All
    episodes take two steps and end.
    """
    following = np.array([[1, 2], [5, 5], [6, 6], [2, 2], [0, 0], [5, 5], [6, 6]])
    states = torch.tensor([3, 2]).repeat(6)
    demos = DemoTensors(
        observations=torch.eye(7)[states],
        actions=torch.arange(12) // 3 % 2,
        episode_ids=torch.arange(6).repeat_interleave(2),
        next_observations=torch.eye(7)[torch.tensor([2, 5]).repeat(6)],
        terminated=states == 2,
    )
    gail = make_gail(
        learner=learner,
        absorbing="indicator",
        shape=(7,),
        action=2,
        demos=demos,
        num_envs=5,
        gamma=0.9,
        batch_steps=200,
        value_batch_size=50,
        minibatch_size=50,
        delta=0.05,
        learning_rate=0.01,
        epochs=5,
        d_learning_rate=0.01,
        d_steps=10,
        d_batch_size=64,
        d_gradient_penalty=1.0,
        env_steps=8_000,
    )
    world = tabular_world(following, np.zeros((7, 2)), terminal=(5, 6), starts=(0,), horizon=9)
    while world.env_steps < 8_000:
        gail.iteration(world)
    outputs = gail.learner.actor.network(torch.eye(7)[:1])
    assert torch.softmax(outputs, dim=1)[0, 0].item() > 0.9


def test_own_pairs_come_from_the_last_rollouts(make_gail, noise_world, monkeypatch):
    gail, world = make_gail(d_rollouts=3), noise_world()
    seen = spy(monkeypatch, gail.source.discriminator, "learn")
    collected = spy(monkeypatch, gail.learner, "collect")
    for _ in range(5):
        gail.iteration(world)
    assert [len(rows) for rows, _ in seen] == [12, 24, 36, 36, 36]
    expected = [rollout.observations.flatten(0, 1) for _, rollout in collected[2:]]
    assert torch.equal(seen[-1][0][:, :5], torch.cat(expected))


def test_the_last_rollouts_are_the_last_of_all(make_gail, noise_world, monkeypatch):
    """Also where the policy collects several between two trainings of the discriminator."""
    gail, world = make_gail(d_rollouts=2, g_steps=3), noise_world()
    seen = spy(monkeypatch, gail.source.discriminator, "learn")
    collected = spy(monkeypatch, gail.learner, "collect")
    for _ in range(2):
        gail.iteration(world)
    expected = [collected[index][1].observations.flatten(0, 1) for index in (2, 3)]
    assert torch.equal(seen[-1][0][:, :5], torch.cat(expected))


def test_it_goes_on_the_same_with_the_rollouts_it_remembers(make_gail, noise_world):
    options = {"d_rollouts": 3, "absorbing": "indicator", "normalise_rewards": True}
    gail, restored, world = make_gail(**options), make_gail(**options, seed=4), noise_world()
    for _ in range(4):
        gail.iteration(world)
    restored.iteration(noise_world(seed=9))
    restored.load_state_dict(gail.state_dict())
    rollout = gail.learner.collect(world)
    results = [(one.source.learn(rollout), one._improve(rollout)) for one in (gail, restored)]
    for first, second in zip(*results, strict=True):
        assert_same(first, second)
    assert_same(gail.policy_state(), restored.policy_state())


def test_g_steps_are_rollouts_for_each_training_of_the_discriminator(make_gail, noise_world):
    gail, world = make_gail(g_steps=3), noise_world()
    for iteration in range(1, 4):
        gail.iteration(world)
        assert world.env_steps == iteration * 3 * 12
        assert gail.source.discriminator.engine.count == iteration * 4


def test_a_reward_of_one_sign_is_reported_once(make_gail, noise_world, caplog):
    gail, world = make_gail(reward_form="gail"), noise_world()
    with caplog.at_level(logging.WARNING, logger="rlfd"):
        for _ in range(4):
            gail.iteration(world)
    (record,) = caplog.records
    assert "staying alive pays by itself" in record.getMessage()


@pytest.mark.parametrize("learner", LEARNERS)
def test_it_follows_a_demonstrated_path(make_gail, tabular_world, learner):
    """States 0 to 4 on a circle; action 0 goes on, 1 goes back, 2 stays. Shown: always on."""
    following = np.stack([np.roll(range(5), -1), np.roll(range(5), 1), range(5)], axis=1)
    states = torch.arange(15) % 5
    demos = DemoTensors(
        observations=torch.eye(5)[states],
        actions=torch.zeros(15, dtype=torch.int64),
        episode_ids=torch.zeros(15, dtype=torch.int64),
        terminated=torch.zeros(15, dtype=torch.bool),
    )
    gail = make_gail(
        learner=learner,
        action=3,
        demos=demos,
        num_envs=5,
        batch_steps=200,
        value_batch_size=50,
        minibatch_size=50,
        delta=0.05,
        learning_rate=0.01,
        epochs=5,
        d_learning_rate=0.01,
        d_steps=20,
        d_batch_size=64,
        env_steps=6_000,
    )
    world = tabular_world(following, np.zeros((5, 3)))
    while world.env_steps < 6_000:
        gail.iteration(world)
    outputs = gail.learner.actor.network(torch.eye(5))
    assert torch.softmax(outputs, dim=1)[:, 0].min() > 0.8


def test_images_are_paid_by_the_discriminator_and_need_ppo(make_gail, noise_world, image_shape):
    gail = make_gail(shape=image_shape, learner="ppo")
    rollout = gail.learner.collect(noise_world(shape=image_shape))
    gail.source.learn(rollout)
    rewards, _, _ = gail.source.pay(rollout)
    rows = gail.source.discriminator.rows(
        rollout.flat(rollout.observations), rollout.flat(rollout.actions)
    )
    expected = imitation_reward(gail.source.discriminator.logits(rows), "gail")
    torch.testing.assert_close(rewards.flatten(), expected)
    assert rewards.std() > 0
    with pytest.raises(RlfdError, match="trust-region step is for vectors") as error:
        make_gail(shape=image_shape, learner="trpo")
    assert "learner=ppo" in error.value.hint
