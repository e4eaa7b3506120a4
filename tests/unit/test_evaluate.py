"""Evaluating what a run has saved: which policy, from where, and that it repeats."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from rlfd import algorithms
from rlfd.envs import EnvConfig, PlayedEpisode, elsewhere
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint, evaluate
from rlfd.experiments.config import resolve
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.evaluate import best_step, evaluate_run
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.statistics import iqm
from rlfd.experiments.train import train
from rlfd.seeding import derive_many

CARTPOLE = EnvConfig("CartPole")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with three evaluations; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    options = {
        "steps": 300, "num_envs": 3, "eval_every": 100, "eval_episodes": 3, "final_episodes": 5,
        "compile": "off", "seed": 2,
    }  # fmt: skip
    settings = ["hidden=5", "batch_size=7", "learning_starts=30", "learning_rate=0.01"]
    resolved = resolve("soft-q", CARTPOLE, settings=settings, options=options)
    return train(resolved, runs_dir=folder, data_dir=folder).run_dir


def played(episode_return, success=None, length=10):
    dense = 3.0 * episode_return
    return PlayedEpisode(0, 1, episode_return, dense, length, True, False, success, success)


def test_summaries():
    episodes = [played(float(i * i), i % 4 == 0, 10 + i) for i in range(8)]
    found = evaluate.summarise(episodes)
    returns = np.arange(8.0) ** 2
    assert found == {
        "return_mean": returns.mean(), "return_std": returns.std(), "return_iqm": iqm(returns),
        "dense_return_mean": 3 * returns.mean(), "length_mean": 13.5, "success_rate": 0.25,
    }  # fmt: skip
    assert evaluate.summarise([played(3.0)])["success_rate"] is None
    assert all(type(value) is float for value in found.values())


# Which policy


def make_run(tmp_path, scores, *, algo="dqn", saved=None, other_policy=()):
    """Write a run whose policy at step i scored `scores[i]` = (success, return) per episode."""
    resolved = resolve(algo, CARTPOLE, settings=["hidden=3"])
    run = RunDir.of(resolved.config, tmp_path)
    run.create(resolved)
    log = run.open_eval_log()
    headline, *others = algorithms.get(algo).policies
    for policy, results in zip((headline, *others), (scores, other_policy), strict=False):
        for step, episodes in dict(results).items():
            for success, value in episodes:
                row = evaluate.evaluation_row(
                    played(value, success), env_steps=step, phase="periodic", policy=policy
                )
                log.write([row])
    log.write([evaluate.evaluation_row(played(1e9, True), env_steps=10, phase="final",
                                       policy=headline)])  # fmt: skip
    log.close()
    for step in scores if saved is None else saved:
        checkpoint.save_policy(run.checkpoints, step, {"w": torch.zeros(1)})
    return run


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({10: [(None, 1.0), (None, 3.0)], 20: [(None, 2.5), (None, 2.0)]}, 20),
        ({10: [(None, 9.0)], 20: [(None, 2.0)], 30: [(None, 5.0)]}, 10),
        ({10: [(None, -3.0)], 20: [(None, -3.0)], 30: [(None, -4.0)]}, 20),  # the later of equals
        ({100: [(None, 1.0)], 20: [(None, 1.0)]}, 100),
        ({10: [(True, -50.0), (False, 0.0)], 20: [(False, 90.0), (False, 90.0)]}, 10),
        ({10: [(True, 5.0)], 20: [(True, 4.0)], 30: [(False, 99.0)]}, 10),
        ({10: [(True, 5.0)], 20: [(True, 5.0)]}, 20),
    ],
)
def test_the_best_policy(tmp_path, scores, best):
    run = make_run(tmp_path, scores)
    assert best_step(run) == best
    assert evaluate.choose_policy(run, "best")[0] == best
    assert evaluate.choose_policy(run, "latest")[0] == max(scores)


def test_the_best_is_judged_by_the_headline_policy(tmp_path):
    run = make_run(tmp_path, {10: [(None, 5.0)], 20: [(None, 1.0)]}, algo="soft-q",
                   other_policy={20: [(None, 99.0)]})  # fmt: skip
    assert best_step(run) == 10


def test_only_what_is_saved_can_be_best(tmp_path):
    scores = {10: [(None, 5.0)], 20: [(None, 1.0)]}
    run = make_run(tmp_path, scores, saved=[20, 30])
    assert best_step(run) == 20
    assert evaluate.choose_policy(run, "latest")[0] == 30
    assert best_step(make_run(tmp_path / "2", scores, saved=[30])) is None
    assert evaluate.choose_policy(RunDir(run.path), "30")[1].name == "policy_000000030.safetensors"


def test_no_policy_of_that_name(tmp_path):
    run = make_run(tmp_path, {10: [(None, 5.0)]}, saved=[10, 2500])
    for name in ("latst", "11", "-1", ""):
        with pytest.raises(RlfdError, match="unknown checkpoint") as caught:
            evaluate.choose_policy(run, name)
        assert "saved steps: 10, 2500" in str(caught.value)
    with pytest.raises(RlfdError, match="no saved policy yet"):
        evaluate.choose_policy(make_run(tmp_path / "2", {}), "latest")


def test_a_policy_that_does_not_fit(tmp_path):
    run = make_run(tmp_path, {10: [(None, 5.0)]})
    with pytest.raises(RlfdError, match=r"policy_000000010.safetensors does not fit its run"):
        evaluate_run(run, episodes=1)


# Evaluating


@pytest.mark.parametrize("policy", ["sampled", "greedy"])
@pytest.mark.parametrize(("phase", "name"), [("final", "latest"), ("best", "best")])
def test_the_final_evaluation_can_be_repeated(trained, phase, name, policy):
    """With as many episodes `evaluate` gives the numbers of the run's own end."""
    summary = evaluate_run(trained, episodes=5, checkpoint=name, policy=policy)
    expected = trained.status()["final"][phase]
    assert {key: getattr(summary, key) for key in expected[policy]} == expected[policy]
    step = 300 if name == "latest" else expected["step"]
    assert (summary.checkpoint, summary.policy, summary.episodes) == (step, policy, 5)
    assert (summary.algo, summary.env, summary.start) == ("soft-q", "CartPole", "standard")
    assert summary.run == str(trained.path)
    assert summary.videos == []


