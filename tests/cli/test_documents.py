"""What the README tells people to type exists and works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from .conftest import run_inside

GROUPS = ("demos",)  # commands with commands of their own
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """Return the words of every rlfd command in a page's code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n)+", page.read_text(), re.MULTILINE)
    found = []
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        match = re.match(r"\s*(?:\$ )?rlfd ([a-z].*)", line)
        if match:
            found.append(shlex.split(match[1], comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    for command, *words in commands(page):
        path = [command, words.pop(0)] if command in GROUPS and words else [command]
        outcome = run_inside(*path, "--help")
        assert outcome.code == 0, f"{page.name}: rlfd {' '.join(path)}"
        known = set(re.findall(r"--[a-z-]+|(?<= )-[a-z](?= )", outcome.stdout))
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= known, f"{page.name}: rlfd {command} {options - known}"


def test_the_readme_has_commands():
    names = {command for command, *_ in commands(PAGES[0])}
    assert {"collect-demos", "train", "evaluate", "plot"} <= names


def test_python_of_the_readme_runs(full_folder, capsys):
    assert run_inside("collect-demos", "--env", "LunarLander", "--episodes", 1).code == 0
    text = PAGES[0].read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "seed0" in capsys.readouterr().out
