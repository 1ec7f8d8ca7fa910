"""Rows in the formats of CodeCarbon, SPDX and Hugging Face. Golden numbers are reckoned by hand; texts are data."""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib.util
import io
import json
import math
import re
from pathlib import Path

import pytest
import yaml

from benchmark.errors import UserError
from benchmark.report.exports.codecarbon import COLUMNS, cell, emissions_csv
from benchmark.report.exports.model_card import model_card
from benchmark.report.exports.spdx import energy_consumption, spdx_document
from benchmark.report.exports.words import file_name, how_known, training_of
from benchmark.report.exports.writing import left_out, write_exports
from benchmark.report.footprint import Footprint
from benchmark.report.rows import StageRow
from benchmark.report.summary import EMPTY, SummaryRow

GRID = Footprint(g_per_kwh=400.0, pue=1.5, code="DEU", place="Germany", grid="Germany, 2023, CodeCarbon 3.3.2")
LIFE = {
    "experiment": "one", "method": "pruning/l1", "model": "nni/vgg16", "data": "cifar100", "classes": 100, "n_seeds": 1,
    "acc_pct": 70.5, "tec_wh": 1000.0, "base_wh": 750.0, "compress_wh": 50.0, "retrain_wh": 200.0, "iec_wh": 4e-6,
    "energy_source": "nvml:counter", "grade": "A", "scale": "full",
}  # fmt: skip  # one value a line would hide the life
WORK = {
    "experiment": "one", "phase": "base", "stage": "train", "kind": "TEC", "key": "k1", "first_mention": True,
    "energy_wh": 1000.0, "seconds": 7200.0, "energy_source": "nvml:counter", "grade": "A", "device_name": "NVIDIA H100",
    "created": "2026-11-27T22:57:18.605+00:00",
}  # fmt: skip  # one value a line would hide the stage
HOSTILE = "=cmd|'/c calc'!A1\"\n---\n: {x}, <script>alert(1)</script>\x1b[31m"


def row(**values) -> SummaryRow:
    return SummaryRow(**(EMPTY | LIFE | values))


def stage(**values) -> StageRow:
    plain = {each.name: "" if each.type == "str" else math.nan for each in dataclasses.fields(StageRow)}
    return StageRow(**(plain | WORK | values))


def lines(stages, footprint) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(emissions_csv(stages, footprint))))


# --- CodeCarbon ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="CodeCarbon is not installed")
def test_the_columns_are_those_of_the_installed_codecarbon():
    package = importlib.util.find_spec("codecarbon").submodule_search_locations[0]
    tree = ast.parse((Path(package) / "output_methods" / "emissions_data.py").read_text())
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EmissionsData"]
    assert [each.target.id for each in kind.body if isinstance(each, ast.AnnAssign)] == list(COLUMNS)


def test_a_record_is_a_line_by_hand():
    (line,) = lines([stage()], GRID)
    assert list(line) == list(COLUMNS)
    assert line["timestamp"] == "2026-11-27T22:57:18"
    assert (line["project_name"], line["run_id"], line["experiment_id"]) == ("one", "k1", "base: train")
    # 1 kWh in 2 h, times PUE as CodeCarbon has it: 1.5 kWh, 750 W, 0.6 kg
    assert float(line["energy_consumed"]) == float(line["gpu_energy"]) == pytest.approx(1.5)
    assert float(line["gpu_power"]) == pytest.approx(750)
    assert float(line["emissions"]) == pytest.approx(0.6)
    assert float(line["emissions_rate"]) == pytest.approx(0.6 / 7200)
    assert (line["duration"], line["pue"], line["gpu_model"]) == ("7200.0", "1.5", "NVIDIA H100")
    assert (line["country_iso_code"], line["country_name"]) == ("DEU", "Germany")
    assert line["cpu_energy"] == line["ram_energy"] == line["cpu_model"] == ""
    assert line["tracking_mode"] == "nvml:counter (grade A)"


def test_without_a_named_grid_emissions_are_empty_and_never_zero():
    (line,) = lines([stage()], Footprint())
    assert line["emissions"] == line["emissions_rate"] == line["country_iso_code"] == ""
    assert float(line["energy_consumed"]) == pytest.approx(1)


