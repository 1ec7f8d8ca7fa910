"""The first hour on a new GPU machine, as one command that continues where it stopped.

    make gpu-first [minutes=27] [python=/path/to/python3] [wheels=DIR] [data=DIR] [results=DIR]

It probes and checks the meter, runs the tests that need a GPU, measures speed ratios, then makes real rows, in slices
of at most nine minutes. After every step it writes state and report to results/devices/<machine>-gpu-first.{json,md};
the output of steps goes to artifacts/gpu-first/. On a machine without a network `wheels` holds the packages that its
Python lacks (hydra-core, omegaconf, antlr4-python3-runtime, pydantic, rich and their dependencies). Exit status 1 where
a step failed or there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_first_report import report
from gpu_first_steps import MODULES, Places, Step, all_steps

ROOT = Path(__file__).resolve().parents[1]
SLICE_S = 540.0
GRACE_S = 25.0
"""Seconds at the end of a slice for closing windows and writing journals, after the step was asked to end."""
SAID_LINES, SAID_CHARACTERS = 30, 300
LOOK = """
import importlib.metadata, importlib.util, json, platform, sys
found = {name: importlib.util.find_spec(name) is not None for name in sys.argv[1:]}
told = {"python": platform.python_version(), "modules": found, "device": None}
try:
    told["torch"] = importlib.metadata.version("torch")
except importlib.metadata.PackageNotFoundError:
    told["torch"] = None
if found["pynvml"]:
    from benchmark.energy import DeviceError, find_device
    from benchmark.records.provenance import commit
    told["commit"] = commit()
    try:
        device = find_device("auto")
        told["why"] = device.why_not_better[0] if device.why_not_better else ""
        if device.kind == "cuda":
            names = ("name", "machine", "uuid", "driver", "source", "grade_best")
            told["device"] = {name: getattr(device, name) for name in names}
    except DeviceError as error:
        told["why"] = str(error)
