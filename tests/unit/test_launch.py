from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlfd.errors import Interrupted, RlfdError
from rlfd.experiments import memory
from rlfd.experiments.launch import Job, LocalEngine, launch
from rlfd.experiments.run_dir import RunDir

# A run as the launcher sees it, without the second that importing torch takes: argv is its folder
# and what happens. Each start adds a letter to `starts`, the checkpoint of these runs.
RUN = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
folder, plan = Path(sys.argv[1]), sys.argv[2].split(",")
folder.mkdir(parents=True, exist_ok=True)
lock = open(folder / ".lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
(folder / "config.json").write_text("{}")
def state(name, error=None):
    (folder / "run.json").write_text(json.dumps({"state": name, "error": error}))
def stop(*_):
    print("checkpoint"); state("interrupted"); sys.exit(130)
signal.signal(signal.SIGINT, signal.SIG_IGN if "stubborn" in plan else stop)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in plan else signal.SIG_DFL)
with open(folder / "starts", "a") as stream: stream.write("x")
starts = len((folder / "starts").read_text())
state("running")
print("threads", os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], flush=True)
if "fail" in plan: state("failed", "nan in the loss"); sys.exit(1)
if "usage" in plan: print("error: unknown setting"); print("see the list"); sys.exit(2)
if "killed" in plan and starts == 1: os.kill(os.getpid(), signal.SIGKILL)
if "lazy" in plan: sys.exit(0)
for _ in range(6000 if "wait" in plan or "stubborn" in plan else 5):
    time.sleep(0.01)  # short: a signal just before a long sleep would be noticed only after it
