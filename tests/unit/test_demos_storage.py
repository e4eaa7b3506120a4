"""Datasets on disk: Minari reads them, damage is noticed, failures leave nothing behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from rlfd import demos
from rlfd.demos import storage
from rlfd.demos.dataset import Episode
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError, RunFailed

CART_POLE = EnvConfig("CartPole")


def collect(data_dir, env=CART_POLE, **kwargs):
    actor = demos.make_demonstrator("random", env, seed=0)
    return demos.collect(env, actor, episodes=3, data_dir=data_dir, **kwargs)


def load(data_dir, name="random", env=CART_POLE):
    return demos.load(name, env=env, data_dir=data_dir)


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def rehash(path):
    """Note the hash of what is there, so that something else has to notice."""
    raw = storage._read_minari(path / "data", storage.read_spaces(path))
    episodes = []
    for item in raw:
        ended = bool(item["terminations"][-1])
        arrays = item["observations"], item["actions"], item["rewards"].astype(np.float64)
        episodes.append(Episode(*arrays, ended, not ended))
    digest = demos.content_hash(episodes)
    edit_metadata(path, lambda m: m["rlfd"].update(content_hash=digest))


def test_round_trip_is_lossless(tmp_path):
    env = EnvConfig("LunarLander", "demo", {"push_scale": 0.3})
    written = collect(tmp_path, env)
    loaded = load(tmp_path, env=env)
    assert loaded.info == written.info
    assert loaded.info.env == env
    assert loaded.info.created_with
    assert loaded.observation_space == written.observation_space
    assert loaded.action_space == written.action_space
    for one, other in zip(written.episodes, loaded.episodes, strict=True):
        for field in ("observations", "actions", "rewards"):
            first, second = getattr(one, field), getattr(other, field)
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)
        assert (one.success, one.seed) == (other.success, other.seed)
    assert loaded.info.return_mean == pytest.approx(loaded.returns.mean())
    assert loaded.info.success_rate == loaded.success_rate


def test_minari_lists_and_loads_it(tmp_path):
    collected = collect(tmp_path, EnvConfig("LunarLander6", "demo"))
    code = (
        "import minari, json; d = minari.load_dataset('LunarLander6-demo/random-v0');"
        "e = d[1]; repr(e); env = d.recover_environment();"
        "print(json.dumps([list(minari.list_local_datasets()), d.total_episodes, d.total_steps,"
        " e.observations.shape, float(e.rewards.sum()), int(e.terminations.sum()),"
        " env.spec.id, env.spec.kwargs['continuous'], d.storage.jpeg_encoding]))"
    )
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "demos")}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    episode = collected.episodes[1]
    assert json.loads(answer.stdout) == [
        ["LunarLander6-demo/random-v0"],
        3,
        collected.num_transitions,
        [episode.length + 1, 9],
        episode.episode_return,
        int(episode.terminated),
        "LunarLander-v3",
        True,
        False,
    ]
    listed = subprocess.run(
        [sys.executable, "-c", "from minari.cli import app; app(['list', 'local'])"],
        env={**environment, "COLUMNS": "150"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "LunarLander6-demo/random-v0" in listed.stdout


def edit_metadata(path, change):
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def edit_arrays(path, change):
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        change(file)


def truncate(path, name, keep):
    file = path / "data" / name
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])


def replace(group, name, value):
    del group[name]
    group[name] = value


def link_elsewhere(file):
    del file["episode_0"]["rewards"]
    file["episode_0"]["rewards"] = h5py.ExternalLink("/etc/hostname", "/rewards")


def store_elsewhere(file):
    """Eight bytes each of a local file would become rewards."""
    length = len(file["episode_0"]["rewards"])
    del file["episode_0"]["rewards"]
    place = [("/proc/self/exe", 0, 8 * length)]
    file["episode_0"].create_dataset("rewards", (length,), np.float64, external=place)


def store_references(file):
    length = len(file["episode_0"]["rewards"])
    del file["episode_0"]["rewards"]
    rewards = file["episode_0"].create_dataset("rewards", (length,), h5py.ref_dtype)
    rewards[:] = [file["episode_1"].ref] * length


def store_virtually(file):
    length = len(file["episode_0"]["rewards"])
    layout = h5py.VirtualLayout((length,), np.float64)
    layout[:] = h5py.VirtualSource("/etc/hostname", "rewards", (length,))
    del file["episode_0"]["rewards"]
    file["episode_0"].create_virtual_dataset("rewards", layout)


DAMAGES = {
    "half of the arrays": lambda p: truncate(p, "main_data.hdf5", 0.5),
    "no array at all": lambda p: truncate(p, "main_data.hdf5", 0.0),
    "arrays gone": lambda p: (p / "data" / "main_data.hdf5").unlink(),
    "metadata cut": lambda p: truncate(p, "metadata.json", 0.7),
    "metadata empty": lambda p: truncate(p, "metadata.json", 0.0),
    "metadata not a table": lambda p: (p / "data" / "metadata.json").write_text("[1, 2]"),
    "metadata gone": lambda p: (p / "data" / "metadata.json").unlink(),
    "key missing": lambda p: edit_metadata(p, lambda m: m.pop("total_steps")),
    "our part incomplete": lambda p: edit_metadata(p, lambda m: m["rlfd"].pop("content_hash")),
    "fewer flags": lambda p: edit_metadata(p, lambda m: m["rlfd"]["success"].pop()),
    "episode gone": lambda p: edit_arrays(p, lambda f: f.pop("episode_1")),
    "array gone": lambda p: edit_arrays(p, lambda f: f["episode_1"].pop("rewards")),
    "array short": lambda p: edit_arrays(
        p, lambda f: replace(f["episode_2"], "rewards", np.zeros(3))
    ),
    "a value changed": lambda p: edit_arrays(
        p, lambda f: f["episode_0"]["actions"].__setitem__(2, 1 - f["episode_0"]["actions"][2])
    ),
    "an action out of range": lambda p: (
        edit_arrays(p, lambda f: f["episode_0"]["actions"].__setitem__(2, 7)),
        rehash(p),
    ),
    "the hash switched off": lambda p: edit_metadata(
        p, lambda m: m["rlfd"].update(content_hash="")
    ),
    "another seed": lambda p: edit_metadata(
        p, lambda m: m["rlfd"]["seeds"].__setitem__(1, m["rlfd"]["seeds"][1] + 7)
    ),
    "another success": lambda p: edit_metadata(
        p, lambda m: m["rlfd"]["success"].__setitem__(2, True)
    ),
    "a date of no type": lambda p: edit_metadata(p, lambda m: m["rlfd"].update(created=5)),
    "a name of no type": lambda p: edit_metadata(p, lambda m: m.update(dataset_id=["x"])),
    "a number of 400 digits": lambda p: edit_metadata(p, lambda m: m.update(total_steps=10**400)),
    "half an episode": lambda p: edit_metadata(p, lambda m: m.update(total_episodes=2.5)),
    "nested too deeply": lambda p: (p / "data/metadata.json").write_text("[" * 99_999),
    "stacks of vectors": lambda p: edit_metadata(p, lambda m: m["rlfd"].update(frame_stack=4)),
    "links to another file": lambda p: edit_arrays(p, link_elsewhere),
    "numbers in another file": lambda p: edit_arrays(p, store_elsewhere),
    "references for numbers": lambda p: edit_arrays(p, store_references),
    "virtual numbers": lambda p: edit_arrays(p, store_virtually),
    "steps miscounted": lambda p: edit_metadata(p, lambda m: m.update(total_steps=5)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_named(tmp_path, damage):
    path = collect(tmp_path).info.path
    DAMAGES[damage](path)
    before = {file: (path / file).read_bytes() for file in files(path)}
    for name in ("random-v0", "CartPole/random", str(path)):
        with pytest.raises(RlfdError) as error:
            load(tmp_path, name)
        assert error.value.exit_code == 2
        if damage != "metadata gone" or name != str(path):
            assert "damaged or incomplete" in error.value.message
            assert "random-v0" in error.value.message
        assert error.value.hint
    assert before == {file: (path / file).read_bytes() for file in files(path)}


def test_an_empty_dataset_is_refused(tmp_path):
    path = collect(tmp_path).info.path
    edit_metadata(path, lambda m: m.update(total_episodes=0, total_steps=0))
    with pytest.raises(RlfdError, match="are empty, expected at least one episode"):
        load(tmp_path)


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    path = collect(tmp_path).info.path
    edit_arrays(path, lambda f: f["episode_1"]["observations"].__setitem__((3, 2), np.nan))
    rehash(path)
    with pytest.raises(RlfdError, match="episode 1 of 'CartPole/random-v0' has a observation"):
        load(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    path = collect(tmp_path).info.path
    edit_metadata(path, lambda m: m["rlfd"].update(format=2, created_with="9.9"))
    with pytest.raises(RlfdError, match=r"written by rlfd 9\.9"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunFailed, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), RunFailed, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), RlfdError, "cannot be written"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("place", ["_write_bytes", "write_json", "fsync_folder"])
def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, fault, kind, words, place):
    collect(tmp_path)
    before = files(tmp_path)
    real = getattr(storage, place)

    def fail(*args):
        if place == "_write_bytes":
            real(*args)  # a part of it is there already
        raise fault

    monkeypatch.setattr(storage, place, fail)
    with pytest.raises(kind, match=words) as error:
        collect(tmp_path)
    assert error.type is kind
    if words:
        assert str(tmp_path / "demos" / "CartPole") in str(error.value)
    assert files(tmp_path) == before
    assert [p.name for p in (tmp_path / "demos" / "CartPole").iterdir()] == ["random-v0"]
    monkeypatch.undo()
    assert collect(tmp_path).info.name == "random-v1"
    assert load(tmp_path, "random-v0").num_transitions > 0


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file in the way")
    monkeypatch.setattr("rlfd.demos.collecting.play_episodes", None)  # never called
    with pytest.raises(RlfdError, match="cannot be written") as error:
        collect(tmp_path / "data")
    assert error.value.exit_code == 2
    assert "--data-dir" in error.value.hint


@pytest.mark.parametrize("name", ["mine", "mine-v0"])
def test_two_writers_at_a_time(tmp_path, monkeypatch, name):
    """The second one is quicker: it takes the version that the first one had in mind."""
    real, calls = storage.fsync_folder, []

    def fsync(folder):
        if not calls:
            calls.append(folder)
            collect(tmp_path, name=name)
        real(folder)

    monkeypatch.setattr(storage, "fsync_folder", fsync)
    if name == "mine":
        assert collect(tmp_path, name=name).info.id == "CartPole/mine-v1"
        assert load(tmp_path, "mine").info.id == "CartPole/mine-v1"
    else:
        with pytest.raises(RlfdError, match="exist already"):
            collect(tmp_path, name=name)
    assert load(tmp_path, "mine-v0").info.id == "CartPole/mine-v0"
    assert not [path for path in tmp_path.rglob(".*")]


def test_what_a_killed_writer_left_is_swept_away_later(tmp_path):
    collect(tmp_path)
    folder = tmp_path / "demos" / "CartPole"
    for name in (".random.0123abcd.tmp", ".random.4567abcd.tmp"):
        (folder / name / "data").mkdir(parents=True)
    os.utime(folder / ".random.0123abcd.tmp", (0, 0))
    assert [info.name for info in demos.list_all(tmp_path)] == ["random-v0"]
    collect(tmp_path)
    assert [path.name for path in folder.glob(".*")] == [".random.4567abcd.tmp"]


def test_a_temporary_that_goes_while_it_is_looked_at(tmp_path, monkeypatch):
    folder = storage.prepare("x", EnvConfig("CartPole"), tmp_path)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [folder / ".1.tmp"])
    assert storage.prepare("x", EnvConfig("CartPole"), tmp_path) == folder


def inside(dataset):
    """Return what Minari is told about the environment."""
    return json.loads((dataset.info.path / "data" / "metadata.json").read_text()).get("env_spec")


def test_minari_is_told_the_options_of_finite_environments(tmp_path):
    dataset = collect(tmp_path, EnvConfig("SlipperyGridWorld", options={"size": 5}))
    kwargs = json.loads(inside(dataset))["kwargs"]
    assert kwargs == dict(dataset.info.env.options)
    assert kwargs["size"] == 5


def test_environments_that_no_text_can_name(tmp_path):
    gymnasium.register("OfAClass-v0", entry_point=CartPoleEnv, max_episode_steps=50)
    try:
        dataset = collect(tmp_path, EnvConfig("OfAClass-v0"))
        assert inside(dataset) is None
        loaded = load(tmp_path, env=EnvConfig("OfAClass-v0"))
        assert loaded.info.gym_id == "OfAClass-v0"
    finally:
        del gymnasium.registry["OfAClass-v0"]


def test_formats_that_need_another_package(tmp_path, monkeypatch):
    path = collect(tmp_path).info.path

    def missing(folder, stored):
        raise ImportError("pyarrow is not installed")

    monkeypatch.setattr(storage, "_read_minari", missing)
    with pytest.raises(RlfdError, match="cannot be read: pyarrow is not installed"):
        storage.read_demonstrations(path)


def test_names_that_are_too_long_are_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("rlfd.demos.collecting.play_episodes", None)  # never called
    with pytest.raises(RlfdError, match=r"cannot be written.*too long"):
        collect(tmp_path, name="x" * 250)
    assert files(tmp_path) == []


def test_one_damaged_dataset_hides_no_other(tmp_path, caplog):
    good, bad = collect(tmp_path, name="good").info, collect(tmp_path, name="bad").info
    edit_metadata(bad.path, lambda m: m["rlfd"].update(created=5))
    assert [info.name for info in demos.list_all(tmp_path)] == [good.name]
    assert "bad-v0" in caplog.text
    assert "'rlfd'.'created' is 5, expected a text" in caplog.text
