"""Demonstrators without training: how well they do, and that noise is what it says."""

import numpy as np
import pytest
from gymnasium import spaces

from rlfd import demos, envs
from rlfd.demos import Idle, Noisy, Shaky, make_demonstrator, policies, pong
from rlfd.envs import EnvConfig, play_episodes
from rlfd.errors import RlfdError


def play(env, episodes, policy="controller"):
    actor = make_demonstrator(policy, env, seed=0)
    actor.reset(episodes)
    return list(play_episodes(env, seeds=range(episodes), act=actor.act))


@pytest.mark.parametrize(
    ("env", "success"),
    [
        (EnvConfig("LunarLander", "demo"), 0.95),
        (EnvConfig("LunarLander", "shifted"), 0.75),
        (EnvConfig("LunarLander6", "demo"), 0.85),
        (EnvConfig("LunarLanderMulti", "demo"), 0.85),
    ],
)
def test_the_lunar_lander_controllers_land(env, success):
    played = play(env, 30)
    assert np.mean([episode.success for episode in played]) >= success


def test_the_cart_pole_controller_balances():
    assert np.mean([episode.episode_return for episode in play(EnvConfig("CartPole"), 20)]) >= 475


def test_the_pong_controller_misses_hardly_a_ball():
    played = play(EnvConfig("Pong", options={"max_frames": 5000}), 2)
    assert min(episode.episode_return for episode in played) >= -2  # uniform actions: -20


def pong_frames(balls, paddles, opponent=40.0):
    """Return an observation with the middles of ball and paddles at these columns and rows."""
    frames = np.full((4, 84, 84), pong.BACKGROUND, np.uint8)
    frames[:, :10] = frames[:, pong.BOTTOM :] = 236  # score and wall, as bright as the ball
    for frame, (column, row), paddle in zip(frames, balls, paddles, strict=True):
        for middle, side in ((opponent, pong.OPPONENT), (paddle, pong.PADDLE)):
            frame[round(middle) - 3 : round(middle) + 4, side - 1 : side + 2] = 147
        frame[row, column] = 236
    return frames


@pytest.mark.parametrize(
    ("balls", "row", "steps"),
    [
        ([(40, 30), (42, 32), (44, 34), (46, 36)], 36 + 27.7, 27.7 / 2),
        ([(40, 70), (43, 68), (46, 66), (49, 64)], 64 - 2 / 3 * 24.7, 24.7 / 3),
        # the floor is met 11.7 rows farther down, the ceiling 12.2 rows farther up
        ([(40, 58), (42, 60), (44, 62), (46, 64)], 75.7 - (27.7 - 11.7), 27.7 / 2),
        ([(40, 33), (42, 31), (44, 29), (46, 27)], 14.8 + (27.7 - 12.2), 27.7 / 2),
        # it turned at the floor: only the last step counts
        ([(40, 73), (42, 75), (44, 75), (46, 73)], 73 - 27.7, 27.7 / 2),
    ],
)
def test_where_the_ball_arrives(balls, row, steps):
    found = pong._arrival([pong._ball(frame) for frame in pong_frames(balls, [40] * 4)])
    assert found == pytest.approx((row, steps), abs=1e-9)


def test_the_pong_controller_goes_where_the_ball_arrives():
    ball = [(64, 40), (66, 40), (68, 40), (70, 40)]
    for opponent, middle in ((20.0, 37.5), (70.0, 42.5)):  # it hits away from the opponent
        for paddle, action in ((middle - 15, 3), (middle, 0), (middle + 15, 2)):
            seen = pong_frames(ball, [paddle] * 4, opponent)[None]
            assert pong.play(seen).tolist() == [action], (opponent, paddle)
    # a paddle that is on its way and will arrive is left alone
    for paddles, action in (([31, 31, 31, 31], 3), ([22, 22, 24, 31], 0)):
        assert pong.play(pong_frames(ball, paddles)[None]).tolist() == [action]
    # a far ball is followed, wherever it will arrive
    for fall in (-2, 2):
        far = [(24 + 2 * step, 44 + fall * (step - 3)) for step in range(4)]
        for paddle, action in ((44 - 15, 3), (44, 0), (44 + 15, 2)):
            assert pong.play(pong_frames(far, [paddle] * 4)[None]).tolist() == [action]
    gone = pong_frames([(5, 12)] * 4, [70] * 4)[None]  # no ball: back to the middle
    assert pong.play(gone).tolist() == [2]


