"""A loss that owns modules: what is trained, in which mode, where it lies, and what is told to it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.vision import training, training_step
from benchmark.vision.data import loaders
from benchmark.vision.modes import evaluating, train_what_is_trained
from benchmark.vision.teacher import Teacher
from tests.bench import PlainBench
from tests.tiny import tiny


def _settled_teacher() -> nn.Module:
    """A frozen network with batch norm and dropout, its statistics unlike its first ones."""
    torch.manual_seed(3)
    network = tiny(10).requires_grad_(False)
    network[1].running_mean.uniform_(-1, 1)
    network[1].running_var.uniform_(0.5, 2)
    return network


class Mimic(nn.Module):
    """Cross-entropy and the distance between two embeddings: of the student's logits, and of a held teacher's."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.embed = nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.drop = nn.Dropout(0.5)
        self.modes: set[tuple[bool, ...]] = set()

    def forward(self, model, images, labels, index):
        self.modes.add((self.training, self.teacher.training, self.embed[1].training, self.drop.training))
        logits = model(images)
        apart = (self.embed(logits) - self.drop(self.embed[0](self.teacher(images).detach()))).square().mean()
        return functional.cross_entropy(logits, labels) + apart, logits


def _fit(task, loss, bench=None, model=None):
    training.seed_everything(task.seed)
    model = tiny(10) if model is None else model
    return model, training.fit(bench or PlainBench(), model, loaders(task, Path(), "cpu"), loss, task)


@pytest.mark.parametrize("hold", [lambda network: network, Teacher], ids=["raw", "Teacher"])
@pytest.mark.parametrize("profile", ["fast", "published"])
def test_a_teacher_inside_a_loss_never_changes_and_the_rest_trains(task, hold, profile):
    network = _settled_teacher()
    loss = Mimic(hold(network))
    teacher = {name: tensor.clone() for name, tensor in _tensors(loss.teacher).items()}
    rest = {name: tensor.clone() for name, tensor in loss.embed.state_dict().items()}
    _fit(task.model_copy(update={"profile": profile}), loss)
    assert len(teacher) >= 4
    assert all(torch.equal(tensor, _tensors(loss.teacher)[name]) for name, tensor in teacher.items())
    assert loss.modes == {(True, False, True, True)}
    for name, tensor in rest.items():
        assert not torch.equal(loss.embed.state_dict()[name], tensor), name


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("hold", [lambda network: network, Teacher], ids=["raw", "Teacher"])
def test_the_optimiser_holds_what_requires_a_gradient_each_once(task, hold):
    model, loss = tiny(10), Mimic(hold(_settled_teacher()))
    model[0].requires_grad_(False)
    loss.student = model  # shared: trained once
    held = training_step.start(model, loss, task, "cpu").optimiser.param_groups[0]["params"]
    wanted = [p for p in (*model.parameters(), *loss.embed.parameters()) if p.requires_grad]
    assert [id(parameter) for parameter in held] == [id(parameter) for parameter in wanted]


def test_frozen_parts_of_the_model_rest_too(task):
    model = tiny(10)
    model[1].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model[1].state_dict().items()}
    _fit(task, training.CrossEntropy(), model=model)
    assert all(torch.equal(tensor, model[1].state_dict()[name]) for name, tensor in before.items())


def test_modes_follow_gradients_and_parts_without_parameters_their_holder():
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2, affine=False))
            self.frozen.requires_grad_(False)
            self.mixed = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2), nn.Dropout())
            self.plain = nn.BatchNorm1d(2, affine=False)

    module = Partial().eval()
    train_what_is_trained(module)
    resting = {name for name, part in module.named_modules() if not part.training}
    assert resting == {"frozen", "frozen.0", "frozen.1", "frozen.2", "mixed.0"}
    only = nn.Sequential(nn.BatchNorm1d(2).requires_grad_(False), nn.Dropout())
    train_what_is_trained(only)
    assert [part.training for part in only.modules()] == [True, False, True], "it only owns what is frozen"
    norm = nn.BatchNorm1d(2).requires_grad_(False)
    train_what_is_trained(norm)
    assert not norm.training


