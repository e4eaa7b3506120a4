"""GMMIL: its reward, absorbing states, reuse of rollouts, and what it learns on small processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.mmd import kernel_mean
from rlfd.algorithms.core.on_policy import prepare
from rlfd.algorithms.core.rollout import Rollout, gae
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
    options = {"kernel": kernel, "absorbing": "off", **SMALL}
    algorithm = make_algorithm("gmmil", action=action, demos=demos, **options)
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
        next_observations=rollout.next_observations.flatten(0, 1),
        **options,
    )


def test_identical_sets_have_no_discrepancy(float64, make_algorithm, noise_world):
    rollout, _ = rollout_of(make_algorithm("gmmil", **SMALL), noise_world())
    algorithm = make_algorithm("gmmil", demos=demos_of(rollout), absorbing="off", **SMALL)
    reward = algorithm.matching.begin(rollout)
    assert reward.mismatch.mmd.item() <= 1.1e-6
    assert (reward.rewards * reward.mismatch.mmd).abs().max().item() <= 1e-12


def test_ratios_weigh_pairs_and_mean(float64, make_algorithm, noise_world):
    algorithm = make_algorithm("gmmil", absorbing="off", **SMALL)
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


def ages_of(rollout):
    """How old the episodes of a first rollout are, step by step."""
    ages, clocks = np.zeros(rollout.ended.shape, int), np.zeros(rollout.ended.shape[1], int)
    for row, over in enumerate(rollout.ended.numpy()):
        clocks += 1
        ages[row] = clocks
        clocks[over] = 0
    return torch.from_numpy(ages)


def worth(each, steps, gamma):
    """What `each` per step comes to in `steps` steps."""
    return sum(each * gamma**k for k in range(int(steps)))


def test_a_neutral_absorbing_state_lies_far_from_all_pairs(float64, make_algorithm, noise_world):
    algorithm = make_algorithm("gmmil", absorbing="value", gamma=0.9, horizon=13, **SMALL)
    rollout, reward = rollout_of(algorithm, noise_world())
    assert len(algorithm.matching._points) == 45
    mean = (reward.mismatch.witness.mean() / reward.mismatch.mmd).item()
    expected = [worth(mean, 13 - age, 0.9) for age in ages_of(rollout)[rollout.terminated]]
    found = reward.terminal_values[rollout.terminated]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert (reward.terminal_values[~rollout.terminated] == 0.0).all()


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_an_episode_that_terminated_goes_on_in_its_absorbing_state(
    float64, make_algorithm, noise_world, make_demos, gamma
):
    demos = make_demos(terminated=[True, False, True])
    algorithm = make_algorithm("gmmil", absorbing="indicator", gamma=gamma, demos=demos, **SMALL)
    rollout, reward = rollout_of(algorithm, noise_world())
    matching, over = algorithm.matching, rollout.terminated
    ends, points = int(over.sum()), matching._points
    assert ends > 3
    assert points.shape == (45 + ends, 5 + 7 + 1)
    assert (points[:45, -1] == 0.0).all()
    assert torch.equal(points[45:], matching.features.absorbing(rollout.next_observations[over]))
    assert len(points[45:].unique(dim=0)) == ends  # each where its episode ended
    # the longest demonstration has 9 steps, others 3 and 5
    left = 9 - ages_of(rollout)[over]
    assert set(left.tolist()) == {4, 5, 6}
    assert torch.equal(matching._weights, torch.cat([torch.ones(45), left.double()]))
    demo, weights = matching.discrepancy.demo, matching.discrepancy.demo_weights
    assert demo.shape == (17 + 2, 13)
    ended = demo[:, -1] > 0.0
    assert sorted((27 * weights[ended]).round().tolist()) == [4.0, 6.0]
    assert weights[~ended].sum().item() == pytest.approx(17 / 27)

    witness, mmd = reward.mismatch.witness, reward.mismatch.mmd
    mean = (matching._weights @ witness) / matching._weights.sum()
    torch.testing.assert_close(reward.rewards.flatten(), (mean - witness[:45]) / mmd)
    each = (mean - witness[45:]) / mmd
    expected = [worth(r, n, gamma) for r, n in zip(each.tolist(), left, strict=True)]
    torch.testing.assert_close(reward.terminal_values[over], torch.tensor(expected))
    assert (reward.terminal_values[~over] == 0.0).all()


def test_episodes_are_as_old_as_they_are(make_algorithm, noise_world):
    """Rollouts of two rows, episodes of three to five steps; also after a restart."""
    options = {"batch_steps": 6, "value_batch_size": 3, "horizon": 11}
    algorithm, world, left = make_algorithm("gmmil", **options), noise_world(), []
    for _ in range(12):
        rollout, _ = rollout_of(algorithm, world)
        expected = [11 - (3 + i) for i in rollout.terminated.nonzero()[:, 1].tolist()]
        assert algorithm.matching._weights[6:].tolist() == expected
        left += expected
        restored = make_algorithm("gmmil", **options)
        restored.load_state_dict(algorithm.state_dict())
        algorithm = restored
    assert set(left) == {6, 7, 8}


def walk(seed, steps):
    """A gait with some noise: periodic observations, actions that go with them."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.arange(steps + 1)[:, None] * 0.3 + torch.arange(5.0)
    observations = phase.sin() + 0.1 * torch.randn(steps + 1, 5, generator=generator)
    return observations, 0.9 * phase[:-1, :2].cos()


