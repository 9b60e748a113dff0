"""Backup: a gallery with its folder of files in one tar file, made while the service runs, restored into any driver.

    rows/000000.jsonl   up to 1,000 rows, a line of JSON each: all of a Record but its vector
    rows/000000.npy     their vectors (n, D) float32, in the same order
    files/...           thumbnails, marks, audit log and what else lies beside the gallery; locks stay out
    manifest.json       the last member: dim, digest of the bundle, rule for gray values, counts, and the sha256 of all
                        members before it. A backup without it is cut off.

Files of SQLite are copied by a transaction, and the audit log to the end of a line. Rows that change meanwhile are
their former or their new self; rows that come meanwhile may be missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vireid.errors import BackupError
from vireid.search.archive import Archive
from vireid.search.audit import NAME as AUDIT
from vireid.search.audit import Audit
from vireid.search.gallery import Gallery, Record
from vireid.system import locked, replacing
from vireid.version import __version__

ROWS = 1000  # of a member
MANIFEST, ROW_FOLDER, FILE_FOLDER = "manifest.json", "rows", "files"
LEFT_OUT = (".lock", ".partial", "-journal", "-wal", "-shm")  # endings of names: only a running process needs these
RESTORING = ".restoring"  # in the folder of files, while a restore is not complete
PIECE = 1 << 20
FIELDS = ("id", "camera", "time_s", "modality", "path", "track", "pid", "tags", "thumbnail", "digest")


class Manifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vireid backup 1"] = "vireid backup 1"
    vireid: str
    made_at: float
    dim: int
    bundle_digest: str
    gray: tuple[float, float] | None
    rows: int
    files: int
    sha256: str
    """Of names, sizes and contents of all members before the manifest."""


class _Row(BaseModel):
    """A row without its vector."""

    model_config = ConfigDict(extra="forbid")

    id: str
    camera: str
    time_s: float | None
    modality: int
    path: str
    track: str = ""
    pid: str = ""
    tags: tuple[str, ...] = ()
    thumbnail: str = ""
    digest: str = ""


def back_up(archive: Archive, to: Path, who: str) -> Manifest:
    """Write an archive into the tar file `to`, which replaces one that is there when it is complete.

    Raises BackupError, GalleryError and DiskFull.
    """
    if to.is_dir():
        raise BackupError(f"{to} is a folder; name the file to write, such as {to / 'night.tar'}")
    archive.audit.write("backup", who, "admin", to=str(to))
    gallery = archive.gallery
    with replacing(to) as partial, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        members = _Members(tar)
        rows = 0
        ids = (record.id for record in gallery.rows())
        for number, piece in enumerate(iter(lambda: list(islice(ids, ROWS)), [])):
            records = gallery.fetch(piece, missing="skip")
            rows += len(records)
            members.add(f"{ROW_FOLDER}/{number:06d}.jsonl", "".join(map(_line, records)).encode())
            vectors = io.BytesIO()
            np.save(
                vectors, np.stack([r.vector for r in records]) if records else np.zeros((0, gallery.dim), np.float32)
            )
            members.add(f"{ROW_FOLDER}/{number:06d}.npy", vectors.getvalue())
        files = kept_files(archive.folder)
        for name in files:
            members.add(f"{FILE_FOLDER}/{name}", snapshot(archive.folder / name))
        manifest = Manifest(
            vireid=__version__, made_at=time.time(), dim=gallery.dim, bundle_digest=gallery.info().bundle_digest,
            gray=gallery.gray.ends, rows=rows, files=len(files), sha256=members.digest.hexdigest(),
        )  # fmt: skip
        members.add(MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def verify(backup: Path) -> Manifest:
    """Read a backup to its end and compare its sha256; BackupError where it is cut off, changed or something else."""
    digest, manifest = hashlib.sha256(), None
    with _readable(backup):
        for name, size, file in _read(backup):
            if manifest is not None:
                raise BackupError(f"{backup} holds {name} after its end; it was changed")
            if name == MANIFEST:
                manifest = _manifest(backup, file.read())
                continue
            digest.update(f"{name}\0{size}\0".encode())
            while piece := file.read(PIECE):
                digest.update(piece)
    if manifest is None:
        raise BackupError(f"{backup} has no {MANIFEST}: it is cut off, or not a backup of vireid")
    if manifest.sha256 != digest.hexdigest():
        raise BackupError(f"{backup} was changed or damaged: its content has another sha256 than it says")
    return manifest


def restore(backup: Path, gallery: Gallery, folder: Path, manifest: Manifest, who: str) -> None:
    """Put a verified backup into an empty gallery and its folder of files; where this is stopped, a repeat continues.

    Raises BackupError where something is there already, and GalleryError.
    """
    mark = folder / RESTORING
    if not mark.is_file() and (gallery.count() or (folder / AUDIT).is_file()):
        raise BackupError(
            f"there is an archive at {gallery.info().url} with files at {folder}; restore into another place, or move "
            "both away first"
        )
    if mark.is_file() and mark.read_text("utf-8") != manifest.sha256:
        raise BackupError(f"another backup was not completely restored here; remove {folder} and the gallery")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(manifest.sha256, encoding="utf-8")
    records: list[Record] = []
    for name, _, file in _read(backup):
        place = PurePosixPath(name)
        if place.parts[0] == FILE_FOLDER:
            to = folder / place.relative_to(FILE_FOLDER)
            to.parent.mkdir(parents=True, exist_ok=True)
            with to.open("wb") as out:
                while piece := file.read(PIECE):
                    out.write(piece)
        elif place.suffix == ".jsonl":
            records = [_record(line) for line in file.read().splitlines()]
        elif place.suffix == ".npy":
            vectors = np.load(io.BytesIO(file.read()), allow_pickle=False)
            gallery.upsert([r.with_vector(v) for r, v in zip(records, vectors, strict=True)])
    gallery.optimize()
    if hasattr(os, "sync"):
        os.sync()
    mark.unlink()
    Audit(folder / AUDIT).write(
        "restore", who, "admin", rows=manifest.rows, files=manifest.files, made_at=manifest.made_at
    )


def kept_files(folder: Path) -> list[str]:
    """The files of an archive that a copy needs, relative to its folder, in order."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else ()
    return [path.relative_to(folder).as_posix() for path in files if not path.name.endswith((*LEFT_OUT, RESTORING))]


