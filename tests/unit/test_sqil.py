"""SQIL: its loss against the paper's equations, its two memories, its loop, the tabular limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core import soft
from rlfd.algorithms.sqil import demo_rewards, squared_soft_bellman_errors
from rlfd.errors import RlfdError

GAMMA = 0.9


def halves(demo, own, weight=1.0):
    """Return the batch of one update from both halves."""
    batch = {f"demo/{name}": value for name, value in demo.items()}
    batch |= {f"own/{name}": value for name, value in own.items()}
    return batch | {"own/weight": torch.tensor(weight)}


def one_hot_batch(states, actions, following, terminated, gamma, *, count=6):
    eye, terminated = torch.eye(count), torch.tensor(terminated)
    return {
        "observations": eye[states],
        "actions": torch.tensor(actions),
        "next_observations": eye[following],
        "terminated": terminated,
        "discounts": gamma * (~terminated).to(eye.dtype),
    }


def set_table(algorithm, table, *, target=None):
    """Make the (bias-free) linear Q function a table over one-hot observations."""
    engine = algorithm.learner.engine
    for parameters, values in (
        (engine.parameters, table),
        (engine.target_parameters, table if target is None else target),
    ):
        parameters["body.0.weight"].copy_(torch.as_tensor(values).T)
        parameters["body.0.bias"].zero_()


def metrics_of(algorithm, batch):
    engine = algorithm.learner.engine
    loss, metrics = algorithm._loss(engine.parameters, engine.target_parameters, batch)
    return loss, {name: value.item() for name, value in metrics.items()}


def spy_on_batches(algorithm, monkeypatch):
    """Return a list that every minibatch of the engine is put into."""
    seen, step = [], algorithm.learner.engine.step

    def noting(batch):
        seen.append(batch)
        return step(batch)

    monkeypatch.setattr(algorithm.learner.engine, "step", noting)
    return seen


def parameters_after(algorithm, world, iterations):
    for _ in range(iterations):
        algorithm.iteration(world)
    return algorithm.policy_state()


def test_squared_errors_by_hand(float64):
    errors = squared_soft_bellman_errors(
        torch.tensor([3.0, 1.0]), 1.0, torch.tensor([0.5, 0.0]), torch.tensor([4.0, 9.0])
    )
    assert errors.tolist() == [0.0, 0.0]
    rewards = torch.tensor([0.0, 3.0])
    errors = squared_soft_bellman_errors(
        torch.tensor([3.0, 1.0]), rewards, torch.tensor([0.5, 0.0]), torch.tensor([4.0, 9.0])
    )
    assert errors.tolist() == [1.0, 4.0]


def test_loss_by_hand(float64, make_algorithm):
    """One demonstrated and one own transition, V from the target network (τ = 1/2)."""
    sqil = make_algorithm(
        "sqil", shape=(6,), action=2, hidden=(), gamma=GAMMA, temperature=0.5, reward=2.0
    )
    table, target = torch.arange(12.0).view(6, 2), torch.arange(12.0).flip(0).view(6, 2)
    set_table(sqil, table, target=target)
    demo = one_hot_batch([0], [1], [2], [False], GAMMA)
    own = one_hot_batch([3], [0], [4], [False], GAMMA)
    loss, metrics = metrics_of(sqil, halves(demo, own, 0.3))
    value = 0.5 * np.log(np.exp(np.array([[7, 6], [3, 2]]) / 0.5).sum(axis=1))  # of states 2, 4
    expected = np.array([1.0 - 2.0 - GAMMA * value[0], 6.0 - GAMMA * value[1]]) ** 2
    assert metrics["loss/demo"] == pytest.approx(expected[0])
    assert metrics["loss/own"] == pytest.approx(expected[1])
    assert loss.item() == pytest.approx(expected[0] + 0.3 * expected[1])
    assert (metrics["q/demo"], metrics["q/own"]) == (1.0, 6.0)
    p = 1 / (1 + np.exp(-1 / 0.5))  # both actions of every state differ by 1
    assert metrics["policy/demo_likelihood"] == pytest.approx(p)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert metrics["policy/entropy"] == pytest.approx(entropy)


@pytest.mark.parametrize(
    ("mode", "through"),
    [
        ("full", [True, True]),
        ("demos", [True, False]),
        ("semi", [False, False]),
        ("target", [False, False]),
    ],
)
def test_the_gradient_through_the_next_value_exists_where_the_mode_says(
    float64, make_algorithm, mode, through
):
    """States 2 and 4 occur as next states alone; their weights' gradient comes through V.

    The first comes after a demonstrated transition, the second after an own one.
    """
    sqil = make_algorithm("sqil", shape=(6,), action=2, hidden=(), mode=mode, temperature=1.0)
    demo = one_hot_batch([0], [1], [2], [False], GAMMA)
    own = one_hot_batch([3], [0], [4], [False], GAMMA)
    batch, engine = halves(demo, own), sqil.learner.engine
    gradients = torch.func.grad(lambda p: sqil._loss(p, engine.target_parameters, batch)[0])(
        engine.parameters
    )["body.0.weight"]
    assert (gradients[:, [2, 4]] != 0).all(0).tolist() == through
    assert (gradients[:, [2, 4]] == 0).all(0).tolist() == [not moved for moved in through]
    assert gradients[1, 0] != 0
    assert gradients[0, 3] != 0


@pytest.mark.parametrize(("mode", "source"), [("full", 0), ("semi", 0), ("target", 1)])
def test_next_value_comes_from_the_network_that_the_mode_names(
    float64, make_algorithm, mode, source
):
    sqil = make_algorithm("sqil", shape=(6,), action=2, hidden=(), mode=mode)
    online, target = torch.arange(12.0).view(6, 2), 5.0 * torch.arange(12.0).view(6, 2)
    set_table(sqil, online, target=target if mode == "target" else online)
    engine = sqil.learner.engine
    value = sqil.loop.values_after(engine.parameters, engine.target_parameters, torch.eye(6))
    expected = soft.soft_value((online, target)[source], 0.1)
    torch.testing.assert_close(value, expected)


def test_terminal_rule(float64):
    """A terminal transition is worth r or r / (1 - γ); a time limit is not terminal."""
    terminated = torch.tensor([False, True, False])
    for absorbing, last in (("off", 2.0), ("value", 20.0)):
        rewards = demo_rewards(terminated, 2.0, GAMMA, absorbing)
        assert rewards.tolist() == pytest.approx([2.0, last, 2.0])


@pytest.mark.parametrize("absorbing", ["off", "value"])
def test_targets_at_the_end_of_demonstrations(float64, make_algorithm, make_demos, absorbing):
    """The target of the last transition is the terminal rule's, or r + γ V(s_T) when cut."""
    demos = make_demos((3, 5), terminated=[True, False])
    sqil = make_algorithm("sqil", demos=demos, gamma=GAMMA, absorbing=absorbing, mode="semi")
    fields = {name: value for name, value in sqil.loop.demos._fields.items()}
    engine = sqil.learner.engine
    for row, cut in ((2, False), (7, True)):
        demo = {name: value[[row]] for name, value in fields.items()}
        q_values = sqil.learner.values(engine.parameters, demos.observations[[row]])
        following = sqil.learner.values(engine.parameters, demos.next_observations[[row]])
        value = soft.soft_value(following, 0.1).item()
        target = 1.0 + GAMMA * value if cut else (1.0 if absorbing == "off" else 10.0)
        q = q_values[0, demos.actions[row]].item()
        _, metrics = metrics_of(sqil, halves(demo, demo))
        assert metrics["loss/demo"] == pytest.approx((q - target) ** 2, rel=1e-6)


