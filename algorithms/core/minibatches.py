"""Cutting data into shuffled minibatches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.timing import timed

__all__ = ["cycled", "drawn", "shuffled"]


def shuffled(data: Batch, size: int, generator: torch.Generator) -> Iterable[Batch]:
    """Return one pass over `data` in random order, cut into batches of `size` rows.

    The last, smaller batch is left out. The order is drawn at once, rows are gathered batch by
    batch: all together they may not fit into memory.
    """
    first = next(iter(data.values()))
    order = torch.randperm(len(first), generator=generator, device=generator.device)
    parts = torch.split(order.to(first.device), size)
    return (_gather(data, rows) for rows in parts if len(rows) == size)


def drawn(data: Batch, batches: int, size: int, generator: torch.Generator) -> Iterable[Batch]:
    """Return minibatches of `size` rows, drawn uniformly with replacement.

    As with `shuffled`, the draws are made at once, and rows are gathered batch by batch.
    """
    rows = len(next(iter(data.values())))
    slots = torch.randint(rows, (batches, size), generator=generator, device=generator.device)
    return (_gather(data, chosen) for chosen in slots)


@timed("sample")
def _gather(data: Batch, rows: Tensor) -> Batch:
    return {name: value.index_select(0, rows) for name, value in data.items()}


def cycled(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` indices below `rows`: all in random order, as often as necessary."""
    passes = -(-count // rows)
    orders = [torch.randperm(rows, generator=generator) for _ in range(passes)]
    return torch.cat(orders)[:count]
