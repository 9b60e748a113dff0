"""A refiner beside a served run: its own base alone, vectors as long as it was trained on, offered in API and page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("python_multipart", reason="needs the extra `serve`")
from served import client, make_bundle, make_service
from torch.nn.functional import normalize

from vireid.data import datasets
from vireid.deploy.bundle import Bundle
from vireid.errors import RefinerError
from vireid.evaluation.embed import embed
from vireid.layers.nformer import NFormerRefiner
from vireid.layers.refiner import save_refiner
from vireid.search.gallery import Filter
from vireid.search.gallery_refiner import open_refiner
from vireid.server.search_service import load_rerankers
from vireid.training.record import RunRecord
from vireid.training.run_folder import REFINER, RunFolder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("refining"))


@pytest.fixture
def base(bundle: Bundle) -> Path:
    """The bundle's run, with vectors of its training people as `vireid embed` keeps them."""
    run = RunFolder.open(bundle.path.parent / "run")
    table = datasets.load(f"manifest={bundle.path.parent / 'data'}").where("train")
    made = embed(run.embedder(), table, bundle.config.size, device="cpu", progress=False)
    made.stamped(embedder=bundle.config.digest[:8]).save(run.path / "embeddings/neck.npz")
    return run.path


def refining(folder: Path, base: Path, embedder: str, dim: int, seed: int = 0) -> RunFolder:
    """A run folder as training leaves it, but for the checkpoint; statistics of the batch norms are of noise."""
    about = {**RunFolder.open(base).record.plain(), "method": "NFormer"}
    about["base"] = {"path": str(base), "method": "AGW", "embedder": embedder, "data": about["data"], "dim": dim}
    torch.manual_seed(seed)
    refiner = NFormerRefiner(dim=dim, width=8, depth=2, landmarks=4, k=6, k_cross=3)
    with torch.no_grad():
        refiner.train()(10 * torch.randn(40, dim), torch.arange(40) % 2)
    run = RunFolder.begin(folder, RunRecord.model_validate(about))
    save_refiner(refiner, run.path / REFINER)
    return run


@pytest.fixture
def run(bundle: Bundle, base: Path, tmp_path: Path) -> RunFolder:
    return refining(tmp_path / "nformer", base, bundle.config.digest[:8], bundle.config.dim)


def test_the_shortlist_is_refined_at_the_length_of_the_base(bundle: Bundle, base: Path, run: RunFolder) -> None:
    with np.load(base / "embeddings/neck.npz") as stored:
        length = float(np.linalg.norm(stored["vectors"], axis=1).mean())
    assert length > 1.5  # or nothing is tested
    refiner = open_refiner(run.path, bundle)
    assert refiner.length == pytest.approx(length) and refiner.name == "nformer" and not refiner.training
    service = make_service(run.path / "files", bundle)
    searcher, filter = service.searcher, Filter(modality=1)
    [query] = service.archive.gallery.fetch(["gate 1/5/0"])
    answer = searcher.search_records([query.id], 10, filter, rerank=refiner, shortlist=20)
    [plain] = service.archive.gallery.search(query.vector[None], 20, filter, with_vectors=True)
    vectors = torch.from_numpy(np.stack([query.vector, *(hit.record.vector for hit in plain)]))
    with torch.no_grad():
        refined = normalize(run.refiner()(length * vectors, torch.tensor([0] + 20 * [1])), dim=1)
    order = (refined[1:] @ refined[0]).argsort(descending=True, stable=True)[:10]
    assert [hit.record.id for hit in answer.hits] == [plain[at].record.id for at in order]
    assert [hit.record.id for hit in answer.hits] != [hit.record.id for hit in plain[:10]]
    assert answer.stamp["rerank"] == "refiner nformer of 20"


def test_too_few_rows_keep_their_order_and_say_so(bundle: Bundle, run: RunFolder) -> None:
    searcher = make_service(run.path / "files", bundle).searcher
    two = Filter(pids=("p5",), cameras=("night 3",))
    answer = searcher.search_records(["gate 1/5/0"], 10, two, rerank=open_refiner(run.path, bundle))
    assert len(answer.hits) == 2 and answer.stamp["rerank"] == "none (3 pictures, nformer needs 4)"
    assert answer.hits[0].order == pytest.approx(answer.hits[0].similarity)


def test_the_service_offers_it_beside_the_others(bundle: Bundle, run: RunFolder) -> None:
    service = make_service(run.path / "files", bundle)
    service.rerankers = load_rerankers(bundle, run.path)
    api = client(service)
    assert api.get("/api/v1/about").json()["reranks"] == ["k-reciprocal", "nformer"]
    picture = {"picture": ("a", (bundle.path.parent / "data/5_1_1.jpg").read_bytes())}
    pages = []
    for offset in (0, 20, 40, 60):
        ask = {"rerank": "nformer", "limit": 20, "offset": offset}
        found = api.post("/api/v1/search", files=picture, data={"ask": json.dumps(ask)}).json()
        assert found["stamp"]["rerank"] == "refiner nformer of 64"
        pages += [hit["id"] for hit in found["hits"]]
    assert len(pages) == 64 == len(set(pages))
    service.rerankers = load_rerankers(bundle)
    refused = api.post("/api/v1/search", files=picture, data={"ask": '{"rerank": "nformer"}'})
    assert refused.status_code == 422 and "k-reciprocal" in refused.json()["error"]


def test_a_refiner_of_another_base_or_without_vectors_is_refused(bundle: Bundle, base: Path, tmp_path: Path) -> None:
    other = refining(tmp_path / "other", base, "0123abcd", bundle.config.dim)
    with pytest.raises(RefinerError, match=rf"embedder 0123abcd.*the bundle holds {bundle.config.digest[:8]}"):
        open_refiner(other.path, bundle)
    with pytest.raises(ValueError, match="does not refine"):
        open_refiner(base, bundle)
    own = refining(tmp_path / "own", base, bundle.config.digest[:8], bundle.config.dim)
    (base / "embeddings/neck.npz").unlink()
    with pytest.raises(RefinerError, match=rf"vireid embed {base}"):
        open_refiner(own.path, bundle)
