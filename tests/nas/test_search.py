"""The searches: what they find, what they keep, and that an interrupted one goes on as if it had not been."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from benchmark.plan.stage import Cost, Output
from benchmark.plan.task import Recipe
from benchmark.vision.builders import build
from benchmark.vision.training import TrainingError
from methods.nas.darts import search as darts_module
from methods.nas.darts.gradients import Ahead, second_order
from methods.nas.darts.search import Searcher as DartsSearcher
from methods.nas.darts.search import search as search_cells
from methods.nas.log import Log
from methods.nas.params import Alphas, Costs, CostTable, RandomSearch, ZeroCostSearch
from methods.nas.proxyless import costs
from methods.nas.proxyless.costs import Price, Table, counted, of_arrays
from methods.nas.proxyless.gates import Choice, Paths, choose_all
from methods.nas.proxyless.search import Searcher, search
from methods.nas.resolve import supernet_of
from methods.nas.spaces import pmb, tree
from methods.nas.splits import halves, held_out
from methods.nas.training_free.search import score, try_out
from tests.bench import MeteredBench, PlainBench
from tests.nas.small import SPACE, MixedToy, batch, darts_search, proxyless_search, task, toy

TOY_RECIPE = Recipe(
    name="toy", epochs=1, batch_size=32, lr=0.2, weight_decay=0, schedule="constant", mean=(0, 0, 0), std=(1, 1, 1)
)


# --- gradients ---------------------------------------------------------------------------------------------------


def test_the_second_order_gradient_is_the_slope_of_the_loss_after_a_step():
    """Against the definition, by differences of L_valid(w'(alpha), alpha) in float64."""
    torch.manual_seed(0)
    network = MixedToy(noise=False).double()
    train, valid = batch(dtype=torch.float64, seed=1), batch(dtype=torch.float64, seed=2)
    buffers = {name: 0.01 * torch.randn_like(weight) for name, weight in network.weights().items()}
    ahead = Ahead(0.3, 0.9, 0.01, buffers)

    def after_a_step(alphas):
        saved = [alpha.detach().clone() for alpha in network.architecture()]
        weights = network.weights()
        with torch.no_grad():
            for own, value in zip(network.architecture(), alphas, strict=True):
                own.copy_(value)
        gradients = torch.autograd.grad(functional.cross_entropy(network(train[0]), train[1]), list(weights.values()))
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                weight.sub_(0.3 * (0.9 * buffers[name] + gradient + 0.01 * weight))
            value = functional.cross_entropy(network(valid[0]), valid[1]).item()
            for name, weight in weights.items():
                weight.copy_(kept[name])
            for own, old in zip(network.architecture(), saved, strict=True):
                own.copy_(old)
        return value

    found = second_order(network, train, valid, ahead)
    here = [alpha.detach().clone() for alpha in network.architecture()]
    assert found.loss.item() == pytest.approx(after_a_step(here), rel=1e-12)
    for place, table in enumerate(here):
        for row in range(table.shape[0]):
            for column in range(table.shape[1]):
                moved = [[alpha.clone() for alpha in here] for _ in range(2)]
                moved[0][place][row, column] += 1e-5
                moved[1][place][row, column] -= 1e-5
                slope = (after_a_step(moved[0]) - after_a_step(moved[1])) / 2e-5
                assert found.gradients[place][row, column].item() == pytest.approx(slope, rel=2e-3, abs=1e-7)


def test_second_order_differs_from_first_and_leaves_weights_as_they_were():
    torch.manual_seed(0)
    network = MixedToy(noise=False).double()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    from methods.nas.darts.gradients import first_order

    first = first_order(network, batch(dtype=torch.float64))
    second = second_order(network, batch(dtype=torch.float64), batch(dtype=torch.float64), Ahead(0.3, 0.9, 0.0, {}))
    assert not torch.allclose(first.gradients[0], second.gradients[0], rtol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- what is found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["first", "second"])
def test_darts_finds_the_one_operation_that_helps(order):
    torch.manual_seed(0)
    network = MixedToy()
    searcher = DartsSearcher.on(network, TOY_RECIPE, order, "cpu").with_alphas(Alphas(lr=0.05), "cpu")
    searcher.memory_format = torch.contiguous_format  # points, no images
    losses = [searcher.step(batch(seed=step), batch(seed=1000 + step)).valid_loss.item() for step in range(80)]
    for table in network.architecture():
        assert table.argmax(1).tolist() == [1] * len(table), "the identity"
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("mode", ["two", "full"])
def test_proxylessnas_finds_the_one_operation_that_helps(mode):
    torch.manual_seed(0)
    net = toy()
    searcher = Searcher.on(net, TOY_RECIPE, Alphas(lr=0.05, betas=(0.0, 0.999)), "cpu")
    searcher.memory_format = torch.contiguous_format
    paths, generator = Paths(net.edges), torch.Generator().manual_seed(0)
    for step in range(150):
        searcher.weight_step(batch(seed=step), paths.single(1, generator)[0])
        draw = paths.two if mode == "two" else paths.full
        searcher.architecture_step(batch(seed=1000 + step), draw(generator))
        paths.refresh()
    assert [choice.active for choice in paths.strongest()] == [1, 1], "the identity"


def test_reinforce_finds_the_one_operation_that_helps():
    torch.manual_seed(0)
    net = toy()
    searcher = Searcher.on(net, TOY_RECIPE, Alphas(lr=0.05, betas=(0.0, 0.999)), "cpu")
    searcher.memory_format = torch.contiguous_format
    paths, generator = Paths(net.edges), torch.Generator().manual_seed(0)
    for step in range(150):
        searcher.weight_step(batch(seed=step), paths.single(1, generator)[0])
        searcher.reinforced_step(batch(seed=1000 + step), paths.single(10, generator))
        paths.refresh()
    assert [choice.active for choice in paths.strongest()] == [1, 1], "the identity"


def test_a_price_alone_moves_the_search_to_what_costs_least():
    torch.manual_seed(0)
    net = toy()
    searcher = Searcher.on(net, TOY_RECIPE, Alphas(lr=0.05, betas=(0.0, 0.999)), "cpu")
    searcher.memory_format = torch.contiguous_format
    searcher.price = Price(Table([[9.0, 5.0, 1.0]] * 2, 2.0), Costs(kind="energy", weight=100.0), "cpu")
    assert searcher.price.reference == 12.0, "the mean of all operations, and what is fixed"
    paths, generator = Paths(net.edges), torch.Generator().manual_seed(0)
    for step in range(60):
        searcher.architecture_step(batch(seed=step), paths.two(generator))
        paths.refresh()
    assert [choice.active for choice in paths.strongest()] == [2, 2]
    assert searcher.price.table.of([2, 2]) == 4.0


def test_an_architecture_step_on_two_paths_leaves_all_other_probabilities_and_every_weight_as_they_were():
    params = proxyless_search()
    torch.manual_seed(0)
    net = supernet_of(params.space, params.task.data.classes)
    searcher = Searcher.on(net, params.task.recipe, Alphas(lr=0.3, betas=(0.0, 0.999)), "cpu")
    net.train()
    weights = [weight.clone() for weight in net.weights()]
    before = [edge.alpha.detach().softmax(0) for edge in net.edges]
    choices = Paths(net.edges).two(torch.Generator().manual_seed(4))
    searcher.architecture_step((torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))), choices)
    assert all(torch.equal(now, old) for now, old in zip(net.weights(), weights, strict=True))
    assert all(weight.grad is None for weight in net.weights())
    moved = 0
    for edge, choice, old in zip(net.edges, choices, before, strict=True):
        now = edge.alpha.detach().softmax(0)
        pair = [choice.active, *choice.others]
        others = [number for number in range(len(old)) if number not in pair]
        assert now[others].tolist() == pytest.approx(old[others].tolist(), rel=1e-5)
        moved += not torch.allclose(now[pair], old[pair])
    assert moved, "no pair moved at all"


