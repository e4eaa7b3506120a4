"""Odd spaces: what learners see and choose of them; datasets hold what environments take."""

import contextlib
import json

import gymnasium
import h5py
import numpy as np
import odd_worlds
import pytest
from gymnasium import spaces
from gymnasium.wrappers import (
    FilterObservation,
    FlattenObservation,
    ResizeObservation,
    TransformAction,
    TransformObservation,
)

from rlfd import demos, envs
from rlfd.algorithms.core.networks import convolved_size
from rlfd.demos import storage
from rlfd.envs import Adapter, EnvConfig, World
from rlfd.envs.adapter import SMALLEST
from rlfd.errors import RlfdError

SIGN = spaces.Box(-1.0, 1.0, (2,), np.float32)
TWO = spaces.Discrete(2)
PICTURE = spaces.Box(0, 255, (3, *odd_worlds.SIZE), np.uint8)
UNIT = spaces.Box(-1.0, 1.0, (1,), np.float32)


def bits(size):
    return spaces.Box(0.0, 1.0, (size,), np.float32)


def flat(low, high):
    return spaces.Box(np.array(low, np.float64), np.array(high, np.float64), dtype=np.float64)


SEEN = {
    "Signs": (SIGN, TWO),
    "Continuous": (SIGN, UNIT),
    "ActionTable": (SIGN, spaces.Box(-1.0, 1.0, (6,), np.float32)),
    "ActionScalar": (SIGN, UNIT),
    "ActionWhole": (SIGN, spaces.Box(-2.0, 2.0, (1,), np.float32)),
    "ActionDouble": (SIGN, spaces.Box(-1.0, 1.0, (1,), np.float64)),
    "ActionHeld": (SIGN, spaces.Box(np.float32([-1, -1]), np.float32([1, 3]))),
    "ActionHuge": (SIGN, spaces.Box(-2.0, 1.5, (1,), np.float32)),
    "ActionUnbounded": (SIGN, spaces.Box(-2.0, 1.5, (2,), np.float32)),
    "ActionHalfBounded": (SIGN, spaces.Box(-0.75, 1.5, (2,), np.float32)),
    "ActionFromOne": (SIGN, TWO),
    "ActionChoices": (SIGN, spaces.MultiDiscrete([2, 3, 2])),
    "ActionButtons": (SIGN, spaces.MultiBinary(6)),
    "ObservationNumber": (bits(4), TWO),
    "ObservationTable": (spaces.Box(-1.0, 1.0, (2, 3), np.float32), TWO),
    "ObservationNamed": (flat([0, 0, 0, -1, -1, 0, 0], [1] * 7), TWO),
    "ObservationPair": (bits(2 + 2 + 3), TWO),
    "ImageLast": (PICTURE, TWO),
    "ImageFirst": (PICTURE, TWO),
    "ImageGray": (spaces.Box(0, 255, (1, *odd_worlds.SIZE), np.uint8), TWO),
    "ImageStacks": (spaces.Box(0, 255, (6, *odd_worlds.SIZE), np.uint8), TWO),
}
WITHOUT_BOUNDS = ("ActionHuge", "ActionUnbounded", "ActionHalfBounded")
FRAMES = {"ImageLast": 1, "ImageFirst": 1, "ImageGray": 1, "ImageStacks": 2}


def config(kind, **form):
    if kind in WITHOUT_BOUNDS:
        form.setdefault("action_range", (-2.0, 1.5))
    return EnvConfig(odd_worlds.name(kind), **form)


def native(kind):
    return gymnasium.make(odd_worlds.name(kind), disable_env_checker=True)


def collect(env, data_dir, **options):
    actor = demos.make_demonstrator("random", env, seed=1)
    return demos.collect(env, actor, data_dir=data_dir, **options)


@pytest.mark.parametrize("kind", SEEN)
def test_what_learners_see_and_choose(kind):
    """The environment itself refuses what its action space does not hold."""
    form = envs.adapter(config(kind))
    expected = SEEN[kind]
    assert (form.observation_space, form.action_space) == expected
    assert form.frame_stack == envs.frame_stack(config(kind)) == FRAMES.get(kind, 0)
    with contextlib.closing(envs.make(config(kind))) as env:
        assert (env.observation_space, env.action_space) == expected
        observation, _ = env.reset(seed=3)
        env.action_space.seed(4)
        for _ in range(odd_worlds.STEPS):
            assert env.observation_space.contains(observation)
            observation = env.step(env.action_space.sample())[0]
        assert len(env.unwrapped.taken) == odd_worlds.STEPS


