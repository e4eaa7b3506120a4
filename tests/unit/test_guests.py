"""Environments of other people: what they may do, and what they are told when they do not."""

import os
import signal
from pathlib import Path

import numpy as np
import odd_behaviour
import pytest

from rlfd import demos
from rlfd.envs import LIMIT, EnvConfig, EnvSpec, Findings, World, make, play_episodes, probe
from rlfd.errors import GuestFailed, RlfdError


def odd(name):
    return EnvConfig(f"odd_behaviour:Odd/{name}")


def rightwards(observations, _):
    return np.full(len(observations), 2)


def play(name, *, act=rightwards, seeds=(3, 8, 5), num_envs=2, **kwargs):
    return list(play_episodes(odd(name), seeds=seeds, act=act, num_envs=num_envs, **kwargs))


def live(name, *, num_envs=2, steps=9):
    """Let a world make steps to the right; return all that came of it."""
    world = World(odd(name), num_envs=num_envs, seed=5)
    try:
        return [world.step(np.full(num_envs, 2)) for _ in range(steps)]
    finally:
        world.close()


# What is handed over


def pushes():
    return np.array([[0.5, -0.25, 1.0], [-0.5, 0.0, 0.75]], np.float32)


def test_played_actions_are_not_lent():
    for played in play("WritesIntoActions", act=lambda o, _: pushes()[: len(o)], record=True):
        assert np.abs(played.actions).max() <= 1.0
        assert played.actions.dtype == np.float32


def test_actions_of_a_world_are_not_lent():
    world = World(odd("WritesIntoActions"), num_envs=2, seed=5)
    taken = [world.step(pushes()) for _ in range(3)]
    for transitions in taken:
        np.testing.assert_array_equal(transitions.actions, pushes())
    other = World(odd("WritesIntoActions"), num_envs=2, seed=6)
    other.load_state_dict(world.state_dict())  # its history has the actions as they were
    np.testing.assert_array_equal(other.step(pushes()).rewards, world.step(pushes()).rewards)


# The contract

REFUSED = {
    "FractionsAsBytes": ("observation of float32 in reset", "expected uint8"),
    "WrongShape": (r"observation of shape \(2, 1\) in reset", r"expected \(2,\)"),
    "Ragged": ("a ragged observation in reset", "expected one array"),
    "TwoRewards": (r"reward of shape \(2,\) in step 1", "expected one number"),
    "NoReward": ("reward, None in step 1", "expected one number"),
    "NoOptions": (r"has reset\(self, seed=None\)", "expected reset.*options=None"),
    "ObservationAlone": (r"returned ndarray of shape \(2,\) from reset", "expected a pair"),
    "FourValues": ("returned 4 values from step", "expected five: observation"),
    "InfoIsNone": ("returned NoneType as info in step 1", "expected a dictionary"),
}


@pytest.mark.parametrize("how", [play, live])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_against_the_interface_is_refused(name, how):
    happened, expected = REFUSED[name]
    with pytest.raises(RlfdError, match=f"'odd_behaviour:Odd/{name}' .*{happened}.*, {expected}"):
        how(name)


def test_an_observation_outside_of_its_space_is_refused():
    from rlfd.envs.guest import Guest

    env = Guest(odd_behaviour.OutsideOfDiscrete(), "mine")
    with pytest.raises(RlfdError, match=r"observation 4 in reset, expected one of Discrete\(4\)"):
        env.reset(seed=3)


def test_a_reward_in_an_array_is_one_number():
    assert [one.episode_return for one in play("RewardInArray")] == 3 * [13 * 0.25]
    assert {float(value) for step in live("RewardInArray") for value in step.rewards} == {0.25}


def test_whole_numbers_may_be_bytes():
    (played,) = play("WholeNumbersAsBytes", seeds=[3], record=True)
    assert played.observations.dtype == np.uint8
    assert played.observations[:, 1].tolist() == 14 * [7]
    env = make(odd("WholeNumbersAsBytes"))
    env.reset(seed=3)
    env.unwrapped.observe = lambda: [256, 7]
    with pytest.raises(RlfdError, match=r"observation of int64 in step 1, \[256, +7\]"):
        env.step(1)


