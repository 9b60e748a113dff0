"""Re-ranking by the local shortest path against a slow loop over pairs, and inside the evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_tables import toy_embeddings

from vireid.data.protocol import Protocol
from vireid.evaluation import local_shortest_path
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.layers.cmlspge import GlobalAndStripes
from vireid.layers.two_stream import TwoStream

H, D, G = 3, 5, 7  # stripes, numbers of each, numbers of the global part
SETTINGS = {"stripes": H, "dim": D}


def vectors(queries: int = 6, gallery: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.rand(queries + gallery, G + H * D, generator=torch.Generator().manual_seed(seed))
    x[:, :G] -= 0.5
    return x[:queries], x[queries:]


def slow_path(query: np.ndarray, gallery: np.ndarray) -> float:
    """S / ((2h - 1) d) of stripes (H, D) by loops."""
    u, v = ([(f - f.mean()) / (f.max() - f.min()) for f in image] for image in (query, gallery))
    table = np.full((H + 1, H + 1), np.inf)
    table[0, 1] = 0
    for i in range(H):
        for j in range(H):
            table[i + 1, j + 1] = np.abs(u[i] - v[j]).sum() + min(table[i + 1, j], table[i, j + 1])
    return table[H, H] / ((2 * H - 1) * D)


def slow(query: Tensor, gallery: Tensor, shortlist: int, weight: float) -> np.ndarray:
    q, g = query.double().numpy(), gallery.double().numpy()
    unit = [x[:, :G] / np.linalg.norm(x[:, :G], axis=1, keepdims=True) for x in (q, g)]
    cosine = unit[0] @ unit[1].T
    result = cosine - weight
    for i, row in enumerate(cosine):
        for j in np.argsort(-row)[:shortlist]:
            result[i, j] = row[j] - weight * slow_path(q[i, G:].reshape(H, D), g[j, G:].reshape(H, D))
    return result


@pytest.mark.parametrize(("shortlist", "weight"), [(5, 1.0), (1, 0.3), (19, 2.0), (20, 1.0), (None, 1.0), (500, 1.0)])
def test_equals_a_loop_over_pairs(shortlist: int | None, weight: float) -> None:
    query, gallery = vectors()
    found = LocalShortestPath(H, D, shortlist, weight)(query, gallery)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, slow(query, gallery, shortlist or 20, weight), atol=1e-6)
    again = LocalShortestPath(H, D, shortlist, weight)(query.double(), gallery.double())
    assert again.dtype == torch.float64
    np.testing.assert_allclose(again, slow(query, gallery, shortlist or 20, weight), atol=1e-12)


@pytest.mark.parametrize("shortlist", [4, None])
def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, shortlist: int | None) -> None:
    query, gallery = vectors()
    whole = LocalShortestPath(H, D, shortlist)(query, gallery)
    monkeypatch.setattr(local_shortest_path, "BLOCK_BYTES", 1)
    torch.testing.assert_close(LocalShortestPath(H, D, shortlist)(query, gallery), whole)


def test_the_shortlist_stays_in_front_and_the_rest_in_its_order() -> None:
    query, gallery = vectors(10, 40, seed=1)
    plain = LocalShortestPath(H, D, weight=0)(query, gallery).argsort(1, descending=True)
    found = LocalShortestPath(H, D, shortlist=8, weight=5)(query, gallery).argsort(1, descending=True)
    assert found[:, :8].sort(1).values.equal(plain[:, :8].sort(1).values) and not found[:, :8].equal(plain[:, :8])
    assert found[:, 8:].equal(plain[:, 8:])


def test_even_the_longest_path_stays_in_front() -> None:
    opposite = torch.tensor([0.0, 1.0])
    query = torch.cat([torch.tensor([1.0, 0.0]), opposite])[None]
    gallery = torch.stack([torch.cat([torch.tensor([1.0, 0.1]), 1 - opposite]), torch.tensor([1.0, 0.2, 0, 1])])
    found = LocalShortestPath(1, 2, shortlist=1)(query, gallery)
    assert float(found[0, 0]) == pytest.approx(1 / 1.01**0.5 - 1, abs=1e-6) and found[0, 0] > found[0, 1]


def test_lengths_do_not_matter() -> None:
    """As the evaluation normalizes whole vectors, and embedders their parts."""
    query, gallery = vectors()
    expected = LocalShortestPath(H, D, 5)(query, gallery)
    torch.testing.assert_close(
        LocalShortestPath(H, D, 5)(query / query.norm(dim=1, keepdim=True), gallery * 3), expected
    )
    scaled = gallery.clone()
    scaled[:, G : G + D] *= 7
    scaled[:, :G] *= 0.1
    torch.testing.assert_close(LocalShortestPath(H, D, 5)(query, scaled), expected)


def test_stripes_alone() -> None:
    query, gallery = vectors()
    found = LocalShortestPath(H, D, shortlist=None)(query[:, G:], gallery[:, G:])
    expected = LocalShortestPath(H, D, None)(query, gallery) - LocalShortestPath(H, D, None, 0)(query, gallery)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="pass shortlist=None"):
        LocalShortestPath(H, D)(query[:, G:], gallery[:, G:])


def shifted_people() -> tuple[np.ndarray, np.ndarray]:
    """Stripes of 30 queries and their 30 matches, whose body stands one stripe lower."""
    random = np.random.default_rng(0)
    body = random.random((30, 6, 16))
    lower = np.concatenate([random.random((30, 1, 16)), body[:, :-1]], axis=1)
    return body.reshape(30, -1), lower.reshape(30, -1)


def test_in_the_evaluation() -> None:
    embeddings = toy_embeddings(rows=60, people=30, dim=8, noise=0.0)
    query, gallery = shifted_people()
    pids = embeddings.table.pid - embeddings.table.pid.min()
    stripes = np.where((np.arange(60) < 30)[:, None], query[pids], gallery[pids])
    flat = np.random.default_rng(1).random((60, 8))  # a global part that knows nothing
    own = replace(embeddings, vectors=np.concatenate([flat, stripes], axis=1).astype(np.float32))

    def split(table):
        return [(np.arange(30), np.arange(30, 60))]

    protocol = Protocol("toy", split)
    plain = evaluate(own, protocol)
    found = evaluate(own, protocol, rerank=LocalShortestPath(6, 16, shortlist=None, weight=20))
    assert found.mean["R1"] > 0.9 > plain.mean["R1"]
    assert found.rows[0].stamp["rerank"] == "local shortest path stripes=6x16 shortlist=all weight=20"
    assert LocalShortestPath(6, 256).stamp == "local shortest path stripes=6x256 shortlist=100 weight=1"


def test_from_an_embedder() -> None:
    tiny = {"width": 4, "blocks": (1, 1, 1, 1)}
    network = GlobalAndStripes(**tiny, parts=2, part_dim=6).eval()  # pyright: ignore[reportArgumentType]
    rerank = LocalShortestPath.of(network, shortlist=3)
    assert rerank == LocalShortestPath(2, 6, shortlist=3)
    images, modality = torch.randint(0, 256, (8, 3, 64, 32), dtype=torch.uint8), torch.arange(8) % 2
    with torch.no_grad():
        x = network(images, modality)
        layers = network.layers(network.normalize(images), modality)
        found = LocalShortestPath.of(network, None)(x[:4], x[4:])
        apart = torch.cat([layers["neck"], layers["stripes"]], 1)
        torch.testing.assert_close(LocalShortestPath(2, 6, None)(apart[:4], apart[4:]), found)
    for wrong in (TwoStream(**tiny), GlobalAndStripes(**tiny, parts=0)):  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="deploys no stripes"):
            LocalShortestPath.of(wrong)


def test_wrong_settings_and_vectors_are_refused() -> None:
    for wrong in ({"stripes": 0}, {"dim": 0}, {"shortlist": 0}, {"weight": -1}, {"weight": float("nan")}):
        with pytest.raises(ValueError, match="1 or more"):
            LocalShortestPath(**{**SETTINGS, **wrong})  # pyright: ignore[reportArgumentType]
    query, gallery = vectors()
    with pytest.raises(ValueError, match="have 30 or more, got 22"):
        LocalShortestPath(6, 5)(query, gallery)


def test_it_imports_no_method() -> None:
    import vireid.evaluation.local_shortest_path as module

    assert "vireid.methods" not in Path(module.__file__).read_text("utf-8")
