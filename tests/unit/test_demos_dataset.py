"""Episodes in memory: sums, subsets, hashes."""

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rlfd.demos import DemoInfo, Demonstrations, Episode, content_hash
from rlfd.errors import RlfdError


def episode(length, offset=0.0, success=None):
    values = np.arange(length + 1, dtype=np.float32) + offset
    return Episode(
        observations=np.stack([values, -values, values**2], axis=1),
        actions=np.arange(length, dtype=np.int64) % 2,
        rewards=np.full(length, 0.5),
        terminated=True,
        truncated=False,
        success=success,
        seed=length,
    )


def demonstrations(count, **kwargs):
    return Demonstrations(
        DemoInfo("a-v0", "CartPole/a-v0", Path("nowhere"), None, None),
        tuple(episode(3 + index, **kwargs) for index in range(count)),
        spaces.Box(-9, 9, (3,)),
        spaces.Discrete(2),
    )


def test_sums():
    demos = demonstrations(5, success=True)
    assert demos.num_transitions == 3 + 4 + 5 + 6 + 7
    np.testing.assert_array_equal(demos.returns, [1.5, 2.0, 2.5, 3.0, 3.5])
    np.testing.assert_array_equal(demos.lengths, [3, 4, 5, 6, 7])
    assert demos.success_rate == 1.0
    assert demonstrations(5).success_rate is None


def test_a_small_subset_is_part_of_a_larger_one():
    demos = demonstrations(23)
    for seed in range(3):
        chosen = [{e.seed for e in demos.subset(num, seed).episodes} for num in (5, 11, 23)]
        assert chosen[0] < chosen[1] < chosen[2]
        assert [len(c) for c in chosen] == [5, 11, 23]
    order = [e.seed for e in demos.subset(11, 0).episodes]
    assert order == sorted(order)  # still in the order in which they were played
    assert order == [e.seed for e in demos.subset(11, 0).episodes]
    assert order != [e.seed for e in demos.subset(11, 1).episodes]
    assert demos.subset(23, 4).episodes == demos.episodes


@pytest.mark.parametrize("num", [0, -1, 8])
def test_an_impossible_subset_is_refused(num):
    with pytest.raises(RlfdError, match=f"{num} demonstrations were asked for, expected 1 to 7"):
        demonstrations(7).subset(num, 0)


def test_the_hash_sees_every_array_and_flag():
    base = episode(5)
    changed = [
        Episode(base.observations + 1, base.actions, base.rewards, True, False),
        Episode(base.observations.astype(np.float64), base.actions, base.rewards, True, False),
        Episode(base.observations, 1 - base.actions, base.rewards, True, False),
        Episode(base.observations, base.actions, base.rewards * 2, True, False),
        Episode(base.observations, base.actions, base.rewards, False, True),
        episode(6),
    ]
    hashes = {content_hash([e]) for e in [base, *changed]} | {content_hash([base, base])}
    assert len(hashes) == 8
    again = Episode(base.observations.copy(), base.actions, base.rewards, True, False, True, 99)
    assert content_hash([again]) == content_hash([base])
