"""RWR: reward-weighted regression.

Peters and Schaal, "Reinforcement learning by reward-weighted regression for operational space
control", ICML 2007, in the form of Sigaud's lecture "Imitation Learning in RL". Every pair counts
as much as the return it belongs to says:

    L = -(1/N) Σ_i Σ_t w(ζ_i) log π(a_t|s_t)

    raw    w = R(ζ)                                         refused where a return is negative
    shift  w = (R - R_min) / (R_max - R_min)
    exp    w = min(exp((R - R̄) / (β σ_R)), w_max)           σ_R: std of the returns

each brought to mean |w| = 1, which only sets the size of the step. `rwr-offline` fits the
demonstrations once, as behavioural cloning does, with early stopping on the weighted loss; `rwr`
acts, adds what it did, and repeats.

Departures from the lecture:
  * its deterministic loss is printed with a minus, which would repel good trajectories; meant is +.
  * exp is the default: a raw negative return turns imitation into repulsion without bound.
  * `rwr` weighs by the return to go G_t = Σ γ^l r_{t+l} (`returns=steps`), not by the trajectory's;
    a truncated episode's rest is not known and not counted, since there is no value function.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    AlgorithmConfig,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.bc import BC, BCConfig
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.regression_learner import CollectFields, FitFields, RegressionLearner
from rlfd.algorithms.core.trajectories import DEMO_FIELDS, demo_pieces, returns_to_go
from rlfd.algorithms.core.weighting import WEIGHT_METRICS, WeightAudit, exponential_weights
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = [
    "RWR",
    "RWRConfig",
    "RWROffline",
    "RWROfflineConfig",
    "bare_weights",
    "to_mean_1",
    "weigh",
]

logger = logging.getLogger("rlfd.rwr")

Form = Literal["exp", "shift", "raw"]
Of = Literal["trajectories", "steps"]


@dataclass(frozen=True, kw_only=True)
class ReturnFields(AlgorithmConfig):
    """Hyperparameters of the weights."""

    readers: ClassVar[Readers] = {
        "form": {"exp": ("beta", "max_weight"), "shift": (), "raw": ("allow_negative",)}
    }

    form: Form = hyper("exp", "how a return becomes a weight")
    beta: float = hyper(1.0, "β, temperature in units of the returns' std (form=exp)", above=0)
    max_weight: float = hyper(20.0, "w_max, before weights are brought to mean 1", low=1)
    allow_negative: bool = hyper(False, "form=raw: repel where a return is negative")


@dataclass(frozen=True, kw_only=True)
class RWROfflineConfig(BCConfig, ReturnFields):
    """Hyperparameters of offline RWR."""

    returns: Of = hyper("trajectories", "weigh by a trajectory's return, or by the return to go")
    gamma: float = hyper(1.0, "γ, discount per env step", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class RWRConfig(FitFields, CollectFields, ReturnFields):
    """Hyperparameters of iterated RWR."""

    returns: Of = hyper("steps", "weigh by a trajectory's return, or by the return to go")
    actor_learning_rate: float = hyper(1e-3, "step size of the policy", above=0)
    beta: float = hyper(0.3, "β, temperature in units of the returns' std (form=exp)", above=0)


def bare_weights(
    returns: Tensor, form: Form, *, beta: float, max_weight: float, allow_negative: bool = False
) -> Tensor:
    """Return w of each return as the forms define it; all 1 where returns do not differ.

    Args:
        returns: R or G. Shape (M,).
        form: ``exp``, ``shift`` or ``raw``.
        beta: β in units of the returns' std.
        max_weight: w_max.
        allow_negative: Let raw weights be negative.

    Raises:
        RlfdError: If a raw weight would be negative.
    """
    lowest, highest = returns.min(), returns.max()
    if form == "raw":
        if lowest < 0 and not allow_negative:
            raise RlfdError(
                f"returns go down to {float(lowest):.4g}: taken as weights (form=raw) they would "
                "repel from those pairs, without bound",
                "use --set form=exp or form=shift, or --set allow_negative=true",
            )
        return returns
    if highest - lowest <= 1e-6 * torch.maximum(highest.abs(), lowest.abs()):  # rounding
        return torch.ones_like(returns)
    if form == "shift":
        return (returns - lowest) / (highest - lowest)
    std = returns.std(correction=0)
    return exponential_weights((returns - returns.mean()) / std, beta, max_weight)


def to_mean_1(weights: Tensor) -> Tensor:
    """Return weights (M,) with mean |w| = 1.

    Raises:
        RlfdError: If all are 0.
    """
    scale = weights.abs().mean()
    if scale == 0:
        raise RlfdError("all returns are 0: as weights (form=raw) they teach nothing")
    return weights / scale


def weigh(config: ReturnFields, returns: Tensor, audit: WeightAudit) -> tuple[Tensor, Metrics]:
    """Return w of each return (M,), with mean |w| = 1, and `WEIGHT_METRICS`."""
    weights = bare_weights(
        returns,
        config.form,
        beta=config.beta,
        max_weight=config.max_weight,
        allow_negative=config.allow_negative,
    )
    limit = config.max_weight if config.form == "exp" else float("inf")
    return to_mean_1(weights), audit(weights, returns, limit)


def returns_of(pieces: Batch, of: Of, gamma: float) -> Tensor:
    """Return for each row its piece's return, discounted from its start, or its return to go."""
    to_go = returns_to_go(pieces, gamma)
    if of == "steps":
        return to_go
    piece = torch.cumsum(pieces["ended"], 0) - pieces["ended"].long()
    first = torch.cat([piece.new_ones(1), piece.diff()]) > 0
    return to_go[first][piece]


