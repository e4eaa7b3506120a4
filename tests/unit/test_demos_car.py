"""Demonstrations of Car Racing, gray and in colours: stored once, and refused where they differ."""

import h5py
import numpy as np
import pytest
import torch

from rlfd import demos
from rlfd.algorithms.base import Needs
from rlfd.envs import EnvConfig, adapter, frame_stack
from rlfd.errors import RlfdError
from rlfd.experiments.problem import demo_tensors

COLOURS = {"gray": (4, (64, 64)), "rgb": (1, (3, 64, 64))}  # frames of a stack, shape of one


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    collected = {}
    for start, colour in (("standard", "gray"), ("standard", "rgb"), ("shifted", "gray")):
        env = EnvConfig("CarRacing", start, {"max_steps": 7, "colour": colour})
        actor = demos.make_demonstrator("controller", env, seed=0)
        collected[start, colour] = demos.collect(
            env, actor, episodes=3, noise=0.3, name=f"{start}-{colour}", data_dir=folder
        )
    return folder, collected


@pytest.mark.parametrize("colour", COLOURS)
def test_pictures_are_stored_once_and_come_back(place, colour):
    folder, collected = place
    stack, shape = COLOURS[colour]
    env = EnvConfig("CarRacing", options={"colour": colour})
    assert frame_stack(env) == stack
    loaded = demos.load(f"standard-{colour}", env=env, data_dir=folder)
    assert loaded.info == collected["standard", colour].info
    with h5py.File(loaded.info.path / "data" / "main_data.hdf5") as content:
        frames = content["episode_0"]["observations"]
        assert frames.shape == (8, *shape)
        assert frames.compression == "gzip"
    tensors = demo_tensors(loaded, Needs(True, True, True, frozenset({"next_observations"})))
    for name, part in (("observations", slice(-1)), ("next_observations", slice(1, None))):
        expected = np.concatenate([e.observations[part] for e in loaded.episodes])
        found = getattr(tensors, name)
        assert found.stack == stack
        np.testing.assert_array_equal(found.index_select(0, torch.arange(21)), expected)
        assert np.ptp(expected) > 50
    assert demos.recorded_env(loaded.info).options["colour"] == colour


def test_learning_without_the_environment_knows_of_colours(place):
    _, collected = place
    for colour, (stack, _) in COLOURS.items():
        absent = demos.absent_env(collected["standard", colour].info)
        seen = collected["standard", colour]
        assert frame_stack(absent) == stack
        assert adapter(absent).observation_space == seen.observation_space


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (EnvConfig("CarRacing3"), "environment is 'CarRacing' there, expected 'CarRacing3'"),
        (EnvConfig("CarRacingContinuous"), "environment is 'CarRacing' there"),
        (EnvConfig("CarRacing", options={"colour": "rgb"}), "option 'colour' is 'gray' there"),
        (EnvConfig("CarRacing", "shifted", {"size": 48}), "option 'size' is 64 there, expected 48"),
    ],
)
def test_those_of_another_kind_are_refused(place, env, said):
    folder, _ = place
    with pytest.raises(RlfdError, match=said) as error:
        demos.load("CarRacing/standard-gray", env=env, data_dir=folder)
    assert error.value.exit_code == 2
    assert "CarRacing/standard-gray-v0" not in [info.id for info in demos.find(env, folder)]


def test_those_of_the_shifted_start_are_refused_there(place):
    folder, _ = place
    env = EnvConfig("CarRacing", "shifted", {"random_side": 1})
    with pytest.raises(RlfdError, match="begin at the shifted start") as error:
        demos.load("shifted-gray", env=env, data_dir=folder)
    assert "--env CarRacing --start standard" in error.value.hint
    assert len(demos.load("standard-gray", env=env, data_dir=folder).episodes) == 3
    assert len(demos.load("shifted-gray", env=EnvConfig("CarRacing"), data_dir=folder).episodes)
    assert demos.load("shifted-gray", env=env, data_dir=folder, allow_overlap=True).episodes


def test_the_driver_cannot_be_asked_about_pictures(tmp_path):
    from rlfd.experiments.config import resolve
    from rlfd.experiments.demonstrators import ask

    config = resolve("dagger", EnvConfig("CarRacing")).config
    with pytest.raises(RlfdError, match="acts on the simulator's state, it cannot be asked"):
        ask(config, tmp_path, tmp_path)
