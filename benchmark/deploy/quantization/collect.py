"""The values of a graph's activations, observed by ONNX Runtime on the CPU, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.deploy.quantization.histogram import Histogram

if TYPE_CHECKING:
    from onnx import ModelProto

Array = np.ndarray[Any, Any]


def histograms(
    model: ModelProto, tensors: Sequence[str], batches: Iterable[Array], threads: int
) -> dict[str, Histogram]:
    """A histogram of each of `tensors` over all batches (float32, the graph's only input).

    Raises ValueError where a value is NaN or infinite (with the tensor's name), and where there is no batch.
    """
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given = model.graph.input[0].name
    shown = {each.name for each in model.graph.output}
    inside = [name for name in tensors if name != given]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in inside if n not in shown)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {name: Histogram() for name in tensors}
    for batch in batches:
        values = dict(zip(inside, session.run(inside, {given: batch}) if inside else [], strict=True))
        for name, own in found.items():
            try:
                own.collect(values.get(name, batch))
            except ValueError as error:
                raise ValueError(f"calibration: {name}: {error}") from error
    if not all(own.total for own in found.values()):
        raise ValueError("calibration needs at least one image: raise calibration.images")
    return found
