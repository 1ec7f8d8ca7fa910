"""The state of a training and one optimiser step: the same arithmetic in both profiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmark.plan.task import Recipe, Task, TrainPrecision
from benchmark.vision.data import Batch, mix
from benchmark.vision.loss import Loss
from benchmark.vision.memory import keep_freed_memory
from benchmark.vision.modes import train_what_is_trained

# torch writes its own cache folder, under the temporary folder, into the environment as soon as it makes an optimiser;
# but compiled kernels must survive a reboot
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "full-cycle-energy-benchmark" / "inductor")
)

Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class TrainingError(Exception):
    """Training cannot go on (a loss that is not a number); the message says where and what to try."""


@dataclass
class History:
    """The course of a training: mean loss and accuracy of every epoch, and test accuracy of some.

    Accuracies are in percent. `test_epochs` holds the numbers of the tested epochs, counted from 1. `execution` says
    how the steps were executed: profile, memory format, graph or the reason against one. `skipped_steps` counts the
    steps that fp16's gradient scaler left out, and `loss_scale` is its final scale; both are None without a scaler.
    """

    loss: list[float] = field(default_factory=list)
    train_acc_pct: list[float] = field(default_factory=list)
    test_acc_pct: list[float] = field(default_factory=list)
    test_epochs: list[int] = field(default_factory=list)
    execution: dict[str, Any] = field(default_factory=dict)
    skipped_steps: int | None = None
    loss_scale: float | None = None

    def tested(self, epoch: int, acc_pct: float) -> None:
        """Note the test accuracy after an epoch, counted from 1."""
        self.test_epochs.append(epoch)
        self.test_acc_pct.append(acc_pct)

    def values(self) -> dict[str, float]:
        """The accuracies of the last epoch, which is the result, and of the best tested one.

        The best one is chosen on the test set, so it is never a result; its name says `best`.
        """
        best = max(range(len(self.test_acc_pct)), key=self.test_acc_pct.__getitem__)
        scaled = {"skipped_steps": self.skipped_steps, "loss_scale": self.loss_scale}
        return {
            "acc_pct": self.test_acc_pct[-1],
            "best_acc_pct": self.test_acc_pct[best],
            "best_epoch": self.test_epochs[best],
            "train_acc_pct": self.train_acc_pct[-1],
            "loss": self.loss[-1],
            "epochs": len(self.loss),
            **{name: value for name, value in scaled.items() if value is not None},
        }


def autocast(precision: TrainPrecision, device: str, cache: bool = True) -> AbstractContextManager[None]:
    """The autocast region of a precision; nothing for fp32 and tf32.

    Set `cache=False` where one module runs both with and without gradients inside. Otherwise a weight that was cast
    without gradients would be taken from the cache, and would get no gradient.
    """
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, cache_enabled=cache)
    if precision == "fp16":
        return torch.autocast(torch.device(device).type, dtype=torch.float16, cache_enabled=cache)
    return nullcontext()


def autocast_told(precision: TrainPrecision, device: str) -> dict[str, str]:
    """What a record says about autocast: its number format and, on a CPU, the instructions for this format.

    Without such instructions half precision is slower than fp32. Empty for fp32 and tf32.
    """
    if precision not in ("bf16", "fp16"):
        return {}
    kind = torch.device(device).type
    if kind != "cpu":
        return {"autocast": f"{precision} on {kind}"}
    has = torch.cpu.get_capabilities()
    names = [name for name in (f"amx_{precision}", f"avx512_{precision}") if has.get(name)]
    return {"autocast": f"{precision} on a CPU ({' and '.join(names) or f'no instructions for {precision}'})"}


def seed_everything(seed: int, first_epoch: int = 0) -> None:
    """Seed torch's global generators (CPU and GPU), which draw initial weights and dropout.

    A stage that continues a training, after `first_epoch` epochs, makes new draws.
    """
    torch.manual_seed(mix(seed, -first_epoch) if first_epoch else seed)  # the loader uses the positive numbers


class Scaler:
    """fp16's gradient scaler, `amp`, and a count of the steps that it `skipped`, kept on the device.

    Neither does anything unless `enabled`. It has torch's defaults: scale 65536, doubled after 2000 good steps in a
    row, halved after a bad one.
    """

    def __init__(self, device: str, enabled: bool) -> None:
        self.amp = torch.amp.GradScaler(torch.device(device).type, enabled=enabled)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._one = torch.ones((), device=device)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """The optimiser's step, or none where a gradient is infinite or NaN. Never waits for the device."""
        if not self.amp.is_enabled():
            optimiser.step()
            return
        before = self.amp.scale(self._one)
        self.amp.step(optimiser)
        self.amp.update()
        self.skipped += self.amp.scale(self._one) < before  # the scale falls where a step was skipped, and only there

    def told(self) -> dict[str, int | float]:
        """The number of skipped steps so far, and the scale; empty without a scaler. Waits for the device."""
        if not self.amp.is_enabled():
            return {}
        return {"skipped_steps": int(self.skipped), "loss_scale": float(self.amp.get_scale())}


