"""The search of ProxylessNAS.

Weights learn along one sampled path per step. Architecture parameters learn from the gates of two paths or of all
paths, or from the rewards of sampled paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.plan.stage import Bench, Output
from benchmark.plan.task import Recipe, TrainPrecision
from benchmark.vision.data import Loader, load, mix
from benchmark.vision.learning_rate import rate
from benchmark.vision.memory import keep_freed_memory
from benchmark.vision.switches import switches
from benchmark.vision.training import autocast, seed_everything
from benchmark.vision.training_step import autocast_told, safe_in_channels_last, sgd
from methods.nas.log import Log
from methods.nas.params import Alphas, ProxylessSearch
from methods.nas.proxyless.costs import Price, counted, of_arrays
from methods.nas.proxyless.gates import (
    Choice,
    Paths,
    adam,
    alpha_gradient,
    choose_all,
    keep_unsampled,
    names,
    open_gates,
    shares,
    stacked,
)
from methods.nas.proxyless.reinforce import baseline_after, gradients, reward
from methods.nas.proxyless.supernet import Supernet
from methods.nas.resolve import supernet_of
from methods.nas.splits import held_out

Labelled = tuple[Tensor, Tensor]


class Seen(NamedTuple):
    """Loss and logits of a step, on the device; for an architecture step the loss is the plain cross-entropy."""

    loss: Tensor
    logits: Tensor


@dataclass
class Searcher:
    """The state of a search: the supernet and its two optimisers.

    `rate` is the learning rate of the weights, a tensor on the device.
    """

    supernet: Supernet
    recipe: Recipe
    precision: TrainPrecision
    weight_optimiser: torch.optim.Optimizer
    alpha_optimiser: torch.optim.Optimizer
    rate: Tensor
    memory_format: torch.memory_format
    price: Price | None = None
    baseline: Tensor | None = None

    @classmethod
    def on(
        cls, supernet: Supernet, recipe: Recipe, alphas: Alphas, device: str, precision: TrainPrecision = "fp32"
    ) -> Searcher:
        """A search at its beginning, with its supernet moved to `device`."""
        layout = torch.channels_last if safe_in_channels_last(supernet, device) else torch.contiguous_format
        supernet.to(device).to(memory_format=layout)  # type: ignore[call-overload] # missing in the stub
        weights = supernet.weights()
        speed = torch.tensor(recipe.lr, dtype=weights[0].dtype, device=device)
        settings = {"lr": alphas.lr, "betas": alphas.betas, "weight_decay": alphas.weight_decay}
        return cls(
            supernet, recipe, precision, sgd(weights, recipe, speed), adam(supernet.edges, settings), speed, layout
        )

    def weight_step(self, batch: Labelled, path: Sequence[Choice]) -> Seen:
        """One step of the weights along a path; other operations' weights do not change. Never waits for the device."""
        choose_all(self.supernet.edges, path)
        loss, logits = self._forward(batch, self.recipe.label_smoothing)
        self.weight_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
        self.weight_optimiser.step()
        return Seen(loss.detach(), logits.detach())

    def architecture_step(self, batch: Labelled, choices: Sequence[Choice]) -> Seen:
        """One step of the architecture parameters by the gates of `choices`, including the cost.

        With two operations on an edge, the probabilities of all others do not change. An edge whose active operation is
        zero is left out. Never waits for the device.
        """
        edges, alphas = self.supernet.edges, self.supernet.alphas()
        gates, compared, moved = open_gates(edges, choices)
        loss, logits = self._forward(batch, 0.0)
        table = stacked(alphas, compared.shape[1])
        q = shares(table, compared)
        whole = loss.float() if loss.dtype in (torch.bfloat16, torch.float16) else loss
        priced = whole if self.price is None else self.price.joined(whole, self.price.expected(q))
        gate_gradient, *direct = torch.autograd.grad(priced, [gates, *alphas], allow_unused=True)
        gate_gradient = torch.zeros_like(gates) if gate_gradient is None else gate_gradient
        learned = alpha_gradient(gate_gradient, q.detach())
        for edge, row, part in zip(edges, learned, direct, strict=True):
            own = row[: len(edge.alpha)]
            edge.alpha.grad = (own if part is None else own + part) if edge.updates else None
        self.alpha_optimiser.step()
        if any(len(choice.others) + 1 < len(edge.alpha) for edge, choice in zip(edges, choices, strict=True)):
            keep_unsampled(alphas, table.detach(), moved)
        self.alpha_optimiser.zero_grad(set_to_none=True)
        return Seen(loss.detach(), logits.detach())

    def reinforced_step(self, batch: Labelled, samples: Sequence[Sequence[Choice]]) -> None:
        """One step of the architecture parameters by the accuracies of sampled paths on a batch.

        There is no gradient through the network. With a price, its weight is the exponent of reference / cost. Never
        waits for the device.
        """
        accuracies = []
        for sample in samples:
            choose_all(self.supernet.edges, sample)
            with torch.no_grad():
                _, logits = self._forward(batch, 0.0)
            accuracies.append((logits.argmax(1) == batch[1]).double().mean())
        rewards = torch.stack([self._reward(own, path) for own, path in zip(accuracies, samples, strict=True)])
        self.baseline = baseline_after(self.baseline, rewards)
        alphas = self.supernet.alphas()
        for alpha, gradient in zip(alphas, gradients(alphas, samples, rewards, self.baseline), strict=True):
            alpha.grad = gradient.to(alpha.dtype)
        self.alpha_optimiser.step()
        self.alpha_optimiser.zero_grad(set_to_none=True)

    def _reward(self, accuracy: Tensor, path: Sequence[Choice]) -> Tensor:
        if self.price is None:
            return accuracy
        cost = self.price.table.of([choice.active for choice in path])
        return reward(accuracy, cost, self.price.reference, self.price.costs.weight)

    def _forward(self, batch: Labelled, label_smoothing: float) -> tuple[Tensor, Tensor]:
        images, labels = batch
        with autocast(self.precision, str(images.device), cache=False):
            logits = self.supernet(images.contiguous(memory_format=self.memory_format))
            return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "supernet": self.supernet.state_dict(),
            "weights": self.weight_optimiser.state_dict(),
            "alphas": self.alpha_optimiser.state_dict(),
            "baseline": self.baseline,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimiser.load_state_dict(state["weights"])
        self.alpha_optimiser.load_state_dict(state["alphas"])
        self.baseline = None if state["baseline"] is None else state["baseline"].to(self.rate.device)
        for group in self.weight_optimiser.param_groups:
            group["lr"] = self.rate  # loading put a copy there


