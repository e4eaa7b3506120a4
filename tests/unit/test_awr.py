"""Advantage-weighted regression: its identities with its relatives, on exact cases."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rlfd.algorithms.core.trajectories import demo_pieces, returns_to_go
from rlfd.algorithms.rwr import bare_weights, to_mean_1
from rlfd.envs import EnvConfig
from rlfd.experiments.config import resolve

SETTINGS = {
    "hidden": (11,),
    "actor_steps": 4,
    "critic_steps": 3,
    "batch_size": 9,
    "normalise_observations": False,
}
COLLECTING = {"batch_steps": 15, "first_steps": 15}
LENGTHS = (3, 9, 5, 7)


@pytest.fixture
def paid_demos(make_demos):
    def make(lengths=LENGTHS, **options):
        demos = make_demos(lengths, **options)
        generator = torch.Generator().manual_seed(4)
        return dataclasses.replace(
            demos, rewards=torch.randn(sum(lengths), generator=generator).double()
        )

    return make


@pytest.fixture
def offline(make_algorithm, paid_demos):
    """Return a function that builds AWR on demonstrations, of which hardly any are held out."""

    def make(*, demos=None, **options):
        return make_algorithm("awr-offline", demos=demos or paid_demos(), **SETTINGS | options)

    return make


def gradient(policy, observations, actions, weights):
    """Return the gradient of the policy's loss, the rest of it left out."""
    batch = {
        "inputs": policy.actor.network.standardise(observations),
        "actions": actions,
        "weights": weights,
    }
    parameters = policy.engine.parameters
    return torch.func.grad(lambda p: policy._loss(p, p, batch)[0])(parameters)


def assert_close(first, second):
    for name, value in first.items():
        if name != "log_std":
            torch.testing.assert_close(value, second[name])


# -- identities ---------------------------------------------------------------------------------


def test_at_infinite_temperature_it_is_behavioural_cloning(float64, offline):
    awr = offline(beta=1e8)
    policy = awr.learner.policy
    data = policy.buffer.data
    values = awr.learner.values(policy.inputs())
    returns = awr.learner.returns(data, values)
    weights = awr.learner.weights(returns - values)
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-7, atol=0.0)

    def nll(parameters):
        network = policy.actor.network
        outputs = torch.func.functional_call(network, parameters, (data["observations"],))
        return torch.nn.functional.cross_entropy(outputs, data["actions"])

    expected = torch.func.grad(nll)(policy.engine.parameters)
    assert_close(gradient(policy, data["observations"], data["actions"], weights), expected)


@pytest.mark.parametrize("inverse", [0.5, 3.0])
def test_one_iteration_is_marwil_with_the_same_value(float64, make_algorithm, paid_demos, inverse):
    """β = c / β': the same weights and the same gradient of the policy."""
    demos = paid_demos()
    marwil = make_algorithm(
        "marwil", demos=demos, mode="awr", beta=inverse, td_lambda=0.95, hidden=(11,),
        normalise=False, max_epochs=3, batch_size=5, value_learning_rate=0.05,
    )  # fmt: skip
    while not marwil.value_ready:
        marwil.iteration(None)
    norm = float(marwil.squared_norm.sqrt())
    awr = make_algorithm(
        "awr-offline", demos=demos, standardise_advantages=False, beta=norm / inverse, **SETTINGS
    )
    critic, theirs = awr.learner.critic, marwil.critics[0]
    critic.offset, critic.scale = theirs.offset, theirs.scale
    critic.engine.load_parameters(theirs.engine.parameters)
    policy = awr.learner.policy
    policy.engine.load_parameters(marwil.learner.engine.parameters)
    everything = demo_pieces(demos, demos.actions)
    values = awr.learner.values(demos.observations.double())
    returns = awr.learner.returns(everything, values)
    weights = awr.learner.weights(returns - values)
    torch.testing.assert_close(returns, marwil.returns)
    expected = marwil._weigh(marwil.returns - marwil._values(marwil.inputs, marwil.judge))
    torch.testing.assert_close(weights, expected)
    batch = {
        "observations": demos.observations.double(),
        "actions": demos.actions,
        "weights": expected,
    }
    cloning = marwil.learner
    assert_close(
        gradient(policy, batch["observations"], demos.actions, weights),
        torch.func.grad(lambda p: cloning._loss(p, p, batch)[0])(cloning.engine.parameters),
    )


