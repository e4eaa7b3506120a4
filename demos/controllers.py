"""Demonstrators that need no training, and the noise that spoils any demonstrator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd.demos import driving, pong
from rlfd.demos.shipped import strengths
from rlfd.envs import EnvConfig, Table, check, make, names, noop, spec, table
from rlfd.envs.tabular import decode, soft_policy
from rlfd.errors import RlfdError, unknown_name

__all__ = [
    "Answering",
    "Demonstrator",
    "Idle",
    "Noisy",
    "Shaky",
    "default_demonstrator",
    "make_demonstrator",
    "policies",
]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

RANDOM_STREAM, NOISE_STREAM, ACTION_NOISE_STREAM = 0xD1CE, 0x0153, 0xACE5  # uses of one seed
NOOP_STREAM, PLANNER_STREAM = 0x1D7E, 0x50F7


class Demonstrator(Protocol):
    """Whoever acts while demonstrations are collected.

    What it answers for an episode may depend on the observations and the index of that episode, not
    on which others are in the batch; a random one therefore draws from one generator per index.

    Attributes:
        sees_states: It is shown states of the simulator (`EnvSpec.state`) in place of observations.
    """

    sees_states: bool

    def reset(self, n: int) -> None:
        """Get ready for at most `n` new episodes, with the indices 0 to n - 1."""

    def act(self, observations: Array, indices: Indices) -> Array:
        """Return one action for each row; `indices` says which episode a row belongs to."""

    def describe(self) -> dict[str, Any]:
        """Return what the dataset notes about it, as JSON values; at least ``policy``."""


@runtime_checkable
class Answering(Demonstrator, Protocol):
    """A demonstrator that can be asked about any observation, whoever came upon it."""

    def answer(self, observations: Array) -> Array:
        """Return its most likely action for each row."""


class _Controller:
    """A rule that needs nothing but the observation, or the state."""

    def __init__(self, rule: Callable[[Array], Array], source: str, sees_states: bool) -> None:
        self._rule = rule
        self._source = source
        self.sees_states = sees_states

    def reset(self, n: int) -> None:
        """Do nothing: there is nothing to forget."""

    def act(self, observations: Array, indices: Indices) -> Array:
        """Apply the rule."""
        return self.answer(observations)

    def answer(self, observations: Array) -> Array:
        """Apply the rule."""
        return self._rule(observations)

    def describe(self) -> dict[str, Any]:
        """Return the kind of policy and its source."""
        return {"policy": "controller", "source": self._source}


class _Samplers:
    """One generator, inside a copy of the action space, for each episode."""

    def __init__(self, space: spaces.Space[Any], stream: int, seed: int) -> None:
        self._space = space
        self._key = (stream, seed)
        self._copies: dict[int, spaces.Space[Any]] = {}

    def __getitem__(self, index: int) -> spaces.Space[Any]:
        if index not in self._copies:
            sampler = copy.deepcopy(self._space)
            entropy = np.random.SeedSequence([*self._key, index])
            sampler.seed(int(entropy.generate_state(1)[0]))
            self._copies[index] = sampler
        return self._copies[index]

    def clear(self) -> None:
        self._copies.clear()


class _Generators:
    """One generator for each episode."""

    def __init__(self, stream: int, seed: int) -> None:
        self._key = (stream, seed)
        self._made: dict[int, np.random.Generator] = {}

    def __getitem__(self, index: int) -> np.random.Generator:
        if index not in self._made:
            self._made[index] = np.random.default_rng([*self._key, index])
        return self._made[index]

    def clear(self) -> None:
        self._made.clear()


class _Random:
    """Uniform actions."""

    sees_states = False

    def __init__(self, space: spaces.Space[Any], seed: int) -> None:
        self._samplers = _Samplers(space, RANDOM_STREAM, seed)

    def reset(self, n: int) -> None:
        """Begin every generator anew."""
        self._samplers.clear()

    def act(self, observations: Array, indices: Indices) -> Array:
        """Draw an action for each row."""
        return np.array([self._samplers[int(index)].sample() for index in indices])

    def describe(self) -> dict[str, Any]:
        """Return the kind of policy."""
        return {"policy": "random"}


class _Planner:
    """The best policy of a known finite environment, where entropy counts as much as reward."""

    sees_states = False

    def __init__(self, known: Table, seed: int) -> None:
        self._horizon = known.horizon
        policy = soft_policy(known)  # (T, S, A)
        self._bounds, self._most_likely = policy.cumsum(axis=2), policy.argmax(axis=2)
        self._generators = _Generators(PLANNER_STREAM, seed)

    def reset(self, n: int) -> None:
        """Begin every generator anew."""
        self._generators.clear()

    def act(self, observations: Array, indices: Indices) -> Array:
        """Draw an action for each row."""
        states, steps = decode(observations, self._horizon)
        draws = np.array([self._generators[int(index)].random() for index in indices])
        actions: Array = (self._bounds[steps, states, :-1] <= draws[:, None]).sum(axis=1)
        return actions

    def answer(self, observations: Array) -> Array:
        """Return the most likely action for each row."""
        states, steps = decode(observations, self._horizon)
        actions: Array = self._most_likely[steps, states]
        return actions

    def describe(self) -> dict[str, Any]:
        """Return the kind of policy and what it is."""
        return {"policy": "controller", "source": "maximum causal entropy, with the true reward"}


class Noisy:
    """Another demonstrator, with a random action in its place now and then.

    Args:
        inner: Who acts otherwise.
        probability: Of a random action, for each step. In [0, 1].
        space: The action space.
        seed: Of the noise.
    """

    def __init__(
        self, inner: Demonstrator, probability: float, space: spaces.Space[Any], seed: int
    ) -> None:
        if not 0.0 <= probability <= 1.0:
            raise RlfdError(f"noise must be a probability from 0 to 1, not {probability:g}")
        self._inner, self.sees_states = inner, inner.sees_states
        self._probability = probability
        self._samplers = _Samplers(space, NOISE_STREAM, seed)

    def reset(self, n: int) -> None:
        """Begin every generator anew."""
        self._inner.reset(n)
        self._samplers.clear()

    def act(self, observations: Array, indices: Indices) -> Array:
        """Act as the other one does, and exchange some of the actions."""
        actions = np.array(self._inner.act(observations, indices))
        for row, index in enumerate(indices):
            sampler = self._samplers[int(index)]
            if sampler.np_random.random() < self._probability:
                actions[row] = sampler.sample()
        return actions

    def describe(self) -> dict[str, Any]:
        """Return the other one's description and the noise."""
        return {**self._inner.describe(), "noise": self._probability}


