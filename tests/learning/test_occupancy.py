"""Methods that match occupancies learn from few demonstrations, with their default settings."""

from __future__ import annotations

import numpy as np
import pytest

from rlfd import algorithms, demos
from rlfd.envs import EnvConfig
from rlfd.experiments.config import resolve
from rlfd.experiments.train import train

pytestmark = pytest.mark.slow


@pytest.fixture
def returns(tmp_path):
    """Return a function that trains, and returns the means of the final policies' returns."""

    def returns(algo, env, *, seeds=(0,), **options):
        if algorithms.get(algo).needs.demonstrations:
            plain = EnvConfig(env.name)
            policy = demos.make_demonstrator("controller", plain, seed=0)
            demos.collect(plain, policy, episodes=5, seed=0, name="controller", data_dir=tmp_path)
        options = {"eval_every": 0, "final_episodes": 50} | options
        means = []
        for seed in seeds:
            resolved = resolve(algo, env, options={"seed": seed, **options})
            result = train(resolved, runs_dir=tmp_path, data_dir=tmp_path)
            means.append(result.return_mean)
        return np.array(means)

    return returns


def test_mcpo_gets_up_the_hill_from_one_demonstration_and_trpo_does_not(returns):
    """The reward is 1 at the goal, so the return is the share of episodes that reach it."""
    hill = EnvConfig("MountainCar", reward="sparse")
    assert returns("mcpo", hill, steps=200_000, num_demos=1).min() >= 0.8
    assert returns("trpo", hill, steps=200_000).max() <= 0.2


def test_gmmil_balances_from_five_demonstrations_without_reward(returns):
    assert returns("gmmil", EnvConfig("CartPole"), steps=100_000).min() >= 450


def test_gail_balances_from_five_demonstrations_without_reward(returns):
    assert returns("gail", EnvConfig("CartPole"), steps=200_000).min() >= 475


def test_pofd_gets_up_the_hill_from_one_demonstration(returns):
    hill = EnvConfig("MountainCar", reward="sparse")
    assert returns("pofd", hill, steps=200_000, num_demos=1).min() >= 0.6
