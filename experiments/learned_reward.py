"""Training on a reward that another run learned (`--reward-from RUN[:CHECKPOINT]`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rlfd import algorithms
from rlfd.demos import Demonstrations
from rlfd.envs import EnvConfig, RewardFunction, learner_rewards
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint as checkpoints
from rlfd.experiments.config import RunConfig
from rlfd.experiments.evaluate import choose_step
from rlfd.experiments.initial_policy import relative_place, split_reference
from rlfd.experiments.problem import build_for_acting, space_differences
from rlfd.experiments.run_dir import RunDir, find_run

__all__ = ["check_reads_reward", "clipped", "learned_reward", "paid_by"]


def check_reads_reward(config: RunConfig) -> None:
    """Refuse a learned reward for a method that reads none while it acts.

    Raises:
        RlfdError: If it does not; names those that do.
    """

    def reads(name: str) -> bool:
        needs = algorithms.get(name).needs
        return needs.reward and needs.interaction

    if config.reward_from is None or reads(config.algo):
        return
    able = [name for name in algorithms.names() if reads(name)]
    raise RlfdError(
        f"'{config.algo}' reads no reward of an environment, so it cannot be trained on that of "
        f"'{config.reward_from}'",
        f"drop --reward-from, or train one of: {', '.join(able)}",
    )


def learned_reward(
    config: RunConfig, runs_dir: Path, recorded: dict[str, Any] | None = None
) -> tuple[RewardFunction, dict[str, Any]]:
    """Load the reward that `config.reward_from` names.

    Args:
        config: The configuration of the run that is to be paid by it.
        runs_dir: Where runs are looked for.
        recorded: What this returned when the run was started; the reward must be the same.

    Returns:
        The reward, and what run.json says of it: the source run, its algorithm and environment,
        the step, and a digest.

    Raises:
        RlfdError: If there is no such run or reward, or it does not fit; says what differs.
    """
    assert config.reward_from is not None
    name, checkpoint = split_reference(config.reward_from)
    source = find_run(name, runs_dir)
    if source == RunDir.of(config, runs_dir):
        raise RlfdError(f"run {source.path} cannot be paid by itself", "give it another --exp-name")
    theirs = source.config()
    if not algorithms.get(theirs.algo).recovers_reward:
        able = [n for n in algorithms.names() if algorithms.get(n).recovers_reward]
        raise RlfdError(
            f"run {source.path} has no learned reward: '{theirs.algo}' learns none",
            f"algorithms that learn one: {', '.join(able)}",
        )
    differences = space_differences(theirs.env, config.env)
    if differences:
        raise RlfdError(
            f"the reward of run {source.path} does not fit {config.env.label}: "
            + "; ".join(differences),
            "choose a run on an environment of this kind; starts and options may differ",
        )
    saved = checkpoints.list_rewards(source.checkpoints)
    step = choose_step(source, checkpoint, saved, "reward")
    state = checkpoints.load_policy(saved[step])
    record = {
        "run": relative_place(source.path, runs_dir),
        "algo": theirs.algo,
        "env": theirs.env.label,
        "checkpoint": step,
        "digest": checkpoints.policy_digest(state),
    }
    if recorded is not None and recorded["digest"] != record["digest"]:
        raise RlfdError(
            f"reward {saved[step]} is not the one that this run was started with",
            "restore it, or start the run anew with --overwrite",
        )
    algorithm = build_for_acting(theirs)
    try:
        algorithm.load_reward_state(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise RlfdError(f"reward {saved[step]} does not fit its run: {error}") from error
    return algorithm.reward, record


def paid_by(demonstrations: Demonstrations, reward: RewardFunction) -> Demonstrations:
    """Return demonstrations with a learned reward in place of their own."""
    episodes = []
    for episode in demonstrations.episodes:
        terminated = np.zeros(episode.length, np.bool_)
        terminated[-1] = episode.terminated
        paid = reward(
            episode.observations[:-1], episode.actions, episode.observations[1:], terminated
        )
        episodes.append(dataclasses.replace(episode, rewards=paid))
    return dataclasses.replace(demonstrations, episodes=tuple(episodes))


def clipped(demonstrations: Demonstrations, env: EnvConfig) -> Demonstrations:
    """Return demonstrations with the rewards that a learner in `env` is paid."""
    episodes = (
        dataclasses.replace(episode, rewards=learner_rewards(env, episode.rewards))
        for episode in demonstrations.episodes
    )
    return dataclasses.replace(demonstrations, episodes=tuple(episodes))
