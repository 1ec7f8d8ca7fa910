"""Other threads that do something for this one: so that no signal can cut it in two, and no driver can hold us up.

Python raises KeyboardInterrupt (and whatever else a signal's handler raises) in the main thread alone, between any two
instructions. What must happen whole is therefore done by another thread, while the main thread waits. A call into a
driver that hangs cannot be ended at all; the thread that made it can be left behind.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from benchmark.energy.timeline.clock import Clock, SystemClock

MOST_THREADS = 16
"""So many may hang in a driver; then calls are no longer handed over, and count as late."""


class Ticket:
    """One job, done at most once, by the thread that takes it first; `finished` is true once it is done."""

    def __init__(self, job: Callable[[], None]) -> None:
        self.finished = False
        self.error: BaseException | None = None
        self._job = job
        self._taken = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Do the job, unless somebody took it before. Never raises: see `error`."""
        if not self._taken.acquire(blocking=False):
            return
        try:
            self._job()
        except BaseException as error:  # the thread that waits raises it again
            self.error = error
        self.finished = True
        self._done.release()

    def wait(self, timeout_s: float = -1) -> None:
        """Wait until the job is done, or so many seconds. A signal's exception may end the wait."""
        if not self.finished and self._done.acquire(timeout=timeout_s):
            self._done.release()


class Hands(Protocol):
    """How a tracer has things done."""

    def shielded(self, job: Callable[[], None]) -> None:
        """Do a job whole, whatever signals come meanwhile; what they raised is raised afterwards."""

    def bounded(self, job: Callable[[], None], timeout_s: float) -> Ticket:
        """Do a job, but wait for it no longer than so many seconds: it may be unfinished, and may finish later."""


class Own:
    """Does everything in the caller's thread: for clocks that are not the machine's, in which nothing can hang."""

    def shielded(self, job: Callable[[], None]) -> None:
        job()

    def bounded(self, job: Callable[[], None], timeout_s: float) -> Ticket:
        ticket = Ticket(job)
        ticket.run()
        return ticket


class Threads:
    """Threads that wait for jobs; made when they are needed, and kept."""

    def __init__(self) -> None:
        self._idle: deque[queue.SimpleQueue[Ticket]] = deque()
        self._made = 0

    def shielded(self, job: Callable[[], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            job()  # no signal's exception is ever raised here
            return
        ticket = Ticket(job)
        raised: BaseException | None = None
        while True:
            try:
                while not ticket.finished:
                    self._give(ticket)  # again after each interrupt: it may have come before the first was handed over
                    ticket.wait()
                break
            except BaseException as error:
                raised = raised or error
        if raised is not None:
            raise raised
        if ticket.error is not None:
            raise ticket.error

    def bounded(self, job: Callable[[], None], timeout_s: float) -> Ticket:
        ticket = Ticket(job)
        if self._made - len(self._idle) < MOST_THREADS:
            self._give(ticket)
            ticket.wait(timeout_s)
        return ticket

    def _give(self, ticket: Ticket) -> None:
        try:
            waiting = self._idle.pop()
        except IndexError:
            waiting = queue.SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(waiting,), name="energy-hand", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread can be started: then without a shield and without a bound
                ticket.run()
                return
            self._made += 1
        waiting.put(ticket)

    def _serve(self, waiting: queue.SimpleQueue[Ticket]) -> None:
        while True:
            ticket = waiting.get()
            ticket.run()
            del ticket
            self._idle.append(waiting)


_SHARED: tuple[int, Threads] | None = None


def hands_for(clock: Clock) -> Hands:
    """The process's threads; with another clock than the machine's, the caller's thread.

    A forked child gets new threads.
    """
    global _SHARED
    if not isinstance(clock, SystemClock):
        return Own()
    if _SHARED is None or _SHARED[0] != os.getpid():
        _SHARED = (os.getpid(), Threads())
    return _SHARED[1]
