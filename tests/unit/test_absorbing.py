"""The value of an absorbing state, and the warning where a reward's sign decides about lengths."""

from __future__ import annotations

import logging

import pytest
import torch

from rlfd.algorithms.core.absorbing import (
    EpisodeAges,
    HorizonAudit,
    absorbing_steps,
    check_discount,
    counted_from,
    episode_steps,
    stays_after,
)
from rlfd.algorithms.core.rollout import gae
from rlfd.errors import RlfdError

GAMMA = 0.9


def test_an_absorbing_state_is_worth_its_reward_for_ever(float64):
    absorbing = torch.tensor([[0.7, -0.2, 0.0]])
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    paid, values = counted_from(torch.tensor(0.5), rewards, absorbing, GAMMA)
    endless = sum((absorbing - 0.5) * GAMMA**step for step in range(2_000))
    torch.testing.assert_close(values, endless, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(paid, rewards - 0.5)


def test_only_terminated_rows_see_it(float64):
    """Reward c at all times, also after the end: V = c / (1 - γ) everywhere, and no advantage."""
    terminated = torch.zeros(7, 3, dtype=torch.bool)
    terminated[2, 0] = terminated[6, 1] = True
    ended = terminated.clone()
    ended[3, 2] = True  # cut
    rewards, value = counted_from(
        torch.tensor(0.0), torch.full((7, 3), 2.5), torch.full((7, 3), 2.5), GAMMA
    )
    options = {"gamma": GAMMA, "gae_lambda": 0.8}
    advantages = gae(rewards, value, value, terminated, ended, terminal_values=value, **options)
    torch.testing.assert_close(advantages, torch.zeros(7, 3))
    without = gae(rewards, value, value, terminated, ended, **options)
    assert (without[:3, 0] < 0).all()  # to end is a loss
    assert (without[:, 1] < 0).all()
    torch.testing.assert_close(without[:, 2], torch.zeros(7))  # but to be cut is none


def test_it_needs_a_discount():
    with pytest.raises(RlfdError, match="absorbing=indicator needs gamma < 1") as caught:
        check_discount("indicator", 1.0)
    assert caught.value.hint == "set absorbing=off"
    check_discount("off", 1.0)
    check_discount("value", 0.999)


@pytest.fixture
def warnings(caplog):
    """Return a function that audits rewards and returns the warnings so far."""

    def check(audit, rewards, terminated):
        with caplog.at_level(logging.WARNING, logger="rlfd.absorbing"):
            audit.check(torch.tensor(rewards)[:, None], torch.tensor(terminated)[:, None])
        return [record.getMessage() for record in caplog.records]

    return check


@pytest.mark.parametrize(
    ("rewards", "pays"), [([0.1, 0.0, 2.0], "staying alive"), ([-0.1, -2.0, 0.0], "ending early")]
)
def test_one_sign_and_early_ends_are_reported_once(warnings, rewards, pays):
    audit = HorizonAudit("off")
    assert warnings(audit, rewards, [False, False, False]) == []  # nothing ended early so far
    for _ in range(3):
        told = warnings(audit, rewards, [False, True, False])
    assert len(told) == 1
    assert f"{pays} pays by itself" in told[0]
    assert "--set absorbing=indicator" in told[0]


@pytest.mark.parametrize("absorbing", ["value", "indicator"])
def test_where_the_end_has_a_value_there_is_nothing_to_report(warnings, absorbing):
    assert warnings(HorizonAudit(absorbing), [0.1, 2.0], [True, True]) == []


def test_rewards_of_both_signs_are_not_reported(warnings):
    assert warnings(HorizonAudit("off"), [0.1, -0.1], [True, True]) == []


def test_the_rest_of_an_episode_is_a_discounted_sum(float64):
    lengths = torch.tensor([1, 3, 7, 12])
    for gamma, horizon in ((0.9, None), (0.9, 9), (1.0, 9)):
        end = 2_000 if horizon is None else horizon
        sums = [sum(gamma**t for t in range(int(length), end)) for length in lengths]
        expected = torch.tensor([max(1, round(total)) for total in sums])
        assert torch.equal(absorbing_steps(lengths, gamma=gamma, horizon=horizon), expected)


def test_episodes_grow_over_rollouts_and_ages_are_restored():
    ended = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    expected = torch.tensor([[1, 1, 1], [2, 2, 1], [3, 1, 2], [4, 2, 1], [5, 3, 2]])
    ages = EpisodeAges(3, torch.device("cpu"))
    assert torch.equal(ages(ended[:2]), expected[:2])
    other = EpisodeAges(3, torch.device("cpu"))
    other.load_state_dict(ages.state_dict())
    for one in (ages, other):
        assert torch.equal(one(ended[2:]), expected[2:])


def test_only_terminal_transitions_are_followed_by_stays(float64):
    terminated = torch.tensor([[False, True, False], [True, False, False]])
    ages = torch.tensor([[4, 7, 1], [3, 1, 30]])
    expected = torch.tensor([[0, round(GAMMA**7 / 0.1), 0], [round(GAMMA**3 / 0.1), 0, 0]])
    assert torch.equal(stays_after(terminated, ages, gamma=GAMMA), expected)


def test_steps_of_whole_episodes_are_counted_from_one():
    ids = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    assert episode_steps(ids).tolist() == [1, 2, 3, 1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("origin", [-1.7, 0.0, 0.4])
def test_a_constant_less_for_ever_changes_no_advantage(float64, origin):
    """V of the one is V of the other less c / (1 - γ), everywhere and also after the end."""
    generator = torch.Generator().manual_seed(0)
    rewards, absorbing, values, following = torch.randn(4, 7, 5, generator=generator).unbind()
    terminated = torch.rand(7, 5, generator=generator) < 0.3
    ended = terminated | (torch.rand(7, 5, generator=generator) < 0.2)
    options = {"gamma": GAMMA, "gae_lambda": 0.8}
    plain = absorbing / (1.0 - GAMMA)
    expected = gae(rewards, values, following, terminated, ended, terminal_values=plain, **options)
    paid, after_end = counted_from(torch.tensor(origin), rewards, absorbing, GAMMA)
    less = origin / (1.0 - GAMMA)
    given = gae(
        paid,
        values - less,
        following - less,
        terminated,
        ended,
        terminal_values=after_end,
        **options,
    )
    torch.testing.assert_close(given, expected)
