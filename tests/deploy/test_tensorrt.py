"""TensorRT without a GPU: the probe's every no, the calls of a build on 10 and 11, errors, and batches at work."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmark.deploy.calibrate import scales as calibrated
from benchmark.deploy.engines import kind_named
from benchmark.deploy.export import warm_up
from benchmark.deploy.trt import make, probe
from benchmark.deploy.trt.build import TOPS, Settings, build, parse_layers
from benchmark.deploy.trt.run import CAPTURED_AT, TensorRTEngine
from benchmark.energy.meters.nvml import NvmlError
from benchmark.plan.config import compose
from benchmark.plan.deployment import BuildOrder, Calibration, EngineError
from benchmark.plan.stage import EngineFile, Output
from benchmark.plan.task import Calibrating
from benchmark.vision.network import load
from tests.bench import PlainBench
from tests.deploy.exported import DATA, SCALE, network, order
from tests.deploy.fake_trt import FakeTensorRT

KIND = kind_named("tensorrt")
VERSIONS = ["10.16.1.11", "11.4.0.106"]
SMALL = Settings(tf32=False, tops=(1, 8))


# --- the probe -------------------------------------------------------------------------------------------------------


class Machine:
    """A machine with all that TensorRT needs, but for what a test takes away."""

    def __init__(self, monkeypatch, tmp_path) -> None:
        self.patch, self.folder = monkeypatch, tmp_path
        (tmp_path / "libnvinfer.so.10").write_bytes(b"")
        self.specs = {
            "tensorrt": object(),
            "tensorrt_libs": SimpleNamespace(submodule_search_locations=[str(tmp_path)]),
        }
        monkeypatch.setattr(importlib.util, "find_spec", self.specs.get)
        monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
        monkeypatch.setattr(probe, "load_nvml", lambda: SimpleNamespace(gpus=lambda: [object()]))
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def _raise(error):
    def call(*given):
        raise error

    return call


def test_with_everything_in_place_nothing_speaks_against_it_and_nothing_was_imported(machine):
    sys.modules.pop("tensorrt", None)
    assert probe.why_not() == ""
    assert KIND.why_unavailable("int8", "cuda") == ""
    assert "tensorrt" not in sys.modules


def test_without_the_package(machine):
    del machine.specs["tensorrt"]
    assert "TensorRT is not installed: pip install -e '.[gpu]'" in probe.why_not()


def test_with_the_bindings_alone(machine):
    (machine.folder / "libnvinfer.so.10").unlink()
    assert "its libraries (libnvinfer) are not" in probe.why_not()
    machine.patch.setattr(ctypes.util, "find_library", lambda name: "libnvinfer.so.10")
    assert probe.why_not() == "", "libraries of the system serve as well"


def test_libraries_may_lie_where_the_loader_is_told_to_look(machine, tmp_path_factory):
    del machine.specs["tensorrt_libs"]
    assert "its libraries" in probe.why_not()
    elsewhere = tmp_path_factory.mktemp("lib")
    (elsewhere / "libnvinfer.so.11").write_bytes(b"")
    machine.patch.setenv("LD_LIBRARY_PATH", f":/nowhere:{elsewhere}")
    assert probe.why_not() == ""


def test_without_a_driver(machine):
    machine.patch.setattr(ctypes, "CDLL", _raise(OSError("no such file")))
    assert probe.why_not() == "libcuda.so.1 cannot be loaded: there is no NVIDIA driver"


@pytest.mark.parametrize("words", ["libnvidia-ml.so.1 not found: no NVIDIA driver", "the driver is not loaded"])
def test_where_nvml_does_not_start(machine, words):
    machine.patch.setattr(probe, "load_nvml", _raise(NvmlError("absent", words)))
    assert probe.why_not() == f"NVML sees no GPU: {words}"


def test_without_a_gpu(machine):
    machine.patch.setattr(probe, "load_nvml", lambda: SimpleNamespace(gpus=list))
    assert probe.why_not() == "NVML sees no GPU"


def test_what_it_cannot_do_anywhere(machine):
    assert KIND.why_unavailable("fp32", "cpu") == "TensorRT needs a GPU"
    assert "choose engine=torch" in KIND.why_unavailable("bf16", "cuda")


def test_nothing_is_imported_before_the_probe_and_what_then_fails_is_an_error(machine):
    machine.patch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="TensorRT cannot be imported"):
        probe.library()
    machine.patch.setitem(sys.modules, "tensorrt", FakeTensorRT("8.6.1"))
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.1 is installed; 10 and 11 are supported"):
        probe.library()
    machine.patch.setattr(ctypes, "CDLL", _raise(OSError()))
    with pytest.raises(EngineError, match="there is no NVIDIA driver"):
        probe.library()


def test_a_builder_that_cannot_be_made_is_told_before_the_first_stage(machine):
    words = "CUDA initialization failure with error: 35"
    warm_up()  # once per process, and not beside a module that is no TensorRT
    machine.patch.setitem(sys.modules, "tensorrt", FakeTensorRT(builder=words))
    with pytest.raises(EngineError, match=f"TensorRT's builder cannot be made: {words}"):
        KIND.prove("int8", "cuda:0")
    machine.patch.setitem(sys.modules, "tensorrt", FakeTensorRT())
    assert KIND.prove("int8", "cuda:0") is None


def test_the_version_is_that_of_whichever_distribution_there_is(monkeypatch):
    assert probe.library_version() == "absent"
    monkeypatch.setattr(
        probe,
        "version",
        lambda name: (
            {"tensorrt-cu12": "10.9"}[name] if name == "tensorrt-cu12" else _raise(probe.PackageNotFoundError())()
        ),
    )
    assert KIND.version() == "10.9"


# --- building --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tf32", [False, True])
def test_one_way_to_an_engine_on_10_and_11(version, tf32):
    trt = FakeTensorRT(version)
    made = build(trt, b"an onnx file", Settings(tf32=tf32, tops=(1, 8)))
    names = [call[0] for call in trt.calls]
    assert names == ["network", "parse", "set" if tf32 else "clear", "build"]
    assert trt.calls[0] == ("network", 2), "strongly typed"
    assert trt.calls[2][1] == "TF32"
    shapes = [
        ("images", (1, 3, 32, 32), (1, 3, 32, 32), (1, 3, 32, 32)),
        ("images", (2, 3, 32, 32), (8, 3, 32, 32), (8, 3, 32, 32)),
    ]
    assert trt.calls[3] == ("build", shapes, "DETAILED")
    assert made.plan == b"plan"
    assert made.log == ["a warning"]


def test_every_error_of_the_parser_is_told():
    trt = FakeTensorRT(parser=[("fc.dq", "input has type\n Int32"), ("", "unsupported")])
    with pytest.raises(EngineError, match=r"does not accept the network: fc\.dq: input has type Int32; unsupported"):
        build(trt, b"x", SMALL)


def test_no_engine_is_an_error_with_what_the_log_says():
    with pytest.raises(EngineError, match="TensorRT built no engine: a warning; out of memory"):
        build(FakeTensorRT(build="out of memory"), b"x", SMALL)


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"+"), (b"warm", b"warm+"), (b"damaged", b"+"), (b"of another board", b"+")]
)
def test_a_timing_cache_is_gone_on_with_where_it_fits_and_begun_anew_where_not(before, after):
    made = build(FakeTensorRT(), b"x", Settings(tf32=False, tops=(1,), timing_cache=before))
    assert made.timing_cache == after


def test_the_sizes_of_the_protocol_are_served_and_the_headlines_exactly():
    sizes = list(compose(["scale=full"]).inference.batch_sizes)
    assert max(sizes) == TOPS[-1]
    assert {1, 64, 128, 256, 512, 1024} <= set(TOPS) & set(sizes)


@pytest.mark.parametrize("text", ["not json", "[]", '{"Layers": ["conv1", "fc"]}', "{}"])
def test_an_inspector_that_says_little_breaks_nothing(text):
    layers = parse_layers(text)
    assert layers.executed("int8") == "int8, where TensorRT does not say"
    assert layers.executed("fp16") == "fp16"


# --- an order, whole -------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A fake TensorRT on a fake H100."""
    trt = FakeTensorRT()
    monkeypatch.setattr(make, "library", lambda: trt)
    monkeypatch.setattr(make, "gpu_of", lambda device: "H100 sm90")
    monkeypatch.setattr(make, "graph_of", lambda order, layout: f"{order.precision} {layout}".encode())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return trt


