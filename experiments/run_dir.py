"""The folder of a run: the only module that knows its file names.

{runs_dir}/{exp_name}/{algo}/{env}[-{start}][-{reward}]/seed{seed}/
  config.json        resolved configuration and who set what; written before step 0, never edited
  run.json           identity and state of the run
  train.csv          metrics, one row per log interval
  episodes.csv       one row per training episode
  eval.csv           one row per evaluation episode
  checkpoints/       policy_000010000.safetensors   what acting needs, one per evaluation
                     reward_000010000.safetensors   the learned reward beside it, if there is one
                     resume_000050000/              everything, the newest two
  videos/  tensorboard/  rlfd.log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfd.errors import RlfdError, unknown_name
from rlfd.experiments.config import Resolved, RunConfig
from rlfd.files import (
    file_digest,
    folders_with,
    is_temporary,
    new_temporary,
    remove_temporaries,
    write_json,
)
from rlfd.jsons import Form, read_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CsvLog", "RunDir", "find_run", "find_runs"]

EPISODE_COLUMNS = (
    "env_steps",
    "env_index",
    "episode_return",
    "dense_return",
    "episode_length",
    "terminated",
    "truncated",
    "success",
    "landed",
)
EVAL_COLUMNS = (
    "env_steps",
    "phase",
    "policy",
    "episode",
    "seed",
    "episode_return",
    "dense_return",
    "episode_length",
    "terminated",
    "truncated",
    "success",
    "landed",
)
TEXTS = ("phase", "policy")
"""Columns that hold no numbers."""
TRAIN_COLUMNS = (
    "env_steps",
    "updates",
    "wall_seconds",
    "time/env",
    "time/act",
    "time/sample",
    "time/update",
)

NONE = type(None)
RECORD = ({"digest": str, "checkpoint": int, "queries": int, "run": str}, NONE)
RESULTS = {
    "step": int,
    "*": {"*": (float, NONE)},
}
STATUS: Form = {
    "state": str,
    "algo": str,
    "env": str,
    "start": str,
    "reward": str,
    "env_steps": int,
    "updates": int,
    "epochs": (int, NONE),
    "wall_seconds": float,
    "error": (str, NONE),
    "final": ({"*": RESULTS}, NONE),
    "files": ({"*": str}, NONE),
    "demos": ({"name": str, "hash": str}, NONE),
    "init": RECORD,
    "demonstrator": RECORD,
    "labels": ({"name": str}, NONE),
    "reward_from": RECORD,
    "made_by": [{}],
    "warnings": [str],
}
"""What run.json holds."""
PROVENANCE: Form = {"provenance": {"*": str}}


class CsvLog:
    """A CSV file with a fixed header that grows by whole rows.

    Args:
        path: Created with its header if missing.
        columns: The header. A file that was begun with another one keeps that.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, list(columns)
        # Unbuffered: what could not be written must not be tried again when the file is closed.
        self._stream = open(path, "ab", buffering=0)  # noqa: SIM115
        if self.size() == 0:
            self._append(",".join(self._columns) + "\n")
        else:  # perhaps by an older version, before a column was added
            with open(path, encoding="utf-8", errors="replace") as stream:  # `check` sees damage
                self._columns = stream.readline().rstrip("\n").split(",")

    def size(self) -> int:
        """Length in bytes of everything written so far."""
        return os.fstat(self._stream.fileno()).st_size

    def digest(self, size: int | None = None) -> str:
        """Return the SHA-256 of the first `size` bytes; None = of all."""
        return file_digest(self._path, size)

    def check(self, size: int, digest: str | None) -> None:
        """See whether the first `size` bytes are those that a checkpoint was written beside.

        Raises:
            RlfdError: If there is less than that, or something else.
        """
        hint = "restore it, or start the run anew with --overwrite"
        if self.size() < size:
            raise RlfdError(
                f"{self._path} has {self.size()} bytes, expected at least {size}: "
                "it was cut since the checkpoint was written",
                hint,
            )
        if digest is not None and self.digest(size) != digest:
            raise RlfdError(
                f"{self._path} was changed since the checkpoint was written, its first {size} "
                "bytes are others now",
                hint,
            )

    def truncate(self, size: int) -> None:
        """Forget everything after the first `size` bytes (0 = all rows, the header stays)."""
        os.ftruncate(self._stream.fileno(), size)
        if size == 0:
            self._append(",".join(self._columns) + "\n")

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows; every column must be there.

        Raises:
            OSError: If the disk is full; nothing of these rows is left behind then.
        """
        lines = [",".join(_cell(row[name]) for name in self._columns) for row in rows]
        if lines:
            self._append("\n".join(lines) + "\n")

    def _append(self, text: str) -> None:
        before, rest = self.size(), text.encode()
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._stream.fileno(), before)
            raise

    def sync(self) -> None:
        """Flush to the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)


