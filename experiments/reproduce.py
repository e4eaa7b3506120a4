"""A suite worked off and set beside the paper's numbers: runs, table, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlfd import demos, envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import figures, tables
from rlfd.experiments.evaluate import EVAL_SEED_OFFSET
from rlfd.experiments.launch import Engine, Job, JobResult, launch
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.results import RunResult, env_title, load_results
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import (
    Row,
    Suite,
    chosen_groups,
    exp_name,
    group_starts,
    plan,
    rows_of,
    run_folder,
    starts_of,
)
from rlfd.files import write_json, write_text
from rlfd.seeding import derive_many

__all__ = ["ReproduceResult", "reproduce"]

EPISODES = 100  # per seed and start, for the policies that are not trained


@dataclass(frozen=True)
class ReproduceResult:
    """What `reproduce` leaves behind.

    Attributes:
        folder: Where everything was saved.
        table: One row per (group, start, row, measure): ours, and the paper's number.
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
    groups: Sequence[str] = ("paper",),
    engine: Engine | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> ReproduceResult:
    """Make what is missing of a suite, then the table and the figures of all that is finished.

    Args:
        suite: The suite.
        runs_dir: Where runs go; the results go into a folder there named after the suite.
        data_dir: Where the demonstrations are, or are collected to.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them.
        engine: Where runs are made; by default on this machine.
        retry_failed: Also start runs that failed before.
        report_only: Start no runs; report those that are finished.
        reporter: Told of all that happens.
        command: What the user typed, kept with the results.

    Raises:
        RlfdError: If a run that is there was made with other steps, or other demonstrations.
        Interrupted: After Ctrl-C.
    """
    reporter = reporter or NullReporter()
    seeds = list(seeds or suite.seeds)
    chosen = chosen_groups(suite, groups)
    jobs = plan(
        suite, runs_dir=runs_dir, data_dir=data_dir, seeds=seeds, steps=steps, groups=groups
    )
    dataset = _demonstrations(suite, data_dir, reporter)
    _check_existing(jobs, dataset.info.content_hash)
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
    measured = _measure_rows(suite, chosen, seeds, runs_dir, reporter)
    table = _table(suite, chosen, seeds, measured)
    texts = _text_tables(suite, table)
    drawn = _figures(suite, chosen, seeds, runs_dir, folder, table, command)
    about = {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": command,
        "seeds": seeds,
        "steps": steps or suite.steps,
        "demonstrations": {"name": suite.demos.name, "hash": dataset.info.content_hash},
        "protocol": list(suite.protocol),
    }
    _save(folder, about, table, texts, drawn, results)
    return ReproduceResult(folder, table, texts, drawn, results)


def _check_existing(jobs: Sequence[Job], demos_hash: str) -> None:
    """Refuse runs that are there already and cannot stand in one table with the new ones."""
    for job in jobs:
        run = RunDir(job.run_dir)
        if not run.exists:
            continue
        config = run.config()
        steps = int(job.argv[job.argv.index("--steps") + 1]) if "--steps" in job.argv else None
        if steps is not None and config.steps != steps:
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run of {config.steps} env steps, "
                f"this suite wants {steps}",
                f"give --steps {config.steps}, or another --runs-dir",
            )
        used = (run.status().get("demos") or {}).get("hash", demos_hash)
        if used != demos_hash:
            raise RlfdError(
                f"run folder '{job.run_dir}' was trained on other demonstrations than those in "
                "the data folder, the two cannot be compared",
                "give the --data-dir that it was made with, or another --runs-dir",
            )


