"""Networks for vectors and images. Their initial weights come from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlfd.algorithms.core.bounds import Bounds, project
from rlfd.algorithms.core.distributions import LOG_STD_RANGE

__all__ = [
    "Activation",
    "PolicyNetwork",
    "QNetwork",
    "ValueNetwork",
    "convolutions",
    "convolved_size",
    "in_pieces",
    "mlp",
]

Activation = Literal["relu", "tanh"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

# Channels, kernel and stride of each layer in "Human-level control through deep reinforcement
# learning" (Mnih et al., Nature 518, 2015).
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))

IMAGES_AT_ONCE = 512  # the first layer's outputs take 51 kB for each of 84 x 84


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
        gain = last_gain if is_last or last_gain is None else math.sqrt(2.0)
        _initialise(linear.weight, linear.bias, gain, generator)
        layers.append(linear)
        if not is_last:
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out, device=device))
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


@torch.no_grad()
def _initialise(
    weight: Tensor, bias: Tensor, gain: float | None, generator: torch.Generator
) -> None:
    if gain is None:
        bound = 1.0 / math.sqrt(weight[0].numel())
        for parameter in (weight, bias):
            parameter.uniform_(-bound, bound, generator=generator)
    else:
        nn.init.orthogonal_(weight, gain, generator=generator)
        bias.zero_()


def convolved_size(image_shape: Sequence[int]) -> int:
    """Return how many numbers the convolutions make of an image (C, H, W).

    0 where they do not fit: a side is shorter than 36, or the shape is not an image's.
    """
    if len(image_shape) != 3:
        return 0
    sides = list(image_shape[1:])
    for _, kernel, stride in _CONVOLUTIONS:
        sides = [(side - kernel) // stride + 1 if side >= kernel else 0 for side in sides]
    return math.prod(sides) * _CONVOLUTIONS[-1][0]


class _Unit(nn.Module):
    """Bytes 0 to 255 as numbers from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self._dtype = torch.get_default_dtype()

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self._dtype) / 255.0


