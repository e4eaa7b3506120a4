"""A paper's tables as a list of runs, worked off and set beside the paper's numbers.

A suite is a TOML file beside this one (`suites/`): rows of a table x starts x seeds. A row is an
algorithm with settings, a policy that is only evaluated, or a method that is not there yet.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rlfd import algorithms, demos, envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError, unknown_name
from rlfd.experiments import figures, tables
from rlfd.experiments.evaluate import EVAL_SEED_OFFSET
from rlfd.experiments.launch import Engine, Job, JobResult, launch
from rlfd.experiments.report import NullReporter, Reporter
from rlfd.experiments.results import RunResult, env_title, load_results
from rlfd.experiments.run_dir import RunDir
from rlfd.files import write_json, write_text
from rlfd.seeding import derive_many

__all__ = ["ReproduceResult", "Suite", "list_suites", "load_suite", "plan", "reproduce"]

EPISODES = 100  # per seed and start, for the policies that are not trained


@dataclass(frozen=True)
class Row:
    """One row of the paper's table; exactly one of `algo`, `policy` and `unavailable` is set.

    Attributes:
        label: What the table calls it.
        algo: Algorithm to train.
        policy: Policy to evaluate without training: a controller or ``random``.
        unavailable: Why there is nothing of ours in this row.
        variant: Tells rows of one algorithm apart; becomes part of the run's exp_name.
        preset: Preset for training.
        settings: Hyperparameters that differ from the preset.
        steps: Env steps of its runs, where they differ from the suite's.
        num_demos: Number of demonstrations, where not all of the suite's are used.
        groups: Parts of the suite that show this row.
        paper: The paper's number and its spread by start.
        note: What a reader of the row must know.
    """

    label: str
    algo: str = ""
    policy: str = ""
    unavailable: str = ""
    variant: str = ""
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    num_demos: int = 0
    groups: Sequence[str] = ("paper",)
    paper: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Group:
    """A part of the suite with a table of its own; no starts stand for the suite's."""

    name: str
    title: str
    starts: Sequence[str] = ()


@dataclass(frozen=True)
class FigurePlan:
    """A learning-curve figure: which rows it shows, if its group is worked off."""

    name: str
    group: str
    rows: Sequence[str]


@dataclass(frozen=True)
class DemoPlan:
    """The one dataset that every row learns from."""

    name: str
    policy: str
    start: str
    episodes: int
    seed: int


@dataclass(frozen=True)
class Suite:
    """What a suite file says."""

    name: str
    title: str
    paper: str
    env: str
    starts: Sequence[str]
    seeds: Sequence[int]
    steps: int
    protocol: Sequence[str]
    demos: DemoPlan
    groups: Sequence[Group]
    figures: Sequence[FigurePlan]
    rows: Sequence[Row]


@dataclass(frozen=True)
class ReproduceResult:
    """What `reproduce` leaves behind.

    Attributes:
        folder: Where everything was saved.
        table: One row per (group, start, row, measure): ours, and the paper's number.
        text_tables: Ready to print, by title.
        figures: Learning curves.
        jobs: What became of every run.
    """

    folder: Path
    table: pd.DataFrame
    text_tables: Mapping[str, pd.DataFrame]
    figures: Sequence[figures.FigureFiles]
    jobs: Sequence[JobResult]

    @property
    def failures(self) -> list[JobResult]:
        """Runs that ended without finishing."""
        return [result for result in self.jobs if result.has_failed]


def list_suites() -> list[str]:
    """Return the names of all suites."""
    folder = resources.files("rlfd.experiments.suites")
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml").replace("_", "-") for name in names)


def load_suite(name: str) -> Suite:
    """Return the suite called `name`.

    Raises:
        RlfdError: If there is none; names the nearest one.
    """
    if name not in list_suites():
        raise unknown_name("suite", name, list_suites())
    file = resources.files("rlfd.experiments.suites") / f"{name.replace('-', '_')}.toml"
    return parse_suite(name, file.read_text(encoding="utf-8"))