def test_a_weight_step_touches_the_sampled_path_alone():
    params = proxyless_search()
    torch.manual_seed(0)
    net = supernet_of(params.space, params.task.data.classes)
    searcher = Searcher.on(net, params.task.recipe, params.alphas, "cpu")
    net.train()
    before = [{name: p.clone() for name, p in edge.named_parameters()} for edge in net.edges]
    searcher.weight_step((torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))), [Choice(1)] * len(net.edges))
    for edge, old in zip(net.edges, before, strict=True):
        active = f"ops.{list(edge.ops)[1]}."
        changed = {name for name, p in edge.named_parameters() if not torch.equal(p, old[name])}
        assert changed == {name for name in old if name.startswith(active)}, "weight decay reached the others"


def test_a_weight_step_keeps_about_as_much_in_memory_as_one_path():
    space = pmb("xs")

    def kept(module, images):
        seen: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = module(images).sum()
        weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        del loss
        return sum(size for place, size in seen.items() if place not in weights)

    torch.manual_seed(0)
    net = supernet_of(space, 10).train()
    choose_all(net.edges, [Choice(3)] * len(net.edges))
    alone = build(space.model.builder, {**space.model.kwargs, "ops": ["k5e6"] * 6, "classes": 10}).train()
    images = torch.randn(8, 3, 32, 32)
    path, one = kept(net, images), kept(alone, images)
    assert one <= path <= 1.05 * one
    choose_all(net.edges, [Choice(3, (5,))] * len(net.edges))
    two = kept(net, images)
    assert path < two < 1.7 * path, "of the inactive path its output is kept, nothing inside"