def snapshot(path: Path) -> bytes:
    """A file as it is at one moment: SQLite by a transaction, the audit log to the end of a line."""
    if path.suffix == ".sqlite":
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30.0)) as base:
                return base.serialize()
        except sqlite3.Error as error:
            raise BackupError(f"{path} cannot be read ({error}); put a good copy in its place") from error
    if path.name == AUDIT:
        with locked(path.with_name(f"{path.name}.lock")):
            return path.read_bytes()
    return path.read_bytes()


class _Members:
    """Writes members of a tar file and digests them."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar, self.digest = tar, hashlib.sha256()

    def add(self, name: str, data: bytes) -> None:
        self.digest.update(f"{name}\0{len(data)}\0".encode())
        self.digest.update(data)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
        self.tar.addfile(info, io.BytesIO(data))


def _read(backup: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every member; BackupError for a name that leads out."""
    with tarfile.open(backup, "r:") as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            known = member.name == MANIFEST or place.parts[:1] in ((ROW_FOLDER,), (FILE_FOLDER,))
            if not member.isreg() or not known or ".." in place.parts or "\\" in member.name:
                raise BackupError(f"{backup} holds {member.name[:100]!r}, which no backup of vireid does")
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, member.size, file


@contextmanager
def _readable(backup: Path) -> Iterator[None]:
    """BackupError for what is not a tar file, or is cut off."""
    try:
        yield
    except tarfile.TarError as error:
        raise BackupError(f"{backup} is not a backup, or it is cut off ({error})") from error
    except FileNotFoundError as error:
        if error.filename != str(backup):
            raise
        raise BackupError(f"there is no file {backup}") from None


def _manifest(backup: Path, data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BackupError(f"{backup} is of another version of vireid, or damaged ({reason})") from error


def _line(record: Record) -> str:
    values = {name: getattr(record, name) for name in FIELDS}
    values["time_s"] = None if math.isnan(record.time_s) else record.time_s
    return json.dumps(values, ensure_ascii=False) + "\n"


def _record(line: bytes) -> Record:
    row = _Row.model_validate_json(line)
    values: dict[str, Any] = dict(row) | {"time_s": math.nan if row.time_s is None else row.time_s}
    return Record(vector=np.zeros(0, np.float32), **values)
