"""Starting and continuing runs: what is refused, what is built, in which order."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rlfd import algorithms, demos
from rlfd.algorithms.base import Algorithm
from rlfd.demos import Demonstrations
from rlfd.envs import (
    EnvConfig,
    Findings,
    World,
    check,
    frame_stack,
    is_playable,
    is_recorded,
    probe,
)
from rlfd.errors import RlfdError
from rlfd.experiments.config import Resolved, RunConfig, check_budget, check_device
from rlfd.experiments.demonstrators import AskedDemonstrator, ask
from rlfd.experiments.initial_policy import canonical_init, same_init, start_from
from rlfd.experiments.learned_reward import check_reads_reward, clipped, learned_reward, paid_by
from rlfd.experiments.memory import keep_freed_memory
from rlfd.experiments.preparation import (
    check_demos_unchanged,
    load_demos,
    prepare_demos,
    without_observations,
)
from rlfd.experiments.problem import build_algorithm, check_support
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.runner import Runner, TrainResult, result_of
from rlfd.files import check_writable
from rlfd.seeding import derive

__all__ = ["TrainResult", "train"]


def train(
    resolved: Resolved,
    *,
    runs_dir: Path,
    data_dir: Path,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    track: bool = False,
    fresh_resets: bool = False,
) -> TrainResult:
    """Train one run to its end.

    Args:
        resolved: The configuration. When resuming, only fields that were set explicitly are
            compared with the run's own configuration, which otherwise holds.
        runs_dir: Root of the runs.
        data_dir: Root of the demonstrations.
        resume: Continue the run from its newest checkpoint.
        overwrite: Delete a run that is there.
        reporter: Told about progress.
        track: Write TensorBoard files too.
        fresh_resets: When resuming, begin new episodes instead of replaying those that were
            running.

    Raises:
        RlfdError: If something that was asked for does not fit.
        RunFailed: If the run cannot go on; the last good checkpoint is kept.
        Interrupted: After Ctrl-C, once a checkpoint is written.
    """
    reporter = reporter or NullReporter()
    run = RunDir.of(resolved.config, runs_dir)
    tensorboard = _tensorboard_writer() if track else None
    check_support(resolved.config.algo, resolved.config.env)
    check_reads_reward(resolved.config)
    _check_free(run, resume=resume, overwrite=overwrite)
    if not resume:
        check_budget(resolved.config)
        _check_writable(run)
    config, demonstrations, asked = _teachers(
        resolved, run, runs_dir, data_dir, reporter, resume=resume
    )
    if resume and run.status()["state"] == "finished":  # there is nothing left to write
        reporter.message(f"run {run.path} is finished already")
        return result_of(run)
    _check_device(config, run)
    found = _recorded(run) if resume else _findings(config)
    with contextlib.ExitStack() as stack:
        # What may refuse its settings is built before anything of the run is written or deleted.
        torch.set_num_threads(config.threads)
        torch.backends.cudnn.deterministic = True  # or two runs of one seed differ on a GPU
        torch.backends.cuda.matmul.allow_tf32 = frame_stack(config.env) > 0
        keep_freed_memory()
        reward, reward_from = None, None
        if config.reward_from is not None:
            recorded = run.status().get("reward_from") if resume else None
            reward, reward_from = learned_reward(config, runs_dir, recorded)
            config = dataclasses.replace(config, reward_from=canonical_init(reward_from))
        given = demonstrations
        if given is not None:
            given = clipped(given, config.env) if reward is None else paid_by(given, reward)
        algorithm = build_algorithm(config, given, asked)
        # of images, they would be a second copy of every frame
        demonstrations, given = without_observations(demonstrations), None
        init = run.status().get("init") if resume else None
        if config.init is not None and not resume:
            init = start_from(algorithm, config, runs_dir)
            config = dataclasses.replace(config, init=canonical_init(init))
        world = None
        if algorithm.needs.interaction:
            seed = derive(config.seed, "world")
            world = World(config.env, num_envs=config.num_envs, seed=seed, learner_reward=reward)
            stack.callback(world.close)
        try:
            stack.enter_context(run.lock())
        except OSError as error:
            raise _unwritable(run, error) from error
        _check_free(run, resume=resume, overwrite=overwrite)  # again, now that nobody else may
        run.remove_temporaries()  # also of a run that was killed while its folder was made
        if not resume:
            if run.exists or run.holds_strays:
                stack.enter_context(run.replaced())
            run.create(dataclasses.replace(resolved, config=config))
        stack.enter_context(_log_to(run))
        writer = None
        if tensorboard is not None:
            writer = tensorboard(run.tensorboard)
            stack.callback(writer.close)
        runner = Runner(
            run,
            config,
            algorithm,
            world,
            demonstrations,
            reporter,
            writer,
            _resume_command(config, runs_dir, data_dir, exactly=found.repeatable),
            init,
            reward_from,
            asked,
            data_dir,
            found,
        )
        stack.callback(runner.close)
        stack.enter_context(runner.stop)
        if resume and not runner.restore(fresh_resets=fresh_resets) and config.init is not None:
            runner.init = _start_again(algorithm, config, runs_dir, init)
        return runner.run_to_end()


def _teachers(
    resolved: Resolved,
    run: RunDir,
    runs_dir: Path,
    data_dir: Path,
    reporter: Reporter,
    *,
    resume: bool,
) -> tuple[RunConfig, Demonstrations | None, AskedDemonstrator | None]:
    """Return the run's configuration with whom it learns from: demonstrations, and who is asked."""
    if resume:
        config = run.config()
        check_same(resolved, run, runs_dir, data_dir)
        demonstrations = load_demos(config, data_dir)
        check_demos_unchanged(run, demonstrations)
        asked = ask(config, runs_dir, data_dir)
        _check_same_answers(run, asked)
        return config, demonstrations, asked
    config = resolved.config
    asked = ask(config, runs_dir, data_dir)
    if asked is not None and config.demonstrator is None:
        reporter.message(f"asking the demonstrator '{asked.name}'")
    demonstrations = prepare_demos(config, data_dir, reporter)
    name = None if demonstrations is None else demos.reference(demonstrations.info, data_dir)
    who = None if asked is None else asked.name
    return dataclasses.replace(config, demos=name, demonstrator=who), demonstrations, asked


