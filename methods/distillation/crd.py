"""CRD. Tian, Krishnan, Isola: Contrastive Representation Distillation (ICLR 2020), equations 17 to 19.

It has memories of all training images, as shipped. CRD+KD is this term together with a weighted `kd`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.plan.task import Config
from methods.distillation.contrast import DrawOnDevice, DrawOnHost
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term

EPS = 1e-7


def nce(x: Tensor, images: int) -> Tensor:
    """The noise-contrastive loss of scores x [B, 1 + m], the positive first, with m of `images` as the noise.

    -1/B sum_b [log(x_b0 / (x_b0 + P + eps)) + sum_k log(P / (x_bk + P + eps))], P = m / images.
    """
    noise = (x.shape[1] - 1) / images
    positive, negative = x[:, 0], x[:, 1:]
    seen = (positive / (positive + noise + EPS)).log().sum()
    return -(seen + (noise / (negative + noise + EPS)).log().sum()) / len(x)


def gathered(anchor: Tensor, memory: Tensor, contrast: Tensor, z: Tensor, temperature: float) -> Tensor:
    """`nce` of exp(<memory[contrast], anchor> / T) / Z as in the original: copies [B, 1 + m, D] rows out of memory.

    anchor [B, D], memory [n, D] (a constant), contrast int64 [B, 1 + m]. `z` is a scalar buffer. Where it is below
    zero, it is set once to n times the mean score, and kept. Waits for the device, as the original does.
    """
    rows = memory.index_select(0, contrast.flatten()).view(*contrast.shape, -1)
    scores = torch.bmm(rows, anchor[:, :, None]).squeeze(2).div(temperature).exp()
    if z.item() < 0:
        z.copy_(scores.detach().mean() * len(memory))
    return nce(scores / z, len(memory))


def dense(anchor: Tensor, memory: Tensor, contrast: Tensor, z: Tensor, temperature: float) -> Tensor:
    """The value of `gathered`, by one matrix product with the whole memory; a second product gives the gradient.

    Reads the whole memory twice instead of B (1 + m) rows three times, and makes no tensor of B (1 + m) D elements. For
    the backward pass it keeps only a [B, D] gradient, so the memory may be changed at once. Never waits for the device.
    """
    with torch.no_grad():
        scores = anchor @ memory.T  # [B, n]: as m is a third of n, this is cheaper than picking rows
        chosen = scores.gather(1, contrast).div_(temperature).exp_()
        z.copy_(torch.where(z < 0, chosen.mean() * len(memory), z))
        x = chosen.div_(z)
        value = nce(x, len(memory))
        noise = (contrast.shape[1] - 1) / len(memory)
        slope = x.div_(x + (noise + EPS))  # of -log(1/(x + P)) with respect to log x; without the positive's -1
        slope[:, 0] -= 1
        slope.div_(temperature * len(anchor))
        gradient = scores.zero_().scatter_add_(1, contrast, slope) @ memory
    # this adds zero to the value and has the gradient computed above
    return value + ((anchor - anchor.detach()) * gradient).sum()


@full_precision
def unit(x: Tensor) -> Tensor:
    """Rows x [B, D] divided by their norm, without a floor, as shipped."""
    return x / x.pow(2).sum(1, keepdim=True).sqrt()


class CRD(Term):
    """Compares each network's embedding with the other's memory: of the same image, and of `negatives` other images.

    The stored entry of the same image is used, never the current embedding; the other images are of other classes. As
    shipped, the student learns only from its own half, and the other half trains the teacher's embedding. The first
    batch fixes Z. Memories start unnormalised, and are written after they are read.
    """

    class Settings(Config):
        """`negatives` is the code's nce_k, `temperature` its nce_t (the paper's text says 0.1), `momentum` its nce_m.

        `positive`: the image itself (exact), or any image of its class (relax).
        """

        dimensions: int = Field(default=128, gt=0)
        negatives: int = Field(default=16384, gt=0)
        temperature: float = Field(default=0.07, gt=0)
        momentum: float = Field(default=0.5, ge=0, lt=1)
        positive: Literal["exact", "relax"] = "exact"

    memory_student: Tensor
    memory_teacher: Tensor
    z_student: Tensor
    z_teacher: Tensor

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.embed_student = nn.Linear(scene.student[-1][0], settings.dimensions)
        self.embed_teacher = nn.Linear(scene.teacher[-1][0], settings.dimensions)
        # the original keeps its constants in a float32 vector, so it computes with this rounded value
        self.temperature = torch.tensor(settings.temperature, dtype=torch.float32, device="cpu").item()
        self.momentum = settings.momentum
        bound = 1 / math.sqrt(settings.dimensions / 3)
        for side in ("student", "teacher"):
            memory = torch.empty(len(scene.labels), settings.dimensions).uniform_(-bound, bound)
            self.register_buffer(f"memory_{side}", memory)
            self.register_buffer(f"z_{side}", torch.tensor(-1.0))
        draw = DrawOnHost if scene.published else DrawOnDevice
        self.draw = draw(scene.labels, settings.negatives, settings.positive)
        self.score = gathered if scene.published else dense
        self.capturable = not scene.published

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `compare`; draws new negatives."""
        contrast = self.draw(batch.labels, batch.position)
        ours, theirs = unit(self.embed_student(student.pooled)), unit(self.embed_teacher(teacher.pooled))
        return self.compare(ours, theirs, batch.position, contrast)

    @full_precision
    def compare(self, student: Tensor, teacher: Tensor, position: Tensor, contrast: Tensor) -> Tensor:
        """The sum of both halves for unit embeddings [B, D]; then the memories move towards the embeddings.

        `contrast` is int64 [B, 1 + m] with the positives first. As shipped the value has shape [1]; here it is a
        scalar.
        """
        value = self.score(student, self.memory_teacher, contrast, self.z_student, self.temperature)
        value = value + self.score(teacher, self.memory_student, contrast, self.z_teacher, self.temperature)
        self._remember(self.memory_student, student, position)
        self._remember(self.memory_teacher, teacher, position)
        return value

    @torch.no_grad()
    def _remember(self, memory: Tensor, embedding: Tensor, position: Tensor) -> None:
        mixed = self.momentum * memory[position] + (1 - self.momentum) * embedding
        memory.index_copy_(0, position, unit(mixed))