def test_an_engine_file_holds_its_bytes_and_says_what_runs(gpu, tmp_path):
    built = KIND.build(order("int8"))
    assert built.tensors["plan"].numpy().tobytes() == b"plan"
    assert built.facts == {
        "input": "images", "output": "logits", "classes": 10, "tops": list(TOPS), "version": "11.4.0.106", "gpu": "H100 sm90",
    }  # fmt: skip  # one value a line would hide the shape
    assert built.executes["precision"] == "int8 in 1 of 2 layers", "the pooling has no weights"
    assert built.executes["comparable_to_tensorrt"] is True
    assert built.executes["switches"] == {"tf32": False}
    assert [layer["name"] for layer in built.evidence["layers"]] == ["conv1 + relu", "pool", "fc"]
    assert built.evidence["layers"][0]["reads"] == ["Int8 NC/32HW32"]
    assert built.evidence["timing_cache"] == "0 bytes before, 1 after"
    again = KIND.build(order("tf32"))
    assert again.evidence["timing_cache"] == "1 bytes before, 2 after"
    assert again.executes["switches"] == {"tf32": True}
    assert again.executes["precision"] == "tf32"
    assert again.signature != built.signature
    (kept,) = (tmp_path / "full-cycle-energy-benchmark").iterdir()
    assert kept.name == "tensorrt-11.4.0.106-H100-sm90.timing"


