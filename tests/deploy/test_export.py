"""From a network to an ONNX file: the same numbers, a dynamic batch, nothing of this machine in it."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from torch import nn

from benchmark.deploy import export as exporting
from benchmark.deploy.export import INPUT, OPSET, OUTPUT, export, plain, prove_exporter, runner
from benchmark.deploy.graphs import graph_of, half
from benchmark.plan.deployment import EngineError
from benchmark.plan.folders import CONFIGS, names
from benchmark.plan.task import Model
from benchmark.vision.builders import build_model
from benchmark.vision.network import freeze, load
from tests.deploy.exported import RECIPE, exported, network, order


def _logits(of, images):
    with torch.inference_mode():
        return load(network(of))(images).numpy()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_file_computes_what_the_network_computes_at_any_batch_size(size):
    images = torch.randn(size, 3, 32, 32)
    assert np.allclose(runner(exported())(images.numpy()), _logits("tiny", images), atol=1e-5)


def test_a_file_is_plain():
    model = onnx.load_from_string(exported())
    assert [each.version for each in model.opset_import] == [OPSET]
    assert [each.name for each in model.graph.input] == [INPUT]
    assert [each.name for each in model.graph.output] == [OUTPUT]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}, "folded in fp32"
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"/benchmark/" not in exported(), "whose machine it was is nobody's business"


def test_a_file_that_computes_otherwise_is_refused(monkeypatch):
    def wrong(module):
        model = onnx.load_from_string(exported())
        bias = next(each for each in model.graph.initializer if each.dims == [10])
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        return model

    monkeypatch.setattr(exporting, "_exported", wrong)
    with pytest.raises(EngineError, match=r"away from PyTorch's logits; 0\.0001 is allowed"):
        export(network())


class Fickle(nn.Module):
    """Looks at its numbers before it decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 10)

    def forward(self, images):
        means = images.mean((2, 3))
        return self.layer(means if float(means.sum()) > 0 else -means)


def test_a_network_that_cannot_be_exported_is_refused_in_a_line():
    with pytest.raises(EngineError, match="cannot be exported to ONNX") as refused:
        plain(exporting._exported(Fickle()))
    assert "\n" not in str(refused.value)


def test_another_opset_and_operators_of_others_are_refused():
    model = onnx.load_from_string(exported())
    model.opset_import[0].version = 18
    with pytest.raises(EngineError, match="wrote opset 18, not 20"):
        plain(model)
    model = onnx.load_from_string(exported())
    model.graph.node[0].domain = "com.elsewhere"
    with pytest.raises(EngineError, match="operators outside the ONNX standard: Conv"):
        plain(model)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(EngineError, match=r"exporting needs onnx, onnxruntime and onnxscript .*\.\[onnx\]"):
        prove_exporter()


# --- half ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_half_holds_every_weight_in_fp16_and_speaks_fp32():
    before = onnx.load_from_string(exported("resnet"))
    model = half(before)
    assert before.SerializeToString() == onnx.load_from_string(exported("resnet")).SerializeToString(), "a new model"
    floats = [each for each in model.graph.initializer if each.data_type != onnx.TensorProto.INT64]
    assert {each.data_type for each in floats} == {onnx.TensorProto.FLOAT16}
    ends = (*model.graph.input, *model.graph.output)
    assert {each.type.tensor_type.elem_type for each in ends} == {onnx.TensorProto.FLOAT}
    images = torch.randn(16, 3, 32, 32)
    expected = _logits("resnet", images)
    apart = np.linalg.norm(runner(model.SerializeToString())(images.numpy()) - expected) / np.linalg.norm(expected)
    assert 0 < apart < 2e-3, "rounded, and no more than that"


def _with_weight(value):
    model = onnx.load_from_string(exported())
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model


def test_a_weight_beyond_fp16_is_refused_and_a_tiny_one_is_not():
    with pytest.raises(EngineError, match=r"holds 7e\+04: fp16 ends at 65504"):
        half(_with_weight(-70_000.0))
    tiny = half(_with_weight(1e-12))
    weight = next(each for each in tiny.graph.initializer if len(each.dims) == 4)
    assert 0 < numpy_helper.to_array(weight).flat[0] < 1e-7


def test_what_no_file_can_hold_is_refused(monkeypatch):
    monkeypatch.setattr("benchmark.deploy.graphs.export", lambda _: onnx.load_from_string(exported()))
    with pytest.raises(EngineError, match="no engine that reads ONNX has bf16 convolutions: choose engine=torch"):
        graph_of(order("bf16"), "ort")
    with pytest.raises(EngineError, match="INT8 needs the scales of a calibration"):
        graph_of(order("int8"), "ort")
    assert graph_of(order("tf32"), "ort") == graph_of(order("fp32"), "ort"), "a switch of the engine, not of the file"


@pytest.mark.slow
@pytest.mark.parametrize("name", names("model"))
def test_every_network_of_the_zoo_is_exported_as_it_computes(name):
    words = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    words.pop("recipe", None)
    model = Model(**words)
    torch.manual_seed(0)
    made = export(freeze(build_model(model, 100).eval(), model, 100, RECIPE))  # raises where it computes otherwise
    assert made.graph.output[0].name == OUTPUT
