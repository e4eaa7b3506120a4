from __future__ import annotations

import pytest

from rlfd.envs import EnvConfig
from rlfd.experiments import played as module
from rlfd.experiments.played import Played
from rlfd.experiments.report import NullReporter

CARTPOLE = EnvConfig("CartPole")


class Listener(NullReporter):
    def __init__(self):
        self.heard = []

    def message(self, text):
        self.heard.append(text)


@pytest.fixture
def make(tmp_path):
    def make():
        reporter = Listener()
        return Played(tmp_path / "results" / "played.json", tmp_path, reporter), reporter.heard

    return make


def test_what_was_played_is_not_played_again(make, monkeypatch):
    played, heard = make()
    first = played.summary("random", CARTPOLE, seed=3, episodes=4)
    assert 4 * 8 < 4 * first["return_mean"] < 4 * 100
    assert heard == ["evaluating random on CartPole, seed 3"]
    again, heard = make()
    assert again.summary("random", CARTPOLE, seed=3, episodes=4) == first
    assert heard == []
    for seed, episodes, policy in ((4, 4, "random"), (3, 2, "random"), (3, 4, "controller")):
        assert again.summary(policy, CARTPOLE, seed=seed, episodes=episodes) != first
    monkeypatch.setattr(module, "__version__", "another")
    assert again.summary("random", CARTPOLE, seed=3, episodes=4) == first
    assert len(heard) == 4


def test_a_damaged_file_is_written_anew(make, tmp_path):
    first = make()[0].summary("random", CARTPOLE, seed=0, episodes=2)
    path = tmp_path / "results" / "played.json"
    whole = path.read_text()
    for damaged in (whole[:-9], "[1]"):
        path.write_text(damaged)
        assert make()[0].summary("random", CARTPOLE, seed=0, episodes=2) == first
        assert path.read_text() == whole
