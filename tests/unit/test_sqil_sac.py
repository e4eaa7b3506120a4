"""SQIL on SAC: its two halves, labels, terminal rule, and absorbing states (also of `sqil`)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rlfd import algorithms
from rlfd.algorithms.base import ActionSpec, Problem
from rlfd.algorithms.core.absorbing_rows import AbsorbingRows, in_absorbing_state
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments.problem import variant_for

BOX = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
SEVEN = ActionSpec("discrete", (7,))
SMALL = {"batch_size": 9, "learning_starts": 9, "updates_per_env_step": 1 / 3}
GAMMA = 0.9


def continuous(demos):
    drawn = torch.rand(len(demos.actions), 2, generator=torch.Generator().manual_seed(5))
    return dataclasses.replace(demos, actions=torch.tensor([-1.0, 0.0]) + drawn)


@pytest.fixture
def build(make_algorithm, make_demos):
    """Return a function that builds sqil-sac with demonstrations, the last one being cut."""

    def build(**options):
        demos = continuous(make_demos((3, 9, 5), terminated=[True, True, False]))
        return make_algorithm(
            "sqil-sac", **{"action": BOX, "demos": demos} | SMALL | {"gamma": GAMMA} | options
        )

    return build


def after(algorithm, world, iterations=20):
    for _ in range(iterations):
        algorithm.iteration(world)
    return algorithm


def test_every_batch_is_half_demonstrated_with_reward_r_and_half_own_with_none(
    build, noise_world, monkeypatch
):
    sqil, seen = build(reward=2.0, absorbing="off"), []
    step = sqil.learner.engine.step
    monkeypatch.setattr(sqil.learner.engine, "step", lambda b: seen.append(b) or step(b))
    after(sqil, noise_world(reward=np.nan))
    demonstrated = {tuple(row) for row in sqil.demos._fields["observations"].tolist()}
    assert len(seen) > 10
    for batch in seen:
        assert batch["rewards"].tolist() == [2.0] * 9 + [0.0] * 9
        for index, row in enumerate(batch["observations"].tolist()):
            assert (tuple(row) in demonstrated) == (index < 9)


def test_rewards_of_the_world_change_nothing(build, noise_world):
    first = after(build(), noise_world(reward=1.0)).policy_state()
    second = after(build(), noise_world(reward=np.nan)).policy_state()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(("absorbing", "last"), [("off", 2.0), ("value", 20.0)])
def test_terminal_rule(build, noise_world, absorbing, last):
    sqil = after(build(reward=2.0, absorbing=absorbing), noise_world())
    batch = sqil.batches(1)[0]
    terminated = batch["discounts"][:9] == 0.0
    assert terminated.any()
    assert not terminated.all()
    expected = torch.where(terminated, last, 2.0)
    torch.testing.assert_close(batch["rewards"][:9], expected)


def test_a_cut_demonstration_bootstraps(build):
    discounts = build().demos._fields["discounts"]
    assert (discounts == 0).nonzero()[:, 0].tolist() == [2, 11]  # the third one, until 16, is cut


def test_loss_is_the_mean_of_one_half_plus_lambda_times_that_of_the_other(
    float64, build, noise_world
):
    sqil = after(build(lambda_samp=0.3), noise_world(), 9)
    learner, batch = sqil.learner, sqil.batches(1)[0]
    noise = torch.randn(18, 2, generator=torch.Generator().manual_seed(0))
    batch |= {"noise": noise, "actor": learner.actor_engine.flat}
    online, target = learner.engine.parameters, learner.engine.target_parameters
    loss, metrics = learner.critic_loss(online, target, batch)
    torch.testing.assert_close(loss, metrics["loss/demo"] + 0.3 * metrics["loss/own"])
    y = batch["rewards"] + batch["discounts"] * learner.next_values(target, batch)
    q = learner.values(online, batch["observations"], learner.taken(batch))
    errors = ((q - y) ** 2).sum(0)
    torch.testing.assert_close(metrics["loss/demo"], errors[:9].mean())
    torch.testing.assert_close(metrics["loss/own"], errors[9:].mean())
    torch.testing.assert_close(metrics["q/own"], q[:, 9:].mean())


def test_overflow_never_removes_a_demonstration(build, noise_world):
    sqil = build(buffer_size=12)
    before = {name: value.clone() for name, value in sqil.demos._fields.items()}
    after(sqil, noise_world(), 30)
    assert len(sqil.learner.replay) == 12
    assert all(torch.equal(value, before[name]) for name, value in sqil.demos._fields.items())


def test_without_discount_and_own_half_q_becomes_r_on_demonstrated_pairs(build, noise_world):
    sqil = build(
        gamma=0.0, lambda_samp=0.0, absorbing="off", reward=2.0, learning_rate=1e-2, hidden=(64,)
    )
    after(sqil, noise_world(), 600)
    fields, learner = sqil.demos._fields, sqil.learner
    q = learner.values(learner.engine.parameters, fields["observations"], learner.taken(fields))
    torch.testing.assert_close(q, torch.full_like(q, 2.0), rtol=0, atol=0.05)


def test_gamma_one_has_no_absorbing_value(build):
    for absorbing in ("value", "indicator"):
        with pytest.raises(RlfdError, match=f"absorbing={absorbing} needs gamma < 1"):
            build(gamma=1.0, absorbing=absorbing)
    build(gamma=1.0, absorbing="off")


def test_sqil_names_its_variant_for_continuous_actions():
    assert variant_for("sqil", EnvConfig("Pendulum-v1")) == "sqil-sac"
    assert variant_for("sqil", EnvConfig("CartPole")) == "sqil"
    assert variant_for("bc", EnvConfig("Pendulum-v1")) == "bc"
    for name in algorithms.names():
        for kind, variant in algorithms.get(name).variants.items():
            assert kind not in algorithms.get(name).needs.action_kinds
            assert kind in algorithms.get(variant).needs.action_kinds


# -- absorbing states ---------------------------------------------------------------------------


def rows(action=SEVEN):
    problem = Problem((5,), action, None, 99, 3, 0, torch.device("cpu"))
    return AbsorbingRows(problem, GAMMA)


def plain_batch(size, terminated, actions):
    generator = torch.Generator().manual_seed(1)
    marked = [torch.randn(size, 6, generator=generator) for _ in range(2)]
    for observations in marked:
        observations[:, -1] = 0.0
    return {
        "observations": marked[0],
        "actions": actions,
        "next_observations": marked[1],
        "terminated": terminated,
        "discounts": GAMMA * (~terminated).float(),
    }


class Ends:
    """A memory of a batch, whose terminal transitions ended episodes of the given lengths."""

    def __init__(self, batch, slots, lengths):
        self.batch = batch
        self.slots, self.lengths = torch.as_tensor(slots), torch.as_tensor(lengths)

    def __len__(self):
        return len(self.batch["observations"])

    def ends(self):
        return self.slots, self.lengths

    def gather(self, slots):
        return {name: value[slots] for name, value in self.batch.items()}


@pytest.mark.parametrize("action", [SEVEN, BOX], ids=lambda a: a.kind)
def test_rows_as_from_a_memory_with_absorbing_states(action):
    """(s, a, s_T) for each end, and as many self-loops of its s_T as the rest of it counts."""
    size, ends, lengths = 4000, [17, 999, 3001], [9, 2, 14]
    generator = torch.Generator().manual_seed(3)
    terminated = torch.zeros(size, dtype=torch.bool)
    terminated[ends] = True
    actions = torch.randint(1, 7, (size,), generator=generator)
    zero = torch.tensor(0)
    if action is BOX:
        actions, zero = torch.rand(size, 2, generator=generator), torch.tensor([0.0, 1.5])
    batch = plain_batch(size, terminated, actions)
    few = {name: value[900:1030] for name, value in batch.items()}
    counts = [max(1, round(GAMMA**length / (1.0 - GAMMA))) for length in lengths]
    memory = Ends(few, [10, 99, 110], lengths)  # of 130 rows
    last = few["next_observations"][memory.slots].clone()
    last[:, -1] = 1.0
    result = rows(action).apply(batch, memory, generator)
    loop = in_absorbing_state(result["observations"])
    for state, count in zip(last, counts, strict=True):
        found = (result["observations"] == state).all(1)
        share = count / (130 + sum(counts))
        assert found.float().mean().item() == pytest.approx(share, abs=0.02)
        loop = loop & ~found
        assert (result["next_observations"][found] == state).all()
    assert not loop.any()  # there are no others
    loop = in_absorbing_state(result["observations"])
    assert (result["actions"][loop] == zero).all()
    into = terminated & ~loop
    assert torch.equal(
        result["next_observations"][into, :-1], batch["next_observations"][into, :-1]
    )
    assert (result["next_observations"][into, -1] == 1.0).all()
    kept = ~loop & ~terminated  # truncations are among them: nothing tells them apart here
    for name in ("observations", "actions", "next_observations"):
        assert torch.equal(result[name][kept], batch[name][kept])
    assert torch.equal(result["observations"][~loop], batch["observations"][~loop])
    assert (result["discounts"] == GAMMA).all()
    assert not result["terminated"].any()


def test_without_terminations_nothing_changes():
    batch = plain_batch(50, torch.zeros(50, dtype=torch.bool), torch.ones(50, dtype=torch.int64))
    memory = Ends(batch, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    result = rows().apply(batch, memory, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, batch[name]) for name, value in result.items())


def test_marking_appends_a_zero():
    marked = AbsorbingRows.mark(np.ones((3, 2, 2), np.float32))
    assert marked.dtype == np.float32
    assert marked.tolist() == [[1.0] * 4 + [0.0]] * 3


@pytest.mark.parametrize("name", ["sqil", "sqil-sac"])
def test_memories_know_their_ends_and_how_long_it_took(
    name, make_algorithm, make_demos, noise_world
):
    demos = make_demos((3, 9, 5), terminated=[True, True, False])
    options = {"action": SEVEN}
    if name == "sqil-sac":
        options, demos = {"action": BOX}, continuous(demos)
    sqil = make_algorithm(
        name, demos=demos, absorbing="indicator", buffer_size=45, **SMALL | options
    )
    world = noise_world()
    store = sqil.demos if name == "sqil-sac" else sqil.loop.demos
    assert [values.tolist() for values in store.ends()] == [[2, 11], [3, 9]]
    terminated = []
    step = world.step
    world.step = lambda actions: terminated.append(t := step(actions)) or t
    after(sqil, world, 29)
    newest = np.stack([t.terminated for t in terminated[-15:]])
    replay = sqil.learner.replay
    slots, lengths = replay.ends()
    assert len(slots) == newest.sum() > 3
    assert lengths.tolist() == (3 + slots % 3).tolist()  # as the world ends its environments
    # memory keeps terminations as they were, and marked observations
    assert replay._seen._before.shape == (15, 3, 6)
    seen = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    assert len(sqil.act(seen, greedy=True)) == 13
    restored = make_algorithm(
        name, demos=demos, absorbing="indicator", buffer_size=45, **SMALL | options
    )
    restored.load_state_dict(sqil.state_dict())
    assert torch.equal(restored.learner.replay._memory["ages"], replay._memory["ages"])


def test_nobody_acts_in_the_absorbing_state(float64, build, noise_world):
    """There, a' is 0 without entropy, and the actor has no loss."""
    sqil = after(build(absorbing="indicator"), noise_world())
    learner = sqil.learner
    batch = next(b for b in sqil.batches(50) if 0 < b["acting"][9:].sum() < 9)
    looping = in_absorbing_state(batch["observations"])
    following = in_absorbing_state(batch["next_observations"])
    assert torch.equal(batch["acting"], (~looping).double())
    assert batch["rewards"].tolist() == [1.0] * 9 + [0.0] * 9
    noise = torch.randn(18, 2, generator=torch.Generator().manual_seed(0))
    batch |= {"noise": noise, "actor": learner.actor_engine.flat, "critics": learner.engine.flat}
    target = learner.engine.target_parameters
    values = learner.next_values(target, batch)
    ends = batch["next_observations"][following]
    alone = learner.values(target, ends, torch.zeros(len(ends), 2)).amin(0)
    torch.testing.assert_close(values[following], alone)
    assert values[following].unique().numel() > 1  # it is not forgotten where
    actor = learner.actor_engine.parameters
    whole = learner.actor_loss(actor, {}, batch)[1]["loss/actor"]
    less = {name: batch[name][~looping] for name in ("observations", "noise")}
    part = learner.actor_loss(actor, {}, less | {"critics": learner.engine.flat})[1]["loss/actor"]
    torch.testing.assert_close(whole, part)


def test_discrete_value_of_the_absorbing_state_is_that_of_action_zero(float64, make_algorithm):
    sqil = make_algorithm("sqil", absorbing="indicator", mode="semi", temperature=0.5)
    parameters = sqil.learner.engine.parameters
    observations = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    observations[:, -1] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    values = sqil.loop.values_after(parameters, {}, observations)
    q = sqil.learner.values(parameters, observations)
    torch.testing.assert_close(values[[1, 3]], q[[1, 3], 0])
    torch.testing.assert_close(values[[0, 2]], 0.5 * torch.logsumexp(q[[0, 2]] / 0.5, dim=1))
