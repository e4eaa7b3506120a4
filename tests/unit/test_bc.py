"""Behavioural cloning: its losses, split, early stopping and data."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import pytest
import torch

from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.bc import BCConfig
from rlfd.algorithms.core import engine as engine_module
from rlfd.algorithms.core import offline as offline_module
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.offline import EarlyStopping, early_stopping, split_trajectories
from rlfd.errors import RlfdError

CONTINUOUS = ActionSpec("continuous", (3,), (-1.0, -2.0, 0.0), (1.0, 2.0, 10.0))
PLAIN = {"l2": 0.0, "entropy_weight": 0.0, "normalise": False}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_actions(observations):
    """Return actions that are an affine function of observations, inside CONTINUOUS' bounds."""
    weights = 0.1 * torch.randn(5, 3, generator=seeded(4))
    unit = observations @ weights + torch.tensor([0.1, -0.2, 0.0])
    low, high = torch.tensor(CONTINUOUS.low), torch.tensor(CONTINUOUS.high)
    return low + (unit + 1) / 2 * (high - low)


@pytest.fixture
def continuous_demos(float64, make_demos):
    demos = make_demos((9, 15, 7))
    return dataclasses.replace(demos, actions=linear_actions(demos.observations))


def whole_batch(demos):
    weights, actions = torch.ones(demos.num_transitions), demos.actions
    if actions.is_floating_point():
        actions = make_distribution(CONTINUOUS).encode(actions)
    return {"observations": demos.observations, "actions": actions, "weights": weights}


def loss_of(algorithm, parameters, batch):
    return algorithm._loss(parameters, parameters, batch)[0]


def gradient_of(algorithm, batch):
    parameters = algorithm.engine.parameters
    return torch.func.grad(lambda p: loss_of(algorithm, p, batch))(parameters)


def set_log_std(algorithm, value):
    algorithm.engine.parameters["log_std"].fill_(value)


def test_squared_error_is_twice_the_likelihood_of_unit_variance(make_algorithm, continuous_demos):
    options = {"action": CONTINUOUS, "demos": continuous_demos, **PLAIN}
    nll, mse = (make_algorithm("bc", loss=loss, **options) for loss in ("nll", "mse"))
    batch = whole_batch(continuous_demos)
    first, second = gradient_of(nll, batch), gradient_of(mse, batch)
    assert second.pop("log_std").abs().max() == 0.0
    for name, value in second.items():
        assert value.abs().max() > 1e-3
        torch.testing.assert_close(value, 2.0 * first[name], rtol=1e-12, atol=1e-14)
    # the losses themselves differ by a constant: 3/2 log 2π
    losses = [loss_of(a, nll.engine.parameters, batch) for a in (nll, mse)]
    constant = 1.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(losses[0], 0.5 * losses[1] + constant, rtol=1e-12, atol=0)


def test_gradient_descent_on_a_linear_model_solves_perfect_data(make_algorithm, continuous_demos):
    bc = make_algorithm(
        "bc", loss="mse", hidden=(), action=CONTINUOUS, demos=continuous_demos, **PLAIN
    )
    batch, parameters = whole_batch(continuous_demos), bc.engine.parameters
    step = torch.func.grad_and_value(lambda p: loss_of(bc, p, batch))
    losses = []
    for _ in range(150):
        gradients, loss = step(parameters)
        parameters = {name: value - 0.2 * gradients[name] for name, value in parameters.items()}
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_cross_entropy_gradient_is_softmax_minus_one_hot(
    float64, make_algorithm, make_demos, temperature
):
    """Seen at the biases of a linear model, whose gradient is that of its outputs."""
    demos = make_demos()
    bc = make_algorithm("bc", hidden=(), demos=demos, temperature=temperature, **PLAIN)
    outputs = bc.network(demos.observations) / temperature
    expected = (torch.softmax(outputs, dim=1) - torch.eye(7)[demos.actions]).mean(dim=0)
    gradient = gradient_of(bc, whole_batch(demos))["body.0.bias"]
    torch.testing.assert_close(gradient, expected / temperature, rtol=1e-12, atol=1e-14)


