"""Backbones: stages that together are the public network, strides, places of public weights, settings that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vireid.errors import ArgumentError, SettingsError
from vireid.layers.backbones.choice import BackboneSettings
from vireid.layers.backbones.lite0 import Lite0, load_lite0, public_names
from vireid.layers.backbones.resnet import HalfInstanceNorm, ResNetSettings, Stem, init_resnet, stages
from vireid.layers.backbones.vit import VisionTransformer
from vireid.layers.d2rl import UnifiedResNet, load_unified, widened
from vireid.layers.hicmd import PrototypeAttribute, load_encoders
from vireid.layers.mpanet import PatternNet, load_pattern_net
from vireid.layers.nonlocal_block import NonLocalBlock
from vireid.layers.pooling import GeM
from vireid.layers.spot import StructureTwoStreamSettings
from vireid.layers.two_stream import TwoStream
from vireid.layers.two_stream_weights import load_two_stream

pytestmark = pytest.mark.usefixtures("one_thread")
PUBLIC_NAMES = {"stem.conv": "_conv_stem", "stem.bn": "_bn0", "head.0": "_conv_head", "head.1": "_bn1"}
PUBLIC_PARTS = {
    "expand.0": "_expand_conv",
    "expand.1": "_bn0",
    "depthwise.0": "_depthwise_conv",
    "depthwise.1": "_bn1",
    "project.0": "_project_conv",
    "project.1": "_bn2",
}


@pytest.fixture(scope="module")
def lite0() -> tuple[Lite0, dict[str, Tensor]]:
    """The whole classifier with random weights and statistics, and its file under the public names."""
    torch.manual_seed(0)
    network = Lite0(classes=5)
    for name, value in network.state_dict().items():
        if "running_mean" in name:
            value.normal_(0, 0.1)
        elif "running_var" in name:
            value.uniform_(0.5, 1.5)
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if name.startswith("blocks."):
            _, block, *part, last = name.split(".")
            state[f"_blocks.{block}.{PUBLIC_PARTS['.'.join(part)]}.{last}"] = value
        else:
            part, _, last = name.rpartition(".")
            state[f"{PUBLIC_NAMES.get(part, '_fc')}.{last}"] = value
    return network.eval(), state


def test_the_public_file_fills_the_classifier(lite0: tuple[Lite0, dict[str, Tensor]]) -> None:
    network, state = lite0
    assert set(public_names(state)) == set(state)
    other = Lite0(classes=5).eval()
    assert load_lite0(other, state) == []
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert other(images).equal(network(images))


@pytest.mark.parametrize("depth", [16, 11, 4])
def test_the_stages_are_the_first_blocks_of_lite0(lite0: tuple[Lite0, dict[str, Tensor]], depth: int) -> None:
    network, state = lite0
    stream = TwoStream(backbone="lite0", depth=depth, last_stride=2, attention=False).eval()
    unused = load_two_stream(stream, state)
    assert {key for key in unused if key.startswith("_blocks.")} == {
        key for key in state if key.startswith("_blocks.") and int(key.split(".")[1]) >= depth
    }
    assert {"_fc.weight", "_conv_head.weight"} <= set(unused)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = network.blocks[:depth](network.stem(images))
        for modality in (0, 1):
            maps = stream.encode(images, torch.full((2,), modality)).maps
            torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)
    assert stream.dim == expected.shape[1] == stream.backbone.channels[-1]
    assert images.shape[2] // stream.backbone.stride == expected.shape[2]


def test_lite0_fills_the_other_networks(lite0: tuple[Lite0, dict[str, Tensor]]) -> None:
    network, state = lite0
    first = network.blocks[0].depthwise[0].weight  # pyright: ignore
    pattern = PatternNet(backbone="lite0", depth=4)
    load_pattern_net(pattern, state)
    assert pattern.trunk.get_parameter("layer1.0.depthwise.0.weight").equal(first)
    hicmd = PrototypeAttribute(backbone="lite0", depth=8, width=4, residual=1, dilations=(1, 2, 3))
    load_encoders(hicmd, state)
    third = network.blocks[3].project[0].weight  # pyright: ignore
    for name in ("attributes.0.layer2.0", "attributes.1.layer2.0", "trunk.layer2.0"):
        assert hicmd.get_parameter(f"{name}.project.0.weight").equal(third)
    unified = UnifiedResNet(backbone="lite0", depth=4, image_width=4, image_blocks=1)
    load_unified(unified, state)
    assert unified.get_parameter("stem.conv.weight").equal(widened(network.stem.conv.weight))
    gray = torch.randn(1, 1, 32, 32)  # four like channels give what three give
    with torch.no_grad():
        same = [stem.eval()(gray.expand(-1, n, -1, -1)) for stem, n in ((network.stem, 3), (unified.stem, 4))]
    assert float((same[0] - same[1]).abs().mean() / same[0].abs().mean()) < 0.05


def test_weights_of_another_backbone_are_refused(lite0: tuple[Lite0, dict[str, Tensor]]) -> None:
    _, state = lite0
    with pytest.raises(ArgumentError, match="expected the names of torchvision's resnet50"):
        load_two_stream(TwoStream(width=4, blocks=(1, 1, 1, 1)), state)
    resnet = {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(ArgumentError, match="expected the names of EfficientNet-Lite0"):
        load_two_stream(TwoStream(backbone="lite0", depth=2), resnet)


@pytest.mark.parametrize(
    ("settings", "stride", "channels"),
    [
        ({"backbone": "resnet50"}, 16, (64, 256, 512, 1024, 2048)),
        ({"backbone": "resnet50", "last_stride": 2, "width": 4}, 32, (4, 16, 32, 64, 128)),
        ({"backbone": "lite0"}, 16, (32, 24, 40, 112, 320)),
        ({"backbone": "lite0", "last_stride": 2}, 32, (32, 24, 40, 112, 320)),
        ({"backbone": "lite0", "depth": 11, "last_stride": 2}, 16, (32, 24, 40, 112, 112)),
        ({"backbone": "lite0", "depth": 5}, 8, (32, 24, 40, 40, 40)),
        ({"backbone": "lite0", "depth": 1}, 2, (32, 16, 16, 16, 16)),
        ({"backbone": "resnet50-ibn-b", "width": 8}, 16, (8, 32, 64, 128, 256)),
        ({"backbone": "vit-small", "depth": 3}, 16, (384,) * 5),
        ({"backbone": "vit-base"}, 16, (768,) * 5),
    ],
)
def test_channels_and_strides_are_those_of_the_modules(settings: dict, stride: int, channels: tuple) -> None:
    backbone = BackboneSettings(**settings).chosen()
    assert (backbone.stride, backbone.channels) == (stride, channels)
    with torch.device("meta"):
        x, shown = torch.zeros(1, 3, 64, 32), []
        for part in (backbone.stem(), *backbone.stages()):
            x = part(x)
            shown.append(x.shape[1])
    assert tuple(shown) == channels and 64 // x.shape[2] == stride


def test_ibn_a_has_the_names_and_the_count_of_the_released_network() -> None:
    with torch.device("meta"):
        backbone = BackboneSettings(backbone="resnet50-ibn-a", last_stride=2).chosen()
        stem, stages = backbone.stem(), backbone.stages()
    state = {f"layer{i}.{name}": p for i, stage in enumerate(stages, 1) for name, p in stage.state_dict().items()}
    assert sum(p.numel() for part in (stem, *stages) for p in part.parameters()) == 25_557_032 - 2048 * 1000 - 1000
    halves = {name.removesuffix(".IN.weight"): p.numel() for name, p in state.items() if name.endswith("IN.weight")}
    counts = {"layer1": (3, 32), "layer2": (4, 64), "layer3": (6, 128)}
    assert halves == {f"{layer}.{i}.bn1": half for layer, (blocks, half) in counts.items() for i in range(blocks)}
    assert state["layer1.0.bn1.BN.running_mean"].shape == (32,) and "layer1.0.bn1.IN.running_mean" not in state
    assert state["layer4.0.bn1.weight"].shape == (512,)


def test_ibn_b_has_the_names_of_the_released_network() -> None:
    with torch.device("meta"):
        backbone = BackboneSettings(backbone="resnet50-ibn-b").chosen()
        stem, stages = backbone.stem(), backbone.stages()
    assert set(stem.state_dict()) == {"conv1.weight", "bn1.weight", "bn1.bias"}
    norms = {f"layer{i}.{name}" for i, stage in enumerate(stages, 1) for name in stage.state_dict() if ".IN." in name}
    assert norms == {f"{block}.IN.{name}" for block in ("layer1.2", "layer2.3") for name in ("weight", "bias")}


def test_half_an_instance_norm_is_blind_to_the_contrast_of_a_picture() -> None:
    norm, maps = HalfInstanceNorm(5).eval(), torch.randn(2, 5, 6, 4)
    first, second = norm(maps), norm(maps * 3 + 1)
    torch.testing.assert_close(first[:, :2], second[:, :2], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(first[:, 2:], second[:, 2:])
    assert norm.half()(maps.half()).dtype == torch.float16


def test_ibn_b_normalizes_behind_the_addition() -> None:
    torch.manual_seed(0)
    block = BackboneSettings(backbone="resnet50-ibn-b", width=4, blocks=(1, 1, 1, 1)).chosen().stages()[0][0].eval()
    maps = torch.randn(2, 4, 8, 8)
    seen: list[Tensor] = []
    block.IN.register_forward_hook(lambda module, given, output: seen.append(output))  # pyright: ignore
    output = block(maps)
    torch.testing.assert_close(output, seen[0].relu())
    torch.testing.assert_close(seen[0].mean((2, 3)), torch.zeros(2, 16), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50-ibn-a", "resnet50-ibn-b"])
def test_public_weights_of_ibn_fill_both_stems(name: str) -> None:
    small = {"backbone": name, "width": 4, "blocks": (1, 1, 1, 1)}
    backbone = BackboneSettings(**small).chosen()
    parts = {"": backbone.stem(), **{f"layer{i}.": stage for i, stage in enumerate(backbone.stages(), 1)}}
    state = {
        prefix + key: torch.randn(p.shape) for prefix, part in parts.items() for key, p in part.state_dict().items()
    }
    network = TwoStream(**small)
    assert load_two_stream(network, {**state, "fc.weight": torch.zeros(1)}) == ["fc.weight"]
    assert network.infrared.get_parameter("bn1.bias").equal(state["bn1.bias"])
    norm = "layer1.0.bn1.IN.weight" if name.endswith("a") else "layer2.0.IN.weight"
    assert network.trunk.get_parameter(norm).equal(state[norm])
    with pytest.raises(ArgumentError, match="is missing"):
        load_two_stream(network, {key: value for key, value in state.items() if ".IN." not in key})


@pytest.fixture(scope="module")
def vit() -> tuple[VisionTransformer, dict[str, Tensor]]:
    """A transformer of vit-small's width with a class token, for images of 224 x 224, and its state in timm's names."""
    torch.manual_seed(0)
    network = VisionTransformer(image_size=(224, 224), stride=16, dim=384, depth=5, heads=6).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, 0.0, 0.05)
    return network, {**network.state_dict(), "head.weight": torch.zeros(1)}


def test_stages_of_a_vision_transformer_are_its_blocks(vit: tuple[VisionTransformer, dict[str, Tensor]]) -> None:
    network, state = vit
    stream = TwoStream(backbone="vit-small", depth=4, attention=False).eval()
    assert [len(layer) for layer in stream.trunk.layers] == [1, 1, 1, 2]  # and the last norm
    unused = load_two_stream(stream, state)
    assert {key.split(".")[0] for key in unused} == {"cls_token", "blocks", "head"}
    assert all(".4." in key for key in unused if key.startswith("blocks"))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = network.tokens(images)[:, 1:]  # a class token is all that the blocks below do not see
        for block in list(network.blocks)[:4]:
            tokens = block(tokens)
        maps = stream.encode(images, torch.tensor([1])).maps
        torch.testing.assert_close(maps.flatten(2).transpose(1, 2), network.norm(tokens), rtol=1e-4, atol=1e-5)


def test_the_position_code_is_read_at_any_size(vit: tuple[VisionTransformer, dict[str, Tensor]]) -> None:
    _, state = vit
    stem = BackboneSettings(backbone="vit-small").chosen().stem()
    rows = torch.arange(14.0).view(1, 1, 14, 1).expand(1, 384, 14, 14)
    with torch.no_grad():
        stem.get_parameter("proj.weight").zero_()
        stem.get_parameter("proj.bias").zero_()
        stem.get_parameter("positions").copy_(rows)
        maps = stem(torch.zeros(2, 3, 112, 70))
    assert maps.shape == (2, 384, 7, 4)
    torch.testing.assert_close(maps[1, 5, :, 2], 2 * torch.arange(7.0) + 0.5)
    larger = {**state, "pos_embed": torch.randn(1, 2 + 24 * 24, 384)}  # of 384 x 384 with a distillation token
    assert BackboneSettings(backbone="vit-small").chosen().named(larger)["stem.positions"].shape == (1, 384, 14, 14)
    with pytest.raises(ArgumentError, match="patches of 16x16 pixels, the images have 12x40"):
        stem(torch.zeros(1, 3, 12, 40))


def test_initial_spread_is_that_of_the_fan_out_of_a_group() -> None:
    torch.manual_seed(0)
    backbone = BackboneSettings(backbone="lite0", depth=12).chosen()
    last = backbone.stages()[3][0]
    backbone.init(last)
    depthwise, project = (last.get_parameter(f"{name}.0.weight").detach() for name in ("depthwise", "project"))
    assert float(depthwise.std()) == pytest.approx((2 / 25) ** 0.5, rel=0.03)
    assert float(project.std()) == pytest.approx((2 / 192) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 5}, "depth=5 cuts lite0"),
        ({"backbone": "lite0", "depth": 17}, "lite0 has 16 blocks; got depth=17"),
        ({"backbone": "vit-small", "depth": 13}, "vit-small has 12 blocks; got depth=13"),
        ({"backbone": "vit-base", "last_stride": 2}, "last_stride is 1, got 2"),
        ({"backbone": "lite0", "width": 32}, "a ResNet alone takes width"),
        ({"backbone": "lite0", "blocks": (1, 1, 1, 1)}, "a ResNet alone takes blocks"),
        ({"backbone": "resnet18"}, "`backbone`: expected resnet50 or"),
    ],
)
def test_settings_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TwoStream(**settings)


def test_networks_refuse_maps_that_they_cannot_use() -> None:
    with pytest.raises(ValueError, match="stands for 16 pixels"):
        StructureTwoStreamSettings(backbone="lite0", depth=4, tpi_heads=1)
    with pytest.raises(ValueError, match="multiple of 16 dimensions"):
        PrototypeAttribute(backbone="lite0", depth=5)


def test_non_local_blocks_take_the_channels_of_their_block() -> None:
    trunk = TwoStream(backbone="lite0", depth=9).trunk
    assert [block.bn.num_features for block in trunk.nonlocal3] == [80, 80, 112]
    assert [block.bn.num_features for block in trunk.nonlocal2] == [40, 40]


def test_gem_counts_negative_values_as_0() -> None:
    maps = torch.tensor([[[[2.0, -3.0]], [[-1.0, -1.0]]]], requires_grad=True)
    pooled = GeM()(maps)
    torch.testing.assert_close(pooled, torch.tensor([[4 ** (1 / 3), 1e-4]]))
    pooled.sum().backward()
    assert maps.grad is not None and bool(torch.isfinite(maps.grad).all()) and maps.grad[0, 1].eq(0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "lite0", "depth": 6},
        {"backbone": "vit-small", "depth": 2},
        {"backbone": "resnet50-ibn-b", "width": 4},
    ],
)
def test_onnx_equals_torch(settings: dict, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from vireid.deploy.onnx import export_onnx

    torch.manual_seed(0)
    network = TwoStream(**settings).eval()
    path = export_onnx(network, (66, 33), tmp_path / "embedder.onnx")  # odd and even sides: SAME padding differs
    session = runtime.InferenceSession(path)
    for rows in (1, 3):
        images = torch.randint(0, 256, (rows, 3, 66, 33), dtype=torch.uint8)
        modality = torch.arange(rows) % 2
        (vectors,) = session.run(None, {"images": images.numpy(), "modality": modality.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(vectors, network(images, modality), rtol=1e-3, atol=1e-4)


def test_a_seed_gives_a_resnet_the_weights_that_it_always_gave() -> None:
    form = ResNetSettings(4, (1, 2, 3, 1))
    torch.manual_seed(7)
    stem, _ = Stem(4), Stem(4)
    init_resnet(stem)
    layers = stages(form)
    for layer in layers:
        init_resnet(layer)
    blocks = [NonLocalBlock(32), NonLocalBlock(32), NonLocalBlock(64), NonLocalBlock(64), NonLocalBlock(64)]
    after = torch.rand(1)
    torch.manual_seed(7)
    network = TwoStream(width=4, blocks=(1, 2, 3, 1))
    torch.manual_seed(7)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vireid.layers.two_stream.bn_neck", torch.nn.BatchNorm1d)  # it draws the neck's weights
        TwoStream(width=4, blocks=(1, 2, 3, 1))
    assert torch.rand(1).equal(after), "as many random numbers are drawn"
    trunk = network.trunk
    pairs = [(stem, network.visible), (stem, network.infrared), *zip(layers, trunk.layers, strict=True)]
    pairs += zip(blocks, [*trunk.nonlocal2, *trunk.nonlocal3], strict=True)
    for expected, part in pairs:
        own = part.state_dict()
        assert list(own) == list(expected.state_dict())
        assert all(own[name].equal(value) for name, value in expected.state_dict().items())


def test_position_codes_of_other_grids() -> None:
    backbone = BackboneSettings(backbone="vit-small").chosen()
    rows = torch.arange(128.0).view(1, 128, 1)  # 16 rows of 8 patches, of pictures of people
    for before in (0, 1, 2):
        code = backbone.adapted("stem.positions", torch.cat([torch.full((1, before, 1), -1000.0), rows], 1))
        assert code.shape == (1, 1, 14, 14)
        across, down = code.diff(dim=3).mean(), code.diff(dim=2).mean()  # a step to the right is 1, one down is 8
        assert across > 0 and down == pytest.approx(8 * 16 / 14, rel=0.1) and float(code.min()) >= 0
    square = torch.rand(1, 198, 2)
    assert backbone.adapted("stem.positions", square)[0, :, 0, 1].equal(square[0, 3])
    with pytest.raises(ValueError, match=r"197 or 129 rows\), got 112 rows"):
        backbone.adapted("stem.positions", torch.zeros(1, 112, 2))
