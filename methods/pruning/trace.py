"""Finds the channels of a network: walks its torch.fx graph once, from the layer that makes a channel to all users.

Each layer notes the numbers of the channels that it takes and gives. Adding two tensors makes one channel of each pair.
Channels that cannot be removed (an input pixel's colour, a logit, a channel that goes through a shuffle) are locked. An
operation is refused where it could move channels against each other, or use their number as a value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from benchmark.vision.models.repdistiller.layers import channel_shuffle
from methods.pruning.channels import Channels, Layer

PASSING = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh,
    nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d,
)  # fmt: skip # one type per line would hide the list
"""What leaves channels apart, and an empty one empty, which a sigmoid does not."""

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.Flatten)
POOLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PASSING_FUNCTIONS = (
    functional.relu, functional.relu6, torch.relu, functional.leaky_relu, functional.elu, functional.gelu,
    functional.silu, functional.mish, functional.hardswish, functional.hardtanh, torch.tanh,
    functional.dropout, functional.max_pool2d, functional.avg_pool2d,
)  # fmt: skip  # same
POOLING_FUNCTIONS = (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)
PASSING_METHODS = ("relu", "relu_", "contiguous")
JOINING = (operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, operator.sub, torch.sub)

FULL = slice(None)


@dataclass(frozen=True)
class Flow:
    """A tensor in the graph: its channels along axis 1, and its number of axes.

    `point`: every axis behind the channels has length 1. `loose`: each channel has become the same number of features,
    and this number is unknown.
    """

    channels: list[int]
    rank: int = 4
    point: bool = False
    loose: bool = False


@dataclass(frozen=True)
class Sizes:
    """The shape of a tensor, of which only the number of axes is known."""

    rank: int


@dataclass(frozen=True)
class Length:
    """The length of an axis without channels: of the batch, or of a map."""

    batch: bool


def follow(model: nn.Module) -> Channels:
    """The channels of a network. Runs on the meta device too.

    Raises ValueError where the network cannot be traced, or holds an operation whose channels cannot be followed.
    """
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and not isinstance(weight, nn.Parameter) and not is_parametrized(layer):
            raise ValueError(
                f"layer {name} makes its weight anew at every call (weight_norm or spectral_norm by hooks): remove "
                "that first (torch.nn.utils.remove_weight_norm or remove_spectral_norm)"
            )
    try:
        graph = torch.fx.symbolic_trace(model)
    except Exception as error:  # tracing can fail in any way, depending on the forward function
        raise ValueError(f"the network cannot be traced: {type(error).__name__}: {error}") from error
    walk = _Walk(graph)
    for node in graph.graph.nodes:
        walk.visit(node)
    return walk.result()


@dataclass
class _Walk:
    """The state of one walk: a union-find over channels, and the result of every node of the graph."""

    graph: torch.fx.GraphModule
    parent: list[int] = field(default_factory=list)
    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    locks: list[int] = field(default_factory=list)
    blocks: list[list[list[int]]] = field(default_factory=list)
    normalised: dict[str, str] = field(default_factory=dict)

    def visit(self, node: torch.fx.Node) -> None:
        """Note the result of a node: a Flow, a tuple of them, Sizes, a Length, or None for a default argument."""
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

    def result(self) -> Channels:
        """The result; all channels that were joined have one number."""
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

    def _balance(self, channels: list[int], count: int) -> None:
        width = len(channels) // count
        if width == 1:  # removing one would leave its group empty
            self.locks += channels
            return
        self.blocks.append([channels[start : start + width] for start in range(0, len(channels), width)])

    def _of(self, node: torch.fx.Node) -> Flow:
        """The result of a node's first operand."""
        value = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], torch.fx.Node) else None
        if not isinstance(value, Flow):
            raise _lost(node, "its input has none")
        return value

    # --- layers ----------------------------------------------------------------------------------------------------

    def _images(self, node: torch.fx.Node) -> Flow | None:
        if node.args:  # an argument with a default
            return None
        if self.parent:
            raise _lost(node, "it is a second input")
        used_by = [self.graph.get_submodule(str(user.target)) for user in node.users if user.op == "call_module"]
        colours = self._new(next((module.in_channels for module in used_by if isinstance(module, nn.Conv2d)), 3))
        self.locks += colours
        return Flow(colours)

    def _output(self, node: torch.fx.Node) -> None:
        value = self.values.get(node.args[0]) if isinstance(node.args[0], torch.fx.Node) else None
        if not isinstance(value, Flow):
            raise ValueError("the network does not return one tensor")
        self.locks += value.channels

    def _module(self, node: torch.fx.Node) -> Flow:
        name = str(node.target)
        module = self.graph.get_submodule(name)
        value = self._of(node)
        if isinstance(module, PASSING):
            return value
        if isinstance(module, POOLING):
            return _pooled(value, module.output_size)
        if isinstance(module, nn.Flatten):
            return self._flatten(node, module.start_dim, module.end_dim)
        if name in self.layers:
            raise ValueError(f"{name} is called twice: its channels cannot be told apart")
        takes = value.channels
        if isinstance(module, nn.Conv2d):
            _fits(name, module.in_channels, takes)
            given = Flow(self._convolve(module, takes))
        elif isinstance(module, nn.Linear):
            if value.rank != 2 or module.in_features % len(takes):
                raise ValueError(
                    f"{name} takes {module.in_features} features, which is not a multiple of {len(takes)} channels"
                )
            given = Flow(self._new(module.out_features), rank=2)
            self.locks += given.channels
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            _fits(name, module.num_features, takes)
            given = value
            source = node.args[0]
            if isinstance(source, torch.fx.Node) and str(source.target) in self.layers and len(source.users) == 1:
                self.normalised[str(source.target)] = name
        else:
            known = sorted({each.__name__ for each in (*PASSING, *POOLING, *LAYERS)})
            raise _lost(node, f"nothing is known of {type(module).__name__} (known layers: {', '.join(known)})")
        self.layers[name] = Layer(module, tuple(takes), tuple(given.channels))
        return given

    def _convolve(self, module: nn.Conv2d, takes: list[int]) -> list[int]:
        if module.groups == 1:
            return self._new(module.out_channels)
        if module.groups == module.in_channels == module.out_channels:
            return takes
        gives = self._new(module.out_channels)
        self._balance(takes, module.groups)
        self._balance(gives, module.groups)
        return gives

    # --- functions and methods -------------------------------------------------------------------------------------

    def _function(self, node: torch.fx.Node) -> Any:
        function: Any = node.target
        if function in PASSING_FUNCTIONS:
            return self._of(node)
        if function in POOLING_FUNCTIONS:
            return _pooled(self._of(node), _argument(node, 1, "output_size", None))
        if function in JOINING:
            return self._join(node)
        if function is getattr and node.args[1] == "shape":
            return Sizes(self._of(node).rank)
        rules: dict[Any, Callable[[torch.fx.Node], Any]] = {
            torch.cat: self._cat,
            torch.chunk: self._chunk,
            torch.flatten: self._flatten_call,
            torch.mean: self._mean,
            channel_shuffle: self._shuffle,
            operator.getitem: self._item,
        }
        if function not in rules:
            raise _lost(node, f"nothing is known of {getattr(function, '__name__', function)}")
        return rules[function](node)

    def _method(self, node: torch.fx.Node) -> Any:
        if node.target in PASSING_METHODS:
            return self._of(node)
        if node.target == "dim":
            return None
        rules: dict[Any, Callable[[torch.fx.Node], Any]] = {
            "chunk": self._chunk,
            "mean": self._mean,
            "flatten": self._flatten_call,
            "size": self._size,
            "view": self._view,
            "reshape": self._view,
        }
        if node.target not in rules:
            raise _lost(node, f"nothing is known of the method {node.target}")
        return rules[node.target](node)

    def _join(self, node: torch.fx.Node) -> Flow:
        """An operation on two tensors, channel by channel, or on a tensor and a number."""
        operands = [self.values[each] for each in node.all_input_nodes]
        flows: list[Flow] = [each for each in operands if isinstance(each, Flow)]
        if not flows or len(flows) != len(node.all_input_nodes):
            raise _lost(node, "it calculates with a length")
        one, other = flows[0], flows[-1]
        if (len(one.channels), one.rank) != (len(other.channels), other.rank):
            raise _lost(node, f"it joins {len(one.channels)} and {len(other.channels)}")
        for a, b in zip(one.channels, other.channels, strict=True):
            self.parent[self._find(b)] = self._find(a)
        point, loose = one.point and other.point, one.loose or other.loose
        return Flow(one.channels, one.rank, point, loose)

    def _flatten_call(self, node: torch.fx.Node) -> Flow:
        return self._flatten(node, _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))

    def _flatten(self, node: torch.fx.Node, start: Any, end: Any) -> Flow:
        """[n, c, h, w] to [n, c h w], where each channel becomes the same number of features; or to [n, c, h w]."""
        value = self._of(node)
        first = start % value.rank
        if first == 0 or end % value.rank != value.rank - 1:
            raise _lost(node, f"it flattens from axis {start} to {end}")
        if first > 1 or value.rank == 2:
            return replace(value, rank=min(value.rank, first + 1))
        return Flow(value.channels, rank=2, loose=not value.point)

    def _view(self, node: torch.fx.Node) -> Flow:
        wanted = [self.values[each] if isinstance(each, torch.fx.Node) else each for each in node.args[1:]]
        if wanted != [Length(batch=True), -1]:
            raise _lost(node, f"of all {node.target}s only x.{node.target}(x.size(0), -1) is known")
        return self._flatten(node, 1, -1)

    def _mean(self, node: torch.fx.Node) -> Flow:
        value = self._of(node)
        given = _argument(node, 1, "dim", node.kwargs.get("axis"))
        axes = {axis % value.rank for axis in ([given] if isinstance(given, int) else given or range(value.rank))}
        if axes & {0, 1}:
            raise _lost(node, f"it is a mean over the axes {sorted(axes)}")
        point = value.point or axes == set(range(2, value.rank))
        if _argument(node, 2, "keepdim", False):
            return replace(value, point=point)
        return replace(value, rank=value.rank - len(axes), point=point)

    def _size(self, node: torch.fx.Node) -> Sizes | Length:
        sizes, axis = Sizes(self._of(node).rank), _argument(node, 1, "dim", None)
        return sizes if axis is None else self._length(node, sizes, axis)

    def _length(self, node: torch.fx.Node, sizes: Sizes, index: Any) -> Any:
        axes = range(sizes.rank)[index]
        if axes == 1 or (isinstance(axes, range) and 1 in axes):
            raise _lost(node, "the number of channels becomes a value")
        return Length(batch=axes == 0)

    def _item(self, node: torch.fx.Node) -> Any:
        """A part of a tuple, a length of a shape, or a part of a tensor that keeps all channels."""
        value, index = self.values[node.all_input_nodes[0]], node.args[1]
        if isinstance(value, tuple):
            return value[index]  # type: ignore[index] # an int
        if isinstance(value, Sizes):
            return self._length(node, value, index)
        if not isinstance(index, tuple) or index[:2] != (FULL, FULL):
            raise _lost(node, f"it takes the part {index}")
        if not all(isinstance(each, int | slice) for each in index):
            raise _lost(node, f"it takes the part {index}")
        return replace(value, rank=value.rank - sum(isinstance(each, int) for each in index))

    def _cat(self, node: torch.fx.Node) -> Flow:
        operands: Any = _argument(node, 0, "tensors", ())
        parts = [self.values.get(each) for each in operands] if isinstance(operands, list | tuple) else []
        flows = [part for part in parts if isinstance(part, Flow)]
        if not flows or len(flows) != len(parts):
            raise _lost(node, "one of the tensors that it joins has none")
        axis, rank = _argument(node, 1, "dim", 0), flows[0].rank
        if axis % rank != 1:
            raise _lost(node, f"it joins along axis {axis}")
        if any(flow.loose for flow in flows):
            raise _lost(node, "it joins features, not channels")
        return Flow([channel for flow in flows for channel in flow.channels], rank, all(flow.point for flow in flows))

    def _chunk(self, node: torch.fx.Node) -> tuple[Flow, ...]:
        """Lock all channels: chunks are cut by position, so a removed channel would move others to the wrong side."""
        value = self._of(node)
        channels = value.channels
        self.locks += channels
        count, axis = int(_argument(node, 1, "chunks", 1)), _argument(node, 2, "dim", 0)
        if axis % value.rank != 1:
            raise _lost(node, f"it cuts along axis {axis}")
        width = -(-len(channels) // count)
        parts = [channels[start : start + width] for start in range(0, len(channels), width)]
        return tuple(replace(value, channels=part) for part in parts)

    def _shuffle(self, node: torch.fx.Node) -> Flow:
        """Lock all channels, because a shuffle permutes by position."""
        value = self._of(node)
        self.locks += value.channels
        groups, count = int(_argument(node, 1, "groups", 1)), len(value.channels)
        order = channel_shuffle(torch.arange(count, device="cpu").view(1, -1, 1, 1), groups).flatten().tolist()
        return replace(value, channels=[value.channels[position] for position in order])


def _lost(node: torch.fx.Node, why: str) -> ValueError:
    return ValueError(f"cannot follow channels through {node.name}: {why}")


def _fits(name: str, wanted: int, channels: list[int]) -> None:
    if wanted != len(channels):
        raise ValueError(f"{name} takes {wanted} channels, but is given {len(channels)}")


def _pooled(value: Flow, size: Any) -> Flow:
    return replace(value, point=size in (1, (1, 1), [1, 1]))


def _argument(node: torch.fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
