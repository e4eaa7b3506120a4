"""Frames that are kept once: what is drawn is what a plain list of transitions would hold."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors
from rlfd.algorithms.core.frames import FrameMemory, FrameStacks
from rlfd.algorithms.core.replay import ReplayBuffer, replay_bytes
from rlfd.errors import RlfdError

CPU = torch.device("cpu")
GAMMA = 0.9
N, STACK, SIDES = 3, 4, (2, 5)
SHAPE = (STACK, *SIDES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_buffer(rows=11, **options):
    options = {"frame_stack": STACK, "observation_shape": SHAPE, "path": True} | options
    return ReplayBuffer(rows * N + 2, num_envs=N, gamma=GAMMA, device=CPU, **options)


class ListedTransitions:
    """Plays episodes of random lengths, fills a buffer, and keeps every transition as it was."""

    def __init__(self, buffer, *, shape=SHAPE, channels=1, ends=0.3, plays_on=0.0, seed=0):
        self.buffer, self.rng = buffer, np.random.default_rng(seed)
        self.shape, self.channels, self.ends, self.plays_on = shape, channels, ends, plays_on
        self.history = []
        self.observations = np.stack([self.first() for _ in range(N)])

    def frame(self):
        return self.rng.integers(0, 256, (self.channels, *self.shape[1:]), dtype=np.uint8)

    def first(self):
        return np.tile(self.frame(), (self.shape[0] // self.channels, 1, 1))

    def add(self, steps):
        for _ in range(steps):
            draw = self.rng.random(N)
            terminated, truncated = draw < self.ends / 2, draw > 1 - self.ends / 2
            following = np.stack(
                [np.concatenate([o[self.channels :], self.frame()]) for o in self.observations]
            )
            step = SimpleNamespace(
                observations=self.observations,
                actions=self.rng.integers(7, size=N),
                next_observations=following,
                terminated=terminated,
                truncated=truncated,
            )
            rewards = self.rng.normal(size=N)
            self.buffer.add(step, torch.from_numpy(rewards))
            self.history.append(step)
            step.rewards = rewards
            self.observations = following.copy()
            over = (terminated | truncated) & (self.rng.random(N) >= self.plays_on)
            for env in np.flatnonzero(over):
                self.observations[env] = self.first()

    def expected(self, time, env, n_step):
        """Return the n-step transition that begins at a time."""
        total, path = 0.0, []
        for length in range(n_step):
            step = self.history[time + length]
            total += GAMMA**length * step.rewards[env]
            ended = step.terminated[env] or step.truncated[env]
            if ended or length == n_step - 1 or time + length + 1 == len(self.history):
                break
            path.append(step.next_observations[env])
        discount = 0.0 if step.terminated[env] else GAMMA ** (length + 1)
        return total, discount, step.next_observations[env], path


def check(buffer, listed, n_step):
    """Compare every stored transition with the list."""
    rows, steps = buffer.rows, len(listed.history)
    assert len(buffer) == min(rows, steps) * N
    batch = buffer.gather(torch.arange(len(buffer)))
    for slot in range(len(buffer)):
        row, env = divmod(slot, N)
        time = max(t for t in range(steps) if t % rows == row)
        total, discount, following, path = listed.expected(time, env, n_step)
        np.testing.assert_array_equal(
            batch["observations"][slot], listed.history[time].observations[env]
        )
        np.testing.assert_array_equal(batch["next_observations"][slot], following)
        assert batch["actions"][slot] == listed.history[time].actions[env]
        assert batch["rewards"][slot].item() == pytest.approx(total, abs=1e-5)
        assert batch["discounts"][slot].item() == pytest.approx(discount)
        for number, image in enumerate(path):
            np.testing.assert_array_equal(batch["path_observations"][slot, number], image)


@pytest.mark.parametrize("n_step", [1, 4])
@pytest.mark.parametrize("ends", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("steps", [1, 3, 10, 11, 12, 25, 26, 63])
def test_what_is_drawn_equals_a_list_of_transitions(steps, ends, n_step):
    """Before, at and after the ring is full, with long and with very short episodes.

    The ring of transitions (11) and that of frames (15) are full and begin anew at other times.
    """
    buffer = make_buffer(n_step=n_step)
    listed = ListedTransitions(buffer, ends=ends, seed=steps)
    listed.add(steps)
    check(buffer, listed, n_step)


@pytest.mark.parametrize("steps", [7, 26, 40])
def test_ends_after_which_play_goes_on(steps):
    """A lost life may count as an end; the next stack then begins with frames from before."""
    buffer, restored = make_buffer(), make_buffer()
    listed = ListedTransitions(buffer, ends=0.5, plays_on=0.6, seed=steps)
    listed.add(steps)
    check(buffer, listed, 1)
    restored.load_state_dict(buffer.state_dict())
    listed.buffer = restored
    listed.add(3)
    check(restored, listed, 1)


@pytest.mark.parametrize(("rows", "ends"), [(1, 0.5), (2, 0.1), (3, 1.0)])
def test_rings_shorter_than_a_stack(rows, ends):
    buffer = make_buffer(rows)
    listed = ListedTransitions(buffer, ends=ends)
    for _ in range(9):
        listed.add(1)
        check(buffer, listed, 1)


def test_single_images_of_several_channels():
    """A stack of 2 frames with 3 channels each, and one that is no stack at all."""
    for shape, stack in (((6, 2, 5), 2), ((3, 2, 5), 1)):
        buffer = make_buffer(frame_stack=stack, observation_shape=shape)
        listed = ListedTransitions(buffer, shape=shape, channels=3)
        listed.add(29)
        check(buffer, listed, 1)


def test_it_draws_what_the_memory_of_vectors_draws():
    """The same generator gives the same transitions, with and without priorities."""
    for options in ({"n_step": 3}, {"prioritised": 0.6}):
        images, vectors = make_buffer(**options), make_buffer(frame_stack=0, **options)
        for buffer in (images, vectors):
            ListedTransitions(buffer, seed=5).add(26)
        if "prioritised" in options:
            for buffer in (images, vectors):
                buffer.set_priorities(torch.arange(9), 3.0 * torch.arange(9.0))
            one, two = (b.sample_prioritised(50, 0.4, seeded(1)) for b in (images, vectors))
        else:
            (one,), (two,) = (b.sample(1, 50, seeded(1)) for b in (images, vectors))
        assert one.keys() == two.keys()
        for name, value in one.items():
            if name == "path_observations":  # after a path's end anything may stand
                continue
            torch.testing.assert_close(value.to(two[name].dtype), two[name])
            assert (value.dtype == torch.uint8) == name.endswith("observations")


def test_minibatches_are_slices_of_one_draw():
    buffer = make_buffer()
    ListedTransitions(buffer).add(11)
    split, (whole,) = buffer.sample(3, 5, seeded()), buffer.sample(1, 15, seeded())
    for name, value in whole.items():
        assert torch.equal(torch.cat([batch[name] for batch in split]), value)


@pytest.mark.parametrize("steps", [2, 11, 40])
def test_state_round_trip(steps):
    buffer, restored = make_buffer(n_step=3), make_buffer(n_step=3)
    listed = ListedTransitions(buffer, seed=1)
    listed.add(steps)
    ListedTransitions(restored, seed=2).add(17)  # a past of its own
    state = buffer.state_dict()
    restored.load_state_dict(state)
    listed.buffer = restored
    check(restored, listed, 3)
    again = restored.state_dict()
    assert [f.tolist() for f in again["frames"]] == [f.tolist() for f in state["frames"]]
    for name in ("last_frames", "ends", "depth", "next_depth", "newest_ended"):
        assert torch.equal(again[name], state[name])
    listed.add(23)  # and it goes on
    check(restored, listed, 3)


def test_frames_of_a_checkpoint_are_cut_where_the_ring_ends(monkeypatch):
    monkeypatch.setattr("rlfd.algorithms.core.frames.CHUNK_BYTES", 4 * N * 10)  # 4 rows
    buffer, restored = make_buffer(), make_buffer()
    listed = ListedTransitions(buffer)
    listed.add(40)  # 11 rows and the stack are in use: times 26 to 40, from place 11 of 15 on
    spans = buffer._seen._spans(11)
    assert spans == [(26, 30), (30, 34), (34, 38), (38, 41)]
    restored.load_state_dict(buffer.state_dict())
    check(restored, listed, 1)


def test_last_frames_go_with_their_transitions():
    """However many episodes end, the pool holds no more than there are ends in memory."""
    buffer = make_buffer()
    listed = ListedTransitions(buffer, ends=1.0)
    listed.add(300)
    memory = buffer._seen
    assert len(memory._ends) == 11 * N
    assert len(memory._pool) == FrameMemory.POOL
    big = make_buffer(rows=40)
    ListedTransitions(big, ends=1.0).add(300)
    assert len(big._seen._pool) == 2 * FrameMemory.POOL >= 40 * N


def test_what_is_no_stack_of_frames_is_refused():
    buffer = make_buffer()
    listed = ListedTransitions(buffer)
    listed.add(2)  # 2 mod 3: the last environment's turn to be looked at
    good = listed.history[-1]
    other = good.next_observations.copy()
    other[2, 0, 0, 0] ^= 1  # not the frame that was there before
    newest_first = {"observations": good.observations[:, ::-1].copy()}
    for change in ({"next_observations": other}, newest_first):
        step = SimpleNamespace(**vars(good) | change)
        with pytest.raises(RlfdError, match=r"are to be the last 4 frames, oldest first") as caught:
            buffer.add(step, torch.zeros(N))
        assert "FrameStackObservation" in caught.value.hint
    black = good.observations.copy()
    black[:, 0] = 0  # as if episodes began with a black frame
    after = np.concatenate([black[:, 1:], good.next_observations[:, -1:]], axis=1)
    step = SimpleNamespace(**vars(good) | {"observations": black, "next_observations": after})
    with pytest.raises(RlfdError, match="the first one of an episode repeated"):
        make_buffer().add(step, torch.zeros(N))


def test_a_million_steps_of_atari_take_at_most_7_5_gb():
    """Counted in the memory's own tensors, and foretold by what the check before a run says."""
    shape, rows, envs = (4, 84, 84), 125, 8
    buffer = ReplayBuffer(
        1_000, num_envs=envs, observation_shape=shape, gamma=GAMMA, device=CPU, frame_stack=4
    )
    tensors = [value for value in vars(buffer._seen).values() if isinstance(value, torch.Tensor)]
    pool = FrameMemory.POOL * 84 * 84
    beyond = 4 * envs * 84 * 84  # the frames' ring is longer by one stack
    small = buffer._seen._back.nbytes
    found = sum(t.nbytes for t in [*tensors, *buffer._memory.values()]) - pool - beyond - small
    assert found == replay_bytes(rows * envs, shape, 4)
    a_million = replay_bytes(1_000_000, shape, 4)
    assert a_million == 1_000_000 * (84 * 84 + 1 + 4 + 8 + 4 + 2)
    # each end of an episode keeps one frame more: 300 steps are short for the games of ALE
    assert a_million + 1_000_000 // 300 * 84 * 84 < 7.5e9


