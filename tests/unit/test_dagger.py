"""DAgger: schedules, who acts, labels of every visited state, and what they are worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd import demos
from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.visits import Visits
from rlfd.algorithms.dagger import DAggerConfig
from rlfd.envs import EnvConfig, Transitions, World

CART_POLE = EnvConfig("CartPole")
QUICK = {"round_epochs": 1, "batch_size": 31, "min_episodes": 0}


class Controller:
    """CartPole's controller, asked."""

    def __init__(self):
        self.rule, self.queries = demos.make_demonstrator("controller", CART_POLE, seed=0), 0

    def label(self, observations):
        self.queries += len(observations)
        return self.rule.act(observations, np.arange(len(observations)))


class Recorder:
    """Passes on to another world and keeps its transitions."""

    def __init__(self, world):
        self.world, self.seen = world, []

    def __getattr__(self, name):
        return getattr(self.world, name)

    def step(self, actions):
        self.seen.append(self.world.step(actions))
        return self.seen[-1]


@pytest.fixture
def cart_pole(make_algorithm):
    def build(**options):
        options = {"shape": (4,), "action": 2, "batch_steps": 99, **QUICK} | options
        return make_algorithm("dagger", demonstrator=Controller(), **options)

    return build


def cart_pole_world():
    return World(CART_POLE, num_envs=3, seed=7)


def test_schedules_are_exact():
    betas = {
        "first": [1.0, 0.0, 0.0, 0.0, 0.0],
        "linear": [1.0, 0.75, 0.5, 0.25, 0.0],
        "exponential": [1.0, 0.7, 0.49, 0.343, 0.2401],
    }
    for schedule, expected in betas.items():
        config = DAggerConfig(schedule=schedule, linear_rounds=4)
        assert [config.beta(i) for i in range(5)] == pytest.approx(expected, abs=1e-15)
    assert DAggerConfig(schedule="linear", linear_rounds=4).beta(9) == 0.0


def test_every_visited_state_is_stored_once_with_the_demonstrators_answer(cart_pole):
    algorithm, world = cart_pole(schedule="exponential"), Recorder(cart_pole_world())
    for round_ in range(1, 6):
        metrics = algorithm.iteration(world)
        assert world.env_steps == len(algorithm.visits) == round_ * 99
        assert metrics["dagger/pairs"] == metrics["dagger/queries"] == round_ * 99
    pairs = algorithm.visits.pairs()
    visited = np.concatenate([batch.observations for batch in world.seen])
    np.testing.assert_array_equal(pairs.observations.numpy(), visited)
    np.testing.assert_array_equal(Controller().label(visited), pairs.actions.numpy())
    done = np.concatenate([batch.actions for batch in world.seen])
    assert (done != pairs.actions.numpy()).any()  # labels, not what was done


@pytest.mark.parametrize("mixing", ["steps", "episodes"])
def test_with_beta_one_the_states_are_the_demonstrators(cart_pole, mixing):
    algorithm, world = cart_pole(mixing=mixing), Recorder(cart_pole_world())
    algorithm.iteration(world)
    alone, actor = cart_pole_world(), Controller()
    for batch in world.seen:
        again = alone.step(actor.label(alone.observations))
        np.testing.assert_array_equal(batch.observations, again.observations)
        np.testing.assert_array_equal(batch.actions, again.actions)


def test_with_beta_zero_the_states_are_the_learners(cart_pole, make_demos):
    given = make_demos((9, 15), shape=(4,), actions=torch.arange(24) % 2)
    algorithm, world = cart_pole(demos=given), Recorder(cart_pole_world())
    algorithm._clone()
    learner = cart_pole(demos=given)
    learner.load_policy_state(algorithm.policy_state())
    algorithm.round = 1
    algorithm._roll_out(world, algorithm.config.beta(1))
    alone = cart_pole_world()
    for batch in world.seen:
        again = alone.step(learner.act(alone.observations, greedy=True))
        np.testing.assert_array_equal(batch.observations, again.observations)
        np.testing.assert_array_equal(batch.actions, again.actions)


