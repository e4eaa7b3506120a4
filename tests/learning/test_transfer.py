"""A reward of states that was learned before a way was closed still leads to the goal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlfd.algorithms.base import DemoTensors

pytestmark = pytest.mark.slow

STATES, GOAL, START, GAMMA = 7, 0, 2, 0.9
EYE = np.eye(STATES, dtype=np.float32)
PAID = 1.0  # per step at the goal

# A circle: action 0 goes on, 1 goes back, 2 stays. Later nobody gets from 2 back to 1 any more.
OPEN = np.stack([np.roll(range(STATES), -1), np.roll(range(STATES), 1), range(STATES)], axis=1)
CLOSED = OPEN.copy()
CLOSED[START, 1] = START


def soft_demonstrations(episodes=60, length=14, seed=0):
    """Return what a soft-optimal demonstrator does in the open circle, from any state."""
    values = np.zeros(STATES)
    rewards = PAID * (np.arange(STATES) == GOAL)
    for _ in range(500):
        q = rewards[:, None] + GAMMA * values[OPEN]
        values = np.log(np.exp(q).sum(1))
    policy = np.exp(q - values[:, None])
    rng, states, actions, following = np.random.default_rng(seed), [], [], []
    for episode in range(episodes):
        state = episode % STATES
        for _ in range(length):
            action = rng.choice(3, p=policy[state] / policy[state].sum())
            states.append(state), actions.append(action), following.append(OPEN[state, action])
            state = OPEN[state, action]
    ids = torch.arange(episodes).repeat_interleave(length)
    return DemoTensors(
        observations=torch.from_numpy(EYE[states]),
        actions=torch.tensor(np.array(actions)),
        episode_ids=ids,
        next_observations=torch.from_numpy(EYE[following]),
        terminated=torch.zeros(len(ids), dtype=torch.bool),
    )


def table_of(algorithm):
    """Return the learned reward of every state and action, (S, A)."""
    states, actions = np.repeat(np.arange(STATES), 3), np.tile(np.arange(3), STATES)
    following = OPEN[states, actions]
    ends = np.zeros(len(states), bool)
    return algorithm.reward(EYE[states], actions, EYE[following], ends).reshape(STATES, 3)


def share_of_time_at_the_goal(algorithm):
    """Act greedily from the start for 20 steps in the closed circle."""
    state, visits = START, 0
    for _ in range(20):
        state = CLOSED[state, algorithm.act(EYE[[state]], greedy=True)[0]]
        visits += state == GOAL
    return visits / 20


@pytest.fixture
def retrained(make_algorithm, tabular_world):
    """Return a function that trains PPO on a reward in the closed circle."""

    def retrained(rewards, seed):
        world = tabular_world(CLOSED, rewards, horizon=20)
        ppo = make_algorithm(
            "ppo",
            shape=(STATES,),
            action=3,
            num_envs=5,
            seed=seed,
            batch_steps=400,
            minibatch_size=100,
            learning_rate=0.01,
            epochs=5,
            gamma=0.97,
            normalise_rewards=True,
            entropy_weight=0.01,
            env_steps=16_000,
        )
        while world.env_steps < 16_000:
            ppo.iteration(world)
        return ppo

    return retrained


@pytest.fixture
def learned(make_algorithm, tabular_world):
    """Return a function that learns a reward in the open circle."""

    def learned(reward_on, seed):
        world = tabular_world(OPEN, np.full((STATES, 3), np.nan), horizon=14)
        airl = make_algorithm(
            "airl",
            shape=(STATES,),
            action=3,
            num_envs=5,
            seed=seed,
            demos=soft_demonstrations(),
            reward_on=reward_on,
            absorbing="off",
            gamma=GAMMA,
            batch_steps=400,
            minibatch_size=100,
            learning_rate=0.01,
            epochs=5,
            d_steps=20,
            d_batch_size=128,
            d_learning_rate=3e-3,
            **({"d_gradient_penalty": 0.0} if reward_on == "state-action" else {}),
            normalise_rewards=False,
            env_steps=24_000,
        )
        while world.env_steps < 24_000:
            airl.iteration(world)
        return airl

    return learned


def test_a_reward_of_states_is_the_true_one_and_transfers(learned, retrained):
    seed, elsewhere = 100, np.arange(STATES) != GOAL
    true = np.repeat(PAID * ~elsewhere[:, None], 3, axis=1)
    best = share_of_time_at_the_goal(retrained(true, seed))
    assert best >= 0.7  # five steps of twenty lead there
    on_states = table_of(learned("state", seed))
    difference = on_states[GOAL, 0] - on_states[elsewhere, 0].mean()
    assert abs(difference - PAID) < 0.3
    assert share_of_time_at_the_goal(retrained(on_states, seed)) >= 0.8 * best
    # one of actions holds advantages too, which belong to the open circle
    on_actions = table_of(learned("state-action", seed))
    assert on_actions[elsewhere].std() > 2.0 * on_states[elsewhere].std()
