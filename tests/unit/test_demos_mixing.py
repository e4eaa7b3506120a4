"""Mixtures: shares, what is chosen, what is noted, and parts that do not belong together."""

import json

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from rlfd import demos
from rlfd.demos import storage
from rlfd.demos.dataset import Episode, content_hash
from rlfd.demos.mixing import _split
from rlfd.envs import Adapter, EnvConfig
from rlfd.errors import RlfdError

CART_POLE = EnvConfig("CartPole")
SIZES = {"good": 9, "bad": 7, "ugly": 5}


def write(folder, name, count, *, env=CART_POLE, actions=2, observations=4):
    """Write `count` episodes of made-up numbers; their returns tell the dataset and the episode."""
    rng = np.random.default_rng(sum(map(ord, name)))
    offset = {"good": 300, "bad": 100, "ugly": 0}.get(name, 0)
    episodes = []
    for index in range(count):
        length = 3 + index
        rewards = np.zeros(length)
        rewards[-1] = offset + index
        episodes.append(
            Episode(
                rng.normal(size=(length + 1, observations)).astype(np.float32),
                rng.integers(actions, size=length),
                rewards,
                terminated=index % 2 == 0,
                truncated=index % 2 == 1,
                seed=index,
            )
        )
    return storage.write_demonstrations(
        episodes,
        env=env,
        adapter=Adapter(
            f"dataset '{name}'",
            spaces.Box(-9, 9, (observations,), np.float32),
            spaces.Discrete(actions),
        ),
        demonstrator={"policy": name},
        name=name,
        data_dir=folder,
    )


@pytest.fixture
def parts(tmp_path):
    return {name: write(tmp_path, name, count) for name, count in SIZES.items()}


def mixed(parts, tmp_path, name="mixture", **shares):
    options = {key: shares.pop(key) for key in ("episodes", "seed") if key in shares}
    chosen = [(parts[part], share) for part, share in shares.items()]
    return demos.mix(chosen, name=name, data_dir=tmp_path, **options)


def origins(mixture):
    """Return how many episodes came from each of the parts."""
    names = np.select([mixture.returns >= 300, mixture.returns >= 100], ["good", "bad"], "ugly")
    return {str(name): int((names == name).sum()) for name in np.unique(names)}


@pytest.mark.parametrize(
    ("shares", "episodes", "expected"),
    [
        ({"good": 0.5, "bad": 0.5}, None, {"good": 7, "bad": 7}),
        ({"good": 0.75, "bad": 0.25}, None, {"good": 9, "bad": 3}),
        ({"good": 0.2, "bad": 0.8}, 5, {"good": 1, "bad": 4}),
        ({"good": 1 / 3, "bad": 1 / 3, "ugly": 1 / 3}, None, {"good": 5, "bad": 5, "ugly": 5}),
        ({"good": 0.0, "bad": 1.0}, None, {"bad": 7}),
        ({"good": 0.3, "bad": 0.7}, 10, {"good": 3, "bad": 7}),
    ],
)
def test_shares_are_of_episodes(parts, tmp_path, shares, episodes, expected):
    mixture = mixed(parts, tmp_path, episodes=episodes, **shares)
    assert origins(mixture) == expected
    noted = mixture.info.demonstrator["parts"]
    assert [part["episodes"] for part in noted] == [expected.get(name, 0) for name in shares]
    assert [part["share"] for part in noted] == list(shares.values())


@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1, 0.2, 0.7), (1 / 3, 1 / 3, 1 / 3)])
def test_counts_add_up_and_are_near_the_shares(total, shares):
    counts = _split(total, shares)
    assert sum(counts) == total
    assert all(abs(n - total * share) < 1 for n, share in zip(counts, shares, strict=True))


def test_no_episode_is_there_twice_and_each_is_as_it_was(parts, tmp_path):
    mixture = mixed(parts, tmp_path, good=0.5, bad=0.5)
    own = [content_hash([episode]) for episode in mixture.episodes]
    known = {content_hash([e]) for name in ("good", "bad") for e in parts[name].episodes}
    assert len(set(own)) == len(own)
    assert set(own) <= known
    # neither part comes first as a block
    kinds = mixture.returns >= 300
    assert len(set(kinds[:7])) == 2


