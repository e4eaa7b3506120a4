"""Maximum entropy inverse reinforcement learning in a finite process whose dynamics are known.

Ziebart, Maas, Bagnell and Dey, "Maximum Entropy Inverse Reinforcement Learning", AAAI 2008;
Ziebart, Bagnell and Dey, "Modeling Interaction via the Principle of Maximum Causal Entropy", ICML
2010.

Find ψ such that demonstrations are likely where r_ψ(s, a) = ψ·f(s, a) is the reward, by going up

    ∇L = E_demo[Σ_t γ^t f(s_t, a_t)] - E_model[Σ_t γ^t f(s_t, a_t)] - λ_2 ψ.

The model is one of

    causal      π_t(a|s) = exp(Q_t - V_t),  Q_t = r + γ E V_{t+1},  V_t = log Σ_a exp Q_t    (2010)
    trajectory  p(ζ) ∝ p_0 Π_t p(a|s) exp(r(s_t, a_t)) P(s_{t+1}|s_t, a_t)                   (2008)

The second lets the agent bend chance in its favour, Q_t = r + log E exp V_{t+1}. They are the same
where dynamics are deterministic; elsewhere only the first is about somebody who acts.

Departures from the papers:
  * Adam instead of plain or exponentiated gradient ascent; the objective is concave in ψ.
  * the trajectory model is computed by messages over a finite horizon, exactly, not by the
    approximation of the 2008 paper (its algorithm 1), which runs on after a terminal state.
  * episodes begin as the demonstrations do on both sides, unless `starts=model`. Of whole
    trajectories the likelihood given their first states counts: chance does not bend those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from rlfd.algorithms.base import (
    Algorithm,
    AlgorithmConfig,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    World,
    hyper,
)
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.tabular import (
    Array,
    Dynamics,
    causal_policy,
    choose,
    decode,
    marginals,
    occupancy,
    visits_of,
)
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["MaxEntIRL", "MaxEntIRLConfig"]


@dataclass(frozen=True, kw_only=True)
class MaxEntIRLConfig(AlgorithmConfig):
    """Hyperparameters of maximum entropy inverse reinforcement learning."""

    model: Literal["causal", "trajectory"] = hyper(
        "causal", "causal entropy, or a distribution of whole trajectories that bends chance"
    )
    reward: Literal["linear", "table"] = hyper(
        "linear", "r_ψ: weighs the environment's features, or has an entry for each (s, a)"
    )
    gamma: float = hyper(1.0, "γ, discount per step, on both sides; causal only", above=0, high=1)
    learning_rate: float = hyper(0.3, "Adam's step size", above=0)
    l2: float = hyper(1e-2, "λ_2, weight of ‖ψ‖²/2, which keeps it finite", low=0)
    tolerance: float = hyper(1e-3, "stop where no entry of the gradient is larger", low=0)
    max_iterations: int = hyper(1000, "gradient steps at most", low=1)
    starts: Literal["demonstrations", "model"] = hyper(
        "demonstrations", "where episodes of the model begin"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model == "trajectory" and self.gamma != 1.0:
            raise RlfdError(
                f"gamma is {self.gamma:g}, but the trajectory model knows no discount",
                "leave gamma at 1, or take model=causal",
            )


class _Weights(nn.Module):
    """ψ, float64, at first 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(size, dtype=torch.float64))


