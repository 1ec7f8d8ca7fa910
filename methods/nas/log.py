"""The log of a search, epoch by epoch: its losses and its architecture parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark.vision.training import TrainingError

KEPT_NUMBERS = 50_000
"""The largest number of architecture parameters in a record, from evenly spaced epochs; the artifact holds all."""


def entropy(tables: Sequence[Tensor]) -> float:
    """The mean over the edges of - sum p ln(p + 1e-8), with p the softmax of an edge's parameters. Waits for the
    device.
    """
    edges = [row.double() for table in tables for row in (table if table.ndim == 2 else table[None])]
    own = [-(p * (p + 1e-8).log()).sum() for p in (row.detach().softmax(0) for row in edges)]
    return float(torch.stack(own).mean())


@dataclass
class Log:
    """One entry per epoch, and a first one from before the search; `alphas` has each epoch's parameters of every
    edge."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    alphas: list[list[list[float]]] = field(default_factory=list)

    def add(self, tables: Sequence[Tensor], architecture: Mapping[str, Any], **seen: float) -> None:
        """Note an epoch: its final parameters, the architecture that would be derived from them, and numbers.

        The parameters are tables [edges, ops], or one row per edge. Raises TrainingError where a loss is not finite.
        """
        number = len(self.epochs)
        for name, value in seen.items():
            if name in ("train_loss", "valid_loss") and not math.isfinite(value):
                raise TrainingError(f"the {name.replace('_', ' ')} of the search became {value} in epoch {number}")
        self.epochs.append({"epoch": number, **seen, "entropy": entropy(tables), "architecture": dict(architecture)})
        rows = [row for table in tables for row in (table if table.ndim == 2 else table[None])]
        self.alphas.append([[float(value) for value in row.detach().tolist()] for row in rows])

    def details(self) -> dict[str, Any]:
        """For a record: every epoch, and as many tables of parameters as it may hold, to four decimals.

        The first and the last table are always among them.
        """
        numbers = sum(map(len, self.alphas[-1])) if self.alphas else 0
        most = max(2, KEPT_NUMBERS // max(1, numbers))
        count = len(self.alphas)
        kept = range(count) if count <= most else sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
        tables = {str(n): [[round(value, 4) for value in row] for row in self.alphas[n]] for n in kept}
        return {"history": self.epochs, "alphas": tables}

    def arrays(self) -> dict[str, Tensor]:
        """For the artifact: all parameters, one array [edges, widest] per epoch, NaN where an edge has fewer."""
        widest = max((len(row) for row in self.alphas[-1]), default=0) if self.alphas else 0
        padded = [[[*row, *[math.nan] * (widest - len(row))] for row in table] for table in self.alphas]
        return {"alphas": torch.tensor(padded, dtype=torch.float64)}

    def values(self) -> dict[str, float]:
        """The numbers of the last epoch, for a record."""
        last = {name: value for name, value in self.epochs[-1].items() if isinstance(value, float)}
        return {**last, "epochs": float(len(self.epochs) - 1)}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"epochs": self.epochs, "alphas": self.alphas}
