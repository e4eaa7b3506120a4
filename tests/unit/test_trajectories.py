"""Pieces of trajectories, their memory, and their returns against explicit sums."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trajectories import (
    FIELDS,
    EpisodeAssembler,
    TrajectoryBuffer,
    demo_pieces,
    lambda_returns,
    returns_to_go,
)

ENVS, SIZE = 3, 5
GAMMA, LAMBDA = 0.9, 0.7


def rollout_of(steps, *, first=0, lengths=(4, 5, 7)):
    """Return T steps of environments whose episodes have these lengths; observations count."""
    time = torch.arange(first, first + steps)[:, None] + 1000 * torch.arange(ENVS)
    clock = torch.arange(first, first + steps)[:, None] % torch.tensor(lengths)
    ended = clock == torch.tensor(lengths) - 1
    observations = time[..., None].double() + torch.zeros(SIZE)
    return Rollout(
        observations=observations,
        actions=time,
        next_observations=observations + 0.5,
        rewards=time.double(),
        terminated=ended & (torch.arange(ENVS) != 1),
        ended=ended,
    )


def pieces_of(lengths, *, terminated=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    ended = torch.zeros(count, dtype=torch.bool)
    ended[torch.tensor(lengths).cumsum(0) - 1] = True
    ends = torch.tensor(terminated if terminated is not None else [True] * len(lengths))
    return {
        "observations": torch.randn(count, SIZE, generator=generator, dtype=torch.float64),
        "actions": torch.arange(count),
        "rewards": torch.randn(count, generator=generator, dtype=torch.float64),
        "next_observations": torch.randn(count, SIZE, generator=generator, dtype=torch.float64),
        "terminated": ended.clone().masked_scatter(ended, ends),
        "ended": ended,
    }


# -- returns ------------------------------------------------------------------------------------


def explicit_mixture(pieces, values, last_values, gamma, lam):
    """(1 - λ) Σ λ^(n-1) G^(n), the rest of the weight on the longest, row by row."""
    ends = [int(i) for i in pieces["ended"].nonzero()]
    last = dict(zip(ends, last_values.tolist(), strict=True))
    result = []
    for t in range(len(values)):
        end = next(i for i in ends if i >= t)
        total, estimates = 0.0, []
        for n, i in enumerate(range(t, end + 1)):
            total += gamma**n * float(pieces["rewards"][i])
            alive = not bool(pieces["terminated"][i])
            after = last[i] if i in last else float(values[i + 1])
            estimates.append(total + alive * gamma ** (n + 1) * after)
        weights = [(1 - lam) * lam**n for n in range(len(estimates) - 1)]
        weights.append(lam ** (len(estimates) - 1))
        result.append(sum(w * g for w, g in zip(weights, estimates, strict=True)))
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize("lam", [0.0, LAMBDA, 1.0])
@pytest.mark.parametrize("terminated", [[True, False, True, False], [True] * 4, [False] * 4])
def test_lambda_returns_are_the_mixture_of_all_n_step_returns(terminated, lam):
    pieces = pieces_of((1, 3, 9, 5), terminated=terminated)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(18, generator=generator, dtype=torch.float64)
    last_values = torch.randn(4, generator=generator, dtype=torch.float64)
    found = lambda_returns(pieces, values, last_values, gamma=GAMMA, lam=lam)
    expected = explicit_mixture(pieces, values, last_values, GAMMA, lam)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_returns_to_go_of_a_hand_made_trajectory():
    pieces = pieces_of((3, 2), terminated=[True, False])
    pieces["rewards"] = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    assert returns_to_go(pieces, 0.5).tolist() == [3.0, 4.0, 4.0, 16.0, 16.0]
    assert returns_to_go(pieces, 1.0).tolist() == [7.0, 6.0, 4.0, 24.0, 16.0]


def test_a_truncated_end_is_bootstrapped_and_a_terminated_one_is_not():
    pieces = pieces_of((2, 2), terminated=[True, False])
    pieces["rewards"] = torch.zeros(4, dtype=torch.float64)
    last = torch.tensor([100.0, 100.0], dtype=torch.float64)
    found = lambda_returns(pieces, torch.zeros(4).double(), last, gamma=0.5, lam=1.0)
    assert found.tolist() == [0.0, 0.0, 25.0, 50.0]


# -- pieces -------------------------------------------------------------------------------------


def test_whole_episodes_come_out_once_and_in_order_however_rollouts_cut_them():
    assembler = EpisodeAssembler(whole=True)
    complete = [assembler.add(rollout_of(steps, first=first)) for first, steps in
                ((0, 3), (3, 1), (4, 8), (12, 9))]  # fmt: skip
    assert complete[0] is None
    for env, length in enumerate((4, 5, 7)):
        rows = torch.cat([p["actions"][p["actions"] // 1000 == env] for p in complete if p])
        finished = 21 // length * length
        assert (rows - 1000 * env).tolist() == list(range(finished))
    for pieces in filter(None, complete):
        assert pieces["ended"][-1]
        assert set(pieces) == set(FIELDS)
        env = pieces["actions"] // 1000
        assert torch.equal(pieces["terminated"], pieces["ended"] & (env != 1))
        # environment after environment, time in order inside
        assert torch.equal(pieces["actions"], pieces["actions"].sort().values)


def cut_at(cuts, **options):
    """Return rollouts of 21 steps in all that begin at these."""
    return [
        rollout_of(after - before, first=before, **options)
        for before, after in itertools.pairwise([*cuts, 21])
    ]


@pytest.mark.parametrize("cuts", [[0], [0, 1, 2, 3], [0, 5, 6, 13], [*range(21)]])
def test_cuts_change_nothing_about_what_comes_out(cuts):
    """In all, an environment's rows are those of one long rollout, every field of them."""
    lengths = (4, 9, 21)
    assembler, expected = EpisodeAssembler(whole=True), rollout_of(21, lengths=lengths)
    complete = [p for r in cut_at(cuts, lengths=lengths) if (p := assembler.add(r)) is not None]
    for env, length in enumerate(lengths):
        kept = 21 // length * length
        for name in FIELDS:
            parts = [piece[name][piece["actions"] // 1000 == env] for piece in complete]
            assert torch.equal(torch.cat(parts), getattr(expected, name)[:kept, env]), name


def test_an_old_part_of_a_running_episode_is_left_where_it_is(monkeypatch):
    """Each row is copied once when it comes, and once when its episode ends."""
    copied = []
    cat, clone = torch.cat, torch.Tensor.clone
    monkeypatch.setattr(torch, "cat", lambda parts: copied.append(parts) or cat(parts))
    monkeypatch.setattr(torch.Tensor, "clone", lambda t: copied.append([t]) or clone(t))
    assembler, sizes = EpisodeAssembler(whole=True), []
    for rollout in cut_at(range(0, 21, 3), lengths=(19, 20, 21)):
        copied.clear()
        assembler.add(rollout)
        sizes.append(sum(len(part) for parts in copied for part in parts) // len(FIELDS))
    # nine rows at a time; in the last rollout 19 + 20 + 21 that are over, and 2 + 1 that begin
    assert sizes == [9] * 6 + [60 + 3]


def test_what_waits_does_not_hold_the_rollout():
    assembler = EpisodeAssembler(whole=True)
    rollout = rollout_of(3, lengths=(4, 5, 7))
    assembler.add(rollout)
    rollout.rewards.fill_(torch.nan)
    pieces = assembler.add(rollout_of(5, first=3))
    assert not pieces["rewards"].isnan().any()


def test_an_assembler_goes_on_where_it_was_saved():
    whole, cut = EpisodeAssembler(whole=True), EpisodeAssembler(whole=True)
    for first in (0, 3):
        whole.add(rollout_of(3, first=first))
    cut.load_state_dict(whole.state_dict(), torch.device("cpu"))
    ours, theirs = whole.add(rollout_of(9, first=6)), cut.add(rollout_of(9, first=6))
    for one, other in zip(whole.state_dict()["waiting"], cut.state_dict()["waiting"], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    for name in FIELDS:
        assert torch.equal(ours[name], theirs[name])


def test_otherwise_a_piece_ends_with_its_rollout():
    rollout = rollout_of(6)
    pieces = EpisodeAssembler(whole=False).add(rollout)
    assert len(pieces["rewards"]) == 18
    assert pieces["ended"].view(ENVS, 6)[:, -1].all()
    assert not rollout.ended[-1, 0]  # the rollout itself is left alone
    assert not pieces["terminated"].view(ENVS, 6)[0, -1]
    assert torch.equal(pieces["observations"].view(ENVS, 6, SIZE)[2], rollout.observations[:, 2])


def test_demonstrations_are_pieces_that_end_with_their_episodes(make_demos):
    demos = make_demos((3, 9, 5), terminated=[True, False, True])
    demos = dataclasses.replace(demos, rewards=torch.arange(17.0))
    pieces = demo_pieces(demos, demos.actions)
    assert pieces["ended"].nonzero()[:, 0].tolist() == [2, 11, 16]
    assert pieces["terminated"].nonzero()[:, 0].tolist() == [2, 16]


# -- memory -------------------------------------------------------------------------------------


def test_the_memory_drops_the_oldest_pieces_as_a_whole():
    buffer = TrajectoryBuffer(10)
    buffer.add(pieces_of((3, 4)))
    buffer.add(pieces_of((2,), seed=1))
    assert len(buffer) == 9
    buffer.add(pieces_of((3,), seed=2))  # 12 are too many by 2: the first 3 go
    assert len(buffer) == 9
    assert buffer.data["actions"].tolist() == [3, 4, 5, 6, 0, 1, 0, 1, 2]
    assert buffer.data["ended"].nonzero()[:, 0].tolist() == [3, 5, 8]


def test_the_memory_keeps_the_newest_piece_even_if_it_is_too_long():
    buffer = TrajectoryBuffer(5)
    buffer.add(pieces_of((2, 7)))
    assert buffer.data["actions"].tolist() == [2, 3, 4, 5, 6, 7, 8]
    buffer.add(pieces_of((9,)))
    assert len(buffer) == 9


@pytest.mark.parametrize("lengths", [(5, 5), (4, 6), (1, 9), (10,)])
def test_what_fits_exactly_stays(lengths):
    buffer = TrajectoryBuffer(10)
    buffer.add(pieces_of(lengths))
    assert len(buffer) == 10
    buffer.clear()
    assert len(buffer) == 0


def test_a_memory_is_restored():
    buffer, other = TrajectoryBuffer(10), TrajectoryBuffer(10)
    other.load_state_dict(buffer.state_dict(), torch.device("cpu"))
    assert len(other) == 0
    buffer.add(pieces_of((3, 4)))
    other.load_state_dict(buffer.state_dict(), torch.device("cpu"))
    buffer.clear()
    assert len(other) == 7
