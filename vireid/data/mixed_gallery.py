"""Mixed-modality gallery: every test picture searches all cameras of both modalities but its own, as a user would.

    NAME/mixed-gallery/all/raw                 right: every picture of the person
    NAME/mixed-gallery/all/normalized          the same, centered by modality pair (evaluation/score_norm.py)
    NAME/mixed-gallery/cross-modal/raw         right: the pictures of the person in the other modality; those of the
    NAME/mixed-gallery/cross-modal/normalized  query's modality do not count, wrong pictures of both modalities do

NAME/mixed-gallery alone stands for all four. They are measured only where they are named. Galleries of a single
direction hide how the two modalities compete for the first places.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vireid.data.dataset import Dataset, closest
from vireid.data.datasets.ignore import IgnoreRule, any_of, same
from vireid.data.protocol import Protocol, Trial
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.types import INFRARED, MODALITIES, VISIBLE

STEM = "mixed-gallery"
COUNTED = ("all", "cross-modal")
SCORES = ("raw", "normalized")


def is_mixed(name: str) -> bool:
    """Whether a protocol, or the group of the four, is meant."""
    return name.partition("/ignore-")[0].split("/")[1:2] == [STEM]


def expanded(names: Iterable[str]) -> list[str]:
    """The names, with NAME/mixed-gallery replaced by its four protocols.

    >>> expanded(["sysu/mixed-gallery"])[1:3]
    ['sysu/mixed-gallery/all/normalized', 'sysu/mixed-gallery/cross-modal/raw']
    """
    listed: list[str] = []
    for name in names:
        stem, mark, rules = name.partition("/ignore-")
        whole = is_mixed(name) and stem.count("/") == 1
        listed += [f"{stem}/{c}/{s}{mark}{rules}" for c in COUNTED for s in SCORES] if whole else [name]
    return listed


def mixed_protocol(name: str, dataset: Dataset, rules: dict[str, IgnoreRule]) -> Protocol:
    """The protocol of this name; `rules` of the user ignore more by what they are called. ArgumentError."""
    stem, _, _ = name.partition("/ignore-")
    known = expanded([f"{dataset.name}/{STEM}"])
    if stem not in known:
        near = closest(stem, known)
        raise ArgumentError(f"no protocol is called {stem!r}{near}; for a mixed gallery there are {', '.join(known)}")
    counted, scores = stem.split("/")[2:]
    words = {word if word == "same-pid-and-camera" else f"same {word}": rule for word, rule in rules.items()}
    ignored: dict[str, IgnoreRule] = {"the query's own camera": same("camid"), **words}
    for one, other in dataset.same_room:
        ignored[f"between cameras {one} and {other}"] = _between(one, other)
    if counted == "cross-modal":
        ignored["the same person in the query's modality"] = _same_person_and_modality
    suffix = "/ignore-" + "+".join(rules) if rules else ""
    stamp = {
        "draw": "none (all images)",
        "shots": "all",
        "queries": "all images of query, else test",
        "gallery": "all images of gallery, else test, of both modalities",
        "ignored": ", ".join(ignored),
        "cmc": "over images",
    }
    return Protocol(stem + suffix, _trials, any_of(tuple(ignored.values())), False, stamp, scores == "normalized")


def _trials(table: Table) -> list[Trial]:
    queries = np.flatnonzero(np.isin(table.split, ("test", "query")))
    gallery = np.flatnonzero(np.isin(table.split, ("test", "gallery")))
    for kind in (VISIBLE, INFRARED):
        if not (table.modality[gallery] == kind).any():
            raise DataError(
                f"a mixed gallery needs test pictures of both modalities; {MODALITIES[kind]} ones are missing"
            )
    return [(queries, gallery)]


def _between(one: int, other: int) -> IgnoreRule:
    def rule(query: Table, gallery: Table) -> np.ndarray:
        forth = (query.camid == one)[:, None] & (gallery.camid == other)[None, :]
        return forth | ((query.camid == other)[:, None] & (gallery.camid == one)[None, :])

    return rule


def _same_person_and_modality(query: Table, gallery: Table) -> np.ndarray:
    person = query.pid[:, None] == gallery.pid[None, :]
    return person & (query.modality[:, None] == gallery.modality[None, :])
