"""A device made ready: warm before any window, the same board for torch and the meter, and what is said where it cannot
be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark.energy import Device
from benchmark.run import process

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
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
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
