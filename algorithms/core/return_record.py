"""Whether a policy is getting better."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ReturnRecord"]

SMOOTHING = 0.1  # of the newest rollout: its episodes are few, and their returns scatter


class ReturnRecord:
    """Tells whether the mean return of episodes, smoothed over rollouts, is higher than ever.

    Episodes count in the rollout in which they end, with all that they returned since they began. A
    rollout in which none ends says nothing, and the first one sets what is to be surpassed.

    Args:
        num_envs: N.
        device: Of the rollouts.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._running = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self._rollouts, self._smoothed, self._best = 0, 0.0, 0.0

    def __call__(self, rewards: Tensor, ended: Tensor) -> bool:
        """Take up the next rollout; return whether it set a record. Shapes (T, N)."""
        returns = []
        for reward, over in zip(rewards.double(), ended, strict=True):
            self._running += reward
            returns.append(self._running[over])
            self._running = torch.where(over, 0.0, self._running)
        finished = torch.cat(returns)
        if len(finished) == 0:
            return False
        newest = float(finished.mean())
        weight = SMOOTHING if self._rollouts > 0 else 1.0
        self._smoothed += weight * (newest - self._smoothed)
        record = self._rollouts > 0 and self._smoothed > self._best
        if record or self._rollouts == 0:
            self._best = self._smoothed
        self._rollouts += 1
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next answer depends on."""
        means = torch.tensor([self._smoothed, self._best], dtype=torch.float64)
        return {"running": self._running.clone(), "means": means, "rollouts": self._rollouts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._running = state["running"].to(self._running.device)
        self._smoothed, self._best = state["means"].tolist()
        self._rollouts = int(state["rollouts"])
