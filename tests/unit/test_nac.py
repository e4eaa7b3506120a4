"""NAC: where its gradient is that of soft Q-learning, and where it is not."""

from __future__ import annotations

import math

import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core import soft
from rlfd.algorithms.core.q_learner import select
from rlfd.algorithms.nac import normalised_losses, policy_values

TAU = 0.7
EAGER = {
    "learning_starts": 9,
    "updates_per_env_step": 1 / 3,
    "batch_size": 9,
    "pretrain_updates": 4,
}


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradient(function, at):
    return torch.func.grad(function)(at)


def assert_close(first, second, atol=1e-10):
    torch.testing.assert_close(first, second, rtol=0.0, atol=atol)


def direction(q, action, q_hat, v_hat, ratio=1.0):
    """Return the gradient of one transition by Q(s, ·), both of shape (1, A)."""
    action, q_hat, v_hat, ratio = (torch.as_tensor([x]) for x in (action, q_hat, v_hat, ratio))
    return gradient(lambda q: normalised_losses(q, action, q_hat, v_hat, ratio, TAU).sum(), q)


def test_under_its_own_policy_the_expected_gradient_is_that_of_soft_q_learning():
    q, q_hat = draw(1, 7), draw(1, 7, seed=1)
    policy = soft.boltzmann_log_probs(q, TAU).exp()[0]
    v_hat = soft.double_soft_value(q, q_hat, TAU)[0]
    found = sum(p * direction(q, a, q_hat[0, a], v_hat) for a, p in enumerate(policy))

    def soft_q(q):
        return (policy * 0.5 * (q - q_hat).square()).sum()

    assert_close(found, gradient(soft_q, q))
    assert found.abs().max() > 0.01


def test_with_one_target_a_state_the_expected_value_moves_by_the_squared_probabilities():
    """Σ_a π² (Q - Q̂), where soft Q-learning and the exact V̂ have Σ_a π (Q - Q̂).

    Along π, which is where a state's value lies, so that both agree where π is sure of itself.
    """
    q, q_hat = draw(1, 7), draw(1, 7, seed=1)
    policy = soft.boltzmann_log_probs(q, TAU).exp()[0]
    found = torch.zeros_like(q)
    for action, p in enumerate(policy):
        taken, one_hat = torch.tensor([action]), q_hat[:, action]
        v_hat = policy_values(q, q, taken, one_hat, TAU)[0]
        found += p * direction(q, action, one_hat[0], v_hat)
    exact = policy * (q - q_hat)
    missing = (policy * (1.0 - policy) * (q - q_hat)).sum()
    assert_close(found, exact - missing * policy)
    assert missing.abs() > 0.1


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_the_losss_gradient_is_the_papers_direction(ratio):
    q, actions = draw(11, 7), torch.arange(11) % 7
    q_hat, v_hat = draw(11, seed=1), draw(11, seed=2)
    ratios = torch.full((11,), ratio, dtype=torch.float64)

    def loss(q):
        return normalised_losses(q, actions, q_hat, v_hat, ratios, TAU).sum()

    policy = soft.boltzmann_log_probs(q, TAU).exp()  # ∇V_Q
    one_hot = torch.nn.functional.one_hot(actions, 7)  # ∇Q
    q_error = (select(q, actions) - q_hat)[:, None]
    v_error = (soft.soft_value(q, TAU) - v_hat)[:, None]
    assert_close(gradient(loss, q), ratio * (one_hot - policy) * q_error + policy * v_error)


def test_a_demonstration_raises_its_action_and_lowers_the_others_by_their_probability():
    """The policy part (V_Q already right); soft Q-learning leaves the others where they are."""
    q = draw(1, 7)
    value = soft.soft_value(q, TAU)[0]
    q_hat = q[0, 3] + 1.0
    step = -direction(q, 3, q_hat, value)[0]
    policy = soft.boltzmann_log_probs(q, TAU).exp()[0]
    others = torch.arange(7) != 3
    assert step[3] > 0
    assert (step[others] < 0).all()
    assert_close(step[others] / policy[others], torch.full((6,), -1.0, dtype=torch.float64))
    plain = -gradient(lambda q: 0.5 * (q[0, 3] - q_hat).square(), q)[0]
    assert (plain[others] == 0).all()


