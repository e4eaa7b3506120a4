"""`rlfd evaluate`: play episodes with a trained policy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.console import Output, command_line, number, share
from rlfd.cli.options import (
    AllowImport,
    Debug,
    Json,
    MaxEpisodeSteps,
    NoProgress,
    Quiet,
    RunsDir,
    Verbose,
    parse_checkpoint,
    parse_episodes,
    policy_mode,
)

__all__ = ["evaluate"]

_HOW = "Evaluation"


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="A run, by folder or path below --runs-dir, or an exported policy."),
    ],
    episodes: Annotated[
        int,
        typer.Option(
            parser=parse_episodes, metavar="N", help="Episodes to play.", rich_help_panel=_HOW
        ),
    ] = 100,
    start: Annotated[
        str | None,
        typer.Option(help="Another start than the run was trained on.", rich_help_panel=_HOW),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Another reward than the run was trained with.", rich_help_panel=_HOW),
    ] = None,
    max_episode_steps: MaxEpisodeSteps = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="latest (left out), best, or a step.", rich_help_panel=_HOW),
    ] = None,
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
    allow_import: AllowImport = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Play episodes with a trained policy and print return, success and length."""
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    from rlfd.envs import EnvConfig
    from rlfd.experiments.evaluate import evaluate_policy
    from rlfd.experiments.shipped import find_policy

    trained = find_policy(
        run,
        runs_dir,
        checkpoint=None if checkpoint is None else parse_checkpoint(checkpoint),
        policy=policy_mode(greedy),
    )
    summary = evaluate_policy(
        trained,
        episodes=episodes,
        start=start,
        reward=reward,
        record_video=record_video,
        seed=seed,
        reporter=output.reporter,
        max_episode_steps=max_episode_steps,
    )
    if json:
        output.result(asdict(summary))
    else:
        paid_otherwise = summary.reward != "dense"
        dense = {"dense return": number(summary.dense_return_mean)} if paid_otherwise else {}
        output.fields(
            {
                "run": summary.run,
                "environment": EnvConfig(summary.env, summary.start, reward=summary.reward).title,
                "policy": f"{summary.policy}, after {summary.checkpoint:,} {trained.config.unit}",
                "episodes": number(summary.episodes),
                "return": f"{number(summary.return_mean)} ± {number(summary.return_std)} over "
                f"episodes, IQM {number(summary.return_iqm)}",
                **dense,
                "success": share(summary.success_rate),
                "length": number(summary.length_mean),
            }
            | {f"video {index}": path for index, path in enumerate(summary.videos, start=1)}
        )
    if trained.file is None:
        output.next_commands(
            command_line("rlfd", "plot", trained.place.parent, "--out", "figure.png"),
        )
    else:
        name = trained.config.env.name
        output.next_commands(
            command_line("rlfd", "collect-demos", "--env", name, "--policy", trained.place),
        )
