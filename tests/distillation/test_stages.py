"""The stage functions by themselves: resumed, off the meter, drawn on; what they begin with and what they hand on."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from benchmark.plan.stage import Network, Output
from benchmark.plan.task import Config
from benchmark.vision import training
from benchmark.vision.network import build_model, load
from methods import training as plain_training
from methods.distillation import stages
from methods.distillation.teacher import Renormalised, teacher_of
from methods.distillation.term import Term, View
from tests.bench import MeteredBench, PlainBench
from tests.distillation.methods import mostly_slow
from tests.distillation.small import learning, method, words

FEW = {"kind": "methods.distillation.crd:CRD", "settings": {"negatives": 8}}


@pytest.fixture
def pair(task):
    """Two epochs of 20 images in batches of 8, the last of 4."""
    recipe = task.recipe.model_copy(update={"batch_size": 8, "lr": 1e-3})
    scale = task.scale.model_copy(update={"train_images": 20, "test_images": 10})
    return learning(task.model_copy(update={"recipe": recipe, "scale": scale}))


@pytest.fixture
def taught(pair):
    """A teacher as its stage hands it on, untrained."""
    torch.manual_seed(5)
    network = stages.freeze(build_model(pair.teacher, 10), pair.teacher, 10, pair.teacher_recipe)
    return Output(network=network, values={"acc_pct": 12.5})


def _method(name: str, **changed):
    few = {"term": FEW} if name.startswith("crd") else {}
    return method(name, **{**few, **changed})


def _steps(name: str, task, **changed):
    """The stages of a method behind its teacher, as calls of a bench."""
    found = {}
    for _, stage in _method(name, **changed).plan(task).steps[1:]:
        found[stage.name] = partial(_call, getattr(stages, stage.name), stage.params)
    return found


def _call(function, params, bench, *inputs):
    return function(bench, params, *inputs)


def _life(name: str, task, teacher, bench=None, **changed) -> list[Output]:
    """What every stage behind the teacher hands on."""
    outputs: list[Output] = []
    for step in _steps(name, task, **changed).values():
        outputs.append(step(bench or PlainBench(), teacher, *outputs))
        if bench is not None:
            bench.state = None  # the checkpoint of the stage before
    return outputs


def _same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _tensors(output: Output):
    return {**output.network.tensors, **{f"array.{name}": array for name, array in (output.arrays or {}).items()}}


# --- resumed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stage", "profile"),
    [
        ("ft", "initial", "fast"),
        ("crd", "distil", "fast"),
        pytest.param("ft", "initial", "published", marks=pytest.mark.slow),
        pytest.param("crd", "distil", "published", marks=pytest.mark.slow),
        pytest.param("ab", "initial", "fast", marks=pytest.mark.slow),
        pytest.param("fsp", "initial", "fast", marks=pytest.mark.slow),
        *(
            pytest.param(name, "distil", "fast", marks=pytest.mark.slow)
            for name in ("kd", "cc", "vid", "ft", "dkd", "reviewkd")
        ),
    ],
)
def test_a_stage_broken_off_within_its_second_epoch_ends_byte_equal(name, stage, profile, pair, taught):
    task = pair.model_copy(update={"profile": profile})
    steps = _steps(name, task, initial_epochs=1)
    before = [steps["initial"](PlainBench(), taught)] if stage == "distil" and "initial" in steps else []
    whole = steps[stage](PlainBench(), taught, *before)
    broken = PlainBench(stop_at=1.5)
    with pytest.raises(KeyboardInterrupt):
        steps[stage](broken, taught, *before)
    assert broken.state is not None
    resumed = steps[stage](PlainBench(broken.state), taught, *before)
    assert _same(_tensors(resumed), _tensors(whole))
    assert resumed.values == whole.values
    assert len((whole.details.get("history") or whole.details)["loss"]) == 2


# --- on and off the meter --------------------------------------------------------------------------------------------


def test_reading_proving_counting_and_testing_are_off_the_meter_and_training_is_on_it(pair, taught, monkeypatch):
    bench, seen = MeteredBench(), []

    def watch(module, name, on_the_meter):
        plain = getattr(module, name)

        def watched(*given, **more):
            seen.append(name)
            assert bench.running == on_the_meter, name
            return plain(*given, **more)

        monkeypatch.setattr(module, name, watched)

    for name in ("loaders", "prove", "freeze", "count"):
        watch(stages, name, on_the_meter=False)
    watch(training, "accuracy", on_the_meter=False)
    for name in ("build_term", "teacher_of", "fit"):
        watch(stages, name, on_the_meter=True)
    _life("ft", pair, taught, bench)
    assert {name: seen.count(name) for name in dict.fromkeys(seen)} == {
        "teacher_of": 2, "prove": 2, "loaders": 2, "build_term": 2, "fit": 2, "accuracy": 1 + 2, "freeze": 2, "count": 1,
    }  # fmt: skip  # a line reads best


# --- what a stage begins with ----------------------------------------------------------------------------------------


def _begun(name, task, teacher, monkeypatch, **changed):
    """What `fit` is given: the student's tensors, the loss, the loaders and the task of every stage."""
    begun, plain = [], stages.fit

    def watched(bench, model, batches, loss, task):
        begun.append(({n: t.clone() for n, t in model.state_dict().items()}, loss, batches, task))
        return plain(bench, model, batches, loss, task)

    monkeypatch.setattr(stages, "fit", watched)
    return begun, _life(name, task, teacher, **changed)