def test_mixing_draws_at_every_step_or_once_for_an_episode(cart_pole):
    seen = {}
    for mixing in ("steps", "episodes"):
        algorithm = cart_pole(mixing=mixing)
        draws = []
        for step in range(400):
            if mixing == "episodes" and step % 40 == 39:
                algorithm.asked_acts[:] = -1  # all episodes are over
            draws.append(algorithm._draw(0.3, 3))
        seen[mixing] = np.array(draws)
    assert seen["steps"].mean() == pytest.approx(0.3, abs=0.05)
    changes = {mixing: (draws[1:] != draws[:-1]).any(1) for mixing, draws in seen.items()}
    assert changes["steps"].mean() > 0.5
    assert set(np.flatnonzero(changes["episodes"]) % 40) == {38}
    assert 0 < changes["episodes"].sum() <= 10


@pytest.mark.parametrize("fit", ["scratch", "warm"])
def test_round_zero_is_behavioural_cloning(cart_pole, make_algorithm, fit):
    passes = {"max_epochs": 4, "patience": 9}
    algorithm = cart_pole(fit=fit, round_epochs=4, max_epochs=4, patience=9)
    algorithm.iteration(cart_pole_world())
    options = {"shape": (4,), "action": 2, "batch_size": 31, **passes}
    clone = make_algorithm("bc", demos=algorithm.visits.pairs(), **options)
    while not clone.finished:
        clone.iteration(None)
        if fit == "warm" and clone.epochs == 4:
            break
    if fit == "warm":  # which keeps the last weights, not the best ones
        clone = make_algorithm("bc", demos=algorithm.visits.pairs(), **options | {"max_epochs": 9})
        for _ in range(4):
            clone.iteration(None)
    for name, value in clone.policy_state().items():
        assert torch.equal(value, algorithm.policy_state()[name]), name


def test_given_demonstrations_take_the_place_of_round_zero(cart_pole, make_demos):
    given = make_demos((9, 15), shape=(4,), actions=torch.arange(24) % 2)
    algorithm, world = cart_pole(demos=given), cart_pole_world()
    metrics = algorithm.iteration(world)
    assert (metrics["dagger/round"], metrics["dagger/beta"]) == (1, 0)
    assert (metrics["dagger/pairs"], metrics["dagger/queries"]) == (24 + 99, 99)
    pairs = algorithm.visits.pairs(given)
    assert torch.equal(pairs.observations[:24], given.observations)
    assert pairs.episode_ids[:24].max() == 1
    assert pairs.episode_ids[24:].min() == 2


def test_a_round_waits_for_episodes_and_ends_with_the_budget(cart_pole, noise_world):
    options = {"shape": (5,), "action": 7, "batch_steps": 2, "env_steps": 21}
    algorithm = cart_pole(**options | {"min_episodes": 3}, demos=None)
    algorithm.demonstrator = type(
        "Zero", (), {"queries": 0, "label": lambda _, o: np.zeros(len(o), np.int64)}
    )()
    world = noise_world()
    algorithm.iteration(world)  # environments end after 3, 4 and 5 steps
    assert world.env_steps == 15
    algorithm.iteration(world)
    assert world.env_steps == 21


def steps_of(world, count):
    steps = []
    for _ in range(count):
        batch = world.step(np.zeros(world.num_envs, np.int64))
        steps.append((batch, np.full(world.num_envs, len(steps) % 5)))
    return steps


def test_an_episode_keeps_its_number_from_round_to_round(noise_world):
    world, visits = noise_world(), Visits()
    steps = steps_of(world, 8)
    visits.extend(steps[:2])
    visits.extend(steps[2:])
    # three environments, whose episodes have 3, 4 and 5 steps
    expected = [[0, 1, 2]] * 3 + [[3, 1, 2], [3, 4, 2], [3, 4, 5], [6, 4, 5], [6, 4, 5]]
    assert visits.pairs().episode_ids.view(8, 3).tolist() == expected
    assert visits.running == 2
    episodes = visits.episodes()
    assert [len(e.labels) for e in episodes] == [3, 4, 5, 3, 4, 3, 2]
    ended = [steps[2][0], steps[3][0], steps[4][0], steps[5][0]]
    for episode, batch, env in zip(episodes, ended, (0, 1, 2, 0), strict=False):
        np.testing.assert_array_equal(episode.observations[-1], batch.next_observations[env])
        assert episode.terminated == batch.terminated[env]
    np.testing.assert_array_equal(episodes[5].observations[-1], steps[7][0].next_observations[2])
    for episode in episodes:
        assert len(episode.observations) == len(episode.labels) + 1


# -- a chain with a cliff ---------------------------------------------------------------------

