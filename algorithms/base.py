"""The seam between a learning method and everything that runs it.

The runner decides *when* (log, evaluate, checkpoint, stop), the method decides *what* happens in
one pass of its paper's loop. Nothing here, and nothing below `rlfd.algorithms`, knows files,
terminals or Gymnasium.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from rlfd.errors import RlfdError

__all__ = [
    "ActionKind",
    "ActionSpec",
    "Algorithm",
    "AlgorithmConfig",
    "DemoField",
    "DemoTensors",
    "LabelledEpisode",
    "Learner",
    "Metrics",
    "Needs",
    "Oracle",
    "PolicyMode",
    "Problem",
    "Readers",
    "TabularModel",
    "TransitionBatch",
    "World",
    "hyper",
]

Metrics = dict[str, Tensor]
"""Named scalars of one iteration; they stay tensors until somebody writes them."""

ActionKind = Literal["discrete", "continuous", "multi_discrete", "multi_binary"]
DemoField = Literal["next_observations", "rewards", "terminated", "truncated"]
PolicyMode = Literal["sampled", "greedy"]
T = TypeVar("T")


class TransitionBatch(Protocol):
    """What one step of every environment returned; every row is a real transition."""

    observations: np.ndarray
    actions: np.ndarray
    learner_rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class World(Protocol):
    """The only way to interact: a vector of N environments."""

    @property
    def num_envs(self) -> int:
        """N."""

    @property
    def env_steps(self) -> int:
        """Agent decisions so far, over all environments."""

    @property
    def observations(self) -> np.ndarray:
        """Current observations. Shape (N, *observation_shape)."""

    def step(self, actions: np.ndarray) -> TransitionBatch:
        """Act once in every environment."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """The action space, without Gymnasium.

    `sizes` is (A,) for discrete, (A_1, ..., A_k) for multi_discrete, (k,) for multi_binary and
    continuous. `low` and `high` bound continuous actions, one entry each.
    """

    kind: ActionKind
    sizes: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in one action."""
        return len(self.sizes) if self.kind == "multi_discrete" else self.sizes[0]


@dataclass(frozen=True, slots=True)
class DemoTensors:
    """Demonstrations as a method sees them: only the fields it declares, transitions in time order.

    Shapes: observations and next_observations (M, *observation_shape), actions (M,) or (M, k),
    episode_ids (M,) int64, the rest (M,). A field that was not declared is None.
    """

    observations: Tensor
    actions: Tensor
    episode_ids: Tensor
    next_observations: Tensor | None = None
    rewards: Tensor | None = None
    terminated: Tensor | None = None
    truncated: Tensor | None = None

    @property
    def num_transitions(self) -> int:
        """M."""
        return self.observations.shape[0]

    @property
    def num_episodes(self) -> int:
        """Number of whole episodes."""
        return int(self.episode_ids.max()) + 1


class Oracle(Protocol):
    """A demonstrator that can be asked what it would do.

    Attributes:
        queries: Observations that it was asked about so far. A method keeps it with its own state
            and puts it back.
    """

    queries: int

    def label(self, observations: np.ndarray) -> np.ndarray:
        """Return what it would do, its most likely actions in the environment's units.

        Shapes (B, *observation_shape) -> (B,) or (B, k).
        """


@dataclass(frozen=True, slots=True)
class LabelledEpisode:
    """An episode of whoever acted, with what a demonstrator would have done at each step.

    Shapes: observations (T + 1, *observation_shape), labels (T,) or (T, k), rewards (T,) float64.
    The rewards are those of what was done, not of the labels.
    """

    observations: np.ndarray
    labels: np.ndarray
    rewards: np.ndarray
    terminated: bool


