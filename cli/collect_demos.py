"""`rlfd collect-demos`: record a demonstrator's episodes as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.options import (
    DataDir,
    Debug,
    Env,
    EnvOptions,
    Json,
    NoProgress,
    Quiet,
    RunsDir,
    Start,
    Verbose,
    parse_positive,
)

__all__ = ["collect_demos"]

_WHO = "Demonstrator"
_WHAT = "Dataset"


def collect_demos(
    env: Env,
    policy: Annotated[
        str | None,
        typer.Option(
            help="controller, random, or a trained run. Left out: the environment's own demonstrator.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="Checkpoint of the run: latest, best, or a step; an early one demonstrates badly.",
            rich_help_panel=_WHO,
        ),
    ] = "latest",
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy/--sampled", help="How a run picks its actions.", rich_help_panel=_WHO
        ),
    ] = True,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Probability of a random action instead of the demonstrator's.",
            rich_help_panel=_WHO,
        ),
    ] = 0.0,
    start: Start = "standard",
    env_option: EnvOptions = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Episodes to keep (default 100).",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Instead: whole episodes until there are N transitions.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    min_return: Annotated[
        float | None,
        typer.Option(help="Keep only episodes of at least this return.", rich_help_panel=_WHAT),
    ] = None,
    max_return: Annotated[
        float | None,
        typer.Option(help="Keep only episodes of at most this return.", rich_help_panel=_WHAT),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the dataset. Left out: made from the demonstrator.", rich_help_panel=_WHAT
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed.", rich_help_panel=_WHAT)] = 0,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Record episodes of a demonstrator.

    The dataset is in Minari's format, below the data folder. Make a demonstrator imperfect with
    --noise, --checkpoint, --min-return and --max-return.
    """
    raise NotImplementedError
