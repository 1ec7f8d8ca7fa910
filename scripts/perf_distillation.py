"""Compares distillation with the original's code: CRD's contrast, NST's kernel, every method's step.

usage: python scripts/perf_distillation.py [rounds]

Without a GPU it uses one thread and CPU-seconds, with a GPU seconds. Equality is checked before anything is timed. The
methods' steps are those of resnet56 -> resnet20, batch 64, without reading data. Beside them stand measurements of the
original itself (distillation.md, section 8.1, on another CPU): compare their ratios to plain training, not their times.
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from perf_common import Row, interleave, machine, ratios, show, spread
from perf_training import DEVICE, ON_GPU, cost_of
from torch import Tensor, nn

from benchmark.plan.config import compose
from benchmark.plan.config import names as known
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.models.repdistiller.resnet import resnet20, resnet56
from benchmark.vision.switches import set_precision
from benchmark.vision.teacher import Teacher
from benchmark.vision.training_step import safe_in_channels_last
from methods.distillation.contrast import DrawOnDevice, DrawOnHost
from methods.distillation.crd import dense, gathered
from methods.distillation.nst import selectivity
from methods.distillation.objective import INITIAL, Objective
from methods.distillation.params import Choice
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, freeze_but, handed_on, shapes_of, trained_at_first

BATCH, IMAGES, CLASSES, NEGATIVES, DIMENSIONS = 64, 50_000, 100, 16_384, 128
LABELS = torch.arange(IMAGES) % CLASSES
ORIGINAL = {
    "kd": (0.448, 0),
    "fitnet": (0.470, 0),
    "at": (0.463, 0),
    "sp": (0.473, 0),
    "cc": (0.452, 0),
    "vid": (0.507, 0),
    "rkd": (0.542, 0),
    "pkt": (0.496, 0),
    "ab": (0.459, 0.497),
    "ft": (0.496, 0.330),
    "fsp": (0.457, 0.963),
    "nst": (1.246, 0),
    "crd": (2.248, 0),
    "crd_kd": (2.211, 0),
}
"""The original's CPU-seconds of a step, and of one of its initial stage, data included."""
ORIGINAL_PLAIN = 0.267
"""The original's CPU-seconds of a step of plain training of resnet20."""


def _close(one: list[Tensor], other: list[Tensor], what: str) -> None:
    for ours, theirs in zip(one, other, strict=True):
        # float32: single elements of a gradient are differences of larger terms
        if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max())):
            raise SystemExit(f"{what}: the two computations do not agree, so nothing was timed")


# --- CRD --------------------------------------------------------------------------------------------------------------


def crd_rows(rounds: int) -> None:
    """Measure and print the contrast of one step (both halves, forward and backward), its draws, and both together."""
    torch.manual_seed(0)
    memory = torch.rand(IMAGES, DIMENSIONS, device=DEVICE).mul_(0.3).sub_(0.15)
    position = torch.randperm(IMAGES)[:BATCH].to(DEVICE)
    labels = LABELS.to(DEVICE)[position]
    draws = {"host": DrawOnHost(LABELS, NEGATIVES, "exact"), "device": DrawOnDevice(LABELS, NEGATIVES, "exact")}
    for draw in draws.values():
        draw.to(DEVICE)
    contrast = draws["device"](labels, position)
    start = nn.functional.normalize(torch.randn(BATCH, DIMENSIONS, device=DEVICE))

    def step(score: Callable[..., Tensor], drawn: Callable[[], Tensor]) -> list[Tensor]:
        chosen, found = drawn(), []
        for _ in range(2):
            anchor, z = start.clone().requires_grad_(), torch.tensor(-1.0, device=DEVICE)
            value = score(anchor, memory, chosen, z, 0.07)
            found += [value.detach(), z, *torch.autograd.grad(value, [anchor])]
        return found

    _close(step(dense, lambda: contrast), step(gathered, lambda: contrast), "CRD")
    ways = {
        "contrast": (lambda: step(gathered, lambda: contrast), lambda: step(dense, lambda: contrast)),
        "draws": (lambda: draws["host"](labels, position), lambda: draws["device"](labels, position)),
        "contrast with its draws": (
            lambda: step(gathered, lambda: draws["host"](labels, position)),
            lambda: step(dense, lambda: draws["device"](labels, position)),
        ),
    }
    targets = {"contrast": 5 if ON_GPU else 10, "draws": 1, "contrast with its draws": 5 if ON_GPU else 10}
    for what, (rival, ours) in ways.items():
        _row(f"CRD, {what}, batch 64, 16,384 of 50,000", targets[what], rival, ours, rounds)