def test_a_memory_that_does_not_fit_is_refused_before_it_is_made():
    options = {"num_envs": 8, "observation_shape": (4, 84, 84), "gamma": GAMMA, "device": CPU}
    with pytest.raises(RlfdError, match=re.escape("1,000,000 transitions needs 7.08 GB")) as caught:
        ReplayBuffer(1_000_000, frame_stack=4, memory_bytes=3 * 10**9, **options)
    assert "3.00 GB are free" in caught.value.message
    assert caught.value.hint.startswith("lower it with --set buffer_size=420000, or ")
    suggested = ReplayBuffer(4_200, frame_stack=4, memory_bytes=3 * 10**7, **options)
    assert suggested.rows == 525
    with pytest.raises(RlfdError, match=r"1,000 transitions needs 0\.23 GB"):
        ReplayBuffer(1_000, memory_bytes=10**8, **options)  # of vectors


# -- demonstrations ------------------------------------------------------------------------------


@pytest.fixture
def stacks():
    """Two episodes of 3 and 5 observations of 2 frames, which are 4 and 6 frames."""
    frames = torch.arange(10 * 6, dtype=torch.uint8).view(10, 2, 3)
    first = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8])
    made = FrameStacks(frames, first, (2, 2, 3), 2)
    return made, torch.stack([frames[i : i + 2] for i in first])