class _Convolution(nn.Conv2d):
    """Without padding. On a GPU one matrix product of all patches.

    Of a few dozen images that takes two thirds of the time of the library's convolution, which
    reorders everything before and after (docs/design.md).
    """

    def forward(self, images: Tensor) -> Tensor:
        return self.by_patches(images) if images.is_cuda else super().forward(images)

    def by_patches(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to (B, K, H', W')."""
        (high, wide), (down, right) = self.kernel_size, self.stride
        patches = images.unfold(2, high, down).unfold(3, wide, right)  # (B, C, H', W', high, wide)
        count, _, rows, columns = patches.shape[:4]
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(count * rows * columns, -1)
        outputs = F.linear(flat, self.weight.flatten(1), self.bias)
        return outputs.view(count, rows, columns, -1).permute(0, 3, 1, 2)


def convolutions(
    image_shape: Sequence[int],
    *,
    orthogonal: bool,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Sequential:
    """Build the three convolutions of Mnih et al., each followed by a ReLU, and flatten.

    Args:
        image_shape: (C, H, W), for which `convolved_size` is not 0. Images come as bytes.
        orthogonal: Weights as `mlp` with a `last_gain` has them in hidden layers.
        generator: Source of the initial weights.
        device: Where the weights live.
    """
    layers: list[nn.Module] = [_Unit()]
    channels = image_shape[0]
    for out, kernel, stride in _CONVOLUTIONS:
        layer = _Convolution(channels, out, kernel, stride, device="meta").to_empty(device=device)
        assert layer.bias is not None
        gain = math.sqrt(2.0) if orthogonal else None
        _initialise(layer.weight, layer.bias, gain, generator)
        layers += [layer, nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Flatten())


def _body(
    observation_shape: tuple[int, ...],
    widths: Sequence[int],
    *,
    images: bool,
    layer_norm: bool,
    activation: Activation = "relu",
    last_gain: float | None = None,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Sequential:
    """Build an MLP from flat vectors to the last of `widths`, with convolutions before for images.

    The layers after the convolutions are the same as for vectors.
    """
    before: list[nn.Module] = []
    inputs = math.prod(observation_shape)
    if images:
        before = list(
            convolutions(
                observation_shape,
                orthogonal=last_gain is not None,
                generator=generator,
                device=device,
            )
        )
        inputs = convolved_size(observation_shape)
    dense = mlp(
        [inputs, *widths],
        layer_norm=layer_norm,
        activation=activation,
        last_gain=last_gain,
        generator=generator,
        device=device,
    )
    return nn.Sequential(*before, *dense)


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return what a function makes of many images (M, C, H, W), a few hundred at a time."""
    parts = torch.split(torch.arange(len(images), device=images.device), IMAGES_AT_ONCE)
    return torch.cat([function(images.index_select(0, rows)) for rows in parts])


class PolicyNetwork(nn.Module):
    """Standardisation of observations, MLP, and the log-std of continuous actions.

    Images are not standardised, and pass through convolutions before the MLP. One class for all
    policies of this shape, so that one method can go on from another's weights.

    Attributes:
        bounds: Where the log-std must stay: whoever trains it projects it there after each step.

    Args:
        observation_shape: Flattened before the first layer; of images (C, H, W).
        num_outputs: K, what the action distribution needs.
        hidden: Widths of the hidden layers (of images: after the convolutions).
        images: Whether observations are images of bytes.
        layer_norm: See `mlp`.
        activation: See `mlp`.
        last_gain: See `mlp`; small = the first policy hardly depends on the observation.
        log_std_start: First log-std of each continuous action.
        observation_clip: Standardised observations are clipped to ± this; None = not at all. It
            belongs to the policy: whoever goes on from its weights clips alike.
        generator: Source of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_outputs: int,
        *,
        hidden: Sequence[int],
        images: bool = False,
        layer_norm: bool = False,
        activation: Activation = "relu",
        last_gain: float | None = None,
        log_std_start: float = 0.0,
        observation_clip: float | None = None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        inputs = 0 if images else math.prod(observation_shape)  # numbers to standardise
        self.images = images
        self.mean: Tensor
        self.std: Tensor
        self.clip: Tensor
        largest = torch.finfo(torch.get_default_dtype()).max  # finite, as everything that is saved
        clip = largest if observation_clip is None else observation_clip
        self.register_buffer("clip", torch.tensor(clip, device=device))
        self.register_buffer("mean", torch.zeros(inputs, device=device))
        self.register_buffer("std", torch.ones(inputs, device=device))
        self.log_std = nn.Parameter(torch.full((num_outputs,), log_std_start, device=device))
        self.bounds: Bounds = {"log_std": LOG_STD_RANGE}
        self.body = _body(
            observation_shape,
            [*hidden, num_outputs],
            images=images,
            layer_norm=layer_norm,
            activation=activation,
            last_gain=last_gain,
            generator=generator,
            device=device,
        )

    def input_state(self) -> dict[str, Tensor]:
        """Return what `standardise` depends on."""
        return {name: value.clone() for name, value in self.named_buffers()}

    def load_input_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `input_state` returned."""
        for name, value in state.items():
            self.get_buffer(name).copy_(value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(prefix + "clip", self.clip)  # policies from before it was saved
        super()._load_from_state_dict(state_dict, prefix, *rest)
        with torch.no_grad():  # policies from before it was projected
            project(dict(self.named_parameters()), self.bounds)

    def standardise(self, observations: Tensor) -> Tensor:
        """Flatten and scale observations (B, *observation_shape) to inputs (B, D) of the body.

        Images are their own inputs, and stay bytes.
        """
        if self.images:
            return observations
        inputs = (observations.flatten(1) - self.mean) / self.std
        return inputs.clamp(-self.clip, self.clip)

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) to outputs (B, K)."""
        outputs: Tensor = self.body(self.standardise(observations))
        return outputs

    @property
    def num_features(self) -> int:
        """F, numbers that `features` returns for each input."""
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        return last.in_features

    def features(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, D) to what the last layer sees (B, F)."""
        for layer in list(self.body)[:-1]:
            inputs = layer(inputs)
        return inputs


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
    """Action values: an MLP, after convolutions for images; optionally dueling (Wang et al., 2016).

    Args:
        observation_shape: Flattened before the first layer; of images (C, H, W).
        num_actions: A.
        hidden: Widths of the hidden layers (of images: after the convolutions).
        images: Whether observations are images of bytes.
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
        images: bool = False,
        layer_norm: bool,
        dueling: bool = False,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.images, self.dueling = images, dueling
        self.body = _body(
            observation_shape,
            [*hidden, num_actions + 1 if dueling else num_actions],
            images=images,
            layer_norm=layer_norm,
            generator=generator,
            device=device,
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations (B, *observation_shape) to action values (B, A)."""
        outputs: Tensor = self.body(observations if self.images else observations.flatten(1))
        if not self.dueling:
            return outputs
        value, advantage = outputs[:, :1], outputs[:, 1:]
        return value + advantage - advantage.mean(dim=-1, keepdim=True)
