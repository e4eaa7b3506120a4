"""`rlfd list`: what there is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rlfd.cli.console import Output, number, share
from rlfd.cli.options import DataDir, Debug, Json, Quiet, RunsDir
from rlfd.errors import RlfdError

if TYPE_CHECKING:
    from rlfd.experiments.run_dir import RunDir

__all__ = ["last_evaluation", "list_things"]


def list_things(
    what: Annotated[
        Literal["algos", "envs", "demonstrators", "suites", "demos", "runs"],
        typer.Argument(help="What to list."),
    ],
    markdown: Annotated[
        bool,
        typer.Option(
            "--markdown",
            help="Of demonstrators: print docs/demonstrators.md.",
            rich_help_panel="Output",
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List algorithms, environments, who can demonstrate, suites, demonstrations or runs."""
    output = Output(json=json, quiet=quiet)
    if markdown:
        if what != "demonstrators" or json:
            raise RlfdError(
                "--markdown prints one page only", "write 'rlfd list demonstrators --markdown'"
            )
        from rlfd.demos import catalogue

        output.text(catalogue.page())
        return
    listings: dict[str, Callable[[], Listing]] = {
        "algos": _algos,
        "envs": _envs,
        "demonstrators": _demonstrators,
        "suites": _suites,
        "demos": lambda: _demos(data_dir),
        "runs": lambda: _runs(runs_dir),
    }
    columns, entries = listings[what]()
    if json:
        output.result({what: entries})
        return
    if entries:
        rows = [[show(entry[key]) for key, show in columns.values()] for entry in entries]
        output.table(list(columns), rows)
    elif what == "demos":
        output.message(f"no demonstrations under '{data_dir}'")
        output.next_commands("rlfd collect-demos --env LunarLander")
    else:
        output.message(f"no runs under '{runs_dir}'")
        output.next_commands("rlfd train sqil --env LunarLander")


Columns = dict[str, tuple[str, Callable[[Any], str]]]
"""Title of a column: key of the entry and how its value is written."""
Listing = tuple[Columns, list[dict[str, Any]]]


def _algos() -> Listing:
    from rlfd.algorithms import get, names

    entries = []
    for name in names():
        algorithm = get(name)
        needs = algorithm.needs
        wants = {
            "demonstrations": needs.demonstrations,
            "reward": needs.reward,
            "interaction": needs.interaction,
            "demonstrator": needs.demonstrator,
            "dynamics": needs.dynamics,
        }
        entries.append(
            {
                "name": name,
                "summary": algorithm.summary,
                "paper": algorithm.title,
                "needs": [want for want, needed in wants.items() if needed],
                "optional": ["demonstrations"] if needs.optional_demonstrations else [],
                "actions": sorted(needs.action_kinds),
            }
        )
    columns: Columns = {
        "algorithm": ("name", str),
        "needs": ("needs", ", ".join),
        "may use": ("optional", ", ".join),
        "actions": ("actions", ", ".join),
        "summary": ("summary", str),
    }
    return columns, entries


def _envs() -> Listing:
    from rlfd import demos, envs

    entries = []
    for name in envs.names():
        spec = envs.spec(name)
        entries.append(
            {
                "name": name,
                "gymnasium_id": spec.gym_id,
                "starts": list(spec.starts),
                "rewards": list(spec.rewards),
                "options": dict(spec.options),
                "has_success": spec.has_success,
                "demonstrator": demos.default_demonstrator(name),
                "demonstrator_return": demos.catalogue.demonstrator_return(name),
                "random_return": spec.random_return,
                "description": spec.description,
            }
        )
    columns: Columns = {
        "environment": ("name", str),
        "starts": ("starts", ", ".join),
        "rewards": ("rewards", ", ".join),
        "demonstrator": ("demonstrator", _text),
        ">its return": ("demonstrator_return", number),
        ">random": ("random_return", number),
        "description": ("description", str),
    }
    return columns, entries


def _demonstrators() -> Listing:
    from rlfd.demos import catalogue

    columns: Columns = {
        "environment": ("env", str),
        "--policy": ("policy", str),
        ">return": ("return_mean", number),
        ">± over episodes": ("return_std", number),
        ">of the strong one": ("share_of_strong", share),
        ">success": ("success_rate", share),
        "algorithm": ("algo", _text),
        ">env steps": ("checkpoint", number),
    }
    return columns, catalogue.entries()


