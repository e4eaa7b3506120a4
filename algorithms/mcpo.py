"""MCPO: mimicry-constrained policy optimisation.

Jing and Ma, "Mimicry Constraint Policy Optimization", submitted 2019; the later version is "RL from
imperfect demonstrations under soft expert guidance", AAAI 2020. Equation numbers are those of the
submitted version. Around the policy θ_k, with x = θ - θ_k:

    maximise g·x   subject to   b·x + c ≤ 0,   ½ x·Hx ≤ δ                              (eq 4)

g: policy gradient of the reward. b: gradient of the MMD to the demonstrations, which is the policy
gradient of its witness (`gmmil.py`). c = MMD_k - d_k, positive where the constraint is violated.
H: curvature of the mean KL. Where nothing satisfies both, a recovery step lowers the MMD (eq 7).
The tolerance grows, d_{k+1} = d_k (1 + ε), so that demonstrations guide the beginning and do not
cap the end.

Departures from the paper:
  * eqs 5 and 6 hold for -g (the paper maximises in eq 4 and minimises from there on); eq 2 prints
    an objective that is identically 0, the importance ratio is meant.
  * eq 8's kernel has one bandwidth for all blocks (`core/mmd.py`), frozen after some rollouts, so
    that d keeps its unit.
  * recovery steps have a radius of their own, and the witness its own γ and λ.
  * d_0 is a fraction of the first rollout's MMD (`d0_rel`), unless given (`d0`).
  * d grows only in iterations in which the smoothed return of episodes sets a record
    (`core/return_record.py`), so that it does not let go before the reward has taught anything;
    the paper's d grows in all of them (`growth=always`, `--preset paper`).
  * episodes that fall go on until the horizon (`absorbing`, see `gmmil.py`): b is ∇MMD over the
    whole of it, of which pairs have only a share.
  * a batch without any reward has advantage 0; standardised, it would be noise of full size.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.mmd import Mismatch
from rlfd.algorithms.core.on_policy import Estimate, explained_variance, prepare
from rlfd.algorithms.core.return_record import ReturnRecord
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trpo_learner import TRPOLearner, ValueFunction
from rlfd.algorithms.core.trust_region import LineSearch, LocalModel
from rlfd.algorithms.gmmil import (
    MMD_METRICS,
    ImitationReward,
    Matching,
    MatchingFields,
    matching_steps,
)
from rlfd.algorithms.registry import register

__all__ = ["MCPO", "Case", "MCPOConfig", "Step", "constrained_step"]

logger = logging.getLogger("rlfd.mcpo")

Case = Literal["0a", "0b", "1", "2a", "2b", "3", "4", "5", "6"]

VANISHING = 1e-12  # q and s below this: there is no gradient
PARALLEL = 1e-10  # A / q below this: g and b are parallel
FLOOR_FACTOR = 1.5  # tolerances below this many floors of the MMD cannot be met
LARGEST_MMD = 2.0  # of two Gaussians; a tolerance like this allows everything

OF_WITNESS = {"loss/value": "loss/witness", "optim/grad_norm": "optim/witness_grad_norm"}


@dataclass(frozen=True, kw_only=True)
class MCPOConfig(MatchingFields):
    """Hyperparameters of MCPO."""

    d0_rel: float = hyper(0.25, "d_0 as a fraction of the first rollout's MMD", low=0)
    d0: float = hyper(
        -1.0, "d_0 itself; negative = by d0_rel; 2 or more = no constraint, which is TRPO", low=-1
    )
    epsilon: float = hyper(0.005, "ε, growth of the tolerance per iteration; 0 = fixed", low=0)
    growth: Literal["return", "always"] = hyper(
        "return", "the tolerance grows where the return of episodes sets a record, or always"
    )
    d_max: float = hyper(2.0, "the tolerance grows up to this; no MMD is larger than 2", low=0)
    slack: float = hyper(0.01, "how far an active constraint may be missed by a step", low=0)
    recovery: Literal["step", "gmmil"] = hyper(
        "step", "where the constraint cannot be met: one step down the MMD, or several by GMMIL"
    )
    recovery_radius: float = hyper(4.0, "δ of the recovery step, in units of δ", above=0)
    recovery_steps: int = hyper(4, "steps of radius δ from one rollout (recovery=gmmil)", low=1)
    gamma_f: float = hyper(0.98, "γ of the witness's advantages", low=0, high=1)
    lambda_f: float = hyper(0.95, "λ of the witness's advantages", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Step:
    """The solution of eq 4, x = on_u u + on_w w with u = H⁻¹g and w = H⁻¹b.

    Attributes:
        case: Which case it is; see `constrained_step`.
        on_u: Coefficient of u.
        on_w: Coefficient of w.
        lam: λ, multiplier of the trust region; 0 where eq 4 has no solution.
        nu: ν, multiplier of the constraint; 0 where eq 4 has no solution.
    """

    case: Case
    on_u: float
    on_w: float
    lam: float = 0.0
    nu: float = 0.0


def constrained_step(
    q: float, p: float, s: float, c: float, delta: float, *, recovery_delta: float | None = None
) -> Step:
    """Solve eq 4 in closed form, by its optimality conditions.

    Stationarity is g - νb - λHx = 0. If both constraints are active, b·x = -c gives
    ν = (p + λc) / s, and x·Hx = 2δ then gives A / λ² + c² / s = 2δ.

        0a  no constraint gradient, satisfied       the TRPO step √(2δ/q) u
        0b  no constraint gradient, violated        no step
        1   infeasible                              recovery -√(2δ'/s) w              (eq 7)
        2a  no reward gradient, satisfied           no step
        2b  no reward gradient, violated            -(c/s) w, the shortest that restores
        3   the trust region satisfies the rest     the TRPO step
        4   the TRPO step satisfies the constraint  the TRPO step
        5   g parallel to b                         -(c/s) w
        6   both active                             -(c/s) w + √(B/A) (u - (p/s) w)

    The sign of g is that of the objective, as in eq 4; eqs 5 and 6 of the paper hold for -g.

    Args:
        q: g·H⁻¹g, at least 0.
        p: g·H⁻¹b.
        s: b·H⁻¹b, at least 0.
        c: MMD_k - d_k; may be -inf.
        delta: δ > 0.
        recovery_delta: δ', radius of case 1. None = δ.
    """
    if s <= VANISHING:
        return Step("0b", 0.0, 0.0) if c > 0.0 else _trust_region_step("0a", q, delta)
    if c > 0.0 and c**2 / s >= 2.0 * delta:
        radius = delta if recovery_delta is None else recovery_delta
        return Step("1", 0.0, -math.sqrt(2.0 * radius / s))
    if q <= VANISHING:
        return Step("2b", 0.0, -c / s) if c > 0.0 else Step("2a", 0.0, 0.0)
    if c <= 0.0 and c**2 / s >= 2.0 * delta:
        return _trust_region_step("3", q, delta)
    if p * math.sqrt(2.0 * delta / q) + c <= 0.0:
        return _trust_region_step("4", q, delta)
    a = q - p**2 / s  # A, at least 0 by Cauchy and Schwarz
    if a <= PARALLEL * q:
        return Step("5", 0.0, -c / s, nu=p / s)
    ratio = math.sqrt((2.0 * delta - c**2 / s) / a)  # √(B/A) = 1/λ
    return Step("6", ratio, -c / s - ratio * p / s, lam=1.0 / ratio, nu=(p + c / ratio) / s)


def _trust_region_step(case: Case, q: float, delta: float) -> Step:
    if q <= VANISHING:
        return Step(case, 0.0, 0.0)
    return Step(case, (2.0 * delta / q) ** 0.5, 0.0, lam=math.sqrt(q / (2.0 * delta)))


@register
class MCPO(Algorithm):
    """Policy search whose state-action pairs stay close to those of the demonstrations."""

    name = "mcpo"
    title = "Mimicry Constraint Policy Optimization (Jing and Ma, 2019)"
    summary = "TRPO on the reward, within a growing MMD distance of the demonstrations"
    Config = MCPOConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **TRPOLearner.metric_definitions,
        **MMD_METRICS,
        "mmd/tolerance": "d_k",
        "mmd/violation": "c = MMD - d_k; positive = violated",
        "mmd/predicted_change": "change of the MMD that the last iteration's step promised",
        "mmd/actual_change": "change of the MMD that came of it",
        "mcpo/lambda": "λ, multiplier of the trust region (0 in cases 0b, 1, 2)",
        "mcpo/nu": "ν, multiplier of the mimicry constraint (0 in cases 0b, 1, 2)",
        "mcpo/searched": "share of iterations with a step to search along",
        "value/witness_explained_variance": "that of the witness's value function",
        "loss/witness": "mean squared error of the witness's value function",
        "optim/witness_grad_norm": "norm of its gradient",
        **{f"case/{case}": f"share of iterations in case {case}" for case in get_args(Case)},
    }

    learner: TRPOLearner

    def __init__(self, problem: Problem, config: MCPOConfig) -> None:
        self.config = config
        self.learner = TRPOLearner(problem, config)
        actor = self.learner.actor
        self.matching = Matching(problem, config, actor.distribution, config.gamma_f)
        self.witness_value = ValueFunction(problem, config, actor, "witness")
        self.record = ReturnRecord(problem.num_envs, problem.device)
        self.iterations = self.growths = 0  # k; in how many of them the tolerance grew
        self.first_tolerance = config.d0
        self.last_mmd = self.last_prediction = 0.0
        self._warned = False

    @property
    def tolerance(self) -> float:
        """d_k = d_0 (1 + ε)^growths, up to d_max."""
        try:
            growth = (1.0 + self.config.epsilon) ** self.growths
        except OverflowError:
            growth = sys.float_info.max
        return min(self.first_tolerance * growth, max(self.config.d_max, self.first_tolerance))

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop."""
        learner = self.learner
        rollout = learner.collect(world)
        imitation = self.matching.begin(rollout)
        mmd = float(imitation.mismatch.mmd)
        if self.iterations == 0 and self.config.d0 < 0.0:
            self.first_tolerance = self.config.d0_rel * mmd
        self._check_tolerance(imitation.mismatch.floor)
        changes = {
            "mmd/predicted_change": self.last_prediction,
            "mmd/actual_change": mmd - self.last_mmd if self.iterations > 0 else 0.0,
        }

        rewards, _ = learner.scaler(rollout.rewards, rollout.ended, None)
        estimated = learner.value.estimate(rollout, rewards)
        witness = self._estimate_witness(rollout, imitation)
        metrics = self._improve(rollout, estimated, witness, imitation.mismatch)
        fit = self.witness_value.fit(rollout.observations, witness.targets)
        metrics |= learner.finish(rollout, estimated)

        metrics |= self.matching.metrics(imitation.mismatch)
        metrics |= {"value/witness_explained_variance": explained_variance(witness)}
        metrics |= {OF_WITNESS[name]: value for name, value in fit.items()}
        self.last_mmd = mmd
        self.iterations += 1
        record = self.record(rollout.rewards, rollout.ended)
        self.growths += record or self.config.growth == "always"  # d_{k+1} = d_k (1 + ε)
        self.updates = learner.engine.count
        return metrics | {name: torch.tensor(value) for name, value in changes.items()}

    def _check_tolerance(self, floor: float) -> None:
        if self._warned or self.tolerance >= FLOOR_FACTOR * floor:
            return
        self._warned = True
        logger.warning(
            "the tolerance d = %.3g is less than %.3g, which finite samples of the demonstrator's "
            "own behaviour may differ by: the constraint can hardly be met; raise d0 or d0_rel, or "
            "give more demonstrations",
            self.tolerance,
            FLOOR_FACTOR * floor,
        )

    def _estimate_witness(self, rollout: Rollout, imitation: ImitationReward) -> Estimate:
        """Estimate advantages of -f / MMD: centred, never standardised: c has the same unit."""
        estimated = self.witness_value.estimate(
            rollout,
            imitation.rewards,
            gamma=self.config.gamma_f,
            gae_lambda=self.config.lambda_f,
            terminal_values=imitation.terminal_values,
        )
        advantages = estimated.advantages
        return Estimate(advantages - advantages.mean(), estimated.targets)

    @timed("update")
    def _improve(
        self, rollout: Rollout, estimated: Estimate, witness: Estimate, mismatch: Mismatch
    ) -> Metrics:
        """Make the step of one iteration."""
        config, learner, tolerance = self.config, self.learner, self.tolerance
        mmd = float(mismatch.mmd)
        c = mmd - tolerance if tolerance < LARGEST_MMD else -math.inf  # c > 0: violated
        advantages = prepare(estimated.advantages, config).flatten()
        if not bool(rollout.rewards.any()):
            advantages = torch.zeros_like(advantages)
        mimicry = float(mismatch.share) * witness.advantages.flatten()
        local = learner.local_model(rollout)
        g = local.gradient(advantages, config.entropy_weight)
        b = -local.gradient(mimicry)
        u, w = local.solve(g), local.solve(b)
        # with H u and H w, not g and b: then A ≥ 0 also where conjugate gradients stopped early
        hu, hw = local.fisher_product(u), local.fisher_product(w)
        step = constrained_step(
            float(u.dot(hu)),
            float(u.dot(hw)),
            float(w.dot(hw)),
            c,
            config.delta,
            recovery_delta=config.recovery_radius * config.delta,
        )
        if step.case == "1" and config.recovery == "gmmil":
            metrics = matching_steps(
                learner,
                rollout,
                witness.advantages,
                lambda ratios: (
                    self._estimate_witness(
                        rollout, self.matching.reward(rollout, ratios)
                    ).advantages
                ),
                config.recovery_steps,
            )
        else:
            x = step.on_u * u + step.on_w * w
            search = self._search(local, step, x, advantages, mimicry, mmd)
            metrics = learner.report(local, search, advantages)
        theta = learner.trust_region.read()
        self.last_prediction = -float(local.surrogate(theta, mimicry))
        scalars = {
            "mmd/tolerance": tolerance,
            "mmd/violation": mmd - tolerance,
            "mcpo/lambda": step.lam,
            "mcpo/nu": step.nu,
            "mcpo/searched": float(step.on_u != 0.0 or step.on_w != 0.0),
        } | {f"case/{case}": float(case == step.case) for case in get_args(Case)}
        return metrics | {name: torch.tensor(value) for name, value in scalars.items()}

    def _search(
        self,
        local: LocalModel,
        step: Step,
        x: Tensor,
        advantages: Tensor,
        mimicry: Tensor,
        mmd: float,
    ) -> LineSearch:
        """Take the longest tried part of x that keeps what it promises. Advantages (B,)."""
        config = self.config
        if step.on_u == 0.0 and step.on_w == 0.0:
            return LineSearch(False, 0, 0.0, local.theta)
        restores, active = step.case in ("1", "2b"), step.case in ("5", "6")
        radius = config.delta * (config.recovery_radius if step.case == "1" else 1.0)
        limit = mmd if restores else max(self.tolerance, mmd) + config.slack
        entropy = local.entropy(local.theta)

        def accept(theta: Tensor) -> bool:
            if not bool(local.kl(theta) <= config.kl_tolerance * radius):
                return False
            promised = mmd - float(local.surrogate(theta, mimicry))
            if (restores or active) and not promised < limit:
                return False
            if restores or mmd > self.tolerance:
                return True
            gain = local.surrogate(theta, advantages)
            gain = gain + config.entropy_weight * (local.entropy(theta) - entropy)
            return bool(gain > 0)

        return local.line_search(
            x, accept, shrink=config.line_search_shrink, tries=config.line_search_tries
        )

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "matching": self.matching.state_dict(),
            "witness": self.witness_value.state_dict(),
            "record": self.record.state_dict(),
            "iterations": self.iterations,
            "growths": self.growths,
            "first_tolerance": self.first_tolerance,
            "last": torch.tensor([self.last_mmd, self.last_prediction], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.matching.load_state_dict(state["matching"])
        self.witness_value.load_state_dict(state["witness"])
        self.record.load_state_dict(state["record"])
        self.iterations, self.growths = int(state["iterations"]), int(state["growths"])
        self.first_tolerance = float(state["first_tolerance"])
        self.last_mmd, self.last_prediction = state["last"].tolist()