SLIP = 1 / 64  # share of states on the path where the right action is the other one
LEDGE = np.array([0.0, 1.0], np.float32)


class Chain:
    """A path of `horizon` steps beside a cliff. An observation is (x, 0) on the path, (0, 1) below.

    On the path x is -1 or 1, where 0 is right, or 0 with probability SLIP, where 1 is. No linear
    policy gets all three right. What is wrong leads to the ledge, each step of which costs 1; there
    1 climbs back.
    """

    def __init__(self, horizon, num_envs=5, seed=0):
        self.horizon, self.num_envs, self.env_steps = horizon, num_envs, 0
        self.rng = np.random.default_rng(seed)
        self.below, self.clocks = np.zeros(num_envs, bool), np.zeros(num_envs, int)
        self.observations = self.look()

    def look(self):
        x = self.rng.choice([-1.0, 1.0], self.num_envs)
        x[self.rng.random(self.num_envs) < SLIP] = 0.0
        path = np.stack([x, np.zeros(self.num_envs)], 1).astype(np.float32)
        return np.where(self.below[:, None], LEDGE, path)

    def step(self, actions):
        before = self.observations
        self.below = right(before) != actions
        self.clocks += 1
        self.env_steps += self.num_envs
        ends = self.clocks == self.horizon
        reached = self.look()
        self.below[ends], self.clocks[ends] = False, 0
        self.observations = np.where(ends[:, None], self.look(), reached)
        none = np.zeros(self.num_envs, bool)
        rewards = np.zeros(self.num_envs)
        return Transitions(before, actions, rewards, rewards, reached, none, ends)


def right(observations):
    return (observations[:, 0] == 0.0).astype(np.int64)  # the ledge is at x = 0, too


class Guide:
    queries = 0

    def label(self, observations):
        self.queries += len(observations)
        return right(observations)


def cost(algorithm, horizon):
    """Return the expected number of steps on the ledge, exactly."""
    places = np.array([[-1, 0], [1, 0], [0, 0], LEDGE], np.float32)
    errs = algorithm.act(places, greedy=True) != right(places)
    falls = (1 - SLIP) * errs[:2].mean() + SLIP * errs[2]
    below = total = 0.0
    for _ in range(horizon):
        total += below
        below = (1 - below) * falls + below * errs[3]
    return total


def exponent(costs):
    return np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0]


def test_errors_of_a_clone_grow_with_the_square_of_the_horizon_those_of_dagger_linearly(
    make_algorithm,
):
    options = {
        "shape": (2,), "action": 2, "hidden": (), "normalise": False, "learning_rate": 0.05,
        "batch_size": 64, "l2": 0.0,
    }  # fmt: skip
    cloning, asking = {}, {}
    for horizon in (8, 16, 32):
        algorithm = make_algorithm(
            "dagger",
            demonstrator=Guide(),
            batch_steps=400,
            min_episodes=0,
            round_epochs=8,
            **options,
        )
        world = Chain(horizon)
        algorithm.budget = 0
        for _ in range(4):
            algorithm.iteration(world)
        asking[horizon] = cost(algorithm, horizon)

        alone, states = Chain(horizon, seed=1), []
        for _ in range(320):
            states.append(alone.observations)
            alone.step(right(alone.observations))
        data = np.concatenate(states)
        demonstrations = DemoTensors(
            torch.from_numpy(data),
            torch.from_numpy(right(data)),
            torch.arange(len(data)) // horizon,
        )
        clone = make_algorithm("bc", demos=demonstrations, max_epochs=15, **options)
        while not clone.finished:
            clone.iteration(None)
        cloning[horizon] = cost(clone, horizon)
        assert 0 < asking[horizon] < cloning[horizon]
    assert exponent(cloning) > 1.6
    assert exponent(asking) < 1.4


def test_all_kinds_of_actions_are_mixed(make_algorithm, noise_world):
    for action in (
        ActionSpec("multi_discrete", (2, 5, 3)),
        ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0)),
    ):
        algorithm = make_algorithm(
            "dagger", action=action, schedule="linear", linear_rounds=2, batch_steps=30, **QUICK
        )
        world = noise_world()
        for _ in range(2):
            algorithm.iteration(world)
        done = np.concatenate(world.actions)
        labels = algorithm.visits.pairs().actions.numpy()
        same = (done == labels).all(-1)
        assert same[:30].all()
        assert 0.1 < same[30:].mean() < 0.9
