"""The update engine against a plain loop of torch.optim.Adam, its target rules and its state."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call

from rlfd.algorithms.core import engine as engine_module
from rlfd.algorithms.core.engine import COMPILE_FROM_UPDATES, TargetRule, UpdateEngine
from rlfd.algorithms.core.optimisers import Adam, Momentum, RMSProp


def network():
    """Return a small network with odd sizes and a buffer."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    module.register_buffer("statistics", torch.arange(3.0))
    return module


def squared_errors(module):
    """Return a loss: squared errors from the labels, drawn towards the target network's outputs."""

    def loss(parameters, target, batch):
        outputs = functional_call(module, parameters, (batch["x"],))
        pull = (outputs - functional_call(module, target, (batch["x"],))).square().mean()
        errors = (outputs - batch["y"]).square().mean(dim=1)
        value = errors.mean() + 0.1 * pull
        return value, {"loss": value, "pull": pull, "errors": errors}

    return loss


def batches(count, size=9):
    generator = torch.Generator().manual_seed(7)
    return [
        {
            "x": torch.randn(size, 5, generator=generator),
            "y": 3.0 * torch.randn(size, 3, generator=generator),
        }
        for _ in range(count)
    ]


def make_engine(adam=None, **options):
    module = network()
    return UpdateEngine(
        module, squared_errors(module), adam or Adam(0.01), **{"compile": "off"} | options
    ), module


def snapshot(parameters):
    return {name: value.clone() for name, value in parameters.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RMSProp(0.003), lambda p: torch.optim.RMSprop(p, lr=0.003, alpha=0.99, eps=1e-5)),
        (Momentum(0.01), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    ],
    ids=["rmsprop", "momentum"],
)
def test_other_optimisers_step_as_torch_does(float64, ours, theirs, compile):
    engine, _ = make_engine(ours, compile=compile)
    reference = network()
    optimiser, loss = theirs(reference.parameters()), squared_errors(reference)
    for batch in batches(11):
        parameters = dict(reference.named_parameters())
        optimiser.zero_grad()
        loss(parameters, parameters, batch)[0].backward()
        optimiser.step()
        engine.step(batch)
    for name, value in reference.named_parameters():
        torch.testing.assert_close(engine.parameters[name], value.detach())


def test_steps_equal_torch_adam_with_clipping_and_a_falling_rate(float64):
    planned, clip = 20, 2.5
    adam = Adam(0.02, final_fraction=0.1, planned_updates=planned, max_grad_norm=clip, epsilon=1e-5)
    engine, _ = make_engine(adam)
    reference = network()
    optimiser = torch.optim.Adam(reference.parameters(), lr=0.02, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda count: 1.0 - 0.9 * min(count / planned, 1.0)
    )
    loss, norms = squared_errors(reference), []
    for batch in batches(27):
        parameters = dict(reference.named_parameters())
        optimiser.zero_grad()
        value, _ = loss(parameters, parameters, batch)
        value.backward()
        norms.append(nn.utils.clip_grad_norm_(reference.parameters(), clip).item())
        optimiser.step()
        schedule.step()
        engine.step(batch)
        for name, value in engine.parameters.items():
            torch.testing.assert_close(value, parameters[name].detach(), rtol=1e-11, atol=1e-13)
    assert min(norms) < clip < max(norms)  # both branches of the clipping were taken
    assert engine.count == 27
    assert engine.drain()["optim/grad_norm"].item() == pytest.approx(sum(norms) / 27)


def test_polyak_target_is_a_moving_average(float64):
    engine, _ = make_engine(target=TargetRule(polyak_tau=0.2))
    expected = snapshot(engine.parameters)
    for batch in batches(5):
        engine.step(batch)
        for name, value in engine.parameters.items():
            expected[name] = 0.8 * expected[name] + 0.2 * value
            torch.testing.assert_close(engine.target_parameters[name], expected[name])


def test_copied_target_follows_every_so_many_updates():
    engine, _ = make_engine(target=TargetRule(copy_every=3))
    held = snapshot(engine.parameters)
    for count, batch in enumerate(batches(7), start=1):
        engine.step(batch)
        if count % 3 == 0:
            held = snapshot(engine.parameters)
        assert_equal(engine.target_parameters, held)
        if count % 3:
            assert not torch.equal(engine.parameters["0.weight"], held["0.weight"])


