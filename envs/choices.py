"""Several choices per step, in the form that policies of independent choices can make them.

Such a policy takes every combination of its choices now and then. Buttons that exclude each other
are therefore one choice, not several: `ExclusiveButtons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlfd.errors import RlfdError

__all__ = ["ExclusiveButtons"]


class ExclusiveButtons(gymnasium.ActionWrapper[Any, Any, Any]):
    """Buttons of which some exclude each other, as MultiDiscrete choices.

    Each group of buttons becomes one choice: 0 presses none of them, i the i-th of the group. Every
    other button is a choice of its own, not pressed or pressed. Choices are in the order of their
    lowest buttons.

    Args:
        env: An environment with MultiBinary actions in one row.
        groups: Indices of buttons that exclude each other; no button is in two groups.

    Raises:
        RlfdError: If the actions or the groups are others.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], groups: Sequence[Sequence[int]]) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.MultiBinary) or len(space.shape) != 1:
            raise RlfdError(f"actions are {space}, expected buttons: MultiBinary in one row")
        named = [button for group in groups for button in group]
        wrong = [b for b in named if not 0 <= b < space.shape[0] or named.count(b) > 1]
        if wrong or not all(groups):
            raise RlfdError(
                f"groups of buttons {[list(group) for group in groups]} do not fit {space}, "
                f"expected each of the buttons 0 to {space.shape[0] - 1} at most once"
            )
        alone = [(button,) for button in range(space.shape[0]) if button not in named]
        self._choices = sorted([*map(tuple, groups), *alone], key=min)
        self._buttons, self._dtype = space.shape[0], space.dtype
        self.action_space = spaces.MultiDiscrete([len(choice) + 1 for choice in self._choices])

    def action(self, action: Any) -> np.ndarray[Any, Any]:
        """Return the buttons that choices press."""
        pressed = np.zeros(self._buttons, self._dtype)
        for chosen, choice in zip(action, self._choices, strict=True):
            if chosen:
                pressed[choice[int(chosen) - 1]] = 1
        return pressed
