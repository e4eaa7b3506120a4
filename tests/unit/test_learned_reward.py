"""Runs trained on another run's learned reward: saved, paid, recorded, refused, resumed."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from rlfd import algorithms, demos
from rlfd.demos import make_demonstrator
from rlfd.envs import EnvConfig, World
from rlfd.errors import Interrupted, RlfdError
from rlfd.experiments import checkpoint, learned_reward, runner
from rlfd.experiments import train as training
from rlfd.experiments.config import resolve

from .tiny_runs import acknowledge

CARTPOLE = EnvConfig("CartPole")
OPTIONS = {
    "steps": 240, "num_envs": 3, "log_every": 60, "eval_every": 120, "eval_episodes": 2,
    "final_episodes": 3, "checkpoint_every": 120, "compile": "off",
}  # fmt: skip
SETTINGS = {
    "hidden": "5,9", "batch_steps": "60", "d_steps": "3", "minibatch_size": "30", "epochs": "1",
    "reward_steps": "3", "max_length": "9", "clone_steps": "5",
}  # fmt: skip
SOURCE = "source/airl/CartPole/seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with demonstrations and a run of airl; its runs may be added to, not changed."""
    folder = tmp_path_factory.mktemp("rewards")
    actor = make_demonstrator("controller", CARTPOLE, seed=0)
    demos.collect(CARTPOLE, actor, episodes=3, name="few", data_dir=folder / "data")
    run_in(folder, "airl", exp_name="source")
    return folder


def run_in(folder, algo="ppo", env=CARTPOLE, *, settings=(), resume=False, **options):
    usual = {} if resume else OPTIONS
    config = algorithms.get(algo).Config()
    read = {field.name for field in dataclasses.fields(config)} - config.unread().keys()
    own = [f"{name}={value}" for name, value in SETTINGS.items() if name in read]
    resolved = resolve(
        algo, env, settings=[*([] if resume else own), *settings], options=usual | options
    )
    return training.train(
        resolved, runs_dir=folder / "runs", data_dir=folder / "data", resume=resume
    ).run_dir


@pytest.fixture
def train(folder, request):
    """Return a function that trains a tiny run of a name of its own."""

    def run(algo="ppo", env=CARTPOLE, **options):
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)
        return run_in(folder, algo, env, **{"exp_name": name} | options)

    return run


def learned(run):
    return [path.read_bytes() for path in sorted(run.path.rglob("policy_*"))] + [
        (run.path / name).read_text() for name in ("episodes.csv", "eval.csv")
    ]


def note_rewards(monkeypatch):
    """Return the transitions of all worlds from now on."""
    seen, step = [], World.step

    def noting(self, actions):
        seen.append(step(self, actions))
        return seen[-1]

    monkeypatch.setattr(World, "step", noting)
    return seen


@pytest.mark.parametrize("algo", ["airl", "gcl"])
def test_a_reward_is_saved_beside_each_policy(folder, train, algo):
    run = train(algo)
    policies = checkpoint.list_policies(run.checkpoints)
    rewards = checkpoint.list_rewards(run.checkpoints)
    assert list(rewards) == list(policies) == [120, 240]
    assert list(checkpoint.list_rewards(train("ppo", seed=1).checkpoints)) == []
    checkpoint.forget_after(run.checkpoints, 120)
    assert list(checkpoint.list_rewards(run.checkpoints)) == [120]


def test_the_learner_is_paid_it_and_nothing_else_changes(folder, train, monkeypatch):
    seen = note_rewards(monkeypatch)
    run = train(reward_from=SOURCE)
    assert run.config().reward_from == f"{SOURCE}:240"
    record = run.status()["reward_from"]
    assert record.pop("digest").startswith("sha256:")
    assert record == {"run": SOURCE, "algo": "airl", "env": "CartPole", "checkpoint": 240}
    reward, _ = learned_reward.learned_reward(run.config(), folder / "runs")
    assert len(seen) == 80
    for step in (seen[0], seen[7], seen[79]):
        assert step.rewards.tolist() == [1.0] * 3
        paid = reward(step.observations, step.actions, step.next_observations, step.terminated)
        np.testing.assert_array_equal(step.learner_rewards, paid)
        assert not np.array_equal(paid, step.rewards)
    episodes = run.episodes()
    assert (episodes["episode_return"] == episodes["episode_length"]).all()
    evaluations = run.evaluations()
    assert (evaluations["episode_return"] == evaluations["episode_length"]).all()
    plain = train(exp_name="plain")
    assert learned(plain) != learned(run)
    assert plain.status()["reward_from"] is None


def test_which_checkpoint(folder, train):
    run = train(reward_from=f"{folder / 'runs' / SOURCE}:120", steps=60)
    assert run.config().reward_from == f"{SOURCE}:120"
    best = train(reward_from=f"{SOURCE}:best", steps=60, exp_name="best")
    assert best.config().reward_from in (f"{SOURCE}:120", f"{SOURCE}:240")


def test_demonstrations_with_rewards_are_paid_by_it_too(folder, train, monkeypatch):
    """SIL's memory holds demonstrated returns: they must be of the same reward."""
    given = []
    build = training.build_algorithm

    def noting(config, demonstrations, demonstrator):
        given.append(demonstrations)
        return build(config, demonstrations, demonstrator)

    monkeypatch.setattr(training, "build_algorithm", noting)
    run = train("sil", demos="few", reward_from=SOURCE, steps=60)
    reward, _ = learned_reward.learned_reward(run.config(), folder / "runs")
    for episode in given[0].episodes:
        ends = np.arange(episode.length) == episode.length - 1
        paid = reward(
            episode.observations[:-1],
            episode.actions,
            episode.observations[1:],
            ends & episode.terminated,
        )
        np.testing.assert_array_equal(episode.rewards, paid)
    assert run.status()["demos"]["return_mean"] == pytest.approx(
        demos.load("few", env=CARTPOLE, data_dir=folder / "data").returns.mean()
    )


