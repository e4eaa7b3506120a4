"""Whether episodes return more than ever before."""

from __future__ import annotations

import pytest
import torch

from rlfd.algorithms.core.return_record import SMOOTHING, ReturnRecord

CPU = torch.device("cpu")


def answers(record, rollouts):
    return [record(torch.tensor(rewards), torch.tensor(ended)) for rewards, ended in rollouts]


def of_return(value):
    """A rollout of two environments in which one episode ends."""
    return [[value, 7.0], [0.0, 7.0]], [[False, False], [True, False]]


def test_a_record_is_a_smoothed_return_above_all_before():
    values = [2.0, 2.0, 3.0, 3.0, 1.0, 2.5, 5.0]
    smoothed, best, expected = 2.0, 2.0, [False]
    for value in values[1:]:
        smoothed += SMOOTHING * (value - smoothed)
        expected.append(smoothed > best)
        best = max(best, smoothed)
    assert answers(ReturnRecord(2, CPU), map(of_return, values)) == expected
    assert expected == [False, False, True, True, False, False, True]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_what_stays_the_same_sets_no_record(value):
    assert not any(answers(ReturnRecord(2, CPU), [of_return(value)] * 9))


def test_episodes_count_when_they_end_with_all_that_they_returned():
    record = ReturnRecord(2, CPU)
    running, over = [[False, False]], [[True, False]]
    rollouts = [
        ([[1.0, 5.0]], over),  # 1 is to be surpassed
        ([[9.0, 5.0]], running),  # nothing ends, nothing is known
        ([[0.0, 5.0]], over),  # 9
        ([[9.0, 5.0]], over),  # 9
        ([[0.0, -20.0]], [[False, True]]),  # 0 in all, below
    ]
    assert answers(record, rollouts) == [False, False, True, True, False]


def test_a_restored_record_answers_alike():
    generator = torch.Generator().manual_seed(0)
    one = ReturnRecord(3, CPU)
    seen = []
    for _ in range(40):
        rewards = torch.randn(4, 3, generator=generator)
        ended = torch.rand(4, 3, generator=generator) < 0.2
        two = ReturnRecord(3, CPU)
        two.load_state_dict(one.state_dict())
        seen.append(one(rewards, ended))
        assert two(rewards, ended) == seen[-1]
        one = two
    assert {True, False} == set(seen)