def test_a_student_begins_where_its_baseline_begins_and_sees_the_same_images(pair, taught, monkeypatch):
    begun, _ = _begun("kd", pair, taught, monkeypatch)
    monkeypatch.setattr(plain_training, "fit", lambda *given: begun.append(given[1:4]) or training.fit(*given))
    base = method("kd").plan(pair).steps[0][1]
    params = base.params.model_copy(update={"task": begun[0][3]})
    plain_training.train(PlainBench(), params)
    (student, _, batches, _), (baseline, other, _) = begun
    torch.manual_seed(pair.seed)
    assert _same(student, build_model(pair.model, 10).state_dict())
    assert student.keys() == baseline.state_dict().keys()
    assert torch.equal(batches.train.choices(0), other.train.choices(0))


@pytest.mark.parametrize("name", mostly_slow(["ab", "ft", "fsp"], ("ab",)))
def test_the_main_stage_goes_on_where_the_initial_one_ended(name, pair, taught, monkeypatch):
    begun, (first, _) = _begun(name, pair, taught, monkeypatch)
    (fresh, _, early, _), (student, objective, late, _) = begun
    assert _same(student, first.network.tensors)
    moved = not _same(fresh, first.network.tensors)
    assert moved == (name != "ft"), "the paraphraser's stage leaves the student alone"
    assert torch.equal(late.train.choices(0), early.train.choices(1)), "images are drawn on"
    if name == "ft":
        trained = {n.removeprefix("encoder."): t for n, t in first.arrays.items() if n.startswith("encoder.")}
        assert _same(objective.term.encoder.state_dict(), trained)
    else:
        assert first.arrays is None
    head = [n for n in fresh if n.startswith(("classifier", "fc", "linear"))]
    assert head
    assert all(torch.equal(fresh[n], first.network.tensors[n]) for n in head), "the classifier waits"


