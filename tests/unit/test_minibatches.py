"""Minibatches: which rows they hold, and that each is gathered when its turn comes."""

from __future__ import annotations

import pytest
import torch

from rlfd.algorithms.core.minibatches import drawn, shuffled

ROWS, SIZE, BATCHES = 31, 7, 5


@pytest.fixture
def data():
    return {"x": torch.arange(ROWS * 3.0).view(ROWS, 3), "y": torch.arange(ROWS)}


@pytest.fixture
def gathered(monkeypatch):
    """Return a list that grows with every tensor that rows are gathered from."""
    calls, select = [], torch.Tensor.index_select
    monkeypatch.setattr(
        torch.Tensor, "index_select", lambda *arguments: calls.append(1) or select(*arguments)
    )
    return calls


def seeded():
    return torch.Generator().manual_seed(5)


def test_rows_are_drawn_with_replacement_all_at_once(data):
    slots = torch.randint(ROWS, (BATCHES, SIZE), generator=seeded())
    generator = seeded()
    batches = drawn(data, BATCHES, SIZE, generator)
    state = generator.get_state()  # whoever draws in between changes nothing
    generator.manual_seed(9)
    found = list(batches)
    assert len(found) == BATCHES
    for batch, chosen in zip(found, slots, strict=True):
        assert torch.equal(batch["y"], chosen)
        assert torch.equal(batch["x"], data["x"][chosen])
    again = seeded()
    torch.randint(ROWS, (BATCHES, SIZE), generator=again)
    assert torch.equal(state, again.get_state())


def test_a_pass_holds_every_row_once_but_for_the_last_few(data):
    found = torch.cat([batch["y"] for batch in shuffled(data, SIZE, seeded())])
    assert len(found) == ROWS // SIZE * SIZE == len(found.unique())


@pytest.mark.parametrize("kind", ["drawn", "shuffled"])
def test_a_minibatch_is_gathered_when_its_turn_comes(data, gathered, kind):
    batches = (
        drawn(data, BATCHES, SIZE, seeded()) if kind == "drawn" else shuffled(data, SIZE, seeded())
    )
    assert gathered == []
    for number, _ in enumerate(batches, start=1):
        assert len(gathered) == number * len(data)


def test_a_policy_is_fitted_to_one_minibatch_at_a_time(make_algorithm, gathered, monkeypatch):
    """That of all updates together would be as large as a hundred memories."""
    awr = make_algorithm("awr-offline", actor_steps=5, critic_steps=3, batch_size=9)
    policy, critic, before = awr.learner.policy, awr.learner.critic, []
    for engine in (critic.engine, policy.engine):
        step = engine.step
        monkeypatch.setattr(
            engine, "step", lambda batch, step=step: before.append(len(gathered)) or step(batch)
        )
    gathered.clear()
    awr.learner.iteration(awr._rows)
    # two fields for each of V's updates, then three for each of the policy's
    assert before == [2, 4, 6, 9, 12, 15, 18, 21]