def _demonstrations(suite: Suite, data_dir: Path, reporter: Reporter) -> demos.Demonstrations:
    """Return the suite's demonstrations; collect them if they are missing."""
    wanted = suite.demos
    env = EnvConfig(suite.env, wanted.start)
    if wanted.name in [info.name for info in demos.find(env, data_dir)]:
        found = demos.load(wanted.name, env=env, data_dir=data_dir)
        if len(found.episodes) != wanted.episodes:
            raise RlfdError(
                f"demonstrations '{wanted.name}' have {len(found.episodes)} episodes, "
                f"this suite wants {wanted.episodes}",
                "give another --data-dir",
            )
        return found
    reporter.message(
        f"collecting {wanted.episodes} demonstrations of {suite.env} by its {wanted.policy} "
        f"from start '{wanted.start}' as '{wanted.name}'"
    )
    return demos.collect(
        env,
        demos.make_demonstrator(wanted.policy, env, seed=wanted.seed),
        episodes=wanted.episodes,
        seed=wanted.seed,
        name=wanted.name,
        data_dir=data_dir,
    )


@dataclass(frozen=True)
class _Measured:
    """What one row gives from one start: per measure one number per seed."""

    values: Mapping[str, Sequence[float]]
    note: str


def _measure_rows(
    suite: Suite, groups: Sequence[str], seeds: Sequence[int], runs_dir: Path, reporter: Reporter
) -> dict[tuple[str, str], _Measured]:
    """Return the numbers of every row from every start, by (label, start)."""
    measured = {}
    for row in rows_of(suite, groups):
        for start in starts_of(suite, row, groups):
            if row.algo:
                found = _finished(suite, row, start, seeds, runs_dir)
                one = _measured_runs(found, len(seeds))
            elif row.policy:
                reporter.message(f"evaluating {row.label} from start '{start}'")
                one = _measured_policy(EnvConfig(suite.env, start), row.policy, seeds)
            else:
                one = _Measured({}, row.unavailable)
            measured[row.label, start] = one
    return measured


def _finished(
    suite: Suite, row: Row, start: str, seeds: Sequence[int], runs_dir: Path
) -> list[RunDir]:
    runs = [RunDir(run_folder(suite, row, start, seed, runs_dir)) for seed in seeds]
    return [run for run in runs if run.exists and run.status().get("state") == "finished"]


def _measured_runs(runs: Sequence[RunDir], wanted: int) -> _Measured:
    note = "" if len(runs) == wanted else f"{len(runs)} of {wanted} runs finished"
    if not runs:
        return _Measured({}, note)
    by_seed = [_measure_run(result) for result in load_results(runs)]
    names = [name for name in tables.MEASURES if any(name in values for values in by_seed)]
    return _Measured(
        {name: [values[name] for values in by_seed if name in values] for name in names}, note
    )


def _measure_run(result: RunResult) -> dict[str, float]:
    values = tables.measure(result, "success")
    if not len(result.run.episodes()):  # no training episodes: the evaluation, as in the paper
        values[tables.BEST_TRAINING] = values[f"final, {result.policies[0]}"]
    return values


def _measured_policy(env: EnvConfig, policy: str, seeds: Sequence[int]) -> _Measured:
    """Evaluate a policy that is not trained, over as many episodes per seed as a run is."""
    values = []
    for seed in seeds:
        root = EVAL_SEED_OFFSET + seed  # the start states of the runs' final evaluations
        actor = demos.make_demonstrator(policy, env, seed=root)
        actor.reset(EPISODES)
        starts = derive_many(root, "evaluation final", EPISODES)
        played = envs.play_episodes(env, seeds=starts, act=actor.act)
        values.append(float(np.mean([bool(episode.success) for episode in played])))
    return _Measured({"final, sampled": values, tables.BEST_TRAINING: values}, "")


def _table(
    suite: Suite,
    groups: Sequence[str],
    seeds: Sequence[int],
    measured: Mapping[tuple[str, str], _Measured],
) -> pd.DataFrame:
    rows = []
    for group in groups:
        for start in group_starts(suite, group):
            for row in rows_of(suite, [group]):
                one = measured[row.label, start]
                paper = row.paper.get(start, (None, None))
                for name in tables.MEASURES:
                    rows.append(
                        {"group": group, "start": start, "row": row.label, "measure": name}
                        | tables.statistics_row(one.values.get(name, ()))
                        | {
                            "paper": paper[0] if name == tables.BEST_TRAINING else None,
                            "paper_spread": paper[1] if name == tables.BEST_TRAINING else None,
                            "note": "; ".join(text for text in (one.note, row.note) if text),
                        }
                    )
    return pd.DataFrame(rows)


