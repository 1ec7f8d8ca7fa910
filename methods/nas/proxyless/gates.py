"""An edge of ProxylessNAS: candidate operations of which one path, or two, run at a time; and how its architecture
parameters learn from gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """No operation: zeros of the size that the others of its edge give."""

    def __init__(self, more_channels: int) -> None:
        super().__init__()
        self.more_channels = more_channels

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to zeros [n, c + more, h, w]."""
        return x.new_zeros(x.shape[0], x.shape[1] + self.more_channels, *x.shape[2:])


class Choice(NamedTuple):
    """What runs on an edge: the operation that is `active`, and those whose outputs are looked at beside it."""

    active: int
    others: tuple[int, ...] = ()


class MixedOp(nn.Module):
    """The candidates of an edge by name, their architecture parameters `alpha` [k], and what was chosen of them.

    With others beside the active one, `gates` [k] hangs in the graph: y = sum of g_m o_m(x), g one-hot, where what the
    others give is held constant; so x and the weights learn from the active path alone, and dL/dg_m = sum(dL/dy o_m).
    """

    def __init__(self, ops: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.ops = nn.ModuleDict(dict(ops))
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(ops)))
        self.choice = Choice(0)
        self.gates: Tensor | None = None
        self.ready: Tensor | None = None

    def choose(self, choice: Choice, gates: Tensor | None = None) -> None:
        """Take what runs from now on. With others beside it, `gates` [k] are one-hot, require a gradient and may be a
        row of a table; without any given, fresh ones are made."""
        self.choice, self.gates = choice, None
        if choice.others:
            own = nn.functional.one_hot(torch.tensor(choice.active), len(self.alpha)).to(self.alpha)
            self.gates = own.requires_grad_() if gates is None else gates

    def forward(self, x: Tensor) -> Tensor:
        """The output of the active operation; or what lies `ready`, where somebody measures all but the edges."""
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
        """Whether an architecture step changes this edge: not where the active operation is zero. ProxylessNAS's code
        then runs nothing else either, and so learns nothing about the edge."""
        return not isinstance(_active(self, self.choice), Zero)


def _active(edge: MixedOp, choice: Choice) -> nn.Module:
    return list(edge.ops.values())[choice.active]


def stacked(alphas: Sequence[Tensor], widest: int) -> Tensor:
    """The parameters of all edges as a table [edges, widest], -inf where an edge has fewer operations.
    Differentiable."""
    rows = [nn.functional.pad(alpha, (0, widest - len(alpha)), value=-torch.inf) for alpha in alphas]
    return torch.stack(rows)


def shares(table: Tensor, compared: Tensor) -> Tensor:
    """Probabilities [edges, widest]: on every edge the softmax over the operations `compared`, zero for all others.
    Differentiable."""
    return table.masked_fill(~compared, -torch.inf).softmax(-1)


def alpha_gradient(gate_gradient: Tensor, q: Tensor) -> Tensor:
    """dL/dalpha_a = sum over m of dL/dg_m q_m (delta_am - q_a), edge by edge, from dL/dg and the shares q, all [edges,
    widest]: equation 3 of the paper, and of two paths its section 3.3."""
    return q * (gate_gradient - (gate_gradient * q).sum(-1, keepdim=True))


def keep_unsampled(alphas: Sequence[Tensor], before: Tensor, compared: Tensor) -> None:
    """After a step on the parameters of the operations `compared`: shift these so that the probabilities of all others
    are what they were with the table `before`. In place."""
    with torch.no_grad():
        after = stacked(alphas, before.shape[1]).masked_fill(~compared, -torch.inf)
        shift = after.logsumexp(-1) - before.masked_fill(~compared, -torch.inf).logsumexp(-1)
        moves = torch.where(compared, shift[:, None], 0)
        for alpha, move in zip(alphas, moves, strict=True):
            alpha.sub_(move[: len(alpha)])


class Paths:
    """Draws what runs on every edge, from a host copy of the parameters: of all edges at once, the device unasked.

    `generator` is on the host; refresh after every architecture step, which is the one wait for the device.
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
        """For each of `count` steps one operation an edge, drawn by its probability."""
        drawn = torch.multinomial(self.probabilities, count, replacement=True, generator=generator)
        return [[Choice(int(op)) for op in step] for step in drawn.T.tolist()]

    def two(self, generator: torch.Generator) -> list[Choice]:
        """On every edge two different operations, drawn by their probabilities, and one of them active by its share."""
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
    """Set what runs on every edge."""
    for edge, choice in zip(edges, choices, strict=True):
        edge.choose(choice)


class Gates(NamedTuple):
    """What an architecture step decides, as tables [edges, widest] on the device: one-hot gates of the active
    operations, which require a gradient, the operations that are compared, and those whose parameters will move."""

    gates: Tensor
    compared: Tensor
    moved: Tensor


def open_gates(edges: Sequence[MixedOp], choices: Sequence[Choice]) -> Gates:
    """Set what runs on every edge, and hang one table of gates into all of them. Never waits for the device."""
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
    """Adam over the parameters of all edges; one without a gradient (None) counts no step."""
    return torch.optim.Adam([edge.alpha for edge in edges], eps=1e-8, foreach=False, **settings)
