"""Mixed precision, fake quantization and factors on a GPU."""

from __future__ import annotations

import pytest
import torch

from benchmark.plan.stage import Output
from benchmark.vision.network import load
from methods.baseline import Training
from methods.factorization.plan import Factoring
from methods.factorization.stages import factor
from methods.quantization import stages
from methods.quantization.aware import Aware, Simulating
from methods.training import train
from tests.bench import PlainBench
from tests.deploy.exported import DATA, RECIPE, RESNET, SCALE, network

pytestmark = pytest.mark.gpu


class GpuBench(PlainBench):
    device = "cuda:0"


@pytest.fixture
def resnet(task):
    recipe = RECIPE.model_copy(update={"epochs": 3, "schedule": "constant"})
    return task.model_copy(update={"model": RESNET, "recipe": recipe, "data": DATA, "scale": SCALE})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_baseline_under_autocast_learns_and_says_so(resnet, precision):
    made = train(GpuBench(), Training(task=resnet, autocast=precision))
    assert made.details["history"]["loss"][-1] < made.details["history"]["loss"][0]
    assert made.details["execution"]["autocast"] == f"{precision} on cuda"
    assert ("skipped_steps" in made.values) is (precision == "fp16")


@pytest.mark.parametrize("scales", ["observed", "learned"])
def test_fake_quantization_trains_on_the_gpu_and_its_scales_come_home(resnet, scales):
    given = Output(network=network("resnet"), values={"acc_pct": 10.0})
    made = stages.train(GpuBench(), Aware(task=resnet, how=Simulating(scales=scales)), given)
    assert {tensor.device.type for tensor in made.arrays.values()} == {"cpu"}
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in made.arrays.values())


def test_factors_found_on_the_gpu_are_those_of_the_cpu(resnet):
    given = Output(network=network("resnet"), values={"acc_pct": 10.0})
    ours, theirs = (factor(bench, Factoring(task=resnet, energy=0.8), given) for bench in (GpuBench(), PlainBench()))
    assert ours.details["ranks"] == theirs.details["ranks"]
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        one, other = (load(made.network)(images) for made in (ours, theirs))
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)
