"""Runs that are begun where one is already, or gone on with."""

import shlex
import shutil

import pytest

from rlfd import algorithms
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint, runner
from rlfd.experiments import train as training
from rlfd.experiments.config import resolve

from .tiny_runs import CARTPOLE, learned, snapshot, unfinish

# Refused before anything is touched


def test_an_existing_run(train):
    run = train().run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=r"already holds a run \(finished, 300 env steps") as caught:
        train()
    for option in ("--resume", "--overwrite", "--exp-name"):
        assert option in caught.value.hint
    assert snapshot(run.path) == before


def test_remains_of_another_run_are_not_taken_over(train):
    run = train().run_dir
    (run.path / "config.json").unlink()
    before = snapshot(run.path)
    for how in ({}, {"resume": True}):
        with pytest.raises(RlfdError, match=r"no config\.json|no run to resume"):
            train(**how)
    assert snapshot(run.path) == before
    fresh = train(overwrite=True, seed=0, steps=120, eval_every=0)
    assert sorted(fresh.run_dir.evaluations()["env_steps"].unique()) == [120]


def test_a_finished_run_is_not_written_to(train, listener):
    run = train().run_dir
    (run.path / "eval.csv").write_text("damaged")
    before = snapshot(run.path)
    result = train(resume=True)
    assert snapshot(run.path) == before
    assert "finished already" in listener.messages[-1]
    assert (result.env_steps, result.run_dir) == (300, run)


@pytest.mark.parametrize("damaged", ["train.csv", "episodes.csv", "eval.csv"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_logs_are_looked_at_before_any_is_cut(train, damaged, how):
    run = unfinish(train().run_dir)
    text = (run.path / damaged).read_text()
    (run.path / damaged).write_text(text[:150] if how == "cut" else text.replace("1", "7", 1))
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=rf"{damaged} (has 150 bytes|was changed)"):
        train(resume=True)
    assert snapshot(run.path) == before


def test_a_checkpoint_of_another_version(train):
    """Its state lacks what this one's next update depends on."""
    run = unfinish(train().run_dir)
    state, _ = checkpoint.load_newest(run.checkpoints)
    del state["algorithm"]["learner"]
    checkpoint.save_resume(run.checkpoints, state["progress"], state)
    with pytest.raises(RlfdError, match="does not fit this version of 'dqn': KeyError") as caught:
        train(resume=True)
    assert caught.value.exit_code == 2
    assert "made_by" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.clear(),
        lambda state: state.pop("algorithm"),
        lambda state: state.update(pending=[]),
        lambda state: state.update(log_sizes={"eval": "7"}),
        lambda state: state.update(wall_seconds=None),
    ],
)
def test_a_checkpoint_without_what_it_needs_falls_back(train, change):
    """Its digest is right: somebody made it so."""
    run = train().run_dir
    before = learned(run)
    unfinish(run)
    state, _ = checkpoint.load_newest(run.checkpoints)
    step = state["progress"]
    change(state)
    checkpoint.save_resume(run.checkpoints, step, state)
    train(resume=True)
    assert learned(run) == before


def test_a_checkpoint_whose_world_is_none(train):
    run = unfinish(train().run_dir)
    state, _ = checkpoint.load_newest(run.checkpoints)
    state["world"]["envs"][1]["seed"] = 0.5
    checkpoint.save_resume(run.checkpoints, state["progress"], state)
    with pytest.raises(RlfdError, match="does not fit this version of 'dqn'"):
        train(resume=True)


def test_nothing_to_resume(train, tmp_path):
    with pytest.raises(RlfdError, match="no run to resume"):
        train(resume=True)
    assert snapshot(tmp_path) == {}