def test_an_engine_that_does_not_load_is_an_error(gpu):
    gpu.errors["load"] = "version tag does not match"
    with pytest.raises(EngineError, match="cannot load the engine that it built: version tag does not match"):
        KIND.build(order())


@pytest.mark.parametrize(
    ("fact", "said"), [("gpu", "GPU A100 sm80, but this is H100 sm90"), ("version", "TensorRT 9, but this is 11")]
)
def test_an_engine_of_another_machine_is_refused(gpu, fact, said):
    built = KIND.build(order())
    facts = {**built.facts, fact: "A100 sm80" if fact == "gpu" else "9"}
    moved = EngineFile(built.kind, built.tensors, facts, built.executes, built.signature, built.mean, built.std)
    with pytest.raises(EngineError, match=f"the engine was built for {said}"):
        KIND.load(moved, "cuda:0")


class HostMemory:
    """Memory on the host, which remembers captures."""

    name = "torch"
    stream = 77

    def __init__(self, graphs=True) -> None:
        self.graphs, self.captured, self.replays, self.awaited = graphs, 0, 0, 0

    def hold(self, values):
        return values.data_ptr(), values

    def room(self, shape):
        made = torch.zeros(shape)
        return made.data_ptr(), made

    def capture(self, work):
        if not self.graphs:
            return None
        self.captured += 1
        work()

        def replay():
            self.replays += 1

        return replay

    def synchronise(self):
        self.awaited += 1


def _engine(trt, memory):
    return TensorRTEngine(trt, KIND.build(order()), memory)


