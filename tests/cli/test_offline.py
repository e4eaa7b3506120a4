"""Learning from datasets without naming an environment, and where there is none."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from rlfd import demos as library
from rlfd.envs import EnvConfig

from .conftest import assert_refused, run_inside, snapshot

QUICK = ("--set", "max_epochs=2", "--set", "hidden=5", "--final-episodes", 2)
BC = ("train", "bc", *QUICK)
ABSENT = "runs/default/bc/dataset-CartPole-strange-v0/seed0"


def rewrite(path, change):
    """Change a dataset's metadata."""
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def make_foreign(path, **env_spec):
    """Let a dataset look as if another tool had written it, in another environment."""

    def change(metadata):
        del metadata["rlfd"]
        known = json.loads(metadata["env_spec"]) | env_spec
        metadata["env_spec"] = json.dumps(known) if known["id"] else None

    rewrite(path, change)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    place = tmp_path_factory.mktemp("offline")
    for env, name in (
        (EnvConfig("CartPole"), "own"),
        (EnvConfig("CartPole"), "foreign"),
        (EnvConfig("CartPole"), "strange"),
        (EnvConfig("CartPole"), "nameless"),
        (EnvConfig("CartPole", reward="sparse"), "paid"),
        (EnvConfig("LunarLander", "demo", {"push_scale": 0.5}), "pushed"),
    ):
        actor = library.make_demonstrator("controller", env, seed=0)
        library.collect(env, actor, episodes=2, name=name, data_dir=place / "data")
    root = place / "data/demos/CartPole"
    make_foreign(root / "foreign-v0")
    make_foreign(root / "strange-v0", id="AdroitHandPen-v1", kwargs={"reward_type": "dense"})
    make_foreign(root / "nameless-v0", id=None)
    return place


@pytest.fixture
def data(folder, collected):
    shutil.copytree(collected, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("demos", "place"),
    [
        ("own", "CartPole"),
        ("foreign", "CartPole"),
        ("data/demos/CartPole/foreign-v0", "CartPole"),
        ("paid", "CartPole-sparse"),
        ("LunarLander-demo/pushed-v0", "LunarLander-demo"),
    ],
)
def test_the_environment_is_that_of_the_demonstrations(data, demos, place):
    outcome = run_inside(*BC, "--demos", demos, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["run"] == f"runs/default/bc/{place}/seed0"
    assert outcome.json["return_mean"] is not None
    assert "environment of the demonstrations" in outcome.stderr
    config = run_inside("show", outcome.json["run"], "--json").json["config"]
    pushed = {"push_scale": 0.5} if "pushed" in demos else {}
    assert config["env"]["options"] == pushed


def test_what_is_given_counts_more_than_the_demonstrations(data):
    command = ("train", "bc", "--demos", "pushed", "--show-config", "--json")
    env = run_inside(*command, "--start", "shifted").json["config"]["env"]
    assert (env["start"], env["options"]) == ("shifted", {})
    env = run_inside(*command, "--env-option", "push_scale=0.25").json["config"]["env"]
    assert (env["start"], env["options"]) == ("demo", {"push_scale": 0.25})
    env = run_inside(
        "train", "bc", "--demos", "paid", "--reward", "dense", "--show-config", "--json"
    )
    assert env.json["config"]["env"]["reward"] == "dense"


@pytest.mark.parametrize("name", ["strange", "nameless"])
def test_without_an_environment_one_learns_from_the_data_alone(data, name):
    command = ("train", "bc", "--set", "max_epochs=2", "--demos", name)
    outcome = run_inside(*command, "--json")
    assert outcome.code == 0, outcome.stderr
    result = outcome.json
    assert result["run"] == ABSENT.replace("strange", name)
    assert (result["epochs"], result["return_mean"], result["evaluations"]) == (2, None, {})
    reason = "'AdroitHandPen-v1'" if name == "strange" else "do not say which environment"
    lines = [line for line in outcome.stderr.splitlines() if "no evaluation" in line]
    assert len(lines) == 1
    assert reason in lines[0]
    assert f"rlfd show {result['run']}" in outcome.stderr
    assert "rlfd evaluate" not in outcome.stderr
    for look in (("show", result["run"]), ("list", "runs")):
        assert run_inside(*look).code == 0
    assert_refused(run_inside("evaluate", result["run"]), "nobody can act", "simulator")
    again = run_inside(*command, "--resume-if-exists", "--json")
    assert again.json["updates"] == result["updates"]


def test_what_needs_the_environment_is_refused_without_one(data):
    before = snapshot(data)
    refused = run_inside(*BC, "--demos", "strange")
    assert_refused(refused, "'final_episodes' is 2", "cannot be made", "simulator")
    refused = run_inside("train", "bc", "--demos", "strange", "--eval-every", 5)
    assert_refused(refused, "'eval_every' is 5", "cannot be made")
    assert_refused(run_inside("train", "sqil", "--demos", "strange"), "'AdroitHandPen-v1'")
    assert_refused(run_inside("train", "sqil", "--demos", "nameless"), "--env")
    assert_refused(run_inside("train", "bc", "--env", "dataset:x"), "spaces were not given")
    assert_refused(run_inside("train", "bc"), "--env", "--demos")
    assert_refused(run_inside("train", "bc", "--demos", "owm"), "'owm'", "'own'")
    assert snapshot(data) == before


def test_an_interrupted_run_finds_a_folder_that_lies_elsewhere(data):
    shutil.move(data / "data/demos/CartPole/strange-v0", data / "elsewhere")
    command = ("train", "bc", "--set", "max_epochs=4", "--demos", "elsewhere")
    first = run_inside(*command, "--steps", 1, "--json")
    assert first.code == 0, first.stderr
    resumed = run_inside(*command, "--resume", "--json")
    assert resumed.code == 0, resumed.stderr
    assert_refused(run_inside(*command, "--seed", 0, "--demos", "own", "--resume"), "no run")


def test_demonstrations_without_rewards_serve_methods_that_need_none(data):
    with h5py.File(data / "data/demos/CartPole/foreign-v0/data/main_data.hdf5", "a") as file:
        for episode in file.values():
            episode["rewards"][:] = np.nan
    before = snapshot(data)
    for algo in ("marwil", "awr-offline", "dqfd", "nac"):
        refused = run_inside("train", algo, "--env", "CartPole", "--demos", "foreign")
        assert_refused(refused, "'CartPole/foreign-v0'", "no rewards", f"'{algo}'", "psq")
    assert snapshot(data) == before
    assert run_inside("show", "foreign").code == 0
    small = ("--set", "hidden=5", "--final-episodes", 2, "--eval-every", 0)
    short = (*small, "--steps", 40, "--num-envs", 4, "--set", "learning_starts=8")
    for algo, options in (
        ("bc", QUICK),
        ("psq", short),
        ("dqfd-reward-free", (*short, "--set", "pretrain_updates=5")),
    ):
        done = run_inside("train", algo, "--env", "CartPole", "--demos", "foreign", *options)
        assert done.code == 0, done.stderr
        (status,) = (data / "runs/default" / algo).rglob("run.json")
        assert json.loads(status.read_text())["demos"]["return_mean"] is None


def test_rewards_that_are_not_numbers_are_refused(data):
    with h5py.File(data / "data/demos/CartPole/foreign-v0/data/main_data.hdf5", "a") as file:
        file["episode_1/rewards"][3] = np.nan
    before = snapshot(data)
    refused = run_inside("train", "marwil", "--demos", "foreign")
    assert_refused(refused, "episode 1", "reward that is not a finite number", "leave that episode")
    assert snapshot(data) == before
