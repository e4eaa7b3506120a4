"""SIL: self-imitation learning.

Oh, Guo, Singh and Lee, "Self-Imitation Learning", ICML 2018, arXiv 1806.05635. An actor-critic also
imitates those of its own past decisions whose return G was more than the value function expects.
With (s, a, G) from a prioritised memory, importance weights w and (x)₊ = max(x, 0):

    L_π = -E[w log π_θ(a|s) sg(G - V)₊]                                        eq 2
    L_V = ½ E[w (G - V_θ(s))₊²]                                                eq 3
    L   = L_π + β_sil L_V                                                      eq 1

Each iteration (alg. 1): a rollout and the actor-critic's own update; finished episodes go to the
memory with G = Σ γ^l r; M times: a batch drawn in proportion to (G - V)₊^α, a step on L, and new
priorities. Demonstrations, where given, are in the memory from the start.

Departures from the paper; the first five are the released code's:
  * (G - V)₊ is clipped to `advantage_clip`, in both gradients (so L_V turns linear there).
  * sums are divided by the number of rows with G > V, but at least by `min_positive`.
  * the policy's entropy on those rows is rewarded; -log π is clipped where it is reported, not
    where it is differentiated.
  * an episode without a positive reward is not stored (`episode_filter`).
  * both losses are stepped by one optimiser with the same moments, so that their weights count:
    with its own, each would be brought to the same size. The step size is the actor-critic's.
  * β_sil weighs ½ (G - V)₊² as printed; the code halves it once more.
  * G of a truncated episode has γ^k V at its end, in a demonstration always today's V.
  * G is kept in units of reward and divided by what the learner divides rewards by today, if it
    does: V is in those units.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

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
from rlfd.algorithms.core.a2c_learner import A2CFields, A2CLearner
from rlfd.algorithms.core.engine import Batch, Parameters
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.return_memory import ReturnMemory
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trajectories import EpisodeAssembler, demo_pieces, lambda_returns
from rlfd.algorithms.core.weighting import effective_share
from rlfd.algorithms.registry import register
from rlfd.errors import RlfdError
from rlfd.seeding import derive

__all__ = ["SIL", "SILConfig", "self_imitation_loss"]

logger = logging.getLogger("rlfd.sil")

EpisodeFilter = Literal["positive-reward", "above-median", "off"]
REFUSED = 200  # episodes refused one after the other before somebody is told

SIL_METRICS = {
    "sil/policy": "L_π over the self-imitation updates; without any 0, as the next five",
    "sil/value": "L_V over the self-imitation updates",
    "sil/advantage": "mean clipped (G - V)₊ of a batch",
    "sil/positive": "share of a batch with G > V",
    "sil/ess": "effective sample size of w (G - V)₊, as a share of a batch; 0 if all vanish",
    "sil/grad_norm": "norm of L's gradient before clipping",
    "sil/stored": "transitions in the memory",
    "sil/episodes": "own episodes in the memory",
}


@dataclass(frozen=True, kw_only=True)
class SILConfig(A2CFields, ClipFields):
    """Hyperparameters of SIL; the defaults are for `learner=a2c` (preset `ppo` for the other)."""

    readers: ClassVar[Readers] = {
        "learner": {"a2c": A2CFields.own_settings(), "ppo": ClipFields.own_settings()}
    }

    learner: Literal["a2c", "ppo"] = hyper("a2c", "whose updates self-imitation is added to")
    sil_updates: int = hyper(4, "M, self-imitation updates per iteration", low=0)
    batch_size: int = hyper(512, "transitions per self-imitation update", low=1)
    sil_weight: float = hyper(1.0, "weight of the whole self-imitation loss", low=0)
    sil_value_weight: float = hyper(0.01, "β_sil, weight of L_V", low=0)
    sil_entropy_weight: float = hyper(0.01, "weight of the entropy where G > V", low=0)
    buffer_size: int = hyper(100_000, "transitions kept, first in first out", low=1)
    min_stored: int = hyper(100, "transitions stored before the first such update", low=1)
    priority_alpha: float = hyper(0.6, "α, exponent of the priorities; 0 = uniform", low=0)
    priority_beta: float = hyper(0.1, "β_is, exponent of the importance weights", low=0, high=1)
    advantage_clip: float = hyper(1.0, "(G - V)₊ is clipped to this; 0 = never", low=0)
    nll_clip: float = hyper(5.0, "-log π is clipped to this where L_π is reported", above=0)
    min_positive: int = hyper(64, "sums are divided by at least this", low=1)
    episode_filter: EpisodeFilter = hyper(
        "positive-reward", "own episodes to store: by a reward, or a return of the better half's"
    )
    sil_reward_clip: bool = hyper(False, "G sums the rewards' signs, as a learner on Atari does")
    keep_demos: bool = hyper(False, "demonstrations are never evicted")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_stored > self.buffer_size:
            raise RlfdError(
                f"min_stored is {self.min_stored}, more than the buffer_size of "
                f"{self.buffer_size}: there would never be an update",
                "enlarge buffer_size, or lower min_stored",
            )


def self_imitation_loss(
    log_probs: Tensor,
    values: Tensor,
    entropies: Tensor,
    returns: Tensor,
    weights: Tensor,
    *,
    value_weight: float,
    entropy_weight: float,
    advantage_clip: float,
    nll_clip: float,
    min_positive: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return L, its parts, and the priorities that follow from it.

    Args:
        log_probs: log π(a|s). Shape (B,), as all others.
        values: V(s).
        entropies: H(π(·|s)).
        returns: G, constants.
        weights: w, constants.
        value_weight: β_sil.
        entropy_weight: Of the entropy where G > V.
        advantage_clip: c of clip(G - V, 0, c); 0 = no bound.
        nll_clip: Bound of -log π in the value of L_π.
        min_positive: Least number that sums are divided by.
    """
    limit = advantage_clip if advantage_clip > 0 else float("inf")
    gaps = (returns - values).clamp(min=0.0)  # (G - V)₊
    advantages = gaps.detach().clamp(max=limit)
    positive = (gaps.detach() > 0).to(gaps.dtype)
    count = positive.sum().clamp(min=float(min_positive))
    nll = -log_probs
    nll = (nll.clamp(max=nll_clip) - nll).detach() + nll
    policy_loss = (weights * advantages * nll).sum() / count  # eq 2
    # ½ x² up to c, from there on a line: the gradient is the clipped advantage's
    errors = advantages * (gaps - 0.5 * advantages)
    value_loss = (weights * errors).sum() / count  # eq 3
    entropy = (weights * positive * entropies).sum() / count
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy  # eq 1
    return loss, {
        "sil/policy": policy_loss,
        "sil/value": value_loss,
        "sil/advantage": advantages.mean(),
        "sil/positive": positive.mean(),
        "sil/ess": effective_share(weights * advantages),
        "priorities": advantages,
    }


