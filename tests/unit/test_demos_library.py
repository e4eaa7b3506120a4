"""Finding and loading: names, defaults, and what does not fit."""

import json
import logging

import gymnasium
import numpy as np
import pytest
from minari_store import new_store

from rlfd import demos
from rlfd.demos import storage
from rlfd.demos.library import recorded_env
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError

DEMO = EnvConfig("LunarLander", "demo")
STANDARD = EnvConfig("LunarLander")
SHIFTED = EnvConfig("LunarLander", "shifted")


def collect(data_dir, env, episodes=2, **kwargs):
    actor = demos.make_demonstrator("controller", env, seed=0)
    return demos.collect(env, actor, episodes=episodes, data_dir=data_dir, **kwargs)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    collect(folder, DEMO)
    collect(folder, DEMO, seed=1)
    collect(folder, STANDARD, name="pushed", episodes=13)  # one of them strays
    collect(folder, STANDARD)
    collect(folder, EnvConfig("LunarLander", "demo", {"push_scale": 0.5}), name="half")
    collect(folder, EnvConfig("LunarLander6", "demo"))
    collect(folder, EnvConfig("CartPole"))
    return folder


def test_find_puts_the_default_first(data):
    ids = [info.id for info in demos.find(SHIFTED, data)]
    assert ids == [
        "LunarLander-demo/controller-v1",
        "LunarLander-demo/controller-v0",
        "LunarLander-demo/half-v0",
        "LunarLander/controller-v0",
        "LunarLander/pushed-v0",
    ]
    assert "LunarLander-demo/half-v0" not in [info.id for info in demos.find(DEMO, data)]
    assert [info.env.name for info in demos.find(EnvConfig("LunarLander6"), data)] == [
        "LunarLander6"
    ]
    assert demos.find(EnvConfig("Acrobot"), data) == []
    assert len(demos.list_all(data)) == 7
    assert demos.list_all(data / "nowhere") == []


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("controller", "LunarLander-demo/controller-v1"),
        ("controller-v0", "LunarLander-demo/controller-v0"),
        ("LunarLander-demo/controller", "LunarLander-demo/controller-v1"),
        ("LunarLander-demo/controller-v0", "LunarLander-demo/controller-v0"),
    ],
)
@pytest.mark.parametrize("env", [DEMO, SHIFTED, STANDARD])
def test_names(data, env, name, identity):
    assert demos.load(name, env=env, data_dir=data).info.id == identity


def test_a_clock_that_was_wrong_makes_no_version_older(tmp_path):
    for seed in (0, 1):
        collect(tmp_path, EnvConfig("CartPole"), name="mine", seed=seed)
    newest = demos.describe("mine-v1", data_dir=tmp_path).path / "data" / "metadata.json"
    metadata = json.loads(newest.read_text())
    metadata[storage.KEY]["created"] = "1999-12-31T23:59:59+00:00"
    newest.write_text(json.dumps(metadata))
    for name in ("mine", "CartPole/mine"):
        assert demos.describe(name, data_dir=tmp_path).name == "mine-v1"
    assert demos.describe("mine-v0", data_dir=tmp_path).name == "mine-v0"


def test_other_starts_can_be_named(data):
    for name in ("pushed", "LunarLander/pushed-v0"):
        assert demos.load(name, env=DEMO, data_dir=data).info.env.start == "standard"


def test_a_folder_can_be_given(data, tmp_path, monkeypatch):
    path = data / "demos" / "CartPole" / "controller-v0"
    monkeypatch.chdir(tmp_path)
    for text in (path, str(path), str(path / "data")):
        loaded = demos.load(text, env=EnvConfig("CartPole"), data_dir=tmp_path)
        assert loaded.info.id == "CartPole/controller-v0"


def test_a_gymnasium_id_can_use_what_its_short_name_made(data):
    loaded = demos.load("controller", env=EnvConfig("CartPole-v1"), data_dir=data)
    assert loaded.info.env.name == "CartPole"


