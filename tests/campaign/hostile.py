"""Files that somebody made to be read by us, then a command: refused or ignored, never obeyed.

Everything that has a digest has a right one, so that only what the file means can be wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlfd.experiments.checkpoint import policy_digest
from tests.campaign import damage
from tests.campaign.lab import Failure, Laboratory, complaint

__all__ = ["case"]

RUN = "runs/default/dqn/CartPole/seed0"
STOPPED = "runs/default/dqn/CartPole/seed2"
DEMOS = "data/demos/CartPole/controller-v0/data"
DEEP = json.loads("[" * 400 + "]" * 400)
ODD: list[Any] = [
    None, 5, -1, 0, 1.5, -1e300, 10**400, 2**64, float("nan"), float("inf"), "x", "", "x" * 5000,
    "../../etc/passwd", "/etc/passwd", "\x1b[31m", "os:Env-v0", "evil:Env-v0", [], {}, [[]],
    {"": 1}, True, DEEP, "a\nb", "\x00", "é", "\ud800",
]  # fmt: skip


def case(laboratory: Laboratory, rng: random.Random) -> str:
    """Make one file strange and run one command."""
    place = laboratory.copy("hostile")
    kind = rng.choice(list(KINDS))
    path, about = KINDS[kind](place, rng)
    (place / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    near = [
        n for n, (_, needs) in damage.COMMANDS.items() if any(path.startswith(p) for p in needs)
    ]
    name = rng.choice(near if near and rng.random() < 0.7 else list(damage.COMMANDS))
    command, needs = damage.COMMANDS[name]
    about = f"{kind}: {about} in {path}, then {name}"
    damage.reference(laboratory, name)
    answer = laboratory.run(place, command, python_path=str(place))
    wrong = complaint(answer)
    if (place / "ran").exists():
        wrong = "a stranger's code was run"
    if not wrong and answer["code"] != 0 and damage.SCANS in needs:
        wrong = "everything else stays in the dark"
    if not wrong and not any(path.startswith(prefix) for prefix in needs):
        same = damage.plain(answer["stdout"]) == damage.plain(
            damage.reference(laboratory, name)["stdout"]
        )
        wrong = "" if same and answer["code"] == 0 else "it has nothing to do with it"
    if wrong:
        raise Failure(f"{about}: {wrong}\n{answer['stderr'][-900:]}\n{answer['stdout'][-200:]}")
    return "refused" if answer["code"] else "done"


def _change(value: Any, rng: random.Random) -> str:
    """Give a part of a JSON value another value or type, or take it away."""
    spots: list[tuple[Any, Any, str]] = []

    def walk(node: Any, where: str) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            spots.append((node, key, f"{where}/{key}"))
            if isinstance(node[key], dict | list):
                walk(node[key], f"{where}/{key}")

    walk(value, "")
    node, key, where = rng.choice(spots)
    if rng.random() < 0.15:
        del node[key]
        return f"{where} taken away"
    node[key] = rng.choice(ODD)
    return f"{where} = {str(node[key])[:40]!r}"


def _json_file(place: Path, rng: random.Random) -> tuple[str, str]:
    files = [f"{RUN}/config.json", f"{RUN}/run.json", f"{STOPPED}/config.json",
             f"{STOPPED}/run.json", f"{DEMOS}/metadata.json",
             "runs/default/airl/CartPole/seed0/config.json",
             "runs/default/airl/CartPole/seed0/run.json"]  # fmt: skip
    path = rng.choice(files)
    value = json.loads((place / path).read_text())
    about = " and ".join(_change(value, rng) for _ in range(rng.choice([1, 1, 2])))
    (place / path).write_text(json.dumps(value))
    return path, about


def _env_spec(place: Path, rng: random.Random) -> tuple[str, str]:
    """Make our demonstrations a foreign dataset with a strange environment."""
    path = place / DEMOS / "metadata.json"
    value = json.loads(path.read_text())
    del value["rlfd"]
    env_spec = json.loads(value["env_spec"])
    about = _change(env_spec, rng)
    value["env_spec"] = rng.choice([json.dumps(env_spec), env_spec, "[" * 9999, "x"])
    path.write_text(json.dumps(value))
    return f"{DEMOS}/metadata.json", f"env_spec {about}"


def _arrays(place: Path, rng: random.Random) -> tuple[str, str]:
    path = f"{DEMOS}/main_data.hdf5"
    with h5py.File(place / path, "r+") as file:
        group = file["episode_1"]
        name = rng.choice(["observations", "actions", "rewards", "terminations", "truncations"])
        old = group[name][()]
        del group[name]
        how = rng.choice(list(ARRAYS))
        ARRAYS[how](group, name, old)
    return path, f"{name} {how}"


ARRAYS: dict[str, Callable[[Any, str, Any], Any]] = {
    "gone": lambda group, name, old: None,
    "text": lambda group, name, old: group.create_dataset(name, data=["x"] * len(old)),
    "complex": lambda group, name, old: group.create_dataset(name, data=old.astype(complex)),
    "huge": lambda group, name, old: group.create_dataset(
        name, (10**13, *old.shape[1:]), old.dtype, chunks=(1000, *old.shape[1:])
    ),
    "empty": lambda group, name, old: group.create_dataset(name, data=old[:0]),
    "one number": lambda group, name, old: group.create_dataset(name, data=1.0),
    "nothing": lambda group, name, old: group.create_dataset(name, data=h5py.Empty("f")),
    "a folder": lambda group, name, old: group.create_group(name),
    "more columns": lambda group, name, old: group.create_dataset(
        name, data=np.stack([old] * 3, -1)
    ),
    "fields": lambda group, name, old: group.create_dataset(
        name, data=np.zeros(len(old), [("a", "f4"), ("b", "i4")])
    ),
    "external": lambda group, name, old: group.create_dataset(
        name, old.shape, old.dtype, external=[("/etc/passwd", 0, old.nbytes)]
    ),
    "link": lambda group, name, old: group.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/")),
    "loop": lambda group, name, old: group.__setitem__(name, h5py.SoftLink(f"/episode_1/{name}")),
    "itself": lambda group, name, old: group.__setitem__(name, group),
    "references": lambda group, name, old: group.create_dataset(
        name, data=[group.ref] * len(old), dtype=h5py.ref_dtype
    ),
}


def _policy(place: Path, rng: random.Random) -> tuple[str, str]:
    path = place / "policy.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    value = json.loads(metadata["rlfd"])
    about = _tensors(tensors, rng) if rng.random() < 0.3 else _change(value, rng)
    if "tensors" in value and rng.random() < 0.9:
        value["tensors"] = policy_digest(tensors)
    text = json.dumps(value)
    metadata |= {"rlfd": text, "rlfd_sha256": hashlib.sha256(text.encode()).hexdigest()}
    save_file(tensors, path, metadata)
    return "policy.safetensors", about


def _tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> str:
    name = rng.choice(sorted(tensors))
    how = rng.choice(["gone", "nan", "empty", "double", "bytes", "more"])
    if how == "gone":
        del tensors[name]
    elif how == "more":
        tensors["more"] = torch.zeros(3)
    else:
        tensors[name] = {
            "nan": torch.full_like(tensors[name].float(), float("nan")),
            "empty": torch.zeros(0),
            "double": tensors[name].double(),
            "bytes": torch.zeros(tensors[name].shape, dtype=torch.uint8),
        }[how]
    return f"{name} {how}"


def _state(place: Path, rng: random.Random) -> tuple[str, str]:
    """Change the newest resume state, and note the digest of what it is now."""
    folder = max((place / STOPPED / "checkpoints").glob("resume_*"))
    path = folder / "state.json"
    value = json.loads(path.read_text())
    if rng.random() < 0.15:
        value, about = rng.choice([{}, {"$dict": {}}, [], None]), "nothing"
    else:
        about = _change(value, rng)
    path.write_text(json.dumps(value))
    digests = json.loads((folder / "complete.json").read_text())
    digests["state.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "complete.json").write_text(json.dumps(digests))
    return path.relative_to(place).as_posix(), about


def _table(place: Path, rng: random.Random) -> tuple[str, str]:
    """Change a cell of the CSV files of a run that nobody has digests of."""
    path = f"{STOPPED}/{rng.choice(['train', 'eval', 'episodes'])}.csv"
    rows = [line.split(",") for line in (place / path).read_text().splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(
        ["", "x", "1e400", "9" * 400, "nan", '"', "-", "é", "a,b"]
    )
    (place / path).write_text("\n".join(map(",".join, rows)) + "\n")
    return path, f"a cell of {row[:3]}"


def _place(place: Path, rng: random.Random) -> tuple[str, str]:
    """Put strange things beside the others."""
    how = rng.choice(["loop", "root", "long", "escape", "nothing"])
    parent = rng.choice(["runs/default/dqn", "data/demos/CartPole"])
    if how in ("loop", "root"):
        (place / parent / "strange").symlink_to(".." if how == "loop" else place)
        return f"{parent}/strange", how
    name = {"long": "x" * 250, "escape": "\x1b[31mred\x07", "nothing": "empty"}[how]
    (place / parent / name / "data").mkdir(parents=True)
    os.chmod(place / parent / name, 0)
    return f"{parent}/{name}", how


KINDS: dict[str, Callable[[Path, random.Random], tuple[str, str]]] = {
    "json": _json_file, "json ": _json_file, "env_spec": _env_spec, "arrays": _arrays,
    "policy": _policy, "state": _state, "table": _table, "place": _place,
}  # fmt: skip
