"""MCPO: mimicry-constrained policy optimisation.

Jing and Ma, "Mimicry Constraint Policy Optimization", 2019 (submitted version; equation numbers
are its). Around the policy θ_k, with x = θ - θ_k:

    maximise g·x   subject to   b·x + c ≤ 0,   ½ x·Hx ≤ δ                              (eq 4)

g: policy gradient of the reward; b: gradient of the MMD to the demonstrations; c = MMD_k - d_k,
positive where the constraint is violated; H: curvature of the mean KL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Case", "Step", "constrained_step"]

Case = Literal["0a", "0b", "1", "2a", "2b", "3", "4", "5", "6"]

VANISHING = 1e-12  # q and s below this: there is no gradient
PARALLEL = 1e-10  # A / q below this: g and b are parallel


@dataclass(frozen=True, slots=True)
class Step:
    """The solution of eq 4, x = on_u u + on_w w with u = H⁻¹g and w = H⁻¹b.

    Attributes:
        case: Which case it is; see `constrained_step`.
        on_u: Coefficient of u.
        on_w: Coefficient of w.
        lam: λ, multiplier of the trust region; 0 where eq 4 has no solution.
        nu: ν, multiplier of the constraint; 0 where eq 4 has no solution.
    """

    case: Case
    on_u: float
    on_w: float
    lam: float = 0.0
    nu: float = 0.0


def constrained_step(
    q: float, p: float, s: float, c: float, delta: float, *, recovery_delta: float | None = None
) -> Step:
    """Solve eq 4 in closed form, by its optimality conditions.

    Stationarity is g - νb - λHx = 0. If both constraints are active, b·x = -c gives
    ν = (p + λc) / s, and x·Hx = 2δ then gives A / λ² + c² / s = 2δ.

        0a  no constraint gradient, satisfied       the TRPO step √(2δ/q) u
        0b  no constraint gradient, violated        no step
        1   infeasible                              recovery -√(2δ'/s) w              (eq 7)
        2a  no reward gradient, satisfied           no step
        2b  no reward gradient, violated            -(c/s) w, the shortest that restores
        3   the trust region satisfies the rest     the TRPO step
        4   the TRPO step satisfies the constraint  the TRPO step
        5   g parallel to b                         -(c/s) w
        6   both active                             -(c/s) w + √(B/A) (u - (p/s) w)

    The sign of g is that of the objective, as in eq 4; eqs 5 and 6 of the paper hold for -g.

    Args:
        q: g·H⁻¹g, at least 0.
        p: g·H⁻¹b.
        s: b·H⁻¹b, at least 0.
        c: MMD_k - d_k; may be -inf.
        delta: δ > 0.
        recovery_delta: δ', radius of case 1. None = δ.
    """
    if s <= VANISHING:
        return Step("0b", 0.0, 0.0) if c > 0.0 else _trust_region_step("0a", q, delta)
    if c > 0.0 and c**2 / s >= 2.0 * delta:
        radius = delta if recovery_delta is None else recovery_delta
        return Step("1", 0.0, -math.sqrt(2.0 * radius / s))
    if q <= VANISHING:
        return Step("2b", 0.0, -c / s) if c > 0.0 else Step("2a", 0.0, 0.0)
    if c <= 0.0 and c**2 / s >= 2.0 * delta:
        return _trust_region_step("3", q, delta)
    if p * math.sqrt(2.0 * delta / q) + c <= 0.0:
        return _trust_region_step("4", q, delta)
    a = q - p**2 / s  # A, at least 0 by Cauchy and Schwarz
    if a <= PARALLEL * q:
        return Step("5", 0.0, -c / s, nu=p / s)
    ratio = math.sqrt((2.0 * delta - c**2 / s) / a)  # √(B/A) = 1/λ
    return Step("6", ratio, -c / s - ratio * p / s, lam=1.0 / ratio, nu=(p + c / ratio) / s)


def _trust_region_step(case: Case, q: float, delta: float) -> Step:
    if q <= VANISHING:
        return Step(case, 0.0, 0.0)
    return Step(case, math.sqrt(2.0 * delta / q), 0.0, lam=math.sqrt(q / (2.0 * delta)))
