"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlfd.errors import RlfdError
from rlfd.jsons import parse_json

__all__ = [
    "ActionRange",
    "AllowImport",
    "DataDir",
    "Debug",
    "Env",
    "EnvOptions",
    "FrameStack",
    "Json",
    "MaxEpisodeSteps",
    "NoProgress",
    "Quiet",
    "Reward",
    "RunsDir",
    "Verbose",
    "allowing",
    "complete_env",
    "env_form",
    "examples",
    "finite",
    "given",
    "parse_checkpoint",
    "parse_count",
    "parse_demonstrator",
    "parse_env_options",
    "parse_episodes",
    "parse_positive",
    "parse_run",
    "parse_seeds",
    "policy_mode",
    "typed_env",
    "with_limit",
]

MOST_EPISODES = 10**6
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_COUNT = re.compile(r"(?P<number>\d[\d_]*(\.\d+)?(e\+?\d{1,2})?)(?P<suffix>[kmb]?)")


def parse_count(text: str | int) -> int:
    """Return the whole number that `text` stands for: ``1e6``, ``10_000``, ``2.5M``, ``60k``."""
    match = _COUNT.fullmatch(str(text).strip().lower())
    number = math.inf
    if match is not None and match["number"].isascii():
        number = float(match["number"].replace("_", "")) * _SUFFIXES[match["suffix"]]
    if not number <= 10**15 or number != int(number):
        raise typer.BadParameter(f"'{text}' is not a whole number such as 60000, 60k, 1e6 or 2.5M.")
    return int(number)


def parse_positive(text: str | int) -> int:
    """As `parse_count`, and refuse 0."""
    number = parse_count(text)
    if number == 0:
        raise typer.BadParameter("expected at least 1.")
    return number


def parse_episodes(text: str | int) -> int:
    """As `parse_positive`, and refuse more than anybody can keep."""
    number = parse_positive(text)
    if number > MOST_EPISODES:
        raise typer.BadParameter(f"expected at most {MOST_EPISODES:,}.")
    return number


def finite(number: float | None) -> float | None:
    """Refuse infinities and what is no number, which Python reads as numbers."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number.")
    return number


def parse_checkpoint(text: str) -> str:
    """Return ``latest`` or ``best`` as they are, and a step such as ``20k`` in digits."""
    try:
        return str(parse_count(text))
    except typer.BadParameter:
        return text


def parse_run(text: str) -> str:
    """Return ``RUN`` or ``RUN:CHECKPOINT`` with a step such as ``20k`` in digits."""
    name, colon, checkpoint = text.rpartition(":")
    return f"{name}:{parse_checkpoint(checkpoint)}" if colon else text


def parse_demonstrator(text: str) -> str:
    """Return ``shipped[:STRENGTH]``, or what `parse_run` makes of a run."""
    return text if text.partition(":")[0] == "shipped" else parse_run(text)


def policy_mode(greedy: bool | None) -> str | None:
    """Return what ``--greedy`` and ``--sampled`` mean; None when neither was given."""
    return None if greedy is None else "greedy" if greedy else "sampled"


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that ``0-4`` or ``0,2,5-7`` name, in order and without repetition."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low = int(first) if first.isdecimal() else -1
        high = (int(last) if last.isdecimal() else -1) if dash else low
        if not 0 <= low <= high < low + 10_000:
            raise RlfdError(
                f"cannot read '{text}' as seeds", "write for example --seeds 3, 0-4 or 0,2,5-7"
            )
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def parse_env_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return what repeated ``key=value`` mean; values are JSON where they can be read so."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RlfdError(
                f"cannot read the environment option '{text}', expected key=value",
                "write for example --env-option push_scale=0.1",
            )
        try:
            options[key.strip()] = parse_json(value)
        except ValueError:
            options[key.strip()] = value
    return options


def with_limit(options: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """Return the options of an environment whose episodes are cut after `limit` steps."""
    return dict(options) if limit is None else {**options, "max_episode_steps": limit}


def env_form(action_range: tuple[float, float] | None, frame_stack: int | None) -> dict[str, Any]:
    """Return what was said of how an environment is to be seen, as fields of its config."""
    return given({"action_range": action_range, "frame_stack": frame_stack})


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were set on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def allowing(env: str) -> list[str]:
    """Return the words that a command needs which finds an environment's name in a file."""
    return [word for package in _packages(env) for word in ("--allow-import", package)]


def _packages(env: str) -> list[str]:
    """Return the package in the name of an environment, or none."""
    return [package] if (package := env.rpartition(":")[0].partition(".")[0]) else []


def examples(*lines: str) -> str:
    """Return the end of a command's help: one example per line."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  $ {line}" for line in lines)])


def complete_env(incomplete: str) -> list[str]:
    """Complete the name of an environment."""
    from rlfd import envs

    return [name for name in envs.names() if name.startswith(incomplete)]


def typed_env(name: str | None) -> str | None:
    """Let the package of an environment that was typed be imported, for names in files as well."""
    allow_imports(_packages(name or ""))
    return name


def allow_imports(names: list[str] | None) -> list[str] | None:
    """Let names of environments that come from files import these packages."""
    if names:
        from rlfd import envs

        envs.allow_import(*names)
    return names


Env = Annotated[
    str,
    typer.Option(
        "--env",
        callback=typed_env,
        help="Short name ('rlfd list envs') or any Gymnasium id, PACKAGE:ID of other packages.",
        rich_help_panel="Environment",
        autocompletion=complete_env,
        show_default=False,
    ),
]
Reward = Annotated[
    str,
    typer.Option(
        "--reward",
        help="What is paid: dense, sparse, beyond, delay-K ('rlfd list envs').",
        rich_help_panel="Environment",
    ),
]
EnvOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--env-option",
        metavar="KEY=VALUE",
        help="Option of the environment; repeat for more.",
        rich_help_panel="Environment",
    ),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        callback=allow_imports,
        metavar="PACKAGE",
        help="Import this package where a file names an environment PACKAGE:ID; repeat for more. "
        "What is typed after --env needs no permission.",
        rich_help_panel="Environment",
    ),
]
MaxEpisodeSteps = Annotated[
    int | None,
    typer.Option(
        "--max-episode-steps",
        parser=parse_positive,
        metavar="N",
        help="Cut episodes after N steps. For Gymnasium ids; left out: as it was registered.",
        rich_help_panel="Environment",
    ),
]
ActionRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--action-range",
        metavar="LOW HIGH",
        help="Choose continuous actions from here, where the environment's own range is not "
        "finite, or wider than it has to be.",
        rich_help_panel="Environment",
    ),
]
FrameStack = Annotated[
    int | None,
    typer.Option(
        "--frame-stack",
        min=1,
        metavar="N",
        help="Show the last N images as one. Left out: each alone.",
        rich_help_panel="Environment",
    ),
]
RunsDir = Annotated[
    Path,
    typer.Option(
        "--runs-dir",
        envvar="RLFD_RUNS_DIR",
        help="Where the folders of runs are.",
        rich_help_panel="Folders",
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="RLFD_DATA_DIR",
        help="Where demonstrations are.",
        rich_help_panel="Folders",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on stdout instead.", rich_help_panel="Output"
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress and no hints.", rich_help_panel="Output"),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Show log lines instead of the progress bar.",
        rich_help_panel="Output",
    ),
]
NoProgress = Annotated[
    bool,
    typer.Option(
        "--no-progress",
        help="Show plain lines instead of the progress bar.",
        rich_help_panel="Output",
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output"),
]
