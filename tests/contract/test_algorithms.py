"""What every registered algorithm keeps to; a new one gets these tests by registering."""

from __future__ import annotations

import copy
import dataclasses
import io
import typing
from pathlib import Path

import dots  # noqa: F401  registers a game in pictures
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlfd import algorithms, demos
from rlfd.algorithms.base import ActionSpec, DemoTensors
from rlfd.algorithms.core.engine import UpdateEngine
from rlfd.demos import DemoInfo, Demonstrations, Episode
from rlfd.envs import EnvConfig, World
from rlfd.errors import RlfdError
from rlfd.experiments.config import RunConfig, resolve
from rlfd.experiments.problem import (
    build_algorithm,
    build_for_acting,
    check_support,
    demo_tensors,
)

ROOT = Path(__file__).parents[2]
CART_POLE, PENDULUM = EnvConfig("CartPole"), EnvConfig("Pendulum")
GRID = EnvConfig("SlipperyGridWorld", options={"size": 3, "pits": 1, "horizon": 7})
NAMES = algorithms.names()
WITH_DEMONSTRATIONS = [name for name in NAMES if algorithms.get(name).needs.demonstrations]
WITH_IMAGES = [name for name in NAMES if algorithms.get(name).needs.images]
DOTS = EnvConfig("rlfd-tests/Dots-v0")
OPTIONALLY = [name for name in NAMES if algorithms.get(name).needs.optional_demonstrations]

SMALL = {
    "batch_size": 9,
    "hidden": (11,),
    "batch_steps": 12,
    "first_steps": 12,
    "actor_steps": 3,
    "critic_steps": 2,
    "value_batch_size": 5,
    "value_epochs": 2,
    "minibatch_size": 5,
    "epochs": 2,
    "d_batch_size": 9,
    "d_steps": 3,
    "d_hidden": (11,),
    "reward_steps": 3,
    "reward_batch_size": 5,
    "reward_hidden": (11,),
    "max_length": 4,
    "clone_steps": 7,
    "sil_updates": 2,
    "min_stored": 5,
    "min_episodes": 0,
    "round_epochs": 1,
    "pretrain_env_steps": 24,
    "pretrain_updates": 3,
}
EAGER_TO_LEARN = SMALL | {"learning_starts": 9, "updates_per_env_step": 1 / 3}
DISCRETE = ActionSpec("discrete", (7,))
CONTINUOUS = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 3.0))
SPACES = {
    DISCRETE: spaces.Discrete(7),
    ActionSpec("multi_discrete", (2, 5, 3)): spaces.MultiDiscrete([2, 5, 3]),
    ActionSpec("multi_binary", (3,)): spaces.MultiBinary(3),
    CONTINUOUS: spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 3.0], np.float32)),
}
# no gradient reaches these: the std belongs to continuous actions
WITHOUT_GRADIENT = {"log_std", "policy.log_std"}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def settings(name, **more):
    """Return those of the small settings that the algorithm has."""
    fields = {field.name for field in dataclasses.fields(algorithms.get(name).Config)}
    return {key: value for key, value in (EAGER_TO_LEARN | more).items() if key in fields}


def native_action(name):
    """Return the action space that an algorithm is tested with: discrete where it can be."""
    kinds = algorithms.get(name).needs.action_kinds
    return DISCRETE if "discrete" in kinds else CONTINUOUS


def draw_actions(action, count, seed=0):
    """Return random actions in the environment's units."""
    space = SPACES[action]
    space.seed(seed)
    drawn = torch.from_numpy(np.stack([space.sample() for _ in range(count)]))
    return drawn if action.kind == "continuous" else drawn.long()


@pytest.fixture
def build(name, make_algorithm, make_demos):
    def build(**options):
        options = settings(name) | {"action": native_action(name)} | options
        wanted = options.pop("optional_demos", False) or name in WITH_DEMONSTRATIONS
        wanted &= not algorithms.get(name).needs.dynamics  # those get walks through their process
        if "demos" not in options and wanted:
            shape, action = options.get("shape", (5,)), options["action"]
            options["demos"] = make_demos(shape=shape, actions=draw_actions(action, 17))
        return make_algorithm(name, **options)

    return build


