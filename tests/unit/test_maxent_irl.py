"""Maximum entropy inverse reinforcement learning: gradient, feature matching, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors, Problem
from rlfd.algorithms.core.tabular import Dynamics, causal_policy, occupancy
from rlfd.algorithms.maxent_irl import MaxEntIRL, MaxEntIRLConfig, ascent_loss
from rlfd.errors import RlfdError

from .test_tabular_planning import make_model


def sample(model, policy, count, seed=0):
    """Return demonstrations of a policy (T, S, A)."""
    rng = np.random.default_rng(seed)
    states, actions, _ = model.transitions.shape
    p, observations, chosen = model.transitions.numpy(), [], []
    for _ in range(count):
        state = rng.choice(states, p=model.start.numpy())
        for step in range(model.horizon):
            observations.append(np.append(np.eye(states)[state], step / model.horizon))
            chosen.append(rng.choice(actions, p=policy[step, state]))
            state = rng.choice(states, p=p[state, chosen[-1]])
    return DemoTensors(
        observations=torch.tensor(np.array(observations), dtype=torch.float32),
        actions=torch.tensor(chosen),
        episode_ids=torch.arange(count).repeat_interleave(model.horizon),
    )


def build(model, demos, /, cls=MaxEntIRL, **settings):
    states, actions, _ = model.transitions.shape
    problem = Problem(
        observation_shape=(states + 1,),
        action=ActionSpec("discrete", (actions,)),
        demonstrations=demos,
        env_steps=0,
        num_envs=1,
        seed=0,
        device=torch.device("cpu"),
        model=model,
    )
    return cls(problem, cls.Config(**settings))


def finish(algorithm):
    metrics = {}
    while not algorithm.finished:
        metrics = algorithm.iteration(None)
    return {name: float(value) for name, value in metrics.items()}


@pytest.fixture
def shown():
    model = make_model(5, 3, 6, seed=1)
    truth = model.features.numpy() @ np.array([1.0, -1.0, 0.5, 0.0, 2.0])
    policy, _ = causal_policy(Dynamics(model), truth)
    return model, policy, sample(model, policy, 300)


def test_the_loss_goes_down_by_the_difference_of_feature_expectations():
    batch = {
        "difference": torch.tensor([0.5, -2.0, 0.25], dtype=torch.float64),
        "l2": torch.tensor(0.1, dtype=torch.float64),
    }
    psi = torch.tensor([1.0, 2.0, -4.0], dtype=torch.float64)
    gradient, _ = torch.func.grad(ascent_loss, has_aux=True)({"psi": psi}, {}, batch)
    expected = [-0.5 + 0.1, 2.0 + 0.2, -0.25 - 0.4]
    np.testing.assert_allclose(gradient["psi"].numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("model_name", ["causal", "trajectory"])
def test_features_are_matched_where_it_ends(shown, model_name):
    model, _, demos = shown
    algorithm = build(model, demos, model=model_name, l2=0.0, tolerance=1e-4, max_iterations=3000)
    metrics = finish(algorithm)
    assert metrics["gap/gradient"] <= 1e-4
    assert algorithm.updates < 3000
    joint = occupancy(algorithm.dynamics, algorithm.policy, algorithm._start)
    gap = np.einsum("tsa,saf->f", joint, model.features.numpy()) - algorithm._target
    if model_name == "causal":
        assert np.abs(gap).max() < 1.1e-4
        assert metrics["gap/features"] < 1e-4
    else:  # which bends chance: acting so in the real process is another thing
        assert metrics["gap/features"] > 0.02
    assert metrics["gap/features"] == pytest.approx(
        np.linalg.norm(gap) / np.linalg.norm(algorithm._target), rel=1e-6
    )


def test_from_the_demonstrators_own_expectations_it_finds_the_demonstrator(shown):
    """Features that tell all that pays: nothing but sampling lies between."""
    model, policy, demos = shown
    algorithm = build(model, demos, l2=0.0, tolerance=1e-5, max_iterations=3000, starts="model")
    exact = occupancy(algorithm.dynamics, policy)
    algorithm._target = np.einsum("tsa,saf->f", exact, model.features.numpy())
    finish(algorithm)
    np.testing.assert_allclose(algorithm.policy, policy, atol=1e-3)


def test_both_models_are_one_where_dynamics_are_deterministic():
    model = make_model(5, 3, 6, seed=3, deterministic=True)
    policy, _ = causal_policy(Dynamics(model), model.features.numpy()[..., 0])
    demos = sample(model, policy, 30)
    one, two = (build(model, demos, model=name) for name in ("causal", "trajectory"))
    finish(one)
    finish(two)
    assert one.updates == two.updates
    np.testing.assert_allclose(one.policy, two.policy, atol=1e-9)


def test_a_table_can_tell_pairs_apart(shown):
    *_, demos = shown
    blind = make_model(5, 3, 6, seed=1, features=1)
    blind.features.fill_(1.0)  # which say nothing
    settings = {"tolerance": 0.05, "max_iterations": 3000}
    linear, table = (build(blind, demos, reward=name, **settings) for name in ("linear", "table"))
    assert finish(table)["loss/likelihood"] > finish(linear)["loss/likelihood"] + 0.2
    np.testing.assert_allclose(linear.policy, 1 / 3, atol=1e-9)
    assert table.rewards.shape == (5, 3)


def test_metrics_by_hand():
    """One state, two actions, one step: everything is a coin."""
    model = make_model(1, 2, 1, features=2)
    model.features.copy_(torch.eye(2, dtype=torch.float64)[None])
    demos = DemoTensors(
        observations=torch.tensor([[1.0, 0.0]] * 4),
        actions=torch.tensor([0, 0, 0, 1]),
        episode_ids=torch.arange(4),
    )
    algorithm = build(model, demos, learning_rate=0.5, l2=0.0)
    metrics = {name: float(value) for name, value in algorithm.iteration(None).items()}
    # f_E = (3/4, 1/4), f_π = (1/2, 1/2); Adam's first step is ±0.5
    assert metrics["optim/grad_norm"] == pytest.approx(0.25 * 2**0.5)
    psi = algorithm.weights.psi.tolist()
    assert psi == pytest.approx([0.5, -0.5], abs=1e-6)
    p = 1 / (1 + np.exp(-1))
    assert metrics["loss/likelihood"] == pytest.approx(
        0.75 * np.log(p) + 0.25 * np.log(1 - p), 1e-5
    )
    assert metrics["policy/entropy"] == pytest.approx(
        -p * np.log(p) - (1 - p) * np.log(1 - p), 1e-5
    )
    assert metrics["gap/gradient"] == pytest.approx(0.75 - p, abs=1e-6)
    assert metrics["gap/features"] == pytest.approx((0.75 - p) / (0.625**0.5 / 2**0.5), rel=0.02)


def test_the_learned_reward_is_kept(shown):
    model, _, demos = shown
    algorithm, other = build(model, demos), build(model, demos)
    finish(algorithm)
    seen = demos.observations.numpy()[:7]
    actions = demos.actions.numpy()[:7]
    paid = algorithm.reward(seen, actions, seen, np.zeros(7, bool))
    states = seen[:, :-1].argmax(axis=1)
    expected = model.features.numpy()[states, actions] @ algorithm.weights.psi.numpy()
    np.testing.assert_allclose(paid, expected, atol=1e-12)
    assert paid.dtype == np.float64
    other.load_reward_state(algorithm.reward_state())
    np.testing.assert_array_equal(other.reward(seen, actions, seen, np.zeros(7, bool)), paid)
    assert MaxEntIRL.recovers_reward


def test_whole_trajectories_know_no_discount():
    with pytest.raises(RlfdError, match="knows no discount"):
        MaxEntIRLConfig(model="trajectory", gamma=0.9)
