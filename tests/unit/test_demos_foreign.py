"""Data of other tools: named for what they are, brought in as the page says."""

import json
import pickle
import re
import warnings
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest

from rlfd import demos
from rlfd.demos import storage
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError

PAGE = Path(__file__).parents[2] / "docs" / "demonstrations.md"
PENDULUM = EnvConfig("Pendulum")
MINARI = ("actions", "rewards", "terminations", "truncations")
D4RL = ("actions", "rewards", "terminals", "timeouts")


def rows(count=3, length=5):
    """Return the columns of whole episodes in one piece, the last one terminated."""
    env = gymnasium.make("Pendulum-v1", max_episode_steps=length)
    columns = {key: [] for key in ("observations", "actions", "rewards", "next_observations")}
    ends = {"terminals": np.zeros(count * length, bool), "timeouts": np.zeros(count * length, bool)}
    for number in range(count):
        observation, _ = env.reset(seed=number)
        env.action_space.seed(number)
        for _ in range(length):
            action = env.action_space.sample()
            following, reward, *_ = env.step(action)
            for key, value in zip(columns, (observation, action, reward, following), strict=True):
                columns[key].append(value)
            observation = following
        ends["timeouts"][(number + 1) * length - 1] = True
    ends["terminals"][-1], ends["timeouts"][-1] = True, False
    return {key: np.array(values) for key, values in columns.items()} | ends


def old_minari(folder):
    data = rows()
    folder.mkdir(parents=True)
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        spec = gymnasium.make("Pendulum-v1").spec.to_json()
        file.attrs.update(total_episodes=3, minari_version="0.4.3", env_spec=spec)
        for number in range(3):
            part = slice(5 * number, 5 * number + 5)
            group = file.create_group(f"episode_{number}")
            last = data["next_observations"][part][-1:]
            group["observations"] = np.concatenate([data["observations"][part], last])
            for key, source in zip(MINARI, D4RL, strict=True):
                group[key] = data[source][part]


def hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            file[key] = value


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    old_minari(tmp_path / "minari" / "old-v0" / "data")
    old_minari(tmp_path / "data" / "demos" / "Pendulum" / "aged-v0" / "data")
    columns = rows()
    hdf5("d4rl.hdf5", columns)
    del columns["next_observations"]
    hdf5("short.h5", columns)
    hdf5("images.hdf5", {"frames": np.zeros((2, 3))})
    np.savez("flat.npz", obs=columns["observations"], acts=columns["actions"])
    Path("data.pkl").write_bytes(pickle.dumps({"actions": [1, 2]}))
    Path("data.csv").write_text("a,b\n")
    Path("cut.hdf5").write_bytes(Path("d4rl.hdf5").read_bytes()[:700])
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("old-v0", "is data as Minari 0.4.3 wrote them until 0.4"),
        ("minari/old-v0", "is data as Minari 0.4.3 wrote them until 0.4"),
        ("minari/old-v0/data/main_data.hdf5", "is data as Minari 0.4.3 wrote them until 0.4"),
        ("aged", "is data as Minari 0.4.3 wrote them until 0.4"),
        ("d4rl.hdf5", r"as D4RL writes them \(15 steps in one piece\), expected a dataset"),
        ("short.h5", r"as D4RL writes them \(15 steps in one piece, without next observations\)"),
        ("images.hdf5", r"is an HDF5 file \(frames\)"),
        ("flat.npz", r"is an archive of NumPy arrays \(obs, acts\)"),
        ("data.pkl", "is a pickle, which is never read"),
        ("data.csv", r"is a file of another kind \(\.csv\)"),
        ("cut.hdf5", "is an HDF5 file that cannot be read"),
        ("empty", "folder 'empty' holds no demonstrations, expected data/metadata.json"),
    ],
)
def test_what_is_there_is_named(place, name, said):
    for look in (
        lambda: demos.describe(name, data_dir=place / "data"),
        lambda: demos.load(name, env=PENDULUM, data_dir=place / "data"),
    ):
        with pytest.raises(RlfdError, match=said) as error:
            look()
        assert error.value.exit_code == 2
    if "holds no" not in said:
        assert "Data of other tools" in error.value.hint
        assert "create_dataset_from_buffers" in error.value.hint


