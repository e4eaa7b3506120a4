"""A command-line laboratory for reinforcement learning from demonstrations.

The names below are loaded when they are first used, so that `import rlfd` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlfd.demos import Demonstrations as Demonstrations
    from rlfd.demos import collect as collect
    from rlfd.demos import load as load_demos
    from rlfd.envs import EnvConfig as EnvConfig
    from rlfd.envs import make as make_env
    from rlfd.errors import RlfdError as RlfdError
    from rlfd.experiments.config import resolve as resolve
    from rlfd.experiments.evaluate import evaluate_run as evaluate
    from rlfd.experiments.run_dir import RunDir as RunDir
    from rlfd.experiments.run_dir import find_runs as find_runs
    from rlfd.experiments.train import train as train

__all__ = [
    "Demonstrations",
    "EnvConfig",
    "RlfdError",
    "RunDir",
    "collect",
    "evaluate",
    "find_runs",
    "load_demos",
    "make_env",
    "resolve",
    "train",
]

__version__ = "0.1.0"

_PLACES = {
    "Demonstrations": ("rlfd.demos", "Demonstrations"),
    "EnvConfig": ("rlfd.envs", "EnvConfig"),
    "RlfdError": ("rlfd.errors", "RlfdError"),
    "RunDir": ("rlfd.experiments.run_dir", "RunDir"),
    "collect": ("rlfd.demos", "collect"),
    "evaluate": ("rlfd.experiments.evaluate", "evaluate_run"),
    "find_runs": ("rlfd.experiments.run_dir", "find_runs"),
    "load_demos": ("rlfd.demos", "load"),
    "make_env": ("rlfd.envs", "make"),
    "resolve": ("rlfd.experiments.config", "resolve"),
    "train": ("rlfd.experiments.train", "train"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it is defined."""
    if name not in _PLACES:
        raise AttributeError(f"module 'rlfd' has no attribute '{name}'")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
