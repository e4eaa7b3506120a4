"""Memories against naive references: order, n-step returns, priorities, demonstrations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from rlfd.algorithms.core.replay import BlockSumPriorities, DemoStore, ReplayBuffer

CPU = torch.device("cpu")
NUM_ENVS, GAMMA = 3, 0.9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_buffer(rows=11, *, path=True, **options):
    return ReplayBuffer(
        rows * NUM_ENVS + 1,  # what does not fill a row is not used
        num_envs=NUM_ENVS,
        observation_shape=(2,),
        gamma=GAMMA,
        device=CPU,
        path=path,
        **options,
    )


class Recorder:
    """Feeds random episodes into a buffer and keeps its own list of them for each environment.

    The observation (time, environment) tells which transition a sample is.
    """

    def __init__(self, buffer, seed=0):
        self.buffer, self.rng, self.time = buffer, np.random.default_rng(seed), 0
        self.history = [[] for _ in range(NUM_ENVS)]

    def add(self, count):
        for _ in range(count):
            end = self.rng.choice(3, NUM_ENVS, p=[0.7, 0.15, 0.15])
            step = SimpleNamespace(
                observations=self.observations(self.time),
                actions=self.rng.integers(7, size=NUM_ENVS),
                # the true last observation of an episode is nobody's first one
                next_observations=self.observations(self.time + np.where(end > 0, 0.5, 1.0)),
                terminated=end == 1,
                truncated=end == 2,
            )
            rewards = self.rng.normal(size=NUM_ENVS)
            self.buffer.add(step, torch.from_numpy(rewards))
            for env in range(NUM_ENVS):
                row = {name: value[env] for name, value in vars(step).items()}
                self.history[env].append(row | {"reward": rewards[env]})
            self.time += 1

    @staticmethod
    def observations(time):
        times = np.broadcast_to(time, NUM_ENVS)
        return np.stack([times, np.arange(NUM_ENVS)], axis=1).astype(np.float32)

    def reference(self, time, env, n_step):
        """Sum rewards up to n steps, to the episode's end or to the newest transition."""
        total, path = 0.0, []
        for length in range(n_step):
            row = self.history[env][time + length]
            total += GAMMA**length * row["reward"]
            ended = row["terminated"] or row["truncated"]
            if ended or length == n_step - 1 or time + length + 1 == self.time:
                break
            path.append((GAMMA ** (length + 1), row["next_observations"]))
        discount = 0.0 if row["terminated"] else GAMMA ** (length + 1)
        return total, discount, row["next_observations"], path


@pytest.mark.parametrize("n_step", [1, 2, 5])
@pytest.mark.parametrize("steps", [2, 7, 11, 12, 37])
def test_samples_equal_the_naive_reference(n_step, steps):
    """Before, at and after the ring is full, over terminals, time limits and the ring's seam."""
    buffer = make_buffer(n_step=n_step)
    recorder = Recorder(buffer, seed=steps)
    recorder.add(steps)
    assert len(buffer) == min(steps, 11) * NUM_ENVS
    (batch,) = buffer.sample(1, 999, seeded())
    seen = set()
    for i in range(999):
        time, env = map(int, batch["observations"][i])
        seen.add((time, env))
        total, discount, following, path = recorder.reference(time, env, n_step)
        assert batch["actions"][i] == recorder.history[env][time]["actions"]
        assert batch["rewards"][i].item() == pytest.approx(total, abs=1e-5)
        assert batch["discounts"][i].item() == pytest.approx(discount)
        assert batch["next_observations"][i].tolist() == following.tolist()
        if n_step > 1:
            discounts = batch["path_discounts"][i]
            expected = [factor for factor, _ in path] + [0.0] * (n_step - 1 - len(path))
            assert discounts.tolist() == pytest.approx(expected)
            for got, (_, state) in zip(batch["path_observations"][i], path, strict=False):
                assert got.tolist() == state.tolist()
    # the newest rows, all of them, and nothing else
    times = range(max(0, steps - 11), steps)
    assert seen == {(time, env) for time in times for env in range(NUM_ENVS)}


def test_states_on_the_way_are_not_looked_up_where_nobody_reads_them(monkeypatch):
    """Of stacked frames they are most of the work."""
    plain, with_path = make_buffer(n_step=3, path=False), make_buffer(n_step=3)
    for buffer in (plain, with_path):
        Recorder(buffer).add(11)
    monkeypatch.setattr(plain._seen, "after", None)
    (batch,), (more,) = (buffer.sample(1, 99, seeded()) for buffer in (plain, with_path))
    assert more.keys() - batch.keys() == {"path_observations", "path_discounts"}
    assert all(torch.equal(value, more[name]) for name, value in batch.items())