def test_loss_adds_entropy_and_squared_parameters(float64, make_algorithm, make_demos):
    demos = make_demos()
    plain = make_algorithm("bc", demos=demos, **PLAIN)
    full = make_algorithm("bc", demos=demos, l2=0.3, entropy_weight=0.7, normalise=False)
    parameters, batch = plain.engine.parameters, whole_batch(demos)
    log_probs = torch.log_softmax(plain.network(demos.observations), dim=1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
    squares = sum(value.square().sum() for value in parameters.values())
    expected = -log_probs[torch.arange(17), demos.actions].mean()
    torch.testing.assert_close(loss_of(plain, parameters, batch), expected)
    expected = expected - 0.7 * entropy + 0.3 * squares
    torch.testing.assert_close(loss_of(full, parameters, batch), expected)


def test_order_and_duplicates_of_the_data_do_not_matter(float64, make_algorithm, make_demos):
    demos = make_demos()
    bc = make_algorithm("bc", demos=demos)
    batch, parameters = whole_batch(demos), bc.engine.parameters
    order = torch.randperm(17, generator=seeded())
    once = loss_of(bc, parameters, batch)
    shuffled = {name: value[order] for name, value in batch.items()}
    thrice = {name: torch.cat([value] * 3) for name, value in batch.items()}
    torch.testing.assert_close(loss_of(bc, parameters, shuffled), once, rtol=1e-13, atol=0)
    torch.testing.assert_close(loss_of(bc, parameters, thrice), once, rtol=1e-13, atol=0)


def observed(stopping, losses, updates_each=100):
    """Return the answers to a sequence of losses; the parameters are the epoch's number."""
    parameters, answers = {"w": torch.zeros(3)}, []
    for epoch, loss in enumerate(losses):
        parameters["w"].fill_(epoch)
        answers.append(stopping.observe(loss, parameters, (epoch + 1) * updates_each))
    return answers


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
def test_early_stopping_counts_falls_by_their_share_and_keeps_the_best(unit):
    stopping = EarlyStopping(patience=3, min_delta=0.1)
    #         counts     together      counts little little worse
    losses = [5.0, 4.0, 3.95, 3.7, 3.5, 3.4, 3.2, 3.3]
    answers = observed(stopping, [unit * loss for loss in losses])
    assert answers == [False] * 7 + [True]
    # the last fall that counted led to 3.5, the best of all came later
    assert (stopping.best, stopping.kept["w"].tolist()) == (unit * 3.2, [6.0] * 3)


def test_negative_losses_fall_by_a_share_of_their_size():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    #                                      counts              too little
    assert observed(stopping, [1.0, -1.0, -1.2, -1.25, -1.31]) == [False] * 4 + [True]
    assert stopping.best == -1.31


def test_patience_ends_nothing_before_the_least_number_of_updates():
    stopping = EarlyStopping(patience=2, min_delta=0.0, min_updates=700)
    assert observed(stopping, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == [False] * 6 + [True]
    assert stopping.kept["w"].tolist() == [0.0] * 3
    late = EarlyStopping(patience=2, min_delta=0.0, min_updates=700)
    # what gets better late is not lost
    assert observed(late, [1.0, 2.0, 3.0, 4.0, 5.0, 0.5, 0.7, 0.8]) == [False] * 7 + [True]
    assert late.kept["w"].tolist() == [5.0] * 3


def test_a_loss_that_falls_ever_more_slowly_ends_training_by_the_defaults():
    """As a deterministic demonstrator's does: it has no bottom, likelihoods only grow."""
    defaults = BCConfig()
    losses = [1.0 / (1.0 + epoch) for epoch in range(defaults.max_epochs)]
    answers = observed(early_stopping(defaults), losses)
    assert 250 < answers.index(True) < 450
    assert not any(observed(EarlyStopping(defaults.patience), losses))


def test_few_episodes_are_learned_in_spite_of_a_plateau(make_algorithm, make_demos):
    """One update a pass: by passes alone it would be over before anything was learned."""

    def exclusive_or(lengths, seed):
        demos = make_demos(lengths, shape=(2,), seed=seed)
        right, up = (demos.observations > 0).unbind(1)
        return dataclasses.replace(demos, actions=(right ^ up).long())

    few, others = exclusive_or((19, 21, 17, 23, 29, 15), 2), exclusive_or((999,), 77)
    problem = {"shape": (2,), "action": 2, "demos": few, "seed": 2, "hidden": (31,)}
    bc, impatient = (make_algorithm("bc", **problem | more) for more in ({}, {"min_updates": 0}))
    reached = []
    for one in (bc, impatient):
        while not one.finished:
            one.iteration(None)
        reached.append(one.accuracy(others.observations, others.actions).item())
    assert bc.updates == bc.config.max_epochs
    assert impatient.updates < 50
    assert reached[0] > 0.95
    assert reached[1] < 0.6


def clone_of(make_algorithm, make_demos, monkeypatch, rows, **options):
    """Return a clone of so many training rows that compiles from 10 updates on, and what it did."""
    monkeypatch.setattr(engine_module, "COMPILE_FROM_UPDATES", 10)
    compiled = []

    def compile_nothing(function, **_):
        return lambda *arguments: compiled.append(1) or function(*arguments)

    monkeypatch.setattr(torch, "compile", compile_nothing)
    demos = make_demos((rows, rows), actions=torch.arange(2 * rows) % 7)  # one is held out
    options = {"batch_size": 5, "compile": "auto", "env_steps": 0, "min_updates": 0} | options
    name = options.pop("name", "bc")
    monkeypatch.setattr(offline_module, "USUAL_EPOCHS", 3)
    return make_algorithm(name, demos=demos, **options), compiled


@pytest.mark.parametrize("name", ["bc", "rwr-offline", "marwil"])
@pytest.mark.parametrize(
    ("rows", "options", "first"),
    [
        (20, {}, 1),  # 4 a pass: 12 in three passes
        (15, {}, 11),  # 3 a pass: 9, of which nobody knows that there will be more
        (20, {"max_epochs": 2}, None),
        (20, {"env_steps": 9}, 11),  # a budget
        (20, {"compile": "off"}, None),
    ],
)
def test_long_cloning_is_compiled(
    make_algorithm, make_demos, monkeypatch, name, rows, options, first
):
    options = {"patience": 99} | options
    bc, compiled = clone_of(make_algorithm, make_demos, monkeypatch, rows, name=name, **options)
    engine, found = (bc if name == "bc" else bc.learner).engine, None
    step = engine.step

    def watched(batch):
        nonlocal found
        before = len(compiled)
        outputs = step(batch)
        if len(compiled) > before and found is None:
            found = engine.count
        return outputs

    monkeypatch.setattr(engine, "step", watched)
    for _ in range(5):
        if not bc.finished:
            bc.iteration(None)
    assert found == first


def test_training_ends_with_the_weights_of_the_best_epoch(make_algorithm, monkeypatch):
    bc = make_algorithm("bc", patience=2, batch_size=3, min_updates=0)
    losses = iter([3.0, 2.0, 1.0, 1.5, 1.2])
    monkeypatch.setattr(bc, "validate", lambda: (torch.tensor(next(losses)), torch.tensor(0.0)))
    after = []
    while not bc.finished:
        bc.iteration(None)
        after.append(bc.policy_state())
    assert len(after) == 5
    for name, value in bc.policy_state().items():
        assert torch.equal(value, after[2][name])
    assert not torch.equal(after[3]["body.0.weight"], after[2]["body.0.weight"])


def test_training_ends_with_the_best_weights_when_epochs_run_out(make_algorithm, monkeypatch):
    bc = make_algorithm("bc", max_epochs=2)
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(bc, "validate", lambda: (torch.tensor(next(losses)), torch.tensor(0.0)))
    bc.iteration(None)
    first = bc.policy_state()
    assert not bc.finished
    bc.iteration(None)
    assert bc.finished
    assert torch.equal(bc.policy_state()["body.0.weight"], first["body.0.weight"])


@pytest.mark.parametrize("count", [2, 3, 9, 31])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.9])
def test_no_trajectory_is_in_both_halves(make_demos, count, fraction):
    demos = make_demos([3 + i % 5 for i in range(count)])
    train, validation = split_trajectories(demos, fraction, seeded())
    first, second = (set(demos.episode_ids[rows].tolist()) for rows in (train, validation))
    assert first
    assert second
    assert first | second == set(range(count))
    assert not first & second
    assert len(second) == min(count - 1, max(1, round(fraction * count)))
    rows = torch.cat([train, validation]).sort().values
    assert torch.equal(rows, torch.arange(demos.num_transitions))


