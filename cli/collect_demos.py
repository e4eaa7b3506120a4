"""`rlfd collect-demos`: record a demonstrator's episodes as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlfd.cli.console import Output, command_line, number, share
from rlfd.cli.options import (
    ActionRange,
    AllowImport,
    DataDir,
    Debug,
    Env,
    EnvOptions,
    FrameStack,
    Json,
    MaxEpisodeSteps,
    NoProgress,
    Quiet,
    Reward,
    RunsDir,
    Verbose,
    env_form,
    finite,
    parse_checkpoint,
    parse_env_options,
    parse_episodes,
    parse_positive,
    policy_mode,
    with_limit,
)
from rlfd.errors import RlfdError

if TYPE_CHECKING:
    from rlfd.demos import Demonstrations

__all__ = ["collect_demos", "print_new"]

_WHO = "Demonstrator"
_WHAT = "Dataset"


def collect_demos(
    env: Env,
    policy: Annotated[
        str | None,
        typer.Option(
            help="controller, random, shipped, shipped:weak, an exported policy, or a trained run. "
            "Left out: the environment's own.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Of the run: latest (left out), best, or a step; an early one demonstrates badly.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    greedy: Annotated[
        bool | None,
        typer.Option(
            "--greedy/--sampled",
            help="How a trained policy picks its actions. Left out: as its algorithm is judged.",
            rich_help_panel=_WHO,
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Probability of a random action instead of the demonstrator's.",
            rich_help_panel=_WHO,
        ),
    ] = 0.0,
    noop: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Probability of doing nothing instead: wrong always in the same way.",
            rich_help_panel=_WHO,
        ),
    ] = 0.0,
    action_noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            callback=finite,
            metavar="STD",
            help="Gaussian noise on continuous actions, in units of half their range.",
            rich_help_panel=_WHO,
        ),
    ] = 0.0,
    start: Annotated[
        str | None,
        typer.Option(
            help="Where episodes start. Left out: the environment's start for demonstrations.",
            rich_help_panel="Environment",
        ),
    ] = None,
    reward: Reward = "dense",
    env_option: EnvOptions = None,
    allow_import: AllowImport = None,
    max_episode_steps: MaxEpisodeSteps = None,
    action_range: ActionRange = None,
    frame_stack: FrameStack = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            parser=parse_episodes,
            metavar="N",
            help="Episodes to keep. Left out: 100; Atari, most of MuJoCo 10, Car Racing 20.",
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
        typer.Option(
            callback=finite,
            help="Keep only episodes of at least this return.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    max_return: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Keep only episodes of at most this return.",
            rich_help_panel=_WHAT,
        ),
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
    --noise, --noop, --action-noise, --checkpoint, --min-return and --max-return.
    """
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    if episodes is not None and steps is not None:
        raise RlfdError("give either --episodes or --steps, not both")
    from rlfd import demos, envs
    from rlfd.experiments.demonstrators import make_demonstrator

    known = envs.spec(env)
    options = with_limit(parse_env_options(env_option or []), max_episode_steps)
    form = env_form(action_range, frame_stack)
    config = envs.check(envs.EnvConfig(env, start or known.demo_start, options, reward, **form))
    policy = policy or demos.default_demonstrator(env)
    if policy is None:
        others = " or ".join(f"--policy {name}" for name in demos.policies(config))
        raise RlfdError(
            f"{env} has no demonstrator of its own, expected --policy",
            f"give {others}, or the folder of a trained run",
        )
    demonstrator = make_demonstrator(
        policy,
        config,
        seed=seed,
        runs_dir=runs_dir,
        checkpoint=None if checkpoint is None else parse_checkpoint(checkpoint),
        policy=policy_mode(greedy),
    )
    reporter = output.reporter
    unit = "episodes" if steps is None else "steps"
    goal = steps if steps is not None else episodes or known.demo_episodes
    started = False

    def progress(done: int, total: int, mean: float) -> None:
        nonlocal started
        if not started:  # not before the arguments have proved good
            reporter.start(f"collecting {config.label}", total, 0, unit)
            started = True
        reporter.advance(done, {"return": mean})

    try:
        collected = demos.collect(
            config,
            demonstrator,
            episodes=None if steps is not None else goal,
            steps=steps,
            noise=noise,
            action_noise=action_noise,
            noop=noop,
            min_return=min_return,
            max_return=max_return,
            seed=seed,
            name=name,
            data_dir=data_dir,
            progress=progress,
        )
    finally:
        if started:
            reporter.finish()
    print_new(output, collected, data_dir)


def print_new(output: Output, collected: Demonstrations, data_dir: Path) -> None:
    """Print what a new dataset holds, and what can be done with it."""
    info, env = collected.info, collected.info.env
    assert env is not None  # this tool made it
    mean, deviation = float(collected.returns.mean()), float(collected.returns.std())
    if output.json:
        output.result(
            {
                "name": info.name,
                "path": info.path,
                "env": env.name,
                "start": env.start,
                "reward": env.reward,
                "episodes": len(collected.episodes),
                "transitions": collected.num_transitions,
                "return_mean": mean,
                "return_std": deviation,
                "success_rate": collected.success_rate,
                "demonstrator": dict(info.demonstrator),
                "content_hash": info.content_hash,
            }
        )
    else:
        output.fields(
            {
                "demonstrations": info.name,
                "folder": str(info.path),
                "episodes": f"{len(collected.episodes):,} ({collected.num_transitions:,} steps)",
                "return": f"{number(mean)} ± {number(deviation)} over episodes",
                "success": share(collected.success_rate),
            }
        )
    elsewhere = [] if data_dir == Path("data") else ["--data-dir", str(data_dir)]
    task = ["--env", env.name] + ([] if env.reward == "dense" else ["--reward", env.reward])
    task += env.form
    algo = "sqil" if hasattr(collected.action_space, "n") else "bc"
    output.next_commands(
        command_line("rlfd", "show", info.name, *elsewhere),
        command_line("rlfd", "train", algo, *task, "--demos", info.name, *elsewhere),
    )
