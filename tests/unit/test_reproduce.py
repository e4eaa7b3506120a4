from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from rlfd import demos
from rlfd.cli.main import app
from rlfd.envs import EnvConfig, check
from rlfd.errors import RlfdError
from rlfd.experiments import measuring as module
from rlfd.experiments.config import resolve
from rlfd.experiments.problem import check_support
from rlfd.experiments.reproduce import reproduce
from rlfd.experiments.suite import DEMONSTRATIONS
from rlfd.experiments.suite_file import list_suites, load_suite, parse_suite
from rlfd.experiments.suite_plan import demo_env, plan, row_env, rows_of, sections_of
from rlfd.experiments.tables import BEST_TRAINING

from .small_suites import Done

SMALL = """
title = "A small suite"
paper = "A paper, table 1"
seeds = [0, 1, 2]
steps = 3000
protocol = ["One line."]
[[tasks]]
name = "shifted"
env = "LunarLander"
start = "shifted"
[[tasks]]
name = "demo"
env = "LunarLander"
start = "demo"
[[demos]]
name = "all"
policy = "controller"
start = "demo"
episodes = 3
[[groups]]
name = "paper"
title = "Methods"
[[groups]]
name = "more"
title = "More"
[[figures]]
name = "methods"
group = "paper"
rows = ["SQIL", "BC"]
[[figures]]
name = "others"
group = "more"
rows = ["Fast"]
[[rows]]
label = "Demonstrator"
policy = "controller"
paper = { shifted = [0.93, 0.03], demo = [0.89, 0.31] }
note = "odd spread"
[[rows]]
label = "BC"
algo = "bc"
paper = { shifted = [0.07, 0.03], demo = [0.93, 0.03] }
[[rows]]
label = "GAIL"
unavailable = "not there yet"
paper = { shifted = [0.98, 0.01], demo = [0.95, 0.02] }
[[rows]]
label = "SQIL"
algo = "sqil"
paper = { shifted = [0.89, 0.02], demo = [0.88, 0.03] }
groups = ["paper", "more"]
[[rows]]
label = "Fast"
algo = "sqil"
variant = "fast"
settings = { gamma = 0, layer_norm = false }
preset = "paper"
groups = ["more"]
[[rows]]
label = "DQN"
algo = "dqn"
groups = ["more"]
"""
FINALS = {"sqil": {"shifted": 0.8, "demo": 0.9}, "bc": {"shifted": 0.25, "demo": 1.0}}


class FakeEngine:
    """Writes finished runs at once; `broken` names jobs that fail."""

    slots = 1

    def __init__(self, make_run, broken=()):
        self.make_run, self.broken, self.submitted = make_run, broken, []

    def submit(self, job, log):
        self.submitted.append(job.name)
        algo, start = job.config.algo, job.config.env.start
        if job.name in self.broken:
            log.write_text("error: out of memory\n")
            return Done(1)
        self.make_run(
            config=job.config,
            final=FINALS.get(algo, {}).get(start, 0.5),
            steps=() if algo == "bc" else (1000, 2000, 3000),
            training=[] if algo == "bc" else [0, 1] * 50 + [1] * 80,
            demos=None,
        )
        return Done(0)


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.setattr(module, "EPISODES", 3)
    return parse_suite("small", SMALL)


@pytest.mark.parametrize("name", list_suites())
def test_shipped_suites_fit_this_version(name, tmp_path):
    suite = load_suite(name)
    for task in suite.tasks:
        check(task.config)
    for steps in (None, 1000):
        assert plan(suite, runs_dir=tmp_path, data_dir=tmp_path, groups=["all"], steps=steps)
    sections = list(sections_of(suite, ["all"]))
    for section in sections:
        if section.demos is not None:
            wanted = demo_env(section.task, section.demos)
            check(wanted)
            known = [*demos.policies(wanted), "shipped", "shipped:weak"]
            assert section.demos.mix or section.demos.policy in known
        for row in rows_of(suite, section):
            if row.policy != DEMONSTRATIONS and row.policy:
                assert row.policy in demos.policies(section.task.config)
    supported = set()
    for job in plan(suite, runs_dir=tmp_path, data_dir=tmp_path, groups=["all"], seeds=[0]):
        outcome = CliRunner().invoke(app, [*job.argv[3:], "--show-config", "--json"])
        assert outcome.exit_code == 0, outcome.output
        config = json.loads(outcome.stdout)["config"]
        if (config["algo"], config["env"]["name"]) not in supported:
            check_support(config["algo"], EnvConfig.from_json(config["env"]))
            supported.add((config["algo"], config["env"]["name"]))
    for row in filter(lambda row: row.settings, suite.rows):
        usual = [
            resolve(
                row.algo, row_env(row, section.task), preset=row.preset or None
            ).config.algorithm
            for section in sections
            if row in rows_of(suite, section)
        ]
        for key, value in row.settings.items():  # each changes something on some task
            given = tuple(value) if isinstance(value, list) else value
            assert any(getattr(config, key) != given for config in usual), row.label


