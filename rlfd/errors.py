"""Errors meant for people: what happened, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["GuestFailed", "Interrupted", "RlfdError", "RunFailed", "told", "unknown_name"]


class RlfdError(Exception):
    """Wrong usage or bad input; the command line prints it and exits with `exit_code`.

    Args:
        message: What happened and what was expected. Lower-case start, no full stop needed.
        hint: What to do about it. May be empty.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class RunFailed(RlfdError):
    """A run that was set up correctly could not go on."""

    exit_code = 1


class GuestFailed(RunFailed):
    """An environment of somebody else raised an exception of its own."""


class Interrupted(RlfdError):
    """The user stopped the run; a checkpoint was written."""

    exit_code = 130


def told(error: BaseException, *, place: str = "", where: str = "") -> str:
    """Return an exception of other people's code in words: its type, and what it says.

    Args:
        error: What was raised; its message may be empty.
        place: File and line, if they are known.
        where: What was being done, such as ``in step 6``.
    """
    name = type(error).__name__ + (f" {where}" if where else "")
    text = " ".join(str(error).split())
    return name + (f": {text}" if text else "") + (f" ({place})" if place else "")


def unknown_name(
    kind: str, name: str, known: Iterable[str], hint: str = "", *, likeness: float = 0.5
) -> RlfdError:
    """Return the error for a name that is not known, with the nearest known one.

    Args:
        kind: What the name stands for, such as ``environment``.
        name: What the user gave.
        known: Every name that would have been accepted.
        hint: Where to look names up.
        likeness: Of a name that is suggested, at least; 1 is the same.
    """
    choices = list(known)
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=likeness)
    message = f"unknown {kind} '{name}'"
    if near:
        message += f", did you mean '{lowered[near[0]]}'?"
    elif choices and len(choices) <= 12:
        message += f", known are {', '.join(choices)}"
    return RlfdError(message, hint)