def test_without_discount_and_own_data_q_becomes_the_reward(
    make_algorithm, make_demos, noise_world
):
    """γ = 0 and λ_samp = 0: a regression of Q(s, a) on r, whatever else happens."""
    demos = make_demos((9, 5, 3), shape=(17,))
    demos.observations.copy_(torch.eye(17))
    sqil = make_algorithm(
        "sqil",
        shape=(17,),
        demos=demos,
        hidden=(),
        gamma=0.0,
        lambda_samp=0.0,
        reward=0.7,
        learning_rate=0.05,
        learning_starts=0,
        updates_per_env_step=1.0,
        batch_size=33,
        env_steps=600,
    )
    parameters_after(sqil, noise_world(shape=(17,)), 200)
    q = sqil.learner.network(torch.eye(17))[torch.arange(17), demos.actions]
    torch.testing.assert_close(q, torch.full((17,), 0.7), rtol=0, atol=1e-3)


def test_what_the_environment_pays_changes_nothing(make_algorithm, noise_world):
    """Not even a reward that is not a number."""
    after = []
    for reward in (1.0, np.nan):
        sqil = make_algorithm("sqil", learning_starts=9, batch_size=9)
        after.append(parameters_after(sqil, noise_world(reward=reward), 30))
        assert sqil.updates == (90 - 9) // 2
    for name, value in after[0].items():
        assert value.isfinite().all()
        assert torch.equal(value, after[1][name])