def test_without_a_baseline_its_weights_are_those_of_rwr(float64, offline):
    awr = offline(baseline="none", beta=0.4, max_weight=1e9)
    policy = awr.learner.policy
    values = awr.learner.values(policy.inputs())
    returns = awr.learner.returns(policy.buffer.data, values)
    assert not values.any()
    torch.testing.assert_close(returns, returns_to_go(policy.buffer.data, 0.99))
    ours = awr.learner.weights(returns)
    theirs = to_mean_1(bare_weights(returns, "exp", beta=0.4, max_weight=1e9))
    torch.testing.assert_close(ours / ours.mean(), theirs, rtol=1e-3, atol=1e-6)
    assert "loss/value" not in awr.learner.iteration(24)


def test_a_constant_reward_more_changes_no_weight_once_v_follows(float64, offline):
    """Episodes of one length, observations that tell the time: V is a table of mean returns."""
    length, count = 5, 4
    generator = torch.Generator().manual_seed(0)
    pieces = {
        "observations": torch.eye(length).repeat(count, 1),
        "next_observations": torch.eye(length).roll(1, 1).repeat(count, 1),
        "rewards": torch.randn(length * count, generator=generator),
        "ended": (torch.arange(length * count) % length) == length - 1,
    }
    pieces["terminated"] = pieces["ended"]
    awr = offline(td_lambda=1.0)

    def weights(bonus):
        paid = pieces | {"rewards": pieces["rewards"] + bonus}
        table = returns_to_go(paid, 0.99).view(count, length).mean(0)
        awr.learner.critic.values = lambda inputs: inputs[:, :length] @ table
        values = awr.learner.values(pieces["observations"])
        returns = awr.learner.returns(paid, values)
        return awr.learner.weights(returns - values)

    torch.testing.assert_close(weights(0.0), weights(3.7))


def test_the_temperature_falls_over_the_planned_iterations(float64, make_algorithm, noise_world):
    """env_steps 999 after 15 first ones: 66 iterations of 15."""
    awr = make_algorithm(
        "awr", beta=2.0, final_beta=0.25, standardise_advantages=False, max_weight=1e9,
        **SETTINGS | COLLECTING,
    )  # fmt: skip
    world, seen = noise_world(), []
    for _ in range(70):
        seen.append(1.0 / awr.learner.weights(torch.ones(1)).log().item())
        awr.iteration(world)
    assert awr.learner.iterations == 66
    assert seen[0] == pytest.approx(2.0)
    assert seen[33] == pytest.approx(1.25)
    assert seen[66:] == pytest.approx([0.5] * 4)


# -- exact cases --------------------------------------------------------------------------------

MU = torch.tensor([[4, 1, 3], [2, 5, 1]])  # how often each action was taken in each state
REWARD = torch.tensor([[0.3, 2.0, -1.0], [1.0, 0.2, -0.7]])


def bandit():
    """Pairs in these numbers, with exact advantages of μ."""
    states = torch.arange(2).repeat_interleave(MU.sum(1))
    actions = torch.cat([torch.arange(3).repeat_interleave(row) for row in MU])
    mu = MU / MU.sum(1, keepdim=True)
    reward = REWARD.to(mu)
    advantages = reward - (mu * reward).sum(1, keepdim=True)
    return states, actions, mu, advantages[states, actions], advantages


