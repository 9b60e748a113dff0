"""vireid: train, evaluate and look at visible-infrared person re-identification. Public names, loaded on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vireid.version import __version__

if TYPE_CHECKING:
    from vireid.data.pipeline import TrainingData
    from vireid.data.protocol import Protocol
    from vireid.data.table import DataError, Table
    from vireid.datasets import load, protocol, protocols_for
    from vireid.layers.embedder import load_embedder
    from vireid.method import Method, Recipe
    from vireid.methods import find
    from vireid.retrieval.embed import Embeddings, embed
    from vireid.retrieval.evaluate import evaluate
    from vireid.retrieval.results import Results

__all__ = [  # noqa: RUF022 (in the order of use)
    "load",
    "Table",
    "DataError",
    "find",
    "Method",
    "Recipe",
    "TrainingData",
    "load_embedder",
    "embed",
    "Embeddings",
    "protocol",
    "protocols_for",
    "Protocol",
    "evaluate",
    "Results",
    "__version__",
]

HOME = {
    "load": "vireid.datasets",
    "Table": "vireid.data.table",
    "DataError": "vireid.data.table",
    "find": "vireid.methods",
    "Method": "vireid.method",
    "Recipe": "vireid.method",
    "TrainingData": "vireid.data.pipeline",
    "load_embedder": "vireid.layers.embedder",
    "embed": "vireid.retrieval.embed",
    "Embeddings": "vireid.retrieval.embed",
    "protocol": "vireid.datasets",
    "protocols_for": "vireid.datasets",
    "Protocol": "vireid.data.protocol",
    "evaluate": "vireid.retrieval.evaluate",
    "Results": "vireid.retrieval.results",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module: `import vireid` alone reads no torch."""
    if name not in HOME:
        raise AttributeError(f"vireid has no name {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