def _text_tables(suite: Suite, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return one table of texts per group and start, by title."""
    titles = {group.name: group.title for group in suite.groups}
    texts = {}
    for (group, start), part in table.groupby(["group", "start"], sort=False):
        env = EnvConfig(suite.env, str(start))
        rows = []
        for label, records in part.groupby("row", sort=False):
            by_name = {str(r["measure"]): r for r in records.to_dict("records")}
            best = by_name[tables.BEST_TRAINING]
            row = {"method": str(label), "n": str(max(r["n"] for r in by_name.values()))}
            row |= {
                name: tables.format_statistics({str(k): v for k, v in r.items()}, "success")
                for name, r in by_name.items()
            }
            if part["paper"].notna().any():
                row["paper"] = "–"
                if pd.notna(best["paper"]):
                    row["paper"] = f"{best['paper']:.2f} ± {best['paper_spread']:.2f}"
            rows.append(row | {"note": str(best["note"])})
        shown = pd.DataFrame(rows)
        if not (shown["note"] != "").any():
            shown = shown.drop(columns="note")
        texts[f"{titles[str(group)]}: {env_title(env)}"] = shown
    return texts


def _figures(
    suite: Suite,
    groups: Sequence[str],
    seeds: Sequence[int],
    runs_dir: Path,
    folder: Path,
    table: pd.DataFrame,
    command: str,
) -> list[figures.FigureFiles]:
    """Draw the suite's figures from the rows that have runs."""
    by_label = {row.label: row for row in suite.rows}
    drawn = []
    for entry in suite.figures:
        if entry.group not in groups:
            continue
        rows = [by_label[label] for label in entry.rows]
        runs = [
            run
            for start in group_starts(suite, entry.group)
            for row in rows
            for run in _finished(suite, row, start, seeds, runs_dir)
        ]
        if not runs:
            continue
        drawn.append(
            figures.plot_learning_curves(
                runs,
                folder / f"{entry.name}.png",
                metric="success",
                command=command,
                labels={(exp_name(suite, row), row.algo): row.label for row in rows},
                references=_reference_lines(suite, table),
            )
        )
    return drawn


def _reference_lines(suite: Suite, table: pd.DataFrame) -> dict[str, list[figures.ReferenceLine]]:
    """Return the measured values of the policies that are not trained, by environment label."""
    rows = sorted((row for row in suite.rows if row.policy), key=lambda row: row.policy == "random")
    final = table[table["measure"] == "final, sampled"].drop_duplicates(["start", "row"])
    means = {(str(r["start"]), str(r["row"])): r["mean"] for r in final.to_dict("records")}
    starts = dict.fromkeys(start for start, _ in means)
    return {
        EnvConfig(suite.env, start).label: [
            figures.ReferenceLine(row.label, float(means[start, row.label]))
            for row in rows
            if (start, row.label) in means
        ]
        for start in starts
    }


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
    lines += [*(f"* {line}" for line in about["protocol"]), ""]
    lines += [
        f"Seeds {seeds}, {about['steps']:,} env steps per run unless a row says otherwise, "
        f"demonstrations '{about['demonstrations']['name']}' "
        f"({about['demonstrations']['hash']}). Success rates: mean over seeds ± "
        "standard error, interquartile mean [95 % bootstrap interval over seeds]. The paper's "
        "column is its mean ± spread.",
        "",
    ]
    for title, text in texts.items():
        lines += [f"## {title}", "", tables.markdown(text)]
    for files in drawn:
        lines += [f"![{files.figure.stem}]({files.figure.name})", ""]
    failed = [result for result in results if result.has_failed]
    lines += [f"* failed: `{result.job.command}`: {result.error}" for result in failed]
    if about["command"]:
        lines += ["", f"Made by `{about['command']}`."]
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
