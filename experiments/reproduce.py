"""A suite worked off and set beside the paper's numbers: runs, tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlfd import demos, envs
from rlfd.algorithms.presets import environment_defaults
from rlfd.demos import Demonstrations
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import figures, tables
from rlfd.experiments.config import preset_family
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.evaluate import EVAL_SEED_OFFSET
from rlfd.experiments.grid_figure import plot_gaps
from rlfd.experiments.initial_policy import same_init
from rlfd.experiments.known import GAPS, measure_gaps
from rlfd.experiments.launch import Engine, Job, JobResult, launch
from rlfd.experiments.quality_figure import plot_demonstrations
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.results import Metric, RunResult, env_title, load_results
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import (
    DEMONSTRATIONS,
    DemoPlan,
    FigurePlan,
    Row,
    Section,
    Suite,
    Task,
    demo_env,
    demo_id,
    exp_name,
    parts_of,
    plan,
    row_env,
    rows_of,
    run_folder,
    sections_of,
    uses_demos,
)
from rlfd.files import write_json, write_text
from rlfd.seeding import derive_many

__all__ = ["ReproduceResult", "reproduce"]

_JUDGED = "final weights, the policy that the method is judged by (greedy or sampled)"
_REACHED = (
    " 'steps to': env steps of the first evaluation of that value, median over seeds [95 % "
    "bootstrap interval]; – where it was not reached."
)
EPISODES = 100  # per seed, for the policies that are not trained; fewer where runs play fewer


@dataclass(frozen=True)
class ReproduceResult:
    """What `reproduce` leaves behind.

    Attributes:
        folder: Where everything was saved.
        table: One row per (group, task, demonstrations, row, measure): ours and the paper's number.
        text_tables: Ready to print, by title.
        figures: Learning curves.
        jobs: What became of every run.
    """

    folder: Path
    table: pd.DataFrame
    text_tables: Mapping[str, pd.DataFrame]
    figures: Sequence[figures.FigureFiles]
    jobs: Sequence[JobResult]

    @property
    def failures(self) -> list[JobResult]:
        """Runs that ended without finishing."""
        return [result for result in self.jobs if result.has_failed]


def reproduce(
    suite: Suite,
    *,
    runs_dir: Path,
    data_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = (),
    tasks: Sequence[str] = (),
    engine: Engine | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> ReproduceResult:
    """Make what is missing of a suite, then the tables and figures of all that is finished.

    Args:
        suite: The suite.
        runs_dir: Where runs go; the results go into a folder there named after the suite.
        data_dir: Where the demonstrations are, or are collected to.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them, none for the first.
        tasks: Names of the suite's tasks; none for all of them.
        engine: Where runs are made; by default on this machine.
        retry_failed: Also start runs that failed before.
        report_only: Start no runs, collect nothing; report what is finished.
        reporter: Told of all that happens.
        command: What the user typed, kept with the results.

    Raises:
        RlfdError: If a run that is there was made with other steps, other demonstrations, or from
            another policy.
        Interrupted: After Ctrl-C.
    """
    reporter = reporter or NullReporter()
    seeds = list(seeds or suite.seeds)
    sections = sections_of(suite, groups, tasks)
    jobs = plan(
        suite, runs_dir=runs_dir, data_dir=data_dir, seeds=seeds, steps=steps, groups=groups,
        tasks=tasks,
    )  # fmt: skip
    datasets = _datasets(suite, sections, runs_dir, data_dir, reporter, collect=not report_only)
    _check_existing(jobs, datasets, runs_dir)
    folder = runs_dir / suite.name / "results"
    results: Sequence[JobResult] = []
    if not report_only:
        results = launch(
            jobs,
            log_dir=folder / "logs",
            engine=engine,
            retry_failed=retry_failed,
            reporter=reporter,
        )
    measuring = _Measuring(suite, seeds, runs_dir, datasets, reporter)
    table = _table(measuring, sections)
    texts = _text_tables(sections, table)
    drawn = _figures(measuring, sections, folder, table, command)
    about = {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": command,
        "seeds": seeds,
        "steps": steps or suite.steps,
        "demonstrations": [_describe(name, found) for name, found in datasets.items()],
        "protocol": list(suite.protocol),
    }
    _save(folder, about, table, texts, drawn, results)
    return ReproduceResult(folder, table, texts, drawn, results)


def _check_existing(
    jobs: Sequence[Job], datasets: Mapping[str, Demonstrations], runs_dir: Path
) -> None:
    """Refuse runs that are there already and cannot stand in one table with the new ones."""
    for job in jobs:
        run = RunDir(job.run_dir)
        if not run.exists:
            continue
        config = run.config()
        wanted = dict(zip(job.argv, job.argv[1:], strict=False))
        steps = int(wanted.get("--steps", config.steps))
        if config.steps != steps:
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run of {config.steps} env steps, "
                f"this suite wants {steps}",
                f"give --steps {config.steps}, or another --runs-dir",
            )
        dataset = datasets.get(wanted.get("--demos", ""))
        used = (run.status().get("demos") or {}).get("hash")
        if dataset is not None and used not in (None, dataset.info.content_hash):
            raise RlfdError(
                f"run folder '{job.run_dir}' was trained on other demonstrations than those in "
                "the data folder, the two cannot be compared",
                "give the --data-dir that it was made with, or another --runs-dir",
            )
        if not same_init(wanted.get("--init"), config.init, runs_dir):
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run that started from '{config.init}', "
                f"this suite wants '{wanted.get('--init')}'",
                "give another --runs-dir",
            )


def _datasets(
    suite: Suite,
    sections: Sequence[Section],
    runs_dir: Path,
    data_dir: Path,
    reporter: Reporter,
    *,
    collect: bool,
) -> dict[str, Demonstrations]:
    """Return the demonstrations of the sections by id; collect those that are missing."""
    found: dict[str, Demonstrations] = {}
    for section in sections:
        if section.demos is None or demo_id(suite, section.task, section.demos) in found:
            continue
        dataset = _dataset(
            suite, section.task, section.demos, runs_dir, data_dir, reporter, collect=collect
        )
        if dataset is not None:
            found[demo_id(suite, section.task, section.demos)] = dataset
    return found


def _dataset(
    suite: Suite,
    task: Task,
    wanted: DemoPlan,
    runs_dir: Path,
    data_dir: Path,
    reporter: Reporter,
    *,
    collect: bool,
) -> Demonstrations | None:
    """Return a task's set of demonstrations: read, collected or mixed; None if it is not there."""
    identity, env = demo_id(suite, task, wanted), demo_env(task, wanted)
    if identity in [info.id for info in demos.find(env, data_dir)]:
        dataset = demos.load(identity, env=env, data_dir=data_dir)
        if len(dataset.episodes) != wanted.episodes:
            raise RlfdError(
                f"demonstrations '{identity}' have {len(dataset.episodes)} episodes, "
                f"this suite wants {wanted.episodes}",
                "give another --data-dir",
            )
        return dataset
    if not collect:
        return None
    name = identity.rpartition("/")[2]
    parts = []
    for part, share in parts_of(suite, task, wanted):
        made = _dataset(suite, task, part, runs_dir, data_dir, reporter, collect=True)
        assert made is not None
        parts.append((made, share))
    if parts:
        reporter.message(f"mixing {_mixture(parts)} as '{identity}'")
        return demos.mix(
            parts, name=name, episodes=wanted.episodes, seed=wanted.seed, data_dir=data_dir
        )
    reporter.message(
        f"collecting {wanted.episodes} demonstrations of {env_title(env)} by {wanted.policy} "
        f"as '{identity}'"
    )
    return demos.collect(
        env,
        make_demonstrator(wanted.policy, env, seed=wanted.seed, runs_dir=runs_dir),
        episodes=wanted.episodes,
        noise=wanted.noise,
        noop=wanted.noop,
        seed=wanted.seed,
        name=name,
        data_dir=data_dir,
    )


