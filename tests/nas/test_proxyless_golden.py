"""ProxylessNAS against what its own code computes (nas_golden.json, `proxyless`), in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.plan.task import Recipe
from benchmark.vision.builders import build as build_network
from benchmark.vision.learning_rate import rate
from benchmark.vision.macs import count, macs
from benchmark.vision.models.nas.pmb import MBCONVS, MBConv, initialise
from benchmark.vision.models.nas.tree import OPS, TreeBlock, operation, tree
from methods.nas import spaces
from methods.nas.log import entropy
from methods.nas.params import Alphas, Costs
from methods.nas.proxyless.costs import Price, Table, counted
from methods.nas.proxyless.gates import (
    Choice,
    MixedOp,
    Paths,
    Zero,
    adam,
    alpha_gradient,
    choose_all,
    keep_unsampled,
    shares,
    stacked,
)
from methods.nas.proxyless.reinforce import baseline_after, gradients, reward
from methods.nas.proxyless.search import Searcher
from methods.nas.proxyless.supernet import pmb as pmb_supernet
from methods.nas.proxyless.supernet import tree as tree_supernet
from tests.data import golden_inputs as gi
from tests.nas.golden import PROXYLESS, build, fill, same, same_total, seed

CANDIDATES = (*MBCONVS, "zero")


# --- operations --------------------------------------------------------------------------------------------------

MB = PROXYLESS["mbconv"]


@pytest.mark.parametrize("case", [name for name in MB["ops"] if not name.startswith("zero")])
def test_mbconv_gives_the_values_and_gradients_of_the_original(case):
    name, stride = case.split("/stride")
    wanted = MB["ops"][case]
    for eps in MB["bn_eps"]:
        for times in (1, 4):
            key = f"eps{eps:g}" if times == 1 else f"inner_bn_weights_times_4_eps{eps:g}"
            if key not in wanted:
                continue
            op = MBConv(name, MB["in"], MB["out"], int(stride), eps).train()
            fill(op, MB["base"], lambda own: f"{name}.{own}")
            with torch.no_grad():
                op.expand.bn.weight *= times
                op.dw.bn.weight *= times
            x = build(MB["x"]).requires_grad_()
            out = op(x)
            same(out, wanted[key]["out"])
            if "grad_x" in wanted[key]:
                same(torch.autograd.grad(out, x, build(MB[f"g_stride{stride}"]))[0], wanted[key]["grad_x"])
    assert sum(p.numel() for p in op.parameters()) == wanted["parameters"]
    if stride == "1":  # the original rounds an odd map down
        assert macs(op, torch.zeros(1, MB["in"], 7, 7, dtype=torch.float64)) == wanted["macs_per_image"]


# --- one edge ----------------------------------------------------------------------------------------------------


def _edge(case, name="edge_a"):
    torch.manual_seed(0)
    edge = MixedOp(
        {op: Zero(0) if op == "zero" else MBConv(op, case["C"], case["C"], 1, case["bn_eps"]) for op in CANDIDATES}
    )
    fill(edge, case["base"], lambda own: own.removeprefix("ops."))
    with torch.no_grad():
        edge.alpha.copy_(build(case["alpha"]))
    return edge.train()


def _compared(edge):
    chosen = [edge.choice.active, *edge.choice.others]
    return torch.tensor([[number in chosen for number in range(len(edge.alpha))]])


def _learned(edge, gate_gradient):
    return alpha_gradient(gate_gradient[None], shares(edge.alpha.detach()[None], _compared(edge)))[0]


def _others(scenario):
    inactive = scenario["inactive"]
    return tuple(inactive) if isinstance(inactive, list) else (inactive,)


@pytest.mark.parametrize("name", ["edge_a", "edge_b"])
@pytest.mark.parametrize("number", range(8))
def test_gates_and_architecture_parameters_learn_as_in_the_original(name, number):
    case = PROXYLESS[name]
    if number >= len(case["scenarios"]):
        assert name == "edge_b", "the first edge has eight scenarios"
        return
    wanted, edge = case["scenarios"][number], _edge(case)
    edge.choose(Choice(wanted["active"], _others(wanted)))
    x = build(case["x"]).requires_grad_()
    out = x + edge(x)
    same(out, wanted["block_out"])
    gradients = torch.autograd.grad(out, [x, edge.gates], build(case["g"]), retain_graph=True, allow_unused=True)
    same(gradients[0], wanted["grad_x"])
    if edge.updates:
        same(gradients[1], wanted["gate_grad"])
        same(_learned(edge, gradients[1]), wanted["alpha_grad"])
    if "current_probabilities" in wanted and wanted["mode"] == "two":
        same(shares(edge.alpha[None], _compared(edge))[0], wanted["current_probabilities"])
    if "active_weight_grad" in wanted and wanted["mode"] != "full_v2":  # there weights get none, and here nobody asks
        out.backward(build(case["g"]))
        same_total(
            [p.grad for p in list(edge.ops.values())[wanted["active"]].parameters()], wanted["active_weight_grad"]
        )
        for other in _others(wanted):
            assert all(p.grad is None for p in list(edge.ops.values())[other].parameters())
    if "inactive_op_running_mean" in wanted:
        place = wanted["inactive_op_running_mean"]
        norm = edge.ops[place["op"]].get_submodule(place["layer"])
        assert norm.running_mean[:3].tolist() == pytest.approx(place["first3"], rel=1e-9)
    _steps_like(edge, case, wanted, gradients[1])


def _steps_like(edge, case, wanted, gate_gradient):
    optimiser = adam([edge], {"lr": case["arch_lr"], "betas": tuple(map(float, case["betas"]))})
    before = edge.alpha.detach().clone()
    edge.alpha.grad = _learned(edge, gate_gradient) if edge.updates else None
    optimiser.step()
    same(edge.alpha, wanted["alpha_after_adam"])
    if "alpha_after_rescale" in wanted:
        if edge.updates:
            keep_unsampled([edge.alpha], before[None], _compared(edge))
        same(edge.alpha, wanted["alpha_after_rescale"])
        same(edge.alpha.softmax(0), wanted["probs_after"])


@pytest.mark.parametrize("name", ["edge_a", "edge_b"])
def test_probabilities_entropy_and_choice_are_those_of_the_original(name):
    case = PROXYLESS[name]
    edge = _edge(case)
    same(edge.alpha.softmax(0), case["probs"])
    assert entropy([edge.alpha]) == pytest.approx(case["entropy"], rel=1e-6)
    assert Paths([edge]).strongest() == [Choice(case["chosen_index"])]


def test_a_sequence_of_two_path_steps_with_one_adam_is_that_of_the_original():
    case = PROXYLESS["edge_sequence"]
    edge = _edge(case)
    optimiser = adam([edge], {"lr": case["arch_lr"], "betas": (0.0, 0.999)})
    for wanted in case["steps"]:
        edge.choose(Choice(wanted["active"], (wanted["inactive"],)))
        x = build(wanted["x"]).requires_grad_()
        (gate,) = torch.autograd.grad(x + edge(x), edge.gates, build(wanted["g"]), allow_unused=True)
        before = edge.alpha.detach().clone()
        edge.alpha.grad = _learned(edge, gate) if edge.updates else None
        optimiser.step()
        if edge.updates:
            same(edge.alpha.grad, wanted["alpha_grad"])
            keep_unsampled([edge.alpha], before[None], _compared(edge))
        else:
            assert wanted["alpha_grad"] is None
        same(edge.alpha, wanted["alpha_after"])
        assert int(optimiser.state[edge.alpha]["step"]) == wanted["adam_step_count"]


# --- small P-MB networks -----------------------------------------------------------------------------------------


def _name_of(own: str) -> str:
    return own.removeprefix("network.").replace(".body.ops.", ".")


class Micro:
    """A case of the file: a fresh supernet and searcher for every step."""

    def __init__(self, name: str, lr: float = 0.05) -> None:
        self.case = PROXYLESS[name]
        blocks = self.case["blocks_width_stride"]
        arguments = {"widths": [w for w, _ in blocks], "strides": [s for _, s in blocks], "stem": self.case["stem"]}
        self.supernet = pmb_supernet({**arguments, "bn_eps": self.case["bn_eps"]}, self.case["classes"])
        fill(self.supernet, self.case["base"], _name_of, self.case["weights"])
        for edge, values in zip(self.supernet.edges, self.case["alphas"], strict=True):
            with torch.no_grad():
                edge.alpha.copy_(torch.tensor(values, dtype=torch.float64))
        recipe = Recipe(
            name="golden", epochs=1, batch_size=4, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4,
            label_smoothing=0.1, mean=(0, 0, 0), std=(1, 1, 1),
        )  # fmt: skip
        alphas = Alphas(lr=self.case["arch_lr"], betas=(0.0, 0.999))
        self.searcher = Searcher.on(self.supernet, recipe, alphas, "cpu")
        self.supernet.train()

    def batch(self, part):
        return build(self.case[f"x_{part}"]), torch.tensor(self.case[f"y_{part}"])


MICROS = pytest.mark.parametrize("name", ["pmb_micro_a", "pmb_micro_b"])


@MICROS
def test_a_counted_table_and_the_expected_cost_are_those_of_the_original(name):
    micro = Micro(name)
    for edge in micro.supernet.edges:  # all paths, as the file counts them; the file's images have 16 x 16 pixels
        edge.choose(Choice(0))
    table = counted(micro.supernet)
    quarter = [[value / 4 for value in row] for row in table.edges]
    assert quarter == micro.case["macs_table"]
    classifier = micro.supernet.network.classifier.weight.numel()
    assert (table.fixed - classifier) / 4 + classifier == micro.case["macs_fixed"]
    price = Price(Table(quarter, micro.case["macs_fixed"]), Costs(kind="macs"), "cpu", torch.float64)
    table = stacked(micro.supernet.alphas(), 7)
    assert price.expected(table.softmax(1)).item() == pytest.approx(micro.case["E_all_probabilities"], rel=1e-9)


@MICROS
@pytest.mark.parametrize("number", range(6))
def test_whole_architecture_steps_are_those_of_the_original(name, number):
    micro = Micro(name)
    wanted, case = micro.case["arch_steps"][number], micro.case
    if wanted["regulariser"]:
        rule = {"add#linear": "add", "mul#log": "multiply"}[wanted["regulariser"]]
        weight = {"add": 0.1, "multiply": 0.3}[rule]
        costs = Costs(kind="macs", rule=rule, weight=weight, factor=0.2, reference=case["E_ref"])
        micro.searcher.price = Price(Table(case["macs_table"], case["macs_fixed"]), costs, "cpu", torch.float64)
    inactive = wanted["inactive"] or [None] * len(case["alphas"])
    choices = [
        Choice(a, tuple(n for n in range(len(row)) if n != a) if i is None else (i,))
        for a, i, row in zip(wanted["active"], inactive, case["alphas"], strict=True)
    ]
    before = [edge.alpha.detach().clone() for edge in micro.supernet.edges]
    seen = micro.searcher.architecture_step(micro.batch("valid"), choices)
    assert seen.loss.item() == pytest.approx(wanted["ce"], rel=1e-9)
    same(seen.logits, wanted["logits"])
    for edge, values, old in zip(micro.supernet.edges, wanted["alpha_after"], before, strict=True):
        same(edge.alpha, values)
        if wanted["mode"] == "two":
            others = [n for n in range(len(old)) if n not in (edge.choice.active, *edge.choice.others)]
            assert edge.alpha.softmax(0)[others].tolist() == pytest.approx(old.softmax(0)[others].tolist(), rel=1e-9)


@MICROS
def test_whole_weight_steps_are_those_of_the_original(name):
    micro = Micro(name)
    case = micro.case["weight_steps"]
    for wanted in case["steps"]:
        seen = micro.searcher.weight_step(micro.batch("train"), [Choice(op) for op in wanted["sampled"]])
        same(seen.logits, wanted["logits"])
        assert seen.loss.item() == pytest.approx(wanted["loss_label_smoothing_0.1"], rel=1e-9)
        same_total(micro.supernet.weights(), wanted["weights_after"], rel=1e-8)
        sums = [
            sum(p.sum().item() for p in list(edge.ops.values())[op].parameters())
            for edge, op in zip(micro.supernet.edges, wanted["sampled"], strict=True)
        ]
        assert sums == pytest.approx(wanted["sampled_op_sum_after"], rel=1e-8)


@MICROS
def test_the_derived_operations_and_the_entropy_are_those_of_the_original(name):
    micro = Micro(name)
    chosen = Paths(micro.supernet.edges).strongest()
    assert [choice.active for choice in chosen] == micro.case["chosen"]
    assert entropy(micro.supernet.alphas()) == pytest.approx(micro.case["entropy_logged"], rel=1e-6)


# --- the original's own supernet ---------------------------------------------------------------------------------


class ImageNetLike(nn.Module):
    """ProxylessNAS's MobileNet space on small images, put together from our parts."""

    def __init__(self, case) -> None:
        super().__init__()
        eps = case["bn_eps"]
        self.first = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32, eps=eps))
        self.dw = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32, eps=eps))
        self.pw = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16, eps=eps))
        edges, into = [], 16
        self.shortcuts = []
        for width, cells, stride in zip(case["widths"], case["cells"], case["strides"], strict=True):
            for cell in range(cells):
                step = stride if cell == 0 else 1
                ops = {op: MBConv(op, into, width, step, eps) for op in MBCONVS}
                alike = step == 1 and into == width
                edges.append(MixedOp({**ops, "zero": Zero(0)} if alike else ops))
                self.shortcuts.append(alike)
                into = width
        self.edges = nn.ModuleList(edges)
        self.mix = nn.Sequential(nn.Conv2d(into, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=eps))
        self.classifier = nn.Linear(1280, case["classes"])

    def forward(self, images):
        x = self.pw(functional.relu6(self.dw(functional.relu6(self.first(images)))))
        for edge, alike in zip(self.edges, self.shortcuts, strict=True):
            x = edge(x) + x if alike else edge(x)
        return self.classifier(functional.relu6(self.mix(x)).mean((2, 3)))


