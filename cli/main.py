"""The `rlfd` program and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import rlfd
from rlfd.cli import demos
from rlfd.cli.collect_demos import collect_demos
from rlfd.cli.errors import Command, Commands
from rlfd.cli.evaluate import evaluate
from rlfd.cli.export import export
from rlfd.cli.list import list_things
from rlfd.cli.options import examples
from rlfd.cli.plot import plot
from rlfd.cli.reproduce import reproduce
from rlfd.cli.show import show
from rlfd.cli.streams import make_safe
from rlfd.cli.train import train
from rlfd.interrupts import end_with_parent

__all__ = ["app", "main"]

app = typer.Typer(
    name="rlfd",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples(
        "rlfd collect-demos --env LunarLander --start demo --episodes 100",
        "rlfd train sqil --env LunarLander --start shifted --steps 150k",
        "rlfd evaluate runs/default/sqil/LunarLander-shifted/seed0",
        "rlfd plot runs --metric success --out figure.png",
    ),
)


def _version(show_it: bool) -> None:
    if show_it:
        typer.echo(f"rlfd {rlfd.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """A laboratory for [bold]reinforcement learning from demonstrations[/bold].

    Collect demonstrations, learn from them, evaluate, plot, and repeat it all exactly.
    """


_RUNNING, _LOOKING = "Experiments", "Looking"

app.command(
    "collect-demos",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd collect-demos --env LunarLander --start demo --episodes 100",
        "rlfd collect-demos --env LunarLander --noise 0.3 --name imperfect",
        "rlfd collect-demos --env CartPole --policy dqn/CartPole/seed0 --noise 0.1",
    ),
)(collect_demos)
app.add_typer(demos.app, name="demos", rich_help_panel=_RUNNING)
app.command(
    "train",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd train sqil --env LunarLander --start shifted --steps 150k",
        "rlfd train bc --env CartPole --num-demos 5 --seed 3",
        "rlfd train dqn --env LunarLander --set learning_rate=1e-3 --show-config",
        "rlfd train dqn --env LunarLander --resume",
    ),
)(train)
app.command(
    "evaluate",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd evaluate runs/default/sqil/LunarLander/seed0",
        "rlfd evaluate sqil/LunarLander/seed0 --checkpoint best --greedy",
        "rlfd evaluate sqil/LunarLander/seed0 --start shifted --record-video 2",
    ),
)(evaluate)
app.command(
    "export",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd export sac/Hopper/seed0 --out hopper.safetensors",
        "rlfd export sac/Hopper/seed0 --checkpoint 200k --out hopper-weak.safetensors",
        "rlfd collect-demos --env Hopper --policy hopper-weak.safetensors --episodes 10",
    ),
)(export)
app.command(
    "plot",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd plot runs --out figure.png",
        "rlfd plot runs/default/sqil runs/default/bc --out figure.pdf",
        "rlfd plot runs --table --metric return",
        "rlfd plot runs --x quality --out quality.png",
    ),
)(plot)
app.command(
    "reproduce",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_RUNNING,
    epilog=examples(
        "rlfd reproduce sqil-lunarlander --dry-run",
        "rlfd reproduce sqil-lunarlander --seeds 0-1 --steps 50k --jobs 2",
    ),
)(reproduce)
app.command(
    "list",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_LOOKING,
    epilog=examples("rlfd list algos", "rlfd list demonstrators", "rlfd list runs --json"),
)(list_things)
app.command(
    "show",
    cls=Command,
    no_args_is_help=True,
    rich_help_panel=_LOOKING,
    epilog=examples("rlfd show controller", "rlfd show runs/default/sqil/LunarLander/seed0"),
)(show)


def main() -> None:
    """Run the program."""
    make_safe()
    end_with_parent()
    app(prog_name="rlfd")