def test_every_minibatch_is_half_demonstrations_and_half_unpaid_own_transitions(
    make_algorithm, make_demos, noise_world, monkeypatch
):
    demos, world = make_demos(), noise_world(reward=5.0)
    sqil = make_algorithm("sqil", demos=demos, learning_starts=9, batch_size=9, lambda_samp=0.3)
    seen = spy_on_batches(sqil, monkeypatch)
    known = {tuple(row.tolist()) for row in demos.observations}
    own = set()
    for _ in range(20):
        own |= {tuple(row.tolist()) for row in world.observations}
        sqil.iteration(world)
    assert len(seen) == sqil.updates == (60 - 9) // 2
    for batch in seen:
        demo_rows, own_rows = batch["demo/observations"], batch["own/observations"]
        assert len(demo_rows) == len(own_rows) == 9
        assert all(tuple(row.tolist()) in known for row in demo_rows)
        assert all(tuple(row.tolist()) in own for row in own_rows)
        assert (batch["own/rewards"] == 0).all()
        assert batch["own/weight"].item() == pytest.approx(0.3)


def test_overflow_of_the_own_memory_never_removes_a_demonstration(
    make_algorithm, make_demos, noise_world, monkeypatch
):
    demos = make_demos()
    sqil = make_algorithm("sqil", demos=demos, buffer_size=15, learning_starts=0, batch_size=9)
    seen = spy_on_batches(sqil, monkeypatch)
    world = noise_world()
    parameters_after(sqil, world, 60)
    assert len(sqil.learner.replay) == 15
    drawn = torch.cat([batch["demo/observations"] for batch in seen[-30:]]).unique(dim=0)
    assert torch.equal(drawn, demos.observations.unique(dim=0))
    # and the own half holds nothing but the newest 15 transitions
    (batch,) = sqil.learner.replay.sample(1, 999, sqil.learner.generator)
    assert len(batch["observations"].unique(dim=0)) == 15


def test_a_sum_over_memories_weighs_own_data_by_their_sizes(
    make_algorithm, noise_world, monkeypatch
):
    """λ_samp Σ_own / Σ_demo, as the paper prints it, divided by the number of demonstrations."""
    sqil = make_algorithm(
        "sqil", sample_weight="sum", lambda_samp=0.01, learning_starts=9, batch_size=9
    )
    seen = spy_on_batches(sqil, monkeypatch)
    world = noise_world()
    for _ in range(12):
        made = sqil.updates
        sqil.iteration(world)
        for batch in seen[made:]:
            expected = 0.01 * world.env_steps / 17  # 17 demonstrated transitions
            assert batch["own/weight"].item() == pytest.approx(expected)
    assert seen


def test_rollouts_alternate_with_k_updates_each(make_algorithm, noise_world):
    """Alg. 1: nothing is learned before the first rollouts; then k updates for each of three."""
    sqil = make_algorithm(
        "sqil", interleave="rollouts", updates_per_rollout=7, final_learning_rate=1.0, batch_size=9
    )
    world = noise_world()
    assert sqil.iteration(world) == {}
    assert (sqil.updates, sqil.learner.engine.count) == (0, 0)
    # of environments with episodes of 3, 4 and 5 steps, three episodes are over after five steps
    assert world.env_steps == 15
    for rounds in (1, 2):
        assert set(sqil.iteration(world)) == set(sqil.metric_definitions)
        assert sqil.updates == sqil.learner.engine.count == rounds * 3 * 7
    assert world.ended.sum() >= 9