def test_evaluating_leaves_every_mode_as_it_was():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    module[1][1].eval()
    before = [part.training for part in module.modules()]
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == before == [True, True, True, True, False]


def test_nothing_to_train_is_said(task):
    with pytest.raises(ValueError, match="nothing to train: no parameter of the model or of the loss"):
        _fit(task, training.CrossEntropy(), model=tiny(10).requires_grad_(False))


@pytest.mark.parametrize("wrap", [lambda m: [m], lambda m: {"a": (m,)}, lambda m: [m.weight]])
def test_modules_that_nothing_would_move_or_train_are_refused(task, wrap):
    class Hiding(training.CrossEntropy):
        def __init__(self, hidden) -> None:
            super().__init__()
            self.layers = hidden

    with pytest.raises(ValueError, match=r"Hiding.layers of the loss .* use nn.ModuleList"):
        _fit(task, Hiding(wrap(nn.Linear(2, 2))))
    model = tiny(10)
    _, history = _fit(task, Hiding([model]), model=model)  # the model is seen to by fit
    assert len(history.loss) == task.recipe.epochs


def test_memory_format_and_number_format_reach_every_part_of_a_loss(task):
    class Mapped(Mimic):
        def __init__(self) -> None:
            super().__init__(Teacher(_settled_teacher()))
            self.raw = nn.Conv2d(3, 16, 3).requires_grad_(False)
            self.connector = nn.Conv2d(16, 8, 1)

    loss = Mapped()
    training_step.start(tiny(10), loss, task, "cpu")
    for conv in (loss.raw, loss.connector, loss.teacher.module[0]):
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    loss.to(torch.float64)
    assert {tensor.dtype for tensor in _tensors(loss).values() if tensor.is_floating_point()} == {torch.float64}
    with torch.device("meta"):
        moved = Mapped().to("meta")
    assert {tensor.device.type for tensor in _tensors(moved).values()} == {"meta"}


def test_narrow_strided_convolutions_of_a_loss_count_too_but_a_teacher_has_no_backward_pass(task):
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for held, layout in ((narrow, torch.contiguous_format), (Teacher(narrow), torch.channels_last)):
        loss = training.CrossEntropy()
        loss.held = held
        assert training_step.start(tiny(10), loss, task, "cpu").memory_format == layout


def test_a_teacher_stays_itself():
    teacher = Teacher(_settled_teacher().train())
    assert list(teacher.parameters()) == []
    assert list(teacher.state_dict()) == []
    holder = nn.ModuleList([teacher]).train()
    holder.requires_grad_(True)
    assert not any(part.training for part in teacher.modules())
    assert not any(tensor.requires_grad for tensor in teacher.buffers())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(teacher)(images), teacher.logits(images))
    assert holder.load_state_dict(holder.state_dict()) is not None


def test_a_checkpoint_holds_what_trains_and_not_the_teacher(task):
    class Told(Mimic):
        """Remembers in a buffer, so that it survives an interruption."""

        def __init__(self) -> None:
            super().__init__(Teacher(_settled_teacher()))
            self.register_buffer("share", torch.zeros(()))
            self.told: list[int] = []

        def begin_epoch(self, epoch):
            assert self.training
            self.told.append(epoch)
            self.share.fill_(epoch / 10)

        def forward(self, model, images, labels, index):
            value, logits = super().forward(model, images, labels, index)
            return value * (1 + self.share), logits

    task = task.model_copy(update={"recipe": task.recipe.model_copy(update={"epochs": 4})})
    whole, loss = Told(), Told()
    expected, history = _fit(task, whole)
    bench = PlainBench(stop_at=2.5)
    with pytest.raises(KeyboardInterrupt):
        _fit(task, loss, bench)
    assert loss.told == [0, 1, 2]
    left = bench.resume()
    assert not any("teacher" in name for name in left["loss"])
    later = Told()
    model, resumed = _fit(task, later, PlainBench(state=bench.state))
    assert (whole.told, later.told) == ([0, 1, 2, 3], [2, 3])
    assert resumed.loss == history.loss
    for ours, theirs in ((model, expected), (later, whole)):
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
