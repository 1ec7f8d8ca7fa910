"""Intervals and rankings in simulated studies: points 22 and 23."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from benchmark.intervals import Interval, interleave, mean_ci95, paired_ratio_ci95, quantile, t975


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (4, 2.776), (9, 2.262), (30, 2.042), (31, 2.040), (60, 2.000), (120, 1.980), (10_000, 1.960)],
)
def test_t_quantiles(freedom, value):
    assert t975(freedom) == pytest.approx(value, abs=6e-4)


def test_the_mean_and_its_interval():
    interval = mean_ci95([10.0, 11.0, 12.0, 13.0])
    assert interval.mean == 11.5
    assert interval.half_width == pytest.approx(3.1824 * statistics.stdev([10, 11, 12, 13]) / 2)
    assert interval.contains(11.5)
    assert not interval.contains(20.0)
    assert interval.high - interval.low == pytest.approx(2 * interval.half_width)


def test_what_cannot_be_known_is_nan():
    assert math.isnan(mean_ci95([]).mean)
    assert math.isnan(mean_ci95([5.0]).half_width)
    assert not mean_ci95([5.0]).contains(5.0)
    assert math.isnan(mean_ci95([1.0, math.nan, 2.0]).mean)
    assert math.isnan(t975(0))
    assert math.isnan(quantile([], 0.5))


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_covers_the_truth_in_95_of_100_studies(n):
    """Each study: n windows of 10 s at a random phase of a 100 ms tick, a board that wanders by 0.4 % from window to
    window."""
    rng = random.Random(2021 + n)
    watts, seconds, tick = 250.0, 10.0, 0.1
    hits = 0
    for _ in range(2000):
        joules = []
        for _ in range(n):
            power = watts * (1 + rng.gauss(0, 0.004))
            edges = (rng.random() - rng.random()) * tick * power
            joules.append(power * seconds + edges)
        hits += mean_ci95(joules).contains(watts * seconds)
    assert 0.93 <= hits / 2000 <= 0.97


def study(rng: random.Random, order: tuple[str, ...], gap: float) -> tuple[list[float], list[float]]:
    """Ten windows of each of two methods under 0.4 % white noise and a 2 % slow drift of random shape and sign."""
    swing, turn, phase = 0.02 * rng.choice((-1, 1)), rng.uniform(0.3, 1.0), rng.random() * 2 * math.pi
    found: dict[str, list[float]] = {"a": [], "b": []}
    for place, name in enumerate(order):
        drift = swing * math.sin(2 * math.pi * turn * place / len(order) + phase)
        true = 1.0 + (gap if name == "a" else 0.0)
        found[name].append(true * (1 + drift) * (1 + rng.gauss(0, 0.004)))
    return found["a"], found["b"]


def ranked_apart(interval: Interval) -> bool:
    return not interval.contains(1.0)


def test_interleaved_windows_rarely_rank_equals_apart():
    rng = random.Random(23)
    wrong = sum(
        ranked_apart(paired_ratio_ci95(*study(rng, interleave(rng.random() < 0.5, 10), 0.0))) for _ in range(2000)
    )
    assert wrong / 2000 <= 0.05


def test_one_block_after_the_other_does():
    """Why windows alternate: the same data rate in two blocks takes the drift for a difference."""
    rng = random.Random(24)
    wrong = 0
    for _ in range(2000):
        a, b = study(rng, ("a",) * 10 + ("b",) * 10, 0.0)
        one, two = mean_ci95(a), mean_ci95(b)
        wrong += abs(one.mean - two.mean) > math.hypot(one.half_width, two.half_width)
    assert wrong / 2000 > 0.2


def test_interleaved_windows_resolve_one_percent():
    rng = random.Random(25)
    right = sum(ranked_apart(paired_ratio_ci95(*study(rng, interleave(True, 10), 0.01))) for _ in range(500))
    assert right / 500 > 0.9


def test_a_ratio_is_blind_to_the_boards_gain():
    a, b = [10.0, 10.2, 10.1], [9.0, 9.1, 9.2]
    one, two = paired_ratio_ci95(a, b), paired_ratio_ci95([1.05 * x for x in a], [1.05 * x for x in b])
    assert (one.mean, one.half_width) == pytest.approx((two.mean, two.half_width), rel=1e-12)


def test_a_ratio_needs_pairs_of_positive_energies():
    with pytest.raises(ValueError, match="pairs"):
        paired_ratio_ci95([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio_ci95([1.0, 0.0], [1.0, 1.0])


def test_interleaving_cancels_a_linear_drift():
    order = interleave(True, 4)
    assert order == ("a", "b", "b", "a", "a", "b", "b", "a")
    places = {name: sum(i for i, one in enumerate(order) if one == name) for name in "ab"}
    assert places["a"] == places["b"]


def test_quantiles():
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == 3.0
    assert quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)
