"""Folder: the files below a folder that are indexed, and those that are left out, each counted under its reason.

    taken       pictures and videos by their suffix; a file without a suffix that begins as a picture
    followed    symbolic links, to files and to folders; a folder or file is listed once, and first by its own name
    left out    hidden names (.thumbnails, .Trash-1000, ._a.jpg), folders of systems and recorders (@eaDir, #recycle,
                $RECYCLE.BIN, lost+found), galleries of vireid with their thumbnails, the masks of `vireid data make`,
                other kinds of files, links that lead nowhere or back, folders that cannot be opened, pipes and sockets

What the user names is entered whatever its name is; the rules are for what lies below.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vireid.errors import SourceError
from vireid.images import is_picture
from vireid.system import printable

# Thumbnails, waste bins and snapshots that Synology, QNAP, NetApp, Windows, macOS and Linux keep among a user's files.
SYSTEM = frozenset(
    (
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@synoeastream", "@sharesnap", "@appstore", "#recycle",
        "#snapshot", "~snapshot", "$recycle.bin", "recycler", "system volume information", "lost+found", "lost.dir",
        "found.000", "_gsdata_", "__macosx", "network trash folder", "temporary items", "thumbs.db", "ehthumbs.db",
        "desktop.ini",
    )
)  # fmt: skip
MADE, MASKS = "synthetic.json", "masks"  # of synthetic people
GALLERY, FILES, THUMBNAILS, AUDIT = "records.lance", ".files", "thumbnails", "audit.jsonl"
SHOWN = 5  # names of one reason
HIDDEN = "hidden files"
SYSTEM_FILES = "files of the system or in hidden folders"
OWN = "folders of galleries"
LABELS = "masks of synthetic people"
OTHER = "files of other kinds"
NOWHERE = "links that lead nowhere"
LISTED = "links to what is listed under its own name"
BACK = "links to a folder around the one that is indexed"
CLOSED = "folders that cannot be opened"
SPECIAL = "pipes, sockets and devices"
Parts = tuple[str, ...]


@dataclass
class LeftOut:
    """What is left out, by reason: how many, and their names (of folders for what lies inside them)."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.counts[reason] += count
        self.names.setdefault(reason, []).append(name)

    def take_over(self, other: LeftOut) -> None:
        """Add what another folder leaves out."""
        self.counts += other.counts
        for reason, names in other.names.items():
            self.names.setdefault(reason, []).extend(names)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> Iterator[str]:
        """One line for each reason."""
        for reason, count in self.counts.items():
            names = self.names[reason]
            if reason == HIDDEN:
                yield f"{reason} ({count}), whose names begin with a dot"
                continue
            kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in names) if reason == OTHER else {}
            by_kind = "; " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())) if len(kinds) > 1 else ""
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            yield f"{reason} ({count}{by_kind}): {', '.join(map(printable, names[:SHOWN]))}{more}"


@dataclass(frozen=True)
class Listing:
    """The files of a folder as parts of their paths below it, in order, and what was left out."""

    root: Path
    files: list[Parts]
    left_out: LeftOut

    def has(self, suffixes: tuple[str, ...]) -> bool:
        """Whether a file has one of these suffixes."""
        return any(parts[-1].lower().endswith(suffixes) for parts in self.files)


def list_folder(root: Path, suffixes: tuple[str, ...]) -> Listing:
    """All files below a folder that have one of the suffixes, or none and begin as a picture; SourceError."""
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SourceError(f"{root} cannot be opened ({error.strerror}); look at its permissions") from None
    walk = _Walk(root, suffixes)
    walk.run()
    return Listing(root, sorted(walk.files), walk.left_out)


