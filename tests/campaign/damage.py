"""One file is damaged, then a command is run.

What does not need the file must work as before; what looks at many files must go on and name the
one; what needs it must refuse, or give the same answer as before. A different answer without a
word is what this looks for.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.lab import DQN, Answer, Failure, Laboratory, complaint

__all__ = ["COMMANDS", "case", "judge"]

RUN = "runs/default/dqn/CartPole/seed0"
STOPPED = "runs/default/dqn/CartPole/seed2"
OTHER = "runs/default/dqn/CartPole/seed1"
AIRL = "runs/default/airl/CartPole/seed0"
CONTROLLER = "data/demos/CartPole/controller-v0"
SCANS = "*"
"""Needs: looks at everything of a kind, and goes on without what is damaged."""

DESCRIPTIONS = ("config.json", "run.json", "metadata.json")
"""Files without a digest: as long as they can be read, what they say is taken for true."""

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "list runs": (["list", "runs", "--json"], [SCANS, "runs"]),
    "list demos": (["list", "demos", "--json"], [SCANS, "data"]),
    "show run": (["show", RUN, "--json"], [RUN]),
    "show demos": (["show", "CartPole/controller", "--json"], [CONTROLLER]),
    "show policy": (["show", "policy.safetensors", "--json"], ["policy.safetensors"]),
    "evaluate": (["evaluate", RUN, "--episodes", "3", "--json"], [RUN]),
    "evaluate best": (
        ["evaluate", RUN, "--checkpoint", "best", "--episodes", "3", "--json"],
        [RUN],
    ),
    "evaluate policy": (
        ["evaluate", "policy.safetensors", "--episodes", "3", "--json"],
        ["policy.safetensors"],
    ),
    "table": (["plot", "runs", "--table", "--json"], [SCANS, "runs"]),
    "figure": (["plot", "runs/default/dqn", "--json", "--out", "f.png"], [SCANS, "runs"]),
    "train": (["train", "sqil", *DQN[1:], "--demos", "controller", "--json"], [CONTROLLER]),
    "finished": (["train", *DQN, "--resume", "--json"], [RUN]),
    "resume": (["train", *DQN, "--seed", "2", "--resume", "--json"], [STOPPED]),
    "init": (["train", *DQN, "--init", OTHER, "--exp-name", "new", "--json"], [OTHER]),
    "reward": (["train", *DQN, "--reward-from", AIRL, "--exp-name", "new", "--json"], [AIRL]),
    "mix": (
        [
            "demos",
            "mix",
            "CartPole/controller:0.5",
            "CartPole/random:0.5",
            "--name",
            "new",
            "--json",
        ],
        ["data/demos/CartPole"],
    ),
    "export": (["export", OTHER, "--out", "new.safetensors", "--episodes", "3", "--json"], [OTHER]),
    "collect run": (
        ["collect-demos", "--env", "CartPole", "--policy", OTHER, "--episodes", "2", "--json"],
        [OTHER],
    ),
}
PASSING = re.compile(  # what no two runs have in common
    r'"(wall_seconds|created|date|written|pid|time)": [^\n]*|\d+(\.\d+)? (s|min|kB)'
)


def case(laboratory: Laboratory, rng: random.Random) -> str:
    """Damage one file and run one command."""
    name = rng.choice(list(COMMANDS))
    place = laboratory.copy("damaged")
    needs = [prefix for prefix in COMMANDS[name][1] if prefix != SCANS]
    files = sorted(
        path.relative_to(place)
        for path in place.rglob("*")
        if path.is_file() and path.parts[len(place.parts)] in ("runs", "data", "policy.safetensors")
    )
    near = [path for path in files if any(_below(path, prefix) for prefix in needs)]
    path = rng.choice(near if near and rng.random() < 0.7 else files)
    how = rng.choice(list(DAMAGES))
    before = snapshot(place, path)
    DAMAGES[how](place / path, rng)
    about = f"{how} of {path}, then {name}"
    return judge(laboratory, place, name, path, about, same=snapshot(place, path) == before)


def judge(
    laboratory: Laboratory, place: Path, name: str, path: Path, about: str, *, same: bool = False
) -> str:
    """Run a command where `path` is damaged, and look at what became of it.

    Raises:
        Failure: If that is not as it should be.
    """
    command, needs = COMMANDS[name]
    usual = reference(laboratory, name)
    answer = laboratory.run(place, command)
    wrong = complaint(answer)
    if wrong:
        raise Failure(f"{about}: {wrong}\n{answer['stderr']}\n{answer['stdout'][-300:]}")
    alike = plain(answer["stdout"]) == plain(usual["stdout"])
    if answer["code"] == 0 and alike:
        return "the same"
    if same:
        raise Failure(f"{about}: nothing was changed, and the answer is another: {answer}")
    if not any(_below(path, prefix) for prefix in needs):
        raise Failure(f"{about}: it has nothing to do with it: {answer['stderr']}")
    if answer["code"] != 0:
        if SCANS in needs:
            raise Failure(f"{about}: everything else stays in the dark: {answer['stderr']}")
        return "refused"
    if path.name in DESCRIPTIONS:
        return "described otherwise"
    if plain(answer["stderr"]) == plain(usual["stderr"]) and '"damaged"' not in answer["stdout"]:
        raise Failure(f"{about}: another answer without a word\n{_difference(answer, usual)}")
    return "named"


def reference(laboratory: Laboratory, name: str) -> Answer:
    """Return what a command says where nothing is damaged, run once."""
    kept: dict[str, Answer] = laboratory.__dict__.setdefault("references", {})
    if name not in kept:
        answer = laboratory.run(laboratory.copy("reference"), COMMANDS[name][0])
        if answer["code"] != 0:
            raise Failure(f"{name}: {answer}")
        kept[name] = answer
    return kept[name]


def plain(text: str) -> str:
    """Return what a command printed without what differs each time."""
    return PASSING.sub("", text)


def _difference(answer: Answer, usual: Answer) -> str:
    lines = plain(usual["stdout"]).splitlines()
    return "\n".join(line for line in plain(answer["stdout"]).splitlines() if line not in lines)[
        :400
    ]


def _below(path: Path, prefix: str) -> bool:
    return path.as_posix() == prefix or path.as_posix().startswith(f"{prefix}/")


def snapshot(place: Path, path: Path) -> bytes | None:
    """Return what a file holds, None where there is none."""
    found = place / path
    return found.read_bytes() if found.is_file() else None


# Ways to damage


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])


def _noise(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    begin = rng.randrange(len(content) + 1)
    content[begin : begin + 40] = rng.randbytes(40)
    path.write_bytes(content)


def _append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(17))


def _digit(path: Path, rng: random.Random) -> None:
    """Change one digit of a text, which leaves it a well-formed one."""
    content = bytearray(path.read_bytes())
    digits = [index for index, byte in enumerate(content) if byte in b"0123456789"]
    if digits:
        content[rng.choice(digits)] = rng.choice(b"0123456789")
    path.write_bytes(content)


def _json(path: Path, rng: random.Random) -> None:
    """Give one value of a JSON file another type."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError):
        _noise(path, rng)
        return
    spots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            spots.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(value, dict | list):
        walk(value)
    if spots:
        node, key = rng.choice(spots)
        odd = [None, 5, -1, 1.5, "x", "", [], {}, True, 10**400, float("nan"), [[1]], {"a": 1}]
        node[key] = rng.choice(odd)
    path.write_text(json.dumps(value))


def _deep(path: Path, _: random.Random) -> None:
    path.write_text("[" * 100_000)


def _gone(path: Path, _: random.Random) -> None:
    path.unlink()


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path, _: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _swap(path: Path, rng: random.Random) -> None:
    """Put another file of its kind in its place."""
    root = next(parent for parent in path.parents if parent.name == "damaged")
    others = sorted(other for other in root.rglob(f"*{path.suffix}") if other.is_file())
    shutil.copyfile(rng.choice([one for one in others if one != path] or [path]), root / "swap")
    os.replace(root / "swap", path)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": _flip, "cut": _cut, "noise": _noise, "append": _append, "digit": _digit,
    "json": _json, "json ": _json, "deep": _deep, "gone": _gone, "folder": _folder,
    "loop": _loop, "swap": _swap,
}  # fmt: skip