@dataclass(frozen=True, slots=True)
class TabularModel:
    """A finite decision process that is known, besides its reward. Floats are float64.

    Observations of its environment are a state's one-hot vector, followed by the share of the
    horizon that has passed.

    Attributes:
        transitions: P(s'|s, a). Shape (S, A, S).
        start: p_0(s). Shape (S,).
        features: f(s, a), what a linear reward weighs. Shape (S, A, F).
        horizon: T, steps of an episode.
    """

    transitions: Tensor
    start: Tensor
    features: Tensor
    horizon: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs to learn, checked before anything is built.

    With `optional_demonstrations` it needs none but learns from those that it is given; with
    `demonstrator` it asks somebody, with `dynamics` it plans in a known finite decision process.
    With `images` it learns from images as well as from vectors.
    """

    demonstrations: bool
    reward: bool
    interaction: bool
    demo_fields: frozenset[DemoField] = frozenset()
    action_kinds: frozenset[ActionKind] = frozenset({"discrete"})
    optional_demonstrations: bool = False
    demonstrator: bool = False
    dynamics: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything that a method is built from besides its own hyperparameters.

    Attributes:
        observation_shape: Shape of one observation.
        action: The action space.
        demonstrations: None unless the method needs them, or was given some it may use.
        env_steps: Planned agent decisions, for schedules. For methods that do not interact, the
            updates that they may make; 0 = until they stop by themselves.
        num_envs: Environments in the world.
        seed: Seed of every random draw inside the method.
        device: Where tensors live.
        compile: ``on``, ``off``, or ``auto`` (by the planned number of updates).
        demonstrator: Who can be asked; None unless the method needs it.
        model: The known dynamics; None unless the method needs them.
        frame_stack: Observations are images of bytes (C, H, W), the last so many frames with the
            oldest first; 0 = they are vectors, of whatever shape.
        memory_bytes: What a replay memory may take; None = nobody knows.
    """

    observation_shape: tuple[int, ...]
    action: ActionSpec
    demonstrations: DemoTensors | None
    env_steps: int
    num_envs: int
    seed: int
    device: torch.device
    compile: Literal["auto", "on", "off"] = "auto"
    demonstrator: Oracle | None = None
    model: TabularModel | None = None
    frame_stack: int = 0
    memory_bytes: int | None = None

    @property
    def images(self) -> bool:
        """Whether observations are images."""
        return self.frame_stack > 0


