from __future__ import annotations

import dataclasses
import os
import re

import numpy as np
import pandas as pd
import pytest

from rlfd import envs
from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import drawing, figures, results, statistics
from rlfd.experiments.figures import ReferenceLine, plot_learning_curves
from rlfd.experiments.tables import results_table

HEADS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def read(files):
    return pd.read_csv(files.data, comment="#")


def curve(data, **where):
    for column, value in (where | {"kind": "curve"}).items():
        data = data[data[column] == value]
    return data


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_format_by_suffix(make_run, tmp_path, suffix):
    out = tmp_path / "new" / f"figure{suffix}"
    files = plot_learning_curves([make_run()], out, command="rlfd plot x")
    assert files.figure.read_bytes().startswith(HEADS[suffix])
    assert files.data == out.with_suffix(".csv")
    assert files.data.read_text().startswith("# command: rlfd plot x\n# a single seed")
    assert sorted(path.name for path in out.parent.iterdir()) == ["figure.csv", f"figure{suffix}"]


def test_png_is_made_for_a_column_in_print(make_run, tmp_path):
    from PIL import Image

    files = plot_learning_curves([make_run()], tmp_path / "f.png")
    with Image.open(files.figure) as image:
        assert image.info["dpi"][0] == pytest.approx(300, abs=1)
        assert image.width == pytest.approx(3.3 * 300, abs=2)


def test_other_suffixes_are_refused(make_run, tmp_path):
    for name in ("figure.jpg", "figure"):
        with pytest.raises(RlfdError, match=r"\.png, \.svg, \.pdf"):
            plot_learning_curves([make_run(exp_name=name)], tmp_path / name)
    assert not (tmp_path / "figure.jpg").exists()


def test_a_folder_in_the_way_is_found_before_anything_is_written(make_run, tmp_path):
    run = make_run()
    for name in ("figure.png", "figure.csv"):
        (tmp_path / name).mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RlfdError, match=rf"{re.escape(name)}: a folder has that name"):
            plot_learning_curves([run], tmp_path / "figure.png")
        assert sorted(tmp_path.rglob("*")) == before
        (tmp_path / name).rmdir()
    with pytest.raises(RlfdError, match="too long"):
        plot_learning_curves([run], tmp_path / f"{'x' * 250}.png")
    assert sorted(tmp_path.glob("*x*")) == []


def test_what_a_killed_plot_left_is_swept_away_later(make_run, tmp_path):
    for name in (".figure.png.0123abcd.tmp", ".other.png.0123abcd.tmp", ".figure.png.4567.tmp"):
        (tmp_path / name).touch()
        if "0123" in name:
            os.utime(tmp_path / name, (0, 0))
    plot_learning_curves([make_run()], tmp_path / "figure.png")
    left = sorted(path.name for path in tmp_path.glob(".*"))
    assert left == [".figure.png.4567.tmp", ".other.png.0123abcd.tmp"]


@pytest.mark.parametrize("name", ["eval.csv", "run.json", "config.json"])
def test_a_run_that_cannot_be_read_is_named_and_left_out(make_run, caplog, name):
    good, bad = make_run(seed=3), make_run(seed=4)
    (bad.path / name).write_bytes(b"[" * 99_999)
    assert [result.seed for result in results.load_results([bad, good])] == [3]
    assert f"{bad.path / name}" in caplog.text
    assert "left out" in caplog.text
    with pytest.raises(RlfdError, match=re.escape(str(bad.path / name))):
        results.load_results([bad])


def test_labels_put_what_was_asked_beside_what_was_shown(make_run, tmp_path):
    """A method that asks has a curve over its env steps, a clone one point at its transitions."""
    shown = {"name": "d", "return_mean": 270.0, "success_rate": 1.0, "episodes": 3}
    runs = [
        make_run(algo=algo, seed=seed, demos=shown | {"transitions": 700 + 50 * seed})
        for algo in ("dagger", "bc")
        for seed in (0, 1, 2)
    ]
    data = read(plot_learning_curves(runs, tmp_path / "f.png", x="labels"))
    assert curve(data, algo="dagger")["x"].tolist() == [1000, 2000, 3000]
    assert curve(data, algo="bc")["x"].tolist() == [750]
    assert curve(data, algo="bc")["y"].tolist() == pytest.approx([0.5])


