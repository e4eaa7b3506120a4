"""Behavioural cloning: supervised learning of the demonstrator's action from its observation.

Pomerleau (1991); the base line of every later imitation paper. With N pairs (s, a):

    L_NLL = -(1/N) Σ log π(a|s) - β_H mean H(π(·|s)) + λ_2 ‖θ‖²
    L_MSE =  (1/N) Σ ‖a - π(s)‖² + λ_2 ‖θ‖²                     (continuous actions, deterministic)

Trained with early stopping on held-out *trajectories*: neighbouring observations in both halves
would hide overfitting. The log-std of continuous actions is no part of ‖θ‖², which would draw it to
0.

Departures from common practice: none. Sums are divided by N, not by the number of trajectories;
`weighting=trajectories` gives every trajectory the same weight instead (w = N / (m T_i)). The last,
smaller minibatch of a pass is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import (
    Algorithm,
    DemoTensors,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.distributions import Gaussian, make_distribution
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.networks import Activation, PolicyNetwork, in_pieces
from rlfd.algorithms.core.offline import OfflineFields, Passes, fit_statistics
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["BC", "BCConfig"]


@dataclass(frozen=True, kw_only=True)
class BCConfig(OfflineFields):
    """Hyperparameters of behavioural cloning."""

    readers: ClassVar[Readers] = {"loss": {"nll": ("entropy_weight",), "mse": ()}}

    learning_rate: float = hyper(1e-3, "Adam's step size", above=0)
    l2: float = hyper(1e-4, "λ_2, weight of the squared parameters", low=0)
    entropy_weight: float = hyper(1e-3, "β_H, weight of the policy's entropy", low=0)
    loss: Literal["nll", "mse"] = hyper("nll", "negative log-likelihood, or squared error")
    weighting: Literal["transitions", "trajectories"] = hyper(
        "transitions", "what counts equally: every pair, or every trajectory"
    )
    temperature: float = hyper(1.0, "discrete: log-probabilities are softmax(outputs / τ)", above=0)
    normalise: bool = hyper(
        True, "standardise observations, unless images, by the training trajectories"
    )
    hidden: tuple[int, ...] = hyper(
        (128, 128), "widths of the hidden layers (images: after the convolutions)", low=1
    )
    activation: Activation = hyper("relu", "what follows each hidden layer")
    layer_norm: bool = hyper(False, "LayerNorm after each hidden linear layer")
    log_std_start: float = hyper(
        0.0,
        "continuous actions: first log-std, where the bounds are ±1; loss=mse leaves it there, "
        "for a method that goes on from this policy",
        low=-5,
        high=2,
    )


@register
class BC(Algorithm):
    """Behavioural cloning."""

    name = "bc"
    title = "Behavioural cloning (Pomerleau, 1991)"
    summary = "supervised learning of demonstrated actions, early stopping on held-out trajectories"
    Config = BCConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=False,
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        "loss/train": "L on training minibatches, mean over the epoch",
        "loss/validation": "L on held-out trajectories, without entropy and L2 terms",
        "policy/accuracy": "share of held-out pairs whose most likely action is the demonstrated "
        "one (continuous: 1 - mean squared error / variance)",
        "policy/entropy": "entropy of the policy on training minibatches, nats",
        "optim/grad_norm": "norm of the gradient",
    }

    def __init__(
        self,
        problem: Problem,
        config: BCConfig,
        *,
        weights: Tensor | None = None,
        extra: Batch | None = None,
    ) -> None:
        """Build it, for `rwr` and `marwil` with more than the demonstrations.

        Args:
            problem: What to clone. A method that gathers the pairs itself has no demonstrations
                yet and calls `learn_from`.
            config: Hyperparameters.
            weights: Of each pair, besides those of the configuration. Shape (M,).
            extra: More about each pair, to be found in the minibatches. Shapes (M, ...).
        """
        if config.loss == "mse" and problem.action.kind != "continuous":
            raise RlfdError(
                f"loss=mse is for continuous actions, this environment's are {problem.action.kind}",
                "use --set loss=nll",
            )
        self.config, self.device = config, problem.device
        self._dtype = torch.uint8 if problem.images else torch.float32
        self.generator = torch.Generator().manual_seed(problem.seed)
        weight_generator = torch.Generator(device=problem.device).manual_seed(problem.seed)
        self.distribution = make_distribution(problem.action, problem.device)
        self.network = PolicyNetwork(
            problem.observation_shape,
            self.distribution.num_outputs,
            hidden=config.hidden,
            images=problem.images,
            layer_norm=config.layer_norm,
            activation=config.activation,
            log_std_start=config.log_std_start,
            generator=weight_generator,
            device=problem.device,
        )
        self.planned_updates = 1  # nobody knows
        if problem.demonstrations is not None:
            self.learn_from(problem.demonstrations, weights=weights, extra=extra)
            self.planned_updates = max(1, self.passes.usual_updates(problem.env_steps))
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            Adam(config.learning_rate, planned_updates=self.planned_updates),
            compile=problem.compile,
        )

    def learn_from(
        self,
        demos: DemoTensors,
        *,
        weights: Tensor | None = None,
        extra: Batch | None = None,
        standardise: bool = True,
    ) -> None:
        """Begin passes over these pairs, with the policy as it is.

        Args:
            demos: The pairs.
            weights: See `__init__`.
            extra: See `__init__`.
            standardise: Take the statistics of observations from them, if there are any.

        Raises:
            RlfdError: If there are fewer than two.
        """
        data = self._data(demos, weights) | (extra or {})
        self.passes = Passes(demos, data, self.config, self.generator)
        if self.config.normalise and standardise:
            fit_statistics(self.network, self.passes.train["observations"])

    def _data(self, demos: DemoTensors, given: Tensor | None = None) -> Batch:
        lengths = torch.bincount(demos.episode_ids).double()
        weights = torch.ones(demos.num_transitions)
        if self.config.weighting == "trajectories":
            mean_length = demos.num_transitions / demos.num_episodes
            weights = (mean_length / lengths[demos.episode_ids]).float()
        if given is not None:
            weights = weights * given
        actions = self.distribution.encode(demos.actions)
        data = {"observations": demos.observations, "actions": actions, "weights": weights}
        return {name: value.to(self.device) for name, value in data.items()}

    def _outputs(self, parameters: Parameters, observations: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self.network, parameters, (observations,))
        if not isinstance(self.distribution, Gaussian):
            outputs = outputs / self.config.temperature
        return outputs

    def _losses(self, outputs: Tensor, parameters: Parameters, actions: Tensor) -> Tensor:
        """The summands of L_NLL or L_MSE. Shape (B,)."""
        if self.config.loss == "mse":
            return (actions - outputs).square().sum(-1)
        return -self.distribution.log_prob(outputs, parameters["log_std"], actions)

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        outputs = self._outputs(parameters, batch["observations"])  # (B, K)
        loss = (batch["weights"] * self._losses(outputs, parameters, batch["actions"])).mean()
        entropy = self.distribution.entropy(outputs, parameters["log_std"]).mean()
        if config.loss == "nll":
            loss = loss - config.entropy_weight * entropy
        weights = [value for name, value in parameters.items() if name != "log_std"]
        squares = torch.stack([value.square().sum() for value in weights]).sum()
        loss = loss + config.l2 * squares
        return loss, {"loss/train": loss, "policy/entropy": entropy}

    @torch.no_grad()
    def validate(self, weights: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy on the held-out trajectories, weighted as one goes along."""
        data, parameters = self.passes.validation, self.engine.parameters
        outputs_of = functools.partial(self._outputs, parameters)
        if self.network.images:
            outputs = in_pieces(outputs_of, data["observations"])
        else:
            outputs = outputs_of(data["observations"])
        losses = weights * data["weights"] * self._losses(outputs, parameters, data["actions"])
        return losses.mean(), self._accuracy(outputs, data["actions"])

    @torch.no_grad()
    def accuracy(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return `policy/accuracy` on other pairs, the actions in the environment's units."""
        outputs = self._outputs(self.engine.parameters, observations.to(self.device))
        return self._accuracy(outputs, self.distribution.encode(actions).to(self.device))

    def _accuracy(self, outputs: Tensor, actions: Tensor) -> Tensor:
        chosen = self.distribution.mode(outputs)
        if isinstance(self.distribution, Gaussian):
            chosen = self.distribution.features(chosen)  # clipped, as the environment does
            variance = actions.var(dim=0, correction=0).sum().clamp(min=1e-12)
            return 1.0 - (chosen - actions).square().sum(-1).mean() / variance
        right = chosen == actions
        return (right.all(-1) if right.ndim > 1 else right).float().mean()

    @property
    def epochs(self) -> int:
        """Passes over the training trajectories so far."""
        return self.passes.epoch

    @property
    def finished(self) -> bool:
        """Whether training has stopped and the best parameters are back in place."""
        return self.passes.finished

    def iteration(self, world: World | None) -> Metrics:
        """Make one pass over the training trajectories, then look at the held-out ones."""
        for batch in self.passes.minibatches():
            self.engine.step(batch)
            self.updates += 1
        loss, accuracy = self.validate()
        self.passes.close(float(loss), self.engine)
        return self.engine.drain() | {"loss/validation": loss, "policy/accuracy": accuracy}

    def conclude(self) -> None:
        """Put the best parameters back in place."""
        self.passes.conclude(self.engine)

    @timed("act")
    @torch.no_grad()
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        parameters = self.engine.parameters
        inputs = torch.as_tensor(observations, dtype=self._dtype, device=self.device)
        outputs = self._outputs(parameters, inputs)
        if greedy or self.config.loss == "mse":
            actions = self.distribution.mode(outputs)
        else:
            actions = self.distribution.sample(outputs, parameters["log_std"], generator)
        chosen: np.ndarray = self.distribution.decode(actions).cpu().numpy()
        return chosen

    def policy_state(self) -> dict[str, Tensor]:
        """Return the network's parameters and its observation statistics."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `policy_state` returned."""
        self.network.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "engine": self.engine.state_dict(),
            # not to be had from the demonstrations again where another policy brought them
            "inputs": self.network.input_state(),
            "passes": self.passes.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.network.load_input_state(state["inputs"])
        self.passes.load_state_dict(state["passes"])
        self.updates = state["updates"]