class Idle:
    """Another demonstrator that does nothing now and then.

    Random actions in its place are wrong in every direction alike; doing nothing is wrong in one,
    so that no number of demonstrations averages it out.

    Args:
        inner: Who acts otherwise.
        probability: Of doing nothing, for each step. In [0, 1].
        env: The environment, which says what doing nothing is.
        space: Its action space.
        seed: Of the draws.

    Raises:
        RlfdError: If the environment has no such action.
    """

    def __init__(
        self,
        inner: Demonstrator,
        probability: float,
        env: EnvConfig,
        space: spaces.Space[Any],
        seed: int,
    ) -> None:
        if not 0.0 <= probability <= 1.0:
            raise RlfdError(f"noop must be a probability from 0 to 1, not {probability:g}")
        self._inner, self._probability = inner, probability
        self.sees_states = inner.sees_states
        self._nothing = _nothing(env, space)
        self._generators = _Generators(NOOP_STREAM, seed)

    def reset(self, n: int) -> None:
        """Begin every generator anew."""
        self._inner.reset(n)
        self._generators.clear()

    def act(self, observations: Array, indices: Indices) -> Array:
        """Act as the other one does, and leave some of the actions out."""
        actions = np.array(self._inner.act(observations, indices))
        draws = np.array([self._generators[int(index)].random() for index in indices])
        actions[draws < self._probability] = self._nothing
        return actions

    def describe(self) -> dict[str, Any]:
        """Return the other one's description and how often nothing is done."""
        return {**self._inner.describe(), "noop": self._probability}