def is_system(name: str) -> bool:
    """Whether a name is hidden, or one that systems give to what is not the user's.

    >>> is_system(".Trash-1000"), is_system("@eaDir"), is_system("gate")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in SYSTEM


def is_archive(folder: str) -> bool:
    """Whether a folder is a gallery of vireid, or holds the thumbnails and the audit log of one."""
    if os.path.isdir(os.path.join(folder, GALLERY)):
        return True
    holds_thumbnails = os.path.isdir(os.path.join(folder, THUMBNAILS))
    return holds_thumbnails and (folder.endswith(FILES) or os.path.isfile(os.path.join(folder, AUDIT)))


class _Walk:
    """One pass over a folder: what lies under its own name first, links after that."""

    def __init__(self, root: Path, suffixes: tuple[str, ...]) -> None:
        self.root, self.suffixes = str(root), suffixes
        self.around = {str(parent) for parent in (root.resolve(), *root.resolve().parents)}
        self.files: list[Parts] = []
        self.left_out = LeftOut()
        self.folders: deque[Parts] = deque([()])
        self.links: deque[Parts] = deque()
        self.seen: set[tuple[int, int]] = set()

    def run(self) -> None:
        while self.folders or self.links:
            if self.folders:
                self.enter(self.folders.popleft())
            else:
                self.follow(self.links.popleft())

    def place(self, parts: Parts) -> str:
        return os.path.join(self.root, *parts)

    def enter(self, parts: Parts) -> None:
        """List one folder; its sub-folders and links wait for their turn."""
        place, name = self.place(parts), "/".join(parts)
        try:
            about = os.stat(place)
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            self.left_out.add(CLOSED, f"{name} ({error.strerror})")
            return
        self.seen.add((about.st_dev, about.st_ino))
        for entry in entries:
            self.sort(entry, (*parts, entry.name))

    def sort(self, entry: os.DirEntry[str], parts: Parts) -> None:
        name = "/".join(parts)
        if entry.is_symlink():
            if is_system(entry.name):
                self.left_out.add(HIDDEN, name)
            else:
                self.links.append(parts)
        elif entry.is_dir():
            reason = _reason(entry)
            if reason is None:
                self.folders.append(parts)
            elif count := 1 if reason == OWN else _files_below(entry.path):
                self.left_out.add(reason, name, count)
        elif entry.is_file():
            self.take(parts, entry.stat())
        else:
            self.left_out.add(SPECIAL, name)

    def follow(self, parts: Parts) -> None:
        """A link, once all that lies under its own name is listed."""
        place, name = self.place(parts), "/".join(parts)
        try:
            about = os.stat(place)
        except OSError:  # nowhere, or in a circle
            self.left_out.add(NOWHERE, name)
            return
        if os.path.realpath(place) in self.around:
            self.left_out.add(BACK, name)
        elif (about.st_dev, about.st_ino) in self.seen:
            self.left_out.add(LISTED, name)
        elif stat.S_ISDIR(about.st_mode):
            if is_archive(os.path.realpath(place)):
                self.left_out.add(OWN, name)
            else:
                self.folders.append(parts)
        elif stat.S_ISREG(about.st_mode):
            self.take(parts, about)
        else:
            self.left_out.add(SPECIAL, name)

    def take(self, parts: Parts, about: os.stat_result) -> None:
        name = parts[-1]
        if is_system(name):
            self.left_out.add(HIDDEN if name.startswith(".") else SYSTEM_FILES, "/".join(parts))
        elif name.lower().endswith(self.suffixes) or (not Path(name).suffix and is_picture(Path(self.place(parts)))):
            self.files.append(parts)
            self.seen.add((about.st_dev, about.st_ino))
        else:
            self.left_out.add(OTHER, "/".join(parts))


def _reason(entry: os.DirEntry[str]) -> str | None:
    """Why a folder is left out."""
    if is_system(entry.name):
        return SYSTEM_FILES
    if entry.name == MASKS and os.path.isfile(os.path.join(os.path.dirname(entry.path), MADE)):
        return LABELS
    return OWN if is_archive(entry.path) else None


def _files_below(folder: str) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
