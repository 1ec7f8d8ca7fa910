"""The line that shows how far a stage is: what it says on a terminal and in a pipe, and how long it thinks it will take."""

from __future__ import annotations

import io
import math

import pytest

from benchmark.run import progress
from benchmark.run.progress import Progress, Spending, clock

NOTHING = Spending(math.nan, math.nan)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch):
    """Sets the clock."""
    at = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: at[0])

    def set_to(seconds: float) -> None:
        at[0] = seconds

    return set_to


def _said(line: Progress) -> str:
    return line.stream.getvalue().splitlines()[-1]


def test_a_pipe_gets_a_line_now_and_then(now):
    line = Progress("base train", estimated=True, stream=io.StringIO())
    for second in range(0, 100):
        now(second)
        line.update(second, 100, {"loss": 4.25}, Spending(3600.0, 12.4))
    line.close("done")
    first, *middle, last = line.stream.getvalue().splitlines()
    assert (first, last) == ("base train ...", "base train done")
    assert len(middle) == 3, "every 30 s"
    assert middle[-1].endswith("90 % 90.0/100 loss 4.25, ~1 W.h spent at ~12 W, left 10 s")


def test_what_was_waited_for_before_the_work_took_none_of_its_time(now):
    """Else an hour in the queue for a device would foretell days."""
    line = Progress("infer", estimated=False, stream=io.StringIO())
    now(3600)
    line.update(0, 100, {}, NOTHING)
    now(3650)
    line.update(10, 100, {}, NOTHING)
    assert _said(line).endswith("energy unknown, left 7 min 30 s")


def test_what_was_resumed_took_none_of_this_time(now):
    line = Progress("base train", estimated=False, stream=io.StringIO())
    line.update(80, 100, {}, NOTHING)
    now(50)
    line.update(90, 100, {}, NOTHING)
    assert _said(line).endswith("left 50 s")


def test_before_anything_is_done_nobody_knows(now):
    line = Progress("base train", estimated=False, stream=io.StringIO())
    line.update(0, 100, {}, NOTHING)
    now(50)
    line.update(0, 100, {}, NOTHING)
    assert _said(line).endswith("left ?")


def test_a_moving_line_is_never_longer_than_its_terminal(now, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    line = Progress("a title that is far too long for so narrow a terminal", estimated=False, stream=Terminal())
    now(1)
    line.update(1, 2, {}, NOTHING)
    moving = line.stream.getvalue()
    assert moving.startswith("\r\x1b[2K")
    assert len(moving.removeprefix("\r\x1b[2K")) == 39
    line.close("done")
    assert line.stream.getvalue().endswith("so narrow a terminal done\n"), "the last line is whole"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7620, "2 h 07 min"), (math.nan, "?")],
)
def test_durations_are_said_for_people(seconds, told):
    assert clock(seconds) == told
