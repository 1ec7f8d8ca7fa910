"""A network of one's own: when its code changes it is another network, and never the one that was recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark.__main__ import main
from benchmark.deploy.signature import signature
from benchmark.plan import own_code
from benchmark.plan.config import ConfigError, compose, parse
from benchmark.plan.stage import Network, Stage
from benchmark.records.store import Store
from benchmark.report.command import command_of
from benchmark.report.page.content import _needs
from benchmark.report.rows import tell_apart
from benchmark.run.state import CODE_CHANGED, edited
from tests.harness.helpers import CPU, lives_of
from tests.harness.test_runner import Lab

NET = """
from torch import nn
from own_parts import blocks


def build(classes, width=8):
    body = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), blocks.ACTIVATION(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(width, classes))
"""
BLOCKS = "from torch import nn\n\nACTIVATION = nn.ReLU\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of one's own on the path: a network, and a part that it imports."""
    root = tmp_path / "own"
    (root / "own_parts").mkdir(parents=True)
    (root / "own_net.py").write_text(NET)
    (root / "own_parts" / "__init__.py").write_text("")
    (root / "own_parts" / "blocks.py").write_text(BLOCKS)
    (root / "own_parts" / "unused.py").write_text("")
    monkeypatch.syspath_prepend(str(root))
    yield root
    own_code.digest.cache_clear()
    for name in ("own_net", "own_parts", "own_parts.blocks"):
        sys.modules.pop(name, None)


def words(tmp_path: Path, *more: str) -> list[str]:
    folders = [f"paths.{name}={tmp_path / name}" for name in ("data", "artifacts", "results")]
    model = ["model.name=own_net", "model.builder=own_net:build"]
    return [*model, "data=synthetic", "scale=smoke", "hardware=cpu", *folders, *more]


def digest(builder: str) -> str:
    """As a process finds it that begins now."""
    own_code.digest.cache_clear()
    return own_code.digest(builder)


def planned(tmp_path: Path, *more: str):
    own_code.digest.cache_clear()
    return parse(compose(words(tmp_path, *more)), CPU)[0]


def key(tmp_path: Path) -> str:
    stage: Stage = planned(tmp_path).plan().network
    return stage.key(lambda _: "")


def test_every_file_that_a_network_is_made_of_is_in_its_key(own, tmp_path):
    before = key(tmp_path)
    (own / "own_parts" / "unused.py").write_text("a = 1")
    (own / "notes.txt").write_text("text")
    assert key(tmp_path) == before
    (own / "own_parts" / "blocks.py").write_text(BLOCKS.replace("ReLU", "GELU"))
    other = key(tmp_path)
    (own / "own_parts" / "blocks.py").write_text(BLOCKS)
    assert key(tmp_path) == before != other
    (own / "own_net.py").write_text(NET.replace("padding=1", "padding=0"))
    assert key(tmp_path) not in (before, other)
    (own / "own_net.py").write_bytes(NET.replace("\n", "\r\n").encode())
    assert key(tmp_path) == before, "how lines end is the editor's"


@pytest.mark.parametrize(
    "line", ["import own_parts.blocks", "from own_parts.blocks import ACTIVATION", "from own_parts import blocks",
             "import own_parts.blocks as b", "if True:\n    from own_parts import blocks"],
)  # fmt: skip  # a list of lines
def test_every_way_to_import_is_followed(own, line):
    (own / "own_net.py").write_text(line)
    before = digest("own_net:build")
    (own / "own_parts" / "blocks.py").write_text("ACTIVATION = 1")
    assert digest("own_net:build") != before


def test_relative_imports_and_circles_are_followed(own):
    (own / "own_parts" / "blocks.py").write_text("from . import unused\nfrom .more import deep\nimport own_net")
    (own / "own_parts" / "more").mkdir()
    (own / "own_parts" / "more" / "__init__.py").write_text("from ..unused import a")
    (own / "own_parts" / "more" / "deep.py").write_text("")
    (own / "own_net.py").write_text("from own_parts import blocks")
    seen = {digest("own_net:build")}
    for name in ("unused.py", "more/__init__.py", "more/deep.py", "__init__.py"):
        (own / "own_parts" / name).write_text("a = 1")
        seen.add(digest("own_net:build"))
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("net", "deep", "changed"),
    [
        ("import own_parts.more.deep", "", "__init__.py"),  # Python runs every package on the way
        ("import own_parts.more.deep", "", "more/__init__.py"),
        ("import own_parts.more.deep", "from ..unused import a", "unused.py"),
        ("import own_parts.more.deep", "from . import beside", "more/beside.py"),
        ("import own_parts.more", "", "more/beside.py"),  # which its package imports
    ],
)
def test_each_file_is_reached_by_one_way_alone(own, net, deep, changed):
    (own / "own_parts" / "more").mkdir()
    for name, text in (("__init__", "" if deep else "from .beside import a"), ("deep", deep), ("beside", "")):
        (own / "own_parts" / "more" / f"{name}.py").write_text(text)
    (own / "own_net.py").write_text(net)
    before = digest("own_net:build")
    path = own / "own_parts" / changed
    path.write_text(path.read_text() + "\nb = 1")
    assert digest("own_net:build") != before


