"""The life of a run: build, loop, log, evaluate, checkpoint, resume.

Exact resume: a run that was killed at any moment and resumed writes the same CSV files (columns of
time aside) and ends with the same weights, bit for bit, as one that was never interrupted. All
state that the next iteration depends on is in a checkpoint, together with the sizes that the CSV
files had; resuming cuts them back to those.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import logging
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlfd import __version__, algorithms, demos
from rlfd.algorithms.base import Algorithm, Metrics
from rlfd.algorithms.core.timing import seconds_by_kind
from rlfd.demos import Demonstrations
from rlfd.envs import EnvConfig, PlayedEpisode, World, check, spec
from rlfd.errors import Interrupted, RlfdError, RunFailed
from rlfd.experiments import checkpoint
from rlfd.experiments.config import Resolved, RunConfig
from rlfd.experiments.evaluate import best_step, evaluation_row, play_policy, summarise
from rlfd.experiments.problem import build_algorithm, check_support
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.run_dir import RunDir, episode_row
from rlfd.seeding import derive

__all__ = ["TrainResult", "train"]

logger = logging.getLogger("rlfd.train")

DEFAULT_DEMO_EPISODES = 100
REPORT_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended; the means are of the final weights' headline policy."""

    run_dir: RunDir
    env_steps: int
    updates: int
    wall_seconds: float
    return_mean: float | None
    success_rate: float | None


