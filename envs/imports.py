"""Which packages may be imported for the name of an environment, ``package:Env-v0``.

Importing runs the package's code. Whoever types such a name wants that; a name that was read from
a file is a stranger's, until its package is allowed or was imported anyway.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

from rlfd.envs import packages
from rlfd.errors import RlfdError, told

__all__ = ["allow_import", "import_package", "note_file"]

_allowed: set[str] = set()
_from_files: dict[str, str] = {}
"""Where names of environments came from that nobody typed."""


def allow_import(*names: str) -> None:
    """Let names from files import these packages and what is inside of them."""
    _allowed.update(_top(name) for name in names)


def note_file(name: str, source: str = "") -> None:
    """Remember that an environment's name was read from `source`."""
    if source or name not in _from_files:
        _from_files[name] = source


def import_package(package: str, name: str) -> None:
    """Import the package of the environment called `name`, which registers it with Gymnasium.

    Raises:
        RlfdError: If it may not be imported, or cannot be.
    """
    if package in sys.modules:
        return
    if name in _from_files and _top(package) not in _allowed:
        source = _from_files[name]
        raise RlfdError(
            f"environment '{name}'{f' in {source}' if source else ''} asks for the package "
            f"'{package}', and what files ask for is not imported",
            f"if you trust it, add --allow-import {_top(package)}",
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no result of ours
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise packages.not_found(name, error) from error
    except (Exception, SystemExit) as error:
        raise RlfdError(
            f"environment '{name}' cannot be found: importing '{package}' raised {told(error)}",
            "this comes from the package itself",
        ) from error


def _top(package: str) -> str:
    return package.partition(".")[0]
