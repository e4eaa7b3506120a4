"""What Car Racing's camera sees: pixel for pixel what Gymnasium draws, with less work.

For each frame Gymnasium moves some 800 polygons to the screen in Python, of which about 30 are
drawn and 20 can be seen, and renders a line of text and a status bar that are cropped here. Here
corners are moved by NumPy, with the same operations in the same order, and polygons outside of the
picture are left out. What is drawn is drawn by the same functions of pygame, on a screen of the
same size, since how they round depends on its borders.

The picture is Gymnasium's observation without its status bar, 84 rows of 96 pixels, made smaller
once more by the function that made it, pygame's `smoothscale`, which averages over areas.

This was proven against certain versions of Gymnasium and pygame (`tests/unit/test_envs_car.py`
compares whole episodes). With others Gymnasium's own drawing is used, and a line of the log says
so.
"""

from __future__ import annotations

import functools
import logging
import math
import platform
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pygame
from gymnasium.envs.box2d import car_dynamics as dynamics
from gymnasium.envs.box2d import car_racing as racing
from pygame import gfxdraw

__all__ = ["COLUMNS", "ROWS", "Camera", "proven"]

Array = npt.NDArray[Any]

PROVEN = {"gymnasium": ("1.4.0",), "pygame": ("2.5.8",), "machine": ("x86_64", "AMD64")}

COLUMNS, ROWS = 96, 84  # of Gymnasium's observation, and of what is above its status bar
WIDTH, HEIGHT = racing.WINDOW_W, racing.WINDOW_H
BAR = HEIGHT * (racing.STATE_H - ROWS) // racing.STATE_H  # rows of the screen that it takes
FASTEST_SPEED, FASTEST_WHEEL = 190.0, 390.0  # beyond, a gauge might be higher than the status bar
LUMINANCE = (77, 150, 29)  # of red, green and blue, out of 256

logger = logging.getLogger("rlfd.envs")


@functools.cache
def proven() -> bool:
    """Whether these frames were proven with what is installed; says once if they were not."""
    found = {
        "gymnasium": gymnasium.__version__,
        "pygame": pygame.version.ver if getattr(pygame, "IS_CE", False) else "not pygame-ce",
        "machine": platform.machine(),
    }
    others = [f"{name} {found[name]}" for name in PROVEN if found[name] not in PROVEN[name]]
    if others:
        logger.warning(
            "Car Racing is drawn by Gymnasium itself, three times as slowly: the faster frames "
            "are not proven for %s",
            ", ".join(others),
        )
    return not others


@functools.cache
def _surfaces() -> tuple[pygame.Surface, pygame.Surface, pygame.Surface, pygame.Surface]:
    """Return the screen, its part above the status bar, and the two that it is scaled to.

    All cameras of a process share them, one after the other.
    """
    screen = pygame.Surface((WIDTH, HEIGHT))
    part = screen.subsurface((0, BAR, WIDTH, HEIGHT - BAR))  # y points upwards while it is drawn
    between = pygame.Surface((COLUMNS, HEIGHT - BAR))
    return screen, part, between, pygame.Surface((COLUMNS, ROWS))