def ascent_loss(
    parameters: Parameters, _: Parameters, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return -ψ·(f_E - f_π) + λ_2 ‖ψ‖²/2, whose gradient is -∇L: the difference is a constant."""
    psi = parameters["psi"]
    penalty = 0.5 * batch["l2"] * psi.square().sum()
    return penalty - psi @ batch["difference"], {"reward/weights": psi.abs().max()}


@register
class MaxEntIRL(Algorithm):
    """Maximum entropy inverse reinforcement learning."""

    name = "maxent-irl"
    title = "Maximum Entropy Inverse Reinforcement Learning (Ziebart et al., 2008, 2010)"
    summary = "the reward under which demonstrations are likely, exactly, in a known finite process"
    Config = MaxEntIRLConfig
    needs = Needs(demonstrations=True, reward=False, interaction=False, dynamics=True)
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled", "greedy")
    metric_definitions: Mapping[str, str] = {
        "loss/likelihood": "log-likelihood of the demonstrated actions, mean over episodes",
        "gap/gradient": "largest entry of the gradient",
        "gap/features": "‖f_E - f_π‖ / ‖f_E‖, f_π of the policy under the real dynamics",
        "policy/entropy": "entropy of the policy where it goes, mean per step, nats",
        "reward/weights": "largest entry of ψ before the step",
        "optim/grad_norm": "norm of the gradient",
    }
    recovers_reward = True

    def __init__(self, problem: Problem, config: MaxEntIRLConfig) -> None:
        assert problem.demonstrations is not None
        assert problem.model is not None
        self.config = config
        self.dynamics = Dynamics(problem.model)
        shape = self.dynamics.shape
        self._visits = visits_of(problem.demonstrations)
        self.demonstrated = self._visits.occupancy(shape)  # (S, A)
        self._start = self.dynamics.start
        if config.starts == "demonstrations":
            self._start = self._visits.start(shape[0])
        pairs = shape[0] * shape[1]
        features: Any = sparse.eye_array(pairs)  # one-hots of (s, a)
        if config.reward == "linear":
            features = problem.model.features.numpy().reshape(pairs, -1)
        self._features: Any = sparse.csr_array(features)  # (S A, F)
        self.weights = _Weights(self._features.shape[1])
        self.engine = UpdateEngine(
            self.weights,
            ascent_loss,
            Adam(config.learning_rate, planned_updates=config.max_iterations),
            compile="on" if problem.compile == "on" else "off",  # planning takes the time
        )
        self._target = self._expectation(self._visits.occupancy(shape, config.gamma))  # f_E
        self._discounts = config.gamma ** np.arange(self.dynamics.horizon)
        self._converged = False
        self._plan()

    def _expectation(self, visits: Array) -> Array:
        """Return Σ_sa d(s, a) f(s, a). Shape (F,)."""
        expected: Array = visits.ravel() @ self._features
        return expected

    def _rewards(self) -> Array:
        """r_ψ. Shape (S, A)."""
        rewards: Array = self._features @ self.weights.psi.detach().numpy()
        return rewards.reshape(self.dynamics.shape)

    def _plan(self) -> None:
        """Find the model of the reward as it is: backward pass, then forward pass."""
        self.rewards = self._rewards()
        if self.config.model == "trajectory":
            self.policy, self._model, _ = marginals(
                self.dynamics, self.rewards, self._start, bend_start=False
            )
        else:
            self.policy, _ = causal_policy(self.dynamics, self.rewards, self.config.gamma)
            self._model = occupancy(self.dynamics, self.policy, self._start)

    @property
    def finished(self) -> bool:
        """Whether the gradient is small enough, or the steps are used up."""
        return self._converged or self.updates >= self.config.max_iterations

    def iteration(self, world: World | None) -> Metrics:
        """Make one gradient step, and plan with the reward that it leads to."""
        difference = self._target - self._expected(self._model)  # f_E - f_π
        batch = {
            "difference": torch.from_numpy(difference),
            "l2": torch.tensor(self.config.l2, dtype=torch.float64),
        }
        self.engine.step(batch)
        self.updates = self.engine.count
        self._plan()
        return self.engine.drain() | self._measure()

    def _expected(self, joint: Array) -> Array:
        return self._expectation(np.tensordot(self._discounts, joint, axes=1))

    def _measure(self) -> Metrics:
        """Judge the model of the new reward; notice where it has converged."""
        psi = self.weights.psi.detach().numpy()
        difference = self._target - self._expected(self._model)
        gradient = np.abs(difference - self.config.l2 * psi).max()
        self._converged = bool(gradient <= self.config.tolerance)
        acted = self._model
        if self.config.model == "trajectory":  # what becomes of it where chance is not bent
            acted = occupancy(self.dynamics, self.policy, self._start)
            difference = self._target - self._expected(acted)
        seen, logs = self._visits, np.log(self.policy.clip(min=1e-300))
        likelihood = logs[seen.steps, seen.states, seen.actions].sum() / seen.count
        values = {
            "loss/likelihood": likelihood,
            "gap/gradient": gradient,
            "gap/features": np.linalg.norm(difference) / np.linalg.norm(self._target),
            "policy/entropy": -(acted * logs).sum() / self.dynamics.horizon,
        }
        return {name: torch.tensor(float(value)) for name, value in values.items()}

    @timed("act")
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return choose(self.policy, observations, greedy=greedy, generator=generator)

    def reward(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        terminated: np.ndarray,
    ) -> np.ndarray:
        """Return r_ψ(s, a)."""
        states, _ = decode(observations, self.dynamics.horizon)
        paid: np.ndarray = self.rewards[states, actions]
        return paid

    def reward_state(self) -> dict[str, Tensor]:
        """Return r_ψ."""
        return {"rewards": torch.from_numpy(self.rewards.copy())}

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        self.rewards = state["rewards"].numpy().copy()

    def policy_state(self) -> dict[str, Tensor]:
        """Return ψ, the policy and what a picture of both needs."""
        return {
            "psi": self.weights.psi.detach().clone(),
            "policy": torch.from_numpy(self.policy.copy()),
            "rewards": torch.from_numpy(self.rewards.copy()),
            "demonstrated": torch.from_numpy(self.demonstrated.copy()),
        }

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `policy_state` returned."""
        self.engine.load_parameters({"psi": state["psi"]})
        self._plan()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on; the plan follows from ψ."""
        return {
            "engine": self.engine.state_dict(),
            "updates": self.updates,
            "converged": self._converged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.updates, self._converged = state["updates"], bool(state["converged"])
        self._plan()
