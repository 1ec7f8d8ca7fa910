"""`device --compare`: what other energy tools would have reported of the same minute of work."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from benchmark.common import say
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.run.peers.told import Told

SECONDS = "--seconds="
LEAST_S, MOST_S = 1.0, 3600.0
WIDE, JOIN = 120, "\0"
NOTE = """\
~ an estimate, or a number that holds one: a model of the CPU, of memory or of a building
All tools ran at once around one and the same loop, ours innermost. Their threads and child processes cost energy, too,
which all of them saw; tools that start first are on longer. docs/energy.md says why the numbers differ."""


def compare(words: Sequence[str]) -> int:
    """Print the table: [--seconds=60] and the words that choose a device."""
    from benchmark.energy import find_device
    from benchmark.plan.config import compose
    from benchmark.run.peers import side_by_side

    given = [word for word in words if word.startswith(SECONDS)]
    seconds = _seconds(given[-1].removeprefix(SECONDS)) if given else side_by_side.A_MINUTE_S
    device = find_device(str(compose([word for word in words if word not in given]).hardware.device))
    told = side_by_side.compare(device, seconds, say)
    print("\n".join([f"device   {device.name} ({device.torch_name}), machine {device.machine}", *lines(told), NOTE]))
    return 0


def lines(told: Sequence[Told]) -> Iterator[str]:
    """The table, of each tool its numbers, then how it got them or why it has none."""
    wide = max([len("tool"), *(len(row.tool) for row in told)])
    yield f"{'tool':{wide}}  {'version':>8}  {'W h':>9}  {'seconds':>7}  {'mean W':>7}"
    for row in told:
        mark = "~" if row.estimate else ""
        numbers = (_number(row.wh, ".4f", mark), _number(row.seconds, ".1f"), _number(row.mean_w, ".2f", mark))
        yield f"{row.tool:{wide}}  {row.version:>8}  {numbers[0]:>9}  {numbers[1]:>7}  {numbers[2]:>7}"
        for text in _said(row):
            whole = text.replace(" W h", f"{JOIN}W{JOIN}h")  # a number and its unit stay on one line
            for line in textwrap.wrap(whole, WIDE, initial_indent="    ", subsequent_indent="    "):
                yield line.replace(JOIN, " ")


def _said(row: Told) -> Iterator[str]:
    if row.why:
        yield f"{'none' if math.isnan(row.wh) else 'doubtful'}: {row.why}"
    if not math.isnan(row.wh):
        yield row.how


def _number(value: float, form: str, mark: str = "") -> str:
    return "-" if math.isnan(value) else f"{mark}{value:{form}}"


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        raise UserError(f"{SECONDS}{word} is no number") from None
    if not LEAST_S <= seconds <= MOST_S:
        raise UserError(f"{SECONDS}{word}: from {LEAST_S:g} to {MOST_S:g} seconds")
    return seconds
