"""Compares our training step and data path with the originals', interleaved, one process per side. Some minutes.

usage: python scripts/perf_training.py [rounds]

The rival is written like those loops: images through PIL and torchvision one by one, contiguous tensors, a loop over
the parameters in the optimiser, metrics read back. Without a GPU costs are CPU-seconds on one thread; the rival's
loader then runs in the main process, its cheapest setting. With a GPU costs are seconds of blocks of 200 steps.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from perf_common import Apart, Row, cpu_s, interleave, machine, show, spread
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmark.plan.stage import Cost
from benchmark.plan.task import Data, Model, Recipe, Scale, Task
from benchmark.vision.data import Images, Loader, load
from benchmark.vision.download import import_torchvision
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.network import build_model
from benchmark.vision.switches import set_precision
from benchmark.vision.teacher import Teacher
from benchmark.vision.training import fast_epochs
from benchmark.vision.training_step import start

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
ON_GPU = DEVICE != "cpu"
GPU_STEPS = 200
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
TEMPERATURE, ALPHA = 4.0, 0.9


class Work(NamedTuple):
    """The training of both sides: a recipe, a student, a teacher (if any), and how the original reads and loads."""

    recipe: Recipe
    student: Model
    teacher: Model | None
    workers: int
    every_step: bool


def _model(name: str) -> Model:
    module, _, function = name.rpartition(".")
    return Model(name=name, builder=f"benchmark.vision.models.{module}:{function}")


def _recipe(batch_size: int, order: Any) -> Recipe:
    return Recipe(name="perf", epochs=10_000, batch_size=batch_size, lr=0.01, mean=MEAN, std=STD, augment=order)


KD = Work(
    _recipe(64, "crop_flip"), _model("repdistiller.resnet.resnet20"), _model("repdistiller.resnet.resnet56"), 8, True
)
VGG16 = Work(_recipe(128, "flip_crop"), _model("nni.vgg.vgg16"), None, 1, False)


class Bench:
    """A bench without a meter."""

    device = DEVICE
    data_dir = Path()

    def paused(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def checkpoint(self, state: Callable[[], Mapping[str, Any]]) -> None: ...
    def progress(self, done: float, total: float, **shown: float) -> None: ...

    def resume(self) -> None:
        return None

    def once(self, what: str, decide: Callable[[], str]) -> str:
        return decide()

    def cost(self, call: Callable[[], object], n: int) -> Cost:
        raise NotImplementedError


def distillation(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Hinton's loss with RepDistiller's weights: 0.1 cross-entropy and 0.9 softened KL divergence."""
    soft = functional.kl_div(
        functional.log_softmax(student / TEMPERATURE, 1), functional.softmax(teacher / TEMPERATURE, 1), reduction="sum"
    )
    return (1 - ALPHA) * functional.cross_entropy(student, labels) + ALPHA * TEMPERATURE**2 * soft / len(labels)


class Distilling(nn.Module):
    """`distillation` in the form that the training loop needs."""

    capturable = True

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """`index` goes unused."""
        del index
        logits = model(images)
        return distillation(logits, self.teacher.logits(images), labels), logits


class Single(Dataset[tuple[Tensor, int]]):
    """Images as PIL pictures through torchvision's transforms, one by one."""

    def __init__(self, images: Images, order: str) -> None:
        import_torchvision()
        from PIL import Image
        from torchvision import transforms

        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        if order == "flip_crop":
            moves.reverse()
        self._transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        self._picture = Image.fromarray
        self._pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = images.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._picture(self._pixels[index])), self._labels[index]


def cost_of(call: Callable[[], object]) -> float:
    """Seconds of a call that ends in a synchronisation on a GPU; CPU-seconds elsewhere."""
    if not ON_GPU:
        before = cpu_s()
        call()
        return cpu_s() - before
    torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _prepare(work: Work, steps: int) -> Images:
    """Set the process's switches, the same on both sides; returns images for `steps` steps."""
    torch.set_num_threads(1)
    set_precision("tf32" if ON_GPU else "fp32")
    torch.backends.cudnn.benchmark = True
    scale = Scale(name="perf", train_images=steps * work.recipe.batch_size, test_images=1)
    return load(Data(name="synthetic", classes=100), Path(), scale)[0]


