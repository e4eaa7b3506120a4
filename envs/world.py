"""The vector of environments that a learner acts in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlfd.envs.guest import outcome
from rlfd.envs.loop import Loop
from rlfd.envs.registry import check, learner_rewards, spec
from rlfd.envs.robots import Robots, judged_together
from rlfd.envs.specs import EnvConfig, Environment
from rlfd.envs.vector import Vector
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


class World:
    """The only way for an algorithm to interact: `num_envs` environments in lockstep.

    Each step yields exactly `num_envs` valid transitions. An environment whose episode ended is
    reset within the same step; the true last observation is in the transition, the first one of
    the next episode in `observations`.

    A world is saved as the state of each environment's generator at a reset and the actions since
    then, and restored by replaying them. That is exact for every simulator that is deterministic
    given its generator, and costs as long as those actions took to play.

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
        made = spec(self.config.name).vector or (Robots if judged_together(config) else Loop)
        self._vector: Vector = made(self.config, num_envs)
        self.observation_space = self._vector.observation_space
        self.action_space = self._vector.action_space
        self.observations: Array
        self._finished: list[EpisodeRecord] = []
        self._seed = seed
        try:
            self._begin(np.random.SeedSequence(seed))
        except BaseException:
            self.close()
            raise

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
        step = self._vector.step(actions)
        self.env_steps += self.num_envs
        self._returns += step.rewards
        self._lengths += 1
        self._check_finite("reward", step.rewards)
        self._check_finite("observation", step.next_observations)
        if step.infos:
            self._check_finite("observation", step.observations)
            self._close_episodes(step.infos, step.terminated, step.truncated)
        if self._learner_reward is None:
            paid = learner_rewards(self.config, step.rewards)
        else:
            paid = self._learner_reward(
                self.observations, actions, step.next_observations, step.terminated
            )
            self._check_finite("learned reward", paid)
        transitions = Transitions(
            observations=self.observations,
            actions=actions,
            rewards=step.rewards,
            learner_rewards=paid,
            next_observations=step.next_observations,
            terminated=step.terminated,
            truncated=step.truncated,
        )
        self.observations = step.observations
        self.seconds += time.perf_counter() - began
        return transitions

    def drain_episodes(self) -> list[EpisodeRecord]:
        """Return the episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Release the environments."""
        self._vector.close()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as JSON values and arrays."""
        return {
            "env": self.config.to_json(),
            "num_envs": self.num_envs,
            "env_steps": self.env_steps,
            "returns": self._returns.copy(),
            "observations": self.observations.copy(),
            "finished": [asdict(record) for record in self._finished],
            "lengths": self._lengths.copy(),
            "envs": self._vector.state(),
        }

    @contextlib.contextmanager
    def lend(self) -> Iterator[Environment]:
        """Lend an environment of which there cannot be two; its episode is replayed afterwards."""
        assert isinstance(self._vector, Loop)  # environments of our own can be made at any time
        assert self.num_envs == 1
        state = self.state_dict()
        try:
            yield self._vector.environments[0]
        finally:
            self.load_state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Continue where `state` was taken.

        Args:
            state: What `state_dict` returned.
            fresh: Begin new episodes instead of replaying those that were running.

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
        self.env_steps = int(state["env_steps"])
        if fresh:
            seeds = np.random.SeedSequence([self._seed, self.env_steps])
            self._begin(seeds)
        else:
            self._replay(state)
        self._finished = [
            # a state of a version without other rewards has no dense return
            EpisodeRecord(**{"dense_return": record["episode_return"], **record})
            for record in state["finished"]
        ]

    def _begin(self, seeds: np.random.SeedSequence) -> None:
        """Begin an episode in every environment."""
        drawn = seeds.generate_state(self.num_envs)
        self.observations = self._vector.start([int(seed) for seed in drawn])
        self._returns = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def _replay(self, state: Mapping[str, Any]) -> None:
        """Play the running episodes again, and compare what comes of it."""
        replayed, returns = self._vector.restore(state["envs"]), np.array(state["returns"])
        same = {
            "observations": np.array_equal(replayed.observations, state["observations"]),
            "rewards": replayed.returns is None or np.array_equal(replayed.returns, returns),
        }
        if not all(same.values()):
            others = " and ".join(name for name, equal in same.items() if not equal)
            raise RlfdError(
                f"environment '{self.config.name}' did something else when its actions were "
                f"replayed: its {others} were others",
                "it does not draw everything from the generator that its reset seeds, so it cannot "
                "be continued exactly; --resume --fresh-resets begins its episodes anew",
            )
        self.observations = replayed.observations
        self._returns = np.array(returns, np.float64)
        # a state of a version that replayed nothing but the running episodes has no lengths
        lengths = state.get("lengths", [len(saved["actions"]) for saved in state["envs"]])
        self._lengths = np.array(lengths, np.int64)

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
                    seed=self._vector.ended_seed(index),
                    episode_return=episode_return,
                    dense_return=float(info.get("dense_return", episode_return)),
                    episode_length=int(self._lengths[index]),
                    terminated=bool(terminated[index]),
                    truncated=bool(truncated[index]),
                    success=outcome(info),
                    landed=bool(info["landed"]) if "landed" in info else None,
                )
            )
            self._returns[index] = 0.0
            self._lengths[index] = 0

    def _check_finite(self, what: str, values: Array) -> None:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        rows = np.flatnonzero(~np.isfinite(values).reshape(self.num_envs, -1).all(axis=1))
        who = "was given an action" if what == "action" else f"returned a {what}"
        raise RunFailed(
            f"environment '{self.config.name}' {who} that is not a finite number, in environment "
            f"{rows[0]} of {self.num_envs} at env step {self.env_steps}"
        )
