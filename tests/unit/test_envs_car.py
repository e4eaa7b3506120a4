"""Car Racing: the same pictures as Gymnasium's, starts, sets of actions, exact replays."""

import logging
import math

import gymnasium
import numpy as np
import pygame
import pytest
from gymnasium.envs.box2d.car_dynamics import Car

from rlfd import envs
from rlfd.envs import EnvConfig, World, car_frames
from rlfd.errors import RlfdError

STARTS = ["standard", "shifted"]
NAMES = ["CarRacing", "CarRacing3", "CarRacingContinuous"]


def expected(frame, size=64):
    """Return what is to be seen of one of Gymnasium's observations. (96, 96, 3) -> (3, H, W)."""
    kept = pygame.surfarray.make_surface(frame[:84].swapaxes(0, 1))
    small = pygame.transform.smoothscale(kept, (size, size))
    return pygame.surfarray.array3d(small).transpose(2, 1, 0)


def gymnasiums(start, seed):
    """Return Gymnasium's own environment after the camera came close, and what it shows."""
    env = gymnasium.make("CarRacing-v3", continuous=False, disable_env_checker=True)
    inner = env.unwrapped
    render = inner._render
    inner._render = lambda mode: None  # spares what nobody sees
    env.reset(seed=seed)
    if start == "shifted":
        inner.car.destroy()
        _, heading, x, y = inner.track[0]
        inner.car = Car(inner.world, heading + math.pi / 2, x, y)
        inner.step(None)
    for _ in range(50):
        inner.step(0)
    inner._render = render
    return env, render("state_pixels")


def same_episode(start, seed, steps, held):
    """Play both, and return how many steps it took."""
    theirs, frame = gymnasiums(start, seed)
    ours = envs.make(EnvConfig("CarRacing", start, {"colour": "rgb"}))
    np.testing.assert_array_equal(ours.reset(seed=seed)[0], expected(frame))
    rng, action = np.random.default_rng(seed), 3
    for step in range(steps):
        if step % held == 0:  # often gas, so that it gets somewhere
            action = int(rng.choice([0, 1, 2, 3, 3, 3, 4]))
        first, second = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(first[0], expected(second[0]), err_msg=f"step {step}")
        assert first[1:4] == second[1:4]
        if first[2] or first[3]:
            break
    return step + 1


@pytest.mark.parametrize("start", STARTS)
def test_pictures_are_gymnasiums(start):
    assert car_frames.proven()
    assert same_episode(start, seed=3, steps=49, held=7) == 49


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(5))
def test_pictures_are_gymnasiums_over_whole_episodes(start, seed):
    assert same_episode(start, seed, steps=1000, held=5 + 4 * seed) > 150


def test_pictures_from_anywhere():
    """All over the field and beyond its edge, in every direction, at every speed."""
    env = envs.make(EnvConfig("CarRacing", options={"colour": "rgb"}))
    env.reset(seed=1)
    inner, camera = env.unwrapped, env._camera
    track = np.array([point[2:4] for point in inner.track])
    rng = np.random.default_rng(0)
    off_the_field = 0
    for case in range(64):
        place = track[rng.integers(len(track))] + rng.normal(size=2) * 5
        if case % 4 == 0:
            place = rng.uniform(-345, 345, size=2)
        if case % 8 == 0:
            place[rng.integers(2)] = rng.choice([-1, 1]) * rng.uniform(300, 345)
        angle = rng.choice([rng.uniform(-9, 9), rng.integers(-5, 5) * math.pi / 2])
        for body in (inner.car.hull, *inner.car.wheels):
            body.position = (float(place[0] + rng.normal()), float(place[1] + rng.normal()))
            body.angle = float(angle)
        inner.car.hull.linearVelocity = (float(rng.choice([0, 30, 150, 250])), 0.0)
        for wheel in inner.car.wheels:
            wheel.phase = float(rng.uniform(-7, 7))
            wheel.omega = float(rng.choice([0, 10, 300, 600]))
        plain = camera._gymnasium_render("state_pixels")
        np.testing.assert_array_equal(camera.picture(), expected(plain), err_msg=f"case {case}")
        off_the_field += bool((np.all(plain[:84] == 0, axis=2)).mean() > 0.05)
    assert off_the_field > 3


