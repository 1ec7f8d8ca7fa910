"""What a stage function is given (`Bench`): a meter, checkpoints, a progress line; and the journal of one attempt."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.errors import UserError
from benchmark.plan.stage import Cost
from benchmark.records.files import StoreError, replace
from benchmark.records.provenance import now
from benchmark.records.store import Store
from benchmark.run.account import JOURNAL_S, Account, Earlier, Share, earlier_attempts, known, repeated_joules
from benchmark.run.process import peak_memory
from benchmark.run.progress import Progress, Spending

if TYPE_CHECKING:
    from benchmark.energy import Device, EnergyTracer, Reading, Window

CHECKPOINT_S = 60.0
MEASURING = "inference"
"""The key of the journals of inference measurements, which belong to no stage until they are done."""
SHOW_S = 0.2


class Under(NamedTuple):
    """What an attempt runs under: it stands beside its energy, since a stage may be resumed under something else."""

    commit: str
    torch: str
    driver: str


class CheckpointError(UserError):
    """What an interrupted stage left cannot be read; the message names the file."""


class Workbench:
    """A stage's device, meter, checkpoints and progress line, for one attempt. Satisfies `plan.stage.Bench`."""

    def __init__(self, site: Site, key: str, tracer: EnergyTracer, progress: Progress, under: Under) -> None:
        self.device = site.device.torch_name
        self.data_dir = site.data_dir
        self._site = site
        self._key = key
        self._tracer = tracer
        self._progress = progress
        self._window: Window | None = None
        self._under = under
        self._id = uuid.uuid4().hex[:12]
        self._resumed: dict[str, Share] = {}
        # read now: damage must be known before the stage runs, not after it
        self._earlier = self._leftovers()
        self._last_checkpoint = self._last_journal = self._began = time.monotonic()
        self._paused_s = self._last_shown = 0.0
        self._pause_began: float | None = None
        self._longest_gap_s = 0.0
        self._max_w = math.nan
        self._peak: dict[str, int] = {}

    @contextlib.contextmanager
    def metered(self) -> Iterator[None]:
        """The one window of the stage: everything inside is on the meter."""
        if self._key == MEASURING:
            self._earlier = self._leftovers()  # again: another process may have measured while this one waited
        self._window = self._tracer.window(self._key)
        with peak_memory(self.device) as self._peak, self._window:
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
        began = self._pause_began = time.monotonic()
        try:
            with self._window.paused():
                yield
        finally:
            self._paused_s += time.monotonic() - began
            self._pause_began = None

    def checkpoint(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write `state()` and the joules behind it in one file, when the last one is a minute old. Off the meter."""
        if time.monotonic() - self._last_checkpoint < CHECKPOINT_S:
            return
        import torch  # a stage that has a state has imported it already

        with self.paused():
            assert self._window is not None, "checked by paused()"
            useful = {**self._resumed, self._id: Share.of(self._window.so_far(), self._under._asdict())}
            shares = {name: share.model_dump() for name, share in useful.items()}
            content = io.BytesIO()
            torch.save({"state": dict(state()), "useful": shares}, content)
            replace(self._site.checkpoint(self._key), content.getvalue())
            self._journal(closed=False)
        self._last_checkpoint = time.monotonic()

    def resume(self) -> Mapping[str, Any] | None:
        """The state that an interrupted attempt left, or None. Raises CheckpointError where its file is damaged.

        One that a recorded attempt left behind (it was killed before it could clean up) is removed: its joules are in
        that record.
        """
        path = self._site.checkpoint(self._key)
        if not path.is_file():
            return None
        import torch

        try:
            left = torch.load(path, map_location="cpu", weights_only=True)
            resumed = {str(name): Share.model_validate(share) for name, share in left["useful"].items()}
            state: Mapping[str, Any] = left["state"]
        except Exception as error:  # torch.load fails in as many ways as a file can be damaged
            why = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint {path} is damaged ({why}): delete it to start the stage again"
            ) from error
        if resumed.keys() & self._recorded():
            path.unlink(missing_ok=True)
            return None
        self._resumed = resumed
        epoch = state.get("epoch")
        where = f"at epoch {epoch}" if isinstance(epoch, int) else "from its checkpoint"
        self._progress.note(f"resumed {where}; what was spent until there counts as useful")
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
            # a load that keeps time with the power sensor is half invisible to it: the meter must know its period
            window.step_period_s = (time.monotonic() - began) / n
        r = window.reading
        return Cost(r.joules / n, r.ci95_joules / n, r.seconds / n, n, r.source, r.grade, r.reason, r.to_json())

    # --- the account -----------------------------------------------------------------------------------------------

    def close(self, status: str = "") -> str:
        """End an attempt early: close its window and its journal. Returns why that failed, if it did; never raises."""
        try:
            if self._window is not None:
                self._window.close(status)
                self._journal(closed=True)
        except (StoreError, RuntimeError) as error:
            return f"its journal cannot be written ({error}): what it spent is booked as an upper bound"
        return ""

    @property
    def begun(self) -> bool:
        """Whether this attempt's window was ever opened: before that it only waits."""
        return self._window is not None

    @property
    def resumable(self) -> bool:
        """Whether the next attempt goes on from a checkpoint."""
        return self._site.checkpoint(self._key).is_file()

    @property
    def spent_joules(self) -> float:
        """What this attempt's window saw; NaN where it was never opened or is open still."""
        return math.nan if self._window is None or not self._window.closed else self._window.reading.joules

    @property
    def ids(self) -> list[str]:
        """This attempt and those that its record will account for."""
        return [self._id, *self._earlier.attempts]

    def account(self) -> Account:
        """The stage's account over all attempts, this finished one included."""
        last = Share.of(self.reading, self._under._asdict())
        account = Account.of_attempts(self.reading, last, self._resumed, self._earlier)
        return account._replace(reading={**account.reading, **self._peak}) if self._peak else account

    def repeated(self) -> tuple[float, str]:
        """What attempts before this one spent for nothing, and what of that is not exactly known."""
        joules, reasons = repeated_joules(self._earlier)
        return joules, "; ".join(reasons)

    def forget(self) -> None:
        """Remove what this attempt and those before it left, once a record accounts for them. What cannot be removed
        stays: the record names the attempts, so nothing is booked twice."""
        machine, store = self._site.device.machine, self._site.store
        with contextlib.suppress(OSError):
            if self._key != MEASURING:
                self._site.checkpoint(self._key).unlink(missing_ok=True)
                store.clear_attempts(machine, self._key)
            else:
                store.clear_attempts(machine, self._key, self.ids)

    def _leftovers(self) -> Earlier:
        """The journals of earlier attempts, without those that are no attempt's at this: they belong to a record that
        was kept, or to measuring on another device."""
        machine, store = self._site.device.machine, self._site.store
        found = earlier_attempts(store, machine, self._key)
        if self._key == MEASURING:
            here = (os.uname().nodename, self._site.device.uuid)
            own = {name: a for name, a in found.attempts.items() if (a.host, a.device_uuid) == here}
            booked = store.booked_attempts(machine) if own else set()
            store.clear_attempts(machine, self._key, own.keys() & booked)
            own = {name: attempt for name, attempt in own.items() if name not in booked}
            return Earlier(own, ())
        recorded = found.attempts.keys() & self._recorded()
        if recorded:
            store.clear_attempts(machine, self._key, recorded)
            left = {name: attempt for name, attempt in found.attempts.items() if name not in recorded}
            return found._replace(attempts=left)
        return found

    def _recorded(self) -> set[str]:
        """The attempts at this stage that records account for."""
        records = self._site.store.copies_of(self._site.device.machine, self._key)
        return {str(name) for record in records for name in record.provenance.get("attempt_ids", ())}

    def _peek(self) -> tuple[float, float, float]:
        """Useful joules, watts and seconds of this attempt so far."""
        if self._window is None:
            return math.nan, math.nan, 0.0
        joules, watts = self._window.peek()
        end = time.monotonic() if self._pause_began is None else self._pause_began
        return joules, watts, end - self._began - self._paused_s

    def _journal(self, closed: bool) -> None:
        now_s = time.monotonic()
        self._longest_gap_s = max(self._longest_gap_s, now_s - self._last_journal)
        self._last_journal = now_s
        joules, watts, seconds = (self.reading.joules, math.nan, self.reading.seconds) if closed else self._peek()
        entry = {
            "id": self._id,
            "key": self._key,
            "joules": known(joules),
            "max_w": known(self._max_w if math.isfinite(self._max_w) else watts),
            "seconds": seconds,
            "longest_gap_s": self._longest_gap_s,
            "at": now(),
            "closed": closed,
            "host": os.uname().nodename,
            "device_uuid": self._site.device.uuid,
            "source": self._site.device.source,
        }
        self._site.store.write_attempt(self._site.device.machine, self._key, entry)


@dataclass(frozen=True)
class Site:
    """Where stages run: the device, the store that keeps what comes of it, where data lie, the rated power of a CPU
    without a meter (None: a stated assumption), and seconds between two readings of power (None: the tracer's own)."""

    device: Device
    store: Store
    data_dir: Path
    cpu_tdp_w: float | None = None
    sample_s: float | None = None

    def checkpoint(self, key: str) -> Path:
        """The file of an unfinished stage's state on this board."""
        return self.store.outputs.checkpoint(key, self.device.uuid)
