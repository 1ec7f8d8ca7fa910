"""Refusals before the first stage: what a network answers and learns from; and no accuracy for one that answers NaN."""

from __future__ import annotations

import socket
import threading

import pytest
import torch
from torch import nn

from benchmark.deploy.answers import answers
from benchmark.plan.deployment import EngineError
from benchmark.plan.task import Data, Model
from benchmark.vision import download
from benchmark.vision.builders import trust
from benchmark.vision.data import DataError, Images, Loader
from benchmark.vision.evaluation import BrokenNetwork, accuracy
from benchmark.vision.rehearsal import batches, rehearse
from methods.baseline import Baseline
from methods.pruning.trace import follow


def body(*tail: nn.Module, wide: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, wide, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *tail)


def thousand(classes: int) -> nn.Module:
    return body(nn.Linear(8, 1000))


def maps(classes: int) -> nn.Module:
    return nn.Conv2d(3, classes, 3, padding=1)


class Pair(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = body(nn.Linear(8, classes))

    def forward(self, images):
        logits = self.body(images)
        return logits, logits


def pair(classes: int) -> nn.Module:
    return Pair(classes)


def normed(classes: int) -> nn.Module:
    return body(nn.BatchNorm1d(8), nn.Linear(8, classes))


class Deaf(nn.Module):
    """Its answers depend on no parameter."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.unused = nn.Linear(1, 1)

    def forward(self, images):
        return images.requires_grad_().flatten(1)[:, : self.classes]


def deaf(classes: int) -> nn.Module:
    return Deaf(classes)


def flat(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, classes))


def good(classes: int) -> nn.Module:
    return body(nn.Linear(8, classes))


@pytest.fixture
def of(task):
    def named(builder, **scale):
        model = Model(name=builder.__name__, builder=f"{__name__}:{builder.__name__}")
        trust(model.builder)
        return task.model_copy(update={"model": model, "scale": task.scale.model_copy(update=scale)})

    return named


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (thousand, r"has shape \[16, 1000\], but 10 classes need \[16, 10\]: does the builder use its argument"),
        (maps, r"but 10 classes need"),
        (pair, r"must be one tensor of logits \[images, classes\], not tuple"),
        (deaf, "depend on none of its parameters"),
        (flat, "it fails on a batch of 16 in training: RuntimeError"),
    ],
)
def test_a_network_that_does_not_answer_or_learn_is_refused_before_the_first_stage(of, builder, why):
    with pytest.raises(ValueError, match=why):
        Baseline().check(of(builder))


def test_a_last_batch_of_one_image_under_batch_norm_is_refused_and_two_are_not(of):
    """80 images in batches of 32 leave 16; 65 leave one."""
    assert batches(of(normed)) == (16, 32)
    assert batches(of(normed, train_images=65)) == (1, 32)
    assert rehearse(of(normed)) is None
    assert rehearse(of(normed, train_images=66)) is None
    assert rehearse(of(good, train_images=65)) is None
    with pytest.raises(
        ValueError, match=r"cannot train on a batch of 1, and an epoch has one: choose a recipe.batch_size"
    ):
        rehearse(of(normed, train_images=65))


class Answers:
    """Gives row after row of a list, whatever the images show."""

    def __init__(self, rows) -> None:
        self.rows = torch.tensor(rows)

    def __call__(self, images):
        return self.rows[: len(images)]

    prepare = staticmethod(lambda images: images)
    synchronise = staticmethod(lambda: None)


@pytest.fixture
def loader(recipe):
    images = Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    return Loader(images, recipe, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_have_no_accuracy_anywhere(loader, value):
    """Class 0 would be their answer, and half of these images are of class 0."""
    broken, sound = Answers([[0.0, value]] * 4), Answers([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(BrokenNetwork, match="answers NaN or infinity to 4 of 4 images"):
        accuracy(broken, loader)
    assert accuracy(sound, loader) == 75.0
    for engine, network in ((broken, sound), (sound, broken), (broken, broken)):
        with pytest.raises(EngineError, match="answers NaN or infinity"):
            answers(engine, network, loader)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_weight_that_hooks_make_is_refused_with_the_layers_name(norm):
    network = good(10)
    norm(network[0])
    with pytest.raises(ValueError, match=r"layer 0 makes its weight anew at every call.*remove"):
        follow(network)


def test_a_silent_server_is_given_up_with_the_remedy(tmp_path, monkeypatch):
    """It accepts the connection, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []
        threading.Thread(target=lambda: kept.append(server.accept()), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar-100-python.tar.gz"
        monkeypatch.setattr(download.import_torchvision().CIFAR100, "url", url)
        monkeypatch.setattr(download, "SILENT_S", 0.5)
        monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use in this process
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        said = []
        with pytest.raises(DataError, match=r"could not be downloaded \(.*timed out.*by hand"):
            download.ensure(Data(name="cifar100", classes=100), tmp_path, said.append)
    for connection, _ in kept:
        connection.close()
    assert said == [f"downloading cifar100 to {tmp_path} (about 170 MB; a server that is silent for 0.5 s is given up)"]
    assert socket.getdefaulttimeout() is None
