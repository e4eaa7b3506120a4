"""PSQ: the identities behind its gradients, its gate, and when demonstrations are looked at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rlfd.algorithms.core import soft
from rlfd.algorithms.core.q_learner import select
from rlfd.algorithms.psq import gate, policy_loss, value_loss

TAU = 0.7
EAGER = {"learning_starts": 9, "updates_per_env_step": 1 / 3, "batch_size": 9}


def draw(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def actions(seed=1):
    return torch.randint(5, (11,), generator=torch.Generator().manual_seed(seed))


def log_policy(q, chosen, tau=TAU):
    return select(soft.boltzmann_log_probs(q, tau), chosen)


def advantage(q, chosen, tau=TAU):
    """A as eq 7 defines it, with nothing held constant."""
    log_probs = soft.boltzmann_log_probs(q, tau)
    expected = (log_probs.exp() * q).sum(-1)
    return select(q, chosen) - expected - tau * soft.boltzmann_entropy(q, tau)


def gradient(function, at):
    return torch.func.grad(function)(at)


def assert_close(first, second):
    torch.testing.assert_close(first, second, rtol=0.0, atol=1e-9)


def test_the_advantage_is_the_log_policy_times_temperature():
    q, chosen = draw(11, 5), actions()
    assert_close(advantage(q, chosen), TAU * log_policy(q, chosen))
    policy = soft.boltzmann_log_probs(q, TAU).exp()
    value = (policy * q).sum(-1) + TAU * soft.boltzmann_entropy(q, TAU)
    assert_close(value, soft.soft_value(q, TAU))
    assert (advantage(q, chosen) <= 0).all()


def test_undecoupled_the_gradient_is_that_of_cross_entropy():
    q, chosen = draw(11, 5), actions()
    found = gradient(lambda q: advantage(q, chosen).mean(), q)
    assert_close(found, gradient(lambda q: TAU * log_policy(q, chosen).mean(), q))
    assert found.abs().max() > 0.01


def test_an_evaluator_that_is_q_itself_moves_no_policy():
    q, own = draw(11, 5), draw(7, 5, seed=2)
    still = gradient(lambda q: policy_loss(q, q, own, TAU), q)
    assert_close(still, torch.zeros_like(q))
    moved = gradient(lambda q: policy_loss(q, draw(11, 5, seed=3), own, TAU), q)
    assert moved.abs().max() > 0.01


def test_the_policy_loss_pulls_towards_the_evaluators_policy():
    """∇L_π on demonstrated states is τ ∇KL(π ‖ softmax(Q̂ / τ))."""
    q, evaluator, own = draw(11, 5), draw(11, 5, seed=3), draw(7, 5, seed=2)
    goal = soft.boltzmann_log_probs(evaluator, TAU)

    def divergence(q):
        log_probs = soft.boltzmann_log_probs(q, TAU)
        return (log_probs.exp() * (log_probs - goal)).sum(-1).mean()

    found = gradient(lambda q: policy_loss(q, evaluator, own, TAU), q)
    assert_close(found, TAU * gradient(divergence, q))


def test_the_policy_loss_lowers_the_entropy_at_own_states_alone():
    demo, own = draw(11, 5), draw(7, 5, seed=2)
    found = gradient(lambda own: policy_loss(demo, demo, own, TAU), own)
    expected = gradient(lambda own: TAU * soft.boltzmann_entropy(own, TAU).mean(), own)
    assert_close(found, expected)
    assert found.abs().max() > 0.01


def test_the_policy_loss_by_hand():
    """Two actions, τ = 1: π = (2/3, 1/3) where demonstrated, (1/2, 1/2) at the own state."""
    demo, evaluator = torch.tensor([[np.log(2.0), 0.0]]), torch.tensor([[3.0, -6.0]])
    entropy = np.log(3) - 2 / 3 * np.log(2)
    expected = -(2 / 3 * 3 - 1 / 3 * 6) - entropy + np.log(2)
    found = policy_loss(demo, evaluator, torch.zeros(1, 2), 1.0)
    assert found.item() == pytest.approx(expected)


def test_the_value_losss_gradient_is_that_of_cloning():
    q, chosen = draw(11, 5), actions()
    found = gradient(lambda q: value_loss(q, chosen, TAU), q)
    assert_close(found, -TAU * gradient(lambda q: log_policy(q, chosen).mean(), q))


def test_the_decoupled_gradients_add_up_to_the_undecoupled_one():
    q, chosen, own = draw(11, 5), actions(), draw(7, 5, seed=2)
    of_policy = gradient(lambda q: policy_loss(q, q, own, TAU), q)  # Q held constant
    of_value = gradient(lambda q: value_loss(q, chosen, TAU), q)  # π held constant
    whole = gradient(lambda q: -advantage(q, chosen).mean(), q)
    assert_close(of_policy + of_value, whole)


def test_the_gate_opens_where_demonstrations_surprise_more_than_the_policy_itself():
    signs = set()
    for seed in range(40):
        q, own, chosen = draw(11, 5, seed=seed), draw(7, 5, seed=99 - seed), actions(seed)
        if seed % 2:  # mostly as the policy would have it
            chosen = torch.where(draw(11, seed=seed) < 2.0, q.argmax(1), chosen)
        cross_entropy = -log_policy(q, chosen).mean()
        entropy = soft.boltzmann_entropy(own, TAU).mean()
        is_open = bool(gate(q, chosen, own, TAU) < 0)
        assert is_open == bool(cross_entropy > entropy)
        signs.add(is_open)
    assert signs == {True, False}


def test_the_gate_by_hand():
    """τ = 1: log π(a*) = log 2/3, own entropy log 2, so α = log 4/3; lengths 3 and 2 weigh them."""
    demo, own, chosen = torch.tensor([[np.log(2.0), 0.0]]), torch.zeros(1, 2), torch.tensor([0])
    assert gate(demo, chosen, own, 1.0).item() == pytest.approx(np.log(4 / 3))
    lengths = torch.tensor([3.0, 2.0])
    weighed = gate(demo, chosen, own, 1.0, lengths=lengths).item()
    assert weighed == pytest.approx(3 * np.log(2 / 3) + 2 * np.log(2))


def losses(algorithm, q, **more):
    """Return the gradient of the whole loss, less that of soft Q-learning, and its outputs.

    The Q function is a table over one-hot observations; `q` are its values.
    """
    engine, eye = algorithm.learner.engine, torch.eye(3)
    for parameters in (engine.parameters, engine.target_parameters):
        parameters["body.0.weight"].copy_(torch.as_tensor(q).T)
        parameters["body.0.bias"].zero_()
    batch = {
        "observations": eye[[2, 2]],
        "actions": torch.tensor([1, 0]),
        "rewards": torch.zeros(2),
        "next_observations": eye[[2, 2]],
        "discounts": torch.zeros(2),
    }
    demo = {"demo/observations": eye[[0, 1]], "demo/actions": torch.tensor([0, 0])}

    def function(parts):
        return torch.func.grad_and_value(algorithm._loss, has_aux=True)(
            engine.parameters, engine.target_parameters, parts
        )

    plain, _ = function(batch)
    whole, (_, outputs) = function(batch | demo | {"demo/alpha": torch.zeros(1)} | more)
    return {name: whole[name] - plain[name] for name in whole}, outputs


@pytest.fixture
def make(float64, make_algorithm):
    def build(**options):
        return make_algorithm("psq", shape=(3,), action=2, hidden=(), **options)

    return build


UNLIKELY = [[0.0, 3.0], [0.0, 1.0], [9.0, 0.0]]  # demonstrated: the first action, in states 0 and 1
LIKELY = [[3.0, 0.0], [9.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("lambda_demo", [1.0, 2.5])
def test_cloning_while_the_gate_is_open_and_nothing_of_it_after(make, lambda_demo):
    """The online evaluator, so that demonstrated states feel the value part alone."""
    psq = make(temperature=0.7, evaluator="online", lambda_demo=lambda_demo)
    found, outputs = losses(psq, UNLIKELY)
    assert outputs["pretrain/alpha"] < 0
    assert outputs["pretrain/gate"] == 1
    assert outputs["loss/value"] == -outputs["pretrain/alpha"]
    p = torch.softmax(torch.tensor(UNLIKELY[:2]) / 0.7, dim=1)
    # the gradient of -τ E log π(a*) by Q(s*, ·) is (π - onehot) / 2
    expected = lambda_demo * (p - torch.tensor([[1.0, 0.0]])) / 2
    assert_close(found["body.0.weight"].T[:2], expected)

    found, outputs = losses(psq, LIKELY)
    assert outputs["pretrain/alpha"] > 0
    assert outputs["pretrain/gate"] == 0
    assert outputs["loss/value"] == 0
    assert_close(found["body.0.weight"].T[:2], torch.zeros(2, 2))


def test_a_gate_of_exactly_zero_is_shut(make):
    """Both states as undecided as the own one: α = τ (-log 2 + log 2) = 0."""
    found, outputs = losses(make(evaluator="online"), [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert outputs["pretrain/alpha"] == 0
    assert outputs["pretrain/gate"] == 0
    assert_close(found["body.0.weight"].T[:2], torch.zeros(2, 2))


def test_the_entropy_part_weighs_the_squared_temperature(make):
    table = [[0.0, 3.0], [0.0, 1.0], [0.4, 0.0]]
    found, _ = losses(make(temperature=0.7, evaluator="online", lambda_demo=2.0), table)
    own = torch.tensor(table[2:])
    entropy = gradient(lambda q: soft.boltzmann_entropy(q, 0.7).mean(), own)
    assert_close(found["body.0.weight"].T[2:], 2.0 * 0.7**2 * entropy)


def test_a_slow_gate_goes_by_the_running_mean(make):
    slow = make(evaluator="online", gate_rate=0.25)
    _, fast = losses(make(evaluator="online"), UNLIKELY, **{"demo/alpha": torch.tensor([9.0])})
    _, outputs = losses(slow, UNLIKELY, **{"demo/alpha": torch.tensor([9.0])})
    newest = outputs["pretrain/alpha"]
    assert fast["pretrain/gate"] == 1
    assert outputs["pretrain/gate"] == 0
    assert_close(outputs["alpha"][0], 0.75 * 9.0 + 0.25 * newest)


def test_theorem_1():
    """η(π*) - η(π) = E_π* Σ (A^π + τ h(π*)) in a random episodic process without discount."""
    rng = np.random.default_rng(0)
    states, num_actions, horizon = 5, 3, 4
    rewards = rng.normal(size=(states, num_actions))
    moves = rng.dirichlet(np.ones(states), size=(states, num_actions))
    logits = torch.from_numpy(rng.normal(size=(2, states, num_actions)))
    policy, better = torch.softmax(logits, dim=-1).numpy()

    def entropy(p):
        return -(p * np.log(p)).sum(-1)

    def evaluate(p):
        """Return V_t and A_t of each time, the entropy bonus included."""
        value, values, advantages = np.zeros(states), [], []
        for _ in range(horizon):
            q = rewards + moves @ value
            value = (p * q).sum(1) + TAU * entropy(p)
            values.append(value)
            advantages.append(q - value[:, None])
        return values[::-1], advantages[::-1]

    start = np.full(states, 1 / states)
    values, advantages = evaluate(policy)
    best, _ = evaluate(better)
    total, reached = 0.0, start
    for t in range(horizon):
        gain = (better * advantages[t]).sum(1) + TAU * entropy(better)
        total += reached @ gain
        reached = np.einsum("s,sa,sax->x", reached, better, moves)
    assert best[0] @ start - values[0] @ start == pytest.approx(total, abs=1e-12)


# -- the loop -----------------------------------------------------------------------------------


def run(algorithm, world, count):
    return [algorithm.iteration(world) for _ in range(count)]


@pytest.mark.parametrize("name", ["psq", "bc-soft-q"])
def test_without_weight_it_is_soft_q_learning_to_the_last_bit(make_algorithm, noise_world, name):
    plain = make_algorithm("soft-q", **EAGER)
    psq = make_algorithm(name, **EAGER, lambda_demo=0.0)
    expected, found = run(plain, noise_world(), 20), run(psq, noise_world(), 20)
    for first, second in zip(expected, found, strict=True):
        for key, value in first.items():
            assert torch.equal(second[key], value), key
    state = psq.policy_state()
    assert all(torch.equal(value, state[key]) for key, value in plain.policy_state().items())


@pytest.mark.parametrize("name", ["psq", "bc-soft-q"])
def test_demonstrations_are_drawn_in_the_first_steps_only(
    make_algorithm, noise_world, monkeypatch, name
):
    algorithm = make_algorithm(name, **EAGER, pretrain_env_steps=30)
    world, drawn = noise_world(), []
    demos = algorithm.pretraining.demos
    sample = demos.sample

    def noting(*args):
        drawn.append(world.env_steps)
        return sample(*args)

    monkeypatch.setattr(demos, "sample", noting)
    after = [metrics for metrics in run(algorithm, world, 20) if metrics][-3:]
    assert drawn == list(range(12, 31, 3))
    for metrics in after:
        assert metrics["policy/demo_likelihood"] == 0
        assert metrics["loss/td"] > 0


@pytest.mark.parametrize("name", ["psq", "bc-soft-q"])
def test_demonstrated_pairs_are_all_that_it_sees(make_algorithm, make_demos, noise_world, name):
    demos = make_demos()
    pairs = dataclasses.replace(demos, next_observations=None, rewards=None, terminated=None)
    after = []
    for given in (demos, pairs):
        algorithm = make_algorithm(name, **EAGER, demos=given)
        run(algorithm, noise_world(), 12)
        after.append(algorithm.policy_state())
    assert all(torch.equal(value, after[1][key]) for key, value in after[0].items())


def test_lengths_of_episodes_weigh_the_gate(make_algorithm, noise_world, monkeypatch):
    """Demonstrations of 3, 9 and 5 steps; environments end every 3, 4 and 5."""
    psq, world, seen = make_algorithm("psq", **EAGER, gate_scale="lengths"), noise_world(), []
    step = psq.learner.engine.step
    monkeypatch.setattr(
        psq.learner.engine, "step", lambda batch: seen.append(batch["demo/lengths"]) or step(batch)
    )
    run(psq, world, 12)
    # 36 env steps: 4, 3 and 2 whole episodes
    torch.testing.assert_close(seen[-1], torch.tensor([17 / 3, 36 / 9]))


def test_the_running_mean_is_restored_to_where_the_learner_is(make_algorithm, monkeypatch):
    """Checkpoints are read to the CPU; `meta` stands for a GPU here."""
    psq = make_algorithm("psq")
    state = psq.state_dict()
    monkeypatch.setattr(psq.learner, "device", torch.device("meta"))
    psq.load_state_dict(state)
    assert psq._alpha.device.type == "meta"


def cloning(algorithm, *, seed=0):
    """Return the baseline's gradient with demonstrations and without."""
    engine = algorithm.learner.engine
    batch = {
        "observations": draw(9, 5, seed=seed),
        "actions": actions(2)[:9],
        "rewards": draw(9, seed=4),
        "next_observations": draw(9, 5, seed=5),
        "discounts": torch.full((9,), 0.9),
    }
    pairs = {"demo/observations": draw(11, 5, seed=6), "demo/actions": actions()}

    def function(parts):
        return torch.func.grad(algorithm._loss, has_aux=True)(
            engine.parameters, engine.target_parameters, parts
        )[0]

    return function(batch | pairs), function(batch), pairs


