"""Policies as files: what is written is what acts, and nothing else is taken for it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from rlfd import demos
from rlfd.demos import shipped as files
from rlfd.envs import EnvConfig, spec
from rlfd.envs.atari import games
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint
from rlfd.experiments.config import RunConfig, resolve
from rlfd.experiments.evaluate import evaluate_policy, evaluate_run, load_policy
from rlfd.experiments.run_dir import RunDir
from rlfd.experiments.shipped import (
    export_policy,
    find_policy,
    load_policy_file,
    training_command,
)
from rlfd.experiments.train import train

CARTPOLE = EnvConfig("CartPole")


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
def exported(trained, tmp_path_factory):
    """Its best policy as a file; do not change it."""
    path = tmp_path_factory.mktemp("exported") / "new" / "mine.safetensors"
    export_policy(trained, path, episodes=7)
    return path


def rewrite(source, target, *, tensors=None, metadata=None):
    """Copy a policy file with some tensors or metadata exchanged."""
    with files_open(source) as file:
        old = file.metadata()
    save_file(load_file(source) | (tensors or {}), target, old | (metadata or {}))
    return target


def files_open(path):
    from safetensors import safe_open

    return safe_open(path, framework="numpy")


# There and back


@pytest.mark.parametrize("mode", ["greedy", "sampled"])
@pytest.mark.parametrize("step", ["best", "latest", "102"])
def test_the_file_acts_as_the_run(trained, tmp_path, mode, step):
    out = tmp_path / "a.safetensors"
    export_policy(trained, out, checkpoint=step, policy=mode, episodes=1)
    run, back = load_policy(trained, step, mode), load_policy_file(out)
    assert (back.mode, back.checkpoint, back.config.env) == (mode, run.checkpoint, CARTPOLE)
    observations = np.random.default_rng(0).normal(size=(57, 4)).astype(np.float32)
    actions = [
        policy.algorithm.act(
            observations, greedy=mode == "greedy", generator=torch.Generator().manual_seed(3)
        )
        for policy in (run, back)
    ]
    np.testing.assert_array_equal(*actions)


def test_what_it_says(trained, exported):
    file = demos.read_policy_file(exported)
    summary = evaluate_run(trained, episodes=7, checkpoint="best")
    assert (file.score.return_mean, file.score.return_std) == (
        summary.return_mean, summary.return_std,
    )  # fmt: skip
    assert (file.score.episodes, file.score.seed, file.score.start) == (7, 2, "standard")
    assert file.score.success_rate is None
    assert (file.algo, file.env, file.mode) == ("soft-q", CARTPOLE, "greedy")
    assert file.checkpoint == summary.checkpoint
    assert RunConfig.from_json(file.config) == trained.config()
    again = evaluate_policy(load_policy_file(exported), episodes=7)
    assert again.return_mean == file.score.return_mean
    assert again.run == str(exported)


def test_the_score_is_of_where_demonstrations_start(trained, tmp_path):
    settings = ["hidden=3", "learning_starts=20", "batch_size=5"]
    options = {"steps": 40, "num_envs": 2, "final_episodes": 1, "compile": "off"}
    resolved = resolve(
        "dqn", EnvConfig("LunarLander", "shifted"), settings=settings, options=options
    )
    run = train(resolved, runs_dir=tmp_path, data_dir=tmp_path).run_dir
    made = export_policy(run, tmp_path / "a.safetensors", episodes=1)
    assert made.score.start == "demo"
    assert made.score.success_rate in (0.0, 1.0)


def test_the_command_is_the_whole_truth(trained, exported):
    """The command that a file names gives the configuration of its run."""
    words = demos.read_policy_file(exported).command.split()
    assert words[:5] == ["rlfd", "train", "soft-q", "--env", "CartPole"]
    values = dict(zip(words[5::2], words[6::2], strict=True))
    assert values["--seed"] == "2"
    pairs = list(zip(words[5::2], words[6::2], strict=True))
    settings = [value for option, value in pairs if option == "--set"]
    options = {
        name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else value
        for name, value in pairs
        if name != "--set"
    }
    found = resolve("soft-q", CARTPOLE, settings=settings, options=options).config
    assert found == trained.config()


def test_commands():
    env = EnvConfig("LunarLander", "demo", {"push_scale": 0.25}, "delay-20")
    resolved = resolve(
        "sqil", env, preset="paper", settings=["hidden=3,5", "layer_norm=yes"],
        options={"demos": "my demos", "init": "bc/LunarLander/seed0:7"},
    )  # fmt: skip
    command = training_command(resolved.config.to_json(), resolved.provenance)
    assert command == (
        "rlfd train sqil --env LunarLander --start demo --reward delay-20 "
        "--env-option push_scale=0.25 "
        "--preset paper --demos 'my demos' --init bc/LunarLander/seed0:7 "
        "--set hidden=3,5 --set layer_norm=true"
    )


def test_commands_leave_out_what_a_file_does_not_set(tmp_path):
    first = resolve("dqn", CARTPOLE, settings=["gamma=0.5"])
    place = tmp_path / "config.json"
    place.write_text(json.dumps(first.config.to_json()))
    resolved = resolve("dqn", CARTPOLE, config_file=place)
    command = training_command(resolved.config.to_json(), resolved.provenance)
    assert "--set gamma=0.5" in command
    assert "None" not in command


def test_no_folder_of_a_machine_is_left(tmp_path):
    actor = demos.make_demonstrator("controller", CARTPOLE, seed=0)
    made = demos.collect(CARTPOLE, actor, episodes=2, data_dir=tmp_path / "elsewhere")
    options = {"demos": str(made.info.path.absolute()), "final_episodes": 1, "compile": "off"}
    resolved = resolve("bc", CARTPOLE, settings=["max_epochs=1", "hidden=3"], options=options)
    run = train(resolved, runs_dir=tmp_path, data_dir=tmp_path).run_dir
    out = tmp_path / "a.safetensors"
    export_policy(run, out, episodes=1)
    assert str(tmp_path).encode() not in out.read_bytes()
    assert demos.read_policy_file(out).config["demos"] == "CartPole/controller-v0"
    assert load_policy_file(out).config.algo == "bc"


# What is refused


def test_export_refuses(trained, exported, tmp_path):
    with pytest.raises(RlfdError, match=r"expected a name that ends in .safetensors"):
        export_policy(trained, tmp_path / "a.pt", episodes=1)
    before = exported.read_bytes()
    with pytest.raises(RlfdError, match="exists already"):
        export_policy(trained, exported, episodes=1)
    assert exported.read_bytes() == before
    with pytest.raises(RlfdError, match="unknown checkpoint '7'"):
        export_policy(trained, tmp_path / "a.safetensors", checkpoint="7")
    with pytest.raises(RlfdError, match="unknown policy of soft-q"):
        export_policy(trained, tmp_path / "a.safetensors", policy="gredy")
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"")
    export_policy(trained, other, episodes=1, overwrite=True)
    assert load_policy_file(other).checkpoint


def test_nan_is_not_exported_and_not_loaded(trained, tmp_path):
    run = RunDir(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    path = max(run.checkpoints.glob("policy_*"))
    state = checkpoint.load_policy(path)
    name = next(iter(state))
    state[name].view(-1)[1] = float("nan")
    checkpoint.write_policy(path, state)
    run.write_status(run.status() | {"files": run.digests()})
    with pytest.raises(RlfdError, match=f"not finite, in {name}"):
        export_policy(run, tmp_path / "a.safetensors", checkpoint="latest")
    assert not (tmp_path / "a.safetensors").exists()


def text_of(path):
    with files_open(path) as file:
        return json.loads(file.metadata()[files.TEXT])


def sealed(content):
    """Return metadata with a digest that fits, as somebody who means harm would write it."""
    text = json.dumps(content)
    return {files.TEXT: text, files.DIGEST: files._sha256(text)}


def test_what_is_no_policy_file(exported, tmp_path, trained):
    a_checkpoint = next(iter(checkpoint.list_policies(trained.checkpoints).values()))
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x80\x04 a pickle")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(exported.read_bytes()[:-3])
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    for path, words in (
        (tmp_path / "none.safetensors", "there is no policy file"),
        (a_checkpoint, "does not say of which policy"),
        (garbage, "damaged or was changed"),
        (cut, "damaged or was changed"),
        (empty, "damaged or was changed"),
        (tmp_path, "damaged or was changed"),
    ):
        with pytest.raises(RlfdError, match=words) as caught:
            load_policy_file(path)
        assert str(path) in str(caught.value)


def test_what_was_changed(exported, tmp_path):
    target = tmp_path / "changed.safetensors"
    tensors = load_file(exported)
    name = next(iter(tensors))
    nudged = np.nextafter(tensors[name], np.float32(9))
    with pytest.raises(RlfdError, match="its tensors are not what was written"):
        load_policy_file(rewrite(exported, target, tensors={name: nudged}))
    better = text_of(exported)
    better["score"]["return_mean"] = 500.0
    metadata = {files.TEXT: json.dumps(better)}
    with pytest.raises(RlfdError, match="its description is not what was written"):
        load_policy_file(rewrite(exported, target, metadata=metadata))
    assert load_policy_file(rewrite(exported, target)).file.score.episodes == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "has format 99, expected 1"),
        ({"score": {"episodes": 3}}, "its description"),
        ({"colour": "red"}, "its description"),
        ({"config": {"algo": "sac9"}}, "schema None, expected 1"),
        ({"mode": "gredy"}, "unknown policy of soft-q"),
    ],
)
def test_what_another_version_may_have_written(exported, tmp_path, change, words):
    content = text_of(exported) | change
    changed = rewrite(exported, tmp_path / "a.safetensors", metadata=sealed(content))
    with pytest.raises(RlfdError, match=words):
        load_policy_file(changed)


def test_another_network(exported, tmp_path):
    content = text_of(exported)
    content["config"]["algorithm"]["hidden"] = [6]
    changed = rewrite(exported, tmp_path / "a.safetensors", metadata=sealed(content))
    with pytest.raises(RlfdError, match="does not fit this version of 'soft-q'"):
        load_policy_file(changed)


def test_runs_and_files(trained, exported):
    assert find_policy(trained.path, exported.parent).file is None
    assert find_policy(exported, exported.parent).file.path == exported
    with pytest.raises(RlfdError, match="--checkpoint belongs to a run"):
        find_policy(exported, exported.parent, checkpoint="best")


# Those that come with the tool


@pytest.mark.parametrize(("env", "strength"), demos.list_shipped())
def test_every_shipped_policy(env, strength):
    path = demos.find_shipped(env, strength)
    assert path.stat().st_size < 4_000_000
    trained = load_policy_file(path)
    assert trained.config.env.name == env
    assert trained.file.score.episodes >= 20
    assert " /" not in trained.file.command
    if trained.config.env.name in games():  # a whole game takes too long
        frames = np.zeros((3, 4, 84, 84), np.uint8)
        assert trained.algorithm.act(frames, greedy=True).shape == (3,)
        return
    known = evaluate_policy(trained, episodes=1, start=spec(env).demo_start)
    assert np.isfinite(known.return_mean)


def test_shipped_policies_are_found_by_name(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    assert demos.list_shipped() == []
    assert demos.default_demonstrator("Acrobot") is None
    with pytest.raises(RlfdError, match="no policy for Acrobot comes with rlfd"):
        demos.find_shipped("Acrobot")
    there = (
        "Acrobot-weak", "Acrobot-strong", "CartPole-weak", "CartPole-ceiling", "Acrobot-odd",
        "Readme",
    )  # fmt: skip
    for name in there:
        (tmp_path / f"{name}.safetensors").write_bytes(exported.read_bytes())
    assert demos.list_shipped() == [
        ("Acrobot", "strong"), ("Acrobot", "weak"), ("CartPole", "weak"), ("CartPole", "ceiling"),
    ]  # fmt: skip
    assert demos.default_demonstrator("Acrobot") == "shipped"
    assert demos.default_demonstrator("CartPole") == "controller"
    assert demos.policies(EnvConfig("Acrobot")) == ["shipped", "shipped:weak", "random"]
    assert demos.policies(CARTPOLE) == ["controller", "shipped:weak", "shipped:ceiling", "random"]
    assert demos.find_shipped("Acrobot", "weak") == tmp_path / "Acrobot-weak.safetensors"
    with pytest.raises(RlfdError, match="unknown shipped policy for CartPole 'strong'"):
        demos.find_shipped("CartPole")
    (tmp_path / "CartPole-strong.safetensors").write_bytes(exported.read_bytes())
    assert demos.policies(CARTPOLE)[:3] == ["shipped", "shipped:weak", "shipped:ceiling"]
    assert demos.policies(CARTPOLE)[3:] == ["controller", "random"]
    assert demos.default_demonstrator("CartPole") == "shipped"


def test_the_catalogue_is_read_from_the_files(exported, tmp_path, monkeypatch):
    from rlfd.demos import catalogue

    monkeypatch.setattr(files, "FOLDER", tmp_path)
    assert {entry["policy"] for entry in catalogue.entries()} == {"controller"}
    assert catalogue.demonstrator_return("Hopper") is None
    content = text_of(exported)
    content["config"]["env"]["name"] = "Hopper"
    for strength, mean in (("strong", 3210.5), ("weak", 1605.25)):
        content["score"]["return_mean"] = mean
        rewrite(exported, tmp_path / f"Hopper-{strength}.safetensors", metadata=sealed(content))
    assert catalogue.demonstrator_return("Hopper") == 3210.5
    assert catalogue.demonstrator_return("CartPole") == spec("CartPole").demonstrator_return
    assert catalogue.demonstrator_return("Acrobot") is None
    strong, weak = (entry for entry in catalogue.entries() if entry["env"] == "Hopper")
    assert (strong["policy"], weak["policy"]) == ("shipped", "shipped:weak")
    assert (strong["share_of_strong"], weak["share_of_strong"]) == (None, 0.5)
    assert strong["episodes"] == 7
    step = content["checkpoint"]
    assert strong["export"] == (
        f"rlfd export default/soft-q/Hopper/seed2 --checkpoint {step} --greedy "
        "--episodes 7 --out Hopper-strong.safetensors"
    )
    page = catalogue.page()
    assert (
        f"| Hopper | `shipped:weak` | 1,605 ± {content['score']['return_std']:,.0f} | 50% | 7 |"
        in page
    )
    assert page.count(content["command"]) == 2
    content["score"]["return_mean"] = -9.0
    rewrite(exported, tmp_path / "Hopper-weak.safetensors", metadata=sealed(content))
    (weak,) = (entry for entry in catalogue.entries() if entry["policy"] == "shipped:weak")
    assert (weak["return_mean"], weak["share_of_strong"]) == (-9.0, None)


def test_the_page_of_the_shipped_policies_is_current():
    from rlfd.demos import catalogue

    page = Path(__file__).parents[2] / "docs" / "demonstrators.md"
    if demos.list_shipped():
        assert page.read_text() == catalogue.page() + "\n", (
            "write it with 'rlfd list demonstrators --markdown > docs/demonstrators.md'"
        )
