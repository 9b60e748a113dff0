"""vireid: train, evaluate and look at visible-infrared person re-identification. Public names, loaded on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vireid.version import __version__

if TYPE_CHECKING:  # for editors and type checkers; `__all__` is made from HOME
    # ruff: noqa: F401
    from vireid.data.datasets import load, protocol, protocols_for
    from vireid.data.pipeline import TrainingData
    from vireid.data.protocol import Protocol
    from vireid.data.table import Table
    from vireid.deploy.extractor import FeatureExtractor
    from vireid.deploy.model import Model
    from vireid.errors import DataError, VireidError
    from vireid.evaluation.embed import Embeddings, embed
    from vireid.evaluation.evaluate import evaluate
    from vireid.evaluation.results import Results
    from vireid.layers.embedder import load_embedder
    from vireid.method import Method, Recipe
    from vireid.methods import find
    from vireid.search.drivers.open import open_gallery
    from vireid.search.searcher import Searcher
    from vireid.server.client import Client
    from vireid.workflows.explain import explain
    from vireid.workflows.run import Run
    from vireid.workflows.train import train

HOME = {  # in the order of use
    "load": "vireid.data.datasets",
    "Table": "vireid.data.table",
    "train": "vireid.workflows.train",
    "Run": "vireid.workflows.run",
    "Model": "vireid.deploy.model",
    "FeatureExtractor": "vireid.deploy.extractor",
    "open_gallery": "vireid.search.drivers.open",
    "Searcher": "vireid.search.searcher",
    "Client": "vireid.server.client",
    "find": "vireid.methods",
    "Method": "vireid.method",
    "Recipe": "vireid.method",
    "TrainingData": "vireid.data.pipeline",
    "load_embedder": "vireid.layers.embedder",
    "embed": "vireid.evaluation.embed",
    "Embeddings": "vireid.evaluation.embed",
    "protocol": "vireid.data.datasets",
    "protocols_for": "vireid.data.datasets",
    "Protocol": "vireid.data.protocol",
    "evaluate": "vireid.evaluation.evaluate",
    "Results": "vireid.evaluation.results",
    "explain": "vireid.workflows.explain",
    "VireidError": "vireid.errors",
    "DataError": "vireid.errors",
}

__all__ = [*HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its module: `import vireid` alone reads no torch."""
    if name not in HOME:
        raise AttributeError(f"vireid has no name {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
