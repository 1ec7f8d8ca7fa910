"""What the page holds, whatever its records are called. A browser looks at it in test_page_browser.py."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from benchmark.plan.config import parse
from benchmark.plan.life import lives, place_of
from benchmark.plan.quick import compose_all
from benchmark.report.command import commands_of
from benchmark.report.page.build import page
from benchmark.report.page.content import TRACE_POINTS, content, trace
from tests.harness.helpers import CPU
from tests.report.page_rows import HOSTILE, all_rows, row, source


def data_of(html: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def test_the_page_holds_its_data_and_nothing_from_elsewhere():
    html = page(content(source(*all_rows()), 2.0))
    groups = data_of(html)["groups"]
    assert [group["hardware"] for group in groups] == ["gpu", "cpu", "P100, TITAN V (the paper's)"]
    assert [len(group["rows"]) for group in groups] == [8, 1, 19]
    assert not re.findall(r'(?:src|href)\s*=\s*["\'](?!#)', html.split('id="data"')[0]), "it loads something"
    assert "@@" not in html.replace("@@LIBRARY@@", ""), "a place of the template was left"
    assert len(html) < 2_000_000


def test_a_hostile_name_stays_a_name():
    html = page(content(source(*all_rows()), 2.0))
    assert HOSTILE in [each["id"] for each in data_of(html)["groups"][0]["rows"]]
    assert "<img" not in html
    assert html.count("</script>") == 3


def test_one_seed_has_the_interval_of_its_row_and_an_estimate_says_so():
    (group, *_) = content(source(row("baseline", n_seeds=1, grade="E", energy_source="estimate:tdp_load")), 2.0)[
        "groups"
    ]
    (only,) = group["rows"]
    assert only["acc"] == [73.4, 0.2]
    assert only["estimate"] is True


def test_a_row_that_other_work_disturbed_says_so():
    rows = row("baseline", others_pct=48.0), row("baseline", others_pct=8.0)
    for each, told in zip(rows, (1, 0), strict=True):
        (only,) = content(source(each), 2.0)["groups"][0]["rows"]
        assert sum("other programs took up to 48 %" in note for note in only["notes"]) == told


def test_what_is_unknown_is_null_and_not_zero():
    (group, *_) = content(source(row("baseline", iec_wh=float("nan"), iec_ci95_wh=float("inf"))), 2.0)["groups"]
    assert group["rows"][0]["iec"] == [None, None]


def test_the_same_rows_make_the_same_page():
    assert page(content(source(*all_rows()), 2.0)) == page(content(source(*all_rows()), 2.0))


def test_a_trace_keeps_the_mean_and_the_length(tmp_path):
    path = tmp_path / "key.samples.csv.gz"
    lines = ["t_s,device,kind,value,call_us", "0.0,gpu,work.begin,0,0", "0.5,gpu,counter_mj,77,1"]
    lines += [f"{number / 10},gpu,power.instant_mw,{100_000 + 50_000 * (number % 2)},1" for number in range(2000)]
    lines += [f"{number / 10},gpu,power.usage_mw,9,1" for number in range(50)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = trace(path)
    assert len(found) == TRACE_POINTS
    assert found[-1][0] == pytest.approx(199.9)
    assert sum(watts for _, watts in found) / len(found) == pytest.approx(125, rel=0.02)


HEAD = b"t_s,device,kind,value,call_us\n"


def _packed(content: bytes) -> bytes:
    """The same bytes at every collection: gzip would write the time into them, and xdist wants equal names."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    "content_of_file",
    [b"no gzip", _packed(b"t_s,kind,value\n0,power.x,1\n0,power.x,zero\n"), _packed(b"\xff\xfe"),
     _packed(b"a,b\n1,2\n"), _packed(b"t_s,device,kind,value\n1,g,power.x,nan\n2,g,power.x,inf\n"), _packed(b"x" * 500)[:-9],
     _packed(HEAD + b"3,gpu,power.instant_mw\n" * 3), _packed(b"t_s,kind,value\n1\n2\n"),
     _packed(HEAD + b"-1e308,g,power.instant_mw,1,1\n1e308,g,power.instant_mw,1,1\n"),
     _packed(HEAD + b"1,g,power.instant_mw,%d,1\n" % 10**300 * 40), _packed(b"1" * 70_000_000)],
)  # fmt: skip  # one a line says no more
def test_a_damaged_file_of_readings_is_no_curve_and_no_crash(tmp_path, content_of_file):
    path = tmp_path / "key.samples.csv.gz"
    path.write_bytes(content_of_file)
    assert trace(path) == []
    assert trace(tmp_path / "absent") == []


@pytest.mark.parametrize(
    "words",
    [{"method": "x" * 300}, {"model": "../experiment/sensitivity/gpu"}, {"method": "../config"}, {"data": "a\x03b"},
     {"recipe": "/etc/passwd"}, {"method": "\0"}],
)  # fmt: skip  # one a line says no more
def test_a_run_file_with_odd_words_has_no_command_and_stops_nothing(words):
    run = _run(0)
    said = commands_of([run.model_copy(update={"words": run.words.model_copy(update=words)})])
    assert said == "" or next(iter(words.values())) in said
    assert said.isprintable()


def _run(seed: int):
    (config,) = compose_all([["method=baseline", f"seed={seed}"]])
    experiment, _ = parse(config, CPU)
    (life,) = lives(experiment, place_of(experiment, CPU, []))
    return life.run_file("2026-01-01T00:00:00+00:00")


def test_seeds_that_do_not_follow_each_other_have_a_command_each():
    assert commands_of([_run(1), _run(0)]).count("benchmark run") == 1
    assert "seeds=2" in commands_of([_run(1), _run(0)])
    lines = commands_of([_run(5), _run(0)]).splitlines()
    assert [" seed=0" in lines[0], " seed=5" in lines[1], len(lines)] == [True, True, 2]


def test_of_a_choice_whose_file_is_gone_every_setting_is_named():
    run = _run(0)
    gone = run.model_copy(
        update={
            "words": run.words.model_copy(update={"method": "mine"}),
            "settings": {**run.settings, "method.rate": "0.3"},
        }
    )
    assert "method.rate=0.3" in commands_of([gone])
