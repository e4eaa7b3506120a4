"""Working off a list of runs: every run is a process and a folder of its own.

A run may need others, whose policies it starts from: it waits for them. What has been done is read
from the run folders and nowhere else, so a launcher that was stopped, and two launchers on one
disk, see the same truth. A run guards its folder with its own lock: of two processes that claim one
run, the second gives way and is counted as running elsewhere. A launcher that is killed takes the
runs on its machine with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from rlfd.errors import Interrupted, RlfdError
from rlfd.experiments.config import RunConfig
from rlfd.experiments.memory import memory_share
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.run_dir import RunDir
from rlfd.interrupts import PARENT, StopSignal

__all__ = ["Engine", "Handle", "Job", "JobResult", "LocalEngine", "launch"]

Outcome = Literal["finished", "skipped", "failed", "blocked", "elsewhere", "interrupted"]
_GOOD_NEWS = {"finished": "is finished", "skipped": "was finished before"}
_WAIT = "wait"
_POLL_SECONDS = 0.05
_TERMINATE_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """One run to be made.

    Attributes:
        name: How messages and log files call it.
        argv: The command. Run again on its unfinished folder it must continue.
        run_dir: The folder it writes, where its state is read from.
        needs: Folders of the runs that must be finished before it starts.
        config: What the run is to be, where that is known.
    """

    name: str
    argv: tuple[str, ...]
    run_dir: Path
    needs: tuple[Path, ...] = ()
    config: RunConfig | None = None

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        module = (sys.executable, "-m", "rlfd")
        own = self.argv[:3] == module
        return shlex.join(("rlfd", *self.argv[3:]) if own else self.argv)


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        job: The job.
        outcome: `skipped` if it was finished before, `elsewhere` if another process has its folder,
            `blocked` if a run that it needs did not finish.
        exit_code: Of the process; negative for a signal; None if none was started.
        error: What is known about a failure.
        log: What the process printed.
    """

    job: Job
    outcome: Outcome
    exit_code: int | None
    error: str
    log: Path

    @property
    def has_failed(self) -> bool:
        """Whether the run ended without finishing."""
        return self.outcome in ("failed", "blocked", "interrupted")

    @property
    def is_finished(self) -> bool:
        """Whether there are results."""
        return self.outcome in ("finished", "skipped")


class Handle(Protocol):
    """A job under way."""

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def interrupt(self) -> None:
        """Ask it to write a checkpoint and stop."""

    def kill(self) -> None:
        """Stop it now, and whatever it started."""


class Engine(Protocol):
    """Where jobs run."""

    @property
    def slots(self) -> int:
        """How many jobs it takes at a time."""

    def submit(self, job: Job, log: Path) -> Handle:
        """Start a job whose output goes to the end of `log`."""


class LocalEngine:
    """Processes on this machine, one thread and an equal share of the free memory each.

    Args:
        slots: Number of processes at a time; by default one core is left to the user.
    """

    def __init__(self, slots: int | None = None) -> None:
        if slots is not None and slots < 1:
            raise RlfdError(f"the number of parallel runs must be at least 1, got {slots}")
        self._slots = slots or max(1, _usable_cores() - 1)
        self._surroundings = {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONSAFEPATH": "1",  # a secrets.py in the current folder is not Python's
            PARENT: str(os.getpid()),
            **memory_share(self._slots),
        }

    @property
    def slots(self) -> int:
        """Number of processes at a time."""
        return self._slots

    def submit(self, job: Job, log: Path) -> Handle:
        """Start a process in a session of its own, so that Ctrl-C reaches it through us only."""
        with open(log, "ab") as stream:
            process = subprocess.Popen(
                job.argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._surroundings},
                start_new_session=True,
            )
        return _Process(process)