def _nothing(env: EnvConfig, space: spaces.Space[Any]) -> Array:
    """Return the action that does nothing."""
    if isinstance(space, spaces.Box):
        zeros = np.zeros(space.shape, space.dtype)
        if space.contains(zeros):
            return zeros
    elif (nothing := noop(env)) is not None:
        return np.array(nothing)
    having = [name for name in names() if spec(name).noop is not None]
    having = [name for name in having if spec(name).vector is None] + ["Atari games"]
    raise RlfdError(
        f"{env.name} has no action that does nothing",
        f"use --noise; --noop is for {', '.join(having)}, and for continuous actions that can be 0",
    )


class Shaky:
    """Another demonstrator, with Gaussian noise on its continuous actions, clipped to the bounds.

    Args:
        inner: Whose actions are disturbed.
        std: Standard deviation, in units of half the range of each action. Not negative.
        space: The action space; it must be bounded.
        seed: Of the noise.
    """

    def __init__(
        self, inner: Demonstrator, std: float, space: spaces.Space[Any], seed: int
    ) -> None:
        if not 0.0 <= std < np.inf:
            raise RlfdError(f"action noise must be at least 0, not {std:g}")
        if not isinstance(space, spaces.Box) or not space.is_bounded():
            raise RlfdError(
                f"action noise is for continuous actions with bounds, these are {space}",
                "take random actions now and then with --noise instead",
            )
        self._inner, self._std, self._space = inner, std, space
        self.sees_states = inner.sees_states
        self._generators = _Generators(ACTION_NOISE_STREAM, seed)

    def reset(self, n: int) -> None:
        """Begin every generator anew."""
        self._inner.reset(n)
        self._generators.clear()

    def act(self, observations: Array, indices: Indices) -> Array:
        """Act as the other one does, and disturb the actions."""
        space = self._space
        actions = np.asarray(self._inner.act(observations, indices), np.float64)
        half_range = 0.5 * (space.high.astype(np.float64) - space.low)
        noise = [self._generators[int(index)].standard_normal(space.shape) for index in indices]
        disturbed = actions + self._std * half_range * np.array(noise)
        return np.clip(disturbed, space.low, space.high).astype(space.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the other one's description and the noise."""
        return {**self._inner.describe(), "action_noise": self._std}


def default_demonstrator(env: str) -> str | None:
    """Return who demonstrates in `env` when nobody is named; None if there is nobody.

    A trained policy goes before a controller: what it does can be learned from what it saw.
    """
    if "strong" in strengths(env):
        return "shipped"
    return "controller" if spec(env).controller else None


def policies(env: EnvConfig) -> list[str]:
    """Return the names of the demonstrators that exist for `env`, the default one first."""
    called = {"strong": "shipped"}
    shipped = [called.get(name, f"shipped:{name}") for name in strengths(env.name)]
    own = ["controller"] if spec(env.name).controller else []
    return [*(shipped + own if "shipped" in shipped else own + shipped), "random"]


def make_demonstrator(policy: str, env: EnvConfig, *, seed: int) -> Demonstrator:
    """Return the demonstrator called `policy` for `env`, one that needs no training.

    Raises:
        RlfdError: If `env` has no such demonstrator.
    """
    env = check(env)
    known = table(env)
    if policy == "controller" and env.name not in _CONTROLLERS and known is None:
        raise RlfdError(
            f"there is no controller for {env.name}, known are {', '.join(policies(env))}",
            "train an agent and give its run folder as --policy",
        )
    if policy not in ("controller", "random"):
        raise unknown_name("demonstrator", policy, policies(env))
    if policy == "random":
        made = make(env)
        space = made.action_space
        made.close()
        return _Random(space, seed)
    if known is not None:
        return _Planner(known, seed)
    for option, value in _ONLY_WITH.get(env.name, {}).items():
        if env.options[option] != value:
            raise RlfdError(
                f"the controller of {env.name} plays with {option}={value}, not with "
                f"{option}={env.options[option]}",
                f"leave out --env-option {option}, or give a trained run as --policy",
            )
    rule, source = _CONTROLLERS[env.name]
    return _Controller(rule, source, sees_states=spec(env.name).state is not None)


def _lunar_lander(observations: Array) -> Array:
    heuristic = _gymnasium_heuristic()
    return np.array([heuristic(_DISCRETE, row) for row in observations], np.int64)


def _lunar_lander_continuous(observations: Array) -> Array:
    heuristic = _gymnasium_heuristic()
    return np.array([heuristic(_CONTINUOUS, row) for row in observations], np.float32)


def _lunar_lander_6(observations: Array) -> Array:
    """Turn the continuous controller's two engine commands into the nearest of the six actions."""
    heuristic = _gymnasium_heuristic()
    commands = np.array([heuristic(_CONTINUOUS, row) for row in observations])
    main = commands[:, 0] > 0.0  # the engine is off below
    side = np.where(np.abs(commands[:, 1]) > 0.5, np.sign(commands[:, 1]), 0.0)  # off between
    return (3 * main + 1 + side).astype(np.int64)


def _lunar_lander_multi(observations: Array) -> Array:
    """Take the six actions apart into main engine and side engines."""
    return np.stack(np.divmod(_lunar_lander_6(observations), 3), axis=-1)


def _gymnasium_heuristic() -> Callable[[Any, Array], Any]:
    from gymnasium.envs.box2d import lunar_lander  # loads Box2D, so not before it is needed

    heuristic: Callable[[Any, Array], Any] = lunar_lander.heuristic
    return heuristic


def _cart_pole(observations: Array) -> Array:
    """Push towards where the pole falls, leaning a little against the cart's drift."""
    weights = np.array([0.1, 0.3, 3.0, 1.0])  # x, x', angle, angle'
    actions: Array = (observations @ weights > 0.0).astype(np.int64)
    return actions


def _mountain_car(observations: Array) -> Array:
    """Push the way the car rolls, which takes it a little higher with every swing."""
    actions: Array = np.where(observations[:, 1] >= 0.0, 2, 0).astype(np.int64)
    return actions


# Gymnasium's function asks its environment for nothing but the kind of actions.
_DISCRETE = SimpleNamespace(unwrapped=SimpleNamespace(continuous=False))
_CONTINUOUS = SimpleNamespace(unwrapped=SimpleNamespace(continuous=True))

_CONTROLLERS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "LunarLander": (_lunar_lander, "gymnasium.envs.box2d.lunar_lander.heuristic"),
    "LunarLanderContinuous": (
        _lunar_lander_continuous,
        "gymnasium.envs.box2d.lunar_lander.heuristic, continuous",
    ),
    "LunarLander6": (
        _lunar_lander_6,
        "gymnasium.envs.box2d.lunar_lander.heuristic, continuous, rounded to six actions",
    ),
    "LunarLanderMulti": (
        _lunar_lander_multi,
        "gymnasium.envs.box2d.lunar_lander.heuristic, continuous, rounded to two choices",
    ),
    "LunarLanderSingle": (_lunar_lander, "gymnasium.envs.box2d.lunar_lander.heuristic"),
    "CarRacing": (driving.five_actions, "follows the track by the simulator's state"),
    "CarRacing3": (driving.three_actions, "follows the track by the simulator's state"),
    "CarRacingContinuous": (driving.continuous, "follows the track by the simulator's state"),
    "CartPole": (_cart_pole, "linear in position, angle and their speeds"),
    "MountainCar": (_mountain_car, "pushes the way the car rolls"),
    "Pong": (pong.play, "foretells where the ball arrives from the last four frames"),
}

_ONLY_WITH = {"Pong": pong.OPTIONS}
