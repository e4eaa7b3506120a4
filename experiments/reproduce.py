"""A suite worked off and set beside the paper's numbers: runs, tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rlfd.demos import Demonstrations
from rlfd.errors import RlfdError
from rlfd.experiments import figures, tables
from rlfd.experiments.config import check_budget, check_device
from rlfd.experiments.initial_policy import same_init
from rlfd.experiments.known import GAPS
from rlfd.experiments.launch import Engine, Job, JobResult, launch
from rlfd.experiments.measuring import Measuring, measured_table
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.results import comparable, env_title
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.suite import Section, Suite
from rlfd.experiments.suite_demos import datasets_of, describe
from rlfd.experiments.suite_figures import draw_suite
from rlfd.experiments.suite_plan import plan, sections_of
from rlfd.files import write_json, write_text

__all__ = ["ReproduceResult", "reproduce"]

_JUDGED = "final weights, the policy that the method is judged by (greedy or sampled)"
_REACHED = (
    " 'steps to': env steps of the first evaluation of that value, median over seeds [95 % "
    "bootstrap interval]; – where it was not reached."
)


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

    @property
    def elsewhere(self) -> list[JobResult]:
        """Runs that another process has not finished yet; the tables are without them."""
        return [result for result in self.jobs if result.outcome == "elsewhere"]


def reproduce(
    suite: Suite,
    *,
    runs_dir: Path,
    data_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = (),
    tasks: Sequence[str] = (),
    device: str | None = None,
    engine: Engine | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
    figure_suffix: str = ".png",
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
        device: Where runs learn; None = what `rlfd train` chooses.
        engine: Where runs are made; by default on this machine.
        retry_failed: Also start runs that failed before.
        report_only: Start no runs, collect nothing; report what is finished.
        reporter: Told of all that happens.
        command: What the user typed, kept with the results.
        figure_suffix: Format of the figures.

    Raises:
        RlfdError: If a run that is there was made with other steps, other demonstrations, or from
            another policy; or if the device is not there.
        Interrupted: After Ctrl-C.
    """
    reporter = reporter or NullReporter()
    check_device(device or "auto")
    seeds = list(seeds or suite.seeds)
    sections = sections_of(suite, groups, tasks)
    jobs = plan(
        suite, runs_dir=runs_dir, data_dir=data_dir, seeds=seeds, steps=steps, groups=groups,
        tasks=tasks, device=device,
    )  # fmt: skip
    if not report_only:
        _check_budgets(jobs)
    datasets = datasets_of(suite, sections, runs_dir, data_dir, reporter, collect=not report_only)
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
    measuring = Measuring(suite, seeds, runs_dir, datasets, reporter)
    table = measured_table(measuring, sections)
    texts = _text_tables(sections, table)
    drawn = draw_suite(measuring, sections, folder, table, command, figure_suffix)
    about = {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": command,
        "seeds": seeds,
        "steps": steps or suite.steps,
        "demonstrations": [describe(name, found) for name, found in datasets.items()],
        "protocol": [*suite.protocol, *_smaller(suite, steps)],
    }
    _save(folder, about, table, texts, drawn, results)
    return ReproduceResult(folder, table, texts, drawn, results)


def _check_budgets(jobs: Sequence[Job]) -> None:
    """Refuse a suite with runs, still to be made, that would end before they learn."""
    for job in jobs:
        if job.config is None or RunDir(job.run_dir).exists:
            continue
        try:
            check_budget(job.config)
        except RlfdError as error:
            raise RlfdError(f"{job.name}: {error.message}", error.hint) from error


def _smaller(suite: Suite, steps: int | None) -> list[str]:
    """Return what a reader of runs with fewer steps must know."""
    if steps is None or steps >= suite.steps or not suite.scaled:
        return []
    names = ", ".join(f"`{name}`" for name in suite.scaled)
    return [
        f"With {steps:,} instead of {suite.steps:,} env steps, what counts steps or updates is "
        f"smaller in proportion: {names}."
    ]


def _check_existing(
    jobs: Sequence[Job], datasets: Mapping[str, Demonstrations], runs_dir: Path
) -> None:
    """Refuse runs that are there already and cannot stand in one table with the new ones."""
    for job in jobs:
        run = RunDir(job.run_dir)
        if not run.exists:
            continue
        config, wanted = run.config(), job.config
        assert wanted is not None  # `plan` knows it
        if config.steps != wanted.steps:
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run of {config.steps} env steps, "
                f"this suite wants {wanted.steps}",
                f"give --steps {config.steps}, or another --runs-dir",
            )
        found = comparable(config)
        for name, value in comparable(wanted).items():
            if found.get(name) != value:
                raise RlfdError(
                    f"run folder '{job.run_dir}' holds a run with {name}={found.get(name)}, "
                    f"this suite wants {name}={value}",
                    "give another --runs-dir",
                )
        dataset = datasets.get(wanted.demos or "")
        used = (run.status().get("demos") or {}).get("hash")
        if dataset is not None and used not in (None, dataset.info.content_hash):
            raise RlfdError(
                f"run folder '{job.run_dir}' was trained on other demonstrations than those in "
                "the data folder, the two cannot be compared",
                "give the --data-dir that it was made with, or another --runs-dir",
            )
        if not same_init(wanted.init, config.init, runs_dir):
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run that started from '{config.init}', "
                f"this suite wants '{wanted.init}'",
                "give another --runs-dir",
            )


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
            n = int(max(r["n"] for r in by_name.values()))
            row = {"method": str(label), "n": str(n)}
            row |= {
                name: tables.format_statistics({str(k): v for k, v in r.items()}, r["metric"], n)
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
        "interquartile mean [its 95 % bootstrap interval over seeds]."
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
    missing = [result for result in results if result.outcome == "elsewhere"]
    lines += [f"* not finished yet, by another process: `{r.job.command}`" for r in missing]
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
            "elsewhere": [result.job.name for result in missing],
        },
    )