def _warn_if_equal(weights: Tensor) -> None:
    if bool((weights == weights[0]).all()):
        logger.warning("all returns are equal, so are the weights: this is behavioural cloning")


@register
class RWROffline(Algorithm):
    """Reward-weighted regression on demonstrations alone."""

    name = "rwr-offline"
    title = "Reward-weighted regression (Peters and Schaal, 2007), on demonstrations alone"
    summary = "behavioural cloning in which every trajectory counts as much as its return says"
    Config = RWROfflineConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=False,
        demo_fields=DEMO_FIELDS,
        action_kinds=BC.needs.action_kinds,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {**BC.metric_definitions, **WEIGHT_METRICS}

    learner: BC

    def __init__(self, problem: Problem, config: RWROfflineConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        returns = returns_of(demo_pieces(demos, demos.actions), config.returns, config.gamma)
        weights, self.weight_metrics = weigh(config, returns, WeightAudit("a larger --set beta"))
        _warn_if_equal(weights)
        self.learner = BC(problem, config, weights=weights)

    @property
    def epochs(self) -> int | None:
        """Passes over the training trajectories so far."""
        return self.learner.epochs

    @property
    def finished(self) -> bool:
        """Whether training has stopped and the best parameters are back in place."""
        return self.learner.finished

    def iteration(self, world: World | None) -> Metrics:
        """Make one pass over the training trajectories, then look at the held-out ones."""
        metrics = self.learner.iteration(world)
        self.updates = self.learner.updates
        return metrics | self.weight_metrics

    def conclude(self) -> None:
        """Put the best parameters back in place."""
        self.learner.conclude()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.act(observations, greedy=greedy, generator=generator)


@register
class RWR(Algorithm):
    """Reward-weighted regression on what the policy itself did."""

    name = "rwr"
    title = "Reward-weighted regression (Peters and Schaal, 2007)"
    summary = "regression on remembered actions, weighted by the returns that followed"
    Config = RWRConfig
    needs = Needs(
        demonstrations=False,
        reward=True,
        interaction=True,
        action_kinds=BC.needs.action_kinds,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **RegressionLearner.metric_definitions,
        **WEIGHT_METRICS,
    }

    learner: RegressionLearner

    def __init__(self, problem: Problem, config: RWRConfig) -> None:
        self.config = config
        self.learner = RegressionLearner(
            problem,
            config,
            capacity=config.buffer_size,
            iterations=config.iterations(problem),
            whole=True,
        )
        self.audit = WeightAudit("a larger --set beta")

    def iteration(self, world: World) -> Metrics:
        """Act, weigh everything that is remembered, fit the policy to it."""
        config, learner = self.config, self.learner
        learner.collect(world, config)
        if len(learner.buffer) == 0:  # no episode is over yet
            return {}
        returns = returns_of(learner.buffer.data, config.returns, config.gamma)
        weights, metrics = weigh(config, returns, self.audit)
        metrics |= learner.improve(learner.inputs(), weights)
        self.updates = learner.engine.count
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)