@dataclass
class Run:
    """Everything that changes during training, which is what a checkpoint holds, and how a step is executed.

    `rate` is the learning rate as a tensor on the device, which a captured step reads again at every replay; None where
    the optimiser takes a number.
    """

    model: nn.Module
    loss: Loss
    forward: Forward
    optimiser: torch.optim.Optimizer
    scaler: Scaler
    memory_format: torch.memory_format
    rate: Tensor | None
    history: History = field(default_factory=History)
    epoch: int = 0

    def begin(self, epoch: int) -> None:
        """Set the training modes of model and loss, and tell the loss the number of the epoch; see `loss.Loss`."""
        train_what_is_trained(self.model)
        train_what_is_trained(cast(nn.Module, self.loss))
        begin_epoch = getattr(self.loss, "begin_epoch", None)
        if begin_epoch is not None:
            begin_epoch(epoch)

    def set_rate(self, value: float) -> None:
        """Set the learning rate of the next step; the change is queued where the rate is a tensor on the device."""
        if self.rate is not None:
            self.rate.fill_(value)
            return
        for group in self.optimiser.param_groups:
            group["lr"] = value

    def state(self, device: str) -> dict[str, Any]:
        """A checkpoint: plain data and tensors."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.amp.state_dict(),
            "history": vars(self.history),
            "epoch": self.epoch,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        }

    def restore(self, state: Mapping[str, Any], device: str) -> None:
        """Continue from a checkpoint. Call it before any step is captured, because it replaces the optimiser's
        tensors."""
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.rate is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate  # loading put a copy there, and set_rate would not change it
        self.scaler.amp.load_state_dict(state["scaler"])
        self.history = History(**state["history"])
        self.scaler.skipped.fill_(self.history.skipped_steps or 0)
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"], device)


def start(model: nn.Module, loss: Loss, task: Task, device: str) -> Run:
    """A run at its beginning, with model and loss moved to `device`.

    Fast: channels_last and one fused optimiser call with the learning rate as a tensor; on a CPU the allocator also
    keeps freed memory. Published: contiguous, and a loop over the parameters, as when the originals were written.
    Raises ValueError where nothing requires a gradient, or the loss hides modules.
    """
    _refuse_hidden(model, loss)
    fast = task.profile == "fast"
    if fast and torch.device(device).type == "cpu":
        keep_freed_memory()
    sound = safe_in_channels_last(model, device) and safe_in_channels_last(loss, device)
    memory_format = torch.channels_last if fast and sound else torch.contiguous_format
    for owner in (model, cast(nn.Module, loss)):
        owner.to(device).to(memory_format=memory_format)  # type: ignore[call-overload] # missing in the stub
    rate = torch.tensor(task.recipe.lr, dtype=torch.float32, device=device) if fast else None
    scaler = Scaler(device, enabled=task.train_precision == "fp16")
    optimiser = sgd(_trained(model, loss), task.recipe, rate)
    return Run(model, loss, _forward(model, loss, task.compile), optimiser, scaler, memory_format, rate)


def _trained(model: nn.Module, loss: Loss) -> list[nn.Parameter]:
    """The parameters that require a gradient, each once, the model's first."""
    both = [parameter for owner in (model, loss) for parameter in owner.parameters() if parameter.requires_grad]
    if not both:
        raise ValueError("there is nothing to train: no parameter of the model or of the loss requires a gradient")
    return list(dict.fromkeys(both))


