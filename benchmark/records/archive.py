"""Results as one portable file: facts alone, each with its SHA-256, so that what several boxes measured can be merged.

An archive is a zip file: `manifest.json` first, then the files of a results folder under their own names, and networks
under `artifacts/` where they were asked for. Attempts at unfinished stages stay: only the machine that has their
checkpoints can go on with them. Everything is checked before anything is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import Field, ValidationError

from benchmark.plan.task import Config
from benchmark.records.files import StoreError, Unreadable, create, read_json
from benchmark.records.record import read_record, sound_record
from benchmark.records.store import Store, read_device, read_run

VERSION = 1
MANIFEST = "manifest.json"
MOST_BYTES = {"json": 64_000_000, "samples": 1_000_000_000, "artifacts": 8_000_000_000}
"""No file of ours is larger."""
MOST_MEMBERS = 2_000_000

_MACHINE = r"[a-z0-9][a-z0-9._-]{0,120}"
_KINDS = {
    "record": re.compile(rf"records/(?P<machine>{_MACHINE})/(?P<key>[0-9a-f]{{20}})(?P<repeat>\.[0-9a-f]{{8}})?\.json"),
    "samples": re.compile(rf"records/{_MACHINE}/[0-9a-f]{{20}}(\.[0-9a-f]{{8}})?\.samples\.csv\.gz"),
    "run": re.compile(rf"runs/(?P<machine>{_MACHINE})/(?P<name>[A-Za-z0-9][A-Za-z0-9._+-]{{0,250}})\.json"),
    "device": re.compile(rf"devices/{_MACHINE}/[A-Za-z0-9][A-Za-z0-9._-]{{0,120}}\.json"),
    "choice": re.compile(rf"devices/{_MACHINE}/choices/[0-9a-f]{{12}}\.json"),
    "network": re.compile(r"artifacts/(?P<key>[0-9a-f]{20})-(?P<sha>[0-9a-f]{12})\.safetensors"),
}
"""What an archive may hold, and under which names: nothing that could lie elsewhere."""


class ArchiveError(StoreError):
    """An archive cannot be written or taken; the message says why. Nothing of it was kept."""


class Member(Config):
    """What the manifest says of a member."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(Config):
    """The first member of an archive."""

    version: int
    commit: str = Field(max_length=100)
    members: dict[str, Member]


class Imported(NamedTuple):
    """How many files are new and how many were here already, by kind, and which conflict with one that is here."""

    new: Counter[str]
    here: Counter[str]
    conflicts: list[str]


# --- writing ---------------------------------------------------------------------------------------------------------


def write_archive(store: Store, path: Path, commit: str, models: bool) -> tuple[Counter[str], list[str]]:
    """Write an archive of a results folder; `models` adds the networks and engines that its records vouch for.

    Returns how many files of each kind it holds, and what was left out because nobody could take it. Equal content
    gives equal bytes. Raises ArchiveError where `path` exists, or nothing is there to export.
    """
    if path.exists() or path.is_symlink():
        raise ArchiveError(f"{path} exists already: name another file")
    found, left_out = _found(store, models)
    if not any(_kind(name) == "record" for name in found):
        raise ArchiveError(f"there is no record under {store.results} to export")
    members = {name: Member(sha256=_sha256(file), size=file.stat().st_size) for name, file in sorted(found.items())}
    manifest = Manifest(version=VERSION, commit=commit, members=members)
    beside = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(beside, "w", allowZip64=True) as archive:
            archive.writestr(_info(MANIFEST), json.dumps(manifest.model_dump(), indent=1, sort_keys=True))
            for name, file in sorted(found.items()):
                with archive.open(_info(name), "w", force_zip64=True) as target, file.open("rb") as source:
                    shutil.copyfileobj(source, target)
        beside.rename(path)
    except OSError as error:
        raise ArchiveError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return Counter(map(_kind, found)), left_out


def _found(store: Store, models: bool) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    left_out: list[str] = []
    for path in (*store.record_paths(), *store.run_paths(), *store.device_paths(), *_choices(store)):
        name = path.relative_to(store.results).as_posix()
        try:
            artifact = _check(name, path)
        except StoreError as error:
            left_out.append(str(error))
            continue
        found[name] = path
        samples = path.with_name(f"{path.stem}.samples.csv.gz")
        if _kind(name) == "record" and samples.is_file():
            found[samples.relative_to(store.results).as_posix()] = samples
        if models and artifact:
            copy = store.outputs.path(path.name[:20], artifact)
            if copy.is_file() and _sha256(copy) == artifact:
                found[f"artifacts/{copy.name}"] = copy
    return found, left_out


def _choices(store: Store) -> list[Path]:
    return sorted((store.results / "devices").glob("*/choices/*.json"))


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_STORED if name.endswith((".gz", ".safetensors")) else zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


# --- reading ---------------------------------------------------------------------------------------------------------


