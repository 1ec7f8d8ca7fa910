"""Builds a TensorRT engine from an ONNX file; strongly typed, so that the file alone decides the precisions.

The same code serves TensorRT 10 and 11, and TensorRT-RTX, which builds without a GPU: the argument `trt` is the module.
Nothing here imports TensorRT or torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmark.plan.deployment import EngineError

INPUT_SHAPE = (3, 32, 32)
TOPS = (1, 8, 32, 64, 128, 256, 512, 1024)
"""Each number has an optimisation profile, tuned for batches of this size. The profile also serves smaller batches,
down to the number before it. The inference protocol tries powers of two; the next larger profile serves those in
between."""
SHOWN = 20
"""The number of lines of TensorRT's log that an error quotes."""


@dataclass(frozen=True)
class Settings:
    """The settings that differ from TensorRT's defaults.

    TensorRT has `tf32` on by default, so an fp32 engine must switch it off. `capabilities` names the GPUs to build for
    where no GPU is present (TensorRT-RTX only).
    """

    tf32: bool
    tops: Sequence[int] = TOPS
    timing_cache: bytes = b""
    capabilities: Sequence[str] = ()


class Built(NamedTuple):
    """An engine in TensorRT's own bytes, the timing cache after the build, and the log's lines above 'info'."""

    plan: bytes
    timing_cache: bytes
    log: list[str]


def build(trt: Any, onnx: bytes, settings: Settings) -> Built:
    """Build the engine of an ONNX file. Raises EngineError with everything the parser or the builder said."""
    logger = logger_of(trt)
    builder = make_builder(trt, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise EngineError(f"TensorRT does not accept the network: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    cache = _configure(trt, builder, network, config, settings)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(f"TensorRT built no engine: {_said(logger)}")
    kept = bytes(cache.serialize()) if cache is not None else b""
    return Built(bytes(serialized), kept, list(logger.lines))


def make_builder(trt: Any, logger: Any) -> Any:
    """TensorRT's builder. Raises EngineError where it cannot be made (no suitable driver, no memory)."""
    try:
        return trt.Builder(logger)
    except TypeError as error:  # TensorRT's Python bindings raise this for a null pointer
        raise EngineError(f"TensorRT's builder cannot be made: {_said(logger) or error}") from error


def logger_of(trt: Any) -> Any:
    """A logger that keeps warnings and errors in `lines`."""

    class Lines(trt.ILogger):  # type: ignore[misc] # the module is given
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.lines.append(" ".join(str(message).split()))

    return Lines()


def _configure(trt: Any, builder: Any, network: Any, config: Any, settings: Settings) -> Any:
    """Configure the build; returns the timing cache in use, or None where TensorRT has none."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if settings.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    for below, top in zip((0, *settings.tops), settings.tops, strict=False):
        profile = builder.create_optimization_profile()
        sizes = [(size, *INPUT_SHAPE) for size in (below + 1, top, top)]
        profile.set_shape(network.get_input(0).name, *sizes)
        config.add_optimization_profile(profile)
    if settings.capabilities:
        config.num_compute_capabilities = len(settings.capabilities)
        for index, name in enumerate(settings.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
        return None
    cache = config.create_timing_cache(settings.timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")  # from another board or version: begin again
        config.set_timing_cache(cache, False)
    return cache


def _parser_errors(parser: Any) -> str:
    found = []
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        where = getattr(error, "node_name", None)
        name = f"{where()}: " if callable(where) and where() else ""
        found.append(f"{name}{' '.join(str(error.desc()).split())}")
    return "; ".join(found) or "its parser gives no reason"


def _said(logger: Any) -> str:
    return "; ".join(logger.lines[-SHOWN:])


# --- what an engine says about itself ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layers:
    """The layers of an engine: name, kind, and the number formats it reads and writes."""

    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def executed(self, asked: str) -> str:
        """The executed precision in words; for INT8, how many of the layers with weights really read int8."""
        if asked != "int8":
            return asked
        heavy = [row for row in self.rows if row["heavy"]]
        if not heavy:
            return "int8, where TensorRT does not say"
        codes = sum("int8" in " ".join(row["reads"]).lower() for row in heavy)
        return f"int8 in {codes} of {len(heavy)} layers"


HEAVY = ("conv", "gemm", "matmul", "matrixmultiply", "fullyconnected")


def layers_of(trt: Any, engine: Any) -> Layers:
    """What EngineInspector says about an engine built with detailed verbosity."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return parse_layers(text)


def parse_layers(text: str) -> Layers:
    """The inspector's JSON, shortened; layers are objects, or only names where the verbosity was lower."""
    try:
        listed = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return Layers()
    rows = []
    for layer in listed:
        own: Mapping[str, Any] = layer if isinstance(layer, Mapping) else {"Name": str(layer)}
        name, kind = str(own.get("Name", "")), str(own.get("LayerType", ""))
        words = f"{kind} {own.get('ParameterType', '')} {own.get('TacticName', '')}".lower()
        rows.append(
            {
                "name": name,
                "kind": kind,
                "reads": [_format(each) for each in own.get("Inputs", [])],
                "writes": [_format(each) for each in own.get("Outputs", [])],
                "heavy": any(word in words for word in HEAVY),
            }
        )
    return Layers(tuple(rows))


def _format(tensor: Any) -> str:
    if not isinstance(tensor, Mapping):
        return ""
    return str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("Format") or "")