def test_the_pong_controller_plays_the_pictures_that_it_knows():
    for option, value in (("size", 42), ("frame_skip", 2), ("actions", "full")):
        env = envs.check(EnvConfig("Pong", options={option: value}))
        with pytest.raises(RlfdError, match=f"plays with {option}=.*, not with {option}={value}"):
            make_demonstrator("controller", env, seed=0)


def test_the_mountain_car_controller_reaches_the_goal():
    played = play(EnvConfig("MountainCar"), 20)
    assert all(episode.terminated for episode in played)
    assert np.mean([episode.length for episode in played]) <= 130


@pytest.mark.parametrize(
    ("name", "start", "least"),
    [
        ("CarRacing", "standard", 200),
        ("CarRacing", "shifted", 110),
        ("CarRacing3", "shifted", 130),
        ("CarRacingContinuous", "shifted", 150),
    ],
)
def test_the_car_racing_controllers_follow_the_track(monkeypatch, name, start, least):
    """A third of a lap, without pictures, which take most of the time."""
    black = np.zeros((1, 64, 64), np.uint8)
    monkeypatch.setattr("rlfd.envs.car_frames.Camera.picture", lambda camera: black)
    env = EnvConfig(name, start, {"max_steps": 330})
    actor = make_demonstrator("controller", env, seed=0)
    actor.reset(2)
    played = list(play_episodes(env, seeds=range(2), act=actor.act, states=actor.sees_states))
    assert min(episode.episode_return for episode in played) > least


def test_known_policies():
    assert policies(EnvConfig("LunarLander")) == ["controller", "random"]
    assert policies(EnvConfig("Acrobot-v1")) == ["random"]
    with pytest.raises(RlfdError, match="did you mean 'random'"):
        make_demonstrator("randm", EnvConfig("Acrobot"), seed=0)
    with pytest.raises(RlfdError, match="there is no controller for Acrobot"):
        make_demonstrator("controller", EnvConfig("Acrobot"), seed=0)


class Constant:
    """Always the same action."""

    sees_states = False

    def reset(self, n):
        self.n = n

    def act(self, observations, indices):
        return np.full(len(indices), 3)

    def describe(self):
        return {"policy": "constant"}


def answers(actor, batches):
    return np.concatenate(
        [actor.act(np.zeros((len(batch), 2)), np.array(batch)) for batch in batches]
    )


@pytest.mark.parametrize("kind", ["random", "noisy"])
def test_chance_belongs_to_the_episode_not_to_the_batch(kind):
    env = EnvConfig("LunarLander6")
    if kind == "random":
        actor = make_demonstrator("random", env, seed=3)
    else:
        actor = Noisy(Constant(), 0.5, spaces.Discrete(6), seed=3)
    actor.reset(3)
    together = answers(actor, [[0, 1, 2]] * 31).reshape(31, 3)
    actor.reset(3)
    apart = np.stack([answers(actor, [[index]] * 31) for index in (2, 0, 1)], axis=1)
    np.testing.assert_array_equal(together, apart[:, [1, 2, 0]])
    assert (together[:, 0] != together[:, 1]).any()


