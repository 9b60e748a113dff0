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
    shifts: tuple[np.ndarray, np.ndarray]  # of cameras and modalities, (C, D) and (2, D)
    first: int = 0  # number of its first row, in a crowd that comes in parts

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
            end = min(start + step, len(self.vectors))
            yield [
                Record(
                    id=f"r{number:08}", vector=self.vectors[row], camera=f"cam{self.camera[row]}",
                    time_s=float(self.time_s[row]), modality=int(self.camera[row] >= INFRARED_FROM),
                    path=f"day/{number // 1000}/{number}.jpg", track=f"t{number // 10}",
                )
                for row, number in zip(range(start, end), range(self.first + start, self.first + end), strict=True)
            ]  # fmt: skip

    def exact(self, filter: Filter, k: int = 10, block: int = 65_536) -> list[set[str]]:
        """Ids of the k most alike of every query, by a plain scan in blocks."""
        return [{f"r{row:08}" for row in line} for line in self.nearest(self.queries, filter, k, block)[1]]

    def nearest(
        self, queries: np.ndarray, filter: Filter, k: int = 10, block: int = 65_536
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and numbers of the k most alike rows (Q, k), the best first."""
        rows = np.flatnonzero(self.mask(filter))
        best, place = np.full((len(queries), 0), 0.0, np.float32), np.zeros((len(queries), 0), np.int64)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            best = np.concatenate([best, queries @ self.vectors[part].T], 1)
            place = np.concatenate([place, np.broadcast_to(self.first + part, (len(queries), len(part)))], 1)
            best, place = largest(best, place, k)
        return best, place


def largest(similarity: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of similarities (Q, n) and their rows (Q, n), in order."""
    order = np.argsort(-similarity, 1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)


def crowd(rows: int, dim: int = 512, queries: int = 200, seed: int = 0, after: Crowd | None = None) -> Crowd:
    """`rows` crops and new crops of known people as queries; `after`: other people on the cameras of that part."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    people = -(-rows // CROPS)
    identity, camera_shift, modality_shift = normal(people, dim), 0.5 * normal(CAMERAS, dim), 0.7 * normal(2, dim)
    if after is not None:
        camera_shift, modality_shift = after.shifts
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
        (camera_shift, modality_shift),
        0 if after is None else after.first + len(after.vectors),
    )