def _row(what: str, target: float, rival: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> None:
    sides = {"rival": rival, "again": rival, "ours": ours}
    timed = {name: partial(cost_of, call) for name, call in sides.items()}
    for warm_up in timed.values():
        warm_up()
    costs = {name: [1e3 * cost for cost in all_] for name, all_ in interleave(timed, rounds).items()}
    show(Row(what, target, costs["rival"], costs["again"], costs["ours"], "ms" if ON_GPU else "ms CPU"))


# --- NST --------------------------------------------------------------------------------------------------------------


def _nst_step(broadcast: bool) -> list[Tensor]:
    """Loss and gradients of NST over the stages of resnet56 -> resnet20."""
    torch.manual_seed(0)
    shapes = [(BATCH, channels, size, size) for channels, size in ((16, 32), (32, 16), (64, 8))]
    student = [torch.rand(*shape, device=DEVICE).requires_grad_() for shape in shapes]
    teacher = [torch.rand(*shape, device=DEVICE) for shape in shapes]
    stages = (selectivity(s, t, broadcast) for s, t in zip(student, teacher, strict=True))
    value = sum(stages, torch.zeros((), device=DEVICE))
    return [value.detach(), *torch.autograd.grad(value, student)]


def _nst_peak(broadcast: bool) -> int:
    """Bytes that one such step adds to the peak of memory; on a CPU call it in a new process."""
    torch.set_num_threads(1)
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _nst_step(broadcast)
        return torch.cuda.max_memory_allocated() - before
    selectivity(torch.rand(1, 2, 2, 2), torch.rand(1, 2, 2, 2), broadcast)  # so that loading does not count
    before = _high_water()
    _nst_step(broadcast)
    return _high_water() - before


def _high_water() -> int:
    """The largest memory of this process so far in bytes (Linux; getrusage would also count the parent's memory)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def nst_rows(rounds: int) -> None:
    """Measure and print NST's time, and the peak of its memory."""
    _close(_nst_step(False), _nst_step(True), "NST")
    what = "NST, three stages of resnet56 -> resnet20, batch 64"
    _row(what, 2, lambda: _nst_step(True), lambda: _nst_step(False), rounds)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {way: pool.apply(_nst_peak, (way,)) / 2**20 for way in (True, False)}
    print(f"    memory it adds at its peak: 4-D tensors {peaks[True]:.0f} MiB, products {peaks[False]:.0f} MiB")


# --- every method's step ----------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """How a step computes: as the original or as ours, with or without unused computations."""

    published: bool
    no_waste: bool


SIDES = {"published": Side(True, False), "fast": Side(False, False), "fast, no waste": Side(False, True)}
"""The sides, named by `profile` and `variant`."""


def _words(name: str) -> Choice:
    """A method as in configs/."""
    config = compose([f"method=distillation/{name}", "pair=resnet56__resnet20"])
    words: Any = OmegaConf.to_container(config.method, resolve=True)
    return Choice.model_validate({key: words[key] for key in Choice.model_fields}).for_pair("resnet56", "resnet20")


def _step(network: nn.Module, loss: nn.Module, side: Side) -> Callable[[], float]:
    """A function that trains one step and returns its cost."""
    sound = all(safe_in_channels_last(owner, DEVICE) for owner in (network, loss))
    layout = torch.channels_last if sound and not side.published else torch.contiguous_format
    for owner in (network, loss):
        owner.to(DEVICE).to(memory_format=layout)  # type: ignore[call-overload] # missing in the stub
    images = torch.randn(BATCH, 3, 32, 32, device=DEVICE).contiguous(memory_format=layout)
    position = torch.randperm(IMAGES)[:BATCH].to(DEVICE)
    labels = LABELS.to(DEVICE)[position]
    trained = [p for owner in (network, loss) for p in owner.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, foreach=False, fused=not side.published)

    def step() -> None:
        value, _ = loss(network, images, labels, position)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

    return lambda: cost_of(step)


def _method(choice: Choice, side: Side, initial: bool) -> Callable[[], float]:
    torch.manual_seed(0)
    student, taught = resnet20().train(), resnet56()
    teacher = Teacher(taught, fold=False) if side.published else Teacher(taught.to(memory_format=torch.channels_last))  # type: ignore[call-overload] # missing in the stub
    scene = Scene(shapes_of(student), shapes_of(taught), LABELS, published=side.published)
    first = build_term(choice.initial, scene) if choice.initial else None
    if initial:
        assert first is not None, "only asked for where there is one"
        freeze_but(student, trained_at_first(first, student))
        return _step(student, Objective(teacher, first, INITIAL, side.no_waste).train(), side)
    prepared = handed_on(first) if first else {}
    term = build_term(choice.term, Scene(scene.student, scene.teacher, LABELS, side.published, prepared))
    return _step(student, Objective(teacher, term, choice.weights, side.no_waste).train(), side)


def step_table(rounds: int) -> None:
    """Measure and print every method's cost relative to plain training of the student, and the original's cost."""
    plain: dict[str, Callable[[], float]] = {}
    for name, side in SIDES.items():
        for twin in ("", " again"):
            torch.manual_seed(0)
            plain[f"plain {name}{twin}"] = _step(resnet20().train(), CrossEntropy(), side)
    steps = dict(plain)
    names = [name.rpartition("/")[2] for name in known("method") if name.startswith("distillation/")]
    names = [*(n for n in ORIGINAL if n in names), *(n for n in names if n not in ORIGINAL)]
    for method in names:
        choice = _words(method)
        for name, side in SIDES.items():
            steps[f"{method} {name}"] = _method(copy.deepcopy(choice), side, initial=False)
            if choice.initial:
                steps[f"{method} {name} initial"] = _method(choice, side, initial=True)
    for warm_up in steps.values():
        warm_up()
    _print_table(names, interleave(steps, rounds))


def _print_table(names: list[str], costs: Mapping[str, list[float]]) -> None:
    print("whole run relative to plain training of resnet20 in the same column (240 epochs, 30 of an initial stage)")
    print(f"{'method':<10}{'original':>10}" + "".join(f"{name:>26}" for name in SIDES))
    for method in names:
        step, first = ORIGINAL.get(method, (float("nan"), 0.0))
        cells = [f"{(step + first / 8) / ORIGINAL_PLAIN:>10.2f}" if method in ORIGINAL else f"{'-':>10}"]
        for side in SIDES:
            initial = costs.get(f"{method} {side} initial", [0.0] * len(costs[f"{method} {side}"]))
            whole = [a + b / 8 for a, b in zip(costs[f"{method} {side}"], initial, strict=True)]
            cells.append(f"{spread(ratios(whole, costs[f'plain {side}'])):>26}")
        print(f"{method:<10}" + "".join(cells))
    for side in SIDES:
        control = ratios(costs[f"plain {side} again"], costs[f"plain {side}"])
        alone = 1e3 * statistics.median(costs[f"plain {side}"])
        print(f"    plain, {side}: {alone:.0f} ms; against itself {spread(control)}")


def main() -> None:
    """Measure and print all."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    set_precision("fp32")
    print(machine())
    crd_rows(rounds)
    nst_rows(rounds)
    step_table(rounds)


if __name__ == "__main__":
    main()
