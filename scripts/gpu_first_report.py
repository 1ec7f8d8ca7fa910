"""The report of `gpu_first.py`: what was seen, what was not, and each step's output. Markdown from plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_first_steps import NOT_BUILT, QUESTIONS

NOT_BEGUN = {"status": "not begun", "why": "", "seconds": 0.0, "said": [], "at": ""}


def report(told: Mapping[str, Any], names: Sequence[str]) -> str:
    """The text for a state: `told` is the content of the state's file, `names` are those of the steps, in order."""
    done = {name: told["steps"].get(name, NOT_BEGUN) for name in names}
    return "\n".join((*_head(told), *_answers(done), *_table(done), *_words(done))) + "\n"


def _head(told: Mapping[str, Any]) -> Iterator[str]:
    device = told["device"]
    yield f"# First hour on {device['name']}"
    yield ""
    yield f"Machine {device['machine']}, board {device['uuid']}, driver {device['driver']}."
    yield f"Meter {device['source'] or 'none'}, best grade {device['grade_best']}."
    yield f"Python {told['python']}, torch {told['torch']}, commit {told['commit']}."
    yield ""


def _answers(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The questions in order, each with its answer: seen, seen to fail, or not seen and why."""
    yield "## What only a GPU can show"
    yield ""
    for question, steps in QUESTIONS:
        known = [name for name in steps if name in done]
        states = {name: done[name]["status"] for name in known}
        if any(state == "failed" for state in states.values()):
            word = "**FAILED**"
        elif known and all(state == "passed" for state in states.values()):
            word = "seen"
        else:
            word = "not seen" if "passed" not in states.values() else "seen in part"
        where = "; ".join(f"{name}: {_state(done[name])}" for name in known)
        yield f"- {word}: {question} ({where or 'no such step in this run'})"
    yield ""
    yield "Rows of the paper's Table 3 without a step:"
    yield ""
    yield from (f"- not seen: {row} ({why})" for row, why in NOT_BUILT)
    yield ""


def _state(done: Mapping[str, Any]) -> str:
    return f"{done['status']}, {done['why']}" if done["why"] else str(done["status"])


def _table(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "## Steps"
    yield ""
    yield "| step | | seconds | when |"
    yield "|---|---|---|---|"
    for name, each in done.items():
        seconds = f"{each['seconds']:.0f}" if each["seconds"] else ""
        yield f"| {name} | {_state(each)} | {seconds} | {each['at']} |"
    yield ""


def _words(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The last output of each step."""
    for name, each in done.items():
        if each["said"]:
            yield f"## {name}"
            yield ""
            yield "```text"
            yield from (line.replace("```", "'''") for line in each["said"])
            yield "```"
            yield ""