def test_another_start_is_what_it_is_for(folder, train):
    lander, shifted = EnvConfig("LunarLander"), EnvConfig("LunarLander", "shifted")
    actor = make_demonstrator("random", lander, seed=0)
    demos.collect(lander, actor, episodes=2, name="random", data_dir=folder / "data")
    source = train("airl", lander, exp_name="lander", demos="random", steps=60, final_episodes=0)
    run = train("ppo", shifted, steps=60, final_episodes=0, reward_from=str(source.path))
    assert run.status()["reward_from"]["env"] == "LunarLander"


# Going on


def test_it_resumes_the_same_and_checks_the_reward(folder, train, monkeypatch):
    expected = learned(train(exp_name="expected", reward_from=SOURCE))
    monkeypatch.setattr(runner.StopSignal, "received", True)
    with pytest.raises(Interrupted) as caught:
        train(exp_name="stopped", reward_from=SOURCE)
    assert f"--reward-from {SOURCE}:240" in caught.value.hint
    monkeypatch.undo()
    with pytest.raises(RlfdError, match="reward_from=source/airl"):
        train(exp_name="stopped", resume=True, reward_from="other/airl/CartPole/seed0")
    path = checkpoint.list_rewards(folder / "runs" / SOURCE / "checkpoints")[240]
    good = path.read_bytes()
    state = checkpoint.load_policy(path)
    checkpoint.write_policy(path, state | {"mean": state["mean"] + 1.0})
    with pytest.raises(RlfdError, match="not the one that this run was started with"):
        train(exp_name="stopped", resume=True)
    path.write_bytes(good)
    run = train(exp_name="stopped", resume=True, reward_from=SOURCE)
    assert learned(run) == expected


# Refused, before anything of the run is written


@pytest.mark.parametrize(
    ("algo", "env", "reward_from", "texts"),
    [
        ("ppo", CARTPOLE, "sorce/airl/CartPole/seed0", ["unknown run", f"'{SOURCE}'"]),
        ("ppo", CARTPOLE, f"{SOURCE}:7", ["unknown checkpoint '7'", "120, 240"]),
        ("ppo", EnvConfig("MountainCar"), SOURCE, ["shape (4,) there, (2,) here", "may differ"]),
        ("gail", CARTPOLE, SOURCE, ["'gail' reads no reward", "ppo", "dqn"]),
        ("bc", CARTPOLE, SOURCE, ["'bc' reads no reward", "drop --reward-from"]),
    ],
)
def test_what_does_not_fit(folder, train, algo, env, reward_from, texts):
    with pytest.raises(RlfdError) as caught:
        train(algo, env, reward_from=reward_from, exp_name="refused")
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not (folder / "runs/refused").exists()


def test_a_run_that_learned_none(folder, train):
    plain = train(steps=60)
    with pytest.raises(RlfdError) as caught:
        train(exp_name="refused", reward_from=str(plain.path))
    assert "'ppo' learns none" in str(caught.value)
    assert "algorithms that learn one: " in str(caught.value)
    assert {"airl", "gcl"} <= set(caught.value.hint.partition(": ")[2].split(", "))
    assert not (folder / "runs/refused").exists()


def test_a_damaged_reward_and_one_of_other_networks(folder, train):
    source = train("airl", steps=60)
    (path,) = checkpoint.list_rewards(source.checkpoints).values()
    state = checkpoint.load_policy(path)
    checkpoint.write_policy(path, {n: v for n, v in state.items() if n != "g.0.bias"})
    with pytest.raises(RlfdError, match="was damaged since it finished"):
        train(exp_name="refused", reward_from=str(source.path))
    acknowledge(source)
    with pytest.raises(RlfdError, match="does not fit its run"):
        train(exp_name="refused", reward_from=str(source.path))
    path.write_bytes(b"nonsense")
    with pytest.raises(RlfdError, match="cannot be read"):
        train(exp_name="refused", reward_from=f"{source.path}:60")
    path.unlink()
    acknowledge(source)
    with pytest.raises(RlfdError, match="no saved reward yet"):
        train(exp_name="refused", reward_from=str(source.path))
    assert not (folder / "runs/refused").exists()


# -- the world ------------------------------------------------------------------------------------


def test_a_world_pays_what_it_is_told_to():
    def reward(observations, actions, next_observations, terminated):
        return next_observations[:, 0].astype(float) + 10.0 * actions + 100.0 * terminated

    first, second = (
        World(CARTPOLE, num_envs=3, seed=5, learner_reward=pay) for pay in (reward, None)
    )
    for count in range(40):
        actions = np.array([0, 1, count % 2])
        one, two = first.step(actions), second.step(actions)
        expected = reward(two.observations, actions, two.next_observations, two.terminated)
        np.testing.assert_array_equal(one.learner_rewards, expected)
        np.testing.assert_array_equal(one.rewards, two.rewards)
        np.testing.assert_array_equal(two.learner_rewards, two.rewards)
    records, others = first.drain_episodes(), second.drain_episodes()
    assert records
    assert [dataclasses.asdict(r) for r in records] == [dataclasses.asdict(r) for r in others]
    first.close(), second.close()


def test_old_configurations_have_none(folder):
    path = folder / "runs" / SOURCE / "config.json"
    values = json.loads(path.read_text())
    del values["reward_from"], values["provenance"]
    config = type(run_config(folder)).from_json(values)
    assert config == run_config(folder)
    assert config.reward_from is None
    assert torch.get_num_threads() == 1


def run_config(folder):
    return runner.RunDir(folder / "runs" / SOURCE).config()
