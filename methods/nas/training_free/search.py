"""Searches that train little or nothing: scoring untrained networks, and training a few random ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Bench, Cost, Output
from benchmark.plan.task import Task
from benchmark.vision.builders import build_model
from benchmark.vision.data import Loader, Loaders, Normaliser, load
from benchmark.vision.loss import loss_of
from benchmark.vision.macs import count
from benchmark.vision.switches import switches
from benchmark.vision.training import TrainingError, fit, seed_everything
from methods.nas.params import RandomSearch, ZeroCostSearch
from methods.nas.spaces import Space
from methods.nas.splits import held_out
from methods.nas.stages import derived
from methods.nas.training_free.proxies import best, naswot, synflow


def _network(space: Space, ops: list[str], task: Task, number: int) -> nn.Module:
    """The network of an architecture, with initial weights drawn by its number."""
    seed_everything(task.seed, number)
    return build_model(derived(space.model, space.architecture(ops)), task.data.classes)


# --- without training --------------------------------------------------------------------------------------------


def score(bench: Bench, params: ZeroCostSearch) -> Output:
    """Draw architectures, score each right after its initialisation, and return the best.

    Everything is metered except counting parameters and MACs. These counts stand beside the scores in the record
    because they are strong baselines. Raises TrainingError where no architecture has finite scores.
    """
    task, space = params.task, params.space
    with bench.paused():
        images = _images(bench, params)
    left = bench.resume()
    log: dict[str, list[Any]] = {name: [] for name in ("ops", "params", "macs", *params.proxies)}
    if left is not None:
        log = {name: list(values) for name, values in left["log"].items()}
    seconds: dict[str, float] = dict.fromkeys(params.proxies, 0.0)
    with switches(tf32=False, cudnn_benchmark=False):
        for number in range(len(log["ops"]), params.candidates):
            ops = space.draw(task.seed, number)
            network = _network(space, ops, task, number).to(bench.device)
            for name, value in _scores(network, images, params, seconds).items():
                log[name].append(value)
            with bench.paused():
                parameters, macs = count(network)
            for name, known in (("ops", ops), ("params", parameters), ("macs", macs)):
                log[name].append(known)
            bench.progress(number + 1, params.candidates)
            bench.checkpoint(lambda: {"log": log})
    try:
        chosen = best({name: log[name] for name in params.proxies}, log["macs"])
    except ValueError as error:
        raise TrainingError(f"the search found nothing: {error}") from error
    return _scored(log, chosen, params, seconds)


def _images(bench: Bench, params: ZeroCostSearch) -> Tensor:
    """The first training images, normalised and not augmented, because naswot needs no labels and no crops."""
    task = params.task
    images, _ = load(task.data, bench.data_dir, task.scale)
    chosen = images.pixels[: params.images].to(bench.device)
    return Normaliser(task.recipe.mean, task.recipe.std, chosen.device)(chosen)


def _scores(network: nn.Module, images: Tensor, params: ZeroCostSearch, seconds: dict[str, float]) -> dict[str, float]:
    """A network's score by every proxy; the time of each is added to `seconds`."""
    calls: dict[str, Callable[[], float]] = {
        "synflow": lambda: synflow(network),
        "naswot": lambda: naswot(network, images),
    }
    found: dict[str, float] = {}
    for name in params.proxies:
        began = time.perf_counter()
        found[name] = calls[name]()
        seconds[name] += time.perf_counter() - began
    return found


def _scored(log: Mapping[str, list[Any]], chosen: int, params: ZeroCostSearch, seconds: Mapping[str, float]) -> Output:
    architecture = params.space.architecture(log["ops"][chosen])
    columns: dict[str, list[Any]] = {name: log[name] for name in (*params.proxies, "params", "macs")}
    arrays = {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}
    ops = [[row.index(op) for op, row in zip(own, params.space.edges, strict=True)] for own in log["ops"]]
    arrays["ops"] = torch.tensor(ops, dtype=torch.uint8)
    values: dict[str, float] = {"candidates": len(log["ops"]), "chosen": chosen}
    values |= {name: float(log[name][chosen]) for name in params.proxies}
    values |= {f"{name}_seconds": value for name, value in seconds.items()}
    scores = {name: [float(f"{value:.6g}") for value in columns[name]] for name in columns}
    return Output(arrays=arrays, values=values, details={"architecture": architecture, "search": {"scores": scores}})


