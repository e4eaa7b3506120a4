"""Worlds, demonstrations and problems with made-up numbers, for tests of the algorithms.

Sizes are odd numbers that differ from each other, so that a swapped axis cannot pass unseen.
Learners are on the CPU, or where RLFD_TEST_DEVICE says.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import torch
import typer.main

from rlfd import algorithms
from rlfd.algorithms.base import ActionSpec, DemoTensors, Problem, TabularModel
from rlfd.algorithms.core.frames import FrameStacks
from rlfd.envs import Transitions

torch.set_num_threads(1)

DEVICE = torch.device(os.environ.get("RLFD_TEST_DEVICE", "cpu"))
torch.backends.cudnn.deterministic = True  # as training has it
NUM_ENVS, SIZE, NUM_ACTIONS = 3, 5, 7
IMAGE = (2, 37, 45)  # hardly larger than the convolutions need, both sides different


class NoiseWorld:
    """Observations are noise. Environment i ends every 3 + i steps, terminated and cut in turn."""

    def __init__(self, num_envs=NUM_ENVS, shape=(SIZE,), *, seed=0, reward=1.0):
        self.num_envs, self.shape, self.reward = num_envs, shape, reward
        self.env_steps = 0
        self.rng = np.random.default_rng(seed)
        self.clocks = np.zeros(num_envs, int)
        self.ended = np.zeros(num_envs, int)
        self.actions = []
        self.observations = self.draw()

    def draw(self):
        return self.rng.normal(size=(self.num_envs, *self.shape)).astype(np.float32)

    first = follow = draw

    def step(self, actions):
        self.actions.append(np.array(actions))
        self.env_steps += self.num_envs
        self.clocks += 1
        ends = self.clocks == 3 + np.arange(self.num_envs)
        terminated = ends & (self.ended % 2 == 0)
        following = self.follow()
        rewards = np.full(self.num_envs, self.reward)
        transitions = Transitions(
            self.observations, actions, rewards, rewards, following, terminated, ends & ~terminated
        )
        self.ended += ends
        self.clocks[ends] = 0
        self.observations = np.where(
            ends.reshape(-1, *[1] * len(self.shape)), self.first(), following
        )
        return transitions


class FrameWorld(NoiseWorld):
    """The same with images: each observation is the last C frames of noise, oldest first."""

    def __init__(self, num_envs=NUM_ENVS, shape=IMAGE, **options):
        super().__init__(num_envs, shape, **options)
        self.observations = self.first()

    def draw(self):
        return self.rng.integers(0, 256, (self.num_envs, 1, *self.shape[1:]), dtype=np.uint8)

    def first(self):
        return self.draw().repeat(self.shape[0], axis=1)

    def follow(self):
        return np.concatenate([self.observations[:, 1:], self.draw()], axis=1)


class TabularWorld:
    """A deterministic decision process with one-hot observations and uniform start states.

    `following` and `rewards` are (S, A). Every step from, or into, a state of `terminal` ends the
    episode; others are cut after `horizon` steps.
    """

    def __init__(self, following, rewards, *, terminal=(), starts=None, num_envs=5, horizon=7):
        self.following, self.rewards = np.asarray(following), np.asarray(rewards, float)
        self.terminal, self.horizon, self.num_envs = set(terminal), horizon, num_envs
        count = len(self.following)
        self.eye = np.eye(count, dtype=np.float32)
        self.starts = (
            list(starts) if starts is not None else sorted({*range(count)} - self.terminal)
        )
        self.rng = np.random.default_rng(0)
        self.states = self.rng.choice(self.starts, num_envs)
        self.clocks = np.zeros(num_envs, int)
        self.env_steps = 0

    @property
    def observations(self):
        return self.eye[self.states]

    def step(self, actions):
        before, self.states = self.states, self.following[self.states, actions]
        self.env_steps += self.num_envs
        self.clocks += 1
        terminated = np.isin(self.states, list(self.terminal))
        truncated = (self.clocks == self.horizon) & ~terminated
        rewards = self.rewards[before, actions]
        reached = self.observations
        ends = terminated | truncated
        self.states = np.where(ends, self.rng.choice(self.starts, self.num_envs), self.states)
        self.clocks[ends] = 0
        return Transitions(
            self.eye[before], actions, rewards, rewards, reached, terminated, truncated
        )


def noise_demos(lengths=(3, 9, 5), *, shape=(SIZE,), actions=None, terminated=None, seed=0):
    """Return demonstrations of noise; by default all end in a terminal state."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    last = torch.cat([torch.arange(n) == n - 1 for n in lengths])
    ends = torch.tensor(terminated if terminated is not None else [True] * len(lengths))[ids]
    if len(shape) == 3:
        observations, following = noise_images(lengths, shape, generator)
    else:
        paths = [torch.randn(n + 1, *shape, generator=generator) for n in lengths]
        observations = torch.cat([path[:-1] for path in paths])
        following = torch.cat([path[1:] for path in paths])
    if actions is None:
        actions = torch.randint(NUM_ACTIONS, (len(ids),), generator=generator)
    return DemoTensors(
        observations=observations,
        actions=actions,
        episode_ids=ids,
        next_observations=following,
        rewards=torch.randn(len(ids), generator=generator),
        terminated=last & ends,
    )


