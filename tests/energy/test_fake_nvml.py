"""The compiled fake driver itself, under the real pynvml: what it shows is what was set, and every fault is visible."""

import itertools
import time

import pynvml
import pytest

from tests.energy.fake_nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Curve,
    FakeDriver,
    run_python,
    shared_library,
    why_not,
)

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

SHAPES = [
    Curve("constant", start_s=0.02, end_s=0.2),
    Curve("square", period_s=0.03, duty=0.4),
    Curve("ramp", period_s=0.15),
    Curve("sine", period_s=0.07),
    Curve("exponential", period_s=0.05),
    Curve("steps", steps=((0.0, 60.0), (0.05, 250.0), (0.1, 20.0), (0.15, 400.0))),
]


@pytest.fixture
def card():
    """Install a fake driver for the test and give (driver, handle of its first card)."""
    installed = []

    def start(*curves, **settings):
        driver = FakeDriver(shared_library(), *curves, **settings)
        driver.__enter__()
        installed.append(driver)
        pynvml.nvmlInit()
        return driver, pynvml.nvmlDeviceGetHandleByIndex(0)

    yield start
    for driver in installed:
        driver.__exit__()


def code_of(call, *arguments):
    """The NVML error code that a call raises, or 0."""
    try:
        call(*arguments)
    except pynvml.NVMLError as error:
        return error.value
    return 0


def energy_mj(handle):
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)


def field(handle, number, scope=0):
    value = pynvml.nvmlDeviceGetFieldValues(handle, [(number, scope)])[0]
    assert value.nvmlReturn == 0
    return value.value.uiVal if value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT else value.value.ullVal


@pytest.mark.parametrize("curve", SHAPES, ids=lambda curve: curve.shape)
def test_the_counter_is_the_closed_form_integral(card, curve):
    driver, handle = card(curve, tick_s=0, base_j=0)
    for _ in range(8):
        before = time.monotonic()
        shown_j = energy_mj(handle) / 1000
        after = time.monotonic()
        assert driver.joules(driver.t0_s, before) - 0.002 <= shown_j <= driver.joules(driver.t0_s, after) + 0.002
        time.sleep(0.025)


@pytest.mark.parametrize("curve", SHAPES, ids=lambda curve: curve.shape)
def test_the_closed_form_is_the_riemann_sum_of_its_own_power(curve):
    n, until_s = 20_000, 0.3
    step_s = until_s / n
    powers = [curve.joules(i * step_s, (i + 1) * step_s) / step_s for i in range(n)]
    assert min(powers) >= min([curve.lo_w] + [w for _, w in curve.steps]) - 1e-6
    assert max(powers) <= max([curve.hi_w] + [w for _, w in curve.steps]) + 1e-6
    assert curve.joules(0, until_s) == pytest.approx(sum(powers) * step_s, rel=1e-9)


def test_known_integrals_by_hand():
    assert Curve("constant", lo_w=50, hi_w=300, start_s=1, end_s=3).joules(0, 5) == pytest.approx(3 * 50 + 2 * 300)
    assert Curve("square", lo_w=100, hi_w=200, period_s=1, duty=0.25).joules(0, 4) == pytest.approx(4 * 125)
    assert Curve("ramp", lo_w=0, hi_w=100, period_s=2).joules(0, 3) == pytest.approx(100 + 100)
    assert Curve("sine", lo_w=0, hi_w=100, period_s=1).joules(0, 2) == pytest.approx(100)
    assert Curve("steps", lo_w=10, steps=((1, 30), (2, 20))).joules(0, 4) == pytest.approx(10 + 30 + 40)


def test_the_counter_ticks(card):
    driver, handle = card(Curve(lo_w=100, hi_w=100), tick_s=0.05, tick_phase_s=0.01, base_j=100)
    seen = set()

    def last_tick(t_s):
        return (t_s - 0.01) // 0.05

    while len(seen) < 5:
        before_s, value, after_s = driver.now_s(), energy_mj(handle), driver.now_s()
        assert value % 5000 == pytest.approx(1000, abs=2)
        tick = round((value - 101_000) / 5000)
        assert last_tick(before_s) <= tick <= last_tick(after_s)
        seen.add(tick)


def test_power_sensors_average_over_their_windows(card):
    # renewed once, at 0.2 s, so that a slow machine reads the same
    settings = {"power_period_s": 1e6, "power_phase_s": 0.2, "instant_window_s": 0.025, "average_window_s": 1.0}
    driver, handle = card(Curve(start_s=0.1), **settings)
    time.sleep(max(0.0, 0.21 - driver.now_s()))
    assert field(handle, 186) == 300_000
    assert field(handle, 185) == 60_000 + 24_000
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 60_000 + 24_000


