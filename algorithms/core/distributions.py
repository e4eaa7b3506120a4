"""Action distributions of policies, one for each kind of action space.

Each maps a network's outputs (B, K) to log-probabilities and actions. Actions are in the *policy's
units*: continuous ones in the range that maps the space's bounds to [-1, 1], not clipped, since a
density belongs to what was drawn; others as they are. `encode` and `decode` change units.

A ratio of two policies may be one of draws (`log_prob`), whatever the environment makes of them.
What is compared with something that sees *executed* actions, which are clipped, must be a density
of those (`executed_log_prob`): a reward, a discriminator, an action that somebody demonstrated.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
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
AT_BOUND = 1.0 - 1e-3  # of bounds at ±1: a squashed action comes near, but never there


class Distribution(Protocol):
    """How a policy's outputs become actions."""

    @property
    def num_outputs(self) -> int:
        """K, network outputs per observation."""

    @property
    def num_features(self) -> int:
        """F, numbers that `features` makes of an action."""

    def encode(self, actions: Tensor) -> Tensor:
        """Change actions from the environment's units to the policy's."""

    def decode(self, actions: Tensor) -> Tensor:
        """Change actions from the policy's units to the environment's, clipped to its bounds."""

    def features(self, actions: Tensor) -> Tensor:
        """What a kernel or a discriminator sees of an action. Shape (B, F)."""

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (density) of actions. Shape (B,)."""

    def executed_log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (density) of what the environment makes of actions. Shape (B,)."""

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats. Shape (B,)."""

    def kl(
        self, old_outputs: Tensor, old_log_std: Tensor, outputs: Tensor, log_std: Tensor
    ) -> Tensor:
        """KL(old ‖ new) in nats. Shape (B,)."""

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely actions."""

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn actions."""


class _AsTheyAre:
    """Actions whose units are the same for policy and environment."""

    def encode(self, actions: Tensor) -> Tensor:
        """Change nothing."""
        return actions

    def decode(self, actions: Tensor) -> Tensor:
        """Change nothing."""
        return actions

    def executed_log_prob(
        self: Distribution, outputs: Tensor, log_std: Tensor, actions: Tensor
    ) -> Tensor:
        """Log-probability: they are executed as they are. Shape (B,)."""
        return self.log_prob(outputs, log_std, actions)


class Categorical(_AsTheyAre):
    """One choice among A: softmax of A outputs. Actions (B,)."""

    def __init__(self, spec: ActionSpec) -> None:
        self.num_outputs = self.num_features = spec.sizes[0]

    def features(self, actions: Tensor) -> Tensor:
        """One-hot. Shape (B, A)."""
        return F.one_hot(actions, self.num_outputs).to(torch.get_default_dtype())

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Minus the cross entropy. Shape (B,)."""
        return -F.cross_entropy(outputs, actions, reduction="none")

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats. Shape (B,)."""
        return soft.boltzmann_entropy(outputs, 1.0)

    def kl(
        self, old_outputs: Tensor, old_log_std: Tensor, outputs: Tensor, log_std: Tensor
    ) -> Tensor:
        """Σ_a p_old(a) (log p_old(a) - log p(a)). Shape (B,)."""
        old = torch.log_softmax(old_outputs, dim=-1)
        return (old.exp() * (old - torch.log_softmax(outputs, dim=-1))).sum(-1)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely action. Shape (B,)."""
        return outputs.argmax(dim=-1)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn action. Shape (B,)."""
        return soft.sample(outputs, generator)


class MultiCategorical(_AsTheyAre):
    """Several independent choices: softmax per choice. Actions (B, k)."""

    def __init__(self, spec: ActionSpec) -> None:
        self.sizes = list(spec.sizes)
        self.num_outputs = self.num_features = sum(self.sizes)
        self._choices = [Categorical(ActionSpec("discrete", (size,))) for size in self.sizes]

    def _parts(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(outputs, self.sizes, dim=-1)

    def features(self, actions: Tensor) -> Tensor:
        """One-hot per choice, side by side. Shape (B, A_1 + ... + A_k)."""
        parts = zip(self._choices, actions.unbind(-1), strict=True)
        return torch.cat([choice.features(part) for choice, part in parts], dim=-1)

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Sum over the choices. Shape (B,)."""
        parts = zip(self._parts(outputs), actions.unbind(-1), strict=True)
        return -torch.stack([F.cross_entropy(o, a, reduction="none") for o, a in parts]).sum(0)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Sum over the choices, nats. Shape (B,)."""
        parts = [soft.boltzmann_entropy(part, 1.0) for part in self._parts(outputs)]
        return torch.stack(parts).sum(0)

    def kl(
        self, old_outputs: Tensor, old_log_std: Tensor, outputs: Tensor, log_std: Tensor
    ) -> Tensor:
        """Sum over the choices. Shape (B,)."""
        parts = zip(self._choices, self._parts(old_outputs), self._parts(outputs), strict=True)
        return torch.stack([c.kl(old, old_log_std, new, log_std) for c, old, new in parts]).sum(0)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely choices. Shape (B, k)."""
        return torch.stack([part.argmax(-1) for part in self._parts(outputs)], dim=-1)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn choices. Shape (B, k)."""
        return torch.stack([soft.sample(part, generator) for part in self._parts(outputs)], dim=-1)


class Bernoulli(_AsTheyAre):
    """k independent switches: sigmoid of k outputs. Actions (B, k) of 0 and 1."""

    def __init__(self, spec: ActionSpec) -> None:
        self.num_outputs = self.num_features = spec.sizes[0]

    def features(self, actions: Tensor) -> Tensor:
        """0 and 1. Shape (B, k)."""
        return actions.to(torch.get_default_dtype())

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

    def kl(
        self, old_outputs: Tensor, old_log_std: Tensor, outputs: Tensor, log_std: Tensor
    ) -> Tensor:
        """Sum over the switches of cross entropy minus entropy. Shape (B,)."""
        p = torch.sigmoid(old_outputs)
        cross_entropy = F.softplus(outputs) - p * outputs
        return (cross_entropy - (F.softplus(old_outputs) - p * old_outputs)).sum(-1)

    def mode(self, outputs: Tensor) -> Tensor:
        """Most likely switches. Shape (B, k)."""
        return (outputs > 0).to(torch.int8)

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn switches. Shape (B, k)."""
        draws = torch.empty_like(outputs).uniform_(generator=generator)
        return (draws < torch.sigmoid(outputs)).to(torch.int8)


