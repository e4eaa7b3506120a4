"""Reward-weighted regression: its weights, its identities, offline and iterated."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from rlfd.algorithms.core.weighting import WeightAudit
from rlfd.algorithms.rwr import RWRConfig, bare_weights, returns_of, to_mean_1
from rlfd.algorithms.rwr import weigh as weigh_and_audit
from rlfd.errors import RlfdError

SETTINGS = {"max_epochs": 4, "batch_size": 5, "hidden": (11,)}
LENGTHS = (3, 9, 5, 7)


def weigh(returns, form="exp", **options):
    options = {"beta": 0.7, "max_weight": 20.0} | options
    return to_mean_1(bare_weights(torch.tensor(returns), form, **options))


@pytest.fixture
def paid_demos(make_demos):
    """Return a function that makes demonstrations with these returns, paid in equal parts."""

    def make(returns, lengths=LENGTHS, **options):
        demos = make_demos(lengths, **options)
        parts = torch.tensor([r / n for r, n in zip(returns, lengths, strict=True)])
        return dataclasses.replace(demos, rewards=parts[demos.episode_ids])

    return make


# -- weights ------------------------------------------------------------------------------------


def test_forms_of_weights(float64):
    returns = [1.0, 3.0, 5.0, 11.0]
    torch.testing.assert_close(weigh(returns, "raw"), torch.tensor(returns) / 5.0)
    torch.testing.assert_close(weigh(returns, "shift"), torch.tensor([0.0, 2.0, 4.0, 10.0]) / 4.0)
    std = torch.tensor(returns).std(correction=0)
    expected = ((torch.tensor(returns) - 11.0) / (0.7 * std)).exp()  # R_max cancels
    torch.testing.assert_close(weigh(returns, "exp"), expected / expected.mean())


@pytest.mark.parametrize("form", ["exp", "shift"])
def test_a_constant_added_to_all_returns_changes_nothing(float64, form):
    torch.testing.assert_close(
        weigh([1.0, 3.0, 5.0, 11.0], form), weigh([-99.0, -97.0, -95.0, -89.0], form)
    )


@pytest.mark.parametrize("form", ["exp", "shift", "raw"])
def test_weights_have_mean_1_and_rise_with_the_return(float64, form):
    weights = weigh([0.5, 2.0, 9.0], form)
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights[0] < weights[1] < weights[2]


def test_no_return_is_worth_more_than_max_weight_times_the_middle(float64):
    returns = [0.0] * 998 + [1000.0, 1001.0]
    weights = weigh(returns, beta=0.05, max_weight=7.0)
    assert weights[-1] == weights[-2]  # both clipped


@pytest.mark.parametrize(("form", "share"), [("exp", 0.4), ("shift", 0.0), ("raw", 0.0)])
def test_the_share_of_clipped_weights_is_counted(float64, form, share):
    """σ of these is 0.8 √6, so at β = 0.3 the two largest would weigh e^4.08, clipped to 7."""
    returns = torch.tensor([1.0, 1.0, 1.0, 5.0, 5.0])
    config = RWRConfig(form=form, beta=0.3, max_weight=7.0)
    weights, metrics = weigh_and_audit(config, returns, WeightAudit("nothing"))
    torch.testing.assert_close(weights, weigh(returns.tolist(), form, beta=0.3, max_weight=7.0))
    assert metrics["weights/clipped"].item() == pytest.approx(share)


def test_negative_returns_are_no_weights():
    with pytest.raises(RlfdError, match="returns go down to -2") as caught:
        weigh([3.0, -2.0, 1.0], "raw")
    assert "form=exp" in caught.value.hint
    weights = weigh([3.0, -2.0, 1.0], "raw", allow_negative=True)
    assert weights.tolist() == pytest.approx([1.5, -1.0, 0.5])
    with pytest.raises(RlfdError, match="all returns are 0"):
        weigh([0.0, 0.0], "raw")


def test_a_row_weighs_as_its_trajectory_or_as_what_is_still_to_come():
    pieces = {
        "rewards": torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]),
        "terminated": torch.tensor([False, False, True, False, False]),
        "ended": torch.tensor([False, False, True, False, True]),
    }
    assert returns_of(pieces, "trajectories", 1.0).tolist() == [7, 7, 7, 24, 24]
    assert returns_of(pieces, "trajectories", 0.5).tolist() == [3, 3, 3, 16, 16]
    assert returns_of(pieces, "steps", 1.0).tolist() == [7, 6, 4, 24, 16]


# -- on demonstrations alone --------------------------------------------------------------------


def train(algorithm):
    while not algorithm.finished:
        algorithm.iteration(None)
    return algorithm.policy_state()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_with_equal_returns_it_is_behavioural_cloning_bit_for_bit(
    make_algorithm, paid_demos, caplog
):
    demos = paid_demos([6.0] * 4)
    with caplog.at_level(logging.WARNING, logger="rlfd.rwr"):
        rwr = make_algorithm("rwr-offline", demos=demos, **SETTINGS)
    assert "this is behavioural cloning" in caplog.text
    assert_same(train(rwr), train(make_algorithm("bc", demos=demos, **SETTINGS)))


def test_otherwise_it_is_not(make_algorithm, paid_demos):
    demos = paid_demos([1.0, 2.0, 3.0, 4.0])
    ours = train(make_algorithm("rwr-offline", demos=demos, **SETTINGS))
    theirs = train(make_algorithm("bc", demos=demos, **SETTINGS))
    assert not torch.equal(ours["body.0.weight"], theirs["body.0.weight"])


def gradient(algorithm, weights):
    """Return ∂/∂θ of -(1/N) Σ w log π on all pairs, by autograd on the policy's own outputs."""
    network, data = algorithm.learner.network, algorithm.learner.passes
    rows = {n: torch.cat([data.train[n], data.validation[n]]) for n in data.train}
    parameters = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    outputs = torch.func.functional_call(network, parameters, (rows["observations"],))
    log_probs = torch.log_softmax(outputs, -1).gather(1, rows["actions"][:, None])[:, 0]
    loss = -(weights(rows) * log_probs).mean()
    return torch.autograd.grad(loss, [parameters["body.0.weight"], parameters["body.2.bias"]])


