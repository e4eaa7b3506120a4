"""The discriminator of adversarial imitation, a part that any learner can be paid by.

A network ℓ_φ(s, a) whose sigmoid D is the probability that a pair was *demonstrated*:

    L_D = -E_demo log D - E_own log(1 - D) - c E[H(D)] + λ E[(‖∇_z ℓ(ẑ)‖ - 1)²]

with H the entropy of a coin of bias D, over both sides, and ẑ on segments between demonstrated and
own pairs (Gulrajani et al., 2017). At its minimum (c = λ = 0) D = ρ_E / (ρ_E + ρ_π). The original
papers let D be the probability of the learner; that turns the sign of ℓ and nothing else.

Pairs are compared as rows (s, features of a), standardised by the mean and std of both sides
together, so that neither can be told from the other by its scale. Images are rows of bytes, scaled
to 0 to 1, and pass through convolutions first. With an indicator (`core/absorbing.py`) a last entry
marks rows of absorbing states, which have the terminal observation and no action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rlfd.algorithms.base import AlgorithmConfig, DemoTensors, Metrics, Problem, hyper
from rlfd.algorithms.core.absorbing import AbsorbingMode, absorbing_steps, episode_steps
from rlfd.algorithms.core.distributions import Distribution
from rlfd.algorithms.core.engine import Batch, Parameters, UpdateEngine
from rlfd.algorithms.core.minibatches import cycled
from rlfd.algorithms.core.networks import Activation, convolutions, convolved_size, mlp
from rlfd.algorithms.core.normaliser import RunningMoments, usable_std
from rlfd.algorithms.core.optimisers import Adam
from rlfd.algorithms.core.timing import timed
from rlfd.seeding import derive

__all__ = [
    "SATURATED",
    "ClassifierFields",
    "Discriminator",
    "DiscriminatorFields",
    "RewardForm",
    "coin_entropy",
    "discrimination_loss",
    "gradient_penalty",
    "imitation_reward",
]

RewardForm = Literal["gail", "neg", "airl", "bounded"]

INPUT_CLIP = 10.0  # of standardised rows
SATURATED = math.log(99.0)  # |ℓ| from which on D is within a hundredth of 0 or 1


def imitation_reward(logits: Tensor, form: RewardForm) -> Tensor:
    """Return what the learner is paid for pairs of the given logits ℓ.

        gail     -log(1 - D) = softplus(ℓ)      never negative: pays for staying alive
        neg      log D = -softplus(-ℓ)          never positive: pays for ending early
        airl     log D - log(1 - D) = ℓ         of both signs
        bounded  D = sigmoid(ℓ)                 never negative, at most 1

    Finite, also where D is 0 or 1 to machine precision.

    Args:
        logits: ℓ. Any shape.
        form: Which of them.

    Returns:
        Shape of `logits`.
    """
    if form == "gail":
        return -F.logsigmoid(-logits)
    if form == "neg":
        return F.logsigmoid(logits)
    return logits if form == "airl" else torch.sigmoid(logits)


def coin_entropy(logits: Tensor) -> Tensor:
    """Return H(D) = -D log D - (1 - D) log(1 - D), nats. Shape of `logits`."""
    return F.softplus(logits) - torch.sigmoid(logits) * logits


def discrimination_loss(demo_logits: Tensor, own_logits: Tensor) -> Tensor:
    """Return -E_demo log D - E_own log(1 - D), 2 log 2 for a D that knows nothing.

    Args:
        demo_logits: ℓ of demonstrated pairs. Shape (B,).
        own_logits: ℓ of the learner's pairs. Shape (B',).

    Returns:
        A scalar.
    """
    return -F.logsigmoid(demo_logits).mean() - F.logsigmoid(-own_logits).mean()


def classification_metrics(demo_logits: Tensor, own_logits: Tensor) -> dict[str, Tensor]:
    """Return how well both sides, logits of shape (B,) each, are told apart."""
    kind = demo_logits.dtype
    saturated = torch.cat([demo_logits, own_logits]).abs() > SATURATED
    return {
        "discriminator/accuracy_demo": (demo_logits > 0).to(kind).mean(),
        "discriminator/accuracy_own": (own_logits < 0).to(kind).mean(),
        "discriminator/logit_demo": demo_logits.mean(),
        "discriminator/logit_own": own_logits.mean(),
        "discriminator/saturation": saturated.to(kind).mean(),
    }


def gradient_penalty(slopes: Tensor, counts: Tensor) -> Tensor:
    """Return E[(‖∇_z ℓ(ẑ)‖ - 1)²].

    Args:
        slopes: ∇_z ℓ at interpolated rows. Shape (B, W).
        counts: 1 for rows to take the mean over, 0 for others. Shape (B,).

    Returns:
        A scalar.
    """
    # The floor keeps the root's own derivative finite where ℓ is flat.
    norms = slopes.square().sum(1).clamp(min=1e-24).sqrt()
    return (counts * (norms - 1.0).square()).sum() / counts.sum().clamp(min=1.0)


@dataclass(frozen=True, kw_only=True)
class ClassifierFields(AlgorithmConfig):
    """Hyperparameters of whatever tells demonstrated from own."""

    d_steps: int = hyper(10, "Adam steps of the discriminator per iteration", low=1)
    d_batch_size: int = hyper(256, "pairs per step from each side", low=1)
    d_learning_rate: float = hyper(3e-4, "Adam's step size for the discriminator", above=0)
    d_entropy_weight: float = hyper(1e-3, "c, weight of the discriminator's entropy", low=0)
    d_gradient_penalty: float = hyper(0.0, "λ, weight of the gradient penalty", low=0)
    d_hidden: tuple[int, ...] = hyper((100, 100), "widths of its hidden layers", low=1)
    d_activation: Activation = hyper("tanh", "what follows each of its hidden layers")
    d_rollouts: int = hyper(1, "rollouts that own pairs are drawn from, the last ones", low=1)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorFields(ClassifierFields):
    """Hyperparameters of the discriminator and of the reward made from it."""

    reward_form: RewardForm = hyper("gail", "-log(1 - D), log D, the logit ℓ, or D")
    absorbing: AbsorbingMode = hyper(
        "off", "after a terminal transition: nothing, a neutral reward for ever, or a learned one"
    )
    demo_every: int = hyper(1, "use every so-manieth pair of each demonstration", low=1)


class _ImageClassifier(nn.Module):
    """ℓ of pairs of images and actions: what convolutions make of s beside the rest, in an MLP.

    Args:
        image_shape: (C, H, W).
        others: Numbers after the pixels in a row.
        config: Sizes of the MLP.
        generator: Source of the initial weights.
        device: Where they live.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        others: int,
        config: ClassifierFields,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._shape, self._pixels = image_shape, math.prod(image_shape)
        whole = convolutions(image_shape, orthogonal=False, generator=generator, device=device)
        self.seen = whole[1:]  # the first of them makes numbers of bytes
        self.head = mlp(
            [convolved_size(image_shape) + others, *config.d_hidden, 1],
            layer_norm=False,
            activation=config.d_activation,
            generator=generator,
            device=device,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map standardised rows (B, W) to logits (B, 1)."""
        images = inputs[:, : self._pixels].reshape(-1, *self._shape)
        logits: Tensor = self.head(torch.cat([self.seen(images), inputs[:, self._pixels :]], 1))
        return logits


class _ImageRows:
    """Rows of demonstrated images, made when they are asked for: all at once would not fit.

    Args:
        rows: Makes rows of pairs.
        pairs: Observations (M, C, H, W) and actions in the policy's units (M,).
        times: How often each of them occurs.
        absorbing: Rows of absorbing states, which come last. Shape (E, W).
        stays: How often each of those occurs. Shape (E,).
    """

    def __init__(
        self,
        rows: Callable[[Tensor, Tensor], Tensor],
        pairs: tuple[Tensor, Tensor],
        times: int,
        absorbing: Tensor,
        stays: Tensor,
    ) -> None:
        self._rows, (self._observations, self._actions) = rows, pairs
        self._length, self._absorbing = times * len(self._actions), absorbing
        self._after = torch.arange(len(stays), device=stays.device).repeat_interleave(stays)
        self.device = absorbing.device

    def __len__(self) -> int:
        return self._length + len(self._after)

    def __getitem__(self, indices: Tensor) -> Tensor:
        which = indices % len(self._actions)
        rows = self._rows(
            self._observations.index_select(0, which), self._actions.index_select(0, which)
        )
        after = indices - self._length
        rows[after >= 0] = self._absorbing[self._after[after[after >= 0]]]
        return rows


class Discriminator:
    """Network, engine, input statistics and demonstrated rows.

    All its draws come from a generator of its own, so that a learner beside it does what it would
    do without.

    Args:
        problem: With demonstrations that have the fields `terminated` and `next_observations`.
        config: Hyperparameters.
        distribution: Of the learner's policy.
        gamma: γ of the learner, which says how much an absorbing state counts.
        planned_updates: How many steps it is going to take, for the decision to compile.
    """

    metric_definitions: ClassVar[dict[str, str]] = {
        "discriminator/loss": "L_D, with entropy and penalty terms",
        "discriminator/accuracy_demo": "share of demonstrated pairs with D > 1/2",
        "discriminator/accuracy_own": "share of own pairs with D < 1/2",
        "discriminator/logit_demo": "mean of ℓ over demonstrated pairs",
        "discriminator/logit_own": "mean of ℓ over own pairs",
        "discriminator/saturation": "share of all pairs with D < 0.01 or D > 0.99",
        "discriminator/gradient_penalty": "E[(‖∇_z ℓ(ẑ)‖ - 1)²]; 0 where its weight is 0",
        "discriminator/grad_norm": "norm of the gradient of L_D",
    }

    def __init__(
        self,
        problem: Problem,
        config: DiscriminatorFields,
        distribution: Distribution,
        *,
        gamma: float,
        planned_updates: int,
    ) -> None:
        assert problem.demonstrations is not None
        self.config, self.device, self.distribution = config, problem.device, distribution
        self.gamma = gamma
        self.generator = torch.Generator().manual_seed(derive(problem.seed, "discriminator"))
        self._indicator = config.absorbing == "indicator"
        self._seen = math.prod(problem.observation_shape)  # columns of the observation
        self.width = self._seen + distribution.num_features + self._indicator
        self._pixels = math.prod(problem.observation_shape) if problem.images else 0
        weights = torch.Generator(device=self.device)
        weights.manual_seed(derive(problem.seed, "discriminator weights"))
        self.network: nn.Module
        if problem.images:
            others = self.width - self._pixels
            self.network = _ImageClassifier(
                problem.observation_shape, others, config, weights, self.device
            )
        else:
            self.network = mlp(
                [self.width, *config.d_hidden, 1],
                layer_norm=False,
                activation=config.d_activation,
                generator=weights,
                device=self.device,
            )
        self.engine = UpdateEngine(
            self.network,
            self._loss,
            Adam(config.d_learning_rate, planned_updates=max(1, planned_updates)),
            compile=problem.compile,
        )
        self._saw_absorbing = False
        self._moments = RunningMoments(0 if self._pixels else self.width, self.device)
        self._set_statistics()
        self.demo_rows = self._demonstrated(problem.demonstrations)

    def _demonstrated(self, demos: DemoTensors) -> Tensor | _ImageRows:
        """Rows of the demonstrations, so repeated that all are drawn as often as they occur."""
        every, ids = self.config.demo_every, demos.episode_ids
        lengths, times = torch.bincount(ids), episode_steps(ids) - 1
        offsets = torch.randint(every, (len(lengths),), generator=self.generator)
        # an offset beyond the end of a short demonstration would leave nothing of it
        kept = (times % every == offsets.minimum(lengths - 1)[ids]).nonzero()[:, 0]
        seen = demos.observations[kept].to(self.device)
        done = self.distribution.encode(demos.actions[kept].to(self.device))
        # Thinned rows stand for `every` times as many; ends are not thinned.
        copies = every if self._indicator else 1
        absorbing, stays = self._demonstrated_ends(demos)
        if self._pixels:
            return _ImageRows(self.rows, (seen, done), copies, absorbing, stays)
        rows = self.rows(seen, done).repeat(copies, 1)
        return torch.cat([rows, absorbing.repeat_interleave(stays, dim=0)])

    def _demonstrated_ends(self, demos: DemoTensors) -> tuple[Tensor, Tensor]:
        """Rows of the absorbing states of demonstrations, and how often each occurs."""
        if not self._indicator:
            none = torch.zeros(0, dtype=torch.int64, device=self.device)
            return self.absorbing_rows(demos.observations[:0].to(self.device)), none
        assert demos.terminated is not None
        assert demos.next_observations is not None
        ends = demos.terminated.nonzero()[:, 0]
        absorbing = self.absorbing_rows(demos.next_observations[ends].to(self.device))
        lengths = episode_steps(demos.episode_ids)[ends]
        return absorbing, absorbing_steps(lengths, gamma=self.gamma).to(self.device)

    def rows(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Join pairs to what the network sees, before standardisation.

        Args:
            observations: Shape (B, *observation_shape).
            actions: In the policy's units. Shape (B,) or (B, k).

        Returns:
            Shape (B, W).
        """
        features = self.distribution.features(actions)
        if self._pixels:
            features = features.to(torch.uint8)  # of discrete actions: 0 and 1
        parts = [observations.flatten(1).to(features), features]
        if self._indicator:
            parts.append(torch.zeros_like(features[:, :1]))
        return torch.cat(parts, dim=1)

    def absorbing_rows(self, observations: Tensor) -> Tensor:
        """Return the rows of absorbing states: terminal observations, no action, and the mark.

        Args:
            observations: Shape (B, *observation_shape).

        Returns:
            Shape (B, W), W as with an indicator.
        """
        seen = observations.flatten(1)
        kind = torch.uint8 if self._pixels else torch.get_default_dtype()
        rows = torch.zeros(len(seen), self.width, dtype=kind, device=self.device)
        rows[:, : self._seen] = seen
        rows[:, -1] = 1
        return rows

    def with_absorbing(self, rows: Tensor, next_observations: Tensor, stays: Tensor) -> Tensor:
        """Append the rows of the absorbing states that follow; with an indicator only.

        Args:
            rows: Of pairs. Shape (B, W).
            next_observations: What came of them. Shape (B, *observation_shape).
            stays: See `stays_after`. Shape (B,).
        """
        ends = stays.nonzero()[:, 0]
        absorbing = self.absorbing_rows(next_observations[ends])
        return torch.cat([rows, absorbing.repeat_interleave(stays[ends], dim=0)])

    def observe(self, rows: Tensor) -> None:
        """Take rows (B, W) into the statistics; those of absorbing states do not count."""
        if self._pixels:
            return
        self._moments.update(rows[rows[:, -1] == 0.0] if self._indicator else rows)
        self._set_statistics()

    def _set_statistics(self) -> None:
        if self._pixels:
            self._mean = torch.zeros(self.width, device=self.device)
            self._std = torch.ones(self.width, device=self.device)
            self._std[: self._pixels] = 255.0
            return
        self._mean = self._moments.mean.to(torch.get_default_dtype())
        self._std = usable_std(self._moments.variance.sqrt()).to(torch.get_default_dtype())

    def standardise(self, rows: Tensor) -> Tensor:
        """Return the network's inputs z of rows (B, W); no action is 0 there, too."""
        inputs = ((rows - self._mean) / self._std).clamp(-INPUT_CLIP, INPUT_CLIP)
        if not self._indicator:
            return inputs
        marks = rows[:, -1:].to(inputs)
        actions = inputs[:, self._seen : -1] * (1.0 - marks)
        return torch.cat([inputs[:, : self._seen], actions, marks], dim=1)

    @torch.no_grad()
    def logits(self, rows: Tensor) -> Tensor:
        """Return ℓ of rows (B, W). Shape (B,)."""
        logits: Tensor = self.network(self.standardise(rows))[:, 0]
        return logits

    def absorbing_logits(self, observations: Tensor) -> Tensor:
        """Return ℓ of the absorbing states that terminal observations (B, ...) become. Shape (B,).

        0, undecided, without an indicator and while the discriminator never saw one.
        """
        if not self._saw_absorbing:
            return torch.zeros(len(observations), device=self.device)
        return self.logits(self.absorbing_rows(observations))

    def _loss(
        self, parameters: Parameters, _: Parameters, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config

        def logits_of(inputs: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.network, parameters, (inputs,))
            return logits[:, 0]

        demo, own = batch["demo"], batch["own"]
        logits = logits_of(torch.cat([demo, own]))
        demo_logits, own_logits = logits.chunk(2)
        loss = discrimination_loss(demo_logits, own_logits)
        loss = loss - config.d_entropy_weight * coin_entropy(logits).mean()
        penalty = torch.zeros_like(loss)
        if config.d_gradient_penalty > 0.0:
            between = torch.lerp(own, demo, batch["mix"])  # ẑ
            slopes = torch.func.grad(lambda inputs: logits_of(inputs).sum())(between)
            penalty = gradient_penalty(*self._compared(slopes, own, demo))
            loss = loss + config.d_gradient_penalty * penalty
        return loss, {
            "discriminator/loss": loss,
            **classification_metrics(demo_logits, own_logits),
            "discriminator/gradient_penalty": penalty,
        }

    def _compared(self, slopes: Tensor, own: Tensor, demo: Tensor) -> tuple[Tensor, Tensor]:
        """Return slopes and which of them have a meaning, as `gradient_penalty` wants them.

        Not those towards the mark, nor between an absorbing state and another one; between two
        absorbing states not those towards actions.
        """
        if not self._indicator:
            return slopes, torch.ones_like(slopes[:, 0])
        actions = slopes[:, self._seen : -1] * (1.0 - own[:, -1:])
        alike = (own[:, -1] == demo[:, -1]).to(slopes.dtype)
        return torch.cat([slopes[:, : self._seen], actions], dim=1), alike

    def learn(self, own_rows: Tensor) -> None:
        """Make `d_steps` steps on minibatches of own rows (M, W) and as many demonstrated ones."""
        count, size = self.config.d_steps, self.config.d_batch_size
        own, demo = (self._shuffled(rows, count * size) for rows in (own_rows, self.demo_rows))
        self.observe(torch.cat([own, demo]))
        for own_part, demo_part in zip(
            torch.split(own, size), torch.split(demo, size), strict=True
        ):
            self.step(own_part, demo_part)

    def step(self, own_rows: Tensor, demo_rows: Tensor) -> None:
        """Make one Adam step on L_D. Both of shape (B, W)."""
        if self._indicator and not self._saw_absorbing:
            self._saw_absorbing = bool(torch.cat([own_rows[:, -1], demo_rows[:, -1]]).any())
        batch = {"own": self.standardise(own_rows), "demo": self.standardise(demo_rows)}
        if self.config.d_gradient_penalty > 0.0:
            shape = (len(own_rows), 1)
            batch["mix"] = torch.rand(shape, generator=self.generator).to(self.device)
        self.engine.step(batch)

    @timed("sample")
    def _shuffled(self, rows: Tensor | _ImageRows, count: int) -> Tensor:
        """Return `count` rows: all in random order, as often as necessary."""
        return rows[cycled(len(rows), count, self.generator).to(rows.device)]

    def drain(self) -> Metrics:
        """Return the metrics' means over the steps since the last call."""
        return {
            name.replace("optim/", "discriminator/"): value
            for name, value in self.engine.drain().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "engine": self.engine.state_dict(),
            "moments": self._moments.state_dict(),
            "generator": self.generator.get_state(),
            "saw_absorbing": self._saw_absorbing,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state["engine"])
        self._moments.load_state_dict(state["moments"])
        self._set_statistics()
        self.generator.set_state(state["generator"])
        self._saw_absorbing = bool(state["saw_absorbing"])