def test_the_seed_decides(parts, tmp_path):
    shares = {"good": 0.5, "bad": 0.5, "episodes": 6}
    hashes = [mixed(parts, tmp_path, seed=seed, **shares).info.content_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_larger_share_adds_episodes(parts, tmp_path):
    few, many = (
        {e.episode_return for e in mixed(parts, tmp_path, episodes=8, **shares).episodes}
        for shares in ({"good": 0.25, "bad": 0.75}, {"good": 0.75, "bad": 0.25})
    )
    assert {value for value in few if value >= 300} < {value for value in many if value >= 300}


def test_it_is_an_ordinary_dataset_that_knows_its_parts(parts, tmp_path):
    mixture = mixed(parts, tmp_path, good=0.4, bad=0.6, episodes=10, seed=3)
    loaded = demos.load("mixture", env=CART_POLE, data_dir=tmp_path)
    assert loaded.info == mixture.info
    assert loaded.info.content_hash == content_hash(loaded.episodes)
    noted = loaded.info.demonstrator
    assert (noted["policy"], noted["seed"]) == ("mixture", 3)
    good, bad = noted["parts"]
    for part, name in ((good, "good"), (bad, "bad")):
        own = [v for v in mixture.returns if (v >= 300) == (name == "good")]
        assert part["name"] == f"{name}-v0"
        assert part["id"] == f"CartPole/{name}-v0"
        assert part["content_hash"] == parts[name].info.content_hash
        assert part["return_mean"] == pytest.approx(np.mean(own))
        assert part["demonstrator"] == {"policy": name}
    assert [episode.seed for episode in loaded.episodes] == [
        episode.seed for episode in mixture.episodes
    ]


def test_a_mixture_can_be_mixed(parts, tmp_path):
    half = mixed(parts, tmp_path, good=0.5, bad=0.5)
    again = demos.mix([(half, 0.5), (parts["ugly"], 0.5)], name="again", data_dir=tmp_path)
    assert origins(again)["ugly"] == 5
    assert again.info.demonstrator["parts"][0]["demonstrator"]["policy"] == "mixture"


def test_parts_that_overlap_are_warned_about(parts, tmp_path, caplog):
    half = mixed(parts, tmp_path, good=0.5, bad=0.5)
    demos.mix([(half, 0.5), (parts["bad"], 0.5)], name="again", data_dir=tmp_path)
    assert "5 of the 14 episodes repeat another one" in caplog.text


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"good": 0.5, "bad": 0.4}, r"0\.5 \+ 0\.4 add up to 0\.9, expected 1"),
        ({"good": 1.0}, "at least two parts"),
        ({"good": 1.5, "bad": -0.5}, "share must be from 0 to 1, not 1.5"),
        ({"good": float("nan"), "bad": 0.5}, "share must be from 0 to 1, not nan"),
        (
            {"good": 0.5, "bad": 0.5, "episodes": 16},
            "a share of 0.5 of 16 episodes is 8, demonstrations 'CartPole/bad-v0' have 7",
        ),
        (
            {"good": 0.05, "bad": 0.95, "episodes": 4},
            "a share of 0.05 of 4 episodes is none of 'CartPole/good-v0'",
        ),
        ({"good": 0.5, "bad": 0.5, "name": "a/b"}, "'a/b' cannot be the name"),
    ],
)
def test_what_does_not_add_up_is_refused(parts, tmp_path, shares, words):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RlfdError, match=words):
        mixed(parts, tmp_path, **shares)
    assert sorted(tmp_path.rglob("*")) == before


def test_rounding_of_shares_is_forgiven(parts, tmp_path):
    assert len(mixed(parts, tmp_path, good=0.3333333, bad=0.6666666).episodes) == 10


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"env": EnvConfig("MountainCar")},
            "environment is 'CartPole' in the first, 'MountainCar'",
        ),
        ({"env": EnvConfig("CartPole", reward="sparse")}, "reward is 'dense' in the first"),
        ({"actions": 3}, r"action space is Discrete\(2\) in the first, Discrete\(3\)"),
        ({"observations": 5}, r"observation shape is \(4,\) in the first, \(5,\)"),
    ],
)
def test_parts_of_different_kinds_are_refused(parts, tmp_path, other, words):
    strange = write(tmp_path, "strange", 4, **other)
    with pytest.raises(RlfdError, match=words) as error:
        demos.mix([(parts["good"], 0.5), (strange, 0.5)], name="m", data_dir=tmp_path)
    assert "good-v0" in str(error.value)
    assert "strange-v0" in str(error.value)
    assert not list(tmp_path.rglob("m-v0"))