@pytest.mark.parametrize(
    ("name", "env", "words"),
    [
        ("contrller", SHIFTED, "unknown demonstrations 'contrller', did you mean 'controller'?"),
        ("CartPole/controller", SHIFTED, "environment is 'CartPole' there, expected 'LunarLander'"),
        ("LunarLander6-demo/controller", SHIFTED, "environment is 'LunarLander6' there"),
        ("LunarLander-demo/half", DEMO, "option 'push_scale' is 0.5 there, expected 0.0"),
        ("half", DEMO, "option 'push_scale' is 0.5 there, expected 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(data, name, env, words):
    with pytest.raises(RlfdError) as error:
        demos.load(name, env=env, data_dir=data)
    assert words in str(error.value)
    assert error.value.exit_code == 2
    assert error.value.hint


def test_nothing_collected_yet(tmp_path):
    with pytest.raises(RlfdError, match="rlfd collect-demos --env LunarLander"):
        demos.load("controller", env=SHIFTED, data_dir=tmp_path)


def test_demonstrations_near_the_shifted_start_are_refused_there_only(data):
    with pytest.raises(RlfdError) as error:
        demos.load("pushed", env=SHIFTED, data_dir=data)
    assert "visit the shifted start: |x| reaches" in error.value.message
    assert "--start demo" in error.value.hint
    assert demos.load("pushed", env=SHIFTED, data_dir=data, allow_overlap=True).episodes
    assert demos.load("pushed", env=STANDARD, data_dir=data).episodes


def test_reading_without_an_environment(data):
    assert demos.read("half", data_dir=data).info.id == "LunarLander-demo/half-v0"
    with pytest.raises(RlfdError, match="did you mean 'half'"):
        demos.read("halv", data_dir=data)


def test_unreadable_datasets_are_warned_about(data, tmp_path, caplog):
    (tmp_path / "demos" / "CartPole" / "broken-v0" / "data").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "rlfd.demos"):
        assert demos.list_all(tmp_path) == []
    assert "broken-v0" in caplog.text


def minari_dataset(root, identity, env, episodes=3, cut=False):
    """Write a dataset as a Minari user would, with nothing of ours in it."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    store, path = new_store(root, identity, env)
    rng = np.random.default_rng(0)
    buffers = []
    for length in range(5, 5 + episodes):
        flags = np.zeros(length, bool)
        flags[-1] = not cut
        observations = rng.normal(size=(length + 1, *env.observation_space.shape))
        buffers.append(
            EpisodeBuffer(
                observations=observations.astype(env.observation_space.dtype),
                actions=np.array([env.action_space.sample() for _ in range(length)]),
                rewards=np.ones(length, np.float32),
                terminations=flags,
                truncations=np.zeros(length, bool),
                infos={},
            )
        )
    store.update_episodes(buffers)
    return path


def test_any_minari_dataset_of_the_user_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "theirs"))
    env = gymnasium.make("CartPole-v1")
    minari_dataset(tmp_path / "theirs", "cartpole/test-v3", env)
    minari_dataset(tmp_path / "theirs", "cartpole/cut-v0", env, cut=True)
    minari_dataset(tmp_path / "theirs", "acro-v0", gymnasium.make("Acrobot-v1"))
    for config in (EnvConfig("CartPole"), EnvConfig("CartPole-v1")):
        loaded = demos.load("cartpole/test-v3", env=config, data_dir=tmp_path)
        assert loaded.info.env is None
        assert loaded.info.gym_id == "CartPole-v1"
        assert loaded.info.content_hash.startswith("sha256:")
        assert loaded.returns.tolist() == [5.0, 6.0, 7.0]
        assert loaded.episodes[0].rewards.dtype == np.float64
        assert loaded.episodes[0].terminated
        assert loaded.success_rate is None
        demos.inspect(loaded)
    cut = demos.load("cartpole/cut-v0", env=EnvConfig("CartPole"), data_dir=tmp_path)
    assert cut.episodes[0].truncated
    with pytest.raises(RlfdError, match="environment is 'Acrobot-v1' there, expected 'CartPole'"):
        demos.load("acro-v0", env=EnvConfig("CartPole"), data_dir=tmp_path)


def test_foreign_data_with_another_space_or_inner_ends_are_refused(tmp_path):
    continuous = gymnasium.make("LunarLander-v3", continuous=True)
    path = minari_dataset(tmp_path, "lander/continuous-v0", continuous)
    with pytest.raises(RlfdError, match="argument 'continuous' is True there, expected False"):
        demos.load(path, env=STANDARD, data_dir=tmp_path)

    path = minari_dataset(tmp_path, "cartpole/ends-v0", gymnasium.make("CartPole-v1"))
    import h5py

    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/terminations"][2] = True
    with pytest.raises(RlfdError, match="flagged as ended before its last step"):
        demos.load(path, env=EnvConfig("CartPole"), data_dir=tmp_path)


def test_foreign_data_of_another_form_of_the_environment_are_refused(tmp_path):
    pendulum = EnvConfig("Pendulum")
    for name, kwargs in (("plain", {}), ("said", {"g": 10.0}), ("shown", {"render_mode": None})):
        path = minari_dataset(tmp_path, name, gymnasium.make("Pendulum-v1", **kwargs))
        demos.load(path, env=pendulum, data_dir=tmp_path)
    path = minari_dataset(tmp_path, "moon", gymnasium.make("Pendulum-v1", g=1.6))
    with pytest.raises(RlfdError, match=r"argument 'g' is 1.6 there, expected 10.0"):
        demos.load(path, env=pendulum, data_dir=tmp_path)
    demos.load(path, env=EnvConfig("Pendulum-v1", options={"g": 1.6}), data_dir=tmp_path)


def test_raw_pictures_of_an_environment_with_short_names_have_its_gymnasium_id(tmp_path):
    path = minari_dataset(
        tmp_path, "raw", gymnasium.make("CarRacing-v3", continuous=False), episodes=1
    )
    env = recorded_env(storage.read_info(path))
    assert env == EnvConfig("CarRacing-v3", options={"continuous": False})


def test_demonstrations_that_begin_anywhere_show_the_shifted_start_too(tmp_path, monkeypatch):
    config = {"max_steps": 3}
    for start in ("standard", "mixed"):
        collect(tmp_path, EnvConfig("CarRacing3", start, config), episodes=1, name=start)
    shifted = EnvConfig("CarRacing3", "shifted", config)
    assert [info.name for info in demos.find(shifted, tmp_path)] == ["standard-v0"]
    with pytest.raises(RlfdError, match="begin at the mixed start"):
        demos.load("mixed", env=shifted, data_dir=tmp_path)
    demos.load("mixed", env=EnvConfig("CarRacing3", "mixed", config), data_dir=tmp_path)


def test_data_without_an_environment_are_compared_by_space(tmp_path):
    path = minari_dataset(tmp_path, "cartpole/bare-v0", gymnasium.make("CartPole-v1"))
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["env_spec"]
    file.write_text(json.dumps(metadata))
    assert demos.load(path, env=EnvConfig("CartPole"), data_dir=tmp_path).info.gym_id is None
    with pytest.raises(RlfdError, match="action space is"):
        demos.load(path, env=EnvConfig("Acrobot"), data_dir=tmp_path)


def test_other_rewards_fit_unless_a_method_looks_at_them(tmp_path):
    """The default dataset is the newest with the run's reward; one with another serves, too."""
    dense, sparse = EnvConfig("CartPole"), EnvConfig("CartPole", reward="sparse")
    delayed = EnvConfig("CartPole", reward="delay-7")
    for env in (sparse, dense):
        collect(tmp_path, env)
    ids = ["CartPole/controller-v0", "CartPole-sparse/controller-v0"]
    assert [info.id for info in demos.find(dense, tmp_path)] == ids
    assert [info.id for info in demos.find(sparse, tmp_path)] == ids[::-1]
    assert len(demos.find(delayed, tmp_path)) == 2
    assert [info.id for info in demos.find(dense, tmp_path, same_reward=True)] == ids[:1]
    assert demos.find(delayed, tmp_path, same_reward=True) == []
    loaded = demos.load("controller", env=sparse, data_dir=tmp_path, same_reward=True)
    assert loaded.info.id == ids[1]
    assert set(loaded.returns) == {300.0}
    demos.load("CartPole/controller", env=delayed, data_dir=tmp_path)
    with pytest.raises(RlfdError, match="reward is 'dense' there, expected 'delay-7'"):
        demos.load("CartPole/controller", env=delayed, data_dir=tmp_path, same_reward=True)


def test_the_unit_of_a_reward_matters_to_those_who_look_at_it(tmp_path):
    actor = demos.make_demonstrator("random", EnvConfig("Hopper"), seed=0)
    made = EnvConfig("Hopper", options={"unit": 0.5}, reward="sparse")
    demos.collect(made, actor, episodes=2, data_dir=tmp_path)
    run = EnvConfig("Hopper", reward="sparse")
    assert len(demos.find(run, tmp_path)) == len(demos.find(EnvConfig("Hopper"), tmp_path)) == 1
    with pytest.raises(RlfdError, match=r"option 'unit' is 0\.5 there, expected 1\.0"):
        demos.load("random", env=run, data_dir=tmp_path, same_reward=True)


def test_environments_of_the_same_simulator_are_told_apart(tmp_path):
    collect(tmp_path, EnvConfig("LunarLander6"))
    assert demos.find(EnvConfig("LunarLanderContinuous"), tmp_path) == []