@pytest.fixture
def table(make_algorithm):
    """Return a policy that is a table of logits: one-hot observations, no hidden layer."""

    def make(logits):
        awr = make_algorithm("awr", shape=(2,), action=3, **SETTINGS | COLLECTING | {"hidden": ()})
        policy = awr.learner.policy
        policy.engine.parameters["body.0.weight"].copy_(logits.T)
        policy.engine.parameters["body.0.bias"].zero_()
        return awr.learner, policy

    return make


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_regression_ends_at_mu_times_the_exponentiated_advantage(float64, table, beta):
    states, actions, mu, of_pairs, advantages = bandit()
    target = torch.log_softmax(mu.log() + advantages / beta, 1)
    regression, policy = table(target)
    regression.config = dataclasses.replace(
        regression.config, standardise_advantages=False, beta=beta, max_weight=1e9
    )
    found = gradient(policy, torch.eye(2)[states], actions, regression.weights(of_pairs))
    torch.testing.assert_close(found["body.0.weight"], torch.zeros(3, 2), rtol=0, atol=1e-12)
    better = (target.exp() * REWARD.to(mu)).sum(1)
    assert (better > (mu * REWARD.to(mu)).sum(1)).all()


def test_at_mu_a_high_temperature_gives_the_policy_gradient(float64, table):
    states, actions, mu, of_pairs, _ = bandit()
    beta = 1e6
    regression, policy = table(mu.log())
    regression.config = dataclasses.replace(
        regression.config, standardise_advantages=False, beta=beta
    )
    found = gradient(policy, torch.eye(2)[states], actions, regression.weights(of_pairs))

    def score(parameters):
        network = policy.actor.network
        outputs = torch.func.functional_call(network, parameters, (torch.eye(2)[states],))
        log_probs = torch.log_softmax(outputs, -1).gather(1, actions[:, None])[:, 0]
        return (of_pairs * log_probs).mean()

    expected = torch.func.grad(score)(policy.engine.parameters)["body.0.weight"]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(-beta * found["body.0.weight"], expected, rtol=1e-4, atol=1e-6)


# -- memory and learning ------------------------------------------------------------------------


def test_v_is_learned_from_returns_with_the_old_v(float64, offline):
    """A critic's first targets use V = 0: with λ = 0 they are the rewards."""
    awr = offline(td_lambda=0.0, critic_steps=400, critic_learning_rate=0.02)
    policy, seen = awr.learner.policy, []
    step = awr.learner.critic.step
    awr.learner.critic.step = lambda inputs, returns: (seen.append(returns), step(inputs, returns))
    awr.learner.iteration(24)
    rewards = policy.buffer.data["rewards"]
    assert torch.isin(torch.cat(seen), rewards).all()
    values = awr.learner.values(policy.inputs())
    returns = awr.learner.returns(policy.buffer.data, values)
    assert (rewards - values).var() < 0.1 * rewards.var()
    assert not torch.isin(returns, rewards).all()  # the policy's use the new one


@pytest.mark.parametrize(("memory", "expected"), [("append", 45), ("replace", 15)])
def test_new_experience_joins_the_old_or_replaces_it(make_algorithm, noise_world, memory, expected):
    awr = make_algorithm("awr", memory=memory, **SETTINGS | COLLECTING)
    world = noise_world()
    for _ in range(3):
        metrics = awr.iteration(world)
    assert metrics["buffer/size"] == expected
    assert awr.updates == 3 * (4 + 3)


@pytest.mark.parametrize("capacity", [40, 1000])
def test_old_rows_keep_the_values_that_v_had_for_them(make_algorithm, noise_world, capacity):
    """R for the critic uses V_{k-1}: as it is for new rows, and as it was for old ones."""
    awr = make_algorithm("awr", buffer_size=capacity, **SETTINGS | COLLECTING)
    world, regression, seen = noise_world(), awr.learner, []
    policy, returns = regression.policy, regression.returns
    regression.returns = lambda pieces, v: (seen.append(v.clone()), returns(pieces, v))[1]
    for _ in range(6):
        before = {n: p.clone() for n, p in regression.critic.engine.parameters.items()}
        awr.iteration(world)
        now = {n: p.clone() for n, p in regression.critic.engine.parameters.items()}
        with torch.no_grad():
            regression.critic.engine.load_parameters(before)
            expected = regression.critic.values(policy.inputs())
            regression.critic.engine.load_parameters(now)
        torch.testing.assert_close(seen[-2], expected)
        assert not torch.equal(seen[-1], seen[-2])


