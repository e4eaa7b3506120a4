"""The vector of environments that suits all of them: a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rlfd.envs.registry import make
from rlfd.envs.specs import EnvConfig, Environment
from rlfd.envs.vector import History, Replayed, Step, generator_state
from rlfd.errors import RlfdError

__all__ = ["Loop"]

Array = npt.NDArray[Any]


class Loop:
    """Single environments, one after the other; their episodes are replayed from their resets.

    Args:
        config: The environment.
        num_envs: How many of them.
    """

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        self._envs: list[_ResetRecorder] = []
        for _ in range(num_envs):
            self._envs.append(_ResetRecorder(self._one_more(config, num_envs)))
        inner = self._envs[0].observation_space
        assert isinstance(inner, gymnasium.spaces.Box)  # `make` saw to it
        self.observation_space = inner
        self.action_space: gymnasium.Space[Any] = self._envs[0].action_space
        self.history = History(num_envs)

    def _one_more(self, config: EnvConfig, num_envs: int) -> Environment:
        try:
            return make(config)
        except RlfdError as error:
            made = len(self._envs)
            self.close()
            if not made:
                raise
            raise RlfdError(
                f"{made} of {num_envs} environments could be made, then no more: {error.message}",
                f"if one process can have no more of them, give --num-envs {made}",
            ) from error

    @property
    def environments(self) -> Sequence[Environment]:
        """The environments themselves."""
        return self._envs

    def start(self, seeds: Sequence[int]) -> Array:
        """Reset every environment with a seed of its own."""
        first = [env.reset(seed=seed)[0] for env, seed in zip(self._envs, seeds, strict=True)]
        return np.array(first, self.observation_space.dtype)

    def step(self, actions: Array) -> Step:
        """Act in every environment."""
        count = len(self._envs)
        next_observations = np.empty(
            (count, *self.observation_space.shape), self.observation_space.dtype
        )
        rewards = np.empty(count, np.float64)
        terminated, truncated = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        infos: dict[int, dict[str, Any]] = {}
        for index, env in enumerate(self._envs):
            observation, reward, ends, cut, info = env.step(actions[index])
            next_observations[index] = observation
            rewards[index] = reward
            if ends or cut:
                terminated[index], truncated[index] = ends, not ends
                infos[index] = info
        self.history.append(actions)
        observations = next_observations
        if infos:
            observations = next_observations.copy()
            for index in infos:
                observations[index] = self._envs[index].reset()[0]
            self.history.begin(infos)
        return Step(next_observations, observations, rewards, terminated, truncated, infos)

    def ended_seed(self, index: int) -> int | None:
        """Return the seed of the episode before the running one."""
        return self._envs[index].ended_seed

    def state(self) -> list[dict[str, Any]]:
        """Return how each running episode began, and its actions."""
        return [
            {"seed": env.seed, "generator": env.generator, "actions": actions}
            for env, actions in zip(self._envs, self.history.each(), strict=True)
        ]

    def restore(self, states: Sequence[Mapping[str, Any]]) -> Replayed:
        """Play the running episodes again."""
        replayed = [np.asarray(saved["actions"]) for saved in states]
        observations, returns = [], np.zeros(len(states), np.float64)
        for index, (env, actions) in enumerate(zip(self._envs, replayed, strict=True)):
            observation = env.begin_again(states[index]["seed"], states[index]["generator"])
            for action in actions:
                observation, reward, ends, cut, _ = env.step(action)
                returns[index] += reward if not (ends or cut) else np.nan  # it had not ended
            observations.append(observation)
        self.history.replace(replayed)
        return Replayed(np.array(observations, self.observation_space.dtype), returns)

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs:
            env.close()


class _ResetRecorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Remember how the running episode began: by a seed, or from which generator state."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.seed: int | None = None
        self.ended_seed: int | None = None  # that of the episode before
        self.generator: dict[str, Any] | None = None
        self.step = env.step  # type: ignore[method-assign]  # spares one call in each step

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, after noting seed or generator."""
        self.ended_seed, self.seed = self.seed, seed
        self.generator = None
        if seed is None:
            self.generator = generator_state(self.env.unwrapped.np_random)
        return self.env.reset(seed=seed, options=options)

    def begin_again(self, seed: int | None, generator: dict[str, Any] | None) -> Any:
        """Repeat a reset, and return its observation."""
        if generator is not None:
            self.env.unwrapped.np_random.bit_generator.state = generator
        observation, _ = self.reset(seed=seed)
        return observation
