"""Settings of the Q-learners and what is built on them, on vectors of numbers."""

from __future__ import annotations

from typing import Any

from rlfd.algorithms.presets.preset import Key, Preset

__all__ = ["VALUE_BASED"]

# The paper's table of appendix A.2 for Lunar Lander (r, k, λ_samp, network), temperature 1 and the
# gradient through V(s') from section 2 and eq 16. Adam's step size, batch and γ are not stated
# there: 1e-3, 32 + 32 and 0.99 are those of common practice at the time. What differs on images
# stands in `pixels`.
_PAPER_IMITATION: dict[str, Any] = {
    "mode": "full",
    "temperature": 1.0,
    "lambda_samp": 1e-6,
    "sample_weight": "sum",
    "interleave": "rollouts",
    "updates_per_rollout": 200,
    "layer_norm": False,
    "learning_rate": 1e-3,
    "final_learning_rate": 1.0,
    "batch_size": 32,
    "buffer_size": 500_000,
    "max_grad_norm": 0.0,
}

# Found on Lunar Lander: reward x 0.05 brings returns of +-300 to the size of Adam's
# steps (docs/algorithms/dqn.md).
_LANDER_REWARD = {"reward_scale": 0.05}

# τ = 0.25 in units of the raw reward; more would pay for hovering
_SOFT_LANDER = {**_LANDER_REWARD, "temperature": 0.0125, "learning_starts": 1_000}

_PRETRAINED_LANDER = Preset(run={"steps": 300_000, "num_envs": 16}, algorithm=_SOFT_LANDER)

# Chosen on CartPole, seeds 100-102: greedy returns of at least 494 after 50k steps, where the
# defaults, found on longer runs, reach 129 (dqn) and 161 (soft-q) on seed 100.
_FAST_CART_POLE = {"learning_rate": 1e-3, "updates_per_env_step": 0.5, "polyak_tau": 0.02}

_CART_POLE = {**_FAST_CART_POLE, "epsilon_env_steps": 8_000}

_PRETRAINED_CART_POLE = Preset(
    run={"steps": 50_000}, algorithm={**_CART_POLE, "pretrain_env_steps": 10_000}
)

_DQFD_CART_POLE = Preset(
    run={"steps": 20_000},
    algorithm={**_CART_POLE, "reward_scale": 0.1},
)

_DQFD_LANDER = Preset(run={"steps": 300_000, "num_envs": 16}, algorithm=_LANDER_REWARD)

VALUE_BASED: dict[Key, Preset] = {
    ("sqil", "default", "LunarLander"): Preset(run={"steps": 200_000, "num_envs": 16}),
    ("sqil", "default", "LunarLander6"): Preset(run={"steps": 200_000, "num_envs": 16}),
    ("sqil-t", "default", "LunarLander"): Preset(run={"steps": 200_000, "num_envs": 16}),
    ("sqil-t", "default", "LunarLander6"): Preset(run={"steps": 200_000, "num_envs": 16}),
    ("sqil", "paper", None): Preset(
        run={"num_envs": 1},
        algorithm={**_PAPER_IMITATION, "reward": 1.0, "absorbing": "off"},
    ),
    ("sqil-t", "paper", None): Preset(
        run={"num_envs": 1}, algorithm={**_PAPER_IMITATION, "alpha": 2.0, "absorbing": "off"}
    ),
    ("dqn", "default", "LunarLander"): Preset(
        run={"steps": 400_000, "num_envs": 16},
        algorithm={**_LANDER_REWARD, "learning_starts": 1_000},
    ),
    ("dqn", "default", "CartPole"): Preset(
        # brings values of up to 100 to the size of Adam's steps
        run={"steps": 50_000},
        algorithm={**_CART_POLE, "reward_scale": 0.1},
    ),
    ("soft-q", "default", "CartPole"): Preset(run={"steps": 50_000}, algorithm=_CART_POLE),
    ("soft-q", "default", "LunarLander"): Preset(
        run={"steps": 400_000, "num_envs": 16}, algorithm=_SOFT_LANDER
    ),
    ("nac", "default", "CartPole"): Preset(
        run={"steps": 50_000}, algorithm={**_FAST_CART_POLE, "learning_starts": 500}
    ),
    ("nac", "default", "LunarLander"): Preset(
        run={"steps": 300_000, "num_envs": 16}, algorithm={**_SOFT_LANDER, "batch_size": 128}
    ),
    ("gail-dqn", "default", "CartPole"): Preset(run={"steps": 50_000}, algorithm=_CART_POLE),
    ("gail-dqn", "default", "LunarLander"): Preset(run={"steps": 300_000, "num_envs": 16}),
    **{
        (name, "default", env): preset
        for name in ("dqfd", "dqfd-reward-free")
        for env, preset in (("CartPole", _DQFD_CART_POLE), ("LunarLander", _DQFD_LANDER))
    },
    **{
        (name, "default", env): preset
        for name in ("psq", "bc-soft-q")
        for env, preset in (
            ("CartPole", _PRETRAINED_CART_POLE),
            ("LunarLander", _PRETRAINED_LANDER),
        )
    },
}
