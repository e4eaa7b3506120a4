"""Car Racing through the commands: collect, train, evaluate, plot; and what is refused."""

import pytest

from .conftest import assert_refused, run_inside

SHORT = ("--env-option", "max_steps=8")
TINY = ("--set", "hidden=5", "--eval-episodes", 1, "--final-episodes", 1, "--no-progress")
SQIL = ("batch_size=3", "learning_starts=10", "buffer_size=50", "updates_per_env_step=0.2")


@pytest.mark.parametrize("colour", ["gray", "rgb"])
def test_from_demonstrations_to_a_figure(folder, colour):
    env = ("--env", "CarRacing", *SHORT, "--env-option", f"colour={colour}")
    outcome = run_inside("collect-demos", *env, "--episodes", 2, "--json")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.json["transitions"], outcome.json["success_rate"]) == (16, None)
    settings = [word for setting in SQIL for word in ("--set", setting)]
    for command in (
        ("train", "bc", *env, *TINY, "--set", "max_epochs=2"),
        ("train", "sqil", *env, "--start", "shifted", *TINY, *settings, "--steps", 48,
         "--num-envs", 3, "--eval-every", 24),
    ):  # fmt: skip
        outcome = run_inside(*command, "--json")
        assert outcome.code == 0, outcome.stderr
    assert (outcome.json["env_steps"], outcome.json["updates"]) == (48, 7)
    run, film = "sqil/CarRacing-shifted/seed0", ("--record-video", 1) if colour == "rgb" else ()
    outcome = run_inside("evaluate", run, "--episodes", 2, *film, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["length_mean"] == 8
    assert len(list(folder.rglob("*.mp4"))) == len(film) / 2
    if colour == "gray":
        outcome = run_inside("plot", "sqil", "bc", "--out", "figure.png")
        assert outcome.code == 0, outcome.stderr
        assert (folder / "figure.png").stat().st_size > 5_000


def test_what_does_not_fit_is_refused(folder):
    for start in ("standard", "shifted"):
        outcome = run_inside(
            "collect-demos", "--env", "CarRacing", *SHORT, "--start", start, "--episodes", 1,
            "--name", start,
        )  # fmt: skip
        assert outcome.code == 0, outcome.stderr
    train = ("train", "bc", "--env", "CarRacing")
    for command, *words in (
        (("train", "bc", "--env", "CarRacing3", "--demos", "CarRacing/standard"), "'CarRacing' th"),
        ((*train, "--env-option", "size=40", "--demos", "standard"), "option 'size' is 64 there"),
        ((*train, "--env-option", "colour=rgb", "--demos", "standard"), "'gray' there"),
        ((*train, "--start", "shifted", "--demos", "shifted"), "begin at the shifted start"),
        ((*train, "--env-option", "colour=red"), "must be one of gray, rgb"),
        (("train", "sac", "--env", "CarRacingContinuous"), "observations of", "are images"),
        (("train", "dagger", "--env", "CarRacing"), "are images"),
    ):
        assert_refused(run_inside(*command), *words)
