"""The signature of an inference, twelve digits: networks with the same signature share a measurement."""

from __future__ import annotations

from typing import Any

from benchmark.plan import own_code
from benchmark.plan.stage import Network, digest_of


def signature(network: Network, kind: str, precision: str, layout: str) -> str:
    """Twelve hexadecimal digits that identify an inference's arithmetic.

    They depend on builder, arguments, tensor shapes, the engine, and what the engine executes; and on the code of a
    builder that is none of the zoo's, which may compute something else with the same shapes tomorrow.
    """
    code = own_code.digest(network.builder)
    return digest_of([*shape_of(network), kind, precision, layout, *([code] if code else [])])[:12]


def shape_of(network: Network) -> list[Any]:
    """Builder, arguments and tensor shapes: two networks with the same ones do the same arithmetic."""
    shapes = {name: list(tensor.shape) for name, tensor in network.tensors.items()}
    return [network.builder, dict(network.kwargs), shapes]
