"""Environments: the registry, the vector of environments that learners act in, and rollouts."""

from __future__ import annotations

from rlfd.envs.absent import is_playable
from rlfd.envs.choices import ExclusiveButtons
from rlfd.envs.frames import stack_frames, unstack_frames
from rlfd.envs.imports import allow_import, note_file
from rlfd.envs.play import Lend, PlayedEpisode, play_episodes
from rlfd.envs.probing import Findings, probe
from rlfd.envs.registry import (
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
from rlfd.envs.specs import LIMIT, EnvConfig, EnvSpec, Option, Reference
from rlfd.envs.tabular import Table
from rlfd.envs.world import EpisodeRecord, RewardFunction, Transitions, World

__all__ = [
    "LIMIT",
    "EnvConfig",
    "EnvSpec",
    "EpisodeRecord",
    "ExclusiveButtons",
    "Findings",
    "Lend",
    "Option",
    "PlayedEpisode",
    "Reference",
    "RewardFunction",
    "Table",
    "Transitions",
    "World",
    "allow_import",
    "check",
    "elsewhere",
    "frame_stack",
    "is_playable",
    "learner_rewards",
    "make",
    "names",
    "noop",
    "note_file",
    "play_episodes",
    "probe",
    "spec",
    "stack_frames",
    "table",
    "unstack_frames",
]
