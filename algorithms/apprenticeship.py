"""Apprenticeship learning: a mixture of policies that visits what the demonstrator visits.

Abbeel and Ng, "Apprenticeship Learning via Inverse Reinforcement Learning", ICML 2004; with
solver=qp in the structured-margin form of Ratliff, Bagnell and Zinkevich, "Maximum Margin
Planning", ICML 2006, over the policies found so far. In a finite process whose dynamics are known,
with μ(π) = E_π Σ_t γ^t f(s_t, a_t), μ_E that of the demonstrations:

    projection  ψ = μ_E - μ̄, μ̄ the point nearest to μ_E on the line from the last μ̄ to the newest μ
    qp          min ½‖ψ‖² + C Σ_j ξ_j,  ψ·μ_E >= ψ·μ_j + ‖μ_E - μ_j‖ - ξ_j,  ξ >= 0
    π_i = best policy for the reward ψ·f, until the margin is at most ε

What is learned is the mixture Σ_j w_j π_j nearest to μ_E: w >= 0, Σ w = 1. One member would have to
be drawn for each episode. Acting here needs no memory: with D_j,t the occupancy of member j,

    π_t(a|s) = Σ_j w_j D_j,t(s, a) / Σ_j w_j D_j,t(s)

has the mixture's occupancies at every t, and so its μ and its return, exactly.

Departures from the papers:
  * the projection's step is kept within [0, 1], so that μ̄ stays in the hull.
  * the mixture's weights are the best ones for either solver, not those of the projections.
  * plans have a finite horizon, after which the environment ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    AlgorithmConfig,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.tabular import (
    Array,
    Dynamics,
    Indices,
    choose,
    decode,
    greedy_policy,
    occupancy,
    visits_of,
)
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["Apprenticeship", "ApprenticeshipConfig", "margin_weights", "nearest_mixture", "project"]


@dataclass(frozen=True, kw_only=True)
class ApprenticeshipConfig(AlgorithmConfig):
    """Hyperparameters of apprenticeship learning."""

    readers: ClassVar[Readers] = {"solver": {"qp": ("slack",), "projection": ()}}

    solver: Literal["projection", "qp"] = hyper("projection", "how ψ is found")
    gamma: float = hyper(0.95, "γ, discount per step of μ and of the plans", above=0, high=1)
    tolerance: float = hyper(1e-2, "ε, stop where the margin is at most this", low=0)
    max_iterations: int = hyper(50, "policies at most, the first one aside", low=1)
    slack: float = hyper(1.0, "qp: C, price of slack; 0 = no slack is allowed", low=0)


def project(point: Array, newest: Array, target: Array) -> Array:
    """Return the point nearest to `target` on the way from `point` to `newest`. Shapes (F,)."""
    direction = newest - point
    square = direction @ direction
    step = 0.0 if square == 0.0 else direction @ (target - point) / square
    return point + min(max(step, 0.0), 1.0) * direction


def nearest_mixture(differences: Array) -> Array:
    """Return w >= 0, Σ w = 1, with least ‖Σ_j w_j Δ_j‖, for differences (n, F). Shape (n,).

    With x = s w, min_s ‖s Σ w Δ‖² + (s - 1)² = d² / (1 + d²) grows with d = ‖Σ w Δ‖, so that
    ordinary nonnegative least squares finds w.
    """
    from scipy import optimize  # half a second, which no other method need wait for

    matrix = np.vstack([differences.T, np.ones(len(differences))])
    target = np.zeros(len(matrix))
    target[-1] = 1.0
    scaled, _ = optimize.nnls(matrix, target)
    weights: Array = scaled / scaled.sum()
    return weights


def margin_weights(differences: Array, slack: float) -> Array:
    """Return ψ of the structured-margin problem, for differences μ_E - μ_j (n, F). Shape (F,).

    Its dual is max_α Σ α_j ‖Δ_j‖ - ½‖Σ α_j Δ_j‖², 0 <= α <= C, and ψ = Σ α_j Δ_j. Without slack
    there is a ψ if and only if μ_E is outside the hull of the μ_j: otherwise some mixture of the
    constraints reads 0 >= ‖Δ_j‖ > 0.

    Raises:
        RlfdError: If there is none.
    """
    losses = np.linalg.norm(differences, axis=1)
    inside = nearest_mixture(differences) @ differences
    if slack == 0 and np.linalg.norm(inside) <= 1e-9 * losses.max():
        raise RlfdError(
            "the margin problem has no solution without slack: the demonstrations' feature "
            "expectations are a mixture of those of the policies found",
            "allow slack with --set slack=1, or use --set solver=projection",
        )
    from scipy import optimize

    scale = losses.max() ** 2  # of ‖Δ‖², so that α is about 1
    gram = differences @ differences.T / scale

    def negative_dual(alpha: Array) -> tuple[float, Array]:
        pulled = gram @ alpha
        return 0.5 * alpha @ pulled - alpha @ losses / scale, pulled - losses / scale

    bounds = [(0.0, slack or None)] * len(losses)
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-12}
    found: Any = optimize.minimize(  # type: ignore[call-overload]
        negative_dual, np.zeros(len(losses)), jac=True, bounds=bounds, method="L-BFGS-B",
        options=options,
    )  # fmt: skip
    weights: Array = found.x @ differences
    return weights


@register
class Apprenticeship(Algorithm):
    """Apprenticeship learning via inverse reinforcement learning."""

    name = "apprenticeship"
    title = "Apprenticeship Learning via Inverse Reinforcement Learning (Abbeel and Ng, 2004)"
    summary = "a mixture of optimal policies that matches features, in a known finite process"
    Config = ApprenticeshipConfig
    needs = Needs(demonstrations=True, reward=False, interaction=False, dynamics=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled",)
    metric_definitions: Mapping[str, str] = {
        "gap/margin": "projection: ‖μ_E - μ̄‖; qp: ‖μ_E - μ‖ of the nearest mixture",
        "gap/mixture": "‖μ_E - μ‖ of the nearest mixture",
        "gap/features": "the same as share of ‖μ_E‖",
        "gap/best": "‖μ_E - μ_j‖ of the nearest single policy",
        "policy/members": "policies with a weight in the mixture",
        "reward/norm": "‖ψ‖ that the newest policy is best for",
    }
    recovers_reward = True

    def __init__(self, problem: Problem, config: ApprenticeshipConfig) -> None:
        assert problem.demonstrations is not None
        assert problem.model is not None
        self.config = config
        self.dynamics = Dynamics(problem.model)
        states, actions = self.dynamics.shape
        flat = problem.model.features.numpy().reshape(states * actions, -1)
        self._features = sparse.csr_array(flat)  # (S A, F)
        self._discounts = config.gamma ** np.arange(self.dynamics.horizon)
        visits = visits_of(problem.demonstrations)
        self.demonstrated = visits.occupancy(self.dynamics.shape)  # (S, A)
        discounted = visits.occupancy(self.dynamics.shape, config.gamma)
        self.target = discounted.ravel() @ self._features  # μ_E
        generator = torch.Generator().manual_seed(problem.seed)
        first = torch.randint(actions, (self.dynamics.horizon, states), generator=generator)
        self.psi = np.zeros(len(self.target))
        self._begin(first.numpy()[None])
        self.point = self.expectations[0]  # μ̄_0 = μ_0
        self._measure()

    def _begin(self, members: Indices) -> None:
        """Start from these policies' actions. Shape (n, T, S)."""
        self.members: list[Indices] = []
        self._occupancies: list[Array] = []  # (T, S) each
        self.expectations = np.zeros((0, len(self.target)))  # μ_j
        for member in members:
            self._admit(member)

    def _admit(self, actions: Indices) -> None:
        joint = occupancy(self.dynamics, np.eye(self.dynamics.shape[1])[actions])
        pairs = np.tensordot(self._discounts, joint, axes=1).ravel()
        self.members.append(actions)
        self._occupancies.append(joint.sum(axis=2))
        self.expectations = np.vstack([self.expectations, pairs @ self._features])

    @property
    def rewards(self) -> Array:
        """ψ·f. Shape (S, A)."""
        paid: Array = self._features @ self.psi
        return paid.reshape(self.dynamics.shape)

    @property
    def finished(self) -> bool:
        """Whether the margin is small enough, or the policies are used up."""
        return self.margin <= self.config.tolerance or self.updates >= self.config.max_iterations

    def iteration(self, world: World | None) -> Metrics:
        """Find ψ, the best policy for it, and what that policy visits."""
        if self.config.solver == "projection":
            self.psi = self.target - self.point
        else:
            self.psi = margin_weights(self.target - self.expectations, self.config.slack)
        self._admit(greedy_policy(self.dynamics, self.rewards, self.config.gamma))
        if self.config.solver == "projection":
            self.point = project(self.point, self.expectations[-1], self.target)
        self.updates += 1
        return self._measure()

    def _measure(self) -> Metrics:
        """Weigh the mixture anew."""
        differences = self.target - self.expectations
        self.weights = nearest_mixture(differences)
        self._policy: Array | None = None
        gap = float(np.linalg.norm(self.weights @ differences))
        projected = float(np.linalg.norm(self.target - self.point))
        self.margin = gap if self.config.solver == "qp" else projected
        values = {
            "gap/margin": self.margin,
            "gap/mixture": gap,
            "gap/features": gap / float(np.linalg.norm(self.target)),
            "gap/best": float(np.linalg.norm(differences, axis=1).min()),
            "policy/members": float((self.weights > 0).sum()),
            "reward/norm": float(np.linalg.norm(self.psi)),
        }
        return {name: torch.tensor(value) for name, value in values.items()}

    @property
    def policy(self) -> Array:
        """The mixture as one policy (T, S, A); where no member goes, the members' vote."""
        if self._policy is None:
            actions = np.arange(self.dynamics.shape[1])
            joint = np.zeros((self.dynamics.horizon, *self.dynamics.shape))
            votes = np.zeros_like(joint)
            for weight, member, visited in zip(
                self.weights, self.members, self._occupancies, strict=True
            ):
                if weight > 0:
                    chosen = weight * (member[..., None] == actions)
                    votes += chosen
                    joint += chosen * visited[..., None]
            total = joint.sum(axis=2, keepdims=True)
            self._policy = np.where(total > 0, joint / np.where(total > 0, total, 1.0), votes)
        return self._policy

    @timed("act")
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the mixture's most likely actions, or samples."""
        return choose(self.policy, observations, greedy=greedy, generator=generator)

    def reward(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        terminated: np.ndarray,
    ) -> np.ndarray:
        """Return ψ·f(s, a), for which the newest policy is the best."""
        states, _ = decode(observations, self.dynamics.horizon)
        paid: np.ndarray = self.rewards[states, actions]
        return paid

    def reward_state(self) -> dict[str, Tensor]:
        """Return ψ."""
        return {"psi": torch.from_numpy(self.psi.copy())}

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        self.psi = state["psi"].numpy().copy()

    def policy_state(self) -> dict[str, Tensor]:
        """Return the mixture as one policy, and what a picture of it needs."""
        return {
            "policy": torch.from_numpy(self.policy.copy()),
            "rewards": torch.from_numpy(self.rewards.copy()),
            "demonstrated": torch.from_numpy(self.demonstrated.copy()),
        }

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Act with what `policy_state` returned, until the next iteration."""
        self._policy = state["policy"].numpy().copy()

    def start_from(self, policy: dict[str, Tensor]) -> None:
        """Begin with the most likely actions of another run's policy instead of random ones."""
        self._begin(policy["policy"].numpy().argmax(axis=2)[None])
        self.point = self.expectations[0]
        self._measure()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on; occupancies follow from that."""
        return {
            "members": torch.from_numpy(np.stack(self.members)).to(torch.uint8),
            "psi": torch.from_numpy(self.psi.copy()),
            "point": torch.from_numpy(self.point.copy()),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._begin(state["members"].long().numpy())
        self.psi, self.point = state["psi"].numpy().copy(), state["point"].numpy().copy()
        self.updates = int(state["updates"])
        self._measure()
