"""Choices in a row, and buttons that exclude each other."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import envs
from rlfd.envs import EnvConfig, ExclusiveButtons
from rlfd.errors import RlfdError, RunFailed


class Keyboard(gymnasium.Env):
    """Notes what was pressed; key 6 breaks it."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, space):
        self.action_space = space
        self.pressed = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if np.ravel(action)[-1] == 6:
            raise ValueError("jammed")
        self.pressed.append(np.array(action))
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (spaces.MultiBinary([2, 3]), spaces.MultiBinary(6)),
        (spaces.MultiDiscrete([[2, 3], [4, 7]]), spaces.MultiDiscrete([2, 3, 4, 7])),
        (spaces.MultiDiscrete([2, 7]), spaces.MultiDiscrete([2, 7])),
    ],
)
def test_choices_lie_in_a_row(inner, outer):
    gymnasium.register("Rows/Keyboard-v0", Keyboard, kwargs={"space": inner})
    try:
        env = envs.make(EnvConfig("Rows/Keyboard-v0"))
    finally:
        del gymnasium.registry["Rows/Keyboard-v0"]
    assert env.action_space == outer
    env.reset(seed=1)
    action = np.arange(outer.shape[0]) % 2
    env.step(action)
    (pressed,) = env.unwrapped.pressed
    assert pressed.shape == inner.shape
    np.testing.assert_array_equal(pressed.ravel(), action)
    if isinstance(inner, spaces.MultiDiscrete):
        with pytest.raises(RunFailed, match=r"Keyboard-v0.*ValueError.*6].*jammed") as error:
            env.step(np.full(outer.shape, 6))
        assert "ExclusiveButtons" in error.value.hint


def test_exclusive_buttons_are_one_choice():
    """Left 0, jump 1, right 2, fire 3, down 4: one of left and right, one of jump and down."""
    inner = Keyboard(spaces.MultiBinary(5))
    env = ExclusiveButtons(inner, [(4, 1), (0, 2)])
    assert env.action_space == spaces.MultiDiscrete([3, 3, 2])
    for action in np.ndindex(3, 3, 2):
        env.step(np.array(action))
    pressed = np.array(inner.pressed)
    assert len(np.unique(pressed, axis=0)) == 18
    assert not (pressed[:, 0] & pressed[:, 2]).any()
    assert not (pressed[:, 1] & pressed[:, 4]).any()
    np.testing.assert_array_equal(env.action(np.array([2, 1, 1])), [0, 0, 1, 1, 1])


@pytest.mark.parametrize("groups", [[(0, 3)], [(0, 1), (1, 2)], [(0, 0)], [()], [(-1, 0)]])
def test_groups_that_do_not_fit(groups):
    with pytest.raises(RlfdError, match="buttons 0 to 2 at most once"):
        ExclusiveButtons(Keyboard(spaces.MultiBinary(3)), groups)


def test_only_buttons_exclude_each_other():
    with pytest.raises(RlfdError, match="MultiBinary in one row"):
        ExclusiveButtons(Keyboard(spaces.MultiDiscrete([2, 2])), [(0, 1)])