def test_gray_pictures_are_stacked():
    gray, colours = (
        envs.make(EnvConfig("CarRacing", options={"colour": c})) for c in ("gray", "rgb")
    )
    (stack, _), (picture, _) = gray.reset(seed=2), colours.reset(seed=2)
    assert gray.observation_space.contains(stack)
    assert colours.observation_space.contains(picture)
    assert stack.shape == (4, 64, 64)
    assert picture.shape == (3, 64, 64)
    seen = [picture] * 4
    for action in (3, 3, 1, 3, 3, 2):
        for old, frame in zip(stack, seen, strict=True):
            luminance = np.tensordot([77, 150, 29], frame.astype(int), 1)
            np.testing.assert_array_equal(old, (luminance + 128) // 256)
        stack, picture = gray.step(action)[0], colours.step(action)[0]
        seen = [*seen[1:], picture]
    assert len({frame.tobytes() for frame in stack}) == 4


def test_other_sizes():
    env = envs.make(EnvConfig("CarRacing", options={"colour": "rgb", "size": 41}))
    observation, _ = env.reset(seed=4)
    np.testing.assert_array_equal(observation, expected(gymnasiums("standard", 4)[1], 41))


def test_other_versions_are_drawn_by_gymnasium(monkeypatch, caplog):
    lean = envs.make(EnvConfig("CarRacing")).reset(seed=5)[0]
    monkeypatch.setitem(car_frames.PROVEN, "gymnasium", ("0.0",))
    car_frames.proven.cache_clear()
    monkeypatch.setattr(car_frames.Camera, "_draw", None)  # never called
    with caplog.at_level(logging.WARNING, logger="rlfd.envs"):
        plain = envs.make(EnvConfig("CarRacing")).reset(seed=5)[0]
        envs.make(EnvConfig("CarRacing")).reset(seed=6)
    car_frames.proven.cache_clear()
    np.testing.assert_array_equal(plain, lean)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"not proven for gymnasium {gymnasium.__version__}" in said


@pytest.mark.parametrize("name", NAMES)
def test_the_shifted_start_is_turned_by_a_quarter(name):
    cars = []
    for start in STARTS:
        env = envs.make(EnvConfig(name, start))
        env.reset(seed=7)
        inner = env.unwrapped
        cars.append((inner.car.hull.angle, *inner.car.hull.position))
        assert inner.tile_visited_count == 2
        assert [tile.idx for tile in inner.road if tile.road_visited] == [0, 1]
        assert abs(env.get_wrapper_attr("driver_state")()[0]) < 0.1
    turned = np.subtract(*cars[::-1])
    assert turned[0] == pytest.approx(math.pi / 2, abs=0.1)  # wheels settle while it is zoomed
    assert np.abs(turned[1:]).max() < 2.0


@pytest.mark.parametrize(
    ("start", "random_side", "expected"),
    [("shifted", 1, {1, -1}), ("mixed", 0, {0, 1}), ("mixed", 1, {0, 1, -1})],
)
def test_starts_can_be_drawn(start, random_side, expected):
    env = envs.make(EnvConfig("CarRacing", start, {"random_side": random_side}))
    quarters = set()
    for seed in range(7):
        env.reset(seed=seed)
        turned = env.unwrapped.car.hull.angle - env.unwrapped.track[0][1]
        quarters.add(round(turned / (math.pi / 2)))
    assert quarters == expected


@pytest.fixture
def blind(monkeypatch):
    """No pictures, which take most of the time."""
    black = np.zeros((1, 64, 64), np.uint8)
    monkeypatch.setattr(car_frames.Camera, "picture", lambda camera: black)


def test_zooming_in_belongs_to_no_episode(blind):
    env = envs.make(EnvConfig("CarRacing"))
    env.reset(seed=8)
    assert env.unwrapped.t >= 1.0
    assert env.step(0)[1] == pytest.approx(-0.1)  # neither 50 steps nor the tiles under the start
    for _ in range(998):
        _, _, terminated, truncated, _ = env.step(0)
        assert not terminated
        assert not truncated
    assert env.step(0)[2:4] == (False, True)


def test_three_actions_steer_and_keep_the_speed():
    env = envs.make(EnvConfig("CarRacing3"))
    inner, given = env.unwrapped, []
    step = inner.step
    inner.step = lambda action: given.append(action) or step(action)
    for action, steering in ((0, -0.6), (1, 0.0), (2, 0.6)):
        env.reset(seed=9)
        for _ in range(8):
            env.step(action)
        np.testing.assert_allclose(given[-1], [steering, 0.1, 0.0])
        assert np.sign(inner.car.hull.angularVelocity) == -np.sign(steering) or not steering
    inner.car.hull.linearVelocity = (0.0, 41.0)
    env.step(1)
    np.testing.assert_allclose(given[-1], [0.0, 0.0, 0.0])


SHORT = {"max_steps": 9}


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("CarRacing", options=SHORT),
        EnvConfig("CarRacing3", "mixed", SHORT | {"random_side": 1, "colour": "rgb"}),
    ],
)
def test_worlds_can_be_saved_in_the_middle_of_any_episode(config):
    rng = np.random.default_rng(1)
    actions = rng.integers(3, size=(19, 2))
    world = World(config, num_envs=2, seed=0)
    for row in actions[:13]:
        world.step(row)
    again = World(config, num_envs=2, seed=0)
    again.load_state_dict(world.state_dict())  # compares the observations
    for row in actions[13:]:
        first, second = world.step(row), again.step(row)
        np.testing.assert_array_equal(first.next_observations, second.next_observations)
        np.testing.assert_array_equal(first.rewards, second.rewards)
        np.testing.assert_array_equal(world.observations, again.observations)


def test_an_episode_does_not_depend_on_those_before(blind):
    env = envs.make(EnvConfig("CarRacing"))
    rng = np.random.default_rng(2)
    actions = rng.choice([1, 2, 3, 3], size=90)
    played = []
    for seed in (1, 0, 2, 0):
        env.reset(seed=seed)
        for action in actions:
            env.step(action)
        hull = env.unwrapped.car.hull
        played.append((*hull.position, hull.angle, *hull.linearVelocity))
    assert played[1] == played[3]


@pytest.mark.parametrize(
    ("options", "start", "said"),
    [
        ({"colour": "green"}, "standard", "must be one of gray, rgb"),
        ({"size": 96}, "standard", "must be from 36 to 84"),
        ({"random_side": 1}, "standard", "does not belong to start 'standard'"),
        ({}, "tilt_out", "unknown start of CarRacing 'tilt_out'"),
    ],
)
def test_bad_settings_are_refused(options, start, said):
    with pytest.raises(RlfdError, match=said):
        envs.make(EnvConfig("CarRacing", start, options))
