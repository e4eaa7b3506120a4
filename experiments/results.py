"""Finished and running runs as `figures` and `tables` look at them: one number per seed."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from rlfd import algorithms
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments.config import RunConfig
from rlfd.experiments.run_dir import RunDir

__all__ = [
    "METRIC_COLUMNS",
    "Metric",
    "RunResult",
    "common_metric",
    "comparable",
    "differences",
    "display_name",
    "env_title",
    "load_results",
]

logger = logging.getLogger("rlfd.results")

Metric = Literal["return", "dense-return", "success"]
METRIC_COLUMNS: dict[Metric, str] = {
    "return": "episode_return",
    "dense-return": "dense_return",
    "success": "success",
}

_NAMES = {
    "soft-q": "Soft Q",
    "dagger": "DAgger",
    "maxent-irl": "MaxEnt IRL",
    "apprenticeship": "Apprenticeship",
    "bc-soft-q": "BC + soft Q",
    "dqfd": "DQfD",
    "dqfd-reward-free": "DQfD (no rewards)",
    "pofd": "POfD",
    "sqil-sac": "SQIL (SAC)",
}  # those that are not simply written in capitals


@dataclass(frozen=True)
class RunResult:
    """One run's identity and records.

    Attributes:
        run: The run folder.
        algo: Name of the algorithm.
        exp_name: Which variant of it.
        env: The environment and start that it was trained and evaluated on.
        seed: Its seed.
        status: What `run.json` says.
    """

    run: RunDir
    algo: str
    exp_name: str
    env: EnvConfig
    seed: int
    status: dict[str, Any] = field(repr=False)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row per evaluation episode."""
        return _with_dense_return(self.run.evaluations())

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per training episode."""
        return _with_dense_return(self.run.episodes())

    @cached_property
    def has_success(self) -> bool:
        """Whether the environment has a success test."""
        return bool(self.evaluations["success"].notna().any())

    @property
    def interacts(self) -> bool:
        """Whether the method acts in the environment while it learns."""
        return algorithms.get(self.algo).needs.interaction

    @property
    def policies(self) -> tuple[str, ...]:
        """Ways to act after training; the algorithm is judged by the first one."""
        return algorithms.get(self.algo).policies

    def evaluation_mean(self, phase: str, policy: str, metric: Metric) -> float | None:
        """Return the mean over the evaluation episodes of one phase; None without any."""
        rows = self.evaluations
        rows = rows[(rows["phase"] == phase) & (rows["policy"] == policy)]
        values = rows[METRIC_COLUMNS[metric]].dropna()
        return float(values.mean()) if len(values) else None

    def evaluation_curve(self, policy: str, metric: Metric) -> pd.Series[float]:
        """Return the mean of each evaluation during training by env steps.

        The evaluation of the final weights closes the curve where no periodic one was made at that
        step. It is all that counts for a method that does not interact, which has no place on the
        axis.
        """
        rows = self.evaluations
        rows = rows[rows["policy"] == policy]
        periodic, final = rows[rows["phase"] == "periodic"], rows[rows["phase"] == "final"]
        if self.interacts:
            final = final[~final["env_steps"].isin(periodic["env_steps"])]
            rows = pd.concat([periodic, final])
        else:
            rows = final
        return rows.groupby("env_steps")[METRIC_COLUMNS[metric]].mean().dropna()


def _with_dense_return(episodes: pd.DataFrame) -> pd.DataFrame:
    """Return episodes with the column that was not written while there was no other reward."""
    if "dense_return" in episodes:
        return episodes
    return episodes.assign(dense_return=episodes["episode_return"])


def load_results(runs: Iterable[RunDir]) -> list[RunResult]:
    """Read the identity of every run, in the order given; a folder named twice counts once.

    A run whose files cannot be read, or are not those that it finished with, is left out, with a
    warning.

    Raises:
        RlfdError: If there is no run, none is left, or one seed of one variant appears in two
            folders.
    """
    results: dict[tuple[str, str, str, int], RunResult] = {}
    left_out: list[RlfdError] = []
    for run in runs:
        try:
            result = _result(run)
        except RlfdError as error:
            logger.warning("%s; it is left out", error.message)
            left_out.append(error)
            continue
        key = (result.exp_name, result.algo, result.env.label, result.seed)
        earlier = results.get(key)
        if earlier is not None:
            if earlier.run.path.resolve() == run.path.resolve():
                continue
            raise RlfdError(
                f"'{earlier.run.path}' and '{run.path}' are both seed {result.seed} of "
                f"'{result.exp_name}/{result.algo}' on {result.env.label}",
                "name the runs of one folder only, or give them different --exp-name",
            )
        results[key] = result
    if len(left_out) == 1 and not results:
        raise left_out[0]
    if left_out and not results:
        raise RlfdError(
            f"no run is left to look at, {len(left_out)} are damaged",
            "restore what is damaged, or make them again with --overwrite",
        )
    if not results:
        raise RlfdError("there is no run to look at", "train one with 'rlfd train'")
    return list(results.values())


def _result(run: RunDir) -> RunResult:
    config = run.config()
    run.check_results("*.csv")
    result = RunResult(
        run=run,
        algo=config.algo,
        exp_name=config.exp_name,
        env=config.env,
        seed=config.seed,
        status=run.status(),
    )
    assert result.evaluations is not None  # read now: it raises where it cannot be
    return result


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return what runs have in common whose numbers belong together, whatever their seed."""
    return {
        **{name: getattr(config, name) for name in ("steps", "num_envs", "num_demos")},
        **{f"option {name}": value for name, value in config.env.options.items()},
        **dataclasses.asdict(config.algorithm),
    }


def differences(group: Sequence[RunResult]) -> str:
    """Return a note on what the seeds of one variant should have in common and have not."""
    found: dict[str, set[str]] = {}
    for result in group:
        about = comparable(result.run.config())
        about["demonstrations"] = (result.status.get("demos") or {}).get("hash")
        for name, value in about.items():
            found.setdefault(name, set()).add(json.dumps(value))
    names = [name for name, values in found.items() if len(values) > 1]
    return f"seeds differ in {', '.join(names)}" if names else ""


def common_metric(results: Sequence[RunResult], metric: Metric | None) -> Metric:
    """Return the metric asked for, else success where every run has a success test.

    Raises:
        RlfdError: If success is asked for and a run's environment has no success test.
    """
    evaluated = [result for result in results if len(result.evaluations)]
    without = [result for result in evaluated or results if not result.has_success]
    if metric == "success" and without:
        raise RlfdError(
            f"{without[0].env.label} has no success test (run '{without[0].run.path}')",
            "use the metric 'return'",
        )
    return metric or ("return" if without else "success")


def display_name(algo: str) -> str:
    """Return how an algorithm is written in figures and tables."""
    return _NAMES.get(algo, algo.upper())


def env_title(env: EnvConfig) -> str:
    """Return how an environment, its start and its reward are written in figures and tables."""
    parts = [env.name]
    parts += [f"{env.start} start"] if env.start != "standard" else []
    parts += [f"{env.reward} reward"] if env.reward != "dense" else []
    return ", ".join(parts)
