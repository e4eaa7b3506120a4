"""GMMIL: its reward, absorbing states, reuse of rollouts, and what it learns on small processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.mmd import kernel_mean
from rlfd.algorithms.core.on_policy import prepare
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.gmmil import GMMIL, log_probs
from rlfd.envs import Transitions
from rlfd.errors import RlfdError

CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
SMALL = {"batch_steps": 45, "value_batch_size": 15, "value_epochs": 2}


def rollout_of(algorithm, world):
    rollout = algorithm.learner.collect(world)
    return rollout, algorithm.matching.begin(rollout)


def continuous_demos(make_demos):
    actions = torch.rand(17, 2, generator=torch.Generator().manual_seed(5))
    return make_demos(actions=actions * torch.tensor([2.0, 3.0]) - torch.tensor([1.0, 0.0]))


# -- the reward -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["std", "median", "gmmil"])
@pytest.mark.parametrize("action", [None, CONTINUOUS], ids=["discrete", "continuous"])
def test_the_reward_is_minus_the_centred_witness_in_units_of_the_mmd(
    float64, make_algorithm, noise_world, make_demos, kernel, action
):
    demos = continuous_demos(make_demos) if action else None
    algorithm = make_algorithm("gmmil", kernel=kernel, action=action, demos=demos, **SMALL)
    _, reward = rollout_of(algorithm, noise_world())
    discrepancy, own = algorithm.matching.discrepancy, algorithm.matching._points
    assert own.shape == (45, 5 + (2 if action else 7))
    assert reward.rewards.shape == (15, 3)
    assert reward.rewards.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert reward.terminal_values is None

    def witness(points):
        bandwidths = discrepancy.bandwidths
        return kernel_mean(points, own, None, bandwidths) - kernel_mean(
            points, discrepancy.demo, None, bandwidths
        )

    expected = -(witness(own) - witness(own).mean()) / reward.mismatch.mmd
    torch.testing.assert_close(reward.rewards.flatten(), expected)
    # Σ_i w_i r(x_i) - Σ_j v_j r(y_j) = -MMD² in units of the MMD
    at_demo = -(witness(discrepancy.demo) - witness(own).mean()) / reward.mismatch.mmd
    difference = reward.rewards.mean() - at_demo.mean()
    assert difference.item() == pytest.approx(-reward.mismatch.mmd.item(), abs=1e-6)


def demos_of(rollout, **options):
    flags = torch.zeros(rollout.num_steps, dtype=torch.bool)
    return DemoTensors(
        observations=rollout.observations.flatten(0, 1),
        actions=rollout.actions.flatten(0, 1),
        episode_ids=torch.zeros(rollout.num_steps, dtype=torch.int64),
        terminated=flags,
        **options,
    )


def test_identical_sets_have_no_discrepancy(float64, make_algorithm, noise_world):
    rollout, _ = rollout_of(make_algorithm("gmmil", **SMALL), noise_world())
    algorithm = make_algorithm("gmmil", demos=demos_of(rollout), **SMALL)
    reward = algorithm.matching.begin(rollout)
    assert reward.mismatch.mmd.item() <= 1.1e-6
    assert (reward.rewards * reward.mismatch.mmd).abs().max().item() <= 1e-12


def test_ratios_weigh_pairs_and_mean(float64, make_algorithm, noise_world):
    algorithm = make_algorithm("gmmil", **SMALL)
    rollout, reward = rollout_of(algorithm, noise_world())
    ones = algorithm.matching.reward(rollout, torch.ones(45))
    torch.testing.assert_close(ones.rewards, reward.rewards)
    # a policy that never does what was done in the second half of the batch
    ratios = (torch.arange(45) < 23).double() * 2.0
    half = algorithm.matching.reward(rollout, ratios)
    assert (half.rewards.flatten() * ratios).mean().item() == pytest.approx(0.0, abs=1e-12)
    discrepancy, points = algorithm.matching.discrepancy, algorithm.matching._points
    expected = discrepancy.measure(points, (ratios > 0).double())
    assert half.mismatch.mmd == expected.mmd
    assert half.mismatch.floor == pytest.approx(math.sqrt(1 / 23 + 1 / 17))


# -- the end of episodes --------------------------------------------------------------------------


def test_a_neutral_absorbing_state_lies_far_from_all_pairs(float64, make_algorithm, noise_world):
    algorithm = make_algorithm("gmmil", absorbing="value", gamma=0.9, **SMALL)
    _, reward = rollout_of(algorithm, noise_world())
    mean = reward.mismatch.witness.mean() / reward.mismatch.mmd
    torch.testing.assert_close(reward.terminal_values, (mean / 0.1).expand(15, 3))


def test_a_matched_absorbing_state_has_rows_where_episodes_terminated(
    float64, make_algorithm, noise_world, make_demos
):
    demos = make_demos(terminated=[True, False, True])
    algorithm = make_algorithm("gmmil", absorbing="indicator", gamma=0.9, demos=demos, **SMALL)
    rollout, reward = rollout_of(algorithm, noise_world())
    ends, points = int(rollout.terminated.sum()), algorithm.matching._points
    assert ends > 0
    assert points.shape == (45 + ends, 5 + 7 + 1)
    assert points[:, -1].tolist() == [0.0] * 45 + [1.0] * ends
    assert (points[45:, :-1] == 0.0).all()
    demo = algorithm.matching.discrepancy.demo
    assert demo.shape == (17 + 2, 13)
    assert int(demo[:, -1].sum()) == 2
    witness = reward.mismatch.witness
    expected = (witness.mean() - witness[-1]) / reward.mismatch.mmd
    torch.testing.assert_close(reward.terminal_values, expected.expand(15, 3))
    torch.testing.assert_close(
        reward.rewards.flatten(), (witness.mean() - witness[:45]) / reward.mismatch.mmd
    )


@pytest.mark.parametrize("name", ["gmmil", "gail", "pofd"])
def test_absorbing_states_need_a_discount(make_algorithm, name):
    with pytest.raises(RlfdError, match="absorbing=value needs gamma < 1"):
        make_algorithm(name, absorbing="value", gamma=1.0)


class EndingWorld:
    """One state far from the demonstrations; action 2 ends the episode, else 20 steps do."""

    num_envs, env_steps = 5, 0

    def __init__(self):
        self.clocks, self.lengths = np.zeros(5, int), []

    @property
    def observations(self):
        return np.ones((5, 3), np.float32)

    def step(self, actions):
        self.env_steps += 5
        self.clocks += 1
        terminated = actions == 2
        truncated = (self.clocks == 20) & ~terminated
        self.lengths += self.clocks[terminated | truncated].tolist()
        self.clocks[terminated | truncated] = 0
        nothing = np.zeros(5)
        return Transitions(
            self.observations, actions, nothing, nothing, self.observations, terminated, truncated
        )


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("name", "options"), [("gmmil", {}), ("mcpo", {"d0": 0.0})])
def test_episodes_do_not_get_shorter_for_being_unlike_the_demonstrations(
    make_algorithm, monkeypatch, name, options, centred
):
    """The demonstrations show all actions alike, elsewhere: there is nothing to choose.

    Uncentred, each step costs the same, so the policy learns to end the episode at once.
    """
    demos = DemoTensors(
        observations=torch.arange(99.0)[:, None].expand(-1, 3) / 99.0 - 9.0,
        actions=torch.arange(99) % 3,
        episode_ids=torch.zeros(99, dtype=torch.int64),
        terminated=torch.arange(99) == 98,
    )
    algorithm = make_algorithm(
        name,
        shape=(3,),
        action=3,
        demos=demos,
        num_envs=5,
        batch_steps=500,
        standardise_advantages=False,
        **options,
    )
    reward = algorithm.matching.reward

    def uncentred(rollout, ratios=None):
        result = reward(rollout, ratios)
        result.rewards.sub_(result.mismatch.witness.mean() / result.mismatch.mmd)
        return result

    if not centred:
        monkeypatch.setattr(algorithm.matching, "reward", uncentred)
    world = EndingWorld()
    for _ in range(25):
        algorithm.iteration(world)
    count = len(world.lengths)
    first, last = (np.mean(part) for part in (world.lengths[:150], world.lengths[-count // 5 :]))
    assert first == pytest.approx(3.0, abs=0.5)
    assert last >= 0.85 * first if centred else last < 1.6


# -- learning -------------------------------------------------------------------------------------


def ring(make_algorithm, tabular_world, **options):
    """Five states in a ring; the demonstrator always goes on by action 0."""
    eye = torch.eye(5)
    demos = DemoTensors(
        observations=eye.repeat(4, 1),
        actions=torch.zeros(20, dtype=torch.int64),
        episode_ids=torch.zeros(20, dtype=torch.int64),
        terminated=torch.zeros(20, dtype=torch.bool),
    )
    states = np.arange(5)
    following = np.stack([(states + 1) % 5, states, (states + 3) % 5], axis=1)
    algorithm = make_algorithm(
        "gmmil", action=3, demos=demos, num_envs=5, batch_steps=200, delta=0.05, **options
    )
    return algorithm, tabular_world(following, np.full((5, 3), np.nan))


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_it_finds_the_demonstrators_way_without_reward(make_algorithm, tabular_world, inner_steps):
    algorithm, world = ring(make_algorithm, tabular_world, inner_steps=inner_steps)
    seen = [float(algorithm.iteration(world)["mmd/estimate"]) for _ in range(25)]
    assert seen[-1] < 0.3 * seen[0]
    assert algorithm.act(np.eye(5, dtype=np.float32), greedy=True).tolist() == [0] * 5


def test_later_steps_of_a_rollout_are_weighed_by_importance(
    make_algorithm, tabular_world, monkeypatch
):
    algorithm, world = ring(make_algorithm, tabular_world, inner_steps=3)
    reward, seen = algorithm.matching.reward, []

    def noting(rollout, ratios=None):
        seen.append(ratios)
        now = log_probs(algorithm.learner.actor, rollout)
        if ratios is None:
            noting.before = now
        else:
            torch.testing.assert_close(ratios, (now - noting.before).exp())
        return reward(rollout, ratios)

    monkeypatch.setattr(algorithm.matching, "reward", noting)
    algorithm.iteration(world)
    assert [ratios is None for ratios in seen] == [True, False, False]
    assert not torch.equal(seen[1], seen[2])
    assert seen[2].mean().item() == pytest.approx(1.0, abs=0.1)


def test_the_rewards_scaler_is_refused():
    with pytest.raises(RlfdError, match="normalise_rewards"):
        GMMIL.Config(normalise_rewards=True)


def test_the_first_bandwidth_stays_a_metric(make_algorithm, noise_world):
    algorithm, world = make_algorithm("gmmil", bandwidth_rollouts=2, **SMALL), noise_world()
    metrics = [algorithm.iteration(world) for _ in range(3)]
    same = [m["mmd/estimate"] == m["mmd/first_bandwidth"] for m in metrics]
    assert same == [True, False, False]


def test_the_world_is_seen_through_the_policys_units(
    float64, make_algorithm, make_demos, noise_world
):
    """Demonstrated actions in the environment's units are the same points as own ones."""
    demos = continuous_demos(make_demos)
    algorithm = make_algorithm("gmmil", action=CONTINUOUS, demos=demos, **SMALL)
    distribution = algorithm.learner.actor.distribution
    rollout = Rollout(
        observations=demos.observations[:, None].double(),
        actions=distribution.encode(demos.actions)[:, None].double(),
        next_observations=demos.observations[:, None].double(),
        rewards=torch.zeros(17, 1),
        terminated=demos.terminated[:, None],
        ended=demos.terminated[:, None],
    )
    assert algorithm.matching.begin(rollout).mismatch.mmd.item() <= 1.1e-6


