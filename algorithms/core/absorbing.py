"""What an imitation reward makes of an episode's end (Kostrikov et al., 2019, section 4.1).

A reward that is never negative pays for staying alive, one that is never positive for ending early,
whatever the demonstrations show. The remedy is to treat the end as a state of its own, s_abs, in
which one stays for ever, with a reward like everywhere else. Three ways (`absorbing`):

    off        V(s') = 0 after a terminal transition
    value      V(s') = r_abs / (1 - γ) with r_abs a constant: what an undecided reward pays
    indicator  V(s') = r(s_abs) / (1 - γ) with r learned: demonstrations and learner each show
               rows (s_abs, 0) where an episode *terminated*, marked by an entry of their own

A constant c added to all rewards, also those after the end, adds c / (1 - γ) to all values and
changes no advantage. So it comes to the same to pay r - r_abs and leave V(s') at 0
(`relative_to_absorbing`), and spares the value function an offset of hundreds.

A truncated episode has not ended: it shows no such row and its value is bootstrapped as usual.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from torch import Tensor

from rlfd.errors import RlfdError

__all__ = [
    "AbsorbingMode",
    "EpisodeAges",
    "HorizonAudit",
    "absorbing_count",
    "absorbing_steps",
    "check_discount",
    "relative_to_absorbing",
    "terminal_values",
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


def absorbing_count(steps: int, terminations: int, gamma: float) -> int:
    """Return how many rows of the absorbing state stand beside so many steps.

    An episode that terminates after L steps spends γ^L / (1 - γ) discounted steps in s_abs. L is
    taken from the mean: steps per termination. At least one row stands for each.
    """
    if terminations == 0:
        return 0
    each: float = gamma ** (steps / terminations) / (1.0 - gamma)
    return round(terminations * max(1.0, each))


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


def terminal_values(reward: Tensor, gamma: float, shape: torch.Size) -> Tensor:
    """Return V(s_abs) = r_abs / (1 - γ) everywhere; only terminated rows make use of it.

    Args:
        reward: r_abs, a scalar.
        gamma: γ < 1.
        shape: Of the rollout, (T, N).
    """
    return (reward / (1.0 - gamma)).expand(shape)


def relative_to_absorbing(rewards: Tensor, absorbing_reward: Tensor) -> Tensor:
    """Return r - r_abs: with V(s') = 0 after the end, the advantages of r with `terminal_values`.

    Args:
        rewards: r. Any shape.
        absorbing_reward: r_abs, a scalar; 0 for absorbing=off.
    """
    return rewards - absorbing_reward


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
