"""Windows: exceptions, nesting, pauses, threads, clock steps and the order of synchronising (points 13, 14, 16, 18,
19)."""

from __future__ import annotations

import math
import threading

import pytest
from energy_fakes import Curve, FakeGpu, constant, device_of

from benchmark.energy import EnergyTracer


def fail_after(clock, seconds: float, error: BaseException) -> None:
    clock.sleep(seconds)
    raise error


def test_an_exception_inside_a_stage_leaves_a_reading(traced, clock):
    tracer, _ = traced(constant(200))
    window = tracer.window("w")
    with pytest.raises(ValueError, match="the work's own"), window:
        fail_after(clock, 12.0, ValueError("the work's own"))
    assert window.reading.joules == pytest.approx(2400, rel=0.01)
    assert window.reading.provenance["status"] == "the work raised ValueError: the work's own"
    assert not clock.tickers


def test_an_interrupt_passes_through(traced, clock):
    tracer, _ = traced(constant(200))
    window = tracer.window("w")
    with pytest.raises(KeyboardInterrupt), window:
        fail_after(clock, 12.0, KeyboardInterrupt())
    assert window.reading.joules == pytest.approx(2400, rel=0.01)
    assert not clock.tickers


def test_an_exception_inside_the_tracer_never_reaches_the_work(traced, clock):
    tracer, gpu = traced(constant(200))
    with tracer.window("w") as window:
        clock.sleep(2.0)
        gpu.raises = ZeroDivisionError("a bug in the tracer")
        clock.sleep(2.0)
        with window.paused():
            clock.sleep(1.0)
        window.peek()
    assert math.isnan(window.reading.joules)
    assert window.reading.grade == "X"
    assert "ZeroDivisionError" in window.reading.reason


def test_a_failing_synchronize_is_no_energy_and_no_crash(clock):
    def broken() -> None:
        raise RuntimeError("device-side assert")

    tracer = EnergyTracer(device_of(FakeGpu(clock, constant(200))), clock=clock, synchronize=broken)
    with tracer.window("w") as window:
        clock.sleep(2.0)
    assert "synchronize failed" in window.reading.reason
    assert math.isnan(window.reading.joules)


def test_close_ends_open_windows(traced, clock):
    tracer, _ = traced(constant(200))
    window = tracer.window("w")
    window.__enter__()
    clock.sleep(12.0)
    tracer.close()
    tracer.close()
    assert window.reading.joules == pytest.approx(2400, rel=0.01)
    assert "closed by the tracer's end" in window.reading.provenance["status"]
    assert not clock.tickers


def test_parent_is_its_children_plus_the_rest(traced, clock):
    tracer, _ = traced(Curve([(0, 100), (40, 500)]))
    with tracer.window("parent") as parent:
        for _ in range(2):
            clock.sleep(3.0)
            with tracer.window("same name") as child:
                clock.sleep(5.0)
                with tracer.window("grandchild"):
                    clock.sleep(2.0)
        clock.sleep(1.0)
    reading = parent.reading
    assert [name for name, _ in reading.children] == ["same name", "same name"]
    assert math.fsum(j for _, j in reading.children) + reading.self_joules == pytest.approx(reading.joules, rel=1e-12)
    assert reading.self_joules > 0
    assert child.reading.children[0][0] == "grandchild"
    assert child.reading.provenance["parent"] == "parent"


def test_pauses_are_taken_off_every_window_around_them(traced, clock):
    tracer, _ = traced(constant(200))
    with tracer.window("outer") as outer, tracer.window("inner") as inner:
        clock.sleep(6.0)
        with inner.paused():
            clock.sleep(3.0)
            with inner.paused():  # a pause inside a pause is the same pause
                clock.sleep(1.0)
            with tracer.window("while paused"):
                clock.sleep(2.0)
        clock.sleep(6.0)
    for window in (outer, inner):
        assert window.reading.joules == pytest.approx(2400, rel=0.01)
        assert window.reading.paused_seconds == pytest.approx(6.0, rel=1e-6)
        assert window.reading.paused_joules == pytest.approx(1200, rel=0.01)
        assert window.reading.seconds == pytest.approx(12.0, rel=1e-6)
    assert inner.reading.children == ()  # its joules are not in the useful ones, so they are not taken off them
    assert outer.reading.self_joules == pytest.approx(0, abs=1e-6)


def test_a_pause_that_an_exception_ends(traced, clock):
    tracer, _ = traced(constant(200))
    with tracer.window("w") as window:
        clock.sleep(6.0)
        with pytest.raises(OSError, match="disk full"), window.paused():
            fail_after(clock, 3.0, OSError("disk full"))
        clock.sleep(6.0)
    assert window.reading.joules == pytest.approx(2400, rel=0.01)


def test_pause_energy_has_its_share_of_the_uncertainty(traced, clock):
    widths = []
    for pauses in (0, 9):
        tracer, _ = traced(Curve([(0, 100), (1000, 600)]))
        with tracer.window("w") as window:
            for _ in range(pauses):
                clock.sleep(2.0)
                with window.paused():
                    clock.sleep(0.1)
            clock.sleep(30.0 - 2.0 * pauses)
        widths.append(window.reading.ci95_joules)
    assert widths[1] > 2 * widths[0]


