"""A device record from the door to the reading: probed on the compiled fake driver, kept, found again, used."""

from __future__ import annotations

import json
import sys

import pytest
from energy_fakes import FakeGpu, VirtualClock, constant, device_of

from benchmark.energy import find_device
from benchmark.records.store import Store
from benchmark.run import boards as probing
from benchmark.run.workbench import Site
from benchmark.run.worker import Worker
from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", tmp_path / "artifacts")


def facts_of(created: str, driver: str = "999.00", uuid: str = "GPU-fake-0", **more) -> dict:
    return {"id": created, "created": created, "device": {"uuid": uuid, "driver": driver}, **more}


def test_the_newest_probe_of_a_board_under_its_driver_is_found(store):
    assert store.device("GPU-fake-0", "999.00") is None
    store.add_device("a", facts_of("2026-01-02"))
    store.add_device("b", facts_of("2026-01-03"))
    store.add_device("a", facts_of("2026-01-04", driver="1000"))
    store.add_device("a", facts_of("2026-01-05", uuid="GPU-other"))
    assert store.device("GPU-fake-0", "999.00")["id"] == "2026-01-03"
    assert store.device("GPU-fake-1", "999.00") is None


def test_a_probe_is_written_once(store):
    path = store.add_device("a", facts_of("2026-01-02", idle_bare_w=61.0))
    assert store.add_device("a", facts_of("2026-01-02", idle_bare_w=99.0)) == path
    assert json.loads(path.read_text())["idle_bare_w"] == 61.0


def test_a_worker_hands_the_probe_to_the_tracer(store, tmp_path, monkeypatch):
    device = device_of(FakeGpu(VirtualClock(), constant(200)))
    monkeypatch.setattr("benchmark.run.turn.DeviceLock", lambda device: _NoLock())
    monkeypatch.setattr("benchmark.run.worker.ready", lambda device: lambda: None)
    said: list[str] = []
    facts = facts_of("2026-01-03", counter_tick_ms=20.0)
    for probed in ({}, {device.uuid: facts}):
        if probed:
            store.add_device(device.machine, facts)
        with Worker(Site(device, store, tmp_path), said.append) as worker:
            worker._bench("title", "key")
            assert worker._tracer is not None
            assert dict(worker._tracer.options.probed) == probed
    assert [line for line in said if "device --probe" in line] == [
        "note: this board was not probed under this driver: python -m benchmark device --probe does it"
    ]


class _NoLock:
    def acquire(self) -> None: ...

    def release(self) -> None: ...


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_probed_card_is_described_and_kept(store, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("ENERGY_LOCK_DIR", str(tmp_path))  # the lock of this card is ours alone
    monkeypatch.setattr(probing, "SHOWN_S", 5.0)
    monkeypatch.setattr(
        sys.modules["benchmark.energy.acceptance.probing"], "TICKS", 5
    )  # the package's `probe` is the function
    curve = Curve("sine", lo_w=70, hi_w=80, period_s=0.77)
    with FakeDriver(shared_library(), curve, tick_s=0.05, power_period_s=0.05):
        device = find_device("cuda:0")
        facts = probing.probe_board(device, store, lambda line: None)
        found = store.device(device.uuid, device.driver)
    text = "\n".join(probing.lines(facts))
    assert found is not None
    assert found["id"] == facts["id"]
    assert "counter  a tick of" in text
    assert "power    power.instant: renewed every" in text
    assert "not supported (field 186 scope 1" in text
    assert "note     idle power with a context: " in text, "no context is made on a fake card"
    assert facts["idle_context_w"] is None
    assert facts["versions"]["python"]