def rival_steps(work: Work, steps: int) -> Callable[[], float]:
    """A function that trains `steps` steps as the original does and returns their cost."""
    images = _prepare(work, steps)
    torch.manual_seed(0)
    student = build_model(work.student, 100).to(DEVICE).train()
    teacher = build_model(work.teacher, 100).to(DEVICE).eval() if work.teacher else None
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, foreach=False)
    batches = DataLoader(
        Single(images, work.recipe.augment), work.recipe.batch_size, shuffle=True, num_workers=work.workers * ON_GPU
    )

    def epoch() -> None:
        for number, batch in enumerate(batches):
            pixels, labels = (part.to(DEVICE) for part in batch)
            logits = student(pixels)
            if teacher is None:
                loss = functional.cross_entropy(logits, labels)
            else:
                with torch.no_grad():
                    soft = teacher(pixels)
                loss = distillation(logits, soft, labels)
            if work.every_step:
                right = logits.topk(5, 1).indices.t().eq(labels[None])
                right[:1].float().sum().item(), right.float().sum().item(), loss.item()
            elif number % 100 == 0:
                loss.item()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
            optimiser.step()

    return lambda: cost_of(epoch)


def our_steps(work: Work, steps: int) -> Callable[[], float]:
    """The same by the fast profile's own epochs."""
    images = _prepare(work, steps)
    torch.manual_seed(0)
    student = build_model(work.student, 100)
    if work.teacher:
        module = build_model(work.teacher, 100).to(DEVICE)
        loss: nn.Module = Distilling(Teacher(module.to(memory_format=torch.channels_last)))  # type: ignore[call-overload] # missing in the stub
    else:
        loss = CrossEntropy()
    task = Task(
        model=work.student,
        data=Data(name="synthetic", classes=100),
        scale=Scale(name="perf"),
        recipe=work.recipe,
        seed=0,
        train_precision="tf32" if ON_GPU else "fp32",
    )
    run = start(student, loss, task, DEVICE)
    student.train()
    epoch = fast_epochs(Bench(), run, Loader(images.to(DEVICE), work.recipe, work.recipe.batch_size, seed=0), task)
    numbers = itertools.count()
    return lambda: cost_of(lambda: epoch(next(numbers)))


def step_row(what: str, target: float, work: Work, rounds: int) -> None:
    """Measure and print a training row."""
    steps = GPU_STEPS if ON_GPU else 1
    sides = {"rival": Apart(rival_steps, work, steps), "again": Apart(rival_steps, work, steps)}
    sides["ours"] = Apart(our_steps, work, steps)
    for warm_up in sides.values():
        for _ in range(2):
            warm_up()
    costs = {name: [1e3 * c / steps for c in all_] for name, all_ in interleave(sides, rounds).items()}
    for side in sides.values():
        side.close()
    unit = "ms per step" if ON_GPU else "ms CPU per step"
    show(Row(what, target, costs["rival"], costs["again"], costs["ours"], unit))


def data_row(rounds: int) -> None:
    """Measure and print the data path: CPU-seconds per image, augmented, normalised and in channels_last."""
    images, _ = load(Data(name="synthetic", classes=100), Path(), Scale(name="p", train_images=6400, test_images=1))
    few = Images(images.pixels[:1600], images.labels[:1600])
    recipe = _recipe(64, "crop_flip")

    def spend(batches: Callable[[], Iterator[Any]], count: int) -> float:
        before = cpu_s()
        for pixels, *_ in batches():
            pixels.contiguous(memory_format=torch.channels_last)
        return 1e6 * (cpu_s() - before) / count

    def rival(workers: int) -> Callable[[], float]:
        loader = DataLoader(Single(few, recipe.augment), 64, shuffle=True, num_workers=workers)
        return lambda: spend(lambda: iter(loader), len(few))

    ours = Loader(images, recipe, 64, seed=0)
    sides: dict[str, Callable[[], float]] = {
        "rival": rival(0),
        "again": rival(0),
        "one worker": rival(1),
        "ours": lambda: spend(ours.epoch, len(images)),
    }
    for warm_up in sides.values():
        warm_up()
    costs = interleave(sides, rounds)
    what = "data path, against a loader in the main process (its cheapest setting)"
    show(Row(what, 15, costs["rival"], costs["again"], costs["ours"], "us CPU per image"))
    print(f"    with one worker, as in NNI, the rival takes {spread(costs['one worker'], 1)} us CPU per image")
    print(f"    ours: {1e6 / statistics.median(costs['ours']):,.0f} images per CPU-second")


def main() -> None:
    """Measure and print all rows that this machine can measure."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    torch.set_num_threads(1)
    set_precision("tf32" if ON_GPU else "fp32")
    print(machine())
    data_row(rounds)
    if ON_GPU:
        step_row("KD step resnet56 -> resnet20 on the GPU, tf32 both, 8 workers", 2, KD, rounds)
        step_row("NNI-style VGG16 steps on the GPU, tf32 both, 1 worker", 4, VGG16, rounds)
    else:
        step_row("KD step resnet56 -> resnet20, batch 64, CPU, fp32, 1 thread", 1.3, KD, rounds)
        print("KD step and VGG16 epoch on a GPU: torch sees no CUDA device here")


if __name__ == "__main__":
    main()
