"""MuJoCo without a screen and without lines on stderr that are not ours."""

from __future__ import annotations

import functools
import logging
import os

__all__ = ["prepare"]

logger = logging.getLogger("rlfd.envs")


@functools.cache
def prepare() -> None:
    """Load MuJoCo so that it can draw headless, and let it speak through our log.

    MuJoCo chooses its drawing library when it is imported. Its warnings come from C: they go to
    stderr, and into a file in the working directory, unless a handler takes them.

    Raises:
        ImportError: If MuJoCo is not installed.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    import mujoco

    mujoco.set_mju_user_warning(_note)


@functools.lru_cache(maxsize=64)  # an unstable simulation says so in every episode: once is enough
def _note(text: str) -> None:
    # What is deprecated in a robot's file is nothing that our user could change.
    level = logging.DEBUG if "deprecated" in text else logging.WARNING
    logger.log(level, "MuJoCo: %s", text)
