"""What the TRPO of sb3-contrib learns with its defaults, beside `rlfd train trpo` with ours.

    build/peers/stable-baselines3/bin/python benchmarks/peer_trpo.py Hopper 300000 --seed 0

trains in one environment, observations and rewards standardised by `VecNormalize` as
rl-baselines3-zoo does for MuJoCo, and prints as a line of JSON what the final policy, greedy,
is paid in 20 episodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

IDS = {"Pendulum": "Pendulum-v1"}
EPISODES = 20


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env")
    parser.add_argument("steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin, name = time.perf_counter(), IDS.get(options.env, f"{options.env}-v5")
    envs = VecNormalize(make_vec_env(name, 1, seed=options.seed), gamma=0.99)
    model = TRPO("MlpPolicy", envs, seed=options.seed, device="cpu")
    model.learn(options.steps)
    seen = VecNormalize(
        make_vec_env(name, 1, seed=10_000 + options.seed), training=False, norm_reward=False
    )
    seen.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(
        model, seen, EPISODES, deterministic=True, return_episode_rewards=True
    )
    result = vars(options) | {
        "env_steps": model.num_timesteps,
        "seconds": round(time.perf_counter() - begin, 1),
        "mean": statistics.fmean(returns),
        "returns": returns,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
