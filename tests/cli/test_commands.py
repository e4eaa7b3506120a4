"""Every command from end to end, on runs of a few hundred steps."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from rlfd.experiments.runner import Runner

from .conftest import (
    DQN,
    RUN,
    assert_refused,
    environment,
    outside,
    run_inside,
    run_outside,
    snapshot,
)


def test_collect_demos(folder):
    outcome = run_inside(
        "collect-demos", "--env", "CartPole", "--episodes", 3, "--noise", 0.25, "--json"
    )
    assert outcome.code == 0
    result = outcome.json
    assert {"name", "path", "env", "start", "episodes", "transitions"} <= set(result)
    assert (result["env"], result["start"], result["episodes"]) == ("CartPole", "standard", 3)
    assert result["success_rate"] is None
    assert 0 < result["return_mean"] <= 500
    assert result["demonstrator"]["noise"] == 0.25
    assert (folder / result["path"]).is_dir()
    assert f"rlfd train sqil --env CartPole --demos {result['name']}" in outcome.stderr


def test_collect_demos_that_do_nothing_now_and_then(folder):
    outcome = run_inside(
        "collect-demos", "--env", "MountainCar", "--episodes", 2, "--noop", 0.5, "--json"
    )
    assert outcome.code == 0
    assert outcome.json["name"] == "controller-noop50-v0"
    assert outcome.json["demonstrator"]["noop"] == 0.5
    assert "noop 0.5" in run_inside("show", "controller-noop50").stdout
    (entry,) = run_inside("list", "demos", "--json").json["demos"]
    assert entry["noop"] == 0.5


def test_collect_demos_takes_the_start_for_demonstrations(folder):
    command = ("collect-demos", "--env", "LunarLander", "--steps", 100, "--json", "-q")
    outcome = run_inside(*command)
    assert outcome.stderr == ""
    assert outcome.json["start"] == "demo"
    assert outcome.json["transitions"] >= 100
    assert outcome.json["success_rate"] == 1.0
    assert run_inside(*command, "--start", "standard").json["start"] == "standard"


def test_collect_demos_by_filters(folder):
    command = ("collect-demos", "--env", "CartPole", "--policy", "random", "--episodes", 3)
    limits = ("--min-return", 20, "--max-return", 40)
    outcome = run_inside(*command, *limits, "--name", "middling", "--json")
    assert 20 <= outcome.json["return_mean"] <= 40
    assert outcome.json["name"].startswith("middling")


def test_collect_demos_by_a_run(full_folder):
    command = ("collect-demos", "--env", "CartPole", "--policy", "dqn/CartPole/seed0")
    early, late = (
        run_inside(*command, "--episodes", 2, "--checkpoint", step, "--json").json["demonstrator"]
        for step in saved_steps()
    )
    assert early["checkpoint"] < late["checkpoint"]
    assert early["mode"] == "greedy"


def saved_steps() -> list[int]:
    return sorted(set(pd.read_csv(f"{RUN}/eval.csv")["env_steps"]))


def test_show_demonstrations(full_folder):
    text = run_inside("show", "LunarLander-demo/controller").stdout
    for part in ("median", "action", "99 %", "success", "terminated 3", "|x|", "repeated"):
        assert part in text
    report = run_inside("show", "LunarLander-demo/controller", "--json").json
    assert report["episodes"] == 3
    assert report["start_overlap"]["max_abs_x"] < 0.55


def test_train_makes_what_it_needs(folder):
    outcome = run_inside(
        "train", "bc", "--env", "CartPole", "--set", "max_epochs=2", "--final-episodes", 2, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    result = outcome.json
    assert {"run", "env_steps", "updates", "wall_seconds", "return_mean"} <= set(result)
    assert result["success_rate"] is None
    assert result["env_steps"] == 0
    assert result["updates"] > 0
    assert result["epochs"] == 2
    assert "collecting 100 episodes of its controller" in outcome.stderr
    assert f"rlfd evaluate {result['run']}" in outcome.stderr
    assert "rlfd plot" in outcome.stderr


def test_train_without_an_evaluation(full_folder):
    command = ("train", "bc", "--env", "CartPole", "--set", "max_epochs=2", "--final-episodes", 0)
    outcome = run_inside(*command, "--json")
    assert outcome.code == 0, outcome.stderr
    result = outcome.json
    assert result["return_mean"] is result["success_rate"] is None
    assert result["evaluations"] == {}
    text = run_inside(*command, "--seed", 1).stdout
    assert re.search(r"^epochs +2$", text, re.MULTILINE)
    assert "return" not in text
    assert run_inside("list", "runs").code == 0
    assert re.search(r"last evaluation +none", run_inside("show", result["run"]).stdout)
    assert run_inside("plot", "runs", "--table", "--metric", "return").code == 0
    assert run_inside("plot", "runs/default/dqn", "runs/default/bc", "--out", "f.png").code == 0
    assert run_inside("evaluate", result["run"], "--episodes", 2, "--json").json["episodes"] == 2


def test_train_prints_results_on_stdout_only(folder):
    outcome = run_inside(*DQN, "-q")
    assert outcome.code == 0
    assert outcome.stderr == ""
    assert outcome.stdout.startswith("run ")
    assert "final weights" in outcome.stdout


def test_show_config_trains_nothing(folder):
    command = ("train", "dqn", "--env", "LunarLander", "--start", "demo", "--set", "gamma=0.9")
    text = run_inside(*command, "--steps", "1e4", "--show-config").stdout
    assert re.search(r"^gamma +0\.9 +--set", text, re.MULTILINE)
    assert re.search(r"^steps +10000 +command line", text, re.MULTILINE)
    assert re.search(r"^seed +0 +default", text, re.MULTILINE)
    result = run_inside(*command, "--show-config", "--json").json
    assert result["config"]["algorithm"]["gamma"] == 0.9
    assert result["provenance"]["algorithm.gamma"] == "--set"
    assert snapshot(folder) == {}


def test_config_file_lies_below_single_settings(folder):
    (folder / "my.toml").write_text("[run]\nseed = 7\n[algorithm]\ngamma = 0.5\nbatch_size = 3\n")
    command = ("train", "dqn", "--env", "CartPole", "--config", "my.toml", "--show-config")
    config = run_inside(*command, "--set", "gamma=0.6", "--json").json["config"]
    assert (config["seed"], config["algorithm"]["batch_size"]) == (7, 3)
    assert config["algorithm"]["gamma"] == 0.6


def test_evaluate(full_folder):
    first = run_inside("evaluate", RUN, "--episodes", 4, "--json")
    assert first.code == 0
    result = first.json
    keys = {"run", "algo", "env", "start", "episodes", "return_mean", "return_std", "return_iqm"}
    assert keys | {"length_mean", "success_rate"} <= set(result)
    assert (result["algo"], result["env"], result["start"]) == ("dqn", "CartPole", "standard")
    assert result["success_rate"] is None
    assert run_inside("evaluate", "dqn/CartPole/seed0", "--episodes", 4, "--json").json == result
    assert run_inside("evaluate", RUN, "--episodes", 4, "--seed", 5, "--json").json != result
    text = run_inside("evaluate", RUN, "--episodes", 4, "--checkpoint", saved_steps()[0])
    assert f"after {saved_steps()[0]:,} env steps" in text.stdout
    assert "rlfd plot" in text.stderr


def test_evaluate_from_another_start(folder):
    command = ("train", "bc", "--env", "LunarLander", "--start", "demo", "--set", "max_epochs=1")
    assert run_inside(*command, "--final-episodes", 1).code == 0
    outcome = run_inside(
        "evaluate", "bc/LunarLander-demo/seed0", "--start", "shifted", "--episodes", 1, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["start"] == "shifted"
    assert outcome.json["success_rate"] in (0.0, 1.0)


def test_evaluate_records_videos(full_folder):
    result = run_inside("evaluate", RUN, "--episodes", 2, "--record-video", 1, "--json").json
    (video,) = result["videos"]
    assert Path(video).suffix == ".mp4"
    assert Path(video).stat().st_size > 1000


@pytest.mark.parametrize(
    ("suffix", "head"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_plot(full_folder, suffix, head):
    outcome = run_inside("plot", "runs", "--out", f"figures/a{suffix}", "--json")
    assert outcome.code == 0, outcome.stderr
    assert Path(outcome.json["figure"]).read_bytes().startswith(head)
    assert Path(outcome.json["data"]).read_text().startswith("# command: rlfd")


def test_plot_table(full_folder):
    text = run_inside("plot", "runs", "--table", "--metric", "return").stdout
    assert "dqn" in text
    assert "final, greedy" in text
    assert not list(full_folder.glob("figure.*"))
    result = run_inside("plot", "dqn", "--table", "--json", "--out", "b.png", "--iqm").json
    assert {row["measure"] for row in result["table"]} >= {"final, greedy", "best, greedy"}
    assert Path("b.png").exists()


@pytest.mark.parametrize("option", [("--iqm",), ("--x", "frames"), ("--policy", "greedy")])
def test_options_of_a_figure_that_is_not_drawn(full_folder, option):
    outcome = run_inside("plot", "runs", "--table", *option)
    assert_refused(outcome, "--iqm", "belong to a figure", "--out")


@pytest.mark.parametrize(
    ("what", "names"), [("algos", {"bc", "dqn", "sqil"}), ("envs", {"CartPole"})]
)
def test_list_what_is_built_in(folder, what, names):
    assert names <= {entry["name"] for entry in run_inside("list", what, "--json").json[what]}
    text = run_inside("list", what).stdout
    assert all(name in text for name in names)


def test_list_demos_and_runs(full_folder):
    demos = run_inside("list", "demos", "--json").json["demos"]
    assert {entry["env"] for entry in demos} == {"CartPole", "LunarLander"}
    (run,) = run_inside("list", "runs", "--json").json["runs"]
    assert run["run"] == RUN
    assert (run["state"], run["progress"]) == ("finished", 1.0)
    assert run["evaluated_at"] == saved_steps()[-1]
    text = run_inside("list", "runs").stdout
    assert re.search(rf"^{RUN} +finished +100%", text, re.MULTILINE)


def test_list_of_nothing_says_what_to_do(folder):
    for what in ("demos", "runs"):
        outcome = run_inside("list", what)
        assert (outcome.code, outcome.stdout) == (0, "")
        assert "next:  rlfd " in outcome.stderr
        assert run_inside("list", what, "--json").json == {what: []}


def test_list_runs_survives_a_damaged_one(full_folder):
    broken = full_folder / "runs/default/dqn/CartPole/seed1"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    states = {e["run"]: e["state"] for e in run_inside("list", "runs", "--json").json["runs"]}
    assert states == {RUN: "finished", "runs/default/dqn/CartPole/seed1": "damaged"}


def test_show_run(full_folder):
    text = run_inside("show", RUN).stdout
    assert "finished" in text
    assert re.search(r"^batch_size +7 +--set", text, re.MULTILINE)
    result = run_inside("show", "dqn/CartPole/seed0", "--json").json
    assert result["status"]["state"] == "finished"
    assert result["config"]["num_envs"] == 3


def test_resume_if_exists_starts_and_skips(folder):
    assert run_inside(*DQN, "--resume-if-exists").code == 0
    before = snapshot(folder)
    outcome = run_inside(*DQN, "--resume-if-exists", "--json")
    assert outcome.code == 0
    assert "finished already" in outcome.stderr
    assert outcome.json["return_mean"] is not None
    assert snapshot(folder) == before


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(folder):
    assert run_inside(*DQN, "--resume-if-exists").code == 0
    outcome = run_inside(*DQN, "--resume-if-exists", "--set", "gamma=0.5")
    assert_refused(outcome, "was started with algorithm.gamma=", "=0.5 was given", "--exp-name")


def test_overwrite(full_folder):
    before = snapshot(full_folder / RUN)
    no = run_inside(*DQN, "--overwrite", input="n\n")
    assert no.code == 1
    assert f"delete run {RUN}" in no.stderr
    assert snapshot(full_folder / RUN) == before
    for command in ((*DQN, "--overwrite", "--yes"), (*DQN, "--overwrite")):
        outcome = run_inside(*command, input="y\n")
        assert outcome.code == 0, outcome.stderr
        after = snapshot(full_folder / RUN)
        assert after["eval.csv"] == before["eval.csv"]  # the same run again
        assert after["run.json"] != before["run.json"]


def test_reproduce_lists_its_runs(folder):
    command = ("reproduce", "sqil-lunarlander", "--seeds", "0-1", "--steps", "5k", "--dry-run")
    result = run_inside(*command, "--json").json
    assert {run["state"] for run in result["runs"]} == {"new"}
    assert any("train sqil" in run["command"] for run in result["runs"])
    assert all(
        "--steps 5000" in run["command"] for run in result["runs"] if "train sqil" in run["command"]
    )
    assert {run["run"][-5:] for run in result["runs"]} == {"seed0", "seed1"}
    assert "rlfd train sqil" in run_inside(*command).stdout
    assert snapshot(folder) == {}


def test_reproduce_a_part_of_a_suite(folder):
    command = ("reproduce", "mcpo-sparse", "--seeds", "3", "--dry-run", "--json")
    part = (*command, "--tasks", "MountainCar, Hopper", "--group", "weak")
    runs = run_inside(*part).json["runs"]
    assert {run["run"].split("/")[2] for run in runs} == {"MountainCar-sparse", "Hopper-sparse"}
    repeated = (*command, "--tasks", "MountainCar", "--tasks", "Hopper", "--group", "weak")
    assert run_inside(*repeated).json["runs"] == runs
    (late,) = [
        run for run in runs if run["run"] == "mcpo-sparse-from-bc-weak/trpo/Hopper-sparse/seed3"
    ]
    source = "runs/mcpo-sparse-weak/bc/Hopper-sparse/seed3"
    assert f"--init {source} --steps 1000000" in late["command"]
    assert not any("good" in run["run"] for run in runs)
    assert all(
        "good" in run["run"] or "/trpo/" in run["run"] for run in run_inside(*command).json["runs"]
    )


def test_suites_are_listed_with_what_they_are_made_of(folder):
    listed = run_inside("list", "suites", "--json").json["suites"]
    (ours,) = [suite for suite in listed if suite["name"] == "mcpo-sparse"]
    assert ours["groups"] == ["good", "weak", "annealing"]
    assert ours["tasks"] == ["Hopper", "HalfCheetah", "Walker2d", "MountainCar"]
    everything = ("reproduce", "mcpo-sparse", "--group", "all", "--dry-run", "--json")
    assert ours["runs"] == len(run_inside(*everything).json["runs"])
    shown = run_inside("list", "suites").stdout
    assert all(suite["name"] in shown and suite["title"] in shown for suite in listed)
    assert_refused(run_inside("reproduce", "nobodys"), "'nobodys'", "rlfd list suites")


def test_the_last_line_of_progress_is_what_was_done(full_folder):
    shutil.rmtree("runs")
    outcome = run_inside(*DQN)
    steps = run_inside("show", RUN, "--json").json["status"]["env_steps"]
    assert re.search(rf"^dqn CartPole seed 0: {steps} env steps in ", outcome.stderr, re.MULTILINE)
    outcome = run_inside("evaluate", RUN, "--episodes", 3)
    (said,) = re.findall(r"3 episodes in .*return (\S+)", outcome.stderr)
    assert re.search(rf"^return +{re.escape(said)} ", outcome.stdout, re.MULTILINE)


def test_a_running_run_says_how_far_its_evaluations_are(folder, monkeypatch):
    seen = []

    def look(runner):
        seen.extend(run_inside("list", "runs", "--json").json["runs"])

    monkeypatch.setattr(Runner, "_checkpoint", look)
    run_inside(*DQN, "--checkpoint-every", 100_000)
    assert seen[0]["state"] == "running"
    assert seen[0]["env_steps"] >= 200


def test_what_is_not_known_is_a_dash(full_folder):
    run_inside("train", "bc", "--env", "CartPole", "--steps", 5, "--final-episodes", 0)
    text = run_inside("show", "bc/CartPole/seed0").stdout
    assert "success_rate -" in text
    assert "None" not in text


def test_folders_from_the_environment(full_folder, monkeypatch):
    (full_folder / "runs").rename(full_folder / "elsewhere")
    monkeypatch.setenv("RLFD_RUNS_DIR", "elsewhere")
    (run,) = run_inside("list", "runs", "--json").json["runs"]
    assert run["run"].startswith("elsewhere/")


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        outside(*command), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_ctrl_c_and_resume(folder):
    identity = ("train", "dqn", "--env", "CartPole", "--seed", 3, "--runs-dir", "my runs")
    slow = ("--steps", 60_000, "--eval-every", 0, "--checkpoint-every", 1000)
    process = start(*identity, *DQN[4:], *slow)
    deadline = time.monotonic() + 60
    while not list(Path("my runs").glob("default/dqn/CartPole/seed3/checkpoints/resume_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    command = "rlfd train dqn --env CartPole --seed 3 --runs-dir 'my runs' --resume"
    assert f"continue with: {command}\n" in stderr
    (run,) = run_inside("list", "runs", "--runs-dir", "my runs", "--json").json["runs"]
    assert run["state"] == "interrupted"
    assert 0 < run["progress"] < 1
    outcome = run_inside("evaluate", "my runs/default/dqn/CartPole/seed3", "--episodes", 1)
    assert outcome.code == 0  # with the policy it was interrupted at

    again = start(*identity, "--resume")
    assert again.stderr is not None
    assert any(f"resuming at {run['env_steps']:,}" in line for line in again.stderr)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    assert again.returncode == 130


def test_ctrl_c_while_collecting_leaves_nothing(folder):
    process = start("collect-demos", "--env", "LunarLander", "--episodes", 100_000)
    assert process.stderr is not None
    assert "collecting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "interrupted"
    assert snapshot(folder) == {}


def test_tensorboard_files(folder):
    pytest.importorskip("tensorboard")
    assert run_inside(*DQN, "--track").code == 0
    assert list(Path(RUN).glob("tensorboard/events*"))


def test_reproduce_tells_of_failures(folder, monkeypatch):
    from rlfd.experiments import reproduce
    from rlfd.experiments.launch import Job, JobResult

    job = Job("sqil-lunarlander/sqil/LunarLander/seed0", ("rlfd", "train"), Path("runs/x"))
    results = [JobResult(job, "failed", 1, "loss is NaN", Path("x.log"))]
    results.append(JobResult(job, "finished", 0, "", Path("y.log")))
    table = pd.DataFrame([{"row": "SQIL", "mean": "0.50", "paper": "–"}])
    made = reproduce.ReproduceResult(Path("runs/s"), table, {"Table 1": table}, [], results)
    seen = {}
    monkeypatch.setattr(
        reproduce, "reproduce", lambda suite, **options: seen.update(options) or made
    )
    command = ("reproduce", "sqil-lunarlander", "--seeds", "2", "--jobs", 3, "--retry-failed")
    outcome = run_inside(*command)
    assert outcome.code == 1
    assert "1 of 2 runs failed" in outcome.stderr
    assert "Table 1" in outcome.stdout
    assert (seen["seeds"], seen["engine"].slots, seen["retry_failed"]) == ([2], 3, True)
    failures = run_inside(*command, "--json").json["failures"]
    assert [failure["error"] for failure in failures] == ["loss is NaN"]


def test_reproduce_is_not_done_while_another_process_makes_a_run(folder, monkeypatch):
    from rlfd.experiments import reproduce
    from rlfd.experiments.launch import Job, JobResult

    job = Job("sqil-lunarlander/sqil/LunarLander/seed0", ("rlfd", "train"), Path("runs/x"))
    results = [JobResult(job, state, None, "", Path("x.log")) for state in ("elsewhere", "skipped")]
    table = pd.DataFrame([{"row": "SQIL", "mean": "–", "n": "0"}])
    made = reproduce.ReproduceResult(Path("runs/s"), table, {"Table 1": table}, [], results)
    monkeypatch.setattr(reproduce, "reproduce", lambda suite, **options: made)
    outcome = run_inside("reproduce", "sqil-lunarlander", "--json")
    assert outcome.code == 1
    assert "1 of 2 runs are being made by another process" in outcome.stderr
    assert "the same command again" in outcome.stderr
    assert outcome.json["elsewhere"] == [job.name]
    assert outcome.json["failures"] == []


def test_as_a_process(full_folder):
    outcome = run_outside("evaluate", RUN, "--episodes", 1, "--json")
    assert outcome.code == 0
    assert outcome.json["episodes"] == 1
    assert run_outside("evaluate", "nothing").code == 2


def test_starting_from_another_run(full_folder):
    command = (*DQN, "--seed", 1, "--init", f"dqn/CartPole/seed0:{saved_steps()[0] / 1000}k")
    outcome = run_inside(*command, "--json")
    assert outcome.code == 0, outcome.stderr
    text = run_inside("show", outcome.json["run"]).stdout
    source = f"run default/dqn/CartPole/seed0, algo dqn, checkpoint {saved_steps()[0]}, digest sha"
    assert re.search(rf"^started from +{source}", text, re.MULTILINE)
    assert re.search(r"^init +default/dqn/CartPole/seed0:\d+ +command line", text, re.MULTILINE)