def test_unknown_axis_and_nothing_to_draw(make_run, tmp_path):
    with pytest.raises(RlfdError, match="did you mean 'frames'"):
        plot_learning_curves([make_run()], tmp_path / "f.png", x="frame")
    with pytest.raises(RlfdError, match="no run"):
        plot_learning_curves([], tmp_path / "f.png")
    with pytest.raises(RlfdError, match="has been evaluated yet"):
        plot_learning_curves([make_run(seed=9, steps=(), final=None)], tmp_path / "f.png")


def test_mean_and_interval_over_seeds(make_run, tmp_path):
    values = [[0.0, 0.2, 0.8], [0.1, 0.4, 1.0], [0.2, 0.9, 0.9]]
    runs = [make_run(seed=seed, success=v) for seed, v in enumerate(values)]
    data = curve(read(plot_learning_curves(runs, tmp_path / "f.svg")))
    assert data["x"].to_list() == [1000, 2000, 3000]
    np.testing.assert_allclose(data["y"], [0.1, 0.5, 0.9])
    low, high = statistics.bootstrap_curve(
        np.array(values), rng=np.random.default_rng(statistics.BOOTSTRAP_SEED)
    )
    np.testing.assert_allclose(data["low"], low)
    np.testing.assert_allclose(data["high"], high)
    assert set(data["n"]) == {3}
    assert set(data["seeds"]) == {"0 1 2"}
    assert set(data["statistic"]) == {"mean"}


def test_iqm(make_run, tmp_path):
    runs = [make_run(seed=s, success=[v] * 3) for s, v in enumerate([0.0, 0.5, 0.6, 1.0])]
    files = plot_learning_curves(runs, tmp_path / "f.svg", use_iqm=True)
    np.testing.assert_allclose(curve(read(files))["y"], 0.55)
    assert "interquartile mean and 95% bootstrap interval over 4 seeds" in files.data.read_text()
    assert "interquartile mean and 95% bootstrap" in files.figure.read_text()


def test_no_interval_below_three_seeds(make_run, tmp_path):
    files = plot_learning_curves([make_run(seed=0), make_run(seed=1)], tmp_path / "f.svg")
    assert curve(read(files))["low"].isna().all()
    assert "mean over 2 seeds, no interval (it needs 3)" in files.figure.read_text()


def test_policy(make_run, tmp_path):
    runs = [make_run()]
    assert set(read(plot_learning_curves(runs, tmp_path / "f.svg"))["policy"].dropna()) == {
        "sampled"
    }
    greedy = curve(read(plot_learning_curves(runs, tmp_path / "f.svg", policy="greedy")))
    np.testing.assert_allclose(greedy["y"], [0.0, 0.25, 0.75])
    both = plot_learning_curves(runs, tmp_path / "f.svg", policy="both")
    np.testing.assert_allclose(curve(read(both), policy="greedy")["y"], [0.0, 0.25, 0.75])
    np.testing.assert_allclose(curve(read(both), policy="sampled")["y"], [0.0, 0.5, 1.0])
    assert "SQIL, greedy" in both.figure.read_text()


def test_both_policies_of_methods_that_share_a_colour_are_told_apart(make_run, tmp_path):
    assert {drawing.assign_styles([("", algo)])["", algo][0] for algo in ("sqil", "psq")} == {
        "#0072B2"
    }
    runs = [make_run(), make_run(algo="psq")]
    files = plot_learning_curves(runs, tmp_path / "f.svg", policy="both")
    lines = re.findall(r'style="fill: none; ([^"]*#0072b2[^"]*)"', files.figure.read_text())
    assert len(set(lines)) == 4


