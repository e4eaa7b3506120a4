"""`rlfd export`: a trained policy as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlfd.cli.console import Output, command_line, number, share
from rlfd.cli.options import (
    AllowImport,
    Debug,
    Json,
    NoProgress,
    Quiet,
    RunsDir,
    Verbose,
    parse_checkpoint,
    parse_episodes,
    policy_mode,
)

if TYPE_CHECKING:
    from rlfd.demos import PolicyFile

__all__ = ["export", "policy_fields"]

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
        int,
        typer.Option(
            parser=parse_episodes,
            metavar="N",
            help="Episodes of the score.",
            rich_help_panel=_SCORE,
        ),
    ] = 100,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed. Left out: the run's evaluation seed.", rich_help_panel=_SCORE
        ),
    ] = None,
    allow_import: AllowImport = None,
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
        output.fields(policy_fields(made))
    output.next_commands(
        command_line("rlfd", "collect-demos", "--env", made.env.name, "--policy", made.path),
    )


def policy_fields(file: PolicyFile) -> dict[str, str]:
    """Return what a policy file says about itself, as names and values to print."""
    from rlfd.experiments.config import unit_of

    score = file.score
    return {
        "file": f"{file.path} ({file.path.stat().st_size / 1000:,.0f} kB)",
        "policy": f"{file.algo}, {file.mode}, after {file.checkpoint:,} {unit_of(file.algo)}",
        "trained on": file.env.title,
        "trained with": file.command,
        "exported": f"{file.date}, rlfd {file.created_with}",
        "score": f"{score.episodes:,} episodes from start {score.start}, seed {score.seed}",
        "return": f"{number(score.return_mean)} ± {number(score.return_std)} over episodes",
        "success": share(score.success_rate),
        "length": number(score.length_mean),
    }