def test_without_a_rule_the_loss_gets_the_online_parameters():
    engine, _ = make_engine(target=None)
    for batch in batches(3):
        engine.step(batch)
        assert_equal(engine.target_parameters, engine.parameters)
    assert engine.drain()["pull"] == 0.0


def test_no_gradient_flows_through_the_target():
    module = network()

    def loss(parameters, target, batch):
        value = functional_call(module, target, (batch["x"],)).square().mean()
        return value + 0.0 * parameters["0.weight"].sum(), {}

    for rule in (None, TargetRule(0.5)):
        engine = UpdateEngine(module, loss, Adam(0.01), target=rule, compile="off")
        before = snapshot(engine.parameters)
        engine.step(batches(1)[0])
        assert_equal(engine.parameters, before)
        assert_equal(engine.target_parameters, before)
        assert engine.drain()["optim/grad_norm"] == 0.0


def test_drain_returns_means_since_the_last_call_and_steps_return_rows():
    engine, _ = make_engine(target=TargetRule(0.5))
    assert engine.drain() == {}
    values = {"loss": [], "pull": []}
    for batch in batches(5):
        _, outputs = squared_errors(network())(engine.parameters, engine.target_parameters, batch)
        for name, seen in values.items():
            seen.append(outputs[name].item())
        assert_equal(engine.step(batch), {"errors": outputs["errors"]})
    metrics = engine.drain()
    assert list(metrics) == ["loss", "pull", "optim/grad_norm"]
    for name, seen in values.items():
        assert metrics[name].item() == pytest.approx(sum(seen) / 5)
    assert engine.drain() == {}
    _, outputs = squared_errors(network())(engine.parameters, engine.target_parameters, batch)
    engine.step(batch)
    assert engine.drain()["loss"].item() == pytest.approx(outputs["loss"].item())


def test_parameters_are_aligned_views_that_the_module_acts_with():
    engine, module = make_engine()
    start = engine.parameters["0.weight"].data_ptr()
    for name, value in engine.parameters.items():
        assert (value.data_ptr() - start) % 64 == 0
        assert value.data_ptr() == module.get_parameter(name).data_ptr()
    batch = batches(1)[0]
    before = module(batch["x"])
    engine.step(batch)
    assert not torch.equal(module(batch["x"]), before)
    torch.testing.assert_close(
        module(batch["x"]), functional_call(module, engine.parameters, (batch["x"],))
    )


def test_frozen_means_frozen():
    """Autograd cannot reach the module's parameters, and buffers are no parameters."""
    engine, module = make_engine(target=TargetRule(0.5))
    for batch in batches(3):
        engine.step(batch)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(value.requires_grad for value in engine.target_parameters.values())
    assert "statistics" not in engine.parameters
    assert torch.equal(module.statistics, torch.arange(3.0))


def test_state_round_trip_gives_identical_steps():
    first, second, third = batches(9)[:3], batches(9)[3:6], batches(9)[6:]
    adam = Adam(0.01, final_fraction=0.0, planned_updates=9, max_grad_norm=1.0)
    engine, _ = make_engine(adam, target=TargetRule(0.1))
    for batch in first:
        engine.step(batch)
    engine.drain()
    file = io.BytesIO()
    torch.save(engine.state_dict(), file)
    file.seek(0)
    restored, module = make_engine(adam, target=TargetRule(0.1))
    for batch in third:  # a past of its own, which the state replaces
        restored.step(batch)
    restored.drain()
    restored.load_state_dict(torch.load(file, weights_only=True))
    for batch in second:
        assert_equal(engine.step(batch), restored.step(batch))
    assert_equal(engine.parameters, restored.parameters)
    assert_equal(engine.target_parameters, restored.target_parameters)
    assert_equal(engine.drain(), restored.drain())
    assert module[0].weight.data_ptr() == restored.parameters["0.weight"].data_ptr()


def test_parameters_of_another_network_are_refused():
    engine, _ = make_engine()
    other = snapshot(engine.parameters)
    other["3.weight"] = other.pop("2.weight")
    with pytest.raises(ValueError, match=r"2\.weight, 3\.weight"):
        engine.load_parameters(other)


@pytest.mark.parametrize(
    ("compile", "planned", "compiled"),
    [
        ("auto", COMPILE_FROM_UPDATES - 1, False),
        ("auto", COMPILE_FROM_UPDATES, True),
        ("on", 1, True),
        ("off", COMPILE_FROM_UPDATES, False),
    ],
)
def test_auto_compiles_long_runs_only(monkeypatch, compile, planned, compiled):
    calls = []

    def compile_nothing(function, **options):
        calls.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    engine, _ = make_engine(Adam(0.01, planned_updates=planned), compile=compile)
    for batch in batches(3):
        engine.step(batch)
    assert len(calls) == compiled


