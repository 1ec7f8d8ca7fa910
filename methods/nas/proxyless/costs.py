"""The costs of a space's operations, counted or measured one by one, and how they join a search's loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Bench, Cost, Output
from benchmark.vision.macs import macs
from benchmark.vision.modes import evaluating
from benchmark.vision.switches import switches
from benchmark.vision.training import TrainingError, autocast, seed_everything
from benchmark.vision.training_step import safe_in_channels_last
from methods.nas.params import Costs, CostTable
from methods.nas.proxyless.gates import MixedOp, Zero
from methods.nas.proxyless.supernet import Supernet
from methods.nas.resolve import supernet_of

MICRO = 1e6
"""Costs are in microseconds and microjoules per image, because the multiplicative rule needs numbers above 1."""


class Table(NamedTuple):
    """All costs: for each edge a list by operation, and the cost of the fixed layers."""

    edges: list[list[float]]
    fixed: float

    def at_random(self) -> float:
        """The mean cost of an architecture drawn at random."""
        return self.fixed + math.fsum(math.fsum(row) / len(row) for row in self.edges)

    def of(self, choice: Sequence[int]) -> float:
        """The cost of an architecture, given one operation per edge."""
        return self.fixed + math.fsum(row[op] for row, op in zip(self.edges, choice, strict=True))


# --- counted -----------------------------------------------------------------------------------------------------


def counted(supernet: Supernet) -> Table:
    """MACs of every operation at its own place, for an image of 32 x 32 pixels.

    This runs the network. It changes only the choice of operations on the edges.
    """
    shapes = _inputs(supernet, images=1)
    weight = next(supernet.parameters())

    def of(edge: MixedOp, op: nn.Module) -> float:
        return float(macs(op, torch.zeros(shapes[edge], device=weight.device, dtype=weight.dtype)))

    edges = [[of(edge, op) for op in edge.ops.values()] for edge in supernet.edges]
    images = torch.zeros(1, 3, 32, 32, device=weight.device, dtype=weight.dtype)
    whole = macs(supernet, images)  # hooks count the layers that run: the fixed ones and one operation per edge
    return Table(
        edges, whole - math.fsum(row[edge.choice.active] for row, edge in zip(edges, supernet.edges, strict=True))
    )


def _inputs(supernet: Supernet, images: int) -> dict[MixedOp, torch.Size]:
    """The shape of every edge's input, for a batch."""
    shapes: dict[MixedOp, torch.Size] = {}

    def note(edge: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(edge, MixedOp), "only edges have these hooks"
        shapes[edge] = given[0].shape

    hooks = [edge.register_forward_pre_hook(note) for edge in supernet.edges]
    weight = next(supernet.parameters())
    try:
        with torch.no_grad(), evaluating(supernet):
            supernet(torch.zeros(images, 3, 32, 32, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


# --- measured ----------------------------------------------------------------------------------------------------


def table(bench: Bench, params: CostTable) -> Output:
    """Measure every operation of a space at its own place, as inference runs it, and the layers that all share.

    Operations of one kind and input shape are measured once. Returns `seconds` and `joules` per image, arrays [edges,
    widest] (NaN where an edge has fewer operations), and the same numbers for the fixed layers. Raises TrainingError
    where no meter measures the energy.
    """
    task = params.task
    seed_everything(task.seed)
    supernet = supernet_of(params.space, task.data.classes).to(bench.device).eval()
    layout = torch.channels_last if safe_in_channels_last(supernet, bench.device) else torch.contiguous_format
    supernet.to(memory_format=layout)  # type: ignore[call-overload] # missing in the stub
    numerics = switches(tf32=task.train_precision != "fp32", cudnn_benchmark=True)
    with numerics, torch.no_grad(), autocast(task.train_precision, bench.device):
        shapes = _inputs(supernet, params.batch_size)
        measured = _measure_all(bench, params, _Places(supernet, shapes, layout))
    return _handed_on(measured, _Places(supernet, shapes, layout), params)


class _Places(NamedTuple):
    """A network, the shapes of its edges' inputs, and the memory format."""

    supernet: Supernet
    shapes: Mapping[MixedOp, torch.Size]
    layout: torch.memory_format

    def images(self, edge: MixedOp) -> Tensor:
        """A batch with the shape of an edge's input."""
        device = edge.alpha.device
        return torch.randn(self.shapes[edge], device=device).contiguous(memory_format=self.layout)

    def word(self, edge: MixedOp, op: nn.Module) -> str:
        """A text that identifies an operation's cost: the operation and its input shape."""
        return f"{op!r} on {tuple(self.shapes[edge])}"


def _measure_all(bench: Bench, params: CostTable, places: _Places) -> dict[str, Cost | None]:
    """Costs by the text of `word`; None for an operation that computes nothing. The fixed layers are called 'fixed'."""
    standing: dict[str, tuple[MixedOp, nn.Module]] = {}
    for edge in places.supernet.edges:
        for op in edge.ops.values():
            standing.setdefault(places.word(edge, op), (edge, op))
    found: dict[str, Cost | None] = {}
    for number, (word, (edge, op)) in enumerate(standing.items()):
        nothing = isinstance(op, Zero | nn.Identity)
        found[word] = None if nothing else _measured(bench, partial(_call, op, places.images(edge)), params.seconds)
        bench.progress(number + 1, len(standing) + 1)
    ready: dict[str, Tensor] = {}
    for edge in places.supernet.edges:  # a prepared tensor replaces every edge, so only the fixed layers run
        first = next(iter(edge.ops.values()))
        word = places.word(edge, first)
        if word not in ready:  # equal edges share one tensor, because a deep tree has hundreds of edges
            ready[word] = first(places.images(edge))
        edge.ready = ready[word]
    device = places.supernet.edges[0].alpha.device
    images = torch.randn(params.batch_size, 3, 32, 32, device=device).contiguous(memory_format=places.layout)
    found["fixed"] = _measured(bench, partial(places.supernet, images), params.seconds)
    return found


def _call(op: nn.Module, images: Tensor) -> object:
    return op(images)


def _measured(bench: Bench, call: Callable[[], object], seconds: float) -> Cost:
    """The cost of a call, over as many calls as take `seconds`; two calls before them are the warm-up."""
    call()
    began = time.perf_counter()
    call()
    if bench.device.startswith("cuda"):
        torch.cuda.synchronize()
    once = max(time.perf_counter() - began, 1e-6)
    return bench.cost(call, max(2, math.ceil(seconds / once)))


def _handed_on(measured: Mapping[str, Cost | None], places: _Places, params: CostTable) -> Output:
    unseen = next((cost for cost in measured.values() if cost is not None and math.isnan(cost.joules)), None)
    if unseen is not None:
        raise TrainingError(
            f"the energy of an operation cannot be measured here ({unseen.reason or 'no meter'}): search with "
            "method.costs.kind=macs"
        )
    edges = places.supernet.edges
    widest = max(len(edge.ops) for edge in edges)
    arrays: dict[str, Tensor] = {}
    for name in ("seconds", "joules"):
        found = torch.full((len(edges), widest), math.nan, dtype=torch.float64)
        for row, edge in enumerate(edges):
            for column, op in enumerate(edge.ops.values()):
                cost = measured[places.word(edge, op)]
                found[row, column] = 0.0 if cost is None else getattr(cost, name) / params.batch_size
        arrays[name] = found
        arrays[f"fixed_{name}"] = torch.tensor([_known(measured["fixed"], name) / params.batch_size])
    told = {
        word: {"joules": cost.joules, "ci95_joules": cost.ci95_joules, "seconds": cost.seconds, "calls": cost.n}
        for word, cost in measured.items()
        if cost is not None
    }
    first = next(cost for cost in measured.values() if cost is not None)
    values = {f"fixed_{name}": float(arrays[f"fixed_{name}"]) for name in ("seconds", "joules")}
    details = {"batch_size": params.batch_size, "source": first.source, "grade": first.grade, "costs": told}
    return Output(arrays=arrays, values={**values, "operations": len(told)}, details=details)


def _known(cost: Cost | None, name: str) -> float:
    assert cost is not None, "the fixed layers always compute"
    return float(getattr(cost, name))


def of_arrays(arrays: Mapping[str, Tensor], supernet: Supernet, kind: str) -> Table:
    """The table of a measured output, in microseconds (kind 'latency') or microjoules ('energy') per image."""
    name = {"latency": "seconds", "energy": "joules"}[kind]
    rows = [row[: len(edge.ops)] for row, edge in zip(arrays[name].tolist(), supernet.edges, strict=True)]
    return Table([[MICRO * value for value in row] for row in rows], MICRO * float(arrays[f"fixed_{name}"]))


# --- in the loss -------------------------------------------------------------------------------------------------


class Price:
    """A table as part of a loss: E = fixed + the sum over the edges of their operations' costs, weighted by shares."""

    def __init__(self, table: Table, costs: Costs, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.table = table
        self.costs = costs
        self.reference = table.at_random() if costs.reference is None else costs.reference
        if costs.rule == "multiply" and min(self.reference, table.fixed) <= 1:
            raise TrainingError(
                f"method.costs.rule=multiply needs costs above 1 {UNITS[costs.kind]}, but the fixed layers have "
                f"{table.fixed:g}, the reference {self.reference:g}: use rule=add"
            )
        widest = max(map(len, table.edges), default=0)
        rows = [[*row, *[0.0] * (widest - len(row))] for row in table.edges]
        self._rows = torch.tensor(rows, dtype=dtype, device=device)

    def expected(self, shares: Tensor) -> Tensor:
        """E of the operations that a step compares, by their shares [edges, widest]. Differentiable."""
        return self.table.fixed + (shares * self._rows).sum()

    def joined(self, loss: Tensor, expected: Tensor) -> Tensor:
        """The loss including the cost, by the rule of `costs`; see `Costs`."""
        if self.costs.rule == "add":
            return loss + self.costs.weight * (expected - self.reference) / self.reference
        return self.costs.factor * loss * (expected.log() / math.log(self.reference)) ** self.costs.weight


UNITS = {"macs": "MACs", "latency": "microseconds an image", "energy": "microjoules an image"}