def test_overlapping_and_out_of_order_windows(traced, clock):
    tracer, _ = traced(constant(100))
    with tracer.window("all") as outer:
        first, second = tracer.window("first"), tracer.window("second")
        first.__enter__()
        clock.sleep(2.0)
        second.__enter__()
        clock.sleep(2.0)
        first.__exit__(None, None, None)
        clock.sleep(2.0)
        second.__exit__(None, None, None)
        clock.sleep(6.0)
    assert first.reading.joules == pytest.approx(400, rel=0.02)
    assert second.reading.joules == pytest.approx(400, rel=0.02)
    # the second overlaps the first: counting both as children would count two seconds twice
    assert [name for name, _ in outer.reading.children] == ["first"]
    assert outer.reading.self_joules == pytest.approx(1200 - 400, rel=0.02)


def test_a_window_opens_once(traced, clock):
    tracer, _ = traced(constant(100))
    with tracer.window("w") as window:
        clock.sleep(1.0)
    with pytest.raises(RuntimeError, match="opened before"):
        window.__enter__()
    with pytest.raises(RuntimeError, match="no reading before"):
        _ = tracer.window("new").reading


def test_peek_tells_joules_so_far_and_watts_now(traced, clock):
    tracer, gpu = traced(constant(200))
    with tracer.window("w") as window:
        assert all(math.isnan(value) or value >= 0 for value in window.peek())
        clock.sleep(10.0)
        calls = len(gpu.calls)
        joules, watts = window.peek()
        assert len(gpu.calls) == calls  # it reads no device
        assert joules == pytest.approx(2000, rel=0.02)
        assert watts == pytest.approx(200)
        with window.paused():
            clock.sleep(5.0)
            assert window.peek()[0] == pytest.approx(2000, rel=0.02)
    assert window.peek()[0] == window.reading.joules


def test_threads_may_open_windows_at_once(clock):
    """Real threads, a real clock, a fake GPU: every window gets its own mark and its own parent."""

    class Steady(FakeGpu):
        def _enter(self, name: str) -> float:
            return 0.0

        def energy_mj(self) -> int:
            import time

            return int(time.monotonic() // 0.02 * 0.02 * 200_000)

        def power_mw(self, source: str) -> int:
            return 200_000

    tracer = EnergyTracer(device_of(Steady(clock, constant(200))), synchronize=lambda: None)
    readings, errors = {}, []

    def work(number: int) -> None:
        try:
            with tracer.window(f"outer {number}") as outer:
                with tracer.window(f"inner {number}") as inner:
                    threading.Event().wait(0.25)
                threading.Event().wait(0.05)
            readings[number] = (outer.reading, inner.reading)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    assert sum(t.name == "energy-sampler" for t in threading.enumerate()) == 1
    for thread in threads:
        thread.join()
    assert not errors
    for number, (outer, inner) in readings.items():
        assert [name for name, _ in outer.children] == [f"inner {number}"]
        assert outer.joules == pytest.approx(200 * outer.seconds, rel=0.1)
        assert inner.joules == pytest.approx(200 * inner.seconds, rel=0.1)
    assert not any(t.name == "energy-sampler" for t in threading.enumerate())


def test_a_step_of_the_wall_clock_changes_nothing(traced, clock):
    results = []
    for jump_us in (0, 3_600_000_000, -3_600_000_000):
        tracer, _ = traced(constant(200))
        with tracer.window("w", align=True) as window:
            clock.sleep(5.0)
            clock.wall_offset_us += jump_us
            clock.sleep(6.0)
        results.append((window.reading.joules, window.reading.seconds))
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    assert results[2] == pytest.approx(results[0], rel=1e-4)


class Queue:
    """An asynchronous device: work is queued at once and draws power until synchronize() has waited for it."""

    def __init__(self, clock, curve: Curve) -> None:
        self.clock, self.curve, self.busy_until = clock, curve, 0.0

    def launch(self, seconds: float) -> None:
        start = max(self.clock.t, self.busy_until)
        self.busy_until = start + seconds
        self.curve.knots += [(start, 60.0), (start, 300.0), (self.busy_until, 300.0), (self.busy_until, 60.0)]

    def synchronize(self) -> None:
        self.clock.sleep(max(0.0, self.busy_until - self.clock.t))


def test_queued_work_is_waited_for_before_the_last_reading(traced, clock):
    curve = Curve([(0.0, 60.0)])
    queue = Queue(clock, curve)
    tracer, _ = traced(curve, synchronize=queue.synchronize)
    clock.sleep(1.0)
    queue.launch(2.0)  # somebody else's work, queued before the window: it must not be in it
    with tracer.window("ours", align=True) as window:
        queue.launch(11.0)
    assert window.reading.joules == pytest.approx(300 * 11.0, rel=2e-3)
    assert window.reading.seconds == pytest.approx(11.0, rel=1e-3)


def test_the_papers_order_loses_the_queued_work(traced, clock):
    """Appendix B stops the tracer before it synchronises: everything still queued is lost."""
    curve = Curve([(0.0, 60.0)])
    queue = Queue(clock, curve)
    tracer, _ = traced(curve)  # its synchronize does nothing: stop first ...
    clock.sleep(1.0)
    with tracer.window("paper") as window:
        queue.launch(11.0)
        clock.sleep(0.5)
    queue.synchronize()  # ... synchronise afterwards
    true = 300 * 11.0
    assert math.isnan(window.reading.joules) or window.reading.joules < 0.1 * true


def test_the_decorator_returns_the_result_and_the_reading(traced, clock):
    tracer, _ = traced(constant(200))

    @tracer.trace(mode="distillation")
    def train(n: int, *, more: int = 0) -> int:
        """Docs stay."""
        clock.sleep(12.0)
        return n + more

    result, reading = train(1, more=2)
    assert result == 3
    assert reading.name == "distillation"
    assert reading.joules == pytest.approx(2400, rel=0.01)
    assert train.__doc__ == "Docs stay."
