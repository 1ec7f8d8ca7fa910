"""Fake quantization: a network computes with the values that its INT8 engine will have, and trains through them.

Torch's own operators round; their straight-through gradient passes where the rounded value lies in the range.
Activations: one scale per tensor, -128 to 127, zero point 0. Weights: one scale per channel of the weight folded with
its batch norm, -127 to 127. Sources: Jacob et al. 2018; torch.ao's observers (range / 127.5); LSQ, Esser et al. 2020,
for learned steps, with the bound of torch's operator (on the rounded value, not on x / s as in the paper).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import torch
from torch import Tensor, fx, nn

from benchmark.deploy.points import BranchPoint, LayerPoint, Points, scales_of, trace

Scales = Literal["observed", "learned"]
Layout = Literal["trt", "ort"]

LOWEST, HIGHEST, NARROW = -128, 127, -127
INTEGER_BIAS = 2.0**30
"""The largest number of steps of a bias: a bias that would need more gets wider steps, as in the engine's file."""
SMALLEST = float(torch.finfo(torch.float32).eps)
"""The smallest scale."""


class ObservedRange(nn.Module):
    """Fake quantization of an activation by a moving average of its range.

    The first batch sets the range, and each later batch moves it by the share `averaging`. It moves in train mode while
    `observing` is on. With `active` off, values pass unchanged.
    """

    low: Tensor
    high: Tensor
    started: Tensor

    def __init__(self, averaging: float) -> None:
        super().__init__()
        self.averaging, self.observing, self.active = averaging, True, True
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def scale(self) -> Tensor:
        """max(-low, high) / 127.5 of the range widened to 0, float32."""
        largest = torch.maximum(-self.low.clamp(max=0), self.high.clamp(min=0))
        return (largest / ((HIGHEST - LOWEST) / 2)).clamp(min=SMALLEST)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Update the range with a batch."""
        low, high = torch.aminmax(x.detach())
        for own, seen in ((self.low, low), (self.high, high)):
            own.copy_(torch.where(self.started, own + self.averaging * (seen - own), seen))
        self.started.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """x, rounded to steps of the scale."""
        if self.training and self.observing:
            self.observe(x)
        if not self.active:
            return x
        zero = torch.zeros((), dtype=torch.int32, device=x.device)
        return torch.fake_quantize_per_tensor_affine(x, self.scale(), zero, LOWEST, HIGHEST)


class LearnedRange(nn.Module):
    """Fake quantization of an activation by a learned step, which the first batch sets to 2 mean |x| / sqrt(127)."""

    started: Tensor
    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(1))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("zero", torch.zeros(1))

    def scale(self) -> Tensor:
        """The step, float32."""
        return self.step.detach().clamp(min=SMALLEST).squeeze()

    def forward(self, x: Tensor) -> Tensor:
        """x, rounded to steps of the scale; the step's gradient is scaled by 1 / sqrt(127 x elements of the batch)."""
        with torch.no_grad():
            if self.training:
                self.step.copy_(torch.where(self.started, self.step, first_step(x.detach()).reshape(1)))
                self.started.fill_(True)
            self.step.clamp_(min=SMALLEST)
        factor = (x.numel() * HIGHEST) ** -0.5
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.step, self.zero, LOWEST, HIGHEST, factor)