# --- the stages --------------------------------------------------------------------------------------------------


def _same_log(one: Output, other: Output) -> None:
    assert one.details["architecture"] == other.details["architecture"]
    assert one.details["search"] == other.details["search"]
    for name, values in (one.arrays or {}).items():
        assert torch.equal(values.nan_to_num(-9), other.arrays[name].nan_to_num(-9))


def _interrupted(stage, params, stop_at):
    bench = PlainBench(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        stage(bench, params)
    assert bench.state is not None, "nothing was kept"
    return stage(PlainBench(state=bench.state), params)


@pytest.mark.slow
def test_a_search_of_cells_moves_logs_and_ends_in_a_network():
    made = search_cells(PlainBench(), darts_search())
    history = made.details["search"]["history"]
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert history[0]["entropy"] == pytest.approx(math.log(8), rel=1e-4), "before the search all are alike"
    assert history[-1]["entropy"] < history[0]["entropy"]
    assert set(made.details["search"]["alphas"]) == {"0", "1", "2"}
    assert made.arrays["alphas"].shape == (3, 28, 8)
    assert {"train_loss", "valid_loss", "entropy", "supernet_params"} <= set(made.values)
    network = build(
        "benchmark.vision.models.nas.darts:darts",
        {**made.details["architecture"], "channels": 4, "cells": 3, "classes": 10},
    )
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert made.details["execution"]["no_graph_because"] == "this device has no graphs"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_an_interrupted_search_of_cells_goes_on_as_if_it_had_not_been(order):
    params = darts_search(order=order)
    whole = search_cells(PlainBench(), params)
    _same_log(_interrupted(search_cells, params, stop_at=1.4), whole)
    assert len(whole.details["search"]["history"]) > 1, "there was something to interrupt"


@pytest.mark.parametrize(
    "mode", ["two", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("full", "reinforce"))]
)
def test_an_interrupted_search_of_blocks_goes_on_as_if_it_had_not_been(mode):
    params = proxyless_search(mode=mode, costs=Costs(kind="macs"))
    whole = search(PlainBench(), params)
    _same_log(_interrupted(search, params, stop_at=2.4), whole)
    history = whole.details["search"]["history"]
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3, 4]
    alphas = whole.arrays["alphas"].nan_to_num(0)
    assert torch.equal(alphas[0], alphas[2]), "weights alone, and the first epoch after them"
    assert not torch.equal(alphas[2], alphas[3])
    assert whole.values["cost"] > 0
    assert whole.values["cost_reference"] == pytest.approx(
        counted(supernet_of(params.space, params.task.data.classes)).at_random()
    )
    assert whole.details["search"]["operations"][0] == list(SPACE.edges[0])


@pytest.mark.slow
def test_a_search_runs_under_autocast_and_says_so():
    half = task(SPACE.model, epochs=2).model_copy(update={"train_precision": "bf16"})
    made = search(PlainBench(), proxyless_search(task=half, costs=Costs(kind="macs", rule="multiply", weight=0.3)))
    assert made.details["execution"]["autocast"].startswith("bf16 on a CPU")
    alphas = made.arrays["alphas"]
    assert alphas.dtype == torch.float64
    assert not torch.equal(alphas[0].nan_to_num(0), alphas[-1].nan_to_num(0))


def test_what_is_looked_at_beside_the_search_is_off_the_meter(monkeypatch):
    bench, seen = MeteredBench(), []
    from methods.nas.proxyless import search as module

    real = module._validated
    monkeypatch.setattr(module, "_validated", lambda *given: (seen.append(bench.running), real(*given))[1])
    search(bench, proxyless_search())
    assert seen
    assert not any(seen)


