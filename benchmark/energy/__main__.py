"""`python -m benchmark.energy -- COMMAND ...`: the energy of a whole command, its child processes included."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import DeviceError
from benchmark.energy.windows.tracer import EnergyTracer

NOT_FOUND, NOT_RUNNABLE = 127, 126
"""What a shell says of a command that is not there, or may not be run."""


_RAN: list[int] = []
"""The process of the command, once it runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command under a window and return its exit status (128 + n where signal n ended it), as a shell does.

    The last line on stderr is the reading, but for a note on other work beside it; --json FILE keeps it as data. The
    command's own output stays its own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.energy",
        description="Measure a command: its energy with a 95 % interval, the meter, and how far to trust it.",
        epilog="example: python -m benchmark.energy --json energy.json -- python train.py --epochs 3",
    )
    parser.add_argument("--device", default="auto", help="auto (first visible GPU, else the CPU), cpu, cuda:0, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reading, with its history, into FILE")
    parser.add_argument(
        "--tdp", type=float, metavar="W", help="rated watts of this CPU, for the estimate of last resort"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, after --")
    words = parser.parse_args(arguments)
    command = words.command[1:] if words.command[:1] == ["--"] else words.command
    if not command:
        parser.error("name the command to measure after --")
    try:
        tracer = EnergyTracer(words.device, cpu_tdp_w=words.tdp)
    except (DeviceError, ValueError) as error:
        parser.error(str(error))
    if words.json is not None:
        _check_writable(parser, words.json)
    with tracer, tracer.window(Path(command[0]).name) as window:
        status = _run(command)
    if status in (NOT_FOUND, NOT_RUNNABLE) and not _RAN:
        return status  # nothing ran, so there is nothing to say of it
    reading: Reading = window.reading
    print(reading, file=sys.stderr)
    if reading.disturbance:
        print(f"note: {reading.disturbance}", file=sys.stderr)
    if words.json is not None:
        wh = None if math.isnan(reading.wh) else reading.wh
        content = {"command": command, "exit_status": status, "wh": wh, **reading.to_json()}
        for name in ("children", "self_joules"):  # of windows inside it, and there are none: no word on child processes
            del content[name]
        words.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return status


def _check_writable(parser: argparse.ArgumentParser, path: Path) -> None:
    """End with one line before the work where its result could not be kept."""
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        parser.error(f"--json {path}: no file can be written there")


def _run(command: Sequence[str]) -> int:
    """The command's exit status. Ctrl-C reaches it by the terminal, SIGTERM by us; then we wait for its end."""
    children: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        for child in children:
            child.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)  # first: one that comes while the command starts is not lost
    try:
        children.append(subprocess.Popen(command))
        _RAN.append(children[0].pid)
        if asked:
            children[0].terminate()
        return _awaited(children[0])
    except FileNotFoundError:
        print(f"error: there is no command {command[0]!r}", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"error: cannot run {command[0]!r}: {error.strerror or error}", file=sys.stderr)
        return NOT_RUNNABLE
    finally:
        signal.signal(signal.SIGTERM, before)


def _awaited(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            status = child.wait()
            return status if status >= 0 else 128 - status
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
