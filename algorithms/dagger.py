"""DAgger: the demonstrator labels the states that the learner visits.

Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret
Online Learning" (2011), arXiv 1011.0686. A clone drifts to states that its demonstrator never saw,
where nothing tells it what to do: its cost grows with T². Asked there, the demonstrator says it:

    π_i^roll = β_i π_E + (1 - β_i) π̂_i                          whose states are visited in round i
    D ← D ∪ {(s, π_E(s)) : s visited by π_i^roll}               labels everywhere, whoever acted
    π̂_{i+1} = behavioural cloning on all of D                   `bc`, unchanged

    β_i = [i = 0] (first),   max(0, 1 - i/K) (linear),   p^i (exponential)

and the learner's loss is small under its own distribution, its cost linear in T. Given
demonstrations take the place of round 0.

Departures from the paper:
* An iteration is a round of at least `batch_steps` steps and `min_episodes` ends of episodes, in N
  environments. Episodes that are not over go on in the next round, with the policy that it has.
* The learner acts greedily (`rollout_policy`), the way it is judged.
* Between rounds the policy keeps its weights and makes some passes over D (fit=warm); fit=scratch
  begins anew in each round and stops early on held-out episodes, as `bc` does.
* The paper returns the best π̂_i on validation: that is the run's `best` checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    LabelledEpisode,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    TransitionBatch,
    World,
    hyper,
)
from rlfd.algorithms.bc import BC, BCConfig
from rlfd.algorithms.core.visits import Visits
from rlfd.algorithms.registry import register
from rlfd.seeding import derive

__all__ = ["DAgger", "DAggerConfig"]


@dataclass(frozen=True, kw_only=True)
class DAggerConfig(BCConfig):
    """Hyperparameters of DAgger, besides those of behavioural cloning."""

    readers: ClassVar[Readers] = {
        "schedule": {"first": (), "linear": ("linear_rounds",), "exponential": ("decay",)},
        "fit": {
            "warm": ("round_epochs",),
            "scratch": ("max_epochs", "patience", "min_delta", "min_updates"),
        },
    }

    schedule: Literal["first", "linear", "exponential"] = hyper(
        "first", "β_i: 1 in round 0 only, falling to 0 on a line, or powers of a number"
    )
    linear_rounds: int = hyper(15, "K, round from which β is 0 (schedule=linear)", low=1)
    decay: float = hyper(0.7, "p, β of round i is p^i (schedule=exponential)", low=0, high=1)
    mixing: Literal["steps", "episodes"] = hyper(
        "steps", "how often it is drawn who acts: at every step, or once for an episode"
    )
    rollout_policy: Literal["greedy", "sampled"] = hyper("greedy", "how the learner acts")
    batch_steps: int = hyper(2_000, "env steps of a round over all environments, at least", low=2)
    min_episodes: int = hyper(5, "episodes that end in a round, at least", low=0)
    fit: Literal["warm", "scratch"] = hyper(
        "warm", "cloning goes on from the last round's weights, or begins anew and stops early"
    )
    round_epochs: int = hyper(5, "passes over D per round (fit=warm)", low=1)

    def beta(self, round_: int) -> float:
        """Return β_i, the probability that the demonstrator acts in round i = 0, 1, ..."""
        if self.schedule == "first":
            return float(round_ == 0)
        if self.schedule == "linear":
            return max(0.0, 1.0 - round_ / self.linear_rounds)
        return float(self.decay**round_)


@register
class DAgger(Algorithm):
    """Dataset aggregation."""

    name = "dagger"
    title = "A Reduction of Imitation Learning to No-Regret Online Learning (Ross et al., 2011)"
    summary = "cloning of what a demonstrator, asked there, would do in the learner's own states"
    Config = DAggerConfig
    needs = Needs(
        demonstrations=False,
        reward=False,
        interaction=True,
        action_kinds=BC.needs.action_kinds,
        optional_demonstrations=True,
        demonstrator=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **BC.metric_definitions,
        "dagger/round": "i",
        "dagger/beta": "β_i, probability that the demonstrator acted",
        "dagger/agreement": "policy/accuracy on the states of this round, before learning from "
        "them",
        "dagger/queries": "states that the demonstrator was asked about so far",
        "dagger/pairs": "size of D, with the given demonstrations",
    }

    learner: BC

    def __init__(self, problem: Problem, config: DAggerConfig) -> None:
        self.config = config
        self.demonstrator = problem.demonstrator  # None in what only acts
        self.given, self.budget = problem.demonstrations, problem.env_steps
        never = config.round_epochs + 1
        self.learner = BC(
            dataclasses.replace(problem, demonstrations=None),
            config
            if config.fit == "scratch"
            else dataclasses.replace(config, max_epochs=never, patience=never),
        )
        self.first = self.learner.engine.state_dict()  # where fit=scratch begins
        self.frozen = False  # the statistics of the observations, with a policy taken over
        self.generator = torch.Generator().manual_seed(derive(problem.seed, "dagger"))
        self.visits = Visits()
        self.round = 0
        self.passes = 0
        self.asked_acts: Tensor | None = None  # who acts in each running episode

    @property
    def epochs(self) -> int:
        """Passes over D so far, in all rounds."""
        return self.passes

    def iteration(self, world: World) -> Metrics:
        """Visit states, have them labelled, and clone all labels so far: one round."""
        if self.round == 0 and self.given is not None:
            self._clone()  # the demonstrations are round 0
            self.round = 1
        beta = self.config.beta(self.round)
        steps = self._roll_out(world, beta)
        labels = torch.from_numpy(np.concatenate([labels for _, labels in steps]))
        states = np.concatenate([batch.observations for batch, _ in steps])
        agreement = self.learner.accuracy(torch.as_tensor(states, dtype=torch.float32), labels)
        self.visits.extend(steps)  # D ← D ∪ {(s, π_E(s))}
        metrics = self._clone()
        assert self.demonstrator is not None
        counts = {
            "dagger/round": self.round,
            "dagger/beta": beta,
            "dagger/queries": self.demonstrator.queries,
            "dagger/pairs": len(self.visits) + (self.given.num_transitions if self.given else 0),
        }
        self.round += 1
        numbers = {name: torch.tensor(float(value)) for name, value in counts.items()}
        return metrics | numbers | {"dagger/agreement": agreement}

    def _roll_out(self, world: World, beta: float) -> list[tuple[TransitionBatch, np.ndarray]]:
        """Act with π_i^roll until the round is over; return the steps with their labels."""
        config, steps, ended = self.config, [], 0
        assert self.demonstrator is not None
        while True:
            observations = world.observations
            labels = self.demonstrator.label(observations)
            asked = self._draw(beta, world.num_envs)
            actions = labels
            if not asked.all():
                greedy = config.rollout_policy == "greedy"
                own = self.learner.act(observations, greedy=greedy, generator=self.generator)
                actions = np.where(asked.reshape(-1, *[1] * (labels.ndim - 1)), labels, own)
            batch = world.step(actions)
            steps.append((batch, labels))
            over = batch.terminated | batch.truncated
            ended += int(over.sum())
            if self.asked_acts is not None:
                self.asked_acts[torch.from_numpy(over)] = -1
            enough = len(steps) * world.num_envs >= config.batch_steps
            if (enough and ended >= config.min_episodes) or 0 < self.budget <= world.env_steps:
                return steps

    def _draw(self, beta: float, num_envs: int) -> np.ndarray:
        """Return in which environments the demonstrator acts. Shape (N,)."""
        drawn = torch.rand(num_envs, generator=self.generator) < beta
        if self.config.mixing == "steps":
            return drawn.numpy()
        if self.asked_acts is None:
            self.asked_acts = torch.full((num_envs,), -1)
        begins = self.asked_acts < 0
        self.asked_acts[begins] = drawn[begins].long()
        return self.asked_acts.bool().numpy()

    def _clone(self) -> Metrics:
        """π̂_{i+1} = behavioural cloning on all of D."""
        clone, config, passes = self.learner, self.config, []
        if config.fit == "scratch":
            clone.engine.load_state_dict(self.first)
        pairs = self.visits.pairs(self.given) if len(self.visits) else self.given
        assert pairs is not None
        clone.learn_from(pairs, standardise=not self.frozen)
        warm = config.fit == "warm"
        while not (clone.epochs == config.round_epochs if warm else clone.finished):
            passes.append(clone.iteration(None))
        self.passes += clone.epochs
        self.updates = clone.updates
        loss, accuracy = clone.validate()
        means = {name: torch.stack([one[name] for one in passes]).mean() for name in passes[0]}
        return means | {"loss/validation": loss, "policy/accuracy": accuracy}

    def labelled(self) -> list[LabelledEpisode]:
        """Return the visited episodes with the demonstrator's labels."""
        return self.visits.episodes()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the clone's most likely actions, or samples."""
        return self.learner.act(observations, greedy=greedy, generator=generator)

    def start_from(self, policy: dict[str, Tensor]) -> None:
        """Begin with another run's policy, in every round where fit=scratch."""
        self.load_policy_state(policy)
        self.first, self.frozen = self.learner.engine.state_dict(), True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next round depends on: all labels, besides the policy."""
        clone, demonstrator = self.learner, self.demonstrator
        return {
            "engine": clone.engine.state_dict(),
            "inputs": clone.network.input_state(),
            "shuffling": clone.generator.get_state(),
            "first": self.first if self.frozen else None,
            "generator": self.generator.get_state(),
            "visits": self.visits.state_dict(),
            "asked_acts": None if self.asked_acts is None else self.asked_acts.clone(),
            "round": self.round,
            "passes": self.passes,
            "updates": self.updates,
            "queries": 0 if demonstrator is None else demonstrator.queries,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        clone = self.learner
        clone.engine.load_state_dict(state["engine"])
        clone.network.load_input_state(state["inputs"])
        clone.generator.set_state(state["shuffling"])
        if state["first"] is not None:
            self.first, self.frozen = state["first"], True
        self.generator.set_state(state["generator"])
        self.visits.load_state_dict(state["visits"])
        acts = state["asked_acts"]
        self.asked_acts = None if acts is None else acts.clone()
        self.round, self.passes = int(state["round"]), int(state["passes"])
        self.updates = clone.updates = int(state["updates"])
        if self.demonstrator is not None:
            self.demonstrator.queries = int(state["queries"])
