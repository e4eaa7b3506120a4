"""MARWIL: monotonic advantage re-weighted imitation learning, on demonstrations alone.

Wang, Xiong, Han, Sun, Liu and Zhang, "Exponentially Weighted Imitation Learning for Batched
Historical Data", NeurIPS 2018. With returns to go G and a value function V trained on them:

    Â = (G - V(s)) / c                     c² ← c² + κ (E[(G - V)²] - c²)
    L_π = -E[exp(β' Â) log π(a|s)]         no gradient through Â
    L_V = ½ E[(G - V(s))²]

β' = 0 is behavioural cloning; with β' = c / β it is one iteration of AWR. `mode=awr` makes exactly
that: V first, until held-out trajectories' error stops falling, then the weights once, then the
policy.

Departures from the paper:
  * V has a network and an optimiser of its own, and is standardised by the returns' spread.
  * the exponent is clipped to at most log w_max.
  * early stopping on held-out trajectories, as in behavioural cloning (`bc.py` is the policy's
    part), on the weighted loss.
  * a truncated episode's G is bootstrapped from V at its true end, computed anew in every pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
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
from rlfd.algorithms.bc import BC, BCConfig
from rlfd.algorithms.core.critic import CRITIC_METRICS, Critic, explained
from rlfd.algorithms.core.offline import early_stopping
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.trajectories import (
    DEMO_FIELDS,
    demo_pieces,
    lambda_returns,
    returns_to_go,
)
from rlfd.algorithms.core.weighting import WEIGHT_METRICS, WeightAudit, exponential_weights
from rlfd.algorithms.registry import register

__all__ = ["MARWIL", "MARWILConfig"]


def _judged(values: list[Tensor], judge: Tensor) -> Tensor:
    """Of several critics' values, each (B,), take for each row that of its judge (B,)."""
    return torch.stack(values).gather(0, judge[None])[0]


@dataclass(frozen=True, kw_only=True)
class MARWILConfig(BCConfig):
    """Hyperparameters of MARWIL, besides those of behavioural cloning."""

    readers: ClassVar[Readers] = {"mode": {"joint": ("norm_rate",), "awr": ()}}

    mode: Literal["joint", "awr"] = hyper(
        "joint", "train V and the policy together, or V first and then the policy"
    )
    beta: float = hyper(1.0, "β', inverse temperature; 0 = behavioural cloning", low=0)
    max_weight: float = hyper(20.0, "w_max, weights are clipped to this", low=1)
    norm_rate: float = hyper(1e-3, "κ, how fast c² follows (mode=joint)", low=0, high=1)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    td_lambda: float = hyper(1.0, "λ of the returns; 1 = Monte Carlo", low=0, high=1)
    crossfit: bool = hyper(
        False, "two value functions, each for the half of the trajectories it was not fitted to"
    )
    value_learning_rate: float = hyper(1e-3, "Adam's step size of V", above=0)
    batch_size: int = hyper(512, "pairs per update", low=1)
    l2: float = hyper(0.0, "λ_2, weight of the squared parameters", low=0)
    entropy_weight: float = hyper(0.0, "β_H, weight of the policy's entropy", low=0)
    hidden: tuple[int, ...] = hyper((128, 64), "widths of the hidden layers", low=1)