def test_minibatches_are_slices_of_one_draw():
    buffer = make_buffer()
    Recorder(buffer).add(11)
    split, (whole,) = buffer.sample(3, 5, seeded()), buffer.sample(1, 15, seeded())
    assert len(split) == 3
    for name, value in whole.items():
        assert torch.equal(torch.cat([batch[name] for batch in split]), value)


def test_draws_are_made_where_their_generator_is(monkeypatch):
    """A memory on a GPU takes draws of a generator on the CPU; `meta` stands for the GPU here."""
    buffer = ReplayBuffer(
        33, num_envs=3, observation_shape=(2,), gamma=GAMMA, device=torch.device("meta")
    )
    Recorder(buffer).add(11)
    randint = torch.randint

    def strict(*args, generator, device):
        assert torch.device(device) == generator.device  # torch insists, but for `meta`
        return randint(*args, generator=generator, device=device)

    monkeypatch.setattr(torch, "randint", strict)
    (batch,) = buffer.sample(1, 5, seeded())
    assert batch["observations"].shape == (5, 2)
    assert all(value.device.type == "meta" for value in batch.values())


def test_samples_are_uniform():
    buffer = make_buffer()
    Recorder(buffer).add(20)
    (batch,) = buffer.sample(1, 20_000, seeded())
    _, counts = batch["observations"].unique(dim=0, return_counts=True)
    assert len(counts) == 33
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_state_round_trip_gives_identical_samples():
    for options in ({"n_step": 3}, {"prioritised": 0.6}):
        buffer, restored = make_buffer(**options), make_buffer(**options)
        recorder = Recorder(buffer)
        recorder.add(15)
        Recorder(restored, seed=1).add(9)
        if "prioritised" in options:
            buffer.set_priorities(torch.arange(9), 3.0 * torch.arange(9.0))
        restored.load_state_dict(buffer.state_dict())
        copy = Recorder(restored, seed=2)
        recorder.rng, recorder.time = np.random.default_rng(2), 0
        for one in (recorder, copy):  # both go on from the same row
            one.add(4)
        if "prioritised" in options:
            first, second = (b.sample_prioritised(99, 0.4, seeded()) for b in (buffer, restored))
        else:
            (first,), (second,) = (b.sample(1, 99, seeded()) for b in (buffer, restored))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_restored_memory_knows_no_ends_of_its_own_past():
    short, used = make_buffer(ages=True), make_buffer(ages=True)
    recorder = Recorder(short)
    recorder.add(5)
    Recorder(used, seed=1).add(11)
    expected = [row["terminated"] for rows in zip(*recorder.history, strict=True) for row in rows]
    assert len(used.ends()[0]) > sum(expected) > 0
    used.load_state_dict(short.state_dict())
    for one in (used, short):
        slots, lengths = one.ends()
        assert slots.tolist() == np.flatnonzero(expected).tolist()
        assert torch.equal(lengths, short.ends()[1])
    used.load_state_dict(make_buffer(ages=True).state_dict())
    Recorder(used, seed=2).add(1)
    assert (used._memory["ages"][0] == 1).all()


def test_episodes_are_as_old_as_their_steps_also_where_the_ring_begins_anew():
    buffer = make_buffer(ages=True)
    recorder = Recorder(buffer)
    ages, expected = np.zeros(3, int), {}
    for time in range(2 * buffer.rows + 3):
        recorder.add(1)
        ages += 1
        rows = [column[-1] for column in recorder.history]
        for column, row in enumerate(rows):
            slot = time % buffer.rows * 3 + column
            expected.pop(slot, None)
            if row["terminated"]:
                expected[slot] = ages[column]
        ages[[row["terminated"] or row["truncated"] for row in rows]] = 0
    slots, lengths = buffer.ends()
    assert dict(zip(slots.tolist(), lengths.tolist(), strict=True)) == expected
    assert max(expected.values()) > 2


