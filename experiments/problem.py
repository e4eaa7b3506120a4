"""From an environment and demonstrations to what an algorithm is built from."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlfd import algorithms, demos
from rlfd.algorithms.base import (
    ActionSpec,
    Algorithm,
    DemoTensors,
    Needs,
    Oracle,
    Problem,
    TabularModel,
)
from rlfd.algorithms.core.frames import FrameStacks
from rlfd.algorithms.core.networks import convolved_size
from rlfd.demos import Demonstrations, Episode
from rlfd.envs import (
    EnvConfig,
    Table,
    adapter,
    check,
    elsewhere,
    frame_stack,
    names,
    spec,
    table,
    with_options,
)
from rlfd.errors import RlfdError
from rlfd.experiments.config import RunConfig, setting_text
from rlfd.experiments.memory import available_memory
from rlfd.seeding import derive

__all__ = [
    "build_algorithm",
    "build_for_acting",
    "check_support",
    "demo_tensors",
    "env_of_demos",
    "space_differences",
    "tabular_model",
    "variant_for",
]

COPIES = 5
"""Of a network's weights: themselves, a target, a gradient, Adam's two moments."""


def variant_for(algo: str, env: EnvConfig) -> str:
    """Return the name of the algorithm's variant for the environment's kind of actions.

    That is the algorithm itself, unless it was made for other actions and names another one for
    these.
    """
    cls = algorithms.get(algo)
    if not cls.variants:
        return algo
    _, action = _env_spaces(env)
    return cls.variants.get(action.kind, algo)


def env_of_demos(
    text: str,
    algo: str,
    *,
    start: str | None = None,
    reward: str | None = None,
    options: Mapping[str, Any] | None = None,
    form: Mapping[str, Any] | None = None,
    data_dir: Path,
) -> tuple[EnvConfig, str]:
    """Return the environment that demonstrations come from.

    Args:
        text: Name, id or folder of the demonstrations.
        algo: What is to learn from them.
        start: Start instead of theirs.
        reward: Reward instead of theirs.
        options: Options that differ from theirs.
        form: `action_range` or `frame_stack` instead of theirs.
        data_dir: Where demonstrations are.

    Returns:
        The environment, and why it cannot be made here; a method that does not interact learns
        without it then, and nothing is evaluated. Empty where it can.

    Raises:
        RlfdError: If there are no such demonstrations, or the method must interact with an
            environment that cannot be made.
    """
    info = demos.describe(text, data_dir=data_dir)
    try:
        recorded = demos.recorded_env(info, form)
    except RlfdError as error:
        if algorithms.get(algo).needs.interaction:
            raise
        return demos.absent_env(info, form), error.message
    env = elsewhere(recorded, start, reward)
    return check(with_options(env, options or {})), ""


def check_support(algo: str, env: EnvConfig) -> tuple[tuple[int, ...], ActionSpec]:
    """Return observation shape and action space, if the algorithm can handle them.

    Raises:
        RlfdError: If the algorithm was not made for this kind of actions, or not for images; names
            those that were. Or if it plans, and the environment has no table; names those that
            have.
    """
    space, action = _env_spaces(env)
    needs = algorithms.get(algo).needs
    if action.kind not in needs.action_kinds:
        planned = table(env) is not None
        able = [
            name
            for name in algorithms.names()
            if action.kind in algorithms.get(name).needs.action_kinds
            and (planned or not algorithms.get(name).needs.dynamics)
        ]
        raise RlfdError(
            f"'{algo}' needs {' or '.join(sorted(needs.action_kinds))} actions, "
            f"environment '{env.name}' has {action.kind} ones",
            f"algorithms for it: {', '.join(able)}",
        )
    if frame_stack(env) > 0 and not needs.images:
        able = [
            name
            for name in algorithms.names()
            if algorithms.get(name).needs.images
            and action.kind in algorithms.get(name).needs.action_kinds
        ]
        raise RlfdError(
            f"'{algo}' learns from vectors, observations of '{env.name}' are images of shape "
            f"{space.shape}",
            f"algorithms for it: {', '.join(able)}",
        )
    if needs.dynamics and table(env) is None:
        known = [name for name in names() if spec(name).table is not None]
        raise RlfdError(
            f"'{algo}' plans with known dynamics, and nothing is known about those of '{env.name}'",
            f"environments whose table is known: {', '.join(known)}",
        )
    return space.shape, action


def space_differences(theirs: EnvConfig, ours: EnvConfig) -> list[str]:
    """Return what keeps a policy of one environment from acting in the other, in words."""
    (their_space, their_action), (space, action) = _env_spaces(theirs), _env_spaces(ours)
    parts = []
    if their_space.shape != space.shape:
        parts.append(f"observations have shape {their_space.shape} there, {space.shape} here")
    if their_action.kind != action.kind:
        parts.append(f"actions are {their_action.kind} there, {action.kind} here")
    elif their_action.sizes != action.sizes:
        parts.append(f"actions have size {their_action.sizes} there, {action.sizes} here")
    elif their_action != action:
        parts.append("actions have other bounds there")
    return parts


def _env_spaces(env: EnvConfig) -> tuple[spaces.Box, ActionSpec]:
    form = adapter(env)
    return form.observation_space, _action_spec(form.action_space)


def _action_spec(space: gymnasium.Space[Any]) -> ActionSpec:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", tuple(int(n) for n in space.nvec))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_binary", (int(np.prod(space.shape)),))
    assert isinstance(space, spaces.Box)  # the adapter saw to it
    low, high = (tuple(map(float, bound)) for bound in (space.low, space.high))
    return ActionSpec("continuous", (len(low),), low, high)


def demo_tensors(demonstrations: Demonstrations, needs: Needs) -> DemoTensors:
    """Return demonstrations as one algorithm may see them, without what it did not declare.

    Raises:
        RlfdError: If observations are images, and not stacks of frames.
    """
    episodes = demonstrations.episodes
    stack = episodes[0].frame_stack

    def join(arrays: list[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(arrays), dtype=dtype)

    def at_end(flags: list[bool]) -> torch.Tensor:
        rows = [np.arange(episode.length) == episode.length - 1 for episode in episodes]
        return join([row & flag for row, flag in zip(rows, flags, strict=True)], torch.bool)

    whole = not isinstance(demonstrations.action_space, spaces.Box)
    fields: dict[str, torch.Tensor] = {}
    observations: torch.Tensor
    following: torch.Tensor
    if stack > 0:
        observations, following = _frame_stacks(episodes, demonstrations.info.id, stack)
    else:
        observations = join([e.observations[:-1] for e in episodes], torch.float32)
    if "next_observations" in needs.demo_fields:
        if stack == 0:
            following = join([e.observations[1:] for e in episodes], torch.float32)
        fields["next_observations"] = following
    if "rewards" in needs.demo_fields:
        fields["rewards"] = join([e.rewards for e in episodes], torch.float32)
    if "terminated" in needs.demo_fields:
        fields["terminated"] = at_end([e.terminated for e in episodes])
    if "truncated" in needs.demo_fields:
        fields["truncated"] = at_end([e.truncated for e in episodes])
    return DemoTensors(
        observations=observations,
        actions=join([e.actions for e in episodes], torch.int64 if whole else torch.float32),
        episode_ids=join([np.full(e.length, i) for i, e in enumerate(episodes)], torch.int64),
        **fields,
    )


def _frame_stacks(
    episodes: Sequence[Episode], name: str, stack: int
) -> tuple[FrameStacks, FrameStacks]:
    """Return observations and next observations, whose frames are copied once each."""
    shape = episodes[0].observations.shape[1:]
    channels = shape[0] // stack
    lengths = [episode.length for episode in episodes]
    frames = np.empty((sum(lengths) + stack * len(episodes), channels, *shape[1:]), np.uint8)
    first, begin = [], 0
    for index, episode in enumerate(episodes):
        images, length = episode.observations, episode.length
        if not np.array_equal(images[1:, :-channels], images[:-1, channels:]):
            raise RlfdError(
                f"images in demonstrations '{name}' are to be the last {stack} frames, oldest "
                f"first, and those of episode {index} are not",
                "record them through gymnasium.wrappers.FrameStackObservation",
            )
        frames[begin : begin + stack] = images[0].reshape(stack, channels, *shape[1:])
        frames[begin + stack : begin + stack + length] = images[1:, -channels:]
        first.append(begin + np.arange(length))
        begin += stack + length
    kept, rows = torch.from_numpy(frames), torch.from_numpy(np.concatenate(first))
    return FrameStacks(kept, rows, shape, stack), FrameStacks(kept, rows + 1, shape, stack)


def build_algorithm(
    config: RunConfig,
    demonstrations: Demonstrations | None,
    demonstrator: Oracle | None = None,
) -> Algorithm:
    """Build a run's algorithm."""
    tensors = None
    if demonstrations is not None:
        needs = algorithms.get(config.algo).needs
        known = table(config.env) if needs.dynamics else None
        if known is not None:
            _check_states(demonstrations, known)
        tensors = demo_tensors(demonstrations, needs)
    return _build(config, tensors, demonstrator)


