"""Which device: wishes, CUDA_VISIBLE_DEVICES, names, several GPUs (points 17 and 30)."""

from __future__ import annotations

import itertools
import math
import os
from unittest.mock import patch

import pytest
import torch
from energy_fakes import Curve, FakeGpu, FakeNvml, VirtualClock, constant, device_of
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.energy import DeviceError, EnergyTracer, find_device, find_devices
from benchmark.energy.meters.device import Device, _visible, slug
from benchmark.energy.meters.nvml import NvmlError, Unreachable
from tests.energy.fake_nvml import Curve as Power
from tests.energy.fake_nvml import FakeDriver, shared_library, why_not

ANY = ("GPU-aaaa-1", "GPU-abbb-2", "GPU-cccc-3")
ENTRIES = ["0", "1", "2", "3", "-1", " 1", "+2", "1gpu", "gpu1", "", "GPU-", "GPU-a", "GPU-aa", "GPU-ab", "GPU-cccc-3"]


@pytest.fixture
def nvml(clock):
    fakes = [
        FakeGpu(clock, constant(100 * (n + 1)), index=n, uuid=uuid, name=f"NVIDIA H{n}") for n, uuid in enumerate(ANY)
    ]
    return FakeNvml(fakes, {"MIG-1234": 1})


@pytest.fixture(autouse=True)
def no_setting(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("setting", "wish", "wanted"),
    [
        (None, "auto", (ANY[0], "cuda:0")),
        (None, "cuda", (ANY[0], "cuda:0")),
        (None, "cuda:2", (ANY[2], "cuda:2")),
        (None, "GPU-abbb-2", (ANY[1], "cuda:1")),
        (None, "GPU-ab", (ANY[1], "cuda:1")),
        ("2,0", "auto", (ANY[2], "cuda:0")),
        ("2,0", "cuda:1", (ANY[0], "cuda:1")),
        ("2,0", "GPU-aaaa", (ANY[0], "cuda:1")),
        (" 1 ", "auto", (ANY[1], "cuda:0")),
        ("GPU-cccc-3,GPU-aaaa-1", "cuda:1", (ANY[0], "cuda:1")),
        ("GPU-ccc", "auto", (ANY[2], "cuda:0")),
        ("1,-1,0", "auto", (ANY[1], "cuda:0")),
        ("2gpu,0", "auto", (ANY[2], "cuda:0")),
        ("1,GPU-cccc-3", "auto", (ANY[1], "cuda:0")),
    ],
)
def test_visible_devices(monkeypatch, nvml, setting, wish, wanted):
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    device = find_device(wish, nvml=nvml)
    assert (device.uuid, device.torch_name) == wanted
    assert device.nvml_index == ANY.index(wanted[0])
    assert (device.kind, device.source, device.grade_best) == ("cuda", "nvml:counter", "A")


@pytest.mark.parametrize(
    ("setting", "wish"),
    [
        ("", "cuda"),
        ("-1", "cuda"),
        ("7", "cuda:0"),
        ("0", "cuda:1"),
        ("0", "GPU-cccc"),
        ("1,-1,0", "cuda:1"),
        ("GPU-", "cuda"),
        ("banana", "cuda"),
        ("1,1", "cuda"),
        ("GPU-aaaa-1,GPU-aa", "cuda"),
        ("1,GPU-cccc-3", "cuda:1"),
        ("GPU-cccc-3,1", "cuda:1"),
    ],
)
def test_a_gpu_that_is_not_there_says_why_and_what_to_do(monkeypatch, nvml, setting, wish):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES") as caught:
        find_device(wish, nvml=nvml)
    assert "Choose" in str(caught.value) or "Say cpu (hardware=cpu)" in str(caught.value)


def test_auto_falls_back_to_the_cpu_and_says_why(monkeypatch, nvml, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    device = find_device("auto", nvml=nvml, powercap=tmp_path / "none")
    assert (device.kind, device.torch_name, device.grade_best) == ("cpu", "cpu", "E")
    assert any("hides every GPU" in line for line in device.why_not_better)
    assert any(line.startswith("rapl: ") for line in device.why_not_better)
    assert device.power_limit_w is None


def test_a_mig_slice_is_named_and_not_measured(monkeypatch, nvml):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    device = find_device("auto", nvml=nvml)
    assert device.mig
    assert (device.uuid, device.nvml_index, device.grade_best) == ("MIG-1234", 1, "X")
    assert "MIG" in device.why_not_better[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-unknown")
    assert find_device("auto", nvml=nvml).grade_best == "X"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ENTRIES), max_size=4).map(",".join))
