"""What a run writes, and what it learns from.

Being killed is in tests/contract/test_resume.py.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch

from rlfd import algorithms, demos
from rlfd.algorithms.rl.dqn import DQN
from rlfd.envs import EnvConfig, check, registry
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint, preparation, run_dir, runner
from rlfd.experiments.evaluate import evaluate_run
from rlfd.experiments.report import NullReporter
from rlfd.experiments.tables import display_table, results_table

from .tiny_runs import TIMES, learned, snapshot

# What a run writes


def test_numbers_of_a_run(train, listener):
    result = train(seed=4, exp_name="a")
    run, status = result.run_dir, result.run_dir.status()
    assert run.path.parts[-5:] == ("runs", "a", "dqn", "CartPole", "seed4")
    assert (result.env_steps, result.updates) == (300, int(270 * 0.25))
    expected = {
        "state": "finished", "algo": "dqn", "env": "CartPole", "start": "standard", "seed": 4,
        "exp_name": "a", "env_steps": 300, "updates": 67, "steps": 300, "error": None,
        "demos": None,
    }  # fmt: skip
    assert {name: status[name] for name in expected} == expected
    assert status["wall_seconds"] == pytest.approx(result.wall_seconds, abs=1.0)
    assert status["versions"]["torch"] == torch.__version__
    assert {"command", "git", "host", "pid", "written", "final"} <= set(status)
    assert result.return_mean == status["final"]["final"]["greedy"]["return_mean"]
    assert result.success_rate is None
    assert listener.tasks[0] == ("dqn CartPole seed 4", 300, 0, "env steps")
    assert listener.warnings == []


def test_files_of_a_run(train):
    run = train().run_dir
    assert {path.name for path in run.path.iterdir()} == {
        ".lock", "config.json", "run.json", "train.csv", "episodes.csv", "eval.csv", "checkpoints",
        "rlfd.log",
    }  # fmt: skip
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "policy_000000102.safetensors", "policy_000000201.safetensors",
        "policy_000000300.safetensors", "resume_000000240", "resume_000000300",
    ]  # fmt: skip
    assert not run.is_locked()


def test_logs_of_a_run(train):
    run = train().run_dir
    rows = run.train()
    metrics = list(DQN.metric_definitions)
    assert list(rows) == [*run_dir.TRAIN_COLUMNS, *metrics]
    assert rows["env_steps"].tolist() == [60, 120, 180, 240, 300]
    assert rows["updates"].tolist() == [7, 22, 37, 52, 67]
    assert rows["wall_seconds"].is_monotonic_increasing
    assert np.isfinite(rows[metrics].to_numpy()).all()
    assert (rows[[name for name in TIMES if "/" in name]].sum(axis=1) <= 1.001).all()

    episodes = run.episodes()
    assert list(episodes) == list(run_dir.EPISODE_COLUMNS)
    assert len(episodes) > 3
    assert episodes["env_steps"].is_monotonic_increasing
    assert (
        episodes["episode_return"] == episodes["episode_length"]
    ).all()  # CartPole pays 1 a step
    # each environment's episodes follow each other without a gap
    for _, own in episodes.groupby("env_index"):
        assert own["env_steps"].tolist() == (3 * own["episode_length"].cumsum()).tolist()
    assert set(episodes["terminated"]) <= {0, 1}
    assert episodes[["success", "landed"]].isna().all().all()

    evaluations = run.evaluations()
    assert list(evaluations) == list(run_dir.EVAL_COLUMNS)
    counts = evaluations.groupby(["phase", "policy", "env_steps"]).size()
    best = run.status()["final"]["best"]["step"]
    assert counts.to_dict() == {
        ("periodic", "greedy", 102): 2, ("periodic", "greedy", 201): 2,
        ("periodic", "greedy", 300): 2, ("final", "greedy", 300): 3, ("best", "greedy", best): 3,
    }  # fmt: skip


def test_only_a_final_evaluation(train):
    run = train(eval_every=0).run_dir
    assert set(run.evaluations()["phase"]) == {"final", "best"}
    assert list(checkpoint.list_policies(run.checkpoints)) == [300]
    final = run.status()["final"]
    assert final["best"].pop("step") == 300
    assert final["best"] == final["final"]


@pytest.mark.parametrize("eval_every", [0, 100])
def test_no_final_evaluation(train, eval_every):
    """The weights are the same as with one, and can be evaluated later."""
    with_one = learned(train(runs="other", eval_every=eval_every).run_dir)
    result = train(eval_every=eval_every, final_episodes=0)
    run = result.run_dir
    assert (result.return_mean, result.success_rate) == (None, None)
    assert (run.status()["state"], run.status()["final"]) == ("finished", None)
    assert set(run.evaluations()["phase"]) == ({"periodic"} if eval_every else set())
    assert learned(run) == with_one
    assert max(checkpoint.list_policies(run.checkpoints)) == 300
    table = results_table([run]).set_index("measure")
    assert table.loc["final, greedy", "n"] == 0
    shown = display_table(results_table([run]))
    assert (shown[["final, greedy", "best, greedy"]] == "–").all().all()
    assert evaluate_run(run, episodes=2).episodes == 2


def test_runs_with_and_without_evaluations_stand_in_one_table(train):
    lander = EnvConfig("LunarLander")
    runs = [train(env=lander, steps=60, final_episodes=n, seed=n).run_dir for n in (0, 1)]
    table = results_table(runs).set_index("measure")
    assert set(table["metric"]) == {"success"}  # of which the one without says nothing
    assert table.loc["final, greedy", "n"] == 1


def test_the_best_checkpoint_is_evaluated_again(train, monkeypatch):
    """Its numbers are those of its weights, not of the last ones."""
    monkeypatch.setattr(runner, "best_step", lambda _: 102)
    run = train(final_episodes=20).run_dir
    final = run.status()["final"]
    assert final["best"]["step"] == 102
    again = evaluate_run(run, episodes=20, checkpoint="102")
    assert again.return_mean == final["best"]["greedy"]["return_mean"]
    assert set(run.evaluations().query("phase == 'best'")["env_steps"]) == {102}


def test_the_budget_of_methods_that_do_not_interact(train, collect):
    collect()
    result = train("bc", settings=["max_epochs=3", "batch_size=11"])
    run = result.run_dir
    assert result.env_steps == 0
    assert result.updates > 0
    assert run.train()["updates"].is_monotonic_increasing
    assert len(run.train()) == 3  # one row for each epoch
    assert run.train()["epochs"].tolist() == [1, 2, 3]
    assert run.status()["epochs"] == 3
    assert len(run.episodes()) == 0
    assert run.evaluations().query("phase == 'final'")["env_steps"].unique() == [result.updates]
    status = run.status()
    assert status["demos"]["name"] == "CartPole/good-v0"
    assert status["demos"]["episodes"] == 3


def test_methods_without_epochs_have_no_such_column(train):
    run = train().run_dir
    assert "epochs" not in run.train()
    assert "epochs" not in run.status()


def test_a_run_is_deterministic_and_seeds_matter(train):
    first = learned(train().run_dir)
    assert learned(train(runs="again").run_dir) == first
    other = learned(train(seed=1).run_dir)
    assert all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("algo", ["dqn", "sqil"])
def test_evaluations_do_not_disturb_learning(train, collect, algo):
    collect()
    first = learned(train(algo).run_dir)
    for number, options in enumerate(
        ({"eval_every": 0}, {"eval_every": 30, "eval_episodes": 5}, {"checkpoint_every": 50})
    ):
        assert learned(train(algo, runs=f"other{number}", **options).run_dir) == first


# Demonstrations


def test_the_newest_demonstrations_are_used_and_named(train, collect, listener):
    collect("old")
    collect("new")
    run = train("sqil").run_dir
    assert run.config().demos == "CartPole/new-v0"
    assert listener.messages == ["using the newest demonstrations, 'CartPole/new-v0'"]


def test_named_demonstrations_and_a_part_of_them(train, collect):
    collect("old", episodes=5)
    collect("new")
    run = train("sqil", demos="old", num_demos=2).run_dir
    assert run.config().demos == "CartPole/old-v0"
    assert run.status()["demos"]["episodes"] == 2
    with pytest.raises(RlfdError, match="9 demonstrations were asked for"):
        train("sqil", demos="old", num_demos=9, seed=1)


def test_missing_demonstrations_are_made(train, listener, monkeypatch, tmp_path):
    few = dataclasses.replace(registry.SPECS["CartPole"], demo_episodes=2)
    monkeypatch.setitem(registry.SPECS, "CartPole", few)
    status = train("sqil").run_dir.status()
    assert status["demos"]["episodes"] == 2
    (message,) = listener.messages
    assert "collecting 2 episodes of its controller from start 'standard'" in message
    assert len(demos.list_all(tmp_path / "data")) == 1


@pytest.mark.parametrize(
    "name", [n for n, known in registry.SPECS.items() if len(known.starts) > 1]
)
def test_missing_demonstrations_come_from_their_own_start(monkeypatch, tmp_path, name):
    """Options that belong to the run's start alone are left out there."""
    made = []
    monkeypatch.setattr(preparation, "make_demonstrator", lambda *args, **kwargs: None)
    monkeypatch.setattr(demos, "collect", lambda env, *args, **kwargs: made.append(env))
    for start in registry.SPECS[name].starts:
        preparation._collect_default(check(EnvConfig(name, start)), tmp_path, NullReporter())
    here = check(EnvConfig(name, registry.SPECS[name].demo_start))
    assert made == [here] * len(made) != []