def _check_device(config: RunConfig, run: RunDir) -> None:
    try:
        check_device(config.device)
    except RlfdError as error:
        raise RlfdError(
            f"run {run.path} learns on device {config.device}: {error.message}",
            "continue it where there is one, or start another run with --exp-name and --device cpu",
        ) from error


def _check_free(run: RunDir, *, resume: bool, overwrite: bool) -> None:
    if run.exists and not (resume or overwrite):
        status = run.status()
        raise RlfdError(
            f"run folder {run.path} already holds a run ({status['state']}, "
            f"{status['env_steps']:,} env steps, {status['updates']:,} updates)",
            "pass --resume to continue it, --overwrite to replace it, or --exp-name to start "
            "another",
        )
    if resume and not run.exists:
        raise RlfdError(
            f"there is no run to resume in {run.path}", "leave --resume out to start one"
        )
    if run.holds_strays and not overwrite:
        raise RlfdError(
            f"run folder {run.path} holds files but no config.json, so they belong to no run that "
            "can be continued",
            "put config.json back if it was lost, pass --overwrite to delete what is there, or "
            "choose another --exp-name",
        )


def _check_writable(run: RunDir) -> None:
    """Find out before the work whether the run's folder can be written."""
    try:
        check_writable(run.path)
        if run.path.exists():
            check_writable(run.path / "run.json")
    except OSError as error:
        raise _unwritable(run, error) from error


def _unwritable(run: RunDir, error: OSError) -> RlfdError:
    return RlfdError(
        f"cannot write run folder {run.path}: {error.strerror}",
        "choose another place with --runs-dir"
        if error.errno != errno.ENAMETOOLONG
        else "choose a shorter --exp-name",
    )


def _start_again(
    algorithm: Algorithm, config: RunConfig, runs_dir: Path, init: dict[str, Any] | None
) -> dict[str, Any]:
    """Start once more from another run's policy; only a checkpoint makes that run dispensable."""
    try:
        return start_from(algorithm, config, runs_dir, init)
    except RlfdError as error:
        raise RlfdError(
            f"{RunDir.of(config, runs_dir).path} has no checkpoint yet, and its start "
            f"'{config.init}' cannot be had again: {error.message}",
            "restore that run, or start this one anew with --overwrite",
        ) from error


