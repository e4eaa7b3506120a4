"""Samples of whole trajectories, the densities they were drawn with, and the demonstrations' own.

Trajectories of the last K samplers are kept and laid side by side, padded to `max_length` steps, as
the demonstrations are. Each, or each segment of it that has a weight of its own, has a log-density
under the mixture of those samplers, by their shares, and under a policy cloned from the
demonstrations (Finn et al., 2016, section 4.3: the fusion distribution). The dynamics' part of a
density is the same under all policies and left out. Densities are those of *executed* actions,
which is what the reward sees: continuous draws are clipped by the environment.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.base import Problem, hyper
from rlfd.algorithms.core.discriminator import INPUT_CLIP
from rlfd.algorithms.core.distributions import LOG_STD_RANGE
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import cycled
from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.normaliser import usable_std
from rlfd.algorithms.core.on_policy import Actor, OnPolicyConfig
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.core.trajectories import EpisodeAssembler, moved, side_by_side
from rlfd.seeding import derive

__all__ = ["SampleFields", "TrajectorySamples", "log_mixture", "segments"]

LOG_PROB_CLIP = 20.0  # of one action, nats


@dataclass(frozen=True, kw_only=True)
class SampleFields(OnPolicyConfig):
    """Hyperparameters of `TrajectorySamples`."""

    max_length: int = hyper(200, "steps after which trajectories are cut", low=1)
    weight_steps: int = hyper(
        1, "steps that have an importance weight together; 0 = the whole trajectory", low=0
    )
    absorbing: Literal["off", "indicator"] = hyper(
        "indicator", "after a terminal transition: nothing, or a learned reward for ever"
    )
    samplers: int = hyper(5, "K, iterations whose trajectories are samples, the last ones", low=1)
    clone_steps: int = hyper(500, "Adam steps of the cloned policy, at the beginning", low=1)
    clone_log_std: float = hyper(
        -2.0, "continuous actions: floor of its log-std, where the bounds are ±1", low=-5, high=2
    )


def log_mixture(log_densities: Tensor, shares: Tensor) -> Tensor:
    """Return log Σ_k α_k q_k(ζ).

    Args:
        log_densities: log q_k of each segment. Shape (..., K).
        shares: α, summing to 1. Shape (K,).

    Returns:
        Shape (...).
    """
    return torch.logsumexp(log_densities + shares.log(), dim=-1)


def segments(steps: Tensor, length: int) -> Tensor:
    """Sum over each `length` steps, the last segment perhaps being shorter. (P, L) -> (P, S)."""
    padded = F.pad(steps, (0, -steps.shape[1] % length))
    return padded.view(len(steps), -1, length).sum(2)


class TrajectorySamples:
    """Own trajectories of the last iterations and demonstrated ones, with their log-densities.

    With absorbing=indicator a trajectory that terminated stays where it ended until `max_length`:
    rows of its terminal observation, without an action, whose last entry is 1. Other padding does
    not count.

    Args:
        problem: With demonstrations, and whether they terminated.
        config: Hyperparameters, those of the sampler's network among them.
        actor: The sampler.
    """

    def __init__(self, problem: Problem, config: SampleFields, actor: Actor) -> None:
        self.config, self.actor, self.device = config, actor, problem.device
        self.generator = torch.Generator().manual_seed(derive(problem.seed, "trajectories"))
        self.indicator = config.absorbing == "indicator"
        self.plain = math.prod(problem.observation_shape) + actor.distribution.num_features
        self.width = self.plain + self.indicator
        self.segment = config.weight_steps or config.max_length
        self.assembler = EpisodeAssembler(whole=True, limit=config.max_length)
        self.pool: deque[Batch] = deque(maxlen=config.samplers)
        self.samplers: deque[PolicyNetwork] = deque(maxlen=config.samplers)
        self.demos = self._padded(self._demonstrated(problem))
        self.clone, self._cloning = self._cloner(problem)

    def add(self, rollout: Rollout) -> None:
        """Take the trajectories that this rollout completes into the pool, and their sampler."""
        if not self._cloning.count:
            self._fit_clone()
        pieces = self.assembler.add(rollout)
        if pieces is not None:
            self.samplers.append(copy.deepcopy(self.actor.network))
            self.pool.append(self._padded(pieces))

    def tables(self) -> tuple[Batch, Batch]:
        """Return demonstrated and own trajectories; the pool must not be empty."""
        own = {name: torch.cat([part[name] for part in self.pool]) for name in self.pool[0]}
        sizes = torch.tensor([float(len(part["taken"])) for part in self.pool])
        shares = (sizes / sizes.sum()).to(own["observations"])
        return self.table(self.demos, shares), self.table(own, shares)

    def _demonstrated(self, problem: Problem) -> Batch:
        """Return demonstrations as flat pieces."""
        demos = problem.demonstrations
        assert demos is not None
        assert demos.next_observations is not None
        assert demos.terminated is not None
        ids, float_type = demos.episode_ids, torch.get_default_dtype()
        pieces = {
            "observations": demos.observations.to(float_type),
            "next_observations": demos.next_observations.to(float_type),
            "actions": self.actor.distribution.encode(demos.actions),
            "terminated": demos.terminated,
            "ended": torch.cat([ids[1:] != ids[:-1], torch.ones(1, dtype=torch.bool)]),
        }
        return {name: value.to(self.device) for name, value in pieces.items()}

    def _padded(self, pieces: Batch) -> Batch:
        """Lay flat pieces side by side: (P, L, ...), with `taken` steps and `stays` at the end.

        `final` (P, ...) is what was observed after the last step, of which `stays` are.
        """
        ended, length = pieces["ended"], self.config.max_length
        names = ("observations", "actions", "terminated")
        trajectories = {n: side_by_side(pieces[n], ended, length) for n in names}
        ones = torch.ones(len(ended), dtype=torch.bool, device=ended.device)
        trajectories["taken"] = side_by_side(ones, ended, length)
        over = trajectories.pop("terminated").any(1, keepdim=True)
        trajectories["stays"] = over & ~trajectories["taken"] & self.indicator
        trajectories["final"] = pieces["next_observations"][ended]
        return trajectories

    def rows(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Join pairs (B, ...) to what the network sees, before standardisation. (B, W)."""
        features = self.actor.distribution.features(actions)
        parts = [observations.flatten(1), features]
        return torch.cat(parts + [features.new_zeros(len(features), 1)] * self.indicator, dim=1)

    def absorbing(self, observations: Tensor) -> Tensor:
        """Return the rows of staying at terminal observations (B, ...). Shape (B, W)."""
        rows = observations.new_zeros(len(observations), self.width)
        seen = observations.flatten(1)
        rows[:, : seen.shape[1]], rows[:, -1] = seen, 1.0
        return rows

    def _cloner(self, problem: Problem) -> tuple[PolicyNetwork, UpdateEngine]:
        """Return the policy that π̂_E is to be, and the engine that fits it."""
        config = self.config
        network = PolicyNetwork(
            problem.observation_shape,
            self.actor.distribution.num_outputs,
            hidden=config.hidden,
            activation=config.activation,
            log_std_start=max(config.log_std_start, config.clone_log_std),
            observation_clip=INPUT_CLIP,
            generator=torch.Generator(device=self.device).manual_seed(
                derive(problem.seed, "clone weights")
            ),
            device=self.device,
        )
        network.bounds = {"log_std": (config.clone_log_std, LOG_STD_RANGE[1])}
        seen = self.demos["observations"][self.demos["taken"]].flatten(1)
        network.mean.copy_(seen.mean(0))
        network.std.copy_(usable_std(seen.std(0, correction=0)))

        def loss(
            parameters: Parameters, _: Parameters, batch: Batch
        ) -> tuple[Tensor, dict[str, Tensor]]:
            outputs = functional_call(network, parameters, (batch["observations"],))
            log_probs = self.actor.distribution.executed_log_prob(
                outputs, parameters["log_std"], batch["actions"]
            )
            value = -log_probs.mean()
            return value, {"loss": value}

        planned = Adam(1e-3, planned_updates=config.clone_steps)
        return network, UpdateEngine(network, loss, planned, compile=problem.compile)

    def _fit_clone(self) -> None:
        """Fit π̂_E to the demonstrated pairs, by maximum likelihood."""
        taken, size = self.demos["taken"], 256
        pairs = {n: self.demos[n][taken] for n in ("observations", "actions")}
        rows, steps = len(pairs["observations"]), self.config.clone_steps
        order = cycled(rows, steps * size, self.generator).to(self.device)
        for chosen in torch.split(order, size):
            self._cloning.step({name: value[chosen] for name, value in pairs.items()})
        self._cloning.drain()

    @torch.no_grad()
    def _log_density(self, network: PolicyNetwork, trajectories: Batch) -> Tensor:
        """Return Σ_t log π(a_t|s_t) of executed actions, over each segment. Shape (P, S)."""
        outputs = network(trajectories["observations"].flatten(0, 1))
        actions = trajectories["actions"].flatten(0, 1)
        log_probs = self.actor.distribution.executed_log_prob(outputs, network.log_std, actions)
        log_probs = log_probs.clamp(-LOG_PROB_CLIP, LOG_PROB_CLIP)
        taken = trajectories["taken"]
        return segments(log_probs.view(taken.shape) * taken, self.segment)

    def table(self, trajectories: Batch, shares: Tensor) -> Batch:
        """Return rows, which of them count, and log-densities of trajectories (P, L, ...).

        Args:
            trajectories: As the pool has them.
            shares: α, of each sampler's trajectories among all. Shape (K,).

        Returns:
            `rows` (P, L, W), `counts` (P, L), `log_own` under the samplers, `log_q` under the
            equal mixture of these and the clone, both (P, S), S = 1 for whole trajectories.
        """
        taken = trajectories["taken"]
        rows = self.rows(
            trajectories["observations"].flatten(0, 1), trajectories["actions"].flatten(0, 1)
        ).view(*taken.shape, -1)
        stays = trajectories["stays"]
        if self.indicator:
            ends = self.absorbing(trajectories["final"])[:, None]
            rows = torch.where(stays[..., None], ends, rows)
        each = [self._log_density(network, trajectories) for network in self.samplers]
        own = log_mixture(torch.stack(each, dim=-1), shares)
        clone = self._log_density(self.clone, trajectories)
        half = torch.full_like(shares[:1], 0.5).expand(2)
        return {
            "rows": rows,
            "counts": (taken | stays).to(rows.dtype),
            "log_own": own,
            "log_q": log_mixture(torch.stack([own, clone], dim=-1), half),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later tables depend on."""
        return {
            "cloning": self._cloning.state_dict(),
            "generator": self.generator.get_state(),
            "assembler": self.assembler.state_dict(),
            "pool": {str(index): dict(part) for index, part in enumerate(self.pool)},
            "samplers": {
                str(index): {name: value.clone() for name, value in network.state_dict().items()}
                for index, network in enumerate(self.samplers)
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._cloning.load_state_dict(state["cloning"])
        self.generator.set_state(state["generator"])
        self.assembler.load_state_dict(state["assembler"], self.device)
        self.pool.clear()
        self.samplers.clear()
        for index in range(len(state["pool"])):
            self.pool.append(moved(state["pool"][str(index)], self.device))
            network = copy.deepcopy(self.actor.network)
            network.load_state_dict(state["samplers"][str(index)])
            self.samplers.append(network)
