"""`rlfd demos mix` from end to end, and what one can get wrong with it."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from rlfd import demos as library
from rlfd.envs import EnvConfig

from .conftest import assert_refused, run_inside, snapshot

MIX = ("demos", "mix", "CartPole/controller:0.5", "random:0.5")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A data folder with a good and a bad dataset of CartPole, and one of Lunar Lander."""
    place = tmp_path_factory.mktemp("two")
    for env, policy, episodes in (
        ("CartPole", "controller", 4),
        ("CartPole", "random", 3),
        ("LunarLander", "random", 3),
    ):
        config = EnvConfig(env)
        actor = library.make_demonstrator(policy, config, seed=0)
        name = policy if env == "CartPole" else "lander"
        library.collect(config, actor, episodes=episodes, name=name, data_dir=place / "data")
    return place


@pytest.fixture
def data(folder, two):
    shutil.copytree(two, folder, dirs_exist_ok=True)
    return folder


def test_mix(data):
    outcome = run_inside(*MIX, "--name", "half", "--seed", 3, "--json")
    assert outcome.code == 0, outcome.stderr
    result = outcome.json
    assert {"name", "path", "env", "start", "episodes", "transitions"} <= set(result)
    assert (result["name"], result["env"], result["episodes"]) == ("half-v0", "CartPole", 6)
    assert result["demonstrator"]["policy"] == "mixture"
    assert result["demonstrator"]["seed"] == 3
    good, bad = result["demonstrator"]["parts"]
    assert (good["id"], good["share"], good["episodes"]) == ("CartPole/controller-v0", 0.5, 3)
    assert good["return_mean"] == 500
    assert result["return_mean"] == pytest.approx((good["return_mean"] + bad["return_mean"]) / 2)
    assert "rlfd train sqil --env CartPole --demos half-v0" in outcome.stderr
    (known,) = [d for d in library.list_all(data / "data") if d.id == good["id"]]
    assert good["content_hash"] == known.content_hash


def test_show_and_list_name_the_parts(data):
    assert run_inside(*MIX, "--name", "half").code == 0
    text = run_inside("show", "half").stdout
    assert "policy mixture, seed 0" in text
    for part in ("mixture of", "CartPole/controller-v0", "CartPole/random-v0", "sha256:"):
        assert part in text
    listed = run_inside("list", "demos").stdout
    assert "0.5 controller-v0 + 0.5 random-v0" in listed
    (entry,) = [
        entry
        for entry in run_inside("list", "demos", "--json").json["demos"]
        if entry["name"] == "half-v0"
    ]
    assert [part["name"] for part in entry["parts"]] == ["controller-v0", "random-v0"]


def test_a_mixture_is_learned_from(data):
    assert run_inside(*MIX, "--name", "half", "--episodes", 4).code == 0
    outcome = run_inside(
        "train", "bc", "--env", "CartPole", "--demos", "half", "--set", "max_epochs=1",
        "--final-episodes", 2, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    status = run_inside("show", outcome.json["run"], "--json").json["status"]
    assert status["demos"]["name"] == "CartPole/half-v0"
    assert status["demos"]["episodes"] == 4


def test_performance_over_quality(data):
    """From datasets to the figure with the commands alone."""
    assert run_inside(*MIX, "--name", "half").code == 0
    for name in ("CartPole/random", "half"):
        outcome = run_inside(
            "train", "bc", "--demos", name, "--exp-name", name.rpartition("/")[2], "--set",
            "max_epochs=1", "--final-episodes", 2,
        )  # fmt: skip
        assert outcome.code == 0, outcome.stderr
    for axis in ("quality", "num-demos"):
        outcome = run_inside("plot", "runs", "--x", axis, "--out", f"{axis}.png", "--json")
        assert outcome.code == 0, outcome.stderr
        assert (data / f"{axis}.png").read_bytes().startswith(b"\x89PNG")
    points = pd.read_csv("quality.csv", comment="#").query("kind == 'point'")
    assert points["label"].tolist() == ["BC", "BC"]
    assert points["num_demos"].tolist() == [3, 6]
    assert points["x"].iloc[0] < 60 < points["x"].iloc[1]
    refused = run_inside("plot", "runs", "--x", "quality", "--policy", "both")
    assert_refused(refused, "--policy both", "--policy sampled")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("controller:0.5", "random:0.4"), ("0.5 + 0.4", "add up to 0.9", "expected 1")),
        (("controller:0.5", "lander:0.5"), ("'CartPole'", "'LunarLander'", "list demos")),
        (("controller", "random:0.5"), ("'controller'", "controller:0.5")),
        (("controller:a", "random:0.5"), ("'controller:a'", "share")),
        (("controller:1/0", "random:0.5"), ("'controller:1/0'", "share")),
        (("controller:nan", "random:0.5"), ("'controller:nan'", "share")),
        (("controller:1",), ("at least two parts",)),
        (("controler:0.5", "random:0.5"), ("'controler'", "'controller'", "list demos")),
        (
            ("controller:0.5", "random:0.5", "--episodes", 8),
            ("'CartPole/random-v0' have 3", "is 4", "--episodes"),
        ),
        (("controller:0.5", "random:0.5", "--episodes", 0), ("--episodes",)),
        (("controller:0.5", "controller-v0:0.5"), ("are the same",)),
        (("controller:0.5", "random:0.5", "--name", "a/b"), ("'a/b'", "letters")),
        (("controller:0.5", "random:0.5", "--name", "random-v0"), ("random-v0", "exist already")),
    ],
)
def test_bad_input(data, words, texts):
    before = snapshot(data)
    command = ("demos", "mix", *words)
    if "--name" not in words:
        command += ("--name", "half")
    assert_refused(run_inside(*command), *texts)
    assert snapshot(data) == before


def test_the_name_must_be_given(data):
    assert_refused(run_inside(*MIX), "--name", "rlfd demos mix --help")


def test_without_a_command_the_help_is_shown(folder):
    outcome = run_inside("demos")
    assert outcome.code == 2
    assert "mix" in outcome.stdout
    assert_refused(run_inside("demos", "mixx"), "mixx", "'mix'")


def test_a_full_disk_leaves_nothing(data, monkeypatch):
    import errno

    from rlfd.demos import storage

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_write_bytes", full)
    before = snapshot(data)
    assert_refused(run_inside(*MIX, "--name", "half"), "disk is full", code=1)
    assert snapshot(data) == before
