"""AIRL: adversarial inverse reinforcement learning.

Fu, Luo and Levine, "Learning Robust Rewards with Adversarial Inverse Reinforcement Learning",
ICLR 2018, arXiv 1710.11248.

    f(s, a, s') = g(s[, a]) + γ h(s') - h(s)                                             (eq 4)
    D = exp f / (exp f + π(a|s)) = sigmoid(f - log π(a|s))
    max_D  E_demo[log D] + E_π[log(1 - D)],    π is paid log D - log(1 - D) = f - log π

At the optimum f is log π_E, the demonstrator's soft advantage; where g depends on the state alone
and the dynamics are deterministic, g is its reward up to a constant. So g can be learned on again
elsewhere (`--reward-from`), which a discriminator of states and actions cannot: what it learned is
an advantage, and belongs to the dynamics that it was learned with.

Departures from the paper:
  * the step of the policy may be PPO's (`learner=ppo`) instead of TRPO's.
  * π may be paid f or g and an entropy bonus instead of f - log π (`reward_form`).
  * log π is clipped, for actions that the policy hardly ever takes; of continuous actions it is
    that of what is executed, which f sees: draws beyond a bound are the bound.
  * inputs are standardised by statistics of both sides together; gradient penalty and entropy of D,
    and an absorbing state after termination, are settings. Without the latter h(s') is 0 there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
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
    EpisodeAges,
    HorizonAudit,
    check_discount,
    counted_from,
    episode_steps,
    stays_after,
)
from rlfd.algorithms.core.discriminator import (
    ClassifierFields,
    classification_metrics,
    coin_entropy,
    discrimination_loss,
    gradient_penalty,
)
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import cycled
from rlfd.algorithms.core.networks import Activation, mlp
from rlfd.algorithms.core.on_policy import Actor
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.policy_learner import LEARNERS, PolicyLearner, make_policy_learner
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.timing import timed
from rlfd.algorithms.core.trajectories import moved
from rlfd.algorithms.core.transition_rows import TransitionRows
from rlfd.algorithms.core.trpo_learner import TrustRegionFields
from rlfd.algorithms.registry import register
from rlfd.seeding import derive

__all__ = ["AIRL", "AIRLConfig", "ShapedDiscriminator", "ShapedReward"]


@dataclass(frozen=True, kw_only=True)
class AIRLConfig(ClassifierFields, TrustRegionFields, ClipFields):
    """Hyperparameters of AIRL."""

    readers: ClassVar[Readers] = {
        "learner": LEARNERS,
        "reward_on": {"state-action": ("d_gradient_penalty",), "state": ()},
    }

    learner: Literal["trpo", "ppo"] = hyper("ppo", "who improves the policy")
    # what a state-only g makes of actions it sees in s' - s alone (docs/algorithms/airl.md)
    reward_on: Literal["state", "state-action"] = hyper(
        "state-action", "what g depends on; of states alone it can be learned on elsewhere"
    )
    reward_form: Literal["airl", "f", "g"] = hyper(
        "airl", "π is paid f - log π, or f or g (with an entropy_weight)"
    )
    absorbing: Literal["off", "indicator"] = hyper(
        "indicator", "after a terminal transition: nothing, or a learned reward for ever"
    )
    log_prob_clip: float = hyper(20.0, "log π is clipped to ± this, nats", above=0)
    gamma: float = hyper(0.99, "γ, discount per env step", low=0, high=1)
    gae_lambda: float = hyper(0.95, "λ of the advantage estimates", low=0, high=1)
    normalise_rewards: bool = hyper(
        True, "divide rewards by the running std of the discounted return"
    )
    d_steps: int = hyper(50, "Adam steps of D per iteration", low=1)
    d_learning_rate: float = hyper(1e-3, "Adam's step size for g and h", above=0)
    d_entropy_weight: float = hyper(0.0, "c, weight of the entropy of D", low=0)
    d_gradient_penalty: float = hyper(
        1.0, "weight of the gradient penalty on f (reward_on=state-action)", low=0
    )
    d_hidden: tuple[int, ...] = hyper((32, 32), "widths of the hidden layers of g and h", low=1)
    d_activation: Activation = hyper("relu", "what follows each of their hidden layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


class ShapedReward(nn.Module):
    """f(s, a, s') = g(s[, a]) + γ (1 - d) h(s') - h(s), of rows (s, a, s').

    Args:
        states: Numbers in a state.
        features: Numbers in an action.
        on_actions: Whether g depends on the action, too.
        gamma: γ.
        hidden: Widths of the hidden layers of both networks.
        activation: What follows each.
        generator: Source of the initial weights.
        device: Where they live.
    """

    def __init__(
        self,
        states: int,
        features: int,
        *,
        on_actions: bool,
        gamma: float,
        hidden: tuple[int, ...],
        activation: Activation,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.states, self.gamma = states, gamma
        self.inputs = states + (features if on_actions else 0)
        self.g, self.h = (
            mlp(
                [inputs, *hidden, 1],
                layer_norm=False,
                activation=activation,
                generator=generator,
                device=device,
            )
            for inputs in (self.inputs, states)
        )

    def reward(self, rows: Tensor) -> Tensor:
        """Return g. Shapes (B, W) -> (B,)."""
        reward: Tensor = self.g(rows[:, : self.inputs])[:, 0]
        return reward

    def potential(self, states: Tensor) -> Tensor:
        """Return h. Shapes (B, states) -> (B,)."""
        potential: Tensor = self.h(states)[:, 0]
        return potential

    def forward(self, rows: Tensor, alive: Tensor) -> Tensor:
        """Return f.

        Args:
            rows: Shape (B, W).
            alive: 1 - d, 0 where nothing follows. Shape (B,).

        Returns:
            Shape (B,).
        """
        before, after = rows[:, : self.states], rows[:, -self.states :]
        shaping = self.gamma * alive * self.potential(after) - self.potential(before)
        return self.reward(rows) + shaping  # eq 4


class ShapedDiscriminator:
    """D = sigmoid(f - log π): networks, engine, input statistics and demonstrations.

    With absorbing=indicator terminal transitions lead to the terminal observation, marked, and stay
    there. log π is a constant of the learner's *current* policy, 0 where nothing is done.

    Args:
        problem: With demonstrations that have next observations and `terminated`.
        config: Hyperparameters.
        actor: Whose log π counts.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "discriminator/loss": "L_D, with entropy and penalty terms",
        "discriminator/accuracy_demo": "share of demonstrated transitions with D > 1/2",
        "discriminator/accuracy_own": "share of own transitions with D < 1/2",
        "discriminator/logit_demo": "mean of f - log π over demonstrated transitions",
        "discriminator/logit_own": "mean of f - log π over own transitions",
        "discriminator/saturation": "share of all transitions with D < 0.01 or D > 0.99",
        "discriminator/gradient_penalty": "E[(‖∇f‖ - 1)²]; 0 where its weight is 0",
        "discriminator/grad_norm": "norm of the gradient of L_D",
        "discriminator/log_prob_demo": "mean log π of demonstrated actions, clipped, nats",
        "reward/g": "mean of g over own steps",
        "reward/learned": "mean of what the learner is paid per step",
        "reward/absorbing": "mean learned reward per step of own absorbing states; 0 without any",
    }

    def __init__(self, problem: Problem, config: AIRLConfig, actor: Actor) -> None:
        demos = problem.demonstrations
        assert demos is not None
        assert demos.next_observations is not None
        assert demos.terminated is not None
        self.config, self.actor, self.device = config, actor, problem.device
        self.generator = torch.Generator().manual_seed(derive(problem.seed, "discriminator"))
        self._indicator = config.absorbing == "indicator"
        # of states alone f sees actions in s' - s, too small a change for a bounded slope
        self._penalised = config.reward_on == "state-action" and config.d_gradient_penalty > 0.0
        self.rows = TransitionRows(
            problem.observation_shape,
            actor.distribution,
            indicator=self._indicator,
            device=self.device,
        )
        self.network = ShapedReward(
            self.rows.states,
            self.rows.features,
            on_actions=config.reward_on == "state-action",
            gamma=config.gamma,
            hidden=config.d_hidden,
            activation=config.d_activation,
            generator=torch.Generator(device=self.device).manual_seed(
                derive(problem.seed, "discriminator weights")
            ),
            device=self.device,
        )
        rounds = -(-problem.env_steps // config.batch_steps)
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            Adam(config.d_learning_rate, planned_updates=max(1, rounds * config.d_steps)),
            compile=problem.compile,
            norm_name="discriminator/grad_norm",
        )
        self.audit = HorizonAudit(config.absorbing)
        self._saw_absorbing = False
        self._demos: Batch = {
            "observations": demos.observations.to(torch.get_default_dtype()),
            "actions": actor.distribution.encode(demos.actions),
            "next_observations": demos.next_observations.to(torch.get_default_dtype()),
            "terminated": demos.terminated,
            "ages": episode_steps(demos.episode_ids),
        }
        self._demos = {name: value.to(self.device) for name, value in self._demos.items()}
        self._ends = self._demos["next_observations"][self._demos["terminated"]]
        self._ages = EpisodeAges(problem.num_envs, problem.device)
        self._past: deque[Batch] = deque(maxlen=config.d_rollouts - 1)

    # -- what the networks see --------------------------------------------------------------------

    @torch.no_grad()
    def log_probs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a|s) of the current policy, clipped, a constant. Shape (B,)."""
        network, limit = self.actor.network, self.config.log_prob_clip
        # f sees what is executed, so this is the density of that
        log_probs = self.actor.distribution.executed_log_prob(
            network(observations), network.log_std, actions
        )
        return log_probs.clamp(-limit, limit)

    def _rows_of(self, transitions: Batch) -> Tensor:
        names = ("observations", "actions", "next_observations", "terminated")
        return self.rows(*(transitions[name] for name in names))

    def _table(self, transitions: Batch) -> Batch:
        """Return rows, 1 - d and log π of transitions, and of the stays that follow them."""
        rows, terminated = self._rows_of(transitions), transitions["terminated"]
        alive = torch.ones_like(rows[:, 0])
        table = {
            "rows": rows,
            "alive": alive,
            "log_probs": self.log_probs(transitions["observations"], transitions["actions"]),
        }
        if not self._indicator:
            return table | {"alive": alive - terminated.to(alive.dtype)}
        counts = stays_after(terminated, transitions["ages"], gamma=self.config.gamma)[terminated]
        last = self.rows.absorbing(transitions["next_observations"][terminated])
        rows = last.repeat_interleave(counts, dim=0)
        stays = {
            "rows": rows,
            "alive": alive.new_ones(len(rows)),
            "log_probs": alive.new_zeros(len(rows)),
        }
        return {name: torch.cat([value, stays[name]]) for name, value in table.items()}

    # -- learning ---------------------------------------------------------------------------------

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config

        def f(rows: Tensor, alive: Tensor) -> Tensor:
            values: Tensor = functional_call(self.network, parameters, (rows, alive))
            return values

        rows, alive = batch["rows"], batch["alive"]
        logits = f(rows, alive) - batch["log_probs"]
        demo_logits, own_logits = logits.chunk(2)
        loss = discrimination_loss(demo_logits, own_logits)
        loss = loss - config.d_entropy_weight * coin_entropy(logits).mean()
        penalty = torch.zeros_like(loss)
        if self._penalised:
            demo, own = rows.chunk(2)
            between = torch.lerp(own, demo, batch["mix"])
            living = torch.ones_like(between[:, 0])
            slopes = torch.func.grad(lambda inputs: f(inputs, living).sum())(between)
            penalty = gradient_penalty(slopes * batch["compared"], batch["alike"])
            loss = loss + config.d_gradient_penalty * penalty
        return loss, {
            "discriminator/loss": loss,
            **classification_metrics(demo_logits, own_logits),
            "discriminator/gradient_penalty": penalty,
        }

    def learn(self, rollout: Rollout) -> Metrics:
        """Train D on this rollout, and the ones before it that are remembered."""
        newest = _transitions(rollout) | {"ages": rollout.flat(self._ages(rollout.ended))}
        parts = [*self._past, newest]
        # log π anew for all: it is the current policy's
        own = self._table({name: torch.cat([part[name] for part in parts]) for name in newest})
        demo = self._table(self._demos)
        self._past.append(newest)
        log_prob = demo["log_probs"][: len(self._demos["actions"])].mean()  # not of stays
        count, size = self.config.d_steps, self.config.d_batch_size
        own, demo = (self._drawn(table, count * size) for table in (own, demo))
        self.rows.observe(torch.cat([own["rows"], demo["rows"]]))
        for start in range(0, count * size, size):
            self.step(
                *({n: v[start : start + size] for n, v in side.items()} for side in (own, demo))
            )
        return self.engine.drain() | {"discriminator/log_prob_demo": log_prob}

    @timed("sample")
    def _drawn(self, table: Batch, count: int) -> Batch:
        order = cycled(len(table["alive"]), count, self.generator).to(self.device)
        return {name: value[order] for name, value in table.items()}

    def step(self, own: Batch, demo: Batch) -> None:
        """Make one Adam step on L_D; both sides as tables of B rows."""
        batch = {name: torch.cat([demo[name], own[name]]) for name in own}
        if self._indicator and not self._saw_absorbing:
            self._saw_absorbing = bool(self.rows.marks(batch["rows"])[0].any())
        if self._penalised:
            shape = (len(own["alive"]), 1)
            batch["mix"] = torch.rand(shape, generator=self.generator).to(self.device)
            batch |= self.rows.comparable(batch["rows"])
        batch["rows"] = self.rows.standardise(batch["rows"])
        self.engine.step(batch)

    # -- paying -----------------------------------------------------------------------------------

    @torch.no_grad()
    def pay(self, rollout: Rollout) -> tuple[Tensor, Tensor | None, Metrics]:
        """Return what D, as it is now, pays a rollout.

        Returns:
            Rewards (T, N), what follows a terminal state (see `gae`), and metrics. With an
            indicator the former count from their mean, and so does the latter.
        """
        transitions, form = _transitions(rollout), self.config.reward_form
        ended = rollout.terminated
        inputs = self.rows.standardise(self._rows_of(transitions))
        g = self.network.reward(inputs)
        paid = g
        if form != "g":
            alive = torch.ones_like(g)
            if not self._indicator:
                alive = alive - transitions["terminated"].to(g.dtype)
            paid = self.network(inputs, alive)
        if form == "airl":  # log D - log(1 - D)
            paid = paid - self.log_probs(transitions["observations"], transitions["actions"])
        rewards = paid.view(rollout.rewards.shape)
        self.audit.check(rewards, ended)
        metrics = {
            "reward/g": g.mean(),
            "reward/learned": rewards.mean(),
            "reward/absorbing": torch.zeros_like(rewards[0, 0]),
        }
        if not self._indicator:
            return rewards, None, metrics
        last = self.absorbing_rewards(rollout.next_observations[ended], shaped=form != "g")
        absorbing = torch.zeros_like(rewards)
        absorbing[ended] = last
        if len(last) > 0:
            metrics["reward/absorbing"] = last.mean()
        gamma = self.config.gamma
        return *counted_from(rewards.mean(), rewards, absorbing, gamma), metrics

    @torch.no_grad()
    def absorbing_rewards(self, observations: Tensor, *, shaped: bool) -> Tensor:
        """Return g or f of staying where an episode ended; 0 as long as D never saw such a state.

        Args:
            observations: Terminal ones. Shape (B, *observation_shape).
            shaped: f instead of g.

        Returns:
            Shape (B,).
        """
        rows = self.rows.standardise(self.rows.absorbing(observations))
        if not self._saw_absorbing:
            return torch.zeros_like(rows[:, 0])
        if not shaped:
            return self.network.reward(rows)
        values: Tensor = self.network(rows, torch.ones_like(rows[:, 0]))
        return values

    @torch.no_grad()
    def rewards(self, transitions: Batch) -> Tensor:
        """Return g, and for a terminal step also what all stays after it are worth. Shape (B,).

        Both are counted from the mean g of demonstrated ends: to end like them is worth nothing
        more, any other end what it is better or worse for ever.
        """
        g = self.network.reward(self.rows.standardise(self._rows_of(transitions)))
        if not self._indicator:
            return g
        last = self.absorbing_rewards(transitions["next_observations"], shaped=False)
        gamma = self.config.gamma
        paid, after_end = counted_from(self._origin(), g, last, gamma)
        return paid + gamma * torch.where(transitions["terminated"], after_end, 0.0)

    def _origin(self) -> Tensor:
        """The mean g of demonstrated ends; 0 if there are none."""
        ends = self._ends
        if len(ends) == 0:
            return torch.zeros((), device=self.device)
        return self.absorbing_rewards(ends, shaped=False).mean()

    # -- state ------------------------------------------------------------------------------------

    def reward_state(self) -> dict[str, Tensor]:
        """Return what `rewards` depends on."""
        weights = {
            f"g.{name}": value.clone() for name, value in self.network.g.state_dict().items()
        }
        return weights | {
            "mean": self.rows.mean.clone(),
            "std": self.rows.std.clone(),
            "absorbing": torch.tensor(self._saw_absorbing),
            "ends": self._ends.clone(),
        }

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        weights = {n.removeprefix("g."): v for n, v in state.items() if n.startswith("g.")}
        self.network.g.load_state_dict(weights)
        rows = self.rows
        rows.mean, rows.std = state["mean"].to(rows.mean), state["std"].to(rows.std)
        self._saw_absorbing = bool(state["absorbing"])
        self._ends = state["ends"].to(self._ends)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next rollout's reward depends on."""
        return {
            "engine": self.engine.state_dict(),
            "moments": self.rows.state_dict(),
            "generator": self.generator.get_state(),
            "saw_absorbing": self._saw_absorbing,
            "ages": self._ages.state_dict(),
            "past": {str(index): dict(part) for index, part in enumerate(self._past)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self.rows.load_state_dict(state["moments"])
        self.generator.set_state(state["generator"])
        self._saw_absorbing = bool(state["saw_absorbing"])
        self._ages.load_state_dict(state["ages"])
        past = state["past"]
        self._past.clear()
        self._past.extend(moved(past[str(index)], self.device) for index in range(len(past)))


def _transitions(rollout: Rollout) -> Batch:
    names = ("observations", "actions", "next_observations", "terminated")
    return {name: rollout.flat(getattr(rollout, name)) for name in names}


@register
class AIRL(Algorithm):
    """Adversarial inverse reinforcement learning."""

    name = "airl"
    title = (
        "Learning Robust Rewards with Adversarial Inverse Reinforcement Learning (Fu et al., 2018)"
    )
    summary = "adversarial imitation that recovers a reward which others can be trained on"
    Config = AIRLConfig
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
        **ShapedDiscriminator.metric_definitions,
    }
    recovers_reward = True

    learner: PolicyLearner

    def __init__(self, problem: Problem, config: AIRLConfig) -> None:
        self.config = config
        self.learner = make_policy_learner(config.learner, problem, config)
        self.discriminator = ShapedDiscriminator(problem, config, self.learner.actor)
        self.metric_definitions = (
            self.learner.metric_definitions | self.discriminator.metric_definitions
        )

    def iteration(self, world: World) -> Metrics:
        """Make one pass of Alg. 1's loop; the world's reward is not read."""
        rollout = self.learner.collect(world)  # Alg. 1, line 4
        metrics = self.discriminator.learn(rollout)  # line 5
        rewards, after_end, paid = self.discriminator.pay(rollout)  # line 6
        metrics |= paid
        metrics |= self.learner.improve(rollout, rewards, terminal_values=after_end)  # line 7
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
        """Return g(s) or g(s, a) and, for terminal steps, what follows; see the base class."""
        seen, done = self.learner.actor.tensors(observations, actions)
        following, _ = self.learner.actor.tensors(next_observations, actions)
        ends = torch.as_tensor(terminated, device=seen.device)
        rewards = self.discriminator.rewards(
            {
                "observations": seen,
                "actions": done,
                "next_observations": following,
                "terminated": ends,
            }
        )
        paid: np.ndarray = rewards.double().cpu().numpy()
        return paid

    def reward_state(self) -> dict[str, Tensor]:
        """Return g, the statistics of its inputs, and what it knows of absorbing states."""
        return self.discriminator.reward_state()

    def load_reward_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `reward_state` returned."""
        self.discriminator.load_reward_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {"discriminator": self.discriminator.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.discriminator.load_state_dict(state["discriminator"])
