"""Runs that start from another run's policy: what is taken over, recorded, refused, survived."""

import shutil

import pytest
import torch

from rlfd import algorithms, demos
from rlfd.algorithms.rl.dqn import DQN
from rlfd.demos import make_demonstrator
from rlfd.envs import EnvConfig
from rlfd.errors import Interrupted, RlfdError
from rlfd.experiments import checkpoint, runner
from rlfd.experiments import train as training
from rlfd.experiments.config import resolve
from rlfd.experiments.initial_policy import same_init

from .tiny_runs import acknowledge

CARTPOLE = EnvConfig("CartPole")
OPTIONS = {
    "steps": 210, "num_envs": 3, "log_every": 60, "eval_every": 90, "eval_episodes": 2,
    "final_episodes": 3, "checkpoint_every": 90, "compile": "off",
}  # fmt: skip
SETTINGS = {
    "hidden": "5,9", "batch_size": "7", "learning_starts": "30", "updates_per_env_step": "0.25",
    "max_epochs": "2",
}  # fmt: skip


@pytest.fixture
def train(tmp_path):
    """Return a function that trains a tiny run below the test's folder."""

    def run(algo="dqn", env=CARTPOLE, *, settings=(), resume=False, overwrite=False, **options):
        usual = {} if resume else OPTIONS
        if not algorithms.get(algo).needs.interaction:
            usual = {name: usual[name] for name in usual if name.endswith("episodes")}
        own = [f"{k}={v}" for k, v in SETTINGS.items() if hasattr(algorithms.get(algo).Config(), k)]
        own = [] if resume else own
        resolved = resolve(algo, env, settings=[*own, *settings], options=usual | options)
        return training.train(
            resolved, runs_dir=tmp_path / "runs", data_dir=tmp_path / "data",
            resume=resume, overwrite=overwrite,
        ).run_dir  # fmt: skip

    return run


@pytest.fixture
def source(train):
    return train(exp_name="source")


def policy(run, step):
    return checkpoint.load_policy(checkpoint.list_policies(run.checkpoints)[step])


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def learned(run):
    return [path.read_bytes() for path in sorted(run.path.rglob("*.safetensors"))] + [
        (run.path / name).read_text() for name in ("episodes.csv", "eval.csv")
    ]


def test_the_policy_is_taken_over_evaluated_and_recorded(train, source):
    run = train(seed=1, init="source/dqn/CartPole/seed0")
    assert equal(policy(run, 0), policy(source, 210))
    assert not equal(policy(run, 210), policy(source, 210))
    name = "source/dqn/CartPole/seed0:210"
    assert run.config().init == name
    record = run.status()["init"]
    digest = record.pop("digest")
    assert record == {"run": name.partition(":")[0], "algo": "dqn", "checkpoint": 210}
    assert digest.startswith("sha256:")
    rows = run.evaluations().query("phase == 'periodic'")
    assert rows["env_steps"].unique().tolist() == [0, 90, 180]
    again = train(seed=1, init="source/dqn/CartPole/seed0", exp_name="again")
    assert again.status()["init"]["digest"] == digest
    assert learned(again) == learned(run)
    assert learned(train(seed=1, exp_name="none")) != learned(run)


def test_target_networks_start_from_it_too(make_algorithm):
    first, second = (make_algorithm("dqn", seed=seed) for seed in (0, 1))
    second.start_from(first.policy_state())
    assert equal(second.policy_state(), first.policy_state())
    assert equal(second.learner.engine.target_parameters, first.policy_state())


@pytest.mark.parametrize(("checkpoint_name", "step"), [("", 210), (":latest", 210), (":90", 90)])
def test_which_checkpoint(train, source, checkpoint_name, step):
    run = train(init=f"{source.path}{checkpoint_name}", steps=60)
    assert run.status()["init"]["checkpoint"] == step
    assert equal(policy(run, 0), policy(source, step))


def test_the_best_checkpoint(train, source, monkeypatch):
    monkeypatch.setattr("rlfd.experiments.evaluate.best_step", lambda _: 180)
    assert train(init=f"{source.path}:best").config().init.endswith("seed0:180")


def test_no_evaluations_means_none_at_the_start(train, source):
    run = train(init=str(source.path), eval_every=0)
    assert list(checkpoint.list_policies(run.checkpoints)) == [210]


def test_methods_that_do_not_interact(train, tmp_path):
    actor = make_demonstrator("random", CARTPOLE, seed=0)
    demos.collect(CARTPOLE, actor, episodes=3, data_dir=tmp_path / "data")
    source = train("bc", exp_name="source")
    run = train("bc", init=str(source.path), steps=1, settings=["learning_rate=1e-30"])
    (step,) = checkpoint.list_policies(run.checkpoints)
    (last,) = checkpoint.list_policies(source.checkpoints)
    assert equal(policy(run, step), policy(source, last))


