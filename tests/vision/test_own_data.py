"""A data set of one's own: made from images, known by its content, trained on like any other."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError

from benchmark import gathering
from benchmark.errors import UserError
from benchmark.plan import config
from benchmark.plan.task import Data, Scale
from benchmark.vision import data as sets
from benchmark.vision import own_data
from benchmark.vision.download import ensure
from benchmark.vision.files import DataError
from benchmark.vision.gather import How, constants, gather
from tests.harness.helpers import GPU


def _picture(path, colour, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _folder(root, test="test", count=6):
    """Two classes that differ in colour; every picture is another."""
    for split in ("train", test):
        for label, name in enumerate(("daisy", "rose")):
            for number in range(count):
                shade = number + (100 if split == "train" else 150)
                _picture(root / split / name / f"{number}.png", (shade, 200 * label, 10))
    return root


def _make(root, *words):
    folders = [f"to={root / 'words'}", f"paths.data={root / 'data'}"]
    assert gathering.data([f"from={root / 'images'}", "name=flowers", *folders, *words]) == 0
    return Data.model_validate(yaml.safe_load((root / "words" / "data" / "flowers.yaml").read_text()))


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_of_images_becomes_arrays_and_a_yaml_that_names_their_content(tmp_path, test, capsys):
    _folder(tmp_path / "images", test)
    made = _make(tmp_path)
    assert (made.classes, made.train_images, made.test_images, made.search) == (2, 12, 12, "flowers")
    assert made.mean == pytest.approx((102.5 / 255, 100 / 255, 10 / 255), abs=1e-4)
    assert made.std == pytest.approx((np.arange(6).std() / 255, 100 / 255, 1e-4), abs=1e-4)
    train, held = sets.load(made, tmp_path / "data", Scale(name="t"))
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert train.pixels[7].flatten(1)[:, 0].tolist() == [101, 200, 10], "channels first, colours kept"
    assert held.pixels[0, 0, 0, 0] == 150
    assert "12 training and 12 test images, 2 classes" in capsys.readouterr().out
    assert '["daisy", "rose"]' in (tmp_path / "words" / "data" / "flowers.yaml").read_text()


def test_classes_alone_are_split_by_the_seed_and_no_image_is_on_both_sides(tmp_path):
    _folder(tmp_path / "images", count=10)
    source = tmp_path / "images" / "train"
    one, again, other = (gather(source, How(0.3, seed)) for seed in (1, 1, 2))
    assert len(one.arrays["test_labels"]) == 6
    assert np.bincount(one.arrays["test_labels"]).tolist() == [3, 3]
    assert own_data.digest(one.arrays) == own_data.digest(again.arrays) != own_data.digest(other.arrays)
    both = [{image.tobytes() for image in one.arrays[f"{split}_images"]} for split in own_data.SPLITS]
    assert not both[0] & both[1]
    assert len(both[0] | both[1]) == 20
    assert one.notes == ("30% of each class (at least one) are test images, drawn by seed=1",)


def test_each_class_is_split_by_a_draw_of_its_own(tmp_path):
    """Frames of one film, numbered alike in every class, must not all be held out together."""
    _folder(tmp_path / "images", count=20)
    arrays = gather(tmp_path / "images" / "train", How(0.5)).arrays
    shades = [arrays["test_images"][arrays["test_labels"] == label][:, 0, 0, 0].tolist() for label in (0, 1)]
    assert shades[0] != shades[1]


def test_an_image_stays_upright(tmp_path):
    """Rows stay rows: a transposed set would train, and would be another data set."""
    _folder(tmp_path / "images")
    top = Image.new("RGB", (32, 32), "black")
    top.paste((200, 0, 0), (0, 0, 32, 3))  # the three uppermost rows
    for split in ("train", "test"):
        top.save(tmp_path / "images" / split / "daisy" / "0.png")
    train, _ = sets.load(_make(tmp_path), tmp_path / "data", Scale(name="t"))
    red = train.pixels[0, 0]
    assert red[:3].eq(200).all()
    assert red[3:].eq(0).all()


def test_arrays_of_other_shapes_and_types_have_other_digests():
    """Some bytes are several arrays: without their shapes, two data sets could share a key."""
    arrays = {name: np.zeros(16, np.int64) for name in own_data._names()}
    found = {own_data.digest(arrays)}
    for other in (np.zeros((2, 8), np.int64), np.zeros(16, np.uint64), np.zeros((16, 1), np.int64)):
        found.add(own_data.digest({**arrays, "train_labels": other}))
    assert len(found) == 4


def test_a_file_that_cannot_be_written_whole_leaves_nothing(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        own_data.write(tmp_path / "a.npz", dict.fromkeys(own_data._names()))
    assert list(tmp_path.iterdir()) == []


def test_a_test_image_that_is_a_training_image_is_told(tmp_path):
    _folder(tmp_path / "images")
    _picture(tmp_path / "images" / "test" / "rose" / "again.png", (100, 200, 10))
    assert "1 of 13 test images are training images, too" in gather(tmp_path / "images", How()).notes[0]


@pytest.mark.parametrize("names", [tuple(own_data._names()), ("x_train", "y_train", "x_test", "y_test")])
def test_arrays_are_taken_as_they_are(tmp_path, names):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    labels = np.array([[0], [1], [2]] * 3, dtype=np.uint8)  # as Keras gives CIFAR's
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, (pixels, labels, pixels[:3], labels[:3]), strict=True)))
    found = gather(tmp_path / "a.npz", How())
    assert found.classes == ("0", "1", "2")
    assert np.array_equal(found.arrays["train_images"], pixels)
    assert found.arrays["train_labels"].tolist() == [0, 1, 2] * 3
    mean, std = constants(found.arrays)
    assert mean == pytest.approx((pixels / 255).mean((0, 1, 2)), abs=1e-4)
    assert std == pytest.approx((pixels / 255).std((0, 1, 2)), abs=1e-4)


def test_splits_are_known_by_their_names_in_any_case_and_what_is_not_used_is_said(tmp_path):
    _folder(tmp_path / "images")
    for name in ("train", "test"):
        (tmp_path / "images" / name).rename(tmp_path / "images" / name.capitalize())
    _picture(tmp_path / "images" / "val" / "rose" / "0.png", (1, 2, 3))
    found = gather(tmp_path / "images", How())
    assert found.classes == ("daisy", "rose")
    assert found.notes == ("trained on Train/, tested on Test/; not used: val",)


def test_every_class_has_a_test_image_or_the_lack_is_said(tmp_path):
    _folder(tmp_path / "images", count=2)
    drawn = gather(tmp_path / "images" / "train", How())
    assert np.bincount(drawn.arrays["test_labels"]).tolist() == [1, 1]
    for path in (tmp_path / "images" / "test" / "rose").iterdir():
        path.unlink()
    assert "no test image of 1 of 2 classes: rose" in gather(tmp_path / "images", How()).notes


def test_what_is_hidden_is_no_image(tmp_path):
    rose = _folder(tmp_path / "images") / "train" / "rose"
    (rose / "._0.png").write_bytes(b"a Mac's")
    _picture(rose / ".thumbs" / "0.png", (1, 2, 3))
    _picture(rose / "more" / "0.png", (1, 2, 3))
    assert len(gather(tmp_path / "images", How()).arrays["train_labels"]) == 13


def test_a_class_whose_name_is_not_utf_8_is_one_of_them(tmp_path):
    _folder(tmp_path / "images")
    (tmp_path / "images" / "train" / "rose").rename(tmp_path / "images" / "train" / os.fsdecode(b"Bl\xfcte"))
    assert len(gather(tmp_path / "images" / "train", How()).classes) == 2


def test_pixels_are_what_a_person_sees(tmp_path):
    """Turned as the camera says, on white where they are transparent, the first frame of those that move."""
    rose = _folder(tmp_path / "images") / "train" / "rose"
    turned = Image.new("RGB", (32, 32), "black")
    turned.putpixel((0, 0), (255, 255, 255))
    exif = turned.getexif()
    exif[274] = 3  # upside down
    turned.save(rose / "a_turned.png", exif=exif)
    Image.new("RGBA", (32, 32), (9, 9, 9, 0)).save(rose / "b_clear.png")
    first, second = Image.new("RGB", (32, 32), (10, 20, 30)), Image.new("RGB", (32, 32), (200, 20, 30))
    first.save(rose / "c_moving.png", save_all=True, append_images=[second])
    found = gather(tmp_path / "images", How())
    upside, clear, moving = found.arrays["train_images"][12:]
    assert upside[31, 31].tolist() == [255] * 3
    assert upside[0, 0].tolist() == [0] * 3
    assert clear[0, 0].tolist() == [255] * 3
    assert moving[0, 0].tolist() == [10, 20, 30]
    for said in ("1 images were turned", "1 images have transparency", "1 images are animated"):
        assert any(note.startswith(said) for note in found.notes)


HEADERS = {
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 32, 32, 3), }",
    "broken header": b"{'descr': " + b"'" * 3,
}


@pytest.mark.parametrize(
    ("content", "message"),
    [("cut", "no whole .npz"), ("single", "no whole .npz"), ("huge", "not uint8 .* up to 1,000,000"),
     ("broken header", "no whole .npz|header"), ("float labels", "float64 .*not integers"), ("unlike", "4 images and 3 labels")],
)  # fmt: skip  # a line a case would hide the table
def test_arrays_that_are_none_are_one_error(tmp_path, content, message):
    path = tmp_path / "a.npz"
    pixels, labels = np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 0, 1])
    arrays = {"train_images": pixels, "train_labels": labels, "test_images": pixels, "test_labels": labels}
    if content == "single":
        with path.open("wb") as file:
            np.save(file, pixels)
    else:
        arrays |= {"float labels": {"train_labels": labels / 2}, "unlike": {"train_labels": labels[:3]}}.get(
            content, {}
        )
        np.savez(path, **arrays)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    if content in HEADERS:
        header = HEADERS[content].ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            for name in arrays:
                archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=message):
        gather(path, How())


def test_another_size_is_refused_unless_it_may_be_scaled(tmp_path):
    _folder(tmp_path / "images")
    _picture(tmp_path / "images" / "train" / "rose" / "wide.jpg", (120, 200, 10), (64, 40))
    with pytest.raises(DataError, match=r"wide.jpg is 64 x 40; .*resize=true"):
        gather(tmp_path / "images", How())
    assert len(gather(tmp_path / "images", How(resize=True)).arrays["train_labels"]) == 13


def _bad(folder, how):
    if how == "damaged":
        (folder / "train" / "rose" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    elif how == "one class":
        for path in (folder / "train" / "rose").iterdir():
            path.unlink()
        (folder / "train" / "rose").rmdir()
    elif how == "strange class":
        _picture(folder / "test" / "tulip" / "0.png", (1, 2, 3))
    elif how == "empty class":
        for path in (folder / "train" / "rose").iterdir():
            path.unlink()
    elif how == "16 bit":
        Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(folder / "train" / "rose" / "deep.png")
    elif how == "no train":
        shutil.rmtree(folder / "train")
    elif how == "not utf-8":
        _picture(folder / "test" / os.fsdecode(b"Bl\xfcte") / "0.png", (1, 2, 3))
    elif how == "no test":
        for path in (folder / "test").rglob("*.png"):
            path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [("damaged", "0.png cannot be read as an image"), ("one class", "at least two folders.*found 1"),
     ("strange class", "test has the classes tulip"), ("empty class", "1 of 2 classes have no training image: 'rose'"), ("16 bit", "deep.png: its pixels are I;16.*convert it"),
     ("no train", r"test/ without train/ beside it: .*from=.*test"), ("not utf-8", "Bl.*te, of which there are no training images"),
     ("no test", "not a single test image")],
)  # fmt: skip  # a line a case would hide the table
def test_a_folder_that_is_no_data_set_is_refused(tmp_path, how, message):
    _bad(_folder(tmp_path / "images"), how)
    with pytest.raises(DataError, match=message):
        gather(tmp_path / "images", How())


@pytest.mark.parametrize(
    ("words", "message"),
    [(["name=x"], "data needs from="), (["from=/nowhere", "name=x"], "no such folder"),
     (["from=/nowhere", "name=cifar10"], "one of the suite's own"), (["name=cifar100", "to=x"], "takes no to="),
     (["from=/x", "name=x", "seed=20%"], "seed=20%"), (["frm=/x"], "what is frm=/x"),
     (["from=/x", "name=x", "test_share=2"], "a share between 0 and 1"), (["from=/x", "name=x", "resize=maybe"], "maybe")],
)  # fmt: skip  # a line a case would hide the table
def test_words_that_make_no_data_set_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        gathering.data(words)


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path):
    _folder(tmp_path / "images")
    with pytest.raises(UserError, match="letters, digits"):
        gathering.data(
            [f"from={tmp_path / 'images'}", "name=../x", f"to={tmp_path}", f"paths.data={tmp_path / 'data'}"]
        )
    assert not (tmp_path / "data").exists()


def test_other_content_under_the_same_name_is_refused_and_the_same_changes_nothing(tmp_path):
    _folder(tmp_path / "images")
    _make(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "words").rglob("*.yaml")}
    _make(tmp_path)
    _picture(tmp_path / "images" / "train" / "rose" / "new.png", (9, 9, 9))
    kept = (tmp_path / "data" / "flowers.npz").read_bytes()
    with pytest.raises(UserError, match="names other content"):
        _make(tmp_path)
    with pytest.raises(UserError, match=r"flowers\.npz is there and holds something else"):
        gathering.data(
            [
                f"from={tmp_path / 'images'}",
                "name=flowers",
                f"to={tmp_path / 'other'}",
                f"paths.data={tmp_path / 'data'}",
            ]
        )
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "data" / "flowers.npz").read_bytes() == kept


def test_where_the_words_cannot_be_written_no_file_is_left(tmp_path):
    _folder(tmp_path / "images")
    (tmp_path / "words").write_text("a file")
    with pytest.raises(OSError, match="words"):
        _make(tmp_path)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["null", "True", "1e5", "nan", "con", "-x", "a.b", "a/b", "../x"])
def test_a_name_that_cannot_be_chosen_is_refused(name):
    with pytest.raises(ValidationError, match=r"letters, digits"):
        Data.model_validate({**OWN, "name": name, "search": name})


def test_a_class_with_a_hostile_name_stays_within_its_line(tmp_path):
    _folder(tmp_path / "images")
    for split in ("train", "test"):
        (tmp_path / "images" / split / "rose").rename(tmp_path / "images" / split / "rose\nsha256: x")
    assert _make(tmp_path).classes == 2


def test_a_folder_with_a_hostile_name_stays_within_its_line(tmp_path):
    source = tmp_path / "images\nsha256: x"
    _folder(source)
    words = [f"from={source}", "name=flowers", f"to={tmp_path / 'words'}", f"paths.data={tmp_path / 'data'}"]
    assert gathering.data(words) == 0
    first, second, *_ = (tmp_path / "words" / "data" / "flowers.yaml").read_text().splitlines()
    assert first.startswith("# Made ")
    assert second.startswith("# The classes")


# --- the file is data ---------------------------------------------------------------------------------------------


def _damage(path, how):
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    if how == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flipped":
        position = whole.index(bytes(arrays["train_images"][0][:4]))
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    elif how == "missing":
        path.unlink()
    elif how == "pickle":
        with zipfile.ZipFile(path, "w") as archive:
            for name in arrays:
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
                archive.writestr(f"{name}.npy", buffer.getvalue())
    elif how == "more":
        np.savez(path, **{**arrays, "train_images": np.concatenate([arrays["train_images"]] * 2)})
    elif how == "header":
        path.write_bytes(whole.replace(b"{'descr': '|u1'", b'{\'descr\': """1', 1))
    elif how == "compressed":
        np.savez_compressed(path, **arrays)
    elif how == "no array":
        np.savez(path, train_images=arrays["train_images"])
    elif how == "other":
        np.savez(path, **{**arrays, "test_labels": 1 - arrays["test_labels"]})
    elif how == "label":
        np.savez(path, **{**arrays, "test_labels": arrays["test_labels"] + 5})
    elif how == "negative":
        np.savez(path, **{**arrays, "test_labels": arrays["test_labels"] - 1})
    elif how == "fortran":
        np.savez(path, **{**arrays, "train_images": np.asfortranarray(arrays["train_images"])})


