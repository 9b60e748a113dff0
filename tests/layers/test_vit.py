"""Vision transformer: recorded tokens and positions, blocks as slow loops, stochastic depth, timm's names and sizes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import Tensor, nn

from vireid.layers.backbones.vit import DropPath, VisionTransformer, token_grid
from vireid.layers.backbones.vit_weights import load_vit, resized_positions
from vireid.layers.cmtr import ModalityTransformer
from vireid.layers.embedder import save_embedder
from vireid.layers.weights import load_state

SMALL = {"image_size": (64, 32), "dim": 12, "depth": 2, "heads": 3, "drop_path": 0.0}


def small(**settings: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**{**SMALL, **settings})  # pyright: ignore[reportArgumentType]


def randomize(module: nn.Module) -> None:
    """Weights, biases and norms all different from where they start."""
    generator = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_recorded_token_counts() -> None:
    for height, width, patch, stride, rows, columns, count in np.load(GOLDEN / "c_cmtr_embed.npz")["token_table"]:
        grid = token_grid((int(height), int(width)), int(patch), int(stride))
        assert grid == (rows, columns) and grid[0] * grid[1] == count


def test_recorded_patch_tokens() -> None:
    golden = {name: torch.as_tensor(value) for name, value in np.load(GOLDEN / "c_cmtr_embed.npz").items()}
    network = VisionTransformer(image_size=(20, 14), patch=8, stride=6, dim=5, depth=1, heads=1).double()
    assert network.grid == (int(golden["ny"]), int(golden["nx"]))
    network.patch_embed.proj.weight.data = golden["proj_weight"]
    network.patch_embed.proj.bias.data = golden["proj_bias"]  # pyright: ignore[reportOptionalMemberAccess]
    network.pos_embed.data, network.cls_token.data = golden["pos"][None], golden["cls"][None, None]
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(network.patch_embed(golden["image"]), golden["patch_tokens"], **close)
    added = golden["mod_embed"][golden["modality"]]
    torch.testing.assert_close(network.tokens(golden["image"], added), golden["seq_mod_on_all"], **close)
    patches = network.tokens(golden["image"], added, on_cls=False)
    torch.testing.assert_close(patches, golden["seq_mod_on_patches_only"], **close)
    plain = network.tokens(golden["image"])
    torch.testing.assert_close(plain, golden["seq_mod_on_all"] - added[:, None], **close)


def test_recorded_positions() -> None:
    golden = np.load(GOLDEN / "c_cmtr_embed.npz")
    source = torch.tensor(golden["pos_src"])[None]
    np.testing.assert_allclose(resized_positions(source, (21, 10))[0], golden["pos_resized_21x10"], rtol=0, atol=1e-9)
    torch.testing.assert_close(resized_positions(source, (14, 14)), source)
    half = resized_positions(source.half(), (21, 10))
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match="got 198 rows"):
        resized_positions(torch.zeros(1, 198, 3), (21, 10))


def test_conv_stem_halves_until_the_stride() -> None:
    for size in ((64, 32), (60, 30), (57, 31)):
        network = small(image_size=size, patch=8, stride=8, stem="conv")
        tokens = network.patch_embed(torch.randn(2, 3, *size))
        assert tokens.shape == (2, network.grid[0] * network.grid[1], 12) == (2, 32, 12)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convs] == [
        (3, 8, 2),
        (8, 8, 2),
        (8, 12, 2),
        (12, 12, 1),
    ]
    x = torch.randn(2, 3, 57, 31)
    embed = network.patch_embed.train()
    expected = x
    for conv in convs[:3]:
        expected = nn.functional.conv2d(expected, conv.weight, None, 2, 1)
        mean, var = expected.mean((0, 2, 3), keepdim=True), expected.var((0, 2, 3), keepdim=True, correction=0)
        expected = ((expected - mean) / (var + 1e-5).sqrt()).clamp(min=0)
    expected = torch.einsum("nchw,dc->nhwd", expected, convs[3].weight[:, :, 0, 0]) + convs[3].bias
    torch.testing.assert_close(embed(x), expected.flatten(1, 2), rtol=1e-4, atol=1e-5)


# --- blocks ---------------------------------------------------------------------------------------------------------


def layer_norm(row: list[float], norm: nn.Module) -> list[float]:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-6)
    weight, bias = norm.weight.tolist(), norm.bias.tolist()  # pyright: ignore
    return [(v - mean) / deviation * w + b for v, w, b in zip(row, weight, bias, strict=True)]


def linear(row: list[float], layer: nn.Module) -> list[float]:
    weights, biases = layer.weight.tolist(), layer.bias.tolist()  # pyright: ignore
    return [sum(w * v for w, v in zip(ws, row, strict=True)) + b for ws, b in zip(weights, biases, strict=True)]


def slow_block(tokens: list[list[float]], block: nn.Module, heads: int) -> list[list[float]]:
    """One block by loops over tokens and heads."""
    mixed = [linear(layer_norm(row, block.norm1), block.attn.qkv) for row in tokens]  # pyright: ignore
    d = len(tokens[0])
    size = d // heads
    out: list[list[float]] = []
    for i, row in enumerate(tokens):
        joined: list[float] = []
        for h in range(heads):
            query = mixed[i][h * size : (h + 1) * size]
            keys = [m[d + h * size : d + (h + 1) * size] for m in mixed]
            values = [m[2 * d + h * size : 2 * d + (h + 1) * size] for m in mixed]
            weights = [math.exp(sum(a * b for a, b in zip(query, k, strict=True)) / math.sqrt(size)) for k in keys]
            for c in range(size):
                joined.append(sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights))
        row = [a + b for a, b in zip(row, linear(joined, block.attn.proj), strict=True)]  # pyright: ignore
        hidden = linear(layer_norm(row, block.norm2), block.mlp.fc1)  # pyright: ignore
        gelu = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in hidden]
        out.append([a + b for a, b in zip(row, linear(gelu, block.mlp.fc2), strict=True)])  # pyright: ignore
    return out


def test_network_equals_loops() -> None:
    network = small(dim=6, mlp_ratio=1.5).double()
    randomize(network)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = network(images)
    assert found.shape == (2, 1 + 5 * 2, 6)
    for image, start in zip(found, network.tokens(images).tolist(), strict=True):
        tokens = start
        for block in network.blocks:
            tokens = slow_block(tokens, block, 3)
        expected = [layer_norm(row, network.norm) for row in tokens]
        torch.testing.assert_close(image, torch.tensor(expected, dtype=torch.float64))


def test_patches_reach_the_class_token_and_position_matters() -> None:
    network = small().eval()
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = network(images)[:, 0]
        assert not network(images.flip(2))[:, 0].equal(first)
        network.pos_embed.zero_()
        network.patch_embed.proj.weight.zero_()  # all patches alike, wherever they lie
        assert network(images.flip(2))[:, 0].equal(network(images)[:, 0])


# --- what is random -------------------------------------------------------------------------------------------------


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 2)
    drop = DropPath(0.25)
    out = drop(x)
    rows = out.flatten(1)
    assert (rows == rows[:, :1]).all() and sorted(set(rows[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    assert float((rows[:, 0] == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert drop.eval()(x) is x and DropPath(0.0)(x) is x
    torch.manual_seed(0)
    assert drop.train()(x).equal(out)  # torch's own generator, which a run saves
    assert drop(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_drop_path_rises_over_the_blocks() -> None:
    rates = [block.drop_path.p for block in small(depth=4, drop_path=0.3).blocks]  # pyright: ignore
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [block.drop_path.p for block in small(depth=1, drop_path=0.3).blocks] == [0.0]  # pyright: ignore


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"attention_dropout": 0.5}, {"drop_path": 0.5}])
def test_each_kind_of_dropout_acts_in_training_only(settings: dict) -> None:
    network = small(**settings)
    images = torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.manual_seed(5)
        first, other = network(images), network(images)
        torch.manual_seed(5)
        assert not first.equal(other) and network(images).equal(first)
        assert network.eval()(images).equal(small().eval()(images))


# --- names and weights ----------------------------------------------------------------------------------------------


def timm_state(dim: int, depth: int, grid: int, patch: int, mlp: int, classes: int, **extra: tuple[int, ...]) -> dict:
    """A file as timm writes it, by the shapes of its names; random values."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid * grid, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (classes, dim),
        "head.bias": (classes,),
    }
    for i in range(depth):
        for name, out, into in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", mlp, dim),
            ("mlp.fc2", dim, mlp),
        ):
            shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in {**shapes, **extra}.items()}


