"""The summary in Markdown and LaTeX: what is printed, with every name a name."""

from __future__ import annotations

from benchmark.report.markup import latex, markdown

ROWS = [
    {"method": "pruning/l1", "model": "nni/vgg16", "acc %": "70.10", "TEC W.h": "~1.5 ±3%"},
    {"method": r"a|b \input{x} <b>", "model": "[link](http://x)_$y$", "acc %": "1.00", "TEC W.h": "-"},
]
NOTES = ["energy from nvml:counter; tau = 2", "note: a & b"]


def test_markdown_holds_every_cell_and_no_markup_of_a_name():
    lines = markdown(ROWS, NOTES).splitlines()
    assert lines[0] == "| method | model | acc % | TEC W.h |"
    assert lines[2] == "| pruning/l1 | nni/vgg16 | 70.10 | ~1.5 ±3% |"
    assert lines[3] == r"| a\|b \\input\{x\} \<b\> | \[link\](http://x)\_$y$ | 1.00 | - |"
    assert lines[-1] == r"* note: a \& b"


def test_latex_holds_every_cell_and_no_command_of_a_name():
    said = latex(ROWS, NOTES)
    assert r"pruning/l1 & nni/vgg16 & 70.10 & $\sim$1.5 $\pm$3\% \\" in said
    assert r"a|b \textbackslash{}input\{x\} \textless{}b\textgreater{}" in said
    assert r"\_\$y\$" in said
    assert said.count(r"\\") == 3
    assert r"note: a \& b." in said