def test_every_saved_step_can_be_evaluated(trained):
    steps = list(checkpoint.list_policies(trained.checkpoints))
    assert len(steps) == 3
    found = [evaluate_run(trained, episodes=2, checkpoint=str(step)) for step in steps]
    assert [summary.checkpoint for summary in found] == steps
    assert {summary.policy for summary in found} == {"greedy"}  # the headline


def test_seeds_of_an_evaluation(trained):
    first = evaluate_run(trained, episodes=4, seed=8)
    assert evaluate_run(trained, episodes=4, seed=8) == first
    assert evaluate_run(trained, episodes=4, seed=9) != first
    assert evaluate_run(trained, episodes=4) == evaluate_run(trained, episodes=4, seed=2)


def test_what_cannot_be_evaluated(trained):
    with pytest.raises(RlfdError, match="unknown policy of soft-q 'gredy', did you mean 'greedy'"):
        evaluate_run(trained, episodes=1, policy="gredy")
    with pytest.raises(RlfdError, match="unknown start of CartPole 'shifted'"):
        evaluate_run(trained, episodes=1, start="shifted")


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_the_newest_policy_is_not_quietly_an_older_one(trained, tmp_path, how):
    run = RunDir(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    path = max(run.checkpoints.glob("policy_*"))
    if how == "missing":
        path.unlink()
    else:
        checkpoint.write_policy(path, checkpoint.load_policy(min(run.checkpoints.glob("policy_*"))))
    for name in ("latest", "best"):
        with pytest.raises(RlfdError, match=rf"damaged since it finished: .*{path.name}.*{how}"):
            evaluate_run(run, episodes=2, checkpoint=name)
    assert evaluate_run(run, episodes=2, checkpoint="102").checkpoint == 102


def test_an_evaluation_writes_nothing(trained):
    def snapshot():
        return {p: p.read_bytes() for p in trained.path.rglob("*") if p.is_file()}

    before = snapshot()
    evaluate_run(trained, episodes=1)
    make_demonstrator(str(trained.path), CARTPOLE, checkpoint="best", seed=0)
    assert snapshot() == before


def test_another_start_leaves_out_the_options_of_the_old_one():
    env = EnvConfig("LunarLander", "demo", {"push_scale": 0.5})
    assert elsewhere(env, "demo", None).options == {"push_scale": 0.5}
    assert elsewhere(env, "shifted", None) == EnvConfig("LunarLander", "shifted")
    sparse = EnvConfig("Hopper", "standard", {"unit": 2.0}, "sparse")
    assert elsewhere(sparse, None, "dense") == EnvConfig("Hopper")


# Seeds and the run's own evaluations


def test_start_states_of_a_run(trained):
    rows = trained.evaluations()
    seeds = {
        key: group["seed"].tolist() for key, group in rows.groupby(["phase", "policy", "env_steps"])
    }
    by_kind = {}
    for (phase, policy, _), values in seeds.items():
        by_kind.setdefault((phase, policy), []).append(values)
    assert len(by_kind["periodic", "sampled"]) == 3
    for values in by_kind.values():  # the same start states every time, so that curves compare
        assert all(value == values[0] for value in values)
    fresh = derive_many(10_002, "evaluation final", 5)
    for phase in ("final", "best"):
        for policy in ("sampled", "greedy"):
            assert by_kind[phase, policy][0] == fresh
    periodic = {*by_kind["periodic", "sampled"][0], *by_kind["periodic", "greedy"][0]}
    assert len(periodic) == 6
    assert periodic.isdisjoint(fresh)


def test_final_rows_agree_with_the_summary(trained):
    rows, final = trained.evaluations(), trained.status()["final"]
    assert final["best"]["step"] == best_step(trained)
    for (phase, policy), group in rows[rows["phase"] != "periodic"].groupby(["phase", "policy"]):
        assert group["episode"].tolist() == list(range(5))
        assert group["episode_return"].mean() == pytest.approx(final[phase][policy]["return_mean"])
        assert set(group["env_steps"]) == {300 if phase == "final" else final["best"]["step"]}
        assert pd.isna(group["success"]).all()


def test_summaries_have_the_fields_that_the_command_promises(trained):
    names = {field.name for field in dataclasses.fields(evaluate.EvalSummary)}
    assert names >= {
        "run", "algo", "env", "start", "episodes", "return_mean", "return_std", "return_iqm",
        "length_mean", "success_rate",
    }  # fmt: skip
