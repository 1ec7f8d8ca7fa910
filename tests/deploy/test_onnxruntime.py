"""ONNX Runtime as an engine: what it answers, what it says that it executes, and what it refuses."""

from __future__ import annotations

import importlib.util
import sys

import onnx
import pytest
import torch

from benchmark.deploy import ort
from benchmark.deploy.engines import kind_named
from benchmark.deploy.export import warm_up
from benchmark.plan.deployment import EngineError
from benchmark.plan.stage import EngineFile
from benchmark.vision.network import load
from tests.deploy.exported import exported, network, order

KIND = kind_named("onnxruntime")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Exports are made once."""
    models = {id(network(name)): name for name in ("tiny", "resnet")}
    monkeypatch.setattr(
        "benchmark.deploy.graphs.export", lambda given: onnx.load_from_string(exported(models[id(given)]))
    )


def _answers(built, images):
    engine = KIND.load(built, "cpu")
    return engine(engine.prepare(images))


def test_an_fp32_engine_answers_as_its_network():
    built = KIND.build(order())
    images = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        expected = load(network())(images)
    assert torch.allclose(_answers(built, images), expected, atol=1e-5)
    assert built.executes["precision"] == "fp32"
    assert built.executes["comparable_to_tensorrt"] is False
    assert built.executes["library"].startswith("onnxruntime 1.")
    assert built.executes["switches"]["threads"] == torch.get_num_threads()
    assert built.evidence["operators"]["Gemm"] == 1


def test_fp16_on_a_cpu_is_called_what_it_is():
    built = KIND.build(order("fp16", of="resnet"))
    assert built.executes["precision"] == "fp32 compute, fp16-rounded weights"
    images = torch.randn(8, 3, 32, 32)
    full = _answers(KIND.build(order(of="resnet")), images)
    apart = (_answers(built, images) - full).norm() / full.norm()
    assert 0 < apart < 2e-3


def test_the_words_for_what_is_executed_come_from_the_graph():
    def graph(*nodes, kind=onnx.TensorProto.FLOAT):
        weight = onnx.helper.make_tensor("w", kind, [1], [1.0])
        made = [onnx.helper.make_node(op, ["x", "w"], ["y"]) for op in nodes]
        return onnx.helper.make_model(onnx.helper.make_graph(made, "g", [], [], [weight]))

    half = onnx.TensorProto.FLOAT16
    assert ort.executed(graph("Conv", "Gemm"), "fp32") == "fp32"
    assert ort.executed(graph("Conv"), "fp16") == "fp32 compute, fp16-rounded weights"
    assert ort.executed(graph("Conv", kind=half), "fp16") == "fp16", "where a machine does run it, it is said"
    assert ort.executed(graph("QLinearConv", "QGemm"), "int8") == "int8 in 2 of 2 layers"
    assert ort.executed(graph("QLinearConv", "Conv"), "int8") == "int8 in 1 of 2 layers, fp32 in the others"
    assert ort.executed(graph("Conv"), "int8") == "fp32", "asked for, and not done"


def test_what_is_measured_together_has_one_signature():
    assert KIND.build(order()).signature == KIND.build(order()).signature
    signatures = {
        KIND.build(order(precision, of=of)).signature for precision in ("fp32", "fp16") for of in ("tiny", "resnet")
    }
    assert len(signatures) == 4


@pytest.mark.parametrize(
    ("precision", "device", "why"),
    [
        ("fp32", "cpu", ""),
        ("fp16", "cpu", ""),
        ("int8", "cpu", ""),
        ("tf32", "cpu", "tf32 needs a GPU"),
        ("bf16", "cpu", "no bf16 convolutions on a CPU: choose engine=torch"),
        ("fp32", "cuda", "on the CPU only: its energy says nothing about a GPU"),
    ],
)
def test_what_it_can_do(precision, device, why):
    said = KIND.why_unavailable(precision, device)
    assert (said == "") if not why else why in said


def test_what_is_not_installed_is_named_without_importing_anything(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("onnx", "onnxscript") else find(name)
    )
    assert KIND.why_unavailable("fp32", "cpu") == "onnx and onnxscript not installed: pip install -e '.[onnx]'"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    warm_up.cache_clear()
    with pytest.raises(EngineError, match="exporting needs"):
        KIND.prove("fp32", "cpu")


def test_what_the_exporter_loads_at_first_use_is_loaded_before_the_first_engine(monkeypatch):
    exports = []
    monkeypatch.setattr("benchmark.deploy.export._exported", exports.append)
    warm_up.cache_clear()
    KIND.prove("fp32", "cpu")
    KIND.prove("int8", "cpu")
    assert len(exports) == 1, "once a process"


def _file(content: bytes) -> EngineFile:
    built = KIND.build(order())
    tensors = {"onnx": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    return EngineFile(built.kind, tensors, built.facts, built.executes, built.signature, built.mean, built.std)


def test_a_damaged_file_is_one_clear_error():
    with pytest.raises(EngineError, match="ONNX Runtime does not accept the network"):
        KIND.load(_file(exported()[:500]), "cpu")


def test_a_file_is_data_and_brings_no_operators_or_files_of_its_own():
    model = onnx.load_from_string(exported())
    model.graph.node[0].domain = "com.elsewhere"
    with pytest.raises(EngineError, match="operators outside the ONNX standard"):
        KIND.load(_file(model.SerializeToString()), "cpu")
    model = onnx.load_from_string(exported())
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(EngineError, match="keeps weights in other files"):
        KIND.load(_file(model.SerializeToString()), "cpu")
