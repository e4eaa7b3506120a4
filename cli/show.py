"""`rlfd show`: one run, or one set of demonstrations, in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlfd.cli.console import Output, duration, number, share
from rlfd.cli.options import DataDir, Debug, Json, Quiet, RunsDir
from rlfd.errors import RlfdError, unknown_name

if TYPE_CHECKING:
    from rlfd.demos import DemoReport, Distribution, PolicyFile
    from rlfd.experiments.run_dir import RunDir

__all__ = ["show"]


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|DEMOS|FILE",
            help="A run, demonstrations by name or folder, or an exported policy.",
        ),
    ],
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = Path("data"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what one checks before trusting a dataset or a policy, or the results of a run."""
    output = Output(json=json, quiet=quiet)
    from rlfd import demos
    from rlfd.experiments.run_dir import find_run

    if demos.is_policy_file(name):
        _show_policy(output, demos.read_policy_file(Path(name)))
        return
    known_runs = _known_runs(runs_dir)
    known_demos = [info.name for info in demos.list_all(data_dir)]
    if _is_run(name, runs_dir):
        _show_run(output, find_run(name, runs_dir))
        return
    try:
        demonstrations = demos.read(name, data_dir=data_dir)
    except RlfdError as error:
        if error.message.startswith(("unknown", "no demonstrations")):  # nor is it a run
            if not known_runs and not known_demos and not Path(name).exists():
                raise RlfdError(
                    f"there is no run under '{runs_dir}' and there are no demonstrations under "
                    f"'{data_dir}', so '{name}' cannot be shown",
                    "name a folder, or give --runs-dir or --data-dir",
                ) from error
            raise unknown_name(
                "run or demonstrations",
                name,
                [*known_runs, *known_demos],
                "see 'rlfd list runs' and 'rlfd list demos'",
            ) from error
        raise
    _show_demos(output, demos.inspect(demonstrations))


def _known_runs(runs_dir: Path) -> list[str]:
    from rlfd.experiments.run_dir import find_runs

    try:
        return [str(run.path) for run in find_runs([], runs_dir)]
    except RlfdError:  # there is not a single one
        return []


def _is_run(name: str, runs_dir: Path) -> bool:
    from rlfd.experiments.run_dir import find_runs

    try:
        return bool(find_runs([name], runs_dir))
    except RlfdError:
        return False


def _show_run(output: Output, run: RunDir) -> None:
    from rlfd.cli.list import last_evaluation
    from rlfd.envs import is_playable

    config, status = run.config(), run.status()
    newest = last_evaluation(run)
    if output.json:
        output.result(
            {
                "run": run.path,
                "status": status,
                "config": config.to_json(),
                "provenance": run.provenance(),
                "last_evaluation": newest or None,
            }
        )
        return
    fields = {
        "run": str(run.path),
        "state": str(status["state"]),
        "error": str(status.get("error") or ""),
        "algorithm": f"{config.algo}, preset {config.preset}",
        "environment": config.env.title,
        "options": _pairs(config.env.options) if is_playable(config.env.name) else "",
        "seed": str(config.seed),
        "env steps": f"{status.get('env_steps', 0):,}",
        "updates": f"{status.get('updates', 0):,}",
        "time": duration(status.get("wall_seconds") or 0),
        "demonstrations": _pairs(status.get("demos") or {}),
        "asked": _pairs(status.get("demonstrator") or {}),
        "labels": _pairs(status.get("labels") or {}),
        "started from": _pairs(status["init"]) if status.get("init") else "",
        "learned reward of": _pairs(status["reward_from"]) if status.get("reward_from") else "",
        "last evaluation": "none yet",
    }
    if newest:
        fields["last evaluation"] = (
            f"at {newest['evaluated_at']:,} {config.unit}: return {number(newest['return_mean'])}, "
            f"success {share(newest['success_rate'])}"
        )
    fields[config.unit] += f" of {config.steps:,}" if config.steps else ""
    output.fields({name: value for name, value in fields.items() if value})
    changed = {name: layer for name, layer in run.provenance().items() if layer != "default"}
    if changed:
        values = config.to_json()
        values |= {f"algorithm.{name}": value for name, value in values["algorithm"].items()}
        rows = [
            [name.removeprefix("algorithm."), str(values.get(name)), layer]
            for name, layer in changed.items()
        ]
        output.line("")
        output.table(["changed setting", "value", "set by"], rows)


