"""What came of the trial of live cameras (live_trial.py), compared with what is known of the film."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from live_scene import CROSSING_S, FPS, Passage

from vireid.live.store import NAME, last_alarms
from vireid.search.audit import Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record
from vireid.search.marks import NAME as MARKS
from vireid.search.marks import MarkStore

NEAR_S = 0.3  # between the time of a row and of the frame that it shows
DAY_S = 86400.0


@dataclass
class Film:
    """What is known: who is in which frame, in seconds of the film."""

    passages: list[Passage]
    places: dict[str, dict[int, set[int]]]  # camera, frame, people

    @classmethod
    def read(cls, path: Path) -> Film:
        known = json.loads(path.read_text())
        places = {
            camera: {int(number): {pid for pid, _ in seen} for number, seen in frames.items()}
            for camera, frames in known["places"].items()
        }
        return cls([Passage(**one) for one in known["passages"]], places)

    def people(self, camera: str, at_s: float) -> set[int]:
        """Who was in the picture at about this moment."""
        first, last = round((at_s - NEAR_S) * FPS), round((at_s + NEAR_S) * FPS)
        return set().union(*(self.places[camera].get(number, set()) for number in range(first, last + 1)))

    def first_s(self, passage: Passage) -> float:
        """When somebody is seen first."""
        begin = round(passage.begin_s * FPS)
        return next(n for n in range(begin, begin + 20) if passage.pid in self.places[passage.camera].get(n, ())) / FPS


def judged(trial: Any) -> tuple[list[str], bool]:
    """The result as lines, and whether everything that has to hold holds."""
    folder: Path = trial.folder
    known = Film.read(folder / "film/truth.json")
    rows = list(open_gallery(str(folder / "night")).rows())
    checks = [
        *_of_rows(rows, trial),
        *_of_alarms(folder),
        *_of_marks(folder, trial.marks),
    ]
    lines = [
        *_passages(rows, known, trial),
        "",
        *_alarms(folder, known, trial, len(rows)),
        "",
        *_kills(trial, rows),
        "",
    ]
    lines += [*_visits(folder, trial, known), ""]
    lines += [f"{'holds' if right else 'DOES NOT HOLD'}: {what}" for what, right in checks]
    return lines, all(right for _, right in checks)


def _of_rows(rows: Sequence[Record], trial: Any) -> list[tuple[str, bool]]:
    ids = Counter(row.id for row in rows)
    lost = trial.seen - ids.keys()
    vectors = np.stack([row.vector for row in rows])
    close = np.argwhere(np.triu(vectors @ vectors.T > 0.99999, 1))
    return [
        (f"of {len(trial.seen)} rows that were seen in the gallery at any time {len(lost)} are missing", not lost),
        (f"{len(rows)} rows have {len(ids)} ids", len(ids) == len(rows)),
        (f"{len(close)} pairs of rows have the same vector", not len(close)),
    ]


def _of_alarms(folder: Path) -> list[tuple[str, bool]]:
    alarms = last_alarms(folder / "night.files" / NAME, 10_000)
    raised = {alarm["id"] for alarm, _ in alarms}
    received = Counter(event["id"] for event in _events(folder))
    audit = Audit(folder / "night.files/audit.jsonl")
    written = Counter(entry["alarm"] for entry in audit.entries() if entry["what"] == "alarm")
    waiting = sum(bool(channels) for _, channels in alarms)
    return [
        (f"of {len(raised)} alarms {len(raised - received.keys())} did not arrive, {waiting} wait to be sent",
         raised == received.keys() and not waiting),
        (f"{sum(received.values()) - len(received)} alarms arrived twice", max(received.values(), default=1) == 1),
        (f"the audit log has {sum(written.values())} alarms, and its chain is whole ({audit.verify()} entries)",
         written == Counter(raised)),
    ]  # fmt: skip


def _of_marks(folder: Path, marked: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    kept = {(mark.query, mark.id) for mark in MarkStore(folder / "night.files" / MARKS).of(None)}
    lost = [one for one in marked if (one["query"], one["id"]) not in kept]
    return [(f"of {len(marked)} marks that were acknowledged {len(lost)} are missing", not lost)]


def _events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _down(trial: Any, part: Sequence[str], begin_s: float, end_s: float) -> bool:
    """Whether one of these parts was down in some of this time, or was starting."""
    return any(one.part in part and one.at_s < end_s and begin_s < one.works_s for one in trial.kills)


def _passages(rows: Sequence[Record], known: Film, trial: Any) -> list[str]:
    found, missed, cut = 0, list[Passage](), 0
    for passage in known.passages:
        begin_s = trial.start_s + passage.begin_s
        hers = [row for row in rows if row.camera == passage.camera and 0 <= row.time_s - begin_s <= CROSSING_S + 1]
        if hers:
            found += 1
        elif _down(trial, ("watch", "cameras"), passage.begin_s, passage.begin_s + CROSSING_S):
            cut += 1
        else:
            missed.append(passage)
    wrong = [row for row in rows if not known.people(row.camera, row.time_s - trial.start_s)]
    moments = Counter((row.camera, row.time_s) for row in rows)
    twice = [at for at, count in moments.items() if count > len(known.people(at[0], at[1] - trial.start_s)) > 0]
    text = f"{len(known.passages)} passages: {found} have rows, {cut} fell into a time in which a part was down, "
    status = json.loads((trial.folder / "night.files/watch.json").read_text())["cameras"]
    return [
        f"{text}{len(missed)} are missing; {len(rows)} rows, {len(wrong)} of an empty picture, "
        f"{len(twice)} frames with more rows than people",
        *(f"  {name}: {one['frames']} frames since the last start, {one['dropped']} dropped, {one['lag_s']} s from the "
          f"last frame to its rows, clock {one['clock']}" for name, one in status.items()),
    ]  # fmt: skip


def _alarms(folder: Path, known: Film, trial: Any, rows: int) -> list[str]:
    first = {event["id"]: event for event in reversed(_events(folder))}
    events = sorted(first.values(), key=lambda event: event["time_s"])
    lines, hers, other = [], 0, set(first)
    for passage in known.passages:
        if passage.pid != trial.wanted:
            continue
        first_s = known.first_s(passage)
        own = [e for e in events if e["camera"] == passage.camera
               and 0 <= e["time_s"] - trial.start_s - passage.begin_s <= CROSSING_S + 1]  # fmt: skip
        other -= {event["id"] for event in own}
        down = [part for part in ("watch", "cameras", "receiver")
                if _down(trial, (part,), passage.begin_s, passage.begin_s + CROSSING_S)]  # fmt: skip
        text = f"  {passage.camera} at {passage.begin_s:5.1f} s: "
        if own:
            hers += 1
            event = own[0]
            text += (
                f"alarm {event['received_s'] - trial.start_s - first_s:5.2f} s after her first frame "
                f"({event['received_s'] - event['time_s']:.2f} s after the frame of the row; score "
                f"{event['similarity']:.3f}, threshold {event['threshold']:.3f})"
            )
        else:
            text += "no alarm"
        lines.append(text + (f"; {', '.join(down)} down or starting" if down else ""))
    allowed = trial.budget * rows / trial.rows_per_day
    return [
        f"passages of the person on the watch-list: {len(lines)}, of which {hers} raised an alarm",
        *lines,
        f"alarms by others: {len(other)}; the budget of {trial.budget:g} for {trial.rows_per_day:,} rows a day allows "
        f"{allowed:.2f} for {rows} rows",
        *(f"  {event['camera']} at {event['time_s'] - trial.start_s:.1f} s: score {event['similarity']}, threshold "
          f"{event['threshold']}" for event in events if event["id"] in other),
    ]  # fmt: skip


def _kills(trial: Any, rows: Sequence[Record]) -> list[str]:
    ids = {row.id for row in rows}
    lines = ["| killed (SIGKILL) | at s | started at s | works at s | rows before | of these at the end |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for one in trial.kills:
        rows_of = f"{len(one.rows)} | {len(one.rows & ids)}"
        lines.append(f"| {one.part} | {one.at_s:.1f} | {one.back_s:.1f} | {one.works_s:.1f} | {rows_of} |")
    return lines


def _visits(folder: Path, trial: Any, known: Film) -> list[str]:
    """`vireid search --visits` with her pictures, as passages that are hers and others."""
    pictures = sorted(str(path) for path in (folder / "pictures").glob("*.png"))
    command = [sys.executable, "-m", "vireid", "search", *pictures, "--gallery", str(folder / "night"), "--visits",
               "--json"]  # fmt: skip
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    passages = answer["passages"]
    lines, right = [], 0
    for one in passages:
        first_s, last_s = (_seconds(one[name]) - trial.start_s for name in ("from", "until"))  # whole seconds
        hers = trial.wanted in known.people(one["camera"], (first_s + last_s) / 2)
        right += hers
        text = f"  {one['camera']} at {first_s:5.1f} s: similarity {one['similarity']:.3f}"
        lines.append(text if hers else f"{text}, somebody else")
    all_hers = sum(passage.pid == trial.wanted for passage in known.passages)
    visits = len({one["visit"] for one in passages})
    return [
        f"vireid search --visits with her pictures: {len(passages)} passages in {visits} visits, {right} of her "
        f"{all_hers} passages",
        *lines,
    ]


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
