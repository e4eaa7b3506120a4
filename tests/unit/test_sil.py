"""SIL: the properties of its loss and returns, what is stored, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch.func import grad

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.rollout import Rollout
from rlfd.algorithms.sil import REFUSED, SILConfig, self_imitation_loss
from rlfd.errors import RlfdError

CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
BATCH, SIZE, ACTIONS = 13, 5, 7
GAMMA = 0.5
PLAIN = {
    "value_weight": 0.0,
    "entropy_weight": 0.0,
    "advantage_clip": 0.0,
    "nll_clip": 5.0,
    "min_positive": 1,
}
SMALL = {"batch_steps": 15, "batch_size": 9, "min_stored": 5, "buffer_size": 31, "min_positive": 3}
PPO = {"learner": "ppo", "epochs": 2, "minibatch_size": 7}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make_sil(make_algorithm):
    def make(**options):
        return make_algorithm("sil", **SMALL | options)

    return make


# -- the loss -------------------------------------------------------------------------------------


class Linear:
    """A softmax policy and a value, both linear in the inputs, and a batch; float64."""

    def __init__(self):
        generator = seeded()
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.inputs, self.theta, self.v = draw(BATCH, SIZE), draw(SIZE, ACTIONS), draw(SIZE)
        self.actions = torch.randint(ACTIONS, (BATCH,), generator=generator)
        self.returns, self.weights = draw(BATCH), draw(BATCH).exp()
        self.shift = 0.0  # of V

    @property
    def values(self):
        return self.inputs @ self.v + self.shift

    def loss(self, theta, v, **settings):
        log_probs = (self.inputs @ theta).log_softmax(-1)
        return self_imitation_loss(
            log_probs[torch.arange(BATCH), self.actions],
            self.inputs @ v + self.shift,
            -(log_probs.exp() * log_probs).sum(-1),
            self.returns,
            self.weights,
            **PLAIN | settings,
        )

    def gradients(self, **settings):
        """Of theta and v."""
        return grad(lambda *both: self.loss(*both, **settings)[0], argnums=(0, 1))(
            self.theta, self.v
        )

    def regression_gradient(self, weights):
        """-Σ u_i ∇ log π(a_i|s_i) for fixed u: x (1_a - π)ᵀ, written out."""
        probabilities = (self.inputs @ self.theta).softmax(-1)
        one_hot = torch.eye(ACTIONS, dtype=torch.float64)[self.actions]
        return -(self.inputs * weights[:, None]).T @ (one_hot - probabilities)


ALL = {"value_weight": 0.7, "entropy_weight": 0.3, "advantage_clip": 1.0}


def test_without_a_return_above_the_value_there_is_no_gradient():
    """Property 1, with every term of the loss."""
    linear = Linear()
    linear.returns = linear.values - torch.linspace(0.0, 2.0, BATCH, dtype=torch.float64)
    loss, parts = linear.loss(linear.theta, linear.v, **ALL)
    assert loss == 0.0
    for gradient in linear.gradients(**ALL):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    assert parts["sil/positive"] == parts["sil/ess"] == 0.0  # no 0 / 0 where all weights vanish
    assert torch.equal(parts["priorities"], torch.zeros(BATCH, dtype=torch.float64))
    linear.returns[4] += 1.0
    assert all((gradient != 0).any() for gradient in linear.gradients(**ALL))


def test_far_below_all_returns_it_is_reward_weighted_regression():
    """Property 2: with V = -c its weights are w (G + c); clipped, all decisions count alike."""
    linear = Linear()
    linear.shift = -1000.0
    fixed = linear.weights * (linear.returns - linear.values)
    assert (fixed > 0).all()
    policy, value = linear.gradients()
    torch.testing.assert_close(policy, linear.regression_gradient(fixed) / BATCH)
    assert torch.equal(value, torch.zeros_like(value))  # no gradient through the weights
    policy, _ = linear.gradients(advantage_clip=1.0)
    torch.testing.assert_close(policy, linear.regression_gradient(linear.weights) / BATCH)


def test_the_value_moves_up_only_and_no_faster_than_the_clip():
    linear = Linear()
    gaps = (linear.returns - linear.values).clamp(min=0.0)
    assert 3 < (gaps > 0).sum() < BATCH
    assert (gaps > 1.0).any()
    for clip, error in ((0.0, gaps), (1.0, gaps.clamp(max=1.0))):
        _, value = linear.gradients(value_weight=0.7, advantage_clip=clip)
        expected = -0.7 * linear.inputs.T @ (linear.weights * error) / (gaps > 0).sum()
        torch.testing.assert_close(value, expected)
    _, parts = linear.loss(linear.theta, linear.v)
    expected = 0.5 * (linear.weights * gaps.square()).sum() / (gaps > 0).sum()
    torch.testing.assert_close(parts["sil/value"], expected)


def test_the_clip_of_the_log_likelihood_leaves_the_gradient_untouched():
    """Property 6."""
    linear = Linear()
    first, _ = linear.loss(linear.theta, linear.v, nll_clip=0.5)
    second, _ = linear.loss(linear.theta, linear.v, nll_clip=50.0)
    assert first < second
    for one, other in zip(
        linear.gradients(nll_clip=0.5), linear.gradients(nll_clip=50.0), strict=True
    ):
        assert torch.equal(one, other)
    gaps = (linear.returns - linear.values).clamp(min=0.0)
    nll = -(linear.inputs @ linear.theta).log_softmax(-1)[torch.arange(BATCH), linear.actions]
    assert (nll > 0.5).any()
    expected = (linear.weights * gaps * nll.clamp(max=0.5)).sum() / (gaps > 0).sum()
    torch.testing.assert_close(first, expected)


def test_few_good_decisions_count_less():
    linear = Linear()
    positive = int((linear.returns > linear.values).sum())
    loss, _ = linear.loss(linear.theta, linear.v, **ALL, min_positive=positive)
    less, parts = linear.loss(linear.theta, linear.v, **ALL, min_positive=64)
    torch.testing.assert_close(less, loss * positive / 64)
    assert parts["sil/positive"].item() == pytest.approx(positive / BATCH)


def test_entropy_is_rewarded_where_the_return_was_above():
    linear = Linear()
    above = linear.returns > linear.values
    log_probs = (linear.inputs @ linear.theta).log_softmax(-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1)
    plain, _ = linear.loss(linear.theta, linear.v)
    loss, _ = linear.loss(linear.theta, linear.v, entropy_weight=0.3)
    expected = 0.3 * (linear.weights * entropies)[above].sum() / above.sum()
    torch.testing.assert_close(plain - loss, expected)


def test_priorities_and_effective_size():
    linear = Linear()
    gaps = (linear.returns - linear.values).clamp(0.0, 1.0)
    _, parts = linear.loss(linear.theta, linear.v, advantage_clip=1.0)
    torch.testing.assert_close(parts["priorities"], gaps)
    torch.testing.assert_close(parts["sil/advantage"], gaps.mean())
    used = linear.weights * gaps
    torch.testing.assert_close(
        parts["sil/ess"], used.sum() ** 2 / (used**2).sum() / BATCH, check_dtype=False
    )


# -- beside the actor-critic ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        ("a2c", {}),
        ("a2c", {"action": CONTINUOUS, "normalise_rewards": True}),
        ("ppo", PPO | {"normalise_rewards": True}),
    ],
)
def test_without_updates_it_is_the_base_bit_for_bit(
    make_sil, make_algorithm, noise_world, base, settings
):
    """Property 7."""
    options = settings | {"gae_lambda": 0.9, "standardise_advantages": True, "entropy_weight": 0.1}
    options |= {"learning_rate": 0.01, "final_learning_rate": 0.1, "batch_steps": 15}
    sil, sil_world = make_sil(sil_updates=0, **options), noise_world()
    options.pop("learner", None)
    other, world = make_algorithm(base, **options), noise_world()
    for _ in range(9):
        ours, theirs = sil.iteration(sil_world), other.iteration(world)
        assert {name: ours[name] for name in theirs} == theirs
    assert np.array_equal(np.stack(sil_world.actions), np.stack(world.actions))
    for mine, their in (
        (sil.policy_state(), other.policy_state()),
        (sil.learner.engine.parameters, other.learner.engine.parameters),
    ):
        assert mine.keys() == their.keys()
        assert all(torch.equal(value, their[name]) for name, value in mine.items())
    assert sil.updates == other.updates > 0


def test_it_learns_on_top_of_the_base(make_sil, make_algorithm, noise_world):
    """What it adds moves policy and value; the base's own draws stay the same until then."""
    sil, a2c = make_sil(), make_algorithm("a2c", batch_steps=15)
    world, other_world = noise_world(), noise_world()
    for _ in range(4):
        metrics = sil.iteration(world)
        a2c.iteration(other_world)
    assert metrics["sil/positive"] > 0
    assert sil.updates == 4 + 4 * sil.config.sil_updates
    differing = {
        name
        for name, value in sil.learner.engine.parameters.items()
        if not torch.equal(value, a2c.learner.engine.parameters[name])
    }
    assert {name.partition(".")[0] for name in differing} == {"policy", "value"}


