"""Where Q/DQ pairs stand in a graph: which tensors are quantized, and the same scales in two layouts.

Both layouts have a pair on the data input of every convolution and linear layer, and on one branch of each residual
addition. The other branch, which ends in a convolution, can then be fused with the addition. TensorRT (`trt`) needs no
more. ONNX Runtime (`ort`) finds an integer convolution only between pairs. So in `ort` the other branch has a pair with
its own scale, and a tensor's pair stands a second time before the ReLU or max pooling that makes the tensor. The second
pair changes no number, because rounding keeps the order and zero. int8 throughout, zero point 0, biases in float32.
Source: NVIDIA's rules for explicit quantization; experiments in deploy.md and quant_golden.md of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmark.deploy.quantization.scales import weight_codes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Array = np.ndarray[Any, Any]

LAYERS = ("Conv", "Gemm", "MatMul")
KEEPS_ORDER = ("Relu", "MaxPool")
"""Operators f with Q(f(Q(x))) = Q(f(x)) for one scale."""


class Targets(NamedTuple):
    """The quantized tensors of a graph, in the graph's order.

    `shared` are those of both layouts, `own` those of `ort` alone. `weights` holds the output-channel axis of each
    weight.
    """

    shared: tuple[str, ...]
    own: tuple[str, ...]
    weights: Mapping[str, int]

    @property
    def all(self) -> tuple[str, ...]:
        """Every activation for which either layout needs a scale."""
        return self.shared + self.own


class Read(NamedTuple):
    """A node that reads a quantized tensor as its input number `slot`; in `ort` alone where not `shared`."""

    node: NodeProto
    slot: int
    shared: bool


def targets(model: ModelProto) -> Targets:
    """The tensors to quantize in an fp32 graph."""
    found = list(reads(model.graph))
    shared = dict.fromkeys(read.node.input[read.slot] for read in found if read.shared)
    own = dict.fromkeys(read.node.input[read.slot] for read in found if not read.shared)
    weights = {node.input[1]: _axis(node) for node in _layers(model.graph)}
    return Targets(tuple(shared), tuple(name for name in own if name not in shared), weights)


def _layers(graph: GraphProto) -> Iterator[NodeProto]:
    """Convolutions and linear layers whose weight is a constant."""
    constant = _constants(graph)
    return (node for node in graph.node if node.op_type in LAYERS and node.input[1] in constant)


def _constants(graph: GraphProto) -> set[str]:
    made = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return {each.name for each in graph.initializer} | made


def _axis(node: NodeProto) -> int:
    """The axis of a weight that holds output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1


def reads(graph: GraphProto) -> Iterator[Read]:
    """Every reading of a quantized tensor, in the order of the graph: data inputs of layers, and the branches of
    residual additions."""
    constant = _constants(graph)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    layers = {node.output[0] for node in _layers(graph)}
    read = {node.input[0] for node in graph.node if node.output[0] in layers}
    for node in graph.node:
        if node.output[0] in layers:
            yield Read(node, 0, shared=True)
        elif node.op_type == "Add" and not constant.intersection(node.input):
            quantized = _branch([made_by.get(name) == "Conv" for name in node.input], [n in read for n in node.input])
            yield Read(node, quantized, shared=True)
            yield Read(node, 1 - quantized, shared=False)


def _branch(by_conv: list[bool], paired: list[bool]) -> int:
    """Which input of a residual addition has a pair in both layouts, so that the other input can be fused with it.

    It is the input that no convolution makes. Of two such inputs, or of two convolutions, it is the one that already
    has a pair because a layer reads it (a skip over a linear bottleneck). Otherwise it is the second of two
    convolutions, or the first of two others.
    """
    if by_conv[0] != by_conv[1]:
        return by_conv.index(False)
    if paired[0] != paired[1]:
        return paired.index(True)
    return 1 if by_conv[0] else 0


def insert(
    model: ModelProto, activations: Mapping[str, float], weights: Mapping[str, Array], layout: str
) -> ModelProto:
    """The graph with Q/DQ pairs in a layout (`trt` or `ort`): a new model with the same names of inputs and outputs.

    `activations` holds a scale for each of `Targets.all`, `weights` the scales of each weight's channels. Raises
    ValueError where they belong to another graph.
    """
    import onnx

    wanted = targets(model)
    _check(wanted, activations, weights)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    pairs = _Pairs(made.graph)
    everywhere = layout == "ort"
    wanted_reads = [read for read in reads(made.graph) if read.shared or everywhere]
    if everywhere:
        _before_activations(made.graph, wanted_reads, activations, pairs)
    for read in wanted_reads:
        name = read.node.input[read.slot]
        read.node.input[read.slot] = pairs.pair(name, name, activations[name])
    steps = _room_for_biases(model.graph, activations, weights) if everywhere else weights
    _quantize_weights(made.graph, wanted.weights, steps)
    _sort(made.graph)
    onnx.checker.check_model(made, full_check=True)
    return made


