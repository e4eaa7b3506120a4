"""Demonstrations in pixels: each frame stored once, and whether they fit a run."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import demos
from rlfd.algorithms.base import Needs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments.learned_reward import clipped
from rlfd.experiments.problem import demo_tensors

SHORT = EnvConfig("Kaboom", options={"max_frames": 1200})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    actor = demos.make_demonstrator("random", SHORT, seed=0)
    return folder, demos.collect(SHORT, actor, steps=201, data_dir=folder)


def test_whole_episodes_until_there_are_enough_steps(place):
    _, collected = place
    assert collected.num_transitions >= 201 > collected.num_transitions - collected.lengths[-1]
    assert len(collected.episodes) > 1
    assert collected.observation_space.shape == (4, 84, 84)


def test_frames_are_stored_once_and_come_back_as_stacks(place):
    folder, collected = place
    loaded = demos.load("random", env=SHORT, data_dir=folder)
    assert loaded.info == collected.info
    assert loaded.observation_space == collected.observation_space
    for one, other in zip(collected.episodes, loaded.episodes, strict=True):
        assert one.observations.dtype == other.observations.dtype == np.uint8
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.stored, other.observations[:, -1])
        np.testing.assert_array_equal(one.rewards, other.rewards)
        assert other.observations.strides[0] == other.observations.strides[1]  # a view of them
    file = loaded.info.path / "data" / "main_data.hdf5"
    with h5py.File(file) as content:
        frames = content["episode_0"]["observations"]
        assert frames.shape == (collected.episodes[0].length + 1, 84, 84)
    assert file.stat().st_size < 84 * 84 * collected.num_transitions / 10
    recorded = demos.recorded_env(loaded.info)
    assert (recorded.name, recorded.options["max_frames"]) == ("Kaboom", 1200)


def test_minari_reads_single_frames(place):
    folder, collected = place
    code = (
        "import json, minari; d = minari.load_dataset('Kaboom/random-v0');"
        "e = d[0]; print(json.dumps([d.observation_space.shape, e.observations.shape,"
        " int(e.observations.sum()), d.env_spec.id]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MINARI_DATASETS_PATH": str(folder / "demos"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    episode = collected.episodes[0]
    shape = [episode.length + 1, 84, 84]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [84, 84], shape, int(episode.stored.sum()), "ALE/Kaboom-v5",
    ], done.stderr  # fmt: skip


def test_the_report_counts_pixels(place):
    _, collected = place
    report = demos.inspect(collected)
    pixels = np.concatenate([episode.stored.ravel() for episode in collected.episodes])
    expected = np.quantile(pixels.astype(np.float64), [0.01, 0.5, 0.99])
    np.testing.assert_allclose(report.observation_quantiles, [expected])
    assert report.duplicates == 0
    assert sum(report.actions[0]) == collected.num_transitions


@pytest.mark.parametrize(
    ("option", "value", "theirs"),
    [
        ("frame_skip", 3, "4"),
        ("sticky", 0.0, "0.25"),
        ("actions", "full", "'minimal'"),
        ("actions", "joystick", "'minimal'"),
        ("size", 42, "84"),
    ],
)
def test_demonstrations_of_another_protocol_are_refused(place, option, value, theirs):
    folder, _ = place
    env = EnvConfig("Kaboom", options={option: value})
    with pytest.raises(RlfdError, match=rf"option '{option}' is {theirs} there, expected") as error:
        demos.load("random-v0", env=env, data_dir=folder)
    assert error.value.exit_code == 2
    assert demos.find(env, folder) == []


def test_what_only_a_learner_sees_may_differ(place):
    folder, _ = place
    options = {"life_loss": 1, "clip_rewards": 0, "noop_max": 1, "max_frames": 1000}
    env = EnvConfig("Kaboom", options=options)
    loaded = demos.load("random", env=env, data_dir=folder)
    assert (loaded.info.env.name, loaded.info.env.options["max_frames"]) == ("Kaboom", 1200)
    with pytest.raises(RlfdError, match="environment is 'Kaboom' there, expected 'Pong'"):
        demos.load("Kaboom/random", env=EnvConfig("Pong"), data_dir=folder)


def test_a_learner_is_shown_the_signs_of_rewards(place):
    _, collected = place
    needs = Needs(True, True, True, frozenset({"rewards"}))
    paid = np.concatenate([episode.rewards * 3 for episode in collected.episodes])
    assert paid.max() > 1
    episodes = [
        demos.Episode(e.observations, e.actions, 3 * e.rewards, e.terminated, e.truncated)
        for e in collected.episodes
    ]
    many = demos.Demonstrations(
        collected.info, tuple(episodes), collected.observation_space, collected.action_space
    )
    shown = demo_tensors(clipped(many, EnvConfig("Kaboom", options={"clip_rewards": 1.0})), needs)
    np.testing.assert_array_equal(shown.rewards, np.sign(paid))
    raw = demo_tensors(clipped(many, EnvConfig("Kaboom", options={"clip_rewards": 0.0})), needs)
    np.testing.assert_array_equal(raw.rewards, paid)


def test_a_joystick_that_rests_is_a_demonstrator_that_does_nothing(tmp_path):
    env = EnvConfig("Pong", options={"actions": "joystick", "max_frames": 40})
    actor = demos.make_demonstrator("random", env, seed=0)
    collected = demos.collect(env, actor, episodes=2, noop=0.9, data_dir=tmp_path)
    assert collected.action_space == spaces.MultiDiscrete([2, 3, 3])
    actions = np.concatenate([episode.actions for episode in collected.episodes])
    resting = (actions == (0, 1, 1)).all(axis=1)
    assert 0.5 < resting.mean() < 1.0
