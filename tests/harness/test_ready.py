"""A device made ready: warm before any window, the same board for torch and the meter, and what is said where it cannot
be."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark.energy import Device, DeviceError, find_device
from benchmark.run import process
from tests.energy.fake_nvml import FakeDriver, run_python, shared_library, why_not

ROOT = Path(__file__).parents[2]
UUID = "GPU-fa4e0000-0000-4000-8000-000000000001"


def board(**changes) -> Device:
    values = {
        "kind": "cuda",
        "torch_name": "cuda:1",
        "name": "NVIDIA L4",
        "uuid": UUID,
        "driver": "580.95.05",
        "power_limit_w": 72.0,
        "nvml_index": 1,
        "source": "nvml:counter",
        "grade_best": "A",
        "identity": {"cuda_driver": "13.0"},
    }
    return Device(**{**values, **changes})


@pytest.fixture
def cuda(monkeypatch):
    """A torch that believes it has two boards; `boards` holds their UUIDs as torch tells them, `warmed` what was
    warmed."""
    fake = SimpleNamespace(boards=["fa4e0000-0000-4000-8000-000000000000", UUID[4:]], warmed=[], waited=[])
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")  # so that what is set now is undone at the end
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(fake.boards))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda name: SimpleNamespace(uuid=fake.boards[int(name.split(":")[1])])
    )
    monkeypatch.setattr(torch.cuda, "synchronize", fake.waited.append)
    monkeypatch.setattr(process, "warm_up", fake.warmed.append)
    return fake


def test_a_board_is_warmed_and_can_be_waited_for(cuda):
    wait = process.ready(board())
    assert cuda.warmed == ["cuda:1"]
    assert wait is not None
    wait()
    assert cuda.waited == ["cuda:1"]


def test_warming_works_and_draws_no_random_number():
    before = torch.get_rng_state()
    with torch.no_grad():  # whatever state the caller is in
        process.warm_up.__wrapped__("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_warming_is_done_once_per_process_and_device(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *args, **_: calls.append(1) or args[1])
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda one, other: one)
    process.warm_up.cache_clear()
    try:
        process.warm_up("cpu")
        process.warm_up("cpu")
    finally:
        process.warm_up.cache_clear()
    assert calls == [1]


def test_a_cpu_needs_no_warming(cuda):
    assert process.ready(board(kind="cpu", torch_name="cpu")) is None
    assert cuda.warmed == []


def test_cuda_counts_as_the_driver_does_also_where_torch_is_long_imported(cuda):
    process.ready(board())
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_an_order_that_is_fixed_or_chosen_is_left_alone(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    process.ready(board())
    assert "CUDA_DEVICE_ORDER" not in os.environ, "CUDA no longer reads it: it would only mislead"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    process.ready(board())
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_the_order_is_set_before_torch_is_imported(tmp_path):
    """In a fresh process with an empty torch: what it is told at its import is what CUDA would read."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import os; print(os.environ.get('CUDA_DEVICE_ORDER'))")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from benchmark.run.process import ready
from benchmark.energy import Device, DeviceError
assert "torch" not in sys.modules
try:
    ready(Device("cuda", "cuda:0", "n", "u", "d", None, 0, "", "X"))
except AttributeError:
    pass  # that torch is empty
