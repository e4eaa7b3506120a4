"""Lunar Lander: starts, success test and sets of actions; starts as in the SQIL paper."""

import math
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.box2d.lunar_lander import heuristic

from rlfd import envs
from rlfd.envs import EnvConfig

RANGES = {  # start: |x|, y, |angle|, |vx|, |angular velocity|
    "demo": ((0.0, 0.02), (1.38, 1.43), (0.0, 0.02), (0.0, 0.001), (0.0, 0.01)),
    "shifted": ((0.75, 0.90), (0.89, 1.3), (0.0, 0.001), (0.0, 0.001), (0.0, 0.01)),
    "tilt_out": ((0.29, 0.70), (0.98, 1.4), (0.97, 1.5), (0.0, 0.03), (0.0, 0.01)),
    "ground": ((0.35, 0.60), (-0.4, 0.7), (0.0, 0.001), (0.0, 0.001), (0.0, 0.01)),
    "spin": ((0.28, 0.72), (0.98, 1.4), (0.0, 0.06), (0.0, 0.05), (0.45, 1.05)),
    "out_fast": ((0.30, 0.62), (0.98, 1.4), (0.0, 0.001), (0.49, 0.8), (0.0, 0.01)),
}


def resets(start, n, name="LunarLander", **options):
    env = envs.make(EnvConfig(name, start, options))
    for seed in range(n):
        observation, _ = env.reset(seed=seed)
        yield env, observation


@pytest.mark.parametrize("start", RANGES)
def test_starts_are_in_their_ranges(start):
    states = np.array([observation for _, observation in resets(start, 31)])
    for column, (low, high) in zip((0, 1, 4, 2, 5), RANGES[start], strict=True):
        values = states[:, 1] if column == 1 else np.abs(states[:, column])
        assert low <= values.min(), column
        assert values.max() <= high, column
    assert not states[:, 6:].any()  # no leg touches the ground
    if start != "demo":
        assert 5 < (states[:, 0] > 0).sum() < 26  # both sides


def test_tilt_out_leans_outwards_and_out_fast_flies_outwards():
    for _, state in resets("tilt_out", 9):
        # A positive angle turns the main engine's push to the left.
        assert state[0] * state[4] < 0
    for _, state in resets("out_fast", 9):
        assert state[0] * state[2] > 0


@pytest.mark.parametrize("name", ["LunarLander", "LunarLander6"])
@pytest.mark.parametrize("start", RANGES)
def test_the_first_step_shows_no_jump_in_the_reward(name, start):
    for env, _ in resets(start, 5, name=name):
        lander = env.unwrapped
        assert all(body.awake for body in (lander.lander, *lander.legs))
        before = lander.prev_shaping
        reward = env.step(1 if name == "LunarLander6" else 0)[1]  # no engine
        assert reward == pytest.approx(lander.prev_shaping - before)
        assert abs(reward) < (9.0 if start == "spin" else 4.0)


def test_a_start_moves_the_lander_as_one_body():
    standard = envs.make(EnvConfig("LunarLander"))
    tilted = envs.make(EnvConfig("LunarLander", "tilt_out"))
    for seed in range(3):
        distances = []
        for env in (standard, tilted):
            env.reset(seed=seed)
            hull, legs = env.unwrapped.lander, env.unwrapped.legs
            distances.append([math.dist(hull.position, leg.position) for leg in legs])
        np.testing.assert_allclose(*distances, atol=0.02)


def test_the_push_can_be_scaled():
    speeds = [
        np.mean([abs(s[2]) for _, s in resets("demo", 15, push_scale=scale)])
        for scale in (0.0, 0.1, 1.0)
    ]
    standard = np.mean([abs(s[2]) for _, s in resets("standard", 15)])
    assert speeds[0] < 1e-3
    assert speeds[1] == pytest.approx(0.1 * standard, rel=0.05)
    assert speeds[2] == pytest.approx(standard, rel=0.05)


def test_standard_is_gymnasiums_own():
    ours, theirs = envs.make(EnvConfig("LunarLander")), gymnasium.make("LunarLander-v3")
    np.testing.assert_array_equal(ours.reset(seed=7)[0], theirs.reset(seed=7)[0])
    for action in (0, 2, 1, 3, 2):
        first, second = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1:] == second[1:]


