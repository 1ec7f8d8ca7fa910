"""`report`: what it writes, from records and from the paper alone, and what it says of what it cannot."""

from __future__ import annotations

import csv
import json
import re

import pytest

from benchmark.errors import UserError
from benchmark.plan.config import compose
from benchmark.reporting import report
from tests.harness.helpers import tiny_experiment
from tests.harness.test_runner import Lab, lab  # noqa: F401  # a fixture


@pytest.fixture
def words(lab: Lab) -> list[str]:  # noqa: F811
    lab.run(tiny_experiment(lab.root))
    return [f"paths.results={lab.store.results}", f"paths.artifacts={lab.store.artifacts}"]


def test_it_writes_tables_page_and_exports(lab, words, capsys):  # noqa: F811
    assert (
        report([*words, "--no-figures", "--exports", "mui=1e4,2e6", "grid_g_per_kwh=400", "pue=1.5", "price_kwh=0.3"])
        == 0
    )
    folder, told = lab.store.results, capsys.readouterr()
    for name in ("report.html", "summary.csv", "by_mui.csv", "tables/against_paper.md", "tables/table4.tex"):
        assert (folder / name).stat().st_size > 100, name
    assert len(list((folder / "exports" / "model_cards").glob("*.md"))) == 1
    (row,) = csv.DictReader((folder / "summary.csv").read_text().splitlines())
    kwh = float(row["tec_wh"]) / 1000
    assert float(row["co2e_train_kg"]) == pytest.approx(kwh * 1.5 * 0.4)
    assert float(row["money_train"]) == pytest.approx(kwh * 1.5 * 0.3)
    assert "G(10k)" in told.out
    assert "G(2M)" in told.out
    assert not (folder / "figures").exists()


def test_what_is_not_asked_any_more_leaves_no_file(lab, words):  # noqa: F811
    report([*words, "--no-figures", "exports=true", "mui=1e4", "grid_g_per_kwh=400"])
    report([*words, "--no-figures", "exports=true"])
    assert not (lab.store.results / "by_mui.csv").exists()
    assert not list((lab.store.results / "exports" / "model_cards").glob("*"))


def test_an_unknown_country_is_an_error_before_the_work(lab):  # noqa: F811
    from benchmark.studying import work_blocks

    experiment = [
        ["method=baseline", "scale=smoke", "data=synthetic", "country=XXQ", f"paths.results={lab.store.results}"]
    ]
    with pytest.raises(UserError, match="country=XXQ"):
        work_blocks([[compose(job) for job in experiment]])
    assert not lab.store.record_paths()


def test_the_same_records_make_the_same_bytes(lab, words):  # noqa: F811
    def all_files() -> dict[str, bytes]:
        report([*words, "--no-figures", "exports=true"])
        found = [path for path in lab.store.results.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in found}

    assert all_files() == all_files()


def test_the_page_holds_the_row_its_stages_and_its_command(lab, words):  # noqa: F811
    report([*words, "figures=false"])
    html = (lab.store.results / "report.html").read_text()
    (found,) = re.findall(r'id="data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(found)
    (row,) = data["groups"][0]["rows"]
    assert row["command"].startswith("python -m benchmark run method=")
    assert [data["stages"][place]["phase"] for place in row["stages"]] == ["base", "deploy", "infer"]
    (summary,) = csv.DictReader((lab.store.results / "summary.csv").read_text().splitlines())
    assert row["tec"][0] == float(summary["tec_wh"])


@pytest.mark.slow
def test_from_the_paper_alone_page_and_figures(tmp_path, capsys):
    assert report(["source=paper", f"paths.results={tmp_path}"]) == 0
    folder = tmp_path / ".paper"
    assert (folder / "report.html").stat().st_size > 50_000
    drawn = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert {"paper_2a", "paper_2b", "paper_3a", "paper_3b", "paper_3c", "paper_6", "paper_pareto"} <= drawn
    said = capsys.readouterr().err
    assert "figure paper_4: n/a" in said
    assert "the paper's numbers, not ours" in said


@pytest.mark.parametrize(
    ("word", "why"),
    [("source=nature", "source=records or paper"), ("figures=perhaps", "figures=true or false"), ("figures", "figures=true"),
     ("source=paper country=DEU", "leave country=DEU out"), ("source=paper exports=true", "no records to export"),
     ("country=GER", "country=GER"), ("country=Germany", "three letters"), ("mui=many", "mui")],
)  # fmt: skip  # one a line says no more
def test_a_word_that_cannot_be_meant_is_one_error(lab, words, word, why):  # noqa: F811
    beside = [] if word.startswith("figures") else ["--no-figures"]
    said = word.split() if word.startswith("source=paper") else [*words, *beside, word]
    with pytest.raises(UserError, match=why):
        report(said)
