"""What a stage function is given (`Bench`), and the account of what the stage spent: useful, lost, and lost for
certain.

A stage may need several attempts. Each attempt keeps a journal under results/attempts (joules so far, every few
seconds); a
checkpoint holds, beside the state, how many joules of each attempt went into it. When the stage is done,
useful = what the resumed checkpoint had cost + what this attempt spent since; repeated = everything else that was
spent.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.errors import UserError
from benchmark.plan.stage import Cost
from benchmark.records.files import replace
from benchmark.records.provenance import now
from benchmark.records.store import Store
from benchmark.run.progress import Progress, Spending

if TYPE_CHECKING:
    from benchmark.energy import Device, EnergyTracer, Reading, Window

CHECKPOINT_S = 60.0
JOURNAL_S = 5.0
SHOW_S = 0.2


class CheckpointError(UserError):
    """What an interrupted stage left cannot be read; the message names the file."""


class Account(NamedTuple):
    """What something cost, over all its attempts, and how that is known: the energy columns of a record."""

    joules: float
    ci95_joules: float
    repeated_joules: float
    seconds: float
    source: str
    grade: str
    reason: str
    attempts: int
    reading: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        """As keyword arguments of a record."""
        return self._asdict()

    @classmethod
    def of_windows(cls, account: Mapping[str, Any]) -> Account:
        """The account of a measurement's windows, as benchmark.deploy.measure sums them up."""
        return cls(
            joules=_number(account["joules"]),
            ci95_joules=_number(account["ci95_joules"]),
            repeated_joules=0.0,
            seconds=account["seconds"],
            source=account["source"],
            grade=account["grade"],
            reason=account["reason"],
            attempts=1,
            reading=dict(account),
        )