def test_at_the_fixed_point_nothing_moves():
    q = draw(11, 7)
    actions = torch.arange(11) % 7
    q_hat = select(q, actions)
    v_hat = policy_values(q, q, actions, q_hat, TAU)
    assert_close(v_hat, soft.soft_value(q, TAU))
    ones = torch.ones(11, dtype=torch.float64)

    def loss(q):
        return normalised_losses(q, actions, q_hat, v_hat, ones, TAU).sum()

    assert_close(gradient(loss, q), torch.zeros_like(q))


def test_policy_values_by_hand():
    """τ = 1, π = (2/3, 1/3): the taken action counts by Q̂, the other by the evaluator."""
    q = torch.tensor([[math.log(2.0), 0.0]])
    found = policy_values(q, torch.tensor([[9.0, -3.0]]), torch.tensor([0]), torch.tensor([6.0]), 1)
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert found.item() == pytest.approx(2 / 3 * 6 - 1 / 3 * 3 + entropy)


# -- the method ---------------------------------------------------------------------------------


def table_batch(**changes):
    eye = torch.eye(3)
    batch = {
        "observations": eye[[0]],
        "actions": torch.tensor([1]),
        "rewards": torch.tensor([1.5]),
        "next_observations": eye[[1]],
        "discounts": torch.tensor([0.9]),
        "likelihoods": torch.tensor([0.5]),
        "is_demo": torch.tensor([0.0]),
    }
    return batch | {name: torch.tensor([value]) for name, value in changes.items()}


TABLE = [[4.0, 0.0], [3.0, 2.0], [-1.0, 1.0]]
TARGET = [[0.0, 1.0], [6.0, 8.0], [5.0, 2.0]]


@pytest.fixture
def tabular(float64, make_algorithm):
    def build(**options):
        nac = make_algorithm("nac", shape=(3,), action=2, hidden=(), temperature=TAU, **options)
        engine = nac.learner.engine
        for parameters, values in (
            (engine.parameters, TABLE),
            (engine.target_parameters, TARGET),
        ):
            parameters["body.0.weight"].copy_(torch.tensor(values).T)
            parameters["body.0.bias"].zero_()
        return nac

    return build


def outputs(nac, batch):
    engine = nac.learner.engine
    gradients, (_, metrics) = torch.func.grad_and_value(nac._loss, has_aux=True)(
        engine.parameters, engine.target_parameters, batch
    )
    return gradients["body.0.weight"].T, metrics


def soft_max(values):
    return TAU * math.log(sum(math.exp(value / TAU) for value in values))


def test_targets_come_from_the_target_network(tabular):
    gradients, metrics = outputs(tabular(), table_batch(is_demo=1.0))
    q_hat = 1.5 + 0.9 * soft_max(TARGET[1])
    assert metrics["q/target"].item() == pytest.approx(q_hat)
    q = torch.tensor(TABLE[:1])
    completed = torch.tensor([[TARGET[0][0], q_hat]])
    v_hat = soft.double_soft_value(q, completed, TAU)[0]
    assert_close(gradients[:1], direction(q, 1, torch.tensor(q_hat), v_hat))
    assert (gradients[1:] == 0).all()


def test_terminated_means_the_reward_alone(tabular):
    _, metrics = outputs(tabular(), table_batch(discounts=0.0))
    assert metrics["q/target"] == 1.5


