"""Exact resume: a run that was killed ends like one that never was, bit for bit.

Processes are killed with SIGKILL: from outside at moments drawn from a seeded generator, and from
inside at the moments that are hardest to survive. Every chain of killed processes is compared with
an uninterrupted run: CSV files (columns of time aside), all policies, and the last checkpoint.
"""

import dataclasses
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlfd import algorithms
from rlfd.envs import EnvConfig
from rlfd.experiments import checkpoint
from rlfd.experiments.config import resolve
from rlfd.experiments.run_dir import RunDir

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
CONFIG = "[run]\nlog_every = 57\n"
NEVER = {"wall_seconds", "time/env", "time/act", "time/sample", "time/update"}
# Small values for whatever of these a method has; 301 transitions are overwritten within a run.
TINY = {
    "hidden": "5,9",
    "batch_size": "11",
    "learning_starts": "40",
    "updates_per_env_step": "0.3",
    "buffer_size": "301",
    "updates_per_rollout": "7",
    "max_epochs": "4",
    "patience": "3",
    "batch_steps": "50",
    "value_batch_size": "13",
    "value_epochs": "2",
    "d_batch_size": "7",
    "d_hidden": "5",
    "d_steps": "5",
    "reward_steps": "5",
    "reward_batch_size": "3",
    "reward_hidden": "5",
    "max_length": "31",
    "clone_steps": "20",
    "first_steps": "70",
    "actor_steps": "7",
    "critic_steps": "5",
    "max_iterations": "25",
    "sil_updates": "2",
    "min_stored": "30",
    "min_episodes": "0",
    "round_epochs": "2",
    "pretrain_env_steps": "400",
    "pretrain_updates": "130",
}
OFFLINE = ("--eval-every", 29, "--checkpoint-every", 17)


@dataclass(frozen=True)
class Case:
    """A run, and how often its chain is to be killed."""

    algo: str
    env: str = "CartPole"
    num_envs: int = 3
    steps: int = 700
    kills: int = 1
    demos: str | None = None  # of a method that can do without
    reward_from: str | None = None  # a run below the folder that all share
    settings: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()  # of the environment
    compile: str = "off"

    @property
    def command(self) -> list[str]:
        cls = algorithms.get(self.algo)
        names = {field.name for field in dataclasses.fields(cls.Config)}
        switches = [f"{k}={v}" for k, v in self.settings.items() if k in cls.Config.all_readers()]
        config = resolve(self.algo, EnvConfig(native(self.algo)), settings=switches).config
        names -= config.algorithm.unread().keys()
        settings = {name: value for name, value in TINY.items() if name in names} | self.settings
        words = ["train", self.algo, "--env", self.env, "--config", "../config.toml"]
        words += ["--data-dir", "../data", "--compile", self.compile, "--no-progress"]
        words += ["--eval-episodes", 2, "--final-episodes", 3, "--seed", 5]
        for name, value in settings.items():
            words += ["--set", f"{name}={value}"]
        for option in self.options:
            words += ["--env-option", option]
        if self.demos is not None:
            words += ["--demos", self.demos]
        if self.reward_from is not None:
            words += ["--reward-from", f"../{self.reward_from}"]
        if cls.needs.demonstrations or self.demos is not None:
            words += ["--num-demos", 3]
        if cls.needs.interaction:
            words += ["--steps", self.steps, "--num-envs", self.num_envs]
            words += ["--eval-every", 150, "--checkpoint-every", 130]
        else:
            words += OFFLINE
        return list(map(str, words))


