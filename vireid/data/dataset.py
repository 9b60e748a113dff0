"""Dataset: what the one file of a data set declares. See docs/learn/add-a-dataset.md."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vireid.data.datasets.ignore import IgnoreRule
from vireid.data.protocol import Protocol
from vireid.data.table import Table
from vireid.errors import ArgumentError

Counts = Mapping[tuple[str, int, int], tuple[int, int]]  # (split, modality, camera) -> (identities, images)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. An `error` makes results wrong or training fail; a `warning` should be known."""

    level: str  # error or warning
    what: str
    to_do: str


class Dataset:
    """A data set: its file defines exactly one subclass, and its name is the name of that file.

    `load` and `protocols` are needed; all else has a default. `file` is the path of a file outside the package.
    """

    title: str = ""  # as printed; by default the name
    layout: str = ""  # what a folder must hold, in one line, for the error message of an unknown path
    load: Callable[..., Table]  # load(root, **options) reads file names only; DataError where they are not as expected
    protocols: Mapping[str, Protocol]  # by name; the first one is evaluated where nothing else is said
    training_splits: tuple[str, ...] = ("train",)  # trained on unless people are held out
    selection_protocol: str = ""  # by which `--select test` chooses the epoch; the first one by default
    compared_protocols: tuple[str, ...] = ()  # of `vireid compare`; all by default
    same_room: tuple[tuple[int, int], ...] = ()  # pairs of cameras in one room: neither finds the other's pictures

    def __init__(self, name: str, file: Path | None = None) -> None:
        self.name, self.file = name, file
        self.title = self.title or name

    def recognizes(self, root: Path) -> int:
        """Whether a path holds this data set: 0 no, 1 by its folders, 2 by a file that belongs to nothing else."""
        return 0

    def published_counts(self) -> Counts:
        """Identities and images of the release; {} where nothing is published, as for your own data."""
        return {}

    def check(self, table: Table, synthetic: bool) -> list[Fault]:
        """Faults that only this data set can have; `synthetic`: the pictures are made, so published figures differ."""
        return []

    def drawn(self, names: Sequence[str], draw: str) -> list[str]:
        """The protocols of these names (all where there are none) with this gallery draw."""
        raise ArgumentError(f"--draw belongs to SYSU-MM01, this data is {self.name}; leave it out")

    def ignore_rules(self, table: Table, words: Sequence[str]) -> dict[str, IgnoreRule]:
        """Ignore rules of the user by name, which only a manifest takes."""
        if words:
            raise ArgumentError(f"`ignore` belongs to manifest protocols; those of {self.name} are fixed")
        return {}

    def protocol(self, name: str, table: Table, ignore: Sequence[str]) -> Protocol:
        """The protocol of this name; `ignore` lists rules of the user, which only a manifest takes."""
        self.ignore_rules(table, ignore)
        if name not in self.protocols:
            known = ", ".join(self.protocols)
            raise ArgumentError(f"{self.name} has no protocol {name!r}{closest(name, self.protocols)}; it has {known}")
        return self.protocols[name]


def closest(word: str, words: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" with the nearest of the words, or ""."""
    close = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
