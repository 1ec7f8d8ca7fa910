"""The ONNX Runtime engine: an ONNX file, and the graph that the library makes of it on this CPU.

The engine reports what it really executes. On a CPU fp16 means weights rounded to fp16 and arithmetic in fp32, and INT8
runs only where ONNX Runtime finds an integer kernel. Both are read from the graph that ONNX Runtime really runs, not
from the precision that was asked for.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmark.deploy.export import INPUT, OUTPUT, check_standard
from benchmark.deploy.graphs import Layout, graph_of
from benchmark.deploy.signature import signature
from benchmark.plan.deployment import BuildOrder, EngineError
from benchmark.plan.stage import EngineFile

LAYOUT: Layout = "ort"
INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
FLOATING = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def build(order: BuildOrder) -> EngineFile:
    """The engine of a network: its ONNX file, with the graph that ONNX Runtime optimises here as evidence.

    Raises EngineError.
    """
    model = graph_of(order, LAYOUT)
    ran = optimised(model)
    return EngineFile(
        kind="onnxruntime",
        tensors={"onnx": torch.frombuffer(bytearray(model), dtype=torch.uint8)},
        facts={"input": INPUT, "output": OUTPUT},
        executes={
            "precision": executed(ran, order.precision),
            "layout": LAYOUT,
            "library": f"onnxruntime {onnxruntime.__version__}",
            "switches": {"threads": torch.get_num_threads(), "int8_as_uint8": True, "x64quantprecision": True},
            "comparable_to_tensorrt": False,
        },
        signature=signature(order.network, "onnxruntime", order.precision, LAYOUT),
        mean=order.network.mean,
        std=order.network.std,
        evidence={"operators": dict(sorted(Counter(node.op_type for node in ran.graph.node).items()))},
    )


def executed(ran: onnx.ModelProto, asked: str) -> str:
    """The precision of an optimised graph in words, from its operators and the type of its weights."""
    weights = {each.name: each.data_type for each in ran.graph.initializer}
    integer = [node for node in ran.graph.node if node.op_type in INTEGER]
    floating = [node for node in ran.graph.node if node.op_type in FLOATING]
    types = {weights[name] for node in floating for name in node.input if name in weights}
    halves = onnx.TensorProto.FLOAT16 in types
    if asked == "fp16" and not halves:
        return "fp32 compute, fp16-rounded weights"
    plain = "fp16" if halves else "fp32"
    if not integer:
        return plain
    layers = len(integer) + len(floating)
    return f"int8 in {len(integer)} of {layers} layers" + (f", {plain} in the others" if floating else "")


def optimised(model: bytes) -> onnx.ModelProto:
    """The graph that ONNX Runtime runs on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options()
        options.optimized_model_filepath = str(path)
        open_session(model, options)
        return onnx.load(path)


def session_options(signed: bool = False) -> onnxruntime.SessionOptions:
    """The options of a session.

    On x86 ONNX Runtime turns int8 activations into uint8; `signed` keeps them in int8. All convolutions of a residual
    network then become integer kernels, which are about three times slower (docs/deployment.md;
    scripts/perf_deployment.py measures both).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that an optimised graph fits only this machine: the graph stays here
    options.intra_op_num_threads = torch.get_num_threads()
    # without VNNI, products of uint8 and int8 overflow 16 bits; this has such a CPU multiply uint8 by uint8 instead
    options.add_session_config_entry("session.x64quantprecision", "1")
    if signed:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return options


def open_session(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on the CPU. Raises EngineError where ONNX Runtime refuses the model."""
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises its own types, without a common base
        words = " ".join(str(error).split())[:300]
        raise EngineError(f"ONNX Runtime does not accept the network: {words}") from error


def _check(content: bytes) -> None:
    """Raise EngineError where an artifact's file is damaged, or would make the library read other files."""
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's own types
        raise EngineError(f"ONNX Runtime does not accept the network: its file is damaged ({error})") from error
    check_standard(model)


class OrtEngine:
    """A session on the CPU, with as many threads as torch has."""

    def __init__(self, built: EngineFile) -> None:
        self.executes: Mapping[str, Any] = dict(built.executes)
        content = built.tensors["onnx"].numpy().tobytes()
        _check(content)
        self._session = open_session(content, session_options())
        self._input, self._output = str(built.facts["input"]), [str(built.facts["output"])]

    def prepare(self, images: Tensor) -> np.ndarray[Any, Any]:
        """A batch as ONNX Runtime needs it: contiguous float32 in main memory."""
        return np.ascontiguousarray(images.cpu().numpy(), dtype=np.float32)

    def __call__(self, prepared: np.ndarray[Any, Any]) -> Tensor:
        """Logits [n, classes] of a prepared batch."""
        return torch.from_numpy(self._session.run(self._output, {self._input: prepared})[0])

    def synchronise(self) -> None:
        """Does nothing, because a call returns only with its answer."""
