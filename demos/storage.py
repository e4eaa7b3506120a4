"""Demonstrations on disk, as Minari datasets.

A dataset lies at ``<data-dir>/demos/<environment>/<name>-v<number>``, so that Minari finds it when
its `MINARI_DATASETS_PATH` is ``<data-dir>/demos``. What Minari has no place for is kept under the
key ``rlfd`` of the dataset's own metadata. What is stored is what the environment itself returned
and took (`Adapter`), as it was, never as JPEG. Of frames that this tool stacks each is stored once;
to Minari these are the observations. Images are compressed without loss.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlfd import __version__, envs
from rlfd.demos.dataset import DemoInfo, Demonstrations, Episode, content_hash
from rlfd.demos.foreign import told_apart
from rlfd.envs import Adapter, EnvConfig, gymnasium_spec, note_file, spec
from rlfd.envs.recorded import PREFIX as RECORDED
from rlfd.envs.recorded import from_specification, read_specification
from rlfd.errors import RlfdError, RunFailed
from rlfd.files import check_writable, folders_with, fsync_folder, new_temporary, sweep, write_json
from rlfd.jsons import Form, read_json

__all__ = [
    "Spaces",
    "as_written",
    "demos_folder",
    "is_dataset",
    "mean_return",
    "read_demonstrations",
    "read_info",
    "read_spaces",
    "scan",
    "space_difference",
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
METADATA_FORM: Form = {
    "dataset_id": str,
    "total_episodes": int,
    "total_steps": int,
    "observation_space": (str, type(None)),
    "action_space": (str, type(None)),
    "env_spec": (str, type(None)),
    "eval_env_spec": (str, type(None)),
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
            "stacked": int,
        },
        type(None),
    ),
}
"""What `metadata.json` holds."""
VERSIONED = re.compile(r"(?P<name>.+)-v(?P<version>\d+)")

Spaces: TypeAlias = tuple[spaces.Space[Any], spaces.Space[Any]]
"""Of observations and of actions, of a single environment."""
Array: TypeAlias = npt.NDArray[Any]

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
    adapter: Adapter,
    demonstrator: dict[str, Any],
    name: str,
    data_dir: Path,
) -> Demonstrations:
    """Write a new dataset and return it.

    A crash leaves the complete dataset or none. A name that exists gets the next version number;
    a name with a version number, such as ``expert-v3``, must be free.

    Args:
        episodes: As learners see them.
        env: What they were played in.
        adapter: Knows how they are stored.
        demonstrator: Who acted.
        name: Of the dataset.
        data_dir: Where this tool keeps its data.

    Raises:
        RlfdError: If the name is bad or taken, or the folder cannot be written.
        RunFailed: If the disk is full.
    """
    folder = prepare(name, env, data_dir)
    temporary = new_temporary(folder / name)
    episodes = as_written(episodes, adapter)
    ours = {
        "format": FORMAT_VERSION,
        "env": env.to_json(),
        "gym_id": spec(env.name).gym_id,
        "kwargs": dict(spec(env.name).kwargs),
        "demonstrator": demonstrator,
        "content_hash": content_hash(episodes, adapter),
        "created_with": __version__,
        "seeds": [episode.seed for episode in episodes],
        "returns": [None if np.isnan(r) else r for r in (e.episode_return for e in episodes)],
        "success": [episode.success for episode in episodes],
        "told_hash": _hash_of([e.success for e in episodes], [e.seed for e in episodes]),
        "frame_stack": adapter.stack,
        "stacked": adapter.stacked,
    }
    arrays = _minari_arrays(episodes, adapter)
    metadata = {
        **_minari_metadata(env, *adapter.stored),
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
    spaces = adapter.observation_space, adapter.action_space
    return Demonstrations(read_info(final), tuple(episodes), *spaces, adapter)


def _hash_of(success: Sequence[bool | None], seeds: Sequence[int | None]) -> str:
    """Return the SHA-256 over what is told of episodes and is not among their arrays."""
    text = json.dumps([list(success), list(seeds)])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def as_written(episodes: Sequence[Episode], adapter: Adapter) -> list[Episode]:
    """Return episodes as they will be read again: an environment may round an action."""
    return [
        replace(one, actions=adapter.read_actions(adapter.write_actions(one.actions)))
        for one in episodes
    ]


def _write_bytes(path: Path, content: memoryview) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _minari_metadata(
    env: EnvConfig, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> dict[str, Any]:
    """Return what Minari wants to know about the environment and the format."""
    import minari
    from minari.serialization import serialize_space

    try:
        # The Gymnasium environment inside; our protocol around it is described under our own key.
        inside = {"env_spec": gymnasium_spec(env).to_json()}
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


def _minari_arrays(episodes: Sequence[Episode], adapter: Adapter) -> memoryview:
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
            for key, values in (
                ("observations", adapter.write_observations(episode.observations)),
                ("actions", adapter.write_actions(episode.actions)),
                ("rewards", episode.rewards),
                ("terminations", _last(episode.length, episode.terminated)),
                ("truncations", _last(episode.length, episode.truncated)),
            ):
                frames = key == "observations" and bool(episode.frame_stack)
                _write_array(group, key, values, frames=frames)
    return buffer.getbuffer()


def _write_array(group: Any, key: str, values: Any, *, frames: bool) -> None:
    """Write an array, or the parts of a Dict or Tuple as Minari names them."""
    if isinstance(values, tuple):
        values = {f"_index_{index}": part for index, part in enumerate(values)}
    if isinstance(values, dict):
        inner = group.create_group(key)
        for name, part in values.items():
            _write_array(inner, name, part, frames=False)
        return
    # Growing is what Minari's own appending needs. Pictures shrink to a few hundredths.
    group.create_dataset(
        key,
        data=values,
        chunks=(min(len(values), FRAMES_IN_CHUNK), *values.shape[1:]) if frames else True,
        maxshape=(None, *values.shape[1:]),
        **({"compression": "gzip", "compression_opts": 1} if frames else {}),
    )


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
    if not file.exists() and (other := told_apart(path)) is not None:
        raise other
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
        told = {
            field: read_specification(metadata[field])
            for field in ("env_spec", "eval_env_spec")
            if metadata.get(field)
        }
        gym_id = told["env_spec"]["id"]
        note_file(gym_id, str(path))
        note_file(RECORDED + gym_id, str(path))
        return replace(
            info,
            gym_id=gym_id,
            env_spec=told["env_spec"],
            eval_env_spec=told.get("eval_env_spec"),
        )
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
        frame_stack=_frame_stack(metadata),
    )


def read_spaces(path: Path, env: EnvConfig | None = None) -> Spaces:
    """Read the spaces that a dataset says it has, without its arrays.

    Where it does not say, as Minari does: those of its environment, or of the one that is given.

    Raises:
        RlfdError: If its metadata cannot be read, or it says neither.
    """
    from minari.serialization import deserialize_space

    path = Path(path)
    try:
        metadata = read_json(_data_folder(path) / METADATA, METADATA_FORM)
        told = [metadata.get(f"{of}_space") for of in ("observation", "action")]
        observations, actions = (text and deserialize_space(text) for text in told)
    except MINARI_ERRORS as error:
        raise _damaged(path, error) from error
    if observations is None or actions is None:
        own = _environments_spaces(read_info(path), env)
        observations, actions = observations or own[0], actions or own[1]
    return observations, actions


def _environments_spaces(info: DemoInfo, env: EnvConfig | None) -> Spaces:
    if env is None and info.env_spec is not None:
        env = from_specification(info.env_spec)
    if env is None:
        raise RlfdError(
            f"demonstrations '{info.id}' say neither what their observations and actions are nor "
            "which environment they come from",
            "name it with --env",
        )
    return envs.own_spaces(env)


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


def space_difference(theirs: Spaces, ours: Spaces) -> tuple[str, Any, Any] | None:
    """Return what differs first between (observation space, action space): what, theirs, ours."""
    (observations, actions), (our_observations, our_actions) = theirs, ours
    pairs: list[tuple[str, Any, Any]] = [("action space", actions, our_actions)]
    if isinstance(observations, spaces.Box) and isinstance(our_observations, spaces.Box):
        pairs += [  # bounds are told in many ways
            ("observation shape", observations.shape, our_observations.shape),
            ("observation type", observations.dtype, our_observations.dtype),
        ]
    else:
        pairs += [("observation space", observations, our_observations)]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def read_demonstrations(path: Path, env: EnvConfig | None = None) -> Demonstrations:
    """Read a dataset with its arrays, and check that it is whole.

    Args:
        path: Its folder.
        env: See it as learners of this environment do; None for looking at it.

    Raises:
        RlfdError: If it is missing, empty, incomplete, damaged, of a kind we cannot use, or has
            other spaces than the environment.
    """
    path = Path(path)
    info = read_info(path)
    if not info.episodes:
        raise RlfdError(
            f"demonstrations '{info.id}' are empty, expected at least one episode",
            "collect some with 'rlfd collect-demos'",
        )
    told = _told_beside(path, info)
    adapter = _reading(info, told, read_spaces(path, env), env)
    try:
        demos = _read(path, info, told, adapter)
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


def _read(path: Path, info: DemoInfo, told: _Told, adapter: Adapter) -> Demonstrations:
    raw = _read_minari(_data_folder(path), adapter.stored)
    odd = _Oddities(adapter.stored[1])
    episodes = tuple(
        _episode(info, index, item, told, adapter, odd) for index, item in enumerate(raw)
    )
    transitions = sum(episode.length for episode in episodes)
    if transitions != info.transitions:
        raise _damaged(path, f"it has {transitions} transitions, expected {info.transitions}")
    found = content_hash(episodes, adapter)
    if found != info.content_hash and info.env is not None:
        raise _damaged(path, "its content does not match the hash that was noted when written")
    return Demonstrations(
        replace(info, content_hash=found),
        episodes,
        adapter.observation_space,
        adapter.action_space,
        adapter,
        odd.remarks(transitions),
    )


@dataclass(frozen=True)
class _Told:
    """What is known of the episodes beside their arrays."""

    success: list[bool | None]
    seeds: list[int | None]
    stacked: int = 1


def _told_beside(path: Path, info: DemoInfo) -> _Told:
    if info.env is None:
        return _Told([None] * info.episodes, [None] * info.episodes)
    ours = read_json(_data_folder(path) / METADATA, METADATA_FORM)[KEY]  # was read before
    success, seeds = list(ours["success"]), list(ours["seeds"])
    if not len(success) == len(seeds) == info.episodes:
        raise _damaged(path, f"it describes {len(success)} episodes, expected {info.episodes}")
    written = ours.get("told_hash")  # older ones have none
    if written not in (None, _hash_of(success, seeds)):
        raise _damaged(path, "its successes or seeds are not those that were written")
    return _Told(success, seeds, int(ours.get("stacked", 1)))


def _reading(info: DemoInfo, told: _Told, stored: Spaces, env: EnvConfig | None) -> Adapter:
    """Return what brings the arrays of a dataset to the form that learners know."""
    name = f"dataset '{info.id}'"
    if info.frame_stack > 1 and len(stored[0].shape or ()) < 2:
        raise _damaged(info.path, f"it says that it has stacks of frames, and has {stored[0]}")
    if env is None:
        return Adapter(
            name,
            *stored,
            frame_stack=info.frame_stack,
            stacked=told.stacked,
            for_learning=False,
        )
    ours = envs.adapter(env)
    found = space_difference(stored, ours.stored)
    if found is None:
        return ours
    if space_difference(stored, (ours.observation_space, ours.action_space)) is None:
        return Adapter(name, *stored, stacked=max(ours.frame_stack, 1))  # in that form already
    field, theirs, our = found
    raise RlfdError(
        f"demonstrations '{info.id}' do not fit {env.name}: {field} is {theirs} there, expected "
        f"{our}",
        "name others with --demos",
    )


def _read_minari(data: Path, stored: Spaces) -> list[dict[str, Any]]:
    from minari.dataset._storages import get_minari_storage
    from minari.dataset.minari_storage import MinariStorage

    _check_inside(data / ARRAYS)
    # As `MinariStorage.read` does, which makes the environment of a dataset without spaces.
    told = MinariStorage.read_raw_metadata(data)
    kind = get_minari_storage(told["data_format"])
    storage = kind(data.absolute(), *stored, jpeg_encoding=bool(told.get("jpeg_encoding", True)))
    return list(storage.get_episodes(range(storage.total_episodes)))


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


def _episode(
    info: DemoInfo, index: int, raw: dict[str, Any], told: _Told, adapter: Adapter, odd: _Oddities
) -> Episode:
    observation_space, action_space = adapter.stored
    observations = _array(info, index, "observations", raw["observations"], observation_space)
    actions = _array(info, index, "actions", raw["actions"], action_space)
    actions = odd.look_at(info, index, actions)
    rewards = np.asarray(raw["rewards"], np.float64)
    terminations, truncations = np.asarray(raw["terminations"]), np.asarray(raw["truncations"])
    length = len(rewards)
    seen = adapter.read_observations(observations)
    sizes = (len(seen) - 1, len(actions), len(terminations), len(truncations))
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
    return Episode(
        seen,
        adapter.read_actions(actions),
        rewards,
        terminated,
        not terminated,
        told.success[index],
        told.seeds[index],
        adapter.frame_stack,
    )


def _array(info: DemoInfo, index: int, what: str, values: Any, space: spaces.Space[Any]) -> Any:
    """Return stored values, after looking at their shape."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return values  # Minari read it by the space
    if not isinstance(values, np.ndarray):
        raise RlfdError(
            f"demonstrations '{info.id}' have structured {what}, expected one array each"
        )
    if values.shape[1:] != space.shape:
        raise _damaged(
            info.path,
            f"{what} of episode {index} have shape {values.shape[1:]}, expected {space.shape}",
        )
    return values


