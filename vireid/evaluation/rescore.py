"""Re-scoring: stored vectors measured under other conditions than those of their figures, without any picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from vireid.data import datasets
from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.mixed_gallery import STEM, expanded
from vireid.data.protocol import Protocol, ignore_nothing
from vireid.data.table import Table
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.centering import centered_embeddings
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import Rerank, evaluate
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.rerank import KReciprocal
from vireid.evaluation.score_norm import STAMP
from vireid.types import Similarity

NONE = "none"
CENTERED = "mean of each modality"  # how the stamp of centered vectors begins
CMC = {"over identities": True, "over images": False}
IGNORED = {"nothing": ignore_nothing, "same identity in the same camera": same_pid_and_camera}
NUMBER = r"([\d.e+-]+)"
K_RECIPROCAL = re.compile(rf"k-reciprocal k1=(\d+) k2=(\d+) weight={NUMBER}")
SHORTEST_PATH = re.compile(rf"local shortest path stripes=(\d+)x(\d+) shortlist=(\w+) weight={NUMBER}")


@dataclass(frozen=True)
class Conditions:
    """What stored vectors can be measured under; the words are those of the stamp.

    `ignored` and `cmc` stand in the place of the protocol's own rules where they are not empty.
    """

    protocol: str
    similarity: str
    layer: str
    flip: str = NONE
    center: str = NONE
    rerank: str = NONE
    ignored: str = ""
    cmc: str = ""

    @classmethod
    def of(cls, protocol: str, stamp: Mapping[str, str]) -> Conditions:
        """The conditions of figures with this stamp."""
        center = CENTERED if stamp.get("center", NONE).startswith(CENTERED) else NONE
        known = {name: stamp[name] for name in ("similarity", "layer", "flip", "rerank") if name in stamp}
        return cls(protocol, **{"similarity": "cosine", "layer": "", **known, "center": center})


@dataclass(frozen=True)
class Change:
    """One condition that becomes another: `to` is what is then measured under, by field of Conditions."""

    cause: str
    before: str
    after: str
    to: Mapping[str, str]


@dataclass(frozen=True)
class Stored:
    """The vectors that were kept of one network and one set of pictures, by layer and flip ("none", "averaged").

    Figures are means over the trials of a protocol; each is computed once. `vectors` opens one file.
    """

    keys: tuple[tuple[str, str], ...]
    vectors: Callable[[tuple[str, str]], Embeddings]
    owner: str
    rows: np.ndarray | None = None  # of the tables, where only these are measured
    scores: dict[Conditions, dict[str, float]] = field(default_factory=dict, compare=False)

    def embeddings(self, layer: str, flip: str) -> Embeddings:
        """The vectors of a layer; DataError where they were not kept."""
        if (layer, flip) not in self.keys:
            kept = [name for name, own in self.keys if own == flip]
            if not kept:
                with_flip = " --flip" if flip != NONE else ""
                raise DataError(f"no such vectors are stored; write them with: vireid embed {self.owner}{with_flip}")
            raise DataError(f"{self.owner} has no layer {layer!r}; it has {', '.join(kept)}")
        whole = self.vectors((layer, flip))
        return whole if self.rows is None else whole[self.rows]

    @property
    def table(self) -> Table:
        """The rows that are measured; DataError where nothing is stored."""
        if not self.keys:
            return self.embeddings("", NONE).table
        return self.embeddings(*self.keys[0]).table

    def only(self, rows: np.ndarray) -> Stored:
        """The same with these rows of the table alone."""
        return replace(self, rows=rows, scores={})

    def score(self, conditions: Conditions) -> dict[str, float]:
        """Mean fractions by column (R1, mAP, ...); VireidError where the vectors cannot be measured so."""
        if conditions not in self.scores:
            self.scores[conditions] = self._score(conditions)
        return self.scores[conditions]

    def _score(self, conditions: Conditions) -> dict[str, float]:
        embeddings = self.embeddings(conditions.layer, conditions.flip)
        protocol = changed_rules(datasets.protocol(conditions.protocol, embeddings.table), conditions)
        similarity = conditions.similarity
        if similarity not in ("cosine", "euclidean"):
            raise ArgumentError(f"similarity is cosine or euclidean, got {similarity!r}")
        if conditions.center != NONE:
            if similarity != "cosine":
                raise ArgumentError("centered vectors are compared by cosine")
            embeddings = centered_embeddings(embeddings)
        rerank = reranking(conditions.rerank)
        return evaluate(embeddings, protocol, None, rerank, cast(Similarity, similarity)).mean


def changed_rules(protocol: Protocol, conditions: Conditions) -> Protocol:
    """The protocol with the rules of the conditions in the place of its own; ArgumentError for an unknown rule."""
    for name, known in (("ignored", IGNORED), ("cmc", CMC)):
        value = getattr(conditions, name)
        if value and value != protocol.stamp.get(name) and value not in known:
            raise ArgumentError(f"{name} is {', '.join(known)}, or as the protocol has it; got {value!r}")
    stamp = dict(protocol.stamp)
    if conditions.ignored not in ("", stamp.get("ignored")):
        stamp["ignored"] = conditions.ignored
        protocol = replace(protocol, ignore=IGNORED[conditions.ignored], stamp=stamp)
    if conditions.cmc not in ("", stamp.get("cmc")):
        stamp["cmc"] = conditions.cmc
        protocol = replace(protocol, cmc_over_pids=CMC[conditions.cmc], stamp=stamp)
    return protocol


def reranking(stamp: str) -> Rerank | None:
    """The re-ranking that a stamp names; ArgumentError for another one.

    >>> reranking("k-reciprocal k1=20 k2=6 weight=0.3")
    KReciprocal(k1=20, k2=6, weight=0.3)
    """
    if stamp == NONE:
        return None
    if match := K_RECIPROCAL.fullmatch(stamp):
        return KReciprocal(int(match[1]), int(match[2]), float(match[3]))
    if match := SHORTEST_PATH.fullmatch(stamp):
        short = None if match[3] == "all" else int(match[3])
        return LocalShortestPath(int(match[1]), int(match[2]), short, float(match[4]))
    raise ArgumentError(f"the re-ranking {stamp!r} is not known; expected {NONE} or {KReciprocal().stamp}")


# --- from one set of conditions to another ----------------------------------------------------------------------------


def changes(first: Conditions, second: Conditions, table: Table) -> Iterator[Change]:
    """What differs between two sets of conditions, one after the other, the protocol first."""
    here = datasets.protocol(first.protocol, table)
    for protocol in between(here, datasets.protocol(second.protocol, table), known_protocols(table, first, second)):
        names = _differing(here, protocol)
        one = names[0] if len(names) == 1 else None
        before, after = (side.name if one is None else facts(side).get(one, NONE) for side in (here, protocol))
        yield Change(", ".join(names) or "protocol", before, after, {"protocol": protocol.name})
        here = protocol
    for name in ("ignored", "cmc"):
        before, after = ((getattr(side, name) or here.stamp.get(name, "")) for side in (first, second))
        if before != after:
            yield Change(name, before, after, {name: after})
    for name in ("similarity", "layer", "flip", "center", "rerank"):
        before, after = getattr(first, name), getattr(second, name)
        if before != after:
            yield Change(name, before, after, {name: after})


def facts(protocol: Protocol) -> dict[str, str]:
    """What the stamp says of a protocol."""
    return {**protocol.stamp, "scores": STAMP if protocol.normalized else "raw"}


def known_protocols(table: Table, *conditions: Conditions) -> list[Protocol]:
    """The protocols of the table's data set, with the ignore rules of the conditions as well."""
    names = [*datasets.protocols_for(table), *expanded([f"{table.dataset}/{STEM}"])]
    for one in conditions:
        _, mark, rules = one.protocol.partition("/ignore-")
        names += [name + mark + rules for name in names if mark and "/ignore-" not in name]
    return [datasets.protocol(name, table) for name in dict.fromkeys(names)]


def between(start: Protocol, end: Protocol, known: Iterable[Protocol]) -> list[Protocol]:
    """The protocols that lead from one to another (which is the last), each changing as few facts as possible.

    No fact changes twice. Of equally small changes the first of `known` is taken.
    """
    here, path, goal, steps = start, [], facts(end), [*known, end]
    while here.name != end.name:
        turned = [_differing(here, protocol) for protocol in steps]
        nearer = [
            (len(names), place)
            for place, names in enumerate(turned)
            if names and all(facts(steps[place]).get(name) == goal.get(name) for name in names)
        ]
        here = steps[min(nearer)[1]] if nearer else end
        here = end if facts(here) == goal else here
        path.append(here)
    return path


def _differing(one: Protocol, other: Protocol) -> list[str]:
    """The facts that two protocols do not share."""
    own, others = facts(one), facts(other)
    return [name for name in {**own, **others} if own.get(name) != others.get(name)]
