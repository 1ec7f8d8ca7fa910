"""The teacher as the original has it: a network in eval mode, asked without a gradient."""

from __future__ import annotations

import copy
from typing import Any, Self, cast

import torch
from torch import Tensor, nn


class PlainTeacher(nn.Module):
    """A frozen copy of a network, every layer in its place: what the published profile asks, and what a rehearsal on
    the meta device asks. `benchmark.vision.teacher.Teacher` gives the same answers for less work.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Nothing: a teacher stays in eval mode."""
        del mode
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits [B, K] of images [B, 3, 32, 32]."""
        return cast(Tensor, self.module(images))

    @torch.no_grad()
    def features(self, images: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """Feature list and logits, see `benchmark.vision.models.repdistiller.interface.FeatureNetwork`."""
        return cast(Any, self.module).features(images, preact)  # type: ignore[no-any-return] # duck-typed