def test_the_originals_own_space_gives_its_values_too():
    case = PROXYLESS["original_supernet"]
    table = {"first.0": "first.conv", "first.1": "first.bn", "mix.0": "mix.conv", "mix.1": "mix.bn"}
    table |= {
        f"{part}.{n}": f"blocks.0.k3e1.{part}.{kind}" for part in ("dw", "pw") for n, kind in enumerate(("conv", "bn"))
    }

    def rename(own):
        if own.startswith("edges."):
            _, number, rest = own.split(".", 2)
            return f"blocks.{int(number) + 1}.{rest.removeprefix('ops.')}"
        layer, _, field = own.rpartition(".")
        return f"{table.get(layer, layer)}.{field}"

    for wanted in case["steps"]:
        net = ImageNetLike(case).train()
        fill(net, case["base"], rename, case["weights"])
        inactive = wanted["inactive"] or [None] * len(net.edges)
        for edge, values, active, other in zip(net.edges, case["alphas"], wanted["active"], inactive, strict=True):
            with torch.no_grad():
                edge.alpha.copy_(torch.tensor(values, dtype=torch.float64))
            edge.choose(
                Choice(active, tuple(n for n in range(len(values)) if n != active) if other is None else (other,))
            )
        logits = net(build(case["x"]))
        same(logits, wanted["logits"])
        loss = functional.cross_entropy(logits, torch.tensor(case["y"]))
        assert loss.item() == pytest.approx(wanted["ce"], rel=1e-9)
        gates = torch.autograd.grad(loss, [edge.gates for edge in net.edges], allow_unused=True)
        for edge, gate, values in zip(net.edges, gates, wanted["alpha_grad_of_ce"], strict=True):
            if edge.updates:
                same(_learned(edge, gate), values)


