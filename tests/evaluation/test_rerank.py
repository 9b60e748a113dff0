"""k-reciprocal re-ranking against the dense textbook form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_k_reciprocal import dense_k_reciprocal

from vireid.evaluation import rerank
from vireid.evaluation.rerank import KReciprocal


def people(queries, gallery, seed=0, dim=16, spread=0.5, unit=True):
    random = np.random.default_rng(seed)
    centers = random.standard_normal((12, dim))
    x = centers[random.integers(0, 12, queries + gallery)] + spread * random.standard_normal((queries + gallery, dim))
    if unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = x.astype(np.float32)
    return x[:queries], x[queries:]


@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (5, 3, 0.3), (7, 1, 0.0), (6, 7, 0.5), (1, 2, 0.3), (20, 6, 1.0)]
)
@pytest.mark.parametrize("unit", [True, False])
def test_equals_the_dense_form(k1, k2, weight, unit):
    query, gallery = people(40, 90, unit=unit)
    expected = dense_k_reciprocal(query.astype(float), gallery.astype(float), k1, k2, weight)
    found = KReciprocal(k1, k2, weight)(torch.from_numpy(query), torch.from_numpy(gallery))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(1 - found.numpy(), expected, atol=1e-5)


def test_double_precision_is_kept():
    query, gallery = (x.astype(float) for x in people(40, 90))
    found = KReciprocal()(torch.from_numpy(query), torch.from_numpy(gallery))
    np.testing.assert_allclose(1 - found.numpy(), dense_k_reciprocal(query, gallery), atol=1e-12)


def test_small_blocks_change_nothing(monkeypatch):
    query, gallery = (torch.from_numpy(x) for x in people(30, 60, seed=1))
    whole = KReciprocal()(query, gallery)
    monkeypatch.setattr(rerank, "BLOCK_BYTES", 1 << 10)
    torch.testing.assert_close(KReciprocal()(query, gallery), whole, atol=1e-6, rtol=0)


def test_it_is_not_the_plain_similarity_and_brings_people_together():
    query, gallery = people(60, 120, seed=2, spread=0.9)
    plain = torch.from_numpy(query @ gallery.T)
    found = KReciprocal()(torch.from_numpy(query), torch.from_numpy(gallery))
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    assert not torch.equal(found.argsort(1), plain.argsort(1))


def test_settings_are_checked_and_stamped():
    assert KReciprocal().stamp == "k-reciprocal k1=20 k2=6 weight=0.3"
    for wrong in ({"k1": 0}, {"k2": 0}, {"k2": 30}, {"weight": 1.5}):
        with pytest.raises(ValueError, match="k1 must be at least 1"):
            KReciprocal(**wrong)
    with pytest.raises(ValueError, match="at least 21 images, got 8"):
        KReciprocal()(torch.rand(3, 4), torch.rand(5, 4))


def test_memory_estimate_grows_with_the_result():
    small, large = KReciprocal().memory_bytes(100, 1000), KReciprocal().memory_bytes(4000, 6000)
    assert large - small > 4 * (4000 * 6000 - 100 * 1000)
