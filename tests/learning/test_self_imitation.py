"""Self-imitation finds its way where reward is so rare that the actor-critic forgets it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlfd.envs import EnvConfig
from rlfd.experiments.config import resolve
from rlfd.experiments.train import train

pytestmark = pytest.mark.slow

SIDE, LIMIT = 6, 60  # random actions open the door in 2 % of the episodes
STEPS = 20_000


class KeyDoor(gymnasium.Env):
    """A square room: the key in one corner, the door in the opposite one, the start in a third.

    The reward is 1 for coming to the door with the key, which ends the episode, and 0 otherwise.
    """

    def __init__(self):
        self.observation_space = spaces.Box(0.0, 1.0, (2 * SIDE * SIDE,), np.float32)
        self.action_space = spaces.Discrete(4)

    def _seen(self):
        place = np.zeros((2, SIDE, SIDE), np.float32)  # without and with the key
        place[int(self.has_key), self.y, self.x] = 1.0
        return place.ravel()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.y = 0
        self.has_key = False
        return self._seen(), {}

    def step(self, action):
        dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[action]
        last = SIDE - 1
        self.x, self.y = min(max(self.x + dx, 0), last), min(max(self.y + dy, 0), last)
        self.has_key |= (self.x, self.y) == (last, 0)
        opened = self.has_key and (self.x, self.y) == (0, last)
        return self._seen(), float(opened), opened, False, {}


gymnasium.register("rlfd-tests/KeyDoor-v0", KeyDoor, max_episode_steps=LIMIT)


@pytest.fixture
def solved(tmp_path):
    """Return a function that trains with five seeds and counts those that open the door."""

    def solved(algo, *settings):
        count = 0
        for seed in range(5):
            resolved = resolve(
                algo,
                EnvConfig("rlfd-tests/KeyDoor-v0"),
                settings=["normalise_observations=false", *settings],
                options={"seed": seed, "steps": STEPS, "eval_every": 0, "final_episodes": 5},
            )
            result = train(resolved, runs_dir=tmp_path, data_dir=tmp_path)
            count += result.return_mean == 1.0
        return count

    return solved


def test_self_imitation_opens_the_door(solved):
    assert solved("sil", "min_stored=20") >= 4


def test_the_actor_critic_alone_does_not(solved):
    assert solved("a2c") <= 2
