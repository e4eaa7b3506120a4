"""Transitions as rows (s, a, s') for a network of whole transitions, as AIRL's.

A state is an observation, and with an indicator a last entry that marks absorbing states: there,
to the terminal observation, terminal transitions lead, and there they stay, doing nothing. Rows are
standardised by the mean and std of the states and actions that were observed, the same for s and
s'.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rlfd.algorithms.core.discriminator import INPUT_CLIP
from rlfd.algorithms.core.distributions import Distribution
from rlfd.algorithms.core.engine import Batch
from rlfd.algorithms.core.normaliser import RunningMoments, usable_std

__all__ = ["TransitionRows"]


class TransitionRows:
    """How transitions are laid out as rows of width W, and statistics of their entries.

    Args:
        observation_shape: Of one observation.
        distribution: Of the learner's policy, whose features of actions are in the rows.
        indicator: Whether there are absorbing states.
        device: Where rows live.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        distribution: Distribution,
        *,
        indicator: bool,
        device: torch.device,
    ) -> None:
        self.distribution, self.device = distribution, device
        self.indicator = indicator
        self._plain = math.prod(observation_shape)
        self.states = self._plain + indicator
        self.features = distribution.num_features
        self.moments = RunningMoments(self._plain + self.features, device)
        self._set_statistics()

    def __call__(
        self, observations: Tensor, actions: Tensor, next_observations: Tensor, terminated: Tensor
    ) -> Tensor:
        """Join transitions to rows, before standardisation.

        Args:
            observations: Shape (B, *observation_shape).
            actions: In the policy's units. Shape (B,) or (B, k).
            next_observations: Shape (B, *observation_shape).
            terminated: Shape (B,).

        Returns:
            Shape (B, W).
        """
        features = self.distribution.features(actions)
        before, after = observations.flatten(1), next_observations.flatten(1)
        if self.indicator:
            before = nn.functional.pad(before, (0, 1))
            after = torch.cat([after, terminated[:, None].to(after.dtype)], dim=1)
        return torch.cat([before, features, after], dim=1)

    def absorbing(self, observations: Tensor) -> Tensor:
        """Return the rows of staying in absorbing states, (s_T, 0, s_T) with both marked.

        Args:
            observations: Terminal ones. Shape (B, *observation_shape).

        Returns:
            Shape (B, W).
        """
        states = nn.functional.pad(observations.flatten(1), (0, 1), value=1.0)
        return torch.cat([states, states.new_zeros(len(states), self.features), states], dim=1)

    def marks(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether s and s' are absorbing, both of shape (B, 1); with an indicator only."""
        return rows[:, self._plain : self._plain + 1], rows[:, -1:]

    def standardise(self, rows: Tensor) -> Tensor:
        """Return the networks' inputs of rows (B, W); no action is 0 there, too."""
        inputs = ((rows - self.mean) / self.std).clamp(-INPUT_CLIP, INPUT_CLIP)
        if not self.indicator:
            return inputs
        parts = torch.split(inputs, [self.states, self.features, self.states], dim=1)
        before, actions, after = parts
        return torch.cat([before, actions * (1.0 - self.marks(rows)[0]), after], dim=1)

    def observe(self, rows: Tensor) -> None:
        """Take the states and actions of rows (B, W) into the statistics, but for stays."""
        if self.indicator:
            rows = rows[self.marks(rows)[0][:, 0] == 0.0]
        actions = rows[:, self.states : self.states + self.features]
        self.moments.update(torch.cat([rows[:, : self._plain], actions], dim=1))
        self._set_statistics()

    def comparable(self, rows: Tensor) -> Batch:
        """Say where slopes between the halves of rows (2B, W), one side each, have a meaning.

        Returns:
            `compared`, 1 for numbers that count, 0 for marks, and for the actions of pairs that
            stay in absorbing states; `alike`, 1 for pairs with the same marks, 0 for others:
            nothing lies between absorbing states and others. Shapes (B, W) and (B,).
        """
        one, other = rows.chunk(2)
        compared, alike = torch.ones_like(one), torch.ones_like(one[:, 0])
        if self.indicator:
            (before, after), (own_before, own_after) = self.marks(one), self.marks(other)
            compared[:, self.states : -self.states] = 1.0 - before
            compared[:, self._plain] = compared[:, -1] = 0.0
            alike = ((before == own_before) & (after == own_after))[:, 0].to(rows.dtype)
        return {"compared": compared, "alike": alike}

    def _set_statistics(self) -> None:
        std = usable_std(self.moments.variance.sqrt())
        self.mean = self._spread(self.moments.mean, 0.0)
        self.std = self._spread(std, 1.0)

    def _spread(self, values: Tensor, mark: float) -> Tensor:
        """Lay statistics of (s, a) out as a row (s, a, s') has its entries."""
        states, actions = values[: self._plain], values[self._plain :]
        states = torch.cat([states, states.new_full((int(self.indicator),), mark)])
        return torch.cat([states, actions, states]).to(torch.get_default_dtype())

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics."""
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.moments.load_state_dict(state)
        self._set_statistics()
