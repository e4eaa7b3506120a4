"""Help of every command, exit codes, and the look of errors; nothing here trains."""

from __future__ import annotations

import errno
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from rlfd.cli.errors import Command, Commands
from rlfd.cli.options import parse_count, parse_env_options, parse_seeds
from rlfd.errors import Interrupted, RlfdError, RunFailed

from .conftest import assert_refused, environment, outside, run_inside, run_outside

COMMANDS = ("collect-demos", "train", "evaluate", "plot", "reproduce", "list", "show")
GROUPS = {"demos": ("mix",)}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples(command):
    outcome = run_inside(command, "--help")
    assert outcome.code == 0
    assert outcome.stderr == ""
    _, _, end = outcome.stdout.rpartition("Examples")
    lines = [line.strip() for line in end.strip().splitlines()]
    assert lines
    assert all(line.startswith(f"$ rlfd {command} ") for line in lines)


@pytest.mark.parametrize(("group", "command"), [(g, c) for g in GROUPS for c in GROUPS[g]])
def test_help_of_commands_in_groups(group, command):
    assert f" {command} " in run_inside(group, "--help").stdout
    text = run_inside(group, command, "--help").stdout
    options, _, end = text.rpartition("Examples")
    lines = [line.strip() for line in end.strip().splitlines()]
    assert lines
    assert all(line.startswith(f"$ rlfd {group} {command} ") for line in lines)
    assert all(option in options for option in re.findall(r"--[a-z-]+", end))


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_options_that_exist(command):
    text = run_inside(command, "--help").stdout
    options, _, end = text.rpartition("Examples")
    for option in re.findall(r"--[a-z-]+", end):
        assert option in options


def test_help_of_the_program_names_every_command():
    text = run_inside("--help").stdout
    for command in (*COMMANDS, *GROUPS):
        assert f" {command} " in text
    assert "$ rlfd train sqil" in text.rpartition("Examples")[2]


@pytest.mark.parametrize("arguments", [(), ("train",), ("collect-demos",), ("evaluate",)])
def test_nothing_given_shows_the_help(arguments):
    outcome = run_inside(*arguments)
    assert outcome.code == 2
    assert "Usage: rlfd" in outcome.stdout
    assert outcome.stderr == ""


def test_version():
    import rlfd

    outcome = run_inside("--version")
    assert (outcome.code, outcome.stdout) == (0, f"rlfd {rlfd.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("trian",), ("trian", "'train'")),
        (("train", "sqil"), ("--env", "rlfd train --help")),
        (("train", "sqil", "--env", "CartPole", "--stepz", "9"), ("--stepz", "--steps")),
        (("train", "sqil", "--env", "CartPole", "--steps", "many"), ("'many'", "2.5M")),
        (("train", "sqil", "--env", "CartPole", "--steps", "0"), ("at least 1",)),
        (("train", "sqil", "--env", "CartPole", "--steps", "-5"), ("'-5'",)),
        (("train", "sqil", "--env", "CartPole", "--seed", "x"), ("--seed",)),
        (("train", "sqil", "--env", "CartPole", "--seed", "-1"), ("--seed", "0")),
        (("train", "sqil", "--env", "CartPole", "--compile", "yes"), ("'auto'", "'on'", "'off'")),
        (("collect-demos", "--env", "CartPole", "--noise", "1.5"), ("--noise", "1")),
        (("collect-demos", "--env", "CartPole", "--noise", "nan"), ("--noise",)),
        (("evaluate", "x", "--episodes", "0"), ("--episodes",)),
        (("plot", "x", "--metric", "loss"), ("'return'", "'success'")),
        (("plot",), ()),
        (("list", "everything"), ("'algos'", "'runs'")),
    ],
)
def test_wrong_usage_is_one_message(arguments, texts):
    outcome = run_inside(*arguments)
    if len(arguments) == 1 and arguments[0] == "plot":
        assert outcome.code == 2
        return
    assert_refused(outcome, *texts)


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("10_000", 10000), ("1e6", 10**6), ("2.5M", 2_500_000), ("60k", 60_000), ("0", 0)],
)
def test_counts(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "k", "1.5", "1e", "-3", "1e99", "nan", "inf", "0x10", "1 0", "9" * 310, "٣"],
)
def test_wrong_counts(text):
    with pytest.raises(typer.BadParameter):
        parse_count(text)