def _check_same_answers(run: RunDir, asked: AskedDemonstrator | None) -> None:
    recorded = run.status().get("demonstrator")
    if asked is None or recorded is None:
        return
    if recorded.get("digest") != asked.record.get("digest"):
        raise RlfdError(
            f"demonstrator '{asked.name}' is not the one that run {run.path} was started with",
            "restore it, or start the run anew with --overwrite",
        )


def check_same(resolved: Resolved, run: RunDir, runs_dir: Path, data_dir: Path) -> None:
    """Refuse what was given for a run that is there and was made with something else.

    Raises:
        RlfdError: Names the first difference.
    """
    config = run.config()
    given, stored = resolved.config.to_json(), config.to_json()
    given = {**given, **{f"algorithm.{k}": v for k, v in given.pop("algorithm").items()}}
    stored = {**stored, **{f"algorithm.{k}": v for k, v in stored.pop("algorithm").items()}}
    explicit = {
        name
        for name, layer in resolved.provenance.items()
        if layer in ("--set", "command line") or layer.startswith("file ")
    } | {"env"}
    if resolved.config.preset != "default":
        explicit.add("preset")
    for name in sorted(explicit):
        if name == "demos" and None not in (given[name], stored[name]):
            named = demos.load(given[name], env=config.env, data_dir=data_dir)
            given[name] = demos.reference(
                named.info, data_dir
            )  # there are several ways to spell it
        runs = ("init", "demonstrator", "reward_from")
        if name in runs and same_init(given[name], stored[name], runs_dir):
            continue
        if given[name] != stored[name]:
            raise RlfdError(
                f"run {run.path} was started with {name}={stored[name]}, now {name}={given[name]} "
                "was given; a resumed run keeps its configuration",
                "leave the option out, or start another run with --exp-name",
            )


def _findings(config: RunConfig) -> Findings:
    """Try an environment for a moment, if the run is to act in it."""
    interacts = algorithms.get(config.algo).needs.interaction
    return probe(config.env) if interacts or config.final_episodes else Findings()


def _recorded(run: RunDir) -> Findings:
    """Return what was found when the run was started."""
    status = run.status()
    return Findings(tuple(status.get("warnings", ())), status.get("repeatable", True))


def _env_words(config: RunConfig) -> list[str]:
    """Return the words of a command that name a run's environment."""
    env = config.env
    named = is_playable(env.name) and not is_recorded(env.name)
    words = ["--env", env.name] if named else ["--demos", str(config.demos)]
    if env.start != "standard":
        words += ["--start", env.start]
    if env.reward != "dense":
        words += ["--reward", env.reward]
    usual = check(EnvConfig(env.name, env.start, reward=env.reward)).options
    for name, value in env.options.items() if named else ():
        if name not in usual or value != usual[name]:
            words += ["--env-option", f"{name}={json.dumps(value)}"]
    return [*words, *env.form]


def _resume_command(
    config: RunConfig, runs_dir: Path, data_dir: Path, *, exactly: bool = True
) -> str:
    words = ["rlfd", "train", config.algo, *_env_words(config)]
    if config.seed:
        words += ["--seed", str(config.seed)]
    if config.exp_name != "default":
        words += ["--exp-name", config.exp_name]
    if config.init is not None:
        words += ["--init", config.init]
    if config.demonstrator is not None:
        words += ["--demonstrator", config.demonstrator]
    if config.reward_from is not None:
        words += ["--reward-from", config.reward_from]
    for option, folder, usual_folder in (
        ("--runs-dir", runs_dir, "runs"),
        ("--data-dir", data_dir, "data"),
    ):
        if str(folder) != usual_folder:
            words += [option, str(folder)]
    return shlex.join([*words, "--resume", *([] if exactly else ["--fresh-resets"])])


class _QuietFileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: the log is lost where the disk is full, and the run will say so itself."""


@contextlib.contextmanager
def _log_to(run: RunDir) -> Iterator[None]:
    handler = _QuietFileHandler(run.log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("rlfd")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def _tensorboard_writer() -> Any:
    """Return the class that writes event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RlfdError(
            "--track needs TensorBoard, which is not installed", "pip install 'rlfd[track]'"
        ) from error
    return SummaryWriter
