"""Exact planning in a known finite decision process, and what acting from its tables takes.

Everything is float64, and every exponential is of a difference of logarithms, so that no horizon
and no reward makes it underflow. Transitions are kept sparse: in a grid a step costs what its few
successors cost, not what S states do.

Shapes: rewards and occupancies of one step (S, A), values (S,), policies and occupancies over time
(T, S, A). Time counts from 0 here, from 1 in the papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from rlfd.algorithms.base import DemoTensors, TabularModel

__all__ = [
    "Dynamics",
    "Visits",
    "backward_messages",
    "causal_policy",
    "choose",
    "decode",
    "forward_messages",
    "greedy_policy",
    "marginals",
    "occupancy",
    "visits_of",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Dynamics:
    """P(s'|s, a) and p_0 as planners use them.

    Args:
        model: The process.

    Attributes:
        start: p_0(s). Shape (S,).
        horizon: T.
        shape: (S, A).
    """

    def __init__(self, model: TabularModel) -> None:
        states, actions, _ = model.transitions.shape
        self.shape, self.horizon = (states, actions), model.horizon
        self.start: Array = model.start.numpy()
        flat = model.transitions.numpy().reshape(states * actions, states)
        self._rows = sparse.csr_array(flat)  # (S A, S); no row is empty: it sums to 1
        self._columns = sparse.csr_array(flat.T)  # (S, S A)
        self._reachable = np.flatnonzero(np.diff(self._columns.indptr))

    def expect(self, values: Array) -> Array:
        """Return E[V(s')|s, a]. Shape (S, A)."""
        expected: Array = (self._rows @ values).reshape(self.shape)
        return expected

    def advance(self, occupancy: Array) -> Array:
        """Return Σ_sa D(s, a) P(s'|s, a). Shape (S,)."""
        following: Array = self._columns @ occupancy.ravel()
        return following

    def log_expect_exp(self, values: Array) -> Array:
        """Return log E[exp V(s')|s, a]. Shape (S, A)."""
        return _log_sum(self._rows, values, self._rows.indptr[:-1]).reshape(self.shape)

    def log_advance_exp(self, logs: Array) -> Array:
        """Return log Σ_sa exp(l(s, a)) P(s'|s, a), -∞ where nothing leads. Shape (S,)."""
        result = np.full(self.shape[0], -np.inf)
        begins = self._columns.indptr[self._reachable]
        result[self._reachable] = _log_sum(self._columns, logs.ravel(), begins)
        return result


def _log_sum(weights: Any, logs: Array, begins: Any) -> Array:
    """Return log Σ w exp(l) over each stretch of a sparse array that begins there."""
    terms = np.log(weights.data) + logs[weights.indices]
    greatest = np.maximum.reduceat(terms, begins)
    shift = np.where(np.isfinite(greatest), greatest, 0.0)
    lengths = np.diff(np.append(begins, len(terms)))
    sums = np.add.reduceat(np.exp(terms - np.repeat(shift, lengths)), begins)
    with np.errstate(divide="ignore"):
        logarithms: Array = np.log(sums) + shift
    return logarithms


def causal_policy(dynamics: Dynamics, rewards: Array, gamma: float = 1.0) -> tuple[Array, Array]:
    """Return the policy of maximum causal entropy and Q.

    Q_t = r + γ E V_{t+1}, V_t = log Σ_a exp Q_t, π_t = exp(Q_t - V_t), V_T = 0.

    Returns:
        π_t(a|s) and Q_t(s, a). Shapes (T, S, A).
    """
    q = np.empty((dynamics.horizon, *dynamics.shape))
    policy, values = np.empty_like(q), np.zeros(dynamics.shape[0])
    for step in reversed(range(dynamics.horizon)):
        q[step] = rewards + gamma * dynamics.expect(values)
        policy[step], values = _softmax(q[step])
    return policy, q


def _softmax(logs: Array) -> tuple[Array, Array]:
    """Return exp(l - log Σ exp l) over the last axis, and log Σ exp l."""
    greatest = logs.max(axis=-1)
    shares = np.exp(logs - greatest[..., None])
    sums = shares.sum(axis=-1)
    return shares / sums[..., None], greatest + np.log(sums)


def backward_messages(dynamics: Dynamics, rewards: Array) -> tuple[Array, Array]:
    """Return log β_t(s, a) (T, S, A) and log β_t(s) (T, S) of the trajectory model.

    β_t(s, a) = e^r E β_{t+1}(s'), β_t(s) = Σ_a p(a|s) β_t(s, a), after the last step 1; p(a|s) is
    uniform. log E e^V counts on luck: with dynamics that are not deterministic this is no plan.
    """
    pairs = np.empty((dynamics.horizon, *dynamics.shape))
    states = np.empty(pairs.shape[:2])
    following = np.zeros(dynamics.shape[0])
    for step in reversed(range(dynamics.horizon)):
        pairs[step] = rewards + dynamics.log_expect_exp(following)
        states[step] = _softmax(pairs[step])[1] - np.log(dynamics.shape[1])
        following = states[step]
    return pairs, states


def forward_messages(dynamics: Dynamics, rewards: Array, first: Array) -> Array:
    """Return log α_t(s), p(s_t) given that all steps before t were optimal. Shape (T, S).

    α_{t+1}(s') ∝ Σ_sa α_t(s) p(a|s) e^{r(s, a)} P(s'|s, a), p(a|s) uniform. This factor e^r belongs
    to the step that is left: without it the marginals are wrong.

    Args:
        dynamics: The process.
        rewards: r(s, a).
        first: log α_1(s), up to a constant.
    """
    alpha = np.empty((dynamics.horizon, dynamics.shape[0]))
    message = first
    for step in range(dynamics.horizon):
        if step > 0:
            message = dynamics.log_advance_exp(alpha[step - 1][:, None] + rewards)
        alpha[step] = message - _softmax(message)[1]
    return alpha


def marginals(
    dynamics: Dynamics, rewards: Array, start: Array, *, bend_start: bool = True
) -> tuple[Array, Array, float]:
    """Return the trajectory model's policy, marginals and partition function.

    π_t(a|s) = p(a|s) β_t(s, a) / β_t(s), μ_t(s, a) ∝ α_t(s) p(a|s) β_t(s, a), Z = Σ_s p_0 β_1(s).

    Args:
        dynamics: The process.
        rewards: r(s, a).
        start: p_0(s).
        bend_start: Whether trajectories from better starts are more likely, as p(ζ) has it. Else μ
            mixes what is conditioned on each start in the proportions of `start`: α_1 = p_0 / β_1.

    Returns:
        π and μ, each (T, S, A), and log Z, of each start by itself unless they are bent:
        Σ_s p_0(s) log β_1(s).
    """
    pairs, states = backward_messages(dynamics, rewards)
    with np.errstate(divide="ignore"):
        first = np.log(start)
    log_z = float(_softmax(first + states[0])[1] if bend_start else start @ states[0])
    alpha = forward_messages(dynamics, rewards, first if bend_start else first - states[0])
    policy = np.exp(pairs - states[..., None]) / dynamics.shape[1]
    joint = (alpha[..., None] + pairs).reshape(dynamics.horizon, -1)
    return policy, _softmax(joint)[0].reshape(pairs.shape), log_z


def greedy_policy(dynamics: Dynamics, rewards: Array, gamma: float = 1.0) -> Indices:
    """Return the actions of greatest return, the first of equals. Shape (T, S)."""
    actions = np.empty((dynamics.horizon, dynamics.shape[0]), np.int64)
    values = np.zeros(dynamics.shape[0])
    for step in reversed(range(dynamics.horizon)):
        q = rewards + gamma * dynamics.expect(values)
        actions[step], values = q.argmax(axis=1), q.max(axis=1)
    return actions


def occupancy(dynamics: Dynamics, policy: Array, start: Array | None = None) -> Array:
    """Return D_t(s) π_t(a|s), D_1 = p_0 and D_{t+1} = Σ D_t π_t P. Shape (T, S, A)."""
    joint = np.empty_like(policy)
    states = dynamics.start if start is None else start
    for step, chosen in enumerate(policy):
        joint[step] = states[:, None] * chosen
        states = dynamics.advance(joint[step])
    return joint


@dataclass(frozen=True)
class Visits:
    """Demonstrations as indices, one entry for each of M transitions.

    Attributes:
        states: s. Shape (M,).
        actions: a. Shape (M,).
        steps: t, from 0. Shape (M,).
        count: Episodes.
    """

    states: Indices
    actions: Indices
    steps: Indices
    count: int

    def occupancy(self, shape: tuple[int, int], gamma: float = 1.0) -> Array:
        """Return Σ_t γ^t of each pair, mean over the episodes. Shape (S, A)."""
        pairs = self.states * shape[1] + self.actions
        counts = np.bincount(pairs, gamma**self.steps, minlength=shape[0] * shape[1])
        return (counts / self.count).reshape(shape)

    def start(self, states: int) -> Array:
        """Return the share of the episodes that begins in each state. Shape (S,)."""
        return np.bincount(self.states[self.steps == 0], minlength=states) / self.count


def visits_of(demos: DemoTensors) -> Visits:
    """Return demonstrations as indices; their steps are counted from the episodes' begins."""
    states, _ = decode(demos.observations.numpy(), 1)
    ids = demos.episode_ids.numpy()
    begins = np.searchsorted(ids, np.arange(demos.num_episodes))
    return Visits(states, demos.actions.numpy(), np.arange(len(ids)) - begins[ids], len(begins))


def decode(observations: np.ndarray, horizon: int) -> tuple[Indices, Indices]:
    """Return states and steps passed, both (B,), of observations (B, S + 1)."""
    flat = observations.reshape(len(observations), -1)
    steps = np.rint(flat[:, -1].astype(np.float64) * horizon).astype(np.int64)
    return flat[:, :-1].argmax(axis=1), steps.clip(0, horizon - 1)


def choose(
    policy: Array, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None
) -> Indices:
    """Return the most likely actions of π_t(a|s) (T, S, A), or samples. Shape (B,)."""
    states, steps = decode(observations, len(policy))
    chances = policy[steps, states]
    if greedy:
        actions: Indices = chances.argmax(axis=1)
        return actions
    draws = torch.rand(len(states), dtype=torch.float64, generator=generator).numpy()
    sampled: Indices = (chances[:, :-1].cumsum(axis=1) <= draws[:, None]).sum(axis=1)
    return sampled
