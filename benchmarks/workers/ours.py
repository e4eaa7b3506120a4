"""Runs the whole training loop of `rlfd` behind a gate: `ours.py NUM_ENVS SETUP_JSON`."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gate import Closed, Gate

from rlfd.demos import collect, make_demonstrator
from rlfd.envs import EnvConfig
from rlfd.experiments.config import resolve
from rlfd.experiments.report import NullReporter
from rlfd.experiments.train import train

ENDLESS = 100_000_000


class GatedReporter(NullReporter):
    """Hears from the loop several times a second, and holds it there."""

    def __init__(self, gate: Gate, setup: dict[str, Any]) -> None:
        self._gate, self._learning_starts = gate, setup.get("learning_starts", 0)
        self._every = setup.get("env_steps_per_update", 1)

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Pass the gate; updates come evenly since learning started."""
        self._gate.tick(done, max(0, done - self._learning_starts) // self._every)


def settings(setup: dict[str, Any]) -> dict[str, Any]:
    """Translate the common setup into our words; on-policy learners and SAC have the same."""
    hidden = ",".join(map(str, setup["hidden"]))
    if setup["algo"] in ("trpo", "ppo", "sac"):
        others = ("algo", "env", "warm_at")
        own = {name: value for name, value in setup.items() if name not in others}
        return own | {"hidden": hidden}
    common = {
        "hidden": hidden,
        "layer_norm": "false",
        "learning_rate": setup["learning_rate"],
        "final_learning_rate": 1,
        "buffer_size": setup["buffer_size"],
        "learning_starts": setup["learning_starts"],
        "updates_per_env_step": 1 / setup.get("env_steps_per_update", 1),
        "gamma": setup["gamma"],
        "target_update": "copy",
        "target_every_updates": setup["target_every_updates"],
        "max_grad_norm": setup["max_grad_norm"],
        "precision": setup.get("precision", "float32"),
    }
    if setup["algo"] == "sqil":  # our batch size counts each half
        return {**common, "batch_size": setup["batch_size"] // 2}
    return {
        **common,
        "batch_size": setup["batch_size"],
        "double": "false",
        "reward_scale": 1,
        "epsilon_start": setup["epsilon"],
        "epsilon_final": setup["epsilon"],
    }


def main() -> None:
    num_envs, setup = int(sys.argv[1]), json.loads(sys.argv[2])
    env = EnvConfig(setup.get("env", "LunarLander"))
    gate = Gate(setup["warm_at"])
    with tempfile.TemporaryDirectory() as text:
        folder, demos = Path(text), None
        if setup["algo"] == "sqil":
            controller = make_demonstrator("controller", env, seed=0)
            made = collect(
                env, controller, episodes=setup["demo_episodes"], data_dir=folder / "data"
            )
            demos = made.info.id
        resolved = resolve(
            setup["algo"],
            env,
            settings=[f"{name}={value}" for name, value in settings(setup).items()],
            options={
                "steps": ENDLESS,
                "num_envs": num_envs,
                "eval_every": 0,
                "checkpoint_every": ENDLESS,
                "compile": setup.get("compile", "on"),
                "threads": setup.get("threads", 1),
                **({"demos": demos} if demos else {}),
            },
        )
        reporter = GatedReporter(gate, setup)
        with contextlib.suppress(Closed):
            train(resolved, runs_dir=folder / "runs", data_dir=folder / "data", reporter=reporter)


if __name__ == "__main__":
    main()
