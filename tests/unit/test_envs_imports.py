"""Whose code runs because an environment has a name: only that of packages which somebody named."""

import json
import sys

import pytest

from rlfd import demos, envs
from rlfd.demos import storage
from rlfd.envs import EnvConfig, imports
from rlfd.errors import RlfdError
from rlfd.experiments.run_dir import RunDir

OURS = """
import sys
import gymnasium
sys.ran.append(__name__)
print("hello from the package")
gymnasium.register("Strange-v0", "gymnasium.envs.classic_control:CartPoleEnv")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes a package; `sys.ran` says which were imported."""
    monkeypatch.setattr(imports, "_allowed", set())
    monkeypatch.setattr(imports, "_from_files", {})
    monkeypatch.setattr(sys, "ran", [], raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, code=OURS):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{name}:Strange-v0"

    yield write
    envs.registry.gymnasium.registry.pop("Strange-v0", None)


def test_a_name_that_was_typed_imports_its_package_and_stdout_stays_clean(package, capsys):
    name = package("strangers_a")
    assert envs.spec(name).gym_id == "Strange-v0"
    assert sys.ran == ["strangers_a"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello from the package\n")


def test_a_name_from_a_file_imports_nothing_until_its_package_is_allowed(package):
    name = package("strangers_b")
    config = EnvConfig.from_json({"name": name}, "place/config.json")
    with pytest.raises(RlfdError) as error:
        envs.check(config)
    for text in (name, "place/config.json", "--allow-import strangers_b"):
        assert text in str(error.value)
    assert sys.ran == []
    envs.allow_import("strangers_b.inside")  # the whole package then
    assert envs.check(config).name == name
    assert sys.ran == ["strangers_b"]


def test_what_was_imported_before_needs_no_permission(package):
    name = package("strangers_c")
    __import__("strangers_c")
    assert envs.check(EnvConfig.from_json({"name": name})).name == name


def test_a_dataset_that_lies_there_imports_nothing(package, tmp_path):
    name = package("strangers_d")
    cart_pole = EnvConfig("CartPole")

    def record(title, seed):
        who = demos.make_demonstrator("random", cart_pole, seed=seed)
        return demos.collect(cart_pole, who, episodes=2, seed=seed, name=title, data_dir=tmp_path)

    record("mine", 0)
    strange = record("strange", 1).info.path
    file = strange / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata[storage.KEY]["env"]["name"] = name
    metadata[storage.KEY]["gym_id"] = "CartPole-v1"  # so that only its name tells
    file.write_text(json.dumps(metadata))
    found = demos.find(EnvConfig("CartPole"), tmp_path)
    assert [info.name for info in found] == ["mine-v0"]
    with pytest.raises(RlfdError, match="--allow-import strangers_d") as error:
        demos.recorded_env(demos.describe("strange", data_dir=tmp_path))
    assert str(strange) in str(error.value)
    assert sys.ran == []


def test_minari_and_run_folders_import_nothing(package, tmp_path):
    name = package("strangers_e")
    folder = tmp_path / "demos" / "their" / "data-v3"
    (folder / "data").mkdir(parents=True)
    about = {"dataset_id": "their/data-v3", "total_episodes": 3, "total_steps": 17}
    about["env_spec"] = json.dumps({"id": name, "kwargs": {}})
    (folder / "data" / "metadata.json").write_text(json.dumps(about))
    with pytest.raises(RlfdError, match="their/data-v3 asks for the package 'strangers_e'"):
        demos.recorded_env(demos.describe("data", data_dir=tmp_path))
    run = tmp_path / "seed7"
    run.mkdir()
    values = {"schema": 1, "algo": "bc", "env": {"name": name}, "algorithm": {}}
    (run / "config.json").write_text(json.dumps(values))
    config = RunDir(run).config()
    with pytest.raises(RlfdError, match=r"seed7/config\.json asks for"):
        envs.check(config.env)
    assert sys.ran == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('goodbye')", "importing 'strangers_f' raised SystemExit: goodbye"),
        ("len(5)", "importing 'strangers_f' raised TypeError: object of type 'int'"),
        ("assert False", "importing 'strangers_f' raised AssertionError"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
    ],
)
def test_what_a_package_raises_is_its_own(package, code, words):
    with pytest.raises(RlfdError) as error:
        envs.spec(package("strangers_f", code))
    assert words in error.value.message
    assert "strangers_f:Strange-v0" in error.value.message
