"""Reading JSON that somebody else may have written: no surprise but ValueError, and of one form."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["NUMBER", "Form", "expect", "parse_json", "read_json"]

Form: TypeAlias = Any
"""A type, several of them, ``[form]`` for lists, or ``{key: form}`` for tables. In a table the key
``"*"`` stands for all others; keys that it does not name may hold anything, and none must be there.
"""

NUMBER = (int, float)
LARGEST = 2**63
_WORDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false",
    type(None): "nothing",
}  # fmt: skip


def read_json(path: Path, form: Form = object) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or not of that form; says where.
    """
    return parse_json(path.read_text(encoding="utf-8"), form)


def parse_json(text: str, form: Form = object) -> Any:
    """Return what a JSON text means; see `read_json`."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    expect(value, form)
    return value


def expect(value: Any, form: Form, where: str = "it") -> None:
    """Refuse a value that is not of a form.

    Raises:
        ValueError: Says which part of it is not.
    """
    if isinstance(form, dict):
        _expect_type(value, dict, where)
        rest = form.get("*", object)
        for key, item in value.items():
            expect(item, form.get(key, rest), f"'{key}'" if where == "it" else f"{where}.'{key}'")
    elif isinstance(form, list):
        _expect_type(value, list, where)
        for index, item in enumerate(value):
            expect(item, form[0], f"{where}[{index}]")
    elif isinstance(form, tuple):
        _expect_one(value, form, where)
    elif form is not object:
        _expect_type(value, form, where)


def _expect_one(value: Any, forms: tuple[Form, ...], where: str) -> None:
    for form in forms:
        try:
            return expect(value, form, where)
        except ValueError as error:
            problem = error
            if isinstance(form, dict | list) and isinstance(value, type(form)):
                raise  # nothing else can be meant
    raise problem


def _expect_type(value: Any, kind: type, where: str) -> None:
    right = type(value) in ((int, float) if kind is float else (kind,))
    if right and isinstance(value, int | float) and not isinstance(value, bool):
        right = math.isfinite(value) if isinstance(value, float) else abs(value) < LARGEST
    if not right:
        words = {dict: "a table", list: "a list", **_WORDS}[kind]
        shown = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "too large"
        raise ValueError(f"{where} is {shown[:40]}, expected {words}")
