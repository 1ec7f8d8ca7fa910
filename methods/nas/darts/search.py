"""The search of DARTS: in each step first the architecture learns (validation batch), then the weights (training
batch).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.plan.stage import Bench, Output
from benchmark.plan.task import Recipe, Task, TrainPrecision
from benchmark.vision.data import Loader, load
from benchmark.vision.graph import Graphed, graph_backend
from benchmark.vision.learning_rate import rate
from benchmark.vision.memory import keep_freed_memory
from benchmark.vision.switches import switches
from benchmark.vision.training import autocast, seed_everything
from benchmark.vision.training_step import autocast_told, safe_in_channels_last, sgd
from methods.nas.darts.gradients import Ahead, Labelled, Step, buffers_of, first_order, second_order
from methods.nas.darts.supernet import SearchNetwork
from methods.nas.log import Log
from methods.nas.params import Alphas, DartsSearch, Order
from methods.nas.splits import halves

ORIGINAL = Alphas(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)


class Seen(NamedTuple):
    """Losses and hits of a search step, on the device, for the weights' batch and for the architecture's batch."""

    train_loss: Tensor
    train_hits: Tensor
    valid_loss: Tensor
    valid_hits: Tensor


@dataclass
class Searcher:
    """The state of a search: the network and its two optimisers.

    `rate` is the learning rate of the weights as a tensor on the device, which a captured step reads at every replay.
    """

    network: SearchNetwork
    recipe: Recipe
    order: Order
    precision: TrainPrecision
    weight_optimiser: torch.optim.Optimizer
    alpha_optimiser: torch.optim.Optimizer
    rate: Tensor
    memory_format: torch.memory_format

    @classmethod
    def on(
        cls, network: SearchNetwork, recipe: Recipe, order: Order, device: str, precision: TrainPrecision = "fp32"
    ) -> Searcher:
        """A search at its beginning, with its network moved to `device`; DARTS's Adam trains the alphas
        (`with_alphas`)."""
        layout = torch.channels_last if safe_in_channels_last(network, device) else torch.contiguous_format
        network.to(device).to(memory_format=layout)  # type: ignore[call-overload] # missing in the stub
        weights = list(network.weights().values())
        speed = torch.tensor(recipe.lr, dtype=weights[0].dtype, device=device)
        adam = _adam(network, ORIGINAL, device)
        return cls(network, recipe, order, precision, sgd(weights, recipe, speed), adam, speed, layout)

    def with_alphas(self, how: Alphas, device: str) -> Searcher:
        """The same search with other settings for its architecture parameters; call it before the first step."""
        self.alpha_optimiser = _adam(self.network, how, device)
        return self

    def step(self, train: Labelled, valid: Labelled) -> Seen:
        """An architecture step, then a weight step with the new architecture. Never waits for the device."""
        network, weights = self.network, self.network.weights()
        train, valid = self._laid_out(train), self._laid_out(valid)
        with autocast(self.precision, str(valid[0].device), cache=False):
            ahead = self._architecture_step(train, valid)
        for parameter, gradient in zip(network.architecture(), ahead.gradients, strict=True):
            parameter.grad = gradient
        self.alpha_optimiser.step()
        with autocast(self.precision, str(valid[0].device), cache=False):
            logits = network(train[0])
            loss = functional.cross_entropy(logits, train[1])
        self.weight_optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=list(weights.values()))  # type: ignore[no-untyped-call] # torch leaves backward untyped
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(weights.values(), self.recipe.clip_norm)
        self.weight_optimiser.step()
        return Seen(loss.detach(), _hits(logits, train[1]), ahead.loss, _hits(ahead.logits, valid[1]))

    def _architecture_step(self, train: Labelled, valid: Labelled) -> Step:
        if self.order == "first":
            return first_order(self.network, valid)
        buffers = buffers_of(self.weight_optimiser, self.network.weights())
        # the rate stays a tensor, because reading it on the host would wait for the device
        ahead = Ahead(self.rate, self.recipe.momentum, self.recipe.weight_decay, buffers)
        return second_order(self.network, train, valid, ahead)

    def _laid_out(self, batch: Labelled) -> Labelled:
        return batch[0].contiguous(memory_format=self.memory_format), batch[1]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "weights": self.weight_optimiser.state_dict(),
            "alphas": self.alpha_optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; call it before any step is captured."""
        self.network.load_state_dict(state["network"])
        self.weight_optimiser.load_state_dict(state["weights"])
        self.alpha_optimiser.load_state_dict(state["alphas"])
        for group in self.weight_optimiser.param_groups:
            group["lr"] = self.rate  # loading put a copy there


def _adam(network: SearchNetwork, how: Alphas, device: str) -> torch.optim.Optimizer:
    cuda = torch.device(device).type == "cuda"
    settings: dict[str, Any] = {"lr": how.lr, "betas": how.betas, "weight_decay": how.weight_decay}
    return torch.optim.Adam(network.architecture(), capturable=cuda, **settings)


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).sum()


class Parts(NamedTuple):
    """The two halves of the training images: shuffled passes for the weights, new draws for the architecture."""

    train: Loader
    valid: Loader


