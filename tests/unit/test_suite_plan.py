"""Which tables and runs a suite means, and by which commands."""

from itertools import pairwise

import pytest

from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import reproduce
from rlfd.experiments.config import resolve
from rlfd.experiments.suite_file import load_suite, parse_suite
from rlfd.experiments.suite_plan import plan, sections_of

from .small_suites import GRID, SHIPPED, names


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
        assert "--steps 200000 --eval-every 40000 --eval-episodes 5 --final-episodes 10" in command
        assert "--set learning_starts=4000" in command
    assert "target_every_updates=800" in sqil
    (paper,) = [job for job in plan(suite, **folders, groups=["settings"], seeds=[0])
                if "--preset paper" in job.command]  # fmt: skip
    assert paper.name == "sqil-pong-paper/sqil/Pong/seed0"
    (full,) = [job for job in plan(suite, **folders, groups=["settings"], seeds=[0], steps=200_000)
               if "--set mode=full" in job.command]  # fmt: skip
    assert "target_every_updates" not in full.command  # there is no target network


def test_options_of_a_task_are_given_as_they_are_typed(folders):
    text = GRID.replace(
        'env = "CartPole"', 'env = "Pong"\noptions = { actions = "full", size = 42 }'
    )
    job = plan(parse_suite("grid", text), **folders, groups=["good"], tasks=["pole"])[0]
    given = [value for word, value in pairwise(job.argv) if word == "--env-option"]
    assert {"actions=full", "size=42"} <= set(given)
