"""Every figure that needs a GPU's meter, drawn from records of a board that does not exist."""

from __future__ import annotations

import pytest

from benchmark.reporting import report
from tests.energy.fake_nvml import why_not
from tests.report.fake_board import NAME, make

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]


def test_figures_of_a_meter_are_drawn_and_say_whose_they_are(tmp_path, capsys):
    store = make(tmp_path)
    assert report([f"paths.results={store.results}", f"paths.artifacts={store.artifacts}"]) == 0
    drawn = {path.stem: path for path in (store.results / "figures").glob("*.svg")}
    assert {"ours_4", "ours_5", "ours_power", "ours_counter", "ours_search"} <= set(drawn)
    assert all(path.stat().st_size > 5000 for path in drawn.values())
    assert NAME.lower() in (store.results / "report.html").read_text()
    assert NAME.lower() in capsys.readouterr().out.partition("method")[0], "above the table"
