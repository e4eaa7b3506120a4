"""Policies as files on the command line: exported, listed, evaluated, demonstrating."""

from __future__ import annotations

import re

import pytest

from rlfd.demos import shipped

from .conftest import DQN, RUN, assert_refused, run_inside, snapshot

EXPORT = ("export", "dqn/CartPole/seed0", "--episodes", 3)
CONTINUOUS = (
    "train", "bc", "--env", "Pendulum", "--set", "max_epochs=1", "--set", "hidden=5",
    "--final-episodes", 1, "--compile", "off",
)  # fmt: skip


def test_export_and_what_it_is_good_for(full_folder):
    outcome = run_inside(*EXPORT, "--out", "new/mine.safetensors", "--json")
    assert outcome.code == 0, outcome.stderr
    made = outcome.json
    assert made["file"] == "new/mine.safetensors"
    assert made["mode"] == "greedy"
    assert made["score"]["episodes"] == 3
    assert made["command"].startswith("rlfd train dqn --env CartPole --steps 400")
    assert "rlfd collect-demos --env CartPole --policy new/mine.safetensors" in outcome.stderr

    shown = run_inside("show", "new/mine.safetensors", "--json").json
    assert shown == made
    assert f"trained with  {made['command']}" in run_inside("show", made["file"]).stdout

    evaluated = run_inside("evaluate", "new/mine.safetensors", "--episodes", 3, "--json")
    assert evaluated.json["return_mean"] == made["score"]["return_mean"]
    assert evaluated.json["checkpoint"] == made["checkpoint"]
    assert "collect-demos" in evaluated.stderr

    command = ("collect-demos", "--env", "CartPole", "--episodes", 2, "--json")
    by_file = run_inside(*command, "--policy", "new/mine.safetensors").json
    assert by_file["name"] == "mine-v0"
    assert by_file["demonstrator"]["policy"] == "file"
    by_run = run_inside(
        *command, "--policy", RUN, "--checkpoint", made["checkpoint"], "--name", "run"
    ).json
    assert by_file["content_hash"] == by_run["content_hash"]


def test_export_in_words(full_folder):
    outcome = run_inside(*EXPORT, "--out", "a.safetensors", "--checkpoint", "latest", "-q")
    assert outcome.stderr == ""
    assert "dqn, greedy, after 402 env steps" in outcome.stdout
    assert re.search(r"^return +\d", outcome.stdout, re.MULTILINE)


def test_the_command_in_a_file_trains_the_same_run(full_folder):
    text = run_inside(*EXPORT, "--out", "a.safetensors", "--json").json["command"]
    assert set(text.split()) == {"rlfd", *map(str, DQN)}


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ((*EXPORT, "--out", "a.pt"), ("'a.pt'", ".safetensors")),
        ((*EXPORT, "--out", "taken.safetensors"), ("exists already", "--overwrite")),
        (("export", "dqn/CartPole/seed7", "--out", "b.safetensors"), ("seed0", "list runs")),
        ((*EXPORT, "--out", "b.safetensors", "--checkpoint", "7"), ("checkpoint '7'", "402")),
        ((*EXPORT, "--out", "b.safetensors", "--sampled"), ("sampled", "greedy")),
        (("evaluate", "taken.safetensors"), ("taken.safetensors", "damaged")),
        (("evaluate", "none.safetensors"), ("no policy file", "rlfd export")),
        (
            ("evaluate", "good.safetensors", "--checkpoint", "best"),
            ("--checkpoint", "single policy"),
        ),
        (
            ("collect-demos", "--env", "CartPole", "--policy", "taken.safetensors"),
            ("taken.safetensors", "damaged", "rlfd export"),
        ),
        (
            ("collect-demos", "--env", "LunarLander", "--policy", "good.safetensors"),
            ("was trained on CartPole", "(4,)", "(8,)"),
        ),
        (
            ("collect-demos", "--env", "Pendulum", "--policy", "good.safetensors"),
            ("was trained on CartPole", "discrete there, continuous here"),
        ),
        (
            ("collect-demos", "--env", "Acrobot", "--policy", "shipped"),
            ("no policy for Acrobot", "--policy"),
        ),
        (
            ("collect-demos", "--env", "CartPole", "--policy", "controler"),
            ("unknown run 'controler'", "controller, random"),
        ),
        (("show", "taken.safetensors"), ("taken.safetensors", "damaged")),
        (
            ("collect-demos", "--env", "CartPole", "--action-noise", 0.1),
            ("continuous actions", "Discrete(2)", "--noise"),
        ),
        (("list", "envs", "--markdown"), ("list demonstrators --markdown",)),
    ],
)
def test_what_is_refused(full_folder, command, texts):
    assert run_inside(*EXPORT, "--out", "good.safetensors").code == 0
    (full_folder / "taken.safetensors").write_bytes(b"something else")
    before = snapshot(full_folder)
    assert_refused(run_inside(*command), *texts)
    assert snapshot(full_folder) == before


def test_shipped_policies(full_folder, monkeypatch):
    """A policy that comes with the tool is listed, demonstrates, and is used unasked."""
    monkeypatch.setattr(shipped, "FOLDER", full_folder / "policies")
    collect = ("collect-demos", "--env", "Pendulum", "--policy", "random", "--episodes", 2)
    assert run_inside(*collect).code == 0
    assert run_inside(*CONTINUOUS).code == 0
    for strength in ("strong", "weak"):
        out = f"policies/Pendulum-{strength}.safetensors"
        export = ("export", "bc/Pendulum/seed0", "--episodes", 2, "--out", out)
        assert run_inside(*export).code == 0

    listed = run_inside("list", "demonstrators", "--json").json["demonstrators"]
    ours = [entry for entry in listed if entry["env"] == "Pendulum"]
    assert [entry["policy"] for entry in ours] == ["shipped", "shipped:weak"]
    assert "shipped:weak" in run_inside("list", "demonstrators").stdout
    envs = {entry["name"]: entry for entry in run_inside("list", "envs", "--json").json["envs"]}
    assert envs["Pendulum"]["demonstrator"] == "shipped"
    assert envs["Pendulum"]["demonstrator_return"] == ours[0]["return_mean"]
    page = run_inside("list", "demonstrators", "--markdown").stdout
    assert ours[1]["command"] in page
    assert ours[1]["export"] in page

    command = ("collect-demos", "--env", "Pendulum", "--episodes", 1, "--json")
    bare, weak = run_inside(*command), run_inside(*command, "--policy", "shipped:weak")
    assert bare.json["demonstrator"]["name"] == "Pendulum-strong"
    assert weak.json["demonstrator"]["name"] == "Pendulum-weak"

    other = ("--data-dir", "fresh", "--exp-name", "bare", "--json")
    outcome = run_inside(*CONTINUOUS, *other)
    assert outcome.code == 0, outcome.stderr
    assert "collecting 100 episodes of its shipped policy" in outcome.stderr