PRIORITISED = {
    "reward_scale": "9",
    "prioritised": "true",
    "n_step": "3",
    "dueling": "true",
    "target_update": "copy",
}
ADVERSARIAL = {"learner": "ppo", "absorbing": "indicator", "d_rollouts": "3", "g_steps": "2"}
MIXED = {"mixing": "episodes", "schedule": "linear", "fit": "scratch", "batch_size": "99"}
AIRL_REWARD = {"absorbing": "off", "reward_on": "state-action", "d_rollouts": "3"}
SIL_PPO = {"learner": "ppo", "keep_demos": "true", "buffer_size": "1700"}
PLANNING = {"max_iterations": "240", "tolerance": "0"}
ROLLOUTS = {"interleave": "rollouts", "final_learning_rate": "1", "mode": "semi"}


LONG = {"batch_size": "1", "max_epochs": "6", "patience": "6"}
DOTS = "rlfd-tests/Dots-v0"
LAPS = ("max_steps=19",)  # of Car Racing


def native(name: str) -> str:
    """Return an environment that the algorithm is made for."""
    if algorithms.get(name).needs.dynamics:
        return "GridWorld"
    discrete = "discrete" in algorithms.get(name).needs.action_kinds
    return "CartPole" if discrete else "Pendulum"


CASES = {
    name: Case(
        name,
        env=native(name),
        num_envs=3 + 2 * (index % 4),
        settings=PLANNING if algorithms.get(name).needs.dynamics else {},
    )
    for index, name in enumerate(algorithms.names())
} | {
    "dagger-episodes": Case("dagger", num_envs=5, demos="controller", settings=MIXED),
    "dqn-prioritised": Case("dqn", num_envs=7, settings=PRIORITISED),
    "sqil-rollouts": Case("sqil", num_envs=5, settings=ROLLOUTS),
    "dqn-lander": Case("dqn", env="LunarLander", num_envs=5, kills=4),
    "mcpo-hopper": Case("mcpo", env="Hopper", num_envs=5, settings={"normalise_rewards": "true"}),
    "sil-ppo": Case("sil", num_envs=5, demos="controller", settings=SIL_PPO),
    "awr-offline": Case("awr-offline", settings={"patience": "25"}),
    "awr-demos": Case("awr", num_envs=7, demos="controller"),
    "awr-whole": Case("awr", num_envs=5, settings={"baseline": "none", "memory": "replace"}),
    "marwil-awr": Case("marwil", settings={"mode": "awr", "crossfit": "true"}),
    "gail-ppo": Case("gail", num_envs=5, settings=ADVERSARIAL),
    "airl-state-action": Case("airl", num_envs=5, settings=AIRL_REWARD),
    "gcl-gan": Case("gcl", num_envs=5, settings={"learner": "ppo", "objective": "gan"}),
    "ppo-reward-from": Case("ppo", num_envs=5, reward_from="taught/runs/default/airl"),
    "apprenticeship-qp": Case(
        "apprenticeship", env="GridWorld", settings=PLANNING | {"solver": "qp"}
    ),
    "dqn-images-prioritised": Case("dqn", env=DOTS, num_envs=7, settings=PRIORITISED),
    "sqil-car-racing": Case("sqil", env="CarRacing", steps=280, options=LAPS),
    "dqn-compiled": Case("dqn", num_envs=1, steps=300, compile="on"),
}
IMAGES = {
    f"{name}-images": Case(
        name,
        env=DOTS,
        num_envs=3 + 2 * (index % 3),
        steps=400,
        settings={"hidden": "5"} | (LONG if name == "bc" else {}),
    )
    for index, name in enumerate(algorithms.names())
    if algorithms.get(name).needs.images
}
CASES |= IMAGES
# the others hold the same parts; day to day these stand for them
SLOW = IMAGES.keys() - {"bc-images", "dqfd-images", "ppo-images"}
USUAL = Case("sqil")


