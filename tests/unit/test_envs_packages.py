"""How people are told to write the ids of other packages."""

import sys

import gymnasium
import pytest

from rlfd import envs
from rlfd.errors import RlfdError

SOURCE = """
from gymnasium import register
register(id="Lawn/Mow-v0", entry_point="lawns.games:Mow")
register(id="Lawn/Sow-v0", entry_point="lawns.games:Sow")
"""


@pytest.fixture
def lawns(tmp_path, monkeypatch):
    """An installed package whose module is called otherwise than itself."""
    place = tmp_path / "site"
    (place / "lawns").mkdir(parents=True)
    (place / "lawns/__init__.py").write_text(SOURCE)
    (place / "lawns/broken.py").write_text("raise OSError('no display')")
    (place / "lawns/silent.py").write_text("raise SystemExit")
    (place / "lawns/wanting.py").write_text("import a_module_that_is_not_there")
    info = place / "green_lawns-1.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: green-lawns\nVersion: 1.3\nRequires-Dist: gymnasium>=1.0\n"
    )
    (info / "top_level.txt").write_text("lawns\n")
    (info / "RECORD").write_text("lawns/__init__.py,,\nlawns/broken.py,,\n")
    monkeypatch.syspath_prepend(place)
    yield
    for name in ("Lawn/Mow-v0", "Lawn/Sow-v0"):
        gymnasium.registry.pop(name, None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lawns"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("Lawn/Mow-v0", ["in the installed package 'lawns'", "write lawns:Lawn/Mow-v0"]),
        ("green-lawns:Lawn/Mow-v0", ["is imported as 'lawns'", "write lawns:Lawn/Mow-v0"]),
        ("lawns:Lawn/Mew-v0", ["did you mean 'lawns:Lawn/Mow-v0'"]),
        ("lawns:CartPole-v2", ["unknown environment", "'lawns:Lawn/"]),
        ("json:CartPole-v2", ["importing 'json' registered none"]),
        ("Meadow-v0", ["written PACKAGE:ID", "installed: ", "green-lawns"]),
        ("lawns.broken:Lawn/Mow-v0", ["importing 'lawns.broken' raised OSError: no display"]),
        ("lawns.silent:Lawn/Mow-v0", ["importing 'lawns.silent' raised SystemExit"]),
        ("lawns.wanting:Lawn/Mow-v0", ["'lawns.wanting' needs that module: install it"]),
        ("no_such_package:Lawn/Mow-v0", ["install the package before the colon"]),
    ],
)
def test_ids_of_other_packages(lawns, name, texts):
    with pytest.raises(RlfdError) as caught:
        envs.spec(name)
    for text in texts:
        assert text in str(caught.value)
    assert "CartPole-v1'?" not in str(caught.value)


def test_nothing_is_imported_to_find_out(lawns):
    with pytest.raises(RlfdError):
        envs.spec("Lawn/Mow-v0")
    assert "lawns" not in sys.modules


def test_modules_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SOURCE)
    with pytest.raises(RlfdError, match=r"No module named 'own'.*PYTHONPATH=. before the command"):
        envs.spec("own:Lawn/Mow-v0")