def embedder(**settings: object) -> ModalityTransformer:
    torch.manual_seed(0)
    return ModalityTransformer(**{**SMALL, **settings})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("nested", [True, False])
def test_a_file_of_timm_fills_the_trunk(tmp_path: Path, nested: bool) -> None:
    state = timm_state(12, 2, 14, 16, 48, 7)
    torch.save({"model": state} if nested else state, tmp_path / "vit.pth")
    network = embedder()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert sorted(load_vit(network, load_state(tmp_path / "vit.pth"))) == ["head.bias", "head.weight"]
    after = network.state_dict()
    for name, value in after.items():
        key = name.removeprefix("trunk.")
        if key == "pos_embed":
            torch.testing.assert_close(value, resized_positions(state[key], (5, 2)))
        elif name.startswith("trunk."):
            assert value.equal(state[key]), name
        else:
            assert value.equal(before[name]), name  # neck and modality embedding stay as they were
    assert {name.removeprefix("trunk.") for name in after if name.startswith("trunk.")} == {
        key for key in state if not key.startswith("head.")
    }


def test_a_distilled_file_leaves_its_second_token() -> None:
    state = timm_state(12, 2, 4, 16, 48, 7, dist_token=(1, 1, 12))
    state |= {"head_dist.weight": torch.randn(7, 12), "head_dist.bias": torch.randn(7)}
    whole = state["pos_embed"]
    state["pos_embed"] = torch.cat([whole[:, :1], torch.full((1, 1, 12), 9.0), whole[:, 1:]], 1)
    network = embedder()
    unused = ["dist_token", "head.bias", "head.weight", "head_dist.bias", "head_dist.weight"]
    assert sorted(load_vit(network, state)) == unused
    torch.testing.assert_close(network.trunk.pos_embed.data, resized_positions(whole, (5, 2)))


