"""Data: integrity, cuts, augmentation, loaders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.plan.task import Data, Scale
from benchmark.vision import data, download, files

with np.load(Path(__file__).parent.parent / "data" / "augment_golden.npz") as _file:
    GOLDEN = dict(_file)


@pytest.mark.parametrize("order", ["crop_flip", "flip_crop"])
def test_augmentation_is_bit_identical_to_torchvision(order):
    top, left, flip = torch.from_numpy(GOLDEN[f"{order}.draws"]).unbind(1)
    pixels = data.augment(
        torch.from_numpy(GOLDEN["pixels"]), data.Draws(top, left, flip.bool()), int(GOLDEN["padding"]), order
    )
    ours = data.normalise(pixels, tuple(GOLDEN["mean"].tolist()), tuple(GOLDEN["std"].tolist()))
    assert torch.equal(ours, torch.from_numpy(GOLDEN[f"{order}.out"]))


def test_the_two_orders_differ():
    top, left, flip = torch.from_numpy(GOLDEN["crop_flip.draws"]).unbind(1)
    pixels, draws = torch.from_numpy(GOLDEN["pixels"]), data.Draws(top, left, flip.bool())
    assert not torch.equal(data.augment(pixels, draws, 4, "crop_flip"), data.augment(pixels, draws, 4, "flip_crop"))


def test_draws_are_independent_and_cover_their_range():
    draws = data.draw(20_000, 4, torch.Generator().manual_seed(0))
    for offsets in (draws.top, draws.left):
        assert offsets.unique().tolist() == list(range(9))
        assert torch.bincount(offsets).min() > 20_000 / 9 * 0.9
    assert 0.48 < draws.flip.double().mean() < 0.52
    assert abs(np.corrcoef(draws.top, draws.left)[0, 1]) < 0.03


def test_loader_yields_every_image_once_keeps_the_ragged_batch_and_its_index(recipe):
    images, _ = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=70, test_images=10))
    plain = recipe.model_copy(update={"augment": "none"})
    loader = data.Loader(images, plain, 32, seed=3)
    batches = list(loader.epoch(0))
    assert [len(labels) for _, labels, _ in batches] == [32, 32, 6]
    assert len(loader) == 3
    index = torch.cat([index for *_, index in batches])
    assert sorted(index.tolist()) == list(range(70))
    assert index.tolist() != list(range(70))
    for pixels, labels, index in batches:
        assert torch.equal(labels, images.labels[index])
        assert torch.equal(pixels, data.normalise(images.pixels[index], plain.mean, plain.std))


def test_a_later_stage_goes_on_with_the_draws(recipe):
    images = data.Images(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    first, later = (data.Loader(images, recipe, 16, seed=1, first_epoch=number) for number in (0, 8))
    assert torch.equal(later.choices(2), first.choices(10))
    assert not torch.equal(later.choices(0), first.choices(0))


def test_an_epoch_depends_on_seed_and_number_alone(recipe):
    images, _ = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=70, test_images=10))

    def order(seed, epoch):
        return torch.cat([index for *_, index in data.Loader(images, recipe, 32, seed=seed).epoch(epoch)]).tolist()

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6)
    assert order(1, 5) != order(2, 5)
    assert order(0, 1) != order(1, 0)


@pytest.mark.parametrize("augment", ["crop_flip", "none"])
def test_cutout_zeroes_a_square_around_a_uniform_centre_and_leaves_the_other_draws_alone(recipe, augment):
    """Against the definition, image by image: rows y - 8 to y + 7 and columns alike, cut off at the borders."""
    images, _ = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=300, test_images=10))
    plain = recipe.model_copy(update={"augment": augment})
    whole = data.Loader(images, plain, 128, seed=3)
    cut = data.Loader(images, plain.model_copy(update={"cutout": 16}), 128, seed=3)
    rows = cut.choices(2)
    assert torch.equal(rows[:, :-2], whole.choices(2)), "the draws of before are the draws of before"
    for ours, theirs in zip(cut.epoch(2), whole.epoch(2), strict=True):
        assert torch.equal(ours[2], theirs[2])
        for image, other, row in zip(ours[0], theirs[0], rows[: len(ours[0])], strict=True):
            y, x = (row[-2:] + 8).tolist()
            other[:, max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = 0
            assert torch.equal(image, other)
        rows = rows[len(ours[0]) :]


@pytest.mark.parametrize(
    ("y", "x", "zeros"), [(0, 0, 64), (5, 20, 208), (16, 16, 256), (31, 3, 99), (8, 31, 144), (24, 7, 240)]
)
def test_cutout_of_16_zeroes_what_darts_does(y, x, zeros):
    out = data.cut_out(torch.ones(1, 3, 32, 32), torch.tensor([y - 8]), torch.tensor([x - 8]), 16)
    assert (out == 0).sum().item() == 3 * zeros


def test_centres_of_cutout_cover_the_image_evenly(recipe):
    images = data.Images(torch.zeros(20_000, 3, 32, 32, dtype=torch.uint8), torch.zeros(20_000, dtype=torch.int64))
    centres = data.Loader(images, recipe.model_copy(update={"cutout": 16}), 128, seed=0).choices()[:, -2:] + 8
    for axis in centres.unbind(1):
        assert axis.unique().tolist() == list(range(32))
        assert torch.bincount(axis).min() > 20_000 / 32 * 0.8
    assert abs(np.corrcoef(*centres.unbind(1))[0, 1]) < 0.03


def test_the_test_loader_cuts_nothing_out(recipe):
    _, test = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=10, test_images=30))
    cut = recipe.model_copy(update={"cutout": 16})
    pairs = zip(data.Loader(test, cut, 30), data.Loader(test, recipe, 30), strict=True)
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in pairs)


def test_loaders_over_some_images_draw_for_them_alone_and_keep_their_indices(recipe):
    images, _ = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=80, test_images=10))
    loader = data.Loader(images, recipe, 32, seed=3)
    halves = [
        loader.over(part, name) for part, name in zip(torch.arange(80).chunk(2), ("weights", "alphas"), strict=True)
    ]
    for half, first in zip(halves, (0, 40), strict=True):
        index = torch.cat([index for *_, index in half.epoch(1)])
        assert sorted(index.tolist()) == list(range(first, first + 40))
        assert (len(half), half.count) == (2, 40)
        for _, labels, at in half.epoch(1):
            assert torch.equal(labels, images.labels[at])
    one, other = (half.choices(1) for half in halves)
    assert not torch.equal(one[:, 0], other[:, 0] - 40), "both halves in the same order"
    assert not torch.equal(one[:, 1:], other[:, 1:])
    assert torch.equal(halves[0].choices(1), one)
    assert torch.equal(loader.over(torch.arange(80)).choices(1), loader.choices(1)), "all of them: as ever"


def test_a_plain_loader_over_some_images_gives_them_as_they_are_in_the_order_asked_for(recipe):
    images, test = data.load(
        Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=80, test_images=10)
    )
    wanted = torch.tensor([7, 3, 70])
    pixels, labels, index = next(iter(data.Loader(images, recipe, 32, seed=3).over(wanted).plain()))
    assert torch.equal(index, wanted)
    assert torch.equal(labels, images.labels[wanted])
    assert torch.equal(pixels, data.normalise(images.pixels[wanted], recipe.mean, recipe.std))
    assert next(iter(data.Loader(test, recipe, 32).over(torch.tensor([4]))))[2].tolist() == [4]


@pytest.mark.parametrize("chosen", [[], [-1], [80]])
def test_indices_without_an_image_are_refused(recipe, chosen):
    images, _ = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=80, test_images=10))
    with pytest.raises(ValueError, match="between 0 and 79"):
        data.Loader(images, recipe, 32).over(torch.tensor(chosen, dtype=torch.int64))


def test_test_loader_is_in_order_and_plain(recipe):
    _, test = data.load(Data(name="synthetic", classes=10), Path(), Scale(name="t", train_images=10, test_images=30))
    pixels, labels, index = next(iter(data.Loader(test, recipe, 30)))
    assert index.tolist() == list(range(30))
    assert torch.equal(labels, test.labels)
    assert torch.equal(pixels, data.normalise(test.pixels, recipe.mean, recipe.std))


def _cifar_files(root: Path, monkeypatch: pytest.MonkeyPatch, per_class: int = 3) -> Path:
    """A folder like cifar-100-python with few images, whose md5 sums are the expected ones."""
    import hashlib

    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    sums = {}
    for name, count in (("train", 100 * per_class), ("test", 100)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": pixels, "fine_labels": [(7 * k) % 100 for k in range(count)]})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    made = files.CIFAR["cifar100"]._replace(train={"train": sums["train"]}, test={"test": sums["test"]})
    monkeypatch.setitem(files.CIFAR, "cifar100", made)
    return folder


def test_cifar_is_read_as_planes_and_cut_to_a_balanced_subset(tmp_path, monkeypatch):
    folder = _cifar_files(tmp_path, monkeypatch)
    cifar = Data(name="cifar100", classes=100)
    train, test = data.load(cifar, tmp_path, Scale(name="full"))
    assert train.pixels.shape == (300, 3, 32, 32)
    assert len(test) == 100
    raw = pickle.loads((folder / "train").read_bytes())["data"]
    assert torch.equal(train.pixels[5, 1], torch.from_numpy(raw[5, 1024:2048].reshape(32, 32)))
    cut, _ = data.load(cifar, tmp_path, Scale(name="s", train_images=200))
    assert torch.bincount(cut.labels).tolist() == [2] * 100
    again, _ = data.load(cifar, tmp_path, Scale(name="s", train_images=200))
    assert torch.equal(cut.pixels, again.pixels)


def test_a_truncated_file_is_refused_with_its_path_and_a_remedy(tmp_path, monkeypatch):
    folder = _cifar_files(tmp_path, monkeypatch)
    (folder / "train").write_bytes((folder / "train").read_bytes()[:-1])
    with pytest.raises(data.DataError, match=r"train is damaged .* delete it"):
        data.load(Data(name="cifar100", classes=100), tmp_path, Scale(name="full"))


def test_without_network_the_message_says_which_files_to_put_where(tmp_path, monkeypatch):
    class Datasets:
        class CIFAR100:
            def __init__(self, root: str, download: bool) -> None:
                raise OSError("no route to host")

        CIFAR10 = CIFAR100

    monkeypatch.setattr(download, "import_torchvision", lambda: Datasets)
    with pytest.raises(data.DataError, match=r"no route to host.*cifar-100-python/train.*paths.data"):
        download.ensure(Data(name="cifar100", classes=100), tmp_path)


def test_nothing_is_downloaded_where_the_files_are(tmp_path, monkeypatch):
    _cifar_files(tmp_path, monkeypatch)
    monkeypatch.setattr(download, "import_torchvision", lambda: pytest.fail("asked for torchvision"))
    download.ensure(Data(name="cifar100", classes=100), tmp_path)
    download.ensure(Data(name="synthetic", classes=100), tmp_path)
    assert files.missing_files(Data(name="cifar100", classes=100), tmp_path) == []


def test_unknown_data_set_is_named():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar1000'.*python -m benchmark data"):
        Data(name="cifar1000", classes=10)


def test_synthetic_is_the_same_each_time_and_split_apart():
    wanted = Data(name="synthetic", classes=10)
    scale = Scale(name="t", train_images=50, test_images=50)
    (train, test), (again, _) = data.load(wanted, Path(), scale), data.load(wanted, Path(), scale)
    assert torch.equal(train.pixels, again.pixels)
    assert not torch.equal(train.pixels, test.pixels)