def test_seeds_repeat_and_differ():
    first, again = ([s for _, s in resets("shifted", 5)] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({float(s[0]) for s in first}) == 5
    env = envs.make(EnvConfig("LunarLander", "shifted"))
    env.reset(seed=0)
    assert env.reset()[0][0] != first[0][0]  # the generator goes on


def end_of_episode(observation_x, *, game_over=False, awake=False, terminated=True):
    """Judge a made-up last step."""
    from rlfd.envs.lunar_lander import LunarLanderStart

    class Fake(gymnasium.Env):
        continuous = False
        lander = SimpleNamespace(awake=awake)

        def step(self, action):
            state = np.zeros(8, np.float32)
            state[0] = observation_x
            return state, 1.0, terminated, not terminated, {}

    env = Fake()
    env.game_over = game_over
    info = LunarLanderStart(env, "standard", {}).step(0)[4]
    return info["success"], info["landed"]


def test_success_and_landing():
    assert end_of_episode(0.1999) == (True, True)
    assert end_of_episode(-0.19) == (True, True)
    assert end_of_episode(-0.21) == (False, True)
    assert end_of_episode(1.01) == (False, False)
    assert end_of_episode(0.0, game_over=True) == (False, False)
    assert end_of_episode(0.0, awake=True) == (False, False)
    assert end_of_episode(0.0, terminated=False) == (False, False)


def test_the_flags_are_there_at_the_end_only():
    env = envs.make(EnvConfig("LunarLander", "demo"))
    state, _ = env.reset(seed=3)
    fake = SimpleNamespace(unwrapped=SimpleNamespace(continuous=False))
    while True:
        state, reward, terminated, truncated, info = env.step(heuristic(fake, state))
        if terminated or truncated:
            break
        assert info == {}
    assert info == {"success": True, "landed": True}
    assert reward == 100


def test_the_start_does_not_count_as_a_step():
    env = envs.make(EnvConfig("LunarLander", "shifted"))
    env.reset(seed=0)
    env.unwrapped.step = lambda _: (np.zeros(8, np.float32), 0.0, False, False, {})  # hover
    steps = 1
    while not env.step(0)[3]:
        steps += 1
    assert steps == 1000


def test_six_actions_fire_the_engines_they_name():
    env = envs.make(EnvConfig("LunarLander6", "demo"))
    assert env.action_space.n == 6
    assert env.observation_space.shape == (9,)
    speed = []
    for action in range(6):
        state, _ = env.reset(seed=1)
        assert env.observation_space.contains(state)
        for _ in range(7):
            state, *_ = env.step(action)
        assert state[8] == 0.0
        speed.append(state)
    speed = np.array(speed)
    assert (speed[3:, 3] > speed[:3, 3] + 0.1).all()  # the main engine pushes up
    for row in (0, 3):
        # The left engine (0) turns the lander one way, the right one (2) the other.
        assert speed[row, 5] > speed[row + 1, 5] > speed[row + 2, 5]


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("LunarLanderMulti", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ("LunarLanderSingle", [1, 0, 3, None, 2, None]),  # left, none, right; main
    ],
)
def test_other_sets_of_actions_step_as_the_six_do(name, actions):
    """`actions` are in the order of the six; None where two engines would have to fire."""
    config = {"start": "standard"}
    one, other = (
        envs.make(EnvConfig("LunarLander6", **config)),
        envs.make(EnvConfig(name, **config)),
    )
    assert one.observation_space == other.observation_space
    for env in (one, other):
        env.reset(seed=5)
    order = [
        six for six in np.random.default_rng(2).integers(6, size=400) if actions[six] is not None
    ]
    steps = 0
    for six in order:
        steps += 1
        ours, theirs = other.step(np.array(actions[six])), one.step(six)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]
        if theirs[2] or theirs[3]:
            assert ours[4] == theirs[4]
            break
    assert steps > 40


def test_how_many_actions_there_are():
    assert envs.make(EnvConfig("LunarLanderMulti")).action_space == spaces.MultiDiscrete([2, 3])
    assert envs.make(EnvConfig("LunarLanderSingle")).action_space == spaces.Discrete(4)