def test_noise_exchanges_the_share_it_says():
    actor = Noisy(Constant(), 0.3, spaces.Discrete(6), seed=0)
    actor.reset(1)
    share = np.mean(answers(actor, [[0]] * 5000) != 3)
    assert share == pytest.approx(0.3 * 5 / 6, abs=0.02)
    assert actor.describe() == {"policy": "constant", "noise": 0.3}
    assert (answers(Noisy(Constant(), 0.0, spaces.Discrete(6), 0), [[0]] * 50) == 3).all()
    for wrong in (-0.1, 1.5):
        with pytest.raises(RlfdError, match="noise must be a probability"):
            Noisy(Constant(), wrong, spaces.Discrete(6), 0)


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
def test_random_serves_every_action_space(name, tmp_path):
    env = EnvConfig(name)
    actor = make_demonstrator("random", env, seed=0)
    collected = demos.collect(env, actor, episodes=3, data_dir=tmp_path)
    loaded = demos.load("random", env=env, data_dir=tmp_path)
    assert loaded.info.content_hash == collected.info.content_hash
    assert loaded.action_space.contains(loaded.episodes[0].actions[0])


LANDER = EnvConfig("LunarLander")


def test_doing_nothing_takes_the_share_it_says():
    actor = Idle(Constant(), 0.3, LANDER, spaces.Discrete(4), seed=0)
    actor.reset(1)
    actions = answers(actor, [[0]] * 5000)
    assert set(actions) == {0, 3}  # 0: no engine
    assert np.mean(actions == 0) == pytest.approx(0.3, abs=0.02)
    assert actor.describe() == {"policy": "constant", "noop": 0.3}
    always = Idle(Constant(), 1.0, EnvConfig("MountainCar"), spaces.Discrete(3), seed=0)
    assert (answers(always, [[0]] * 50) == 1).all()
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(RlfdError, match="noop must be a probability"):
            Idle(Constant(), wrong, LANDER, spaces.Discrete(4), 0)


def test_doing_nothing_belongs_to_the_episode_not_to_the_batch():
    actor = Idle(Constant(), 0.5, LANDER, spaces.Discrete(4), seed=3)
    together = answers(actor, [[0, 1, 2]] * 31).reshape(31, 3)
    actor.reset(3)
    apart = np.stack([answers(actor, [[index]] * 31) for index in (2, 0, 1)], axis=1)
    np.testing.assert_array_equal(together, apart[:, [1, 2, 0]])
    assert (together[:, 0] != together[:, 1]).any()
    # nor is it drawn like the noise of the same seed
    noisy = answers(Noisy(Constant(), 0.5, spaces.Discrete(999), seed=3), [[0]] * 31)
    assert ((together[:, 0] == 0) != (noisy != 3)).any()


def test_continuous_actions_are_zero_where_that_is_allowed():
    actor = Idle(Middle(), 0.4, EnvConfig("Pendulum"), ARM, seed=0)
    actor.reset(1)
    actions = answers(actor, [[0]] * 500)
    assert actions.dtype == np.float32
    idle = (actions == 0).all(axis=1)
    assert idle.mean() == pytest.approx(0.4, abs=0.06)
    np.testing.assert_array_equal(actions[~idle], np.tile(np.float32([0, 2, 1]), (sum(~idle), 1)))
    positive = spaces.Box(0.5, 1.0, (2,), np.float32)
    with pytest.raises(RlfdError, match="no action that does nothing"):
        Idle(Middle(), 0.4, EnvConfig("Pendulum"), positive, seed=0)


def test_doing_nothing_may_take_several_choices():
    env = EnvConfig("LunarLanderMulti")
    inner = make_demonstrator("random", env, seed=1)
    actor = Idle(inner, 0.4, env, envs.make(env).action_space, seed=0)
    actor.reset(1)
    actions = answers(actor, [[0]] * 3000)
    assert actions.shape == (3000, 2)
    assert (actions == (0, 1)).all(axis=1).mean() == pytest.approx(0.4 + 0.6 / 6, abs=0.03)
    assert (actions == (1, 0)).all(axis=1).mean() == pytest.approx(0.6 / 6, abs=0.03)


def test_there_may_be_no_way_to_do_nothing():
    with pytest.raises(RlfdError, match="CartPole has no action that does nothing") as error:
        Idle(Constant(), 0.4, EnvConfig("CartPole"), spaces.Discrete(2), seed=0)
    assert "--noise" in error.value.hint
    assert "LunarLanderSingle, CarRacing, CarRacing3, Acrobot" in error.value.hint


