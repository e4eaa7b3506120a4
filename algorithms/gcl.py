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
trajectories (sec. 4.3's fusion distribution). They are densities of *executed* actions, which r
sees: draws are clipped at the bounds, so that q has a probability there. Of the draws themselves
there would be no ∫ exp r: beyond the bounds r is a constant and exp(r) / q grows without end.

Weights of whole trajectories are unbiased and rest on few of them. Two settings trade this off:

  * `weight_steps`: trajectories are cut into segments of so many steps, and each place in time has
    its own L, with segments for ζ and Z given the states where they begin. What follows a segment
    does not count for its weight, and q is taken for the same whoever got to where it begins. With
    one step r tends to log π_E(a|s) + log d_E(s) / d_q(s), d the share of visits at that time.
  * `ess_floor`: where the effective sample size is a smaller share of the samples, all weights are
    raised to the largest power β that gives as much, and log Z becomes 1/β log 1/M Σ_j w_j^β
    (`core/importance.py`): a lower bound, exact where q = exp(r) / Z; β = 0 has equal weights.

Departures from the paper:
  * the policy is improved by PPO or TRPO, not by linear-Gaussian controllers of fitted dynamics.
  * r is any network with an L2 penalty on its outputs; the paper's regularisers of the cost along a
    demonstration are left out.
  * both of the above: by default each step has a weight of its own.
  * trajectories are cut after `max_length` steps. One that is collected in two iterations counts
    as the later sampler's.
  * an episode that terminates early stays where it ended until then (absorbing=indicator): its
    terminal observation, marked, without an action. V there is r / (1 - γ), since the policy's
    task, unlike trajectories, is discounted and has no end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
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
from rlfd.algorithms.core.absorbing import (
    HorizonAudit,
    check_discount,
    counted_from,
)
from rlfd.algorithms.core.discriminator import INPUT_CLIP
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.importance import (
    effective_size,
    log_partition,
    sound_order,
    tempered_weights,
)
from rlfd.algorithms.core.minibatches import cycled
from rlfd.algorithms.core.networks import Activation, mlp
from rlfd.algorithms.core.normaliser import RunningMoments, usable_std
from rlfd.algorithms.core.on_policy import Actor
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.policy_learner import LEARNERS, PolicyLearner, make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trajectory_samples import SampleFields, TrajectorySamples, segments
from rlfd.algorithms.core.trpo_learner import TrustRegionFields
from rlfd.algorithms.registry import register
from rlfd.seeding import derive

__all__ = [
    "GCL",
    "GCLConfig",
    "TrajectoryReward",
    "gan_logits",
    "gcl_objective",
]

logger = logging.getLogger("rlfd.gcl")

COLLAPSED = 0.5  # a mean β that is worth a warning


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
        0.1, "weights are tempered until the effective sample size is this share", low=0, high=1
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


def gcl_objective(
    demo_rewards: Tensor, demo_there: Tensor, log_weights: Tensor, order: Tensor
) -> Tensor:
    """Return L, to be maximised: the sum over segments of the log-likelihood of each.

    A segment counts by the share of demonstrations that are that long, so that a constant added to
    all rewards changes nothing.

    Args:
        demo_rewards: r of demonstrated segments. Shape (N, S).
        demo_there: 1 where there is one, 0 for padding. Shape (N, S).
        log_weights: r - log q of samples, -inf where there is none. Shape (M, S).
        order: β. Shape (S,).

    Returns:
        A scalar.
    """
    share = demo_there.mean(0)
    return (demo_rewards * demo_there).mean(0).sum() - (
        share * log_partition(log_weights, order)
    ).sum()


def gan_logits(rewards: Tensor, log_q: Tensor, log_z: Tensor) -> Tensor:
    """Return the log odds of D, r(ζ) - log Z - log q(ζ). Shapes (M, S), and (S,)."""
    return rewards - log_z - log_q


def gan_loss(logits: Tensor, there: Tensor) -> Tensor:
    """Return -E_demo log D - E_own log(1 - D) over segments that are there.

    Args:
        logits: Of demonstrated segments, then of as many trajectories' own. Shape (2N, S).
        there: 1, or 0 for padding. Shape (2N, S).

    Returns:
        A scalar, 2 log 2 for a D that knows nothing.
    """
    (demo, own), (demo_there, own_there) = logits.chunk(2), there.chunk(2)
    demo_loss = -(demo_there * F.logsigmoid(demo)).sum() / demo_there.sum()
    return demo_loss - (own_there * F.logsigmoid(-own)).sum() / own_there.sum()


# -- samples ------------------------------------------------------------------------------------


class TrajectoryReward:
    """r(s, a), learned from whole trajectories of the demonstrator and of the last samplers.

    Padding of trajectories is worth nothing, but for stays where an episode terminated.

    Args:
        problem: With demonstrations, and whether they terminated.
        config: Hyperparameters.
        actor: The sampler.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "gcl/loss": "-L, or the cross entropy of D, with the penalty",
        "gcl/demo_return": "mean learned return of demonstrated trajectories",
        "gcl/own_return": "mean learned return of own trajectories",
        "gcl/ess": "effective sample size of untempered weights, as a share of the samples",
        "gcl/order": "mean β of the tempered weights w^β; 1 = as they are, 0 = all equal",
        "gcl/trajectories": "own trajectories among the samples",
        "gcl/log_q_own": "mean over own segments of log q, of samplers and clone, nats",
        "gcl/log_q_demo": "mean over demonstrated segments of log q, of samplers and clone, nats",
        "gcl/grad_norm": "norm of the gradient of the loss",
        "reward/learned": "mean learned reward per step",
        "reward/absorbing": "mean learned reward per step of own absorbing states; 0 without any",
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
        demos = self.samples.demos
        self._ends = demos["final"][demos["stays"].any(1)]
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
        config, counts, length = self.config, batch["counts"], self.samples.segment
        inputs = batch["inputs"]
        per_step = functional_call(self.network, parameters, (inputs.flatten(0, 1),))
        per_step = per_step.view(counts.shape) * counts
        rewards = segments(per_step, length)
        there = (segments(counts, length) > 0).to(rewards.dtype)
        log_weights = torch.where(there > 0, rewards - batch["log_q"], -torch.inf)
        sizes = there.sum(0)
        ess = effective_size(tempered_weights(log_weights.detach(), torch.ones_like(sizes)))
        ess = torch.where(sizes > 0, ess / sizes, 0.0).sum() / (sizes > 0).sum()
        if config.objective == "gan":
            order = torch.ones_like(rewards[0])
            log_z = log_partition(log_weights, order).detach()
            logits = gan_logits(rewards, batch["log_own"], log_z)
            loss = gan_loss(logits, there)
        else:
            order = sound_order(log_weights.detach(), config.ess_floor)
            loss = -gcl_objective(rewards.chunk(2)[0], there.chunk(2)[0], log_weights, order)
        loss = loss + config.output_l2 * per_step.square().sum(1).mean()
        demo, own = per_step.sum(1).chunk(2)
        return loss, {
            "gcl/loss": loss,
            "gcl/demo_return": demo.mean(),
            "gcl/own_return": own.mean(),
            "gcl/ess": ess,
            "gcl/order": order.mean(),
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
        self.engine.step(batch | {"inputs": self._standardise(rows)})

    def _warn(self, metrics: Metrics, samples: int) -> None:
        """Say, once, that the weights collapsed."""
        if self._warned or float(metrics["gcl/order"]) > COLLAPSED:
            return
        self._warned = True
        logger.warning(
            "the importance weights rest on few samples: the effective sample size is %.2f of %d, "
            "so that they were raised to the power of %.2f on average, which is biased; weights "
            "of fewer steps (--set weight_steps), more trajectories per iteration (batch_steps) or "
            "a smaller reward (output_l2) help",
            float(metrics["gcl/ess"]) * samples,
            samples,
            float(metrics["gcl/order"]),
        )

    # -- paying -----------------------------------------------------------------------------------

    @torch.no_grad()
    def rewards(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return r(s, a) of pairs (B, ...), actions in the policy's units. Shape (B,)."""
        rows = self.samples.rows(observations, actions)
        rewards: Tensor = self.network(self._standardise(rows))[:, 0]
        return rewards

    @torch.no_grad()
    def absorbing_rewards(self, observations: Tensor) -> Tensor:
        """Return r of staying where an episode ended; 0 as long as there was no such state.

        Args:
            observations: Terminal ones. Shape (B, *observation_shape).

        Returns:
            Shape (B,).
        """
        if not self._saw_absorbing:
            return observations.new_zeros(len(observations))
        rows = self.samples.absorbing(observations)
        rewards: Tensor = self.network(self._standardise(rows))[:, 0]
        return rewards

    def pay(self, rollout: Rollout) -> tuple[Tensor, Tensor | None, Metrics]:
        """Return what a rollout is paid.

        Returns:
            Rewards (T, N), what follows a terminal state (see `gae`), and metrics. With an
            indicator both are counted from the mean reward, which spares V an offset.
        """
        learned = self.rewards(rollout.flat(rollout.observations), rollout.flat(rollout.actions))
        rewards, ended = learned.view(rollout.rewards.shape), rollout.terminated
        self.audit.check(rewards, ended)
        metrics = {"reward/learned": rewards.mean(), "reward/absorbing": torch.zeros(())}
        if not self._indicator:
            return rewards, None, metrics
        stays = torch.zeros_like(rewards)
        stays[ended] = self.absorbing_rewards(rollout.next_observations[ended])
        if bool(ended.any()):
            metrics["reward/absorbing"] = stays[ended].mean()
        return *counted_from(rewards.mean(), rewards, stays, self.config.gamma), metrics

    def transition_rewards(
        self, observations: Tensor, actions: Tensor, following: Tensor, terminated: Tensor
    ) -> Tensor:
        """Return r(s, a), and for a terminal step also what staying after it is worth. (B,).

        Both are counted from the mean reward of demonstrated ends: to end like them is worth
        nothing more.
        """
        rewards = self.rewards(observations, actions)
        if not self._indicator:
            return rewards
        gamma, stays = self.config.gamma, self.absorbing_rewards(following)
        paid, after_end = counted_from(self._origin, rewards, stays, gamma)
        return paid + gamma * torch.where(terminated, after_end, 0.0)

    @property
    def _origin(self) -> Tensor:
        """Mean reward of staying at demonstrated ends; 0 without any. A scalar."""
        if not len(self._ends):
            return torch.zeros((), device=self.device)
        return self.absorbing_rewards(self._ends).mean()

    # -- state ------------------------------------------------------------------------------------

    def reward_state(self) -> dict[str, Tensor]:
        """Return what `transition_rewards` depends on."""
        weights = {f"r.{name}": value.clone() for name, value in self.network.state_dict().items()}
        return weights | {
            "mean": self._mean.clone(),
            "std": self._std.clone(),
            "absorbing": torch.tensor(self._saw_absorbing),
            "ends": self._ends.clone(),
        }

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        weights = {n.removeprefix("r."): v for n, v in state.items() if n.startswith("r.")}
        self.network.load_state_dict(weights)
        self._mean, self._std = state["mean"].to(self._mean), state["std"].to(self._std)
        self._saw_absorbing = bool(state["absorbing"])
        self._ends = state["ends"].to(self._ends)

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
        demo_fields=frozenset({"next_observations", "terminated"}),
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
        rewards, after_end, paid = self.trajectories.pay(rollout)
        metrics |= paid | self.learner.improve(rollout, rewards, terminal_values=after_end)
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
        """Return r(s, a) and, for terminal steps, what follows; see the base class."""
        seen, done = self.learner.actor.tensors(observations, actions)
        following, _ = self.learner.actor.tensors(next_observations, actions)
        ends = torch.as_tensor(terminated, device=seen.device)
        rewards = self.trajectories.transition_rewards(seen, done, following, ends)
        paid: np.ndarray = rewards.double().cpu().numpy()
        return paid

    def reward_state(self) -> dict[str, Tensor]:
        """Return r, the statistics of its inputs, and what it knows of absorbing states."""
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