def test_field_scopes_and_the_counter_as_a_field(card):
    _, handle = card(tick_s=10, base_j=7, module_w=40)
    assert field(handle, 186, scope=1) - field(handle, 186, scope=0) == 40_000
    assert field(handle, 191) == field(handle, 83) == energy_mj(handle)
    unsupported = pynvml.nvmlDeviceGetFieldValues(handle, [(186, 2), (12345, 0)])
    assert [value.nvmlReturn for value in unsupported] == [NOT_SUPPORTED, NOT_SUPPORTED]


def test_the_sample_buffer_covers_the_past_in_wall_clock_time(card):
    driver, handle = card(Curve("square", lo_w=100, hi_w=300, period_s=0.08), ring_period_s=0.02, ring_samples=10)
    time.sleep(0.3)
    _, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    stamps = [sample.timeStamp / 1e6 for sample in samples]
    assert len(samples) == 10
    assert 0 <= time.time() - stamps[-1] < 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    assert gaps == pytest.approx([0.02] * 9, abs=1e-3)
    covered_j = sum(sample.sampleValue.uiVal for sample in samples) / 1000 * 0.02
    end = stamps[-1] - time.time() + time.monotonic()
    assert covered_j == pytest.approx(driver.joules(end - 0.2, end), abs=0.5)
    newer = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, samples[6].timeStamp + 1000)[1]
    assert 3 <= len(newer) <= 10


def test_two_cards_have_their_own_curves_and_settings(card):
    driver, first = card(Curve(hi_w=100), Curve(hi_w=200), tick_s=0, average_window_s=0.01)
    second = pynvml.nvmlDeviceGetHandleByUUID(driver.uuid(1))
    driver.set(1, lost="0", name="Other")
    assert pynvml.nvmlDeviceGetCount() == 2
    assert pynvml.nvmlDeviceGetName(first) == "Fake GPU"
    assert code_of(pynvml.nvmlDeviceGetName, second) == GPU_IS_LOST
    driver.set(1, lost=None)
    assert (pynvml.nvmlDeviceGetName(second), pynvml.nvmlDeviceGetUUID(second)) == ("Other", driver.uuid(1))
    time.sleep(0.25)
    assert pynvml.nvmlDeviceGetPowerUsage(first) == 100_000
    assert pynvml.nvmlDeviceGetPowerUsage(second) == 200_000


def test_reset_starts_the_counter_again(card):
    driver, handle = card(Curve(hi_w=100), tick_s=0, base_j=500)
    before = energy_mj(handle)
    driver.set(reset=driver.now_s())
    time.sleep(0.05)
    assert before >= 500_000
    assert 5_000 <= energy_mj(handle) < 50_000


def test_stale_then_fresh(card):
    driver, handle = card(Curve(hi_w=100), tick_s=0.01)
    until_s = driver.now_s() + 0.3
    driver.set(stale=f"{driver.now_s()}/{until_s}")
    held = energy_mj(handle)
    time.sleep(0.05)
    assert energy_mj(handle) == held
    time.sleep(until_s - driver.now_s())
    assert energy_mj(handle) >= held + 20_000


def test_lost_then_back(card):
    driver, handle = card()
    driver.set(lost=f"{driver.now_s()}/{driver.now_s() + 0.3}")
    calls = (energy_mj, pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetName)
    assert [code_of(call, handle) for call in calls] == [GPU_IS_LOST] * 3
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 0) == GPU_IS_LOST
    time.sleep(0.31)
    assert [code_of(call, handle) for call in calls] == [0] * 3


def test_single_calls_can_fail_for_a_time(card):
    driver, handle = card()
    now = driver.now_s()
    for_a_time = f"nvmlDeviceGetTotalEnergyConsumption:3@{now}/{now + 0.3}"
    driver.set(fail=f"nvmlDeviceGetPowerUsage:{NO_PERMISSION},{for_a_time},field186.0:3")
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle) == NO_PERMISSION
    assert code_of(energy_mj, handle) == NOT_SUPPORTED
    assert [value.nvmlReturn for value in pynvml.nvmlDeviceGetFieldValues(handle, [186, 185])] == [NOT_SUPPORTED, 0]
    time.sleep(0.31)
    assert code_of(energy_mj, handle) == 0


def test_pascal_has_power_but_no_counter(card):
    _, handle = card(arch=4)
    assert code_of(energy_mj, handle) == NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetFieldValues(handle, [191])[0].nvmlReturn == NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetPowerUsage(handle) > 0


def test_zero_readings_and_garbage(card):
    driver, handle = card(Curve(lo_w=300), power_period_s=0.01, ring_period_s=0.01, zero_every=4)
    end, seen = time.monotonic() + 0.2, set()
    while time.monotonic() < end:
        seen.add(pynvml.nvmlDeviceGetPowerUsage(handle))
    assert seen == {0, 300_000}
    _, ring = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    assert {sample.sampleValue.uiVal for sample in ring} == {0, 300_000}
    driver.set(zero_every=None, zero="0")
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == field(handle, 186) == 0
    driver.set(zero=None, garbage="0")
    assert energy_mj(handle) == 2**64 - 1
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 2**32 - 1


