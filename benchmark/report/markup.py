"""The summary as Markdown and as LaTeX: what is printed, for a paper or a page. Names from records are escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from benchmark.errors import one_line

Cells = Mapping[str, str]


def markdown(rows: Sequence[Cells], notes: Sequence[str], title: Sequence[str] = ()) -> str:
    """A table in GitHub's Markdown, the lines of the title above it, the notes below it as a list."""
    headings = list(rows[0])
    lines = [*(f"{_markdown(line)}  " for line in title), *([""] if title else [])]  # two spaces: a line of its own
    lines += [_line(headings), _line(["---"] * len(headings))]
    lines += [_line([_markdown(row[name]) for name in headings]) for row in rows]
    return "\n".join([*lines, "", *(f"* {_markdown(note)}" for note in notes)]) + "\n"


def latex(rows: Sequence[Cells], notes: Sequence[str], title: Sequence[str] = ()) -> str:
    """A tabular (package booktabs) in which every row is a line, the title above it, the notes as a paragraph below."""
    headings = list(rows[0])
    body = [" & ".join(_latex(row[name]) for name in headings) + r" \\" for row in rows]
    head = " & ".join(_latex(name) for name in headings) + r" \\"
    lines = [rf"\noindent {_latex(line)}\\" for line in title]
    lines += [rf"\begin{{tabular}}{{{'l' * len(headings)}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    below = [r"\par " + " ".join(f"{_latex(note)}." for note in notes)] if notes else []
    return "\n".join([*lines, r"\end{tabular}", "", *below]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    """A text that no Markdown reader takes for markup, a link or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&])", r"\\\1", one_line(text))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip  # one sign a line would hide the table


def _latex(text: str) -> str:
    """A text that commands no LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))
