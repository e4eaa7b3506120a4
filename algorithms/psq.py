"""PSQ: soft Q-learning, pretrained with imperfect demonstrations that carry no rewards.

Zhang, Li, Ma and Luo, "Pretrain Soft Q-Learning with Imperfect Demonstrations", arXiv 1905.03501.
Its temperature ε is τ here. Starred states and actions are demonstrated, others the learner's own.

    A(s, a) = Q(s, a) - V(s) = Q(s, a) - Σ_a' π(a'|s) Q(s, a') - τ h(s)                 (eq 7)
    L_π = E*[ -Σ_a π(a|s*) Q̂(s*, a) - τ h(s*) ] + E[ τ h(s) ],  Q̂ held constant
    α   = E*[ A(s*, a*) ] + E[ τ h(s) ],   L_Q = [-α]_+         (eq 8), π held constant
    L   = L_softQ + λ (τ L_π + L_Q) during the first N_p env steps, L_softQ after        (eq 10)

What it comes to: the gradient of L_Q is that of cloning, -τ E*[∇ log π(a*|s*)], taken only as long
as the demonstrations are less likely under π than π's own entropy lets expect (α < 0). L_π pulls π
towards the Boltzmann policy of Q̂ where demonstrations went, and lowers its entropy elsewhere.

Readings of the paper:
  * V contains the entropy term, as eq 7 and the proof of theorem 1 need (section 3 leaves it out).
  * eq 10 adds a gradient to descend and two to ascend; all of them descend here.
  * α in the form of eq 8: that of eq 19 needs rewards of demonstrations.
  * with Q̂ = Q the first part of L_π has no gradient, π being the Boltzmann policy of Q already
    (`evaluator=online`); the target network is another Q̂ (`evaluator=target`).
Departures from the paper: expectations are means over minibatches, not sums over trajectories
(`gate_scale=lengths` weighs them alike); those of soft Q-learning in `rlfd.algorithms.rl.soft_q`;
the step size falls linearly from the start. Which defaults were found on Lunar Lander, and how,
stands in docs/algorithms/psq.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, select
from rlfd.algorithms.core.replay import DemoStore
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.soft_q import SoftQConfig, SoftQLoop
from rlfd.seeding import derive

__all__ = [
    "PSQ",
    "DemoPretraining",
    "PSQConfig",
    "PretrainedConfig",
    "gate",
    "policy_loss",
    "value_loss",
]


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(SoftQConfig):
    """Hyperparameters that PSQ and its baseline share."""

    pretrain_env_steps: int = hyper(50_000, "N_p, env steps with demonstrations", low=0)
    lambda_demo: float = hyper(1.0, "λ, weight of the demonstrations' loss", low=0)


@dataclass(frozen=True, kw_only=True)
class PSQConfig(PretrainedConfig):
    """Hyperparameters of PSQ."""

    evaluator: Literal["target", "online"] = hyper("target", "Q̂ of L_π")
    gate_rate: float = hyper(
        1.0, "share of the newest minibatch in the running mean of α; 1 = it alone", above=0, high=1
    )
    gate_scale: Literal["means", "lengths"] = hyper(
        "means", "α adds means, or means times the mean lengths of the episodes they come from"
    )


def policy_loss(
    demo_q_values: Tensor, evaluator_q_values: Tensor, own_q_values: Tensor, temperature: float
) -> Tensor:
    """Return L_π = E*[-Σ_a π(a|s*) Q̂(s*, a) - τ h(s*)] + E[τ h(s)].

    Args:
        demo_q_values: Q(s*, ·). Shape (B, A).
        evaluator_q_values: Q̂(s*, ·), held constant. Shape (B, A).
        own_q_values: Q(s, ·). Shape (B', A).
        temperature: τ.

    Returns:
        A scalar.
    """
    valued = soft.double_soft_value(demo_q_values, evaluator_q_values.detach(), temperature)
    return temperature * soft.boltzmann_entropy(own_q_values, temperature).mean() - valued.mean()


def value_loss(demo_q_values: Tensor, demo_actions: Tensor, temperature: float) -> Tensor:
    """Return -E*[Q(s*, a*) - Σ_a' π(a'|s*) Q(s*, a')], π held constant: -α as far as Q moves it.

    Args:
        demo_q_values: Q(s*, ·). Shape (B, A).
        demo_actions: a*. Shape (B,).
        temperature: τ of π.

    Returns:
        A scalar.
    """
    policy = soft.boltzmann_log_probs(demo_q_values, temperature).exp().detach()
    expected = (policy * demo_q_values).sum(-1)
    return (expected - select(demo_q_values, demo_actions)).mean()


def gate(
    demo_q_values: Tensor,
    demo_actions: Tensor,
    own_q_values: Tensor,
    temperature: float,
    *,
    lengths: Tensor | None = None,
) -> Tensor:
    """Return α = E*[A(s*, a*)] + E[τ h(s)] (eq 8), without gradient.

    Args:
        demo_q_values: Q(s*, ·). Shape (B, A).
        demo_actions: a*. Shape (B,).
        own_q_values: Q(s, ·). Shape (B', A).
        temperature: τ.
        lengths: Mean lengths of demonstrated and own episodes, to weigh both means. Shape (2,).

    Returns:
        A scalar.
    """
    log_probs = soft.boltzmann_log_probs(demo_q_values, temperature)
    advantage = temperature * select(log_probs, demo_actions).mean()  # A = τ log π
    entropy = temperature * soft.boltzmann_entropy(own_q_values, temperature).mean()
    if lengths is not None:
        advantage, entropy = lengths[0] * advantage, lengths[1] * entropy
    return (advantage + entropy).detach()


class DemoPretraining:
    """The first N_p env steps, in which each minibatch comes with as many demonstrated pairs.

    Its draws come from a generator of its own, so that soft Q-learning beside it does what it
    would do alone.

    Args:
        problem: With demonstrations.
        config: Hyperparameters.
    """

    def __init__(self, problem: Problem, config: PretrainedConfig) -> None:
        assert problem.demonstrations is not None
        self.config = config
        self.demos = DemoStore(problem.demonstrations, gamma=config.gamma, device=problem.device)
        self.generator = torch.Generator(device=problem.device).manual_seed(
            derive(problem.seed, "demonstrations")
        )

    def join(self, batches: list[Batch], env_steps: int) -> list[Batch]:
        """Add demonstrated pairs to minibatches that are drawn after so many env steps, or none."""
        if env_steps > self.config.pretrain_env_steps or not batches:
            return batches
        pairs = self.demos.sample(len(batches), self.config.batch_size, self.generator)
        return [
            batch | {f"demo/{name}": value for name, value in demo.items()}
            for batch, demo in zip(batches, pairs, strict=True)
        ]


@register
class PSQ(Algorithm):
    """Pretrained soft Q-learning."""

    name = "psq"
    title = "Pretrain Soft Q-Learning with Imperfect Demonstrations (Zhang et al., 2019)"
    summary = (
        "soft Q-learning, warmed up by demonstrations that need neither be good nor have rewards"
    )
    Config = PSQConfig
    needs = Needs(demonstrations=True, reward=True, interaction=True, images=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **SoftQLoop.metric_definitions,
        "loss/policy": "L_π, mean over demonstrated and own pairs; 0 after pretraining",
        "loss/value": "L_Q = [-α]_+; 0 after pretraining",
        "pretrain/alpha": "α: how much likelier demonstrations are than expected; 0 afterwards",
        "pretrain/gate": "share of updates with α < 0, in which Q is cloned",
        "policy/demo_likelihood": "mean of π(a|s) over demonstrated pairs; 0 after pretraining",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: PSQConfig) -> None:
        self.config = config
        memory = {"n_step": config.n_step, "path": True}
        self.learner = QLearner(problem, config, self._loss, replay=memory)
        self.loop = SoftQLoop(config, self.learner)
        self.pretraining = DemoPretraining(problem, config)
        self._alpha = torch.zeros(1, device=problem.device)
        self._episodes = 0  # own ones that have ended

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, tau = self.config, self.config.temperature
        loss, own_q, metrics = self.loop.bellman(parameters, target, batch)  # L_softQ
        if "demo/actions" not in batch:
            nothing = torch.zeros_like(loss)
            names = (name for name in self.metric_definitions if name not in metrics)
            zeros = {name: nothing for name in names if name != "optim/grad_norm"}
            return loss, metrics | zeros | {"alpha": nothing[None]}

        states, actions = batch["demo/observations"], batch["demo/actions"]
        demo_q = self.learner.values(parameters, states)  # (B, A)
        evaluator = demo_q
        if config.evaluator == "target":
            evaluator = self.learner.values(target, states)
        lengths = batch.get("demo/lengths")
        newest = gate(demo_q, actions, own_q, tau, lengths=lengths)
        alpha = torch.lerp(batch["demo/alpha"][0], newest, config.gate_rate)
        is_open = (alpha < 0).to(loss.dtype)
        policy = policy_loss(demo_q, evaluator, own_q, tau)
        value = value_loss(demo_q, actions, tau)
        loss = loss + config.lambda_demo * (tau * policy + is_open * value)  # eq 10
        likelihood = soft.boltzmann_log_probs(demo_q, tau).exp()
        return loss, metrics | {
            "loss/policy": policy,
            "loss/value": F.relu(-newest),
            "pretrain/alpha": newest,
            "pretrain/gate": is_open,
            "policy/demo_likelihood": select(likelihood, actions).mean(),
            "alpha": alpha[None],
        }

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop."""
        transitions = self.loop.act_and_store(world)
        self._episodes += int((transitions.terminated | transitions.truncated).sum())
        batches = self.loop.batches_due(world, self.updates)
        for batch in self.pretraining.join(batches, world.env_steps):
            if "demo/actions" in batch:
                batch |= self._gate_inputs(world.env_steps)
            self._alpha = self.learner.engine.step(batch)["alpha"]
            self.updates += 1
        return self.learner.engine.drain()

    def _gate_inputs(self, env_steps: int) -> Batch:
        # The running mean starts at 0, which shortens it but leaves its sign.
        inputs = {"demo/alpha": self._alpha}
        if self.config.gate_scale == "lengths":
            demos = self.pretraining.demos
            lengths = [len(demos) / demos.num_episodes, env_steps / max(1, self._episodes)]
            inputs["demo/lengths"] = torch.tensor(lengths, device=self.learner.device)
        return inputs

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the most likely actions or samples of the Boltzmann policy (eq 2)."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "demo_generator": self.pretraining.generator.get_state(),
            "alpha": self._alpha.clone(),
            "episodes": self._episodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.pretraining.generator.set_state(state["demo_generator"])
        self._alpha = state["alpha"].to(self.learner.device)
        self._episodes = int(state["episodes"])
