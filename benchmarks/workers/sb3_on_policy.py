"""Runs a peer's PPO or TRPO behind a gate: `sb3_on_policy.py NUM_ENVS SETUP_JSON`."""

from __future__ import annotations

import contextlib
import json
import sys

import torch
from gate import Closed, Gate
from sb3_gate import ENDLESS, GateCallback
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class IterationCallback(GateCallback):
    """Calls the gate between two iterations, so that a turn is made of whole ones."""

    def _on_rollout_start(self) -> None:
        super()._on_step()  # PPO counts epochs, TRPO iterations

    def _on_step(self) -> bool:
        return True


def learner(envs: VecEnv, num_envs: int, setup: dict) -> OnPolicyAlgorithm:
    """Return the peer's learner with the common setup."""
    common = {
        "policy_kwargs": {
            "net_arch": setup["hidden"],
            "activation_fn": ACTIVATIONS[setup["activation"]],
        },
        "n_steps": setup["batch_steps"] // num_envs,
        "gamma": setup["gamma"],
        "gae_lambda": setup["gae_lambda"],
        "device": "cpu",
        "seed": 0,
    }
    if setup["algo"] == "ppo":
        return PPO(
            "MlpPolicy",
            envs,
            learning_rate=setup["learning_rate"],
            batch_size=setup["minibatch_size"],
            n_epochs=setup["epochs"],
            max_grad_norm=setup["max_grad_norm"],
            **common,
        )
    from sb3_contrib import TRPO

    return TRPO(
        "MlpPolicy",
        envs,
        learning_rate=setup["value_learning_rate"],
        batch_size=setup["value_batch_size"],
        n_critic_updates=setup["value_epochs"],
        cg_max_steps=setup["cg_iterations"],
        cg_damping=setup["damping"],
        target_kl=setup["delta"],
        sub_sampling_factor=setup["fisher_every"],
        line_search_shrinking_factor=setup["line_search_shrink"],
        line_search_max_iter=setup["line_search_tries"],
        **common,
    )


def main() -> None:
    num_envs, setup = int(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    gate = Gate(setup["warm_at"])
    envs = VecNormalize(make_vec_env(f"{setup['env']}-v5", num_envs), norm_reward=False)
    with contextlib.suppress(Closed):
        learner(envs, num_envs, setup).learn(ENDLESS, callback=IterationCallback(gate))


if __name__ == "__main__":
    main()
