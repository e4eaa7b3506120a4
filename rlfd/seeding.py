"""Independent streams of randomness from one seed."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["derive", "derive_many"]


def derive_many(seed: int, stream: str, count: int) -> list[int]:
    """Return `count` integers below 2**32 for a named stream; other names give unrelated ones."""
    entropy = [seed, zlib.crc32(stream.encode())]
    return [int(n) for n in np.random.SeedSequence(entropy).generate_state(count)]


def derive(seed: int, stream: str) -> int:
    """Return one integer below 2**32 for a named stream."""
    return derive_many(seed, stream, 1)[0]