def test_each_record_is_there_once_and_what_is_unknown_is_empty():
    measured = stage(
        kind="IEC", key="k2", energy_wh=math.nan, measuring_wh=10.0, energy_source="estimate:tdp_load", grade="E"
    )
    stages = [
        stage(),
        stage(experiment="other", first_mention=False),
        stage(key="", kind="TEC"),
        measured,
        stage(key="k3", energy_wh=math.nan, seconds=0.0, created="yesterday"),
    ]
    first, second, third = lines(stages, GRID)
    assert [each["run_id"] for each in (first, second, third)] == ["k1", "k2", "k3"]
    assert float(second["cpu_energy"]) == pytest.approx(0.015)
    assert second["gpu_energy"] == second["gpu_count"] == ""
    assert second["tracking_mode"] == "estimate:tdp_load (grade E)"
    assert third["energy_consumed"] == third["emissions"] == third["gpu_power"] == third["timestamp"] == ""


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_text_is_a_formula(sign):
    (line,) = lines([stage(experiment=f"{sign}1+1", device_name=f"\t{sign}2", stage='a","b')], GRID)
    assert line["project_name"] == f"'{sign}1+1"
    assert line["gpu_model"] == f"'{sign}2"
    assert line["experiment_id"] == 'base: a","b'
    assert cell("one\r\ntwo\x00") == "one two?"


# --- SPDX ---------------------------------------------------------------------------------------------------------


def quantities(block) -> dict[str, str]:
    return {name: each[0]["ai_energyQuantity"] for name, each in block.items() if name != "type"}


def test_the_energy_of_a_row_by_hand():
    block = energy_consumption(row())
    assert quantities(block) == {
        "ai_trainingEnergyConsumption": "0.75",
        "ai_finetuningEnergyConsumption": "0.25",
        "ai_inferenceEnergyConsumption": "0.000000004",
    }
    (part,) = block["ai_trainingEnergyConsumption"]
    assert part == {
        "type": "ai_EnergyConsumptionDescription",
        "ai_energyQuantity": "0.75",
        "ai_energyUnit": "kilowattHour",
    }


@pytest.mark.parametrize(
    ("values", "training_wh", "finetuning_wh", "kind"),
    [
        ({}, 750, 250, "pre-training and fine-tuning"),
        ({"teacher": "nni/vgg19"}, 1000, 0, "pre-training (its teacher's included)"),
        ({"base_wh": 0.0, "compress_wh": 800.0}, 1000, 0, "pre-training (the search included)"),
        ({"base_wh": 1000.0, "compress_wh": 0.0, "retrain_wh": 0.0}, 1000, 0, "pre-training"),
    ],
)
def test_what_is_training_and_what_is_fine_tuning(values, training_wh, finetuning_wh, kind):
    assert training_of(row(**values)) == (training_wh, finetuning_wh, kind)


def test_what_is_unknown_is_left_out_of_the_block():
    assert set(energy_consumption(row(iec_wh=math.nan, compress_wh=math.nan))) == {
        "type",
        "ai_trainingEnergyConsumption",
    }


def test_the_document_is_as_spdx_has_it():
    document = spdx_document(row(macs=313509888.0), "2026-11-27T23:57:18.605+01:00")
    assert document["@context"] == "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
    creation, agent, whole, package = document["@graph"]
    assert creation["created"] == "2026-11-27T22:57:18Z"
    assert creation["createdBy"] == [agent["spdxId"]]
    assert whole["rootElement"] == [package["spdxId"]]
    assert {each["creationInfo"] for each in (agent, whole, package)} == {creation["@id"]}
    assert package["type"] == "ai_AIPackage"
    assert {each["key"]: each["value"] for each in package["ai_metric"]} == {
        "top-1 accuracy (%)": "70.5",
        "multiply-accumulates": "313509888",
    }
    # the patterns of the schema of 3.0.1
    decimals = re.findall(r'"ai_energyQuantity": "([^"]*)"', json.dumps(document))
    assert len(decimals) == 3
    assert all(re.fullmatch(r"-?[0-9]+(\.[0-9]*)?", each) for each in decimals)
    assert all(re.fullmatch(r"(?!_:).+:.+", each["spdxId"]) for each in (agent, whole, package))
    assert spdx_document(row(), "then")["@graph"][0]["created"].endswith("Z"), "an unreadable time is now"
    assert spdx_document(row(), "x")["@graph"][3]["spdxId"] == package["spdxId"]


def test_an_estimate_is_never_called_a_measurement():
    assert how_known(row()) == "measured (nvml:counter, grade A)"
    assert how_known(row(energy_source="estimate:tdp_load", grade="E")) == (
        "estimated, not measured (estimate:tdp_load, grade E)"
    )
    assert how_known(row(energy_source="estimate:tdp_load+nvml:counter", grade="X")).startswith("estimated in part")
    guessed = row(energy_source="estimate:tdp_load", grade="E")
    assert "estimated, not measured" in spdx_document(guessed, "")["@graph"][3]["comment"]
    assert "estimated, not measured" in front(model_card(guessed, "a CPU", GRID))["source"]