def _mixture(parts: Sequence[tuple[Demonstrations, float]]) -> str:
    return " + ".join(f"{share:g} {dataset.info.name}" for dataset, share in parts)


def _describe(name: str, dataset: Demonstrations) -> dict[str, Any]:
    return {
        "name": name,
        "hash": dataset.info.content_hash,
        "episodes": len(dataset.episodes),
        "return_mean": float(dataset.returns.mean()),
        "mixture": [
            {"share": part["share"], "name": part["name"]}
            for part in dataset.info.demonstrator.get("parts", ())
        ],
    }


@dataclass(frozen=True)
class _Measured:
    """What one row gives in one section: per measure one number per seed."""

    values: Mapping[str, Sequence[float]]
    note: str = ""


@dataclass
class _Measuring:
    """Turns rows into numbers: from run folders, from demonstrations, or by playing."""

    suite: Suite
    seeds: Sequence[int]
    runs_dir: Path
    datasets: Mapping[str, Demonstrations]
    reporter: Reporter
    played: dict[tuple[str, str], _Measured] = field(default_factory=dict)

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

    def measure(self, section: Section, row: Row) -> _Measured:
        """Return a row's numbers in a section."""
        if row.policy == DEMONSTRATIONS:
            return self._demonstrations(section)
        if row.policy:
            return self._policy(section.task, row.policy)
        if row.algo:
            return self._runs(section, row)
        return _Measured({}, row.unavailable)

    def finished(self, section: Section, row: Row) -> list[RunDir]:
        """Return a row's finished runs in a section, in the order of the seeds."""
        runs = [
            RunDir(run_folder(self.suite, row, section.task, section.demos, seed, self.runs_dir))
            for seed in self.seeds
        ]
        return [run for run in runs if run.exists and run.status().get("state") == "finished"]

    def _runs(self, section: Section, row: Row) -> _Measured:
        runs = self.finished(section, row)
        note = "" if len(runs) == len(self.seeds) else f"{len(runs)} of {len(self.seeds)} runs"
        by_seed = [self._run(section, result) for result in load_results(runs)] if runs else []
        names = [name for name in self.measures if any(name in v for v in by_seed)]
        values = {name: [v[name] for v in by_seed if name in v] for name in names}
        return _Measured(values, f"{note} finished" if note else "")

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

    def _demonstrations(self, section: Section) -> _Measured:
        shown = [self._shown(section, seed) for seed in self.seeds]
        values = [value for value in shown if value is not None]
        if not values:
            return _Measured({}, "not collected yet")
        return _Measured({"final, sampled": values, tables.BEST_TRAINING: values})

    def _policy(self, task: Task, policy: str) -> _Measured:
        """Evaluate a policy that is not trained, over as many episodes per seed as a run is."""
        key = policy, task.name
        if key not in self.played:
            self.reporter.message(f"evaluating {policy} on {env_title(task.config)}")
            self.played[key] = self._play(task.config, policy)
        return self.played[key]

    def _play(self, env: EnvConfig, policy: str) -> _Measured:
        usual = {**environment_defaults(env.name, preset_family(env)), **self.suite.run}
        episodes = min(EPISODES, usual.get("final_episodes") or EPISODES)
        values, dense = [], []
        for seed in self.seeds:
            root = EVAL_SEED_OFFSET + seed  # the start states of the runs' final evaluations
            actor = make_demonstrator(policy, env, seed=root, runs_dir=self.runs_dir)
            actor.reset(episodes)
            starts = derive_many(root, "evaluation final", episodes)
            played = list(envs.play_episodes(env, seeds=starts, act=actor.act))
            if self.metric == "success":
                values.append(float(np.mean([bool(episode.success) for episode in played])))
            else:
                values.append(float(np.mean([episode.episode_return for episode in played])))
                dense.append(float(np.mean([episode.dense_return for episode in played])))
        measured = {"final, sampled": values, tables.BEST_TRAINING: values}
        if dense and env.reward != "dense":
            measured[tables.DENSE] = dense
        return _Measured(measured)