def hyper(
    default: T,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> T:
    """Declare a hyperparameter: default, one line about it, closed bounds or open `above`."""
    metadata = {"doc": doc, "low": low, "high": high, "above": above}
    field: T = dataclasses.field(default=default, metadata=metadata)
    return field


Readers = Mapping[str, Mapping[Any, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a method waits for before its first update.

    Attributes:
        setting: Which setting says for how long.
        env_steps: Its value.
        after: Env steps from there to the first update.
    """

    setting: str
    env_steps: int
    after: int


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Base of every method's hyperparameters; checks ranges and choices on construction.

    `readers` names settings that not every value of another one makes use of: by that other one,
    by its value, those that are read.
    """

    readers: ClassVar[Readers] = {}

    @classmethod
    def own_settings(cls) -> tuple[str, ...]:
        """Return the settings that the class itself adds to its base."""
        (base,) = cls.__bases__
        inherited = {field.name for field in dataclasses.fields(base)}
        names = [field.name for field in dataclasses.fields(cls)]
        return tuple(name for name in names if name not in inherited)

    @classmethod
    def all_readers(cls) -> Readers:
        """Return the `readers` of the class and of all that it inherits from."""
        bases = reversed(cls.__mro__)  # what a class says itself counts last
        return {k: v for base in bases for k, v in vars(base).get("readers", {}).items()}

    def wait(self) -> Wait | None:
        """Return what is waited for; None if whatever budget is enough for some update."""
        return None

    def unread(self) -> dict[str, str]:
        """Return the settings without effect, each with the value of another that would read it."""
        found: dict[str, str] = {}
        for name, settings in self.all_readers().items():
            read = settings.get(getattr(self, name), ())
            for value, others in settings.items():
                found |= {other: f"{name}={value}".lower() for other in others if other not in read}
        return found

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            hint = hints[field.name]
            if get_origin(hint) is Literal and value not in get_args(hint):
                choices = ", ".join(str(choice) for choice in get_args(hint))
                raise RlfdError(f"setting '{field.name}' is '{value}', expected one of {choices}")
            for number in value if isinstance(value, tuple) else (value,):
                _check_range(field.name, number, **field.metadata)


def _check_range(
    name: str, value: Any, doc: str, low: float | None, high: float | None, above: float | None
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not np.isfinite(value):
        raise RlfdError(f"setting '{name}' is {value}, expected a finite number")
    too_low = (above is not None and value <= above) or (low is not None and value < low)
    if too_low or (high is not None and value > high):
        bounds = (("more than", above), ("at least", low), ("at most", high))
        expected = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
        raise RlfdError(f"setting '{name}' is {value}, expected {expected}")


class Learner(Protocol):
    """The part of a method that holds its state."""

    def policy_state(self) -> dict[str, Tensor]:
        """Return what acting depends on, by name."""

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `policy_state` returned."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Algorithm(ABC):
    """A learning method.

    Class attributes:
        name: Name on the command line.
        title: Paper or source.
        summary: One line for `rlfd list algos`.
        Config: Dataclass of hyperparameters.
        needs: Checked by the runner before anything is built.
        policies: Ways to act after training; the first one is the headline.
        metric_definitions: Fixed names of everything `iteration` reports, with one line each. An
            instance has its own where they depend on its settings.
        variants: Names of the same method for kinds of actions that this one cannot handle.
        recovers_reward: Whether it learns a reward that others can be trained on (`reward`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]
    needs: ClassVar[Needs]
    policies: ClassVar[tuple[PolicyMode, ...]]
    metric_definitions: Mapping[str, str]
    variants: ClassVar[dict[ActionKind, str]] = {}
    recovers_reward: ClassVar[bool] = False

    learner: Learner
    """Holds all state besides `updates`; a method with more state extends `state_dict`."""

    updates: int = 0
    """Gradient steps so far."""

    pretrain_updates: int = 0
    """Gradient steps before the first env step."""

    @abstractmethod
    def __init__(self, problem: Problem, config: Any) -> None: ...

    @property
    def epochs(self) -> int | None:
        """Passes over the demonstrations so far; None for a method that does not count them."""
        return None

    @property
    def finished(self) -> bool:
        """Whether the method has nothing more to learn (offline methods stop by themselves)."""
        return False

    @abstractmethod
    def iteration(self, world: World) -> Metrics:
        """Make one pass of the paper's outer loop. Offline methods ignore `world`.

        Returns:
            Scalars averaged over the updates of this pass; empty when there was none.
        """

    def labelled(self) -> list[LabelledEpisode]:
        """Return the episodes whose every step a demonstrator labelled, to be kept as a dataset.

        Empty for methods that ask nobody. Episodes that are not over are there, too.
        """
        return []

    def conclude(self) -> None:  # noqa: B027
        """Settle on the final policy, when the budget is used up. May be called again."""

    @abstractmethod
    def act(
        self, observations: np.ndarray, *, greedy: bool, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Choose actions with the learned policy, without changing the method's state.

        Args:
            observations: Shape (B, *observation_shape).
            greedy: Most likely action instead of a sample.
            generator: Source of randomness for samples. None uses torch's own.

        Returns:
            Actions. Shape (B,) for discrete spaces, (B, k) otherwise.
        """

    def policy_state(self) -> dict[str, Tensor]:
        """Return what `act` depends on, by name."""
        return self.learner.policy_state()

    def load_policy_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `policy_state` returned."""
        self.learner.load_policy_state(state)

    def start_from(self, policy: dict[str, Tensor]) -> None:
        """Begin with another run's policy instead of random weights, before the first iteration.

        `policy` has the names and shapes of `policy_state`. A method that keeps statistics of the
        observations freezes those that it takes over: the policy was learned with them.
        """
        self.load_policy_state(policy)

    def reward(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        terminated: np.ndarray,
    ) -> np.ndarray:
        """Return the learned reward of transitions, without changing the method's state.

        Args:
            observations: Shape (B, *observation_shape).
            actions: In the environment's units. Shape (B,) or (B, k).
            next_observations: Shape (B, *observation_shape).
            terminated: Shape (B,).

        Returns:
            Rewards, float64. Shape (B,).

        Raises:
            NotImplementedError: Unless `recovers_reward`.
        """
        raise NotImplementedError(f"'{self.name}' learns no reward")

    def reward_state(self) -> dict[str, Tensor]:
        """Return what `reward` depends on, by name; empty unless `recovers_reward`."""
        return {}

    def load_reward_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Restore what `reward_state` returned."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on, as tensors and JSON values."""
        return {"learner": self.learner.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.learner.load_state_dict(state["learner"])
        self.updates = int(state["updates"])
