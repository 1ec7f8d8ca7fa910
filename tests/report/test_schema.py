"""The schemas of records and run files: as committed, and as real files are."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest

from benchmark.energy import find_device
from benchmark.plan.run_file import RunFile
from benchmark.records.record import Record, dump
from benchmark.records.store import Store
from benchmark.report.schema import main, schemas, text
from tests.harness.helpers import lives_of, tiny_experiment, work_all

FOLDER = Path(__file__).parents[2] / "docs" / "schema"
TYPES = {"record.json": Record, "run.json": RunFile}


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """The store of a tiny life that was really worked."""
    root = tmp_path_factory.mktemp("worked")
    device, store = find_device("cpu"), Store(root / "results", root / "artifacts")
    work_all(root, device, lives_of(tiny_experiment(root), device, store))
    return store


def test_the_committed_schemas_are_up_to_date():
    for name, schema in schemas().items():
        assert (FOLDER / name).read_text() == text(schema), "python -m benchmark.report.schema docs/schema"


def test_every_field_says_what_it_means():
    for schema in schemas().values():
        blocks = [schema, *(each for each in schema.get("$defs", {}).values() if "properties" in each)]
        for block in blocks:
            assert [name for name, own in block["properties"].items() if not own.get("description")] == []
            assert block["additionalProperties"] is False


def test_what_has_a_default_may_be_missing_and_the_unknown_is_null():
    record = schemas()["record.json"]
    assert {name for name, kind in Record.model_fields.items() if kind.is_required()} == set(record["required"])
    for name in ("joules", "ci95_joules", "repeated_joules"):
        assert {"type": "null"} in record["properties"][name]["anyOf"]
    assert {"type": "null"} in record["properties"]["values"]["additionalProperties"]["anyOf"]


def test_real_files_are_as_the_schemas_say(worked):
    paths = {"record.json": worked.record_paths(), "run.json": worked.run_paths()}
    assert [len(found) for found in paths.values()] == [3, 1]
    for name, found in paths.items():
        for path in found:
            content = json.loads(path.read_text())
            assert TYPES[name].model_validate(content)
            assert _faults(name, content) == []


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
def test_what_is_no_record_is_refused_and_an_unknown_energy_is_not(worked):
    (path,) = [each for each in worked.record_paths() if '"methods.training:train"' in each.read_text()]
    content = json.loads(path.read_text())
    lost = Record.model_validate(content).model_copy(update={"joules": math.nan, "reason": "the board was lost"})
    assert json.loads(dump(lost))["joules"] is None
    assert _faults("record.json", json.loads(dump(lost))) == []
    for wrong in ({"joules": "many"}, {"seconds": -1}, {"version": 2}, {"surprise": 1}, {"attempts": 0}):
        assert _faults("record.json", content | wrong) != [], wrong
    assert _faults("record.json", {name: value for name, value in content.items() if name != "key"}) != []


def test_the_command_writes_both_files(tmp_path):
    main([str(tmp_path / "new")])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["record.json", "run.json"]
    with pytest.raises(SystemExit, match="usage"):
        main([])


def _faults(name: str, content) -> list[str]:
    """What a validator of JSON Schema finds, where one is installed."""
    if importlib.util.find_spec("jsonschema") is None:
        return []
    from jsonschema import Draft202012Validator

    schema = json.loads((FOLDER / name).read_text())
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(content)]
