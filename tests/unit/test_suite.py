"""Suites of several tasks and sets of demonstrations, with rows that start from others."""

import json
import shutil
from importlib.resources import files

import pandas as pd
import pytest
from typer.testing import CliRunner

from rlfd.algorithms import presets
from rlfd.cli.main import app
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint, reproduce, tables
from rlfd.experiments import measuring as measuring_module
from rlfd.experiments.config import resolve
from rlfd.experiments.measuring import Measuring
from rlfd.experiments.report import NullReporter
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import Task
from rlfd.experiments.suite_demos import datasets_of, describe
from rlfd.experiments.suite_figures import draw_suite
from rlfd.experiments.suite_file import load_suite, parse_suite
from rlfd.experiments.suite_plan import plan, sections_of

GRID = """
title = "A grid"
paper = "No numbers"
seeds = [0, 1]
steps = 240
protocol = []
[run]
eval_every = 120
eval_episodes = 2
final_episodes = 3
num_envs = 2
[[tasks]]
name = "pole"
env = "CartPole"
[[tasks]]
name = "car"
env = "MountainCar"
reward = "sparse"
steps = 180
demos = { good = { policy = "random", episodes = 2 }, weak = { policy = "random", noise = 0.0 } }
[[demos]]
name = "good"
title = "1 good demonstration"
policy = "controller"
episodes = 3
num = 1
[[demos]]
name = "weak"
policy = "controller"
noise = 0.5
episodes = 2
[[groups]]
name = "good"
title = "Good"
demos = ["good"]
[[groups]]
name = "weak"
title = "Weak"
demos = ["weak"]
[[groups]]
name = "pole"
title = "On the pole"
tasks = ["pole"]
[[figures]]
name = "curves"
group = "good"
rows = ["DQN", "DQN from DQN"]
[[rows]]
label = "Demonstrations"
policy = "demonstrations"
groups = ["good", "weak", "pole"]
[[rows]]
label = "Random"
policy = "random"
groups = ["good"]
[[rows]]
label = "DQN"
algo = "dqn"
settings = { hidden = [5, 9], learning_starts = 50 }
groups = ["good", "weak"]
[[rows]]
label = "DQN from DQN"
algo = "dqn"
variant = "again"
init = "DQN"
settings = { hidden = [5, 9], learning_starts = 50 }
groups = ["good", "pole"]
[[rows]]
label = "BC"
algo = "bc"
settings = { max_epochs = 1, hidden = [5] }
groups = ["weak"]
[[rows]]
label = "BC again"
algo = "bc"
variant = "again"
init = "BC"
settings = { max_epochs = 1, hidden = [5] }
num_demos = 2
groups = ["pole"]
demos = ["good"]
[[rows]]
label = "On one task"
algo = "bc"
variant = "one"
tasks = ["car"]
groups = ["good"]
"""


@pytest.fixture
def grid():
    return parse_suite("grid", GRID)


@pytest.fixture
def folders(tmp_path):
    return {"runs_dir": tmp_path / "runs", "data_dir": tmp_path / "data"}


@pytest.fixture
def quick(monkeypatch):
    """Let policies that are only evaluated play few episodes."""
    monkeypatch.setattr(measuring_module, "EPISODES", 2)


def names(jobs):
    return [job.name for job in jobs]


# What is planned


def test_tables_of_a_grid(grid):
    def of(*groups, tasks=()):
        return [
            (section.group.name, section.task.name, section.demos_name)
            for section in sections_of(grid, groups, tasks)
        ]

    assert of() == [("good", "pole", "good"), ("good", "car", "good")]
    assert of("weak", tasks=["car"]) == [("weak", "car", "weak")]
    assert of("pole") == [("pole", "pole", "good"), ("pole", "pole", "weak")]
    assert of("all", tasks=["car"]) == [("good", "car", "good"), ("weak", "car", "weak")]
    with pytest.raises(RlfdError, match="unknown task of grid 'pol', did you mean 'pole'"):
        of(tasks=["pol"])