state("finished")
"""


class Recorder:
    def __init__(self):
        self.lines = []
        self.values = []

    def start(self, task, total, done, unit):
        self.lines.append(f"{task} {total} {done} {unit}")

    def advance(self, done, values):
        self.values.append((done, dict(values)))

    def finish(self):
        self.lines.append("finish")

    def message(self, text):
        self.lines.append(text)

    def warning(self, text):
        self.lines.append(f"warning: {text}")


@pytest.fixture
def job(tmp_path):
    def make(name, plan=""):
        folder = tmp_path / "runs" / name
        return Job(name, (sys.executable, "-S", "-c", RUN, str(folder), plan), folder)

    return make


def starts(job):
    path = job.run_dir / "starts"
    return len(path.read_text()) if path.exists() else 0


def test_a_failure_is_recorded_and_the_others_go_on(job, tmp_path):
    jobs = [job("a/0"), job("b", "fail"), job("c", "usage"), job("d", "lazy"), job("e")]
    recorder = Recorder()
    results = launch(jobs, log_dir=tmp_path / "logs", engine=LocalEngine(2), reporter=recorder)
    assert [result.job for result in results] == jobs
    assert [r.outcome for r in results] == ["finished", "failed", "failed", "failed", "finished"]
    assert [r.exit_code for r in results] == [0, 1, 2, 0, 0]
    assert results[1].error == "exit code 1, nan in the loss"
    assert results[2].error == "exit code 2, unknown setting"
    assert "threads" in results[3].error  # the last line, nothing better is known
    assert results[0].log == tmp_path / "logs" / "a-0.log"
    assert results[0].log.read_text() == "threads 1 1\n"
    assert recorder.lines[0] == "runs 5 0 runs"
    assert recorder.lines[-1] == "finish"
    assert any(line.startswith("warning: b failed: exit code 1") for line in recorder.lines)
    assert recorder.values[-1] == (5, {"running": 0.0, "failed": 3.0})


def test_a_killed_run_is_resumed_by_the_next_launch(job, tmp_path):
    jobs = [job("a", "killed"), job("b")]
    first = launch(jobs, log_dir=tmp_path / "logs", engine=LocalEngine(1))
    assert [result.outcome for result in first] == ["failed", "finished"]
    assert first[0].exit_code == -signal.SIGKILL
    assert "SIGKILL" in first[0].error
    second = launch(jobs, log_dir=tmp_path / "logs", engine=LocalEngine(1))
    assert [result.outcome for result in second] == ["finished", "skipped"]
    assert [starts(job) for job in jobs] == [2, 1]
    assert first[0].log.read_text().count("threads") == 2  # the log goes on, too


def test_failed_runs_are_started_again_only_when_asked(job, tmp_path):
    jobs = [job("a", "fail")]
    launch(jobs, log_dir=tmp_path)
    (result,) = launch(jobs, log_dir=tmp_path)
    assert (result.outcome, result.exit_code, starts(jobs[0])) == ("failed", None, 1)
    assert "nan in the loss" in result.error
    assert result.has_failed
    (result,) = launch(jobs, log_dir=tmp_path, retry_failed=True)
    assert (result.outcome, result.exit_code, starts(jobs[0])) == ("failed", 1, 2)


def test_a_run_held_by_another_process_is_left_to_it(job, tmp_path):
    jobs = [job("a"), job("b")]
    with RunDir(jobs[0].run_dir).lock():
        results = launch(jobs, log_dir=tmp_path)
    assert [result.outcome for result in results] == ["elsewhere", "finished"]
    assert starts(jobs[0]) == 0


def test_a_run_that_another_process_took_meanwhile_is_left_to_it(job, tmp_path):
    waiting = job("a", "wait")
    handles = []

    class Racing(LocalEngine):
        def submit(self, one, log):
            if not handles:
                handles.append(super().submit(waiting, tmp_path / "other.log"))
                while starts(waiting) == 0:
                    time.sleep(0.01)
            return super().submit(one, log)

    (result,) = launch([waiting], log_dir=tmp_path, engine=Racing(1))
    handles[0].kill()
    assert (result.outcome, result.exit_code) == ("elsewhere", 1)
    assert starts(waiting) == 1


def test_slots_are_kept(job, tmp_path):
    peak = []

    class Counting(LocalEngine):
        live = ()

        def submit(self, one, log):
            handle = super().submit(one, log)
            self.live = (*(h for h in self.live if h.poll() is None), handle)
            peak.append(len(self.live))
            return handle

    jobs = [job(str(i)) for i in range(5)]
    launch(jobs, log_dir=tmp_path, engine=Counting(2))
    assert max(peak) == 2


def interrupt_when(condition, times=1):
    def watch():
        for _ in range(times):
            while not condition():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_lets_runs_write_their_checkpoint(job, tmp_path):
    jobs = [job("a"), job("b", "wait"), job("c")]
    log = tmp_path / "logs" / "b.log"
    watcher = interrupt_when(lambda: log.exists() and "threads" in log.read_text())
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="1 of 3 runs finished"):
        launch(jobs, log_dir=tmp_path / "logs", engine=LocalEngine(1))
    watcher.join()
    assert "checkpoint" in log.read_text()
    assert RunDir(jobs[1].run_dir).status()["state"] == "interrupted"
    assert starts(jobs[2]) == 0
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(("grace", "times"), [(0.2, 1), (60.0, 2)])
def test_runs_that_do_not_stop_are_killed(job, tmp_path, monkeypatch, grace, times):
    monkeypatch.setattr("rlfd.experiments.launch._TERMINATE_SECONDS", 0.1)
    jobs = [job("a", "stubborn")]
    log = tmp_path / "a.log"
    watcher = interrupt_when(lambda: log.exists() and "threads" in log.read_text(), times)
    with pytest.raises(Interrupted):
        launch(jobs, log_dir=tmp_path, engine=LocalEngine(1), grace_seconds=grace)
    watcher.join()
    assert not RunDir(jobs[0].run_dir).is_locked()  # the process is gone


def test_jobs_are_told_their_share_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10)
    code = "import os; print(os.environ.get('RLFD_MEMORY_SHARE'))"
    for slots, share in ((1, "None"), (3, "3")):
        one = Job("a", (sys.executable, "-S", "-c", code), tmp_path / "run")
        result = launch([one], log_dir=tmp_path / str(slots), engine=LocalEngine(slots))[0]
        assert result.log.read_text() == f"{share}\n"


def test_number_of_slots():
    assert LocalEngine(3).slots == 3
    assert LocalEngine().slots >= 1
    with pytest.raises(RlfdError, match="at least 1, got 0"):
        LocalEngine(0)


def test_command_as_typed(tmp_path):
    own = Job("a", (sys.executable, "-m", "rlfd", "train", "sqil", "--runs-dir", "a b"), tmp_path)
    assert own.command == "rlfd train sqil --runs-dir 'a b'"
    assert Job("a", ("true", "x"), tmp_path).command == "true x"


def after(job, *others):
    return dataclasses.replace(job, needs=tuple(other.run_dir for other in others))


def test_a_run_waits_for_those_it_starts_from(job, tmp_path):
    first, second = job("first"), job("second")
    jobs = [after(job("third"), second), after(second, first), first, job("other")]
    recorder = Recorder()
    results = launch(jobs, log_dir=tmp_path, engine=LocalEngine(4), reporter=recorder)
    assert [result.outcome for result in results] == ["finished"] * 4
    events = [line for line in recorder.lines if line.split()[0] in ("start", "first", "second")]
    assert events.index("start second") > events.index("first is finished")
    assert events.index("start third") > events.index("second is finished")
    again = launch(jobs, log_dir=tmp_path)
    assert [result.outcome for result in again] == ["skipped"] * 4


def test_a_run_that_starts_from_a_failed_one_is_left_out(job, tmp_path):
    bad = job("bad", "fail")
    jobs = [after(job("a"), bad), bad, job("b")]
    jobs.append(after(job("c"), jobs[0]))
    jobs.append(after(job("d"), job("not in the list")))
    results = launch(jobs, log_dir=tmp_path, engine=LocalEngine(2))
    outcomes = ["blocked", "failed", "finished", "blocked", "blocked"]
    assert [result.outcome for result in results] == outcomes
    assert all(result.has_failed for result in results if result.outcome != "finished")
    assert results[0].error == f"it starts from run {bad.run_dir}, which failed"
    assert results[4].error.endswith("not in the list, which is not finished")
    assert [starts(one) for one in jobs] == [0, 1, 1, 0, 0]


def test_a_finished_run_does_not_mind_the_loss_of_what_it_started_from(job, tmp_path):
    source = job("source")
    launch([after(job("a"), source), source], log_dir=tmp_path)
    shutil.rmtree(source.run_dir)
    (result,) = launch([after(job("a"), source)], log_dir=tmp_path)
    assert result.outcome == "skipped"


def test_a_run_waits_for_another_process_that_makes_its_start(job, tmp_path):
    source = job("source")
    jobs = [source, after(job("a"), source)]
    with LockedFor(source, tmp_path) as release:
        timer = threading.Timer(0.3, release)
        timer.start()
        results = launch(jobs, log_dir=tmp_path)
    timer.join()
    assert [result.outcome for result in results] == ["skipped", "finished"]  # by now it is


class LockedFor:
    """Another process at work on a run; when released, it has finished it."""

    def __init__(self, one, tmp_path):
        self.one, self.lock = one, RunDir(one.run_dir).lock()
        self.log = tmp_path / "other.log"

    def __enter__(self):
        self.lock.__enter__()
        return self.release

    def release(self):
        (self.one.run_dir / "run.json").write_text('{"state": "finished"}')
        self.lock.__exit__(None, None, None)

    def __exit__(self, *_):
        pass


def test_what_a_run_starts_from_was_finished_before(job, tmp_path):
    source = job("source")
    launch([source], log_dir=tmp_path)
    (result,) = launch([after(job("a"), source)], log_dir=tmp_path)
    assert result.outcome == "finished"


def test_ctrl_c_while_a_run_waits(job, tmp_path):
    source = job("source", "wait")
    log = tmp_path / "source.log"
    watcher = interrupt_when(lambda: log.exists() and "threads" in log.read_text())
    with pytest.raises(Interrupted, match="0 of 2 runs finished"):
        launch([after(job("a"), source), source], log_dir=tmp_path, engine=LocalEngine(2))
    watcher.join()


def test_a_run_that_is_still_elsewhere_is_not_finished(job, tmp_path):
    jobs = [job("a"), job("b")]
    with RunDir(jobs[0].run_dir).lock():
        results = launch(jobs, log_dir=tmp_path)
    assert [result.is_finished for result in results] == [False, True]


def test_children_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    """The first of what `python -m rlfd` imports; a later one would be as bad."""
    for name in ("secrets", "typer", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    command = (sys.executable, "-m", "rlfd", "--version")
    log = tmp_path / "log"
    handle = LocalEngine(1).submit(Job("a", command, tmp_path / "a"), log)
    while handle.poll() is None:
        time.sleep(0.01)
    assert (handle.poll(), log.read_text().split()[0]) == (0, "rlfd")
    plain = subprocess.run(command, capture_output=True, text=True)
    assert (plain.returncode, plain.stdout.split()[:1]) == (0, ["rlfd"])


PARENT = """
import subprocess, sys, time
from pathlib import Path
from rlfd.experiments.launch import Job, LocalEngine
code = (
    "import time; from pathlib import Path;"
    "from rlfd.interrupts import StopSignal, end_with_parent;"
    "end_with_parent(); signal = StopSignal().__enter__(); Path('began').touch();"
    "[time.sleep(0.01) for _ in range(6000) if not signal.received];"
    "Path('stopped').write_text(str(signal.received))"
)
LocalEngine(1).submit(Job("a", (sys.executable, "-c", code), Path("a")), Path("log"))
time.sleep(60)
"""


def test_children_are_asked_to_stop_when_the_launcher_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path)
    wait_for(tmp_path / "began")
    parent.kill()
    parent.wait()
    wait_for(tmp_path / "stopped")
    assert (tmp_path / "stopped").read_text() == "True"


def wait_for(path):
    deadline = time.monotonic() + 30
    while not (path.exists() and (path.name == "began" or path.read_text())):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
