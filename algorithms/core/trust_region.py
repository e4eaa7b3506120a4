"""What every method with a KL trust region stands on.

Around the policy θ_k that made a batch, with x = θ - θ_k:

    maximise g·x  subject to  ½ x·Hx ≤ δ
    g = ∇E[π_θ(a|s) / π_θk(a|s) A],   H = ∇² mean KL(π_θk ‖ π_θ) at θ_k

Schulman et al., "Trust Region Policy Optimization", 2015, arXiv 1502.05477; Hessian-vector products
by differentiating twice and conjugate gradients as in its appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from rlfd.algorithms.core.bounds import bounds_of, project
from rlfd.algorithms.core.distributions import Distribution
from rlfd.algorithms.core.engine import Parameters
from rlfd.algorithms.core.networks import PolicyNetwork

__all__ = ["LineSearch", "LocalModel", "TrustRegion", "conjugate_gradient"]


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, bool]:
    """Solve H x = b for a positive definite H that is only known by its products.

    Args:
        product: v -> H v.
        b: Shape (P,).
        iterations: At most so many products.
        tolerance: Stop when the residual's norm is this fraction of b's.

    Returns:
        x (P,), and whether every product was finite and of positive curvature; otherwise x is what
        had been reached before.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    squared = residual.dot(residual)
    enough = float(squared) * tolerance**2
    for _ in range(iterations):
        if float(squared) <= enough:
            break
        image = product(direction)
        curvature = float(direction.dot(image))
        if not 0.0 < curvature < torch.inf:
            return x, False
        step = squared / curvature
        x = x + step * direction
        residual = residual - step * image
        before, squared = squared, residual.dot(residual)
        direction = residual + squared / before * direction
    return x, bool(torch.isfinite(x).all())


@dataclass(frozen=True, slots=True)
class LineSearch:
    """How a line search went.

    Attributes:
        accepted: Whether some step was taken; otherwise the parameters are what they were.
        tries: Steps looked at.
        fraction: Of the full step, taken; 0 if none.
        theta: The parameters now. Shape (P,).
    """

    accepted: bool
    tries: int
    fraction: float
    theta: Tensor


