"""A suite's rows turned into numbers, one per seed and measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlfd import envs
from rlfd.algorithms.presets import environment_defaults
from rlfd.demos import Demonstrations
from rlfd.experiments import tables
from rlfd.experiments.config import preset_family
from rlfd.experiments.known import GAPS, measure_gaps
from rlfd.experiments.played import Played
from rlfd.experiments.report import Reporter
from rlfd.experiments.results import Metric, RunResult, load_results
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import DEMONSTRATIONS, Row, Section, Suite, Task
from rlfd.experiments.suite_plan import demo_id, rows_of, run_folder

__all__ = ["Measured", "Measuring", "measured_table"]

EPISODES = 100  # per seed, for the policies that are not trained; fewer where runs play fewer


@dataclass(frozen=True)
class Measured:
    """What one row gives in one section: per measure one number per seed."""

    values: Mapping[str, Sequence[float]]
    note: str = ""


@dataclass
class Measuring:
    """Turns rows into numbers: from run folders, from demonstrations, or by playing.

    Attributes:
        suite: Whose rows.
        seeds: One number each.
        runs_dir: Where its runs are.
        datasets: Its demonstrations by id.
        reporter: Told of what is played.
    """

    suite: Suite
    seeds: Sequence[int]
    runs_dir: Path
    datasets: Mapping[str, Demonstrations]
    reporter: Reporter

    def __post_init__(self) -> None:
        """Find what was played before."""
        folder = self.runs_dir / self.suite.name / "results"
        self._played = Played(folder / "played.json", self.runs_dir, self.reporter)

    @property
    def metric(self) -> Metric:
        """The suite's own; else success where all environments have a success test, or return."""
        if self.suite.metric:
            return self.suite.metric
        tested = all(envs.spec(task.env).has_success for task in self.suite.tasks)
        return "success" if tested else "return"

    @property
    def reaching(self) -> dict[str, str]:
        """Measures that say after how many env steps a value was reached, with their policies."""
        if self.suite.reach is None:
            return {}
        wanted = f"steps to {self.metric} {self.suite.reach:g}"
        return {f"{wanted}, {policy}": policy for policy in ("sampled", "greedy")}

    @property
    def measures(self) -> tuple[str, ...]:
        """Everything that the suite's tables may say about a row."""
        known = any(envs.spec(task.env).table is not None for task in self.suite.tasks)
        return (*tables.SUITE_MEASURES, *(GAPS if known else ()), *self.reaching)

    def metric_of(self, measure: str) -> str:
        """Return what a measure is given in."""
        if measure in self.reaching:
            return tables.ENV_STEPS
        return "gap" if measure in GAPS else self.metric

    def measure(self, section: Section, row: Row) -> Measured:
        """Return a row's numbers in a section."""
        if row.policy == DEMONSTRATIONS:
            return self._demonstrations(section)
        if row.policy:
            return self._policy(section.task, row.policy)
        if row.algo:
            return self._runs(section, row)
        return Measured({}, row.unavailable)

    def finished(self, section: Section, row: Row) -> list[RunDir]:
        """Return a row's finished runs in a section, in the order of the seeds."""
        runs = [
            RunDir(run_folder(self.suite, row, section.task, section.demos, seed, self.runs_dir))
            for seed in self.seeds
        ]
        return [run for run in runs if run.exists and run.status().get("state") == "finished"]

    def _runs(self, section: Section, row: Row) -> Measured:
        runs = self.finished(section, row)
        note = "" if len(runs) == len(self.seeds) else f"{len(runs)} of {len(self.seeds)} runs"
        by_seed = [self._run(section, result) for result in load_results(runs)] if runs else []
        names = [name for name in self.measures if any(name in v for v in by_seed)]
        values = {name: [v[name] for v in by_seed if name in v] for name in names}
        return Measured(values, f"{note} finished" if note else "")

    def _run(self, section: Section, result: RunResult) -> dict[str, float]:
        values = tables.measure(result, self.metric) | measure_gaps(result.run)
        headline = f"final, {result.policies[0]}"
        if self.suite.reach is not None and result.interacts:
            values |= {
                name: tables.reached_after(result, policy, self.metric, self.suite.reach)
                for name, policy in self.reaching.items()
                if policy in result.policies
            }
        if headline not in values:  # trained without an evaluation at the end
            return values
        if not len(result.run.episodes()):  # no training episodes: the evaluation, as in the paper
            values[tables.BEST_TRAINING] = values[headline]
        if self.metric == "return":
            values |= self._share(section, result.seed, values[headline])
            dense = result.evaluation_mean("final", result.policies[0], "dense-return")
            if section.task.reward != "dense" and dense is not None:
                values[tables.DENSE] = dense
        return values

    def _share(self, section: Section, seed: int, value: float) -> dict[str, float]:
        """Return a return as share of that of the demonstrations which runs of this seed get."""
        shown = self._shown(section, seed)
        return {} if shown is None or shown <= 0 else {tables.SHARE: value / shown}

    def _shown(self, section: Section, seed: int) -> float | None:
        """Return the mean return, or success, of the demonstrations which runs of this seed get."""
        if section.demos is None:
            return None
        dataset = self.datasets.get(demo_id(self.suite, section.task, section.demos))
        if dataset is None:
            return None
        used = dataset.subset(section.demos.num, seed) if section.demos.num else dataset
        return used.success_rate if self.metric == "success" else float(used.returns.mean())

    def _demonstrations(self, section: Section) -> Measured:
        shown = [self._shown(section, seed) for seed in self.seeds]
        values = [value for value in shown if value is not None]
        if not values:
            return Measured({}, "not collected yet")
        return Measured({"final, sampled": values, tables.BEST_TRAINING: values})

    def _policy(self, task: Task, policy: str) -> Measured:
        """Evaluate a policy that is not trained, over as many episodes per seed as a run is."""
        env = task.config
        usual = {**environment_defaults(env.name, preset_family(env)), **self.suite.run}
        episodes = min(EPISODES, usual.get("final_episodes") or EPISODES)
        played = [
            self._played.summary(policy, env, seed=seed, episodes=episodes) for seed in self.seeds
        ]
        name = "success_rate" if self.metric == "success" else "return_mean"
        values = [one[name] for one in played]
        measured = {"final, sampled": values, tables.BEST_TRAINING: values}
        if self.metric == "return" and env.reward != "dense":
            measured[tables.DENSE] = [one["dense_return_mean"] for one in played]
        return Measured(measured)


def measured_table(measuring: Measuring, sections: Sequence[Section]) -> pd.DataFrame:
    """Return one row per section, suite row and measure, ours beside the paper's."""
    rows = []
    for section in sections:
        for row in rows_of(measuring.suite, section):
            one = measuring.measure(section, row)
            paper = row.paper.get(section.task.name, (None, None))
            for name in measuring.measures:
                steps = name in measuring.reaching
                compared = paper if name == tables.BEST_TRAINING else (None, None)
                rows.append(
                    {
                        "group": section.group.name,
                        "task": section.task.name,
                        "demos": section.demos_name,
                        "row": row.label,
                        "measure": name,
                        "metric": measuring.metric_of(name),
                    }
                    | (tables.reached_row if steps else tables.statistics_row)(
                        one.values.get(name, ())
                    )
                    | {
                        "paper": compared[0],
                        "paper_spread": compared[1],
                        "note": "; ".join(text for text in (one.note, row.note) if text),
                    }
                )
    return pd.DataFrame(rows)
