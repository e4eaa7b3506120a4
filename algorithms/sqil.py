"""SQIL: soft Q imitation learning.

Anonymous (Reddy, Dragan and Levine), "What Would π* Do?: Imitation Learning via Off-Policy
Reinforcement Learning", submitted 2018; conference version "SQIL", ICLR 2020, arXiv 1905.11108.
Equation and line numbers below are those of the submitted version.

    B(D, r) = Σ_{(s,a,s') ∈ D} (Q(s, a) - (r + γ V(s')))²                          (eq 16)
    V(s) = τ log Σ_a exp(Q(s, a) / τ), 0 after a terminal state                    (eq 2)
    θ ← θ - η ∇[ B(D_demo, r) + λ_samp B(D_samp, 0) ]                              (Alg. 1, line 4)
    π(a|s) = exp((Q(s, a) - V(s)) / τ)                                             (eq 1)

Each sum is estimated by the mean over a minibatch, equally large from both memories (section 3.3).

Departures from the paper in the default settings (`--preset paper` undoes all of them; what each is
worth on Lunar Lander stands in docs/algorithms/sqil.md):
  * V(s') comes from a slowly following target network and is held constant (`mode=target`, Polyak),
    as in the authors' released Atari code; the paper differentiates through it (`mode=full`).
  * temperature 0.1 instead of 1: with r = 1, entropy at temperature 1 is worth more than imitating.
  * a demonstrated transition into a terminal state is worth r / (1 - γ) (`absorbing=value`), which
    section 3.3 proposes and did not use; without it, to end is the worst that can happen.
  * layer normalisation in the network.
  * the learning rate falls linearly to 0.
  * an update every two env steps (`interleave=steps`) instead of k updates, then a rollout.
  * λ_samp = 1 on means (`sample_weight=mean`); the paper's 1e-6 multiplies a sum over a growing set
    (`sample_weight=sum` restores that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    ActionKind,
    Algorithm,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    Wait,
    World,
    hyper,
)
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.absorbing import AbsorbingMode, check_discount
from rlfd.algorithms.core.absorbing_rows import AbsorbingRows, in_absorbing_state
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.q_learner import QLearner, QLearnerConfig, select
from rlfd.algorithms.core.replay import DemoStore, ReplayBuffer
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError

__all__ = ["SQIL", "BootstrapMode", "SQILConfig", "demo_rewards", "squared_soft_bellman_errors"]

BootstrapMode = Literal["full", "demos", "semi", "target"]
MODE = (
    "V(s') with its gradient; with it after demonstrated transitions, from a target network after "
    "own ones; held constant; or from the target network"
)
_TARGET = ("target_update", "polyak_tau", "target_every_updates")


@dataclass(frozen=True, kw_only=True)
class SoftImitationConfig(QLearnerConfig):
    """Hyperparameters that SQIL and SQIL-T share."""

    readers: ClassVar[Readers] = {
        "mode": {
            "full": (),
            "demos": _TARGET,
            "semi": (),
            "target": _TARGET,
        },
    }

    # step size and batch were chosen on Lunar Lander, seeds 101 and 102 (docs/algorithms/sqil.md)
    learning_rate: float = hyper(3e-4, "Adam's step size at the start", above=0)
    batch_size: int = hyper(32, "n, transitions per update from each of the two memories", low=1)
    mode: BootstrapMode = hyper("full", MODE)
    temperature: float = hyper(0.1, "τ of V and π; the paper's is 1", above=0)
    lambda_samp: float = hyper(1.0, "λ_samp, weight of the learner's own transitions", low=0)
    sample_weight: Literal["mean", "sum"] = hyper(
        "mean", "λ_samp weighs means, or sums over the memories (as printed in the paper)"
    )
    interleave: Literal["steps", "rollouts"] = hyper(
        "steps",
        "update every few env steps, or k times before each whole rollout (Alg. 1), whatever "
        "learning_starts and updates_per_env_step say",
    )
    updates_per_rollout: int = hyper(200, "k (interleave=rollouts)", low=1)
    rollout_policy: Literal["learner", "uniform"] = hyper(
        "learner", "who acts; uniform is the paper's ablation"
    )

    @property
    def use_target(self) -> bool:
        """Whether a target network is read."""
        return self.mode in ("demos", "target")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interleave == "rollouts" and self.final_learning_rate != 1.0:
            raise RlfdError(
                "interleave=rollouts makes a number of updates that is not known beforehand, "
                "so the learning rate cannot fall over it",
                "set final_learning_rate=1",
            )

    def wait(self) -> Wait | None:
        """Return what is waited for, unless that is how long the first rollouts are."""
        return None if self.interleave == "rollouts" else super().wait()


@dataclass(frozen=True, kw_only=True)
class SQILConfig(SoftImitationConfig):
    """Hyperparameters of SQIL."""

    mode: BootstrapMode = hyper("target", MODE)
    reward: float = hyper(1.0, "r, reward of a demonstrated transition", above=0)
    absorbing: AbsorbingMode = hyper(
        "value",
        "a demonstrated terminal transition is worth r, or r / (1 - γ), or leads to a state of its "
        "own",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


def squared_soft_bellman_errors(
    q: Tensor, rewards: Tensor | float, discounts: Tensor, next_values: Tensor
) -> Tensor:
    """Return (Q(s, a) - (r + γ (1 - d) V(s')))², the summands of eq 16.

    Args:
        q: Q(s, a). Shape (B,).
        rewards: r. Shape (B,) or a number.
        discounts: γ (1 - terminated). Shape (B,).
        next_values: V(s'). Shape (B,). Pass it detached to hold the target constant.

    Returns:
        Shape (B,).
    """
    return (q - (rewards + discounts * next_values)).square()  # eq 16


def demo_rewards(
    terminated: Tensor, reward: float, gamma: float, absorbing: AbsorbingMode
) -> Tensor:
    """Return r for each demonstrated transition, r / (1 - γ) into terminal states if wanted.

    Args:
        terminated: Whether s' is terminal; a time limit is not. Shape (B,).
        reward: r.
        gamma: γ.
        absorbing: ``value`` = as if the demonstrator stayed rewarded forever (section 3.3).

    Returns:
        Shape (B,), float32.
    """
    rewards = torch.full(terminated.shape, reward, device=terminated.device)
    if absorbing == "value":
        rewards = torch.where(terminated, reward / (1.0 - gamma), rewards)
    return rewards


class SoftImitationLoop:
    """Alg. 1 around a loss: acting, both memories, and which update is due when.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
        learner: Network, engine and the memory D_samp.
        with_starts: Whether the loss reads initial observations of demonstrations.
        absorbing: Makes absorbing states of terminations, on a problem of marked observations.
    """

    def __init__(
        self,
        problem: Problem,
        config: SoftImitationConfig,
        learner: QLearner,
        *,
        with_starts: bool = False,
        absorbing: AbsorbingRows | None = None,
    ) -> None:
        assert problem.demonstrations is not None
        self.config, self.learner, self.with_starts = config, learner, with_starts
        self.absorbing = absorbing
        self.demos = DemoStore(problem.demonstrations, gamma=config.gamma, device=problem.device)

    def values_after(
        self, parameters: Parameters, target: Parameters, next_observations: Tensor
    ) -> Tensor:
        """Return V(s') (eq 2) of both halves, as `mode` says; Q(s', 0) in the absorbing state."""
        mode = self.config.mode
        if mode == "full":
            return self._soft_values(parameters, next_observations)
        if mode == "demos":
            demo, next_observations = next_observations.chunk(2)
        with torch.no_grad():
            source = parameters if mode == "semi" else target
            values = self._soft_values(source, next_observations)
        if mode == "demos":
            values = torch.cat([self._soft_values(parameters, demo), values])
        return values

    def _soft_values(self, parameters: Parameters, observations: Tensor) -> Tensor:
        q_values = self.learner.values(parameters, observations)
        values = soft.soft_value(q_values, self.config.temperature)
        if self.absorbing is not None:
            values = torch.where(in_absorbing_state(observations), q_values[:, 0], values)
        return values

    def on_both(self, batch: Batch, name: str) -> Tensor:
        """Return a field of the demonstrated and own halves, one after the other. Shape (2n, ...).

        One network call for both halves costs less than two.
        """
        return torch.cat([batch[f"demo/{name}"], batch[f"own/{name}"]])

    def act_and_store(self, world: World) -> int:
        """Act once in every environment; the rewards in D_samp are 0 whatever the world paid.

        Returns:
            How many episodes ended.
        """
        learner = self.learner
        if self.config.rollout_policy == "uniform":
            actions = learner.uniform(world.num_envs)
        else:
            actions = learner.boltzmann(
                world.observations, self.config.temperature, learner.generator
            )
        transitions = world.step(actions)
        learner.store(transitions, rewards=torch.zeros(world.num_envs))
        return int((transitions.terminated | transitions.truncated).sum())

    def iteration(self, world: World, updates: int) -> int:
        """Make one pass of Alg. 1's loop, `updates` having been made before.

        Returns:
            How many updates were made.
        """
        if self.absorbing is not None:
            world = self.absorbing.world(world)
        if self.config.interleave == "rollouts":
            made = 0
            if len(self.learner.replay) > 0:
                made = self.config.updates_per_rollout * world.num_envs  # k for each rollout
            self._update(made)  # Alg. 1, line 4
            ended = 0
            while ended < world.num_envs:  # Alg. 1, lines 6-7
                ended += self.act_and_store(world)
            return made
        self.act_and_store(world)
        due = max(0, self.learner.updates_due(world.env_steps, updates))
        self._update(due)
        return due

    def _update(self, count: int) -> None:
        """Take `count` gradient steps, half demonstrations, half own transitions each."""
        if count == 0:
            return
        learner, size = self.learner, self.config.batch_size
        demo = self._sample(self.demos, count)
        own = self._sample(learner.replay, count)
        weight = torch.tensor(self._sample_weight(), device=learner.device)
        for demo_batch, own_batch in zip(demo, own, strict=True):
            batch = {f"demo/{name}": value for name, value in demo_batch.items()}
            batch |= {f"own/{name}": value for name, value in own_batch.items()}
            batch["own/weight"] = weight
            if self.with_starts:
                batch["demo/starts"] = self.demos.sample_starts(size, learner.generator)
            learner.engine.step(batch)

    def _sample(self, memory: DemoStore | ReplayBuffer, count: int) -> list[Batch]:
        generator = self.learner.generator
        batches = memory.sample(count, self.config.batch_size, generator)
        if self.absorbing is None:
            return batches
        return [self.absorbing.apply(batch, memory, generator) for batch in batches]

    def _sample_weight(self) -> float:
        """λ_samp, times |D_samp| / |D_demo| if it weighs sums."""
        if self.config.sample_weight == "mean":
            return self.config.lambda_samp
        return self.config.lambda_samp * len(self.learner.replay) / len(self.demos)


@register
class SQIL(Algorithm):
    """Soft Q imitation learning."""

    name = "sqil"
    title = "What Would π* Do?: Imitation Learning via Off-Policy RL (Reddy et al., 2018)"
    summary = "soft Q-learning, reward r for demonstrated and 0 for own transitions"
    Config = SQILConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        images=True,
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("sampled", "greedy")
    metric_definitions: Mapping[str, str] = {
        "loss/demo": "B(D_demo, r) / |D_demo|: mean squared soft Bellman error of demonstrations",
        "loss/own": "B(D_samp, 0) / |D_samp|: the same for own transitions with reward 0",
        "q/demo": "mean of Q(s, a) over demonstrated transitions",
        "q/own": "mean of Q(s, a) over own transitions",
        "policy/demo_likelihood": "mean of π(a|s) over demonstrated transitions",
        "policy/entropy": "entropy of π at own states, nats",
        "optim/grad_norm": "norm of the gradient before clipping",
    }

    learner: QLearner

    variants: ClassVar[dict[ActionKind, str]] = {"continuous": "sqil-sac"}

    def __init__(self, problem: Problem, config: SQILConfig) -> None:
        self.config = config
        self.absorbing = None
        if config.absorbing == "indicator":
            self.absorbing = AbsorbingRows(problem, config.gamma)
            problem = self.absorbing.problem(problem)
        self.learner = QLearner(
            problem,
            config,
            self._loss,
            use_target=config.use_target,
            replay={"ages": self.absorbing is not None},
        )
        self.loop = SoftImitationLoop(problem, config, self.learner, absorbing=self.absorbing)

    def _loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, loop = self.config, self.loop
        q_values = self.learner.values(parameters, loop.on_both(batch, "observations"))  # (2n, A)
        q = select(q_values, loop.on_both(batch, "actions"))  # (2n,)
        next_values = loop.values_after(
            parameters, target, loop.on_both(batch, "next_observations")
        )
        (demo_q, own_q), (demo_next, own_next) = q.chunk(2), next_values.chunk(2)
        rewards = demo_rewards(
            batch["demo/terminated"], config.reward, config.gamma, config.absorbing
        )
        demo_error = squared_soft_bellman_errors(
            demo_q, rewards, batch["demo/discounts"], demo_next
        ).mean()  # B(D_demo, r)
        own_error = squared_soft_bellman_errors(
            own_q, 0.0, batch["own/discounts"], own_next
        ).mean()  # B(D_samp, 0)
        loss = demo_error + batch["own/weight"] * own_error  # Alg. 1, line 4

        demo_q_values, own_q_values = q_values.chunk(2)
        log_probs = soft.boltzmann_log_probs(demo_q_values, config.temperature)
        return loss, {
            "loss/demo": demo_error,
            "loss/own": own_error,
            "q/demo": demo_q.mean(),
            "q/own": own_q.mean(),
            "policy/demo_likelihood": select(log_probs, batch["demo/actions"]).exp().mean(),
            "policy/entropy": soft.boltzmann_entropy(own_q_values, config.temperature).mean(),
        }

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop."""
        self.updates += self.loop.iteration(world, self.updates)
        return self.learner.engine.drain()

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return samples of π (eq 1), or its most likely actions."""
        temperature = self.config.temperature
        if self.absorbing is not None:
            observations = self.absorbing.mark(observations)
        return self.learner.act(observations, temperature, greedy=greedy, generator=generator)
