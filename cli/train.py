"""`rlfd train`: one algorithm, one environment, one seed, one folder."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlfd.cli.console import Output, command_line, duration, number, share
from rlfd.cli.options import (
    ActionRange,
    AllowImport,
    DataDir,
    Debug,
    EnvOptions,
    FrameStack,
    Json,
    MaxEpisodeSteps,
    NoProgress,
    Quiet,
    RunsDir,
    Verbose,
    allowing,
    complete_env,
    env_form,
    given,
    parse_count,
    parse_demonstrator,
    parse_env_options,
    parse_positive,
    parse_run,
    typed_env,
    with_limit,
)
from rlfd.errors import RlfdError

if TYPE_CHECKING:
    from rlfd.experiments.config import Resolved
    from rlfd.experiments.run_dir import RunDir

__all__ = ["train"]

_LEARN, _EVAL, _RUN, _SPEED = "Learning", "Evaluation and checkpoints", "Run", "Speed"


def train(
    algo: Annotated[str, typer.Argument(help="Algorithm ('rlfd list algos').")],
    env: Annotated[
        str | None,
        typer.Option(
            help="Short name ('rlfd list envs') or any Gymnasium id, PACKAGE:ID of other packages. "
            "Left out: where --demos come from.",
            rich_help_panel="Environment",
            autocompletion=complete_env,
            callback=typed_env,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Where episodes start: standard, demo, shifted and others ('rlfd list envs').",
            rich_help_panel="Environment",
            show_default="standard, or that of --demos",
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="What is paid: dense, sparse, beyond, delay-K ('rlfd list envs').",
            rich_help_panel="Environment",
            show_default="dense, or that of --demos",
        ),
    ] = None,
    env_option: EnvOptions = None,
    allow_import: AllowImport = None,
    max_episode_steps: MaxEpisodeSteps = None,
    action_range: ActionRange = None,
    frame_stack: FrameStack = None,
    demos: Annotated[
        str | None,
        typer.Option(
            help="Name, folder or Minari id. Left out: the newest of this environment.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    num_demos: Annotated[
        int | None,
        typer.Option(min=1, help="Use a random N of the episodes.", rich_help_panel=_LEARN),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            parser=parse_run,
            metavar="RUN",
            help="Start from this run's policy, not from random weights; RUN:best or RUN:STEP "
            "for another checkpoint than the last one.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    demonstrator: Annotated[
        str | None,
        typer.Option(
            parser=parse_demonstrator,
            metavar="WHO",
            help="Whom to ask, for methods that ask (dagger): controller, shipped, shipped:weak, a "
            "policy file, RUN or RUN:CHECKPOINT. Left out: the environment's own.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    reward_from: Annotated[
        str | None,
        typer.Option(
            parser=parse_run,
            metavar="RUN",
            help="Train on the reward that this run learned (airl, gcl, maxent-irl, "
            "apprenticeship), not on the environment's, which is reported all the same; RUN:best "
            "or RUN:STEP as with --init.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            parser=parse_count,
            metavar="N",
            help="Env steps, over all parallel environments: 150000, 150k, 1e6. Updates for "
            "methods that do not interact.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Named settings, such as 'paper'.", rich_help_panel=_LEARN),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML or JSON file of settings.", rich_help_panel=_LEARN),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting of the algorithm; repeat for more.",
            rich_help_panel=_LEARN,
        ),
    ] = None,
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config",
            help="Print every setting and where it comes from; do not train.",
            rich_help_panel=_LEARN,
        ),
    ] = False,
    eval_every: Annotated[
        int | None,
        typer.Option(
            parser=parse_count,
            metavar="N",
            help="Env steps between evaluations; 0: only at the end. Left out, where nothing is "
            "known of the environment: a twentieth of --steps.",
            rich_help_panel=_EVAL,
        ),
    ] = None,
    eval_episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes of each.", rich_help_panel=_EVAL)
    ] = None,
    final_episodes: Annotated[
        int | None,
        typer.Option(min=0, help="Episodes at the end; 0: no evaluation.", rich_help_panel=_EVAL),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Env steps between checkpoints.",
            rich_help_panel=_EVAL,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed.", rich_help_panel=_RUN)] = None,
    exp_name: Annotated[
        str | None,
        typer.Option(help="Tells variants of one algorithm apart.", rich_help_panel=_RUN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue this run.", rich_help_panel=_RUN)
    ] = False,
    resume_if_exists: Annotated[
        bool,
        typer.Option(
            "--resume-if-exists",
            help="Start, or continue, or leave a finished run alone.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    fresh_resets: Annotated[
        bool,
        typer.Option(
            "--fresh-resets",
            help="Continue with new episodes: for an environment that does something else when "
            "its actions are replayed.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Delete this run and start anew.", rich_help_panel=_RUN),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask before deleting.", rich_help_panel=_RUN),
    ] = False,
    track: Annotated[
        bool,
        typer.Option(
            "--track", help="Write TensorBoard files too (extra 'track').", rich_help_panel=_RUN
        ),
    ] = False,
    num_envs: Annotated[
        int | None, typer.Option(min=1, help="Parallel environments.", rich_help_panel=_SPEED)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto (cuda for images, if there), cpu, cuda.", rich_help_panel=_SPEED),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch.", rich_help_panel=_SPEED)
    ] = None,
    compile_: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option("--compile", help="Compile the updates.", rich_help_panel=_SPEED),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Train one algorithm on one environment.

    What it needs and can make, it makes: without demonstrations, the environment's own
    demonstrator is recorded first.
    """
    output = Output(json=json, quiet=quiet, verbose=verbose, no_progress=no_progress)
    if resume + overwrite + resume_if_exists > 1:
        raise RlfdError("--resume, --resume-if-exists and --overwrite exclude each other")
    if fresh_resets and not (resume or resume_if_exists):
        raise RlfdError("--fresh-resets is for a run that is continued", "add --resume")
    from rlfd.envs import EnvConfig, is_playable, told
    from rlfd.experiments.config import resolve
    from rlfd.experiments.problem import env_of_demos, variant_for

    options = with_limit(parse_env_options(env_option or []), max_episode_steps)
    form = env_form(action_range, frame_stack)
    if env is not None:
        env_config = EnvConfig(env, start or "standard", options, reward or "dense", **form)
    elif demos is not None:
        env_config, problem = env_of_demos(
            demos, algo, start=start, reward=reward, options=options, form=form, data_dir=data_dir
        )
        if problem:
            output.message(f"learning from the demonstrations alone, no evaluation: {problem}")
        else:
            made = f" ({told(env_config)})" if told(env_config) else ""
            output.message(f"environment of the demonstrations: {env_config.title}{made}")
    else:
        raise RlfdError(
            "--env is missing, see 'rlfd train --help'",
            "give --env, or --demos to learn in the environment that they come from",
        )
    variant = variant_for(algo, env_config)
    if variant != algo:
        output.message(f"for the actions of '{env_config.name}', '{algo}' is '{variant}'")
    resolved = resolve(
        variant,
        env_config,
        preset=preset,
        config_file=config,
        settings=settings or [],
        options=given(
            {
                "checkpoint_every": checkpoint_every,
                "compile": compile_,
                "demonstrator": demonstrator,
                "demos": demos,
                "device": device,
                "eval_episodes": eval_episodes,
                "eval_every": eval_every,
                "exp_name": exp_name,
                "final_episodes": final_episodes,
                "init": init,
                "num_demos": num_demos,
                "num_envs": num_envs,
                "reward_from": reward_from,
                "seed": seed,
                "steps": steps,
                "threads": threads,
            }
        ),
    )
    if show_config:
        _print_config(output, resolved)
        return
    from rlfd.experiments import train as training
    from rlfd.experiments.run_dir import RunDir

    run = RunDir.of(resolved.config, runs_dir)
    resume = resume or (resume_if_exists and run.exists)
    if overwrite and not yes and (run.exists or run.holds_strays):
        _confirm(run)
    training.train(
        resolved,
        runs_dir=runs_dir,
        data_dir=data_dir,
        resume=resume,
        overwrite=overwrite,
        reporter=output.reporter,
        track=track,
        fresh_resets=fresh_resets,
    )
    _print_result(output, run)
    following = []
    if is_playable(env_config.name):
        words = allowing(env_config.name)
        following.append(command_line("rlfd", "evaluate", run.path, *words))
    if resolved.config.final_episodes or resolved.config.eval_every:
        following.append(command_line("rlfd", "plot", run.path.parent, "--out", "figure.png"))
    output.next_commands(*(following or [command_line("rlfd", "show", run.path)]))


