"""Performance against quality and number of demonstrations: what makes a point, and a line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from rlfd.envs import EnvConfig
from rlfd.errors import RlfdError
from rlfd.experiments import statistics
from rlfd.experiments.quality_figure import plot_demonstrations

DEMO = EnvConfig("LunarLander", "demo")


def demos(name="good", quality=200.0, number=20, success=0.9, **more):
    return {
        "name": f"LunarLander-demo/{name}-v0",
        "hash": name,
        "return_mean": quality,
        "success_rate": success,
        "episodes": number,
    } | more


def points(files, kind="point"):
    data = pd.read_csv(files.data, comment="#")
    return data[data["kind"] == kind]


@pytest.fixture
def make(make_run):
    """Return a function that writes an offline run on demonstrations; `final` is of greedy."""

    def write(final=0.5, *, data=None, algo="bc", seed=0, exp_name=None, **options):
        data = demos() if data is None else data
        name = exp_name or f"{data['hash']}-{data['episodes']}"
        return make_run(
            algo=algo, seed=seed, exp_name=name, demos=data, steps=(), final=final + 0.25,
            env=options.pop("env", DEMO), **options,
        )  # fmt: skip

    return write


def returns(rate):
    return 400 * rate - 150


def with_settings(run, **settings):
    """Change hyperparameters in a run's configuration."""
    place = run.path / "config.json"
    config = json.loads(place.read_text())
    config["algorithm"] |= settings
    place.write_text(json.dumps(config))
    return run


def test_points_are_means_over_seeds_with_intervals(make, tmp_path):
    good, bad = demos("good", 200.0), demos("bad", -50.0)
    values = {"good": [0.5, 0.6, 0.75], "bad": [0.1, 0.0, 0.2]}
    runs = [
        make(value, data=data, seed=seed)
        for data in (good, bad)
        for seed, value in enumerate(values[data["hash"]])
    ]
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="quality", command="rlfd plot x")
    data = points(files)
    assert data["x"].tolist() == [-50.0, 200.0]
    assert set(data["label"]) == {"BC"}
    for row, name in zip(data.to_dict("records"), ("bad", "good"), strict=True):
        own = np.array([returns(v) for v in values[name]])
        assert row["y"] == pytest.approx(own.mean())
        interval = statistics.bootstrap_interval(
            own, rng=np.random.default_rng(statistics.BOOTSTRAP_SEED)
        )
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert (row["n"], row["seeds"], row["num_demos"]) == (3, "0 1 2", 20)
        assert row["demos"] == f"LunarLander-demo/{name}-v0"
    text = files.data.read_text()
    assert text.startswith("# command: rlfd plot x\n# mean and 95% bootstrap interval over 3 seeds")
    svg = files.figure.read_text()
    for part in ("mean return of the demonstrations", "final episode return", "demonstrations"):
        assert part in svg


def test_the_number_of_demonstrations(make, tmp_path):
    runs = [
        make(0.1 * number, data=demos(number=number, quality=200.0 + seed), seed=seed)
        for number in (1, 3, 5)
        for seed in range(2)
    ]
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="num-demos")
    data = points(files)
    assert data["x"].tolist() == [1, 3, 5]
    np.testing.assert_allclose(data["y"], [returns(0.1), returns(0.3), returns(0.5)])
    assert data["low"].isna().all()
    assert "mean over 2 seeds, no interval (it needs 3)" in files.data.read_text()
    given = points(files, "demonstrations")
    np.testing.assert_allclose(given["y"], 200.5)


def test_each_seed_may_see_another_part_of_the_data(make, tmp_path):
    runs = [make(data=demos(quality=quality), seed=s) for s, quality in enumerate((190, 220))]
    assert points(plot_demonstrations(runs, tmp_path / "f.svg", x="quality"))["x"].tolist() == [205]


def test_what_does_not_belong_to_the_axis_makes_lines_of_its_own(make, tmp_path):
    runs = [
        make(data=demos(name, quality, number))
        for name, quality in (("good", 200), ("bad", -50))
        for number in (5, 20)
    ]
    by_quality = points(plot_demonstrations(runs, tmp_path / "f.svg", x="quality"))
    assert by_quality.groupby("label")["x"].apply(list).to_dict() == {
        "BC, 5 demonstrations": [-50, 200],
        "BC, 20 demonstrations": [-50, 200],
    }
    by_number = points(plot_demonstrations(runs, tmp_path / "f.svg", x="num-demos"))
    assert by_number.groupby("label")["x"].apply(list).to_dict() == {
        "BC, good-v0": [5, 20],
        "BC, bad-v0": [5, 20],
    }


