"""From a network to an ONNX file in fp32: torch's dynamo exporter, opset 20, dynamic batch, proved against PyTorch.

The exporter folds batch norm into the convolutions. The file holds only standard operators and no path of this machine.
"""

from __future__ import annotations

import functools
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmark.plan.deployment import EngineError
from benchmark.plan.stage import Network
from benchmark.vision.network import load

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The first opset whose half-precision scales ONNX Runtime accepts; the last that both TensorRT 10 and 11 parse."""
INPUT, OUTPUT = "images", "logits"
STANDARD = ("", "ai.onnx")
PARITY = 1e-4
"""Largest allowed difference from PyTorch's logits, as a share of the largest logit: 4e-6 is usual, and a wrong fold
differs far more."""
PARITY_BATCHES = (3, 5)
"""Batch sizes of the proof. Neither is the batch size of the export, because the batch must be dynamic."""


def export(network: Network) -> onnx.ModelProto:
    """The network as an ONNX model: `images` float32 [batch, 3, 32, 32] to `logits` float32 [batch, classes].

    Raises EngineError where a library is missing, the network cannot be exported, or the file's answers differ.
    """
    prove_exporter()
    module = load(network)
    model = plain(_exported(module))
    _check_parity(module, model)
    return model


def prove_exporter() -> None:
    """Import the libraries of an export. Raises EngineError with the missing one."""
    try:
        import onnx  # noqa: F401 # only tests that it is installed
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"exporting needs onnx, onnxruntime and onnxscript ({error}): pip install -e '.[onnx]'"
        ) from error


@functools.cache
def warm_up() -> None:
    """Export a single layer, once per process, so that the exporter's first-use loading is not billed to an engine.

    Raises EngineError.
    """
    prove_exporter()
    _exported(nn.Conv2d(3, 4, 3))


def _exported(module: nn.Module) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    images = torch.zeros(2, 3, 32, 32)
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own internals
            program = torch.onnx.export(
                module, (images,), dynamo=True, opset_version=OPSET, dynamic_shapes=({0: batch},),
                input_names=[INPUT], output_names=[OUTPUT], verbose=False,
            )  # fmt: skip  # one argument a line would hide the shape
    except Exception as error:  # the exporter raises many types; all of them mean the same to the user
        _if_interrupted(error)
        words = " ".join(str(error).split())[:300]
        raise EngineError(f"the network cannot be exported to ONNX: {type(error).__name__}: {words}") from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    assert program is not None, "an export without a file returns the program"
    return program.model_proto


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes: names of Python objects, stack traces, paths.

    Raises EngineError where the model is not opset 20 (the exporter silently falls back) or holds foreign operators.
    """
    import onnx

    opsets = {each.version for each in model.opset_import if each.domain in STANDARD}
    if opsets != {OPSET}:
        raise EngineError(f"the exporter wrote opset {', '.join(map(str, opsets))}, not {OPSET}")
    check_standard(model)
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]  # they use the exporter's own names of shapes; inference finds them again
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)


def check_standard(model: onnx.ModelProto) -> None:
    """Raise EngineError where a model is more than plain data: foreign operators, or weights in other files."""
    foreign = sorted({node.op_type for node in model.graph.node if node.domain not in STANDARD})
    if foreign:
        raise EngineError(f"the network holds operators outside the ONNX standard: {', '.join(foreign)}")
    if any(each.data_location for each in model.graph.initializer):
        raise EngineError("the exported network keeps weights in other files, which this suite does not load")


def _check_parity(module: nn.Module, model: onnx.ModelProto) -> None:
    """Raise EngineError unless the file computes what PyTorch computes."""
    generator = torch.Generator().manual_seed(0)
    run = runner(model.SerializeToString())
    for size in PARITY_BATCHES:
        images = torch.randn(size, 3, 32, 32, generator=generator)
        with torch.inference_mode():
            expected = module(images).numpy()
        try:
            found = run(images.numpy())
        except Exception as error:  # the library raises types of its own
            words = " ".join(str(error).split())[:200]
            raise EngineError(f"the exported network does not run on {size} images: {words}") from error
        apart = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if not apart <= PARITY:
            raise EngineError(f"the exported network is {apart:.2g} away from PyTorch's logits; {PARITY:g} is allowed")


def runner(model: bytes, threads: int = 0) -> Any:
    """A function from images to logits (numpy) that runs a model unchanged in ONNX Runtime, for proofs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _if_interrupted(error: BaseException) -> None:
    """Raise KeyboardInterrupt where one is behind an error: the exporter wraps whatever ends it in its own."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
