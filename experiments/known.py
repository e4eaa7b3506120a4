"""What runs in known finite environments are worth, computed from the table instead of by playing.

The true reward is the environment's; methods that recover one never see it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlfd import envs
from rlfd.algorithms.core.tabular import Dynamics, greedy_policy, occupancy
from rlfd.envs import Table
from rlfd.envs.tabular import soft_policy
from rlfd.errors import RlfdError
from rlfd.experiments import checkpoint
from rlfd.experiments.evaluate import choose_policy
from rlfd.experiments.problem import tabular_model
from rlfd.experiments.run_dir import RunDir

__all__ = ["FEATURE_GAP", "GAPS", "VALUE_GAP", "Recovered", "measure_gaps", "read_recovered"]

Array = NDArray[np.float64]

FEATURE_GAP, VALUE_GAP = "feature gap", "value gap"
GAPS = (FEATURE_GAP, VALUE_GAP)


@dataclass(frozen=True)
class Recovered:
    """What a run learned about a known finite environment.

    Attributes:
        table: The environment.
        rewards: The recovered reward. Shape (S, A).
        visits: Σ_t D_t(s, a) of the learned policy, exactly. Shape (S, A).
        demonstrated: The same of the demonstrations, mean over episodes. Shape (S, A).
    """

    table: Table
    rewards: Array
    visits: Array
    demonstrated: Array


def read_recovered(run: RunDir, checkpoint_name: str = "latest") -> Recovered | None:
    """Return what a run learned; None unless it recovers a reward from known dynamics.

    Raises:
        RlfdError: If nothing has been saved yet, or it does not fit the environment.
    """
    config = run.config()
    known = envs.table(config.env)
    if known is None:
        return None
    _, path = choose_policy(run, checkpoint_name)
    state = {name: value.numpy() for name, value in checkpoint.load_policy(path).items()}
    if not {"policy", "rewards", "demonstrated"} <= state.keys():
        return None
    if state["rewards"].shape != known.rewards.shape or len(state["policy"]) != known.horizon:
        raise RlfdError(f"policy {path} does not fit the environment of its run")
    visits = occupancy(Dynamics(tabular_model(known)), state["policy"]).sum(axis=0)
    return Recovered(known, state["rewards"], visits, state["demonstrated"])


def measure_gaps(run: RunDir) -> dict[str, float]:
    """Return both gaps of a run's last policy and reward by name; nothing where there are none.

    Feature gap: ‖f_π - f_E‖ / ‖f_E‖, f_E of the environment's controller itself. Value gap: what
    the best policy for the recovered reward loses under the true one, as share of the best return.
    """
    found = read_recovered(run)
    if found is None:
        return {}
    known = found.table
    dynamics = Dynamics(tabular_model(known))
    eye = np.eye(dynamics.shape[1])

    def value(rewards: Array) -> float:
        """The true return of the best policy for a reward."""
        joint = occupancy(dynamics, eye[greedy_policy(dynamics, rewards)])
        return float((joint.sum(axis=0) * known.rewards).sum())

    expert = occupancy(dynamics, soft_policy(known)).sum(axis=0)
    wanted, reached = (
        np.einsum("sa,saf->f", visits, known.features) for visits in (expert, found.visits)
    )
    best = value(known.rewards)
    return {
        FEATURE_GAP: float(np.linalg.norm(reached - wanted) / np.linalg.norm(wanted)),
        VALUE_GAP: (best - value(found.rewards)) / abs(best),
    }