class Camera:
    """Takes pictures of one Car Racing.

    Args:
        env: Gymnasium's environment itself, without wrappers.
        size: Rows and columns of a picture.
        gray: Whether it is gray, or red, green and blue.
    """

    def __init__(self, env: Any, *, size: int, gray: bool) -> None:
        self._env, self._gray = env, gray
        self._gymnasium_render = env._render
        self._picture = pygame.Surface((size, size))
        self._lean = False
        env._render = self._render

    def _render(self, mode: str) -> Any:
        """Draw nothing at a step: `picture` does, when it is asked."""
        return None if mode == "state_pixels" else self._gymnasium_render(mode)

    def begin(self) -> None:
        """Look at a new track."""
        squares = np.arange(-20, 20, 2) * racing.GRASS_DIM
        left, low = (side.ravel() for side in np.meshgrid(squares, squares, indexing="ij"))
        # corner by corner as Gymnasium computes them
        right, high = left + racing.GRASS_DIM, low + racing.GRASS_DIM
        grass = np.array([[right, low], [left, low], [left, high], [right, high]])
        road = np.array([corners for corners, _ in self._env.road_poly], np.float64)
        points = np.concatenate([grass.transpose(2, 0, 1), road])  # (P, 4, 2)
        self._num_grass = len(left)
        self._x, self._y = points[..., 0].copy(), points[..., 1].copy()
        self._centre_x, self._centre_y = self._x.mean(axis=1), self._y.mean(axis=1)
        self._radius = np.hypot(
            self._x - self._centre_x[:, None], self._y - self._centre_y[:, None]
        ).max(axis=1)
        self._set_up_car()
        # Gymnasium draws no polygon with all corners far outside: no smaller one can be seen then
        largest = 2.0 * float(self._radius.max()) * racing.ZOOM * racing.SCALE
        self._lean = proven() and largest < racing.MAX_SHAPE_DIM + 1.0

    def _set_up_car(self) -> None:
        """Note the corners of the car's parts in the order in which they are drawn."""
        car = self._env.car
        self._bodies = list(car.drawlist)
        corners: list[Any] = []
        owner: list[int] = []
        self._parts: list[tuple[int, int, list[int], int | None]] = []  # begin, end, colour, wheel
        self._marks: list[int] = []  # where a wheel's mark begins
        for index, body in enumerate(self._bodies):
            colour = [int(value * 255) for value in body.color]
            for fixture in body.fixtures:
                begin = len(corners)
                corners += fixture.shape.vertices
                self._parts.append((begin, len(corners), colour, None))
                if "phase" in body.__dict__:
                    begin = len(corners)
                    half = dynamics.WHEEL_W * dynamics.SIZE
                    corners += [(-half, 0.0), (half, 0.0), (half, 0.0), (-half, 0.0)]
                    mark = list(dynamics.WHEEL_WHITE)
                    self._parts.append((begin, len(corners), mark, index))
                owner += [index] * (len(corners) - len(owner))
        self._corners = np.array(corners, np.float32)
        self._owner = np.array(owner)

    def picture(self) -> Array:
        """Return what is seen now. Bytes of shape (1, size, size), gray, or (3, size, size)."""
        small = _surfaces()[3]
        if not (self._lean and self._draw(small)):
            seen = self._gymnasium_render("state_pixels")[:ROWS]
            pygame.surfarray.blit_array(small, seen.swapaxes(0, 1))
        size = self._picture.get_size()
        pygame.transform.smoothscale(small, size, self._picture)
        colours = pygame.surfarray.pixels3d(self._picture).transpose(2, 1, 0)  # (3, H, W)
        if not self._gray:
            return colours.copy()
        red, green, blue = LUMINANCE
        mixed = colours[0] * np.uint16(red) + colours[1] * np.uint16(green)
        mixed += colours[2] * np.uint16(blue)
        mixed += np.uint16(128)
        gray: Array = (mixed >> np.uint16(8)).astype(np.uint8)[None]
        return gray

    def _draw(self, small: pygame.Surface) -> bool:
        """Draw the scene into `small`; False where the status bar may reach into it."""
        env = self._env
        hull = env.car.hull
        if math.hypot(*hull.linearVelocity) > FASTEST_SPEED:
            return False
        if any(wheel.omega > FASTEST_WHEEL for wheel in env.car.wheels):
            return False
        screen, part, between, _ = _surfaces()
        angle = -hull.angle
        zoom = 0.1 * racing.SCALE * max(1 - env.t, 0) + racing.ZOOM * racing.SCALE * min(env.t, 1)
        x, y = hull.position
        shift = pygame.math.Vector2((-x * zoom, -y * zoom)).rotate_rad(angle)
        view = _View(angle, zoom, WIDTH / 2 + shift[0], HEIGHT / 4 + shift[1])
        self._draw_ground(screen, view)
        self._draw_car(screen, view)
        # Scaling is along rows first. Done apart from that along columns, it leaves less to flip.
        pygame.transform.smoothscale(part, between.get_size(), between)
        flipped = pygame.transform.flip(between, False, True)
        pygame.transform.smoothscale(flipped, small.get_size(), small)
        return True

    def _draw_ground(self, screen: pygame.Surface, view: _View) -> None:
        env = self._env
        screen_half = math.hypot(WIDTH / 2, (HEIGHT - BAR) / 2) + 4
        x, y = view.world(WIDTH / 2, (HEIGHT + BAR) / 2)
        around = screen_half / view.zoom
        if max(abs(x), abs(y)) + around < racing.PLAYFIELD:
            screen.fill(env.bg_color.tolist(), (0, BAR, WIDTH, HEIGHT - BAR))
        else:
            screen.fill(0)
            edge = racing.PLAYFIELD
            xs, ys = view.screen(
                np.array([edge, edge, -edge, -edge]), np.array([edge, -edge, -edge, edge])
            )
            _polygon(screen, np.stack([xs, ys], axis=-1).astype(np.int64).tolist(), env.bg_color)
        to_x, to_y = self._centre_x - x, self._centre_y - y
        reach = self._radius + around
        near = np.flatnonzero(to_x * to_x + to_y * to_y <= reach * reach)
        xs, ys = view.screen(self._x[near], self._y[near])
        xs, ys = xs.astype(np.int64), ys.astype(np.int64)  # as pygame does: towards zero
        seen = (xs.max(axis=1) >= -2) & (xs.min(axis=1) <= WIDTH + 1)
        seen &= (ys.max(axis=1) >= BAR - 2) & (ys.min(axis=1) <= HEIGHT + 1)
        corners = np.stack([xs[seen], ys[seen]], axis=-1).tolist()
        for index, polygon in zip(near[seen].tolist(), corners, strict=True):
            road = index - self._num_grass
            colour = env.grass_color if road < 0 else env.road_poly[road][1]
            _polygon(screen, polygon, colour)

    def _draw_car(self, screen: pygame.Surface, view: _View) -> None:
        marked: set[int] = set()
        for begin, _, _, wheel in self._parts:
            if wheel is not None and (ends := _mark(self._bodies[wheel].phase)) is not None:
                marked.add(wheel)
                self._corners[begin : begin + 4, 1] = [ends[0], ends[0], ends[1], ends[1]]
        placed = []
        for body in self._bodies:
            transform = body.transform
            turn, place = transform.q, transform.position
            placed.append((turn.c, turn.s, place[0], place[1]))
        cos, sin, x, y = np.array(placed, np.float32)[self._owner].T
        across, along = self._corners.T
        # in single precision, as Box2D does
        world_x = (cos * across - sin * along) + x
        world_y = (sin * across + cos * along) + y
        xs, ys = view.screen(world_x.astype(np.float64), world_y.astype(np.float64))
        points = np.stack([xs, ys], axis=-1).tolist()
        for begin, end, colour, wheel in self._parts:
            if wheel is None or wheel in marked:
                pygame.draw.polygon(screen, colour, points[begin:end])