class _Process:
    """A handle on a local process and its group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        # To the process alone: its helpers would die of it and take the checkpoint with them.
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        for number, patience in ((signal.SIGTERM, _TERMINATE_SECONDS), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                return


def launch(
    jobs: Sequence[Job],
    *,
    log_dir: Path,
    engine: Engine | None = None,
    retry_failed: bool = False,
    reporter: Reporter | None = None,
    grace_seconds: float = 120.0,
) -> list[JobResult]:
    """Work off `jobs` in their order; a failure is recorded and the others go on.

    Args:
        jobs: The runs. Finished ones are skipped, interrupted ones continued. Where one needs
            another, the other may stand anywhere in the list.
        log_dir: Folder for one log per job.
        engine: Where they run; by default on this machine.
        retry_failed: Also start runs that failed before.
        reporter: Told of every start, end and failure.
        grace_seconds: How long jobs may take for their checkpoints after Ctrl-C.

    Returns:
        One result per job, in the order of `jobs`.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM, once every job has stopped.
    """
    engine = engine or LocalEngine()
    reporter = reporter or NullReporter()
    log_dir.mkdir(parents=True, exist_ok=True)
    results: dict[int, JobResult] = {}
    pending = list(range(len(jobs)))
    running: dict[int, Handle] = {}
    by_folder = {job.run_dir: index for index, job in enumerate(jobs)}
    reporter.start("runs", len(jobs), 0, "runs")
    with StopSignal(patience=None) as stop:
        while pending or running:
            before = len(results)
            for index in list(pending):
                if len(running) >= engine.slots or stop.requests:
                    break
                job = jobs[index]
                log = _log_file(log_dir, job)
                obstacle = _obstacle(job, by_folder, results)
                if obstacle == _WAIT:
                    continue
                pending.remove(index)
                known = _known_result(job, log, obstacle, retry_failed)
                if known is not None:
                    _record(known, index, results, running, reporter)
                    continue
                reporter.message(f"start {job.name}")
                running[index] = engine.submit(job, log)
            if stop.requests:
                _stop(running, stop, grace_seconds, reporter)
            for index in [i for i, handle in running.items() if handle.poll() is not None]:
                exit_code = running.pop(index).poll()
                assert exit_code is not None
                result = _result(jobs[index], exit_code, _log_file(log_dir, jobs[index]))
                if stop.requests and result.has_failed:
                    result = replace(result, outcome="interrupted")
                _record(result, index, results, running, reporter)
            if stop.requests:
                break
            if running or len(results) == before:
                time.sleep(_POLL_SECONDS)
    reporter.finish()
    if stop.requests and (pending or any(r.outcome == "interrupted" for r in results.values())):
        done = sum(result.is_finished for result in results.values())
        raise Interrupted(
            f"stopped with {done} of {len(jobs)} runs finished",
            "the same command again goes on from here",
        )
    return [_by_now(results[index]) for index in range(len(jobs))]


def _log_file(log_dir: Path, job: Job) -> Path:
    return log_dir / f"{job.name.replace('/', '-')}.log"


def _obstacle(job: Job, by_folder: Mapping[Path, int], results: Mapping[int, JobResult]) -> str:
    """Return why a job cannot start: `_WAIT` while it may later, "" if nothing is in its way."""
    for folder in job.needs:
        index = by_folder.get(folder)
        result = results.get(index) if index is not None else None
        if index is not None and result is None:
            return _WAIT
        if result is not None and result.is_finished:
            continue
        run = RunDir(folder)
        if run.is_locked():  # somebody else is making it
            return _WAIT
        if not _is_finished(folder):
            how = "failed" if result is not None and result.has_failed else "is not finished"
            return f"it starts from run {folder}, which {how}"
    return ""


def _record(
    result: JobResult,
    index: int,
    results: dict[int, JobResult],
    running: dict[int, Handle],
    reporter: Reporter,
) -> None:
    """Keep a result and tell of it."""
    results[index] = result
    name = result.job.name
    if result.outcome == "elsewhere":
        reporter.warning(f"{name} is being run by another process")
    elif result.has_failed:
        log = f" (log: {result.log})" if result.outcome != "blocked" else ""
        reporter.warning(f"{name} {result.outcome}: {result.error}{log}")
    else:
        reporter.message(f"{name} {_GOOD_NEWS[result.outcome]}")
    failed = sum(other.has_failed for other in results.values())
    reporter.advance(len(results), {"running": float(len(running)), "failed": float(failed)})


def _known_result(job: Job, log: Path, obstacle: str, retry_failed: bool) -> JobResult | None:
    """Return the result of a job that need not or must not be started; None for the others."""
    run = RunDir(job.run_dir)
    if run.is_locked():
        return JobResult(job, "elsewhere", None, "", log)
    status = _status(run)
    if status.get("state") == "finished":
        return JobResult(job, "skipped", None, "", log)
    if status.get("state") == "failed" and not retry_failed:
        error = f"failed before with: {status.get('error')}; --retry-failed starts it again"
        return JobResult(job, "failed", None, error, log)
    return JobResult(job, "blocked", None, obstacle, log) if obstacle else None


def _result(job: Job, exit_code: int, log: Path) -> JobResult:
    """Return what became of a job whose process has ended."""
    run = RunDir(job.run_dir)
    status = _status(run)
    if exit_code == 0 and status.get("state") == "finished":
        return JobResult(job, "finished", 0, "", log)
    if run.is_locked():
        return JobResult(job, "elsewhere", exit_code, "", log)
    if exit_code == Interrupted.exit_code:
        return JobResult(job, "interrupted", exit_code, "stopped before its end", log)
    if exit_code < 0:
        error = f"killed by {_signal_name(-exit_code)}; the same command again resumes it"
    elif status.get("state") == "failed" and status.get("error"):
        error = str(status["error"])
    else:
        error = _last_words(log) or "no output"
    return JobResult(job, "failed", exit_code, f"exit code {exit_code}, {error}", log)


def _status(run: RunDir) -> dict[str, Any]:
    """Return the state of a run; nothing for one that is damaged, the job itself will say so."""
    try:
        return run.status()
    except RlfdError:
        return {}


def _is_finished(folder: Path) -> bool:
    return _status(RunDir(folder)).get("state") == "finished"


def _by_now(result: JobResult) -> JobResult:
    """Return a result as it is at the end, when another process may have finished its run."""
    if result.outcome == "elsewhere" and _is_finished(result.job.run_dir):
        return replace(result, outcome="skipped")
    return result


def _stop(
    running: dict[int, Handle], stop: StopSignal, grace_seconds: float, reporter: Reporter
) -> None:
    """Ask every job to stop, wait, and end those that do not; a second Ctrl-C ends the waiting."""
    if running:
        reporter.message(
            f"stopping {len(running)} runs after their checkpoints; Ctrl-C again to kill them"
        )
    first = stop.requests
    for handle in running.values():
        handle.interrupt()
    deadline = time.monotonic() + grace_seconds
    while any(handle.poll() is None for handle in running.values()):
        if stop.requests > first or time.monotonic() > deadline:
            for handle in running.values():
                handle.kill()
            return
        time.sleep(_POLL_SECONDS)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a container or a cluster gives us
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _last_words(log: Path) -> str:
    """Return the error that a log ends with, else its last line."""
    with contextlib.suppress(OSError):
        text = log.read_bytes()[-8192:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines[-4:] if line.startswith("error: ")]  # a hint may follow
        return (errors or lines or [""])[-1].removeprefix("error: ")
    return ""
