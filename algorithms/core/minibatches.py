"""Cutting data into shuffled minibatches."""

from __future__ import annotations

import torch
from torch import Tensor

from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.timing import timed

__all__ = ["cycled", "shuffled"]


@timed("sample")
def shuffled(data: Batch, size: int, generator: torch.Generator) -> list[Batch]:
    """Return one pass over `data` in random order, cut into batches of `size` rows.

    The last, smaller batch is left out.
    """
    first = next(iter(data.values()))
    order = torch.randperm(len(first), generator=generator, device=generator.device)
    order = order.to(first.device)
    mixed = {name: value.index_select(0, order) for name, value in data.items()}
    return [
        {name: value[start : start + size] for name, value in mixed.items()}
        for start in range(0, len(first) - size + 1, size)
    ]


def cycled(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` indices below `rows`: all in random order, as often as necessary."""
    passes = -(-count // rows)
    orders = [torch.randperm(rows, generator=generator) for _ in range(passes)]
    return torch.cat(orders)[:count]
