"""Parts of SPOT's network: recorded part codes and masks, the attention in loops, the transformer beside torch's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import nn

from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.spot import (
    AttendedStructure,
    PartInteraction,
    PartMasks,
    RelationNetwork,
    StructureFusion,
    StructureTwoStream,
    TransformerLayer,
    attend,
    part_positions,
    pool_parts,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_recorded_positions() -> None:
    stored = np.load(GOLDEN / "c_spot_pe.npz")
    for parts, dim, name in ((6, 16, "pe_6_16"), (6, 7, "pe_6_7"), (8, 64, "pe_8_64")):
        np.testing.assert_allclose(part_positions(parts, dim, float(stored["Q"])).numpy(), stored[name], atol=1e-12)
    np.testing.assert_allclose(part_positions(6, 16, 100).numpy(), stored["pe_6_16_q100"], atol=1e-12)


def test_recorded_masks_and_parts() -> None:
    a = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "c_spot_part.npz").items()}
    layer = PartMasks(4, 3).double()
    layer.theta.load_state_dict({"weight": a["W_theta"][:, :, None, None], "bias": a["b_theta"]})
    masks = layer(a["F_S"])
    torch.testing.assert_close(masks, a["M"], rtol=1e-12, atol=1e-12)
    found = pool_parts(a["F_I"], masks)
    torch.testing.assert_close(found, a["parts_masssum"], rtol=1e-6, atol=1e-7)  # 1e-6 is added to the mass
    exact = found * (masks.sum((2, 3)) + 1e-6)[..., None] / masks.sum((2, 3))[..., None]
    torch.testing.assert_close(exact, a["parts_masssum"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pool_parts(a["F_I"], masks, "area"), a["parts_areamean"], rtol=1e-12, atol=1e-12)
    empty = pool_parts(a["F_I"], torch.zeros_like(masks))
    assert not empty.any()  # a part that is nowhere is no division by 0


@pytest.mark.parametrize("scale", ["none", "sqrt"])
def test_attention_is_the_printed_one(scale: str) -> None:
    """m_tj = softmax_j(K_t . Q_j); place j of the result is sum_t m_jt V_t; in loops."""
    images, d, c, h, w = 2, 3, 5, 2, 3
    keys, queries, values = random(images, d, h, w), random(images, d, h, w, seed=1), random(images, c, h, w, seed=2)
    attended, attention = attend(keys, queries, values, scale)  # pyright: ignore[reportArgumentType]
    n, divisor = h * w, math.sqrt(d) if scale == "sqrt" else 1
    for b in range(images):
        k, q, v = (x[b].reshape(-1, n).tolist() for x in (keys, queries, values))
        for t in range(n):
            scores = [math.exp(sum(k[i][t] * q[i][j] for i in range(d)) / divisor) for j in range(n)]
            row = [score / sum(scores) for score in scores]
            assert attention[b, t].tolist() == pytest.approx(row, rel=1e-12)
        for j in range(n):
            for i in range(c):
                expected = sum(float(attention[b, j, t]) * v[i][t] for t in range(n))
                assert float(attended[b, i, j // w, j % w]) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(attention.sum(-1), torch.ones(images, n, dtype=torch.float64))


def test_attended_structure_adds_the_normalized_appearance() -> None:
    torch.manual_seed(0)
    layer = AttendedStructure(5, 3).double()
    appearance, structure = random(4, 5, 3, 2), random(4, 5, 3, 2, seed=1)
    found = layer(appearance, structure)
    values = torch.einsum("oc,nchw->nohw", layer.value.weight[:, :, 0, 0], appearance)
    attended, _ = attend(layer.key(structure), layer.query(structure), values)
    mean, variance = appearance.mean((0, 2, 3)), appearance.var((0, 2, 3), unbiased=False)
    normalized = (appearance - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(found, attended + normalized)
    # the query's bias is left out because it would change nothing
    shifted = attend(layer.key(structure), layer.query(structure) + random(3, 1, 1, seed=5), values)[0]
    torch.testing.assert_close(shifted, attended)


def test_attention_begins_nearly_even() -> None:
    """With Kaiming's values the softmax over 162 positions would begin saturated."""
    torch.manual_seed(0)
    layer, maps = AttendedStructure(2048, 256), torch.randn(1, 2048, 18, 9)
    with torch.no_grad():
        _, attention = attend(layer.key(maps), layer.query(maps), maps)
    entropy = float(-(attention * attention.log()).sum(-1).mean() / math.log(162))
    assert entropy > 0.9, entropy
    for conv, std in ((layer.key, 0.005), (layer.query, 0.005), (layer.value, 2048**-0.5)):
        assert float(conv.weight.detach().std()) == pytest.approx(std, rel=0.01)


def test_fusion_takes_appearance_first() -> None:
    torch.manual_seed(0)
    layer = StructureFusion(5, 4).double().eval()
    appearance, structure = random(2, 5, 3, 2), random(2, 4, 3, 2, seed=1)
    both = torch.cat([appearance, structure], 1)
    inner = torch.einsum("oc,nchw->nohw", layer.first.weight[:, :, 0, 0], both) / math.sqrt(1 + 1e-5)
    expected = torch.einsum("oc,nchw->nohw", layer.second.weight[:, :, 0, 0], inner.clamp(min=0))
    torch.testing.assert_close(layer(appearance, structure), expected)
    assert layer.first.weight.shape[:2] == (9, 9) and layer.second.weight.shape[:2] == (5, 9)


