"""MAIL: multi-action imitation learning, combined with reinforcement learning in every update.

"Imitation Learning" (notes), section on multi-action imitation; a policy for several simultaneous
choices is a product over its K components,

    log π_θ(a|s) = Σ_k log π_k(a_k|s)          H(π_θ(·|s)) = Σ_k H(π_k(·|s))

Each rollout, with as many demonstrated pairs, serves for one gradient step on

    L_IL = -E_demo[Σ_k log π_k(a_k|s)]
    L    = w L_A2C + λ L_IL

L_A2C is that of `rl/a2c.py`; λ falls from `imitation_weight` to a fraction of it. The value
function learns from the rollouts alone: demonstrations bring no reward. λ = 0 is A2C, w = 0 is
behavioural cloning, and one component makes A2C with cloning of an ordinary policy.

Departures from the notes:
  * no recurrent network, so that demonstrated pairs are drawn one by one, with replacement.
  * policy and value function share no layers (see `rl/a2c.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

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
from rlfd.algorithms.core.a2c_learner import A2CFields, A2CLearner
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.registry import register
from rlfd.seeding import derive

__all__ = ["MAIL", "MAILConfig", "imitation_weight"]

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class MAILConfig(A2CFields):
    """Hyperparameters of MAIL, besides those of A2C."""

    readers: ClassVar[Readers] = {
        "imitation_schedule": {
            "constant": (),
            "linear": ("final_imitation_weight", "imitation_share"),
            "cosine": ("final_imitation_weight", "imitation_share"),
        }
    }

    final_learning_rate: float = hyper(
        0.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    live_weight: float = hyper(1.0, "w, weight of A2C's loss; 0 = behavioural cloning", low=0)
    imitation_weight: float = hyper(1.0, "λ at the start; 0 = A2C", low=0)
    final_imitation_weight: float = hyper(
        0.1, "λ after it has fallen, as a fraction of the first", low=0, high=1
    )
    imitation_schedule: Schedule = hyper("linear", "how λ falls")
    imitation_share: float = hyper(0.5, "share of the budget over which λ falls", above=0, high=1)


def imitation_weight(config: MAILConfig, env_steps: int, budget: int) -> float:
    """Return λ after so many env steps of a budget."""
    first = config.imitation_weight
    final = first * config.final_imitation_weight
    duration = max(1, round(config.imitation_share * budget))
    if config.imitation_schedule == "constant":
        return first
    if config.imitation_schedule == "linear":
        return linear(env_steps, first, final, duration)
    done = min(1.0, env_steps / duration)
    return final + (first - final) * 0.5 * (1.0 + math.cos(math.pi * done))


@register
class MAIL(Algorithm):
    """A2C of a factored policy that is cloned from demonstrations in the same updates."""

    name = "mail"
    title = "Multi-action imitation learning (notes on imitation learning)"
    summary = "A2C with several choices per step, and cloning of demonstrations in every update"
    Config = MAILConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=True,
        action_kinds=frozenset({"discrete", "multi_discrete", "multi_binary"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled", "greedy")
    metric_definitions: Mapping[str, str] = {
        **A2CLearner.metric_definitions,
        "imitation/loss": "L_IL, summed over the components of an action, nats",
        "imitation/loss_per_choice": "L_IL / K, nats",
        "imitation/agreement": "share of demonstrated choices that are the most likely ones",
        "imitation/weight": "λ",
    }

    learner: A2CLearner

    def __init__(self, problem: Problem, config: MAILConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        self.config, self.budget = config, problem.env_steps
        self.learner = A2CLearner(problem, config, self._loss)
        distribution = self.learner.actor.distribution
        self.observations = demos.observations.to(problem.device)
        self.actions = distribution.encode(demos.actions).to(problem.device)
        self.choices = problem.action.width if self.actions.ndim > 1 else 1  # K
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "imitation"))

    def iteration(self, world: World) -> Metrics:
        """Act, then make one step on rollout and demonstrations together."""
        weight = imitation_weight(self.config, world.env_steps, self.budget)
        rollout = self.learner.collect(world)
        rows = torch.randint(
            len(self.actions),
            (rollout.num_steps,),
            generator=self.generator,
            device=self.generator.device,
        )
        network = self.learner.actor.network
        demonstrated = {
            "demo_inputs": network.standardise(self.observations.index_select(0, rows)),
            "demo_actions": self.actions[rows],
            "imitation_weight": torch.full_like(network.log_std[0], weight),
        }
        metrics = self.learner.improve(rollout, rollout.rewards, beside=demonstrated)
        self.updates = self.learner.engine.count
        return metrics

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        learner, distribution = self.learner, self.learner.actor.distribution
        live, parts = learner.loss(parameters, target, batch)
        outputs, _ = functional_call(learner.networks, parameters, (batch["demo_inputs"],))
        actions, weight = batch["demo_actions"], batch["imitation_weight"]
        imitation = -distribution.log_prob(outputs, parameters["policy.log_std"], actions).mean()
        agree = distribution.mode(outputs) == actions
        return self.config.live_weight * live + weight * imitation, parts | {
            "imitation/loss": imitation,
            "imitation/loss_per_choice": imitation / self.choices,
            "imitation/agreement": agree.to(imitation.dtype).mean(),
            "imitation/weight": weight,
        }

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