def test_a_task_may_have_demonstrations_of_its_own(grid):
    pole, car = sections_of(grid, ["weak"])
    assert (pole.demos.policy, pole.demos.noise, pole.demos.episodes) == ("controller", 0.5, 2)
    assert (car.demos.policy, car.demos.noise, car.demos.episodes) == ("random", 0.0, 2)
    pole, car = sections_of(grid, ["good"])
    assert (pole.demos.episodes, car.demos.episodes, car.demos.num) == (3, 2, 1)


def test_runs_of_a_grid(grid, folders):
    jobs = plan(grid, **folders, seeds=[0], groups=["all"])
    assert names(jobs) == [
        "grid/dqn/CartPole/seed0",
        "grid/dqn/MountainCar-sparse/seed0",
        "grid-again/dqn/CartPole/seed0",
        "grid-again/dqn/MountainCar-sparse/seed0",
        "grid-weak/bc/CartPole/seed0",
        "grid-weak/bc/MountainCar-sparse/seed0",
        "grid-good/bc/CartPole/seed0",  # which only the next one needs
        "grid-again-good/bc/CartPole/seed0",
        "grid-one-good/bc/MountainCar-sparse/seed0",
    ]
    by_name = {job.name: job for job in jobs}
    dqn = by_name["grid-again/dqn/MountainCar-sparse/seed0"]
    source = folders["runs_dir"] / "grid/dqn/MountainCar-sparse/seed0"
    assert dqn.needs == (source,)
    assert f"train dqn --env MountainCar --reward sparse --init {source} --steps 180" in dqn.command
    assert "--eval-every 120 --eval-episodes 2 --final-episodes 3 --num-envs 2" in dqn.command
    assert "--set hidden=5,9 --set learning_starts=50" in dqn.command
    again = by_name["grid-again-good/bc/CartPole/seed0"].command
    assert "--demos CartPole/grid-good-v0 --num-demos 2 --init" in again
    assert "--eval-episodes 2 --final-episodes 3 --seed" in again
    assert "--steps" not in again
    one = by_name["grid-one-good/bc/MountainCar-sparse/seed0"].command
    assert "--demos MountainCar-sparse/grid-good-v0 --num-demos 1" in one
    only_car = plan(grid, **folders, groups=["good"], tasks=["car"], steps=70)
    assert len(only_car) == 3 * 2
    assert all("MountainCar" in job.name for job in only_car)
    assert "--steps 70" in only_car[0].command


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('tasks = ["pole"]', 'tasks = ["pol"]', "group 'pole' of the suite names 'pol'"),
        ('demos = ["weak"]', 'demos = ["bad"]', "group 'weak' of the suite names 'bad'"),
        ('demos = ["good"]\n[[rows]]', 'demos = ["bad"]\n[[rows]]', "row 'BC again' .* 'bad'"),
        ('tasks = ["car"]', 'tasks = ["bike"]', "row 'On one task' of the suite names 'bike'"),
        ('init = "BC"', 'init = "BCC"', "names 'BCC', expected .*'BC'"),
        ('init = "BC"', 'init = "Random"', "names 'Random'"),
        ('init = "BC"', 'init = "BC again"', "row 'BC again' cannot start from 'BC again'"),
        ('init = "BC"', 'init = "DQN from DQN"', "cannot start from 'DQN from DQN'"),
        ("num_envs = 2", "env_count = 2", "run of the suite names 'env_count'"),
        ("noise = 0.0", "nois = 0.0", "task 'car' of the suite names 'nois', expected .*noise"),
        ("demos = { good", "demos = { god", "task 'car' of the suite names 'god'"),
        ('reward = "sparse"\n', "", None),
        ('env = "MountainCar"\nreward = "sparse"', 'env = "CartPole"', "have one run folder"),
    ],
)
def test_a_grid_that_contradicts_itself(old, new, message):
    assert GRID.count(old) == 1
    if message is None:
        parse_suite("grid", GRID.replace(old, new))
        return
    with pytest.raises(ValueError, match=message):
        parse_suite("grid", GRID.replace(old, new))