def test_the_validation_pass_of_a_search_goes_on_from_epoch_to_epoch():
    from methods.nas.proxyless.search import _parts, _Search

    params = proxyless_search(task=task(SPACE.model, images=200, epochs=6), held_out=0.4, every=1)
    parts = _parts(PlainBench(), params)
    net = supernet_of(params.space, params.task.data.classes)
    course = _Search(PlainBench(), params, Searcher.on(net, params.task.recipe, params.alphas, "cpu"), parts)
    steps, whole = len(parts.train) // params.every, parts.valid.count // parts.valid.batch_size
    drawn = []
    for epoch in range(2, 5):
        batches = course._held_out(epoch)
        drawn += [next(batches)[1] for _ in range(steps)]
    passes = [torch.split(parts.valid.choices(number), parts.valid.batch_size)[:whole] for number in range(10)]
    wanted = [parts.valid.batch(rows)[1] for own in passes for rows in own][: len(drawn)]
    assert all(torch.equal(one, other) for one, other in zip(drawn, wanted, strict=True))
    assert parts.valid.recipe.augment == "none"


def test_a_loss_that_is_no_number_ends_a_search_with_its_epoch():
    log = Log()
    log.add([torch.zeros(2, 3)], {})
    with pytest.raises(TrainingError, match="the train loss of the search became nan in epoch 1"):
        log.add([torch.zeros(2, 3)], {}, train_loss=math.nan)


