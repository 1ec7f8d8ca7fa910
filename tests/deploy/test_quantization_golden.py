"""Calibrators, scales, codes and placement against what NVIDIA's and ONNX Runtime's own code return.

Source: quant_golden.json (explained in quant_golden.md of the reference): calibration, quantize, net.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmark.deploy.graphs import half
from benchmark.deploy.quantization.collect import histograms
from benchmark.deploy.quantization.histogram import Histogram
from benchmark.deploy.quantization.placement import insert, targets
from benchmark.deploy.quantization.scales import activation_codes, activation_scale, weight_codes, weight_scales
from benchmark.deploy.quantization.thresholds import choose, divergences, entropy_bin, percentile_bin
from benchmark.plan.deployment import EngineError
from tests.data import golden_inputs as gi

GOLDEN = json.loads((Path(gi.HERE) / "quant_golden.json").read_text())
SETS, COUNTED = GOLDEN["calibration"]["sets"], GOLDEN["calibration"]["histograms"]
NET = GOLDEN["net"]


def _unit(seed, n):
    return gi.unit(seed, n)


def _normal(seed, n):
    return np.sqrt(-2 * np.log(1 - _unit(seed, n))) * np.cos(2 * np.pi * _unit(seed + 1, n))


def _batch(recipe):
    """A batch by its recipe, in float32."""
    kind, n, seed = recipe["kind"], recipe["n"], recipe.get("seed", 0)
    if kind == "constant":
        values = np.full(n, recipe["value"])
    elif kind == "uniform":
        values = gi.tensor(seed, [n], recipe["lo"], recipe["hi"])
    elif kind == "normal":
        values = _normal(seed, n) * recipe["scale"]
    elif kind == "half_normal":
        values = np.maximum(_normal(seed, n), 0) * recipe["scale"]
    elif kind == "shifted_relu":
        values = np.maximum(_normal(seed, n) - recipe["shift"], 0) * recipe["scale"]
    elif kind == "pareto":
        values = ((1 - _unit(seed, n)) ** (-1 / 3) - 1) * recipe["scale"]
        values[_unit(seed + 1, n) < 0.5] *= -1
    else:
        low = np.abs(_normal(seed, n))[: recipe["n_low"]] * recipe["scale"]
        values = np.concatenate([low, gi.tensor(seed + 2, [n - recipe["n_low"]], recipe["lo"], recipe["hi"])])
    for index, value in recipe.get("set", []):
        values[index] = value
    return values.astype(np.float32)


def _collected(name) -> Histogram:
    found = Histogram()
    for recipe, sums in zip(SETS[name]["batches"], SETS[name]["checksums"], strict=True):
        batch = _batch(recipe)
        assert batch.astype(np.float64).sum() == pytest.approx(sums["sum"], rel=1e-9), "the inputs are the golden's"
        found.collect(batch)
    return found


def _counted(recipe) -> Histogram:
    bins = recipe["bins"]
    counts = np.zeros(bins)
    if "counts" in recipe:
        for index, value in recipe["counts"]:
            counts[index] = value
    else:
        k = np.arange(bins)
        counts = np.floor(recipe["top"] * np.exp(-k / recipe["tau"]) * (0.5 + _unit(recipe["seed"], bins)))
    for first, last, value in recipe.get("fill", []):
        counts[first:last] = value
    made = Histogram()
    made.counts, made.edges = counts.astype(np.int64), np.linspace(0, recipe["amax"], bins + 1)
    made.amax = recipe["amax"]
    return made


def _of(case) -> tuple[Histogram, dict]:
    """The histogram of a case, and what is expected of it."""
    if case in SETS:
        return _collected(case), SETS[case]["nvidia"]
    return _counted(COUNTED[case]["recipe"]), COUNTED[case]


CASES = [*SETS, *COUNTED]


@pytest.mark.parametrize("case", CASES)
def test_bins_are_theirs(case):
    made, golden = _of(case)
    wanted = golden["histogram"]
    counts = made.counts
    if case == "all_zero":
        assert (made.total, made.amax) == (4096, 0.0), "which bin holds the zeros decides nothing"
        return
    assert (len(counts), made.total, int((counts > 0).sum())) == (wanted["bins"], wanted["total"], wanted["nonempty"])
    assert counts[:5].tolist() == wanted["first5"]
    assert counts[-3:].tolist() == wanted["last3"]
    assert (counts * np.arange(1, len(counts) + 1)).sum() / len(counts) == pytest.approx(wanted["weighted"], rel=1e-9)
    if "last_edge" in golden:
        assert made.edges[-1] == pytest.approx(golden["last_edge"], rel=1e-6)
        assert made.amax == pytest.approx(SETS[case]["max"], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_percentile_ends_where_theirs_does(case):
    made, golden = _of(case)
    for percentile, amax in golden["percentile"].items():
        if amax == 0 and made.amax:  # theirs keeps nothing but zeros
            assert choose(made, "percentile", float(percentile))[:2] == (made.amax, "max")
            continue
        found = choose(made, "percentile", float(percentile)).amax
        ties = golden.get("percentile_exact_ties", {}).get(percentile, [])
        assert any(found == pytest.approx(each, rel=1e-6, abs=1e-12) for each in (amax, *ties)), percentile


@pytest.mark.parametrize("case", CASES)
def test_divergences_are_theirs(case):
    made, golden = _of(case)
    if len(made.counts) < 128:
        assert choose(made, "entropy").reason == "entropy needs 128 bins and has 100"
        return
    if case == "all_zero":
        return
    found = divergences(made.counts)
    for kept, wanted in golden["kl"].items():
        value = found[int(kept) - 128]
        if wanted in ("nan", "inf"):
            assert value == math.inf, kept
        else:
            assert value == pytest.approx(wanted, rel=1e-9, abs=1e-11), kept
    assert int(np.isinf(found).sum()) == golden["kl_inf"] + golden["kl_nan"], "NaN is no answer either"


@pytest.mark.parametrize("case", CASES)
def test_entropy_keeps_the_bins_that_theirs_keeps(case):
    made, golden = _of(case)
    if case in ("all_zero", "fewer_than_128", "only_first"):
        assert choose(made, "entropy")[:2] == (made.amax, "max")
        return
    wanted = golden.get("entropy_nan_as_infinity", {"bin": golden["entropy_bin"], "amax": golden["entropy"]})
    kept, reason = entropy_bin(made.counts)
    assert (kept, reason) == (wanted["bin"], "")
    assert made.edges[kept] == pytest.approx(wanted["amax"], rel=1e-6)
    chosen = choose(made, "entropy")
    if case in ("away_from_zero", "only_last"):
        return
    assert chosen.algorithm == "entropy", "an ordinary set is not refused"
    assert chosen.amax == pytest.approx(wanted["amax"], rel=1e-6)


def test_where_all_values_lie_far_from_zero_entropy_is_not_believed():
    made, golden = _of("away_from_zero")
    assert golden["entropy_nan_as_infinity"]["amax"] < 2.01
    chosen = choose(made, "entropy")
    assert (chosen.amax, chosen.algorithm) == (made.amax, "max")
    assert chosen.reason.startswith("entropy would clip 9")


# --- codes -----------------------------------------------------------------------------------------------------------

ACTIVATIONS = [name for name in GOLDEN["quantize"] if not name.startswith("weights")]
WEIGHTS = [name for name in GOLDEN["quantize"] if name.startswith("weights")]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_the_codes_of_quantizelinear(name):
    golden = GOLDEN["quantize"][name]
    values = np.array([float(value) for value in golden["x"]], dtype=np.float32)
    codes = activation_codes(values, golden["scale"])
    assert codes.dtype == np.int8
    assert codes.tolist() == golden["codes_quantizelinear"]
    assert np.allclose(codes * np.float32(golden["scale"]), golden["dequantized"], rtol=1e-6)


def _weight(recipe):
    weight = gi.tensor(recipe["seed"], recipe["shape"], recipe["lo"], recipe["hi"])
    channels = np.moveaxis(weight, recipe["axis"], 0)
    for channel in recipe.get("zero_channels", []):
        channels[channel] = 0
    if "scaled_channel" in recipe:
        channel, factor = recipe["scaled_channel"]
        channels[channel] *= factor
    return weight.astype(np.float32)


def _same_sums(codes, golden):
    flat = codes.astype(np.int64).ravel()
    k = np.arange(1, flat.size + 1)
    assert (int(flat.sum()), int((flat * flat).sum()), int((flat * k).sum())) == tuple(
        golden[name] for name in ("sum", "sumsq", "weighted")
    )


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_have_a_scale_a_channel_and_narrow_codes(name):
    golden = GOLDEN["quantize"][name]
    weight, axis = _weight(golden["weight"]), golden["weight"]["axis"]
    scales = weight_scales(weight, axis)
    assert np.allclose(scales, golden["scale_amax_over_127"], rtol=1e-6, atol=0)
    codes = weight_codes(weight, scales, axis)
    first = next(name for name in golden["codes"] if name.startswith("first"))
    assert codes.ravel()[: len(golden["codes"][first])].tolist() == golden["codes"][first]
    _same_sums(codes, golden["codes"])
    assert np.abs(codes.astype(int)).max() == golden["codes"]["max_abs"] == 127
    shape = [1] * weight.ndim
    shape[axis] = -1
    assert np.abs(codes * scales.reshape(shape) - weight).max() == pytest.approx(golden["max_abs_error"], rel=1e-4)


# --- a residual network, through the whole of it ---------------------------------------------------------------------

EPS = 1e-5


def _parameter(name):
    recipe = NET["params"][name]
    return gi.tensor(recipe["seed"], recipe["shape"], recipe["lo"], recipe["hi"])


def _folded(conv, bn):
    factor = _parameter(f"{bn}.weight") / np.sqrt(_parameter(f"{bn}.running_var") + EPS)
    bias = _parameter(f"{bn}.bias") - _parameter(f"{bn}.running_mean") * factor
    return (_parameter(f"{conv}.weight") * factor[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


FOLDED = {
    "stem.conv": "stem.bn", "b1.conv1": "b1.bn1", "b1.conv2": "b1.bn2", "b2.conv1": "b2.bn1", "b2.conv2": "b2.bn2",
    "b2.proj": "b2.bnp",
}  # fmt: skip  # one value a line would hide the shape


def _net() -> onnx.ModelProto:
    """The golden's network, batch norm folded, as an ONNX graph."""
    arrays = {}
    for conv, bn in FOLDED.items():
        arrays[f"{conv}.weight"], arrays[f"{conv}.bias"] = _folded(conv, bn)
    for name in ("fc.weight", "fc.bias"):
        arrays[name] = _parameter(name).astype(np.float32)

    def conv(name, given, made, stride=1, pad=1):
        weights = [f"{name}.weight", f"{name}.bias"]
        return helper.make_node("Conv", [given, *weights], [made], name, pads=[pad] * 4, strides=[stride] * 2)

    def node(op, given, made, **more):
        return helper.make_node(op, given, [made], f"{op}_{made}", **more)

    nodes = [
        conv("stem.conv", "x", "s"), node("Relu", ["s"], "sr"),
        node("MaxPool", ["sr"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        conv("b1.conv1", "p", "c1"), node("Relu", ["c1"], "a1"), conv("b1.conv2", "a1", "m1"),
        node("Add", ["m1", "p"], "s1"), node("Relu", ["s1"], "r1"),
        conv("b2.conv1", "r1", "c2", stride=2), node("Relu", ["c2"], "a2"), conv("b2.conv2", "a2", "m2"),
        conv("b2.proj", "r1", "pj", stride=2, pad=0), node("Add", ["m2", "pj"], "s2"), node("Relu", ["s2"], "r2"),
        node("GlobalAveragePool", ["r2"], "g"), node("Flatten", ["g"], "flat"),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], "logits", transB=1),
    ]  # fmt: skip  # a line a layer
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )  # fmt: skip  # same
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _images(recipe):
    return gi.tensor(recipe["seed"], recipe["shape"], recipe["lo"], recipe["hi"]).astype(np.float32)