@pytest.mark.parametrize("kind", SEEN)
def test_datasets_hold_what_the_environment_takes_and_returns(kind, tmp_path):
    env = config(kind)
    made = collect(env, tmp_path, episodes=3)
    from minari.dataset.minari_storage import MinariStorage

    stored = MinariStorage.read(made.info.path / "data")
    with contextlib.closing(native(kind)) as outside:
        assert stored.observation_space == outside.observation_space
        assert stored.action_space == outside.action_space
        for episode, told in zip(stored.get_episodes(range(3)), made.episodes, strict=True):
            seen = [outside.reset(seed=told.seed)[0]]
            paid = []
            for action in episode["actions"]:
                observation, reward, *_ = outside.step(action)
                seen.append(observation)
                paid.append(reward)
            assert paid == list(episode["rewards"]) == list(told.rewards)
            for one, row in zip(seen, range(len(seen)), strict=True):
                kept = _row(episode["observations"], row)
                assert outside.observation_space.contains(one)
                _same(one, kept)

    loaded = demos.load(made.info.name, env=env, data_dir=tmp_path)
    assert loaded.info == made.info
    assert loaded.observation_space == SEEN[kind][0]
    for one, other in zip(loaded.episodes, made.episodes, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.actions.dtype == other.actions.dtype
        assert one.frame_stack == FRAMES.get(kind, 0)
    looked_at = demos.read(made.info.name, data_dir=tmp_path)
    assert looked_at.info.content_hash == made.info.content_hash
    demos.inspect(looked_at)


def _row(values, index):
    if isinstance(values, dict):
        return {key: _row(part, index) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_row(part, index) for part in values)
    return values[index]


def _same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = tuple(one[key] for key in one), tuple(other[key] for key in one)
    if isinstance(one, tuple):
        for first, second in zip(one, other, strict=True):
            _same(first, second)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["ActionTable", "ObservationNumber", "ImageStacks"])
def test_worlds_resume(kind):
    """What is replayed are the learner's actions."""
    first, second = (World(config(kind), num_envs=3, seed=5) for _ in range(2))
    first.action_space.seed(6)
    for _ in range(11):
        first.step(np.array([first.action_space.sample() for _ in range(3)]))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(second.observations, first.observations)
    assert second.observations.dtype == first.observation_space.dtype


def test_short_names_are_left_as_they_are():
    """Learners of what worked see what they saw."""
    for name in ("LunarLander", "LunarLanderMulti", "Hopper", "GridWorld", "CarRacing", "Pong"):
        form = envs.adapter(EnvConfig(name))
        with contextlib.closing(envs.make(EnvConfig(name))) as env:
            assert env.observation_space == form.observation_space
            assert env.action_space is form.action_space or env.action_space == form.stored[1]
            assert form.stored[1] == form.action_space
            stack = envs.spec(name).frame_stack
            if not stack:
                assert form.stored[0] == form.observation_space
            assert form.stack == form.frame_stack == stack


# What cannot be


def make_of(observations, actions=TWO):
    return Adapter("environment 'X'", observations, actions)


@pytest.mark.parametrize(
    ("kind", "said", "hint"),
    [
        ("ActionHuge", "actions without bounds.*expected a finite range", "--action-range -1 1"),
        ("ActionUnbounded", "actions without bounds.*expected a finite range", "--action-range"),
        ("ActionHalfBounded", "actions without bounds.*finite range", "TransformAction"),
        ("ActionFixed", "of which there is no choice", "TransformAction"),
        (
            "ActionNamed",
            "Dict actions, expected Discrete, Box, MultiDiscrete or",
            "TransformAction",
        ),
        ("ObservationWords", "Text observations, expected arrays and num", "TransformObservation"),
        ("ObservationMission", "observations with a Text among them", "FilterObservation"),
        ("ImageSmall", "images of 24 x 28 pixels, expected at least 36 x 36", "ResizeObservation"),
        ("ImageFractions", "images of float32.*expected bytes", "TransformObservation"),
        ("ImageBuried", r"image of shape \(40, 44, 3\) among", "FilterObservation"),
    ],
)
def test_what_no_learner_can_do_with_is_refused_before_it_is_recorded(kind, said, hint, tmp_path):
    env = EnvConfig(odd_worlds.name(kind))
    with pytest.raises(RlfdError, match=said) as error:
        collect(env, tmp_path, episodes=3)
    assert f"'{env.name}'" in error.value.message
    assert hint in error.value.hint
    assert not list(tmp_path.rglob("*"))


