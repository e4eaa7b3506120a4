"""Demonstrations on disk, as Minari datasets.

A dataset lies at ``<data-dir>/demos/<environment>/<name>-v<number>``, so that Minari finds it when
its `MINARI_DATASETS_PATH` is ``<data-dir>/demos``. What Minari has no place for is kept under the
key ``rlfd`` of the dataset's own metadata. Arrays are stored as they are, never as JPEG. Of stacked
frames each is stored once and compressed without loss; to Minari these are the observations.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from rlfd import __version__
from rlfd.demos.dataset import DemoInfo, Demonstrations, Episode, content_hash
from rlfd.envs import LIMIT, EnvConfig, frame_stack, names, note_file, spec, stack_frames
from rlfd.errors import RlfdError, RunFailed
from rlfd.files import check_writable, folders_with, fsync_folder, new_temporary, sweep, write_json
from rlfd.jsons import Form, parse_json, read_json

__all__ = [
    "Spaces",
    "demos_folder",
    "is_dataset",
    "mean_return",
    "read_demonstrations",
    "read_info",
    "read_spaces",
    "scan",
    "write_demonstrations",
]

FORMAT_VERSION = 1
METADATA, ARRAYS = "metadata.json", "main_data.hdf5"
KEY = "rlfd"
FRAMES_IN_CHUNK = 32
MOST_FRAMES = 64
# Minari checks with assertions, h5py answers a damaged file with any of these.
MINARI_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError,
    RuntimeError, AssertionError, NotImplementedError,
)  # fmt: skip
ENV_SPEC_FORM: Form = {"id": str, "kwargs": ({}, type(None))}
METADATA_FORM: Form = {
    "dataset_id": str,
    "total_episodes": int,
    "total_steps": int,
    "observation_space": str,
    "action_space": str,
    "env_spec": (str, type(None)),
    KEY: (
        {
            "format": int,
            "env": {},
            "gym_id": str,
            "kwargs": {},
            "demonstrator": {"parts": [{"id": str, "name": str, "share": float}]},
            "content_hash": str,
            "created": str,
            "created_with": str,
            "seeds": [(int, type(None))],
            "returns": [(float, type(None))],
            "success": [(bool, type(None))],
            "told_hash": str,
            "frame_stack": int,
        },
        type(None),
    ),
}
"""What `metadata.json` holds."""
VERSIONED = re.compile(r"(?P<name>.+)-v(?P<version>\d+)")

Spaces: TypeAlias = tuple[spaces.Space[Any], spaces.Space[Any]]
"""Of observations and of actions, of a single environment."""

logger = logging.getLogger("rlfd.demos")


def demos_folder(data_dir: Path) -> Path:
    """Return the folder that holds all datasets: Minari's root."""
    return Path(data_dir) / "demos"


def is_dataset(path: Path) -> bool:
    """Whether the folder `path` looks like a Minari dataset."""
    return (path / "data" / METADATA).is_file() or (path / METADATA).is_file()


def scan(root: Path) -> Iterator[Path]:
    """Yield the folder of every dataset below `root`, sorted."""
    return (path for path in folders_with(root, "data") if (path / "data").is_dir())


# Writing


def prepare(name: str, env: EnvConfig, data_dir: Path) -> Path:
    """Make the folder for the datasets of `env` and return it; find out early what is wrong.

    Raises:
        RlfdError: If the folder cannot be written, or the name is taken or not usable by Minari.
    """
    if not re.fullmatch(r"[-\w]+", name, re.ASCII) or name.startswith("-"):
        raise RlfdError(
            f"'{name}' cannot be the name of a dataset",
            "use letters, digits, '-' and '_' only, such as 'expert-early'",
        )
    folder = demos_folder(data_dir) / _plain(env.label)
    try:
        check_writable(folder / f"{name}-v00000")
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    except OSError as error:
        _raise_for_disk(error, folder)
    if VERSIONED.fullmatch(name) and (folder / name).exists():
        raise _taken(folder, name)
    return folder


