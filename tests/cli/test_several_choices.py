"""Several choices per step through every command: in one row, or in a square."""

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces

from rlfd import demos
from rlfd.envs import EnvConfig

from .conftest import assert_refused, run_inside

SPACES = {
    "Choices": spaces.MultiDiscrete([2, 3]),
    "Buttons": spaces.MultiBinary(3),
    "Square": spaces.MultiBinary([2, 2]),
}
STEPS = 5  # of an episode, whose return is that if every choice was right


class Lights(gymnasium.Env):
    """Each choice has its own lights, and the one to take is lit."""

    def __init__(self, name):
        self.action_space = SPACES[name]
        self.sizes = np.ravel(
            getattr(self.action_space, "nvec", np.full(self.action_space.shape, 2))
        )
        self.observation_space = spaces.Box(0, 1, (int(sum(self.sizes)),), np.float32)

    def light(self):
        self.right = self.np_random.integers(self.sizes)
        lit = [np.eye(size)[one] for size, one in zip(self.sizes, self.right, strict=True)]
        return np.concatenate(lit).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = STEPS
        return self.light(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        self.left -= 1
        reward = float((np.ravel(action) == self.right).mean())
        return self.light(), reward, self.left == 0, False, {}


class Exclusive(Lights):
    """The first two buttons must not be pressed together."""

    def step(self, action):
        if action[0] and action[1]:
            raise ValueError("buttons 0 and 1 together")
        return super().step(action)


@pytest.fixture(autouse=True)
def registered():
    for name in SPACES:
        gymnasium.register(f"Lights/{name}-v0", f"{__name__}:Lights", kwargs={"name": name})
    gymnasium.register("Lights/Exclusive-v0", f"{__name__}:Exclusive", kwargs={"name": "Buttons"})
    yield
    for name in (*SPACES, "Exclusive"):
        del gymnasium.registry[f"Lights/{name}-v0"]


def done(*words):
    outcome = run_inside(*words)
    assert outcome.code == 0, outcome.stderr
    return outcome


A2C = (
    "train", "a2c", "--steps", 3_000, "--num-envs", 10, "--eval-every", 1_500, "--eval-episodes", 3,
    "--checkpoint-every", 1_500, "--compile", "off", "--final-episodes", 20,
    "--set", "learning_rate=0.02", "--set", "hidden=11", "--set", "gamma=0",
    "--set", "batch_steps=30",
)  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_from_learning_to_a_clone_and_its_figure(folder, name):
    env = f"Lights/{name}-v0"
    sizes = np.ravel(getattr(SPACES[name], "nvec", np.full(SPACES[name].shape, 2)))
    random = done(
        "collect-demos", "--env", env, "--policy", "random", "--episodes", 60, "--json"
    ).json
    assert random["return_mean"] == pytest.approx(STEPS * np.mean(1 / sizes), abs=0.4)
    learned = done(*A2C, "--env", env, "--json").json
    assert learned["return_mean"] > 0.9 * STEPS
    run = learned["run"]
    assert done("evaluate", run, "--episodes", 20, "--sampled", "--json").json["return_mean"] > 4

    done("export", run, "--out", "policy.safetensors", "--checkpoint", "latest", "--episodes", 3)
    for policy in (run, "policy.safetensors"):
        stem = policy.rpartition("/")[2].partition(".")[0]
        done("collect-demos", "--env", env, "--policy", policy, "--episodes", 11, "--name", stem)
    first, second = (
        demos.load(
            f"{env.replace('/', '-')}/{stem}-v0", env=EnvConfig(env), data_dir=folder / "data"
        )
        for stem in ("seed0", "policy")
    )
    for ours, exported in zip(first.episodes, second.episodes, strict=True):
        assert ours.actions.shape == (STEPS, len(sizes))
        np.testing.assert_array_equal(ours.actions, exported.actions)
    shown = done("show", "seed0-v0", "--json").json
    assert [len(counts) for counts in shown["actions"]] == list(sizes)
    assert [sum(counts) for counts in shown["actions"]] == [11 * STEPS] * len(sizes)

    clone = ("train", "bc", "--env", env, "--demos", "seed0-v0", "--final-episodes", 20, "--json")
    assert done(*clone, "--compile", "off").json["return_mean"] > 0.85 * STEPS
    done("plot", "runs", "--metric", "return", "--out", "figure.png")
    drawn = pd.read_csv("figure.csv", comment="#")
    assert set(drawn["algo"].dropna()) == {"a2c", "bc"}


def test_an_environment_that_does_not_take_every_combination(folder):
    command = ("collect-demos", "--env", "Lights/Exclusive-v0", "--policy", "random")
    texts = ("Lights/Exclusive-v0", "[1, 1, ", "buttons 0 and 1 together", "ExclusiveButtons")
    assert_refused(run_inside(*command), *texts, code=1)
    assert_refused(run_inside(*A2C, "--env", "Lights/Exclusive-v0"), *texts, code=1)