def _suites() -> Listing:
    from rlfd.experiments.suite_file import list_suites, load_suite
    from rlfd.experiments.suite_plan import plan

    entries = []
    for name in list_suites():
        suite = load_suite(name)
        runs = plan(suite, runs_dir=Path(), data_dir=Path(), groups=["all"])
        entries.append(
            {
                "name": name,
                "title": suite.title,
                "paper": suite.paper,
                "tasks": [task.name for task in suite.tasks],
                "groups": [group.name for group in suite.groups],
                "seeds": list(suite.seeds),
                "runs": len(runs),
            }
        )
    columns: Columns = {
        "suite": ("name", str),
        "title": ("title", str),
        "groups": ("groups", ", ".join),
        "tasks": ("tasks", ", ".join),
        ">seeds": ("seeds", lambda seeds: str(len(seeds))),
        ">runs": ("runs", number),
    }
    return columns, entries


def _demos(data_dir: Path) -> Listing:
    from rlfd import demos

    entries = [
        {
            "name": info.name,
            "id": info.id,
            "env": info.env.name if info.env else info.gym_id,
            "start": info.env.start if info.env else None,
            "reward": info.env.reward if info.env else None,
            "episodes": info.episodes,
            "transitions": info.transitions,
            "return_mean": info.return_mean,
            "success_rate": info.success_rate,
            "policy": info.demonstrator.get("policy"),
            "noise": info.demonstrator.get("noise"),
            "action_noise": info.demonstrator.get("action_noise"),
            "noop": info.demonstrator.get("noop"),
            "parts": info.demonstrator.get("parts"),
            "created": info.created,
            "path": info.path,
        }
        for info in demos.list_all(data_dir)
    ]
    columns: Columns = {
        "demonstrations": ("name", str),
        "environment": ("env", _text),
        "start": ("start", _text),
        "reward": ("reward", _text),
        ">episodes": ("episodes", number),
        ">steps": ("transitions", number),
        ">return": ("return_mean", number),
        ">success": ("success_rate", share),
        "policy": ("policy", _text),
        ">noise": ("noise", number),
        ">action noise": ("action_noise", number),
        ">no-op": ("noop", number),
    }
    if any(entry["parts"] for entry in entries):
        columns["mixture of"] = ("parts", _mixture)
    return columns, entries


def _mixture(parts: list[dict[str, Any]] | None) -> str:
    return " + ".join(f"{part['share']:g} {part['name']}" for part in parts or []) or "-"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _runs(runs_dir: Path) -> Listing:
    from rlfd.experiments.run_dir import find_runs

    try:
        runs = find_runs([], runs_dir)
    except RlfdError:  # there is not a single one
        runs = []
    columns: Columns = {
        "run": ("run", str),
        "state": ("state", str),
        ">progress": ("progress", lambda value: "-" if value is None else f"{min(value, 1):.0%}"),
        ">steps": ("env_steps", number),
        ">evaluated at": ("evaluated_at", number),
        ">return": ("return_mean", number),
        ">success": ("success_rate", share),
    }
    return columns, [_run_entry(run) for run in runs]


def _run_entry(run: RunDir) -> dict[str, Any]:
    """Return one row of `rlfd list runs`; a damaged folder must not hide the others."""
    entry: dict[str, Any] = {"run": str(run.path), "state": "damaged", "progress": None}
    entry |= dict.fromkeys(("env_steps", "evaluated_at", "return_mean", "success_rate"))
    with contextlib.suppress(RlfdError, KeyError, TypeError):
        status, config = run.status(), run.config()
        steps = status.get("env_steps", 0)
        entry |= {"state": status["state"], "env_steps": steps}
        if status["state"] == "finished":
            entry["progress"] = 1.0
        elif config.steps:
            entry["progress"] = steps / config.steps
        entry |= last_evaluation(run)
    return entry


def last_evaluation(run: RunDir) -> dict[str, Any]:
    """Return where and with what result a run's headline policy was evaluated last."""
    from rlfd import algorithms

    with contextlib.suppress(RlfdError):  # not evaluated yet
        run.check_results("eval.csv")
        rows = run.evaluations()
        headline = algorithms.get(run.config().algo).policies[0]
        rows = rows[(rows["policy"] == headline) & (rows["phase"] != "best")]
        if len(rows):
            rows = rows[rows["env_steps"] == rows["env_steps"].max()]
            rows = rows[rows["phase"] == rows["phase"].iloc[-1]]
            return {
                "evaluated_at": int(rows["env_steps"].iloc[0]),
                "return_mean": float(rows["episode_return"].mean()),
                "success_rate": float(rows["success"].mean())
                if rows["success"].notna().any()
                else None,
            }
    return {}
