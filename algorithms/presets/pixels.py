"""Settings of methods that see images: Atari games and Car Racing."""

from __future__ import annotations

from typing import Any

from rlfd.algorithms.presets.preset import Key, Preset

__all__ = ["PIXELS"]

# "Pretrain Soft Q-Learning with Imperfect Demonstrations", table of hyperparameters: rewards are
# clipped to their signs, targets copied every 10,000 steps. γ is not stated there. The first 50,000
# steps are those of a random policy there, here of one that is random ever less often.
_NATURE: dict[str, Any] = {"hidden": (512,), "layer_norm": False}

_ATARI: dict[str, Any] = {
    **_NATURE,
    "learning_rate": 1e-4,
    "final_learning_rate": 0.5,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 50_000,
    "updates_per_env_step": 0.25,
}

_COPIED: dict[str, Any] = {**_ATARI, "target_update": "copy"}

_SOFT_ATARI: dict[str, Any] = {
    **_COPIED,
    "target_every_updates": 2_500,
    "huber_delta": 0.0,
    "epsilon_start": 1.0,
    "epsilon_final": 0.0,
    "epsilon_env_steps": 50_000,
}

# N_p there, in env steps; other games were not played
_PRETRAINING = {"SpaceInvaders": 500_000, "Pong": 1_000_000, "MsPacman": 200_000}

_PRETRAINED_ATARI = Preset(algorithm={**_SOFT_ATARI, "pretrain_env_steps": 500_000})

# For two hours on a CPU; tried on seed 100 (docs/results/pong.md).
_PRETRAINED_SHORT = Preset(
    run={"steps": 160_000, "num_envs": 16, "eval_every": 20_000, "checkpoint_every": 20_000},
    algorithm={
        **_SOFT_ATARI,
        "temperature": 0.01,
        "lambda_demo": 10.0,
        "n_step": 3,
        "pretrain_env_steps": 60_000,
        "learning_starts": 2_000,
        "epsilon_env_steps": 4_000,
        "updates_per_env_step": 0.5,
        "buffer_size": 200_000,
        "target_every_updates": 250,
    },
)

# The SQIL authors' Atari release: Adam's ε, target copied every 10,000 updates. Temperature and
# terminal rule stay those found on Lunar Lander.
_SQIL_ATARI = Preset(
    algorithm={**_COPIED, "adam_epsilon": 1e-4, "target_every_updates": 10_000},
)

# The table of appendix A.2 for images, where it differs from that for Lunar Lander; of games it has
# Pong. The four convolutions of its Car Racing network are the three of the Nature network here.
# Adam's step size is not stated there.
_PAPER_CAR: dict[str, Any] = {
    "hidden": (256, 256),
    "learning_rate": 1e-4,
    "lambda_samp": 0.01,
    "updates_per_rollout": 50,
}

_PAPER_ATARI: dict[str, Any] = {
    **_NATURE,
    "learning_rate": 1e-4,
    "lambda_samp": 1.0,
    "updates_per_rollout": 1,
}

# DQfD as published; the step size is quoted from memory by others
_DQFD_ATARI = Preset(
    algorithm={
        **_NATURE,
        "learning_rate": 6e-5,
        "final_learning_rate": 1.0,
        "batch_size": 32,
        "buffer_size": 1_000_000,
        "target_update": "copy",
        "target_every_updates": 10_000,
        "pretrain_updates": 750_000,
        "n_step": 10,
        "log_rewards": True,
        "epsilon_start": 0.01,
    },
)

# Car Racing, not tuned: one dense layer of 512 after the convolutions, as on Atari; a tile pays
# some 3.3, a step costs 0.1.
_Q_CAR: dict[str, Any] = {
    "hidden": (512,),
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 5_000,
    "updates_per_env_step": 0.25,
}

# Enough from demonstrations: a pilot of SQIL drove as far as they do after 25,000 (seed 100).
_SHORT = {"steps": 50_000, "eval_every": 12_500, "checkpoint_every": 12_500}

_REWARDED_CAR = {**_Q_CAR, "learning_rate": 1e-4, "reward_scale": 0.1}

_ADVERSARY_CAR: dict[str, Any] = {
    "d_hidden": (256,),
    "d_activation": "relu",
    "d_learning_rate": 1e-4,
    "d_batch_size": 32,
}

# rl-baselines3-zoo, which holds each action for two steps there and explores in another way
_PPO_CAR: dict[str, Any] = {
    "hidden": (512,),
    "activation": "relu",
    "batch_steps": 4_096,
    "minibatch_size": 128,
    "epochs": 10,
    "learning_rate": 1e-4,
    "final_learning_rate": 0.0,
    "normalise_rewards": True,
}

