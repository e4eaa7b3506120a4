"""Soft (maximum-entropy) values and policies of a discrete Q function.

Shapes: q_values (B, A). Temperature τ has the unit of Q. See Haarnoja et al. (2017),
Schulman, Chen and Abbeel (2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["boltzmann_entropy", "boltzmann_log_probs", "double_soft_value", "sample", "soft_value"]


def soft_value(q_values: Tensor, temperature: float, *, kl_to_uniform: bool = False) -> Tensor:
    """Return V = m + τ log Σ_a exp((Q(s, a) - m) / τ) with m = max_a Q(s, a).

    Args:
        q_values: Shape (B, A).
        temperature: τ > 0.
        kl_to_uniform: Pay for the KL divergence from the uniform policy instead of earning entropy:
            V = τ log E_{a ~ uniform} exp(Q / τ), which is smaller by τ log A.

    Returns:
        Shape (B,).
    """
    # Without m, rounding of Q / τ would enter the gradient, which is to be exactly the policy.
    largest = q_values.detach().amax(dim=-1, keepdim=True)
    value = largest[..., 0] + temperature * torch.logsumexp(
        (q_values - largest) / temperature, dim=-1
    )
    if kl_to_uniform:
        value = value - temperature * math.log(q_values.shape[-1])
    return value


def boltzmann_log_probs(q_values: Tensor, temperature: float) -> Tensor:
    """Return log π(a|s) = (Q(s, a) - V(s)) / τ. Shape (B, A)."""
    return torch.log_softmax(q_values / temperature, dim=-1)


def boltzmann_entropy(q_values: Tensor, temperature: float) -> Tensor:
    """Return the entropy of the Boltzmann policy, in nats. Shape (B,)."""
    log_probs = boltzmann_log_probs(q_values, temperature)
    return -(log_probs.exp() * log_probs).sum(-1)


def double_soft_value(
    online_q_values: Tensor,
    target_q_values: Tensor,
    temperature: float,
    *,
    kl_to_uniform: bool = False,
) -> Tensor:
    """Return Σ_a π(a|s) (Q̄(s, a) - τ log π(a|s)) with π of the online and Q̄ of the target network.

    The soft counterpart of the double estimator: equal to `soft_value` when both networks agree.

    Args:
        online_q_values: Shape (B, A).
        target_q_values: Shape (B, A).
        temperature: τ > 0.
        kl_to_uniform: As in `soft_value`.

    Returns:
        Shape (B,).
    """
    log_probs = boltzmann_log_probs(online_q_values, temperature)
    value = (log_probs.exp() * (target_q_values - temperature * log_probs)).sum(-1)
    if kl_to_uniform:
        value = value - temperature * math.log(target_q_values.shape[-1])
    return value


def sample(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one index per row with probability softmax(logits). Shape (B,).

    Exponential race: argmax of p_a / E_a with E_a ~ Exp(1), one pass without cumulative sums.
    """
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (torch.softmax(logits, dim=-1) / noise).argmax(dim=-1)
