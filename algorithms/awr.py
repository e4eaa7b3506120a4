"""AWR: advantage-weighted regression.

Peng, Kumar, Zhang and Levine, "Advantage-Weighted Regression: Simple and Scalable Off-Policy
Reinforcement Learning", 2019, arXiv 1910.00177. Each iteration acts, adds what it did to a memory D
of the newest transitions, and solves two regressions:

    V_k     = argmin_V  E_D[(R - V(s))²]
    π_{k+1} = argmax_π  E_D[log π(a|s) min(exp((R - V_k(s)) / β), w_max)]

R: TD(λ) return, with V_{k-1} for the first, computed anew with V_k for the second. With
demonstrations, D begins with them. `awr-offline` has nothing else: its iterations repeat the two
regressions until held-out trajectories' weighted likelihood stops rising.

Two algorithms go by this name: the paper's advantages are raw and β is 0.05 (preset `paper`), the
released code standardises them and β is 1 (preset `code`). Ours is the second, with Adam and with β
falling from 0.2 to 0.02: constant, it leaves the policy random wherever actions differ little.

Departures from the paper:
  * D keeps pieces of trajectories: one that is not over when an iteration ends is cut and
    bootstrapped there, its rest is another piece. With many environments nothing waits.
  * observations are standardised by running statistics; V is learned in units of 1 / (1 - γ).
  * the policy's distribution in D is an average of many; the paper's and ours treat it as one.
"""

from __future__ import annotations

import dataclasses
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
from rlfd.algorithms.bc import BC
from rlfd.algorithms.core.critic import CRITIC_METRICS, Critic, explained
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.minibatches import drawn
from rlfd.algorithms.core.offline import EarlyStopping, select, split_trajectories
from rlfd.algorithms.core.regression_learner import (
    CollectFields,
    FitFields,
    RegressionLearner,
    make_optimiser,
)
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.core.trajectories import (
    DEMO_FIELDS,
    demo_pieces,
    lambda_returns,
    returns_to_go,
)
from rlfd.algorithms.core.weighting import (
    WEIGHT_METRICS,
    WeightAudit,
    exponential_weights,
    standardised,
)
from rlfd.algorithms.registry import register

__all__ = ["AWR", "AWRConfig", "AWROffline", "AWROfflineConfig", "AdvantageRegression"]


@dataclass(frozen=True, kw_only=True)
class AdvantageFields(FitFields):
    """Hyperparameters of `AdvantageRegression`."""

    readers: ClassVar[Readers] = {
        "baseline": {"value": ("td_lambda", "critic_steps", "critic_learning_rate"), "none": ()}
    }

    beta: float = hyper(0.2, "β, temperature of the weights", above=0)
    final_beta: float = hyper(
        1.0, "β in the last planned iteration, as a fraction of the first", above=0, high=1
    )
    max_weight: float = hyper(20.0, "w_max, weights are clipped to this", low=1)
    standardise_advantages: bool = hyper(True, "bring advantages to mean 0 and std 1 before β")
    td_lambda: float = hyper(0.95, "λ of the returns", low=0, high=1)
    baseline: Literal["value", "none"] = hyper(
        "value", "what returns are compared with; none: Monte-Carlo returns themselves, as in RWR"
    )
    critic_learning_rate: float = hyper(1e-3, "step size of the value function", above=0)
    critic_steps: int = hyper(100, "updates of the value function per iteration", low=1)


@dataclass(frozen=True, kw_only=True)
class AWRConfig(AdvantageFields, CollectFields):
    """Hyperparameters of AWR."""

    final_beta: float = hyper(
        0.1, "β in the last planned iteration, as a fraction of the first", above=0, high=1
    )


@dataclass(frozen=True, kw_only=True)
class AWROfflineConfig(AdvantageFields):
    """Hyperparameters of AWR on demonstrations alone."""

    max_iterations: int = hyper(100, "iterations, at most", low=1)
    patience: int = hyper(5, "iterations without improvement before stopping", low=1)
    validation_fraction: float = hyper(0.1, "share of trajectories held out", above=0, high=0.9)


