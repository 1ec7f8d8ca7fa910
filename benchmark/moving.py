"""Results that travel: `export` and `import`, a function each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmark.common import folders_of, say
from benchmark.errors import UserError


def export(words: list[str]) -> int:
    """Write what a results folder holds into one file: file=NAME.zip; models=true adds the networks."""
    from benchmark.records.archive import write_archive
    from benchmark.records.provenance import provenance

    path, models, rest = _asked(words, takes_models=True)
    store, _ = folders_of(rest)
    counts, left_out = write_archive(store, path, str(provenance()["commit"]), models)
    for line in left_out:
        say(f"left out: {line}")
    print(f"{path}: {_counted(counts)}, {path.stat().st_size / 1e6:.1f} MB")
    return 1 if left_out else 0


def take_in(words: list[str]) -> int:
    """Take what is new in an archive; 1 where something conflicts with what is here, which stays."""
    from benchmark.plan.config import compose, report_of
    from benchmark.records.archive import read_archive
    from benchmark.records.store import Store

    path, _, rest = _asked(words, takes_models=False)
    if not path.is_file():
        raise UserError(f"there is no file {path} to import")
    paths, _ = report_of(compose(rest))
    store = Store(paths.results, paths.artifacts)
    store.check_writable()
    imported = read_archive(store, path)
    print(f"new: {_counted(imported.new)}; here already: {_counted(imported.here)}")
    for line in imported.conflicts:
        say(f"conflict: {line}")
    if imported.conflicts:
        raise UserError(
            f"{len(imported.conflicts)} file(s) of {path} say something else than those under {store.results}"
        )
    return 0


def _asked(words: Sequence[str], takes_models: bool) -> tuple[Path, bool, list[str]]:
    """The file, whether networks go along, and the other words."""
    given: dict[str, str] = {}
    rest = []
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if name in ("file", *(["models"] if takes_models else [])):
            given[name] = value or "true"
        elif word.startswith("-"):
            raise UserError(f"unknown flag {word}; there are file=NAME.zip{' and models=true' if takes_models else ''}")
        else:
            rest.append(word)
    if given.get("file", "true") == "true":
        raise UserError("name the archive: file=NAME.zip")
    if given.get("models", "false") not in ("true", "false"):
        raise UserError(f"models={given['models']}: true or false")
    return Path(given["file"]).expanduser(), given.get("models") == "true", rest


def _counted(counts: Counter[str]) -> str:
    named = [f"{count} {kind}{'' if count == 1 or kind == 'samples' else 's'}" for kind, count in counts.items()]
    return ", ".join(named) or "nothing"
