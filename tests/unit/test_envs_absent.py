"""Environments known from demonstrations alone: their spaces survive JSON, and nobody can act."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from rlfd.envs import EnvConfig, World, check, is_playable, make, spec
from rlfd.envs.absent import spaces_as_options
from rlfd.errors import RlfdError

SEEN = spaces.Box(-np.inf, np.inf, (3, 2), np.float64)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Box(np.float32([-1.1, 0.1]), np.float32([1 / 3, 7.0]), dtype=np.float32),
        spaces.Box(-1, 1, (4,), np.float32),
        spaces.Discrete(5),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([3, 4]),
        spaces.MultiBinary(6),
    ],
)
def test_spaces_survive_json(actions):
    options = json.loads(json.dumps(spaces_as_options(SEEN, actions), allow_nan=False))
    config = check(EnvConfig("dataset:some/where/data-v2", options=options))
    made = make(config).unwrapped
    assert made.observation_space == SEEN
    assert made.action_space == actions
    assert check(EnvConfig.from_json(json.loads(json.dumps(config.to_json())))) == config


def test_pixels():
    pixels = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    options = spaces_as_options(pixels, spaces.Discrete(2))
    assert make(EnvConfig("dataset:x", options=options)).unwrapped.observation_space == pixels
    assert len(json.dumps(options)) < 200  # one bound stands for all


def test_nobody_can_act():
    config = EnvConfig("dataset:a/b-v1", options=spaces_as_options(SEEN, spaces.Discrete(2)))
    assert not is_playable(config.name)
    assert is_playable("CartPole")
    assert config.label == "dataset-a-b-v1"
    assert not spec(config.name).has_success
    made = make(config)
    for act in (made.reset, lambda: made.step(0), lambda: World(config, num_envs=1, seed=0)):
        with pytest.raises(RlfdError, match="nobody can act in 'dataset:a/b-v1'"):
            act()


def test_the_name_alone_is_not_enough():
    with pytest.raises(RlfdError, match="spaces were not given") as error:
        make(EnvConfig("dataset:a/b-v1"))
    assert "--demos a/b-v1" in error.value.hint


def test_other_spaces_are_refused():
    with pytest.raises(RlfdError, match="have Dict observations or actions"):
        spaces_as_options(spaces.Dict({"a": SEEN}), spaces.Discrete(2))