def test_the_visible_gpus_are_those_that_torch_would_show(setting):
    """Number by number and prefix by prefix, against the reading of CUDA_VISIBLE_DEVICES in the torch installed here."""
    gpus = [FakeGpu(VirtualClock(), constant(100), index=n, uuid=uuid) for n, uuid in enumerate(ANY)]
    with patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": setting}):
        entries = torch.cuda._parse_visible_devices()
    if entries and isinstance(entries[0], str):
        entries = torch.cuda._transform_uuid_to_ordinals(entries, list(ANY))
    shown = list(itertools.takewhile(lambda place: place < len(ANY), entries))
    assert [entry.gpu.index for entry in _visible(FakeNvml(gpus), setting)] == shown


@pytest.mark.parametrize(
    ("sliced", "setting", "wanted"),
    [
        ((0,), None, [ANY[0]]),
        ((1,), None, [ANY[1]]),
        ((1,), "0,1", [ANY[1]]),
        ((1,), "0,2", [ANY[0], ANY[2]]),
        ((0,), "GPU-cccc", [ANY[2]]),
        ((), "MIG-1234,MIG-5678", ["MIG-1234"]),
    ],
)
def test_cuda_shows_one_slice_and_no_whole_gpu_beside_it(monkeypatch, nvml, sliced, setting, wanted):
    for place in sliced:
        nvml.fakes[place].mig = True
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [find_device(f"cuda:{n}", nvml=nvml).uuid for n in range(len(wanted))] == wanted
    with pytest.raises(DeviceError, match=f"{len(wanted)} GPU"):
        find_device(f"cuda:{len(wanted)}", nvml=nvml)


def test_the_older_name_of_a_slice_names_its_gpu(monkeypatch, nvml):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-abbb-2/1/0")
    device = find_device("auto", nvml=nvml)
    assert (device.mig, device.nvml_index) == (True, 1)


def test_a_mig_slice_of_an_unknown_gpu_still_gives_a_reading(monkeypatch, nvml, clock):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-unknown")
    tracer = EnergyTracer(find_device("auto", nvml=nvml), clock=clock, synchronize=lambda: None)
    with tracer.window("w") as window:
        clock.sleep(1.0)
    assert math.isnan(window.reading.joules)
    assert window.reading.grade == "X"
    assert "MIG" in window.reading.reason


def test_unknown_words_are_refused(nvml):
    with pytest.raises(DeviceError, match="unknown device 'gpu0'"):
        find_device("gpu0", nvml=nvml)


def test_a_driver_that_fails(tmp_path):
    class Broken(FakeNvml):
        def gpus(self):
            raise NvmlError("other", "Driver/library version mismatch")

    with pytest.raises(DeviceError, match="version mismatch"):
        find_device("cuda", nvml=Broken([]))
    assert find_device("auto", nvml=Broken([]), powercap=tmp_path).kind == "cpu"


@pytest.mark.parametrize(
    ("missing", "source", "grade"),
    [
        (("counter",), "nvml:samples", "C"),
        (("counter", "samples"), "nvml:power.instant", "D"),
        (("counter", "samples", "power.instant"), "nvml:power.usage", "D"),
        (("counter", "samples", "power.instant", "power.usage", "power.instant.module"), "", "X"),
    ],
)
def test_the_best_meter_and_why_no_better(clock, missing, source, grade):
    device = find_device("cuda", nvml=FakeNvml([FakeGpu(clock, constant(1), unsupported=missing)]))
    assert (device.source, device.grade_best) == (source, grade)
    assert [line.split(":")[1].split(" ")[0] for line in device.why_not_better] == list(missing)


def test_machines_are_folder_names():
    base = {
        "kind": "cuda",
        "torch_name": "cuda:0",
        "uuid": "u",
        "driver": "d",
        "nvml_index": 0,
        "source": "",
        "grade_best": "A",
    }
    assert Device(name="NVIDIA H200", power_limit_w=700.0, **base).machine == "nvidia-h200-700w"
    assert Device(name="NVIDIA GeForce RTX 4090", power_limit_w=None, **base).machine == "nvidia-geforce-rtx-4090"
    assert slug("  Tesla P100-PCIE-16GB ") == "tesla-p100-pcie-16gb"


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ("AMD EPYC", "cpu-amd-epyc-"),
        ("AMD EPYC 7763 64-Core Processor", "cpu-amd-epyc-7763-"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu-intel-xeon-"),
    ],
)
def test_cpu_machines(model, start):
    cpu = Device("cpu", "cpu", model, "cpu", "", None, None, "", "E")
    assert cpu.machine.startswith(start)
    assert cpu.machine.removeprefix(start).removesuffix("c").isdigit()


def two(clock, **second):
    gpus = [
        FakeGpu(clock, Curve([(0, 100), (60, 400)]), index=0, uuid="GPU-a"),
        FakeGpu(clock, constant(250), index=1, uuid="GPU-b", **second),
    ]
    return EnergyTracer([device_of(gpu) for gpu in gpus], clock=clock, synchronize=lambda: None)


