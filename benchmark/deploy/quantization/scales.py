"""Symmetric scales and codes. numpy only. Zero point 0 throughout: TensorRT accepts no other."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

STEPS = 127
SMALLEST = 1e-12
"""Replaces a range of zero: a scale must be positive, and zero has the code zero with any scale."""


def activation_scale(amax: float) -> float:
    """The step of an activation whose kept range is [-amax, amax]: amax / 127, in float32."""
    return float(np.float32(max(amax, SMALLEST)) / np.float32(STEPS))


def weight_scales(weight: Array, axis: int) -> Array:
    """The step of each output channel (along `axis`) of a weight, float32 [channels]: its largest magnitude / 127."""
    others = tuple(number for number in range(weight.ndim) if number != axis)
    largest: Array = np.abs(weight).max(axis=others).astype(np.float32)
    steps: Array = np.maximum(largest, np.float32(SMALLEST)) / np.float32(STEPS)
    return steps


def weight_codes(weight: Array, scales: Array, axis: int) -> Array:
    """A weight as int8, -127 to 127, rounded half to even; `scales` holds a step for each channel along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes: Array = np.clip(np.rint(weight.astype(np.float32) / scales.reshape(shape)), -STEPS, STEPS)
    return codes.astype(np.int8)


def activation_codes(values: Array, scale: float) -> Array:
    """Activations as int8, -128 to 127, rounded half to even, as QuantizeLinear does."""
    codes: Array = np.clip(np.rint(values.astype(np.float32) / np.float32(scale)), -STEPS - 1, STEPS)
    return codes.astype(np.int8)
