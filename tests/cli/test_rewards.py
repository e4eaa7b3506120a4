"""Rewards other than the dense one, from the command line to the files."""

from __future__ import annotations

import subprocess

import pandas as pd

from .conftest import TINY, environment, outside, run_inside

TRAIN = ("train", "dqn", "--env", "CartPole", "--reward", "delay-7", *TINY)
RUN = "runs/default/dqn/CartPole-delay-7/seed0"


def test_a_run_with_another_reward(folder):
    """Folder, files, results and a resumed run all know the reward; both returns are kept."""
    outcome = run_inside(*TRAIN)
    assert outcome.code == 0, outcome.stderr
    assert "dense return" in outcome.stdout
    for name in ("episodes.csv", "eval.csv"):
        rows = pd.read_csv(folder / RUN / name)
        assert (rows["dense_return"] == rows["episode_length"]).all()
        assert (rows["episode_return"] == rows["dense_return"]).all()  # all of it is paid late
    assert "reward delay-7" in run_inside("show", RUN).stdout
    assert run_inside("show", RUN, "--json").json["status"]["reward"] == "delay-7"
    assert run_inside(*TRAIN, "--resume").code == 0
    other = run_inside(*TRAIN, "--reward", "delay-8", "--resume")
    assert "there is no run to resume in runs/default/dqn/CartPole-delay-8" in other.stderr

    result = run_inside("evaluate", RUN, "--episodes", 3, "--json", "-q").json
    assert result["reward"] == "delay-7"
    assert result["return_mean"] == result["dense_return_mean"] == result["length_mean"]
    sparse = run_inside("evaluate", RUN, "--episodes", 3, "--reward", "sparse", "--json", "-q").json
    assert (sparse["reward"], sparse["dense_return_mean"]) == ("sparse", result["return_mean"])
    assert sparse["return_mean"] <= max(0.0, result["return_mean"] - 200)


def test_an_interrupted_run_says_how_to_go_on(folder):
    with subprocess.Popen(
        outside(*TRAIN, "--steps", 10**8), env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # it has begun
        process.terminate()
        told = process.stderr.read()
    assert "--env CartPole --reward delay-7" in told


def test_demonstrations_of_one_reward_serve_a_run_of_another(folder):
    made = run_inside(
        "collect-demos", "--env", "CartPole", "--reward", "sparse", "--episodes", 2, "--json"
    )
    assert made.json["reward"] == "sparse"
    assert made.json["return_mean"] == 300
    assert "train sqil --env CartPole --reward sparse --demos" in made.stderr
    short = ("--set", "max_epochs=2", "--final-episodes", 2)
    trained = run_inside("train", "bc", "--env", "CartPole", *short, "--json")
    assert trained.code == 0, trained.stderr
    status = run_inside("show", trained.json["run"], "--json").json["status"]
    assert (status["demos"]["reward"], status["reward"]) == ("sparse", "dense")
    listed = run_inside("list", "demos", "--json").json["demos"]
    assert [entry["reward"] for entry in listed] == ["sparse"]


def test_rewards_that_there_are_not(folder):
    outcome = run_inside("train", "dqn", "--env", "LunarLander", "--reward", "sparse")
    assert outcome.code == 2
    assert "LunarLander has no reward 'sparse'" in outcome.stderr
    assert "environments that have one: CartPole, MountainCar" in outcome.stderr
    assert not (folder / "runs").exists()


def test_the_list_of_environments_tells_the_rewards():
    entries = {e["name"]: e["rewards"] for e in run_inside("list", "envs", "--json").json["envs"]}
    assert entries["Hopper"] == ["dense", "sparse", "beyond", "delay-K"]
    assert entries["Reacher"] == ["dense", "sparse", "delay-K"]
    assert entries["LunarLander"] == ["dense", "delay-K"]
    assert "beyond" in run_inside("list", "envs").stdout
