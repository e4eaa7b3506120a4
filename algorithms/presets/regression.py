"""Settings of methods that regress on actions."""

from __future__ import annotations

from typing import Any

from rlfd.algorithms.presets.environments import LOCOMOTION
from rlfd.algorithms.presets.preset import Key, Preset

__all__ = ["REGRESSION"]

# AWR as released: a step size of the policy for each task, momentum, a temperature of 1 in units of
# the advantages' std, and a std of actions that is not learned.
_AWR_CODE: dict[str, Any] = {
    "optimiser": "momentum",
    "beta": 1.0,
    "final_beta": 1.0,
    "actor_steps": 1_000,
    "critic_steps": 200,
    "actor_learning_rate": 5e-5,
    "critic_learning_rate": 1e-2,
}

# The paper's appendix: raw advantages.
_AWR_PAPER: dict[str, Any] = {
    **_AWR_CODE,
    "beta": 0.05,
    "standardise_advantages": False,
    "batch_steps": 2_000,
    "critic_learning_rate": 1e-4,
}

# The release's weight is 1e-3, of half the mean of the summed squares.
_AWR_LANDER = {"actor_learning_rate": 5e-4, "output_l2": 5e-4}

# Behavioural cloning that trpo and its kin can go on from (--init): their network, and a noise that
# cloning does not shrink; log-std -1 is what MCPO's pilot explored with.
_WARM_START: dict[str, Any] = {"hidden": (64, 64), "activation": "tanh"}

_WARM_START_CONTINUOUS = Preset(algorithm={"loss": "mse", "log_std_start": -1.0})

REGRESSION: dict[Key, Preset] = {
    ("awr", "default", "LunarLander"): Preset(
        # chosen on seeds 100-102: half as many updates per env step as elsewhere cost little
        run={"steps": 500_000, "num_envs": 16},
        algorithm={
            "batch_steps": 4_096,
            "actor_learning_rate": 5e-4,
            "critic_learning_rate": 2e-3,
        },
    ),
    ("rwr", "default", "LunarLander"): Preset(run={"steps": 500_000, "num_envs": 16}),
    ("awr", "code", None): Preset(algorithm=_AWR_CODE),
    ("awr", "code", "LunarLander"): Preset(
        run={"steps": 500_000, "num_envs": 16}, algorithm=_AWR_LANDER
    ),
    ("awr", "code", "Ant"): Preset(algorithm={"log_std_start": -1.6}),
    ("awr", "code", "Hopper"): Preset(algorithm={"actor_learning_rate": 1e-4}),
    ("awr", "code", "Walker2d"): Preset(algorithm={"actor_learning_rate": 2.5e-5}),
    ("awr", "code", "Humanoid"): Preset(algorithm={"actor_learning_rate": 1e-5}),
    ("awr", "paper", None): Preset(algorithm=_AWR_PAPER),
    ("awr", "paper", "LunarLander"): Preset(run={"steps": 500_000, "num_envs": 16}),
    # 20 rounds, each with a row of its own
    ("dagger", "default", None): Preset(
        run={"steps": 40_000, "log_every": 1, "eval_every": 4_000, "checkpoint_every": 10_000}
    ),
    # episodes of 1,000 steps end together in all environments: a round need not wait for them
    ("dagger", "default", "HalfCheetah"): Preset(
        run={"steps": 60_000, "eval_every": 12_000},
        algorithm={"batch_steps": 3_000, "min_episodes": 0, "hidden": (256, 256)},
    ),
    ("bc", "warm-start", None): Preset(algorithm=_WARM_START),
    **{
        ("bc", "warm-start", env): _WARM_START_CONTINUOUS
        for env in (
            *LOCOMOTION,
            "Reacher",
            "Pendulum",
            "LunarLanderContinuous",
            "MountainCarContinuous",
        )
    },
}
