"""`COMMAND --help`: what one command does, and the words it takes. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark.gathering import WORDS as DATA

FOLDERS = ("paths.results=results", "paths.artifacts=artifacts", "scale=smoke  (the throw-away folder results/.smoke)")
WORDS = {
    "advise": (
        "mui=2e8            inferences in the network's life (10M, 1.5B are understood); needed",
        "min_acc=70         least accuracy, percent",
        "tau=2              exponent of accuracy in G",
        "source=records     records | paper (the paper's own table)",
    ),
    "report": (
        "source=records     records | paper",
        "--no-figures       leaves the figures out (they take 8 to 20 s)",
        "exports=true       files for CodeCarbon, SPDX 3.0.1 and model cards",
        "# of configs/config.yaml: tau mui max_drop_pct price_kwh price_device_hour country grid_g_per_kwh pue",
    ),
    "check": (),
    "free": ("--dry-run          only lists them", "--without=DIR      keeps what the results folder DIR needs"),
    "device": (
        "hardware=auto      auto | cpu | gpu",
        "--probe            finds out what meter and board can do",
        "--compare          what other energy tools say of the same minute (--seconds=20)",
    ),
    "export": ("file=results.zip   needed", "models=true        the networks, too"),
    "import": ("file=results.zip   needed",),
    "data": tuple(
        f"{f'{name}={usual}':<18} {told}{'' if usual else '; needed'}" for name, (usual, told) in DATA.items()
    ),
}
"""What the commands take that take less than `run`; a line that begins with # names settings of configs/config.yaml."""


def help_of(command: str, whole: str) -> str:
    """The help of one command that is not about experiments; `whole` is the help of all."""
    lines = [f"usage: python -m benchmark {command} [name=value ...]", "", *entry(command, whole), ""]
    lines += ["words, with their usual values", *(f"  {line}" for line in _words(WORDS[command]))]
    if command != "data":
        lines += [f"  {line}" for line in (*FOLDERS, "--config-dir DIR   your own choices, searched like configs/")]
    return "\n".join(lines) + "\n"


def _words(told: Sequence[str]) -> Iterator[str]:
    from benchmark.plan.folders import CONFIGS

    settings = (CONFIGS / "config.yaml").read_text().splitlines()
    for line in told:
        if not line.startswith("#"):
            yield line
            continue
        names = line.rpartition(":")[2].split()
        yield from (each for each in settings if each.partition(":")[0] in names)


def entry(command: str, whole: str) -> list[str]:
    """The lines on a command in the help of all."""
    found: list[str] = []
    for line in whole.splitlines():
        if line.startswith(f"  {command} ") or (found and line.startswith("     ")):
            found.append(line)
        elif found:
            break
    return found