def test_a_single_trajectory_loses_its_last_steps_and_that_is_said(
    make_algorithm, make_demos, caplog
):
    train, validation = split_trajectories(make_demos((29,)), 0.1, seeded())
    assert torch.equal(train, torch.arange(26))
    assert torch.equal(validation, torch.arange(26, 29))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="rlfd.offline"):
        for name in ("bc", "awr-offline"):
            make_algorithm(name, demos=make_demos((3, 5)))
            assert caplog.messages == []
            make_algorithm(name, demos=make_demos((29,)))
            assert "only one demonstration: its last 3 of 29 steps" in caplog.text
            caplog.clear()


@pytest.mark.parametrize("name", ["bc", "awr-offline"])
def test_one_transition_is_refused(make_algorithm, make_demos, name):
    with pytest.raises(RlfdError, match="at least 2 transitions, got 1"):
        make_algorithm(name, demos=make_demos((1,)))


def test_rewards_in_the_file_are_not_read(make_algorithm, make_demos):
    demos = make_demos((9, 5, 3))
    paid = dataclasses.replace(demos, rewards=torch.full((17,), torch.nan))
    states = []
    for data in (demos, paid):
        bc = make_algorithm("bc", demos=data)
        for _ in range(3):
            bc.iteration(None)
        states.append(bc.policy_state())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_trajectories_can_weigh_the_same(float64, make_algorithm, make_demos):
    """With w = N / (m T_i) the loss is the mean over trajectories of their own means."""
    demos = make_demos((3, 9, 5))
    bc = make_algorithm("bc", demos=demos, weighting="trajectories", **PLAIN)
    batch = bc._data(demos)
    assert batch["weights"].mean().item() == pytest.approx(1.0)
    parameters = bc.engine.parameters
    parts = []
    for i in range(3):
        rows = demos.episode_ids == i
        part = {name: value[rows] for name, value in batch.items()}
        parts.append(loss_of(bc, parameters, part | {"weights": torch.ones(int(rows.sum()))}))
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(loss_of(bc, parameters, batch), expected, rtol=1e-6, atol=0)
    equal = make_algorithm("bc", demos=make_demos((5, 5)), weighting="trajectories")
    assert torch.equal(equal._data(make_demos((5, 5)))["weights"], torch.ones(10))


