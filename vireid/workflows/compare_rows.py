"""Finished runs of a comparison as small files: from them it resumes after its run folders are gone.

    ROWS/DATA/LINE/SEED.json      what the table says of one run, and the digest of all that it follows from

A row stands for a run of the same method, recipe, settings, start, pictures, seed and protocols; any other one is
trained again and its row replaced. Rows are a few kilobytes each and can be kept beside the plan.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vireid.errors import DataError
from vireid.evaluation.comparison import Trained
from vireid.evaluation.results import Results, Row
from vireid.system import replacing
from vireid.training.record import to_jsonable

FORMAT = "vireid compared run 1"


class _File(BaseModel):
    """One row; `digest` is that of `digest_of`."""

    model_config = ConfigDict(extra="forbid")

    format: str
    digest: str
    data: str
    name: str
    seed: int
    rows: tuple[Row, ...]
    pictures: int
    train_s: float
    parameters: int
    notes: tuple[str, ...]


def digest_of(**origin: Any) -> str:
    """64 hexadecimal digits of all that the figures of a run follow from."""
    return hashlib.sha256(json.dumps(to_jsonable(origin), sort_keys=True).encode()).hexdigest()


def read_row(path: Path, digest: str) -> Trained | None:
    """The run of this digest, or None where there is no such row; DataError for a file of another kind."""
    if not path.is_file():
        return None
    try:
        file = _File.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is not a row of a comparison ({error.errors()[0]['msg']}); delete it, or name another folder"
        ) from error
    if file.format != FORMAT:
        raise DataError(f"{path} is {file.format!r}, expected {FORMAT!r}; delete it, or name another folder")
    if file.digest != digest:
        return None
    values = file.model_dump(exclude={"format", "digest", "rows"})
    return Trained(**values, results=Results(file.rows))


def write_row(path: Path, digest: str, run: Trained) -> None:
    """Write the row of a run that has a seed, whole or not at all."""
    assert run.seed is not None, "a floor such as chance is computed again"
    file = _File(
        format=FORMAT,
        digest=digest,
        data=run.data,
        name=run.name,
        seed=run.seed,
        rows=run.results.rows,
        pictures=run.pictures,
        train_s=round(run.train_s, 1),
        parameters=run.parameters,
        notes=run.notes,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
