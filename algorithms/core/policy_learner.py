"""Who improves a policy: TRPO's or PPO's learner, which have the same face.

Parts, not base classes: a method holds one of them and decides which rewards its rollouts are
improved by.
"""

from __future__ import annotations

from typing import Literal

from rlfd.algorithms.base import Problem
from rlfd.algorithms.core.on_policy import OnPolicyConfig
from rlfd.algorithms.core.ppo_learner import ClipFields, PPOLearner
from rlfd.algorithms.core.trpo_learner import TRPOLearner, TrustRegionFields

__all__ = ["LEARNERS", "PolicyLearner", "make_policy_learner"]

PolicyLearner = TRPOLearner | PPOLearner

LEARNERS = {"trpo": TrustRegionFields.own_settings(), "ppo": ClipFields.own_settings()}
"""What each of them reads besides what both do."""


def make_policy_learner(
    kind: Literal["trpo", "ppo"], problem: Problem, config: OnPolicyConfig
) -> PolicyLearner:
    """Return the learner of that name; `config` must have its fields."""
    if kind == "trpo":
        assert isinstance(config, TrustRegionFields)
        return TRPOLearner(problem, config)
    assert isinstance(config, ClipFields)
    return PPOLearner(problem, config)
