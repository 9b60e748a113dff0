"""The log of a training, RUN/log.jsonl, as it is read again (logger.py writes it). Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vireid.errors import RunError
from vireid.json_file import parsed

NAME = "log.jsonl"  # in a run folder
RECORDED = {"step": {"event"}, "epoch": {"event", "stage", "epoch"}}  # what a record has, by its event


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's log in order, none where there is no log; RunError for a line that is not a record.

    A last line that a full disk or a pulled plug cut off is left out: a resumed training writes it again.
    """
    path = folder / NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = parsed(line)
        except ValueError:
            if not line.endswith(b"\n"):
                break
            record = None
        if not isinstance(record, dict) or not record.keys() >= RECORDED.get(str(record.get("event")), {"event", ""}):
            raise RunError(
                f"{path}, line {number} is not a record of a training; put back a good copy, or move it away"
            )
        records.append(record)
    return records
