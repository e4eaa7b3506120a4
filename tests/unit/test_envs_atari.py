"""Atari games on the installed wheel: equal to Gymnasium's pipeline, and none of the traps."""

import inspect
import json

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from rlfd import envs
from rlfd.envs import EnvConfig, World, atari, play_episodes
from rlfd.envs.atari import AtariGame, Emulators
from rlfd.errors import RlfdError


def checked(name, **options):
    return envs.check(EnvConfig(name, options=options))


def draw(space, rng, count):
    sizes = space.nvec if hasattr(space, "nvec") else space.n
    return rng.integers(sizes, size=(count, *space.shape))


def native(game, num_envs=3, **kwargs):
    """Return ALE's vector with its own defaults, besides what is given."""
    return AtariVectorEnv(game, num_envs, num_threads=2, **kwargs)


# What is played


class _Beginning(gymnasium.Wrapper):
    """Let a plain emulator begin an episode as one of the vector did."""

    seed, frames = -1, 0

    def reset(self, **_):
        inner = self.env.unwrapped
        if self.seed >= 0:
            inner.ale.setInt("random_seed", int(self.seed))
            inner.load_game()
        inner.ale.reset_game()
        while inner.ale.getEpisodeFrameNumber() < self.frames:
            inner.ale.act(0)
        return inner._get_obs(), inner._get_info()


def pipeline(config):
    """Return the wrapper to begin with, and Gymnasium's own preprocessing around it."""
    given = config.options
    env = gymnasium.make(
        envs.spec(config.name).gym_id,
        frameskip=1,
        repeat_action_probability=given["sticky"],
        full_action_space=given["actions"] == "full",
    )
    beginning = _Beginning(env.unwrapped)
    size = int(given["size"])
    processed = AtariPreprocessing(
        beginning, noop_max=0, frame_skip=int(given["frame_skip"]), screen_size=size
    )
    return beginning, FrameStackObservation(processed, 4)


