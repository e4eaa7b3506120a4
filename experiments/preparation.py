"""Demonstrations for a run: found, collected where none were named, and recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rlfd import algorithms, demos
from rlfd.demos import Demonstrations
from rlfd.envs import EnvConfig, elsewhere, spec
from rlfd.errors import RlfdError
from rlfd.experiments.config import RunConfig
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.report import Reporter
from rlfd.experiments.run_dir import RunDir

__all__ = [
    "check_demos_unchanged",
    "describe_demos",
    "load_demos",
    "prepare_demos",
    "without_observations",
]


def prepare_demos(config: RunConfig, data_dir: Path, reporter: Reporter) -> Demonstrations | None:
    """Load the demonstrations a run needs; collect them first where nothing was named or found.

    A method that can do without gets those that were named, or none.
    """
    needs = algorithms.get(config.algo).needs
    if not needs.demonstrations:
        if config.demos is not None and not needs.optional_demonstrations:
            raise RlfdError(f"'{config.algo}' does not learn from demonstrations", "drop --demos")
        if config.demos is None and config.num_demos is not None:
            if not needs.optional_demonstrations:
                raise RlfdError(
                    f"'{config.algo}' does not learn from demonstrations", "drop --num-demos"
                )
            raise RlfdError(
                f"--num-demos was given, but '{config.algo}' learns from demonstrations only where "
                "some are named",
                "name them with --demos ('rlfd list demos' shows what there is)",
            )
        return _load_aloud(config, data_dir, reporter)
    if config.demos is None:
        found = demos.find(config.env, data_dir, same_reward=_reads_rewards(config))
        found = [info for info in found if not info.are_labels]
        if found:
            config = dataclasses.replace(config, demos=found[0].id)
            reporter.message(f"using the newest demonstrations, '{found[0].id}'")
        else:
            made = _collect_default(config.env, data_dir, reporter)
            config = dataclasses.replace(config, demos=made.info.id)
    return _load_aloud(config, data_dir, reporter)


def _load_aloud(config: RunConfig, data_dir: Path, reporter: Reporter) -> Demonstrations | None:
    """Load demonstrations, and say what is odd about them."""
    loaded = load_demos(config, data_dir)
    for remark in loaded.remarks if loaded is not None else ():
        reporter.message(f"demonstrations '{config.demos}': {remark}")
    return loaded


def _collect_default(env: EnvConfig, data_dir: Path, reporter: Reporter) -> Demonstrations:
    known = spec(env.name)
    demonstrator = demos.default_demonstrator(env.name)
    if demonstrator is None:
        raise RlfdError(
            f"no demonstrations for '{env.name}' under {data_dir / 'demos'}, and no demonstrator",
            f"train one, then 'rlfd collect-demos --env {env.name} --policy RUN'",
        )
    start = elsewhere(env, known.demo_start, None)
    whose = "its shipped policy" if demonstrator == "shipped" else f"its {demonstrator}"
    reporter.message(
        f"no demonstrations for '{env.name}' yet: collecting {known.demo_episodes} episodes of "
        f"{whose} from start '{known.demo_start}'"
    )
    policy = make_demonstrator(demonstrator, start, seed=0)
    reporter.start("collect demonstrations", known.demo_episodes, 0, "episodes")
    try:
        return demos.collect(
            start,
            policy,
            episodes=known.demo_episodes,
            seed=0,
            data_dir=data_dir,
            progress=lambda done, _, mean: reporter.advance(done, {"return": mean}),
        )
    finally:
        reporter.finish()


def _reads_rewards(config: RunConfig) -> bool:
    return "rewards" in algorithms.get(config.algo).needs.demo_fields


def load_demos(config: RunConfig, data_dir: Path) -> Demonstrations | None:
    """Load the demonstrations that a configuration names, and take its subset; None without."""
    if config.demos is None:
        return None
    loaded = demos.load(
        config.demos, env=config.env, data_dir=data_dir, same_reward=_reads_rewards(config)
    )
    needs = algorithms.get(config.algo).needs
    if loaded.info.are_labels and needs.demo_fields:
        raise RlfdError(
            f"the actions of '{loaded.info.id}' are a demonstrator's labels and were never "
            f"executed, but '{config.algo}' looks at what came of them "
            f"({', '.join(sorted(needs.demo_fields))})",
            "learn from them with 'bc' or 'dagger', or give demonstrations",
        )
    if _reads_rewards(config) and not loaded.has_rewards:
        raise RlfdError(
            f"demonstrations '{loaded.info.id}' have no rewards, and '{config.algo}' learns from "
            "them",
            "name others with --demos, or choose a method that needs none, as bc, sqil, psq or "
            "dqfd-reward-free",
        )
    if config.num_demos is None:
        return loaded
    return loaded.subset(config.num_demos, config.seed)


def check_demos_unchanged(run: RunDir, demonstrations: Demonstrations | None) -> None:
    """Refuse to go on with other demonstrations than those a run was started with."""
    recorded = run.status().get("demos")
    if recorded is None or demonstrations is None:
        return
    if recorded["hash"] != demonstrations.info.content_hash:
        raise RlfdError(
            f"demonstrations '{demonstrations.info.id}' are not those that run {run.path} "
            "was started with",
            "restore them, or start another run with --exp-name",
        )


def without_observations(demonstrations: Demonstrations | None) -> Demonstrations | None:
    """Return what `describe_demos` needs: a method keeps observations in a form of its own."""
    if demonstrations is None:
        return None
    episodes = (
        dataclasses.replace(episode, observations=episode.observations[:0].copy())
        for episode in demonstrations.episodes
    )
    return dataclasses.replace(demonstrations, episodes=tuple(episodes))


def describe_demos(demonstrations: Demonstrations | None) -> dict[str, Any] | None:
    """Return what run.json says about demonstrations."""
    if demonstrations is None:
        return None
    return {
        "name": demonstrations.info.id,
        "hash": demonstrations.info.content_hash,
        "reward": demonstrations.info.env.reward if demonstrations.info.env else "dense",
        "episodes": len(demonstrations.episodes),
        "transitions": demonstrations.num_transitions,
        "return_mean": float(demonstrations.returns.mean()) if demonstrations.has_rewards else None,
        "success_rate": demonstrations.success_rate,
    }
