"""Acting in NumPy, for small networks and few rows.

Acting asks a policy for a handful of rows at a time. Torch takes ten times as long to find its
kernels as these take to run; NumPy finds its own sooner. Losses and advantages stay torch's: what
was done is judged by the network itself, so that rounding is the only difference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rlfd.algorithms.core.distributions import Gaussian
from rlfd.algorithms.core.networks import PolicyNetwork

__all__ = ["PlainGaussian", "PlainNetwork", "plain_network"]

Array = npt.NDArray[np.floating]

MOST_PRODUCTS = 2**17  # rows x inputs x outputs of a layer: beyond, NumPy would start threads


class PlainNetwork:
    """A policy network of dense layers, reading the memory of its parameters.

    Args:
        network: On the CPU; made again when its parameters move, not when their values change.
    """

    def __init__(self, network: PolicyNetwork) -> None:
        self.dtype = network.mean.dtype
        self._mean, self._std = network.mean.numpy(), network.std.numpy()
        self._clip = network.clip.numpy()
        linear = [layer for layer in network.body if isinstance(layer, nn.Linear)]
        self._layers = [
            (layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linear
        ]
        self._tanh = any(isinstance(layer, nn.Tanh) for layer in network.body)

    def __call__(self, observations: npt.NDArray[np.generic]) -> Array:
        """Map observations (B, *observation_shape) to outputs (B, K)."""
        rows = observations.reshape(len(observations), -1).astype(self._mean.dtype)
        rows -= self._mean
        rows /= self._std
        np.maximum(rows, -self._clip, out=rows)
        np.minimum(rows, self._clip, out=rows)
        last = len(self._layers) - 1
        for index, (weight, bias) in enumerate(self._layers):
            rows = rows @ weight
            rows += bias
            if index < last and self._tanh:
                np.tanh(rows, out=rows)
            elif index < last:
                np.maximum(rows, 0.0, out=rows)
        return rows


def plain_network(network: PolicyNetwork, rows: int) -> PlainNetwork | None:
    """Return the network in NumPy; None where it is of another kind, or too large for it.

    Args:
        network: The policy.
        rows: B, how many observations it will be asked about at a time.
    """
    if network.images or network.mean.device.type != "cpu":
        return None
    for layer in network.body:
        if isinstance(layer, nn.Linear):
            if rows * layer.weight.numel() > MOST_PRODUCTS:
                return None
        elif not isinstance(layer, nn.Tanh | nn.ReLU):
            return None
    return PlainNetwork(network)


class PlainGaussian:
    """Actions of one policy, as long as its parameters stay what they are.

    Args:
        network: The policy in NumPy.
        distribution: Of its actions.
        log_std: Its log-std, shape (k,); None = the most likely actions are wanted.
    """

    def __init__(
        self, network: PlainNetwork, distribution: Gaussian, log_std: torch.Tensor | None
    ) -> None:
        self._network = network
        self._std = None if log_std is None else distribution.std(log_std.detach()).numpy()
        self._middle, self._half, self._low, self._high = distribution.bounds

    def __call__(
        self, observations: npt.NDArray[np.generic], generator: torch.Generator | None
    ) -> tuple[Array, Array]:
        """Return actions (B, k) as they were drawn, and in the environment's units."""
        drawn = self._network(observations)
        if self._std is not None:
            noise = torch.empty(drawn.shape, dtype=self._network.dtype).normal_(generator=generator)
            drawn += noise.numpy() * self._std
        decoded = drawn * self._half
        decoded += self._middle
        np.maximum(decoded, self._low, out=decoded)
        np.minimum(decoded, self._high, out=decoded)
        return drawn, decoded