@pytest.mark.parametrize(
    ("config", "count", "ends"),
    [
        (checked("Breakout"), 2, 2),
        (checked("Frogger", sticky=0.0), 1, 1),
        (checked("Kaboom", actions="full", frame_skip=3, size=61, noop_max=9), 1, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_frame_for_frame_equal_to_gymnasiums_pipeline(config, count, ends, monkeypatch):
    """Over whole episodes, the first of a seed, those after it, and one with a seed of its own."""
    monkeypatch.setattr(atari, "RESEED_STEPS", 250)
    vector, rng = Emulators(config, count), np.random.default_rng(3)
    observations = vector.start(range(4, 4 + count))
    plain = [pipeline(config) for _ in range(count)]
    seen, seeded, rewarded = np.zeros(count, int), 0, 0
    for index in range(count):
        plain[index][0].seed = vector.emulator_seeds[index]
        plain[index][0].frames = vector.frames[index]
        np.testing.assert_array_equal(plain[index][1].reset()[0], observations[index])
    assert observations[:, :-1].any()  # no zeros before the first frame
    while seen.min() < ends:
        actions = draw(vector.action_space, rng, count)
        step = vector.step(actions)
        for index, (beginning, env) in enumerate(plain):
            observation, reward, terminated, truncated, info = env.step(actions[index])
            np.testing.assert_array_equal(observation, step.next_observations[index])
            assert (reward, terminated) == (step.rewards[index], step.terminated[index])
            assert truncated == step.truncated[index] == False  # noqa: E712
            rewarded += reward != 0
            assert terminated == (index in step.infos)
            if not terminated:
                assert info["lives"] == vector.lives[index]
                continue
            seen[index] += 1
            beginning.seed, beginning.frames = vector.emulator_seeds[index], vector.frames[index]
            seeded += beginning.seed >= 0
            np.testing.assert_array_equal(env.reset()[0], step.observations[index])
    assert (seeded > 0) == (config.name != "Kaboom")
    assert rewarded > 0
    for _, env in plain:
        env.close()


def test_every_game_of_ale_has_a_short_name():
    registered = [name for name in gymnasium.registry if name.startswith("ALE/")]
    assert {f"ALE/{name}-v5" for name in atari.games()} == set(registered)
    assert {"Pong", "SpaceInvaders", "DemonAttack", "MsPacman", "Breakout"} <= set(atari.games())
    assert len(registered) > 100
    assert set(atari.games()) <= set(envs.names())


def test_an_episode_is_cut_after_its_frames():
    env = envs.make(checked("Pong", max_frames=38, frame_skip=5))
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(8)]
    assert ends == [(False, False)] * 7 + [(False, True)]


def test_the_joystick_presses_what_it_says():
    vector = Emulators(checked("Pong", actions="joystick"), 1)
    assert vector.action_space.nvec.tolist() == [2, 3, 3]
    legal = vector._envs.ale.get_action_set()
    pressed = set()
    for fire in range(2):
        for horizontal, sideways in enumerate(("LEFT", "", "RIGHT")):
            for vertical, upwards in enumerate(("DOWN", "", "UP")):
                number = vector._numbers[fire, horizontal, vertical]
                name = upwards + sideways + ("FIRE" if fire else "")
                assert ale_py.Action(legal[number]).name == (name or "NOOP")
                pressed.add(int(number))
    assert pressed == set(range(18))
    config = checked("Pong", actions="joystick")
    assert envs.noop(config) == (0, 1, 1)
    assert vector._numbers[envs.noop(config)] == 0
    assert envs.noop(checked("Pong")) == 0

    both = Emulators(checked("Pong", actions="full"), 1)
    vector.start([1]), both.start([1])
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = draw(vector.action_space, rng, 1)
        one, other = vector.step(actions), both.step(vector._numbers[tuple(actions.T)])
        np.testing.assert_array_equal(one.next_observations, other.next_observations)


SCORE_IN_MEMORY = {  # bytes, as binary coded decimals
    "Pong": (13, 14),
    "Asterix": (94, 95, 96),
    "BeamRider": (9, 10, 11),
    "Boxing": (18, 19),
    "Breakout": (76, 77),
    "DemonAttack": (1, 3, 5),
    "Enduro": (43, 44, 45),
    "Freeway": (103, 104),
    "MontezumaRevenge": (19, 20, 21),
    "MsPacman": (120, 121, 122),
    "Qbert": (89, 90, 91),
    "Seaquest": (56, 57, 58),
    "SpaceInvaders": (102, 104),
}


@pytest.mark.parametrize("name", atari.SCORES)
def test_the_score_is_where_the_mask_is(name):
    """Another score in the game's memory changes pixels of the mask, and no others."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", 1)
    emulator.loadROM(roms.get_rom_path(atari.games()[name]))
    emulator.reset_game()
    rng, actions, pictures = np.random.default_rng(0), emulator.getMinimalActionSet(), []
    for _ in range(300):
        emulator.act(actions[rng.integers(len(actions))])
    assert not emulator.game_over()
    assert emulator.getScreenDims() == atari.SCREEN
    before = emulator.cloneState(include_rng=True)
    places = SCORE_IN_MEMORY[name]
    for number in range(10):
        emulator.restoreState(before)
        for place in places if number else ():  # the first picture is that of the true score
            tens, ones = rng.integers(10, size=2)
            # Pong counts to 21, in binary, and then ends the game
            emulator.setRAM(place, int(tens + ones if name == "Pong" else 16 * tens + ones))
        for _ in range(2):
            emulator.act(0)
            pictures.append(emulator.getScreenGrayscale())
    pictures = np.reshape(pictures, (10, 2, *atari.SCREEN))
    different = (pictures[1:] != pictures[0]).any(axis=(0, 1))
    assert different.any()
    for top, bottom, left, right in atari.SCORES[name]:
        assert different[top:bottom, left:right].any()
        different[top:bottom, left:right] = False
    assert not different.any()


def test_the_mask_blackens_the_score_and_nothing_else():
    masked, bare = (Emulators(checked("Breakout", mask_score=on), 2) for on in (1, 0))
    pairs = [(masked.start([1, 2]), bare.start([1, 2]))]
    rng = np.random.default_rng(0)
    for _ in range(5):
        actions = rng.integers(4, size=2)
        one, other = masked.step(actions), bare.step(actions)
        pairs.append((one.next_observations, other.next_observations))
    hidden = np.zeros((84, 84), bool)
    hidden[1:7, 16:47] = True  # rows 4 to 16 of 210, columns 32 to 88 of 160
    for one, other in pairs:
        np.testing.assert_array_equal(one, np.where(hidden, 0, other))
        assert (other[:, :, hidden] > 0).any()


# The traps of ALE's vector: what it does, and that ours does not


def test_defaults_of_the_vector_that_are_not_ours():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(AtariVectorEnv).parameters.items()
    }
    assert defaults["repeat_action_probability"] == 0.0
    assert gymnasium.spec("ALE/Pong-v5").kwargs["repeat_action_probability"] == 0.25
    assert envs.spec("Pong").options["sticky"] == 0.25
    assert defaults["reward_clipping"] is True
    assert defaults["use_fire_reset"] is True


def test_stickiness_is_passed_on():
    def play(sticky, seed):
        vector = Emulators(checked("Breakout", sticky=sticky, noop_max=1), 1)
        vector.start([seed])
        rng = np.random.default_rng(0)
        return np.concatenate(
            [vector.step(rng.integers(4, size=1)).next_observations for _ in range(40)]
        )

    def vary(sticky):
        return len({play(sticky, seed).tobytes() for seed in range(2)}) > 1

    assert vary(0.25)
    assert not vary(0.0)


def test_rewards_are_raw_and_clipped_for_learners_only():
    clipping = native("qbert", 1)
    clipping.reset(seed=np.array([3]))
    config = EnvConfig("Qbert")
    world, plain = (
        World(env, num_envs=1, seed=0)
        for env in (config, EnvConfig("Qbert", options={"clip_rewards": 0}))
    )
    rng, seen = np.random.default_rng(0), set()
    rows = []
    for _ in range(120):
        actions = rng.integers(6, size=1)
        clipped = clipping.step(actions)
        seen.add(int(clipped[1][0]))
        assert set(clipped[4]) <= {"env_id", "lives", "frame_number", "episode_frame_number"}
        row, other = world.step(actions), plain.step(actions)
        np.testing.assert_array_equal(row.learner_rewards, np.sign(row.rewards))
        np.testing.assert_array_equal(other.learner_rewards, row.rewards)
        rows.append(row)
    assert seen == {0, 1}
    assert max(row.rewards.max() for row in rows) == 25.0
    played = next(play_episodes(config, seeds=[1], act=act, record=True))
    assert played.episode_return == played.rewards.sum()


def test_the_vectors_own_reset_hides_lives_and_last_observations():
    """Why the reset is not left to it: in the same step, these are not to be had."""
    vector = native("breakout", autoreset_mode="SameStep", use_fire_reset=False)
    vector.reset(seed=np.arange(3))
    rng = np.random.default_rng(0)
    while True:
        observations, _, over, _, info = vector.step(rng.integers(4, size=3))
        if over.any():
            break
        assert "final_obs" not in info
    assert not over.all()
    assert info["lives"][over].tolist() == [5] * over.sum()  # those after the reset
    rest = ~over
    assert info["final_obs"].shape == observations.shape
    assert (info["final_obs"][rest] != observations[rest]).any()  # never filled

    ours = Emulators(checked("Breakout", sticky=0.0), 3)
    ours.start([0, 1, 2])
    while True:
        ours.send(rng.integers(4, size=3))
        observations, _, over, _, _ = ours.receive()
        if over.any():
            break
    assert ours.lives[over].tolist() == [0] * over.sum()
    following = ours.renew(np.flatnonzero(over))
    np.testing.assert_array_equal(following[~over], observations[~over])
    assert (following[over] != observations[over]).any()
    # and it does not reset once more with the next step
    frames = ours.frames[over]
    ours.step(np.zeros(3, np.int64))
    np.testing.assert_array_equal(ours.frames[over], frames + 4)


def test_life_loss_plays_on():
    """The vector's `episodic_life` begins the whole game anew; here nothing is lost but a life."""
    restarting = native("breakout", 1, episodic_life=True, use_fire_reset=False)
    restarting.reset(seed=np.array([0]))
    rng = np.random.default_rng(0)
    while not restarting.step(rng.integers(4, size=1))[2][0]:
        pass
    assert restarting.step(np.array([0]))[4]["lives"][0] == 5

    config = EnvConfig("Breakout", options={"life_loss": 1})
    world, whole = (World(env, num_envs=2, seed=5) for env in (config, EnvConfig("Breakout")))
    losses, rng, records = 0, np.random.default_rng(1), []
    while len(records) < 2:
        actions = rng.integers(4, size=2)
        row, other = world.step(actions), whole.step(actions)
        for field in ("observations", "next_observations", "rewards", "truncated"):
            np.testing.assert_array_equal(getattr(row, field), getattr(other, field))
        ended = world.drain_episodes()
        assert ended == whole.drain_episodes()  # whole games
        records += ended
        losses += (row.terminated & ~other.terminated).sum()
        assert (row.terminated | ~other.terminated).all()
    assert losses >= 4 * len(records)  # of five lives the last one ends the game
    played = next(
        play_episodes(config, seeds=[1], act=lambda o, i: rng.integers(4, size=1), record=True)
    )
    assert played.terminated
    assert played.length > 100


def test_rows_stay_with_their_environments_and_arrays_are_new():
    vector = Emulators(checked("Pong"), 3)
    vector.start([1, 2, 3])
    assert vector._envs.batch_size == 3
    kept, copies = [], []
    for _ in range(20):
        vector.send(np.zeros(3, np.int64))
        result = vector._envs.recv()
        assert result[4]["env_id"].tolist() == [0, 1, 2]
        kept.append(result[0])
        copies.append(result[0].copy())
    for one, other in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(one, other)


# Seeds, saving


def test_seeds_and_threads():
    config = checked("Breakout")
    one, other = Emulators(config, 3, num_threads=1), Emulators(config, 3, num_threads=2)
    for vector in (one, other):
        vector.start(range(3))
    assert len(set(one.emulator_seeds)) == 3
    assert len(set(one.frames.tolist())) > 1
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(4, size=3)
        np.testing.assert_array_equal(
            one.step(actions).next_observations, other.step(actions).next_observations
        )
    again = AtariGame(config)
    observation, info = again.reset(seed=2)
    assert info == {"lives": 5}
    np.testing.assert_array_equal(observation, Emulators(config, 1).start([2])[0])


def assert_goes_on_alike(world, other, rng, steps):
    for _ in range(steps):
        actions = draw(world.action_space, rng, world.num_envs)
        one, two = world.step(actions), other.step(actions)
        for field in envs.Transitions.__slots__:
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field), field)
        np.testing.assert_array_equal(world.observations, other.observations)
    assert world.drain_episodes() == other.drain_episodes()


