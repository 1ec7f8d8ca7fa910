"""Where pairs stand, what they are made of, and what is refused; calibration as a stage."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmark.deploy import ort
from benchmark.deploy.build import build_engine
from benchmark.deploy.calibrate import scales
from benchmark.deploy.export import runner
from benchmark.deploy.graphs import ACTIVATION, WEIGHT, quantized
from benchmark.deploy.quantization.collect import histograms
from benchmark.deploy.quantization.histogram import BINS, MOST_BINS, Histogram
from benchmark.deploy.quantization.placement import insert, targets
from benchmark.deploy.quantization.scales import activation_codes, activation_scale, weight_codes, weight_scales
from benchmark.deploy.quantization.thresholds import choose, divergences
from benchmark.plan.deployment import Build, Calibration, EngineError
from benchmark.plan.stage import Output
from benchmark.plan.task import Calibrating
from tests.bench import MeteredBench, PlainBench
from tests.deploy.exported import DATA, SCALE, exported, network

# --- histograms and thresholds ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0078125, 100, width=32), min_size=1, max_size=6))
def test_no_value_is_lost_however_the_range_grows(maxima):
    made, rng = Histogram(), np.random.default_rng(0)
    for top in maxima:
        made.collect(np.concatenate([rng.random(50, dtype=np.float32) * np.float32(top), np.float32([-top, 0])]))
    assert made.total == 52 * len(maxima)
    assert made.amax == pytest.approx(max(maxima), rel=1e-6)
    assert made.edges[-1] >= made.amax * (1 - 1e-6)
    assert len(made.edges) == len(made.counts) + 1


def test_zeros_before_the_first_value_are_counted_and_what_is_no_number_is_refused():
    made = Histogram()
    made.collect(np.zeros(10))
    assert (made.total, made.amax) == (10, 0)
    made.collect(np.array([2.0]))
    assert (made.counts[0], made.counts[-1], len(made.counts)) == (10, 1, BINS)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            made.collect(np.array([1.0, value]))


def test_a_first_batch_next_to_zero_orders_no_billions_of_bins():
    made = Histogram()
    made.collect(np.float32([1e-9, 5e-10, 0]))
    made.collect(np.float32([1.0, 0.5]))
    assert len(made.counts) <= MOST_BINS + 1
    assert made.total == 5
    assert made.counts.dtype == np.int64
    assert made.counts[0] == 3, "what was near zero still is"
    assert made.edges[-1] >= 1
    assert made.counts[len(made.counts) // 2 - 2 : len(made.counts) // 2 + 2].sum() == 1, "a half lies in the middle"


def test_a_percentile_of_almost_nothing_but_zeros_keeps_the_maximum_and_says_so():
    made = Histogram()
    made.collect(np.concatenate([np.zeros(100_000), [4.0]]))
    chosen = choose(made, "percentile", 99.9)
    assert (chosen.amax, chosen.algorithm) == (4.0, "max")
    assert chosen.reason == "99.9 % of the values lie in the first bin"


def _slow_divergence(counts, kept):
    """KL as the definition has it, one candidate, bin by bin."""
    held = counts.astype(float)
    held[0] = held[1]
    p = held[:kept].copy()
    p[-1] += held[kept:].sum()
    level = np.arange(kept) * 128 // kept
    q = np.zeros(kept)
    for number in range(128):
        own = (level == number) & (held[:kept] > 0)
        if own.any():
            q[own] = held[:kept][level == number].sum() / own.sum()
    if not q.sum():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(divide="ignore"):
        return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(128, 400), st.floats(0, 0.9))
def test_divergences_are_what_their_definition_says(seed, bins, holes):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, bins) * (rng.random(bins) > holes)
    counts[1] = max(counts[1], 1)
    found = divergences(counts)
    for kept in {128, (128 + bins) // 2, bins}:
        assert found[kept - 128] == pytest.approx(_slow_divergence(counts, kept), rel=1e-9, abs=1e-11)


def test_the_largest_of_equal_candidates_is_kept():
    made = Histogram()
    made.counts = np.zeros(256, dtype=np.int64)
    made.counts[:100] = 5
    made.edges, made.amax = np.linspace(0, 1, 257), 1.0
    assert choose(made, "entropy").amax == pytest.approx(made.edges[-1])


def test_a_scale_is_always_positive():
    assert activation_scale(0.0) > 0
    assert activation_scale(12.7) == pytest.approx(0.1, rel=1e-6)
    assert (weight_scales(np.zeros((3, 4)), 0) > 0).all()


def test_weights_never_use_the_lowest_code_and_activations_do():
    """Seen where a step is narrower than the largest value asks for, as a learned one may be."""
    far = np.float32([[-10.0, 10.0]])
    assert weight_codes(far, np.float32([0.01]), 0).tolist() == [[-127, 127]]
    assert activation_codes(far, 0.01).tolist() == [[-128, 127]]


# --- placement -------------------------------------------------------------------------------------------------------


def _scales(model, value=0.05):
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    wanted = targets(model)
    weights = {name: weight_scales(held[name], axis) for name, axis in wanted.weights.items()}
    return dict.fromkeys(wanted.all, value), weights


def _made(layout, of="resnet"):
    model = onnx.load_from_string(exported(of))
    return insert(model, *_scales(model), layout)


@pytest.mark.parametrize("layout", ["trt", "ort"])
def test_pairs_are_int8_with_zero_point_zero_and_biases_stay_float(layout):
    made = _made(layout)
    held = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = held[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert held[node.input[1]].dtype == np.float32
        if node.op_type in ("Conv", "Gemm"):
            assert node.input[0].endswith(".dequantized")
            assert node.input[1].endswith(".weight.dequantized")
            assert all(held[name].dtype == np.float32 for name in node.input[2:])
    per_channel = [n for n in made.graph.node if n.op_type == "DequantizeLinear" and n.name.endswith("weight.dq")]
    assert len(per_channel) == 10, "nine convolutions and a linear layer"
    for node in per_channel:
        codes, steps = held[node.input[0]], held[node.input[1]]
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        axis = next(each.i for each in node.attribute if each.name == "axis")
        assert steps.shape == (codes.shape[axis],)
    names = [each.name for each in made.graph.initializer]
    assert len(names) == len(set(names))
    assert not any(name.endswith(".weight") for name in names), "no fp32 copy of a weight is left"


def _branches(made):
    """For each residual addition, how many of its inputs come from a pair."""
    return [sum(name.endswith(".dequantized") for name in n.input) for n in made.graph.node if n.op_type == "Add"]


def test_one_branch_of_each_residual_addition_has_a_pair_for_tensorrt_and_both_for_onnx_runtime():
    assert _branches(_made("trt")) == [1, 1, 1]
    assert _branches(_made("ort")) == [2, 2, 2]
    made = _made("trt")
    producers = {name: node for node in made.graph.node for name in node.output}
    for node in made.graph.node:
        if node.op_type == "Add":
            plain = next(name for name in node.input if not name.endswith(".dequantized"))
            assert producers[plain].op_type == "Conv", "what can be fused with the addition stays as it is"


@pytest.mark.parametrize(
    ("first", "second", "read", "quantized"),
    [
        ("Conv", "Relu", (), "b"),  # the identity, not what ends in a convolution
        ("Relu", "Conv", (), "a"),
        ("Conv", "Conv", (), "b"),  # the projection comes second
        ("Conv", "Conv", ("a",), "a"),  # a skip over a linear bottleneck has its pair already
        ("Relu", "Relu", (), "a"),
        ("Relu", "Relu", ("b",), "b"),
    ],
)
def test_which_branch_of_an_addition_has_a_pair(first, second, read, quantized):
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), dtype=np.float32), "w")

    def made(op, name):
        return helper.make_node(op, ["x", "w"] if op == "Conv" else ["x"], [name])

    nodes = [made(first, "a"), made(second, "b"), helper.make_node("Add", ["a", "b"], ["s"])]
    nodes += [helper.make_node("Conv", [name, "w"], [f"{name}_read"]) for name in read]
    found = targets(helper.make_model(helper.make_graph(nodes, "g", [], [], [weight])))
    assert set(found.shared) - {"x"} == {quantized, *read}
    assert set(found.own) == {"a", "b"} - {quantized, *read}


def test_same_scale_pairs_stand_before_what_keeps_order_and_change_no_number():
    made = _made("ort", "tiny")
    before = [node for node in made.graph.node if ".before" in node.name and node.op_type == "QuantizeLinear"]
    assert not before, "the ReLU's reader is a pooling, which is not quantized"
    resnet = _made("ort")
    held = {each.name: numpy_helper.to_array(each) for each in resnet.graph.initializer}
    pairs = {n.name.removesuffix(".q"): n for n in resnet.graph.node if n.op_type == "QuantizeLinear"}
    twins = [name for name in pairs if ".before" in name]
    assert len(twins) == 6, "each ReLU but the last, whose reader is a pooling"
    for name in twins:
        own = name.partition(".before")[0]
        assert held[pairs[name].input[1]] == held[pairs[own].input[1]]
    relus = [node for node in resnet.graph.node if node.op_type == "Relu"]
    assert sum(node.input[0].endswith(".dequantized") for node in relus) == 6


def _relu_net(*extra, outputs=("y",)):
    """x -> Conv -> c -> Relu -> r -> MaxPool -> p -> Conv -> y, and what a test adds."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.random((4, 3, 1, 1)), "w2": rng.random((2, 4, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "one"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["y"], "two"),
        *extra,
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"]) for name in outputs],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip  # one argument a line would hide the shape
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _before(model):
    made = insert(model, *_scales(model), "ort")
    return sorted(node.name for node in made.graph.node if node.op_type == "QuantizeLinear" and ".before" in node.name)


