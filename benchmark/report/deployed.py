"""What a row says of the engine itself: what it executes, how far it agrees with its network, and what it lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from benchmark.plan.asked import MAX_DROP_PCT as MAX_DROP_PCT
from benchmark.plan.task import DeployPrecision
from benchmark.records.record import Record

NOTHING: Mapping[str, Any] = {
    "executed_precision": "", "layout": "", "comparable_to_tensorrt": "", "agreement_pct": math.nan, "warning": ""
}  # fmt: skip  # one value a line would hide the shape
"""What a stage before deployment says of it."""


def of_engine(record: Record | None, precision: str, max_drop_pct: Mapping[DeployPrecision, float]) -> dict[str, Any]:
    """The columns about an engine, from the record of the stage that built it."""
    if record is None:
        return dict(NOTHING)
    executes = record.details.get("executes")
    told: Mapping[str, Any] = executes if isinstance(executes, Mapping) else {}
    comparable = told.get("comparable_to_tensorrt")
    return {
        "executed_precision": str(told.get("precision", "")),
        "layout": str(told.get("layout", "")),
        "comparable_to_tensorrt": "" if comparable is None else "yes" if comparable else "no",
        "agreement_pct": record.values.get("agreement_pct", math.nan),
        "warning": _lost(record, precision, max_drop_pct),
    }


def _lost(record: Record, precision: str, max_drop_pct: Mapping[DeployPrecision, float]) -> str:
    """A sentence where the engine lost more accuracy than is allowed for its precision; '' where it did not."""
    network, engine = (record.values.get(name, math.nan) for name in ("network_acc_pct", "acc_pct"))
    allowed = max_drop_pct.get(cast(DeployPrecision, precision), math.nan)
    if not network - engine > allowed:
        return ""
    return (
        f"the {precision} engine has {engine:.2f} % and PyTorch {network:.2f} % on the same images: "
        f"{network - engine:.2f} points are lost, {allowed:g} are allowed (max_drop_pct)"
    )
