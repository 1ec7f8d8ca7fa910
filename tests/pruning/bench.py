"""A bench without a meter."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch


class Bench:
    """Keeps every checkpoint; breaks off where it is told to."""

    device, data_dir = "cpu", Path()

    def __init__(self, state=None, stop_at=None) -> None:
        self.state, self.stop_at = state, stop_at

    @contextlib.contextmanager
    def paused(self):
        yield

    def checkpoint(self, state):
        file = io.BytesIO()
        torch.save(dict(state()), file)
        self.state = file.getvalue()

    def resume(self):
        return None if self.state is None else torch.load(io.BytesIO(self.state), weights_only=True)

    def progress(self, done, total, **shown):
        if self.stop_at is not None and done > self.stop_at:
            raise KeyboardInterrupt