def test_other_starts_and_options_are_refused(tmp_path):
    kwargs = {"observations": 8, "actions": 4}
    demo = EnvConfig("LunarLander", "demo")
    first = write(tmp_path, "good", 4, env=demo, **kwargs)
    for name, env, words in (
        ("standard", EnvConfig("LunarLander"), "start is 'demo' in the first, 'standard'"),
        ("pushed", EnvConfig("LunarLander", "demo", {"push_scale": 0.5}), "option 'push_scale'"),
    ):
        other = write(tmp_path, name, 4, env=env, **kwargs)
        with pytest.raises(RlfdError, match=words):
            demos.mix([(first, 0.5), (other, 0.5)], name="m", data_dir=tmp_path)


def test_options_that_only_a_learner_may_have_otherwise_are_those_of_all_parts(tmp_path):
    def collected(name, **options):
        env = EnvConfig("Pong", options=options)
        actor = demos.make_demonstrator("random", env, seed=0)
        return demos.collect(env, actor, episodes=1, name=name, data_dir=tmp_path)

    first, other = collected("a", max_frames=40), collected("b", max_frames=80)
    with pytest.raises(RlfdError, match="option 'max_frames' is 40 in the first, 80"):
        demos.mix([(first, 0.5), (other, 0.5)], name="m", data_dir=tmp_path)


def unpaid(dataset):
    """Take the rewards out of a dataset of another tool."""
    with h5py.File(dataset.info.path / "data" / "main_data.hdf5", "a") as file:
        for group in file.values():
            group["rewards"][...] = np.nan
    return storage.read_demonstrations(dataset.info.path)


def test_data_without_rewards_are_mixed_with_their_like(tmp_path):
    parts = [unpaid(foreign(real(tmp_path, name, name))) for name in ("random", "controller")]
    mixture = demos.mix([(one, 0.5) for one in parts], name="m", data_dir=tmp_path)
    again = demos.load("m", env=CART_POLE, data_dir=tmp_path)
    assert not again.has_rewards
    assert mixture.info.return_mean is None
    paid = real(tmp_path, "paid")
    with pytest.raises(RlfdError, match="having rewards is False in the first, True in the second"):
        demos.mix([(parts[0], 0.5), (paid, 0.5)], name="n", data_dir=tmp_path)


def test_the_same_data_twice_are_refused(parts, tmp_path):
    with pytest.raises(RlfdError, match="are the same"):
        demos.mix([(parts["good"], 0.5), (parts["good"], 0.5)], name="m", data_dir=tmp_path)


def foreign(dataset, **env_spec):
    """Make a dataset look as if another tool had written it."""
    file = dataset.info.path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["rlfd"]
    metadata["env_spec"] = json.dumps(json.loads(metadata["env_spec"]) | env_spec)
    file.write_text(json.dumps(metadata))
    return storage.read_demonstrations(dataset.info.path)


def real(tmp_path, name, policy="random"):
    """Collect a dataset whose spaces are the environment's own."""
    actor = demos.make_demonstrator(policy, CART_POLE, seed=0)
    return demos.collect(CART_POLE, actor, episodes=4, data_dir=tmp_path, name=name)


def test_foreign_data_take_part(tmp_path):
    first, second = foreign(real(tmp_path, "a")), real(tmp_path, "b", "controller")
    mixture = demos.mix([(first, 0.5), (second, 0.5)], name="m", data_dir=tmp_path)
    assert mixture.info.env == CART_POLE
    assert mixture.info.demonstrator["parts"][0]["content_hash"] == content_hash(first.episodes)


def test_an_unknown_environment_is_refused(tmp_path):
    first, second = foreign(real(tmp_path, "a"), id="Nowhere-v3"), real(tmp_path, "b")
    with pytest.raises(RlfdError, match="environment is 'recorded:Nowhere-v3' in the first"):
        demos.mix([(first, 0.5), (second, 0.5)], name="m", data_dir=tmp_path)
