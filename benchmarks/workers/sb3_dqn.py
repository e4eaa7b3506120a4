"""Runs Stable-Baselines3's DQN behind a gate: `sb3_dqn.py NUM_ENVS SETUP_JSON`."""

from __future__ import annotations

import contextlib
import json
import sys

import torch
from gate import Closed, Gate
from sb3_gate import ENDLESS, GateCallback
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack


def environments(name: str | None, num_envs: int) -> VecEnv:
    """Return Lunar Lander, or a game with the preprocessing that we have, too."""
    if name is None:
        return make_vec_env("LunarLander-v3", num_envs)
    import ale_py  # registers the games
    import gymnasium

    gymnasium.register_envs(ale_py)
    games = make_atari_env(
        f"ALE/{name}-v5",
        num_envs,
        env_kwargs={"frameskip": 1, "repeat_action_probability": 0.25},
        wrapper_kwargs={"terminal_on_life_loss": False},
    )
    return VecFrameStack(games, 4)


def main() -> None:
    num_envs, setup = int(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(setup.get("threads", 1))
    gate = Gate(setup["warm_at"])
    game, every = setup.get("env"), setup.get("env_steps_per_update", 1)
    train_freq = max(1, every // num_envs)  # in steps of all environments
    model = DQN(
        "CnnPolicy" if game else "MlpPolicy",
        environments(game, num_envs),
        # the peer's convolutions have a layer of 512 behind them
        policy_kwargs={} if game else {"net_arch": setup["hidden"]},
        learning_rate=setup["learning_rate"],
        buffer_size=setup["buffer_size"],
        learning_starts=setup["learning_starts"],
        batch_size=setup["batch_size"],
        gamma=setup["gamma"],
        train_freq=train_freq,
        gradient_steps=train_freq * num_envs // every,
        target_update_interval=setup["target_every_updates"] * every,
        exploration_initial_eps=setup["epsilon"],
        exploration_final_eps=setup["epsilon"],
        max_grad_norm=setup["max_grad_norm"],
        device="cpu",
        seed=0,
    )
    with contextlib.suppress(Closed):
        model.learn(ENDLESS, callback=GateCallback(gate))


if __name__ == "__main__":
    main()