def parse_suite(name: str, text: str) -> Suite:
    """Return the suite that a TOML text describes, checked for names that do not fit together."""
    content = tomllib.loads(text)
    parts: dict[str, Any] = {
        "demos": _build(DemoPlan, content.pop("demos")),
        "groups": [_build(Group, entry) for entry in content.pop("groups")],
        "figures": [_build(FigurePlan, entry) for entry in content.pop("figures")],
        "rows": [_build(Row, entry) for entry in content.pop("rows")],
    }
    suite: Suite = _build(Suite, content | parts | {"name": name})
    groups = [group.name for group in suite.groups]
    labels = [row.label for row in suite.rows]
    for row in suite.rows:
        if sum(map(bool, (row.algo, row.policy, row.unavailable))) != 1:
            raise ValueError(f"row '{row.label}' needs one of algo, policy, unavailable")
        _all_known(f"row '{row.label}'", row.groups, groups)
        _all_known(f"row '{row.label}'", row.paper, suite.starts)
    for figure in suite.figures:
        _all_known(f"figure '{figure.name}'", [figure.group], groups)
        _all_known(f"figure '{figure.name}'", figure.rows, labels)
    runs = [(row.algo, row.variant) for row in suite.rows if row.algo]
    if len(set(runs)) < len(runs) or len(set(labels)) < len(labels):
        raise ValueError(
            f"suite '{name}' has two rows with one label, or one algorithm and variant"
        )
    return suite


