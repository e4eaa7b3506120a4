"""Tables and figures of suites of several tasks, whose rows start from others."""

import dataclasses
import json
from importlib.resources import files

import pandas as pd
import pytest

from rlfd.algorithms import presets
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint, reproduce, tables
from rlfd.experiments import measuring as measuring_module
from rlfd.experiments.measuring import Measuring
from rlfd.experiments.report import NullReporter
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import Task
from rlfd.experiments.suite_figures import draw_suite
from rlfd.experiments.suite_file import parse_suite
from rlfd.experiments.suite_plan import plan, sections_of

from .small_suites import GRID, RACE, Done, Inside, names


class Engine:
    """Writes finished runs at once."""

    slots = 1

    def __init__(self, make_run):
        self.make_run = make_run

    def submit(self, job, log):
        config = job.config
        if config.init is not None:
            config = dataclasses.replace(config, init=f"{config.init}:90")
        steps, training = ((), []) if config.algo == "bc" else ((90, config.steps), [0, 1] * 60)
        assert all(RunDir(folder).status()["state"] == "finished" for folder in job.needs)
        self.make_run(
            config=config,
            final=1.0 if "again" in config.exp_name else 0.5,
            steps=steps,
            success=(0.0, 0.0),
            training=training,
            demos=None,
            has_success=False,
        )
        return Done()


def test_tables_and_figures_of_a_grid(grid, folders, quick, make_run):
    result = reproduce.reproduce(
        grid, **folders, engine=Engine(make_run), groups=["good", "pole"], command="rlfd"
    )
    assert not result.failures
    assert list(result.text_tables) == [
        "Good: CartPole",
        "Good: MountainCar, sparse reward",
        "On the pole: CartPole, 1 good demonstration",
        "On the pole: CartPole, weak",
    ]
    table = result.table.set_index(["group", "task", "demos", "row", "measure"]).sort_index()
    shown = table.loc["good", "pole", "good", "Demonstrations"]
    assert (shown.loc["final, sampled", "n"], shown.loc["final, sampled", "mean"]) == (2, 500.0)
    assert shown.loc["final, sampled", "metric"] == "return"
    # half of the sampled, a quarter of the greedy episodes have return 250, the others -150
    dqn = table.loc["good", "pole", "good", "DQN"]
    assert dqn.loc["final, sampled", "mean"] == 50.0
    assert dqn.loc["final, greedy", "mean"] == -50.0
    assert dqn.loc[tables.SHARE, "mean"] == pytest.approx(-50 / 500)
    assert dqn.loc[tables.DENSE, "n"] == 0
    car = table.loc["good", "car", "good"]
    assert car.loc[("DQN from DQN", tables.DENSE), "mean"] == 150.0
    assert car.loc[("Random", tables.DENSE), "mean"] == -200.0
    assert car.loc[("Demonstrations", "final, sampled"), "mean"] == 0.0
    assert car.loc[("DQN", tables.SHARE), "n"] == 0  # no share of nothing
    assert car.loc[("On one task", tables.BEST_TRAINING), "mean"] == -50.0
    assert "On one task" not in table.loc["good", "pole"].index.get_level_values("row")
    on_pole, weak = list(result.text_tables.values())[2:]
    assert list(on_pole["method"]) == ["Demonstrations", "DQN from DQN", "BC again"]
    assert list(weak["method"]) == ["Demonstrations", "DQN from DQN"]
    assert tables.DENSE not in on_pole
    assert tables.SHARE in on_pole
    assert tables.DENSE in result.text_tables["Good: MountainCar, sparse reward"]
    assert [files.figure.name for files in result.figures] == ["curves-good.png"]
    drawn = pd.read_csv(result.figures[0].data, comment="#")
    assert set(drawn["env"]) == {"CartPole", "MountainCar-sparse"}
    assert set(drawn["label"]) == {"DQN", "DQN from DQN", "Demonstrations", "Random"}
    lines = drawn[drawn["kind"] == "reference"].set_index(["env", "label"])["y"]
    assert lines["CartPole", "Demonstrations"] == 500.0
    assert lines["MountainCar-sparse", "Random"] == 0.0
    content = (result.folder / "table.md").read_text()
    assert (
        "* Demonstrations 'CartPole/grid-good-v0': 3 episodes, mean return 500.0 (sha256" in content
    )
    assert "Returns: mean over seeds" in content
    assert "paper's column" not in content


