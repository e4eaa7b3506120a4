"""From an environment and demonstrations to what an algorithm is built from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlfd import algorithms
from rlfd.algorithms.base import ActionSpec, DemoTensors, Needs
from rlfd.demos import DemoInfo, Demonstrations, Episode
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import memory, problem
from rlfd.experiments.config import resolve
from rlfd.experiments.preparation import describe_demos, without_observations
from rlfd.experiments.problem import (
    _action_spec,
    build_algorithm,
    build_for_acting,
    check_support,
    demo_tensors,
)

FIELDS = ("next_observations", "rewards", "terminated", "truncated")
CARTPOLE = EnvConfig("CartPole")
TINY = ("hidden=5",)


def make_demos(space=None, lengths=(3, 1, 5)):
    """Observation t of episode e is 100 e + t, actions and rewards count on through everything."""
    space = space or spaces.Discrete(2)
    episodes = []
    for number, length in enumerate(lengths):
        rows = 100.0 * number + np.arange(length + 1)
        if isinstance(space, spaces.Discrete):
            actions = np.arange(length) % 2
        else:
            actions = np.arange(length)[:, None] * np.ones(space.shape)
        episodes.append(
            Episode(
                np.repeat(rows[:, None], 4, axis=1).astype(np.float32),
                actions.astype(space.dtype),
                np.arange(length) + 0.5,
                terminated=number % 2 == 0,
                truncated=number % 2 == 1,
            )
        )
    info = DemoInfo("d-v0", "CartPole/d-v0", Path("d"), CARTPOLE, "CartPole-v1")
    return Demonstrations(info, tuple(episodes), spaces.Box(-1, 1, (4,)), space)


def needs(*fields):
    return Needs(
        demonstrations=True, reward=False, interaction=False, demo_fields=frozenset(fields)
    )


# Demonstrations


def test_demonstrations_in_time_order():
    tensors = demo_tensors(make_demos(), needs(*FIELDS))
    first = [0, 1, 2, 100, 200, 201, 202, 203, 204]
    assert tensors.observations.shape == (9, 4)
    assert tensors.observations[:, 1].tolist() == first
    assert tensors.next_observations[:, 3].tolist() == [n + 1 for n in first]
    assert tensors.actions.tolist() == [0, 1, 0, 0, 0, 1, 0, 1, 0]
    assert tensors.rewards.tolist() == [0.5, 1.5, 2.5, 0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert tensors.episode_ids.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert tensors.terminated.nonzero()[:, 0].tolist() == [2, 8]
    assert tensors.truncated.nonzero()[:, 0].tolist() == [3]
    assert (tensors.num_transitions, tensors.num_episodes) == (9, 3)


@pytest.mark.parametrize("declared", [(), FIELDS[:1], FIELDS[1:3], FIELDS])
def test_what_was_not_declared_is_not_there(declared):
    tensors = demo_tensors(make_demos(), needs(*declared))
    for field in FIELDS:
        assert (getattr(tensors, field) is not None) == (field in declared)


@pytest.mark.parametrize("name", ["sqil", "sqil-t", "bc"])
def test_imitation_sees_no_rewards(name):
    assert demo_tensors(make_demos(), algorithms.get(name).needs).rewards is None


@pytest.mark.parametrize(
    ("space", "dtype", "shape"),
    [
        (spaces.Discrete(2), torch.int64, (9,)),
        (spaces.MultiDiscrete([3, 4, 5]), torch.int64, (9, 3)),
        (spaces.MultiBinary(7), torch.int64, (9, 7)),
        (spaces.Box(-1, 1, (3,)), torch.float32, (9, 3)),
    ],
)
def test_types_of_actions(space, dtype, shape):
    actions = demo_tensors(make_demos(space), needs()).actions
    assert (actions.dtype, actions.shape) == (dtype, shape)


# Spaces


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(5), ActionSpec("discrete", (5,))),
        (spaces.MultiDiscrete([3, 4]), ActionSpec("multi_discrete", (3, 4))),
        (spaces.MultiBinary(7), ActionSpec("multi_binary", (7,))),
        (
            spaces.Box(np.array([-1, 0], np.float32), np.array([2, 3], np.float32)),
            ActionSpec("continuous", (2,), (-1.0, 0.0), (2.0, 3.0)),
        ),
    ],
)
def test_action_spaces(space, expected):
    assert _action_spec(space) == expected


def test_supported_environments():
    assert check_support("dqn", CARTPOLE) == ((4,), ActionSpec("discrete", (2,)))
    shape, action = check_support("bc", EnvConfig("Pendulum-v1"))
    assert (shape, action.kind, action.low, action.high) == ((3,), "continuous", (-2,), (2,))


DISCRETE_ONLY = [
    name
    for name in algorithms.names()
    if algorithms.get(name).needs.action_kinds == frozenset({"discrete"})
]


@pytest.mark.parametrize("name", DISCRETE_ONLY)
def test_actions_that_an_algorithm_was_not_made_for(name):
    with pytest.raises(RlfdError) as caught:
        check_support(name, EnvConfig("Pendulum-v1"))
    message = str(caught.value)
    assert f"'{name}' needs discrete actions" in message
    assert "'Pendulum-v1' has continuous ones" in message
    assert "bc" in caught.value.hint
    assert name not in caught.value.hint.split(", ")


# Building


def test_streams_follow_from_the_seed():
    def weights(seed):
        config = resolve("dqn", CARTPOLE, settings=TINY, options={"seed": seed}).config
        return torch.cat(
            [w.flatten() for w in build_algorithm(config, None).policy_state().values()]
        )

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_placeholders_hold_every_field(monkeypatch):
    """Whatever an algorithm declares, it finds when it is built for acting."""
    seen = []

    class Spy(algorithms.get("bc")):
        def __init__(self, problem, config):
            seen.append(problem.demonstrations)
            super().__init__(problem, config)

    monkeypatch.setattr(algorithms, "get", lambda _: Spy)
    build_for_acting(resolve("bc", CARTPOLE, settings=TINY).config)
    (demos,) = seen
    assert isinstance(demos, DemoTensors)
    assert all(getattr(demos, field) is not None for field in FIELDS)


@pytest.mark.parametrize("form", ["exp", "shift", "raw"])
def test_placeholders_do_for_all_weights(form, caplog):
    build_for_acting(resolve("rwr-offline", CARTPOLE, settings=[*TINY, f"form={form}"]).config)
    assert not caplog.records


# Images


STACK = spaces.Box(0, 255, (3, 36, 40), np.uint8)


def image_demos(lengths=(3, 1, 5), *, change=None):
    """Stacks of 3 frames, made of as many views of random ones."""
    rng, episodes = np.random.default_rng(0), []
    for number, length in enumerate(lengths):
        frames = rng.integers(0, 256, (length + 1, 36, 40), dtype=np.uint8)
        padded = np.concatenate([frames[:1], frames[:1], frames])
        images = np.stack([padded[t : t + 3] for t in range(length + 1)])
        if change is not None and number == 2:
            change(images)
        rewards = np.arange(float(length))
        episodes.append(
            Episode(images, np.zeros(length, np.int64), rewards, True, False, frame_stack=3)
        )
    info = DemoInfo("d-v0", "Dots/d-v0", Path("d"), None, None)
    return Demonstrations(info, tuple(episodes), STACK, spaces.Discrete(2))


def test_demonstrated_frames_are_kept_once():
    given = image_demos()
    tensors = demo_tensors(given, needs("next_observations"))
    for name, part in (("observations", slice(-1)), ("next_observations", slice(1, None))):
        expected = np.concatenate([e.observations[part] for e in given.episodes])
        found = getattr(tensors, name)
        assert found.shape == (9, 3, 36, 40)
        np.testing.assert_array_equal(found.index_select(0, torch.arange(9)), expected)
    assert tensors.observations.frames is tensors.next_observations.frames
    assert len(tensors.observations.frames) == (3 + 3) + (3 + 1) + (3 + 5)
    assert demo_tensors(given, needs()).next_observations is None


def test_demonstrated_images_that_are_no_stacks_are_refused():
    def spoil(images):
        images[4, 0, 7, 7] ^= 1

    with pytest.raises(RlfdError, match=r"'Dots/d-v0' are to be the last 3 frames.* episode 2 are"):
        demo_tensors(image_demos(change=spoil), needs())


def test_a_run_describes_demonstrations_without_their_observations():
    given = image_demos()
    light = without_observations(given)
    assert describe_demos(light) == describe_demos(given)
    assert describe_demos(light)["transitions"] == 9
    assert [episode.observations.nbytes for episode in light.episodes] == [0, 0, 0]
    assert all(episode.observations.base is None for episode in light.episodes)
    assert without_observations(None) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:    2000 kB\n"}, 2_048_000),
        ({"meminfo": "MemAvailable: 2000 kB\n", "limit": "5000", "used": "1500"}, 3_500),
        ({"meminfo": "MemAvailable: 2000 kB\n", "limit": "max", "used": "1500"}, 2_048_000),
        ({"limit": "5000", "used": "1500"}, 3_500),
        ({}, None),
    ],
)
def test_free_memory_is_what_the_system_says(tmp_path, monkeypatch, files, expected):
    for name, constant in (("meminfo", "MEMINFO"), ("limit", "LIMIT"), ("used", "USED")):
        monkeypatch.setattr(memory, constant, tmp_path / name)
        if name in files:
            (tmp_path / name).write_text(files[name])
    assert memory.available_memory("cpu") == expected


def test_runs_beside_each_other_share_what_is_free(tmp_path, monkeypatch):
    for constant in ("MEMINFO", "LIMIT", "USED"):
        monkeypatch.setattr(memory, constant, tmp_path / constant)
    assert memory.memory_share(3) == {}  # of what nobody knows
    (tmp_path / "MEMINFO").write_text("MemAvailable: 2000 kB\n")
    assert memory.memory_share(1) == {}
    ((name, share),) = memory.memory_share(3).items()
    assert int(share) == 2_048_000 // 3
    monkeypatch.setenv(name, share)
    assert memory.available_memory("cpu") == 2_048_000 // 3
    (tmp_path / "MEMINFO").write_text("MemAvailable: 2 kB\n")
    assert memory.available_memory("cpu") == 2_048


def test_a_replay_beyond_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr(problem, "available_memory", lambda device: 2 * 10**9)
    config = resolve("soft-q", EnvConfig("Pong"), options={"steps": 400_000}).config
    with pytest.raises(RlfdError, match=r"400,000 transitions needs 2\.83 GB, 2\.00 GB are free"):
        build_algorithm(config, None)
    config = resolve("soft-q", EnvConfig("Pong"), settings=["buffer_size=280000"]).config
    assert build_algorithm(config, None).learner.replay.rows == 35_000
