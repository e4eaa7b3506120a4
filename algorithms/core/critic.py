"""A state value that is regressed on returns, for methods that do not learn it on policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import Metrics, Problem
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.networks import Activation, ValueNetwork
from rlfd.algorithms.core.optimisers import Optimiser
from rlfd.seeding import derive

__all__ = ["CRITIC_METRICS", "Critic", "explained"]

CRITIC_METRICS = {
    "loss/value": "½ E[(R - V)²], in units of the value's scale",
    "value/grad_norm": "norm of the value function's gradient",
    "value/explained_variance": "1 - Var(R - V) / Var(R) over all pairs, after the fit",
}


def explained(returns: Tensor, values: Tensor) -> Tensor:
    """Return 1 - Var(R - V) / Var(R); 0 where returns do not vary. Shapes (M,); a scalar."""
    variance = returns.var(correction=0)
    left = (returns - values).var(correction=0) / variance.clamp(min=1e-12)
    return torch.where(variance > 1e-12, 1.0 - left, torch.zeros_like(left))


class Critic:
    """V(s) = offset + scale · network(inputs), fitted by ½ E[w ((R - V) / scale)²].

    Args:
        problem: What to learn in.
        num_inputs: D, numbers in one standardised observation.
        hidden: Widths of the hidden layers.
        activation: What follows each hidden layer.
        optimiser: How to step.
        offset: See above; at first V is this everywhere.
        scale: See above.
        name: Tells the random draws of several critics apart.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        num_inputs: int,
        hidden: Sequence[int],
        activation: Activation,
        optimiser: Optimiser,
        offset: float = 0.0,
        scale: float = 1.0,
        name: str = "value",
    ) -> None:
        self.offset, self.scale = offset, scale
        generator = torch.Generator(device=problem.device)
        generator.manual_seed(derive(problem.seed, name))
        self.network = ValueNetwork(
            num_inputs,
            hidden=hidden,
            activation=activation,
            generator=generator,
            device=problem.device,
        )
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            optimiser,
            compile=problem.compile,
            norm_name="value/grad_norm",
        )

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        outputs = functional_call(self.network, parameters, (batch["inputs"],))
        errors = (batch["returns"] - self.offset) / self.scale - outputs
        loss = 0.5 * (batch["value_weights"] * errors.square()).mean()
        return loss, {"loss/value": loss, "values": self.offset + self.scale * outputs}

    @torch.no_grad()
    def values(self, inputs: Tensor) -> Tensor:
        """Return V. Shape (B, D) -> (B,)."""
        outputs: Tensor = self.network(inputs)
        return self.offset + self.scale * outputs

    def step(self, inputs: Tensor, returns: Tensor, weights: Tensor | None = None) -> Tensor:
        """Take one step towards returns; return V as it was before.

        Args:
            inputs: Shape (B, D).
            returns: R. Shape (B,).
            weights: w, None = 1. Shape (B,).
        """
        if weights is None:
            weights = torch.ones_like(returns)
        batch = {"inputs": inputs, "returns": returns, "value_weights": weights}
        return self.engine.step(batch)["values"]

    def drain(self) -> Metrics:
        """Return the metrics' means since the last call."""
        return self.engine.drain()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return self.engine.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state)
