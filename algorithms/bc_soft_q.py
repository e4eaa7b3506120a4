"""Soft Q-learning pretrained by cloning, the baseline of `rlfd.algorithms.psq`.

Zhang, Li, Ma and Luo, "Pretrain Soft Q-Learning with Imperfect Demonstrations", arXiv 1905.03501,
section 5: without the decoupling of policy and value, the gradient of the demonstrations' loss is
that of cross entropy.

    L = L_softQ + λ E*[ -τ log π(a*|s*) ] during the first N_p env steps, L_softQ after

τ before the logarithm gives λ the meaning that it has in PSQ. `pure` drops L_softQ until N_p.

Departures from the paper: those of soft Q-learning in `rlfd.algorithms.rl.soft_q`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, select
from rlfd.algorithms.psq import DemoPretraining, PretrainedConfig
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.soft_q import SoftQLoop

__all__ = ["BCSoftQ", "BCSoftQConfig"]


@dataclass(frozen=True, kw_only=True)
class BCSoftQConfig(PretrainedConfig):
    """Hyperparameters of the baseline."""

    pure: bool = hyper(False, "no Bellman error before N_p: cloning alone")


@register
class BCSoftQ(Algorithm):
    """Soft Q-learning pretrained by cloning."""

    name = "bc-soft-q"
    title = "Pretrain Soft Q-Learning with Imperfect Demonstrations, baseline (Zhang et al., 2019)"
    summary = "soft Q-learning, warmed up by cloning demonstrations"
    Config = BCSoftQConfig
    needs = Needs(demonstrations=True, reward=True, interaction=True, images=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **SoftQLoop.metric_definitions,
        "loss/cloning": "mean of -τ log π(a|s) over demonstrated pairs; 0 after pretraining",
        "policy/demo_likelihood": "mean of π(a|s) over demonstrated pairs; 0 after pretraining",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: BCSoftQConfig) -> None:
        self.config = config
        memory = {"n_step": config.n_step, "path": True}
        self.learner = QLearner(problem, config, self._loss, replay=memory)
        self.loop = SoftQLoop(config, self.learner)
        self.pretraining = DemoPretraining(problem, config)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tau = self.config.temperature
        loss, _, metrics = self.loop.bellman(parameters, target, batch)  # L_softQ
        if "demo/actions" not in batch:
            nothing = torch.zeros_like(loss)
            return loss, metrics | {"loss/cloning": nothing, "policy/demo_likelihood": nothing}
        demo_q = self.learner.values(parameters, batch["demo/observations"])  # (B, A)
        log_probs = select(soft.boltzmann_log_probs(demo_q, tau), batch["demo/actions"])
        cloning = -tau * log_probs.mean()
        kept = 0.0 if self.config.pure else 1.0
        loss = kept * loss + self.config.lambda_demo * cloning
        likelihood = log_probs.exp().mean()
        return loss, metrics | {"loss/cloning": cloning, "policy/demo_likelihood": likelihood}

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        self.loop.act_and_store(world)
        batches = self.loop.batches_due(world, self.updates)
        for batch in self.pretraining.join(batches, world.env_steps):
            self.learner.engine.step(batch)
            self.updates += 1
        return self.learner.engine.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the most likely actions or samples of the Boltzmann policy."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        generator = self.pretraining.generator.get_state()
        return super().state_dict() | {"demo_generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.pretraining.generator.set_state(state["demo_generator"])
