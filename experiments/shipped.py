"""Policies as single files: made from a run, and brought back to act.

What such a file says is described in `rlfd.demos.shipped`.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlfd import __version__
from rlfd.demos.shipped import (
    PolicyFile,
    Score,
    damaged,
    is_policy_file,
    pack,
    read_policy_file,
)
from rlfd.envs import EnvConfig, check, spec
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint as checkpoints
from rlfd.experiments.config import RUN_FIELDS, RunConfig, env_words, setting_text
from rlfd.experiments.evaluate import (
    TrainedPolicy,
    check_policy,
    evaluate_policy,
    load_policy,
)
from rlfd.experiments.problem import build_for_acting
from rlfd.experiments.report import Reporter
from rlfd.experiments.run_dir import RunDir, find_run
from rlfd.files import check_writable, sweep

__all__ = ["export_policy", "find_policy", "load_policy_file", "training_command"]

SCORE_EPISODES = 100


def export_policy(
    run: RunDir,
    out: Path,
    *,
    checkpoint: str = "best",
    policy: str | None = None,
    episodes: int = SCORE_EPISODES,
    seed: int | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> PolicyFile:
    """Evaluate a run's policy where demonstrations start, and write it with its score to one file.

    Args:
        run: The run.
        out: The file, ending in ``.safetensors``.
        checkpoint: ``best``, ``latest`` or a step.
        policy: ``sampled`` or ``greedy``; None = the algorithm's headline policy.
        episodes: Of the evaluation.
        seed: Of the evaluation; None = the run's.
        overwrite: Whether a file that is there is replaced.
        reporter: Told about the evaluation.

    Raises:
        RlfdError: If there is no such policy, it is damaged, or `out` is taken or of another kind.
    """
    _refuse_place(out, overwrite=overwrite)
    trained = load_policy(run, checkpoint, policy)
    state = trained.algorithm.policy_state()
    summary = evaluate_policy(
        trained,
        episodes=episodes,
        start=spec(trained.config.env.name).demo_start,
        reward="dense",
        seed=seed,
        reporter=reporter,
    )
    status = run.status()
    config = _without_places(trained.config, status)
    description = PolicyFile(
        path=out,
        config=config,
        checkpoint=trained.checkpoint,
        mode=trained.mode,
        command=training_command(config, run.provenance()),
        score=Score(
            start=summary.start,
            episodes=episodes,
            seed=trained.config.seed if seed is None else seed,
            return_mean=summary.return_mean,
            return_std=summary.return_std,
            length_mean=summary.length_mean,
            success_rate=summary.success_rate,
        ),
        tensors=checkpoints.policy_digest(state),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        created_with=__version__,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, out.name)
    if out.exists() and not overwrite:  # by now
        raise _taken(out)
    checkpoints.write_policy(out, state, pack(description))
    return description


def _refuse_place(out: Path, *, overwrite: bool) -> None:
    if not is_policy_file(out):
        raise RlfdError(
            f"cannot export to '{out}', expected a name that ends in .safetensors",
            f"write for example --out {out.stem or 'policy'}.safetensors",
        )
    if out.exists() and not overwrite:
        raise _taken(out)
    try:
        check_writable(out)
    except OSError as error:
        raise RlfdError(
            f"cannot export to '{out}': {error.strerror}", "choose another place with --out"
        ) from error


def _taken(out: Path) -> RlfdError:
    return RlfdError(f"policy {out} exists already", "choose another name, or add --overwrite")


def _without_places(config: RunConfig, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as JSON in which nothing names a folder of this machine."""
    values = config.to_json()
    if values["demos"] is not None:
        values["demos"] = (status.get("demos") or {}).get("name", Path(values["demos"]).name)
    for name in ("init", "demonstrator", "reward_from"):
        if values[name] is not None and Path(values[name]).is_absolute():
            values[name] = "/".join(Path(values[name]).parts[-4:])
    return values


def training_command(config: Mapping[str, Any], provenance: Mapping[str, str]) -> str:
    """Return the command line of a run: everything that neither a default nor a preset set.

    It is made from the configuration, not from what was typed: that may have named folders of a
    machine, a file of settings, or have been the command that resumed the run.
    """
    env = check(RunConfig.from_json(config).env)
    usual = check(EnvConfig(env.name, env.start, reward=env.reward)).options
    unusual = {n: value for n, value in env.options.items() if usual.get(n) != value}
    words = ["rlfd", "train", config["algo"]]
    words += env_words(replace(env, options=unusual), usual_start="standard")
    if config["preset"] != "default":
        words += ["--preset", config["preset"]]
    given = [n for n, layer in provenance.items() if layer.startswith(("--set", "command", "file"))]
    for name in given:
        # log_every has no option, and changes nothing else; a file may set nothing at all
        if name in RUN_FIELDS and name != "log_every" and config[name] is not None:
            words += ["--" + name.replace("_", "-"), setting_text(config[name])]
    for name in given:
        key = name.removeprefix("algorithm.")
        if key != name:
            words += ["--set", f"{key}={setting_text(config['algorithm'][key])}"]
    return shlex.join(words)


def find_policy(
    text: str | Path, runs_dir: Path, *, checkpoint: str | None = None, policy: str | None = None
) -> TrainedPolicy:
    """Return the policy of a run, or the one in a file.

    Args:
        text: A run, or a policy file.
        runs_dir: Where runs are looked for.
        checkpoint: Of the run: ``latest`` (None), ``best`` or a step.
        policy: ``sampled`` or ``greedy``; None = as its algorithm is judged, or its file says.

    Raises:
        RlfdError: If there is none, or it cannot be used.
    """
    if not is_policy_file(text):
        return load_policy(find_run(text, runs_dir), checkpoint or "latest", policy)
    if checkpoint is not None:
        raise RlfdError(
            f"--checkpoint belongs to a run, '{text}' is a single policy",
            "leave it out, or name the folder of a run",
        )
    return load_policy_file(Path(text), policy)


def load_policy_file(path: Path, policy: str | None = None) -> TrainedPolicy:
    """Rebuild an exported policy.

    Args:
        path: The file.
        policy: ``sampled`` or ``greedy``; None = as the file says.

    Raises:
        RlfdError: If it is missing, damaged, was changed, or is of another version.
    """
    path = Path(path)
    description = read_policy_file(path)
    state = checkpoints.load_policy(path)
    if checkpoints.policy_digest(state) != description.tensors:
        raise damaged(path, "its tensors are not what was written")
    config = RunConfig.from_json(description.config, str(path))
    torch.set_num_threads(config.threads)
    algorithm = build_for_acting(config)
    try:
        algorithm.load_policy_state(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise RlfdError(
            f"policy {path} does not fit this version of '{description.algo}': {error}",
            f"it was written by rlfd {description.created_with}",
        ) from error
    mode = check_policy(algorithm, policy or description.mode)
    videos = path.with_suffix("")
    step = description.checkpoint
    return TrainedPolicy(algorithm, config, step, mode, path, videos, description)
