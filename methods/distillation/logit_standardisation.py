"""Logit standardisation. Sun et al.: Logit Standardization in Knowledge Distillation (CVPR 2024), algorithm 1."""

from __future__ import annotations

from torch import Tensor

from methods.distillation.dkd import DKD
from methods.distillation.kd import KD
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch

EPS = 1e-7


@full_precision
def standardise(logits: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-7) of each row of logits [B, K]; std divides by K - 1, as shipped."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPS)


def standardised(answers: Answers) -> Answers:
    """The same answers with standardised logits."""
    return answers._replace(logits=standardise(answers.logits))


class StandardisedKD(KD):
    """KD of standardised logits. T^2 uses the base temperature only; a sample's own one is T times its deviation."""

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `kd.divergence`."""
        return super().forward(standardised(student), standardised(teacher), batch)


class StandardisedDKD(DKD):
    """DKD of standardised logits."""

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `dkd.DKD`."""
        return super().forward(standardised(student), standardised(teacher), batch)
