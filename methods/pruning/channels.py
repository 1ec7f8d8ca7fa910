"""Which filters stand and fall together: every channel of a network followed from the layer that makes it to all that
take it.

A channel is known by a number. The network's graph (torch.fx) is walked once; each layer notes the numbers of the
channels it takes and gives. Adding two tensors makes one channel of each pair; what cannot be removed (an input pixel's
colour, a logit, a channel on its way through a shuffle) is locked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn import functional

from benchmark.vision.models.repdistiller.layers import channel_shuffle

PASSING = (
    nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip  # one kind a line would hide the list
PASSING_FUNCTIONS = (
    functional.relu, functional.relu6, torch.relu, functional.dropout, functional.max_pool2d, functional.avg_pool2d,
    functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d,
)  # fmt: skip  # same
PASSING_METHODS = ("relu", "relu_", "contiguous")
JOINING = (operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, operator.sub, torch.sub)

Block = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer with weights: the channels it takes and gives, in the order of its weight's axes."""

    module: nn.Module
    takes: tuple[int, ...]
    gives: tuple[int, ...]

    @property
    def depthwise(self) -> bool:
        """Whether each filter sees one channel, its own."""
        return isinstance(self.module, nn.Conv2d) and 1 < self.module.groups == len(self.takes) == len(self.gives)


