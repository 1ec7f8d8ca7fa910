"""Zeus, CodeCarbon and this suite's tracer side by side on one fake GPU (own environment: make test-peers)."""

import os
from pathlib import Path

import pytest

from tests.energy.fake_nvml import why_not

pytest.importorskip("zeus", reason="Zeus and CodeCarbon live in an environment of their own: make test-peers")
pytest.importorskip("codecarbon", reason="Zeus and CodeCarbon live in an environment of their own: make test-peers")

from scripts.peers import SCENARIOS, TICKS, TOOLS, play_all, table

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

HEALTHY = [scenario for scenario in SCENARIOS if not scenario.broken]
BROKEN = [scenario for scenario in SCENARIOS if scenario.broken]


@pytest.fixture(scope="session")
def played():
    """Every scenario once, in about three minutes; the table goes to the file that PEERS_TABLE names, if it does."""
    results = play_all()
    if path := os.environ.get("PEERS_TABLE"):
        Path(path).write_text(table(results) + "\n")
    return {scenario.name: {outcome.tool: outcome for outcome in outcomes} for scenario, outcomes in results}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("scenario", HEALTHY, ids=lambda scenario: scenario.name)
def test_where_nothing_is_broken_all_agree_within_two_ticks(played, scenario, tool):
    outcome = played[scenario.name][tool]
    two_ticks_j = 2 * float(TICKS["tick_s"]) * scenario.curve.hi_w
    assert outcome.joules == pytest.approx(outcome.true_joules, abs=two_ticks_j)


@pytest.mark.parametrize("scenario", BROKEN, ids=lambda scenario: scenario.name)
def test_ours_is_right_within_its_interval_or_says_what_is_wrong(played, scenario):
    outcome = played[scenario.name]["ours"]
    room_j = 2 * outcome.ci95_joules + 0.02 * outcome.true_joules
    right = abs(outcome.joules - outcome.true_joules) <= room_j
    says_why = ":" in outcome.trust
    assert right or says_why, f"{outcome.joules} J of {outcome.true_joules} J, and only: {outcome.trust}"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_ours_never_reports_a_silent_zero(played, scenario):
    assert played[scenario.name]["ours"].joules != 0
