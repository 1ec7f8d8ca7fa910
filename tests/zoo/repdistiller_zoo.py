"""The zoo as published, network by network, and the networks filled with the values that the golden file expects."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
GOLDEN = json.loads((DATA / "distillation_golden.json").read_text())


class Facts(NamedTuple):
    params: int
    macs: int
    convs: int
    norms: int
    tensors: int
    maps: str  # channels@size, comma separated
    pooled: int
    feature_params: int


NARROW = "16@32 16@32 32@16 64@8"
WIDE = "32@32 64@32 128@16 256@8"
VGG = "64@32 128@16 256@8 512@4 512@4"
ZOO = {
    "resnet8": Facts(83_892, 12_507_392, 9, 9, 29, NARROW, 64, 77_392),
    "resnet14": Facts(181_108, 26_663_168, 15, 15, 47, NARROW, 64, 174_608),
    "resnet20": Facts(278_324, 40_818_944, 21, 21, 65, NARROW, 64, 271_824),
    "resnet32": Facts(472_756, 69_130_496, 33, 33, 101, NARROW, 64, 466_256),
    "resnet44": Facts(667_188, 97_442_048, 45, 45, 137, NARROW, 64, 660_688),
    "resnet56": Facts(861_620, 125_753_600, 57, 57, 173, NARROW, 64, 855_120),
    "resnet110": Facts(1_736_564, 253_155_584, 111, 111, 335, NARROW, 64, 1_730_064),
    "resnet8x4": Facts(1_233_540, 177_071_104, 10, 10, 32, WIDE, 256, 1_207_840),
    "resnet32x4": Facts(7_433_860, 1_083_040_768, 34, 34, 104, WIDE, 256, 7_408_160),
    "ResNet50": Facts(23_705_252, 1_298_014_208, 53, 53, 161, "64@32 256@32 512@16 1024@8 2048@4", 2048, 23_500_352),
    "wrn_16_1": Facts(180_916, 26_663_168, 15, 13, 43, NARROW, 64, 174_288),
    "wrn_16_2": Facts(703_284, 101_118_464, 16, 13, 44, "16@32 32@32 64@16 128@8", 128, 690_128),
    "wrn_40_1": Facts(569_780, 83_286_272, 39, 37, 115, NARROW, 64, 563_152),
    "wrn_40_2": Facts(2_255_156, 327_610_880, 40, 37, 116, "16@32 32@32 64@16 128@8", 128, 2_242_000),
    "vgg8": Facts(3_965_028, 96_192_512, 5, 5, 22, VGG, 512, 3_913_728),
    "vgg11": Facts(9_277_284, 209_438_720, 8, 8, 34, VGG, 512, 9_225_984),
    "vgg13": Facts(9_462_180, 284_936_192, 10, 10, 42, VGG, 512, 9_410_880),
    "vgg16": Facts(14_774_436, 398_182_400, 13, 13, 54, VGG, 512, 14_723_136),
    "vgg19": Facts(20_086_692, 511_428_608, 16, 16, 66, VGG, 512, 20_035_392),
    "MobileNetV2": Facts(812_836, 6_523_648, 53, 53, 161, "16@16 12@16 16@8 48@4 160@2", 1280, 477_376),
    "ShuffleV1": Facts(949_258, 38_691_456, 49, 49, 149, "24@32 240@16 480@8 960@4", 960, 853_158),
    "ShuffleV2": Facts(1_355_528, 44_504_448, 56, 56, 170, "24@32 116@16 232@8 464@4", 1024, 775_844),
}
# one of each family, with all its kinds of block; what holds for these need not be run for their deep relatives
FAMILIES = ["resnet14", "ResNet50", "wrn_16_1", "vgg11", "MobileNetV2", "ShuffleV1", "ShuffleV2"]


def shapes(facts: Facts) -> list[list[int]]:
    """Feature shapes without the batch dimension."""
    maps = [(int(c), int(size)) for c, size in (entry.split("@") for entry in facts.maps.split())]
    return [*([c, size, size] for c, size in maps), [facts.pooled]]


def module_name(name: str) -> str:
    """The `module:function` of a network, written out here so that a wrong YAML file is noticed."""
    for prefix in ("wrn", "vgg"):
        if name.startswith(prefix):
            return f"{prefix}:{name}"
    return f"{name.lower()}:{name.lower()}" if name[0].isupper() else f"resnet:{name}"


def build(name: str, classes: int = 100) -> nn.Module:
    module, function = module_name(name).split(":")
    package = importlib.import_module(f"benchmark.vision.models.repdistiller.{module}")
    network = getattr(package, function)(classes=classes)
    assert isinstance(network, nn.Module)
    return network


def _load_recipe():
    spec = importlib.util.spec_from_file_location("golden_inputs", DATA / "golden_inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden_inputs = _load_recipe()


def _kind(module: nn.Module, parameter: str) -> str:
    return {nn.Conv2d: "conv", nn.Linear: "linear", nn.BatchNorm2d: "bn"}[type(module)] + "_" + parameter


def fill(network: nn.Module) -> nn.Module:
    """Give every parameter the golden value of its kind and shape."""
    with torch.no_grad():
        for module in network.modules():
            for parameter, tensor in module.named_parameters(recurse=False):
                value = golden_inputs.model_param(_kind(module, parameter), list(tensor.shape))
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return network


def golden_network(name: str) -> nn.Module:
    """The network in float64 and train mode, filled."""
    return fill(build(name).double().train())


def golden_images(batch: int = 4) -> torch.Tensor:
    return torch.from_numpy(golden_inputs.model_input(batch))