# --- by brief trainings ------------------------------------------------------------------------------------------


def try_out(bench: Bench, params: RandomSearch) -> Output:
    """Draw architectures, train each briefly, and return the best on held-out images; everything is metered."""
    task, space = params.task, params.space
    with bench.paused():
        parts = _parts(bench, params)
    left = bench.resume()
    done: list[dict[str, Any]] = [] if left is None else list(left["done"])
    inner: Mapping[str, Any] | None = None if left is None else left["inner"]
    for number in range(len(done), params.candidates):
        ops = space.draw(task.seed, number)
        network = _network(space, ops, task, number)
        part = Part(bench, {"number": number, "of": params.candidates, "done": done}, inner)
        history = fit(part, network, parts, loss_of(task.recipe), _tested_once(task))
        inner = None
        with bench.paused():
            parameters, macs = count(network)
        accuracy = history.test_acc_pct[-1]
        found = {"ops": ops, "valid_acc_pct": accuracy, "loss": history.loss[-1]}
        done.append({**found, "params": parameters, "macs": macs, "execution": history.execution})
        bench.progress(number + 1, params.candidates, valid_acc_pct=accuracy)
        bench.checkpoint(lambda: {"done": done, "inner": None})
    chosen = max(range(len(done)), key=lambda number: (done[number]["valid_acc_pct"], -done[number]["macs"], -number))
    values = {
        "candidates": len(done),
        "chosen": chosen,
        "valid_acc_pct": done[chosen]["valid_acc_pct"],
        "epochs": task.recipe.epochs * len(done),
    }
    architecture = space.architecture(done[chosen]["ops"])
    return Output(values=values, details={"architecture": architecture, "search": {"tried": done}})


def _parts(bench: Bench, params: RandomSearch) -> Loaders:
    """Images to train on, and held-out images in place of a test set."""
    task = params.task
    images, _ = load(task.data, bench.data_dir, task.scale)
    kept, out = held_out(images.labels, params.held_out, task.seed)
    whole = Loader(images.to(bench.device), task.recipe, task.recipe.batch_size, seed=task.seed)
    return Loaders(whole.over(kept), whole.plain().over(out))


def _tested_once(task: Task) -> Task:
    """The task with one test, after the last epoch, because the choice needs no other."""
    recipe = task.recipe.model_copy(update={"test_every": task.recipe.epochs})
    return task.model_copy(update={"recipe": recipe})


class Part:
    """A bench for one of several trainings of a stage.

    Its checkpoints also hold the finished trainings, and its progress is a part of the whole. Nothing is taken off the
    meter, because here the evaluation makes a choice.
    """

    def __init__(self, bench: Bench, place: Mapping[str, Any], left: Mapping[str, Any] | None) -> None:
        self.device = bench.device
        self.data_dir: Path = bench.data_dir
        self._bench, self._place, self._left = bench, place, left

    def paused(self) -> AbstractContextManager[None]:
        """Nothing is paused: the block stays on the meter."""
        return nullcontext()

    def checkpoint(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """A checkpoint of the whole stage."""
        self._bench.checkpoint(lambda: {"done": self._place["done"], "inner": dict(state())})

    def resume(self) -> Mapping[str, Any] | None:
        """The checkpoint of this training, if any."""
        return self._left

    def progress(self, done: float, total: float, **shown: float) -> None:
        """Report the progress as a part of all trainings."""
        self._bench.progress(self._place["number"] + done / total, self._place["of"], **shown)

    def once(self, what: str, decide: Callable[[], str]) -> str:
        """As the bench has it."""
        return self._bench.once(what, decide)

    def cost(self, call: Callable[[], object], n: int) -> Cost:
        """As the bench has it."""
        return self._bench.cost(call, n)