@pytest.mark.parametrize(
    ("profile", "original"), [("fast", False), pytest.param("published", True, marks=pytest.mark.slow)]
)
def test_the_profile_says_whose_work_is_done(profile, original, pair, taught, monkeypatch):
    begun, _ = _begun("nst", pair.model_copy(update={"profile": profile}), taught, monkeypatch)
    objective = begun[0][1]
    assert objective.term.broadcast == original
    norms = [m for m in objective.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert bool(norms) == original, "the original folds no batch norms"


@pytest.mark.slow
def test_without_waste_the_same_student_comes_out(pair, taught, monkeypatch):
    found = {}
    for variant in ("as_shipped", "no_waste"):
        begun, outputs = _begun("ft", pair, taught, monkeypatch, variant=variant)
        found[variant] = _tensors(outputs[-1])
        assert [loss.asks_student for _, loss, _, _ in begun] == [variant == "as_shipped", True]
    assert _same(found["as_shipped"], found["no_waste"])


# --- the teacher -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", mostly_slow(["kd", "ft", "ab", "crd", "reviewkd", "vid"], ("ft",)))
@pytest.mark.parametrize("profile", ["fast", pytest.param("published", marks=pytest.mark.slow)])
def test_nothing_of_the_teacher_changes_through_whole_stages(name, profile, pair, taught, monkeypatch):
    seen, plain = [], stages.teacher_of

    def watched(network, task):
        module, asked = plain(network, task)
        seen.append((asked, {n: t.clone() for n, t in asked.named_buffers()}))
        return module, asked

    monkeypatch.setattr(stages, "teacher_of", watched)
    before = {n: t.clone() for n, t in taught.network.tensors.items()}
    *_, last = _life(name, pair.model_copy(update={"profile": profile}), taught)
    assert _same(before, taught.network.tensors)
    assert len(seen) == (2 if name in ("ft", "ab") else 1)
    for asked, kept in seen:
        assert kept
        assert _same(kept, dict(asked.named_buffers()))
        assert not list(asked.parameters())
        assert asked.state_dict() == {}, "it lands in no checkpoint"
        assert not any(part.training for part in asked.modules())
    assert last.values["teacher_acc_pct"] == 12.5


def test_a_teacher_sees_images_as_its_own_recipe_normalises_them(pair, taught):
    mean, std = (0.2, 0.4, 0.6), (0.3, 0.2, 0.1)
    other = Network(taught.network.builder, taught.network.kwargs, taught.network.tensors, mean, std)
    pixels = torch.rand(3, 3, 32, 32)
    given = (pixels - 0.5) / 0.25
    wanted = load(other)((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    _, asked = teacher_of(other, pair)
    assert torch.allclose(asked.logits(given), wanted, rtol=1e-4, atol=1e-4)
    maps, logits = asked.features(given)
    assert torch.allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    assert len(maps) == 5
    assert not torch.allclose(teacher_of(taught.network, pair)[1].logits(given), wanted, rtol=1e-2, atol=1e-2)
    assert not isinstance(teacher_of(taught.network, pair)[1], Renormalised)


# --- a loss of one's own ---------------------------------------------------------------------------------------------


class Mine(Term):
    """A loss outside the tree: logits are to be as large as the teacher's."""

    class Settings(Config):
        power: float = 2

    student_view = teacher_view = View.LOGITS

    def __init__(self, scene, settings) -> None:
        super().__init__()
        self.power = settings.power

    def forward(self, student, teacher, batch):
        return (student.logits.norm() - teacher.logits.norm()).abs().pow(self.power)


def test_a_term_may_lie_anywhere(pair, taught):
    mine = {"kind": f"{__name__}:Mine", "settings": {"power": 1}}
    distilled = _method("kd", term=mine, weights={"ce": 1, "term": 0.1})
    distilled.check(pair)
    (output,) = _life("kd", pair, taught, term=mine, weights={"ce": 1, "term": 0.1})
    assert output.values["loss"] > 0
    with pytest.raises(ValueError, match="power: Input should be a valid number"):
        _method("kd", term={**mine, "settings": {"power": "much"}}).check(pair)


# --- what a stage hands on -------------------------------------------------------------------------------------------


def test_what_is_recorded(pair, taught):
    first, last = _life("ft", pair, taught)
    assert first.values.keys() == {"loss_first_epoch", "loss", "epochs", "trained_params"}
    assert (first.values["epochs"], last.values["epochs"]) == (1, 2)
    encoder, decoder = (
        9 * (64 * 64 + 64 * 32 + 32 * 32) + 64 + 32 + 32,
        9 * (32 * 32 + 32 * 64 + 64 * 64) + 32 + 64 + 64,
    )
    assert first.values["trained_params"] == encoder + decoder
    curve = last.details["history"]["loss"]
    assert (last.values["loss_first_epoch"], last.values["loss"]) == (curve[0], curve[-1])
    student = sum(p.numel() for p in build_model(pair.model, 10).parameters())
    assert last.values["params"] == student < last.values["trained_params"]
    assert last.details["execution"]["profile"] == first.details["execution"]["profile"] == "fast"
    assert (tuple(last.network.mean), last.arrays) == (pair.recipe.mean, None)


def test_a_loss_that_runs_away_is_named(pair, taught):
    recipe = pair.recipe.model_copy(update={"lr": 1e6})
    with pytest.raises(training.TrainingError, match=r"^initial stage: the training loss became .* method.initial_lr"):
        _life("ft", pair.model_copy(update={"recipe": recipe}), taught, initial_lr={"resnet*": 1e9})
    assert words("ft")["initial_lr"] == {"resnet*": 0.01, "wrn_*": 0.01}
