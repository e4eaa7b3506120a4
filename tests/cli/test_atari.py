"""Atari games through the commands: collecting in pixels, looking at it, and what is refused."""

import shutil

import pytest

from rlfd import demos
from rlfd.envs import EnvConfig

from .conftest import assert_refused, run_inside, unfinish

SHORT = ("--env", "Kaboom", "--env-option", "max_frames=400")
COLLECT = ("collect-demos", *SHORT, "--policy", "random", "--steps", 150)


def test_collect_show_and_list(folder):
    outcome = run_inside(*COLLECT, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["env"] == "Kaboom"
    assert (outcome.json["episodes"], outcome.json["transitions"]) == (2, 200)  # whole episodes
    text = run_inside("show", "random").stdout
    for words in (
        "max_frames 400",
        "sticky 0.25",
        "actions minimal",
        "2 (200 steps)",
        "truncated 2",
    ):
        assert words in text
    shown = run_inside("show", "random", "--json").json
    assert len(shown["observation_quantiles"]) == 1  # over all pixels
    assert shown["info"]["env"]["options"]["frame_skip"] == 4
    (listed,) = run_inside("list", "demos", "--json").json["demos"]
    assert (listed["env"], listed["transitions"]) == ("Kaboom", 200)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A data folder with two datasets."""
    place, env = tmp_path_factory.mktemp("two"), EnvConfig("Kaboom", options={"max_frames": 40})
    for seed, name in enumerate(("random", "other")):
        actor = demos.make_demonstrator("random", env, seed=seed)
        demos.collect(env, actor, episodes=2, seed=seed, name=name, data_dir=place / "data")
    return place


@pytest.fixture
def collected(folder, two):
    shutil.copytree(two, folder, dirs_exist_ok=True)
    return folder


def test_two_collections_are_mixed(collected):
    outcome = run_inside("demos", "mix", "random:0.5", "other:0.5", "--name", "both", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["episodes"] == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("frame_skip=2",), ("option 'frame_skip'", "expected 2")),
        (("sticky=0",), ("option 'sticky'", "0.25 there")),
        (("actions=full",), ("option 'actions'", "'minimal' there", "'full'")),
        (("size=42",), ("option 'size'", "84")),
    ],
)
def test_demonstrations_that_do_not_fit_are_refused(collected, options, words):
    given = [text for option in options for text in ("--env-option", option)]
    assert_refused(
        run_inside("train", "bc", "--env", "Kaboom", *given, "--demos", "random-v0"), *words
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--env", "Pnog"), ("unknown environment 'Pnog'", "did you mean 'Pong'")),
        (("--env", "Joust"), ("unknown environment 'Joust'",)),
        (("--env", "Kaboom"), ("has no demonstrator of its own", "give --policy random, or")),
        (("--env", "Pong", "--env-option", "size=42", "--policy", "controller"),
         ("controller of Pong plays with size=84",)),
        (("--env", "Pong", "--env-option", "size=42"),
         ("trained with other options of Pong: observations have shape (4, 84, 84) there",)),
        (("--env", "Pong", "--env-option", "stick=0"), ("did you mean 'sticky'",)),
        (("--env", "Kaboom", "--env-option", "mask_score=1"), ("that have it: Asterix",)),
        (("--env", "Pong", "--env-option", "actions=keyboard"), ("minimal, full, joystick",)),
        (("--env", "Pong", "--reward", "delay-5"), ("no reward 'delay-5'",)),
    ],
)  # fmt: skip
def test_wrong_games_and_options_are_explained(folder, arguments, words):
    assert_refused(run_inside("collect-demos", *arguments), *words)


def test_games_are_listed(folder):
    listed = {entry["name"]: entry for entry in run_inside("list", "envs", "--json").json["envs"]}
    assert listed["MsPacman"]["gymnasium_id"] == "ALE/MsPacman-v5"
    assert listed["MsPacman"]["options"]["actions"] == "minimal"
    assert listed["MsPacman"]["rewards"] == ["dense"]
    assert "mask_score" not in listed["Kaboom"]["options"]


def test_no_gpu_with_cuda(collected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for command in (
        ("train", "bc", "--env", "Kaboom", "--demos", "random"),
        ("reproduce", "sqil-pong"),
    ):
        outcome = run_inside(*command, "--device", "cuda")
        assert_refused(outcome, "no CUDA device was found", "--device cpu")
    assert not (collected / "runs").exists()


def test_a_run_from_a_gpu_cannot_go_on_without_one(folder, monkeypatch):
    command = (
        "train",
        "dqn",
        "--env",
        "CartPole",
        "--steps",
        20,
        "--final-episodes",
        1,
        "--set",
        "learning_starts=9",
    )
    assert run_inside(*command).code == 0
    run = folder / "runs/default/dqn/CartPole/seed0"
    unfinish(run)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = run_inside("train", "dqn", "--env", "CartPole", "--resume")
    assert_refused(outcome, "seed0 learns on device cuda: no CUDA device was found", "--exp-name")


def test_a_suite_whose_demonstrators_do_not_come_along(folder, monkeypatch):
    monkeypatch.setattr("rlfd.demos.strengths", lambda env: ["weak"] if env == "Pong" else [])
    command = ("reproduce", "psq-atari", "--envs", "Pong, MsPacman")
    assert_refused(run_inside(*command), "with rlfd yet: Pong (strong), MsPacman (strong)")
    assert_refused(
        run_inside(*command, "--group", "weak"),
        "with rlfd yet: MsPacman (weak)",
        "'rlfd collect-demos --env MsPacman --policy RUN --steps 40000 --name psq-atari-weak-v0 "
        "--data-dir data'",
    )
    assert not list(folder.iterdir())


def test_a_suite_on_fewer_games_and_steps(folder):
    command = ("reproduce", "psq-atari", "--envs", "MsPacman", "--steps", "50k", "--seeds", "3-4")
    runs = run_inside(*command, "--device", "cuda", "--dry-run", "--json").json["runs"]
    assert len(runs) == 2 * 5
    assert {run["run"].split("/")[2] for run in runs} == {"MsPacman"}
    (psq,) = [run["command"] for run in runs if "/psq/MsPacman/seed4" in run["run"]]
    assert "--steps 50000 --eval-every 10000" in psq
    assert "--set pretrain_env_steps=2000 " in psq
    assert "--device cuda" in psq