def test_priorities_are_drawn_in_proportion():
    buffer = make_buffer(prioritised=0.6, priority_epsilon=0.1)
    Recorder(buffer).add(11)
    errors = torch.linspace(-4, 4, 33)
    buffer.set_priorities(torch.arange(33), errors)
    batch = buffer.sample_prioritised(20_000, 0.4, seeded())
    priorities = (errors.double().abs() + 0.1) ** 0.6
    expected = (20_000 * priorities / priorities.sum()).numpy()
    counts = torch.bincount(batch["slots"], minlength=33).numpy()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_importance_weights_by_hand():
    # α = 1 and ε = 0 (nearly): probabilities 1/8, 5/8, 2/8 of the first three slots, 0 elsewhere
    buffer = make_buffer(rows=1, prioritised=1.0, priority_epsilon=1e-12)
    Recorder(buffer).add(1)
    buffer.set_priorities(torch.arange(3), torch.tensor([1.0, -5.0, 2.0]))
    batch = buffer.sample_prioritised(99, 0.5, seeded())
    raw = (3 * torch.tensor([1.0, 5.0, 2.0]) / 8) ** -0.5
    expected = (raw / raw[0])[batch["slots"]]
    assert set(batch["slots"].tolist()) == {0, 1, 2}
    torch.testing.assert_close(batch["weights"], expected)
    # with β = 1 weighted draws are as good as uniform ones
    batch = buffer.sample_prioritised(20_000, 1.0, seeded())
    mass = [batch["weights"][batch["slots"] == slot].sum().item() for slot in range(3)]
    assert mass == pytest.approx([sum(mass) / 3] * 3, rel=0.05)


def test_new_transitions_get_the_largest_priority_so_far():
    buffer = make_buffer(rows=3, prioritised=1.0)
    recorder = Recorder(buffer)
    recorder.add(3)
    buffer.set_priorities(torch.arange(9), torch.full((9,), 1e-3))
    buffer.set_priorities(torch.tensor([5]), torch.tensor([50.0]))
    recorder.add(1)  # over the oldest row, slots 0 to 2
    slots = buffer.sample_prioritised(9_999, 0.4, seeded())["slots"]
    counts = torch.bincount(slots, minlength=9)
    assert counts[[0, 1, 2, 5]].sum() > 9_900
    assert stats.chisquare(counts[[0, 1, 2, 5]].numpy()).pvalue > 1e-3


def test_uniform_buffers_refuse_priorities():
    buffer = make_buffer()
    Recorder(buffer).add(1)
    with pytest.raises(ValueError, match="not built for prioritised"):
        buffer.sample_prioritised(5, 0.4, seeded())
    with pytest.raises(ValueError, match="not built for prioritised"):
        buffer.set_priorities(torch.arange(1), torch.ones(1))


def test_block_sums_equal_a_naive_search():
    """Over several blocks, with zeros that must never be drawn."""
    size = 1_301
    numbers = torch.rand(size, dtype=torch.float64, generator=seeded(1)) ** 3
    numbers[torch.rand(size, generator=seeded(2)) < 0.4] = 0.0
    numbers[512:1024] = 0.0  # a whole block
    priorities = BlockSumPriorities(size, CPU)
    priorities.set(torch.arange(size), torch.ones(size, dtype=torch.float64))
    priorities.set(torch.arange(size), numbers)
    assert torch.equal(priorities.values, numbers)
    indices, probabilities = priorities.sample(30_000, seeded(3))
    torch.testing.assert_close(probabilities, numbers[indices] / numbers.sum())
    assert (probabilities > 0).all()
    draws = torch.rand(30_000, dtype=torch.float64, generator=seeded(3)) * numbers.sum()
    naive = np.searchsorted(np.cumsum(numbers.numpy()), draws.numpy(), side="right")
    assert (indices.numpy() == naive).mean() > 0.999  # sums are rounded in another order


def test_demonstrations_come_with_discounts_and_starts(make_demos):
    demos = make_demos((3, 9, 5), terminated=[True, False, True])
    store = DemoStore(demos, gamma=GAMMA, device=CPU)
    assert (len(store), store.num_episodes) == (17, 3)
    (batch,) = store.sample(1, 999, seeded())
    rows = (batch["observations"][:, None] == demos.observations).all(dim=2).nonzero()[:, 1]
    assert set(rows.tolist()) == set(range(17))
    for name in ("actions", "next_observations", "terminated"):
        assert torch.equal(batch[name], getattr(demos, name)[rows])
    # rows 2 and 16 end in terminal states; row 11 was cut by a time limit and bootstraps
    expected = torch.full((17,), GAMMA)
    expected[[2, 16]] = 0.0
    torch.testing.assert_close(batch["discounts"], expected[rows])
    starts = store.sample_starts(99, seeded()).unique(dim=0)
    assert torch.equal(starts, demos.observations[[0, 3, 12]].unique(dim=0))