def _run(model, images, shown=()):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in shown)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits", *shown], {"x": images})


@pytest.fixture(scope="module")
def net():
    return _net()


@pytest.fixture(scope="module")
def seen(net):
    return histograms(net, targets(net).all, (_images(recipe) for recipe in NET["inputs"]["calib"]), 1)


def test_the_network_is_the_goldens(net):
    (logits,) = _run(net, _images(NET["inputs"]["test"]))
    assert np.allclose(logits, NET["logits_float"], atol=1e-5)


def test_what_is_quantized_is_what_theirs_quantizes(net):
    assert set(targets(net).shared) == set(NET["int8"]["max_trt"]["scales"])
    assert set(targets(net).all) == set(NET["int8"]["max_ort"]["scales"])
    assert set(targets(net).own) == {"m1", "m2"}


@pytest.mark.parametrize("name", ["max", "percentile_99"])
def test_the_ranges_of_its_activations_are_theirs(seen, name):
    for tensor, wanted in NET["calibration"][name].items():
        found = choose(seen[tensor], name.partition("_")[0], 99.0)
        assert found.amax == pytest.approx(wanted, rel=1e-5), tensor


@pytest.mark.parametrize("layout", ["trt", "ort"])
@pytest.mark.parametrize("name", ["max", "percentile_99"])
def test_codes_and_logits_of_the_quantized_network_are_theirs(net, seen, name, layout):
    golden = NET["int8"][f"{name}_{layout}"]
    scales = {tensor: activation_scale(choose(own, name.partition("_")[0], 99.0).amax) for tensor, own in seen.items()}
    for tensor, wanted in golden["scales"].items():
        assert scales[tensor] == pytest.approx(wanted, rel=1e-5), tensor
    held = {each.name: numpy_helper.to_array(each) for each in net.graph.initializer}
    weights = {weight: weight_scales(held[weight], axis) for weight, axis in targets(net).weights.items()}
    for layer, wanted in NET["weights"].items():
        assert np.allclose(weights[f"{layer}.weight"], wanted["scale"], rtol=1e-5, atol=0)
        _same_sums(weight_codes(held[f"{layer}.weight"], weights[f"{layer}.weight"], 0), wanted["codes"])
    made = insert(net, scales, weights, layout)
    pairs = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == golden["qdq_pairs_on_activations"]
    shown = [f"{tensor}.int8" for tensor in golden["codes"]]
    logits, *codes = _run(made, _images(NET["inputs"]["test"]), shown)
    for tensor, found in zip(golden["codes"], codes, strict=True):
        _same_sums(found, golden["codes"][tensor])
        assert int((found == 127).sum()) == golden["codes"][tensor]["at_127"]
        assert int((found == -128).sum()) == golden["codes"][tensor]["at_-128"]
    assert np.allclose(logits, golden["logits"], atol=5e-6)