"""
    env = {name: value for name, value in os.environ.items() if name != "CUDA_DEVICE_ORDER"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "PCI_BUS_ID\n"


def refusal(device: Device) -> str:
    with pytest.raises(DeviceError) as caught:
        process.ready(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_board_than_the_meters_is_refused_with_its_name_in_torch(cuda):
    said = refusal(board(torch_name="cuda:0"))
    assert said.startswith(f"torch's cuda:0 is board {cuda.boards[0]}, but the meter reads {UUID}")
    assert "torch calls that one cuda:1" in said
    assert f"CUDA_VISIBLE_DEVICES={UUID}" in said
    cuda.boards[1] = cuda.boards[0]
    assert "torch calls" not in refusal(board(torch_name="cuda:0"))


def test_a_slice_is_not_compared(cuda):
    cuda.boards[1] = "the slice's own"
    assert process.ready(board(mig=True, uuid="MIG-1234")) is not None


@pytest.fixture
def blind(cuda, monkeypatch):
    """A torch that sees no GPU, and says `blind.told` about it."""
    cuda.told = ""

    def look() -> bool:
        if cuda.told:
            warnings.warn(cuda.told, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", look)
    return cuda


def test_a_torch_without_cuda(blind, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA: install a CUDA build of torch" in refusal(board())


@pytest.mark.parametrize(
    ("built", "speaks", "least"), [("13.0", "12.4", "580"), ("12.6", "11.8", "525"), ("14.1", "13.0", "")]
)
def test_a_driver_too_old_is_told_with_both_versions_and_the_remedy(blind, monkeypatch, built, speaks, least):
    monkeypatch.setattr(torch.version, "cuda", built)
    blind.told = "The NVIDIA driver on your system is too old (found version 12040)."
    said = refusal(board(driver="550.54.15", identity={"cuda_driver": speaks}))
    assert f"its driver 550.54.15 supports CUDA up to {speaks}" in said
    assert f"is built for CUDA {built}: update the driver" in said
    assert f"install a torch built for CUDA {speaks.split('.')[0]}.x" in said
    assert "CUDA build of torch" not in said
    assert (f"to {least} or newer" in said) == bool(least)


@pytest.mark.parametrize("identity", [{"cuda_driver": "13.0"}, {"cuda_driver": ""}, {}])
def test_what_torch_says_about_another_trouble_is_passed_on(blind, identity):
    blind.told = "CUDA initialization: Error 802:\n system not yet initialized"
    assert "sees no GPU: CUDA initialization: Error 802: system not yet initialized" in refusal(
        board(identity=identity)
    )
    blind.told = ""
    assert "sees no GPU: it does not say why" in refusal(board(identity=identity))


def test_a_build_without_code_for_the_board_names_one_that_has_it(cuda, monkeypatch):
    def fail(name: str) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore words")

    monkeypatch.setattr(process, "warm_up", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    said = refusal(board(name="Tesla P100"))
    assert "holds no code for its sm_60 (only for sm_75, sm_90): install a build for CUDA 12.6" in said


def test_any_other_failure_of_the_device_is_one_line(cuda, monkeypatch):
    def fail(name: str) -> None:
        raise RuntimeError("CUDA error: out of memory\nmore words")

    monkeypatch.setattr(process, "warm_up", fail)
    assert refusal(board()) == "NVIDIA L4 (cuda:1) cannot be used: CUDA error: out of memory more words"


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_the_driver_says_which_cuda_it_serves():
    code = "from benchmark.energy import find_device; print(find_device('cuda').identity['cuda_driver'])"
    assert run_python(code, FakeDriver(shared_library(), cuda=12040)).stdout == "12.4\n"


@pytest.mark.gpu
def test_after_warming_a_convolution_loads_nothing_more_and_the_generators_are_untouched():
    """In a fresh process: what is left to load afterwards takes milliseconds, not the second of a cold start."""
    code = """
        import time, torch
        before = torch.cuda.get_rng_state(0), torch.get_rng_state()
        from benchmark.energy import find_device
        from benchmark.run.process import ready
        begin = time.monotonic(); wait = ready(find_device("cuda")); cold = time.monotonic() - begin
        assert torch.equal(before[0], torch.cuda.get_rng_state(0)) and torch.equal(before[1], torch.get_rng_state())
        a = torch.ones(8, 16, 16, 16, device="cuda"); k = torch.ones(32, 16, 3, 3, device="cuda")
        wait(); begin = time.monotonic(); torch.nn.functional.conv2d(a, k, padding=1); wait()
        warm = time.monotonic() - begin
        assert warm < 0.05 * cold, (warm, cold)
    """
    lines = "\n".join(line.strip() for line in code.strip().splitlines())
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_cpu_is_used_with_the_threads_that_its_name_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    try:
        process.ready(find_device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_settings_that_change_what_work_costs_stand_in_the_record(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("SECRET_TOKEN", "no")
    found = process.costly_settings()
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "SECRET_TOKEN" not in found


def test_the_most_memory_of_a_gpu_is_counted_from_the_stage_on(monkeypatch):
    import torch

    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7_000_000 if asked else 0)
    with process.peak_memory("cuda:1") as found:
        assert found == {}
    assert (asked, found) == (["cuda:1"], {"peak_memory_bytes": 7_000_000})
    with process.peak_memory("cpu") as found:
        pass
    assert found == {}
