"""`rlfd evaluate`: play episodes with a trained policy."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.console import Output, command_line, number, share
from rlfd.cli.options import (
    Debug,
    Json,
    NoProgress,
    Quiet,
    RunsDir,
    Verbose,
    parse_checkpoint,
)

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
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    from rlfd.experiments.evaluate import evaluate_run
    from rlfd.experiments.run_dir import find_run

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # films are drawn without a screen
    found = find_run(run, runs_dir)
    summary = evaluate_run(
        found,
        episodes=episodes,
        start=start,
        checkpoint=parse_checkpoint(checkpoint),
        policy=None if greedy is None else "greedy" if greedy else "sampled",
        record_video=record_video,
        seed=seed,
        reporter=output.reporter,
    )
    if json:
        output.result(asdict(summary))
    else:
        output.fields(
            {
                "run": summary.run,
                "environment": f"{summary.env}, start {summary.start}",
                "policy": f"{summary.policy}, after {summary.checkpoint:,} env steps",
                "episodes": number(summary.episodes),
                "return": f"{number(summary.return_mean)} ± {number(summary.return_std)}, "
                f"IQM {number(summary.return_iqm)}",
                "success": share(summary.success_rate),
                "length": number(summary.length_mean),
            }
            | {f"video {index}": path for index, path in enumerate(summary.videos, start=1)}
        )
    output.next_commands(
        command_line("rlfd", "plot", found.path.parent, "--out", "figure.png"),
    )