def test_a_batch_runs_in_the_profile_that_serves_it_with_its_own_addresses(gpu):
    memory = HostMemory()
    engine = _engine(gpu, memory)
    gpu.calls.clear()
    batch = engine.prepare(torch.zeros(9, 3, 32, 32))
    logits = engine(batch)
    assert logits.shape == (9, 10)
    assert gpu.calls == [
        ("profile", 2, 77), ("shape", "images", (9, 3, 32, 32)), ("address", "images", batch.given),
        ("address", "logits", logits.data_ptr()), ("run", 77),
    ]  # fmt: skip  # one call a line would hide the shape
    assert memory.awaited == 0, "nothing waits by itself"
    engine.synchronise()
    assert memory.awaited == 1
    with pytest.raises(EngineError, match="a batch of 1025 images: the engine was built for 1024 at most"):
        engine.prepare(torch.zeros(1025, 3, 32, 32))


def test_a_batch_that_comes_back_is_captured_once_and_then_replayed(gpu):
    memory = HostMemory()
    engine = _engine(gpu, memory)
    batches = [engine.prepare(torch.zeros(1, 3, 32, 32)) for _ in range(2)]
    for _ in range(CAPTURED_AT - 1):
        for batch in batches:
            engine(batch)
    assert memory.captured == 0, "a pass over a test set pays for no capture"
    gpu.calls.clear()
    engine(batches[0])
    assert [call[0] for call in gpu.calls] == ["shape", "address", "address", "run", "run"], "set up, then captured"
    engine(batches[1])
    gpu.calls.clear()
    for batch in batches * 3:
        engine(batch)
    assert (memory.captured, memory.replays, gpu.calls) == (2, 8, [])
    assert engine.executes["switches"] == {"tf32": False, "buffers": "torch", "cuda_graph": True}


def test_memory_without_graphs_launches_every_call(gpu):
    memory = HostMemory(graphs=False)
    memory.name = "pycuda"
    engine = _engine(gpu, memory)
    batch = engine.prepare(torch.zeros(1, 3, 32, 32))
    for _ in range(CAPTURED_AT + 2):
        engine(batch)
    gpu.calls.clear()
    engine(batch)
    assert [call[0] for call in gpu.calls] == ["shape", "address", "address", "run"]
    assert engine.executes["switches"]["buffers"] == "pycuda"
    assert engine.executes["switches"]["cuda_graph"] is False


@pytest.mark.parametrize(
    ("error", "said"),
    [("run", "did not run a batch of 1 images"), ("profile", "no memory for a TensorRT context of up to 1 images")],
)
def test_what_fails_at_work_is_an_error(gpu, error, said):
    gpu.errors[error] = True
    engine = _engine(gpu, HostMemory())
    with pytest.raises(EngineError, match=said):
        engine(engine.prepare(torch.zeros(1, 3, 32, 32)))


# --- torch's memory --------------------------------------------------------------------------------------------------


class FakeCuda:
    """torch's graphs, without a GPU."""

    side = SimpleNamespace(cuda_stream=77, synchronize=lambda: None)

    def __init__(self, device) -> None:
        self.done: list[str] = []
        self.broken = False

    def capture(self, work):
        if self.broken:
            raise RuntimeError("operation not permitted")
        work()
        return lambda: self.done.append("replay")

    def abandon(self):
        self.done.append("abandon")


@pytest.fixture
def torch_memory(monkeypatch):
    from benchmark.deploy.trt import buffers

    monkeypatch.setattr(buffers, "Cuda", FakeCuda)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return buffers.memory_of("torch", "cpu")


def test_torchs_memory_copies_what_it_is_given_and_replays_on_its_own_stream(torch_memory):
    images = torch.rand(2, 3, dtype=torch.float64)
    address, held = torch_memory.hold(images)
    images.zero_()
    assert held.dtype == torch.float32
    assert held.sum() > 0, "a copy: the caller may do with its own what it likes"
    assert address == held.data_ptr()
    address, logits = torch_memory.room((2, 10))
    assert (address, logits.shape) == (logits.data_ptr(), (2, 10))
    assert torch_memory.stream == 77
    torch_memory.capture(lambda: None)()
    assert torch_memory._graphs.done == ["replay"]