def test_a_record_holds_no_more_tables_than_it_may():
    log = Log()
    for _ in range(40):
        log.add([torch.zeros(600, 7)], {"ops": []})
    kept = [int(number) for number in log.details()["alphas"]]
    assert (kept[0], kept[-1], len(kept)) == (0, 39, 50_000 // 4200)
    assert log.arrays()["alphas"].shape == (40, 600, 7)


# --- splits ------------------------------------------------------------------------------------------------------


def test_halves_are_the_first_and_the_last_in_file_order():
    first, second = halves(50_000)
    assert (first[0], first[-1], second[0], second[-1]) == (0, 24_999, 25_000, 49_999)


def test_images_are_held_out_class_by_class_by_the_seed():
    labels = torch.arange(50_000) % 100
    kept, out = held_out(labels, 0.1, seed=3)
    assert (len(kept), len(out)) == (45_000, 5_000)
    assert set(torch.bincount(labels[out]).tolist()) == {50}
    assert torch.equal(torch.cat([kept, out]).sort().values, torch.arange(50_000))
    assert torch.equal(out, held_out(labels, 0.1, seed=3)[1])
    assert not torch.equal(out, held_out(labels, 0.1, seed=4)[1])
    few = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    kept, out = held_out(few, 0.5, seed=0)
    assert set(few[kept].tolist()) == {0, 1, 2}, "the last of a class is never held out"
    with pytest.raises(ValueError, match=r"holding out 0.1 of 8 images leaves 1 to validate on: use more"):
        held_out(few, 0.1, seed=0)


# --- costs -------------------------------------------------------------------------------------------------------


class PricedBench(PlainBench):
    """Calls, counts, and says that a call costs 3 J and takes 2 s."""

    def __init__(self, joules=3.0) -> None:
        super().__init__()
        self.joules, self.calls = joules, 0

    def cost(self, call, n):
        call()
        self.calls += 1
        reason = "no meter" if math.isnan(self.joules) else ""
        return Cost(self.joules, 0.1, 2.0, n, "fake", "A", reason, {})


def _table(space, **values):
    params = {"task": task(space.model), "space": space, "batch_size": 2, "seconds": 1e-6}
    return CostTable(**{**params, **values})


def test_a_table_measures_every_operation_once_at_its_own_place():
    bench = PricedBench()
    made = costs.table(bench, _table(SPACE))
    # block 1 and block 2 of 7 and 6 operations differ, zero costs nothing, and the fixed layers are one more
    assert bench.calls == 6 + 6 + 6 + 1
    joules = made.arrays["joules"]
    assert joules.shape == (3, 7)
    assert joules[1, 6] == 0.0, "zero"
    assert torch.isnan(joules[0, 6]), "a block of stride 2 has no zero"
    assert joules[0, 0] == 1.5, "an image of two"
    assert made.values["fixed_joules"] == 1.5
    assert (made.details["source"], made.details["grade"]) == ("fake", "A")
    net = supernet_of(SPACE, 10)
    priced = of_arrays(made.arrays, net, "energy")
    assert priced.edges[1] == [1.5e6] * 6 + [0.0], "microjoules"
    assert of_arrays(made.arrays, net, "latency").fixed == 1e6


def test_operations_alike_are_measured_once():
    bench = PricedBench()
    whole = tree("b2")
    narrow = whole.model.model_copy(update={"kwargs": {"widths": [4, 4, 4]}})
    space = whole.model_copy(update={"model": narrow, "edges": whole.edges[:36]})
    made = costs.table(bench, _table(space))
    assert bench.calls == 3 * 6 + 1, "three sizes of maps, six operations, the identity is none"
    assert made.arrays["joules"].shape == (36, 7)
    assert made.arrays["joules"][:, 6].unique().tolist() == [0.0]


def test_a_table_without_a_meter_is_refused_with_a_remedy():
    with pytest.raises(
        TrainingError, match=r"cannot be measured here \(no meter\): search with method.costs.kind=macs"
    ):
        costs.table(PricedBench(joules=math.nan), _table(SPACE))


def test_a_search_takes_its_prices_from_the_table():
    made = costs.table(PricedBench(), _table(SPACE))
    found = search(PlainBench(), proxyless_search(costs=Costs(kind="energy", weight=50.0)), costs=made)
    assert found.values["cost_reference"] == pytest.approx(1.5e6 * (1 + 1 + 6 / 7 + 1))
    with pytest.raises(TrainingError, match="rule=multiply needs costs above 1 microseconds an image"):
        Price(Table([[0.5]], 0.2), Costs(kind="latency", rule="multiply"), "cpu")


# --- without training, and by chance -------------------------------------------------------------------------------


def _zero_cost(**values):
    params = {"task": task(SPACE.model), "space": SPACE, "candidates": 5, "images": 8}
    return ZeroCostSearch(**{**params, **values})


def test_scores_are_kept_for_all_and_an_interrupted_search_goes_on():
    whole = score(PlainBench(), _zero_cost())
    assert _without_times(_interrupted(score, _zero_cost(), stop_at=3)) == _without_times(whole)
    scores = whole.details["search"]["scores"]
    assert {name: len(values) for name, values in scores.items()} == dict.fromkeys(
        ("synflow", "naswot", "params", "macs"), 5
    )
    assert whole.details["architecture"] == {"ops": SPACE.draw(0, int(whole.values["chosen"]))}
    assert whole.values["synflow_seconds"] > 0


def _without_times(made: Output):
    values = {name: value for name, value in made.values.items() if not name.endswith("_seconds")}
    return values, made.details


def test_one_proxy_alone_can_choose():
    made = score(PlainBench(), _zero_cost(proxies=("synflow",)))
    flows = made.details["search"]["scores"]["synflow"]
    assert flows.index(max(flows)) == made.values["chosen"]


def test_random_search_chooses_by_images_held_out_on_the_meter_and_goes_on(monkeypatch):
    params = RandomSearch(task=task(SPACE.model, images=80, batch_size=16), space=SPACE, candidates=3, held_out=0.25)
    bench, metered = MeteredBench(), []
    from benchmark.vision import training

    real = training.accuracy
    monkeypatch.setattr(training, "accuracy", lambda *given: (metered.append(bench.running), real(*given))[1])
    whole = try_out(bench, params)
    assert metered == [True] * 3, "what chooses is paid for, once a network"
    tried = whole.details["search"]["tried"]
    assert [one["ops"] for one in tried] == [SPACE.draw(0, number) for number in range(3)]
    assert whole.values["valid_acc_pct"] == max(one["valid_acc_pct"] for one in tried)
    again = _interrupted(try_out, params, stop_at=1.6)
    assert again.details == whole.details


def test_architectures_are_drawn_alike_over_all_operations():
    space = pmb("s")
    drawn = [space.draw(1, number) for number in range(400)]
    assert drawn[7] == space.draw(1, 7) != space.draw(2, 7)
    assert len({tuple(one) for one in drawn}) == 400
    share = sum(one[0] == "zero" for one in drawn) / 400
    assert share == pytest.approx(1 / 7, abs=0.06)
    assert all(op in ops for one in drawn for op, ops in zip(one, space.edges, strict=True))


# --- captured steps ----------------------------------------------------------------------------------------------


class Replayed:
    """Graphs as a CPU can fake them: a capture runs nothing, a replay runs what was captured, on the same tensors."""

    def stream(self):
        import contextlib

        return contextlib.nullcontext()

    def capture(self, work):
        return work

    def abandon(self):
        raise AssertionError("nothing broke")


@pytest.mark.slow
def test_captured_steps_read_every_batch_anew(monkeypatch):
    """The validation batch and the learning rate reach a captured step through tensors that stay in place."""
    params = darts_search(task=task(images=96, batch_size=8, epochs=1))
    eager = search_cells(PlainBench(), params)
    monkeypatch.setattr(darts_module, "graph_backend", lambda device: Replayed())
    graphed = search_cells(PlainBench(), params)
    _same_log(eager, graphed)
    assert graphed.details["execution"]["graphs"] == [8]