def test_old_folders_among_others_are_warned_about(place, caplog):
    assert demos.list_all(place / "data") == []
    assert "as Minari 0.4.3 wrote them" in caplog.text


def snippets():
    text = PAGE.read_text().partition("### Data of other tools")[2]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(code):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, PAGE.name, "exec"), {})


@pytest.mark.parametrize(("name", "steps"), [("d4rl.hdf5", 5), ("short.h5", 4), ("all.npz", 5)])
def test_rows_are_brought_in_as_the_page_says(place, name, steps):
    code = snippets()[0].replace('"d4rl.hdf5"', f'"{name}"')
    data = rows()
    if name.endswith("npz"):
        np.savez(name, **data)
        code = code.replace("h5py.File", "np.load").replace("h5py.Dataset", "np.ndarray")
    run(code)
    loaded = demos.load("own/d4rl-v0", env=PENDULUM, data_dir=place / "data")
    assert loaded.lengths.tolist() == [steps] * 3
    assert [one.terminated for one in loaded.episodes] == [False, False, steps == 5]
    for number, episode in enumerate(loaded.episodes):
        part = slice(5 * number, 5 * number + steps)
        np.testing.assert_array_equal(episode.observations[:-1], data["observations"][part])
        np.testing.assert_array_equal(episode.actions, data["actions"][part])
        np.testing.assert_array_equal(
            episode.observations[-1], data["next_observations"][part.stop - 1]
        )


def test_old_folders_are_brought_in_as_the_page_says(place):
    run(snippets()[1].replace('"old-v0/', '"minari/old-v0/'))
    loaded = demos.load("own/old-v0", env=PENDULUM, data_dir=place / "data")
    assert loaded.lengths.tolist() == [5, 5, 5]
    data = rows()
    np.testing.assert_array_equal(loaded.episodes[1].actions, data["actions"][5:10])
    assert loaded.episodes[2].terminated


# Odd actions


def changed(place, env, change):
    """Collect, then change the actions that lie in the file, and what only this tool notes."""
    actor = demos.make_demonstrator("random", env, seed=0)
    path = demos.collect(env, actor, episodes=3, data_dir=place).info.path
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        for episode in file.values():
            actions = change(episode["actions"][:])
            del episode["actions"]
            episode["actions"] = actions
    file = path / "data" / "metadata.json"
    told = json.loads(file.read_text())
    del told["rlfd"]
    file.write_text(json.dumps(told))
    return path


def test_fractions_for_whole_numbers_are_converted_and_said(tmp_path):
    path = changed(tmp_path, EnvConfig("CartPole"), lambda a: a.astype(np.float64))
    loaded = demos.load(path, env=EnvConfig("CartPole"), data_dir=tmp_path)
    assert loaded.episodes[0].actions.dtype == np.int64
    steps = f"{loaded.num_transitions:,}"
    (remark,) = loaded.remarks
    assert remark.endswith(f"Discrete(2) has whole numbers: {steps} of {steps} were converted")
    assert demos.inspect(demos.read(path, data_dir=tmp_path)).remarks == loaded.remarks
    path = changed(tmp_path / "b", EnvConfig("CartPole"), lambda a: a + 0.25)
    with pytest.raises(RlfdError, match=r"episode 0 has actions outside of Discrete\(2\)"):
        storage.read_demonstrations(path)


def test_actions_beyond_their_bounds_are_counted_and_said(tmp_path):
    def change(actions):
        actions[:3] = [[2.5], [-6.8], [2.0]]
        return actions

    path = changed(tmp_path, PENDULUM, change)
    loaded = demos.load(path, env=PENDULUM, data_dir=tmp_path)
    assert loaded.remarks == (
        "6 of 600 actions are outside of Box(-2.0, 2.0, (1,), float32): "
        "they reach from -6.8 to 2.5",
    )
    fine = changed(tmp_path / "b", PENDULUM, lambda a: a)
    assert demos.read(fine, data_dir=tmp_path).remarks == ()
