"""A row as an AI package of SPDX 3.0.1 in JSON-LD, with the energy of its training, fine-tuning and inference."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from benchmark.errors import one_line
from benchmark.report.exports.words import how_known, training_of
from benchmark.report.summary import SummaryRow

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
TOOL = "full-cycle energy benchmark"
CREATION = "_:creationinfo"
KILO = 1


def spdx_document(row: SummaryRow, created: str) -> dict[str, Any]:
    """The document of one complete row; `created` is when it was found out (ISO 8601), to be the document's date.

    Energies are in kilowattHour, inference is one inference (one image); what is unknown is left out. It conforms to
    the core profile: the AI profile also asks for supplier, download location, version and release time, which no
    record knows. Whoever publishes the network adds them.
    """
    agent, package = _id("agent", TOOL), _id("package", row.experiment)
    information = {"creationInfo": CREATION}
    graph = [
        {
            "type": "CreationInfo",
            "@id": CREATION,
            "specVersion": "3.0.1",
            "created": _date(created),
            "createdBy": [agent],
        },
        {"type": "SoftwareAgent", "spdxId": agent, **information, "name": TOOL},
        {
            "type": "SpdxDocument",
            "spdxId": _id("document", row.experiment),
            **information,
            "name": one_line(row.experiment),
            "profileConformance": ["core"],
            "rootElement": [package],
        },
        {"type": "ai_AIPackage", "spdxId": package, **information, **_package(row)},
    ]
    return {"@context": CONTEXT, "@graph": graph}


def energy_consumption(row: SummaryRow) -> dict[str, Any]:
    """The energy block of a row: what is known of training, fine-tuning and one inference."""
    training_wh, finetuning_wh, _ = training_of(row)
    parts = {
        "ai_trainingEnergyConsumption": training_wh,
        "ai_finetuningEnergyConsumption": finetuning_wh or math.nan,
        "ai_inferenceEnergyConsumption": row.iec_wh,
    }
    block: dict[str, Any] = {"type": "ai_EnergyConsumption"}
    for name, value_wh in parts.items():
        if math.isfinite(value_wh):
            block[name] = [
                {
                    "type": "ai_EnergyConsumptionDescription",
                    "ai_energyQuantity": _decimal(value_wh, KILO),
                    "ai_energyUnit": "kilowattHour",
                }
            ]
    return block


def _package(row: SummaryRow) -> dict[str, Any]:
    """What is said of the network itself."""
    about = (
        f"{row.data}, {row.classes} classes; recipe {row.recipe}, scale {row.scale} ({row.train_images} images), "
        f"{row.train_precision}, profile {row.profile}, on {row.train_machine}; {row.n_seeds} seed(s)"
    )
    comment = (
        f"Energy {how_known(row)}, of the device alone, idle power included. Inference is the energy of one inference "
        f"(one image) with {row.engine} {row.engine_version} in {row.deploy_precision} on {row.infer_machine}. "
        f"Training: {training_of(row).kind}."
    )
    return {
        "name": one_line(f"{row.method} {row.model}"),
        "comment": one_line(comment),
        "software_primaryPurpose": "model",
        "ai_domain": ["image classification"],
        "ai_informationAboutTraining": one_line(about),
        "ai_metric": [{"type": "DictionaryEntry", "key": key, "value": value} for key, value in _metrics(row)],
        "ai_energyConsumption": energy_consumption(row),
    }


def _metrics(row: SummaryRow) -> Iterator[tuple[str, str]]:
    known = {"top-1 accuracy (%)": row.acc_pct, "parameters": row.params, "multiply-accumulates": row.macs}
    yield from ((name, _decimal(value)) for name, value in known.items() if math.isfinite(value))


def _decimal(value: float, thousands: int = 0) -> str:
    """A number, so many times divided by a thousand, as xsd:decimal has it: without an exponent, and exact."""
    return format(Decimal(repr(float(value))).scaleb(-3 * thousands).normalize(), "f")


def _date(created: str) -> str:
    """A time in the one form that SPDX takes; of one that cannot be read, now."""
    try:
        read = datetime.fromisoformat(created)
        when = read.astimezone(UTC) if read.tzinfo else read
    except (ValueError, OverflowError):
        when = datetime.now(UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _id(kind: str, name: str) -> str:
    """The same name for the same thing in every export."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{TOOL}/{kind}/{name}").urn
