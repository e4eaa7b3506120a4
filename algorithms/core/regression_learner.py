"""A policy that is fitted to weighted pairs of a memory, and acts to fill it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import AlgorithmConfig, Metrics, Problem, World, hyper
from rlfd.algorithms.core.distributions import Gaussian
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import drawn
from rlfd.algorithms.core.networks import Activation
from rlfd.algorithms.core.on_policy import Actor, ActorFields
from rlfd.algorithms.core.optimisers import Adam, Momentum, Optimiser
from rlfd.algorithms.core.trajectories import EpisodeAssembler, TrajectoryBuffer, demo_pieces
from rlfd.seeding import derive

__all__ = [
    "CollectFields",
    "FitFields",
    "OptimiserKind",
    "RegressionLearner",
    "make_optimiser",
]

OptimiserKind = Literal["adam", "momentum"]


@dataclass(frozen=True, kw_only=True)
class FitFields(ActorFields):
    """Hyperparameters of `RegressionLearner`."""

    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    optimiser: OptimiserKind = hyper("adam", "Adam, or gradient descent with momentum 0.9")
    actor_learning_rate: float = hyper(3e-4, "step size of the policy", above=0)
    actor_steps: int = hyper(500, "updates of the policy per iteration", low=1)
    batch_size: int = hyper(256, "pairs per update", low=1)
    entropy_weight: float = hyper(0.0, "weight of the policy's entropy in the objective", low=0)
    output_l2: float = hyper(0.0, "weight of the squared outputs (logits or means)", low=0)
    bound_weight: float = hyper(
        10.0, "continuous actions: weight of the squared distance of means from the bounds", low=0
    )
    learn_std: bool = hyper(False, "continuous actions: fit the std too, or leave it as it starts")
    hidden: tuple[int, ...] = hyper((128, 64), "widths of the hidden layers", low=1)
    activation: Activation = hyper("relu", "what follows each hidden layer")
    log_std_start: float = hyper(
        -0.9, "continuous actions: first log-std, where the bounds are ±1", low=-5, high=2
    )


@dataclass(frozen=True, kw_only=True)
class CollectFields(AlgorithmConfig):
    """Hyperparameters of `RegressionLearner.collect`."""

    batch_steps: int = hyper(2_048, "env steps per iteration, over all environments", low=1)
    first_steps: int = hyper(10_000, "env steps of the first iteration", low=1)
    buffer_size: int = hyper(50_000, "transitions kept, the newest ones", low=1)
    memory: Literal["append", "replace"] = hyper(
        "append", "what new experience does to the old: joins it, or takes its place"
    )

    def iterations(self, problem: Problem) -> int:
        """Return how many iterations the budget is enough for.

        With demonstrations there is no longer first one: the memory is not empty.
        """
        first = self.first_steps if problem.demonstrations is None else self.batch_steps
        return max(1, (problem.env_steps - first) // self.batch_steps + 1)


def make_optimiser(kind: OptimiserKind, learning_rate: float, planned_updates: int) -> Optimiser:
    """Return the optimiser of that name."""
    cls = Adam if kind == "adam" else Momentum
    return cls(learning_rate, planned_updates=max(1, planned_updates))


class RegressionLearner:
    """Holds policy, memory and optimiser; a method decides about weights.

    Args:
        problem: With demonstrations, they are the memory's beginning.
        config: Hyperparameters.
        capacity: Transitions remembered; the demonstrations always fit.
        iterations: Planned ones, for the decision to compile.
        whole: Remember episodes only when they are over, since their returns must be known.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "loss/policy": "-E[w log π(a|s)] and the penalties, over the updates",
        "policy/entropy": "mean entropy of the policy on minibatches, nats",
        "policy/actor_grad_norm": "norm of the policy's gradient",
        "buffer/size": "transitions in the memory",
    }

    def __init__(
        self,
        problem: Problem,
        config: FitFields,
        *,
        capacity: int,
        iterations: int,
        whole: bool = False,
    ) -> None:
        self.config, self.device = config, problem.device
        self.actor = Actor(problem, config)
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "regression"))
        self.assembler = EpisodeAssembler(whole=whole)
        self.buffer = TrajectoryBuffer(capacity)
        self.engine = UpdateEngine(
            self.actor.network,
            self._loss,
            make_optimiser(
                config.optimiser, config.actor_learning_rate, iterations * config.actor_steps
            ),
            compile=problem.compile,
            norm_name="policy/actor_grad_norm",
        )
        demos = problem.demonstrations
        if demos is not None:
            actions = self.actor.distribution.encode(demos.actions)
            pieces = demo_pieces(demos, actions)
            pieces = {name: value.to(problem.device) for name, value in pieces.items()}
            self.buffer.capacity = max(capacity, demos.num_transitions)
            self.buffer.add(pieces)
            self.actor.normaliser.update(pieces["observations"])

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, distribution = self.config, self.actor.distribution
        body = {
            name.removeprefix("body."): value
            for name, value in parameters.items()
            if name.startswith("body.")
        }
        outputs = functional_call(self.actor.network.body, body, (batch["inputs"],))
        log_std = parameters["log_std"]
        if not config.learn_std:
            log_std = log_std.detach()
        log_probs = distribution.log_prob(outputs, log_std, batch["actions"])
        entropy = distribution.entropy(outputs, log_std).mean()
        loss = -(batch["weights"] * log_probs).mean() - config.entropy_weight * entropy
        loss = loss + config.output_l2 * outputs.square().sum(-1).mean()
        if isinstance(distribution, Gaussian):
            beyond = (outputs.abs() - 1.0).clamp(min=0.0)
            loss = loss + config.bound_weight * 0.5 * beyond.square().sum(-1).mean()
        return loss, {"loss/policy": loss, "policy/entropy": entropy}

    def collect(self, world: World, config: CollectFields) -> int:
        """Act for one iteration's worth of env steps; return how many rows are new in the memory.

        They are its last ones: all there are, if the memory is smaller.
        """
        first = world.env_steps == 0 and len(self.buffer) == 0
        steps = config.first_steps if first else config.batch_steps
        rollout = self.actor.collect(world, steps)
        self.actor.normaliser.update(rollout.observations.flatten(0, 1))
        pieces = self.assembler.add(rollout)
        if pieces is None:
            return 0
        if config.memory == "replace":
            self.buffer.clear()
        self.buffer.add(pieces)
        return min(len(pieces["ended"]), len(self.buffer))

    def inputs(self) -> Tensor:
        """Return the memory's observations, standardised. Shape (M, D)."""
        return self.actor.network.standardise(self.buffer.data["observations"])

    def improve(self, inputs: Tensor, weights: Tensor) -> Metrics:
        """Fit the policy to the memory.

        Args:
            inputs: As `inputs` returns them.
            weights: Of each pair. Shape (M,).
        """
        config = self.config
        data = {"inputs": inputs, "actions": self.buffer.data["actions"], "weights": weights}
        for batch in drawn(data, config.actor_steps, config.batch_size, self.generator):
            self.engine.step(batch)
        return self.engine.drain() | {"buffer/size": torch.tensor(float(len(self.buffer)))}

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
            "assembler": self.assembler.state_dict(),
            "buffer": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.actor.load_state_dict(state["actor"])
        self.engine.load_state_dict(state["engine"])
        self.generator.set_state(state["generator"])
        self.assembler.load_state_dict(state["assembler"], self.device)
        self.buffer.load_state_dict(state["buffer"], self.device)
