"""The environments that have a short name, with their protocol and reference scores.

A short name stands for a Gymnasium environment together with its preprocessing, its start-state
distributions, its success test and its reference scores. These were measured with this tool, over
1,000 episodes for each number, with the dense reward:

    rlfd collect-demos --env ENV --start START --policy random|controller --episodes 1000 --seed 0

Those of Atari games, where they were measured, are over 30 episodes, those of Car Racing over 100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from rlfd.envs import atari
from rlfd.envs.rewards import Balanced, Goal, Progress, Reached, Upright
from rlfd.envs.specs import EnvConfig, Environment, EnvSpec, Option, Reference
from rlfd.envs.tabular import chain, grid_world

__all__ = ["SPECS"]


def _lunar_lander(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart

    return LunarLanderStart(env, config.start, config.options)


def _lunar_lander_6(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart, SixActions

    return SixActions(LunarLanderStart(env, config.start, config.options))


def _lunar_lander_multi(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart, SixActions, TwoChoices

    return TwoChoices(SixActions(LunarLanderStart(env, config.start, config.options)))


def _lunar_lander_single(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.lunar_lander import LunarLanderStart, OneEngine, SixActions

    return OneEngine(SixActions(LunarLanderStart(env, config.start, config.options)))


def _car_racing(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.car_racing import CarRacing

    return CarRacing(env, config)


def _car_racing_3(env: Environment, config: EnvConfig) -> Environment:
    from rlfd.envs.car_racing import CarRacing, ThreeActions

    return CarRacing(ThreeActions(env), config)


def _driver_state(env: Environment) -> npt.NDArray[np.float64]:
    state: npt.NDArray[np.float64] = env.get_wrapper_attr("driver_state")()
    return state


_CAR_OPTIONS = {
    "colour": Option(
        "gray", 0, 0, "the last 4 pictures in gray, or one in colours", choices=("gray", "rgb")
    ),
    "size": Option(64, 36, 84, "rows and columns of an observation", whole=True),
    "max_steps": Option(1_000, 1, 1_000, "steps after which it is cut", whole=True, in_demos=False),
    "random_side": Option(
        0, 0, 1, "1: turned to the left or to the right, at random", ("shifted", "mixed"),
        whole=True, in_demos=False,
    ),
}  # fmt: skip


def _car_racing_spec(
    name: str,
    description: str,
    returns: Mapping[str, tuple[float, float]],
    *,
    continuous: bool,
    noop: int | None = None,
    wrap: Callable[[Environment, EnvConfig], Environment] = _car_racing,
) -> EnvSpec:
    """Return Car Racing with one set of actions; `returns` of random and controller, by start."""
    return EnvSpec(
        name=name,
        gym_id="CarRacing-v3",
        kwargs={"continuous": continuous},
        starts=tuple(returns),
        demo_episodes=20,
        option_rules=_CAR_OPTIONS,
        frame_stack=4,
        noop=noop,
        controller=True,
        references={
            start: Reference(random, None, controller, None)
            for start, (random, controller) in returns.items()
        },
        description=description,
        wrap=wrap,
        state=_driver_state,
    )


_LANDER_STARTS = ("standard", "demo", "shifted", "tilt_out", "ground", "spin", "out_fast")
_LANDER_OPTIONS = {
    "push_scale": Option(
        0.0, 0.0, 1.0, "share of Gymnasium's random push at the start that is kept", ("demo",)
    )
}


def _unit(default: float) -> dict[str, Option]:
    text = "length of the track that is rewarded"
    return {"unit": Option(default, 0.01, 1000.0, text, rewards=("sparse", "beyond"))}


def _grid(slip: float) -> dict[str, Option]:
    return {
        "size": Option(8, 2, 64, "cells along each side", whole=True),
        "slip": Option(slip, 0.0, 1.0, "probability of a random direction"),
        "goals": Option(1, 1, 100, "cells that pay", whole=True),
        "pits": Option(4, 0, 1000, "cells that cost", whole=True),
        "layout": Option(0, 0, 2**31, "0: goals in the corners; else the places' seed", whole=True),
        "horizon": Option(30, 1, 1000, "steps of an episode", whole=True),
    }


_CHAIN = {
    "length": Option(7, 2, 1000, "states", whole=True),
    "slip": Option(0.2, 0.0, 1.0, "probability that the other action happens"),
    "horizon": Option(20, 1, 1000, "steps of an episode", whole=True),
}


SPECS: dict[str, EnvSpec] = {
    entry.name: entry
    for entry in (
        EnvSpec(
            name="LunarLander",
            gym_id="LunarLander-v3",
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            noop=0,
            controller=True,
            references={
                "standard": Reference(-187.0, 0.0, 243.3, 0.828),
                "demo": Reference(-161.5, 0.0, 236.7, 0.999),
                "shifted": Reference(-205.0, 0.0, 169.4, 0.904),
                "tilt_out": Reference(-240.3, 0.0, 241.7, 0.737),
                "ground": Reference(-133.3, 0.0, 74.1, 0.786),
                "spin": Reference(-473.8, 0.0, 170.2, 0.814),
                "out_fast": Reference(-182.4, 0.0, 212.3, 0.822),
            },
            description="land between the flags; 4 actions, 8 observations",
            wrap=_lunar_lander,
        ),
        EnvSpec(
            name="LunarLander6",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            noop=1,
            controller=True,
            references={
                "standard": Reference(-261.7, 0.0, 269.8, 0.941),
                "demo": Reference(-257.1, 0.0, 231.1, 0.953),
                "shifted": Reference(-222.5, 0.0, 134.4, 0.811),
                "tilt_out": Reference(-286.5, 0.0, 113.5, 0.446),
                "ground": Reference(-275.4, 0.0, 54.7, 0.773),
                "spin": Reference(-538.5, 0.0, 126.6, 0.755),
                "out_fast": Reference(-186.4, 0.0, 179.0, 0.768),
            },
            description="the same with the SQIL paper's 6 actions and 9 observations",
            wrap=_lunar_lander_6,
        ),
        EnvSpec(
            name="LunarLanderMulti",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            starts=("standard", "demo"),
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            noop=(0, 1),
            controller=True,
            references={
                "standard": Reference(-260.1, 0.0, 269.8, 0.941),
                "demo": Reference(-261.6, 0.0, 231.1, 0.953),
            },
            description="the same with two choices at once: main engine (2) and side engines (3)",
            wrap=_lunar_lander_multi,
        ),
        EnvSpec(
            name="LunarLanderSingle",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            has_success=True,
            noop=0,
            controller=True,
            references={
                "standard": Reference(-164.2, 0.0, 119.3, 0.382),
            },
            description="the same with one engine per step: 4 actions",
            wrap=_lunar_lander_single,
        ),
        EnvSpec(
            name="LunarLanderContinuous",
            gym_id="LunarLander-v3",
            kwargs={"continuous": True},
            starts=_LANDER_STARTS,
            demo_start="demo",
            option_rules=_LANDER_OPTIONS,
            has_success=True,
            controller=True,
            references={
                "standard": Reference(-211.0, 0.0, 284.1, 1.0),
                "demo": Reference(-177.7, 0.0, 240.4, 1.0),
                "shifted": Reference(-194.9, 0.0, 123.9, 0.709),
                "tilt_out": Reference(-272.2, 0.0, 139.0, 0.451),
                "ground": Reference(-168.9, 0.0, 46.5, 0.723),
                "spin": Reference(-516.4, 0.0, 151.8, 0.787),
                "out_fast": Reference(-169.2, 0.0, 173.3, 0.646),
            },
            description="the same with two engine throttles as actions",
            wrap=_lunar_lander,
        ),
        _car_racing_spec(
            "CarRacing",
            "drive along a track, seen from above; 5 actions, 64 x 64 pixels",
            {"standard": (-61.6, 902.0), "shifted": (-100.0, 872.3), "mixed": (-79.6, 886.1)},
            continuous=False,
            noop=0,
        ),
        _car_racing_spec(
            "CarRacing3",
            "the same with the SQIL paper's actions: left, straight on, right",
            {"standard": (-82.1, 682.2), "shifted": (-113.2, 672.8), "mixed": (-99.2, 677.8)},
            continuous=True,
            noop=1,
            wrap=_car_racing_3,
        ),
        _car_racing_spec(
            "CarRacingContinuous",
            "the same with steering, gas and brake as actions",
            {"standard": (-38.6, 898.2), "shifted": (-99.9, 889.4), "mixed": (-67.1, 894.2)},
            continuous=True,
        ),
        EnvSpec(
            name="CartPole",
            gym_id="CartPole-v1",
            sparse=Balanced,
            controller=True,
            references={
                "standard": Reference(22.9, None, 500.0, None),
            },
            description="balance a pole on a cart, up to 500 steps",
        ),
        EnvSpec(
            name="Acrobot",
            gym_id="Acrobot-v1",
            noop=1,
            references={
                "standard": Reference(-498.9, None, None, None),
            },
            description="swing a two-link arm above the bar, -1 per step, up to 500 steps",
        ),
        EnvSpec(
            name="MountainCar",
            gym_id="MountainCar-v0",
            sparse=Goal,
            noop=1,
            controller=True,
            references={
                "standard": Reference(-200.0, None, -119.2, None),
            },
            description="rock a weak car up a hill, -1 per step, up to 200 steps",
        ),
        EnvSpec(
            name="MountainCarContinuous",
            gym_id="MountainCarContinuous-v0",
            sparse=Goal,
            references={
                "standard": Reference(-33.2, None, None, None),
            },
            description="the same with a throttle: 100 at the goal, less what it cost; 999 steps",
        ),
        EnvSpec(
            name="Pendulum",
            gym_id="Pendulum-v1",
            references={
                "standard": Reference(-1236.2, None, None, None),
            },
            description="swing a pendulum up and keep it there; costs, 200 steps",
        ),
        EnvSpec(
            name="HalfCheetah",
            gym_id="HalfCheetah-v5",
            demo_episodes=10,
            option_rules=_unit(5.0),
            sparse=Progress,
            references={
                "standard": Reference(-283.4, None, None, None),
            },
            description="run on two legs in a plane; 6 actions, 17 observations; never ends early",
        ),
        EnvSpec(
            name="Hopper",
            gym_id="Hopper-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(17.5, None, None, None),
            },
            description="hop on one leg in a plane; 3 actions, 11 observations; ends with a fall",
        ),
        EnvSpec(
            name="Walker2d",
            gym_id="Walker2d-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(1.8, None, None, None),
            },
            description="walk on two legs in a plane; 6 actions, 17 observations; ends with a fall",
        ),
        EnvSpec(
            name="Ant",
            gym_id="Ant-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(-54.6, None, None, None),
            },
            description="walk on four legs; 8 actions, 105 observations; ends with a fall",
        ),
        EnvSpec(
            name="Humanoid",
            gym_id="Humanoid-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(113.5, None, None, None),
            },
            description="walk upright; 17 actions, 348 observations; ends with a fall",
        ),
        EnvSpec(
            name="Swimmer",
            gym_id="Swimmer-v5",
            demo_episodes=10,
            option_rules=_unit(1.0),
            sparse=Progress,
            references={
                "standard": Reference(0.6, None, None, None),
            },
            description="swim with three links in a plane; 2 actions, 8 observations",
        ),
        EnvSpec(
            name="Reacher",
            gym_id="Reacher-v5",
            sparse=Reached,
            references={
                "standard": Reference(-42.9, None, None, None),
            },
            description="bring an arm's tip to a target; 2 actions, 10 observations, 50 steps",
        ),
        EnvSpec(
            name="InvertedDoublePendulum",
            gym_id="InvertedDoublePendulum-v5",
            sparse=Upright,
            references={
                "standard": Reference(47.3, None, None, None),
            },
            description="balance two poles on a cart; 1 action, 9 observations; ends with a fall",
        ),
        EnvSpec(
            name="GridWorld",
            gym_id="rlfd/GridWorld-v0",
            option_rules=_grid(0.0),
            controller=True,
            references={
                "standard": Reference(-3.6, None, 67.0, None),
            },
            description="a grid with goals and pits, its table known; 4 directions, 30 steps",
            table=grid_world,
        ),
        EnvSpec(
            name="SlipperyGridWorld",
            gym_id="rlfd/GridWorld-v0",
            option_rules=_grid(0.3),
            controller=True,
            references={
                "standard": Reference(-3.5, None, 44.6, None),
            },
            description="the same, with a random direction in three steps of ten",
            table=grid_world,
        ),
        EnvSpec(
            name="Chain",
            gym_id="rlfd/Chain-v0",
            option_rules=_CHAIN,
            controller=True,
            references={
                "standard": Reference(10.4, None, 15.3, None),
            },
            description="a chain whose end pays, its table known; ahead or back, 20 steps",
            table=chain,
        ),
    )
}

_ATARI_REFERENCES = {  # uniform actions, and a controller
    "Breakout": Reference(1.7, None, None, None),
    "DemonAttack": Reference(148.8, None, None, None),
    "MsPacman": Reference(258.3, None, None, None),
    "Pong": Reference(-20.4, None, 14.0, None),
    "SpaceInvaders": Reference(138.7, None, None, None),
}

SPECS |= {
    name: EnvSpec(
        name=name,
        gym_id=f"ALE/{name}-v5",
        demo_episodes=10,
        option_rules=atari.options(name),
        delayed=False,
        frame_stack=atari.FRAME_STACK,
        noop=0,
        controller=name == "Pong",
        references=({"standard": _ATARI_REFERENCES[name]} if name in _ATARI_REFERENCES else {}),
        description="Atari game, the last 4 frames in grey",
        build=atari.AtariGame,
        vector=atari.Emulators,
    )
    for name in atari.games()
}