def search(bench: Bench, params: DartsSearch) -> Output:
    """Search a cell on `params.task.data`; returns its genotype, and the course of the search."""
    seed_everything(params.task.seed)
    size = params.task.model.kwargs
    return search_with(bench, params, SearchNetwork(size["channels"], size["cells"], params.task.data.classes))


def search_with(bench: Bench, params: DartsSearch, network: SearchNetwork) -> Output:
    """As `search`, with a given network: any network that mixes operations by parameters."""
    task = params.task
    if torch.device(bench.device).type == "cpu":
        keep_freed_memory()
    with bench.paused():
        parts = parts_of(bench, task)
    with switches(tf32=task.train_precision != "fp32", cudnn_benchmark=True):
        searcher = Searcher.on(network, task.recipe, params.order, bench.device, task.train_precision)
        log, execution = _search(bench, searcher.with_alphas(params.alphas, bench.device), parts, task)
    with bench.paused():
        parameters = sum(weight.numel() for weight in network.weights().values())
    details = {"architecture": log.epochs[-1]["architecture"], "search": log.details(), "execution": execution}
    return Output(arrays=log.arrays(), values={**log.values(), "supernet_params": parameters}, details=details)


def parts_of(bench: Bench, task: Task) -> Parts:
    """The two halves of a search's training images, on the device."""
    images, _ = load(task.data, bench.data_dir, task.scale)
    whole = Loader(images.to(bench.device), task.recipe, task.recipe.batch_size, seed=task.seed)
    first, second = halves(len(images))
    return Parts(whole.over(first), whole.over(second, "validation"))


def _search(bench: Bench, searcher: Searcher, parts: Parts, task: Task) -> tuple[Log, dict[str, Any]]:
    """Run all epochs, or the rest of an interrupted search; returns the log, and how the steps were executed."""
    log, recipe, network = Log(), task.recipe, searcher.network
    left = bench.resume()
    if left is None:
        log.add(list(network.tables().values()), {"genotype": network.genotype()})
    else:
        searcher.restore(left["searcher"])
        log = Log(**left["log"])
    network.train()
    steps = _Steps(searcher, parts, bench.device)
    for epoch in range(len(log.epochs) - 1, recipe.epochs):
        seen = steps.epoch(bench, epoch)
        log.add(list(network.tables().values()), {"genotype": network.genotype()}, **seen)
        bench.progress(epoch + 1, recipe.epochs, **seen)
        if epoch + 1 < recipe.epochs:
            bench.checkpoint(lambda: {"searcher": searcher.state(), "log": log.state()})
    told = {"order": searcher.order, "graphs": steps.graphed.sizes, "no_graph_because": steps.graphed.reason}
    return log, {**told, **autocast_told(task.train_precision, bench.device)}


class _Steps:
    """The steps of an epoch: their batches, their sums on the device, and their graphs where the device has graphs."""

    def __init__(self, searcher: Searcher, parts: Parts, device: str) -> None:
        self.searcher, self.parts = searcher, parts
        self.totals = torch.zeros(6, dtype=torch.float64, device=device)
        self.valid_rows = parts.valid.fresh(0, 1)[0].clone()
        self.backend = graph_backend(device)
        reason = "second-order steps are not captured" if searcher.order == "second" else ""
        self.graphed = Graphed(self._work, self.backend, reason)

    def epoch(self, bench: Bench, number: int) -> dict[str, float]:
        """Train one epoch; returns mean losses and accuracies of its batches, each measured before the batch's step."""
        train, recipe = self.parts.train, self.searcher.recipe
        count = len(train)
        self.totals.zero_()
        with self.backend.stream() if self.backend else nullcontext():
            valid = self.parts.valid.fresh(number, count)
            for done, rows in enumerate(torch.split(train.choices(number), train.batch_size)):
                self.searcher.rate.fill_(rate(recipe, number * count + done, count))
                self.valid_rows.copy_(valid[done])  # in place: a replay reads from this address
                self.graphed(rows)
                bench.progress(number + (done + 1) / count, recipe.epochs)
            loss, hits, seen, valid_loss, valid_hits, valid_seen = self.totals.tolist()
        return {
            "train_loss": loss / seen,
            "train_acc_pct": 100 * hits / seen,
            "valid_loss": valid_loss / valid_seen,
            "valid_acc_pct": 100 * valid_hits / valid_seen,
        }

    def _work(self, rows: Tensor) -> None:
        images, labels, _ = self.parts.train.batch(rows)
        valid_images, valid_labels, _ = self.parts.valid.batch(self.valid_rows)
        seen = self.searcher.step((images, labels), (valid_images, valid_labels))
        counts = [torch.full((), len(part), dtype=torch.float64, device=rows.device) for part in (labels, valid_labels)]
        train_sums = [seen.train_loss.double() * counts[0], seen.train_hits.double(), counts[0]]
        valid_sums = [seen.valid_loss.double() * counts[1], seen.valid_hits.double(), counts[1]]
        self.totals.add_(torch.stack([*train_sums, *valid_sums]))
