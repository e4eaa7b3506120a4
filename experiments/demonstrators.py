"""Who demonstrates: the one place that decides which demonstrator a text means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlfd import demos
from rlfd.demos import Demonstrator
from rlfd.envs import EnvConfig, spec
from rlfd.errors import RlfdError
from rlfd.experiments.evaluate import TrainedPolicy
from rlfd.experiments.problem import space_differences
from rlfd.experiments.shipped import find_policy
from rlfd.seeding import derive

__all__ = ["PolicyDemonstrator", "make_demonstrator"]


def make_demonstrator(
    text: str,
    env: EnvConfig,
    *,
    seed: int,
    runs_dir: Path = Path("runs"),
    checkpoint: str | None = None,
    policy: str | None = None,
) -> Demonstrator:
    """Return the demonstrator that `text` means.

    Args:
        text: ``controller``, ``random``, ``shipped`` or ``shipped:weak`` (a policy that comes with
            this tool), a policy file, or a run.
        env: Where it is to act.
        seed: Root of its draws.
        runs_dir: Where runs are looked for.
        checkpoint: Of a run: ``latest`` (None), ``best`` or a step; an early one is a weak
            demonstrator.
        policy: How a trained policy acts, ``sampled`` or ``greedy``; None = as its algorithm is
            judged, or as its file says.

    Raises:
        RlfdError: If there is none of that name, or it was trained for something else.
    """
    if text in ("controller", "random"):
        if checkpoint is not None or policy is not None:
            raise RlfdError(
                f"--checkpoint, --greedy and --sampled belong to a run, not to '{text}'",
                "leave them out, or give the folder of a run as --policy",
            )
        return demos.make_demonstrator(text, env, seed=seed)
    kind, _, strength = text.partition(":")
    place = demos.find_shipped(env.name, strength or "strong") if kind == "shipped" else text
    try:
        trained = find_policy(place, runs_dir, checkpoint=checkpoint, policy=policy)
    except RlfdError as error:
        if not error.message.startswith("unknown run"):
            raise
        others = ", ".join(demos.policies(env))
        raise RlfdError(
            error.message, f"{error.hint}; without training, there are {others}"
        ) from error
    return PolicyDemonstrator(trained, env, seed=seed)


class PolicyDemonstrator:
    """A trained policy that demonstrates. Each episode draws from a generator of its own.

    Args:
        trained: The policy.
        env: Where it is to act.
        seed: Root of the samples.

    Raises:
        RlfdError: If it was trained on another environment.
    """

    def __init__(self, trained: TrainedPolicy, env: EnvConfig, *, seed: int) -> None:
        _refuse_other_env(trained, env)
        self._trained, self._seed = trained, seed
        self._generators: dict[int, torch.Generator] = {}

    def reset(self, n: int) -> None:
        """Forget all episodes."""
        self._generators = {}

    def act(
        self, observations: npt.NDArray[Any], indices: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Act for the episodes of the given indices."""
        act, greedy = self._trained.algorithm.act, self._trained.mode == "greedy"
        # Row by row: how a matrix product rounds depends on the number of rows, and an episode of
        # continuous actions must not depend on how many others run beside it.
        return np.concatenate(
            [
                act(row[None], greedy=greedy, generator=self._generator(int(index)))
                for row, index in zip(observations, indices, strict=True)
            ]
        )

    def _generator(self, index: int) -> torch.Generator:
        if index not in self._generators:
            seed = derive(self._seed, f"demonstrator episode {index}")
            self._generators[index] = torch.Generator().manual_seed(seed)
        return self._generators[index]

    def describe(self) -> dict[str, Any]:
        """Return what is recorded of the demonstrator."""
        config, mode, file = self._trained.config, self._trained.mode, self._trained.file
        description: dict[str, Any] = {
            "policy": "run" if file is None else "file",
            "name": f"{config.algo}-{mode}" if file is None else _plain(file.path.stem),
            "algo": config.algo,
            "trained_on": config.env.to_json(),
            "exp_name": config.exp_name,
            "run_seed": config.seed,
            "checkpoint": self._trained.checkpoint,
            "mode": mode,
        }
        if file is not None:
            description |= {"digest": file.tensors, "trained_with": file.command}
        return description


def _plain(name: str) -> str:
    """Return `name` as it can be part of a dataset's."""
    return re.sub(r"[^-\w]", "-", name, flags=re.ASCII).lstrip("-")


def _refuse_other_env(trained: TrainedPolicy, env: EnvConfig) -> None:
    """Start and options may differ; the environment and its spaces may not.

    The spaces alone do not tell: HalfCheetah and Walker2d have the same.
    """
    theirs = trained.config.env
    differences = space_differences(theirs, env)
    if spec(theirs.name).gym_id != spec(env.name).gym_id or differences:
        why = f": {'; '.join(differences)}" if differences else ""
        raise RlfdError(
            f"policy {trained.place} was trained on {theirs.name}, it cannot act on "
            f"{env.name}{why}",
            f"give one that was trained on {env.name}",
        )
