"""What the commands print: results on stdout, progress, messages and errors on stderr."""

from __future__ import annotations

import errno
import json
import logging
import math
import shlex
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rlfd.cli import results
from rlfd.experiments.report import NullReporter, Reporter

__all__ = [
    "Output",
    "PlainReporter",
    "RichReporter",
    "command_line",
    "duration",
    "number",
    "print_error",
    "print_traceback",
    "share",
]

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal
REFRESHES_PER_SECOND = 4.0


class _Console(Console):
    """A console that tells when its pipe was closed, and lets no text steer the terminal."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "stdout was closed")

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """Return what is printed, without control characters in its texts."""
        return (_harmless(segment) for segment in super().render(*args, **kwargs))


def _harmless(segment: Segment) -> Segment:
    """Show control characters of a text instead of sending them; Rich's own are no texts."""
    text, style, control = segment
    if control or text.isprintable():
        return segment
    return Segment("".join(c if c.isprintable() or c in "\n\t" else "�" for c in text), style)


def _console(*, stderr: bool) -> Console:
    file = None if stderr else results.stream()
    console = _Console(file=file, stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000  # tables in a pipe are not cut to the width of a screen
    return console


def number(value: float | None) -> str:
    """Return `value` short enough for a table: a dash for none, four significant digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Return a rate for a table, a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return a time as people say it: ``8 s``, ``3:05 min``, ``2:10 h``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def command_line(*words: str | Path | int) -> str:
    """Return a command that can be copied into a shell."""
    return shlex.join(str(word) for word in words)


def jsonable(value: Any) -> Any:
    """Return `value` as JSON can write it: no NaN, plain numbers, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _count(many: int, unit: str) -> str:
    return f"{many:,} {unit.removesuffix('s') if many == 1 else unit}"


def _rate(speed: float) -> str:
    """Return units per second, or per minute where that is what one can read."""
    slow = 0 < speed < 0.1
    return f"{number(round(60 * speed, 1))}/min" if slow else f"{number(round(speed, 1))}/s"


def _values_text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())


class _Lines:
    """Messages and warnings as lines on stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_warning = ""

    def message(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        if text == self._last_warning:
            return  # what is reported is often logged too, for the log file of the run
        self._last_warning = text
        self._console.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


class PlainReporter(_Lines):
    """Lines for log files: the start, the end and one line every ten seconds between."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._active = False
        self._task, self._unit = "", ""
        self._total = self._first = self._done = 0
        self._values: Mapping[str, float] = {}
        self._started = self._printed = 0.0

    def start(self, task: str, total: int, done: int, unit: str) -> None:
        """End the task before, if there is one, and begin another."""
        self.finish()
        self._active = True
        self._task, self._total, self._first, self._done, self._unit = task, total, done, done, unit
        self._values = {}
        self._started = self._printed = time.monotonic()
        many = _count(total, unit) if total else f"as many {unit} as it takes"
        already = f", {done:,} made before" if done else ""
        self.message(f"{task}: {many}{already}")

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Print a line when ten seconds have passed since the last one."""
        self._done = done
        self._values = {**self._values, **values}
        now = time.monotonic()
        if now - self._printed < PLAIN_SECONDS:
            return
        self._printed = now
        speed = (done - self._first) / (now - self._started)
        parts = [_count(done, self._unit), _rate(speed)]
        if self._total:
            parts.insert(0, f"{min(done / self._total, 1):.0%}")
        if self._total and done <= self._total:  # an iteration is not cut short
            left = duration((self._total - done) / speed) if speed > 0 else "unknown time"
            parts.append(f"{left} left")
        self.message(f"{self._task}: {', '.join(parts)}  {_values_text(self._values)}".rstrip())

    def finish(self) -> None:
        """Print the last line, once."""
        if not self._active:
            return
        self._active = False
        seconds = time.monotonic() - self._started
        self.message(
            f"{self._task}: {_count(self._done, self._unit)} in {duration(seconds)}  "
            f"{_values_text(self._values)}".rstrip()
        )


class _Speed(ProgressColumn):
    """Units per second and the time that is left."""

    def render(self, task: Task) -> Text:
        """Return the text of one refresh."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        known = task.time_remaining is not None and task.time_remaining >= 0
        left = f", {duration(task.time_remaining or 0)} left" if known else ""
        return Text(f"{_rate(speed)}{left}", style="cyan")


