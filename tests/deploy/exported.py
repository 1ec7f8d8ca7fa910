"""Exports shared by the tests of deployment: one takes seconds, so each is made once a process."""

from __future__ import annotations

import functools

import torch

from benchmark.deploy.export import export
from benchmark.plan.deployment import BuildOrder
from benchmark.plan.stage import Network
from benchmark.plan.task import Data, Model, Recipe, Scale
from benchmark.vision.builders import build_model
from benchmark.vision.network import freeze

DATA = Data(name="synthetic", classes=10)
SCALE = Scale(name="test", train_images=200, test_images=60)
TINY = Model(name="tiny", builder="tests.tiny:tiny")
RESNET = Model(name="repdistiller/resnet8", builder="benchmark.vision.models.repdistiller.resnet:resnet8")
RECIPE = Recipe(name="test", epochs=1, batch_size=20, lr=0.1, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@functools.cache
def network(model: str = "tiny", seed: int = 0) -> Network:
    """A network with batch norm statistics and biases that are not those of the first moment."""
    words = {"tiny": TINY, "resnet": RESNET}[model]
    torch.manual_seed(seed)
    module = build_model(words, 10)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(2 * torch.randn(32, 3, 32, 32))
        for each in module.parameters():
            if each.ndim == 1:
                each.add_(0.2 * torch.randn_like(each))
    return freeze(module.eval(), words, 10, RECIPE)


@functools.cache
def exported(model: str = "tiny") -> bytes:
    """The ONNX file of `network(model)` in fp32."""
    return export(network(model)).SerializeToString()


def order(precision="fp32", scales=None, of="tiny") -> BuildOrder:
    """An order for the CPU, on which there is nothing to choose."""

    def never(what, decide):
        raise AssertionError("a CPU has nothing to choose")

    return BuildOrder(network(of), scales, precision, "cpu", never)