@pytest.mark.parametrize("name", ["gmmil", "pofd", "mcpo"])
@pytest.mark.parametrize("absorbing", ["value", "indicator"])
def test_the_end_is_worth_what_the_matching_says(
    make_algorithm, noise_world, monkeypatch, name, absorbing
):
    """What follows a terminal state enters the advantages that the policy steps on."""
    options = {"pofd": {"matching": "mmd", "lambda_1": 0.5}, "mcpo": {"d0": 0.0}}.get(name, {})
    algorithm = make_algorithm(name, absorbing=absorbing, **SMALL | options)
    matching = algorithm.source if name == "pofd" else algorithm.matching
    value = algorithm.witness_value if name == "mcpo" else algorithm.learner.value
    reward, estimate, made, given = matching.reward, value.estimate, [], []
    monkeypatch.setattr(matching, "reward", lambda *a: made.append(reward(*a)) or made[-1])

    def noting(rollout, rewards, **settings):
        given.append(settings.get("terminal_values"))
        return estimate(rollout, rewards, **settings)

    monkeypatch.setattr(value, "estimate", noting)
    algorithm.iteration(noise_world())
    weight = 0.5 if name == "pofd" else 1.0
    torch.testing.assert_close(given[0], weight * made[0].terminal_values)
    assert (given[0] != 0).any()


