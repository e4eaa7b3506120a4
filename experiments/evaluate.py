"""Playing a learned policy: for a run's own evaluations, for `rlfd evaluate`, as demonstrator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlfd import algorithms
from rlfd.algorithms.base import Algorithm, PolicyMode
from rlfd.demos import PolicyFile
from rlfd.envs import (
    LIMIT,
    EnvConfig,
    Lend,
    PlayedEpisode,
    check,
    elsewhere,
    evaluated,
    play_episodes,
    probe,
    with_options,
)
from rlfd.errors import RlfdError, unknown_name
from rlfd.experiments import checkpoint as checkpoints
from rlfd.experiments.config import RunConfig
from rlfd.experiments.problem import build_for_acting
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.run_dir import RunDir
from rlfd.interrupts import StopSignal
from rlfd.seeding import derive, derive_many

__all__ = [
    "EvalSummary",
    "TrainedPolicy",
    "best_step",
    "check_policy",
    "choose_policy",
    "choose_step",
    "evaluate_policy",
    "evaluate_run",
    "evaluation_row",
    "load_policy",
    "play_policy",
    "summarise",
]

EVAL_SEED_OFFSET = 10_000


def play_policy(
    algorithm: Algorithm,
    env: EnvConfig,
    *,
    policy: PolicyMode,
    episodes: int,
    seed: int,
    stream: str,
    num_envs: int = 20,
    frames: int = 0,
    lend: Lend | None = None,
    stop: StopSignal | None = None,
) -> Iterator[PlayedEpisode]:
    """Play whole episodes with a learned policy, without touching the algorithm's state.

    Args:
        algorithm: Acts.
        env: Where.
        policy: Samples, or most likely actions.
        episodes: How many.
        seed: The run's seed; evaluation has streams of its own (10,000 + seed).
        stream: Which evaluation: the same name gives the same start states.
        num_envs: How many run at a time.
        frames: Film this many, the first ones.
        lend: Lends an environment where none can be made beside it.
        stop: Looked at before each step.

    Raises:
        KeyboardInterrupt: If somebody asked to stop.
    """
    root = EVAL_SEED_OFFSET + seed
    seeds = derive_many(root, f"evaluation {stream}", episodes)
    generator = torch.Generator(device=_device(algorithm))
    generator.manual_seed(derive(root, f"actions {stream}"))

    def act(observations: npt.NDArray[Any], _: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if stop is not None:
            stop.check()
        return algorithm.act(observations, greedy=policy == "greedy", generator=generator)

    env = evaluated(env)
    return play_episodes(env, seeds=seeds, act=act, num_envs=num_envs, frames=frames, lend=lend)


def _device(algorithm: Algorithm) -> torch.device:
    return next(iter(algorithm.policy_state().values())).device


def evaluation_row(
    played: PlayedEpisode, *, env_steps: int, phase: str, policy: str
) -> dict[str, Any]:
    """Return an evaluation episode as a row of eval.csv."""
    return {
        "env_steps": env_steps,
        "phase": phase,
        "policy": policy,
        "episode": played.index,
        "seed": played.seed,
        "episode_return": played.episode_return,
        "dense_return": played.dense_return,
        "episode_length": played.length,
        "terminated": played.terminated,
        "truncated": played.truncated,
        "success": played.success,
        "landed": played.landed,
    }


def best_step(run: RunDir) -> int | None:
    """Return the step of the best saved policy; None before the first evaluation.

    Best by the periodic evaluations of the headline policy: success rate where the environment has
    a success test, then mean return; the later one of equals.
    """
    rows = run.evaluations()
    headline = algorithms.get(run.config().algo).policies[0]
    rows = rows[(rows["phase"] == "periodic") & (rows["policy"] == headline)]
    saved = checkpoints.list_policies(run.checkpoints)
    rows = rows[rows["env_steps"].isin(list(saved))]
    if rows.empty:
        return None
    scores = rows.groupby("env_steps")[["success", "episode_return"]].mean().fillna(0.0)
    ranked = scores.reset_index().sort_values(["success", "episode_return", "env_steps"])
    return int(ranked["env_steps"].iloc[-1])


def choose_policy(run: RunDir, checkpoint: str) -> tuple[int, Path]:
    """Return step and file of the saved policy that ``latest``, ``best`` or a step number names.

    Raises:
        RlfdError: If there is none.
    """
    saved = checkpoints.list_policies(run.checkpoints)
    step = choose_step(run, checkpoint, saved, "policy")
    return step, saved[step]


def choose_step(run: RunDir, checkpoint: str, saved: Mapping[int, Path], what: str) -> int:
    """Return the step that ``latest``, ``best`` or a step number names among `saved`.

    Raises:
        RlfdError: If there is none, or the run was damaged since it finished.
    """
    if checkpoint in ("latest", "best"):  # of all that there were
        run.check_results("*" if checkpoint == "best" else "checkpoints/*")
    if not saved:
        raise RlfdError(
            f"run {run.path} has no saved {what} yet", "let it train until its first evaluation"
        )
    if checkpoint == "latest":
        return max(saved)
    if checkpoint == "best":
        best = best_step(run)
        return max(saved) if best is None else best
    if checkpoint.isdigit() and int(checkpoint) in saved:
        return int(checkpoint)
    known = ["latest", "best", *map(str, saved)]
    raise unknown_name(
        "checkpoint", checkpoint, known, f"saved steps: {', '.join(map(str, saved))}"
    )


@dataclass(frozen=True)
class TrainedPolicy:
    """A learned policy that can act but not go on learning.

    Attributes:
        algorithm: Acts.
        config: Of the run that learned it.
        checkpoint: Env steps after which it was saved.
        mode: How it acts.
        place: The run's folder, or the file that it was exported to.
        videos: Where films of it belong.
        file: What its file says, if it was exported to one.
    """

    algorithm: Algorithm
    config: RunConfig
    checkpoint: int
    mode: PolicyMode
    place: Path
    videos: Path
    file: PolicyFile | None = None


def load_policy(run: RunDir, checkpoint: str, policy: str | None = None) -> TrainedPolicy:
    """Rebuild a run's algorithm with a saved policy.

    Args:
        run: The run.
        checkpoint: ``latest``, ``best`` or a step.
        policy: ``sampled`` or ``greedy``; None = the algorithm's headline policy.

    Raises:
        RlfdError: If there is no such policy, or it cannot be read.
    """
    config = run.config()
    step, path = choose_policy(run, checkpoint)
    torch.set_num_threads(config.threads)
    algorithm = build_for_acting(config)
    try:
        algorithm.load_policy_state(checkpoints.load_policy(path))
    except (KeyError, ValueError, RuntimeError) as error:
        raise RlfdError(f"policy {path} does not fit its run: {error}") from error
    mode = check_policy(algorithm, policy)
    return TrainedPolicy(algorithm, config, step, mode, run.path, run.videos)


@dataclass(frozen=True)
class EvalSummary:
    """What `rlfd evaluate` reports. Rates are None where the environment has no success test."""

    run: str
    algo: str
    env: str
    start: str
    reward: str
    checkpoint: int
    policy: str
    episodes: int
    return_mean: float
    return_std: float
    return_iqm: float
    dense_return_mean: float
    length_mean: float
    success_rate: float | None
    videos: list[str]


def evaluate_run(
    run: RunDir,
    *,
    episodes: int,
    start: str | None = None,
    reward: str | None = None,
    checkpoint: str = "latest",
    policy: str | None = None,
    record_video: int = 0,
    seed: int | None = None,
    reporter: Reporter | None = None,
) -> EvalSummary:
    """Play a trained run's policy and summarise it.

    Args:
        run: The run.
        episodes: How many episodes.
        start: Start-state distribution; None = the one it was trained on.
        reward: What is paid; None = what it was trained with.
        checkpoint: ``latest``, ``best`` or a step.
        policy: ``sampled`` or ``greedy``; None = the algorithm's headline policy.
        record_video: Film this many of the episodes.
        seed: Root of start states and draws; None = the run's.
        reporter: Told about progress.

    Raises:
        RlfdError: If something that was named does not exist.
    """
    return evaluate_policy(
        load_policy(run, checkpoint, policy),
        episodes=episodes,
        start=start,
        reward=reward,
        record_video=record_video,
        seed=seed,
        reporter=reporter,
    )


def evaluate_policy(
    policy: TrainedPolicy,
    *,
    episodes: int,
    start: str | None = None,
    reward: str | None = None,
    record_video: int = 0,
    seed: int | None = None,
    reporter: Reporter | None = None,
    max_episode_steps: int | None = None,
) -> EvalSummary:
    """Play a trained policy and summarise it; the arguments are those of `evaluate_run`.

    `max_episode_steps` cuts episodes of a Gymnasium id; None = where they were cut in training.
    """
    reporter = reporter or NullReporter()
    config, step, mode = policy.config, policy.checkpoint, policy.mode
    env = elsewhere(config.env, start, reward)
    if max_episode_steps is not None:
        env = check(with_options(env, {LIMIT: max_episode_steps}))
    for warning in probe(env).warnings:
        reporter.warning(warning)
    reporter.start(f"evaluate {config.algo}", episodes, 0, "episodes")
    played = []
    for episode in play_policy(
        policy.algorithm,
        env,
        policy=mode,
        episodes=episodes,
        seed=config.seed if seed is None else seed,
        stream="final",
        frames=record_video,
    ):
        played.append(episode)
        mean = float(np.mean([one.episode_return for one in played]))
        reporter.advance(len(played), {"return": mean})
    reporter.finish()
    videos = [
        str(_write_video(policy.videos, episode, f"{env.start}-{mode}-step{step}"))
        for episode in played
        if episode.frames
    ]
    return EvalSummary(
        run=str(policy.place),
        algo=config.algo,
        env=env.name,
        start=env.start,
        reward=env.reward,
        checkpoint=step,
        policy=mode,
        episodes=episodes,
        videos=videos,
        **summarise(played),
    )


def check_policy(algorithm: Algorithm, policy: str | None) -> PolicyMode:
    """Return the way to act that `policy` names, or the headline.

    Raises:
        RlfdError: If the algorithm has none of that name.
    """
    for mode in algorithm.policies:
        if policy in (None, mode):
            return mode
    raise unknown_name(f"policy of {algorithm.name}", str(policy), algorithm.policies)


def summarise(played: Sequence[PlayedEpisode]) -> dict[str, Any]:
    """Return means over episodes, with the names that `evaluate --json` prints."""
    from rlfd.experiments.statistics import iqm

    returns = np.array([episode.episode_return for episode in played])
    successes = [episode.success for episode in played if episode.success is not None]
    return {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_iqm": float(iqm(returns)),
        "dense_return_mean": float(np.mean([episode.dense_return for episode in played])),
        "length_mean": float(np.mean([episode.length for episode in played])),
        "success_rate": float(np.mean(successes)) if successes else None,
    }


def _write_video(folder: Path, episode: PlayedEpisode, label: str) -> Path:
    from moviepy import ImageSequenceClip

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}-episode{episode.index}.mp4"
    clip = ImageSequenceClip(episode.frames, fps=50)
    clip.write_videofile(str(path), logger=None, audio=False)
    return path