PIXELS: dict[Key, Preset] = {
    # what was found on Lunar Lander, but for the sizes
    ("sqil", "default", "CarRacing"): Preset(run=_SHORT, algorithm=_Q_CAR),
    ("sqil-t", "default", "CarRacing"): Preset(run=_SHORT, algorithm=_Q_CAR),
    ("gail-dqn", "default", "CarRacing"): Preset(
        run=_SHORT, algorithm={**_Q_CAR, "learning_rate": 1e-4, **_ADVERSARY_CAR}
    ),
    ("sqil", "paper", "CarRacing"): Preset(algorithm=_PAPER_CAR),
    ("sqil-t", "paper", "CarRacing"): Preset(algorithm=_PAPER_CAR),
    # r = 100, which corresponds to α = 200 (eq 18)
    ("sqil", "paper", "Atari"): Preset(algorithm={**_PAPER_ATARI, "reward": 100.0}),
    ("sqil-t", "paper", "Atari"): Preset(algorithm={**_PAPER_ATARI, "alpha": 200.0}),
    ("dqn", "default", "CarRacing"): Preset(
        run={"steps": 1_000_000}, algorithm={**_REWARDED_CAR, "epsilon_env_steps": 100_000}
    ),
    ("soft-q", "default", "CarRacing"): Preset(
        run={"steps": 1_000_000}, algorithm={**_REWARDED_CAR, "temperature": 0.01}
    ),
    ("gail", "default", "CarRacing"): Preset(
        run={"steps": 2_000_000},
        algorithm={
            **_PPO_CAR,
            **_ADVERSARY_CAR,
            "batch_steps": 2_048,
            "normalise_rewards": False,
        },
    ),
    ("ppo", "default", "CarRacing"): Preset(run={"steps": 2_000_000}, algorithm=_PPO_CAR),
    ("bc", "default", "CarRacing"): Preset(
        algorithm={"hidden": (512,), "learning_rate": 3e-4, "max_epochs": 50, "patience": 5}
    ),
    ("dqn", "default", "Atari"): Preset(
        # rl-baselines3-zoo; the target there is copied every 1,000 env steps
        run={"steps": 10_000_000},
        algorithm={
            **_COPIED,
            "final_learning_rate": 1.0,
            "buffer_size": 100_000,
            "learning_starts": 100_000,
            "target_every_updates": 250,
            "epsilon_final": 0.01,
            "epsilon_env_steps": 1_000_000,
        },
    ),
    ("soft-q", "default", "Atari"): Preset(algorithm=_SOFT_ATARI),
    ("psq", "short", "Pong"): _PRETRAINED_SHORT,
    ("nac", "default", "Atari"): Preset(
        algorithm={**_COPIED, "final_learning_rate": 1.0, "target_every_updates": 10_000}
    ),
    # D is as large as Q; not tuned
    ("gail-dqn", "default", "Atari"): Preset(
        algorithm={
            **_SOFT_ATARI,
            "d_hidden": (512,),
            "d_activation": "relu",
            "d_learning_rate": 1e-4,
            "d_batch_size": 32,
        }
    ),
    **{
        (name, "default", "Atari"): preset
        for names, preset in (
            (("psq", "bc-soft-q"), _PRETRAINED_ATARI),
            (("sqil", "sqil-t"), _SQIL_ATARI),
            (("dqfd", "dqfd-reward-free"), _DQFD_ATARI),
        )
        for name in names
    },
    **{
        (name, "default", game): Preset(algorithm={"pretrain_env_steps": steps})
        for name in ("psq", "bc-soft-q")
        for game, steps in _PRETRAINING.items()
    },
    # not tuned; held-out pairs are predicted no better after a few passes over 40,000 pairs
    ("bc", "default", "Atari"): Preset(
        algorithm={
            "hidden": (512,),
            "learning_rate": 3e-4,
            "max_epochs": 50,
            "patience": 5,
        }
    ),
    # rl-baselines3-zoo, whose squared error is not halved
    **{
        (name, "default", "Atari"): Preset(
            run={"steps": 10_000_000},
            algorithm={"hidden": (512,), "activation": "relu", "value_weight": 0.5},
        )
        for name in ("a2c", "mail")
    },
    ("ppo", "default", "Atari"): Preset(
        # rl-baselines3-zoo; step size and clip range fall to 0
        run={"steps": 10_000_000},
        algorithm={
            "hidden": (512,),
            "activation": "relu",
            "batch_steps": 1_024,
            "minibatch_size": 256,
            "epochs": 4,
            "learning_rate": 2.5e-4,
            "final_learning_rate": 0.0,
            "clip_range": 0.1,
            "final_clip_range": 0.0,
            "entropy_weight": 0.01,
        },
    ),
}
