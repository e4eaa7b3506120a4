"""What the reporters draw and how results look."""

from __future__ import annotations

import io
import json
import logging
import re

import numpy as np
import pytest
from rich.console import Console

from rlfd.cli import console
from rlfd.cli.console import Output, PlainReporter, RichReporter, command_line, duration, number


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def plain():
    stream = io.StringIO()
    return PlainReporter(Console(file=stream, width=200, markup=False, highlight=False)), stream


def test_plain_lines_come_every_ten_seconds(clock):
    reporter, stream = plain()
    reporter.start("train", 1000, 0, "env steps")
    for step in range(1, 41):
        clock[0] += 1.0
        reporter.advance(step * 25, {"return": step / 3})
    reporter.finish()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "train: 1,000 env steps"
    assert lines[1] == "train: 25%, 250 env steps, 25/s, 30 s left  return 3.333"
    assert len(lines) == 1 + 4 + 1
    assert lines[-1] == "train: 1,000 env steps in 40 s  return 13.33"


def test_plain_speed_leaves_out_what_was_done_before(clock):
    reporter, stream = plain()
    reporter.start("train", 1000, 900, "env steps")
    clock[0] += 10
    reporter.advance(950, {})
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("900 made before")
    assert "5/s, 10 s left" in lines[1]


def test_a_task_without_a_known_end(clock):
    reporter, stream = plain()
    reporter.start("bc", 0, 0, "updates")
    clock[0] += 20
    reporter.advance(40, {})
    reporter.finish()
    assert stream.getvalue().splitlines() == [
        "bc: as many updates as it takes",
        "bc: 40 updates, 2/s",
        "bc: 40 updates in 20 s",
    ]
    stream = io.StringIO()
    bar = RichReporter(Console(file=stream, force_terminal=True, width=100))
    bar.start("bc", 0, 0, "updates")
    bar.advance(40, {"loss": 1.0})
    bar.finish()
    assert "40 updates  loss 1" in stream.getvalue()


def test_slow_tasks_are_counted_by_the_minute(clock):
    reporter, stream = plain()
    reporter.start("runs", 1, 0, "runs")
    clock[0] += 30
    reporter.advance(1, {})
    assert stream.getvalue().splitlines() == ["runs: 1 run", "runs: 100%, 1 run, 2/min, 0 s left"]


def test_no_time_is_promised_before_there_is_progress(clock):
    reporter, stream = plain()
    reporter.start("dqn", 10, 0, "env steps")
    clock[0] += 20
    reporter.advance(0, {})
    assert "unknown time left" in stream.getvalue()


def test_plain_ends_a_task_once(clock):
    reporter, stream = plain()
    reporter.start("one", 5, 0, "runs")
    reporter.start("two", 3, 0, "runs")
    reporter.finish()
    reporter.finish()
    assert stream.getvalue().splitlines() == [
        "one: 5 runs",
        "one: 0 runs in 0 s",
        "two: 3 runs",
        "two: 0 runs in 0 s",
    ]


def test_values_stay_until_they_are_replaced(clock):
    reporter, stream = plain()
    reporter.start("train", 10, 0, "updates")
    reporter.advance(1, {"loss": 0.5})
    clock[0] += 10
    reporter.advance(2, {"return": 3.0})
    assert "loss 0.5  return 3" in stream.getvalue()


def test_the_bar_shows_share_count_and_values():
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=160, markup=False)
    reporter = RichReporter(terminal)
    reporter.message("before [all]")
    reporter.start("train", 2000, 0, "env steps")
    reporter.advance(500, {"time/env": 0.25})
    reporter.warning("something odd")
    reporter.advance(2000, {"return": 7.0})
    reporter.finish()
    reporter.finish()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "before [all]" in text
    assert "warning: something odd" in text
    assert "100%" in text
    assert "2,000 of 2,000 env steps  time/env 0.25  return 7" in text


def test_the_bar_is_redrawn_at_most_four_times_a_second():
    stream = io.StringIO()
    reporter = RichReporter(Console(file=stream, force_terminal=True, width=100))
    reporter.start("train", 10**6, 0, "env steps")
    for step in range(2000):
        reporter.advance(step, {"return": 1.0})
    reporter.finish()
    assert stream.getvalue().count("train") < 10


def test_output_chooses_the_reporter(capsys):
    assert isinstance(Output().reporter, PlainReporter)  # stderr is no terminal here
    quiet = Output(quiet=True)
    quiet.message("hello")
    quiet.next_commands("rlfd plot")
    assert capsys.readouterr() == ("", "")


def test_json_is_one_object_without_nan(capsys):
    Output(json=True).result(
        {
            "a": np.float32(1.5),
            "b": float("nan"),
            "c": np.array([1, 2]),
            "d": None,
            "e": (True, "x"),
        }
    )
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": 1.5, "b": None, "c": [1, 2], "d": None, "e": [True, "x"]}


def test_tables_are_not_cut_in_a_pipe(capsys):
    Output().table(["name", ">value"], [["x" * 300, "1"], ["[y]", "22"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("x" * 300)
    assert lines[2].startswith("[y]")
    assert lines[2].rstrip().endswith("22")


def test_next_commands_go_to_stderr(capsys):
    Output().next_commands("rlfd evaluate a", "rlfd plot a")
    assert capsys.readouterr() == ("", "next:  rlfd evaluate a\n       rlfd plot a\n")


def test_log_lines_by_level(capsys):
    logger = logging.getLogger("rlfd.somewhere")
    Output()
    logger.info("detail")
    logger.warning("odd")
    assert capsys.readouterr().err == "warning: odd\n"
    Output(verbose=True)
    logger.info("detail")
    assert capsys.readouterr().err == "detail\n"
    Output(quiet=True)
    logger.warning("odd")
    assert capsys.readouterr().err == ""


def test_a_warning_that_is_logged_and_reported_is_shown_once(capsys):
    output = Output()
    logging.getLogger("rlfd.train").warning("odd")
    output.reporter.warning("odd")
    assert capsys.readouterr().err == "warning: odd\n"


def test_numbers_and_times():
    assert [number(v) for v in (None, float("nan"), 3, 12345, 0.123456, 1234567.8, -21.0)] == [
        "-", "-", "3", "12,345", "0.1235", "1,234,568", "-21",
    ]  # fmt: skip
    assert [duration(s) for s in (0, 59.4, 125, 7800)] == ["0 s", "59 s", "2:05 min", "2:10 h"]


def test_commands_can_be_copied():
    assert command_line("rlfd", "plot", "my runs/x", 3) == "rlfd plot 'my runs/x' 3"


def test_more_than_was_planned_is_no_share_and_no_time(clock):
    reporter, stream = plain()
    reporter.start("gail", 200, 0, "env steps")
    clock[0] += 10
    reporter.advance(500, {})
    assert stream.getvalue().splitlines()[1] == "gail: 100%, 500 env steps, 50/s"
    stream = io.StringIO()
    bar = RichReporter(Console(file=stream, force_terminal=True, width=160, markup=False))
    bar.start("gail", 200, 0, "env steps")
    for done in (100, 150, 500, 700):
        bar.advance(done, {})
        bar._progress.refresh()
        clock[0] += 1
    bar.finish()
    assert not re.search(r"-\d+ s left|[2-9]\d\d%", stream.getvalue())
