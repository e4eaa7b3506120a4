"""Policy files: what a trained policy says about itself, and the ones that come with this tool.

A policy file is a safetensors file with what acting needs. Its metadata holds, as JSON text under
``rlfd``, the run's configuration, the step, how it acts, the command that trained it, its score and
a digest of the tensors; under ``rlfd_sha256`` the digest of that text. The shipped ones lie in
`policies/` as ``<Env>-<strength>.safetensors``; a ``ceiling`` learned with the reward from every
start, also from those where nothing is demonstrated, for others to be compared with. This module
reads what they say; who builds a policy from one needs torch and is `rlfd.experiments.shipped`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError, unknown_name
from rlfd.jsons import Form, parse_json

__all__ = [
    "STRENGTHS",
    "PolicyFile",
    "Score",
    "damaged",
    "find_shipped",
    "is_policy_file",
    "list_shipped",
    "pack",
    "read_policy_file",
    "strengths",
]

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
TEXT, DIGEST = "rlfd", "rlfd_sha256"
FORM: Form = {
    "format": int,
    "config": {"algo": str, "env": {}, "preset": str},
    "checkpoint": int,
    "mode": str,
    "command": str,
    "score": {
        "start": str,
        "episodes": int,
        "seed": int,
        "return_mean": float,
        "return_std": float,
        "length_mean": float,
        "success_rate": (float, type(None)),
    },
    "tensors": str,
    "date": str,
    "created_with": str,
}
"""What a policy file says about itself."""
STRENGTHS = ("strong", "weak", "ceiling")
FOLDER = Path(__file__).parent / "policies"


@dataclass(frozen=True)
class Score:
    """What a policy reached when it was exported, with the environment's own reward.

    Args:
        start: Start-state distribution of the episodes.
        episodes: How many.
        seed: Root of start states and draws.
        return_mean: Mean return.
        return_std: Its standard deviation over the episodes (of the population).
        length_mean: Mean number of actions.
        success_rate: Share of successful episodes; None where there is no success test.
    """

    start: str
    episodes: int
    seed: int
    return_mean: float
    return_std: float
    length_mean: float
    success_rate: float | None


@dataclass(frozen=True)
class PolicyFile:
    """What a policy file says about itself.

    Args:
        path: The file.
        config: Configuration of the run that learned it, as in its config.json.
        checkpoint: Env steps after which it was saved.
        mode: How it acts: ``greedy`` or ``sampled``.
        command: What trained it.
        score: What it reached.
        tensors: Digest of its tensors.
        date: When it was exported, ISO 8601.
        created_with: Version of this tool.
    """

    path: Path
    config: Mapping[str, Any]
    checkpoint: int
    mode: str
    command: str
    score: Score
    tensors: str
    date: str
    created_with: str

    def to_json(self) -> dict[str, Any]:
        """Return everything but the path, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "path"}

    @property
    def algo(self) -> str:
        """Name of the algorithm."""
        return str(self.config["algo"])

    @property
    def env(self) -> EnvConfig:
        """The environment that it was trained on."""
        return EnvConfig.from_json(self.config["env"], str(self.path))


def is_policy_file(text: str | Path) -> bool:
    """Whether `text` names a policy file, by how it ends."""
    return str(text).endswith(SUFFIX)


def pack(policy: PolicyFile) -> dict[str, str]:
    """Return the metadata of the safetensors file."""
    text = json.dumps({"format": FORMAT_VERSION, **policy.to_json()}, allow_nan=False)
    return {TEXT: text, DIGEST: _sha256(text)}


def read_policy_file(path: Path) -> PolicyFile:
    """Read what a policy file says about itself, without its tensors.

    Raises:
        RlfdError: If it is missing, damaged, or not a policy that was exported.
    """
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # it says why; `safe_open` takes all for missing
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise RlfdError(
            f"there is no policy file {path}", "export one with 'rlfd export RUN --out FILE'"
        ) from error
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error
    text = metadata.get(TEXT)
    if text is None:
        raise RlfdError(
            f"{path} holds tensors but does not say of which policy",
            "give the folder of its run instead, or a file that 'rlfd export' made",
        )
    if metadata.get(DIGEST) != _sha256(text):
        raise damaged(path, "its description is not what was written")
    try:
        content = parse_json(text, FORM)
        version = content.pop("format")
        if version != FORMAT_VERSION:
            raise RlfdError(
                f"policy {path} has format {version}, expected {FORMAT_VERSION}",
                f"it was written by rlfd {content.get('created_with')}; export it again",
            )
        return PolicyFile(path=path, **content | {"score": Score(**content["score"])})
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"its description is incomplete: {error}") from error


def damaged(path: Path, why: object) -> RlfdError:
    """Return the error for a policy file that is not what was written."""
    return RlfdError(
        f"policy {path} cannot be used, it is damaged or was changed ({why})",
        "restore it from a copy, or export it again with 'rlfd export'",
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def strengths(env: str) -> list[str]:
    """Return which policies come with this tool for `env`, of `STRENGTHS`."""
    return [strength for strength in STRENGTHS if _shipped_path(env, strength).is_file()]


def find_shipped(env: str, strength: str = "strong") -> Path:
    """Return the file of the policy that comes with this tool for `env`.

    Raises:
        RlfdError: If there is none; says what there is.
    """
    known = strengths(env)
    if not known:
        envs = ", ".join(dict(list_shipped())) or "no environment"
        raise RlfdError(
            f"no policy for {env} comes with rlfd, expected one of those for {envs}",
            "train an agent and give its run folder as --policy",
        )
    if strength not in known:
        raise unknown_name(f"shipped policy for {env}", strength, known)
    return _shipped_path(env, strength)


def list_shipped() -> list[tuple[str, str]]:
    """Return environment and strength of every policy that comes with this tool."""
    parts = [path.stem.rpartition("-") for path in FOLDER.glob(f"*-*{SUFFIX}")]
    found = [(env, strength) for env, _, strength in parts if strength in STRENGTHS]
    return sorted(found, key=lambda pair: (pair[0], STRENGTHS.index(pair[1])))


def _shipped_path(env: str, strength: str) -> Path:
    return FOLDER / f"{env}-{strength}{SUFFIX}"
