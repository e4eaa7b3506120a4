"""A budget that ends before anything is learned: refused, or told; never passed over in silence."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from test_resume import TINY, native
from typer.testing import CliRunner

from rlfd import algorithms
from rlfd.cli.main import app

STEPS = 10  # no more than one episode of anything lasts, and less than any wait
INTERACTING = [name for name in algorithms.names() if algorithms.get(name).needs.interaction]
OWN = ("learning_starts", "updates_per_env_step")  # settings that are what the method makes them


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for env, policy in (("CartPole", "controller"), ("Pendulum", "random")):
        collect = ["collect-demos", "--env", env, "--policy", policy, "--episodes", "3"]
        assert invoke(*collect, "--data-dir", folder).exit_code == 0
    return folder


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def train(data, tmp_path):
    """Return a function that trains; it returns what the command left behind, and run.json."""

    def train(name, steps, *settings):
        cls = algorithms.get(name)
        names = {field.name for field in dataclasses.fields(cls.Config)}
        chosen = dict(setting.split("=") for setting in settings)
        chosen = {key: value for key, value in chosen.items() if key in cls.Config.all_readers()}
        names -= cls.Config(**chosen).unread().keys()
        small = {key: value for key, value in TINY.items() if key in names and key not in OWN}
        words = ["train", name, "--env", native(name), "--steps", steps, "--num-envs", 3]
        for key, value in small.items():
            words += ["--set", f"{key}={value}"]
        for setting in settings:
            words += ["--set", setting]
        words += ["--runs-dir", tmp_path / "runs", "--data-dir", data, "--overwrite", "--yes"]
        words += ["--final-episodes", 1, "--eval-every", 0, "--compile", "off", "--no-progress"]
        result = invoke(*words)
        found = list(tmp_path.rglob("run.json"))
        return result, json.loads(found[0].read_text()) if found else None

    return train


@pytest.mark.parametrize("name", INTERACTING)
def test_too_few_steps_are_refused_or_enough_for_an_update(name, train, tmp_path):
    """With the method's own wait; what it tells to change is enough."""
    waits = algorithms.get(name).Config().wait() is not None
    result, run = train(name, STEPS)
    assert (result.exit_code, run is None) == ((2, True) if waits else (0, False)), result.stderr
    if not waits:
        assert run["updates"] > 0 or "no update was made" in result.stderr
        return
    assert not (tmp_path / "runs").exists()
    assert f"a budget of {STEPS} env steps ends before the first update" in result.stderr
    (few,) = re.findall(r"--set learning_starts=(\d+) or less", result.stderr) or [None]
    if few is not None:
        result, run = train(name, STEPS, f"learning_starts={few}")
        assert (result.exit_code, run["updates"] > 0) == (0, True), result.stderr
        result, _ = train(name, STEPS, f"learning_starts={int(few) + 1}")
        assert result.exit_code == 2


@pytest.mark.parametrize(
    "name",
    [name for name in INTERACTING if hasattr(algorithms.get(name).Config, "learning_starts")],
)
def test_the_least_number_of_steps_that_it_names_is_one(name, train):
    """Whatever the pace: with three environments, one row fewer is refused, too."""
    settings = ["learning_starts=31", "updates_per_env_step=0.07"]
    if hasattr(algorithms.get(name).Config(), "pretrain_updates"):
        settings.append("pretrain_updates=0")
    result, run = train(name, STEPS, *settings)
    assert (result.exit_code, run) == (2, None), result.stderr
    assert "learning_starts=" not in result.stderr.split("give --steps")[1]  # 0 were too many
    (enough,) = map(int, re.findall(r"give --steps (\d+) or more", result.stderr))
    result, run = train(name, enough // 3 * 3 - 3, *settings)
    assert (result.exit_code, run) == (2, None), result.stderr
    result, run = train(name, enough, *settings)
    assert (result.exit_code, run["updates"] > 0) == (0, True), result.stderr


@pytest.mark.parametrize("name", ["rwr", "awr"])
def test_a_run_in_which_no_episode_ended_says_so(name, train):
    """Weights are made of whole episodes' returns: 200 steps each, of which there are 27."""
    whole = ["baseline=none"] if name == "awr" else []
    result, run = train(name, STEPS, "first_steps=27", *whole)
    assert (result.exit_code, run["updates"]) == (0, 0), result.stderr
    expected = "no update was made in 27 env steps (no episode was over)"
    assert expected in result.stderr
    assert expected in run["warnings"][0]


def test_more_steps_than_the_budget_are_told(train):
    result, run = train("trpo", STEPS, "batch_steps=51")
    assert (result.exit_code, run["env_steps"], run["updates"] > 0) == (0, 51, True)
    (warning,) = run["warnings"]
    assert (
        warning
        == "51 env steps were made, more than the 10 of --steps: an iteration is not cut short"
    )
    assert warning in " ".join(result.stderr.split())
    result, run = train("trpo", 49, "batch_steps=51")  # a little more is no news
    assert run["warnings"] == []
