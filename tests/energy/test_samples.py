"""The raw samples beside a record: anyone can integrate them again, also where a long window was thinned."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
from energy_fakes import Curve, SteadyGpu, VirtualClock, Wave, constant, device_of

from benchmark.energy import find_device
from benchmark.energy.timeline import samples
from benchmark.energy.timeline.samples import Mark, Sample, integrate, read, thinned
from benchmark.records.store import Store
from tests.harness.helpers import lives_of, tiny_experiment, work_all


def test_a_window_with_pauses_integrates_to_its_reading(traced, clock, tmp_path):
    tracer, _ = traced(Curve([(0, 60), (5, 300), (9, 120), (30, 250)]))
    clock.sleep(1.0)
    with tracer.window("w") as window:
        clock.sleep(7.03)
        with window.paused():
            clock.sleep(2.5)
        with tracer.window("inner"):
            clock.sleep(4.0)
        with window.paused():
            clock.sleep(1.1)
        clock.sleep(3.0)
    path = tmp_path / "w.csv.gz"
    path.write_bytes(window.reading.samples_csv_gz(thin=True))
    again = integrate(path)
    assert again == pytest.approx(window.reading.joules, abs=window.reading.ci95_joules)
    assert again == pytest.approx(window.reading.joules, rel=1e-3)
    assert integrate(path, "power.instant_mw") == pytest.approx(window.reading.cross_joules, rel=1e-6)
    assert math.isnan(integrate(path, "samples_mw"))
    kinds = [mark.kind for mark in read(path)[1]]
    assert kinds[:2] == ["window.begin", "window.end"]
    assert kinds.count("pause.begin") == kinds.count("pause.end") == 2
    assert [mark.name for mark in read(path)[1] if mark.kind == "child.begin"] == ["inner"]


def test_calls_that_were_held_up_give_the_same_ticks_again(traced, clock, tmp_path):
    tracer, gpu = traced(Wave(100, 300, 1.7))
    calls = itertools.count()
    read = gpu.energy_mj

    def held_up() -> int:
        clock.spend(0.03 if next(calls) % 5 == 0 else 0.0)
        value = read()
        clock.spend(0.02 if next(calls) % 3 == 0 else 0.0)
        return value

    gpu.energy_mj = held_up
    with tracer.window("w") as window:
        clock.sleep(5.0)
    path = tmp_path / "w.csv.gz"
    path.write_bytes(window.reading.samples_csv_gz())
    assert integrate(path) == pytest.approx(window.reading.joules, rel=1e-6)


@pytest.mark.parametrize("kind", ["counter_mj", "power.instant_mw"])
def test_a_long_window_is_thinned_and_keeps_its_energy(traced, clock, tmp_path, monkeypatch, kind):
    """Ten minutes stand for hours: the limit is moved, not the arithmetic."""
    missing = () if kind == "counter_mj" else ("counter", "samples")
    tracer, _ = traced(Wave(100, 300, 1.7), unsupported=missing)
    with tracer.window("w") as window:
        clock.sleep(301.3)
        with window.paused():
            clock.sleep(20.4)
        clock.sleep(300.0)
    whole, thin = tmp_path / "whole.csv.gz", tmp_path / "thin.csv.gz"
    whole.write_bytes(window.reading.samples_csv_gz(thin=True))
    monkeypatch.setattr(samples, "WHOLE_S", 60.0)
    thin.write_bytes(window.reading.samples_csv_gz(thin=True))
    assert integrate(thin, kind) == pytest.approx(integrate(whole, kind), rel=1e-9)
    assert integrate(thin, kind) == pytest.approx(window.reading.joules, abs=window.reading.ci95_joules)
    kept, all_of_it = len(read(thin)[0]), len(read(whole)[0])
    assert kept < 0.2 * all_of_it if kind == "counter_mj" else kept == all_of_it, "polled power has nothing to spare"


def test_thinning_keeps_one_in_a_slot_and_all_near_marks(monkeypatch):
    monkeypatch.setattr(samples, "WHOLE_S", 300.0)
    every = [Sample(t / 20, "GPU-a", kind, t, 1.0) for t in range(20 * 600) for kind in ("counter_mj", "x_mw")]
    marks = [Mark(0.0, "w", "window.begin"), Mark(600.0, "w", "window.end"), Mark(250.0, "c", "child.begin")]
    kept = [s for s in thinned(every, marks, "nvml:counter") if s.kind == "counter_mj"]
    assert sum(s.t_s <= samples.NEAR_S for s in kept) == 20 * samples.NEAR_S + 1
    middle = [s.t_s for s in kept if 200 < s.t_s < 300]
    assert max(b - a for a, b in pairwise(middle)) == pytest.approx(samples.SLOT_S)
    short = [mark._replace(t_s=min(mark.t_s, samples.WHOLE_S)) for mark in marks]
    assert len(list(thinned(every, short, "nvml:counter"))) == len(every), "up to an hour everything stays"


class _NoLock:
    def acquire(self) -> None: ...

    def release(self) -> None: ...


@pytest.fixture
def worked(tmp_path, monkeypatch):
    """A life cycle worked on the CPU beside a steady GPU's meter, as if that had done it."""
    device = device_of(SteadyGpu(VirtualClock(), constant(200)), torch_name="cpu")
    monkeypatch.setattr("benchmark.run.turn.DeviceLock", lambda device: _NoLock())
    monkeypatch.setattr("benchmark.run.worker.ready", lambda device: lambda: None)
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    # long enough that the counter ticks in it, on a fast machine too
    experiment = tiny_experiment(tmp_path, scale={"name": "test", "train_images": 4000, "test_images": 32})
    work_all(tmp_path, device, lives_of(experiment, device, store))
    return store


def test_the_samples_beside_a_record_give_its_joules_again(worked):
    records = dict(zip(worked.record_paths(), worked.records(), strict=True))
    assert len(records) == 3, "samples are no records"
    beside = {path: path.with_name(path.name.removesuffix(".json") + ".samples.csv.gz") for path in records}
    assert all(beside[path].is_file() for path in records)
    (path,) = [path for path, record in records.items() if record.fn.endswith(":train")]
    record = records[path]
    assert record.source == "nvml:counter", record.reason
    # on the real clock of a busy machine the session may have learned more of the ticks than the file's slice tells
    assert integrate(beside[path]) == pytest.approx(record.joules, rel=1e-3, abs=record.ci95_joules)
    (group,) = [path for path, record in records.items() if record.group]
    costs = [mark for mark in read(beside[group])[1] if mark.kind == "child.begin" and mark.name == "cost"]
    assert len(costs) >= 8, "every metered window of the measurement is marked"


def test_an_estimate_keeps_no_samples(tmp_path):
    device = find_device("cpu", powercap=tmp_path)
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    experiment = tiny_experiment(tmp_path)
    work_all(tmp_path, device, lives_of(experiment, device, store))
    sources = {record.source for record in store.records()}
    kept = list((store.results / "records").glob("*/*.csv.gz"))
    assert bool(kept) == any(not source.startswith("estimate") for source in sources)
