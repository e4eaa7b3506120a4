"""Pictures without a screen, and nothing on stderr that is not ours."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from rlfd import envs
from rlfd.envs import EnvConfig, headless, play_episodes
from rlfd.errors import RlfdError

DRAWING = """
import numpy as np
from rlfd import envs
from rlfd.envs import EnvConfig, World
names = [name for name in envs.names() if not envs.spec(name).frame_stack] + ["Pong"]
for name in names:
    reward = "delay-3" if envs.spec(name).delayed else "dense"
    world = World(EnvConfig(name, reward=reward), num_envs=2, seed=0)
    world.action_space.seed(0)
    for _ in range(3):
        world.step(np.array([world.action_space.sample() for _ in range(2)]))
    world.close()
    env = envs.make(EnvConfig(name), render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 0, name
    env.close()
print("drawn", len(names))
"""

WITHOUT_EGL = """
import ctypes
load = ctypes.CDLL.__init__
def refuse(self, name, *args, **kwargs):
    if "EGL" in str(name):
        raise OSError("no such library")
    load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = refuse
from rlfd.envs import EnvConfig, World
World(EnvConfig("Hopper"), num_envs=1, seed=0)
print("made")
"""


def run(code, folder, **variables):
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "MUJOCO_GL", "SDL_VIDEODRIVER")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=kept | variables,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_every_environment_is_played_and_drawn_in_silence(tmp_path):
    done = run(DRAWING, tmp_path)
    assert (done.stderr, done.stdout) == ("", "drawn 22\n")
    assert list(tmp_path.iterdir()) == []  # MuJoCo would leave a log file


def test_where_there_is_no_egl_one_can_still_train(tmp_path):
    done = run(WITHOUT_EGL, tmp_path)
    assert (done.stderr, done.stdout) == ("", "made\n")


def test_the_choice_of_the_user_holds(tmp_path):
    code = 'import os; from rlfd.envs import *; make(EnvConfig("Hopper"));'
    done = run(code + 'print(os.environ["MUJOCO_GL"])', tmp_path, MUJOCO_GL="glfw")
    assert (done.stderr, done.stdout) == ("", "glfw\n")


def test_warnings_of_mujoco_reach_our_log_once(caplog):
    headless._note.cache_clear()
    env = envs.make(EnvConfig("HalfCheetah"))
    env.reset(seed=0)
    simulator = env.unwrapped
    with caplog.at_level(logging.DEBUG, "rlfd.envs"):
        for _ in range(2):
            simulator.set_state(np.full(9, 1e11), np.full(9, 1e11))
            env.step(np.zeros(6, np.float32))
            env.reset()
    unstable = [record for record in caplog.records if "unstable" in record.message]
    assert {record.levelno for record in unstable} == {logging.WARNING}
    assert len({record.message for record in unstable}) == len(unstable) > 0


def test_pictures_that_cannot_be_drawn_are_explained(monkeypatch):
    def fail(_):
        raise RuntimeError("no driver")

    env = type(envs.make(EnvConfig("CartPole")).unwrapped)
    monkeypatch.setattr(env, "render", fail)
    act = lambda observations, _: np.zeros(len(observations), int)  # noqa: E731
    with pytest.raises(RlfdError, match=r"'CartPole' cannot be drawn: no driver.*MUJOCO_GL"):
        list(play_episodes(EnvConfig("CartPole"), seeds=[0], act=act, frames=1))
