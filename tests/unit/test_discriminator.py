"""The discriminator: its optimum, its loss, the rewards made from it, and what it is shown."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise, product

import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors, Problem
from rlfd.algorithms.core.discriminator import (
    Discriminator,
    DiscriminatorFields,
    coin_entropy,
    discrimination_loss,
    gradient_penalty,
    imitation_reward,
)
from rlfd.algorithms.core.distributions import make_distribution

FORMS = ("gail", "neg", "airl", "bounded")
DISCRETE = ActionSpec("discrete", (7,))
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))


@pytest.fixture
def make_discriminator(make_demos):
    def make(*, action=DISCRETE, demos=None, shape=(5,), gamma=0.9, seed=0, compile="off", **hyper):
        problem = Problem(
            observation_shape=shape,
            action=action,
            demonstrations=make_demos(shape=shape) if demos is None else demos,
            env_steps=999,
            num_envs=3,
            seed=seed,
            device=torch.device("cpu"),
            compile=compile,
            frame_stack=shape[0] if len(shape) == 3 else 0,
        )
        config = DiscriminatorFields(**{"d_hidden": (11,), "d_batch_size": 9} | hyper)
        distribution = make_distribution(action)
        return Discriminator(problem, config, distribution, gamma=gamma, planned_updates=99)

    return make


def noise_rows(discriminator, count=33, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(count, 5, generator=generator)
    return discriminator.rows(observations, torch.randint(7, (count,), generator=generator))


def with_ends(discriminator, rows, *stays, seed=5):
    """Append rows of absorbing states of noise, as many of each as `stays` says."""
    generator = torch.Generator().manual_seed(seed)
    last = torch.randn(len(stays), 5, generator=generator)
    return discriminator.with_absorbing(rows, last, torch.tensor(stays))


# -- rewards ------------------------------------------------------------------------------------


def test_rewards_are_what_they_say(float64):
    logits = torch.linspace(-5.0, 5.0, 41)
    d = torch.sigmoid(logits)
    expected = {"gail": -(1 - d).log(), "neg": d.log(), "airl": (d / (1 - d)).log(), "bounded": d}
    for form in FORMS:
        torch.testing.assert_close(imitation_reward(logits, form), expected[form])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rewards_are_finite_and_fit_together_at_any_logit(dtype):
    logits = torch.tensor([-1e3, -300.0, -20.0, 0.0, 20.0, 300.0, 1e3], dtype=dtype)
    gail, neg, airl, bounded = (imitation_reward(logits, form) for form in FORMS)
    for reward in (gail, neg, airl, bounded, coin_entropy(logits)):
        assert torch.isfinite(reward).all()
    torch.testing.assert_close(gail + neg, airl)
    assert (gail >= 0).all()
    assert (neg <= 0).all()
    torch.testing.assert_close(imitation_reward(-logits, "gail"), -neg)
    torch.testing.assert_close(imitation_reward(-logits, "bounded"), 1 - bounded)
    assert gail[-1] == airl[-1] == 1e3
    assert (neg[-1], neg[0]) == (0.0, -1e3)


def test_entropy_of_the_coin(float64):
    d = torch.tensor([0.5, 0.1, 0.9])
    expected = -d * d.log() - (1 - d) * (1 - d).log()
    torch.testing.assert_close(coin_entropy(torch.logit(d)), expected)


# -- loss ---------------------------------------------------------------------------------------


def test_the_minimum_over_tables_is_the_ratio_of_occupancies(float64):
    """L_D of a free logit per cell, weighted exactly: D* = ρ_E / (ρ_E + ρ_π), 2 log 2 - 2 JS."""
    generator = torch.Generator().manual_seed(0)
    expert, own = torch.rand(2, 15, generator=generator).unbind()
    expert, own = expert / expert.sum(), own / own.sum()

    def loss(logits):
        nats = imitation_reward(logits, "gail"), imitation_reward(logits, "neg")
        return -(expert * nats[1]).sum() + (own * nats[0]).sum()

    logits = torch.zeros(15, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        optimiser.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    for _ in range(5):
        optimiser.step(closure)
    torch.testing.assert_close(torch.sigmoid(logits), expert / (expert + own), rtol=0, atol=1e-6)
    middle = (expert + own) / 2
    divergences = [(p * (p / middle).log()).sum() for p in (expert, own)]
    js = 0.5 * sum(divergences)
    torch.testing.assert_close(loss(logits), 2 * math.log(2.0) - 2 * js)


def test_the_loss_is_the_mean_over_samples_of_that(float64):
    demo, own = torch.tensor([0.3, -1.2]), torch.tensor([2.0, 0.1, -0.7])
    expected = -torch.sigmoid(demo).log().mean() - (1 - torch.sigmoid(own)).log().mean()
    torch.testing.assert_close(discrimination_loss(demo, own), expected)
    torch.testing.assert_close(discrimination_loss(-own, -demo), expected)  # labels swapped
    undecided = discrimination_loss(torch.zeros(3), torch.zeros(7))
    torch.testing.assert_close(undecided, torch.tensor(2 * math.log(2.0)))


def test_where_both_sides_are_the_same_nothing_is_learned_from(float64, make_discriminator):
    """The gradient of L_D at an undecided D is 0, and every pair is paid the same."""
    discriminator = make_discriminator(d_hidden=(), d_entropy_weight=0.0)
    rows = noise_rows(discriminator)
    for parameter in discriminator.engine.parameters.values():
        parameter.zero_()
    discriminator.step(rows, rows)
    metrics = discriminator.drain()
    assert metrics["discriminator/loss"].item() == pytest.approx(2 * math.log(2.0))
    assert metrics["discriminator/grad_norm"].item() == pytest.approx(0.0, abs=1e-12)
    for form in FORMS:
        assert imitation_reward(discriminator.logits(rows), form).std() < 1e-9


def test_loss_by_hand(float64, make_discriminator):
    """With entropy and penalty, against plain autograd."""
    discriminator = make_discriminator(d_entropy_weight=0.3, d_gradient_penalty=0.7)
    own, demo = noise_rows(discriminator), noise_rows(discriminator, seed=2)
    mix = torch.rand(33, 1, generator=torch.Generator().manual_seed(3))
    loss, metrics = discriminator._loss(
        discriminator.engine.parameters, {}, {"own": own, "demo": demo, "mix": mix}
    )
    net = discriminator.network
    d_demo, d_own = torch.sigmoid(net(demo)), torch.sigmoid(net(own))
    both = torch.cat([d_demo, d_own])
    entropy = (-both * both.log() - (1 - both) * (1 - both).log()).mean()
    between = (mix * demo + (1 - mix) * own).requires_grad_()
    (slopes,) = torch.autograd.grad(net(between).sum(), between)
    penalty = (slopes.norm(dim=1) - 1).square().mean()
    expected = -d_demo.log().mean() - (1 - d_own).log().mean() - 0.3 * entropy + 0.7 * penalty
    torch.testing.assert_close(loss, expected)
    assert metrics["discriminator/gradient_penalty"].item() == pytest.approx(penalty.item())
    assert metrics["discriminator/accuracy_demo"] == (d_demo > 0.5).double().mean()
    assert metrics["discriminator/accuracy_own"] == (d_own < 0.5).double().mean()
    assert metrics["discriminator/logit_own"].item() == pytest.approx(net(own).mean().item())
    assert metrics["discriminator/saturation"] == 0
    with torch.no_grad():
        discriminator.network[-1].bias += 10.0
    _, metrics = discriminator._loss(
        discriminator.engine.parameters, {}, {"own": own, "demo": demo, "mix": mix}
    )
    assert metrics["discriminator/saturation"] == 1


def test_no_penalty_for_a_linear_logit_of_unit_norm(float64, make_discriminator):
    discriminator = make_discriminator(d_hidden=(), d_gradient_penalty=10.0, d_entropy_weight=0.0)
    weight = discriminator.engine.parameters["0.weight"]
    weight.copy_(weight / weight.norm())
    rows = noise_rows(discriminator)
    batch = {"own": rows, "demo": rows.flip(0), "mix": torch.rand(33, 1)}
    _, metrics = discriminator._loss(discriminator.engine.parameters, {}, batch)
    assert metrics["discriminator/gradient_penalty"].item() == pytest.approx(0.0, abs=1e-24)
    gradients = torch.func.grad(
        lambda p: discriminator._loss(p, {}, batch)[1]["discriminator/gradient_penalty"]
    )(discriminator.engine.parameters)
    assert all(value.abs().max() < 1e-10 for value in gradients.values())
    weight.mul_(3.0)
    _, metrics = discriminator._loss(discriminator.engine.parameters, {}, batch)
    assert metrics["discriminator/gradient_penalty"].item() == pytest.approx(4.0)


def test_the_penalty_of_a_flat_logit_has_a_finite_gradient(float64):
    slopes = torch.zeros(3, 5, requires_grad=True)
    penalty = gradient_penalty(slopes, torch.ones(3))
    (gradient,) = torch.autograd.grad(penalty, slopes)
    assert penalty.item() == pytest.approx(1.0)
    assert torch.isfinite(gradient).all()


def test_slopes_are_compared_between_absorbing_states_or_between_others(
    float64, make_discriminator
):
    """Not between the two kinds, nor towards the mark, nor towards actions where there are none."""
    discriminator = make_discriminator(absorbing="indicator", d_gradient_penalty=1.0)
    own, demo = noise_rows(discriminator, 8), noise_rows(discriminator, 8, seed=2)
    ends, others = with_ends(discriminator, own[:0], 1, 1, 1, 1, 1).split([3, 2])
    own[:3], demo[2:4] = ends, others
    mix = torch.rand(8, 1, generator=torch.Generator().manual_seed(3))
    net = discriminator.network

    def penalty(rows):
        batch = {"own": own[rows], "demo": demo[rows], "mix": mix[rows]}
        parameters = discriminator.engine.parameters
        return discriminator._loss(parameters, {}, batch)[1]["discriminator/gradient_penalty"]

    between = (mix * demo + (1 - mix) * own).requires_grad_()
    (slopes,) = torch.autograd.grad(net(between).sum(), between)
    shortfall = [(slopes[row, :width].norm() - 1).square() for row, width in ((2, 5), (4, 12))]
    torch.testing.assert_close(penalty(slice(2, 3)), shortfall[0])
    torch.testing.assert_close(penalty(slice(4, 5)), shortfall[1])
    assert penalty(slice(0, 2)) == penalty(slice(3, 4)) == 0
    expected = (penalty(slice(2, 3)) + 4 * penalty(slice(4, 8))) / 5
    torch.testing.assert_close(penalty(slice(0, 8)), expected)


def test_steps_take_the_penalty_down(float64, make_discriminator):
    """Only with its gradient with respect to the weights can they: the one through ∇_z ℓ."""
    after = {}
    for weight in (0.0, 100.0):
        discriminator = make_discriminator(d_gradient_penalty=weight, d_learning_rate=0.01)
        rows = noise_rows(discriminator)
        discriminator.observe(torch.cat([rows, discriminator.demo_rows]))
        for _ in range(200):
            discriminator.step(rows[:17], discriminator.demo_rows)
        between = discriminator.standardise(rows[:17]).requires_grad_()
        (slopes,) = torch.autograd.grad(discriminator.network(between).sum(), between)
        after[weight] = gradient_penalty(slopes, torch.ones(17)).item()
    assert after[100.0] < 0.05 < after[0.0]


@pytest.mark.slow
def test_compiled_steps_with_penalty_equal_eager_ones(make_discriminator):
    options = {"d_gradient_penalty": 10.0, "absorbing": "indicator"}
    eager, fast = (make_discriminator(compile=switch, **options) for switch in ("off", "on"))
    own = with_ends(eager, noise_rows(eager), 2, 5)
    for _ in range(3):
        eager.learn(own)
        fast.learn(own)
    torch.testing.assert_close(fast.drain(), eager.drain(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        fast.engine.parameters, eager.engine.parameters, rtol=1e-3, atol=1e-4
    )
    assert fast.engine._compile  # it did not fall back


# -- learning -----------------------------------------------------------------------------------


def test_it_comes_to_tell_two_samples_apart(make_discriminator):
    discriminator = make_discriminator(d_learning_rate=0.01, d_steps=100)
    own = noise_rows(discriminator)
    own[:, 0] += 3.0
    discriminator.learn(own)
    discriminator.drain()
    discriminator.learn(own)
    metrics = discriminator.drain()
    assert set(metrics) == set(Discriminator.metric_definitions)
    for side in ("demo", "own"):
        assert metrics[f"discriminator/accuracy_{side}"] > 0.9
    assert (
        discriminator.logits(own).mean()
        < -1
        < 1
        < discriminator.logits(discriminator.demo_rows).mean()
    )


def test_swapped_labels_and_swapped_reward_pay_the_same(float64, make_discriminator):
    """Trained with the sides exchanged ℓ is -ℓ: "neg" then pays what "gail" costs, and so on."""
    first, second = make_discriminator(), make_discriminator()
    with torch.no_grad():  # start at -ℓ
        for value in (second.network[-1].weight, second.network[-1].bias):
            value.neg_()
    own, demo = noise_rows(first), noise_rows(first, seed=2)
    for discriminator in (first, second):
        discriminator.observe(torch.cat([own, demo]))
    for start in range(0, 33, 11):
        part = slice(start, start + 11)
        first.step(own[part], demo[part])
        second.step(demo[part], own[part])
    for form, other in (("gail", "neg"), ("neg", "gail"), ("airl", "airl")):
        rewards = imitation_reward(first.logits(own), form)
        swapped = -imitation_reward(second.logits(own), other)
        torch.testing.assert_close(rewards, swapped, rtol=1e-9, atol=1e-12)


def test_both_sides_are_drawn_in_equal_numbers_and_none_is_left_out(
    make_discriminator, monkeypatch
):
    discriminator = make_discriminator(d_steps=4, d_batch_size=9)
    own, seen = noise_rows(discriminator), []
    monkeypatch.setattr(discriminator, "step", lambda *rows: seen.append(rows))
    discriminator.learn(own)
    assert [tuple(len(rows) for rows in both) for both in seen] == [(9, 9)] * 4
    for side, rows in enumerate((own, discriminator.demo_rows)):
        drawn = torch.cat([both[side] for both in seen])
        counts = [(drawn == row).all(1).sum().item() for row in rows]
        assert min(counts) >= 1
        assert max(counts) <= -(-36 // len(rows))


def test_statistics_are_those_of_both_sides_together(float64, make_discriminator):
    discriminator = make_discriminator()
    own = 3.0 * noise_rows(discriminator) + 2.0
    discriminator.learn(own)
    assert discriminator._moments.count == 2 * 10 * 9
    both = torch.cat([own, discriminator.demo_rows])
    discriminator = make_discriminator()
    discriminator.observe(own)
    discriminator.observe(discriminator.demo_rows)
    inputs = discriminator.standardise(both)
    torch.testing.assert_close(inputs.mean(0), torch.zeros(12), rtol=0, atol=1e-12)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(12))
    assert discriminator.standardise(both * 1e6).abs().max() == 10.0


def test_its_draws_are_its_own(make_discriminator):
    state = torch.get_rng_state()
    first, again, other = (make_discriminator(seed=seed) for seed in (3, 3, 4))
    for discriminator in (first, again, other):
        discriminator.learn(noise_rows(discriminator))
    assert torch.equal(torch.get_rng_state(), state)
    rows = noise_rows(first)
    assert torch.equal(first.logits(rows), again.logits(rows))
    assert not torch.equal(first.logits(rows), other.logits(rows))


def test_it_goes_on_the_same_from_its_state(make_discriminator):
    discriminator, restored = (
        make_discriminator(d_gradient_penalty=1.0),
        make_discriminator(d_gradient_penalty=1.0),
    )
    rows = noise_rows(discriminator)
    discriminator.learn(rows)
    discriminator.drain()
    restored.learn(noise_rows(restored, seed=5))
    restored.drain()
    restored.load_state_dict(discriminator.state_dict())
    for one in (discriminator, restored):
        one.learn(rows)
    first, second = discriminator.drain(), restored.drain()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(discriminator.logits(rows), restored.logits(rows))


# -- what it is shown ---------------------------------------------------------------------------


def test_continuous_actions_are_shown_as_they_take_effect(make_discriminator, make_demos):
    """Demonstrated ones in the policy's units, own ones clipped to the bounds."""
    demos = make_demos((3,))
    actions = torch.tensor([[-1.0, 0.0], [0.5, 3.0], [1.0, 1.5]])
    demos = dataclasses.replace(demos, actions=actions)
    discriminator = make_discriminator(action=CONTINUOUS, demos=demos)
    expected = torch.tensor([[-1.0, -1.0], [0.5, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(discriminator.demo_rows[:, 5:], expected)
    own = discriminator.rows(torch.zeros(2, 5), torch.tensor([[-7.0, 0.25], [1.5, 0.0]]))
    torch.testing.assert_close(own[:, 5:], torch.tensor([[-1.0, 0.25], [1.0, 0.0]]))


def test_shapes_are_flattened_and_actions_one_hot(make_discriminator):
    discriminator = make_discriminator(shape=(3, 13))
    rows = discriminator.rows(torch.arange(78.0).view(2, 3, 13), torch.tensor([6, 0]))
    assert rows.shape == (2, 39 + 7)
    assert rows[1, :39].tolist() == list(range(39, 78))
    assert rows[:, 39:].argmax(1).tolist() == [6, 0]


@pytest.mark.parametrize("absorbing", ["off", "value", "indicator"])
@pytest.mark.parametrize("demo_every", [1, 2])
def test_demonstrated_ends_are_rows_of_their_own(
    make_discriminator, make_demos, absorbing, demo_every
):
    """(s_T, no action, mark), each as often as the rest of its own episode counts."""
    demos = make_demos((3, 9, 5), terminated=[True, False, True])
    discriminator = make_discriminator(demos=demos, absorbing=absorbing, demo_every=demo_every)
    rows = discriminator.demo_rows
    if absorbing != "indicator":
        assert rows.shape[1] == 12
        assert (discriminator.absorbing_logits(demos.next_observations[:3]) == 0).all()
        return
    marks = rows[:, -1] == 1
    counts = [round(0.9**length / 0.1) for length in (3, 5)]
    assert counts == [7, 6]
    last = demos.next_observations[[2, 16]].repeat_interleave(torch.tensor(counts), dim=0)
    assert torch.equal(rows[marks, :5], last)
    assert (rows[marks, 5:12] == 0).all()
    assert marks.sum() == 13
    assert marks[-13:].all()


def test_own_ends_are_rows_of_their_own(make_discriminator):
    discriminator = make_discriminator(absorbing="indicator")
    rows, last = noise_rows(discriminator), torch.randn(33, 5)
    stays = torch.zeros(33, dtype=torch.int64)
    stays[4], stays[20] = 3, 1
    result = discriminator.with_absorbing(rows, last, stays)
    assert torch.equal(result[:33], rows)
    assert torch.equal(result[33:, :5], last[[4, 4, 4, 20]])
    assert (result[33:, 5:12] == 0).all()
    assert result[:, -1].tolist() == [0.0] * 33 + [1.0] * 4


def test_where_nothing_ever_ends_absorbing_states_are_left_undecided(
    make_discriminator, make_demos
):
    """Their logits would be whatever the others' weights make of them."""
    demos, last = make_demos(terminated=[False] * 3), torch.randn(3, 5)
    discriminator = make_discriminator(demos=demos, absorbing="indicator")
    own = noise_rows(discriminator)
    discriminator.learn(own)
    assert (discriminator.absorbing_logits(last) == 0).all()
    discriminator.learn(with_ends(discriminator, own, 1))
    assert (discriminator.absorbing_logits(last) != 0).all()
    restored = make_discriminator(demos=demos, absorbing="indicator")
    restored.load_state_dict(discriminator.state_dict())
    assert torch.equal(restored.absorbing_logits(last), discriminator.absorbing_logits(last))


def test_a_crash_is_told_from_the_demonstrators_landing(make_discriminator, make_demos):
    """Both sides end equally often, but elsewhere."""
    demos = make_demos((4, 4), terminated=[True, True])
    demos.next_observations[demos.terminated] = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0])
    discriminator = make_discriminator(
        absorbing="indicator", demos=demos, d_learning_rate=0.01, d_steps=300
    )
    own = discriminator.demo_rows[:8]
    landing, crash = torch.tensor([[2.0, 0.0, 0, 0, 0], [-2.0, 0.0, 0, 0, 0]]).split(1)
    stays = torch.tensor([0, 0, 0, 7, 0, 0, 0, 7])
    discriminator.learn(discriminator.with_absorbing(own, crash.expand(8, 5), stays))
    assert discriminator.absorbing_logits(landing).item() > 2.0
    assert discriminator.absorbing_logits(crash).item() < -2.0


def test_absorbing_states_have_no_action_and_do_not_move_the_statistics(make_discriminator):
    discriminator = make_discriminator(absorbing="indicator")
    ordinary = noise_rows(discriminator) + 3.0
    ordinary[:, -1] = 0.0
    rows = with_ends(discriminator, ordinary, 4, 9)
    discriminator.observe(rows)
    assert discriminator._moments.count == 33
    inputs = discriminator.standardise(rows)
    mean, std = ordinary.mean(0), ordinary.std(0, correction=0)
    torch.testing.assert_close(inputs[33:, :5], ((rows - mean) / std)[33:, :5])
    assert (inputs[33:, 5:12] == 0).all()
    assert inputs[:, -1].tolist() == [0.0] * 33 + [1.0] * 13
    assert inputs[:33].mean(0).abs().max() < 1e-5


def test_nothing_but_absorbing_rows_changes_no_statistics(make_discriminator):
    """Short episodes with a long horizon: a minibatch may hold no ordinary row."""
    discriminator = make_discriminator(absorbing="indicator")
    ordinary = noise_rows(discriminator) + 3.0
    ordinary[:, -1] = 0.0
    discriminator.observe(ordinary)
    mean, std = discriminator._mean.clone(), discriminator._std.clone()
    discriminator.observe(with_ends(discriminator, ordinary, 4)[len(ordinary) :])
    assert torch.equal(discriminator._mean, mean)
    assert torch.equal(discriminator._std, std)


def test_logits_of_absorbing_states_follow_who_ends_more_often(make_discriminator, make_demos):
    """All end in one place: every third own row is an end, of the demonstrations one in six."""
    demos, last = make_demos(), torch.zeros(1, 5)
    demos.next_observations[demos.terminated] = 0.0
    discriminator = make_discriminator(
        demos=demos,
        absorbing="indicator",
        gamma=0.5,  # one row for each end
        d_learning_rate=0.02,
        d_steps=300,
        d_entropy_weight=0.0,
    )
    own = noise_rows(discriminator, 20)
    stays = torch.arange(20) % 2
    discriminator.learn(discriminator.with_absorbing(own, last.expand(20, 5), stays))
    ratio = math.log((3 / 20) / (10 / 30))  # log ρ_E / ρ_π there: 3 of 20 rows, 10 of 30
    assert discriminator.absorbing_logits(last).item() == pytest.approx(ratio, abs=0.4)


def test_subsampling_keeps_every_kth_pair_of_each_demonstration(make_discriminator, make_demos):
    demos = make_demos((23, 9, 2))
    discriminator = make_discriminator(demos=demos, demo_every=5)
    everything = make_discriminator(demos=demos).demo_rows
    kept = [
        [t for t in range(a, b) if (discriminator.demo_rows == everything[t]).all(1).any()]
        for a, b in ((0, 23), (23, 32), (32, 34))
    ]
    assert len(discriminator.demo_rows) == sum(map(len, kept))
    assert all(map(len, kept))
    for times in kept:
        assert all(b - a == 5 for a, b in pairwise(times))
    assert len(kept[0]) in (4, 5)


def test_subsampling_does_not_make_ends_more_frequent(make_discriminator, make_demos):
    demos = make_demos((20, 10), terminated=[True, True])
    rows = make_discriminator(demos=demos, demo_every=5, absorbing="indicator").demo_rows
    assert (rows[:, -1] == 1).sum() == 1 + 3  # 0.9**20 / 0.1 and 0.9**10 / 0.1
    assert (rows[:, -1] == 0).sum() == 30
    assert len(rows[rows[:, -1] == 0].unique(dim=0)) == 6


# -- a whole process ----------------------------------------------------------------------------


def test_on_a_table_it_finds_the_ratio_of_occupancies(float64, make_discriminator):
    """A linear logit over one-hot pairs is a table; trained on exact counts it is log ρ_E / ρ_π."""
    counts = {"demo": [4, 1, 2, 3, 2], "own": [1, 3, 2, 2, 4]}  # of 12 each

    def pairs(numbers):
        states = torch.arange(5).repeat_interleave(torch.tensor(numbers))
        return torch.eye(5)[states], torch.zeros(len(states), dtype=torch.int64)

    observations, actions = pairs(counts["demo"])
    demos = DemoTensors(
        observations=observations,
        actions=actions,
        episode_ids=torch.zeros(12, dtype=torch.int64),
        terminated=torch.zeros(12, dtype=torch.bool),
    )
    discriminator = make_discriminator(
        action=ActionSpec("discrete", (1,)),
        demos=demos,
        d_hidden=(),
        d_learning_rate=0.03,
        d_entropy_weight=0.0,
        d_batch_size=12,
        d_steps=2_000,
    )
    own = discriminator.rows(*pairs(counts["own"]))
    discriminator.learn(own)
    logits = discriminator.logits(discriminator.rows(torch.eye(5), torch.zeros(5).long()))
    for state, (demo, mine) in enumerate(zip(*counts.values(), strict=True)):
        expected = demo / (demo + mine)
        assert torch.sigmoid(logits[state]).item() == pytest.approx(expected, abs=1e-3)


def test_every_setting_can_be_set_with_every_other():
    for form, absorbing in product(FORMS, ("off", "value", "indicator")):
        DiscriminatorFields(reward_form=form, absorbing=absorbing)


# -- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("absorbing", ["off", "indicator"])
def test_images_are_rows_of_bytes_scaled_to_one(
    make_discriminator, make_demos, image_shape, absorbing
):
    demos = make_demos(shape=image_shape)
    discriminator = make_discriminator(shape=image_shape, absorbing=absorbing, demos=demos)
    pixels, indicator = math.prod(image_shape), absorbing == "indicator"
    rows = discriminator.demo_rows
    shown = rows[torch.tensor([4, 16, 0])]
    assert shown.shape == (3, pixels + 7 + indicator)
    assert shown.dtype == torch.uint8
    assert torch.equal(shown[0, :pixels], demos.observations[4].flatten())
    assert shown[0, pixels : pixels + 7].tolist() == [int(demos.actions[4] == a) for a in range(7)]
    inputs = discriminator.standardise(shown)
    torch.testing.assert_close(inputs[:, :pixels], shown[:, :pixels] / 255.0)
    assert torch.equal(inputs[:, pixels:], shown[:, pixels:].float())
    discriminator.observe(shown)  # no statistics are kept
    assert torch.equal(discriminator.standardise(shown), inputs)
    # as many rows of the absorbing state as beside vectors, after the others
    beside = make_discriminator(absorbing=absorbing, demos=make_demos())
    assert len(rows) == len(beside.demo_rows)
    last = rows[torch.arange(17, len(rows))]
    assert (len(rows) > 17) == indicator
    if indicator:
        ends = demos.next_observations[[2, 11, 16]].flatten(1)
        counts = torch.tensor([7, 4, 6])  # 0.9**3 / 0.1 and so on
        assert torch.equal(last[:, :pixels], ends.repeat_interleave(counts, dim=0))
        assert (last[:, pixels:-1] == 0).all()
        assert (last[:, -1] == 1).all()


def test_it_learns_to_tell_images_apart(make_discriminator, make_demos, image_shape):
    """Demonstrations are dark, own images bright."""
    demos = make_demos(shape=image_shape)
    dark = dataclasses.replace(demos, observations=demos.observations // 4)
    discriminator = make_discriminator(
        shape=image_shape, demos=dark, d_steps=12, d_learning_rate=1e-3
    )
    own = discriminator.rows(demos.observations // 2 + 127, demos.actions)
    for _ in range(4):
        discriminator.learn(own)
    metrics = discriminator.drain()
    assert metrics["discriminator/accuracy_own"] > 0.9
    demonstrated = discriminator.logits(discriminator.rows(dark.observations, dark.actions))
    assert demonstrated.min() > 0 > discriminator.logits(own).max()