def test_rollouts_need_a_constant_learning_rate(make_algorithm):
    with pytest.raises(RlfdError, match="so the learning rate cannot fall") as caught:
        make_algorithm("sqil", interleave="rollouts")
    assert caught.value.hint == "set final_learning_rate=1"


def test_the_terminal_rule_needs_a_discount(make_algorithm):
    with pytest.raises(RlfdError, match="absorbing=value needs gamma < 1"):
        make_algorithm("sqil", gamma=1.0)
    make_algorithm("sqil", gamma=1.0, absorbing="off")


@pytest.mark.parametrize("policy", ["learner", "uniform"])
def test_who_acts_in_rollouts(make_algorithm, noise_world, policy):
    """A network that always prefers action 4 does not show when uniform rollouts are asked for."""
    sqil = make_algorithm(
        "sqil", hidden=(), rollout_policy=policy, learning_starts=10**6, num_envs=333
    )
    for parameter in sqil.learner.engine.parameters.values():
        parameter.zero_()
    sqil.learner.engine.parameters["body.0.bias"][4] = 0.1  # one temperature
    world = noise_world(333)
    parameters_after(sqil, world, 9)
    shares = np.bincount(np.concatenate(world.actions), minlength=7) / (9 * 333)
    expected = np.full(7, 1.0)
    if policy == "learner":
        expected[4] = np.e
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


def test_order_of_the_halves_does_not_matter(float64, make_algorithm):
    sqil = make_algorithm("sqil", shape=(6,), action=2)
    demo = one_hot_batch([0, 1, 2], [1, 0, 1], [1, 2, 3], [False, False, True], GAMMA)
    own = one_hot_batch([3, 4, 5], [0, 1, 1], [4, 5, 3], [False, True, False], GAMMA)
    loss, _ = metrics_of(sqil, halves(demo, own, 0.5))
    flipped = [{name: value.flip(0) for name, value in half.items()} for half in (demo, own)]
    torch.testing.assert_close(metrics_of(sqil, halves(*flipped, 0.5))[0], loss)


# A path of five states (0 to 4, by action 0, into the terminal state 5), and beside each of its
# first four a ditch (6 to 9). Action 1 leads from the path into the ditch, action 2 back onto the
# path where one fell in; everything else stays where it is.
PATH, END, DITCH = range(5), 5, range(6, 10)


def path_and_ditches():
    following = np.repeat(np.arange(10)[:, None], 3, axis=1)
    for state in PATH:
        following[state, 0] = state + 1
    for state, ditch in zip(PATH, DITCH, strict=False):
        following[state, 1], following[ditch, 2] = ditch, state
    return following


def test_on_a_tabular_chain_the_fixed_point_follows_and_returns_to_the_expert_path(
    make_algorithm, tabular_world
):
    eye = torch.eye(10)
    demos = DemoTensors(
        observations=eye[:5],
        actions=torch.zeros(5, dtype=torch.int64),
        episode_ids=torch.zeros(5, dtype=torch.int64),
        next_observations=eye[1:6],
        terminated=torch.arange(5) == 4,
    )
    sqil = make_algorithm(
        "sqil",
        shape=(10,),
        action=3,
        demos=demos,
        num_envs=5,
        hidden=(),
        gamma=GAMMA,
        learning_rate=0.03,
        polyak_tau=0.05,
        batch_size=32,
        learning_starts=500,
        updates_per_env_step=0.5,
        env_steps=2_500,
    )
    world = tabular_world(path_and_ditches(), np.zeros((10, 3)), terminal=[END])
    while world.env_steps < 2_500:
        sqil.iteration(world)
    greedy = sqil.act(np.eye(10, dtype=np.float32), greedy=True)
    assert greedy[list(PATH)].tolist() == [0] * 5
    assert greedy[list(DITCH)].tolist() == [2] * 4
    values = soft.soft_value(sqil.learner.network(eye), 0.1)
    assert (values[6:10] < values[:4]).all()  # a ditch is worth less than the path beside it
