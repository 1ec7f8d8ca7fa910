"""Words from files choose no code: which builders run, and which do not."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from benchmark.errors import UserError
from benchmark.plan.stage import Network
from benchmark.plan.task import Model
from benchmark.vision import builders, network

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "model"
MODELS = [
    {name: value for name, value in yaml.safe_load(path.read_text()).items() if name != "recipe"}
    for path in sorted(CONFIGS.rglob("*.yaml"))
]


@pytest.fixture(autouse=True)
def _nothing_trusted(monkeypatch):
    monkeypatch.setattr(builders, "_trusted", set())


def _zoo_module(monkeypatch, source: str) -> str:
    """A module that lies in the zoo for the length of a test."""
    module = types.ModuleType(f"{builders.ZOO}.here")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def _stored(builder, **kwargs):
    return Network(builder, kwargs, {}, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("words", MODELS, ids=lambda words: words["name"])
def test_every_network_of_the_zoo_may_come_from_a_file(words):
    with torch.device("meta"):
        assert isinstance(builders.build(words["builder"], {**words.get("kwargs", {}), "classes": 10}), nn.Module)


REFUSED = (
    "os:system",
    "subprocess:run",
    "builtins:exec",
    "tests.tiny:tiny",
    "benchmark.vision.network:load",
    "benchmark.vision.modelsx:f",
    "benchmark.vision.models/../network:load",
    "benchmark.vision.models.nni.vgg",
    "benchmark.vision.models.nni.vgg:",
    "benchmark.vision.models.nni.vgg:vgg16.__globals__",
    "benchmark.vision.models.nni.vgg:vgg16:vgg13",
    "benchmark.vision.models.nni.vgg:torch",
    "benchmark.vision.models.nni.vgg:nn",
    "benchmark.vision.models.nni.vgg:VGG",
    "benchmark.vision.models.nni.vgg:__build_class__",
    "benchmark.vision.models.nni.vgg:nowhere",
    "benchmark.vision.models.nowhere:f",
    " benchmark.vision.models.nni.vgg:vgg16",
    "benchmark.vision.models.nni.vgg:vgg16\n",
    "",
)


@pytest.mark.parametrize("builder", REFUSED)
def test_other_code_does_not_run_and_the_error_is_one_line_for_the_user(builder):
    with pytest.raises(UserError, match=r"may not run|does not exist") as error:
        network.load(_stored(builder, classes=10))
    assert repr(builder) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_imported_before_the_name_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "strange_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(classes): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(builders.BuilderError):
        network.load(_stored("strange_module:f", classes=10))
    assert not (tmp_path / "ran").exists()
    assert "strange_module" not in sys.modules


def test_what_a_module_of_the_zoo_has_only_imported_is_not_its_own(monkeypatch):
    name = _zoo_module(monkeypatch, "from os import system, path\nfrom os.path import join\nimport os\nalso = system")
    for attribute in ("system", "join", "also", "os"):
        with pytest.raises(builders.BuilderError, match="may not run"):
            builders.build(f"{name}:{attribute}", {"command": "false"})


TRAMPOLINE = """
from benchmark.vision.builders import build
from torch import nn

def doubled(inner, kwargs):
    return nn.Sequential(build(inner, kwargs), nn.Identity())
"""


def test_a_builder_that_builds_others_is_no_way_around(monkeypatch, tmp_path):
    name = _zoo_module(monkeypatch, TRAMPOLINE)
    for inner in ("os:system", "tests.tiny:tiny"):
        with pytest.raises(builders.BuilderError, match=f"'{inner}' may not run"):
            network.load(_stored(f"{name}:doubled", inner=inner, kwargs={"command": f"touch {tmp_path / 'ran'}"}))
    deeper = {"inner": f"{name}:doubled", "kwargs": {"inner": "os:system", "kwargs": {"command": "false"}}}
    with pytest.raises(builders.BuilderError, match="'os:system' may not run"):
        builders.build(f"{name}:doubled", deeper)
    assert not (tmp_path / "ran").exists()
    inner = {"inner": "benchmark.vision.models.repdistiller.resnet:resnet8", "kwargs": {"classes": 10}}
    assert len(builders.build(f"{name}:doubled", inner)) == 2
    builders.trust("tests.tiny:tiny")
    assert len(builders.build(f"{name}:doubled", {"inner": "tests.tiny:tiny", "kwargs": {"classes": 3}})) == 2


def test_what_the_command_names_is_trusted_exactly_and_again():
    with pytest.raises(builders.BuilderError):
        builders.build("tests.tiny:tiny", {})
    builders.trust("tests.tiny:tiny", "tests.vision.awkward_nets:base")
    builders.trust("tests.tiny:tiny")
    assert isinstance(builders.build("tests.tiny:tiny", {}), nn.Module)
    for other in ("tests.tiny:Scaled", "tests.tiny:torch", "os:system"):
        with pytest.raises(builders.BuilderError):
            builders.build(other, {})


def test_building_the_commands_model_trusts_it_and_an_artifact_of_it_loads(recipe):
    model = Model(name="tiny", builder="tests.tiny:tiny")
    frozen = network.freeze(builders.build_model(model, 10), model, 10, recipe)
    assert isinstance(network.load(frozen), nn.Module)


@pytest.mark.parametrize("value", [os.system, object(), {1: 2}, {"a": [{"b": print}]}, b"x", {3}, torch.zeros(1)])
def test_arguments_are_data(value):
    builder = "benchmark.vision.models.repdistiller.resnet:resnet8"
    with pytest.raises(builders.BuilderError, match="must be plain data"):
        builders.build(builder, {"classes": value})


def test_arguments_that_a_builder_does_not_take_are_named():
    with pytest.raises(builders.BuilderError, match=r"does not take these arguments: .*'depth'"):
        builders.build("benchmark.vision.models.repdistiller.resnet:resnet8", {"depth": 3})


def test_what_is_no_network_is_said(monkeypatch):
    name = _zoo_module(monkeypatch, "def words(classes): return 'a network'")
    with pytest.raises(builders.BuilderError, match=r"must return an nn\.Module, not a str"):
        builders.build(f"{name}:words", {"classes": 10})


def test_saying_what_is_trusted_costs_no_torch():
    code = "import sys; from benchmark.vision.builders import trust; trust('a:b'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("words", MODELS, ids=lambda words: words["name"])
def test_every_network_of_the_zoo_can_be_stored(words, recipe):
    model = Model(**words)
    module = builders.build_model(model, 10)
    loaded = network.load(network.freeze(module.to(memory_format=torch.channels_last), model, 10, recipe))
    assert list(loaded.state_dict()) == list(module.state_dict())
