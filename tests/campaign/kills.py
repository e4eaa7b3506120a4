"""Processes are killed at random moments, and what they did is begun or continued again.

Training runs of all methods must end bit for bit like ones that were never interrupted. All other
commands must leave whole results or none, and do their work when they are asked once more.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from tests.campaign.lab import Failure, Laboratory, complaint
from tests.contract.test_resume import CASES, DOTS, LAPS, Case, assert_same, left_behind

__all__ = ["case"]

COLLECTED = ("CartPole controller", "LunarLander controller", "Pendulum random", "Hopper random",
             "GridWorld controller", f"{DOTS} random", "CarRacing controller")  # fmt: skip
OTHERS = {
    "collect": ["collect-demos", "--env", "LunarLander", "--episodes", "9", "--name", "new"],
    "mix": ["demos", "mix", "CartPole/controller:0.5", "CartPole/random:0.5", "--name", "new"],
    "export": ["export", "dqn/CartPole/seed0", "--out", "new.safetensors", "--episodes", "30"],
    "plot": ["plot", "runs", "--out", "new.png"],
    "evaluate": ["evaluate", "dqn/CartPole/seed0", "--episodes", "50", "--json"],
    "overwrite": ["train", "dqn", "--env", "CartPole", "--steps", "300", "--num-envs", "3",
                  "--set", "learning_starts=50", "--final-episodes", "2", "--compile", "off",
                  "--set", "hidden=5,9", "--overwrite", "--yes", "--no-progress"],
}  # fmt: skip
USUAL = [name for name, one in CASES.items() if one.compile == "off"]


def case(laboratory: Laboratory, rng: random.Random) -> str:
    """Kill one process, or a chain of them; three of four are training runs."""
    if rng.random() < 0.75:
        return _training(laboratory, rng)
    return _other(laboratory, rng)


def _training(laboratory: Laboratory, rng: random.Random) -> str:
    lab, name = laboratory.lab, rng.choice(USUAL)
    chosen: Case = CASES[name]
    _prepare(laboratory, chosen)
    expected, seconds = lab.uninterrupted(chosen)
    command = [*chosen.command, "--resume-if-exists"]
    place = laboratory.folder / "killed"
    shutil.rmtree(place, ignore_errors=True)
    kills, wanted = 0, rng.randint(1, 4)
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
    for _ in range(wanted):
        after = rng.uniform(0.02, 1.0) * seconds
        answer = lab.run(place, command, kill_after=after, kill_with=number)
        if answer["code"] == 0:
            break
        if answer["code"] not in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 130):
            raise Failure(f"{name}, killed {kills} times: {answer}")
        kills += 1
    answer = lab.run(place, command)
    if answer["code"] != 0:
        raise Failure(f"{name} after {kills} kills: {answer}")
    try:
        assert_same(left_behind(place), expected)
    except AssertionError as error:
        raise Failure(f"{name} after {kills} kills differs in {str(error)[:200]}") from error
    return f"{'killed and the same' if kills else 'faster than the kill'}"


def _prepare(laboratory: Laboratory, chosen: Case) -> None:
    """Collect what training learns from, once."""
    lab, data = laboratory.lab, laboratory.folder / "data" / "demos"
    for env, policy in (text.split() for text in COLLECTED):
        if env != chosen.env or (data / env.replace("/", "-")).exists():
            continue
        command = ["collect-demos", "--env", env, "--policy", policy, "--episodes", "4"]
        command += ["--env-option", *LAPS] if env == "CarRacing" else []
        answer = lab.run(lab.folder / "demos", [*command, "--data-dir", "../data"])
        if answer["code"] != 0:
            raise Failure(f"{command}: {answer}")
    if chosen.reward_from is not None and not (lab.folder / "taught").exists():
        _prepare(laboratory, Case("airl"))
        lab.run(lab.folder / "taught", Case("airl", num_envs=5).command)


def _other(laboratory: Laboratory, rng: random.Random) -> str:
    name = rng.choice(list(OTHERS))
    command = OTHERS[name]
    place = laboratory.copy("killed")
    answer = laboratory.run(place, command, kill_after=rng.uniform(0.01, 1.0))
    if answer["code"] == 0:
        return "faster than the kill"
    before = _hidden(place)
    for line in (["list", "demos"], ["list", "runs"], ["plot", "runs", "--table"], command):
        again = laboratory.run(place, line)
        wrong = complaint(again) or ("" if again["code"] == 0 else f"exit code {again['code']}")
        if name == "overwrite" and line[0] == "plot" and again["code"] == 2:
            wrong = ""  # a run that has only begun has nothing to draw
        if wrong:
            raise Failure(f"{name} was killed, then {line}: {wrong}: {again['stderr']}")
    left = [path for path in _hidden(place) if path in before]
    if name in ("export", "overwrite") and left:
        raise Failure(f"{name} was killed, and these stay: {left}")
    return "killed and done again"


def _hidden(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob(".*.tmp"))
