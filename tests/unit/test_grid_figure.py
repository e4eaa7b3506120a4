"""Gaps against the number of demonstrations: numbers, tables and the suite that shows them."""

from __future__ import annotations

import pandas as pd
import pytest

from rlfd.experiments import tables
from rlfd.experiments.grid_figure import plot_gaps
from rlfd.experiments.known import FEATURE_GAP, GAPS
from rlfd.experiments.suite_file import load_suite, parse_suite


def test_gaps_are_drawn_by_the_number_of_demonstrations(tmp_path):
    lines = {
        "one": {5: [0.5, 0.3, 0.4], 20: [0.1, 0.2, 0.3]},
        "two": {20: [0.0, 0.0, 0.6], 5: [0.9, 0.9, 0.9]},
    }
    algorithms = {"one": "maxent-irl", "two": "apprenticeship"}
    out = tmp_path / "gap.svg"
    files = plot_gaps({"A": lines, "B": {"one": lines["one"]}}, algorithms, FEATURE_GAP, out)
    data = pd.read_csv(files.data, comment="#")
    own = data[(data["task"] == "A") & (data["label"] == "two")]
    assert own["num_demos"].tolist() == [5, 20]
    assert own["mean"].tolist() == pytest.approx([0.9, 0.2])
    assert own["n"].tolist() == [3, 3]
    assert own["low"].tolist() == pytest.approx([0.9, 0.0])
    text = out.read_text()
    for word in ("feature gap (%)", "one", "two", "demonstrations"):
        assert word in text


def test_gaps_have_the_digits_they_need():
    row = tables.statistics_row([0.0041, 0.0052, 0.0063])
    assert tables.format_statistics(row, "gap").startswith("0.0052 ± 0.0006")
    assert tables.format_statistics(row, "return").startswith("0.01")


def test_the_suite_shows_both_gaps_of_all_methods():
    suite = load_suite("irl-gridworld")
    assert {figure.measure for figure in suite.figures} == set(GAPS)
    assert {task.env for task in suite.tasks} == {"GridWorld", "SlipperyGridWorld"}
    assert len({demos.num for demos in suite.demos}) == len(suite.demos) == 4
    models = {row.settings.get("model", "causal") for row in suite.rows if row.algo == "maxent-irl"}
    assert models == {"causal", "trajectory"}


def test_a_figure_of_something_else_is_refused():
    text = """
title = "t"
paper = "p"
seeds = [0]
steps = 1
protocol = []
[[tasks]]
name = "a"
env = "GridWorld"
[[groups]]
name = "g"
title = "g"
[[figures]]
name = "f"
group = "g"
x = "num-demos"
measure = "value gab"
rows = []
"""
    with pytest.raises(ValueError, match="value gap"):
        parse_suite("s", text)
