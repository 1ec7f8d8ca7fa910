"""The places in torch's graph where an INT8 engine quantizes a network, for methods that train for such an engine.

Placement is decided once, on the exported graph (`quantization.placement`). This module finds each place again in
torch's own graph of the network. It finds inputs of layers by the names of their weights. It finds branches of residual
additions by their values on a twin of the network: the twin has random weights, so no two tensors are equal by
accident.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmark.deploy.export import export
from benchmark.deploy.graphs import arrays_of
from benchmark.deploy.quantization.placement import Read, reads, targets
from benchmark.plan.stage import Network
from benchmark.vision.network import load

if TYPE_CHECKING:
    import onnx

ANSWERS = "answers."
"""Names of the arrays with the answers to the test images of a network trained for INT8, by layout."""
SAME = 1e-4
"""Two tensors count as the same if they differ by no more than this share of the largest value."""


@dataclass(frozen=True)
class LayerPoint:
    """A call of a convolution or linear layer.

    Holds the node of the traced graph, its layer, the tensor of the export that it reads, and the export's name of its
    weight. `norm` is the batch norm that the export folds into the layer.
    """

    node: str
    layer: str
    norm: str | None
    tensor: str
    weight: str


@dataclass(frozen=True)
class BranchPoint:
    """A branch of a residual addition: the node, which of its two arguments, and the tensor.

    Where it is not `shared` by both layouts, it belongs to `ort` alone.
    """

    node: str
    slot: int
    tensor: str
    shared: bool


@dataclass(frozen=True)
class Points:
    """All places of a network, in the order of the graph."""

    layers: tuple[LayerPoint, ...]
    branches: tuple[BranchPoint, ...]

    def tensors(self) -> tuple[str, ...]:
        """The tensors that need a scale."""
        read = (*(each.tensor for each in self.layers), *(each.tensor for each in self.branches))
        return tuple(dict.fromkeys(read))


def points(network: Network) -> Points:
    """The places of a network.

    Raises EngineError where it cannot be exported, ValueError where torch's graph of it lacks a place.
    """
    twin = _twin(network)
    module, model = load(twin), export(twin)
    traced = trace(module)
    quantized = list(reads(model.graph))
    layers = tuple(_layers(model, traced, quantized))
    return Points(layers, tuple(_branches(model, traced, quantized)))


def trace(module: nn.Module) -> fx.GraphModule:
    """Torch's graph of a module; its layers are the module's own. Raises ValueError where tracing fails."""
    try:
        return fx.symbolic_trace(module)
    except Exception as error:  # torch raises many types; all of them mean the same to the user
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"the network cannot be traced ({type(error).__name__}: {words})") from error


def scales_of(activations: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scales by tensor and by weight, as the arrays that the build of an INT8 engine reads."""
    one = {name: float(scale) for name, scale in activations.items()}
    return arrays_of(one, {name: steps.detach().cpu().numpy() for name, steps in weights.items()})


def _twin(network: Network) -> Network:
    """The same network with random tensors: no layer is dead, and no two activations are equal."""
    generator = torch.Generator().manual_seed(5)

    def drawn(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if tensor.ndim > 1:
            return torch.randn(tensor.shape, generator=generator).mul((2 / tensor[0].numel()) ** 0.5)
        noise = torch.rand(tensor.shape, generator=generator)
        return 0.5 + noise if name.endswith(("running_var", ".weight")) else 0.4 * noise - 0.2

    return replace(network, tensors={name: drawn(name, tensor) for name, tensor in network.tensors.items()})


def _layers(model: onnx.ModelProto, traced: fx.GraphModule, quantized: list[Read]) -> Iterator[LayerPoint]:
    modules = dict(traced.named_modules())
    calls: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], nn.Conv2d | nn.Linear):
            calls.setdefault(node.target, []).append(node)
    weights = targets(model).weights
    for read in (read for read in quantized if read.node.op_type != "Add"):
        weight = read.node.input[1]
        layer = _owner(model, weight, modules)
        left = calls.get(layer or "", [])
        if layer is None or not left:
            raise ValueError(f"the engine's layer with the weight {weight} is not a layer of the traced network")
        node = left.pop(0)
        yield LayerPoint(node.name, layer, _norm(node, modules), read.node.input[read.slot], weight)
        assert weight in weights, "a layer that reads a quantized tensor has a quantized weight"
    forgotten = [name for name, nodes in calls.items() if nodes]
    if forgotten:
        raise ValueError(f"the engine has no layer of the network's {', '.join(forgotten)}")


def _owner(model: onnx.ModelProto, weight: str, modules: Mapping[str, Any]) -> str | None:
    """The layer of a weight of the export, found by name, or by values where the exporter has transposed the weight."""
    name = weight.removesuffix(".weight")
    if isinstance(modules.get(name), nn.Conv2d | nn.Linear):
        return name
    from onnx import numpy_helper

    held = {each.name: each for each in model.graph.initializer}
    if weight not in held:
        return None
    values = numpy_helper.to_array(held[weight])
    linear = {key: module.weight.detach().numpy() for key, module in modules.items() if isinstance(module, nn.Linear)}
    alike = (key for key, own in linear.items() if own.T.shape == values.shape and np.array_equal(own.T, values))
    return next(alike, None)


def _norm(node: fx.Node, modules: Mapping[str, Any]) -> str | None:
    """The batch norm that is the only reader of a convolution."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or not isinstance(modules[str(users[0].target)], nn.BatchNorm2d):
        return None
    return str(users[0].target) if isinstance(modules[str(node.target)], nn.Conv2d) else None


ADDING: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def _branches(model: onnx.ModelProto, traced: fx.GraphModule, quantized: list[Read]) -> Iterator[BranchPoint]:
    added = [read for read in quantized if read.node.op_type == "Add"]
    if not added:
        return
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    ours = _Recording(traced).values_of(images)
    theirs = _values(model, [name for read in added for name in (*read.node.input, read.node.output[0])], images)
    adds = [node for node in traced.graph.nodes if node.target in ADDING and len(node.args) > 1]
    for read in added:
        tensor, made = read.node.input[read.slot], theirs[read.node.output[0]]
        node = next((node for node in adds if _same(ours.get(node.name), made)), None)
        slots = [] if node is None else [k for k in (0, 1) if _same(ours.get(str(node.args[k])), theirs[tensor])]
        if node is None or not slots:
            raise ValueError(f"the engine's addition {read.node.output[0]} is not in the traced network")
        slot = slots[0] if len(slots) == 1 else read.slot
        yield BranchPoint(node.name, slot, tensor, read.shared)


class _Recording(fx.Interpreter):
    """Runs a graph and keeps the value of every node."""

    @torch.no_grad()
    def values_of(self, images: Tensor) -> dict[str, Tensor]:
        self.found: dict[str, Tensor] = {}
        self.run(images)
        return self.found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = value.clone()  # a later layer may change it in place
        return value


def _values(model: onnx.ModelProto, names: list[str], images: Tensor) -> dict[str, Tensor]:
    """The values of some tensors of an exported graph."""
    import onnx
    import onnxruntime

    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    known = {each.name for each in asked.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in known]
    asked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(list(dict.fromkeys(names)), {asked.graph.input[0].name: images.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(dict.fromkeys(names), found, strict=True)}


def _same(one: Tensor | None, other: Tensor) -> bool:
    if one is None or one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= SAME * other.abs().max())