def test_a_figure_over_all_sets_of_demonstrations(folders, make_run, quick):
    figure = '[[figures]]\nname = "q"\ngroup = "all"\nrows = ["BC", "DQN"]\nx = "quality"\n'
    group = '[[groups]]\nname = "all"\ntitle = "All"\ntasks = ["pole"]\n'
    text = GRID.replace("[[figures]]", group + figure + "[[figures]]", 1)
    text = text.replace('groups = ["weak"]', 'groups = ["weak", "all"]')
    with pytest.raises(ValueError, match="figure 'q' of the suite names 'qualty', expected"):
        parse_suite("grid", text.replace('"quality"', '"qualty"'))
    suite = parse_suite("grid", text)
    for seed in suite.seeds:
        for name, quality in (("good", 500.0), ("weak", 50.0)):
            make_run(
                algo="bc", seed=seed, exp_name=f"grid-{name}", env=EnvConfig("CartPole"), steps=(),
                has_success=False, demos={"name": name, "return_mean": quality, "episodes": 3},
            )  # fmt: skip
    sections = [s for s in sections_of(suite, ["all"]) if s.group.name == "all"]
    measuring = Measuring(suite, suite.seeds, folders["runs_dir"], {}, NullReporter())
    (files,) = draw_suite(measuring, sections, folders["runs_dir"], pd.DataFrame(), "rlfd")
    assert files.figure.name == "q.png"
    twice = parse_suite("grid", text.replace('name = "curves"', 'name = "q"'))
    measuring = Measuring(twice, twice.seeds, folders["runs_dir"], {}, NullReporter())
    drawn = draw_suite(measuring, sections, folders["runs_dir"], pd.DataFrame(), "rlfd")
    assert [other.figure.name for other in drawn] == ["q-all.png"]
    data = pd.read_csv(files.data, comment="#").query("kind == 'point'")
    assert data["x"].tolist() == [50, 500]
    assert set(data["label"]) == {"BC"}
    assert set(data["n"]) == {2}


def test_a_report_collects_and_starts_nothing(grid, folders, quick, make_run):
    result = reproduce.reproduce(grid, **folders, tasks=["pole"], report_only=True)
    assert not folders["data_dir"].exists()
    assert not [path for path in folders["runs_dir"].iterdir() if path.name != "grid"]
    (table,) = result.text_tables.values()
    notes = dict(zip(table["method"], table["note"], strict=True))
    assert notes["Demonstrations"] == "not collected yet"
    assert notes["DQN"] == "0 of 2 runs finished"


def test_runs_from_another_start_are_not_mixed_in(grid, folders, quick, make_run):
    again = next(job.config for job in plan(grid, **folders) if "again" in job.name)
    make_run(config=dataclasses.replace(again, init=None), has_success=False)
    with pytest.raises(RlfdError, match=r"started from 'None', this suite wants '.*grid/dqn/Cart"):
        reproduce.reproduce(grid, **folders, engine=Engine(make_run))


def test_environment_defaults_bound_what_untrained_policies_play(grid, folders, monkeypatch):
    asked = []

    def summary(played, policy, env, *, seed, episodes):
        asked.append((env.name, seed, episodes))
        return {"return_mean": 7.5, "success_rate": None}

    monkeypatch.setattr(measuring_module.Played, "summary", summary)

    def measure(suite, env):
        measuring = Measuring(suite, [0, 3], folders["runs_dir"], {}, NullReporter())
        return measuring._policy(Task(env, env), "random")

    assert measure(grid, "CartPole").values["final, sampled"] == [7.5, 7.5]
    monkeypatch.setitem(presets.environments.ENVIRONMENTS, "CartPole", {"final_episodes": 50})
    other = parse_suite("grid", GRID.replace("final_episodes = 3\n", ""))
    measure(other, "CartPole")
    measure(other, "MountainCar")
    assert asked == [
        (env, seed, episodes)
        for env, episodes in (("CartPole", 3), ("CartPole", 50), ("MountainCar", 100))
        for seed in (0, 3)
    ]


class Racers:
    """Runs that reach a return of 50 (half of the episodes won) early, late, or never."""

    slots = 1

    def __init__(self, make_run):
        self.make_run = make_run

    def submit(self, job, log):
        few, number = job.config.env.name == "LunarLander", job.config.seed
        rates = {0: (0.5, 0.3, 0.8), 1: (0.2, 0.55, 0.4), 2: (0.0, 0.1, 0.2)}[number]
        self.make_run(
            config=job.config,
            steps=(100, 200, 300),
            success=rates if few else (0.0, 0.1, 0.6 if number else 0.0),
            final=0.7 if few else 0.4,
            demos=None,
        )
        return Done()


