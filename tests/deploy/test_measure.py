"""The inference protocol on a pretended meter: which windows, in which order, which of them count, and what is made of them."""

from __future__ import annotations

import math
import time

import pytest
import torch

from benchmark.deploy import measure
from benchmark.deploy.measure import Subject, measure_group
from benchmark.deploy.quality import most_disturbed, noted, plain, rejection, settled
from benchmark.intervals import mean_ci95
from benchmark.plan.deployment import Inference
from benchmark.plan.stage import Cost
from benchmark.vision.data import Images

PROTOCOL = Inference(
    idle_s=0.001,
    warmup_s=0.003,
    warmup_cap_s=0.5,
    window_s=0.004,
    windows=5,
    curve_window_s=0.002,
    batch_sizes=(1, 4, 8),
)


def cost(joules=10.0, seconds=1.0, n=1, **reading) -> Cost:
    return Cost(
        joules, 0.0, seconds, n, "nvml:counter", "A", "", {"unmeasured_s": 0.0, "cross_rel_diff": 0.0, **reading}
    )


class Engine:
    """Remembers what it was shown."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self.name, self.log = name, log
        self.seen: set[float] = set()

        self.executes = {"precision": "fp32"}

    def prepare(self, images):
        return images

    def synchronise(self):
        pass

    def __call__(self, batch):
        self.log.append((self.name, len(batch)))
        self.seen.add(float(batch.sum()))
        end = time.perf_counter() + 0.0002
        while time.perf_counter() < end:
            pass
        return batch


class Bench:
    """A meter of 2 J a call plus 1 J an image, so eight images a call are the cheapest; always 100 kW, idle 5 W."""

    device = "cpu"

    def __init__(self, log) -> None:
        self.log = log
        self.windows: list[tuple[str, int, int, float]] = []
        self.told: list[tuple[float, float]] = []

    def cost(self, call, n):
        before = len(self.log)
        for _ in range(n):
            call()
        shown = self.log[before:]
        if not shown:
            return cost(5.0, 1.0, n)
        name, batch = shown[0]
        seconds = 1e-5 * (2 + batch)  # a clock of its own, faster than the pilot's: windows come out short at first
        self.windows.append((name, batch, n, seconds * n))
        return cost(2.0 + batch, seconds, n)

    def progress(self, done, total, **shown):
        assert done <= total
        self.told.append((done, total))


def _group(names):
    log: list[tuple[str, int]] = []
    bench = Bench(log)
    pixels = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.zeros(40, dtype=torch.int64))
    engines = {name: Engine(name, log) for name in names}
    subjects = {name: Subject(engines[name], PROTOCOL, images, (0.5,) * 3, (0.25,) * 3) for name in names}
    return measure_group(bench, subjects), bench, engines


def test_the_headline_is_the_cheapest_batch_and_single_stream_is_batch_one():
    outputs, _, _ = _group(["a"])
    values = outputs["a"].values
    assert values["batch_size"] == 8
    assert values["iec_joules"] == pytest.approx((2 + 8) / 8)
    assert values["single_stream_joules"] == pytest.approx(3.0)
    assert values["iec_ci95_joules"] == pytest.approx(0, abs=1e-12)
    assert values["windows"] == 5
    assert [point["batch_size"] for point in outputs["a"].details["curve"]] == [1, 4, 8]


def test_dynamic_energy_is_total_less_idle_power_times_time():
    values = _group(["a"])[0]["a"].values
    assert values["idle_context_w"] == pytest.approx(5.0)
    assert values["iec_dynamic_joules"] == pytest.approx(values["iec_joules"] - 5.0 * values["seconds_per_image"])


def test_every_window_lasts_at_least_what_was_asked():
    outputs, bench, _ = _group(["a"])
    final = outputs["a"].details["windows"]
    for windows in final.values():
        assert all(window["seconds"] * window["n"] >= PROTOCOL.window_s for window in windows)
    assert outputs["a"].values["n_inferences"] == sum(w["n"] for w in final["offline"]) * 8
    assert len(bench.windows) >= 13


def test_what_is_left_is_what_the_protocol_still_asks_for(monkeypatch):
    """However long the first steps took: counted in steps, a warm-up of minutes would foretell an hour."""
    slow = PROTOCOL.model_copy(update={"idle_s": 1.0, "warmup_s": 30.0, "window_s": 10.0, "curve_window_s": 3.0})
    gone = iter(range(0, 10_000, 200))  # every step takes 200 s
    monkeypatch.setattr(measure.time, "monotonic", lambda: float(next(gone)))
    bench = Bench([])
    way = measure._Way(bench, [slow])
    for asked_s in (1.0, 30.0, 3.0):
        way.passed(asked_s)
    left = [total - done for done, total in bench.told]
    assert left == [141.0, 140.0, 110.0, 107.0]  # 2 x 1 + 30 + 3 x 3 + 2 x 5 x 10


def test_networks_take_turns_window_by_window_in_changing_order():
    _, bench, _ = _group(["a", "b", "c"])
    order: list[str] = []
    for name, batch, *_ in bench.windows:
        if batch == 8 and (not order or order[-1] != name):
            order.append(name)
    rounds = [order[k : k + 3] for k in range(len(order) - 15, len(order), 3)]
    # neighbours of two rounds may be the same network, which the loop above folds into one
    assert len({tuple(each) for each in rounds}) > 1
    assert order.count("a") >= 4


def test_real_images_rotate_and_are_never_zeros():
    _, _, engines = _group(["a"])
    assert len(engines["a"].seen) >= 8
    assert 0.0 not in engines["a"].seen


def test_a_rejected_window_does_not_count_but_stays_with_its_reason(monkeypatch):
    judged: list[float] = []

    def reject_the_second(cost: Cost) -> str:
        judged.append(cost.joules * cost.n)
        return "foreign processes on the GPU: 4711" if len(judged) == 2 else ""

    monkeypatch.setattr("benchmark.deploy.measure.rejection", reject_the_second)
    output = _group(["a"])[0]["a"]
    offline = output.details["windows"]["offline"]
    assert [bool(window["rejected"]) for window in offline] == [False, True, False, False, False]
    assert output.values["windows"] == 4
    account = output.details["account"]
    assert account["joules"] == pytest.approx(sum(judged[:5]) - judged[1])
    assert output.values["n_inferences"] == 8 * (sum(w["n"] for w in offline) - offline[1]["n"])
    assert account["reason"] == "1 of 5 windows rejected: foreign processes on the GPU: 4711"


def test_without_a_meter_everything_is_nan_with_a_reason(monkeypatch):
    nothing = Cost(math.nan, math.nan, 0.001, 10, "nvml:counter", "X", "the window holds no tick", {})
    monkeypatch.setattr(Bench, "cost", lambda self, call, n: nothing)
    outputs, _, _ = _group(["a"])
    output = outputs["a"]
    assert math.isnan(output.values["iec_joules"])
    account = output.details["account"]
    assert account["joules"] is None
    assert "5 of 5 windows rejected: the window holds no tick" in account["reason"]
    assert account["grade"] == "X"


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({}, ""),
        ({"provenance": {"throttle_thermal_ns": 30_000_000}}, "throttled (thermal) for 3.0 %"),
        ({"provenance": {"throttle_thermal_ns": 5_000_000}}, ""),
        ({"provenance": {"throttle_power_ns": 900_000_000, "capped_samples": 9, "slow_samples": 10}}, ""),
        ({"provenance": {"slowdown_samples": 1, "slow_samples": 10}}, "heat or hardware in 1 of 10 readings"),
        ({"provenance": {"slowdown_samples": 0, "slow_samples": 10}}, ""),
        ({"provenance": {"slowdown_samples": None, "slow_samples": 0}}, ""),
        (
            {"provenance": {"sm_clock_mhz_p5": 1500, "sm_clock_mhz_p50": 1900, "sm_clock_mhz_p95": 1980}},
            "1500 to 1980 MHz",
        ),
        ({"provenance": {"sm_clock_mhz_p5": 1965, "sm_clock_mhz_p50": 1980, "sm_clock_mhz_p95": 1980}}, ""),
        ({"provenance": {"foreign_pids": [7]}}, "foreign processes on the GPU: 7"),
        ({"unmeasured_s": 0.1}, "0.1 s of 1.0 s unmeasured"),
        ({"cross_rel_diff": -0.08}, "disagree by 8.0 %"),
        ({"cross_rel_diff": None, "unmeasured_s": None}, ""),
    ],
)
def test_why_a_window_is_rejected(reading, said):
    found = rejection(cost(**reading))
    assert said in found if said else found == ""


MOVING = {"sm_clock_mhz_p5": 1500, "sm_clock_mhz_p50": 1900, "sm_clock_mhz_p95": 1980}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, ""),
        ({"throttle_power_ns": 620_000_000}, "at its power limit for 62 % of the window"),
        ({"throttle_power_ns": None, "capped_samples": 6, "slow_samples": 10}, "at its power limit for 60 %"),
        ({"throttle_power_ns": 0, "capped_samples": 0, "slow_samples": 10}, ""),
        ({"capped_samples": None, "slow_samples": 0}, ""),
    ],
)
def test_power_capping_is_noted_and_not_rejected_nor_are_its_clocks(seen, said):
    capped = cost(provenance=seen)
    assert said in noted(capped) if said else noted(capped) == ""
    moving = cost(provenance=MOVING | seen)
    if said:
        assert rejection(moving) == ""
        assert "SM clock moved from 1500 to 1980 MHz" in noted(moving)
    else:
        assert "SM clock moved" in rejection(moving)
    assert plain(capped, "")["noted"] == noted(capped)


def test_neighbours_that_reject_nothing_are_noted():
    seen = cost(provenance={"resident_pids": [4711, 4712], "hidden_pids": 2, "foreign_pids": []})
    assert rejection(seen) == ""
    assert noted(seen) == (
        "on the GPU since before this process: 4711, 4712; processes on the GPU that cannot be told from ours: 2"
    )


def test_steady_is_power_within_a_percent_and_temperature_within_a_degree_in_half_a_minute():
    def warm(*watts, rise=0.0):
        temps = [{"temp_start_c": 50 + rise * k / 3, "temp_end_c": 50 + rise * (k + 1) / 3} for k in range(len(watts))]
        return [cost(5 * w, 5.0, 1, provenance=t) for w, t in zip(watts, temps, strict=True)]

    assert settled(warm(300, 301, 300))
    assert not settled(warm(300, 301)), "two windows prove nothing"
    assert not settled(warm(300, 305, 300))
    assert settled(warm(100, 300, 301, 300)), "only the last three count"
    assert settled(warm(300, 300, 300, rise=0.4))
    assert not settled(warm(300, 300, 300, rise=0.6)), "0.6 C in 15 s is 1.2 C in 30 s"


def test_a_board_that_never_settles_is_flagged(monkeypatch):
    monkeypatch.setattr("benchmark.deploy.measure.settled", lambda warm: False)
    outputs, _, _ = _group(["a"])
    assert outputs["a"].details["thermal"] == "not settled after 0.5 s of warm-up"
    assert "not settled" in outputs["a"].details["account"]["reason"]


def test_the_interval_is_students():
    values = [1.0, 2.0, 4.0, 3.0]
    interval = mean_ci95(values)
    assert interval.mean == 2.5
    assert interval.half_width == pytest.approx(3.182446 * 1.2909944 / 2, rel=1e-4)


def test_a_few_capped_readings_excuse_no_collapse_of_the_clock():
    """Two readings of a hundred at the limit do not explain 600 to 1980 MHz."""
    moving = {"sm_clock_mhz_p5": 600, "sm_clock_mhz_p50": 1900, "sm_clock_mhz_p95": 1980}
    barely = cost(provenance={**moving, "capped_samples": 2, "slow_samples": 100})
    assert "SM clock moved from 600 to 1980 MHz" in rejection(barely)


def test_a_measurement_says_what_others_did_in_its_most_disturbed_window():
    windows = [cost(own_cores=2.0, others_cores=others) for others in (0.1, 1.2, None, 0.0)]
    assert most_disturbed(windows) == {"own_cores": 2.0, "others_cores": 1.2}
    assert most_disturbed([cost(), cost(others_cores=0.0)])["others_cores"] == 0.0
    assert most_disturbed([cost()]) == {"own_cores": None, "others_cores": None}
