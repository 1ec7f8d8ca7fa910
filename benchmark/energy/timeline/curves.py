"""Energy as a function of time, from readings that grow as a run goes on. Pure arithmetic, no device, no clock.

Times are monotonic nanoseconds, energies joules, powers watts. Each curve answers `energy_at(t)`; a window's energy is
a difference of two such values, so neighbouring windows add up and a parent is its children plus the rest.
"""

from __future__ import annotations

import itertools
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from benchmark.energy.timeline.thinning import SLOT_NS, kept

NEWEST = 1000
"""So many readings show a period; older ones may have been thinned."""
S = 1e-9
"""Seconds per nanosecond."""


class PowerCurve:
    """Power samples joined by straight lines, held flat beyond the ends. No sample is ever dropped for being equal to
    the last."""

    def __init__(self) -> None:
        self.t = array("q")
        self.w = array("d")
        self._cum = array("d")
        self.thinned_ns = 0
        """What is older was thinned: the distance of two samples there says nothing about gaps."""
        self._silences: list[tuple[int, int]] = []
        """Gaps in what was thinned."""

    def add(self, t_ns: int, watts: float) -> None:
        """Append a sample; samples must come in order of time (an older one is dropped: it could only be a driver's
        repetition)."""
        if self.t:
            if t_ns < self.t[-1]:
                return
            self._cum.append(self._cum[-1] + 0.5 * (self.w[-1] + watts) * (t_ns - self.t[-1]) * S)
        else:
            self._cum.append(0.0)
        self.t.append(t_ns)
        self.w.append(watts)

    def energy_at(self, t_ns: int) -> float:
        """Joules since the first sample (negative before it); NaN without samples."""
        if not self.t:
            return math.nan
        i = bisect_right(self.t, t_ns) - 1
        if i < 0:
            return -self.w[0] * (self.t[0] - t_ns) * S
        dt = (t_ns - self.t[i]) * S
        if i == len(self.t) - 1:
            return self._cum[i] + self.w[i] * dt
        return self._cum[i] + 0.5 * (self.w[i] + self.power_at(t_ns)) * dt

    def power_at(self, t_ns: int) -> float:
        """Watts by linear interpolation, held beyond the ends; NaN without samples."""
        if not self.t:
            return math.nan
        i = bisect_right(self.t, t_ns) - 1
        if i < 0:
            return self.w[0]
        if i == len(self.t) - 1 or self.t[i + 1] == self.t[i]:
            return self.w[i]
        share = (t_ns - self.t[i]) / (self.t[i + 1] - self.t[i])
        return self.w[i] + (self.w[i + 1] - self.w[i]) * share

    def between(self, start_ns: int, end_ns: int) -> slice:
        """The samples inside [start, end]."""
        return slice(bisect_left(self.t, start_ns), bisect_right(self.t, end_ns))

    def gaps(self, start_ns: int, end_ns: int, longest_ns: float) -> Iterator[int]:
        """Lengths in ns of the spans inside [start, end] that no sample came for `longest_ns` or more, edges
        included."""
        for begin, end in self._silences:
            inside_ns = min(end, end_ns) - max(begin, start_ns)
            if inside_ns > longest_ns:
                yield inside_ns
        start_ns = max(start_ns, self.thinned_ns)
        if start_ns >= end_ns:
            return
        inside = self.between(start_ns, end_ns)
        marks = [start_ns, *self.t[inside], end_ns]
        # a sample just outside vouches for the edge as well as one on it
        if inside.start > 0 and start_ns - self.t[inside.start - 1] <= longest_ns:
            marks[0] = min(start_ns, marks[1])
        for before, after in itertools.pairwise(marks):
            if after - before > longest_ns:
                yield after - before

    def thin(self, until_ns: int, edges: Sequence[int]) -> None:
        """Keep of what is older one sample in a slot, the largest, and all around the edges; energies stay as they
        are."""
        low, high = bisect_left(self.t, self.thinned_ns), bisect_left(self.t, until_ns)
        if high - low < 2:
            return
        pairs = itertools.pairwise(self.t[max(0, low - 1) : high])
        self._silences += [(a, b) for a, b in pairs if b - a > SLOT_NS // 2]
        peak = max(range(low, high), key=self.w.__getitem__)
        stay = sorted({*kept(self.t, low, high, edges), peak, high - 1})
        self.t = self.t[:low] + array("q", [self.t[i] for i in stay]) + self.t[high:]
        self.w, self._cum = (
            column[:low] + array("d", [column[i] for i in stay]) + column[high:] for column in (self.w, self._cum)
        )
        self.thinned_ns = until_ns


class CounterCurve:
    """A cumulative energy counter that jumps at ticks: straight lines between the ticks, the last slopes beyond them.

    A tick lies between the last read of the old value and the first read of the new one: `half_width` says how far
    apart those were.
    """

    SLOPE_NS = 500_000_000
    """Slopes beyond the ends are taken over at least this long, so that the jitter of one tick's stamp does not tilt
    them."""

    LONGEST_TICK_NS = 120_000_000
    """Parts tick every 20 to 100 ms; a longer tick shows itself by standing still for longer."""

    def __init__(self, stale_s: float = 0.5, most_w: float = math.inf) -> None:
        self.t = array("q")
        self.j = array("d")
        self.half_width = array("q")
        self.most_w = most_w
        """No board draws more: a tick that says so is a jump, and no energy."""
        self.jumps: list[tuple[int, int]] = []
        self.tick_period_ns: int | None = None
        self.resets: list[tuple[int, int]] = []
        self.stale: list[tuple[int, int]] = []
        self.first: tuple[int, float] | None = None
        self.reads = 0
        self._stale_ns = int(stale_s * 1e9)
        self._last: tuple[int, float] | None = None
        self._last_begin_ns = 0
        self._changed_ns = 0
        self._not_before_ns = 0
        """The last tick came after this time."""
        self._longest_still_ns = 0

    def add(self, t_ns: int, joules: float, call_ns: int = 0) -> bool:
        """Append a read, whose call lasted `call_ns` around `t_ns`; True if the counter moved since the last one."""
        self.reads += 1
        begin_ns, end_ns = t_ns - call_ns // 2, t_ns + call_ns // 2  # the driver looked somewhere between them
        moved = False
        if self._last is None:
            self.first = (t_ns, joules)
            self._changed_ns = end_ns
            self._not_before_ns = begin_ns - self.LONGEST_TICK_NS
        else:
            before = self._last[1]
            moved = joules != before
            if joules < before:
                self._reset(self._last[0], t_ns, joules)
            elif moved:
                self._judge_step(end_ns, joules - before)
                self._tick(self._last_begin_ns, end_ns, joules)
            else:
                self._still(self._last[0], begin_ns)
        if moved:
            self._changed_ns, self._not_before_ns = end_ns, self._last_begin_ns
        self._last, self._last_begin_ns = (t_ns, joules), begin_ns
        return moved

    def _judge_step(self, now_ns: int, step_j: float) -> None:
        """A step that no board can have drawn since the tick before is a jump of the counter."""
        if step_j > self.most_w * (now_ns - self._not_before_ns) * S:
            self.jumps.append((self._last_begin_ns, now_ns))

    def _tick(self, before_ns: int, now_ns: int, joules: float) -> None:
        # after a gap in the reads the tick is still no older than one period
        low = max(before_ns, now_ns - (self.tick_period_ns or max(self.LONGEST_TICK_NS, self._longest_still_ns)))
        self.t.append((low + now_ns) // 2)
        self.half_width.append((now_ns - low) // 2)
        self.j.append(joules)

    def _reset(self, before_ns: int, now_ns: int, joules: float) -> None:
        """The counter fell: whatever crosses this moment is lost; what comes after starts from nothing."""
        self.resets.append((before_ns, now_ns))
        del self.t[:], self.j[:], self.half_width[:]
        self.first = (now_ns, joules)

    def _still(self, before_ns: int, now_ns: int) -> None:
        if now_ns - before_ns < self.LONGEST_TICK_NS:  # only close reads show that it stood still between them
            self._longest_still_ns = max(self._longest_still_ns, min(now_ns - self._changed_ns, self._stale_ns))
        if now_ns - self._changed_ns > self._stale_ns:
            self._grow_stale(now_ns)

    def _grow_stale(self, now_ns: int) -> None:
        if self.stale and self.stale[-1][0] == self._changed_ns:
            self.stale[-1] = (self._changed_ns, now_ns)
        else:
            self.stale.append((self._changed_ns, now_ns))

    @property
    def last_read(self) -> tuple[int, float] | None:
        """(time, joules) of the newest read."""
        return self._last

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """How many ticks were seen inside [start, end]."""
        return bisect_right(self.t, end_ns) - bisect_left(self.t, start_ns)

    def thin(self, until_ns: int, edges: Sequence[int]) -> None:
        """Keep of what is older one tick in a slot, and all around the edges; energies there stay as they are."""
        high = bisect_left(self.t, until_ns)
        stay = kept(self.t, 0, high, edges)
        self.t, self.half_width = (
            array("q", [column[i] for i in stay]) + column[high:] for column in (self.t, self.half_width)
        )
        self.j = array("d", [self.j[i] for i in stay]) + self.j[high:]

    def bracket_s(self, t_ns: int) -> float:
        """Seconds between the ticks around `t_ns`, beyond the ends those to the nearest tick: how far the energy at
        that time rests on a straight line; NaN without ticks."""
        if not self.t:
            return math.nan
        i = bisect_right(self.t, t_ns)
        if 0 < i < len(self.t):
            return (self.t[i] - self.t[i - 1]) * S
        return abs(t_ns - self.t[0 if i == 0 else -1]) * S

    def _slope(self, i: int, step: int) -> float:
        """Watts over at least SLOPE_NS of ticks from tick `i` in direction `step`; NaN with one tick."""
        k = i + step
        while 0 <= k + step < len(self.t) and abs(self.t[k] - self.t[i]) < self.SLOPE_NS:
            k += step
        if not 0 <= k < len(self.t) or self.t[k] == self.t[i]:
            return math.nan
        return (self.j[k] - self.j[i]) / ((self.t[k] - self.t[i]) * S)

    def energy_at(self, t_ns: int) -> float:
        """Joules on the counter's own scale; NaN with fewer than two ticks."""
        n = len(self.t)
        if n < 2:
            return math.nan
        i = bisect_right(self.t, t_ns) - 1
        if i < 0:
            back = self.j[0] - self._slope(0, 1) * (self.t[0] - t_ns) * S
            # the counter cannot have been below what it showed when it was first read
            return max(back, self.first[1]) if self.first is not None and t_ns >= self.first[0] else back
        if i == n - 1:
            return self.j[i] + self._slope(i, -1) * (t_ns - self.t[i]) * S
        span = self.t[i + 1] - self.t[i]
        return self.j[i] + (self.j[i + 1] - self.j[i]) * (t_ns - self.t[i]) / span

    def stamp_sd_s(self, t_ns: int) -> float:
        """Standard uncertainty in seconds of the tick stamps around `t_ns`: uniform over where the tick can have been.

        Beyond the first and last tick the line goes on with a slope that two such stamps tilt, so it grows with the
        distance.
        """
        if not self.t:
            return math.nan
        # A tick lies anywhere within its half width: sd = half width / sqrt(3). Beyond the ends both stamps of the
        # slope count, over a base of SLOPE_NS, so their error grows in proportion to the distance.
        i = min(max(bisect_right(self.t, t_ns) - 1, 0), len(self.t) - 1)
        beyond = max(0, self.t[0] - t_ns, t_ns - self.t[-1])
        return self.half_width[i] * S / math.sqrt(3) * (1 + 2 * beyond / self.SLOPE_NS)

    def tick_s(self, start_ns: int, end_ns: int) -> float:
        """The counter's tick in seconds: as told, else the median distance of the newest thousand ticks inside [start,
        end]; NaN below two."""
        if self.tick_period_ns is not None:
            return self.tick_period_ns * S
        ticks = self.t[bisect_left(self.t, start_ns) : bisect_right(self.t, end_ns)][-NEWEST:]
        steps = sorted(b - a for a, b in itertools.pairwise(ticks))
        return steps[len(steps) // 2] * S if steps else math.nan


class TotalCurve:
    """A meter that already counts joules (RAPL, the estimate): straight lines between its reads."""

    def __init__(self) -> None:
        self.t = array("q")
        self.j = array("d")

    def add(self, t_ns: int, joules: float) -> None:
        """Append a read; NaN stays NaN for everything after it."""
        if self.t and t_ns < self.t[-1]:
            return
        self.t.append(t_ns)
        self.j.append(joules)

    def energy_at(self, t_ns: int) -> float:
        """Joules by linear interpolation, held beyond the ends; NaN without reads."""
        if not self.t:
            return math.nan
        i = bisect_right(self.t, t_ns) - 1
        if i < 0:
            return self.j[0]
        if i == len(self.t) - 1 or self.t[i + 1] == self.t[i]:
            return self.j[i]
        return self.j[i] + (self.j[i + 1] - self.j[i]) * (t_ns - self.t[i]) / (self.t[i + 1] - self.t[i])

    def reads_between(self, start_ns: int, end_ns: int) -> int:
        """How many reads came inside [start, end]."""
        return bisect_right(self.t, end_ns) - bisect_left(self.t, start_ns)

    def known_between(self, start_ns: int, end_ns: int) -> bool:
        """Whether every read inside [start, end] gave a number."""
        return not any(map(math.isnan, self.j[bisect_left(self.t, start_ns) : bisect_right(self.t, end_ns)]))

    def max_power(self, start_ns: int, end_ns: int, shortest_ns: int = 200_000_000) -> float:
        """The largest mean power in watts between reads at least `shortest_ns` apart (the whole window if it is
        shorter); NaN if unknown."""
        low, high = bisect_left(self.t, start_ns), bisect_right(self.t, end_ns)
        best, anchor = math.nan, low
        for i in range(low, high):
            dt = self.t[i] - self.t[anchor]
            if dt >= shortest_ns or (i == high - 1 and math.isnan(best) and dt > 0):
                watts = (self.j[i] - self.j[anchor]) / (dt * S)
                best = watts if math.isnan(best) else max(best, watts)
                anchor = i
        return best

    def still_s(self, start_ns: int, end_ns: int) -> float:
        """The longest time in seconds between reads around [start, end] over which the meter did not move."""
        low, high = max(0, bisect_right(self.t, start_ns) - 1), bisect_left(self.t, end_ns) + 1
        longest_ns, since = 0, low
        for i in range(low + 1, min(high, len(self.t))):
            if self.j[i] != self.j[since]:
                since = i
            longest_ns = max(longest_ns, self.t[i] - self.t[since])
        return longest_ns * S