def test_a_restored_world_goes_on_bit_for_bit(monkeypatch):
    monkeypatch.setattr(atari, "RESEED_STEPS", 250)
    config = EnvConfig("Breakout", options={"life_loss": 1})
    world, rng = World(config, num_envs=2, seed=6), np.random.default_rng(11)
    while not any(saved["generator"] for saved in world._vector.state()):
        world.step(rng.integers(4, size=2))
    for _ in range(3):
        world.step(rng.integers(4, size=2))
    state = world.state_dict()
    # one was seeded anew, from a generator; the other has not needed it yet
    assert {saved["seed"] is None for saved in state["envs"]} == {True, False}
    assert sorted(len(saved["actions"]) for saved in state["envs"])[0] == 3
    assert len(state["finished"]) >= 3
    assert all(saved["actions"].dtype == np.uint8 for saved in state["envs"])
    json.dumps([{**saved, "actions": saved["actions"].tolist()} for saved in state["envs"]])
    other = World(config, num_envs=2, seed=77)
    other.load_state_dict(state)
    assert_goes_on_alike(world, other, rng, 50)
    third = World(config, num_envs=2, seed=1)
    third.load_state_dict(other.state_dict())
    assert_goes_on_alike(world, third, rng, 5)


def test_a_world_is_saved_before_its_first_step():
    config = EnvConfig("Pong", options={"actions": "joystick", "sticky": 0.0})
    world, other = (World(config, num_envs=2, seed=seed) for seed in (3, 4))
    other.load_state_dict(world.state_dict())
    assert_goes_on_alike(world, other, np.random.default_rng(0), 9)


