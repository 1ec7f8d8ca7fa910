"""Every test of training starts as a new process would."""

from __future__ import annotations

import pytest

from benchmark.vision import graph


@pytest.fixture(autouse=True)
def _no_capture_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_failures", [])
