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
        frames: All of an episode, in order. Shape (T, H, W).
        size: Frames of a stack, S.

    Returns:
        Each frame as the last one of its stack, a view that nobody can write to. Shape
        (T, S, H, W).
    """
    padded = np.concatenate([*[frames[:1]] * (size - 1), frames])
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, 0)
    return np.moveaxis(windows, -1, 1)


def unstack_frames(observations: Array) -> Array:
    """Return the frames of an episode's stacks, (T, S, H, W) -> (T, H, W)."""
    return observations[:, -1]