def _check(wanted: Targets, activations: Mapping[str, float], weights: Mapping[str, Array]) -> None:
    for what, needed, given in (
        ("activations", set(wanted.all), activations),
        ("weights", set(wanted.weights), weights),
    ):
        missing, unknown = sorted(needed - set(given)), sorted(set(given) - needed)
        if missing or unknown:
            said = [f"missing for {', '.join(missing)}"] if missing else []
            said += [f"given for {', '.join(unknown)}, which the graph does not have"] if unknown else []
            raise ValueError(f"scales of {what}: {' and '.join(said)}")
    for name, scale in activations.items():
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"the scale of {name} is {scale}: it must be positive")


class _Pairs:
    """Adds QuantizeLinear and DequantizeLinear to a graph; one pair for each tag."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self._done: dict[str, str] = {}
        self.zero = self.constant("int8_zero", np.zeros((), dtype=np.int8))

    def constant(self, name: str, value: Array) -> str:
        """Add an initializer; returns its name."""
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def pair(self, tensor: str, tag: str, scale: float) -> str:
        """The name of `tensor` after a pair of this scale; the same pair for the same tag."""
        from onnx import helper

        if tag not in self._done:
            step = self.constant(f"{tag}.scale", np.asarray(scale, dtype=np.float32))
            codes, values = f"{tag}.int8", f"{tag}.dequantized"
            self.graph.node.append(helper.make_node("QuantizeLinear", [tensor, step, self.zero], [codes], f"{tag}.q"))
            self.graph.node.append(
                helper.make_node("DequantizeLinear", [codes, step, self.zero], [values], f"{tag}.dq")
            )
            self._done[tag] = values
        return self._done[tag]


def _before_activations(graph: GraphProto, found: list[Read], activations: Mapping[str, float], pairs: _Pairs) -> None:
    """Add pairs with a tensor's own scale before the ReLU and max pooling that make it.

    Only where no other node reads the values in between: another reader would see the rounding.
    """
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = dict.fromkeys((each.name for each in graph.output), 1)
    for node in list(graph.node):
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    quantized: dict[str, int] = {}
    for read in found:
        name = read.node.input[read.slot]
        quantized[name] = quantized.get(name, 0) + 1
    for name, count in quantized.items():
        if readers[name] > count:
            continue
        node, depth = producers.get(name), 0
        while node is not None and node.op_type in KEEPS_ORDER:
            before, depth = node.input[0], depth + 1
            node.input[0] = pairs.pair(before, f"{name}.before{depth}", activations[name])
            node = producers.get(before) if readers[before] == 1 else None


INTEGER_BIAS = 2.0**30
"""Half of the range of an int32: the other half is for the sum of products."""


def _room_for_biases(
    graph: GraphProto, activations: Mapping[str, float], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """The steps of weights, made wider where ONNX Runtime would lose a bias.

    ONNX Runtime stores biases as int32, in steps of activation step times weight step. If all weights of a channel are
    zero or almost zero, the step is so small that the bias would not fit, and would be cut to almost nothing. Pruned
    residual networks have such channels. The wider step changes their weights by less than a billionth of the bias.
    """
    from onnx import numpy_helper

    held = {each.name: each for each in graph.initializer}
    found = {name: np.asarray(own, dtype=np.float32) for name, own in weights.items()}
    for node in _layers(graph):
        if len(node.input) < 3 or node.input[2] not in held:
            continue
        bias = np.abs(numpy_helper.to_array(held[node.input[2]])).astype(np.float32).ravel()
        steps = found[node.input[1]]
        if bias.shape == steps.shape:
            found[node.input[1]] = np.maximum(steps, bias / np.float32(activations[node.input[0]] * INTEGER_BIAS))
    return found


def _quantize_weights(graph: GraphProto, axes: Mapping[str, int], scales: Mapping[str, Array]) -> None:
    """Store each weight as int8 codes and the steps of its channels; readers get the product of the two."""
    from onnx import helper, numpy_helper

    held = {each.name: each for each in graph.initializer}
    layers = list(_layers(graph))
    for name, axis in axes.items():
        weight = numpy_helper.to_array(held[name])
        steps = np.asarray(scales[name], dtype=np.float32)
        if steps.shape != (weight.shape[axis],):
            raise ValueError(f"scales of weights: {name} has {weight.shape[axis]} channels, and {steps.size} scales")
        parts = {
            f"{name}.int8": weight_codes(weight, steps, axis),
            f"{name}.scale": steps,
            f"{name}.zero": np.zeros(len(steps), dtype=np.int8),
        }
        graph.initializer.extend(numpy_helper.from_array(value, part) for part, value in parts.items())
        values = f"{name}.dequantized"
        graph.node.append(helper.make_node("DequantizeLinear", list(parts), [values], f"{name}.dq", axis=axis))
        for node in layers:
            if node.input[1] == name:
                node.input[1] = values
    still_read = {name for node in graph.node for name in node.input}
    for name in axes:
        if name not in still_read:
            graph.initializer.remove(held[name])


def _sort(graph: GraphProto) -> None:
    """Put each node after the nodes that it reads; otherwise keep the order."""
    known = {each.name for each in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        ordered += ready
        known |= {name for node in ready for name in node.output}
        done = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in done]
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
