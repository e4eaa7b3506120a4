"""Improving a policy by steps of bounded divergence (`rl/trpo.py` has the equations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import Metrics, Problem, hyper
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import shuffled
from rlfd.algorithms.core.networks import ValueNetwork
from rlfd.algorithms.core.on_policy import (
    Actor,
    Estimate,
    OnPolicyConfig,
    OnPolicyLearner,
    estimate,
    explained_variance,
    prepare,
)
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trust_region import LineSearch, LocalModel, TrustRegion
from rlfd.seeding import derive

__all__ = ["TRPOLearner", "TrustRegionFields", "ValueFunction"]


@dataclass(frozen=True, kw_only=True)
class TrustRegionFields(OnPolicyConfig):
    """Hyperparameters of `TRPOLearner`."""

    gamma: float = hyper(0.995, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.97, "λ of the advantage estimates", low=0, high=1)
    delta: float = hyper(0.01, "δ, radius of the trust region, mean KL in nats", above=0)
    cg_iterations: int = hyper(10, "conjugate-gradient steps for H⁻¹g", low=1)
    damping: float = hyper(0.1, "added to the diagonal of H", low=0)
    fisher_every: int = hyper(5, "H is averaged over one state in so many, drawn", low=1)
    line_search_shrink: float = hyper(0.8, "factor between tried steps", above=0, high=0.99)
    line_search_tries: int = hyper(10, "steps tried", low=1)
    kl_tolerance: float = hyper(1.5, "a step is refused beyond this times δ", low=1)
    value_learning_rate: float = hyper(1e-3, "Adam's step size of the value function", above=0)
    value_epochs: int = hyper(10, "passes over each rollout to fit the value function", low=1)
    value_batch_size: int = hyper(64, "states per update of the value function", low=1)


class ValueFunction:
    """A state value with an optimiser and a generator of its own.

    Args:
        problem: What to learn in.
        config: Sizes, optimiser, γ and λ.
        actor: Its statistics standardise the observations.
        name: Tells the random draws of several value functions apart.
    """

    def __init__(
        self, problem: Problem, config: TrustRegionFields, actor: Actor, name: str = "value"
    ) -> None:
        self.config, self.actor = config, actor
        seed = derive(problem.seed, name)
        self.generator = torch.Generator(device=problem.device).manual_seed(seed)
        self.network = ValueNetwork(
            actor.network.mean.numel(),
            hidden=config.hidden,
            activation=config.activation,
            generator=self.generator,
            device=problem.device,
        )
        size = config.rollout_size(problem.num_envs)
        self.batch_size = min(config.value_batch_size, size)
        iterations = -(-problem.env_steps // size)
        per_epoch = size // self.batch_size
        planned = max(1, iterations * config.value_epochs * per_epoch)
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            Adam(config.value_learning_rate, planned_updates=planned),
            compile=problem.compile,
        )

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        values = functional_call(self.network, parameters, (batch["inputs"],))
        loss = (values - batch["targets"]).square().mean()
        return loss, {"loss/value": loss}

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """Return V(s). Shape (T, N, *observation_shape) -> (T, N)."""
        values: Tensor = self.network(self.actor.network.standardise(observations.flatten(0, 1)))
        return values.view(observations.shape[:2])

    def estimate(
        self,
        rollout: Rollout,
        rewards: Tensor,
        *,
        gamma: float | None = None,
        gae_lambda: float | None = None,
        terminal_values: Tensor | None = None,
    ) -> Estimate:
        """Estimate advantages and targets by GAE, with the configured γ and λ unless given."""
        return estimate(
            self.values,
            rollout,
            rewards,
            gamma=self.config.gamma if gamma is None else gamma,
            gae_lambda=self.config.gae_lambda if gae_lambda is None else gae_lambda,
            terminal_values=terminal_values,
        )

    def fit(self, observations: Tensor, targets: Tensor) -> Metrics:
        """Regress V on targets (T, N) by some passes of minibatches; report means over them.

        The last, smaller minibatch of a pass is left out.
        """
        data = {
            "inputs": self.actor.network.standardise(observations.flatten(0, 1)),
            "targets": targets.flatten(),
        }
        for _ in range(self.config.value_epochs):
            for batch in shuffled(data, self.batch_size, self.generator):
                self.engine.step(batch)
        return self.engine.drain()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next fit depends on."""
        return {"engine": self.engine.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.generator.set_state(state["generator"])


class TRPOLearner(OnPolicyLearner):
    """Trust-region policy optimisation of one policy and its value function.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    config: TrustRegionFields
    metric_definitions: ClassVar[dict[str, str]] = {
        "policy/kl": "mean KL(old ‖ new) of the step that was taken, nats",
        "policy/surrogate": "E[(π_new / π_old - 1) A] of the step that was taken",
        "policy/entropy": "mean entropy of the policy at the visited states, nats",
        "policy/accepted": "share of iterations in which the line search took a step",
        "policy/step_fraction": "of the full step, what the line search took",
        "policy/indefinite": "linear systems and steps given up: not finite, or H not positive",
        "value/explained_variance": "1 - Var(target - V) / Var(target), before the fit",
        "loss/value": "mean squared error of V, over the fit",
        "optim/grad_norm": "norm of the value function's gradient",
    }

    def __init__(self, problem: Problem, config: TrustRegionFields) -> None:
        super().__init__(problem, config)
        self.value = ValueFunction(problem, config, self.actor)
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "fisher"))
        self.trust_region = TrustRegion(
            self.actor.network,
            self.actor.distribution,
            cg_iterations=config.cg_iterations,
            damping=config.damping,
            fisher_every=config.fisher_every,
            generator=self.generator,
        )

    @property
    def engine(self) -> UpdateEngine:
        """The value function's; the policy makes one step per iteration besides."""
        return self.value.engine

    def improve(
        self, rollout: Rollout, rewards: Tensor, *, terminal_values: Tensor | None = None
    ) -> Metrics:
        """Make one iteration's step of the policy, then fit the value function."""
        rewards, terminal_values = self.scaler(rewards, rollout.ended, terminal_values)
        estimated = self.value.estimate(rollout, rewards, terminal_values=terminal_values)
        step = self.improve_policy(rollout, prepare(estimated.advantages, self.config))
        return step | self.finish(rollout, estimated)

    @timed("update")
    def improve_policy(self, rollout: Rollout, advantages: Tensor) -> Metrics:
        """Make the step of one iteration from prepared advantages (T, N); none if all are 0."""
        local = self.local_model(rollout)
        flat = advantages.flatten()
        step = torch.zeros_like(local.theta)
        search = LineSearch(False, 0, 0.0, local.theta)
        if bool(flat.any()):
            gradient = local.gradient(flat, self.config.entropy_weight)
            step = local.to_radius(local.solve(gradient), self.config.delta)
            search = self.search(local, step, flat)
        return self.report(local, search, flat)

    def local_model(self, rollout: Rollout) -> LocalModel:
        """Return the trust region's model around the policy that made a rollout."""
        return self.trust_region.at(
            rollout.observations.flatten(0, 1), rollout.actions.flatten(0, 1)
        )

    def search(self, local: LocalModel, step: Tensor, advantages: Tensor) -> LineSearch:
        """Take the longest tried step that gains, within the trust region. Advantages (B,)."""
        config, entropy = self.config, local.entropy(local.theta)

        def accept(theta: Tensor) -> bool:
            gain = local.surrogate(theta, advantages)
            gain = gain + config.entropy_weight * (local.entropy(theta) - entropy)
            return bool((gain > 0) & (local.kl(theta) <= config.kl_tolerance * config.delta))

        return local.line_search(
            step, accept, shrink=config.line_search_shrink, tries=config.line_search_tries
        )

    def report(self, local: LocalModel, search: LineSearch, advantages: Tensor) -> Metrics:
        """Return the metrics of a policy step."""
        return {
            "policy/kl": local.kl(search.theta),
            "policy/surrogate": local.surrogate(search.theta, advantages),
            "policy/entropy": local.entropy(search.theta),
            "policy/accepted": torch.tensor(float(search.accepted)),
            "policy/step_fraction": torch.tensor(search.fraction),
            "policy/indefinite": torch.tensor(float(local.problems)),
        }

    def finish(self, rollout: Rollout, estimated: Estimate) -> Metrics:
        """Fit the value function, then take the rollout's observations into the statistics."""
        fit = self.value.fit(rollout.observations, estimated.targets)
        self.actor.normaliser.update(rollout.observations.flatten(0, 1))
        return {"value/explained_variance": explained_variance(estimated)} | fit

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "value": self.value.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.value.load_state_dict(state["value"])
        self.generator.set_state(state["generator"])
