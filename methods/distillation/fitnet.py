"""FitNet. Romero et al.: FitNets: Hints for Thin Deep Nets (ICLR 2015), equation 3, in one stage as RepDistiller."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import ConvReg, full_precision
from methods.distillation.term import Answers, Batch, Scene, Term


@full_precision
def hint(regressed: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of maps [B, C, H, W]."""
    return functional.mse_loss(regressed, teacher)


class FitNet(Term):
    """The `hint` of a regressed student map and the teacher's map. The regressor trains with the student."""

    class Settings(Config):
        """`layer` is the entry of the feature list (as shipped: 2)."""

        layer: int = Field(default=2, ge=0)

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.layer = settings.layer
        last = min(len(scene.student), len(scene.teacher)) - 2
        if self.layer > last:
            raise ValueError(f"layer={self.layer}: choose at most {last}, the last map that both networks have")
        self.regressor = ConvReg(scene.student[self.layer], scene.teacher[self.layer])

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `hint`."""
        return hint(self.regressor(student.features[self.layer]), teacher.features[self.layer])