def test_a_chain_has_a_pair_at_each_step_and_stops_where_somebody_else_reads():
    assert _before(_relu_net()) == ["p.before1.q", "p.before2.q"]
    reader = helper.make_node("Neg", ["r"], ["z"], "reader")
    assert _before(_relu_net(reader, outputs=("y", "z"))) == ["p.before1.q"], "the ReLU is read by another"
    reader = helper.make_node("Neg", ["p"], ["z"], "reader")
    assert _before(_relu_net(reader, outputs=("y", "z"))) == [], "the quantized tensor itself is read as it is"
    assert _before(_relu_net(outputs=("y", "r"))) == ["p.before1.q"], "an output of the graph is read, too"


def test_a_tensor_read_by_two_layers_has_one_pair_and_a_weight_used_twice_one_copy():
    twin = helper.make_node("Conv", ["p", "w2"], ["z"], "twin")
    model = _relu_net(twin, outputs=("y", "z"))
    made = insert(model, *_scales(model), "trt")
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 2, "x and p"
    assert sum(node.op_type == "DequantizeLinear" for node in made.graph.node) == 2 + 2


def test_a_bias_that_is_added_is_no_residual():
    bias = numpy_helper.from_array(np.ones((2, 1, 1), dtype=np.float32), "b")
    model = _relu_net(helper.make_node("Add", ["y", "b"], ["z"], "bias"), outputs=("z",))
    model.graph.initializer.append(bias)
    assert set(targets(model).all) == {"x", "p"}


