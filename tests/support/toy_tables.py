"""Small tables and embeddings for the retrieval tests."""

from __future__ import annotations

import numpy as np

from vireid.data.table import Table, table_from_columns
from vireid.evaluation.embed import Embeddings


def toy_table(rows=60, people=6, seed=0, **extras) -> Table:
    """Infrared rows (camera 3 or 6) first, then visible ones (1, 2, 4, 5)."""
    random = np.random.default_rng(seed)
    modality = (np.arange(rows) < rows // 2).astype(int)
    camid = np.where(modality == 1, random.choice([3, 6], rows), random.choice([1, 2, 4, 5], rows))
    columns = {
        "path": [f"cam{c}/{r:04d}.jpg" for r, c in enumerate(camid)],
        "pid": np.arange(rows) % people + 10,
        "camid": camid,
        "modality": modality,
        "split": ["test"] * rows,
    }
    return table_from_columns("toy", columns | extras, "toy")


def toy_embeddings(rows=60, people=6, seed=0, dim=8, noise=1.0) -> Embeddings:
    table = toy_table(rows, people, seed)
    random = np.random.default_rng(seed + 1)
    vectors = random.standard_normal((20 + people, dim))[table.pid] + noise * random.standard_normal((rows, dim))
    return Embeddings(vectors.astype(np.float32), table, {"layer": "neck", "flip": "none"})