@pytest.mark.parametrize(
    ("how", "message"),
    [("short", "no whole .npz"), ("flipped", "(no whole .npz|has other content)"), ("missing", "No such file"),
     ("pickle", r"train_images is object"), ("header", "(train_images|no whole .npz|Invalid argument)"), ("compressed", "is compressed"), ("more", r"train_images is uint8 \[24, 32, 32, 3\], not uint8 \[12"),
     ("no array", "train_labels.npy"), ("other", "has other content .*sha256"), ("label", "from 5 to 6, and there are 2"),
     ("negative", "from -1 to 0, and there are 2"), ("fortran", "train_images is .*not in C order")],
)  # fmt: skip  # a line a case would hide the table
def test_a_file_that_is_not_what_the_yaml_says_is_refused_before_any_work(tmp_path, how, message):
    _folder(tmp_path / "images")
    made = _make(tmp_path)
    ensure(made, tmp_path / "data")
    _damage(tmp_path / "data" / "flowers.npz", how)
    with pytest.raises(DataError, match=f"{message}.*python -m benchmark data"):
        ensure(made, tmp_path / "data")
    with pytest.raises(DataError, match=message):
        sets.load(made, tmp_path / "data", Scale(name="t"))


# --- as any other data set ----------------------------------------------------------------------------------------

