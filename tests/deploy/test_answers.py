"""An engine's answers beside its network's: what is counted, and what is an error rather than a number."""

from __future__ import annotations

import pytest
import torch

from benchmark.deploy.answers import answers
from benchmark.plan.deployment import EngineError
from benchmark.plan.task import Recipe
from benchmark.vision.data import Images, Loader

RECIPE = Recipe(name="t", epochs=1, batch_size=4, lr=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Answering:
    """Gives each image the logits that stand for its first pixel."""

    executes: dict = {}  # noqa: RUF012 # nobody writes to it

    def __init__(self, table):
        self.table = torch.tensor(table, dtype=torch.float32)

    def prepare(self, images):
        return images

    def synchronise(self):
        self.awaited = True

    def __call__(self, images):
        return self.table[(images[:, 0, 0, 0] * 255).round().long()]


def _loader(count):
    pixels = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(count)
    return Loader(Images(pixels, torch.tensor([0, 1, 0, 1, 0][:count])), RECIPE, 4)


NETWORK = Answering([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]])


def test_accuracies_and_agreement_are_of_all_images():
    engine = Answering([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0]])
    assert answers(engine, NETWORK, _loader(5)) == (80.0, 60.0, 40.0, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_errors(value):
    broken = Answering([[1, 0], [0, 1], [1, 0], [1, 0], [0, value]])
    with pytest.raises(EngineError, match="answers NaN or infinity where its network does not"):
        answers(broken, NETWORK, _loader(5))
    with pytest.raises(EngineError, match="the network answers NaN or infinity to a test image"):
        answers(NETWORK, broken, _loader(5))
    with pytest.raises(EngineError, match="the network answers NaN or infinity to a test image"):
        answers(broken, broken, _loader(5))


def test_the_same_answer_to_every_image_is_an_error_unless_the_network_gives_it_too():
    constant = Answering([[0.5, 0.1]] * 5)
    with pytest.raises(EngineError, match="gives every image the same answer, but its network does not"):
        answers(constant, NETWORK, _loader(5))
    assert answers(constant, constant, _loader(5)).agreement_pct == 100
    late = Answering([[1, 0]] * 4 + [[0, 1]])  # tells the last batch apart from the first
    assert answers(late, NETWORK, _loader(5)).n_test == 5