def _check_states(demonstrations: Demonstrations, known: Table) -> None:
    """Refuse demonstrations that are not walks through a table, from its first step to its last."""
    clock = np.arange(known.horizon + 1, dtype=np.float32) / known.horizon
    for index, episode in enumerate(demonstrations.episodes):
        states, times = episode.observations[:, :-1], episode.observations[:, -1]
        outside = ~(((states == 0) | (states == 1)).all(axis=1) & (states.sum(axis=1) == 1))
        if outside.any():
            problem = f"step {int(outside.argmax())} is in none of its {states.shape[1]} states"
        elif len(times) != len(clock) or not np.allclose(times, clock, atol=1e-6):
            problem = f"it does not last {known.horizon} steps, counted in its observations"
        else:
            continue
        raise RlfdError(
            f"demonstrations '{demonstrations.info.id}' lie outside the environment's table: of "
            f"episode {index}, {problem}",
            "collect some with 'rlfd collect-demos' in this environment, with these options",
        )


def tabular_model(known: Table) -> TabularModel:
    """Return a table as algorithms may see it: without its reward."""
    transitions, start, features = (
        torch.tensor(values, dtype=torch.float64)
        for values in (known.transitions, known.start, known.features)
    )
    return TabularModel(transitions, start, features, known.horizon)