MIXED = (
    GRID.replace('policy = "random", noise = 0.0', "noop = 0.25, noise = 0.0")
    .replace("episodes = 3\nnum = 1", "episodes = 3")
    .replace(
        '[[groups]]\nname = "good"',
        """[[demos]]
name = "half"
mix = { good = 0.5, weak = 0.5 }
episodes = 4
[[groups]]
name = "half"
title = "Half"
demos = ["half"]
[[groups]]
name = "good\"""",
    )
    .replace('groups = ["weak"]', 'groups = ["weak", "half"]')
)


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("good = 0.5, weak = 0.5", "good = 0.5, weak = 0.4", "'half': .* add up to 0.9, expected"),
        ("good = 0.5, weak = 0.5", "good = 0.5, bad = 0.5", "'half' of the suite names 'bad'"),
        ("good = 0.5, weak = 0.5", "half = 0.5, good = 0.5", "'half', a mixture itself"),
        ("mix = {", 'policy = "random"\nmix = {', "'half' need either a policy or a mix"),
        ("mix = { good = 0.5, weak = 0.5 }", "", "'half' need either a policy or a mix"),
        ("mix = {", 'start = "demo"\nmix = {', "'half' and 'good' have different starts"),
    ],
)
def test_a_mixture_that_contradicts_itself(old, new, message):
    assert MIXED.count(old) == 1
    with pytest.raises(ValueError, match=message):
        parse_suite("mixed", MIXED.replace(old, new))


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


# Demonstrations by steps, of policies that come with rlfd, and fewer env steps

SHIPPED = """
title = "By steps"
paper = "No numbers"
seeds = [0]
steps = 400
protocol = ["One line."]
scaled = ["eval_every", "learning_starts", "pretrain_env_steps"]
run = { eval_every = 100, num_envs = 2 }
[[tasks]]
name = "pole"
env = "CartPole"
[[tasks]]
name = "car"
env = "MountainCar"
steps = 1000
[[demos]]
name = "shipped"
policy = "shipped"
steps = 40
num = 1
[[groups]]
name = "main"
title = "Main"
[[rows]]
label = "Demonstrations"
policy = "demonstrations"
[[rows]]
label = "BC"
algo = "bc"
[[rows]]
label = "PSQ"
algo = "psq"
settings = { pretrain_env_steps = 70 }
[[rows]]
label = "DQN"
algo = "dqn"
steps = 800
"""


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


def test_policies_that_do_not_come_along_are_named_before_anything_is_collected(folders):
    suite = parse_suite("steps", SHIPPED)
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
    mixed = SHIPPED.replace(
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


def test_what_counts_steps_shrinks_with_them(folders):
    suite = parse_suite("steps", SHIPPED)

    def commands(**options):
        return {job.name: job.command for job in plan(suite, **folders, **options)}

    for steps in (None, 1000):
        psq = commands(steps=steps)["steps/psq/CartPole/seed0"]
        assert f"--steps {steps or 400} --eval-every 100 --num-envs 2 --seed 0" in psq
        assert "--set pretrain_env_steps=70" in psq
        assert "learning_starts" not in psq
    small = commands(steps=200)
    starts = resolve("psq", EnvConfig("CartPole")).config.algorithm.learning_starts
    psq = small["steps/psq/CartPole/seed0"]
    assert "--steps 200 --eval-every 50 --num-envs 2" in psq
    assert psq.count("pretrain_env_steps") == 1
    assert (
        f"--set pretrain_env_steps=35 --set learning_starts={starts // 2}" in psq
    )  # of the row's 70
    # in proportion to what the task, or the row, has otherwise
    assert "--eval-every 20 " in small["steps/psq/MountainCar/seed0"]
    dqn = small["steps/dqn/CartPole/seed0"]
    assert "--eval-every 25 " in dqn
    assert "pretrain" not in dqn
    assert "--set" not in small["steps/bc/CartPole/seed0"]  # not by env steps
    assert "--eval-every 1 " in commands(steps=1)["steps/dqn/CartPole/seed0"]
    with pytest.raises(
        ValueError, match=r"scaled of the suite names 'eval_evry', expected .*every"
    ):
        parse_suite("steps", SHIPPED.replace('["eval_every"', '["eval_evry"'))


def test_runs_on_another_device(folders, monkeypatch):
    suite = parse_suite("steps", SHIPPED)
    assert not any("--device" in job.argv for job in plan(suite, **folders))
    for job in plan(suite, **folders, device="cuda"):
        assert job.argv[job.argv.index("--device") + 1] == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RlfdError, match="no CUDA device"):  # before all else
        reproduce.reproduce(suite, **folders, device="cuda")