@pytest.mark.parametrize("pure", [False, True])
def test_the_baseline_adds_cross_entropy_times_temperature(float64, make_algorithm, pure):
    algorithm = make_algorithm("bc-soft-q", temperature=TAU, lambda_demo=2.0, pure=pure)
    both, plain, pairs = cloning(algorithm)

    def cross_entropy(parameters):
        q = algorithm.learner.values(parameters, pairs["demo/observations"])
        return -log_policy(q, pairs["demo/actions"]).mean()

    expected = torch.func.grad(cross_entropy)(algorithm.learner.engine.parameters)
    for name, value in both.items():
        rest = value if pure else value - plain[name]
        assert_close(rest, 2.0 * TAU * expected[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("psq", {}),
        ("psq", {"evaluator": "online"}),
        ("bc-soft-q", {}),
        ("bc-soft-q", {"pure": True}),
    ],
)
def test_pretraining_learns_what_was_shown_where_no_reward_tells(
    make_algorithm, make_demos, noise_world, name, options
):
    demos = make_demos((5, 7))
    algorithm = make_algorithm(
        name,
        demos=demos,
        temperature=1.0,
        lambda_demo=3.0,
        learning_rate=0.01,
        hidden=(31,),
        gamma=0.5,
        **EAGER | {"updates_per_env_step": 1.0, "batch_size": 12},
        **options,
    )
    run(algorithm, noise_world(reward=0.0), 150)
    chosen = algorithm.act(demos.observations.numpy(), greedy=True)
    assert (chosen == demos.actions.numpy()).mean() > 0.9


