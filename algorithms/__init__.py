"""Learning methods: one file each, registered by name."""

from rlfd.algorithms import bc, gmmil, sqil, sqil_sac, sqil_t
from rlfd.algorithms.registry import get, names
from rlfd.algorithms.rl import dqn, sac, soft_q, td3, trpo

__all__ = [
    "bc",
    "dqn",
    "get",
    "gmmil",
    "names",
    "sac",
    "soft_q",
    "sqil",
    "sqil_sac",
    "sqil_t",
    "td3",
    "trpo",
]