# The suites on Atari games


def test_figure_2_of_psq(folders):
    suite = load_suite("psq-atari")
    jobs = plan(suite, **folders)
    games = ("Pong", "SpaceInvaders", "DemonAttack", "MsPacman")
    assert names(jobs) == [
        f"psq-atari{'' if algo == 'soft-q' else '-strong'}/{algo}/{game}/seed0"
        for algo in ("bc", "soft-q", "bc-soft-q", "psq", "dqfd-reward-free")
        for game in games
    ]
    by_name = {job.name.removeprefix("psq-atari-strong/"): job.command for job in jobs}
    for game in games:
        psq = by_name[f"psq/{game}/seed0"]
        assert f"--env {game} --demos {game}/psq-atari-strong-v0 --steps 5000000" in psq
        assert "--set" not in psq  # the paper's settings are those of the presets
    small = {job.name: job.command for job in plan(suite, **folders, steps=200_000)}
    pretrained = {"Pong": 40_000, "SpaceInvaders": 20_000, "DemonAttack": 20_000, "MsPacman": 8_000}
    for game, steps in pretrained.items():
        for algo in ("psq", "bc-soft-q"):
            command = small[f"psq-atari-strong/{algo}/{game}/seed0"]
            assert f"--set pretrain_env_steps={steps} " in command
            assert "--set learning_starts=2000 --set epsilon_env_steps=2000" in command
            assert "--set target_every_updates=100 " in command
    dqfd = small["psq-atari-strong/dqfd-reward-free/Pong/seed0"]
    assert "--set pretrain_updates=30000" in dqfd
    assert len(plan(suite, **folders, groups=["weak"], tasks=["Pong"])) == 5
    for name, policy in (("paper", "shipped"), ("weak", "shipped:weak")):
        for section in sections_of(suite, [name]):
            assert (section.demos.policy, section.demos.steps) == (policy, 40_000)


def test_section_5_3_of_sqil(folders):
    suite = load_suite("sqil-pong")
    jobs = plan(suite, **folders, steps=200_000, seeds=[0, 1])
    assert names(jobs) == [
        f"sqil-pong/{algo}/Pong/seed{seed}"
        for seed in (0, 1)
        for algo in ("bc", "gail-dqn", "sqil")
    ]
    for job in jobs:
        assert "--demos Pong/sqil-pong-v0" in job.command
    gail, sqil = jobs[1].command, jobs[2].command
    for command in (gail, sqil):
        assert "--steps 200000 --eval-every 10000 --eval-episodes 5 --final-episodes 30" in command
        assert "--set learning_starts=4000" in command
    assert "target_every_updates=800" in sqil
    (paper,) = [job for job in plan(suite, **folders, groups=["settings"], seeds=[0])
                if "--preset paper" in job.command]  # fmt: skip
    assert paper.name == "sqil-pong-paper/sqil/Pong/seed0"


