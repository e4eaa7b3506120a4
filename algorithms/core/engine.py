"""The one place where gradient steps are taken.

A method hands over a module and a *pure* loss of its parameters; the engine makes one function of
gradient, clipping, optimiser, learning-rate schedule and target-network rule, and runs it eagerly,
compiled as a whole, and on a GPU as a recorded graph. All parameters live in one flat vector (each
padded to a multiple of 64 bytes), so that the optimiser is a handful of fused vector operations and
a compiled call takes few arguments. Acting uses the module itself: its parameters are views of the
flat vector.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlfd.algorithms.base import Metrics
from rlfd.algorithms.core.bounds import bounds_of, project
from rlfd.algorithms.core.optimisers import Optimiser
from rlfd.algorithms.core.timing import timed

__all__ = ["Batch", "LossFunction", "Parameters", "TargetRule", "UpdateEngine"]

logger = logging.getLogger("rlfd.engine")

Parameters = dict[str, Tensor]
Batch = dict[str, Tensor]
LossFunction = Callable[[Parameters, Parameters, Batch], tuple[Tensor, dict[str, Tensor]]]
"""(parameters, target parameters, batch) -> (scalar loss, named outputs).

Scalar outputs become metrics; outputs with a batch dimension are returned by `UpdateEngine.step`.
"""

# compiling costs some 10 s, and saves an update up to 2 ms, a recorded one of a GPU 0.2 ms
COMPILE_FROM_UPDATES, COMPILE_FROM_UPDATES_ON_GPU = 10_000, 100_000
WARM_UPS = 3  # calls before a graph is recorded, in which libraries choose and set up their kernels
ALIGN = 16  # float32 entries in 64 bytes


@dataclass(frozen=True, slots=True)
class TargetRule:
    """How target parameters follow: Polyak averaging, or a copy every so many updates.

    Attributes:
        polyak_tau: Fraction taken over. In (0, 1]; ignored when `copy_every` > 0.
        copy_every: Updates between copies; 0 = Polyak averaging.
        polyak_every: Updates between averagings.
    """

    polyak_tau: float = 1.0
    copy_every: int = 0
    polyak_every: int = 1


class UpdateEngine:
    """Owns the parameters of `module`, their optimiser state and their target copy.

    Args:
        module: The network; its parameters become views of the engine's flat vector. Those that
            it has `bounds` for are projected onto them after each step.
        loss: Pure loss function.
        optimiser: How to step.
        target: Rule of the target parameters; None = the loss uses none (it gets the online ones).
        compile: ``on``, ``off``, or ``auto``: on from 10,000 planned updates, on a GPU 100,000, or,
            where fewer were planned, after so many have been taken. Whether an update is compiled
            depends on its number alone, so it is the same in a run that was interrupted. Unless
            ``off``, updates on a GPU are recorded, compiled or not.
        norm_name: What the metric of the gradient's norm is called.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: LossFunction,
        optimiser: Optimiser,
        *,
        target: TargetRule | None = None,
        compile: Literal["auto", "on", "off"] = "auto",
        norm_name: str = "optim/grad_norm",
    ) -> None:
        self._norm_name = norm_name
        self._layout: dict[str, tuple[int, torch.Size]] = {}
        size = 0
        for name, parameter in module.named_parameters():
            self._layout[name] = (size, parameter.shape)
            size += -(-parameter.numel() // ALIGN) * ALIGN
        self._bounds = bounds_of(module)
        first = next(module.parameters())
        self._flat = torch.zeros(size, dtype=first.dtype, device=first.device)
        views = self.views(self._flat)
        for name, parameter in module.named_parameters():
            views[name].copy_(parameter.detach())
            parameter.requires_grad_(False)
            parameter.data = views[name]
        self._first_moment = torch.zeros_like(self._flat)
        self._second_moment = torch.zeros_like(self._flat)
        self._target = self._flat.clone() if target is not None else self._flat
        self._count = 0
        # What changes from step to step is worked out by the caller: inside, the compiler would
        # repeat two powers and a remainder for every 16 parameters.
        self._coefficients = torch.zeros(3, dtype=first.dtype, device=first.device)
        self._loss, self._optimiser, self._rule = loss, optimiser, target
        self._names: list[str] = []
        self._outputs: list[str] = []
        self._totals = torch.zeros(0)
        self._pending = 0
        on_gpu = first.device.type == "cuda"
        least = COMPILE_FROM_UPDATES_ON_GPU if on_gpu else COMPILE_FROM_UPDATES
        pays = optimiser.planned_updates >= least
        self._compile_from = {"on": 0, "off": math.inf, "auto": 0 if pays else least}[compile]
        self._record = compile != "off" and on_gpu
        self._compile = False  # the update that is being taken
        self._calls: dict[bool, Callable[..., list[Tensor]]] = {}  # not compiled, and compiled
        self._family = [self]  # all that step these parameters, their owner first

    def sibling(self, loss: LossFunction, *, norm_name: str) -> UpdateEngine:
        """Return an engine that takes steps of another loss, to be mixed with this one's.

        Both share parameters and moments, and Adam's corrections count the steps of both. The
        learning rate follows this engine's own steps: the other's do not shorten the schedule.

        Args:
            loss: Pure loss function of the same module.
            norm_name: What its metric of the gradient's norm is called.
        """
        other = copy.copy(self)
        other._loss, other._norm_name = loss, norm_name
        other._names, other._outputs, other._totals = [], [], torch.zeros(0)
        other._count, other._pending, other._calls = 0, 0, {}
        self._family.append(other)
        return other

    def views(self, flat: Tensor) -> Parameters:
        """Return a flat vector's parts by name."""
        return {
            name: flat[offset : offset + shape.numel()].view(shape)
            for name, (offset, shape) in self._layout.items()
        }

    @property
    def parameters(self) -> Parameters:
        """The online parameters by name (views: they change with every step)."""
        return self.views(self._flat)

    @property
    def flat(self) -> Tensor:
        """All online parameters as one vector, for `views` of another engine's loss."""
        return self._flat

    @property
    def target_flat(self) -> Tensor:
        """All target parameters as one vector."""
        return self._target

    @property
    def count(self) -> int:
        """Steps taken so far, siblings' left out."""
        return self._count

    @property
    def target_parameters(self) -> Parameters:
        """The target parameters by name (views)."""
        return self.views(self._target)

    def _update(
        self,
        flat: Tensor,
        target: Tensor,
        first_moment: Tensor,
        second_moment: Tensor,
        coefficients: Tensor,
        totals: Tensor,
        batch: Batch,
    ) -> list[Tensor]:
        """Take one step in place; return the outputs that have a batch dimension."""
        gradients, outputs = self._differentiate(self.views(flat), self.views(target), batch)
        gradient = torch.cat(
            [
                F.pad(gradients[name].reshape(-1), (0, -shape.numel() % ALIGN))
                for name, (_, shape) in self._layout.items()
            ]
        )
        norm = torch.linalg.vector_norm(gradient)
        if (limit := self._optimiser.max_grad_norm) > 0:
            gradient = gradient * (limit / (norm + 1e-6)).clamp(max=1.0)

        scale, root, take_over = coefficients.unbind()
        step, first, second = self._optimiser.step(
            gradient, first_moment, second_moment, scale, root
        )
        updated = flat - step
        project(self.views(updated), self._bounds)

        if self._rule is not None and self._rule.copy_every == 0:
            target.copy_(torch.lerp(target, updated, take_over))
        # Everything above reads old values only; writing last keeps that true when compiled.
        flat.copy_(updated)
        first_moment.copy_(first)
        second_moment.copy_(second)
        scalars = [outputs[name].detach().to(totals.dtype) for name in self._names]
        totals.add_(torch.stack([*scalars, norm.to(totals.dtype)]))
        return [outputs[name].detach() for name in self._outputs]

    def _differentiate(
        self, parameters: Parameters, target: Parameters, batch: Batch
    ) -> tuple[Parameters, dict[str, Tensor]]:
        """Return the loss's gradients and outputs.

        The transformation is for the compiler; eagerly it takes twice as long as the tape does.
        """
        if self._compile:
            transformed = torch.func.grad_and_value(self._loss, has_aux=True)
            gradients, (_, outputs) = transformed(parameters, target, batch)
            return gradients, outputs
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad():
            loss, outputs = self._loss(leaves, target, batch)
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, slopes, strict=True)), outputs

    def _steps_of_all(self) -> int:
        return sum(engine.count for engine in self._family)

    def _set_coefficients(self) -> None:
        """Write step size, root of the bias correction, and what an averaged target takes over."""
        before = self._steps_of_all()
        divisor, root = self._optimiser.corrections(before)
        take_over = 0.0
        if (rule := self._rule) is not None:
            take_over = rule.polyak_tau * ((before + 1) % rule.polyak_every == 0)
        rate = self._optimiser.rate(self._family[0].count)
        # a tensor of all three would have to be copied to a GPU, which waits for what runs there
        values = (rate / divisor, root, take_over)
        for place, value in zip(self._coefficients.unbind(), values, strict=True):
            place.fill_(value)

    def _learn_names(self, batch: Batch) -> None:
        """Learn the outputs' names from a dry run of the loss."""
        with torch.no_grad():
            _, outputs = self._loss(self.parameters, self.target_parameters, batch)
        self._names = [name for name, value in outputs.items() if value.ndim == 0]
        self._outputs = [name for name, value in outputs.items() if value.ndim > 0]
        self._totals = torch.zeros(
            len(self._names) + 1, dtype=torch.float64, device=self._flat.device
        )

    def _made(self) -> Callable[..., list[Tensor]]:
        """Return the update as it is to be called: compiled and recorded as wanted."""
        made = self._update
        if self._compile:
            # the C++ wrapper saves about 70 us of Python per call
            options: dict[str, Any] = {"cpp_wrapper": self._flat.device.type == "cpu"}
            made = _compile(made, options)
        return _Graphs(made) if self._record else made

    @timed("update")
    @torch.no_grad()
    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step.

        Args:
            batch: Tensors that the loss reads. Each new set of shapes is compiled or recorded anew.

        Returns:
            The loss's outputs that have a batch dimension, by name.
        """
        if not self._calls:
            self._learn_names(batch)
        self._compile = self._count >= self._compile_from
        first_call = self._compile not in self._calls
        if first_call:
            self._calls[self._compile] = self._made()
        self._set_coefficients()
        state = (
            self._flat,
            self._target,
            self._first_moment,
            self._second_moment,
            self._coefficients,
            self._totals,
        )
        try:
            outputs = self._calls[self._compile](*state, batch)
        except Exception as error:
            # Compilation happens before anything runs, so nothing has been changed yet.
            if not (first_call and self._compile and _is_compiler_problem(error)):
                raise
            warnings.warn(
                f"cannot compile updates ({type(error).__name__}), continuing eagerly and slower; "
                "install a C++ compiler or pass --compile off",
                stacklevel=2,
            )
            self._compile, self._compile_from = False, math.inf
            self._calls[False] = self._calls.get(False) or self._made()
            outputs = self._calls[False](*state, batch)
        self._count += 1
        self._pending += 1
        every = self._rule.copy_every if self._rule is not None else 0
        if every > 0 and self._steps_of_all() % every == 0:
            self._target.copy_(self._flat)
        return dict(zip(self._outputs, outputs, strict=True))

    def drain(self) -> Metrics:
        """Return the metrics' means over the steps since the last call; empty without steps."""
        if self._pending == 0:
            return {}
        means = (self._totals / self._pending).unbind()
        self._totals.zero_()
        self._pending = 0
        return dict(zip([*self._names, self._norm_name], means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, target parameters, moments and step count. Call after `drain`.

        A sibling's state is its step count, the rest being its owner's.
        """
        count = torch.tensor([self._count], dtype=torch.float64)
        if self._family[0] is not self:
            return {"count": count}
        return {
            "parameters": _clone(self.parameters),
            "target": _clone(self.target_parameters) if self._rule is not None else {},
            "first_moment": _clone(self.views(self._first_moment)),
            "second_moment": _clone(self.views(self._second_moment)),
            "count": count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in place."""
        self._count = int(state["count"])
        if self._family[0] is not self:
            return
        _copy(self.parameters, state["parameters"])
        project(self.parameters, self._bounds)
        if self._rule is not None:
            _copy(self.target_parameters, state["target"])
        _copy(self.views(self._first_moment), state["first_moment"])
        _copy(self.views(self._second_moment), state["second_moment"])

    def load_parameters(self, parameters: Parameters) -> None:
        """Replace the online parameters, and with them the target's."""
        _copy(self.parameters, parameters)
        project(self.parameters, self._bounds)
        _copy(self.target_parameters, self.parameters)


class _Graphs:
    """A function that changes its state in place, recorded as one CUDA graph for each shape.

    Playing a graph again launches its kernels without Python, which takes longer to launch them one
    by one than the GPU takes to run them. What the function reads and returns has a fixed place
    in a graph: a batch is copied to its own, and outputs are copied from theirs.

    Args:
        function: Of tensors of state and a batch; it may not wait for the GPU.
    """

    def __init__(self, function: Callable[..., list[Tensor]]) -> None:
        self._function = function
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Batch, list[Tensor]]] = {}

    def __call__(self, *arguments: Any) -> list[Tensor]:
        """Call the function with its state and, last, a batch."""
        *state, batch = arguments
        shapes = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        if shapes not in self._recorded:
            self._recorded[shapes] = self._recording(state, batch)
        graph, inputs, outputs = self._recorded[shapes]
        for name, value in batch.items():
            inputs[name].copy_(value)
        graph.replay()
        return [output.clone() for output in outputs]

    def _recording(
        self, state: list[Tensor], batch: Batch
    ) -> tuple[torch.cuda.CUDAGraph, Batch, list[Tensor]]:
        device = state[0].device
        inputs = {name: value.to(device, copy=True) for name, value in batch.items()}
        before = [value.clone() for value in state]
        beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                self._function(*state, inputs)
        torch.cuda.current_stream(device).wait_stream(beside)
        for value, kept in zip(state, before, strict=True):
            value.copy_(kept)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._function(*state, inputs)
        return graph, inputs, outputs


def _compile(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Compile as a whole; at each call, check the batch's shapes only.

    All other arguments belong to the engine and keep their place and shape. Checking them too takes
    a fifth of a small update. It is safe to leave out where compiled code is kept for each engine.
    """
    extra: dict[str, Any] = {}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:  # torch >= 2.13
        extra["isolate_recompiles"] = True
        options["guard_filter_fn"] = lambda guards: ["batch" in guard.name for guard in guards]
    return torch.compile(function, fullgraph=True, dynamic=False, options=options, **extra)


def _clone(parameters: Parameters) -> Parameters:
    return {name: value.clone() for name, value in parameters.items()}


def _copy(into: Parameters, source: Parameters) -> None:
    if into.keys() != source.keys():
        missing = sorted(into.keys() ^ source.keys())
        raise ValueError(f"parameters do not match, differing names: {', '.join(missing)}")
    for name, value in into.items():
        value.copy_(source[name])


def _is_compiler_problem(error: Exception) -> bool:
    module = type(error).__module__
    return module.startswith(("torch._inductor", "torch._dynamo")) or isinstance(error, OSError)
