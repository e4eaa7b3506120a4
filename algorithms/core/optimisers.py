"""First-order optimisers as pure functions of flat vectors, for the update engine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adam", "Momentum", "Optimiser", "RMSProp"]


@dataclass(frozen=True, slots=True)
class Optimiser(ABC):
    """What all have: norm clipping and a linear learning-rate schedule.

    Attributes:
        learning_rate: At the first update. > 0.
        final_fraction: Rate after `planned_updates`, as a fraction. In [0, 1]; 1 = constant.
        planned_updates: Length of the schedule. > 0.
        max_grad_norm: Global gradient norm is clipped to this; 0 = never.
    """

    learning_rate: float
    final_fraction: float = 1.0
    planned_updates: int = 1
    max_grad_norm: float = 0.0

    def rate(self, count: int) -> float:
        """Return the learning rate after `count` updates."""
        progress = min(count / self.planned_updates, 1.0)
        return self.learning_rate * (1.0 - (1.0 - self.final_fraction) * progress)

    def corrections(self, count: int) -> tuple[float, float]:
        """Return what the first moment and the root of the second are divided by."""
        return 1.0, 1.0

    @abstractmethod
    def step(
        self, gradient: Tensor, first: Tensor, second: Tensor, scale: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what to subtract from the parameters, and both moments after this gradient.

        Args:
            gradient: Clipped.
            first: First moment.
            second: Second moment.
            scale: Learning rate over the first correction, a scalar.
            root: The second correction, a scalar.
        """


@dataclass(frozen=True, slots=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015); `epsilon` is added to the root of the second moment."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def corrections(self, count: int) -> tuple[float, float]:
        """Return 1 - β₁ⁿ and √(1 - β₂ⁿ)."""
        return 1.0 - self.beta1 ** (count + 1), math.sqrt(1.0 - self.beta2 ** (count + 1))

    def step(
        self, gradient: Tensor, first: Tensor, second: Tensor, scale: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go against the first moment over the root of the second."""
        first = torch.lerp(first, gradient, 1.0 - self.beta1)
        second = torch.lerp(second, gradient.square(), 1.0 - self.beta2)
        return scale * first / (second.sqrt() / root + self.epsilon), first, second


@dataclass(frozen=True, slots=True)
class RMSProp(Optimiser):
    """RMSProp (Hinton, lecture 6e, 2012); `epsilon` is added to the root."""

    smoothing: float = 0.99
    epsilon: float = 1e-5

    def step(
        self, gradient: Tensor, first: Tensor, second: Tensor, scale: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go against the gradient over the root of the second moment."""
        second = torch.lerp(second, gradient.square(), 1.0 - self.smoothing)
        return scale * gradient / (second.sqrt() + self.epsilon), first, second


@dataclass(frozen=True, slots=True)
class Momentum(Optimiser):
    """Gradient descent with momentum: m ← μ m + gradient."""

    momentum: float = 0.9

    def step(
        self, gradient: Tensor, first: Tensor, second: Tensor, scale: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go against m."""
        first = self.momentum * first + gradient
        return scale * first, first, second
