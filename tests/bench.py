"""A bench without a meter, for stage functions and training loops by themselves."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch


class PlainBench:
    """Keeps every checkpoint, and can break off like a killed process."""

    device = "cpu"
    data_dir = Path()

    def __init__(self, state=None, stop_at: float | None = None) -> None:
        self.state, self.stop_at = state, stop_at
        self.pauses = 0
        self.seen: list[float] = []

    @contextlib.contextmanager
    def paused(self):
        self.pauses += 1
        yield

    def checkpoint(self, state):
        file = io.BytesIO()
        torch.save(dict(state()), file)
        self.state = file.getvalue()

    def resume(self):
        return None if self.state is None else torch.load(io.BytesIO(self.state), weights_only=True)

    def progress(self, done, total, **shown):
        self.seen.append(done)
        if self.stop_at is not None and done > self.stop_at:
            raise KeyboardInterrupt

    def once(self, what, decide):
        return decide()

    def cost(self, call, n):
        raise NotImplementedError


class MeteredBench(PlainBench):
    """Knows whether the meter runs."""

    running = True

    @contextlib.contextmanager
    def paused(self):
        self.running = False
        yield
        self.running = True