def late(monkeypatch, **options):
    """Return an engine that compiles from its sixth update on, since fewer were planned."""
    monkeypatch.setattr(engine_module, "COMPILE_FROM_UPDATES", 5)
    adam = Adam(0.02, final_fraction=0.1, planned_updates=4, max_grad_norm=1.0)
    return make_engine(adam, compile="auto", target=TargetRule(0.3), **options)[0]


def cut_off(monkeypatch, at):
    """Return the state after eleven updates, `at` of which another engine took."""
    first, second = late(monkeypatch), late(monkeypatch)
    for batch in batches(11)[:at]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches(11)[at:]:
        second.step(batch)
    return second.state_dict()


def test_updates_that_nobody_planned_are_compiled_in_the_end(monkeypatch):
    """Which ones depends on their number alone, wherever a run was cut off."""
    compiled = []

    def compile_nothing(function, **options):
        return lambda *arguments: compiled.append(1) or function(*arguments)

    def numbers(engine, part):
        """Take steps; return the numbers of those that were compiled."""
        found = []
        for batch in part:
            compiled.clear()
            engine.step(batch)
            found += [engine.count] * len(compiled)
        return found

    monkeypatch.setattr(torch, "compile", compile_nothing)
    engine = late(monkeypatch)
    begin = engine.state_dict()
    assert numbers(engine, batches(9)) == [6, 7, 8, 9]
    after = snapshot(engine.parameters)
    for at in (0, 3, 5, 8):
        engine.load_state_dict(begin)  # from the beginning: the first ones are not compiled
        before = numbers(engine, batches(9)[:at])
        restored = late(monkeypatch)
        restored.load_state_dict(engine.state_dict())
        assert before + numbers(restored, batches(9)[at:]) == [6, 7, 8, 9]
        assert_equal(restored.parameters, after)
    never, _ = make_engine(Adam(0.02, planned_updates=4), compile="off")
    assert numbers(never, batches(9)) == []


@pytest.mark.slow
def test_going_on_compiled_equals_going_on_eagerly_and_an_interruption_changes_no_bit(monkeypatch):
    whole, eager = late(monkeypatch), late(monkeypatch)
    eager._compile_from = 99
    for batch in batches(11):
        outputs, expected = whole.step(batch), eager.step(batch)
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert whole._compile  # it did not fall back
    torch.testing.assert_close(whole.parameters, eager.parameters, rtol=1e-4, atol=1e-5)
    for at in (3, 5, 8):
        state = cut_off(monkeypatch, at)
        assert state["count"] == 11
        for part in ("parameters", "target", "first_moment", "second_moment"):
            assert_equal(state[part], whole.state_dict()[part])


def compiler_that_raises(error, *, from_call=1):
    """Return a stand-in for torch.compile whose result fails from a certain call on."""

    def fake(function, **options):
        calls = []

        def call(*arguments):
            calls.append(1)
            if len(calls) >= from_call:
                raise error
            return function(*arguments)

        return call

    return fake


