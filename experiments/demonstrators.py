"""Who demonstrates: the one place that decides which demonstrator a text means."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlfd import algorithms, demos
from rlfd.demos import Answering, Demonstrator
from rlfd.envs import EnvConfig, check, spec
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint as checkpoints
from rlfd.experiments.config import RunConfig
from rlfd.experiments.evaluate import TrainedPolicy
from rlfd.experiments.initial_policy import relative_place, split_reference
from rlfd.experiments.problem import space_differences
from rlfd.experiments.shipped import find_policy
from rlfd.seeding import derive

__all__ = ["AskedDemonstrator", "PolicyDemonstrator", "ask", "make_demonstrator"]

Array = npt.NDArray[Any]


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
        self.sees_states = False
        self.trained, self._seed = trained, seed
        self._generators: dict[int, torch.Generator] = {}

    def reset(self, n: int) -> None:
        """Forget all episodes."""
        self._generators = {}

    def act(
        self, observations: npt.NDArray[Any], indices: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Act for the episodes of the given indices."""
        act, greedy = self.trained.algorithm.act, self.trained.mode == "greedy"
        # Row by row: how a matrix product rounds depends on the number of rows, and an episode of
        # continuous actions must not depend on how many others run beside it.
        return np.concatenate(
            [
                act(row[None], greedy=greedy, generator=self._generator(int(index)))
                for row, index in zip(observations, indices, strict=True)
            ]
        )

    def answer(self, observations: Array) -> Array:
        """Return the most likely actions, whatever its mode is."""
        act = self.trained.algorithm.act
        return np.concatenate([act(row[None], greedy=True) for row in observations])

    def _generator(self, index: int) -> torch.Generator:
        if index not in self._generators:
            seed = derive(self._seed, f"demonstrator episode {index}")
            self._generators[index] = torch.Generator().manual_seed(seed)
        return self._generators[index]

    def describe(self) -> dict[str, Any]:
        """Return what is recorded of the demonstrator."""
        config, mode, file = self.trained.config, self.trained.mode, self.trained.file
        description: dict[str, Any] = {
            "policy": "run" if file is None else "file",
            "name": f"{config.algo}-{mode}" if file is None else _plain(file.path.stem),
            "algo": config.algo,
            "trained_on": config.env.to_json(),
            "exp_name": config.exp_name,
            "run_seed": config.seed,
            "checkpoint": self.trained.checkpoint,
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
    why = f": {'; '.join(differences)}" if differences else ""
    if spec(theirs.name).gym_id != spec(env.name).gym_id:
        raise RlfdError(
            f"policy {trained.place} was trained on {theirs.name}, it cannot act on "
            f"{env.name}{why}",
            f"give one that was trained on {env.name}",
        )
    if differences:
        raise RlfdError(
            f"policy {trained.place} was trained with other options of {env.name}{why}",
            "leave the options out, or give a policy that was trained with them",
        )


class AskedDemonstrator:
    """A demonstrator that says what it would do, its most likely action, and counts the questions.

    Args:
        name: What names it for good.
        record: What run.json says of it.
        answer: Observations to actions, both in the environment's units.
    """

    def __init__(self, name: str, record: dict[str, Any], answer: Callable[[Array], Array]) -> None:
        self.name, self.record, self._answer = name, record, answer
        self.queries = 0

    def label(self, observations: Array) -> Array:
        """Answer for every row."""
        self.queries += len(observations)
        return self._answer(observations)


def ask(config: RunConfig, runs_dir: Path, data_dir: Path) -> AskedDemonstrator | None:
    """Return who is asked in a run, None for a method that asks nobody.

    Raises:
        RlfdError: If there is nobody to ask, or who was named cannot answer in this environment.
    """
    env, text = config.env, config.demonstrator
    if not algorithms.get(config.algo).needs.demonstrator:
        if text is not None:
            able = [name for name in algorithms.names() if algorithms.get(name).needs.demonstrator]
            raise RlfdError(
                f"'{config.algo}' asks no demonstrator",
                f"drop --demonstrator; methods that ask: {', '.join(able)}",
            )
        return None
    text = text or demos.default_demonstrator(env.name)
    if text is None:
        raise RlfdError(
            f"'{config.algo}' needs a demonstrator to ask, and none comes with '{env.name}'",
            "train one, then name its run or its exported file with --demonstrator",
        )
    known = ", ".join(name for name in demos.policies(env) if name != "random") or "none"
    others = f"those that can be asked here: {known}, a policy file, RUN[:CHECKPOINT]"
    if text == "random":
        raise RlfdError("a random policy has no most likely action to label states with", others)
    _refuse_dataset(text, data_dir, runs_dir, others)
    name, checkpoint = text, None
    if not text.startswith("shipped") and not demos.is_policy_file(text):
        name, found = split_reference(text)
        checkpoint = found if name != text else None
    try:
        found_one = make_demonstrator(
            name, env, seed=config.seed, runs_dir=runs_dir, checkpoint=checkpoint
        )
    except RlfdError as error:
        raise RlfdError(error.message, others) from error
    if found_one.sees_states:
        raise RlfdError(
            f"the controller of '{env.name}' acts on the simulator's state, it cannot be asked "
            "about observations",
            "train a policy, then name its run or its exported file with --demonstrator",
        )
    assert isinstance(found_one, Answering)  # all but random ones, which were refused, do
    if not isinstance(found_one, PolicyDemonstrator):
        return AskedDemonstrator(text, found_one.describe(), found_one.answer)
    trained = found_one.trained
    _refuse_other_preprocessing(trained, env)
    if trained.file is None:
        text = f"{relative_place(trained.place, runs_dir)}:{trained.checkpoint}"
    record = found_one.describe() | {
        "mode": "greedy",
        "digest": checkpoints.policy_digest(trained.algorithm.policy_state()),
    }
    return AskedDemonstrator(text.removesuffix(":strong"), record, found_one.answer)


def _refuse_dataset(text: str, data_dir: Path, runs_dir: Path, others: str) -> None:
    if (runs_dir / text).exists() or text in ("controller", "shipped"):
        return
    try:
        info = demos.describe(text, data_dir=data_dir)
    except RlfdError:
        return
    raise RlfdError(
        f"'{info.id}' is a set of demonstrations: it holds what was done and cannot be asked what "
        "would be done elsewhere",
        others,
    )


def _refuse_other_preprocessing(trained: TrainedPolicy, env: EnvConfig) -> None:
    """Options of start and reward may differ; any other changes what observations mean."""
    rules = spec(env.name).option_rules

    def kept(config: EnvConfig) -> dict[str, Any]:
        options = check(config).options.items()
        return {
            name: value
            for name, value in options
            if name not in rules or not (rules[name].starts or rules[name].rewards)
        }

    theirs, ours = kept(trained.config.env), kept(env)
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise RlfdError(
                f"policy {trained.place} cannot be asked about observations of {env.name}: option "
                f"'{name}' is {theirs.get(name)!r} there, {ours.get(name)!r} here",
                "give one that was trained with the same options",
            )