# --- by rewards --------------------------------------------------------------------------------------------------


def test_reinforce_learns_from_rewards_as_the_original_does():
    case = PROXYLESS["reinforce"]
    edges = [MixedOp({op: nn.Identity() for op in CANDIDATES}).double() for _ in case["alphas"]]
    for edge, values in zip(edges, case["alphas"], strict=True):
        with torch.no_grad():
            edge.alpha.copy_(torch.tensor(values, dtype=torch.float64))
    optimiser, baseline = adam(edges, {"lr": case["arch_lr"], "betas": (0.0, 0.999)}), None
    for wanted in case["updates"]:
        accuracies = torch.tensor(wanted["acc_percent"], dtype=torch.float64) / 100
        rewards = torch.stack([reward(own, None, 1.0, 0.1) for own in accuracies])
        same(rewards, wanted["rewards"])
        baseline = baseline_after(baseline, rewards)
        assert baseline.item() == pytest.approx(wanted["baseline_after_update"], rel=1e-12)
        samples = [[Choice(op) for op in sample] for sample in wanted["samples"]]
        alphas = [edge.alpha for edge in edges]
        for alpha_, gradient, values in zip(
            alphas, gradients(alphas, samples, rewards, baseline), wanted["alpha_grad"], strict=True
        ):
            same(gradient, values)
            alpha_.grad = gradient
        optimiser.step()
        for edge, values in zip(edges, wanted["alpha_after"], strict=True):
            same(edge.alpha, values)


