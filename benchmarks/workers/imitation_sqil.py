"""Runs imitation's SQIL behind a gate: `imitation_sqil.py NUM_ENVS SETUP_JSON`.

It learns by Stable-Baselines3's DQN (the maximum, not the soft value), from batches of which one
half is demonstrations. Gymnasium 0.29, which it needs, calls the environment LunarLander-v2.
"""

from __future__ import annotations

import contextlib
import json
import sys

import gymnasium
import numpy as np
import torch
from gate import Closed, Gate
from gymnasium.envs.box2d.lunar_lander import heuristic
from imitation.algorithms.sqil import SQIL
from imitation.data.types import Trajectory
from sb3_gate import ENDLESS, GateCallback
from stable_baselines3.common.env_util import make_vec_env


def demonstrate(episodes: int) -> list[Trajectory]:
    """Let Gymnasium's own controller land."""
    env = gymnasium.make("LunarLander-v2")
    trajectories = []
    for seed in range(episodes):
        observations, actions = [env.reset(seed=seed)[0]], []
        terminated = truncated = False
        while not (terminated or truncated):
            actions.append(heuristic(env.unwrapped, observations[-1]))
            observation, _, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
        trajectories.append(
            Trajectory(np.array(observations), np.array(actions), None, bool(terminated))
        )
    return trajectories


def main() -> None:
    num_envs, setup = int(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    gate = Gate(setup["warm_at"])
    learner = SQIL(
        venv=make_vec_env("LunarLander-v2", num_envs),
        demonstrations=demonstrate(setup["demo_episodes"]),
        policy="MlpPolicy",
        rl_kwargs={
            "policy_kwargs": {"net_arch": setup["hidden"]},
            "learning_rate": setup["learning_rate"],
            "buffer_size": setup["buffer_size"],
            "learning_starts": setup["learning_starts"],
            "batch_size": setup["batch_size"],
            "gamma": setup["gamma"],
            "train_freq": 1,
            "gradient_steps": -1,  # as many as env steps since the last time
            "target_update_interval": setup["target_every_updates"],
            "exploration_initial_eps": setup["epsilon"],
            "exploration_final_eps": setup["epsilon"],
            "max_grad_norm": setup["max_grad_norm"],
            "device": "cpu",
            "seed": 0,
        },
    )
    with contextlib.suppress(Closed):
        learner.train(total_timesteps=ENDLESS, callback=GateCallback(gate))


if __name__ == "__main__":
    main()