def train(
    resolved: Resolved,
    *,
    runs_dir: Path,
    data_dir: Path,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    track: bool = False,
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

    Raises:
        RlfdError: If something that was asked for does not fit.
        RunFailed: If the run cannot go on; the last good checkpoint is kept.
        Interrupted: After Ctrl-C, once a checkpoint is written.
    """
    reporter = reporter or NullReporter()
    run = RunDir.of(resolved.config, runs_dir)
    tensorboard = _tensorboard_writer() if track else None
    check_support(resolved.config.algo, resolved.config.env)
    _check_free(run, resume=resume, overwrite=overwrite)
    if resume:
        config = run.config()
        _check_same(resolved, config, run, data_dir)
        demonstrations = _load_demos(config, data_dir)
        _check_demos_unchanged(run, demonstrations)
    else:
        demonstrations = _prepare_demos(resolved.config, data_dir, reporter)
        name = demonstrations.info.id if demonstrations is not None else None
        config = dataclasses.replace(resolved.config, demos=name)
    with contextlib.ExitStack() as stack:
        # What may refuse its settings is built before anything of the run is written or deleted.
        torch.set_num_threads(config.threads)
        algorithm = build_algorithm(config, demonstrations)
        world = None
        if algorithm.needs.interaction:
            seed = derive(config.seed, "world")
            world = World(config.env, num_envs=config.num_envs, seed=seed)
            stack.callback(world.close)
        try:
            stack.enter_context(run.lock())
        except OSError as error:
            raise RlfdError(
                f"cannot write run folder {run.path}: {error.strerror}",
                "choose another place with --runs-dir",
            ) from error
        _check_free(run, resume=resume, overwrite=overwrite)  # again, now that nobody else may
        if resume:
            run.remove_temporaries()
        else:
            if run.exists:
                run.remove_contents()
            run.create(dataclasses.replace(resolved, config=config))
        stack.enter_context(_log_to(run))
        writer = None
        if tensorboard is not None:
            writer = tensorboard(run.tensorboard)
            stack.callback(writer.close)
        runner = _Runner(
            run,
            config,
            algorithm,
            world,
            demonstrations,
            reporter,
            writer,
            _resume_command(config, runs_dir, data_dir),
        )
        stack.callback(runner.close)
        stack.enter_context(runner.stop)
        if resume:
            runner.restore()
        return runner.run_to_end()


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


def _check_same(resolved: Resolved, config: RunConfig, run: RunDir, data_dir: Path) -> None:
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
            given[name] = named.info.id  # there are several ways to spell it
        if given[name] != stored[name]:
            raise RlfdError(
                f"run {run.path} was started with {name}={stored[name]}, now {name}={given[name]} "
                "was given; a resumed run keeps its configuration",
                "leave the option out, or start another run with --exp-name",
            )


def _prepare_demos(config: RunConfig, data_dir: Path, reporter: Reporter) -> Demonstrations | None:
    """Load the demonstrations a run needs; collect them first where nothing was named or found."""
    if not algorithms.get(config.algo).needs.demonstrations:
        if config.demos is not None:
            raise RlfdError(f"'{config.algo}' does not learn from demonstrations", "drop --demos")
        return None
    if config.demos is None:
        found = demos.find(config.env, data_dir)
        if found:
            config = dataclasses.replace(config, demos=found[0].id)
            reporter.message(f"using the newest demonstrations, '{found[0].id}'")
        else:
            made = _collect_default(config.env, data_dir, reporter)
            config = dataclasses.replace(config, demos=made.info.id)
    return _load_demos(config, data_dir)


def _collect_default(env: EnvConfig, data_dir: Path, reporter: Reporter) -> Demonstrations:
    known = spec(env.name)
    if known.default_demonstrator is None:
        raise RlfdError(
            f"no demonstrations for '{env.name}' under {data_dir / 'demos'}, and no demonstrator",
            f"train one, then 'rlfd collect-demos --env {env.name} --policy RUN'",
        )
    start = dataclasses.replace(env, start=known.demo_start)
    reporter.message(
        f"no demonstrations for '{env.name}' yet: collecting {DEFAULT_DEMO_EPISODES} episodes of "
        f"its {known.default_demonstrator} from start '{known.demo_start}'"
    )
    policy = demos.make_demonstrator(known.default_demonstrator, start, seed=0)
    reporter.start("collect demonstrations", DEFAULT_DEMO_EPISODES, 0, "episodes")
    try:
        return demos.collect(
            start,
            policy,
            episodes=DEFAULT_DEMO_EPISODES,
            seed=0,
            data_dir=data_dir,
            progress=lambda done, _, mean: reporter.advance(done, {"return": mean}),
        )
    finally:
        reporter.finish()


def _load_demos(config: RunConfig, data_dir: Path) -> Demonstrations | None:
    if config.demos is None:
        return None
    loaded = demos.load(config.demos, env=config.env, data_dir=data_dir)
    if config.num_demos is None:
        return loaded
    return loaded.subset(config.num_demos, config.seed)


def _check_demos_unchanged(run: RunDir, demonstrations: Demonstrations | None) -> None:
    recorded = run.status().get("demos")
    if recorded is None or demonstrations is None:
        return
    if recorded["hash"] != demonstrations.info.content_hash:
        raise RlfdError(
            f"demonstrations '{demonstrations.info.id}' are not those that run {run.path} "
            "was started with",
            "restore them, or start another run with --exp-name",
        )


def _resume_command(config: RunConfig, runs_dir: Path, data_dir: Path) -> str:
    env = config.env
    words = ["rlfd", "train", config.algo, "--env", env.name]
    if env.start != "standard":
        words += ["--start", env.start]
    usual = check(EnvConfig(env.name, env.start)).options
    for name, value in env.options.items():
        if name not in usual or value != usual[name]:
            words += ["--env-option", f"{name}={json.dumps(value)}"]
    if config.seed:
        words += ["--seed", str(config.seed)]
    if config.exp_name != "default":
        words += ["--exp-name", config.exp_name]
    for option, folder, usual_folder in (
        ("--runs-dir", runs_dir, "runs"),
        ("--data-dir", data_dir, "data"),
    ):
        if str(folder) != usual_folder:
            words += [option, str(folder)]
    return shlex.join([*words, "--resume"])


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


class _StopSignal:
    """Notes Ctrl-C and termination requests; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _StopSignal:
        with contextlib.suppress(ValueError):  # only the main thread may; elsewhere nobody listens
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


class _Runner:
    """Everything that is alive while a run is."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        algorithm: Algorithm,
        world: World | None,
        demonstrations: Demonstrations | None,
        reporter: Reporter,
        writer: Any,
        resume_command: str,
    ) -> None:
        self.run, self.config, self.demos = run, config, demonstrations
        self.algorithm, self.world = algorithm, world
        self.reporter, self.writer = reporter, writer
        self.resume_command = resume_command
        self.train_log = run.open_train_log(list(self.algorithm.metric_definitions))
        self.episode_log = run.open_episode_log()
        self.eval_log = run.open_eval_log()
        self.pending: dict[str, list[float]] = {}
        self.recent: list[tuple[int, int, Metrics]] = []  # with env steps and updates
        self.wall_before = 0.0
        self.began = time.perf_counter()
        self.timed_before = self._timings()
        self.last_report = 0.0
        self.stop = _StopSignal()
        self.newest: dict[str, float] = {}

    # -- where the run is -------------------------------------------------------------------------

    @property
    def env_steps(self) -> int:
        return self.world.env_steps if self.world is not None else 0

    @property
    def progress(self) -> int:
        """Units of the budget used: env steps, or updates for methods that do not interact."""
        return self.env_steps if self.world is not None else self.algorithm.updates

    @property
    def wall_seconds(self) -> float:
        return self.wall_before + time.perf_counter() - self.began

    def _done(self) -> bool:
        budget = self.config.steps
        return self.algorithm.finished or (budget > 0 and self.progress >= budget)

    # -- the loop ---------------------------------------------------------------------------------

    def run_to_end(self) -> TrainResult:
        """Train until the budget is used, evaluate, and close the run."""
        try:
            self._write_status("running")
            self._loop()
            return self._finish()
        except Interrupted:
            self._write_status("interrupted")
            raise
        except (KeyboardInterrupt, SystemExit):
            self._write_status("interrupted")
            raise
        except RlfdError as error:
            self._write_status("failed", str(error))
            raise
        except OSError as error:
            self._write_status("failed", str(error))
            raise self._disk_problem(error) from error
        except Exception as error:
            self._write_status("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.reporter.finish()

    def close(self) -> None:
        """Close the files."""
        for log in (self.train_log, self.episode_log, self.eval_log):
            log.close()

    def _loop(self) -> None:
        config = self.config
        unit = "env steps" if self.world is not None else "updates"
        self.reporter.start(
            f"{config.algo} {config.env.label} seed {config.seed}",
            config.steps,
            self.progress,
            unit,
        )
        while not self._done():
            before = self.progress
            # methods that do not interact get no world and do not ask for one
            metrics = self.algorithm.iteration(self.world)  # type: ignore[arg-type]
            if metrics:
                self.recent.append((self.env_steps, self.algorithm.updates, metrics))
            if self.world is not None:
                self._log_episodes(self.world)
            if self._crossed(before, config.log_every):
                self._log_metrics()
            if config.eval_every and self._crossed(before, config.eval_every):
                self._evaluate_periodically()
            if self._crossed(before, config.checkpoint_every):
                self._checkpoint()
            self._report()
            if self.stop.received:
                self._interrupt()
        self._log_metrics()

    def _crossed(self, before: int, every: int) -> bool:
        return self.progress // every > before // every

    def _log_episodes(self, world: World) -> None:
        records = world.drain_episodes()
        if not records:
            return
        self.episode_log.write(episode_row(record) for record in records)
        self.newest["train return"] = float(np.mean([r.episode_return for r in records]))
        if self.writer is not None:
            for record in records:
                self.writer.add_scalar("rollout/return", record.episode_return, record.env_steps)

    def _settle_recent(self) -> None:
        """Turn the tensors gathered since the last time into numbers; refuse what is not finite."""
        for env_steps, updates, metrics in self.recent:
            for name, value in metrics.items():
                number = float(value)
                if not math.isfinite(number):
                    raise RunFailed(
                        f"{name} became {number} at update {updates} (env step {env_steps}) "
                        f"of {self.run.path}",
                        "the last checkpoint is kept; try a smaller learning_rate or larger "
                        "adam_epsilon",
                    )
                self.pending.setdefault(name, []).append(number)
        self.recent.clear()

    def _log_metrics(self) -> None:
        self._settle_recent()
        if not self.pending:
            return
        # fsum is exact, so a mean does not depend on where an interruption fell
        means = {name: math.fsum(v) / len(v) for name, v in self.pending.items()}
        self.pending.clear()
        row = {name: means.get(name) for name in self.algorithm.metric_definitions}
        position = {"env_steps": self.env_steps, "updates": self.algorithm.updates}
        self.train_log.write(
            [{**position, "wall_seconds": round(self.wall_seconds, 3), **self._shares(), **row}]
        )
        if self.writer is not None:
            for name, value in means.items():
                self.writer.add_scalar(name, value, self.progress)

    def _timings(self) -> dict[str, float]:
        env = self.world.seconds if self.world is not None else 0.0
        return {"env": env, **seconds_by_kind(), "all": time.perf_counter()}

    def _shares(self) -> dict[str, float]:
        """Share of the time since the last row that each kind of work took."""
        now = self._timings()
        passed = now["all"] - self.timed_before["all"]
        shares = {
            f"time/{kind}": round((now[kind] - self.timed_before[kind]) / passed, 4)
            for kind in ("env", "act", "sample", "update")
        }
        self.timed_before = now
        return shares

    def _report(self) -> None:
        now = time.perf_counter()
        if now - self.last_report < REPORT_SECONDS:
            return
        self.last_report = now
        self.reporter.advance(self.progress, self.newest)

    # -- evaluation -------------------------------------------------------------------------------

    def _evaluate_periodically(self) -> None:
        self._settle_recent()
        checkpoint.save_policy(self.run.checkpoints, self.progress, self.algorithm.policy_state())
        rows: list[dict[str, Any]] = []
        for policy in self.algorithm.policies:
            played = self._play(policy, self.config.eval_episodes, f"periodic {policy}")
            rows += self._rows(played, "periodic", policy)
            self._note_evaluation(played, policy)
        self.eval_log.write(rows)

    def _play(self, policy: Any, episodes: int, stream: str) -> list[PlayedEpisode]:
        played = play_policy(
            self.algorithm,
            self.config.env,
            policy=policy,
            episodes=episodes,
            seed=self.config.seed,
            stream=stream,
        )
        return list(played)

    def _rows(
        self, played: list[PlayedEpisode], phase: str, policy: str, step: int | None = None
    ) -> list[dict[str, Any]]:
        at = self.progress if step is None else step
        return [evaluation_row(p, env_steps=at, phase=phase, policy=policy) for p in played]

    def _note_evaluation(self, played: list[PlayedEpisode], policy: str) -> None:
        if policy != self.algorithm.policies[0]:
            return
        summary = summarise(played)
        self.newest["eval return"] = summary["return_mean"]
        if summary["success_rate"] is not None:
            self.newest["eval success"] = summary["success_rate"]
        if self.writer is not None:
            self.writer.add_scalar("eval/return", summary["return_mean"], self.progress)

    def _finish(self) -> TrainResult:
        """Evaluate final weights and best checkpoint on fresh start states, and close the run."""
        folder = self.run.checkpoints
        if self.progress not in checkpoint.list_policies(folder):
            checkpoint.save_policy(folder, self.progress, self.algorithm.policy_state())
        self._checkpoint()
        final_step = self.progress
        step = best_step(self.run)
        best = final_step if step is None else step
        evaluations = len(self.algorithm.policies) * (1 if best == final_step else 2)
        self.reporter.start("final evaluation", evaluations, 0, "evaluations")
        final = self._play_finally(done=0)
        rows = [row for p, played in final.items() for row in self._rows(played, "final", p)]
        at_best = final
        if best != final_step:
            path = checkpoint.list_policies(folder)[best]
            self.algorithm.load_policy_state(checkpoint.load_policy(path))
            at_best = self._play_finally(done=len(final))
        for policy, played in at_best.items():
            rows += self._rows(played, "best", policy, best)
        self.eval_log.write(rows)
        self.reporter.finish()
        summary: dict[str, dict[str, Any]] = {
            phase: {policy: summarise(played) for policy, played in evaluation.items()}
            for phase, evaluation in (("final", final), ("best", at_best))
        }
        summary["best"]["step"] = best
        for log in (self.train_log, self.episode_log, self.eval_log):
            log.sync()
        self._write_status("finished", final=summary)
        headline = summary["final"][self.algorithm.policies[0]]
        return TrainResult(
            run_dir=self.run,
            env_steps=self.env_steps,
            updates=self.algorithm.updates,
            wall_seconds=self.wall_seconds,
            return_mean=headline["return_mean"],
            success_rate=headline["success_rate"],
        )

    def _play_finally(self, done: int) -> dict[str, list[PlayedEpisode]]:
        """Play every policy from the same fresh start states, after `done` such evaluations."""
        played: dict[str, list[PlayedEpisode]] = {}
        for policy in self.algorithm.policies:
            played[policy] = self._play(policy, self.config.final_episodes, "final")
            self.reporter.advance(done + len(played), {})
            if self.stop.received:
                self._interrupt(save=False)
        return played

    # -- checkpoints ------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._settle_recent()
        logs = {"train": self.train_log, "episodes": self.episode_log, "eval": self.eval_log}
        for log in logs.values():
            log.sync()
        state = {
            "progress": self.progress,
            "algorithm": self.algorithm.state_dict(),
            "world": self.world.state_dict() if self.world is not None else None,
            "pending": self.pending,
            "log_sizes": {name: log.size() for name, log in logs.items()},
            "wall_seconds": self.wall_seconds,
        }
        checkpoint.save_resume(self.run.checkpoints, self.progress, state)
        self._write_status("running")

    def restore(self) -> None:
        """Go to where the newest whole checkpoint was written.

        Raises:
            RlfdError: If what it belongs to was changed since.
        """
        state, problems = checkpoint.load_newest(self.run.checkpoints)
        for problem in problems:
            logger.warning(problem)
            self.reporter.warning(problem)
        if state is None:
            found = "no checkpoint is left" if problems else "no checkpoint was written yet"
            self.reporter.message(f"{found}: starting from the beginning")
            self._truncate_logs({})
            checkpoint.forget_after(self.run.checkpoints, -1)
            return
        self.algorithm.load_state_dict(state["algorithm"])
        if self.world is not None:
            self.world.load_state_dict(state["world"])
        self.pending = state["pending"]
        self.wall_before = state["wall_seconds"]
        self._truncate_logs(state["log_sizes"])
        checkpoint.forget_after(self.run.checkpoints, state["progress"])
        self.reporter.message(f"resuming at {state['progress']:,}")

    def _truncate_logs(self, sizes: dict[str, int]) -> None:
        self.train_log.truncate(sizes.get("train", 0))
        self.episode_log.truncate(sizes.get("episodes", 0))
        self.eval_log.truncate(sizes.get("eval", 0))

    def _interrupt(self, *, save: bool = True) -> None:
        if save:
            self._checkpoint()
        raise Interrupted(
            f"interrupted at {self.progress:,}, checkpoint written to {self.run.checkpoints}",
            f"continue with: {self.resume_command}",
        )

    def _disk_problem(self, error: OSError) -> RunFailed:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RunFailed(
                f"the disk is full; run {self.run.path} stopped, what was written before is intact",
                f"make room, then continue with: {self.resume_command}",
            )
        return RunFailed(
            f"run {self.run.path} cannot be written: {error}",
            f"continue with: {self.resume_command}",
        )

    def _write_status(
        self, state: str, error: str | None = None, final: dict[str, Any] | None = None
    ) -> None:
        config = self.config
        status = {
            "state": state,
            "algo": config.algo,
            "env": config.env.name,
            "start": config.env.start,
            "seed": config.seed,
            "exp_name": config.exp_name,
            "env_steps": self.env_steps,
            "updates": self.algorithm.updates,
            "steps": config.steps,
            "wall_seconds": round(self.wall_seconds, 3),
            "error": error,
            "final": final,
            "demos": _describe_demos(self.demos),
            **_provenance(),
        }
        try:
            self.run.write_status(status)
        except OSError as problem:
            if state == "running":
                raise
            logger.error("cannot write the state of %s: %s", self.run.path, problem)


def _describe_demos(demonstrations: Demonstrations | None) -> dict[str, Any] | None:
    if demonstrations is None:
        return None
    return {
        "name": demonstrations.info.id,
        "hash": demonstrations.info.content_hash,
        "episodes": len(demonstrations.episodes),
        "transitions": demonstrations.num_transitions,
        "return_mean": float(demonstrations.returns.mean()),
        "success_rate": demonstrations.success_rate,
    }


def _provenance() -> dict[str, Any]:
    packages = ("torch", "numpy", "gymnasium", "minari")
    return {
        "command": shlex.join(sys.argv),
        "versions": {
            "rlfd": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "git": _git_state(),
        "host": platform.node(),
        "pid": os.getpid(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


_git: dict[str, Any] | None = None


def _git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the source tree, if this is one; asked once per process."""
    global _git
    if _git is None:
        folder = Path(__file__).resolve().parent
        commands = {"commit": ["rev-parse", "HEAD"], "dirty": ["status", "--porcelain", "-uno"]}
        answers = {}
        for name, arguments in commands.items():
            try:
                done = subprocess.run(
                    ["git", "-C", str(folder), *arguments],
                    capture_output=True,
                    text=True,
                    timeout=5,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError):
                return None
            answers[name] = done.stdout.strip()
        _git = {"commit": answers["commit"], "dirty": bool(answers["dirty"])}
    return _git