@register
class MARWIL(Algorithm):
    """Behavioural cloning weighted by exponentiated advantages."""

    name = "marwil"
    title = (
        "Exponentially Weighted Imitation Learning for Batched Historical Data (Wang et al., 2018)"
    )
    summary = "behavioural cloning weighted by exp(advantage), on demonstrations with rewards"
    Config = MARWILConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=False,
        demo_fields=DEMO_FIELDS,
        action_kinds=BC.needs.action_kinds,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **BC.metric_definitions,
        **CRITIC_METRICS,
        **WEIGHT_METRICS,
        "value/norm": "c, what advantages are divided by",
        "value/validation": "½ E[(G - V)²] on held-out trajectories, in units of the returns' std",
    }

    learner: BC

    def __init__(self, problem: Problem, config: MARWILConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        self.config = config
        rows = torch.arange(demos.num_transitions, device=problem.device)
        self.learner = BC(problem, config, extra={"rows": rows})
        pieces = demo_pieces(demos, demos.actions)
        self.pieces = {name: value.to(problem.device) for name, value in pieces.items()}
        self._standardise()
        names = ("value 0", "value 1") if config.crossfit else ("value",)
        # whose V judges a row: with cross-fitting that of the other half of the trajectories
        self.judge = demos.episode_ids.to(problem.device) % len(names)
        self.returns = returns_to_go(self.pieces, config.gamma)
        std = float(self.returns.std(correction=0))
        self.critics = [
            Critic(
                problem,
                num_inputs=self.inputs.shape[1],
                hidden=config.hidden,
                activation=config.activation,
                optimiser=Adam(
                    config.value_learning_rate, planned_updates=self.learner.planned_updates
                ),
                offset=float(self.returns.mean()),
                scale=std if std > 1e-8 else 1.0,
                name=name,
            )
            for name in names
        ]
        self.squared_norm = torch.zeros((), device=problem.device)  # c²; 0 = not known yet
        self.audit = WeightAudit("a smaller --set beta")
        self.value_stopping = [early_stopping(config) for _ in names]
        self.value_ready = config.mode == "joint"
        self.value_epochs = 0
        self._estimate()

    @property
    def epochs(self) -> int:
        """Passes over the training trajectories so far, those of V alone included."""
        return self.value_epochs + self.learner.passes.epoch

    @property
    def finished(self) -> bool:
        """Whether training has stopped and the best policy is back in place."""
        return self.learner.finished

    def _standardise(self) -> None:
        """Take over how the policy sees observations: V sees them so, too."""
        self.inputs = self.learner.network.standardise(self.pieces["observations"])

    # -- V and the weights ------------------------------------------------------------------------

    def _values(self, inputs: Tensor, judge: Tensor) -> Tensor:
        """V at inputs (B, D), each by its judge (B,). Shape (B,)."""
        return _judged([critic.values(inputs) for critic in self.critics], judge)

    def _estimate(self) -> Tensor:
        """Compute G with V as it is, for all rows; return V(s). Shape (M,)."""
        pieces, config = self.pieces, self.config
        values, ended = self._values(self.inputs, self.judge), pieces["ended"]
        after = self.learner.network.standardise(pieces["next_observations"][ended])
        self.returns = lambda_returns(
            pieces,
            values,
            self._values(after, self.judge[ended]),
            gamma=config.gamma,
            lam=config.td_lambda,
        )
        return values

    def _fit_value(self, rows: Tensor) -> Tensor:
        """Take one step of L_V; return V(s) as it was before. Shape (B,)."""
        judge, values = self.judge[rows], []
        for index, critic in enumerate(self.critics):
            weights = None
            if len(self.critics) > 1:  # not on those it is to judge
                weights = 2.0 * (judge != index).to(self.returns)
            values.append(critic.step(self.inputs[rows], self.returns[rows], weights))
        return _judged(values, judge)

    def _follow(self, advantages: Tensor) -> None:
        """c² ← c² + κ (E[(G - V)²] - c²); the first minibatch sets it."""
        square = advantages.square().mean()
        moved = torch.lerp(self.squared_norm, square, self.config.norm_rate)
        self.squared_norm = torch.where(self.squared_norm > 0.0, moved, square)

    def _weigh(self, advantages: Tensor) -> Tensor:
        """exp(β' Â), clipped. Shape (B,)."""
        scaled = advantages / self.squared_norm.clamp(min=1e-12).sqrt()
        return exponential_weights(self.config.beta * scaled, 1.0, self.config.max_weight)

    # -- the loop ---------------------------------------------------------------------------------

    def iteration(self, world: World | None) -> Metrics:
        """Make one pass over the training trajectories, then look at the held-out ones."""
        metrics = self._policy_pass() if self.value_ready else self._value_pass()
        critics = [critic.drain() for critic in self.critics]
        for name in critics[0]:
            metrics[name] = torch.stack([metric[name] for metric in critics]).mean()
        return metrics

    def _policy_pass(self) -> Metrics:
        joint, passes = self.config.mode == "joint", self.learner.passes
        for batch in passes.minibatches():
            rows = batch.pop("rows")
            if joint:
                advantages = self.returns[rows] - self._fit_value(rows)
                self._follow(advantages)
            else:
                values = self._values(self.inputs[rows], self.judge[rows])
                advantages = self.returns[rows] - values
            weights = batch["weights"] * self._weigh(advantages)
            self.learner.engine.step(batch | {"weights": weights})
            self.updates += 1
        values = self._estimate() if joint else self._values(self.inputs, self.judge)
        return self._close(self.returns - values)

    def _close(self, advantages: Tensor) -> Metrics:
        """End a pass of the policy: validate with the weights as they are now."""
        weights, held_out = self._weigh(advantages), self.learner.passes.validation
        rows = held_out["rows"]
        # as large in one pass as in another, though V, and so the weights, change in between
        loss, accuracy = self.learner.validate(weights[rows] / weights[rows].mean())
        self.learner.passes.close(float(loss), self.learner.engine)
        return (
            self.learner.engine.drain()
            | self.audit(weights, advantages, self.config.max_weight)
            | self._value_metrics(advantages)
            | {
                "loss/validation": loss,
                "policy/accuracy": accuracy,
                "value/norm": self.squared_norm.sqrt(),
            }
        )

    def _value_metrics(self, advantages: Tensor) -> Metrics:
        errors = advantages[self.learner.passes.validation["rows"]] / self.critics[0].scale
        return {
            "value/explained_variance": explained(self.returns, self.returns - advantages),
            "value/validation": 0.5 * errors.square().mean(),
        }

    def _value_pass(self) -> Metrics:
        """Make one pass of V alone (mode=awr); the last one settles the weights."""
        passes = self.learner.passes
        for batch in passes.minibatches():
            self._fit_value(batch["rows"])
            self.updates += 1
        metrics = self._value_metrics(self.returns - self._estimate())
        loss = float(metrics["value/validation"])
        updates = passes.epoch * passes.epoch_updates
        stops = [
            stopping.observe(loss, critic.engine.parameters, updates)
            for stopping, critic in zip(self.value_stopping, self.critics, strict=True)
        ]
        if all(stops) or passes.epoch >= self.config.max_epochs:
            for stopping, critic in zip(self.value_stopping, self.critics, strict=True):
                critic.engine.load_parameters(stopping.kept)
            self._follow(self.returns - self._estimate())
            self.value_epochs, passes.epoch, self.value_ready = passes.epoch, 0, True
        return metrics

    def conclude(self) -> None:
        """Put the best policy back in place."""
        self.learner.conclude()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.act(observations, greedy=greedy, generator=generator)

    def start_from(self, policy: dict[str, Tensor]) -> None:
        """Begin with another run's policy, and its statistics of observations for V."""
        super().start_from(policy)
        self._standardise()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next pass depends on."""
        return super().state_dict() | {
            "critics": [critic.state_dict() for critic in self.critics],
            "value_stopping": [stopping.state_dict() for stopping in self.value_stopping],
            "value_ready": self.value_ready,
            "value_epochs": self.value_epochs,
            "returns": self.returns.clone(),
            "squared_norm": self.squared_norm.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._standardise()
        for critic, kept in zip(self.critics, state["critics"], strict=True):
            critic.load_state_dict(kept)
        for stopping, kept in zip(self.value_stopping, state["value_stopping"], strict=True):
            stopping.load_state_dict(kept)
        self.value_ready, self.value_epochs = bool(state["value_ready"]), int(state["value_epochs"])
        self.returns.copy_(state["returns"])
        self.squared_norm = state["squared_norm"].to(self.squared_norm)