print(json.dumps(told))
"""


class NotReady(Exception):
    """This machine cannot begin; the message says why, in one line."""


@dataclass
class Done:
    """The result of a step: 'passed', 'failed', 'skipped', or 'cut off' (the next call continues it)."""

    status: str
    why: str = ""
    seconds: float = 0.0
    tries: int = 0
    at: str = ""
    commit: str = ""
    said: list[str] = field(default_factory=list)


@dataclass
class Hour:
    """One call: the steps, their results so far, and the time that is left."""

    places: Places
    machine: dict[str, Any]
    steps: Sequence[Step]
    until: float
    slice_s: float = SLICE_S
    done: dict[str, Done] = field(default_factory=dict)

    @property
    def stem(self) -> Path:
        """The path of state and report, without their suffixes."""
        return self.places.results / "devices" / f"{self.machine['device']['machine']}-gpu-first"

    def left_s(self) -> float:
        """Seconds left of this call."""
        return self.until - time.monotonic()

    def resume(self) -> None:
        """Take over the results of earlier calls for this board and driver; failures at another commit are tried
        again."""
        try:
            before = json.loads(self.stem.with_suffix(".json").read_text())
        except (OSError, ValueError):
            return
        same = all(before.get("device", {}).get(name) == self.machine["device"][name] for name in ("uuid", "driver"))
        known = {step.name for step in self.steps}
        for name, told in before.get("steps", {}).items() if same else ():
            try:
                done = Done(**told)
            except TypeError:  # another version wrote it: the step is run again
                continue
            changed = done.status == "failed" and done.commit != self.machine["commit"]
            if name in known and done.status in ("passed", "failed", "cut off") and not changed:
                self.done[name] = done

    def write(self) -> None:
        """Write state and report."""
        told = {name: value for name, value in self.machine.items() if name != "modules"}
        told["steps"] = {name: asdict(done) for name, done in self.done.items()}
        _replace(self.stem.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
        _replace(self.stem.with_suffix(".md"), report(told, [step.name for step in self.steps]))

    def work(self) -> None:
        """Run every step that has no final result and fits into the time that is left."""
        for step in self.steps:
            while self._may_begin(step):
                self._one_slice(step)
                self.write()

    def _may_begin(self, step: Step) -> bool:
        known = self.done.get(step.name)
        if known and known.status in ("passed", "failed"):
            return False
        if why := self._why_skipped(step):
            self.done[step.name] = Done("skipped", why)
            print(f"{step.name}: skipped: {why}", flush=True)
            return False
        if self.left_s() < step.least_s + GRACE_S:
            print(f"{step.name}: {max(0, self.left_s()):.0f} s are left, it needs {step.least_s:.0f}", flush=True)
            return False
        return True

    def _why_skipped(self, step: Step) -> str:
        for name in step.needs:
            if not self.machine["modules"].get(name):
                return f"{name} is not installed"
        before = {name: self.done.get(name, Done("")).status for name in (step.after, step.instead_of) if name}
        if step.instead_of and before[step.instead_of] not in ("failed", "skipped"):
            return f"only where {step.instead_of!r} fails"
        if step.after and before[step.after] != "passed":
            return f"{step.after!r} did not pass"
        return ""

    def _one_slice(self, step: Step) -> None:
        before = self.done.get(step.name, Done("cut off"))
        allowed = min(self.slice_s, self.left_s(), step.limit_s or self.slice_s)
        log = self.places.artifacts / "gpu-first" / (re.sub(r"[^a-z0-9]+", "-", step.name.lower()) + ".log")
        print(f"{step.name}: at most {allowed:.0f} s", flush=True)
        began, spoken = time.monotonic(), log.stat().st_size if log.exists() else 0
        status, why = run((self.places.python, *step.command), log, allowed)
        if status == "cut off" and not step.resumable and allowed >= min(step.limit_s, self.slice_s):
            status, why = "failed", f"it did not end within {allowed:.0f} s"
        said = _said(log, spoken)
        seconds = before.seconds + time.monotonic() - began
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        self.done[step.name] = Done(status, why, seconds, before.tries + 1, stamp, self.machine["commit"], said)
        last = f": {said[-1]}" if said else ""
        print(f"{step.name}: {status}{f' ({why})' if why else ''} after {seconds:.0f} s{last}", flush=True)


def run(command: Sequence[str], log: Path, seconds: float) -> tuple[str, str]:
    """(status, why) of a command that may run for `seconds`; its output is appended to the log.

    When the time is over the command is asked to end, as by Ctrl-C, and is killed a moment later.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)!r}\n".encode())
        file.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(max(1.0, seconds - GRACE_S))
        except subprocess.TimeoutExpired:
            _end(process)
            return "cut off", f"its time was over after {seconds - GRACE_S:.0f} s"
        except BaseException:  # Ctrl-C: the step must not run on without us
            _end(process)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # ends the workers that a killed step left behind
    return ("passed", "") if status == 0 else ("failed", f"exit status {status}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_S - 5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _said(log: Path, start: int) -> list[str]:
    """The last lines of a step's output after position `start`; of a progress line only its last state."""
    words = log.read_bytes()[start:].decode(errors="replace").partition("\n")[2]
    lines = [line.rpartition("\r")[2].rstrip()[:SAID_CHARACTERS] for line in words.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line][-SAID_LINES:]


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(path.suffix + ".new")
    new.write_text(text)
    new.replace(path)


def unpack(wheels: Path, python: str, target: Path) -> None:
    """Put the folder's wheels on the path of every step, without a network. Raises NotReady."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise NotReady(f"there are no wheels in {wheels}")
    options = ("--no-index", "--no-deps", "--upgrade", "--quiet", "--disable-pip-version-check")
    command = [python, "-m", "pip", "install", *options, "--target", str(target), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        raise NotReady(f"{wheels} cannot be unpacked for {python}: {last}")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(target), os.environ.get("PYTHONPATH"))))


def look(python: str, steps: Sequence[Step]) -> dict[str, Any]:
    """The modules of the interpreter, and the GPU it would use. Raises NotReady where something is missing."""
    names = dict.fromkeys((*MODULES, *(name for step in steps for name in step.needs)))
    try:
        done = subprocess.run([python, "-c", LOOK, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotReady(f"{python} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise NotReady(f"{python} cannot report its modules and GPU: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["modules"]["pynvml"] and found["device"] is None:
        raise NotReady(f"there is no GPU here ({found['why']})")
    missing = [name for name in MODULES if not found["modules"][name]]
    if missing:
        raise NotReady(f"{python} has no {', '.join(missing)}: install them, or give their wheels: wheels=DIR")
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=27.0, help="minutes of this call in all (27)")
    parser.add_argument("--slice", type=float, default=SLICE_S / 60, help="minutes of one step without a break (9)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
    parser.add_argument("--wheels", type=Path, help="a folder with the wheels that this interpreter lacks")
    for name in ("results", "data", "artifacts"):
        parser.add_argument(f"--{name}", type=Path, default=Path(name))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, plan: Callable[[Places], Sequence[Step]] = all_steps) -> int:
    """Run steps for the given minutes; returns the exit status."""
    began = time.monotonic()
    options = parse(arguments)
    folders = (path.expanduser().resolve() for path in (options.results, options.data, options.artifacts))
    # a path must also be valid from the repository's root, and a link into an environment must stay a link
    python = os.path.abspath(options.python) if os.sep in options.python else options.python
    places = Places(python, *folders)
    os.environ["PYTHONUNBUFFERED"] = "1"
    steps = plan(places)
    try:
        if options.wheels:
            unpack(options.wheels.resolve(), places.python, places.artifacts / "gpu-first" / "site")
        machine = look(places.python, steps)
    except NotReady as error:
        print(f"gpu-first: {error}", file=sys.stderr)
        return 1
    hour = Hour(places, machine, steps, began + 60 * options.minutes, 60 * options.slice)
    hour.resume()
    print(f"{machine['device']['name']}, driver {machine['device']['driver']}: {options.minutes:g} minutes", flush=True)
    try:
        hour.work()
    except KeyboardInterrupt:
        print("interrupted: the same command continues from here", file=sys.stderr)
        return 130
    finally:
        hour.write()
    return _close(hour)


def _close(hour: Hour) -> int:
    """Print where the report is and whether steps are left; returns the exit status."""
    found: dict[str, list[str]] = {}
    for step in hour.steps:
        found.setdefault(hour.done.get(step.name, Done("not begun")).status, []).append(step.name)
    for status, names in found.items():
        print(f"{status:<10} {len(names):>2}: {', '.join(names)}")
    print(f"written: {hour.stem}.md and .json")
    if found.get("cut off") or found.get("not begun"):
        print("unfinished: run the same command again to continue")
    return 1 if found.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
