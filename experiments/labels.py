"""The labels that a run gathered, kept as a set of demonstrations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rlfd import demos
from rlfd.algorithms.base import Algorithm
from rlfd.demos import Demonstrations, Episode
from rlfd.demos.storage import as_written, write_demonstrations
from rlfd.envs import adapter
from rlfd.experiments.config import RunConfig

__all__ = ["keep_labels"]


def keep_labels(
    algorithm: Algorithm, config: RunConfig, asked: dict[str, Any] | None, data_dir: Path
) -> dict[str, Any] | None:
    """Write the episodes that a demonstrator labelled as a dataset, unless it is there already.

    Its actions are the labels, not what was done; observations and rewards are of what was done.

    Args:
        algorithm: Has gathered them.
        config: Of its run.
        asked: Who labelled.
        data_dir: Where demonstrations are.

    Returns:
        What run.json says of the dataset; None where nothing was labelled.
    """
    gathered = algorithm.labelled()
    if not gathered:
        return None
    form = adapter(config.env)
    gathered_episodes = [
        Episode(
            observations=episode.observations,
            actions=episode.labels.astype(form.action_space.dtype),
            rewards=episode.rewards,
            terminated=episode.terminated,
            truncated=not episode.terminated,
            frame_stack=form.frame_stack,
        )
        for episode in gathered
    ]
    episodes = as_written(gathered_episodes, form)
    digest = demos.content_hash(episodes, form)
    there = [info for info in demos.list_all(data_dir) if info.content_hash == digest]
    if there:  # a run that was stopped after writing it
        return _describe(there[0].id, digest, episodes)
    variant = "" if config.exp_name == "default" else f"-{config.exp_name}"
    written: Demonstrations = write_demonstrations(
        episodes,
        env=config.env,
        adapter=form,
        demonstrator={
            "policy": config.algo,
            "actions": demos.LABELS,
            "exp_name": config.exp_name,
            "run_seed": config.seed,
            "asked": asked,
        },
        name=re.sub(r"[^-\w]", "-", f"{config.algo}{variant}-seed{config.seed}", flags=re.ASCII),
        data_dir=data_dir,
    )
    return _describe(written.info.id, digest, episodes)


def _describe(name: str, digest: str, episodes: list[Episode]) -> dict[str, Any]:
    return {
        "name": name,
        "hash": digest,
        "episodes": len(episodes),
        "transitions": sum(episode.length for episode in episodes),
    }
