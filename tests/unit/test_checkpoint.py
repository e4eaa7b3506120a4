"""Checkpoints: what comes back, what is damaged, what a full disk leaves behind."""

import errno
import json
import math
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint

STATE = {
    "progress": 7,
    "weights": {"a.b": torch.arange(15.0).reshape(3, 5), "empty": torch.zeros(0, 3)},
    "moments": [torch.tensor(0.1, dtype=torch.float64), torch.tensor([True, False])],
    "generator": torch.Generator().manual_seed(3).get_state(),
    "arrays": {
        "float": np.array(0.3), "none": np.zeros((0, 4), np.int64), "view": np.arange(24)[::3],
        "bytes": np.arange(5, dtype=np.uint8), "bool": np.ones((2, 1), bool),
    },
    "numbers": [1, -0.1, math.inf, 2**127 + 1, 5e-324],
    "numpy": [np.float32(0.1), np.int64(3), np.bool_(True)],
    "rest": {"none": None, "text": "é\n", "list": [], "dict": {}, "flag": False, "$tensor": "x"},
}  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_equal(found, expected):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)
    else:
        assert found == expected
        assert type(found) is type(
            expected.item() if isinstance(expected, np.generic) else expected
        )


@contextmanager
def no_file_larger_than(size):
    """A disk that fills up: writing beyond `size` bytes fails, in the system itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_state_comes_back_as_it_was(tmp_path):
    checkpoint.save_resume(tmp_path, 7, STATE)
    state, problems = checkpoint.load_newest(tmp_path)
    assert problems == []
    assert_equal(state, STATE)


def test_the_same_state_makes_the_same_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        checkpoint.save_resume(tmp_path / name, 7, STATE)
    for path in (tmp_path / "a" / "resume_000000007").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "resume_000000007" / path.name).read_bytes()


def test_what_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError):
        checkpoint.save_resume(tmp_path, 1, {"function": print})
    assert names(tmp_path) == []


def test_the_newest_two_are_kept(tmp_path):
    steps = [5, 40, 999_999_999, 1_000_000_000, 1_000_000_007]
    for step in steps:
        checkpoint.save_resume(tmp_path, step, {"step": step})
        assert checkpoint.load_newest(tmp_path) == ({"step": step}, [])
    assert names(tmp_path) == ["resume_1000000000", "resume_1000000007"]


def test_the_same_step_again_replaces(tmp_path):
    for value in (1, 2):
        checkpoint.save_resume(tmp_path, 5, {"value": value})
    assert checkpoint.load_newest(tmp_path) == ({"value": 2}, [])
    assert names(tmp_path) == ["resume_000000005"]


def test_nothing_there(tmp_path):
    (tmp_path / ".resume_000000001.abc.tmp").mkdir()
    (tmp_path / "resume_backup").mkdir()
    assert checkpoint.load_newest(tmp_path) == (None, [])
    assert checkpoint.load_newest(tmp_path / "nowhere") == (None, [])


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


DAMAGE = {
    "cut off": lambda at: (at / "tensors.safetensors").write_bytes(b"half"),
    "one byte of a tensor": lambda at: change(at / "tensors.safetensors", b"\x80?", b"00"),
    "one byte of the state": lambda at: change(at / "state.json", b"-0.1", b"-0.2"),
    "one digit of a digest": lambda at: change(at / "complete.json", b'": "', b'": "0'),
    "no tensors": lambda at: (at / "tensors.safetensors").unlink(),
    "no state": lambda at: (at / "state.json").unlink(),
    "no end mark": lambda at: (at / "complete.json").unlink(),
    "empty end mark": lambda at: (at / "complete.json").write_bytes(b""),
    "end mark without digests": lambda at: (at / "complete.json").write_text("{}"),
    "end mark of another kind": lambda at: (at / "complete.json").write_text("[]"),
    "end mark that is not text": lambda at: (at / "complete.json").write_bytes(b"\xff\x00"),
    "nothing": lambda at: (shutil.rmtree(at), at.mkdir()),
    "a file in its place": lambda at: (shutil.rmtree(at), at.write_text("")),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_noticed_and_the_one_before_taken(tmp_path, how):
    checkpoint.save_resume(tmp_path, 5, {"old": True})
    checkpoint.save_resume(tmp_path, 10, STATE)
    DAMAGE[how](tmp_path / "resume_000000010")
    state, problems = checkpoint.load_newest(tmp_path)
    assert state == {"old": True}
    (problem,) = problems
    assert "resume_000000010 is damaged" in problem
    (tmp_path / "resume_000000005" / "complete.json").unlink()
    state, problems = checkpoint.load_newest(tmp_path)
    assert state is None
    assert len(problems) == 2


def test_later_ones_are_forgotten(tmp_path):
    policy = {"w": torch.ones(2)}
    for step in (10, 20):
        checkpoint.save_resume(tmp_path, step, STATE)
    for step in (5, 10, 15):
        checkpoint.save_policy(tmp_path, step, policy)
    (tmp_path / ".resume_000000030.abc.tmp").mkdir()
    (tmp_path / ".policy_000000030.safetensors.abc.tmp").write_text("")
    checkpoint.forget_after(tmp_path, 10)
    assert names(tmp_path) == [
        "policy_000000005.safetensors", "policy_000000010.safetensors", "resume_000000010",
    ]  # fmt: skip
    checkpoint.forget_after(tmp_path, -1)
    assert names(tmp_path) == []


# Policies


def test_policies(tmp_path):
    saved = {"b": torch.randn(3, 5), "a": torch.randn(5, 3).T}
    for step in (1_000_000_000, 20, 999):
        checkpoint.save_policy(tmp_path, step, saved)
    for stray in ("policy_best.safetensors", ".policy_000000030.safetensors.x.tmp", "policy_7.txt"):
        (tmp_path / stray).write_text("")
    assert list(checkpoint.list_policies(tmp_path)) == [20, 999, 1_000_000_000]
    found = checkpoint.load_policy(checkpoint.list_policies(tmp_path)[20])
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_policies(tmp_path, content):
    checkpoint.save_policy(tmp_path, 20, {"w": torch.ones(99)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(RlfdError, match=r"policy_000000020\.safetensors cannot be read") as caught:
        checkpoint.load_policy(path)
    assert "--checkpoint" in caught.value.hint


def test_a_flipped_bit_and_numbers_that_are_none(tmp_path):
    checkpoint.save_policy(tmp_path, 20, {"w": torch.ones(99)})
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(RlfdError, match="is not what was written there"):
        checkpoint.load_policy(path)
    checkpoint.save_policy(
        tmp_path, 20, {"w": torch.tensor([1.0, float("inf")]), "n": torch.ones(3)}
    )
    with pytest.raises(RlfdError, match="not finite, in w"):
        checkpoint.load_policy(path)


# A full disk


def test_a_full_disk_leaves_what_was_there(tmp_path):
    checkpoint.save_resume(tmp_path, 5, {"old": True})
    checkpoint.save_policy(tmp_path, 5, {"w": torch.ones(2)})
    before = names(tmp_path)
    large = {"w": torch.ones(100_000)}
    with no_file_larger_than(10_000):
        for step in (5, 10):
            with pytest.raises(OSError, match="arge") as caught:
                checkpoint.save_resume(tmp_path, step, large)
            assert caught.value.errno == errno.EFBIG
            with pytest.raises(OSError, match="arge") as caught:
                checkpoint.save_policy(tmp_path, step, large)
            assert caught.value.errno == errno.EFBIG
    assert names(tmp_path) == before
    assert checkpoint.load_newest(tmp_path) == ({"old": True}, [])
    assert checkpoint.load_policy(checkpoint.list_policies(tmp_path)[5])["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ('IoError(Os { code: 28, kind: StorageFull, message: "..." })', errno.ENOSPC),
        ("something else", errno.EIO),
    ],
)
def test_errors_of_the_tensor_writer_are_system_errors(tmp_path, monkeypatch, text, number):
    def fail(*_):
        raise checkpoint.SafetensorError(text)

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        checkpoint.save_resume(tmp_path, 1, STATE)
    assert caught.value.errno == number
    assert names(tmp_path) == []


def test_nothing_is_pickled(tmp_path):
    checkpoint.save_resume(tmp_path, 7, STATE)
    folder = tmp_path / "resume_000000007"
    assert names(folder) == ["complete.json", "state.json", "tensors.safetensors"]
    json.loads((folder / "state.json").read_text())
    content = (folder / "tensors.safetensors").read_bytes()
    json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
