"""Neighbors: against the recorded masks, a plain loop, and what must not change them."""

import numpy as np
import pytest
import torch
from dense_nformer import dense
from golden_files import GOLDEN
from torch import Tensor

from vireid.layers import neighbors as module
from vireid.layers.neighbors import mutual_neighbors, nearest, reciprocal


def vectors(rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
    return x, (torch.rand(rows, generator=generator) < 0.4).long()


def slow(x: Tensor, k: int, k_cross: int | None, modality: Tensor, apart: Tensor | None = None) -> Tensor:
    """M by its definition, image by image."""
    n, unit = len(x), (x / x.norm(dim=1, keepdim=True)).numpy()
    chosen = np.zeros((n, n), dtype=bool)
    for i in range(n):
        others = [j for j in range(n) if j != i and not (apart is not None and apart[i, j])]
        others.sort(key=lambda j: -float(unit[i] @ unit[j]))
        if k_cross is None:
            taken = others[: k - 1]
        else:
            taken = [j for j in others if modality[j] == modality[i]][: k - k_cross - 1]
            taken += [j for j in others if modality[j] != modality[i]][:k_cross]
        chosen[i, [i, *taken]] = True
    return torch.from_numpy(chosen & chosen.T)


def test_recorded_mask() -> None:
    with np.load(GOLDEN / "nformer_rns.npz") as file:
        x, rows, mask = (torch.from_numpy(file[n]) for n in ("x_for_neighbours", "topk_indices", "mask"))
    for s in range(2):
        assert nearest(x[s], 4).rows.sort(1).values.equal(rows[s].sort(1).values)
        assert dense(mutual_neighbors(x[s], 4), 12).equal(mask[s, 0] > 0)
    both = mutual_neighbors(x, 4)
    assert dense(both, 24).equal(torch.block_diag(mask[0, 0], mask[1, 0]) > 0)


@pytest.mark.parametrize(("k", "k_cross"), [(7, None), (7, 3), (4, 0), (60, None), (60, 30), (1, None)])
@pytest.mark.parametrize("block_bytes", [1 << 26, 1000])
def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch, k: int, k_cross: int | None, block_bytes: int) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    x, modality = vectors()
    lists = mutual_neighbors(x, k, k_cross, modality)
    found = dense(lists, len(x))
    assert found.equal(slow(x, k, k_cross, modality)) and found.equal(found.T) and found.diagonal().all()
    assert (lists >= 0).sum() == found.sum()  # nobody stands in a list twice
    assert ((lists >= 0).int().diff(dim=1) <= 0).all() and (lists >= 0).sum(1).max() == lists.shape[1]


def test_kept_apart() -> None:
    x, modality = vectors()
    apart = torch.rand(40, 40, generator=torch.Generator().manual_seed(1)) < 0.3
    apart = apart | apart.T
    found = dense(mutual_neighbors(x, 9, 4, modality, lambda rows: apart[rows]), 40)
    assert found.equal(slow(x, 9, 4, modality, apart)) and found.diagonal().all()
    assert not (found & apart & ~torch.eye(40, dtype=torch.bool)).any()


def test_order_scale_and_swapped_modalities_change_nothing() -> None:
    x, modality = vectors()
    found = dense(mutual_neighbors(x, 9, 4, modality), 40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert dense(mutual_neighbors(x[order], 9, 4, modality[order]), 40).equal(found[order][:, order])
    scale = torch.rand(40, 1, generator=torch.Generator().manual_seed(3)) + 0.1
    assert dense(mutual_neighbors(x * scale, 9, 4, 1 - modality), 40).equal(found)
    assert dense(mutual_neighbors(torch.stack([x, x]), 9, 4, torch.stack([modality, modality])), 80).equal(
        torch.block_diag(found, found)
    )


def test_equal_vectors_and_zeros_keep_themselves() -> None:
    x = torch.cat([torch.ones(30, 4), torch.zeros(5, 4)])
    lists = mutual_neighbors(x, 3)
    assert dense(lists, 35).diagonal().all()
    found = nearest(x, 3)
    assert found.rows[:, 0].equal(torch.arange(35)) and (found.similarity[:, 0] == torch.inf).all()


def test_lists_of_what_is_not_there() -> None:
    x, modality = vectors(5)
    modality[:] = 1
    found = nearest(x, 6, 2, modality)
    assert found.rows.shape == (5, 6) and (found.rows[:, 4:] == -1).all() and (found.rows[:, :4] >= 0).all()
    assert (found.similarity[:, 4:] == -torch.inf).all()
    assert reciprocal(torch.empty(0, 4, dtype=torch.int64)).shape == (0, 0)


def test_bfloat16_tells_neighbors_apart_as_float32_does() -> None:
    x, modality = vectors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mutual_neighbors(x.float(), 9, 4, modality)
    assert found.equal(mutual_neighbors(x.float(), 9, 4, modality))


@pytest.mark.parametrize(
    ("settings", "message"),
    [((0,), "k is 1 or more"), ((3, 3), "k_cross from 0 to k - 1"), ((3, 1), "need the modality")],
)
def test_wrong_numbers_are_refused(settings: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(torch.randn(4, 2), *settings)
