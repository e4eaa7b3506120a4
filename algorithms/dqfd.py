"""DQfD: deep Q-learning from demonstrations.

Hester et al., "Deep Q-learning from Demonstrations", AAAI 2018, arXiv 1704.03732.

    J(Q)    = J_DQ(Q) + λ₁ J_n(Q) + λ₂ J_E(Q) + λ₃ ‖θ‖²
    J_DQ    = E[ Huber(Q(s, a) - y) ],    y   = r + γ (1 - d) Q̄(s', argmax Q(s', ·))
    J_n     = E[ Huber(Q(s, a) - y_n) ],  the same with the return of n steps
    J_E     = E[ max_a (Q(s, a) + l(a_E, a)) - Q(s, a_E) ],  l = margin for a ≠ a_E, over
              demonstrated transitions alone

First some updates on demonstrations alone, then interaction, with all of them in one prioritised
memory from which demonstrations never go.

`dqfd-reward-free` is the form that Zhang et al. (arXiv 1905.03501) compare with, whose
demonstrations have no rewards: there J_DQ and J_n are errors of own transitions alone, and the
priority of a demonstrated one is its part of J_E.

Departures from the paper: rewards are scaled, and not transformed by sign(r) log(1 + |r|)
(`log_rewards`) unless wanted; the target network follows by Polyak averaging, the step size falls
linearly to 0, the network normalises its layers (`rlfd.algorithms.rl.dqn`). Defaults suit vectors;
docs/algorithms/dqfd.md has the paper's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, Wait, World, hyper
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.permanent_replay import PermanentReplay
from rlfd.algorithms.core.q_learner import QLearner, QLearnerConfig, select
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.dqn import dqn_target, huber

__all__ = ["DQfD", "DQfDConfig", "DQfDRewardFree", "margin_losses", "shaped"]


@dataclass(frozen=True, kw_only=True)
class DQfDConfig(QLearnerConfig):
    """Hyperparameters of DQfD."""

    learning_starts: int = hyper(0, "env steps before the first update on own ones", low=0)
    updates_per_env_step: float = hyper(0.25, "gradient steps per env step", above=0)
    polyak_tau: float = hyper(0.005, "fraction taken over per update (polyak)", above=0, high=1)
    pretrain_updates: int = hyper(10_000, "k, gradient steps on demonstrations alone", low=0)
    n_step_weight: float = hyper(1.0, "λ₁, weight of J_n", low=0)
    margin_weight: float = hyper(1.0, "λ₂, weight of J_E", low=0)
    l2_weight: float = hyper(1e-5, "λ₃, weight of the squared parameters", low=0)
    margin: float = hyper(0.8, "l, by which demonstrated actions are to lead", low=0)
    n_step: int = hyper(3, "n, rewards summed before bootstrapping in J_n", low=1)
    reward_scale: float = hyper(1.0, "learner's reward = this times the world's", above=0)
    log_rewards: bool = hyper(False, "then sign(r) log(1 + |r|)")
    dueling: bool = hyper(True, "value and advantage heads")
    huber_delta: float = hyper(1.0, "where the loss turns linear; 0 = squared error", low=0)
    epsilon_start: float = hyper(0.05, "probability of a random action at first", low=0, high=1)
    epsilon_final: float = hyper(0.01, "probability of a random action at last", low=0, high=1)
    epsilon_env_steps: int = hyper(40_000, "env steps over which it falls linearly", low=0)
    priority_alpha: float = hyper(0.4, "α, exponent of the priorities", above=0)
    priority_beta: float = hyper(0.6, "β, importance exponent; rises linearly to 1", low=0, high=1)
    priority_epsilon_own: float = hyper(1e-3, "ε_a, added to errors of own transitions", above=0)
    priority_epsilon_demo: float = hyper(1.0, "ε_d, added to errors of demonstrated ones", above=0)

    def wait(self) -> Wait | None:
        """Return what is waited for, unless updates on demonstrations come first."""
        return None if self.pretrain_updates else super().wait()


def margin_losses(q_values: Tensor, demo_actions: Tensor, margin: float) -> Tensor:
    """Return max_a (Q(s, a) + l(a_E, a)) - Q(s, a_E), the summands of J_E.

    Args:
        q_values: Q(s, ·). Shape (B, A).
        demo_actions: a_E. Shape (B,).
        margin: l for a ≠ a_E, 0 for a_E itself.

    Returns:
        Never negative; 0 where a_E leads by the margin. Shape (B,).
    """
    other = torch.nn.functional.one_hot(demo_actions, q_values.shape[-1]) == 0
    return (q_values + margin * other).amax(dim=-1) - select(q_values, demo_actions)


def shaped(rewards: Tensor, config: DQfDConfig) -> Tensor:
    """Return the learner's rewards: scaled, and sign(r) log(1 + |r|) of that if wanted."""
    scaled = rewards * config.reward_scale
    return scaled.sign() * scaled.abs().log1p() if config.log_rewards else scaled


