"""Starting from another run's policy instead of random weights (`--init RUN[:CHECKPOINT]`)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from rlfd.algorithms.base import Algorithm
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint as checkpoints
from rlfd.experiments.config import RunConfig, setting_text
from rlfd.experiments.evaluate import choose_policy
from rlfd.experiments.problem import build_for_acting, space_differences
from rlfd.experiments.run_dir import RunDir, find_run

__all__ = ["canonical_init", "relative_place", "same_init", "split_reference", "start_from"]

# Settings that change what the same weights mean, or which weights there are.
NETWORK_SETTINGS = ("hidden", "activation", "layer_norm", "dueling")


def start_from(
    algorithm: Algorithm,
    config: RunConfig,
    runs_dir: Path,
    recorded: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Give an algorithm that has learned nothing yet the policy that `config.init` names.

    Args:
        algorithm: Built from `config`.
        config: The configuration of the run that is to start.
        runs_dir: Where runs are looked for.
        recorded: What this returned when the run was started before; the policy must be the same.

    Returns:
        What run.json says of it: the source run, its algorithm, the step, and a digest.

    Raises:
        RlfdError: If there is no such run or policy, or it does not fit; says what differs.
    """
    assert config.init is not None
    name, checkpoint = split_reference(config.init)
    source = find_run(name, runs_dir)
    if source == RunDir.of(config, runs_dir):
        raise RlfdError(f"run {source.path} cannot start from itself", "give it another --exp-name")
    step, path = choose_policy(source, checkpoint)
    policy = checkpoints.load_policy(path)
    if "clip" in algorithm.policy_state() and "clip" not in policy:  # of an earlier version
        own = build_for_acting(source.config()).policy_state()
        policy |= {"clip": own["clip"]} if "clip" in own else {}
    _refuse_misfit(source, policy, algorithm, config)
    record = {
        "run": relative_place(source.path, runs_dir),
        "algo": source.config().algo,
        "checkpoint": step,
        "digest": checkpoints.policy_digest(policy),
    }
    if recorded is not None and recorded["digest"] != record["digest"]:
        raise RlfdError(
            f"policy {path} is not the one that this run was started from",
            "restore it, or start the run anew with --overwrite",
        )
    algorithm.start_from(policy)
    return record


def canonical_init(record: dict[str, Any]) -> str:
    """Return the text that names a recorded start, or reward, for good."""
    return f"{record['run']}:{record['checkpoint']}"


def same_init(given: str | None, stored: str | None, runs_dir: Path) -> bool:
    """Whether `given` may mean what a run has recorded; the source need not be there any more."""
    if given is None or stored is None:
        return given == stored
    name, checkpoint = split_reference(given)
    stored_name, stored_step = split_reference(stored)
    bases = (Path(), runs_dir, runs_dir / "default")  # where `find_run` looks
    spellings = {relative_place(base / name, runs_dir) for base in bases}
    with contextlib.suppress(RlfdError):  # a folder above the run may have been given, too
        spellings.add(relative_place(find_run(name, runs_dir).path, runs_dir))
    return stored_name in spellings and checkpoint in ("latest", "best", stored_step)


def split_reference(text: str) -> tuple[str, str]:
    """Return the run and the checkpoint that ``RUN[:CHECKPOINT]`` means."""
    name, colon, checkpoint = text.rpartition(":")
    return (name, checkpoint) if colon else (text, "latest")


def relative_place(path: Path, runs_dir: Path) -> str:
    """Return a run's path as it is recorded: below `runs_dir` without it, so that may be moved."""
    path, root = path.resolve(), runs_dir.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _refuse_misfit(
    source: RunDir, policy: dict[str, Tensor], algorithm: Algorithm, config: RunConfig
) -> None:
    theirs = source.config()
    misfit = f"'{config.algo}' on {config.env.label} cannot start from run {source.path}: "
    spaces = space_differences(theirs.env, config.env)
    if spaces:
        raise RlfdError(misfit + "; ".join(spaces), "choose a run on an environment of this kind")
    parts = _tensors(policy, algorithm.policy_state())
    if _modules(policy) != _modules(algorithm.policy_state()) and theirs.algo != config.algo:
        kinds = f"a policy of '{theirs.algo}' is not built like one of '{config.algo}'"
        raise RlfdError(misfit + "; ".join(parts), kinds)
    here = {name: getattr(config.algorithm, name, None) for name in NETWORK_SETTINGS}
    there = {name: getattr(theirs.algorithm, name, None) for name in NETWORK_SETTINGS}
    settings = [n for n in here if None not in (here[n], there[n]) and here[n] != there[n]]
    if settings:
        differences = [
            f"{n} is {setting_text(there[n])} there, {setting_text(here[n])} here" for n in settings
        ]
        raise RlfdError(
            misfit + "; ".join(differences),
            "give both the same network, here with "
            + " ".join(f"--set {name}={setting_text(there[name])}" for name in settings),
        )
    if parts:
        raise RlfdError(misfit + "; ".join(parts), "choose a run with the same settings")
    taus = [getattr(c.algorithm, "temperature", 1.0) for c in (theirs, config)]
    if "log_std" in policy and taus[0] != taus[1]:  # a policy's outputs, divided by that or not
        raise RlfdError(
            misfit + f"temperature is {taus[0]:g} there, {taus[1]:g} here, with which the same "
            "weights are another policy",
            f"choose a run with temperature={taus[1]:g}",
        )


def _modules(policy: dict[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in policy}


def _tensors(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> list[str]:
    parts = []
    for where, names in (
        ("here", sorted(ours.keys() - theirs)),
        ("there", sorted(theirs.keys() - ours)),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"only the policy {where} has {', '.join(names[:3])}{more}")
    for name in sorted(ours.keys() & theirs):
        if ours[name].shape != theirs[name].shape:
            shapes = tuple(theirs[name].shape), tuple(ours[name].shape)
            parts.append(f"{name} has shape {shapes[0]} there, {shapes[1]} here")
    return parts