def noise_images(lengths, shape, generator):
    """Return observations and next observations of episodes whose frames are noise."""
    stack, frames, first, begin = shape[0], [], [], 0
    for length in lengths:
        new = torch.randint(0, 256, (length + 1, *shape[1:]), generator=generator).byte()
        frames += [new[:1]] * (stack - 1) + [new]
        first.append(begin + torch.arange(length))
        begin += stack + length
    kept, rows = torch.cat(frames), torch.cat(first)
    return FrameStacks(kept, rows, shape, stack), FrameStacks(kept, rows + 1, shape, stack)


class RuleOracle:
    """Whatever the observations are, it has an answer: their sum in thousandths, or its share."""

    def __init__(self, action):
        self.action, self.queries = action, 0

    def label(self, observations):
        self.queries += len(observations)
        sums = observations.reshape(len(observations), -1).sum(-1, dtype=np.float64)
        parts = np.floor(1000 * np.abs(sums))[:, None] // np.arange(1, self.action.width + 1)
        if self.action.kind == "continuous":
            low, high = np.array(self.action.low), np.array(self.action.high)
            return (low + (high - low) * (parts % 1000) / 1000).astype(np.float32)
        if self.action.kind == "discrete":
            return (parts[:, 0] % self.action.sizes[0]).astype(np.int64)
        sizes = self.action.sizes if self.action.kind == "multi_discrete" else (2,)
        return (parts % np.array(sizes)).astype(np.int64)


def noise_model(actions, *, states=SIZE - 1, horizon=9, features=3, seed=0):
    """Return a known decision process, drawn at random; its observations have the usual size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    transitions, start = draw(states, actions, states), draw(states)
    return TabularModel(
        transitions=transitions / transitions.sum(2, keepdim=True),
        start=start / start.sum(),
        features=draw(states, actions, features),
        horizon=horizon,
    )


def walks(model, count=3, *, seed=0):
    """Return demonstrations that walk at random through a known decision process."""
    generator = torch.Generator().manual_seed(seed)
    states, actions, _ = model.transitions.shape
    rows, chosen = [], []
    for _ in range(count):
        state = int(torch.multinomial(model.start, 1, generator=generator))
        for step in range(model.horizon):
            rows.append(torch.zeros(states + 1))
            rows[-1][state], rows[-1][-1] = 1.0, step / model.horizon
            action = int(torch.randint(actions, (), generator=generator))
            chosen.append(action)
            following = model.transitions[state, action]
            state = int(torch.multinomial(following, 1, generator=generator))
    return DemoTensors(
        observations=torch.stack(rows),
        actions=torch.tensor(chosen),
        episode_ids=torch.arange(count).repeat_interleave(model.horizon),
    )


@pytest.fixture
def device():
    """Where learners are."""
    return DEVICE


@pytest.fixture(autouse=True, scope="session")
def one_command_line():
    """Build the program's command line once; Typer's runner builds it anew for every command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def noise_world():
    """Return a function that makes a world of noise, of images where the shape is one's."""

    def make(*args, shape=(SIZE,), **options):
        world = FrameWorld if len(shape) == 3 else NoiseWorld
        return world(*args, shape=shape, **options)

    return make


@pytest.fixture
def image_shape():
    return IMAGE


@pytest.fixture
def tabular_world():
    return TabularWorld


@pytest.fixture
def make_demos():
    return noise_demos


@pytest.fixture
def make_oracle():
    return RuleOracle


@pytest.fixture
def make_algorithm():
    """Return a function that builds an algorithm: `hyper` are its settings, the rest the problem's.

    Networks are small and nothing is compiled unless said otherwise.
    """

    def make(
        name,
        *,
        shape=(SIZE,),
        action=None,
        demos=None,
        env_steps=999,
        num_envs=NUM_ENVS,
        seed=0,
        compile="off",
        demonstrator=None,
        **hyper,
    ):
        cls = algorithms.get(name)
        action = action or ActionSpec("discrete", (NUM_ACTIONS,))
        if isinstance(action, int):
            action = ActionSpec("discrete", (action,))
        model = noise_model(action.sizes[0]) if cls.needs.dynamics else None
        if demos is None and model is not None:
            demos = walks(model)
        elif demos is None and cls.needs.demonstrations:
            demos = noise_demos(shape=shape)
        if cls.needs.demonstrator:
            demonstrator = demonstrator or RuleOracle(action)
        problem = Problem(
            observation_shape=shape,
            action=action,
            demonstrations=demos,
            env_steps=env_steps,
            num_envs=num_envs,
            seed=seed,
            device=DEVICE,
            compile=compile,
            demonstrator=demonstrator,
            model=model,
            frame_stack=shape[0] if len(shape) == 3 else 0,
        )
        small = {"hidden": (11,)} if hasattr(cls.Config, "hidden") else {}
        return cls(problem, cls.Config(**small | hyper))

    return make


@pytest.fixture
def float64():
    """Let everything that is built in the test be of double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