def test_where_it_lies_does_not_count(own, tmp_path, monkeypatch):
    here = digest("own_net:build")
    moved = own.rename(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(moved))
    assert digest("own_net:build") == here != ""


def test_the_suites_own_networks_are_known_by_their_commit():
    assert digest("benchmark.vision.models.repdistiller.vgg:vgg8") == ""
    assert digest("no_such_module_anywhere:build") == ""
    shipped = parse(compose(["model=nni/vgg16", "hardware=cpu"]), CPU)[0]
    assert shipped.task.model.code == ""


def test_an_installed_package_is_followed_no_further(own, tmp_path, monkeypatch):
    """Else one network of torchvision's would be all of torch."""
    site = tmp_path / "site-packages"
    (site / "zoo").mkdir(parents=True)
    (site / "zoo" / "__init__.py").write_text("import other\nfrom zoo import inner")
    (site / "zoo" / "inner.py").write_text("")
    (site / "other.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    before = digest("zoo:build")
    (site / "other.py").write_text("a = 1")
    assert digest("zoo:build") == before
    (site / "zoo" / "inner.py").write_text("a = 1")
    assert digest("zoo:build") != before


def test_a_file_that_is_no_python_is_left_to_its_import(own):
    (own / "own_net.py").write_text("def build(:")
    assert digest("own_net:build")


def test_the_digest_is_no_setting_to_choose(own, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.code is no setting"):
        planned(tmp_path, "+model.code=abc")


def test_rows_of_both_networks_say_which_they_are_and_their_commands_do_not(own, tmp_path):
    lab = Lab(tmp_path)
    old = lives_of(planned(tmp_path), lab.device, lab.store)[0].run_file("2026-01-01")
    (own / "own_parts" / "blocks.py").write_text(BLOCKS.replace("ReLU", "GELU"))
    new = lives_of(planned(tmp_path), lab.device, lab.store)[0].run_file("2026-01-02")
    told = tell_apart([old, new])
    assert told[0] != told[1]
    assert all(text.startswith("model.code=") for text in told)
    assert "model.code" not in command_of(new)
    assert "model.builder=own_net:build" in command_of(new)
    assert "needs the --config-dir and the PYTHONPATH" in _needs([new])
    assert _needs([new.model_copy(update={"settings": {}})]) == ""


def test_two_widths_of_one_network_are_told_apart_in_every_row(own, tmp_path):
    """The pruned row of width 4 looked as if it belonged to the baseline of width 8."""
    lab = Lab(tmp_path)
    asked = [
        ["method=baseline"],
        ["method=baseline", "+model.kwargs.width=4"],
        ["method=pruning/l1", "+model.kwargs.width=4"],
    ]
    runs = [lives_of(planned(tmp_path, *own), lab.device, lab.store)[0].run_file("") for own in asked]
    assert tell_apart(runs) == ["", "model.kwargs.width=4", "model.kwargs.width=4"]
    assert "model.kwargs.width=4" in command_of(runs[2])


@pytest.mark.slow
def test_an_edited_network_is_trained_anew_and_the_plan_says_why(own, tmp_path, capfd):
    own_code.digest.cache_clear()
    assert main(["run", *words(tmp_path)]) == 0
    (own / "own_parts" / "blocks.py").write_text(BLOCKS.replace("ReLU", "GELU"))
    own_code.digest.cache_clear()
    assert main(["plan", *words(tmp_path)]) == 0
    assert "is recorded, but runs again as" in (said := capfd.readouterr().out)
    assert CODE_CHANGED in said
    for name in ("own_net", "own_parts", "own_parts.blocks"):
        sys.modules.pop(name, None)
    assert main(["run", *words(tmp_path)]) == 0
    said = capfd.readouterr()
    assert "train" in said.err
    assert said.out.count("model.code=") == 2
    measured = [record for record in Store(tmp_path / "results", tmp_path / "artifacts").records() if record.group]
    assert len(measured) == 2, "GELU and ReLU have the same tensors, and not the same energy"


def test_a_stage_of_ones_own_that_was_edited_since_its_record_is_told(own):
    """Its version says when its results are others; a record that was made by other code must not pass unseen."""
    stage = SimpleNamespace(fn="own_net:build")
    made = SimpleNamespace(provenance={"outside": {"own_net": own_code.file_digest("own_net")}})
    assert edited(stage, made) == ""
    (own / "own_net.py").write_text(NET + "# a line more")
    assert "own_net was edited since" in edited(stage, made)
    assert edited(stage, SimpleNamespace(provenance={})) == ""
    assert edited(SimpleNamespace(fn="gone:build"), SimpleNamespace(provenance={"outside": {"gone": "ab"}})) == ""


def test_the_same_tensors_are_another_inference_where_the_code_is_another(own):
    network = Network("own_net:build", {"classes": 2}, {"a": torch.zeros(2)}, (0.5,) * 3, (0.25,) * 3)
    own_code.digest.cache_clear()
    before = signature(network, "torch", "fp32", "")
    (own / "own_parts" / "blocks.py").write_text(BLOCKS.replace("ReLU", "GELU"))
    own_code.digest.cache_clear()
    assert signature(network, "torch", "fp32", "") != before