@pytest.mark.parametrize("algo", ["trpo", "ppo", "mcpo", "pofd", "gmmil", "gail"])
def test_a_clone_goes_on_learning_with_its_own_statistics(train, tmp_path, algo):
    pendulum = EnvConfig("Pendulum")
    actor = make_demonstrator("random", pendulum, seed=0)
    demos.collect(pendulum, actor, episodes=2, data_dir=tmp_path / "data")
    tanh = ["activation=tanh", "hidden=5,9"]
    source = train("bc", pendulum, exp_name="source", settings=tanh)
    run = train(algo, pendulum, init=str(source.path), settings=[*tanh, "batch_steps=105"])
    clone, learned = policy(source, source.status()["updates"]), policy(run, 210)
    assert equal(policy(run, 0), clone)
    assert torch.equal(learned["mean"], clone["mean"])
    assert torch.equal(learned["std"], clone["std"])
    assert not equal(learned, clone)
    with pytest.raises(RlfdError, match="activation is tanh there, relu here"):
        train(algo, pendulum, init=str(source.path), seed=1, settings=[*tanh, "activation=relu"])


# Going on


@pytest.fixture
def interrupted(train, source, monkeypatch):
    """A run that was stopped, after its first checkpoint or before it."""

    def make(at):
        iteration = DQN.iteration

        def stopping(self, world):
            if world.env_steps >= at:
                raise KeyboardInterrupt
            return iteration(self, world)

        with monkeypatch.context() as patch:
            patch.setattr(DQN, "iteration", stopping)
            with pytest.raises(KeyboardInterrupt):
                train(seed=1, init="source/dqn/CartPole/seed0")

    return make


@pytest.mark.parametrize("at", [30, 120])
def test_resuming_ends_as_if_never_stopped(train, interrupted, at):
    whole = train(seed=1, init="source/dqn/CartPole/seed0", exp_name="whole")
    interrupted(at)
    run = train(seed=1, resume=True)
    assert learned(run) == learned(whole)
    assert run.status()["init"] == whole.status()["init"]


def test_resuming_without_the_source(train, source, interrupted):
    interrupted(120)
    shutil.rmtree(source.path)
    run = train(seed=1, init="source/dqn/CartPole/seed0", resume=True)
    assert run.status()["state"] == "finished"
    assert run.status()["init"]["checkpoint"] == 210


def test_before_the_first_checkpoint_the_source_is_needed(train, source, interrupted):
    interrupted(30)
    source.path.rename(source.path.with_name("seed9"))
    with pytest.raises(RlfdError, match=r"has no checkpoint yet, and its start .*seed0:210") as no:
        train(seed=1, resume=True)
    assert "--overwrite" in no.value.hint


def test_a_source_that_has_changed(train, source, interrupted):
    interrupted(30)
    train(exp_name="source", overwrite=True, settings=["gamma=0.1"])
    with pytest.raises(RlfdError, match="is not the one that this run was started from"):
        train(seed=1, resume=True)


def test_resuming_from_elsewhere(train, source):
    run = train(init=str(source.path))
    for init in ("other", f"{source.path}:90"):
        with pytest.raises(RlfdError, match=r"init=.*seed0:210, now init="):
            train(resume=True, init=init)
    plain = train(seed=1)
    with pytest.raises(RlfdError, match="init=None, now init="):
        train(seed=1, resume=True, init=str(source.path))
    assert run.status()["state"] == plain.status()["state"] == "finished"


def test_spellings_of_one_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    stored = "default/bc/CartPole/seed0:20"
    for given in ("default/bc/CartPole/seed0", "bc/CartPole/seed0:20", "bc/CartPole/seed0:best"):
        assert same_init(given, stored, runs)
    assert same_init("runs/default/bc/CartPole/seed0", stored, runs)
    assert same_init(f"{runs}/default/bc/CartPole/seed0", stored, runs)
    for given in ("bc/CartPole/seed1", "bc/CartPole/seed0:21", None):
        assert not same_init(given, stored, runs)


def test_the_command_that_continues(train, source, monkeypatch):
    monkeypatch.setattr(runner.StopSignal, "received", True)
    with pytest.raises(Interrupted) as caught:
        train(init=str(source.path))
    assert "--init source/dqn/CartPole/seed0:210" in caught.value.hint


