"""Collecting experience, and advantages against explicit sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.core.rollout import collect, gae

CPU = torch.device("cpu")
T, N = 13, 3
GAMMA, LAMBDA = 0.9, 0.7


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorder:
    """Acts with the number of its calls, and remembers something else."""

    def __init__(self):
        self.seen = []

    def __call__(self, observations):
        self.seen.append(observations.copy())
        chosen = np.arange(len(observations)) + len(self.seen)
        return chosen + 0.5, chosen


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (9, 3), (10, 4)])
def test_collect_acts_in_every_environment_until_there_is_enough(noise_world, steps, rows):
    world, act = noise_world(), Recorder()
    rollout = collect(world, act, steps, CPU)
    assert world.env_steps == rollout.num_steps == rows * N
    assert rollout.observations.shape == (rows, N, 5)
    np.testing.assert_array_equal(rollout.observations.numpy(), np.stack(act.seen))
    np.testing.assert_array_equal(np.stack(world.actions), rollout.actions.numpy() - 0.5)
    assert rollout.actions.dtype == torch.float64
    for values in (rollout.observations, rollout.rewards, rollout.next_observations):
        assert values.dtype == torch.float32


def test_collect_keeps_true_last_observations_and_both_ends(noise_world):
    """NoiseWorld's environment i ends every 3 + i steps, terminated first, then cut."""
    rollout = collect(noise_world(reward=2.5), Recorder(), 11 * N, CPU)
    ends = torch.zeros(11, N, dtype=torch.bool)
    terminated = torch.zeros(11, N, dtype=torch.bool)
    for i in range(N):
        ends[2 + i :: 3 + i, i] = True
        terminated[2 + i :: 2 * (3 + i), i] = True
    assert torch.equal(rollout.ended, ends)
    assert torch.equal(rollout.terminated, terminated)
    assert (rollout.rewards == 2.5).all()
    following = rollout.observations[1:]
    same = (rollout.next_observations[:-1] == following).all(dim=2)
    assert torch.equal(same, ~ends[:-1])  # at an end the next row begins another episode


def test_two_collections_continue_each_other(noise_world):
    world, whole = noise_world(), collect(noise_world(), Recorder(), 8 * N, CPU)
    parts = [collect(world, Recorder(), n * N, CPU) for n in (5, 3)]
    for name in ("observations", "next_observations", "ended"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name))


@pytest.fixture
def path(float64):
    """Return rewards, values, next values and both ends of T steps of N environments."""
    rewards, values, next_values = torch.randn(3, T, N, generator=seeded()).unbind()
    ended = torch.rand(T, N, generator=seeded(1)) < 0.3
    terminated = ended & (torch.rand(T, N, generator=seeded(2)) < 0.5)
    assert terminated.any()
    assert (ended & ~terminated).any()
    return rewards, values, next_values, terminated, ended


def explicit(path, gamma, gae_lambda, terminal_values=None):
    """Σ_l (γλ)^l δ_{t+l} up to the episode's end, term by term."""
    rewards, values, next_values, terminated, ended = (part.tolist() for part in path)
    result = torch.zeros(T, N)
    for i in range(N):
        for t in range(T):
            for later in range(t, T):
                after = next_values[later][i]
                if terminated[later][i]:
                    after = 0.0 if terminal_values is None else terminal_values[later, i].item()
                delta = rewards[later][i] + gamma * after - values[later][i]
                result[t, i] += (gamma * gae_lambda) ** (later - t) * delta
                if ended[later][i]:
                    break
    return result


@pytest.mark.parametrize("gae_lambda", [0.0, LAMBDA, 1.0])
def test_gae_equals_the_explicit_sum(path, gae_lambda):
    advantages = gae(*path, gamma=GAMMA, gae_lambda=gae_lambda)
    torch.testing.assert_close(advantages, explicit(path, GAMMA, gae_lambda))
    after = torch.randn(T, N, generator=seeded(3))
    advantages = gae(*path, gamma=GAMMA, gae_lambda=gae_lambda, terminal_values=after)
    torch.testing.assert_close(advantages, explicit(path, GAMMA, gae_lambda, after))


def test_lambda_0_is_the_temporal_difference_and_1_the_return_minus_the_value(path):
    rewards, values, next_values, terminated, ended = path
    differences = rewards + GAMMA * torch.where(terminated, 0.0, next_values) - values
    torch.testing.assert_close(gae(*path, gamma=GAMMA, gae_lambda=0.0), differences)
    returns = torch.zeros(T, N)
    for i in range(N):
        for t in reversed(range(T)):
            if terminated[t, i]:
                returns[t, i] = rewards[t, i]
            elif ended[t, i] or t == T - 1:  # cut, or running on after the rollout
                returns[t, i] = rewards[t, i] + GAMMA * next_values[t, i]
            else:
                returns[t, i] = rewards[t, i] + GAMMA * returns[t + 1, i]
    # λ = 1 telescopes where V(s_{t+1}) is the next row's V
    chained = next_values.clone()
    inside = ~ended[:-1]
    chained[:-1][inside] = values[1:][inside]
    advantages = gae(rewards, values, chained, terminated, ended, gamma=GAMMA, gae_lambda=1.0)
    torch.testing.assert_close(advantages + values, returns)


def test_terminated_steps_ignore_what_follows_and_truncated_ones_do_not(path):
    rewards, values, next_values, terminated, ended = path

    def advantages(changed):
        return gae(rewards, values, changed, terminated, ended, gamma=GAMMA, gae_lambda=LAMBDA)

    base, cut = advantages(next_values), ended & ~terminated
    assert torch.equal(advantages(torch.where(terminated, 1e9, next_values)), base)
    change = advantages(torch.where(cut, next_values + 1.0, next_values)) - base
    torch.testing.assert_close(change[cut], torch.full((int(cut.sum()),), GAMMA))
