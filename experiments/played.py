"""Policies that nobody trains: played once, and what came of it kept beside a suite's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlfd import __version__, envs
from rlfd.envs import EnvConfig
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.evaluate import EVAL_SEED_OFFSET, summarise
from rlfd.experiments.report import Reporter
from rlfd.experiments.results import env_title
from rlfd.files import write_json
from rlfd.seeding import derive_many

__all__ = ["Played"]


class Played:
    """Mean results of policies, from a file as far as they are there.

    An entry holds for the policy as it describes itself, the environment, the number of episodes,
    the seed, and the version of this tool. A file that cannot be read is written anew.

    Args:
        path: The file.
        runs_dir: Where the runs of trained policies are looked for.
        reporter: Told of what is played.
    """

    def __init__(self, path: Path, runs_dir: Path, reporter: Reporter) -> None:
        self._path, self._runs_dir, self._reporter = path, runs_dir, reporter
        self._known: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict):
            self._known = found

    def summary(self, policy: str, env: EnvConfig, *, seed: int, episodes: int) -> dict[str, Any]:
        """Return `summarise` of the episodes that runs of this seed are evaluated on at the end."""
        root = EVAL_SEED_OFFSET + seed
        actor = make_demonstrator(policy, env, seed=root, runs_dir=self._runs_dir)
        key = json.dumps([actor.describe(), env.to_json(), episodes, seed, __version__])
        if key not in self._known:
            self._reporter.message(f"evaluating {policy} on {env_title(env)}, seed {seed}")
            actor.reset(episodes)
            starts = derive_many(root, "evaluation final", episodes)
            played = envs.play_episodes(env, seeds=starts, act=actor.act, states=actor.sees_states)
            self._known[key] = summarise(list(played))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._known)
        return self._known[key]
