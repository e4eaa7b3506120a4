"""`rlfd evaluate`: play episodes with a trained policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.options import Debug, Json, NoProgress, Quiet, RunsDir, Verbose

__all__ = ["evaluate"]

_HOW = "Evaluation"


def evaluate(
    run: Annotated[str, typer.Argument(help="Folder of a run, or its path below --runs-dir.")],
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes to play.", rich_help_panel=_HOW)
    ] = 100,
    start: Annotated[
        str | None,
        typer.Option(help="Another start than the run was trained on.", rich_help_panel=_HOW),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="latest, best, or a step.", rich_help_panel=_HOW)
    ] = "latest",
    greedy: Annotated[
        bool | None,
        typer.Option(
            "--greedy/--sampled",
            help="Pick the best action or draw one. Left out: as the algorithm is judged.",
            rich_help_panel=_HOW,
            show_default=False,
        ),
    ] = None,
    record_video: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Record the first N episodes as MP4.", rich_help_panel=_HOW
        ),
    ] = 0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed. Left out: the run's evaluation seed.", rich_help_panel=_HOW
        ),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Play episodes with a trained policy and print return, success and length."""
    raise NotImplementedError
