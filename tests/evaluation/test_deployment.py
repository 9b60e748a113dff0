"""What a saved network says about its use: size, filter and similarity are followed where nothing else is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import write_people

import vireid
from vireid.errors import ArgumentError
from vireid.evaluation.embed import Embeddings
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.mpanet import PatternNet
from vireid.types import Deployment

SIZE = (64, 32)


@pytest.fixture
def table(tmp_path: Path) -> vireid.Table:
    return vireid.load(f"manifest={write_people(tmp_path / 'data', {'test': 3})}")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network as MPANet's is saved on RegDB: bilinear pictures, compared by Euclidean distance."""
    torch.manual_seed(0)
    path = tmp_path / "embedder.safetensors"
    save_embedder(PatternNet(width=4, blocks=(1, 1, 1, 1), parts=2), path, Deployment(SIZE, "bilinear", "euclidean"))
    return path


def test_size_filter_and_similarity_are_those_of_the_saved_network(table: vireid.Table, network: Path) -> None:
    embedder = load_embedder(network)
    plain = vireid.embed(embedder, table, progress=False)
    given = vireid.embed(embedder, table, SIZE, filter="bilinear", progress=False)
    other = vireid.embed(embedder, table, filter="lanczos", progress=False)
    np.testing.assert_array_equal(plain.vectors, given.vectors)
    assert not np.array_equal(plain.vectors, other.vectors)
    assert (plain.stamp["size"], other.stamp["size"]) == ("64x32 bilinear", "64x32 lanczos")
    protocol = vireid.protocol("manifest/visible-to-infrared", table)
    assert vireid.evaluate(plain, protocol).rows[0].stamp["similarity"] == "euclidean"
    assert vireid.evaluate(plain, protocol, similarity="cosine").rows[0].stamp["similarity"] == "cosine"


def test_the_similarity_travels_with_the_embeddings(table: vireid.Table, network: Path, tmp_path: Path) -> None:
    made = vireid.embed(load_embedder(network), table, progress=False)
    assert Embeddings.load(made.save(tmp_path / "vectors.npz")).similarity == "euclidean"
    assert made[:4].similarity == "euclidean"


def test_a_network_that_says_nothing_needs_a_size(table: vireid.Table, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_embedder(PatternNet(width=4, blocks=(1, 1, 1, 1), parts=2), path)
    with pytest.raises(ArgumentError, match="Give size"):
        vireid.embed(load_embedder(path), table, progress=False)
