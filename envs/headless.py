"""Simulators without a screen, and without lines on stderr that are not ours."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys

__all__ = ["prepare", "prepare_mujoco"]

logger = logging.getLogger("rlfd.envs")


def prepare() -> None:
    """Let Gymnasium's own environments draw without a screen, unless the user set a driver."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@functools.cache
def prepare_mujoco() -> None:
    """Let MuJoCo draw without a screen, and let its warnings go through our log.

    They come from C and go to stderr, and into a file in the working directory, unless a handler
    takes them.

    Raises:
        ImportError: If MuJoCo is not installed.
    """
    if "MUJOCO_GL" not in os.environ and _has_egl():
        os.environ["MUJOCO_GL"] = "egl"  # read when MuJoCo is imported
    import mujoco

    mujoco.set_mju_user_warning(_note)


def _has_egl() -> bool:
    """Whether EGL is there: told to use what is missing, MuJoCo cannot even be imported."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=64)  # an unstable simulation says so in every episode: once is enough
def _note(text: str) -> None:
    # What is deprecated in a robot's file is nothing that our user could change.
    level = logging.DEBUG if "deprecated" in text else logging.WARNING
    logger.log(level, "MuJoCo: %s", text)
