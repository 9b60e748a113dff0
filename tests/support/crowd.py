"""A synthetic gallery with the shape of a real one: people seen by several cameras in tracks of near duplicates.

50 crops of each person in 5 tracks of 10 near duplicates; 20 cameras, the last 8 infrared, each with an offset of its
own and one for its modality; 30 days. Near duplicates of a query on other cameras are what makes filtered search hard:
an index finds them first, and the filter throws them away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vireid.search.gallery import Filter, Record

CROPS, TRACKS, CAMERAS, INFRARED_FROM, DAYS = 50, 5, 20, 12, 30
START_S = 1_760_000_000.0
NARROW = Filter(
    cameras=("cam12", "cam14", "cam16", "cam18"), after_s=START_S + 864e3, before_s=START_S + 864e3 + 259200, modality=1
)  # 2 % of the rows
WIDE = Filter(modality=1)  # 40 %


@dataclass(frozen=True)
class Crowd:
    vectors: np.ndarray  # (G, D) float32, unit
    camera: np.ndarray  # (G,)
    time_s: np.ndarray  # (G,)
    queries: np.ndarray  # (Q, D)

    def mask(self, filter: Filter) -> np.ndarray:
        """What passes one of the two filters above, or none, by numpy alone."""
        found = np.ones(len(self.vectors), bool)
        if filter.modality is not None:
            found &= (self.camera >= INFRARED_FROM) == bool(filter.modality)
        if filter.cameras:
            found &= np.isin(self.camera, [int(name[3:]) for name in filter.cameras])
        if filter.after_s is not None and filter.before_s is not None:
            found &= (self.time_s >= filter.after_s) & (self.time_s < filter.before_s)
        return found

    def records(self, step: int = 10_000) -> Iterator[list[Record]]:
        for start in range(0, len(self.vectors), step):
            yield [
                Record(
                    id=f"r{row:08}", vector=self.vectors[row], camera=f"cam{self.camera[row]}",
                    time_s=float(self.time_s[row]), modality=int(self.camera[row] >= INFRARED_FROM),
                    path=f"day/{row // 1000}/{row}.jpg", track=f"t{row // 10}",
                )
                for row in range(start, min(start + step, len(self.vectors)))
            ]  # fmt: skip

    def exact(self, filter: Filter, k: int = 10, block: int = 65_536) -> list[set[str]]:
        """Ids of the k most alike of every query, by a plain scan in blocks."""
        rows = np.flatnonzero(self.mask(filter))
        best = np.full((len(self.queries), 0), 0.0, np.float32)
        place = np.zeros((len(self.queries), 0), np.int64)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            best = np.concatenate([best, self.queries @ self.vectors[part].T], 1)
            place = np.concatenate([place, np.broadcast_to(part, (len(self.queries), len(part)))], 1)
            order = np.argsort(-best, 1, kind="stable")[:, :k]
            best, place = np.take_along_axis(best, order, 1), np.take_along_axis(place, order, 1)
        return [{f"r{row:08}" for row in line} for line in place]


def crowd(rows: int, dim: int = 512, queries: int = 200, seed: int = 0) -> Crowd:
    """`rows` crops and new crops of known people as queries."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    people = -(-rows // CROPS)
    identity, camera_shift, modality_shift = normal(people, dim), 0.5 * normal(CAMERAS, dim), 0.7 * normal(2, dim)
    track_camera = random.integers(0, CAMERAS, (people, TRACKS))
    track_time = START_S + random.uniform(0, DAYS * 86400, (people, TRACKS))

    def crops(person: np.ndarray, track: np.ndarray, wobble: np.ndarray) -> np.ndarray:
        camera = track_camera[person, track]
        found = identity[person] + camera_shift[camera] + modality_shift[(camera >= INFRARED_FROM).astype(int)]
        found += wobble + 0.25 * normal(len(person), dim)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    vectors = np.empty((rows, dim), np.float32)
    row = np.arange(rows)
    person, track = row // CROPS, row % CROPS // (CROPS // TRACKS)
    for start in range(0, rows, 50_000):  # whole tracks
        part = slice(start, start + 50_000)
        wobble = 0.6 * normal(-(-len(row[part]) // 10), dim)
        vectors[part] = crops(person[part], track[part], np.repeat(wobble, 10, 0)[: len(row[part])])
    asked = random.integers(0, people, queries), random.integers(0, TRACKS, queries)
    return Crowd(
        vectors,
        track_camera[person, track],
        track_time[person, track] + row % 10,
        crops(*asked, 0.6 * normal(queries, dim)),
    )