def test_hyperparameters_tell_lines_apart_names_do_not(make, tmp_path):
    sets = [demos("good", 200.0), demos("bad", -50.0)]
    runs = [make(data=data) for data in sets]
    wide = [
        with_settings(make(0.9, data=data, exp_name=f"wide-{data['hash']}"), hidden=[9])
        for data in sets
    ]
    data = points(plot_demonstrations([*runs, *wide], tmp_path / "f.svg", x="quality"))
    lines = data.groupby("label")["x"].apply(list).to_dict()
    assert lines == {"BC (bad-20, good-20)": [-50, 200], "BC (wide)": [-50, 200]}
    labels = {("wide-good", "bc"): "Wide", ("wide-bad", "bc"): "Wide"}
    named = plot_demonstrations([*runs, *wide], tmp_path / "f.svg", x="quality", labels=labels)
    assert set(points(named)["label"]) == {"BC", "Wide"}


def test_a_seed_that_is_there_twice_counts_once(make, tmp_path):
    runs = [make(0.5, exp_name="a"), make(0.75, exp_name="b")]
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="quality")
    assert points(files)["y"].tolist() == [returns(0.5)]
    assert "seed 0 on 'LunarLander-demo/good-v0' is there twice" in files.notes[0]


def test_what_the_lines_are_compared_with(make, tmp_path):
    from rlfd import envs

    known = envs.spec("LunarLander").references["demo"]
    runs = [make(data=demos(name, q, success=s)) for name, q, s in (("a", 9, 0.2), ("b", 7, 0.1))]
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="quality")
    given = points(files, "demonstrations")
    assert given[["x", "y"]].to_numpy().tolist() == [[7, 7], [9, 9]]
    levels = points(files, "reference").set_index("label")["y"].to_dict()
    assert levels == {
        "controller": known.demonstrator_return,
        "random policy": known.random_return,
    }
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="quality", metric="success")
    given = points(files, "demonstrations")
    assert given[["x", "y"]].to_numpy().tolist() == [[7, 0.1], [9, 0.2]]
    assert points(files, "reference")["y"].tolist() == [1 - 0.001, 0.0]


def test_demonstrations_of_another_reward_are_no_measure(make, tmp_path):
    delayed = dataclasses.replace(DEMO, reward="delay-9")
    files = plot_demonstrations([make(env=delayed)], tmp_path / "f.svg", x="quality")
    assert not len(points(files, "demonstrations"))
    assert not len(points(files, "reference"))
    same = make(env=delayed, data=demos(reward="delay-9"), seed=1)
    assert len(
        points(plot_demonstrations([same], tmp_path / "f.svg", x="quality"), "demonstrations")
    )


def test_iqm_and_policy(make, tmp_path):
    runs = [make(v, seed=s) for s, v in enumerate((0.0, 0.5, 0.6, 0.7))]
    options = {"x": "quality", "use_iqm": True, "policy": "sampled"}
    files = plot_demonstrations(runs, tmp_path / "f.svg", **options)
    assert points(files)["y"].tolist() == pytest.approx([returns(0.55 + 0.25)])
    assert set(points(files)["policy"]) == {"sampled"}
    assert "interquartile mean and 95%" in files.figure.read_text()


def test_runs_that_have_no_place_are_counted(make, make_run, tmp_path):
    runs = [make(), make_run(algo="dqn", env=DEMO, demos=None), make(seed=1, final=-0.25)]
    unfinished = make_run(algo="bc", env=DEMO, seed=5, steps=(), final=None, state="running")
    files = plot_demonstrations([*runs, unfinished], tmp_path / "f.svg", x="quality")
    assert files.notes == (
        "1 of 4 runs left out: learned without demonstrations",
        "1 of 4 runs left out: not evaluated at the end",
    )
    with pytest.raises(RlfdError, match="none of these runs learned from demonstrations"):
        plot_demonstrations(runs[1:2], tmp_path / "g.svg", x="quality")
    assert not (tmp_path / "g.svg").exists()


def test_one_panel_per_environment(make, tmp_path):
    runs = [make(), make(env=EnvConfig("CartPole"), has_success=False)]
    files = plot_demonstrations(runs, tmp_path / "f.svg", x="num-demos")
    assert set(points(files)["env"]) == {"LunarLander-demo", "CartPole"}
    assert "LunarLander, demo start" in files.figure.read_text()


def test_axis_and_format_are_checked(make, tmp_path):
    with pytest.raises(RlfdError, match="did you mean 'quality'"):
        plot_demonstrations([make()], tmp_path / "f.svg", x="qualty")
    with pytest.raises(RlfdError, match=r"\.png, \.svg, \.pdf"):
        plot_demonstrations([make(seed=1)], tmp_path / "f.gif", x="quality")


@pytest.mark.parametrize("numbers", [(1, 3, 40), (5, 6, 7), (3,)])
def test_numbers_are_readable_on_the_axis(make, tmp_path, numbers):
    """Far apart they are spread out, and each is named."""
    runs = [make(data=demos(number=number)) for number in numbers]
    svg = plot_demonstrations(runs, tmp_path / "f.svg", x="num-demos").figure.read_text()
    if len(numbers) > 1:
        for number in numbers:
            assert f">{number}</text>" in svg
