"""Checkpoints: nested states of tensors, arrays and JSON values on disk. Nothing is ever unpickled.

A resume checkpoint is a folder; its `complete.json`, with the digest of each other file, is
written last and the folder is then renamed to its place, so a checkpoint that was cut off is never
taken for a whole one, and a damaged one is noticed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlfd.errors import RlfdError
from rlfd.files import (
    file_digest,
    fsync_path,
    new_temporary,
    publish_folder,
    remove_temporaries,
    usual_mode,
    write_json,
)
from rlfd.jsons import Form, expect, read_json

__all__ = [
    "forget_after",
    "list_policies",
    "list_rewards",
    "load_newest",
    "load_policy",
    "newest_step",
    "policy_digest",
    "save_policy",
    "save_resume",
    "save_reward",
    "write_policy",
]

KEPT = 2
DIGITS = 9
DIGEST = "digest"  # of a policy's tensors, among what its file says
FILES = ("state.json", "tensors.safetensors")
_SYSTEM_ERROR = re.compile(r"(?:os error|code:) (\d+)")


def save_resume(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `resume_{step}` below `folder`; all but the newest two are removed."""
    final = folder / f"resume_{step:0{DIGITS}d}"
    temporary = new_temporary(final)
    temporary.mkdir(parents=True)
    try:
        tensors: dict[str, Tensor] = {}
        tree = _flatten(state, "", tensors)
        _write_tensors(tensors, temporary / "tensors.safetensors")
        (temporary / "state.json").write_text(json.dumps(tree), encoding="utf-8")
        digests = {name: file_digest(temporary / name) for name in FILES}
        write_json(temporary / "complete.json", digests)
        publish_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in list(_resume_folders(folder).values())[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors; a full disk shows as the OSError that it is."""
    try:
        save_file(tensors, path, metadata)
        path.chmod(usual_mode())  # which it does not ask for
    except SafetensorError as error:
        found = _SYSTEM_ERROR.search(str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def load_newest(
    folder: Path, form: Mapping[str, Form] | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest whole checkpoint below `folder`.

    Args:
        folder: Of a run's checkpoints.
        form: What its state must hold.

    Returns:
        Its state, or None if there is none, and a sentence about each newer one that is damaged.
    """
    problems: list[str] = []
    for path in _resume_folders(folder).values():
        try:
            return _load(path, dict(form or {})), problems
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError
        ) as error:  # fmt: skip
            problems.append(
                f"checkpoint {path} is damaged ({error}), falling back to the one before"
            )
    return None, problems


def forget_after(folder: Path, step: int, *, policy_too: bool = False) -> None:
    """Remove all that was saved after `step`, and what a killed writer left.

    A resumed run writes them again; until then they would pass for its own. With `policy_too` the
    policy, or reward, of `step` itself goes as well.
    """
    remove_temporaries(folder)
    for at, path in _resume_folders(folder).items():
        if at > step:
            shutil.rmtree(path)
    for saved in (list_policies(folder), list_rewards(folder)):
        for at, path in saved.items():
            if at > step or (policy_too and at == step):
                path.unlink()


def _load(path: Path, form: dict[str, Form]) -> dict[str, Any]:
    digests = read_json(path / "complete.json", {"*": str})
    for name in FILES:
        if file_digest(path / name) != digests[name]:
            raise ValueError(f"{name} is not what was written")
    tensors = load_file(path / "tensors.safetensors")
    state: dict[str, Any] = _unflatten(read_json(path / "state.json", {}), tensors)
    expect(state, form)
    missing = [name for name in form if name not in state]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    return state


def _resume_folders(folder: Path) -> dict[int, Path]:
    """Return the checkpoints by step, newest first."""
    found = {
        int(path.name.removeprefix("resume_")): path
        for path in folder.glob("resume_*")
        if path.name.removeprefix("resume_").isdecimal()
    }
    return dict(sorted(found.items(), reverse=True))


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest resume checkpoint; None without one."""
    return max(_resume_folders(folder), default=None)


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
    write_policy(folder / f"policy_{step:0{DIGITS}d}.safetensors", policy)


def save_reward(folder: Path, step: int, reward: dict[str, Tensor]) -> None:
    """Write what a learned reward needs to `reward_{step}.safetensors` below `folder`."""
    write_policy(folder / f"reward_{step:0{DIGITS}d}.safetensors", reward)


def write_policy(
    final: Path, policy: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write what acting needs, and what there is to say about it, in one step."""
    temporary = new_temporary(final)
    try:
        tensors = {name: value.cpu().contiguous() for name, value in policy.items()}
        _write_tensors(tensors, temporary, metadata or {DIGEST: policy_digest(tensors)})
        fsync_path(temporary)
        temporary.replace(final)
        fsync_path(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def list_policies(folder: Path) -> dict[int, Path]:
    """Return the saved policies by step, oldest first."""
    return _list_saved(folder, "policy_")


def list_rewards(folder: Path) -> dict[int, Path]:
    """Return the saved rewards by step, oldest first."""
    return _list_saved(folder, "reward_")


def _list_saved(folder: Path, prefix: str) -> dict[int, Path]:
    found = {
        int(path.stem.removeprefix(prefix)): path
        for path in folder.glob(f"{prefix}*.safetensors")
        if path.stem.removeprefix(prefix).isdecimal()
    }
    return dict(sorted(found.items()))


def load_policy(path: Path) -> dict[str, Tensor]:
    """Read what `write_policy` wrote.

    Raises:
        RlfdError: If the file is damaged, or something in it is no finite number.
    """
    hint = "choose another one with --checkpoint"
    try:
        path.open("rb").close()  # it says why; `safe_open` takes all for missing
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(DIGEST)  # older and exported files have none
            policy = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RlfdError(f"policy {path} cannot be read: {error}", hint) from error
    if written is not None and policy_digest(policy) != written:
        raise RlfdError(f"policy {path} is not what was written there: it is damaged", hint)
    odd = [name for name, value in policy.items() if not bool(torch.isfinite(value).all())]
    if odd:
        raise RlfdError(f"policy {path} has numbers that are not finite, in {', '.join(odd)}", hint)
    return policy


def policy_digest(policy: dict[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(policy.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
