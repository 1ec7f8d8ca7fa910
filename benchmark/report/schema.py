"""JSON Schemas of a record and of a run file, for readers in any language, made from the types that read them.

`python -m benchmark.report.schema docs/schema` writes record.json and run.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmark.plan.run_file import RunFile
from benchmark.records.files import replace
from benchmark.records.record import Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"

RECORD = {
    "version": "version of this format",
    "key": "name of the stage's result: equal stages have equal keys",
    "fn": "the stage's function, as module:function",
    "fn_version": "version of the stage: raised when its arithmetic or its energy changes",
    "params": "parameters of the function, by name",
    "inputs": "keys of the stages that it rests on, by the name of the argument",
    "artifact": "SHA-256 of the file that the stage handed on; empty where it hands on none",
    "artifact_bytes": "size of that file in bytes; 0 where there is none, or where it was not noted",
    "input_artifacts": "SHA-256 of the files that it was given, by the name of the argument",
    "joules": "energy of the useful part in J; null where no meter could tell, with a reason",
    "ci95_joules": "half-width of the 95 % interval of joules, in J; null where it is unknown",
    "repeated_joules": "energy in J spent once more on epochs that were lost; null where it is unknown",
    "seconds": "metered time of the useful part in s, pauses left out",
    "source": "the meter; estimate:... where there is none",
    "grade": "how far to trust the energy: A to D a GPU's meter, R a CPU's, E an estimate, X none",
    "reason": "why a number is missing, or an attempt was lost",
    "values": "what was found out, numbers by name (acc_pct, params, macs, iec_joules, ...); null where unknown",
    "details": "what else was found out: curves, genotypes, what an engine executes",
    "reading": "the meter's whole reading: parts, sampled power, what is missing and why",
    "provenance": "versions, board, driver, environment and attempts",
    "device_name": "the device, in words",
    "machine": "device and power limit; of a CPU its cores and threads: the folder that the record lies in",
    "commit": "commit of the code; +dirty where it was changed",
    "created": "when the record was written (UTC, ISO 8601)",
    "attempts": "attempts that the stage took",
    "repeat": "true where the whole stage was worked again for a lost file: all its energy counts as repeated",
    "group": "of an inference measurement: the measurements that alternated with it; else null",
    "digest": "SHA-256 of the record without this field (JSON, keys sorted): an edit by hand shows",
}
"""What each field of a record means."""

RUN = {
    "format": "version of this format",
    "experiment": "name of the experiment: what it is about, and the digest of its plan; seeds share it",
    "plan": "digest of the whole plan, the seed left out",
    "seed": "seed of the life",
    "words": "what the life is about, in the words of the command",
    "settings": "every setting by its dotted name",
    "train_machine": "machine whose training records count",
    "infer_machine": "machine whose inference records count",
    "measurement": "digest of what the inference measurement is asked for, the signature left out",
    "measurement_version": "version of the inference measurement",
    "stages": "the stages of the plan, each after those it rests on; the last one builds the engine",
    "unmeasured": "phases whose energy nobody measured, each with the reason",
    "created": "when the life was first asked for (UTC, ISO 8601)",
}
"""What each field of a run file means."""

STAGE = {
    "phase": "base, compress, retrain, deploy or infer",
    "kind": "TEC: counts into TEC; deploy: engine building; IEC: the inference measurement",
    "key": "name of the stage's result: its record is KEY.json below the machine",
    "fn": "the stage's function, as module:function",
    "version": "version of the stage",
    "inputs": "keys of the stages that it rests on, by the name of the argument",
    "machine": "machine whose record of it counts",
    "passes": "images that a stage of TEC shows to networks, its own first; null where it does not say",
}
"""What each field of a stage of a run file means."""

PASS = {
    "model": "the network",
    "images": "images shown to it, in all",
    "trains": "whether they go backward, too",
    "times": "arithmetic of one image, as a multiple of the network's (a supernet holds several of its kind)",
}
"""What each field of a pass means."""

WORDS = {
    "method": "the method",
    "model": "the network that is deployed",
    "teacher": "the network it learns from; empty without one",
    "data": "the data set",
    "classes": "classes of the data set",
    "recipe": "how the network is trained",
    "scale": "how much of data and recipe is used, by name",
    "train_images": "training images used",
    "test_images": "test images used",
    "max_epochs": "most epochs a training may take at this scale; null without a limit",
    "profile": "fast or published: how training is executed",
    "train_precision": "number format of training",
    "deploy_precision": "number format asked of the engine",
    "engine": "the engine that inference runs on",
    "engine_version": "version of the engine's library",
}
"""What each of the words of a run file means."""


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas by their files' names: of results/records/MACHINE/KEY.json and of results/runs/MACHINE/NAME.json."""
    record = _schema(Record, "A record: one stage, run once, as measured")
    _describe(record, RECORD)
    run = _schema(RunFile, "A run file: one experiment with one seed, as planned")
    _describe(run, RUN)
    _describe(run["$defs"]["RunStage"], STAGE)
    _describe(run["$defs"]["RunPass"], PASS)
    _describe(run["$defs"]["Words"], WORDS)
    return {"record.json": record, "run.json": run}


def text(schema: Mapping[str, Any]) -> str:
    """A schema as the content of its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main(words: Sequence[str]) -> None:
    """Write the schemas into the folder that is named; without one, end with the usage."""
    if len(words) != 1:
        sys.exit("usage: python -m benchmark.report.schema docs/schema")
    for name, schema in schemas().items():
        replace(Path(words[0]) / name, text(schema).encode())


def _schema(kind: type[BaseModel], title: str) -> dict[str, Any]:
    """A type as its files have it: numbers that are unknown are null, and what has a default may be missing."""
    written, read = kind.model_json_schema(mode="serialization"), kind.model_json_schema(mode="validation")
    pairs = [(written, read)]
    pairs += [(own, read["$defs"][name]) for name, own in written.get("$defs", {}).items()]
    for own, other in pairs:
        own.pop("title", None)
        own.pop("description", None)
        if "properties" in own:
            own["required"] = other.get("required", [])
    return {"$schema": DIALECT, "title": title, **written}


def _describe(schema: dict[str, Any], meanings: Mapping[str, str]) -> None:
    """Put the meaning of each field beside it, in place of pydantic's title, which only repeats the name."""
    for name, own in schema["properties"].items():
        own.pop("title", None)
        schema["properties"][name] = {"description": meanings[name], **own}


if __name__ == "__main__":
    main(sys.argv[1:])
