"""The folder of a run: logs that survive everything, state, lock, finding."""

import dataclasses
import json
import math
import resource

import numpy as np
import pandas as pd
import pytest

from rlfd.envs import EnvConfig, EpisodeRecord
from rlfd.errors import RlfdError
from rlfd.experiments import run_dir
from rlfd.experiments.config import resolve
from rlfd.experiments.run_dir import CsvLog, RunDir, episode_row, find_run, find_runs

CARTPOLE = EnvConfig("CartPole")


@pytest.fixture
def log(tmp_path):
    log = CsvLog(tmp_path / "a.csv", ["step", "value", "flag"])
    yield log
    log.close()


def row(step, value=0.5, flag=True):
    return {"step": step, "value": value, "flag": flag}


def start(root, algo="dqn", env=CARTPOLE, **options):
    resolved = resolve(algo, env, options=options)
    run = RunDir.of(resolved.config, root)
    run.create(resolved)
    return run


# Logs


def test_rows_are_text_that_gives_the_same_numbers_back(log, tmp_path):
    values = [0.1, -1e-300, 123456789.123456789, np.float64(1 / 3), np.float32(0.1), 7, math.inf]
    log.write([row(np.int64(i), value, None) for i, value in enumerate(values)])
    log.write([row(7, None, False), row(8, None, True)])
    log.write([])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "step,value,flag"
    assert [line.split(",")[0] for line in lines[1:]] == list("012345678")
    assert [float(line.split(",")[1]) for line in lines[1:8]] == values
    assert [line.split(",")[2] for line in lines[6:]] == ["", "", "0", "1"]
    assert log.size() == (tmp_path / "a.csv").stat().st_size


def test_columns_are_fixed(log):
    log.write([{**row(1), "more": 3}])
    with pytest.raises(KeyError, match="flag"):
        log.write([row(2), {"step": 3, "value": 1.0}])
    assert log.size() == len("step,value,flag\n1,0.5,1\n")


def test_going_on_and_cutting_back(log, tmp_path):
    log.write([row(1)])
    size = log.size()
    log.write([row(2)])
    log.close()
    again = CsvLog(tmp_path / "a.csv", ["step", "value", "flag"])
    again.truncate(size)
    again.write([row(3)])
    assert (tmp_path / "a.csv").read_text() == "step,value,flag\n1,0.5,1\n3,0.5,1\n"
    again.truncate(0)
    again.write([row(4)])
    again.sync()
    assert (tmp_path / "a.csv").read_text() == "step,value,flag\n4,0.5,1\n"
    again.close()


def test_a_log_of_an_older_version_keeps_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("step,flag\n1,1\n")
    log = CsvLog(tmp_path / "a.csv", ["step", "value", "flag"])
    log.write([row(2)])
    assert (tmp_path / "a.csv").read_text() == "step,flag\n1,1\n2,1\n"
    log.truncate(0)
    assert (tmp_path / "a.csv").read_text() == "step,flag\n"
    log.close()


def test_a_log_that_lost_rows_is_refused(log, tmp_path):
    with pytest.raises(RlfdError, match=r"a\.csv has 16 bytes, expected at least 99") as caught:
        log.check(99, None)
    assert "--overwrite" in caught.value.hint
    assert (tmp_path / "a.csv").read_text() == "step,value,flag\n"


def test_a_log_with_another_digit_is_refused(log, tmp_path):
    log.write([row(1), row(2)])
    size, digest = log.size(), log.digest()
    log.write([row(3)])
    log.check(size, digest)
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text.replace("2,0.5", "2,0.6"))
    with pytest.raises(RlfdError, match=r"a\.csv was changed"):
        log.check(size, digest)


