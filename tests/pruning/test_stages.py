"""The stage functions by themselves: what is on the meter, on which device and in which precision they work."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmark.plan.stage import Output
from benchmark.plan.task import Model
from benchmark.records.artifacts import Artifacts
from benchmark.vision import training
from benchmark.vision.data import loaders, mix
from benchmark.vision.network import build_model, freeze
from methods import stages as shared
from methods.pruning import stages
from methods.pruning.params import ExtraTraining, Masking, Shrinking
from methods.way import FineTuning
from tests.bench import MeteredBench, PlainBench
from tests.pruning import presets


@pytest.fixture
def mini(task):
    return task.model_copy(update={"model": Model(name="mini", builder="tests.pruning.nets:mini")})


@pytest.fixture
def given(mini):
    torch.manual_seed(5)
    network = freeze(build_model(mini.model, 10), mini.model, 10, mini.recipe)
    return Output(network=network, values={"acc_pct": 10.0})


def _choice(criterion="apoz", **changed):
    return presets.choice(criterion, **changed)


def _life(bench, task, given):
    """All four stages, one after the other."""

    def work(stage, params, *inputs):
        bench.state = None  # the checkpoint of the stage before
        return stage(bench, params, *inputs)

    masked = work(stages.mask, Masking(task=task, choice=_choice()), given)
    extra = work(stages.extra_epochs, ExtraTraining(task=task, masked=False), masked, given)
    tuned = work(stages.finetune, FineTuning(task=task), extra)
    return masked, extra, tuned, work(stages.shrink, Shrinking(task=task), tuned)


def test_evaluation_and_reading_are_off_the_meter_and_the_rest_is_on_it(mini, given, monkeypatch):
    bench, seen = MeteredBench(), []

    def watch(module, name, on_the_meter):
        plain = getattr(module, name)

        def watched(*words, **more):
            seen.append(name)
            assert bench.running == on_the_meter, name
            return plain(*words, **more)

        monkeypatch.setattr(module, name, watched)

    for module in (stages, training):
        watch(module, "accuracy", on_the_meter=False)
    for name in ("freeze_like", "count", "loaders"):
        watch(shared, name, on_the_meter=False)
    watch(stages, "find", on_the_meter=False)
    watch(stages, "score", on_the_meter=True)
    watch(stages, "fit", on_the_meter=True)
    watch(stages.removal, "shrink", on_the_meter=True)
    _life(bench, mini, given)
    assert {name: seen.count(name) for name in set(seen)} == {
        "accuracy": 3 + 2 * mini.recipe.epochs, "loaders": 4, "find": 1, "score": 1, "fit": 2, "shrink": 1, "freeze_like": 4, "count": 4,
    }  # fmt: skip  # a line reads best


def test_later_stages_draw_on(mini, given, monkeypatch):
    seen = []
    for name in ("loaders", "seed_everything"):
        plain = getattr(shared, name)
        monkeypatch.setattr(shared, name, lambda *words, n=name, p=plain: seen.append((n, words[-1])) or p(*words))
    stages.mask(PlainBench(), Masking(task=mini, choice=_choice(), first_epoch=7), given)
    stages.extra_epochs(PlainBench(), ExtraTraining(task=mini, masked=True, first_epoch=8), given)
    stages.finetune(PlainBench(), FineTuning(task=mini, first_epoch=9), given)
    assert seen == [(name, first) for first in (7, 8, 9) for name in ("seed_everything", "loaders")]


def test_the_batches_looked_at_are_the_first_of_the_next_epoch(mini, given, monkeypatch):
    plain, found = stages.score, []

    def watched(subject, scoring):
        found.extend(index for *_, index in subject.batches)
        return plain(subject, scoring)

    monkeypatch.setattr(stages, "score", watched)
    stages.mask(PlainBench(), Masking(task=mini, choice=_choice(), first_epoch=7), given)
    expected = next(iter(loaders(mini, None, "cpu").train.epoch(7)))[2]
    assert torch.equal(found[0], expected)


def test_the_generator_of_the_network_is_not_the_loaders():
    shared.seed_everything(0, 160)
    own = torch.randperm(1000)
    assert not torch.equal(own, torch.randperm(1000, generator=torch.Generator().manual_seed(mix(0, 160))))


PREPARES = """
import sys
from methods.nni_bridge import pruning
from methods.pruning.criteria.subject import Subject
from tests.pruning import golden, presets

