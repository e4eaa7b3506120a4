"""Networks for vector observations. Their initial weights come from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Activation", "PolicyNetwork", "QNetwork", "ValueNetwork", "mlp"]

Activation = Literal["relu", "tanh"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(
    sizes: Sequence[int],
    *,
    layer_norm: bool,
    activation: Activation = "relu",
    last_gain: float | None = None,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Sequential:
    """Build Linear (-> LayerNorm) -> activation blocks and a last Linear.

    Args:
        sizes: Widths from input to output, at least two.
        layer_norm: Normalise after each hidden linear layer, before its activation.
        activation: What follows each hidden layer.
        last_gain: None = weights and biases uniform in ±1/sqrt(fan_in), PyTorch's default for
            linear layers. A number = orthogonal weights, scaled by √2 in hidden layers and by this
            in the last, and biases 0, as is usual for on-policy learners.
        generator: Source of the initial weights.
        device: Where the weights live.
    """
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        # without memory first: the layer's own initialisation would draw from torch's generator
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device=device)
        is_last = index == len(sizes) - 2
        with torch.no_grad():
            if last_gain is None:
                bound = 1.0 / math.sqrt(fan_in)
                for parameter in (linear.weight, linear.bias):
                    parameter.uniform_(-bound, bound, generator=generator)
            else:
                gain = last_gain if is_last else math.sqrt(2.0)
                nn.init.orthogonal_(linear.weight, gain, generator=generator)
                linear.bias.zero_()
        layers.append(linear)
        if not is_last:
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out, device=device))
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class PolicyNetwork(nn.Module):
    """Standardisation of observations, MLP, and the log-std of continuous actions.

    One class for all policies of this shape, so that one method can go on from another's weights.

    Args:
        observation_shape: Flattened before the first layer.
        num_outputs: K, what the action distribution needs.
        hidden: Widths of the hidden layers.
        layer_norm: See `mlp`.
        activation: See `mlp`.
        last_gain: See `mlp`; small = the first policy hardly depends on the observation.
        log_std_start: First log-std of each continuous action.
        observation_clip: Standardised observations are clipped to ± this.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_outputs: int,
        *,
        hidden: Sequence[int],
        layer_norm: bool = False,
        activation: Activation = "relu",
        last_gain: float | None = None,
        log_std_start: float = 0.0,
        observation_clip: float = math.inf,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        inputs = math.prod(observation_shape)
        self.observation_clip = observation_clip
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(inputs, device=device))
        self.register_buffer("std", torch.ones(inputs, device=device))
        self.log_std = nn.Parameter(torch.full((num_outputs,), log_std_start, device=device))
        self.body = mlp(
            [inputs, *hidden, num_outputs],
            layer_norm=layer_norm,
            activation=activation,
            last_gain=last_gain,
            generator=generator,
            device=device,
        )

    def standardise(self, observations: Tensor) -> Tensor:
        """Flatten and scale observations (B, *observation_shape) to inputs (B, D) of the MLP."""
        inputs = (observations.flatten(1) - self.mean) / self.std
        return inputs.clamp(-self.observation_clip, self.observation_clip)

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) to outputs (B, K)."""
        outputs: Tensor = self.body(self.standardise(observations))
        return outputs


class ValueNetwork(nn.Module):
    """A state value from inputs that the policy has standardised.

    It begins as 0 everywhere: as long as no reward has come, advantages are exactly 0, and not the
    noise of random weights.

    Args:
        num_inputs: D, numbers in one observation.
        hidden: Widths of the hidden layers.
        activation: See `mlp`.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        num_inputs: int,
        *,
        hidden: Sequence[int],
        activation: Activation,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.body = mlp(
            [num_inputs, *hidden, 1],
            layer_norm=False,
            activation=activation,
            last_gain=0.0,
            generator=generator,
            device=device,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, D) to values (B,)."""
        values: Tensor = self.body(inputs)[:, 0]
        return values


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