@pytest.mark.parametrize("settings", [{}, PPO], ids=["a2c", "ppo"])
def test_an_update_is_the_loss_on_a_batch_of_the_memory(float64, make_sil, noise_world, settings):
    """From network outputs to priorities, worked out apart from the algorithm."""
    sil, world = make_sil(**settings, sil_weight=0.5, sil_value_weight=0.2), noise_world()
    for _ in range(3):
        sil.iteration(world)
    state = sil.memory.state_dict()
    network, distribution = sil.learner.networks, sil.learner.actor.distribution
    batch = sil.memory.sample(9, 0.1, seeded_like(sil.generator))
    inputs = sil.learner.actor.network.standardise(batch["observations"])
    with torch.no_grad():
        outputs, values = network(inputs)
        gaps = (batch["returns"] - values).clamp(0.0, 1.0)
        nll = -distribution.log_prob(outputs, network.policy.log_std, batch["actions"])
    count = max(int((gaps > 0).sum()), 3)
    sil._imitate()
    metrics = sil.engine.drain()
    weights = batch["weights"]
    torch.testing.assert_close(
        metrics["sil/policy"], (weights * gaps * nll.clamp(max=5.0)).sum() / count
    )
    after = sil.memory.state_dict()["priorities"]
    drawn = batch["slots"].unique()
    for slot in drawn.tolist():
        gap = gaps[(batch["slots"] == slot).nonzero()[0, 0]]
        assert after[slot].item() == pytest.approx(max(gap.item(), 1e-6) ** 0.6)
    others = torch.ones(len(after), dtype=torch.bool)
    others[drawn] = False
    assert torch.equal(after[others], state["priorities"][others])


