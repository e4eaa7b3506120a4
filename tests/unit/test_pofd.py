"""POfD between its two ends: TRPO without demonstrations, GAIL without rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.pofd import annealed, combined_reward
from rlfd.errors import RlfdError

POLICY = {"batch_steps": 12, "value_batch_size": 5, "value_epochs": 2}
POLICY |= {"gamma": 0.9, "gae_lambda": 0.8}
CLIPPED = {"batch_steps": 12, "gamma": 0.9, "gae_lambda": 0.8, "minibatch_size": 5, "epochs": 2}
PENALTY = {"d_steps": 4, "d_batch_size": 9, "d_hidden": (7,)}


@pytest.fixture
def build(make_algorithm, make_demos):
    """Return a function that builds algorithms for two actions."""

    def build(name, **options):
        if name not in ("trpo", "ppo"):
            options["demos"] = make_demos(actions=torch.arange(17) % 2)
        return make_algorithm(name, action=2, **options)

    return build


def policies_of(algorithm, world, iterations=6):
    states = []
    for _ in range(iterations):
        algorithm.iteration(world)
        states.append(algorithm.policy_state())
    return states


def assert_same(first, second):
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert torch.equal(value, two[name]), name


def a_world(tabular_world, *, paid=1.0):
    """Five states in a row, both ends terminal; the right one pays."""
    following = np.stack([np.arange(5) - 1, np.arange(5) + 1], axis=1).clip(0, 4)
    rewards = np.zeros((5, 2))
    rewards[3, 1] = paid
    return tabular_world(following, rewards, terminal=[0, 4], num_envs=3)


# -- its two ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["sum", "mixture"])
@pytest.mark.parametrize("matching", ["discriminator", "mmd"])
@pytest.mark.parametrize("absorbing", ["off", "value", "indicator"])
def test_without_weight_it_is_trpo_bit_for_bit(build, tabular_world, matching, combine, absorbing):
    trpo = build("trpo", **POLICY)
    pofd = build(
        "pofd",
        lambda_1=0.0,
        matching=matching,
        combine=combine,
        absorbing=absorbing,
        **POLICY | PENALTY,
    )
    expected = policies_of(trpo, a_world(tabular_world))
    assert_same(expected, policies_of(pofd, a_world(tabular_world)))
    assert any(not torch.equal(expected[0][name], expected[-1][name]) for name in expected[0])


def test_without_weight_it_is_ppo_bit_for_bit(build, tabular_world):
    ppo = build("ppo", **CLIPPED)
    pofd = build("pofd", learner="ppo", lambda_1=0.0, **CLIPPED | PENALTY)
    assert_same(policies_of(ppo, a_world(tabular_world)), policies_of(pofd, a_world(tabular_world)))


def test_with_weight_it_is_not(build, tabular_world):
    first, second = (
        policies_of(
            build("pofd", lambda_1=weight, **POLICY | PENALTY),
            a_world(tabular_world),
        )
        for weight in (0.0, 0.5)
    )
    assert any(not torch.equal(first[-1][name], second[-1][name]) for name in first[-1])


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_where_nothing_is_paid_it_is_gail_bit_for_bit(build, tabular_world, absorbing):
    options = POLICY | PENALTY | {"absorbing": absorbing, "d_gradient_penalty": 0.3}
    options["d_learning_rate"] = 2e-3
    gail = build("gail", learner="trpo", reward_form="gail", **options)
    pofd = build("pofd", lambda_1=1.0, reward_form="gail", **options)
    assert_same(
        policies_of(gail, a_world(tabular_world, paid=np.nan)),
        policies_of(pofd, a_world(tabular_world, paid=0.0)),
    )


@pytest.mark.parametrize("absorbing", ["off", "value", "indicator"])
def test_where_nothing_is_paid_the_mmd_is_gmmil_bit_for_bit(build, tabular_world, absorbing):
    options = POLICY | {"kernel": "std", "bandwidth_rollouts": 3, "absorbing": absorbing}
    gmmil = build("gmmil", **options)
    pofd = build("pofd", lambda_1=1.0, matching="mmd", **options)
    assert_same(
        policies_of(gmmil, a_world(tabular_world)),
        policies_of(pofd, a_world(tabular_world, paid=0.0)),
    )


# -- the reward ---------------------------------------------------------------------------------


def test_sum_and_mixture_are_proportional(float64):
    """λ_1 = κ / (1 - κ) gives the same up to the factor 1 - κ."""
    rewards, learned = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)).unbind()
    for kappa in (0.0, 0.1, 0.7):
        mixture = combined_reward(rewards, learned, kappa, "mixture")
        summed = combined_reward(rewards, learned, kappa / (1 - kappa), "sum")
        torch.testing.assert_close(mixture, (1 - kappa) * summed)
    torch.testing.assert_close(combined_reward(rewards, learned, 1.0, "mixture"), learned)


def test_a_share_is_at_most_one(make_algorithm):
    with pytest.raises(RlfdError, match="expected at most 1: in a mixture it is a share"):
        make_algorithm("pofd", combine="mixture", lambda_1=1.5)
    make_algorithm("pofd", combine="sum", lambda_1=1.5)


def test_the_policy_is_improved_by_the_combination(make_algorithm, noise_world, monkeypatch):
    pofd = make_algorithm(
        "pofd", lambda_1=0.3, combine="sum", reward_form="bounded", **POLICY | PENALTY
    )
    seen, improve = [], pofd.learner.improve

    def noting(rollout, rewards, **options):
        seen.append((rollout, rewards))
        return improve(rollout, rewards, **options)

    monkeypatch.setattr(pofd.learner, "improve", noting)
    pofd.iteration(noise_world(reward=2.0))
    ((rollout, rewards),) = seen
    learned = (rewards - 2.0) / 0.3
    expected, _, _ = pofd.source.pay(rollout)
    torch.testing.assert_close(learned, expected, rtol=1e-5, atol=1e-6)
    assert (expected > 0).all()
    assert (expected < 1).all()


@pytest.mark.parametrize("matching", ["discriminator", "mmd"])
def test_the_weight_is_annealed_once_per_iteration(make_algorithm, noise_world, matching):
    options = POLICY | PENALTY | {"lambda_1": 0.7, "annealing": 0.2, "matching": matching}
    pofd, world = make_algorithm("pofd", **options), noise_world()
    weights = [float(pofd.iteration(world)["reward/weight"]) for _ in range(5)]
    expected = [0.7 * 0.8**k for k in range(5)]
    assert weights == pytest.approx(expected, rel=1e-6)
    restored = make_algorithm("pofd", **options)
    restored.load_state_dict(pofd.state_dict())
    metrics = restored.iteration(world)
    assert float(metrics["reward/weight"]) == pytest.approx(0.7 * 0.8**5, rel=1e-6)
    assert set(metrics) == set(restored.metric_definitions)


def test_annealing_schedule():
    assert annealed(0.7, 0.0, 1_000) == 0.7
    assert annealed(0.7, 1.0, 0) == 0.7
    assert annealed(0.7, 1.0, 1) == 0.0
    assert annealed(2.0, 0.01, 300) == pytest.approx(2.0 * 0.99**300, rel=1e-12)


@pytest.mark.parametrize("matching", ["discriminator", "mmd"])
def test_the_annealed_weight_is_what_pays(make_algorithm, noise_world, monkeypatch, matching):
    settings = {"lambda_1": 0.7, "annealing": 0.2, "matching": matching}
    pofd = make_algorithm("pofd", **settings, **POLICY | PENALTY)
    learned, paid = [], []
    source, improve = pofd._learned_reward, pofd.learner.improve
    monkeypatch.setattr(pofd, "_learned_reward", lambda r: learned.append(source(r)) or learned[-1])
    monkeypatch.setattr(
        pofd.learner, "improve", lambda r, x, **more: paid.append(x) or improve(r, x, **more)
    )
    world = noise_world(reward=2.0)
    for k in range(3):
        pofd.iteration(world)
        torch.testing.assert_close(paid[k], 2.0 + 0.7 * 0.8**k * learned[k][0])
