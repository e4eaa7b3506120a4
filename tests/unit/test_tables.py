from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from rlfd.envs import EnvConfig
from rlfd.experiments import tables

FINALS = (0.5, 0.7, 0.9)


@pytest.fixture
def runs(make_run):
    won = [0] * 50 + [1] * 100 + [0] * 7
    return [
        make_run(seed=seed, final=final, training=won if seed else won[20:])
        for seed, final in enumerate(FINALS)
    ]


def by_measure(table):
    return {row["measure"]: row for row in table.to_dict("records")}


def test_numbers(runs):
    table = tables.results_table(runs)
    assert table["measure"].to_list() == list(tables.MEASURES)
    rows = by_measure(table)
    final = rows["final, sampled"]
    assert (final["algo"], final["exp_name"], final["env"]) == (
        "sqil",
        "default",
        "LunarLander-shifted",
    )
    assert final["metric"] == "success"
    assert final["n"] == 3
    assert final["mean"] == pytest.approx(0.7)
    assert final["se"] == pytest.approx(stats.sem(FINALS))
    assert final["iqm"] == pytest.approx(0.7)
    assert 0.5 <= final["low"] < 0.7 < final["high"] <= 0.9
    assert rows["final, greedy"]["mean"] == pytest.approx(0.45)
    assert rows["best, sampled"]["mean"] == pytest.approx(0.8)
    assert rows["best, greedy"]["mean"] == pytest.approx(0.55)
    assert rows[tables.BEST_TRAINING]["mean"] == pytest.approx(1.0)


def test_return(runs):
    rows = by_measure(tables.results_table(runs, "return"))
    assert rows["final, sampled"]["mean"] == pytest.approx(400 * 0.7 - 150)
    assert rows[tables.BEST_TRAINING]["mean"] == pytest.approx(250)


def test_fewer_than_100_training_episodes_have_no_best(make_run):
    rows = by_measure(tables.results_table([make_run(training=[1] * 99)]))
    assert rows[tables.BEST_TRAINING]["n"] == 0
    assert tables.format_statistics(rows[tables.BEST_TRAINING], "success") == "–"


def test_a_number_of_fewer_seeds_says_so(make_run):
    runs = [make_run(seed=n, training=[1] * n) for n in (99, 100, 101)]
    shown = tables.display_table(tables.results_table(runs)).iloc[0]
    assert shown["n"] == "3"
    assert shown[tables.BEST_TRAINING].endswith("(n=2)")
    assert not shown["final, sampled"].endswith(")")


def test_unfinished_runs_are_counted_but_not_averaged(runs, make_run):
    running = make_run(seed=7, state="interrupted", final=None, training=[1] * 100)
    table = tables.results_table([*runs, running])
    assert set(table["n"]) == {3}
    assert set(table["note"]) == {"1 of 4 runs not finished"}
    assert "note" in tables.display_table(table)


def test_groups_are_kept_apart(runs, make_run):
    others = [
        make_run(algo="bc", final=0.2),
        make_run(exp_name="other", final=0.3),
        make_run(env=EnvConfig("LunarLander", "demo"), final=0.4),
    ]
    shown = tables.display_table(tables.results_table([*runs, *others]))
    assert shown[["env", "exp name", "algo", "n"]].to_numpy().tolist() == [
        ["LunarLander-shifted", "default", "sqil", "3"],
        ["LunarLander-shifted", "default", "bc", "1"],
        ["LunarLander-shifted", "other", "sqil", "1"],
        ["LunarLander-demo", "default", "sqil", "1"],
    ]
    assert shown["final, sampled"].to_list()[1:] == ["0.20", "0.30", "0.40"]
    assert "note" not in shown


def test_text():
    row = {"n": 5, "mean": 0.891, "se": 0.0149, "iqm": 0.9, "low": 0.85, "high": 0.929}
    assert tables.format_statistics(row, "success") == "0.89 ± 0.01, 0.90 [0.85, 0.93]"
    row = {"n": 2, "mean": 251.26, "se": 3.0, "iqm": 251.26, "low": None, "high": None}
    assert tables.format_statistics(row, "return") == "251.3 ± 3.0"
    row = {"n": 1, "mean": 0.5, "se": float("nan"), "iqm": 0.5, "low": None, "high": None}
    assert tables.format_statistics(row, "success") == "0.50"


def test_text_of_steps():
    def text(*values):
        return tables.format_statistics(tables.reached_row(values), tables.ENV_STEPS)

    assert text() == "–"
    assert text(2e4) == "20,000"
    assert text(2e4, 4e4, 6e4) == "40,000 [20,000, 60,000]"
    assert text(2e4, 2e4, float("inf")) == "20,000 [20,000, –] (2 of 3)"
    assert text(2e4, float("inf"), float("inf")) == "– [20,000, –] (1 of 3)"
    assert text(float("inf"), float("inf")) == "– (0 of 2)"


def test_markdown():
    table = pd.DataFrame({"a": ["1|2", "3"], "b": ["x", "y"]})
    assert tables.markdown(table) == "| a | b |\n| --- | --- |\n| 1\\|2 | x |\n| 3 | y |\n"


def test_save(runs, tmp_path):
    table = tables.results_table(runs)
    csv, text = tables.save_table(table, tmp_path / "new" / "t.md", command="rlfd plot --table")
    read = pd.read_csv(csv, comment="#", keep_default_na=True)
    assert read["mean"].to_list() == pytest.approx(table["mean"].to_list())
    assert csv.read_text().startswith("# command: rlfd plot --table\n")
    content = text.read_text()
    assert "| LunarLander-shifted | default | sqil | 3 | 0.70 ± 0.12, 0.70 [" in content
    assert "`rlfd plot --table`" in content
    assert "mean ± standard error" in content