class Lab:
    """A fork server and the folder that everything lies in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV,
        )  # fmt: skip
        (folder / "config.toml").write_text(CONFIG)
        self.finished: dict[str, tuple[dict, float]] = {}

    def run(self, place: Path, command: list[str], **request) -> dict:
        """Run a command in `place`; see `fork_server`."""
        place.mkdir(exist_ok=True)
        request |= {"argv": command, "folder": str(place)}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def uninterrupted(self, case: Case) -> tuple[dict, float]:
        """Return what such a run leaves behind, and the seconds it takes."""
        key = shlex.join(case.command)
        if key not in self.finished:
            place = self.folder / f"reference{len(self.finished)}"
            answer = self.run(place, case.command)
            assert answer["code"] == 0, answer
            self.finished[key] = left_behind(place), answer["seconds"]
        return self.finished[key]


def run_folder(place: Path) -> Path:
    (config,) = place.rglob("config.json")
    return config.parent


def left_behind(place: Path) -> dict:
    """Return everything of a finished run that must not depend on interruptions."""
    run = run_folder(place)
    header, *rows = [line.split(",") for line in (run / "train.csv").read_text().splitlines()]
    kept = [index for index, name in enumerate(header) if name not in NEVER]
    newest = max(run.glob("checkpoints/resume_*"))
    state, problems = checkpoint.load_newest(run / "checkpoints")
    assert problems == []
    assert state.pop("wall_seconds") > 0
    del state["log_sizes"]["train"], state["log_digests"]["train"]  # times differ
    tensors = {}
    tree = checkpoint._flatten(state, "", tensors)
    assert len(rows) > 3
    assert not list(run.rglob(".*.tmp"))
    status = json.loads((run / "run.json").read_text())
    assert (status["state"], status["error"]) == ("finished", None)
    RunDir(run).check_results()
    return {
        "train.csv": [[row[index] for index in kept] for row in [header, *rows]],
        "checkpoint": newest.name,
        "tensors": (newest / "tensors.safetensors").read_bytes(),
        "state": tree,
        "results": {name: status[name] for name in ("env_steps", "updates", "final", "demos")},
    } | {
        path.name: path.read_bytes()
        for pattern in ("episodes.csv", "eval.csv", "checkpoints/[pr]*_*.safetensors")
        for path in run.glob(pattern)
    }


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    for env, policy in (
        ("CartPole", "controller"),
        ("LunarLander", "controller"),
        ("Pendulum", "random"),
        ("Hopper", "random"),
        ("GridWorld", "controller"),
        (DOTS, "random"),
        ("CarRacing", "controller"),
    ):
        command = ["collect-demos", "--env", env, "--policy", policy, "--episodes", "4"]
        if env == "CarRacing":
            command += ["--env-option", *LAPS]
        command += ["--data-dir", "../data"]
        assert lab.run(lab.folder / "demos", command)["code"] == 0
    assert lab.run(lab.folder / "taught", Case("airl", num_envs=5).command)["code"] == 0
    yield lab
    lab.server.stdin.close()
    assert lab.server.wait(timeout=60) == 0


@pytest.fixture
def place(lab, request):
    """A folder beside the data, deep enough for the commands' relative paths."""
    name = re.sub(r"\W+", "-", request.node.name)
    yield lab.folder / name
    shutil.rmtree(lab.folder / name, ignore_errors=True)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES]
)
def test_killed_at_random_moments(lab, place, name):
    case = CASES[name]
    expected, seconds = lab.uninterrupted(case)
    command = [*case.command, "--resume-if-exists"]
    rng = random.Random(zlib.crc32(name.encode()))
    kills = attempts = 0
    while kills < case.kills:
        answer = lab.run(place, command, kill_after=rng.uniform(0.05, 0.8) * seconds)
        attempts += 1
        assert answer["code"] in (0, -signal.SIGKILL), answer
        assert attempts < 50
        if answer["code"] == 0:  # it was faster
            assert_same(left_behind(place), expected)
            shutil.rmtree(place)
        else:
            kills += 1
    answer = lab.run(place, command)
    assert answer["code"] == 0, answer
    assert_same(left_behind(place), expected)