def test_vit_b16_has_the_published_size() -> None:
    with torch.device("meta"):
        network = ModalityTransformer(image_size=(224, 224), stride=16)
        own = network.trunk.state_dict()
        head: dict[str, Tensor] = {"head.weight": torch.empty(1000, 768), "head.bias": torch.empty(1000)}
        state = {**own, **head}
        assert len(state) == 152 and sum(value.numel() for value in state.values()) == 86_567_656
        overlapping = ModalityTransformer()
        assert overlapping.trunk.grid == (21, 10) and overlapping.trunk.pos_embed.shape == (1, 211, 768)
        assert load_vit(overlapping, state) == ["head.weight", "head.bias"]


def test_an_embedder_file_fills_everything(tmp_path: Path) -> None:
    source = embedder()
    randomize(source)
    save_embedder(source.float(), tmp_path / "embedder.safetensors")
    network = embedder()
    assert load_vit(network, load_state(tmp_path / "embedder.safetensors")) == []
    assert all(value.equal(source.state_dict()[name]) for name, value in network.state_dict().items())


def test_wrong_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no known kind: expected the names of timm.*first names are conv1.weight"):
        load_vit(embedder(), {"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight should have shape \(12, 3, 16, 16\)"):
        load_vit(embedder(), timm_state(12, 2, 4, 8, 48, 7))
    short = timm_state(12, 1, 4, 16, 48, 7)
    with pytest.raises(ValueError, match=r"blocks.1.norm1.weight \(12,\) is missing"):
        load_vit(embedder(), short)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "dim must be a multiple of heads, got dim=12 and heads=5"),
        ({"stride": 17}, r"stride lies between 1 and patch=16 .*got 17"),
        ({"stride": 0}, "got 0"),
        ({"image_size": (64, 12)}, "64x12 hold no patch of 16 pixels"),
        ({"stem": "none"}, "`stem`: expected patch or conv"),
        ({"stem": "conv"}, "one power of two, 2 or more, got patch=16 and stride=12"),
        ({"stem": "conv", "patch": 12}, "got patch=12 and stride=12"),
        ({"drop_path": 1.0}, "`drop_path`: expected number >= 0 and < 1"),
        ({"dropout": -0.1}, "`dropout`: expected number >= 0 and < 1"),
        ({"attention_dropout": 2}, "`attention_dropout`: expected number >= 0 and < 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="made for images of 64x32, got 64x48"):
        small()(torch.zeros(1, 3, 64, 48))
