"""A method that can do without demonstrations learns from those that are named, from no others."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import TINY, assert_refused, run_inside, snapshot

SETTINGS = ("--set", "batch_steps=12", "--set", "min_stored=20")
SIL = ("train", "sil", "--env", "CartPole", *TINY[: TINY.index("--set")], *SETTINGS)


def record(folder: str) -> dict:
    return json.loads((Path(folder) / "run.json").read_text())


def test_they_are_used_where_they_are_named(full_folder):
    outcome = run_inside(*SIL, "--demos", "controller", "--num-demos", 2, "--json")
    assert outcome.code == 0, outcome.stderr
    demos = record(outcome.json["run"])["demos"]
    assert (demos["episodes"], demos["transitions"]) == (2, 1000)
    assert_refused(
        run_inside(*SIL, "--demos", "controller", "--seed", 1, "--set", "buffer_size=900"),
        "2,000 transitions",
        "buffer_size",
        "--num-demos",
    )


def test_without_a_name_there_are_none(full_folder):
    outcome = run_inside(*SIL, "--json")
    assert outcome.code == 0, outcome.stderr
    assert record(outcome.json["run"])["demos"] is None
    assert "demonstrations" not in outcome.stderr


def test_a_number_alone_is_refused(full_folder):
    before = snapshot(full_folder)
    assert_refused(run_inside(*SIL, "--num-demos", 2), "--num-demos was given", "--demos")
    assert snapshot(full_folder) == before


def test_the_list_says_so():
    entries = run_inside("list", "algos", "--json").json["algos"]
    optional = {entry["name"]: entry["optional"] for entry in entries}
    assert optional["sil"] == ["demonstrations"]
    assert optional["sqil"] == optional["a2c"] == []
    lines = run_inside("list", "algos").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert "demonstrations" in rows["sil"]
    assert "demonstrations" not in rows["a2c"].split("on-policy")[0]
