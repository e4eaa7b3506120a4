"""Networks for vector observations. Their initial weights come from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["QNetwork", "mlp"]


def mlp(
    sizes: Sequence[int], *, layer_norm: bool, generator: torch.Generator, device: torch.device
) -> nn.Sequential:
    """Build Linear (-> LayerNorm) -> ReLU blocks and a last Linear.

    Weights and biases are uniform in ±1/sqrt(fan_in), PyTorch's default for linear layers.

    Args:
        sizes: Widths from input to output, at least two.
        layer_norm: Normalise after each hidden linear layer, before its ReLU.
        generator: Source of the initial weights.
        device: Where the weights live.
    """
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        # without memory first: the layer's own initialisation would draw from torch's generator
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device=device)
        bound = 1.0 / math.sqrt(fan_in)
        with torch.no_grad():
            for parameter in (linear.weight, linear.bias):
                parameter.uniform_(-bound, bound, generator=generator)
        layers.append(linear)
        if index < len(sizes) - 2:
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out, device=device))
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class QNetwork(nn.Module):
    """Action values of vector observations: an MLP, optionally dueling (Wang et al., 2016).

    Args:
        observation_shape: Flattened before the first layer.
        num_actions: A.
        hidden: Widths of the hidden layers.
        layer_norm: See `mlp`.
        dueling: Q = V + A - mean_a A instead of Q directly.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_actions: int,
        *,
        hidden: Sequence[int],
        layer_norm: bool,
        dueling: bool = False,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.dueling = dueling
        outputs = num_actions + 1 if dueling else num_actions
        sizes = [math.prod(observation_shape), *hidden, outputs]
        self.body = mlp(sizes, layer_norm=layer_norm, generator=generator, device=device)

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) to action values (B, A)."""
        outputs: Tensor = self.body(observations.flatten(1))
        if not self.dueling:
            return outputs
        value, advantage = outputs[:, :1], outputs[:, 1:]
        return value + advantage - advantage.mean(dim=-1, keepdim=True)
