"""Parameters within bounds: whatever pushed a log-std to the end of its range, it comes back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlfd.algorithms.base import ActionSpec
from rlfd.algorithms.core.bounds import bounds_of, project
from rlfd.algorithms.core.engine import UpdateEngine
from rlfd.algorithms.core.networks import PolicyNetwork
from rlfd.algorithms.core.optimisers import Adam, Momentum, RMSProp
from rlfd.algorithms.core.rollout import Rollout

ACTION = ActionSpec("continuous", (3,), (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
LOW, HIGH = -5.0, 2.0
ROWS = (7, 5)  # steps and environments


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def policy_network(log_std_start=0.0):
    return PolicyNetwork(
        (5,),
        3,
        hidden=(11,),
        log_std_start=log_std_start,
        generator=seeded(),
        device=torch.device("cpu"),
    )


# -- the part -------------------------------------------------------------------------------------


def test_bounds_are_found_wherever_the_module_is():
    assert bounds_of(policy_network()) == {"log_std": (LOW, HIGH)}
    both = nn.ModuleDict({"value": nn.Linear(2, 1), "policy": policy_network()})
    assert bounds_of(both) == {"policy.log_std": (LOW, HIGH)}
    assert bounds_of(nn.Linear(2, 1)) == {}


def test_projection_moves_what_is_outside_to_the_bound_and_nothing_else():
    parameters = {"log_std": torch.tensor([-7.0, 0.3, 2.1]), "other": torch.tensor([99.0])}
    project(parameters, {"log_std": (LOW, HIGH)})
    assert torch.equal(parameters["log_std"], torch.tensor([LOW, 0.3, HIGH]))
    assert torch.equal(parameters["other"], torch.tensor([99.0]))


def test_a_loaded_policy_is_within_bounds():
    """Policies from before the log-std was projected may not be."""
    network, state = policy_network(), policy_network().state_dict()
    beyond = torch.tensor([-9.0, -5.0, 2.5])
    network.load_state_dict(state | {"log_std": beyond})
    assert torch.equal(network.log_std.detach(), torch.tensor([LOW, LOW, HIGH]))
    assert beyond[0] == -9.0  # what was loaded is not changed


# -- in the engine --------------------------------------------------------------------------------


def pulled(network):
    def loss(parameters, target, batch):
        value = (parameters["log_std"] - batch["to"]).square().sum()
        return value, {"loss": value}

    return loss


@pytest.mark.parametrize("compile", ["off", "on"])
def test_steps_end_within_bounds_also_when_compiled(compile):
    network = policy_network()
    engine = UpdateEngine(network, pulled(network), Adam(0.7, beta2=0.9), compile=compile)
    ends = []
    for to in (-50.0, 50.0, 0.0):
        for _ in range(60):
            engine.step({"to": torch.full((3,), to)})
            assert network.log_std.min() >= LOW
            assert network.log_std.max() <= HIGH
        ends.append(network.log_std[0].item())
    assert ends[:2] == [LOW, HIGH]
    assert abs(ends[2]) < 1.0


@pytest.mark.parametrize("optimiser", [Adam(0.1), RMSProp(0.1), Momentum(0.01)])
def test_restored_parameters_are_within_bounds(optimiser):
    network = policy_network()
    engine = UpdateEngine(network, pulled(network), optimiser, compile="off")
    state = engine.state_dict()
    state["parameters"]["log_std"] = torch.tensor([-9.0, 0.0, 9.0])
    engine.load_state_dict(state)
    assert torch.equal(network.log_std, torch.tensor([LOW, 0.0, HIGH]))
    engine.load_parameters(state["parameters"])
    assert torch.equal(network.log_std, torch.tensor([LOW, 0.0, HIGH]))


# -- in training ----------------------------------------------------------------------------------


def actions_that_want(end, shape):
    """Return actions of the likelihood's log-std: at an end of its range, beyond it, or 0."""
    noise = torch.randn(*shape, 3, generator=seeded(1))
    return {"low": torch.zeros_like(noise), "high": 12.0 * noise, "middle": noise}[end]


