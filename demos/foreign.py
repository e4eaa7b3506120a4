"""Data in forms that are not read: what they are, and how they are brought in."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlfd.errors import RlfdError

__all__ = ["told_apart"]

ARRAYS = "main_data.hdf5"
CONVERT = (
    "cut it into episodes and give these to minari.create_dataset_from_buffers, as the page on "
    "demonstrations shows under 'Data of other tools'; then name the new dataset"
)
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


def told_apart(path: Path) -> RlfdError | None:
    """Return what is at a place that holds no dataset; None if there is nothing.

    Nothing is converted, and nothing unpickled.
    """
    if path.is_dir():
        arrays = next((p for p in (path / "data" / ARRAYS, path / ARRAYS) if p.is_file()), None)
        if arrays is None:
            return RlfdError(
                f"folder '{path}' holds no demonstrations, expected data/metadata.json in it",
                "name the folder of a dataset in Minari's format",
            )
        if not _is_old(arrays):
            return None  # one whose metadata are lost
        what = _old_minari(arrays)
    elif path.is_file():
        what = _file(path)
    else:
        return None
    return RlfdError(f"'{path}' is {what}, expected a dataset of Minari 0.5 or later", CONVERT)


def _file(path: Path) -> str:
    import h5py  # type: ignore[import-untyped]

    if path.suffix in PICKLES:
        return "a pickle, which is never read since that runs what it holds"
    if h5py.is_hdf5(path):
        return _hdf5(path)
    if zipfile.is_zipfile(path) and path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        return f"an archive of NumPy arrays ({_listed(names)})"
    return f"a file of another kind ({path.suffix or 'without an ending'})"


def _hdf5(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path) as file:
            names = list(file)
            if "episode_0" in names:
                return _old_minari(path)
            if {"observations", "actions", "terminals"} <= set(names):
                steps = file["actions"].shape[0]
                last = "" if "next_observations" in names else ", without next observations"
                return f"a file as D4RL writes them ({steps:,} steps in one piece{last})"
    except (OSError, KeyError, AttributeError, RuntimeError) as error:
        return f"an HDF5 file that cannot be read ({error})"
    return f"an HDF5 file ({_listed(names)})"


def _is_old(path: Path) -> bool:
    """Whether an HDF5 file says itself what it holds: Minari wrote no metadata.json then."""
    import h5py

    try:
        with h5py.File(path) as file:
            return "total_episodes" in file.attrs
    except OSError:
        return False


def _old_minari(path: Path) -> str:
    import h5py

    version: Any = ""
    try:
        with h5py.File(path) as file:
            version = file.attrs.get("minari_version", "")
    except OSError:
        pass
    named = f" {version}" if isinstance(version, str) and version else ""
    return f"data as Minari{named} wrote them until 0.4, which Minari itself does not read any more"


def _listed(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