def test_the_paper_numbers_of_sqil():
    rows = {row.label: row for row in load_suite("sqil-lunarlander").rows}
    assert rows["SQIL"].paper == {"shifted": [0.89, 0.02], "demo": [0.88, 0.03]}
    assert rows["SQIL-T"].paper == {"shifted": [0.66, 0.02], "demo": [0.89, 0.01]}
    assert rows["BC"].paper == {"shifted": [0.07, 0.03], "demo": [0.93, 0.03]}
    assert rows["GAIL"].paper == {"shifted": [0.98, 0.01], "demo": [0.95, 0.02]}
    paper_runs = [row for row in rows.values() if "paper" in row.groups]
    assert len(paper_runs) == 9
    assert all(row.paper for row in paper_runs)


def test_the_paper_numbers_of_sqil_on_images():
    rows = {row.label: row for row in load_suite("sqil-carracing").rows}
    assert rows["SQIL"].paper == {"shifted": [375, 19], "standard": [704, 6]}
    assert rows["SQIL-T"].paper == {"shifted": [311, 10], "standard": [693, 7]}
    assert rows["BC"].paper == {"shifted": [-45, 18], "standard": [698, 10]}
    assert rows["GAIL"].paper == {"shifted": [17, 0], "standard": [7, 1]}
    assert rows["GAIL, Q-learner"].paper == {"shifted": [-97, 3], "standard": [-66, 8]}
    assert rows["Random"].paper == {"shifted": [-21, 56], "standard": [-68, 4]}
    assert rows["Demonstrator"].paper == {"shifted": [480, 11], "standard": [704, 79]}


def test_unknown_names(suite, folders):
    with pytest.raises(RlfdError, match="did you mean 'sqil-lunarlander'"):
        load_suite("sqil-lunarlandr")
    with pytest.raises(RlfdError, match="did you mean 'more'"):
        plan(suite, **folders, groups=["mor"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rows = ["SQIL", "BC"]', 'rows = ["SQIL", "B"]', "names 'B'"),
        ('groups = ["more"]', 'groups = ["less"]', "names 'less'"),
        ("{ shifted = [0.07", "{ shfted = [0.07", "names 'shfted'"),
        ('policy = "controller"\npaper', 'policy = "controller"\nalgo = "bc"\npaper', "one of"),
        ('variant = "fast"\n', "", "have one run folder, small/sqil/LunarLander-shifted/seed0"),
        ('label = "DQN"', 'label = "BC"', "one name twice"),
        ("preset =", "present =", "names 'present', expected .*preset"),
    ],
)
def test_a_suite_file_that_contradicts_itself(old, new, message):
    assert old in SMALL
    with pytest.raises(ValueError, match=message):
        parse_suite("small", SMALL.replace(old, new))


def test_plan(suite, folders):
    jobs = plan(suite, **folders)
    assert [job.name for job in jobs[:4]] == [
        "small/bc/LunarLander-shifted/seed0",
        "small/bc/LunarLander-demo/seed0",
        "small/sqil/LunarLander-shifted/seed0",
        "small/sqil/LunarLander-demo/seed0",
    ]
    assert len(jobs) == 2 * 2 * 3
    assert jobs[4].name.endswith("seed1")  # the seed is the outermost loop
    bc, sqil = jobs[0], jobs[2]
    assert sqil.run_dir == folders["runs_dir"] / sqil.name
    assert (
        "rlfd train sqil --env LunarLander --start shifted --demos LunarLander-demo/small-v0"
        in sqil.command
    )
    assert "--steps 3000 --seed 0 --exp-name small" in sqil.command
    assert sqil.command.endswith("--resume-if-exists")
    assert "--steps" not in bc.command


def test_plan_of_another_group(suite, folders):
    jobs = plan(suite, **folders, seeds=[4], steps=70, groups=["more"])
    assert len(jobs) == 3 * 2
    fast = next(job.command for job in jobs if "fast" in job.name)
    assert "--exp-name small-fast --preset paper --set gamma=0 --set layer_norm=false" in fast
    assert "--steps 70 --seed 4" in fast
    dqn = next(job.command for job in jobs if "/dqn/" in job.name)
    assert "--demos" not in dqn
    everything = plan(suite, **folders, seeds=[4], groups=["all"])
    assert len(everything) == len({job.run_dir for job in everything}) == 4 * 2