def test_a_weight_of_0_removes_a_trajectory(float64, make_algorithm, paid_demos):
    """The worst one has weight 0 (form=shift): its pairs do not count in any gradient."""
    returns = [1.0, 4.0, 9.0, 16.0]
    rwr = make_algorithm("rwr-offline", demos=paid_demos(returns), form="shift", **SETTINGS)
    weights = {
        tuple(o.tolist()): float(w)
        for part in (rwr.learner.passes.train, rwr.learner.passes.validation)
        for o, w in zip(part["observations"], part["weights"], strict=True)
    }
    demos = paid_demos(returns)
    for observation, episode in zip(demos.observations, demos.episode_ids, strict=True):
        found = weights[tuple(observation.tolist())]
        assert (found == 0) == (episode == 0)


def test_a_trajectory_twice_counts_as_one_of_twice_the_weight(float64, make_algorithm, paid_demos):
    first = paid_demos([2.0, 6.0], (4, 4))
    again = {
        name: torch.cat([getattr(first, name), getattr(first, name)[4:]])
        for name in ("observations", "actions", "next_observations", "rewards", "terminated")
    }
    demos = dataclasses.replace(first, episode_ids=torch.arange(12) // 4, **again)
    options = SETTINGS | {"form": "raw", "normalise": False}
    once = make_algorithm("rwr-offline", demos=first, **options)
    twice = make_algorithm("rwr-offline", demos=demos, **options)
    heavy = first.observations[4:, 0]

    def doubled(rows):
        return rows["weights"] * (1.0 + torch.isin(rows["observations"][:, 0], heavy))

    for a, b in zip(gradient(once, doubled), gradient(twice, lambda r: r["weights"]), strict=True):
        torch.testing.assert_close(a / a.norm(), b / b.norm())


def test_raw_weights_on_policy_are_reinforce(float64, make_algorithm, paid_demos):
    """-∇L = E[R ∇log π] with total returns, up to the mean weight that it is divided by."""
    returns = [1.0, 4.0, 9.0, 16.0]
    demos = paid_demos(returns)
    rwr = make_algorithm("rwr-offline", demos=demos, form="raw", **SETTINGS)
    scale = float(torch.tensor(returns)[demos.episode_ids].mean())
    found = gradient(rwr, lambda rows: rows["weights"])
    total = dict(zip(demos.observations[:, 0].tolist(), torch.tensor(returns)[demos.episode_ids],
                     strict=True))  # fmt: skip

    def reinforce(rows):
        return torch.stack([total[x] for x in rows["observations"][:, 0].tolist()])

    for ours, theirs in zip(found, gradient(rwr, reinforce), strict=True):
        torch.testing.assert_close(ours * scale, theirs)


# -- iterated -----------------------------------------------------------------------------------


def test_it_learns_which_action_pays(make_algorithm, tabular_world):
    """One step, three actions in each of two states; the best one differs."""
    world = tabular_world([[2, 2, 2], [2, 2, 2], [2, 2, 2]], [[1, 5, 2], [4, 0, 3], [0, 0, 0]],
                          terminal=(2,))  # fmt: skip
    rwr = make_algorithm(
        "rwr", shape=(3,), action=3, num_envs=5, batch_steps=60, first_steps=60, actor_steps=40,
        batch_size=32, buffer_size=200, normalise_observations=False,
    )  # fmt: skip
    for _ in range(12):
        metrics = rwr.iteration(world)
    assert rwr.act(world.eye[:2], greedy=True).tolist() == [1, 0]
    assert metrics["buffer/size"] == 200


def test_nothing_is_learned_before_an_episode_is_over(make_algorithm, tabular_world):
    world = tabular_world([[0, 0]], [[1, 2]], starts=[0], horizon=9)
    rwr = make_algorithm("rwr", shape=(1,), action=2, num_envs=5, batch_steps=20, first_steps=20,
                         actor_steps=3, batch_size=8)  # fmt: skip
    assert rwr.iteration(world) == {}
    assert rwr.iteration(world) == {}
    assert rwr.iteration(world)["buffer/size"] == 45
    assert rwr.updates == 3
