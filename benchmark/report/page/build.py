"""The page as one file: the template, our script and style, uPlot (MIT, vendored), and the data. Nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def page(data: dict[str, Any]) -> str:
    """The HTML. Names in `data` are data: they are parsed as JSON and shown as text, and the page's own policy runs no
    script but the two that it was made with."""
    style = _part("vendor/uPlot.min.css") + _part("page.css")
    library, script = _part("vendor/uPlot.iife.min.js"), _part("figures.js") + _part("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {"POLICY": policy, "STYLE": style, "LIBRARY": library, "SCRIPT": script, "DATA": _json(data)}
    text = _part("page.html")
    for name, part in parts.items():
        before, mark, after = text.partition(f"@@{name}@@")
        if not mark:
            raise AssertionError(f"page.html has no place for {name}")
        text = before + part + after
    return text


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """JSON that ends no script element and opens no comment, whatever a name holds."""
    told = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: no line separators of other alphabets
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
