"""`vireid export RUN --fiftyone FOLDER`: the test pictures of a run with labels, vectors and figures for FiftyOne.

FOLDER/metadata.json and samples.json have the form without a version, which `fiftyone.types.FiftyOneDataset` opens by
its importer of older data sets (of fiftyone before 0.8). Pictures stay where they are: a sample holds a path.

    dataset = fiftyone.Dataset.from_dir("FOLDER", dataset_type=fiftyone.types.FiftyOneDataset)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.queries import NEAREST, read_queries
from vireid.system import replacing
from vireid.types import MODALITIES
from vireid.workflows.run import Run
from vireid.workflows.run_outputs import QUERIES

METADATA, SAMPLES = "metadata.json", "samples.json"
Sample = dict[str, Any]


def export_fiftyone(run: str | Path | Run, folder: str | Path, **words: Any) -> Path:
    """Write the dataset and return its folder; `words` are fields of EmbedOptions.

    A query holds the figures of its latest evaluation under each protocol. Raises RunError, DataError, and
    ArgumentError for a folder that holds something else.
    """
    opened, folder = run if isinstance(run, Run) else Run.open(run), Path(folder)
    strange = (
        [path.name for path in folder.iterdir() if path.name not in (METADATA, SAMPLES)] if folder.is_dir() else []
    )
    if strange:
        raise ArgumentError(f"{folder} holds {strange[0]}, which is not of a FiftyOne dataset; name another folder")
    layers = opened.embed(**words)
    embeddings = next(iter(layers.values()))
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "media_type": "image",
        "info": {"run": str(opened.path), "method": opened.record.method, "stamp": embeddings.stamp},
    }
    samples = {"samples": list(samples_of(embeddings, query_figures(opened.path / QUERIES, embeddings)))}
    for name, content in ((METADATA, about), (SAMPLES, samples)):
        with replacing(folder / name) as partial:
            partial.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return folder


def samples_of(embeddings: Embeddings, figures: dict[str, Sample]) -> Iterator[Sample]:
    """One sample for each row: path, split as a tag, person, camera and modality as labels, vector, figures."""
    table = embeddings.table
    for row in range(len(embeddings)):
        path = str(table.path[row])
        extras = {name: plain(column[row]) for name, column in table.extras.items() if column.ndim == 1}
        yield {
            "filepath": str(table.full_path(row).resolve()),
            "tags": [str(table.split[row])],
            "person": label(str(table.pid[row])),
            "camera": label(str(table.camid[row])),
            "modality": label(MODALITIES[int(table.modality[row])]),
            "embedding": embeddings.vectors[row].astype(float).tolist(),
            **{name: value for name, value in extras.items() if value is not None},
            **figures.get(path, {}),
        }


def query_figures(file: Path, embeddings: Embeddings) -> dict[str, Sample]:
    """Fields of each query by its path: mean AP over the trials, rank of the first match, nearest pictures of trial 0.

    Only the first lines of each protocol count, those of its latest evaluation, and only of this network.
    """
    if not file.is_file():
        return {}
    place = {str(path): str(embeddings.table.full_path(row)) for row, path in enumerate(embeddings.table.path)}
    latest: dict[str, tuple[str, ...]] = {}
    precision: dict[tuple[str, str], list[float]] = {}
    fields: dict[str, Sample] = {}
    for line in read_queries(file):
        protocol, query = line["protocol"], line["query"]
        conditions = tuple(line[name] for name in ("layer", "flip", "center", "similarity", "rerank", "refine"))
        if (
            line["embedder"] != embeddings.stamp.get("embedder")
            or latest.setdefault(protocol, conditions) != conditions
        ):
            continue
        name = protocol.replace("/", "_").replace("-", "_").replace("+", "_")
        own = fields.setdefault(query, {})
        if line["AP"]:
            precision.setdefault((query, name), []).append(float(line["AP"]))
            own[f"AP_{name}"] = statistics.fmean(precision[query, name])
        if line["trial"] == "0":
            nearest = [line[f"nearest_{k}"] for k in range(1, NEAREST + 1) if line[f"nearest_{k}"]]
            own[f"nearest_{name}"] = [place.get(path, path) for path in nearest]
            if line["first_rank"]:
                own[f"first_rank_{name}"] = int(line["first_rank"])
    return fields


def label(word: str) -> Sample:
    """A label as FiftyOne writes it."""
    return {"_cls": "Classification", "label": word}


def plain(value: Any) -> Any:
    """A value of a column as JSON has it; None for a number that is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