CHECKPOINT = "rlfd.experiments.checkpoint"
MOMENTS = {
    "before anything was written": ("rlfd.experiments.run_dir:RunDir.create", 1, "before"),
    "before the state was written": ("rlfd.experiments.run_dir:RunDir.write_status", 1, "before"),
    "before the first checkpoint": ("rlfd.envs:World.step", 40, "after"),
    "in the middle of a row": ("rlfd.experiments.run_dir:CsvLog._append", 12, "half"),
    "before an evaluation is written": ("rlfd.experiments.runner:evaluation_row", 9, "after"),
    "in an evaluation": ("rlfd.envs.play:_Player.advance", 300, "after"),
    "before a policy is in its place": ("pathlib:Path.replace", 3, "before"),
    "while the first checkpoint is written": (f"{CHECKPOINT}:file_digest", 1, "before"),
    "while a checkpoint is written": (f"{CHECKPOINT}:file_digest", 7, "after"),
    "while a checkpoint is flushed": ("rlfd.files:fsync_path", 17, "before"),
    "before it is in its place": ("rlfd.experiments.checkpoint:publish_folder", 3, "before"),
    "before an old checkpoint is removed": ("shutil:rmtree", 1, "before"),
    "after the last checkpoint": ("rlfd.experiments.runner:best_step", 1, "before"),
    "in the final evaluation": ("rlfd.experiments.runner:Runner._play", 11, "after"),
    "before the end is recorded": ("rlfd.experiments.runner:Runner._write_status", 8, "before"),
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_bad_moment(lab, place, moment):
    expected, _ = lab.uninterrupted(USUAL)
    where, call, when = MOMENTS[moment]
    command = [*USUAL.command, "--resume-if-exists"]
    answer = lab.run(place, command, trap={"place": where, "call": call, "when": when})
    assert answer["code"] == -signal.SIGKILL, answer
    answer = lab.run(place, command)
    assert answer["code"] == 0, answer
    assert_same(left_behind(place), expected)


@pytest.fixture(scope="module")
def stopped(lab):
    """The folder of a run that was killed after its fourth checkpoint; do not change it."""
    trap = {"place": "rlfd.experiments.checkpoint:save_resume", "call": 4, "when": "after"}
    place = lab.folder / "stopped"
    assert lab.run(place, USUAL.command, trap=trap)["code"] == -signal.SIGKILL
    return place


@pytest.mark.parametrize("where", ["checkpoint:load_newest", "checkpoint:forget_after"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_is_restored(lab, place, stopped, where, when):
    expected, _ = lab.uninterrupted(USUAL)
    shutil.copytree(stopped, place)
    command = [*USUAL.command, "--resume"]
    trap = {"place": f"rlfd.experiments.{where}", "call": 1, "when": when}
    assert lab.run(place, command, trap=trap)["code"] == -signal.SIGKILL
    answer = lab.run(place, command)
    assert answer["code"] == 0, answer
    assert_same(left_behind(place), expected)


def test_killed_again_and_again_before_each_next_checkpoint(lab, place):
    """Each time the second checkpoint of the process is about to be published."""
    expected, _ = lab.uninterrupted(USUAL)
    command = [*USUAL.command, "--resume-if-exists"]
    trap = {"place": "rlfd.experiments.checkpoint:publish_folder", "call": 2}
    kills = 0
    while (answer := lab.run(place, command, trap=trap))["code"] != 0:
        assert answer["code"] == -signal.SIGKILL, answer
        kills += 1
        assert kills < 20
    assert kills >= 4
    assert_same(left_behind(place), expected)


def resume_command(answer: dict) -> list[str]:
    """Return what a stopped process told its user to type."""
    program, *command = shlex.split(answer["stderr"].strip().rpartition("continue with: ")[2])
    assert program == "rlfd"
    assert command[-1] == "--resume"
    return command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_politely(lab, place, number):
    """In the loop, then in the final evaluation; the printed command continues both times."""
    expected, _ = lab.uninterrupted(USUAL)
    command = [*USUAL.command, "--runs-dir", "my runs", "--exp-name", "stopped"]
    trap = {"place": "rlfd.envs:World.step", "call": 101, "number": number}
    answer = lab.run(place, command, trap=trap)
    assert (answer["code"], answer["stdout"]) == (130, ""), answer
    assert "interrupted at 303, checkpoint written to my runs/stopped/sqil" in answer["stderr"]
    assert "Traceback" not in answer["stderr"]
    status = json.loads((run_folder(place) / "run.json").read_text())
    assert (status["state"], status["env_steps"], status["error"]) == ("interrupted", 303, None)

    trap = {"place": "rlfd.experiments.runner:Runner._play_finally", "call": 1, "number": number}
    answer = lab.run(place, resume_command(answer), trap=trap)
    assert (answer["code"], answer["stdout"]) == (130, ""), answer
    assert "resuming at 303" in answer["stderr"]
    answer = lab.run(place, resume_command(answer))
    assert answer["code"] == 0, answer
    assert_same(left_behind(place), expected)


def damage(folder: Path, how: str) -> None:
    tensors = folder / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    if how == "cut off":
        tensors.write_bytes(content[: len(content) // 2])
    elif how == "one bit":
        content[len(content) // 2] ^= 4
        tensors.write_bytes(content)
    elif how == "no end mark":
        (folder / "complete.json").unlink()
    elif how == "empty end mark":
        (folder / "complete.json").write_text("{}")
    elif how == "odd end mark":
        (folder / "complete.json").write_text("[1]")
    elif how == "other state":
        state = (folder / "state.json").read_text()
        (folder / "state.json").write_text(state.replace('"progress"', '"progresz"'))
    else:
        shutil.rmtree(folder)
        folder.mkdir()


KINDS = ("cut off", "one bit", "no end mark", "empty end mark", "odd end mark", "other state", "-")


@pytest.mark.parametrize("how", KINDS)
def test_a_damaged_checkpoint_costs_time_only(lab, place, stopped, how):
    expected, _ = lab.uninterrupted(USUAL)
    shutil.copytree(stopped, place)
    first, newest = sorted(run_folder(place).glob("checkpoints/resume_*"))
    damage(newest, how)
    answer = lab.run(place, [*USUAL.command, "--resume"])
    assert answer["code"] == 0, answer
    assert f"warning: checkpoint {newest.relative_to(place)} is damaged" in answer["stderr"]
    assert f"resuming at {int(first.name[-9:])}\n" in answer["stderr"]
    assert_same(left_behind(place), expected)


def test_all_checkpoints_damaged_means_from_the_beginning(lab, place, stopped):
    expected, _ = lab.uninterrupted(USUAL)
    shutil.copytree(stopped, place)
    for folder, how in zip(
        sorted(run_folder(place).glob("checkpoints/resume_*")), KINDS, strict=False
    ):
        damage(folder, how)
    answer = lab.run(place, [*USUAL.command, "--resume"])
    assert answer["code"] == 0, answer
    assert answer["stderr"].count("is damaged") == 2
    assert "no checkpoint is left: starting from the beginning" in answer["stderr"]
    assert_same(left_behind(place), expected)


def test_the_installed_command(lab, place):
    """The same through `python -m rlfd`, killed as soon as there is something to resume from."""
    expected, _ = lab.uninterrupted(USUAL)
    place.mkdir()
    command = [sys.executable, "-m", "rlfd", *USUAL.command, "--resume-if-exists"]
    process = subprocess.Popen(command, cwd=place, env=ENV, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    checkpoints = place / "runs" / "default" / "sqil" / "CartPole" / "seed5" / "checkpoints"
    while not list(checkpoints.glob("resume_*")):  # deeper, folders come and go
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    subprocess.run(command, cwd=place, env=ENV, check=True, capture_output=True, timeout=300)
    assert_same(left_behind(place), expected)
