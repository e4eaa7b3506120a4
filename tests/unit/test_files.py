"""Writing files so that a crash leaves the old content or the new one."""

import errno
import json
import os
from pathlib import Path

import pytest

from rlfd import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def test_written_text_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old and longer")
    files.write_text(path, "new é\n")
    assert path.read_text(encoding="utf-8") == "new é\n"
    assert names(tmp_path) == ["a.txt"]


def test_json_is_readable_and_strict(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, None, 0.1]})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.1]}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.1]}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_published_whole(tmp_path):
    final = tmp_path / "final"
    for content in ("first", "second"):
        temporary = files.new_temporary(final)
        (temporary / "below").mkdir(parents=True)
        (temporary / "below" / content).write_text(content)
        files.publish_folder(temporary, final)
    assert names(final / "below") == ["second"]
    assert names(tmp_path) == ["final"]


def test_everything_is_flushed_before_it_is_published(tmp_path, monkeypatch):
    flushed = []
    fsync = files.fsync_path
    monkeypatch.setattr(files, "fsync_path", lambda path: (flushed.append(path), fsync(path)))
    temporary = files.new_temporary(tmp_path / "final")
    (temporary / "below").mkdir(parents=True)
    for name in ("a", "below/b"):
        (temporary / name).write_text(name)
    files.publish_folder(temporary, tmp_path / "final")
    below = [temporary / name for name in ("a", "below/b", "below", ".")]
    assert sorted(flushed[:-1]) == sorted(below)
    assert flushed[-1] == tmp_path


def test_temporaries_are_hidden_apart_and_removable(tmp_path):
    paths = [files.new_temporary(tmp_path / "x") for _ in range(3)]
    assert len({*paths}) == 3
    assert all(path.parent == tmp_path and path.name.startswith(".x.") for path in paths)
    paths[0].mkdir()
    (paths[0] / "half").write_text("")
    paths[1].write_text("")
    (tmp_path / ".lock").write_text("")
    (tmp_path / "mine.tmp").write_text("")
    files.remove_temporaries(tmp_path)
    assert names(tmp_path) == [".lock", "mine.tmp"]
    files.remove_temporaries(tmp_path / "nowhere")


@pytest.mark.parametrize("method", ["iterdir", "exists", "is_dir"])
def test_a_folder_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch, caplog, method):
    for name in ("a", "b/c", "d"):
        (tmp_path / name / "x").mkdir(parents=True)
    real = getattr(Path, method)

    def refuse(path):
        if path.name == "c" or (method == "exists" and path.parent.name == "c"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, method, refuse)
    found = [path.name for path in files.folders_with(tmp_path, "x")]
    assert found == ["a", "d"]
    assert "Permission denied" in caplog.text
    assert str(tmp_path / "b") in caplog.text


def test_a_probe_leaves_nothing_behind(tmp_path):
    files.check_writable(tmp_path / "new" / "newer" / "file")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    files.check_writable(tmp_path / "kept" / "new" / "file")
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]
    for bad in (tmp_path / "new" / ("x" * 300), tmp_path / ("x" * 300) / "file"):
        with pytest.raises(OSError, match="too long"):
            files.check_writable(bad)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        files.check_writable(tmp_path / "file" / "below" / "it")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]
