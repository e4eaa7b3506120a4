"""Environments: the registry, the vector of environments that learners act in, and rollouts."""

from __future__ import annotations

from rlfd.envs.absent import is_playable
from rlfd.envs.adapter import Adapter
from rlfd.envs.choices import ExclusiveButtons
from rlfd.envs.frames import stack_frames, unstack_frames
from rlfd.envs.imports import allow_import, note_file
from rlfd.envs.play import Lend, PlayedEpisode, play_episodes
from rlfd.envs.probing import Findings, probe
from rlfd.envs.recorded import evaluated, is_recorded, told, with_options
from rlfd.envs.registry import (
    adapter,
    check,
    elsewhere,
    frame_stack,
    gymnasium_spec,
    learner_rewards,
    make,
    names,
    noop,
    own_spaces,
    spec,
    table,
)
from rlfd.envs.specs import LIMIT, EnvConfig, EnvSpec, Option, Reference
from rlfd.envs.tabular import Table
from rlfd.envs.world import EpisodeRecord, RewardFunction, Transitions, World

__all__ = [
    "LIMIT",
    "Adapter",
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
    "adapter",
    "allow_import",
    "check",
    "elsewhere",
    "evaluated",
    "frame_stack",
    "gymnasium_spec",
    "is_playable",
    "is_recorded",
    "learner_rewards",
    "make",
    "names",
    "noop",
    "note_file",
    "own_spaces",
    "play_episodes",
    "probe",
    "spec",
    "stack_frames",
    "table",
    "told",
    "unstack_frames",
    "with_options",
]
