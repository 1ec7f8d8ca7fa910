"""What stages hand on, as files that may be deleted at any time: safetensors with a JSON header, never a pickle."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from benchmark.plan.stage import EngineFile, Network, Output
from benchmark.plan.task import Config
from benchmark.records.files import StoreError, replace


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


class Header(Config):
    """The JSON header of an artifact; a value that is no number is null."""

    network: NetworkHeader | None
    engine: EngineHeader | None
    values: dict[str, float | None]
    details: dict[str, Any]


class Artifacts:
    """The disposable folder of a study: a file per stage, its checkpoints, its locks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The file of a stage's output."""
        return self.folder / f"{key}.safetensors"

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
            "values": {name: value if math.isfinite(value) else None for name, value in output.values.items()},
            "details": dict(output.details),
        }
        content = save(tensors, {"output": json.dumps(header, allow_nan=False)})
        replace(self.path(key), content)
        return Stored(hashlib.sha256(content).hexdigest(), len(content))

    def load(self, key: str, valid: Collection[str]) -> tuple[Output, Stored] | None:
        """What a stage handed on, if its file is here and its SHA-256 one of `valid`.

        None where there is no file; StoreError where there is one that no record vouches for, or a damaged one.
        """
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"artifact {path} cannot be read: {error.strerror or error}") from error
        stored = Stored(hashlib.sha256(content).hexdigest(), len(content))
        if stored.sha256 not in valid:
            raise StoreError(
                f"artifact {path} is not what any record of its stage handed on (SHA-256 {stored.sha256[:12]})"
            )
        return _output(path, content), stored

    def checkpoint(self, key: str, board: str) -> Path:
        """Where an unfinished stage keeps its state on one board: joules of two boards must not meet in one record."""
        return self.folder / f"{key}.{hashlib.sha256(board.encode()).hexdigest()[:8]}.checkpoint"

    @contextlib.contextmanager
    def working_on(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a stage for this process; `waiting` is called once where another process has it. The lock dies with
        its holder."""
        path = self.folder / f"{key}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def unneeded(self, needed: Collection[str]) -> list[Path]:
        """Every output, checkpoint and lock of a stage that is not among `needed`, but those that a process holds."""
        return [
            path for path in sorted(self.folder.glob("*.*")) if _key(path) not in needed and not self._held(_key(path))
        ]

    def _held(self, key: str) -> bool:
        path = self.folder / f"{key}.lock"
        if not path.is_file():
            return False
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _key(path: Path) -> str:
    return path.name.partition(".")[0]


def _without_tensors(part: Network | EngineFile) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name != "tensors"}


def _output(path: Path, content: bytes) -> Output:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(content[:8], "little")
        written = json.loads(content[8 : 8 + size])["__metadata__"]["output"]
        header = Header.model_validate_json(written)
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, ValidationError) as error:
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