# --- Hugging Face -------------------------------------------------------------------------------------------------


def front(card: str) -> dict:
    _, content, _ = card.split("---\n", 2)
    return yaml.safe_load(content)["co2_eq_emissions"]


def test_the_emissions_of_a_card_by_hand():
    card = model_card(row(), "NVIDIA H100", GRID)
    found = front(card)
    assert found.pop("emissions") == pytest.approx(600)  # g: 1 kWh x 1.5 x 400 g
    assert found == {
        "source": "full-cycle energy benchmark: energy measured (nvml:counter, grade A); 400 g CO2e per kWh (Germany, 2023, "
        "CodeCarbon 3.3.2), PUE 1.5",
        "training_type": "pre-training and fine-tuning",
        "geographical_location": "Germany",
        "hardware_used": "NVIDIA H100",
    }
    assert "| one inference (one image) | 4e-06 |" in card
    assert "| 1000 |" in card, "energies are without PUE"


def test_a_card_needs_a_grid_and_an_energy():
    with pytest.raises(UserError, match="country=DEU, or grid_g_per_kwh="):
        model_card(row(), "", Footprint(pue=1.2))
    with pytest.raises(UserError, match="its energy is unknown"):
        model_card(row(tec_wh=math.nan), "", GRID)


def test_what_nobody_named_is_left_out_of_a_card_and_small_runs_say_so():
    card = model_card(row(scale="smoke"), "", Footprint(g_per_kwh=100.0, grid="named by the user"))
    assert set(front(card)) == {"emissions", "source", "training_type"}
    assert "scale smoke" in card


# --- files --------------------------------------------------------------------------------------------------------


def test_everything_is_written_and_what_is_not_says_why(tmp_path):
    summary = [row(), row(experiment="half", tec_wh=math.nan, missing="seed 0: train"), row(experiment="two")]
    stages = [stage(), stage(experiment="two", device_name="NVIDIA L4")]
    paths = write_exports(tmp_path, stages, summary, GRID)
    assert sorted(path.parent.name for path in paths) == ["codecarbon", "model_cards", "model_cards", "spdx", "spdx"]
    assert all(path.is_file() and path.is_relative_to(tmp_path) for path in paths)
    by_name = {path.name: path.read_text() for path in paths}
    assert front(by_name[file_name("two", ".md")])["hardware_used"] == "NVIDIA L4"
    assert json.loads(by_name[file_name("one", ".spdx.json")])["@graph"][0]["created"] == "2026-11-27T22:57:18Z"
    assert left_out(summary, GRID) == ["no SPDX package of half: seed 0: train"]
    bare = write_exports(tmp_path / "bare", stages, summary, Footprint())
    assert not [path for path in bare if path.parent.name == "model_cards"]
    assert left_out([row()], Footprint())[0].startswith("no model cards: ")
    assert left_out([], Footprint()) == []
    again = write_exports(tmp_path / "again", stages, summary, GRID)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths], "stable to the byte"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", ".hidden", "", "a" * 500, "a\x00b", HOSTILE, "-rf"]
)
def test_a_file_stays_in_its_folder_whatever_its_experiment_is_called(tmp_path, name):
    found = file_name(name, ".md")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}", found) or found.startswith("_")
    assert file_name(name + "x", ".md") != found
    paths = write_exports(tmp_path, [stage(experiment=name)], [row(experiment=name)], GRID)
    assert all(path.resolve().parent.parent == tmp_path.resolve() for path in paths)


def test_hostile_texts_stay_texts(tmp_path):
    texts = dict.fromkeys(("experiment", "method", "model", "data", "energy_source", "infer_machine"), HOSTILE)
    own = stage(experiment=HOSTILE, device_name=HOSTILE, energy_source=HOSTILE)
    place = dataclasses.replace(GRID, place=HOSTILE, grid=HOSTILE)
    written = {path.parent.name: path.read_text() for path in write_exports(tmp_path, [own], [row(**texts)], place)}
    (line,) = csv.DictReader(io.StringIO(written["codecarbon"]))
    assert line["project_name"].startswith("'=cmd")
    assert len(written["codecarbon"].splitlines()) == 2
    found = front(written["model_cards"])
    assert set(found) == {"emissions", "source", "training_type", "geographical_location", "hardware_used"}
    assert found["hardware_used"].startswith("=cmd")
    body = written["model_cards"].split("---\n", 2)[2]
    assert "<script>" not in body
    assert "\x1b" not in "".join(written.values())
    assert json.loads(written["spdx"])["@graph"][3]["name"].startswith("=cmd")