@pytest.mark.parametrize(
    ("mu", "is_demo", "cap", "expected"),
    [(0.5, 0.0, 10.0, "π / 0.5"), (1e-6, 0.0, 0.3, 0.3), (0.5, 1.0, 10.0, 1.0)],
)
def test_importance_weights_are_capped_and_those_of_demonstrations_1(
    tabular, mu, is_demo, cap, expected
):
    nac = tabular(importance_cap=cap)
    _, metrics = outputs(nac, table_batch(likelihoods=mu, is_demo=is_demo))
    if expected == "π / 0.5":
        expected = 1 / (1 + math.exp(4 / TAU)) / 0.5
    assert metrics["policy/importance"].item() == pytest.approx(expected)


def run(algorithm, world, count):
    return [algorithm.iteration(world) for _ in range(count)]


def test_it_remembers_how_likely_its_actions_were(make_algorithm, noise_world):
    nac, world = make_algorithm("nac", **EAGER), noise_world()
    nac.iteration(world)  # pretraining
    expected = []
    for _ in range(3):
        nac.iteration(world)  # nothing is due before 9 env steps
        rows = nac.learner.replay.gather(torch.arange(3 * len(expected), 3 * len(expected) + 3))
        q = nac.learner.network(rows["observations"])
        probabilities = torch.softmax(q / 0.1, dim=1)
        expected.append(select(probabilities, rows["actions"]))
        torch.testing.assert_close(rows["likelihoods"], expected[-1])


@pytest.mark.parametrize("keep", [False, True])
def test_demonstrations_come_first_and_are_dropped_unless_kept(make_algorithm, noise_world, keep):
    nac = make_algorithm("nac", **EAGER | {"pretrain_updates": 230}, keep_demos=keep)
    world = noise_world()
    for updates in (100, 200, 230):
        metrics = nac.iteration(world)
        assert (nac.updates, world.env_steps) == (updates, 0)
        assert metrics["replay/demo_share"] == 1
        assert metrics["policy/importance"] == 1
    metrics = run(nac, world, 10)[-1]
    assert nac.updates == 230 + (30 - 9) // 3
    assert metrics["replay/demo_share"] == (0.5 if keep else 0.0)


def test_rewards_of_both_streams_are_scaled(make_algorithm, make_demos, noise_world):
    demos = make_demos()
    nac = make_algorithm("nac", demos=demos, reward_scale=3.0, **EAGER)
    run(nac, noise_world(reward=-2.0), 2)
    assert nac.learner.replay.gather(torch.arange(3))["rewards"].tolist() == [-6.0] * 3
    torch.testing.assert_close(nac.demos._fields["rewards"], 3.0 * demos.rewards)


def test_tabular_limit_is_the_fixed_point_of_soft_value_iteration(make_algorithm, tabular_world):
    """Of the normalised direction, too: four states, the last one terminal."""
    gamma, tau = 0.8, 0.3
    following = torch.tensor([[1, 0], [2, 0], [3, 1], [3, 3]])
    rewards = torch.tensor([[0.0, 0.1], [0.0, 0.3], [1.0, 0.0], [0.0, 0.0]])
    expected = torch.zeros(4, 2)
    for _ in range(200):
        value = soft.soft_value(expected, tau)
        value[3] = 0.0
        expected = rewards + gamma * value[following]
    nac = make_algorithm(
        "nac",
        shape=(4,),
        action=2,
        demos=_one_demo(),
        num_envs=5,
        env_steps=3_050,
        learning_starts=50,
        pretrain_updates=0,
        updates_per_env_step=1.0,
        hidden=(),
        gamma=gamma,
        temperature=tau,
        learning_rate=0.05,
        polyak_tau=0.05,
        batch_size=64,
    )
    world = tabular_world(following.numpy(), rewards.numpy(), terminal=[3])
    while world.env_steps < 3_050:
        nac.iteration(world)
    values = nac.learner.network(torch.eye(4))
    torch.testing.assert_close(values[:3], expected[:3], rtol=0.0, atol=0.02)


def _one_demo():
    return DemoTensors(
        observations=torch.eye(4)[[2]],
        actions=torch.tensor([0]),
        episode_ids=torch.tensor([0]),
        next_observations=torch.eye(4)[[3]],
        rewards=torch.tensor([1.0]),
        terminated=torch.tensor([True]),
    )
