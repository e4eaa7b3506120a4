"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "check_writable",
    "file_digest",
    "folders_with",
    "fsync_folder",
    "fsync_path",
    "is_temporary",
    "new_temporary",
    "publish_folder",
    "remove_temporaries",
    "sweep",
    "usual_mode",
    "write_json",
    "write_text",
]

STALE_SECONDS = 3600.0

logger = logging.getLogger("rlfd.files")


def fsync_path(path: Path) -> None:
    """Flush one file, or the names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush every file below `folder`, and the folders themselves, to the disk."""
    for directory, _, files in os.walk(folder, topdown=False):
        for name in [*files, "."]:
            fsync_path(Path(directory, name))


def file_digest(path: Path, size: int | None = None) -> str:
    """Return the SHA-256 of the first `size` bytes of a file; None = of all."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with open(path, "rb") as stream:
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def new_temporary(final: Path) -> Path:
    """Return a free, hidden path beside `final`, on the same file system."""
    return final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.tmp"


def check_writable(final: Path) -> None:
    """Find out whether `final` can be written, and leave nothing behind.

    Raises:
        OSError: If its folder cannot be made or written, or a name is too long.
    """
    made = [folder for folder in final.parents if not folder.exists()]
    temporary = new_temporary(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # another process may use it by now
                folder.rmdir()


def usual_mode() -> int:
    """Return the mode that new files get."""
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask


def is_temporary(path: Path) -> bool:
    """Whether some part of a path is a name of `new_temporary`."""
    return any(part.startswith(".") and part.endswith(".tmp") for part in path.parts)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what killed writers left in `folder`, of the file or folder `name` or of all.

    Nobody may be writing there now.
    """
    for path in _temporaries(folder, name):
        _remove(path)


def sweep(folder: Path, name: str = "*") -> None:
    """The same where somebody may be writing: what is old stays behind, writing takes seconds."""
    for path in _temporaries(folder, name):
        with contextlib.suppress(FileNotFoundError):  # another writer has just finished
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                _remove(path)


def _temporaries(folder: Path, name: str) -> Iterator[Path]:
    return folder.glob(".*.tmp" if name == "*" else f".{glob.escape(name)}.*.tmp")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def folders_with(root: Path, name: str) -> Iterator[Path]:
    """Yield every folder at or below `root` that has an entry called `name`, sorted.

    Links are followed, but no folder is looked into twice; what is hidden below `root` is left out,
    and so is, with a warning, what cannot be read.
    """
    seen: set[Path] = set()

    def look(folder: Path) -> Iterator[Path]:
        if folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        try:
            has_it, paths = (folder / name).exists(), sorted(folder.iterdir())
            below = [path for path in paths if not path.name.startswith(".") and path.is_dir()]
        except OSError as error:  # not ours to read
            logger.warning("cannot look into %s: %s", folder, error.strerror)
            return
        if has_it:
            yield folder
        for path in below:
            yield from look(path)

    if root.is_dir():
        yield from look(root)


def publish_folder(temporary: Path, final: Path) -> None:
    """Move a finished folder to its place; an older one there is replaced."""
    fsync_folder(temporary)
    old = None
    if final.exists():
        old = new_temporary(final)
        os.rename(final, old)
    os.rename(temporary, final)
    fsync_path(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    temporary = new_temporary(path)
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` in one step."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