class _View:
    """From the world to the screen: rotated, scaled, shifted."""

    def __init__(self, angle: float, zoom: float, x: float, y: float) -> None:
        # pygame's own cosine and sine, which are exact for right angles
        self._cos, self._sin = pygame.math.Vector2(1, 0).rotate_rad(angle)
        self.zoom, self._x, self._y = zoom, x, y

    def screen(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return where points of the world are on the screen."""
        cos, sin = self._cos, self._sin
        return (
            (cos * x - sin * y) * self.zoom + self._x,
            (sin * x + cos * y) * self.zoom + self._y,
        )

    def world(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the screen is in the world."""
        across, along = (x - self._x) / self.zoom, (y - self._y) / self.zoom
        return (
            self._cos * across + self._sin * along,
            self._cos * along - self._sin * across,
        )


def _polygon(screen: pygame.Surface, corners: Any, colour: Any) -> None:
    colour = [int(value) for value in colour]
    gfxdraw.aapolygon(screen, corners, colour)
    gfxdraw.filled_polygon(screen, corners, colour)


def _mark(phase: float) -> tuple[float, float] | None:
    """Return where the white mark on a turning wheel ends, if it is on the upper side."""
    sin1, sin2 = math.sin(phase), math.sin(phase + 1.2)
    cos1, cos2 = math.cos(phase), math.cos(phase + 1.2)
    if sin1 > 0 and sin2 > 0:
        return None
    if sin1 > 0:
        cos1 = float(np.sign(cos1))
    if sin2 > 0:
        cos2 = float(np.sign(cos2))
    return dynamics.WHEEL_R * cos1 * dynamics.SIZE, dynamics.WHEEL_R * cos2 * dynamics.SIZE