def test_linear_layers_have_their_channels_where_the_operator_has_them():
    def axes(op, **more):
        graph = helper.make_graph(
            [helper.make_node(op, ["x", "w"], ["y"], **more)], "g", [], [],
            [numpy_helper.from_array(np.ones((5, 3), dtype=np.float32), "w")],
        )  # fmt: skip  # one argument a line would hide the shape
        return targets(helper.make_model(graph)).weights

    assert axes("Gemm", transB=1) == {"w": 0}
    assert axes("Gemm") == {"w": 1}
    assert axes("MatMul") == {"w": 1}


@pytest.mark.parametrize("weight", [0.0, 1e-12, 1e-5])
def test_a_channel_without_weights_keeps_its_bias_in_integer_kernels(weight):
    model = _relu_net()
    held = {each.name: each for each in model.graph.initializer}
    values = numpy_helper.to_array(held["w2"]).copy()
    values[1] = weight
    held["w2"].CopyFrom(numpy_helper.from_array(values, "w2"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.5, 3.0]), "b2"))
    model.graph.node[-1].input.append("b2")
    # ONNX Runtime makes an integer convolution of it only where its output is quantized, too
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"], "end"))
    model.graph.node.append(helper.make_node("Conv", ["z", "w3"], ["out"], "three"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32)[:, :, None, None], "w3"))
    model.graph.output[0].name = "out"
    images = np.random.default_rng(0).random((4, 3, 4, 4), dtype=np.float32)
    made = insert(model, *_scales(model), "ort").SerializeToString()
    integer = ort.open_session(made, ort.session_options()).run(None, {"x": images})[0]
    float_ = ort.open_session(model.SerializeToString(), ort.session_options()).run(None, {"x": images})[0]
    assert integer[:, 1] == pytest.approx(float_[:, 1], abs=0.1)
    assert "QLinearConv" in {node.op_type for node in ort.optimised(made).graph.node}, "else this proves nothing"