OWN = {"name": "flowers", "classes": 17, "train_images": 1020, "test_images": 340, "sha256": "ab" * 32,
       "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2], "search": "flowers"}  # fmt: skip  # one set


def _parsed(tmp_path, *words, **other):
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "flowers.yaml").write_text(yaml.safe_dump({**OWN, **other}))
    from benchmark.plan.folders import take_config_dirs

    try:
        take_config_dirs(["--config-dir", str(tmp_path)])
        return config.parse(config.compose(["data=flowers", *words]), GPU)[0]
    finally:
        take_config_dirs([])


def test_its_images_and_constants_reach_every_stage_and_its_content_the_keys(tmp_path):
    parsed = _parsed(tmp_path, "method=distillation/kd", "pair=vgg13__vgg8")
    assert (parsed.task.train_images, parsed.task.test_images) == (1020, 340)
    assert parsed.task.training().images == 240 * 1020
    for stage in (stage for _, stage in parsed.plan().steps):
        assert stage.params.task.recipe.mean == (0.4, 0.5, 0.6)
    other = _parsed(tmp_path, "method=distillation/kd", "pair=vgg13__vgg8", sha256="cd" * 32)
    assert {s.key(lambda _: "") for _, s in parsed.plan().steps}.isdisjoint(
        s.key(lambda _: "") for _, s in other.plan().steps
    )