def cloner(name, start, make_algorithm, make_demos):
    """What is learned from a data set: all weights are 1, the policy is almost linear."""
    demos = make_demos((9, 15, 11), actions=torch.zeros(35, 3))
    demos.rewards.zero_()
    settings = {"marwil": {"learning_rate": 0.05}, "awr-offline": {"actor_learning_rate": 0.05}}
    settings["awr-offline"] |= {"learn_std": True, "bound_weight": 0.0, "actor_steps": 20}
    usual = {"learning_rate": 0.05, "entropy_weight": 0.0}
    algorithm = make_algorithm(
        name,
        action=ACTION,
        demos=demos,
        hidden=(3,),
        log_std_start=start,
        **settings.get(name, usual),
    )
    if name == "awr-offline":
        learner, data = algorithm.learner.policy, algorithm.learner.policy.buffer.data
    else:
        learner = getattr(algorithm, "learner", algorithm)
        data = learner.passes.train
        learner.passes.close = lambda *_: None  # goes on for as long as it is asked to

    def teach(actions):
        data["actions"].copy_(actions((len(data["actions"]),)))
        algorithm.iteration(None)

    return teach, lambda: learner.engine.parameters["log_std"]


def on_policy(name, start, make_algorithm, make_demos):
    """What is learned from rollouts: every action was worth 1 more than expected."""
    usual = {
        "gamma": 0.0,
        "gae_lambda": 0.0,
        "hidden": (3,),
        "batch_steps": 35,
        "log_std_start": start,
    }
    own = {
        "ppo": {"learning_rate": 0.05, "minibatch_size": 35, "epochs": 1},
        "a2c": {"learning_rate": 0.05, "entropy_weight": 0.0},
        "trpo": {"delta": 0.5, "value_epochs": 1, "damping": 1e-3},
    }[name]
    settings = usual | {"standardise_advantages": False} | own
    algorithm = make_algorithm(name, action=ACTION, num_envs=ROWS[1], **settings)
    learner = algorithm.learner

    def teach(actions):
        shape = (*ROWS, 5)
        observations, nothing = torch.zeros(shape), torch.zeros(ROWS, dtype=torch.bool)
        rewards = 1.0 + 0.01 * torch.randn(ROWS, generator=seeded(2))  # equal ones are 0
        rollout = Rollout(observations, actions(ROWS), observations, rewards, nothing, nothing)
        if name == "trpo":
            learner.improve_policy(rollout, rewards)
        else:
            with torch.no_grad():  # V stays at 0
                for part in learner.networks.value.parameters():
                    part.zero_()
            learner.improve(rollout, rewards)

    return teach, lambda: learner.actor.network.log_std


LEARNERS = {name: cloner for name in ("bc", "marwil", "rwr-offline", "awr-offline")}
LEARNERS |= {name: on_policy for name in ("trpo", "ppo", "a2c")}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_log_std_comes_back_from_its_bound(name, end, make_algorithm, make_demos):
    """Trained until it is at the bound, and on, then on what wants it in the middle."""
    # not far from the bound: Adam would remember gradients of large errors for long
    sign, bound, start = {"low": (-1.0, LOW, -1.0), "high": (1.0, HIGH, 1.9)}[end]
    teach, log_std = LEARNERS[name](name, start, make_algorithm, make_demos)

    def train_until(wanted, reached):
        for _ in range(300):
            teach(lambda shape: actions_that_want(wanted, shape))
            if bool(reached().all()):
                return
        raise AssertionError(f"{log_std()} after training on what wants {wanted}")

    train_until(end, lambda: sign * log_std() >= sign * bound)
    for _ in range(5):
        teach(lambda shape: actions_that_want(end, shape))
    train_until("middle", lambda: sign * log_std() < sign * bound - 1.0)
