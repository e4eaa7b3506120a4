"""Experience of the current policy, and advantages estimated from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import World

__all__ = ["Rollout", "collect", "gae"]

Act = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Observations (N, *observation_shape) -> actions to remember, and actions for the environment."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """T steps of N environments; rows are time. Floats are of torch's default type.

    Attributes:
        observations: Shape (T, N, *observation_shape); images are bytes.
        actions: In the policy's units, as they were drawn. Shape (T, N) or (T, N, k).
        next_observations: The true ones, also at the end of an episode. Shape as `observations`.
        rewards: The world's, for the learner. Shape (T, N).
        terminated: The task ended, so nothing follows. Shape (T, N), bool.
        ended: Terminated or truncated. Shape (T, N), bool.
    """

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    terminated: Tensor
    ended: Tensor

    @property
    def num_steps(self) -> int:
        """T · N."""
        return self.rewards.numel()

    def flat(self, values: Tensor) -> Tensor:
        """Join the first two dimensions (T, N, ...) -> (T · N, ...)."""
        return values.flatten(0, 1)


def collect(
    world: World, act: Act, steps: int, device: torch.device, *, images: bool = False
) -> Rollout:
    """Act for at least `steps` env steps: ceil(steps / N) in each environment."""
    seen_as = torch.uint8 if images else None
    count, rows = world.num_envs, -(-steps // world.num_envs)
    seen = world.observations
    remembered, chosen = act(seen)

    def memory(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
        # a GPU takes over locked memory several times as fast
        return torch.empty(rows, count, *shape, dtype=dtype, pin_memory=device.type == "cuda")

    rollout = Rollout(
        observations=memory(*seen.shape[1:], dtype=seen_as),
        actions=memory(*remembered.shape[1:], dtype=torch.from_numpy(remembered).dtype),
        next_observations=memory(*seen.shape[1:], dtype=seen_as),
        rewards=memory(),
        terminated=memory(dtype=torch.bool),
        ended=memory(dtype=torch.bool),
    )
    # NumPy writes into the tensors' memory; torch would take a few microseconds for each row
    observations, actions = rollout.observations.numpy(), rollout.actions.numpy()
    next_observations, rewards = rollout.next_observations.numpy(), rollout.rewards.numpy()
    terminated, ended = rollout.terminated.numpy(), rollout.ended.numpy()
    for row in range(rows):
        if row > 0:
            remembered, chosen = act(world.observations)
        step = world.step(chosen)
        observations[row], actions[row] = step.observations, remembered
        next_observations[row], rewards[row] = step.next_observations, step.learner_rewards
        terminated[row] = step.terminated
        np.logical_or(step.terminated, step.truncated, out=ended[row])
    return Rollout(*(getattr(rollout, name).to(device) for name in Rollout.__slots__))


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    terminal_values: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016, arXiv 1506.02438).

        δ_t = r_t + γ (1 - d_t) V(s_{t+1}) - V(s_t)
        A_t = δ_t + γ λ (1 - e_t) A_{t+1}

    with d = terminated and e = ended: a truncated episode is bootstrapped from its true last
    observation, and so is the last row.

    Args:
        rewards: r. Shape (T, N), as all others.
        values: V(s).
        next_values: V of `next_observations`.
        terminated: d.
        ended: e.
        gamma: γ.
        gae_lambda: λ.
        terminal_values: What to take for V(s') where d = 1, instead of 0 (absorbing states).

    Returns:
        A. Shape (T, N).
    """
    after_end = torch.zeros_like(values) if terminal_values is None else terminal_values
    deltas = rewards + gamma * torch.where(terminated, after_end, next_values) - values
    factors = gamma * gae_lambda * (~ended).to(deltas.dtype)
    advantage = torch.zeros_like(deltas[0])
    advantages = []
    for delta, factor in zip(deltas.flip(0).unbind(), factors.flip(0).unbind(), strict=True):
        advantage = torch.addcmul(delta, factor, advantage)
        advantages.append(advantage)
    return torch.stack(advantages).flip(0)
