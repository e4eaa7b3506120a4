"""Settings of SAC and TD3, and of imitation with them."""

from __future__ import annotations

from rlfd.algorithms.presets.preset import Key, Preset

__all__ = ["CONTINUOUS"]

# A quarter of the usual network and half of the usual batch cost a fifth of the time per update
# and lose nothing that we saw: HalfCheetah passes 8,000 after 350k steps (docs/algorithms/sac.md).
_SMALL = {"hidden": (128, 128), "batch_size": 128}

_SMALL_HALVES = {"hidden": (128, 128), "batch_size": 64}

_PENDULUM = Preset(
    run={"steps": 20_000, "num_envs": 1, "eval_every": 5_000},
    algorithm={**_SMALL, "learning_starts": 1_000},
)

CONTINUOUS: dict[Key, Preset] = {
    ("sac", "default", "HalfCheetah"): Preset(algorithm=_SMALL),
    ("sac", "default", "Hopper"): Preset(algorithm=_SMALL),
    ("sac", "default", "Walker2d"): Preset(algorithm=_SMALL),
    ("sac", "default", "Ant"): Preset(algorithm=_SMALL),
    # 348 numbers per observation: a million transitions would fill 2.8 GB
    ("sac", "default", "Humanoid"): Preset(algorithm={**_SMALL, "buffer_size": 300_000}),
    ("sac", "default", "Pendulum"): _PENDULUM,
    ("sqil-sac", "default", "HalfCheetah"): Preset(algorithm=_SMALL_HALVES),
    ("sqil-sac", "default", "Hopper"): Preset(algorithm=_SMALL_HALVES),
    ("sqil-sac", "default", "Walker2d"): Preset(algorithm=_SMALL_HALVES),
    ("sqil-sac", "default", "Ant"): Preset(algorithm=_SMALL_HALVES),
    ("sqil-sac", "default", "Humanoid"): Preset(
        algorithm={**_SMALL_HALVES, "buffer_size": 300_000}
    ),
    ("td3", "default", "HalfCheetah"): Preset(algorithm=_SMALL),
    ("td3", "default", "Hopper"): Preset(algorithm=_SMALL),
    ("td3", "default", "Walker2d"): Preset(algorithm=_SMALL),
    ("td3", "default", "Ant"): Preset(algorithm=_SMALL),
    ("td3", "default", "Humanoid"): Preset(algorithm={**_SMALL, "buffer_size": 300_000}),
    ("td3", "default", "Pendulum"): _PENDULUM,
}