def test_a_capture_that_fails_is_an_error_and_leaves_nothing_open(torch_memory):
    torch_memory._graphs.broken = True
    with pytest.raises(EngineError, match="cannot be captured in a CUDA graph"):
        torch_memory.capture(lambda: None)
    assert torch_memory._graphs.done == ["abandon"]


# --- pycuda ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pycuda(monkeypatch):
    """A pycuda that remembers what was imported and allocated."""
    driver = ModuleType("pycuda.driver")
    driver.done = []
    driver.Stream = lambda: SimpleNamespace(handle=99, synchronize=lambda: driver.done.append("synchronise"))

    def alloc(size):
        driver.done.append(("alloc", size))
        return 4096

    driver.mem_alloc = alloc
    driver.memcpy_htod = lambda to, values: driver.done.append(("copy", to, values.shape, str(values.dtype)))
    primary = ModuleType("pycuda.autoprimaryctx")
    for name, module in {
        "pycuda": ModuleType("pycuda"),
        "pycuda.driver": driver,
        "pycuda.autoprimaryctx": primary,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "pycuda.autoinit", None)  # importing it would raise
    monkeypatch.setattr(torch.cuda, "init", lambda: driver.done.append("torch first"))
    monkeypatch.setattr(torch, "zeros", lambda size, device: driver.done.append(("a tensor of torch's", device)))
    monkeypatch.setattr(torch, "as_tensor", lambda seen, device: seen)
    return driver


def test_pycuda_shares_torchs_context_and_copies_nothing_back(pycuda):
    from benchmark.deploy.trt.pycuda_buffers import PycudaMemory

    memory = PycudaMemory("cuda:0")
    assert pycuda.done == ["torch first", ("a tensor of torch's", "cuda:0")]
    address, _ = memory.hold(torch.ones(2, 3, dtype=torch.float64))
    assert address == 4096
    assert pycuda.done[2:] == [("alloc", 24), ("copy", 4096, (2, 3), "float32")]
    address, seen = memory.room((2, 10))
    assert pycuda.done[-1] == ("alloc", 80)
    assert seen.__cuda_array_interface__ == {"shape": (2, 10), "typestr": "<f4", "data": (4096, False), "version": 3}
    assert memory.capture(lambda: None) is None
    assert memory.stream == 99
    with pytest.raises(EngineError, match="the first GPU only"):
        PycudaMemory("cuda:1")


def test_a_pycuda_that_cannot_be_had_is_an_error(pycuda, monkeypatch):
    from benchmark.deploy.trt.buffers import memory_of

    monkeypatch.setitem(sys.modules, "pycuda.autoprimaryctx", None)
    with pytest.raises(
        EngineError, match=r"inference.buffers=pycuda: .*pip install -e '\.\[pycuda\]', or buffers=torch"
    ):
        memory_of("pycuda", "cuda:0")


# --- with a GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("buffers", ["torch", "pycuda"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_on_a_gpu_an_engine_answers_as_its_network(precision, buffers):
    why = probe.why_not()
    if why:
        pytest.skip(why)
    if buffers == "pycuda" and importlib.util.find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed")
    found = network("resnet")
    how = Calibration(data=DATA, scale=SCALE, how=Calibrating(images=100))
    scales = calibrated(PlainBench(), how, Output(network=found)).arrays if precision == "int8" else None
    KIND.prove(precision, "cuda:0")
    built = KIND.build(BuildOrder(found, scales, precision, "cuda:0", lambda what, decide: decide()))
    assert built.evidence["layers"], "what ran in which precision must be known"
    engine = KIND.load(built, "cuda:0", buffers)
    images = torch.randn(16, 3, 32, 32)
    expected = load(found)(images)
    batch = engine.prepare(images)
    allowed = {"fp32": 1e-4, "int8": 0.15}.get(precision, 5e-3)
    for _ in range(CAPTURED_AT + 2):
        logits = engine(batch)
        engine.synchronise()
        assert (logits.cpu() - expected).norm() / expected.norm() < allowed