def engines_of(algorithm):
    """Return every update engine that an algorithm holds, wherever it does."""
    found, seen, waiting = [], set(), [algorithm]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, UpdateEngine):
            found.append(part)
        elif type(part).__module__.startswith("rlfd.algorithms"):
            names = [*getattr(part, "__dict__", {}), *getattr(type(part), "__slots__", ())]
            waiting += [getattr(part, name) for name in names]
    assert found or algorithm.needs.dynamics  # an exact planner may do without gradients
    return found


def run(algorithm, world, iterations):
    """Return the metrics of every iteration; offline algorithms get no world."""
    if not algorithm.needs.interaction:
        world = None
    return [algorithm.iteration(world) for _ in range(iterations)]


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def observations(count=99, shape=(5,)):
    return np.random.default_rng(3).normal(size=(count, *shape)).astype(np.float32)


# -- what it says about itself ------------------------------------------------------------------


def test_it_describes_itself_and_has_a_page(name):
    cls = algorithms.get(name)
    for text in (cls.title, cls.summary, *cls.metric_definitions.values()):
        assert text.strip() == text
        assert text
        assert "\n" not in text
    assert cls.policies
    assert set(cls.policies) <= {"sampled", "greedy"}
    assert (ROOT / "docs" / "algorithms" / f"{name}.md").is_file()


def test_every_setting_is_documented(name):
    for field in dataclasses.fields(algorithms.get(name).Config):
        assert field.default is not dataclasses.MISSING, field.name
        assert field.metadata["doc"], field.name
        assert "\n" not in field.metadata["doc"], field.name


def other_value(field, hint):
    """Return a value of the field's type that is not its default."""
    if typing.get_origin(hint) is typing.Literal:
        return next(value for value in typing.get_args(hint) if value != field.default)
    if isinstance(field.default, tuple):
        return (3, 5)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, int):
        return field.default + 1
    bounds = {key: field.metadata[key] for key in ("low", "high")}
    return field.default / 2 if field.default else bounds["high"] or 0.5


def as_text(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def unread_by(name, settings):
    return resolve(name, CART_POLE, settings=settings).config.algorithm.unread()


def test_every_setting_survives_json_and_the_command_line(name):
    cls = algorithms.get(name)
    hints, fields = typing.get_type_hints(cls.Config), dataclasses.fields(cls.Config)
    changed = 0
    for field in fields:
        value = other_value(field, hints[field.name])
        assert value != field.default
        try:
            config = RunConfig(
                algo=name, env=CART_POLE, algorithm=cls.Config(**{field.name: value})
            )
        except RlfdError:
            continue  # goes together with other settings only
        changed += 1
        again = RunConfig.from_json(config.to_json())
        assert again == config
        assert getattr(again.algorithm, field.name) == value
        readers: list[str] = []  # more than one where what reads it has to be read itself
        while (reader := unread_by(name, readers).get(field.name)) is not None:
            readers.append(reader)
        given = [f"{field.name}={as_text(value)}", *readers]
        resolved = resolve(name, CART_POLE, settings=given)
        assert getattr(resolved.config.algorithm, field.name) == value
        assert resolved.provenance[f"algorithm.{field.name}"] == "--set"
    assert changed >= len(fields) - 2


# -- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, id=f"{name}-{'x'.join(map(str, shape))}")
        for name in NAMES
        for shape in [(5,), (3, 13)] + [(2, 37, 45)] * (name in WITH_IMAGES)
    ],
    indirect=["name"],
)
def test_it_learns_with_odd_sizes_and_reports_what_it_declares(build, noise_world, shape):
    """3 environments, batches of 9, 7 actions: all different."""
    algorithm, world = build(shape=shape), noise_world(shape=shape)
    reported = 0
    for metrics in run(algorithm, world, 20):
        if metrics:
            reported += 1
            assert set(metrics) == set(algorithm.metric_definitions)
            for key, value in metrics.items():
                assert value.ndim == 0, key
                assert torch.isfinite(value), key
    assert reported >= 8  # delayed policies are updated every second iteration
    engines = engines_of(algorithm)
    assert algorithm.updates > 0
    assert algorithm.updates <= sum(engine.count for engine in engines) or not engines
    if algorithm.needs.interaction:
        batches = getattr(algorithm.Config(**settings(algorithm.name)), "batch_steps", 3)
        pretraining = int(algorithm.pretrain_updates > 0)  # one pass makes all of it
        assert world.env_steps == (20 - pretraining) * batches


