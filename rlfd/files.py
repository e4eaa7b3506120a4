"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "file_digest",
    "folders_with",
    "fsync_folder",
    "fsync_path",
    "is_temporary",
    "new_temporary",
    "publish_folder",
    "remove_temporaries",
    "write_json",
    "write_text",
]


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


def is_temporary(path: Path) -> bool:
    """Whether some part of a path is a name of `new_temporary`."""
    return any(part.startswith(".") and part.endswith(".tmp") for part in path.parts)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what killed writers left in `folder`, of the file or folder `name` or of all.

    Nobody may be writing there now.
    """
    for path in folder.glob(f".{name}.*.tmp" if name != "*" else ".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def folders_with(root: Path, name: str) -> Iterator[Path]:
    """Yield every folder at or below `root` that has an entry called `name`, sorted.

    Links are followed, but no folder is looked into twice; what is hidden below `root` is left out.
    """
    seen: set[Path] = set()

    def look(folder: Path) -> Iterator[Path]:
        if folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        if (folder / name).exists():
            yield folder
        with contextlib.suppress(OSError):  # not ours to read
            for below in sorted(folder.iterdir()):
                if not below.name.startswith(".") and below.is_dir():
                    yield from look(below)

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
