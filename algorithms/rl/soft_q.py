"""Soft Q-learning with discrete actions.

Haarnoja et al., "Reinforcement Learning with Deep Energy-Based Policies", arXiv 1702.08165;
Schulman, Chen and Abbeel, "Equivalence Between Policy Gradients and Soft Q-Learning",
arXiv 1704.06440.

    V̄(s) = τ log Σ_a exp(Q̄(s, a) / τ),    y = r + γ (1 - d) V̄(s'),    L = E[ Huber(Q(s, a) - y) ]
    π(a|s) = exp((Q(s, a) - V(s)) / τ)

n-step targets add the entropy bonus of every state passed on the way:
    y = Σ_{l<n} γ^l r_{t+l} + τ Σ_{0<l<n} γ^l H(π̄(·|s_{t+l})) + γ^n (1 - d) V̄(s_{t+n}).

Departures from the papers: no sampled action proposals (the sum over actions is exact); Huber
instead of squared loss (`huber_delta=0` restores it); ε-greedy exploration on top of the
Boltzmann policy, early on; Polyak target, falling learning rate and layer normalisation, which the
Lunar Lander runs needed (docs/algorithms/soft-q.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    TransitionBatch,
    World,
    hyper,
)
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, QLearnerConfig, select
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.dqn import huber

__all__ = ["SoftQ", "SoftQConfig", "SoftQLoop"]


@dataclass(frozen=True, kw_only=True)
class SoftQConfig(QLearnerConfig):
    """Hyperparameters of soft Q-learning."""

    updates_per_env_step: float = hyper(0.25, "gradient steps per env step", above=0)
    polyak_tau: float = hyper(0.005, "fraction taken over per update (polyak)", above=0, high=1)
    temperature: float = hyper(0.1, "τ, in units of the scaled reward", above=0)
    reward_scale: float = hyper(1.0, "learner's reward = this times the world's", above=0)
    double: bool = hyper(False, "V̄ as expectation of Q̄ under the online policy")
    kl_to_uniform: bool = hyper(False, "penalise KL from uniform instead of rewarding entropy")
    n_step: int = hyper(1, "n, rewards summed before bootstrapping", low=1)
    huber_delta: float = hyper(1.0, "where the loss turns linear; 0 = squared error", low=0)
    epsilon_start: float = hyper(0.5, "probability of a random action at first", low=0, high=1)
    epsilon_final: float = hyper(0.02, "probability of a random action at last", low=0, high=1)
    epsilon_env_steps: int = hyper(40_000, "env steps over which it falls linearly", low=0)


class SoftQLoop:
    """Acting, and the soft Bellman error: what `soft-q` and the methods built on it share.

    Args:
        config: Hyperparameters.
        learner: Network, engine and memory.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "loss/td": "Huber loss of the soft temporal-difference error, mean over the batch",
        "q/mean": "mean of Q(s, a) over the batch",
        "q/target": "mean of the target y over the batch",
        "policy/entropy": "entropy of the Boltzmann policy at sampled states, nats",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    def __init__(self, config: SoftQConfig, learner: QLearner) -> None:
        self.config, self.learner = config, learner

    def _soft_value(
        self, parameters: Parameters, target: Parameters, observations: Tensor
    ) -> Tensor:
        tau, kl = self.config.temperature, self.config.kl_to_uniform
        target_q = self.learner.values(target, observations)
        if not self.config.double:
            return soft.soft_value(target_q, tau, kl_to_uniform=kl)
        online_q = self.learner.values(parameters, observations)
        return soft.double_soft_value(online_q, target_q, tau, kl_to_uniform=kl)

    def _path_bonus(self, target: Parameters, batch: Batch) -> Tensor:
        """τ Σ_{0<l<n} γ^l H(π̄(·|s_{t+l})): entropy earned between first and last state. (B,)."""
        path = batch["path_observations"]  # (B, n-1, *shape)
        q_values = self.learner.values(target, path.flatten(0, 1))
        entropy = soft.boltzmann_entropy(q_values, self.config.temperature)
        if self.config.kl_to_uniform:
            entropy = entropy - np.log(self.learner.num_actions)
        bonus = batch["path_discounts"] * entropy.view(path.shape[:2])
        return self.config.temperature * bonus.sum(dim=1)

    def bellman(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the loss, Q(s, ·) of shape (B, A), and its metrics."""
        with torch.no_grad():
            next_value = self._soft_value(parameters, target, batch["next_observations"])
            y = batch["rewards"] + batch["discounts"] * next_value
            if self.config.n_step > 1:
                y = y + self._path_bonus(target, batch)
        q_values = self.learner.values(parameters, batch["observations"])  # (B, A)
        q = select(q_values, batch["actions"])
        loss = huber(q - y, self.config.huber_delta).mean()
        entropy = soft.boltzmann_entropy(q_values, self.config.temperature).mean()
        metrics = {"loss/td": loss, "q/mean": q.mean(), "q/target": y.mean()}
        return loss, q_values, metrics | {"policy/entropy": entropy}

    def act_and_store(self, world: World, *, paid: bool = True) -> TransitionBatch:
        """Act once in every environment; unless `paid`, store rewards of 0."""
        config, learner = self.config, self.learner
        epsilon = linear(
            world.env_steps, config.epsilon_start, config.epsilon_final, config.epsilon_env_steps
        )
        boltzmann = learner.boltzmann(world.observations, config.temperature, learner.generator)
        transitions = world.step(learner.with_uniform(boltzmann, epsilon))
        rewards = torch.zeros(world.num_envs)
        if paid:
            rewards = torch.from_numpy(transitions.learner_rewards * config.reward_scale)
        learner.store(transitions, rewards=rewards)
        return transitions

    def batches_due(self, world: World, updates: int) -> list[Batch]:
        """Draw a minibatch for each update that is due, `updates` having been made before."""
        learner = self.learner
        due = learner.updates_due(world.env_steps, updates)
        if due <= 0:
            return []
        return learner.replay.sample(due, self.config.batch_size, learner.generator)


@register
class SoftQ(Algorithm):
    """Soft Q-learning."""

    name = "soft-q"
    title = "Reinforcement Learning with Deep Energy-Based Policies (Haarnoja et al., 2017)"
    summary = "maximum-entropy Q-learning with reward; log-sum-exp backup, Boltzmann policy"
    Config = SoftQConfig
    needs = Needs(demonstrations=False, reward=True, interaction=True, images=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = SoftQLoop.metric_definitions

    learner: QLearner

    def __init__(self, problem: Problem, config: SoftQConfig) -> None:
        self.config = config
        memory = {"n_step": config.n_step, "path": True}
        self.learner = QLearner(problem, config, self._loss, replay=memory)
        self.loop = SoftQLoop(config, self.learner)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, metrics = self.loop.bellman(parameters, target, batch)
        return loss, metrics

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        self.loop.act_and_store(world)
        for batch in self.loop.batches_due(world, self.updates):
            self.learner.engine.step(batch)
            self.updates += 1
        return self.learner.engine.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the most likely actions or samples of the Boltzmann policy."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)