class Gaussian:
    """Diagonal Gaussian with a learned std that is the same everywhere; the mean is unsquashed.

    Actions (B, k), the bounds of the space at ±1; what lies outside is clipped on `decode` only.

    Args:
        spec: The space.
        device: Where actions live: bounds that had to be copied there could not be recorded.
    """

    def __init__(self, spec: ActionSpec, device: torch.device | None = None) -> None:
        self.num_outputs = self.num_features = spec.sizes[0]
        self._low = torch.tensor(spec.low, device=device)
        self._high = torch.tensor(spec.high, device=device)
        self._middle = (self._high + self._low) / 2.0
        self._half = (self._high - self._low) / 2.0

    @property
    def bounds(self) -> tuple[np.ndarray, ...]:
        """Middle, half width, lower and upper bound in the environment's units. Shapes (k,)."""
        return tuple(x.cpu().numpy() for x in (self._middle, self._half, self._low, self._high))

    @staticmethod
    def std(log_std: Tensor) -> Tensor:
        """What a log-std stands for. Shape (k,)."""
        return log_std.exp()

    def encode(self, actions: Tensor) -> Tensor:
        """Map the environment's bounds to [-1, 1]."""
        return (actions - self._middle.to(actions)) / self._half.to(actions)

    def decode(self, actions: Tensor) -> Tensor:
        """Map [-1, 1] to the environment's bounds, clipping what lies outside."""
        wanted = self._middle.to(actions) + actions * self._half.to(actions)
        # clipped last: rounding must not lead outside the bounds
        return torch.clamp(wanted, self._low.to(actions), self._high.to(actions))

    def features(self, actions: Tensor) -> Tensor:
        """What the environment acts on: clipped to [-1, 1]. Shape (B, k)."""
        return actions.clamp(-1.0, 1.0)

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-density -½ Σ_j ((a_j - μ_j)² / σ_j² + 2 log σ_j + log 2π). Shape (B,)."""
        errors = (actions - outputs) / self.std(log_std)
        return -0.5 * (errors.square() + 2.0 * log_std + math.log(2.0 * math.pi)).sum(-1)

    def executed_log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log-density of clipped actions: of a Gaussian that is censored at its bounds. Shape (B,).

        Between the bounds the density of `log_prob`; at a bound, or beyond it, the probability that
        a draw falls there: log Φ((±μ_j - 1) / σ_j).
        """
        std = self.std(log_std)
        errors = (actions - outputs) / std
        inside = -0.5 * (errors.square() + math.log(2.0 * math.pi)) - std.log()
        beyond = torch.special.log_ndtr((actions.sign() * outputs - AT_BOUND) / std)
        return torch.where(actions.abs() < AT_BOUND, inside, beyond).sum(-1)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy in nats, in the policy's units. Shape (B,)."""
        total = (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum()
        return total.expand(outputs.shape[0])

    def kl(
        self, old_outputs: Tensor, old_log_std: Tensor, outputs: Tensor, log_std: Tensor
    ) -> Tensor:
        """Σ_j log(σ_j / σ_old,j) + (σ_old,j² + (μ_old,j - μ_j)²) / (2 σ_j²) - ½. Shape (B,)."""
        squares = (2.0 * old_log_std).exp() + (old_outputs - outputs).square()
        return (log_std - old_log_std + 0.5 * (squares * (-2.0 * log_std).exp() - 1.0)).sum(-1)

    def mode(self, outputs: Tensor) -> Tensor:
        """The mean. Shape (B, k)."""
        return outputs

    def sample(self, outputs: Tensor, log_std: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drawn actions. Shape (B, k)."""
        noise = torch.empty_like(outputs).normal_(generator=generator)
        return outputs + noise * self.std(log_std)


def make_distribution(spec: ActionSpec, device: torch.device | None = None) -> Distribution:
    """Return the distribution for an action space, of actions on a device; None = the CPU."""
    kinds: dict[str, type[Categorical | MultiCategorical | Bernoulli]] = {
        "discrete": Categorical,
        "multi_discrete": MultiCategorical,
        "multi_binary": Bernoulli,
    }
    return Gaussian(spec, device) if spec.kind == "continuous" else kinds[spec.kind](spec)