# What it raises


def line_of(text):
    lines = Path(odd_behaviour.__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("how", [play, live])
def test_its_exceptions_are_its_own(how, monkeypatch):
    monkeypatch.setattr(odd_behaviour.Breaks, "steps", 0)
    with pytest.raises(GuestFailed) as caught:
        how("Breaks", num_envs=1)
    assert caught.value.message == (
        "environment 'odd_behaviour:Odd/Breaks' raised ConnectionError in step 6 of an episode: "
        f"the simulator went away ({odd_behaviour.__file__}, line {line_of('people are told')})"
    )


def test_an_exception_without_words_is_told_by_its_type():
    with pytest.raises(GuestFailed, match=r"raised AssertionError in its reset \(.*, line \d+\)"):
        play("BreaksInReset")
    with pytest.raises(RlfdError, match="cannot be made: AssertionError: it was made"):
        make(odd("CannotBeMade"))


@pytest.mark.parametrize(
    ("problem", "advised"), [(ConnectionError("gone"), False), (ValueError("both"), True)]
)
def test_advice_on_choices_is_for_choices(problem, advised, monkeypatch):
    monkeypatch.setattr(odd_behaviour.BreaksWithChoices, "problem", problem)
    monkeypatch.setattr(odd_behaviour.BreaksWithChoices, "steps", 5)
    env = make(odd("BreaksWithChoices"))
    env.reset(seed=3)
    with pytest.raises(GuestFailed) as caught:
        env.step(np.array([1, 4]))
    assert ("ExclusiveButtons" in caught.value.hint) is advised
    assert ("[1, 4]" in caught.value.message) is advised


def test_a_class_without_render_mode_is_told_so():
    assert len(play("CannotBeDrawn")) == 3
    with pytest.raises(RlfdError, match="cannot be drawn: its class takes no render_mode"):
        play("CannotBeDrawn", frames=1)


# One instance


@pytest.mark.parametrize("frames", [0, 2])
def test_a_single_instance_plays_one_episode_after_the_other(frames):
    usual = [one.episode_return for one in play("Point")]
    alone = play("Single", frames=frames)
    assert [one.episode_return for one in alone] == usual
    assert [len(one.frames) for one in alone] == [14 if i < frames else 0 for i in range(3)]
    assert odd_behaviour.Single.there == 0


def test_a_world_lends_its_only_instance():
    usual = World(odd("Point"), num_envs=1, seed=5)
    single = World(odd("Single"), num_envs=1, seed=5)
    actions = np.random.default_rng(3).integers(3, size=(40, 1))
    for step, action in enumerate(actions):
        if step in (9, 26):
            borrowed = play("Single", lend=single.lend)
            assert [one.episode_return for one in borrowed] == [
                one.episode_return for one in play("Point")
            ]
        one, other = usual.step(action), single.step(action)
        np.testing.assert_array_equal(one.next_observations, other.next_observations)
        np.testing.assert_array_equal(one.rewards, other.rewards)
    assert usual.drain_episodes() == single.drain_episodes()
    single.close()
    assert odd_behaviour.Single.there == 0


def test_several_of_a_single_instance_are_refused():
    with pytest.raises(RlfdError, match=r"1 of 3 environments could be made.*port 2000") as caught:
        World(odd("Single"), num_envs=3, seed=5)
    assert "--num-envs 1" in caught.value.hint
    assert odd_behaviour.Single.there == 0


# Success


@pytest.mark.parametrize("name", ["IsSuccess", "Success"])
def test_the_usual_names_of_success_are_a_success_test(name):
    assert [one.success for one in play(name)] == 3 * [True]
    stays = play(name, act=lambda o, _: np.ones(len(o), int))
    assert [one.success for one in stays] == 3 * [False]
    world = World(odd(name), num_envs=2, seed=5)
    world.step(np.array([2, 1]))
    assert [record.success for record in world.drain_episodes()] == [True]
    assert play("Point")[0].success is None


# Replaying


@pytest.mark.parametrize(
    ("name", "steps", "others"),
    [
        ("IgnoresSeed", 1, "observations and rewards"),  # after more, all are at the border
        ("IgnoresSeedInReward", 5, "rewards"),
        ("IgnoresSeedInEnds", 5, "rewards"),
    ],
)
def test_what_cannot_be_replayed_is_noticed(name, steps, others, monkeypatch):
    monkeypatch.setattr(odd_behaviour.IgnoresSeedInEnds, "lengths", iter([9, 7, 9, 9, 3, 9]))
    world = World(odd(name), num_envs=2, seed=5)
    for _ in range(steps):
        world.step(np.array([2, 0]))
    state = world.state_dict()
    again = World(odd(name), num_envs=2, seed=5)
    with pytest.raises(RlfdError, match=f"its {others} were others") as caught:
        again.load_state_dict(state)
    assert "--fresh-resets" in caught.value.hint


def test_fresh_resets_begin_new_episodes():
    world = World(odd("IgnoresSeedInReward"), num_envs=2, seed=5)
    for _ in range(5):
        world.step(np.array([2, 0]))
    state = world.state_dict()
    again = World(odd("IgnoresSeedInReward"), num_envs=2, seed=5)
    begun = again.observations.copy()
    again.load_state_dict(state, fresh=True)
    assert again.env_steps == 10
    assert not np.isclose(again.observations, begun)[:, 0].any()  # other starts than at first
    for _ in range(odd_behaviour.LIMIT):
        again.step(np.array([2, 0]))
    assert [one.episode_length for one in again.drain_episodes()] == 2 * [odd_behaviour.LIMIT]


# What is looked for at the start


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("IgnoresSeed", "observations and rewards"),
        ("IgnoresSeedInReward", "rewards"),
        ("IgnoresSeedInEnds", "ends"),
    ],
)
def test_an_environment_that_ignores_its_seed_is_noticed(name, others):
    found = probe(odd(name))
    assert not found.repeatable
    (warning,) = found.warnings
    assert f"'odd_behaviour:Odd/{name}' ignores its seed" in warning
    assert f"gave other {others};" in warning