def _confirm(run: RunDir) -> None:
    about = "files without a config.json"
    if run.exists:
        status = run.status()
        about = f"{status['state']}, {status.get('env_steps', 0):,} env steps"
    typer.echo(f"delete run {run.path} ({about})? [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:  # there is nobody to ask
        typer.echo(err=True)
        raise RlfdError(f"--overwrite would delete run {run.path} ({about})", "add --yes to agree")
    if answer.strip().lower() not in {"y", "yes"}:
        raise typer.Abort


def _print_result(output: Output, run: RunDir) -> None:
    from rlfd import algorithms

    status = run.status()
    evaluations = status.get("final") or {}
    headline = algorithms.get(status["algo"]).policies[0]
    final = evaluations.get("final", {}).get(headline, {})
    if output.json:
        output.result(
            {
                "run": run.path,
                "state": status["state"],
                "env_steps": status["env_steps"],
                "updates": status["updates"],
                "epochs": status.get("epochs"),
                "queries": (status.get("demonstrator") or {}).get("queries"),
                "labels": (status.get("labels") or {}).get("name"),
                "warnings": status.get("warnings", []),
                "wall_seconds": status["wall_seconds"],
                "policy": headline,
                "return_mean": final.get("return_mean"),
                "success_rate": final.get("success_rate"),
                "evaluations": evaluations,
            }
        )
        return
    epochs = {} if status.get("epochs") is None else {"epochs": number(status["epochs"])}
    asked = {}
    if status.get("demonstrator"):
        queries = number(status["demonstrator"]["queries"])
        asked = {
            "asked": f"{run.config().demonstrator}, about {queries} states",
            "labels": str((status.get("labels") or {}).get("name", "-")),
        }
    output.fields(
        {
            "run": str(run.path),
            "env steps": number(status["env_steps"]),
            **epochs,
            **asked,
            "updates": number(status["updates"]),
            "time": duration(status["wall_seconds"]),
        }
    )
    if not evaluations:  # nobody asked for one
        return
    dense = ["dense_return_mean"] if status.get("reward", "dense") != "dense" else []
    rows = [
        [
            "final weights" if phase == "final" else f"best, step {values['step']:,}",
            policy,
            *(number(result[name]) for name in ("return_mean", *dense)),
            share(result["success_rate"]),
        ]
        for phase, values in evaluations.items()
        for policy, result in values.items()
        if policy != "step"
    ]
    output.line("")
    titles = ["evaluation", "policy", ">return", *([">dense return"] if dense else []), ">success"]
    output.table(titles, rows)


def _print_config(output: Output, resolved: Resolved) -> None:
    values = resolved.config.to_json()
    if output.json:
        output.result({"config": values, "provenance": resolved.provenance})
        return
    nested = values["algorithm"]
    env = values["env"]
    rows = [["algo", values["algo"], "command line"], ["preset", values["preset"], ""]]
    rows += [["env", env["name"], "command line"]]
    rows += [[name, env[name], "command line"] for name in ("start", "reward")]
    rows += [[f"env option {name}", str(value), ""] for name, value in env["options"].items()]
    form = ("action_range", "frame_stack")
    rows += [[name, str(env[name]), "command line"] for name in form if name in env]
    for name, source in resolved.provenance.items():
        value = nested[name.partition(".")[2]] if "." in name else values[name]
        text = value if isinstance(value, str) else jsonlib.dumps(value)
        rows.append([name.removeprefix("algorithm."), text, source])
    output.table(["setting", "value", "set by"], rows)
