"""The suite on a meter that counts work and not time: a joule for each step of an optimizer, a microjoule for each
image that a linear layer answers. So two runs of the same stages have the same energies, but for what is read between
two samples. Checkpoints are written after every epoch.

    python -c 'from tests.harness.counted import main; main()' study experiment=...
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark.energy.meters import estimate
from benchmark.run import cluster, workbench


def count() -> None:
    """Let the estimate of this process count steps and answers from here on."""
    counted = [0.0]

    def step(*_: object) -> None:
        counted[0] += 1.0

    def answer(module: nn.Module, images: object, out: torch.Tensor) -> None:
        if isinstance(module, nn.Linear) and not torch.is_grad_enabled():
            counted[0] += 1e-6 * len(out)

    register_optimizer_step_post_hook(step)
    nn.modules.module.register_module_forward_hook(answer)
    estimate.ASSUMED_W_PER_CORE = 1.0  # a second of the estimate is then a joule
    estimate.tree_cpu_seconds = lambda: counted[0]
    workbench.CHECKPOINT_S = 0.0


class CountingHand(cluster.Hand):
    """A worker of Ray's whose process counts, too."""

    def __init__(self, device: str, threads: int) -> None:
        count()
        super().__init__(device, threads)


def main() -> int:
    """The command, counted, whatever process works it."""
    from benchmark.__main__ import main as door

    count()
    cluster.Hand = CountingHand
    return door()
