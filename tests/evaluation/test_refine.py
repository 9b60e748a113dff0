"""Refinement inside evaluation: which rows it sees, what is kept apart, what is stamped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_protocol import PROTOCOL, draws, expect, plain
from toy_tables import toy_embeddings

from vireid.data.datasets.ignore import same, same_pid_and_camera
from vireid.data.protocol import Protocol
from vireid.evaluation import refine as module
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.evaluate import evaluate, ranked_rows, refined
from vireid.evaluation.refine import RefinedBy, TrialEmbeddings
from vireid.layers.nformer import NFormerRefiner
from vireid.layers.refiner import Apart, Refiner


class Mean(Refiner):
    """Each vector becomes the mean of all that it may look at."""

    name, dim = "mean", 8

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))
        self.seen: list[np.ndarray] = []

    def forward(self, vectors: torch.Tensor, modality: torch.Tensor, apart: Apart | None = None) -> torch.Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(np.zeros((len(vectors),) * 2, bool))
        for row, seen in enumerate(self.seen[-1]):
            if apart is not None and (mask := apart(torch.tensor([row]))) is not None:
                seen[:] = mask.numpy()[0]
        weight = 1.0 - torch.from_numpy(self.seen[-1]).float()
        return self.one * (vectors + weight @ vectors / weight.sum(1, keepdim=True))


def test_each_trial_is_refined_with_its_own_gallery() -> None:
    embeddings = toy_embeddings()
    network = NFormerRefiner(dim=8, width=8, depth=2, k=6, k_cross=3)
    results = evaluate(embeddings, PROTOCOL, RefinedBy(network))
    assert network.training  # as it was
    network.eval()
    for row, (queries, gallery) in zip(results.rows, draws(embeddings.table), strict=True):
        rows = np.unique(np.concatenate([queries, gallery]))
        with torch.no_grad():
            found = network(
                torch.from_numpy(embeddings.vectors[rows]), torch.from_numpy(embeddings.table.modality[rows])
            ).numpy()
        vectors = np.zeros((60, 8), dtype=np.float32)
        vectors[rows] = found
        changed = replace(embeddings, vectors=vectors)
        expect(row, changed, PROTOCOL, plain(changed, PROTOCOL, row.trial, "cosine"))
        assert row.stamp["refine"] == "nformer (transductive)"
        assert refined(embeddings, PROTOCOL, RefinedBy(network), row.trial).vectors == pytest.approx(vectors, abs=1e-6)
    listed = ranked_rows(refined(embeddings, PROTOCOL, RefinedBy(network), 2), PROTOCOL, trial=2, k=3)
    assert np.isin(listed, draws(embeddings.table)[2][1]).all()
    with pytest.raises(ValueError, match="trials 0 to 2, got 3"):
        refined(embeddings, PROTOCOL, RefinedBy(network), 3)


@pytest.mark.parametrize("step", [4096, 7])
def test_strict_keeps_apart_what_the_protocol_ignores(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(module, "STEP", step)
    embeddings, network = toy_embeddings(), Mean()
    results = evaluate(embeddings, PROTOCOL, RefinedBy(network, strict=True))
    assert results.rows[0].stamp["refine"] == "mean (transductive, ignored images are no neighbors)"
    for seen, (queries, gallery) in zip(network.seen, draws(embeddings.table), strict=True):
        camid = embeddings.table.camid[np.unique(np.concatenate([queries, gallery]))]
        forward = (camid[:, None] == 3) & (camid[None] == 2)  # cameras 3 ask, camera 2 is in the gallery
        assert (seen == (forward | forward.T)).all() and seen.any()
    loose = Mean()
    evaluate(embeddings, PROTOCOL, RefinedBy(loose))
    assert not any(seen.any() for seen in loose.seen)
    nothing = Mean()
    evaluate(embeddings, Protocol("toy/free", draws), RefinedBy(nothing, strict=True))
    assert not any(seen.any() for seen in nothing.seen)


def test_who_asks_whom_counts_not_the_camera_alone() -> None:
    """Rows of one camera that are all asked are not kept apart by a rule about a query's own camera."""
    embeddings, network = toy_embeddings(), Mean()
    protocol = Protocol("toy/mixed", lambda t: [(np.arange(10), np.arange(5, 60))], same("camid"))
    evaluate(embeddings, protocol, RefinedBy(network, strict=True))
    camid, rows = embeddings.table.camid, np.arange(60)
    asks = (rows[:, None] < 10) & (rows[None] >= 5) & (camid[:, None] == camid[None])
    assert (network.seen[0] == (asks | asks.T)).all()


def test_rule_that_sees_identities_is_refused() -> None:
    embeddings = toy_embeddings()
    protocol = Protocol("toy/own", lambda t: [(np.arange(60), np.arange(60))], same_pid_and_camera)
    evaluate(embeddings, protocol, RefinedBy(Mean()))
    with pytest.raises(ValueError, match="depends on identities, which a refinement must not see"):
        evaluate(embeddings, protocol, RefinedBy(Mean(), strict=True))


def test_refiner_never_sees_a_name() -> None:
    """The refined vectors are the same whoever is pictured."""
    embeddings = toy_embeddings()
    exchanged = replace(embeddings, table=replace(embeddings.table, pid=embeddings.table.pid[::-1].copy()))
    by = RefinedBy(NFormerRefiner(dim=8, width=8, depth=1, k=6, k_cross=3), strict=True)
    assert (refined(embeddings, PROTOCOL, by).vectors == refined(exchanged, PROTOCOL, by).vectors).all()


def test_plain_functions_refine_too() -> None:
    def seen(trial: TrialEmbeddings) -> Embeddings:
        assert len(trial.query) == 30 and len(trial.gallery) == 20
        assert (trial.table.modality[trial.query] == 1).all() and (trial.table.modality[trial.gallery] == 0).all()
        return trial

    assert evaluate(toy_embeddings(), PROTOCOL, refine=seen).rows[0].stamp["refine"] == "seen"