class TrustRegion:
    """Local models of one policy.

    Args:
        network: The policy; its parameters are written by line searches alone.
        distribution: Of its actions.
        cg_iterations: Products per linear system.
        damping: Added to the diagonal of H.
        fisher_every: H is averaged over one state in so many, drawn for each local model: every so
            many-th row would be of few environments, where it and their number share a factor.
        generator: Source of those draws.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        distribution: Distribution,
        *,
        cg_iterations: int,
        damping: float,
        fisher_every: int,
        generator: torch.Generator,
    ) -> None:
        self.network, self.distribution = network, distribution
        self.cg_iterations, self.damping, self.fisher_every = cg_iterations, damping, fisher_every
        self.generator = generator
        self._bounds = bounds_of(network)
        self._shapes = {name: value.shape for name, value in network.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]

    def at(self, observations: Tensor, actions: Tensor) -> LocalModel:
        """Return the local model at the current parameters.

        Args:
            observations: Shape (B, *observation_shape).
            actions: In the policy's units. Shape (B,) or (B, k).
        """
        return LocalModel(self, observations, actions)

    def draw(self, rows: int) -> Tensor:
        """Draw without replacement over which of so many rows H is averaged. In order."""
        order = torch.randperm(rows, generator=self.generator, device=self.generator.device)
        return order[: -(-rows // self.fisher_every)].sort().values

    def read(self) -> Tensor:
        """Return a copy of the policy's parameters as one vector (P,)."""
        return torch.cat([value.detach().reshape(-1) for value in self.network.parameters()])

    @torch.no_grad()
    def write(self, theta: Tensor) -> None:
        """Set the policy's parameters."""
        values = self.views(theta).values()
        for parameter, value in zip(self.network.parameters(), values, strict=True):
            parameter.copy_(value)

    def project(self, theta: Tensor) -> None:
        """Move θ (P,) to where its parameters are within their bounds, in place."""
        project(self.views(theta), self._bounds)

    def views(self, theta: Tensor) -> Parameters:
        """Cut a vector (P,) into parameters by name."""
        parts = zip(self._shapes.items(), torch.split(theta, self._sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}


class LocalModel:
    """Surrogate, KL divergence and Fisher matrix around θ_k, on one batch. See `TrustRegion.at`.

    Attributes:
        theta: θ_k as one vector. Shape (P,).
        problems: Linear systems that met a product which was not finite or not of positive
            curvature.
    """

    def __init__(self, region: TrustRegion, observations: Tensor, actions: Tensor) -> None:
        self.region, self.actions = region, actions
        self.problems = 0
        self._inputs = region.network.standardise(observations)
        self.theta = region.read()
        self._leaf = self.theta.clone().requires_grad_()
        with torch.enable_grad():
            outputs, log_std = self._forward(self._leaf, self._inputs)
            self._log_probs = region.distribution.log_prob(outputs, log_std, actions)
            self._entropy = region.distribution.entropy(outputs, log_std).mean()
        self._old = outputs.detach(), log_std.detach()
        self._old_log_probs = self._log_probs.detach()
        self._slope: Tensor | None = None
        self._newest: tuple[Tensor, tuple[Tensor, Tensor]] = (self.theta, self._old)

    def _forward(self, theta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (B, K) and log-std under θ."""
        parameters = self.region.views(theta)
        body = {
            name.removeprefix("body."): value
            for name, value in parameters.items()
            if name != "log_std"
        }
        outputs: Tensor = functional_call(self.region.network.body, body, (inputs,))
        return outputs, parameters["log_std"]

    @torch.no_grad()
    def _at(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        if self._newest[0] is not theta:  # surrogate, KL and others are asked for the same θ
            self._newest = theta, self._forward(theta, self._inputs)
        return self._newest[1]

    def gradient(self, advantages: Tensor, entropy_weight: float = 0.0) -> Tensor:
        """Return ∇(E[π_θ / π_θk A] + c_H mean H(π_θ)) at θ_k, with A (B,). Shape (P,)."""
        with torch.enable_grad():
            # at θ_k the ratio's gradient is that of log π
            objective = (self._log_probs * advantages).mean()
            if entropy_weight != 0.0:
                objective = objective + entropy_weight * self._entropy
            (gradient,) = torch.autograd.grad(objective, self._leaf, retain_graph=True)
        return gradient

    def fisher_product(self, v: Tensor) -> Tensor:
        """Return (H + damping) v. Shape (P,)."""
        region = self.region
        if self._slope is None:  # built once, differentiated again for each product
            old_outputs, old_log_std = self._old
            rows = region.draw(len(self._inputs))
            with torch.enable_grad():
                new = self._forward(self._leaf, self._inputs[rows])
                kl = region.distribution.kl(old_outputs[rows], old_log_std, *new).mean()
                (self._slope,) = torch.autograd.grad(kl, self._leaf, create_graph=True)
        (image,) = torch.autograd.grad(self._slope, self._leaf, v, retain_graph=True)
        return image + region.damping * v

    def solve(self, b: Tensor) -> Tensor:
        """Return (H + damping)⁻¹ b by conjugate gradients. Shape (P,)."""
        region = self.region
        solution, sound = conjugate_gradient(self.fisher_product, b, region.cg_iterations)
        if not sound:
            self.problems += 1
            solution = torch.nan_to_num(solution, nan=0.0, posinf=0.0, neginf=0.0)
        return solution

    def to_radius(self, direction: Tensor, delta: float) -> Tensor:
        """Scale a direction u to √(2δ / u·Hu) u, where the quadratic KL is δ; 0 stays 0."""
        curvature = float(direction.dot(self.fisher_product(direction)))
        if not curvature > 0.0:
            return torch.zeros_like(direction)
        return math.sqrt(2.0 * delta / curvature) * direction

    def surrogate(self, theta: Tensor, advantages: Tensor) -> Tensor:
        """Return E[(π_θ / π_θk - 1) A], the surrogate's gain over θ_k. A scalar."""
        outputs, log_std = self._at(theta)
        log_probs = self.region.distribution.log_prob(outputs, log_std, self.actions)
        return ((log_probs - self._old_log_probs).expm1() * advantages).mean()

    def kl(self, theta: Tensor) -> Tensor:
        """Return mean KL(π_θk ‖ π_θ) over all states. A scalar."""
        return self.region.distribution.kl(*self._old, *self._at(theta)).mean()

    def entropy(self, theta: Tensor) -> Tensor:
        """Return the mean entropy of π_θ. A scalar."""
        return self.region.distribution.entropy(*self._at(theta)).mean()

    def line_search(
        self, step: Tensor, accept: Callable[[Tensor], bool], *, shrink: float, tries: int
    ) -> LineSearch:
        """Take the longest of the steps shrink^j · step, j = 0, 1, ..., that is accepted.

        Args:
            step: x. Shape (P,).
            accept: Says of θ_k + shrink^j x, projected onto its bounds, whether it will do.
            shrink: In (0, 1).
            tries: Steps looked at, at most.
        """
        if not torch.isfinite(step).all():
            self.problems += 1
            return LineSearch(False, 0, 0.0, self.theta)
        for j in range(tries):
            fraction = shrink**j
            theta = self.theta + fraction * step
            self.region.project(theta)
            if accept(theta):
                self.region.write(theta)
                return LineSearch(True, j + 1, fraction, theta)
        return LineSearch(False, tries, 0.0, self.theta)