def test_ours_beside_the_paper(suite, folders, make_run):
    engine = FakeEngine(make_run)
    result = reproduce(suite, **folders, engine=engine, command="rlfd reproduce small")
    assert not result.failures
    assert len(engine.submitted) == 12
    table = result.table.set_index(["task", "row", "measure"])
    sqil = table.loc["shifted", "SQIL", "final, sampled"]
    assert (sqil["n"], sqil["mean"]) == (3, pytest.approx(0.8))
    assert table.loc["demo", "SQIL", "best, greedy"]["mean"] == pytest.approx(0.75)
    best = table.loc["shifted", "SQIL", BEST_TRAINING]
    assert best["mean"] == pytest.approx(0.9)
    assert (best["paper"], best["paper_spread"]) == (0.89, 0.02)
    # without training episodes: the final evaluation of the policy that BC is judged by, greedy
    assert table.loc["demo", "BC", BEST_TRAINING]["mean"] == pytest.approx(0.75)
    demonstrator = table.loc["demo", "Demonstrator", "final, sampled"]
    assert (demonstrator["n"], demonstrator["mean"]) == (3, 1.0)
    assert table.loc["demo", "GAIL", "final, sampled"]["n"] == 0

    text = result.text_tables["Methods: LunarLander, shifted start"].set_index("method")
    assert text.loc["SQIL", "paper"] == "0.89 ± 0.02"
    assert text.loc["SQIL", "final, sampled"].startswith("0.80 ± 0.00")
    assert text.loc["GAIL", "final, sampled"] == "–"
    assert text.loc["GAIL", "note"] == "not there yet"
    assert text.loc["Demonstrator", "note"] == "odd spread"

    results = folders["runs_dir"] / "small" / "results"
    assert result.folder == results
    assert [files.figure for files in result.figures] == [results / "methods.png"]
    drawn = pd.read_csv(results / "methods.csv", comment="#")
    assert set(drawn["label"]) == {"SQIL", "BC", "Demonstrator"}
    assert set(drawn["env"]) == {"LunarLander-shifted", "LunarLander-demo"}
    content = (results / "table.md").read_text()
    assert "Made by `rlfd reproduce small`" in content
    assert "| SQIL | 3 | 0.80 ± 0.00" in content
    saved = json.loads((results / "table.json").read_text())
    assert [found["name"] for found in saved["demonstrations"]] == ["LunarLander-demo/small-v0"]
    assert len(saved["rows"]) == len(result.table) == len(pd.read_csv(results / "table.csv"))
    assert saved["failures"] == []


def test_again_makes_only_what_is_missing(suite, folders, make_run):
    options = folders | {"seeds": [0]}
    broken = "small/sqil/LunarLander-demo/seed0"
    first = reproduce(suite, **options, engine=FakeEngine(make_run, {broken}))
    assert [result.job.name for result in first.failures] == [broken]
    assert "out of memory" in first.failures[0].error
    table = first.table.set_index(["task", "row", "measure"])
    assert table.loc["demo", "SQIL", "final, sampled"]["n"] == 0
    assert table.loc["demo", "SQIL", "final, sampled"]["note"] == "0 of 1 runs finished"
    content = (first.folder / "table.md").read_text()
    assert "failed: `rlfd train sqil --env LunarLander --start demo" in content
    engine = FakeEngine(make_run)
    second = reproduce(suite, **options, engine=engine)
    assert engine.submitted == [broken]
    assert not second.failures


def test_groups_have_tables_and_figures_of_their_own(suite, folders, make_run):
    options = folders | {"seeds": [0], "groups": ["more"], "figure_suffix": ".svg"}
    result = reproduce(suite, **options, engine=FakeEngine(make_run))
    assert list(result.text_tables) == [
        "More: LunarLander, shifted start",
        "More: LunarLander, demo start",
    ]
    assert set(result.table["row"]) == {"SQIL", "Fast", "DQN"}
    assert [files.figure.name for files in result.figures] == ["others.svg"]


def test_runs_of_another_length_are_not_mixed_in(suite, folders, make_run):
    make_run(exp_name="small", steps=(100, 200), success=(0, 0))
    engine = FakeEngine(make_run)
    with pytest.raises(RlfdError, match="holds a run of 200 env steps, this suite wants 3000"):
        reproduce(suite, **folders, engine=engine)
    assert engine.submitted == []


def test_runs_on_other_demonstrations_are_not_mixed_in(suite, folders, make_run):
    make_run(config=plan(suite, **folders)[0].config, demos={"name": "x", "hash": "another"})
    with pytest.raises(RlfdError, match="trained on other demonstrations"):
        reproduce(suite, **folders, engine=FakeEngine(make_run))


def test_runs_with_other_settings_are_not_mixed_in(suite, folders, make_run):
    jobs = plan(suite, **folders, groups=["more"])
    fast = next(job for job in jobs if "fast" in job.name)
    usual = dataclasses.replace(fast.config.algorithm, gamma=0.99)
    make_run(config=dataclasses.replace(fast.config, algorithm=usual), demos=None)
    engine = FakeEngine(make_run)
    with pytest.raises(RlfdError, match=r"run with gamma=0.99, this suite wants gamma=0"):
        reproduce(suite, **folders, engine=engine, groups=["more"])
    assert engine.submitted == []


def test_demonstrations_are_made_once(suite, folders, make_run):
    options = folders | {"seeds": [0], "engine": FakeEngine(make_run)}
    reproduce(suite, **options)
    found = demos.list_all(folders["data_dir"])
    assert [(info.name, info.episodes, info.env.start) for info in found] == [
        ("small-v0", 3, "demo")
    ]
    reproduce(suite, **options)
    assert len(demos.list_all(folders["data_dir"])) == 1
    more = parse_suite("small", SMALL.replace("episodes = 3", "episodes = 4"))
    with pytest.raises(RlfdError, match="have 3 episodes, this suite wants 4"):
        reproduce(more, **options)