def test_the_seed_decides_everything(name, build, noise_world):
    def result(seed):
        algorithm = build(seed=seed)
        metrics = run(algorithm, noise_world(), 20)
        return algorithm.policy_state(), metrics

    (first, metrics), (again, metrics_again), (other, _) = result(3), result(3), result(4)
    assert_same_tensors(first, again)
    for one, two in zip(metrics, metrics_again, strict=True):
        assert_same_tensors(one, two)
    if name != "maxent-irl":  # exact from beginning to end: there is nothing to draw
        assert not all(torch.equal(first[key], other[key]) for key in first)


def test_learning_does_not_touch_the_global_generators(build, noise_world):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    run(build(), noise_world(), 20)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002


def expected_target(engine, before):
    """Return what the target parameters must be after a step, by the engine's rule."""
    rule, now = engine._rule, engine.parameters
    if rule is None:
        return now
    if rule.copy_every > 0:
        return now if engine.count % rule.copy_every == 0 else before
    if engine.count % rule.polyak_every:
        return before
    return {key: torch.lerp(before[key], now[key], rule.polyak_tau) for key in now}


def test_updates_change_every_parameter_and_targets_by_their_rule_alone(
    build, noise_world, monkeypatch
):
    algorithm = build()
    engines = engines_of(algorithm)
    start = [{key: value.clone() for key, value in e.parameters.items()} for e in engines]
    policy = algorithm.policy_state()

    def checked(engine):
        step = engine.step

        def checked_step(batch):
            before = {key: value.clone() for key, value in engine.target_parameters.items()}
            outputs = step(batch)
            torch.testing.assert_close(
                engine.target_parameters, expected_target(engine, before), rtol=1e-5, atol=1e-7
            )
            return outputs

        return checked_step

    for engine in engines:
        monkeypatch.setattr(engine, "step", checked(engine))
    run(algorithm, noise_world(), 20)
    for engine, first in zip(engines, start, strict=True):
        assert engine.count > 0
        assert unchanged(engine.parameters, first) <= WITHOUT_GRADIENT
    # of the demonstrations, where a method keeps some
    statistics = {"mean", "std", "clip", "demonstrated"}
    assert unchanged(algorithm.policy_state(), policy) <= WITHOUT_GRADIENT | statistics


def unchanged(now, before):
    return {key for key, value in now.items() if torch.equal(value, before[key])}


def test_what_needs_no_reward_does_not_read_it(name, build, make_demos, noise_world):
    needs = algorithms.get(name).needs
    after = []
    # without it, far from the demonstrations mcpo does nothing but approach them
    options = {"d0": 9.0} if name == "mcpo" else {}
    for reward in (1.0, np.nan) if not needs.reward else (1.0, -1.0):
        if needs.reward and not needs.interaction:
            demos = make_demos((3, 9, 5), actions=draw_actions(native_action(name), 17))
            options["demos"] = dataclasses.replace(demos, rewards=reward * demos.rewards)
        algorithm = build(**options)
        run(algorithm, noise_world(reward=reward), 20)
        after.append(algorithm.policy_state())
    same = all(torch.equal(value, after[1][key]) for key, value in after[0].items())
    assert same == (not needs.reward)