def test_shared_frames_read_like_a_tensor(stacks):
    shared, plain = stacks
    assert shared.shape == (8, 2, 2, 3)
    assert len(shared) == 8
    assert (shared.dtype, shared.device) == (torch.uint8, CPU)
    assert torch.equal(shared, plain)
    assert torch.equal(shared.float() / 255, plain.float() / 255)
    assert torch.equal(shared.flatten(1), plain.flatten(1))
    assert torch.equal(torch.cat([shared, plain]), torch.cat([plain, plain]))
    assert torch.equal(shared[3], plain[3])
    rows = torch.tensor([7, 0, 0, 5])
    drawn = shared.index_select(0, rows)
    assert type(drawn) is torch.Tensor
    assert torch.equal(drawn, plain.index_select(0, rows))


def test_rows_share_frames(stacks):
    shared, plain = stacks
    mask = torch.tensor([True, False] * 4)
    for rows in (torch.tensor([7, 0, 0, 5]), mask, slice(2, 7, 2), slice(None, -1)):
        part = shared[rows]
        assert isinstance(part, FrameStacks)
        assert part.frames.data_ptr() == shared.frames.data_ptr()
        assert torch.equal(part, plain[rows])
    assert shared.to(CPU).frames is shared.frames
    assert repr(shared) == "FrameStacks(shape=(8, 2, 2, 3), frames=10)"


def test_demonstrations_without_what_followed_stay_shared(stacks, monkeypatch):
    """Unfolded, those of a game would take gigabytes."""
    shared, plain = stacks
    unfolded, gather = [], FrameStacks._gather
    monkeypatch.setattr(
        FrameStacks,
        "_gather",
        lambda self, first: unfolded.append(len(first)) or gather(self, first),
    )
    pairs = DemoTensors(
        observations=shared,
        actions=torch.zeros(8, dtype=torch.int64),
        episode_ids=torch.tensor([0] * 3 + [1] * 5),
    )
    memory = ReplayBuffer.of_demonstrations(pairs, torch.zeros(8), gamma=0.9, device=CPU)
    batch = memory.gather(torch.tensor([7, 2]))
    assert torch.equal(batch["observations"], plain[[7, 2]])
    assert (batch["next_observations"] == 0).all()
    assert max(unfolded) == 2