class Workbench:
    """A stage's device, meter, checkpoints and progress line, for one attempt. Satisfies `plan.stage.Bench`."""

    def __init__(self, site: Site, key: str, tracer: EnergyTracer, progress: Progress) -> None:
        self.device = site.device.torch_name
        self.data_dir = site.data_dir
        self._site = site
        self._key = key
        self._tracer = tracer
        self._progress = progress
        self._window: Window | None = None
        self._id = uuid.uuid4().hex[:12]
        self._useful: dict[str, list[float]] = {}
        self._last_checkpoint = self._last_journal = self._began = time.monotonic()
        self._paused_s = self._last_shown = 0.0
        self._pause_began: float | None = None
        self._longest_gap_s = 0.0
        self._max_w = math.nan

    @contextlib.contextmanager
    def metered(self) -> Iterator[None]:
        """The one window of the stage: everything inside is on the meter."""
        with self._tracer.window(self._key or "measurement") as window:
            self._window = window
            self._began = time.monotonic()
            self._journal(closed=False)
            yield

    @property
    def reading(self) -> Reading:
        """What this attempt's window saw; there once it is closed, also after an exception."""
        assert self._window is not None, "the window was never opened"
        return self._window.reading

    # --- plan.stage.Bench -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take what happens inside off the meter."""
        assert self._window is not None, "paused() outside the stage"
        self._pause_began = time.monotonic()
        with self._window.paused():
            yield
        self._paused_s += time.monotonic() - self._pause_began
        self._pause_began = None

    def checkpoint(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write `state()` and the joules behind it in one file, when the last one is a minute old. Off the meter."""
        if time.monotonic() - self._last_checkpoint < CHECKPOINT_S:
            return
        import torch  # a stage that has a state has imported it already

        with self.paused():
            joules, _, seconds = self._peek()
            useful = {**self._useful, self._id: [joules, seconds]}
            content = io.BytesIO()
            torch.save({"state": dict(state()), "useful": useful}, content)
            replace(self._site.checkpoint(self._key), content.getvalue())
            self._journal(closed=False)
        self._last_checkpoint = time.monotonic()

    def resume(self) -> Mapping[str, Any] | None:
        """The state that an interrupted attempt left, or None. Raises CheckpointError where its file is damaged."""
        path = self._site.checkpoint(self._key)
        if not path.is_file():
            return None
        import torch

        try:
            left = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load fails in as many ways as a file can be damaged
            raise CheckpointError(
                f"checkpoint {path} is damaged ({error}): delete it to start the stage again"
            ) from error
        self._useful = left["useful"]
        state: Mapping[str, Any] = left["state"]
        return state

    def progress(self, done: float, total: float, **shown: float) -> None:
        """Show how far the stage is; every few seconds also write the journal."""
        now_s = time.monotonic()
        if not shown and now_s - self._last_shown < SHOW_S:
            return  # a training step may take less than looking at the meter
        self._last_shown = now_s
        joules, watts, _ = self._peek()
        self._max_w = watts if math.isnan(self._max_w) else max(self._max_w, watts)
        self._progress.update(done, total, shown, Spending(joules, watts))
        if now_s - self._last_journal >= JOURNAL_S:
            self._journal(closed=False)

    def once(self, what: str, decide: Callable[[], str]) -> str:
        """What was chosen on this machine about `what`, or, the first time, `decide()`."""
        machine, store = self._site.device.machine, self._site.store
        chosen = store.choice(machine, what)
        if chosen is None:
            store.add_choice(machine, what, decide())
            chosen = store.choice(machine, what)  # another process may have been quicker: its choice stands
        assert chosen is not None, "it was kept a line above"
        return chosen

    def cost(self, call: Callable[[], object], n: int) -> Cost:
        """Joules and seconds of one call: the mean over `n`, in a window of its own."""
        began = time.monotonic()
        with self._tracer.window("cost", align=True) as window:
            for _ in range(n):
                call()
            window.synchronize()
            # a load that beats with the power sensor is half invisible to it: the meter must know the beat
            window.step_period_s = (time.monotonic() - began) / n
        r = window.reading
        return Cost(r.joules / n, r.ci95_joules / n, r.seconds / n, n, r.source, r.grade, r.reason, r.to_json())

    # --- the account -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the journal with what the attempt really spent; for attempts that end early."""
        if self._window is not None:
            self._journal(closed=True)

    @property
    def spent_joules(self) -> float:
        """What this attempt's window saw; NaN where it was never opened."""
        return math.nan if self._window is None else self._window.reading.joules

    def account(self) -> Account:
        """The stage's account over all attempts, this finished one included."""
        reading = self.reading
        earlier = [a for a in self._site.store.attempts(self._site.device.machine, self._key) if a["id"] != self._id]
        kept = {name: joules for name, (joules, _) in self._useful.items()}
        repeated, reasons = 0.0, [reading.reason]
        for attempt in earlier:
            spent = _number(attempt["joules"])
            if not attempt["closed"]:
                tail = _number(attempt["max_w"]) * max(JOURNAL_S, 2 * attempt["longest_gap_s"])
                reasons.append(
                    f"attempt {attempt['id']} was killed: up to {tail:.0f} J after its last journal are booked"
                )
                spent += tail
            repeated += spent - kept.get(attempt["id"], 0.0)
        useful = reading.joules + math.fsum(kept.values())
        return Account(
            joules=useful,
            # an earlier attempt's share was read by the same meter: it is as uncertain, in proportion
            ci95_joules=reading.ci95_joules * (useful / reading.joules if reading.joules else 1.0),
            repeated_joules=repeated,
            seconds=reading.seconds + math.fsum(seconds for _, seconds in self._useful.values()),
            source=reading.source,
            grade=reading.grade,
            reason="; ".join(filter(None, reasons)),
            attempts=len(earlier) + 1,
            reading=reading.to_json(),
        )

    def _peek(self) -> tuple[float, float, float]:
        """Useful joules, watts and seconds of this attempt so far."""
        if self._window is None:
            return math.nan, math.nan, 0.0
        joules, watts = self._window.peek()
        end = time.monotonic() if self._pause_began is None else self._pause_began
        return joules, watts, end - self._began - self._paused_s

    def _journal(self, closed: bool) -> None:
        if not self._key:
            return  # a measurement is no part of any life: nothing is booked for one that ended early
        now_s = time.monotonic()
        self._longest_gap_s = max(self._longest_gap_s, now_s - self._last_journal)
        self._last_journal = now_s
        joules, watts, seconds = (self.reading.joules, math.nan, self.reading.seconds) if closed else self._peek()
        entry = {
            "id": self._id,
            "key": self._key,
            "joules": _plain(joules),
            "max_w": _plain(self._max_w if math.isfinite(self._max_w) else watts),
            "seconds": seconds,
            "longest_gap_s": self._longest_gap_s,
            "at": now(),
            "closed": closed,
        }
        self._site.store.write_attempt(self._site.device.machine, self._key, entry)


@dataclass(frozen=True)
class Site:
    """Where stages are worked: the device, the store that keeps what comes of it, where data lie, and the rated power
    of a CPU without a meter (None: a stated assumption)."""

    device: Device
    store: Store
    data_dir: Path
    cpu_tdp_w: float | None = None

    def checkpoint(self, key: str) -> Path:
        """The file of an unfinished stage's state on this board."""
        return self.store.outputs.checkpoint(key, self.device.uuid)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
