"""DQN: targets by hand, prioritised replay through whole iterations, the tabular limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.rl.dqn import dqn_target, huber


def set_table(algorithm, table, *, target=None):
    """Make the (bias-free) linear Q function a table over one-hot observations."""
    engine = algorithm.learner.engine
    for parameters, values in (
        (engine.parameters, table),
        (engine.target_parameters, table if target is None else target),
    ):
        parameters["body.0.weight"].copy_(torch.as_tensor(values).T)
        parameters["body.0.bias"].zero_()


def transition(state, action, reward, following, discount, *, states=3):
    eye = torch.eye(states)
    return {
        "observations": eye[[state]],
        "actions": torch.tensor([action]),
        "rewards": torch.tensor([float(reward)]),
        "next_observations": eye[[following]],
        "discounts": torch.tensor([discount]),
    }


def loss_of(algorithm, batch):
    engine = algorithm.learner.engine
    return algorithm._loss(engine.parameters, engine.target_parameters, batch)


def test_target_by_hand(float64):
    online = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
    target = torch.tensor([[10.0, 20.0, 30.0], [40.0, 60.0, 50.0]])
    rewards, discounts = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    plain = dqn_target(rewards, discounts, target, target)
    double = dqn_target(rewards, discounts, target, online)
    assert plain.tolist() == [1 + 0.5 * 30, 2]
    assert double.tolist() == [1 + 0.5 * 20, 2]


@pytest.mark.parametrize(("double", "expected"), [(False, 1 + 0.9 * 8), (True, 1 + 0.9 * 6)])
def test_double_chooses_with_the_online_and_values_with_the_target_network(
    float64, make_algorithm, double, expected
):
    dqn = make_algorithm("dqn", shape=(3,), action=2, hidden=(), double=double)
    online = [[4.0, 0.0], [3.0, 2.0], [0.0, 0.0]]
    target = [[0.0, 0.0], [6.0, 8.0], [0.0, 0.0]]
    set_table(dqn, online, target=target)
    loss, metrics = loss_of(dqn, transition(0, 0, 1.0, 1, 0.9))
    assert metrics["q/mean"].item() == 4.0
    assert metrics["q/target"].item() == pytest.approx(expected)
    assert loss.item() == pytest.approx(abs(4.0 - expected) - 0.5)  # Huber, linear part


def test_huber_by_hand(float64):
    errors = torch.tensor([-3.0, -0.5, 0.0, 1.0, 2.0])
    assert huber(errors, 1.0).tolist() == [2.5, 0.125, 0.0, 0.5, 1.5]
    assert huber(errors, 2.0).tolist() == [4.0, 0.125, 0.0, 0.5, 2.0]
    assert huber(errors, 0.0).tolist() == [4.5, 0.125, 0.0, 0.5, 2.0]


def test_terminated_cuts_the_bootstrap_and_truncated_does_not(
    float64, make_algorithm, tabular_world
):
    """One step from state 0 by action 0 ends the task, by action 1 it meets the time limit."""
    dqn = make_algorithm(
        "dqn", shape=(3,), action=2, hidden=(), gamma=0.5, num_envs=1, buffer_size=1
    )
    set_table(dqn, [[0.0, 0.0], [8.0, 4.0], [8.0, 4.0]])
    world = tabular_world(
        [[1, 2], [1, 2], [1, 2]], [[3.0, 3.0]] * 3, terminal=[1], starts=[0], num_envs=1, horizon=1
    )
    for action, expected in ((0, 3.0), (1, 3.0 + 0.5 * 8.0)):
        step = world.step(np.array([action]))
        assert (step.terminated[0], step.truncated[0]) == (action == 0, action == 1)
        dqn.learner.store(step)
        (batch,) = dqn.learner.replay.sample(1, 5, dqn.learner.generator)
        assert loss_of(dqn, batch)[1]["q/target"].item() == pytest.approx(expected)


def test_n_step_target_by_hand(float64, make_algorithm, tabular_world):
    """Rewards 1, 2, 4 on the way 0 -> 1 -> 2 -> 2 with γ = 1/2: y = 1 + 1 + 1 + 8/8."""
    dqn = make_algorithm("dqn", shape=(3,), action=2, hidden=(), gamma=0.5, n_step=3, num_envs=1)
    set_table(dqn, [[0.0, 0.0], [0.0, 0.0], [8.0, 4.0]])
    world = tabular_world(
        [[1, 1], [2, 2], [2, 2]], [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], starts=[0], num_envs=1
    )
    for _ in range(3):
        dqn.learner.store(world.step(np.array([0])))
    batch = dqn.learner.replay.gather(torch.tensor([0]))
    assert loss_of(dqn, batch)[1]["q/target"].item() == pytest.approx(1 + 1 + 1 + 1)


def test_loss_weighs_transitions_and_returns_their_errors(float64, make_algorithm):
    dqn = make_algorithm("dqn", shape=(3,), action=2, hidden=(), huber_delta=0.0)
    set_table(dqn, [[4.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    rows = [transition(0, 0, 1.0, 1, 0.9), transition(0, 1, 0.0, 1, 0.9)]
    batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    loss, outputs = loss_of(dqn, batch | {"weights": torch.tensor([0.5, 1.0])})
    assert outputs["td_errors"].tolist() == [3.0, 1.0]
    assert loss.item() == pytest.approx((0.5 * 4.5 + 1.0 * 0.5) / 2)


def test_order_of_the_batch_does_not_matter(make_algorithm, noise_world):
    dqn, world = make_algorithm("dqn", learning_starts=999), noise_world()
    for _ in range(9):
        dqn.iteration(world)
    (batch,) = dqn.learner.replay.sample(1, 9, dqn.learner.generator)
    flipped = {name: value.flip(0) for name, value in batch.items()}
    torch.testing.assert_close(loss_of(dqn, batch)[0], loss_of(dqn, flipped)[0])


def test_prioritised_updates_store_the_errors_of_what_they_drew(
    make_algorithm, noise_world, monkeypatch
):
    dqn = make_algorithm(
        "dqn",
        prioritised=True,
        batch_size=9,
        learning_starts=15,
        updates_per_env_step=1 / 3,
        env_steps=15 + 3 * 20,
    )
    replay, engine = dqn.learner.replay, dqn.learner.engine
    drawn, betas, world = [], [], noise_world()
    inner_sample, inner_step = replay.sample_prioritised, engine.step

    def sample(size, beta, generator):
        betas.append(beta)
        batch = inner_sample(size, beta, generator)
        drawn.append(batch["slots"])
        return batch

    def step(batch):
        assert "slots" not in batch
        outputs = inner_step(batch)
        drawn.append(outputs["td_errors"])
        return outputs

    monkeypatch.setattr(replay, "sample_prioritised", sample)
    monkeypatch.setattr(engine, "step", step)
    for _ in range(5 + 20):
        dqn.iteration(world)
        if drawn:
            slots, errors = drawn[-2:]
            stored = replay._priorities.values[slots]
            expected = (errors.double().abs() + 1e-6) ** 0.6
            # of a slot that was drawn twice both errors are the same
            torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-6)
    assert dqn.updates == len(betas) == 20
    np.testing.assert_allclose(betas, 0.4 + 0.6 * np.arange(20) / 20)


def test_epsilon_greedy_follows_its_schedule(make_algorithm, noise_world):
    """Uniform at first; greedy in the end, but for ε: each action keeps ε/A."""
    dqn = make_algorithm(
        "dqn",
        hidden=(),
        epsilon_start=1.0,
        epsilon_final=0.35,
        epsilon_env_steps=999,
        learning_starts=10**6,
        num_envs=333,
    )
    for parameters in dqn.learner.engine.parameters.values():
        parameters.zero_()
    dqn.learner.engine.parameters["body.0.bias"][4] = 1.0
    world = noise_world(333)
    for _ in range(3 + 9):
        dqn.iteration(world)
    first, last = world.actions[0], np.concatenate(world.actions[3:])
    assert np.bincount(first, minlength=7) / 333 == pytest.approx([1 / 7] * 7, abs=0.06)
    others = [0.35 / 7] * 7
    others[4] += 0.65
    assert np.bincount(last, minlength=7) / len(last) == pytest.approx(others, abs=0.03)


def test_updates_are_paced_by_env_steps(make_algorithm, noise_world):
    dqn = make_algorithm("dqn", learning_starts=11, updates_per_env_step=0.4, batch_size=5)
    world = noise_world()
    for _ in range(20):
        metrics = dqn.iteration(world)
        assert dqn.updates == int(max(0, world.env_steps - 11) * 0.4)
        assert dqn.learner.engine.count == dqn.updates
    assert metrics


# A chain of five states; action 0 goes on, 1 stays, 2 goes back. The last state is terminal.
FOLLOWING = [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [4, 4, 4]]
REWARDS = [[0.0, 0.1, 0.0], [0.0, 0.0, 0.3], [-0.1, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("double", [False, True])
def test_tabular_limit_is_the_fixed_point_of_q_learning(make_algorithm, tabular_world, double):
    gamma, expected = 0.8, np.zeros((5, 3))
    for _ in range(200):
        following = expected.max(axis=1)[FOLLOWING] * (np.array(FOLLOWING) != 4)
        expected = np.array(REWARDS) + gamma * following
    dqn = make_algorithm(
        "dqn",
        shape=(5,),
        action=3,
        num_envs=5,
        env_steps=1_550,
        learning_starts=50,
        updates_per_env_step=1.0,
        hidden=(),
        gamma=gamma,
        double=double,
        learning_rate=0.05,
        polyak_tau=0.05,
        batch_size=64,
        epsilon_final=1.0,
    )
    world = tabular_world(FOLLOWING, REWARDS, terminal=[4])
    while world.env_steps < 1_550:
        dqn.iteration(world)
    values = dqn.learner.network(torch.eye(5)).numpy()
    np.testing.assert_allclose(values[:4], expected[:4], atol=0.01)


@pytest.mark.parametrize("name", ["dqn", "soft-q"])
def test_rewards_are_scaled(make_algorithm, noise_world, name):
    algorithm, world = make_algorithm(name, reward_scale=3.0), noise_world(reward=-2.0)
    for _ in range(3):
        algorithm.iteration(world)
    assert algorithm.learner.replay.gather(torch.arange(9))["rewards"].tolist() == [-6.0] * 9
