"""`rlfd show`: one run, or one set of demonstrations, in detail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.options import DataDir, Debug, Json, Quiet, RunsDir

__all__ = ["show"]


def show(
    name: Annotated[
        str, typer.Argument(metavar="RUN|DEMOS", help="A run, or demonstrations by name or folder.")
    ],
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what one checks before trusting a dataset, or the state and results of a run."""
    raise NotImplementedError