def test_sqil_on_pong_in_small(folders, monkeypatch):
    """Demonstrations, runs, table and figure of the shipped suite, at a size that takes seconds."""
    resource = files("rlfd.experiments.suites") / "sqil_pong.toml"
    text = resource.read_text(encoding="utf-8")
    for old, new in (
        ('policy = "shipped"\nsteps = 40_000', 'policy = "random"\nsteps = 50'),
        ('env = "Pong"', 'env = "Pong"\noptions = { max_frames = 160, size = 36, noop_max = 1 }'),
        ("eval_every = 125_000, eval_episodes = 5, final_episodes = 30",
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


# What is reported


class Done:
    def __init__(self, exit_code=0):
        self.exit_code = exit_code

    def poll(self):
        return self.exit_code


class Inside:
    """Makes real runs, in this process."""

    slots = 1

    def __init__(self, *options):
        self.options = options

    def submit(self, job, log):
        return Done(CliRunner().invoke(app, [*job.argv[3:], *self.options]).exit_code)


class Engine:
    """Writes finished runs at once."""

    slots = 1

    def __init__(self, make_run):
        self.make_run = make_run

    def submit(self, job, log):
        exp_name, algo, env, seed = job.name.split("/")
        name, _, reward = env.partition("-")
        words = dict(zip(job.argv, job.argv[1:], strict=False))
        assert all(RunDir(folder).status()["state"] == "finished" for folder in job.needs)
        run = self.make_run(
            algo=algo,
            exp_name=exp_name,
            env=EnvConfig(name, reward=reward or "dense"),
            seed=int(seed.removeprefix("seed")),
            final=1.0 if "again" in exp_name else 0.5,
            steps=() if algo == "bc" else (90, int(words["--steps"])),
            success=(0.0, 0.0),
            training=[] if algo == "bc" else [0, 1] * 60,
            demos=None,
            has_success=False,
        )
        if "--init" in words:
            config = json.loads((run.path / "config.json").read_text())
            config["init"] = f"{words['--init']}:90"
            (run.path / "config.json").write_text(json.dumps(config))
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


def test_a_report_collects_and_starts_nothing(grid, folders, quick, make_run):
    result = reproduce.reproduce(grid, **folders, tasks=["pole"], report_only=True)
    assert not folders["data_dir"].exists()
    assert not [path for path in folders["runs_dir"].iterdir() if path.name != "grid"]
    (table,) = result.text_tables.values()
    notes = dict(zip(table["method"], table["note"], strict=True))
    assert notes["Demonstrations"] == "not collected yet"
    assert notes["DQN"] == "0 of 2 runs finished"


def test_runs_from_another_start_are_not_mixed_in(grid, folders, quick, make_run):
    make_run(
        algo="dqn", exp_name="grid-again", env=EnvConfig("CartPole"), steps=(90, 240),
        success=(0, 0), has_success=False,
    )  # fmt: skip
    with pytest.raises(RlfdError, match=r"started from 'None', this suite wants '.*grid/dqn/Cart"):
        reproduce.reproduce(grid, **folders, engine=Engine(make_run))


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


def test_methods_that_may_learn_from_demonstrations_get_those_of_their_group(tmp_path):
    jobs = plan(load_suite("quality"), runs_dir=tmp_path, data_dir=tmp_path, groups=["online"])
    online = [job.argv for job in jobs if "awr" in job.argv or "sil" in job.argv]
    assert online
    for words in online:
        name = words[words.index("--demos") + 1].removeprefix("LunarLander/quality-")
        experiment = words[words.index("--exp-name") + 1]
        assert experiment.endswith(name.removesuffix("-v0"))
    table = plan(load_suite("awr-table"), runs_dir=tmp_path, data_dir=tmp_path, seeds=[0])
    assert not any("--demos" in job.argv for job in table)


RACE = """
title = "A race"
paper = "No numbers"
seeds = [0, 1, 2]
steps = 300
protocol = []
metric = "return"
reach = 50
[[tasks]]
name = "land"
env = "LunarLander"
[[groups]]
name = "race"
title = "Race"
[[figures]]
name = "race"
group = "race"
rows = ["Few", "Many"]
[[rows]]
label = "Random"
policy = "random"
[[rows]]
label = "Few"
algo = "a2c"
[[rows]]
label = "Many"
algo = "a2c"
env = "LunarLander6"
variant = "six"
"""


class Racers:
    """Runs that reach a return of 50 (half of the episodes won) early, late, or never."""

    slots = 1

    def __init__(self, make_run):
        self.make_run = make_run

    def submit(self, job, log):
        exp_name, algo, env, seed = job.name.split("/")
        few, number = env == "LunarLander", int(seed.removeprefix("seed"))
        rates = {0: (0.5, 0.3, 0.8), 1: (0.2, 0.55, 0.4), 2: (0.0, 0.1, 0.2)}[number]
        self.make_run(
            algo=algo,
            exp_name=exp_name,
            env=EnvConfig(env),
            seed=number,
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


def test_a_row_of_another_environment_has_no_demonstrations():
    with pytest.raises(ValueError, match="row 'Many' has its own environment"):
        parse_suite("race", RACE.replace('algo = "a2c"\nenv', 'algo = "bc"\nenv'))
    with pytest.raises(ValueError, match="metric of the suite names 'returns'"):
        parse_suite("race", RACE.replace('"return"', '"returns"'))