def test_observations_are_standardised_by_the_training_half_alone(make_algorithm, make_demos):
    demos = make_demos((31, 29))
    demos.observations.mul_(7.0).add_(3.0)
    demos.observations[:, 2] = 4.0  # a sensor that never moves keeps its scale
    bc = make_algorithm("bc", demos=demos)
    train, _ = split_trajectories(demos, 0.1, seeded())
    rows = demos.observations[train]
    torch.testing.assert_close(bc.network.mean, rows.mean(dim=0))
    expected = rows.std(dim=0, correction=0)
    expected[2] = 1.0
    torch.testing.assert_close(bc.network.std, expected)
    raw = make_algorithm("bc", demos=demos, normalise=False)
    assert torch.equal(raw.network.mean, torch.zeros(5))
    assert torch.equal(raw.network.std, torch.ones(5))


def test_every_training_pair_is_seen_once_per_epoch(make_algorithm, make_demos, monkeypatch):
    demos = make_demos((15, 9))
    bc = make_algorithm("bc", demos=demos, batch_size=3)
    train, _ = split_trajectories(demos, 0.1, seeded())
    seen = []
    monkeypatch.setattr(bc.engine, "step", lambda batch: seen.append(batch["observations"]))
    bc.iteration(None)
    got = torch.cat(seen)
    assert len(got) == len(train) == len(got.unique(dim=0))
    assert torch.equal(got.unique(dim=0), demos.observations[train].unique(dim=0))


