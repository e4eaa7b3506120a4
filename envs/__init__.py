"""Environments: the registry, the vector of environments that learners act in, and rollouts."""

from __future__ import annotations

from rlfd.envs.absent import is_playable
from rlfd.envs.adapter import Adapter
from rlfd.envs.choices import ExclusiveButtons
from rlfd.envs.frames import stack_frames, unstack_frames
from rlfd.envs.play import PlayedEpisode, play_episodes
from rlfd.envs.registry import (
    adapter,
    check,
    elsewhere,
    frame_stack,
    learner_rewards,
    make,
    names,
    noop,
    spec,
    table,
)
from rlfd.envs.specs import EnvConfig, EnvSpec, Option, Reference
from rlfd.envs.tabular import Table
from rlfd.envs.world import EpisodeRecord, RewardFunction, Transitions, World

__all__ = [
    "Adapter",
    "EnvConfig",
    "EnvSpec",
    "EpisodeRecord",
    "ExclusiveButtons",
    "Option",
    "PlayedEpisode",
    "Reference",
    "RewardFunction",
    "Table",
    "Transitions",
    "World",
    "adapter",
    "check",
    "elsewhere",
    "frame_stack",
    "is_playable",
    "learner_rewards",
    "make",
    "names",
    "noop",
    "play_episodes",
    "spec",
    "stack_frames",
    "table",
    "unstack_frames",
]
