"""Measures speed and memory: `make bench`, or `python benchmarks/run.py --quick`.

Prints tables and writes them to build/bench/ as results.md, with all numbers in results.json. A
slow result is a result: the exit code is 0 whatever was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import ourselves
import peers
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "bench"
BUSY = 0.95

console = Console(stderr=True)


@dataclass
class Section:
    """A table of the report, with notes below it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the section as it goes into a README."""
        lines = ["| " + " | ".join(self.columns) + " |"]
        lines.append("| --- " + "| ---: " * (len(self.columns) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, "", *self.notes, ""])

    def table(self) -> Table:
        """Return the section as it goes to a terminal."""
        table = Table(
            title=self.title,
            title_justify="left",
            caption="\n".join(self.notes) or None,
            caption_justify="left",
        )
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in self.rows:
            table.add_row(*row)
        return table


def environments(folder: Path, comparisons: Sequence[peers.Comparison]) -> dict[str, Path]:
    """Return the peers' interpreters; a peer that cannot be installed is left out, and said so."""
    names = {c.peer for comparison in comparisons for c in comparison.contenders if c.peer}
    found = {}
    for name in sorted(names):
        console.print(f"environment of {name} (made once, takes minutes)")
        try:
            found[name] = peers.make_environment(name, folder / name)
        except (OSError, subprocess.CalledProcessError) as error:
            console.print(f"[yellow]cannot install {name}, leaving it out: {error}")
    return found


def comparison_section(comparison: peers.Comparison, rates: list[peers.Rate]) -> Section:
    unit = "updates/s" if comparison.unit == "updates" else "env steps/s"
    section = Section(
        comparison.title,
        ["", unit, "range", "x peer, same envs", "x peer, 1 env", "needed"],
    )
    theirs = {r.contender.num_envs: r.per_second for r in rates if r.contender.peer}

    def times(rate: peers.Rate, num_envs: int) -> str:
        if rate.contender.peer or num_envs not in theirs:
            return ""
        return f"{rate.per_second / theirs[num_envs]:.2f}"

    for rate in rates:
        section.rows.append(
            [
                rate.contender.label,
                f"{rate.per_second:,.0f}",
                f"{rate.low:,.0f}-{rate.high:,.0f}",
                times(rate, rate.contender.num_envs),
                times(rate, 1),
                "" if rate.contender.peer else f"{rate.contender.needed or comparison.needed:g}",
            ]
        )
    enough = BUSY * comparison.setup.get("threads", 1)
    busy = [r.contender.label for r in rates if r.cpu_share < enough]
    if busy:
        section.notes.append(
            f"The machine was busy: less than {enough:.0%} of a processor for {', '.join(busy)}."
        )
    return section


def pieces_section(pieces: dict[str, dict[str, float]]) -> Section:
    section = Section(
        "Pieces (one update alone; one call of the policy)",
        ["", "compiled, updates/s", "eager, updates/s", "act on 1, us", "act on 16, us"],
    )
    keys = ("updates_per_second_compiled", "updates_per_second_eager", "act_1_us", "act_16_us")
    for name, piece in pieces.items():
        section.rows.append([name, *(f"{piece[key]:,.0f}" for key in keys)])
        if "products_us" in piece:
            section.notes.append(
                f"{name}: the matrix products of one update alone take "
                f"{piece['products_us']:,.0f} us ({1e6 / piece['products_us']:,.0f} updates/s)."
            )
    return section


def runs_section(runs: list[ourselves.DefaultRun]) -> Section:
    columns = ["", "env steps/s", "updates/s", *runs[0].shares, "peak MB", "with children"]
    section = Section("Default runs on LunarLander: rates, shares of time, memory", columns)
    for run in runs:
        section.rows.append(
            [
                f"{run.algo}, {run.num_envs} envs",
                f"{run.env_steps_per_second:,.0f}",
                f"{run.updates_per_second:,.0f}",
                *(f"{share:.0%}" for share in run.shares.values()),
                f"{run.peak_mb:,.0f}",
                f"{run.peak_tree_mb:,.0f}",
            ]
        )
    section.notes.append(
        f"{runs[0].steps:,} steps each; memory needed: below 700 MB. Children: the C++ compiler."
    )
    return section


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="only ourselves")
    parser.add_argument("--no-runs", dest="runs", action="store_false", help="no default runs")
    parser.add_argument(
        "--only", metavar="WORDS", help="nothing but the comparisons whose titles begin with WORDS"
    )
    parser.add_argument(
        "--peers-dir",
        type=Path,
        default=ROOT / "build" / "peers",
        help="virtual environments of the peers (default: build/peers)",
    )
    options = parser.parse_args(arguments)
    if not chosen_by(options):
        titles = "; ".join(comparison.title for comparison in peers.COMPARISONS)
        parser.error(f"no comparison begins with '{options.only}', there are: {titles}")
    return options


def chosen_by(options: argparse.Namespace) -> list[peers.Comparison]:
    """Return the comparisons that were asked for, all of them if none was."""
    return [c for c in peers.COMPARISONS if c.title.startswith(options.only or "")]


def alone(options: argparse.Namespace, results: dict[str, Any]) -> list[Section]:
    """Measure ourselves, without any peer."""
    sections: list[Section] = []
    console.print("pieces")
    cases = {
        "sqil, default": {"algo": "sqil", "setup": None},
        "dqn, default": {"algo": "dqn", "setup": None},
        "SQIL as above": {"algo": "sqil", "setup": peers.SQIL},
        "DQN as above": {"algo": "dqn", "setup": peers.DQN},
    }
    results["pieces"] = ourselves.pieces(cases)
    sections.append(pieces_section(results["pieces"]))

    if options.runs:
        steps = 20_000 if options.quick else 60_000
        runs = []
        for algo in ("sqil", "dqn"):
            console.print(f"default run of {algo}")
            runs.append(ourselves.default_run(algo, steps, OUT))
        results["runs"] = [asdict(run) for run in runs]
        sections.append(runs_section(runs))

    results["help_seconds"] = ourselves.help_seconds(3 if options.quick else 7)
    sections.append(
        Section(
            "Start-up",
            ["", "seconds", "needed"],
            [["rlfd --help", f"{results['help_seconds']:.2f}", "0.5"]],
        )
    )
    return sections


def main() -> None:
    options = parse()
    OUT.mkdir(parents=True, exist_ok=True)
    host = machine()
    sections: list[Section] = []
    results: dict[str, Any] = {"machine": host, "comparisons": []}

    chosen = chosen_by(options)
    pythons = environments(options.peers_dir, chosen if options.peers else [])
    turns, seconds = (2, 1.5) if options.quick else (5, 3.0)
    for comparison in chosen:
        rates = peers.compare(
            comparison, pythons, turns=turns, seconds=seconds, logs=OUT, say=console.print
        )
        sections.append(comparison_section(comparison, rates))
        results["comparisons"].append(
            {
                "title": comparison.title,
                "setup": comparison.setup,
                "rates": list(map(asdict, rates)),
            }
        )

    if options.only is None:
        sections += alone(options, results)

    heading = (
        f"{host['cpu']}, {host['cores']} cores, one torch thread each, Python {host['python']}, "
        f"torch {host['torch']}, {host['date']}"
    )
    report = "\n".join([heading, "", *(section.markdown() for section in sections)])
    (OUT / "results.md").write_text(report, encoding="utf-8")
    (OUT / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    out = Console()
    out = out if out.is_terminal else Console(width=110)
    out.print(heading)
    for section in sections:
        out.print(section.table())
    console.print(f"written to {OUT}/results.md and results.json")


if __name__ == "__main__":
    main()