def test_the_registry_names_what_does_nothing():
    """Lander: falls as with continuous throttles of 0. Car and arm: no force of their own."""
    lander = {
        "LunarLander": 0,
        "LunarLander6": 1,
        "LunarLanderMulti": (0, 1),
        "LunarLanderSingle": 0,
    }
    for name, known in lander.items():
        assert envs.spec(name).noop == known
        one, other = envs.make(EnvConfig(name)), envs.make(EnvConfig("LunarLanderContinuous"))
        for env in (one, other):
            env.reset(seed=3)
        for _ in range(30):
            ours = one.step(known)[0]
            theirs = other.step(np.zeros(2, np.float32))[0]
        np.testing.assert_array_equal(ours[:8], theirs)
    car = envs.make(EnvConfig("MountainCar"))
    assert (envs.spec("MountainCar").noop - 1) * car.unwrapped.force == 0
    arm = envs.make(EnvConfig("Acrobot"))
    assert arm.unwrapped.AVAIL_TORQUE[envs.spec("Acrobot").noop] == 0


ARM = spaces.Box(np.array([-1, 0, -3], np.float32), np.array([1, 4, 5], np.float32))


class Middle:
    """The middle of the arm's actions, or another point of it."""

    sees_states = False

    def __init__(self, at=(0.0, 2.0, 1.0)):
        self.at = np.array(at, np.float32)

    def reset(self, n):
        self.n = n

    def act(self, observations, indices):
        return np.tile(self.at, (len(indices), 1))

    def describe(self):
        return {"policy": "middle"}


def test_action_noise_is_gaussian_in_units_of_half_the_range():
    actor = Shaky(Middle(), 0.2, ARM, seed=0)
    actor.reset(1)
    actions = answers(actor, [[0]] * 4000)
    assert actions.dtype == np.float32
    units = (actions - [0, 2, 1]) / [1, 2, 4]  # of half the range
    np.testing.assert_allclose(units.mean(axis=0), 0.0, atol=0.012)
    np.testing.assert_allclose(units.std(axis=0), 0.2, rtol=0.04)
    assert np.abs(np.corrcoef(units.T) - np.eye(3)).max() < 0.06
    assert np.mean(np.abs(units) < 0.2) == pytest.approx(0.683, abs=0.02)
    assert actor.describe() == {"policy": "middle", "action_noise": 0.2}


def test_action_noise_is_clipped_to_the_bounds():
    corner = Middle((1.0, 0.0, 5.0))
    actor = Shaky(corner, 0.5, ARM, seed=0)
    actor.reset(1)
    actions = answers(actor, [[0]] * 500)
    assert ((actions >= ARM.low) & (actions <= ARM.high)).all()
    assert np.mean(actions == corner.at) == pytest.approx(0.5, abs=0.05)
    silent = Shaky(corner, 0.0, ARM, seed=0)
    silent.reset(1)
    assert (answers(silent, [[0]] * 9) == corner.at).all()


def test_action_noise_belongs_to_the_episode_not_to_the_batch():
    actor = Shaky(Middle(), 0.3, ARM, seed=3)
    actor.reset(3)
    together = answers(actor, [[0, 1, 2]] * 31).reshape(31, 3, 3)
    actor.reset(3)
    apart = np.stack([answers(actor, [[index]] * 31) for index in (2, 0, 1)], axis=1)
    np.testing.assert_array_equal(together, apart[:, [1, 2, 0]])
    assert (together[:, 0] != together[:, 1]).any()


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiBinary(2), spaces.Box(-np.inf, np.inf, (2,))]
)
def test_action_noise_needs_continuous_actions_with_bounds(space):
    with pytest.raises(RlfdError, match="action noise is for continuous actions with bounds"):
        Shaky(Constant(), 0.1, space, seed=0)


@pytest.mark.parametrize("std", [-0.1, np.inf, np.nan])
def test_action_noise_must_be_a_number(std):
    with pytest.raises(RlfdError, match="action noise must be at least 0"):
        Shaky(Middle(), std, ARM, seed=0)
