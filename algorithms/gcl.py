"""GCL: guided cost learning.

Finn, Levine and Abbeel, "Guided Cost Learning: Deep Inverse Optimal Control via Policy
Optimization", ICML 2016, arXiv 1603.00448. Maximum-entropy inverse reinforcement learning, the
partition function estimated from samples ζ_j of density q:

    L = 1/N Σ_i r(ζ_i) - log 1/M Σ_j exp r(ζ_j) / q(ζ_j)                     (sec. 4.1, with r = -c)
    ∇L = 1/N Σ_i ∇r(ζ_i) - Σ_j w_j ∇r(ζ_j) / Σ_j w_j,    w_j = exp r(ζ_j) / Π_t q(a_t|s_t)

r(ζ) is the sum of r(s_t, a_t); the dynamics' part of q is the target's, too, and cancels. The
samples come from a policy that is itself trained on r, with an entropy bonus.

`objective=gan` trains the discriminator of Finn, Christiano, Abbeel and Levine, "A Connection
between GANs, Inverse RL, and Energy-Based Models", 2016, arXiv 1611.03852, instead:

    D(ζ) = exp(r(ζ)) / Z / (exp(r(ζ)) / Z + q(ζ))

with Z estimated like the partition function, and a constant.

What q is: each minibatch has as many demonstrations as own trajectories among its samples, so
q = ½ Σ_k α_k π_k + ½ π̂_E, with the last K samplers π_k and π̂_E a policy cloned from the
demonstrations once, whose noise has a floor: all of these densities are worked out for all
trajectories (sec. 4.3's fusion distribution).

Departures from the paper:
  * the policy is improved by PPO or TRPO, not by linear-Gaussian controllers of fitted dynamics.
  * r is any network with an L2 penalty on its outputs; the paper's regularisers of the cost along a
    demonstration are left out.
  * where the effective sample size falls below a share of the samples, all weights are equal for
    that step, which is biased but goes on learning.
  * trajectories are cut after `max_length` steps. One that is collected in two iterations counts
    as the later sampler's.
  * an episode that terminates early stays in an absorbing state until then (absorbing=indicator).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import (
    Algorithm,
    Metrics,
    Needs,
    PolicyMode,
    Problem,
    Readers,
    World,
    hyper,
)
from rlfd.algorithms.core.absorbing import HorizonAudit, check_discount, relative_to_absorbing
from rlfd.algorithms.core.discriminator import INPUT_CLIP, discrimination_loss
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import cycled
from rlfd.algorithms.core.networks import Activation, mlp
from rlfd.algorithms.core.normaliser import RunningMoments, usable_std
from rlfd.algorithms.core.on_policy import Actor
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.policy_learner import LEARNERS, PolicyLearner, make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trajectory_samples import SampleFields, TrajectorySamples
from rlfd.algorithms.core.trpo_learner import TrustRegionFields
from rlfd.algorithms.registry import register
from rlfd.seeding import derive

__all__ = [
    "GCL",
    "GCLConfig",
    "TrajectoryReward",
    "effective_size",
    "gan_logits",
    "gcl_objective",
    "importance_weights",
    "log_partition",
]

logger = logging.getLogger("rlfd.gcl")


@dataclass(frozen=True, kw_only=True)
class GCLConfig(TrustRegionFields, ClipFields, SampleFields):
    """Hyperparameters of GCL."""

    readers: ClassVar[Readers] = {
        "learner": LEARNERS,
        "objective": {"gcl": ("ess_floor",), "gan": ()},
    }

    learner: Literal["trpo", "ppo"] = hyper("trpo", "who improves the policy")
    objective: Literal["gcl", "gan"] = hyper("gcl", "likelihood, or cross entropy of D")
    reward_steps: int = hyper(20, "Adam steps of the reward per iteration", low=1)
    reward_batch_size: int = hyper(16, "trajectories per step, of each side", low=1)
    reward_learning_rate: float = hyper(1e-3, "Adam's step size for the reward", above=0)
    reward_hidden: tuple[int, ...] = hyper((32, 32), "widths of its hidden layers", low=1)
    reward_activation: Activation = hyper("relu", "what follows each of its hidden layers")
    output_l2: float = hyper(0.1, "weight of the squared rewards, summed over a trajectory", low=0)
    ess_floor: float = hyper(
        0.1, "equal weights where the effective sample size is a smaller share", low=0, high=1
    )
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.95, "λ of the advantage estimates", low=0, high=1)
    # in long trajectories r has room to grow, faster than V could follow
    normalise_rewards: bool = hyper(
        True, "divide rewards by the running std of the discounted return"
    )
    entropy_weight: float = hyper(0.01, "weight of the policy's entropy in the objective", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


# -- the estimator ------------------------------------------------------------------------------


def importance_weights(rewards: Tensor, log_q: Tensor) -> Tensor:
    """Return w_j / Σ w, w = exp(r - log q), shifted by the largest. All shapes (M,)."""
    return torch.softmax(rewards - log_q, dim=0)


def effective_size(weights: Tensor) -> Tensor:
    """Return 1 / Σ w², between 1 and M, of weights (M,) that sum to 1; a scalar."""
    return 1.0 / weights.square().sum()


def log_partition(rewards: Tensor, log_q: Tensor) -> Tensor:
    """Return log Z = log 1/M Σ_j exp r(ζ_j) / q(ζ_j). Shapes (M,); a scalar."""
    return torch.logsumexp(rewards - log_q, dim=0) - math.log(len(rewards))


def gcl_objective(demo_rewards: Tensor, sample_rewards: Tensor, log_q: Tensor) -> Tensor:
    """Return L, to be maximised.

    Args:
        demo_rewards: r of demonstrated trajectories. Shape (N,).
        sample_rewards: r of samples. Shape (M,).
        log_q: Log-density that they were drawn with, but for the dynamics' part. Shape (M,).

    Returns:
        A scalar.
    """
    return demo_rewards.mean() - log_partition(sample_rewards, log_q)


def gan_logits(rewards: Tensor, log_q: Tensor, log_z: Tensor) -> Tensor:
    """Return the log odds of D, r(ζ) - log Z - log q(ζ). Shapes (M,), and a scalar."""
    return rewards - log_z - log_q


# -- samples ------------------------------------------------------------------------------------


class TrajectoryReward:
    """r(s, a), learned from whole trajectories of the demonstrator and of the last samplers.

    Padding of trajectories is worth nothing, but for that with the absorbing state.

    Args:
        problem: With demonstrations, and whether they terminated.
        config: Hyperparameters.
        actor: The sampler.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "gcl/loss": "-L, or the cross entropy of D, with the penalty",
        "gcl/demo_return": "mean learned return of demonstrated trajectories",
        "gcl/own_return": "mean learned return of own trajectories",
        "gcl/ess": "effective sample size as a share of the samples, over the steps",
        "gcl/flat": "share of steps with equal weights, the effective sample size being too small",
        "gcl/trajectories": "own trajectories among the samples",
        "gcl/log_q_own": "mean over own trajectories of log q, of samplers and clone, nats",
        "gcl/log_q_demo": "mean over demonstrated ones of log q, of samplers and clone, nats",
        "gcl/grad_norm": "norm of the gradient of the loss",
        "reward/learned": "mean learned reward per step",
        "reward/absorbing": "learned reward per step of the absorbing state; 0 with absorbing=off",
    }

    def __init__(self, problem: Problem, config: GCLConfig, actor: Actor) -> None:
        self.config, self.actor, self.device = config, actor, problem.device
        self.samples = TrajectorySamples(problem, config, actor)
        self._indicator, self._plain = self.samples.indicator, self.samples.plain
        self.network = mlp(
            [self.samples.width, *config.reward_hidden, 1],
            layer_norm=False,
            activation=config.reward_activation,
            generator=torch.Generator(device=self.device).manual_seed(
                derive(problem.seed, "reward weights")
            ),
            device=self.device,
        )
        rounds = -(-problem.env_steps // config.batch_steps)
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            Adam(config.reward_learning_rate, planned_updates=max(1, rounds * config.reward_steps)),
            compile=problem.compile,
            norm_name="gcl/grad_norm",
        )
        self.audit = HorizonAudit(config.absorbing)
        self._warned = self._saw_absorbing = False
        self._moments = RunningMoments(self._plain, self.device)
        self._set_statistics()

    def _standardise(self, rows: Tensor) -> Tensor:
        inputs = (rows[..., : self._plain] - self._mean) / self._std
        return torch.cat([inputs.clamp(-INPUT_CLIP, INPUT_CLIP), rows[..., self._plain :]], dim=-1)

    def _set_statistics(self) -> None:
        self._mean = self._moments.mean.to(torch.get_default_dtype())
        self._std = usable_std(self._moments.variance.sqrt()).to(torch.get_default_dtype())

    # -- learning ---------------------------------------------------------------------------------

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of samples that are demonstrations in their first half, own trajectories in the other."""
        config, counts = self.config, batch["counts"]
        inputs = batch["inputs"]
        per_step = functional_call(self.network, parameters, (inputs.flatten(0, 1),))
        per_step = per_step.view(counts.shape) * counts
        returns = per_step.sum(1)
        demo, own = returns.chunk(2)
        ess = effective_size(importance_weights(returns.detach(), batch["log_q"])) / len(returns)
        flat = (ess < config.ess_floor).to(returns.dtype)
        if config.objective == "gan":
            log_z = log_partition(returns, batch["log_q"]).detach()
            logits = gan_logits(returns, batch["log_own"], log_z)
            loss, flat = discrimination_loss(*logits.chunk(2)), torch.zeros_like(flat)
        else:
            weighted = gcl_objective(demo, returns, batch["log_q"])
            loss = -torch.where(flat > 0, demo.mean() - returns.mean(), weighted)
        loss = loss + config.output_l2 * per_step.square().sum(1).mean()
        return loss, {
            "gcl/loss": loss,
            "gcl/demo_return": demo.mean(),
            "gcl/own_return": own.mean(),
            "gcl/ess": ess,
            "gcl/flat": flat,
        }

    def learn(self, rollout: Rollout) -> Metrics | None:
        """Add a rollout to the samples and improve r; None as long as no trajectory is whole."""
        self.samples.add(rollout)
        if not self.samples.pool:
            return None
        demo, own = self.samples.tables()
        steps, size = self.config.reward_steps, self.config.reward_batch_size
        for chosen in zip(self._draws(demo, steps), self._draws(own, steps), strict=True):
            self._step(demo, own, *chosen)
        metrics = self.engine.drain()
        self._warn(metrics, 2 * size)
        return metrics | {
            "gcl/trajectories": torch.tensor(float(len(own["log_q"]))),
            "gcl/log_q_own": own["log_q"].mean(),
            "gcl/log_q_demo": demo["log_q"].mean(),
        }

    @timed("sample")
    def _draws(self, table: Batch, steps: int) -> tuple[Tensor, ...]:
        size = self.config.reward_batch_size
        order = cycled(len(table["log_q"]), steps * size, self.samples.generator)
        return torch.split(order.to(self.device), size)

    def _step(self, demo: Batch, own: Batch, demos: Tensor, owns: Tensor) -> None:
        batch = {name: torch.cat([demo[name][demos], own[name][owns]]) for name in demo}
        rows, counts = batch.pop("rows"), batch["counts"] > 0
        seen = rows[counts]
        if self._indicator:
            absorbing = seen[:, -1] > 0
            self._saw_absorbing = self._saw_absorbing or bool(absorbing.any())
            seen = seen[~absorbing]
        self._moments.update(seen[:, : self._plain])
        self._set_statistics()
        inputs = self._standardise(rows)
        if self._indicator:  # s_abs is 0 but for its mark
            inputs = inputs * torch.where(rows[..., -1:] > 0, rows, torch.ones_like(rows))
        self.engine.step(batch | {"inputs": inputs})

    def _warn(self, metrics: Metrics, samples: int) -> None:
        """Say, once, that the weights collapsed."""
        if self._warned or float(metrics["gcl/flat"]) == 0.0:
            return
        self._warned = True
        logger.warning(
            "the importance weights collapse onto few trajectories: the effective sample size is "
            "%.2f of %d, so all weights were taken as equal in %.0f%% of the reward's steps, which "
            "is biased; shorter trajectories (--set max_length), more of them per iteration "
            "(batch_steps) or a smaller reward (output_l2) help, and 'airl' has no such weights",
            float(metrics["gcl/ess"]) * samples,
            samples,
            100.0 * float(metrics["gcl/flat"]),
        )

    # -- paying -----------------------------------------------------------------------------------

    @torch.no_grad()
    def rewards(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return r(s, a) of pairs (B, ...), actions in the policy's units. Shape (B,)."""
        rows = self.samples.rows(observations, actions)
        rewards: Tensor = self.network(self._standardise(rows))[:, 0]
        return rewards

    @torch.no_grad()
    def absorbing_reward(self) -> Tensor:
        """Return r(s_abs), a scalar; 0 as long as there was no such state."""
        if not self._saw_absorbing:
            return torch.zeros((), device=self.device)
        row = torch.zeros(1, self.samples.width, device=self.device)
        row[:, -1] = 1.0
        reward: Tensor = self.network(row)[0, 0]
        return reward

    def pay(self, rollout: Rollout) -> tuple[Tensor, Metrics]:
        """Return what a rollout is paid: rewards (T, N), and metrics."""
        learned = self.rewards(rollout.flat(rollout.observations), rollout.flat(rollout.actions))
        rewards = learned.view(rollout.rewards.shape)
        self.audit.check(rewards, rollout.terminated)
        absorbing = self.absorbing_reward()
        metrics = {"reward/learned": rewards.mean(), "reward/absorbing": absorbing}
        return relative_to_absorbing(rewards, absorbing), metrics

    # -- state ------------------------------------------------------------------------------------

    def reward_state(self) -> dict[str, Tensor]:
        """Return what `rewards` and `absorbing_reward` depend on."""
        weights = {f"r.{name}": value.clone() for name, value in self.network.state_dict().items()}
        return weights | {
            "mean": self._mean.clone(),
            "std": self._std.clone(),
            "absorbing": torch.tensor(self._saw_absorbing),
        }

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        weights = {n.removeprefix("r."): v for n, v in state.items() if n.startswith("r.")}
        self.network.load_state_dict(weights)
        self._mean, self._std = state["mean"].to(self._mean), state["std"].to(self._std)
        self._saw_absorbing = bool(state["absorbing"])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next rollout's reward depends on."""
        return {
            "engine": self.engine.state_dict(),
            "moments": self._moments.state_dict(),
            "samples": self.samples.state_dict(),
            "saw_absorbing": self._saw_absorbing,
            "warned": self._warned,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self._moments.load_state_dict(state["moments"])
        self._set_statistics()
        self.samples.load_state_dict(state["samples"])
        self._saw_absorbing = bool(state["saw_absorbing"])
        self._warned = bool(state["warned"])


@register
class GCL(Algorithm):
    """Guided cost learning."""

    name = "gcl"
    title = "Guided Cost Learning (Finn et al., 2016)"
    summary = "maximum-entropy inverse RL of whole trajectories, sampled by a policy that it trains"
    Config = GCLConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        **PPOLearner.metric_definitions,
        **TrajectoryReward.metric_definitions,
    }
    recovers_reward = True

    learner: PolicyLearner

    def __init__(self, problem: Problem, config: GCLConfig) -> None:
        self.config = config
        self.learner = make_policy_learner(config.learner, problem, config)
        self.trajectories = TrajectoryReward(problem, config, self.learner.actor)
        self.metric_definitions = (
            self.learner.metric_definitions | self.trajectories.metric_definitions
        )

    def iteration(self, world: World) -> Metrics:
        """Sample, improve r, improve the policy by r; the world's reward is not read."""
        rollout = self.learner.collect(world)
        metrics = self.trajectories.learn(rollout)
        if metrics is None:  # no trajectory is whole yet: r knows nothing
            return {}
        rewards, paid = self.trajectories.pay(rollout)
        metrics |= paid | self.learner.improve(rollout, rewards)
        self.updates = self.learner.engine.count
        return metrics

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def reward(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        terminated: np.ndarray,
    ) -> np.ndarray:
        """Return r(s, a), counted from that of the absorbing state; see the base class."""
        learned = self.trajectories
        rewards = learned.rewards(*self.learner.actor.tensors(observations, actions))
        rewards = relative_to_absorbing(rewards, learned.absorbing_reward())
        paid: np.ndarray = rewards.double().cpu().numpy()
        return paid

    def reward_state(self) -> dict[str, Tensor]:
        """Return r, the statistics of its inputs, and whether it knows the absorbing state."""
        return self.trajectories.reward_state()

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        self.trajectories.load_reward_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"trajectories": self.trajectories.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.trajectories.load_state_dict(state["trajectories"])
