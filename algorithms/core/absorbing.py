"""What an imitation reward makes of an episode's end (Kostrikov et al., 2019, section 4.1).

A reward that is never negative pays for staying alive, one that is never positive for ending early,
whatever the demonstrations show. The remedy is to let an episode go on after its end: in a state of
its own, the *terminal observation* with a mark, in which one stays for ever and nothing is done.
Three ways (`absorbing`):

    off        V(s') = 0 after a terminal transition
    value      V(s') = r_abs / (1 - γ) with r_abs a constant: what an undecided reward pays
    indicator  V(s_T) = r(s_T, marked) / (1 - γ) with r learned: demonstrations and learner show
               rows (s_T, marked, no action) where an episode *terminated*, as many as the steps
               that it spends there count (`absorbing_steps`)

Where an episode ended is not forgotten, so that a crash is not worth what a landing is.

A constant c taken from all rewards, also from those after the end, takes c / (1 - γ) from all
values and changes no advantage (`counted_from`); it spares the value function an offset of
hundreds.

A truncated episode has not ended: it shows no such row and its value is bootstrapped as usual.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from rlfd.errors import RlfdError

__all__ = [
    "AbsorbingMode",
    "EndsMemory",
    "EpisodeAges",
    "HorizonAudit",
    "absorbing_steps",
    "check_discount",
    "counted_from",
    "draw_stays",
    "episode_steps",
    "stays_after",
]

logger = logging.getLogger("rlfd.absorbing")

AbsorbingMode = Literal["off", "value", "indicator"]


def check_discount(absorbing: AbsorbingMode, gamma: float) -> None:
    """Refuse γ = 1 where the absorbing state has a value.

    Raises:
        RlfdError: If it does.
    """
    if absorbing != "off" and gamma == 1.0:
        raise RlfdError(f"absorbing={absorbing} needs gamma < 1", "set absorbing=off")


def absorbing_steps(lengths: Tensor, *, gamma: float, horizon: int | None = None) -> Tensor:
    """Return how many rows of its absorbing state stand for the rest of an episode.

    An episode that terminated after L steps spends Σ_{t=L}^{H-1} γ^t (discounted) steps there:
    γ^L / (1 - γ) where nothing limits it, H - L where γ = 1. Rounded; at least one.

    Args:
        lengths: L, steps until the termination. Any shape.
        gamma: γ, below 1 unless there is a horizon.
        horizon: H, steps at which the task is over; None = never.

    Returns:
        int64, shape of `lengths`.
    """
    steps = lengths.double()
    if gamma == 1.0:
        assert horizon is not None
        each = horizon - steps
    else:
        each = gamma**steps
        if horizon is not None:
            each = each - gamma**horizon
        each = each / (1.0 - gamma)
    return each.round().clamp(min=1.0).long()


def stays_after(terminated: Tensor, ages: Tensor, *, gamma: float) -> Tensor:
    """Return how many rows of an absorbing state follow each transition: none unless terminal.

    Args:
        terminated: Any shape, bool.
        ages: Steps of its episode up to and with each transition, as `episode_steps` and
            `EpisodeAges` count them. The same shape.
        gamma: γ < 1.

    Returns:
        int64, the same shape.
    """
    return torch.where(terminated, absorbing_steps(ages, gamma=gamma), 0)


def episode_steps(episode_ids: Tensor) -> Tensor:
    """Return the steps of its episode up to and with each transition of whole episodes. (M,)."""
    lengths = torch.bincount(episode_ids)
    first = lengths.cumsum(0) - lengths
    return torch.arange(1, len(episode_ids) + 1, device=first.device) - first[episode_ids]


class EndsMemory(Protocol):
    """A memory of transitions that knows its terminal ones."""

    def __len__(self) -> int:
        """M, transitions that are stored."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the slots of terminal transitions, and the lengths of their episodes. (E,)."""

    def gather(self, slots: Tensor) -> dict[str, Tensor]:
        """Return the transitions in slots (B,)."""


def draw_stays(
    memory: EndsMemory, count: int, *, gamma: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Say which of so many uniform draws are of absorbing states, and of which ones.

    Beside the M transitions of a memory there are as many rows of each absorbing state as count;
    they are all the same row, so that it is drawn as often as it would be found.

    Returns:
        Which draws they are, shape (count,), bool, and the terminal observations of these K draws,
        shape (K, *observation_shape).
    """
    slots, lengths = memory.ends()
    rows = absorbing_steps(lengths, gamma=gamma).double().cumsum(0)
    among = float(rows[-1]) if len(rows) > 0 else 0.0
    draws = torch.rand(count, dtype=torch.float64, generator=generator, device=generator.device)
    draws = draws.to(slots.device) * (len(memory) + among)
    absorbing = draws < among
    which = torch.searchsorted(rows, draws[absorbing], right=True)
    return absorbing, memory.gather(slots[which])["next_observations"]


class EpisodeAges:
    """How old episodes are, also those that began in an earlier rollout."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._ages = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def __call__(self, ended: Tensor) -> Tensor:
        """Return the steps of its episode up to and with each row. Shapes (T, N), bool -> int64.

        Call it once for each rollout, in order.
        """
        ages = torch.empty(ended.shape, dtype=torch.int64, device=self._ages.device)
        for row, over in enumerate(ended):
            ages[row] = self._ages + 1
            self._ages = torch.where(over, 0, ages[row])
        return ages

    def state_dict(self) -> dict[str, Any]:
        """Return the ages of the running episodes."""
        return {"ages": self._ages.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._ages = state["ages"].to(self._ages.device)


def counted_from(
    origin: Tensor, rewards: Tensor, absorbing_rewards: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return r - c and (r_abs - c) / (1 - γ), the value after the end: no advantage changes.

    Args:
        origin: c, a scalar.
        rewards: r. Any shape.
        absorbing_rewards: r_abs, what a step in the absorbing state after each row pays.
        gamma: γ < 1.
    """
    return rewards - origin, (absorbing_rewards - origin) / (1.0 - gamma)


class HorizonAudit:
    """Warns, once, where a learned reward of one sign decides how long episodes last."""

    def __init__(self, absorbing: AbsorbingMode) -> None:
        self._silent = absorbing != "off"

    def check(self, rewards: Tensor, terminated: Tensor) -> None:
        """Look at a rollout: learned rewards and terminations, both of shape (T, N)."""
        if self._silent or not bool(terminated.any()):
            return
        lowest, highest = float(rewards.min()), float(rewards.max())
        if lowest < 0.0 < highest:
            return
        self._silent = True
        sign, what = ("negative", "ending early") if highest <= 0 else ("positive", "staying alive")
        logger.warning(
            "all learned rewards are %s (from %.3g to %.3g) and episodes end before their time: %s "
            "pays by itself, whatever the demonstrations show; try --set absorbing=indicator",
            sign,
            lowest,
            highest,
            what,
        )
