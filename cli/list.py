"""`rlfd list`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rlfd.cli.console import Output
from rlfd.cli.options import DataDir, Debug, Json, Quiet, RunsDir

__all__ = ["list_things"]


def list_things(
    what: Annotated[
        Literal["algos", "envs", "demos", "runs"], typer.Argument(help="What to list.")
    ],
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List algorithms, environments, demonstrations or runs."""
    raise NotImplementedError
