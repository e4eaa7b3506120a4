"""Settings for an environment and by name, as differences from the dataclass defaults.

What suits an environment whatever is trained there comes first (`environment_defaults`). A preset
is looked up as (algorithm, preset name, environment); the entry with environment None applies
first, then that of the environment's family ("Atari": all games of ALE; "CarRacing": with any
actions). Every number has its source beside it.
"""

from __future__ import annotations

from rlfd.algorithms.presets.continuous import CONTINUOUS
from rlfd.algorithms.presets.environments import environment_defaults
from rlfd.algorithms.presets.on_policy import ON_POLICY
from rlfd.algorithms.presets.pixels import PIXELS
from rlfd.algorithms.presets.preset import Key, Preset
from rlfd.algorithms.presets.regression import REGRESSION
from rlfd.algorithms.presets.value_based import VALUE_BASED
from rlfd.errors import RlfdError, unknown_name

__all__ = ["Preset", "environment_defaults", "preset_layers", "preset_names"]

PRESETS: dict[Key, Preset] = VALUE_BASED | CONTINUOUS | ON_POLICY | REGRESSION | PIXELS


def preset_names(algorithm: str) -> list[str]:
    """Return the presets of an algorithm, `default` first."""
    named = {name for algo, name, _ in PRESETS if algo == algorithm}
    return ["default", *sorted(named - {"default"})]


def preset_layers(
    algorithm: str, name: str, env: str, family: str | None = None
) -> list[tuple[str, Preset]]:
    """Return the layers of a preset, weakest first, each with a label for provenance.

    Args:
        algorithm: Whose settings.
        name: Of the preset.
        env: The environment.
        family: What it belongs to, if there are settings for all of its kind.

    Raises:
        RlfdError: If the algorithm has no preset of that name, or has it for other environments.
    """
    if name not in preset_names(algorithm):
        raise unknown_name("preset", name, preset_names(algorithm))
    keys: list[Key] = [(algorithm, name, None), (algorithm, name, env)]
    if family not in (None, env):
        keys.insert(1, (algorithm, name, family))
    layers = [
        (f"preset {name}" + (f" for {key[2]}" if key[2] else ""), PRESETS[key])
        for key in keys
        if key in PRESETS
    ]
    if not layers and name != "default":
        known = sorted(str(key[2]) for key in PRESETS if key[:2] == (algorithm, name))
        message = f"preset '{name}' of {algorithm} is for {', '.join(known)}, not for {env}"
        raise RlfdError(message, "leave it out for the defaults there")
    return layers
