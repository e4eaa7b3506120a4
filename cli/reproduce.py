"""`rlfd reproduce`: the runs of a paper's tables, and ours beside the paper's numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlfd.cli.console import Output, command_line
from rlfd.cli.options import (
    DataDir,
    Debug,
    Json,
    NoProgress,
    Quiet,
    RunsDir,
    Verbose,
    parse_positive,
    parse_seeds,
)
from rlfd.errors import RunFailed

if TYPE_CHECKING:
    from rlfd.experiments.launch import Job
    from rlfd.experiments.reproduce import ReproduceResult

__all__ = ["reproduce"]

_WHAT = "Suite"


def reproduce(
    suite: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a suite, see rlfd list suites.")
    ],
    seeds: Annotated[
        str | None,
        typer.Option(metavar="0-4", help="Seeds instead of the suite's.", rich_help_panel=_WHAT),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Env steps of each run instead of the suite's. Of some suites, what counts steps "
            "shrinks along.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Runs at a time. Left out: one less than the cores.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            help="Part of the suite; repeat for more, 'all' for everything.",
            rich_help_panel=_WHAT,
            show_default="the first one",
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "--envs",
            metavar="A,B",
            help="These of the suite's tasks only; repeat for more, too.",
            rich_help_panel=_WHAT,
            show_default="all",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto (cuda for images, if there), cpu, cuda.", rich_help_panel=_WHAT),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs only.", rich_help_panel=_WHAT)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run again what failed before.", rich_help_panel=_WHAT),
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option(
            "--report-only", help="Start nothing; report what is finished.", rich_help_panel=_WHAT
        ),
    ] = False,
    figure_format: Annotated[
        Literal["png", "svg", "pdf"],
        typer.Option(help="Format of the figures.", rich_help_panel=_WHAT),
    ] = "png",
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Work off every run of a suite, then print and save its tables and figures.

    Finished runs are left alone and interrupted ones continued, so the command can be repeated
    until all is there. Exit code 1 means that a run failed, or that another process still makes it;
    the others are there.
    """
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    from rlfd.experiments.launch import LocalEngine
    from rlfd.experiments.reproduce import reproduce as work_off
    from rlfd.experiments.suite_file import load_suite
    from rlfd.experiments.suite_plan import plan

    known = load_suite(suite)
    chosen_seeds = parse_seeds(seeds) if seeds else None
    chosen_tasks = [name.strip() for text in tasks or () for name in text.split(",")]
    if dry_run:
        planned = plan(
            known,
            runs_dir=runs_dir,
            data_dir=data_dir,
            seeds=chosen_seeds,
            steps=steps,
            groups=groups or [],
            tasks=chosen_tasks,
            device=device,
        )
        _print_plan(output, known.name, planned)
        return
    result = work_off(
        known,
        runs_dir=runs_dir,
        data_dir=data_dir,
        seeds=chosen_seeds,
        steps=steps,
        groups=groups or [],
        tasks=chosen_tasks,
        device=device,
        engine=LocalEngine(jobs),
        retry_failed=retry_failed,
        report_only=report_only,
        reporter=output.reporter,
        command=command_line("rlfd", *sys.argv[1:]),
        figure_suffix=f".{figure_format}",
    )
    _print_result(output, result)
    failed, elsewhere = len(result.failures), len(result.elsewhere)
    if failed or elsewhere:
        parts = {"failed": failed, "are being made by another process": elsewhere}
        hints = ["their logs are named above; --retry-failed starts them again"] if failed else []
        hints += ["the same command again, once that is done, completes it"] if elsewhere else []
        raise RunFailed(
            ", ".join(f"{n} of {len(result.jobs)} runs {what}" for what, n in parts.items() if n),
            "; ".join(hints),
        )


def _print_plan(output: Output, suite: str, jobs: Sequence[Job]) -> None:
    from rlfd.experiments.run_dir import RunDir

    entries = []
    for job in jobs:
        run = RunDir(job.run_dir)
        state = run.status().get("state", "new") if run.exists else "new"
        entries.append({"run": job.name, "state": state, "command": job.command})
    if output.json:
        output.result({"suite": suite, "runs": entries})
    else:
        rows = [[entry["run"], entry["state"], entry["command"]] for entry in entries]
        output.table(["run", "state", "command"], rows)


def _print_result(output: Output, result: ReproduceResult) -> None:
    if output.json:
        output.result(
            {
                "folder": result.folder,
                "table": result.table.to_dict("records"),
                "figures": [files.figure for files in result.figures],
                "failures": [
                    {"run": job.job.name, "error": job.error, "log": job.log}
                    for job in result.failures
                ],
                "elsewhere": [job.job.name for job in result.elsewhere],
            }
        )
        return
    for title, table in result.text_tables.items():
        output.line(f"\n{title}")
        output.table([str(name) for name in table.columns], table.to_numpy().tolist())
    output.line("")
    output.fields(
        {"folder": str(result.folder)}
        | {f"figure {i}": str(files.figure) for i, files in enumerate(result.figures, start=1)}
    )
