"""Trust regions: Fisher products against Hessians, conjugate gradients, line searches."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, hessian

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.distributions import make_distribution
from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.trust_region import TrustRegion, conjugate_gradient

B = 13
SPECS = {
    "discrete": ActionSpec("discrete", (7,)),
    "continuous": ActionSpec("continuous", (3,), (-1.0, 0.0, -4.0), (1.0, 10.0, -2.0)),
    "multi_discrete": ActionSpec("multi_discrete", (2, 5)),
    "multi_binary": ActionSpec("multi_binary", (3,)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_region(kind="continuous", *, hidden=(4,), damping=0.0, fisher_every=1, iterations=99):
    distribution = make_distribution(SPECS[kind])
    network = PolicyNetwork(
        (5,),
        distribution.num_outputs,
        hidden=hidden,
        activation="tanh",
        last_gain=1.0,
        log_std_start=-0.3,
        generator=seeded(),
        device=torch.device("cpu"),
    )
    network.mean.fill_(0.5)
    network.std.fill_(2.0)
    with torch.no_grad():
        network.log_std.add_(0.1 * torch.arange(len(network.log_std)))
    return TrustRegion(
        network,
        distribution,
        cg_iterations=iterations,
        damping=damping,
        fisher_every=fisher_every,
        generator=seeded(4),
    )


def make_batch(region):
    observations = torch.randn(B, 5, generator=seeded(1))
    with torch.no_grad():
        outputs = region.network(observations)
        log_std = region.network.log_std
        actions = region.distribution.sample(outputs, log_std, seeded(2))
    return observations, actions, torch.randn(B, generator=seeded(3))


def mean_kl(region, observations):
    """Return θ -> mean KL(π_now ‖ π_θ), straight from the network."""
    now = region.network(observations).detach(), region.network.log_std.detach().clone()

    def kl(theta):
        parameters = region.views(theta)
        outputs = functional_call(region.network, parameters, (observations,))
        return region.distribution.kl(*now, outputs, parameters["log_std"]).mean()

    return kl


@pytest.fixture(autouse=True)
def _double(float64):
    """Compare numbers in double precision."""


# -- conjugate gradients --------------------------------------------------------------------------


def positive_matrix(size=17, seed=0):
    root = torch.randn(size, size, generator=seeded(seed))
    return root @ root.T + 0.1 * torch.eye(size)


def test_conjugate_gradients_equal_a_direct_solution():
    matrix, b = positive_matrix(), torch.randn(17, generator=seeded(1))
    x, sound = conjugate_gradient(lambda v: matrix @ v, b, 99)
    assert sound
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-7, atol=1e-8)
    assert (matrix @ x - b).norm() < 1e-6


def test_conjugate_gradients_stop_when_done_or_when_told():
    calls = []

    def identity(v):
        calls.append(v)
        return 2.0 * v

    b = torch.randn(17, generator=seeded(1))
    x, sound = conjugate_gradient(identity, b, 99)
    assert sound
    torch.testing.assert_close(x, b / 2.0)
    assert len(calls) == 1
    x, sound = conjugate_gradient(identity, torch.zeros(17), 99)
    assert sound
    assert torch.equal(x, torch.zeros(17))
    assert len(calls) == 1
    matrix, products = positive_matrix(), []

    def product(v):
        products.append(v)
        return matrix @ v

    errors = []
    for iterations in (1, 5, 9):
        products.clear()
        x, _ = conjugate_gradient(product, b, iterations)
        assert len(products) == iterations
        errors.append((x - torch.linalg.solve(matrix, b)).norm().item())
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("bad", ["indefinite", "nan", "infinite"])
def test_conjugate_gradients_say_when_a_product_is_bad(bad):
    matrix = {
        "indefinite": -positive_matrix(),
        "nan": torch.full((17, 17), torch.nan),
        "infinite": torch.full((17, 17), torch.inf),
    }[bad]
    b = torch.ones(17)
    x, sound = conjugate_gradient(lambda v: matrix @ v, b, 9)
    assert not sound
    assert torch.equal(x, torch.zeros(17))


# -- the local model ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_fisher_products_are_those_of_the_hessian(kind):
    region = make_region(kind)
    observations, actions, _ = make_batch(region)
    local = region.at(observations, actions)
    expected = hessian(mean_kl(region, observations))(local.theta)
    size = len(local.theta)
    found = torch.stack([local.fisher_product(e) for e in torch.eye(size)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-12)
    assert torch.linalg.eigvalsh(found).min() > -1e-12


def test_fisher_products_have_damping_and_use_one_state_in_so_many():
    plain, other = make_region(), make_region(damping=0.3, fisher_every=5)
    observations, actions, _ = make_batch(plain)
    v = torch.randn(len(plain.read()), generator=seeded(9))
    local = other.at(observations, actions)
    found = local.fisher_product(v)
    other.generator.manual_seed(4)
    rows = other.draw(B)
    assert len(rows) == 3
    expected = plain.at(observations[rows], actions[rows]).fisher_product(v) + 0.3 * v
    torch.testing.assert_close(found, expected)
    assert torch.equal(local.fisher_product(v), found)  # of the same rows


@pytest.mark.parametrize("num_envs", [1, 3, 5, 15])
def test_the_fisher_matrix_sees_every_environment(num_envs):
    """Rows are (T, N), flattened: every 15th would be of one environment."""
    region = make_region(hidden=(), fisher_every=15)
    network = region.network
    network.mean.zero_()
    network.std.fill_(1.0)
    which = torch.arange(num_envs).repeat(60 * 15 // num_envs)  # the environment of each row
    observations = which[:, None] * torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    local = region.at(observations, torch.zeros(len(which), 3))
    seen = region.draw(len(which))
    assert set(which[seen].tolist()) == set(range(num_envs))
    # the matrix itself: of the weights of what tells environments apart it is E[x²] / σ²
    region.generator.manual_seed(4)
    weight = region.views(torch.arange(len(local.theta)))["body.0.weight"][0, 0]
    product = local.fisher_product(torch.eye(len(local.theta))[weight])[weight]
    expected = which[seen].double().square().mean() * (-2.0 * network.log_std[0]).exp()
    torch.testing.assert_close(product, expected.detach())


def test_fisher_products_of_drawn_states_are_unbiased():
    region, whole = make_region(fisher_every=5), make_region()
    observations, actions, _ = make_batch(region)
    v = torch.randn(len(region.read()), generator=seeded(9))
    expected = whole.at(observations, actions).fisher_product(v)
    draws = torch.stack([region.at(observations, actions).fisher_product(v) for _ in range(2_000)])
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - expected).abs() <= 5.0 * error + 1e-12).all()


def test_fisher_matrix_of_a_linear_gaussian_is_known():
    """Bias: Σ⁻¹. Weights: Σ⁻¹ ⊗ E[x xᵀ]. Log-std: 2 I."""
    region = make_region(hidden=())
    observations, actions, _ = make_batch(region)
    local = region.at(observations, actions)
    found = torch.stack([local.fisher_product(e) for e in torch.eye(len(local.theta))])
    parts = region.views(torch.arange(len(local.theta)))
    precision = torch.diag((-2.0 * region.network.log_std).exp())
    bias, weight = parts["body.0.bias"], parts["body.0.weight"].reshape(-1)
    torch.testing.assert_close(found[bias][:, bias], precision)
    torch.testing.assert_close(found[parts["log_std"]][:, parts["log_std"]], 2.0 * torch.eye(3))
    inputs = region.network.standardise(observations)
    second = inputs.T @ inputs / B
    torch.testing.assert_close(found[weight][:, weight], torch.kron(precision, second))
    assert found[parts["log_std"]][:, weight].abs().max() < 1e-14


@pytest.mark.parametrize("kind", SPECS)
def test_gradient_is_that_of_the_surrogate_by_finite_differences(kind):
    region = make_region(kind)
    observations, actions, advantages = make_batch(region)
    local = region.at(observations, actions)
    for weight in (0.0, 0.7):
        found, step = local.gradient(advantages, weight), 1e-6

        def objective(theta, weight=weight):
            return local.surrogate(theta, advantages) + weight * local.entropy(theta)

        for i in range(0, len(found), 3):
            unit = torch.zeros_like(found)
            unit[i] = step
            slope = (objective(local.theta + unit) - objective(local.theta - unit)) / (2 * step)
            assert found[i].item() == pytest.approx(slope.item(), abs=1e-7)
    assert local.surrogate(local.theta, advantages) == 0.0
    assert local.kl(local.theta).abs() < 1e-15


def test_surrogate_and_kl_are_means_under_the_network_itself():
    region = make_region()
    observations, actions, advantages = make_batch(region)
    local, distribution = region.at(observations, actions), region.distribution
    before = distribution.log_prob(
        region.network(observations), region.network.log_std, actions
    ).detach()
    theta = local.theta + 0.1 * torch.randn(len(local.theta), generator=seeded(5))
    kl = mean_kl(region, observations)(theta)
    region.write(theta)
    after = distribution.log_prob(region.network(observations), region.network.log_std, actions)
    expected = ((after - before).exp() * advantages).mean() - advantages.mean()
    torch.testing.assert_close(local.surrogate(theta, advantages), expected.detach())
    torch.testing.assert_close(local.kl(theta), kl.detach())
    torch.testing.assert_close(region.read(), theta)


def test_a_step_scaled_to_the_radius_has_that_quadratic_divergence():
    region = make_region(damping=0.01)
    observations, actions, advantages = make_batch(region)
    local = region.at(observations, actions)
    direction = local.solve(local.gradient(advantages))
    step = local.to_radius(direction, 0.02)
    assert 0.5 * step.dot(local.fisher_product(step)).item() == pytest.approx(0.02)
    torch.testing.assert_close(step / step.norm(), direction / direction.norm())
    assert torch.equal(local.to_radius(torch.zeros_like(step), 0.02), torch.zeros_like(step))


def test_small_steps_follow_the_natural_gradient_and_their_divergence_is_the_radius():
    damping = 0.05  # 13 states do not determine 36 parameters
    region = make_region(damping=damping)
    observations, actions, advantages = make_batch(region)
    local = region.at(observations, actions)
    gradient = local.gradient(advantages)
    matrix = torch.stack([local.fisher_product(e) for e in torch.eye(len(gradient))])
    natural = torch.linalg.solve(matrix, gradient)
    torch.testing.assert_close(local.solve(gradient), natural, rtol=1e-6, atol=1e-8)
    for delta in (1e-4, 1e-6, 1e-8):
        step = local.to_radius(natural, delta)
        theta = local.theta + step
        # an optimal step of the linear model gains √(2 δ gᵀ H⁻¹ g)
        predicted = math.sqrt(2.0 * delta * gradient.dot(natural).item())
        near = 30.0 * math.sqrt(delta)
        assert local.surrogate(theta, advantages).item() == pytest.approx(predicted, rel=near)
        # damping takes its share of the radius, so the divergence is somewhat below it
        undamped = delta - 0.5 * damping * step.dot(step).item()
        assert local.kl(theta).item() == pytest.approx(undamped, rel=near)


def test_line_search_takes_the_first_that_will_do_and_writes_it():
    region = make_region()
    observations, actions, _ = make_batch(region)
    local = region.at(observations, actions)
    step, seen = torch.ones_like(local.theta), []

    def third(theta):
        seen.append(theta)
        return len(seen) == 3

    result = local.line_search(step, third, shrink=0.5, tries=9)
    assert (result.accepted, result.tries, result.fraction) == (True, 3, 0.25)
    torch.testing.assert_close(region.read(), local.theta + 0.25 * step)
    assert torch.equal(result.theta, seen[-1])


@pytest.mark.parametrize("value", [1.0, torch.nan, torch.inf])
def test_a_failed_line_search_leaves_the_parameters_untouched(value):
    region = make_region()
    observations, actions, _ = make_batch(region)
    local, tried = region.at(observations, actions), []
    step = torch.ones_like(local.theta)
    step[3] = value
    finite = math.isfinite(value)

    def refuse(theta):
        tried.append(theta)
        return False

    result = local.line_search(step, refuse, shrink=0.8, tries=5)
    assert (result.accepted, result.fraction) == (False, 0.0)
    assert len(tried) == result.tries == (5 if finite else 0)
    assert local.problems == (0 if finite else 1)
    assert torch.equal(region.read(), local.theta)
    assert torch.equal(result.theta, local.theta)


def test_bad_systems_are_counted_and_give_no_step():
    region = make_region(damping=-1e3)  # makes H indefinite
    observations, actions, advantages = make_batch(region)
    local = region.at(observations, actions)
    solution = local.solve(local.gradient(advantages))
    assert local.problems == 1
    assert torch.equal(solution, torch.zeros_like(solution))
    assert torch.equal(local.to_radius(torch.ones_like(solution), 0.1), torch.zeros_like(solution))


def test_reading_writing_and_views_agree_with_the_network():
    region = make_region()
    theta = region.read()
    views = region.views(theta)
    assert list(views) == [name for name, _ in region.network.named_parameters()]
    for name, value in region.network.named_parameters():
        assert torch.equal(views[name], value)
    region.write(2.0 * theta)
    assert torch.equal(region.read(), 2.0 * theta)