def test_resuming_with_other_settings(train, collect):
    collect("good")
    collect("other")
    run = train("sqil", demos="good").run_dir
    before = snapshot(run.path)
    for settings, options, text in (
        (["gamma=0.5"], {}, "algorithm.gamma=0.99, now algorithm.gamma=0.5"),
        (["hidden=5,5"], {}, r"algorithm.hidden=\[5\], now algorithm.hidden=\[5, 5\]"),
        ([], {"steps": 301}, "steps=300, now steps=301"),
        ([], {"num_envs": 4}, "num_envs=3, now num_envs=4"),
        ([], {"num_demos": 1}, "num_demos=None, now num_demos=1"),
        ([], {"demos": "other"}, "demos=CartPole/good-v0, now demos=CartPole/other-v0"),
    ):
        with pytest.raises(RlfdError, match=text):
            train("sqil", settings=settings, resume=True, **options)
    assert snapshot(run.path) == before


def test_resuming_with_the_same_settings_however_spelt(train, collect, tmp_path):
    collect("good")
    run = train("sqil", demos="good").run_dir
    before = learned(run)
    for demos_name in (
        "good",
        "good-v0",
        "CartPole/good",
        str(tmp_path / "data/demos/CartPole/good-v0"),
    ):
        train("sqil", settings=["hidden=(5,)"], resume=True, steps=300, demos=demos_name)
    assert learned(run) == before


def test_resuming_with_other_environment_options(train, collect):
    lander = EnvConfig("LunarLander", "demo", {"push_scale": 0.25})
    few = {"steps": 60, "eval_episodes": 1, "final_episodes": 1, "eval_every": 0}
    run = train("dqn", lander, **few).run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match=r"started with env=.*0.25.*now env=.*0.0"):
        train("dqn", EnvConfig("LunarLander", "demo"), resume=True)
    assert snapshot(run.path) == before
    train("dqn", lander, resume=True)


def test_a_run_that_somebody_works_on(train):
    run = unfinish(train().run_dir)
    before = snapshot(run.path)
    with run.lock():
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(RlfdError, match="worked on by another process"):
                train(**how)
    assert snapshot(run.path) == before


def test_folders_that_cannot_be_written(train, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RlfdError, match="cannot write run folder") as caught:
        train()
    assert caught.value.exit_code == 2
    assert "--runs-dir" in caught.value.hint


def test_settings_that_the_algorithm_refuses(train, collect, tmp_path):
    """They show when it is built: no folder is left behind, and no old run was deleted for it."""
    collect()
    with pytest.raises(RlfdError, match="loss=mse is for continuous actions"):
        train("bc", settings=["loss=mse"])
    assert not (tmp_path / "runs").exists()
    run = train("bc", settings=["max_epochs=1"]).run_dir
    before = snapshot(run.path)
    with pytest.raises(RlfdError, match="loss=mse is for continuous actions"):
        train("bc", settings=["loss=mse"], overwrite=True)
    assert snapshot(run.path) == before


def test_actions_that_the_algorithm_was_not_made_for(train, tmp_path):
    with pytest.raises(RlfdError, match="needs discrete actions"):
        train("dqn", EnvConfig("Pendulum-v1"))
    assert snapshot(tmp_path) == {}


# Starting again and going on


def test_overwriting_leaves_nothing_of_the_old_run(train):
    run = train(eval_every=30, checkpoint_every=30).run_dir
    (run.path / "videos").mkdir()
    (run.path / "videos" / "a.mp4").write_text("")
    train(overwrite=True)
    fresh = train(runs="fresh").run_dir
    assert set(snapshot(run.path)) == set(snapshot(fresh.path))
    assert learned(run) == learned(fresh)