def test_settings_are_refused_where_they_mean_nothing(make_algorithm):
    for bad in ({"gate_rate": 0.0}, {"lambda_demo": -1.0}, {"evaluator": "both"}):
        with pytest.raises(Exception, match=next(iter(bad))):
            make_algorithm("psq", **bad)


@pytest.mark.parametrize("evaluator", ["online", "target"])
def test_the_policy_part_is_led_by_the_evaluator_of_the_setting(float64, make_algorithm, evaluator):
    psq = make_algorithm(
        "psq", shape=(3,), action=2, hidden=(), temperature=TAU, evaluator=evaluator
    )
    online = [[9.0, 0.0], [7.0, 0.0], [0.0, 0.0]]  # the gate is shut: only L_π is left there
    target = [[1.0, 3.0], [0.0, 2.0], [0.0, 0.0]]
    engine, eye = psq.learner.engine, torch.eye(3)
    for parameters, values in ((engine.parameters, online), (engine.target_parameters, target)):
        parameters["body.0.weight"].copy_(torch.tensor(values).T)
        parameters["body.0.bias"].zero_()
    batch = {
        "observations": eye[[2]], "actions": torch.tensor([1]), "rewards": torch.zeros(1),
        "next_observations": eye[[2]], "discounts": torch.zeros(1),
        "demo/observations": eye[[0, 1]], "demo/actions": torch.tensor([0, 0]),
        "demo/alpha": torch.zeros(1),
    }  # fmt: skip
    slopes, (_, metrics) = torch.func.grad_and_value(psq._loss, has_aux=True)(
        engine.parameters, engine.target_parameters, batch
    )
    assert metrics["pretrain/gate"] == 0
    q, own = torch.tensor(online[:2]), torch.tensor(online[2:])
    q_hat = torch.tensor((online if evaluator == "online" else target)[:2])
    expected = TAU * torch.func.grad(lambda q: policy_loss(q, q_hat, own, TAU))(q)
    torch.testing.assert_close(slopes["body.0.weight"].T[:2], expected)
    assert (expected.abs().max() > 1e-6) == (evaluator == "target")
