"""The memory of returns: what is evicted, what is drawn how often, and its importance weights."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from rlfd.algorithms.core.return_memory import FLOOR, ReturnMemory

SHAPE = (3, 2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def memory(capacity=11, alpha=0.6):
    return ReturnMemory(
        capacity,
        observation_shape=SHAPE,
        action_shape=(2,),
        action_dtype=torch.float32,
        alpha=alpha,
        device=torch.device("cpu"),
    )


def rows(first, count):
    """Rows that carry their number in every field."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return {
        "observations": numbers[:, None, None].expand(count, *SHAPE),
        "actions": -numbers[:, None].expand(count, 2),
        "returns": 100.0 + numbers,
    }


def stored(one):
    state = one.state_dict()
    numbers = state["returns"] - 100.0
    assert torch.equal(state["observations"], numbers[:, None, None].expand(-1, *SHAPE))
    assert torch.equal(state["actions"], -numbers[:, None].expand(-1, 2))
    return numbers.int().tolist()


def test_the_oldest_make_room_for_the_newest():
    one = memory()
    one.add(rows(0, 7))
    assert len(one) == 7
    assert stored(one) == [*range(7)]
    one.add(rows(7, 6))
    assert len(one) == 11
    assert stored(one) == [11, 12, *range(2, 11)]
    one.add(rows(13, 29))  # more than there is room for
    assert sorted(stored(one)) == [*range(31, 42)]
    one.add(rows(42, 1))
    assert sorted(stored(one)) == [*range(32, 43)]
    assert one.added == 43


def test_rows_to_keep_are_never_evicted():
    one = memory()
    one.keep(rows(0, 4))
    for first in range(4, 60, 5):
        one.add(rows(first, 5))
        assert stored(one)[:4] == [0, 1, 2, 3]
    one.add(rows(59, 13))
    assert stored(one)[:4] == [0, 1, 2, 3]
    assert sorted(stored(one)[4:]) == [*range(65, 72)]
    with pytest.raises(ValueError, match="leave room"):
        memory().keep(rows(0, 11))


@pytest.mark.parametrize("alpha", [0.6, 1.0, 0.0])
def test_rows_are_drawn_in_proportion_to_priority_to_the_alpha(alpha):
    """Chi-square against p^α / Σ p^α."""
    one = memory(700, alpha)  # more than one block of the sums
    one.add(rows(0, 650))
    priorities = torch.rand(650, generator=seeded(1), dtype=torch.float64)
    one.set_priorities(torch.arange(650), priorities)
    count = 65_000
    slots = one.sample(count, 0.4, seeded())["slots"]
    expected = priorities.pow(alpha) / priorities.pow(alpha).sum() * count
    found = torch.bincount(slots, minlength=700)
    assert found[650:].sum() == 0
    often = expected > 5
    assert often.sum() > 600
    observed, wanted = found[:650][often].double(), expected[often]
    wanted = wanted * observed.sum() / wanted.sum()
    assert stats.chisquare(observed.numpy(), wanted.numpy()).pvalue > 1e-3
    # the test would notice another exponent
    other = priorities.pow(alpha + 0.3)[often]
    other = other / other.sum() * observed.sum()
    assert stats.chisquare(observed.numpy(), other.numpy()).pvalue < 1e-6


def test_importance_weights():
    one = memory(alpha=1.0)
    one.add(rows(0, 9))
    priorities = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    one.set_priorities(torch.arange(9), priorities)
    assert torch.equal(one.sample(99, 0.0, seeded())["weights"], torch.ones(99))
    batch = one.sample(99, 0.4, seeded())
    expected = (9 * priorities / priorities.sum())[batch["slots"]] ** -0.4
    torch.testing.assert_close(batch["weights"], (expected / expected.max()).float())
    assert torch.equal(batch["returns"], 100.0 + batch["slots"])


def test_new_rows_have_the_largest_priority_seen():
    one = memory(alpha=1.0)
    one.add(rows(0, 3))
    one.set_priorities(torch.tensor([0, 1]), torch.tensor([4.0, 0.0]))
    one.add(rows(3, 2))
    assert one.state_dict()["priorities"].tolist() == [4.0, FLOOR, 1.0, 4.0, 4.0]


def test_returns_can_be_replaced():
    one = memory()
    one.add(rows(0, 5))
    one.set_returns(torch.tensor([3, 1]), torch.tensor([7.0, 8.0]))
    assert one.state_dict()["returns"].tolist() == [100.0, 8.0, 102.0, 7.0, 104.0]


@pytest.mark.parametrize("count", [5, 17])
def test_it_goes_on_from_its_state(count):
    one, other = memory(), memory()
    one.keep(rows(0, 2))
    one.add(rows(2, count))
    one.set_priorities(torch.tensor([1, 3]), torch.tensor([0.3, 2.5]))
    other.add(rows(50, 40))
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.add(rows(30, 3))
    assert stored(one) == stored(other)
    first, again = (each.sample(31, 0.4, seeded()) for each in (one, other))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