def test_the_first_iteration_acts_longer(make_algorithm, noise_world):
    awr = make_algorithm("awr", **SETTINGS | {"batch_steps": 9, "first_steps": 30})
    world = noise_world()
    awr.iteration(world)
    assert world.env_steps == 30
    awr.iteration(world)
    assert world.env_steps == 39


def test_advantages_teach_what_returns_alone_hide(make_algorithm, tabular_world):
    """The start decides the return; the action adds little. V takes the start away."""
    world = tabular_world(
        [[2, 2, 2], [2, 2, 2], [2, 2, 2]], [[50, 52, 51], [2, 0, 1], [0, 0, 0]], terminal=(2,)
    )
    awr = make_algorithm(
        "awr", shape=(3,), action=3, num_envs=5,
        **SETTINGS | {"batch_steps": 60, "first_steps": 60, "actor_steps": 40, "batch_size": 32,
                      "critic_steps": 60, "critic_learning_rate": 0.02},
    )  # fmt: skip
    for _ in range(15):
        awr.iteration(world)
    assert awr.act(world.eye[:2], greedy=True).tolist() == [1, 0]


def test_offline_training_ends_with_the_best_held_out_policy(offline, monkeypatch):
    awr = offline(patience=2, max_iterations=9)
    losses = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(awr, "_validate", lambda: torch.tensor(next(losses)))
    after = []
    while not awr.finished:
        awr.iteration(None)
        after.append(awr.policy_state())
    assert len(after) == 4
    assert torch.equal(after[-1]["body.0.weight"], after[1]["body.0.weight"])
    assert not torch.equal(after[-1]["body.0.weight"], after[2]["body.0.weight"])


def test_held_out_trajectories_are_not_learned_from(offline, paid_demos):
    demos = paid_demos()
    awr = offline(demos=demos, validation_fraction=0.3)
    kept = awr.learner.policy.buffer.data["observations"]
    held_out = awr._validation["observations"]
    assert len(kept) + len(held_out) == demos.num_transitions
    assert not torch.isin(kept[:, 0], held_out[:, 0]).any()


def test_continuous_means_are_drawn_back_inside_the_bounds(float64, make_algorithm):
    from rlfd.algorithms.base import ActionSpec

    action = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
    awr = make_algorithm("awr", action=action, bound_weight=10.0, **SETTINGS | COLLECTING)
    policy = awr.learner.policy
    policy.engine.parameters["body.2.bias"].copy_(torch.tensor([3.0, 0.5]))
    policy.engine.parameters["body.2.weight"].zero_()
    batch = {
        "inputs": torch.zeros(4, 5),
        "actions": torch.tensor([[3.0, 0.5]]).repeat(4, 1),
        "weights": torch.ones(4),
    }
    parameters = policy.engine.parameters
    found = torch.func.grad(lambda p: policy._loss(p, p, batch)[0])(parameters)
    torch.testing.assert_close(found["body.2.bias"], torch.tensor([10.0 * 2.0, 0.0]))
    assert not found["log_std"].any()  # fixed unless learn_std


def test_the_code_presets_penalty_is_the_releases(float64, make_algorithm):
    """There 1e-3 weighs half the mean of the summed squares of the logits (`_action_l2_loss`)."""
    preset = resolve("awr", EnvConfig("LunarLander"), preset="code").config.algorithm
    with_it, without = (
        make_algorithm("awr", output_l2=weight, hidden=(11,)).learner.policy
        for weight in (preset.output_l2, 0.0)
    )
    generator = torch.Generator().manual_seed(2)
    batch = {
        "inputs": 3.0 * torch.randn(13, 5, generator=generator),
        "actions": torch.randint(7, (13,), generator=generator),
        "weights": torch.rand(13, generator=generator),
    }
    parameters = without.engine.parameters
    logits = with_it.actor.network.body(batch["inputs"])
    expected = 1e-3 * 0.5 * logits.square().sum(dim=-1).mean()
    assert expected > 1e-6
    penalty = with_it._loss(parameters, parameters, batch)[0]
    penalty = penalty - without._loss(parameters, parameters, batch)[0]
    torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=0)