class Parts(NamedTuple):
    """Training images for the weights, and held-out images, without augmentation, for the architecture."""

    train: Loader
    valid: Loader


def search(bench: Bench, params: ProxylessSearch, costs: Output | None = None) -> Output:
    """Search a network of a space on `params.task.data`; returns one operation per edge, and the course of the search.

    `costs` is the output of `costs.table`, where the cost is latency or energy.
    """
    task = params.task
    seed_everything(task.seed)
    supernet = supernet_of(params.space, task.data.classes)
    if torch.device(bench.device).type == "cpu":
        keep_freed_memory()
    with bench.paused():
        parts = _parts(bench, params)
        price = _price(params, supernet, costs, bench.device)
    with switches(tf32=task.train_precision != "fp32", cudnn_benchmark=True):
        searcher = Searcher.on(supernet, task.recipe, params.alphas, bench.device, task.train_precision)
        searcher.price = price
        log = _Search(bench, params, searcher, parts).run()
    with bench.paused():
        paths = Paths(supernet.edges)
        told = _told(price, [choice.active for choice in paths.strongest()])
        weights = sum(weight.numel() for weight in supernet.weights())
    values = {**log.values(), **told, "supernet_params": weights}
    details = {
        "architecture": log.epochs[-1]["architecture"],
        "search": {**log.details(), "operations": [list(edge.ops) for edge in supernet.edges]},
        "execution": {"mode": params.mode, **autocast_told(task.train_precision, bench.device)},
    }
    return Output(arrays=log.arrays(), values=values, details=details)


def _parts(bench: Bench, params: ProxylessSearch) -> Parts:
    task = params.task
    images, _ = load(task.data, bench.data_dir, task.scale)
    kept, out = held_out(images.labels, params.held_out, task.seed)
    images = images.to(bench.device)
    plain = task.recipe.model_copy(update={"augment": "none", "cutout": 0})
    size = task.recipe.batch_size
    train = Loader(images, task.recipe, size, seed=task.seed).over(kept)
    return Parts(train, Loader(images, plain, min(size, len(out)), seed=task.seed).over(out, "validation"))


def _price(params: ProxylessSearch, supernet: Supernet, costs: Output | None, device: str) -> Price | None:
    if params.costs is None:
        return None
    if params.costs.kind == "macs":
        return Price(counted(supernet), params.costs, device)
    assert costs is not None, "the plan gives a table where the cost is measured"
    assert costs.arrays is not None, "the output of a table has arrays"
    return Price(of_arrays(costs.arrays, supernet, params.costs.kind), params.costs, device)


def _told(price: Price | None, choice: Sequence[int]) -> dict[str, float]:
    """The derived network's cost by the table, and the reference; empty where there is no cost."""
    return {} if price is None else {"cost": price.table.of(choice), "cost_reference": price.reference}