def test_later_steps_weigh_the_objective_and_absorbing_rows_too(
    make_algorithm, noise_world, monkeypatch
):
    options = {"inner_steps": 3, "absorbing": "indicator", "delta": 0.1, "gamma": 0.9}
    algorithm = make_algorithm("gmmil", **options, **SMALL)
    matching, learner = algorithm.matching, algorithm.learner
    reward, improve, seen, stepped = matching.reward, learner.improve_policy, [], []

    def paying(rollout, ratios=None):
        seen.append((ratios, reward(rollout, ratios)))
        return seen[-1][1]

    def stepping(rollout, advantages):
        stepped.append((rollout, advantages))
        return improve(rollout, advantages)

    monkeypatch.setattr(matching, "reward", paying)
    monkeypatch.setattr(learner, "improve_policy", stepping)
    monkeypatch.setattr(learner, "finish", lambda *a: {})  # V stays what it was
    algorithm.iteration(noise_world())
    for (ratios, result), (rollout, advantages) in zip(seen[1:], stepped[1:], strict=True):
        plain = learner.value.estimate(
            rollout, result.rewards, terminal_values=result.terminal_values
        ).advantages
        weighed = prepare(plain, algorithm.config) * ratios.view_as(plain)
        torch.testing.assert_close(advantages, weighed)
        # a row of s_abs counts as much as the step before it
        weights = torch.cat([ratios, ratios[rollout.terminated.flatten()]])
        expected = matching.discrepancy.measure(matching._points, weights)
        assert result.mismatch.mmd == expected.mmd
    assert (seen[2][0] - 1).abs().max() > 0.01
