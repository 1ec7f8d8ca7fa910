"""The cost of a training step under autocast, under fake quantization, and of a factored network, relative to plain.

    python scripts/perf_efficient.py [rounds]

resnet20, batches of 64, the optimiser's step included; sides interleaved round by round, the plain one twice (the
control). On a CPU two threads; on a GPU eager steps, so the launches of many small kernels are in the ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from perf_common import interleave, machine, ratios, spread
from torch import nn

from benchmark.deploy.points import points
from benchmark.plan.stage import Network
from benchmark.plan.task import Data, Model, Recipe, Scale, Task, TrainPrecision
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.network import build_model
from benchmark.vision.training_step import start, step
from methods.factorization.layers import choose, factor
from methods.quantization.fake import FakeQuantized, Scales

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
BATCH, STEPS = 64, 4
MODEL = Model(name="repdistiller/resnet20", builder="benchmark.vision.models.repdistiller.resnet:resnet20")
RECIPE = Recipe(name="perf", epochs=1, batch_size=BATCH, lr=1e-6, mean=(0, 0, 0), std=(1, 1, 1))


def _plain() -> nn.Module:
    torch.manual_seed(0)
    return build_model(MODEL, 100)


def _aware(scales: Scales) -> nn.Module:
    module = _plain()
    network = Network(MODEL.builder, {"classes": 100}, module.state_dict(), RECIPE.mean, RECIPE.std)
    return FakeQuantized(module, points(network), scales, "trt", 0.01)


def _factored() -> nn.Module:
    module = _plain()
    return factor(module, choose(module, None, 0.5)[0])


def _side(model: nn.Module, precision: TrainPrecision = "fp32") -> Callable[[], float]:
    """A function that returns the seconds of a model's step, averaged over a few."""
    data, scale = Data(name="synthetic", classes=100), Scale(name="perf")
    task = Task(model=MODEL, data=data, scale=scale, recipe=RECIPE, seed=0, train_precision=precision)
    run = start(model, CrossEntropy(), task, DEVICE)
    model.train()
    images, labels = torch.randn(BATCH, 3, 32, 32, device=DEVICE), torch.randint(0, 100, (BATCH,), device=DEVICE)

    def seconds() -> float:
        _wait()
        began = time.perf_counter()
        for _ in range(STEPS):
            step(run, task, (images, labels, labels))
        _wait()
        return (time.perf_counter() - began) / STEPS

    return seconds


def _wait() -> None:
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print all."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    if DEVICE == "cpu":
        torch.set_num_threads(2)
    print(machine())
    sides = {
        "plain": _side(_plain()),
        "plain again": _side(_plain()),
        "bf16 autocast": _side(_plain(), "bf16"),
        "fake quantization, observed": _side(_aware("observed")),
        "fake quantization, learned": _side(_aware("learned")),
        "factored to half the MACs": _side(_factored()),
    }
    if DEVICE != "cpu":  # fp16 on a CPU takes a hundred times as long
        sides["fp16 autocast with scaler"] = _side(_plain(), "fp16")
    for warm_up in sides.values():
        warm_up()
    costs = interleave(sides, rounds)
    print(f"a step of resnet20, batch {BATCH}, relative to the plain one: median [least - greatest], n = {rounds}")
    for name in sides:
        alone = 1e3 * statistics.median(costs[name])
        print(f"    {name:<30}{spread(ratios(costs[name], costs['plain'])):>22}   {alone:.0f} ms")


if __name__ == "__main__":
    main()