class _Search:
    """All epochs of a search: first only the weights are trained, then weights and architecture.

    An interrupted search continues where its last epoch ended, because an epoch's draws follow from its number.
    """

    def __init__(self, bench: Bench, params: ProxylessSearch, searcher: Searcher, parts: Parts) -> None:
        self.bench, self.params, self.searcher, self.parts = bench, params, searcher, parts
        self.edges = searcher.supernet.edges
        self.paths = Paths(self.edges)
        self.alone = params.weights_only_epochs
        epochs = params.task.recipe.epochs
        self.total = self.alone + epochs
        # no architecture step in the first epoch of the search, unless it is the only one
        self.first = self.alone + (1 if epochs > 1 else 0)

    def run(self) -> Log:
        """The course of the search."""
        left, log = self.bench.resume(), Log()
        if left is not None:
            self.searcher.restore(left["searcher"])
            log = Log(**left["log"])
            self.paths.refresh()
        else:
            self._note(log, {})
        self.searcher.supernet.train()
        for epoch in range(len(log.epochs) - 1, self.total):
            seen = self._epoch(epoch)
            self._note(log, seen)
            shown = {name: value for name, value in log.epochs[-1].items() if isinstance(value, float)}
            self.bench.progress(epoch + 1, self.total, **shown)
            if epoch + 1 < self.total:
                self.bench.checkpoint(lambda: {"searcher": self.searcher.state(), "log": log.state()})
        return log

    def _note(self, log: Log, seen: Mapping[str, float]) -> None:
        """Log an epoch; the network that would be derived now is evaluated off the meter, because it decides
        nothing."""
        with self.bench.paused():
            found = self.paths.strongest()
            valid = _validated(self.searcher, self.parts.valid, found) if seen else {}
            architecture = self.params.space.architecture(names(self.edges, found))
            log.add([edge.alpha for edge in self.edges], architecture, **seen, **valid)

    def _epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; returns the mean loss and accuracy of its weight steps."""
        train, device = self.parts.train, self.bench.device
        count, every = len(train), self.params.every
        searching = number >= self.first
        generator = torch.Generator().manual_seed(mix(self.params.task.seed, number, "paths"))
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        valid, ahead = self._held_out(number), iter([] if searching else self.paths.single(count, generator))
        for done, batch in enumerate(train.epoch(number)):
            path = next(ahead, None)
            if path is None:  # for all steps until the parameters change
                ahead = iter(self.paths.single(every, generator))
                path = next(ahead)
            self.searcher.rate.fill_(self._rate(number * count + done, count))
            seen = self.searcher.weight_step(batch[:2], path)
            totals += _sums(seen, batch[1])
            if searching and (done + 1) % every == 0:
                self._architecture_step(next(valid), generator)
                self.paths.refresh()
            self.bench.progress(number + (done + 1) / count, self.total)
        loss, hits, images = totals.tolist()
        return {"train_loss": loss / images, "train_acc_pct": 100 * hits / images}

    def _architecture_step(self, batch: Labelled, generator: torch.Generator) -> None:
        """One architecture step in the search's mode."""
        if self.params.mode == "reinforce":
            self.searcher.reinforced_step(batch, self.paths.single(self.params.samples, generator))
            return
        draw = self.paths.two if self.params.mode == "two" else self.paths.full
        self.searcher.architecture_step(batch, draw(generator))

    def _held_out(self, number: int) -> Iterator[Labelled]:
        """Batches for an epoch's architecture steps: one shuffled pass after another over the held-out images.

        A ragged last batch is left out. Where an epoch ends in the middle of a pass, the next epoch continues there.
        """
        valid, steps = self.parts.valid, len(self.parts.train) // self.params.every
        whole = valid.count // valid.batch_size
        done = max(0, number - self.first) * steps
        while True:
            rows = torch.split(valid.choices(done // whole), valid.batch_size)[done % whole]
            images, labels, _ = valid.batch(rows)
            yield images, labels
            done += 1

    def _rate(self, step: int, count: int) -> float:
        """The learning rate: half a cosine to zero over the weights-only epochs, then the recipe's own rate."""
        recipe, alone = self.params.task.recipe, self.alone
        if step < alone * count:
            update = {"epochs": alone, "lr": self.params.weights_only_lr, "schedule": "cosine_step"}
            return rate(recipe.model_copy(update={**update, "final_lr": 0.0, "warmup_epochs": 0}), step, count)
        return rate(recipe, step - alone * count, count)


def _sums(seen: Seen, labels: Tensor) -> Tensor:
    count = torch.full((), len(labels), dtype=torch.float64, device=labels.device)
    hits = (seen.logits.argmax(1) == labels).sum()
    return torch.stack([seen.loss.double() * count, hits.double(), count])


def _validated(searcher: Searcher, valid: Loader, choices: Sequence[Choice]) -> dict[str, float]:
    """Loss and accuracy of a path on the held-out images, by batch statistics.

    Running statistics mix all paths, so they are not used.
    """
    choose_all(searcher.supernet.edges, choices)
    searcher.supernet.train()
    totals = torch.zeros(3, dtype=torch.float64, device=valid.images.pixels.device)
    with torch.no_grad():
        for images, labels, _ in valid.plain():
            loss, logits = searcher._forward((images, labels), 0.0)
            totals += _sums(Seen(loss, logits), labels)
    total, hits, count = totals.tolist()
    return {"valid_loss": total / count, "valid_acc_pct": 100 * hits / count}