def _show_policy(output: Output, file: PolicyFile) -> None:
    from rlfd.cli.export import policy_fields

    if output.json:
        output.result(file.to_json() | {"file": file.path})
    else:
        output.fields(policy_fields(file))


def _show_demos(output: Output, report: DemoReport) -> None:
    info = report.info
    if output.json:
        env = info.env.to_json() if info.env else None
        output.result(asdict(report) | {"info": asdict(info) | {"env": env}})
        return
    made = {
        key: value
        for key, value in info.demonstrator.items()
        if value is not None and key not in ("parts", "actions", "asked")
    }
    fields = {
        "demonstrations": info.id,
        "folder": str(info.path),
        "environment": info.env.title if info.env else str(info.gym_id),
        "options": _pairs(info.env.options) if info.env else "-",
        "demonstrator": _pairs(made),
        "labelled by": _pairs(info.demonstrator["asked"]) if info.are_labels else "",
        "actions": "what a demonstrator would have done, not what was done; observations and "
        "rewards are of what was done"
        if info.are_labels
        else "",
        "content": info.content_hash,
        "episodes": f"{report.episodes:,} ({report.transitions:,} steps)",
        "success": share(report.success_rate),
        "ends": _pairs(report.ends),
        "repeated episodes": number(report.duplicates),
        "odd": "; ".join(report.remarks),
    }
    output.fields({name: value for name, value in fields.items() if value})
    _show_parts(output, info.demonstrator.get("parts") or [])
    output.line("")
    columns = ["", ">mean", ">std", ">min", ">25 %", ">median", ">75 %", ">max"]
    output.table(
        columns, [["return", *_spread(report.returns)], ["length", *_spread(report.lengths)]]
    )
    if report.actions is not None:
        output.line("")
        rows = [
            [
                f"{part}:{action + first}" if len(report.actions) > 1 else str(action + first),
                number(count),
                f"{count / max(report.transitions, 1):.1%}",
            ]
            for part, (counts, first) in enumerate(
                zip(report.actions, report.first_actions, strict=True)
            )
            for action, count in enumerate(counts)
        ]
        output.table(["action", ">taken", ">share"], rows)
    quantiles = {"action": report.action_quantiles, "observation": report.observation_quantiles}
    for what, dimensions in quantiles.items():
        if dimensions is not None:
            output.line("")
            rows = [[str(i), *map(number, row)] for i, row in enumerate(dimensions)]
            output.table([what, ">1 %", ">50 %", ">99 %"], rows)
    _show_overlap(output, report)


def _show_parts(output: Output, parts: Sequence[Mapping[str, Any]]) -> None:
    """Say what a mixture was mixed from."""
    if not parts:
        return
    rows = [
        [
            str(part["id"]),
            f"{part['share']:g}",
            number(part["episodes"]),
            number(part["return_mean"]),
            str(part["content_hash"])[: len("sha256:") + 12],
        ]
        for part in parts
    ]
    output.line("")
    output.table(["mixture of", ">share", ">episodes", ">their return", "content"], rows)


def _show_overlap(output: Output, report: DemoReport) -> None:
    overlap = report.start_overlap
    if overlap is None:
        return
    output.line("")
    output.table(
        ["distance from the pad", *(f">{level:.0%}" for level in overlap.quantiles)],
        [["|x|", *(f"{value:.3f}" for value in overlap.quantiles.values())]],
    )
    if overlap.overlaps:
        output.line(
            f"{len(overlap.episodes)} episodes go beyond |x| = {overlap.limit:.2f}: too near "
            "to the shifted start, training from there refuses them"
        )
    else:
        output.line(
            f"all states stay within |x| = {overlap.max_abs_x:.2f}; up to {overlap.limit:.2f} "
            "would be far enough from the shifted start"
        )


def _pairs(values: Any) -> str:
    return ", ".join(f"{k} {'-' if v is None else v}" for k, v in values.items()) or "-"


def _spread(values: Distribution) -> list[str]:
    return [number(value) for value in asdict(values).values()]