def test_an_architecture_is_searched_on_it(tmp_path):
    parsed = _parsed(tmp_path, "method=nas/darts")
    (_, searched), (_, trained) = parsed.plan().steps
    assert searched.params.task.data.name == trained.params.task.data.name == "flowers"
    assert searched.params.task.recipe.mean == (0.4, 0.5, 0.6)
    elsewhere = _parsed(tmp_path, "method=nas/darts", "data.search=cifar10").plan().steps[0][1]
    assert elsewhere.params.task.data == Data(name="cifar10", classes=10)
    assert elsewhere.params.task.recipe.mean != (0.4, 0.5, 0.6)


def test_a_scale_is_a_limit_and_takes_all_there_are(tmp_path):
    parsed = _parsed(tmp_path, "scale=small")
    assert (parsed.task.train_images, parsed.task.test_images) == (1020, 340)
    assert _parsed(tmp_path, "scale=small", "scale.train_images=500").task.train_images == 500
    with pytest.raises(config.ConfigError, match=r"scale\.train_images=60000: cifar100 has 50000"):
        config.parse(config.compose(["scale=small", "scale.train_images=60000"]), GPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"sha256": ""}, "unknown data set 'flowers'"), ({"mean": None}, "mean and std go together"),
     ({"std": [0.1, 0.0, 0.1]}, "std is 0.0001 or more"), ({"mean": [5, 0.1, 0.1]}, "between 0 and 1"), ({"search": "roses"}, "can be searched on"), ({"name": "a/b"}, "letters"),
     ({"sha256": "xyz"}, "pattern"), ({"name": "cifar100", "classes": 100, "search": "cifar100"}, "cifar100 is what it is")],
)  # fmt: skip  # a line a case would hide the table
def test_values_that_describe_no_data_set_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Data.model_validate({**OWN, **values})


def test_two_contents_are_two_data_sets_in_tables_and_one_word_in_commands():
    from benchmark.report.command import _own_name

    one, other = (Data.model_validate({**OWN, "sha256": each * 32}) for each in ("ab", "cd"))
    assert one.shown != other.shown
    assert re.fullmatch(r"flowers@[0-9a-f]{12}", one.shown)
    assert _own_name(one.shown) == "flowers"
    assert Data(name="cifar100", classes=100).shown == "cifar100"


def test_a_cut_of_it_is_balanced(tmp_path):
    _folder(tmp_path / "images")
    train, test = sets.load(_make(tmp_path), tmp_path / "data", Scale(name="t", train_images=4, test_images=2))
    assert torch.bincount(train.labels).tolist() == [2, 2]
    assert torch.bincount(test.labels).tolist() == [1, 1]
