"""Action distributions of supervised policies, one for each kind of action space.

Each maps a network's outputs (B, K) to log-probabilities and actions. Continuous actions are
handled in the range [-1, 1]: a linear map of the space's bounds.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core import soft

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Gaussian",
    "MultiCategorical",
    "make_distribution",
]

LOG_STD_RANGE = (-5.0, 2.0)  # an expert without noise would drive the std to 0 and the loss to -inf


class Distribution(Protocol):
    """How a policy's outputs become actions."""

    @property
    def num_outputs(self) -> int:
        """K, network outputs per observation."""

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (density) of actions. Shape (B,)."""

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats. Shape (B,)."""

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely actions."""

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn actions."""


class Categorical:
    """One choice among A: softmax of A outputs. Actions (B,)."""

    def __init__(self, spec: ActionSpec) -> None:
        self.num_outputs = spec.sizes[0]

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Minus the cross entropy. Shape (B,)."""
        return -F.cross_entropy(outputs, actions, reduction="none")

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats. Shape (B,)."""
        return soft.boltzmann_entropy(outputs, 1.0)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely action. Shape (B,)."""
        return outputs.argmax(dim=-1)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn action. Shape (B,)."""
        return soft.sample(outputs, generator)


class MultiCategorical:
    """Several independent choices: softmax per choice. Actions (B, k)."""

    def __init__(self, spec: ActionSpec) -> None:
        self.sizes = list(spec.sizes)
        self.num_outputs = sum(self.sizes)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(outputs, self.sizes, dim=-1)

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Sum over the choices. Shape (B,)."""
        parts = zip(self._parts(outputs), actions.unbind(-1), strict=True)
        return -torch.stack([F.cross_entropy(o, a, reduction="none") for o, a in parts]).sum(0)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Sum over the choices, nats. Shape (B,)."""
        parts = [soft.boltzmann_entropy(part, 1.0) for part in self._parts(outputs)]
        return torch.stack(parts).sum(0)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely choices. Shape (B, k)."""
        return torch.stack([part.argmax(-1) for part in self._parts(outputs)], dim=-1)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn choices. Shape (B, k)."""
        return torch.stack([soft.sample(part, generator) for part in self._parts(outputs)], dim=-1)


class Bernoulli:
    """k independent switches: sigmoid of k outputs. Actions (B, k) of 0 and 1."""

    def __init__(self, spec: ActionSpec) -> None:
        self.num_outputs = spec.sizes[0]

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Sum over the switches. Shape (B,)."""
        losses = F.binary_cross_entropy_with_logits(
            outputs, actions.to(outputs.dtype), reduction="none"
        )
        return -losses.sum(-1)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Sum over the switches, nats. Shape (B,)."""
        p = torch.sigmoid(outputs)
        return (F.softplus(outputs) - p * outputs).sum(-1)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely switches. Shape (B, k)."""
        return (outputs > 0).to(torch.int8)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn switches. Shape (B, k)."""
        draws = torch.empty_like(outputs).uniform_(generator=generator)
        return (draws < torch.sigmoid(outputs)).to(torch.int8)


class Gaussian:
    """Diagonal Gaussian in the range [-1, 1] with a learned std that is the same everywhere.

    Actions (B, k) in the environment's units; the mean is the network's output, unsquashed.
    """

    def __init__(self, spec: ActionSpec) -> None:
        self.num_outputs = spec.sizes[0]
        self._low = torch.tensor(spec.low)
        self._high = torch.tensor(spec.high)

    def to_unit(self, actions: Tensor) -> Tensor:
        """Map actions from the environment's bounds to [-1, 1]."""
        low, high = self._low.to(actions), self._high.to(actions)
        return 2.0 * (actions - low) / (high - low) - 1.0

    def from_unit(self, actions: Tensor) -> Tensor:
        """Map actions from [-1, 1] to the environment's bounds, clipping what lies outside."""
        low, high = self._low.to(actions), self._high.to(actions)
        return low + (actions.clamp(-1.0, 1.0) + 1.0) * 0.5 * (high - low)

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-density in unit range, -½ Σ_j ((a_j - μ_j)² / σ_j² + 2 log σ_j + log 2π). (B,)."""
        log_std = log_std.clamp(*LOG_STD_RANGE)
        errors = (self.to_unit(actions) - outputs) / log_std.exp()
        return -0.5 * (errors.square() + 2.0 * log_std + math.log(2.0 * math.pi)).sum(-1)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats, in unit range. Shape (B,)."""
        log_std = log_std.clamp(*LOG_STD_RANGE)
        total = (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum()
        return total.expand(outputs.shape[0])

    def mode(self, outputs: Tensor) -> Tensor:
        """The mean. Shape (B, k)."""
        return self.from_unit(outputs)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn actions. Shape (B, k)."""
        noise = torch.empty_like(outputs).normal_(generator=generator)
        return self.from_unit(outputs + noise * log_std.clamp(*LOG_STD_RANGE).exp())


def make_distribution(spec: ActionSpec) -> Distribution:
    """Return the distribution for an action space."""
    kinds: dict[str, type[Categorical | MultiCategorical | Bernoulli | Gaussian]] = {
        "discrete": Categorical,
        "multi_discrete": MultiCategorical,
        "multi_binary": Bernoulli,
        "continuous": Gaussian,
    }
    return kinds[spec.kind](spec)