@pytest.mark.parametrize("case", PROXYLESS["misc"]["reinforce_reward"])
def test_a_reward_counts_the_cost_as_the_original_does(case):
    accuracy = torch.tensor(case["acc_percent"] / 100, dtype=torch.float64)
    assert reward(accuracy, case["cost"], case["ref"], 0.1).item() == pytest.approx(case["reward"], rel=1e-9)


# --- numbers of the loss, the schedules and the initial weights -----------------------------------------------------


@pytest.mark.parametrize("case", PROXYLESS["misc"]["regularised_loss"])
def test_cost_terms_and_their_gradients_are_those_of_the_original(case):
    given = case["params"] if isinstance(case["params"], dict) else {"alpha": 1, "beta": 0.6}
    rule = {"add#linear": "add", "mul#log": "multiply"}[case["type"]]
    weight = given.get("lambda", given.get("beta"))
    costs = Costs(kind="macs", rule=rule, weight=weight, factor=given.get("alpha", 0.2), reference=case["E_ref"])
    price = Price(Table([], 2.0), costs, "cpu", torch.float64)
    ce = torch.tensor(case["ce"], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor(case["E"], dtype=torch.float64, requires_grad=True)
    loss = price.joined(ce, expected)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    found = torch.autograd.grad(loss, [ce, expected], allow_unused=True)
    assert [float(value) for value in found] == pytest.approx([case["d_ce"], case["d_E"]], rel=1e-9)


def test_rates_and_initial_weights_are_those_of_the_original():
    misc = PROXYLESS["misc"]
    given = {"name": "golden", "batch_size": 1, "schedule": "cosine_step", "mean": (0, 0, 0), "std": (1, 1, 1)}
    for name, epochs, lr in (
        ("search_120_epochs_lr0.025_nBatch23", 120, 0.025),
        ("warmup_25_epochs_lr0.05_nBatch23", 25, 0.05),
    ):
        recipe = Recipe(epochs=epochs, lr=lr, **given)
        for place, value in misc["learning_rates"][name].items():
            epoch, step = map(int, place.split(","))
            assert rate(recipe, epoch * 23 + step, 23) == pytest.approx(value, rel=1e-6)
    torch.manual_seed(0)
    for law in misc["init"]["he_fout_divided_by_groups"]:
        shape = law["shape"]
        groups = shape[0] if shape[1] == 1 else 1
        layer = (
            nn.Linear(shape[1], shape[0])
            if len(shape) == 2
            else nn.Conv2d(shape[1] * groups, shape[0], shape[2], groups=groups)
        )
        initialise(layer)
        if law["law"] == "normal":
            assert layer.weight.std().item() == pytest.approx(law["std"], rel=4 / math.sqrt(layer.weight.numel()))
        else:
            assert layer.weight.abs().max().item() == pytest.approx(law["hi"], rel=0.01)
            assert not layer.bias.any()


# --- trees -------------------------------------------------------------------------------------------------------


def _tree_name(own: str) -> str:
    name = own.replace("entry.", "in.").replace("exit.", "out.").replace("final_bn.", "final.bn.")
    if ".edges." in "." + name:
        head, _, rest = name.partition("halves.")
        return head + rest.split(".edges.", 1)[1]
    return name.replace("halves.", "half")


def _net_name(own: str) -> str:
    if not own.startswith("blocks."):
        return own
    _, number, rest = own.split(".", 2)
    return f"blocks.{int(number) + 1}.{_tree_name(rest)}"


@pytest.mark.parametrize("name", ["tree_block_stride1", "tree_block_stride2"])
def test_a_tree_block_gives_the_values_and_gradients_of_the_original(name):
    case = PROXYLESS[name]
    block = TreeBlock(
        case["in"], case["width"], case["stride"], lambda edge: operation(case["ops"][edge], case["width"])
    )
    names = fill(block.train(), case["base"], _tree_name, case["weights"])
    x = build(case["x"]).requires_grad_()
    out = block(x)
    same(out, case["out"])
    out.backward(build(case["g"]))
    same(x.grad, case["grad_x"])
    gradients = {theirs: dict(block.named_parameters())[own].grad for own, theirs in names.items()}
    same_total(gradients.values(), case["weight_grad"])
    for place, norm in case["grad_norms"].items():
        assert gradients[place].norm().item() == pytest.approx(norm, rel=1e-9)
    assert macs(block, x.detach()[:1]) == case["macs_per_image"]


def test_a_small_tree_network_gives_the_values_of_the_original():
    case = PROXYLESS["tree_net_micro"]
    drawn = gi.unit(seed("arch", case["base"]), 36)
    ops = [[OPS[int(7 * u)] for u in drawn[first : first + 12]] for first in (0, 12, 24)]
    assert ops[0] == case["arch_block1"]
    network = tree(ops, case["widths"], case["classes"]).train()
    fill(network, case["base"], _net_name, case["weights"])
    assert count(network)[1] == case["macs"]
    logits = network(build(case["x"]))
    same(logits, case["logits"])
    loss = functional.cross_entropy(logits, torch.tensor(case["y"]))
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    loss.backward()
    same_total([p.grad for p in network.parameters()], case["weight_grad"])


@pytest.mark.slow
def test_the_published_network_gives_the_values_of_the_original():
    from benchmark.plan.config import compose

    case = PROXYLESS["published_cifar10"]
    method = compose(["method=nas/proxyless_published"]).method
    space = spaces.tree("b18")
    ops = [list(row) for row in method.architecture.ops]
    network = build_network(space.model.builder, {**space.model.kwargs, "ops": ops, "classes": 10}).train()
    fill(network, case["base"], _net_name, case["weights"])
    same(network(build(case["x"])), case["logits_train_mode"])
    with torch.device("meta"):
        assert (
            count(build_network(space.model.builder, {**space.model.kwargs, "ops": ops, "classes": 10}))[1]
            == case["macs"]
        )
        hundred = build_network(space.model.builder, {**space.model.kwargs, "ops": ops, "classes": 100})
        assert count(hundred) == (case["parameters_100_classes"], case["macs_100_classes"])


# --- sizes -------------------------------------------------------------------------------------------------------

SPACES = {
    "P-Tree B=18 alpha=84": ("tree", "b18"),
    "P-Tree B=6 alpha=84": ("tree", "b6"),
    "P-MB S": ("pmb", "s"),
    "P-MB M": ("pmb", "m"),
}


@pytest.mark.parametrize(
    "name", [name if name == "P-MB S" else pytest.param(name, marks=pytest.mark.slow) for name in PROXYLESS["sizes"]]
)
@pytest.mark.slow
def test_the_sizes_of_every_space_are_met_to_the_parameter(name):
    wanted, space = PROXYLESS["sizes"][name], spaces.space_of(*SPACES[name])
    if "widths" in wanted:
        assert space.model.kwargs["widths"] == wanted["widths"]
        assert len(space.edges) == wanted["decisions"]
    with torch.device("meta"):
        # a tree of 18 blocks takes seconds an operation: all of them are counted in the one of 6
        for op in space.edges[0][:: 5 if name == "P-Tree B=18 alpha=84" else 1]:
            if op in wanted:
                kwargs = {**space.model.kwargs, **space.architecture([op] * len(space.edges)), "classes": 100}
                assert list(count(build_network(space.model.builder, kwargs))) == wanted[op]
        supernet = (pmb_supernet if name.startswith("P-MB") else tree_supernet)(space.model.kwargs, 100)
        if "supernet_weight_parameters" in wanted:
            assert sum(p.numel() for p in supernet.weights()) == wanted["supernet_weight_parameters"]
            assert sum(p.numel() for p in supernet.alphas()) == wanted["architecture_parameters"]
        choose_all(supernet.edges, [Choice(0)] * len(supernet.edges))
        assert counted(supernet).at_random() == pytest.approx(wanted["random_mean"][1], rel=1e-12)
    assert [tuple(edge.ops) for edge in supernet.edges] == list(space.edges)
