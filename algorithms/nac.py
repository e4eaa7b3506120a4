"""NAC: the normalised actor-critic.

Gao, Xu, Lin, Yu, Levine and Darrell, "Reinforcement Learning from Imperfect Demonstrations",
arXiv 1802.05313.

    V_Q(s) = τ log Σ_a exp(Q(s, a) / τ),    π_Q(a|s) = exp((Q(s, a) - V_Q(s)) / τ)
    Q̂(s, a) = r + γ (1 - d) V_Q̄(s'),        V̂(s) = E_{a ~ π_Q}[Q̂(s, a)] + τ H(π_Q(·|s))
    θ ← θ - η E[ ρ (∇Q(s, a) - ∇V_Q(s)) (Q(s, a) - Q̂(s, a)) + ∇V_Q(s) (V_Q(s) - V̂(s)) ]

Soft Q-learning would follow ∇Q (Q - Q̂). With actions drawn from π_Q and ρ = 1 both have the same
expectation. On demonstrations they differ: ∇Q - ∇V_Q lowers all other actions as it raises the
demonstrated one, so that what was never tried is not overestimated. ρ = min(π_Q / μ, c) with μ the
probability that the action had when it was taken; that of the demonstrator is not known, ρ = 1.

First some updates on demonstrations alone, then interaction with π_Q; demonstrations are dropped
then unless `keep_demos`.

Departures from the paper: V̂ needs Q̂ of all actions, and has it of the one that was taken: the
target network's values stand for the others, so that V_Q of own states moves by Σ π² (Q - Q̂) where
soft Q-learning has Σ π (Q - Q̂). Polyak target, falling step size and layer normalisation as in
`rlfd.algorithms.rl.soft_q`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, Wait, World, hyper
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, QLearnerConfig, select
from rlfd.algorithms.core.replay import DemoStore
from rlfd.algorithms.registry import register

__all__ = ["NAC", "NACConfig", "normalised_losses", "policy_values"]


@dataclass(frozen=True, kw_only=True)
class NACConfig(QLearnerConfig):
    """Hyperparameters of NAC."""

    updates_per_env_step: float = hyper(0.25, "gradient steps per env step", above=0)
    polyak_tau: float = hyper(0.005, "fraction taken over per update (polyak)", above=0, high=1)
    temperature: float = hyper(0.1, "τ, in units of the scaled reward", above=0)
    reward_scale: float = hyper(1.0, "learner's reward = this times the world's", above=0)
    pretrain_updates: int = hyper(10_000, "k, gradient steps on demonstrations alone", low=0)
    keep_demos: bool = hyper(False, "later minibatches hold as many demonstrated transitions, too")
    importance_cap: float = hyper(10.0, "c, bound of the importance weights ρ", above=0)

    def wait(self) -> Wait | None:
        """Return what is waited for, unless updates on demonstrations come first."""
        return None if self.pretrain_updates else super().wait()


def policy_values(
    q_values: Tensor, evaluator_q_values: Tensor, actions: Tensor, q_hat: Tensor, temperature: float
) -> Tensor:
    """Return V̂ = E_{a ~ π_Q}[Q̂(s, a)] + τ H(π_Q).

    Args:
        q_values: Q(s, ·), for π_Q. Shape (B, A).
        evaluator_q_values: Q̂(s, ·) of the actions that were not taken. Shape (B, A).
        actions: Those that were. Shape (B,).
        q_hat: Q̂(s, a) of them. Shape (B,).
        temperature: τ.

    Returns:
        Shape (B,).
    """
    completed = evaluator_q_values.scatter(1, actions[:, None], q_hat[:, None])
    return soft.double_soft_value(q_values, completed, temperature)


def normalised_losses(
    q_values: Tensor,
    actions: Tensor,
    q_hat: Tensor,
    v_hat: Tensor,
    ratios: Tensor,
    temperature: float,
) -> Tensor:
    """Return ρ (Q - V_Q) sg[Q - Q̂] + V_Q sg[V_Q - V̂], whose gradient is NAC's direction.

    Its value means nothing.

    Args:
        q_values: Q(s, ·). Shape (B, A).
        actions: Shape (B,).
        q_hat: Q̂(s, a). Shape (B,).
        v_hat: V̂(s). Shape (B,).
        ratios: ρ. Shape (B,).
        temperature: τ.

    Returns:
        Shape (B,).
    """
    q, v = select(q_values, actions), soft.soft_value(q_values, temperature)
    actor = ratios.detach() * (q - v) * (q - q_hat).detach()
    return actor + v * (v - v_hat).detach()


@register
class NAC(Algorithm):
    """The normalised actor-critic."""

    name = "nac"
    title = "Reinforcement Learning from Imperfect Demonstrations (Gao et al., 2018)"
    summary = "soft Q-learning with a gradient that also lowers what was not demonstrated"
    Config = NACConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=frozenset({"next_observations", "rewards", "terminated"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        "loss/q": "mean of ½(Q(s, a) - Q̂(s, a))²",
        "loss/value": "mean of ½(V_Q(s) - V̂(s))²",
        "q/mean": "mean of Q(s, a) over the batch",
        "q/target": "mean of Q̂(s, a) over the batch",
        "policy/likelihood": "mean of π(a|s) over the batch",
        "policy/entropy": "entropy of π at sampled states, nats",
        "policy/importance": "mean of ρ",
        "replay/demo_share": "share of the batch that is demonstrated",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: NACConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        assert demos.rewards is not None
        self.config = config
        self.pretrain_updates = config.pretrain_updates
        self.learner = QLearner(
            problem,
            config,
            self._loss,
            replay={"extra": ["likelihoods"]},
            pretrain_updates=config.pretrain_updates,
        )
        scaled = dataclasses.replace(demos, rewards=config.reward_scale * demos.rewards)
        self.demos = DemoStore(scaled, gamma=config.gamma, device=problem.device)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tau, actions = self.config.temperature, batch["actions"]
        q_values = self.learner.values(parameters, batch["observations"])  # (B, A)
        with torch.no_grad():
            following = self.learner.values(target, batch["next_observations"])
            q_hat = batch["rewards"] + batch["discounts"] * soft.soft_value(following, tau)
            others = self.learner.values(target, batch["observations"])
            v_hat = policy_values(q_values, others, actions, q_hat, tau)
            likelihood = select(soft.boltzmann_log_probs(q_values, tau), actions).exp()
            ratios = (likelihood / batch["likelihoods"]).clamp(max=self.config.importance_cap)
            ratios = torch.where(batch["is_demo"] > 0, 1.0, ratios)
        losses = normalised_losses(q_values, actions, q_hat, v_hat, ratios, tau)
        q, v = select(q_values, actions), soft.soft_value(q_values, tau)
        return losses.mean(), {
            "loss/q": 0.5 * (q - q_hat).square().mean(),
            "loss/value": 0.5 * (v - v_hat).square().mean(),
            "q/mean": q.mean(),
            "q/target": q_hat.mean(),
            "policy/likelihood": likelihood.mean(),
            "policy/entropy": soft.boltzmann_entropy(q_values, tau).mean(),
            "policy/importance": ratios.mean(),
            "replay/demo_share": batch["is_demo"].mean(),
        }

    def iteration(self, world: World) -> Metrics:
        """Learn from demonstrations alone at first; later act once, and take the updates due."""
        learner = self.learner
        if (left := learner.pretraining_left(self.updates)) > 0:
            self._learn(self._demonstrated(left))
            return learner.engine.drain()
        self._act_and_store(world)
        due = learner.updates_due(world.env_steps, self.updates)
        if due > 0:
            own = [
                batch | {"is_demo": torch.zeros_like(batch["rewards"])}
                for batch in learner.replay.sample(due, self.config.batch_size, learner.generator)
            ]
            self._learn(_joined(own, self._demonstrated(due)) if self.config.keep_demos else own)
        return learner.engine.drain()

    def _act_and_store(self, world: World) -> None:
        """Act once in every environment, and note how likely each action was: μ(a|s)."""
        learner, tau, seen = self.learner, self.config.temperature, world.observations
        actions = learner.boltzmann(seen, tau, learner.generator)
        likelihoods = learner.likelihoods(seen, actions, tau)
        transitions = world.step(actions)
        rewards = torch.from_numpy(transitions.learner_rewards * self.config.reward_scale)
        learner.store(transitions, rewards=rewards, likelihoods=likelihoods)

    def _demonstrated(self, count: int) -> list[Batch]:
        """Draw minibatches of demonstrations, whose μ is not known."""
        drawn = self.demos.sample(count, self.config.batch_size, self.learner.generator)
        ones = [torch.ones_like(batch["rewards"]) for batch in drawn]
        return [
            {name: value for name, value in batch.items() if name != "terminated"}
            | {"likelihoods": one, "is_demo": one}
            for batch, one in zip(drawn, ones, strict=True)
        ]

    def _learn(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.learner.engine.step(batch)
            self.updates += 1

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the most likely actions or samples of π_Q."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)


def _joined(first: list[Batch], second: list[Batch]) -> list[Batch]:
    """Join minibatches pairwise."""
    return [
        {name: torch.cat([one[name], two[name]]) for name in one}
        for one, two in zip(first, second, strict=True)
    ]
