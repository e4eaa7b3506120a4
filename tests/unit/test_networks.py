"""Networks: shapes, initial weights, and the dueling decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlfd.algorithms.core.networks import (
    PolicyNetwork,
    QNetwork,
    ValueNetwork,
    convolutions,
    convolved_size,
    mlp,
)
from rlfd.algorithms.core.normaliser import RunningNormaliser
from rlfd.algorithms.core.offline import fit_statistics

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def q_network(**options):
    options = {
        "hidden": (11,),
        "layer_norm": True,
        "generator": generator(),
        "device": CPU,
    } | options
    return QNetwork((3, 5), 7, **options)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_hidden_layers_are_linear_norm_relu_and_the_last_is_linear_alone(layer_norm):
    layers = mlp([5, 11, 9, 7], layer_norm=layer_norm, generator=generator(), device=CPU)
    hidden = [nn.Linear, nn.LayerNorm, nn.ReLU] if layer_norm else [nn.Linear, nn.ReLU]
    assert [type(layer) for layer in layers] == [*hidden, *hidden, nn.Linear]
    widths = [
        (layer.in_features, layer.out_features) for layer in layers if type(layer) is nn.Linear
    ]
    assert widths == [(5, 11), (11, 9), (9, 7)]


def test_initial_weights_fill_plus_minus_one_over_the_root_of_the_inputs():
    linear = mlp([100, 300], layer_norm=False, generator=generator(), device=CPU)[0]
    for parameter in (linear.weight, linear.bias):
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.099
        # the standard deviation of a uniform variable is its half width over √3
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)


def test_hidden_layers_may_be_followed_by_tanh():
    layers = mlp([5, 11, 7], layer_norm=True, activation="tanh", generator=generator(), device=CPU)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Linear]


def test_orthogonal_weights_have_their_gains_and_no_biases(float64):
    layers = mlp([5, 11, 7, 3], layer_norm=False, last_gain=0.01, generator=generator(), device=CPU)
    linears = [layer for layer in layers if type(layer) is nn.Linear]
    for linear, gain in zip(linears, (2**0.5, 2**0.5, 0.01), strict=True):
        assert linear.bias.abs().max() == 0.0
        weight = linear.weight if linear.in_features > linear.out_features else linear.weight.T
        torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(len(weight)))


def policy_network(shape=(3, 5), **options):
    options = {"hidden": (11,), "generator": generator(), "device": CPU} | options
    return PolicyNetwork(shape, 7, **options)


def test_policies_standardise_observations_and_clip_them():
    network = policy_network(observation_clip=2.0)
    network.mean.copy_(torch.arange(15.0))
    network.std.fill_(4.0)
    observations = torch.arange(15.0).view(1, 3, 5) + torch.tensor([0.0, 4.0, -4.0, 99.0, -99.0])
    expected = torch.tensor([[0.0, 1.0, -1.0, 2.0, -2.0] * 3])
    assert torch.equal(network.standardise(observations), expected)
    assert torch.equal(network(observations), network.body(expected))
    unclipped = policy_network()
    assert unclipped.standardise(observations).max() == 3.0 + 99.0 + 10.0


def test_policies_of_the_same_sizes_can_be_exchanged():
    first, second = policy_network(), policy_network(generator=generator(1), log_std_start=-1.0)
    assert set(first.state_dict()) == {
        "log_std", "mean", "std", "clip",
        "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias",
    }  # fmt: skip
    assert (second.log_std == -1.0).all()
    first.clip.fill_(0.5)
    second.load_state_dict(first.state_dict())
    observations = torch.randn(9, 3, 5, generator=generator())
    assert torch.equal(first(observations), second(observations))
    # from before the clip was saved
    older = {name: value for name, value in first.state_dict().items() if name != "clip"}
    third = policy_network(observation_clip=0.25)
    third.load_state_dict(older)
    assert third.clip == 0.25


def test_values_are_one_number_per_row_and_zero_at_first():
    network = ValueNetwork(15, hidden=(11,), activation="tanh", generator=generator(), device=CPU)
    values = network(torch.randn(9, 15, generator=generator()))
    assert torch.equal(values, torch.zeros(9))
    assert network.body[0].weight.abs().max() > 0.1


def test_initial_weights_come_from_the_given_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (
        mlp([5, 11, 7], layer_norm=True, generator=generator(seed), device=CPU).state_dict()
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_q_network_flattens_observations():
    observations = torch.randn(9, 3, 5, generator=generator())
    network = q_network()
    assert network(observations).shape == (9, 7)
    torch.testing.assert_close(network(observations), network(observations.flatten(1)))


def test_dueling_advantages_have_mean_zero(float64):
    network = q_network(dueling=True)
    observations = torch.randn(9, 3, 5, generator=generator())
    outputs, q_values = network.body(observations.flatten(1)), network(observations)
    assert outputs.shape == (9, 1 + 7)
    value, advantages = outputs[:, 0], q_values - outputs[:, :1]
    torch.testing.assert_close(advantages.mean(dim=1), torch.zeros(9), rtol=0, atol=1e-12)
    torch.testing.assert_close(q_values.mean(dim=1), value)
    # differences between actions are those of the advantage head
    torch.testing.assert_close(
        q_values[:, 1:] - q_values[:, :-1], outputs[:, 2:] - outputs[:, 1:-1]
    )


def test_without_hidden_layers_one_hot_observations_make_a_table():
    network = QNetwork((5,), 7, hidden=(), layer_norm=True, generator=generator(), device=CPU)
    linear = network.body[0]
    torch.testing.assert_close(network(torch.eye(5)), linear.weight.T + linear.bias)


# -- images -------------------------------------------------------------------------------------

IMAGE = (2, 37, 45)


def images(count=9, shape=IMAGE):
    return torch.randint(0, 256, (count, *shape), generator=generator()).byte()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((4, 84, 84), 64 * 7 * 7),
        (IMAGE, 64 * 1 * 2),  # 37, 45 -> 8, 10 -> 3, 4 -> 1, 2
        ((4, 36, 36), 64),
        ((4, 35, 84), 0),
        ((96, 96, 3), 0),  # channels last
        ((84, 84), 0),
        ((128,), 0),
    ],
)
def test_what_the_convolutions_make_of_an_image(shape, size):
    assert convolved_size(shape) == size


def test_images_go_through_the_layers_of_the_nature_network():
    network = QNetwork(
        (4, 84, 84), 6, hidden=(512,), images=True, layer_norm=False,
        generator=generator(), device=CPU,
    )  # fmt: skip
    shapes = [tuple(p.shape) for name, p in network.named_parameters() if name.endswith("weight")]
    assert shapes == [
        (32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (6, 512),
    ]  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 1_687_206
    strides = [layer.stride for layer in network.body if isinstance(layer, nn.Conv2d)]
    assert strides == [(4, 4), (2, 2), (1, 1)]
    # what Mnih et al. print, by hand from functional parts
    x = images(3, (4, 84, 84)) / 255.0
    w = dict(network.named_parameters())
    for index, stride in ((1, 4), (3, 2), (5, 1)):
        x = nn.functional.conv2d(x, w[f"body.{index}.weight"], w[f"body.{index}.bias"], stride)
        x = x.relu()
    x = (x.flatten(1) @ w["body.8.weight"].T + w["body.8.bias"]).relu()
    expected = x @ w["body.10.weight"].T + w["body.10.bias"]
    torch.testing.assert_close(network(images(3, (4, 84, 84))), expected)


def test_patches_make_what_the_convolution_makes(float64):
    layers = convolutions(IMAGE, orthogonal=False, generator=generator(), device=CPU)
    for index in (1, 3, 5):  # each kernel and stride
        layer, seen = layers[index], layers[:index](images()).requires_grad_()
        leaves = [seen, layer.weight, layer.bias]
        made = []
        for outputs in (layer.by_patches(seen), nn.functional.conv2d(*leaves, layer.stride)):
            made.append([outputs, *torch.autograd.grad(outputs.sin().sum(), leaves)])
        torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("orthogonal", [False, True])
def test_initial_convolutions(orthogonal, float64):
    layers = convolutions(IMAGE, orthogonal=orthogonal, generator=generator(), device=CPU)
    found = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer, inputs in zip(found, (2 * 64, 32 * 16, 64 * 9), strict=True):
        matrix = layer.weight.flatten(1)
        if orthogonal:
            assert layer.bias.abs().max() == 0.0
            torch.testing.assert_close(matrix @ matrix.T, 2.0 * torch.eye(len(matrix)))
        else:
            bound = inputs**-0.5
            assert bound * 0.98 < matrix.abs().max() <= bound
            assert layer.bias.abs().max() <= bound
    assert layers(images()).shape == (9, 128)
    assert layers(images()).dtype == torch.float64


def test_policies_of_images_have_no_statistics():
    network = PolicyNetwork(
        IMAGE, 7, hidden=(11,), images=True, layer_norm=True, activation="tanh",
        generator=generator(), device=CPU,
    )  # fmt: skip
    seen = images()
    assert network.standardise(seen) is seen
    assert network.mean.numel() == network.std.numel() == 0
    assert network(seen).shape == (9, 7)
    kinds = [type(layer) for layer in network.body][-4:]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Linear]
    features = network.features(seen)
    assert features.shape == (9, network.num_features) == (9, 11)
    assert torch.equal(network.body[-1](features), network(seen))
    fit_statistics(network, seen)
    normaliser = RunningNormaliser(network)
    normaliser.update(seen)
    assert network.standardise(seen) is seen


def test_dueling_values_of_images_have_advantages_of_mean_zero(float64):
    network = QNetwork(
        IMAGE, 7, hidden=(11,), images=True, layer_norm=True, dueling=True,
        generator=generator(), device=CPU,
    )  # fmt: skip
    values = network.body(images())[:, 0]
    torch.testing.assert_close(network(images()).mean(dim=1), values)