def test_validation_is_the_plain_loss_and_accuracy_of_held_out_trajectories(
    float64, make_algorithm, make_demos
):
    demos = make_demos((9, 5, 3))
    bc = make_algorithm("bc", demos=demos, l2=9.0, entropy_weight=9.0)
    metrics = bc.iteration(None)
    _, rows = split_trajectories(demos, 0.1, seeded())
    log_probs = torch.log_softmax(bc.network(demos.observations[rows]), dim=1)
    actions = demos.actions[rows]
    expected = -log_probs[torch.arange(len(rows)), actions].mean()
    torch.testing.assert_close(metrics["loss/validation"], expected)
    accuracy = (log_probs.argmax(dim=1) == actions).double().mean().item()
    assert metrics["policy/accuracy"].item() == pytest.approx(accuracy)


def test_squared_error_needs_continuous_actions(make_algorithm):
    with pytest.raises(RlfdError, match="loss=mse is for continuous actions"):
        make_algorithm("bc", loss="mse")


def test_likelihood_of_continuous_actions_finds_mean_and_noise(make_algorithm, make_demos):
    """Demonstrations with noise of std 0.2: the mean is learned, and so is the std."""
    demos = make_demos((99,) * 9)
    noise = 0.2 * torch.randn(891, 3, generator=seeded(3))
    low, high = torch.tensor(CONTINUOUS.low), torch.tensor(CONTINUOUS.high)
    actions = linear_actions(demos.observations) + noise * (high - low) / 2
    bc = make_algorithm(
        "bc",
        action=CONTINUOUS,
        demos=dataclasses.replace(demos, actions=actions),
        hidden=(),
        learning_rate=0.02,
        l2=0.0,
        entropy_weight=0.0,
        batch_size=99,
    )
    for _ in range(40):
        bc.iteration(None)
    std = bc.policy_state()["log_std"].exp()
    torch.testing.assert_close(std, torch.full((3,), 0.2), rtol=0.1, atol=0)
    expected = linear_actions(demos.observations[:99])
    greedy = torch.from_numpy(bc.act(demos.observations[:99].numpy(), greedy=True))
    assert ((greedy - expected).abs() / (high - low)).mean() < 0.02


def test_an_action_is_right_if_all_its_choices_are(make_algorithm, make_demos):
    spec = ActionSpec("multi_binary", (3,))
    demos = dataclasses.replace(make_demos((9, 5)), actions=torch.zeros(14, 3, dtype=torch.int64))
    bc = make_algorithm("bc", action=spec, demos=demos, normalise=False, hidden=())
    for value in bc.engine.parameters.values():
        value.zero_()
    bc.engine.parameters["body.0.weight"][:] = torch.eye(3, 5)  # switch k is on where s_k > 0
    states = torch.tensor([[1.0, 1.0, 1.0, 0, 0], [-1.0, 1.0, -1.0, 0, 0], [1.0, -1.0, 1.0, 0, 0]])
    labels = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 0]])  # 3, 2 and 0 choices
    assert bc.accuracy(states, labels).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary"])
def test_all_kinds_of_actions_are_cloned(make_algorithm, make_demos, kind):
    """The action follows from the observation's signs; most must be right on held-out data."""
    demos = make_demos((99,) * 5)
    signs = (demos.observations > 0).long()
    sizes, actions = {
        "discrete": ((3,), signs[:, 0] + signs[:, 1]),
        "multi_discrete": (
            (2, 3),
            torch.stack([signs[:, 0], signs[:, 1] + signs[:, 2]], dim=1),
        ),
        "multi_binary": ((3,), signs[:, :3]),
    }[kind]
    data = DemoTensors(demos.observations, actions, demos.episode_ids)
    action = ActionSpec(kind, sizes)
    bc = make_algorithm("bc", action=action, demos=data, batch_size=99, learning_rate=0.03)
    for _ in range(40):
        metrics = bc.iteration(None)
    assert metrics["policy/accuracy"] > 0.85
