"""Learning from a fixed set of demonstrations: what is held out, passes, and when to stop.

Held out are whole *trajectories*: neighbouring observations in both halves would hide overfitting.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlfd.algorithms.base import AlgorithmConfig, DemoTensors, hyper
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import shuffled
from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.normaliser import usable_std
from rlfd.errors import RlfdError

__all__ = [
    "EarlyStopping",
    "OfflineFields",
    "Passes",
    "early_stopping",
    "fit_statistics",
    "select",
    "split_trajectories",
]

logger = logging.getLogger("rlfd.offline")


@dataclass(frozen=True, kw_only=True)
class OfflineFields(AlgorithmConfig):
    """Hyperparameters of `Passes`."""

    batch_size: int = hyper(128, "pairs per update", low=1)
    max_epochs: int = hyper(500, "passes over the training trajectories, at most", low=1)
    patience: int = hyper(20, "passes without improvement before stopping", low=1)
    min_delta: float = hyper(
        0.05, "falls of the validation loss count if they are more than this share of it", low=0
    )
    min_updates: int = hyper(1_000, "updates before patience may end it", low=0)
    validation_fraction: float = hyper(0.1, "share of trajectories held out", above=0, high=0.9)


def split_trajectories(
    demonstrations: DemoTensors, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split transitions into training and validation, whole trajectories each.

    With a single trajectory its last steps are held out instead, and a warning says so.

    Args:
        demonstrations: M transitions.
        fraction: Share of trajectories held out; at least one is.
        generator: Source of the choice.

    Returns:
        Indices for training, and indices for validation.

    Raises:
        RlfdError: If there are fewer than two transitions.
    """
    ids, count = demonstrations.episode_ids, demonstrations.num_episodes
    length = demonstrations.num_transitions
    if length < 2:
        raise RlfdError(
            f"a part of the demonstrations is held out, which takes at least 2 transitions, "
            f"got {length}"
        )
    if count == 1:
        held_out = max(1, round(fraction * length))
        logger.warning(
            "only one demonstration: its last %d of %d steps are held out for early stopping, "
            "and they resemble the others",
            held_out,
            length,
        )
        return torch.arange(length - held_out), torch.arange(length - held_out, length)
    held_out = min(count - 1, max(1, round(fraction * count)))
    order = torch.randperm(count, generator=generator)
    is_validation = torch.isin(ids, order[:held_out])
    return (~is_validation).nonzero()[:, 0], is_validation.nonzero()[:, 0]


def select(demonstrations: DemoTensors, rows: Tensor) -> DemoTensors:
    """Return some transitions of whole trajectories, renumbered. `rows` must be in order."""

    def cut(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[rows]

    _, ids = torch.unique_consecutive(demonstrations.episode_ids[rows], return_inverse=True)
    return DemoTensors(
        observations=demonstrations.observations[rows],
        actions=demonstrations.actions[rows],
        episode_ids=ids,
        next_observations=cut(demonstrations.next_observations),
        rewards=cut(demonstrations.rewards),
        terminated=cut(demonstrations.terminated),
        truncated=cut(demonstrations.truncated),
    )


class EarlyStopping:
    """Keeps the parameters of the best validation loss and says when to stop.

    Args:
        patience: Epochs without improvement before stopping.
        min_delta: A fall counts as one if it is more than this share of the loss, in size, that
            the last one led to. Smaller ones add up, and what they led to is kept all the same.
        min_updates: There is no stopping before so many updates: with few data they are many
            epochs, each of which hardly changes anything.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, min_updates: int = 0) -> None:
        self.patience, self.min_delta, self.min_updates = patience, min_delta, min_updates
        self.best = math.inf
        self.mark = math.inf  # the loss that the last fall that counted led to
        self.waited = 0
        self.kept: Parameters = {}

    def observe(self, loss: float, parameters: Parameters, updates: int) -> bool:
        """Take the validation loss after so many updates in all; return whether to stop now."""
        if loss < self.best:
            self.best = loss
            self.kept = {name: value.clone() for name, value in parameters.items()}
        if self.mark == math.inf or loss < self.mark - self.min_delta * abs(self.mark):
            self.mark, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited >= self.patience and updates >= self.min_updates

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept and for how long nothing was better."""
        return {"best": self.best, "mark": self.mark, "waited": self.waited, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.mark = state["best"], state["mark"]
        self.waited, self.kept = state["waited"], state["kept"]


def early_stopping(config: OfflineFields) -> EarlyStopping:
    """Return one that stops as the configuration says."""
    return EarlyStopping(config.patience, config.min_delta, config.min_updates)


def fit_statistics(network: PolicyNetwork, observations: Tensor) -> None:
    """Let the policy standardise by these observations (B, *observation_shape), unless images."""
    if network.images:
        return
    flat = observations.flatten(1)
    network.mean.copy_(flat.mean(0))
    network.std.copy_(usable_std(flat.std(0, correction=0)))


USUAL_EPOCHS = 40  # of those that `max_epochs` allows; tells whether compiling pays from the start


class Passes:
    """Passes over training trajectories, until held-out ones are not predicted better any more.

    Args:
        demonstrations: Where `data` comes from, row by row.
        data: What the loss reads. Shapes (M, ...).
        config: Sizes and patience.
        generator: Source of the split and of the order.
    """

    def __init__(
        self,
        demonstrations: DemoTensors,
        data: Batch,
        config: OfflineFields,
        generator: torch.Generator,
    ) -> None:
        train, validation = split_trajectories(
            demonstrations, config.validation_fraction, generator
        )
        self.train = {name: value[train] for name, value in data.items()}
        self.validation = {name: value[validation] for name, value in data.items()}
        self.config, self.generator = config, generator
        self.batch_size = min(config.batch_size, len(train))
        self.stopping = early_stopping(config)
        self.epoch = 0
        self.finished = False

    @property
    def epoch_updates(self) -> int:
        """Updates of one pass."""
        return len(next(iter(self.train.values()))) // self.batch_size

    def usual_updates(self, budget: int) -> int:
        """Return about how many updates there will be, of a budget (0 = any number)."""
        usual = min(USUAL_EPOCHS, self.config.max_epochs) * self.epoch_updates
        return min(usual, budget) if budget else usual

    def minibatches(self) -> Iterable[Batch]:
        """Return one pass over the training rows; the last, smaller minibatch is left out."""
        self.epoch += 1
        return shuffled(self.train, self.batch_size, self.generator)

    def close(self, validation_loss: float, engine: UpdateEngine) -> None:
        """End a pass; if it is the last one, go back to the best parameters."""
        updates = self.epoch * self.epoch_updates
        stop = self.stopping.observe(validation_loss, engine.parameters, updates)
        if stop or self.epoch >= self.config.max_epochs:
            self.conclude(engine)

    def conclude(self, engine: UpdateEngine) -> None:
        """Put the best parameters back in place."""
        if self.stopping.kept:
            engine.load_parameters(self.stopping.kept)
        self.finished = True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next pass depends on; the split follows from the seed."""
        return {
            "generator": self.generator.get_state(),
            "stopping": self.stopping.state_dict(),
            "epoch": self.epoch,
            "finished": self.finished,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.generator.set_state(state["generator"])
        self.stopping.load_state_dict(state["stopping"])
        self.epoch, self.finished = int(state["epoch"]), bool(state["finished"])