@register
class DQfD(Algorithm):
    """Deep Q-learning from demonstrations."""

    name = "dqfd"
    title = "Deep Q-learning from Demonstrations (Hester et al., 2018)"
    summary = "Q-learning whose prioritised memory keeps demonstrations, which lead by a margin"
    Config = DQfDConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=frozenset({"next_observations", "rewards", "terminated"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy",)
    metric_definitions: Mapping[str, str] = {
        "loss/td": "J_DQ, weighted mean over the batch",
        "loss/n_step": "J_n, weighted mean over the batch",
        "loss/margin": "J_E, weighted mean over the batch, own transitions counting 0",
        "loss/l2": "‖θ‖²",
        "q/mean": "mean of Q(s, a) over the batch",
        "q/target": "mean of the one-step target y over the batch",
        "replay/demo_share": "share of the batch that is demonstrated",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: DQfDConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        self.config = config
        self.pretrain_updates = config.pretrain_updates
        self.learner = QLearner(
            problem,
            config,
            self._loss,
            dueling=config.dueling,
            pretrain_updates=config.pretrain_updates,
        )
        no_rewards = torch.zeros(demos.num_transitions)
        self.memory = PermanentReplay(
            demos,
            no_rewards if demos.rewards is None else shaped(demos.rewards, config),
            self.learner.replay,
            n_step=config.n_step,
            alpha=config.priority_alpha,
            epsilon_demo=config.priority_epsilon_demo,
            epsilon_own=config.priority_epsilon_own,
        )

    def _target(
        self, parameters: Parameters, target: Parameters, batch: Batch, kind: str = ""
    ) -> Tensor:
        """y, or y_n with kind="n/": the target network's value of the online one's choice. (B,)."""
        following = batch[kind + "next_observations"]
        target_q = self.learner.values(target, following)  # (B, A)
        choosing_q = self.learner.values(parameters, following)
        rewards, discounts = batch[kind + "rewards"], batch[kind + "discounts"]
        return dqn_target(rewards, discounts, target_q, choosing_q)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        with torch.no_grad():
            y = self._target(parameters, target, batch)
            y_n = self._target(parameters, target, batch, "n/")
        q_values = self.learner.values(parameters, batch["observations"])  # (B, A)
        q = select(q_values, batch["actions"])
        rewarded = torch.ones_like(q)  # which transitions have a reward to learn from
        if "rewards" not in self.needs.demo_fields:
            rewarded = 1.0 - batch["is_demo"]
        td = rewarded * huber(q - y, config.huber_delta)
        n_step = rewarded * huber(q - y_n, config.huber_delta)
        margin = batch["is_demo"] * margin_losses(q_values, batch["actions"], config.margin)
        parts = [(batch["weights"] * part).mean() for part in (td, n_step, margin)]
        l2 = torch.stack([value.square().sum() for value in parameters.values()]).sum()
        loss = parts[0] + config.n_step_weight * parts[1] + config.margin_weight * parts[2]
        loss = loss + config.l2_weight * l2
        return loss, {
            "loss/td": parts[0],
            "loss/n_step": parts[1],
            "loss/margin": parts[2],
            "loss/l2": l2,
            "q/mean": q.mean(),
            "q/target": (rewarded * y).sum() / rewarded.sum().clamp(min=1.0),
            "replay/demo_share": batch["is_demo"].mean(),
            "errors": torch.where(rewarded > 0, q - y, margin),
        }

    def iteration(self, world: World) -> Metrics:
        """Learn from demonstrations alone at first; later act once, and take the updates due."""
        config, learner = self.config, self.learner
        if (left := learner.pretraining_left(self.updates)) > 0:
            for _ in range(left):
                self._update()
            return learner.engine.drain()
        epsilon = linear(
            world.env_steps, config.epsilon_start, config.epsilon_final, config.epsilon_env_steps
        )
        actions = learner.with_uniform(learner.greedy(world.observations), epsilon)
        transitions = world.step(actions)
        rewards = shaped(torch.from_numpy(transitions.learner_rewards), config)
        self.memory.add(transitions, rewards)
        for _ in range(learner.updates_due(world.env_steps, self.updates)):
            self._update()
        return learner.engine.drain()

    def _update(self) -> None:
        config, learner = self.config, self.learner
        beta = linear(learner.engine.count, config.priority_beta, 1.0, learner.planned_updates)
        batch = self.memory.sample(config.batch_size, beta, learner.generator)
        slots = batch.pop("slots")
        self.memory.set_priorities(slots, learner.engine.step(batch)["errors"])
        self.updates += 1

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the actions of largest value; there is no other policy."""
        return self.learner.greedy(observations)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])


@register
class DQfDRewardFree(DQfD):
    """DQfD from demonstrations without rewards."""

    name = "dqfd-reward-free"
    title = "Deep Q-learning from Demonstrations (Hester et al., 2018), without their rewards"
    summary = "DQfD where demonstrations are states and actions alone: they lead by a margin"
    needs = Needs(demonstrations=True, reward=True, interaction=True, images=True)
    metric_definitions: Mapping[str, str] = {
        **DQfD.metric_definitions,
        "q/target": "mean of the target y over own transitions of the batch; 0 without any",
    }
