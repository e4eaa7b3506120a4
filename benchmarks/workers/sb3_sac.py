"""Runs Stable-Baselines3's SAC behind a gate: `sb3_sac.py NUM_ENVS SETUP_JSON`."""

from __future__ import annotations

import contextlib
import json
import sys

import torch
from gate import Closed, Gate
from sb3_gate import ENDLESS, GateCallback
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    num_envs, setup = int(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    gate = Gate(setup["warm_at"])
    model = SAC(
        "MlpPolicy",
        make_vec_env(f"{setup['env']}-v5", num_envs),
        policy_kwargs={"net_arch": setup["hidden"]},
        learning_rate=setup["learning_rate"],
        buffer_size=setup["buffer_size"],
        learning_starts=setup["learning_starts"],
        batch_size=setup["batch_size"],
        gamma=setup["gamma"],
        tau=setup["polyak_tau"],
        train_freq=1,
        gradient_steps=num_envs,
        device="cpu",
        seed=0,
    )
    with contextlib.suppress(Closed):
        model.learn(ENDLESS, callback=GateCallback(gate))


if __name__ == "__main__":
    main()