PIXELS = ImageBytes = spaces.Box(0, 255, (*odd_worlds.SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("kind", "wrapped", "expected"),
    [
        (
            "ActionUnbounded",
            lambda env: TransformAction(env, lambda a: 5 * a, spaces.Box(-1.0, 1.0, (2,))),
            (SIGN, spaces.Box(-1.0, 1.0, (2,))),
        ),
        ("ActionNamed", lambda env: TransformAction(env, lambda a: {"side": a}, TWO), (SIGN, TWO)),
        (
            "ObservationWords",
            lambda env: TransformObservation(env, lambda o: np.float32([len(o) / 5] * 2), SIGN),
            (SIGN, TWO),
        ),
        ("ObservationMission", lambda env: FilterObservation(env, ["sign"]), (UNIT, TWO)),
        (
            "ImageSmall",
            lambda env: ResizeObservation(env, (84, 84)),
            (spaces.Box(0, 255, (3, 84, 84), np.uint8), TWO),
        ),
        (
            "ImageSmall",
            FlattenObservation,
            (spaces.Box(0, 255, (24 * 28 * 3,), np.uint8), TWO),
        ),
        (
            "ImageFractions",
            lambda env: TransformObservation(env, lambda o: (255 * o).astype(np.uint8), PIXELS),
            (PICTURE, TWO),
        ),
        ("ImageBuried", lambda env: FilterObservation(env, ["noise"]), (UNIT, TWO)),
        (
            "ImageBuried",
            lambda env: TransformObservation(env, lambda o: o["image"], PIXELS),
            (PICTURE, TWO),
        ),
    ],
)
def test_the_advice_can_be_followed(kind, wrapped, expected):
    gymnasium.register("Advised-v0", lambda **kwargs: wrapped(native(kind)))
    try:
        with contextlib.closing(envs.make(EnvConfig("Advised-v0"))) as env:
            assert (env.observation_space, env.action_space) == expected
            observation, _ = env.reset(seed=1)
            assert env.observation_space.contains(observation)
    finally:
        del gymnasium.registry["Advised-v0"]


def test_convolutions_take_what_is_called_an_image():
    assert convolved_size((1, SMALLEST, SMALLEST)) > 0
    assert convolved_size((1, SMALLEST - 1, 84)) == 0


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), (7, 7, 3)),  # a grid of a few codes
        (spaces.Box(0, 255, (19, 19, 3), np.uint8), (19, 19, 3)),
        (spaces.Box(0, 1, (24, 24, 17), np.uint8), (24, 24, 17)),  # planes of a board
        (spaces.Box(0, 1, (84, 84), np.float32), (84, 84)),
        (spaces.Box(-1, 1, (84, 84, 3), np.float32), (84, 84, 3)),
        (spaces.Box(0, 255, (128,), np.uint8), (128,)),
        (spaces.Box(0, 255, (2, 40, 44, 3), np.uint8), (6, 40, 44)),
        (spaces.Box(0, 255, (2, 4, 40, 44), np.uint8), (8, 40, 44)),
        (spaces.Box(0, 255, (40, 44, 1), np.uint8), (1, 40, 44)),
        (spaces.Box(0, 255, (12, 40, 44), np.uint8), (12, 40, 44)),
    ],
)
def test_which_arrays_are_images(space, seen):
    form = make_of(space)
    assert form.observation_space.shape == seen
    assert form.frame_stack == (len(seen) == 3 and seen[1:] == (40, 44))
    rows = np.stack([space.sample() for _ in range(5)])
    read = form.read_observations(rows)
    assert form.observation_space.contains(read[3])
    np.testing.assert_array_equal(form.write_observations(read), rows)


def test_channels_last_are_transposed_by_hand():
    space = spaces.Box(0, 255, (36, 37, 3), np.uint8)
    picture = space.sample()
    read = make_of(space).read_observations(picture[None])
    assert read.flags.c_contiguous
    for channel in range(3):
        np.testing.assert_array_equal(read[0, channel], picture[:, :, channel])


# Ranges and stacks


@pytest.mark.parametrize(
    ("space", "least", "most", "expected"),
    [
        (spaces.Box(-3, np.inf, (2,)), -5.0, 4.0, (-3.0, 4.0)),
        (spaces.Box(-1, 1, (2,)), -0.5, 4.0, (-0.5, 1.0)),
        (spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32), -5.0, 4.0, (-5.0, 4.0)),
    ],
)
def test_a_range_is_within_the_environments_own(space, least, most, expected):
    form = Adapter("environment 'X'", SIGN, space, action_range=(least, most))
    np.testing.assert_array_equal(form.action_space.low, [expected[0]] * 2)
    np.testing.assert_array_equal(form.action_space.high, [expected[1]] * 2)


