"""The process-wide switches of numerics: TF32 and cudnn's choice of algorithms, set for good or for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmark.plan.task import TrainPrecision


def set_precision(precision: TrainPrecision) -> None:
    """Set the process-wide switches of a precision, permanently: TF32 is off for fp32, and on for all others."""
    _set_tf32(precision != "fp32")


@contextmanager
def switches(tf32: bool, cudnn_benchmark: bool, deterministic: bool = False) -> Iterator[None]:
    """Set TF32, cudnn's benchmarking and its deterministic algorithms inside; restore the old values afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    _set_tf32(tf32)
    cudnn.benchmark, cudnn.deterministic = cudnn_benchmark, deterministic
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def _set_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
