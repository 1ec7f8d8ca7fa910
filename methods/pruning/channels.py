"""Which filters must be removed together: the layers of a network, and the channels that each takes and gives.

Each channel has a number: equal numbers mean one channel, wherever they appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import gcd, lcm

from torch import nn

Block = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer with weights: the channels it takes and gives, in the order of its weight's axes."""

    module: nn.Module
    takes: tuple[int, ...]
    gives: tuple[int, ...]

    @property
    def depthwise(self) -> bool:
        """Whether each filter sees only one channel, its own."""
        return isinstance(self.module, nn.Conv2d) and 1 < self.module.groups == len(self.takes) == len(self.gives)


@dataclass(frozen=True)
class Channels:
    """All layers of a network by name, in the order of the forward pass; equal numbers mean one channel.

    `locked` channels cannot be removed. Each of the `balanced` blocks must keep as many channels as its siblings.
    `normalised` names the batch norm that directly follows a convolution.
    """

    layers: dict[str, Layer]
    locked: frozenset[int]
    balanced: tuple[tuple[Block, ...], ...]
    normalised: dict[str, str]

    def convolutions(self) -> list[str]:
        """The names of all convolutions, in the order of the forward pass."""
        return [name for name, layer in self.layers.items() if isinstance(layer.module, nn.Conv2d)]

    def removable(self, name: str) -> bool:
        """Whether filters of this convolution can be removed at all."""
        return self.locked.isdisjoint(self.layers[name].gives)

    def pieces(self, families: Sequence[Sequence[int]]) -> list[list[tuple[Block, int]]]:
        """Each family in pieces (channels, unit), so that balanced blocks stay balanced.

        From every `unit` channels of a piece the same number must be removed. If the blocks of every grouped
        convolution cover a family evenly, the pieces are as many equal runs as the least common multiple of the groups
        (NNI's rule). If blocks cut through families, a piece holds the channels that lie in the same blocks. All pieces
        that are connected in this way have one unit, the greatest common divisor of their sizes.
        """
        found, cut = [], []
        for number, family in enumerate(families):
            over = {k for k, blocks in enumerate(self.balanced) if not set(family).isdisjoint(chain(*blocks))}
            count = lcm(*(len(self.balanced[k]) for k in over))
            width = len(family) // count
            even = all(tuple(chain(*self.balanced[k])) == tuple(family) for k in over) and len(family) % count == 0
            if even:
                pieces = [tuple(family[start : start + width]) for start in range(0, len(family), width)]
            else:
                pieces = self._cells(family, over)
                cut.append((number, over))
            found.append([(piece, width) for piece in pieces])
        for knot in _knots(cut):
            unit = gcd(*(len(piece) for number in knot for piece, _ in found[number]))
            for number in knot:
                found[number] = [(piece, unit) for piece, _ in found[number]]
        return found

    def _cells(self, family: Sequence[int], over: set[int]) -> list[Block]:
        """The channels of a family, grouped by the blocks that hold them, for the balanced sets `over`."""
        places = [{channel: k for k, block in enumerate(self.balanced[s]) for channel in block} for s in sorted(over)]
        cells: dict[tuple[int, ...], list[int]] = {}
        for channel in family:
            cells.setdefault(tuple(place.get(channel, -1) for place in places), []).append(channel)
        return [tuple(cell) for cell in cells.values()]

    def groups(self) -> list[list[str]]:
        """The largest connected sets of convolutions that share channels; a convolution that shares none is a set
        alone."""
        found: list[tuple[set[int], list[str]]] = []
        for name in self.convolutions():
            gives = set(self.layers[name].gives)
            touched = [group for group in found if group[0] & gives]
            found = [group for group in found if group not in touched]
            channels = gives.union(*(group[0] for group in touched))
            found.append((channels, [*(member for group in touched for member in group[1]), name]))
        return [names for _, names in found]


def _knots(cut: Sequence[tuple[int, set[int]]]) -> list[list[int]]:
    """Sets of families (by number) that the same balanced sets, or a chain of them, cut through."""
    knots: list[tuple[set[int], list[int]]] = []
    for number, over in cut:
        tied = [knot for knot in knots if knot[0] & over]
        knots = [knot for knot in knots if knot not in tied]
        knots.append((over.union(*(knot[0] for knot in tied)), [*chain(*(knot[1] for knot in tied)), number]))
    return [numbers for _, numbers in knots]