def test_a_policy_that_a_method_has_not(make_run, tmp_path):
    runs = [make_run(), make_run(algo="dqn")]
    files = plot_learning_curves(runs, tmp_path / "f.svg", policy="sampled")
    (note,) = files.notes
    assert "default/dqn" in note
    assert "has no sampled policy" in note
    with pytest.raises(RlfdError, match="none of these runs has a sampled policy"):
        plot_learning_curves(runs[1:], tmp_path / "f.svg", policy="sampled")


def test_seeds_that_do_not_belong_together_are_named(make_run, tmp_path):
    config = make_run().config()
    other = dataclasses.replace(
        config, seed=1, algorithm=dataclasses.replace(config.algorithm, gamma=0.5)
    )
    runs = [make_run(), make_run(config=other, demos={"name": "d", "hash": "1"})]
    (note,) = plot_learning_curves(runs, tmp_path / "f.svg").notes
    assert note.endswith("seeds differ in gamma, demonstrations")
    assert set(results_table(runs)["note"]) == {"seeds differ in gamma, demonstrations"}


def test_return_is_drawn_where_there_is_no_success_test(make_run, tmp_path):
    run = make_run(env=EnvConfig("CartPole"), has_success=False)
    data = curve(read(plot_learning_curves([run], tmp_path / "f.svg")))
    assert set(data["metric"]) == {"return"}
    np.testing.assert_allclose(data["y"], [-150, 50, 250])
    with pytest.raises(RlfdError, match="no success test"):
        plot_learning_curves([run], tmp_path / "f.svg", metric="success")


def test_wall_time_and_frames(make_run, tmp_path):
    wall = curve(read(plot_learning_curves([make_run()], tmp_path / "f.svg", x="wall-time")))
    assert wall["x"].to_list() == [2.0, 4.0, 6.0]
    frames = curve(read(plot_learning_curves([make_run(seed=1)], tmp_path / "f.svg", x="frames")))
    assert frames["x"].to_list() == [1000, 2000, 3000]


def test_unequal_runs_are_drawn_as_far_as_all_reach(make_run, tmp_path):
    runs = [
        make_run(seed=0, steps=(1000, 2000), success=(0.0, 0.2), state="running", final=None),
        make_run(seed=1),
    ]
    files = plot_learning_curves(runs, tmp_path / "f.svg")
    assert curve(read(files))["x"].to_list() == [1000, 2000]
    assert "seeds differ in steps" in files.notes[0]
    assert "unequal length" in files.notes[1]
    assert all(note in files.data.read_text() for note in files.notes)


def test_different_places_are_interpolated_and_said(make_run, tmp_path):
    runs = [
        make_run(seed=0, steps=(1000, 2000, 3000), success=(0.0, 0.5, 1.0)),
        make_run(seed=1, steps=(1000, 3000), success=(0.0, 0.4)),
    ]
    files = plot_learning_curves(runs, tmp_path / "f.svg")
    np.testing.assert_allclose(curve(read(files))["y"], [0.0, (0.5 + 0.2) / 2, 0.7])
    assert "interpolated" in files.notes[0]


def test_seeds_without_a_common_range_are_refused(make_run, tmp_path):
    runs = [
        make_run(seed=0, steps=(1000, 2000), success=(0, 0)),
        make_run(seed=1, steps=(3000,), success=(0,)),
    ]
    with pytest.raises(RlfdError, match="no evaluated range in common"):
        plot_learning_curves(runs, tmp_path / "f.svg")


def test_a_seed_that_has_just_started_is_left_out_and_named(make_run, tmp_path):
    runs = [
        make_run(seed=0),
        make_run(seed=4, steps=(), last=3000, final=None, state="running"),
    ]
    files = plot_learning_curves(runs, tmp_path / "f.svg")
    (note,) = files.notes
    assert "seed 4 not evaluated yet" in note
    assert set(curve(read(files))["n"]) == {1}