def test_seeds():
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert parse_seeds("3") == [3]
    assert parse_seeds("0, 2,5-7,2") == [0, 2, 5, 6, 7]
    for text in ("", "a", "4-0", "0-", "-1", "0-99999999999"):
        with pytest.raises(RlfdError, match="as seeds"):
            parse_seeds(text)


def test_env_options_are_json_where_they_can_be():
    options = parse_env_options(["a=0.5", "b=true", "c=text", 'd=["x"]', "e=f=g"])
    assert options == {"a": 0.5, "b": True, "c": "text", "d": ["x"], "e": "f=g"}
    with pytest.raises(RlfdError, match="key=value"):
        parse_env_options(["push_scale"])


def os_error(number, place=None):
    return OSError(number, "Some Reason", place)


def program(error):
    """Return a program whose command raises `error`."""
    app = typer.Typer(cls=Commands)

    @app.callback()
    def group():
        """Make the one command a subcommand."""

    @app.command("fail", cls=Command)
    def fail(debug: bool = typer.Option(False, "--debug")):
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "texts"),
    [
        (RlfdError("what happened", "do this"), 2, ("error: what happened\ndo this\n",)),
        (RlfdError("what happened"), 2, ("error: what happened\n",)),
        (RunFailed("loss is NaN"), 1, ("error: loss is NaN\n",)),
        (Interrupted("stopped at 5", "rlfd train --resume"), 130, ("stopped at 5\nrlfd train",)),
        (KeyboardInterrupt(), 130, ("interrupted",)),
        (os_error(errno.ENOSPC, "runs/x"), 1, ("no space left", "'runs/x'")),
        (os_error(errno.EACCES, "runs/x"), 2, ("'runs/x'", "some reason", "--runs-dir")),
        (os_error(errno.EROFS, "runs/x"), 2, ("'runs/x'",)),
        (os_error(errno.ENOTDIR, "runs/x"), 2, ("'runs/x'",)),
        (os_error(errno.EIO, "runs/x"), 1, ("'runs/x'", "--debug")),
        (ZeroDivisionError("oops [bold]"), 1, ("ZeroDivisionError: oops [bold]", "--debug")),
    ],
)
def test_errors_of_commands(error, code, texts):
    result = CliRunner().invoke(program(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for text in texts:
        assert text in result.stderr


def test_debug_shows_the_traceback_and_keeps_the_code():
    for error, code in ((RlfdError("bad"), 2), (ZeroDivisionError("bad"), 1)):
        result = CliRunner().invoke(program(error), ["fail", "--debug"])
        assert result.exit_code == code
        assert "Traceback" in result.stderr
        assert "bad" in result.stderr


def test_long_messages_are_not_wrapped():
    text = "long " * 100 + "end"
    result = CliRunner().invoke(program(RlfdError(text)), ["fail"])
    assert text in result.stderr


def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        outcome = run_outside(
            "list", "envs", capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert_refused(outcome, "no space left", code=1)


def test_a_closed_pipe_behind_stdout():
    code = (
        "import os, subprocess, sys\n"
        "read, write = os.pipe(); os.close(read)\n"
        "sys.exit(subprocess.run([sys.executable, '-m', 'rlfd', 'list', 'envs'], stdout=write)"
        ".returncode)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: stdout was closed")
    assert "Exception" not in result.stderr


def test_a_locale_without_the_characters(tmp_path):
    command = outside("collect-demos", "--env", "CartPole", "--episodes", 2, "--data-dir", tmp_path)
    ascii_only = {**environment(), "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run(command, env=ascii_only, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "500 ? 0 over episodes" in result.stdout


def test_the_console_script_is_the_same_program():
    from pathlib import Path

    script = Path(sys.executable).parent / "rlfd"
    result = subprocess.run([script, "trian"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == run_outside("trian").stderr
