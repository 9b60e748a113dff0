"""Answers: what the service says about itself and about a search, as JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
from typing import Any

import numpy as np
from fastapi import HTTPException
from PIL import Image

from vireid.deploy.calibration import NEEDED
from vireid.errors import CalibrationError
from vireid.search.gallery import Facets, Record
from vireid.search.searcher import Answer, Marks
from vireid.server.auth import Caller
from vireid.server.deps import Door
from vireid.server.schemas import MOST_HITS, Ask
from vireid.types import MODALITIES
from vireid.version import __version__

FACETS_S, FACETS_MOST_S = 60.0, 3600.0  # counting by camera looks at every row: where their number changed, or hourly
SHORTLIST = 200  # rows that are re-ranked; a list of them has an end, so that its pages agree


class Answers:
    """Answers of a service; whoever adds or removes rows calls `changed`."""

    def __init__(self, door: Door) -> None:
        self.door, self.service, self.archive = door, door.service, door.service.archive
        self._facets: tuple[float, int, Facets] | None = None  # when, of how many rows
        self._facets_lock = threading.Lock()

    def changed(self) -> None:
        self._facets = None

    def facets(self) -> Facets:
        with self._facets_lock:
            now = time.monotonic()
            if self._facets is not None:
                age = now - self._facets[0]
                if age < FACETS_S or (age < FACETS_MOST_S and self._facets[1] == self.archive.gallery.count()):
                    return self._facets[2]
            found = self.archive.gallery.facets()
            self._facets = (now, sum(found.modalities.values()), found)
            return found

    def about(self, caller: Caller) -> dict[str, Any]:
        service, config = self.service, self.service.bundle.config
        shown: dict[str, Any] = {
            "version": __version__,
            "caller": {"name": caller.name, "role": caller.role, "tokens": service.tokens is not None},
            "purpose": service.purpose,
        }
        if not caller.may("search"):
            return shown
        facets, calibration = self.facets(), service.calibration
        attention = service.attention.reason if service.attention else "it is switched off"
        return {
            **shown,
            "network": {
                "method": config.method,
                "size": config.size,
                "trained_on": str(config.trained_on),
                "digest": config.digest[:12],
            },
            "rows": sum(facets.modalities.values()),
            "cameras": facets.cameras,
            "modalities": {MODALITIES[key]: rows for key, rows in facets.modalities.items()},
            "tags": facets.tags,
            "first_s": number(facets.first_s),
            "last_s": number(facets.last_s),
            "calibration": None if calibration is None else {
                "dataset": calibration.dataset,
                "people": calibration.people,
                "least_rate": {name: NEEDED / pair.other_pairs for name, pair in calibration.pairs.items()},
                "missing": calibration.missing,
            },
            "attention": attention,
            "reranks": list(service.reranks),
            "keep_days": service.keep_days,
            "limits": {
                "picture_bytes": service.limits.picture_bytes,
                "picture_pixels": service.limits.picture_pixels,
                "pictures": service.limits.pictures,
            },
            "examples": [{"name": e.name, "modality": e.modality, "within": e.within} for e in service.examples],
        }  # fmt: skip

    def search(self, caller: Caller, ask: Ask, pictures: list[bytes]) -> dict[str, Any]:
        """Ranked hits, or that nobody is there; noted in the audit log before it is answered."""
        began = time.monotonic()
        if not pictures and not ask.like:
            raise HTTPException(422, "send a picture, or name a row with `like`")
        if self.service.purpose and not ask.purpose.strip():
            raise HTTPException(422, "say what the search is for (`purpose`); it is kept in the audit log")
        crops, uploads = self.door.decoded(pictures, ask.boxes)
        query = hashlib.sha256(
            json.dumps([sorted(upload.digest for upload in uploads), ask.boxes, sorted(ask.like)]).encode()
        ).hexdigest()
        searched = self.archive.gallery.count(ask.filter.filter())
        prior = prior_of(ask.prior, searched)
        found, kinds, notes = self.find(ask, crops, prior)
        hits = found.hits[ask.offset : ask.offset + ask.limit]
        rate = None if found.nobody is None else ask.false_match_rate
        bars = {} if rate is None else self.thresholds(kinds, {hit.record.modality for hit in hits}, rate)
        modality = [MODALITIES[kind] for kind in kinds]
        self.door.note(
            caller,
            "search",
            pictures=[upload.digest for upload in uploads],
            like=list(ask.like),
            modality=modality,
            filter=ask.filter.told(),
            false_match_rate=ask.false_match_rate,
            purpose=ask.purpose,
            marks=len(ask.right) + len(ask.wrong),
            offset=ask.offset,
            hits=len(hits),
            nobody=found.nobody,
        )
        return {
            "query": query,
            "modality": modality,
            "hits": [
                {
                    **row_of(hit.record),
                    "similarity": hit.similarity,
                    "probability": hit.probability,
                    "match": hit.similarity >= bars[hit.record.modality] if hit.record.modality in bars else None,
                }
                for hit in hits
            ],
            "more": len(found.hits) > ask.offset + ask.limit,
            "nobody": found.nobody,
            "stamp": found.stamp,
            "notes": notes,
            "searched": searched,
            "prior": prior,
            "took_s": round(time.monotonic() - began, 3),
        }

    def find(self, ask: Ask, crops: list[Image.Image], prior: float) -> tuple[Answer, list[int], list[str]]:
        """What the Searcher says, the modality of each picture, and what the caller should know about the answer."""
        searcher, gallery = self.service.searcher, self.archive.gallery
        vectors, kinds = [], []
        if crops:
            for part, modality in searcher.extractor.batches(crops, ask.modality):
                vectors += list(part)
                kinds += modality.tolist()
        for record in gallery.fetch(ask.like):
            vectors.append(record.vector)
            kinds.append(record.modality)
        k = min(ask.offset + ask.limit + 1, MOST_HITS)
        more: dict[str, Any] = {
            "combine": ask.combine,
            "marks": Marks(ask.right, ask.wrong),
            "per_track": ask.per_track,
            "prior": prior,
        }
        if ask.rerank is not None:
            if ask.rerank not in self.service.reranks:
                raise HTTPException(422, f"this network is re-ranked by {' or '.join(self.service.reranks)} alone")
            more |= {"rerank": self.service.reranks[ask.rerank], "shortlist": SHORTLIST}
            k = min(k, SHORTLIST)
        given = (np.stack(vectors), kinds, k, ask.filter.filter(without=ask.like))
        try:
            answer = searcher.search_vectors(*given, false_match_rate=ask.false_match_rate, **more)
            notes = []
        except CalibrationError as error:  # no table for one of the pairs: the list is an answer, and says so
            answer, notes = searcher.search_vectors(*given, **more), [str(error)]
        if answer.uncalibrated and self.service.calibration is not None and answer.uncalibrated not in notes:
            notes.append(answer.uncalibrated)
        return answer, kinds, notes

    def thresholds(self, kinds: list[int], modalities: set[int], rate: float) -> dict[int, float]:
        """The similarity from which on a row of each modality matches, the strictest of the query's pictures."""
        calibration = self.service.calibration
        assert calibration is not None
        bars = {}
        for to in modalities:
            with contextlib.suppress(CalibrationError):  # no table for this pair, which the notes of the answer say
                bars[to] = max(calibration.threshold(rate, (kind, to)) for kind in set(kinds))
        return bars


def prior_of(asked: float | str, searched: int) -> float:
    """The probability before a picture is looked at; "searched" is one of so many rows, and even for one alone."""
    return 1 / max(2, searched) if isinstance(asked, str) else asked


def row_of(record: Record) -> dict[str, Any]:
    """A record as the page takes it; where its file lies is not told."""
    return {
        "id": record.id,
        "camera": record.camera,
        "time_s": number(record.time_s),
        "modality": MODALITIES[record.modality],
        "track": record.track,
        "pid": record.pid,
        "tags": list(record.tags),
    }


def number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