def test_a_method_without_interaction_is_a_level(make_run, tmp_path):
    runs = [make_run(algo="bc", seed=s, steps=(), final=v) for s, v in enumerate((0.5, 0.7, 0.9))]
    data = read(plot_learning_curves([*runs, make_run()], tmp_path / "f.svg"))
    level = data[data["kind"] == "level"]
    assert level["policy"].to_list() == ["greedy"]  # the policy that BC is judged by
    np.testing.assert_allclose(level["y"], [(0.25 + 0.45 + 0.65) / 3])
    plot_learning_curves(runs, tmp_path / "alone.png")


def test_the_final_evaluation_closes_the_curve(make_run, tmp_path):
    run = make_run(steps=(1000, 2000), success=(0.0, 0.5), last=2600, final=0.8)
    data = curve(read(plot_learning_curves([run], tmp_path / "f.svg")))
    assert data["x"].to_list() == [1000, 2000, 2600]
    np.testing.assert_allclose(data["y"], [0.0, 0.5, 0.8])
    short = make_run(seed=1, steps=(), last=600, final=0.3)
    data = curve(read(plot_learning_curves([short], tmp_path / "f.svg")))
    assert data["x"].to_list() == [600]


def test_reference_lines(make_run, tmp_path):
    run = make_run()
    data = read(plot_learning_curves([run], tmp_path / "f.svg", metric="return"))
    lines = dict(data[data["kind"] == "reference"][["label", "y"]].to_numpy())
    assert lines["demonstrations"] == 270.0
    known = envs.spec("LunarLander").references.get("shifted")
    assert lines.get("random policy") == (known.random_return if known else None)
    data = read(plot_learning_curves([run], tmp_path / "f.svg"))
    lines = dict(data[data["kind"] == "reference"][["label", "y"]].to_numpy())
    assert lines["demonstrations"] == 1.0
    own = {"LunarLander-shifted": [ReferenceLine("ceiling", 0.9)]}
    data = read(plot_learning_curves([run], tmp_path / "f.svg", references=own))
    assert data[data["kind"] == "reference"][["label", "y"]].to_numpy().tolist() == [
        ["ceiling", 0.9]
    ]


def test_the_line_of_seeded_subsets_is_their_mean(make_run, tmp_path):
    runs = [
        make_run(seed=seed, demos={"name": "d", "hash": "0", "return_mean": value})
        for seed, value in enumerate((100.0, 200.0, 330.0))
    ]
    data = read(plot_learning_curves(runs, tmp_path / "f.svg", metric="return"))
    lines = dict(data[data["kind"] == "reference"][["label", "y"]].to_numpy())
    assert lines["demonstrations"] == 210.0


def test_scores_of_the_usual_options_are_not_those_of_others(make_run, tmp_path):
    def lines(**options):
        env = EnvConfig("LunarLander", "demo", options)
        run = make_run(exp_name=str(len(options)), env=env, demos=None)
        data = read(plot_learning_curves([run], tmp_path / "f.svg", metric="return"))
        return data[data["kind"] == "reference"]["label"].to_list()

    assert lines() == ["random policy"]
    assert lines(push_scale=0.75) == []


def test_different_demonstrations_have_a_line_each(make_run, tmp_path):
    other = {"name": "noisy", "hash": "1", "return_mean": 100.0, "success_rate": 0.5}
    runs = [make_run(), make_run(exp_name="noisy", demos=other)]
    data = read(plot_learning_curves(runs, tmp_path / "f.svg"))
    lines = dict(data[data["kind"] == "reference"][["label", "y"]].to_numpy())
    assert lines["demonstrations (d)"] == 1.0
    assert lines["demonstrations (noisy)"] == 0.5


def test_reference_lines_can_be_told_apart(make_run, tmp_path):
    own = {"LunarLander-shifted": [ReferenceLine(name, 0.1) for name in "abcd"]}
    svg = plot_learning_curves([make_run()], tmp_path / "f.svg", references=own).figure.read_text()
    grey = r"stroke-dasharray: ([\d., ]+); stroke-dashoffset: 0; stroke: #(?:404040|8c8c8c)"
    assert len(set(re.findall(grey, svg))) == 4


