"""The vector of environments that a learner acts in."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rlfd.envs.registry import check, make, spec
from rlfd.envs.specs import EnvConfig
from rlfd.errors import RlfdError, RunFailed

__all__ = ["EpisodeRecord", "RewardFunction", "Transitions", "World"]

Array = npt.NDArray[Any]
RewardFunction = Callable[[Array, Array, Array, Array], Array]
"""Observations, actions, next observations and `terminated`, (N, ...) each -> rewards (N,)."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """One step of every environment. All arrays are (N, ...), and nobody writes to them again.

    Args:
        observations: What was acted on.
        actions: What was done.
        rewards: The environment's own, float64.
        learner_rewards: What the learner is to see; the same, unless the world has another.
        next_observations: What came of it: at the end of an episode the true last observation,
            not the first one of the next episode.
        terminated: The task ended, so there is no value to bootstrap from.
        truncated: The episode was cut; never true together with `terminated`.
    """

    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    learner_rewards: npt.NDArray[np.float64]
    next_observations: Array
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """How an episode of a world went.

    Args:
        env_steps: The world's count when it ended.
        env_index: Which environment of the vector played it.
        seed: Seed of its reset; None when it went on with the generator of the episode before.
        episode_return: Sum of the rewards.
        dense_return: Sum of the environment's own dense rewards; the same unless it has another.
        episode_length: Number of actions.
        terminated: Whether the task ended it.
        truncated: Whether it was cut.
        success: The environment's success test, None where there is none.
        landed: For Lunar Lander: came to rest anywhere. None elsewhere.
    """

    env_steps: int
    env_index: int
    seed: int | None
    episode_return: float
    dense_return: float
    episode_length: int
    terminated: bool
    truncated: bool
    success: bool | None
    landed: bool | None


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
        self.generator = None if seed is not None else _generator_state(self.env)
        return self.env.reset(seed=seed, options=options)

    def begin_again(self, seed: int | None, generator: dict[str, Any] | None) -> Any:
        """Repeat a reset, and return its observation."""
        if generator is not None:
            self.env.unwrapped.np_random.bit_generator.state = generator
        observation, _ = self.reset(seed=seed)
        return observation


def _generator_state(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    # A copy down to the bottom: NumPy builds a new dictionary at every read.
    return dict(env.unwrapped.np_random.bit_generator.state)


class World:
    """The only way for an algorithm to interact: `num_envs` environments in lockstep.

    Each step yields exactly `num_envs` valid transitions. An environment whose episode ended is
    reset within the same step; the true last observation is in the transition, the first one of
    the next episode in `observations`.

    A world is saved as the state of each environment's generator at its last reset and the actions
    since then, and restored by replaying them. That is exact for every simulator that is
    deterministic given its generator, and costs as long as the running episodes took to play.

    Args:
        config: The environment.
        num_envs: How many of them.
        seed: Every environment gets its own seed, derived from this one. Worlds of different
            seeds share none, also when the seeds are consecutive numbers.
        learner_reward: What the learner is paid instead of the environment's reward. It must not
            have a state of its own.
    """

    def __init__(
        self,
        config: EnvConfig,
        *,
        num_envs: int,
        seed: int,
        learner_reward: RewardFunction | None = None,
    ) -> None:
        if num_envs < 1:
            raise RlfdError(f"the number of environments must be at least 1, not {num_envs}")
        self.config = check(config)
        self.num_envs = num_envs
        self._learner_reward = learner_reward
        self.env_steps = 0
        self.seconds = 0.0
        self._has_success = spec(self.config.name).has_success
        self._envs = [_ResetRecorder(make(self.config)) for _ in range(num_envs)]
        inner = self._envs[0].observation_space
        assert isinstance(inner, gymnasium.spaces.Box)  # `make` saw to it
        self.observation_space = inner
        self.action_space: gymnasium.Space[Any] = self._envs[0].action_space

        seeds = np.random.SeedSequence(seed).generate_state(num_envs)
        first = [env.reset(seed=int(seed))[0] for env, seed in zip(self._envs, seeds, strict=True)]
        self._check_shape(first[0])
        self.observations: Array = np.array(first, self.observation_space.dtype)
        self._returns = np.zeros(num_envs, np.float64)
        # The actions of all running episodes: one array per step, the oldest ones dropped as soon
        # as no running episode began before them.
        self._actions: deque[Array] = deque()
        self._first_step = 0
        self._begins = np.zeros(num_envs, np.int64)  # step at which each running episode began
        self._steps = 0
        self._finished: list[EpisodeRecord] = []

    def step(self, actions: Array) -> Transitions:
        """Act in every environment.

        Args:
            actions: One action for each environment. Shape (N, ...).

        Raises:
            RunFailed: If an action, an observation or a reward is not finite.
        """
        began = time.perf_counter()
        actions = np.array(actions)  # a copy: the caller may reuse its array
        self._check_finite("action", actions)
        next_observations = np.empty_like(self.observations)
        rewards = np.empty(self.num_envs, np.float64)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        infos: dict[int, dict[str, Any]] = {}  # of the episodes that ended
        for index, env in enumerate(self._envs):
            observation, reward, ends, cut, info = env.step(actions[index])
            next_observations[index] = observation
            rewards[index] = reward
            if ends or cut:
                terminated[index], truncated[index] = ends, not ends
                infos[index] = info
        self._actions.append(actions)
        self._steps += 1
        self.env_steps += self.num_envs
        self._returns += rewards
        self._check_finite("reward", rewards)
        self._check_finite("observation", next_observations)
        observations = next_observations
        if infos:
            observations = next_observations.copy()
            for index in infos:
                observations[index] = self._envs[index].reset()[0]
            self._check_finite("observation", observations)
            self._close_episodes(infos, terminated, truncated)
        learner_rewards = rewards
        if self._learner_reward is not None:
            learner_rewards = self._learner_reward(
                self.observations, actions, next_observations, terminated
            )
            self._check_finite("learned reward", learner_rewards)
        transitions = Transitions(
            observations=self.observations,
            actions=actions,
            rewards=rewards,
            learner_rewards=learner_rewards,
            next_observations=next_observations,
            terminated=terminated,
            truncated=truncated,
        )
        self.observations = observations
        self.seconds += time.perf_counter() - began
        return transitions

    def drain_episodes(self) -> list[EpisodeRecord]:
        """Return the episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as JSON values and arrays."""
        running = np.array(self._actions)  # (T, N, ...)
        envs = [
            {
                "seed": env.seed,
                "generator": env.generator,
                "actions": running[begin - self._first_step :, index].copy()
                if len(running)
                else running,
            }
            for index, (env, begin) in enumerate(zip(self._envs, self._begins, strict=True))
        ]
        return {
            "env": self.config.to_json(),
            "num_envs": self.num_envs,
            "env_steps": self.env_steps,
            "returns": self._returns.copy(),
            "observations": self.observations.copy(),
            "finished": [asdict(record) for record in self._finished],
            "envs": envs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            RlfdError: If `state` belongs to another environment or number of environments, or the
                environment did not do the same again.
        """
        if check(EnvConfig.from_json(state["env"])) != self.config or (
            state["num_envs"] != self.num_envs
        ):
            raise RlfdError(
                f"the saved world has {state['num_envs']} of {state['env']}, "
                f"expected {self.num_envs} of {self.config.to_json()}"
            )
        observations = np.empty_like(self.observations)
        replayed = [np.asarray(saved["actions"]) for saved in state["envs"]]
        for index, (env, saved) in enumerate(zip(self._envs, state["envs"], strict=True)):
            observations[index] = env.begin_again(saved["seed"], saved["generator"])
            for action in replayed[index]:
                observations[index] = env.step(action)[0]
        if not np.array_equal(observations, state["observations"]):
            raise RlfdError(
                f"environment '{self.config.name}' did something else when its actions were "
                "replayed, expected the same observations",
                "it does not draw everything from its own generator, so it cannot be resumed",
            )
        self.observations = observations
        self.env_steps = int(state["env_steps"])
        self._returns = np.array(state["returns"], np.float64)
        self._finished = [
            # a state of a version without other rewards has no dense return
            EpisodeRecord(**{"dense_return": record["episode_return"], **record})
            for record in state["finished"]
        ]
        self._rebuild_actions(replayed)

    def _rebuild_actions(self, replayed: list[Array]) -> None:
        """Lay the running episodes' actions side by side again, all ending now."""
        lengths = [len(actions) for actions in replayed]
        self._steps = max(lengths)
        self._first_step = 0
        self._begins = np.array([self._steps - length for length in lengths], np.int64)
        longest = replayed[int(np.argmax(lengths))]
        table = np.zeros((self._steps, self.num_envs, *longest.shape[1:]), longest.dtype)
        for index, actions in enumerate(replayed):
            if len(actions):
                table[self._begins[index] :, index] = actions
        self._actions = deque(table)

    def _close_episodes(
        self,
        infos: Mapping[int, Mapping[str, Any]],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
    ) -> None:
        for index, info in infos.items():
            episode_return = float(self._returns[index])
            self._finished.append(
                EpisodeRecord(
                    env_steps=self.env_steps,
                    env_index=index,
                    seed=self._envs[index].ended_seed,
                    episode_return=episode_return,
                    dense_return=float(info.get("dense_return", episode_return)),
                    episode_length=int(self._steps - self._begins[index]),
                    terminated=bool(terminated[index]),
                    truncated=bool(truncated[index]),
                    success=bool(info["success"]) if self._has_success else None,
                    landed=bool(info["landed"]) if "landed" in info else None,
                )
            )
            self._returns[index] = 0.0
            self._begins[index] = self._steps
        oldest = int(self._begins.min())
        while self._first_step < oldest:
            self._actions.popleft()
            self._first_step += 1

    def _check_shape(self, observation: Any) -> None:
        expected, found = self.observation_space.shape, np.shape(observation)
        if found != expected:
            raise RlfdError(
                f"environment '{self.config.name}' returned an observation of shape {found}, its "
                f"observation space says {expected}"
            )

    def _check_finite(self, what: str, values: Array) -> None:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        rows = np.flatnonzero(~np.isfinite(values).reshape(self.num_envs, -1).all(axis=1))
        who = "was given an action" if what == "action" else f"returned a {what}"
        raise RunFailed(
            f"environment '{self.config.name}' {who} that is not a finite number, in environment "
            f"{rows[0]} of {self.num_envs} at env step {self.env_steps}"
        )
