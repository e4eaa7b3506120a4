"""What a suite's file may say, and which contradictions are found in it."""

import pytest

from rlfd.experiments.suite_file import parse_suite

from .small_suites import GRID, MIXED, RACE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('tasks = ["pole"]', 'tasks = ["pol"]', "group 'pole' of the suite names 'pol'"),
        ('demos = ["weak"]', 'demos = ["bad"]', "group 'weak' of the suite names 'bad'"),
        ('demos = ["good"]\n[[rows]]', 'demos = ["bad"]\n[[rows]]', "row 'BC again' .* 'bad'"),
        ('tasks = ["car"]', 'tasks = ["bike"]', "row 'On one task' of the suite names 'bike'"),
        ('init = "BC"', 'init = "BCC"', "names 'BCC', expected .*'BC'"),
        ('init = "BC"', 'init = "Random"', "names 'Random'"),
        ('init = "BC"', 'init = "BC again"', "row 'BC again' cannot start from 'BC again'"),
        ('init = "BC"', 'init = "DQN from DQN"', "cannot start from 'DQN from DQN'"),
        ("num_envs = 2", "env_count = 2", "run of the suite names 'env_count'"),
        ("noise = 0.0", "nois = 0.0", "task 'car' of the suite names 'nois', expected .*noise"),
        ("demos = { good", "demos = { god", "task 'car' of the suite names 'god'"),
        ('reward = "sparse"\n', "", None),
        ('env = "MountainCar"\nreward = "sparse"', 'env = "CartPole"', "have one run folder"),
    ],
)
def test_a_grid_that_contradicts_itself(old, new, message):
    assert GRID.count(old) == 1
    if message is None:
        parse_suite("grid", GRID.replace(old, new))
        return
    with pytest.raises(ValueError, match=message):
        parse_suite("grid", GRID.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("good = 0.5, weak = 0.5", "good = 0.5, weak = 0.4", "'half': .* add up to 0.9, expected"),
        ("good = 0.5, weak = 0.5", "good = 0.5, bad = 0.5", "'half' of the suite names 'bad'"),
        ("good = 0.5, weak = 0.5", "half = 0.5, good = 0.5", "'half', a mixture itself"),
        ("mix = {", 'policy = "random"\nmix = {', "'half' need either a policy or a mix"),
        ("mix = { good = 0.5, weak = 0.5 }", "", "'half' need either a policy or a mix"),
        ("mix = {", 'start = "demo"\nmix = {', "'half' and 'good' have different starts"),
    ],
)
def test_a_mixture_that_contradicts_itself(old, new, message):
    assert MIXED.count(old) == 1
    with pytest.raises(ValueError, match=message):
        parse_suite("mixed", MIXED.replace(old, new))


def test_a_row_of_another_environment_has_no_demonstrations():
    with pytest.raises(ValueError, match="row 'Many' has its own environment"):
        parse_suite("race", RACE.replace('algo = "a2c"\nenv', 'algo = "bc"\nenv'))
    with pytest.raises(ValueError, match="metric of the suite names 'returns'"):
        parse_suite("race", RACE.replace('"return"', '"returns"'))
