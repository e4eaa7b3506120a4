"""SQIL for continuous actions: soft Q imitation learning on soft actor-critic.

Anonymous (Reddy, Dragan and Levine), "What Would π* Do?: Imitation Learning via Off-Policy
Reinforcement Learning", submitted 2018, section 5.4; conference version "SQIL", ICLR 2020, arXiv
1905.11108. The discrete case is `sqil`; the actor-critic underneath is `sac`.

    y = r_i + γ (1 - d) (min_j Q̄_j(s', a') - α log π(a'|s')),  a' ~ π(·|s')
    r_i = r for demonstrated transitions, 0 for own ones
    L_Q = mean over n demonstrated + λ_samp · mean over n own of Σ_j (Q_j(s, a) - y)²
    L_π = E[ α log π(ã|s) - min_j Q_j(s, ã) ]  over the states of both halves

The paper says that SAC was used and gives r; the rest is ours:
  * α is learned as in SAC, but kept at r / 100 at most. SAC's target for the mean entropy leaves
    some states far above it: where nothing matters any more, because a robot is stuck, a uniform
    policy earns up to α (log 2 + 1) more for each action and step than one at the target, and that
    must be small beside the r / 2 of states where demonstrations and own transitions are equally
    frequent.
  * layer normalisation in the critics. Without it, Q at demonstrated states grows far beyond
    r / (1 - γ), the most that can be earned, for actions that nobody demonstrated.
  * a demonstrated transition into a terminal state is worth r / (1 - γ) (`absorbing=value`), as in
    `sqil`; `off` is what the paper did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlfd.algorithms.base import Algorithm, Metrics, Needs, PolicyMode, Problem, World, hyper
from rlfd.algorithms.core.absorbing import AbsorbingMode, check_discount
from rlfd.algorithms.core.absorbing_rows import AbsorbingRows, in_absorbing_state
from rlfd.algorithms.core.actor_critic import td_target, twin_errors
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.replay import DemoStore
from rlfd.algorithms.registry import register
from rlfd.algorithms.rl.sac import SAC, SACConfig, SoftActorCritic
from rlfd.algorithms.sqil import demo_rewards

__all__ = ["SQILSAC", "SQILSACConfig"]


@dataclass(frozen=True, kw_only=True)
class SQILSACConfig(SACConfig):
    """Hyperparameters of SQIL on SAC."""

    reward: float = hyper(1.0, "r, reward of a demonstrated transition", above=0)
    absorbing: AbsorbingMode = hyper(
        "value",
        "a demonstrated terminal transition is worth r, or r / (1 - γ), or leads to a state of its "
        "own",
    )
    lambda_samp: float = hyper(1.0, "λ_samp, weight of the learner's own transitions", low=0)
    batch_size: int = hyper(128, "n, transitions per update from each of the two memories", low=1)
    learning_starts: int = hyper(
        1_000, "env steps with uniform actions before the first update", low=0
    )
    layer_norm: bool = hyper(True, "LayerNorm after each hidden linear layer of the critics")
    # 1 and 0.01 were compared on HalfCheetah, seed 100 (docs/algorithms/sqil-sac.md)
    max_temperature: float = hyper(0.01, "α is kept from growing beyond this; 0 = no cap", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_discount(self.absorbing, self.gamma)


class ImitatingActorCritic(SoftActorCritic):
    """SAC's networks with a loss over both halves of a batch, the demonstrated one first.

    Args:
        problem: What to learn in.
        config: Hyperparameters.
    """

    def __init__(self, problem: Problem, config: SQILSACConfig) -> None:
        self._lambda_samp = config.lambda_samp
        super().__init__(problem, config, replay={"ages": config.absorbing == "indicator"})

    def critic_loss(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_Q of batches (2n, ...)."""
        y = td_target(batch["rewards"], batch["discounts"], self.next_values(target, batch))
        q_values = self.values(parameters, batch["observations"], self.taken(batch))  # (2, 2n)
        demo_error, own_error = twin_errors(q_values, y).view(2, -1).mean(1)
        loss = demo_error + self._lambda_samp * own_error  # L_Q
        demo_q, own_q = q_values.chunk(2, dim=1)
        return loss, {
            "loss/demo": demo_error,
            "loss/own": own_error,
            "q/demo": demo_q.mean(),
            "q/own": own_q.mean(),
        }


@register
class SQILSAC(Algorithm):
    """Soft Q imitation learning on soft actor-critic."""

    name = "sqil-sac"
    title = "What Would π* Do?: Imitation Learning via Off-Policy RL (Reddy et al., 2018)"
    summary = "soft actor-critic, reward r for demonstrated and 0 for own transitions"
    Config = SQILSACConfig
    needs = Needs(
        demonstrations=True,
        reward=False,
        interaction=True,
        demo_fields=frozenset({"next_observations", "terminated"}),
        action_kinds=frozenset({"continuous"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {
        "loss/demo": "L_Q of the demonstrated half: squared errors of both critics, summed, mean",
        "loss/own": "the same for own transitions with reward 0",
        "q/demo": "mean of Q(s, a) over demonstrated transitions and both critics",
        "q/own": "mean of Q(s, a) over own transitions and both critics",
    } | {
        name: SAC.metric_definitions[name]
        for name in (
            "loss/actor",
            "policy/entropy",
            "policy/temperature",
            "optim/grad_norm",
            "optim/actor_grad_norm",
        )
    }

    learner: ImitatingActorCritic

    def __init__(self, problem: Problem, config: SQILSACConfig) -> None:
        self.config = config
        self.absorbing = None
        if config.absorbing == "indicator":
            self.absorbing = AbsorbingRows(problem, config.gamma)
            problem = self.absorbing.problem(problem)
        assert problem.demonstrations is not None
        self.learner = ImitatingActorCritic(problem, config)
        self.demos = DemoStore(problem.demonstrations, gamma=config.gamma, device=problem.device)

    def iteration(self, world: World) -> Metrics:
        """Act once in every environment, then take the updates that are due."""
        learner = self.learner
        if self.absorbing is not None:
            world = self.absorbing.world(world)
        transitions = learner.interact(world)
        learner.replay.add(transitions, torch.zeros(world.num_envs))  # whatever the world paid
        due = learner.updates_due(world.env_steps, self.updates)
        if due > 0:
            learner.update(self.batches(due))
        self.updates += due
        return learner.drain()

    def batches(self, count: int) -> list[Batch]:
        """Draw minibatches (2n, ...): half demonstrations labelled r, half own labelled 0."""
        config, generator = self.config, self.learner.generator
        halves = []
        for memory in (self.demos, self.learner.replay):
            batches = memory.sample(count, config.batch_size, generator)
            if self.absorbing is not None:
                batches = [self.absorbing.apply(batch, memory, generator) for batch in batches]
            halves.append(batches)
        return [self._join(demo, own) for demo, own in zip(*halves, strict=True)]

    def _join(self, demo: Batch, own: Batch) -> Batch:
        config = self.config
        demo["rewards"] = demo_rewards(
            demo["terminated"], config.reward, config.gamma, config.absorbing
        )
        batch = {name: torch.cat([demo[name], value]) for name, value in own.items()}
        if self.absorbing is not None:
            for name, observations in (
                ("acting", batch["observations"]),
                ("next_acting", batch["next_observations"]),
            ):
                batch[name] = (~in_absorbing_state(observations)).to(observations.dtype)
        return batch

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return samples of π, or the squashed mean."""
        if self.absorbing is not None:
            observations = self.absorbing.mark(observations)
        return self.learner.act(observations, greedy=greedy, generator=generator)
