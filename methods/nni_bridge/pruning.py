"""Masks and speed-up by NNI 3.0, for networks without grouped convolutions.

NNI 3.0 has no APoZ and no mean-activation pruner, and its Taylor pruner multiplies before the optimiser step. Small
subclasses give all three the rules of 2.3. Scores of activations come from `methods.pruning.criteria`; granularity,
ranking, dependency groups and speed-up are NNI's.

The YAML of a criterion names the function that makes its pruner (`nni_pruner`): a function of this module, or another
one that takes a `Job`. `ranked` can be used for any criterion.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn

from benchmark.vision.data import Batch
from benchmark.vision.training import loss_of
from methods.nni_bridge.quiet import quiet
from methods.pruning.criteria.steps import sgd
from methods.pruning.criteria.subject import Subject
from methods.pruning.params import Choice, Scoring
from methods.pruning.scores import find, named, score
from methods.pruning.trace import follow

Batches = Sequence[Batch]
MODULES = ("nni.compression.pruning", "nni.compression.speedup", "nni.compression.speedup.dependency")


def prepare() -> None:
    """Import all NNI modules that the functions below need; takes some seconds, once per process."""
    with quiet(MODULES):
        importlib.import_module("torch.fx.passes.shape_prop")


@dataclass(frozen=True)
class Job:
    """What an NNI pruner is made from.

    The network that it will wrap, NNI's configuration (which convolutions, which share), and what scores the filters.
    """

    model: nn.Module
    config: list[dict[str, Any]]
    subject: Subject
    scoring: Scoring


def masks(subject: Subject, choice: Choice) -> dict[str, Tensor]:
    """NNI's masks (bool [filters] on the CPU, True stays) of the subject's convolutions; its model does not change.

    A layer that loses no filter has no mask. Among filters that tie at the cut, NNI chooses by its own rule. Raises
    ValueError where `choice` names no NNI pruner.
    """
    if choice.nni_pruner is None:
        raise ValueError(f"NNI has no pruner for {choice.scoring.criterion}: use backend=native")
    with quiet(MODULES):
        work, layers = copy.deepcopy(subject.model), subject.layers
        work.eval()
        if choice.mode == "dependency_aware":
            layers = _of_whole_groups(work, layers)
        config: list[dict[str, Any]] = [{"op_names": list(layers), "sparse_ratio": choice.sparsity}]
        if choice.mode == "dependency_aware":
            config = _grouped(work, config, subject.batches)
        own = replace(subject, model=copy.deepcopy(subject.model), layers=layers)
        pruner = named(choice.nni_pruner)(Job(work, config, own, choice.scoring))
        _, found = pruner.compress()
        pruner.unwrap_model()
    flat = {name: targets["weight"].flatten(1).amax(1).cpu() > 0 for name, targets in found.items()}
    return {name: mask for name, mask in flat.items() if not mask.all()}


def speed_up(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A physically smaller copy of `model` by NNI's ModelSpeedup, on the model's device.

    Runs on the CPU and in eval mode: the constructor runs the model, which in train mode would change batch norms. The
    graph is torch.fx's because NNI's own tracer does not support today's torch.
    """
    with quiet(MODULES):
        from nni.compression.speedup import ModelSpeedup

        device = next(model.parameters()).device
        work = copy.deepcopy(model).cpu().eval()
        full = {}
        for name, mask in masks.items():
            convolution = work.get_submodule(name)
            tensors = {field: getattr(convolution, field) for field in ("weight", "bias")}
            full[name] = {
                field: mask.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1)).expand_as(tensor).clone()
                for field, tensor in tensors.items()
                if tensor is not None
            }
            with torch.no_grad():
                for field, factor in full[name].items():
                    tensors[field].mul_(factor)
        images = torch.rand(2, 3, 32, 32, dtype=next(work.parameters()).dtype)
        ModelSpeedup(work, images, full, graph_module=torch.fx.symbolic_trace(work)).speedup_model()
        return work.to(device)


def _grouped(model: nn.Module, config: list[dict[str, Any]], batches: Batches) -> list[dict[str, Any]]:
    """NNI's own dependency groups written into the configuration."""
    from nni.compression.speedup.dependency import auto_set_denpendency_group_ids  # NNI's spelling
    from torch.fx.passes.shape_prop import ShapeProp

    parameter = next(model.parameters())
    images = batches[0][0][:2] if batches else torch.rand(2, 3, 32, 32)
    graph = torch.fx.symbolic_trace(model)
    ShapeProp(graph).propagate(images.to(parameter.device, parameter.dtype))
    return cast(list[dict[str, Any]], auto_set_denpendency_group_ids(graph, config))


