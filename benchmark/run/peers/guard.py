"""Keeps strangers' tools from spoiling a run: errors become reasons, hangs end, lines go nowhere."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from benchmark.run.process import words

T = TypeVar("T")
PATIENCE_S = 20.0
"""How long a tool may take to load, to start and to stop, each."""
LONGEST_REASON, LONGEST_HOW = 200, 400
"""Letters of a stranger's words that are shown."""


def guarded(step: str, call: Callable[[], T], patience_s: float = PATIENCE_S) -> tuple[T | None, str]:
    """(what the call returned, "") or (None, the reason in one line): it raised, ended its thread or took too long.

    It runs in a thread of its own. One that hangs is left behind; it dies with the process.
    """
    found: list[T] = []
    reasons: list[str] = []

    def body() -> None:
        try:
            found.append(call())
        except BaseException as error:  # SystemExit too: a stranger's exit ends the stranger
            reasons.append(f"did not {step}: {plain(words(error))}")

    thread = threading.Thread(target=body, name=f"peer-{step}", daemon=True)
    thread.start()
    thread.join(patience_s)
    if found:
        return found[0], ""
    return None, next(iter(reasons), f"did not {step} within {patience_s:g} s, and was left behind")


def plain(text: str, longest: int = LONGEST_REASON) -> str:
    """A stranger's words in one printable line of bounded length."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing written meanwhile reaches the terminal: by print, by logging, by a warning, or by a child process.

    For the whole process, so say nothing of your own inside. Everything is as before afterwards.
    """
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        stack.enter_context(_closed_to_children())
        stack.enter_context(contextlib.redirect_stdout(_Nowhere()))
        stack.enter_context(contextlib.redirect_stderr(_Nowhere()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, disabled)
        yield


@contextlib.contextmanager
def _closed_to_children() -> Iterator[None]:
    """The file descriptors of output lead nowhere: children inherit them, and libraries in C write to them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    kept: dict[int, int] = {}
    with contextlib.suppress(OSError):  # a process may have none, or none left to keep them in
        kept = {number: os.dup(number) for number in (1, 2)}
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in kept:
            os.dup2(nowhere, number)
        os.close(nowhere)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


class _Nowhere(io.TextIOBase):
    """Takes every line, also from a logging handler that keeps it for good: there is nothing to close."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)

    def close(self) -> None:
        """Stay open: whoever holds it may write for as long as the process lives."""
