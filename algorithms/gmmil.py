"""GMMIL: imitation by minimising the maximum mean discrepancy (MMD).

Kim and Park, "Imitation Learning via Kernel Mean Embedding", AAAI 2018. With the kernel's witness
function f of the learner's and the demonstrators' state-action pairs (`core/mmd.py`), and f̄ its
mean over the rollout,

    min_θ MMD(ρ_πθ, ρ_E),   ∇MMD = (1 / MMD) ∇E_{ρ_πθ}[f],   r(s, a) = -(f(s, a) - f̄) / MMD

is reinforcement learning with reward r, which knows no task; the policy makes TRPO steps on it.

ρ counts visits and is not scaled: an episode that terminates early has less of it, though a mean
over its steps does not show that. So it goes on in its absorbing state (`core/absorbing.py`) for
the rest of the horizon H: after L steps that is a point of weight H - L, and a value of
Σ_{k<H-L} γ^k r_abs.

Departures from the paper:
  * f̄ is subtracted. In a rollout all steps count alike, so the estimate is a ratio and this is its
    gradient; without f̄, where f > 0 far from the demonstrations, to end an episode early pays.
  * the rest of the horizon is played out in absorbing states (`absorbing`).
  * r is in units of the MMD, which changes no direction and keeps the values at one scale.
  * advantages are standardised (`standardise_advantages`), as those of TRPO.
  * `inner_steps` > 1 reuses a rollout: importance ratios weigh its pairs and its objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import (
    Algorithm,
    DemoTensors,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.absorbing import AbsorbingMode, EpisodeAges, absorbing_steps
from rlfd.algorithms.core.distributions import Distribution
from rlfd.algorithms.core.mmd import Discrepancy, KernelName, Mismatch, PairFeatures
from rlfd.algorithms.core.on_policy import Actor, Estimate, prepare
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trpo_learner import TRPOLearner, TrustRegionFields
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError
from rlfd.seeding import derive

__all__ = [
    "GMMIL",
    "MMD_METRICS",
    "GMMILConfig",
    "ImitationReward",
    "Matching",
    "MatchingFields",
    "matching_steps",
]

MMD_METRICS = {
    "mmd/estimate": "MMD between the rollout and the demonstrations (biased V-statistic)",
    "mmd/first_bandwidth": "the same under the bandwidth of the first rollout",
    "mmd/floor": "√(1/n + 1/m): the order of the MMD between finite samples of equals",
    "mmd/absorbing": "share of the horizon that the rollout's episodes spend in absorbing states",
}


@dataclass(frozen=True, kw_only=True)
class MatchingFields(TrustRegionFields):
    """Hyperparameters of the MMD and of the trust region."""

    readers: ClassVar[Readers] = {
        "absorbing": {"off": (), "value": ("horizon",), "indicator": ("horizon",)},
    }

    gamma: float = hyper(0.995, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.97, "λ of the advantage estimates", low=0, high=1)
    kernel: KernelName = hyper(
        "std", "bandwidth by both sets' spread, by the median distance, or GMMIL's two Gaussians"
    )
    bandwidth_scale: float = hyper(1.0, "factor of the kernel's width", above=0)
    bandwidth_rollouts: int = hyper(
        5, "rollouts that set the bandwidth; from then on it is frozen", low=1
    )
    subsample: int = hyper(2_000, "pairs of each side in the MMD, at most", low=2)
    action_scale: float = hyper(1.0, "factor of actions beside observations", low=0)
    absorbing: AbsorbingMode = hyper(
        "indicator",
        "what follows a terminal state until the horizon: nothing, a neutral state, or the same "
        "observation with a mark, which counts as often as steps are left",
    )
    horizon: int = hyper(
        0, "H, env steps at which the task is over; 0 = those of the longest demonstration", low=0
    )


@dataclass(frozen=True, kw_only=True)
class GMMILConfig(MatchingFields):
    """Hyperparameters of GMMIL."""

    hidden: tuple[int, ...] = hyper((100, 100), "widths of the hidden layers", low=1)
    kernel: KernelName = hyper(
        "gmmil", "bandwidth by both sets' spread, by the median distance, or GMMIL's two Gaussians"
    )
    bandwidth_rollouts: int = hyper(
        1, "rollouts that set the bandwidth; from then on it is frozen", low=1
    )
    inner_steps: int = hyper(1, "policy steps per rollout", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise_rewards:
            raise RlfdError(
                "normalise_rewards is for rewards of the environment, which gmmil does not read",
                "leave it out: imitation rewards are in units of the MMD",
            )


@dataclass(frozen=True, slots=True)
class ImitationReward:
    """What a rollout is worth to somebody who wants to be like the demonstrators.

    Attributes:
        mismatch: The MMD and its witness.
        rewards: r = -(f - f̄) / MMD. Shape (T, N).
        terminal_values: Of the absorbing states, see `gae`. Shape (T, N) or None.
    """

    mismatch: Mismatch
    rewards: Tensor
    terminal_values: Tensor | None


class Matching:
    """Rewards that lead the learner's state-action pairs to those of the demonstrations.

    Args:
        problem: With demonstrations, whether they terminated, and where.
        config: Hyperparameters.
        distribution: Of the learner's actions.
        gamma: Discount of the value of absorbing states.
    """

    def __init__(
        self, problem: Problem, config: MatchingFields, distribution: Distribution, gamma: float
    ) -> None:
        demos = problem.demonstrations
        assert demos is not None
        self.absorbing, self.gamma = config.absorbing, gamma
        lengths = torch.bincount(demos.episode_ids)
        self.horizon = config.horizon or int(lengths.max())  # H
        self.ages = EpisodeAges(problem.num_envs, problem.device)
        self.features = PairFeatures(
            demos,
            distribution,
            action_scale=config.action_scale,
            indicator=config.absorbing == "indicator",
            device=problem.device,
        )
        points, weights = self._demonstrated(demos, lengths[demos.episode_ids], distribution)
        self.discrepancy = Discrepancy(
            points,
            weights,
            pairs=demos.num_transitions,
            kind=config.kernel,
            scale=config.bandwidth_scale,
            freeze_after=config.bandwidth_rollouts,
            subsample=config.subsample,
            seed=derive(problem.seed, "mmd"),
        )
        self._points = self._weights = self._left = torch.zeros(0)

    def _demonstrated(
        self, demos: DemoTensors, lengths: Tensor, distribution: Distribution
    ) -> tuple[Tensor, Tensor]:
        assert demos.terminated is not None
        assert demos.next_observations is not None
        device, dtype = self.features.device, torch.get_default_dtype()
        ended = demos.terminated
        return self._rows(
            demos.observations.to(device, dtype),
            distribution.encode(demos.actions.to(device)),
            demos.next_observations[ended].to(device, dtype),
            self._steps_left(lengths[ended].to(device)),
        )

    def _steps_left(self, lengths: Tensor) -> Tensor:
        """Return H - L, at least one."""
        return absorbing_steps(lengths, gamma=1.0, horizon=self.horizon)

    def _rows(
        self, observations: Tensor, actions: Tensor, last: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features and weights of pairs (B, ...), then of absorbing states (E, ...)."""
        points = self.features(observations, actions)
        weights = torch.ones(len(points), dtype=torch.float64, device=points.device)
        if self.absorbing != "indicator":
            return points, weights
        points = torch.cat([points, self.features.absorbing(last)])
        return points, torch.cat([weights, left.double()])

    def begin(self, rollout: Rollout) -> ImitationReward:
        """Take up a new rollout; return what it is worth. Call it once for each, in order."""
        self._left = self._steps_left(self.ages(rollout.ended)[rollout.terminated])
        self._points, self._weights = self._rows(
            rollout.observations.flatten(0, 1),
            rollout.actions.flatten(0, 1),
            rollout.next_observations[rollout.terminated],
            self._left,
        )
        self.discrepancy.begin(self._points, rollout.num_steps)
        return self.reward(rollout)

    def reward(self, rollout: Rollout, ratios: Tensor | None = None) -> ImitationReward:
        """Return what the rollout of the last `begin` is worth.

        Args:
            rollout: The rollout.
            ratios: π(a|s) of another policy over that of the one that acted (T · N,), to look at
                the rollout as if the other one had acted. None = 1.
        """
        pairs, weights = rollout.num_steps, self._weights
        if ratios is not None:  # an absorbing state, if there are any, is as likely as its end
            after = ratios[rollout.terminated.flatten()][: len(weights) - pairs]
            weights = weights * torch.cat([ratios, after]).double()
        mismatch = self.discrepancy.measure(self._points, weights)
        mean = (weights * mismatch.witness).sum() / weights.sum()  # f̄
        scaled = ((mean - mismatch.witness) / mismatch.mmd).to(rollout.rewards)  # r
        rewards = scaled[:pairs].view(rollout.rewards.shape)
        values = None
        if self.absorbing != "off":
            far = (mean / mismatch.mmd).to(rewards)  # r far from all pairs, where f = 0
            each = scaled[pairs:] if self.absorbing == "indicator" else far
            values = torch.zeros_like(rewards)
            values[rollout.terminated] = each * discounted(self._left, self.gamma).to(rewards)
        return ImitationReward(mismatch, rewards, values)

    def metrics(self, mismatch: Mismatch) -> Metrics:
        """Return the metrics of the last `begin`'s rollout."""
        discrepancy, first = self.discrepancy, mismatch.mmd
        if discrepancy.bandwidths != discrepancy.initial_bandwidths:
            first = discrepancy.initial_mmd(self._points, self._weights)
        return {
            "mmd/estimate": mismatch.mmd,
            "mmd/first_bandwidth": first,
            "mmd/floor": torch.tensor(mismatch.floor),
            "mmd/absorbing": 1.0 - mismatch.share,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next `begin` depends on."""
        return {"discrepancy": self.discrepancy.state_dict(), "ages": self.ages.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.discrepancy.load_state_dict(state["discrepancy"])
        self.ages.load_state_dict(state["ages"])


def discounted(steps: Tensor, gamma: float) -> Tensor:
    """Return Σ_{k<n} γ^k, what a reward of 1 per step comes to in n steps. Any shape -> float64."""
    if gamma == 1.0:
        return steps.double()
    return (1.0 - gamma ** steps.double()) / (1.0 - gamma)


@torch.no_grad()
def log_probs(actor: Actor, rollout: Rollout) -> Tensor:
    """Return log π(a|s) of the actor's present policy. Shape (T · N,)."""
    outputs = actor.network(rollout.observations.flatten(0, 1))
    actions = rollout.actions.flatten(0, 1)
    return actor.distribution.log_prob(outputs, actor.network.log_std, actions)


def matching_steps(
    learner: TRPOLearner,
    rollout: Rollout,
    advantages: Tensor,
    again: Callable[[Tensor], Tensor],
    steps: int,
) -> Metrics:
    """Make policy steps that lower the MMD, all from one rollout.

    Args:
        learner: Whose policy to improve.
        rollout: What the policy did before the first step.
        advantages: Of the imitation reward, for the first step. Shape (T, N).
        again: Makes the advantages of a later step from importance ratios (T · N,).
        steps: How many.

    Returns:
        Metrics of the last step.
    """
    before = log_probs(learner.actor, rollout)
    metrics = learner.improve_policy(rollout, prepare(advantages, learner.config))
    for _ in range(steps - 1):
        ratios = (log_probs(learner.actor, rollout) - before).exp()
        later = prepare(again(ratios), learner.config) * ratios.view_as(advantages)
        metrics = learner.improve_policy(rollout, later)
    return metrics


@register
class GMMIL(Algorithm):
    """Imitation learning by matching occupancies in a reproducing-kernel Hilbert space."""

    name = "gmmil"
    title = "Imitation Learning via Kernel Mean Embedding (Kim and Park, 2018)"
    summary = "TRPO on the witness of the MMD between own and demonstrated state-action pairs"
    Config = GMMILConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {**TRPOLearner.metric_definitions, **MMD_METRICS}

    learner: TRPOLearner

    def __init__(self, problem: Problem, config: GMMILConfig) -> None:
        self.config = config
        self.learner = TRPOLearner(problem, config)
        distribution = self.learner.actor.distribution
        self.matching = Matching(problem, config, distribution, config.gamma)

    def iteration(self, world: World) -> Metrics:
        """Act for one batch, then make steps that lower the MMD; the world's reward is not read."""
        learner, matching = self.learner, self.matching
        rollout = learner.collect(world)

        def estimate(reward: ImitationReward) -> Estimate:
            terminal = reward.terminal_values
            return learner.value.estimate(rollout, reward.rewards, terminal_values=terminal)

        reward = matching.begin(rollout)
        estimated = estimate(reward)
        metrics = matching_steps(
            learner,
            rollout,
            estimated.advantages,
            lambda ratios: estimate(matching.reward(rollout, ratios)).advantages,
            self.config.inner_steps,
        )
        metrics |= learner.finish(rollout, estimated)
        self.updates = learner.engine.count
        return metrics | matching.metrics(reward.mismatch)

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"matching": self.matching.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.matching.load_state_dict(state["matching"])
