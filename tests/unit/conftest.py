"""Run folders with made-up results, for everything that reads runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlfd import algorithms, demos
from rlfd.demos import make_demonstrator
from rlfd.envs import EnvConfig, check
from rlfd.experiments import measuring as measuring_module
from rlfd.experiments import train as training
from rlfd.experiments.config import Resolved, RunConfig, resolve
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite_file import parse_suite

from .small_suites import GRID
from .tiny_runs import CARTPOLE, OFFLINE, OPTIONS, SETTINGS, Listener

DEMOS = {"name": "d", "hash": "0", "return_mean": 270.0, "success_rate": 1.0, "episodes": 100}
SHIFTED = EnvConfig("LunarLander", "shifted")


def write_run(
    root: Path,
    *,
    algo: str = "sqil",
    seed: int = 0,
    env: EnvConfig = SHIFTED,
    exp_name: str = "default",
    state: str = "finished",
    steps: Sequence[int] = (1000, 2000, 3000),
    last: int | None = None,
    success: Callable[[int, np.random.Generator], float] | Sequence[float] = (0.0, 0.5, 1.0),
    final: float | None = 0.75,
    training: Sequence[float] = (),
    has_success: bool = True,
    demos: dict[str, Any] | None = DEMOS,
    episodes: int = 20,
    config: RunConfig | None = None,
) -> RunDir:
    """Write a run of `last` steps: `success` at `steps`, the greedy policy 0.25 below the sampled.

    A successful episode has return 250, any other -150. The best checkpoint succeeds 0.1 more often
    than the `final` weights. `training` holds the success of each training episode. A `config`
    stands for everything that says which run it is.
    """
    last = last or max(steps, default=500)
    config = config or RunConfig(
        algo=algo,
        env=check(env),
        algorithm=algorithms.get(algo).Config(),
        seed=seed,
        steps=last,
        exp_name=exp_name,
    )
    algo, seed, env, exp_name = config.algo, config.seed, config.env, config.exp_name
    run = RunDir.of(config, root)
    run.create(Resolved(config, {}))
    run.write_status({"state": state, "env_steps": last, "demos": demos, "error": None})
    rng = np.random.default_rng([seed, len(algo), len(exp_name), len(env.label)])

    def ended(won: int) -> dict[str, Any]:
        return {
            "episode_return": 400.0 * won - 150.0,
            "dense_return": 400.0 * won - 150.0,
            "episode_length": 200,
            "terminated": True,
            "truncated": False,
            "success": bool(won) if has_success else None,
            "landed": bool(won) if has_success else None,
        }

    def evaluation(phase: str, at: int, rate: float) -> list[dict[str, Any]]:
        return [
            {"env_steps": at, "phase": phase, "policy": policy, "episode": i, "seed": i}
            | ended(int(i < round(share * episodes)))
            for policy, share in (("sampled", rate), ("greedy", max(0.0, rate - 0.25)))
            for i in range(episodes)
        ]

    log = run.open_eval_log()
    for index, at in enumerate(steps):
        rate = success(at, rng) if callable(success) else success[index]
        log.write(evaluation("periodic", at, float(np.clip(rate, 0, 1))))
    if final is not None:
        log.write(evaluation("final", last, final))
        log.write(evaluation("best", last, min(1.0, final + 0.1)))
    log.close()
    log = run.open_episode_log()
    log.write({"env_steps": i, "env_index": 0} | ended(int(won)) for i, won in enumerate(training))
    log.close()
    log = run.open_train_log([])
    times = dict.fromkeys(("time/env", "time/act", "time/sample", "time/update"), 0.0)
    log.write(
        {"env_steps": at, "updates": at // 2, "wall_seconds": at / 500} | times for at in steps
    )
    log.close()
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    """Return a function that writes runs below a temporary folder."""

    def make(**options: Any) -> RunDir:
        return write_run(tmp_path / "runs", **options)

    return make


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


@pytest.fixture
def local_model():
    """Return a function that makes a model whose surrogate is the sum of the advantages.

    Its line search tries one step, which is as far from the old policy as it is told.
    """

    def make(kl: float) -> SimpleNamespace:
        return SimpleNamespace(
            theta=torch.zeros(1),
            kl=lambda theta: torch.tensor(kl),
            entropy=lambda theta: torch.tensor(0.0),
            surrogate=lambda theta, advantages: advantages.sum(),
            line_search=lambda step, accept, **options: accept(step),
        )

    return make


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def train(tmp_path, listener):
    """Return a function that trains a tiny run below the test's folder."""

    def run(algo="dqn", env=CARTPOLE, *, settings=(), resume=False, overwrite=False, track=False,
            runs="runs", **options):  # fmt: skip
        if resume:  # the folder knows the rest
            resolved = resolve(algo, env, settings=settings, options=options)
        else:
            cls = algorithms.get(algo)
            usual = OPTIONS if cls.needs.interaction else OPTIONS | OFFLINE
            own = [f"{k}={v}" for k, v in SETTINGS.items() if hasattr(cls.Config(), k)]
            resolved = resolve(algo, env, settings=[*own, *settings], options=usual | options)
        return training.train(
            resolved, runs_dir=tmp_path / runs, data_dir=tmp_path / "data", resume=resume,
            overwrite=overwrite, track=track, reporter=listener,
        )  # fmt: skip

    return run


@pytest.fixture
def collect(tmp_path):
    """Return a function that collects demonstrations of CartPole."""

    def make(name="good", episodes=3, seed=0, env=CARTPOLE):
        policy = make_demonstrator("random", env, seed=seed)
        return demos.collect(
            env, policy, episodes=episodes, seed=seed, name=name, data_dir=tmp_path / "data"
        )

    return make