def test_a_range_that_leaves_nothing_is_refused():
    with pytest.raises(RlfdError, match="no choice from 2 to 3"):
        Adapter("environment 'X'", SIGN, UNIT, action_range=(2, 3))
    with pytest.raises(RlfdError, match="a range is for continuous ones"):
        Adapter("environment 'X'", SIGN, TWO, action_range=(2, 3))
    for env, said in (
        (EnvConfig("Hopper", action_range=(0.0, 1.0)), "--action-range are for Gymnasium ids"),
        (EnvConfig("Pong", frame_stack=2), "--frame-stack are for Gymnasium ids"),
        (EnvConfig("Pendulum-v1", action_range=(1.0, 1.0)), "expected LOW below HIGH"),
        (EnvConfig("Pendulum-v1", action_range=(0.0, np.inf)), "expected LOW below HIGH"),
        (EnvConfig("Pendulum-v1", frame_stack=-1), "a stack of -1 frames"),
    ):
        with pytest.raises(RlfdError, match=said):
            envs.check(env)
    for env in (config("Signs", frame_stack=4), config("ImageStacks", frame_stack=4)):
        with pytest.raises(RlfdError, match="expected single images"):
            envs.adapter(env)


def test_the_form_is_a_part_of_the_config():
    env = config("ActionHuge", frame_stack=3)
    value = json.loads(json.dumps(env.to_json()))
    assert EnvConfig.from_json(value) == env
    assert set(EnvConfig("CartPole").to_json()) == {"name", "start", "options", "reward"}
    for wrong in ({"action_range": [1]}, {"action_range": "ab"}, {"frame_stack": 1.5}):
        with pytest.raises(RlfdError, match=next(iter(wrong))):
            EnvConfig.from_json(value | wrong)


@pytest.mark.parametrize("kind", ["ImageLast", "ImageFirst", "ImageGray"])
def test_stacks_are_made_of_single_images(kind, tmp_path):
    env = config(kind, frame_stack=3)
    form = envs.adapter(env)
    channels = SEEN[kind][0].shape[0]
    assert form.observation_space.shape == (3 * channels, *odd_worlds.SIZE)
    assert envs.frame_stack(env) == 3
    made = collect(env, tmp_path, episodes=2, name="stacks")
    with h5py.File(made.info.path / "data" / "main_data.hdf5") as file:
        stored = file["episode_0"]["observations"]
        assert stored.shape == (odd_worlds.STEPS + 1, *native(kind).observation_space.shape)
        assert stored.compression == "gzip"
    with contextlib.closing(envs.make(env)) as played:
        seen = [played.reset(seed=made.episodes[0].seed)[0]]
        seen += [played.step(action)[0] for action in made.episodes[0].actions]
    loaded = demos.load("stacks", env=env, data_dir=tmp_path)
    for one in (made, loaded):
        np.testing.assert_array_equal(one.episodes[0].observations, seen)
        strides = one.episodes[0].observations.strides
        assert strides[0] == channels * strides[1]  # a frame is not copied for its stacks
    for newest, before in ((2, 1), (5, 4)):  # the newest is the last
        np.testing.assert_array_equal(
            seen[newest][channels : 2 * channels], seen[before][2 * channels :]
        )
    np.testing.assert_array_equal(seen[0][:channels], seen[0][2 * channels :])

    alone = demos.load("stacks", env=config(kind), data_dir=tmp_path)
    assert alone.info.content_hash == made.info.content_hash
    np.testing.assert_array_equal(
        alone.episodes[0].observations, [stack[2 * channels :] for stack in seen]
    )


def test_whole_numbers_are_recorded_as_they_were_taken(tmp_path):
    env = config("ActionWhole")
    made = collect(env, tmp_path, episodes=2)
    actions = np.concatenate([one.actions for one in made.episodes])
    assert actions.dtype == np.float32
    assert set(np.unique(actions)) == {-2.0, -1.0, 0.0, 1.0, 2.0}


# Gymnasium's part, as it is relied on


def test_what_gymnasium_does():
    one_hot = spaces.flatten(spaces.Discrete(4, start=2), 3)
    assert one_hot.tolist() == [0, 1, 0, 0]
    named = spaces.Dict({"b": spaces.Box(0, 9, (2,)), "a": spaces.Discrete(2)})
    assert spaces.flatten(named, {"b": np.float32([5, 6]), "a": 1}).tolist() == [0, 1, 5, 6]
    env = TransformAction(native("Signs"), lambda action: action - 5, spaces.Discrete(2, start=5))
    assert env.action_space == spaces.Discrete(2, start=5)
    env.reset(seed=1)
    env.step(np.int64(6))
    assert env.unwrapped.taken == [1]


def test_datasets_with_a_legacy_form_are_read(tmp_path):
    """Until now tables of buttons were stored in one row."""
    env = config("ActionButtons")
    made = collect(env, tmp_path, episodes=2, name="now")
    flat_form = Adapter("dataset 'old'", SIGN, spaces.MultiBinary(6))
    old = storage.write_demonstrations(
        made.episodes, env=env, adapter=flat_form, demonstrator={}, name="old", data_dir=tmp_path
    )
    loaded = demos.load("old", env=env, data_dir=tmp_path)
    assert old.info.content_hash != made.info.content_hash
    np.testing.assert_array_equal(loaded.episodes[1].actions, made.episodes[1].actions)
