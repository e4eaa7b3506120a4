"""GAIL with a soft Q learner: rewards belong to the discriminator of the moment, not to memory."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core.discriminator import imitation_reward

SMALL = {"learning_starts": 9, "updates_per_env_step": 1 / 3, "batch_size": 9}
SMALL |= {"d_batch_size": 9, "d_hidden": (7,), "d_gradient_penalty": 0.0, "absorbing": "off"}
FORMS = ("gail", "neg", "airl", "bounded")


@pytest.fixture
def make(make_algorithm):
    def build(**options):
        return make_algorithm("gail-dqn", **SMALL | options)

    return build


def run(algorithm, world, count):
    return [algorithm.iteration(world) for _ in range(count)]


def drawn(gail, size=33):
    (batch,) = gail.learner.replay.sample(1, size, torch.Generator().manual_seed(1))
    return batch


def copied(parameters):
    return {name: value.clone() for name, value in parameters.items()}


def differ(first, second):
    return any(not torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_transitions_are_paid_anew_after_the_discriminator_learned(
    make, noise_world, form
):
    gail = make(reward_form=form)
    run(gail, noise_world(), 5)
    batch = drawn(gail)
    before = gail.pay(batch)
    assert torch.equal(gail.pay(batch), before)
    gail.discriminate()
    after = gail.pay(batch)
    assert (after != before).all()
    d = gail.discriminator
    logits = d.logits(d.rows(batch["observations"], batch["actions"]))
    torch.testing.assert_close(after, imitation_reward(logits, form))


def test_updates_are_paid_by_the_discriminator_of_the_moment(make, noise_world, monkeypatch):
    gail, seen = make(reward_form="airl", reward_scale=0.5), []
    step = gail.learner.engine.step

    def noting(batch):
        d = gail.discriminator
        logits = d.logits(d.rows(batch["observations"], batch["actions"]))
        torch.testing.assert_close(batch["rewards"], 0.5 * logits)
        seen.append(batch["rewards"])
        return step(batch)

    monkeypatch.setattr(gail.learner.engine, "step", noting)
    metrics = run(gail, noise_world(), 9)[-1]
    assert len(seen) == 6
    assert metrics["reward/relative"] == seen[-1].mean()


def test_memory_holds_no_rewards(make, noise_world):
    gail = make()
    run(gail, noise_world(reward=3.0), 9)
    assert (drawn(gail)["rewards"] == 0).all()


def test_what_the_environment_pays_changes_nothing(make, noise_world):
    after = []
    for reward in (1.0, np.nan):
        gail = make()
        run(gail, noise_world(reward=reward), 12)
        after.append(gail.policy_state())
    assert not differ(*after)
    assert all(value.isfinite().all() for value in after[0].values())


def test_each_of_the_two_leaves_the_other_alone(make, noise_world):
    gail = make()
    run(gail, noise_world(), 5)
    policy, d = gail.policy_state(), copied(gail.discriminator.engine.parameters)
    gail.discriminate()
    assert not differ(gail.policy_state(), policy)
    learned = copied(gail.discriminator.engine.parameters)
    assert differ(learned, d)
    batch = drawn(gail, 9)
    gail.learner.engine.step(batch | {"rewards": gail.pay(batch)})
    assert not differ(gail.discriminator.engine.parameters, learned)
    assert differ(gail.policy_state(), policy)


@pytest.mark.parametrize(("every", "steps"), [(1, 1), (3, 1), (3, 4)])
def test_the_discriminator_learns_every_so_many_updates(make, noise_world, every, steps):
    gail, world = make(d_every_updates=every, d_steps=steps), noise_world()
    for metrics in run(gail, world, 12):
        if metrics:  # also where it did not learn this time
            assert set(metrics) == set(gail.metric_definitions)
    assert gail.updates == 9
    assert gail.discriminator.engine.count == steps * 9 // every


def test_own_absorbing_rows_are_as_frequent_as_terminations_in_memory_say(
    make, noise_world, monkeypatch
):
    """However few pairs D is shown at a time: most of these minibatches have no end in them."""
    gail = make(absorbing="indicator", gamma=0.9, d_batch_size=9, d_every_updates=99)
    run(gail, noise_world(), 40)
    memory, seen = gail.learner.replay, []
    monkeypatch.setattr(gail.discriminator, "learn", seen.append)
    for _ in range(400):
        gail.discriminate()
    assert all(len(rows) == 9 for rows in seen)
    marks = torch.cat(seen)[:, -1]
    ends, steps = int(memory._memory["terminated"].sum()), len(memory)
    assert 0 < ends < memory._memory["ended"].sum()  # some were cut
    slots, lengths = memory.ends()
    assert lengths.tolist() == (3 + slots % 3).tolist()  # as the world ends its environments
    counts = torch.tensor([round(0.9**length / 0.1) for length in lengths.tolist()])
    total = counts.sum().item()
    assert marks.mean().item() == pytest.approx(total / (steps + total), abs=0.02)
    assert (torch.cat(seen)[marks > 0, 5:-1] == 0).all()
    shown = torch.cat(seen)[marks > 0, :5]
    last = memory.gather(slots)["next_observations"]
    for state, count in zip(last, counts, strict=True):
        share = (shown == state).all(1).float().mean().item()
        assert share == pytest.approx(count.item() / total, abs=0.03)


def test_without_terminations_no_row_is_absorbing(make, noise_world, monkeypatch):
    gail, world, seen = make(absorbing="indicator"), noise_world(), []
    step = world.step

    def endless(actions):
        transitions = step(actions)
        transitions.terminated[:] = False
        return transitions

    monkeypatch.setattr(world, "step", endless)
    run(gail, world, 9)
    monkeypatch.setattr(gail.discriminator, "learn", seen.append)
    gail.discriminate()
    (rows,) = seen
    assert (rows[:, -1] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("absorbing", ["value", "indicator"])
def test_the_end_is_worth_what_staying_there_is_paid(make, noise_world, form, absorbing):
    """Q counts from c / (1 - γ), with c what an undecided D pays, and so does V(s_T)."""
    gail = make(reward_form=form, absorbing=absorbing, gamma=0.9)
    run(gail, noise_world(), 9)
    batch, d = drawn(gail), gail.discriminator
    undecided = imitation_reward(torch.zeros(()), form)
    paid = imitation_reward(d.logits(d.rows(batch["observations"], batch["actions"])), form)
    ended = batch["discounts"] == 0
    assert 0 < ended.sum() < 33
    staying = undecided.expand(33)
    if absorbing == "indicator":
        ends = torch.cat([batch["next_observations"], torch.zeros(33, 7), torch.ones(33, 1)], dim=1)
        staying = imitation_reward(d.logits(ends), form)
    target = paid + 0.9 * ended * staying / (1.0 - 0.9)  # r + γ V(s_T)
    offset = undecided * torch.where(ended, 1.0 / (1.0 - 0.9), 1.0)
    torch.testing.assert_close(gail.pay(batch), target - offset, rtol=1e-4, atol=1e-4)


def test_a_reward_of_one_sign_is_reported_once(make, noise_world, caplog):
    gail = make(reward_form="gail")
    with caplog.at_level(logging.WARNING, logger="rlfd"):
        run(gail, noise_world(), 15)
    (record,) = caplog.records
    assert "staying alive pays by itself" in record.getMessage()


def test_it_follows_a_demonstrated_path(make, tabular_world):
    """States 0 to 4 on a circle; action 0 goes on, 1 goes back, 2 stays. Shown: always on."""
    following = np.stack([np.roll(range(5), -1), np.roll(range(5), 1), range(5)], axis=1)
    states = torch.arange(15) % 5
    demos = DemoTensors(
        observations=torch.eye(5)[states],
        actions=torch.zeros(15, dtype=torch.int64),
        episode_ids=torch.zeros(15, dtype=torch.int64),
        terminated=torch.zeros(15, dtype=torch.bool),
    )
    gail = make(
        action=3,
        demos=demos,
        num_envs=5,
        batch_size=32,
        d_batch_size=32,
        d_learning_rate=0.003,
        d_gradient_penalty=1.0,
        learning_rate=0.01,
        gamma=0.8,
        learning_starts=50,
        epsilon_env_steps=500,
        env_steps=2_000,
        reward_form="airl",
    )
    world = tabular_world(following, np.zeros((5, 3)))
    while world.env_steps < 2_000:
        gail.iteration(world)
    values = gail.learner.network(torch.eye(5))
    assert torch.softmax(values / 0.1, dim=1)[:, 0].min() > 0.8
