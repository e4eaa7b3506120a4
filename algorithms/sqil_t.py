"""SQIL-T: soft Q imitation learning on the tighter bound, with an explicit cloning term.

Appendix A.1 of the paper named in `rlfd.algorithms.sqil`; its conference version calls the same
form regularised behavioural cloning. With B of eq 16 and trajectories ζ of the demonstrations:

    ℓ_T = α Σ_ζ Σ_t -(Q(s_t, a_t) - V(s_t)) + λ_demo B(D_demo, 0) + λ_samp B(D_samp, 0)     (eq 19)
    ℓ   = ℓ_T - α Σ_ζ V(s_0)                                                                (eq 15)

`value_at_start=true` minimises eq 15 instead. Sums are estimated by means over minibatches, all
divided by |D_demo|. α = 2 λ_demo r corresponds to SQIL's reward r (eq 18): the gradient of eq 15 is
that of λ_demo B(D_demo, r) + λ_samp B(D_samp, 0), and α (1 - γ) Σ_ζ Σ_{t ≥ 1} ∇V(s_t) besides. This
stands on ∇V(s') in B(D_demo, 0): what cloning takes from V(s_t), the step before gives back.

What a demonstrated state is worth comes from its boundary alone: cloning is indifferent to V. With
V = 0 after a demonstrated end, eq 19 wants δ = 0, so that all of them are worth nothing, less than
the entropy of hovering beside them. With SQIL's terminal rule (`absorbing=value`) an end is worth
r / (1 - γ), and V(s_t) = γ^(T - t) r / (1 - γ) rises towards it.

Departures from the paper in the default settings: those of `rlfd.algorithms.sqil`, the terminal
rule among them, except that V(s') is differentiated through after demonstrated transitions
(`mode=demos`), where the derivation needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.absorbing import check_discount
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, select
from rlfd.algorithms.registry import register
from rlfd.algorithms.sqil import (
    MODE,
    BootstrapMode,
    SoftImitationConfig,
    SoftImitationLoop,
    squared_soft_bellman_errors,
)
from rlfd.errors import RlfdError

__all__ = ["SQILT", "SQILTConfig", "cloning_losses"]


@dataclass(frozen=True, kw_only=True)
class SQILTConfig(SoftImitationConfig):
    """Hyperparameters of SQIL-T."""

    mode: BootstrapMode = hyper("demos", MODE)
    temperature: float = hyper(0.05, "τ of V and π; the paper's is 1", above=0)
    absorbing: Literal["off", "value"] = hyper(
        "value", "a demonstrated end is worth 0, or r / (1 - γ) with r = α / (2 λ_demo)"
    )
    alpha: float = hyper(2.0, "α, weight of the cloning term", low=0)
    lambda_demo: float = hyper(1.0, "λ_demo, weight of the demonstrations' Bellman error", low=0)
    value_at_start: bool = hyper(False, "add -α V(s_0) of each demonstration: eq 15, not eq 19")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)
        if self.absorbing == "value" and self.lambda_demo == 0.0:
            raise RlfdError(
                "absorbing=value needs lambda_demo > 0: the Bellman error is what it acts on",
                "set absorbing=off",
            )

    @property
    def end_value(self) -> float:
        """V after a demonstrated termination."""
        if self.absorbing == "off":
            return 0.0
        return self.alpha / (2.0 * self.lambda_demo) / (1.0 - self.gamma)  # r of eq 18, for ever


def cloning_losses(q_values: Tensor, actions: Tensor, temperature: float) -> Tensor:
    """Return -(Q(s, a) - V(s)) = -τ log π(a|s), the summands of eq 19's first term.

    Args:
        q_values: Shape (B, A).
        actions: Demonstrated actions. Shape (B,).
        temperature: τ.

    Returns:
        Shape (B,).
    """
    return soft.soft_value(q_values, temperature) - select(q_values, actions)


@register
class SQILT(Algorithm):
    """SQIL-T."""

    name = "sqil-t"
    title = "What Would π* Do?, appendix A.1 (Reddy et al., 2018); regularised behavioural cloning"
    summary = "cloning plus soft Bellman errors with reward 0: SQIL's tighter bound"
    Config = SQILTConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled", "greedy")
    metric_definitions: Mapping[str, str] = {
        "loss/cloning": "mean of -(Q(s, a) - V(s)) over demonstrated transitions",
        "loss/demo": "B(D_demo, 0) / |D_demo|: mean squared soft Bellman error of demonstrations",
        "loss/own": "B(D_samp, 0) / |D_samp|: the same for own transitions",
        "q/demo": "mean of Q(s, a) over demonstrated transitions",
        "q/own": "mean of Q(s, a) over own transitions",
        "policy/demo_likelihood": "mean of π(a|s) over demonstrated transitions",
        "policy/entropy": "entropy of π at own states, nats",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    learner: QLearner

    def __init__(self, problem: Problem, config: SQILTConfig) -> None:
        self.config = config
        self.learner = QLearner(problem, config, self._loss, use_target=config.use_target)
        self.loop = SoftImitationLoop(
            problem, config, self.learner, with_starts=config.value_at_start
        )
        # starts are drawn one per transition, but there is one per trajectory
        self._start_share = self.loop.demos.num_episodes / len(self.loop.demos)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, loop, values = self.config, self.loop, self.learner.values
        q_values = values(parameters, loop.on_both(batch, "observations"))  # (2n, A)
        q = select(q_values, loop.on_both(batch, "actions"))  # (2n,)
        next_values = loop.values_after(
            parameters, target, loop.on_both(batch, "next_observations")
        )
        (demo_q_values, own_q_values), (demo_q, own_q) = q_values.chunk(2), q.chunk(2)
        demo_next, own_next = next_values.chunk(2)

        cloning = cloning_losses(demo_q_values, batch["demo/actions"], config.temperature).mean()
        after_end = torch.where(batch["demo/terminated"], config.gamma * config.end_value, 0.0)
        demo_error = squared_soft_bellman_errors(
            demo_q, after_end, batch["demo/discounts"], demo_next
        ).mean()
        own_error = squared_soft_bellman_errors(own_q, 0.0, batch["own/discounts"], own_next).mean()
        loss = (
            config.alpha * cloning
            + config.lambda_demo * demo_error
            + batch["own/weight"] * own_error
        )  # eq 19
        if config.value_at_start:
            start_q_values = values(parameters, batch["demo/starts"])
            start_value = soft.soft_value(start_q_values, config.temperature).mean()
            loss = loss - config.alpha * self._start_share * start_value  # eq 15

        log_probs = soft.boltzmann_log_probs(demo_q_values, config.temperature)
        return loss, {
            "loss/cloning": cloning,
            "loss/demo": demo_error,
            "loss/own": own_error,
            "q/demo": demo_q.mean(),
            "q/own": own_q.mean(),
            "policy/demo_likelihood": select(log_probs, batch["demo/actions"]).exp().mean(),
            "policy/entropy": soft.boltzmann_entropy(own_q_values, config.temperature).mean(),
        }

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop, with this method's loss."""
        self.updates += self.loop.iteration(world, self.updates)
        return self.learner.engine.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return samples of π (eq 1), or its most likely actions."""
        temperature = self.config.temperature
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)