def test_fp16_of_the_network_is_theirs(net):
    (logits,) = _run(half(net), _images(NET["inputs"]["test"]))
    golden = NET["fp16"]
    assert np.allclose(logits, golden["weights_rounded_logits"], atol=2e-6)
    assert np.abs(logits - NET["logits_float"]).max() == pytest.approx(golden["max_abs_diff_to_float"], rel=1e-2)


def test_single_values_become_the_fp16_of_onnx_runtimes_converter_and_what_it_would_clip_is_refused():
    golden = GOLDEN["fp16_values"]
    theirs = next(values for name, values in golden.items() if name.startswith("onnxruntime"))
    pairs = [(float(value), float(wanted)) for value, wanted in zip(golden["x"], theirs, strict=True)]
    kept = [pair for pair in pairs if abs(pair[0]) <= 65504]
    weight = np.float32([value for value, _ in kept])[:, None]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(kept)])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip  # one argument a line would hide the shape
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (made,) = [numpy_helper.to_array(each) for each in half(model).graph.initializer]
    assert made.ravel().astype(float).tolist() == pytest.approx([wanted for _, wanted in kept], rel=1e-6)
    for value in (value for value, _ in pairs if abs(value) > 65504 and math.isfinite(value)):
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full_like(weight, value), "w"))
        with pytest.raises(EngineError, match="fp16 ends at 65504"):
            half(model)


def test_a_percentile_is_a_left_edge():
    counts = np.zeros(200, dtype=np.int64)
    counts[[10, 150]] = [99, 1]
    assert percentile_bin(counts, 99.0) == 10
    assert percentile_bin(counts, 99.5) == 150
