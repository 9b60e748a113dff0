"""Frozen embeddings: those of a run that is not trained further, on which a refining method (NFormer) is trained.

Vectors of a run are made once and kept in its folder, as RUN/embeddings/LAYER@frozen-ROWS.npz with ROWS the beginning
of the rows' fingerprint; they are taken again as long as embedder, pictures and rows are the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.data.table import Table
from vireid.errors import DataError, RunError
from vireid.evaluation.embed import Embeddings, embed
from vireid.layers.embedder import Embedder
from vireid.system import file_digest
from vireid.training.run_folder import EMBEDDER, RunFolder

MADE_FROM = "made from"  # entry of the embeddings' stamp that says whether they are up to date; not printed


def fingerprint(run: RunFolder, rows: Table, flip: bool) -> str:
    """Of everything that the vectors depend on: embedder file, rows, poses, the pictures' sizes and times, flip."""
    use = run.deployment
    ends = f"/{use.thermal_range}" if use.thermal_range else ""
    digest = hashlib.sha256(f"{rows.fingerprint}/{use.size}/{use.filter}/{flip}{ends}".encode())
    digest.update((run.path / EMBEDDER).read_bytes())
    if "keypoints" in rows.extras:
        digest.update(np.ascontiguousarray(rows.extras["keypoints"]).tobytes())
    for row in range(len(rows)):
        path = rows.full_path(row)
        if not path.exists():
            raise DataError(f"the picture {path} is missing; `vireid data check` lists all that are")
        status = path.stat()
        digest.update(f"{status.st_size}/{status.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


class Frozen:
    """The base of a refining method: a run folder, or an embeddings file (.npz) that holds all training rows.

    `record` is what recipe.json says about it. Raises RunError or DataError for what is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()
        self.run = None if self.path.is_file() else RunFolder.open(self.path)
        if self.run is not None and self.run.record.base is not None:
            raise RunError(f"{self.path} refines another run itself; give {self.run.record.base.path} as the base")
        self.file = Embeddings.load(self.path) if self.run is None else None
        self._kept: dict[str, Embeddings] = {}

    @cached_property
    def record(self) -> dict[str, Any]:
        """path, method, init, embedder (digest), data (fingerprint of the people it was trained on) and dim."""
        if self.run is not None:
            of_run = self.run.record
            names = {"method": of_run.method, "embedder": self.run.embedder_digest, "data": of_run.data}
            return {"path": str(self.path), **names, "dim": self.dim}
        assert self.file is not None
        names = {name: self.file.stamp.get(name, "unknown") for name in ("method", "embedder", "data")}
        return {"path": str(self.path), **names, "dim": self.dim, "file": file_digest(self.path)[:8]}

    @property
    def init(self) -> str:
        """What the stamp says a training on it started from: the base's method and what its own started from."""
        if self.run is not None:
            return f"embeddings of {self.run.record.method} ({self.run.record.init})"
        assert self.file is not None
        return f"embeddings of {self.file.stamp.get('method', 'unknown')} ({self.file.stamp.get('init', 'unknown')})"

    @cached_property
    def embedder(self) -> Embedder:
        """The base run's network; DataError for a base that is a file of vectors."""
        if self.run is None:
            raise DataError(
                f"{self.path} is a file of embeddings, which cannot embed further pictures; give a run folder"
            )
        with torch.device("cpu"):
            return self.run.embedder()

    @cached_property
    def dim(self) -> int:
        """How many numbers a vector has: of one black picture, or of vectors that the run has already made."""
        if self.file is not None:
            return self.file.vectors.shape[1]
        assert self.run is not None
        if self.embedder.inputs:
            return self._dim_of_files()
        with torch.no_grad(), torch.device("cpu"):
            picture = torch.zeros(1, 3, *self.run.deployment.size, dtype=torch.uint8)
            return self.embedder(picture, torch.zeros(1, dtype=torch.int64)).shape[1]

    def _dim_of_files(self) -> int:
        """Of the deployed layer, from what `vireid embed` wrote: this embedder takes more than a picture."""
        for path in sorted((self.path / "embeddings").glob("*.npz")):
            stored = Embeddings.load(path)
            if stored.stamp.get(MADE_FROM, "").split()[1:2] == [stored.stamp.get("layer")]:
                return stored.vectors.shape[1]
        raise RunError(
            f"the embedder of {self.path} also takes {', '.join(self.embedder.inputs)}, so the length of its vectors "
            f"is not known before it has run: vireid embed {self.path}"
        )

    def check(self, table: Table) -> None:
        """Raise RunError or DataError unless the base was trained on the people of just these training rows."""
        where = f"{table.partition or table.dataset} with training rows {table.fingerprint}"
        if self.run is not None:
            record = self.run.record
            trained, came = (record.dataset, record.partition, record.data), (table.dataset, table.partition)
            if trained != (*came, table.fingerprint):
                raise RunError(
                    f"the base {self.path} was trained on {trained[1] or trained[0]} with training rows {trained[2]}, "
                    f"this training is on {where}: its vectors of people that it has not been trained on, or of test "
                    "people, are of another kind. Give the same data, --trial, --select and --holdout as for the base"
                )
            return
        assert self.file is not None
        if self.file.stamp.get("data", table.fingerprint) != table.fingerprint:
            raise DataError(
                f"the vectors in {self.path} come from a run on training rows {self.file.stamp['data']}, this training "
                f"is on {where}; give vectors of a run on the same rows"
            )
        self._rows_of_file(table)

    def embeddings(self, table: Table, progress: bool = False, device: str | torch.device = "cpu") -> Embeddings:
        """The vectors of these rows in evaluation mode: of the file, or made by the run's embedder and kept."""
        key = table.fingerprint
        if key not in self._kept:
            self._kept[key] = (
                self._of_file(table) if self.run is None else self._of_run(self.run, table, progress, device)
            )
        return self._kept[key]

    def _of_file(self, table: Table) -> Embeddings:
        assert self.file is not None
        return Embeddings(self.file.vectors[self._rows_of_file(table)], table, self.file.stamp)

    def _rows_of_file(self, table: Table) -> np.ndarray:
        assert self.file is not None
        place = {str(path): row for row, path in enumerate(self.file.table.path)}
        missing = [str(path) for path in table.path if str(path) not in place]
        if missing:
            raise DataError(
                f"{self.path} holds no vector for {len(missing)} of {len(table)} training rows, the first is "
                f"{missing[0]}; give the run folder as the base, which embeds what is needed"
            )
        return np.array([place[str(path)] for path in table.path])

    def _of_run(self, run: RunFolder, table: Table, progress: bool, device: str | torch.device) -> Embeddings:
        made_from = fingerprint(run, table, False)
        folder = run.path / "embeddings"
        for path in folder.glob(f"*@frozen-{table.fingerprint[:6]}.npz"):
            stored = Embeddings.load(path)
            if stored.stamp.get(MADE_FROM) == made_from:
                return replace(stored, table=table)
        use = run.deployment
        made = embed(self.embedder, table, use.size, device=device, filter=use.filter, progress=progress)
        made = replace(made, stamp={**run.stamp, **made.stamp, MADE_FROM: made_from})
        made.save(folder / f"{made.stamp['layer']}@frozen-{table.fingerprint[:6]}.npz")
        return made