def test_demonstrations_that_cannot_be_had(train, tmp_path):
    with pytest.raises(RlfdError, match="'dqn' does not learn from demonstrations"):
        train("dqn", demos="any")
    with pytest.raises(RlfdError, match="no demonstrations for 'Acrobot'") as caught:
        train("sqil", EnvConfig("Acrobot"))
    assert "--policy RUN" in caught.value.hint
    with pytest.raises(RlfdError, match="no demonstrations 'nothing'"):
        train("sqil", demos="nothing")
    assert snapshot(tmp_path) == {}


# TensorBoard


def test_tensorboard_files(train):
    pytest.importorskip("tensorboard")
    run = train(track=True).run_dir
    train(track=True, overwrite=True)
    assert len(list(run.tensorboard.glob("events.*"))) == 1


def test_tensorboard_that_is_not_installed(train, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(RlfdError, match="not installed"):
        train(track=True)
    assert snapshot(tmp_path) == {}


def test_the_configuration_is_never_edited(train):
    run = train().run_dir
    before = json.loads((run.path / "config.json").read_text())
    train(resume=True)
    assert json.loads((run.path / "config.json").read_text()) == before


def test_a_budget_of_updates_ends_with_the_best_validated_policy(train, collect, monkeypatch):
    collect()
    losses = iter([0.5, 0.1, 0.9, 0.8])
    monkeypatch.setattr(
        algorithms.bc.BC, "validate", lambda self: (torch.tensor(next(losses)), torch.zeros(()))
    )
    per_epoch = train("bc", settings=["max_epochs=1"]).updates
    losses = iter([0.5, 0.1, 0.9, 0.8])
    at_best = train("bc", settings=["max_epochs=2"], exp_name="best")
    losses = iter([0.5, 0.1, 0.9, 0.8])
    result = train("bc", steps=4 * per_epoch, exp_name="budget")
    assert result.updates == 4 * per_epoch
    assert learned(result.run_dir)["policy"] == learned(at_best.run_dir)["policy"]