def _table(measuring: _Measuring, sections: Sequence[Section]) -> pd.DataFrame:
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


def _of(table: pd.DataFrame, section: Section) -> pd.DataFrame:
    """Return the part of the table that belongs to a section."""
    own = (table["group"] == section.group.name) & (table["task"] == section.task.name)
    return table[own & (table["demos"] == section.demos_name)]


def _text_tables(sections: Sequence[Section], table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return one table of texts per section, by title."""
    texts = {}
    for section in sections:
        part = _of(table, section)
        rows = []
        for label, records in part.groupby("row", sort=False):
            by_name = {str(r["measure"]): r for r in records.to_dict("records")}
            best = by_name[tables.BEST_TRAINING]
            row = {"method": str(label), "n": str(max(r["n"] for r in by_name.values()))}
            row |= {
                name: tables.format_statistics({str(k): v for k, v in r.items()}, r["metric"])
                for name, r in by_name.items()
            }
            if part["paper"].notna().any():
                row["paper"] = "–"
                if pd.notna(best["paper"]):
                    row["paper"] = f"{best['paper']:.2f} ± {best['paper_spread']:.2f}"
            rows.append(row | {"note": str(best["note"])})
        shown = pd.DataFrame(rows)
        optional = [name for name in (tables.DENSE, tables.SHARE, *GAPS) if name in shown]
        empty = [name for name in optional if (shown[name] == "–").all()]
        if not (shown["note"] != "").any():
            empty.append("note")
        texts[_title(section, sections)] = shown.drop(columns=empty)
    return texts


def _title(section: Section, sections: Sequence[Section]) -> str:
    title = f"{section.group.title}: {env_title(section.task.config)}"
    sets = {other.demos_name for other in sections if other.group == section.group}
    if section.demos is not None and len(sets) > 1:
        title += f", {section.demos.title or section.demos.name}"
    return title


def _figures(
    measuring: _Measuring,
    sections: Sequence[Section],
    folder: Path,
    table: pd.DataFrame,
    command: str,
) -> list[figures.FigureFiles]:
    """Draw the suite's figures from the rows with runs.

    Learning curves are drawn for each set of demonstrations, the others over all of them.
    """
    suite = measuring.suite
    drawn = []
    for entry in suite.figures:
        rows = [suite.row(label) for label in entry.rows]
        panels = [section for section in sections if section.group.name == entry.group]
        if entry.x not in ("", "labels"):
            drawn += _over_demonstrations(measuring, entry, panels, folder, command)
            continue
        for name in dict.fromkeys(section.demos_name for section in panels):
            own = [section for section in panels if section.demos_name == name]
            runs = _shown_runs(measuring, own, rows)
            if not runs:
                continue
            stem = f"{entry.name}-{name}" if len(suite.demos) > 1 else entry.name
            drawn.append(
                figures.plot_learning_curves(
                    runs,
                    folder / f"{stem}.png",
                    x="labels" if entry.x == "labels" else "env-steps",
                    metric=measuring.metric,
                    command=command,
                    labels={
                        (exp_name(suite, row, own[0].demos), row.algo): row.label for row in rows
                    },
                    references=_reference_lines(suite, own, table),
                    panels_of={
                        row_env(row, section.task).label: section.task.config
                        for section in own
                        for row in rows
                        if row.env
                    },
                )
            )
    return drawn


def _shown_runs(
    measuring: _Measuring, sections: Sequence[Section], rows: Sequence[Row]
) -> list[RunDir]:
    return [
        run
        for section in sections
        for row in rows
        if row in rows_of(measuring.suite, section)
        for run in measuring.finished(section, row)
    ]


def _over_demonstrations(
    measuring: _Measuring,
    entry: FigurePlan,
    sections: Sequence[Section],
    folder: Path,
    command: str,
) -> list[figures.FigureFiles]:
    """Draw final performance against quality or number of the demonstrations of all sections."""
    suite = measuring.suite
    rows = [row for row in map(suite.row, entry.rows) if row.algo and uses_demos(suite, row)]
    runs = _shown_runs(measuring, sections, rows)
    if not runs:
        return []
    if entry.measure:
        return [_gap_figure(measuring, entry, sections, rows, folder, command)]
    labels = {
        (exp_name(suite, row, section.demos), row.algo): row.label
        for section in sections
        for row in rows
    }
    alone = [figure.name for figure in suite.figures].count(entry.name) == 1
    files = plot_demonstrations(
        runs,
        folder / f"{entry.name if alone else f'{entry.name}-{entry.group}'}.png",
        x="quality" if entry.x == "quality" else "num-demos",
        command=command,
        labels=labels,
    )
    return [files]


def _gap_figure(
    measuring: _Measuring,
    entry: FigurePlan,
    sections: Sequence[Section],
    rows: Sequence[Row],
    folder: Path,
    command: str,
) -> figures.FigureFiles:
    """Draw a gap of known finite environments against the number of demonstrations."""
    values: dict[str, dict[str, dict[int, Sequence[float]]]] = {}
    for section in sections:
        for row in rows:
            measured = measuring.measure(section, row).values.get(entry.measure)
            if measured and section.demos is not None:
                lines = values.setdefault(env_title(section.task.config), {})
                number = row.num_demos or section.demos.num or section.demos.episodes
                lines.setdefault(row.label, {})[number] = measured
    algorithms = {row.label: row.algo for row in rows}
    out = folder / f"{entry.name}.png"
    return plot_gaps(values, algorithms, entry.measure, out, command=command)


def _reference_lines(
    suite: Suite, sections: Sequence[Section], table: pd.DataFrame
) -> dict[str, list[figures.ReferenceLine]]:
    """Return what the rows without training reach, by environment label; random comes last."""
    policies = sorted((row for row in suite.rows if row.policy), key=lambda r: r.policy == "random")
    final = table[table["measure"] == "final, sampled"]
    lines = {}
    for section in sections:
        # other groups of the same demonstrations may have the row that this one lacks
        own = final[(final["task"] == section.task.name) & (final["demos"] == section.demos_name)]
        means = dict(zip(own["row"], own["mean"], strict=True))
        lines[section.task.config.label] = [
            figures.ReferenceLine(row.label, float(means[row.label]))
            for row in policies
            if pd.notna(means.get(row.label))
        ]
    return lines


def _save(
    folder: Path,
    about: dict[str, Any],
    table: pd.DataFrame,
    texts: Mapping[str, pd.DataFrame],
    drawn: Sequence[figures.FigureFiles],
    results: Sequence[JobResult],
) -> None:
    """Write the table as CSV, Markdown and JSON."""
    seeds = ", ".join(map(str, about["seeds"]))
    lines = [f"# {about['title']}", "", f"Paper: {about['paper']}.", ""]
    bullets = [f"* {line}" for line in about["protocol"]]
    bullets += [
        f"* Demonstrations '{found['name']}': {found['episodes']} episodes, mean return "
        f"{found['return_mean']:.1f}"
        + "".join(f", {part['share']:g} of '{part['name']}'" for part in found["mixture"])
        + f" ({found['hash']})."
        for found in about["demonstrations"]
    ]
    success = "return" not in set(table["metric"])
    lines += [*bullets, ""] if bullets else []
    steps = f", {about['steps']:,} env steps per run unless a row or task says otherwise"
    budget = steps if about["steps"] else ""
    lines += [
        f"Seeds {seeds}{budget}. "
        f"{'Success rates' if success else 'Returns'}: mean over seeds ± standard error, "
        "interquartile mean [95 % bootstrap interval over seeds]."
        + ("" if success else f" '{tables.SHARE}' and '{tables.DENSE}': {_JUDGED}.")
        + (_REACHED if tables.ENV_STEPS in set(table["metric"]) else "")
        + (" The paper's column is its mean ± spread." if table["paper"].notna().any() else ""),
        "",
    ]
    for title, text in texts.items():
        lines += [f"## {title}", "", tables.markdown(text)]
    for files in drawn:
        lines += [f"![{files.figure.stem}]({files.figure.name})", ""]
    failed = [result for result in results if result.has_failed]
    lines += [f"* {result.outcome}: `{result.job.command}`: {result.error}" for result in failed]
    if about["command"]:
        lines += ["", f"Made by `{about['command']}`."]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", "\n".join(lines).rstrip() + "\n")
    write_text(folder / "table.csv", table.to_csv(index=False))
    plain = table.astype(object).where(table.notna(), None)
    write_json(
        folder / "table.json",
        about
        | {
            "rows": plain.to_dict("records"),
            "failures": [
                {"run": result.job.name, "exit_code": result.exit_code, "error": result.error}
                for result in failed
            ],
        },
    )
