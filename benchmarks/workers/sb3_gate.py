"""How learners that are built on Stable-Baselines3 are stopped and let go on."""

from __future__ import annotations

from gate import Gate
from stable_baselines3.common.callbacks import BaseCallback

ENDLESS = 100_000_000


class GateCallback(BaseCallback):
    """Calls the gate after every env step."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def _on_step(self) -> bool:
        self._gate.tick(self.num_timesteps, self.model._n_updates)
        return True
