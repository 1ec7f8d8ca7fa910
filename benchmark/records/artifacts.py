"""What stages hand on, as files that may be deleted at any time: safetensors with a JSON header, never a pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from benchmark.plan.stage import EngineFile, Network, Output
from benchmark.plan.task import Config
from benchmark.records.files import StoreError, Unreadable, listed, plain, read_words, replace
from benchmark.records.lease import Leases


class Stored(NamedTuple):
    """What lies in an artifact's file: SHA-256 and bytes."""

    sha256: str
    size: int


class NetworkHeader(Config):
    """What a file says of a network beside its tensors. Its builder is checked where it is called."""

    builder: str
    kwargs: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EngineHeader(Config):
    """What a file says of an engine beside its tensors."""

    kind: str
    facts: dict[str, Any]
    executes: dict[str, Any]
    signature: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    evidence: dict[str, Any] = Field(default_factory=dict)


class Header(Config):
    """The JSON header of an artifact; a value that is no number is null."""

    network: NetworkHeader | None
    engine: EngineHeader | None
    values: dict[str, float | None]
    details: dict[str, Any]


class Artifacts:
    """The disposable folder of a study: a file for each output, checkpoints, leases. Several results folders may share
    it: a file is named by its stage's key and its own SHA-256, so that two copies of one stage never meet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._leases = Leases(folder / "leases")

    def path(self, key: str, sha256: str) -> Path:
        """The file of one copy of a stage's output."""
        return self.folder / f"{key}-{sha256[:12]}.safetensors"

    def save(self, key: str, output: Output) -> Stored:
        """Keep everything that a stage hands on, in one file."""
        import torch  # here: planning and reports must not pay for torch
        from safetensors.torch import save

        parts = {
            "network": output.network.tensors if output.network else {},
            "array": output.arrays or {},
            "engine": output.engine.tensors if output.engine else {},
        }
        # the format takes no other layout (channels_last, say), nor does a stage that rests on the values
        tensors = {f"{part}.{name}": tensor.contiguous() for part, own in parts.items() for name, tensor in own.items()}
        # a file without tensors would be refused by its own reader
        tensors = tensors or {"nothing": torch.zeros(0)}
        header = {
            "network": output.network and _without_tensors(output.network),
            "engine": output.engine and _without_tensors(output.engine),
            "values": output.values,
            "details": output.details,
        }
        content = save(tensors, {"output": json.dumps(plain(header), allow_nan=False)})
        stored = Stored(hashlib.sha256(content).hexdigest(), len(content))
        replace(self.path(key, stored.sha256), content)
        return stored

    def load(self, key: str, valid: Sequence[str]) -> tuple[Output, Stored] | None:
        """What a stage handed on, from the first copy here whose SHA-256 is one of `valid`.

        None where there is no such file; StoreError where its content is not what its name says, or is damaged.
        """
        path = next((path for path in (self.path(key, sha256) for sha256 in valid) if path.is_file()), None)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"artifact {path} cannot be read: {error.strerror or error}") from error
        stored = Stored(hashlib.sha256(content).hexdigest(), len(content))
        if stored.sha256 not in valid:
            raise StoreError(f"artifact {path} is not what any record of its stage handed on: changed or damaged")
        return _output(path, content), stored

    def copies(self, key: str) -> list[Path]:
        """Every file here that claims to be a stage's output."""
        return sorted(self.folder.glob(f"{key}-*.safetensors"))

    def checkpoint(self, key: str, board: str) -> Path:
        """Where an unfinished stage keeps its state on one board: joules of two boards must not meet in one record."""
        return self.folder / f"{key}.{hashlib.sha256(board.encode()).hexdigest()[:8]}.checkpoint"

    def begun(self, key: str) -> bool:
        """Whether an unfinished stage has left its state, on any board."""
        return any(self.folder.glob(f"{key}.*.checkpoint"))

    def working_on(self, key: str, busy: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Hold a stage for this process. While another has it, `busy` is called with who that is (see `Leases`)."""
        return self._leases.holding(key, busy)

    def register(self, results: Path) -> None:
        """Note that a results folder keeps its outputs here, so that `free` on behalf of another leaves them alone."""
        words = str(results.resolve())
        path = self.folder / "used_by" / hashlib.sha256(words.encode()).hexdigest()[:12]
        if not path.is_file():
            replace(path, words.encode())

    def users(self, without: Collection[str] = ()) -> list[Path]:
        """The results folders that keep their outputs here, but those named in `without`, as are notes that name none.

        Raises Unreadable for a note that is damaged, and for a folder that is not there: what it needs is not known.
        """
        found = []
        for path in listed(self.folder / "used_by", levels=0, suffix=""):
            if path.name in without:
                continue
            words = read_words(path)
            remedy = "if no results folder needs the artifacts here any more, say free --without="
            if hashlib.sha256(words.encode()).hexdigest()[:12] != path.name or not Path(words).is_absolute():
                raise Unreadable(f"{path} is damaged, so whose artifacts lie here is not known; {remedy}{path.name}")
            if words in without:
                continue
            if not Path(words).is_dir():
                raise Unreadable(f"the results folder {words} uses these artifacts and is not there; {remedy}{words}")
            found.append(Path(words))
        return found

    def unneeded(self, needed: Collection[str]) -> list[Path]:
        """Every output and checkpoint of a stage that is not among `needed`, but those that a process holds.

        Files that are named otherwise are somebody else's.
        """
        found = [(path, _OURS.fullmatch(path.name)) for path in listed(self.folder, levels=0, suffix="")]
        ours = [(path, match["key"]) for path, match in found if match]
        return [path for path, key in ours if key not in needed and not self._leases.taken(key)]


MOST_HEADER_BYTES = 100_000_000
"""What the format itself allows."""

_OURS = re.compile(r"(?P<key>[0-9a-f]{20})(-[0-9a-f]{12}\.safetensors|\.[0-9a-f]{8}\.checkpoint)")


def _without_tensors(part: Network | EngineFile) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name != "tensors"}


def _output(path: Path, content: bytes) -> Output:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(content[:8], "little")
        if size > MOST_HEADER_BYTES:
            raise ValueError(f"its header claims {size / 1e6:.0f} MB")
        written = json.loads(content[8 : 8 + size])["__metadata__"]["output"]
        header = Header.model_validate_json(written)
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, ValidationError, RecursionError, OverflowError) as error:
        words = " ".join(str(error).split())
        raise StoreError(f"artifact {path} is damaged ({words}): delete it and run again") from error

    def own(part: str) -> Mapping[str, Any]:
        return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}

    network, engine = header.network, header.engine
    return Output(
        network=Network(**dict(network), tensors=own("network")) if network else None,
        arrays=own("array") or None,
        engine=EngineFile(**dict(engine), tensors=own("engine")) if engine else None,
        values={name: math.nan if value is None else value for name, value in header.values.items()},
        details=header.details,
    )
