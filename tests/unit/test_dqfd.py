"""DQfD: the margin, both returns, and a memory from which demonstrations never go."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.dqfd import margin_losses
from rlfd.algorithms.rl.dqn import dqn_target, huber

EAGER = {"updates_per_env_step": 1 / 3, "batch_size": 9, "pretrain_updates": 4}
ALONE = {"n_step_weight": 0.0, "margin_weight": 0.0, "l2_weight": 0.0}
NAMES = ("dqfd", "dqfd-reward-free")


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randn(*shape, generator=generator)


def choices(count, seed=1):
    return torch.randint(7, (count,), generator=torch.Generator().manual_seed(seed))


def run(algorithm, world, count):
    return [algorithm.iteration(world) for _ in range(count)]


# -- the margin ---------------------------------------------------------------------------------


def test_the_margin_loss_by_hand(float64):
    """Leading by 2, by exactly the margin, by less, and behind."""
    q = torch.tensor([[3.0, 1.0, 0.0], [1.5, 2.3, 0.0], [1.0, 0.7, 0.9], [0.0, 5.0, 1.0]])
    found = margin_losses(q, torch.tensor([0, 1, 0, 2]), 0.8)
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.7, 4.8], abs=1e-12)


def test_the_margin_loss_is_zero_exactly_where_the_demonstrated_action_leads(float64):
    q, demonstrated = draw(99, 7), choices(99)
    found = margin_losses(q, demonstrated, 0.8)
    others = q.scatter(1, demonstrated[:, None], -torch.inf).amax(1)
    leads = q.gather(1, demonstrated[:, None])[:, 0] >= others + 0.8
    assert (found >= 0).all()
    assert torch.equal(found == 0, leads)
    assert 0 < leads.sum() < 99


def test_without_margin_and_with_a_soft_maximum_it_is_cross_entropy(float64):
    q, demonstrated = draw(99, 7), choices(99)
    soft = q.logsumexp(1) - q.amax(1)  # what replaces the maximum
    expected = torch.nn.functional.cross_entropy(q, demonstrated, reduction="none")
    torch.testing.assert_close(margin_losses(q, demonstrated, 0.0) + soft, expected)


def test_the_margin_loss_raises_one_action_as_much_as_it_lowers_another(float64):
    """Both ends of the difference have a gradient: what a state is worth is not its business."""
    demonstrated = choices(99)
    found = torch.func.grad(lambda q: margin_losses(q, demonstrated, 0.8).sum())(draw(99, 7))
    torch.testing.assert_close(found.sum(1), torch.zeros(99))
    assert set(found.flatten().tolist()) == {-1.0, 0.0, 1.0}
    assert (found.gather(1, demonstrated[:, None]) <= 0).all()


# -- the loss -----------------------------------------------------------------------------------


def make_batch(is_demo, *, size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def discounts():
        ended = torch.rand(size, generator=generator) < 0.3
        return 0.9 * (~ended).to(torch.get_default_dtype())

    return {
        "observations": draw(size, 5, seed=seed),
        "actions": choices(size),
        "rewards": draw(size, seed=seed + 1),
        "next_observations": draw(size, 5, seed=seed + 2),
        "discounts": discounts(),
        "n/rewards": draw(size, seed=seed + 3),
        "n/next_observations": draw(size, 5, seed=seed + 4),
        "n/discounts": discounts(),
        "weights": torch.rand(size, generator=generator),
        "is_demo": torch.as_tensor(is_demo, dtype=torch.get_default_dtype()).expand(size),
    }


def gradient(algorithm, batch):
    engine = algorithm.learner.engine
    return torch.func.grad_and_value(algorithm._loss, has_aux=True)(
        engine.parameters, engine.target_parameters, batch
    )


def assert_same_gradients(first, second):
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-9, atol=1e-12)


def test_own_transitions_feel_no_margin(float64, make_algorithm):
    algorithm = make_algorithm("dqfd", margin_weight=3.0)
    without = make_algorithm("dqfd", margin_weight=0.0)
    own, _ = gradient(algorithm, make_batch(0.0))
    assert_same_gradients(own, gradient(without, make_batch(0.0))[0])
    shown, (_, outputs) = gradient(algorithm, make_batch(1.0))
    assert outputs["loss/margin"] > 0
    plain, _ = gradient(without, make_batch(1.0))
    assert any((shown[name] - plain[name]).abs().max() > 1e-3 for name in shown)


def test_with_one_step_both_errors_are_the_same(make_algorithm, noise_world):
    algorithm = make_algorithm("dqfd", n_step=1, **EAGER)
    run(algorithm, noise_world(), 5)
    batch = algorithm.memory.sample(9, 0.6, algorithm.learner.generator)
    _, (_, outputs) = gradient(algorithm, batch)
    assert outputs["loss/n_step"] == outputs["loss/td"] > 0


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_parts_of_the_loss_by_definition(float64, make_algorithm, weight):
    options = {"n_step_weight": 0.7, "margin_weight": 0.5 * weight, "l2_weight": 0.01}
    algorithm = make_algorithm("dqfd", margin=0.4, **options)
    batch = make_batch([1.0, 0.0, 0.0] * 3)
    engine, learner = algorithm.learner.engine, algorithm.learner
    for value in engine.target_parameters.values():
        value.mul_(0.8)

    def error(kind):
        following = batch[kind + "next_observations"]
        y = dqn_target(
            batch[kind + "rewards"],
            batch[kind + "discounts"],
            learner.values(engine.target_parameters, following),
            learner.values(engine.parameters, following),
        )
        return q - y

    values = learner.values(engine.parameters, batch["observations"])
    q = values.gather(1, batch["actions"][:, None])[:, 0]
    margins = batch["is_demo"] * margin_losses(values, batch["actions"], 0.4)
    each = huber(error(""), 1.0) + 0.7 * huber(error("n/"), 1.0) + 0.5 * weight * margins
    squares = sum(value.square().sum() for value in engine.parameters.values())
    expected = (batch["weights"] * each).mean() + 0.01 * squares
    _, (loss, outputs) = gradient(algorithm, batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(outputs["errors"], error(""))


def test_without_its_own_parts_it_is_prioritised_double_dueling_dqn(float64, make_algorithm):
    algorithm = make_algorithm("dqfd", **ALONE)
    dqn = make_algorithm("dqn", dueling=True, prioritised=True)
    dqn.learner.engine.load_parameters(algorithm.learner.engine.parameters)
    batch = make_batch(0.0)
    (found, (loss, outputs)), (expected, (other, theirs)) = (
        gradient(one, batch) for one in (algorithm, dqn)
    )
    assert_same_gradients(found, expected)
    assert loss == other
    assert torch.equal(outputs["errors"], theirs["td_errors"])


def test_without_rewards_demonstrations_lead_by_a_margin_and_nothing_else(float64, make_algorithm):
    algorithm = make_algorithm("dqfd-reward-free", l2_weight=0.0)
    batch = make_batch(1.0)
    found, (loss, outputs) = gradient(algorithm, batch)
    assert outputs["loss/td"] == outputs["loss/n_step"] == 0
    assert loss == outputs["loss/margin"] > 0
    nonsense = {key: torch.full_like(batch[key], 99.0) for key in ("rewards", "n/rewards")}
    assert_same_gradients(found, gradient(algorithm, batch | nonsense)[0])
    values = algorithm.learner.values(algorithm.learner.engine.parameters, batch["observations"])
    assert torch.equal(outputs["errors"], margin_losses(values, batch["actions"], 0.8))
    assert outputs["q/target"] == 0
    mixed = batch | {"is_demo": torch.tensor([1.0] * 7 + [0.0] * 2)}
    mixed["rewards"][:7] = 99.0
    targets = algorithm._target(
        algorithm.learner.engine.parameters, algorithm.learner.engine.target_parameters, mixed
    )
    _, (_, outputs_of_mixed) = gradient(algorithm, mixed)
    torch.testing.assert_close(outputs_of_mixed["q/target"], targets[7:].mean())
    # own transitions are as ever
    own, _ = gradient(algorithm, make_batch(0.0))
    assert_same_gradients(own, gradient(make_algorithm("dqfd", l2_weight=0.0), make_batch(0.0))[0])


# -- the memory ---------------------------------------------------------------------------------


@pytest.fixture
def path_demos():
    """Two demonstrations: 4 steps that end in a terminal state, 3 that were cut.

    The observation of row i is i; what follows the last one of an episode is half a step further.
    """
    places = torch.tensor([0.0, 1, 2, 3, 10, 11, 12])
    following = torch.tensor([1.0, 2, 3, 3.5, 11, 12, 12.5])
    return DemoTensors(
        observations=places[:, None],
        actions=torch.tensor([0, 1, 0, 1, 1, 0, 1]),
        episode_ids=torch.tensor([0, 0, 0, 0, 1, 1, 1]),
        next_observations=following[:, None],
        rewards=torch.tensor([1.0, 2, 4, 8, 16, 32, 64]),
        terminated=torch.tensor([False, False, False, True, False, False, False]),
    )


def test_returns_of_demonstrations_stay_inside_their_episode(make_algorithm, path_demos):
    """γ = 1/2, n = 3."""
    algorithm = make_algorithm("dqfd", shape=(1,), action=2, demos=path_demos, gamma=0.5, n_step=3)
    batch = algorithm.memory._returns(algorithm.memory.demos, torch.arange(7))
    assert batch["rewards"].tolist() == path_demos.rewards.tolist()
    assert torch.equal(batch["next_observations"], path_demos.next_observations)
    assert batch["discounts"].tolist() == [0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5]
    assert batch["n/rewards"].tolist() == [3.0, 6.0, 8.0, 8.0, 48.0, 64.0, 64.0]
    assert batch["n/next_observations"][:, 0].tolist() == [3.0, 3.5, 3.5, 3.5, 12.5, 12.5, 12.5]
    assert batch["n/discounts"].tolist() == [0.125, 0.0, 0.0, 0.0, 0.125, 0.25, 0.5]


def test_demonstrations_are_never_overwritten(make_algorithm, make_demos, noise_world):
    demos = make_demos()
    algorithm = make_algorithm("dqfd", demos=demos, buffer_size=13, **EAGER)
    run(algorithm, noise_world(), 40)  # 120 own transitions through 12 slots
    memory = algorithm.memory
    assert len(memory) == 17 + 12
    kept = memory.demos.gather(torch.arange(17))
    assert torch.equal(kept["observations"], demos.observations)
    assert torch.equal(kept["rewards"], demos.rewards)
    assert torch.equal(kept["actions"], demos.actions)
    batch = memory.sample(999, 0.6, algorithm.learner.generator)
    rows = (batch["observations"][:, None] == demos.observations).all(2)
    assert torch.equal(rows.any(1), batch["is_demo"] > 0)
    assert rows.any(0).all()
    assert 0 < batch["is_demo"].mean() < 1


@pytest.mark.parametrize("bonus", [0.1, 1.0, 30.0])
def test_draws_follow_errors_and_bonus(make_algorithm, noise_world, bonus):
    algorithm = make_algorithm(
        "dqfd", buffer_size=13, priority_epsilon_demo=bonus, priority_epsilon_own=0.1, **EAGER
    )
    run(algorithm, noise_world(), 4)
    memory = algorithm.memory
    errors = torch.linspace(-3, 3, 29)
    memory.set_priorities(torch.arange(29), errors)
    epsilon = torch.where(torch.arange(29) < 17, bonus, 0.1).double()
    priorities = (errors.double().abs() + epsilon) ** 0.4
    batch = memory.sample(20_000, 0.6, algorithm.learner.generator)
    expected = (20_000 * priorities / priorities.sum()).numpy()
    counts = torch.bincount(batch["slots"], minlength=29).numpy()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    weights = (29 * priorities / priorities.sum())[batch["slots"]] ** -0.6
    torch.testing.assert_close(
        batch["weights"].double(), weights / weights.max(), rtol=1e-5, atol=0
    )


def test_a_larger_bonus_means_more_demonstrations(make_algorithm, noise_world):
    shares = []
    for bonus in (1e-3, 1.0, 9.0):
        algorithm = make_algorithm("dqfd", priority_epsilon_demo=bonus, **EAGER)
        run(algorithm, noise_world(), 20)
        batch = algorithm.memory.sample(9_999, 0.6, algorithm.learner.generator)
        shares.append(batch["is_demo"].mean().item())
    assert shares == sorted(shares)
    assert shares[2] > shares[0] + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_demonstrations_refresh_their_priorities(
    make_algorithm, noise_world, monkeypatch, name
):
    algorithm = make_algorithm(name, **EAGER)
    calls, original = [], algorithm.memory.set_priorities

    def noting(slots, errors):
        original(slots, errors)
        calls.append((slots, errors))

    monkeypatch.setattr(algorithm.memory, "set_priorities", noting)
    run(algorithm, noise_world(), 2)
    slots, errors = calls[3]
    assert len(calls) == 5  # four of pretraining, one that is due after 3 env steps
    assert (slots < 17).all()
    values = algorithm.memory._priorities.values
    (last, newest) = calls[-1]
    epsilon = torch.where(last < 17, 1.0, 1e-3).double()
    torch.testing.assert_close(values[last], (newest.double().abs() + epsilon) ** 0.4)
    assert errors.abs().max() > 0


def test_new_transitions_are_as_urgent_as_the_most_urgent_so_far(make_algorithm, noise_world):
    algorithm = make_algorithm("dqfd", pretrain_updates=0, updates_per_env_step=1e-6)
    world, memory = noise_world(), algorithm.memory
    run(algorithm, world, 2)
    assert memory._priorities.values[17:23].tolist() == pytest.approx([1.001**0.4] * 6)
    memory.set_priorities(torch.tensor([3]), torch.tensor([-50.0]))
    run(algorithm, world, 1)
    assert memory._priorities.values[23:26].tolist() == pytest.approx([50.001**0.4] * 3)
    assert (memory._priorities.values[26:] == 0).all()


# -- the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_at_first_it_learns_from_demonstrations_alone(make_algorithm, noise_world, name):
    """A hundred updates between looks at the clock, then the rest, then a first step."""
    algorithm = make_algorithm(name, **EAGER | {"pretrain_updates": 230})
    world = noise_world()
    for updates, env_steps in ((100, 0), (200, 0), (230, 0), (231, 3)):
        metrics = algorithm.iteration(world)
        assert (algorithm.updates, world.env_steps) == (updates, env_steps)
        assert (metrics["replay/demo_share"] == 1) == (env_steps == 0)
    run(algorithm, world, 9)
    assert algorithm.updates == 240
    assert algorithm.learner.planned_updates == 230 + 999 // 3


def test_rewards_are_scaled_and_then_squashed(make_algorithm, make_demos, noise_world):
    demos = make_demos()
    algorithm = make_algorithm(
        "dqfd", demos=demos, reward_scale=3.0, log_rewards=True, pretrain_updates=0
    )
    run(algorithm, noise_world(reward=-2.0), 3)
    own = algorithm.learner.replay.gather(torch.arange(9))["rewards"]
    torch.testing.assert_close(own, torch.full((9,), -np.log(7.0), dtype=torch.float32))
    scaled = 3.0 * demos.rewards
    found = algorithm.memory.demos.gather(torch.arange(17))["rewards"]
    torch.testing.assert_close(found, scaled.sign() * (1 + scaled.abs()).log())


def test_the_reward_free_form_sees_states_and_actions_alone(
    make_algorithm, make_demos, noise_world
):
    demos = make_demos()
    pairs = dataclasses.replace(demos, next_observations=None, rewards=None, terminated=None)
    after = []
    for given in (demos, pairs):
        algorithm = make_algorithm("dqfd-reward-free", demos=given, **EAGER)
        run(algorithm, noise_world(), 12)
        after.append(algorithm.policy_state())
    assert all(torch.equal(value, after[1][key]) for key, value in after[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_puts_demonstrated_actions_first(make_algorithm, make_demos, noise_world, name):
    demos = make_demos((5, 7))
    algorithm = make_algorithm(
        name, demos=demos, learning_rate=0.01, hidden=(31,), **EAGER | {"pretrain_updates": 300}
    )
    while algorithm.updates < 300:
        algorithm.iteration(noise_world())
    seen = demos.observations
    assert algorithm.act(seen.numpy(), greedy=True).tolist() == demos.actions.tolist()
    assert margin_losses(algorithm.learner.network(seen), demos.actions, 0.8).mean() < 0.1


def test_a_slot_is_the_same_transition_for_priorities_and_draws(make_algorithm, noise_world):
    algorithm = make_algorithm("dqfd", pretrain_updates=0, updates_per_env_step=1e-6)
    world, rows = noise_world(), []
    for _ in range(4):
        rows += list(world.observations)
        algorithm.iteration(world)
    shown = algorithm.memory.demos.gather(torch.arange(17))["observations"]
    known = torch.cat([shown, torch.from_numpy(np.stack(rows))])
    batch = algorithm.memory.sample(999, 0.6, algorithm.learner.generator)
    assert torch.equal(batch["observations"], known[batch["slots"]])
    assert batch["slots"].unique().tolist() == list(range(29))
