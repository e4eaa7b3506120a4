"""The summary of a dataset."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rlfd import demos
from rlfd.demos import DemoInfo, Demonstrations, Episode


def lander(xs, action=2, terminated=True, success=True):
    observations = np.zeros((len(xs), 8), np.float32)
    observations[:, 0] = xs
    length = len(xs) - 1
    return Episode(
        observations,
        np.full(length, action),
        np.linspace(0, 2, length),
        terminated,
        not terminated,
        success,
    )


def demonstrations(*episodes):
    info = DemoInfo("a-v0", "LunarLander-demo/a-v0", Path("x"), None, "LunarLander-v3")
    return Demonstrations(info, episodes, spaces.Box(-2, 2, (8,)), spaces.Discrete(4))


def test_the_numbers_are_those_of_the_episodes():
    data = demonstrations(
        lander([0.0, 0.1, -0.2, 0.3]),
        lander([0.0, 0.1, 0.2, 0.3, 0.3, 0.3], action=1, success=False),
        lander([0.0, -0.1, -0.54], action=1, terminated=False, success=False),
    )
    report = demos.inspect(data)
    assert (report.episodes, report.transitions) == (3, 10)
    assert (report.returns.minimum, report.returns.median, report.returns.maximum) == (2, 3, 5)
    assert report.returns.mean == pytest.approx(10 / 3)
    assert report.returns.std == pytest.approx(np.std([3, 5, 2]))
    assert (report.returns.quartile_1, report.returns.quartile_3) == (2.5, 4.0)
    assert (report.lengths.minimum, report.lengths.maximum) == (2, 5)
    assert report.success_rate == pytest.approx(1 / 3)
    assert report.ends == {"terminated": 2, "truncated": 1}
    assert report.actions == ((0, 7, 3, 0),)
    assert report.action_quantiles is None
    assert len(report.observation_quantiles) == 8
    assert report.observation_quantiles[0][1] == pytest.approx(0.1)
    assert report.duplicates == 0
    overlap = report.start_overlap
    assert overlap.max_abs_x == pytest.approx(0.54)
    assert not overlap.overlaps
    assert overlap.quantiles[1.0] == overlap.max_abs_x
    assert list(overlap.quantiles) == [0.5, 0.9, 0.99, 1.0]


def test_one_stray_episode_is_noticed():
    data = demonstrations(lander([0.0, 0.1]), lander([0.0, -0.56, 0.1]), lander([0.0, 0.1]))
    overlap = demos.shifted_start_overlap(data)
    assert overlap.overlaps
    assert overlap.episodes == (1,)
    assert demos.inspect(data).duplicates == 1


def test_other_environments_have_no_shifted_start():
    data = demonstrations(lander([0.0, 0.9]))
    other = replace(data, info=replace(data.info, gym_id="CartPole-v1"))
    assert demos.inspect(other).start_overlap is None


@pytest.mark.parametrize(
    ("space", "actions", "histogram"),
    [
        (spaces.Discrete(3, start=-1), [-1, 1, 1], ((1, 0, 2),)),
        (spaces.MultiDiscrete([2, 3]), [[0, 2], [1, 2], [1, 0]], ((1, 2), (1, 0, 2))),
        (spaces.MultiBinary(2), [[0, 1], [1, 1], [0, 1]], ((2, 1), (0, 3))),
        (spaces.Box(-1, 1, (2,)), [[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]], None),
    ],
)
def test_every_kind_of_action(space, actions, histogram):
    array = np.array(actions, space.dtype)
    episode = Episode(np.zeros((4, 8), np.float32), array, np.zeros(3), True, False)
    report = demos.inspect(replace(demonstrations(episode), action_space=space))
    assert report.actions == histogram
    if histogram is None:
        assert report.action_quantiles[0][1] == 0.5
        assert report.action_quantiles[1] == (1.0, 1.0, 1.0)


def test_images_have_one_row_of_quantiles():
    box = spaces.Box(0, 255, (5, 7, 3), np.uint8)
    pixels = np.full((4, 5, 7, 3), 9, np.uint8)
    episode = Episode(pixels, np.zeros(3, int), np.zeros(3), True, False)
    info = replace(demonstrations().info, gym_id="CarRacing-v3")
    report = demos.inspect(Demonstrations(info, (episode,), box, spaces.Discrete(5)))
    assert report.observation_quantiles == ((9.0, 9.0, 9.0),)
