"""What on-policy methods are made of: acting, a value function, and two ways to improve a policy.

Parts, not base classes: a method holds a `TRPOLearner` or a `PPOLearner` (they have the same face)
and decides which rewards its rollouts are improved by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlfd.algorithms.base import AlgorithmConfig, Metrics, Problem, World, hyper
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.engine import Adam, Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import shuffled
from rlfd.algorithms.core.networks import Activation, PolicyNetwork, ValueNetwork
from rlfd.algorithms.core.normaliser import ReturnScaler, RunningNormaliser
from rlfd.algorithms.core.rollout import Rollout, collect, gae
from rlfd.algorithms.core.schedules import linear
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trust_region import LineSearch, LocalModel, TrustRegion
from rlfd.seeding import derive

__all__ = [
    "Actor",
    "ClipFields",
    "Estimate",
    "OnPolicyConfig",
    "PPOLearner",
    "PolicyAndValue",
    "PolicyLearner",
    "TRPOLearner",
    "TrustRegionFields",
    "ValueFunction",
    "clipped_surrogate",
    "estimate",
    "explained_variance",
    "make_policy_learner",
    "prepare",
]


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig(AlgorithmConfig):
    """Hyperparameters that all on-policy learners share."""

    batch_steps: int = hyper(5_000, "env steps per iteration, over all environments", low=1)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.95, "λ of the advantage estimates", low=0, high=1)
    hidden: tuple[int, ...] = hyper((64, 64), "widths of the hidden layers", low=1)
    activation: Activation = hyper("tanh", "what follows each hidden layer")
    log_std_start: float = hyper(
        0.0, "continuous actions: first log-std, where the bounds are ±1", low=-5, high=2
    )
    normalise_observations: bool = hyper(True, "standardise observations by running statistics")
    normalise_rewards: bool = hyper(
        False, "divide rewards by the running std of the discounted return"
    )
    standardise_advantages: bool = hyper(True, "bring advantages to mean 0 and std 1")
    entropy_weight: float = hyper(0.0, "weight of the policy's entropy in the objective", low=0)


@dataclass(frozen=True, kw_only=True)
class TrustRegionFields(OnPolicyConfig):
    """Hyperparameters of `TRPOLearner`."""

    gamma: float = hyper(0.995, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.97, "λ of the advantage estimates", low=0, high=1)
    delta: float = hyper(0.01, "δ, radius of the trust region, mean KL in nats", above=0)
    cg_iterations: int = hyper(10, "conjugate-gradient steps for H⁻¹g", low=1)
    damping: float = hyper(0.1, "added to the diagonal of H", low=0)
    fisher_every: int = hyper(5, "H is averaged over every so many-th state", low=1)
    line_search_shrink: float = hyper(0.8, "factor between tried steps", above=0, high=0.99)
    line_search_tries: int = hyper(10, "steps tried", low=1)
    kl_tolerance: float = hyper(1.5, "a step is refused beyond this times δ", low=1)
    value_learning_rate: float = hyper(1e-3, "Adam's step size of the value function", above=0)
    value_epochs: int = hyper(10, "passes over each rollout to fit the value function", low=1)
    value_batch_size: int = hyper(500, "states per update of the value function", low=1)


@dataclass(frozen=True, kw_only=True)
class ClipFields(OnPolicyConfig):
    """Hyperparameters of `PPOLearner`."""

    learning_rate: float = hyper(3e-4, "Adam's step size at the start", above=0)
    final_learning_rate: float = hyper(
        1.0, "step size after the last planned update, as a fraction of the first", low=0, high=1
    )
    clip_range: float = hyper(0.2, "ε, the ratio is clipped to 1 ± this", above=0)
    final_clip_range: float = hyper(
        1.0, "clip range at the end of the budget, as a fraction of the first", low=0, high=1
    )
    epochs: int = hyper(10, "passes over each rollout", low=1)
    minibatch_size: int = hyper(64, "transitions per update", low=1)
    value_weight: float = hyper(0.5, "c_v, weight of the value function's squared error", low=0)
    max_grad_norm: float = hyper(0.5, "gradient norm is clipped to this; 0 = never", low=0)
    target_kl: float = hyper(
        0.0, "no further pass once the mean KL exceeds 1.5 times this; 0 = never", low=0
    )


class Actor:
    """A stochastic policy that acts: network, action distribution, observation statistics.

    Args:
        problem: What to act in.
        config: Sizes and first noise.
    """

    def __init__(self, problem: Problem, config: OnPolicyConfig) -> None:
        self.device = problem.device
        self.generator = torch.Generator(device=problem.device).manual_seed(problem.seed)
        self.distribution = make_distribution(problem.action)
        self.network = PolicyNetwork(
            problem.observation_shape,
            self.distribution.num_outputs,
            hidden=config.hidden,
            activation=config.activation,
            last_gain=0.01,  # at first the policy hardly depends on the observation
            log_std_start=config.log_std_start,
            observation_clip=10.0,
            generator=self.generator,
            device=problem.device,
        )
        self.normaliser = RunningNormaliser(self.network)
        self.normaliser.frozen = not config.normalise_observations

    def collect(self, world: World, steps: int) -> Rollout:
        """Act for at least `steps` env steps with the sampled policy."""
        return collect(world, self._draw, steps, self.device)

    @timed("act")
    @torch.no_grad()
    def _draw(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = self.network(self._tensor(observations))
        drawn = self.distribution.sample(outputs, self.network.log_std, self.generator)
        return drawn.cpu().numpy(), self.distribution.decode(drawn).cpu().numpy()

    @timed("act")
    @torch.no_grad()
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples, in the environment's units."""
        outputs = self.network(self._tensor(observations))
        if greedy:
            actions = self.distribution.mode(outputs)
        else:
            actions = self.distribution.sample(outputs, self.network.log_std, generator)
        chosen: np.ndarray = self.distribution.decode(actions).cpu().numpy()
        return chosen

    def _tensor(self, observations: np.ndarray) -> Tensor:
        return torch.as_tensor(observations, dtype=self.network.mean.dtype, device=self.device)

    def policy_state(self) -> dict[str, Tensor]:
        """Return the network's parameters and its observation statistics."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as its weights were learned with."""
        self.network.load_state_dict(state)
        self.normaliser.frozen = True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that acting and the statistics depend on."""
        return {
            "policy": self.policy_state(),
            "normaliser": self.normaliser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["policy"])
        self.normaliser.load_state_dict(state["normaliser"])
        self.generator.set_state(state["generator"])


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a value function makes of a rollout. Both of shape (T, N).

    Attributes:
        advantages: A, as estimated: neither centred nor scaled.
        targets: A + V(s), what the value function is to be fitted to.
    """

    advantages: Tensor
    targets: Tensor


