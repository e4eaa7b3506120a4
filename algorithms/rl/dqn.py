"""Deep Q-learning (DQN), with double, dueling, prioritised and n-step variants as options.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015;
van Hasselt, Guez and Silver, arXiv 1509.06461 (double); Wang et al., arXiv 1511.06581 (dueling);
Schaul et al., arXiv 1511.05952 (prioritised).

    y = Σ_{l<n} γ^l r_{t+l} + γ^n (1 - d) Q̄(s', a*),   a* = argmax Q (double) or argmax Q̄ (plain)
    L = E[ Huber(Q(s, a) - y) ]

Departures from the papers: the target follows by Polyak averaging and the learning rate falls
linearly to 0 (`target_update=copy`, `final_learning_rate=1` restore the originals); layer
normalisation; rewards are scaled, not clipped; time limits bootstrap from the true final
observation. Defaults were found on Lunar Lander (docs/algorithms/dqn.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, QLearnerConfig, select
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.registry import register

__all__ = ["DQN", "DQNConfig", "dqn_target", "huber"]


@dataclass(frozen=True, kw_only=True)
class DQNConfig(QLearnerConfig):
    """Hyperparameters of DQN."""

    readers: ClassVar[Readers] = {
        "prioritised": {True: ("priority_alpha", "priority_beta"), False: ()},
    }

    updates_per_env_step: float = hyper(0.25, "gradient steps per env step", above=0)
    polyak_tau: float = hyper(0.005, "fraction taken over per update (polyak)", above=0, high=1)
    reward_scale: float = hyper(1.0, "learner's reward = this times the world's", above=0)
    double: bool = hyper(True, "a* from the online network (van Hasselt et al.)")
    dueling: bool = hyper(False, "value and advantage heads (Wang et al.)")
    n_step: int = hyper(1, "n, rewards summed before bootstrapping", low=1)
    huber_delta: float = hyper(1.0, "where the loss turns linear; 0 = squared error", low=0)
    epsilon_start: float = hyper(1.0, "probability of a random action at first", low=0, high=1)
    epsilon_final: float = hyper(0.02, "probability of a random action at last", low=0, high=1)
    epsilon_env_steps: int = hyper(40_000, "env steps over which it falls linearly", low=0)
    prioritised: bool = hyper(False, "proportional prioritised replay (Schaul et al.)")
    priority_alpha: float = hyper(0.6, "α, exponent of the priorities", above=0)
    priority_beta: float = hyper(0.4, "β, importance exponent; rises linearly to 1", low=0, high=1)
    priority_epsilon: float = hyper(1e-6, "added to each absolute error", above=0)


def dqn_target(
    rewards: Tensor, discounts: Tensor, target_q_values: Tensor, choosing_q_values: Tensor
) -> Tensor:
    """Return y = r + discount · Q̄(s', argmax_a Q_choose(s', a)).

    Args:
        rewards: (n-step sums of) rewards. Shape (B,).
        discounts: γ^n · (1 - terminated). Shape (B,).
        target_q_values: Q̄(s', ·). Shape (B, A).
        choosing_q_values: The online network's values (double) or Q̄ again (plain). Shape (B, A).

    Returns:
        Shape (B,).
    """
    return rewards + discounts * select(target_q_values, choosing_q_values.argmax(dim=-1))


def huber(errors: Tensor, delta: float) -> Tensor:
    """Return ½e² where |e| <= δ and δ(|e| - ½δ) beyond; ½e² everywhere when δ = 0."""
    if delta == 0.0:
        return 0.5 * errors.square()
    return F.huber_loss(errors, torch.zeros_like(errors), delta=delta, reduction="none")


@register
class DQN(Algorithm):
    """Deep Q-learning."""

    name = "dqn"
    title = "Human-level control through deep reinforcement learning (Mnih et al., 2015)"
    summary = "Q-learning with reward; double by default, dueling, prioritised, n-step as options"
    Config = DQNConfig
    needs = Needs(demonstrations=False, reward=True, interaction=True, images=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy",)
    metric_definitions: Mapping[str, str] = {
        "loss/td": "Huber loss of the temporal-difference error, (weighted) mean over the batch",
        "q/mean": "mean of Q(s, a) over the batch",
        "q/target": "mean of the target y over the batch",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: DQNConfig) -> None:
        self.config = config
        self.learner = QLearner(
            problem,
            config,
            self._loss,
            dueling=config.dueling,
            replay={
                "n_step": config.n_step,
                "prioritised": config.priority_alpha if config.prioritised else 0.0,
                "priority_epsilon": config.priority_epsilon,
            },
        )

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            target_q = self.learner.values(target, batch["next_observations"])  # (B, A)
            choosing_q = target_q
            if self.config.double:
                choosing_q = self.learner.values(parameters, batch["next_observations"])
            y = dqn_target(batch["rewards"], batch["discounts"], target_q, choosing_q)
        q = select(self.learner.values(parameters, batch["observations"]), batch["actions"])
        losses = huber(q - y, self.config.huber_delta)
        loss = (losses * batch["weights"]).mean() if "weights" in batch else losses.mean()
        outputs = {"loss/td": loss, "q/mean": q.mean(), "q/target": y.mean()}
        if "weights" in batch:
            outputs["td_errors"] = q - y
        return loss, outputs

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        config, learner = self.config, self.learner
        epsilon = linear(
            world.env_steps, config.epsilon_start, config.epsilon_final, config.epsilon_env_steps
        )
        actions = learner.with_uniform(learner.greedy(world.observations), epsilon)
        transitions = world.step(actions)
        rewards = torch.from_numpy(transitions.learner_rewards * config.reward_scale)
        learner.store(transitions, rewards=rewards)

        due = learner.updates_due(world.env_steps, self.updates)
        if due > 0 and config.prioritised:
            for _ in range(due):
                self._prioritised_update()
        elif due > 0:
            for batch in learner.replay.sample(due, config.batch_size, learner.generator):
                learner.engine.step(batch)
        self.updates += max(0, due)
        return learner.engine.drain()

    def _prioritised_update(self) -> None:
        config, learner = self.config, self.learner
        beta = linear(learner.engine.count, config.priority_beta, 1.0, learner.planned_updates)
        batch = learner.replay.sample_prioritised(config.batch_size, beta, learner.generator)
        slots = batch.pop("slots")
        learner.replay.set_priorities(slots, learner.engine.step(batch)["td_errors"])

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the actions of largest value; there is no other policy."""
        return self.learner.greedy(observations)
