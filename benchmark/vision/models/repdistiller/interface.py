"""What distillation may read from a network besides its logits."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network that exposes its feature list, as all networks of this package do."""

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """Feature list f[0], ..., f[-1] and logits of images [B, 3, 32, 32].

        f[0] to f[-2] are maps [B, C, H, W] of the stem and of each stage, f[-1] is the pooled vector [B, C] that the
        classifier sees. `preact` gives the stage maps before their last ReLU where the family has one (wrn: after the
        next batch normalisation); f[0], f[-1] and the logits stay the same. No entry is changed in place afterwards.
        """

    def feature_modules(self) -> list[nn.Module]:
        """The modules that the initial stages of AB and FSP train: stem and stages, without head and classifier."""