def test_one_panel_per_start(make_run, tmp_path):
    runs = [make_run(), make_run(env=EnvConfig("LunarLander", "demo"))]
    files = plot_learning_curves(runs, tmp_path / "f.svg")
    assert set(read(files)["env"]) == {"LunarLander-shifted", "LunarLander-demo"}
    text = files.figure.read_text()
    assert "LunarLander, shifted start" in text
    assert "LunarLander, demo start" in text


def test_n_stands_with_each_name_where_it_differs(make_run, tmp_path):
    runs = [make_run(seed=s) for s in range(3)] + [make_run(algo="sqil-t")]
    text = plot_learning_curves(runs, tmp_path / "f.svg").figure.read_text()
    assert "SQIL (n=3)" in text
    assert "SQIL-T (n=1)" in text


def test_labels_are_not_read_as_maths(make_run, tmp_path):
    runs = [make_run(exp_name="a"), make_run(exp_name="b")]
    labels = {("a", "sqil"): "$5", ("b", "sqil"): "λ_samp = 0"}
    files = plot_learning_curves(runs, tmp_path / "f.svg", labels=labels)
    assert "$5" in files.figure.read_text()
    assert set(read(files)["label"].dropna()) >= {"$5", "λ_samp = 0"}


def test_an_algorithm_keeps_its_colour(make_run, tmp_path):
    def styles(*runs):
        results = figures.load_results(runs)
        curves = figures._curves(results, "env-steps", "success", False, None, [])
        return drawing.assign_styles(curve.variant for curve in curves)

    sqil, sqil_t, dqn = make_run(), make_run(algo="sqil-t"), make_run(algo="dqn")
    alone = styles(sqil)["default", "sqil"]
    together = styles(dqn, sqil_t, sqil)
    assert together["default", "sqil"] == alone
    assert len({colour for colour, _ in together.values()}) == 3
    assert len({str(style) for style in together.values()}) == 3
    variants = styles(sqil, *(make_run(exp_name=name) for name in "abcdef"))
    assert variants["default", "sqil"] == alone
    own = {colour for colour, _ in drawing._STYLES.values()}
    others = [style for key, style in variants.items() if key != ("default", "sqil")]
    assert len({colour for colour, _ in others}) == 6
    assert not {colour for colour, _ in others} & own


def test_the_same_seed_twice_is_refused_but_a_folder_twice_is_not(make_run, tmp_path):
    run = make_run()
    other = RunDirOf(run, tmp_path)
    assert len(figures.load_results([run, run])) == 1
    with pytest.raises(RlfdError, match="both seed 0"):
        plot_learning_curves([run, other], tmp_path / "f.svg")


def RunDirOf(run, tmp_path):
    import shutil

    from rlfd.experiments.run_dir import RunDir

    shutil.copytree(run.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


def test_the_same_data_give_the_same_bytes_and_leave_no_state(make_run, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    runs = [make_run(seed=s) for s in range(3)]
    for suffix in (".png", ".svg", ".pdf"):
        first = plot_learning_curves(runs, tmp_path / f"a{suffix}")
        second = plot_learning_curves(runs, tmp_path / f"b{suffix}")
        assert first.figure.read_bytes() == second.figure.read_bytes()
        assert first.data.read_text() == second.data.read_text()
    assert dict(matplotlib.rcParams) == before


def test_no_text_below_seven_points(make_run, tmp_path):
    import re

    text = plot_learning_curves([make_run()], tmp_path / "f.svg").figure.read_text()
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: *([\d.]+)px", text)]
    assert sizes
    assert min(sizes) >= 7


def test_runs_of_an_environment_that_is_not_installed_any_more(make_run, tmp_path):
    gone = EnvConfig("gone_package:Gone-v0", options={"size": 7})
    config = dataclasses.replace(make_run(exp_name="there").config(), env=gone, exp_name="gone")
    run = make_run(config=config)
    for x in ("env-steps", "frames"):
        data = read(plot_learning_curves([run], tmp_path / "f.svg", x=x))
        assert curve(data)["x"].to_list() == [1000, 2000, 3000]
        assert "random policy" not in data.to_csv()
    assert len(results_table([run]))