@pytest.mark.parametrize(
    "name",
    # imitation of discrete actions, whatever they brought; on-policy methods learn from episodes,
    # adversarial ones where the learner itself went
    [
        n
        for n in WITH_DEMONSTRATIONS
        if native_action(n) == DISCRETE
        and not algorithms.get(n).needs.reward
        and not algorithms.get(n).needs.dynamics  # which matches what is visited, not pairs
        and not hasattr(algorithms.get(n).Config, "batch_steps")
        and not hasattr(algorithms.get(n).Config, "d_steps")
    ],
    indirect=True,
)
def test_it_overfits_a_few_demonstrated_pairs(name, make_algorithm, make_demos, noise_world):
    one = make_demos((5,))
    actions = torch.tensor([3, 0, 6, 1, 3])
    repeated = {  # three trajectories, so that none is held out alone
        field: torch.cat([getattr(one, field)] * 3)
        for field in ("observations", "next_observations", "rewards", "terminated")
    }
    data = DemoTensors(
        actions=actions.repeat(3), episode_ids=torch.arange(3).repeat_interleave(5), **repeated
    )
    options = settings(
        name, gamma=0.5, learning_rate=0.01, actor_learning_rate=0.01, updates_per_env_step=1.0
    )
    algorithm = make_algorithm(name, demos=data, **options)
    run(algorithm, noise_world(), 120)
    seen = one.observations.numpy()
    assert algorithm.act(seen, greedy=True).tolist() == actions.tolist()
    draws = algorithm.act(
        seen.repeat(99, axis=0), greedy=False, generator=torch.Generator().manual_seed(0)
    )
    assert (draws == actions.repeat_interleave(99).numpy()).mean() > 0.7


# -- acting -------------------------------------------------------------------------------------


def test_actions_do_not_depend_on_the_batch(build):
    algorithm, seen = build(), observations()
    greedy = algorithm.act(seen, greedy=True)
    for row in (0, 41, 98):
        np.testing.assert_allclose(
            algorithm.act(seen[[row]], greedy=True)[0], greedy[row], rtol=1e-5, atol=1e-6
        )


SUPPORTED = [
    pytest.param(name, action, id=f"{name}-{action.kind}")
    for name in NAMES
    for action in SPACES
    if action.kind in algorithms.get(name).needs.action_kinds
]


@pytest.mark.parametrize(("name", "action"), SUPPORTED, indirect=["name"])
def test_actions_of_every_kind_fit_their_space(name, build, noise_world, action):
    options = settings(name, learn_std=True)
    algorithm, space = build(action=action, **options), SPACES[action]
    policy = algorithm.policy_state()
    run(algorithm, noise_world(), 20)
    for greedy in (True, False):
        actions = algorithm.act(observations(), greedy=greedy)
        assert actions.shape == (99,) if action.kind == "discrete" else (99, action.width)
        assert all(space.contains(row.astype(space.dtype)) for row in actions)
        assert np.isin(actions.dtype.kind, ["i", "f"])
    if action.kind == "continuous":  # the std of continuous actions learns, too
        assert unchanged(algorithm.policy_state(), policy) <= {"mean", "std", "clip"}


