"""Demonstrations of a suite: collected, mixed, by steps, or missing."""

import shutil

import pytest
from typer.testing import CliRunner

from rlfd import demos
from rlfd.cli.main import app
from rlfd.errors import RlfdError
from rlfd.experiments import reproduce
from rlfd.experiments.measuring import Measuring
from rlfd.experiments.report import NullReporter
from rlfd.experiments.suite_demos import datasets_of, describe
from rlfd.experiments.suite_file import parse_suite
from rlfd.experiments.suite_plan import plan, sections_of

from .small_suites import MIXED, SHIPPED, Inside


def test_sets_are_mixed_from_others(folders):
    suite = parse_suite("mixed", MIXED)
    section = next(s for s in sections_of(suite, ["half"]) if s.task.name == "car")
    collected = datasets_of(
        suite, [section], folders["runs_dir"], folders["data_dir"], NullReporter(), collect=True
    )
    assert list(collected) == ["MountainCar-sparse/mixed-half-v0"]
    (mixture,) = collected.values()
    noted = mixture.info.demonstrator
    assert [(part["id"], part["episodes"]) for part in noted["parts"]] == [
        ("MountainCar-sparse/mixed-good-v0", 2),
        ("MountainCar-sparse/mixed-weak-v0", 2),
    ]
    weak = noted["parts"][1]["demonstrator"]
    assert (weak["policy"], weak["noise"], weak["noop"]) == ("controller", 0.0, 0.25)
    described = describe("half", mixture)
    assert described["mixture"] == [
        {"share": 0.5, "name": "mixed-good-v0"},
        {"share": 0.5, "name": "mixed-weak-v0"},
    ]
    jobs = plan(suite, **folders, seeds=[0], groups=["half"], tasks=["car"])
    assert "--demos MountainCar-sparse/mixed-half-v0 " in jobs[0].command
    # once it is there, nobody asks for its parts
    for name in ("good", "weak"):
        shutil.rmtree(folders["data_dir"] / f"demos/MountainCar-sparse/mixed-{name}-v0")
    again = datasets_of(
        suite, [section], folders["runs_dir"], folders["data_dir"], NullReporter(), collect=False
    )
    assert again[mixture.info.id].info == mixture.info


def test_demonstrations_are_whole_episodes_of_so_many_steps(folders):
    text = SHIPPED.replace('policy = "shipped"', 'policy = "random"')
    suite = parse_suite("steps", text)
    sections = sections_of(suite, tasks=["pole"])

    def get(suite, collect=True):
        reporter = NullReporter()
        return datasets_of(suite, sections_of(suite, tasks=["pole"]), *folders.values(), reporter,
                           collect=collect)  # fmt: skip

    (made,) = get(suite).values()
    assert made.num_transitions - made.episodes[-1].length < 40 <= made.num_transitions
    assert len(made.episodes) > 1
    (again,) = get(suite, collect=False).values()
    assert again.info == made.info
    for steps in (made.num_transitions - made.episodes[-1].length, made.num_transitions + 1):
        other = parse_suite("steps", text.replace("steps = 40\n", f"steps = {steps}\n"))
        wanted = f"have {made.num_transitions} steps, this suite wants whole episodes until {steps}"
        with pytest.raises(RlfdError, match=wanted):
            get(other)
    with pytest.raises(RlfdError, match=f"have {len(made.episodes)} episodes.* wants 99"):
        get(parse_suite("steps", text.replace("steps = 40\n", "episodes = 99\n")))
    assert Measuring(suite, [0], folders["runs_dir"], {made.info.id: made}, NullReporter()).measure(
        sections[0], suite.row("Demonstrations")
    ).values["final, sampled"] == [made.subset(1, 0).returns.mean()]


@pytest.mark.parametrize(
    ("mended", "message"),
    [
        ('policy = "random"\nnoise = 0.25', "made with noise 0.0, this suite wants 0.25"),
        ('policy = "random"\nseed = 7', "made with seed 0, this suite wants 7"),
        ('policy = "controller"', "made with policy random, this suite wants controller"),
    ],
)
def test_demonstrations_made_by_somebody_else_are_refused(folders, mended, message):
    def get(text):
        suite = parse_suite("steps", SHIPPED.replace('policy = "shipped"', text))
        return datasets_of(suite, sections_of(suite, tasks=["pole"]), *folders.values(),
                           NullReporter(), collect=True)  # fmt: skip

    get('policy = "random"')
    with pytest.raises(RlfdError, match=message):
        get(mended)


def test_demonstrations_that_another_launcher_made_meanwhile_are_taken(folders, monkeypatch):
    suite = parse_suite("steps", SHIPPED.replace('policy = "shipped"', 'policy = "random"'))
    real = demos.collect

    def slow(*arguments, **options):
        real(*arguments, **options)
        return real(*arguments, **options)  # and again, too late

    monkeypatch.setattr(demos, "collect", slow)
    (made,) = datasets_of(suite, sections_of(suite, tasks=["pole"]), *folders.values(),
                          NullReporter(), collect=True).values()  # fmt: skip
    assert made.num_transitions >= 40


def test_policies_that_do_not_come_along_are_named_before_anything_is_collected(folders):
    text = SHIPPED.replace("pretrain_env_steps = 70", "learning_starts = 90")
    text = text.replace("steps = 800", "steps = 800\nsettings = { learning_starts = 90 }")
    suite = parse_suite("steps", text)
    with pytest.raises(RlfdError) as caught:
        reproduce.reproduce(suite, **folders, engine=Inside())
    assert caught.value.message == (
        "'steps' learns from demonstrations of policies that do not come with rlfd yet: "
        "CartPole (strong), MountainCar (strong)"
    )
    place = folders["data_dir"]
    command = "collect-demos --env CartPole --policy RUN --steps 40 --name steps-v0 --data-dir"
    assert f"'rlfd {command} {place}'" in caught.value.hint
    assert not place.exists()
    # what was recorded as the message says takes their place
    words = f"{command.replace('RUN', 'random')} {place}".split()
    assert CliRunner().invoke(app, words).exit_code == 0
    with pytest.raises(RlfdError, match=r"yet: MountainCar \(strong\): "):
        reproduce.reproduce(suite, **folders, engine=Inside())
    sections = sections_of(suite, tasks=["pole"])
    found = datasets_of(suite, sections, *folders.values(), NullReporter(), collect=True)
    assert list(found) == ["CartPole/steps-v0"]
    # a mixture needs its parts, unless it is there
    mixed = text.replace(
        "[[groups]]",
        '[[demos]]\nname = "mixed"\nmix = { shipped = 1 }\nepisodes = 2\n'
        '[[groups]]\nname = "mixed"\ntitle = "Mixed"\ndemos = ["mixed"]\n[[groups]]',
        1,
    )
    with pytest.raises(RlfdError, match=r"CartPole \(strong\)") as caught:
        reproduce.reproduce(parse_suite("parts", mixed), **folders, engine=Inside())
    assert "--name parts-shipped-v0" in caught.value.hint
    with pytest.raises(ValueError, match="'mixed' are mixed by episodes, not by steps"):
        parse_suite("parts", mixed.replace("episodes = 2", "steps = 2"))