def test_pretraining_that_was_interrupted_is_no_start(train, tmp_path, monkeypatch):
    """It makes no env steps: a run that goes on with it is no longer where it began."""
    actor = make_demonstrator("controller", CARTPOLE, seed=0)
    demos.collect(CARTPOLE, actor, episodes=2, data_dir=tmp_path / "data")
    settings = ["pretrain_updates=300"]
    source = train("dqfd", settings=settings, exp_name="source")
    options = {"settings": settings, "init": str(source.path)}
    whole = train("dqfd", exp_name="whole", **options)
    with monkeypatch.context() as patched:
        patched.setattr(runner.StopSignal, "received", True)
        with pytest.raises(Interrupted):
            train("dqfd", exp_name="parts", **options)
    parts = train("dqfd", exp_name="parts", resume=True)
    assert parts.evaluations().equals(whole.evaluations())
    assert equal(policy(parts, 0), policy(whole, 0))


def test_a_policy_without_its_clip_has_that_of_its_method(train, tmp_path):
    actor = make_demonstrator("random", CARTPOLE, seed=0)
    demos.collect(CARTPOLE, actor, episodes=3, data_dir=tmp_path / "data")
    source = train("bc", exp_name="source", settings=["activation=tanh"])
    (step,) = checkpoint.list_policies(source.checkpoints)
    place = checkpoint.list_policies(source.checkpoints)[step]
    clone = checkpoint.load_policy(place)
    checkpoint.write_policy(place, {n: value for n, value in clone.items() if n != "clip"})
    acknowledge(source)
    settings = ["activation=tanh", "batch_steps=105"]
    run = train("ppo", init=str(source.path), settings=settings)
    assert policy(run, 0)["clip"] == clone["clip"] > 1e30


# Refused, before anything of the run is written


@pytest.mark.parametrize(
    ("init", "texts"),
    [
        ("sorce/dqn/CartPole/seed0", ["unknown run", "did you mean 'source/dqn/CartPole/seed0'"]),
        ("source/dqn/CartPole/seed0:17", ["unknown checkpoint '17'", "90, 180, 210"]),
        ("source/dqn/CartPole/seed0:bst", ["did you mean 'best'"]),
    ],
)
def test_starts_that_are_not_there(train, source, tmp_path, init, texts):
    with pytest.raises(RlfdError) as caught:
        train(init=init)
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not (tmp_path / "runs/default").exists()


@pytest.mark.parametrize(
    ("algo", "env", "settings", "texts"),
    [
        ("dqn", CARTPOLE, ["hidden=9,5"], ["hidden is 5,9 there, 9,5 here", "--set hidden=5,9"]),
        (
            "dqn",
            CARTPOLE,
            ["layer_norm=false", "dueling=true"],
            ["layer_norm is true there, false here; dueling is false there", "dueling=false"],
        ),
        ("dqn", EnvConfig("MountainCar"), [], ["observations have shape (4,) there, (2,) here"]),
        ("dqn", EnvConfig("MountainCar"), [], ["actions have size (2,) there, (3,) here"]),
        ("sqil", CARTPOLE, [], []),
        (
            "bc",
            CARTPOLE,
            ["layer_norm=false"],
            ["only the policy here has body", "there has ", "of 'dqn' is not"],
        ),
    ],
)
def test_policies_that_do_not_fit(train, source, tmp_path, algo, env, settings, texts):
    if algo != "dqn":
        actor = make_demonstrator("random", CARTPOLE, seed=0)
        demos.collect(CARTPOLE, actor, episodes=3, data_dir=tmp_path / "data")
    if not texts:  # another method with the same network
        run = train(algo, env, settings=settings, init=str(source.path))
        assert equal(policy(run, 0), policy(source, 210))
        return
    with pytest.raises(RlfdError) as caught:
        train(algo, env, settings=settings, init=str(source.path))
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not (tmp_path / "runs/default").exists()


def test_a_clone_of_another_temperature_is_another_policy(train, tmp_path):
    actor = make_demonstrator("random", CARTPOLE, seed=0)
    demos.collect(CARTPOLE, actor, episodes=3, data_dir=tmp_path / "data")
    tanh = ["activation=tanh", "hidden=5,9"]
    source = train("bc", exp_name="clone", settings=[*tanh, "temperature=0.5"])
    with pytest.raises(RlfdError, match=r"temperature is 0\.5 there, 1 here") as caught:
        train("trpo", init=str(source.path), settings=tanh)
    assert caught.value.hint == "choose a run with temperature=1"


def test_continuous_actions_from_discrete_ones(train, source, tmp_path):
    actor = make_demonstrator("random", EnvConfig("Pendulum-v1"), seed=0)
    demos.collect(EnvConfig("Pendulum-v1"), actor, episodes=2, data_dir=tmp_path / "data")
    with pytest.raises(RlfdError, match="actions are discrete there, continuous here"):
        train("bc", EnvConfig("Pendulum-v1"), init=str(source.path))


def test_a_run_cannot_start_from_itself(train, source):
    before = learned(source)
    with pytest.raises(RlfdError, match="cannot start from itself"):
        train(exp_name="source", init=str(source.path), overwrite=True)
    assert learned(source) == before