def _build(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    _all_known(kind.__name__, entry, [item.name for item in fields(kind)])
    return kind(**entry)


def _all_known(where: str, names: Any, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{where} of the suite names '{name}', expected {near or known}")


def plan(
    suite: Suite,
    *,
    runs_dir: Path,
    data_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = ("paper",),
) -> list[Job]:
    """Return the runs of a suite in the order in which they are made.

    The seed is the outermost loop, so that a suite worked off in part compares all of its rows.

    Args:
        suite: The suite.
        runs_dir: Where runs go.
        data_dir: Where the demonstrations are.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them.

    Raises:
        RlfdError: If a group is not known.
    """
    chosen = _chosen_groups(suite, groups)
    return [
        _job(suite, row, start, seed, steps or row.steps or suite.steps, runs_dir, data_dir)
        for seed in seeds or suite.seeds
        for row in _rows_of(suite, chosen)
        if row.algo
        for start in _starts_of(suite, row, chosen)
    ]


def _group_starts(suite: Suite, name: str) -> Sequence[str]:
    return next(group.starts for group in suite.groups if group.name == name) or suite.starts


def _starts_of(suite: Suite, row: Row, groups: Sequence[str]) -> list[str]:
    """Return the starts that the groups want of a row, each once."""
    starts = [start for g in groups if g in row.groups for start in _group_starts(suite, g)]
    return list(dict.fromkeys(starts))


def _chosen_groups(suite: Suite, groups: Sequence[str]) -> list[str]:
    known = [group.name for group in suite.groups]
    for name in groups:
        if name not in [*known, "all"]:
            raise unknown_name(f"group of {suite.name}", name, [*known, "all"])
    return known if "all" in groups else [name for name in known if name in groups]


def _job(
    suite: Suite, row: Row, start: str, seed: int, steps: int, runs_dir: Path, data_dir: Path
) -> Job:
    needs = algorithms.get(row.algo).needs
    argv = [sys.executable, "-m", "rlfd", "train", row.algo, "--env", suite.env, "--start", start]
    if needs.demonstrations:
        argv += ["--demos", suite.demos.name]
    if row.num_demos:
        argv += ["--num-demos", str(row.num_demos)]
    if needs.interaction:  # the others stop by themselves
        argv += ["--steps", str(steps)]
    argv += ["--seed", str(seed), "--exp-name", _exp_name(suite, row)]
    if row.preset:
        argv += ["--preset", row.preset]
    for name, value in row.settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        argv += ["--set", f"{name}={text}"]
    argv += ["--runs-dir", str(runs_dir), "--data-dir", str(data_dir), "--resume-if-exists"]
    folder = _run_folder(suite, row, start, seed, runs_dir)
    return Job(str(folder.relative_to(runs_dir)), tuple(argv), folder)


def _exp_name(suite: Suite, row: Row) -> str:
    return f"{suite.name}-{row.variant}" if row.variant else suite.name


def _run_folder(suite: Suite, row: Row, start: str, seed: int, runs_dir: Path) -> Path:
    label = EnvConfig(suite.env, start).label
    return runs_dir / _exp_name(suite, row) / row.algo / label / f"seed{seed}"


def reproduce(
    suite: Suite,
    *,
    runs_dir: Path,
    data_dir: Path,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    groups: Sequence[str] = ("paper",),
    engine: Engine | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> ReproduceResult:
    """Make what is missing of a suite, then the table and the figures of all that is finished.

    Args:
        suite: The suite.
        runs_dir: Where runs go; the results go into a folder there named after the suite.
        data_dir: Where the demonstrations are, or are collected to.
        seeds: Instead of the suite's.
        steps: Env steps per run instead of the suite's.
        groups: Names of the suite's groups; ``all`` stands for all of them.
        engine: Where runs are made; by default on this machine.
        retry_failed: Also start runs that failed before.
        report_only: Start no runs; report those that are finished.
        reporter: Told of all that happens.
        command: What the user typed, kept with the results.

    Raises:
        RlfdError: If a run that is there was made with other steps, or other demonstrations.
        Interrupted: After Ctrl-C.
    """
    reporter = reporter or NullReporter()
    seeds = list(seeds or suite.seeds)
    chosen = _chosen_groups(suite, groups)
    jobs = plan(
        suite, runs_dir=runs_dir, data_dir=data_dir, seeds=seeds, steps=steps, groups=groups
    )
    dataset = _demonstrations(suite, data_dir, reporter)
    _check_existing(jobs, dataset.info.content_hash)
    folder = runs_dir / suite.name / "results"
    results: Sequence[JobResult] = []
    if not report_only:
        results = launch(
            jobs,
            log_dir=folder / "logs",
            engine=engine,
            retry_failed=retry_failed,
            reporter=reporter,
        )
    measured = _measure_rows(suite, chosen, seeds, runs_dir, reporter)
    table = _table(suite, chosen, seeds, measured)
    texts = _text_tables(suite, table)
    drawn = _figures(suite, chosen, seeds, runs_dir, folder, table, command)
    about = {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": command,
        "seeds": seeds,
        "steps": steps or suite.steps,
        "demonstrations": {"name": suite.demos.name, "hash": dataset.info.content_hash},
        "protocol": list(suite.protocol),
    }
    _save(folder, about, table, texts, drawn, results)
    return ReproduceResult(folder, table, texts, drawn, results)


def _check_existing(jobs: Sequence[Job], demos_hash: str) -> None:
    """Refuse runs that are there already and cannot stand in one table with the new ones."""
    for job in jobs:
        run = RunDir(job.run_dir)
        if not run.exists:
            continue
        config = run.config()
        steps = int(job.argv[job.argv.index("--steps") + 1]) if "--steps" in job.argv else None
        if steps is not None and config.steps != steps:
            raise RlfdError(
                f"run folder '{job.run_dir}' holds a run of {config.steps} env steps, "
                f"this suite wants {steps}",
                f"give --steps {config.steps}, or another --runs-dir",
            )
        used = (run.status().get("demos") or {}).get("hash", demos_hash)
        if used != demos_hash:
            raise RlfdError(
                f"run folder '{job.run_dir}' was trained on other demonstrations than those in "
                "the data folder, the two cannot be compared",
                "give the --data-dir that it was made with, or another --runs-dir",
            )


def _demonstrations(suite: Suite, data_dir: Path, reporter: Reporter) -> demos.Demonstrations:
    """Return the suite's demonstrations; collect them if they are missing."""
    wanted = suite.demos
    env = EnvConfig(suite.env, wanted.start)
    if wanted.name in [info.name for info in demos.find(env, data_dir)]:
        found = demos.load(wanted.name, env=env, data_dir=data_dir)
        if len(found.episodes) != wanted.episodes:
            raise RlfdError(
                f"demonstrations '{wanted.name}' have {len(found.episodes)} episodes, "
                f"this suite wants {wanted.episodes}",
                "give another --data-dir",
            )
        return found
    reporter.message(
        f"collecting {wanted.episodes} demonstrations of {suite.env} by its {wanted.policy} "
        f"from start '{wanted.start}' as '{wanted.name}'"
    )
    return demos.collect(
        env,
        demos.make_demonstrator(wanted.policy, env, seed=wanted.seed),
        episodes=wanted.episodes,
        seed=wanted.seed,
        name=wanted.name,
        data_dir=data_dir,
    )


@dataclass(frozen=True)
class _Measured:
    """What one row gives from one start: per measure one number per seed."""

    values: Mapping[str, Sequence[float]]
    note: str


def _rows_of(suite: Suite, groups: Sequence[str]) -> Iterator[Row]:
    for row in suite.rows:
        if set(row.groups) & set(groups):
            yield row


def _measure_rows(
    suite: Suite, groups: Sequence[str], seeds: Sequence[int], runs_dir: Path, reporter: Reporter
) -> dict[tuple[str, str], _Measured]:
    """Return the numbers of every row from every start, by (label, start)."""
    measured = {}
    for row in _rows_of(suite, groups):
        for start in _starts_of(suite, row, groups):
            if row.algo:
                found = _finished(suite, row, start, seeds, runs_dir)
                one = _measured_runs(found, len(seeds))
            elif row.policy:
                reporter.message(f"evaluating {row.label} from start '{start}'")
                one = _measured_policy(EnvConfig(suite.env, start), row.policy, seeds)
            else:
                one = _Measured({}, row.unavailable)
            measured[row.label, start] = one
    return measured


def _finished(
    suite: Suite, row: Row, start: str, seeds: Sequence[int], runs_dir: Path
) -> list[RunDir]:
    runs = [RunDir(_run_folder(suite, row, start, seed, runs_dir)) for seed in seeds]
    return [run for run in runs if run.exists and run.status().get("state") == "finished"]


def _measured_runs(runs: Sequence[RunDir], wanted: int) -> _Measured:
    note = "" if len(runs) == wanted else f"{len(runs)} of {wanted} runs finished"
    if not runs:
        return _Measured({}, note)
    by_seed = [_measure_run(result) for result in load_results(runs)]
    names = [name for name in tables.MEASURES if any(name in values for values in by_seed)]
    return _Measured(
        {name: [values[name] for values in by_seed if name in values] for name in names}, note
    )


def _measure_run(result: RunResult) -> dict[str, float]:
    values = tables.measure(result, "success")
    if not len(result.run.episodes()):  # no training episodes: the evaluation, as in the paper
        values[tables.BEST_TRAINING] = values[f"final, {result.policies[0]}"]
    return values


def _measured_policy(env: EnvConfig, policy: str, seeds: Sequence[int]) -> _Measured:
    """Evaluate a policy that is not trained, over as many episodes per seed as a run is."""
    values = []
    for seed in seeds:
        root = EVAL_SEED_OFFSET + seed  # the start states of the runs' final evaluations
        actor = demos.make_demonstrator(policy, env, seed=root)
        actor.reset(EPISODES)
        starts = derive_many(root, "evaluation final", EPISODES)
        played = envs.play_episodes(env, seeds=starts, act=actor.act)
        values.append(float(np.mean([bool(episode.success) for episode in played])))
    return _Measured({"final, sampled": values, tables.BEST_TRAINING: values}, "")


def _table(
    suite: Suite,
    groups: Sequence[str],
    seeds: Sequence[int],
    measured: Mapping[tuple[str, str], _Measured],
) -> pd.DataFrame:
    rows = []
    for group in groups:
        for start in _group_starts(suite, group):
            for row in _rows_of(suite, [group]):
                one = measured[row.label, start]
                paper = row.paper.get(start, (None, None))
                for name in tables.MEASURES:
                    rows.append(
                        {"group": group, "start": start, "row": row.label, "measure": name}
                        | tables.statistics_row(one.values.get(name, ()))
                        | {
                            "paper": paper[0] if name == tables.BEST_TRAINING else None,
                            "paper_spread": paper[1] if name == tables.BEST_TRAINING else None,
                            "note": "; ".join(text for text in (one.note, row.note) if text),
                        }
                    )
    return pd.DataFrame(rows)


def _text_tables(suite: Suite, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return one table of texts per group and start, by title."""
    titles = {group.name: group.title for group in suite.groups}
    texts = {}
    for (group, start), part in table.groupby(["group", "start"], sort=False):
        env = EnvConfig(suite.env, str(start))
        rows = []
        for label, records in part.groupby("row", sort=False):
            by_name = {str(r["measure"]): r for r in records.to_dict("records")}
            best = by_name[tables.BEST_TRAINING]
            row = {"method": str(label), "n": str(max(r["n"] for r in by_name.values()))}
            row |= {
                name: tables.format_statistics({str(k): v for k, v in r.items()}, "success")
                for name, r in by_name.items()
            }
            if part["paper"].notna().any():
                row["paper"] = "–"
                if pd.notna(best["paper"]):
                    row["paper"] = f"{best['paper']:.2f} ± {best['paper_spread']:.2f}"
            rows.append(row | {"note": str(best["note"])})
        shown = pd.DataFrame(rows)
        if not (shown["note"] != "").any():
            shown = shown.drop(columns="note")
        texts[f"{titles[str(group)]}: {env_title(env)}"] = shown
    return texts


def _figures(
    suite: Suite,
    groups: Sequence[str],
    seeds: Sequence[int],
    runs_dir: Path,
    folder: Path,
    table: pd.DataFrame,
    command: str,
) -> list[figures.FigureFiles]:
    """Draw the suite's figures from the rows that have runs."""
    by_label = {row.label: row for row in suite.rows}
    drawn = []
    for entry in suite.figures:
        if entry.group not in groups:
            continue
        rows = [by_label[label] for label in entry.rows]
        runs = [
            run
            for start in _group_starts(suite, entry.group)
            for row in rows
            for run in _finished(suite, row, start, seeds, runs_dir)
        ]
        if not runs:
            continue
        drawn.append(
            figures.plot_learning_curves(
                runs,
                folder / f"{entry.name}.png",
                metric="success",
                command=command,
                labels={(_exp_name(suite, row), row.algo): row.label for row in rows},
                references=_reference_lines(suite, table),
            )
        )
    return drawn


def _reference_lines(suite: Suite, table: pd.DataFrame) -> dict[str, list[figures.ReferenceLine]]:
    """Return the measured values of the policies that are not trained, by environment label."""
    rows = sorted((row for row in suite.rows if row.policy), key=lambda row: row.policy == "random")
    final = table[table["measure"] == "final, sampled"].drop_duplicates(["start", "row"])
    means = {(str(r["start"]), str(r["row"])): r["mean"] for r in final.to_dict("records")}
    starts = dict.fromkeys(start for start, _ in means)
    return {
        EnvConfig(suite.env, start).label: [
            figures.ReferenceLine(row.label, float(means[start, row.label]))
            for row in rows
            if (start, row.label) in means
        ]
        for start in starts
    }


def _save(
    folder: Path,
    about: dict[str, Any],
    table: pd.DataFrame,
    texts: Mapping[str, pd.DataFrame],
    drawn: Sequence[figures.FigureFiles],
    results: Sequence[JobResult],
) -> None:
    """Write the table as CSV, Markdown and JSON."""
    seeds = ", ".join(map(str, about["seeds"]))
    lines = [f"# {about['title']}", "", f"Paper: {about['paper']}.", ""]
    lines += [*(f"* {line}" for line in about["protocol"]), ""]
    lines += [
        f"Seeds {seeds}, {about['steps']:,} env steps per run unless a row says otherwise, "
        f"demonstrations '{about['demonstrations']['name']}' "
        f"({about['demonstrations']['hash']}). Success rates: mean over seeds ± "
        "standard error, interquartile mean [95 % bootstrap interval over seeds]. The paper's "
        "column is its mean ± spread.",
        "",
    ]
    for title, text in texts.items():
        lines += [f"## {title}", "", tables.markdown(text)]
    for files in drawn:
        lines += [f"![{files.figure.stem}]({files.figure.name})", ""]
    failed = [result for result in results if result.has_failed]
    lines += [f"* failed: `{result.job.command}`: {result.error}" for result in failed]
    if about["command"]:
        lines += ["", f"Made by `{about['command']}`."]
    write_text(folder / "table.md", "\n".join(lines).rstrip() + "\n")
    write_text(folder / "table.csv", table.to_csv(index=False))
    plain = table.astype(object).where(table.notna(), None)
    write_json(
        folder / "table.json",
        about
        | {
            "rows": plain.to_dict("records"),
            "failures": [
                {"run": result.job.name, "exit_code": result.exit_code, "error": result.error}
                for result in failed
            ],
        },
    )