def seeded_like(generator):
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


@pytest.mark.parametrize("settings", [{}, PPO], ids=["a2c", "ppo"])
def test_scaled_rewards_scale_the_returns(float64, make_sil, noise_world, settings):
    """With normalise_rewards nothing depends on the unit of reward, so G is in V's units."""
    after = []
    for scale in (1.0, 1000.0):
        sil, world = make_sil(normalise_rewards=True, **settings), NoisyPay(noise_world(), scale)
        for _ in range(6):
            metrics = sil.iteration(world)
        assert metrics["sil/positive"] > 0
        after.append(sil.learner.engine.parameters)
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name], rtol=1e-6, atol=1e-9)


class NoisyPay:
    """A world with noise for rewards, of some size."""

    def __init__(self, world, scale):
        self.world, self.scale, self.rng = world, scale, np.random.default_rng(1)

    def __getattr__(self, name):
        return getattr(self.world, name)

    def step(self, actions):
        step = self.world.step(actions)
        rewards = self.scale * self.rng.normal(size=self.world.num_envs)
        return dataclasses.replace(step, rewards=rewards, learner_rewards=rewards)


# -- returns --------------------------------------------------------------------------------------


def rollout_of(rewards, ends=(), cuts=(), *, first=0):
    """One environment's steps; observation t is t in every entry, action t is t mod 7."""
    count = len(rewards)
    terminated, ended = (torch.zeros(count, 1, dtype=torch.bool) for _ in range(2))
    terminated[list(ends)] = True
    ended[[*ends, *cuts]] = True
    steps = torch.arange(first, first + count)
    observations = steps[:, None, None].expand(count, 1, SIZE).to(torch.get_default_dtype())
    return Rollout(
        observations=observations,
        actions=steps[:, None] % ACTIONS,
        next_observations=observations + 1,
        rewards=torch.tensor(rewards, dtype=torch.get_default_dtype())[:, None],
        terminated=terminated,
        ended=ended,
    )


