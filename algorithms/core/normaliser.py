"""Running statistics of observations and of returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlfd.algorithms.core.networks import PolicyNetwork

__all__ = ["ReturnScaler", "RunningMoments", "RunningNormaliser", "usable_std"]


def usable_std(std: Tensor) -> Tensor:
    """Return 1 where a dimension hardly varies (a contact, a constant): it keeps its own scale."""
    return torch.where(std > 1e-6, std, torch.ones_like(std))


class RunningMoments:
    """Mean and variance of everything seen, exact up to rounding, in float64.

    Batches are merged with the formula of Chan, Golub and LeVeque (1979).

    Args:
        size: Numbers in one sample.
        device: Where they live.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)  # sum of squared deviations from the mean

    @property
    def variance(self) -> Tensor:
        """Population variance; 0 before anything was seen. Shape (size,)."""
        return self._squares / max(1, self.count)

    def update(self, samples: Tensor) -> None:
        """Take samples (B, size) into account; there may be none."""
        samples = samples.double()
        count = len(samples)
        if count == 0:
            return
        mean = samples.mean(0)
        delta, total = mean - self.mean, self.count + count
        self._squares += (samples - mean).square().sum(0)
        self._squares += delta.square() * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was seen."""
        return {
            "count": self.count,
            "mean": self.mean.clone(),
            "squares": self._squares.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count = int(state["count"])
        self.mean.copy_(state["mean"])
        self._squares.copy_(state["squares"])


class RunningNormaliser:
    """Keeps a policy network's statistics at those of all observations seen.

    Updated after the policy improvement of an iteration, so that one iteration sees one
    normalisation.

    Args:
        network: Its buffers `mean` and `std` are written.
    """

    def __init__(self, network: PolicyNetwork) -> None:
        self.network = network
        self.moments = RunningMoments(network.mean.numel(), network.mean.device)
        self.frozen = False

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Take observations (B, *observation_shape) into account, unless frozen, or images."""
        if self.frozen or self.network.images:
            return
        self.moments.update(observations.flatten(1))
        self.network.mean.copy_(self.moments.mean)
        self.network.std.copy_(usable_std(self.moments.variance.sqrt()))

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics; the network's buffers belong to the policy's state."""
        return {"moments": self.moments.state_dict(), "frozen": self.frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.moments.load_state_dict(state["moments"])
        self.frozen = bool(state["frozen"])


class ReturnScaler:
    """Divides rewards by the running std of the discounted return.

    As in common practice the return is summed forward in time, R ← γ R + r, per environment, and
    nothing is centred, so that the reward's sign stays.

    Args:
        num_envs: N.
        gamma: γ.
        enabled: Otherwise rewards stay as they are.
        device: Where the returns live.
    """

    def __init__(self, num_envs: int, gamma: float, *, enabled: bool, device: torch.device) -> None:
        self.gamma, self.enabled = gamma, enabled
        self.moments = RunningMoments(1, device)
        self._returns = torch.zeros(num_envs, dtype=torch.float64, device=device)

    @property
    def std(self) -> Tensor:
        """What rewards are divided by, float64; 1 before anything varied. A scalar."""
        return usable_std(self.moments.variance.sqrt())[0]

    @torch.no_grad()
    def __call__(
        self, rewards: Tensor, ended: Tensor, terminal_values: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Take rewards into account and return them scaled, and with them terminal values.

        Args:
            rewards: Shape (T, N), as all others.
            ended: Whether an episode ended after the reward.
            terminal_values: See `gae`.
        """
        if not self.enabled:
            return rewards, terminal_values
        returns = []
        for reward, end in zip(rewards.double().unbind(), ended.unbind(), strict=True):
            self._returns = self.gamma * self._returns + reward
            returns.append(self._returns)
            self._returns = self._returns.masked_fill(end, 0.0)
        self.moments.update(torch.cat(returns)[:, None])
        std = self.std.to(rewards.dtype)
        return rewards / std, None if terminal_values is None else terminal_values / std

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics and the running returns."""
        return {"moments": self.moments.state_dict(), "returns": self._returns.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.moments.load_state_dict(state["moments"])
        self._returns = state["returns"].to(self._returns)