def build_for_acting(config: RunConfig) -> Algorithm:
    """Build a run's algorithm on the CPU to load a policy into; it cannot learn."""
    config = dataclasses.replace(config, device="cpu", compile="off", num_envs=1, steps=0)
    shape, action = check_support(config.algo, config.env)
    needs = algorithms.get(config.algo).needs
    if not needs.demonstrations:
        return _build(config, None)
    kind = torch.uint8 if frame_stack(config.env) > 0 else torch.float32
    rows = (2,) if action.kind == "discrete" else (2, action.width)
    whole = action.kind != "continuous"
    placeholder = DemoTensors(
        observations=torch.zeros(2, *shape, dtype=kind),
        actions=torch.zeros(rows, dtype=torch.int64 if whole else torch.float32),
        episode_ids=torch.arange(2),
        next_observations=torch.zeros(2, *shape, dtype=kind),
        rewards=torch.tensor([1.0, 2.0]),  # equal ones would teach some methods nothing
        terminated=torch.ones(2, dtype=torch.bool),
        truncated=torch.zeros(2, dtype=torch.bool),
    )
    return _build(config, placeholder)


def _check_fits(config: RunConfig, inputs: int) -> None:
    """Refuse networks and batches that memory cannot hold: torch would try, or the system end it.

    Raises:
        RlfdError: Says which setting, and how much it would need.
    """
    free = available_memory(config.device)
    for field in dataclasses.fields(config.algorithm):
        value = getattr(config.algorithm, field.name)
        if isinstance(value, tuple) and all(isinstance(width, int) for width in value):
            weights = sum(math.prod(pair) for pair in itertools.pairwise((inputs, *value)))
            needed = COPIES * weights
        elif field.name.endswith("batch_size") and isinstance(value, int):
            needed = 2 * value * inputs  # what is observed before and after
        else:
            continue
        needed *= torch.float32.itemsize
        if free is not None and needed > free:
            raise RlfdError(
                f"{field.name}={setting_text(value)} needs {needed / 1e9:,.1f} GB, "
                f"{free / 1e9:.1f} GB are free",
                f"lower it with --set {field.name}=..., or train fewer runs at a time",
            )


def _build(
    config: RunConfig, demonstrations: DemoTensors | None, demonstrator: Oracle | None = None
) -> Algorithm:
    check_support(config.algo, config.env)
    space, action = _env_spaces(config.env)
    images = frame_stack(config.env) > 0
    _check_fits(config, convolved_size(space.shape) if images else math.prod(space.shape))
    known = table(config.env) if algorithms.get(config.algo).needs.dynamics else None
    problem = Problem(
        observation_shape=space.shape,
        action=action,
        demonstrations=demonstrations,
        env_steps=config.steps,
        num_envs=config.num_envs,
        seed=derive(config.seed, "algorithm"),
        device=torch.device(config.device),
        compile=config.compile,
        demonstrator=demonstrator,
        model=None if known is None else tabular_model(known),
        frame_stack=frame_stack(config.env),
        memory_bytes=available_memory(config.device),
    )
    return algorithms.get(config.algo)(problem, config.algorithm)