def copy_that_falls(after, *, steps=1_000):
    """Rollout of a perfect copy; with `after` steps its episodes terminate."""
    observations, actions = walk(1, steps)
    episodes = max(1, steps // after)
    observed = observations[:after].repeat(episodes, 1)
    following = observations[1 : after + 1].repeat(episodes, 1)
    over = (torch.arange(after) == after - 1).repeat(episodes)[:, None]
    return Rollout(
        observations=observed[:, None],
        actions=actions[:after].repeat(episodes, 1)[:, None],
        next_observations=following[:, None],
        rewards=torch.zeros(len(observed), 1),
        terminated=over & (after < steps),
        ended=over,
    )


@pytest.mark.parametrize(("name", "kernel"), [("gmmil", "gmmil"), ("mcpo", "std")])
def test_a_fall_is_as_far_as_what_it_leaves_out(make_algorithm, name, kernel):
    """One perfect copy for as long as it stands: what is missing is the rest of the horizon."""
    observations, actions = walk(0, 1_000)
    demos = DemoTensors(
        observations=observations[:-1],
        actions=actions,
        episode_ids=torch.zeros(1_000, dtype=torch.int64),
        next_observations=observations[1:],
        terminated=torch.zeros(1_000, dtype=torch.bool),
    )

    def mmd_of(after, **options):
        action = ActionSpec("continuous", (2,), (-1.0, -1.0), (1.0, 1.0))
        algorithm = make_algorithm(name, action=action, demos=demos, num_envs=1, **options)
        assert algorithm.config.kernel == kernel
        return algorithm.matching.begin(copy_that_falls(after)).mismatch.mmd.item()

    falls = [mmd_of(after) for after in (50, 150, 400, 800, 950)]
    assert falls == sorted(falls, reverse=True)
    assert falls[1] > 0.6
    assert falls[-1] < 0.1
    assert mmd_of(1_000) < 0.03
    # a mean over the steps that there are sees next to nothing
    assert mmd_of(150, absorbing="off") < 0.1


def test_the_reward_after_the_end_makes_the_gradient_that_of_the_mmd(float64, make_algorithm):
    """All 3^5 sequences of actions, alike: the rollout is its own expectation.

    Four states and an end; what follows is fixed. θ weighs whole sequences, absorbing states
    included, so that differences of the MMD are exact.
    """
    actions, horizon = 3, 5
    generator = torch.Generator().manual_seed(4)
    moves = torch.randint(0, 5, (4, actions), generator=generator)
    moves[0] = torch.tensor([1, 2, 4])  # 4 ends the episode, at the earliest after one step
    seen = torch.randn(5, 2, generator=generator)
    paths = []
    for sequence in torch.cartesian_prod(*[torch.arange(actions)] * horizon):
        state, path = 0, []
        for action in sequence.tolist():
            following = moves[state, action].item()
            path.append((state, action, following))
            state = following
            if state == 4:
                break
        paths.append(path)
    rows = torch.tensor([step for path in paths for step in path])
    owner = torch.tensor([i for i, path in enumerate(paths) for _ in path])
    last = torch.cat([owner[1:] != owner[:-1], torch.tensor([True])])
    over = rows[:, 2] == 4
    lengths = torch.tensor([len(path) for path in paths])
    assert {1, 2, 3} < set(lengths[owner[over]].tolist())
    rollout = Rollout(
        observations=seen[rows[:, 0]][:, None],
        actions=rows[:, 1][:, None],
        next_observations=seen[rows[:, 2]][:, None],
        rewards=torch.zeros(len(rows), 1),
        terminated=over[:, None],
        ended=last[:, None],
    )
    demos = DemoTensors(
        observations=torch.randn(11, 2, generator=generator),
        actions=torch.arange(11) % actions,
        episode_ids=torch.arange(11) // 4,
        next_observations=torch.randn(11, 2, generator=generator),
        terminated=torch.arange(11) == 2,  # one demonstration falls, too
    )
    algorithm = make_algorithm(
        "gmmil", shape=(2,), action=actions, demos=demos, num_envs=1, gamma=1.0, horizon=horizon
    )
    matching = algorithm.matching
    reward = matching.begin(rollout)
    weights, gone = matching._weights, torch.cat([owner, owner[over]])

    def chosen(theta):
        return theta.log_softmax(-1)[rows[:, 0], rows[:, 1]]

    def mmd(theta):
        ratios = (chosen(theta) - chosen(torch.zeros(4, actions))).double()
        ratios = torch.zeros(len(paths)).index_add(0, owner, ratios).exp()
        return matching.discrepancy.measure(matching._points, weights * ratios[gone]).mmd

    expected = torch.zeros(4, actions)
    for index in range(expected.numel()):
        shift = torch.zeros(expected.numel())
        shift[index] = 1e-5
        shift = shift.view_as(expected)
        expected.view(-1)[index] = (mmd(shift) - mmd(-shift)) / 2e-5

    nothing = torch.zeros(len(rows), 1)
    ends = {"terminated": rollout.terminated, "ended": rollout.ended}

    def gradient(terminal_values):
        advantages = gae(
            reward.rewards, nothing, nothing, **ends, gamma=1.0, gae_lambda=1.0,
            terminal_values=terminal_values,
        ).flatten()  # fmt: skip
        theta = torch.zeros(4, actions, requires_grad=True)
        objective = (chosen(theta) * advantages).mean() * reward.mismatch.share
        return -torch.autograd.grad(objective, theta)[0]

    assert reward.mismatch.share < 0.9
    torch.testing.assert_close(gradient(reward.terminal_values), expected, atol=1e-8, rtol=0.0)
    assert not torch.allclose(gradient(None), expected, atol=1e-2)


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_to_fall_earlier_is_further_away_and_the_reward_says_so(float64, make_algorithm, absorbing):
    """The kernel sees no action; on the way all states look alike, as those demonstrated do."""
    demos = DemoTensors(
        observations=torch.zeros(8, 1),
        actions=torch.zeros(8, dtype=torch.int64),
        episode_ids=torch.zeros(8, dtype=torch.int64),
        next_observations=torch.zeros(8, 1),
        terminated=torch.zeros(8, dtype=torch.bool),
    )

    def begin(lengths):
        options = {"gamma": 1.0, "action_scale": 0.0, "absorbing": absorbing}
        algorithm = make_algorithm(
            "gmmil", shape=(1,), action=2, demos=demos, num_envs=1, **options
        )
        over = torch.cat([torch.arange(n) == n - 1 for n in lengths])[:, None]
        nothing = torch.zeros(len(over), 1)
        full = torch.cat([torch.full((n,), n == 8) for n in lengths])[:, None]
        rollout = Rollout(
            nothing[:, None], nothing.long(), nothing[:, None], nothing, over & ~full, over
        )
        return rollout, algorithm.matching.begin(rollout)

    distances = [begin([8, fall])[1].mismatch.mmd.item() for fall in (1, 3, 5, 7, 8)]
    _, reward = begin([2, 5, 8])
    totals = [0.0] * 3
    if absorbing == "indicator":
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 2 * distances[2] > distances[-1]
        after = reward.terminal_values.flatten()
        totals = [
            part.sum().item() + end
            for part, end in zip(
                reward.rewards.flatten().split([2, 5, 8]),
                [*after[[1, 6]].tolist(), 0.0],
                strict=True,
            )
        ]
        assert totals[0] < totals[1] - 0.5 < totals[2] - 1.0
    else:  # nothing to see
        assert max(distances) < 1.1e-6


def test_a_horizon_that_nobody_looks_at_is_unread():
    assert "horizon" in GMMIL.Config(absorbing="off").unread()
    assert "horizon" not in GMMIL.Config().unread()


@pytest.mark.parametrize("name", ["gail", "pofd"])
def test_endless_absorbing_states_need_a_discount(make_algorithm, name):
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


def far_away(make_algorithm, name, **options):
    demos = DemoTensors(
        observations=torch.arange(99.0)[:, None].expand(-1, 3) / 99.0 - 9.0,
        actions=torch.arange(99) % 3,
        episode_ids=torch.zeros(99, dtype=torch.int64),
        next_observations=torch.arange(1.0, 100.0)[:, None].expand(-1, 3) / 99.0 - 9.0,
        terminated=torch.zeros(99, dtype=torch.bool),
    )
    return make_algorithm(
        name,
        shape=(3,),
        action=3,
        demos=demos,
        num_envs=5,
        batch_steps=500,
        standardise_advantages=False,
        **options,
    )


def lengths_of(algorithm):
    """Mean length of the first and of the last episodes in 25 iterations."""
    world = EndingWorld()
    for _ in range(25):
        algorithm.iteration(world)
    count = len(world.lengths)
    first, last = (np.mean(part) for part in (world.lengths[:150], world.lengths[-count // 5 :]))
    assert first == pytest.approx(3.0, abs=0.5)
    return first, last


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("name", "options"), [("gmmil", {}), ("mcpo", {"d0": 0.0})])
def test_episodes_do_not_get_shorter_for_being_unlike_the_demonstrations(
    make_algorithm, monkeypatch, name, options, centred
):
    """The demonstrations show all actions alike, elsewhere: there is nothing to choose.

    Uncentred, each step costs the same, so the policy learns to end the episode at once.
    """
    algorithm = far_away(make_algorithm, name, absorbing="off", **options)
    reward = algorithm.matching.reward

    def uncentred(rollout, ratios=None):
        result = reward(rollout, ratios)
        result.rewards.sub_(result.mismatch.witness.mean() / result.mismatch.mmd)
        return result

    if not centred:
        monkeypatch.setattr(algorithm.matching, "reward", uncentred)
    first, last = lengths_of(algorithm)
    assert last >= 0.85 * first if centred else last < 1.6


@pytest.mark.parametrize(("name", "options"), [("gmmil", {}), ("mcpo", {"d0": 0.0})])
def test_episodes_get_longer_where_demonstrations_do_not_end(make_algorithm, name, options):
    """They go on for 99 steps; to end sooner is all that one can do unlike them."""
    first, last = lengths_of(far_away(make_algorithm, name, **options))
    assert last > 2.5 * first


# -- learning -------------------------------------------------------------------------------------


def ring(make_algorithm, tabular_world, **options):
    """Five states in a ring; the demonstrator always goes on by action 0."""
    eye = torch.eye(5)
    demos = DemoTensors(
        observations=eye.repeat(4, 1),
        actions=torch.zeros(20, dtype=torch.int64),
        episode_ids=torch.zeros(20, dtype=torch.int64),
        next_observations=eye.roll(-1, 0).repeat(4, 1),
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
    algorithm = make_algorithm("gmmil", action=CONTINUOUS, demos=demos, num_envs=1, **SMALL)
    distribution = algorithm.learner.actor.distribution
    rollout = Rollout(
        observations=demos.observations[:, None].double(),
        actions=distribution.encode(demos.actions)[:, None].double(),
        next_observations=demos.next_observations[:, None].double(),
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
        # an absorbing state is as likely as the step before it
        after = ratios[rollout.terminated.flatten()]
        weights = torch.cat([ratios, after * matching._weights[45:]])
        expected = matching.discrepancy.measure(matching._points, weights)
        torch.testing.assert_close(result.mismatch.mmd, expected.mmd)
    assert (seen[2][0] - 1).abs().max() > 0.01
