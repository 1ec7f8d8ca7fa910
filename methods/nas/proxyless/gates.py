"""The edges of ProxylessNAS: only one or two candidate operations run at a time, and gates train the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """No operation: zeros with the output size of the edge's other operations."""

    def __init__(self, more_channels: int) -> None:
        super().__init__()
        self.more_channels = more_channels

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to zeros [n, c + more, h, w]."""
        return x.new_zeros(x.shape[0], x.shape[1] + self.more_channels, *x.shape[2:])


class Choice(NamedTuple):
    """The operations that run on an edge: the `active` one, and those that are compared with it."""

    active: int
    others: tuple[int, ...] = ()


class MixedOp(nn.Module):
    """The candidates of an edge by name, their architecture parameters `alpha` [k], and the present choice.

    Where other operations run beside the active one, `gates` [k] are part of the graph: y = sum of g_m o_m(x), with g
    one-hot and the outputs of the others held constant. So x and the weights get gradients only from the active path,
    and dL/dg_m = sum(dL/dy o_m).
    """

    def __init__(self, ops: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.ops = nn.ModuleDict(dict(ops))
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(ops)))
        self.choice = Choice(0)
        self.gates: Tensor | None = None
        self.ready: Tensor | None = None

    def choose(self, choice: Choice, gates: Tensor | None = None) -> None:
        """Set the operations that run from now on.

        Where others run beside the active one, `gates` [k] are one-hot, require a gradient and may be a row of a table;
        if none are given, new ones are made.
        """
        self.choice, self.gates = choice, None
        if choice.others:
            own = nn.functional.one_hot(torch.tensor(choice.active), len(self.alpha)).to(self.alpha)
            self.gates = own.requires_grad_() if gates is None else gates

    def forward(self, x: Tensor) -> Tensor:
        """The output of the active operation, or the tensor `ready` while only the layers outside the edges are
        measured."""
        if self.ready is not None:
            return self.ready
        ops = list(self.ops.values())
        y: Tensor = ops[self.choice.active](x)
        if self.gates is None or not self.updates:
            return y
        y = self.gates[self.choice.active].to(y.dtype) * y
        for number in self.choice.others:
            with torch.no_grad():
                other = ops[number](x)
            y = y + self.gates[number].to(y.dtype) * other
        return y

    @property
    def updates(self) -> bool:
        """Whether an architecture step changes this edge: not where the active operation is zero.

        ProxylessNAS's code then runs no other operation either, so it learns nothing about the edge.
        """
        return not isinstance(_active(self, self.choice), Zero)


def _active(edge: MixedOp, choice: Choice) -> nn.Module:
    return list(edge.ops.values())[choice.active]


def stacked(alphas: Sequence[Tensor], widest: int) -> Tensor:
    """All edges' parameters as a table [edges, widest], -inf where an edge has fewer operations. Differentiable."""
    rows = [nn.functional.pad(alpha, (0, widest - len(alpha)), value=-torch.inf) for alpha in alphas]
    return torch.stack(rows)


def shares(table: Tensor, compared: Tensor) -> Tensor:
    """Probabilities [edges, widest]: each edge's softmax over the operations `compared`, zero for others.
    Differentiable.
    """
    return table.masked_fill(~compared, -torch.inf).softmax(-1)


def alpha_gradient(gate_gradient: Tensor, q: Tensor) -> Tensor:
    """dL/dalpha_a = sum over m of dL/dg_m q_m (delta_am - q_a), edge by edge, from dL/dg and the shares q.

    All are [edges, widest]. Source: equation 3 of the paper, and for two paths its section 3.3.
    """
    return q * (gate_gradient - (gate_gradient * q).sum(-1, keepdim=True))


def keep_unsampled(alphas: Sequence[Tensor], before: Tensor, compared: Tensor) -> None:
    """After a step, shift the parameters of the operations `compared`, in place.

    All other operations then have the same probabilities as with the table `before`.
    """
    with torch.no_grad():
        after = stacked(alphas, before.shape[1]).masked_fill(~compared, -torch.inf)
        shift = after.logsumexp(-1) - before.masked_fill(~compared, -torch.inf).logsumexp(-1)
        moves = torch.where(compared, shift[:, None], 0)
        for alpha, move in zip(alphas, moves, strict=True):
            alpha.sub_(move[: len(alpha)])