def test_scales_that_do_not_fit_are_refused_by_name():
    model = onnx.load_from_string(exported("tiny"))
    activations, weights = _scales(model)
    some = next(iter(activations))
    with pytest.raises(ValueError, match=f"scales of activations: missing for {some}"):
        insert(model, {name: value for name, value in activations.items() if name != some}, weights, "ort")
    with pytest.raises(ValueError, match="given for nowhere, which the graph does not have"):
        insert(model, {**activations, "nowhere": 1.0}, weights, "ort")
    with pytest.raises(ValueError, match=r"has 8 channels, and 3 scales"):
        insert(model, activations, {**weights, next(iter(weights)): np.ones(3)}, "ort")
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            insert(model, {**activations, some: value}, weights, "ort")


def test_what_a_graph_computes_is_watched_and_not_changed():
    model = onnx.load_from_string(exported("resnet"))
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), dtype=np.float32)
    before = model.SerializeToString()
    seen = histograms(model, targets(model).all, [images[:4], images[4:]], 1)
    assert model.SerializeToString() == before
    assert seen["images"].amax == pytest.approx(np.abs(images).max())
    assert all(own.total % 8 == 0 for own in seen.values())
    with pytest.raises(ValueError, match="calibration needs at least one image"):
        histograms(model, ["images"], [], 1)
    with pytest.raises(ValueError, match="value is NaN or infinite"):
        histograms(model, targets(model).all, [images * np.float32(np.nan)], 1)


# --- the stage, and what comes of it ---------------------------------------------------------------------------------


@pytest.fixture
def _quick(monkeypatch):
    """Exports are made once."""
    models = {id(network(name)): name for name in ("tiny", "resnet")}
    for module in ("graphs", "calibrate"):
        monkeypatch.setattr(
            f"benchmark.deploy.{module}.export", lambda given: onnx.load_from_string(exported(models[id(given)]))
        )


def _calibrated(bench=None, of="resnet", **how):
    params = Calibration(data=DATA, scale=SCALE, how=Calibrating(**{"images": 100, **how}))
    return scales(bench or PlainBench(), params, Output(network=network(of)))


