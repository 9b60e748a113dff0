"""Sidecar of a gallery in a folder: everything that a search needs, in files of its own, derived from LanceDB's rows.

    GALLERY/codes/now.json         the segments, their deleted rows, and the version of the table that they mirror
    GALLERY/codes/coder-*.npz      rotation, code book and how far to look (lance_codes.py)
    GALLERY/codes/segment-*/       some rows each (lance_segment.py)

**Life.** `optimize` builds it from MIN_ROWS on, and again when the gallery has grown GROWN times. Every write adds a
segment or a list of deleted rows; segments are merged so that there are few, which drops what was deleted. Where codes
find too few of the right rows (lance_calibration.py) the gallery gets none until it has grown again. No file
changes: `now.json` is replaced by rename, then files that it no longer names go. Only the process that holds the
gallery's writer lock writes here.

**Truth is LanceDB's.** A sidecar answers only for the version of the table that it names. A writer that is killed, or
one without faiss, leaves a table of another version; then searches go to LanceDB, the next writer removes the sidecar
and the next `optimize` builds it. While a live writer is between its two commits, readers answer from the state before.

lance_search.py searches the segments.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vireid.search.drivers import lance_calibration
from vireid.search.drivers import lance_codes as codes
from vireid.search.drivers import lance_segment as segments
from vireid.search.drivers.lance_segment import Segment
from vireid.search.gallery import Filter
from vireid.system import is_locked, replacing

log = logging.getLogger(__name__)

FORMAT = "vireid codes 3"
FOLDER, NOW = "codes", "now.json"
REFUSED = "codes-refused.json"  # beside the folder: why there is none, and for how many rows that was found
MIN_ROWS = 5_000  # from here on a gallery has a sidecar
GROWN = 2  # times the rows that a coder was fitted to, until it is fitted again
MAX_SEGMENTS, MAX_SEGMENT_ROWS = 12, 1 << 19
SETTLED_NS = 50_000_000  # a folder may change again without a new time within a tick of the clock
OPENINGS = 5  # tries, of files that a writer may take away meanwhile
STALE = 1 / 8  # of a segment's rows deleted, or of all rows in small segments: `optimize` writes them again


@dataclass(frozen=True)
class Part:
    """A segment as `now.json` names it."""

    name: str
    rows: int
    dead: str = ""
    dead_rows: int = 0


@dataclass(frozen=True)
class State:
    """What one `now.json` says, and the files that it names, open."""

    version: int
    coder_name: str
    parts: tuple[Part, ...]
    coder: codes.Coder
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows - part.dead_rows for part in self.parts)


class Sidecar:
    """See this file's head. `ask_version` tells the newest version of LanceDB's table, whose manifests lie in
    `versions`; `lock` is the writers' file."""

    def __init__(self, gallery: Path, dim: int, lock: Path, versions: Path, ask_version: Callable[[], int]) -> None:
        self.folder, self.dim, self._lock_path = gallery / FOLDER, dim, lock
        self._refused = gallery / REFUSED
        self._versions, self._ask_version, self._version_seen = versions, ask_version, (0, -1)
        self._loading = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._state: State | None = None
        self._parts: list[Part] | None = None  # what a write leaves
        self._coder_name, self._coder = "", None

    # --- reading

    def current(self) -> State | None:
        """The state that answers for the table as it is now, None if there is none."""
        if not codes.available():
            return None
        state = self._read()
        while state is not None and state.version != self._version():
            writing, newest = is_locked(self._lock_path), self._read()
            if newest is state:  # by a writer between its two commits, or left behind by one that was killed
                return state if writing else None
            state = newest
        return state

    def _read(self) -> State | None:
        """What `now.json` says now, None where there is none or it cannot be read."""
        with self._loading:
            for left in reversed(range(OPENINGS)):
                try:
                    about = os.stat(self.folder / NOW)
                except OSError:
                    self._state, self._seen = None, ()
                    return None
                seen = (about.st_ino, about.st_mtime_ns, about.st_size)
                if seen == self._seen:
                    return self._state
                try:
                    self._state, self._seen = self._open(), seen
                    return self._state
                except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                    if isinstance(error, FileNotFoundError) and left:
                        continue  # a writer merged: there is a newer one
                    log.warning(
                        "%s is damaged (%s); searches are slower until `optimize` builds it again", self.folder, error
                    )
                    self._state, self._seen = None, seen
        return None

    def _open(self) -> State:
        stored = json.loads((self.folder / NOW).read_text())
        if stored["format"] != FORMAT:
            raise ValueError(f"its format is {stored['format']!r}, expected {FORMAT!r}")
        parts = tuple(Part(**part) for part in stored["parts"])
        before = {(s.folder.name, s.dead_name): s for s in self._state.segments} if self._state else {}
        opened = [
            before.get((part.name, part.dead)) or Segment(self.folder / part.name, part.rows, self.dim, part.dead)
            for part in parts
        ]
        same = self._state is not None and self._state.coder_name == stored["coder"]
        coder = self._state.coder if self._state and same else codes.Coder.load(self.folder / stored["coder"])
        return State(stored["version"], stored["coder"], parts, coder, tuple(opened))

    def _version(self) -> int:
        """The newest version of the table; read from LanceDB when its folder of manifests has changed."""
        changed_ns = os.stat(self._versions).st_mtime_ns
        seen_ns, version = self._version_seen
        if changed_ns != seen_ns:
            settled = time.time_ns() - changed_ns > SETTLED_NS
            version = self._ask_version()
            self._version_seen = (changed_ns if settled else 0, version)
        return version

    # --- writing, under the gallery's lock

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Around a write: the sidecar mirrors the table before, and after it, or goes."""
        state = self._read() if codes.available() else None
        if state is None or state.version != self._version():
            self.remove()
        self._parts = None if state is None or not self.there else list(state.parts)
        self._coder_name, self._coder = (state.coder_name, state.coder) if state else ("", None)
        if self._parts is not None:
            with self._or_none():
                self._clean()
        yield  # an error leaves a table of another version, or none that matters
        if self._parts is not None:
            version, written = self._version(), self._read()
            if written is None or version != written.version or tuple(self._parts) != written.parts:
                with self._or_none():
                    self._commit(version)

    @property
    def there(self) -> bool:
        return (self.folder / NOW).exists()

    def add(self, table: Any) -> None:
        """Rows that were added, an Arrow table with all columns."""
        with self._or_none():
            if self._parts is not None and len(table):
                self._put([segments.piece_of(table)])
                self._merge(MAX_SEGMENTS)

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> None:
        """Rows that were deleted, by ids or by a filter."""
        with self._or_none():
            for at, part in enumerate(self._parts or ()):
                segment = self._segment(part)
                mask = segment.named(ids) if where is None else segment.passing(where)
                rows = np.arange(part.rows) if mask is None else np.flatnonzero(mask)
                dead = np.union1d(segment.dead, rows)
                if len(dead) > len(segment.dead):
                    name = f"{segments.DEAD}{uuid.uuid4().hex}.npy"
                    with (segment.folder / name).open("wb") as file:
                        np.save(file, dead)
                        file.flush()
                        os.fsync(file.fileno())
                    assert self._parts is not None
                    self._parts[at] = replace(part, dead=name, dead_rows=len(dead))

    def build(self, tables: Iterable[Any]) -> None:
        """Everything from the beginning, of Arrow tables with all columns."""
        with self._or_none():
            self.folder.mkdir(exist_ok=True)
            self._parts, self._coder = [], None
            for pieces in _cut(tables, MAX_SEGMENT_ROWS):
                self._put(map(segments.piece_of, pieces))
            opened = [self._segment(part) for part in self._parts]
            rows = sum(part.rows for part in self._parts)
            if not rows:
                self.remove()
                self._parts = None
                return
            sample = np.concatenate([each.sample(max(1, codes.SAMPLED * each.rows // rows)) for each in opened])
            self._coder = codes.Coder.fit(sample, rows)
            for segment in opened:
                segment.encode(self._coder)
            self._refused.unlink(missing_ok=True)
            try:
                self._coder = lance_calibration.calibrated(self._coder, opened)
            except lance_calibration.CodesTooCoarse as error:
                self._refuse(rows, error)
                return
            self._coder_name = f"coder-{uuid.uuid4().hex}.npz"
            self._coder.save(self.folder / self._coder_name)
            self._commit(self._version())

    @property
    def refusal(self) -> str:
        """Why this gallery has none though it is large, "" where that is not so."""
        return self._refusal()[1]

    def fit_for(self, rows: int) -> bool:
        """Whether the sidecar need not be built (again) for a gallery of this many rows."""
        if rows < GROWN * self._refusal()[0]:
            return True
        state = self._read()
        return state is not None and self._parts is not None and rows < GROWN * state.coder.rows

    def tidy(self, whole: bool) -> None:
        """Merge small segments and those with many deleted rows; `whole` writes all again that have deleted rows."""
        with self._or_none():
            if self._parts is None:
                return
            self._merge(2)
            for part in list(self._parts):
                if part.dead_rows > (0 if whole else STALE * part.rows):
                    self._rewrite([part])

    def remove(self) -> None:
        self._parts = None
        if self.folder.exists():
            (self.folder / NOW).unlink(missing_ok=True)  # first: without it the rest is nothing
            shutil.rmtree(self.folder)
        self._state, self._seen = None, ()

    def _refuse(self, rows: int, error: lance_calibration.CodesTooCoarse) -> None:
        log.warning("%s: %s; it is searched by LanceDB's own index", self.folder.parent, error)
        self.remove()
        with replacing(self._refused) as partial:
            partial.write_text(json.dumps({"rows": rows, "reason": str(error)}))

    def _refusal(self) -> tuple[int, str]:
        """Rows and reason of a refusal, 0 and "" without one."""
        try:
            stored = json.loads(self._refused.read_text())
            return int(stored["rows"]), str(stored["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, ""

    def _segment(self, part: Part) -> Segment:
        opened = {(s.folder.name, s.dead_name): s for s in self._state.segments} if self._state else {}
        return opened.get((part.name, part.dead)) or Segment(self.folder / part.name, part.rows, self.dim, part.dead)

    def _put(self, pieces: Iterable[segments.Piece]) -> None:
        assert self._parts is not None
        part = self._written(pieces)
        self._parts += [part] if part.rows else []

    def _written(self, pieces: Iterable[segments.Piece]) -> Part:
        name = f"segment-{uuid.uuid4().hex}"
        part = Part(name, segments.write(self.folder / name, pieces))
        if self._coder and part.rows:
            Segment(self.folder / name, part.rows, self.dim).encode(self._coder)
        return part

    def _rewrite(self, parts: list[Part]) -> None:
        """One segment in place of these neighbors, of their rows that are alive."""
        assert self._parts is not None
        at = self._parts.index(parts[0])
        part = self._written(piece for each in parts for piece in self._segment(each).pieces())
        self._parts[at : at + len(parts)] = [part] if part.rows else []

    def _merge(self, count: int) -> None:
        """Merge the newest segments while there are more than `count` small ones: the longest run of alike sizes."""
        assert self._parts is not None
        rows = [part.rows - part.dead_rows for part in self._parts]
        first = len(rows)
        while first and sum(rows[first - 1 :]) <= MAX_SEGMENT_ROWS:
            first -= 1
        if len(rows) - first <= count:
            return
        while first < len(rows) - 2 and rows[first] * STALE > sum(rows[first + 1 :]):
            first += 1
        self._rewrite(self._parts[first:])

    def _commit(self, version: int) -> None:
        assert self._parts is not None
        about = {"format": FORMAT, "version": version, "coder": self._coder_name}
        with replacing(self.folder / NOW) as partial:
            partial.write_text(json.dumps(about | {"parts": [asdict(part) for part in self._parts]}))
        self._clean()

    def _clean(self) -> None:
        """Remove what `now.json` does not name, also of a writer that was killed."""
        assert self._parts is not None
        named = {NOW, self._coder_name, *(part.name for part in self._parts)}
        for path in self.folder.iterdir():
            if path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for part in self._parts:
            for path in (self.folder / part.name).glob(f"{segments.DEAD}*"):
                if path.name != part.dead:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        """A sidecar that cannot be written is removed: the rows are LanceDB's, and they are written."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            log.warning(
                "%s could not be written (%s); searches are slower until `optimize` builds it again", self.folder, error
            )
            self.remove()


def _cut(tables: Iterable[Any], rows: int) -> Iterator[Iterator[Any]]:
    """Runs of tables of together at most `rows` rows, as they come."""
    rest = iter(tables)
    waiting: list[Any] = []

    def run() -> Iterator[Any]:
        left = rows
        while left:
            table = waiting.pop() if waiting else next(rest, None)
            if table is None:
                return
            if len(table) > left:
                waiting.append(table.slice(left))
                table = table.slice(0, left)
            left -= len(table)
            yield table

    while True:
        first = waiting.pop() if waiting else next(rest, None)
        if first is None:
            return
        waiting.append(first)
        yield run()
