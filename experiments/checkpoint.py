"""Checkpoints: nested states of tensors, arrays and JSON values on disk. Nothing is ever unpickled.

A resume checkpoint is a folder; its `complete.json`, with the digest of each other file, is written
last and the folder is then renamed to its place, so a checkpoint that was cut off is never taken for
a whole one, and a damaged one is noticed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlfd.errors import RlfdError
from rlfd.files import fsync_folder, new_temporary, publish_folder, write_json

__all__ = [
    "list_policies",
    "load_newest",
    "load_policy",
    "save_policy",
    "save_resume",
]

KEPT = 2
DIGITS = 9


def save_resume(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `resume_{step}` below `folder`; all but the newest two are removed."""
    final = folder / f"resume_{step:0{DIGITS}d}"
    temporary = new_temporary(final)
    temporary.mkdir(parents=True)
    try:
        tensors: dict[str, Tensor] = {}
        tree = _flatten(state, "", tensors)
        save_file(tensors, temporary / "tensors.safetensors")
        (temporary / "state.json").write_text(json.dumps(tree), encoding="utf-8")
        digests = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / "complete.json", digests)
        publish_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in _resume_folders(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest whole checkpoint below `folder`.

    Returns:
        Its state, or None if there is none, and a sentence about each newer one that is damaged.
    """
    problems = []
    for path in _resume_folders(folder):
        try:
            return _load(path), problems
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            problems.append(
                f"checkpoint {path} is damaged ({error}), falling back to the one before"
            )
    return None, problems


def _load(path: Path) -> dict[str, Any]:
    digests = json.loads((path / "complete.json").read_text(encoding="utf-8"))
    for name, digest in digests.items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is not what was written")
    tensors = load_file(path / "tensors.safetensors")
    state = _unflatten(json.loads((path / "state.json").read_text(encoding="utf-8")), tensors)
    assert isinstance(state, dict)
    return state


def _resume_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("resume_" + "[0-9]" * DIGITS + "*"), reverse=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON, tensors and arrays moved to `tensors` under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {"$array": path, "shape": list(value.shape)}
    if isinstance(value, dict):
        items = value.items()
        return {"$dict": {str(k): _flatten(v, f"{path}/{k}", tensors) for k, v in items}}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$array" in value:
        return tensors[value["$array"]].numpy().reshape(value["shape"])
    return {key: _unflatten(item, tensors) for key, item in value["$dict"].items()}


def save_policy(folder: Path, step: int, policy: dict[str, Tensor]) -> None:
    """Write what acting needs to `policy_{step}.safetensors` below `folder`."""
    final = folder / f"policy_{step:0{DIGITS}d}.safetensors"
    temporary = new_temporary(final)
    try:
        save_file({name: value.contiguous() for name, value in policy.items()}, temporary)
        fsync_folder(folder)
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def list_policies(folder: Path) -> dict[int, Path]:
    """Return the saved policies by step, oldest first."""
    paths = sorted(folder.glob("policy_*.safetensors"))
    return {int(path.stem.removeprefix("policy_")): path for path in paths}


def load_policy(path: Path) -> dict[str, Tensor]:
    """Read what `save_policy` wrote.

    Raises:
        RlfdError: If the file is damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RlfdError(
            f"policy {path} cannot be read: {error}", "choose another one with --checkpoint"
        ) from error