def test_acting_changes_no_state_and_draws_from_the_given_generator(build, noise_world, device):
    algorithm = build()
    run(algorithm, noise_world(), 5)
    before = flatten(copy.deepcopy(algorithm.state_dict()))
    global_state = torch.get_rng_state()
    draws = [
        algorithm.act(
            observations(), greedy=greedy, generator=torch.Generator(device).manual_seed(seed)
        ).tolist()
        for greedy in (True, False)
        for seed in (1, 1, 2)
    ]
    assert_same_state(flatten(algorithm.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert draws[0] == draws[1] == draws[2]
    assert draws[3] == draws[4]
    if "sampled" in algorithm.policies:
        assert draws[3] != draws[5]
        assert draws[3] != draws[0]


def test_a_policy_can_be_taken_over(build, noise_world):
    algorithm, other, world = build(), build(seed=1), noise_world()
    run(algorithm, world, 9)
    updates, state = algorithm.updates, algorithm.policy_state()
    before = {key: value.clone() for key, value in state.items()}
    other.load_policy_state(state)
    np.testing.assert_array_equal(
        algorithm.act(observations(), greedy=True), other.act(observations(), greedy=True)
    )
    run(algorithm, world, 9)
    assert algorithm.updates > updates
    assert_same_tensors(state, before)  # what was handed out does not learn on


# -- state --------------------------------------------------------------------------------------


def flatten(state, prefix=""):
    """Return a nested state as one dict, names and list positions joined by dots."""
    if isinstance(state, list):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        return {prefix: state}
    return {
        key: value
        for part in state
        for key, value in flatten(state[part], f"{prefix}.{part}").items()
    }


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    # no pickled code, and as checkpoints are read: to the CPU
    return torch.load(file, weights_only=True, map_location="cpu")


def assert_it_goes_on_the_same(algorithm, world, restored, restored_world):
    for first, second in zip(
        run(algorithm, world, 15), run(restored, restored_world, 15), strict=True
    ):
        assert_same_tensors(first, second)
    assert_same_state(flatten(algorithm.state_dict()), flatten(restored.state_dict()))
    assert algorithm.finished == restored.finished


def variants(name):
    """Return settings whose state differs in kind."""
    return {
        "airl": [{}, {"absorbing": "off", "d_rollouts": 3, "reward_on": "state-action"}],
        "awr": [{}, {"baseline": "none", "memory": "replace", "optimiser": "momentum"}],
        "dagger": [{"mixing": "episodes"}, {"fit": "scratch", "max_epochs": 2}],
        "dqn": [{}, {"prioritised": True, "n_step": 3}, {"target_update": "copy"}],
        "gail-dqn": [{}, {"d_every_updates": 3}],
        "gmmil": [{}, {"inner_steps": 2, "absorbing": "indicator"}],
        "marwil": [{}, {"mode": "awr"}, {"crossfit": True}],
        "mcpo": [{}, {"d0": 9.0}, {"recovery": "gmmil", "absorbing": "indicator"}],
        "nac": [{}, {"keep_demos": True}],
        "psq": [{}, {"gate_rate": 0.1, "gate_scale": "lengths", "evaluator": "online"}],
        "sil": [{}, {"learner": "ppo"}, {"optional_demos": True, "keep_demos": True}],
        "soft-q": [{}, {"n_step": 3}],
        "sqil": [{}, {"mode": "full"}],
    }.get(name, [{}])


@pytest.mark.parametrize("at", [1, 12])  # before and after the first update
def test_state_round_trip_gives_identical_iterations(name, build, noise_world, at):
    for options in variants(name):
        check_state_round_trip(name, build, noise_world, at, options)


def test_what_began_with_another_policy_goes_on_the_same(name, build, noise_world):
    """Its state is enough: where it began need not be there any more."""
    for options in variants(name):
        policy = build(**options, seed=1).policy_state()
        if "mean" in policy:  # statistics of other observations
            policy |= {"mean": policy["mean"] + 0.3, "std": 1.7 * policy["std"]}
        if "clip" in policy:
            policy |= {"clip": torch.tensor(0.7)}
        algorithm, world = build(**options), noise_world()
        algorithm.start_from(policy)
        run(algorithm, world, 3)
        state, copied_world = through_a_file(algorithm.state_dict()), copy.deepcopy(world)
        restored = build(**options)
        restored.load_state_dict(state)
        assert_it_goes_on_the_same(algorithm, world, restored, copied_world)
        assert_same_tensors(algorithm.policy_state(), restored.policy_state())


@pytest.mark.parametrize("name", WITH_IMAGES, indirect=True)
def test_state_round_trip_with_images(name, build, noise_world, image_shape):
    """At a moment when the memory has begun to overwrite."""
    for options in variants(name):
        check_state_round_trip(name, build, noise_world, 20, options, shape=image_shape)


def check_state_round_trip(name, build, noise_world, at, options, shape=(5,)):
    options = options | settings(name, buffer_size=45, target_every_updates=3)
    options["shape"] = shape
    algorithm, world = build(**options), noise_world(shape=shape)
    run(algorithm, world, at)
    state, copied_world = through_a_file(algorithm.state_dict()), copy.deepcopy(world)
    restored = build(**options)
    # a past of its own, which the state replaces
    run(restored, noise_world(shape=shape, seed=9), 17)
    restored.load_state_dict(state)
    assert_it_goes_on_the_same(algorithm, world, restored, copied_world)


@pytest.mark.parametrize("name", WITH_IMAGES, indirect=True)
def test_acting_on_images(name, build, noise_world, image_shape):
    """Row by row as in a batch, within the action space, and without changing anything."""
    algorithm, world = build(shape=image_shape), noise_world(shape=image_shape)
    run(algorithm, world, 9)
    before = flatten(copy.deepcopy(algorithm.state_dict()))
    seen = np.concatenate([world.first() for _ in range(9)])
    assert seen.dtype == np.uint8
    for greedy in (True, False):
        actions = algorithm.act(seen, greedy=greedy)
        assert all(SPACES[DISCRETE].contains(action) for action in actions)
    for row in (0, 13, 26):
        chosen = algorithm.act(seen[[row]], greedy=True)[0]
        assert chosen == algorithm.act(seen, greedy=True)[row]
    assert_same_state(flatten(algorithm.state_dict()), before)


@pytest.mark.parametrize("name", NAMES, indirect=True)
def test_images_are_for_those_that_say_so(name):
    kinds = algorithms.get(name).needs.action_kinds
    if "discrete" not in kinds:
        return
    if name in WITH_IMAGES:
        assert check_support(name, DOTS) == ((2, 36, 41), ActionSpec("discrete", (3,)))
        return
    with pytest.raises(RlfdError, match=f"'{name}' learns from vectors, .* are images") as caught:
        check_support(name, DOTS)
    able = caught.value.hint.removeprefix("algorithms for it: ").split(", ")
    assert able == WITH_IMAGES


def native_env(name):
    if algorithms.get(name).needs.dynamics:
        return GRID
    return CART_POLE if native_action(name) == DISCRETE else PENDULUM


@pytest.fixture(scope="module")
def few_demos(tmp_path_factory):
    """Return demonstrations by environment."""
    folder = tmp_path_factory.mktemp("data")
    return {
        env.name: demos.collect(
            env,
            demos.make_demonstrator(policy, env, seed=0),
            episodes=3,
            seed=0,
            name="few",
            data_dir=folder,
        )
        for env, policy in (
            (CART_POLE, "controller"),
            (PENDULUM, "random"),
            (GRID, "controller"),
            (DOTS, "random"),
        )
    }


@pytest.mark.parametrize(
    ("name", "env"),
    [pytest.param(name, native_env(name), id=name) for name in NAMES]
    + [pytest.param(name, DOTS, id=f"{name}-images") for name in WITH_IMAGES],
    indirect=["name"],
)
def test_state_round_trip_in_a_real_environment(name, env, few_demos, make_oracle):
    cls = algorithms.get(name)
    size = 15 if env == DOTS else 255
    config = RunConfig(
        algo=name,
        env=env,
        algorithm=cls.Config(**settings(name, batch_size=size, batch_steps=min(size, 51))),
        num_envs=3,
        steps=999,
    )
    given = few_demos[env.name] if cls.needs.demonstrations else None

    def begin():
        world = World(env, num_envs=3, seed=5) if cls.needs.interaction else None
        asked = make_oracle(check_support(name, env)[1]) if cls.needs.demonstrator else None
        return build_algorithm(config, given, asked), world

    (algorithm, world), (restored, restored_world) = begin(), begin()
    run(algorithm, world, 15 if env == DOTS else 40)
    run(restored, restored_world, 7)
    restored.load_state_dict(through_a_file(algorithm.state_dict()))
    if world is not None:
        restored_world.load_state_dict(world.state_dict())
    assert_it_goes_on_the_same(algorithm, world, restored, restored_world)
    # and what `rlfd evaluate` builds plays the same policy
    actor = build_for_acting(config)
    actor.load_policy_state(through_a_file(algorithm.policy_state()))
    seen = observations(shape=few_demos[env.name].observation_space.shape)
    if env == DOTS:
        seen = np.concatenate([e.observations for e in few_demos[env.name].episodes])
    for greedy in (True, False):
        chosen = [
            one.act(seen, greedy=greedy, generator=torch.Generator().manual_seed(1))
            for one in (actor, algorithm)
        ]
        np.testing.assert_array_equal(*chosen)


# -- what it is given ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_DEMONSTRATIONS + OPTIONALLY, indirect=True)
def test_only_declared_fields_of_demonstrations_arrive(name, build, noise_world):
    """And they suffice: undeclared ones hold nonsense in the file."""
    needs, action = algorithms.get(name).needs, native_action(name)
    rng = np.random.default_rng(0)
    episodes = tuple(
        Episode(
            observations=rng.normal(size=(length + 1, 5)).astype(np.float32),
            actions=draw_actions(action, length, seed=length).numpy(),
            rewards=np.full(length, 1.0 if "rewards" in needs.demo_fields else np.nan),
            terminated=length != 9,
            truncated=length == 9,
        )
        for length in (3, 9, 5)
    )
    data = Demonstrations(
        info=DemoInfo("d", "d", Path(), CART_POLE, None),
        episodes=episodes,
        observation_space=spaces.Box(-np.inf, np.inf, (5,), np.float32),
        action_space=SPACES[action],
    )
    tensors = demo_tensors(data, needs)
    optional = {"next_observations", "rewards", "terminated", "truncated"}
    assert {field for field in optional if getattr(tensors, field) is not None} == needs.demo_fields
    assert torch.equal(
        tensors.episode_ids, torch.arange(3).repeat_interleave(torch.tensor([3, 9, 5]))
    )
    if tensors.terminated is not None:
        assert tensors.terminated.nonzero()[:, 0].tolist() == [2, 16]
    if tensors.next_observations is not None:
        inside = torch.ones(17, dtype=torch.bool)
        inside[[2, 11, 16]] = False
        following = tensors.observations.roll(-1, dims=0)
        assert torch.equal(tensors.next_observations[inside], following[inside])
        assert torch.equal(
            tensors.next_observations[11], torch.from_numpy(episodes[1].observations[-1])
        )
    for metrics in run(build(demos=tensors), noise_world(), 9):
        assert all(torch.isfinite(value) for value in metrics.values())


def test_actions_of_the_wrong_kind_are_refused(name):
    for env, shape, action in (
        (CART_POLE, (4,), ActionSpec("discrete", (2,))),
        (PENDULUM, (3,), ActionSpec("continuous", (1,), (-2.0,), (2.0,))),
    ):
        needs = algorithms.get(name).needs
        if needs.dynamics and action.kind in needs.action_kinds:
            with pytest.raises(RlfdError, match=f"'{name}' plans with known dynamics") as caught:
                check_support(name, env)
            assert "GridWorld, SlipperyGridWorld, Chain" in caught.value.hint
            continue
        if action.kind in needs.action_kinds:
            assert check_support(name, env) == (shape, action)
            continue
        with pytest.raises(RlfdError, match=f"'{name}' needs .* actions, environment") as caught:
            check_support(name, env)
        able = caught.value.hint.removeprefix("algorithms for it: ").split(", ")
        every = [n for n in NAMES if action.kind in algorithms.get(n).needs.action_kinds]
        # planners are named where the dynamics are known, and here they are not
        assert able == [n for n in every if not algorithms.get(n).needs.dynamics]
        assert {"bc", "ppo"} <= set(able)


# -- compiling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compiled",
    # each compilation takes ten seconds and more; sqil's loss stands for the others day to day.
    # dagger's updates are bc's, with statistics of which the parallel network does not hear
    [
        pytest.param(n, marks=() if n == "sqil" else pytest.mark.slow)
        for n in NAMES
        if n != "dagger"
    ],
)
def test_compiled_or_recorded_updates_equal_eager_ones(
    compiled, make_algorithm, make_demos, noise_world, monkeypatch
):
    options = settings(compiled) | {"action": native_action(compiled)}
    if compiled in WITH_DEMONSTRATIONS:
        options["demos"] = make_demos(actions=draw_actions(options["action"], 17))
    eager, other = (make_algorithm(compiled, compile=switch, **options) for switch in ("off", "on"))
    pairs = list(zip(engines_of(eager), engines_of(other), strict=True))
    for engine, fast in pairs:
        for call in ("step", "drain", "load_state_dict", "load_parameters"):
            monkeypatch.setattr(
                engine, call, in_parallel(getattr(engine, call), getattr(fast, call))
            )
    run(eager, noise_world(), 10)
    monkeypatch.undo()
    for engine, fast in pairs:
        assert engine.count == fast.count > 2
        for found, expected in (
            (fast.parameters, engine.parameters),
            (fast.target_parameters, engine.target_parameters),
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert fast._compile or fast._record  # it did not fall back


def in_parallel(plain, fast):
    """Return a call of one engine that another one gets, too, with the same result."""

    def both(*arguments):
        result = plain(*arguments)
        torch.testing.assert_close(fast(*arguments), result, rtol=1e-3, atol=1e-4)
        return result

    return both
