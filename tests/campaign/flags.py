"""Commands with options and values drawn at random: each works, or is refused with one message."""

from __future__ import annotations

import random
from typing import Any

import typer.main

from rlfd.cli.main import app
from tests.campaign.lab import NETWORK, SMALL, Failure, Laboratory, complaint

__all__ = ["case"]

ODD = [
    "", " ", "-", "--", "0", "-1", "1", "2", "3", "7", "0.5", "1e3", "1e13", "1e300", "nan", "inf",
    "-inf", "9" * 310, "1" + "0" * 400, "1e-320", "0x10", "1_0", "٣", "½", "true", "null", "{}",
    "[1,2]", "x" * 300, "a/b", "../..", "/", "/dev/null", "/dev/full", "/proc/self/mem",
    "\x1b[31mred",
    "a\nb", "a\tb", "é", "😀", "a:b", ":", "x:", "latest", "best", "CON", "%s", "{x}",
    "[red]x[/red]",
    "~", "$HOME", "*", "a=b", "=", "k=", "hidden=100000,100000", "learning_rate=1e300", "gamma=2",
    "batch_size=0", "batch_size=1e9", "buffer_size=1e15", "hidden=0", "hidden=-3", "hidden=",
    "n_step=1e6", "push_scale=0.5", "slip=nan", "size=1e9", "horizon=1e9", "frame_skip=0",
]  # fmt: skip
THINGS = [
    "dqn/CartPole/seed0", "runs", "runs/default", "dqn/CartPole/seed2", "bc/CartPole/seed0:best",
    "controller", "random", "random-v0", "shipped", "shipped:weak", "policy.safetensors",
    "CartPole",
    "GridWorld", "LunarLander", "Pong", "Hopper", "CartPole-v1", "ALE/Pong-v5", "no_package:Env-v0",
    "os:Env-v0", "dqn", "sqil", "bc", "airl", "controller:0.5", "random:0.5", "controller:1/3",
    "sparse", "delay-3", "delay-0", "demo", "shifted", "new.png", "new.safetensors",
    "sqil-lunarlander",
    "return", "success", "env-steps", "quality", "num-demos", "auto", "on", "off", "sampled",
    "greedy", "both", "png", "algos", "envs", "demos", "suites", "cuda", "cpu", "0-4", "0,2", "5-2",
    "airl/CartPole/seed0",
]  # fmt: skip
WORDS = {
    "train": [[], ["dqn", "--env", "CartPole"], ["sqil", "--env", "CartPole"],
              ["bc", "--env", "CartPole"], ["dagger", "--env", "GridWorld"],
              ["maxent-irl", "--env", "GridWorld"], ["bc", "--demos", "controller"]],
    "collect-demos": [[], ["--env", "CartPole"], ["--env", "GridWorld"]],
    "evaluate": [[], ["dqn/CartPole/seed0"], ["policy.safetensors"]],
    "export": [[], ["dqn/CartPole/seed0", "--out", "new.safetensors"]],
    "plot": [[], ["runs"], ["dqn/CartPole/seed0"]],
    "reproduce": [["sqil-lunarlander", "--dry-run"], ["sqil-lunarlander", "--report-only"]],
    "list": [[], ["runs"], ["demos"], ["algos"]],
    "show": [[], ["controller"], ["dqn/CartPole/seed0"]],
    "demos mix": [[], ["controller:0.5", "random:0.5", "--name", "new"]],
}  # fmt: skip


def case(laboratory: Laboratory, rng: random.Random) -> str:
    """Run one command."""
    name = rng.choice(list(WORDS))
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    words = [*name.split(), *rng.choice(WORDS[name])]
    if name == "train" and rng.random() < 0.8:
        words += [*SMALL, *(NETWORK if rng.random() < 0.3 else [])]
    options = [one for one in command.params if one.param_type_name == "option"]
    options = [one for one in options if "--help" not in one.opts and "--debug" not in one.opts]
    for option in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 1, 2, 2, 3, 5]))):
        words.append(rng.choice([*option.opts, *option.secondary_opts]))
        if not option.is_flag:
            words.append(_value(option, rng))
    if rng.random() < 0.2:
        words.insert(rng.randint(len(name.split()), len(words)), rng.choice([*ODD, *THINGS]))
    place = laboratory.copy("flagged")
    answer = laboratory.run(place, words, cpu=10)
    wrong = complaint(answer, may_last=True)
    if not wrong and answer["code"] == 2 and answer["stdout"] and "Usage" not in answer["stdout"]:
        wrong = "results, and exit code 2"
    if wrong:
        raise Failure(f"{words}: {wrong}\n{answer['stderr'][-900:]}\n{answer['stdout'][-300:]}")
    outcomes = {0: "done", 1: "failed with a message", 2: "refused", 130: "interrupted"}
    return outcomes.get(answer["code"], "still at it")


def _value(option: Any, rng: random.Random) -> str:
    kind = rng.random()
    if "--set" in option.opts and kind < 0.9:
        return rng.choice([text for text in ODD if "=" in text])
    return rng.choice(THINGS if kind < 0.5 else ODD)