def test_a_world_that_was_saved_otherwise_is_refused():
    world = World(EnvConfig("Pong"), num_envs=2, seed=0)
    for _ in range(5):
        world.step(np.array([2, 3]))
    state = world.state_dict()
    with pytest.raises(RlfdError, match="the saved world has 2 of"):
        World(EnvConfig("Pong", options={"sticky": 0.0}), num_envs=2, seed=0).load_state_dict(state)
    state["envs"][1]["actions"] = np.full(5, 2, np.uint8)
    with pytest.raises(RlfdError, match="something else when its actions were replayed"):
        world.load_state_dict(state)


# Episodes


def act(observations, indices):
    """Depends on what is seen, and fires often enough to lose."""
    return (observations.reshape(len(observations), -1).sum(1, dtype=np.int64) + indices) % 4


def test_episodes_do_not_depend_on_how_many_run_at_a_time():
    config = EnvConfig("Breakout", options={"max_frames": 300})
    alone, beside = (
        list(play_episodes(config, seeds=[5, 3, 5], act=act, num_envs=n, record=True))
        for n in (1, 3)
    )
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, other.rewards)
        assert (one.truncated, one.length) == (True, 75)


def test_recorded_frames_are_kept_once_and_give_the_stacks_back():
    config = EnvConfig("Breakout", options={"max_frames": 100})
    (played,) = play_episodes(config, seeds=[2], act=act, record=True)
    env = envs.make(config)
    observations = [env.reset(seed=2)[0]]
    observations += [env.step(action)[0] for action in played.actions]
    np.testing.assert_array_equal(played.observations, observations)
    strides = played.observations.strides
    assert strides[0] == strides[1] == 84 * 84  # a frame is not copied for its four stacks
    np.testing.assert_array_equal(
        envs.unstack_frames(played.observations, 4), played.observations[:, 3]
    )


def test_stacks_of_frames_by_hand():
    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    stacks = envs.stack_frames(frames, 3)
    assert stacks[:, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    np.testing.assert_array_equal(envs.unstack_frames(stacks, 3), frames)


def test_pictures_are_of_the_game_that_is_played():
    env = AtariGame(checked("Breakout"), "rgb_array")
    rng = np.random.default_rng(0)
    ended = 0
    env.reset(seed=6)
    while ended < 2:
        over = env.step(rng.integers(4))[2]
        assert env._screen._ale.getEpisodeFrameNumber() == env._lane.frames[0]
        assert env._screen._ale.lives() == env._lane.lives[0]
        if over:
            ended += 1
            env.reset()
            assert env._screen._ale.getEpisodeFrameNumber() == env._lane.frames[0]
    picture = env.render()
    assert picture.shape == (210, 160, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5  # in colours