class _Oddities:
    """Counts stored actions that are not what their space says.

    Args:
        space: The space.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._space = space
        self._floats = self._outside = 0
        self._least, self._most = np.inf, -np.inf

    def look_at(self, info: DemoInfo, index: int, actions: Array) -> Array:
        """Return actions in the space's type, and count those that are odd.

        Raises:
            RlfdError: If they are none of the actions of a space of whole numbers.
        """
        space = self._space
        if isinstance(space, spaces.Box):
            beyond: Array = np.asarray((actions < space.low) | (actions > space.high))
            outside = np.asarray(beyond.reshape(len(actions), -1).any(axis=1))
            if outside.any():
                self._outside += int(outside.sum())
                self._least = min(self._least, float(actions[outside].min()))
                self._most = max(self._most, float(actions[outside].max()))
            return actions
        if np.issubdtype(actions.dtype, np.floating):
            whole = np.where(np.isfinite(actions), actions, 0.5) == np.floor(actions)
            if not whole.all():
                raise _damaged(info.path, f"episode {index} has actions outside of {space}")
            self._floats += len(actions)
            actions = actions.astype(np.int64)
        low = getattr(space, "start", 0)
        high = low + (getattr(space, "n", 2) if space.shape == () else 2) - 1
        if isinstance(space, spaces.MultiDiscrete):
            high = low + space.nvec - 1
        if not ((actions >= low) & (actions <= high)).all():
            raise _damaged(info.path, f"episode {index} has actions outside of {space}")
        return actions

    def remarks(self, transitions: int) -> tuple[str, ...]:
        """Return one sentence for each kind."""
        told = []
        if self._floats:
            told.append(
                f"actions are stored as fractions, and {self._space} has whole numbers: "
                f"{self._floats:,} of {transitions:,} were converted"
            )
        if self._outside:
            told.append(
                f"{self._outside:,} of {transitions:,} actions are outside of {self._space}: "
                f"they reach from {self._least:.4g} to {self._most:.4g}"
            )
        return tuple(told)


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


def _damaged(path: Path, why: object) -> RlfdError:
    return RlfdError(
        f"demonstrations at {path} cannot be used, they are damaged or incomplete ({why})",
        "restore the folder from a copy, or delete it and collect them again with "
        "'rlfd collect-demos'",
    )
