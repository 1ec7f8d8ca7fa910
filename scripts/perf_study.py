"""How long planning and reporting take: a dry run of the 216 sets, a report of 100,000 records, a recorded study.

Goals (the issue's): under 5 s, seconds, under 2 s. Two runs of each, interleaved, show what the machine leaves open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benchmark.records.record import dump, read_record, sealed

RUN = [sys.executable, "-m", "benchmark"]


def seconds(*words: str) -> float:
    """The wall time of a command, in a process of its own. Raises where it fails."""
    began = time.perf_counter()
    subprocess.run([*RUN, *words], check=True, capture_output=True)
    return time.perf_counter() - began


def many(results: Path, count: int) -> None:
    """Records of one smoke life, repeated under other keys until there are `count`."""
    firsts = [read_record(path) for path in sorted(results.glob("records/*/*.json")) if path.name.count(".") == 1]
    for number in range(count):
        record = firsts[number % len(firsts)]
        other = sealed(record.model_copy(update={"key": uuid.uuid4().hex[:20]}))
        (results / "records" / record.machine / f"{other.key}.json").write_bytes(dump(other))


def main() -> None:
    """Time the three, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="records of the large folder (default: 100000)")
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"paths.results={folder}/r", f"paths.artifacts={folder}/a", "hardware=cpu"]
        dry = ["study", "experiment=full", "--dry-run", *paths]
        small = ["study", "experiment=smoke", "--only=method=baseline", "data=synthetic", *paths]
        first = seconds(*small)
        found: dict[str, list[float]] = {"dry run of 216 sets": [], "a study of one life, recorded": []}
        for _ in range(3):
            found["dry run of 216 sets"].append(seconds(*dry))
            found["a study of one life, recorded"].append(seconds(*small))
        many(Path(folder) / "r", count)
        found[f"report of {count} records"] = [seconds("report", "--no-figures", *paths[:1]) for _ in range(2)]
    print(json.dumps({"a study of one life, worked (s)": round(first, 2)}))
    for name, times in found.items():
        print(f"{name}: {min(times):.2f} s (from {min(times):.2f} to {max(times):.2f}, n = {len(times)})")


if __name__ == "__main__":
    main()