def test_two_gpus_give_a_row_each_and_their_sum(clock):
    tracer = two(clock)
    with tracer.window("both") as window:
        clock.sleep(30.0)
    one, other = window.readings
    assert (one.device, other.device) == ("GPU-a", "GPU-b")
    assert one.joules == pytest.approx((100 + 250) / 2 * 30, rel=0.01)
    assert other.joules == pytest.approx(7500, rel=0.01)
    whole = window.reading
    assert whole.joules == pytest.approx(one.joules + other.joules, rel=1e-12)
    assert whole.ci95_joules == pytest.approx(math.hypot(one.ci95_joules, other.ci95_joules))
    assert whole.provenance["devices"] == ["GPU-a", "GPU-b"]
    assert not math.isnan(whole.cpu_joules)
    assert math.isnan(one.cpu_joules)
    assert "in the sum" in one.missing["cpu_joules"]
    assert {sample.device for sample in window.samples()} == {"GPU-a", "GPU-b", "host"}


def test_one_lost_gpu_spoils_the_sum_but_not_the_other(clock):
    tracer = two(clock, lost=(3.0, 5.0))
    with tracer.window("both") as window:
        clock.sleep(30.0)
    one, other = window.readings
    assert one.grade == "B"
    assert math.isnan(other.joules)
    assert math.isnan(window.reading.joules)
    assert window.reading.grade == "X"
    assert "GPU-b" in window.reading.reason


def test_devices_must_differ_and_be_of_one_kind(clock, nvml, tmp_path):
    gpu = device_of(FakeGpu(clock, constant(1)))
    cpu = find_device("cpu", powercap=tmp_path)
    for devices in ([gpu, gpu], [gpu, cpu], [cpu, cpu]):
        with pytest.raises(DeviceError):
            EnergyTracer(devices, clock=clock)
    assert [d.uuid for d in find_devices(["cuda:1", "cuda:0"], nvml=nvml)] == [ANY[1], ANY[0]]
    with pytest.raises(DeviceError, match="twice"):
        find_devices(["cuda:0", "GPU-aaaa"], nvml=nvml)


DEAD = NvmlError("lost", "GPU is lost")


@pytest.fixture
def one_dead(clock, monkeypatch):
    """Four cards, the last of which has fallen off the bus."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [FakeGpu(clock, constant(100), index=n, uuid=f"GPU-{n}") for n in range(4)]
    cards[3].lost = (0.0, math.inf)
    cards[3].identity = Unreachable(3, DEAD).identity
    return FakeNvml(cards)


@pytest.mark.parametrize(
    ("wish", "uuid"), [("auto", "GPU-0"), ("cuda", "GPU-0"), ("cuda:2", "GPU-2"), ("GPU-1", "GPU-1")]
)
def test_a_dead_card_hides_no_healthy_one_and_is_named(one_dead, wish, uuid):
    device = find_device(wish, nvml=one_dead)
    assert (device.kind, device.uuid) == ("cuda", uuid)
    assert "the GPU of NVML index 3 does not answer (GPU is lost) and is left out" in device.why_not_better


@pytest.mark.parametrize("wish", ["cuda:3", "GPU-3"])
def test_the_dead_card_itself_is_refused_with_its_reason(one_dead, wish):
    with pytest.raises(DeviceError, match=r"index 3 does not answer \(GPU is lost\)"):
        find_device(wish, nvml=one_dead)


@pytest.mark.parametrize(
    ("wish", "asked"), [("auto", "auto"), ("cuda", r"a GPU \(hardware=gpu, or cuda\)"), ("cuda:0", "cuda:0")]
)
def test_where_no_card_answers_the_cpu_is_not_taken_in_silence(one_dead, wish, asked):
    one_dead.fakes = one_dead.fakes[3:]
    with pytest.raises(
        DeviceError, match=f"^{asked} was asked for, but .*no GPU of this machine answers.*hardware=cpu"
    ):
        find_device(wish, nvml=one_dead)


def test_a_card_is_unreachable_from_its_first_call_on(monkeypatch):
    """As the driver says it: its handle cannot be had."""
    if why_not():
        pytest.skip(why_not())
    monkeypatch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with FakeDriver(shared_library(), Power(), Power()) as driver:
        driver.set(1, lost="0")
        device = find_device("auto")
    assert (device.kind, device.nvml_index) == ("cuda", 0)
    assert "NVML index 1 does not answer" in device.why_not_better[-1]


@pytest.mark.parametrize(("setting", "threads"), [("3", 3), ("2,1", 2), ("0", None), ("many", None), (None, None)])
def test_the_machine_of_a_cpu_is_named_by_the_threads_it_uses(monkeypatch, tmp_path, setting, threads):
    if setting is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    device = find_device("cpu", powercap=tmp_path)
    assert device.threads == (threads or 8)
    assert device.machine.endswith("-8c" if threads is None else f"-8c-{threads}t")


def test_a_process_that_may_use_half_the_cores_is_another_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert find_device("cpu", powercap=tmp_path).machine.endswith("-8c-4t")
