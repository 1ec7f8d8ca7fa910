"""What is printed must never end what is measured: a reader that goes away, a stream that is closed or speaks ASCII.

Needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

PLAIN = {"\N{PLUS-MINUS SIGN}": "+-", "\N{MULTIPLICATION SIGN}": "x", "\N{RIGHTWARDS ARROW}": "->"}
"""How a stream that cannot spell a sign writes it."""


class Unbreakable:
    """A text stream whose writes never fail. Once its reader has gone, the rest goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what the stream can spell, '?' for the rest."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            for sign, plain in PLAIN.items():
                text = text.replace(sign, plain)
            return self.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError):  # a broken pipe, a full disk, a closed file
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def _give_up(self) -> None:
        """Let everything go to nowhere from now on, also what Python itself flushes at its end."""
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return
        self._stream = open(os.devnull, "w")  # noqa: SIM115 - it must outlive us

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable() -> Iterator[None]:
    """Make standard output and error unbreakable for a while; one that was closed before we came goes nowhere."""
    before = sys.stdout, sys.stderr
    nowhere = open(os.devnull, "w")  # noqa: SIM115 - closed below
    sys.stdout, sys.stderr = (cast(TextIO, Unbreakable(stream or nowhere)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
        nowhere.close()