class ObservedWeight(nn.Module):
    """Fake quantization of a weight; each output channel's scale is its largest magnitude / 127."""

    @torch.no_grad()
    def scale(self, weight: Tensor) -> Tensor:
        """The steps of the channels, float32 [out]."""
        return weight.detach().flatten(1).abs().amax(1).div(HIGHEST).clamp(min=SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, rounded to steps of its scales."""
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, self.scale(weight), zeros, 0, NARROW, HIGHEST)


class LearnedWeight(nn.Module):
    """Fake quantization of a weight by learned steps, one per channel, which begin at 2 mean |w| / sqrt(127)."""

    zeros: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.steps = nn.Parameter(first_step(weight.detach(), dims=tuple(range(1, weight.ndim))).clamp(min=SMALLEST))
        self.register_buffer("zeros", torch.zeros(len(weight)))

    def scale(self, weight: Tensor) -> Tensor:
        """The steps of the channels, float32 [out]."""
        del weight
        return self.steps.detach().clamp(min=SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, rounded to its steps; their gradients are scaled by 1 / sqrt(127 x elements of the weight)."""
        with torch.no_grad():
            self.steps.clamp_(min=SMALLEST)
        factor = (weight.numel() * HIGHEST) ** -0.5
        op = torch._fake_quantize_learnable_per_channel_affine
        rounded: Tensor = op(weight, self.steps, self.zeros, 0, NARROW, HIGHEST, factor)
        return rounded


def first_step(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """LSQ's step before training: 2 mean |x| / sqrt(127), of all of x or along `dims`."""
    mean = x.abs().mean() if dims is None else x.abs().mean(dims)
    return torch.mul(mean, 2 / HIGHEST**0.5)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with a fake-quantized weight, and with the batch norm `norm` that follows it, if
    any.

    With `norm` the weight is quantized as in the engine, folded with the batch norm's running statistics, and the batch
    norm itself computes as usual. W' = W gamma / sqrt(running variance + eps) is quantized and used in the convolution.
    The result is divided by the same factor, the bias is added, and the sum is normalised. So with running statistics
    the module equals a plain folded layer.

    With `rounds_bias` the module computes in eval mode as ONNX Runtime does: the folded bias is int32, in steps of the
    input's scale (`scale_of_input`) times the weight's. TensorRT keeps biases in float.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None, weight: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm, self.weight = layer, norm, weight
        self.rounds_bias = False
        self.scale_of_input: Callable[[], Tensor] = lambda: torch.ones(())

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """The engine's weight before rounding, and each channel's factor in it."""
        if self.norm is None:
            return self.layer.weight, None
        assert self.norm.running_var is not None, "a batch norm without running statistics is folded into nothing"
        factor = (self.norm.running_var + self.norm.eps).rsqrt()
        if self.norm.weight is not None:
            factor = factor * self.norm.weight
        return self.layer.weight * factor.view(-1, 1, 1, 1), factor

    def scale(self) -> Tensor:
        """The steps of the weight's channels."""
        steps: Tensor = self.weight.scale(self.folded()[0])  # type: ignore[operator] # a module of this file
        return steps

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer and its batch norm."""
        weight, factor = self.folded()
        quantized = self.weight(weight)
        if self.rounds_bias and not self.training:
            return self._computed(x, quantized, self._rounded_bias(factor))
        if factor is None or self.norm is None:
            return self._computed(x, quantized, self.layer.bias)
        safe = torch.where(factor == 0, torch.ones_like(factor), factor)  # of a pruned channel, whose weight is 0 too
        out = self._computed(x, quantized, None) / safe.view(1, -1, 1, 1)
        if self.layer.bias is not None:
            out = out + self.layer.bias.view(1, -1, 1, 1)
        normalised: Tensor = self.norm(out)
        return normalised

    def _rounded_bias(self, factor: Tensor | None) -> Tensor | None:
        """The bias of the folded layer in steps of the input's scale times those of the weight's channels."""
        bias = self.layer.bias
        if factor is not None and self.norm is not None:
            assert self.norm.running_mean is not None, "what has a running variance has a running mean"
            shift = -self.norm.running_mean if bias is None else bias - self.norm.running_mean
            bias = shift * factor if self.norm.bias is None else shift * factor + self.norm.bias
        if bias is None:
            return None
        steps = torch.maximum(self.scale_of_input() * self.scale(), bias.abs() / INTEGER_BIAS)
        return torch.where(steps > 0, (bias / steps).round() * steps, bias)

    def _computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, bias)
        convolved: Tensor = self.layer._conv_forward(x, weight, bias)
        return convolved


class FakeQuantized(nn.Module):
    """A network that computes like its INT8 engine in a layout; its training changes the network's own parameters.

    `layout=trt` quantizes one branch of a residual addition, `ort` both branches; the ranges of both layouts are
    observed. The original network shares all layers and still computes without quantization.
    """

    def __init__(self, network: nn.Module, where: Points, scales: Scales, layout: Layout, averaging: float) -> None:
        super().__init__()
        self.scales, self.frozen = scales, False
        self.graph = trace(network)
        self.where = where
        own = {point.tensor for point in where.branches if not point.shared}
        own -= {point.tensor for point in where.layers} | {point.tensor for point in where.branches if point.shared}
        self.names = {tensor: f"range_{number}" for number, tensor in enumerate(where.tensors())}
        for tensor, name in self.names.items():
            # a tensor that only the other layout quantizes is observed, even where steps are learned
            learned = scales == "learned" and (tensor not in own or layout == "ort")
            self.graph.add_submodule(name, LearnedRange() if learned else ObservedRange(averaging))
        self._insert(where.layers, where.branches)
        self.own = own
        self.set_layout(layout)

    def ranges(self) -> dict[str, ObservedRange | LearnedRange]:
        """The fake quantization of every activation, by tensor."""
        return {tensor: self.graph.get_submodule(name) for tensor, name in self.names.items()}  # type: ignore[misc] # made so

    def layers(self) -> Iterable[QuantizedLayer]:
        """The layers with fake-quantized weights, in the order of the graph."""
        return (part for part in self.graph.children() if isinstance(part, QuantizedLayer))

    def set_layout(self, layout: Layout) -> None:
        """Compute like the engine of a layout from now on."""
        for tensor, each in self.ranges().items():
            if isinstance(each, ObservedRange):
                each.active = layout == "ort" or tensor not in self.own
        for layer in self.layers():
            layer.rounds_bias = layout == "ort"

    def observe(self, on: bool) -> None:
        """Set whether ranges move in train mode."""
        for each in self.ranges().values():
            if isinstance(each, ObservedRange):
                each.observing = on

    def freeze_batch_norm(self, on: bool) -> None:
        """Set whether batch norms keep their statistics, and normalise by them, in train mode too."""
        self.frozen = on
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.frozen:
            for part in self.graph.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def arrays(self) -> dict[str, Tensor]:
        """The scales of every tensor and weight, in the form that the build of an INT8 engine reads."""
        activations = {tensor: each.scale() for tensor, each in self.ranges().items()}
        weights = {point.weight: layer.scale() for point, layer in zip(self.where.layers, self.layers(), strict=True)}
        return scales_of(activations, weights)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, 32, 32]."""
        logits: Tensor = self.graph(images)
        return logits

    def _insert(self, layers: Iterable[LayerPoint], branches: Iterable[BranchPoint]) -> None:
        graph, nodes = self.graph.graph, {node.name: node for node in self.graph.graph.nodes}
        for number, point in enumerate(layers):
            self._replace_layer(nodes[point.node], point, number)
        reads = [(nodes[point.node], 0, point.tensor) for point in layers]
        reads += [(nodes[branch.node], branch.slot, branch.tensor) for branch in branches]
        place = {node: number for number, node in enumerate(graph.nodes)}
        done: dict[str, fx.Node] = {}
        # a network may compute one tensor of the export several times: the earliest is quantized, once, for all readers
        for node, slot, tensor in sorted(reads, key=lambda read: place[_source(read[0], read[1])]):
            if tensor not in done:
                source = _source(node, slot)
                with graph.inserting_after(source):
                    done[tensor] = graph.call_module(self.names[tensor], (source,))
        for node, slot, tensor in reads:
            node.update_arg(slot, done[tensor])
        self.graph.recompile()

    def _replace_layer(self, node: fx.Node, point: LayerPoint, number: int) -> None:
        """Let a `QuantizedLayer` compute a layer (and its batch norm)."""
        layer: Any = self.graph.get_submodule(point.layer)
        norm: Any = self.graph.get_submodule(point.norm) if point.norm else None
        made = QuantizedLayer(layer, norm, nn.Identity())
        made.weight = ObservedWeight() if self.scales == "observed" else LearnedWeight(made.folded()[0])
        name = f"quantized_{number}"
        self.graph.add_submodule(name, made)
        made.scale_of_input = self.ranges()[point.tensor].scale
        node.target = name
        if norm is not None:
            after = next(iter(node.users))
            after.replace_all_uses_with(node)
            self.graph.graph.erase_node(after)


def _source(node: fx.Node, slot: int) -> fx.Node:
    source = node.args[slot]
    assert isinstance(source, fx.Node), "what is quantized is a value of the graph"
    return source