def known():
    return {name for name in sys.modules if name.startswith("nni")}

net, choice = golden.net("residual"), presets.choice("l1", backend="nni")
pruning.prepare()
before = known()
pruning.speed_up(net, pruning.masks(Subject(net, ["block1.conv1"], [], golden.RECIPE), choice))
print(len(before), len(known() - before))
"""


@pytest.mark.slow
def test_preparing_imports_all_of_nni_that_is_used():
    pytest.importorskip("nni")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PREPARES], capture_output=True, text=True, check=True)
    before, later = map(int, done.stdout.split())
    assert before > 50
    assert later <= 5, "a few small ones that NNI imports on the way"


def test_the_import_of_nni_is_off_the_meter(mini, given, monkeypatch):
    bridge = pytest.importorskip("methods.nni_bridge.pruning")
    pytest.importorskip("nni")
    bench, prepared = MeteredBench(), []
    plain = bridge.prepare
    monkeypatch.setattr(bridge, "prepare", lambda: prepared.append(bench.running) or plain())
    masked = stages.mask(bench, Masking(task=mini, choice=_choice(backend="nni")), given)
    stages.shrink(bench, Shrinking(task=mini, backend="nni"), masked)
    assert prepared == [False, False]


def test_steps_are_looked_at_on_the_device_wherever_the_profile_keeps_its_images(mini):
    published = mini.model_copy(update={"profile": "published"})
    batches = loaders(published, None, "meta")
    assert next(iter(batches.train.epoch(0)))[0].device.type == "cpu", "in host memory, for the workers"
    (found,) = stages._first(batches, 1, "meta")
    assert [tensor.device.type for tensor in found] == ["meta"] * 3


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_scores_do_not_depend_on_the_precision_of_what_ran_before(mini, given, precision, monkeypatch):
    switches = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    plain, found = stages.score, []

    def watched(*words):
        found.append([getattr(*switch) for switch in switches])
        return plain(*words)

    monkeypatch.setattr(stages, "score", watched)
    task = mini.model_copy(update={"train_precision": precision})
    before = [getattr(*switch) for switch in switches]
    try:
        for left in (False, True):
            for owner, name in switches:
                setattr(owner, name, left)
            stages.mask(PlainBench(), Masking(task=task, choice=_choice()), given)
    finally:
        for (owner, name), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
    assert found == [[precision == "tf32"] * 2] * 2


LOADS = """
import sys
for name in ("methods", "nni", "torchvision"):
    sys.modules[name] = None  # an import of it fails
from pathlib import Path
import torch
from benchmark.records.artifacts import Artifacts
from benchmark.vision.network import load, trust
trust({builder!r})  # as the command that names it does
network = load(Artifacts(Path({artifacts!r})).load("pruned", [{sha!r}])[0].network)
torch.save(network(torch.ones(1, 3, 32, 32)), {logits!r})
"""


@pytest.mark.slow
def test_a_pruned_artifact_loads_without_methods_and_nni(mini, given, tmp_path):
    *_, shrunk = _life(PlainBench(), mini, given)
    assert (
        shrunk.network.tensors["conv1.weight"].shape[0] < 8
        or shrunk.network.tensors["block1.conv1.weight"].shape[0] < 8
    )
    artifacts, logits = tmp_path / "artifacts", tmp_path / "logits.pt"
    artifacts.mkdir()
    sha = Artifacts(artifacts).save("pruned", shrunk).sha256
    builder = shrunk.network.builder
    script = LOADS.format(artifacts=str(artifacts), logits=str(logits), sha=sha, builder=builder)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = shared.load(shrunk.network)(torch.ones(1, 3, 32, 32))
    assert torch.allclose(torch.load(logits), expected, atol=1e-6)
