"""Methods that learn from images: what they do besides what they do with vectors."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch

from rlfd import algorithms
from rlfd.algorithms.base import ActionSpec, DemoTensors, Problem
from rlfd.algorithms.core import networks
from rlfd.algorithms.core.frames import FrameMemory, FrameStacks
from rlfd.errors import RlfdError

CPU = torch.device("cpu")


def run(algorithm, world, iterations):
    return [algorithm.iteration(world) for _ in range(iterations)]


# -- Q learners ---------------------------------------------------------------------------------


def test_what_is_updated_on_are_bytes(make_algorithm, noise_world, image_shape, monkeypatch):
    dqn = make_algorithm("dqn", shape=image_shape, learning_starts=0, batch_size=5)
    seen = []
    step = dqn.learner.engine.step
    monkeypatch.setattr(dqn.learner.engine, "step", lambda b: seen.append(b) or step(b))
    run(dqn, noise_world(shape=image_shape), 9)
    assert isinstance(dqn.learner.replay._seen, FrameMemory)
    for batch in seen:
        for name in ("observations", "next_observations"):
            assert batch[name].shape == (5, *image_shape)
            assert batch[name].dtype == torch.uint8
    assert len(seen) == 6  # a quarter of 27 steps


def test_memory_of_images_is_no_longer_than_the_budget(make_algorithm, image_shape):
    """There would never be more in it, and an evaluation that builds one needs none."""
    for steps, rows in ((100, 34), (0, 1), (10**9, 16_666)):
        dqn = make_algorithm("dqn", shape=image_shape, env_steps=steps, buffer_size=50_000)
        assert dqn.learner.replay.rows == rows
    assert make_algorithm("dqn", env_steps=100, buffer_size=500).learner.replay.rows == 166


def test_a_memory_that_does_not_fit_names_the_setting(make_algorithm):
    problem = Problem(
        observation_shape=(4, 84, 84),
        action=ActionSpec("discrete", (6,)),
        demonstrations=None,
        env_steps=5_000_000,
        num_envs=8,
        seed=0,
        device=CPU,
        frame_stack=4,
        memory_bytes=10**9,
    )
    cls = algorithms.get("soft-q")
    with pytest.raises(
        RlfdError, match=r"1,000,000 transitions needs 7\.08 GB, 1\.00 GB"
    ) as caught:
        cls(problem, cls.Config(buffer_size=1_000_000))
    assert caught.value.hint.startswith("lower it with --set buffer_size=140000, or ")
    cls(problem, cls.Config(buffer_size=140_000))


@pytest.mark.parametrize("name", ["dqn", "soft-q"])
def test_bfloat16_is_close_to_float32(make_algorithm, image_shape, name):
    """Values within a hundredth of their size, the gradient within a thirtieth of its norm.

    bfloat16 has 8 significant bits: each product is rounded by up to 1/256.
    """
    plain, low = (
        make_algorithm(name, shape=image_shape, precision=precision, hidden=(64,))
        for precision in ("float32", "bfloat16")
    )
    generator = torch.Generator().manual_seed(0)
    batch = {
        "observations": torch.randint(0, 256, (33, *image_shape), generator=generator).byte(),
        "next_observations": torch.randint(0, 256, (33, *image_shape), generator=generator).byte(),
        "actions": torch.randint(7, (33,), generator=generator),
        "rewards": torch.randn(33, generator=generator),
        "discounts": torch.full((33,), 0.99),
    }
    found = []
    for algorithm in (plain, low):
        engine = algorithm.learner.engine
        values = algorithm.learner.values(engine.parameters, batch["observations"])
        gradients, (loss, _) = torch.func.grad_and_value(algorithm._loss, has_aux=True)(
            engine.parameters, engine.target_parameters, batch
        )
        gradient = torch.cat([value.flatten() for value in gradients.values()])
        assert values.dtype == gradient.dtype == loss.dtype == torch.float32
        found.append((values, gradient))
    (values, gradient), (low_values, low_gradient) = found
    assert not torch.equal(values, low_values)
    assert (values - low_values).norm() < 0.01 * values.norm()
    assert (gradient - low_gradient).norm() < 0.03 * gradient.norm()


def test_absorbing_states_of_sqil_need_vectors(make_algorithm, image_shape):
    with pytest.raises(RlfdError, match="absorbing=indicator marks vectors") as caught:
        make_algorithm("sqil", shape=image_shape, absorbing="indicator")
    assert caught.value.hint == "use --set absorbing=value"


# -- cloning ------------------------------------------------------------------------------------


def test_demonstrated_frames_are_never_unfolded_as_a_whole(
    make_algorithm, make_demos, image_shape, monkeypatch
):
    """Minibatches and pieces of the held-out episodes are gathered from shared frames."""
    monkeypatch.setattr(networks, "IMAGES_AT_ONCE", 4)
    sizes = []
    gather = FrameStacks._gather

    def counted(self, first):
        sizes.append(len(first))
        return gather(self, first)

    monkeypatch.setattr(FrameStacks, "_gather", counted)
    demos = make_demos((9, 7, 6, 11), shape=image_shape)
    bc = make_algorithm("bc", shape=image_shape, demos=demos, batch_size=5, max_epochs=3)
    run(bc, None, 2)
    assert isinstance(bc.passes.train["observations"], FrameStacks)
    assert bc.passes.train["observations"].frames is demos.observations.frames
    assert max(sizes) == 5
    assert bc.updates >= 6


def test_held_out_images_are_judged_the_same_in_pieces(make_algorithm, image_shape, monkeypatch):
    bc = make_algorithm("bc", shape=image_shape)
    whole = bc.validate()
    monkeypatch.setattr(networks, "IMAGES_AT_ONCE", 2)
    torch.testing.assert_close(bc.validate(), whole)


def test_a_clone_learns_what_is_in_the_picture(make_algorithm, image_shape, caplog):
    """The action is where the newest frame is bright; a permutation of rows would not do."""
    caplog.set_level(logging.ERROR)
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(3, (60,), generator=generator)
    images = torch.randint(0, 60, (60, *image_shape), generator=generator).byte()
    for image, action in zip(images, actions, strict=True):
        image[-1, :, 15 * action : 15 * action + 15] += 150
    demos = DemoTensors(images, actions, torch.arange(6).repeat_interleave(10))
    bc = make_algorithm(
        "bc", shape=image_shape, action=3, demos=demos, batch_size=10, learning_rate=3e-3
    )
    run(bc, None, 6)
    assert (bc.act(images.numpy(), greedy=True) == actions.numpy()).mean() > 0.9


# -- policy gradients ---------------------------------------------------------------------------


@pytest.fixture
def ppo(make_algorithm, image_shape):
    return make_algorithm("ppo", shape=image_shape, batch_steps=21, minibatch_size=7, epochs=2)


def test_policy_and_value_share_all_layers_but_the_last(ppo, image_shape):
    modules = ppo.learner.networks
    names = {name for name, _ in modules.named_parameters() if name.startswith("value.")}
    assert names == {"value.body.0.weight", "value.body.0.bias"}
    seen = torch.zeros(2, *image_shape, dtype=torch.uint8)
    outputs, values = modules(seen)
    assert torch.equal(outputs, ppo.learner.actor.network(seen))
    assert torch.equal(values, torch.zeros(2))  # as all first values


def test_rollouts_keep_bytes_and_values_after_them_are_those_of_the_next_row(
    ppo, noise_world, image_shape
):
    learner = ppo.learner
    run(ppo, noise_world(shape=image_shape), 3)  # so that values are not 0
    rollout = learner.collect(noise_world(shape=image_shape))
    assert rollout.observations.dtype == rollout.next_observations.dtype == torch.uint8
    assert rollout.ended.sum() > 2
    values = learner.networks.values
    estimated = estimate_of(learner, rollout)
    expected = estimate_of(
        learner, dataclasses.replace(rollout, observations=rollout.observations.float()), values
    )
    torch.testing.assert_close(estimated.advantages, expected.advantages)
    assert estimated.advantages.abs().max() > 0.1


def estimate_of(learner, rollout, values=None):
    """Estimate as it is done, or, from observations that are no bytes, with all next values."""
    from rlfd.algorithms.core.on_policy import estimate

    return estimate(
        (lambda seen: learner.networks.values(seen.byte())) if values else learner.networks.values,
        rollout,
        rollout.rewards,
        gamma=0.9,
        gae_lambda=0.8,
    )


def test_values_come_in_pieces(ppo, noise_world, image_shape, monkeypatch):
    learner = ppo.learner
    run(ppo, noise_world(shape=image_shape), 2)
    rollout = learner.collect(noise_world(shape=image_shape))
    whole = learner.networks.values(rollout.observations)
    monkeypatch.setattr(networks, "IMAGES_AT_ONCE", 4)
    torch.testing.assert_close(learner.networks.values(rollout.observations), whole)


def test_acting_takes_bytes_as_they_are(make_algorithm, image_shape):
    """Bytes that were made floats would be taken for numbers 255 times as large."""
    for name in ("dqn", "bc", "ppo"):
        algorithm = make_algorithm(name, shape=image_shape)
        network = getattr(algorithm, "network", None)
        network = network or getattr(algorithm.learner, "network", None)
        network = network or algorithm.learner.actor.network
        seen = np.random.default_rng(0).integers(0, 256, (9, *image_shape), dtype=np.uint8)
        expected = network(torch.from_numpy(seen)).argmax(1)
        assert algorithm.act(seen, greedy=True).tolist() == expected.tolist()