@torch.no_grad()
def estimate(
    values: Callable[[Tensor], Tensor],
    rollout: Rollout,
    rewards: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    terminal_values: Tensor | None = None,
) -> Estimate:
    """Estimate advantages by GAE with V = `values`; see `gae`."""
    now = values(rollout.observations)
    advantages = gae(
        rewards,
        now,
        values(rollout.next_observations),
        rollout.terminated,
        rollout.ended,
        gamma=gamma,
        gae_lambda=gae_lambda,
        terminal_values=terminal_values,
    )
    return Estimate(advantages, advantages + now)


def prepare(advantages: Tensor, config: OnPolicyConfig) -> Tensor:
    """Standardise advantages if wanted; where they hardly vary they are 0 either way."""
    std = advantages.std(correction=0)
    if config.standardise_advantages:
        advantages = (advantages - advantages.mean()) / (std + 1e-8)
    return torch.where(std < 1e-6, torch.zeros_like(advantages), advantages)


def explained_variance(estimated: Estimate) -> Tensor:
    """Return 1 - Var(target - V) / Var(target); 0 where targets do not vary."""
    variance = estimated.targets.var(correction=0)
    left = estimated.advantages.var(correction=0) / variance.clamp(min=1e-12)
    return torch.where(variance > 1e-12, 1.0 - left, torch.zeros_like(left))


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
        rows = -(-config.batch_steps // problem.num_envs)
        self.batch_size = min(config.value_batch_size, rows * problem.num_envs)
        iterations = -(-problem.env_steps // (rows * problem.num_envs))
        per_epoch = rows * problem.num_envs // self.batch_size
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


class TRPOLearner:
    """Trust-region policy optimisation of one policy and its value function.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

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
        self.config = config
        self.actor = Actor(problem, config)
        self.value = ValueFunction(problem, config, self.actor)
        self.trust_region = TrustRegion(
            self.actor.network,
            self.actor.distribution,
            cg_iterations=config.cg_iterations,
            damping=config.damping,
            fisher_every=config.fisher_every,
        )
        self.scaler = ReturnScaler(
            problem.num_envs,
            config.gamma,
            enabled=config.normalise_rewards,
            device=problem.device,
        )

    @property
    def engine(self) -> UpdateEngine:
        """The value function's; the policy makes one step per iteration besides."""
        return self.value.engine

    def collect(self, world: World) -> Rollout:
        """Act for one iteration's worth of env steps."""
        return self.actor.collect(world, self.config.batch_steps)

    def improve(
        self, rollout: Rollout, rewards: Tensor, *, terminal_values: Tensor | None = None
    ) -> Metrics:
        """Make one iteration's step of the policy, then fit the value function.

        Args:
            rollout: What the current policy did.
            rewards: What it is to be improved by. Shape (T, N).
            terminal_values: See `gae`.
        """
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

    def policy_state(self) -> dict[str, Tensor]:
        """Return the policy and its observation statistics."""
        return self.actor.policy_state()

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as they are."""
        self.actor.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return {
            "actor": self.actor.state_dict(),
            "value": self.value.state_dict(),
            "rewards": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.actor.load_state_dict(state["actor"])
        self.value.load_state_dict(state["value"])
        self.scaler.load_state_dict(state["rewards"])


class PolicyAndValue(nn.Module):
    """Both networks, to be optimised together; they share nothing but standardised inputs."""

    def __init__(self, policy: PolicyNetwork, value: ValueNetwork) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised inputs (B, D) to policy outputs (B, K) and values (B,)."""
        return self.policy.body(inputs), self.value(inputs)


def clipped_surrogate(ratios: Tensor, advantages: Tensor, clip_range: Tensor) -> Tensor:
    """Return mean min(ρ A, clip(ρ, 1 ± ε) A), to be maximised. Shapes (B,); a scalar."""
    clipped = torch.clamp(ratios, 1.0 - clip_range, 1.0 + clip_range)
    return torch.minimum(ratios * advantages, clipped * advantages).mean()


class PPOLearner:
    """Proximal policy optimisation of one policy and its value function.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "policy/kl": "mean KL(old ‖ new) over the rollout after all updates, nats",
        "policy/entropy": "mean entropy of the policy over the updates, nats",
        "policy/clipped": "share of ratios outside 1 ± ε, over the updates",
        "policy/epochs": "passes over the rollout that were made",
        "value/explained_variance": "1 - Var(target - V) / Var(target), before the updates",
        "loss/policy": "minus the clipped surrogate, over the updates",
        "loss/value": "mean squared error of V, over the updates",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    def __init__(self, problem: Problem, config: ClipFields) -> None:
        self.config, self.problem = config, problem
        self.actor = Actor(problem, config)
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "value"))
        value = ValueNetwork(
            self.actor.network.mean.numel(),
            hidden=config.hidden,
            activation=config.activation,
            generator=self.generator,
            device=problem.device,
        )
        self.networks = PolicyAndValue(self.actor.network, value)
        size = -(-config.batch_steps // problem.num_envs) * problem.num_envs
        self.batch_size = min(config.minibatch_size, size)
        iterations = -(-problem.env_steps // size)
        self.engine = UpdateEngine(
            self.networks,
            self._loss,
            Adam(
                config.learning_rate,
                final_fraction=config.final_learning_rate,
                planned_updates=max(1, iterations * config.epochs * (size // self.batch_size)),
                max_grad_norm=config.max_grad_norm,
                epsilon=1e-5,
            ),
            compile=problem.compile,
        )
        self.scaler = ReturnScaler(
            problem.num_envs,
            config.gamma,
            enabled=config.normalise_rewards,
            device=problem.device,
        )
        self.env_steps = 0

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, distribution = self.config, self.actor.distribution
        outputs, values = functional_call(self.networks, parameters, (batch["inputs"],))
        log_std = parameters["policy.log_std"]
        log_probs = distribution.log_prob(outputs, log_std, batch["actions"])
        ratios = (log_probs - batch["log_probs"]).exp()
        advantages = prepare(batch["advantages"], config)  # per minibatch
        policy_loss = -clipped_surrogate(ratios, advantages, batch["clip_range"])
        value_loss = (values - batch["targets"]).square().mean()
        entropy = distribution.entropy(outputs, log_std).mean()
        loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
        outside = ((ratios - 1.0).abs() > batch["clip_range"]).to(ratios.dtype)
        return loss, {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/clipped": outside.mean(),
        }

    def collect(self, world: World) -> Rollout:
        """Act for one iteration's worth of env steps."""
        return self.actor.collect(world, self.config.batch_steps)

    @torch.no_grad()
    def _values(self, observations: Tensor) -> Tensor:
        """V(s). Shape (T, N, *observation_shape) -> (T, N)."""
        inputs = self.actor.network.standardise(observations.flatten(0, 1))
        values: Tensor = self.networks.value(inputs)
        return values.view(observations.shape[:2])

    def improve(
        self, rollout: Rollout, rewards: Tensor, *, terminal_values: Tensor | None = None
    ) -> Metrics:
        """Make one iteration's updates of policy and value function.

        Args:
            rollout: What the current policy did.
            rewards: What it is to be improved by. Shape (T, N).
            terminal_values: See `gae`.
        """
        rewards, terminal_values = self.scaler(rewards, rollout.ended, terminal_values)
        estimated = estimate(
            self._values,
            rollout,
            rewards,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            terminal_values=terminal_values,
        )
        data, old = self._with_old_policy(rollout, estimated)
        clip_range = self._clip_range()
        kl, epochs = torch.tensor(0.0), 0
        while epochs < self.config.epochs and not self._too_far(kl):
            for batch in shuffled(data, self.batch_size, self.generator):
                self.engine.step(batch | {"clip_range": clip_range})
            epochs += 1
            kl = self._kl(data["inputs"], old)
        self.env_steps += rollout.num_steps
        self.actor.normaliser.update(rollout.observations.flatten(0, 1))
        return {
            "policy/kl": kl,
            "policy/epochs": torch.tensor(float(epochs)),
            "value/explained_variance": explained_variance(estimated),
        } | self.engine.drain()

    @torch.no_grad()
    def _with_old_policy(
        self, rollout: Rollout, estimated: Estimate
    ) -> tuple[Batch, tuple[Tensor, Tensor]]:
        """Return what the loss reads, rows joined, and the old policy's outputs and log-std."""
        network = self.actor.network
        inputs = network.standardise(rollout.observations.flatten(0, 1))
        actions = rollout.actions.flatten(0, 1)
        outputs, log_std = network.body(inputs), network.log_std.clone()
        data = {
            "inputs": inputs,
            "actions": actions,
            "log_probs": self.actor.distribution.log_prob(outputs, log_std, actions),
            "advantages": estimated.advantages.flatten(),
            "targets": estimated.targets.flatten(),
        }
        return data, (outputs, log_std)

    @torch.no_grad()
    def _kl(self, inputs: Tensor, old: tuple[Tensor, Tensor]) -> Tensor:
        """Mean KL(old ‖ now). A scalar."""
        network = self.actor.network
        return self.actor.distribution.kl(*old, network.body(inputs), network.log_std).mean()

    def _too_far(self, kl: Tensor) -> bool:
        limit = self.config.target_kl
        return limit > 0 and bool(kl > 1.5 * limit)

    def _clip_range(self) -> Tensor:
        config = self.config
        final = config.clip_range * config.final_clip_range
        budget = self.problem.env_steps
        now = linear(self.env_steps, config.clip_range, final, budget)
        return torch.tensor(now, dtype=self.actor.network.mean.dtype, device=self.problem.device)

    def policy_state(self) -> dict[str, Tensor]:
        """Return the policy and its observation statistics."""
        return self.actor.policy_state()

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Take over a policy, with statistics that stay as they are."""
        self.actor.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return {
            "actor": self.actor.state_dict(),
            "engine": self.engine.state_dict(),
            "generator": self.generator.get_state(),
            "rewards": self.scaler.state_dict(),
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.actor.load_state_dict(state["actor"])
        self.engine.load_state_dict(state["engine"])
        self.generator.set_state(state["generator"])
        self.scaler.load_state_dict(state["rewards"])
        self.env_steps = int(state["env_steps"])


PolicyLearner = TRPOLearner | PPOLearner


def make_policy_learner(
    kind: Literal["trpo", "ppo"], problem: Problem, config: OnPolicyConfig
) -> PolicyLearner:
    """Return the learner of that name; `config` must have its fields."""
    if kind == "trpo":
        assert isinstance(config, TrustRegionFields)
        return TRPOLearner(problem, config)
    assert isinstance(config, ClipFields)
    return PPOLearner(problem, config)
