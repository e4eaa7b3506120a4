"""Observations that are stacks of the last frames: each frame kept once, stacks made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["stack_frames", "unstack_frames"]

Array = npt.NDArray[Any]


def stack_frames(frames: Array, size: int) -> Array:
    """Return the stacks that an episode's frames were seen in.

    The first one stands for those before it.

    Args:
        frames: All of an episode, in order. Shape (T, H, W) or (T, C, H, W).
        size: Frames of a stack, S.

    Returns:
        Each frame as the last one of its stack, a view that nobody can write to. Shape
        (T, S, H, W) or (T, S C, H, W).
    """
    padded = np.concatenate([*[frames[:1]] * (size - 1), frames])
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, 0)
    stacks = np.moveaxis(windows, -1, 1)
    return stacks if frames.ndim == 3 else stacks.reshape(len(frames), -1, *frames.shape[2:])


def unstack_frames(observations: Array, size: int) -> Array:
    """Return the frames of stacks of `size`, (..., S C, H, W) -> (..., C, H, W).

    Of frames with one channel (..., H, W).
    """
    channels = observations.shape[-3] // size
    return observations[..., -1, :, :] if channels == 1 else observations[..., -channels:, :, :]
