"""Whole lives that end in an engine of ONNX Runtime: rows, resumption, and agreement of what was trained."""

from __future__ import annotations

import pytest

from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.report.tables import footnotes
from tests.harness.helpers import here_of, lives_of, tiny_experiment, work_all

DEVICE = find_device("cpu")


def _rows(root):
    book = Book.read(Store(root / "results", root / "artifacts"))
    stages = stage_rows(book)
    return stages, summarise(book, stages)


def _quantized(root, **task):
    method = {
        "_target_": "methods.quantization.post_training.Quantization",
        "name": "quantization/int8",
        "precision": "int8",
    }
    return tiny_experiment(root, **task).model_copy(update={"method": method, "engine": "onnxruntime"})


@pytest.mark.slow
def test_a_quantized_life_has_a_row_for_its_calibration_within_tec(tmp_path):
    experiment = _quantized(tmp_path, calibration={"images": 32})
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store))
    stages, (row,) = _rows(tmp_path)
    assert [(stage.phase, stage.stage, stage.kind) for stage in stages] == [
        ("base", "train", "TEC"),
        ("compress", "scales", "TEC"),
        ("deploy", "build_engine", "deploy"),
        ("infer", "inference", "IEC"),
    ]
    assert row.compress_wh == stages[1].energy_wh > 0
    assert row.tec_wh == pytest.approx(row.base_wh + row.compress_wh)
    assert (row.method, row.deploy_precision, row.engine, row.layout) == (
        "quantization/int8",
        "int8",
        "onnxruntime",
        "ort",
    )
    # its one convolution feeds a pooling: ONNX Runtime finds no integer kernel between pairs, and the row says so
    assert row.executed_precision == "fp32"
    assert "onnxruntime runs int8 as fp32" in footnotes([row])
    assert row.comparable_to_tensorrt == "no"
    said: list[str] = []
    work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store), said.append)
    assert all(": recorded" in line for line in said), "nothing is worked twice"


@pytest.mark.slow
def test_a_trained_network_answers_in_int8_as_it_does_in_fp32(tmp_path):
    words = [
        "method=quantization/int8", "model=repdistiller/resnet8", "data=synthetic", "recipe=check", "recipe.epochs=2",
        "scale=small", "scale.train_images=4000", "+scale.test_images=1000", "hardware=cpu", "inference.windows=2",
        "inference.window_s=0.1", "inference.curve_window_s=0.1", "inference.idle_s=0.1", "inference.warmup_s=0.1",
        f"paths.results={tmp_path / 'results'}", f"paths.artifacts={tmp_path / 'artifacts'}",
    ]  # fmt: skip  # one word a line would hide the shape
    experiment, _ = config.parse(config.compose(words), here_of(DEVICE))
    assert experiment.engine == "onnxruntime", "engine=auto on a CPU"
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store))
    _, (row,) = _rows(tmp_path)
    assert row.network_acc_pct > 20, "chance is 1 %: else agreement means nothing"
    assert row.agreement_pct >= 97
    assert row.executed_precision.startswith("int8 in ")
    assert row.warning == ""
