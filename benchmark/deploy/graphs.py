"""The only way from a network to an ONNX file in a given precision: export, then fp16, or Q/DQ pairs in a layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from benchmark.deploy.export import export
from benchmark.deploy.quantization.placement import insert
from benchmark.plan.deployment import BuildOrder, EngineError

if TYPE_CHECKING:
    import onnx

Layout = Literal["trt", "ort"]
"""The two placements of Q/DQ pairs: a placement that TensorRT fuses well is slow in ONNX Runtime, and the reverse. One
set of scales serves both."""

LARGEST_HALF = 65504.0
ACTIVATION, WEIGHT = "activation.", "weight."
"""Names of a calibration's arrays: `activation.<tensor>` (one number), `weight.<tensor>` (one number per channel)."""


def graph_of(order: BuildOrder, layout: Layout) -> bytes:
    """An ONNX file that takes float32 `images` and gives float32 `logits`, in the order's precision.

    fp32 and tf32 share a file: TF32 is a switch of the engine. Raises EngineError.
    """
    model = export(order.network)
    if order.precision == "fp16":
        model = half(model)
    elif order.precision == "int8":
        model = quantized(model, order.scales, layout)
    elif order.precision == "bf16":
        raise EngineError("no engine that reads ONNX has bf16 convolutions: choose engine=torch")
    return model.SerializeToString()  # type: ignore[no-any-return] # protobuf's generated code is untyped


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in fp16, except its input and output. Raises EngineError where a weight is beyond fp16.

    Batch norm was folded in fp32 first, so this loses less than casting the network to half. Source: onnxruntime's own
    converter, which also raises weights below the smallest fp16 number to that number.
    """
    import onnx
    from onnx import numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for each in model.graph.initializer:
        values = numpy_helper.to_array(each)
        if values.dtype == np.float32 and values.size and float(np.abs(values).max()) > LARGEST_HALF:
            raise EngineError(f"{each.name} holds {float(np.abs(values).max()):.3g}: fp16 ends at {LARGEST_HALF:g}")
    made = onnx.ModelProto()
    made.CopyFrom(model)  # the converter changes its argument
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights below the smallest fp16: less than a rounding of any logit
        return convert_float_to_float16(made, keep_io_types=True)  # type: ignore[no-any-return] # untyped


def quantized(model: onnx.ModelProto, scales: Mapping[str, Any] | None, layout: Layout) -> onnx.ModelProto:
    """The model with Q/DQ pairs, from the arrays of a calibration. Raises EngineError where these do not fit."""
    if scales is None:
        raise EngineError("INT8 needs the scales of a calibration, and the plan has none")
    arrays = {name: np.asarray(value.cpu().numpy(), dtype=np.float32) for name, value in scales.items()}
    activations = {name.removeprefix(ACTIVATION): float(a) for name, a in arrays.items() if name.startswith(ACTIVATION)}
    weights = {name.removeprefix(WEIGHT): a for name, a in arrays.items() if name.startswith(WEIGHT)}
    try:
        return insert(model, activations, weights, layout)
    except ValueError as error:
        remedy = "another version of torch exported the network for it: delete the calibration's record and run again"
        raise EngineError(f"the calibration does not fit the network: {error}; {remedy}") from error


def arrays_of(activations: Mapping[str, float], weights: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
    """Scales as the arrays of a stage's output; `quantized` reads them."""
    one = {ACTIVATION + name: torch.tensor(scale, dtype=torch.float32) for name, scale in activations.items()}
    many = {WEIGHT + name: torch.from_numpy(np.asarray(own, dtype=np.float32)) for name, own in weights.items()}
    return {**one, **many}
