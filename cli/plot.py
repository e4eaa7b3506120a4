"""`rlfd plot`: figures with intervals over seeds, or the table behind them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rlfd.cli.console import Output, command_line
from rlfd.cli.options import Debug, Json, Quiet, RunsDir, Verbose
from rlfd.errors import RlfdError

if TYPE_CHECKING:
    from rlfd.experiments.drawing import FigureFiles
    from rlfd.experiments.run_dir import RunDir

__all__ = ["plot"]

_FIGURE = "Figure"


def plot(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, or folders that hold runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="FILE.png, .svg or .pdf; its data go beside it as CSV. "
            "Left out: figure.png, or nothing with --table.",
            rich_help_panel=_FIGURE,
            show_default=False,
        ),
    ] = None,
    x: Annotated[
        Literal["env-steps", "frames", "wall-time", "labels", "quality", "num-demos"],
        typer.Option(
            "--x",
            help="Horizontal axis. labels: env steps of methods that ask, transitions that others "
            "were shown. quality, num-demos: final performance against the mean return or the "
            "number of the demonstrations.",
            rich_help_panel=_FIGURE,
        ),
    ] = "env-steps",
    metric: Annotated[
        Literal["return", "dense-return", "success"] | None,
        typer.Option(
            help="Vertical axis. Left out: success where there is a success test, return with "
            "quality and num-demos. dense-return: with the environment's own reward, whatever was "
            "learned from.",
            rich_help_panel=_FIGURE,
        ),
    ] = None,
    policy: Annotated[
        Literal["sampled", "greedy", "both"] | None,
        typer.Option(
            help="Whose evaluations. Left out: as each algorithm is judged.",
            rich_help_panel=_FIGURE,
        ),
    ] = None,
    iqm: Annotated[
        bool,
        typer.Option(
            "--iqm",
            help="Interquartile mean over seeds instead of the mean.",
            rich_help_panel=_FIGURE,
        ),
    ] = False,
    table: Annotated[
        bool,
        typer.Option(
            "--table", help="Print the final results as a table.", rich_help_panel=_FIGURE
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draw learning curves: one line per algorithm, 95 % bootstrap intervals over seeds.

    Or, with --x quality and --x num-demos, what is made of better and of more demonstrations.
    Of a single run that recovers a reward from known dynamics: reward, visits and policy.

    With --table, print the results at the end of training, as numbers over seeds; with --table and
    --out, do both.
    """
    output = Output(json=json, quiet=quiet, verbose=verbose)
    from rlfd.experiments import run_dir

    if table and out is None and (x != "env-steps" or iqm or policy is not None):
        raise RlfdError(
            "--x, --iqm and --policy belong to a figure, and --table alone draws none",
            "add --out figure.png, or leave them out: a table has both policies and both means",
        )
    found = run_dir.find_runs(runs, runs_dir)
    result: dict[str, Any] = {"runs": [str(run.path) for run in found]}
    if table:
        from rlfd.experiments.tables import display_table, results_table

        numbers = results_table(found, metric)
        result["table"] = numbers.to_dict("records")
        if not json:
            shown = display_table(numbers)
            output.table([str(name) for name in shown.columns], shown.to_numpy().tolist())
    if out is not None or not table:
        files = _draw(found, out or Path("figure.png"), x, metric, iqm, policy)
        for note in files.notes:
            output.reporter.warning(note)
        result |= {"figure": str(files.figure), "data": str(files.data), "notes": list(files.notes)}
        if not json:
            output.fields({"figure": str(files.figure), "data": str(files.data)})
    if json:
        output.result(result)


def _draw(
    runs: Sequence[RunDir], out: Path, x: Any, metric: Any, iqm: bool, policy: Any
) -> FigureFiles:
    from rlfd.algorithms import get
    from rlfd.experiments.figures import plot_learning_curves
    from rlfd.experiments.quality_figure import DEMO_AXES, plot_demonstrations

    command = command_line("rlfd", *sys.argv[1:])
    common = {"x": x, "metric": metric, "use_iqm": iqm, "policy": policy, "command": command}
    if len(runs) == 1 and x == "env-steps" and metric is None:
        config = runs[0].config()
        if get(config.algo).needs.dynamics:
            from rlfd.experiments.grid_figure import plot_recovered

            return plot_recovered(runs[0], out, command=command)
    if x not in DEMO_AXES:
        return plot_learning_curves(runs, out, **common)
    if policy == "both":
        raise RlfdError(
            f"--policy both belongs to learning curves, not to --x {x}",
            "draw one figure with --policy sampled and one with --policy greedy",
        )
    return plot_demonstrations(runs, out, **common)
