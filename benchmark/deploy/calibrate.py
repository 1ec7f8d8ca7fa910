"""The stage function that finds the scales of an INT8 engine: ranges of activations, amplitudes of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmark.deploy.export import export
from benchmark.deploy.graphs import arrays_of
from benchmark.deploy.quantization.collect import histograms
from benchmark.deploy.quantization.placement import Targets, targets
from benchmark.deploy.quantization.scales import activation_scale, weight_scales
from benchmark.deploy.quantization.thresholds import Threshold, choose
from benchmark.plan.deployment import Calibration
from benchmark.plan.stage import Bench, Output
from benchmark.vision.data import load, normalise

if TYPE_CHECKING:
    import onnx

BATCH = 32
"""Images per pass: all activations of a batch are in memory at once (0.6 GB for the largest network of the zoo)."""


def scales(bench: Bench, params: Calibration, network: Output) -> Output:
    """Symmetric scales of a network: one per activation that an INT8 engine quantizes, one per output channel of a
    weight.

    ONNX Runtime on the CPU observes the ranges, on training images without augmentation. Only what calibration adds is
    metered: the export is made off the meter here because engine building pays for an export anyway. Raises
    EngineError.
    """
    if network.network is None:
        raise ValueError("the stage to calibrate must output a network, and outputs none")
    with bench.paused():
        model = export(network.network)
        wanted = targets(model)
        train, _ = load(params.data, bench.data_dir, params.scale)
        generator = torch.Generator().manual_seed(params.seed)
        picks = torch.randperm(len(train), generator=generator)[: params.how.images]
        images = normalise(train.pixels[picks], network.network.mean, network.network.std).numpy()
    seen = histograms(model, wanted.all, _batches(bench, images), torch.get_num_threads())
    chosen = {name: choose(own, params.how.algorithm, params.how.percentile) for name, own in seen.items()}
    activations = {name: activation_scale(each.amax) for name, each in chosen.items()}
    return Output(
        arrays=arrays_of(activations, _weights(model, wanted)),
        values={"n_images": len(images), "n_tensors": len(chosen)},
        details={"algorithm": params.how.algorithm, "images": len(images), "ranges": _told(chosen, seen)},
    )


def _batches(bench: Bench, images: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]
        bench.progress(min(start + BATCH, len(images)), len(images))


def _weights(model: onnx.ModelProto, wanted: Targets) -> dict[str, np.ndarray[Any, Any]]:
    """The scales of every weight, one per channel."""
    from onnx import numpy_helper

    arrays = {each.name: each for each in model.graph.initializer}
    return {name: weight_scales(numpy_helper.to_array(arrays[name]), axis) for name, axis in wanted.weights.items()}


def _told(chosen: Mapping[str, Threshold], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the record keeps of each range: the largest value, the cut, and why the cut is not as asked (if so)."""
    return {
        name: {
            "largest": float(seen[name].amax),
            "kept": float(each.amax),
            "clipped_share": float(each.clipped),
            **({"algorithm": each.algorithm, "reason": each.reason} if each.reason else {}),
        }
        for name, each in chosen.items()
    }