def test_steps_to_a_return_and_a_row_on_another_form_of_the_task(folders, quick, make_run):
    suite = parse_suite("race", RACE)
    jobs = plan(suite, **folders, seeds=[2])
    assert names(jobs) == ["race/a2c/LunarLander/seed2", "race-six/a2c/LunarLander6/seed2"]
    assert jobs[1].argv[jobs[1].argv.index("--env") + 1] == "LunarLander6"
    result = reproduce.reproduce(suite, **folders, engine=Racers(make_run))
    assert set(result.table["metric"]) == {"return", tables.ENV_STEPS}
    table = result.table.set_index(["row", "measure"])
    few = table.loc["Few", "steps to return 50, sampled"]
    assert (few["n"], few["reached"], few["median"], few["low"]) == (3, 2, 200, 100)
    assert pd.isna(few["high"])  # a third of the seeds never got there
    assert table.loc[("Few", "steps to return 50, greedy"), "reached"] == 1
    assert pd.isna(table.loc[("Few", "steps to return 50, greedy"), "median"])
    (text,) = result.text_tables.values()
    text = text.set_index("method")["steps to return 50, sampled"]
    assert text.to_list() == ["–", "200 [100, –] (2 of 3)", "300 [300, –] (2 of 3)"]
    assert (
        "'steps to': env steps of the first evaluation" in (result.folder / "table.md").read_text()
    )
    drawn = pd.read_csv(result.figures[0].data, comment="#")
    assert set(drawn["env"]) == {"LunarLander"}  # one panel
    assert set(drawn["label"]) == {"Few", "Many", "Random"}


def test_a_suite_with_real_runs_can_be_repeated_until_it_is_whole(grid, folders, quick):
    """Finished runs are left alone, an interrupted one is continued, starts come before."""
    options = folders | {"groups": ["good"], "tasks": ["pole"], "seeds": [1]}
    first = reproduce.reproduce(grid, **options, engine=Inside())
    assert not first.failures, first.failures
    source, run = (RunDir(job.job.run_dir) for job in first.jobs)
    assert run.status()["init"]["run"] == "grid/dqn/CartPole/seed1"
    final = checkpoint.load_policy(checkpoint.list_policies(source.checkpoints)[240])
    begin = checkpoint.load_policy(checkpoint.list_policies(run.checkpoints)[0])
    assert all((final[name] == begin[name]).all() for name in final)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    again = reproduce.reproduce(grid, **options, engine=Inside())
    assert [result.outcome for result in again.jobs] == ["skipped", "skipped"]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    state = run.status()
    run.write_status(state | {"state": "interrupted"})
    third = reproduce.reproduce(grid, **options, engine=Inside())
    assert [result.outcome for result in third.jobs] == ["skipped", "finished"]
    assert run.status()["final"] == state["final"]


def test_sqil_on_pong_in_small(folders, monkeypatch):
    """Demonstrations, runs, table and figure of the shipped suite, at a size that takes seconds."""
    resource = files("rlfd.experiments.suites") / "sqil_pong.toml"
    text = resource.read_text(encoding="utf-8")
    for old, new in (
        ('policy = "shipped"\nsteps = 40_000', 'policy = "random"\nsteps = 50'),
        ('env = "Pong"', 'env = "Pong"\noptions = { max_frames = 160, size = 36, noop_max = 1 }'),
        ("eval_every = 500_000, eval_episodes = 5, final_episodes = 10",
         "eval_every = 2_500_000, eval_episodes = 1, final_episodes = 1, num_envs = 2"),
        ('algo = "bc"', 'algo = "bc"\nsettings = { max_epochs = 1 }'),
    ):  # fmt: skip
        assert text.count(old) == 1
        text = text.replace(old, new)
    monkeypatch.setattr(measuring_module, "EPISODES", 1)
    suite = parse_suite("sqil-pong", text)
    result = reproduce.reproduce(
        suite, **folders, seeds=[3], steps=100, engine=Inside("--compile", "off")
    )
    assert not result.failures, result.failures
    (table,) = result.text_tables.values()
    assert list(table["method"]) == ["Random", "BC", "GAIL, Q-learner", "SQIL", "Demonstrator"]
    assert "paper" not in table
    assert set(table["n"]) == {"1"}
    drawn = pd.read_csv(result.figures[0].data, comment="#")
    assert set(drawn["label"]) == {"SQIL", "GAIL, Q-learner", "Demonstrator", "Random"}
    assert set(drawn[drawn["label"] == "SQIL"]["x"]) == {100}
    (line,) = drawn[drawn["label"] == "Demonstrator"]["y"]
    content = json.loads((result.folder / "table.json").read_text())
    (made,) = content["demonstrations"]
    assert (made["name"], made["episodes"]) == ("Pong/sqil-pong-v0", 2)
    assert line == made["return_mean"]
    assert "With 100 instead of 2,500,000 env steps" in content["protocol"][-1]
    sqil = RunDir(folders["runs_dir"] / "sqil-pong/sqil/Pong/seed3").config()
    assert sqil.algorithm.learning_starts == 2
    assert sqil.algorithm.buffer_size == 1_000_000
