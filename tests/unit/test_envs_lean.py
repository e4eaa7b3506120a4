"""The leaner steps against Gymnasium's own, bit for bit."""

import gymnasium
import numpy as np
import pytest

from rlfd import envs
from rlfd.envs import EnvConfig

ROBOTS = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid"]


def pair(name):
    """Return ours and Gymnasium's; ours is made first, since it takes MuJoCo's warnings."""
    return envs.make(EnvConfig(name)), gymnasium.make(f"{name}-v5", disable_env_checker=True)


def assert_same_step(ours, theirs):
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[0].dtype == theirs[0].dtype
    assert ours[1] == theirs[1] or (np.isnan(ours[1]) and np.isnan(theirs[1]))
    assert type(ours[1]) is type(theirs[1])
    assert ours[2:4] == theirs[2:4]
    assert ours[4]["x_position"] == theirs[4]["x_position"]


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_episodes(name, dtype):
    ours, theirs = pair(name)
    assert "step" in vars(ours.unwrapped)
    rng = np.random.default_rng(5)
    low, high = ours.action_space.low, ours.action_space.high
    ends = 0
    for episode in range(5):
        np.testing.assert_array_equal(ours.reset(seed=episode)[0], theirs.reset(seed=episode)[0])
        for _ in range(83):
            action = rng.uniform(1.5 * low, 1.5 * high).astype(dtype)  # outside of the bounds, too
            first, second = ours.step(action), theirs.step(action)
            assert_same_step(first, second)
            if first[2]:
                ends += 1
                break
    assert bool(ends) == (name != "HalfCheetah")


@pytest.mark.parametrize("name", ROBOTS)
def test_states_at_the_edges_of_health(name):
    """From heights, angles and speeds of every size, healthy or not."""
    ours, theirs = pair(name)
    rng = np.random.default_rng(7)
    action = np.zeros(ours.action_space.shape, np.float32)
    ends = set()
    for episode in range(61):
        ours.reset(seed=episode)
        theirs.reset(seed=episode)
        inner = ours.unwrapped
        positions, speeds = np.array(inner.data.qpos), np.array(inner.data.qvel)
        positions[:3] += rng.normal(size=3) * rng.choice([0.01, 0.3, 3.0])
        speeds += rng.normal(size=speeds.shape) * rng.choice([0.0, 3.0, 80.0])
        for env in (ours, theirs):
            env.unwrapped.set_state(positions, speeds)
        first, second = ours.step(action), theirs.step(action)
        assert_same_step(first, second)
        ends.add(first[2])
    assert ends == ({False} if name == "HalfCheetah" else {False, True})


def test_time_limits_hold():
    ours, _ = pair("HalfCheetah")
    ours.reset(seed=0)
    flags = [ours.step(np.zeros(6, np.float32))[2:4] for _ in range(1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]


def test_an_action_of_another_shape_is_refused():
    ours, _ = pair("Hopper")
    ours.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        ours.step(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("Hopper-v5", options={"exclude_current_positions_from_observation": False}),
        EnvConfig("Ant-v5", options={"terminate_when_unhealthy": False}),
        EnvConfig("Swimmer"),
        EnvConfig("LunarLanderContinuous"),
        EnvConfig("LunarLander-v3", options={"enable_wind": True}),
    ],
)
def test_others_are_left_as_they_are(config):
    assert "step" not in vars(envs.make(config).unwrapped)


def steer(observation, rng):
    """Return an action that lands now and then: any, or against fall and tilt."""
    if rng.random() < 0.3:
        return rng.integers(4)
    height, fall, tilt = observation[1], observation[3], observation[4] + observation[5]
    if fall < -0.1 - 0.3 * height:
        return np.int64(2)
    return np.int64(0 if abs(tilt) < 0.1 else 3 if tilt > 0 else 1)


def test_whole_flights_of_the_lander():
    """They end by a rest on the legs, by a crash, at the screen's border, and by the time."""
    ours = envs.make(EnvConfig("LunarLander"))
    theirs = gymnasium.make("LunarLander-v3", disable_env_checker=True)
    assert "step" in vars(ours.unwrapped)
    assert "step" not in vars(theirs.unwrapped)
    rng = np.random.default_rng(5)
    ends, touched = set(), set()
    for episode in range(23):
        seed = episode if episode % 3 == 0 else None  # else both go on with their generators
        first, second = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        np.testing.assert_array_equal(first, second)
        over = False
        while not over:
            # the first one hovers until it is cut off
            hover = first[3] < 0.2 * (1.0 - first[1])
            action = np.int64(2 * hover) if episode == 0 else steer(first, rng)
            one, other = ours.step(action), theirs.step(action)
            first = one[0]
            np.testing.assert_array_equal(one[0], other[0])
            assert one[0].dtype == other[0].dtype
            assert one[1] == other[1]
            assert one[2:4] == other[2:4]
            touched.add(tuple(first[6:].tolist()))
            over = one[2] or one[3]
        ends.add((one[3], float(one[1]) if one[2] else 0.0, bool(abs(first[0]) >= 1.0)))
    assert len(touched) == 4
    assert ends == {
        (False, 100.0, False),
        (False, -100.0, False),
        (False, -100.0, True),
        (True, 0.0, False),
    }


@pytest.mark.parametrize("action", [-1, 4, 0.5])
def test_the_lander_refuses_what_is_no_action(action):
    ours = envs.make(EnvConfig("LunarLander"))
    ours.reset(seed=0)
    with pytest.raises(ValueError, match="from 0 to 3"):
        ours.step(action)