def _of_whole_groups(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """The layers whose whole group is chosen.

    In other groups NNI would mask filters that its speed-up then restores with zero weights.
    """
    groups = [group for group in follow(model).groups() if set(group) <= set(layers)]
    return [name for name in layers if any(name in group for group in groups)]


def l1(job: Job) -> Any:
    """NNI's L1 pruner."""
    from nni.compression.pruning import L1NormPruner

    return L1NormPruner(job.model, job.config)


def l2(job: Job) -> Any:
    """NNI's L2 pruner."""
    from nni.compression.pruning import L2NormPruner

    return L2NormPruner(job.model, job.config)


def fpgm(job: Job) -> Any:
    """NNI's FPGM pruner."""
    from nni.compression.pruning import FPGMPruner

    return FPGMPruner(job.model, job.config)


def taylor(job: Job) -> Any:
    """NNI's Taylor pruner: that of 3.0 (`taylor_weights` pre), or with the rule of 2.3 (post)."""
    from nni.compression.pruning import TaylorPruner

    weights = find(job.scoring).settings["taylor_weights"]
    kind = {"pre": TaylorPruner, "post": _after_step(TaylorPruner)}[weights]
    return kind(job.model, job.config, _evaluator(job), training_steps=len(job.subject.batches))


def ranked(job: Job) -> Any:
    """NNI's ranking of our scores, for criteria that NNI 3.0 does not have."""
    from nni.compression.pruning import L1NormPruner

    return _ranked(L1NormPruner)(job.model, job.config, partial(score, job.subject, job.scoring))


def _evaluator(job: Job) -> Any:
    """NNI's description of a training, reduced to the steps that the criterion looks at."""
    import nni
    from nni.compression import TorchEvaluator

    batches, recipe = job.subject.batches, job.subject.recipe
    loss = loss_of(recipe)

    def step(batch: Batch, network: nn.Module) -> Tensor:
        value: Tensor = loss(network, *batch)[0]
        return value

    def train(network: nn.Module, optimiser: Any, training_step: Callable[..., Tensor], *_limits: Any) -> None:
        network.train()
        for batch in batches:
            optimiser.zero_grad()
            training_step(batch, network).backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
            optimiser.step()

    optimiser = nni.trace(torch.optim.SGD)(job.model.parameters(), **sgd(recipe))
    return TorchEvaluator(train, optimiser, step)


def _ranked(kind: type[Any]) -> type[Any]:
    """A pruner whose scores are measured elsewhere, as NNI 2.x's activation pruners do in a hook of their own."""

    class RankPruner(kind):  # type: ignore[misc] # nni is untyped
        def __init__(self, model: nn.Module, config: list[dict[str, Any]], measure: Callable[[], Any]) -> None:
            super().__init__(model, config)
            self.measure = measure

        def _calculate_metrics(self, data: Any) -> Any:
            shapes = super()._calculate_metrics(data)
            scores = self.measure()
            return {
                name: {target: scores[name].reshape(value.shape) for target, value in targets.items()}
                for name, targets in shapes.items()
            }

    return RankPruner


def _after_step(kind: type[Any]) -> type[Any]:
    """The Taylor pruner of NNI 2.3: the gradient is multiplied by the weights that it has already changed."""

    class AfterStepTaylorPruner(kind):  # type: ignore[misc] # nni is untyped
        def _register_hooks(self, evaluator: Any) -> None:
            super()._register_hooks(evaluator)
            for hook in self._all_hooks():
                hook.remove()
                hook.hook_factory = _keep_gradient
                hook.register()

        def _register_trigger(self, evaluator: Any) -> None:
            # patched in first, so that it runs before the task that reads the sums
            evaluator.patch_optimizer_step(before_step_tasks=[], after_step_tasks=[self._add])
            super()._register_trigger(evaluator)

        def _all_hooks(self) -> Iterator[Any]:
            for hooks in self.hooks.values():
                yield from hooks.values()

        def _add(self) -> None:
            for hook in self._all_hooks():
                hook.buffer[0] += (hook.target.detach() * hook.buffer[1]).square()

    return AfterStepTaylorPruner


def _keep_gradient(buffer: list[Tensor]) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        if not buffer:
            buffer.extend([torch.zeros_like(gradient), gradient])
        buffer[1] = gradient.detach().clone()

    return keep
