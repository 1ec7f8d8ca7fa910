"""Probes the board for the commands and a worker: what its meters can do, kept as a device record. Torch only where
there is a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmark.energy import Device, DeviceError, DeviceLock, probe
from benchmark.records.provenance import now, provenance
from benchmark.records.store import Store

SHOWN_S = 40.0
"""About how long probing a GPU takes: ten seconds of idle power twice, and the periods."""


def probe_board(device: Device, store: Store, say: Callable[[str], None]) -> dict[str, Any]:
    """Probe a device, keep what was found under results/devices, and return it with its `file`.

    Holds the board's lock meanwhile: a job beside it would be taken for idle power. Raises DeviceBusy or StoreError.
    """
    problems: list[str] = []
    if device.kind == "cuda":
        say(f"probing for about {SHOWN_S:.0f} s")
        with DeviceLock(device):
            facts = probe(device, create_context=lambda: _context(device, problems), cap_s=SHOWN_S)
    else:
        facts = probe(device)
    if problems:
        facts["idle_context_w"] = None
        facts["notes"] += [f"idle power with a context: {problem}" for problem in problems]
    facts |= {"created": now(), **{name: provenance()[name] for name in ("commit", "versions")}}
    return {**facts, "file": str(store.add_device(device.machine, facts))}


def _context(device: Device, problems: list[str]) -> None:
    """Make a CUDA context; where torch cannot, the reason is kept and the rest of the probe goes on."""
    from benchmark.run.process import ready

    try:
        ready(device)
    except (DeviceError, ImportError) as error:
        problems.append(str(error))


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """What a probe found, for people."""
    if "call_us" in facts:
        yield f"counter  {_of(facts['counter_tick_ms'], 'a tick of {:.1f} ms')}"
        for source, field in facts["power_fields"].items():
            yield f"power    {source}: {_field(field, facts['unsupported'].get(source, ''))}"
        ring = facts["samples"]
        kept = f"{ring['length']} kept, one every {_of(ring['period_ms'], '{:.1f} ms')}" if ring["supported"] else ""
        yield f"samples  {kept or 'none: ' + ring['reason']}"
        yield f"field    191 (energy): {'answers' if facts['energy_field_191'] else 'not supported'}"
        bare, context = (_of(facts[name], "{:.1f} W") for name in ("idle_bare_w", "idle_context_w"))
        yield f"idle     bare {bare}, with a CUDA context {context}"
        costs = (f"{name} {_of(cost, '{:.0f} us')}" for name, cost in facts["call_us"].items())
        yield f"calls    {', '.join(costs)}"
    for note in facts["notes"]:
        yield f"note     {note}"
    yield f"kept     {facts['file']}"


def _field(field: Mapping[str, Any], refused: str) -> str:
    if not field["supported"]:
        return f"not supported ({refused})"
    table = f"table: T {field['table_T_ms']:.0f} ms, W {field['table_W_ms']:.0f} ms ({field['table_origin']})"
    return f"renewed every {_of(field['period_ms'], '{:.1f} ms')}; {table}"


def _of(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)