class Paths:
    """Draws the operations of all edges at once from a host copy of the parameters, without waiting for the device.

    `generator` is on the host. Call `refresh` after every architecture step; only this call waits for the device.
    """

    def __init__(self, edges: Sequence[MixedOp]) -> None:
        self.edges = list(edges)
        self.widest = max(len(edge.alpha) for edge in edges)
        self.refresh()

    def refresh(self) -> None:
        """Copy the parameters again. Waits for the device."""
        table = stacked([edge.alpha.detach() for edge in self.edges], self.widest)
        self.probabilities = table.float().cpu().softmax(1)

    def single(self, count: int, generator: torch.Generator) -> list[list[Choice]]:
        """For each of `count` steps one operation per edge, drawn by its probability."""
        drawn = torch.multinomial(self.probabilities, count, replacement=True, generator=generator)
        return [[Choice(int(op)) for op in step] for step in drawn.T.tolist()]

    def two(self, generator: torch.Generator) -> list[Choice]:
        """On every edge two different operations, drawn by their probabilities; one of them is active, drawn by its
        share."""
        pairs = torch.multinomial(self.probabilities, 2, replacement=False, generator=generator)
        shares = self.probabilities.gather(1, pairs)
        active = torch.multinomial(shares / shares.sum(1, keepdim=True), 1, generator=generator)
        chosen, other = pairs.gather(1, active).flatten().tolist(), pairs.gather(1, 1 - active).flatten().tolist()
        return [Choice(int(a), (int(b),)) for a, b in zip(chosen, other, strict=True)]

    def full(self, generator: torch.Generator) -> list[Choice]:
        """On every edge one active operation, and all others beside it."""
        (active,) = self.single(1, generator)
        return [
            Choice(one.active, tuple(n for n in range(len(edge.alpha)) if n != one.active))
            for one, edge in zip(active, self.edges, strict=True)
        ]

    def strongest(self) -> list[Choice]:
        """On every edge the operation of the largest parameter, the lower number on a tie."""
        return [Choice(int(row.argmax())) for row in self.probabilities]


def choose_all(edges: Sequence[MixedOp], choices: Sequence[Choice]) -> None:
    """Set the operations that run on every edge."""
    for edge, choice in zip(edges, choices, strict=True):
        edge.choose(choice)


class Gates(NamedTuple):
    """The choices of an architecture step, as tables [edges, widest] on the device.

    One-hot gates of the active operations, which require a gradient; the operations that are compared; and those whose
    parameters will move.
    """

    gates: Tensor
    compared: Tensor
    moved: Tensor


def open_gates(edges: Sequence[MixedOp], choices: Sequence[Choice]) -> Gates:
    """Set the operations of every edge, and give all edges gates from one table. Never waits for the device."""
    widest, like = max(len(edge.alpha) for edge in edges), edges[0].alpha
    host = torch.zeros(3, len(edges), widest)
    for row, choice in enumerate(choices):
        host[0, row, choice.active] = 1
        host[1, row, [choice.active, *choice.others]] = 1
        if not isinstance(_active(edges[row], choice), Zero):
            host[2, row] = host[1, row]
    tables = host.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else host
    gates = tables[0].to(like.dtype).detach().requires_grad_()
    for number, (edge, choice) in enumerate(zip(edges, choices, strict=True)):
        edge.choose(choice, gates[number])
    return Gates(gates, tables[1].bool(), tables[2].bool())


def names(edges: Sequence[MixedOp], choices: Sequence[Choice]) -> list[str]:
    """The names of the active operations."""
    return [list(edge.ops)[choice.active] for edge, choice in zip(edges, choices, strict=True)]


def adam(edges: Sequence[MixedOp], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Adam over the parameters of all edges; a parameter without a gradient (None) takes no step."""
    return torch.optim.Adam([edge.alpha for edge in edges], eps=1e-8, foreach=False, **settings)
