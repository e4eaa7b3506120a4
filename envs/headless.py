"""Simulators without a screen, and without lines on stderr that are not ours."""

from __future__ import annotations

import functools
import logging
import os

__all__ = ["prepare", "prepare_mujoco"]

logger = logging.getLogger("rlfd.envs")


def prepare() -> None:
    """Let pictures be drawn where there is no screen, unless the user chose another way."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # else it complains about a missing screen
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported


@functools.cache
def prepare_mujoco() -> None:
    """Let MuJoCo's warnings go through our log.

    They come from C and go to stderr, and into a file in the working directory, unless a handler
    takes them.

    Raises:
        ImportError: If MuJoCo is not installed.
    """
    import mujoco

    mujoco.set_mju_user_warning(_note)


@functools.lru_cache(maxsize=64)  # an unstable simulation says so in every episode: once is enough
def _note(text: str) -> None:
    # What is deprecated in a robot's file is nothing that our user could change.
    level = logging.DEBUG if "deprecated" in text else logging.WARNING
    logger.log(level, "MuJoCo: %s", text)
