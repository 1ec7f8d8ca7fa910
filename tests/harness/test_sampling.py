"""Power as a slower sampler would have seen it."""

from __future__ import annotations

import pytest

from benchmark.energy.timeline.samples import Mark, Sample, packed
from benchmark.errors import UserError
from benchmark.report.sampling import sampled


@pytest.fixture
def path(tmp_path):
    """Ten seconds at ten readings a second: 100 W, and 300 W in the first tenth of each second."""
    samples = [
        Sample(n / 10, "gpu0", "power.instant_mw", 300_000 if n % 10 == 0 else 100_000, 50.0) for n in range(100)
    ]
    content, _ = packed(samples, [Mark(0.0, "stage", "window.begin"), Mark(9.9, "stage", "window.end")])
    (tmp_path / "x.samples.csv.gz").write_bytes(content)
    return tmp_path / "x.samples.csv.gz"


def test_slow_sampling_of_a_rhythm_sees_another_power(path):
    fast, half, slow = sampled(path)
    assert [len(each.power) for each in (fast, half, slow)] == [100, 20, 10]
    assert fast.mean_w == pytest.approx(120)
    assert half.mean_w == pytest.approx(200)
    assert slow.mean_w == pytest.approx(300), "it meets every peak: the aliasing that the figure is about"
    assert fast.joules == pytest.approx(120 * 9.9)


def test_a_file_without_such_readings_is_told(path):
    with pytest.raises(UserError, match=r"no two readings of power.average_mw: there is power.instant_mw"):
        sampled(path, kind="power.average_mw")