def read_archive(store: Store, path: Path) -> Imported:
    """Take what is new in an archive; a file that is here already stays as it is, and one that says something else is
    named as a conflict.

    Raises ArchiveError, and keeps nothing, where any of it is not what it says, or lies where nothing of ours does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            _enough_room(store, manifest)
            with tempfile.TemporaryDirectory(dir=store.results, prefix=".import-") as folder:
                unpacked = dict(_unpack(archive, manifest, Path(folder)))
                vouched = {_check_here(name, file, path) for name, file in unpacked.items()}
                networks = [name for name in unpacked if _kind(name) == "network"]
                strangers = [name for name in networks if manifest.members[name].sha256 not in vouched]
                if strangers:
                    raise ArchiveError(f"{path}: no record of the archive vouches for {strangers[0]}")
                return _place(store, unpacked)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ArchiveError(f"{path} is no whole archive of results: {error}") from error
    except OSError as error:
        raise ArchiveError(f"{error.filename or path}: {error.strerror or error}") from error


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if not names or names[0] != MANIFEST:
        raise ArchiveError(f"{path} does not begin with {MANIFEST}: it is no archive of results")
    if len(names) > MOST_MEMBERS or len(set(names)) != len(names):
        raise ArchiveError(f"{path} holds a name twice, or more files than any results folder")
    if infos[0].file_size > MOST_BYTES["samples"]:
        raise ArchiveError(f"{path}: its manifest is larger than any of ours")
    try:
        manifest = Manifest.model_validate_json(archive.read(infos[0]))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: its manifest is none of this version: {str(error).splitlines()[0]}") from error
    if manifest.version != VERSION:
        raise ArchiveError(f"{path} was written by another version of the suite ({manifest.version}): update it")
    if set(names[1:]) != set(manifest.members):
        odd = sorted(set(names[1:]) ^ set(manifest.members))[0]
        raise ArchiveError(f"{path}: {odd!r} is in the archive or in its manifest, but not in both")
    for info in infos[1:]:
        kind, told = _kind(info.filename), manifest.members[info.filename]
        if not kind:
            raise ArchiveError(f"{path}: {info.filename!r} is no name of a record, run, probe, choice or network")
        if info.file_size != told.size or told.size > MOST_BYTES[_size_class(kind)]:
            raise ArchiveError(
                f"{path}: {info.filename} has another size than its manifest says, or more than any of ours"
            )
        if info.flag_bits & 1:
            raise ArchiveError(f"{path}: {info.filename} is encrypted")
    return manifest


def _enough_room(store: Store, manifest: Manifest) -> None:
    needed = sum(member.size for member in manifest.members.values())
    free = shutil.disk_usage(store.results).free
    if 2 * needed + 100e6 > free:  # once unpacked and once kept
        raise ArchiveError(f"{needed / 1e6:.0f} MB are to be imported, and {free / 1e6:.0f} MB are free: make room")


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, folder: Path) -> Iterator[tuple[str, Path]]:
    for name, told in manifest.members.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, target.open("xb") as file:
            digest = _copy(source, file, told.size)
        if digest != told.sha256:
            raise ArchiveError(f"{archive.filename}: {name} is not what its manifest says (another SHA-256)")
        yield name, target


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copy no more than was declared; returns the SHA-256 of it."""
    digest, left = hashlib.sha256(), size + 1
    while left > 0 and (block := source.read(min(left, 1 << 20))):
        target.write(block)
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def _check_here(name: str, file: Path, archive: Path) -> str:
    try:
        return _check(name, file)
    except StoreError as error:
        raise ArchiveError(f"{archive}: {name}: {str(error).replace(str(file), 'it')}") from error


def _check(name: str, path: Path) -> str:
    """Read a file as what its name says it is; returns the artifact that a record vouches for. Raises StoreError."""
    kind = _kind(name)
    match = _KINDS[kind].fullmatch(name) if kind else None
    if match is None:
        raise Unreadable(f"{name!r} is no name of a record, run, probe or choice")
    if kind == "record":
        return sound_record(path).artifact
    if kind == "run":
        read_run(path)
    elif kind == "device":
        read_device(path)
    elif kind == "choice":
        read_json(path)
    return ""


def _place(store: Store, unpacked: Mapping[str, Path]) -> Imported:
    result = Imported(Counter(), Counter(), [])
    for name in sorted(unpacked, key=lambda name: (_ORDER.index(_kind(name)), name)):
        kind, file = _kind(name), unpacked[name]
        target = store.artifacts / name.partition("/")[2] if kind == "network" else store.results / name
        stem = name.replace(".samples.csv.gz", ".json")
        if kind == "samples" and any(each.startswith(stem) for each in result.conflicts):
            continue  # they belong to the record that was not taken
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _keep(file, target)
                result.new[kind] += 1
                continue
        if _same(kind, file, target):
            result.here[kind] += 1
        else:
            result.conflicts.append(f"{name}: {_told(kind, file, target)}; the one here stays")
    return result


_ORDER = ("network", "record", "samples", "run", "device", "choice")


def _keep(file: Path, target: Path) -> None:
    if file.stat().st_size > MOST_BYTES["json"]:
        shutil.copyfile(file, target.with_name(f".{target.name}.part"))
        target.with_name(f".{target.name}.part").rename(target)
    elif not create(target, file.read_bytes()):
        raise FileExistsError(target)


def _same(kind: str, file: Path, target: Path) -> bool:
    if kind == "run":  # a life is asked for on several boxes at different times
        with contextlib.suppress(StoreError):
            new, own = read_run(file), read_run(target)
            return new == own.model_copy(update={"created": new.created})
    return target.is_file() and _sha256(file) == _sha256(target)


def _told(kind: str, file: Path, target: Path) -> str:
    if kind == "record":
        with contextlib.suppress(StoreError):
            other, own = read_record(file), read_record(target)
            return f"one of {own.created} is here, and another of {other.created} is in the archive"
    return "another is here"


def _kind(name: str) -> str:
    return next((kind for kind, form in _KINDS.items() if form.fullmatch(name)), "")


def _size_class(kind: str) -> str:
    return {"samples": "samples", "network": "artifacts"}.get(kind, "json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