PLAIN = frozenset(vars(nn.Module()))
"""What every module has."""


def _refuse_hidden(model: nn.Module, loss: Loss) -> None:
    """Raise ValueError where a loss holds modules or parameters of its own in plain lists, tuples or dicts."""
    known = {id(part) for part in (*model.modules(), *model.parameters(), *loss.modules(), *loss.parameters())}
    for part in loss.modules():
        for name, value in vars(part).items():
            kept = tree_leaves(value) if name not in PLAIN else ()
            if any(isinstance(leaf, nn.Module | nn.Parameter) and id(leaf) not in known for leaf in kept):
                raise ValueError(
                    f"{type(part).__name__}.{name} of the loss holds modules or parameters that nothing would train, "
                    "move or save: use nn.ModuleList, nn.ModuleDict or nn.ParameterList"
                )


ONEDNN_BLOCK = 16
"""Channels that oneDNN handles at once on AVX-512; 8 on AVX2."""


def safe_in_channels_last(model: nn.Module | Loss, device: str) -> bool:
    """Whether training in channels_last is safe on a device.

    On a CPU the backward pass of a strided 1 x 1 convolution with fewer input channels than oneDNN's block writes
    beyond its buffer in that layout (oneDNN issue 6035, seen with torch 2.13.0 as heap corruption); shortcuts of narrow
    or pruned networks are such convolutions. A convolution without parameters belongs to a `Teacher`, which has no
    backward pass.
    """
    if torch.device(device).type != "cpu":
        return True
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _has_parameters(module)]
    return not any(
        conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels // conv.groups < ONEDNN_BLOCK
        for conv in convolutions
    )


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def sgd(parameters: list[nn.Parameter], recipe: Recipe, rate: Tensor | None) -> torch.optim.Optimizer:
    """A recipe's SGD: one fused call where `rate` is a tensor, the learning rate; otherwise a loop over the parameters.

    A parameter without a gradient does not change: it does not decay either.
    """
    optimiser = torch.optim.SGD(
        parameters,
        lr=recipe.lr if rate is None else rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        foreach=False,
        fused=rate is not None,
    )
    if rate is not None and recipe.momentum:
        for parameter in parameters:
            # zeros give the first step the same result. Made inside that step, they would stay unwritten where the
            # gradient scaler skips it, and a graph captured there would make them again at every replay
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def _forward(model: nn.Module, loss: Loss, compiled: bool) -> Forward:
    def forward(images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return loss(model, images, labels, index)

    if not compiled:
        return forward
    # fallback_random: dropout draws what it draws without compilation
    return torch.compile(forward, dynamic=False, options={"fallback_random": True})


def step(run: Run, task: Task, batch: Batch) -> tuple[Tensor, Tensor]:
    """One optimiser step; returns the detached loss and logits. Never waits for the device."""
    images, labels, index = batch
    with autocast(task.train_precision, str(images.device)):
        value, logits = run.forward(images.contiguous(memory_format=run.memory_format), labels, index)
    run.optimiser.zero_grad(set_to_none=True)
    run.scaler.amp.scale(value).backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
    if task.recipe.clip_norm is not None:
        run.scaler.amp.unscale_(run.optimiser)
        trained = [parameter for group in run.optimiser.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(trained, task.recipe.clip_norm)
    run.scaler.step(run.optimiser)
    return value.detach(), logits.detach()