@dataclass(frozen=True)
class Channels:
    """All layers of a network by name, in the order of the forward pass; equal numbers are one channel.

    `locked` channels cannot be removed; of `balanced` blocks each must keep as many channels as its siblings.
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

    def segments(self, channels: Sequence[int]) -> list[list[int]]:
        """`channels` in pieces of which each must lose its share, so that balanced blocks stay balanced.

        Where the blocks of every grouped convolution cover them evenly, as many equal runs as the least common multiple
        of the groups (NNI's rule); else those that lie in the same blocks.
        """
        partitions = [blocks for blocks in self.balanced if any(set(block) & set(channels) for block in blocks)]
        if not partitions:
            return [list(channels)]
        count = lcm(*(len(blocks) for blocks in partitions))
        if len(channels) % count == 0 and all(sum(blocks, ()) == tuple(channels) for blocks in partitions):
            width = len(channels) // count
            return [list(channels[start : start + width]) for start in range(0, len(channels), width)]
        cells: dict[tuple[int, ...], list[int]] = {}
        places = [{channel: k for k, block in enumerate(blocks) for channel in block} for blocks in partitions]
        for channel in channels:
            cells.setdefault(tuple(place.get(channel, -1) for place in places), []).append(channel)
        return list(cells.values())

    def groups(self) -> list[list[str]]:
        """Convolutions that share channels, largest sets that hang together; those that share none stand alone."""
        found: list[tuple[set[int], list[str]]] = []
        for name in self.convolutions():
            gives = set(self.layers[name].gives)
            touched = [group for group in found if group[0] & gives]
            found = [group for group in found if group not in touched]
            channels = gives.union(*(group[0] for group in touched))
            found.append((channels, [*(member for group in touched for member in group[1]), name]))
        return [names for _, names in found]


def follow(model: nn.Module) -> Channels:
    """The channels of a network. Works on the meta device too.

    Raises ValueError where the network cannot be traced, or holds an operation whose channels cannot be followed.
    """
    try:
        graph = torch.fx.symbolic_trace(model)
    except Exception as error:  # tracing fails in as many ways as forward functions can be written
        raise ValueError(f"the network cannot be traced: {type(error).__name__}: {error}") from error
    walk = _Walk(graph)
    for node in graph.graph.nodes:
        walk.visit(node)
    return walk.result()


@dataclass
class _Walk:
    """The state of one walk: a union-find over channels, and what every node of the graph hands on.

    `flat` are the nodes that hand on [n, features], of which each channel has equally many.
    """

    graph: torch.fx.GraphModule
    parent: list[int] = field(default_factory=list)
    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    locks: list[int] = field(default_factory=list)
    blocks: list[list[list[int]]] = field(default_factory=list)
    flat: set[torch.fx.Node] = field(default_factory=set)
    normalised: dict[str, str] = field(default_factory=dict)

    def visit(self, node: torch.fx.Node) -> None:
        """Note what a node hands on: a list of channels, a tuple of such lists, or None for anything else."""
        rules: dict[str, Callable[[torch.fx.Node], Any]] = {
            "placeholder": self._images,
            "call_module": self._module,
            "call_function": self._function,
            "call_method": self._method,
            "output": self._output,
        }
        if node.op not in rules:
            raise ValueError(f"cannot follow channels through {node.op} {node.target}")
        self.values[node] = rules[node.op](node)
        if any(each in self.flat for each in node.all_input_nodes):
            self.flat.add(node)

    def result(self) -> Channels:
        layers = {
            name: Layer(layer.module, self._roots(layer.takes), self._roots(layer.gives))
            for name, layer in self.layers.items()
        }
        balanced = tuple(tuple(self._roots(block) for block in blocks) for blocks in self.blocks)
        return Channels(layers, frozenset(self._roots(self.locks)), balanced, self.normalised)

    # --- channels --------------------------------------------------------------------------------------------------

    def _new(self, count: int) -> list[int]:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return list(range(first, first + count))

    def _find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def _roots(self, channels: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._find(channel) for channel in channels)

    def _join(self, node: torch.fx.Node, one: list[int], other: list[int]) -> list[int]:
        if len(one) != len(other):
            raise ValueError(f"cannot follow channels through {node}: it joins {len(one)} and {len(other)}")
        for a, b in zip(one, other, strict=True):
            self.parent[self._find(b)] = self._find(a)
        return one

    def _balance(self, channels: list[int], count: int) -> None:
        width = len(channels) // count
        if width == 1:  # none can go and leave its group without any
            self.locks += channels
            return
        self.blocks.append([channels[start : start + width] for start in range(0, len(channels), width)])

    def _of(self, node: torch.fx.Node) -> list[int]:
        """The channels of a node's first operand."""
        value = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], torch.fx.Node) else None
        if not isinstance(value, list):
            raise ValueError(f"cannot follow channels through {node.op} {node.target}: its input has none")
        return value

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _images(self, node: torch.fx.Node) -> list[int] | None:
        if node.args:  # an argument with a default
            return None
        if self.parent:
            raise ValueError(f"cannot follow channels through a second input, {node.target}")
        used_by = [self.graph.get_submodule(str(user.target)) for user in node.users if user.op == "call_module"]
        colours = self._new(next((module.in_channels for module in used_by if isinstance(module, nn.Conv2d)), 3))
        self.locks += colours
        return colours

    def _output(self, node: torch.fx.Node) -> None:
        value = self.values.get(node.args[0]) if isinstance(node.args[0], torch.fx.Node) else None
        if not isinstance(value, list):
            raise ValueError("the network does not return one tensor")
        self.locks += value

    def _module(self, node: torch.fx.Node) -> list[int]:
        name = str(node.target)
        module = self.graph.get_submodule(name)
        takes = self._of(node)
        if isinstance(module, PASSING):
            return takes
        if isinstance(module, nn.Flatten):
            return self._flat(node, module.start_dim)
        if name in self.layers:
            raise ValueError(f"{name} is called twice: its channels cannot be told apart")
        if isinstance(module, nn.Conv2d):
            if module.in_channels != len(takes):
                raise ValueError(f"{name} takes {module.in_channels} channels, but is given {len(takes)}")
            gives = self._convolve(module, takes)
        elif isinstance(module, nn.Linear):
            if module.in_features % len(takes):
                raise ValueError(f"{name} takes {module.in_features} features, no multiple of {len(takes)} channels")
            gives = self._new(module.out_features)
            self.locks += gives
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            if module.num_features != len(takes):
                raise ValueError(f"{name} takes {module.num_features} channels, but is given {len(takes)}")
            gives = takes
            source = node.args[0]
            if isinstance(source, torch.fx.Node) and str(source.target) in self.layers and len(source.users) == 1:
                self.normalised[str(source.target)] = name
        else:
            raise ValueError(f"cannot follow channels through {type(module).__name__} {name}")
        self.layers[name] = Layer(module, tuple(takes), tuple(gives))
        return gives

    def _convolve(self, module: nn.Conv2d, takes: list[int]) -> list[int]:
        if module.groups == 1:
            return self._new(module.out_channels)
        if module.groups == module.in_channels == module.out_channels:
            return takes
        gives = self._new(module.out_channels)
        self._balance(takes, module.groups)
        self._balance(gives, module.groups)
        return gives

    def _function(self, node: torch.fx.Node) -> Any:
        function: Any = node.target
        if function in PASSING_FUNCTIONS:
            return self._of(node)
        if function in JOINING:
            operands = [self.values[each] for each in node.all_input_nodes if self.values[each] is not None]
            if len(operands) == 2 and all(isinstance(each, list) for each in operands):
                return self._join(node, *operands)
            return operands[0] if operands else None  # with a number, or sizes among themselves
        rules = {
            torch.cat: self._cat,
            torch.chunk: self._chunk,
            torch.flatten: lambda node: self._flat(node, _argument(node, 1, "start_dim", 0)),
            torch.mean: self._mean,
            channel_shuffle: self._shuffle,
            operator.getitem: self._item,
        }
        if function is getattr and node.args[1] == "shape":
            return None
        if function not in rules:
            raise ValueError(f"cannot follow channels through {getattr(function, '__name__', function)}")
        return rules[function](node)

    def _method(self, node: torch.fx.Node) -> Any:
        if node.target in PASSING_METHODS:
            return self._of(node)
        if node.target == "chunk":
            return self._chunk(node)
        if node.target == "mean":
            return self._mean(node)
        if node.target == "flatten":
            return self._flat(node, _argument(node, 1, "start_dim", 0))
        if node.target in ("size", "dim"):
            return None
        if node.target in ("view", "reshape") and len(node.args) == 3 and node.args[2] == -1:
            return self._flat(node, 1)
        raise ValueError(f"cannot follow channels through the method {node.target}")

    def _flat(self, node: torch.fx.Node, start: Any) -> list[int]:
        """[n, c, h, w] to [n, c h w]: each channel becomes equally many features."""
        if start not in (1, 2):
            raise ValueError(f"cannot follow channels through a flatten from axis {start}")
        self.flat.add(node)
        return self._of(node)

    def _mean(self, node: torch.fx.Node) -> list[int]:
        axes = _argument(node, 1, "dim", None)
        axes = {axes} if isinstance(axes, int) else set(axes or ())
        if not axes or not (axes <= {2, 3} or axes == {-1, -2}):
            raise ValueError(f"cannot follow channels through a mean over {sorted(axes) or 'all axes'}")
        return self._of(node)

    def _item(self, node: torch.fx.Node) -> Any:
        """A part of a tuple, or of a tensor whose channels are all taken."""
        value, index = self.values[node.all_input_nodes[0]], node.args[1]
        if isinstance(value, tuple):
            return value[index]  # type: ignore[index] # an int
        if value is None or (isinstance(index, tuple) and index[:2] == (slice(None), slice(None))):
            return value
        raise ValueError(f"cannot follow channels through the index {index}")

    def _cat(self, node: torch.fx.Node) -> list[int]:
        axis = _argument(node, 1, "dim", 0)
        if axis != 1:
            raise ValueError(f"cannot follow channels through a cat along axis {axis}")
        operands: Any = _argument(node, 0, "tensors", ())
        if not all(isinstance(self.values.get(each), list) for each in operands):
            raise ValueError(f"cannot follow channels through {node}: one of what it joins has none")
        if any(each in self.flat for each in operands):
            raise ValueError(f"cannot follow channels through {node}: it joins features, not channels")
        return [channel for each in operands for channel in self.values[each]]

    def _chunk(self, node: torch.fx.Node) -> tuple[list[int], ...]:
        """Chunks are cut by position, so a removed channel would move others to the wrong side: all are locked."""
        channels = self._of(node)
        self.locks += channels
        count = int(_argument(node, 1, "chunks", 1))
        axis = _argument(node, 2, "dim", 0)
        if axis != 1:
            raise ValueError(f"cannot follow channels through a chunk along axis {axis}")
        width = -(-len(channels) // count)
        return tuple(channels[start : start + width] for start in range(0, len(channels), width))

    def _shuffle(self, node: torch.fx.Node) -> list[int]:
        """A shuffle permutes by position: all its channels are locked."""
        channels = self._of(node)
        self.locks += channels
        groups = int(_argument(node, 1, "groups", 1))
        order = channel_shuffle(torch.arange(len(channels), device="cpu").view(1, -1, 1, 1), groups).flatten().tolist()
        return [channels[position] for position in order]


def _argument(node: torch.fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