class RunDir:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunDir) and self.path.resolve() == other.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    @classmethod
    def of(cls, config: RunConfig, runs_dir: Path) -> RunDir:
        """Return where a run of this configuration belongs."""
        folder = runs_dir / config.exp_name / config.algo / config.env.label
        return cls(folder / f"seed{config.seed}")

    @property
    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.path / "config.json").is_file()

    @property
    def holds_strays(self) -> bool:
        """Whether there are files here that belong to no run."""
        if self.exists or not self.path.is_dir():
            return False
        stray = (path for path in self.path.rglob("*") if not path.is_dir())
        return any(path.name != ".lock" and not is_temporary(path) for path in stray)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def videos(self) -> Path:
        """Folder of the videos."""
        return self.path / "videos"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def log_file(self) -> Path:
        """File that messages go to."""
        return self.path / "rlfd.log"

    def create(self, resolved: Resolved) -> None:
        """Make the folder and write the configuration.

        Raises:
            RlfdError: If the folder cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            write_json(
                self.path / "config.json",
                {**resolved.config.to_json(), "provenance": resolved.provenance},
            )
        except OSError as error:
            raise RlfdError(
                f"cannot write run folder {self.path}: {error.strerror}",
                "choose another place with --runs-dir",
            ) from error

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Begin the folder anew, and hold it; the caller holds the old one.

        Whoever is killed here leaves the old run whole, or none.
        """
        old = new_temporary(self.path)
        os.rename(self.path, old)
        with self.lock():
            shutil.rmtree(old, ignore_errors=True)
            yield

    def remove_temporaries(self) -> None:
        """Remove what a killed process left half-written; the caller holds the lock."""
        remove_temporaries(self.path)
        remove_temporaries(self.path.parent, self.path.name)

    def config(self) -> RunConfig:
        """Read the configuration.

        Raises:
            RlfdError: If it is missing or unreadable.
        """
        value = self._read_json("config.json", {})
        value.pop("provenance", None)
        return RunConfig.from_json(value, str(self.path / "config.json"))

    def provenance(self) -> dict[str, str]:
        """Read which layer set each field."""
        return dict(self._read_json("config.json", PROVENANCE).get("provenance", {}))

    def status(self) -> dict[str, Any]:
        """Read run.json; a run that was killed before writing it counts as interrupted."""
        if not (self.path / "run.json").is_file():
            return {"state": "interrupted", "env_steps": 0, "updates": 0}
        status = {"env_steps": 0, "updates": 0, **self._read_json("run.json", STATUS)}
        if "state" not in status:
            raise RlfdError(
                f"{self.path / 'run.json'} does not say how the run is", "the run folder is damaged"
            )
        if status["state"] == "running" and not self.is_locked():
            status["state"] = "interrupted"  # killed: nobody was there to say so
        return status

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", dict(status))

    def digests(self, pattern: str = "*") -> dict[str, str]:
        """Return the SHA-256 of each file that holds a result, by its place in the folder."""
        paths = [*self.path.glob("*.csv"), *self.checkpoints.glob("*.safetensors")]
        places = {str(path.relative_to(self.path)): path for path in sorted(paths)}
        return {
            place: file_digest(path)
            for place, path in places.items()
            if fnmatch(place, pattern) and not is_temporary(path)
        }

    def check_results(self, pattern: str = "*") -> None:
        """Compare files of a finished run with what they were when it finished.

        Args:
            pattern: Which, of their places in the folder.

        Raises:
            RlfdError: Names those that are missing or others now.
        """
        written = self.status().get("files") or {}  # of an older run nobody knows
        now = self.digests(pattern)
        wrong = [
            f"{place} {'was changed' if place in now else 'is missing'}"
            for place, digest in written.items()
            if fnmatch(place, pattern) and now.get(place) != digest
        ]
        if wrong:
            raise RlfdError(
                f"run {self.path} was damaged since it finished: {', '.join(wrong)}",
                "restore what is damaged, choose another step (--checkpoint), or make the run "
                "again with --overwrite",
            )

    def _read_json(self, name: str, form: Form) -> dict[str, Any]:
        try:
            value: dict[str, Any] = read_json(self.path / name, form)
        except (OSError, ValueError) as error:
            raise RlfdError(
                f"cannot read {self.path / name}: {error}", "the run folder is damaged"
            ) from error
        return value

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system frees it when the process ends.

        Raises:
            RlfdError: If another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a", encoding="utf-8") as stream:
            for attempts_left in (2, 1, 0):
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if not attempts_left:
                        raise RlfdError(
                            f"run {self.path} is being worked on by another process",
                            "wait for it, or choose another --seed or --exp-name",
                        ) from error
                    time.sleep(0.02)  # somebody may only have been asking `is_locked`
            yield

    def is_locked(self) -> bool:
        """Whether a process is working on the run."""
        try:
            with open(self.path / ".lock", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # no lock, so nobody ever worked on it
        return False

    def open_train_log(self, metrics: Sequence[str]) -> CsvLog:
        """Open train.csv."""
        return CsvLog(self.path / "train.csv", [*TRAIN_COLUMNS, *metrics])

    def open_episode_log(self) -> CsvLog:
        """Open episodes.csv."""
        return CsvLog(self.path / "episodes.csv", EPISODE_COLUMNS)

    def open_eval_log(self) -> CsvLog:
        """Open eval.csv."""
        return CsvLog(self.path / "eval.csv", EVAL_COLUMNS)

    def train(self) -> pd.DataFrame:
        """Read train.csv."""
        return self._read_csv("train.csv", "env_steps")

    def episodes(self) -> pd.DataFrame:
        """Read episodes.csv."""
        return self._read_csv("episodes.csv", "env_steps", "episode_return", "success")

    def evaluations(self) -> pd.DataFrame:
        """Read eval.csv."""
        needed = ("env_steps", "phase", "policy", "episode_return", "success")
        return self._read_csv("eval.csv", *needed)

    def _read_csv(self, name: str, *needed: str) -> pd.DataFrame:
        import pandas as pd

        try:
            table = pd.read_csv(self.path / name)
        except (OSError, ValueError, OverflowError) as error:
            raise RlfdError(
                f"cannot read {self.path / name}: {error}", "the run may not have started yet"
            ) from error
        missing = [column for column in needed if column not in table]
        if missing:
            problem = f"it has no column {', '.join(missing)}"
        else:
            columns = {name: table[name] for name in table if name not in TEXTS}
            # an empty column has no type of its own
            odd = [n for n, c in columns.items() if c.dtype.kind not in "iufb" and c.notna().any()]
            if not odd:
                return table
            problem = f"its column {', '.join(map(str, odd))} holds something else than numbers"
        raise RlfdError(f"cannot read {self.path / name}: {problem}", "the run folder is damaged")


def episode_row(record: Any) -> dict[str, Any]:
    """Return a finished training episode as a row of episodes.csv."""
    return {name: value for name, value in asdict(record).items() if name in EPISODE_COLUMNS}


def find_runs(texts: Sequence[str | Path], runs_dir: Path) -> list[RunDir]:
    """Find the runs at or below folders; each may be given relative to `runs_dir` too.

    Raises:
        RlfdError: If there is none; names the nearest.
    """
    found: dict[Path, RunDir] = {}
    for text in texts or [runs_dir]:
        for base in (Path(text), runs_dir / text, runs_dir / "default" / text):
            runs = list(folders_with(base, "config.json"))
            if runs:
                found.update({path.resolve(): RunDir(path) for path in runs})
                break
        else:
            runs = list(folders_with(runs_dir, "config.json"))
            known = [str(path.relative_to(runs_dir)) for path in runs]
            raise unknown_name("run", str(text), sorted(known), "list them with 'rlfd list runs'")
    return list(found.values())


def find_run(text: str | Path, runs_dir: Path) -> RunDir:
    """Find exactly one run.

    Raises:
        RlfdError: If there is none, or several.
    """
    runs = find_runs([text], runs_dir)
    if len(runs) > 1:
        names = ", ".join(str(run.path) for run in runs[:4])
        raise RlfdError(f"'{text}' holds {len(runs)} runs ({names}, ...)", "name one of them")
    return runs[0]