@pytest.mark.parametrize("algo", ["dqfd", "nac"])
def test_pretraining_that_died_goes_on_where_it_was_saved(
    train, collect, listener, monkeypatch, algo
):
    """No env step says how far it is: rows and checkpoints go by its updates."""
    monkeypatch.setattr(runner, "PRETRAIN_LOG_UPDATES", 200)
    collect()
    settings = ["pretrain_updates=530"]
    whole = train(algo, settings=settings, exp_name="whole").run_dir
    assert listener.tasks[0] == (f"{algo} CartPole seed 0: pretraining", 530, 0, "updates")
    rows = whole.train()[["env_steps", "updates"]].to_numpy().tolist()
    assert rows[:3] == [[0, 200], [0, 400], [0, 530]]
    assert rows[3][0] > 0
    assert whole.evaluations()["env_steps"].min() == 0  # what pretraining alone is worth

    cls = algorithms.get(algo)
    original = cls.iteration

    def dying(self, world):
        if self.updates == 500:
            raise RuntimeError("the power went")
        return original(self, world)

    with monkeypatch.context() as patched:
        patched.setattr(cls, "iteration", dying)
        with pytest.raises(RuntimeError, match="the power went"):
            train(algo, settings=settings, exp_name="parts")
    parts = train(algo, resume=True, exp_name="parts").run_dir
    assert "resuming at update 400" in listener.messages
    assert learned(parts) == learned(whole)
    assert parts.evaluations().equals(whole.evaluations())


def test_a_run_that_was_stopped_at_its_end_is_the_same(train, listener):
    run = train().run_dir
    before = snapshot(run.path)
    unfinish(run)
    train(resume=True)
    assert listener.messages == ["resuming at 300"]
    after = snapshot(run.path)
    changing = {"run.json", "checkpoints/resume_000000300/state.json",
                "checkpoints/resume_000000300/complete.json"}  # fmt: skip
    assert {name for name in before if before[name] != after[name]} <= changing
    assert before.keys() == after.keys()


def test_all_code_that_made_a_run_is_named(train, monkeypatch):
    run = train(steps=300).run_dir
    (first,) = run.status()["made_by"]
    assert first["from"] == 0
    unfinish(run)
    train(resume=True)
    assert run.status()["made_by"] == [first]
    unfinish(run)
    now = runner.provenance() | {"git": {"commit": "c", "dirty": False}}
    monkeypatch.setattr(runner, "provenance", lambda: now)
    train(resume=True)
    second = {"from": 300} | {name: now[name] for name in ("git", "versions", "host")}
    assert run.status()["made_by"] == [first, second]


def test_demonstrations_that_changed_since(train, collect, tmp_path):
    """Refused, and refused again: being refused does not make them right."""
    collect("good", seed=0)
    run = train("sqil", demos="good").run_dir
    before = snapshot(run.path)
    shutil.rmtree(tmp_path / "data")
    collect("good", seed=1)
    for _ in range(2):
        with pytest.raises(RlfdError, match="are not those that run"):
            train("sqil", resume=True)
        assert snapshot(run.path) == before
    shutil.rmtree(tmp_path / "data")
    collect("good", seed=0)
    train("sqil", resume=True)


def test_the_resume_command(tmp_path):
    def command(env, runs="runs", data="data", **options):
        config = resolve("dqn", env, options=options).config
        return training._resume_command(config, type(tmp_path)(runs), type(tmp_path)(data))

    assert command(CARTPOLE) == "rlfd train dqn --env CartPole --resume"
    assert command(EnvConfig("LunarLander", "shifted"), seed=3, exp_name="a", runs="my runs") == (
        "rlfd train dqn --env LunarLander --start shifted --seed 3 --exp-name a "
        "--runs-dir 'my runs' --resume"
    )
    assert command(EnvConfig("LunarLander", "demo", {"push_scale": 0.0}), data="d") == (
        "rlfd train dqn --env LunarLander --start demo --data-dir d --resume"
    )
    words = shlex.split(command(EnvConfig("LunarLander", "demo", {"push_scale": 0.5})))
    assert words[words.index("--env-option") + 1] == "push_scale=0.5"
    words = shlex.split(command(EnvConfig("CartPole-v1", options={"sutton_barto_reward": True})))
    assert words[words.index("--env-option") + 1] == "sutton_barto_reward=true"
