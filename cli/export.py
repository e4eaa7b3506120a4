"""`rlfd export`: a trained policy as one file."""

from __future__ import annotations

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
    policy_mode,
)

__all__ = ["export"]

_WHAT, _SCORE = "Policy", "Score"


def export(
    run: Annotated[str, typer.Argument(help="Folder of a run, or its path below --runs-dir.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file, such as Hopper.safetensors.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        str, typer.Option(help="best, latest, or a step.", rich_help_panel=_WHAT)
    ] = "best",
    greedy: Annotated[
        bool | None,
        typer.Option(
            "--greedy/--sampled",
            help="How it picks its actions. Left out: as its algorithm is judged.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the file.", rich_help_panel=_WHAT),
    ] = False,
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes of the score.", rich_help_panel=_SCORE)
    ] = 100,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed. Left out: the run's evaluation seed.", rich_help_panel=_SCORE
        ),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Write a run's policy to one file that can be passed on.

    It holds what acting needs, the run's configuration and command, and the score of an evaluation
    that is made first. It can demonstrate (collect-demos --policy) and be evaluated.
    """
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    from rlfd.experiments.run_dir import find_run
    from rlfd.experiments.shipped import export_policy

    made = export_policy(
        find_run(run, runs_dir),
        out,
        checkpoint=parse_checkpoint(checkpoint),
        policy=policy_mode(greedy),
        episodes=episodes,
        seed=seed,
        overwrite=overwrite,
        reporter=output.reporter,
    )
    if json:
        output.result(made.to_json() | {"file": made.path})
    else:
        score = made.score
        output.fields(
            {
                "file": f"{made.path} ({made.path.stat().st_size / 1000:,.0f} kB)",
                "policy": f"{made.algo}, {made.mode}, after {made.checkpoint:,} env steps",
                "trained with": made.command,
                "environment": f"{made.env.name}, start {score.start}",
                "episodes": number(score.episodes),
                "return": f"{number(score.return_mean)} ± {number(score.return_std)}",
                "success": share(score.success_rate),
            }
        )
    output.next_commands(
        command_line("rlfd", "collect-demos", "--env", made.env.name, "--policy", made.path),
    )