@pytest.mark.usefixtures("_quick")
def test_scales_are_arrays_and_the_record_says_how_each_range_was_cut():
    found = _calibrated()
    model = onnx.load_from_string(exported("resnet"))
    names = {name.removeprefix(ACTIVATION) for name in found.arrays if name.startswith(ACTIVATION)}
    assert names == set(targets(model).all)
    weights = {name.removeprefix(WEIGHT): value for name, value in found.arrays.items() if name.startswith(WEIGHT)}
    assert set(weights) == set(targets(model).weights)
    assert {value.ndim for value in weights.values()} == {1}
    assert found.values == {"n_images": 100, "n_tensors": len(names)}
    assert found.details["algorithm"] == "entropy"
    for name, told in found.details["ranges"].items():
        assert 0 < told["kept"] <= told["largest"] * (1 + 1 / BINS), name  # a grown range ends with a bin
    assert _calibrated().arrays.keys() == found.arrays.keys()
    assert all(torch.equal(value, found.arrays[name]) for name, value in _calibrated().arrays.items()), "repeatable"


@pytest.mark.usefixtures("_quick")
def test_algorithm_seed_and_number_of_images_matter():
    one = _calibrated()
    others = [_calibrated(algorithm="max"), _calibrated(algorithm="percentile", percentile=99), _calibrated(images=50)]
    params = Calibration(data=DATA, scale=SCALE, seed=1, how=Calibrating(images=100))
    others.append(scales(PlainBench(), params, Output(network=network("resnet"))))
    for other in others:
        assert any(not torch.equal(value, one.arrays[name]) for name, value in other.arrays.items())
    widest = others[0].arrays
    activations = [name for name in widest if name.startswith(ACTIVATION)]
    assert all(others[1].arrays[name] <= widest[name] for name in activations), "a percentile never widens a range"
    assert _calibrated(images=10_000).values["n_images"] == 200, "no more than there are"


@pytest.mark.usefixtures("_quick")
def test_only_what_calibration_adds_is_metered(monkeypatch):
    bench = MeteredBench()
    running = {}

    def watched(name, original):
        def call(*given):
            running[name] = bench.running
            return original(*given)

        return call

    for name in ("export", "load", "histograms"):
        path = f"benchmark.deploy.calibrate.{name}"
        original = __import__("benchmark.deploy.calibrate", fromlist=[name])
        monkeypatch.setattr(path, watched(name, getattr(original, name)))
    _calibrated(bench)
    assert running == {"export": False, "load": False, "histograms": True}


@pytest.mark.usefixtures("_quick")
def test_both_layouts_and_the_float_network_agree():
    found = _calibrated()
    model = onnx.load_from_string(exported("resnet"))
    images = np.random.default_rng(1).standard_normal((64, 3, 32, 32), dtype=np.float32)
    float_ = runner(model.SerializeToString(), 1)(images)
    logits = {
        layout: runner(quantized(model, found.arrays, layout).SerializeToString(), 1)(images)
        for layout in ("trt", "ort")
    }
    for layout, own in logits.items():
        apart = np.linalg.norm(own - float_) / np.linalg.norm(float_)
        assert 0 < apart < 0.12, layout
    assert np.linalg.norm(logits["trt"] - logits["ort"]) / np.linalg.norm(float_) < 0.1


@pytest.mark.usefixtures("_quick")
def test_an_int8_engine_says_what_runs_in_int8_and_scales_of_another_network_are_refused():
    params = Build(engine="onnxruntime", precision="int8", data=DATA, scale=SCALE)
    built = build_engine(PlainBench(), params, Output(network=network("resnet")), _calibrated())
    assert re.fullmatch(r"int8 in \d+ of 10 layers(, fp32 in the others)?", built.details["executes"]["precision"])
    assert built.details["evidence"]["operators"]["QLinearConv"] >= 4
    assert built.values["agreement_pct"] > 50
    with pytest.raises(
        EngineError, match="the calibration does not fit the network: scales of activations: missing for"
    ):
        build_engine(PlainBench(), params, Output(network=network("resnet")), _calibrated(of="tiny"))
