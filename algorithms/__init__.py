"""Learning methods: one file each, registered by name."""

from rlfd.algorithms import bc, gail, gmmil, mcpo, pofd, sqil, sqil_sac, sqil_t
from rlfd.algorithms.registry import get, names
from rlfd.algorithms.rl import a2c, dqn, ppo, sac, soft_q, td3, trpo

__all__ = [
    "a2c",
    "bc",
    "dqn",
    "gail",
    "get",
    "gmmil",
    "mcpo",
    "names",
    "pofd",
    "ppo",
    "sac",
    "soft_q",
    "sqil",
    "sqil_sac",
    "sqil_t",
    "td3",
    "trpo",
]
