"""How every error ends the program: one clear message on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rlfd.cli import results
from rlfd.cli.console import print_error, print_traceback
from rlfd.errors import Interrupted, RlfdError

__all__ = ["Command", "Commands", "report_error"]

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

# how torch says it
_OUT_OF_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|Storage size calculation overflow")
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


class Command(TyperCommand):
    """A subcommand whose errors end in `report_error`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with results.apart():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report_error(error, debug=bool(ctx.params.get("debug")))) from error


class Commands(TyperGroup):
    """The program: usage errors look like all others, and the exit codes are ours."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Parse `args`, run the command and leave with its exit code."""
        options["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **options)
        except typer.TyperException as error:
            code = _report_usage(error)
        except typer.Abort:
            print_error("stopped, nothing was changed", label="")
            code = FAILED
        except OSError as error:  # the help, in a pipe that was closed
            code = report_error(error)
        sys.exit(code if isinstance(code, int) else 0)


def report_error(error: BaseException, *, debug: bool = False) -> int:
    """Print what happened and what to do; return the exit code."""
    if debug:
        print_traceback(error)
    if isinstance(error, Interrupted):
        print_error(error.message, error.hint, label="")
        return error.exit_code
    if isinstance(error, RlfdError):
        print_error(error.message, error.hint)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print_error("interrupted", label="")
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno is not None:
        return _report_os_error(error, error.errno)
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        print_error(
            f"there is not enough memory: {error or 'a small piece was not to be had'}",
            "ask for less at a time: fewer environments, smaller networks, batches or memories",
        )
        return FAILED
    print_error(
        f"unexpected {type(error).__name__}: {error}",
        "" if debug else "this should not happen: run again with --debug for the traceback",
    )
    return FAILED


def _report_os_error(error: OSError, number: int) -> int:
    place = f"'{error.filename}'" if error.filename else "the output"
    if number == errno.EPIPE:
        _discard_stdout()
        print_error("stdout was closed before everything was written")
        return FAILED
    if number in _NO_SPACE:
        _discard_stdout()
        print_error(
            f"no space left on the disk for {place}",
            "free some space and try again; what was written before is intact",
        )
        return FAILED
    reason = (error.strerror or type(error).__name__).lower()
    if number in _NOT_WRITABLE:
        folder = "choose a folder that you may write to with --runs-dir, --data-dir or --out"
        hint = "choose a shorter name" if number == errno.ENAMETOOLONG else folder
        print_error(f"cannot use {place}: {reason}", hint)
        return WRONG_USAGE
    print_error(
        f"cannot use {place}: {reason}", "run again with --debug to see what was done with it"
    )
    return FAILED


def _discard_stdout() -> None:
    """Keep the interpreter from failing once more when it flushes stdout at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is on the screen already
        return WRONG_USAGE
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "rlfd"
    print_error(message[:1].lower() + message[1:], f"see '{program} --help'")
    return WRONG_USAGE
