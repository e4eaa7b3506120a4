"""Learning methods: one file each, registered by name."""

from rlfd.algorithms import (
    awr,
    bc,
    bc_soft_q,
    gail,
    gmmil,
    mail,
    marwil,
    mcpo,
    pofd,
    psq,
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
    "awr",
    "bc",
    "bc_soft_q",
    "dqn",
    "gail",
    "get",
    "gmmil",
    "mail",
    "marwil",
    "mcpo",
    "names",
    "pofd",
    "ppo",
    "psq",
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
