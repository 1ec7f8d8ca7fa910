"""The over-parameterised networks of ProxylessNAS: a space's own network, with all candidates on every edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from benchmark.vision.models.nas.pmb import ZERO, MBConv, Shape, WideningNetwork, candidates
from benchmark.vision.models.nas.tree import EDGES, OPS, TreeNetwork, operation
from methods.nas.proxyless.gates import MixedOp, Zero


class Supernet(nn.Module):
    """A network whose `edges`, in the order of the space's edges, are `MixedOp`s."""

    def __init__(self, network: nn.Module, edges: Sequence[MixedOp]) -> None:
        super().__init__()
        self.network = network
        self._edges = tuple(edges)  # a tuple, because the network already holds and names these modules

    @property
    def edges(self) -> tuple[MixedOp, ...]:
        """The edges, in order."""
        return self._edges

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the operations that run."""
        return self.network(images)  # type: ignore[no-any-return] # untyped in torch

    def alphas(self) -> list[Tensor]:
        """The architecture parameters, edge by edge."""
        return [edge.alpha for edge in self.edges]

    def weights(self) -> list[nn.Parameter]:
        """All other parameters."""
        alphas = {id(alpha) for alpha in self.alphas()}
        return [parameter for parameter in self.parameters() if id(parameter) not in alphas]


def pmb(arguments: Mapping[str, Any], classes: int) -> Supernet:
    """The supernet of P-MB; one edge per block."""
    edges: list[MixedOp] = []
    bn_eps = arguments.get("bn_eps", 1e-3)

    def body(number: int, into: int, out: int, stride: int) -> nn.Module:
        del number
        edges.append(
            MixedOp(
                {
                    op: Zero(out - into) if op == ZERO else MBConv(op, into, out, stride, bn_eps)
                    for op in candidates(stride)
                }
            )
        )
        return edges[-1]

    shape = Shape(arguments["widths"], arguments["strides"], arguments.get("stem", 16), bn_eps)
    return Supernet(WideningNetwork(shape, classes, body), edges)


def tree(arguments: Mapping[str, Any], classes: int) -> Supernet:
    """The supernet of P-Tree; twelve edges per block."""
    found: dict[tuple[int, int], MixedOp] = {}

    def edge(block: int, name: str, channels: int) -> nn.Module:
        mixed = MixedOp({op: operation(op, channels) for op in OPS})
        found[block, EDGES.index(name)] = mixed
        return mixed

    network = TreeNetwork(arguments["widths"], classes, arguments.get("stem", 16), edge)
    return Supernet(network, [found[place] for place in sorted(found)])