class _Bar(Progress):
    """A progress bar with a second line for the count and the newest values."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the two lines."""
        yield from super().get_renderables()
        for task in self.tasks:
            total = "" if task.total is None else f" of {task.total:,.0f}"
            yield Text(
                f"  {task.completed:,.0f}{total} {task.fields['unit']}  "
                f"{task.fields['values']}".rstrip(),
                style="green",
                no_wrap=True,
                overflow="ellipsis",
            )


class RichReporter(_Lines):
    """One progress bar with the newest values, redrawn at most four times a second."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._values: Mapping[str, float] = {}

    def start(self, task: str, total: int, done: int, unit: str) -> None:
        """Leave the bar of the task before, if there is one, and draw another."""
        self.finish()
        self._values = {}
        self._progress = _Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            _Speed(),
            console=self._console,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            task, total=total or None, completed=done, unit=unit, values=""
        )

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Move the bar; the next refresh shows it."""
        if self._progress is None or self._task is None:
            return
        self._values = {**self._values, **values}
        self._progress.update(self._task, completed=done, values=_values_text(self._values))

    def finish(self) -> None:
        """Leave the bar as it is and go on below it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None


class _LogHandler(logging.Handler):
    """Log lines through the console, so that they do not tear the progress bar."""

    def __init__(self, lines: _Lines, level: int) -> None:
        super().__init__(level)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._lines.warning(text)
        else:
            self._lines.message(text)


class Output:
    """Where one command prints, as its options say.

    Args:
        json: One JSON object on stdout instead of text.
        quiet: Nothing on stderr but errors.
        verbose: Log lines, and no progress bar between them.
        no_progress: Plain lines instead of the bar.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        no_progress: bool = False,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self._stdout = _console(stderr=False)
        stderr = _console(stderr=True)
        lines: PlainReporter | RichReporter = (
            RichReporter(stderr)
            if stderr.is_terminal and not verbose and not no_progress
            else PlainReporter(stderr)
        )
        self.reporter: Reporter = NullReporter() if quiet else lines
        level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
        self._handle_logs(_LogHandler(lines, level), capture_warnings=verbose)

    @staticmethod
    def _handle_logs(handler: logging.Handler, *, capture_warnings: bool) -> None:
        for name in ("rlfd", "py.warnings"):
            logger = logging.getLogger(name)
            for old in list(logger.handlers):
                if isinstance(old, _LogHandler | logging.NullHandler):
                    logger.removeHandler(old)
            logger.setLevel(logging.INFO)
        logging.getLogger("rlfd").addHandler(handler)
        # Libraries warn about themselves; users see that only when they ask for it.
        logging.captureWarnings(True)
        warnings_logger = logging.getLogger("py.warnings")
        warnings_logger.propagate = False
        warnings_logger.addHandler(handler if capture_warnings else logging.NullHandler())

    def result(self, value: Mapping[str, Any]) -> None:
        """Print the one JSON object of ``--json``."""
        self._stdout.out(json.dumps(jsonable(value), indent=2, allow_nan=False), highlight=False)

    def line(self, text: str) -> None:
        """Print a line of results."""
        self._stdout.print(text, soft_wrap=True)

    def text(self, text: str) -> None:
        """Print text as it is."""
        self._stdout.out(text, highlight=False)

    def fields(self, rows: Mapping[str, str]) -> None:
        """Print names and values below each other."""
        width = max(map(len, rows))
        for name, value in rows.items():
            self._stdout.print(
                Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True
            )

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table; columns whose name starts with ``>`` are aligned to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            right = name.startswith(">")
            table.add_column(
                name.lstrip(">"), justify="right" if right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*row)
        self._stdout.print(table)

    def message(self, text: str) -> None:
        """Tell something on stderr, unless ``--quiet`` is set."""
        self.reporter.message(text)

    def next_commands(self, *commands: str) -> None:
        """Tell on stderr what one does next."""
        for index, command in enumerate(commands):
            self.reporter.message(("next:  " if index == 0 else "       ") + command)


def print_error(message: str, hint: str = "", *, label: str = "error: ") -> None:
    """Print an error and what to do about it on stderr, in red on terminals."""
    console = _console(stderr=True)
    console.print(Text.assemble((label, "bold red"), (message, "red")), soft_wrap=True)
    if hint:
        console.print(hint, soft_wrap=True)


def print_traceback(error: BaseException) -> None:
    """Print where an error came from."""
    _console(stderr=True).out("".join(traceback.format_exception(error)).rstrip(), highlight=False)