def test_without_a_compiler_updates_go_on_eagerly_with_a_warning(monkeypatch):
    problem = torch._inductor.exc.CppCompileError(["c++"], "no such program")
    monkeypatch.setattr(torch, "compile", compiler_that_raises(problem))
    engine, _ = make_engine(compile="on", target=TargetRule(0.5))
    eager, _ = make_engine(target=TargetRule(0.5))
    first, *others = batches(3)
    with pytest.warns(UserWarning, match=r"cannot compile updates \(CppCompileError\)"):
        outputs = engine.step(first)
    assert_equal(outputs, eager.step(first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        for batch in others:
            assert_equal(engine.step(batch), eager.step(batch))
    assert_equal(engine.parameters, eager.parameters)
    assert_equal(engine.drain(), eager.drain())
    assert engine.count == 3


@pytest.mark.parametrize(
    ("error", "from_call"),
    [(ArithmeticError("in the loss"), 1), (torch._inductor.exc.CppCompileError(["c++"], ""), 2)],
    ids=["not of the compiler", "after the first call"],
)
def test_other_errors_are_not_taken_for_a_missing_compiler(monkeypatch, error, from_call):
    monkeypatch.setattr(torch, "compile", compiler_that_raises(error, from_call=from_call))
    engine, _ = make_engine(compile="on")
    for batch in batches(from_call - 1):
        engine.step(batch)
    with pytest.raises(type(error)):
        engine.step(batches(1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("rule", [None, TargetRule(0.2), TargetRule(copy_every=3)])
def test_compiled_steps_equal_eager_ones(rule):
    adam = Adam(0.01, final_fraction=0.1, planned_updates=8, max_grad_norm=1.0)
    engine, _ = make_engine(adam, target=rule, compile="on")
    eager, _ = make_engine(adam, target=rule)
    for batch in batches(11):
        outputs, expected = engine.step(batch), eager.step(batch)
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    for of in (lambda e: e.parameters, lambda e: e.target_parameters, UpdateEngine.drain):
        torch.testing.assert_close(of(engine), of(eager), rtol=1e-4, atol=1e-5)
    assert engine.count == eager.count == 11


# -- two losses, one set of moments ---------------------------------------------------------------


def pulled_to_zero(module):
    def loss(parameters, _, batch):
        value = functional_call(module, parameters, (batch["z"],)).square().mean()
        return value, {"pulled": value}

    return loss


@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(0.02, 0.1, 9, 0.3), lambda p: torch.optim.Adam(p, lr=0.02)),
        (RMSProp(0.02, 0.1, 9, 0.3), lambda p: torch.optim.RMSprop(p, lr=0.02, eps=1e-5)),
    ],
    ids=["adam", "rmsprop"],
)
def test_siblings_step_as_one_optimiser_with_two_losses(float64, ours, theirs, compile):
    """And the schedule follows the owner's steps alone."""
    engine, module = make_engine(ours, compile=compile)
    sibling = engine.sibling(pulled_to_zero(module), norm_name="other")
    reference = network()
    optimiser = theirs(reference.parameters())
    losses = {engine: squared_errors(reference), sibling: pulled_to_zero(reference)}
    own, norms = 0, []
    for turn, batch in enumerate(batches(17)):
        one = engine if turn % 3 == 1 else sibling
        batch = batch if one is engine else {"z": batch["x"][:7]}
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1.0 - 0.9 * min(own / 9, 1.0))
        parameters = dict(reference.named_parameters())
        optimiser.zero_grad()
        losses[one](parameters, parameters, batch)[0].backward()
        norm = nn.utils.clip_grad_norm_(reference.parameters(), 0.3)
        norms += [norm.item()] if one is sibling else []
        optimiser.step()
        one.step(batch)
        own += one is engine
        for name, value in reference.named_parameters():
            torch.testing.assert_close(engine.parameters[name], value.detach())
    assert (engine.count, sibling.count) == (6, 11)
    assert set(engine.drain()) == {"loss", "pull", "optim/grad_norm"}
    found = sibling.drain()
    assert set(found) == {"pulled", "other"}
    assert found["other"].item() == pytest.approx(sum(norms) / 11)


def test_siblings_go_on_from_both_states(float64):
    def begin():
        engine, module = make_engine(Adam(0.02, 0.1, 9))
        return engine, engine.sibling(pulled_to_zero(module), norm_name="other")

    def go_on(engine, sibling, seed):
        for batch in batches(5 + seed)[seed:]:
            engine.step(batch)
            for _ in range(2):
                sibling.step({"z": batch["x"]})

    first, again = begin(), begin()
    go_on(*first, 0)
    states = [engine.state_dict() for engine in first]
    assert set(states[1]) == {"count"}
    go_on(*again, 3)
    for engine, state in zip(again, states, strict=True):
        engine.load_state_dict(state)
    go_on(*first, 2)
    go_on(*again, 2)
    assert_equal(first[0].parameters, again[0].parameters)
    assert [engine.count for engine in first] == [engine.count for engine in again] == [10, 20]


def test_eager_gradients_are_those_of_the_transformation_bit_for_bit():
    module = network()
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    loss, batch = squared_errors(module), batches(1)[0]
    engine = UpdateEngine(module, loss, Momentum(1.0), compile="off")
    before = snapshot(engine.parameters)
    (expected, _) = torch.func.grad_and_value(loss, has_aux=True)(before, before, batch)
    engine.step(batch)
    assert expected["0.weight"].any()
    assert_equal(
        snapshot(engine.parameters), {name: before[name] - expected[name] for name in before}
    )