def value_of(sil, observation):
    """V of an observation that is the same number in every entry, in units of reward."""
    row = torch.full((1, SIZE), float(observation), dtype=torch.get_default_dtype())
    return sil._values(row).item()


@pytest.fixture
def one(float64, make_sil):
    """Return a function that builds SIL for one environment, with a V that is not 0."""

    def make(**options):
        options = {"num_envs": 1, "gamma": GAMMA, "episode_filter": "off"} | options
        sil = make_sil(**options)
        for name, value in sil.learner.engine.parameters.items():
            if name.startswith("value"):
                value.add_(0.3 * torch.randn(value.shape, generator=seeded(len(name))))
        return sil

    return make


def test_returns_of_episodes_across_rollouts(one):
    """Property 3: a terminated one, then a truncated one, in pieces of 2, 1 and 4 steps."""
    sil = one()
    sil._store_finished(rollout_of([1.0, 2.0]))
    assert len(sil.memory) == 0
    sil._store_finished(rollout_of([4.0], ends=[0], first=2))
    assert sil.memory.state_dict()["returns"].tolist() == [3.0, 4.0, 4.0]
    sil._store_finished(rollout_of([8.0, 0.0, 2.0, 5.0], cuts=[2], first=3))
    tail = value_of(sil, 6)
    assert abs(tail) > 0.01
    state = sil.memory.state_dict()
    expected = [8.5 + tail / 8, 1.0 + tail / 4, 2.0 + tail / 2]
    assert state["returns"][3:].tolist() == pytest.approx(expected)
    assert state["observations"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert state["actions"].tolist() == [0, 1, 2, 3, 4, 5]
    assert sil.episodes == [(3, 7.0), (3, 10.0)]


def test_returns_of_clipped_rewards(one):
    sil = one(sil_reward_clip=True)
    sil._store_finished(rollout_of([10.0, 0.0, -0.2, 7.0], ends=[3]))
    assert sil.memory.state_dict()["returns"].tolist() == [0.875, -0.25, -0.5, 1.0]
    assert sil.episodes == [(4, 16.8)]


def test_tails_are_worth_what_they_are_in_units_of_reward(one):
    """V is in units of the learner's scaled reward, G is stored in the environment's."""
    sil = one(normalise_rewards=True)
    sil.learner.scaler(torch.tensor([[0.0], [40.0]]), torch.ones(2, 1, dtype=torch.bool), None)
    assert sil.learner.scaler.std == pytest.approx(20.0)
    sil._store_finished(rollout_of([3.0], cuts=[0]))
    inputs = sil.learner.actor.network.standardise(torch.ones(1, SIZE))
    value = sil.learner.networks.value(inputs).item()
    found = sil.memory.state_dict()["returns"].item()
    assert found == pytest.approx(3.0 + GAMMA * 20.0 * value)


# -- which episodes are stored --------------------------------------------------------------------


def play(sil, *episodes):
    for rewards in episodes:
        sil._store_finished(rollout_of(rewards, ends=[len(rewards) - 1]))
    return sil.episodes


def test_the_positive_reward_filter(one):
    sil = one(episode_filter="positive-reward")
    kept = play(sil, [0.0, 0.0], [-5.0, 0.1, -1.0], [-1.0], [0.0, 2.0])
    assert kept == [(3, -5.9), (2, 2.0)]
    assert len(sil.memory) == 5


def test_the_median_filter(one):
    sil = one(episode_filter="above-median")
    play(sil, [-3.0], [-5.0], [-1.0], [-2.0], [-1.0], [-1.5])
    # medians before each: -, -3, -3, -2, -2, -1.5
    assert [total for _, total in sil.episodes] == [-3.0, -1.0, -2.0, -1.0, -1.5]
    play(sil, [-1.6], [-1.5])
    assert [total for _, total in sil.episodes][-1] == -1.5
    assert len(sil.episodes) == 6


def test_the_median_is_that_of_what_is_still_stored(one):
    sil = one(episode_filter="above-median", buffer_size=5)
    play(sil, [1.0, 1.0], [5.0, 0.0], [6.0, 6.0])
    assert sil.episodes == [(2, 2.0), (2, 5.0), (2, 12.0)]  # one step of the first is left
    play(sil, [6.0])
    assert sil.episodes == [(2, 5.0), (2, 12.0), (1, 6.0)]
    play(sil, [9.0] * 8)
    assert sil.episodes == [(8, 72.0)]
    assert len(sil.memory) == 5


def test_somebody_is_told_when_no_episode_passes(one, caplog):
    sil = one(episode_filter="positive-reward")
    with caplog.at_level(logging.WARNING, "rlfd.sil"):
        play(sil, *[[-1.0]] * (REFUSED - 1))
        assert caplog.records == []
        play(sil, *[[-1.0]] * 99)
    assert len(caplog.records) == 1
    assert "set episode_filter" in caplog.text


def test_nothing_is_imitated_before_there_is_enough(make_sil, noise_world):
    sil, world = make_sil(min_stored=12, buffer_size=12, batch_steps=3), noise_world()
    counts = []
    for _ in range(12):
        metrics = sil.iteration(world)
        counts.append((metrics["sil/stored"].item(), sil.engine.count))
    assert {stored >= 12 for stored, _ in counts} == {False, True}
    for before, (stored, after) in zip([0, *(c for _, c in counts)], counts, strict=False):
        assert after - before == (4 if stored >= 12 else 0)


# -- demonstrations -------------------------------------------------------------------------------


def demos_of(*episodes, actions=None):
    """Episodes are (rewards, terminated); observations count on through all."""
    lengths = torch.tensor([len(rewards) for rewards, _ in episodes])
    count, last = int(lengths.sum()), lengths.cumsum(0) - 1
    observations = torch.arange(float(count))[:, None].expand(count, SIZE).clone()
    terminated = torch.zeros(count, dtype=torch.bool)
    terminated[last] = torch.tensor([end for _, end in episodes])
    return DemoTensors(
        observations=observations,
        actions=torch.arange(count) % ACTIONS if actions is None else actions,
        episode_ids=torch.arange(len(episodes)).repeat_interleave(lengths),
        next_observations=observations + 1,
        rewards=torch.cat([torch.tensor(rewards) for rewards, _ in episodes]),
        terminated=terminated,
    )


def test_demonstrations_are_in_the_memory_from_the_start(make_sil):
    data = demos_of(([-1.0, -4.0, -2.0], True), ([-2.0, 0.0], True))
    sil = make_sil(demos=data, gamma=GAMMA)  # whatever the filter of own episodes says
    state = sil.memory.state_dict()
    assert state["returns"].tolist() == [-3.5, -5.0, -2.0, -2.0, 0.0]
    assert torch.equal(state["observations"], data.observations)
    assert torch.equal(state["actions"], data.actions)
    assert len(set(state["priorities"].tolist())) == 1
    assert sil.episodes == []
    clipped = make_sil(demos=data, gamma=GAMMA, sil_reward_clip=True)
    assert clipped.memory.state_dict()["returns"].tolist() == [-1.75, -1.5, -1.0, -1.0, 0.0]


def test_continuous_demonstrations_are_stored_in_the_policy_s_units(make_sil):
    data = demos_of(([1.0, 2.0, 3.0], True), actions=torch.tensor([[-1.0, 0.0], [0, 3], [1, 1.5]]))
    sil = make_sil(demos=data, action=CONTINUOUS)
    assert sil.memory.state_dict()["actions"].tolist() == [[-1, -1], [0, 1], [1, 0]]


@pytest.mark.parametrize("keep", [True, False])
def test_demonstrations_are_imitated_and_evicted_unless_kept(make_sil, noise_world, keep):
    data = demos_of(([1.0] * 5, True), ([1.0] * 4, True))
    sil, world = make_sil(demos=data, keep_demos=keep), noise_world()
    first = sil.iteration(world)
    assert first["sil/stored"] == 9 + sum(length for length, _ in sil.episodes)
    assert sil.engine.count == 4
    for _ in range(9):
        sil.iteration(world)
    assert len(sil.memory) == 31
    still = sil.memory.state_dict()["observations"][:9]
    assert torch.equal(still, data.observations) == keep
    assert sum(length for length, _ in sil.episodes) >= (22 if keep else 31)


@pytest.mark.parametrize("keep", [True, False])
def test_truncated_demonstrations_end_with_the_value_of_today(one, keep):
    data = demos_of(([1.0, 2.0], False), ([4.0, 4.0], True), ([8.0], False))
    sil = one(demos=data, keep_demos=keep, buffer_size=8)
    assert sil.memory.state_dict()["returns"].tolist() == [2.0, 2.0, 6.0, 4.0, 8.0]

    def expected():
        first, last = value_of(sil, 2), value_of(sil, 5)
        return [2.0 + first / 4, 2.0 + first / 2, 6.0, 4.0, 8.0 + last / 2]

    sil._refresh_demonstrations()
    before = sil.memory.state_dict()["returns"].tolist()
    assert before == pytest.approx(expected())
    for value in sil.learner.engine.parameters.values():
        value.mul_(1.5)
    sil._refresh_demonstrations()
    after = sil.memory.state_dict()["returns"].tolist()
    assert after == pytest.approx(expected())
    assert after != pytest.approx(before)
    play(sil, [100.0] * 4)  # in 8 slots, so that without protection one demonstrated row is gone
    sil._refresh_demonstrations()
    left = sil.memory.state_dict()["returns"].tolist()
    if keep:
        assert left[:5] == pytest.approx(after)
    else:
        assert left[0] == 100.0
        assert left[1:5] == pytest.approx(after[1:])


@pytest.mark.parametrize(("keep", "room"), [(False, 9), (True, 8)])
def test_demonstrations_must_fit(make_sil, keep, room):
    data = demos_of(([1.0] * 9, True))
    options = {"demos": data, "keep_demos": keep}
    assert len(make_sil(buffer_size=room + 2, **options).memory) == 9
    with pytest.raises(RlfdError, match="9 transitions, expected at most") as caught:
        make_sil(buffer_size=9 if keep else 8, **options)
    assert "buffer_size" in caught.value.hint


def test_a_memory_that_can_never_hold_enough_is_refused():
    with pytest.raises(RlfdError, match="never be an update"):
        SILConfig(min_stored=101, buffer_size=100)


def test_one_imitated_episode_is_learned_by_heart(make_sil, noise_world):
    """Demonstrated decisions that were far better than V expects become the policy's."""
    observations = torch.randn(9, SIZE, generator=seeded())
    data = dataclasses.replace(demos_of(([50.0] * 9, True)), observations=observations)
    sil = make_sil(
        demos=data,
        keep_demos=True,
        min_positive=1,
        sil_updates=9,
        learning_rate=0.01,
        normalise_observations=False,
        episode_filter="positive-reward",
    )
    world = noise_world(reward=0.0)
    for _ in range(60):
        metrics = sil.iteration(world)
    assert sil.episodes == []  # own ones pay nothing
    assert metrics["sil/positive"] == 1.0
    seen = data.observations.numpy()
    assert sil.act(seen, greedy=True).tolist() == data.actions.tolist()