def test_slow_calls_take_their_time(card):
    _, handle = card(slow="nvmlDeviceGetPowerUsage:0.05")
    begin = time.monotonic()
    pynvml.nvmlDeviceGetPowerUsage(handle)
    assert 0.05 <= time.monotonic() - begin < 20, "0.05 is seconds, not milliseconds or minutes"


def test_gains_part_counter_and_power(card):
    _, handle = card(Curve(lo_w=200, hi_w=200), power_gain=0.5, counter_gain=2, base_j=100, tick_s=100)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    assert energy_mj(handle) == 200_000


def test_throttling_shows_in_clock_reason_and_time(card):
    driver, handle = card()
    free_mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    driver.set(throttle=f"{driver.now_s()}", throttle_policy=1)
    time.sleep(0.05)
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) < free_mhz
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == pynvml.nvmlClocksEventReasonSwThermalSlowdown
    thermal = pynvml.nvmlDeviceGetViolationStatus(handle, pynvml.NVML_PERF_POLICY_THERMAL).violationTime
    assert 50e6 <= thermal < 500e6
    assert pynvml.nvmlDeviceGetViolationStatus(handle, pynvml.NVML_PERF_POLICY_POWER).violationTime == 0


def test_foreign_processes(card):
    driver, handle = card()
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    driver.set(processes="4242:300,self:500")
    running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    found = {process.pid: process.usedGpuMemory >> 20 for process in running}
    assert found.pop(4242) == 300
    assert list(found.values()) == [500]
    driver.set(processes_at="1e6/1e7")
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []


def test_mig_slices_have_no_meter(card):
    _, handle = card(mig=2)
    assert pynvml.nvmlDeviceGetMigMode(handle) == [1, 1]
    piece = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 1)
    assert code_of(energy_mj, piece) == code_of(pynvml.nvmlDeviceGetPowerUsage, piece) == NOT_SUPPORTED
    uuid = pynvml.nvmlDeviceGetUUID(piece)
    assert uuid.startswith("MIG-")
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == uuid
    assert code_of(energy_mj, handle) == 0


def test_an_xid_error_is_told_once(card):
    driver, handle = card()
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    assert code_of(pynvml.nvmlEventSetWait_v2, events, 5) == pynvml.NVML_ERROR_TIMEOUT
    driver.set(xid=driver.now_s())
    assert pynvml.nvmlEventSetWait_v2(events, 5).eventData == 79
    assert code_of(pynvml.nvmlEventSetWait_v2, events, 5) == pynvml.NVML_ERROR_TIMEOUT
    pynvml.nvmlEventSetFree(events)


def test_identity(card):
    _, handle = card(driver="570.1", power_limit_w=350, ecc=1)
    assert pynvml.nvmlSystemGetDriverVersion() == "570.1"
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 350_000
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 700_000
    assert pynvml.nvmlDeviceGetPciInfo(handle).busId == "00000000:10:00.0"
    assert pynvml.nvmlDeviceGetEccMode(handle) == [1, 1]
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == 80 << 30


def test_driver_not_loaded_and_uninitialised(card):
    _, handle = card()
    pynvml.nvmlShutdown()
    assert code_of(energy_mj, handle) == pynvml.NVML_ERROR_UNINITIALIZED
    driver, _ = card(fail="")
    driver.set(fail=f"nvmlInit:{DRIVER_NOT_LOADED}")
    assert code_of(pynvml.nvmlInit) == DRIVER_NOT_LOADED


def test_no_settings_no_phantom_card(card, monkeypatch):
    card()
    monkeypatch.setenv("FAKE_NVML", "")
    assert code_of(pynvml.nvmlInit) == DRIVER_NOT_LOADED


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="lots"):
        FakeDriver(shared_library(), lots=1)


def test_the_process_is_left_as_it_was():
    before = pynvml.nvmlLib
    with FakeDriver(shared_library()):
        assert pynvml.nvmlLib is not before
        pynvml.nvmlInit()
    assert pynvml.nvmlLib is before


def test_a_load_that_changes_now_leaves_the_past(card):
    driver, handle = card(Curve("steps", lo_w=50), tick_s=0, base_j=0)
    begin = time.monotonic()
    driver.load(400)
    time.sleep(0.05)
    driver.load(50)
    end = time.monotonic()
    assert 20 <= driver.joules(begin, end) < 60
    shown_j, now = energy_mj(handle) / 1000, time.monotonic()
    assert shown_j == pytest.approx(driver.joules(driver.t0_s, now), abs=1)


def test_a_fresh_process_sees_the_same_card(card):
    driver, handle = card(Curve("sine"), tick_s=100, base_j=1234)
    code = (
        "import pynvml as n; n.nvmlInit(); handle = n.nvmlDeviceGetHandleByIndex(0)\n"
        "print(n.nvmlDeviceGetTotalEnergyConsumption(handle))"
    )
    done = run_python(code, driver)
    assert (done.stderr, done.stdout.strip()) == ("", str(energy_mj(handle)))