def test_no_warning_without_a_reason():
    for name in ("Point", "Single", "WritesIntoActions", "IsSuccess"):
        assert probe(odd(name)) == Findings()
    assert probe(EnvConfig("Pendulum-v1")) == Findings()
    assert odd_behaviour.Single.there == 0


def test_environments_of_the_catalogue_are_not_tried(monkeypatch):
    monkeypatch.setattr("rlfd.envs.probing.make", None)
    assert probe(EnvConfig("CartPole")) == Findings()


def test_an_environment_without_a_limit():
    (warning,) = probe(odd("Endless")).warnings
    assert "no time limit" in warning
    limited = EnvConfig("odd_behaviour:Odd/Endless", options={LIMIT: 17})
    assert probe(limited) == Findings()
    played = list(play_episodes(limited, seeds=[3, 9], act=rightwards))
    assert [(one.length, one.truncated) for one in played] == 2 * [(17, True)]


def test_an_atari_game_that_is_there_made_ready():
    pytest.importorskip("ale_py")
    (warning,) = probe(EnvConfig("ALE/MsPacman-v5")).warnings
    assert "'MsPacman' is this game made ready" in warning


def test_an_environment_that_nobody_registered(monkeypatch):
    """Demonstrations may describe one."""
    described = EnvSpec(name="Point", gym_id="Odd/NotRegistered-v0")
    monkeypatch.setattr("rlfd.envs.probing.spec", lambda _: described)
    assert probe(odd("Point")) == Findings()


def test_an_interrupt_is_looked_at_in_each_step(tmp_path):
    """Also in an episode that never ends."""
    seen = []

    policy = demos.make_demonstrator("random", odd("Endless"), seed=3)
    act = policy.act

    def asked(observations, indices):
        seen.append(len(observations))
        if len(seen) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return act(observations, indices)

    policy.act = asked
    with pytest.raises(KeyboardInterrupt):
        demos.collect(odd("Endless"), policy, episodes=2, data_dir=tmp_path)
    assert len(seen) == 7
    assert not list(tmp_path.rglob("*.hdf5"))
