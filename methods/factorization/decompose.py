"""The decompositions: truncated SVD of a matrix, Tucker-2 of a kernel, and the rank that keeps a share of energy.

All in float64. Sources: Eckart and Young 1936; Kim et al. 2016 (Tucker-2 of convolutions); De Lathauwer et al. 2000
(higher-order orthogonal iteration).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ITERATIONS, TOLERANCE = 100, 1e-4
"""Limits of the orthogonal iteration: the largest number of rounds, and the change of the relative error that ends
it."""


def rank_for(singular: Tensor, energy: float) -> int:
    """The smallest rank whose singular values (descending) hold a share `energy` of the sum of their squares."""
    squares = singular.double().square()
    total = squares.sum()
    if not total > 0:
        return 1
    kept = squares.cumsum(0) / total
    return min(int((kept < energy).sum()) + 1, len(singular))


def svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Matrices [m, r] and [r, n] whose product is the best approximation of rank r of a matrix [m, n]."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def spectra(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values of the unfoldings of a kernel [out, in, h, w] along out [out, in h w] and in [in, out h w]."""
    found = [torch.linalg.svdvals(unfold(kernel.double(), mode)) for mode in (0, 1)]
    return found[0], found[1]


def unfold(kernel: Tensor, mode: int) -> Tensor:
    """A kernel as a matrix with axis `mode` as its rows."""
    return kernel.movedim(mode, 0).reshape(kernel.shape[mode], -1)


def tucker(
    kernel: Tensor, ranks: Sequence[int], iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor, Tensor]:
    """Tucker-2 of a kernel [out, in, h, w]: core [r_out, r_in, h, w], and orthonormal factors [out, r_out], [in, r_in].

    Begins with the leading singular vectors of both unfoldings (HOSVD; with `iterations` = 0 this is the result), then
    improves each factor in turn. The error is checked from the third iteration on.
    """
    kernel = kernel.double()
    r_out, r_in = ranks
    u, v = _leading(unfold(kernel, 0), r_out), _leading(unfold(kernel, 1), r_in)
    errors: list[float] = []
    total = kernel.square().sum()
    for done in range(iterations):
        u = _leading(unfold(_core(kernel, None, v), 0), r_out)
        v = _leading(unfold(_core(kernel, u, None), 1), r_in)
        left = (total - _core(kernel, u, v).square().sum()).clamp(min=0)
        errors.append(float((left / total).sqrt()) if total > 0 else 0.0)
        if done > 1 and abs(errors[-2] - errors[-1]) < tolerance:
            break
    return _core(kernel, u, v), u, v


def possible(r_out: int, r_in: int, area: int) -> tuple[int, int]:
    """The ranks that a core [r_out, r_in, area] can have: no unfolding of it has more rows than columns."""
    return min(r_out, r_in * area), min(r_in, r_out * area)


def _leading(matrix: Tensor, rank: int) -> Tensor:
    left: Tensor = torch.linalg.svd(matrix, full_matrices=False).U
    return left[:, :rank]


def _core(kernel: Tensor, u: Tensor | None, v: Tensor | None) -> Tensor:
    if u is not None:
        kernel = torch.einsum("oihw,or->rihw", kernel, u)
    return kernel if v is None else torch.einsum("oihw,ir->orhw", kernel, v)