def test_transformer_layer_is_torchs() -> None:
    torch.manual_seed(0)
    own = TransformerLayer(12, 3, 10, 0.0).double()
    other = nn.TransformerEncoderLayer(12, 3, 10, 0.0, batch_first=True, dtype=torch.float64)
    state = own.state_dict()
    names = {"qkv.": "self_attn.in_proj_", "out.": "self_attn.out_proj.", "inner.": "linear1.", "outer.": "linear2."}
    for old, new in names.items():
        state = {key.replace(old, new) if key.startswith(old) else key: value for key, value in state.items()}
    other.load_state_dict(state)
    x = random(4, 6, 12)
    torch.testing.assert_close(own(x), other(x))


def test_parts_interact_and_know_their_place() -> None:
    torch.manual_seed(0)
    layer, parts = PartInteraction(3, 8, 2, 2, 8, 0.5).eval(), torch.randn(4, 3, 8)
    assert layer.positions.equal(part_positions(3, 8).float()) and "positions" not in layer.state_dict()
    torch.testing.assert_close(layer(parts), layer.layers(parts + layer.positions).mean(1))
    assert not torch.allclose(layer(parts), layer(parts.flip(1)), atol=1e-3)  # without positions they would be equal
    torch.testing.assert_close(layer.layers(parts).mean(1), layer.layers(parts.flip(1)).mean(1))


def test_relation_network_is_four_convolutions_and_two_poolings() -> None:
    layer = RelationNetwork(18, (4, 5, 6, 7)).eval()
    assert layer(torch.rand(2, 18, 72, 36)).shape == (2, 7, 18, 9)
    kinds = [type(part) for part in layer.modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.MaxPool2d, nn.Conv2d, nn.Conv2d, nn.MaxPool2d]


TINY = {"width": 4, "blocks": (1, 1, 1, 1), "relation": (4, 4, 4, 4), "parts": 2}


def test_network_puts_the_branches_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = StructureTwoStream(**TINY, points=17, sigma=1.5, missing="zeros").eval()
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    heatmaps = torch.rand(2, 17, 16, 8)
    with torch.no_grad():
        layers = network.layers(images, modality, heatmaps)
        assert list(layers) == ["neck", "pooled", "base", "structure", "parts"]
        maps = network.trunk(network.stem(images, modality))
        structure = network.relation(heatmaps)
        attended = network.asr(maps, network.fusion(maps, structure))
        torch.testing.assert_close(layers["base"], maps.mean((2, 3)))
        torch.testing.assert_close(layers["structure"], attended.mean((2, 3)))
        torch.testing.assert_close(layers["parts"], network.tpi(pool_parts(maps, network.masks(structure))))
        both = torch.cat([layers["structure"], layers["parts"]], 1)
        torch.testing.assert_close(layers["pooled"], both @ network.gamma.weight.T)
        torch.testing.assert_close(layers["neck"], network.neck(layers["pooled"]))
        encoded = network.encode(images, modality, heatmaps)
        assert encoded.embedding.equal(layers["neck"]) and encoded.pooled.equal(layers["pooled"])
        empty = network.layers(images, modality, torch.zeros_like(heatmaps))
        assert all(torch.isfinite(value).all() for value in empty.values())
        assert not torch.allclose(empty["neck"], layers["neck"], atol=1e-3)  # the pose matters
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    assert again.heatmaps == network.heatmaps == {
        "points": 17, "sigma": 1.5, "stride": 4, "least": 0.05, "missing": "zeros",
    }  # fmt: skip
    pixels = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert again(pixels, modality, heatmaps).equal(network(pixels, modality, heatmaps))


def test_sizes_that_do_not_fit_and_wrong_settings() -> None:
    network = StructureTwoStream(**TINY).eval()
    with pytest.raises(ValueError, match="multiples of 16"):
        network.layers(torch.zeros(1, 3, 64, 32), torch.tensor([0]), torch.zeros(1, 18, 64, 32))
    for wrong, message in (
        ({"part_norm": "sum"}, "`part_norm`: expected mass or area, got 'sum'"),
        ({"attention_dim": 0}, "`attention_dim`: expected whole number >= 1 or null, got 0"),
        ({"attention_scale": "half"}, "`attention_scale`: expected none or sqrt"),
        ({"relation": (4, 5)}, "`relation`: expected list of 4 whole numbers >= 1"),
        ({"parts": 0}, "`parts`: expected whole number >= 1, got 0"),
        ({"last_stride": 2}, "`last_stride`: expected 1, got 2"),
        ({"least": 0}, "`least`: expected number > 0 and <= 1, got 0"),
        ({"tpi_heads": 5}, "tpi_heads must divide the 128 channels of a part vector, got 5"),
        ({"tpi_layers": 0}, "`tpi_layers`: expected whole number >= 1"),
        ({"tpi_dropout": 1.0}, "`tpi_dropout`: expected number >= 0 and < 1"),
        ({"tpi_base": 0.0}, "`tpi_base`: expected number > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            StructureTwoStream(**{**TINY, **wrong})  # pyright: ignore[reportArgumentType]