class AdvantageRegression:
    """Both regressions of one iteration, over a policy's memory.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
        policy: Policy and memory.
        iterations: Planned ones.
    """

    metric_definitions: ClassVar[dict[str, str]] = (
        RegressionLearner.metric_definitions | CRITIC_METRICS | WEIGHT_METRICS
    )

    def __init__(
        self,
        problem: Problem,
        config: AdvantageFields,
        policy: RegressionLearner,
        iterations: int,
    ) -> None:
        self.config, self.policy, self.iterations = config, policy, iterations
        self.critic = Critic(
            problem,
            num_inputs=policy.actor.network.mean.numel(),
            hidden=config.hidden,
            activation=config.activation,
            optimiser=make_optimiser(
                config.optimiser, config.critic_learning_rate, iterations * config.critic_steps
            ),
            scale=1.0 / (1.0 - config.gamma) if config.gamma < 1.0 else 1.0,
        )
        self.audit = WeightAudit("a larger --set beta, or --set standardise_advantages=true")
        self._values = torch.zeros(0, device=problem.device)  # V_{k-1} of what D held then

    @property
    def updates(self) -> int:
        """Gradient steps so far, of both."""
        return self.policy.engine.count + self.critic.engine.count

    def values(self, inputs: Tensor, known: Tensor | None = None) -> Tensor:
        """Return V(s), or 0 without a baseline; `known` begin it. Shape (M, D) -> (M,)."""
        if self.config.baseline == "none":
            return inputs.new_zeros(len(inputs))
        if known is None:
            return self.critic.values(inputs)
        return torch.cat([known, self.critic.values(inputs[len(known) :])])

    def returns(self, pieces: Batch, values: Tensor) -> Tensor:
        """Return R from the values of all rows. Shape (M,)."""
        config, network = self.config, self.policy.actor.network
        if config.baseline == "none":
            return returns_to_go(pieces, config.gamma)
        after = network.standardise(pieces["next_observations"][pieces["ended"]])
        return lambda_returns(
            pieces, values, self.critic.values(after), gamma=config.gamma, lam=config.td_lambda
        )

    def weights(self, advantages: Tensor) -> Tensor:
        """Return ω of advantages (M,), with β as it is in this iteration."""
        config = self.config
        done = self.policy.engine.count // config.actor_steps
        beta = linear(done, config.beta, config.beta * config.final_beta, self.iterations)
        if config.standardise_advantages:
            advantages = standardised(advantages)
        return exponential_weights(advantages, beta, config.max_weight)

    def iteration(self, added: int) -> Metrics:
        """Fit V, then the policy, to the memory, of which the last `added` rows are new."""
        config, pieces = self.config, self.policy.buffer.data
        inputs = self.policy.inputs()
        metrics: Metrics = {}
        if config.baseline == "value":
            # as V was at the end of the last iteration: only new rows need it now
            old = self._values[len(self._values) - (len(inputs) - added) :]
            returns = self.returns(pieces, self.values(inputs, old))  # R with V_{k-1}
            data = {"inputs": inputs, "returns": returns}
            generator = self.policy.generator
            for batch in drawn(data, config.critic_steps, config.batch_size, generator):
                self.critic.step(batch["inputs"], batch["returns"])
            metrics = self.critic.drain()
        self._values = self.values(inputs)
        returns = self.returns(pieces, self._values)  # R with V_k
        advantages = returns - self._values
        weights = self.weights(advantages)
        metrics |= self.audit(weights, advantages, config.max_weight)
        metrics["value/explained_variance"] = explained(returns, self._values)
        return metrics | self.policy.improve(inputs, weights)

    def policy_state(self) -> dict[str, Tensor]:
        """Return the policy and its observation statistics."""
        return self.policy.policy_state()

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as they are."""
        self.policy.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "values": self._values.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self._values = state["values"].to(self._values.device)


@register
class AWR(Algorithm):
    """Advantage-weighted regression."""

    name = "awr"
    title = "Advantage-Weighted Regression (Peng et al., 2019)"
    summary = "off-policy: regression on remembered actions, weighted by exp(advantage)"
    Config = AWRConfig
    needs = Needs(
        demonstrations=False,
        optional_demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=DEMO_FIELDS,
        action_kinds=BC.needs.action_kinds,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = AdvantageRegression.metric_definitions

    learner: AdvantageRegression

    def __init__(self, problem: Problem, config: AWRConfig) -> None:
        self.config = config
        iterations = config.iterations(problem)
        policy = RegressionLearner(
            problem,
            config,
            capacity=config.buffer_size,
            iterations=iterations,
            whole=config.baseline == "none",
        )
        self.learner = AdvantageRegression(problem, config, policy, iterations)

    def iteration(self, world: World) -> Metrics:
        """Act, remember, regress."""
        policy = self.learner.policy
        first = len(policy.buffer) if policy.engine.count == 0 else 0  # demonstrations
        added = first + policy.collect(world, self.config)
        if len(policy.buffer) == 0:  # no episode is over yet
            return {}
        metrics = self.learner.iteration(added)
        self.updates = self.learner.updates
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.policy.actor.act(observations, greedy=greedy, generator=generator)


@register
class AWROffline(Algorithm):
    """Advantage-weighted regression on demonstrations alone."""

    name = "awr-offline"
    title = "Advantage-Weighted Regression (Peng et al., 2019), on demonstrations alone"
    summary = "regression on demonstrated actions, weighted by exp(advantage), repeated"
    Config = AWROfflineConfig
    needs = Needs(
        demonstrations=True,
        reward=True,
        interaction=False,
        demo_fields=DEMO_FIELDS,
        action_kinds=BC.needs.action_kinds,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **AdvantageRegression.metric_definitions,
        "loss/validation": "-E[w log π(a|s)] / E[w] on held-out trajectories",
    }

    learner: AdvantageRegression

    def __init__(self, problem: Problem, config: AWROfflineConfig) -> None:
        demos = problem.demonstrations
        assert demos is not None
        self.config = config
        generator = torch.Generator().manual_seed(problem.seed)
        train, held_out = split_trajectories(demos, config.validation_fraction, generator)
        problem = dataclasses.replace(problem, demonstrations=select(demos, train))
        policy = RegressionLearner(
            problem, config, capacity=len(train), iterations=config.max_iterations
        )
        self.learner = AdvantageRegression(problem, config, policy, config.max_iterations)
        validation = select(demos, held_out)
        pieces = demo_pieces(validation, policy.actor.distribution.encode(validation.actions))
        self._validation = {name: value.to(problem.device) for name, value in pieces.items()}
        self._rows = len(train)
        self.stopping = EarlyStopping(config.patience)
        self.passed = 0
        self._finished = False

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Return -Σ w log π(a|s) / Σ w on the held-out trajectories."""
        actor, pieces = self.learner.policy.actor, self._validation
        inputs = actor.network.standardise(pieces["observations"])
        values = self.learner.values(inputs)
        weights = self.learner.weights(self.learner.returns(pieces, values) - values)
        outputs = actor.network.body(inputs)
        log_probs = actor.distribution.log_prob(outputs, actor.network.log_std, pieces["actions"])
        return -(weights * log_probs).sum() / weights.sum()

    @property
    def finished(self) -> bool:
        """Whether training has stopped and the best parameters are back in place."""
        return self._finished

    def iteration(self, world: World | None) -> Metrics:
        """Regress both once more, then look at the held-out trajectories."""
        metrics = self.learner.iteration(0 if self.passed else self._rows)
        self.updates = self.learner.updates
        self.passed += 1
        loss = self._validate()
        parameters = self.learner.policy.engine.parameters
        stop = self.stopping.observe(float(loss), parameters, self.updates)
        if stop or self.passed >= self.config.max_iterations:
            self.conclude()
        return metrics | {"loss/validation": loss}

    def conclude(self) -> None:
        """Put the best policy back in place."""
        if self.stopping.kept:
            self.learner.policy.engine.load_parameters(self.stopping.kept)
        self._finished = True

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.policy.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "stopping": self.stopping.state_dict(),
            "passed": self.passed,
            "finished": self._finished,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.stopping.load_state_dict(state["stopping"])
        self.passed, self._finished = int(state["passed"]), bool(state["finished"])
