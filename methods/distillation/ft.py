"""FT. Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer (NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision, match, square_map
from methods.distillation.term import Answers, Batch, Scene, Term, middle

SLOPE = 0.1
"""The slope of every leaky ReLU."""


class FactorSettings(Config):
    """The share of the teacher's channels that a factor keeps (the paper's k)."""

    rate: float = Field(default=0.5, gt=0, le=1)


def _leaky(kind: Callable[..., nn.Module], widths: tuple[int, ...], norm: bool) -> nn.Sequential:
    """3x3 layers of a kind through `widths`, each with a bias, a leaky ReLU, and batch normalisation where `norm`."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        norms = [nn.BatchNorm2d(c_out)] if norm else []
        layers += [kind(c_in, c_out, 3, padding=1), *norms, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def factors(channels: int, rate: float) -> int:
    """The number of channels in the factor of a map with `channels`. Raises ValueError where it would be 0."""
    found = int(channels * rate)
    if not found:
        raise ValueError(f"rate={rate} leaves none of {channels} channels in the factor: raise the rate")
    return found


def encoder(channels: int, rate: float) -> nn.Sequential:
    """The paraphraser's first half: a teacher's map [B, C, H, W] to its factor [B, int(C rate), H, W]."""
    narrow = factors(channels, rate)
    return _leaky(nn.Conv2d, (channels, channels, narrow, narrow), norm=False)


@full_precision
def reconstruction(decoded: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared error of maps [B, C, H, W] (equation 1)."""
    return functional.mse_loss(decoded, teacher)


@full_precision
def transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean absolute difference of two factors, after these are reduced to attention maps.

    As shipped: equation 2 normalises the factors themselves, element by element, without the mean over channels.
    """
    student, teacher = match(student, teacher)
    return (square_map(student) - square_map(teacher)).abs().mean()


class Paraphrasing(Term):
    """The initial term: an autoencoder of the teacher's last map.

    As shipped it has no normalisation, and behind an untrained teacher its loss may diverge.
    """

    Settings = FactorSettings
    uses_student = False
    hands_on = True

    def __init__(self, scene: Scene, settings: FactorSettings) -> None:
        super().__init__()
        wide = middle(scene.teacher)[-1][0]
        narrow = factors(wide, settings.rate)
        self.encoder = encoder(wide, settings.rate)
        self.decoder = _leaky(nn.ConvTranspose2d, (narrow, narrow, wide, wide), norm=False)

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `reconstruction`."""
        return reconstruction(self.decoder(self.encoder(teacher.middle[-1])), teacher.middle[-1])


class FT(Term):
    """The main term: compares the translated student with the factor of the trained and frozen paraphraser.

    `scene.prepared` must hold the tensors of the trained `Paraphrasing`.
    """

    Settings = FactorSettings

    def __init__(self, scene: Scene, settings: FactorSettings) -> None:
        super().__init__()
        ours, theirs = middle(scene.student)[-1][0], middle(scene.teacher)[-1][0]
        narrow = factors(theirs, settings.rate)
        self.translator = _leaky(nn.Conv2d, (ours, ours, narrow, narrow), norm=True)
        self.encoder = encoder(theirs, settings.rate)
        if not scene.prepared:
            raise ValueError("FT needs the paraphraser that its initial stage trains")
        trained = {
            name.removeprefix("encoder."): tensor
            for name, tensor in scene.prepared.items()
            if name.startswith("encoder.")
        }
        shapes = {name: tensor.shape for name, tensor in self.encoder.state_dict().items()}
        if {name: tensor.shape for name, tensor in trained.items()} != shapes:
            raise ValueError(
                "FT's initial and main stage have different rates: set initial.settings.rate to term.settings.rate"
            )
        self.encoder.load_state_dict(trained)
        self.encoder.requires_grad_(False)

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `transfer`."""
        return transfer(self.translator(student.middle[-1]), self.encoder(teacher.middle[-1]))
