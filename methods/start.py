"""What a method starts from: plain training, or the plan of another method where `start` names one. Needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic import ValidationError

from benchmark.plan.stage import Plan
from benchmark.plan.task import Task
from methods.baseline import Baseline


class Start(Protocol):
    """A method whose plan ends in a trained network."""

    def plan(self, task: Task) -> Plan: ...
    def check(self, task: Task) -> None: ...


def start_of(block: Mapping[str, Any] | None) -> Start:
    """The method of a block as in configs/method (`_target_`, `name`, hyper-parameters), or plain training for None.

    Raises ValueError where the block does not make a method.
    """
    if block is None:
        return Baseline()
    module, _, name = str(block.get("_target_", "")).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        words = {key: value for key, value in block.items() if key not in ("_target_", "name")}
        return cast(Start, kind.model_validate(words))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"start: {block.get('name')} is not a method ({error})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ValueError(f"start.{found}") from error
