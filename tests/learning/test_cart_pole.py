"""Every method learns to balance CartPole, whose best return is 500, with its default settings."""

from __future__ import annotations

import numpy as np
import pytest

from rlfd import demos
from rlfd.envs import EnvConfig
from rlfd.experiments.config import resolve
from rlfd.experiments.train import train

CART_POLE = EnvConfig("CartPole")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Hold 20 demonstrations of 500 steps each."""
    folder = tmp_path_factory.mktemp("data")
    policy = demos.make_demonstrator("controller", CART_POLE, seed=0)
    made = demos.collect(CART_POLE, policy, episodes=20, seed=0, name="controller", data_dir=folder)
    assert (made.returns == 500).all()
    return folder


@pytest.fixture
def returns(data_dir, tmp_path):
    """Return a function that trains with some seeds and returns the final policies' returns."""

    def returns(algo, *, seeds=(0,), **options):
        options = {"eval_every": 0, "final_episodes": 50} | options
        means = []
        for seed in seeds:
            resolved = resolve(algo, CART_POLE, options={"seed": seed, **options})
            result = train(resolved, runs_dir=tmp_path, data_dir=data_dir)
            means.append(result.return_mean)
        return np.array(means)

    return returns


def test_behavioural_cloning_from_ten_demonstrations(returns):
    assert returns("bc", num_demos=10).min() >= 475


@pytest.mark.parametrize("algo", ["dqn", "soft-q"])
def test_learning_from_reward(returns, algo):
    assert returns(algo, steps=50_000).min() >= 475


@pytest.mark.parametrize("algo", ["trpo", "ppo", "a2c"])
def test_learning_on_policy(returns, algo):
    assert returns(algo, steps=100_000).min() >= 475


def test_sqil_from_twenty_demonstrations_without_reward(returns):
    assert returns("sqil", steps=50_000, seeds=(0, 1, 2)).mean() >= 450


def test_dagger_within_five_rounds(returns):
    options = {"steps": 10_000, "num_envs": 4}  # 4,000 of the demonstrator, then 2,000 a round
    assert returns("dagger", seeds=(0, 1), **options).min() >= 490


def test_dqfd_balances_right_after_pretraining_on_five_demonstrations(returns):
    """10,000 updates, then a single step in each environment."""
    assert returns("dqfd", steps=8, num_demos=5).min() >= 400


@pytest.mark.parametrize("algo", ["dqfd", "psq", "nac"])
def test_learning_from_demonstrations_and_reward(returns, algo):
    assert returns(algo, num_demos=5).min() >= 475


def test_gail_with_soft_q_learning_from_five_demonstrations_without_reward(returns):
    assert returns("gail-dqn", num_demos=5).min() >= 450