@register
class SIL(Algorithm):
    """Self-imitation learning on A2C or PPO."""

    name = "sil"
    title = "Self-Imitation Learning (Oh et al., 2018)"
    summary = "A2C or PPO that also imitates its own best decisions, and demonstrated ones if given"
    Config = SILConfig
    needs = Needs(
        demonstrations=False,
        optional_demonstrations=True,
        reward=True,
        interaction=True,
        demo_fields=frozenset({"next_observations", "rewards", "terminated"}),
        action_kinds=frozenset({"discrete", "continuous", "multi_discrete", "multi_binary"}),
    )
    policies: ClassVar[tuple[PolicyMode, ...]] = ("greedy", "sampled")
    metric_definitions: Mapping[str, str] = {**A2CLearner.metric_definitions, **SIL_METRICS}

    learner: A2CLearner | PPOLearner

    def __init__(self, problem: Problem, config: SILConfig) -> None:
        self.config, self.problem = config, problem
        make = A2CLearner if config.learner == "a2c" else PPOLearner
        self.learner = make(problem, config)
        self.engine = self.learner.engine.sibling(self._loss, norm_name="sil/grad_norm")
        self.metric_definitions = self.learner.metric_definitions | SIL_METRICS
        self.generator = torch.Generator(device=problem.device)
        self.generator.manual_seed(derive(problem.seed, "self-imitation"))
        self.assembler = EpisodeAssembler(whole=True)
        discrete, continuous = (problem.action.kind == k for k in ("discrete", "continuous"))
        self.memory = ReturnMemory(
            config.buffer_size,
            observation_shape=problem.observation_shape,
            action_shape=() if discrete else (problem.action.width,),
            action_dtype=torch.get_default_dtype() if continuous else torch.int64,
            alpha=config.priority_alpha,
            device=problem.device,
        )
        self.episodes: list[tuple[int, float]] = []  # own ones in the memory: length and return
        self.refused = 0  # own episodes since the last stored one
        self.demos: _Demonstrated | None = None
        if problem.demonstrations is not None:
            self._store_demonstrations(problem.demonstrations)

    # -- alg. 1 -----------------------------------------------------------------------------------

    def iteration(self, world: World) -> Metrics:
        """Act and update the actor-critic, store finished episodes, then imitate M times."""
        config = self.config
        rollout = self.learner.collect(world)
        metrics = self.learner.improve(rollout, rollout.rewards)
        if config.sil_updates > 0:
            self._store_finished(rollout)
            self._refresh_demonstrations()
            if len(self.memory) >= config.min_stored:
                for _ in range(config.sil_updates):
                    self._imitate()
        self.updates = self.learner.engine.count + self.engine.count
        return metrics | self._metrics()

    def _imitate(self) -> None:
        """Make one update on a batch from the memory, then refresh the batch's priorities."""
        config = self.config
        batch = self.memory.sample(config.batch_size, config.priority_beta, self.generator)
        outputs = self.engine.step(
            {
                "inputs": self.learner.actor.network.standardise(batch["observations"]),
                "actions": batch["actions"],
                "returns": batch["returns"] / self._reward_unit,
                "weights": batch["weights"],
            }
        )
        self.memory.set_priorities(batch["slots"], outputs["priorities"])  # (G - V)₊ before it

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, distribution = self.config, self.learner.actor.distribution
        outputs, values = functional_call(self.learner.networks, parameters, (batch["inputs"],))
        log_std = parameters["policy.log_std"]
        loss, parts = self_imitation_loss(
            distribution.log_prob(outputs, log_std, batch["actions"]),
            values,
            distribution.entropy(outputs, log_std),
            batch["returns"],
            batch["weights"],
            value_weight=config.sil_value_weight,
            entropy_weight=config.sil_entropy_weight,
            advantage_clip=config.advantage_clip,
            nll_clip=config.nll_clip,
            min_positive=config.min_positive,
        )
        return config.sil_weight * loss, parts

    def _metrics(self) -> Metrics:
        metrics = dict.fromkeys(SIL_METRICS, torch.zeros(())) | self.engine.drain()
        metrics["sil/stored"] = torch.tensor(float(len(self.memory)))
        metrics["sil/episodes"] = torch.tensor(float(len(self.episodes)))
        return metrics

    # -- returns ----------------------------------------------------------------------------------

    @property
    def _reward_unit(self) -> Tensor:
        """What the learner divides rewards by now; 1 if it does not. A scalar."""
        return self.learner.scaler.std.to(torch.get_default_dtype())

    @torch.no_grad()
    def _values(self, observations: Tensor) -> Tensor:
        """V in units of reward. Shape (B, *observation_shape) -> (B,)."""
        inputs = self.learner.actor.network.standardise(observations)
        values: Tensor = self.learner.networks.value(inputs)
        return values * self._reward_unit

    def _returns(self, pieces: Batch, after: Tensor) -> Tensor:
        """G (M,) of whole episodes; `after` (E,) is the value of what follows a truncation."""
        if self.config.sil_reward_clip:
            pieces = pieces | {"rewards": pieces["rewards"].sign()}
        zeros = torch.zeros_like(pieces["rewards"])
        return lambda_returns(pieces, zeros, after, gamma=self.config.gamma, lam=1.0)

    # -- what is stored ---------------------------------------------------------------------------

    def _store_finished(self, rollout: Rollout) -> None:
        """Store the episodes that ended in a rollout, if they pass the filter."""
        finished = self.assembler.add(rollout)
        if finished is None:
            return
        returns = self._returns(
            finished, self._values(finished["next_observations"][finished["ended"]])
        )
        first = 0
        for end in finished["ended"].nonzero()[:, 0].tolist():
            rows = slice(first, end + 1)
            first = end + 1
            rewards = finished["rewards"][rows]
            if not self._passes(rewards):
                self.refused += 1
                self._tell_about_refused()
                continue
            self.refused = 0
            self.memory.add(
                {
                    "observations": finished["observations"][rows],
                    "actions": finished["actions"][rows],
                    "returns": returns[rows],
                }
            )
            self.episodes.append((len(rewards), float(rewards.sum())))
            self._forget_evicted()

    def _passes(self, rewards: Tensor) -> bool:
        """Whether an own episode with these rewards is to be stored."""
        if self.config.episode_filter == "positive-reward":
            return bool((rewards > 0).any())
        if self.config.episode_filter == "above-median" and self.episodes:
            return float(rewards.sum()) >= float(np.median([total for _, total in self.episodes]))
        return True

    def _forget_evicted(self) -> None:
        """Drop the episodes of which nothing is stored any more."""
        room = self.memory.capacity - self.memory.kept
        held = sum(length for length, _ in self.episodes)
        while held - self.episodes[0][0] >= room:
            held -= self.episodes.pop(0)[0]

    def _tell_about_refused(self) -> None:
        if self.refused == REFUSED and self.config.episode_filter == "positive-reward":
            logger.warning(
                "none of the last %d episodes had a positive reward, so self-imitation stored none "
                "of them: where rewards are costs, set episode_filter=above-median or off",
                REFUSED,
            )

    # -- demonstrations ---------------------------------------------------------------------------

    def _store_demonstrations(self, demos: DemoTensors) -> None:
        """Put demonstrations into the empty memory, whatever the filter of own episodes."""
        config, device = self.config, self.problem.device
        room = config.buffer_size - 1 if config.keep_demos else config.buffer_size
        if demos.num_transitions > room:
            raise RlfdError(
                f"the demonstrations have {demos.num_transitions:,} transitions, "
                f"expected at most {room:,} with buffer_size={config.buffer_size}",
                "set a larger buffer_size, or take fewer with --num-demos",
            )
        actions = self.learner.actor.distribution.encode(demos.actions)
        pieces = demo_pieces(demos, actions)
        pieces = {name: value.to(device) for name, value in pieces.items()}
        ends = pieces["ended"]
        nothing = torch.zeros(int(ends.sum()), device=device)
        returns = self._returns(pieces, nothing)
        rows = {name: pieces[name] for name in ("observations", "actions")} | {"returns": returns}
        if config.keep_demos:
            self.memory.keep(rows)
        else:
            self.memory.add(rows)
        # G is linear in V(s_T), so γ^k is what a reward-free episode would have with V(s_T) = 1
        factors = self._returns(
            pieces | {"rewards": torch.zeros_like(returns)}, torch.ones_like(nothing)
        )
        cut = (factors > 0).nonzero()[:, 0]
        if len(cut):
            self.demos = _Demonstrated(
                slots=cut,
                returns=returns[cut],
                factors=factors[cut],
                episodes=(ends.cumsum(0) - ends.long())[cut],
                last_observations=pieces["next_observations"][ends],
            )

    def _refresh_demonstrations(self) -> None:
        """Give truncated demonstrations that are still stored today's V at their ends."""
        demos = self.demos
        if demos is None:
            return
        values = self._values(demos.last_observations)
        returns = demos.returns + demos.factors * values[demos.episodes]
        # slots are written over in turn, from the first one
        gone = 0 if self.config.keep_demos else self.memory.added - self.memory.capacity
        still = demos.slots >= gone
        self.memory.set_returns(demos.slots[still], returns[still])

    # -- acting and state -------------------------------------------------------------------------

    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Return the policy's most likely actions, or samples."""
        return self.learner.actor.act(observations, greedy=greedy, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on."""
        return super().state_dict() | {
            "imitation": self.engine.state_dict(),
            "memory": self.memory.state_dict(),
            "assembler": self.assembler.state_dict(),
            "generator": self.generator.get_state(),
            "episodes": [list(episode) for episode in self.episodes],
            "refused": self.refused,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.engine.load_state_dict(state["imitation"])
        self.memory.load_state_dict(state["memory"])
        self.assembler.load_state_dict(state["assembler"], self.problem.device)
        self.generator.set_state(state["generator"])
        self.episodes = [(int(length), float(total)) for length, total in state["episodes"]]
        self.refused = int(state["refused"])


@dataclass(frozen=True, slots=True)
class _Demonstrated:
    """Demonstrated transitions whose episode was truncated: G = returns + factors · V(s_T).

    Attributes:
        slots: Where they are in the memory. Shape (C,), as the next three.
        returns: Σ γ^l r up to the truncation.
        factors: γ^k, k steps to the truncation.
        episodes: Rows of `last_observations`.
        last_observations: s_T of every demonstration. Shape (E, *observation_shape).
    """

    slots: Tensor
    returns: Tensor
    factors: Tensor
    episodes: Tensor
    last_observations: Tensor
