"""The answers of an engine to the test images, compared with the answers of its network in PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.plan.deployment import Engine, EngineError
from benchmark.vision.data import Loader


class Answers(NamedTuple):
    """Accuracy of the engine and of its network, and how often they predict the same class; in percent of `n_test`."""

    acc_pct: float
    network_acc_pct: float
    agreement_pct: float
    n_test: int


def answers(engine: Engine, network: Engine, loader: Loader, trained: Tensor | None = None) -> Answers:
    """Compare the engine and its network on every image of `loader`.

    `trained`, int16 [images], holds the classes that the network predicted under fake quantization, right after its
    training; where given, these are the network's answers. Raises EngineError where the engine gives NaN or infinity,
    or the same answer to every image although its network does not.
    """
    right = own = same = 0
    varied = network_varied = False
    first: tuple[Tensor, Tensor] | None = None
    if trained is not None and len(trained) != loader.count:
        raise EngineError(
            f"the network answered {len(trained)} test images after its training; here are {loader.count}"
        )
    seen = 0
    for images, labels, _ in loader:
        given, expected = _read(engine, images), _read(network, images)
        _check_finite(given, expected)
        first = first or (given[:1].clone(), expected[:1].clone())
        varied = varied or not torch.equal(given, first[0].expand_as(given))
        network_varied = network_varied or not torch.equal(expected, first[1].expand_as(expected))
        named, truth = given.argmax(1), labels.cpu()
        wanted = expected.argmax(1) if trained is None else trained[seen : seen + len(images)].long()
        seen += len(images)
        right += int((named == truth).sum())
        own += int((wanted == truth).sum())
        same += int((named == wanted).sum())
    if network_varied and not varied:
        raise EngineError(
            "the engine gives every image the same answer, but its network does not: the engine is broken"
        )
    n = loader.count
    return Answers(100 * right / n, 100 * own / n, 100 * same / n, n)


def _check_finite(given: Tensor, expected: Tensor) -> None:
    """Raise EngineError at NaN or infinity, of which class 0 would count as the answer."""
    if not torch.isfinite(expected).all():
        raise EngineError("the network answers NaN or infinity to a test image: no engine of it has an accuracy")
    if not torch.isfinite(given).all():
        raise EngineError("the engine answers NaN or infinity where its network does not: it must not be measured")


def _read(engine: Engine, images: Tensor) -> Tensor:
    """An engine's logits for some images, float32 on the CPU."""
    logits = engine(engine.prepare(images))
    engine.synchronise()
    found: Tensor = logits.float().cpu()
    return found
