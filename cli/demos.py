"""`rlfd demos`: working with datasets that are there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from rlfd.cli.collect_demos import print_new
from rlfd.cli.console import Output
from rlfd.cli.errors import Command, Commands
from rlfd.cli.options import AllowImport, DataDir, Debug, Json, Quiet, examples, parse_episodes
from rlfd.errors import RlfdError

__all__ = ["app"]

_WHAT = "Dataset"

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=examples("rlfd demos mix controller:0.5 random:0.5 --name half"),
)


@app.callback()
def _group() -> None:
    """Make new demonstrations from those that are there."""


@app.command(
    "mix",
    cls=Command,
    no_args_is_help=True,
    epilog=examples(
        "rlfd demos mix controller:0.5 random:0.5 --name half",
        "rlfd demos mix good:1/3 middling:1/3 bad:1/3 --name graded --episodes 60",
    ),
)
def mix(
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="DEMOS:SHARE",
            help="Datasets by name, id or folder, each with its share of the episodes. "
            "The shares add up to 1.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the new dataset.", rich_help_panel=_WHAT)],
    episodes: Annotated[
        int | None,
        typer.Option(
            parser=parse_episodes,
            metavar="N",
            help="Episodes in all. Left out: as many as the shares allow, none of them twice.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the choice of episodes.", rich_help_panel=_WHAT)
    ] = 0,
    allow_import: AllowImport = None,
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Mix datasets of one environment by share of episodes.

    The new dataset notes what it was mixed from. Good and bad demonstrators in several
    mixtures make an axis of quality, from bad to good.
    """
    output = Output(json=json, quiet=quiet)
    shares = [_parse_part(part) for part in parts]
    from rlfd import demos

    loaded = [(demos.read(text, data_dir=data_dir), share) for text, share in shares]
    mixed = demos.mix(loaded, name=name, episodes=episodes, seed=seed, data_dir=data_dir)
    print_new(output, mixed, data_dir)


def _parse_part(text: str) -> tuple[str, float]:
    name, colon, share = text.rpartition(":")
    try:
        if not (colon and name):
            raise ValueError
        return name, float(Fraction(share))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise RlfdError(
            f"cannot read '{text}' as part of a mixture, expected a dataset and its share",
            "write for example controller:0.5 or controller:1/2",
        ) from None