def test_a_full_disk_leaves_whole_rows_only(log, tmp_path):
    log.write([row(1)])
    before, limit = log.size(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 10, limit[1]))  # in the second row
    try:
        with pytest.raises(OSError, match="File too large"):
            log.write([row(2), row(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert log.size() == before
    log.write([row(4)])
    log.close()
    assert pd.read_csv(tmp_path / "a.csv")["step"].tolist() == [1, 4]


def test_a_full_disk_is_not_tried_again_on_closing(tmp_path):
    log = CsvLog(tmp_path / "a.csv", ["step"])
    size, limit = log.size(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.write([{"step": 1}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    log.close()
    assert (tmp_path / "a.csv").read_text() == "step\n"


def test_episodes_as_rows():
    record = EpisodeRecord(10, 2, 77, -1.5, 3.5, 9, True, False, None, None)
    assert episode_row(record) == {
        "env_steps": 10, "env_index": 2, "episode_return": -1.5, "dense_return": 3.5,
        "episode_length": 9, "terminated": True, "truncated": False, "success": None,
        "landed": None,
    }  # fmt: skip
    assert tuple(episode_row(record)) == run_dir.EPISODE_COLUMNS


# Folder


@pytest.mark.parametrize(
    ("env", "options", "path"),
    [
        (CARTPOLE, {}, "default/dqn/CartPole/seed0"),
        (CARTPOLE, {"seed": 12, "exp_name": "a.b"}, "a.b/dqn/CartPole/seed12"),
        (EnvConfig("LunarLander", "demo"), {}, "default/dqn/LunarLander-demo/seed0"),
        (
            EnvConfig("CartPole", reward="sparse"),
            {"seed": 1},
            "default/dqn/CartPole-sparse/seed1",
        ),
    ],
)
def test_where_a_run_lies(tmp_path, env, options, path):
    run = RunDir.of(resolve("dqn", env, options=options).config, tmp_path)
    assert run.path == tmp_path / path
    assert not run.exists
    assert not tmp_path.joinpath("default").exists()


def test_configuration_and_provenance_come_back(tmp_path):
    resolved = resolve("dqn", CARTPOLE, settings=["gamma=0.5"], options={"steps": 9})
    run = RunDir.of(resolved.config, tmp_path)
    run.create(resolved)
    assert run.exists
    assert run.config() == resolved.config
    assert run.provenance() == resolved.provenance
    assert run.status()["state"] == "interrupted"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "default").write_text("")
    with pytest.raises(RlfdError, match=r"cannot write run folder .*default") as caught:
        start(tmp_path)
    assert caught.value.exit_code == 2
    assert "--runs-dir" in caught.value.hint


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 1}', '{"schema": 7}', '{"schema": 1, "algo": "x"}', "\0"]
)
def test_a_damaged_configuration(tmp_path, content):
    run = start(tmp_path)
    (run.path / "config.json").write_text(content)
    with pytest.raises(RlfdError):
        run.config()


def test_a_damaged_state(tmp_path):
    run = start(tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(RlfdError, match=r"run.json.*damaged"):
        run.status()


def test_files_that_are_not_there_yet(tmp_path):
    run = start(tmp_path)
    for read in (run.train, run.episodes, run.evaluations):
        with pytest.raises(RlfdError, match="may not have started"):
            read()


def test_a_run_that_nobody_holds_is_not_running(tmp_path):
    run = start(tmp_path)
    run.write_status({"state": "running", "env_steps": 5})
    assert run.status() == {"state": "interrupted", "env_steps": 5, "updates": 0}
    assert not (run.path / ".lock").exists()  # looking leaves nothing behind
    with run.lock():
        assert run.is_locked()
        assert run.status()["state"] == "running"
    assert not run.is_locked()
    run.write_status({"state": "finished", "env_steps": 5})
    assert run.status()["state"] == "finished"


def test_one_process_at_a_time(tmp_path):
    run = start(tmp_path)
    with run.lock():
        with (
            pytest.raises(RlfdError, match="worked on by another process") as caught,
            RunDir(run.path).lock(),
        ):
            pass
        assert "--exp-name" in caught.value.hint
    with run.lock():
        pass


def test_a_folder_is_replaced_whole(tmp_path, monkeypatch):
    run = start(tmp_path)
    (run.path / "videos").mkdir()
    (run.path / "videos/a.mp4").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").write_text("")
    (run.path / "linked").symlink_to(tmp_path / "elsewhere")
    with run.lock(), monkeypatch.context() as patch:
        before = sorted(run.path.rglob("*"))
        patch.setattr(run_dir.os, "rename", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), run.replaced():
            pass
    assert sorted(run.path.rglob("*")) == before  # killed before: the old run
    with run.lock(), run.replaced():
        assert [path.name for path in run.path.iterdir()] == [".lock"]
        assert run.is_locked()
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name]
    assert (tmp_path / "elsewhere/kept").is_file()


def test_remains_of_a_replaced_run_are_nobodys(tmp_path, monkeypatch):
    run = start(tmp_path)
    with run.lock(), monkeypatch.context() as patch:
        patch.setattr(run_dir.shutil, "rmtree", lambda *_, **__: 1 / 0)  # killed after
        with pytest.raises(ZeroDivisionError), run.replaced():
            pass
    assert not run.exists
    with pytest.raises(RlfdError, match="unknown run"):
        find_runs([], tmp_path)
    run.remove_temporaries()
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name]


def test_files_that_belong_to_no_run(tmp_path):
    run = start(tmp_path)
    assert not run.holds_strays
    (run.path / "config.json").unlink()
    assert not run.holds_strays  # killed while its folder was made: a folder without files
    (run.path / "checkpoints/.a.1234.tmp").write_text("")
    assert not run.holds_strays
    (run.path / "checkpoints/policy_000000001.safetensors").write_text("")
    assert run.holds_strays


# Finding


def test_runs_are_found_by_every_spelling(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    first = start(root, seed=0)
    second = start(root, seed=1)
    other = start(root, exp_name="other")
    deep = find_runs([], root)
    assert {*deep} == {first, second, other}
    assert find_runs(["dqn"], root) == [first, second]
    assert find_runs(["dqn/CartPole", first.path, "default/dqn/CartPole/seed0"], root) == [
        first,
        second,
    ]
    for text in ("dqn/CartPole/seed0", "default/dqn/CartPole/seed0", str(first.path), first.path):
        assert find_run(text, root) == first
    monkeypatch.chdir(root / "default" / "dqn")
    assert find_run("CartPole/seed1", root) == second
    assert len({find_run("CartPole/seed1", root), second}) == 1


def test_linked_runs_are_found_once(tmp_path):
    run = start(tmp_path / "elsewhere")
    other = start(tmp_path / "runs")
    for name in ("linked", "again"):
        (tmp_path / "runs" / name).symlink_to(run.path.parent)
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs")
    assert set(find_runs([], tmp_path / "runs")) == {run, other}
    assert len(find_runs([], tmp_path / "runs")) == 2


def test_runs_that_are_not_found(tmp_path):
    start(tmp_path, seed=0)
    start(tmp_path, seed=1)
    with pytest.raises(RlfdError, match=r"unknown run 'dqn/CartPol', did you mean '.*CartPole"):
        find_run("dqn/CartPol", tmp_path)
    with pytest.raises(RlfdError, match="holds 2 runs") as caught:
        find_run("dqn", tmp_path)
    assert "seed0" in str(caught.value)
    with pytest.raises(RlfdError, match="unknown run"):
        find_runs([], tmp_path / "nowhere")


def test_every_field_of_a_configuration_is_stored(tmp_path):
    run = start(tmp_path)
    stored = json.loads((run.path / "config.json").read_text())
    fields = {field.name for field in dataclasses.fields(run.config())}
    assert set(stored) == fields | {"schema", "provenance"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": 5}, "'state' is 5, expected a text"),
        ({"state": None}, "'state' is None"),
        ({"env_steps": "7"}, "'env_steps' is '7', expected a whole number"),
        ({"updates": 10**400}, "'updates' is too large"),
        ({"wall_seconds": None}, "'wall_seconds' is None"),
        ({"final": {"final": {"greedy": {"return_mean": "9"}}}}, "'return_mean' is '9'"),
        ({"final": [1]}, "'final' is [1], expected"),
        ({"files": {"eval.csv": 3}}, "'eval.csv' is 3"),
        ({"demos": {"hash": 3}}, "'demos'.'hash' is 3"),
        ({"init": {"digest": []}}, "'init'.'digest' is []"),
        ({"made_by": {}}, "'made_by' is {}, expected a list"),
    ],
)
def test_a_state_of_the_wrong_type_is_damage(tmp_path, change, words):
    run = start(tmp_path)
    run.write_status({"state": "finished", "env_steps": 5})
    content = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(content | change))
    with pytest.raises(RlfdError) as error:
        run.status()
    assert words in error.value.message
    assert str(run.path / "run.json") in error.value.message


@pytest.mark.parametrize("text", ["[" * 99_999, "[]", '{"env_steps": 3}', "\xff"])
def test_a_state_of_no_form_is_damage(tmp_path, text):
    run = start(tmp_path)
    (run.path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RlfdError, match=r"run\.json"):
        run.status()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (b"3,final,greedy,1\xff.0,1\n", "can't decode|utf-8"),
        (b"3,final,greedy,many,1\n", "column episode_return holds something else than numbers"),
        (b"9" * 400 + b"x,final,greedy,1.0,1\n", "column env_steps holds something else"),
        (b"3,final,greedy,1.0,1,8,8,8,8\n3,final\n3,a,b,c,d,e,f,g,h,i,j,k\n", "Error tokenizing"),
    ],
)
def test_a_table_that_is_none_is_damage(tmp_path, rows, words):
    run = start(tmp_path)
    head = b"env_steps,phase,policy,episode_return,success\n"
    (run.path / "eval.csv").write_bytes(head + b"1,final,greedy,2.5,\n" + rows)
    with pytest.raises(RlfdError, match=rf"eval\.csv: .*({words})"):
        run.evaluations()


def test_a_log_with_a_strange_head_can_be_opened_and_is_seen(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"st\xffep,value\n1,2\n")
    log = CsvLog(tmp_path / "a.csv", ["step", "value", "flag"])
    with pytest.raises(RlfdError, match="was changed since the checkpoint"):
        log.check(4, "0" * 64)
    log.close()
