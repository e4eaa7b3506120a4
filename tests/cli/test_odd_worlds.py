"""Odd spaces through every command: learners of each family, and what comes after them."""

from __future__ import annotations

import h5py
import numpy as np
import odd_worlds
import pytest
from gymnasium import spaces
from safetensors import safe_open

from rlfd import demos
from rlfd.envs import EnvConfig, adapter

from .conftest import run_inside

RUN = ("--eval-every", 0, "--final-episodes", 10, "--num-envs", 4, "--compile", "off", "--quiet")
SMALL = ("--set", "hidden=16")


class Pointing:
    """Points where the sign shows, as a learner would have to. Sees what learners see."""

    sees_states = False

    def __init__(self, env):
        self.space = adapter(env).action_space

    def reset(self, n):
        pass

    def act(self, observations, indices):
        return np.stack([self.point(bool(self.side(seen))) for seen in observations])

    def side(self, seen):
        if seen.ndim == 3:  # the right half is bright
            return seen[-3, 5, -3] > 200
        return seen[1] or seen[3] if len(seen) == 4 else seen.ravel()[0] > 0

    def point(self, right):
        if isinstance(self.space, spaces.Box):
            return self.space.high if right else self.space.low
        return np.full(self.space.shape, right, self.space.dtype)

    def describe(self):
        return {"policy": "pointing"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def show_how(place, kind, episodes=10, **form):
    env = EnvConfig(odd_worlds.name(kind), **form)
    made = demos.collect(env, Pointing(env), episodes=episodes, data_dir=place / "data")
    assert made.returns.mean() > 0.9 * odd_worlds.STEPS
    return made.info.name


def succeed(*command):
    outcome = run_inside(*command)
    assert outcome.code == 0, outcome.stderr
    return outcome


LEARN = [
    # kind, method, what it needs to learn quickly; the random policy earns about 4 of 8
    ("ActionTable", "bc", 300, ()),
    ("ActionFromOne", "dqn", 4000, ("learning_starts=100", "epsilon_env_steps=600")),
    ("ObservationNumber", "sqil", 1000, ("learning_starts=50",)),
]


def train(place, kind, algo, steps, settings):
    words = ["train", algo, "--env", odd_worlds.name(kind), "--steps", steps, *RUN, *SMALL]
    words += ["--demos", show_how(place, kind)] if algo in ("bc", "sqil", "gail") else []
    for setting in settings:
        words += ["--set", setting]
    return succeed(*words, "--json").json


@pytest.mark.parametrize(("kind", "algo", "steps", "settings"), LEARN)
def test_methods_learn_in_them(kind, algo, steps, settings, place):
    assert train(place, kind, algo, steps, settings)["return_mean"] > 6.0


@pytest.mark.parametrize(
    ("kind", "algo", "steps", "settings"),
    [
        ("ActionHeld", "sac", 40, ("learning_starts=20", "batch_size=7")),
        ("ActionChoices", "ppo", 64, ("batch_steps=64",)),
        ("ActionFromOne", "gail", 64, ("batch_steps=64", "d_steps=3")),
    ],
)
def test_what_a_policy_does_is_recorded_as_the_environment_takes_it(
    kind, algo, steps, settings, place
):
    """The environment refuses everything else, also while it is learned in."""
    run = train(place, kind, algo, steps, settings)["run"]
    succeed("evaluate", run, "--episodes", 3, "--quiet")
    out = ("collect-demos", "--env", odd_worlds.name(kind), "--policy", run, "--episodes", 3)
    path = succeed(*out, "--name", "own", "--json").json["path"]
    space = getattr(odd_worlds, kind).action_space
    with h5py.File(f"{path}/data/main_data.hdf5") as file:
        for episode in file.values():
            assert episode["actions"].dtype == space.dtype
            for action in episode["actions"]:
                assert space.contains(action)
    shown = succeed("show", "own", "--json").json
    if kind == "ActionFromOne":
        assert shown["first_actions"] == [1]
        lines = [line.split() for line in succeed("show", "own").stdout.splitlines()]
        table = lines.index(["action", "taken", "share"])
        assert [line[0] for line in lines[table + 1 : table + 3]] == ["1", "2"]
    succeed("export", run, "--episodes", 2, "--out", "policy.safetensors", "--quiet")
    succeed("evaluate", "policy.safetensors", "--episodes", 2, "--quiet")


def test_a_range_is_stated_asked_for_and_kept(place):
    name = odd_worlds.name("ActionUnbounded")
    words = ("--env", name, "--policy", "random", "--episodes", 2, "--json")
    refused = run_inside("collect-demos", *words)
    assert refused.code == 2
    assert "--action-range -1 1" in refused.stderr
    outcome = succeed("collect-demos", *words, "--action-range", -0.5, 0.25)
    assert "--action-range -0.5 0.25" in outcome.stderr  # what is suggested next
    path = outcome.json["path"]
    with h5py.File(f"{path}/data/main_data.hdf5") as file:
        actions = np.concatenate([episode["actions"] for episode in file.values()])
    assert -0.5 <= actions.min() < actions.max() <= 0.25
    shown = succeed(
        "train", "sac", "--env", name, "--action-range", -0.5, 2, "--show-config", "--json"
    ).json
    assert shown["config"]["env"]["action_range"] == [-0.5, 2.0]


def test_images_in_any_order_have_convolutions(place):
    name = odd_worlds.name("ImageLast")
    words = ("--env", name, "--policy", "random", "--episodes", 2, "--quiet")
    succeed("collect-demos", *words, "--name", "pictures")
    learn = ("--steps", 2, "--final-episodes", 2, "--quiet", *SMALL, "--set", "batch_size=5")
    for stack, channels in (((), 3), (("--frame-stack", 2), 6)):
        run = succeed(
            "train", "bc", "--env", name, "--demos", "pictures", *stack, *learn,
            "--exp-name", f"c{channels}", "--device", "cpu", "--json",
        ).json["run"]  # fmt: skip
        policy = max((place / run / "checkpoints").glob("policy_*.safetensors"))
        with safe_open(policy, "numpy") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
        assert [32, channels, 8, 8] in shapes
