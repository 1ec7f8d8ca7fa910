"""TensorRT without TensorRT: a module that remembers what was called, in the manner of version 10 or 11.

What version 11 has removed is not there: touching it raises AttributeError, as the real one does.
"""

from __future__ import annotations

import enum
import json
from types import ModuleType, SimpleNamespace

DETAILED = {
    "Layers": [
        {
            "Name": "conv1 + relu", "LayerType": "CaskConvolution", "TacticName": "sm90_xmma_fprop_int8",
            "Inputs": [{"Name": "images", "Format/Datatype": "Int8 NC/32HW32"}],
            "Outputs": [{"Name": "relu", "Format/Datatype": "Int8 NC/32HW32"}],
        },
        {"Name": "pool", "LayerType": "CaskPooling", "Inputs": [{"Format/Datatype": "Int8"}], "Outputs": []},
        {
            "Name": "fc", "LayerType": "gemm", "Inputs": [{"Name": "flat", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "logits", "Format/Datatype": "Row major linear FP32"}],
        },
    ]
}  # fmt: skip  # a line a layer


class Flag(enum.IntEnum):
    TF32 = 7


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = Severity

    def __init__(self) -> None:
        pass


class FakeTensorRT(ModuleType):
    """`calls` lists what was done, in order. Errors are set by name: parser, build, builder, load, run."""

    def __init__(self, version="11.4.0.106", **errors) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.calls: list = []
        self.errors = errors
        self.ILogger = ILogger
        self.BuilderFlag = Flag
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Creation", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
        if version.startswith("11"):
            self.NetworkDefinitionCreationFlag = enum.IntEnum("Creation", {"STRONGLY_TYPED": 1})
        self.ProfilingVerbosity = enum.Enum("Verbosity", "DETAILED NONE")
        self.LayerInformationFormat = enum.Enum("Format", "JSON ONELINE")

    def did(self, *what) -> None:
        self.calls.append(what)

    def Builder(self, logger):  # TensorRT's names
        if "builder" in self.errors:
            logger.log(Severity.ERROR, self.errors["builder"])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _Builder(self, logger)

    def OnnxParser(self, network, logger):
        return _Parser(self)

    def Runtime(self, logger):
        return _Runtime(self, logger)


class _Parser:
    def __init__(self, trt) -> None:
        self.trt = trt
        self.found = trt.errors.get("parser", [])

    def parse(self, content):
        self.trt.did("parse", len(content))
        return not self.found

    @property
    def num_errors(self):
        return len(self.found)

    def get_error(self, number):
        node, words = self.found[number]
        return SimpleNamespace(desc=lambda: words, node_name=lambda: node)


class _Config:
    def __init__(self, trt) -> None:
        self.trt = trt
        self.profiles: list = []
        self.profiling_verbosity = None

    def set_flag(self, flag):
        self.trt.did("set", flag.name)

    def clear_flag(self, flag):
        self.trt.did("clear", flag.name)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        if content == b"damaged":
            return None
        return SimpleNamespace(content=content, serialize=lambda: content + b"+")

    def set_timing_cache(self, cache, ignore):
        assert ignore is False, "a cache of another board must not be taken"
        return cache.content != b"of another board"


class _Profile:
    def set_shape(self, name, low, best, high):
        self.shape = (name, low, best, high)


class _Builder:
    def __init__(self, trt, logger) -> None:
        self.trt, self.logger = trt, logger

    def create_network(self, flags):
        self.trt.did("network", flags)
        return SimpleNamespace(get_input=lambda number: SimpleNamespace(name="images"))

    def create_builder_config(self):
        self.config = _Config(self.trt)
        return self.config

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        self.trt.did("build", [profile.shape for profile in config.profiles], config.profiling_verbosity.name)
        self.logger.log(Severity.INFO, "chatter")
        self.logger.log(Severity.WARNING, "a warning")
        if "build" in self.trt.errors:
            self.logger.log(Severity.ERROR, self.trt.errors["build"])
            return None
        return bytearray(b"plan")


class _Runtime:
    def __init__(self, trt, logger) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, content):
        self.trt.did("load", bytes(content))
        if "load" in self.trt.errors:
            self.logger.log(Severity.ERROR, self.trt.errors["load"])
            return None
        return _Engine(self.trt)


class _Engine:
    def __init__(self, trt) -> None:
        self.trt = trt

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda form: json.dumps(DETAILED))

    def get_tensor_shape(self, name):
        return (-1, 10)

    def create_execution_context(self):
        return _Context(self.trt)


class _Context:
    def __init__(self, trt) -> None:
        self.trt = trt

    def set_optimization_profile_async(self, index, stream):
        self.trt.did("profile", index, stream)
        return "profile" not in self.trt.errors

    def set_input_shape(self, name, shape):
        self.trt.did("shape", name, shape)

    def set_tensor_address(self, name, address):
        self.trt.did("address", name, address)

    def execute_async_v3(self, stream):
        self.trt.did("run", stream)
        return "run" not in self.trt.errors
