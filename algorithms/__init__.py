"""Learning methods: one file each, registered by name."""

from rlfd.algorithms import (
    apprenticeship,
    awr,
    bc,
    gail,
    gmmil,
    mail,
    marwil,
    maxent_irl,
    mcpo,
    pofd,
    rwr,
    sil,
    sqil,
    sqil_sac,
    sqil_t,
)
from rlfd.algorithms.registry import get, names
from rlfd.algorithms.rl import a2c, dqn, ppo, sac, soft_q, td3, trpo

__all__ = [
    "a2c",
    "apprenticeship",
    "awr",
    "bc",
    "dqn",
    "gail",
    "get",
    "gmmil",
    "mail",
    "marwil",
    "maxent_irl",
    "mcpo",
    "names",
    "pofd",
    "ppo",
    "rwr",
    "sac",
    "sil",
    "soft_q",
    "sqil",
    "sqil_sac",
    "sqil_t",
    "td3",
    "trpo",
]
