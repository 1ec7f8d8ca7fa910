"""DARTS against what its own code computes (nas_golden.json, `darts`), in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.plan.task import Recipe
from benchmark.vision.data import cut_out
from benchmark.vision.learning_rate import rate
from benchmark.vision.macs import count
from benchmark.vision.models.nas.darts import PRIMITIVES, Place, darts, operation
from methods.nas.darts.genotype import PUBLISHED, derive
from methods.nas.darts.gradients import Ahead, first_order, second_order
from methods.nas.darts.objective import cell_loss
from methods.nas.darts.supernet import MixedEdge, SearchCell, SearchNetwork
from tests.data import golden_inputs as gi
from tests.nas.golden import DARTS, alpha, build, fill, names_of, same, same_total, seed

OPS, CELLS = DARTS["ops"], DARTS["cells"]


# --- operations and cells ----------------------------------------------------------------------------------------


def _op(name, stride, base, searching=True):
    op = operation(name, OPS["C"], stride, searching).double().train()
    fill(op, base, lambda own: f"op.{name}.{own}")
    return op


@pytest.mark.parametrize("case", [name for name in OPS["ops"] if not name.startswith("mixed")])
def test_every_operation_gives_the_values_and_gradients_of_the_original(case):
    name, stride = case.split("/")
    plain = name.endswith("_without_bn")
    name = name.removesuffix("_without_bn")
    x = build(OPS["x"]).requires_grad_()
    out = _op(name, int(stride[-1]), OPS["base"], searching=not plain)(x)
    assert list(out.shape) == OPS["ops"][case]["out"]["shape"]
    same(out, OPS["ops"][case]["out"])
    if "grad_x" in OPS["ops"][case]:
        (gradient,) = torch.autograd.grad(out, x, build(OPS["grad_out"][stride]), allow_unused=True)
        same(torch.zeros_like(x) if gradient is None else gradient, OPS["ops"][case]["grad_x"])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixed_edge_gives_the_values_and_gradients_of_the_original(stride):
    edge = MixedEdge(OPS["C"], stride).train()
    fill(edge, OPS["base"], lambda own: f"op.{own}")
    x, row = build(OPS["x"]).requires_grad_(), build(OPS["alpha_row"]).requires_grad_()
    wanted = OPS["ops"][f"mixed/stride{stride}"]
    out = edge(x, row.softmax(-1))
    assert list(out.shape) == wanted["out"]["shape"]
    same(out, wanted["out"])
    gradients = torch.autograd.grad(out, [x, row], build(OPS["grad_out"][f"stride{stride}"]))
    same(gradients[0], wanted["grad_x"])
    same(gradients[1], wanted["grad_alpha"])


def _supernet_name(own: str) -> str:
    return own.replace(".inputs.", ".").replace(".edges.", ".edge")


@pytest.mark.parametrize("kind", list(CELLS["cells"]))
def test_a_search_cell_gives_the_values_and_gradients_of_the_original(kind):
    case = CELLS["cells"][kind]
    place = Place(0, 5, CELLS["C"])
    place.reduction, place.after_reduction = kind.startswith("reduction"), kind.endswith("after_reduction")
    place.into = (CELLS["C_prev_prev"], CELLS["C_prev"])
    cell = SearchCell(place).train()
    fill(cell, CELLS["base"], lambda own: "cell." + _supernet_name("." + own)[1:], case["weights"])
    alphas = build(CELLS["alphas"]).requires_grad_()
    out = cell(build(case["s0"]), build(case["s1"]), alphas.softmax(-1))
    same(out, case["out"])
    nodes = [part.square().sum().item() for part in out.chunk(4, 1)]
    assert nodes == pytest.approx(case["node_sumsq"], rel=1e-9)
    same(torch.autograd.grad(out, alphas, build(case["g"]))[0], case["grad_alpha"])


# --- the search network ------------------------------------------------------------------------------------------


class Supernet:
    """A case of the file: a fresh network for every block, with batches and buffers."""

    def __init__(self, name: str) -> None:
        self.case = DARTS[name]
        torch.manual_seed(0)
        self.network = SearchNetwork(self.case["C"], self.case["layers"], self.case["classes"]).train()
        self.names = fill(self.network, self.case["base"], _supernet_name, self.case["weights"])
        with torch.no_grad():
            for kind in ("normal", "reduce"):
                getattr(self.network, f"alphas_{kind}").copy_(build(self.case[f"alphas_{kind}"]))
        self.train = (build(self.case["x_train"]), torch.tensor(self.case["y_train"]))
        self.valid = (build(self.case["x_valid"]), torch.tensor(self.case["y_valid"]))

    def buffers(self) -> dict[str, torch.Tensor]:
        weights = self.network.weights()
        found = {}
        for own, theirs in self.names.items():
            drawn = gi.tensor(seed(f"momentum:{theirs}", self.case["base"]), list(weights[own].shape), -0.01, 0.01)
            found[own] = torch.from_numpy(drawn)
        same_total(found.values(), self.case["momentum_buffers"])
        return found

    def ahead(self, buffers) -> Ahead:
        return Ahead(0.025, 0.9, 3e-4, buffers)

    def sums(self, tensors, wanted, measure) -> None:
        ours = {theirs: own for own, theirs in self.names.items()}
        for name, value in wanted.items():
            assert measure(tensors[ours[name]]) == pytest.approx(value, rel=1e-8), name


SUPERNETS = pytest.mark.parametrize("name", [pytest.param("supernet_a", marks=pytest.mark.slow), "supernet_b"])


@SUPERNETS
def test_the_search_network_answers_as_the_original_in_both_modes(name):
    net = Supernet(name)
    wanted = net.case["valid_forward"]
    logits = net.network(net.valid[0])
    same(logits, wanted["logits"])
    assert functional.cross_entropy(logits, net.valid[1]).item() == pytest.approx(wanted["loss"], rel=1e-9)
    assert net.network.stem.bn.running_var[:3].tolist() == pytest.approx(wanted["stem_bn_running_var_first3"])
    same(net.network.eval()(net.valid[0]), wanted["eval_mode_logits_after_that_forward"])


@SUPERNETS
def test_first_order_gradients_are_those_of_the_original(name):
    net = Supernet(name)
    wanted = net.case["first_order"]
    found = first_order(net.network, net.valid)
    assert net.network.alphas_normal.grad is None, "the gradients are handed back, and lie on no parameter"
    same(found.gradients[0], wanted["alpha_grad_normal"])
    same(found.gradients[1], wanted["alpha_grad_reduce"])
    functional.cross_entropy(net.network(net.valid[0]), net.valid[1]).backward()
    gradients = {own: weight.grad for own, weight in net.network.weights().items()}
    same_total(gradients.values(), wanted["weight_grad"])
    net.sums(gradients, wanted["weight_grad_norms"], lambda gradient: gradient.norm().item())


@SUPERNETS
@pytest.mark.parametrize(
    "block",
    [
        "second_order_with_momentum_buffers",
        pytest.param("second_order_no_momentum_buffers", marks=pytest.mark.slow),
    ],
)
def test_second_order_gradients_are_those_of_the_original(name, block):
    net = Supernet(name)
    wanted = net.case[block]
    found = second_order(net.network, net.train, net.valid, net.ahead(net.buffers() if "with" in block else {}))
    assert found.loss.item() == pytest.approx(wanted["unrolled_valid_loss"], rel=1e-9)
    same(found.gradients[0], wanted["alpha_grad_normal"], rel=1e-7)
    same(found.gradients[1], wanted["alpha_grad_reduce"], rel=1e-7)
    assert net.network.stem.bn.running_mean[:3].tolist() == pytest.approx(wanted["stem_bn_running_mean_first3"])


@SUPERNETS
@pytest.mark.parametrize("order", [pytest.param("first", marks=pytest.mark.slow), "second"])
@pytest.mark.slow
def test_whole_search_steps_are_those_of_the_original(name, order):
    from methods.nas.darts.search import Searcher  # the step as the search takes it

    net = Supernet(name)
    buffers = net.buffers()
    recipe = Recipe(
        name="golden", epochs=1, batch_size=4, lr=0.025, weight_decay=3e-4, clip_norm=5, schedule="constant",
        mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    searcher = Searcher.on(net.network, recipe, order, "cpu")
    weights = net.network.weights()
    for own, weight in weights.items():
        searcher.weight_optimiser.state[weight]["momentum_buffer"] = buffers[own].clone()
    batches = [(net.train, net.valid), (net.valid, net.train)]
    for wanted, (train, valid) in zip(net.case[f"search_steps_{order}_order"], batches, strict=True):
        seen = searcher.step(train, valid)
        same(net.network.alphas_normal, wanted["alphas_normal"], rel=1e-7)
        same(net.network.alphas_reduce, wanted["alphas_reduce"], rel=1e-7)
        assert seen.train_loss.item() == pytest.approx(wanted["train_loss"], rel=1e-8)
        same_total(weights.values(), wanted["weights_after"], rel=1e-7)
        net.sums(weights, wanted["weight_sums_after"], lambda weight: weight.sum().item())
        state = searcher.weight_optimiser.state
        same_total(
            [state[weight]["momentum_buffer"] for weight in weights.values()], wanted["momentum_after"], rel=1e-7
        )
        assert net.network.stem.bn.running_mean[:3].tolist() == pytest.approx(wanted["stem_bn_running_mean_first3"])
        assert net.network.stem.bn.running_var[:3].tolist() == pytest.approx(wanted["stem_bn_running_var_first3"])


# --- derivation --------------------------------------------------------------------------------------------------


def _alphas(case, kind):
    entry = case[f"alphas_{kind}"]
    table = torch.zeros(14, 8, dtype=torch.float64)
    if entry["base"] is not None:
        table = alpha(entry["name"], entry["base"], [14, 8], entry["lo"], entry["hi"])
    for row, column, value in entry["overrides"]:
        if row == "*":
            table[:, column] += value
        else:
            table[row, column] = value
    assert table.sum().item() == pytest.approx(case[f"checksum_{kind}_sum"])
    return table.tolist()


@pytest.mark.parametrize("name", list(DARTS["genotype"]))
def test_derived_genotypes_are_those_of_the_original_pair_by_pair(name):
    case = DARTS["genotype"][name]
    found = derive(_alphas(case, "normal"), _alphas(case, "reduce"), PRIMITIVES)
    assert found == {key: case[key] for key in ("normal", "normal_concat", "reduce", "reduce_concat")}


# --- evaluation networks -----------------------------------------------------------------------------------------


def _evaluation(case):
    network = darts(PUBLISHED[case["genotype"]], case["C"], case["layers"], case["classes"])
    loss = cell_loss(network, case["classes"], case["auxiliary_weight"], 0.0, 1)
    both = nn.Module()
    both.network, both.loss = network, loss
    genotype = PUBLISHED[case["genotype"]]
    reductions = {case["layers"] // 3, 2 * case["layers"] // 3}

    def rename(own: str) -> str:
        name = own.removeprefix("network.").replace("loss.head.", "aux.").replace(".inputs.", ".")
        if ".ops." in name:
            place, _, rest = name.partition(".ops.")
            number, _, part = rest.partition(".")
            kind = "reduce" if int(place.split(".")[1]) in reductions else "normal"
            name = f"{place}.op{number}.{genotype[kind][int(number)][0]}.{part}"
        return name

    names = fill(both.train(), case["base"], rename, case["weights"])
    return both, network, loss, names


@pytest.mark.parametrize("name", ["eval_v2", "eval_v1"])
@pytest.mark.parametrize("block", ["drop_path_0", "drop_path_masked"])
def test_evaluation_networks_train_as_the_original_with_auxiliary_head_and_drop_path(name, block, monkeypatch):
    case = DARTS[name]
    wanted = case[block]
    both, network, loss, names = _evaluation(case)
    dropped: list[int] = []
    if block == "drop_path_masked":
        loss.drop_path = 1.0
        loss.probability.fill_(wanted["drop_prob"])

        def kept(name, out):
            drawn = torch.from_numpy(gi.unit(seed(f"drop.{name}", case["base"]), len(out)))
            mask = (drawn < 1 - wanted["drop_prob"]).double()
            dropped.extend(mask.tolist())
            return mask.view(-1, 1, 1, 1)

        monkeypatch.setattr(loss, "kept", kept)
    images, labels = build(case["x"]), torch.tensor(case["y"])
    value, logits = loss(network, images, labels, labels)
    same(logits, wanted["logits"])
    assert value.item() == pytest.approx(wanted["total"], rel=1e-9)
    value.backward()
    gradients = {theirs: dict(both.named_parameters())[own].grad for own, theirs in names.items()}
    same_total(gradients.values(), wanted["weight_grad"])
    for place, norm in wanted["grad_norms"].items():
        assert gradients[place].norm().item() == pytest.approx(norm, rel=1e-8)
    if block == "drop_path_masked":
        assert (len(dropped), sum(dropped)) == (wanted["of"], wanted["kept"])
    else:
        same(network.eval()(images), wanted["eval_mode_logits_after_that_forward"])


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("DARTS_V2/100", "supernet_C16_L8/100") else pytest.param(name, marks=pytest.mark.slow)
        for name in DARTS["full_size"]
    ],
)
@pytest.mark.slow
def test_the_sizes_of_the_published_networks_are_met_to_the_parameter(name):
    wanted, classes = DARTS["full_size"][name], int(name.split("/")[1])
    with torch.device("meta"):
        if name.startswith("supernet"):
            network = SearchNetwork(16, 8, classes)
            parameters, macs = count(network)
            assert sum(each.numel() for each in network.architecture()) == wanted["architecture_parameters"]
            assert (parameters - wanted["architecture_parameters"], macs) == (wanted["parameters"], wanted["macs"])
            return
        network = darts(PUBLISHED[name.split("/")[0]], 36, 20, classes)
        assert count(network) == (wanted["parameters_without_aux"], wanted["macs_without_aux"])
        head = cell_loss(network, classes, 0.4, 0.2, 600).head
    assert sum(each.numel() for each in head.parameters()) == wanted["aux_parameters"]


# --- schedules ---------------------------------------------------------------------------------------------------


def test_rates_drop_path_and_cutout_follow_the_original():
    same_all = DARTS["schedules"]
    given = {"name": "golden", "batch_size": 1, "lr": 0.025, "schedule": "cosine", "mean": (0, 0, 0), "std": (1, 1, 1)}
    search = Recipe(epochs=50, final_lr=0.001, **given)
    final = Recipe(epochs=600, **given)
    for recipe, wanted in ((search, same_all["search_lr"]), (final, same_all["eval_lr"])):
        for epoch, value in wanted.items():
            assert rate(recipe, int(epoch) * 7, 7) == pytest.approx(value, rel=1e-9)
    loss = cell_loss(darts(PUBLISHED["DARTS_V2"], 4, 3, 10), 10, 0.0, 0.2, 600)
    for epoch, value in same_all["drop_path"].items():
        loss.begin_epoch(int(epoch))
        assert loss.probability.item() == pytest.approx(value, rel=1e-6)
    for case in same_all["cutout"]:
        top, left = torch.tensor([case["y"] - 8]), torch.tensor([case["x"] - 8])
        zeroed = cut_out(torch.ones(1, 3, 32, 32), top, left, 16)[0, 0] == 0
        assert int(zeroed.sum()) == case["zeroed_pixels"]
        assert zeroed.nonzero()[[0, -1]].T.tolist() == [case["rows"], case["cols"]]


def test_names_are_one_to_one():
    network = SearchNetwork(4, 3, 10)
    names = names_of(network, _supernet_name)
    assert len(set(names.values())) == len(names) == len(network.weights())
