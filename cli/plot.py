"""`rlfd plot`: learning curves with intervals over seeds, or the table behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rlfd.cli.console import Output
from rlfd.cli.options import DataDir, Debug, Json, NoProgress, Quiet, RunsDir, Verbose

__all__ = ["plot"]

_FIGURE = "Figure"


def plot(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, or folders that hold runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="FILE.png, .svg or .pdf; its data goes beside it as CSV.",
            rich_help_panel=_FIGURE,
        ),
    ] = None,
    x: Annotated[
        Literal["env-steps", "frames", "wall-time"],
        typer.Option("--x", help="Horizontal axis.", rich_help_panel=_FIGURE),
    ] = "env-steps",
    metric: Annotated[
        Literal["return", "success"],
        typer.Option(help="Vertical axis.", rich_help_panel=_FIGURE),
    ] = "return",
    iqm: Annotated[
        bool,
        typer.Option(
            "--iqm",
            help="Interquartile mean over seeds instead of the mean.",
            rich_help_panel=_FIGURE,
        ),
    ] = False,
    table: Annotated[
        bool,
        typer.Option(
            "--table", help="Print the final results as a table.", rich_help_panel=_FIGURE
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Draw learning curves: one line per algorithm, 95 % bootstrap intervals over seeds."""
    raise NotImplementedError
