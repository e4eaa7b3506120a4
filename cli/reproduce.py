"""`rlfd reproduce`: the runs of a paper's tables, and ours beside the paper's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.console import Output
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

__all__ = ["reproduce"]

_WHAT = "Suite"


def reproduce(
    suite: Annotated[str, typer.Argument(metavar="NAME", help="Name of a suite.")],
    seeds: Annotated[
        str | None,
        typer.Option(metavar="0-4", help="Seeds instead of the suite's.", rich_help_panel=_WHAT),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Env steps of each run instead of the suite's.",
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs only.", rich_help_panel=_WHAT)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run again what failed before.", rich_help_panel=_WHAT),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Work off every run of a suite, then print and save the table and the figure.

    Finished runs are left alone and interrupted ones continued, so the command can be repeated
    until all is there.
    """
    raise NotImplementedError
