"""Which demonstrator a text means, and that a trained one repeats itself."""

import re

import pytest

from rlfd import demos
from rlfd.demos import shipped as files
from rlfd.envs import EnvConfig, play_episodes
from rlfd.errors import RlfdError
from rlfd.experiments.config import resolve
from rlfd.experiments.demonstrators import make_demonstrator
from rlfd.experiments.evaluate import best_step
from rlfd.experiments.shipped import export_policy
from rlfd.experiments.train import train

CARTPOLE = EnvConfig("CartPole")
CHEETAH = EnvConfig("HalfCheetah")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with three policies; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    options = {
        "steps": 300, "num_envs": 3, "eval_every": 100, "eval_episodes": 3, "final_episodes": 5,
        "compile": "off", "seed": 2,
    }  # fmt: skip
    settings = ["hidden=5", "batch_size=7", "learning_starts=30", "learning_rate=0.01"]
    resolved = resolve("soft-q", CARTPOLE, settings=settings, options=options)
    return train(resolved, runs_dir=folder, data_dir=folder).run_dir


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory):
    """A policy of continuous actions that learned from random ones, as a file."""
    folder = tmp_path_factory.mktemp("cheetah")
    actor = make_demonstrator("random", CHEETAH, seed=0)
    made = demos.collect(CHEETAH, actor, episodes=2, data_dir=folder)
    resolved = resolve(
        "bc", CHEETAH, settings=["max_epochs=2", "hidden=9"],
        options={"demos": made.info.id, "final_episodes": 1, "compile": "off"},
    )  # fmt: skip
    run = train(resolved, runs_dir=folder, data_dir=folder).run_dir
    path = folder / "my.cheetah.safetensors"
    export_policy(run, path, episodes=1)
    return path


def make(text, env=CARTPOLE, **options):
    return make_demonstrator(str(text), env, **{"seed": 0} | options)


def play(actor, env, episodes, num_envs):
    actor.reset(episodes)
    return [
        episode.actions.tolist()
        for episode in play_episodes(
            env, seeds=range(episodes), act=actor.act, num_envs=num_envs, record=True
        )
    ]


@pytest.mark.parametrize("mode", ["greedy", "sampled"])
def test_a_run_demonstrates_whatever_runs_beside_it(trained, mode):
    plays = [play(make(trained.path, policy=mode, seed=6), CARTPOLE, 5, n) for n in (1, 3, 5)]
    assert plays[0] == plays[1] == plays[2]


@pytest.mark.parametrize("mode", ["greedy", "sampled"])
def test_continuous_actions_do_not_depend_on_the_batch(cheetah, mode):
    alone, together = (play(make(cheetah, CHEETAH, policy=mode), CHEETAH, 3, n) for n in (1, 3))
    assert alone == together


def test_a_run_says_what_it_is(trained):
    assert make(trained.path, checkpoint="best").describe() == {
        "policy": "run", "name": "soft-q-greedy", "algo": "soft-q",
        "trained_on": CARTPOLE.to_json(), "exp_name": "default", "run_seed": 2,
        "checkpoint": best_step(trained), "mode": "greedy",
    }  # fmt: skip
    with pytest.raises(RlfdError, match="unknown checkpoint '7'"):
        make(trained.path, checkpoint="7")


def test_a_file_says_what_it_is(cheetah):
    said, file = make(cheetah, CHEETAH).describe(), demos.read_policy_file(cheetah)
    assert (said["policy"], said["name"], said["algo"]) == ("file", "my-cheetah", "bc")
    assert (said["digest"], said["trained_with"]) == (file.tensors, file.command)
    assert make(cheetah, CHEETAH, policy="sampled").describe()["mode"] == "sampled"


def test_names(trained, cheetah, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    assert make("controller").describe()["policy"] == "controller"
    assert make("random", CHEETAH).describe() == {"policy": "random"}
    name = trained.path.relative_to(trained.path.parents[3])
    assert make(name, runs_dir=trained.path.parents[3]).describe()["algo"] == "soft-q"
    with pytest.raises(RlfdError, match="no policy for HalfCheetah comes with rlfd"):
        make("shipped", CHEETAH)
    for strength in ("strong", "weak"):
        (tmp_path / f"HalfCheetah-{strength}.safetensors").write_bytes(cheetah.read_bytes())
    assert make("shipped", CHEETAH).describe()["name"] == "HalfCheetah-strong"
    assert make("shipped:weak", CHEETAH).describe()["name"] == "HalfCheetah-weak"
    with pytest.raises(RlfdError, match="'weka', did you mean 'weak'"):
        make("shipped:weka", CHEETAH)


def test_what_belongs_to_a_run(trained, cheetah):
    for options in ({"checkpoint": "best"}, {"policy": "greedy"}):
        with pytest.raises(RlfdError, match="belong to a run, not to 'controller'"):
            make("controller", **options)
    with pytest.raises(RlfdError, match="--checkpoint belongs to a run"):
        make(cheetah, CHEETAH, checkpoint="best")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("Hopper", r"cannot act on Hopper: observations have shape \(17,\) there, \(11,\) here"),
        ("CartPole", "actions are continuous there, discrete here"),
        ("Walker2d", "trained on HalfCheetah, it cannot act on Walker2d$"),  # with the same spaces
    ],
)
def test_another_environment_is_refused(cheetah, env, words):
    with pytest.raises(RlfdError) as caught:
        make(cheetah, EnvConfig(env))
    assert re.search(words, caught.value.message)


def test_the_same_environment_by_another_name(cheetah):
    assert make(cheetah, EnvConfig("HalfCheetah-v5")).describe()["algo"] == "bc"