def write_demonstrations(
    episodes: Sequence[Episode],
    *,
    env: EnvConfig,
    observation_space: spaces.Box,
    action_space: spaces.Space[Any],
    demonstrator: dict[str, Any],
    name: str,
    data_dir: Path,
) -> Demonstrations:
    """Write a new dataset and return it.

    A crash leaves the complete dataset or none. A name that exists gets the next version number;
    a name with a version number, such as ``expert-v3``, must be free.

    Raises:
        RlfdError: If the name is bad or taken, or the folder cannot be written.
        RunFailed: If the disk is full.
    """
    folder = prepare(name, env, data_dir)
    temporary = new_temporary(folder / name)
    ours = {
        "format": FORMAT_VERSION,
        "env": env.to_json(),
        "gym_id": spec(env.name).gym_id,
        "kwargs": dict(spec(env.name).kwargs),
        "demonstrator": demonstrator,
        "content_hash": content_hash(episodes),
        "created_with": __version__,
        "seeds": [episode.seed for episode in episodes],
        "returns": [None if np.isnan(r) else r for r in (e.episode_return for e in episodes)],
        "success": [episode.success for episode in episodes],
        "told_hash": _hash_of([e.success for e in episodes], [e.seed for e in episodes]),
        "frame_stack": frame_stack(env),
    }
    stored_space = _one_frame(observation_space) if frame_stack(env) > 1 else observation_space
    arrays = _minari_arrays(episodes)
    metadata = {
        **_minari_metadata(env, stored_space, action_space),
        "total_episodes": len(episodes),
        "total_steps": sum(episode.length for episode in episodes),
        "dataset_size": round(arrays.nbytes / 1e6, 1),  # in MB, as Minari counts
        "algorithm_name": str(demonstrator.get("policy", "unknown")),
        "description": f"{len(episodes)} episodes of {env.label}, collected with rlfd",
        KEY: ours,
    }
    try:
        (temporary / "data").mkdir(parents=True)
        _write_bytes(temporary / "data" / ARRAYS, arrays)
        final = _publish(temporary, folder, name, metadata)
    except OSError as error:
        _raise_for_disk(error, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Demonstrations(read_info(final), tuple(episodes), observation_space, action_space)


def _hash_of(success: Sequence[bool | None], seeds: Sequence[int | None]) -> str:
    """Return the SHA-256 over what is told of episodes and is not among their arrays."""
    text = json.dumps([list(success), list(seeds)])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _one_frame(stack: spaces.Box) -> spaces.Box:
    return spaces.Box(stack.low[-1], stack.high[-1], dtype=np.uint8)


def _stack_of(frame: spaces.Space[Any], size: int) -> spaces.Box:
    if not isinstance(frame, spaces.Box) or frame.dtype != np.uint8 or len(frame.shape) < 2:
        raise ValueError(f"{size} observations in a stack are to be pictures, not {frame}")
    low, high = (np.repeat(bound[None], size, axis=0) for bound in (frame.low, frame.high))
    return spaces.Box(low, high, dtype=np.uint8)


def _write_bytes(path: Path, content: memoryview) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _minari_metadata(
    env: EnvConfig, observation_space: spaces.Box, action_space: spaces.Space[Any]
) -> dict[str, Any]:
    """Return what Minari wants to know about the environment and the format."""
    import minari
    from minari.serialization import serialize_space

    known = spec(env.name)
    env_spec = copy.deepcopy(gymnasium.spec(known.gym_id))
    env_spec.kwargs.update(known.kwargs)
    if env.name not in names() or known.table is not None:  # its options are keyword arguments
        env_spec.kwargs.update(env.options)
        env_spec.max_episode_steps = env_spec.kwargs.pop(LIMIT, env_spec.max_episode_steps)
    try:
        # The Gymnasium environment inside; our protocol around it is described under our own key.
        inside = {"env_spec": env_spec.to_json()}
    except ValueError:  # it was registered with a class, which no text can name
        inside = {}
    return {
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "minari_version": minari.__version__,
        "observation_space": serialize_space(observation_space),
        "action_space": serialize_space(action_space),
        **inside,
    }


def _minari_arrays(episodes: Sequence[Episode]) -> memoryview:
    """Return the episodes as the content of an HDF5 file in Minari's layout.

    The file is built in memory, not with Minari's own writer: when the disk is full, HDF5 cannot
    close a file on it any more and takes the whole process down.
    """
    import h5py  # type: ignore[import-untyped]

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        for index, episode in enumerate(episodes):
            group = file.create_group(f"episode_{index}")
            group.attrs["id"] = index
            group.attrs["total_steps"] = episode.length
            if episode.seed is not None:
                group.attrs["seed"] = episode.seed
            group.create_group("infos")
            for key, array in (
                ("observations", episode.stored),
                ("actions", episode.actions),
                ("rewards", episode.rewards),
                ("terminations", _last(episode.length, episode.terminated)),
                ("truncations", _last(episode.length, episode.truncated)),
            ):
                # Growing is what Minari's own appending needs. Pictures shrink to a few hundredths.
                frames = key == "observations" and bool(episode.frame_stack)
                group.create_dataset(
                    key,
                    data=array,
                    chunks=(min(len(array), FRAMES_IN_CHUNK), *array.shape[1:]) if frames else True,
                    maxshape=(None, *array.shape[1:]),
                    **({"compression": "gzip", "compression_opts": 1} if frames else {}),
                )
    return buffer.getbuffer()


def _last(length: int, flag: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    flags = np.zeros(length, np.bool_)
    flags[-1] = flag
    return flags


def _publish(temporary: Path, folder: Path, name: str, metadata: dict[str, Any]) -> Path:
    """Write the metadata, and move the dataset to the next free version in one step."""
    asked = VERSIONED.fullmatch(name)
    version = -1 if asked else _newest(folder, name)
    while True:
        version += 1
        final = folder / (name if asked else f"{name}-v{version}")
        metadata["dataset_id"] = f"{folder.name}/{final.name}"
        # At the last moment, so that a higher version is always the newer one.
        metadata[KEY]["created"] = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        write_json(temporary / "data" / METADATA, metadata)
        fsync_folder(temporary)
        try:
            os.rename(temporary, final)
        except OSError as error:
            # Another writer was quicker: a folder with content is never replaced.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if asked:
                raise _taken(folder, name) from error
        else:
            return final


def _newest(folder: Path, name: str) -> int:
    """Return the highest version of `name`, -1 if there is none."""
    matches = (VERSIONED.fullmatch(path.name) for path in folder.iterdir())
    return max((int(m["version"]) for m in matches if m and m["name"] == name), default=-1)


def _taken(folder: Path, name: str) -> RlfdError:
    return RlfdError(
        f"demonstrations '{folder.name}/{name}' exist already",
        f"leave out the version, as in --name {name.rpartition('-v')[0]}, to get the next free one",
    )


def _plain(label: str) -> str:
    """Return `label` with only the characters that Minari allows in a namespace."""
    return re.sub(r"[^-\w]", "-", label, flags=re.ASCII)


def _raise_for_disk(error: OSError, folder: Path) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise RunFailed(
            f"the disk is full: demonstrations could not be written to {folder}",
            "nothing was left behind; free some space, or choose another place with --data-dir",
        ) from error
    raise RlfdError(
        f"demonstrations cannot be written to {folder} ({error.strerror or error})",
        "choose a folder that you may write to with --data-dir",
    ) from error


# Reading


def read_info(path: Path) -> DemoInfo:
    """Read what a dataset says about itself, without its arrays.

    Raises:
        RlfdError: If there is no dataset, or its metadata cannot be read.
    """
    path = Path(path)
    file = _data_folder(path) / METADATA
    try:
        return _parse_info(path, read_json(file, METADATA_FORM))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    except KeyError as error:
        raise _damaged(path, f"it has no {error}") from error


def _data_folder(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _parse_info(path: Path, metadata: dict[str, Any]) -> DemoInfo:
    identity = str(metadata["dataset_id"])
    info = DemoInfo(
        name=identity.rsplit("/", 1)[-1],
        id=identity,
        path=path,
        env=None,
        gym_id=None,
        episodes=int(metadata["total_episodes"]),
        transitions=int(metadata["total_steps"]),
    )
    ours = metadata.get(KEY)
    if ours is None:
        if not metadata.get("env_spec"):
            return info
        env_spec = parse_json(metadata["env_spec"], ENV_SPEC_FORM)
        note_file(env_spec["id"], str(path))
        return replace(info, gym_id=env_spec["id"], gym_kwargs=dict(env_spec.get("kwargs") or {}))
    if ours["format"] != FORMAT_VERSION:
        raise ValueError(
            f"format {ours['format']} was expected to be {FORMAT_VERSION}; "
            f"it was written by rlfd {ours['created_with']}"
        )
    success = [flag for flag in ours["success"] if flag is not None]
    return replace(
        info,
        env=EnvConfig.from_json(ours["env"], str(path)),
        gym_id=ours["gym_id"],
        demonstrator=dict(ours["demonstrator"]),
        content_hash=ours["content_hash"],
        created=ours["created"],
        created_with=ours["created_with"],
        return_mean=mean_return(ours["returns"]),
        success_rate=float(np.mean(success)) if success else None,
    )


def read_spaces(path: Path) -> Spaces:
    """Read the spaces of a dataset, without its arrays.

    Raises:
        RlfdError: If its metadata cannot be read.
    """
    from minari.serialization import deserialize_space

    path = Path(path)
    try:
        metadata = read_json(_data_folder(path) / METADATA, METADATA_FORM)
        observations, actions = (
            deserialize_space(metadata[f"{of}_space"]) for of in ("observation", "action")
        )
        stack = _frame_stack(metadata)
        return (_stack_of(observations, stack) if stack > 1 else observations), actions
    except MINARI_ERRORS as error:
        raise _damaged(path, error) from error


def mean_return(returns: Sequence[float | None]) -> float | None:
    """Return the mean of those that are known; None without any."""
    known = [value for value in returns if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _frame_stack(metadata: dict[str, Any]) -> int:
    """Return how many frames an observation is made of; other data than ours have no stacks."""
    stack = int((metadata.get(KEY) or {}).get("frame_stack", 0))
    if not 0 <= stack <= MOST_FRAMES:
        raise ValueError(f"'frame_stack' is {stack}, expected 0 to {MOST_FRAMES}")
    return stack


def read_demonstrations(path: Path) -> Demonstrations:
    """Read a dataset with its arrays, and check that it is whole.

    Raises:
        RlfdError: If it is missing, empty, incomplete, damaged, or of a kind we cannot use.
    """
    path = Path(path)
    info = read_info(path)
    if not info.episodes:
        raise RlfdError(
            f"demonstrations '{info.id}' are empty, expected at least one episode",
            "collect some with 'rlfd collect-demos'",
        )
    try:
        demos = _read(path, info)
    except ImportError as error:
        raise RlfdError(
            f"demonstrations '{info.id}' cannot be read: {error}", "install what is missing"
        ) from error
    except MemoryError as error:
        raise RlfdError(
            f"demonstrations '{info.id}' do not fit into memory: {error}",
            "if they are not that large, their files are damaged",
        ) from error
    except MINARI_ERRORS as error:
        raise _damaged(path, error) from error
    _check_values(demos)
    return demos


def _read(path: Path, info: DemoInfo) -> Demonstrations:
    observation_space, action_space, raw = _read_minari(_data_folder(path))
    if not isinstance(observation_space, spaces.Box):
        raise RlfdError(
            f"demonstrations '{info.id}' have {type(observation_space).__name__} observations, "
            "expected Box"
        )
    success, seeds, stack = _told_beside(path, info)
    episodes = tuple(
        _episode(info, index, item, success[index], seeds[index], stack)
        for index, item in enumerate(raw)
    )
    if stack > 1:
        observation_space = _stack_of(observation_space, stack)
    transitions = sum(episode.length for episode in episodes)
    if transitions != info.transitions:
        raise _damaged(path, f"it has {transitions} transitions, expected {info.transitions}")
    found = content_hash(episodes)
    if found != info.content_hash and info.env is not None:
        raise _damaged(path, "its content does not match the hash that was noted when written")
    return Demonstrations(
        replace(info, content_hash=found), episodes, observation_space, action_space
    )


def _read_minari(data: Path) -> tuple[spaces.Space[Any], spaces.Space[Any], list[dict[str, Any]]]:
    from minari.dataset.minari_storage import MinariStorage

    _check_inside(data / ARRAYS)
    storage = MinariStorage.read(data.absolute())
    episodes = list(storage.get_episodes(range(storage.total_episodes)))
    return storage.observation_space, storage.action_space, episodes


def _check_inside(path: Path) -> None:
    """Refuse an HDF5 file that would have others, or parts of itself, read in its place.

    Raises:
        ValueError: Names the first such part.
    """
    import h5py

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            place = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"'{place}' only points to somewhere else")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif item.external or item.is_virtual:
                raise ValueError(f"the numbers of '{place}' lie in another file")
            elif h5py.check_dtype(ref=item.dtype) is not None:
                raise ValueError(f"'{place}' holds references, not numbers")

    if path.is_file():  # other formats have none
        with h5py.File(path, "r") as file:
            look(file)


def _told_beside(path: Path, info: DemoInfo) -> tuple[list[bool | None], list[int | None], int]:
    """Return successes and seeds of the episodes, and of how many frames an observation is made."""
    if info.env is None:
        return [None] * info.episodes, [None] * info.episodes, 0
    metadata = read_json(_data_folder(path) / METADATA, METADATA_FORM)  # was read before
    success, seeds = list(metadata[KEY]["success"]), list(metadata[KEY]["seeds"])
    if not len(success) == len(seeds) == info.episodes:
        raise _damaged(path, f"it describes {len(success)} episodes, expected {info.episodes}")
    written = metadata[KEY].get("told_hash")  # older ones have none
    if written not in (None, _hash_of(success, seeds)):
        raise _damaged(path, "its successes or seeds are not those that were written")
    return success, seeds, _frame_stack(metadata)


def _episode(
    info: DemoInfo,
    index: int,
    raw: dict[str, Any],
    success: bool | None,
    seed: int | None,
    stack: int,
) -> Episode:
    observations, actions = raw["observations"], raw["actions"]
    if not isinstance(observations, np.ndarray) or not isinstance(actions, np.ndarray):
        raise RlfdError(
            f"demonstrations '{info.id}' have structured observations or actions, "
            "expected one array each"
        )
    rewards = np.asarray(raw["rewards"], np.float64)
    terminations, truncations = np.asarray(raw["terminations"]), np.asarray(raw["truncations"])
    length = len(rewards)
    sizes = (len(observations) - 1, len(actions), len(terminations), len(truncations))
    if length == 0 or any(size != length for size in sizes):
        raise _damaged(info.path, f"the arrays of episode {index} do not fit together")
    if (terminations | truncations)[:-1].any():
        raise RlfdError(
            f"episode {index} of '{info.id}' is flagged as ended before its last step, "
            "expected one episode at a time",
            "split it into episodes first",
        )
    terminated = bool(terminations[-1])
    # Data that just stops was cut: there is still a future to bootstrap from.
    if stack > 1:
        observations = stack_frames(observations, stack)
    ends = terminated, not terminated
    return Episode(observations, actions, rewards, *ends, success, seed, stack)


def _check_values(demos: Demonstrations) -> None:
    box, info, has_rewards = demos.observation_space, demos.info, demos.has_rewards
    for index, episode in enumerate(demos.episodes):
        if episode.observations.shape[1:] != box.shape:
            raise _damaged(
                info.path,
                f"observations of episode {index} have shape {episode.observations.shape[1:]}, "
                f"expected {box.shape}",
            )
        for what, array in (
            ("observation", episode.observations),
            ("action", episode.actions),
            ("reward", episode.rewards),
        ):
            if what == "reward" and not has_rewards:
                continue
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise RlfdError(
                    f"episode {index} of '{info.id}' has a {what} that is not a finite number",
                    "leave that episode out",
                )
        _check_actions(demos, index, episode)


def _check_actions(demos: Demonstrations, index: int, episode: Episode) -> None:
    space, actions = demos.action_space, episode.actions
    if actions.shape[1:] != space.shape:
        raise _damaged(
            demos.info.path,
            f"actions of episode {index} have shape {actions.shape[1:]}, expected {space.shape}",
        )
    low: Any = None
    if isinstance(space, spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    if low is not None and not ((actions >= low) & (actions <= high)).all():
        raise _damaged(demos.info.path, f"episode {index} has actions outside of {space}")


def _damaged(path: Path, why: object) -> RlfdError:
    return RlfdError(
        f"demonstrations at {path} cannot be used, they are damaged or incomplete ({why})",
        "restore the folder from a copy, or delete it and collect them again with "
        "'rlfd collect-demos'",
    )
