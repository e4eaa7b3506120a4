"""Training loops of `rlfd` and of its peers, timed side by side.

Each loop runs in a process of its own, with its own libraries, and all of them take turns: while
one is timed, the others stand still (see workers/gate.py). The turns alternate, so that a machine
that becomes slower or faster does so for all.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["COMPARISONS", "Comparison", "Contender", "Rate", "compare", "make_environment"]

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"  # a plain `torch` would pull several GB of CUDA packages
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

SQIL = {
    "algo": "sqil",
    "hidden": [128, 128],
    "batch_size": 32,  # half demonstrations, half own transitions
    "learning_rate": 1e-4,
    "gamma": 0.99,
    "buffer_size": 100_000,
    # imitation's default, 50,000, would leave a short run without a single update
    "learning_starts": 1_000,
    "target_every_updates": 10_000,
    "max_grad_norm": 10,
    "epsilon": 0.05,  # of the peer, which explores by chance and not by the soft policy
    "demo_episodes": 20,
    "warm_at": 2_500,
}
DQN = {
    "algo": "dqn",
    "hidden": [256, 256],
    "batch_size": 128,
    "learning_rate": 6.3e-4,
    "gamma": 0.99,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "target_every_updates": 10_000,
    "max_grad_norm": 10,
    "epsilon": 0.05,
    "warm_at": 2_500,
}

PONG = {
    "algo": "dqn",
    "env": "Pong",
    "hidden": [512],  # after the convolutions
    "batch_size": 32,
    "learning_rate": 1e-4,
    "gamma": 0.99,
    # the peer keeps 56 kB for each transition
    "buffer_size": 10_000,
    "learning_starts": 1_000,
    "env_steps_per_update": 4,
    "target_every_updates": 250,
    "max_grad_norm": 10,
    "epsilon": 0.05,
    "warm_at": 1_200,
    "threads": 2,
}

_ON_POLICY = {
    "env": "Hopper",
    "hidden": [64, 64],
    "activation": "tanh",
    "gae_lambda": 0.95,
}
TRPO = {
    **_ON_POLICY,
    "algo": "trpo",
    "batch_steps": 5_000,
    "gamma": 0.995,
    "delta": 0.01,
    "cg_iterations": 10,
    "damping": 0.1,
    "fisher_every": 5,
    "line_search_shrink": 0.8,
    "line_search_tries": 10,
    "value_learning_rate": 1e-3,
    "value_batch_size": 500,
    "value_epochs": 10,
    "warm_at": 10_000,
}
PPO = {
    **_ON_POLICY,
    "algo": "ppo",
    "batch_steps": 2_048,
    "minibatch_size": 64,
    "epochs": 10,
    "gamma": 0.99,
    "learning_rate": 3e-4,
    "max_grad_norm": 0.5,
    "warm_at": 4_096,
}
SAC = {
    "algo": "sac",
    "env": "HalfCheetah",
    "hidden": [256, 256],
    "batch_size": 256,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "polyak_tau": 0.005,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "warm_at": 1_500,
}


@dataclass(frozen=True)
class Contender:
    """A training loop.

    Attributes:
        name: Of the package.
        worker: File under workers/.
        num_envs: Environments stepped together.
        peer: Name of its virtual environment; None = ours.
        own: What it has beyond the common setup.
        needed: Instead of the comparison's.
    """

    name: str
    worker: str
    num_envs: int = 1
    peer: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    needed: float | None = None

    @property
    def label(self) -> str:
        """Name and number of environments."""
        return f"{self.name}, {self.num_envs} env{'s' if self.num_envs > 1 else ''}"


@dataclass(frozen=True)
class Comparison:
    """Contenders in one task.

    Attributes:
        title: What is done.
        unit: What is counted: ``updates`` or ``env_steps``.
        needed: Times faster than the peer with one environment that we want to be.
        setup: What all have in common.
        contenders: In the order of their turns.
    """

    title: str
    unit: str
    needed: float
    setup: Mapping[str, Any]
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class Rate:
    """What a contender managed.

    Attributes:
        contender: Who.
        per_second: Median over the turns.
        low: Slowest turn.
        high: Fastest turn.
        updates_per_env_step: Counted, as a check that all did the same work.
        cpu_share: Part of the time in which the process had a processor; less than 0.95 means
            that the machine was busy with something else.
    """

    contender: Contender
    per_second: float
    low: float
    high: float
    updates_per_env_step: float
    cpu_share: float


COMPARISONS = (
    Comparison(
        "SQIL (peer: imitation 1.0.1): 2x128, batch 16 + 16, one update per env step",
        "updates",
        4.0,
        SQIL,
        (
            Contender("rlfd", "ours.py"),
            Contender("imitation", "imitation_sqil.py", peer="imitation"),
            Contender("rlfd", "ours.py", 16),
            Contender("imitation", "imitation_sqil.py", 16, "imitation"),
        ),
    ),
    Comparison(
        "DQN (peer: stable-baselines3 2.9.2): 2x256, batch 128, one update per env step",
        "env_steps",
        3.0,
        DQN,
        (
            Contender("rlfd", "ours.py"),
            Contender("stable-baselines3", "sb3_dqn.py", peer="stable-baselines3"),
            Contender("rlfd", "ours.py", 16),
            Contender("stable-baselines3", "sb3_dqn.py", 16, "stable-baselines3"),
        ),
    ),
    Comparison(
        "DQN on Pong (peer: stable-baselines3 2.9.2): Nature network, batch 32, one update per 4 "
        "env steps, 2 threads",
        "env_steps",
        1.6,
        PONG,
        (
            Contender("rlfd", "ours.py"),
            Contender("stable-baselines3", "sb3_dqn.py", peer="stable-baselines3"),
            Contender("rlfd", "ours.py", 8),
            Contender("rlfd, bfloat16", "ours.py", 8, own={"precision": "bfloat16"}, needed=2.2),
            Contender("stable-baselines3", "sb3_dqn.py", 8, "stable-baselines3"),
        ),
    ),
    Comparison(
        "TRPO on Hopper (peer: sb3-contrib 2.9.2): 2x64, batch 5,000, V fitted by 10 passes",
        "env_steps",
        3.0,
        TRPO,
        (
            Contender("rlfd", "ours.py", 8),
            Contender("sb3-contrib", "sb3_on_policy.py", peer="stable-baselines3"),
            Contender("sb3-contrib", "sb3_on_policy.py", 8, "stable-baselines3"),
        ),
    ),
    Comparison(
        "PPO on Hopper (peer: stable-baselines3 2.9.2): 2x64, batch 2,048, minibatch 64, 10 passes",
        "env_steps",
        2.0,
        PPO,
        (
            Contender("rlfd", "ours.py", 8),
            Contender("stable-baselines3", "sb3_on_policy.py", peer="stable-baselines3"),
            Contender("stable-baselines3", "sb3_on_policy.py", 8, "stable-baselines3"),
        ),
    ),
    Comparison(
        "SAC on HalfCheetah (peer: stable-baselines3 2.9.2): 2x256, batch 256, one update per env "
        "step",
        "env_steps",
        1.7,
        SAC,
        (
            Contender("rlfd", "ours.py"),
            Contender("stable-baselines3", "sb3_sac.py", peer="stable-baselines3"),
        ),
    ),
)


def make_environment(peer: str, folder: Path) -> Path:
    """Return the Python of a peer's virtual environment; make it if it is not there yet.

    Raises:
        subprocess.CalledProcessError: If it cannot be made.
    """
    python, done = folder / "bin" / "python", folder / ".installed"
    requirements = HERE / "requirements" / f"{peer}.txt"
    wanted = requirements.read_text()
    if done.exists() and done.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, TORCH, "-r", str(requirements)], check=True)
    done.write_text(wanted)
    return python


class _Worker:
    """The other end of a gate."""

    def __init__(self, contender: Contender, process: subprocess.Popen[str], log: Path) -> None:
        self.contender, self._process, self._log = contender, process, log
        self.turns: list[dict[str, float]] = []

    def wait_until_warm(self) -> None:
        self._read()

    def take_turn(self, seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self.turns.append(self._read())

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            text = self._log.read_text()[-2000:]
            raise RuntimeError(f"{self.contender.label} ended early:\n{text}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def rate(self, unit: str) -> Rate:
        rates = [turn[unit] / turn["seconds"] for turn in self.turns]
        total = {key: sum(turn[key] for turn in self.turns) for key in self.turns[0]}
        return Rate(
            self.contender,
            statistics.median(rates),
            min(rates),
            max(rates),
            total["updates"] / total["env_steps"],
            total["cpu_seconds"] / total["seconds"],
        )


@contextmanager
def _started(
    contender: Contender, python: Path, setup: Mapping[str, Any], log: Path
) -> Iterator[_Worker]:
    script = HERE / "workers" / contender.worker
    with log.open("w") as errors:
        process: subprocess.Popen[str] = subprocess.Popen(
            [
                str(python),
                str(script),
                str(contender.num_envs),
                json.dumps({**setup, **contender.own}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
    try:
        yield _Worker(contender, process, log)
    finally:
        for stream in (process.stdin, process.stdout):
            _close(stream)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()


def compare(
    comparison: Comparison,
    pythons: Mapping[str, Path],
    *,
    turns: int,
    seconds: float,
    logs: Path,
    say: Callable[[str], None],
) -> list[Rate]:
    """Time the contenders in turn.

    Args:
        comparison: Who does what.
        pythons: The peers' interpreters by name; a contender whose is missing is left out.
        turns: Of each contender.
        seconds: Length of a turn.
        logs: Folder for what the workers print.
        say: Told what is going on.
    """
    present: Sequence[Contender] = [
        c for c in comparison.contenders if c.peer is None or c.peer in pythons
    ]
    with ExitStack() as stack:
        workers = []
        for index, contender in enumerate(present):
            say(f"{comparison.title}: warming up {contender.label}")
            python = Path(sys.executable) if contender.peer is None else pythons[contender.peer]
            task = comparison.setup["algo"] + comparison.setup.get("env", "")
            log = logs / f"{task}-{index}.log"
            worker = stack.enter_context(_started(contender, python, comparison.setup, log))
            worker.wait_until_warm()  # one after the other, so that none disturbs another's timing
            workers.append(worker)
        for turn in range(turns):
            say(f"{comparison.title}: turn {turn + 1} of {turns}")
            for worker in workers:
                worker.take_turn(seconds)
        return [worker.rate(comparison.unit) for worker in workers]
